"""The viewer's file: who is in it and where, with a slider for several pictures and none for one."""

from __future__ import annotations

import numpy as np
import pytest

from humanpose3d.camera import Camera
from humanpose3d.skeletons import H36M_17
from humanpose3d.visualize.viewer import PICTURE_PX, POINTS, make_scene, viewer_html

CAMERA = Camera.create(200.0, (99.5, 59.5))


def scene(name: str = "a.jpg", people: int = 1, depth: bool = True, **changes):
    rng = np.random.default_rng(0)
    joints = [rng.normal(0, 0.4, (17, 3)).astype(np.float32) + (number, 0, 4) for number in range(people)]
    image = np.zeros((120, 200, 3), np.uint8)
    image[:, 100:] = (255, 0, 0)
    return make_scene(name, joints, CAMERA, image, np.full((120, 200), 5.0, np.float32) if depth else None, **changes)


def test_a_picture_and_its_depth_are_kept_small_and_in_their_colours():
    found = scene()
    assert max(found.picture.shape) == PICTURE_PX and 0 < len(found.points) <= 2 * POINTS
    x, y, z = found.points.T
    assert np.allclose(z, 5.0) and np.isclose(x.min(), 5.0 * (0 - 99.5) / 200.0, atol=0.1)
    assert (found.colours[x > 0.1] == (255, 0, 0)).all() and (found.colours[x < -0.1] == 0).all()
    bare = scene(with_picture=False)
    assert bare.picture is None and not len(bare.points)


def test_everybody_is_drawn_where_they_are_and_named():
    page = viewer_html([scene(people=2)], H36M_17)
    assert "person 2: head" in page and "slider" not in page.split("Plotly.newPlot")[-1]
    assert page.count("left_wrist") >= 2 and "plotly_click" in page


def test_several_pictures_get_a_slider_and_nobody_is_no_trouble():
    page = viewer_html([scene("a.jpg", people=0), scene("b.jpg", people=3), scene("c.jpg", depth=False)], H36M_17)
    last = page.split("Plotly.newPlot")[-1]
    assert all(name in last for name in ("a.jpg", "b.jpg", "c.jpg", "sliders", "play"))
    assert len(viewer_html([scene(people=0, depth=False, with_picture=False)], H36M_17)) > 1e6  # plotly itself
    with pytest.raises(ValueError, match="at least one picture"):
        viewer_html([], H36M_17)
