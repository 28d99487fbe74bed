"""Kinds of true poses that models find hard: which way the person faces, sitting or lying, crossed limbs.

Small functions on labelled joints alone, so that every model is judged on the same groups. A pose that lacks the joints
a question needs is in none of its groups.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from humanpose3d.skeletons import Skeleton

FACING = ("front", "side", "back")
POSTURES = ("upright", "sitting or crouching", "lying or bent over")
LIMBS = ("limbs apart", "legs crossed", "arms crossed", "both crossed")
FRONT_DEG, BACK_DEG = 45.0, 135.0  # of the pelvis' normal from the way to the camera
STANDING_SHARE = 0.75  # of the leg's length, from which hips over ankles is standing: a right-angled knee leaves 0.5
LYING_DEG = 60.0  # of the trunk from the vertical
NOBODY = -1  # the group of a pose that cannot be told

Points = Callable[[str], np.ndarray]


def facing(joints_cam_m: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """[N J 3] metres, camera frame -> int [N] into FACING: the pelvis' normal against the way to the camera.

    The normal is the product of the line from the right hip to the left and the one from the hips up to the shoulders.
    """
    at = _points(joints_cam_m, skeleton)
    hips_m = (at("left_hip") + at("right_hip")) / 2
    normal = np.cross(at("left_hip") - at("right_hip"), _shoulders(at) - hips_m)
    degrees = _degrees_between(normal, -hips_m)
    return _grouped(degrees, (FRONT_DEG, BACK_DEG))


def posture(joints_cam_m: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """[N J 3] metres, camera frame -> int [N] into POSTURES: the hips' height over the ankles, and the trunk's tilt.

    Up is the camera's: a camera that looks down by 30 degrees still sees 0.87 of a standing leg. Who lies or bends over
    (trunk further than LYING_DEG from it) is neither upright nor sitting.
    """
    at = _points(joints_cam_m, skeleton)
    hips_m = (at("left_hip") + at("right_hip")) / 2
    trunk_m = _shoulders(at) - hips_m
    legs = [
        np.linalg.norm(at(f"{side}_hip") - at(f"{side}_knee"), axis=-1)
        + np.linalg.norm(at(f"{side}_knee") - at(f"{side}_ankle"), axis=-1)
        for side in ("left", "right")
    ]
    ankles_m = (at("left_ankle") + at("right_ankle")) / 2
    height = (ankles_m - hips_m)[:, 1] / np.maximum((legs[0] + legs[1]) / 2, 1e-6)  # y points down
    tilt = _degrees_between(trunk_m, np.array([0.0, -1.0, 0.0]))
    found = np.where(tilt > LYING_DEG, 2, np.where(height < STANDING_SHARE, 1, 0))
    return np.where(np.isfinite(height) & np.isfinite(tilt), found, NOBODY)


def crossed_limbs(joints_cam_m: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """[N J 3] metres, camera frame -> int [N] into LIMBS: ankles in the other order than the hips, wrists than the
    shoulders, along the line of those."""
    at = _points(joints_cam_m, skeleton)
    along = {
        end: ((at(f"left_{end}") - at(f"right_{end}")) * (at(f"left_{base}") - at(f"right_{base}"))).sum(-1)
        for end, base in (("ankle", "hip"), ("wrist", "shoulder"))
    }
    found = 1 * (along["ankle"] < 0) + 2 * (along["wrist"] < 0)
    return np.where(np.isfinite(along["ankle"]) & np.isfinite(along["wrist"]), found, NOBODY)


# What is asked of a pose -> (the names of its groups, who is in which).
GROUPS: dict[str, tuple[tuple[str, ...], Callable[[np.ndarray, Skeleton], np.ndarray]]] = {
    "facing": (FACING, facing),
    "posture": (POSTURES, posture),
    "limbs": (LIMBS, crossed_limbs),
}


def _points(joints: np.ndarray, skeleton: Skeleton) -> Points:
    """Looks up joints by the point they mark; NaN where the skeleton has none."""
    missing = np.full((len(joints), 3), np.nan)

    def at(point: str) -> np.ndarray:
        known = point in skeleton.points
        return joints[:, skeleton.points.index(point)].astype(np.float64) if known else missing

    return at


def _shoulders(at: Points) -> np.ndarray:
    return (at("left_shoulder") + at("right_shoulder")) / 2


def _degrees_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[N 3], [N 3] or [3] -> [N]"""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    cosine = (first * second).sum(-1) / np.maximum(lengths, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _grouped(values: np.ndarray, limits: tuple[float, ...]) -> np.ndarray:
    return np.where(np.isfinite(values), np.digitize(np.nan_to_num(values), limits), NOBODY)
