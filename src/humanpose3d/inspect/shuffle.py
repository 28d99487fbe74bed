"""How well samples are mixed: each figure beside what a perfect shuffle of the same samples gives, and a verdict.

Arrays in, figures out; which samples make a batch, and what they show, is found by `roster.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SHUFFLED, PARTLY, FILM_ORDER = "shuffled", "partly shuffled", "in film order"

NEAR_S = 1.0  # of one subject and action, frames this close are neighbours: they show nearly the same pose
# What a verdict rests on. Each limit is widened by what chance alone does to a perfect shuffle (CHANCE deviations).
LEAST_SHARE = 0.9  # of the ideal number of subjects, and of takes, in a batch
MOST_NEIGHBOURS = 0.05  # samples with a neighbouring frame, beyond those of a perfect shuffle, as a share of the rest
MOST_CORRELATION = 0.2  # of the pose with the next stored one
FILM_NEIGHBOURS = 0.5  # of the samples are followed by a neighbouring frame: stored as it was filmed
FILM_CORRELATION = 0.8
LEAST_ROOM = 0.1  # where nearly all have a neighbour in a perfect shuffle too, one more or less tells nothing
CHANCE = 4.0


@dataclass(frozen=True)
class Variety:
    """Distinct values in a batch, over the batches, beside those of a perfect shuffle."""

    mean: float
    spread: float  # standard deviation over the batches
    least: int
    ideal: float
    ideal_spread: float

    @property
    def share(self) -> float:
        return self.mean / self.ideal

    @property
    def text(self) -> str:
        """'4.91 ± 0.28 of 4.93 (100 %)'."""
        return f"{self.mean:.2f} \u00b1 {self.spread:.2f} of {self.ideal:.2f} ({100 * self.share:.0f} %)"

    def to_dict(self) -> dict[str, float]:
        return {**vars(self), "share": self.share}


@dataclass(frozen=True)
class Rate:
    """How often something is so, beside how often in a perfect shuffle."""

    measured: float
    expected: float
    number: int  # of samples asked

    @property
    def excess(self) -> float:
        """Beyond the expected, as a share of what there is room for."""
        return (self.measured - self.expected) / self._room

    @property
    def chance(self) -> float:
        """The excess's standard deviation in a perfect shuffle. Neighbours come in twos, hence the 2."""
        variance = 2.0 * self.expected * (1.0 - self.expected) / max(self.number, 1)
        return float(np.sqrt(max(variance, 0.0))) / self._room

    @property
    def _room(self) -> float:
        return max(1.0 - self.expected, LEAST_ROOM)

    @property
    def text(self) -> str:
        """'97.6 % (0.3 % if shuffled)'."""
        return f"{100 * self.measured:.1f} % ({100 * self.expected:.1f} % if shuffled)"


@dataclass(frozen=True)
class ShuffleFigures:
    """How well one folder's samples are mixed."""

    batches: int  # looked at
    batch_size: int
    subjects: Variety  # people in a batch
    takes: Variety  # subject, action and camera
    in_batch: Rate  # samples with a neighbouring frame in their batch
    in_store: Rate  # samples followed by a neighbouring frame as they are stored
    near_frames: int  # frames up to this far apart are neighbours
    pose_correlation: float | None  # of a pose with the next stored one: 1 in a slow film, 0 shuffled
    pose_pairs: int  # that it rests on

    @property
    def verdict(self) -> str:
        """SHUFFLED, PARTLY or FILM_ORDER."""
        if _beyond(self.in_store.excess, FILM_NEIGHBOURS, self.in_store.chance) or self._correlates(FILM_CORRELATION):
            return FILM_ORDER
        return PARTLY if self.shortcomings else SHUFFLED

    @property
    def shortcomings(self) -> list[str]:
        """What falls short of a perfect shuffle, in words."""
        found = []
        for name, variety in (("subjects", self.subjects), ("takes", self.takes)):
            chance = variety.ideal_spread / np.sqrt(self.batches)
            if variety.mean < LEAST_SHARE * variety.ideal - CHANCE * chance:
                found.append(f"a batch of {self.batch_size} holds {variety.mean:.1f} {name} where {variety.ideal:.1f}"
                             " could be")  # fmt: skip
        for rate, what in (
            (self.in_batch, "have a neighbouring frame in their batch"),
            (self.in_store, "are followed by a neighbouring frame"),
        ):
            if _beyond(rate.excess, MOST_NEIGHBOURS, rate.chance):
                found.append(
                    f"{100 * rate.measured:.0f} % of the samples {what}, {100 * rate.expected:.1f} % if shuffled"
                )
        if self._correlates(MOST_CORRELATION):
            found.append(f"a pose is correlated with the next stored one by {self.pose_correlation:.2f}")
        return found

    def _correlates(self, limit: float) -> bool:
        return self.pose_correlation is not None and _beyond(
            self.pose_correlation, limit, 1.0 / np.sqrt(self.pose_pairs)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **vars(self),
            "subjects": self.subjects.to_dict(),
            "takes": self.takes.to_dict(),
            "in_batch": vars(self.in_batch),
            "in_store": vars(self.in_store),
            "verdict": self.verdict,
            "shortcomings": self.shortcomings,
        }


