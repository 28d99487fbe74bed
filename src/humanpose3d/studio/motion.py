"""How a person moves: poses as pelvis, spine, hand and foot targets, actions as functions of time, and their joints.

Limbs are solved by two-bone inverse kinematics, so that bone lengths never change and feet stay on the floor.
World frame: z up, floor at z = 0. A person's own axes: right, forward, up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import numpy as np

from humanpose3d.skeletons import COCO_17, H36M_17
from humanpose3d.studio.people import HEAD_OFFSET, NECK_OFFSET, Body

LEFT, RIGHT = 0, 1  # rows of `hands`, `feet` and the like
OUTWARD = (-1.0, 1.0)  # which way along "right" each side's outward points
SEAT_THICKNESS_M = 0.09  # pelvis joint above the seat

Direction = tuple[float, float, float]  # outward, forward, up


def _pair(outward: float, forward: float, up: float) -> np.ndarray:
    return np.array([[outward, forward, up]] * 2)


@dataclass(frozen=True, eq=False)
class Pose:
    """Targets that determine every joint, linear so that poses can be mixed.

    Hands are relative to their own shoulder, in the chest's axes, in arm lengths; feet (ankles) relative to the floor
    under the pelvis, in the pelvis's heading, in leg lengths. Both are (outward, forward, up).
    """

    place: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pelvis over the floor: world x, y, metres
    yaw: float = 0.0  # heading, rad: 0 faces world +y, counter-clockwise from above
    height: float = 1.0  # pelvis height, 1 = standing
    tilt: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pelvis: forward, to the right; rad
    bend: np.ndarray = field(default_factory=lambda: np.zeros(3))  # spine: forward, to the right, twist left; rad
    head: np.ndarray = field(default_factory=lambda: np.zeros(3))  # nod, tilt right, turn left; rad
    hands: np.ndarray = field(default_factory=lambda: _pair(0.16, 0.08, -0.95))
    elbows: np.ndarray = field(default_factory=lambda: _pair(0.5, -1.0, 0.0))  # where elbows point, chest axes
    feet: np.ndarray = field(default_factory=lambda: _pair(0.12, 0.0, 0.0))
    knees: np.ndarray = field(default_factory=lambda: _pair(0.12, 1.0, 0.1))  # where knees point, heading axes
    toes: np.ndarray = field(default_factory=lambda: np.array([[0.2, 0.0]] * 2))  # foot: outward turn, lift; rad

    def with_(self, **changes: object) -> Pose:
        return replace(self, **changes)  # type: ignore[arg-type]

    def hand(self, side: int, outward: float, forward: float, up: float, elbow: Direction = (0.6, -0.5, -0.7)) -> Pose:
        """The same pose with one hand elsewhere."""
        hands, elbows = self.hands.copy(), self.elbows.copy()
        hands[side], elbows[side] = (outward, forward, up), elbow
        return self.with_(hands=hands, elbows=elbows)

    def foot(self, side: int, outward: float, forward: float, up: float, knee: Direction = (0.12, 1.0, 0.1)) -> Pose:
        """The same pose with one foot elsewhere."""
        feet, knees = self.feet.copy(), self.knees.copy()
        feet[side], knees[side] = (outward, forward, up), knee
        return self.with_(feet=feet, knees=knees)


def mix(first: Pose, second: Pose, share: float) -> Pose:
    """`first` at 0, `second` at 1, in between by straight lines."""
    return Pose(
        **{f.name: (1 - share) * getattr(first, f.name) + share * getattr(second, f.name) for f in fields(Pose)}
    )


@dataclass(frozen=True, eq=False)
class Joints:
    """Everything the renderer and the labels need of a posed body. World frame, metres."""

    h36m: np.ndarray  # float64 [17 3], H36M_17
    coco: np.ndarray  # float64 [17 3], COCO_17: the face's joints on the head's surface
    heading: np.ndarray  # float64 [3 3], rows right, forward, up of the pelvis
    chest: np.ndarray  # float64 [3 3]
    head: np.ndarray  # float64 [3 3]
    head_centre: np.ndarray  # float64 [3]
    feet: np.ndarray  # float64 [2 3], unit vector from heel to toe, left and right


@dataclass(frozen=True)
class Stool:
    """A thing to sit on, where it stands in the world."""

    x: float
    y: float
    height: float
    radius: float = 0.17


@dataclass(frozen=True, eq=False)
class Take:
    """One performance: a pose at any time, and the furniture it needs."""

    pose_at: Callable[[float], Pose]
    stool: Stool | None = None


# ---------------------------------------------------------------------------------------------------- kinematics


def turn_about(axis: str, angle_rad: float) -> np.ndarray:
    """Rotation [3 3] about 'right' (x), 'forward' (y) or 'up' (z)."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    if axis == "right":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "forward":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _turn(forward_bend: float, right_bend: float, left_twist: float) -> np.ndarray:
    return turn_about("up", left_twist) @ turn_about("forward", right_bend) @ turn_about("right", -forward_bend)


