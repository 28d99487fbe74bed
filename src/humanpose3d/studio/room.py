"""The room a scene plays in and the four cameras that film it. Seen once per camera, then kept: only people move.

World frame: z up, floor at z = 0, the middle of the floor at the origin. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from humanpose3d.camera import Camera

CAMERA_IDS = (1, 2, 3, 4)
FOCAL_SHARE = 1.22  # focal length over the image's side; Human3.6M's is 1.145
FLOORS, WALLS = ("planks", "tiles"), ("plain", "stripes", "bricks", "panels", "checks")
COARSEST_NOISE_M = 0.25  # grain of the walls' and the floor's unevenness

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Surface:
    pattern: str
    first: Rgb
    second: Rgb
    pitch_m: float


@dataclass(frozen=True)
class Box:
    """A piece of furniture, or a picture, door or window when very thin."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    surface: Surface


@dataclass(frozen=True)
class Room:
    half_x: float
    half_y: float
    height: float
    floor: Surface
    ceiling: Surface
    walls: tuple[Surface, Surface, Surface, Surface]  # at -x, +x, -y, +y
    boxes: tuple[Box, ...]


def random_room(rng: np.random.Generator) -> Room:
    """A furnished room, big enough for the cameras."""
    half_x, half_y, height = float(rng.uniform(3.2, 4.2)), float(rng.uniform(3.6, 4.8)), float(rng.uniform(2.5, 3.1))
    wall = _surface(rng, WALLS, 0.25, 0.6, pale=True)
    walls = tuple(wall if rng.random() < 0.5 else _surface(rng, WALLS, 0.25, 0.6, pale=True) for _ in range(4))
    return Room(
        half_x=half_x,
        half_y=half_y,
        height=height,
        floor=_surface(rng, FLOORS, 0.18, 0.5),
        ceiling=Surface("plain", (235.0, 233.0, 228.0), (220.0, 220.0, 215.0), 1.0),
        walls=walls,  # type: ignore[arg-type]
        boxes=tuple(box for side in range(4) for box in _along_wall(side, half_x, half_y, height, rng)),
    )


def _surface(
    rng: np.random.Generator, patterns: tuple[str, ...], fine: float, coarse: float, pale: bool = False
) -> Surface:
    first = rng.uniform(130, 230, 3) if pale else rng.uniform(60, 190, 3)
    first = first.mean() + 0.6 * (first - first.mean())
    second = np.clip(first * rng.uniform(0.72, 0.92) + rng.uniform(-12, 12, 3), 0, 255)
    return Surface(
        str(rng.choice(patterns)), tuple(first.tolist()), tuple(second.tolist()), float(rng.uniform(fine, coarse))
    )


def _along_wall(side: int, half_x: float, half_y: float, height: float, rng: np.random.Generator) -> list[Box]:
    """Furniture, pictures, a door or a window along one wall, out of the cameras' way."""
    half_wall, half_room = (half_y, half_x) if side < 2 else (half_x, half_y)
    sign = -1.0 if side % 2 == 0 else 1.0
    found = []

    def put(centre: float, width: float, low: float, high: float, depth: float, surface: Surface) -> None:
        away, near = sign * half_room, sign * (half_room - depth)
        span = (centre - width / 2, centre + width / 2)
        first, second = ((min(away, near), max(away, near)), span)
        x, y = (first, second) if side < 2 else (second, first)
        found.append(Box((x[0], y[0], low), (x[1], y[1], high), surface))

    spots = np.linspace(-0.62, 0.62, 4) * half_wall
    for centre in rng.permutation(spots)[: rng.integers(2, 5)]:
        kind, width = rng.choice(("cupboard", "table", "picture", "door", "window")), float(rng.uniform(0.6, 1.1))
        surface = _surface(rng, ("panels", "stripes", "plain"), 0.15, 0.4)
        if kind == "cupboard":
            put(centre, width, 0.0, float(rng.uniform(0.6, 2.0)), float(rng.uniform(0.3, 0.45)), surface)
        elif kind == "table":
            put(centre, width, 0.68, 0.74, 0.5, surface)
            for end in (-1, 1):
                put(centre + end * (width / 2 - 0.05), 0.06, 0.0, 0.68, 0.45, surface)
        elif kind == "door":
            put(centre, 0.9, 0.0, min(2.05, height - 0.2), 0.04, surface)
        else:
            low = float(rng.uniform(0.9, 1.3))
            put(centre, width, low, low + float(rng.uniform(0.4, 0.9)), 0.03, surface)
    return found


