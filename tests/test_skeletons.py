"""Joint sets and the ways between them: what follows from names must be right, since nothing else says it."""

import json
import warnings

import h5py
import numpy as np
import pytest

from humanpose3d.reports import StageReport
from humanpose3d.skeletons import (
    COCO_17,
    COCO_18,
    ESTIMATES,
    H36M_17,
    H36M_32,
    HAND_21,
    LSP_14,
    MPI_14,
    MPI_17,
    MPI_17_LEGACY,
    MPI_28,
    MPII_16,
    SKELETONS,
    SMPL_24,
    SPIN_24,
    Skeleton,
    convert,
    get_skeleton,
    shared_joints,
)
from humanpose3d.sources import human36m
from humanpose3d.studio.film import cast_scene
from humanpose3d.studio.joint_sets import body_points, joints_in

ALL = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda skeleton: skeleton.name)
BODIES = [skeleton for skeleton in SKELETONS.values() if skeleton is not HAND_21]
# Faces and arms hang from each other by side, so that their bones are no mirror images.
CHAINED_BY_SIDE = (COCO_17,)


# ------------------------------------------------------------------------------------------------------------ by name


def test_there_are_thirteen_and_each_has_as_many_joints_as_its_name_says():
    assert len(SKELETONS) == 13
    for name, skeleton in SKELETONS.items():
        assert skeleton.name == name
        assert len(skeleton) == next(int(part) for part in name.split("_") if part.isdigit())


@ALL
def test_flipping_twice_changes_nothing(skeleton):
    permutation = skeleton.flip_permutation
    assert np.array_equal(permutation[permutation], np.arange(len(skeleton)))


@ALL
def test_a_flip_swaps_left_and_right_and_keeps_the_centre(skeleton):
    swapped = {"left": "right", "right": "left", "centre": "centre"}
    for joint, side in enumerate(skeleton.sides):
        twin = skeleton.flip_permutation[joint]
        assert skeleton.sides[twin] == swapped[side]
        assert skeleton.joints[twin].removeprefix(f"{swapped[side]}_") == skeleton.joints[joint].removeprefix(
            f"{side}_"
        )


@ALL
def test_points_of_one_spot_are_on_one_side(skeleton):
    assert len(set(skeleton.points)) == len(skeleton)
    for point, side in zip(skeleton.points, skeleton.sides, strict=True):
        assert (point.split("_")[0] if point.startswith(("left_", "right_")) else "centre") == side


@ALL
def test_bones_form_a_tree_over_all_joints(skeleton):
    children = [child for _, child in skeleton.bones]
    free = [joint for joint, parent in enumerate(skeleton.parents) if parent is None]
    assert sorted(children + free) == list(range(len(skeleton)))
    assert skeleton.root is None or skeleton.root_index in free
    for joint in range(len(skeleton)):
        for _ in range(len(skeleton)):
            if skeleton.parents[joint] is None:
                break
            joint = skeleton.index(skeleton.parents[joint])
        assert skeleton.parents[joint] is None, "a cycle"


@ALL
def test_bones_are_mirror_images_of_each_other(skeleton):
    flip = skeleton.flip_permutation
    bones = {(parent, child) for parent, child in skeleton.bones if skeleton.sides[child] != "centre"}
    mirrored = {(int(flip[parent]), int(flip[child])) for parent, child in bones}
    assert {child for _, child in mirrored} == {child for _, child in bones}
    assert skeleton in CHAINED_BY_SIDE or mirrored == bones


def test_human36m_has_its_documented_order():
    assert H36M_17.joints[:4] == ("pelvis", "right_hip", "right_knee", "right_ankle")
    assert H36M_17.joints[-1] == "right_wrist"
    assert H36M_17.root_index == 0
    assert len(H36M_17.bones) == 16


def test_coco_has_its_documented_order():
    assert (COCO_17.index("nose"), COCO_17.index("left_wrist"), COCO_17.index("right_ankle")) == (0, 9, 16)
    assert (COCO_18.index("neck"), COCO_18.index("right_shoulder"), COCO_18.index("left_ear")) == (1, 2, 17)


