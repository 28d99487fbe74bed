"""The studio as 3DPW: sequence pickles with SMPL's pose, shape and translation, a camera in somebody's hand, images.

The reader of that layout is `sources/threedpw.py`'s. Pose, shape and joints are those of `free_body.py`, fitted to the
person filmed. One person a sequence: the studio films nobody else.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel, world_to_camera
from humanpose3d.files import write_whole
from humanpose3d.reports import StageReport, progress
from humanpose3d.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humanpose3d.sample import subjects_asked_for
from humanpose3d.skeletons import COCO_17, COCO_18, SMPL_24, convert
from humanpose3d.studio.film import Scene, cast_scene, film_scene
from humanpose3d.studio.free_body import free_body
from humanpose3d.studio.joint_sets import joints_in
from humanpose3d.studio.motion import ACTIONS, solve
from humanpose3d.studio.shoot import claim, encode_jpeg, in_processes
from humanpose3d.warp import in_view

LAYOUTS = ("official", "spin")
# Subject -> person of the studio and action of Human3.6M's numbers.
_CAST = {
    "train/courtyard_walking_00": (200, 14),
    "train/downtown_greeting_00": (201, 5),
    "train/flat_sitting_00": (202, 9),
    "validation/outdoors_directions_00": (203, 2),
    "test/downtown_walkDog_00": (204, 15),
    "test/office_phoneCall_00": (205, 6),
}
SUBJECTS = tuple(_CAST)
# Beyond them a crowd, asked for by number: "train/studio_000" or "train/studio_000-199", each a person of its own.
CROWD = re.compile(r"(train|validation|test)/studio_(\d{3})(?:-(\d{3}))?")
_CROWD_FROM = {"train": 1000, "validation": 2000, "test": 3000}  # their numbers among the studio's people
CAPTURE_FPS, FRAME_STEP = 30.0, 10  # the corpus's rate, and how many of its frames lie between two of ours
FPS = CAPTURE_FPS / FRAME_STEP
SWAY_RAD, BOB_M, SWAY_PER_FRAME = 0.08, 0.04, 0.45  # how the hand that holds the camera moves
DETECTION_SCORE, LEAST_JOINTS = 0.9, 6  # of poses2d: fewer joints than these and the corpus has zeros
SPIN_ENLARGED = 1.2
VERTICES = 6890  # of SMPL's mesh

# The corpus's world, y up, against the studio's, z up: another frame and another origin.
TO_CORPUS = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
ORIGIN_M = np.array([0.3, -1.9, 1.2])


@dataclass(frozen=True)
class _Job:
    """What one worker films: a sequence."""

    out: Path
    subject: str
    frames: int
    size: int
    seed: int


def write_threedpw(
    out: Path,
    *,
    subjects: Sequence[str] = SUBJECTS,
    frames_per_take: int = 8,
    size: int = 256,
    seed: int = 0,
    workers: int = 1,
    layout: str = LAYOUTS[0],
) -> StageReport:
    """`imageFiles/` and `sequenceFiles/` below `out`, or with layout "spin" `imageFiles/` and `3dpw_<split>.npz`.

    Neighbouring frames are FRAME_STEP of the corpus's frames apart, so that poses vary. Images that exist are kept.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"3DPW is written as {' or '.join(LAYOUTS)}, not as '{layout}'")
    if frames_per_take < 1 or size < 32:
        raise ValueError(f"frames_per_take is {frames_per_take}, size {size}; at least 1 frame of 32 px is needed")
    out, chosen = Path(out), _chosen(subjects)
    claim(out, {"corpus": "threedpw", "seed": seed, "size": size})
    report = StageReport("fake")
    jobs = [_Job(out, subject, frames_per_take, size, seed) for subject in chosen]
    report.inputs = len(jobs) * frames_per_take
    with progress("filming", report.inputs) as bar:
        for written, kept in in_processes(_film_sequence, jobs, workers):
            report.count("images", written)
            report.count("already there", kept)
            bar.advance(written + kept)
    sequences = {subject: sequence_data(subject, frames_per_take, size=size, seed=seed) for subject in chosen}
    if layout == "official":
        for subject, data in sequences.items():
            # Protocol 2, as the corpus's own: its files were made by Python 2.
            write_whole(out / "sequenceFiles" / f"{subject}.pkl", pickle.dumps(data, protocol=2))
    else:
        _write_tables(out, sequences)
    report.summary = (
        f"filmed {report.counts['images']} images of {len(chosen)} sequences"
        f" ({report.counts['already there']} were there) in {out}"
    )
    report.facts |= {
        "out": str(out), "layout": layout, "subjects": chosen, "fps": FPS, "frame_step": FRAME_STEP, "seed": seed,
        "size": size,
    }  # fmt: skip
    return report


