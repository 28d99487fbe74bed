"""A warp moves image, depth, keypoints, window, joints, camera and box together, exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import COCO_17, H36M_17, SMPL_24
from humanpose3d.warp import (
    MIRROR,
    clip_box,
    compose,
    crop_person,
    crop_warp,
    in_view,
    mirror_warp,
    warp_points,
    warp_sample,
)
from tests.bodies import pose_joints, symmetric_rest_body

H36M_DISTORTION = np.array([-0.2070989, 0.24777518, -0.00142447, -0.0009757, -0.00307515])
EXACT_PX = 0.01  # the contract


def made_sample(seed: int = 0, size_wh: tuple[int, int] = (320, 240), **changes) -> PoseSample:
    """A labelled person whose 2D joints are the exact projections of its 3D ones; fx != fy, a lens, a missing joint."""
    rng = np.random.default_rng(seed)
    camera = Camera.create(
        (rng.uniform(250, 1200), rng.uniform(250, 1200)),
        (size_wh[0] * rng.uniform(-0.5, 1.5), size_wh[1] * rng.uniform(-0.5, 1.5)),
        distortion=H36M_DISTORTION * rng.uniform(-1, 1),
    )
    z = rng.uniform(2.0, 6.0)
    joints_cam_m = (rng.uniform(-0.9, 0.9, (17, 3)) + [0.0, 0.0, z]).astype(np.float32)
    score = np.ones(17, np.float32)
    joints_cam_m[3], score[3] = np.nan, 0.0
    joints_px = camera_to_pixel(joints_cam_m, camera).astype(np.float32)
    window = rng.uniform(0, 200, (5, 17, 3)).astype(np.float32)
    window[2, :, :2] = keypoints_px = rng.uniform(0, size_wh, (17, 2)).astype(np.float32)
    sample = PoseSample(
        key=f"made-{seed}",
        image=rng.integers(0, 255, (size_wh[1], size_wh[0], 3), dtype=np.uint8),
        image_size_wh=size_wh,
        depth_m=rng.uniform(1, 8, (size_wh[1] // 2, size_wh[0] // 2)).astype(np.float32),
        keypoints_px=keypoints_px,
        keypoint_score=rng.uniform(0, 1, 17).astype(np.float32),
        keypoint_skeleton="coco_17",
        keypoint_window=window,
        joints_px=joints_px,
        joints_cam_m=joints_cam_m,
        joint_score=score,
        joint_in_view=in_view(joints_px, size_wh),
        skeleton="h36m_17",
        camera=camera,
        box_px=np.array([60, 40, 200, 210], np.float32),
        head_size_px=30.0,
    )
    return sample.with_(**changes)


def assert_projects_onto_itself(sample: PoseSample) -> None:
    expected = camera_to_pixel(sample.joints_cam_m, sample.camera)
    assert np.array_equal(np.isnan(expected), np.isnan(sample.joints_px))
    assert np.nanmax(np.abs(expected - sample.joints_px)) < EXACT_PX


@st.composite
def warps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A turn about the optical axis, perhaps a mirror, a scale and a shift: ([2 3], [2 2])."""
    angle, scale = draw(st.floats(-np.pi, np.pi)), draw(st.floats(0.3, 2.5))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]]) @ (MIRROR if draw(st.booleans()) else np.eye(2))
    shift = [draw(st.floats(-200, 200)), draw(st.floats(-200, 200))]
    return np.concatenate([scale * turn, np.array(shift)[:, None]], axis=1), turn


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), warps())
def test_warped_joints_project_onto_warped_joints(seed, warp_and_turn):
    warp, turn = warp_and_turn
    sample = made_sample(seed)
    assert_projects_onto_itself(sample)
    assert_projects_onto_itself(warp_sample(sample, warp, (128, 100), turn))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.5), st.integers(16, 400))
def test_joints_of_a_crop_project_onto_joints_of_the_crop(seed, margin, size):
    crop = crop_person(made_sample(seed), margin, size)
    assert_projects_onto_itself(crop)
    assert crop.image.shape == (size, size, 3)
    assert crop.depth_m.shape == (round(size / 2), round(size / 2))


