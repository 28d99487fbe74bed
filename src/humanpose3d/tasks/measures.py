"""The measures that published protocols name: what each gives a joint of a sample, in which unit, and what it means.

The arithmetic is metrics.py's. Every measure is a value for each joint of each sample, NaN where there is none, so that
means by joint, action or any other group are all of one kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from humanpose3d.metrics import (
    ALIGNABLE_JOINTS,
    MM_PER_M,
    auc,
    auc_trapezoid,
    joint_error,
    pck,
    pckh,
    scale_align,
    similarity_align,
    velocity_error,
)

PCK_MM = 150.0
AUC_MM = torch.arange(31, dtype=torch.float64) * 5.0  # 0, 5, ..., 150
HAND_AUC_MM, HAND_AUC_STEPS = 50.0, 100
HAND_PCK_MM = 15.0
HAND_AUC_PX, HAND_PCK_PX = 30.0, 10.0  # of pictures of 224 px
PERCENT = 100.0


@dataclass(frozen=True)
class Block:
    """Some samples of an evaluation, in the joints that are scored. Metres and relative to the root; pixels for 2D."""

    predicted: Tensor  # float64 [B J 3], or [B J 2]
    labels: Tensor  # float64 [B J 3], or [B J 2]
    mask: Tensor  # bool [B J], labelled
    before: Block | None = None  # row by row the frame before in the same take; its mask is False where there is none
    head_size_px: Tensor | None = None  # float64 [B], NaN where unknown


@dataclass(frozen=True)
class Measure:
    """A value for each joint of each sample."""

    label: str  # as papers call it
    unit: str
    meaning: str
    of: Callable[[Block], Tensor]  # [B J], NaN where nothing can be said

    @property
    def is_error(self) -> bool:
        """Less is better."""
        return self.unit != "%"


def position_error_mm(block: Block) -> Tensor:
    """[B J]: distance from the label as both stand, roots together."""
    return _shown(MM_PER_M * joint_error(block.predicted, block.labels), block.mask)


def aligned_error_mm(block: Block) -> Tensor:
    """[B J]: distance after the similarity alignment by all scored joints."""
    aligned = similarity_align(block.predicted, block.labels, block.mask)
    enough = block.mask & (block.mask.sum(1, keepdim=True) >= ALIGNABLE_JOINTS)
    return _shown(MM_PER_M * joint_error(aligned, block.labels), enough)


def scaled_error_mm(block: Block) -> Tensor:
    """[B J]: distance after scaling about the root."""
    return _shown(
        MM_PER_M * joint_error(scale_align(block.predicted, block.labels, block.mask), block.labels), block.mask
    )


def velocity_error_mm(block: Block) -> Tensor:
    """[B J]: error of the step from the frame before."""
    assert block.before is not None
    error_m = velocity_error(block.predicted, block.before.predicted, block.labels, block.before.labels)
    return _shown(MM_PER_M * error_m, block.mask & block.before.mask)


def pixel_error(block: Block) -> Tensor:
    """[B J]: distance in the picture."""
    return _shown((block.predicted - block.labels).norm(dim=-1), block.mask)


def head_hits(block: Block) -> Tensor:
    """[B J]: percent, 100 or 0."""
    assert block.head_size_px is not None
    return PERCENT * pckh(pixel_error(block), block.head_size_px)


MEASURES: dict[str, Measure] = {
    "mpjpe_mm": Measure("MPJPE", "mm", "mean distance of the joints, roots brought together", position_error_mm),
    "pa_mpjpe_mm": Measure(
        "PA-MPJPE", "mm", "the same after the best similarity transform (scale, rotation, shift)", aligned_error_mm
    ),
    "n_mpjpe_mm": Measure("N-MPJPE", "mm", "the same after the best scaling about the root alone", scaled_error_mm),
    "mpjve_mm": Measure(
        "MPJVE", "mm", "mean error of the step from one frame of a take to the next", velocity_error_mm
    ),
    "pck_percent": Measure(
        "PCK@150",
        "%",
        "joints nearer than 150 mm, roots brought together",
        lambda block: PERCENT * pck(position_error_mm(block), PCK_MM),
    ),
    "auc_percent": Measure(
        "AUC",
        "%",
        "mean of PCK at the 31 thresholds 0, 5, ..., 150 mm",
        lambda block: PERCENT * auc(position_error_mm(block), AUC_MM),
    ),
    "pckh_percent": Measure("PCKh@0.5", "%", "joints within half the head's size", head_hits),
    "epe_px": Measure("EPE", "px", "mean distance of the joints in the picture as it is stored", pixel_error),
    "auc_px_percent": Measure(
        "AUC",
        "%",
        "area under PCK from 0 to 30 px, 100 thresholds, by trapezoids",
        lambda block: PERCENT * auc_trapezoid(pixel_error(block), HAND_AUC_PX, HAND_AUC_STEPS),
    ),
    "pck_px_percent": Measure(
        "PCK@10px", "%", "joints nearer than 10 px", lambda block: PERCENT * pck(pixel_error(block), HAND_PCK_PX)
    ),
    "pa_pck15_percent": Measure(
        "PA-PCK@15",
        "%",
        "joints nearer than 15 mm after the best similarity transform",
        lambda block: PERCENT * pck(aligned_error_mm(block), HAND_PCK_MM),
    ),
    "pa_auc_percent": Measure(
        "PA-AUC",
        "%",
        "area under PA-PCK from 0 to 50 mm, 100 thresholds, by trapezoids",
        lambda block: PERCENT * auc_trapezoid(aligned_error_mm(block), HAND_AUC_MM, HAND_AUC_STEPS),
    ),
}


def _shown(values: Tensor, mask: Tensor) -> Tensor:
    return values.where(mask, torch.nan)
