"""From signs in samples to the group they are of: a subject, a camera, one subject through one camera, or all.

A fault in one subject shows in all of that subject's cells (subject x camera), one in a camera in all of its cells. The
group that explains the signs best is accused: as many cells with signs as there are, as few without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from humanpose3d.checks.columns import Cell
from humanpose3d.checks.limits import ALL_AGREE, LEAST_AGREEMENT, LEAST_SIGMAS, LEAST_VOTES, MAJORITY


@dataclass(frozen=True)
class Region:
    """A subject, a camera, both or (None, None) all, and the cells in it."""

    subject: str | None
    camera_id: str | None
    cells: tuple[Cell, ...]

    def rows(self, rows_of_cell: Mapping[Cell, np.ndarray]) -> np.ndarray:
        """int64, sorted."""
        return np.sort(np.concatenate([rows_of_cell[cell] for cell in self.cells]))


def regions(cells: list[Cell]) -> list[Region]:
    """All groups there are, larger before smaller; of groups with the same cells only the first, most general one.

    With one camera in the set its cells are the subjects': a fault there is the subject's. A camera that only one
    subject was filmed by, or a subject only one camera filmed, is a cell.
    """
    subjects, cameras = sorted({subject for subject, _ in cells}), sorted({camera for _, camera in cells})
    found: dict[tuple[Cell, ...], Region] = {}
    candidates: list[tuple[str | None, str | None]] = [(None, None)]
    rows, columns = [(subject, None) for subject in subjects], [(None, camera) for camera in cameras]
    # With one subject the columns say more than the row, which is everything.
    candidates += [*rows, *columns] if len(subjects) > 1 else [*columns, *rows]
    candidates += [cell for cell in sorted(cells)]
    for subject, camera in candidates:
        own = tuple(c for c in sorted(cells) if subject in (None, c[0]) and camera in (None, c[1]))
        region = Region(subject, camera, own)
        if own not in found:
            found[own] = region
        elif len(own) == 1 and len(subjects) > 1 and len(cameras) > 1:
            found[own] = Region(own[0][0], own[0][1], own)
    return sorted(found.values(), key=lambda region: -len(region.cells))


def accused(
    votes: Mapping[Cell, np.ndarray], *, least: float = LEAST_VOTES, agreement: float = LEAST_AGREEMENT
) -> list[Region]:
    """Groups whose samples speak for a fault.

    votes: per cell, one number a sample: above 0 for the fault, below against it, 0 or NaN for no opinion; 1 is as
    sure as one sample can be. Every accused group has at least `least` votes net and that share of its voters.
    """
    left = {cell: _Count.of(values) for cell, values in votes.items()}
    found: list[Region] = []
    while True:
        best, most = None, 0.0
        for region in regions(list(left)):
            counts = [left[cell] for cell in region.cells]
            net = sum(count.net for count in counts)
            speaking = [count for count in counts if count.voters > 0]
            needed = ALL_AGREE if region.subject is None and region.camera_id is None else agreement
            if net < least or net <= most or not speaking or not _agree(speaking, needed):
                continue
            best, most = region, net
        if best is None:
            return found
        found.append(best)
        left = {cell: count for cell, count in left.items() if cell not in best.cells}


@dataclass(frozen=True)
class _Count:
    net: float
    voters: int
    supporters: int

    @staticmethod
    def of(values: np.ndarray) -> _Count:
        values = np.nan_to_num(np.asarray(values, dtype=np.float64))
        return _Count(float(values.sum()), int((values != 0).sum()), int((values > 0).sum()))


def _agree(counts: list[_Count], share: float) -> bool:
    """Nearly all samples, and nearly all cells, speak for the fault."""
    samples = sum(count.supporters for count in counts) / sum(count.voters for count in counts)
    cells = sum(count.net > 0 for count in counts) / len(counts)
    return samples >= share and cells >= share


@dataclass(frozen=True)
class Step:
    """A group whose figure differs from the others'."""

    region: Region
    value: np.ndarray  # [D] of the group
    others: np.ndarray  # [D]
    sigmas: float


