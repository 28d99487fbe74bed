"""The studio written as Human3.6M, in the forms that people have on disk.

"3dmppe", the most common, here: images and JSON, millimetres, z up, R X + t. "official", the corpus's own archives, and
"npz", VideoPose3D's file, in `human36m_archives.py`. Depth is part of none (see `film` for frames with depth).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.camera import camera_to_pixel, world_to_camera
from humanpose3d.files import write_whole
from humanpose3d.reports import StageReport, progress
from humanpose3d.studio.film import (
    BOX_MARGIN,
    FPS,
    FRAME_STEP,
    SUBACTIONS,
    SUBJECTS,
    Scene,
    film_scene,
    make_scene,
    subject_number,
)
from humanpose3d.studio.human36m_archives import write_archives
from humanpose3d.studio.motion import ACTIONS
from humanpose3d.studio.room import CAMERA_IDS
from humanpose3d.studio.shoot import claim, encode_jpeg, in_processes

LAYOUTS = ("3dmppe", "official", "npz")
FEWER_SUBJECTS, FEWER_ACTIONS = ("S1", "S5", "S9", "S11"), (2, 14)  # of the last two, whose frames are 1/50 s apart


@dataclass(frozen=True)
class _TakeJob:
    """What one worker films: a take through all cameras."""

    out: Path
    subject: str
    action: int
    subaction: int
    cameras: tuple[int, ...]
    frames: int
    size: int
    seed: int


def take_name(subject: str | int, action: int, subaction: int, camera: int) -> str:
    """'s_01_act_02_subact_01_ca_01'."""
    return f"s_{subject_number(subject):02d}_act_{action:02d}_subact_{subaction:02d}_ca_{camera:02d}"


def image_name(subject: str | int, action: int, subaction: int, camera: int, frame: int) -> str:
    """Path below `images/`. Frames count from 0, file names from 1."""
    name = take_name(subject, action, subaction, camera)
    return f"{name}/{name}_{frame + 1:06d}.jpg"


def write_human36m(
    out: Path,
    *,
    subjects: Iterable[str | int] | None = None,
    actions: Iterable[int] | None = None,
    subactions: Sequence[int] = SUBACTIONS,
    frames_per_take: int = 8,
    cameras: Sequence[int] = CAMERA_IDS,
    size: int = 256,
    seed: int = 0,
    workers: int = 1,
    layout: str = LAYOUTS[0],
) -> StageReport:
    """Human3.6M below `out`; the report counts the images written and those already there.

    In the layout "3dmppe", `images/` and `annotations/`, neighbouring frames are FRAME_STEP frames of 50 Hz apart
    (`info.fps` in the data files), so that poses vary; by default all subjects and actions. In the others they follow
    each other, and fewer people do less. Images and videos that exist are kept: a run stopped anywhere and started
    again ends with the same bytes. A folder filmed with another seed or size is refused.
    """
    out = Path(out)
    if layout not in LAYOUTS:
        raise ValueError(f"the studio writes human36m as {', '.join(LAYOUTS)}, not as '{layout}'")
    few = layout != LAYOUTS[0]
    asked = (FEWER_SUBJECTS if few else SUBJECTS) if subjects is None else subjects
    names = [f"S{subject_number(subject)}" for subject in asked]
    chosen = list((FEWER_ACTIONS if few else ACTIONS) if actions is None else actions)
    _check(chosen, subactions, cameras, frames_per_take, size)
    if few:
        return write_archives(
            out,
            names,
            chosen,
            subactions,
            frames_per_take,
            cameras,
            size=size,
            seed=seed,
            workers=workers,
            layout=layout,
        )
    claim(out, {"seed": seed, "size": size})
    report = StageReport("fake")
    jobs = [
        _TakeJob(out, name, action, subaction, tuple(cameras), frames_per_take, size, seed)
        for name in names
        for action in chosen
        for subaction in subactions
    ]
    with progress("filming", len(jobs) * len(cameras) * frames_per_take) as bar:
        for written, kept in in_processes(_film_take, jobs, workers):
            report.count("images", written)
            report.count("already there", kept)
            bar.advance(written + kept)
    for name in names:
        _write_annotations(out, name, jobs, size, seed)
    report.inputs = len(jobs) * len(cameras) * frames_per_take
    report.summary = (
        f"filmed {report.counts['images']} images of {len(names)} subjects and {len(chosen)} actions"
        f" ({report.counts['already there']} were there) in {out}"
    )
    report.facts |= {
        "out": str(out),
        "subjects": names,
        "fps": FPS,
        "frame_step": FRAME_STEP,
        "seed": seed,
        "size": size,
    }
    return report


def _check(actions: Sequence[int], subactions: Sequence[int], cameras: Sequence[int], frames: int, size: int) -> None:
    for what, given, known in (
        ("action", actions, ACTIONS),
        ("subaction", subactions, SUBACTIONS),
        ("camera", cameras, CAMERA_IDS),
    ):
        unknown = [number for number in given if number not in known]
        if unknown:
            raise ValueError(f"the studio has no {what} {unknown[0]}; it has {', '.join(map(str, known))}")
    if frames < 1 or size < 32:
        raise ValueError(f"frames_per_take is {frames} and size {size}; at least 1 frame of 32 px is needed")


def _film_take(job: _TakeJob) -> tuple[int, int]:
    """(images written, images that were there)."""
    scene = make_scene(job.subject, job.action, job.subaction, size=job.size, seed=job.seed)
    written = kept = 0
    for camera in job.cameras:
        for frame in range(job.frames):
            path = job.out / "images" / image_name(job.subject, job.action, job.subaction, camera, frame)
            if path.exists():
                kept += 1
                continue
            image = film_scene(scene, camera, frame, seed=job.seed).image
            write_whole(path, encode_jpeg(image))
            written += 1
    return written, kept


# --------------------------------------------------------------------------------------------------- annotations


def _write_annotations(out: Path, subject: str, jobs: list[_TakeJob], size: int, seed: int) -> None:
    """The subject's three files, for the frames asked for."""
    number = subject_number(subject)
    own = [job for job in jobs if job.subject == subject]
    scenes = {
        (job.action, job.subaction): make_scene(subject, job.action, job.subaction, size=size, seed=seed) for job in own
    }
    cameras = next(iter(scenes.values())).cameras
    joints_mm = {
        (job.action, job.subaction, frame): 1000.0 * scenes[job.action, job.subaction].joints_at(frame).h36m
        for job in own
        for frame in range(job.frames)
    }
    files: dict[str, Any] = {
        "camera": {
            str(camera_id): {
                "R": camera.R.tolist(),
                "t": (1000.0 * camera.t_m).tolist(),
                "f": [camera.K[0, 0], camera.K[1, 1]],
                "c": camera.K[:2, 2].tolist(),
            }
            for camera_id, camera in cameras.items()
        },
        "joint_3d": _by_take(joints_mm),
        "data": _coco(number, own, scenes, joints_mm, size),
    }
    for what, content in files.items():
        write_whole(out / "annotations" / f"Human36M_subject{number}_{what}.json", json.dumps(content).encode())


