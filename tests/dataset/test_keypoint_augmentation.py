"""Changes of the camera move 2D, depth and 3D together, exactly; cues are lost or made up as they should."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from humanpose3d.config import AugmentationConfig
from humanpose3d.dataset.keypoint_augmentation import (
    People,
    augment,
    draw,
    drop_cues,
    imagine_depth,
    mirror,
    move_camera,
    sort_draws,
    turn_camera,
)  # fmt: skip
from humanpose3d.rotations import axis_angle_to_matrix
from humanpose3d.skeletons import COCO_17, H36M_17, shared_joints

OF_LABELS, OF_KEYPOINTS = shared_joints(H36M_17, COCO_17)
EXACT = AugmentationConfig(keypoint_noise=(0.0, 0.0), drop_keypoint=0.0, drop_depth=0.0)


def people(number: int = 6, frames: int = 1, seed: int = 0, projected: bool = True) -> People:
    """Keypoints that are the labels' projections, depth at the joints themselves."""
    rng = np.random.default_rng(seed)
    joints_m = (rng.normal(scale=0.3, size=(number, 17, 3)) + [0.2, -0.1, 4.0]).astype(np.float32)
    points_m = rng.normal(scale=0.3, size=(number, frames, 17, 3)) + [0.2, -0.1, 4.0]
    points_m[:, frames // 2, OF_KEYPOINTS] = joints_m[:, OF_LABELS]
    own_z = points_m[:, frames // 2, :, 2]
    return People(
        rays=(points_m[..., :2] / points_m[..., 2:]).astype(np.float32),
        score=np.ones((number, frames, 17), np.float32),
        frame_s=np.full(number, 0.1, np.float32),
        depth_m=np.stack([own_z, np.full_like(own_z, 0.05)], axis=-1).astype(np.float32),
        joints_m=joints_m,
        projected=np.full(number, projected),
    )


def drawn(number: int, frames: int = 1, seed: int = 0):
    rows = [draw(np.random.default_rng([seed, row]), frames, 17) for row in range(number)]
    return sort_draws(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]), frames, 17)


def assert_consistent(found: People, tolerance: float = 2e-5) -> None:
    """Shared keypoints are where their labels project to."""
    own = found.rays[:, found.rays.shape[1] // 2, OF_KEYPOINTS]
    labels_m = found.joints_m[:, OF_LABELS]
    assert np.abs(own - labels_m[..., :2] / labels_m[..., 2:]).max() < tolerance


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 5]))
def test_augmented_keypoints_are_projections_of_augmented_joints(seed, frames):
    before = people(8, frames, seed)
    after = augment(before, drawn(8, frames, seed), EXACT, H36M_17, COCO_17)
    assert_consistent(after)
    depth_m, labels_m = after.depth_m[:, OF_KEYPOINTS, 0], after.joints_m[:, OF_LABELS, 2]
    assert np.abs(depth_m - labels_m).max() < 1e-4
    bones = [np.linalg.norm(p.joints_m[:, 1] - p.joints_m[:, 2], axis=-1) for p in (before, after)]
    mirrored = np.linalg.norm(before.joints_m[:, 4] - before.joints_m[:, 5], axis=-1)
    assert np.minimum(np.abs(bones[1] - bones[0]), np.abs(bones[1] - mirrored)).max() < 1e-5


def test_a_sample_changes_in_the_same_way_in_any_batch():
    whole = augment(people(6), drawn(6), AugmentationConfig(), H36M_17, COCO_17)
    rows = drawn(6)
    one = people(6)
    single = People(*(getattr(one, name)[2:3] for name in vars(one)))
    draws = type(rows)(
        *(part[2:3] if isinstance(part, np.ndarray) else type(part)(*(p[2:3] for p in part)) for part in rows)
    )
    alone = augment(single, draws, AugmentationConfig(), H36M_17, COCO_17)
    for name in vars(whole):
        assert np.array_equal(getattr(whole, name)[2:3], getattr(alone, name), equal_nan=True), name


def test_turning_there_and_back_changes_nothing():
    before = people(4, 3)
    there = axis_angle_to_matrix(np.array([0.1, -0.2, 0.3]))[None].repeat(4, axis=0)
    after = turn_camera(turn_camera(before, there), there.swapaxes(1, 2))
    for name in ("rays", "depth_m", "joints_m"):
        assert np.allclose(getattr(before, name), getattr(after, name), atol=1e-5), name


