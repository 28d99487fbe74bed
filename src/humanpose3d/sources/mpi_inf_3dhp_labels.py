"""MPI-INF-3DHP's annotation files -> takes of labels: annot.mat, annot_data.mat, and the npz pair of P-STMO.

What the files hold is told in mpi_inf_3dhp.py. Cameras and pictures are its siblings'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.skeletons import MPI_17, MPI_28, shared_joints
from humanpose3d.sources.reading import BrokenFile, field, read_mat, read_npz, shaped

SEQUENCES = {  # frames to use and frames per second, as the corpus's mpii_get_sequence_info.m has them
    ("S1", "Seq1"): (6416, 25.0), ("S1", "Seq2"): (12430, 50.0), ("S2", "Seq1"): (6502, 25.0),
    ("S2", "Seq2"): (6081, 25.0), ("S3", "Seq1"): (12488, 50.0), ("S3", "Seq2"): (12283, 50.0),
    ("S4", "Seq1"): (6171, 25.0), ("S4", "Seq2"): (6675, 25.0), ("S5", "Seq1"): (12820, 50.0),
    ("S5", "Seq2"): (12312, 50.0), ("S6", "Seq1"): (6188, 25.0), ("S6", "Seq2"): (6145, 25.0),
    ("S7", "Seq1"): (6239, 25.0), ("S7", "Seq2"): (6320, 25.0), ("S8", "Seq1"): (6468, 25.0),
    ("S8", "Seq2"): (6054, 25.0),
}  # fmt: skip
ACTIVITIES = (
    "Standing/Walking", "Exercising", "Sitting", "Reaching/Crouching", "On The Floor", "Sports", "Miscellaneous",
)  # fmt: skip
TEST_CAMERA = "0"
TEST_ACTION = "test"  # of a test frame whose activity nobody tells
ANOTHER = "is it another version?"
EXPECTED = "an annot.mat has cameras, frames, annot2 and annot3"
EXPECTED_TEST = "an annot_data.mat has annot2, annot3 and valid_frame"
EXPECTED_NPZ = "the files that P-STMO makes have one array, 'data', of a dict"

_KEPT = shared_joints(MPI_17, MPI_28)[1]  # columns of the 28 that are the 17
assert len(_KEPT) == len(MPI_17)


@dataclass(frozen=True, eq=False)
class Labels:
    """One camera's labels of a take; F rows, one a frame."""

    frames: np.ndarray  # int64 [F], number in the take, from 0
    joints_px: np.ndarray  # float64 [F 17 2]
    joints_cam_m: np.ndarray  # float64 [F 17 3]
    valid: np.ndarray  # bool [F]: counts in the official evaluation
    actions: list[str]  # [F]


@dataclass(frozen=True, eq=False)
class Take:
    """A sequence of a subject in its annotation file. `labels` of a camera may raise BrokenFile."""

    subject: str
    sequence: str  # "Seq1"; empty in the test set
    file: Path
    camera_ids: tuple[str, ...]  # rising
    labels: Callable[[str], Labels]
    fps: float | None = None
    universal: bool = False  # the 3D labels are univ_annot3: the person at another size


def open_train_take(file: Path, subject: str, sequence: str) -> Take:
    """S1/Seq1/annot.mat. BrokenFile."""
    values = read_mat(file)
    cells = {name: _cells(file, values, name) for name in ("annot2", "annot3")}
    ids = [str(number) for number in _integers(file, "cameras", values.get("cameras", range(len(cells["annot2"]))))]
    if {len(found) for found in cells.values()} != {len(ids)}:
        counts = f"{len(cells['annot2'])} cells of annot2 and {len(cells['annot3'])} of annot3"
        raise BrokenFile(file, f"names {len(ids)} cameras, but has {counts}")
    limit, fps = SEQUENCES.get((subject, sequence), (None, None))

    def labels(camera_id: str) -> Labels:
        place = ids.index(camera_id)
        joints_px, joints_cam_mm = (
            _rows(file, f"{name} of camera {camera_id}", cells[name][place], size)
            for name, size in (("annot2", 2), ("annot3", 3))
        )
        frames = _integers(file, "frames", values.get("frames", range(len(joints_px))))
        _same_length(file, f"camera {camera_id}", annot2=joints_px, annot3=joints_cam_mm, frames=frames)
        return Labels(
            frames[:limit],
            joints_px[:limit],
            joints_cam_mm[:limit] / 1000.0,
            np.ones(len(frames[:limit]), dtype=bool),
            [sequence] * len(frames[:limit]),
        )

    return Take(subject, sequence, file, _rising(ids), labels, fps)


def open_test_take(file: Path, subject: str) -> Take:
    """TS1/annot_data.mat. BrokenFile."""
    values = read_mat(file)
    joints_px, joints_cam_mm = (
        _test_joints(file, name, field(file, values, name, EXPECTED_TEST), size)
        for name, size in (("annot2", 2), ("annot3", 3))
    )
    valid = _integers(file, "valid_frame", field(file, values, "valid_frame", EXPECTED_TEST)) == 1
    activity = _integers(file, "activity_annotation", values.get("activity_annotation", [0] * len(valid)))
    _same_length(file, subject, annot2=joints_px, annot3=joints_cam_mm, valid_frame=valid, activity_annotation=activity)
    actions = [ACTIVITIES[number - 1] if 1 <= number <= len(ACTIVITIES) else TEST_ACTION for number in activity]
    labels = Labels(np.arange(len(valid)), joints_px, joints_cam_mm / 1000.0, valid, actions)
    return Take(subject, "", file, (TEST_CAMERA,), lambda camera_id: labels)