def test_flipping_twice_changes_nothing():
    sample = made_sample()
    once = warp_sample(sample, mirror_warp(320), (320, 240), MIRROR)
    twice = warp_sample(once, mirror_warp(320), (320, 240), MIRROR)
    assert not np.array_equal(once.image, sample.image)
    for name in ("image", "depth_m", "keypoint_score", "joints_cam_m", "joint_score", "joint_in_view", "box_px"):
        assert np.array_equal(getattr(twice, name), getattr(sample, name), equal_nan=name == "joints_cam_m"), name
    for name in ("keypoints_px", "keypoint_window", "joints_px"):
        assert np.allclose(getattr(twice, name), getattr(sample, name), atol=1e-4, equal_nan=True), name
    for name in ("K", "R", "t_m", "distortion"):
        assert np.allclose(getattr(twice.camera, name), getattr(sample.camera, name), atol=1e-9), name


def test_a_mirror_swaps_left_and_right_joints():
    sample = made_sample()
    mirrored = warp_sample(sample, mirror_warp(320), (320, 240), MIRROR)
    left, right = H36M_17.index("left_wrist"), H36M_17.index("right_wrist")
    assert np.allclose(mirrored.joints_cam_m[left], sample.joints_cam_m[right] * [-1, 1, 1])
    assert mirrored.joints_px[left, 0] == pytest.approx(319 - sample.joints_px[right, 0], abs=1e-3)
    left, right = COCO_17.index("left_ear"), COCO_17.index("right_ear")
    assert mirrored.keypoint_score[left] == sample.keypoint_score[right]
    assert mirrored.keypoints_px[left, 0] == pytest.approx(319 - sample.keypoints_px[right, 0], abs=1e-3)
    assert np.array_equal(mirrored.keypoint_window[2, :, :2], mirrored.keypoints_px)


def test_a_missing_joint_stays_with_its_name_through_a_mirror():
    sample = made_sample()  # right_ankle is missing
    mirrored = warp_sample(sample, mirror_warp(320), (320, 240), MIRROR)
    assert np.isnan(mirrored.joints_cam_m[H36M_17.index("left_ankle")]).all()
    assert mirrored.joint_score[H36M_17.index("left_ankle")] == 0
    assert np.isfinite(mirrored.joints_cam_m[H36M_17.index("right_ankle")]).all()


def dot_sample(x: int, y: int) -> PoseSample:
    """A white dot in the dark at pixel (x, y), 9 px wide, in image and depth, and every keypoint on it."""
    image = np.zeros((240, 320, 3), np.uint8)
    image[y - 4 : y + 5, x - 4 : x + 5] = 255
    depth_m = np.full((120, 160), 1.0, np.float32)
    depth_m[y // 2 - 2 : y // 2 + 3, x // 2 - 2 : x // 2 + 3] = 5.0
    point = np.array([x, y], np.float32)
    return made_sample(image=image, depth_m=depth_m, keypoints_px=np.tile(point, (17, 1)))


def centre_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


@settings(max_examples=60, deadline=None)
@given(st.integers(100, 220), st.integers(80, 160), st.floats(-np.pi, np.pi), st.booleans(), st.floats(0.4, 2.0))
def test_image_and_depth_move_with_the_points(x, y, angle, mirrored, scale):
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]]) @ (MIRROR if mirrored else np.eye(2))
    # The dot stays near the middle of the new image whatever the turn.
    warp = np.concatenate(
        [scale * turn, (np.array([130.0, 120.0]) - scale * turn @ [x + 6.0, y - 5.0])[:, None]], axis=1
    )
    warped = warp_sample(dot_sample(x, y), warp, (260, 240), turn)
    expected = warped.keypoints_px[0]
    assert np.abs(centre_of(warped.image[..., 0] > 127) - expected).max() < 0.6
    # Depth is half as large; a pixel's centre c there is pixel 2 c + 0.5 of the image.
    assert np.abs(centre_of(warped.depth_m > 2.0) * 2 + 0.5 - expected).max() < 2.5


