"""A right hand, built, posed and photographed in front of many backgrounds: pictures in FreiHAND's manner.

Everything follows from the seed. Owns the hand's anatomy and its look; how round cones are cast is `render.py`'s, and
FreiHAND's files are `freihand.py`'s. Hand axes: towards the thumb, ahead (wrist to middle finger), out of the palm.
In that order they are right-handed, which is what makes it a right hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel, pixel_to_ray
from humanpose3d.skeletons import HAND_21
from humanpose3d.studio.people import SKIN_TONES
from humanpose3d.studio.render import Cone, Part, View, cast, in_sight

VERSIONS = ("gs", "hom", "sample", "auto")  # a green screen; another background; that one recoloured, twice
PHOTO = "photo"  # the hand in a place of its own, as it was taken
SIZE = 224  # px, the side of FreiHAND's images
FOCAL_PX = (400.0, 560.0)  # at that size
NEAREST_M, FARTHEST_M = 0.42, 0.88
MARGIN_PX = 14.0  # between joints and the image's edge, at that size
SENSOR_NOISE = 2.0  # standard deviation, of 255
_SHAPE, _POSE, _PLACE, _LIGHT, _SCREEN, _SCENERY, _GRAIN = range(7)  # what a random stream is for

# An average hand, 19 cm long, in hand axes and metres. Rows: thumb, index, middle, ring, little.
KNUCKLES_M = np.array(
    [
        [0.024, 0.021, 0.010],
        [0.025, 0.091, 0.001],
        [0.004, 0.093, -0.003],
        [-0.016, 0.087, -0.001],
        [-0.034, 0.077, 0.004],
    ]
)
PHALANGES_M = np.array(
    [
        [0.044, 0.033, 0.027],
        [0.043, 0.025, 0.023],
        [0.047, 0.029, 0.024],
        [0.043, 0.027, 0.024],
        [0.034, 0.020, 0.021],
    ]
)
RADII_M = np.array(  # of the flesh at a finger's four joints
    [
        [0.0140, 0.0118, 0.0106, 0.0082],
        [0.0108, 0.0096, 0.0083, 0.0068],
        [0.0110, 0.0098, 0.0085, 0.0070],
        [0.0103, 0.0091, 0.0080, 0.0066],
        [0.0090, 0.0079, 0.0070, 0.0058],
    ]
)
SPLAY_DEG = np.array([0.0, 4.0, 0.0, -4.0, -9.0])  # of straight fingers at rest, towards the thumb
SPREAD_DEG = np.array([0.0, 11.0, 2.0, -8.0, -16.0])  # more of it when the fingers are spread

# What joints can do: lowest and highest flexion of a finger's three joints, degrees. The thumb's first is its saddle.
FLEXION_DEG = (np.array([[-15.0, 0.0, -5.0]] * 5), np.array([[90.0, 108.0, 78.0]] * 5))
FLEXION_DEG[0][0], FLEXION_DEG[1][0] = (0.0, -5.0, -15.0), (0.0, 55.0, 75.0)
THUMB_DEG = (np.array([8.0, 0.0]), np.array([65.0, 62.0]))  # away from the index finger in the palm's plane, out of it
END_FOLLOWS = 0.66  # a fingertip's joint bends along with the one before: it cannot alone


@dataclass(frozen=True, eq=False)
class Hand:
    """Someone's right hand."""

    scale: float  # 1 is 19 cm long
    girth: float
    phalanges_m: np.ndarray  # [5 3]
    skin: np.ndarray  # [3] RGB of the back; the palm is paler
    sleeve: np.ndarray | None  # [3] RGB
    sleeve_from_m: float  # behind the wrist


@dataclass(frozen=True, eq=False)
class Pose:
    """Angles in degrees, linear so that poses can be mixed."""

    flexion: np.ndarray  # [5 3]
    thumb: np.ndarray  # [2] away from the index finger in the palm's plane, out of the palm
    spread: float  # 0 fingers side by side, 1 spread
    wrist: np.ndarray  # [2] bent towards the palm, towards the thumb