def test_what_a_turn_brings_beside_the_camera_is_missing():
    away = axis_angle_to_matrix(np.array([0.0, np.pi / 2, 0.0]))[None].repeat(6, axis=0)
    turned = turn_camera(people(), away)
    assert np.isnan(turned.rays).any() and np.isfinite(turned.joints_m).all()


def test_mirroring_twice_changes_nothing_and_once_swaps_the_sides():
    before, all_of_them = people(3, 3), np.ones(3, dtype=bool)
    once = mirror(before, all_of_them, H36M_17, COCO_17)
    twice = mirror(once, all_of_them, H36M_17, COCO_17)
    assert np.array_equal(before.rays, twice.rays) and np.array_equal(before.joints_m, twice.joints_m)
    left, right = COCO_17.index("left_wrist"), COCO_17.index("right_wrist")
    assert np.array_equal(once.rays[:, :, left] * np.float32([-1, 1]), before.rays[:, :, right])
    assert_consistent(once)


def test_moving_away_keeps_the_pose_and_flattens_the_perspective():
    before = people()
    after = move_camera(before, np.full(6, 1.25), H36M_17)
    assert_consistent(after)
    root = H36M_17.root_index
    assert np.allclose(after.joints_m[:, root], 1.25 * before.joints_m[:, root], atol=1e-5)
    relative = [p.joints_m - p.joints_m[:, [root]] for p in (before, after)]
    assert np.allclose(*relative, atol=1e-5)


def test_a_network_s_keypoints_are_neither_moved_nor_given_errors():
    before = people(projected=False)
    assert np.array_equal(move_camera(before, np.full(6, 1.25), H36M_17).rays, before.rays)
    noisy = AugmentationConfig(keypoint_noise=(1.0, 1.0), drop_keypoint=0, flip=0, rotation_deg=0, camera_turn_deg=0)
    assert np.allclose(augment(before, drawn(6), noisy, H36M_17, COCO_17).rays, before.rays, atol=1e-6)
    assert not np.allclose(augment(people(), drawn(6), noisy, H36M_17, COCO_17).rays, people().rays, atol=1e-3)


def test_imagined_depth_is_near_the_joints_or_before_them():
    bare = replace(people(200), depth_m=np.full((200, 17, 2), np.nan, np.float32))
    normal = np.random.default_rng(0).standard_normal((200, 36)).astype(np.float32)
    normal[:, 0] = 0.0  # no error of scale
    found = imagine_depth(bare, normal, np.arange(200) < 100)
    assert np.isnan(found.depth_m[100:]).all() and np.isfinite(found.depth_m[:100]).all()
    before_joint_m = bare.joints_m[:100, OF_LABELS, 2] - found.depth_m[:100, OF_KEYPOINTS, 0]
    assert 0.05 < np.median(before_joint_m) < 0.09
    assert (found.depth_m[:100, :, 1] > 0).mean() > 0.9
    error_m, spread_m = before_joint_m - np.median(before_joint_m), found.depth_m[:100, OF_KEYPOINTS, 1]
    near = np.abs(error_m) < 0.2  # not what is behind
    assert abs(np.corrcoef(np.abs(error_m[near]), np.log(spread_m[near]))[0, 1]) < 0.1, "it tells no error"
    assert 0.006 < np.quantile(spread_m, 0.1) < 0.015 and 0.15 < np.quantile(spread_m, 0.9) < 0.5
    scaled = imagine_depth(bare, normal + np.eye(1, 36, dtype=np.float32), np.arange(200) < 100)
    assert np.array_equal(scaled.depth_m[:100, :, 1], found.depth_m[:100, :, 1]), "nor that of the map's scale"
    known = people(200)
    assert np.array_equal(imagine_depth(known, normal, np.ones(200, dtype=bool)).depth_m, known.depth_m)


def test_lost_cues_are_missing():
    joints = np.zeros((6, 17), dtype=bool)
    joints[0, 3] = True
    found = drop_cues(people(), np.arange(6) == 1, joints)
    assert np.isnan(found.rays[0, 0, 3]).all() and np.isfinite(found.rays[1:]).all()
    assert np.isnan(found.depth_m[1]).all() and np.isnan(found.depth_m[0, 3]).all()
    assert np.isfinite(found.depth_m[2:]).all()
