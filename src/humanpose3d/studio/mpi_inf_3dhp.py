"""The studio written as MPI-INF-3DHP comes: annot.mat and videos, the test set, and the npz pair of P-STMO.

What those files mean is told by their reader, sources/mpi_inf_3dhp.py. Four cameras stand for the corpus's fourteen,
under numbers of it that are not their places in a list; pictures are square whatever the subject.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel, world_to_camera
from humanpose3d.files import write_whole
from humanpose3d.reports import StageReport, progress
from humanpose3d.sample import normalise_subject
from humanpose3d.skeletons import MPI_17, MPI_28, Skeleton
from humanpose3d.studio.film import FPS, Scene, cast_scene, film_scene
from humanpose3d.studio.joint_sets import joints_in
from humanpose3d.studio.motion import ACTIONS
from humanpose3d.studio.shoot import claim, encode_jpeg, even, in_processes
from humanpose3d.video import write_video

LAYOUTS = ("videos", "frames", "npz")
SUBJECTS = ("S1", "S2", "TS1")
TRAIN_SUBJECTS, TEST_SUBJECTS = tuple(f"S{n}" for n in range(1, 9)), tuple(f"TS{n}" for n in range(1, 7))
PERSON = {name: 101 + place for place, name in enumerate(TRAIN_SUBJECTS + TEST_SUBJECTS)}
SEQUENCES = ("Seq1", "Seq2")
CAMERAS = {"0": 1, "2": 2, "7": 3, "8": 4}  # number in the corpus -> the studio's
TEST_CAMERAS = {name: ("TS1", 1) if place < 4 else ("TS5", 2) for place, name in enumerate(TEST_SUBJECTS)}
TEST_FOLDER = "mpi_inf_3dhp_test_set"
CALIB_FOLDER = f"{TEST_FOLDER}/test_util/camera_calibration"
NPZ_FOLDER = "motion3d"
VIDEO_FPS = {"Seq1": 25.0, "Seq2": 50.0}  # nominal, as the corpus's table has them; the studio moves faster (film.FPS)
INVALID_EVERY = 4  # of a test take's frames, the last of so many does not count in the evaluation
SENSOR_MM = 10.0
UNIVERSAL_M = 0.95  # knee to hip and pelvis to neck of the skeleton that univ_annot3 is drawn with
Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # the studio's world (z up) -> the corpus's


@dataclass(frozen=True)
class _Shot:
    """What one worker films: a take through one camera."""

    out: Path
    subject: str
    sequence: str  # empty in the test set
    camera: str  # the corpus's number
    frames: int
    size: int
    seed: int
    layout: str


def write_mpi_inf_3dhp(
    out: Path,
    *,
    subjects: Sequence[str] = SUBJECTS,
    frames_per_take: int = 8,
    size: int = 256,
    seed: int = 0,
    workers: int = 1,
    layout: str = LAYOUTS[0],
) -> StageReport:
    """Training subjects in two sequences and four cameras, test subjects in one; the report counts images.

    layout: "videos" and "frames" are the corpus's own files with the pictures in .avi or as extracted frames, "npz" the
    pair data_train_3dhp.npz and data_test_3dhp.npz in `motion3d` beside frames, without calibration. Pictures that
    exist are kept.
    """
    out, names = Path(out), [normalise_subject(subject) for subject in subjects]
    unknown = [name for name in names if name not in PERSON]
    if unknown or layout not in LAYOUTS:
        raise ValueError(
            f"the studio writes {', '.join(PERSON)} as {', '.join(LAYOUTS)}; not {', '.join(unknown) or layout}"
        )
    if frames_per_take < 1 or size < 32:
        raise ValueError(f"frames_per_take is {frames_per_take} and size {size}; at least 1 frame of 32 px is needed")
    whole = {"frames_per_take": frames_per_take} if layout == "videos" else {}  # a video cannot be added to
    claim(out, {"seed": seed, "size": size, "layout": layout, **whole})
    shots = [
        _Shot(out, name, sequence, camera, frames_per_take, size, seed, layout)
        for name in names
        for sequence, camera in _views(name)
    ]
    report = StageReport("fake")
    with progress("filming", len(shots) * frames_per_take) as bar:
        for written, kept in in_processes(_film, shots, workers):
            report.count("images", written)
            report.count("already there", kept)
            bar.advance(written + kept)
    (_write_npz_pair if layout == "npz" else _write_annotations)(out, names, frames_per_take, size, seed)
    report.inputs = len(shots) * frames_per_take
    report.summary = (
        f"filmed {report.counts['images']} images of {', '.join(names)} as {layout}"
        f" ({report.counts['already there']} were there) in {out}"
    )
    report.facts |= {"out": str(out), "subjects": names, "layout": layout, "fps": FPS, "seed": seed, "size": size}
    return report


def scene_of(subject: str, sequence: str, *, size: int = 256, seed: int = 0) -> Scene:
    """The take that a sequence shows. Test subjects 1 to 4 are before the same cameras, and so are 5 and 6."""
    take = SEQUENCES.index(sequence) if sequence else 0
    action = list(ACTIONS)[(2 * PERSON[subject] + take) % len(ACTIONS)]
    scene = cast_scene(subject, PERSON[subject], action, take + 1, size=size, seed=seed)
    if sequence:
        return scene
    owner = TEST_CAMERAS[subject][0]
    return replace(scene, cameras=cast_scene(owner, PERSON[owner], action, 1, size=size, seed=seed).cameras)


def camera_of(scene: Scene, camera: str) -> Camera:
    """The studio's camera under its number in the corpus; its world has y up, as the corpus's has."""
    found = scene.cameras[_studio_camera(scene.subject, camera)]
    return replace(found, R=found.R @ Y_UP.T)


def labels_of(scene: Scene, camera: str, frames: int, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """annot2 [F J 2] pixels, annot3 [F J 3] and univ_annot3 [F J 3] millimetres, camera frame."""
    seen_by = scene.cameras[_studio_camera(scene.subject, camera)]
    bodies = [scene.joints_at(frame) for frame in range(frames)]
    joints_cam_m = world_to_camera(np.array([joints_in(body, skeleton) for body in bodies]), seen_by)
    universal = UNIVERSAL_M / _knee_to_neck(joints_in(bodies[0], MPI_28))
    pelvis = joints_cam_m[:, [skeleton.root_index]]
    univ_cam_m = pelvis + universal * (joints_cam_m - pelvis)
    return camera_to_pixel(joints_cam_m, seen_by), 1000.0 * joints_cam_m, 1000.0 * univ_cam_m


def _knee_to_neck(joints: np.ndarray) -> float:
    """Metres: the thigh, and from the pelvis up to the neck along the spine."""
    at = dict(zip(MPI_28.joints, joints, strict=True))
    bones = (("left_knee", "left_hip"), ("pelvis", "spine"), ("spine", "neck"))
    return float(sum(np.linalg.norm(at[first] - at[second]) for first, second in bones))


def _views(subject: str) -> list[tuple[str, str]]:
    """(sequence, camera) of everything filmed of a subject."""
    if subject in TEST_SUBJECTS:
        return [("", "0")]
    return [(sequence, camera) for sequence in SEQUENCES for camera in CAMERAS]


def _studio_camera(subject: str, camera: str) -> int:
    return CAMERAS[camera] if subject in TRAIN_SUBJECTS else TEST_CAMERAS[subject][1]


# ------------------------------------------------------------------------------------------------------------ pictures


def _film(shot: _Shot) -> tuple[int, int]:
    """(images written, images that were there)."""
    scene = scene_of(shot.subject, shot.sequence, size=shot.size, seed=shot.seed)
    studio_camera = _studio_camera(shot.subject, shot.camera)

    def image(frame: int) -> np.ndarray:
        return film_scene(scene, studio_camera, frame, seed=shot.seed).image

    if shot.sequence and shot.layout == "videos":
        video = shot.out / shot.subject / shot.sequence / "imageSequence" / f"video_{shot.camera}.avi"
        if video.exists():
            return 0, shot.frames
        images = (image(frame) for frame in range(shot.frames))
        # Without loss: neighbouring frames differ too much for a codec that the corpus could have been made with.
        return write_video(video, even(images), VIDEO_FPS[shot.sequence], codec="ffv1"), 0
    missing = [frame for frame in range(shot.frames) if not _picture(shot, frame).exists()]
    for frame in missing:
        write_whole(_picture(shot, frame), encode_jpeg(image(frame)))
    return len(missing), shot.frames - len(missing)


def _picture(shot: _Shot, frame: int) -> Path:
    if not shot.sequence:
        return shot.out / TEST_FOLDER / shot.subject / "imageSequence" / f"img_{frame + 1:06d}.jpg"
    folder = shot.out / shot.subject / shot.sequence / "imageFrames" / f"video_{shot.camera}"
    return folder / f"frame_{frame + 1:06d}.jpg"


# --------------------------------------------------------------------------------------------------------- annotations


def _write_annotations(out: Path, names: list[str], frames: int, size: int, seed: int) -> None:
    for name in names:
        scene = partial(scene_of, name, size=size, seed=seed)
        if name in TEST_SUBJECTS:
            write_whole(out / TEST_FOLDER / name / "annot_data.mat", _annot_data(scene(""), frames))
            calib = "ts1-4cameras.calib" if TEST_CAMERAS[name][0] == "TS1" else "ts5-6cameras.calib"
            write_whole(out / CALIB_FOLDER / calib, _calib(camera_of(scene(""), "0"), size).encode())
            continue
        for sequence in SEQUENCES:
            folder = out / name / sequence
            write_whole(folder / "annot.mat", _annot(scene(sequence), frames))
            write_whole(folder / "camera.calibration", _calibration(scene(sequence), size).encode())


def _annot(scene: Scene, frames: int) -> bytes:
    """A MATLAB 5 file of cell arrays, one cell a camera, a frame a row."""
    import scipy.io

    labels = {camera: labels_of(scene, camera, frames, MPI_28) for camera in CAMERAS}
    values: dict[str, Any] = {
        "cameras": np.array([[float(camera) for camera in CAMERAS]]),
        "frames": np.arange(float(frames))[:, None],
    }
    for place, name in enumerate(("annot2", "annot3", "univ_annot3")):
        cells = np.empty((len(labels), 1), dtype=object)
        for row, found in enumerate(labels.values()):
            cells[row, 0] = found[place].reshape(frames, -1)
        values[name] = cells
    stream = io.BytesIO()
    scipy.io.savemat(stream, values, do_compression=True)
    # The header's text holds the time of writing: the same scene must give the same bytes.
    return f"{'MATLAB 5.0 MAT-file, humanpose3d studio':116}".encode() + stream.getvalue()[116:]


def _annot_data(scene: Scene, frames: int) -> bytes:
    """A MATLAB 7.3 file: HDF5 behind MATLAB's 512 bytes, axes in reverse."""
    import h5py

    annot2, annot3, univ_annot3 = (found[:, None] for found in labels_of(scene, "0", frames, MPI_17))
    values = {
        "annot2": annot2,
        "annot3": annot3,
        "univ_annot3": univ_annot3,
        "valid_frame": _valid(frames)[:, None].astype(np.float64),
        "activity_annotation": np.full((frames, 1), 1.0 + PERSON[scene.subject] % 7),
    }
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=512) as file:
        for name, value in values.items():
            file.create_dataset(name, data=value).attrs["MATLAB_class"] = np.bytes_(b"double")
    text = f"{'MATLAB 7.3 MAT-file, humanpose3d studio, HDF5 schema 1.00 .':116}".encode()
    header = text + bytes(8) + (0x0200).to_bytes(2, "little") + b"IM"
    return header.ljust(512, b"\0") + stream.getvalue()[512:]


