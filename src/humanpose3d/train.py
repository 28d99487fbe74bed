"""Chunks -> checkpoints and TensorBoard, on lightning: the trainer put together; and the measuring of a checkpoint.

What goes with a model is `tasks/`'s, a step and what follows it `tasks/training.py`'s, run folders `runs.py`'s.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import orjson
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from humanpose3d.chunks.layout import has_chunks, read_index
from humanpose3d.config import LIFTER_WEIGHTS, LossWeights, TrainConfig
from humanpose3d.dataset.augmentation import FitView, PoseAugmentor
from humanpose3d.dataset.chunked_dataset import Source, StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.dataset.keypoint_batches import KeypointDecoder
from humanpose3d.dataset.mix import DatasetMix, parse_mix
from humanpose3d.estimators.weights import sha256_of
from humanpose3d.files import make_folder, scratch_folder, write_report, write_whole
from humanpose3d.metrics import SCORED_BODY, BodyMetrics
from humanpose3d.model_config import HEATMAP_STRIDE, BodyConfig, HourglassConfig, ModelConfig, model_config
from humanpose3d.models import build_model
from humanpose3d.models.checkpoint import LoadedModel, describe, find_packaged, load_model
from humanpose3d.models.hourglass import check_depths, parse_depths
from humanpose3d.models.hps import BodyRegressor, load_backbone_weights
from humanpose3d.models.lifter import KeypointLifter, with_window
from humanpose3d.remotes import Store, open_store
from humanpose3d.reports import StageReport, progress
from humanpose3d.runs import (
    BEST,
    LAST,
    checkpoints_folder,
    find_checkpoint,
    new_run,
    resumed_config,
    run_of,
    settings_dict,
    write_settings,
)
from humanpose3d.skeletons import get_skeleton
from humanpose3d.tasks import TASKS, BodyTask, HeatmapTask, LiftingTask, Task
from humanpose3d.tasks.body_joints import JOINTS_FILE, write_joints
from humanpose3d.tasks.devices import is_first_process, precision_of, processes_of, strategy_of, train_device
from humanpose3d.tasks.evaluation import Scores, evaluate, mean_pose, score_mean_pose
from humanpose3d.tasks.heatmaps import Decoding
from humanpose3d.tasks.protocol_report import report_protocol
from humanpose3d.tasks.protocol_scores import ProtocolEvaluation, read_frames
from humanpose3d.tasks.protocols import check_model
from humanpose3d.tasks.training import Loaders, RunKeeper, TrainingBar, TrainingModule
from humanpose3d.tasks.watching import StepProfiler
from humanpose3d.visualize.panels import encode_png
from humanpose3d.warp import in_view

PREVIEWS = 4  # validation pictures in TensorBoard
LABEL_BATCH = 256  # samples at a time where only labels are read
LABELS_LOOKED_AT, MOST_OUTSIDE = 256, 0.5  # before a training on 2D labels; share of them that may be off the picture
HOURGLASS_SETTINGS = ("channels", "residual_blocks", "norm", "block", "input_size", "heatmap_sigma")


def train_model(config: TrainConfig) -> StageReport:
    """Train, go on with a run, or, with `evaluate`, measure a checkpoint. Writes <stage>_report.json into the run.

    ValueError and OSError say in one line what is wrong with the request or the data.
    """
    if config.evaluate:
        return evaluate_checkpoint(config)
    if config.protocol is not None:
        raise ValueError("--protocol says how to measure; it goes with --evaluate --checkpoint PATH")
    if config.max_steps == 0 or config.max_steps < -1:
        raise ValueError(f"--max-steps {config.max_steps} trains nothing; give a number above 0, or -1 for no limit")
    with _quiet_lightning():
        if not config.fast_dev_run:
            return _train(config)
        if config.resume is not None:
            raise ValueError("--fast-dev-run is a run of its own; leave out --resume")
        with scratch_folder() as folder:
            report = _train(replace(config, log_dir=folder, exp=None, epochs=1))
        report.summary = "one training and one validation batch went through everything; nothing is kept"
        return report


def evaluate_checkpoint(config: TrainConfig) -> StageReport:
    """The scores of `config.checkpoint` on the validation chunks, beside those of the mean training pose.

    facts: mpjpe_mm, pa_mpjpe_mm, absolute_mpjpe_mm, root_error_mm, mean_pose_mpjpe_mm (None without training chunks),
    by_action, by_group (facing, posture, crossed limbs: tasks/groups.py), by_joint_mm, previews. Writes
    evaluate_report.json and evaluate_preview_<n>.png into the checkpoint's run, beside a file that lies in none, and
    below log_dir for one that came with the package. An hourglass is scored by pck_percent and error_px.
    With `protocol` it is measured as published instead, and the facts are those of `tasks.protocol_report`.
    """
    if config.checkpoint is None:
        raise ValueError("--evaluate needs --checkpoint PATH, such as logs/RUN/checkpoints/best_model.pth")
    report = StageReport("evaluate")
    device = train_device(config.device)
    loaded = load_model(config.checkpoint, device)
    if config.protocol is not None:
        return _evaluate_by_protocol(config, report, loaded, device)
    train_store, val_store = find_sets(config, evaluating=True)
    val_set = _validation_set(config, val_store, loaded.config)
    task = _task_of(config, loaded)
    scores = _measure(loaded, task, _validation_loader(config, val_set, loaded.config), device)
    lifts = isinstance(task, LiftingTask)
    pose_mpjpe_mm = mean_pose_error(config, train_store, val_store, loaded.config) if train_store and lifts else None
    if isinstance(task, BodyTask):
        report.facts["predicted_joints"] = _write_joints(config, loaded, task, val_set, _report_folder(config))
        if train_store is not None:
            report.facts["mean_pose_pa_mpjpe_mm"] = mean_pose_error(
                config, train_store, val_store, loaded.config, "pa_mpjpe_mm"
            )
    _add_scores(report, scores, task)
    report.inputs = len(val_set)
    report.facts |= {
        "checkpoint": str(config.checkpoint),
        "model_type": loaded.config.model_type,
        "skeleton": loaded.config.skeleton,
        "subjects": sorted({name for entry in val_set.entries for name in entry.subjects}),
        **({"mean_pose_mpjpe_mm": pose_mpjpe_mm} if lifts else {}),
        "by_action": scores.by_part.get("action", {}),  # none where the corpus names no actions
        "by_group": {kind: parts for kind, parts in scores.by_part.items() if kind != "action"},
    }
    of = task.criterion
    report.notes += [
        f"{kind}: "
        + ", ".join(f"{name} {part[of.name]:.1f} {of.unit} ({part['samples']})" for name, part in parts.items())
        for kind, parts in report.facts["by_group"].items()
    ]
    beside = "" if pose_mpjpe_mm is None else f"; always answering the mean training pose: {pose_mpjpe_mm:.1f} mm"
    report.summary = f"{_in_words(scores, task)} on {scores.samples} samples of {val_store.location}{beside}"
    folder = _report_folder(config)
    report.facts["previews"] = [str(path) for path in _write_previews(folder, scores.previews)]
    write_report(folder, report)
    return report


def _write_previews(folder: Path, pictures: Sequence[np.ndarray]) -> list[Path]:
    """evaluate_preview_0.png ...: what the model says of the first samples beside the truth."""
    make_folder(folder)
    paths = [folder / f"evaluate_preview_{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        write_whole(path, encode_png(picture))
    return paths


def _report_folder(config: TrainConfig) -> Path:
    """Of a checkpoint's evaluation: its run, or where it lies; for one that came with the package, below log_dir."""
    assert config.checkpoint is not None
    if find_packaged(config.checkpoint) is not None:
        return config.log_dir / config.checkpoint.name
    return run_of(config.checkpoint) or config.checkpoint.parent


