"""Bones: lengths no human has, lengths that change within a person, and persons who differ from camera to camera."""

from __future__ import annotations

import numpy as np

from humanpose3d.checks.case import Case, typical
from humanpose3d.checks.columns import LIMBS, Columns, median, rows_by_skeleton
from humanpose3d.checks.limits import (
    BODY_BONE_M,
    BONES_SCALE,
    HAND_BONE_M,
    HUMAN_RANGES_M,
    NOISE_M,
    NOISE_TIMES,
    UNITS_FACTOR,
)
from humanpose3d.checks.regions import accused, steps
from humanpose3d.skeletons import HAND_21, Skeleton

LIMB_BONES = [
    (LIMBS.index(f"{side}_{upper}"), LIMBS.index(f"{side}_{lower}"))
    for upper, lower in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
    for side in ("left", "right")
]


def check_units(case: Case) -> None:
    """Joints in millimetres where metres belong, or the reverse: bones some thousand times too long or too short."""
    factor = bone_factor(case.columns)
    with np.errstate(all="ignore"):
        far = np.abs(np.log(factor)) > np.log(UNITS_FACTOR)
    votes = np.where(np.isfinite(factor), np.where(far, 1.0, -1.0), 0.0)
    for region in accused(case.votes(votes)):
        rows = case.rows(region, votes > 0)
        times = typical(factor, rows)
        case.blame(
            "units",
            region,
            f"{_units_words(times)}: the typical bone is {_length(times * BODY_BONE_M)} where about 0.25 m is usual"
            f"{case.left_out(rows)}; read these labels with the right unit",
            rows,
            measured=times,
            expected=1.0,
            unit="times",
        )


def bone_factor(columns: Columns) -> np.ndarray:
    """float64 [N]: the median bone against a usual one of its kind of skeleton; NaN without 3D labels."""
    factor = np.full(len(columns), np.nan)
    for row, (joints, skeleton) in enumerate(zip(columns.joints_m, columns.skeletons, strict=True)):
        if joints is not None and skeleton is not None and len(joints) == len(skeleton) and skeleton.bones:
            usual = HAND_BONE_M if skeleton is HAND_21 else BODY_BONE_M
            ends = np.array(skeleton.bones)
            factor[row] = median(np.linalg.norm(joints[ends[:, 0]] - joints[ends[:, 1]], axis=-1)) / usual
    return np.where(factor > 0, factor, np.nan)


def _units_words(times: float) -> str:
    for step, larger, smaller in (
        (1000.0, "millimetres where metres belong", "metres divided by 1000, as though they were millimetres"),
        (100.0, "centimetres where metres belong", "metres divided by 100, as though they were centimetres"),
    ):
        if 1 / 3 < times / step < 3:
            return f"joints are {step:.0f} times too large, {larger}"
        if 1 / 3 < times * step < 3:
            return f"joints are {step:.0f} times too small, {smaller}"
    return f"joints are {times:.3g} times as large as a person"


def _length(metres: float) -> str:
    return f"{metres:.0f} m" if metres >= 10 else f"{metres:.2f} m" if metres >= 0.01 else f"{metres * 1000:.2g} mm"


# --------------------------------------------------------------------------------------------------- within a person


def limb_lengths(columns: Columns) -> np.ndarray:
    """float64 [N 8] metres: upper arms, forearms, thighs and shins."""
    ends = np.array(LIMB_BONES)
    return np.linalg.norm(columns.limbs_m[:, ends[:, 0]] - columns.limbs_m[:, ends[:, 1]], axis=-1)