def test_other_orders_are_those_of_their_papers():
    assert [MPII_16.joints[i] for i in (0, 6, 9, 10, 15)] == [
        "right_ankle", "pelvis", "head_top", "right_wrist", "left_wrist",
    ]  # fmt: skip
    assert [LSP_14.joints[i] for i in (0, 5, 12, 13)] == ["right_ankle", "left_ankle", "neck", "head_top"]
    assert [MPI_17.joints[i] for i in (0, 1, 14, 15, 16)] == ["head_top", "neck", "pelvis", "spine", "head"]
    assert [SMPL_24.joints[i] for i in (0, 1, 2, 15, 22)] == ["pelvis", "left_hip", "right_hip", "head", "left_hand"]
    assert SPIN_24.joints[:12] == LSP_14.joints[:12]
    assert MPI_14.joints == tuple(joint for joint in MPI_17.joints if joint not in ("pelvis", "spine", "head"))


def test_a_hand_has_a_wrist_and_five_fingers_from_base_to_tip():
    assert HAND_21.joints[:5] == ("wrist", "thumb_1", "thumb_2", "thumb_3", "thumb_4")
    assert HAND_21.joints[-1] == "little_4"
    assert np.array_equal(HAND_21.flip_permutation, np.arange(21)), "a hand has no twin joints"
    assert [HAND_21.index(f"{finger}_1") for finger in ("thumb", "index", "middle", "ring", "little")] == [
        1, 5, 9, 13, 17,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "source, target, columns",
    [
        (H36M_32, H36M_17, [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]),
        (MPI_28, MPI_17, [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]),
    ],
    ids=("h36m", "mpi"),
)
def test_a_corpus_own_joints_are_the_published_columns_of_its_files(source, target, columns):
    ours, theirs = shared_joints(target, source)
    assert list(ours) == list(range(17))
    assert list(theirs) == columns
    coordinates = np.random.default_rng(0).normal(size=(len(source), 3))
    moved = convert(coordinates, source, target)
    np.testing.assert_array_equal(moved.joints, coordinates[columns])
    assert moved.exact == target.joints and not moved.estimated and not moved.missing


def test_shared_joints_are_joined_by_point():
    ours, theirs = shared_joints(H36M_17, COCO_17)
    assert [H36M_17.joints[i] for i in ours] == [COCO_17.joints[i] for i in theirs]
    assert len(ours) == 12
    ours, theirs = shared_joints(MPI_17, H36M_17)
    assert ("neck", "thorax") in {(MPI_17.joints[i], H36M_17.joints[j]) for i, j in zip(ours, theirs, strict=True)}
    assert "head" not in {MPI_17.joints[i] for i in ours}, "two spots of the head that share a name"


def test_a_skeleton_without_a_root_says_so():
    with pytest.raises(ValueError, match="coco_17 has no root"):
        _ = COCO_17.root_index


def test_an_unknown_joint_or_skeleton_lists_the_known_ones():
    with pytest.raises(ValueError, match="it has pelvis, right_hip"):
        H36M_17.index("tail")
    with pytest.raises(ValueError, match="known: coco_17, coco_18, h36m_17"):
        get_skeleton("dog_9")


def test_only_the_wrong_order_of_3dhp_warns():
    with pytest.warns(UserWarning, match="mpi_17_legacy is a wrong, widely copied order"):
        assert get_skeleton("mpi_17_legacy") is MPI_17_LEGACY
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in SKELETONS.keys() - {"mpi_17_legacy"}:
            get_skeleton(name)
    with pytest.warns(UserWarning, match="mpi_17_legacy"):
        convert(np.zeros((17, 3)), "mpi_17_legacy", "mpi_17")


# --------------------------------------------------------------------------------------------------------- conversions