def two_bones(
    start: np.ndarray, target: np.ndarray, first: float, second: float, pole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(middle joint, end joint) of two bones that reach for a target, the middle joint bent towards `pole`."""
    reach = target - start
    distance = np.linalg.norm(reach)
    along = reach / max(distance, 1e-9)
    distance = np.clip(distance, abs(first - second) + 0.12 * first, 0.999 * (first + second))
    cosine = np.clip((first**2 + distance**2 - second**2) / (2 * first * distance), -1.0, 1.0)
    aside = pole - (pole @ along) * along
    aside = aside / max(np.linalg.norm(aside), 1e-9)
    middle = start + first * (cosine * along + np.sqrt(1 - cosine**2) * aside)
    return middle, start + distance * along


def solve(pose: Pose, body: Body) -> Joints:
    """The joints of a body in a pose."""
    heading = turn_about("up", pose.yaw)  # columns: right, forward, up in the world
    pelvis_axes = heading @ _turn(pose.tilt[0], pose.tilt[1], 0.0)
    waist_axes = pelvis_axes @ _turn(*(0.5 * pose.bend))
    chest_axes = waist_axes @ _turn(*(0.5 * pose.bend))
    head_axes = chest_axes @ _turn(*pose.head)
    size = body.height

    at: dict[str, np.ndarray] = {}
    at["pelvis"] = np.array([*pose.place, pose.height * body.standing_pelvis_height])
    at["spine"] = at["pelvis"] + waist_axes @ [0.0, 0.0, body.pelvis_to_spine]
    at["thorax"] = at["spine"] + chest_axes @ [0.0, 0.0, body.spine_to_thorax]
    half_neck = chest_axes @ _turn(*(0.5 * pose.head))
    at["neck"] = at["thorax"] + half_neck @ (size * np.array(NECK_OFFSET))
    at["head"] = at["neck"] + head_axes @ (size * np.array(HEAD_OFFSET))
    floor_point = np.array([*pose.place, 0.0])
    feet = np.zeros((2, 3))
    for side, name in ((LEFT, "left"), (RIGHT, "right")):
        outward = np.array([OUTWARD[side], 1.0, 1.0])
        hip = at["pelvis"] + pelvis_axes @ [OUTWARD[side] * body.hip_half_width, 0.0, 0.0]
        ankle = floor_point + heading @ (outward * pose.feet[side] * body.leg) + [0.0, 0.0, body.ankle_height]
        ankle += heading @ [OUTWARD[side] * 0.02, 0.0, 0.0]
        knee, ankle = two_bones(hip, ankle, body.thigh, body.shin, heading @ (outward * pose.knees[side]))
        shoulder = at["thorax"] + chest_axes @ [OUTWARD[side] * body.shoulder_half_width, 0.0, -body.shoulder_drop]
        wrist = shoulder + chest_axes @ (outward * pose.hands[side] * body.arm)
        elbow, wrist = two_bones(
            shoulder, wrist, body.upper_arm, body.forearm, chest_axes @ (outward * pose.elbows[side])
        )
        parts = {"hip": hip, "knee": knee, "ankle": ankle, "shoulder": shoulder, "elbow": elbow, "wrist": wrist}
        at.update({f"{name}_{part}": xyz for part, xyz in parts.items()})
        turn_out, lift = pose.toes[side]
        feet[side] = heading @ turn_about("up", -OUTWARD[side] * turn_out) @ [0.0, np.cos(lift), np.sin(lift)]
    head_centre = at["head"] - head_axes @ [0.0, 0.0, 0.064 * size]
    at.update(_face(head_centre, head_axes, size * body.head_scale))
    return Joints(
        h36m=np.array([at[name] for name in H36M_17.joints]),
        coco=np.array([at[name] for name in COCO_17.joints]),
        heading=pelvis_axes.T,
        chest=chest_axes.T,
        head=head_axes.T,
        head_centre=head_centre,
        feet=feet,
    )


def _face(centre: np.ndarray, axes: np.ndarray, size: float) -> dict[str, np.ndarray]:
    """Nose, eyes and ears: right, forward, up from the head's centre, as shares of the body height."""
    offsets = {
        "nose": (0.0, 0.066, -0.012),
        "left_eye": (-0.019, 0.054, 0.008),
        "right_eye": (0.019, 0.054, 0.008),
        "left_ear": (-0.047, -0.003, -0.004),
        "right_ear": (0.047, -0.003, -0.004),
    }
    return {name: centre + axes @ (size * np.array(offset)) for name, offset in offsets.items()}


# --------------------------------------------------------------------------------------------- poses to act with

STAND = Pose()
ARMS_CROSSED = STAND.hand(LEFT, -0.50, 0.42, -0.38, (0.8, 0.1, -0.7)).hand(RIGHT, -0.46, 0.52, -0.46, (0.8, 0.1, -0.7))
HANDS_ON_HIPS = STAND.hand(LEFT, 0.10, 0.06, -0.72, (1.0, -0.5, 0.0)).hand(RIGHT, 0.10, 0.06, -0.72, (1.0, -0.5, 0.0))
LEGS_CROSSED = STAND.foot(RIGHT, -0.12, 0.10, 0.0).foot(LEFT, 0.02, -0.03, 0.0)
HAND_AT_EAR, HAND_AT_MOUTH = (0.03, 0.15, 0.27), (-0.20, 0.50, 0.28)
EAR_ELBOW, MOUTH_ELBOW = (0.8, 0.4, -0.6), (0.7, 0.0, -0.8)
KNEEL = Pose(
    height=0.51,
    feet=np.array([[0.12, 0.34, 0.0], [0.12, -0.40, 0.02]]),
    toes=np.array([[0.1, 0.0], [0.0, -1.0]]),
    knees=np.array([[0.1, 1.0, 0.3], [0.1, 1.0, -0.6]]),
)
CROUCH = Pose(
    height=0.40,
    tilt=np.array([0.35, 0.0]),
    bend=np.array([0.45, 0.0, 0.0]),
    feet=_pair(0.14, 0.12, 0.0),
    knees=_pair(0.35, 1.0, 0.5),
)
FLOOR_CROSS_LEGGED = Pose(
    height=0.14,
    bend=np.array([0.25, 0.0, 0.0]),
    knees=_pair(1.0, 0.5, 0.45),
    feet=np.array([[-0.14, 0.42, 0.0], [-0.14, 0.30, 0.02]]),
    toes=np.array([[0.9, 0.0]] * 2),
    hands=_pair(0.1, 0.50, -0.58),
    elbows=_pair(1.0, -0.3, -0.2),
)
FLOOR_LEGS_OUT = Pose(
    height=0.14,
    tilt=np.array([-0.25, 0.0]),
    feet=_pair(0.16, 0.92, 0.0),
    knees=_pair(0.2, 0.3, 1.0),
    toes=np.array([[0.2, 1.3]] * 2),
    hands=_pair(0.35, -0.45, -0.78),
    elbows=_pair(0.8, -1.0, 0.2),
)


def _seated(height_m: float, body: Body) -> Pose:
    """Sitting on a seat of that height, hands on the thighs."""
    return Pose(
        height=(height_m + SEAT_THICKNESS_M) / body.standing_pelvis_height,
        feet=_pair(0.13, 0.50, 0.0),
        knees=_pair(0.15, 1.0, 0.6),
        hands=_pair(0.0, 0.52, -0.62),
        elbows=_pair(0.9, -0.6, -0.2),
        toes=np.array([[0.15, 0.0]] * 2),
    )


def _ease(t: float) -> float:
    """0 to 1 with rest at both ends."""
    t = float(np.clip(t, 0.0, 1.0))
    return t * t * (3 - 2 * t)


def _cycle(poses: list[Pose], seconds_each: float, t: float) -> Pose:
    """From pose to pose and round again: 45 % of the time moving, the rest held."""
    step, share = divmod(t / seconds_each, 1.0)
    here = int(step) % len(poses)
    return mix(poses[here], poses[(here + 1) % len(poses)], _ease(share / 0.45))


def _alive(pose: Pose, t: float, phase: float, strength: float = 1.0) -> Pose:
    """Small swaying, breathing and looking about: nobody stands quite still."""
    sway = (
        0.05 * strength * np.array([np.sin(0.9 * t + phase), np.sin(1.3 * t + 2 * phase), np.sin(0.6 * t + 3 * phase)])
    )
    hands = pose.hands + 0.03 * strength * np.sin(1.7 * t + phase + np.arange(6).reshape(2, 3))
    return pose.with_(bend=pose.bend + sway, head=pose.head + sway[::-1] * [1.5, 1.0, 6.0], hands=hands)


# ------------------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True)
class _Cast:
    """What an action draws once per take."""

    rng: np.random.Generator
    body: Body
    place: np.ndarray  # world x, y to stand at
    yaw: float
    phase: float
    side: int  # the hand that does it

    def on_the_spot(self, pose: Pose, t: float, turning: float = 0.5) -> Pose:
        """Placed, facing its way, turning slowly to and fro."""
        yaw = self.yaw + turning * np.sin(0.35 * t + self.phase) + 0.3 * turning * np.sin(0.9 * t)
        return _alive(pose.with_(place=self.place, yaw=yaw), t, self.phase)

    def stool(self) -> Stool:
        return Stool(
            float(self.place[0]), float(self.place[1]), float(self.rng.uniform(0.40, 0.52)) * self.body.height / 1.75
        )

    def gestures(self, pose: Pose, number: int) -> list[Pose]:
        """The pose with hands at random places in front."""
        found = []
        for _ in range(number):
            for side in (LEFT, RIGHT):
                if self.rng.random() < 0.75:
                    spot = self.rng.uniform([-0.25, 0.25, -0.55], [0.5, 0.75, 0.35])
                    pose = pose.hand(side, spot[0], spot[1], spot[2], (0.8, -0.3, -0.8))
            found.append(pose.with_(bend=self.rng.uniform(-0.15, 0.2, 3), head=self.rng.uniform(-0.3, 0.3, 3)))
        return found


def _directions(cast: _Cast) -> Take:
    poses = [STAND]
    for _ in range(5):
        side = int(cast.rng.integers(2))
        spot = cast.rng.uniform([-0.1, -0.1, -0.1], [0.9, 0.9, 0.75])
        spot = spot / np.linalg.norm(spot) * 0.97
        twist = cast.rng.uniform(-0.3, 0.3)
        pose = STAND.hand(side, *spot).with_(bend=np.array([0.05, 0.0, twist]), head=np.array([0.0, 0.0, 2 * twist]))
        poses.append(pose if cast.rng.random() < 0.6 else pose.hand(1 - side, 0.10, 0.06, -0.72, (1.0, -0.5, 0.0)))
    return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.4, t + cast.phase), t, 0.9))


