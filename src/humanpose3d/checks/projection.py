"""3D labels against the 2D labels of the same sample: they must lie on one another, but for rounding and the lens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from humanpose3d.checks.cameras import REPAIRS, repaired
from humanpose3d.checks.case import Case, most, typical
from humanpose3d.checks.columns import LIMBS, Columns, median, pick, rays_of, to_world
from humanpose3d.checks.lags import best_lag, lag_words
from humanpose3d.checks.limits import (
    INTERNAL_EXACT,
    INTERNAL_MISS,
    INTERNAL_MISS_EXACT,
    INTERNAL_SOUND_AT_MOST,
    INTERNAL_TIMES,
    LEAST_JOINTS,
    SHIFT_LEAVES,
    SHIFT_LEAVES_MOST,
)
from humanpose3d.checks.regions import Region, accused
from humanpose3d.skeletons import SKELETONS

SCALES_TRIED = (0.97, 1.03, 25)  # about the similarity of the two poses in the picture, which perspective bends


@dataclass
class Both:
    """Rays of 3D and 2D labels, every joint of the declared skeleton, padded with NaN to the longest."""

    of_3d: np.ndarray  # float64 [N J 2]
    of_2d: np.ndarray  # float64 [N J 2]
    size: np.ndarray  # float64 [N], the person's in rays

    def miss(self, of_3d: np.ndarray | None = None, of_2d: np.ndarray | None = None) -> np.ndarray:
        """float64 [N]: median distance over the joints, in person sizes; NaN for fewer than LEAST_JOINTS joints."""
        distance = self._distance(self.of_3d if of_3d is None else of_3d, self.of_2d if of_2d is None else of_2d)
        return np.where(np.isfinite(distance).sum(1) >= LEAST_JOINTS, median(distance, axis=1), np.nan)

    def miss_between(self, of_2d: np.ndarray, of_3d: np.ndarray) -> np.ndarray:
        """float64 [M]: the 2D labels of rows `of_2d` [M] against the 3D ones of rows `of_3d` [M]."""
        distance = np.linalg.norm(self.of_2d[of_2d] - self.of_3d[of_3d], axis=-1) / self.size[of_2d, None]
        return np.where(np.isfinite(distance).sum(1) >= LEAST_JOINTS, median(distance, axis=1), np.nan)

    def _distance(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.linalg.norm(first - second, axis=-1) / self.size[:, None]


def both_labels(columns: Columns) -> Both:
    """Rows without a camera, or without either label, are NaN."""
    joints = max((len(skeleton) for skeleton in columns.skeletons if skeleton is not None), default=1)
    of_3d, px = rays_of(_padded(columns)), np.full((len(columns), joints, 2), np.nan)
    of_3d[~columns.has_camera] = np.nan
    for row, points_px in enumerate(columns.joints_px):
        if points_px is not None:
            px[row, : len(points_px)] = points_px
    of_2d = columns.to_rays(px)
    # Joints that project near the lens' own plane are thrown anywhere by any rounding.
    low, high = (
        np.nanmin(np.where(np.isfinite(of_2d), of_2d, np.inf), 1),
        np.nanmax(np.where(np.isfinite(of_2d), of_2d, -np.inf), 1),
    )
    with np.errstate(all="ignore"):
        extent = (high - low).max(-1)
    return Both(of_3d, of_2d, np.where(np.isfinite(extent) & (extent > 0), extent, columns.size))


def check_projection(case: Case) -> None:
    """3D labels beside the 2D ones: by a shift, a zoom, another order, another frame, or for no known reason."""
    both = both_labels(case.columns)
    miss = both.miss()
    usual = case.sound(miss, (0.0, INTERNAL_SOUND_AT_MOST))
    limit = INTERNAL_MISS_EXACT if usual < INTERNAL_EXACT else max(INTERNAL_MISS, INTERNAL_TIMES * usual)
    votes = np.where(np.isfinite(miss), np.where(miss > limit, 1.0, -1.0), 0.0)
    for region in accused(case.votes(votes)):
        rows = case.rows(region)
        off = rows[votes[rows] > 0]
        for explain in (_as_sides, _as_order, _as_camera, _as_scaled_pose, _as_lens, _as_lag):
            if explain(case, both, region, rows, off, miss):
                break
        else:
            case.blame(
                "reprojection",
                region,
                f"3D labels lie {typical(miss, off):.1%} of the person's size beside the 2D labels, where the corpus's"
                f" others lie {usual:.1%} off, and no simple cause explains it{case.left_out(rows)}",
                rows,
                badness=miss,
                measured=typical(miss, off),
                expected=usual,
                unit="person sizes",
            )


def _as_sides(case: Case, both: Both, region: Region, rows: np.ndarray, off: np.ndarray, miss: np.ndarray) -> bool:
    swapped = both.of_2d.copy()
    for row in off:
        skeleton = case.columns.skeletons[row]
        if skeleton is not None:
            swapped[row, : len(skeleton)] = both.of_2d[row, skeleton.flip_permutation]
    left = both.miss(of_2d=swapped)
    if typical(left, off) > SHIFT_LEAVES * typical(miss, off):
        return False
    case.blame(
        "sides_swapped",
        region,
        f"3D and 2D labels have left and right exchanged: they lie {typical(miss, off):.1%} of the person's size apart,"
        f" exchanged {typical(left, off):.1%}; exchange one of them",
        rows,
        badness=miss,
        measured=typical(miss, off),
        expected=typical(left, off),
        unit="person sizes",
    )
    return True


def _as_order(case: Case, both: Both, region: Region, rows: np.ndarray, off: np.ndarray, miss: np.ndarray) -> bool:
    columns = case.columns
    of_3d = rays_of(columns.limbs_m)
    for name, other in SKELETONS.items():
        read_as = [
            other if own is not None and points is not None and own is not other and len(points) == len(other) else None
            for own, points in zip(columns.skeletons, columns.joints_px, strict=True)
        ]
        if not any(read_as[row] for row in off):
            continue
        limbs = columns.to_rays(pick(columns.joints_px, read_as, LIMBS, 2))
        left = Both(of_3d, limbs, both.size).miss()
        if typical(left, off) <= SHIFT_LEAVES * typical(miss, off):
            declared = most([columns.witnesses[row].skeleton for row in off])
            case.blame(
                "joint_order",
                region,
                f"2D labels are in the order of {name}, the 3D ones in that of {declared} as declared: the corpus mixes"
                " skeletons; convert() them to one",
                rows,
                badness=miss,
            )
            return True
    return False


def _as_camera(case: Case, both: Both, region: Region, rows: np.ndarray, off: np.ndarray, miss: np.ndarray) -> bool:
    """The 3D labels went through the stored pose read in another way, or the stored pose is the wrong one."""
    columns = case.columns
    stored = columns.R, columns.t_m
    best, least = "", SHIFT_LEAVES * typical(miss, off)
    for name, R, t_m in repaired(*stored):
        for (R_from, t_from), (R_to, t_to) in (((R, t_m), stored), (stored, (R, t_m))):
            world_m = to_world(_padded(columns), R_from, t_from)
            left = typical(both.miss(of_3d=rays_of(np.einsum("nij,nkj->nki", R_to, world_m) + t_to[:, None])), off)
            if left < least:
                best, least = name, left
    if not best:
        return False
    fault, words = REPAIRS[best]
    case.blame(
        fault,
        region,
        f"{words}, where the 3D labels were made or in the camera that is stored: read so, they lie {least:.1%} of the"
        f" person's size from the 2D labels instead of {typical(miss, off):.1%}{case.left_out(rows)}",
        rows,
        badness=miss,
        measured=typical(miss, off),
        expected=least,
        unit="person sizes",
    )
    return True


def _as_scaled_pose(
    case: Case, both: Both, region: Region, rows: np.ndarray, off: np.ndarray, miss: np.ndarray
) -> bool:
    """The 3D pose is too large or too small about its root, whose own place is right."""
    columns = case.columns
    padded = _padded(columns)
    roots = np.full((len(columns), 1, 3), np.nan)
    for row, skeleton in enumerate(columns.skeletons):
        if skeleton is not None and skeleton.root is not None:
            roots[row, 0] = padded[row, skeleton.root_index]
    about = typical(_similarity(both)[0], off)
    tried = {
        times: typical(both.miss(of_3d=rays_of(roots + times * (padded - roots))), off)
        for times in about * np.linspace(*SCALES_TRIED)
    }
    times = min(tried, key=lambda each: np.nan_to_num(tried[each], nan=np.inf))
    if not tried[times] <= SHIFT_LEAVES * typical(miss, off):
        return False
    case.blame(
        "scale",
        region,
        f"3D poses are {1 / times:.3f} times as large as the 2D ones about their root; scale them back",
        rows,
        badness=miss,
        measured=float(1 / times),
        expected=1.0,
        unit="times",
    )
    return True


def _padded(columns: Columns) -> np.ndarray:
    """float64 [N J 3]: the 3D labels of every joint, padded with NaN."""
    joints = max((len(skeleton) for skeleton in columns.skeletons if skeleton is not None), default=1)
    padded = np.full((len(columns), joints, 3), np.nan)
    for row, points_m in enumerate(columns.joints_m):
        if points_m is not None:
            padded[row, : len(points_m)] = points_m
    return padded


def _as_lens(case: Case, both: Both, region: Region, rows: np.ndarray, off: np.ndarray, miss: np.ndarray) -> bool:
    """A shift in each sample is a principal point that is off, a zoom about it a focal length; both, as after a crop
    that the camera was not told of, are the principal point's too."""
    scale, shift = _similarity(both)
    shifted = both.of_3d + median(both.of_2d - both.of_3d, axis=1)[:, None]
    zoomed = both.of_3d * scale[:, None, None]
    moved = zoomed + shift[:, None]
    before = min(typical(miss, off), SHIFT_LEAVES_MOST / SHIFT_LEAVES)
    focal_px = np.array([w.camera.focal_px if w.camera is not None else np.nan for w in case.columns.witnesses])
    if typical(both.miss(of_3d=shifted), off) <= SHIFT_LEAVES * before:
        step = median(both.of_2d - both.of_3d, axis=1) * focal_px[:, None]
        _blame_principal_point(case, region, rows, off, step, miss)
    elif typical(both.miss(of_3d=zoomed), off) <= SHIFT_LEAVES * before:
        times = typical(scale, off)
        case.blame(
            "focal_length",
            region,
            f"2D labels are {times:.3f} times as far from the principal point as the 3D ones project: the focal length"
            " is off, as after a resize that forgot to scale it",
            rows,
            badness=miss,
            measured=times,
            expected=1.0,
            unit="times",
        )
    elif typical(both.miss(of_3d=moved), off) <= SHIFT_LEAVES * before:
        _blame_principal_point(case, region, rows, off, shift * focal_px[:, None], miss)
    else:
        return False
    return True


