"""Named joint sets and the ways between them. Flip pairs, bones and conversions follow from joint names; no bare
joint number lives elsewhere.

A corpus names its joints as its papers do, and two corpora may call different spots of the body "neck" or "head". So
each joint also has a *point*, the spot it marks: the same in every skeleton that has it. Sets are joined by points.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Skeleton:
    """An ordered joint set: what column `i` of a `[..., J, C]` array means."""

    name: str
    joints: tuple[str, ...]
    parents: tuple[str | None, ...]  # the joint each one hangs from; None for the root and for free joints
    root: str | None  # the joint that root-relative coordinates are measured from; None where the set has none
    marks: Mapping[str, str] = field(default_factory=dict)  # joint -> its point, where that is not the joint's own name
    warning: str | None = None  # told once to whoever asks for the skeleton by name

    def __post_init__(self) -> None:
        assert len(self.joints) == len(set(self.joints)) == len(self.parents), self.name

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Column of a joint. ValueError lists the names there are."""
        if joint not in self.joints:
            raise ValueError(f"skeleton {self.name} has no joint '{joint}'; it has {', '.join(self.joints)}")
        return self.joints.index(joint)

    @property
    def root_index(self) -> int:
        if self.root is None:
            raise ValueError(f"skeleton {self.name} has no root joint")
        return self.index(self.root)

    @cached_property
    def points(self) -> tuple[str, ...]:
        """The spot of the body that each joint marks."""
        return tuple(self.marks.get(joint, joint) for joint in self.joints)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) columns, one per bone."""
        return tuple((self.index(parent), child) for child, parent in enumerate(self.parents) if parent is not None)

    @cached_property
    def flip_permutation(self) -> np.ndarray:
        """int64 [J]: `joints[..., flip_permutation, :]` puts each left joint in its right twin's place and back."""
        return np.array([self.index(_mirrored(joint)) for joint in self.joints], dtype=np.int64)

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """'left', 'right' or 'centre' for each joint."""
        return tuple(
            joint.split("_")[0] if joint.startswith(("left_", "right_")) else "centre" for joint in self.joints
        )


def _mirrored(joint: str) -> str:
    if joint.startswith("left_"):
        return "right_" + joint[len("left_") :]
    if joint.startswith("right_"):
        return "left_" + joint[len("right_") :]
    return joint


