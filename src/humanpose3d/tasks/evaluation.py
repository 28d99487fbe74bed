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
from humanpose3d.tasks.groups import GROUPS
from humanpose3d.tasks.lifting import LiftingTask, check_labels

Advance = Callable[[int], None]


@dataclass
class Scores:
    """What an evaluation found. Metrics by their names in metrics.py, loss terms by theirs and "loss"."""

    values: dict[str, float]
    samples: int  # counted ones
    # "action" and the questions of groups.py -> each part of the samples -> its figures, and how many samples it has.
    by_part: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    previews: list[np.ndarray] = field(default_factory=list)  # uint8 [H W 3] pictures of the first samples


def evaluate(
    model: nn.Module,
    task: LiftingTask,
    batches: Iterable[PoseBatch],
    *,
    device: torch.device | str = "cpu",
    previews: int = 0,
    by_part: bool = False,
    advance: Advance = lambda samples: None,
) -> Scores:
    """The model's scores over labelled batches; the caller has put it in eval mode. ValueError where none is labelled.

    In a process group every process brings its slice, and all get the scores of the whole.
    """
    metrics, terms = task.metrics().to(device), dict[str, MeanMetric]()
    parts: dict[str, dict[str, _Part]] = {}
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
        if by_part:
            _update_parts(parts, task, prediction, batch)
        if len(pictures) < previews:
            pictures += task.previews(prediction, batch, previews - len(pictures))
        advance(len(batch))
    values = {name: float(metric.compute()) for name, metric in terms.items()}
    values |= {name: float(value) for name, value in metrics.compute().items()}
    if not np.isfinite(values["mpjpe_mm"]):
        raise ValueError("no validation sample has a labelled root joint, so nothing can be measured")
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


class _Part:
    """Some of the samples."""

    def __init__(self, task: LiftingTask, device: torch.device) -> None:
        self.metrics, self.samples = task.metrics().to(device), SumMetric().to(device)

    def values(self) -> dict[str, float]:
        """The summary figures; those by joint are left to the whole."""
        scores = {name: float(value) for name, value in self.metrics.compute().items() if "/" not in name}
        return scores | {"samples": int(self.samples.compute())}


def _update_parts(
    parts: dict[str, dict[str, _Part]], task: LiftingTask, prediction: PosePrediction, batch: PoseBatch
) -> None:
    assert batch.joints_cam_m is not None and batch.joint_mask is not None
    truth = batch.joints_cam_m.where(batch.joint_mask[..., None], torch.nan).cpu().numpy()
    found = {"action": np.array(batch.actions)}
    for question, (names, group_of) in GROUPS.items() if "left_hip" in task.skeleton.points else ():
        found[question] = np.array([*names, ""])[group_of(truth, task.skeleton)]  # the last: cannot be told
    for kind, names_of in found.items():
        for name in sorted(set(names_of.tolist()) - {""}):
            rows = torch.from_numpy(names_of == name).to(batch.counted.device)
            some = replace(
                batch,
                counted=batch.counted[rows],
                joints_cam_m=batch.joints_cam_m[rows],
                joint_mask=batch.joint_mask[rows],
            )
            part = parts.setdefault(kind, {}).setdefault(name, _Part(task, rows.device))
            part.metrics.update(PosePrediction(prediction.joints_rel_m[rows], prediction.root_cam_m[rows]), some)
            part.samples.update(some.counted.float())


def _scores_by_part(parts: dict[str, dict[str, _Part]]) -> dict[str, dict[str, dict[str, float]]]:
    return {kind: {name: part.values() for name, part in sorted(found.items())} for kind, found in parts.items()}
