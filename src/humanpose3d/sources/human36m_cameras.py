"""The cameras of Human3.6M, from any of the files that carry them. Camera: X_cam = R X_world + t, metres.

metadata.xml (of the corpus's own code): `w0`, 300 numbers. First 6 for each camera of each subject, all subjects of
    the first camera first: 3 angles with R = Rx Ry Rz, then the camera's centre T in mm, X_cam = R (X - T). Then 9 for
    each camera, whatever the subject: f (2), c (2), radial k1 k2 k3, tangential p1 p2. The `mapping` table names the
    subjects, and in its last row the image sizes: all cameras are 1002 high for S7, two of the four for the others.
camera-parameters.json: intrinsics {camera: {calibration_matrix, distortion}}, extrinsics {subject: {camera: {R, t}}},
    with R X + t, mm; its distortion is k1 k2 p1 p2 k3 already, OpenCV's order.
Human36M_subject1_camera.json: {"1": {R, t, f, c}, ... "4"}, R X + t, mm, no distortion.

So two conventions: a centre is called T, a translation t, and whoever reads one for the other has people beside the
image. A third, R^T (X - T) in metres, has the same names; it is found out because no camera would see the room.
The corpus's own projection of a ray x is x (radial + p1 y + p2 x) + r^2 (p2, p1): tangential coefficients in OpenCV's
order, but half of OpenCV's first term. Its 2D labels are met to 1e-4 px by that and to 0.1 px (0.25 px at most) by
OpenCV's, which is this toolkit's. Some projects swap p1 and p2, which is as far off again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from humanpose3d.camera import Camera
from humanpose3d.sample import normalise_subject
from humanpose3d.sources.human36m_takes import CAMERA_IDS
from humanpose3d.sources.reading import BrokenFile, read_json, shaped
from humanpose3d.sources.reading import field as field_of

METADATA = "metadata.xml"
PARAMETERS = ("camera-parameters.json", "camera_parameters.json", "cameras.json")
RELEASES = ("Release-v1.2", "Release-v1.1", "code-v1.2")  # folders of the corpus's own code
MOON_CAMERAS = "Human36M_subject{}_camera.json"
POSE_NUMBERS, LENS_NUMBERS = 6, 9  # in w0, for a camera of a subject and for a camera
ROTATION_TOLERANCE = 1e-3
DISTANCE_M, LEAST_COSINE = (0.5, 50.0), 0.7  # from a camera to the middle of the floor, which all of them look at

Values = Mapping[str, Any]  # R, t or T, f, c and perhaps k, p of one camera


@dataclass(frozen=True)
class Rig:
    """The cameras of a file, of which each is made when it is asked for: a broken one loses only itself."""

    path: Path
    find: Callable[[str, str], tuple[Path, Values | None]]  # (subject, camera id) -> their file, and what it says
    sizes_wh: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # images, by subject and camera

    def camera(self, subject: str, camera_id: str) -> Camera:
        """BrokenFile where the file has no such camera, or one that cannot be."""
        path, values = self.find(subject, camera_id)
        if values is None:
            raise BrokenFile(path, f"has no camera {camera_id} of {subject}", "copy it anew")
        camera = make_camera(path, f"camera {camera_id} of {subject}", values)
        _check_view(path, f"camera {camera_id} of {subject}", camera)
        return camera


def find_rig(folders: Sequence[Path]) -> Rig:
    """The cameras of the first file of a known name in these folders. FileNotFoundError names those names."""
    for folder in folders:
        for path in (folder / METADATA, *(folder / release / METADATA for release in RELEASES)):
            if path.is_file():
                return _from_metadata(path)
        for name in PARAMETERS:
            if (folder / name).is_file():
                return _from_parameters(folder / name)
        if any(folder.glob(MOON_CAMERAS.format("*"))):
            return Rig(folder, partial(_moon_camera, folder))
    raise FileNotFoundError(
        f"no camera parameters of Human3.6M in {' or '.join(map(str, folders))}; put the {METADATA} of the corpus's "
        f"own code there, or a {PARAMETERS[0]}"
    )


def moon_cameras(folder: Path, subject: str) -> tuple[Path, dict[str, Values]]:
    """The file of one subject in the 3DMPPE layout, and its cameras by camera id. FileNotFoundError, BrokenFile."""
    path = folder / MOON_CAMERAS.format(subject.removeprefix("S"))
    values = read_json(path)
    if not isinstance(values, dict) or not all(isinstance(of_one, dict) for of_one in values.values()):
        raise BrokenFile(path, "holds no JSON object of cameras")
    ids = {str(number): camera_id for number, camera_id in CAMERA_IDS.items()}
    return path, {ids.get(key) or key: of_one for key, of_one in values.items()}


def _moon_camera(folder: Path, subject: str, camera_id: str) -> tuple[Path, Values | None]:
    path, values = moon_cameras(folder, subject)
    return path, values.get(camera_id)


def make_camera(path: Path, name: str, values: Values) -> Camera:
    """From R, t or T, f, c and, where given, k (k1 k2 k3) and p (p1 p2); millimetres and pixels."""
    expected = f"{name} needs R, t (or the centre T), f and c"
    R = shaped(path, f"R of {name}", field_of(path, values, "R", expected), 3, 3)
    if not np.abs(R @ R.T - np.eye(3)).max() <= ROTATION_TOLERANCE or np.linalg.det(R) < 0:
        raise BrokenFile(path, f"R of {name} is not a rotation")
    if "T" in values and "t" not in values:
        t_mm = -R @ _vector(path, f"T of {name}", values["T"], 3)
    else:
        t_mm = _vector(path, f"t of {name}", field_of(path, values, "t", expected), 3)
    f, c = (_vector(path, f"{key} of {name}", field_of(path, values, key, expected), 2) for key in ("f", "c"))
    k1, k2, k3 = _vector(path, f"k of {name}", values.get("k", (0.0, 0.0, 0.0)), 3)
    p1, p2 = _vector(path, f"p of {name}", values.get("p", (0.0, 0.0)), 2)
    if not (np.isfinite([*t_mm, *f, *c, k1, k2, k3, p1, p2]).all() and f.min() > 0):
        raise BrokenFile(path, f"{name} has numbers that cannot be")
    return Camera.create(f, c, R, t_mm / 1000.0, np.array([k1, k2, p1, p2, k3]))


def _vector(path: Path, name: str, value: Any, length: int) -> np.ndarray:
    """float64 [length], from a row or a column of numbers."""
    try:
        value = np.ravel(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError):
        pass  # told by `shaped`
    return shaped(path, name, value, length)


def _check_view(path: Path, name: str, camera: Camera) -> None:
    """BrokenFile for a camera that does not see the middle of the floor from some metres: another convention, unit."""
    distance = float(np.linalg.norm(camera.t_m))
    if not (DISTANCE_M[0] < distance < DISTANCE_M[1] and camera.t_m[2] > LEAST_COSINE * distance):
        seen_from = ", ".join(f"{number:.3g}" for number in camera.t_m)
        raise BrokenFile(
            path,
            f"{name} does not see the middle of the room, which lies at ({seen_from}) m before it",
            "X_cam = R X + t, or R (X - T) with the centre called T, both in millimetres",
        )


# ------------------------------------------------------------------------------------------------------ metadata.xml


def _from_metadata(path: Path) -> Rig:
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise BrokenFile(path, f"not whole XML ({error})") from None
    rows = [[cell.text or "" for cell in row] for row in root.iterfind("mapping/tr")]
    subjects = [normalise_subject(name) for name in rows[0][2:]] if rows else []
    ids = [item.text or "" for item in root.iterfind("dbcameras/index2id/item")]
    if not subjects or not ids:
        raise BrokenFile(path, "names no subjects or no cameras", f"take the {METADATA} of the corpus's own code")
    poses, lenses = _w0(path, root.findtext("w0") or "", len(ids), len(subjects))
    values: dict[tuple[str, str], Values] = {}
    for camera, camera_id in enumerate(ids):
        f, c, k, p = np.split(lenses[camera], [2, 4, 7])
        for number, subject in enumerate(subjects):
            angles_rad, centre_mm = np.split(poses[camera, number], 2)
            R = rotation_of(angles_rad)
            values[subject, camera_id] = {"R": R, "T": centre_mm, "f": f, "c": c, "k": k, "p": p}
    return Rig(path, lambda *which: (path, values.get(which)), _sizes(rows, subjects, ids))


def _w0(path: Path, text: str, cameras: int, subjects: int) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [cameras subjects 6], float64 [cameras 9])."""
    try:
        numbers = np.array([float(number) for number in text.strip().strip("[]").split()])
    except ValueError as error:
        raise BrokenFile(path, f"w0 is not all numbers ({error})") from None
    poses = cameras * subjects * POSE_NUMBERS
    expected = poses + cameras * LENS_NUMBERS
    if len(numbers) != expected:
        raise BrokenFile(
            path, f"w0 has {len(numbers)} numbers, expected {expected} for {subjects} subjects and {cameras} cameras"
        )
    return numbers[:poses].reshape(cameras, subjects, POSE_NUMBERS), numbers[poses:].reshape(cameras, LENS_NUMBERS)