def _discussion(cast: _Cast) -> Take:
    poses = [*cast.gestures(STAND, 4), ARMS_CROSSED, *cast.gestures(STAND, 2)]
    return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.2, t + cast.phase), t, 0.8))


def _eating(cast: _Cast) -> Take:
    stool = cast.stool()
    rest = _seated(stool.height, cast.body).hand(1 - cast.side, -0.1, 0.62, -0.42, (0.8, -0.5, -0.5))
    bite = rest.hand(cast.side, *HAND_AT_MOUTH, elbow=MOUTH_ELBOW).with_(head=np.array([0.25, 0.0, 0.0]))
    reach = rest.hand(cast.side, 0.1, 0.85, -0.3).with_(bend=np.array([0.35, 0.0, 0.0]))
    return Take(lambda t: cast.on_the_spot(_cycle([reach, bite, rest, bite], 1.1, t + cast.phase), t, 0.25), stool)


def _greeting(cast: _Cast) -> Take:
    def pose_at(t: float) -> Pose:
        swing = 0.28 * np.sin(5.0 * t + cast.phase)
        wave = STAND.hand(cast.side, 0.42 + swing, 0.2, 0.78, (1.0, 0.1, -0.3))
        bow = STAND.with_(bend=np.array([0.7, 0.0, 0.0]), tilt=np.array([0.3, 0.0])).hand(cast.side, -0.3, 0.5, -0.45)
        both = wave.hand(1 - cast.side, 0.42 - swing, 0.2, 0.8, (1.0, 0.1, -0.3))
        return cast.on_the_spot(_cycle([wave, wave, bow, both], 1.5, t + cast.phase), t, 0.9)

    return Take(pose_at)


