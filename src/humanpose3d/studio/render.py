"""A person and a stool, ray cast exactly: colour, depth and who is seen where.

A body is made of round cones (two spheres and the cone that joins them), each flattened by its own axes. Every camera
sees a grid of two samples per pixel and axis; the odd samples are the pixel centres, where depth is exact, and a
3 x 3 tent over the grid gives the smooth image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from humanpose3d.camera import Camera, pixel_to_ray, world_to_camera
from humanpose3d.skeletons import H36M_17
from humanpose3d.studio.motion import LEFT, RIGHT, Joints, Stool
from humanpose3d.studio.people import Clothes, Person
from humanpose3d.studio.room import Room, see_room

KEY_LIGHT, FILL_LIGHT = np.array([0.35, 0.5, 0.79]), np.array([-0.6, -0.4, 0.69])  # towards the lamps, world
NEAREST_M = 0.15  # parts closer to the lens than this are not drawn
SENSOR_NOISE = 1.8  # standard deviation, of 255
STOOL_PARTS = frozenset({"seat", "leg"})


@dataclass(frozen=True, eq=False)
class Part:
    """A round cone from `start` to `end`, world frame, metres."""

    kind: str  # what it is dressed in: a key of `_DRESS`
    start: np.ndarray  # [3]
    end: np.ndarray  # [3]
    start_radius: float
    end_radius: float
    axes: np.ndarray  # [3 3], rows right, forward, up of the body part it belongs to
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)  # along those axes; the radii hold where it is 1


@dataclass(frozen=True, eq=False)
class View:
    """One camera's rays and the empty room they see, on the fine grid of 2 H + 1 by 2 W + 1 samples."""

    camera: Camera
    size: int
    rays: np.ndarray  # float32 [3 h w], unit, camera frame
    colour: np.ndarray  # uint8 [h w 3]
    depth_m: np.ndarray  # float32 [h w], camera z
    floor_m: np.ndarray  # float32 [h w 2], world x, y of the floor seen; NaN elsewhere


def make_view(room: Room, camera: Camera, size: int, rng: np.random.Generator) -> View:
    """The empty room through one camera."""
    side = 2 * size + 1
    grid = np.arange(side) / 2.0 - 0.5
    pixels = np.stack(np.meshgrid(grid, grid), axis=-1)
    flat = pixel_to_ray(pixels, camera)
    rays = np.concatenate([flat, np.ones((side, side, 1))], -1)
    rays = np.moveaxis(rays / np.linalg.norm(rays, axis=-1, keepdims=True), -1, 0).astype(np.float32)
    colour, distance = see_room(room, camera, rays, rng)
    points = camera.R.T @ ((rays * distance).reshape(3, -1) - camera.t_m[:, None])
    floor = np.where(points[2] < 1e-3, points[:2], np.nan).astype(np.float32)
    return View(
        camera=camera,
        size=size,
        rays=rays,
        colour=np.clip(colour, 0, 255).astype(np.uint8),
        depth_m=distance * rays[2],
        floor_m=floor.T.reshape(side, side, 2),
    )


# ------------------------------------------------------------------------------------------- the parts of a body