def _evaluate_by_protocol(
    config: TrainConfig, report: StageReport, loaded: LoadedModel, device: torch.device
) -> StageReport:
    assert config.protocol is not None and config.checkpoint is not None
    own = loaded.config
    dimensions = 2 if isinstance(own, HourglassConfig) else 3
    skeleton = SCORED_BODY.name if isinstance(own, BodyConfig) else own.skeleton
    protocol = check_model(config.protocol, own.model_type, skeleton, dimensions)
    _, store = find_sets(config, evaluating=True)
    labelled_in = read_index(store).skeleton
    if labelled_in is None:
        raise ValueError(f"{store.location} has no labels, so nothing can be measured on it")
    # The loader speaks the labels' skeleton, the network its own; the protocol takes from both what both have.
    is_body = isinstance(own, BodyConfig)
    spoken = own if is_body else replace(own, skeleton=labelled_in)
    names = _dataset(config, store, config.val_chunks, spoken, fields=(), shuffle=False)
    samples = (names[0, position] for position in range(len(names)))
    evaluation = ProtocolEvaluation(
        protocol,
        read_frames(samples, protocol),
        get_skeleton(skeleton),
        SCORED_BODY if is_body else get_skeleton(labelled_in),
    )
    loader = _validation_loader(config, _validation_set(config, store, spoken), spoken)
    task, of_bodies = _task_of(config, loaded), BodyMetrics().to(device)
    with torch.inference_mode(), progress("evaluate", len(loader.dataset)) as bar:
        for batch in loader:
            task.check_labels(batch)
            batch = batch.to(device)
            prediction: Any = task.predict(loaded.model, batch)
            evaluation.update(batch.keys, task.measurable(prediction, batch), batch.counted)
            if isinstance(task, BodyTask):
                scored = torch.tensor([key in evaluation.keys for key in batch.keys], device=device)
                of_bodies.update(prediction, replace(batch, counted=batch.counted & scored))
            bar.advance(len(batch))
    for name, reason in loader.quarantined.items():
        report.skip(name, reason)
    report.inputs = len(names)
    about = {
        "checkpoint": str(config.checkpoint),
        "checkpoint_sha256": sha256_of(find_packaged(config.checkpoint) or config.checkpoint),
        "model_type": own.model_type,
        "skeleton": skeleton,
    }
    if isinstance(task, BodyTask):
        figures = of_bodies.compute()
        about["bodies"] = "per-vertex error {:.1f} mm, error of the rotations {:.1f} degrees".format(
            *(float(figures[name]) for name in ("vertex_error_mm", "pose_error_deg"))
        )
        val_set = _validation_set(config, store, own)
        about["predicted_joints"] = _write_joints(config, loaded, task, val_set, _report_folder(config))
    if isinstance(task, HeatmapTask):
        flipped = ", mean with the mirrored picture's" if config.flip_test else ""
        about["decoding"] = f"{config.decoder} from heat maps of {own.input_size // HEATMAP_STRIDE} px{flipped}"
    if config.val_keypoint_noise:
        about["keypoint_noise"] = (
            f"a detector's errors of strength {config.val_keypoint_noise:g} added to exact keypoints"
        )
    return report_protocol(report, _report_folder(config), config.protocol, evaluation, about)


