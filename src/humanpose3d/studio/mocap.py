"""The studio's motion without pictures, in the layout that `sources/mocap.py` reads: what captured motion lacks.

All of Human3.6M's fifteen kinds of action: sitting, crouching, kneeling, the floor, crossed limbs. Joints are placed as
CMU's are (hip centres, spine, neck and head by its skeletons' proportions), so that one model can learn from both.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from humanpose3d.files import write_whole
from humanpose3d.reports import StageReport, progress
from humanpose3d.sample import normalise_subject
from humanpose3d.skeletons import COCO_17, H36M_17
from humanpose3d.studio.motion import ACTIONS, Joints, make_take, solve
from humanpose3d.studio.people import Body
from humanpose3d.studio.shoot import in_processes

LAYOUTS = ("npz",)
FILE = "studio_mocap_10fps.npz"
FIRST, LAST = 101, 999  # numbers of the studio's people; from 900 on the reader keeps them for validation
SUBJECTS = (*(f"S{number}" for number in range(101, 117)), *(f"S{number}" for number in range(901, 905)))
FPS, CAPTURE_STEP = 10.0, 12  # and how far apart the frames' numbers are, at 120 Hz
STATURE_M, STATURE_SPREAD_M, STATURE_RANGE_M = 1.70, 0.09, (1.50, 1.92)
VARIED = 0.04  # each bone, either way

# Shares of the leg (thigh and shin) in CMU's own skeletons, as measured; the leg's of the stature.
LEG, THIGH, SHIN, ANKLE_HEIGHT = 0.491, 0.482, 0.518, 0.10
HIP_HALF_WIDTH, PELVIS_TO_SPINE, SPINE_TO_THORAX = 0.102, 0.261, 0.281
SHOULDER_HALF_WIDTH, SHOULDER_RISE, UPPER_ARM, FOREARM = 0.217, 0.083, 0.353, 0.288
NECK, HEAD = (0.0, -0.021, 0.171), (0.0, 0.0, 0.172)  # right, forward, up: from the thorax, from the neck
# Shares of the stature, from the head joint: right, forward, up.
FACE = {
    "nose": (0.0, 0.0644, -0.0410),
    "left_eye": (-0.0182, 0.0456, -0.0228),
    "right_eye": (0.0182, 0.0456, -0.0228),
    "left_ear": (-0.0416, 0.0, -0.0285),
    "right_ear": (0.0416, 0.0, -0.0285),
}
_PERSON, _TAKE = range(2)  # what a random stream is for


@dataclass(frozen=True)
class _Job:
    """One person's takes."""

    number: int
    frames: int
    seed: int


def write_mocap(
    out: Path,
    *,
    subjects: Sequence[str] = SUBJECTS,
    frames_per_take: int = 50,
    size: int = 0,
    seed: int = 0,
    workers: int = 1,
    layout: str = LAYOUTS[0],
) -> StageReport:
    """`studio_mocap_10fps.npz` in `out`: each subject in all actions. ValueError for people who are not in the studio.

    The same request gives the same bytes, whatever `workers` is.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"motion is written as {', '.join(LAYOUTS)}, not as '{layout}'")
    if size:
        raise ValueError("motion has no pictures; leave out --size")
    if frames_per_take < 1:
        raise ValueError(f"frames_per_take is {frames_per_take}; at least 1 frame is needed")
    jobs = [_Job(number, frames_per_take, seed) for number in sorted({_number(subject) for subject in subjects})]
    report = StageReport("fake")
    report.inputs = len(jobs) * len(ACTIONS) * frames_per_take
    acted: dict[int, np.ndarray] = {}
    with progress("acting", len(jobs)) as bar:
        for number, joints in in_processes(_act, jobs, workers):
            acted[number] = joints
            bar.advance()
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / FILE, _npz(acted))
    report.count("frames", report.inputs)
    report.summary = f"wrote {report.inputs} frames of {len(jobs)} people in {len(ACTIONS)} actions to {out / FILE}"
    return report


def _number(subject: str) -> int:
    number = normalise_subject(subject).removeprefix("S")
    if not number.isdigit() or not FIRST <= int(number) <= LAST:
        raise ValueError(f"the studio has no subject '{subject}' for motion; it has S{FIRST} to S{LAST}")
    return int(number)


def _act(job: _Job) -> tuple[int, np.ndarray]:
    """(number, float32 [actions frames 2 17 3]: H36M-17 and COCO-17 joints)."""
    body = _random_body(np.random.default_rng([job.seed, _PERSON, job.number]))
    takes = [
        make_take(action, body, np.random.default_rng([job.seed, _TAKE, job.number, action])) for action in ACTIONS
    ]
    joints = [
        [_captured(solve(take.pose_at(frame / FPS), body), body) for frame in range(job.frames)] for take in takes
    ]
    return job.number, np.array(joints, np.float32)


def _random_body(rng: np.random.Generator) -> Body:
    """A body of CMU's proportions."""
    height = float(np.clip(rng.normal(STATURE_M, STATURE_SPREAD_M), *STATURE_RANGE_M))

    def length(share: float) -> float:
        return float(share * LEG * height * rng.uniform(1 - VARIED, 1 + VARIED))

    return Body(
        height=height,
        girth=1.0,
        hip_half_width=length(HIP_HALF_WIDTH),
        thigh=length(THIGH),
        shin=length(SHIN),
        ankle_height=length(ANKLE_HEIGHT),
        pelvis_to_spine=length(PELVIS_TO_SPINE),
        spine_to_thorax=length(SPINE_TO_THORAX),
        shoulder_half_width=length(SHOULDER_HALF_WIDTH),
        shoulder_drop=-length(SHOULDER_RISE),
        upper_arm=length(UPPER_ARM),
        forearm=length(FOREARM),
        head_scale=1.0,
    )


def _captured(joints: Joints, body: Body) -> np.ndarray:
    """float64 [2 17 3]: the joints with neck, head and face where CMU's skeletons have them."""
    h36m, coco = joints.h36m.copy(), joints.coco.copy()
    neck_axes = joints.chest + joints.head  # between the two; rows right, forward, up
    neck_axes = neck_axes / np.linalg.norm(neck_axes, axis=1, keepdims=True)
    leg = LEG * body.height
    neck = h36m[H36M_17.index("thorax")] + leg * np.array(NECK) @ neck_axes
    head = neck + leg * np.array(HEAD) @ joints.head
    h36m[H36M_17.index("neck")], h36m[H36M_17.index("head")] = neck, head
    for name, offset in FACE.items():
        coco[COCO_17.index(name)] = head + body.height * np.array(offset) @ joints.head
    return np.array([h36m, coco])


def _npz(acted: dict[int, np.ndarray]) -> bytes:
    """The file: a row for each frame, person after person and action after action."""
    numbers, names = sorted(acted), [name for name, _ in ACTIONS.values()]
    frames = acted[numbers[0]].shape[1]
    joints = np.concatenate([acted[number].reshape(-1, 2, 17, 3) for number in numbers])
    motions = [f"studio_S{number}_{name}" for number in numbers for name in names]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        joints_h36m_m=joints[:, 0],
        joints_coco_m=joints[:, 1],
        subject=np.repeat(np.array(numbers, np.int16), len(names) * frames),
        motion=np.repeat(motions, frames),
        label=np.repeat(np.tile(names, len(numbers)), frames),
        frame=np.tile(np.arange(frames, dtype=np.int32) * CAPTURE_STEP, len(motions)),
        h36m_names=np.array(H36M_17.joints),
        coco_names=np.array(COCO_17.joints),
    )
    return buffer.getvalue()