def _beyond(value: float, limit: float, chance: float) -> bool:
    """Above the limit by more than chance; of a set so small that anything can be chance, halfway from it to 1."""
    return value > min(limit + CHANCE * chance, (1.0 + limit) / 2.0)


def variety(classes: np.ndarray, batches: Sequence[np.ndarray]) -> Variety:
    """Distinct classes in the batches. classes: int [N], of every sample; batches: rows of it."""
    found = np.array([len(np.unique(classes[rows])) for rows in batches])
    counts = np.unique(classes, return_counts=True)[1]
    sizes = Counter(len(rows) for rows in batches)  # one that lost an unreadable sample is a little smaller
    ideals = np.array([expected_distinct(counts, size) for size in sizes])
    ideal, spread = np.average(ideals, axis=0, weights=list(sizes.values()))
    return Variety(float(found.mean()), float(found.std()), int(found.min()), float(ideal), float(spread))


def expected_distinct(counts: np.ndarray, draw: int) -> tuple[float, float]:
    """Mean and standard deviation of the number of distinct classes among `draw` samples of a perfect shuffle.

    counts: samples of each class, N in all. Exact: a class of n is missing with the hypergeometric chance
    C(N - n, draw) / C(N, draw), and two of n and m are missing together with that of a class of n + m.
    """
    total = int(counts.sum())
    sizes, classes = np.unique(counts, return_counts=True)
    missing = chance_of_none(total, sizes, draw)
    together = chance_of_none(total, sizes[:, None] + sizes, draw) - missing[:, None] * missing
    pairs = classes[:, None] * classes - np.diag(classes)
    variance = (classes * missing * (1 - missing)).sum() + (pairs * together).sum()
    return float((classes * (1 - missing)).sum()), float(np.sqrt(max(variance, 0.0)))


def chance_of_none(total: int, some: np.ndarray, draw: int) -> np.ndarray:
    """The chance that none of `some` marked ones of `total` is among `draw`, without replacement."""
    from scipy.special import gammaln

    some = np.asarray(some, dtype=np.float64)
    left = total - some
    possible = left >= draw
    left = np.where(possible, left, draw)
    logarithm = gammaln(left + 1) - gammaln(left - draw + 1) - gammaln(total + 1) + gammaln(total - draw + 1)
    return np.where(possible, np.exp(np.minimum(logarithm, 0.0)), 0.0)


def neighbours_of(scenes: np.ndarray, frames: np.ndarray, near: int) -> np.ndarray:
    """int64 [N]: how many other samples of its scene lie within `near` frames of each sample."""
    if not len(scenes):
        return np.zeros(0, dtype=np.int64)
    frames = frames - frames.min()
    places = scenes.astype(np.int64) * (int(frames.max()) + near + 1) + frames
    ordered = np.sort(places)
    return np.searchsorted(ordered, places + near, "right") - np.searchsorted(ordered, places - near, "left") - 1


def neighbours_in_batches(
    scenes: np.ndarray, frames: np.ndarray, batches: Sequence[np.ndarray], near: int, neighbours: np.ndarray
) -> Rate:
    """Samples with a neighbouring frame in their own batch. neighbours: `neighbours_of` all N samples."""
    rows = np.concatenate(batches)
    number = np.repeat(np.arange(len(batches)), [len(rows) for rows in batches])
    apart = number * (int(scenes.max()) + 1) + scenes[rows]
    found = neighbours_of(apart, frames[rows], near) > 0
    kinds, times = np.unique(neighbours, return_counts=True)
    size = round(len(rows) / len(batches))
    expected = np.average(1.0 - chance_of_none(len(scenes) - 1, kinds, size - 1), weights=times)
    return Rate(float(found.mean()), float(expected), len(rows))


def neighbours_in_store(
    scenes: np.ndarray, frames: np.ndarray, rows: np.ndarray, near: int, neighbours: np.ndarray
) -> Rate:
    """Samples followed by a neighbouring frame. rows: int [N], ascending, where each is stored."""
    follows = np.diff(rows) == 1
    close = (np.diff(scenes) == 0) & (np.abs(np.diff(frames)) <= near)
    measured = float(close[follows].mean()) if follows.any() else 0.0
    return Rate(measured, float(neighbours.mean() / max(len(scenes) - 1, 1)), int(follows.sum()))


def lag_one_correlation(poses: np.ndarray, rows: np.ndarray) -> tuple[float | None, int]:
    """Correlation of each pose with the next stored one, and how many pairs it rests on; None where nothing varies.

    poses: float [n D], NaN where missing; rows: int [n], where each is stored, ascending. Coordinates are weighted by
    how much they vary.
    """
    follows = np.flatnonzero(np.diff(rows) == 1)
    known = np.isfinite(poses[follows] * poses[follows + 1]).any(0)
    if not known.any():
        return None, 0
    steps = poses[:, known] - np.nanmean(poses[:, known], axis=0)
    products = steps[follows] * steps[follows + 1]
    pairs = int(np.isfinite(products).any(1).sum())
    variance = np.nanmean(steps**2, axis=0).sum()
    if variance < 1e-12:
        return None, pairs
    return float(np.nanmean(products, axis=0).sum() / variance), pairs
