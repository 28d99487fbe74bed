"""Other bodies for recorded motion: bone lengths, stature, and joint angles that stray, smoothly in time.

Works on H36M-17 and COCO-17 joints together: what both have stays the same point, but for hips and shoulders, which
annotators mark a little elsewhere on everybody; the face goes with the head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from humanpose3d.rotations import axis_angle_to_matrix
from humanpose3d.skeletons import COCO_17, H36M_17, shared_joints

STATURE_OF_LEG = 1.0 / 0.491  # thigh and shank together against body height
HINGES = {"knee": "hip", "elbow": "shoulder"}  # each bends between the joint before it and the bone behind it
MARKED = ("hip", "shoulder")  # joints deep in the body, of which a picture shows no more than about where they are
RIGID = ("left_hip", "right_hip")  # joints whose bone is part of its parent's: the pelvis is one piece


@dataclass(frozen=True)
class BodyChanges:
    """How far bodies may differ from the recorded ones."""

    stature_m: tuple[float, float] = (1.45, 1.95)
    stature_mean_m: float = 1.70  # adults: a normal distribution, cut at the ends
    stature_spread_m: float = 0.10
    bone: float = 0.12  # each bone's factor is within 1 +- this, the same on the left and the right
    angle_rad: float = 0.20  # of the loosest body: standard deviation of each joint's turn about each axis
    stiffest: float = 0.25  # share of it that the stiffest body has
    # Standard deviations of where hips and shoulders are marked: outwards, upwards, forwards, at the mean stature.
    marks_m: tuple[tuple[float, float, float], ...] = ((0.008, 0.015, 0.010), (0.010, 0.010, 0.010))
    seconds: float = 1.5  # the shortest period of those turns


@dataclass(frozen=True, eq=False)
class Build:
    """One person's sizes, against the recorded body's."""

    stature_m: float
    bones: np.ndarray  # float64 [17]: factor of the bone that ends in each H36M-17 joint, before the stature's
    head: float  # factor of the face's size
    loose: float = 1.0  # share of the changes' angles
    marks: np.ndarray = field(default_factory=lambda: np.zeros((len(MARKED), 3)))  # of MARKED, in shares of the stature


def draw_build(changes: BodyChanges, rng: np.random.Generator) -> Build:
    """A body of that spread."""
    low, high = changes.stature_m
    stature = np.clip(rng.normal(changes.stature_mean_m, changes.stature_spread_m), low, high)
    points = sorted({_without_side(joint) for joint in H36M_17.joints})
    factor = dict(zip(points, rng.uniform(1 - changes.bone, 1 + changes.bone, len(points)), strict=True))
    bones = np.array([factor[_without_side(joint)] for joint in H36M_17.joints])
    head = float(rng.uniform(1 - changes.bone, 1 + changes.bone))
    marks = rng.normal(0.0, 1.0, (len(MARKED), 3)) * changes.marks_m / changes.stature_mean_m
    return Build(float(stature), bones, head, float(rng.uniform(changes.stiffest, 1.0)), marks)


def rebuild(
    h36m_m: np.ndarray, coco_m: np.ndarray, fps: float, build: Build, changes: BodyChanges, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A motion in H36M-17 and COCO-17 joints, float64 [N 17 3] each, z up -> the same by another body.

    Bones keep their directions but for the joints' own turns; the way through the world grows with the legs, so that
    feet stay about where they stood.
    """
    scale = build.stature_m / _stature(h36m_m)
    lengths = scale * build.bones
    turns = axis_angle_to_matrix(build.loose * _turns(h36m_m, fps, changes, rng))  # [N 17 3 3]
    order = _parents_first()
    legs = float(lengths[[H36M_17.index("left_knee"), H36M_17.index("left_ankle")]].mean())
    moved, axes = np.empty_like(h36m_m), np.empty_like(turns)
    root = H36M_17.root_index
    moved[:, root], axes[:, root] = legs * h36m_m[:, root], np.eye(3)
    for parent, child in order:
        # The turn of a joint is that of the bone which ends in it: each child of the thorax turns by itself.
        own = H36M_17.joints[child] not in RIGID
        # Its own turn first, about axes of the recorded pose; then what all before it have turned.
        axes[:, child] = axes[:, parent] @ turns[:, child] if own else axes[:, parent]
        bone = np.einsum("nij,nj->ni", axes[:, child], h36m_m[:, child] - h36m_m[:, parent])
        moved[:, child] = moved[:, parent] + lengths[child] * bone
    head = H36M_17.index("head")
    face = np.einsum("nij,nkj->nki", axes[:, head], coco_m - h36m_m[:, head, None])
    coco = moved[:, head, None] + scale * build.head * face
    of_h36m, of_coco = shared_joints(H36M_17, COCO_17)
    coco[:, of_coco] = moved[:, of_h36m]
    up = _unit(moved[:, H36M_17.index("thorax")] - moved[:, root])
    for joint, (outwards, upwards, forwards) in zip(MARKED, build.stature_m * build.marks, strict=True):
        left, right = (COCO_17.index(f"{side}_{joint}") for side in ("left", "right"))
        across = _unit(coco[:, left] - coco[:, right])
        both = upwards * up + forwards * np.cross(across, up)
        coco[:, left] += both + outwards * across
        coco[:, right] += both - outwards * across
    return moved, coco


