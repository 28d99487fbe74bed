"""Frames and back: world, camera, pixel, with lens distortion, and cameras of warped images."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from humanpose3d.camera import (
    Camera,
    camera_to_pixel,
    camera_to_world,
    distort,
    pixel_to_camera,
    pixel_to_ray,
    turn_points,
    undistort,
    warp_camera,
    world_to_camera,
)

H36M_DISTORTION = np.array([-0.2070989, 0.24777518, -0.00142447, -0.0009757, -0.00307515])  # camera 54138969


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    """A camera of any pose, with fx != fy and a lens as mild or strong as Human3.6M's."""
    angles = [draw(st.floats(-3.1, 3.1)) for _ in range(3)]
    R, _ = cv2.Rodrigues(np.array(angles))
    return Camera.create(
        focal_px=(draw(st.floats(200, 2000)), draw(st.floats(200, 2000))),
        center_px=(draw(st.floats(0, 1000)), draw(st.floats(0, 1000))),
        R=R,
        t_m=np.array([draw(st.floats(-5, 5)) for _ in range(3)]),
        distortion=H36M_DISTORTION * draw(st.floats(-1, 1)),
    )


@st.composite
def points_in_front(draw: st.DrawFn) -> np.ndarray:
    """float64 [7 3], camera frame, within 31 degrees of the axis to each side."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    z = rng.uniform(0.3, 12.0, (7, 1))
    return np.concatenate([rng.uniform(-0.6, 0.6, (7, 2)) * z, z], axis=1)


def turn_matrix(angle_rad: float, mirrored: bool) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])


@given(cameras(), points_in_front())
def test_world_to_camera_and_back_is_the_same_point(camera, points):
    assert np.allclose(world_to_camera(camera_to_world(points, camera), camera), points, atol=1e-9)


@given(cameras(), points_in_front())
def test_world_to_pixel_and_back_is_the_same_point(camera, points):
    world = camera_to_world(points, camera)
    pixels = camera_to_pixel(world_to_camera(world, camera), camera)
    back = camera_to_world(pixel_to_camera(pixels, points[:, 2], camera), camera)
    assert np.abs(back - world).max() < 1e-6


@given(points_in_front(), st.floats(-1, 1))
def test_undistorting_what_was_distorted_changes_nothing(points, strength):
    rays = points[:, :2] / points[:, 2:]
    assert np.abs(undistort(distort(rays, H36M_DISTORTION * strength), H36M_DISTORTION * strength) - rays).max() < 1e-9


def test_projection_agrees_with_opencv():
    rng = np.random.default_rng(0)
    R, _ = cv2.Rodrigues(np.array([0.2, -1.1, 0.4]))
    camera = Camera.create((1145.0, 1143.8), (512.5, 515.5), R, np.array([0.1, -0.2, 4.0]), H36M_DISTORTION)
    world = rng.uniform(-1, 1, (20, 3))
    expected, _ = cv2.projectPoints(world, R, camera.t_m, camera.K, H36M_DISTORTION)
    assert np.allclose(camera_to_pixel(world_to_camera(world, camera), camera), expected[:, 0], atol=1e-6)


@given(cameras(), st.floats(0.1, 50))
def test_a_point_on_the_axis_lands_on_the_principal_point(camera, z):
    assert np.allclose(camera_to_pixel(np.array([0.0, 0.0, z]), camera), camera.K[:2, 2])


def test_points_at_or_behind_the_lens_have_no_pixel():
    camera = Camera.create(500.0, (100.0, 100.0))
    pixels = camera_to_pixel(np.array([[0.1, 0.1, -2.0], [0.1, 0.1, 0.0], [0.1, 0.1, 2.0]]), camera)
    assert np.isnan(pixels[:2]).all()
    assert np.isfinite(pixels[2]).all()


def test_the_field_of_view_spans_the_longer_side():
    camera = Camera.from_fov((640, 480), 60.0)
    left, right = pixel_to_ray(np.array([[-0.5, 239.5], [639.5, 239.5]]), camera)
    assert np.degrees(np.arctan(right[0]) - np.arctan(left[0])) == pytest.approx(60.0)
    assert left[1] == pytest.approx(0.0)


@settings(max_examples=200)
@given(
    cameras(),
    points_in_front(),
    st.floats(-3.1, 3.1),
    st.booleans(),
    st.floats(0.05, 4),
    st.floats(-500, 500),
    st.floats(-500, 500),
)
def test_the_camera_of_a_warped_image_sees_turned_points_on_warped_pixels(
    camera, points, angle, mirrored, scale, dx, dy
):
    turn = turn_matrix(angle, mirrored)
    warp = np.concatenate([scale * turn, [[dx], [dy]]], axis=1)
    warped = warp_camera(camera, warp, turn)
    expected = camera_to_pixel(points, camera) @ warp[:, :2].T + warp[:, 2]
    assert np.abs(camera_to_pixel(turn_points(points, turn), warped) - expected).max() < 1e-6
    assert np.linalg.det(warped.R) == pytest.approx(1.0)
    assert warped.focal_px == pytest.approx(scale * camera.focal_px)


@given(cameras(), st.floats(-3.1, 3.1), st.booleans(), points_in_front())
def test_the_extrinsics_follow_a_turn_with_the_world_mirrored_by_a_mirror(camera, angle, mirrored, points):
    turn = turn_matrix(angle, mirrored)
    warped = warp_camera(camera, np.concatenate([turn, np.zeros((2, 1))], axis=1), turn)
    world = camera_to_world(points, camera) * [-1.0 if mirrored else 1.0, 1.0, 1.0]
    assert np.allclose(world_to_camera(world, warped), turn_points(points, turn), atol=1e-9)


@given(cameras())
def test_a_camera_survives_json_bit_for_bit(camera):
    back = Camera.from_dict(camera.to_dict())
    assert all(np.array_equal(getattr(back, name), getattr(camera, name)) for name in ("K", "R", "t_m", "distortion"))


def test_a_camera_of_wrong_shape_is_refused():
    data = Camera.create(500.0, (1.0, 2.0)).to_dict() | {"distortion": [0.0] * 4}
    with pytest.raises(ValueError, match=r"distortion \[5\]"):
        Camera.from_dict(data)