def _phoning(cast: _Cast) -> Take:
    path = _Path(cast, speed=0.45)
    call = STAND.hand(cast.side, *HAND_AT_EAR, elbow=EAR_ELBOW).with_(head=np.array([0.05, 0.1, 0.0]))
    poses = [
        call,
        call.hand(1 - cast.side, 0.1, 0.06, -0.72, (1.0, -0.5, 0.0)),
        call.hand(1 - cast.side, 0.1, 0.6, -0.3),
    ]
    return Take(lambda t: path.walk(_cycle(poses, 2.0, t + cast.phase), t, swing_arms=False))


def _posing(cast: _Cast) -> Take:
    arms_up = STAND.hand(LEFT, 0.35, 0.1, 0.9, (1.0, 0.3, 0.0)).hand(RIGHT, 0.35, 0.1, 0.9, (1.0, 0.3, 0.0))
    behind_head = STAND.hand(LEFT, -0.1, -0.08, 0.42, (1.0, 0.1, 0.5)).hand(RIGHT, -0.1, -0.08, 0.42, (1.0, 0.1, 0.5))
    hips_crossed = HANDS_ON_HIPS.with_(feet=LEGS_CROSSED.feet, knees=LEGS_CROSSED.knees)
    flamingo = arms_up.foot(cast.side, -0.05, 0.1, 0.42, (0.9, 0.6, 0.0))
    lunge = HANDS_ON_HIPS.with_(height=0.78).foot(cast.side, 0.12, 0.5, 0.0).foot(1 - cast.side, 0.12, -0.5, 0.02)
    poses = [HANDS_ON_HIPS, hips_crossed, arms_up, lunge, behind_head, flamingo]
    return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.3, t + cast.phase), t, 1.2))


