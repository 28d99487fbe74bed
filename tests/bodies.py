"""A body without flesh: SMPL's joint tree posed by its formula, written for the tests alone."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from humanpose3d.skeletons import SMPL_24


def pose_joints(rest_m: np.ndarray, pose_rad: np.ndarray, trans_m: np.ndarray) -> np.ndarray:
    """float64 [24 3]: rest joints [24 3] under axis-angles [24 3], moved by trans [3]."""
    turned = [Rotation.from_rotvec(np.asarray(pose_rad[0], dtype=np.float64))]
    joints = [rest_m[0] + trans_m]
    for joint in range(1, len(SMPL_24)):
        parent = SMPL_24.index(SMPL_24.parents[joint])
        joints.append(joints[parent] + turned[parent].apply(rest_m[joint] - rest_m[parent]))
        turned.append(turned[parent] * Rotation.from_rotvec(np.asarray(pose_rad[joint], dtype=np.float64)))
    return np.array(joints)


def symmetric_rest_body(rng: np.random.Generator) -> np.ndarray:
    """float64 [24 3]: rest joints anywhere, but each side the mirror image of the other."""
    joints = rng.uniform(-0.6, 0.6, (len(SMPL_24), 3))
    mirrored = joints[SMPL_24.flip_permutation] * [-1.0, 1.0, 1.0]
    return 0.5 * (joints + mirrored)
