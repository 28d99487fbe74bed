"""Meshes as pictures: a cube's outline to the pixel, near before far, nothing behind the camera."""

from __future__ import annotations

import numpy as np
import pytest

from humanpose3d.camera import Camera
from humanpose3d.visualize.mesh import MESH_COLOUR, draw_mesh, draw_mesh_from, mesh_panel
from humanpose3d.visualize.panels import PAPER, View

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
# Two triangles a side, counter-clockwise from outside.
CUBE = np.array(
    [[0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3], [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
     [2, 3, 7], [2, 7, 6]]
)  # fmt: skip
CAMERA = Camera.create(60.0, (50.0, 50.0))
GREY = np.full((101, 101, 3), 128, np.uint8)


def cube(x_m: float = 0.0, y_m: float = 0.0, z_m: float = 4.0, side_m: float = 2.0) -> np.ndarray:
    return CORNERS * side_m / 2 + [x_m, y_m, z_m]


def drawn(picture: np.ndarray) -> np.ndarray:
    return (picture != GREY).any(-1)


def test_the_cubes_of_these_tests_face_outwards() -> None:
    corners = CORNERS[CUBE]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((outward * corners.mean(1)).sum(-1) > 0).all()


def test_a_cubes_outline_is_that_of_its_near_side() -> None:
    # Its near side is 3 m away: 60 px * 1 m / 3 m = 20 px to each side of the middle.
    covered = drawn(draw_mesh(GREY, cube(), CUBE, CAMERA, opacity=1.0))
    wanted = np.zeros((101, 101), bool)
    wanted[30:71, 30:71] = True
    np.testing.assert_array_equal(covered, wanted)


def test_a_lens_with_distortion_and_a_moved_middle_is_followed() -> None:
    lens = Camera.create((60.0, 30.0), (40.0, 60.0), distortion=np.array([-0.1, 0.0, 0.0, 0.0, 0.0]))
    covered = drawn(draw_mesh(GREY, cube(), CUBE, lens, opacity=1.0))
    radial = 1.0 - 0.1 * 2 / 9  # at the corners, x / z = y / z = 1 / 3
    rows, columns = np.nonzero(covered)
    assert abs(columns.max() - (40 + 20 * radial)) <= 1 and abs(rows.max() - (60 + 10 * radial)) <= 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_body_hides_the_farther(order: tuple[int, int]) -> None:
    bodies = np.array([cube(z_m=4.0, side_m=1.0), cube(z_m=8.0, side_m=4.0)])[list(order)]
    both = draw_mesh(GREY, bodies, CUBE, CAMERA, opacity=1.0)
    near, far = (draw_mesh(GREY, body, CUBE, CAMERA, opacity=1.0) for body in (bodies[order[0]], bodies[order[1]]))
    inside = drawn(near)
    np.testing.assert_array_equal(drawn(both), inside | drawn(far))
    middle, beside = (50, 50), (50, 32)
    assert inside[middle] and not inside[beside]
    np.testing.assert_array_equal(both[middle], near[middle])
    np.testing.assert_array_equal(both[beside], far[beside])


def test_faces_that_pass_through_each_other_are_cut_where_they_meet() -> None:
    """Two squares, crossing along the line x = 0: the left one is nearer on the left."""
    left_near = np.array([[-1.0, -1, 3], [1, -1, 5], [1, 1, 5], [-1, 1, 3]])
    right_near = left_near * [-1, 1, 1]
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    both = draw_mesh(GREY, np.array([left_near, right_near]), faces, CAMERA, opacity=1.0)
    alone = [draw_mesh(GREY, body, faces, CAMERA, opacity=1.0) for body in (left_near, right_near)]
    np.testing.assert_array_equal(both[50, 44], alone[0][50, 44])
    np.testing.assert_array_equal(both[50, 56], alone[1][50, 56])
    assert (both[50, 44] != both[50, 56]).any()


@pytest.mark.parametrize(
    "place", [{"z_m": -4.0}, {"z_m": -0.99}, {"x_m": 900.0}, {"y_m": -1e12}, {"z_m": 1e9}], ids=str
)
def test_what_the_camera_cannot_see_leaves_the_picture_as_it_is(place: dict[str, float]) -> None:
    picture = draw_mesh(GREY, cube(**place), CUBE, CAMERA)
    assert picture.dtype == np.uint8 and drawn(picture).sum() <= 1  # the last one is a point


def test_a_body_half_behind_the_camera_shows_its_other_half() -> None:
    wall = np.array([[-9.0, 1, -3], [9, 1, -3], [9, 1, 3], [-9, 1, 3], [-9, 1, 9], [9, 1, 9]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [3, 2, 5], [3, 5, 4]])
    covered = drawn(draw_mesh(GREY, wall, faces, CAMERA, opacity=1.0))
    assert covered[60].all() and not covered[75].any()  # y / z from 1 / 9 to 1 / 3


def test_the_picture_shines_through() -> None:
    dark, bright = (
        draw_mesh(np.full_like(GREY, value), cube(), CUBE, CAMERA)[50, 50].astype(int) for value in (0, 255)
    )
    assert ((bright - dark > 25) & (bright - dark < 50)).all()


def test_sides_are_lit_differently_and_in_the_colour_asked_for() -> None:
    turned = CORNERS @ np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]) + [0, 0, 5]
    separate = turned[CUBE].reshape(-1, 3)  # a vertex of its own for each corner, so that sides are flat
    picture = draw_mesh(GREY, separate, np.arange(36).reshape(-1, 3), CAMERA, opacity=1.0)
    colours, counts = np.unique(picture[drawn(picture)].reshape(-1, 3), axis=0, return_counts=True)
    two = colours[np.argsort(counts)[-2:]].astype(float)
    assert np.abs(two[0] - two[1]).max() > 20
    for colour in two:
        np.testing.assert_allclose(colour / colour[2], np.array(MESH_COLOUR) / MESH_COLOUR[2], atol=0.02)


