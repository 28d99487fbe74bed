"""Groups in which more samples have a sign than in the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from humanpose3d.checks.case import Case
from humanpose3d.checks.columns import Cell
from humanpose3d.checks.finding import ERROR
from humanpose3d.checks.regions import steps


def check_share(
    case: Case,
    fault: str,
    values: np.ndarray,
    floor: float,
    words: Callable[[float, float], str],
    *,
    badness: np.ndarray,
    everywhere: bool = False,
    explains: bool = True,
    severity: Callable[[np.ndarray], str] = lambda rows: ERROR,
    unless: Callable[[np.ndarray], bool] = lambda rows: False,
) -> None:
    """Accuses groups in which a share `floor` more of the samples have `values` [N] (1, 0 or NaN) than in the others.

    everywhere: sound samples never have it, so that a whole corpus, or a set of one group, can be accused too. unless:
    asked of the rows that have it; a group for which it holds is let go.
    """
    values = np.asarray(values, dtype=np.float64)
    means, errors = cell_shares(case, values)
    zero = np.zeros(1) if everywhere else None
    for step in steps(means, errors, floor=floor, own_spread=floor / 10, sound=zero):
        region = step.region
        rows = case.rows(region, np.nan_to_num(values) > 0)
        if unless(rows):
            continue
        case.blame(
            fault,
            region,
            words(float(step.value[0]), float(step.others[0])),
            rows,
            badness=badness,
            measured=float(step.value[0]),
            expected=float(step.others[0]),
            unit="share",
            explains=False,
            severity=severity(rows),
        )
        if explains:
            case.open[case.rows(region)] = False


def cell_shares(case: Case, values: np.ndarray) -> tuple[dict[Cell, np.ndarray], dict[Cell, float]]:
    """Of each cell's open samples, the mean of `values` [N] (1, 0 or NaN) as [1], and its standard error if the cell
    were like all together: a cell where chance put none is no surer than the others."""
    own = {cell: values[rows[case.open[rows]]] for cell, rows in case.columns.rows_of_cell.items()}
    own = {cell: found[np.isfinite(found)] for cell, found in own.items() if np.isfinite(found).any()}
    overall = float(np.mean(np.concatenate(list(own.values())))) if own else 0.0
    errors = {
        cell: float(np.sqrt(max(overall * (1 - overall), 0.25 / len(found)) / len(found)))
        for cell, found in own.items()
    }
    return {cell: np.array([found.mean()]) for cell, found in own.items()}, errors
