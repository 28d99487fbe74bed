"""A body model in SMPL's file format that anybody may use: the studio's person as a skinned mesh.

Made as SMPL itself was (Loper et al. 2015), from random bodies: the mean and the first ten principal components are
its template and shape space, so betas are in standard deviations. A vertex follows the bones its part belongs to, and
two of them near a joint. There are no pose correctives. Nothing of it comes from SMPL but the joints and the keys.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from humanpose3d.files import write_whole
from humanpose3d.reports import StageReport
from humanpose3d.sample import GENDERS
from humanpose3d.skeletons import COCO_17, H36M_17, LSP_14, MPI_17, MPII_16, SMPL_24, Skeleton
from humanpose3d.studio.joint_sets import joints_in
from humanpose3d.studio.motion import LEFT, RIGHT, Joints, Pose, solve
from humanpose3d.studio.people import Body, Person, random_person
from humanpose3d.studio.render import Part, body_parts

BETAS = 10
BODIES, BODIES_SEED = 200, 20150  # whose components are the shape space
POSE_NUMBERS = 9 * (len(SMPL_24) - 1)  # of the pose correctives, all of them 0
AROUND, ON_A_CAP = 10, 2  # vertices round a part, rings on the ball at each end
BETWEEN, BETWEEN_LONG = 3, 9  # rings between them, and on the long parts: limbs and trunk
LONG = frozenset({"torso", "sleeve", "cuff", "thigh", "shin"})
BLEND = 0.25  # share of a part's length near a joint over which two bones pull
REGRESSED = (H36M_17, LSP_14, COCO_17, MPII_16, MPI_17)
# A body that faces the studio's y, in SMPL's axes: left, up, forward.
TO_REST = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
REST_PELVIS = np.array([-0.001, -0.13, 0.015])  # against the rest body's origin, in body heights: never 0 in SMPL
RIDGE = 1e-6  # against regressors that balance far-away vertices


@dataclass(frozen=True, eq=False)
class FreeBody:
    """The arrays of the file, and what stands behind them."""

    template_m: np.ndarray  # float64 [V 3], rest pose, y up, facing z
    shape_m: np.ndarray  # float64 [V 3 BETAS]
    faces: np.ndarray  # int64 [F 3], counter-clockwise from outside
    weights: np.ndarray  # float64 [V 24], rows sum to 1
    regressors: dict[str, np.ndarray]  # skeleton's name -> float64 [J V]

    def vertices_m(self, betas: np.ndarray) -> np.ndarray:
        """float64 [V 3]: the rest body of that shape."""
        return self.template_m + self.shape_m @ betas

    def joints_m(self, betas: np.ndarray) -> np.ndarray:
        """float64 [24 3]: its joints in the rest pose."""
        return self.regressors[SMPL_24.name] @ self.vertices_m(betas)

    def betas_of(self, body: Body) -> np.ndarray:
        """float64 [BETAS]: the shape nearest to a studio body."""
        away = (rest_vertices(body) - self.template_m).ravel()
        directions = self.shape_m.reshape(-1, BETAS)
        return directions.T @ away / (directions**2).sum(0)


@lru_cache(maxsize=1)
def free_body() -> FreeBody:
    """Made in a second; the same every time."""
    rng = np.random.default_rng(BODIES_SEED)
    bodies = [random_person(rng).body for _ in range(BODIES)]
    corners = np.array([rest_vertices(body) for body in bodies])
    meshes = corners.reshape(BODIES, -1)
    template = meshes.mean(0)
    _, spread, directions = np.linalg.svd(meshes - template, full_matrices=False)
    signs = np.where(directions.sum(1) < 0, -1.0, 1.0)  # a decomposition may give either
    scale = signs * spread / np.sqrt(len(meshes))
    shape = (scale[:BETAS, None] * directions[:BETAS]).T
    parts = _rest_parts(bodies[0])
    weights = np.concatenate([_weights(part) for part in parts])
    return FreeBody(
        template_m=template.reshape(-1, 3),
        shape_m=shape.reshape(-1, 3, BETAS),
        faces=_all_faces([skinned.part for skinned in parts]),
        weights=weights,
        regressors={
            skeleton.name: _regressor(skeleton, _rest_joints(skeleton, bodies), corners, weights)
            for skeleton in (SMPL_24, *REGRESSED)
        },
    )


def write_free_body(out: Path) -> StageReport:
    """SMPL_NEUTRAL.npz, SMPL_FEMALE.npz and SMPL_MALE.npz below `out`. The studio's people have one shape space, so all
    three hold the same."""
    body = free_body()
    content = io.BytesIO()
    np.savez_compressed(content, **file_arrays(body))  # type: ignore[arg-type]
    for gender in GENDERS:
        write_whole(Path(out) / f"SMPL_{gender.upper()}.npz", content.getvalue())
    report = StageReport("fake")
    report.inputs = len(GENDERS)
    report.facts |= {"out": str(out), "vertices": len(body.template_m), "faces": len(body.faces), "betas": BETAS}
    report.summary = (
        f"wrote a body of {len(body.template_m)} vertices in SMPL's format, for {', '.join(GENDERS)}: {out}"
    )
    return report


def file_arrays(body: FreeBody) -> dict[str, np.ndarray]:
    """SMPL's keys, and two more: regressors of other joint sets, and where the vertices of the face are."""
    parents = [0 if parent is None else SMPL_24.index(parent) for parent in SMPL_24.parents]
    parents[SMPL_24.root_index] = 2**32 - 1  # as in SMPL's own files
    faces = _landmarks(body)
    return {
        "v_template": body.template_m,
        "shapedirs": body.shape_m,
        "posedirs": np.zeros((len(body.template_m), 3, POSE_NUMBERS)),
        "J_regressor": body.regressors[SMPL_24.name],
        "J": body.joints_m(np.zeros(BETAS)),
        "weights": body.weights,
        "kintree_table": np.array([parents, range(len(SMPL_24))], dtype=np.uint32),
        "f": body.faces.astype(np.uint32),
        "vertex_names": np.array(list(faces)),
        "vertex_numbers": np.array(list(faces.values())),
        **{f"J_regressor_{skeleton.name}": body.regressors[skeleton.name] for skeleton in REGRESSED},
    }