def _purchases(cast: _Cast) -> Take:
    up = STAND.hand(cast.side, 0.1, 0.6, 0.75).with_(bend=np.array([-0.1, 0.0, 0.0]))
    floor = CROUCH.hand(cast.side, 0.0, 0.75, -0.62).hand(1 - cast.side, 0.0, 0.55, -0.4)
    bow = STAND.with_(height=0.93, tilt=np.array([0.8, 0.0]), bend=np.array([0.7, 0.0, 0.0]))
    bow = bow.hand(LEFT, 0.05, 0.70, -0.65).hand(RIGHT, 0.05, 0.70, -0.65)
    carry = STAND.hand(LEFT, -0.1, 0.6, -0.35).hand(RIGHT, -0.1, 0.6, -0.35)
    poses = [up, carry, floor, carry, bow, HANDS_ON_HIPS]
    return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.3, t + cast.phase), t, 0.9))


def _sitting(cast: _Cast) -> Take:
    stool = cast.stool()
    sit = _seated(stool.height, cast.body)
    crossed = sit.foot(cast.side, -0.26, 0.72, 0.34, (0.3, 0.8, 0.8))
    arms = crossed.with_(hands=ARMS_CROSSED.hands, elbows=ARMS_CROSSED.elbows)
    lean = sit.with_(bend=np.array([0.7, 0.0, 0.0])).hand(LEFT, 0.0, 0.55, -0.55).hand(RIGHT, 0.0, 0.55, -0.55)
    wide = sit.foot(LEFT, 0.36, 0.40, 0.0, (0.6, 1.0, 0.5)).foot(RIGHT, 0.36, 0.40, 0.0, (0.6, 1.0, 0.5))
    poses = [sit, crossed, arms, lean, wide]
    return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.6, t + cast.phase), t, 0.3), stool)


