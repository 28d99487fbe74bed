"""Joint sets: what follows from names must be right, since nothing else says it."""

import numpy as np
import pytest

from humanpose3d.skeletons import COCO_17, H36M_17, SKELETONS, get_skeleton, shared_joints

ALL = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda skeleton: skeleton.name)


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
        assert skeleton.joints[twin].split("_")[-1] == skeleton.joints[joint].split("_")[-1]


@ALL
def test_bones_form_a_tree_over_all_joints(skeleton):
    children = [child for _, child in skeleton.bones]
    free = [joint for joint, parent in enumerate(skeleton.parents) if parent is None]
    assert sorted(children + free) == list(range(len(skeleton)))
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
    assert skeleton is COCO_17 or mirrored == bones


def test_human36m_has_its_documented_order():
    assert len(H36M_17) == 17
    assert H36M_17.joints[:4] == ("pelvis", "right_hip", "right_knee", "right_ankle")
    assert H36M_17.joints[-1] == "right_wrist"
    assert H36M_17.root_index == 0
    assert len(H36M_17.bones) == 16


def test_coco_has_its_documented_order():
    assert (COCO_17.index("nose"), COCO_17.index("left_wrist"), COCO_17.index("right_ankle")) == (0, 9, 16)


def test_shared_joints_are_joined_by_name():
    ours, theirs = shared_joints(H36M_17, COCO_17)
    assert [H36M_17.joints[i] for i in ours] == [COCO_17.joints[i] for i in theirs]
    assert len(ours) == 12


def test_a_skeleton_without_a_root_says_so():
    with pytest.raises(ValueError, match="coco_17 has no root"):
        _ = COCO_17.root_index


def test_an_unknown_joint_or_skeleton_lists_the_known_ones():
    with pytest.raises(ValueError, match="it has pelvis, right_hip"):
        H36M_17.index("tail")
    with pytest.raises(ValueError, match="known: coco_17, h36m_17"):
        get_skeleton("dog_9")