def test_a_strong_reduction_averages_instead_of_skipping():
    image = np.zeros((320, 320, 3), np.uint8)
    image[:, ::2] = 200  # a grid one pixel fine
    small = warp_sample(
        made_sample(size_wh=(320, 320), image=image), crop_warp(np.array([0, 0, 320, 320]), 0, 40), (40, 40)
    )
    assert np.abs(small.image[4:-4, 4:-4].astype(int) - 100).max() < 20  # skipping pixels is 100 off


def test_joints_off_the_image_stay_labelled_and_are_out_of_view():
    sample = made_sample()
    moved = warp_sample(sample, np.array([[1.0, 0, 5000.0], [0, 1.0, 0]]), (320, 240))
    assert not moved.joint_in_view.any()
    assert np.array_equal(moved.joints_cam_m, sample.joints_cam_m, equal_nan=True)
    assert np.array_equal(moved.joint_score, sample.joint_score)


def test_in_view_ends_at_the_pixels_outer_edges():
    points = np.array([[-0.5, 0], [-0.6, 0], [9.5, 4.5], [9.6, 4.5], [np.nan, 1.0]])
    assert in_view(points, (10, 5)).tolist() == [True, False, True, False, False]


def test_boxes_are_clipped_to_the_image():
    assert clip_box(np.array([-5.0, 3.0, 500.0, 90.0]), (100, 50)).tolist() == [0, 3, 99, 49]
    moved = warp_sample(made_sample(), np.array([[1.0, 0, -100.0], [0, 1.0, 100.0]]), (320, 240))
    assert moved.box_px.tolist() == [0, 140, 100, 239]


def test_a_box_keeps_its_corners_inside_through_a_turn():
    c, s = np.cos(0.5), np.sin(0.5)
    turn = np.array([[c, -s], [s, c]])
    warp = np.concatenate([turn, [[100.0], [0.0]]], axis=1)
    sample = made_sample()
    x0, y0, x1, y1 = warp_sample(sample, warp, (640, 480), turn).box_px
    corners = warp_points(np.array([[60.0, 40], [200, 40], [200, 210], [60, 210]]), warp)
    assert np.allclose([x0, y0, x1, y1], [*corners.min(0), *corners.max(0)], atol=1e-3)


def test_a_crop_is_the_square_around_the_box_with_its_margin():
    warp = crop_warp(np.array([100.0, 50.0, 180.0, 210.0]), 0.25, 320)  # 160 high, with margins 240
    corners = warp_points(np.array([[140 - 120.0, 130 - 120.0], [140 + 120.0, 130 + 120.0]]), warp)
    assert np.allclose(corners, [[-0.5, -0.5], [319.5, 319.5]])


def test_composing_two_warps_is_doing_one_after_the_other():
    rng = np.random.default_rng(1)
    first, then, points = rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), rng.normal(size=(5, 2))
    assert np.allclose(warp_points(points, compose(first, then)), warp_points(warp_points(points, first), then))


def test_the_head_size_scales_with_the_image():
    scale = np.array([[2.0, 0, 0], [0, 2.0, 0]])
    assert warp_sample(made_sample(), scale, (640, 480)).head_size_px == pytest.approx(60.0)


def test_absent_fields_stay_absent():
    bare = PoseSample(key="bare", image_size_wh=(320, 240), box_px=np.array([0, 0, 10, 10], np.float32))
    warped = warp_sample(bare, crop_warp(bare.box_px, 0, 64), (64, 64))
    assert warped.image_size_wh == (64, 64)
    present = {name for name, value in vars(warped).items() if isinstance(value, (np.ndarray, Camera))}
    assert present == {"box_px"}


# ------------------------------------------------------------------------------------------------ SMPL's labels


def body_sample(seed: int, **changes) -> tuple[PoseSample, np.ndarray]:
    """Someone with SMPL's labels and the joints that follow from them, and their rest body [24 3]."""
    rng = np.random.default_rng(seed)
    rest_m = symmetric_rest_body(rng)
    pose_rad = rng.uniform(-1.7, 1.7, (24, 3)).astype(np.float32)
    trans_m = (rng.uniform(-1.0, 1.0, 3) + [0.0, 0.0, 5.0]).astype(np.float32)
    joints_cam_m = pose_joints(rest_m, pose_rad, trans_m).astype(np.float32)
    camera = Camera.create(rng.uniform(200, 900), (150.0, 130.0))
    labels = {
        "skeleton": "smpl_24",
        "camera": camera,
        "joints_cam_m": joints_cam_m,
        "joints_px": camera_to_pixel(joints_cam_m, camera).astype(np.float32),
        "joint_score": np.ones(24, np.float32),
        "smpl_pose_rad": pose_rad,
        "smpl_trans_m": trans_m,
        "smpl_betas": rng.normal(size=10).astype(np.float32),
        "gender": "female",
    }
    return made_sample(seed, **(labels | changes)), rest_m