def mean_pose_error(
    config: TrainConfig, train_store: Store, val_store: Store, model: ModelConfig, metric: str = "mpjpe_mm"
) -> float:
    """In mm, on the validation chunks, of always answering with the mean pose of the training chunks."""
    skeleton = get_skeleton(model.skeleton)
    stores = [part.store for part in find_mix(config)] or [train_store]
    training = [_labels(config, store, config.train_chunks, model) for store in stores]
    with progress("mean training pose", sum(len(part.dataset) for part in training)) as bar:
        pose_m = mean_pose(chain.from_iterable(training), skeleton, advance=bar.advance)
    return score_mean_pose(pose_m, _labels(config, val_store, config.val_chunks, model), skeleton, metric)


def find_sets(config: TrainConfig, *, evaluating: bool = False) -> tuple[Store | None, Store]:
    """(training chunks, validation chunks) under ROOT and --val-dir. Training chunks may be absent when evaluating.

    With --mix: its first set's (`find_mix` has them all), and those of --val-dir, of ROOT or of a set of the mix.
    """
    if config.mix:
        return _find_sets_of_mix(config)
    if config.chunks_dir is None:
        raise ValueError("say where the chunks are: --chunks-dir ROOT, or several sets as --mix NAME=ROOT:WEIGHT ...")
    root = open_store(config.chunks_dir)
    folders = root.folders()
    train, held_out = _training_chunks(root, folders), _held_out(root, folders, config)
    val = open_store(config.val_dir) if config.val_dir is not None else held_out
    if train is None and not (evaluating and val is not None):
        raise FileNotFoundError(
            f"{root.location} holds no chunks: --chunks-dir takes a folder or remote:path with train/ and test/ (or "
            "val/), or one folder of chunks beside --val-dir; dataset_split.py and dataset_rechunker.py make them"
        )
    if val is None:
        raise FileNotFoundError(f"{root.location} has no validation chunks: neither val/ nor test/; give --val-dir")
    return train, val


