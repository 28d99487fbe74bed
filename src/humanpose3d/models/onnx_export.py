"""A keypoint lifter as an ONNX file, checked against ONNX Runtime as it is written. Needs `humanpose3d[onnx]`.

Inputs, any number B of people: keypoints_px [B Jin 2], score [B Jin] (0: missing), intrinsics [B 3 3]; with depth,
depth_m [B Jin 2], depth around each keypoint and its spread, metres (0: unknown); with a window of T frames,
keypoint_window [B T Jin 3] (x, y, score) and window_time_s [B T], seconds from the person's own frame. All float32.
The file's metadata name the `keypoints` and `joints`. These are where the network was trained to put them: infer.py
moves some, unless it is told `--joint-definitions trained`.
Outputs: joints_rel_m [B J 3], root_cam_m [B 3], log_error_m [B J], as `models.common.PosePrediction`.
"""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from humanpose3d.files import write_whole
from humanpose3d.models.lifter import KeypointLifter
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton

AGREES_TO = 1e-4  # metres, of joints within a few of them
CHECKED_WITH = 5  # people; another number than the file is made with
OUTPUTS = ("joints_rel_m", "root_cam_m", "log_error_m")


class _Plain(nn.Module):
    """The lifter on tensors alone."""

    def __init__(self, lifter: KeypointLifter) -> None:
        super().__init__()
        self.lifter = lifter

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        config, (keypoints_px, score, intrinsics, *rest) = self.lifter.config, inputs
        depth_m = rest.pop(0) if config.use_depth else None
        window, time_s = rest if config.window > 1 else (None, None)
        batch = PoseBatch(
            keys=[], subjects=[], actions=[], counted=score, image=None, depth_m=None, keypoints_px=keypoints_px,
            keypoint_score=score, keypoint_mask=score > 0, intrinsics=intrinsics, image_size_wh=score, joints_px=None,
            joints_cam_m=None, joint_mask=None, joint_in_view=None, keypoint_depth_m=depth_m,
            keypoint_depth_mask=None if depth_m is None else depth_m[..., 0] > 0, keypoint_window=window,
            window_mask=None if window is None else window[..., 2] > 0, window_time_s=time_s,
        )  # fmt: skip
        prediction = self.lifter(batch)
        return prediction.joints_rel_m, prediction.root_cam_m, prediction.log_error_m


def export_onnx(model: nn.Module, path: Path) -> float:
    """Write the file; the largest difference from ONNX Runtime's answer, metres.

    ValueError: no keypoint lifter, one that looks at pictures, packages that are missing, or answers that differ.
    """
    if not isinstance(model, KeypointLifter) or model.config.image_backbone:
        raise ValueError("--export onnx knows the lifter on keypoints alone, no network that sees pictures")
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter writes by it)
    except ImportError as error:
        told = f"--export onnx needs packages that are not here ({error.name}): pip install 'humanpose3d[onnx]'"
        raise ValueError(told) from None
    plain = _Plain(model.cpu().float().eval())
    inputs = _example(model, CHECKED_WITH - 2)
    people = torch.export.Dim("people")
    for chatty in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        shapes = (tuple({0: people} for _ in inputs),)
        program = torch.onnx.export(
            plain, inputs, dynamo=True, input_names=_names(model), output_names=list(OUTPUTS), dynamic_shapes=shapes
        )
    assert program is not None
    for name, skeleton in (("keypoints", model.config.keypoint_skeleton), ("joints", model.config.skeleton)):
        program.model_proto.metadata_props.add(key=name, value=" ".join(get_skeleton(skeleton).joints))
    content = program.model_proto.SerializeToString()
    asked = _example(model, CHECKED_WITH)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    answers = session.run(None, {name: value.numpy() for name, value in zip(_names(model), asked, strict=True)})
    with torch.inference_mode():
        expected = plain(*asked)
    worst = max(float(np.abs(ours.numpy() - theirs).max()) for ours, theirs in zip(expected, answers, strict=True))
    if not worst < AGREES_TO:
        raise ValueError(f"ONNX Runtime's answer is {worst:.2g} off ours; the file is not written")
    write_whole(path, content)
    return worst


def _names(model: KeypointLifter) -> list[str]:
    names = ["keypoints_px", "score", "intrinsics"]
    names += ["depth_m"] if model.config.use_depth else []
    return names + (["keypoint_window", "window_time_s"] if model.config.window > 1 else [])


def _example(model: KeypointLifter, size: int) -> tuple[Tensor, ...]:
    """People with everything that may be missing missing somewhere."""
    generator = torch.Generator().manual_seed(size)
    joints, frames = len(get_skeleton(model.config.keypoint_skeleton)), model.config.window

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    points = uniform(60.0, 260.0, size, joints, 2)
    score = uniform(0.1, 1.0, size, joints)
    score[0, :3] = 0.0
    intrinsics = torch.tensor([[500.0, 0.0, 159.5], [0.0, 500.0, 119.5], [0.0, 0.0, 1.0]]).repeat(size, 1, 1)
    inputs = [points, score, intrinsics]
    if model.config.use_depth:
        depth = torch.stack([uniform(3.0, 4.0, size, joints), uniform(0.0, 0.2, size, joints)], dim=-1)
        depth[1], depth[2, 5] = 0.0, 0.0
        inputs.append(depth)
    if frames > 1:
        window = torch.cat([points, score[..., None]], dim=-1)[:, None] + 0.01 * uniform(0, 1, size, frames, joints, 3)
        window[2, : frames // 3, :, 2] = 0.0
        inputs += [window, torch.linspace(-1.0, 1.0, frames).repeat(size, 1)]
    return tuple(inputs)