def _valid(frames: int) -> np.ndarray:
    """bool [F]."""
    return np.arange(frames) % INVALID_EVERY != INVALID_EVERY - 1


def _calibration(scene: Scene, size: int) -> str:
    lines = ["Skeletool Camera Calibration File V1.0"]
    for name in CAMERAS:
        camera = camera_of(scene, name)
        intrinsic, extrinsic = np.eye(4), np.eye(4)
        intrinsic[:3, :3] = camera.K
        extrinsic[:3] = np.column_stack([camera.R, 1000.0 * camera.t_m])
        lines += [
            f"name          {name}",
            f"  sensor      {SENSOR_MM:g} {SENSOR_MM:g}",
            f"  size        {size} {size}",
            "  animated    0",
            f"  intrinsic   {_row(intrinsic)} ",
            f"  extrinsic   {_row(extrinsic)} ",
            "  radial      0",
        ]
    return "\n".join(lines) + "\n"


def _calib(camera: Camera, size: int) -> str:
    """The test set's own text format: millimetres on a sensor, and an origin, an up and a right vector."""
    px_per_mm, aspect = size / SENSOR_MM, camera.K[1, 1] / camera.K[0, 0]
    offset_mm = camera.K[:2, 2] / (px_per_mm * np.array([1.0, aspect])) - SENSOR_MM / 2
    return "\n".join(
        [
            "tc camera calibration v0.3",
            "camera\t0\tstudio",
            "\tframe\t0",
            f"\t\tsensorSize\t{SENSOR_MM:g}\t{SENSOR_MM:g}\t# in mm",
            f"\t\tfocalLength\t{float(camera.K[0, 0] / px_per_mm)!r}\t# in mm",
            f"\t\tpixelAspect\t{float(aspect)!r}\t# y / x",
            f"\t\tcenterOffset\t{_row(offset_mm)}\t# in mm (positive values move right and down)",
            "\t\tdistortionModel\tOpenCV",
            "\t\tdistortion\t0.0 0.0 0.0 0.0 0.0",
            f"\t\t\torigin\t{_row(-1000.0 * camera.R.T @ camera.t_m)}",
            f"\t\t\tup\t{_row(-camera.R[1])}",
            f"\t\t\tright\t{_row(camera.R[0])}",
            "",
        ]
    )


