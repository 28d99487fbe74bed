"""Pictures of a result: 2D overlay, depth map, 3D pose, the 2x2 panel of all, prediction beside truth.

Every function takes arrays and returns a new uint8 [h w 3] RGB picture; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageFont

from humanpose3d.skeletons import COCO_17, H36M_17, Skeleton

Colour = tuple[int, int, int]

# Left and right in Okabe and Ito's colours, which every kind of colour vision tells apart.
SIDE_COLOURS: dict[str, Colour] = {"left": (0, 114, 178), "right": (230, 130, 0), "centre": (96, 96, 96)}
SIDE_COLOURS_ON_PHOTO: dict[str, Colour] = {"left": (64, 170, 245), "right": (255, 165, 30), "centre": (235, 235, 235)}
TRUTH_COLOUR: Colour = (30, 30, 30)
INK: Colour = (40, 40, 40)
PAPER: Colour = (255, 255, 255)
FAINT: Colour = (205, 210, 215)
MUTED: Colour = (120, 125, 130)

TILE_PX = 560  # longer side of a panel's tile
LEAST_TILE_WH = (360, 300)  # px: room for its title
TITLE_PX = 40  # height of the line above a tile
GAP_PX = 10
PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
PICTURE_LIMIT_PX = 1600  # longer side of an overlay; larger photographs are drawn on at this size
FAINTEST = 0.15  # opacity of a keypoint of no confidence: seen, but not believed
TICK_TEXT_PX = 17  # of numbers at axes: legible at half the size
END_ON = 0.8  # of an edge's direction: it runs towards the viewer, and its ticks stand beside it
TICK_PX = 22  # between the numbers of a depth scale at least
CAMERA_UP = np.array([0.0, -1.0, 0.0])  # in its own frame, where nothing tells more
FOOT_M = 0.06  # an ankle joint stands this far above the ground


def draw_keypoints(
    image: np.ndarray,
    people_px: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    skeleton: Skeleton = COCO_17,
    boxes_px: Sequence[np.ndarray] = (),
    labels: Sequence[str] = (),
) -> np.ndarray:
    """The image with each person's bones, less opaque where the confidence is low, and numbers where there are boxes.

    labels: of the boxes, in the numbers' place.

    image: uint8 [H W 3]. people_px: [J 2] each; scores: [J] each, in 0..1; boxes_px: [4] each, xyxy.
    """
    picture, scale = shrunk(image, PICTURE_LIMIT_PX)
    layer, opacity = np.zeros_like(picture), np.zeros(picture.shape[:2], np.uint8)
    unit = _unit(picture)
    for points_px, score in zip(people_px, scores, strict=True):
        points = (np.asarray(points_px, np.float64) + 0.5) * scale - 0.5
        _draw_bones_2d(layer, opacity, points, np.asarray(score), skeleton, unit)
    picture = _blend(picture, layer, opacity)
    for number, box in enumerate(boxes_px):
        _draw_box(picture, np.asarray(box) * scale, labels[number] if labels else str(number + 1), unit)
    if not len(people_px):
        _banner(picture, "no person found")
    return picture


def draw_depth(depth_m: np.ndarray | None, size_wh: tuple[int, int]) -> np.ndarray:
    """A depth map in a perceptual colour scale, near bright and far dark, with a scale bar in metres.

    depth_m: [h w] metres, 0 unknown (drawn grey), or None. The scale is logarithmic, from the nearest hundredth of the
    pixels to the farthest twentieth, at most 40 m.
    """
    width, height = size_wh
    known = depth_m is not None and bool((depth_m > 0).any())
    if depth_m is None or not known:
        picture = np.full((height, width, 3), 238, np.uint8)
        message = "no depth map" if depth_m is None else "depth unknown everywhere"
        _text(picture, (width / 2, height / 2), message, 24, MUTED, "mm")
        return picture
    near, far = _depth_range(depth_m)
    resized = cv2.resize(depth_m, size_wh, interpolation=cv2.INTER_NEAREST)
    share = np.log(np.maximum(resized, 1e-3) / near) / np.log(far / near)
    picture = _colour_map()[(255 - np.clip(share, 0, 1) * 255).astype(np.uint8)]
    picture[resized <= 0] = (128, 128, 128)
    _draw_depth_scale(picture, near, far)
    return picture


@dataclass(frozen=True)
class View:
    """From where a 3D scene is looked at: degrees around the vertical and above the horizon; 0, 0 is the camera's."""

    yaw_deg: float = 35.0
    pitch_deg: float = 16.0


