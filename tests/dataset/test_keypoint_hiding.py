"""What a body hides of itself, on people whose pose says so."""

import numpy as np
import pytest

from humanpose3d.dataset.keypoint_hiding import hidden_keypoints
from humanpose3d.dataset.keypoint_noise import DETECTOR, NoiseDraws, add_noise
from humanpose3d.skeletons import COCO_17, H36M_17, HAND_21
from humanpose3d.studio.motion import ARMS_CROSSED, LEFT, RIGHT, STAND, Pose, solve
from humanpose3d.studio.people import random_person

BODY = random_person(np.random.default_rng(0)).body
BEHIND_THE_BACK = STAND.hand(LEFT, -0.15, -0.28, -0.55, (0.9, -0.7, 0.0)).hand(
    RIGHT, -0.15, -0.28, -0.6, (0.9, -0.7, 0.0)
)
TO_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # studio: z up, y away -> camera: y down, z away


def hidden(pose: Pose, yaw_deg: float) -> set[str]:
    """Of somebody 4 m away; 0: seen from behind, 180: from the front, 90: from the left."""
    joints = solve(pose.with_(yaw=np.radians(yaw_deg)), BODY)
    h36m, coco = ((each @ TO_WORLD.T + [0.0, 0.9, 4.0])[None].astype(np.float32) for each in (joints.h36m, joints.coco))
    found = hidden_keypoints(coco[..., :2] / coco[..., 2:], coco[..., 2], h36m, H36M_17, COCO_17)[0]
    return {name for name, is_hidden in zip(COCO_17.joints, found, strict=True) if is_hidden}


def test_from_the_front_hands_are_hidden_behind_the_back_and_nowhere_else():
    wrists = {"left_wrist", "right_wrist"}
    assert not wrists & hidden(STAND, 180) and not wrists & hidden(ARMS_CROSSED, 180)
    assert wrists <= hidden(BEHIND_THE_BACK, 180)
    assert not wrists & hidden(BEHIND_THE_BACK, 0) and wrists <= hidden(ARMS_CROSSED, 0)


def test_from_behind_the_face_is_hidden_and_the_ears_are_not():
    assert {"nose", "left_eye", "right_eye"} <= hidden(STAND, 0)
    assert not {"left_ear", "right_ear"} & hidden(STAND, 0)
    assert not {"nose", "left_eye", "right_eye"} & hidden(STAND, 180)


@pytest.mark.parametrize(("yaw_deg", "near", "far"), [(90, "left", "right"), (-90, "right", "left")])
def test_from_the_side_the_far_ear_and_arm_are_hidden(yaw_deg, near, far):
    found = hidden(STAND, yaw_deg)
    assert {f"{far}_ear", f"{far}_shoulder", f"{far}_elbow"} <= found
    assert not {f"{near}_ear", f"{near}_shoulder", f"{near}_elbow", f"{near}_wrist"} & found


def test_missing_joints_hide_nothing_and_hands_are_no_bodies():
    rays, z_m = np.zeros((2, 17, 2), np.float32), np.full((2, 17), 3.0, np.float32)
    assert not hidden_keypoints(rays, z_m, np.full((2, 17, 3), np.nan, np.float32), H36M_17, COCO_17).any()
    hand = np.ones((2, 21, 3), np.float32)
    assert not hidden_keypoints(rays, z_m, hand, HAND_21, COCO_17).any()


def test_a_hidden_joint_is_guessed_with_low_confidence_and_the_others_as_before():
    rng, size = np.random.default_rng(0), 400
    draws = NoiseDraws(
        *(rng.random(shape, dtype=np.float32) for shape in ((size, 17), (size, 17), (size, 3))),
        *(rng.standard_normal((size, 1, 17, 2), dtype=np.float32) for _ in range(2)),
    )
    points, score = rng.random((size, 1, 17, 2)), np.ones((size, 1, 17), np.float32)
    mask = np.zeros((size, 17), dtype=bool)
    mask[:, 9] = True
    options = {"strength": np.ones(size), "frame_s": np.zeros(size)}
    (plain, sure), (found, told) = (
        add_noise(points, score, "coco_17", draws, hidden=hidden, **options) for hidden in (None, mask)
    )
    swapped = (draws.swap < 0.03).any(1)
    others = np.arange(17) != 9
    np.testing.assert_array_equal(plain[~swapped][:, :, others], found[~swapped][:, :, others])
    np.testing.assert_array_equal(sure[~swapped][:, :, others], told[~swapped][:, :, others])
    assert told[~swapped, 0, 9].max() <= DETECTOR.hidden_score[1] and told[~swapped, 0, 9].mean() < 0.6
    beside = [np.abs(each - points)[~swapped, 0, 9].mean() for each in (plain, found)]
    assert beside[1] > 1.5 * beside[0]