def steps(
    values: Mapping[Cell, np.ndarray],
    errors: Mapping[Cell, float],
    *,
    floor: float,
    own_spread: float,
    sound: np.ndarray | None = None,
    least_sigmas: float = LEAST_SIGMAS,
) -> list[Step]:
    """Groups whose figure ([D] per cell, with its standard error) lies apart from all other cells'.

    floor: the least distance that counts. own_spread: how far sound groups lie apart for reasons of their own. Where
    two groups stand against each other, the one farther from zero is accused: the figures are errors, and zero is
    sound.
    sound: what every sound cell has exactly; groups are compared with it instead of the others, so that all can be
    accused.
    """
    left = {cell: value for cell, value in values.items() if np.isfinite(value).all() and np.isfinite(errors[cell])}
    found: list[Step] = []
    while len(left) > (0 if sound is not None else 1):
        weight = {cell: 1.0 / (errors[cell] ** 2 + own_spread**2) for cell in left}
        best, most = None, 0.0
        for region in regions(list(left)):
            step = _step(region, left, errors, weight, own_spread, sound)
            if step is None or np.linalg.norm(step.value - step.others) < floor or step.sigmas < least_sigmas:
                continue
            gain = _gain(step, left, weight)
            if gain > most * (1 + 1e-9):
                best, most = step, gain
        if best is None:
            return found
        found.append(best)
        left = {cell: value for cell, value in left.items() if cell not in best.region.cells}
    return found


def _step(
    region: Region,
    values: Mapping[Cell, np.ndarray],
    errors: Mapping[Cell, float],
    weight: Mapping[Cell, float],
    own_spread: float,
    sound: np.ndarray | None,
) -> Step | None:
    inside = [cell for cell in values if cell in region.cells]
    outside = [cell for cell in values if cell not in region.cells]
    if not inside or not (outside or sound is not None):
        return None
    value = np.average([values[cell] for cell in inside], axis=0, weights=[weight[cell] for cell in inside])
    others = np.median([values[cell] for cell in outside], axis=0) if sound is None else sound
    if len(outside) < MAJORITY * len(inside) and np.linalg.norm(value) <= np.linalg.norm(others):
        return None  # no majority tells which of the two is sound: the one nearer to zero is
    way = (value - others) / max(float(np.linalg.norm(value - others)), 1e-12)
    # Nearly all cells of the group lie on its side of the middle between group and others.
    leaning = np.mean([(values[cell] - others) @ way > 0.5 * np.linalg.norm(value - others) for cell in inside])
    if leaning < LEAST_AGREEMENT:
        return None
    noise = np.sqrt(1.0 / sum(1.0 / max(errors[cell], 1e-12) ** 2 for cell in inside))
    # What makes single cells differ averages out over the cells of a group, what makes groups differ does not.
    among_cells = _excess(values, errors, outside, others) / np.sqrt(len(inside)) if sound is None else 0.0
    error = float(np.sqrt(noise**2 + (own_spread**2 + among_cells**2) * (1.0 + 1.0 / max(len(outside), 1))))
    own = Region(region.subject, region.camera_id, tuple(inside))
    return Step(own, value, others, float(np.linalg.norm(value - others)) / max(error, 1e-12))


def _excess(
    values: Mapping[Cell, np.ndarray], errors: Mapping[Cell, float], cells: list[Cell], middle: np.ndarray
) -> float:
    """How far these cells lie apart beyond their own errors; 0 for one. Half of the cells may be off."""
    if len(cells) < 2:
        return 0.0
    apart = np.median(np.abs(np.array([values[cell] for cell in cells]) - middle)) * (1.48 if len(cells) > 2 else 1.0)
    return float(np.sqrt(max(apart**2 - np.median([errors[cell] for cell in cells]) ** 2, 0.0)))


def _gain(step: Step, values: Mapping[Cell, np.ndarray], weight: Mapping[Cell, float]) -> float:
    """How much better the cells are explained by one figure of the group than by that of the others."""
    return float(
        sum(
            weight[cell] * (np.sum((values[cell] - step.others) ** 2) - np.sum((values[cell] - step.value) ** 2))
            for cell in step.region.cells
        )
    )
