"""The bars of an evaluation: as long as the errors, sides in their colours, what is missing said."""

import cv2
import numpy as np

from humanpose3d.skeletons import H36M_17, MPII_16
from humanpose3d.visualize.errors import Bars, draw_errors
from humanpose3d.visualize.panels import SIDE_COLOURS


def drawn(*panels: Bars) -> np.ndarray:
    """uint8 [h w 3] RGB"""
    content = draw_errors("title", "MPJPE, mm", 50.0, panels)
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def pixels_of(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour) < 12).all(-1).sum())


def test_bars_are_as_long_as_the_errors_and_have_their_sides_colours():
    errors = {joint: {"left": 90.0, "right": 30.0}.get(side, 0.0)
              for joint, side in zip(H36M_17.joints, H36M_17.sides, strict=True)}  # fmt: skip
    picture = drawn(Bars("by joint", errors, H36M_17.sides), Bars("by action", {"Sitting": 0.0}))
    left, right = (pixels_of(picture, SIDE_COLOURS[side]) for side in ("left", "right"))
    assert 2.4 < left / right < 3.4  # six bars each, of 90 and of 30


def test_what_was_not_measured_and_what_no_mean_counts_is_drawn_too():
    errors = dict.fromkeys(MPII_16.joints, 70.0) | {"head_top": float("nan")}
    picture = drawn(Bars("by joint", errors, MPII_16.sides, frozenset({"pelvis", "thorax"})))
    plain = drawn(Bars("by joint", errors, MPII_16.sides))
    assert pixels_of(picture, SIDE_COLOURS["centre"]) < 0.7 * pixels_of(plain, SIDE_COLOURS["centre"])


def test_nothing_at_all_is_still_a_picture():
    assert drawn(Bars("by joint", {"wrist": float("nan")}), Bars("by action", {})).std() > 0
