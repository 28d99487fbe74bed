"""The network a training begins with: new, with weights of another, or where a run was cut off."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from humanpose3d.config import LIFTER_WEIGHTS, TrainConfig
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset
from humanpose3d.model_config import HourglassConfig, LifterConfig, ModelConfig, model_config
from humanpose3d.models import build_model
from humanpose3d.models.checkpoint import LoadedModel, load_model
from humanpose3d.models.hourglass import check_depths, parse_depths
from humanpose3d.models.hps import BodyRegressor, load_backbone_weights
from humanpose3d.models.lifter import KeypointLifter, with_window
from humanpose3d.remotes import Store
from humanpose3d.runs import find_checkpoint, named_run, resumed_config, run_of
from humanpose3d.tasks.devices import is_first_process
from humanpose3d.warp import in_view

LABELS_LOOKED_AT, MOST_OUTSIDE = 256, 0.5  # before a training on 2D labels; share of them that may be off the picture
HOURGLASS_SETTINGS = ("channels", "residual_blocks", "norm", "block", "input_size", "heatmap_sigma")
ARCHITECTURE = (
    *HOURGLASS_SETTINGS,
    "arch",
    "stacks",
    "depths",
    "use_depth",
    "window",
    "image_backbone",
    "head",
    "backbone",
)


@dataclass(frozen=True)
class Start:
    """Where a run begins: anew, from another run's weights, or where it was."""

    config: TrainConfig
    run: Path | None  # None: a new one, named by the date when it begins
    checkpoint: Path | None = None  # to resume from
    loaded: LoadedModel | None = None  # of the checkpoint to resume from, or of the one to take the weights from


def find_start(config: TrainConfig, given: Collection[str]) -> Start:
    """The run's folder (not made yet), and what it begins from. ValueError, FileNotFoundError: there is none.

    given: the settings that were said, be it with their default.
    """
    if config.model_type == "lifter" and "weights" not in given:
        config = replace(config, weights=LIFTER_WEIGHTS)
    if config.resume is None:
        loaded = None if config.checkpoint is None else load_model(config.checkpoint)
        return Start(config, _new_run(config), loaded=loaded)
    checkpoint = find_checkpoint(config.resume, config.log_dir)
    loaded = load_model(checkpoint)
    if "training" not in loaded.meta:
        raise ValueError(f"{checkpoint} holds weights alone, no run to go on with; start one with --checkpoint instead")
    settings, changes = resumed_config(config, loaded.meta["train_config"], given)
    run = run_of(checkpoint) or _new_run(config)
    if is_first_process():
        print(
            f"going on with {run or 'a new run'} from {checkpoint.name}" + "".join(f"; {change}" for change in changes),
            file=sys.stderr,
        )
    return Start(settings, run, checkpoint, loaded)


def _new_run(config: TrainConfig) -> Path | None:
    return None if config.exp is None else named_run(config.log_dir, config.exp)


def starting_network(start: Start, store: Store, given: Collection[str]) -> tuple[nn.Module, ModelConfig]:
    """The network to train. A new one speaks the skeletons of the training chunks."""
    config = start.config
    if start.loaded is not None:
        found = start.loaded.config
        if start.checkpoint is None and (found.model_type, found.size) != (config.model_type, config.model_size):
            raise ValueError(
                f"{config.checkpoint} is a {found.model_type} of size {found.size}, asked for is a {config.model_type} "
                f"of size {config.model_size}; give --model-type {found.model_type} --model-size {found.size}"
            )
        if start.checkpoint is None:
            _check_architecture(config, found, given)
        if start.checkpoint is None and isinstance(found, HourglassConfig):
            return _at_size(start.loaded.model, found, config.input_size)
        if start.checkpoint is None and isinstance(start.loaded.model, KeypointLifter):
            return _at_window(start.loaded.model, config, store)
        return start.loaded.model.train(), found
    if config.model_type == "hps":
        return _body_regressor(config)
    architecture = _hourglass(config, store) if config.model_type == "hourglass" else _lifter(config, store)
    torch.manual_seed(config.random_seed)
    return build_model(architecture, pretrained=config.pretrained), architecture


def _check_architecture(config: TrainConfig, found: ModelConfig, given: Collection[str]) -> None:
    """ValueError where a setting that was given asks for another network than that of --checkpoint."""
    own, asked = found.to_dict(), {name: getattr(config, name) for name in ARCHITECTURE if name in given}
    if isinstance(found, HourglassConfig):
        own |= {"stacks": len(found.depths), "arch": f"hg{len(found.depths)}"}
        if config.depths:
            asked["depths"] = parse_depths(config.depths)
        asked.pop("input_size", None)  # this can be changed,
    if isinstance(found, LifterConfig) and config.window > 1:
        asked.pop("window", None)  # and this made longer
    for name, value in asked.items():
        if (value or None) != (own.get(name) or None):
            its, theirs = ("none" if each in (None, "") else each for each in (own.get(name), value))
            raise ValueError(
                f"{config.checkpoint} has {name} {its}, asked for is {theirs}; leave out --{name.replace('_', '-')}, "
                "or train anew without --checkpoint"
            )


def _labels(config: TrainConfig, store: Store, *fields: str) -> StreamingChunkedDataset:
    """The training set without its pictures, from the cache that the training will read."""
    return StreamingChunkedDataset(store, fields=fields, cache_dir=config.cache_dir, cache_bytes=config.cache_gb * 1e9)


