"""Views and their random changes: labels follow the pixels exactly, colour touches the image alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from humanpose3d.camera import camera_to_pixel
from humanpose3d.config import AugmentationConfig
from humanpose3d.dataset.augmentation import FitView, PoseAugmentor, fit_view, jitter_colour, occlude
from humanpose3d.sample import PoseSample
from humanpose3d.warp import VIEW_MARGIN
from tests.test_warp import EXACT_PX, assert_projects_onto_itself, dot_sample, made_sample

GEOMETRY = AugmentationConfig(drop_depth=0.0, drop_keypoint=0.0)
STILL = AugmentationConfig(
    rotation_deg=0, flip=0, scale=(1, 1), translation=0, brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=0,
    drop_depth=0, drop_keypoint=0,
)  # fmt: skip


def same(first: PoseSample, second: PoseSample, *, but: tuple[str, ...] = ()) -> bool:
    def equal(a, b) -> bool:
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b

    names = set(vars(first)) - {"camera", *but}
    return all(equal(getattr(first, name), getattr(second, name)) for name in names) and np.allclose(
        first.camera.K, second.camera.K, atol=1e-9
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(32, 160))
def test_augmented_joints_project_onto_augmented_joints(seed, draw, size):
    view = PoseAugmentor(GEOMETRY, size)(made_sample(seed), np.random.default_rng(draw))
    assert view.image.shape == (size, size, 3) and view.image_size_wh == (size, size)
    assert view.depth_m.shape == (round(size / 2), round(size / 2))
    assert_projects_onto_itself(view)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_the_pixels_move_with_the_keypoints(draw):
    sample = dot_sample(130, 125)  # near the middle of the box, so that it stays in view
    view = PoseAugmentor(GEOMETRY, 160)(sample, np.random.default_rng(draw))
    rows, columns = np.nonzero(view.image.min(-1) > 100)
    assert np.abs([columns.mean(), rows.mean()] - view.keypoints_px[0]).max() < 1.0
    rows, columns = np.nonzero(view.depth_m > 2.0)
    assert np.abs(np.array([columns.mean(), rows.mean()]) * 2 + 0.5 - view.keypoints_px[0]).max() < 3.0


def test_a_turn_is_about_the_optical_axis():
    config = AugmentationConfig(rotation_deg=30, flip=0, scale=(1, 1), translation=0, drop_depth=0, drop_keypoint=0)
    sample = made_sample()
    turned = PoseAugmentor(config, 128)(sample, np.random.default_rng(4))
    moved = np.isfinite(sample.joint_score) & (sample.joint_score > 0)
    before, after = sample.joints_cam_m[moved], turned.joints_cam_m[moved]
    assert np.array_equal(before[:, 2], after[:, 2])
    assert np.allclose(np.linalg.norm(before[:, :2], axis=1), np.linalg.norm(after[:, :2], axis=1), atol=1e-5)
    angles = np.arctan2(after[:, 1], after[:, 0]) - np.arctan2(before[:, 1], before[:, 0])
    angles = (angles + np.pi) % (2 * np.pi) - np.pi
    assert np.ptp(angles) < 1e-4 and 0.01 < abs(angles[0]) <= np.radians(30.0)


def test_changes_stay_within_their_limits():
    augmentor = PoseAugmentor(AugmentationConfig(), 100)
    rng = np.random.default_rng(0)
    scales, flips, angles, shifts = [], [], [], []
    for _ in range(500):
        warp, turn = augmentor.draw_change(rng)
        scales.append(np.sqrt(abs(np.linalg.det(warp[:, :2]))))
        flips.append(np.linalg.det(turn) < 0)
        unflipped = turn @ np.diag([-1.0 if flips[-1] else 1.0, 1.0])
        angles.append(np.degrees(np.arctan2(unflipped[1, 0], unflipped[0, 0])))
        shifts.append(warp[:, :2] @ [49.5, 49.5] + warp[:, 2] - 49.5)
    assert 0.8 <= min(scales) < 0.82 and 1.18 < max(scales) <= 1.2
    assert -30 <= min(angles) < -28 and 28 < max(angles) <= 30
    assert 9.5 < np.abs(shifts).max() <= 10.0
    assert 200 < sum(flips) < 300


def test_the_same_generator_gives_the_same_view():
    sample, augmentor = made_sample(), PoseAugmentor(AugmentationConfig(), 96)
    first, second = (augmentor(sample, np.random.default_rng(7)) for _ in range(2))
    assert same(first, second)
    assert not same(first, augmentor(sample, np.random.default_rng(8)))


def test_without_changes_and_switched_off_it_is_the_plain_view():
    sample = made_sample()
    plain = fit_view(sample, 96)
    assert same(PoseAugmentor(AugmentationConfig(enabled=False), 96)(sample, np.random.default_rng(0)), plain)
    assert same(PoseAugmentor(STILL, 96)(sample, np.random.default_rng(0)), plain)
    assert same(FitView(96)(sample, np.random.default_rng(0)), plain)


def test_the_view_is_the_square_around_the_box_with_its_margin():
    sample = made_sample(box_px=np.array([100, 20, 150, 220], np.float32))
    view = fit_view(sample, 120)
    half = 60 / (1 + 2 * VIEW_MARGIN)  # of the box's longer side, in the view
    assert np.allclose(view.box_px, np.array([60 - half / 4, 60 - half, 60 + half / 4, 60 + half]) - 0.5)
    assert_projects_onto_itself(view)


def test_without_a_box_the_view_is_the_whole_image():
    view = fit_view(made_sample(box_px=None), 160)
    corner = view.camera.K @ np.linalg.inv(made_sample().camera.K) @ [-0.5, -0.5, 1.0]
    assert np.allclose(corner[:2], [-0.5, (160 - 120) / 2 - 0.5])  # 320 x 240 fits a square with bars


def test_colour_touches_the_image_alone():
    sample = made_sample()
    config = AugmentationConfig(rotation_deg=0, flip=0, scale=(1, 1), translation=0, drop_depth=0, drop_keypoint=0)
    view, plain = PoseAugmentor(config, 96)(sample, np.random.default_rng(1)), fit_view(sample, 96)
    assert not np.array_equal(view.image, plain.image)
    assert same(view, plain, but=("image",))


def test_colour_does_what_its_name_says():
    image = np.random.default_rng(0).integers(60, 180, (40, 40, 3), dtype=np.uint8)
    image[:, :, 0] += 20
    grey = image @ np.array([0.299, 0.587, 0.114])
    assert np.array_equal(jitter_colour(image, 1, 1, 1, 0), image)
    assert np.abs(jitter_colour(image, 1.2, 1, 1, 0) - np.minimum(image * 1.2, 255)).max() <= 1
    assert np.abs(jitter_colour(image, 1, 0, 1, 0) - grey.mean()).max() <= 1
    assert np.abs(jitter_colour(image, 1, 1, 0, 0) - grey[..., None]).max() <= 1
    half = jitter_colour(image, 1, 0.5, 1, 0).astype(float)
    assert np.abs(half - (grey.mean() + 0.5 * (image - grey.mean()))).max() <= 1
    assert np.array_equal(jitter_colour(image, 1, 1, 1, 1.0), image)
    red = np.zeros((1, 1, 3), np.uint8) + np.array([200, 40, 40], np.uint8)
    assert jitter_colour(red, 1, 1, 1, 1 / 3).argmax() != 0  # a third of the circle: no longer red
    turned = jitter_colour(image, 1, 1, 1, 0.05)
    assert np.abs(turned @ np.array([0.299, 0.587, 0.114]) - grey).mean() < 1


def test_an_occluder_hides_a_part_of_the_person_and_of_the_size_asked_for():
    image, rng = np.full((60, 80, 3), 44, np.uint8), np.random.default_rng(0)
    box_px, sides = np.array([50, 10, 70, 40], np.float32), np.array([0.2, 0.25])
    seen = np.zeros((60, 80), bool)
    for _ in range(200):
        rows, columns = np.nonzero((occlude(image, sides, rng, box_px) != image).any(-1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert abs(height - 12) <= 1 and abs(width - 20) <= 1
        assert 9 <= rows.mean() <= 41 and 49 <= columns.mean() <= 71
        seen[rows, columns] = True
    assert seen[10:40, 50:70].all() and not seen[:, :38].any()
    nowhere = occlude(image, sides, rng)  # without a box: anywhere, cut off at the edges
    assert nowhere.shape == image.shape and (nowhere != image).any() and image.max() == 44


def test_depth_and_keypoints_are_dropped_as_often_as_asked():
    config = AugmentationConfig(drop_depth=0.3, drop_keypoint=0.2)
    augmentor, sample = PoseAugmentor(config, 32), made_sample()
    views = [augmentor(sample, np.random.default_rng(seed)) for seed in range(300)]
    assert 60 < sum(view.depth_m is None for view in views) < 120
    lost = np.array([np.isnan(view.keypoints_px).any(-1) for view in views])
    assert 0.17 < lost.mean() < 0.23
    for view, gone in zip(views, lost, strict=True):
        assert np.array_equal(view.keypoint_score == 0, gone)
        assert np.array_equal(np.isnan(view.keypoint_window[..., 0]).all(0), gone)
    assert np.array_equal(sample.keypoints_px, made_sample().keypoints_px), "the stored sample is not touched"


def test_motion_without_pictures_is_augmented_too():
    sample = made_sample(image=None, depth_m=None, keypoints_px=None, keypoint_score=None, keypoint_window=None)
    view = PoseAugmentor(AugmentationConfig(), 96)(sample, np.random.default_rng(0))
    assert view.image is None and view.depth_m is None
    assert_projects_onto_itself(view)


@pytest.mark.parametrize("size", [1, 7, 33])
def test_any_size_keeps_the_contract(size):
    view = PoseAugmentor(GEOMETRY, size)(made_sample(), np.random.default_rng(0))
    assert np.nanmax(np.abs(camera_to_pixel(view.joints_cam_m, view.camera) - view.joints_px)) < EXACT_PX
