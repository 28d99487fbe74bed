"""Recorded motion without pictures -> LabelledFrames, filmed by virtual cameras: true keypoints in, H36M-17 out.

<folder>/*_mocap_*.npz, all of them together, no pickle in any:
  joints_h36m_m, joints_coco_m   float32 [N 17 3], metres, world z up, floor at z = 0, not centred
  subject                        int16; -1: not known who
  motion, label                  str: a take (unique over all files), and what is done in it
  frame                          int32: index at 120 Hz, every 12th kept; a gap in it is a gap in the take
CMU's motion, converted, is such a file; `humanpose3d fake mocap` writes another of the studio's people, and both may
lie in one folder.

- "train" and "validation" ask for subjects by a split of our own, VALIDATION; "SX" are people nobody identified. Some
  of SX may be other takes of the validation's people, and some training motion wears their bodies (borrowed skeletons).
- A camera is a function of seed, motion and number, and of where the person walks: within a stretch of 2 to 4 s it
  stands still, the next stretch has another (mocap_cameras.py). `camera_id` "c03" is camera number 3 of each motion.
- Keypoints are the true projections with score 1, missing where they are off the image: noise is the training's affair.
  The track through a stretch's camera covers the whole take, so a window near a stretch's end is still one camera's.
- Training subjects get other bodies, one for each subject and camera number (mocap_bodies.py); validation's are as they
  were recorded, unless `bodies` says otherwise. A key ends with a number of the body, "p123456".
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from humanpose3d.camera import camera_to_pixel, world_to_camera
from humanpose3d.sample import KeypointTrack, LabelledFrame, make_key, subjects_asked_for
from humanpose3d.skeletons import COCO_17, H36M_17
from humanpose3d.sources.mocap_bodies import BodyChanges, draw_build, rebuild
from humanpose3d.sources.mocap_cameras import Shot, film
from humanpose3d.sources.reading import BrokenFile, Remembering, Told, field, read_npz, shaped
from humanpose3d.warp import in_view

NAME = "mocap"
FOLDERS = ("", "")
SUBJECTS_HELP = "train, validation, or S1 S35 ...; SX: people nobody identified"
CUES = "own"
SETTINGS = ("cameras", "camera_seed", "bodies")

FILES = "*_mocap_*.npz"
UNKNOWN = "SX"
TRAIN, VALIDATION_SPLIT = "train", "validation"
# Of CMU: 6 basketball, 8 walking, both with their own skeletons. Of the studio: its people from number 900 on.
VALIDATION = ("S6", "S8")
VALIDATION_FROM = 900
CAPTURE_FPS, CAPTURE_STEP = 120, 12
FPS = CAPTURE_FPS / CAPTURE_STEP
CAMERAS, CAMERA_SEED = 4, 0  # of each motion, unless the caller says otherwise
BODIES = ("auto", "varied", "recorded")
LIMB_BONES = [(p, c) for p, c in H36M_17.bones if H36M_17.joints[c].endswith(("knee", "ankle", "elbow", "wrist"))]
BODY_NUMBERS = 10**6
BOX_MARGIN = 0.1  # of the joints' extent, on each side
EXPECTED = "expected motion in the layout that docs/CORPORA.md describes"
_CAMERA, _BUILD, _TURNS = range(3)  # what a random stream is for


@dataclass(frozen=True, eq=False)
class Motion:
    """One take of one person."""

    name: str
    subject: str  # "S35"
    label: str
    h36m_m: np.ndarray  # float64 [N 17 3], world, z up
    coco_m: np.ndarray  # float64 [N 17 3]
    index: np.ndarray  # int64 [N]: 0-based at FPS, rising; a number left out is a frame that is not there
    file: str


def read_frames(
    images_path: Path,
    annotations_path: Path,
    subjects: Sequence[str],
    frame_step: int = 1,
    *,
    image_pattern: str | None = None,
    cameras: int = CAMERAS,
    camera_seed: int = CAMERA_SEED,
    bodies: str = BODIES[0],
    told: Told,
) -> Iterator[LabelledFrame]:
    """Every `frame_step`-th frame of each motion through each camera, ordered by subject, motion, camera and frame.

    annotations_path: the folder of the files, or one of them. bodies: "varied", "recorded", or "auto": varied for
    training subjects only. FileNotFoundError or ValueError where nothing of what is asked for can be read.
    """
    if image_pattern is not None:
        raise ValueError("motion capture has no images; leave out --image-pattern")
    if bodies not in BODIES:
        raise ValueError(f"unknown bodies '{bodies}'; known: {', '.join(BODIES)}")
    noted = Remembering(told)
    motions = read_motions(Path(annotations_path), noted)
    wanted = _wanted(subjects, {motion.subject for motion in motions}, Path(annotations_path))
    for motion in sorted(motions, key=lambda motion: (wanted.get(motion.subject, -1), motion.name)):
        if motion.subject not in wanted:
            continue
        varied = bodies == "varied" or (bodies == "auto" and not is_validation(motion.subject))
        for number in range(cameras):
            yield from _filmed(motion, number, frame_step, camera_seed, BodyChanges() if varied else None)


def is_validation(subject: str) -> bool:
    """The subject is kept apart from training."""
    number = subject.removeprefix("S")
    return subject in VALIDATION or (number.isdigit() and int(number) >= VALIDATION_FROM)


def _wanted(subjects: Sequence[str], present: set[str], where: Path) -> dict[str, int]:
    """The subjects asked for, each with its place in the order."""
    found: set[str] = set()
    for request in subjects:
        if request in (TRAIN, VALIDATION_SPLIT):
            meant = {subject for subject in present if is_validation(subject) == (request == VALIDATION_SPLIT)}
        else:
            meant = set(subjects_asked_for(request, present))
        if not meant:
            there = ", ".join(sorted(present, key=_subject_order))
            raise ValueError(f"no motion of {request} in {where}; there are {there}, or {TRAIN}, {VALIDATION_SPLIT}")
        found |= meant
    return {subject: place for place, subject in enumerate(sorted(found, key=_subject_order))}


def _subject_order(subject: str) -> tuple[int, str]:
    number = subject.removeprefix("S")
    return (int(number) if number.isdigit() else 10**6, subject)


# --------------------------------------------------------------------------------------------------------- files


def read_motions(path: Path, told: Remembering) -> list[Motion]:
    """All motions of a folder's files, or of one file. A broken file costs itself; the first fault is the error where
    all are."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; --annotations-path names the folder of {FILES}")
    files = sorted(path.glob(FILES)) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"no {FILES} in {path}; --annotations-path names the folder that has them")
    motions: dict[str, Motion] = {}
    for file in files:
        try:
            for motion in _read_file(file):
                if motion.name in motions:
                    raise BrokenFile(
                        file, f"its motion '{motion.name}' is in {motions[motion.name].file} too", "remove one"
                    )
                motions[motion.name] = motion
        except BrokenFile as error:
            told.fault(str(error))
    if not motions:
        raise ValueError(told.faults[0])
    return list(motions.values())


