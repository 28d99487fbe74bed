"""Left and right: keypoints that fit the labels better when the two are exchanged."""

from __future__ import annotations

import numpy as np

from humanpose3d.checks.case import Case, typical
from humanpose3d.checks.columns import LIMBS, MIRRORED, Columns
from humanpose3d.checks.limits import SIDES_DIFFER, SIDES_TELL
from humanpose3d.checks.regions import accused


def check_sides(case: Case) -> None:
    """Groups in which nearly every person fits better with left and right exchanged. An estimator exchanges some."""
    columns = case.columns
    miss, exchanged = columns.miss(), columns.miss(columns.labels[:, MIRRORED])
    # Who fits neither way, on the floor or half hidden, is no witness for either.
    tells = (np.abs(miss - exchanged) > SIDES_DIFFER) & (np.fmin(miss, exchanged) < case.explained_miss())
    votes = np.nan_to_num(np.where(tells, np.sign(miss - exchanged), 0.0))
    for region in accused(case.votes(votes)):
        rows = case.rows(region)
        if np.mean(votes[rows] != 0) < SIDES_TELL:
            continue  # most fit neither way: something else is wrong
        whose = {True: "the 3D labels", False: "the keypoints", None: "labels or keypoints"}[
            _is_mirrored(columns, rows)
        ]
        better = float(np.mean(votes[rows] > 0) / max(np.mean(votes[rows] != 0), 1e-9))
        case.blame(
            "sides_swapped",
            region,
            f"left and right are exchanged in {whose}: {better:.0%} of the people fit better the other way round, which"
            f" brings the distance from {typical(miss, rows):.1%} of their size to {typical(exchanged, rows):.1%}"
            f"{case.left_out(rows)}; exchange the joints' order",
            rows,
            badness=miss - exchanged,
            measured=better,
            expected=0.0,
            unit="share",
        )


def _is_mirrored(columns: Columns, rows: np.ndarray) -> bool | None:
    """Whether the 3D labels are those of people whose knees bend backwards; None where that cannot be told."""
    at = {point: columns.limbs_m[rows, place] for place, point in enumerate(LIMBS)}
    hips, shoulders = at["left_hip"] + at["right_hip"], at["left_shoulder"] + at["right_shoulder"]
    up = (shoulders - hips) / 2
    votes = []
    for side in ("left", "right"):
        # A bent knee lies before the line from hip to ankle.
        forward = at[f"{side}_knee"] - (at[f"{side}_hip"] + at[f"{side}_ankle"]) / 2
        left = np.cross(up, forward)
        votes.append((left * (at["left_hip"] - at["right_hip"])).sum(-1))
    votes_all = np.concatenate(votes)
    votes_all = votes_all[np.isfinite(votes_all)]
    if len(votes_all) < 8:
        return None
    share = float(np.mean(votes_all < 0))
    return True if share > 0.7 else False if share < 0.3 else None
