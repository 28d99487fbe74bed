"""Pictures: people stand upright, left and right differ, weak keypoints fade, empty results are drawn too."""

from __future__ import annotations

import numpy as np
import pytest

from humanpose3d.skeletons import COCO_17, H36M_17
from humanpose3d.visualize import panels
from humanpose3d.visualize.panels import SIDE_COLOURS, View


def standing_person(x: float = 0.0, z: float = 4.0) -> np.ndarray:
    """float32 [17 3], camera frame, facing the camera: the person's left is at larger x."""
    heights = {"hip": 0.9, "knee": 0.5, "ankle": 0.08, "shoulder": 1.45, "elbow": 1.15, "wrist": 0.9}
    centre = {"pelvis": 0.9, "spine": 1.15, "thorax": 1.45, "neck": 1.55, "head": 1.7}
    joints = np.zeros((17, 3), np.float32)
    for row, joint in zip(joints, H36M_17.joints, strict=True):
        side, _, part = joint.partition("_")
        across = {"left": 1, "right": -1}.get(side, 0) * (0.12 if part in ("hip", "knee", "ankle") else 0.25)
        row[:] = x + across, 1.0 - (heights[part] if part else centre[side]), z
    return joints


def place_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Mean (x, y) of a colour's pixels."""
    rows, columns = np.nonzero((np.abs(picture.astype(int) - colour) < 12).all(-1))
    assert len(rows), f"nothing is drawn in {colour}"
    return np.array([columns.mean(), rows.mean()])


def test_left_and_right_are_on_their_sides_and_in_their_colours() -> None:
    for view in (View(0.0, 10.0), View()):
        picture = panels.draw_pose3d([standing_person()], view=view)
        assert place_of(picture, SIDE_COLOURS["left"])[0] > place_of(picture, SIDE_COLOURS["right"])[0] + 20


def test_a_person_stands_upright_on_the_ground() -> None:
    person = standing_person()
    headless = person.copy()
    headless[[H36M_17.index("head"), H36M_17.index("neck")]] = np.nan
    whole, rest = panels.draw_pose3d([person]), panels.draw_pose3d([headless])
    assert whole.shape == rest.shape
    legs = person.copy()
    legs[7:] = np.nan
    assert place_of(panels.draw_pose3d([legs]), SIDE_COLOURS["left"])[1] > 0
    centre = place_of(whole, SIDE_COLOURS["centre"])  # trunk, neck and head
    assert centre[1] < place_of(whole, SIDE_COLOURS["left"])[1]


