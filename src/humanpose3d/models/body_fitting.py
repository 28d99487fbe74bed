"""SMPL's pose, shape and place from joints: a compact SMPLify (Bogo et al. 2016), many people at once.

Levenberg and Marquardt's steps on 3D joints, 2D points or both, with priors for what those leave open. What the joints
are of and where results go is `fit_body.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from humanpose3d.models.skinned_joints import SkinnedJoints, spin_of
from humanpose3d.models.smpl_body import BETAS, SmplBody, rotations_from_axis_angle
from humanpose3d.rotations import matrix_to_axis_angle
from humanpose3d.skeletons import SMPL_24, Skeleton

JOINT_ERROR_M = 0.005  # how well a labelled 3D joint and the body's own agree: sets the labels against the priors
# First with priors that weigh more, which keeps limbs out of dead ends; factors of the two errors.
LOOSER_JOINTS, LOOSER_POINTS = (6.0, 1.0), (20.0, 4.0, 1.0)
POINT_ERROR = 0.015  # the same for 2D points, as a share of the person's longer side
OUTLIER = 5.0  # 2D points farther off than so many times that hardly pull (Geman and McClure's loss)
STEPS, LEAST_GAIN = 40, 1e-4  # of the optimiser; it ends where nobody's cost falls by that share any more
FIRST_DAMPING, EASED, RAISED = 1e-2, 0.3, 5.0  # of the steps, and its factor after a good one and a bad one
STUCK = 1e4  # a damping with which nothing moves
LEAST_JOINTS = 6  # that are known, for a fit
LEAST_OF_TORSO = 3
TORSO = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")
FACINGS_RAD = (0.0, np.pi / 2, np.pi, -np.pi / 2)  # from which 2D points are fitted: the best is kept
NUMBERS = 3 * len(SMPL_24) + 3 + BETAS  # sought for each person, in this order: pose, trans, betas
NEAREST_M = 0.1  # of a joint to the lens, while fitting

# Mean and standard deviation of the axis-angles of each kind of joint, rad, left side; axes: the rest body's left, up
# and forward. By hand: how far joints go, arms hanging, elbows and knees a little bent.
POSES = {
    "hip": ((-0.2, 0.0, 0.1), (0.9, 0.4, 0.4)),
    "knee": ((0.4, 0.0, 0.0), (0.9, 0.15, 0.15)),
    "ankle": ((0.0, 0.0, 0.0), (0.3, 0.15, 0.15)),
    "foot": ((0.0, 0.0, 0.0), (0.1, 0.1, 0.1)),
    "spine1": ((0.0, 0.0, 0.0), (0.3, 0.2, 0.2)),
    "spine2": ((0.0, 0.0, 0.0), (0.3, 0.2, 0.2)),
    "spine3": ((0.0, 0.0, 0.0), (0.3, 0.2, 0.2)),
    "neck": ((0.0, 0.0, 0.0), (0.3, 0.3, 0.3)),
    "head": ((0.0, 0.0, 0.0), (0.3, 0.3, 0.3)),
    "collar": ((0.0, 0.0, -0.1), (0.15, 0.2, 0.2)),
    "shoulder": ((0.0, -0.2, -0.9), (0.7, 0.8, 0.8)),
    "elbow": ((0.0, -0.5, 0.0), (0.4, 0.9, 0.2)),
    "wrist": ((0.0, 0.0, 0.0), (0.2, 0.2, 0.2)),
    "hand": ((0.0, 0.0, 0.0), (0.1, 0.1, 0.1)),
}
# Joints that bend one way only: the axis, and the sign of an unnatural bend, left side; as in SMPLify.
HINGES = {"knee": (0, -1.0), "elbow": (1, 1.0)}
HINGE_ENDS = {"knee": "ankle", "elbow": "wrist"}
HINGE_STEEPNESS = 4.0  # 1 / rad
FOLDED_RAD = 2.6  # a bend beyond which it gets as costly
WRONG_BEND_RAD = 0.3  # an unnatural bend that is worth another try
MIRRORED = (1.0, -1.0, -1.0)  # an axis-angle of the other side


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of B people. Entries of no weight may be anything, NaN too."""

    joints_m: Tensor  # float32 [B J 3], camera frame, in the fitter's joint skeleton
    joint_weight: Tensor  # float32 [B J], 0 unknown ... 1
    rays: Tensor  # float32 [B K 2]: x/z and y/z of points in the fitter's point skeleton, distortion removed
    ray_weight: Tensor  # float32 [B K]

    def __len__(self) -> int:
        return len(self.joints_m)

    def of(self, rows: Tensor) -> Evidence:
        """Some of the people: numbers of rows, or bool [B]."""
        return Evidence(*(getattr(self, each.name)[rows] for each in fields(self)))

    def known(self) -> Evidence:
        """The same with zeros where nothing is known, and without the joints or the points where nobody has any."""
        joints = slice(None) if bool(self.joint_weight.any()) else slice(0)
        points = slice(None) if bool(self.ray_weight.any()) else slice(0)
        joints_m = torch.where(self.joint_weight[..., None] > 0, self.joints_m, 0.0)
        rays = torch.where(self.ray_weight[..., None] > 0, self.rays, 0.0)
        return Evidence(joints_m[:, joints], self.joint_weight[:, joints], rays[:, points], self.ray_weight[:, points])