def body_parts(person: Person, joints: Joints) -> list[Part]:
    """The round cones of a posed person."""
    body, clothes = person.body, person.clothes
    size, girth = body.height, body.girth
    at = {name: joints.h36m[i] for i, name in enumerate(H36M_17.joints)}
    chest, pelvis, head = joints.chest, joints.heading, joints.head
    radius = size * girth
    parts = [
        Part(
            "hips",
            at["left_hip"] + 0.02 * pelvis[2],
            at["right_hip"] + 0.02 * pelvis[2],
            0.051 * radius,
            0.051 * radius,
            pelvis,
            (1.0, 1.08, 1.15),
        ),
        Part(
            "torso",
            at["pelvis"] + 0.02 * pelvis[2],
            at["spine"],
            0.087 * radius,
            0.083 * radius,
            pelvis,
            (1.0, 0.68, 1.0),
        ),
        Part(
            "torso",
            at["spine"],
            at["thorax"] - 0.055 * size * chest[2],
            0.084 * radius,
            0.090 * radius,
            chest,
            (1.05, 0.72, 0.8),
        ),
        Part(
            "torso", at["left_shoulder"], at["right_shoulder"], 0.034 * radius, 0.034 * radius, chest, (1.0, 0.95, 1.0)
        ),
        Part("neck", at["thorax"], joints.head_centre - 0.03 * size * head[2], 0.036 * size, 0.032 * size, chest),
    ]
    for side, name in ((LEFT, "left"), (RIGHT, "right")):
        hip, knee, ankle = at[f"{name}_hip"], at[f"{name}_knee"], at[f"{name}_ankle"]
        shoulder, elbow, wrist = at[f"{name}_shoulder"], at[f"{name}_elbow"], at[f"{name}_wrist"]
        forearm = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        toe = joints.feet[side]
        sole = np.cross(toe, np.cross([0.0, 0.0, 1.0], toe))
        heel = ankle - 0.018 * size * toe - 0.022 * size * sole
        parts += [
            Part("torso", at["thorax"] + 0.028 * size * chest[2], shoulder, 0.030 * size, 0.033 * radius, chest),
            Part("sleeve", shoulder, elbow, 0.032 * radius, 0.025 * radius, chest),
            Part("cuff", elbow, wrist, 0.0255 * radius, 0.0175 * radius, chest),
            Part(
                "hand",
                wrist + 0.012 * size * forearm,
                wrist + 0.062 * size * forearm,
                0.018 * size,
                0.015 * size,
                chest,
            ),
            Part("thigh", hip, knee, 0.048 * radius, 0.035 * radius, pelvis),
            Part("shin", knee, ankle, 0.0365 * radius, 0.024 * radius, pelvis),
            Part("shoe", heel, heel + 0.105 * size * toe - 0.004 * size * sole, 0.0235 * size, 0.0185 * size, pelvis),
        ]
    return parts + _head_parts(clothes, joints, size * body.head_scale)


def _head_parts(clothes: Clothes, joints: Joints, size: float) -> list[Part]:
    """Skull, nose, ears, eyes and hair."""
    head, centre = joints.head, joints.head_centre

    def spot(right: float, forward: float, up: float) -> np.ndarray:
        return centre + size * (np.array([right, forward, up]) @ head)

    parts = [
        Part("face", spot(0, 0, 0.014), spot(0, 0.008, -0.034), 0.050 * size, 0.034 * size, head, (0.88, 1.12, 1.0)),
        Part(
            "hair",
            spot(0, -0.010, 0.016),
            spot(0, -0.013, 0.004),
            0.0505 * size,
            0.049 * size,
            head,
            (0.93, 1.08, 0.98),
        ),
        Part("nose", spot(0, 0.050, 0.002), spot(0, 0.059, -0.013), 0.006 * size, 0.0085 * size, head),
    ]
    for side in (-1, 1):
        parts += [
            Part(
                "ear",
                spot(side * 0.046, -0.003, 0.002),
                spot(side * 0.046, -0.003, -0.010),
                0.010 * size,
                0.008 * size,
                head,
                (0.5, 1.0, 1.0),
            ),
            Part(
                "eye",
                spot(side * 0.0185, 0.0485, 0.008),
                spot(side * 0.0195, 0.0485, 0.008),
                0.0085 * size,
                0.0085 * size,
                head,
                (1.1, 0.8, 0.75),
            ),
        ]
    if clothes.long_hair:
        parts.append(
            Part(
                "hair",
                spot(0, -0.022, 0.0),
                spot(0, -0.038, -0.085),
                0.044 * size,
                0.028 * size,
                head,
                (1.0, 0.75, 1.0),
            )
        )
    return parts