def test_rules_add_up_to_one_and_name_points_that_exist():
    known = {point for skeleton in SKELETONS.values() for point in skeleton.points} | {"mid_shoulders", "mid_ears"}
    for point, rules in ESTIMATES.items():
        assert point in known and len(rules) > 0
        for rule in rules:
            assert sum(rule.values()) == pytest.approx(1.0), (point, rule)
            assert set(rule) <= known - {point}


def test_every_joint_of_the_target_is_exact_estimated_or_missing():
    for source in BODIES:
        for target in BODIES:
            moved = convert(np.ones((len(source), 3)), source, target)
            named = moved.exact + moved.estimated + moved.missing
            assert sorted(named) == sorted(target.joints)
            for joint, value in zip(target.joints, moved.joints, strict=True):
                assert np.isnan(value).all() if joint in moved.missing else value == pytest.approx([1, 1, 1]), joint


def test_exact_joints_are_copied_and_estimated_ones_follow_their_rule():
    coordinates = np.random.default_rng(1).normal(size=(17, 2))
    moved = convert(coordinates, "coco_17", "h36m_17")
    assert moved.estimated == ("pelvis", "spine", "thorax", "neck", "head")
    for joint in moved.exact:
        np.testing.assert_array_equal(moved.joints[H36M_17.index(joint)], coordinates[COCO_17.index(joint)])
    hips, shoulders = (
        (coordinates[COCO_17.index(f"left_{part}")] + coordinates[COCO_17.index(f"right_{part}")]) / 2
        for part in ("hip", "shoulder")
    )
    np.testing.assert_allclose(moved.joints[H36M_17.index("pelvis")], hips)
    np.testing.assert_allclose(moved.joints[H36M_17.index("spine")], (hips + shoulders) / 2)


def test_what_cannot_be_had_is_missing_and_no_limb_is_invented():
    moved = convert(np.ones((17, 3)), COCO_17, SMPL_24)
    assert {"left_foot", "right_hand", "left_collar"} <= set(moved.missing)
    assert np.isnan(moved.joints[SMPL_24.index("left_foot")]).all()
    assert convert(np.ones((21, 3)), HAND_21, H36M_17).missing == H36M_17.joints


def test_a_missing_joint_spoils_only_what_needs_it():
    coordinates = np.random.default_rng(2).normal(size=(17, 3)).astype(np.float32)
    coordinates[COCO_17.index("left_hip")] = np.nan
    moved = convert(coordinates, COCO_17, H36M_17)
    spoilt = {joint for joint, value in zip(H36M_17.joints, moved.joints, strict=True) if np.isnan(value).any()}
    assert spoilt == {"left_hip", "pelvis", "spine"}


def test_batches_and_pixels_are_converted_alike_in_their_own_dtype():
    batch = np.random.default_rng(3).normal(size=(2, 5, 17, 3)).astype(np.float32)
    moved = convert(batch, COCO_17, H36M_17).joints
    assert moved.shape == (2, 5, 17, 3) and moved.dtype == np.float32
    np.testing.assert_allclose(moved[1, 3], convert(batch[1, 3], COCO_17, H36M_17).joints)
    np.testing.assert_allclose(moved[..., :2], convert(batch[..., :2], COCO_17, H36M_17).joints)
    with pytest.raises(ValueError, match="coco_17 has 17 joints"):
        convert(np.zeros((16, 3)), COCO_17, H36M_17)


def test_a_conversion_of_integers_can_say_missing():
    assert convert(np.ones((17, 2), dtype=np.int64), COCO_17, SMPL_24).joints.dtype == np.float64


