"""The studio's hands: right hands of real proportions, in poses that hands can take, seen as their labels say."""

from __future__ import annotations

import time

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel
from humanpose3d.skeletons import HAND_21
from humanpose3d.studio import hands
from humanpose3d.studio.hands import FLEXION_DEG, PHOTO, POSES, THUMB_DEG, VERSIONS, film_hand, make_hand

FINGERS = ("thumb", "index", "middle", "ring", "little")


def at(joints: np.ndarray, *names: str) -> tuple[np.ndarray, ...]:
    return tuple(joints[HAND_21.index(name)] for name in names)


@pytest.fixture(scope="module")
def scenes() -> list[hands.HandScene]:
    return [make_hand(number, number % 8) for number in range(60)]


def test_every_hand_is_a_right_hand(scenes):
    # Towards the thumb, ahead, out of the palm: right-handed axes. Fingers curl to the palm's side, never the back's.
    for scene in scenes:
        wrist, index, middle, little = at(scene.joints_cam_m, "wrist", "index_1", "middle_1", "little_1")
        palm = np.cross(index - little, middle - wrist)
        curled = sum(at(scene.joints_cam_m, f"{finger}_4")[0] - middle for finger in FINGERS[1:])
        straight = sum(np.linalg.norm(at(scene.joints_cam_m, f"{finger}_4")[0] - wrist) for finger in FINGERS[1:])
        if straight < 0.52:  # metres, of four fingers: clearly bent
            assert curled @ palm > 0


def test_with_the_palm_to_the_viewer_the_thumb_is_on_the_right():
    hand = hands.random_hand(np.random.default_rng(0))
    joints, inner = hands.solve(hand, POSES["flat"])
    palm_to_viewer = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])  # rows thumb, ahead, palm; camera x right, y down
    assert np.linalg.det(palm_to_viewer) > 0
    seen = joints @ palm_to_viewer
    thumb, middle, little = at(seen, "thumb_4", "middle_4", "little_4")
    assert thumb[0] > middle[0] > little[0] and middle[1] < 0
    assert (inner[1:] @ palm_to_viewer)[..., 2].max() < -0.9, "all inner sides look at the viewer"


def test_bones_keep_their_length_in_every_pose():
    hand = hands.random_hand(np.random.default_rng(1))
    lengths = []
    for pose in POSES.values():
        joints, _ = hands.solve(hand, pose)
        lengths.append([np.linalg.norm(joints[child] - joints[parent]) for parent, child in HAND_21.bones])
    np.testing.assert_allclose(np.std(lengths, axis=0), 0, atol=1e-12)


def test_hands_are_as_large_as_adults(scenes):
    for scene in scenes:
        wrist, knuckle, *middle = at(scene.joints_cam_m, "wrist", *(f"middle_{number}" for number in (1, 2, 3, 4)))
        chain = [wrist, knuckle, *middle]
        length = sum(np.linalg.norm(b - a) for a, b in zip(chain, chain[1:], strict=False))
        assert 0.15 < length < 0.22
    spread = [scene.hand.scale for scene in scenes]
    assert max(spread) - min(spread) > 0.05


def test_no_joint_bends_beyond_what_it_can():
    for number in range(200):
        pose = hands.random_pose(np.random.default_rng(number))
        assert (pose.flexion >= FLEXION_DEG[0]).all() and (pose.flexion <= FLEXION_DEG[1]).all()
        assert (pose.thumb >= THUMB_DEG[0]).all() and (pose.thumb <= THUMB_DEG[1]).all()


def test_all_joints_are_in_the_picture_at_arms_length(scenes):
    for scene in scenes:
        assert 0.3 < scene.joints_cam_m[:, 2].min() and scene.joints_cam_m[:, 2].max() < 1.1
        assert scene.joints_px.min() > 5 and scene.joints_px.max() < 218
        np.testing.assert_allclose(camera_to_pixel(scene.joints_cam_m, scene.camera), scene.joints_px)
        assert 390 < scene.camera.K[0, 0] < 570 and scene.camera.K[0, 2] == 112


def test_poses_and_views_vary(scenes):
    relative = np.array([scene.joints_cam_m - scene.joints_cam_m[0] for scene in scenes])
    mean_pose_m = np.linalg.norm(relative - relative.mean(0), axis=-1).mean()
    assert mean_pose_m > 0.05, "always answering with the mean hand must be far off"


def test_the_picture_shows_the_hand_where_its_joints_are(scenes):
    for scene in scenes[:6]:
        _, alpha = hands._develop(scene)
        columns, rows = np.rint(scene.joints_px).astype(int).T
        # Tip joints lie on the skin's very edge.
        inside = [alpha[row, column] for row, column, name in zip(rows, columns, HAND_21.joints, strict=True)
                  if not name.endswith("_4")]  # fmt: skip
        assert np.mean(np.array(inside) > 0.5) == 1.0
        assert 0.02 < alpha.mean() < 0.6


def test_versions_differ_in_the_picture_alone():
    scene = make_hand(3, 3)
    pictures = film_hand(scene, [*VERSIONS, PHOTO])
    assert set(pictures) == {*VERSIONS, PHOTO}
    for first in VERSIONS:
        assert pictures[first].shape == (224, 224, 3) and pictures[first].dtype == np.uint8
        for second in VERSIONS[VERSIONS.index(first) + 1 :]:
            assert np.abs(pictures[first].astype(int) - pictures[second]).mean() > 4, (first, second)
    green = pictures["gs"][:40, :40].reshape(-1, 3).mean(0)
    assert green[1] > green[0] and green[1] > green[2]


def test_one_seed_gives_one_picture_and_two_give_two():
    one, again = (film_hand(make_hand(5, 5, seed=1), ["hom"])["hom"] for _ in range(2))
    make_hand.cache_clear()
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one, film_hand(make_hand(5, 5, seed=1), ["hom"])["hom"])
    assert np.abs(one.astype(int) - film_hand(make_hand(5, 5, seed=2), ["hom"])["hom"]).mean() > 5


def test_the_labels_do_not_depend_on_the_pictures_size():
    small, large = make_hand(7, 7, size=112), make_hand(7, 7, size=448)
    np.testing.assert_allclose(small.joints_px * 4, large.joints_px, atol=1e-9)
    np.testing.assert_allclose(small.joints_cam_m, large.joints_cam_m, atol=1e-12)


def test_a_picture_takes_a_blink():
    film_hand(make_hand(0, 0))
    started = time.process_time()
    for number in range(5):
        film_hand(make_hand(number, number))
    assert (time.process_time() - started) / 20 < 0.25  # seconds a picture; about 0.02 on an idle machine
