"""Measuring a model over batches, and the floor under it: always answering with the mean training pose.

Training's validation and `main.py --evaluate` are this one loop. Millimetres, since these are figures for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from humanpose3d.metrics import PoseMetrics
from humanpose3d.models.common import PosePrediction
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import Skeleton
from humanpose3d.tasks.lifting import LiftingTask, check_labels

Advance = Callable[[int], None]


@dataclass
class Scores:
    """What an evaluation found. Metrics by their names in metrics.py, loss terms by theirs and "loss"."""

    values: dict[str, float]
    samples: int  # counted ones
    by_action: dict[str, dict[str, float]] = field(default_factory=dict)
    previews: list[np.ndarray] = field(default_factory=list)  # uint8 [H W 3] pictures of the first samples


def evaluate(
    model: nn.Module,
    task: LiftingTask,
    batches: Iterable[PoseBatch],
    *,
    device: torch.device | str = "cpu",
    previews: int = 0,
    by_action: bool = False,
    advance: Advance = lambda samples: None,
) -> Scores:
    """The model's scores over labelled batches; the caller has put it in eval mode. ValueError where none is labelled.

    In a process group every process brings its slice, and all get the scores of the whole.
    """
    metrics, terms = task.metrics().to(device), dict[str, MeanMetric]()
    actions: dict[str, PoseMetrics] = {}
    samples, pictures = SumMetric().to(device), list[np.ndarray]()
    for batch in batches:
        batch = batch.to(device)
        check_labels(batch)
        prediction = task.predict(model, batch)
        metrics.update(prediction, batch)
        counted = batch.counted.sum()
        samples.update(batch.counted.float())
        for name, value in task.loss(prediction, batch).items():
            terms.setdefault(name, MeanMetric().to(device)).update(value, counted)
        if by_action:
            _update_actions(actions, task, prediction, batch)
        if len(pictures) < previews:
            pictures += task.previews(prediction, batch, previews - len(pictures))
        advance(len(batch))
    values = {name: float(metric.compute()) for name, metric in terms.items()}
    values |= {name: float(value) for name, value in metrics.compute().items()}
    if not np.isfinite(values["mpjpe_mm"]):
        raise ValueError("no validation sample has a labelled root joint, so nothing can be measured")
    return Scores(values, int(samples.compute()), _scores_by_action(actions), pictures)


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


def _update_actions(
    actions: dict[str, PoseMetrics], task: LiftingTask, prediction: PosePrediction, batch: PoseBatch
) -> None:
    assert batch.joints_cam_m is not None and batch.joint_mask is not None
    for action in sorted(set(batch.actions)):
        rows = torch.tensor([name == action for name in batch.actions], device=batch.counted.device)
        part = replace(
            batch, counted=batch.counted[rows], joints_cam_m=batch.joints_cam_m[rows], joint_mask=batch.joint_mask[rows]
        )
        metric = actions.setdefault(action, task.metrics().to(rows.device))
        metric.update(PosePrediction(prediction.joints_rel_m[rows], prediction.root_cam_m[rows]), part)


def _scores_by_action(actions: dict[str, PoseMetrics]) -> dict[str, dict[str, float]]:
    """The summary figures of each action; those by joint are left to the whole."""
    return {
        action: {name: float(value) for name, value in metric.compute().items() if "/" not in name}
        for action, metric in sorted(actions.items())
    }