def bones_of_person(columns: Columns, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [N] ratio of the sample's limb bones to the person's median ones, float64 [N] metres by which they are
    off it when that ratio is taken out). NaN where there are no bones, or the person is seen once."""
    lengths = limb_lengths(columns)
    ratio, change = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    for rows in columns.rows_of_person.values():
        rows = rows[use[rows]]
        if len(rows) >= 3:
            own = median(lengths[rows], axis=0)
            with np.errstate(all="ignore"):
                ratio[rows] = median(lengths[rows] / own, axis=1)
                change[rows] = median(np.abs(lengths[rows] / ratio[rows, None] - own), axis=1)
    return ratio, change


def check_noise(case: Case) -> None:
    """Labels that scatter: the same person's bones change their lengths from frame to frame."""
    _, change = bones_of_person(case.columns, case.open)
    usual = case.sound(change, (0.0, np.inf))
    limit = max(NOISE_M, NOISE_TIMES * usual)
    votes = np.where(np.isfinite(change), np.where(change > limit, 1.0, -1.0), 0.0)
    for region in accused(case.votes(votes)):
        rows = case.rows(region)
        off = typical(change, rows)
        case.blame(
            "label_noise",
            region,
            f"limb bones change their lengths by {100 * off:.1f} cm from frame to frame where the others' change"
            f" by {100 * usual:.1f} cm: joints scatter by about {100 * off * _NOISE_OF_CHANGE:.0f} cm along each axis"
            f"{case.left_out(rows)}; leave these labels out, or take them from the source again",
            rows,
            badness=change,
            measured=off,
            expected=usual,
            unit="m",
        )


# Two ends that scatter by s along each axis change a bone by s * sqrt(2), half of the time by more than 0.95 s.
_NOISE_OF_CHANGE = 1.05


def check_bone_scale(case: Case) -> None:
    """A camera in which the same people are larger or smaller than elsewhere."""
    ratio, change = bones_of_person(case.columns, case.open)
    if case.sound(change, (0.0, np.inf)) > NOISE_M:
        return  # subjects are not persons here
    with np.errstate(all="ignore"):
        middles, errors = case.medians(np.log(ratio))
    for step in steps(middles, errors, floor=BONES_SCALE, own_spread=BONES_SCALE / 8):
        share = float(np.expm1(step.value - step.others)[0])
        rows = case.rows(step.region)
        case.blame(
            "scale",
            step.region,
            f"the same people's bones are {abs(share):.1%} {'longer' if share > 0 else 'shorter'} here than elsewhere:"
            " the 3D labels are scaled; check the unit and the calibration they went through",
            rows,
            measured=1 + share,
            expected=1.0,
            unit="times",
        )


# ---------------------------------------------------------------------------------------------------- human measures


def unlike_humans(joints_m: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """float64 [..., P]: 1 for each of HUMAN_RANGES_M (those the skeleton has) that [..., J 3] breaks, 0 for those it
    keeps, NaN where a joint is missing."""
    points = skeleton.points
    pairs = [(ends, limits) for ends, limits in HUMAN_RANGES_M.items() if set(ends) <= set(points)]
    first = [points.index(ends[0]) for ends, _ in pairs]
    second = [points.index(ends[1]) for ends, _ in pairs]
    low, high = np.array([limits for _, limits in pairs]).reshape(-1, 2).T
    distance = np.linalg.norm(joints_m[..., first, :] - joints_m[..., second, :], axis=-1)
    return np.where(np.isfinite(distance), (distance < low) | (distance > high), np.nan)


def check_human(case: Case) -> None:
    """Bodies that no order of joints and no unit makes human."""
    columns = case.columns
    share = np.full(len(columns), np.nan)
    for skeleton, rows in rows_by_skeleton(columns.joints_m, columns.skeletons):
        outside = unlike_humans(np.stack([columns.joints_m[row] for row in rows]), skeleton)  # type: ignore[misc]
        known = np.isfinite(outside).sum(-1)
        share[rows] = np.where(known > 0, np.nansum(outside, -1) / np.maximum(known, 1), np.nan)
    votes = np.where(np.isfinite(share), np.where(share > 0.25, 1.0, -1.0), 0.0)
    for region in accused(case.votes(votes)):
        own = case.rows(region, votes > 0)
        case.blame(
            "bone_lengths",
            region,
            f"{typical(share, own):.0%} of the distances between joints are none of a human body"
            f"{case.left_out(own)}; look at the unit, the scale and the order of these labels",
            own,
            badness=share,
            measured=typical(share, own),
            expected=0.0,
            unit="share",
        )
