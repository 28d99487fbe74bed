"""One corpus being judged: its columns, what is still unexplained, and the findings so far.

Checks run from the most specific cause to the vaguest sign. A finding that explains a group's samples takes them out of
the later checks: one cause, one finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from humanpose3d.checks.columns import Cell, Columns, median
from humanpose3d.checks.finding import ERROR, Finding
from humanpose3d.checks.limits import EXPLAINED_PLUS, EXPLAINED_TIMES, INDEPENDENT_OF_TAKE, SOUND_MISS, SOUND_QUANTILE
from humanpose3d.checks.regions import Region

WORST = 12  # keys named in a finding


@dataclass
class Case:
    columns: Columns
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open = np.ones(len(self.columns), dtype=bool)  # [N]: no finding explains the sample yet

    def votes(self, values: np.ndarray, among: np.ndarray | None = None) -> dict[Cell, np.ndarray]:
        """[N] votes -> the open samples' votes of each cell (of those `among` [N] bool)."""
        use = self.open if among is None else self.open & among
        found = {cell: values[rows[use[rows]]] for cell, rows in self.columns.rows_of_cell.items()}
        return {cell: votes for cell, votes in found.items() if len(votes)}

    def medians(self, values: np.ndarray) -> tuple[dict[Cell, np.ndarray], dict[Cell, float]]:
        """[N] or [N D] -> each cell's median over its open samples, [1] or [D], and its standard error."""
        values = values.reshape(len(values), -1)
        middles, errors = {}, {}
        for cell, rows in self.columns.rows_of_cell.items():
            own = values[rows[self.open[rows]]]
            own = own[np.isfinite(own).all(1)]
            if len(own) >= 3:
                middles[cell] = np.median(own, axis=0)
                spread = 1.48 * np.median(np.abs(own - middles[cell]), axis=0)
                errors[cell] = float(np.linalg.norm(spread) * 1.25 / np.sqrt(self.independent(rows)))
        return middles, errors

    def independent(self, rows: np.ndarray) -> float:
        """How many of a cell's open samples count as independent: neighbours of a take share a pose, and an
        estimator's error with it."""
        rows = rows[self.open[rows]]
        takes = {self.columns.witnesses[row].action for row in rows}
        return float(min(len(rows), INDEPENDENT_OF_TAKE * len(takes)))

    def sound(self, values: np.ndarray, limits: tuple[float, float]) -> float:
        """What a sound group's median of `values` [N] is, as this corpus has it: a low quantile of its cells', believed
        between the limits only."""
        middles, _ = self.medians(values)
        if not middles:
            return limits[0]
        return float(np.clip(np.quantile(np.array(list(middles.values())), SOUND_QUANTILE), *limits))

    def sound_miss(self) -> float:
        """Of keypoints from labels, person sizes."""
        return self.sound(self.columns.miss(), SOUND_MISS)

    def explained_miss(self) -> float:
        """Up to here a group's keypoints lie as a sound group's do."""
        return EXPLAINED_TIMES * self.sound_miss() + EXPLAINED_PLUS

    def rows(self, region: Region, among: np.ndarray | None = None) -> np.ndarray:
        """int64: the region's open samples."""
        rows = region.rows(self.columns.rows_of_cell)
        use = self.open if among is None else self.open & among
        return rows[use[rows]]

    def blame(
        self,
        fault: str,
        region: Region,
        message: str,
        rows: np.ndarray,
        *,
        badness: np.ndarray | None = None,
        explains: bool = True,
        measured: float | None = None,
        expected: float | None = None,
        unit: str = "",
        severity: str = ERROR,
        action: str | None = None,
    ) -> None:
        """Records a finding on these rows. badness [N]: the worst samples are those of the highest."""
        self.findings.append(
            Finding(
                fault=fault,
                corpus=self.columns.corpus,
                subject=region.subject,
                camera_id=region.camera_id,
                action=action,
                message=message,
                measured=None if measured is None else float(measured),
                expected=None if expected is None else float(expected),
                unit=unit,
                samples=len(rows),
                severity=severity,
                worst=self._worst(rows, badness),
            )
        )
        if explains:
            self.open[rows] = False

    def _worst(self, rows: np.ndarray, badness: np.ndarray | None) -> tuple[str, ...]:
        if badness is not None:
            rows = rows[np.argsort(-np.nan_to_num(badness[rows], nan=-np.inf), kind="stable")]
        return tuple(self.columns.witnesses[row].key for row in rows[:WORST])

    def left_out(self, rows: np.ndarray) -> str:
        """', which left 12 of 40 frames without a matching detection', or '' where none was."""
        unmatched = sum(not self.columns.witnesses[row].matched for row in rows)
        return f", which left {unmatched} of {len(rows)} frames without a matching detection" if unmatched else ""


def typical(values: np.ndarray, rows: np.ndarray) -> float:
    """Median of the rows' values."""
    return float(median(values[rows]))


def most(names: Iterable[str | None]) -> str:
    """The commonest name."""
    listed: Sequence[str] = [name for name in names if name]
    return max(sorted(set(listed)), key=listed.count) if listed else ""
