"""Poses that no action asks for: hands and feet anywhere they reach, bent and twisted, on the floor and lying.

Drawn at random and kept where no limb runs through the body or the floor. A model that learns from them has seen more
than people at work; they are nobody's habits, so they belong in training, not in a score.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from humanpose3d.skeletons import H36M_17
from humanpose3d.studio.motion import LEFT, RIGHT, Pose, Take, alive, ease, mix, solve
from humanpose3d.studio.people import Body

POSES = 4  # of a take; it goes round
SECONDS = (0.7, 1.6)  # for the way from one to the next and the rest there
MOVING = 0.6  # share of that time
DRAWS = 200  # before a pose is given up
LIMBS = [(f"{side}_{end}", f"{side}_{start}") for side in ("left", "right")
         for start, end in (("elbow", "wrist"), ("knee", "ankle"))]  # fmt: skip
TORSO, NECK, THIGH, LIMB, FLOOR = 0.12, 0.09, 0.07, 0.05, 0.02  # metres that limbs keep from them at least


def make_anything(body: Body, rng: np.random.Generator) -> Take:
    """A performance of random poses, one after the other, on the spot."""
    poses, seconds = [_possible(body, rng, [])], rng.uniform(*SECONDS, POSES)
    while len(poses) < POSES:
        # The last one leads back to the first.
        poses.append(_possible(body, rng, [poses[-1], *([poses[0]] if len(poses) == POSES - 1 else [])]))
    starts = np.concatenate([[0.0], seconds.cumsum()])
    place, yaw, phase = rng.uniform(-0.4, 0.4, 2), rng.uniform(-np.pi, np.pi), rng.uniform(0, 2 * np.pi)

    def pose_at(t: float) -> Pose:
        t = (t + phase) % starts[-1]
        here = int(np.searchsorted(starts, t, "right")) - 1
        share = ease((t - starts[here]) / (MOVING * seconds[here]))
        pose = mix(poses[here], poses[(here + 1) % POSES], share)
        return alive(pose.with_(place=place, yaw=yaw + 0.5 * np.sin(0.35 * t + phase)), t, phase)

    return Take(pose_at)


def _possible(body: Body, rng: np.random.Generator, neighbours: list[Pose]) -> Pose:
    """A pose that a body can be in, and can come to from its neighbours."""
    for _ in range(DRAWS):
        pose = _draw(rng)
        ways = [mix(pose, other, share) for other in neighbours for share in (0.3, 0.5, 0.7)]
        if all(_is_possible(each, body) for each in (pose, *ways)):
            return pose
    return Pose()


def _draw(rng: np.random.Generator) -> Pose:
    legs = rng.choice(5, p=(0.40, 0.18, 0.16, 0.16, 0.10))
    pose: Pose = (_upright, _low, _seated, _on_the_floor, _lying)[legs](rng)
    hands, elbows = pose.hands.copy(), pose.elbows.copy()
    for side in (LEFT, RIGHT):
        if rng.random() < 0.1:
            continue  # hangs
        towards = rng.uniform((-0.6, -0.5, -1.0), (1.0, 1.0, 1.0))
        hands[side] = towards / np.linalg.norm(towards) * rng.uniform(0.35, 0.98)
        elbows[side] = np.array((0.7, -0.4, -0.6) if towards[2] < 0 else (0.9, 0.1, -0.4)) + rng.normal(0, 0.3, 3)
    lean = rng.normal(0.0, (0.30, 0.15, 0.25)) + (0.12, 0.0, 0.0)
    return pose.with_(
        hands=hands,
        elbows=elbows,
        bend=np.clip(lean, (-0.4, -0.5, -0.7), (1.2, 0.5, 0.7)),
        head=np.clip(rng.normal(0.0, (0.3, 0.2, 0.45)), -1.0, 1.0),
    )


def _upright(rng: np.random.Generator) -> Pose:
    feet = rng.uniform((0.0, -0.35, 0.0), (0.45, 0.35, 0.0), (2, 3))
    stands_on_both = rng.random() < 0.65
    if not stands_on_both:
        feet[rng.integers(2)] = rng.uniform((-0.1, -0.6, 0.05), (0.6, 0.9, 0.8))
    planted = feet[feet[:, 2] == 0]
    highest = float(np.sqrt(1.0 - (planted[:, :2] ** 2).sum(1)).min())
    return Pose(
        height=highest * rng.uniform(0.85, 1.0),
        tilt=rng.normal(0.0, (0.25, 0.12)) + (0.1, 0.0),
        feet=feet,
        knees=_knees(rng, (0.2, 1.0, 0.1)),
    )


def _low(rng: np.random.Generator) -> Pose:
    """Crouching, kneeling, lunging."""
    feet = rng.uniform((0.05, -0.45, 0.0), (0.45, 0.45, 0.05), (2, 3))
    return Pose(
        height=rng.uniform(0.30, 0.80),
        tilt=rng.normal(0.0, (0.3, 0.12)) + (0.3, 0.0),
        feet=feet,
        knees=_knees(rng, (0.4, 1.0, 0.2)),
    )


def _seated(rng: np.random.Generator) -> Pose:
    feet = rng.uniform((-0.1, 0.15, 0.0), (0.45, 0.75, 0.1), (2, 3))
    if rng.random() < 0.25:
        feet[rng.integers(2), 2] = rng.uniform(0.15, 0.45)
    return Pose(
        height=rng.uniform(0.42, 0.68),
        tilt=rng.normal(0.0, (0.2, 0.08)),
        feet=feet,
        knees=_knees(rng, (0.25, 1.0, 0.7)),
    )


def _on_the_floor(rng: np.random.Generator) -> Pose:
    feet = rng.uniform((-0.25, 0.15, 0.0), (0.6, 0.95, 0.05), (2, 3))
    if rng.random() < 0.3:
        feet[rng.integers(2)] = rng.uniform((0.0, -0.5, 0.0), (0.6, 0.1, 0.02))  # beside or behind
    return Pose(
        height=rng.uniform(0.13, 0.22),
        tilt=rng.normal(0.0, (0.3, 0.15)) - (0.1, 0.0),
        feet=feet,
        knees=_knees(rng, (0.7, 0.5, 0.6)),
    )


def _lying(rng: np.random.Generator) -> Pose:
    """On the back, on the belly, on a side; or on hands and knees."""
    tilt, forward, knees = (
        ((-1.3, 0.0), 0.75, (0.2, 0.3, 1.0)), ((1.35, 0.0), -0.8, (0.3, 0.5, -1.0)),
        ((0.1, rng.choice((-1.3, 1.3))), 0.3, (0.2, 1.0, 0.1)), ((1.25, 0.0), -0.35, (0.2, 1.0, -0.3)),
    )[rng.integers(4)]  # fmt: skip
    is_on_knees = forward == -0.35
    feet = rng.uniform((0.05, -0.2, 0.0), (0.35, 0.2, 0.05), (2, 3)) + (0.0, forward, 0.0)
    return Pose(
        height=rng.uniform(0.42, 0.52) if is_on_knees else rng.uniform(0.12, 0.2),
        tilt=rng.normal(tilt, 0.15),
        feet=feet,
        knees=_knees(rng, knees),
    )


def _knees(rng: np.random.Generator, towards: tuple[float, float, float]) -> np.ndarray:
    return np.array([towards, towards]) + rng.normal(0.0, (0.25, 0.15, 0.25), (2, 3))


def _is_possible(pose: Pose, body: Body) -> bool:
    joints = solve(pose, body).h36m
    at: Callable[[str], np.ndarray] = lambda name: joints[H36M_17.index(name)]  # noqa: E731
    if joints[:, 2].min() < FLOOR:
        return False
    thighs = [(at(f"{side}_hip"), at(f"{side}_knee")) for side in ("left", "right")]
    for end, middle in LIMBS:
        points = (at(end), 0.5 * (at(end) + at(middle)))
        if min(_apart(point, at("pelvis"), at("thorax")) for point in (*points, at(middle))) < TORSO:
            return False
        if min(_apart(point, at("neck"), at("head")) for point in points) < NECK:
            return False
        if end.endswith("wrist") and min(_apart(at(end), *thigh) for thigh in thighs) < THIGH:
            return False
    left, right = ([(at(f"{side}_{joint}")) for joint in ("knee", "ankle")] for side in ("left", "right"))
    if min(_apart(left[1], *right), _apart(right[1], *left)) < LIMB:
        return False
    return float(np.linalg.norm(at("left_wrist") - at("right_wrist"))) > LIMB


def _apart(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """From a point to a line from start to end, metres."""
    way = end - start
    share = np.clip((point - start) @ way / max(float(way @ way), 1e-12), 0.0, 1.0)
    return float(np.linalg.norm(point - start - share * way))