def rest_pose(body: Body) -> Joints:
    """Standing, arms out to the sides; the studio's axes."""
    return solve(Pose().hand(LEFT, 1.0, 0.0, 0.0).hand(RIGHT, 1.0, 0.0, 0.0), body)


def rest_vertices(body: Body) -> np.ndarray:
    """float64 [V 3]: the mesh of a studio body in SMPL's rest pose, metres."""
    vertices = np.concatenate([_tube(part.part) for part in _rest_parts(body)])
    return _to_rest(vertices, rest_pose(body), body)


def _to_rest(points_m: np.ndarray, joints: Joints, body: Body) -> np.ndarray:
    return (points_m - joints.h36m[H36M_17.root_index]) @ TO_REST.T + body.height * REST_PELVIS


# -------------------------------------------------------------------------------------------------------- the mesh


@dataclass(frozen=True, eq=False)
class _SkinnedPart:
    """A part of the rest body, and what pulls at it: at its start, along it, at its end."""

    part: Part
    bones: tuple[str, str, str]


# What of `body_parts` follows which joints; limbs are told apart by their side.
_TRUNK = [
    ("hips", ("pelvis", "pelvis", "pelvis")),
    ("torso", ("pelvis", "spine1", "spine2")),
    ("torso", ("spine2", "spine3", "spine3")),
    ("torso", ("left_collar", "spine3", "right_collar")),
    ("neck", ("neck", "neck", "head")),
]
_LIMBS = [
    ("torso", ("spine3", "{}_collar", "{}_shoulder")),
    ("sleeve", ("{}_collar", "{}_shoulder", "{}_elbow")),
    ("cuff", ("{}_shoulder", "{}_elbow", "{}_wrist")),
    ("hand", ("{}_wrist", "{}_wrist", "{}_hand")),
    ("thigh", ("pelvis", "{}_hip", "{}_knee")),
    ("shin", ("{}_hip", "{}_knee", "{}_ankle")),
    ("shoe", ("{}_ankle", "{}_ankle", "{}_foot")),
]
_CLOTHES = replace(random_person(np.random.default_rng(0)).clothes, long_hair=False)  # anybody's: no mesh has them