def open_npz(file: Path) -> dict[str, Callable[[], Take]]:
    """The takes of data_train_3dhp.npz or data_test_3dhp.npz by their names, "S1 Seq1" or "TS1"; each may be broken."""
    entries = field(file, read_npz(file), "data", EXPECTED_NPZ)
    entries = entries.item() if getattr(entries, "shape", None) == () else entries
    if not isinstance(entries, dict):
        raise BrokenFile(file, f"its 'data' is no dict; {EXPECTED_NPZ}", ANOTHER)
    return {str(name): _opener(file, str(name), entry) for name, entry in entries.items()}


def _opener(file: Path, name: str, entry: Any) -> Callable[[], Take]:
    subject, _, sequence = name.partition(" ")
    return lambda: _npz_train_take(file, subject, sequence, entry) if sequence else _npz_test_take(file, subject, entry)


def _npz_train_take(file: Path, subject: str, sequence: str, entry: Any) -> Take:
    parts = list(entry) if isinstance(entry, list | tuple | np.ndarray) else [entry]
    if not parts or not isinstance(parts[0], dict):
        raise BrokenFile(file, f"'{subject} {sequence}' is not [cameras, frames per second]", ANOTHER)
    cameras = {str(camera_id): labels for camera_id, labels in parts[0].items()}

    def labels(camera_id: str) -> Labels:
        name = f"'{subject} {sequence}' of camera {camera_id}"
        joints_px, joints_cam_m = _npz_joints(file, name, cameras[camera_id])
        count = len(joints_px)
        return Labels(np.arange(count), joints_px, joints_cam_m, np.ones(count, dtype=bool), [sequence] * count)

    fps = float(parts[1]) if len(parts) > 1 else SEQUENCES.get((subject, sequence), (None, None))[1]
    return Take(subject, sequence, file, _rising(list(cameras)), labels, fps, universal=True)


def _npz_test_take(file: Path, subject: str, entry: Any) -> Take:
    joints_px, joints_cam_m = _npz_joints(file, f"'{subject}'", entry)
    valid = _integers(file, "valid", field(file, entry, "valid", "a test entry has data_2d, data_3d and valid")) == 1
    _same_length(file, f"'{subject}'", data_2d=joints_px, data_3d=joints_cam_m, valid=valid)
    labels = Labels(np.arange(len(valid)), joints_px, joints_cam_m, valid, [TEST_ACTION] * len(valid))
    return Take(subject, "", file, (TEST_CAMERA,), lambda camera_id: labels, universal=True)


def _npz_joints(file: Path, name: str, entry: Any) -> tuple[np.ndarray, np.ndarray]:
    """float64 [F 17 2] pixels, [F 17 3] metres."""
    if not isinstance(entry, dict):
        raise BrokenFile(file, f"{name} is no dict of data_2d and data_3d", ANOTHER)
    expected = f"{name} has data_2d and data_3d"
    joints_px, joints_cam_mm = (
        shaped(file, f"{part} of {name}", field(file, entry, part, expected), None, len(MPI_17), size)
        for part, size in (("data_2d", 2), ("data_3d", 3))
    )
    _same_length(file, name, data_2d=joints_px, data_3d=joints_cam_mm)
    return joints_px, joints_cam_mm / 1000.0


def _cells(file: Path, values: Mapping[str, Any], name: str) -> list[Any]:
    """What a cell array holds; the reader hands a lone cell over as its content."""
    value = field(file, values, name, EXPECTED)
    return list(np.ravel(value)) if isinstance(value, np.ndarray) and value.dtype.hasobject else [value]


def _rows(file: Path, name: str, value: Any, size: int) -> np.ndarray:
    """F x (28 * size) -> float64 [F 17 size]."""
    rows = shaped(file, name, np.atleast_2d(value), None, len(MPI_28) * size)
    return rows.reshape(len(rows), len(MPI_28), size)[:, _KEPT]


def _test_joints(file: Path, name: str, value: Any, size: int) -> np.ndarray:
    """[F 1 17 size] as HDF5 has it, or [size 17 1 F] as MATLAB does -> float64 [F 17 size]."""
    array, joints = np.asarray(value), len(MPI_17)
    if array.ndim >= 2 and array.shape[:2] == (size, joints):  # a copy saved as MATLAB 5
        array = array.reshape(size, joints, -1).T
    elif array.ndim >= 3 and array.shape[-2:] == (joints, size):
        array = array.reshape(-1, joints, size)
    return shaped(file, name, array, None, joints, size)


def _integers(file: Path, name: str, value: Any) -> np.ndarray:
    """int64 [N] of a row or a column of numbers."""
    return np.nan_to_num(shaped(file, name, np.ravel(np.asarray(value)), None), nan=-1.0).astype(np.int64)


def _same_length(file: Path, what: str, **parts: np.ndarray) -> None:
    if len({len(part) for part in parts.values()}) > 1:
        counts = ", ".join(f"{len(part)} of {name}" for name, part in parts.items())
        raise BrokenFile(file, f"the rows of {what} differ in number: {counts}")


def _rising(ids: list[str]) -> tuple[str, ...]:
    return tuple(sorted(ids, key=lambda name: (len(name), name)))
