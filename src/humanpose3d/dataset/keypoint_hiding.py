"""Which keypoints a body itself hides from the camera: behind the trunk, behind a limb, on the head's far side.

A detector guesses them all the same, but says so by its confidence; where a hand with a high one is, is in front.
"""

from __future__ import annotations

import numpy as np

from humanpose3d.skeletons import Skeleton

LIMB_RADIUS_M = 0.06  # across the picture: as near as that a nearer part of the body hides a joint
BEHIND_LIMB_M, BEHIND_TRUNK_M = 0.15, 0.10  # further away by so much
TRUNK = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
FACE_AWAY, EYE_AWAY, EAR_TOWARDS = -0.25, 0.2, 0.85  # cosine of the way the chest faces against the way to the camera


def hidden_keypoints(
    rays: np.ndarray, z_m: np.ndarray, joints_m: np.ndarray, skeleton: Skeleton, keypoints: Skeleton
) -> np.ndarray:
    """bool [B Jin] of keypoints seen at `rays` [B Jin 2], `z_m` [B Jin] away, of people with joints [B J 3].

    Missing joints (NaN) hide nothing, and a skeleton without shoulders and hips neither.
    """
    hidden = np.zeros(z_m.shape, dtype=bool)
    if any(point not in skeleton.points for point in TRUNK):
        return hidden
    with np.errstate(invalid="ignore", divide="ignore"):
        corners = joints_m[:, [skeleton.index(point) for point in TRUNK]]
        hidden |= _behind_limbs(rays, z_m, joints_m, skeleton) | _behind_trunk(rays, z_m, corners)
        return hidden | _on_the_far_side_of_the_head(corners, keypoints)


def _behind_limbs(rays: np.ndarray, z_m: np.ndarray, joints_m: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """By joints and the middles of bones."""
    first, last = np.array(skeleton.bones).T
    parts = np.concatenate([joints_m, (joints_m[:, first] + joints_m[:, last]) / 2.0], axis=1)  # [B P 3]
    near_m = LIMB_RADIUS_M / z_m[..., None]  # at z = 1
    across = [np.abs(rays[..., None, i] - (parts[..., i] / parts[..., 2])[:, None]) < near_m for i in range(2)]
    return (across[0] & across[1] & (parts[:, None, :, 2] < z_m[..., None] - BEHIND_LIMB_M)).any(-1)


def _behind_trunk(rays: np.ndarray, z_m: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """By the two triangles between shoulders and hips."""
    hidden = np.zeros(z_m.shape, dtype=bool)
    seen = corners[..., :2] / corners[..., 2:]
    for triangle in ((0, 1, 2), (0, 2, 3)):
        a, b, c = (seen[:, None, corner] for corner in triangle)
        area = _cross(b - a, c - a)
        shares = [_cross(c - b, rays - b) / area, _cross(a - c, rays - c) / area, _cross(b - a, rays - a) / area]
        trunk_m = sum(share * corners[:, None, corner, 2] for share, corner in zip(shares, triangle, strict=True))
        inside = (shares[0] > 0) & (shares[1] > 0) & (shares[2] > 0)
        hidden |= inside & (z_m > trunk_m + BEHIND_TRUNK_M)
    return hidden


def _on_the_far_side_of_the_head(corners: np.ndarray, keypoints: Skeleton) -> np.ndarray:
    """The head is taken to look where the chest does."""
    left, right, right_hip, left_hip = np.moveaxis(corners, 1, 0)
    up = (left + right - right_hip - left_hip) / 2.0
    facing = np.cross(left - right, up)
    middle = corners.mean(1)
    towards = -(facing * middle).sum(-1) / np.linalg.norm(facing, axis=-1) / np.linalg.norm(middle, axis=-1)
    is_left_far = left[:, 2] > right[:, 2]
    hidden = np.zeros((len(corners), len(keypoints)), dtype=bool)
    for number, name in enumerate(keypoints.joints):
        side, _, part = name.rpartition("_")
        is_far = is_left_far if side == "left" else ~is_left_far
        if part == "nose":
            hidden[:, number] = towards < FACE_AWAY
        elif part == "eye":
            hidden[:, number] = (towards < FACE_AWAY) | (is_far & (towards < EYE_AWAY))
        elif part == "ear":
            hidden[:, number] = is_far & (np.abs(towards) < EAR_TOWARDS)
    return hidden


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
