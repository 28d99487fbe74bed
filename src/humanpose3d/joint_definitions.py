"""Two ideas of where H36M-17's joints lie: motion capture's skeletons, and Human3.6M's own labels.

Corpora call different spots by one name. CMU's skeletons have the hips closer together and lower than Human3.6M's, the
thorax lower, the shoulders further apart, the neck and head longer. What is the same spot in both (knees, ankles,
elbows, wrists) stays where it is.
"""

from __future__ import annotations

import numpy as np

from humanpose3d.skeletons import H36M_17

# Lengths of Human3.6M's skeleton, mm, as published with its derivatives (Ionescu et al. 2014; Pavllo et al. 2018 list
# them): they hold for all its subjects up to a scale.
HIP_MM, THIGH_MM, SHANK_MM = 132.9, 442.9, 454.2
WAIST_MM, CHEST_MM = 233.4, 257.1  # pelvis to spine, spine to thorax
COLLAR_MM, FOREARM_MM = 151.0, 251.7
NECK_MM, HEAD_MM = 121.1, 115.0
MOCAP_THIGH_OF_SHANK = 0.919  # mean of CMU's recorded skeletons; Human3.6M's is 0.975, for its hips are higher


def like_human36m(joints_m: np.ndarray) -> np.ndarray:
    """[... 17 3] poses with motion capture's joints -> the same with joints where Human3.6M labels them.

    A person's scale is taken from shanks and forearms, which both measure alike. Hips (and the pelvis) are raised along
    the trunk and moved apart. The thorax is raised until the trunk is as long as Human3.6M's, as straight or bent as it
    was; the spine is where both its bones have their lengths. Shoulders come nearer to the thorax. The head does too,
    and the neck, called "Neck/Nose" there, stands out before the line between them.
    """
    joints = np.asarray(joints_m, dtype=np.float64)
    result = joints.copy()

    def at(name: str) -> np.ndarray:
        return joints[..., H36M_17.index(name), :]

    def put(name: str, place: np.ndarray) -> None:
        result[..., H36M_17.index(name), :] = place

    def length(first: str, last: str) -> np.ndarray:
        return np.linalg.norm(at(first) - at(last), axis=-1, keepdims=True)

    limbs = [
        length(f"{side}_{first}", f"{side}_{last}")
        for side in ("left", "right")
        for first, last in (("knee", "ankle"), ("elbow", "wrist"))
    ]
    scale = np.sum(limbs, axis=0) / 2.0 / (SHANK_MM + FOREARM_MM)  # metres per mm of Human3.6M's skeleton
    up, across = _unit(at("thorax") - at("pelvis")), _unit(at("left_hip") - at("right_hip"))
    pelvis = at("pelvis") + scale * (THIGH_MM - MOCAP_THIGH_OF_SHANK * SHANK_MM) * up
    put("pelvis", pelvis)
    put("left_hip", pelvis + scale * HIP_MM * across)
    put("right_hip", pelvis - scale * HIP_MM * across)
    bones = length("pelvis", "spine") + length("spine", "thorax")
    straight = length("pelvis", "thorax") / np.maximum(bones, 1e-9)
    thorax = pelvis + scale * (WAIST_MM + CHEST_MM) * straight * up
    put("thorax", thorax)
    put("spine", _between(pelvis, thorax, scale * WAIST_MM, scale * CHEST_MM, at("spine") - at("pelvis")))
    for side in ("left", "right"):
        put(f"{side}_shoulder", thorax + scale * COLLAR_MM * _unit(at(f"{side}_shoulder") - thorax))
    head = at("thorax") + scale * NECK_MM * _unit(at("neck") - at("thorax"))
    head = head + scale * HEAD_MM * _unit(at("head") - at("neck"))
    put("head", head)
    ahead = np.cross(at("left_shoulder") - at("right_shoulder"), up)
    put("neck", _between(thorax, head, scale * NECK_MM, scale * HEAD_MM, ahead))
    return result.astype(joints_m.dtype)


def _between(start: np.ndarray, end: np.ndarray, first: np.ndarray, second: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The joint between two bones of these lengths from start to end, on that side of the line; on it, if too far."""
    way = end - start
    distance = np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-9)
    along = way / distance
    share = first / np.maximum(first + second, 1e-9)
    bends = distance < first + second
    cosine = (first**2 + distance**2 - second**2) / np.maximum(2.0 * first * distance, 1e-9)
    ahead = np.where(bends, first * np.clip(cosine, -1.0, 1.0), share * distance)
    aside = np.sqrt(np.maximum(first**2 - ahead**2, 0.0)) * bends
    return start + ahead * along + aside * _unit(side - (side * along).sum(-1, keepdims=True) * along)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