def test_from_the_side_what_is_nearer_to_the_camera_is_on_the_left() -> None:
    """A wedge, low at the camera and high behind."""
    wedge = np.array([[-0.3, 1, 3], [0.3, 1, 3], [0.3, 1, 5], [-0.3, 1, 5], [-0.3, -1, 5], [0.3, -1, 5]])
    faces = np.array([[0, 1, 5], [0, 5, 4], [0, 4, 3], [1, 2, 5], [3, 4, 5], [3, 5, 2], [0, 2, 1], [0, 3, 2]])
    picture = draw_mesh_from(wedge, faces, (300, 300))
    blue = (picture[..., 2].astype(int) - picture[..., 0]) > 60
    left, right = np.array_split(blue, 2, axis=1)
    assert right.sum() > 2 * left.sum() > 0
    assert (draw_mesh_from(wedge, faces, (300, 300), view=View(0.0, 0.0)) != picture).any()


def test_up_makes_a_leaning_body_stand() -> None:
    pole = cube(side_m=0.2) * [1, 5, 1] + [0, 0, 0]
    lean = np.array([[1, 0, 0], [0, np.cos(0.5), -np.sin(0.5)], [0, np.sin(0.5), np.cos(0.5)]])
    straight, leaning = (
        draw_mesh_from(pole @ lean.T, CUBE, (300, 300), up=up) for up in (lean @ [0, -1.0, 0], np.array([0, -1.0, 0]))
    )
    width = [
        np.ptp(np.nonzero((picture[..., 2].astype(int) - picture[..., 0]) > 60)[1]) for picture in (straight, leaning)
    ]
    assert width[1] > 1.5 * width[0]


@pytest.mark.parametrize("size_wh", [(640, 480), (90, 160), (2000, 1000)])
def test_a_panel_has_picture_mesh_and_side_view_beside_each_other(size_wh: tuple[int, int]) -> None:
    image = np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)
    panel = mesh_panel(image, cube(), CUBE, Camera.from_fov(size_wh, 60.0), title="one.jpg", note="12 mm", tile_px=300)
    assert panel.dtype == np.uint8 and panel.shape[1] >= 3 * min(300, round(300 * size_wh[0] / max(size_wh)))
    tiles = np.array_split(panel, 3, axis=1)
    blue = [((tile[..., 2].astype(int) - tile[..., 0]) > 60).sum() for tile in tiles]
    assert blue[0] == 0 and min(blue[1:]) > 300
    height, width = (round(300 * side / max(size_wh)) for side in size_wh[::-1])
    overlay = tiles[1][-height - 10 : -10]
    rows, columns = np.nonzero((overlay[..., 2].astype(int) - overlay[..., 0]) > 60)
    assert abs((columns.min() + columns.max()) / 2 - width / 2) < 12  # the camera was resized with its picture


def test_nobody_is_drawn_as_nothing() -> None:
    nobody = np.empty((0, 8, 3))
    np.testing.assert_array_equal(draw_mesh(GREY, nobody, CUBE, CAMERA), GREY)
    assert (draw_mesh_from(nobody, CUBE, (200, 200)) != np.array(PAPER)).any()  # the ground