def stool_parts(stool: Stool) -> list[Part]:
    """A round seat on four legs."""
    axes, seat = np.eye(3), np.array([stool.x, stool.y, stool.height - 0.02])
    parts = [Part("seat", seat - [0.01, 0, 0], seat + [0.01, 0, 0], stool.radius, stool.radius, axes, (1.0, 1.0, 0.13))]
    for dx, dy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        way = 0.62 * stool.radius * np.array([dx, dy, 0.0])
        parts.append(Part("leg", seat + way - [0, 0, 0.03], [stool.x, stool.y, 0.0] + 1.25 * way, 0.018, 0.014, axes))
    return parts


# --------------------------------------------------------------------------------------------------- ray casting


@dataclass(frozen=True, eq=False)
class Cone:
    """A part in its own unstretched space, camera at the origin, and where on the grid it can be seen."""

    part: Part
    warp: np.ndarray  # float32 [3 3], camera frame -> unstretched, still camera-centred
    start: np.ndarray  # float32 [3], unstretched
    along: np.ndarray  # float32 [3], start -> end, unstretched
    window: tuple[slice, slice]  # rows, columns of the fine grid


def in_sight(part: Part, view: View) -> Cone | None:
    """The part as seen by the camera; None where it is out of view or too near."""
    camera = view.camera
    axes = part.axes @ camera.R.T  # rows in the camera frame
    warp = (axes.T / np.array(part.stretch)) @ axes
    ends = world_to_camera(np.stack([part.start, part.end]), camera)
    radii = np.array([part.start_radius, part.end_radius]) * max(1.0, *part.stretch)
    if (ends[:, 2] - radii).min() < NEAREST_M:
        return None
    # A sphere's outline reaches at most r / (z - r), widened by how far it is from the axis.
    rays = ends[:, :2] / ends[:, 2:]
    reach = radii / (ends[:, 2] - radii) * np.sqrt(1 + (rays**2).sum(-1)) * 1.02
    focal = np.array([camera.K[0, 0], camera.K[1, 1]])
    middle = rays @ camera.K[:2, :2].T + camera.K[:2, 2]
    low = (2 * (middle - reach[:, None] * focal).min(0) + 1).astype(int) - 1
    high = (2 * (middle + reach[:, None] * focal).max(0) + 1).astype(int) + 3
    side = 2 * view.size + 1
    (x0, y0), (x1, y1) = np.clip(low, 0, side), np.clip(high, 0, side)
    if x0 >= x1 or y0 >= y1:
        return None
    start = warp @ ends[0]
    return Cone(
        part,
        warp.astype(np.float32),
        start.astype(np.float32),
        (warp @ ends[1] - start).astype(np.float32),
        (slice(y0, y1), slice(x0, x1)),
    )


