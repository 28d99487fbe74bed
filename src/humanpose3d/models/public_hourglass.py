"""Published weights of the stacked hourglass -> our network: princeton-vl/pytorch_stacked_hourglass's checkpoints.

Their file `exp/<name>/checkpoint.pt` is {"state_dict", "optimizer", "epoch"}; it is read as tensors and numbers alone,
nothing in it is run. The number of stacks, the channels and the joints are read off the weights' shapes; the joints
are MPII's sixteen in its order, the input an RGB picture in 0..1. Which name of theirs is which of ours: `_NAMES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from humanpose3d.model_config import HourglassConfig

JOINTS = "mpii_16"
DEPTH = 4  # of each of their hourglasses
_RESIDUAL = ((r"bn(\d)\.", r"norm\1."), (r"conv(\d)\.conv\.", r"conv\1."), (r"skip_layer\.conv\.", "skip."))
_NAMES = (
    (r"^pre\.0\.conv\.", "stem.0.0."),
    (r"^pre\.0\.bn\.", "stem.0.1."),
    (r"^pre\.(\d)\.", r"stem.\1.0."),
    (r"^hgs\.(\d+)\.0\.", r"stacks.\1.hourglass."),
    (r"^features\.(\d+)\.0\.", r"stacks.\1.features.0.0."),
    (r"^features\.(\d+)\.1\.conv\.", r"stacks.\1.features.1.0."),
    (r"^features\.(\d+)\.1\.bn\.", r"stacks.\1.features.1.1."),
    (r"^outs\.(\d+)\.conv\.", r"stacks.\1.heatmaps."),
    (r"^merge_features\.(\d+)\.conv\.conv\.", r"stacks.\1.merge_features."),
    (r"^merge_preds\.(\d+)\.conv\.conv\.", r"stacks.\1.merge_heatmaps."),
)
_OF_AN_HOURGLASS = (("up1.", "skip.0."), ("low1.", "enter.0."), ("low3.", "leave.0."))


def is_public(state: Mapping[str, object]) -> bool:
    """Whether the names of the weights are theirs."""
    return any(re.match(r"(?:model\.)?(?:module\.)?hgs\.0\.0\.up1\.", name) for name in state)


def from_public(state: Mapping[str, Tensor]) -> tuple[HourglassConfig, dict[str, Tensor]]:
    """(the network they are of, its weights by our names). ValueError where a weight is none of theirs."""
    plain = {re.sub(r"^(?:model\.)?(?:module\.)?", "", name): value for name, value in state.items()}
    stacks = 1 + max(int(match[1]) for name in plain if (match := re.match(r"outs\.(\d+)\.", name)))
    joints, channels = plain["outs.0.conv.weight"].shape[:2]
    if joints != 16:
        raise ValueError(f"its heat maps are of {joints} joints; the published ones are of MPII's 16")
    config = HourglassConfig(size="base", skeleton=JOINTS, channels=channels, depths=(DEPTH,) * stacks)
    ours = {name: value for theirs, value in plain.items() if (name := _our_name(theirs, plain)) is not None}
    return config, ours


def _our_name(name: str, state: Mapping[str, Tensor]) -> str | None:
    """None of a weight that their forward pass never uses: each residual of theirs has a skip layer."""
    prefix, is_skip, _ = name.partition("skip_layer.")
    if is_skip:
        inputs, outputs = state[f"{prefix}conv1.conv.weight"].shape[1], state[f"{prefix}conv3.conv.weight"].shape[0]
        if inputs == outputs:
            return None
    found = name
    for pattern, replacement in _NAMES:
        found, number = re.subn(pattern, replacement, found)
        if number:
            break
    else:
        raise ValueError(f"weight '{name}' is none of the published network's")
    # low2 is the next smaller hourglass, and the residual in the middle of the smallest.
    found = re.sub(r"low2\.(?=up1|low)", "inner.", found).replace("low2.", "inner.0.")
    for theirs, ours in _OF_AN_HOURGLASS:
        found = found.replace(theirs, ours)
    for pattern, replacement in _RESIDUAL:
        found = re.sub(pattern, replacement, found)
    return found
