"""Batches: masks, absent fields, and the refusal to mix joint sets."""

import numpy as np
import pytest
import torch

from humanpose3d.camera import Camera
from humanpose3d.dataset.augmentation import fit_view
from humanpose3d.dataset.collator import DEFAULT_FOV_DEG, Human36MCollator
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import H36M_17
from tests.test_warp import made_sample

COLLATE = Human36MCollator("h36m_17", "coco_17")


def views(*changes: dict, size: int = 64):
    return [fit_view(made_sample(seed, **change), size) for seed, change in enumerate(changes)]


def tensors(batch: PoseBatch) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}


def test_a_batch_has_the_documented_shapes_and_types():
    batch = COLLATE(views({}, {}, {}))
    shapes = {name: (tuple(value.shape), str(value.dtype)[6:]) for name, value in tensors(batch).items()}
    assert shapes == {
        "counted": ((3,), "bool"),
        "head_size_px": ((3,), "float32"),
        "joint_px_mask": ((3, 17), "bool"),
        "image": ((3, 3, 64, 64), "uint8"),
        "depth_m": ((3, 1, 32, 32), "float32"),
        "keypoints_px": ((3, 17, 2), "float32"),
        "keypoint_score": ((3, 17), "float32"),
        "keypoint_mask": ((3, 17), "bool"),
        "intrinsics": ((3, 3, 3), "float32"),
        "image_size_wh": ((3, 2), "float32"),
        "joints_px": ((3, 17, 2), "float32"),
        "joints_cam_m": ((3, 17, 3), "float32"),
        "joint_mask": ((3, 17), "bool"),
        "joint_in_view": ((3, 17), "bool"),
    }
    assert len(batch) == 3 and batch.keys == ["made-0", "made-1", "made-2"]
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert all(value.is_contiguous() for name, value in tensors(batch).items() if name != "image")


def test_values_arrive_in_their_places():
    sample = views({})[0]
    batch = COLLATE([sample])
    assert np.array_equal(batch.image[0].numpy(), sample.image.transpose(2, 0, 1))
    assert np.array_equal(batch.depth_m[0, 0].numpy(), sample.depth_m)
    assert np.array_equal(batch.keypoints_px[0].numpy(), sample.keypoints_px)
    assert np.allclose(batch.intrinsics[0].numpy(), sample.camera.K)
    labelled = batch.joint_mask[0].numpy()
    assert np.array_equal(batch.joints_cam_m[0].numpy()[labelled], sample.joints_cam_m[labelled])


def test_missing_joints_are_masked_zeros():
    sample = views({})[0]  # right_ankle has no label
    keypoints_px, score = sample.keypoints_px.copy(), sample.keypoint_score.copy()
    keypoints_px[2], score[5] = np.nan, 0.0
    batch = COLLATE([sample.with_(keypoints_px=keypoints_px, keypoint_score=score)])
    ankle = H36M_17.index("right_ankle")
    assert not batch.joint_mask[0, ankle] and not batch.joint_in_view[0, ankle]
    assert batch.joint_mask.sum() == 16
    assert batch.keypoint_mask[0].tolist() == [joint not in (2, 5) for joint in range(17)]
    assert (batch.keypoints_px[0, [2, 5]] == 0).all() and (batch.joints_cam_m[0, ankle] == 0).all()
    assert not any(torch.isnan(value).any() for value in tensors(batch).values() if value.is_floating_point())


def test_bodies_without_any_joint_are_labels_whose_joints_are_masked():
    bare = {"joints_px": None, "joints_cam_m": None, "joint_score": None, "joint_in_view": None}
    bodies = {"smpl_pose_rad": np.zeros((24, 3), np.float32), "smpl_betas": np.zeros(10, np.float32)}
    samples = views(bare | bodies, bare | bodies)
    batch = Human36MCollator("h36m_17", "coco_17", bodies=True)(samples)
    assert batch.joint_mask is not None and not batch.joint_mask.any() and batch.smpl_mask.all()
    assert Human36MCollator("h36m_17", "coco_17")(samples).joint_mask is None


def test_a_sample_without_its_root_supervises_nothing():
    joints_cam_m = made_sample().joints_cam_m.copy()
    joints_cam_m[H36M_17.root_index] = np.nan
    batch = COLLATE(views({"joints_cam_m": joints_cam_m}, {}))
    assert batch.joint_mask.any(-1).tolist() == [False, True]


def test_a_joint_out_of_view_keeps_its_3d_label():
    box_px = np.array([0, 0, 40, 40], np.float32)
    batch = COLLATE(views({"box_px": box_px}))
    out = batch.joint_mask & ~batch.joint_in_view
    assert out.any() and (batch.joints_cam_m[out] != 0).any()


@pytest.mark.parametrize(
    ("field", "message"),
    [("skeleton", "joints are in skeleton 'coco_17', but the model wants 'h36m_17'"),
     ("keypoint_skeleton", "2D keypoints are in skeleton 'h36m_17', but the model wants 'coco_17'")],
)  # fmt: skip
def test_another_joint_set_is_refused_by_name(field, message):
    wrong = {"skeleton": "coco_17", "keypoint_skeleton": "h36m_17"}[field]
    with pytest.raises(ValueError, match=message):
        COLLATE([views({})[0].with_(**{field: wrong})])


def test_an_unlabelled_batch_has_no_labels():
    nothing = dict(skeleton=None, joints_px=None, joints_cam_m=None, joint_score=None, joint_in_view=None)
    batch = COLLATE(views(nothing))
    assert batch.joints_px is batch.joints_cam_m is batch.joint_mask is batch.joint_in_view is None
    mixed = COLLATE(views(nothing, {}))
    assert mixed.joint_mask.any(-1).tolist() == [False, True]


def test_absent_depth_is_zeros_of_the_same_shape():
    batch = COLLATE(views({"depth_m": None}, {}))
    assert batch.depth_m.shape == (2, 1, 32, 32)
    assert (batch.depth_m[0] == 0).all() and (batch.depth_m[1] > 0).any()
    assert (COLLATE(views({"depth_m": None})).depth_m == torch.zeros(1, 1, 32, 32)).all()
    assert Human36MCollator("h36m_17", "coco_17", depth=False)(views({})).depth_m is None


def test_motion_without_pictures_has_no_image():
    batch = COLLATE(views({"image": None, "depth_m": None}, {"image": None, "depth_m": None}))
    assert batch.image is None and batch.image_size_wh.tolist() == [[64, 64], [64, 64]]


def test_absent_keypoints_are_all_masked():
    batch = COLLATE(views({"keypoints_px": None, "keypoint_score": None, "keypoint_skeleton": None}))
    assert not batch.keypoint_mask.any() and (batch.keypoint_score == 0).all()


def test_an_unknown_camera_gets_the_default_field_of_view():
    batch = COLLATE(views({"camera": None}))
    assert np.allclose(batch.intrinsics[0].numpy(), Camera.from_fov((64, 64), DEFAULT_FOV_DEG).K)


def test_repeats_and_what_the_corpus_leaves_out_do_not_count():
    batch = COLLATE(views({}, {"valid": False}, {}), [True, True, False])
    assert batch.counted.tolist() == [True, False, False]
    assert COLLATE(views({}, {})).counted.all()


def test_views_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="do not fit in one batch"):
        COLLATE([views({}, size=64)[0], views({}, size=32)[0]])
    with pytest.raises(ValueError, match="do not fit in one batch"):
        COLLATE(views({}, {"image": None}))