def _similarity(both: Both) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [N] scale, float64 [N 2] shift) that bring the 3D labels' rays nearest to the 2D labels'."""
    known = (np.isfinite(both.of_3d) & np.isfinite(both.of_2d)).all(-1, keepdims=True)
    count = np.maximum(known.sum(1), 1)
    first, second = np.where(known, both.of_3d, 0.0), np.where(known, both.of_2d, 0.0)
    middle_1, middle_2 = first.sum(1) / count, second.sum(1) / count
    centred_1 = np.where(known, first - middle_1[:, None], 0.0)
    with np.errstate(all="ignore"):
        scale = (centred_1 * second).sum((1, 2)) / (centred_1**2).sum((1, 2))
    return scale, middle_2 - scale[:, None] * middle_1


def _blame_principal_point(
    case: Case, region: Region, rows: np.ndarray, off: np.ndarray, step_px: np.ndarray, miss: np.ndarray
) -> None:
    x, y = median(step_px[off], axis=0)
    length = float(median(np.linalg.norm(step_px[off], axis=-1)))
    varies = float(median(np.linalg.norm(step_px[off] - [x, y], axis=-1))) > 0.2 * length
    how = (
        f"by {length:.0f} px, another way in each picture, as after crops that forgot to move it"
        if varies
        else f"by ({x:+.1f}, {y:+.1f}) px"
    )
    case.blame(
        "principal_point",
        region,
        f"3D labels project beside the 2D ones {how}, all joints alike: the camera's principal point is off",
        rows,
        badness=miss,
        measured=length,
        expected=0.0,
        unit="px",
    )


def _as_lag(case: Case, both: Both, region: Region, rows: np.ndarray, off: np.ndarray, miss: np.ndarray) -> bool:
    """The 3D labels of a frame fit the 2D ones of another."""
    best = best_lag(case, rows, both.miss_between)
    if best is None:
        return False
    case.blame(
        "time_shift",
        region,
        f"3D labels fit the 2D labels of {lag_words(case, best, rows)}; shift them back",
        rows,
        badness=miss,
        measured=best.frames,
        expected=0.0,
        unit="frames",
    )
    return True
