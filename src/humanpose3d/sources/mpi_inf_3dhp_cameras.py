"""Cameras of MPI-INF-3DHP: its two calibration files, and cameras found from labels alone.

`camera.calibration` (training; "Skeletool Camera Calibration File V1.0"), for each camera

    name          0
      sensor      10 10                  mm
      size        2048 2048              pixels
      animated    0
      intrinsic   4 x 4, row by row      pixels
      extrinsic   4 x 4, row by row      world (y up) -> camera, millimetres
      radial      0                      no distortion: the videos are undistorted

`test_util/camera_calibration/ts1-4cameras.calib` and `ts5-6cameras.calib` (test set; "tc camera calibration v0.3")
give the sensor and the focal length in millimetres, the principal point as an offset from the middle, OpenCV's
distortion and the pose as an origin, an up and a right vector. Public code reads them in ways that differ by pixels
(what pixelAspect multiplies, whether the labels are distorted), and many copies lack them. But the labels tell the
camera themselves: each frame has 17 joints in 3D, in the camera's frame, and in pixels. So it is fitted, and the file
taken where it says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel, pixel_to_ray
from humanpose3d.skeletons import MPI_17
from humanpose3d.sources.reading import BrokenFile

CALIBRATION = "camera.calibration"
HEADER = "Skeletool Camera Calibration File"
TEST_HEADER = "tc camera calibration"
TEST_CALIBRATIONS = {f"TS{n}": "ts1-4cameras.calib" if n <= 4 else "ts5-6cameras.calib" for n in range(1, 7)}
FITTED_ON = 1000  # frames, evenly spread; 17 joints each
SCALES = (0.5, 2.0)  # within which a person's size against the universal skeleton is looked for
ALREADY_METRIC = 1e-3  # a scale nearer to 1 than this is 1
SLACK = 0.002  # of a person's size: how much worse than the fit a calibration file may reproject and still be right
MISFIT = 0.1  # of a person's size: a median error above this says that 2D and 3D are not of the same poses

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class FittedView:
    """The camera under which 3D labels fall on 2D labels, and what it took."""

    camera: Camera
    joints_cam_m: np.ndarray  # float64 [F 17 3], scaled about the pelvis where `scale` is not 1
    scale: float
    calibrated: bool  # the camera is a calibration file's; else its pose is the world's origin
    error: float  # median distance, as a share of the person's size in pixels

    @property
    def fits(self) -> bool:
        return self.error <= MISFIT


def read_calibration(path: Path) -> dict[str, tuple[Camera, Size] | BrokenFile]:
    """Camera number -> (camera, image size), or what is wrong with its entry."""
    lines = _lines(path)
    if not lines or not lines[0].startswith(HEADER):
        raise BrokenFile(path, f"does not begin with '{HEADER} V1.0'", "is it another version?")
    entries: dict[str, dict[str, list[str]]] = {}
    for line in lines[1:]:
        word, *values = line.split() or [""]
        if word == "name" and values:
            entry = entries.setdefault(values[0], {})
        elif entries and word:
            entry[word] = values
    return {name: _calibrated(path, name, entry) for name, entry in entries.items()}


def _calibrated(path: Path, name: str, entry: dict[str, list[str]]) -> tuple[Camera, Size] | BrokenFile:
    try:
        K, pose = (np.array(entry[word], dtype=np.float64).reshape(4, 4) for word in ("intrinsic", "extrinsic"))
        width, height = map(int, entry["size"])
        distorted = any(float(value) for value in entry.get("radial", []))
    except (KeyError, ValueError):
        return BrokenFile(path, f"the entry of camera {name} is not whole (size, intrinsic, extrinsic)")
    R = pose[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
        return BrokenFile(path, f"the extrinsic of camera {name} is not a rotation")
    if distorted:
        return BrokenFile(path, f"camera {name} has radial distortion, expected none", "is it another version?")
    return Camera(K=K[:3, :3], R=R, t_m=pose[:3, 3] / 1000.0, distortion=np.zeros(5)), (width, height)


def read_test_calibration(path: Path, size_wh: Size) -> list[Camera]:
    """The camera of a .calib file for images of that size, with and without its distortion."""
    lines = _lines(path)
    if not lines or not lines[0].startswith(TEST_HEADER):
        raise BrokenFile(path, f"does not begin with '{TEST_HEADER}'", "is it another version?")
    entry = {line.split()[0]: line.split("#")[0].split()[1:] for line in lines if line.strip()}
    try:
        sensor_mm, offset_mm, origin_mm, up, right = (
            np.array(entry[word], dtype=np.float64) for word in ("sensorSize", "centerOffset", "origin", "up", "right")
        )
        focal_mm, aspect = float(entry["focalLength"][0]), float(entry["pixelAspect"][0])
        distortion = np.array(entry.get("distortion", [0.0] * 5), dtype=np.float64)
        px_per_mm = np.array(size_wh) / sensor_mm * (1.0, aspect)
        R = np.stack([right, -up, np.cross(up, right)])
        plain = Camera.create(focal_mm * px_per_mm, (sensor_mm / 2 + offset_mm) * px_per_mm, R, -R @ origin_mm / 1000.0)
    except (KeyError, ValueError, IndexError):
        raise BrokenFile(path, "not whole (sensorSize, focalLength, centerOffset, origin, up, right)") from None
    return [replace(plain, distortion=distortion), plain] if distortion.any() and distortion.shape == (5,) else [plain]


def fit_view(
    joints_cam_m: np.ndarray, joints_px: np.ndarray, calibrated: Sequence[Camera] = (), *, rescale: bool = False
) -> FittedView:
    """float64 [F 17 3] metres and [F 17 2] pixels -> the camera that maps one on the other.

    A calibrated camera is taken where it fits about as well as a fitted one. rescale: the person may have been drawn
    smaller or larger about the pelvis, which stays where it is; then the size is found too.
    """
    chosen = _some_frames(joints_cam_m, joints_px)
    few_cam_m, few_px = joints_cam_m[chosen], joints_px[chosen]
    found = [(camera, _scale_under(camera, few_cam_m, few_px) if rescale else 1.0) for camera in calibrated]
    scale = _scale_under_any(few_cam_m, few_px) if rescale else 1.0
    found.append((_fit_pinhole(_resized(few_cam_m, scale), few_px), scale))
    errors = [_error(camera, _resized(few_cam_m, scale), few_px) for camera, scale in found]
    best = next(place for place, error in enumerate(errors) if not error > min(errors) + SLACK)
    camera, scale = found[best]
    return FittedView(camera, _resized(joints_cam_m, scale), scale, best < len(calibrated), errors[best])


def _some_frames(joints_cam_m: np.ndarray, joints_px: np.ndarray) -> np.ndarray:
    """int64: rows to fit on, evenly spread over those whose every joint is there and before the lens."""
    whole = np.isfinite(joints_cam_m).all((1, 2)) & np.isfinite(joints_px).all((1, 2))
    rows = np.flatnonzero(whole & (np.nan_to_num(joints_cam_m[..., 2]) > 0).all(1))
    return rows[:: max(len(rows) // FITTED_ON, 1)]


def _resized(joints_cam_m: np.ndarray, scale: float) -> np.ndarray:
    """Drawn larger about the pelvis."""
    if scale == 1.0:
        return joints_cam_m
    pelvis = joints_cam_m[:, [MPI_17.root_index]]
    return pelvis + scale * (joints_cam_m - pelvis)


def _fit_pinhole(joints_cam_m: np.ndarray, joints_px: np.ndarray) -> Camera:
    """Least squares of u = f x/z + c, each axis on its own; at the world's origin."""
    points, pixels = joints_cam_m.reshape(-1, 3), joints_px.reshape(-1, 2)
    f, c = np.zeros(2), np.zeros(2)
    for axis in range(2):
        ray = points[:, axis] / points[:, 2]
        (f[axis], c[axis]), *_ = np.linalg.lstsq(np.stack([ray, np.ones_like(ray)], 1), pixels[:, axis], rcond=None)
    return Camera.create(f, c)