def rotation_of(angles_rad: np.ndarray) -> np.ndarray:
    """Rx(a) Ry(b) Rz(c), float64 [3 3]."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def _sizes(
    rows: Sequence[Sequence[str]], subjects: Sequence[str], ids: Sequence[str]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Image sizes (W, H), from the table's row of "[1002 1000;1000 1000; ...]": H W of each camera."""
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        cells = row[2:]
        if not any(cell.startswith("[") for cell in cells):
            continue
        for subject, cell in zip(subjects, cells, strict=False):
            for camera_id, pair in zip(ids, cell.strip("[]").split(";"), strict=False):
                height, width = pair.split()
                sizes[subject, camera_id] = (int(width), int(height))
    return sizes


# --------------------------------------------------------------------------------------------- camera-parameters.json


def _from_parameters(path: Path) -> Rig:
    data = read_json(path)
    if not isinstance(data, dict):
        raise BrokenFile(path, "holds no JSON object")
    expected = "expected intrinsics and extrinsics"
    lenses, poses = (field_of(path, data, name, expected) for name in ("intrinsics", "extrinsics"))
    if not isinstance(lenses, dict) or not isinstance(poses, dict):
        raise BrokenFile(path, f"intrinsics or extrinsics are no JSON object; {expected}")

    def find(subject: str, camera_id: str) -> tuple[Path, Values | None]:
        of_subject = {normalise_subject(name): cameras for name, cameras in poses.items()}.get(subject, {})
        return path, _joined(path, camera_id, of_subject[camera_id], lenses) if camera_id in of_subject else None

    return Rig(path, find)


def _joined(path: Path, camera_id: str, pose: Values, lenses: Mapping[str, Values]) -> Values:
    lens = field_of(path, lenses, camera_id, "expected the intrinsics of each camera")
    matrix = field_of(path, lens, "calibration_matrix", "expected calibration_matrix and distortion")
    K = shaped(path, f"calibration_matrix of camera {camera_id}", matrix, 3, 3)
    k1, k2, p1, p2, k3 = _vector(path, f"distortion of camera {camera_id}", lens.get("distortion", [0.0] * 5), 5)
    return {**pose, "f": [K[0, 0], K[1, 1]], "c": K[:2, 2], "k": [k1, k2, k3], "p": [p1, p2]}
