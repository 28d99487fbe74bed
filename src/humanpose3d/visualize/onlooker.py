"""From where the viewer's scene is seen first, and a sketch of it for the second or two until plotly has drawn it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LOOKS_FROM = np.array([1.1, -1.55, 0.8])  # the direction; as near as lets all corners be seen
SCENE_SIZE = 2.15  # diagonal of what is shown, in plotly's units
HALF_ANGLE = np.tan(np.pi / 8)  # of plotly's view, up and down
PAGE_SHAPE = 1.5  # width of the page against its height, at least
FILLS = np.array([0.8, 0.82])  # share of the view: the axes' names stand outside
UP = np.array([0.0, 0.0, 1.0])
PIXEL = 0.0017  # of plotly's lines, in a page of 650 pixels' height, in units of half of it


class Onlooker:
    """plotly's camera for a box of the world: none of its corners is cut off, and it stands in the middle."""

    def __init__(self, low_m: np.ndarray, high_m: np.ndarray) -> None:
        """[3] corners: right, away, up."""
        self.low_m, self.high_m = low_m, high_m
        self.size = SCENE_SIZE * (high_m - low_m) / np.linalg.norm(high_m - low_m)  # [3], in plotly's units
        self.ahead = -LOOKS_FROM / np.linalg.norm(LOOKS_FROM)
        right = np.cross(self.ahead, UP)
        right /= np.linalg.norm(right)
        self.axes = np.stack([right, np.cross(right, self.ahead)])  # of the picture: right, up
        corners = self.size * (np.array(list(np.ndindex(2, 2, 2))) - 0.5)
        across, depth = corners @ self.axes.T, corners @ self.ahead[:, None]
        middle, self.distance = np.zeros(2), 0.0  # of the view, in plotly's units
        for _ in range(10):
            beside = np.abs(across - middle) / (FILLS * HALF_ANGLE * (PAGE_SHAPE, 1.0))
            self.distance = float((beside - depth).max())
            seen = across / (depth + self.distance)
            middle = self.distance * (seen.min(0) + seen.max(0)) / 2
        self.centre = middle @ self.axes

    def camera(self) -> dict[str, dict[str, float]]:
        """For plotly's layout."""
        eye = self.centre - self.distance * self.ahead
        places = {"eye": eye, "center": self.centre}
        return {name: dict(zip("xyz", place.tolist(), strict=True)) for name, place in places.items()}

    def project(self, points_m: np.ndarray) -> np.ndarray:
        """[N 3] right, away, up -> [N 2] x, y in units of half the view's height, from its middle; y is down."""
        units = self.size * ((points_m - self.low_m) / (self.high_m - self.low_m) - 0.5) - self.centre
        return units @ self.axes.T / (HALF_ANGLE * (units @ self.ahead + self.distance))[:, None] * (1, -1)


def sketch(onlooker: Onlooker, traces: Sequence[Mapping[str, Any]], ground: str) -> str:
    """SVG lines of the traces that are lines, on the ground, where plotly will draw them in a page of any size."""
    (x0, y0, z), (x1, y1, _) = onlooker.low_m, onlooker.high_m
    corners = np.array([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])
    drawn = [f'<path d="{_path(onlooker.project(corners))}Z" fill="{ground}"/>']
    for trace in traces:
        if "lines" in trace.get("mode", ""):
            points = onlooker.project(np.stack([trace[axis] for axis in "xyz"], axis=-1).astype(np.float64))
            style = f'stroke="{trace["line"]["color"]}" stroke-width="{PIXEL * trace["line"]["width"]:.3f}"'
            drawn.append(f'<path d="{_path(points)}" fill="none" {style}/>')
    box = f"{-PAGE_SHAPE} -1 {2 * PAGE_SHAPE} 2"
    return f'<svg id="sketch" viewBox="{box}" stroke-linecap="round">{"".join(drawn)}</svg>'


def _path(points: np.ndarray) -> str:
    """[N 2] -> an SVG path, lifted at NaN."""
    words, is_down = [], False
    for x, y in points.tolist():
        if np.isfinite(x):
            words.append(f"{'L' if is_down else 'M'}{x:.3f} {y:.3f}")
        is_down = bool(np.isfinite(x))
    return "".join(words)
