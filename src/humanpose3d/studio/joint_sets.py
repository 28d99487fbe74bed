"""A posed studio body's joints in any skeleton of `skeletons.py` but the hand's."""

from __future__ import annotations

import numpy as np

from humanpose3d.skeletons import COCO_17, H36M_17, Skeleton
from humanpose3d.studio.motion import Joints

CROWN_M = 0.02  # the top of the head above Human3.6M's head joint
SKULL_BASE = 0.34  # where MPI-INF-3DHP's "head" is, on the way from the base of the neck to the crown: real frames
HAND_M, HAND_END_M, THUMB_M = 0.09, 0.16, 0.06  # from the wrist, along the forearm
TOE_BASE_M, TOE_END_M = 0.13, 0.20  # from the ankle, along the foot


def joints_in(joints: Joints, skeleton: Skeleton) -> np.ndarray:
    """float64 [J 3], world frame, metres. Points that the body has no joint for lie where its shape puts them."""
    points = body_points(joints)
    return np.array([points[point] for point in skeleton.points])


def body_points(joints: Joints) -> dict[str, np.ndarray]:
    """Every point of `Skeleton.points` that is on a body -> float64 [3], world frame, metres."""
    at = dict(zip(COCO_17.points, joints.coco, strict=True)) | dict(zip(H36M_17.points, joints.h36m, strict=True))
    at |= _spine(at)
    at |= _head(at, joints)
    for side, foot in (("left", joints.feet[0]), ("right", joints.feet[1])):
        at |= {f"{side}_{part}": xyz for part, xyz in _limb_ends(at, side, foot).items()}
    return at


def _spine(at: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    pelvis, middle, top = at["pelvis"], at["spine"], at["neck_base"]

    def along(share: float) -> np.ndarray:
        """On the line pelvis - spine - base of the neck; 0 to 1."""
        return pelvis + 2 * share * (middle - pelvis) if share < 0.5 else middle + (2 * share - 1) * (top - middle)

    return {
        "spine_base": pelvis,
        "spine1": along(0.25),
        "spine2": along(0.5),
        "spine3": along(0.62),
        "mpi_spine2": along(0.65),
        "mpi_spine3": along(0.8),
        "mpi_spine4": along(0.9),
    }


def _head(at: dict[str, np.ndarray], joints: Joints) -> dict[str, np.ndarray]:
    up = joints.head[2]
    head_top = at["h36m_head"] + CROWN_M * up
    return {
        "head_top": head_top,
        "head_centre": at["neck_base"] + SKULL_BASE * (head_top - at["neck_base"]),
        "upper_neck": 0.8 * at["neck_base"] + 0.2 * head_top,
        "mid_shoulders": 0.5 * (at["left_shoulder"] + at["right_shoulder"]),
        "smpl_neck": at["neck_base"],
        "smpl_head": 0.65 * at["neck_base"] + 0.35 * head_top,
    }


def _limb_ends(at: dict[str, np.ndarray], side: str, foot: np.ndarray) -> dict[str, np.ndarray]:
    wrist, ankle, shoulder = at[f"{side}_wrist"], at[f"{side}_ankle"], at[f"{side}_shoulder"]
    forearm = wrist - at[f"{side}_elbow"]
    forearm = forearm / np.linalg.norm(forearm)
    inner = at["neck_base"] + 0.2 * (shoulder - at["neck_base"])
    return {
        "arm_base": at["neck_base"],
        "clavicle": inner,
        "collar": inner,
        "hand_base": wrist,
        "hand": wrist + HAND_M * forearm,
        "thumb": wrist + THUMB_M * forearm,
        "hand_end": wrist + HAND_END_M * forearm,
        "foot": ankle + TOE_BASE_M * foot,
        "toe_base": ankle + TOE_BASE_M * foot,
        "toe": ankle + TOE_END_M * foot,
        "toe_end": ankle + TOE_END_M * foot,
    }