class MixedStore(NamedTuple):
    """One set of --mix: its training chunks."""

    name: str
    store: Store
    weight: float


def find_mix(config: TrainConfig) -> list[MixedStore]:
    """The training chunks of each set of --mix; none without it. FileNotFoundError, ValueError name the set."""
    if config.mix and config.train_chunks:
        raise ValueError(
            "--train-chunks chooses from --chunks-dir; with --mix each set has its own numbers, leave it out"
        )
    found = []
    for name, location, weight in parse_mix(config.mix):
        root = open_store(location)
        store = _training_chunks(root, root.folders())
        if store is None:
            raise FileNotFoundError(
                f"--mix {name}: {root.location} holds no chunks: ROOT is a folder or remote:path with train/, or one "
                "folder of chunks; its weight stands after the last colon"
            )
        found.append(MixedStore(name, store, weight))
    return found


def _find_sets_of_mix(config: TrainConfig) -> tuple[Store, Store]:
    first = find_mix(config)[0].store
    if config.val_dir is not None:
        return first, open_store(config.val_dir)
    roots = [item.root for item in parse_mix(config.mix)] if config.chunks_dir is None else [config.chunks_dir]
    for root in map(open_store, roots):
        if (val := _held_out(root, root.folders(), config)) is not None:
            return first, val
    raise FileNotFoundError(f"{', '.join(roots)}: no validation chunks, neither val/ nor test/; give --val-dir")


def _training_chunks(root: Store, folders: Collection[str]) -> Store | None:
    return root.child("train") if "train" in folders else root if has_chunks(root) else None


def _held_out(root: Store, folders: Collection[str], config: TrainConfig) -> Store | None:
    """Training is judged by val/ where there is one, and test/ is for the published protocols."""
    order = ("val", "test") if config.protocol is None else ("test", "val")
    return next((root.child(name) for name in order if name in folders), None)


@dataclass(frozen=True)
class _Start:
    """Where a run begins: anew, from another run's weights, or where it was."""

    config: TrainConfig
    run: Path
    checkpoint: Path | None = None  # to resume from
    loaded: LoadedModel | None = None  # of the checkpoint to resume from, or of the one to take the weights from


def _train(config: TrainConfig) -> StageReport:
    report = StageReport("train")
    start = _start(config)
    config = start.config
    train_store, val_store = find_sets(config)
    assert train_store is not None
    model, architecture = _model(start, train_store)
    task = TASKS[architecture.model_type](architecture, config)
    train_set = _training_set(config, train_store, architecture)
    val_set = _validation_set(config, val_store, architecture)

    def make_loaders(rank: int, world_size: int) -> Loaders:
        return Loaders(
            _training_loader(config, train_set, architecture, rank, world_size),
            _validation_loader(config, val_set, architecture, rank, world_size),
        )

    make_loaders(0, 1)  # what is wrong with the request shows before the run's folder is made
    entry = describe(architecture, orjson.dumps(settings_dict(config)).decode())
    if config.compile:
        model.compile()  # in place, so that the weights keep their names
    module = TrainingModule(model, task, config, make_loaders, entry)
    keeper = RunKeeper(start.run, config, _validator(config, task))
    trainer = _trainer(config, keeper, architecture)
    if is_first_process():
        make_folder(checkpoints_folder(start.run))
        write_settings(start.run, config)
    _fit(trainer, module, start)
    _report_training(report, start, trainer, module, keeper)
    best = checkpoints_folder(start.run) / BEST
    if isinstance(task, BodyTask) and trainer.is_global_zero and best.is_file() and not config.fast_dev_run:
        loaded = load_model(best, train_device(config.device))
        report.facts["predicted_joints"] = _write_joints(config, loaded, task, val_set, start.run)
    if trainer.is_global_zero:
        write_report(start.run, report)
    else:
        report.summary = f"process {trainer.global_rank}: done"
    return report


