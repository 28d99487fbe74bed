"""The viewer's file: who is in it and where; and in a browser, turned, played and clicked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humanpose3d.camera import Camera
from humanpose3d.skeletons import H36M_17
from humanpose3d.visualize.panels import FOOT_M
from humanpose3d.visualize.viewer import (
    PICTURE_PX,
    PLACE_STEP_M,
    POINTS,
    POINTS_IN_ALL,
    make_scene,
    viewer_html,
)
from tests.browser import Page, find_browser, part, unpacked
from tests.visualize.test_panels import standing_person

CAMERA = Camera.create(200.0, (99.5, 59.5))
PLACE_OF_BUTTON = """(name => {
  const button = Array.from(document.querySelectorAll(".updatemenu-button")).find(each => each.textContent == name);
  const box = button.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})"""
PLACE_OF_JOINT = """(function (track, joint) {
  const plot = document.getElementById("plot"), scene = plot._fullLayout.scene._scene, data = plot.data[track];
  const number = data.text.indexOf(joint), camera = scene.glplot.cameraParams, array = scene.fullSceneLayout;
  let point = ["x", "y", "z"].map((axis, i) => plot._fullData[track][axis][number] * scene.dataScale[i]).concat(1);
  for (const matrix of [camera.model, camera.view, camera.projection])
    point = [0, 1, 2, 3].map(row => point.reduce((sum, value, column) => sum + matrix[4 * column + row] * value, 0));
  const box = scene.glplot.canvas.getBoundingClientRect();
  return [box.x + (point[0] / point[3] + 1) / 2 * box.width, box.y + (1 - point[1] / point[3]) / 2 * box.height];
})"""


def scene(name: str = "a.jpg", people: int = 1, depth: bool = True, move_m: float = 0.0, **changes: Any):
    rng = np.random.default_rng(0)
    joints = [rng.normal(0, 0.4, (17, 3)).astype(np.float32) + (number + move_m, 0, 4) for number in range(people)]
    image = np.zeros((120, 200, 3), np.uint8)
    image[:, 100:] = (255, 0, 0)
    return make_scene(name, joints, CAMERA, image, np.full((120, 200), 5.0, np.float32) if depth else None, **changes)


def test_a_picture_and_its_depth_are_kept_small_and_in_their_colours():
    found = scene()
    assert max(found.picture.shape) == PICTURE_PX and 0 < len(found.points) <= 2 * POINTS
    x, y, z = found.points.T
    assert np.allclose(z, 5.0) and np.isclose(x.min(), 5.0 * (0 - 99.5) / 200.0, atol=0.1)
    assert (found.colours[x > 0.1] == (255, 0, 0)).all() and (found.colours[x < -0.1] == 0).all()


def test_everybody_is_drawn_where_they_are_and_named():
    shown = scene(people=2)
    page = viewer_html([shown], H36M_17)
    traces = {trace["name"]: trace for trace in part(page, "first")["data"]}
    left = traces["left"]
    place = left["text"].index("person 2, left wrist")
    at = [float(left[axis][place]) for axis in "xyz"]
    x, y, z = shown.people_cam_m[1][H36M_17.index("left_wrist")]
    ground = -max(float(person[:, 1].max()) for person in shown.people_cam_m) - FOOT_M
    np.testing.assert_allclose(at, [x, z, -y - ground], atol=0.6 * PLACE_STEP_M)
    assert {*left["text"]} == {""} | {f"person {n}, left {part}" for n in (1, 2) for part in (
        "shoulder", "elbow", "wrist", "hip", "knee", "ankle")} | {f"person {n}, {part}" for n in (1, 2) for part in (
        "pelvis", "thorax")}  # fmt: skip
    assert traces["numbers"]["text"] == ["1", "2"] and len(part(page, "rest")["frames"]) == 1
    assert "src=" not in page and "<link" not in page, "nothing comes from a network"


def test_plotly_keeps_its_licence_and_not_its_wrapper():
    library = unpacked(viewer_html([scene()], H36M_17), "library").decode()
    assert library.startswith("/**\n* plotly.js") and "Licensed under the MIT license" in library[:300]
    assert "factory" not in library[:1000] and library.rstrip().endswith("window.Plotly = Plotly;")


def test_a_picture_keeps_its_colours_in_the_figure():
    picture = next(
        trace for trace in part(viewer_html([scene()], H36M_17), "first")["data"] if trace["name"] == "picture"
    )
    colours = [colour for _, colour in picture["colorscale"]]
    shown = {colours[index] for index in picture["intensity"].tolist()}
    red, black = (
        any(re.fullmatch(form, colour) for colour in shown) for form in (r"rgb\(2\d\d,\d,\d\)", r"rgb\(\d,0,0\)")
    )
    assert red and black
    assert picture["i"].max() < len(picture["x"])


def test_a_picture_of_one_colour_keeps_it():
    plain = make_scene("sky.jpg", [], CAMERA, np.full((120, 200, 3), (120, 140, 160), np.uint8), None)
    drawn = part(viewer_html([plain], H36M_17), "first")["data"]
    [scale] = [trace["colorscale"] for trace in drawn if trace["name"] == "picture"]
    assert scale == [[0.0, "rgb(120,140,160)"], [1.0, "rgb(120,140,160)"]]


def test_each_picture_has_its_own_ground():
    low, high = (scene(name) for name in ("a.jpg", "b.jpg"))
    high.people_cam_m = [joints - (0, 2, 0) for joints in high.people_cam_m]
    page = viewer_html([low, high], H36M_17)
    heights = np.concatenate([trace["z"] for trace in part(page, "first")["data"][:3]])
    assert np.isclose(np.nanmin(heights), FOOT_M, atol=PLACE_STEP_M)
    assert not any(trace for frame in part(page, "rest")["frames"] for trace in frame["data"][:3]), "the same in both"


def test_several_pictures_get_a_slider_and_nobody_is_no_trouble():
    page = viewer_html([scene("a.jpg", people=0), scene("b.jpg", people=3), scene("c.jpg", depth=False)], H36M_17)
    rest = part(page, "rest")
    assert [step["label"] for step in rest["layout"]["sliders"][0]["steps"]] == ["a.jpg", "b.jpg", "c.jpg"]
    assert len(rest["frames"]) == 3 and "click a joint" in page
    assert "no person found" in viewer_html([scene(people=0, depth=False)], H36M_17)
    with pytest.raises(ValueError, match="at least one picture"):
        viewer_html([], H36M_17)


def test_frames_repeat_nothing_that_all_share():
    frames = part(viewer_html([scene(f"{n}", move_m=0.1 * n) for n in range(3)], H36M_17), "rest")["frames"]
    left, *_, picture, depth = frames[1]["data"]
    assert set(left) == {"x"} and not picture and not depth


def test_the_points_of_many_pictures_together_stay_few():
    first = part(viewer_html([scene(f"{n}") for n in range(50)], H36M_17), "first")["data"]
    depth = next(trace for trace in first if trace["name"] == "depth")
    assert 0.5 * POINTS_IN_ALL / 50 < len(depth["x"]) <= POINTS_IN_ALL / 50


def test_people_of_a_camera_that_looks_down_stand_upright():
    down = np.radians(25)
    tilt = np.array([[1, 0, 0], [0, np.cos(down), -np.sin(down)], [0, np.sin(down), np.cos(down)]])
    people = [(standing_person() @ tilt.T).astype(np.float32)]
    shown = make_scene("a.jpg", people, CAMERA, np.zeros((120, 200, 3), np.uint8), None)
    left = part(viewer_html([shown], H36M_17), "first")["data"][0]
    x, y, z = (left[axis] for axis in "xyz")
    drawn = [place for place, text in enumerate(left["text"]) if text]
    assert np.ptp(y[drawn]) < 0.02 and np.ptp(z[drawn]) > 1.2


@pytest.fixture
def browser() -> str:
    found = find_browser()
    if found is None:
        pytest.skip("no Chromium is installed here: apt install chromium")
    return found


def test_in_a_browser_it_turns_plays_and_tells_a_joints_name_and_place(browser: str, tmp_path: Path) -> None:
    """Ten people, 300 frames."""
    scenes = [scene(f"clip.mp4/{n:06d}", people=10, move_m=0.01 * n, shot="clip.mp4") for n in range(300)]
    (tmp_path / "viewer.html").write_text(viewer_html(scenes, H36M_17))
    assert (tmp_path / "viewer.html").stat().st_size < 8e6
    with Page(browser, tmp_path / "browser") as page:
        page.open(tmp_path / "viewer.html")
        page.wait_for("document.body && document.body.dataset.isWhole")
        assert page.value("document.getElementById('sketch')") is None, "plotly's own picture is in its place"
        eye = 'JSON.stringify(document.getElementById("plot")._fullLayout.scene._scene.getCamera().eye)'
        before = json.loads(page.value(eye))
        page.mouse("Moved", 600, 300)
        page.mouse("Pressed", 600, 300, held=True, clicks=1)
        for step in range(8):
            page.mouse("Moved", 600 + 10 * step, 300, held=True)
        page.mouse("Released", 670, 300, clicks=1)
        after = json.loads(page.wait_for(eye, lambda value: json.loads(value) != before))
        assert abs(after["x"] - before["x"]) > 0.1, "orbit"

        active = 'document.getElementById("plot").layout.sliders[0].active || 0'
        page.click(*page.value(PLACE_OF_BUTTON + '("play")'))
        page.wait_for(active, lambda number: number >= 2)
        page.click(*page.value(PLACE_OF_BUTTON + '("stop")'))
        page.value('void Plotly.animate("plot", ["7"], {mode: "immediate", frame: {duration: 0, redraw: true}})')
        page.wait_for(active, lambda number: number == 7)

        x, y = page.value(PLACE_OF_JOINT + '(0, "person 1, left wrist")')
        for attempt in range(30):  # on a busy machine plotly is late to see what lies under the mouse
            page.click(x + attempt % 2, y)
            told = page.value('document.getElementById("told").textContent')
            if "person" in told:
                break
        place = scenes[7].people_cam_m[0][H36M_17.index("left_wrist")]
        metres = [float(number) for number in re.findall(r"(-?\d+\.\d\d) m", told)]
        assert told.startswith("person 1, left wrist: ")
        ground = -max(float(joints[:, 1].max()) for each in scenes for joints in each.people_cam_m) - FOOT_M
        np.testing.assert_allclose(metres, [place[0], place[2], -place[1] - ground], atol=0.011)
        assert page.complaints == []
