"""How far something is off, joint by joint, gathered over a whole set: means and percentiles in little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from humanpose3d.skeletons import Skeleton

BIN = 0.05  # width of the classes that distances are counted in, in their own unit: how exact percentiles are
LAST_BIN = 40_000


class Residuals:
    """Distances of any number of people's joints, in one unit."""

    def __init__(self) -> None:
        self.sums = dict[str, float]()  # of each joint
        self.numbers = Counter[str]()
        self.bins = Counter[int]()

    def add(self, skeleton: Skeleton | None, distances: np.ndarray, times: int = 1) -> None:
        """A person's joints: distances [J], NaN where unknown. times: -1 takes them away again."""
        if skeleton is None:
            return
        for joint in np.flatnonzero(np.isfinite(distances)).tolist():
            distance = float(distances[joint])
            name = skeleton.joints[joint]
            self.sums[name] = self.sums.get(name, 0.0) + times * distance
            self.numbers[name] += times
            self.bins[min(int(distance / BIN), LAST_BIN)] += times

    def add_all(self, other: Residuals) -> None:
        for joint, total in other.sums.items():
            self.sums[joint] = self.sums.get(joint, 0.0) + total
        self.numbers.update(other.numbers)
        self.bins.update(other.bins)

    @property
    def count(self) -> int:
        return sum(self.numbers.values())

    @property
    def mean(self) -> float:
        return sum(self.sums.values()) / self.count

    def percentile(self, share: float) -> float:
        """The distance that a share of all are below, to a BIN."""
        bins = sorted(self.bins)
        below = np.cumsum([self.bins[each] for each in bins])
        at = int(np.searchsorted(below, share * below[-1]))
        return (bins[at] + 0.5) * BIN

    def by_joint(self) -> dict[str, float]:
        """Means."""
        return {joint: self.sums[joint] / number for joint, number in self.numbers.items() if number}

    def facts(self) -> dict[str, Any] | None:
        """For a report; None of nothing."""
        if not self.count:
            return None
        figures = {"mean": self.mean, "median": self.percentile(0.5), "p95": self.percentile(0.95)}
        rounded = {name: round(value, 3) for name, value in figures.items()}
        return {**rounded, "by_joint": {joint: round(value, 3) for joint, value in self.by_joint().items()}}

    def line(self, unit: str) -> str:
        """'1.9 mm (median 1.8, 95 % below 4.5)', or ''."""
        if not self.count:
            return ""
        return f"{self.mean:.1f} {unit} (median {self.percentile(0.5):.1f}, 95 % below {self.percentile(0.95):.1f})"

    def joint_line(self) -> str:
        """The joints with the largest first."""
        ordered = sorted(self.by_joint().items(), key=lambda each: -each[1])
        return ", ".join(f"{joint} {value:.1f}" for joint, value in ordered)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` gives the same back."""
        bins = {str(each): self.bins[each] for each in sorted(self.bins)}
        return {"sums": dict(self.sums), "numbers": dict(self.numbers), "bins": bins}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Residuals:
        residuals = Residuals()
        residuals.sums.update(data["sums"])
        residuals.numbers.update(data["numbers"])
        residuals.bins.update({int(each): number for each, number in data["bins"].items()})
        return residuals