def _scale_under(camera: Camera, joints_cam_m: np.ndarray, joints_px: np.ndarray) -> float:
    """The size at which the joints fall on their pixels under a known camera: linear in it, so solved at once."""
    pelvis = joints_cam_m[:, [MPI_17.root_index]]
    offset, rays = joints_cam_m - pelvis, pixel_to_ray(joints_px, camera)
    by_scale = rays * offset[..., 2:] - offset[..., :2]
    constant = pelvis[..., :2] - rays * pelvis[..., 2:]
    return _snapped(float((by_scale * constant).sum() / max((by_scale**2).sum(), 1e-12)))


def _scale_under_any(joints_cam_m: np.ndarray, joints_px: np.ndarray) -> float:
    """The size at which some pinhole camera maps the joints on their pixels best."""
    from scipy.optimize import minimize_scalar

    def misfit(scale: float) -> float:
        points = _resized(joints_cam_m, scale)
        projected = camera_to_pixel(points, _fit_pinhole(points, joints_px))
        return float(np.nan_to_num((projected - joints_px) ** 2, nan=1e6).mean())

    if not len(joints_cam_m):
        return 1.0
    return _snapped(float(minimize_scalar(misfit, bounds=SCALES, method="bounded", options={"xatol": 1e-9}).x))


def _snapped(scale: float) -> float:
    return 1.0 if abs(scale - 1.0) < ALREADY_METRIC else scale


def _error(camera: Camera, joints_cam_m: np.ndarray, joints_px: np.ndarray) -> float:
    """Median distance of projected from labelled joints as a share of the person's size; inf where nothing projects."""
    if not len(joints_cam_m):
        return np.inf
    distances = np.linalg.norm(camera_to_pixel(joints_cam_m, camera) - joints_px, axis=-1)
    sizes = np.ptp(joints_px, axis=1).max(-1)
    return float(np.median(np.nan_to_num(distances, nan=np.inf)) / max(np.median(sizes), 1e-6))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="latin-1").splitlines()
    except FileNotFoundError:
        raise BrokenFile(path, "is missing", "copy it from the corpus") from None
