"""Which group a pose is in, on bodies built for the purpose."""

import numpy as np
import pytest

from humanpose3d.rotations import axis_angle_to_matrix
from humanpose3d.skeletons import COCO_17, H36M_17, HAND_21
from humanpose3d.tasks.groups import FACING, LIMBS, NOBODY, POSTURES, crossed_limbs, facing, posture
from tests.visualize.test_panels import standing_person


def changed(**joints_m) -> np.ndarray:
    """[1 17 3]: a person who faces the camera 4 m away, some joints moved by (x, y, z) metres."""
    body = standing_person().astype(np.float64)
    for joint, shift in joints_m.items():
        body[H36M_17.index(joint)] += shift
    return body[None]


def turned(yaw_deg: float, axis: int = 1) -> np.ndarray:
    """The same person turned about an axis through the pelvis."""
    body, vector = changed(), np.zeros(3)
    vector[axis] = np.radians(yaw_deg)
    pelvis = body[:, :1]
    return (body - pelvis) @ axis_angle_to_matrix(vector).T + pelvis


@pytest.mark.parametrize(
    ("yaw_deg", "expected"),
    [
        (0, "front"),
        (40, "front"),
        (-40, "front"),
        (50, "side"),
        (-90, "side"),
        (130, "side"),
        (140, "back"),
        (180, "back"),
    ],
)
def test_who_turns_away_is_seen_from_the_side_and_then_from_behind(yaw_deg, expected):
    assert FACING[facing(turned(yaw_deg), H36M_17)[0]] == expected


def test_facing_is_towards_the_camera_wherever_the_person_stands():
    # 60 degrees to the right of the view: who turns as far is face to face, who turns the other way is not.
    place = 4 * np.array([np.sin(np.radians(60)), 0.0, np.cos(np.radians(60))])
    found = [facing(turned(yaw) - turned(yaw)[:, :1] + place, H36M_17)[0] for yaw in (60, -60)]
    assert [FACING[kind] for kind in found] == ["front", "side"]


SITTING = {f"{side}_{part}": (0.0, -0.4, -0.4) for side in ("left", "right") for part in ("knee", "ankle")}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (changed(), "upright"),
        (changed(left_knee=(0, -0.2, -0.3), left_ankle=(0, -0.35, 0)), "upright"),  # one foot up
        (changed(**SITTING), "sitting or crouching"),
        (turned(90, axis=2), "lying or bent over"),
        (turned(90, axis=0), "lying or bent over"),
    ],
    ids=["standing", "on one foot", "on a chair", "on the side", "on the back"],
)
def test_standing_sitting_and_lying_are_told_apart(body, expected):
    assert POSTURES[posture(body, H36M_17)[0]] == expected


@pytest.mark.parametrize("yaw_deg", [0, 90, 180])
def test_limbs_are_crossed_whichever_way_the_person_faces(yaw_deg):
    legs = {"left_ankle": (-0.3, 0, 0), "right_ankle": (0.3, 0, 0)}
    arms = {"left_wrist": (-0.6, 0, 0), "right_wrist": (0.6, 0, 0)}
    turn = axis_angle_to_matrix(np.array([0.0, np.radians(yaw_deg), 0.0]))
    bodies = np.concatenate([changed(), changed(**legs), changed(**arms), changed(**legs, **arms)]) @ turn.T
    assert [LIMBS[kind] for kind in crossed_limbs(bodies, H36M_17)] == list(LIMBS)


@pytest.mark.parametrize("question", [facing, posture, crossed_limbs])
def test_a_pose_without_the_joints_is_in_no_group(question):
    body = changed()
    body[:, [H36M_17.index("left_hip")]] = np.nan
    assert question(body, H36M_17).tolist() == [NOBODY]
    assert question(np.zeros((2, 21, 3)), HAND_21).tolist() == [NOBODY, NOBODY]


def test_joints_are_found_by_name_in_any_skeleton():
    body = np.full((1, 17, 3), np.nan)
    for joint in set(COCO_17.joints) & set(H36M_17.joints):
        body[:, COCO_17.index(joint)] = changed(**SITTING)[:, H36M_17.index(joint)]
    assert (facing(body, COCO_17)[0], posture(body, COCO_17)[0], crossed_limbs(body, COCO_17)[0]) == (0, 1, 0)