def _by_take(joints_mm: dict[tuple[int, int, int], np.ndarray]) -> dict[str, dict[str, dict[str, list]]]:
    """{action: {subaction: {frame: [17][3]}}}, world, millimetres."""
    nested: dict[str, dict[str, dict[str, list]]] = {}
    for (action, subaction, frame), joints in joints_mm.items():
        nested.setdefault(str(action), {}).setdefault(str(subaction), {})[str(frame)] = joints.tolist()
    return nested


def _coco(
    number: int,
    jobs: list[_TakeJob],
    scenes: dict[tuple[int, int], Scene],
    joints_mm: dict[tuple[int, int, int], np.ndarray],
    size: int,
) -> dict[str, Any]:
    """The data file: one image and one person of it per camera and frame."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for job in jobs:
        for camera_id in job.cameras:
            camera = scenes[job.action, job.subaction].cameras[camera_id]
            for frame in range(job.frames):
                image_id = number * 10_000_000 + len(images)
                images.append(
                    {
                        "id": image_id,
                        "file_name": image_name(number, job.action, job.subaction, camera_id, frame),
                        "width": size,
                        "height": size,
                        "subject": number,
                        "action_name": ACTIONS[job.action][0],
                        "action_idx": job.action,
                        "subaction_idx": job.subaction,
                        "cam_idx": camera_id,
                        "frame_idx": frame,
                    }
                )
                joints_m = joints_mm[job.action, job.subaction, frame] / 1000.0
                joints_px = camera_to_pixel(world_to_camera(joints_m, camera), camera)
                annotations.append(
                    {
                        "id": image_id,
                        "image_id": image_id,
                        "keypoints_vis": ((joints_px >= -0.5) & (joints_px <= size - 0.5)).all(-1).tolist(),
                        "bbox": _joint_box(joints_px),
                    }
                )
    info = {"description": "humanpose3d studio", "fps": FPS, "frame_step": FRAME_STEP}
    return {"info": info, "images": images, "annotations": annotations}


def _joint_box(joints_px: np.ndarray) -> list[float]:
    """x, y, width, height: the joints' box, enlarged about its middle."""
    low, high = np.nanmin(joints_px, 0), np.nanmax(joints_px, 0)
    side = BOX_MARGIN * (high - low)
    return [*((low + high - side) / 2).tolist(), *side.tolist()]
