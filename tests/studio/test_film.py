"""The studio's frames: labels that agree with pictures, people that differ, motion that is hard to guess."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel, pixel_to_camera, world_to_camera
from humanpose3d.skeletons import COCO_17, H36M_17
from humanpose3d.studio.film import (
    FPS,
    TEST_SUBJECTS,
    StudioFrame,
    film,
    film_group,
    film_scene,
    make_scene,
    mean_pose,
    root_relative_poses,
)
from humanpose3d.studio.motion import ACTIONS, Pose, solve
from humanpose3d.studio.render import make_view, render

STANDING = [name for name in COCO_17.joints if name.endswith(("shoulder", "elbow", "wrist", "knee", "ankle"))]


@pytest.fixture(scope="module")
def frames() -> list[StudioFrame]:
    return [film("S9", action, 1, 1 + action % 4, 3 * action) for action in ACTIONS]


def test_world_joints_seen_by_the_camera_are_the_pixel_joints(frames: list[StudioFrame]) -> None:
    for frame in frames:
        seen = camera_to_pixel(world_to_camera(frame.joints_world_m.astype(np.float64), frame.camera), frame.camera)
        np.testing.assert_allclose(seen, frame.joints_px, atol=2e-3)
        np.testing.assert_allclose(camera_to_pixel(frame.joints_cam_m, frame.camera), frame.joints_px, atol=2e-3)


def test_bones_keep_their_lengths_through_a_take() -> None:
    scene = make_scene("S5", 10, 1)
    joints = np.stack([scene.joints_at(frame).h36m for frame in range(40)])
    # The neck bends, so the straight line from thorax to neck and from there to the head may change.
    bones = [(a, b) for a, b in H36M_17.bones if "neck" not in (H36M_17.joints[a], H36M_17.joints[b])]
    lengths = np.stack([np.linalg.norm(joints[:, a] - joints[:, b], axis=-1) for a, b in bones])
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[:, :1], lengths.shape), rtol=1e-6)


def test_nobody_sinks_into_the_floor_or_floats() -> None:
    for action in ACTIONS:
        scene = make_scene("S1", action, 1)
        lowest = min(scene.joints_at(frame).h36m[:, 2].min() for frame in range(30))
        assert 0.0 < lowest < 0.16, ACTIONS[action][0]


def test_depth_at_a_visible_joint_is_the_joint_less_what_covers_it(frames: list[StudioFrame]) -> None:
    covers = []
    for frame in frames:
        columns, rows = np.round(frame.keypoints_px).astype(int).T
        for joint in STANDING:
            i = COCO_17.index(joint)
            if frame.keypoint_flag[i] == 2:
                z = frame.joints_cam_m[H36M_17.index(joint), 2]
                covers.append(z - frame.depth_m[rows[i], columns[i]])
    assert len(covers) > 60
    assert 0.01 < np.median(covers) < 0.08
    assert np.mean((np.array(covers) > -0.02) & (np.array(covers) < 0.13)) > 0.98


def test_depth_is_exact_on_the_floor_and_at_the_room_s_walls(frames: list[StudioFrame]) -> None:
    frame = frames[0]
    rows, columns = np.nonzero(~frame.person)
    points = pixel_to_camera(np.stack([columns, rows], -1), frame.depth_m[rows, columns], frame.camera)
    world = (points - frame.camera.t_m) @ frame.camera.R
    room = make_scene("S9", frame.action, 1).room
    off_walls = np.minimum.reduce(
        [
            abs(abs(world[:, 0]) - room.half_x),
            abs(abs(world[:, 1]) - room.half_y),
            abs(world[:, 2]),
            abs(world[:, 2] - room.height),
        ]
    )
    assert np.mean(off_walls < 1e-3) > 0.8
    assert world[:, 2].min() > -1e-3


def test_a_person_that_faces_the_camera_has_the_left_shoulder_at_larger_x() -> None:
    found = 0
    for action in ACTIONS:
        for camera in (1, 2, 3, 4):
            frame = film("S11", action, 1, camera, 5, 64)
            nose, ear = (frame.keypoints_px[COCO_17.index(name)] for name in ("nose", "left_ear"))
            scene = make_scene("S11", action, 1, size=64)
            chest_forward = scene.joints_at(5).chest[1]
            to_camera = -scene.cameras[camera].R[2]
            if chest_forward @ to_camera > 0.7:
                found += 1
                left, right = (frame.joints_px[H36M_17.index(f"{side}_shoulder")] for side in ("left", "right"))
                assert left[0] > right[0]
            assert np.isfinite([nose, ear]).all()
    assert found >= 5


def test_the_face_is_hidden_from_behind_and_seen_from_the_front() -> None:
    nose = COCO_17.index("nose")
    for frame in (film("S9", action, 1, camera, 5) for action in (2, 7, 13) for camera in (1, 2, 3, 4)):
        scene = make_scene("S9", frame.action, 1)
        facing = scene.joints_at(5).head[1] @ -frame.camera.R[2]
        if abs(facing) > 0.6 and frame.keypoint_flag[nose]:
            hands_away = frame.action != 7
            assert frame.keypoint_flag[nose] == 1 or facing > 0
            assert frame.keypoint_flag[nose] == 2 or facing < 0 or not hands_away


def test_the_box_holds_the_person_s_pixels_and_nearly_all_joints(frames: list[StudioFrame]) -> None:
    for frame in frames:
        rows, columns = np.nonzero(frame.person)
        x0, y0, x1, y1 = frame.box_px
        assert (x0, y0, x1, y1) == (columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5)
        inside = (frame.joints_px >= [x0, y0]) & (frame.joints_px <= [x1, y1])
        assert inside.all(-1).mean() > 0.9
        assert 0.02 < frame.person.mean() < 0.35


def test_people_and_rooms_have_texture(frames: list[StudioFrame]) -> None:
    for frame in frames:
        assert frame.image[frame.person].std(axis=0).mean() > 15
        assert frame.image[~frame.person].std(axis=0).mean() > 10


def test_front_and_back_of_a_person_look_different() -> None:
    scene = make_scene("S9", 13, 1, size=128)
    camera = scene.cameras[1]
    view = make_view(scene.room, camera, 128, np.random.default_rng(0))
    towards = -camera.R[2]
    facing = float(np.arctan2(-towards[0], towards[1]))
    front, back = (
        render(view, scene.person, solve(Pose(yaw=yaw), scene.person.body), None, np.random.default_rng(0))
        for yaw in (facing, facing + np.pi)
    )
    both = front.person & back.person[:, ::-1]
    assert both.sum() > 500
    assert abs(front.image[both].astype(float) - back.image[:, ::-1][both]).mean() > 15


def test_the_same_request_gives_the_same_bytes() -> None:
    first = film("S7", 14, 2, 3, 11, 128)
    again = film_scene(make_scene.__wrapped__("S7", 14, 2, size=128), 3, 11)
    for name in ("image", "depth_m", "joints_px", "keypoints_px", "keypoint_flag"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_another_seed_is_another_person_and_another_motion() -> None:
    first, other = film("S7", 14, 2, 3, 11, 64), film("S7", 14, 2, 3, 11, 64, seed=1)
    assert abs(first.joints_world_m - other.joints_world_m).max() > 0.05


def test_the_image_is_the_same_scene_at_any_size() -> None:
    small, large = film("S6", 6, 1, 2, 4, 128), film("S6", 6, 1, 2, 4, 256)
    np.testing.assert_allclose(small.joints_cam_m, large.joints_cam_m)
    np.testing.assert_allclose((small.joints_px + 0.5) * 2, large.joints_px + 0.5, rtol=1e-4)
    finer = np.sort(large.depth_m.reshape(128, 2, 128, 2).swapaxes(1, 2).reshape(128, 128, 4), -1)
    between = (small.depth_m >= finer[..., 0] - 0.02) & (small.depth_m <= finer[..., 3] + 0.02)
    assert between.mean() > 0.98


def test_of_a_group_the_nearest_is_seen_and_everybody_is_labelled() -> None:
    scene, other = make_scene("S9", 2, 1, size=128), make_scene("S11", 3, 1, size=128)
    ahead = scene.cameras[1].R[2, :2]
    near, far = (replace(scene, moved_m=tuple(-0.6 * ahead)), replace(other, moved_m=tuple(0.6 * ahead)))
    frames = film_group([(near, 3), (far, 5)], 1)
    alone = [film_scene(near, 1, 3), film_scene(replace(far, cameras=scene.cameras), 1, 5, seed=1)]
    first, second = frames
    np.testing.assert_allclose(
        first.joints_world_m[:, :2] - scene.joints_at(3).h36m[:, :2], [-0.6 * ahead] * 17, atol=1e-6
    )
    assert first.image is second.image and first.depth_m is second.depth_m
    np.testing.assert_array_equal(first.depth_m, np.minimum(alone[0].depth_m, alone[1].depth_m))
    np.testing.assert_array_equal(first.person, alone[0].person)
    assert 0 < second.person.sum() < alone[1].person.sum() and not (first.person & second.person).any()
    np.testing.assert_array_equal(first.image[first.person], alone[0].image[first.person])
    np.testing.assert_array_equal(first.keypoint_flag, alone[0].keypoint_flag)
    assert (second.keypoint_flag <= alone[1].keypoint_flag).all() and (second.keypoint_flag == 1).sum() > 3
    x0, y0, x1, y1 = second.box_px + 0.5
    assert second.person[int(y0) : int(y1), int(x0) : int(x1)].sum() == second.person.sum()
    np.testing.assert_allclose(camera_to_pixel(second.joints_cam_m, second.camera), second.joints_px, atol=2e-3)


def test_always_answering_with_the_mean_pose_costs_150_mm() -> None:
    mean = mean_pose()
    for subject in TEST_SUBJECTS:
        errors = [np.linalg.norm(pose - mean, axis=-1).mean() for _, pose in root_relative_poses((subject,))]
        assert 1000 * np.mean(errors) > 150


def test_poses_vary_from_frame_to_frame() -> None:
    for action in ACTIONS:
        scene = make_scene("S8", action, 1)
        joints = np.stack([scene.joints_at(frame).h36m for frame in range(12)])
        assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).mean() > 0.01, ACTIONS[action][0]
    assert FPS == 50 / 16


def test_an_unknown_subject_action_or_camera_is_named() -> None:
    with pytest.raises(ValueError, match="no subject 'S2'; it has S1"):
        film("S2", 2, 1, 1, 0)
    with pytest.raises(ValueError, match="no action 1; it has 2 Directions"):
        film("S1", 1, 1, 1, 0)
    with pytest.raises(ValueError, match="cameras 1, 2, 3, 4, not 5"):
        film("S1", 2, 1, 5, 0)
