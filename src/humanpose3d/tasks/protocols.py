"""The published protocols that `main.py --evaluate --protocol NAME` follows: one entry each in PROTOCOLS.

Who is tested, which joints count, what is aligned and what is measured stand here; the measures are measures.py's, the
scoring protocol_scores.py's. docs/EVALUATION.md tells the same for readers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from humanpose3d.skeletons import HAND_21, Skeleton, get_skeleton


def whole_action(name: str) -> str:
    """'Directions 1' and 'Directions 2' -> 'Directions': both takes of an action are one action to the protocol."""
    return re.sub(r" \d+$", "", name)


@dataclass(frozen=True)
class Protocol:
    """Who is tested, on which joints, how. `measures`: keys of MEASURES, the one that papers put first at the front."""

    title: str
    corpus: str  # `PoseSample.corpus` of what it is published for
    skeleton: str  # the joints that are scored
    root: tuple[str, ...]  # points whose middle is the root that both poses are measured from; none: as they stand
    measures: tuple[str, ...]
    alignment: str  # in words
    subjects: tuple[str, ...] = ()  # that are tested; "test" also means every "test/..."; none: all in the chunks
    frames: Mapping[str, int] = field(default_factory=dict)  # official number of each subject's, where one is known
    cameras: tuple[str, ...] = ()  # that are all tested; none: those in the chunks
    every_frame: bool = False  # of a take is tested
    unscored: tuple[str, ...] = ()  # joints shown, but left out of every mean
    dimensions: int = 3
    table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # columns as papers print them -> their joints
    head: tuple[str, ...] = ()  # two joints whose distance in the labels is the head's size; none: the samples tell it
    in_stored_px: bool = False  # pixels are those of the stored pictures, by the cameras; else the model's view's
    deviation: str = ""  # from the published one, whatever is measured
    wants: str = "a model that lifts to 3D"  # what can answer, in words
    action: Callable[[str], str] = str

    @property
    def scored(self) -> list[int]:
        """Columns that count in means."""
        joints = get_skeleton(self.skeleton).joints
        return [column for column, joint in enumerate(joints) if joint not in self.unscored]

    def tests(self, subject: str) -> bool:
        """Whether the subject is one of the protocol's."""
        return not self.subjects or subject in self.subjects or subject.partition("/")[0] in self.subjects


_H36M_P1 = Protocol(
    title="Human3.6M, protocol 1: 17 joints of S9 and S11, roots brought together",
    corpus="human36m",
    skeleton="h36m_17",
    root=("pelvis",),
    subjects=("S9", "S11"),
    cameras=("54138969", "55011271", "58860488", "60457274"),
    every_frame=True,
    measures=("mpjpe_mm", "pa_mpjpe_mm"),
    alignment="root (pelvis); its own error of 0 counts among the 17",
    action=whole_action,
)

_BOTH_SIDES: dict[str, tuple[str, ...]] = {
    name: (f"left_{joint}", f"right_{joint}")
    for name, joint in (
        ("Shoulder", "shoulder"), ("Elbow", "elbow"), ("Wrist", "wrist"), ("Hip", "hip"), ("Knee", "knee"),
        ("Ankle", "ankle"),
    )
}  # fmt: skip