def _sitting_down(cast: _Cast) -> Take:
    if cast.rng.random() < 0.4:
        poses = [STAND, CROUCH, FLOOR_CROSS_LEGGED, FLOOR_LEGS_OUT, FLOOR_CROSS_LEGGED, CROUCH]
        return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.4, t + cast.phase), t, 0.3))
    stool = cast.stool()
    sit = _seated(stool.height, cast.body)
    step_m = 0.32
    stand = STAND.with_(feet=sit.feet - np.array([0.0, step_m / cast.body.leg, 0.0]))
    halfway = mix(stand, sit, 0.55).with_(bend=np.array([0.75, 0.0, 0.0]), tilt=np.array([0.35, 0.0]))

    def pose_at(t: float) -> Pose:
        cycle = [stand, halfway, sit, sit, halfway]
        pose = _cycle(cycle, 0.9, t + cast.phase)
        # The pelvis moves back over the seat while the feet stay where they are.
        forward_m = sit.feet[0, 1] * cast.body.leg - pose.feet[0, 1] * cast.body.leg
        ahead = forward_m * np.array([-np.sin(cast.yaw), np.cos(cast.yaw)])
        return _alive(pose.with_(place=cast.place + ahead, yaw=cast.yaw), t, cast.phase)

    return Take(pose_at, stool)


def _smoking(cast: _Cast) -> Take:
    away = STAND.hand(cast.side, 0.3, 0.35, -0.55)
    puff = STAND.hand(cast.side, *HAND_AT_MOUTH, elbow=MOUTH_ELBOW)
    crossed = puff.hand(1 - cast.side, -0.35, 0.38, -0.5, (0.8, 0.1, -0.7))
    poses = [away, puff, crossed, away.hand(1 - cast.side, 0.1, 0.06, -0.72, (1.0, -0.5, 0.0))]
    return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.3, t + cast.phase), t, 0.9))


def _photo(cast: _Cast) -> Take:
    def aim(pose: Pose) -> Pose:
        for side in (LEFT, RIGHT):
            pose = pose.hand(side, -0.2, 0.55, 0.28, (0.8, 0.0, -0.6))
        return pose

    bent = aim(STAND.with_(height=0.9, tilt=np.array([0.3, 0.0]), bend=np.array([0.4, 0.0, 0.0])))
    poses = [aim(STAND), aim(KNEEL), aim(KNEEL), bent, STAND]
    return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.3, t + cast.phase), t, 0.9))


def _waiting(cast: _Cast) -> Take:
    crossed = ARMS_CROSSED.with_(feet=LEGS_CROSSED.feet, knees=LEGS_CROSSED.knees)
    watch = STAND.hand(cast.side, -0.2, 0.5, -0.2, (0.9, 0.0, -0.5)).with_(head=np.array([0.4, 0.0, 0.0]))
    behind = STAND.hand(LEFT, -0.15, -0.28, -0.72, (0.9, -0.7, 0.0)).hand(RIGHT, -0.15, -0.28, -0.74, (0.9, -0.7, 0.0))
    poses = [crossed, watch, ARMS_CROSSED, behind]
    return Take(lambda t: cast.on_the_spot(_cycle(poses, 1.5, t + cast.phase), t, 1.0))


def _walking(cast: _Cast) -> Take:
    path = _Path(cast, speed=1.0)
    return Take(lambda t: path.walk(STAND, t))


def _walk_dog(cast: _Cast) -> Take:
    path = _Path(cast, speed=0.8)
    hold = STAND.hand(cast.side, 0.1, 0.62, -0.45)
    tug = hold.with_(bend=np.array([0.35, 0.0, 0.0])).hand(cast.side, 0.05, 0.85, -0.35)
    stoop = hold.with_(height=0.8, bend=np.array([0.6, 0.0, 0.0]), tilt=np.array([0.35, 0.0]))
    return Take(lambda t: path.walk(_cycle([hold, tug, hold, stoop], 1.6, t + cast.phase), t, swing_arms=False))


def _walk_together(cast: _Cast) -> Take:
    path = _Path(cast, speed=1.25)
    talk = [STAND.with_(head=np.array([0.0, 0.0, 0.8])), *cast.gestures(STAND, 3)]
    return Take(lambda t: path.walk(_cycle(talk, 1.8, t + cast.phase), t, swing_arms=False))


