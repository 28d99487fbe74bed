"""Heat maps over a picture: where the network saw them, everybody's, on a grey image."""

import numpy as np

from humanpose3d.visualize.heatmaps import draw_heat
from humanpose3d.warp import VIEW_MARGIN, crop_warp, warp_points


def heat_at(box_px: np.ndarray, point_px: tuple[int, int], side: int = 64) -> np.ndarray:
    x, y = warp_points(np.array(point_px, np.float64), crop_warp(box_px, VIEW_MARGIN, side))
    rows, columns = np.mgrid[:side, :side]
    return np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2)).astype(np.float16)


def test_everybodys_joints_are_hot_where_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 60, (240, 320, 3), dtype=np.uint8)
    boxes = [np.array([20.0, 30.0, 120.0, 200.0]), np.array([180.0, 60.0, 300.0, 220.0])]
    places = [(70, 90), (250, 150)]
    shown = draw_heat(image, boxes, [heat_at(box, place) for box, place in zip(boxes, places, strict=True)])
    assert shown.shape == image.shape
    hot = np.argwhere(shown.max(-1) > 200)[:, ::-1]
    near = [np.linalg.norm(hot - place, axis=-1) for place in places]
    assert (np.minimum(*near) < 8).all() and all(each.min() < 1.5 for each in near)
    cold = shown[:, 150]
    assert (cold == cold[:, :1]).all(), "grey"


def test_a_large_photograph_is_drawn_at_the_size_of_its_overlay() -> None:
    box = np.array([400.0, 300.0, 1200.0, 2000.0])
    shown = draw_heat(np.zeros((2400, 3200, 3), np.uint8), [box], [heat_at(box, (800, 1000))])
    assert shown.shape == (1200, 1600, 3)
    y, x = np.unravel_index(shown.sum(-1).argmax(), shown.shape[:2])
    assert abs(x - 400) < 12 and abs(y - 500) < 12
