"""A checkpoint -> its scores on chunks: ours beside the mean pose's, or those of a published protocol.

What goes with a model is `tasks/`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from humanpose3d.chunks.layout import read_index
from humanpose3d.config import LossWeights, TrainConfig
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.estimators.weights import sha256_of
from humanpose3d.files import make_folder, write_report, write_whole
from humanpose3d.metrics import SCORED_BODY, BodyMetrics
from humanpose3d.model_config import HEATMAP_STRIDE, BodyConfig, HourglassConfig, ModelConfig
from humanpose3d.models.checkpoint import LoadedModel, find_packaged, load_model
from humanpose3d.remotes import Store
from humanpose3d.reports import StageReport, progress
from humanpose3d.runs import run_of
from humanpose3d.skeletons import get_skeleton
from humanpose3d.tasks import BodyTask, HeatmapTask, LiftingTask, Task
from humanpose3d.tasks.body_joints import JOINTS_FILE, write_joints
from humanpose3d.tasks.devices import train_device
from humanpose3d.tasks.evaluation import Scores, evaluate, mean_body, mean_pose, score_mean_body, score_mean_pose
from humanpose3d.tasks.heatmaps import Decoding
from humanpose3d.tasks.protocol_report import report_protocol
from humanpose3d.tasks.protocol_scores import ProtocolEvaluation, read_frames
from humanpose3d.tasks.protocols import check_model
from humanpose3d.training_sets import find_mix, find_sets, label_loader, open_chunks, validation_loader, validation_set
from humanpose3d.visualize.panels import encode_png

PREVIEWS = 4  # pictures of what the model says of the first samples


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
    if not isinstance(loaded.config, HourglassConfig) and (config.flip_test or config.decoder != TrainConfig.decoder):
        raise ValueError(
            f"--flip-test and --decoder read an hourglass's heat maps, and {config.checkpoint} is a "
            f"{loaded.config.model_type}; leave them out"
        )
    if any(getattr(config, name) != getattr(TrainConfig, name) for name in ("devices", "num_nodes", "strategy")):
        report.note("--evaluate is one process on one device: --devices, --num-nodes and --strategy change nothing")
    if config.protocol is not None:
        return _evaluate_by_protocol(config, report, loaded, device)
    train_store, val_store = find_sets(config, evaluating=True)
    val_set = validation_set(config, val_store, loaded.config)
    task = _task_of(config, loaded)
    scores = _measure(loaded, task, validation_loader(config, val_set, loaded.config), device)
    lifts, pose_mpjpe_mm = isinstance(task, LiftingTask), None
    if train_store is not None and isinstance(task, LiftingTask):
        pose_mpjpe_mm = mean_pose_error(config, train_store, val_store, loaded.config, task)
    if isinstance(task, BodyTask):
        report.facts["predicted_joints"] = write_joints_of(config, loaded, task, val_set, _report_folder(config))
        if train_store is not None:
            report.facts["mean_pose_pa_mpjpe_mm"] = mean_pose_error(config, train_store, val_store, loaded.config, task)
    add_scores(report, scores, task)
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
    report.summary = f"{in_words(scores, task)} on {scores.samples} samples of {val_store.location}{beside}"
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
    names = open_chunks(config, store, config.val_chunks, spoken, fields=(), shuffle=False)
    samples = (names[0, position] for position in range(len(names)))
    evaluation = ProtocolEvaluation(
        protocol,
        read_frames(samples, protocol),
        get_skeleton(skeleton),
        SCORED_BODY if is_body else get_skeleton(labelled_in),
    )
    loader = validation_loader(config, validation_set(config, store, spoken), spoken)
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
        val_set = validation_set(config, store, own)
        about["predicted_joints"] = write_joints_of(config, loaded, task, val_set, _report_folder(config))
    if isinstance(task, HeatmapTask):
        flipped = ", mean with the mirrored picture's" if config.flip_test else ""
        about["decoding"] = f"{config.decoder} from heat maps of {own.input_size // HEATMAP_STRIDE} px{flipped}"
    if config.val_keypoint_noise:
        about["keypoint_noise"] = (
            f"a detector's errors of strength {config.val_keypoint_noise:g} added to exact keypoints"
        )
    return report_protocol(report, _report_folder(config), config.protocol, evaluation, about)


def mean_pose_error(
    config: TrainConfig, train_store: Store, val_store: Store, model: ModelConfig, task: LiftingTask | BodyTask
) -> float:
    """In mm, on the validation chunks, of always answering with the mean pose of the training chunks.

    MPJPE beside a lifter, PA-MPJPE beside a body regressor, over the joints that the model itself is measured on.
    """
    stores = [part.store for part in find_mix(config)] or [train_store]
    training = [label_loader(config, store, config.train_chunks, model) for store in stores]
    measured = label_loader(config, val_store, config.val_chunks, model)
    with progress("mean training pose", sum(len(part.dataset) for part in training)) as bar:
        batches = chain.from_iterable(training)
        if isinstance(task, BodyTask):
            return score_mean_body(mean_body(batches, task, advance=bar.advance), measured, task)
        pose_m = mean_pose(batches, task.skeleton, advance=bar.advance)
    return score_mean_pose(pose_m, measured, task.skeleton)


def write_joints_of(
    config: TrainConfig, loaded: LoadedModel, task: BodyTask, val_set: StreamingChunkedDataset, folder: Path
) -> str:
    """test_pred_joints.csv of the validation set, beside a report."""
    loader = validation_loader(config, val_set, loaded.config)
    return str(write_joints(folder / JOINTS_FILE, loaded.model, task, loader))


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


def add_scores(report: StageReport, scores: Scores, task: Task) -> None:
    by_joint = {name.partition("/")[2]: value for name, value in scores.values.items() if "/" in name}
    report.facts |= {name: value for name, value in scores.values.items() if "/" not in name}
    report.facts |= {"samples": scores.samples, f"by_joint_{task.criterion.unit.replace('%', 'percent')}": by_joint}


def in_words(scores: Scores, task: Task) -> str:
    return ", ".join(words.format(scores.values[name]) for name, words in task.summary.items())