def _chosen(subjects: Sequence[str]) -> list[str]:
    found = {subject: _crowd(subject) or subjects_asked_for(subject, SUBJECTS) for subject in subjects}
    unknown = [subject for subject, meant in found.items() if not meant]
    if unknown:
        raise ValueError(
            f"the studio has no 3DPW sequence '{unknown[0]}'; it has {', '.join(SUBJECTS)}, "
            "and train/studio_000 to _999 (validation and test likewise), also as train/studio_000-099"
        )
    return sorted(set().union(*found.values()))


def _crowd(request: str) -> list[str]:
    """The sequences of the crowd that a request means."""
    if (match := CROWD.fullmatch(request)) is None:
        return []
    first, last = int(match[2]), int(match[3] or match[2])
    return [f"{match[1]}/studio_{number:03d}" for number in range(first, last + 1)]


def _cast(subject: str) -> tuple[int, int]:
    """(person, action)."""
    if (match := CROWD.fullmatch(subject)) is None:
        return _CAST[subject]
    number, actions = int(match[2]), sorted(ACTIONS)
    return _CROWD_FROM[match[1]] + number, actions[number % len(actions)]


def _film_sequence(job: _Job) -> tuple[int, int]:
    """(images written, images that were there)."""
    scene = sequence_scene(job.subject, size=job.size, seed=job.seed)
    written = kept = 0
    for frame in range(job.frames):
        path = job.out / image_name(job.subject, frame)
        if path.exists():
            kept += 1
            continue
        held = replace(scene, cameras={1: camera_at(scene, frame)})
        write_whole(path, encode_jpeg(film_scene(held, 1, frame, seed=job.seed).image))
        written += 1
    return written, kept


def image_name(subject: str, frame: int) -> str:
    """Path below `out`: "imageFiles/courtyard_walking_00/image_00000.jpg"."""
    return f"imageFiles/{_sequence(subject)}/image_{frame:05d}.jpg"


def sequence_scene(subject: str, *, size: int = 256, seed: int = 0) -> Scene:
    """Who does what in that sequence."""
    person, action = _cast(subject)
    return cast_scene(subject, person, action, 1, size=size, seed=seed, fps=FPS)


def camera_at(scene: Scene, frame: int) -> Camera:
    """The camera of an image: one of the scene's, in an unquiet hand; its middle is the image's, as in the corpus."""
    number, _ = _cast(scene.subject)
    still = scene.cameras[1 + number % len(scene.cameras)]
    phase = SWAY_PER_FRAME * frame
    c, s = np.cos(SWAY_RAD * np.sin(phase)), np.sin(SWAY_RAD * np.sin(phase))
    round_the_room = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    middle = scene.size / 2.0
    return Camera.create(
        np.diag(still.K)[:2],
        (middle, middle),
        still.R @ round_the_room,
        still.t_m + BOB_M * np.array([np.sin(1.7 * phase), np.cos(phase), np.sin(0.6 * phase)]),
    )


def _sequence(subject: str) -> str:
    return subject.split("/")[1]


# ------------------------------------------------------------------------------------------------------- labels


def sequence_data(subject: str, frames: int, *, size: int = 256, seed: int = 0) -> dict[str, Any]:
    """What the sequence's pickle holds, field by field as in the corpus."""
    scene = sequence_scene(subject, size=size, seed=seed)
    betas = free_body().betas_of(scene.person.body)
    rest_m = free_body().joints_m(betas)
    # The motion has twice the images' rate, and img_frame_ids picks the images' poses out of it.
    motion = [solve(scene.take.pose_at(half / (2 * FPS)), scene.person.body) for half in range(2 * frames)]
    fitted = [fit_pose(rest_m, joints_in(joints, SMPL_24) @ TO_CORPUS.T + ORIGIN_M) for joints in motion]
    pose_60hz, trans_60hz = (np.array(values) for values in zip(*fitted, strict=True))
    poses, trans_m = pose_60hz[::2], trans_60hz[::2]
    joints_world_m = np.array([pose_joints(rest_m, *labels) for labels in zip(poses, trans_m, strict=True)])
    cameras = [camera_at(scene, frame) for frame in range(frames)]
    number, _ = _cast(subject)
    return {
        "sequence": np.array(_sequence(subject)),
        "poses": [poses.reshape(frames, -1)],
        "trans": [trans_m],
        "betas": [betas],
        "genders": ["m" if number % 2 else "f"],
        "jointPositions": [joints_world_m.reshape(frames, -1)],
        "poses2d": [np.array([_detections(scene, camera, frame) for frame, camera in enumerate(cameras)])],
        "cam_poses": np.array([_cam_pose(camera) for camera in cameras]),
        "cam_intrinsics": cameras[0].K,
        "campose_valid": [np.ones(frames, dtype=np.uint8)],
        "img_frame_ids": np.arange(0, 2 * frames, 2, dtype=np.uint16),
        "poses_60Hz": [pose_60hz.reshape(2 * frames, -1)],
        "trans_60Hz": [trans_60hz],
        "betas_clothed": [betas],
        "v_template_clothed": [np.zeros((VERTICES, 3))],
        "texture_maps": [],
    }


