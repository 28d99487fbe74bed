"""Measuring a model over batches, whatever its task; and the floor under lifters: always answering the mean pose.

Training's validation and `main.py --evaluate` are this one loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from humanpose3d.metrics import SCORED_BODY, PoseMetrics
from humanpose3d.models.common import PosePrediction
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import Skeleton
from humanpose3d.tasks import BodyTask, Task
from humanpose3d.tasks.criterion import not_finite

Advance = Callable[[int], None]
MEASURED = ("counted", "joints_cam_m", "joint_mask", "joints_px", "joint_in_view", "head_size_px")  # of a batch


@dataclass
class Scores:
    """What an evaluation found. Metrics by their names in metrics.py, loss terms by theirs and "loss"."""

    values: dict[str, float]
    samples: int  # counted ones
    # what the task asks of its samples ("action" and more) -> each answer -> its figures, and how many samples gave it
    by_part: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    previews: list[np.ndarray] = field(default_factory=list)  # uint8 [H W 3] pictures of the first samples


def evaluate(
    model: nn.Module,
    task: Task,
    batches: Iterable[PoseBatch],
    *,
    device: torch.device | str = "cpu",
    previews: int = 0,
    by_part: bool = False,
    advance: Advance = lambda samples: None,
) -> Scores:
    """The model's scores over labelled batches; the caller has put it in eval mode.

    In a process group every process brings its slice, and all get the scores of the whole. ValueError where none is
    labelled, or an answer is not finite.
    """
    metrics, terms = task.metrics().to(device), dict[str, MeanMetric]()
    parts: dict[str, dict[str, _Part]] = {}
    samples, pictures = SumMetric().to(device), list[np.ndarray]()
    wrong, wrong_keys = SumMetric().to(device), list[str]()
    for batch in batches:
        batch = batch.to(device)
        task.check_labels(batch)
        prediction: Any = task.predict(model, batch)
        is_wrong = batch.counted & ~task.measurable(prediction, batch).predicted.isfinite().all(-1).all(-1)
        wrong.update(is_wrong.float())
        wrong_keys += [batch.keys[row] for row in is_wrong.nonzero()[:, 0].tolist()]
        if wrong_keys:
            advance(len(batch))
            continue  # only to count them
        metrics.update(prediction, batch)
        counted = batch.counted.sum()
        samples.update(batch.counted.float())
        for name, value in task.loss(prediction, batch).items():
            terms.setdefault(name, MeanMetric().to(device)).update(value, counted)
        if by_part:
            _update_parts(parts, task, prediction, batch)
        if len(pictures) < previews:
            pictures += task.previews(prediction, batch, previews - len(pictures))
        advance(len(batch))
    if number := int(wrong.compute()):  # of all processes, so that all end
        raise not_finite(wrong_keys, number)
    values = {name: float(metric.compute()) for name, metric in terms.items()}
    values |= {name: float(value) for name, value in metrics.compute().items()}
    if not np.isfinite(values[task.criterion.name]):
        raise ValueError(f"no validation sample has {task.needed}, so nothing can be measured")
    return Scores(values, int(samples.compute()), _scores_by_part(parts), pictures)


def mean_pose(batches: Iterable[PoseBatch], skeleton: Skeleton, *, advance: Advance = lambda samples: None) -> Tensor:
    """float32 [J 3]: the mean root-relative pose of labelled batches, metres. A joint never labelled is 0."""
    total = torch.zeros(len(skeleton), 3, dtype=torch.float64)
    count = torch.zeros(len(skeleton), 1, dtype=torch.float64)
    for batch in batches:
        if batch.joints_cam_m is not None and batch.joint_mask is not None:
            mask = (batch.joint_mask & batch.counted[:, None])[..., None].double()
            relative_m = batch.joints_cam_m - batch.joints_cam_m[:, skeleton.root_index, None]
            total += (relative_m.double() * mask).sum(0)
            count += mask.sum(0)
        advance(len(batch))
    return (total / count.clamp(min=1)).float()


def score_mean_pose(pose_m: Tensor, batches: Iterable[PoseBatch], skeleton: Skeleton) -> float:
    """MPJPE in mm of answering every sample with the pose [J 3]."""
    metrics = PoseMetrics(skeleton)
    for batch in batches:
        assert batch.joints_cam_m is not None
        root_m = batch.joints_cam_m[:, skeleton.root_index]
        metrics.update(PosePrediction(pose_m.expand(len(batch), -1, -1), root_m), batch)
    return float(metrics.compute()["mpjpe_mm"])


def mean_body(batches: Iterable[PoseBatch], task: BodyTask, *, advance: Advance = lambda samples: None) -> Tensor:
    """float32 [14 3]: the mean of the joints that bodies are scored on, regressed from the labelled meshes, metres."""
    total, count = torch.zeros(len(SCORED_BODY), 3, dtype=torch.float64), 0
    for batch in batches:
        if batch.joints_cam_m is not None and batch.smpl_mask is not None:
            bodies = task.labelled(batch)
            mask = bodies.is_labelled & batch.counted
            total += bodies.scored_m[mask].double().sum(0)
            count += int(mask.sum())
        advance(len(batch))
    return (total / max(count, 1)).float()


def score_mean_body(scored_m: Tensor, batches: Iterable[PoseBatch], task: BodyTask) -> float:
    """PA-MPJPE in mm, as of a body regressor, of answering every sample with these joints [14 3]."""
    metrics = task.metrics()
    for batch in batches:
        metrics.update(task.labelled(batch)._replace(scored_m=scored_m.expand(len(batch), -1, -1)), batch)
    return float(metrics.compute()["pa_mpjpe_mm"])


class _Part:
    """Some of the samples."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.metrics, self.samples = task.metrics().to(device), SumMetric().to(device)

    def values(self) -> dict[str, float]:
        """The summary figures; those by joint are left to the whole."""
        scores = {name: float(value) for name, value in self.metrics.compute().items() if "/" not in name}
        return scores | {"samples": int(self.samples.compute())}


def _update_parts(parts: dict[str, dict[str, _Part]], task: Task, prediction: Any, batch: PoseBatch) -> None:
    for kind, names_of in task.parts(batch).items():
        for name in sorted(set(names_of.tolist()) - {""}):
            rows = torch.from_numpy(names_of == name).to(batch.counted.device)
            chosen: dict[str, Any] = {name: _of_rows(getattr(batch, name), rows) for name in MEASURED}
            some = replace(batch, **chosen)
            part = parts.setdefault(kind, {}).setdefault(name, _Part(task, rows.device))
            part.metrics.update(type(prediction)(*(_of_rows(values, rows) for values in prediction)), some)
            part.samples.update(some.counted.float())


def _of_rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def _scores_by_part(parts: dict[str, dict[str, _Part]]) -> dict[str, dict[str, dict[str, float]]]:
    return {kind: {name: part.values() for name, part in sorted(found.items())} for kind, found in parts.items()}