@dataclass(frozen=True, eq=False)
class HandScene:
    """A posed hand before a camera: every label, and what a picture needs."""

    size: int  # px
    seeds: tuple[int, ...]
    hand: Hand
    camera: Camera
    joints_cam_m: np.ndarray  # float64 [21 3], HAND_21
    joints_px: np.ndarray  # float64 [21 2]
    axes: np.ndarray  # [3 3], rows: thumb, ahead, palm in the camera frame
    parts: tuple[Part, ...]


# ------------------------------------------------------------------------------------------------------------- poses


def _pose(
    fingers: Sequence[tuple[float, float]], thumb: tuple[float, float, float, float], spread: float = 0.2
) -> Pose:
    """From (first, second joint) of index to little finger and the thumb's (aside, out of the palm, second, third)."""
    flexion = np.array([(0.0, thumb[2], thumb[3])] + [(a, b, END_FOLLOWS * b) for a, b in fingers])
    return Pose(flexion, np.array(thumb[:2]), spread, np.zeros(2))


_STRAIGHT, _BENT = (0.0, 4.0), (78.0, 98.0)
POSES = {
    "spread": _pose([_STRAIGHT] * 4, (58, 20, 0, -8), 1.0),
    "flat": _pose([_STRAIGHT] * 4, (30, 8, 5, 0), 0.0),
    "relaxed": _pose([(18, 28), (24, 34), (29, 38), (32, 36)], (38, 28, 14, 14)),
    "fist": _pose([_BENT] * 4, (16, 46, 34, 52), 0.0),
    "pointing": _pose([(4, 6), _BENT, _BENT, _BENT], (16, 46, 34, 52), 0.1),
    "victory": _pose([_STRAIGHT, _STRAIGHT, _BENT, _BENT], (12, 52, 40, 45), 1.1),
    "three": _pose([_STRAIGHT, _STRAIGHT, _BENT, _BENT], (58, 12, 0, -5), 0.9),
    "thumb up": _pose([_BENT] * 4, (60, 4, 0, -12), 0.0),
    "pinch": _pose([(52, 52), (34, 30), (26, 26), (20, 24)], (34, 52, 16, 34), 0.4),
    "ring": _pose([(58, 60), (10, 14), (4, 10), (2, 10)], (32, 54, 18, 38), 0.7),
    "grip": _pose([(46, 52), (50, 54), (52, 56), (52, 54)], (40, 54, 14, 24), 0.1),
    "claw": _pose([(2, 66)] * 4, (52, 34, 8, 40), 0.8),
    "cup": _pose([(36, 22), (38, 24), (40, 26), (42, 28)], (24, 40, 12, 14), 0.0),
}


def random_hand(rng: np.random.Generator) -> Hand:
    """A hand of any size and colour, bare or in a sleeve."""
    skin = np.array(SKIN_TONES[rng.integers(len(SKIN_TONES))]) + rng.uniform(-10, 10, 3)
    scale = float(rng.uniform(0.86, 1.06))
    return Hand(
        scale=scale,
        girth=float(rng.uniform(0.90, 1.12)),
        phalanges_m=scale * PHALANGES_M * rng.uniform(0.95, 1.05, (5, 1)) * rng.uniform(0.97, 1.03, (5, 3)),
        skin=np.clip(skin, 20, 245),
        sleeve=rng.uniform(25, 225, 3) if rng.random() < 0.55 else None,
        sleeve_from_m=float(rng.uniform(0.035, 0.13)),
    )


def random_pose(rng: np.random.Generator) -> Pose:
    """One of POSES or something between two, each joint a little its own way and none beyond what it can do."""
    first, second = (list(POSES.values())[i] for i in rng.choice(len(POSES), 2, replace=False))
    share = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, 1))
    flexion = (1 - share) * first.flexion + share * second.flexion + rng.normal(0, 5.0, (5, 3))
    thumb = (1 - share) * first.thumb + share * second.thumb + rng.normal(0, 4.0, 2)
    return Pose(
        flexion=np.clip(flexion, *FLEXION_DEG),
        thumb=np.clip(thumb, *THUMB_DEG),
        spread=float(np.clip((1 - share) * first.spread + share * second.spread + rng.normal(0, 0.12), 0.0, 1.2)),
        wrist=rng.uniform([-35.0, -12.0], [35.0, 18.0]),
    )