class _Path:
    """A closed walk round the middle of the room, an oval or an eight, and the steps along it."""

    def __init__(self, cast: _Cast, speed: float) -> None:
        self.cast, self.speed = cast, speed
        sizes, eight, way = cast.rng.uniform(0.45, 0.8, 2), cast.rng.random() < 0.5, cast.rng.choice((-1.0, 1.0))
        angle = np.linspace(0, 2 * np.pi, 721)
        across = np.sin(2 * angle) * 0.6 if eight else np.sin(angle)
        points = np.stack([np.cos(angle) * sizes[0], across * sizes[1]], -1)[:: int(way)]
        turn = turn_about("up", cast.yaw)[:2, :2]
        self.points = points @ turn.T + 0.4 * cast.place
        steps = np.diff(self.points, axis=0)
        self.length = np.concatenate([[0.0], np.linalg.norm(steps, axis=1).cumsum()])
        self.yaw = np.unwrap(np.arctan2(-steps[:, 0], steps[:, 1]))

    def walk(self, pose: Pose, t: float, swing_arms: bool = True) -> Pose:
        """The pose, carried along the path by walking legs."""
        travelled = self.speed * t + self.cast.phase
        here = travelled % self.length[-1]
        place = np.array([np.interp(here, self.length, self.points[:, i]) for i in (0, 1)])
        yaw = float(np.interp(here, self.length[1:], self.yaw))
        stride_m = 0.68 * self.cast.body.height * (0.5 + 0.4 * self.speed)
        half_step = 0.25 * stride_m / self.cast.body.leg
        cycle = travelled / stride_m
        feet, hands, toes = pose.feet.copy(), pose.hands.copy(), pose.toes.copy()
        for side in (LEFT, RIGHT):
            forward, lift, heel = _step((cycle + 0.5 * side) % 1.0)
            feet[side] = (0.06, forward * half_step * 1.05, 0.12 * lift)
            toes[side] = (0.1, heel)
            if swing_arms:
                hands[side] = hands[side] + [0.0, -0.34 * forward + 0.05, 0.05 * abs(forward)]
        sway = 0.1 * np.sin(2 * np.pi * cycle)
        return _alive(
            pose.with_(
                place=place,
                yaw=yaw,
                height=pose.height * (0.978 - 0.012 * np.cos(4 * np.pi * cycle)),
                feet=feet,
                hands=hands,
                toes=toes,
                bend=pose.bend + [0.06, 0.0, sway],
            ),
            t,
            self.cast.phase,
            0.6,
        )


def _step(phase: float) -> tuple[float, float, float]:
    """(forward -1..1, lift 0..1, toe lift in rad) of a foot: on the floor for 60 % of the cycle, then swung."""
    if phase < 0.6:
        share = phase / 0.6
        return (
            1.0 - 2.0 * share,
            0.9 * max(share - 0.8, 0.0),
            0.3 * max(0.2 - share, 0.0) / 0.2 - 0.7 * max(share - 0.75, 0.0) / 0.25,
        )
    share = (phase - 0.6) / 0.4
    return -1.0 + 2.0 * _ease(share), np.sin(np.pi * share) + 0.18 * (1 - share), 0.3 * share - 0.7 * (1 - share)


ACTIONS: dict[int, tuple[str, Callable[[_Cast], Take]]] = {
    2: ("Directions", _directions),
    3: ("Discussion", _discussion),
    4: ("Eating", _eating),
    5: ("Greeting", _greeting),
    6: ("Phoning", _phoning),
    7: ("Posing", _posing),
    8: ("Purchases", _purchases),
    9: ("Sitting", _sitting),
    10: ("SittingDown", _sitting_down),
    11: ("Smoking", _smoking),
    12: ("Photo", _photo),
    13: ("Waiting", _waiting),
    14: ("Walking", _walking),
    15: ("WalkDog", _walk_dog),
    16: ("WalkTogether", _walk_together),
}


def make_take(action: int, body: Body, rng: np.random.Generator) -> Take:
    """A performance of Human3.6M's action number 2 to 16: where, which way and how exactly is drawn from `rng`."""
    if action not in ACTIONS:
        known = ", ".join(f"{number} {name}" for number, (name, _) in ACTIONS.items())
        raise ValueError(f"the studio has no action {action}; it has {known}")
    cast = _Cast(
        rng=rng,
        body=body,
        place=rng.uniform(-0.4, 0.4, 2),
        yaw=float(rng.uniform(-np.pi, np.pi)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        side=int(rng.integers(2)),
    )
    return ACTIONS[action][1](cast)