# ------------------------------------------------------------------------------------------------------- cameras


def make_cameras(rng: np.random.Generator, size: int, spread: float = 1.0) -> dict[int, Camera]:
    """Four calibrated cameras in the corners, looking in. `spread` scales how far each is from its usual place.

    Images are `size` x `size` pixels; the pose does not depend on it.
    """
    corners = {1: (2.35, 2.75), 2: (-2.35, 2.75), 3: (2.35, -2.75), 4: (-2.35, -2.75)}
    cameras = {}
    for camera_id, (x, y) in corners.items():
        centre = np.array([x, y, 1.62]) + spread * rng.uniform([-0.15, -0.15, -0.14], [0.15, 0.15, 0.14])
        target = np.array([0.0, 0.0, 0.88]) + spread * rng.uniform(-0.08, 0.08, 3)
        R = _look_at(centre, target, roll_rad=spread * float(rng.normal(0.0, 0.01)))
        focal_px = (
            FOCAL_SHARE
            * size
            * (1 + spread * rng.uniform(-0.02, 0.02))
            * np.array([1.0, 1 + rng.uniform(-0.002, 0.002)])
        )
        principal_px = (size - 1) / 2 + size * spread * rng.uniform(-0.015, 0.015, 2)
        cameras[camera_id] = Camera.create(focal_px, principal_px, R, -R @ centre)
    return cameras


def _look_at(centre: np.ndarray, target: np.ndarray, roll_rad: float) -> np.ndarray:
    """World -> camera rotation of a camera at `centre` that looks at `target`, upright up to `roll_rad`."""
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll_rad), np.sin(roll_rad)
    return np.stack([c * right + s * down, c * down - s * right, forward])


# ------------------------------------------------------------------------------------------ the empty room, seen


def see_room(room: Room, camera: Camera, rays: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [h w 3] colour 0 to 255, float32 [h w] distance along the ray) for camera-frame unit rays [3 h w].

    The rays are those of an upright grid without distortion: columns share x / z, rows y / z.
    """
    centre = (-camera.R.T @ camera.t_m).astype(np.float32)
    ways = (camera.R.T.astype(np.float32) @ rays.reshape(3, -1)).reshape(rays.shape)  # world
    flat_colour, flat_distance = _shell(room, centre, ways.reshape(3, -1), rng)
    colour, distance = flat_colour.reshape(*rays.shape[1:], 3), flat_distance.reshape(rays.shape[1:])
    across, down = rays[0, 0] / rays[2, 0], rays[1, :, 0] / rays[2, :, 0]
    for box in room.boxes:
        rows, columns = _where(box, camera, across, down)
        _draw_box(box, centre, ways[:, rows, columns], colour[rows, columns], distance[rows, columns])
    return colour, distance


def _where(box: Box, camera: Camera, across: np.ndarray, down: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the grid that can show the box."""
    corners = np.array(np.meshgrid(*zip(box.low, box.high, strict=True))).reshape(3, -1).T @ camera.R.T + camera.t_m
    if corners[:, 2].min() < 0.1:
        return slice(None), slice(None)
    rays = corners[:, :2] / corners[:, 2:]
    (left, top), (right, bottom) = rays.min(0), rays.max(0)
    rows = slice(max(int(np.searchsorted(down, top)) - 1, 0), int(np.searchsorted(down, bottom)) + 1)
    return rows, slice(max(int(np.searchsorted(across, left)) - 1, 0), int(np.searchsorted(across, right)) + 1)