# -------------------------------------------------------------------------------------------------------- kinematics


def solve(hand: Hand, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [21 3] joints in hand axes, metres, wrist at 0; [5 3 3] where each bone's inner side looks, unit)."""
    joints, inner = np.zeros((len(HAND_21), 3)), np.zeros((5, 3, 3))
    for finger in range(5):
        straight, curl = _thumb_axes(pose) if finger == 0 else _finger_axes(finger, pose)
        at = hand.scale * KNUCKLES_M[finger]
        bent = np.radians(pose.flexion[finger]).cumsum()
        joints[1 + 4 * finger] = at
        for bone, angle in enumerate(bent):
            at = at + hand.phalanges_m[finger, bone] * (np.cos(angle) * straight + np.sin(angle) * curl)
            joints[2 + 4 * finger + bone] = at
            inner[finger, bone] = np.cos(angle) * curl - np.sin(angle) * straight
    return joints, inner


def _finger_axes(finger: int, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """(unit vector along the straight finger, the one it curls to)."""
    # Bent fingers come together: their ligaments leave them no sideways room.
    room = 1.0 - 0.75 * np.clip(pose.flexion[finger, 0] / 80.0, 0.0, 1.0)
    aside = np.radians(room * (SPLAY_DEG[finger] + pose.spread * SPREAD_DEG[finger]))
    return np.array([np.sin(aside), np.cos(aside), 0.0]), np.array([0.0, 0.0, 1.0])


def _thumb_axes(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """The same for the thumb: it curls across the palm, its nail to the side."""
    aside, out = np.radians(pose.thumb)
    straight = np.array([np.cos(out) * np.sin(aside), np.cos(out) * np.cos(aside), np.sin(out)])
    across = np.array([-0.86, 0.16, 0.40 - 0.75 * np.sin(out)])  # turned inwards as it comes before the palm
    curl = across - (across @ straight) * straight
    return straight, curl / np.linalg.norm(curl)


# ------------------------------------------------------------------------------------------------------ before a camera


@lru_cache(maxsize=64)
def make_hand(number: int, person: int, *, size: int = SIZE, seed: int = 0) -> HandScene:
    """Picture `number` of this seed: that person's hand, somehow held before some camera."""
    hand = random_hand(_stream(seed, _SHAPE, person))
    pose = random_pose(_stream(seed, _POSE, number))
    joints, inner = solve(hand, pose)
    rng = _stream(seed, _PLACE, number)
    axes = _held(pose, rng)
    focal_px = size / SIZE * rng.uniform(*FOCAL_PX) * np.array([1.0, rng.uniform(0.997, 1.003)])
    camera = Camera.create(focal_px, (size / 2.0, size / 2.0))
    place = _place(joints @ axes, camera, size, rng)
    joints_cam_m = joints @ axes + place
    parts = [*_fingers(hand, joints, inner), *_palm(hand, joints), *_forearm(hand, pose)]
    return HandScene(
        size=size,
        seeds=(seed, number),
        hand=hand,
        camera=camera,
        joints_cam_m=joints_cam_m,
        joints_px=camera_to_pixel(joints_cam_m, camera),
        axes=axes,
        parts=tuple(_moved(part, axes, place) for part in parts),
    )


def _stream(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(numbers)


def _held(pose: Pose, rng: np.random.Generator) -> np.ndarray:
    """[3 3], rows thumb, ahead, palm in the camera frame: any way round, but the arm across the picture."""
    while True:
        q = rng.normal(size=4)
        w, x, y, z = q / np.linalg.norm(q)
        axes = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        if -0.35 < (_arm_direction(pose) @ axes)[2] < 0.6:
            return axes


def _place(joints_m: np.ndarray, camera: Camera, size: int, rng: np.random.Generator) -> np.ndarray:
    """[3] metres to move a hand at the lens by, so that all its joints lie in the picture."""
    middle = (joints_m.min(0) + joints_m.max(0)) / 2.0
    off_px = size / SIZE * rng.uniform(-12, 12, 2)
    distance = rng.uniform(NEAREST_M, FARTHEST_M)
    for _ in range(40):
        place = distance * np.array([*(off_px / camera.K[[0, 1], [0, 1]]), 1.0]) - middle
        px = camera_to_pixel(joints_m + place, camera)
        edge = size / SIZE * MARGIN_PX
        if px.min() > edge and px.max() < size - 1 - edge:
            break
        distance *= 1.03
    return place


# ---------------------------------------------------------------------------------------------------------- the flesh


def _fingers(hand: Hand, joints: np.ndarray, inner: np.ndarray) -> list[Part]:
    radii = hand.scale * hand.girth * RADII_M
    parts = []
    for finger in range(5):
        for bone in range(3):
            start, end = joints[1 + 4 * finger + bone], joints[2 + 4 * finger + bone]
            along = (end - start) / np.linalg.norm(end - start)
            last = bone == 2
            thickness = radii[finger, bone + 1]
            parts.append(
                Part(
                    "tip" if last else "thumb base" if finger == bone == 0 else "bone",
                    start,
                    end - 0.8 * thickness * along if last else end,  # the tip joint is on the skin
                    radii[finger, bone],
                    thickness,
                    np.stack([np.cross(along, inner[finger, bone]), along, inner[finger, bone]]),
                    (1.0, 1.0, 0.88) if last else (1.0, 1.0, 1.0),
                )
            )
    return parts


def _palm(hand: Hand, joints: np.ndarray) -> list[Part]:
    """Metacarpals, the balls of thumb and little finger, and the skin between them."""
    size, thick = hand.scale, hand.scale * hand.girth
    knuckle = {name: joints[HAND_21.index(f"{name}_1")] for name in ("index", "middle", "ring", "little")}
    carpals = {
        name: size * np.array(place)
        for name, place in (
            ("index", (0.013, 0.010, 0.0)),
            ("middle", (0.004, 0.008, -0.002)),
            ("ring", (-0.007, 0.008, -0.001)),
            ("little", (-0.015, 0.010, 0.002)),
        )
    }
    back = size * np.array([0.0, -0.012, 0.003])
    thumb, thumb_end = joints[HAND_21.index("thumb_1")], joints[HAND_21.index("thumb_2")]

    def part(start: np.ndarray, end: np.ndarray, first: float, second: float) -> Part:
        return Part("palm", start, end, thick * first, thick * second, np.eye(3))

    parts = [part(carpals[name], knuckle[name], 0.0150, 0.0118 if name != "little" else 0.0105) for name in knuckle]
    for one, other in (("index", "middle"), ("middle", "ring"), ("ring", "little")):
        parts.append(part(knuckle[one] + back, knuckle[other] + back, 0.0112, 0.0105))
        parts.append(
            part((knuckle[one] + knuckle[other]) / 2 + back, (carpals[one] + carpals[other]) / 2, 0.0125, 0.015)
        )
    heel = size * np.array([-0.020, 0.018, 0.006])
    little_side = 0.72 * knuckle["little"] + size * np.array([-0.004, 0.0, 0.004])
    web = 0.45 * knuckle["index"] + 0.55 * carpals["index"] + size * np.array([0.002, 0.0, 0.003])
    return [
        *parts,
        part(heel, little_side, 0.0150, 0.0125),
        part(
            carpals["index"] + size * np.array([0.004, 0.006, 0.006]), 0.25 * thumb + 0.75 * thumb_end, 0.0165, 0.0125
        ),
        part(thumb, web, 0.0145, 0.0110),
        part(0.45 * thumb + 0.55 * thumb_end, web + size * np.array([0.0, 0.010, 0.0]), 0.0105, 0.0085),
    ]


def _arm_direction(pose: Pose) -> np.ndarray:
    """[3] unit vector from the wrist to the elbow, hand axes."""
    bend, aside = np.radians(pose.wrist)
    return np.array([-np.sin(aside), -np.cos(aside) * np.cos(bend), np.cos(aside) * np.sin(bend)])


def _forearm(hand: Hand, pose: Pose) -> list[Part]:
    along = _arm_direction(pose)
    palm = np.array([0.0, 0.0, 1.0]) - along[2] * along
    palm /= np.linalg.norm(palm)
    axes = np.stack([np.cross(-along, palm), along, palm])
    thick, flat = hand.scale * hand.girth, (1.22, 1.0, 0.86)
    start = hand.scale * np.array([0.0, 0.006, 0.0])
    parts = [Part("arm", start, start + 0.45 * along, 0.0225 * thick, 0.046 * thick, axes, flat)]
    if hand.sleeve is not None:
        cuff = start + hand.sleeve_from_m * along
        parts.append(Part("sleeve", cuff, start + 0.47 * along, 0.034 * thick, 0.060 * thick, axes, flat))
    return parts


def _moved(part: Part, axes: np.ndarray, place: np.ndarray) -> Part:
    """From hand axes to the camera frame."""
    return Part(
        part.kind, part.start @ axes + place, part.end @ axes + place, part.start_radius, part.end_radius,
        part.axes @ axes, part.stretch,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- the picture

BLEND_M = 0.0016  # over how much depth two parts' surfaces flow into each other


def film_hand(scene: HandScene, versions: Sequence[str] = VERSIONS) -> dict[str, np.ndarray]:
    """{version: uint8 [H W 3] RGB}: the same hand, the same light, other surroundings."""
    colour, alpha = _develop(scene)
    return {version: _compose(scene, colour, alpha, version) for version in versions}


def _develop(scene: HandScene) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [H W 3] RGB, float32 [H W] 0 to 1): the hand alone, twice as fine and averaged as people are."""
    view = _empty_view(scene)
    cones = [cone for part in scene.parts if (cone := in_sight(part, view)) is not None]
    depths = [_depth(cone, view) for cone in cones]
    nearest = np.full(view.depth_m.shape, np.inf, np.float32)
    for cone, depth in zip(cones, depths, strict=True):
        np.minimum(nearest[cone.window], depth, out=nearest[cone.window])
    total = np.zeros((7, *nearest.shape), np.float32)  # weight, normal, albedo
    for cone, depth in zip(cones, depths, strict=True):
        _blend(cone, depth, nearest, view, scene, total)
    seen = np.isfinite(nearest)
    light = _light(total[1:4], np.where(seen, nearest, 0.0).astype(np.float32), seen, scene)
    albedo = total[4:] / np.maximum(total[0], 1e-6)
    fine = np.concatenate([np.clip(albedo * light, 0, 255) * seen, seen[None].astype(np.float32)])
    tent = np.array([0.25, 0.5, 0.25], np.float32)
    smooth = cv2.sepFilter2D(np.ascontiguousarray(np.moveaxis(fine, 0, -1)), cv2.CV_32F, tent, tent)[1::2, 1::2]
    alpha = smooth[..., 3]
    return smooth[..., :3] / np.maximum(alpha, 1e-3)[..., None], alpha


def _empty_view(scene: HandScene) -> View:
    side = 2 * scene.size + 1
    grid = np.arange(side) / 2.0 - 0.5
    rays = pixel_to_ray(np.stack(np.meshgrid(grid, grid), axis=-1), scene.camera)
    rays = np.concatenate([rays, np.ones((side, side, 1))], -1)
    rays = np.moveaxis(rays / np.linalg.norm(rays, axis=-1, keepdims=True), -1, 0).astype(np.float32)
    nothing = np.full((side, side), np.inf, np.float32)
    return View(scene.camera, scene.size, rays, np.zeros((side, side, 3), np.uint8), nothing, nothing)


def _depth(cone: Cone, view: View) -> np.ndarray:
    rays = view.rays[:, cone.window[0], cone.window[1]]
    return cast(cone, rays.reshape(3, -1)).reshape(rays.shape[1:]) * rays[2]


def _blend(cone: Cone, depth: np.ndarray, nearest: np.ndarray, view: View, scene: HandScene, total: np.ndarray) -> None:
    """Adds a part's surface where it is the nearest or hardly behind it, so that creases are rounded off."""
    rows, columns = np.nonzero(depth < nearest[cone.window] + 4 * BLEND_M)
    if not len(rows):
        return
    z = depth[rows, columns]
    rows, columns = rows + cone.window[0].start, columns + cone.window[1].start
    rays = view.rays[:, rows, columns]
    points = rays * (z / rays[2])
    normal, share, along_m = _surface(cone, points)
    weight = np.exp((nearest[rows, columns] - z) / np.float32(BLEND_M))
    albedo = _skin(cone.part, normal, share, along_m, points, scene)
    total[:, rows, columns] += weight * np.concatenate([np.ones((1, len(rows)), np.float32), normal, albedo])


def _surface(cone: Cone, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of [3 N] points: (unit normals [3 N], place along the part 0 to 1 [N], metres along it [N], also beyond it)."""
    part = cone.part
    local = cone.warp @ points - cone.start[:, None]
    narrowing, length2 = part.start_radius - part.end_radius, float(cone.along @ cone.along)
    share = np.clip((cone.along @ local - part.start_radius * narrowing) / (length2 - narrowing**2), 0, 1)
    normal = cone.warp @ (local - cone.along[:, None] * share)
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-9)
    return normal, share, cone.along @ local / np.sqrt(length2)


def _skin(
    part: Part, normal: np.ndarray, share: np.ndarray, along_m: np.ndarray, points: np.ndarray, scene: HandScene
) -> np.ndarray:
    """float32 [3 N]: what colour the skin, nail or cloth has there."""
    hand, axes = scene.hand, part.axes.astype(np.float32)
    if part.kind == "sleeve":
        assert hand.sleeve is not None
        knit = 1.0 + 0.06 * np.sin(along_m * 2 * np.pi / 0.004)
        hem = np.where(along_m < 0.006, 0.75, 1.0)
        return (hand.sleeve[:, None] * knit * hem).astype(np.float32)
    inner = (scene.axes[2].astype(np.float32) if part.kind == "palm" else axes[2]) @ normal  # 1 on the palm's side
    palmar = np.clip((inner + 0.25) / 0.7, 0, 1)
    pale = np.clip(0.80 * hand.skin + 0.20 * np.array([255.0, 196.0, 176.0]) + [6.0, 0.0, 0.0], 0, 255)
    colour = hand.skin[:, None] * (1 - palmar) + pale[:, None] * palmar
    if part.kind in ("bone", "tip"):
        length = float(np.linalg.norm(part.end - part.start))
        crease = np.exp(-((along_m / 0.0011) ** 2)) * (inner > 0.0)
        wrinkles = (
            np.exp(-((along_m / 0.0045) ** 2)) * (0.5 + 0.5 * np.cos(along_m * 2 * np.pi / 0.0026)) * (inner < -0.3)
        )
        colour = colour * (1 - 0.22 * crease - 0.13 * wrinkles)
        knuckle = np.exp(-((along_m / 0.007) ** 2)) * (inner < 0.0)
        colour = colour + np.outer([6.0, -9.0, -8.0], knuckle)
        if part.kind == "tip":
            colour = _with_nail(colour, axes[0] @ normal, inner, along_m / length)
            colour = colour + np.outer([8.0, -6.0, -4.0], np.clip(share, 0, 1) * palmar)
    if part.kind == "palm":
        colour = colour * (1 - 0.16 * _palm_lines(points, scene) * (inner > 0.15))
    return colour.astype(np.float32)


def _with_nail(colour: np.ndarray, across: np.ndarray, inner: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The nail lies on the far half of the fingertip's back."""
    here = (inner < -0.52) & (np.abs(across) < 0.74) & (share > 0.42) & (share < 1.28)
    rim = here & ((np.abs(across) > 0.62) | (share < 0.49))
    white = here & (share > 1.16)
    nail = 0.55 * colour + 0.45 * np.array([[250.0], [205.0], [196.0]])
    colour = np.where(here, nail, colour)
    colour = np.where(rim, 0.86 * colour, colour)
    return np.where(white, 0.4 * colour + 0.6 * np.array([[244.0], [236.0], [226.0]]), colour)


def _palm_lines(points: np.ndarray, scene: HandScene) -> np.ndarray:
    """[N] 0 to 1: the three long creases of a palm, drawn in the hand's own plane."""
    wrist = scene.joints_cam_m[HAND_21.index("wrist")]
    x, y, _ = (scene.axes @ (points - wrist[:, None])) / scene.hand.scale
    off_line = 0.1  # m: no crease there
    thumb = np.abs(np.hypot(x - 0.044, y - 0.030) - 0.040) + off_line * (y > 0.07)
    head = np.abs(y - 0.053 - 0.35 * x) + off_line * ((x > 0.026) | (x < -0.024))
    heart = np.abs(y - 0.058 - 0.012 * np.sin(45 * (x + 0.04))) + off_line * (x > 0.012)
    return np.exp(-((np.minimum.reduce([thumb, head, heart]) / 0.0010) ** 2))


def _light(normal: np.ndarray, depth: np.ndarray, seen: np.ndarray, scene: HandScene) -> np.ndarray:
    """float32 [3 h w]: what the light leaves of each colour. Shade is red, for skin lets light through."""
    rng = _stream(*scene.seeds, _LIGHT)
    key = rng.uniform([-0.8, -1.0, -1.0], [0.8, -0.15, -0.3])
    key = (key / np.linalg.norm(key)).astype(np.float32)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=0), 1e-6)
    lit = np.clip((np.tensordot(key, normal, 1) + 0.22) / 1.22, 0, 1)
    shine = np.clip(np.tensordot(_half_way(key), normal, 1), 0, 1) ** 22
    facing = np.clip(-normal[2], 0, 1)
    level = (0.36 + 0.12 * facing + 0.62 * lit) * _openness(depth, seen)
    shade = np.clip(0.75 - level, 0, 1)
    warm = np.array([0.10, -0.03, -0.08], np.float32)[:, None, None]
    return level * (1 + warm * shade) + 0.05 * shine


def _half_way(key: np.ndarray) -> np.ndarray:
    half = key + np.array([0.0, 0.0, -1.0], np.float32)
    return half / np.linalg.norm(half)


def _openness(depth: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """float32 [h w]: 1 in the open, less where nearer parts around keep the light off."""
    share = cv2.blur(seen.astype(np.float32), (15, 15))
    around = cv2.blur(depth, (15, 15)) / np.maximum(share, 1e-3)
    return 1.0 - 0.45 * np.clip((depth - around) / 0.014, 0, 1) * seen


# --------------------------------------------------------------------------------------------------------- backgrounds


def _compose(scene: HandScene, colour: np.ndarray, alpha: np.ndarray, version: str) -> np.ndarray:
    seed, number = scene.seeds
    if version == "gs":
        background = _green_room(scene.size, _stream(seed, _SCREEN, number))
        image = _over(background, 0.97 * colour + 0.03 * np.array([70.0, 150.0, 40.0], np.float32), alpha)
    elif version == PHOTO:
        image = _over(_scenery(scene.size, _stream(seed, _SCENERY, number)), colour, alpha)
    else:
        background = _scenery(scene.size, _stream(seed, _SCENERY, number))
        soft = cv2.GaussianBlur(alpha, (0, 0), 0.9 * scene.size / SIZE)  # cut out, then pasted
        fitted = 0.72 * colour + 0.28 * colour * (background.mean((0, 1)) / max(float(background.mean()), 1.0))
        image = _recoloured(_over(background, fitted, soft), version)
    noise = _stream(seed, _GRAIN, number).standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image + SENSOR_NOISE * noise), 0, 255).astype(np.uint8)


def _over(background: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return background + alpha[..., None] * (colour - background)


def _recoloured(image: np.ndarray, version: str) -> np.ndarray:
    """float32 [H W 3]: colours as a network would guess them from the grey picture, weaker and warmer."""
    if version not in ("sample", "auto"):
        return image
    strength, shift = (0.72, (2.0, -4.0)) if version == "sample" else (0.38, (5.0, 11.0))
    lab = cv2.cvtColor(np.clip(image, 0, 255).astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    lab[..., 1:] = strength * lab[..., 1:] + np.array(shift, np.float32)
    return 255.0 * cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def _green_room(size: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [H W 3]: green cloth unevenly lit, and some of the rig that stands about."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    slope = rng.uniform(-0.35, 0.35, 2)
    level = 1.0 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5) + 0.08 * _noise(size, rng, 3)
    image = level[..., None] * rng.uniform([60, 130, 30], [120, 185, 70]).astype(np.float32)
    for _ in range(rng.integers(1, 5)):
        centre, reach = rng.uniform(-0.1, 1.1, 2) * size, rng.uniform(0.06, 0.4) * size
        angles = np.sort(rng.uniform(0, 2 * np.pi, 4))
        corners = centre + reach * np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.3, 1.0)], -1)
        grey = rng.choice([35.0, 90.0, 150.0, 205.0, 250.0]) + rng.uniform(-15, 5, 3)
        cv2.fillConvexPoly(image, corners.astype(np.int32), grey.tolist(), cv2.LINE_AA)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


SCENES = (  # far colours, near colours
    ((150, 185, 225), (200, 215, 235), (70, 110, 45), (120, 150, 80)),  # sky over grass
    ((40, 80, 35), (95, 130, 70), (125, 115, 95), (165, 155, 135)),  # leaves over a path
    ((190, 180, 165), (215, 205, 190), (120, 80, 50), (160, 115, 75)),  # a wall over wood
    ((120, 70, 55), (165, 105, 85), (95, 95, 100), (135, 135, 140)),  # bricks over asphalt
    ((70, 85, 105), (110, 125, 145), (205, 195, 170), (230, 222, 200)),  # dusk over sand
    ((225, 225, 228), (190, 195, 205), (60, 70, 90), (90, 100, 125)),  # a bright room with a carpet
)


def _scenery(size: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [H W 3]: something like a place, with an edge between far and near and things standing in it."""
    far, far_too, near, near_too = (np.array(c, np.float32) for c in SCENES[rng.integers(len(SCENES))])
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    horizon = rng.uniform(0.3, 0.75) + rng.uniform(-0.15, 0.15) * (x - 0.5) + 0.02 * _noise(size, rng, 4)
    grain = 0.5 + 0.5 * np.clip(_noise(size, rng, 5, rough=0.75), -1, 1)
    image = np.where(
        (y < horizon)[..., None], far + grain[..., None] * (far_too - far), near + grain[..., None] * (near_too - near)
    )
    for _ in range(rng.integers(2, 9)):
        low = rng.uniform(-0.1, 1.0, 2) * size
        high = low + (rng.uniform(0.02, 0.09, 2) if rng.random() < 0.5 else rng.uniform(0.08, 0.35, 2)) * size
        if rng.random() < 0.5:
            high[1] = low[1] + rng.uniform(0.3, 0.8) * size  # a post, a trunk, a door
        shade = rng.uniform(30, 225, 3) * 0.4 + 0.6 * image[int(size * 0.4), int(size * 0.5)] * rng.uniform(0.4, 1.1)
        corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
        corners += rng.uniform(-0.015, 0.015, (4, 2)) * size
        cv2.fillConvexPoly(image, corners.astype(np.int32), shade.tolist(), cv2.LINE_AA)
    image *= 1.0 + 0.13 * _noise(size, rng, 5, rough=0.8)[..., None]
    return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.8)))


def _noise(size: int, rng: np.random.Generator, octaves: int, rough: float = 0.55) -> np.ndarray:
    """float32 [size size], about -1 to 1: unevenness of ever finer grain."""
    total, strength = np.zeros((size, size), np.float32), 1.0
    for octave in range(octaves):
        coarse = rng.standard_normal((2 ** (octave + 1) + 1,) * 2, np.float32)
        total += np.float32(strength) * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        strength *= rough
    return total / 2.0
