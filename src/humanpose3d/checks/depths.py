"""The depth map at the labelled joints against the labels' own depth."""

from __future__ import annotations

import numpy as np

from humanpose3d.checks.case import Case
from humanpose3d.checks.columns import Columns, median
from humanpose3d.checks.finding import NOTE
from humanpose3d.checks.limits import DEPTH_FACTOR, DEPTH_FACTOR_ALL, DEPTH_SPREAD, LEAST_JOINTS
from humanpose3d.checks.regions import Region, steps


def check_depth(case: Case) -> None:
    """Groups whose depth maps are off the labels by a factor the others' are not."""
    columns = case.columns
    ratio = depth_ratio(columns)
    with np.errstate(all="ignore"):
        middles, errors = case.medians(np.log(ratio))
    floor = float(np.log(DEPTH_FACTOR))
    for step in steps(middles, errors, floor=floor, own_spread=float(np.log(DEPTH_SPREAD))):
        rows = case.rows(step.region, np.isfinite(ratio))
        mine, others = float(np.exp(step.value[0])), float(np.exp(step.others[0]))
        factor, offset = depth_line(columns, rows)
        case.blame(
            "depth_scale",
            step.region,
            f"the depth map at the joints is {mine:.3g} times the labelled one, {others:.3g} times in the other groups"
            f" (best line: {factor:.3g} x {offset:+.2f} m); check the unit of the depth maps and the focal length they"
            " were scaled by",
            rows,
            badness=np.abs(np.log(np.where(ratio > 0, ratio, np.nan)) - step.others[0]),
            measured=mine,
            expected=others,
            unit="times",
        )
    middles, _ = case.medians(np.log(np.where(ratio > 0, ratio, np.nan)))
    if middles:
        overall = float(np.exp(np.median(list(middles.values()))))
        region = Region(None, None, tuple(middles))
        rows = case.rows(region, np.isfinite(ratio))
        if abs(np.log(overall)) > np.log(DEPTH_FACTOR_ALL):
            factor, offset = depth_line(columns, rows)
            case.blame(
                "depth_scale",
                region,
                f"depth maps are {overall:.3g} times the labelled depth (best line: {factor:.3g} x {offset:+.2f} m):"
                " estimated depth is metric in name only",
                rows,
                measured=overall,
                expected=1.0,
                unit="times",
                severity=NOTE,
                explains=False,
            )


def depth_ratio(columns: Columns) -> np.ndarray:
    """float64 [N]: median over the joints of the map's depth / the labelled one; NaN where there are too few."""
    ratio = np.full(len(columns), np.nan)
    for row, witness in enumerate(columns.witnesses):
        joints = columns.joints_m[row]
        if (
            witness.depth_at_joints_m is not None
            and joints is not None
            and len(joints) == len(witness.depth_at_joints_m)
        ):
            with np.errstate(all="ignore"):
                each = witness.depth_at_joints_m / np.where(joints[:, 2] > 0, joints[:, 2], np.nan)
            if np.isfinite(each).sum() >= LEAST_JOINTS:
                ratio[row] = float(median(each))
    return np.where(ratio > 0, ratio, np.nan)


def depth_line(columns: Columns, rows: np.ndarray) -> tuple[float, float]:
    """(factor, offset in metres) of the line from labelled depths to the map's, over samples' medians."""
    labelled, mapped = [], []
    for row in rows:
        joints, found = columns.joints_m[row], columns.witnesses[row].depth_at_joints_m
        if joints is not None and found is not None:
            known = np.isfinite(found) & np.isfinite(joints[:, 2])
            labelled.append(np.median(joints[known, 2]))
            mapped.append(np.median(found[known]))
    x, y = np.array(labelled), np.array(mapped)
    if len(x) < LEAST_JOINTS or np.ptp(x) < 0.3:
        return float(np.median(y / x)) if len(x) else 1.0, 0.0
    factor, offset = np.polyfit(x, y, 1)
    return float(factor), float(offset)