def _read_file(path: Path) -> list[Motion]:
    values = read_npz(path)
    joints = {
        name: shaped(path, name, field(path, values, name, EXPECTED), None, len(skeleton), 3)
        for name, skeleton in (("joints_h36m_m", H36M_17), ("joints_coco_m", COCO_17))
    }
    for name, skeleton in (("h36m_names", H36M_17), ("coco_names", COCO_17)):
        if name in values and tuple(values[name].tolist()) != skeleton.joints:
            raise BrokenFile(path, f"'{name}' is not {skeleton.name}'s order", "is it another version?")
    rows = len(joints["joints_h36m_m"])
    names, labels = (np.asarray(field(path, values, name, EXPECTED)).astype(str) for name in ("motion", "label"))
    subject, frame = (shaped(path, name, field(path, values, name, EXPECTED), None) for name in ("subject", "frame"))
    if {len(joints["joints_coco_m"]), len(names), len(labels), len(subject), len(frame)} != {rows} or not rows:
        raise BrokenFile(path, "its arrays have not one row a frame each")
    if not all(np.isfinite(points).all() for points in joints.values()):
        raise BrokenFile(path, "some joints are not numbers")
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    motions = []
    for start, stop in zip(starts, np.r_[starts[1:], rows], strict=True):
        own = slice(start, stop)
        index = np.rint((frame[own] - frame[start]) / CAPTURE_STEP).astype(np.int64)
        if (np.diff(index) < 1).any():
            raise BrokenFile(path, f"the frames of motion '{names[start]}' do not rise by {CAPTURE_STEP} or more")
        person = int(subject[start])
        motions.append(
            Motion(
                name=str(names[start]),
                subject=f"S{person}" if person >= 0 else UNKNOWN,
                label=str(labels[start]),
                h36m_m=joints["joints_h36m_m"][own],
                coco_m=joints["joints_coco_m"][own],
                index=index,
                file=path.name,
            )
        )
    if len({motion.name for motion in motions}) < len(motions):
        raise BrokenFile(path, "the frames of a motion do not stand together")
    return motions