def _shell(room: Room, centre: np.ndarray, ways: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Floor, ceiling and walls."""
    bounds = ((-room.half_x, room.half_x), (-room.half_y, room.half_y), (0.0, room.height))
    surfaces = (room.walls[0], room.walls[1], room.walls[2], room.walls[3], room.floor, room.ceiling)
    grain = _Unevenness(rng)
    reach = []
    for axis in range(3):
        bound = np.where(ways[axis] > 0, bounds[axis][1], bounds[axis][0]).astype(np.float32)
        safe = np.where(np.abs(ways[axis]) < 1e-9, np.float32(1e-9), ways[axis])
        reach.append((bound - centre[axis]) / safe)
    hit_axis = np.argmin(reach, axis=0)
    distance = np.min(reach, axis=0).astype(np.float32)
    points = centre[:, None] + ways * distance
    colour = np.zeros((ways.shape[1], 3), np.float32)
    light = (1.0, 1.0, 0.86, 0.86, 0.94, 1.0)  # walls face the window differently
    for face, surface in enumerate(surfaces):
        axis, positive = divmod(face, 2)
        seen = np.flatnonzero((hit_axis == axis) & ((ways[axis] > 0) == bool(positive)))
        u, v = points[(axis + 1) % 3, seen], points[(axis + 2) % 3, seen]
        if axis == 0:
            u, v = points[1, seen], points[2, seen]
        elif axis == 1:
            u, v = points[0, seen], points[2, seen]
        colour[seen] = pattern(surface, u, v) * (light[face] * grain.at(u, v))[:, None]
        if axis < 2:  # walls darken towards the floor
            colour[seen] *= (0.86 + 0.14 * np.clip(v, 0, 1.2) / 1.2)[:, None]
    return colour, distance


class _Unevenness:
    """Smooth random brightness over a plane, around 1."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.waves = rng.uniform(-1, 1, (10, 2)) * 2 * np.pi / rng.uniform(COARSEST_NOISE_M, 2.5, (10, 1))
        self.phases = rng.uniform(0, 2 * np.pi, 10)

    def at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        total = np.ones_like(u)
        for (a, b), phase in zip(self.waves.astype(np.float32), self.phases.astype(np.float32), strict=True):
            total += 0.010 * np.sin(a * u + b * v + phase)
        return total


def pattern(surface: Surface, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """float32 [N 3] colour of a surface at its own coordinates u (along), v (up), metres."""
    pitch = surface.pitch_m
    if surface.pattern == "planks":
        row = np.floor(u / pitch)
        share = 0.5 + 0.5 * np.sin(row * 12.9 + np.floor(v / 1.3 + row * 0.37) * 78.2)
        share = np.where((u / pitch - row < 0.05) | ((v / 1.3 + row * 0.37) % 1.0 < 0.01), 1.6, share)
    elif surface.pattern == "tiles":
        share = ((np.floor(u / pitch) + np.floor(v / pitch)) % 2) * 0.8
        share = np.where(((u / pitch) % 1.0 < 0.05) | ((v / pitch) % 1.0 < 0.05), 1.5, share)
    elif surface.pattern == "stripes":
        share = ((u / pitch) % 1.0 < 0.5).astype(np.float32)
    elif surface.pattern == "checks":
        share = 0.5 * ((u / pitch) % 1.0 < 0.5) + 0.5 * ((v / pitch) % 1.0 < 0.5)
    elif surface.pattern == "bricks":
        row = np.floor(v / (0.4 * pitch))
        share = np.where(((u / pitch + 0.5 * row) % 1.0 < 0.06) | ((v / (0.4 * pitch)) % 1.0 < 0.14), 1.2, 0.15)
    elif surface.pattern == "panels":
        share = np.where(((u / pitch) % 1.0 < 0.12) | ((v / pitch) % 1.0 < 0.12), 1.0, 0.0)
    else:
        share = np.zeros_like(u)
    first, second = np.array(surface.first, np.float32), np.array(surface.second, np.float32)
    return np.clip(first + share[:, None].astype(np.float32) * (second - first), 0, 255)


def _draw_box(box: Box, centre: np.ndarray, ways: np.ndarray, colour: np.ndarray, distance: np.ndarray) -> None:
    """Where the box is nearer than what was seen so far, see the box. Changes colour and distance in place."""
    safe = np.where(np.abs(ways) < 1e-9, np.float32(1e-9), ways)
    low, high, start = (np.array(side, np.float32)[:, None, None] for side in (box.low, box.high, centre))
    first, second = (low - start) / safe, (high - start) / safe
    entries = np.minimum(first, second)
    if not entries.size:
        return
    enter, leave = entries.max(0), np.maximum(first, second).min(0)
    seen = (enter < leave) & (enter > 0.05) & (enter < distance)
    axis = entries[:, seen].argmax(0)
    points = centre[:, None] + ways[:, seen] * enter[seen]
    u = np.where(axis == 0, points[1], points[0])
    v = np.where(axis == 2, points[1], points[2])
    colour[seen] = pattern(box.surface, u, v) * np.array([0.95, 0.8, 1.05], np.float32)[axis][:, None]
    distance[seen] = enter[seen]