def _lifter(config: TrainConfig, store: Store) -> ModelConfig:
    """The network asked for, in the skeletons of labels and keypoints. ValueError where the chunks are not for it."""
    labels = _labels(config, store, "keypoint_window")
    if labels.skeleton is None or labels.keypoint_skeleton is None:
        missing = "labels" if labels.skeleton is None else "2D keypoints"
        raise ValueError(f"{store.location} has no {missing}: a lifter learns from 2D keypoints with 3D labels")
    if labels[0, 0].joints_cam_m is None:
        raise ValueError(f"{store.location} has 2D labels only ({labels.skeleton}): a lifter learns from 3D labels")
    _check_window(labels, config.window)
    if config.window > 1 and config.model_type != "lifter":
        raise ValueError(f"--window {config.window}: a {config.model_type} sees one frame; take --model-type lifter")
    if config.image_backbone and config.model_type != "lifter":
        raise ValueError(f"--image-backbone is the lifter's; a {config.model_type} has its own network for pictures")
    changes = {"image_backbone": config.image_backbone} if config.image_backbone else {}
    return model_config(
        config.model_type,
        config.model_size,
        use_depth=config.use_depth,
        window=config.window,
        skeleton=labels.skeleton,
        keypoint_skeleton=labels.keypoint_skeleton,
        **changes,
    )


def _check_window(labels: StreamingChunkedDataset, window: int) -> None:
    """ValueError where the samples have fewer frames of keypoints."""
    keypoints = labels[0, 0].keypoint_window
    frames = 1 if keypoints is None else len(keypoints)
    if frames < window:
        raise ValueError(
            f"{labels.store.location} has {frames} frame of keypoints a sample, --window {window} needs more; make the "
            f"chunks with dataset_chunker.py --window {window}"
        )


def _at_window(model: KeypointLifter, config: TrainConfig, store: Store) -> tuple[nn.Module, ModelConfig]:
    """The trained lifter for windows of another length; of its own where --window says nothing (1)."""
    if config.window not in (1, model.config.window):
        _check_window(_labels(config, store, "keypoint_window"), config.window)
        torch.manual_seed(config.random_seed)
        model = with_window(model, config.window)
    return model.train(), model.config


def _at_size(model: nn.Module, config: HourglassConfig, input_size: int | None) -> tuple[nn.Module, ModelConfig]:
    """The trained network for views of another size: its convolutions know none."""
    if input_size in (None, config.input_size):
        return model.train(), config
    resized = replace(config, input_size=input_size)
    check_depths(resized)
    other = build_model(resized)
    other.load_state_dict(model.state_dict())
    return other, resized


def _body_regressor(config: TrainConfig) -> tuple[nn.Module, ModelConfig]:
    """The network asked for, from published weights where they are given."""
    asked = {"head": config.head, "backbone": config.backbone or None, "input_size": config.input_size}
    changes = {name: value for name, value in asked.items() if value is not None}
    architecture = model_config("hps", config.model_size, **changes)
    torch.manual_seed(config.random_seed)
    model = build_model(architecture, pretrained=config.pretrained)
    if config.backbone_weights is not None:
        assert isinstance(model, BodyRegressor)
        load_backbone_weights(model, config.backbone_weights)
    return model, architecture


def _hourglass(config: TrainConfig, store: Store) -> ModelConfig:
    """The network asked for, in the joints of the labels. ValueError where most of these are outside the pictures."""
    labels = _labels(config, store)
    if labels.skeleton is None:
        raise ValueError(f"{store.location} has no labels: an hourglass learns from 2D joints")
    outside = labelled = 0
    for position in range(min(len(labels), LABELS_LOOKED_AT)):
        sample = labels[0, position]
        if sample.joints_px is not None and sample.joint_score is not None:
            is_labelled = np.isfinite(sample.joints_px).all(-1) & (sample.joint_score > 0)
            outside += int((is_labelled & ~in_view(sample.joints_px, sample.image_size_wh)).sum())
            labelled += int(is_labelled.sum())
    if not labelled:
        raise ValueError(f"{store.location} has no 2D labels: an hourglass learns from joints in the picture")
    if outside > MOST_OUTSIDE * labelled:
        raise ValueError(
            f"{outside} of {labelled} 2D labels of {store.location} are outside their pictures: they are in other "
            "coordinates (of the whole frame? in another order?); look with humanpose3d inspect, and chunk anew"
        )
    if outside and is_first_process():
        print(f"{outside} of {labelled} 2D labels looked at are outside their pictures: left out", file=sys.stderr)
    return hourglass_config(config, labels.skeleton)


def hourglass_config(config: TrainConfig, skeleton: str) -> HourglassConfig:
    """The preset with what the settings change. ValueError where an hourglass does not fit the input."""
    stacks = config.stacks if config.arch is None else int(config.arch.removeprefix("hg"))
    preset = model_config("hourglass", config.model_size if config.arch is None else "base", skeleton=skeleton)
    assert isinstance(preset, HourglassConfig)
    depths = parse_depths(config.depths) if config.depths else preset.depths
    if stacks is not None and len(depths) != stacks:
        if config.depths:
            raise ValueError(f"--depths {config.depths} has {len(depths)} stacks, asked for are {stacks}")
        depths = preset.depths[:1] * stacks
    asked = {name: getattr(config, name) for name in HOURGLASS_SETTINGS if getattr(config, name) is not None}
    changed = replace(preset, depths=depths, **asked)
    check_depths(changed)
    return changed