# -------------------------------------------------------------------------------------------------------- filming


def _filmed(
    motion: Motion, number: int, frame_step: int, seed: int, changes: BodyChanges | None
) -> Iterator[LabelledFrame]:
    """One motion through the camera of that number."""
    h36m_m, coco_m = motion.h36m_m, motion.coco_m
    if changes is not None:
        build = draw_build(changes, _stream(seed, _BUILD, motion.subject, number))
        h36m_m, coco_m = rebuild(h36m_m, coco_m, FPS, build, changes, _stream(seed, _TURNS, motion.name, number))
    shots = film(np.concatenate([h36m_m, coco_m], axis=1), _stream(seed, _CAMERA, motion.name, number))
    for shot in shots:
        yield from _shot_frames(motion, h36m_m, coco_m, shot, f"c{number:02d}", frame_step)


def _shot_frames(
    motion: Motion, h36m_m: np.ndarray, coco_m: np.ndarray, shot: Shot, camera_id: str, frame_step: int
) -> Iterator[LabelledFrame]:
    own = slice(shot.first, shot.last)
    joints_cam_m = world_to_camera(h36m_m[own], shot.camera)
    joints_px = camera_to_pixel(joints_cam_m, shot.camera).astype(np.float32)
    joints_cam_m = joints_cam_m.astype(np.float32)
    track = _track(coco_m, motion.index, shot)
    boxes = _boxes(joints_px)
    score = np.ones(len(H36M_17), np.float32)
    prefix, action = make_key(NAME, motion.subject, motion.name, camera_id), f"{motion.label} {motion.name}"
    person = f"p{_body_number(h36m_m[0])}"
    for row, index in enumerate(motion.index[own].tolist()):
        if index % frame_step:
            continue
        yield LabelledFrame(
            image_path=None,
            key=f"{prefix}-{index:06d}-{person}",
            corpus=NAME,
            subject=motion.subject,
            action=action,
            camera_id=camera_id,
            frame_index=index,
            fps=FPS,
            skeleton=H36M_17.name,
            joints_cam_m=joints_cam_m[row],
            joints_px=joints_px[row],
            joint_score=score,
            camera=shot.camera,
            box_px=boxes[row],
            source_file=motion.file,
            image_size_wh=shot.size_wh,
            keypoint_track=track,
            track_row=index,
        )


def _track(coco_m: np.ndarray, index: np.ndarray, shot: Shot) -> KeypointTrack:
    """The whole take in the shot's image; frames that are not there, and joints off the image, are missing."""
    seen_px = camera_to_pixel(world_to_camera(coco_m, shot.camera), shot.camera)
    points = np.full((index[-1] + 1, len(COCO_17), 3), (np.nan, np.nan, 0.0), np.float32)
    shown = in_view(seen_px, shot.size_wh)
    points[index, :, :2] = np.where(shown[..., None], seen_px, np.nan)
    points[index, :, 2] = shown
    return KeypointTrack(COCO_17.name, points)


def _body_number(h36m_m: np.ndarray) -> int:
    """The same for bodies whose limbs [17 3] measure the same: who it is, for one subject may wear several bodies."""
    parents, children = np.array(LIMB_BONES).T
    lengths_mm = np.rint(1000.0 * np.linalg.norm(h36m_m[children] - h36m_m[parents], axis=-1)).astype(np.int32)
    return zlib.crc32(lengths_mm.tobytes()) % BODY_NUMBERS


def _boxes(joints_px: np.ndarray) -> np.ndarray:
    """float32 [N 4] around the joints, with a margin."""
    low, high = np.nanmin(joints_px, axis=1), np.nanmax(joints_px, axis=1)
    margin = BOX_MARGIN * (high - low)
    return np.concatenate([low - margin, high + margin], axis=1)


def _stream(seed: int, purpose: int, name: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, zlib.crc32(name.encode()), number])
