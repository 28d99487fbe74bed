"""Groups in which more samples have a sign than in the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from humanpose3d.checks.case import Case
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
) -> None:
    """Accuses groups in which a share `floor` more of the samples have `values` [N] (1, 0 or NaN) than in the others.

    everywhere: sound samples never have it, so that a whole corpus, or a set of one group, can be accused too.
    """
    values = np.asarray(values, dtype=np.float64)
    means, errors = {}, {}
    for cell, rows in case.columns.rows_of_cell.items():
        own = values[rows[case.open[rows]]]
        own = own[np.isfinite(own)]
        if len(own):
            means[cell] = np.array([own.mean()])
            errors[cell] = float(np.sqrt(max(own.mean() * (1 - own.mean()), 0.25 / len(own)) / len(own)))
    if not means:
        return
    zero = np.zeros(1) if everywhere else None
    for step in steps(means, errors, floor=floor, own_spread=floor / 10, sound=zero):
        region = step.region
        rows = case.rows(region, np.nan_to_num(values) > 0)
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
