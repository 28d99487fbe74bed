"""How good poses are, in millimetres: sums and counts are gathered over an evaluation and divided once, at its end.

`PoseMetrics` is a torchmetrics metric: several processes' sums are added before the division. What the published
protocols measure beyond it are functions that give each joint of each sample its value; `JointMeans` gathers those.
Which protocol takes which is tasks/protocols.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from humanpose3d.models.common import PosePrediction
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import LSP_14, Skeleton
from humanpose3d.warp import VIEW_MARGIN

MM_PER_M = 1000.0
SCORED_BODY = LSP_14  # the joints that bodies are scored on, in this order
HEAD_LIMIT, BOX_LIMIT = 0.5, 16.0  # a 2D joint is found within this share of the head, this part of the box
ALIGNABLE_JOINTS = 3  # fewer joints than this fit anything after a similarity alignment


class PoseMetrics(Metric):
    """MPJPE, PA-MPJPE, absolute MPJPE and root error over an evaluation.

    MPJPE is root-relative and its mean includes the root itself, as in Human3.6M's protocol 1. Only labelled joints of
    `counted` samples count; MPJPE and the root error need a labelled root, PA-MPJPE three labelled joints.
    """

    full_state_update = False
    higher_is_better = False
    relative_sum: Tensor
    relative_count: Tensor
    aligned_sum: Tensor
    aligned_count: Tensor
    absolute_sum: Tensor
    absolute_count: Tensor
    root_sum: Tensor
    root_count: Tensor

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        self.skeleton = skeleton
        for name, shape in (("relative", (len(skeleton),)), ("aligned", ()), ("absolute", ()), ("root", ())):
            self.add_state(f"{name}_sum", torch.zeros(shape), dist_reduce_fx="sum")  # metres
            self.add_state(f"{name}_count", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, prediction: PosePrediction, batch: PoseBatch) -> None:
        """Add a batch with labels."""
        assert batch.joints_cam_m is not None and batch.joint_mask is not None
        labels_m, mask = batch.joints_cam_m, batch.joint_mask & batch.counted[:, None]
        root = self.skeleton.root_index
        root_mask = mask[:, root]
        relative_mask = mask & root_mask[:, None]
        relative_m = joint_error(prediction.joints_rel_m, labels_m - labels_m[:, root, None])
        self.relative_sum += (relative_m * relative_mask).sum(0)
        self.relative_count += relative_mask.sum(0)
        aligned_mask = mask & (mask.sum(1, keepdim=True) >= ALIGNABLE_JOINTS)
        aligned_m = joint_error(similarity_align(prediction.joints_rel_m, labels_m, mask), labels_m)
        self.aligned_sum += (aligned_m * aligned_mask).sum()
        self.aligned_count += aligned_mask.sum()
        self.absolute_sum += (joint_error(prediction.joints_cam_m, labels_m) * mask).sum()
        self.absolute_count += mask.sum()
        self.root_sum += (joint_error(prediction.root_cam_m, labels_m[:, root]) * root_mask).sum()
        self.root_count += root_mask.sum()

    def compute(self) -> dict[str, Tensor]:
        """Scalars in mm: mpjpe_mm, pa_mpjpe_mm, absolute_mpjpe_mm, root_error_mm, and mpjpe_mm/<joint> of each joint.

        NaN where nothing counted.
        """
        summary = {
            "mpjpe_mm": _mean_mm(self.relative_sum.sum(), self.relative_count.sum()),
            "pa_mpjpe_mm": _mean_mm(self.aligned_sum, self.aligned_count),
            "absolute_mpjpe_mm": _mean_mm(self.absolute_sum, self.absolute_count),
            "root_error_mm": _mean_mm(self.root_sum, self.root_count),
        }
        by_joint = _mean_mm(self.relative_sum, self.relative_count)
        return summary | {f"mpjpe_mm/{joint}": by_joint[i] for i, joint in enumerate(self.skeleton.joints)}


class BodyMetrics(Metric):
    """MPJPE, PA-MPJPE, per-vertex and pose error of bodies over an evaluation.

    Joints are `SCORED_BODY`'s, regressed from both meshes and relative to the middle of the hips (as 3DPW is scored);
    vertices are relative to the pelvis. Only `counted` samples with a labelled body count.
    """

    full_state_update = False
    higher_is_better = False
    sums: Tensor
    count: Tensor
    joint_sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(len(self.NAMES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("joint_sums", torch.zeros(len(SCORED_BODY), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    NAMES = ("pa_mpjpe_mm", "mpjpe_mm", "vertex_error_mm", "pose_error_deg")

    def update(self, prediction: Any, batch: PoseBatch) -> None:
        """prediction: `tasks.body.PosedBodies`, of both what was answered and what is true. Add a batch."""
        mask = prediction.is_labelled & batch.counted
        predicted_m, labels_m = prediction.scored_m, prediction.true_scored_m
        error_m = joint_error(predicted_m, labels_m)
        everything = torch.ones_like(error_m, dtype=torch.bool)
        aligned_m = joint_error(similarity_align(predicted_m, labels_m, everything), labels_m)
        values = torch.stack(
            [
                MM_PER_M * aligned_m.mean(1),
                MM_PER_M * error_m.mean(1),
                MM_PER_M * joint_error(prediction.vertices_rel_m, prediction.true_vertices_rel_m).mean(1),
                rotation_error_deg(prediction.rotations, prediction.true_rotations).mean(1),
            ]
        )
        self.sums += values.where(mask, 0.0).sum(1)
        self.joint_sums += (MM_PER_M * error_m).where(mask[:, None], 0.0).sum(0)
        self.count += mask.sum()

    def compute(self) -> dict[str, Tensor]:
        """The figures of NAMES, and mpjpe_mm/<joint> of each joint. NaN where nothing counted."""
        by_joint = self.joint_sums / self.count
        summary = dict(zip(self.NAMES, self.sums / self.count, strict=True))
        return summary | {f"mpjpe_mm/{joint}": by_joint[i] for i, joint in enumerate(SCORED_BODY.joints)}


class KeypointMetrics(Metric):
    """PCK and mean distance of 2D joints over an evaluation, in pixels of the model input.

    A joint counts as found within half the head's size (PCKh@0.5) or, where the head's size is unknown, within a
    sixteenth of the person's box, which of a standing person is about as much. Only labelled joints inside the view of
    `counted` samples count.
    """

    full_state_update = False
    higher_is_better = True
    found: Tensor
    error_sum: Tensor
    count: Tensor

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        self.skeleton = skeleton
        for name in ("found", "error_sum", "count"):
            self.add_state(name, torch.zeros(len(skeleton), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Any, batch: PoseBatch) -> None:
        """prediction.points_px: [B J 2]. Add a batch with labels."""
        assert batch.joints_px is not None and batch.joint_in_view is not None
        mask = batch.joint_in_view & batch.counted[:, None]
        error_px = (prediction.points_px.float() - batch.joints_px).norm(dim=-1)
        box_px = batch.image_size_wh[:, 0] / (1.0 + 2.0 * VIEW_MARGIN)
        limit_px = box_px / BOX_LIMIT
        if batch.head_size_px is not None:
            limit_px = (HEAD_LIMIT * batch.head_size_px).where(batch.head_size_px > 0, limit_px)
        self.found += ((error_px <= limit_px[:, None]) & mask).sum(0)
        self.error_sum += (error_px * mask).sum(0)
        self.count += mask.sum(0)

    def compute(self) -> dict[str, Tensor]:
        """pck_percent, error_px, and pck_percent/<joint> of each joint. NaN where nothing counted."""
        by_joint = 100.0 * self.found / self.count
        summary = {
            "pck_percent": 100.0 * self.found.sum() / self.count.sum(),
            "error_px": self.error_sum.sum() / self.count.sum(),
        }
        return summary | {f"pck_percent/{joint}": by_joint[i] for i, joint in enumerate(self.skeleton.joints)}


def joint_error(predicted_m: Tensor, labels_m: Tensor) -> Tensor:
    """[... 3], [... 3] -> [...]: distance, metres."""
    return (predicted_m.float() - labels_m.float()).norm(dim=-1)


def rotation_error_deg(predicted: Tensor, labels: Tensor) -> Tensor:
    """[... 3 3], [... 3 3] -> [...]: the angle of the rotation between them, degrees."""
    cosine = 0.5 * ((predicted.float() * labels.float()).sum((-1, -2)) - 1.0)
    return torch.rad2deg(torch.acos(cosine.clamp(-1.0, 1.0)))


def similarity_align(predicted_m: Tensor, labels_m: Tensor, mask: Tensor) -> Tensor:
    """The predicted joints scaled, rotated and moved onto the labels with the least squared error. [B J 3] -> [B J 3].

    mask: bool [B J], the joints that take part; all are moved. A mirror image is never turned into the other hand
    (Umeyama 1991). Rows that are not finite give NaN. Works in float64 on the CPU, which beats a GPU at many 3x3
    decompositions, and MPS has neither.
    """
    weight = mask.cpu().double()[..., None]
    predicted, labels = predicted_m.detach().cpu().double(), labels_m.detach().cpu().double()
    number = weight.sum(1, keepdim=True).clamp(min=1)
    predicted_middle = (weight * predicted).sum(1, keepdim=True) / number
    labels_middle = (weight * labels).sum(1, keepdim=True) / number
    predicted, labels = predicted - predicted_middle, labels - labels_middle
    products = (weight * labels).mT @ predicted  # sum of label x predicted^T
    finite = products.isfinite().all(-1).all(-1)[:, None, None]
    u, spread, vt = torch.linalg.svd(products.where(finite, 0.0))  # one bad row would end all with an error
    hand = torch.ones_like(spread)
    hand[:, 2] = torch.linalg.det(u @ vt).sign()
    rotation = (u * hand[:, None]) @ vt  # column vectors: label = rotation @ predicted
    variance = (weight * predicted.square()).sum((1, 2)).clamp(min=1e-12)
    scale = ((spread * hand).sum(1) / variance)[:, None, None]
    return (scale * predicted @ rotation.mT + labels_middle).where(finite, torch.nan).to(predicted_m)


def scale_align(predicted_m: Tensor, labels_m: Tensor, mask: Tensor) -> Tensor:
    """Root-relative joints times the one factor that brings them nearest to the labels. [B J 3] -> [B J 3].

    mask: bool [B J], the joints that take part. Their distance after it is N-MPJPE (Rhodin et al. 2018, "Unsupervised
    geometry-aware representation for 3D human pose estimation"; VideoPose3D's `n_mpjpe`).
    """
    weight = mask[..., None].to(predicted_m)
    fit = (weight * predicted_m * labels_m).sum((1, 2), keepdim=True)
    return predicted_m * fit / (weight * predicted_m.square()).sum((1, 2), keepdim=True).clamp(min=1e-12)


def velocity_error(
    predicted_m: Tensor, predicted_before_m: Tensor, labels_m: Tensor, labels_before_m: Tensor
) -> Tensor:
    """[... 3] each -> [...]: how far the predicted step from the frame before is from the true one, metres.

    Its mean is MPJVE (Pavllo et al. 2019, "3D human pose estimation in video with temporal convolutions": the error of
    the first derivative of root-relative joints), in millimetres a step between frames.
    """
    return joint_error(predicted_m - predicted_before_m, labels_m - labels_before_m)


def pck(error_mm: Tensor, threshold_mm: float) -> Tensor:
    """[...] -> [...]: 1 where the error is strictly under the threshold, else 0; NaN stays NaN.

    MPI-INF-3DHP's `mpii_compute_3d_pck.m` (Mehta et al. 2017): a joint exactly at 150 mm does not count.
    """
    return (error_mm < threshold_mm).to(error_mm.dtype).where(error_mm.isfinite(), torch.nan)


def auc(error_mm: Tensor, thresholds_mm: Tensor) -> Tensor:
    """[...] -> [...]: the share of the thresholds that the error is strictly under; NaN stays NaN.

    Its mean is the mean of the PCK curve at these thresholds, which `mpii_compute_3d_pck.m` calls the area under it.
    """
    shares = (error_mm[..., None] < thresholds_mm.to(error_mm)).to(error_mm.dtype).mean(-1)
    return shares.where(error_mm.isfinite(), torch.nan)


def auc_trapezoid(error_mm: Tensor, top_mm: float, steps: int) -> Tensor:
    """[...] -> [...]: area under the step from 0 to 1 at the error, by trapezoids, over 0 ... `top_mm`; NaN stays NaN.

    Its mean is FreiHAND's area under the PCK curve (Zimmermann et al. 2019, `EvalUtil.get_measures` of their eval.py):
    `steps` thresholds from 0 to `top_mm`, at each of which an error of exactly as much counts.
    """
    thresholds = torch.linspace(0.0, top_mm, steps, dtype=error_mm.dtype, device=error_mm.device)
    curve = (error_mm[..., None] <= thresholds).to(error_mm.dtype)
    return (torch.trapezoid(curve, thresholds, dim=-1) / top_mm).where(error_mm.isfinite(), torch.nan)


def pckh(distance_px: Tensor, head_size_px: Tensor, share: float = 0.5) -> Tensor:
    """[B J], [B] -> [B J]: 1 where a joint lies within `share` of the head's size, else 0; NaN stays NaN.

    MPII's measure (Andriluka et al. 2014): the head's size is 0.6 of its box's diagonal, and a joint exactly at the
    limit counts.
    """
    hit = (distance_px <= share * head_size_px[:, None]).to(distance_px.dtype)
    return hit.where(distance_px.isfinite() & head_size_px.isfinite()[:, None], torch.nan)


class JointMeans:
    """The means of values by joint; NaN is left out. Sums and counts are gathered block by block and divided once."""

    def __init__(self, joints: int) -> None:
        self.sums = torch.zeros(joints, dtype=torch.float64)
        self.counts = torch.zeros(joints, dtype=torch.long)

    def add(self, values: Tensor) -> None:
        """[B J]"""
        known = values.isfinite()
        self.sums += values.where(known, 0.0).sum(0, dtype=torch.float64)
        self.counts += known.sum(0)

    @property
    def by_joint(self) -> Tensor:
        """[J]; NaN where nothing counted."""
        return self.sums / self.counts

    def mean(self, columns: Sequence[int] | None = None) -> float:
        """Over all values of these joints (all joints without), each value counting alike; NaN where there is none."""
        chosen = slice(None) if columns is None else list(columns)
        return float(self.sums[chosen].sum() / self.counts[chosen].sum())


def _mean_mm(total_m: Tensor, count: Tensor) -> Tensor:
    return MM_PER_M * total_m / count
