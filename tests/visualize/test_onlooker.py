"""From where a scene is seen first, and the sketch of it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from humanpose3d.visualize.onlooker import PAGE_SHAPE, Onlooker, sketch

BOXES = [([-1, 0, 0], [1, 4, 2]), ([-6, 0, 0], [6, 2, 2]), ([0, 0, 0], [0.5, 30, 0.5])]


@pytest.mark.parametrize("low_m, high_m", BOXES)
def test_no_corner_is_cut_off_and_the_page_is_used(low_m: list[float], high_m: list[float]) -> None:
    low, high = np.array(low_m, float), np.array(high_m, float)
    corners = low + (high - low) * np.array(list(np.ndindex(2, 2, 2)))
    places = np.abs(Onlooker(low, high).project(corners)) / (PAGE_SHAPE, 1)
    assert 0.65 < places.max() < 0.85


def test_it_looks_where_plotlys_camera_does() -> None:
    onlooker = Onlooker(*(np.array(corner, float) for corner in BOXES[0]))
    camera = {name: np.array([*place.values()]) for name, place in onlooker.camera().items()}
    ahead = camera["center"] - camera["eye"]
    above = camera["center"] + np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.1]])
    middle, higher = onlooker.project(
        onlooker.low_m + (above / onlooker.size + 0.5) * (onlooker.high_m - onlooker.low_m)
    )
    assert np.allclose(middle, 0.0) and abs(higher[0]) < 1e-9 and higher[1] < -0.01
    assert ahead[1] > 0 > ahead[2], "from before the camera, and from above"


def test_the_sketch_has_the_lines_and_lifts_the_pen_at_gaps() -> None:
    onlooker = Onlooker(*(np.array(corner, float) for corner in BOXES[0]))
    x, y, z = np.array([[0, 1, 1], [0, 1, 0], [np.nan] * 3, [0.5, 1, 1], [0.5, 1, 0]], np.float32).T
    limb = {"mode": "lines+markers", "x": x, "y": y, "z": z, "line": {"color": "rgb(0,114,178)", "width": 8}}
    drawn = sketch(onlooker, [limb, {"mode": "text"}, {"type": "mesh3d"}], "#f1f3f6")
    ground, lines = re.findall(r' d="(.*?)"', drawn)
    assert ground.endswith("Z") and re.sub(r"[-. \d]", "", lines) == "MLML"
    assert "rgb(0,114,178)" in drawn