PROTOCOLS: dict[str, Protocol] = {
    "h36m_p1": _H36M_P1,
    "h36m_p2": replace(
        _H36M_P1,
        title="Human3.6M, protocol 2: 17 joints of S9 and S11 after a similarity alignment",
        measures=("pa_mpjpe_mm", "mpjpe_mm", "n_mpjpe_mm", "mpjve_mm"),
        alignment="similarity transform without reflection, each frame its own (PA); root (the others)",
    ),
    "3dhp": Protocol(
        title="MPI-INF-3DHP, test set: 14 joints of the valid frames of TS1 to TS6",
        corpus="mpi_inf_3dhp",
        skeleton="mpi_14",
        root=("pelvis",),
        subjects=("TS1", "TS2", "TS3", "TS4", "TS5", "TS6"),
        frames={"TS1": 603, "TS2": 540, "TS3": 505, "TS4": 553, "TS5": 276, "TS6": 452},
        measures=("pck_percent", "auc_percent", "mpjpe_mm"),
        alignment="root (pelvis), which is none of the 14",
        deviation="against annot3, people at their own size; published figures are against univ_annot3, the same poses "
        "at the size of a universal skeleton, which chunks do not have",
    ),
    "mpii_pckh": Protocol(
        title="MPII, validation set: PCKh@0.5 of 16 joints, pelvis and thorax left out of the mean",
        corpus="mpii",
        skeleton="mpii_16",
        root=(),
        subjects=("valid",),
        frames={"valid": 2958},
        measures=("pckh_percent",),
        alignment="none",
        unscored=("pelvis", "thorax"),
        dimensions=2,
        wants="a 2D heat-map model",
        table={"Head": ("head_top",)} | _BOTH_SIDES,
    ),
    "3dhp_2d": Protocol(
        title="MPI-INF-3DHP, test set in 2D: PCKh@0.5 of the 14 joints, by the head as it is labelled",
        corpus="mpi_inf_3dhp",
        skeleton="mpi_14",
        root=(),
        subjects=("TS1", "TS2", "TS3", "TS4", "TS5", "TS6"),
        frames={"TS1": 603, "TS2": 540, "TS3": 505, "TS4": 553, "TS5": 276, "TS6": 452},
        measures=("pckh_percent",),
        alignment="none; the head's size is the distance from the top of the head to the neck, in the picture",
        dimensions=2,
        wants="a 2D heat-map model",
        table={"Head": ("head_top",)} | _BOTH_SIDES,
        head=("head_top", "neck"),
    ),
    "freihand_2d": Protocol(
        title="FreiHAND in 2D: 21 joints of a hand",
        corpus="freihand",
        skeleton="hand_21",
        root=(),
        measures=("epe_px", "auc_px_percent", "pck_px_percent"),
        alignment="none",
        dimensions=2,
        wants="a 2D heat-map model of hands",
        in_stored_px=True,
    ),
    "3dpw": Protocol(
        title="3DPW, test set: 14 joints regressed from the body's mesh",
        corpus="threedpw",
        skeleton="lsp_14",
        root=("left_hip", "right_hip"),
        subjects=("test",),
        every_frame=True,
        measures=("pa_mpjpe_mm", "mpjpe_mm"),
        alignment="similarity transform without reflection (PA-MPJPE); middle of the hips (MPJPE)",
        wants="a model of body meshes",
    ),
    "freihand": Protocol(
        title="FreiHAND, evaluation set: 21 joints of a hand after a similarity alignment",
        corpus="freihand",
        skeleton="hand_21",
        root=("wrist",),
        subjects=("evaluation",),
        frames={"evaluation": 3960},
        measures=("pa_mpjpe_mm", "pa_auc_percent", "pa_pck15_percent", "mpjpe_mm"),
        alignment="similarity transform without reflection (PA); wrist (MPJPE)",
        wants="a model of hands",
    ),
}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. ValueError lists the known ones."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol '{name}'; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def scored_columns(protocol: Protocol, source: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [J], int64 [R]): where the scored joints and those of the root stand in a skeleton.

    By the points that joints mark: only what `skeletons.convert` copies is taken, for a score over joints that are
    estimated from others says nothing. ValueError names those that are missing.
    """
    target = get_skeleton(protocol.skeleton)
    wanted = dict(zip(target.points, target.joints, strict=True)) | {point: point for point in protocol.root}
    missing = [joint for point, joint in wanted.items() if point not in source.points]
    if missing:
        raise ValueError(
            f"{source.name} has no exact {', '.join(missing)}, which are scored ({len(target)} joints, "
            f"{protocol.skeleton})"
        )
    at = source.points.index
    joints = np.array([at(point) for point in target.points], dtype=np.int64)
    return joints, np.array([at(point) for point in protocol.root], dtype=np.int64)


def check_model(name: str, model_type: str, skeleton: str, dimensions: int = 3) -> Protocol:
    """The protocol of that name. ValueError, one line, where a model of this skeleton cannot answer it."""
    protocol = get_protocol(name)
    whose = f"--protocol {name} needs {protocol.wants}"
    if dimensions != protocol.dimensions:
        raise ValueError(
            f"{whose}: it scores {protocol.dimensions}D joints, and this checkpoint's {model_type} gives {dimensions}D"
        )
    source = get_skeleton(skeleton)
    if (protocol.skeleton == HAND_21.name) != (source is HAND_21):
        raise ValueError(f"{whose} in {protocol.skeleton}; this checkpoint's {model_type} speaks {skeleton}")
    try:
        scored_columns(protocol, source)
    except ValueError as error:
        raise ValueError(f"{whose}: this checkpoint's {model_type} cannot be scored, {error}") from None
    return protocol