def shared_joints(first: Skeleton, second: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the joints that mark the same points, in the first's order: (int64 [S] into first, int64 [S] into
    second)."""
    points = [point for point in first.points if point in second.points]
    return (
        np.array([first.points.index(point) for point in points], dtype=np.int64),
        np.array([second.points.index(point) for point in points], dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class Conversion:
    """Joints in another skeleton, and how each came about. Every name of the target stands in one of the three."""

    joints: np.ndarray  # [..., J C], the input's dtype; NaN where missing
    exact: tuple[str, ...]  # copied: both sets mark the same point
    estimated: tuple[str, ...]  # by ESTIMATES
    missing: tuple[str, ...]


def convert(joints: np.ndarray, source: str | Skeleton, target: str | Skeleton) -> Conversion:
    """[..., J C] in one skeleton -> Conversion with [..., J' C] in another, for 2D and 3D coordinates alike.

    Points both sets have are copied, others are estimated from their neighbours by ESTIMATES where those are there, the
    rest is NaN. A NaN that an estimate needs makes it NaN. Estimates are centimetres off: never score a model on them.
    """
    source, target = _as_skeleton(source), _as_skeleton(target)
    if joints.ndim < 2 or joints.shape[-2] != len(source):
        raise ValueError(f"{source.name} has {len(source)} joints, the array {joints.shape} does not fit it")
    weights, how = _conversion(source, target)
    known = weights @ np.nan_to_num(joints.astype(np.float64))
    # A plain product would let the NaN of one joint spread to joints that do not use it.
    spoilt = (weights != 0).astype(np.float64) @ np.isnan(joints).astype(np.float64) > 0
    missing = np.array([kind == "missing" for kind in how])[:, None]
    result = np.where(spoilt | missing, np.nan, known)
    names = {
        kind: tuple(joint for joint, its in zip(target.joints, how, strict=True) if its == kind)
        for kind in ("exact", "estimated", "missing")
    }
    dtype = joints.dtype if np.issubdtype(joints.dtype, np.floating) else np.float64
    return Conversion(joints=result.astype(dtype), **names)


def _conversion(source: Skeleton, target: Skeleton) -> tuple[np.ndarray, list[str]]:
    """([J' J] weights, 'exact' | 'estimated' | 'missing' for each joint of the target)."""
    columns = {point: np.eye(len(source))[column] for column, point in enumerate(source.points)}
    weights, how = np.zeros((len(target), len(source))), []
    for row, point in enumerate(target.points):
        found = columns.get(point)
        how.append("exact" if found is not None else "estimated")
        if found is None:
            found = _estimate(point, columns)
        if found is None:
            how[-1] = "missing"
        else:
            weights[row] = found
    return weights, how


def _estimate(point: str, columns: Mapping[str, np.ndarray], asked: tuple[str, ...] = ()) -> np.ndarray | None:
    """[J] weights of the first rule whose points are there or can be estimated themselves; None where none applies."""
    if point in asked:
        return None
    for rule in ESTIMATES.get(point, ()):
        parts = [columns[part] if part in columns else _estimate(part, columns, (*asked, point)) for part in rule]
        if all(part is not None for part in parts):
            return sum(weight * part for weight, part in zip(rule.values(), parts, strict=True))  # type: ignore
    return None


def _as_skeleton(skeleton: str | Skeleton) -> Skeleton:
    return get_skeleton(skeleton) if isinstance(skeleton, str) else skeleton


# How a point is estimated from others: point -> rules, best first; a rule is {point: weight}, weights adding up to 1.
# Seen from the base of the neck, the H36M head joint is 0.87 of the way to the crown, the ears 0.65, MPI's "head" (the
# base of the skull) 0.34, MPII's upper neck 0.2; the last two as measured on real labels. No rule invents a limb.
ESTIMATES: dict[str, tuple[dict[str, float], ...]] = {
    "pelvis": ({"left_hip": 0.5, "right_hip": 0.5},),
    "mid_shoulders": ({"left_shoulder": 0.5, "right_shoulder": 0.5},),
    "neck_base": ({"mid_shoulders": 1.0},),
    "upper_neck": (
        {"smpl_neck": 0.5, "smpl_head": 0.5},
        {"neck_base": 0.8, "head_top": 0.2},
    ),
    "spine": ({"pelvis": 0.5, "neck_base": 0.5},),
    "mid_ears": ({"left_ear": 0.5, "right_ear": 0.5},),
    "h36m_head": (
        {"neck_base": 0.13, "head_top": 0.87},
        {"neck_base": -0.33, "mid_ears": 1.33},
        {"neck_base": -1.56, "head_centre": 2.56},
    ),
    "head_top": (
        {"neck_base": -0.15, "h36m_head": 1.15},
        {"neck_base": -0.53, "mid_ears": 1.53},
        {"smpl_neck": -2.0, "smpl_head": 3.0},
    ),
    "head_centre": ({"neck_base": 0.66, "head_top": 0.34},),
    "h36m_neck": ({"neck_base": 0.4, "nose": 0.6}, {"neck_base": 0.5, "h36m_head": 0.5}),
    "nose": ({"neck_base": -0.67, "h36m_neck": 1.67},),
    "smpl_neck": ({"neck_base": 1.0},),
    "smpl_head": ({"h36m_neck": 1.0},),
    "spine1": ({"pelvis": 0.75, "neck_base": 0.25},),
    "spine2": ({"pelvis": 0.5, "neck_base": 0.5},),
    "spine3": ({"pelvis": 0.4, "neck_base": 0.6},),
    "mpi_spine2": ({"pelvis": 0.35, "neck_base": 0.65},),
    "mpi_spine3": ({"pelvis": 0.2, "neck_base": 0.8},),
    "mpi_spine4": ({"pelvis": 0.1, "neck_base": 0.9},),
}


def _skeleton(
    name: str, root: str | None, joints_and_parents: str, warning: str | None = None, **marks: str
) -> Skeleton:
    """From lines 'joint < parent'; a joint without '<' hangs from nothing. marks: the points of joints whose names do
    not tell."""
    pairs = [entry.split("<") for entry in joints_and_parents.split()]
    return Skeleton(
        name=name,
        joints=tuple(pair[0] for pair in pairs),
        parents=tuple(pair[1] if len(pair) == 2 else None for pair in pairs),
        root=root,
        marks=marks,
        warning=warning,
    )


# Human3.6M's 17 of 32 joints. "thorax" is the base of the neck, "neck" the neck or nose (the jaw's height), "head" a
# point on the upper head, some 3 cm below the crown.
H36M_17 = _skeleton(
    "h36m_17",
    "pelvis",
    """pelvis right_hip<pelvis right_knee<right_hip right_ankle<right_knee
    left_hip<pelvis left_knee<left_hip left_ankle<left_knee
    spine<pelvis thorax<spine neck<thorax head<neck
    left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow
    right_shoulder<thorax right_elbow<right_shoulder right_wrist<right_elbow""",
    thorax="neck_base", neck="h36m_neck", head="h36m_head",
)  # fmt: skip

# The official D3_Positions files. Several of the 32 stand where another does (the roots of the spine and of the arms).
H36M_32 = _skeleton(
    "h36m_32",
    "pelvis",
    """pelvis right_hip<pelvis right_knee<right_hip right_ankle<right_knee right_toe_base<right_ankle
    right_toe_end<right_toe_base
    left_hip<pelvis left_knee<left_hip left_ankle<left_knee left_toe_base<left_ankle left_toe_end<left_toe_base
    spine_base<pelvis spine<spine_base thorax<spine neck<thorax head<neck
    left_arm_base<thorax left_shoulder<left_arm_base left_elbow<left_shoulder left_wrist<left_elbow
    left_hand_base<left_wrist left_thumb<left_hand_base left_hand<left_wrist left_hand_end<left_hand
    right_arm_base<thorax right_shoulder<right_arm_base right_elbow<right_shoulder right_wrist<right_elbow
    right_hand_base<right_wrist right_thumb<right_hand_base right_hand<right_wrist right_hand_end<right_hand""",
    thorax="neck_base", neck="h36m_neck", head="h36m_head",
)  # fmt: skip

# COCO keypoints, as Ultralytics pose models give them. No root: the pelvis is not among them.
COCO_17 = _skeleton(
    "coco_17",
    None,
    """nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    left_shoulder<left_ear right_shoulder<right_ear left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder
    left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee""",
)

# OpenPose's COCO model, right before left; its neck is the middle of the shoulders. 3DPW's poses2d.
COCO_18 = _skeleton(
    "coco_18",
    None,
    """nose neck<nose right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
    right_hip<neck right_knee<right_hip right_ankle<right_knee left_hip<neck left_knee<left_hip left_ankle<left_knee
    right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye""",
    neck="mid_shoulders",
)

_MPI_MARKS = {"neck": "neck_base", "head": "head_centre"}
_MPI_SPINE = {"spine2": "mpi_spine2", "spine3": "mpi_spine3", "spine4": "mpi_spine4"}

# MPI-INF-3DHP's annot.mat.
MPI_28 = _skeleton(
    "mpi_28",
    "pelvis",
    """spine3<spine2 spine4<spine3 spine2<spine spine<pelvis pelvis neck<spine4 head<neck head_top<head
    left_clavicle<spine4 left_shoulder<left_clavicle left_elbow<left_shoulder left_wrist<left_elbow left_hand<left_wrist
    right_clavicle<spine4 right_shoulder<right_clavicle right_elbow<right_shoulder right_wrist<right_elbow
    right_hand<right_wrist
    left_hip<pelvis left_knee<left_hip left_ankle<left_knee left_foot<left_ankle left_toe<left_foot
    right_hip<pelvis right_knee<right_hip right_ankle<right_knee right_foot<right_ankle right_toe<right_foot""",
    **_MPI_MARKS, **_MPI_SPINE,
)  # fmt: skip

# The 17 of them that its test set has, in its order; also that of data_train_3dhp.npz.
MPI_17 = _skeleton(
    "mpi_17",
    "pelvis",
    """head_top<head neck<spine right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
    right_hip<pelvis right_knee<right_hip right_ankle<right_knee left_hip<pelvis left_knee<left_hip left_ankle<left_knee
    pelvis spine<pelvis head<neck""",
    **_MPI_MARKS,
)

# A list copied from project to project has the spine in columns 0, 1 and 15: data saved by it lacks the head's top.
MPI_17_LEGACY = _skeleton(
    "mpi_17_legacy",
    "pelvis",
    """spine<pelvis spine4<spine2 right_shoulder<spine4 right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<spine4 left_elbow<left_shoulder left_wrist<left_elbow
    right_hip<pelvis right_knee<right_hip right_ankle<right_knee left_hip<pelvis left_knee<left_hip left_ankle<left_knee
    pelvis spine2<spine head<spine4""",
    "mpi_17_legacy is a wrong, widely copied order of MPI-INF-3DHP's joints; read the corpus anew to get mpi_17, or "
    "convert() what was saved: the top of the head and the neck can only be estimated",
    **_MPI_MARKS, **_MPI_SPINE,
)  # fmt: skip

# The 14 that MPI-INF-3DHP's test protocol scores: mpi_17 without pelvis, spine and head.
MPI_14 = _skeleton(
    "mpi_14",
    None,
    """head_top<neck neck right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
    right_hip<neck right_knee<right_hip right_ankle<right_knee left_hip<neck left_knee<left_hip left_ankle<left_knee""",
    neck="neck_base",
)

MPII_16 = _skeleton(
    "mpii_16",
    "pelvis",
    """right_ankle<right_knee right_knee<right_hip right_hip<pelvis left_hip<pelvis left_knee<left_hip
    left_ankle<left_knee pelvis thorax<pelvis upper_neck<thorax head_top<upper_neck
    right_wrist<right_elbow right_elbow<right_shoulder right_shoulder<thorax
    left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow""",
    thorax="mid_shoulders",
)

# Leeds Sports Pose; what 3DPW is scored on.
LSP_14 = _skeleton(
    "lsp_14",
    None,
    """right_ankle<right_knee right_knee<right_hip right_hip<neck left_hip<neck left_knee<left_hip left_ankle<left_knee
    right_wrist<right_elbow right_elbow<right_shoulder right_shoulder<neck
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow neck head_top<neck""",
    neck="upper_neck",
)

# The union that SPIN (Kolotouros et al. 2019) trains on: LSP's 14, then of MPII, Human3.6M and COCO. Not SMPL's 24.
SPIN_24 = _skeleton(
    "spin_24",
    "pelvis",
    """right_ankle<right_knee right_knee<right_hip right_hip<pelvis left_hip<pelvis left_knee<left_hip
    left_ankle<left_knee right_wrist<right_elbow right_elbow<right_shoulder right_shoulder<thorax
    left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow neck<thorax head_top<neck
    pelvis thorax<spine spine<pelvis jaw<neck head<jaw
    nose<neck left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye""",
    neck="upper_neck", thorax="mid_shoulders", jaw="h36m_neck", head="h36m_head",
)  # fmt: skip

# The joints of the SMPL body model's kinematic tree.
SMPL_24 = _skeleton(
    "smpl_24",
    "pelvis",
    """pelvis left_hip<pelvis right_hip<pelvis spine1<pelvis left_knee<left_hip right_knee<right_hip spine2<spine1
    left_ankle<left_knee right_ankle<right_knee spine3<spine2 left_foot<left_ankle right_foot<right_ankle
    neck<spine3 left_collar<spine3 right_collar<spine3 head<neck left_shoulder<left_collar right_shoulder<right_collar
    left_elbow<left_shoulder right_elbow<right_shoulder left_wrist<left_elbow right_wrist<right_elbow
    left_hand<left_wrist right_hand<right_wrist""",
    neck="smpl_neck", head="smpl_head",
)  # fmt: skip

# One hand, either side: wrist, then each finger from its base to its tip. FreiHAND's order.
HAND_21 = _skeleton(
    "hand_21",
    "wrist",
    "wrist "
    + " ".join(
        f"{finger}_1<wrist {finger}_2<{finger}_1 {finger}_3<{finger}_2 {finger}_4<{finger}_3"
        for finger in ("thumb", "index", "middle", "ring", "little")
    ),
)

SKELETONS = {
    skeleton.name: skeleton
    for skeleton in (
        H36M_17, H36M_32, COCO_17, COCO_18, MPI_28, MPI_17, MPI_17_LEGACY, MPI_14, MPII_16, LSP_14, SPIN_24, SMPL_24,
        HAND_21,
    )
}  # fmt: skip


def get_skeleton(name: str) -> Skeleton:
    """The skeleton of that name. ValueError lists the known ones. A legacy order warns."""
    if name not in SKELETONS:
        raise ValueError(f"unknown skeleton '{name}'; known: {', '.join(sorted(SKELETONS))}")
    skeleton = SKELETONS[name]
    if skeleton.warning:
        warnings.warn(skeleton.warning, stacklevel=2)
    return skeleton