def _row(numbers: np.ndarray) -> str:
    return " ".join(f"{number:.10g}" for number in np.ravel(numbers))


def _write_npz_pair(out: Path, names: list[str], frames: int, size: int, seed: int) -> None:
    """data_2d and data_3d of 17 joints, the latter at the universal skeleton's size, as P-STMO has them."""
    scene = partial(scene_of, size=size, seed=seed)
    train = {
        f"{name} {sequence}": [
            {camera: _npz_labels(scene(name, sequence), camera, frames) for camera in CAMERAS},
            round(VIDEO_FPS[sequence]),
        ]
        for name in names
        if name in TRAIN_SUBJECTS
        for sequence in SEQUENCES
    }
    test = {
        name: {**_npz_labels(scene(name, ""), "0", frames), "valid": _valid(frames).astype(np.float64)}
        for name in names
        if name in TEST_SUBJECTS
    }
    for file, entries in (("data_train_3dhp.npz", train), ("data_test_3dhp.npz", test)):
        stream = io.BytesIO()
        np.savez_compressed(stream, data=np.array(entries, dtype=object))
        write_whole(out / NPZ_FOLDER / file, stream.getvalue())


def _npz_labels(scene: Scene, camera: str, frames: int) -> dict[str, np.ndarray]:
    annot2, _, univ_annot3 = labels_of(scene, camera, frames, MPI_17)
    return {"data_2d": annot2, "data_3d": univ_annot3}
