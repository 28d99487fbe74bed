"""Cameras: rotations and translations under which the labels would fit the keypoints that they do not fit now."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from humanpose3d.checks.case import Case, typical
from humanpose3d.checks.columns import Columns, rays_of
from humanpose3d.checks.limits import CAMERA_EXTRA, CAMERA_MISS, REPAIR_SHARE
from humanpose3d.checks.regions import Region, accused

# name -> (fault, what is wrong, what to do)
REPAIRS: dict[str, tuple[str, str]] = {
    "transposed": ("camera_rotation", "the rotation is transposed"),
    "centre": ("camera_position", "the translation is the camera's centre: the corpus means R (X - T), not R X + t"),
    "pose": (
        "camera_rotation",
        "rotation and translation are the camera's pose in the world: R is transposed, t its centre",
    ),
    "metres": (
        "units",
        "the translation is 1000 times too small: metres divided by 1000, as though they were millimetres",
    ),
    "millimetres": ("units", "the translation is 1000 times too large: millimetres where metres belong"),
}


def repaired(R: np.ndarray, t_m: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, R [N 3 3], t [N 3]) that may be meant where R, t are stored."""
    transposed = np.swapaxes(R, -1, -2)
    yield "transposed", transposed, t_m
    yield "centre", R, -_turn(R, t_m)
    yield "pose", transposed, -_turn(transposed, t_m)
    yield "metres", R, 1000.0 * t_m
    yield "millimetres", R, t_m / 1000.0


def check_cameras(case: Case) -> None:
    """Groups whose labels lie far from the keypoints, and on them once the camera is read in another way."""
    columns = case.columns
    miss, explained = columns.miss(), case.explained_miss()
    far = miss > max(CAMERA_MISS, explained)
    world_m = np.einsum("nji,nkj->nki", columns.R, columns.limbs_m - columns.t_m[:, None])
    found: list[tuple[float, str, np.ndarray, np.ndarray]] = []
    for name, R, t_m in [*repaired(columns.R, columns.t_m), *_exchanged(case)]:
        fit = columns.miss(rays_of(np.einsum("nij,nkj->nki", R, world_m) + t_m[:, None]))
        fits = far & (fit < REPAIR_SHARE * miss)
        votes = np.where(np.isfinite(miss) & np.isfinite(fit), np.where(fits, 1.0, -1.0), 0.0)
        if (votes > 0).any():
            found.append((float(np.nansum(np.where(votes > 0, miss - fit, 0.0))), name, votes, fit))
    for _, name, votes, fit in sorted(found, key=lambda entry: -entry[0]):
        for region in accused(case.votes(votes)):
            if typical(fit, case.rows(region)) < explained + CAMERA_EXTRA:
                _blame(case, region, name, fit, miss)


def _exchanged(case: Case) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each camera with the pose of another of the same subject's."""
    columns = case.columns
    poses = {cell: _pose(columns, rows[case.open[rows]]) for cell, rows in columns.rows_of_cell.items()}
    for other in sorted({camera for _, camera in poses}):
        R, t_m = np.full_like(columns.R, np.nan), np.full_like(columns.t_m, np.nan)
        for (subject, camera), rows in columns.rows_of_cell.items():
            pose = poses.get((subject, other))
            if pose is not None and camera != other:
                R[rows], t_m[rows] = pose
        if np.isfinite(R).any():
            yield f"camera {other}", R, t_m


def _pose(columns: Columns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The one pose of these rows' camera; None for a moving camera or none."""
    if not len(rows) or not columns.has_camera[rows].all():
        return None
    R, t_m = columns.R[rows], columns.t_m[rows]
    still = np.abs(R - R[0]).max() < 1e-6 and np.abs(t_m - t_m[0]).max() < 1e-6
    return (R[0], t_m[0]) if still else None


def _blame(case: Case, region: Region, name: str, fit: np.ndarray, miss: np.ndarray) -> None:
    rows = case.rows(region)
    fault, words = REPAIRS.get(name, ("camera_rotation", f"rotation and translation are those of {name}"))
    case.blame(
        fault,
        region,
        f"{words}; read so, labels lie {typical(fit, rows):.1%} of the person's size from the keypoints instead of"
        f" {typical(miss, rows):.1%}{case.left_out(rows)}; correct the camera",
        rows,
        badness=miss,
        measured=typical(miss, rows),
        expected=typical(fit, rows),
        unit="person sizes",
    )


def _turn(R: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[N 3 3], [N 3] -> [N 3]."""
    return np.einsum("nij,nj->ni", R, points)