@pytest.mark.parametrize("pitch_deg", [0.0, 20.0, -15.0])
def test_a_camera_that_looks_down_does_not_make_people_lean(pitch_deg: float) -> None:
    angle = np.radians(pitch_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    level = panels.levelling([standing_person() @ turn.T], H36M_17)
    np.testing.assert_allclose(level @ (turn @ np.array([0.0, -1.0, 0.0])), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(level @ level.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(level[0], [1, 0, 0], atol=1e-6)  # x stays x: nothing is mirrored


def test_who_lies_or_sits_does_not_tilt_the_ground() -> None:
    lying = standing_person()[:, [1, 0, 2]]
    sitting = standing_person()
    for side in ("left", "right"):
        sitting[H36M_17.index(f"{side}_ankle")] += [0.0, -0.3, -0.5]
    for joints in (lying, sitting):
        np.testing.assert_allclose(panels.levelling([joints], H36M_17), np.diag([1.0, -1.0, 1.0]), atol=1e-9)


def test_nearer_people_are_drawn_over_farther_ones_whatever_their_order() -> None:
    near, far = standing_person(0.0, 3.0), standing_person(0.05, 6.0)
    first = panels.draw_pose3d([near, far], view=View(0.0, 5.0), numbers=False)
    second = panels.draw_pose3d([far, near], view=View(0.0, 5.0), numbers=False)
    np.testing.assert_array_equal(first, second)


def test_missing_joints_and_nobody_are_drawn_too() -> None:
    nobody = panels.draw_pose3d([])
    assert nobody.shape == (panels.TILE_PX, panels.TILE_PX, 3) and nobody.std() > 2
    all_missing = panels.draw_pose3d([np.full((17, 3), np.nan)])
    assert all_missing.shape == nobody.shape


def test_a_crowd_far_apart_still_fits_the_picture() -> None:
    picture = panels.draw_pose3d([standing_person(x, z) for x, z in ((-9, 4), (8, 30), (0, 2))], (400, 300))
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (edge == 255).all(), "nothing reaches the edge"


def test_keypoints_are_drawn_where_they_are_and_fade_with_confidence() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    points = np.full((17, 2), np.nan, np.float32)
    points[COCO_17.index("left_wrist")] = 220.0, 60.0
    points[COCO_17.index("right_wrist")] = 80.0, 150.0
    score = np.zeros(17, np.float32)
    score[COCO_17.index("left_wrist")] = 1.0
    picture = panels.draw_keypoints(image, [points], [score])
    change = np.abs(picture.astype(int) - 90).sum(-1)
    assert change[60, 220] > 200 and 10 < change[150, 80] < change[60, 220] / 2
    change[45:76, 205:236] = change[135:166, 65:96] = 0
    assert change.max() <= 3, "elsewhere the photograph stays"
    assert (image == 90).all(), "the input is not drawn on"


def test_points_far_outside_the_image_do_no_harm() -> None:
    points = np.random.default_rng(0).uniform(-1e7, 1e7, (17, 2))
    picture = panels.draw_keypoints(
        np.zeros((50, 60, 3), np.uint8), [points], [np.ones(17)], boxes_px=[np.array([-9, -9, 99, 99])]
    )
    assert picture.shape == (50, 60, 3)


def test_near_is_bright_far_is_dark_and_unknown_is_grey() -> None:
    depth_m = np.tile(np.linspace(1.0, 9.0, 100, dtype=np.float32), (100, 1))
    depth_m[:, :10] = 0
    picture = panels.draw_depth(depth_m, (400, 400))
    assert picture.shape == (400, 400, 3)
    assert (picture[200, 10] == 128).all()
    assert picture[200, 60].sum() > picture[200, 300].sum() + 100


@pytest.mark.parametrize("depth_m", [None, np.zeros((4, 4), np.float32), np.full((4, 4), 65.535, np.float32)])
def test_no_depth_and_flat_depth_are_drawn_too(depth_m: np.ndarray | None) -> None:
    assert panels.draw_depth(depth_m, (320, 240)).shape == (240, 320, 3)


@pytest.mark.parametrize("size_hw", [(1002, 1000), (200, 1600), (900, 90), (8, 8)])
def test_the_panel_takes_images_of_every_shape(size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 120, np.uint8)
    points = np.random.default_rng(0).uniform(0, min(size_hw), (17, 2)).astype(np.float32)
    depth_m = np.full((20, 20), 3.0, np.float32)
    box = np.array([0, 0, size_hw[1], size_hw[0]], np.float32)
    for people in ([], [points], [points, points + 1]):
        number = len(people)
        panel = panels.combined_panel(
            image, people, [np.ones(17)] * number, depth_m, [standing_person()] * number, boxes_px=[box] * number
        )
        assert panel.dtype == np.uint8 and panel.shape[1] >= 720 and panel.shape[0] >= 600
        assert panel.shape[0] < 1400 and panel.shape[1] < 1400


def test_a_portrait_keeps_its_shape_on_its_tile() -> None:
    image = np.full((1600, 900, 3), 255, np.uint8)
    panel = panels.combined_panel(image, [], [], None, [])
    white = (panel[panels.TITLE_PX + 100, : panel.shape[1] // 2] == 255).all(-1).nonzero()[0]
    shown = white[(white > 20) & (white < 350)]
    assert shown.max() - shown.min() + 1 == pytest.approx(9 / 16 * panels.TILE_PX, abs=2)


def test_letters_of_other_languages_are_no_boxes() -> None:
    of_boxes = panels._letters("\ue000", 22)  # a private letter, which no font has
    assert all(
        panels._letters(letter, 22).shape != of_boxes.shape or (panels._letters(letter, 22) != of_boxes).any()
        for letter in "üïôéжλ"
    )


def test_the_comparison_names_the_error_after_putting_the_roots_together(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    draw = panels.framed
    monkeypatch.setattr(panels, "framed", lambda tile, title, *rest: titles.append(title) or draw(tile, title, *rest))
    truth = standing_person()
    predicted = truth + np.array([3.0, 0.0, -1.0])  # the whole body elsewhere: no error
    predicted[H36M_17.index("left_wrist")] += [0.0, 0.17, 0.0]
    picture = panels.visualize_comparison(None, None, None, predicted, truth, title="walk")
    assert titles[:2] == ["walk", "error 10 mm"]
    assert picture.dtype == np.uint8 and picture.shape[1] > 3 * 400
    keypoints = np.random.default_rng(0).uniform(0, 60, (17, 2))
    with_image = panels.visualize_comparison(np.zeros((64, 48, 3), np.uint8), keypoints, np.ones(17), predicted, truth)
    assert with_image.shape == picture.shape
    assert panels.visualize_comparison(None, keypoints, None, predicted, truth).shape == picture.shape


def test_a_figure_becomes_an_image() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2), dpi=50)
    figure.patch.set_facecolor((1.0, 0.0, 0.0))
    image = panels.fig_to_image(figure)
    assert image.shape == (100, 150, 3) and image.dtype == np.uint8 and (image[0, 0] == [255, 0, 0]).all()


def test_a_title_too_long_for_its_tile_loses_its_middle():
    name = "s_09_act_02_subact_01_ca_01_" + 20 * "x" + "_000123.jpg"
    shown = panels._shortened(name, 22, 300)
    assert shown.startswith("s_09") and shown.endswith("123.jpg") and "..." in shown
    assert panels._text_width(shown, 22) <= 300 < panels._text_width(name, 22)
    assert panels._shortened("short.jpg", 22, 300) == "short.jpg"