def with_extremes() -> st.SearchStrategy[np.ndarray]:
    """Turns about the optical axis and mirrors, the plain ones among them."""
    plain = st.sampled_from([MIRROR, -MIRROR, -np.eye(2), np.eye(2)])
    return st.one_of(plain, warps().map(lambda pair: pair[1]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), with_extremes())
def test_a_body_posed_by_the_warped_labels_is_the_warped_body(seed, turn):
    sample, rest_m = body_sample(seed)
    warped = warp_sample(sample, np.concatenate([turn, np.full((2, 1), 160.0)], axis=1), (320, 320), turn)
    posed = pose_joints(rest_m, warped.smpl_pose_rad, warped.smpl_trans_m)
    np.testing.assert_allclose(posed, warped.joints_cam_m, atol=2e-6)
    assert warped.smpl_pose_rad.dtype == warped.smpl_trans_m.dtype == np.float32
    assert warped.smpl_betas is sample.smpl_betas and warped.gender == sample.gender


def test_a_mirror_moves_every_twin_and_not_the_root_alone():
    sample, _ = body_sample(3)
    mirrored = warp_sample(sample, mirror_warp(320), (320, 240), MIRROR)
    left, right = SMPL_24.index("left_elbow"), SMPL_24.index("right_elbow")
    np.testing.assert_allclose(mirrored.smpl_pose_rad[left], sample.smpl_pose_rad[right] * [1, -1, -1], atol=1e-6)
    np.testing.assert_allclose(
        mirrored.smpl_pose_rad[0], sample.smpl_pose_rad[0] * [1, -1, -1], atol=1e-6
    )  # a mirror of the camera's x is the body's own


@pytest.mark.parametrize("turn", [MIRROR, np.array([[0.6, -0.8], [0.8, 0.6]])])
def test_the_pelvis_of_a_lopsided_body_lands_exactly(turn):
    sample, rest_m = body_sample(4)
    rest_m = rest_m + [0.02, 0.0, 0.0]  # as a rest pelvis off the middle
    pelvis_m = rest_m[0] + sample.smpl_trans_m
    joints_cam_m = sample.joints_cam_m + np.array([0.02, 0, 0], np.float32)
    warped = warp_sample(sample.with_(joints_cam_m=joints_cam_m), np.eye(2, 3), (320, 240), turn)
    np.testing.assert_allclose(rest_m[0] + warped.smpl_trans_m, [*turn @ pelvis_m[:2], pelvis_m[2]], atol=1e-6)


def test_a_crop_leaves_the_body_as_it_is():
    sample, _ = body_sample(5)
    crop = crop_person(sample, 0.2, 64)
    for name in ("smpl_pose_rad", "smpl_trans_m", "smpl_betas"):
        assert np.array_equal(getattr(crop, name), getattr(sample, name)), name


@pytest.mark.parametrize("changes", [{"joints_cam_m": None}, {"joints_cam_m": np.full((24, 3), np.nan, np.float32)}])
def test_without_a_pelvis_a_turn_keeps_the_pose_and_drops_the_translation(changes):
    sample, _ = body_sample(6, **changes)
    turned = warp_sample(sample, mirror_warp(320), (320, 240), MIRROR)
    known, _ = body_sample(6)
    assert turned.smpl_trans_m is None
    assert np.array_equal(turned.smpl_pose_rad, warp_sample(known, mirror_warp(320), (320, 240), MIRROR).smpl_pose_rad)
    assert warp_sample(sample, np.eye(2, 3), (320, 240)).smpl_trans_m is sample.smpl_trans_m