def _turns(h36m_m: np.ndarray, fps: float, changes: BodyChanges, rng: np.random.Generator) -> np.ndarray:
    """[N 17 3]: world-frame axis-angle of the turn of the bone that ends in each joint; smooth in time.

    Knees and elbows only bend more or less, in proportion to how far they are bent: none bends the wrong way.
    """
    noise = _smooth(len(h36m_m), (len(H36M_17), 3), fps, changes, rng)
    for joint, before in HINGES.items():
        for side in ("left", "right"):
            middle = H36M_17.index(f"{side}_{joint}")
            end = next(child for parent, child in H36M_17.bones if parent == middle)
            upper = h36m_m[:, middle] - h36m_m[:, H36M_17.index(f"{side}_{before}")]
            lower = h36m_m[:, end] - h36m_m[:, middle]
            bend = np.cross(_unit(upper), _unit(lower))
            noise[:, end] = 2.0 * noise[:, end, :1] * bend + noise[:, end, 1:2] * _unit(upper)
    return noise


def _smooth(
    frames: int, shape: tuple[int, ...], fps: float, changes: BodyChanges, rng: np.random.Generator
) -> np.ndarray:
    """[frames *shape] of standard deviation `angle_rad`: sums of slow waves, the slowest standing nearly still."""
    waves = 3
    rate = rng.uniform(0.0, 1.0 / changes.seconds, (waves, *shape))
    phase = rng.uniform(-np.pi, np.pi, (waves, *shape))
    time = (np.arange(frames) / fps).reshape(-1, 1, *(1 for _ in shape))
    return changes.angle_rad * np.sqrt(2.0 / waves) * np.sin(2 * np.pi * rate * time + phase).sum(1)


def _stature(h36m_m: np.ndarray) -> float:
    """Body height by the length of the legs, metres."""
    legs = [
        np.linalg.norm(h36m_m[0, H36M_17.index(f"{side}_{end}")] - h36m_m[0, H36M_17.index(f"{side}_{start}")])
        for side in ("left", "right")
        for start, end in (("hip", "knee"), ("knee", "ankle"))
    ]
    return STATURE_OF_LEG * float(np.sum(legs)) / 2.0


def _parents_first() -> list[tuple[int, int]]:
    """(parent, child) of every bone, so that a parent stands before what hangs from it."""
    known, order, left = {H36M_17.root_index}, [], list(H36M_17.bones)
    while left:
        ready = [bone for bone in left if bone[0] in known]
        order += ready
        known |= {child for _, child in ready}
        left = [bone for bone in left if bone[0] not in known or bone[1] not in known]
    return order


def _without_side(joint: str) -> str:
    return joint.removeprefix("left_").removeprefix("right_")


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