def draw_pose3d(
    people_cam_m: Sequence[np.ndarray],
    size_wh: tuple[int, int] = (TILE_PX, TILE_PX),
    skeleton: Skeleton = H36M_17,
    *,
    truth_cam_m: Sequence[np.ndarray] = (),
    view: View = View(),
    numbers: bool = True,
) -> np.ndarray:
    """People in 3D on a ground grid with ticks in metres, seen from the camera's side, turned and raised by `view`.

    people_cam_m: [J 3] each, camera frame (x right, y down, z forward); NaN joints are left out. truth_cam_m: the same
    people as they should be, drawn thin and dark. The ground lies under the lowest joint, at right angles to
    those who stand straight, so that a camera that looks down does not make them lean; else level with the camera.
    """
    picture = np.full((size_wh[1], size_wh[0], 3), 255, np.uint8)
    level = levelling(truth_cam_m or people_cam_m, skeleton)
    everyone = [np.asarray(joints, np.float64) @ level.T for joints in (*people_cam_m, *truth_cam_m)]
    scene = Scene.around(everyone, view, size_wh)
    scene.draw_ground(picture)
    if not everyone:
        _text(picture, (size_wh[0] / 2, size_wh[1] * 0.42), "no person found", 24, MUTED, "mm")
        return picture
    for joints in everyone:
        scene.draw_shadow(picture, joints, skeleton)
    scene.draw_people(picture, everyone[: len(people_cam_m)], everyone[len(people_cam_m) :], skeleton)
    if numbers and len(people_cam_m) > 1:
        scene.draw_numbers(picture, everyone[: len(people_cam_m)])
    return picture


def combined_panel(
    image: np.ndarray,
    people_px: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    depth_m: np.ndarray | None,
    people_cam_m: Sequence[np.ndarray],
    *,
    boxes_px: Sequence[np.ndarray] = (),
    keypoint_skeleton: Skeleton = COCO_17,
    skeleton: Skeleton = H36M_17,
    title: str = "",
) -> np.ndarray:
    """The 2x2 panel: the image, its 2D keypoints, its depth map, its people in 3D. Shapes as in the single pictures."""
    height, width = image.shape[:2]
    small_wh = [max(round(side * TILE_PX / max(width, height)), 1) for side in (width, height)]
    tile_wh = (max(small_wh[0], LEAST_TILE_WH[0]), max(small_wh[1], LEAST_TILE_WH[1]))
    small = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA)
    scale = np.array(small_wh, np.float64) / (width, height)
    overlay = draw_keypoints(
        small,
        [(np.asarray(points) + 0.5) * scale - 0.5 for points in people_px],
        scores,
        keypoint_skeleton,
        [np.asarray(box) * np.tile(scale, 2) for box in boxes_px] if len(boxes_px) > 1 else (),
    )
    count = len(people_px)
    people = "no person" if not count else "1 person" if count == 1 else f"{count} people"
    tiles = [
        (_on_tile(small, tile_wh), title or "input", f"{width} x {height} px", None),
        (_on_tile(overlay, tile_wh), "2D keypoints", people, SIDE_COLOURS_ON_PHOTO),
        (
            _on_tile(draw_depth(depth_m, (small_wh[0], small_wh[1])), tile_wh),
            "depth",
            "" if depth_m is None else "metres",
            None,
        ),
        (draw_pose3d(people_cam_m, tile_wh, skeleton), "3D pose", "metres", SIDE_COLOURS),
    ]
    shown = [framed(*tile) for tile in tiles]
    return grid([shown[:2], shown[2:]])


