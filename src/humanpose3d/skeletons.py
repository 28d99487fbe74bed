"""Named joint sets. Flip pairs, bones and shared joints follow from joint names; no bare joint number lives elsewhere.

A joint's name is the same in every skeleton that has the joint, so two sets are compared and joined by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Skeleton:
    """An ordered joint set: what column `i` of a `[..., J, C]` array means."""

    name: str
    joints: tuple[str, ...]
    parents: tuple[str | None, ...]  # the joint each one hangs from; None for the root and for free joints
    root: str | None  # the joint that root-relative coordinates are measured from; None where the set has none

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
    """Columns of the joints both sets have, in the first's order: (int64 [S] into first, int64 [S] into second)."""
    names = [joint for joint in first.joints if joint in second.joints]
    return (
        np.array([first.index(name) for name in names], dtype=np.int64),
        np.array([second.index(name) for name in names], dtype=np.int64),
    )


def _skeleton(name: str, root: str | None, joints_and_parents: str) -> Skeleton:
    """From lines 'joint < parent'; a joint without '<' hangs from nothing."""
    pairs = [entry.split("<") for entry in joints_and_parents.split()]
    return Skeleton(
        name=name,
        joints=tuple(pair[0] for pair in pairs),
        parents=tuple(pair[1] if len(pair) == 2 else None for pair in pairs),
        root=root,
    )


# Human3.6M's 17 of 32 joints. "neck" is the base of the neck / nose and "head" the top of the head, as in the corpus.
H36M_17 = _skeleton(
    "h36m_17",
    "pelvis",
    """pelvis right_hip<pelvis right_knee<right_hip right_ankle<right_knee
    left_hip<pelvis left_knee<left_hip left_ankle<left_knee
    spine<pelvis thorax<spine neck<thorax head<neck
    left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow
    right_shoulder<thorax right_elbow<right_shoulder right_wrist<right_elbow""",
)

# COCO keypoints, as Ultralytics pose models give them. No root: the pelvis is not among them.
COCO_17 = _skeleton(
    "coco_17",
    None,
    """nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    left_shoulder<left_ear right_shoulder<right_ear left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder
    left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee""",
)

SKELETONS = {skeleton.name: skeleton for skeleton in (H36M_17, COCO_17)}


def get_skeleton(name: str) -> Skeleton:
    """The skeleton of that name. ValueError lists the known ones."""
    if name not in SKELETONS:
        raise ValueError(f"unknown skeleton '{name}'; known: {', '.join(sorted(SKELETONS))}")
    return SKELETONS[name]
