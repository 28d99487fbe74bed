"""The lifter's batches: rays of the stored pixels, depth where the keypoints are, windows, and the refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.config import AugmentationConfig
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.collator import DEFAULT_FOV_DEG
from humanpose3d.dataset.keypoint_batches import KeypointDecoder, depth_around
from humanpose3d.models.lifter import keypoint_rays
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import COCO_17, H36M_17, shared_joints
from tests.records import random_sample, random_samples
from tests.sets import write_set

OF_LABELS, OF_KEYPOINTS = shared_joints(H36M_17, COCO_17)


def decoder(**changes) -> KeypointDecoder:
    return KeypointDecoder("h36m_17", "coco_17", **changes)


def bare(number: int = 12, **changes):
    """Motion seen by virtual cameras: no picture, no depth, no network behind the keypoints."""
    return random_samples(
        np.random.default_rng(0), number, image=False, depth=False, provenance={"estimators": {}}, **changes
    )


def batches(folder, **changes) -> list[PoseBatch]:
    training = changes.get("augmentation") is not None
    dataset = StreamingChunkedDataset(folder, shuffle=training, seed=3)
    return list(StreamingLoader(dataset, global_batch=4, decoder=decoder(**changes), training=training))


def rays_of(batch: PoseBatch) -> np.ndarray:
    return keypoint_rays(batch.keypoints_px, batch.intrinsics)[..., :2].numpy()


def test_records_become_rays_through_their_own_lenses():
    distorted = Camera.create(70.0, (30.0, 33.0), distortion=np.array([-0.2, 0.1, 0.001, -0.002, 0.0]))
    joints_m = random_sample(np.random.default_rng(3)).joints_cam_m
    points_px = np.full((17, 2), np.nan, np.float32)
    points_px[OF_KEYPOINTS] = camera_to_pixel(joints_m, distorted)[OF_LABELS]
    sample = random_sample(np.random.default_rng(3), camera=distorted, keypoints_px=points_px)
    batch = decoder()([sample])
    expected = joints_m[OF_LABELS, :2] / joints_m[OF_LABELS, 2:]
    assert np.allclose(rays_of(batch)[0, OF_KEYPOINTS], expected, atol=1e-5)
    assert batch.keypoint_mask[0].sum() == len(OF_KEYPOINTS)
    assert np.array_equal(batch.joints_cam_m[0].numpy(), joints_m)


def test_images_of_all_sizes_fit_in_one_batch_and_an_unknown_camera_is_assumed():
    samples = [random_sample(np.random.default_rng(i), size=size) for i, size in enumerate((64, 96))]
    unknown = replace(samples[1], camera=None)
    batch = decoder()([samples[0], unknown])
    assumed = Camera.from_fov((96, 96), DEFAULT_FOV_DEG)
    found = (unknown.keypoints_px - assumed.K[:2, 2]) / assumed.focal_px
    assert np.allclose(rays_of(batch)[1], found, atol=1e-5)


def test_what_is_missing_is_masked_and_zero():
    sample = random_sample(np.random.default_rng(1))
    points_px, score, joints_m = sample.keypoints_px.copy(), sample.keypoint_score.copy(), sample.joints_cam_m.copy()
    points_px[2], score[5], joints_m[3] = np.nan, 0.0, np.nan
    batch = decoder()([replace(sample, keypoints_px=points_px, keypoint_score=score, joints_cam_m=joints_m)])
    assert (~batch.keypoint_mask[0]).nonzero().flatten().tolist() == [2, 5]
    assert (batch.keypoints_px[0, [2, 5]] == 0).all() and (batch.keypoint_depth_m[0, [2, 5]] == 0).all()
    assert (~batch.joint_mask[0]).nonzero().flatten().tolist() == [3]
    unlabelled = decoder()([replace(sample, joints_cam_m=None, joints_px=None, joint_score=None, skeleton=None)])
    assert unlabelled.joints_cam_m is None and unlabelled.joint_mask is None


def test_depth_is_the_median_of_a_patch_and_its_spread():
    points_px = np.array([[50.0, 50.0], [50.0, 250.0], [200.0, 20.0], [np.nan, np.nan]])
    depth_m = np.full((128, 128), 3.0, np.float32)
    depth_m[:60, 26:] = 5.0  # an edge through the first point's patch, two columns of three on the near side
    depth_m[100:] = 0.0
    found = depth_around(depth_m, points_px, (256, 256))
    assert found[0, 0] == 3.0 and found[0, 1] == 2.0
    assert np.isnan(found[1]).all() and np.isnan(found[3]).all()
    assert found[2, 0] == 5.0 and found[2, 1] == 0.0


def test_a_window_is_cut_to_the_model_s_and_without_one_the_frame_stands_alone():
    sample = random_sample(np.random.default_rng(2), window=31)
    alone = random_sample(np.random.default_rng(4))
    batch = decoder(window=27)([sample, alone])
    assert batch.keypoint_window.shape == (2, 27, 17, 3)
    rays = keypoint_rays(batch.keypoint_window[..., :2], batch.intrinsics)[0, ..., :2].numpy()
    expected = (sample.keypoint_window[2:29, :, :2] - sample.camera.K[:2, 2]) / sample.camera.focal_px
    assert np.allclose(rays, expected, atol=1e-5)
    assert np.allclose(batch.window_time_s[0].numpy(), (np.arange(27) - 13) / 50.0)
    assert batch.window_mask[1].any(-1).nonzero().flatten().tolist() == [13]
    assert np.array_equal(batch.keypoints_px[0], batch.keypoint_window[0, 13, :, :2])
    with pytest.raises(ValueError, match="--window 81"):
        decoder(window=81)([sample])


def test_another_skeleton_is_refused():
    sample = random_sample(np.random.default_rng(1), keypoint_skeleton="h36m_17")
    with pytest.raises(ValueError, match="2D keypoints are in skeleton 'h36m_17'"):
        decoder()([sample])


def test_chunks_without_pictures_stream_and_repeat_themselves(tmp_path):
    write_set(tmp_path, bare())
    first, again = (batches(tmp_path, augmentation=AugmentationConfig()) for _ in range(2))
    assert len(first) == 3 and all(batch.image is None for batch in first)
    for one, two in zip(first, again, strict=True):
        assert one.keys == two.keys and torch.equal(one.keypoints_px, two.keypoints_px)
        assert torch.equal(one.joints_cam_m, two.joints_cam_m)
    assert any(batch.keypoint_depth_mask.any() for batch in first)  # made up


def test_validation_sees_what_is_stored_or_the_same_errors_each_time(tmp_path):
    samples = bare()
    write_set(tmp_path, samples)
    by_key = {sample.key: sample for sample in samples}
    for batch in batches(tmp_path):
        for row, key in enumerate(batch.keys):
            camera = by_key[key].camera
            expected = (by_key[key].keypoints_px - camera.K[:2, 2]) / camera.focal_px
            assert np.allclose(rays_of(batch)[row], expected, atol=1e-5)
    clean, noisy, again = batches(tmp_path), batches(tmp_path, noise=1.0), batches(tmp_path, noise=1.0)
    assert torch.equal(noisy[0].keypoints_px, again[0].keypoints_px)
    assert not torch.equal(noisy[0].keypoints_px, clean[0].keypoints_px)
    assert torch.equal(noisy[0].joints_cam_m, clean[0].joints_cam_m)