def visualize_comparison(
    image: np.ndarray | None,
    keypoints_px: np.ndarray | None,
    keypoint_score: np.ndarray | None,
    predicted_cam_m: np.ndarray,
    true_cam_m: np.ndarray,
    *,
    skeleton: Skeleton = H36M_17,
    keypoint_skeleton: Skeleton = COCO_17,
    title: str = "",
    tile_px: int = 420,
) -> np.ndarray:
    """Input with its 2D keypoints, then prediction (coloured) over truth (dark), roots together, from two sides.

    image: uint8 [H W 3] or None. keypoints_px [Jin 2] in its pixels, keypoint_score [Jin], or None. predicted_cam_m,
    true_cam_m: [J 3]. The mean distance of the joints after putting the roots together stands in the title, in mm.
    """
    root = skeleton.root_index
    predicted = predicted_cam_m - predicted_cam_m[root] + true_cam_m[root]
    error_mm = 1e3 * float(np.nanmean(np.linalg.norm(predicted - true_cam_m, axis=-1)))
    size = (tile_px, tile_px)
    first = _square(image, tile_px, keypoints_px, keypoint_score, keypoint_skeleton)
    side_front = draw_pose3d([predicted], size, skeleton, truth_cam_m=[true_cam_m])
    other_side = draw_pose3d([predicted], size, skeleton, truth_cam_m=[true_cam_m], view=View(yaw_deg=-50.0))
    tiles = [
        framed(first, title or "input", "2D keypoints", None),
        framed(side_front, f"error {error_mm:.0f} mm", "dark: truth", SIDE_COLOURS),
        framed(other_side, "other side", "dark: truth", SIDE_COLOURS),
    ]
    return grid([tiles])


def fig_to_image(figure: Any) -> np.ndarray:
    """A matplotlib figure -> uint8 [h w 3] RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


# --- 2D ----------------------------------------------------------------------------------------------------------


def encode_png(picture: np.ndarray) -> bytes:
    """uint8 [h w 3] RGB -> the file's bytes."""
    done, buffer = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), PNG)
    assert done
    return buffer.tobytes()


def shrunk(image: np.ndarray, limit: int) -> tuple[np.ndarray, float]:
    """A copy no longer than `limit`, and its scale."""
    scale = min(1.0, limit / max(image.shape[:2]))
    if scale == 1.0:
        return image.copy(), 1.0
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _unit(picture: np.ndarray) -> float:
    """Line widths go with the picture: 1.0 for a tile of TILE_PX."""
    return max(max(picture.shape[:2]) / TILE_PX, 0.5)


def _draw_bones_2d(
    layer: np.ndarray, opacity: np.ndarray, points: np.ndarray, score: np.ndarray, skeleton: Skeleton, unit: float
) -> None:
    """Into a colour layer and its opacity, the surest last."""
    strength = np.clip(np.nan_to_num(score), 0, 1)
    thick, radius = max(round(3 * unit), 1), 4.0 * unit
    bones = sorted(skeleton.bones, key=lambda bone: min(strength[list(bone)]))
    for halo in (True, False):  # all the dark edges first, so that no edge lies over a neighbouring bone
        for parent, child in bones:
            if not np.isfinite(points[[parent, child]]).all():
                continue
            colour = INK if halo else SIDE_COLOURS_ON_PHOTO[skeleton.sides[child]]
            width = thick + (2 * max(round(unit), 1) if halo else 0)
            alpha = _opacity(min(strength[parent], strength[child]))
            for canvas, value in ((layer, colour), (opacity, (alpha,))):
                cv2.line(canvas, _subpixel(points[parent]), _subpixel(points[child]), value, width, cv2.LINE_8, 4)
        for joint in np.argsort(strength, kind="stable"):
            if np.isfinite(points[joint]).all():
                colour = INK if halo else SIDE_COLOURS_ON_PHOTO[skeleton.sides[joint]]
                grown = round((radius + (unit if halo else 0.0)) * 16)
                for canvas, value in ((layer, colour), (opacity, (_opacity(strength[joint]),))):
                    cv2.circle(canvas, _subpixel(points[joint]), grown, value, -1, cv2.LINE_8, 4)


def _opacity(strength: float) -> int:
    return round(255 * (FAINTEST + (1 - FAINTEST) * float(strength)))


def _subpixel(point: np.ndarray) -> tuple[int, int]:
    """Pixel coordinates for OpenCV with 4 bits after the point, held within what it can draw."""
    # Plain numbers: called a thousand times a panel, where NumPy's clip takes longer than the line does.
    x, y = (max(-(2.0**20), min(float(value) * 16, 2.0**20)) for value in point)
    return round(x), round(y)