def _cam_pose(camera: Camera) -> np.ndarray:
    """float64 [4 4], the corpus's world -> camera."""
    pose = np.eye(4)
    pose[:3, :3] = camera.R @ TO_CORPUS.T
    pose[:3, 3] = camera.t_m - pose[:3, :3] @ ORIGIN_M
    return pose


def _detections(scene: Scene, camera: Camera, frame: int) -> np.ndarray:
    """float64 [3 18]: x, y, score of `coco_18` where the image shows it; zeros where not, or where too few are left."""
    coco_px = camera_to_pixel(world_to_camera(scene.joints_at(frame).coco, camera), camera)
    points_px = convert(coco_px, COCO_17, COCO_18).joints
    seen = in_view(points_px, (scene.size, scene.size))
    if seen.sum() < LEAST_JOINTS:
        seen[:] = False
    found = np.column_stack([np.nan_to_num(points_px), np.full(len(COCO_18), DETECTION_SCORE)])
    return np.where(seen[:, None], found, 0.0).T


def _write_tables(out: Path, sequences: dict[str, dict[str, Any]]) -> None:
    """One 3dpw_<split>.npz a split, a row for each person that the corpus's detector found."""
    for split in sorted({subject.split("/")[0] for subject in sequences}):
        rows = [
            row
            for subject, data in sequences.items()
            if subject.startswith(split + "/")
            for row in _table_rows(subject, data)
        ]
        columns: dict[str, Any] = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        content = io.BytesIO()
        np.savez(content, **columns)
        write_whole(out / f"3dpw_{split}.npz", content.getvalue())


def _table_rows(subject: str, data: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for frame, (pose, detections) in enumerate(zip(data["poses"][0], data["poses2d"][0], strict=True)):
        found_px = detections[:2, detections[2] > 0]
        if not found_px.size:
            continue
        low, high = found_px.min(1), found_px.max(1)
        pose = pose.copy()
        pose[:3] = matrix_to_axis_angle(data["cam_poses"][frame, :3, :3] @ axis_angle_to_matrix(pose[:3]))
        rows.append(
            {
                "imgname": image_name(subject, frame),
                "center": (low + high) / 2.0,
                "scale": SPIN_ENLARGED * (high - low).max() / 200.0,
                "pose": pose,
                "shape": data["betas"][0],
                "gender": data["genders"][0],
            }
        )
    return rows


# ----------------------------------------------------------------------------------------------- SMPL's kinematics


def pose_joints(rest_m: np.ndarray, pose_rad: np.ndarray, trans_m: np.ndarray) -> np.ndarray:
    """SMPL's joints [24 3]: each joint turns all that hangs from it, then the body moves by trans."""
    local = axis_angle_to_matrix(pose_rad)
    turned, joints_m = np.empty_like(local), np.empty_like(rest_m)
    turned[0], joints_m[0] = local[0], rest_m[0] + trans_m
    for parent, child in SMPL_24.bones:
        turned[child] = turned[parent] @ local[child]
        joints_m[child] = joints_m[parent] + turned[parent] @ (rest_m[child] - rest_m[parent])
    return joints_m


def fit_pose(rest_m: np.ndarray, joints_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pose [24 3], trans [3]) that bring rest joints [24 3] onto joints [24 3], as near as bones of fixed length can.

    Where several bones meet they are turned as one, else a bone is swung without twist; hands, feet and head stay.
    """
    turned, posed = np.empty((len(SMPL_24), 3, 3)), joints_m.copy()
    for joint, parent in enumerate(SMPL_24.parents):
        before = np.eye(3) if parent is None else turned[SMPL_24.index(parent)]
        children = [child for above, child in SMPL_24.bones if above == joint]
        bones = rest_m[children] - rest_m[joint]
        wanted = joints_m[children] - posed[joint]
        if len(children) > 1:
            turned[joint] = _best_rotation(bones, wanted)
        elif children:
            turned[joint] = _swing(before @ bones[0], wanted[0]) @ before
        else:
            turned[joint] = before
        posed[children] = posed[joint] + bones @ turned[joint].T
    local = turned.copy()
    for parent_index, child in SMPL_24.bones:
        local[child] = turned[parent_index].T @ turned[child]
    return matrix_to_axis_angle(local), joints_m[0] - rest_m[0]


def _best_rotation(vectors: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The rotation [3 3] that brings vectors [n 3] nearest to `wanted` [n 3] in the least squares (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(wanted.T @ vectors)
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt


def _swing(vector: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The smallest rotation [3 3] that points a vector the way of another."""
    axis = np.cross(vector, wanted)
    sine = np.linalg.norm(axis)
    return axis_angle_to_matrix(axis / max(sine, 1e-12) * np.arctan2(sine, vector @ wanted))