def cast(cone: Cone, rays: np.ndarray) -> np.ndarray:
    """float32 [N]: distance along unit camera rays [3 N] to the part, inf where they miss.

    The closed form of a round cone by Inigo Quilez (iquilezles.org/articles/intersectors), camera at the origin.
    """
    rays = cone.warp @ rays
    length = np.sqrt((rays * rays).sum(0))
    ra, rb = np.float32(cone.part.start_radius), np.float32(cone.part.end_radius)
    start, along = cone.start, cone.along
    rr = ra - rb
    m0, m1, m5 = along @ along, -(along @ start), start @ start
    m7 = (start + along) @ (start + along)
    m2, m3 = (along @ rays) / length, -(start @ rays) / length
    m6 = m3 - m2
    d2 = m0 - rr * rr
    k2 = d2 - m2 * m2
    k1 = d2 * m3 - m1 * m2 + m2 * (rr * ra)
    k0 = d2 * m5 - m1 * m1 + m1 * rr * ra * 2 - m0 * ra * ra
    h = k1 * k1 - k0 * k2
    found = np.full(length.shape, np.inf, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = (-np.sqrt(h) - k1) / k2
        y = m1 - ra * rr + t * m2
        side = (h > 0) & (y > 0) & (y < d2) & (t > 0)
        for shift, square in ((m3, m3 * m3 - m5 + ra * ra), (m6, m6 * m6 - m7 + rb * rb)):
            cap = -shift - np.sqrt(square)
            np.fmin(found, np.where(square > 0, cap, np.inf), out=found)
        found = np.where(side, t, found)
    return found / length


@dataclass(frozen=True, eq=False)
class Picture:
    """What the camera sees, per pixel."""

    image: np.ndarray  # uint8 [H W 3] RGB
    depth_m: np.ndarray  # float32 [H W], camera z at the pixel's centre
    person: np.ndarray  # bool [H W]: the pixel's centre shows the person


def render(view: View, person: Person, joints: Joints, stool: Stool | None, rng: np.random.Generator) -> Picture:
    """The person in the room."""
    parts = body_parts(person, joints) + (stool_parts(stool) if stool else [])
    cones = [cone for part in parts if (cone := in_sight(part, view)) is not None]
    depth, owner = view.depth_m.copy(), np.full(view.depth_m.shape, -1, np.int8)
    for number, cone in enumerate(cones):
        rays = view.rays[:, cone.window[0], cone.window[1]]
        z = cast(cone, rays.reshape(3, -1)).reshape(rays.shape[1:]) * rays[2]
        nearer = z < depth[cone.window]
        np.copyto(depth[cone.window], z, where=nearer)
        np.copyto(owner[cone.window], np.int8(number), where=nearer)
    colour = _with_shadow(view, joints, stool)
    for number, cone in enumerate(cones):
        _paint(cone, number, view, depth, owner, colour, person.clothes, joints)
    is_stool = np.array([cone.part.kind in STOOL_PARTS for cone in cones] + [True])  # last: owner -1, the room
    return Picture(
        image=_develop(colour, view.size, rng),
        depth_m=np.ascontiguousarray(depth[1::2, 1::2]),
        person=~is_stool[owner[1::2, 1::2]],
    )


def _with_shadow(view: View, joints: Joints, stool: Stool | None) -> np.ndarray:
    """The empty room, the floor darker under feet and pelvis."""
    colour = view.colour.copy()
    at = {name: joints.h36m[i] for i, name in enumerate(H36M_17.joints)}
    spots = [(*at["left_ankle"][:2], 0.16, 0.4), (*at["right_ankle"][:2], 0.16, 0.4), (*at["pelvis"][:2], 0.42, 0.25)]
    spots += [(stool.x, stool.y, 0.25, 0.3)] if stool else []
    for x, y, radius, strength in spots:
        centre = world_to_camera(np.array([x, y, 0.0]), view.camera)
        if centre[2] < 0.5:
            continue
        pixel = view.camera.K[:2, :2] @ (centre[:2] / centre[2]) + view.camera.K[:2, 2]
        reach = 2 * (2.0 * radius / centre[2] * view.camera.focal_px)
        side = 2 * view.size + 1
        (x0, y0), (x1, y1) = (np.clip(2 * pixel + 1 + sign * reach, 0, side).astype(int) for sign in (-1, 1))
        window = (slice(y0, y1), slice(x0, x1))
        away = ((view.floor_m[window] - np.array([x, y], np.float32)) ** 2).sum(-1)
        dark = 1 - np.float32(strength) * np.nan_to_num(np.exp(-away / np.float32(radius**2)), nan=0.0)
        colour[window] = (colour[window] * dark[..., None]).astype(np.uint8)
    return colour


def _develop(colour: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [h w 3] fine grid -> uint8 [H W 3] image, with a little sensor noise."""
    tent = np.array([0.25, 0.5, 0.25], np.float32)
    smooth = cv2.sepFilter2D(colour, cv2.CV_16S, tent, tent)[1::2, 1::2]
    noise = rng.standard_normal((size, size, 3), np.float32)
    return np.clip(smooth + np.rint(SENSOR_NOISE * noise), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------- clothes


@dataclass(frozen=True, eq=False)
class _Spots:
    """Visible points of one part, [N] each, for the dress to colour."""

    along: np.ndarray  # metres from the part's start
    share: np.ndarray  # the same, 0 at the start, 1 at the end
    angle: np.ndarray  # rad round the part, 0 towards the body's front, positive to the right
    front: np.ndarray  # cosine between the surface's normal and the body part's forward
    chest: np.ndarray  # [3 N], right, forward, up from the thorax, metres
    pelvis: np.ndarray  # [3 N], from the pelvis
    head: np.ndarray  # [3 N], from the head's centre


def _paint(
    cone: Cone,
    number: int,
    view: View,
    depth: np.ndarray,
    owner: np.ndarray,
    colour: np.ndarray,
    clothes: Clothes,
    joints: Joints,
) -> None:
    """Colours the grid samples that show this part."""
    rows, columns = np.nonzero(owner[cone.window] == number)
    if not len(rows):
        return
    rows, columns = rows + cone.window[0].start, columns + cone.window[1].start
    rays = view.rays[:, rows, columns]
    points = rays * (depth[rows, columns] / rays[2])  # camera frame
    spots, normal = _look_closely(cone, points, view.camera, joints)
    albedo = _DRESS[cone.part.kind](spots, clothes)
    key, fill = (
        np.clip(light @ normal, 0, 1) for light in (KEY_LIGHT.astype(np.float32), FILL_LIGHT.astype(np.float32))
    )
    light = 0.42 + 0.1 * normal[2] + 0.46 * key + 0.2 * fill
    colour[rows, columns] = np.clip(albedo * light, 0, 255).T.astype(np.uint8)


def _look_closely(cone: Cone, points: np.ndarray, camera: Camera, joints: Joints) -> tuple[_Spots, np.ndarray]:
    """(what the dress needs to know, unit normals [3 N] in the world) of camera-frame points [3 N]."""
    part, R = cone.part, camera.R.astype(np.float32)
    local = cone.warp @ points - cone.start[:, None]
    rr = part.start_radius - part.end_radius
    d2 = float(cone.along @ cone.along) - rr * rr
    share = np.clip((cone.along @ local - part.start_radius * rr) / d2, 0, 1)
    normal = cone.warp @ (local - cone.along[:, None] * share)
    normal = R.T @ (normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-9))
    world = R.T @ (points - camera.t_m.astype(np.float32)[:, None])
    at = {name: joints.h36m[H36M_17.index(name)] for name in ("thorax", "pelvis")}
    axes = part.axes.astype(np.float32)

    def seen_from(origin: np.ndarray, frame: np.ndarray) -> np.ndarray:
        return frame.astype(np.float32) @ (world - origin.astype(np.float32)[:, None])

    return _Spots(
        along=share * np.linalg.norm(part.end - part.start),
        share=share,
        angle=np.arctan2(axes[0] @ normal, axes[1] @ normal),
        front=axes[1] @ normal,
        chest=seen_from(at["thorax"], joints.chest),
        pelvis=seen_from(at["pelvis"], joints.heading),
        head=seen_from(joints.head_centre, joints.head),
    ), normal


def _column(colour: tuple[float, float, float]) -> np.ndarray:
    return np.array(colour, np.float32)[:, None]


def _cloth(u: np.ndarray, v: np.ndarray, pattern: str, pitch: float, first: tuple, second: tuple) -> np.ndarray:
    """[3 N] colours of patterned cloth, u around and v along, metres."""
    if pattern == "rings":
        share = (v / pitch) % 1.0 < 0.5
    elif pattern == "lines":
        share = (u / pitch) % 1.0 < 0.4
    elif pattern == "checks":
        share = ((u / pitch) % 1.0 < 0.5) * 0.5 + ((v / pitch) % 1.0 < 0.5) * 0.5
    elif pattern == "dots":
        share = ((u / pitch) % 1.0 - 0.5) ** 2 + ((v / pitch) % 1.0 - 0.5) ** 2 < 0.06
    else:
        share = np.zeros_like(u)
    return _column(first) + (_column(second) - _column(first)) * share.astype(np.float32)


def _over(base: np.ndarray, where: np.ndarray, colour: tuple[float, float, float] | np.ndarray) -> np.ndarray:
    return np.where(where, np.asarray(colour, np.float32).reshape(3, 1), base)


def _dress_torso(spots: _Spots, clothes: Clothes) -> np.ndarray:
    right, _, up = spots.chest
    base = _cloth(right, up, clothes.shirt_pattern, clothes.pattern_pitch_m, clothes.shirt, clothes.shirt_second)
    in_front = spots.front > 0.15
    behind = spots.front < -0.15
    base = _over(base, behind & (up > -0.13), 0.75 * np.array(clothes.shirt_second))
    if clothes.has_buttons:
        base = _over(base, in_front & (np.abs(right) < 0.022), clothes.print_colour)
        base = _over(base, in_front & (np.abs(right) < 0.009) & ((up / 0.085) % 1.0 < 0.25), (30.0, 30.0, 30.0))
        base = _over(
            base, in_front & (right < -0.05) & (right > -0.12) & (up < -0.12) & (up > -0.2), clothes.print_colour
        )
    else:
        badge = in_front & (np.abs(right) < 0.095) & (np.abs(up + 0.20) < 0.07)
        base = _over(base, badge, clothes.print_colour)
        base = _over(base, badge & (np.abs(right) < 0.07) & (np.abs(up + 0.20) % 0.05 < 0.018), clothes.shirt)
    base = _over(base, in_front & (np.abs(right) < 0.055 + 0.7 * up) & (up < 0.06), clothes.skin)
    belt = (spots.pelvis[2] < 0.055) & (spots.pelvis[2] > 0.015)
    base = _over(base, spots.pelvis[2] <= 0.015, clothes.trousers)
    base = _over(base, belt, (42.0, 34.0, 28.0))
    return _over(base, belt & in_front & (np.abs(spots.pelvis[0]) < 0.028), (205.0, 190.0, 120.0))


def _dress_hips(spots: _Spots, clothes: Clothes) -> np.ndarray:
    right, _, up = spots.pelvis
    base = _cloth(
        right, up, clothes.trousers_pattern, clothes.pattern_pitch_m, clothes.trousers, clothes.trousers_second
    )
    base = _over(base, (spots.front > 0.2) & (np.abs(right) < 0.01), clothes.trousers_second)
    pocket = (spots.front < -0.1) & (np.abs(np.abs(right) - 0.075) < 0.042) & (np.abs(up + 0.01) < 0.05)
    return _over(base, pocket, clothes.trousers_second)


def _dress_limb(spots: _Spots, clothes: Clothes, shirt: bool, from_m: float, covered: bool) -> np.ndarray:
    """Sleeves and trouser legs: patterned cloth along the limb."""
    first, second, pattern = (
        (clothes.shirt, clothes.shirt_second, clothes.shirt_pattern)
        if shirt
        else (clothes.trousers, clothes.trousers_second, clothes.trousers_pattern)
    )
    if not covered:
        return np.repeat(_column(clothes.skin), len(spots.along), axis=1)
    return _cloth(0.06 * spots.angle, from_m + spots.along, pattern, clothes.pattern_pitch_m, first, second)


def _dress_sleeve(spots: _Spots, clothes: Clothes) -> np.ndarray:
    base = _dress_limb(spots, clothes, shirt=True, from_m=0.0, covered=True)
    return base if clothes.long_sleeves else _over(base, spots.share > 0.6, clothes.skin)


def _dress_cuff(spots: _Spots, clothes: Clothes) -> np.ndarray:
    base = _dress_limb(spots, clothes, shirt=True, from_m=0.29, covered=clothes.long_sleeves)
    return _over(base, spots.share > 0.93, clothes.shirt_second if clothes.long_sleeves else clothes.skin)


def _dress_thigh(spots: _Spots, clothes: Clothes) -> np.ndarray:
    base = _dress_limb(spots, clothes, shirt=False, from_m=0.0, covered=True)
    return base if clothes.long_trousers else _over(base, spots.share > 0.72, clothes.skin)


def _dress_shin(spots: _Spots, clothes: Clothes) -> np.ndarray:
    base = _dress_limb(spots, clothes, shirt=False, from_m=0.43, covered=clothes.long_trousers)
    knee = (spots.share < 0.12) & (spots.front > 0.3)
    return _over(base, knee, clothes.trousers_second if clothes.long_trousers else 0.85 * np.array(clothes.skin))


def _dress_shoe(spots: _Spots, clothes: Clothes) -> np.ndarray:
    base = np.repeat(_column(clothes.shoes), len(spots.along), axis=1)
    base = _over(base, spots.share > 0.8, 0.5 * np.array(clothes.shoes) + 110)
    return _over(base, (spots.share > 0.3) & (spots.share < 0.7) & (spots.along % 0.03 < 0.01), (240.0, 240.0, 240.0))


def _dress_face(spots: _Spots, clothes: Clothes) -> np.ndarray:
    right, forward, up = spots.head
    base = np.repeat(_column(clothes.skin), len(right), axis=1)
    front = forward > 0.02
    base = _over(base, front & (np.abs(np.abs(right) - 0.034) < 0.017) & (np.abs(up - 0.036) < 0.005), clothes.hair)
    base = _over(base, front & (np.abs(right) < 0.027) & (np.abs(up + 0.058) < 0.007), (160.0, 60.0, 62.0))
    cheeks = front & (np.abs(np.abs(right) - 0.045) < 0.015) & (np.abs(up + 0.03) < 0.015)
    base = _over(base, cheeks, 0.92 * np.array(clothes.skin) + np.array([18.0, 0.0, 0.0]))
    hairline = up > 0.062 + 0.25 * np.minimum(forward, 0.06) - 0.6 * np.maximum(-forward, 0)
    return _over(base, hairline | (forward < -0.03), clothes.hair)


def _dress_eye(spots: _Spots, clothes: Clothes) -> np.ndarray:
    right, _, up = spots.head
    white = np.repeat(_column((245.0, 245.0, 245.0)), len(right), axis=1)
    pupil = (np.abs(np.abs(right) - 0.033) < 0.0075) & (np.abs(up - 0.013) < 0.01)
    return _over(white, pupil, (24.0, 28.0, 36.0))


def _one_colour(which: str, factor: float = 1.0):  # noqa: ANN202 - a dress, as the others
    def dress(spots: _Spots, clothes: Clothes) -> np.ndarray:
        return np.repeat(factor * _column(getattr(clothes, which)), len(spots.along), axis=1)

    return dress


def _dress_hair(spots: _Spots, clothes: Clothes) -> np.ndarray:
    strands = 0.9 + 0.2 * (np.sin(60 * spots.angle) > 0)
    return _column(clothes.hair) * strands.astype(np.float32)


def _dress_wood(spots: _Spots, clothes: Clothes) -> np.ndarray:
    return np.repeat(_column((150.0, 104.0, 62.0)), len(spots.along), axis=1)


_DRESS = {
    "torso": _dress_torso,
    "hips": _dress_hips,
    "neck": _one_colour("skin", 0.95),
    "sleeve": _dress_sleeve,
    "cuff": _dress_cuff,
    "hand": _one_colour("skin"),
    "thigh": _dress_thigh,
    "shin": _dress_shin,
    "shoe": _dress_shoe,
    "face": _dress_face,
    "nose": _one_colour("skin", 0.9),
    "ear": _one_colour("skin", 0.92),
    "eye": _dress_eye,
    "hair": _dress_hair,
    "seat": _dress_wood,
    "leg": _dress_wood,
}