def _start(config: TrainConfig) -> _Start:
    if config.resume is None:
        run = new_run(config.log_dir, config.exp) if is_first_process() else config.log_dir / "another-process"
        loaded = None if config.checkpoint is None else load_model(config.checkpoint)
        if config.model_type == "lifter" and config.weights == LossWeights():
            config = replace(config, weights=LIFTER_WEIGHTS)
        return _Start(config, run, loaded=loaded)
    checkpoint = find_checkpoint(config.resume, config.log_dir)
    loaded = load_model(checkpoint)
    if "training" not in loaded.meta:
        raise ValueError(f"{checkpoint} holds weights alone, no run to go on with; start one with --checkpoint instead")
    settings, changes = resumed_config(config, loaded.meta["train_config"])
    run = run_of(checkpoint) or new_run(config.log_dir, config.exp)
    if is_first_process():
        print(
            f"going on with {run} from {checkpoint.name}" + "".join(f"; {change}" for change in changes),
            file=sys.stderr,
        )
    return _Start(settings, run, checkpoint, loaded)


def _model(start: _Start, store: Store) -> tuple[nn.Module, ModelConfig]:
    """The network to train. A new one speaks the skeletons of the training chunks."""
    config = start.config
    if start.loaded is not None:
        found = start.loaded.config
        if start.checkpoint is None and (found.model_type, found.size) != (config.model_type, config.model_size):
            raise ValueError(
                f"{config.checkpoint} is a {found.model_type} of size {found.size}, asked for is a {config.model_type} "
                f"of size {config.model_size}; give --model-type {found.model_type} --model-size {found.size}"
            )
        if start.checkpoint is None and isinstance(found, HourglassConfig):
            return _at_size(start.loaded.model, found, config.input_size)
        if start.checkpoint is None and isinstance(start.loaded.model, KeypointLifter):
            return _at_window(start.loaded.model, config, store)
        return start.loaded.model.train(), found
    if config.model_type == "hps":
        return _body_regressor(config)
    if config.model_type == "hourglass":
        architecture = _hourglass(config, store)
        torch.manual_seed(config.random_seed)
        return build_model(architecture, pretrained=config.pretrained), architecture
    labels = StreamingChunkedDataset(store, fields=("keypoint_window",))
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
    architecture = model_config(
        config.model_type,
        config.model_size,
        use_depth=config.use_depth,
        window=config.window,
        skeleton=labels.skeleton,
        keypoint_skeleton=labels.keypoint_skeleton,
        **changes,
    )
    torch.manual_seed(config.random_seed)
    return build_model(architecture, pretrained=config.pretrained), architecture


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
        _check_window(StreamingChunkedDataset(store, fields=("keypoint_window",)), config.window)
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
    labels = StreamingChunkedDataset(store, fields=())
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


def _training_set(config: TrainConfig, store: Store, model: ModelConfig) -> Source:
    transform = PoseAugmentor(config.augmentation, model.input_size)
    options: dict[str, Any] = {"fields": model.needs, "transform": transform}
    if not config.mix:
        return _dataset(config, store, config.train_chunks, model, **options)
    mix = find_mix(config)
    sets = [_dataset(config, part.store, (), model, name=part.name, **options) for part in mix]
    return DatasetMix(sets, [part.weight for part in mix])


def _validation_set(config: TrainConfig, store: Store, model: ModelConfig) -> StreamingChunkedDataset:
    transform = FitView(model.input_size)
    return _dataset(config, store, config.val_chunks, model, fields=model.needs, transform=transform, shuffle=False)


def _labels(config: TrainConfig, store: Store, chunks: tuple[int, ...], model: ModelConfig) -> StreamingLoader:
    """Batches without pixels: nothing but metadata is read."""
    transform = FitView(model.input_size)
    dataset = _dataset(config, store, chunks, model, fields=(), transform=transform, shuffle=False)
    bodies = isinstance(model, BodyConfig)
    collate = Human36MCollator(
        model.skeleton, model.keypoint_skeleton, depth=False, keypoints=model.reads_keypoints, bodies=bodies
    )
    return StreamingLoader(dataset, global_batch=LABEL_BATCH, collate=collate, training=False)


def _dataset(
    config: TrainConfig, store: Store, chunks: tuple[int, ...], model: ModelConfig, **options: Any
) -> StreamingChunkedDataset:
    """ValueError where the chunks speak other skeletons than the model, or have no pictures for it."""
    dataset = StreamingChunkedDataset(
        store,
        chunks=chunks,
        seed=config.random_seed,
        cache_dir=config.cache_dir,
        cache_bytes=config.cache_gb * 1e9,
        **options,
    )
    for what, found, wanted in (
        ("labels", dataset.skeleton, model.skeleton),
        ("2D keypoints", dataset.keypoint_skeleton if model.reads_keypoints else "", model.keypoint_skeleton),
    ):
        if isinstance(model, BodyConfig) and found is not None:
            continue  # joints that mark the same points are taken from any labels
        if found != wanted and found != "":
            where = f"{dataset.name}: {store.location}" if dataset.name else store.location
            raise ValueError(f"{where} has {what} in skeleton {found}, the model is made for {wanted}")
    if "image" in dataset.fields:
        _look_for_pictures(dataset, store, model)
    return dataset


