"""Two ideas of where H36M-17's joints lie: motion capture's skeletons, and Human3.6M's own labels.

Corpora call different spots by one name. CMU's skeletons have the hips closer together and lower than Human3.6M's, the
shoulders further apart, the neck and head longer. What is the same spot in both (knees, ankles, elbows, wrists, the
trunk) stays where it is.
"""

from __future__ import annotations

import numpy as np

from humanpose3d.skeletons import H36M_17

# Lengths of Human3.6M's skeleton, mm, as published with its derivatives (Ionescu et al. 2014; Pavllo et al. 2018 list
# them): they hold for all its subjects up to a scale.
HIP_MM, THIGH_MM, SHANK_MM = 132.9, 442.9, 454.2
COLLAR_MM, FOREARM_MM = 151.0, 251.7
NECK_MM, HEAD_MM = 121.1, 115.0
MOCAP_THIGH_OF_SHANK = 0.919  # mean of CMU's recorded skeletons; Human3.6M's is 0.975, for its hips are higher


def like_human36m(joints_m: np.ndarray) -> np.ndarray:
    """[... 17 3] poses with motion capture's joints -> the same with joints where Human3.6M labels them.

    A person's scale is taken from shanks and forearms, which both measure alike. Hips (and the pelvis) are raised along
    the trunk and moved apart; shoulders come nearer to the thorax, neck and head too, each along its own direction.
    """
    joints = np.asarray(joints_m, dtype=np.float64)
    result = joints.copy()

    def at(name: str) -> np.ndarray:
        return joints[..., H36M_17.index(name), :]

    def put(name: str, place: np.ndarray) -> None:
        result[..., H36M_17.index(name), :] = place

    shank, forearm = (
        sum(np.linalg.norm(at(f"{side}_{first}") - at(f"{side}_{last}"), axis=-1) for side in ("left", "right")) / 2.0
        for first, last in (("knee", "ankle"), ("elbow", "wrist"))
    )
    scale = ((shank + forearm) / (SHANK_MM + FOREARM_MM))[..., None]  # metres per mm of Human3.6M's skeleton
    up, across = _unit(at("thorax") - at("pelvis")), _unit(at("left_hip") - at("right_hip"))
    pelvis = at("pelvis") + scale * (THIGH_MM - MOCAP_THIGH_OF_SHANK * SHANK_MM) * up
    put("pelvis", pelvis)
    put("left_hip", pelvis + scale * HIP_MM * across)
    put("right_hip", pelvis - scale * HIP_MM * across)
    for side in ("left", "right"):
        put(f"{side}_shoulder", at("thorax") + scale * COLLAR_MM * _unit(at(f"{side}_shoulder") - at("thorax")))
    neck = at("thorax") + scale * NECK_MM * _unit(at("neck") - at("thorax"))
    put("neck", neck)
    put("head", neck + scale * HEAD_MM * _unit(at("head") - at("neck")))
    return result.astype(joints_m.dtype)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
