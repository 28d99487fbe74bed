"""The one figure that a task is judged by, in which the best checkpoint is the best; and what a protocol measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

KEYS_NAMED = 3


@dataclass(frozen=True)
class Criterion:
    """A scalar of an evaluation."""

    name: str  # among the scores
    label: str  # in a line for people
    unit: str
    higher_is_better: bool = False

    def cost(self, value: float) -> float:
        """Less is better."""
        return -value if self.higher_is_better else value

    def words(self, value: float) -> str:
        return f"{self.label} {value:.1f} {self.unit}"


@dataclass(frozen=True)
class Measurable:
    """Answers and labels of a batch, each in its skeleton."""

    predicted: Tensor  # float32 [B J 3] metres, relative to the root; [B J 2] px of the model input
    labels: Tensor  # float32 [B J 3] metres, camera frame; [B J 2]
    mask: Tensor  # bool [B J], labelled
    head_size_px: Tensor | None = None  # float32 [B], of the model input; 0 where unknown
    focal_px: Tensor | None = None  # float32 [B], likewise


def not_finite(keys: Sequence[str], number: int) -> ValueError:
    """For the caller to raise. keys: of the first of those samples; other processes may have the others."""
    named = ", ".join([*keys[:KEYS_NAMED], *(["..."] if number > len(keys[:KEYS_NAMED]) else [])])
    return ValueError(
        f"the model's answers to {number} samples are not finite ({named}), so nothing is measured; its weights may "
        "hold NaN: take an earlier checkpoint"
    )