# How far a rule may be off on the studio's people, centimetres on average. Their necks are long and their MPI head is
# the middle of the skull, so the rules fitted to real labels (the upper neck, MPI's head) come out low here.
WITHIN_CM = {
    "pelvis": 0.1, "mid_shoulders": 0.1, "mid_ears": 0.1, "smpl_neck": 0.1, "spine": 1.5, "spine1": 1.0, "spine2": 1.5,
    "spine3": 1.0, "mpi_spine2": 1.0, "mpi_spine3": 1.0, "mpi_spine4": 0.5, "neck_base": 3.5, "upper_neck": 5.0,
    "h36m_head": 5.0, "head_top": 4.0, "h36m_neck": 7.0, "smpl_head": 7.0, "nose": 11.0, "head_centre": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def poses():
    """The studio's joints: three people in five actions."""
    scenes = [cast_scene("someone", person, action, 1) for person in (1, 102, 305) for action in (2, 7, 9, 10, 14)]
    return [scene.joints_at(frame) for scene in scenes for frame in range(0, 12, 3)]


def test_each_rule_is_within_its_stated_centimetres_of_the_studios_own_points(poses):
    bodies = [body_points(joints) for joints in poses]
    at = {point: np.array([body[point] for body in bodies]) for point in bodies[0]}
    at["mid_ears"] = (at["left_ear"] + at["right_ear"]) / 2
    for point, rules in ESTIMATES.items():
        for rule in rules:
            off_cm = 100 * np.linalg.norm(sum(weight * at[part] for part, weight in rule.items()) - at[point], axis=-1)
            assert off_cm.mean() <= WITHIN_CM[point], (point, rule, off_cm.mean())
    assert WITHIN_CM.keys() == ESTIMATES.keys()


def test_coco_keypoints_give_human36m_joints_within_centimetres(poses):
    moved = convert(np.array([joints_in(joints, COCO_17) for joints in poses]), COCO_17, H36M_17)
    true = np.array([joints_in(joints, H36M_17) for joints in poses])
    off_cm = 100 * np.linalg.norm(moved.joints - true, axis=-1).mean(0)
    within = {"pelvis": 0.1, "spine": 2.0, "thorax": 3.5, "neck": 8.0, "head": 4.5}
    for joint, off in zip(H36M_17.joints, off_cm, strict=True):
        assert off <= within.get(joint, 1e-6), joint
    assert off_cm.mean() < 1.0


def test_the_legacy_order_is_repaired_as_far_as_it_goes(poses):
    saved = np.array([joints_in(joints, MPI_17_LEGACY) for joints in poses])
    moved = convert(saved, MPI_17_LEGACY, MPI_17)
    assert moved.estimated == ("head_top", "neck") and not moved.missing
    true = np.array([joints_in(joints, MPI_17) for joints in poses])
    np.testing.assert_allclose(moved.joints[:, 2:], true[:, 2:], atol=1e-9)


# ------------------------------------------------------------------------------------------------- against real labels


def twins_differ_by(joints: np.ndarray, skeleton: Skeleton) -> dict[str, float]:
    """{bone's child: median over people of |left - right| / mean length} for the bones of limbs that have a twin."""
    length = {child: np.linalg.norm(joints[:, child] - joints[:, parent], axis=-1) for parent, child in skeleton.bones}
    found = {}
    for child, left in length.items():
        joint = skeleton.joints[child]
        if skeleton.sides[child] == "left" and not joint.endswith(("_shoulder", "_hip")):
            right = length[int(skeleton.flip_permutation[child])]
            found[joint] = float(np.nanmedian(np.abs(left - right) / np.maximum(left + right, 1e-9) * 2))
    return found


def knees_lie_between(joints: np.ndarray, skeleton: Skeleton) -> bool:
    """Thigh and shin are about as long, and so are the two bones of the arm: a wrong order breaks that."""
    for upper, middle, lower in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
        for side in ("left", "right"):
            a, b, c = (joints[:, skeleton.index(f"{side}_{part}")] for part in (upper, middle, lower))
            ratio = np.nanmedian(np.linalg.norm(a - b, axis=-1) / np.maximum(np.linalg.norm(b - c, axis=-1), 1e-9))
            if not 0.6 < ratio < 1.6:
                return False
    return True


def test_real_human36m_people_are_symmetric_in_our_order(samples):
    root = samples / "human36m"
    frames = human36m.read_frames(root / "images", root / "annotations", ["1", "5", "7", "8"], told=StageReport("test"))
    joints = np.array([frame.joints_cam_m for frame in frames])
    assert max(twins_differ_by(joints, H36M_17).values()) < 1e-3
    assert knees_lie_between(joints, H36M_17)
    wrong = joints[:, np.roll(np.arange(17), 1)]
    assert max(twins_differ_by(wrong, H36M_17).values()) > 0.1, "the test would see a wrong order"


def test_real_3dhp_people_are_symmetric_in_our_order_and_not_in_the_copied_one(samples):
    labels = json.loads((samples / "mpi_inf_3dhp" / "labels.json").read_text())
    joints = np.array([label["joints_cam_m"] for label in labels])
    differ = twins_differ_by(joints, MPI_17)
    assert max(differ[joint] for joint in ("left_elbow", "left_wrist", "left_ankle")) < 1e-3
    assert differ["left_knee"] < 0.3, "the thighs of one of the two differ by 16 cm in the corpus's own labels"
    assert knees_lie_between(joints, MPI_17)
    top, neck, head, pelvis, spine = (
        joints[:, MPI_17.index(name)] for name in ("head_top", "neck", "head", "pelvis", "spine")
    )

    def apart(a, b):
        return np.linalg.norm(a - b, axis=-1)

    assert (apart(top, pelvis) > apart(neck, pelvis)).all() and (apart(neck, pelvis) > apart(spine, pelvis)).all()
    estimated = 0.66 * neck + 0.34 * top
    assert 100 * apart(estimated, head).mean() < 5.0, "MPI's head is the base of the skull"


def test_real_mpii_people_are_symmetric_in_our_order(samples):
    with h5py.File(samples / "mpii" / "valid.h5") as file:
        joints, head_size = file["part"][()].astype(np.float64), file["normalize"][()]
    joints[(joints == 0).all(-1)] = np.nan
    assert max(twins_differ_by(joints, MPII_16).values()) < 0.35  # in pixels, foreshortened each its own way
    assert knees_lie_between(joints, MPII_16)
    thorax, top, neck = (joints[:, MPII_16.index(name)] for name in ("thorax", "head_top", "upper_neck"))
    off = np.linalg.norm(0.8 * thorax + 0.2 * top - neck, axis=-1) / head_size
    assert np.nanmedian(off) < 0.15, "the upper neck as we estimate it, in head sizes"


def test_real_coco_faces_and_shoulders_agree_on_left_and_right(samples):
    annotations = json.loads((samples / "coco" / "person_keypoints.json").read_text())["annotations"]
    agreeing = 0
    for annotation in annotations:
        joints = np.array(annotation["keypoints"], dtype=np.float64).reshape(17, 3)
        ways = []
        for part in ("eye", "ear", "shoulder", "hip"):
            left, right = (joints[COCO_17.index(f"{side}_{part}")] for side in ("left", "right"))
            if left[2] and right[2]:
                ways.append(np.sign(left[0] - right[0]))
        agreeing += len(ways) == 4 and len(set(ways)) == 1
    assert agreeing >= 2, "both people who look at the camera"


def test_a_real_hands_fingers_are_chains(samples):
    annotation = json.loads((samples / "freihand" / "annotations.json").read_text())["annotations"][0]
    joints = np.array(annotation["keypoints"], dtype=np.float64).reshape(21, 3)[:, :2]
    size = np.ptp(joints, axis=0).max()
    for finger in ("thumb", "index", "middle", "ring", "little"):
        chain = [joints[HAND_21.index(f"{finger}_{number}")] for number in (1, 2, 3, 4)]
        steps = np.linalg.norm(np.diff(chain, axis=0), axis=-1)
        assert (steps < 0.25 * size).all(), f"{finger} jumps"
    tips = [HAND_21.index(f"{finger}_4") for finger in ("thumb", "index", "middle", "ring", "little")]
    assert np.linalg.norm(np.diff(joints[tips], axis=0), axis=-1).mean() > np.median(steps), "tips are apart"