def _rest_parts(body: Body) -> list[_SkinnedPart]:
    parts = body_parts(Person(body, _CLOTHES), rest_pose(body))
    pulls = [*_TRUNK]
    for side in ("left", "right"):
        pulls += [(kind, tuple(bone.format(side) for bone in bones)) for kind, bones in _LIMBS]  # type: ignore[misc]
    head = [(part.kind, ("head", "head", "head")) for part in parts[len(pulls) :]]
    found = [_SkinnedPart(part, bones) for part, (_, bones) in zip(parts, [*pulls, *head], strict=True)]
    assert all(skinned.part.kind == kind for skinned, (kind, _) in zip(found, [*pulls, *head], strict=True))
    return found


def _tube(part: Part) -> np.ndarray:
    """float64 [n 3]: rings over a round cone, from the pole at its start to the pole at its end, studio axes."""
    along = part.end - part.start
    length = np.linalg.norm(along)
    along = along / max(length, 1e-9) if length > 1e-6 else part.axes[2]
    across = np.cross(along, part.axes[1] if abs(along @ part.axes[1]) < 0.9 else part.axes[0])
    across = across / np.linalg.norm(across)
    aside = np.cross(along, across)
    angles = np.arange(AROUND) * 2 * np.pi / AROUND
    circle = np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * aside
    at, radius = _profile(part, float(length))
    rings = part.start + at[:, None, None] * along + radius[:, None, None] * circle
    poles = (part.start - part.start_radius * along, part.end + part.end_radius * along)
    points = np.concatenate([poles[0][None], rings.reshape(-1, 3), poles[1][None]])
    # The renderer stretches space about the lens; a mesh, about the part's own middle line.
    line = part.start + np.clip((points - part.start) @ along, 0.0, length)[:, None] * along
    offset = (points - line) @ part.axes.T * np.array(part.stretch)
    return line + offset @ part.axes