def _look_for_pictures(dataset: StreamingChunkedDataset, store: Store, model: ModelConfig) -> None:
    """ValueError where the first sample has none; a word where a model that sees depth finds no map."""
    first = dataset[0, 0]
    if first.image is None:
        raise ValueError(
            f"{store.location} has no pictures, and the {model.model_type} looks at them; make the chunks from images, "
            "or train a lifter on keypoints alone (--model-type lifter)"
        )
    if model.use_depth and first.depth_m is None and is_first_process():
        print(f"{store.location} has no depth maps: the model sees none (as with --no-use-depth)", file=sys.stderr)


def _training_loader(
    config: TrainConfig, dataset: Source, model: ModelConfig, rank: int = 0, world_size: int = 1
) -> StreamingLoader:
    return _loader(config, dataset, model, rank, world_size, training=True, stream_groups=config.stream_groups)


def _validation_loader(
    config: TrainConfig, dataset: StreamingChunkedDataset, model: ModelConfig, rank: int = 0, world_size: int = 1
) -> StreamingLoader:
    return _loader(
        replace(config, batch_size=config.val_batch_size or config.batch_size),
        dataset,
        model,
        rank,
        world_size,
        training=False,
    )


def _loader(
    config: TrainConfig,
    dataset: Source,
    model: ModelConfig,
    rank: int,
    world_size: int,
    **options: Any,
) -> StreamingLoader:
    if "image" in model.needs:
        options["collate"] = Human36MCollator(
            model.skeleton,
            model.keypoint_skeleton,
            depth=model.use_depth,
            keypoints=model.reads_keypoints,
            bodies=isinstance(model, BodyConfig),
        )
    else:
        options["decoder"] = KeypointDecoder(
            model.skeleton,
            model.keypoint_skeleton,
            depth=model.use_depth,
            window=model.window,
            augmentation=config.augmentation if options["training"] else None,
            noise=0.0 if options["training"] else config.val_keypoint_noise,
        )
    return StreamingLoader(
        dataset,
        global_batch=config.batch_size,
        rank=rank,
        world_size=world_size,
        num_workers=config.num_workers,
        prefetch=config.prefetch,
        **options,
    )


def _write_joints(
    config: TrainConfig, loaded: LoadedModel, task: BodyTask, val_set: StreamingChunkedDataset, folder: Path
) -> str:
    """test_pred_joints.csv of the validation set, beside a report."""
    loader = _validation_loader(config, val_set, loaded.config)
    return str(write_joints(folder / JOINTS_FILE, loaded.model, task, loader))


def _validator(config: TrainConfig, task: Task) -> Callable[[nn.Module, StreamingLoader], Scores]:
    def validate(model: nn.Module, loader: StreamingLoader) -> Scores:
        batches: Iterable = islice(loader, 1) if config.fast_dev_run else loader
        device = next(model.parameters()).device
        return evaluate(model, task, batches, device=device, previews=PREVIEWS)

    return validate


def _task_of(config: TrainConfig, loaded: LoadedModel) -> Task:
    """What a checkpoint was trained for, with the loss it was trained with."""
    if isinstance(loaded.config, BodyConfig):
        return BodyTask(loaded.config, config.body_weights, config.body_model)
    if isinstance(loaded.config, HourglassConfig):
        return HeatmapTask(loaded.config, LossWeights(), "absolute", Decoding(config.decoder, config.flip_test))
    trained_with = loaded.meta["train_config"]
    weights = LossWeights(**trained_with["weights"]) if "weights" in trained_with else LossWeights()
    target = trained_with.get("target", "root_relative")
    return LiftingTask(loaded.config, weights, target)


def _measure(loaded: LoadedModel, task: Task, loader: StreamingLoader, device: torch.device) -> Scores:
    with torch.inference_mode(), progress("evaluate", len(loader.dataset)) as bar:
        return evaluate(loaded.model, task, loader, device=device, previews=PREVIEWS, by_part=True, advance=bar.advance)