def is_enough(known: np.ndarray, skeleton: Skeleton) -> bool:
    """Whether these joints, bool [J], tell of the whole body's pose."""
    torso = sum(bool(each) for each, point in zip(known, skeleton.points, strict=True) if point in TORSO)
    return int(known.sum()) >= LEAST_JOINTS and torso >= LEAST_OF_TORSO


class BodyFit(NamedTuple):
    """Bodies found, in the camera frame."""

    pose_rad: np.ndarray  # float32 [B 24 3], axis-angle, the root's first
    betas: np.ndarray  # float32 [B 10]
    trans_m: np.ndarray  # float32 [B 3]
    joints_m: np.ndarray  # float32 [B J 3], the body's own, in the fitter's joint skeleton
    points_m: np.ndarray  # float32 [B K 3], in its point skeleton


@dataclass(frozen=True, eq=False)
class _State:
    """The numbers that are sought, and what they are measured from."""

    turn: Tensor  # [B 3]: axis-angle of the root, after `facing`
    pose_rad: Tensor  # [B 23 3]
    betas: Tensor  # [B 10]
    trans_m: Tensor  # [B 3]
    facing: Tensor  # [B 3 3]

    def rotations(self) -> Tensor:
        """[B 24 3 3]."""
        root = rotations_from_axis_angle(self.turn) @ self.facing
        return torch.cat([root[:, None], rotations_from_axis_angle(self.pose_rad)], dim=1)

    def posed(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `SkinnedJoints.with_slopes` asks for."""
        spins = spin_of(torch.cat([self.turn[:, None], self.pose_rad], dim=1))
        return self.rotations(), spins, self.betas, self.trans_m

    def numbers(self, with_betas: bool) -> Tensor:
        """[B P]."""
        parts = [self.turn, self.pose_rad.flatten(1), self.trans_m, *([self.betas] if with_betas else [])]
        return torch.cat(parts, dim=1)

    def having(self, numbers: Tensor) -> _State:
        """With those numbers in place of its own; `numbers` turned round."""
        turn, pose, trans_m, betas = numbers.split([3, 69, 3, numbers.shape[1] - 75], dim=1)
        betas = betas if betas.shape[1] else self.betas
        return _State(turn, pose.unflatten(1, (23, 3)), betas, trans_m, self.facing)

    def of(self, rows: Tensor) -> _State:
        return _State(*(getattr(self, each.name)[rows] for each in fields(self)))

    def where(self, chosen: Tensor, other: _State) -> _State:
        """Of each person this one where `chosen` [B], else the other."""

        def pick(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(chosen.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        return _State(*(pick(getattr(self, each.name), getattr(other, each.name)) for each in fields(self)))

    def merged(self, other: _State, mine: Tensor) -> _State:
        """These people where `mine` [B], the others between them."""
        order = torch.argsort(torch.argsort((~mine).int(), stable=True))
        both = (torch.cat([getattr(self, each.name), getattr(other, each.name)]) for each in fields(self))
        return _State(*(part[order] for part in both))


class BodyFitter:
    """Fits one body to many people's joints.

    ValueError where the body has no regressor to a skeleton.
    """

    def __init__(
        self, body: SmplBody, joint_skeleton: Skeleton | None = None, point_skeleton: Skeleton | None = None
    ) -> None:
        """joint_skeleton: of the 3D joints; point_skeleton: of the 2D points; None: there are none."""
        self.joints = SkinnedJoints(body, joint_skeleton or SMPL_24)
        self.points = SkinnedJoints(body, point_skeleton or SMPL_24)
        self.counts = len(joint_skeleton or ()), len(point_skeleton or ())
        device = body.part_of_vertex.device
        mean, deviation = _pose_prior()
        self.mean_pose, self.pose_deviation = mean.to(device), deviation.to(device)
        self.hinges = _hinges().to(device)
        self.half_turns = self._half_turns()
        rest = torch.eye(3, device=device).expand(1, len(SMPL_24), 3, 3), torch.zeros(1, BETAS, device=device)
        self.rest_joints_m, self.rest_points_m = self.joints(*rest)[0], self.points(*rest)[0]

    @torch.no_grad()
    def fit(self, evidence: Evidence, betas: Tensor | None = None) -> BodyFit:
        """Every person's body. betas: [B 10], where the shapes are known.

        Where a person has joints, those lead and points add to them. Of one of the two `is_enough` must be true.
        """
        by_joints = evidence.joint_weight.sum(1) > 0
        found = None
        for fit, rows in ((self._from_joints, by_joints), (self._from_points, ~by_joints)):
            if not bool(rows.any()):
                continue
            some = fit(evidence.of(rows).known(), None if betas is None else betas[rows])
            found = some if found is None else found.merged(some, by_joints)
        assert found is not None, "nobody to fit"
        body = found.rotations(), found.betas, found.trans_m
        joints_m, points_m = self.joints(*body)[:, : self.counts[0]], self.points(*body)[:, : self.counts[1]]
        parts = _axis_angle(body[0]), *body[1:], joints_m, points_m
        return BodyFit(*(part.cpu().numpy() for part in parts))

    def _from_joints(self, evidence: Evidence, betas: Tensor | None) -> _State:
        return self._settle(self._start_from_joints(evidence), evidence, betas, LOOSER_JOINTS)

    def _from_points(self, evidence: Evidence, betas: Tensor | None) -> _State:
        """Points alone do not say which way somebody faces: from every side, and the best of what comes of it."""
        first, *others = FACINGS_RAD
        best = self._settle(self._start_from_points(evidence, first), evidence, betas, LOOSER_POINTS)
        for facing_rad in others:
            state = self._settle(self._start_from_points(evidence, facing_rad), evidence, betas, LOOSER_POINTS)
            best = self._better(state, best, evidence)
        return best

    def _settle(self, state: _State, evidence: Evidence, betas: Tensor | None, stages: tuple[float, ...]) -> _State:
        """Down to the least cost, error by error; limbs that bend the wrong way then are tried turned over."""
        for looser in stages:
            state = self._descend(state, evidence, betas, looser)
            if bool((state.pose_rad.flatten(1) @ self.hinges > WRONG_BEND_RAD).any()):
                turned = self._descend(self._turned_over(state), evidence, betas, looser)
                state = self._better(turned, state, evidence, looser)
        return state

    def _better(self, first: _State, second: _State, evidence: Evidence, looser: float = 1.0) -> _State:
        """Of each person the one of less cost."""
        costs = [self.residuals(state, evidence, looser)[0].square().sum(1) for state in (first, second)]
        return first.where(costs[0] < costs[1], second)

    def _turned_over(self, state: _State) -> _State:
        """Wrists and ankles where they are, but no elbow or knee that bends the wrong way: the bones on both its sides
        are turned half round their own lengths, which no descent would come upon."""
        pose_rad = state.pose_rad.clone()
        wrong = pose_rad.flatten(1) @ self.hinges > WRONG_BEND_RAD  # [B 4]
        for of_limb, (above, hinge, turn_above, turn_below) in zip(wrong.T[..., None], self.half_turns, strict=True):
            root, end = (rotations_from_axis_angle(pose_rad[:, joint]) for joint in (above, hinge))
            pose_rad[:, above] = torch.where(of_limb, _axis_angle(root @ turn_above), pose_rad[:, above])
            turned = _axis_angle(turn_above.mT @ end @ turn_below)
            pose_rad[:, hinge] = torch.where(of_limb, turned, pose_rad[:, hinge])
        return replace(state, pose_rad=pose_rad)

    def _half_turns(self) -> list[tuple[int, int, Tensor, Tensor]]:
        """Of each hinge: the rows of the joint above and of itself in a pose without its root, and half a turn [3 3]
        round the bone above and that below."""
        found = []
        for side, kind in _hinge_joints():
            hinge, end = SMPL_24.index(f"{side}_{kind}"), SMPL_24.index(f"{side}_{HINGE_ENDS[kind]}")
            above = int(self.joints.above[hinge])
            bones_m = self.joints.bones_m[[hinge, end]] - self.joints.bones_m[[above, hinge]]
            turns = rotations_from_axis_angle(torch.pi * bones_m / bones_m.norm(dim=-1, keepdim=True))
            found.append((above - 1, hinge - 1, turns[0], turns[1]))
        return found

    # ------------------------------------------------------------------------------------------- where it begins

    def _start_from_joints(self, evidence: Evidence) -> _State:
        """The mean pose, its torso turned and moved onto the person's."""
        rows = [self.joints.skeleton.points.index(point) for point in TORSO if point in self.joints.skeleton.points]
        weight = evidence.joint_weight[:, rows, None]
        total = weight.sum(1).clamp(min=1e-6)
        rest_m, wanted_m = self.rest_joints_m[rows], evidence.joints_m[:, rows]
        rest_middle, wanted_middle = (weight * rest_m).sum(1) / total, (weight * wanted_m).sum(1) / total
        spread = (weight * (wanted_m - wanted_middle[:, None])).mT @ (rest_m - rest_middle[:, None])
        u, _, vt = torch.linalg.svd(spread)
        u = torch.cat([u[..., :2], u[..., 2:] * torch.linalg.det(u @ vt)[:, None, None]], dim=-1)
        return self._start(u @ vt, rest_middle, wanted_middle)

    def _start_from_points(self, evidence: Evidence, facing_rad: float) -> _State:
        """The mean pose upright, so far away that it is as large as the points are."""
        count = len(evidence)
        upright = rotations_from_axis_angle(torch.tensor([np.pi, 0.0, 0.0])) @ rotations_from_axis_angle(
            torch.tensor([0.0, facing_rad, 0.0])
        )
        weight = evidence.ray_weight[..., None]
        total = weight.sum(1).clamp(min=1e-6)
        middle = (weight * evidence.rays).sum(1) / total
        size = _spread(evidence.rays - middle[:, None], weight)
        rest_m = self.points(*self._mean_body(count))
        rest_middle = (weight * rest_m).sum(1) / total
        away_m = (_spread((rest_m - rest_middle[:, None])[..., :2], weight) / size.clamp(min=1e-6)).clamp(min=1.0)
        wanted = torch.cat([middle * away_m, away_m], dim=1)
        return self._start(upright.to(weight).expand(count, 3, 3), rest_middle, wanted)

    def _mean_body(self, count: int) -> tuple[Tensor, Tensor]:
        still = torch.eye(3, device=self.mean_pose.device).expand(count, 1, 3, 3)
        pose = rotations_from_axis_angle(self.mean_pose).expand(count, -1, -1, -1)
        return torch.cat([still, pose], dim=1), self.mean_pose.new_zeros(count, BETAS)

    def _start(self, facing: Tensor, rest_middle_m: Tensor, wanted_m: Tensor) -> _State:
        """The mean pose facing that way, the point `rest_middle_m` [B 3] of its rest body at `wanted_m` [B 3]."""
        count = len(facing)
        pelvis = self.joints.bones_m[SMPL_24.root_index]
        moved = (facing @ (rest_middle_m - pelvis)[..., None])[..., 0] + pelvis
        zeros = facing.new_zeros(count, BETAS)
        return _State(zeros[:, :3], self.mean_pose.expand(count, -1, -1), zeros, wanted_m - moved, facing)

    # ------------------------------------------------------------------------------------------------ the descent

    def _descend(self, state: _State, evidence: Evidence, betas: Tensor | None, looser: float) -> _State:
        """The state of least cost near this one, each person by steps of its own length until nothing is gained."""
        start = state = state if betas is None else replace(state, betas=betas)
        found = state.numbers(betas is None)
        going = torch.arange(len(found), device=found.device)  # the people who are not there yet
        numbers, damping = found, torch.full_like(found[:, 0], FIRST_DAMPING)
        residuals, slopes = self.residuals(state, evidence, looser, with_betas=betas is None)
        for _ in range(STEPS):
            tried = numbers - _step(slopes, residuals, damping)
            there = self.residuals(state.having(tried), evidence, looser, with_betas=betas is None)
            cost, cost_there = residuals.square().sum(1), there[0].square().sum(1)
            better = cost_there < cost  # False where it is NaN
            numbers = torch.where(better[:, None], tried, numbers)
            residuals = torch.where(better[:, None], there[0], residuals)
            slopes = torch.where(better[:, None, None], there[1], slopes)
            damping = damping * torch.where(better, EASED, RAISED)
            found = found.index_copy(0, going, numbers)
            going_on = torch.where(better, cost - cost_there > LEAST_GAIN * cost, damping < STUCK)
            if not bool(going_on.any()):
                break
            going, numbers, damping = going[going_on], numbers[going_on], damping[going_on]
            residuals, slopes = residuals[going_on], slopes[going_on]
            state, evidence = state.of(going_on), evidence.of(going_on)
        return start.having(found)

    def residuals(
        self, now: _State, evidence: Evidence, looser: float = 1.0, *, with_betas: bool = True
    ) -> tuple[Tensor, Tensor]:
        """([B R], [B R P]): each about 1 where it is as large as expected, the cost being the sum of their squares; and
        their derivatives by the numbers. looser: by how much larger errors are expected than they are."""
        posed = now.posed()
        parts, slopes = [], []
        if evidence.joints_m.shape[1]:
            joints_m, of_joints = self.joints.with_slopes(*posed)
            weight = evidence.joint_weight[..., None] / (JOINT_ERROR_M * looser)
            parts.append(weight * (joints_m - evidence.joints_m))
            slopes.append(weight[..., None] * of_joints)
        if evidence.rays.shape[1]:
            of_points = self._off_points(*self.points.with_slopes(*posed), evidence, POINT_ERROR * looser)
            parts.append(of_points[0])
            slopes.append(of_points[1])
        bends = now.pose_rad.flatten(1)
        wrong = bends @ self.hinges
        # Clamped: far off, the descent is to go on, not to overflow.
        back = torch.exp((HINGE_STEEPNESS * wrong).clamp(max=10.0))  # [B 4]
        folded = torch.exp((HINGE_STEEPNESS * (-wrong - FOLDED_RAD)).clamp(max=10.0))
        priors = [(bends - self.mean_pose.flatten()) / self.pose_deviation.flatten(), back, folded, now.betas]
        of_priors = bends.new_zeros(len(bends), 69 + 8 + BETAS, NUMBERS)
        of_priors[:, :69, 3:72] = torch.diag(1.0 / self.pose_deviation.flatten())
        of_priors[:, 69:73, 3:72] = HINGE_STEEPNESS * back[..., None] * self.hinges.T
        of_priors[:, 73:77, 3:72] = -HINGE_STEEPNESS * folded[..., None] * self.hinges.T
        of_priors[:, 77:, -BETAS:] = torch.eye(BETAS, device=bends.device)
        found = torch.cat([*(part.flatten(1) for part in parts), *priors], dim=1)
        slope = torch.cat([*(part.flatten(1, 2) for part in slopes), of_priors], dim=1)
        return found, slope if with_betas else slope[..., :-BETAS]

    def _off_points(self, points_m: Tensor, slopes: Tensor, evidence: Evidence, error: float) -> tuple[Tensor, Tensor]:
        """([B K 2], [B K 2 P]): how far the points are from those seen, those far off less. error: that expected, as a
        share of the person's size."""
        z = points_m[..., 2:].clamp(min=NEAREST_M)
        rays = points_m[..., :2] / z
        unit = 1.0 / (error * _longer_side(evidence.rays, evidence.ray_weight))[:, None, None]
        away = unit * (rays - evidence.rays)
        of_away = (unit / z)[..., None] * (slopes[..., :2, :] - rays[..., None] * slopes[..., 2:, :])
        softer = torch.sqrt(1.0 + away.square().sum(-1, keepdim=True) / OUTLIER**2)
        along = (away[..., None] * of_away).sum(-2, keepdim=True)  # [B K 1 P]
        of_softened = of_away / softer[..., None] - away[..., None] * along / (OUTLIER**2 * softer[..., None] ** 3)
        weight = evidence.ray_weight[..., None]
        return weight * away / softer, weight[..., None] * of_softened


def _step(slopes: Tensor, residuals: Tensor, damping: Tensor) -> Tensor:
    """[B P]: by how much the numbers should fall."""
    normal = slopes.mT @ slopes
    diagonal = torch.diagonal(normal, dim1=1, dim2=2)
    normal = normal + torch.diag_embed(damping[:, None] * diagonal + 1e-6)
    return torch.linalg.solve(normal, (slopes.mT @ residuals[..., None])[..., 0])


def _spread(points: Tensor, weight: Tensor) -> Tensor:
    """[B 1]: root mean square distance from the origin; points [B K C], weight [B K 1]."""
    square = (weight * points.square().sum(-1, keepdim=True)).sum(1) / weight.sum(1).clamp(min=1e-6)
    return square.sqrt()


def _longer_side(points: Tensor, weight: Tensor) -> Tensor:
    """[B]: of the box round the points [B K 2] that have a weight [B K]."""
    known = weight[..., None] > 0
    high = torch.where(known, points, -torch.inf).amax(1)
    low = torch.where(known, points, torch.inf).amin(1)
    side = (high - low).amax(-1)
    return torch.where(torch.isfinite(side), side, 1.0).clamp(min=1e-6)


def _pose_prior() -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [23 3] of each joint but the root, rad."""
    mean, deviation = [], []
    for joint in SMPL_24.joints[1:]:
        of_kind = POSES[joint.removeprefix("left_").removeprefix("right_")]
        sign = MIRRORED if joint.startswith("right_") else (1.0, 1.0, 1.0)
        mean.append([value * each for value, each in zip(of_kind[0], sign, strict=True)])
        deviation.append(of_kind[1])
    return torch.tensor(mean), torch.tensor(deviation)


def _hinges() -> Tensor:
    """[69 4]: picks the unnatural bend of each hinge out of a pose without its root."""
    picks = torch.zeros(3 * (len(SMPL_24) - 1), 2 * len(HINGES))
    for number, (side, kind) in enumerate(_hinge_joints()):
        axis, sign = HINGES[kind]
        mirrored = MIRRORED[axis] if side == "right" else 1.0
        picks[3 * (SMPL_24.index(f"{side}_{kind}") - 1) + axis, number] = sign * mirrored
    return picks


def _hinge_joints() -> list[tuple[str, str]]:
    """(side, kind), in the order of `_hinges`' columns."""
    return [(side, kind) for kind in HINGES for side in ("left", "right")]


def _axis_angle(rotations: Tensor) -> Tensor:
    """[... 3 3] -> float32 [... 3], angles up to pi."""
    found = matrix_to_axis_angle(rotations.double().cpu().numpy())
    return torch.from_numpy(found).to(rotations)