def _profile(part: Part, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the rings are along the part from its start, and how wide, metres."""
    ball = np.linspace(0.0, np.pi / 2, ON_A_CAP + 1)[1:]
    share = np.linspace(0.0, 1.0, _between(part) + 2)[1:-1]
    at = [-part.start_radius * np.cos(ball), share * length, length + part.end_radius * np.cos(ball[::-1])]
    wide = [
        part.start_radius * np.sin(ball),
        part.start_radius + share * (part.end_radius - part.start_radius),
        part.end_radius * np.sin(ball[::-1]),
    ]
    return np.concatenate(at), np.concatenate(wide)


def _weights(skinned: _SkinnedPart) -> np.ndarray:
    """float64 [n 24]: half a joint's pull at the joint itself, none beyond BLEND of the part's length."""
    part = skinned.part
    length = float(np.linalg.norm(part.end - part.start))
    at, _ = _profile(part, length)
    along = np.concatenate([[-part.start_radius], np.repeat(at, AROUND), [length + part.end_radius]])
    share = np.clip(along / max(length, 1e-9), 0.0, 1.0)
    start = 0.5 * np.clip(1.0 - share / BLEND, 0.0, 1.0)
    end = 0.5 * np.clip(1.0 - (1.0 - share) / BLEND, 0.0, 1.0)
    weights = np.zeros((len(share), len(SMPL_24)))
    for bone, pull in zip(skinned.bones, (start, 1.0 - start - end, end), strict=True):
        weights[:, SMPL_24.index(bone)] += pull
    return weights


def _between(part: Part) -> int:
    return BETWEEN_LONG if part.kind in LONG else BETWEEN


def _all_faces(parts: list[Part]) -> np.ndarray:
    faces, first = [], 0
    for part in parts:
        rings = 2 * ON_A_CAP + _between(part)
        faces.append(first + _tube_faces(rings))
        first += rings * AROUND + 2
    return np.concatenate(faces)


def _tube_faces(rings: int) -> np.ndarray:
    """int64 [F 3]: pole, rings, pole; counter-clockwise from outside."""
    end, last = rings * AROUND + 1, (rings - 1) * AROUND
    faces: list[tuple[int, int, int]] = []
    for step in range(AROUND):
        here, beside = 1 + step, 1 + (step + 1) % AROUND
        faces.append((0, beside, here))
        for ring in range(0, last, AROUND):
            a, b = here + ring, beside + ring
            faces += [(a, b, b + AROUND), (a, b + AROUND, a + AROUND)]
        faces.append((end, here + last, beside + last))
    return np.array(faces)


# -------------------------------------------------------------------------------------------------- joints from it

# The bone that carries a point, where that is not the joint of its own name.
_CARRIED_BY = {
    "pelvis": "pelvis", "left_hip": "pelvis", "right_hip": "pelvis", "spine": "spine1", "spine_base": "pelvis",
    "spine1": "pelvis", "spine2": "spine1", "spine3": "spine3", "mpi_spine2": "spine3", "mpi_spine3": "spine3",
    "mpi_spine4": "spine3", "neck_base": "spine3", "smpl_neck": "spine3", "mid_shoulders": "spine3",
    "left_collar": "spine3", "right_collar": "spine3", "upper_neck": "neck", "smpl_head": "neck",
    "h36m_neck": "head", "h36m_head": "head", "head_top": "head", "head_centre": "head", "nose": "head",
}  # fmt: skip
_LIMBS_CARRIED_BY = {
    "shoulder": "collar", "elbow": "shoulder", "wrist": "elbow", "hand": "wrist", "knee": "hip", "ankle": "knee",
    "foot": "ankle", "eye": "head", "ear": "head",
}  # fmt: skip


def _rest_joints(skeleton: Skeleton, bodies: list[Body]) -> np.ndarray:
    rests = [rest_pose(body) for body in bodies]
    return np.array([_to_rest(joints_in(rest, skeleton), rest, body) for rest, body in zip(rests, bodies, strict=True)])


def _carrier(point: str) -> int:
    if point in _CARRIED_BY:
        return SMPL_24.index(_CARRIED_BY[point])
    side, _, joint = point.partition("_")
    bone = _LIMBS_CARRIED_BY[joint]
    return SMPL_24.index(bone if bone == "head" else f"{side}_{bone}")


def _regressor(skeleton: Skeleton, wanted_m: np.ndarray, meshes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 [J V], rows summing to 1: joints [bodies J 3] from the vertices [bodies V 3] that the joint's bone alone
    moves, by least squares."""
    rows = np.zeros((len(skeleton), meshes.shape[1]))
    for joint, point in enumerate(skeleton.points):
        own = np.flatnonzero(weights[:, _carrier(point)] > 0.99)
        even = np.full(len(own), 1.0 / len(own))
        # Offsets from the vertices' middle: whatever the weights, moving the body moves its joints.
        middle = meshes[:, own].mean(1)
        offsets = np.moveaxis(meshes[:, own] - middle[:, None], 1, 2).reshape(-1, len(own))
        wanted = (wanted_m[:, joint] - middle).ravel()
        row = np.linalg.solve(offsets.T @ offsets + RIDGE * np.eye(len(own)), offsets.T @ wanted)
        rows[joint, own] = even + row - row.mean()
    return rows


def _landmarks(body: FreeBody) -> dict[str, int]:
    """smplx's names -> the vertex nearest to that point of the face."""
    found = {}
    coco_m = body.regressors[COCO_17.name] @ body.template_m
    for name, joint in (
        ("nose", "nose"), ("reye", "right_eye"), ("leye", "left_eye"), ("rear", "right_ear"), ("lear", "left_ear"),
    ):  # fmt: skip
        away = np.linalg.norm(body.template_m - coco_m[COCO_17.index(joint)], axis=1)
        found[name] = int(away.argmin())
    return found