def _blend(picture: np.ndarray, layer: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    alpha = cv2.cvtColor(cv2.GaussianBlur(opacity, (3, 3), 0.6), cv2.COLOR_GRAY2RGB)
    layer = cv2.dilate(layer, np.ones((3, 3), np.uint8)) * (layer == 0) + layer  # colour under the softened edges
    return cv2.add(cv2.multiply(layer, alpha, scale=1 / 255), cv2.multiply(picture, 255 - alpha, scale=1 / 255))


def _draw_box(picture: np.ndarray, box: np.ndarray, label: str, unit: float) -> None:
    x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
    cv2.rectangle(picture, (x0, y0), (x1, y1), PAPER, max(round(unit), 1), cv2.LINE_AA)
    side = round(20 * unit)
    x0, y0 = int(np.clip(x0, 0, picture.shape[1] - side)), int(np.clip(y0, 0, picture.shape[0] - side))
    picture[y0 : y0 + side, x0 : x0 + side] = INK
    _text(picture, (x0 + side / 2, y0 + side / 2), label, round(15 * unit), PAPER, "mm")


def _banner(picture: np.ndarray, message: str) -> None:
    height, width = picture.shape[:2]
    size = max(round(min(24 * _unit(picture), width / 12)), 8)
    top = height // 2 - size
    picture[max(top, 0) : top + 2 * size] //= 3
    _text(picture, (width / 2, height / 2), message, size, PAPER, "mm")


# --- depth -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _colour_map() -> np.ndarray:
    """uint8 [256 3] RGB, OpenCV's viridis."""
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(ramp[:, 0, ::-1])


def _depth_range(depth_m: np.ndarray) -> tuple[float, float]:
    sparse = depth_m[:: max(depth_m.shape[0] // 200, 1), :: max(depth_m.shape[1] // 200, 1)]
    known = sparse[sparse > 0]
    if not known.size:
        known = depth_m[depth_m > 0]
    near, far = np.percentile(known, [1, 95])
    near, far = min(float(near), 30.0), min(float(far), 40.0)
    return near, max(far, near * 1.2)


def _draw_depth_scale(picture: np.ndarray, near: float, far: float) -> None:
    """A bar at the right edge, near at the bottom, with ticks at round metres."""
    height, width = picture.shape[:2]
    top, bottom = max(round(height * 0.08), 36), round(height * 0.92)
    right, bar = width - 14, 16
    if bottom - top < TICK_PX or right < 4 * bar:
        return  # no room: a panorama's strip
    ground = picture[max(top - 34, 0) : bottom + 12, max(right - bar - 58, 0) :]
    ground[:] = (ground * 0.3).astype(np.uint8)
    ramp = np.linspace(0, 255, bottom - top).astype(np.uint8)
    picture[top:bottom, right - bar : right] = _colour_map()[ramp][:, None]
    _text(picture, (right, top - 19), "m", TICK_TEXT_PX, PAPER, "rm")
    last = np.inf
    for tick in _round_numbers(near, far):
        y = bottom - (bottom - top) * np.log(tick / near) / np.log(far / near)
        if last - y < TICK_PX:
            continue
        last = y
        cv2.line(picture, (right - bar - 5, round(y)), (right - bar, round(y)), PAPER, 1)
        _text(picture, (right - bar - 8, y), f"{tick:g}", TICK_TEXT_PX, PAPER, "rm")


def _round_numbers(low: float, high: float) -> list[float]:
    steps = [m * 10.0**e for e in range(-3, 4) for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)]
    within = [step for step in steps if low * 0.999 <= step <= high * 1.001]
    return within or [float(f"{low:.2g}")]


# --- 3D ----------------------------------------------------------------------------------------------------------


def levelling(people_cam_m: Sequence[np.ndarray], skeleton: Skeleton) -> np.ndarray:
    """[3 3]: camera frame -> x right, y up along the mean of those who stand, z away."""
    return level_with(upwards(people_cam_m, skeleton))


def upwards(people_cam_m: Sequence[np.ndarray], skeleton: Skeleton) -> np.ndarray:
    """Unit [3], camera frame: which way is up, by the mean of those who stand straight; else the camera's own."""
    found = [_standing_up(np.asarray(joints, np.float64), skeleton) for joints in people_cam_m]
    up = np.mean([up for up in found if up is not None] or [CAMERA_UP], axis=0)
    return up / np.linalg.norm(up)


def level_with(up: np.ndarray) -> np.ndarray:
    """[3 3]: camera frame -> x right, y up, z away; `up` as of `upwards`."""
    right = np.cross([0.0, 0.0, 1.0], up)  # the camera's x, made level
    right /= np.linalg.norm(right)
    return np.stack([right, up, np.cross(up, right)])


def _standing_up(joints_cam_m: np.ndarray, skeleton: Skeleton) -> np.ndarray | None:
    """Unit [3] from feet to shoulders of a person who stands straight, not far from the camera's own up; else None."""
    names = [f"{side}_{part}" for part in ("ankle", "hip", "shoulder") for side in ("left", "right")]
    if not set(names) <= set(skeleton.joints):
        return None
    feet, hips, shoulders = joints_cam_m[[skeleton.index(name) for name in names]].reshape(3, 2, 3).mean(axis=1)
    legs, trunk, whole = (part / np.linalg.norm(part) for part in (hips - feet, shoulders - hips, shoulders - feet))
    straight = legs @ trunk > np.cos(np.radians(20)) and -whole[1] > np.cos(np.radians(35))
    return whole if straight else None


@dataclass(frozen=True, eq=False)
class Scene:
    """A level ground grid in metres and the view of it that fits a picture."""

    low: np.ndarray  # [3] x, ground, z: the near left corner
    high: np.ndarray  # [3] x, top, z: the far right corner
    step: float  # of the grid, metres
    rotation: np.ndarray  # [3 3] x right, y up, z away -> the same as seen by the viewer
    distance: float  # of the viewer from the middle, metres
    scale: float  # pixels per metre at the middle
    shift: np.ndarray  # [2] pixels

    @staticmethod
    def around(
        everyone: Sequence[np.ndarray], view: View, size_wh: tuple[int, int], *, foot_m: float = FOOT_M
    ) -> Scene:
        """Around people ([J 3], y up), or two metres of empty ground, which lies `foot_m` under the lowest point."""
        points = np.concatenate([*everyone]) if everyone else np.empty((0, 3))
        points = points[np.isfinite(points).all(axis=-1)]
        if not len(points):
            points = np.array([[-0.6, 0.0, 2.4], [0.6, 1.7, 3.6]])
        ground = points[:, 1].min() - foot_m
        margin = 0.35
        extent = max(np.ptp(points[:, 0]), np.ptp(points[:, 2])) + 2 * margin
        step = next((s for s in (0.5, 1.0, 2.0, 5.0, 10.0) if extent / s <= 8), 20.0)
        low, high = points.min(0) - margin, points.max(0) + margin
        low[[0, 2]] = np.floor(low[[0, 2]] / step) * step
        high[[0, 2]] = np.ceil(high[[0, 2]] / step) * step
        low[1], high[1] = ground, max(points[:, 1].max(), ground + 0.8)
        scene = Scene(low, high, step, _turned(view), 4.0 * float(np.linalg.norm(high - low)), 1.0, np.zeros(2))
        return scene._fitted(size_wh, points)

    def _fitted(self, size_wh: tuple[int, int], points: np.ndarray) -> Scene:
        (x0, ground, z0), (x1, _, z1) = self.low, self.high
        corners = np.array([[x, ground, z] for x in (x0, x1) for z in (z0, z1)])
        seen = self.project(np.concatenate([corners, points]))
        low, high = seen.min(0), seen.max(0)
        room = np.array(size_wh) - (96, 100)  # the ticks and names stand outside the grid
        scale = float((room / np.maximum(high - low, 1e-6)).min())
        shift = np.array(size_wh) / 2 - scale * (low + high) / 2 - (0, 14)
        return Scene(self.low, self.high, self.step, self.rotation, self.distance, scale, shift)

    @property
    def middle(self) -> np.ndarray:
        return (self.low + self.high) / 2

    def seen(self, points: np.ndarray) -> np.ndarray:
        """[..., 3] -> [..., 3] as the viewer has it: right, up, away; metres from the middle."""
        return (points - self.middle) @ self.rotation.T

    def project(self, points: np.ndarray) -> np.ndarray:
        """[..., 3] -> [..., 2] pixels."""
        seen = self.seen(points)
        flat = seen[..., :2] * [1.0, -1.0] / (1.0 + seen[..., 2:] / self.distance)
        return flat * self.scale + self.shift

    def draw_ground(self, picture: np.ndarray) -> None:
        (x0, ground, z0), (x1, _, z1) = self.low, self.high
        xs = np.linspace(x0, x1, round((x1 - x0) / self.step) + 1)
        zs = np.linspace(z0, z1, round((z1 - z0) / self.step) + 1)
        floor = [[x0, ground, z0], [x1, ground, z0], [x1, ground, z1], [x0, ground, z1]]
        outline = np.rint(self.project(np.array(floor)) * 16).astype(np.int32)
        cv2.fillPoly(picture, [outline], (245, 246, 248), cv2.LINE_AA, 4)
        for x in xs:
            self._line(picture, [x, ground, z0], [x, ground, z1])
        for z in zs:
            self._line(picture, [x0, ground, z], [x1, ground, z])
        self._ticks(picture, xs, zs)

    def _ticks(self, picture: np.ndarray, xs: np.ndarray, zs: np.ndarray) -> None:
        """Metres along the two near edges, and heights at the pole on the far side."""
        (x0, ground, z0), (x1, top, z1) = self.low, self.high
        near_z = min((z0, z1), key=lambda z: self.seen(np.array([self.middle[0], ground, z]))[2])
        near_x = min((x0, x1), key=lambda x: self.seen(np.array([x, ground, self.middle[2]]))[2])
        middle = self.project(np.array([self.middle[0], ground, self.middle[2]]))
        # Neither edge labels the corner they share: the two numbers would lie over each other.
        along_x = [(x, np.array([x, ground, near_z])) for x in xs if x != near_x]
        along_z = [(z, np.array([near_x, ground, z])) for z in zs if z != near_z]
        corner = self.project(np.array([near_x, ground, near_z]))
        self._labels(picture, along_x, "x", middle, corner)
        self._labels(picture, along_z, "depth", middle, corner)
        far_x, far_z = x0 + x1 - near_x, z0 + z1 - near_z
        # Heights at the side corner that is farther from the ticks of both edges.
        x, z = max(((far_x, near_z), (near_x, far_z)), key=lambda c: self.seen(np.array([c[0], ground, c[1]]))[2])
        foot = np.array([x, ground, z])
        heights = np.arange(0.5, top - ground + 0.05, 0.5 if top - ground < 3 else 1.0)
        if not len(heights):
            return
        self._line(picture, foot, foot + [0, heights[-1], 0])
        outward = np.sign(self.project(foot)[0] - middle[0])
        for height in heights:
            at = self.project(foot + [0, height, 0])
            cv2.line(picture, _subpixel(at - [4, 0]), _subpixel(at + [4, 0]), FAINT, 1, cv2.LINE_AA, 4)
            _text(picture, at + [outward * 8, 0], f"{height:g}", TICK_TEXT_PX, MUTED, "rm" if outward < 0 else "lm")

    def _labels(
        self,
        picture: np.ndarray,
        ticks: list[tuple[float, np.ndarray]],
        name: str,
        middle: np.ndarray,
        corner: np.ndarray,
    ) -> None:
        """Along one edge, outside the grid. ticks: (metres, place). corner: what it shares with the other edge, px."""
        places = self.project(np.array([place for _, place in ticks]))
        span = places[-1] - places[0]
        along = span / max(float(np.linalg.norm(span)), 1e-6)
        outward = np.array([-along[1], along[0]])
        outward *= np.sign(outward @ (places.mean(0) - middle)) or 1.0
        every = max(int(np.ceil(32 * len(ticks) / max(float(np.linalg.norm(span)), 1.0))), 1)
        for (value, _), at in list(zip(ticks, places, strict=True))[::every]:
            _text_beside(picture, at + outward * 5, f"{value:g}", TICK_TEXT_PX, MUTED, outward)
        if abs(outward[0]) > END_ON:  # beside the ticks it would be off the picture
            _text(picture, corner + [0, 16], f"{name} (m)", TICK_TEXT_PX, INK, "mm")
        else:
            at = (places[0] + places[-1]) / 2 + outward * 38
            _text_beside(picture, at, f"{name} (m)", TICK_TEXT_PX, INK, outward)

    def _line(self, picture: np.ndarray, start: Any, end: Any) -> None:
        a, b = self.project(np.array([start, end], np.float64))
        cv2.line(picture, _subpixel(a), _subpixel(b), FAINT, 1, cv2.LINE_AA, 4)

    def draw_shadow(self, picture: np.ndarray, joints: np.ndarray, skeleton: Skeleton) -> None:
        """The bones dropped on the ground: they say how far away each limb is."""
        flat = self.project(np.stack([joints[:, 0], np.full(len(joints), self.low[1]), joints[:, 2]], axis=-1))
        for parent, child in skeleton.bones:
            if np.isfinite(flat[[parent, child]]).all():
                a, b = _subpixel(flat[parent]), _subpixel(flat[child])
                cv2.line(picture, a, b, (222, 225, 229), self._width(0.05), cv2.LINE_AA, 4)

    def draw_people(
        self, picture: np.ndarray, people: Sequence[np.ndarray], truth: Sequence[np.ndarray], skeleton: Skeleton
    ) -> None:
        """All bones of all people, the farthest first."""
        strokes = []
        for joints, thickness, colours in (
            *((joints, 0.036, SIDE_COLOURS) for joints in people),
            *((joints, 0.013, dict.fromkeys(SIDE_COLOURS, TRUTH_COLOUR)) for joints in truth),
        ):
            depth, flat = self.seen(joints)[:, 2], self.project(joints)
            for parent, child in skeleton.bones:
                if np.isfinite(flat[[parent, child]]).all():
                    away = float(depth[[parent, child]].mean())
                    strokes.append((away, flat[parent], flat[child], thickness, colours[skeleton.sides[child]]))
        for _, start, end, thickness, colour in sorted(strokes, key=lambda stroke: -stroke[0]):
            width = self._width(thickness)
            cv2.line(picture, _subpixel(start), _subpixel(end), PAPER, width + 2, cv2.LINE_AA, 4)
            cv2.line(picture, _subpixel(start), _subpixel(end), colour, width, cv2.LINE_AA, 4)
            for end_point in (start, end):
                cv2.circle(picture, _subpixel(end_point), round(width * 10), colour, -1, cv2.LINE_AA, 4)

    def draw_numbers(self, picture: np.ndarray, people: Sequence[np.ndarray]) -> None:
        """Above the heads; one that would lie over another stands above it."""
        taken: list[np.ndarray] = []
        for number, joints in enumerate(people, start=1):
            if np.isfinite(joints).all(axis=-1).any():
                at = self.project(joints[np.nanargmax(joints[:, 1])]) - [0, 14]
                while any((np.abs(at - other) < (10 * len(str(number)), 15)).all() for other in taken):
                    at = at - [0, 5]
                taken.append(at)
                _text(picture, at, str(number), TICK_TEXT_PX, INK, "mm")

    def _width(self, metres: float) -> int:
        return int(np.clip(round(metres * self.scale), 2, 14))


def _turned(view: View) -> np.ndarray:
    yaw, pitch = np.radians([view.yaw_deg, view.pitch_deg])
    about_vertical = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    raised = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return raised @ about_vertical


# --- layout and text ---------------------------------------------------------------------------------------------


def _on_tile(picture: np.ndarray, tile_wh: tuple[int, int]) -> np.ndarray:
    """In the middle of a grey tile that is no smaller."""
    tile = np.full((tile_wh[1], tile_wh[0], 3), 60, np.uint8)
    height, width = picture.shape[:2]
    top, left = (tile_wh[1] - height) // 2, (tile_wh[0] - width) // 2
    tile[top : top + height, left : left + width] = picture
    return tile


def _square(
    image: np.ndarray | None, side: int, keypoints_px: np.ndarray | None, score: np.ndarray | None, skeleton: Skeleton
) -> np.ndarray:
    """The input on a square tile, its keypoints drawn; the keypoints alone where there is no image."""
    if image is None:
        image = np.full((side, side, 3), 60, np.uint8)
        if keypoints_px is not None:
            low, high = np.nanmin(keypoints_px, 0), np.nanmax(keypoints_px, 0)
            grow = 0.8 * side / max(float((high - low).max()), 1e-6)
            keypoints_px = (keypoints_px - (low + high) / 2) * grow + side / 2
    scale = side / max(image.shape[:2])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if keypoints_px is not None:
        score = np.ones(len(keypoints_px)) if score is None else score
        small = draw_keypoints(small, [(keypoints_px + 0.5) * scale - 0.5], [score], skeleton)
    return _on_tile(small, (side, side))


def framed(tile: np.ndarray, title: str, note: str, legend: dict[str, Colour] | None = None) -> np.ndarray:
    """A tile under its title line, with the colours of left and right where there is a legend."""
    width = tile.shape[1]
    bar = np.full((TITLE_PX, width, 3), 255, np.uint8)
    right = width - 4.0
    if legend is not None:
        for side in ("right", "left"):
            right -= _text(bar, (right, TITLE_PX / 2), side, 16, INK, "rm") + 6
            cv2.circle(bar, (round(right) - 6, TITLE_PX // 2), 6, legend[side], -1, cv2.LINE_AA)
            right -= 22
    end = 4 + _text(bar, (4, TITLE_PX / 2), _shortened(title, 22, round(right) - 8), 22, INK, "lm")
    if _text_width(note, 16) + end + 14 <= right:
        _text(bar, (end + 12, TITLE_PX / 2 + 2), note, 16, MUTED, "lm")
    tile = cv2.rectangle(tile.copy(), (0, 0), (width - 1, tile.shape[0] - 1), FAINT, 1)
    return np.concatenate([bar, tile])


def grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Tiles of one size, row by row, on one white sheet."""
    height, width = rows[0][0].shape[:2]
    sheet_wh = len(rows[0]) * (width + GAP_PX) + GAP_PX, len(rows) * (height + GAP_PX) + GAP_PX
    sheet = np.full((sheet_wh[1], sheet_wh[0], 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = GAP_PX + r * (height + GAP_PX), GAP_PX + c * (width + GAP_PX)
            sheet[top : top + height, left : left + width] = tile
    return sheet


@lru_cache(maxsize=16)
def _font(size: int, is_plain: bool) -> Any:
    """Pillow's own, so that every machine draws the same; for names with other letters the one of matplotlib."""
    found = None if is_plain else find_spec("matplotlib")
    path = Path(found.origin or "").parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if found else Path()
    return ImageFont.truetype(str(path), size) if path.is_file() else ImageFont.load_default(size)


@lru_cache(maxsize=512)
def _letters(text: str, size: int) -> np.ndarray:
    """float32 [h w] in 0..1: the text, cut to its width, over the full height of a line."""
    font = _font(size, text.isascii())
    ascent, descent = font.getmetrics()
    mask, (left, top) = font.getmask2(text, mode="L", anchor="ls")
    pixels = np.array(mask, dtype=np.float32).reshape(mask.size[::-1]) / 255
    line = np.zeros((ascent + descent, max(mask.size[0], 1)), np.float32)
    first = max(ascent + top, 0)
    shown = pixels[: line.shape[0] - first]
    line[first : first + shown.shape[0]] = shown
    return line


def _shortened(text: str, size: int, width: int) -> str:
    """The text, its middle left out where it is wider than `width` px: the ends of a name tell the most."""
    for keep in range(len(text), 1, -1):
        shown = text if keep == len(text) else f"{text[: (keep + 1) // 2]}...{text[-(keep // 2) :]}"
        if _text_width(shown, size) <= width:
            return shown
    return ""


def _text_width(text: str, size: int) -> int:
    return _letters(text, size).shape[1] if text else 0


def _text_beside(picture: np.ndarray, at: Any, text: str, size: int, colour: Colour, towards: np.ndarray) -> None:
    """Text whose box begins at a point and lies from there in a direction, unit [2]."""
    half = np.array([_text_width(text, size), size]) / 2
    _text(picture, np.asarray(at) + towards * half, text, size, colour, "mm")


def _text(picture: np.ndarray, at: Any, text: str, size: int, colour: Colour, anchor: str) -> int:
    """Write into the picture, cut off at its edges; anchor: l m r, then m (middle). Returns the width."""
    if not text:
        return 0
    letters = _letters(text, size)
    height, width = letters.shape
    x = round(float(at[0]) - {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * width)
    y = round(float(at[1]) - height / 2)
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + width, picture.shape[1]), min(y + height, picture.shape[0])
    if x0 < x1 and y0 < y1:
        alpha = letters[y0 - y : y1 - y, x0 - x : x1 - x, None]
        under = picture[y0:y1, x0:x1]
        picture[y0:y1, x0:x1] = np.rint(under * (1 - alpha) + np.array(colour, np.float32) * alpha).astype(np.uint8)
    return width
