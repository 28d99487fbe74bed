"""Virtual cameras for motion without pictures: where they stand, how they are aimed, for which stretch of a motion.

A camera stands still within a stretch, so that keypoints of the frames around a frame are one camera's; the next
stretch has another. World frame: z up, floor at z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from humanpose3d.camera import Camera

DISTANCE_M, HEIGHT_M = (2.0, 8.0), (0.3, 2.8)  # over the ground, from the stretch's middle; above the floor
FOV_DEG, ROLL_DEG = (35.0, 90.0), 10.0  # along the image's longer side; either way
SIZES_WH = ((1000, 1000), (1280, 960), (1280, 720), (960, 1280), (720, 1280))
STRETCH_FRAMES = (20, 40)  # length of a stretch before it is split, frames
NEAREST_M = 0.7  # camera z below which nobody may come
ROOM = 1.04  # the field of view against what the person just fills
SHIFTED = 0.9  # the person's place in the image, as a share of what there is room for


@dataclass(frozen=True, eq=False)
class Shot:
    """A stretch of a motion, and the camera that films it."""

    first: int
    last: int  # behind it
    camera: Camera
    size_wh: tuple[int, int]


@dataclass(frozen=True)
class _Stand:
    """From where a stretch is filmed, whatever its length."""

    yaw_rad: float
    distance_m: float
    height_m: float
    roll_rad: float
    size_wh: tuple[int, int]
    zoom: float  # 0 to 1: from the narrowest field of view that holds the person to the widest
    shift: np.ndarray  # [2] in -1 to 1: from edge to edge of what there is room for


def film(points_m: np.ndarray, rng: np.random.Generator) -> list[Shot]:
    """The shots of a motion [N P 3], in order, all frames covered.

    A stretch in which the person walks out of the picture is split, each half aimed anew from its own middle, with
    direction, distance and height kept: close cameras film shorter stretches, and no direction is preferred for being
    easier. A single frame that no field of view holds is filmed at the widest.
    """
    shots: list[Shot] = []
    first = 0
    while first < len(points_m):
        last = min(first + int(rng.integers(STRETCH_FRAMES[0], STRETCH_FRAMES[1] + 1)), len(points_m))
        shots += _film_stretch(points_m, first, last, _draw_stand(rng))
        first = last
    return shots


def _draw_stand(rng: np.random.Generator) -> _Stand:
    return _Stand(
        yaw_rad=float(rng.uniform(-np.pi, np.pi)),
        distance_m=float(rng.uniform(*DISTANCE_M)),
        height_m=float(rng.uniform(*HEIGHT_M)),
        roll_rad=float(np.radians(rng.uniform(-ROLL_DEG, ROLL_DEG))),
        size_wh=SIZES_WH[rng.integers(len(SIZES_WH))],
        zoom=float(rng.random()),
        shift=rng.uniform(-1.0, 1.0, 2),
    )


def _film_stretch(points_m: np.ndarray, first: int, last: int, stand: _Stand) -> list[Shot]:
    single = last - first == 1
    camera = _aim(points_m[first:last].reshape(-1, 3), stand, anyway=single)
    if camera is not None:
        return [Shot(first, last, camera, stand.size_wh)]
    middle = (first + last) // 2
    return _film_stretch(points_m, first, middle, stand) + _film_stretch(points_m, middle, last, stand)


def _aim(points_m: np.ndarray, stand: _Stand, *, anyway: bool) -> Camera | None:
    """The camera from that stand with all points [P 3] in its image; None where there is none (or the widest)."""
    middle = points_m.mean(0)
    offset = stand.distance_m * np.array([np.cos(stand.yaw_rad), np.sin(stand.yaw_rad)])
    place = np.array([*(middle[:2] + offset), stand.height_m])
    seen = np.ascontiguousarray((points_m - place).T)
    R = _look_along(middle - place, stand.roll_rad)
    half = np.array(stand.size_wh) / max(stand.size_wh)  # half the image, in units of tan(fov / 2)
    widest, narrowest = (float(np.tan(np.radians(fov) / 2.0)) for fov in (FOV_DEG[1], FOV_DEG[0]))
    for _ in range(2):  # turned onto the middle of the person's outline, which the first turn moves a little
        if (box := _outline(seen, R)) is None:
            break
        R = _turned(R, box.mean(0), stand.roll_rad)
    box = _outline(seen, R)
    needed = np.inf if box is None else float((np.abs(box).max(0) / half).max()) * ROOM
    if needed > widest:
        return _camera(R, place, widest, stand.size_wh) if anyway else None
    narrowest = max(needed, narrowest)
    # The angle, not its tangent, is what is spread evenly.
    tangent = float(np.tan((1 - stand.zoom) * np.arctan(narrowest) + stand.zoom * np.arctan(widest)))
    assert box is not None
    shift = SHIFTED * stand.shift * (half * tangent - np.abs(box).max(0))
    for share in (1.0, 0.5, 0.25):  # turning away also stretches the outline: less where it would be cut
        shifted = _turned(R, share * shift, stand.roll_rad)
        moved = _outline(seen, shifted)
        if moved is not None and (np.abs(moved).max(0) <= half * tangent / ROOM**0.5).all():
            return _camera(shifted, place, tangent, stand.size_wh)
    return _camera(R, place, tangent, stand.size_wh)


def _outline(seen: np.ndarray, R: np.ndarray) -> np.ndarray | None:
    """[2 2]: least and greatest x/z and y/z of points [3 P] relative to the camera; None where one is too near."""
    x, y, z = R @ seen  # a row each: four times as fast to reduce as [P 3]
    if z.min() < NEAREST_M:
        return None
    x /= z
    y /= z
    return np.array([[x.min(), y.min()], [x.max(), y.max()]])


def _look_along(direction: np.ndarray, roll_rad: float) -> np.ndarray:
    """World -> camera: z along the direction, y down but for the roll."""
    a, b, c = direction / np.linalg.norm(direction)
    level = np.hypot(a, b)
    right, down = np.array([b / level, -a / level, 0.0]), np.array([c * a / level, c * b / level, -level])
    cosine, sine = np.cos(roll_rad), np.sin(roll_rad)
    return np.stack([cosine * right - sine * down, sine * right + cosine * down, np.array([a, b, c])])


def _turned(R: np.ndarray, ray: np.ndarray, roll_rad: float) -> np.ndarray:
    """A camera turned so that what was seen at `ray` (x/z, y/z) is on its axis, with that roll."""
    return _look_along(np.array([ray[0], ray[1], 1.0]) @ R, roll_rad)


def _camera(R: np.ndarray, place: np.ndarray, tangent: float, size_wh: tuple[int, int]) -> Camera:
    flat = Camera.from_fov(size_wh, float(np.degrees(2.0 * np.arctan(tangent))))
    return Camera(K=flat.K, R=R, t_m=-R @ place, distortion=flat.distortion)