def _trainer(config: TrainConfig, keeper: RunKeeper, architecture: ModelConfig) -> lightning.Trainer:
    device = train_device(config.device)
    draws_bar = sys.stderr.isatty()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    devices, nodes = processes_of(config, device)
    processes = nodes * (devices if isinstance(devices, int) else len(devices))
    callbacks: list[Callback] = [keeper]
    if draws_bar:
        callbacks.append(TrainingBar())
    if config.profile:
        callbacks.append(StepProfiler(keeper.run))
    return lightning.Trainer(
        accelerator=device.type,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy_of(config.strategy, processes, device),
        precision=precision_of(config.precision, device, architecture.model_type),  # type: ignore[arg-type]
        max_epochs=config.epochs,
        max_steps=config.max_steps,
        limit_train_batches=1 if config.fast_dev_run else None,
        accumulate_grad_batches=config.gradient_accumulation_steps,
        gradient_clip_val=config.clip_norm or None,
        sync_batchnorm=processes > 1 and device.type == "cuda",
        callbacks=callbacks,
        enable_progress_bar=draws_bar,
        enable_checkpointing=False,  # RunKeeper's, at the end of optimizer steps only
        enable_model_summary=False,
        enable_autolog_hparams=False,
        use_distributed_sampler=False,  # StreamingLoader deals the batches out itself
        logger=False,
    )


def _fit(trainer: lightning.Trainer, module: TrainingModule, start: _Start) -> None:
    try:
        trainer.fit(module, ckpt_path=start.checkpoint, weights_only=True)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"the device has no memory for batches of {start.config.batch_size}: lower --batch-size and raise "
            "--accumulate as much, and --resume where a checkpoint was written"
        ) from None
    except SystemExit:  # lightning's answer to Ctrl-C and SIGTERM
        print(f"stopped; go on with --resume {start.run}", file=sys.stderr)
        raise KeyboardInterrupt from None


def _report_training(
    report: StageReport, start: _Start, trainer: lightning.Trainer, module: TrainingModule, keeper: RunKeeper
) -> None:
    best, criterion = checkpoints_folder(start.run) / BEST, module.task.criterion
    report.inputs = len(module.loaders.train.dataset)
    for loader in (module.loaders.train, module.loaders.val):
        for name, reason in loader.quarantined.items():
            report.skip(name, reason)
    report.facts |= {
        "run": str(start.run),
        "resumed_from": None if start.checkpoint is None else str(start.checkpoint),
        "best_checkpoint": str(best) if best.is_file() else None,
        "last_checkpoint": str(checkpoints_folder(start.run) / LAST),
        "steps": trainer.global_step,
        "batches": module.batches_seen,
        f"best_{criterion.name}": module.best_score if math.isfinite(module.best_score) else None,
        "best_step": module.best_step,
        "samples_per_second": keeper.samples / keeper.seconds if keeper.seconds else None,
        "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "settings": settings_dict(start.config),
    }
    if keeper.scores is None:
        report.summary = f"{start.run} had its {trainer.global_step} steps; raise --epochs or --max-steps to go on"
        return
    _add_scores(report, keeper.scores, module.task)
    patience = start.config.early_stopping
    stopped = f" (early: {patience} validations without a better one)" if patience and trainer.should_stop else ""
    report.summary = (
        f"trained to step {trainer.global_step}{stopped} at {report.facts['samples_per_second']:.0f} samples/s: "
        f"{_in_words(keeper.scores, module.task)} on {keeper.scores.samples} validation samples; "
        f"best {module.best_score:.1f} {criterion.unit} at step {module.best_step}: {best}"
    )


def _add_scores(report: StageReport, scores: Scores, task: Task) -> None:
    by_joint = {name.partition("/")[2]: value for name, value in scores.values.items() if "/" in name}
    report.facts |= {name: value for name, value in scores.values.items() if "/" not in name}
    report.facts |= {"samples": scores.samples, f"by_joint_{task.criterion.unit.replace('%', 'percent')}": by_joint}


def _in_words(scores: Scores, task: Task) -> str:
    return ", ".join(words.format(scores.values[name]) for name, words in task.summary.items())


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without lightning's tips and its advice on other people's loaders; errors and our own words stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*returned a view tensor")  # FSDP2: nothing here is done in place
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
