"""A pose with motion capture's joints gets Human3.6M's measures; what both share stays where it is."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from humanpose3d.joint_definitions import (
    CHEST_MM,
    COLLAR_MM,
    FOREARM_MM,
    HEAD_MM,
    HIP_MM,
    NECK_MM,
    SHANK_MM,
    WAIST_MM,
    like_human36m,
)
from humanpose3d.skeletons import H36M_17

SHARED = [number for number, name in enumerate(H36M_17.joints) if name.endswith(("knee", "ankle", "elbow", "wrist"))]


@pytest.fixture
def poses() -> np.ndarray:
    """No bodies, but 17 points each: the measures hold for any."""
    return np.random.default_rng(0).normal(0.0, 0.4, (5, 17, 3)).astype(np.float32)


def length(joints: np.ndarray, first: str, last: str) -> np.ndarray:
    return np.linalg.norm(joints[..., H36M_17.index(first), :] - joints[..., H36M_17.index(last), :], axis=-1)


def test_measures_are_human36ms_at_the_scale_of_shanks_and_forearms(poses):
    new = like_human36m(poses)
    np.testing.assert_array_equal(new[:, SHARED], poses[:, SHARED])
    limbs = [
        (f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (("knee", "ankle"), ("elbow", "wrist"))
    ]
    scale = sum(length(poses, *limb) for limb in limbs) / 2 / (SHANK_MM + FOREARM_MM)
    for first, last, millimetres in (
        ("pelvis", "left_hip", HIP_MM), ("left_hip", "right_hip", 2 * HIP_MM), ("thorax", "right_shoulder", COLLAR_MM),
    ):  # fmt: skip
        np.testing.assert_allclose(length(new, first, last), millimetres * scale, rtol=1e-5)


@pytest.fixture
def standing() -> np.ndarray:
    """One person of motion capture's measures, a leg of 0.84 m, facing +y, head up, arms down."""
    places = {
        "pelvis": (0, 0, 94), "spine": (0, -2, 116), "thorax": (0, 0, 139.5), "neck": (0, -2, 153),
        "head": (0, 0, 168),
        "right_hip": (8.7, 0, 94), "right_knee": (8.7, 1, 53.5), "right_ankle": (8.7, 0, 10),
        "right_shoulder": (18, 0, 146), "right_elbow": (20, -1, 116.5), "right_wrist": (20, 5, 93.5),
    }  # fmt: skip
    places |= {f"left_{k[6:]}": (-x, y, z) for k, (x, y, z) in places.items() if k.startswith("right")}
    return np.array([[places[name] for name in H36M_17.joints]]) / 100.0


def test_a_standing_persons_trunk_neck_and_head_have_human36ms_lengths(standing):
    new = like_human36m(standing)
    scale = (length(standing, "left_knee", "left_ankle") + length(standing, "left_elbow", "left_wrist")) / (
        SHANK_MM + FOREARM_MM
    )
    for first, last, millimetres in (
        ("pelvis", "spine", WAIST_MM), ("spine", "thorax", CHEST_MM), ("thorax", "neck", NECK_MM),
        ("neck", "head", HEAD_MM), ("thorax", "left_shoulder", COLLAR_MM),
    ):  # fmt: skip
        np.testing.assert_allclose(length(new, first, last), millimetres * scale, rtol=1e-6)
    x, y, z = (new - new[:, H36M_17.index("thorax"), None])[0].T
    assert np.abs(x[H36M_17.index("neck")]) < 1e-9
    assert y[H36M_17.index("neck")] > 0.05  # before the line from thorax to head, not behind it
    assert y[H36M_17.index("spine")] < 0.0  # the side on which it was
    assert z[H36M_17.index("head")] > z[H36M_17.index("neck")] > 0.05


def test_it_follows_the_body_in_every_direction_and_size_and_in_the_mirror(poses):
    turn = Rotation.random(random_state=3).as_matrix()
    np.testing.assert_allclose(
        like_human36m(1.7 * poses @ turn.T + 2.0), 1.7 * like_human36m(poses) @ turn.T + 2.0, atol=1e-5
    )
    mirrored = (poses * [-1, 1, 1])[:, H36M_17.flip_permutation]
    np.testing.assert_allclose(
        like_human36m(mirrored), (like_human36m(poses) * [-1, 1, 1])[:, H36M_17.flip_permutation], atol=1e-6
    )


def test_no_pose_and_a_pose_at_one_point_are_no_trouble():
    assert like_human36m(np.zeros((0, 17, 3), np.float32)).shape == (0, 17, 3)
    assert np.isfinite(like_human36m(np.zeros((1, 17, 3), np.float32))).all()
