"""Labels that lie beside, or spread about, where the keypoints lie: a principal point, a scale, a step in space.

Three models of what moved are fitted to a group's residuals, each with the pattern it moves rays by: one step of all
rays (principal point), a scale about the world's origin, a step in the world. A group that one of the tests accuses is
blamed on the model that leaves the least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from humanpose3d.checks.case import Case, typical
from humanpose3d.checks.columns import Columns, mean_miss, median
from humanpose3d.checks.limits import (
    LEAST_AGREEMENT,
    LEAST_JOINTS,
    MODEL_BETTER,
    PLACE_FLOOR_M,
    PLACE_GAIN,
    PLACE_SIGMAS,
    SCALE_FLOOR,
    SCALE_PER_MISS,
    SCALE_PLAIN,
    SCALE_SAMPLES,
    SCALE_SIGMAS,
    SCALE_SPREAD,
    SCALE_SUBJECTS,
    SHIFT_ALL,
    SHIFT_FLOOR,
    SHIFT_GAIN,
    SHIFT_SAMPLES,
    SHIFT_SPREAD,
)
from humanpose3d.checks.regions import Region, regions, steps

_ROBUST_STEPS = 12
_PRINCIPAL_POINT, _SCALE, _PLACE = "principal_point", "scale", "place_shift"


@dataclass(frozen=True)
class Move:
    """A model fitted to rows: labels' rays move by pattern @ amount."""

    fault: str
    amount: np.ndarray  # float64 [D]
    error: float  # of the amount
    left: float  # typical miss of the rows once moved


def pattern_of(columns: Columns, fault: str, rows: np.ndarray) -> np.ndarray:
    """float64 [M 12 2 D]: how the rows' labelled rays move for one unit of each of the model's D amounts."""
    if fault == _PRINCIPAL_POINT:
        return np.broadcast_to(np.eye(2), (len(rows), columns.labels.shape[1], 2, 2))
    R, limbs_m = columns.R[rows], columns.limbs_m[rows]
    if fault == _SCALE:
        moves_m = (limbs_m - columns.t_m[rows][:, None])[..., None]  # R (world point), in the camera frame
    else:
        moves_m = np.broadcast_to(R[:, None], (*limbs_m.shape, 3))
    with np.errstate(all="ignore"):
        z = np.where(limbs_m[..., 2:] > 0.1, limbs_m[..., 2:], np.nan)
        # A ray is x / z: to first order it moves by dx / z - x / z * dz / z.
        return (moves_m[..., :2, :] - (limbs_m[..., :2] / z)[..., None] * moves_m[..., 2:, :]) / z[..., None]


def fit_move(columns: Columns, fault: str, rows: np.ndarray) -> Move:
    """The model fitted to the rows' residuals, robustly."""
    pattern = pattern_of(columns, fault, rows)
    size = columns.size[rows, None, None]
    residual, shape = (columns.keys[rows] - columns.labels[rows]) / size, pattern / size[..., None]
    known = columns.comparable[rows] & np.isfinite(residual).all(-1) & np.isfinite(shape).all((-1, -2))
    D = shape.shape[-1]
    if known.sum() < 3 * D:
        return Move(fault, np.full(D, np.nan), np.inf, np.inf)
    residual, shape = np.where(known[..., None], residual, 0.0), np.where(known[..., None, None], shape, 0.0)
    trust = known * columns.reliability  # wrists err most: without this a scale is half again as uncertain
    weight, amount = trust, np.zeros(D)
    for _ in range(_ROBUST_STEPS):
        normal = np.einsum("nk,nkcd,nkce->de", weight, shape, shape)
        # A little ridge: one camera alone does not see how far away things are.
        normal += 1e-3 * np.trace(normal) / D * np.eye(D)
        amount = np.linalg.solve(normal, np.einsum("nk,nkc,nkcd->d", weight, residual, shape))
        off = np.linalg.norm(residual - shape @ amount, axis=-1)
        weight = trust / np.maximum(off / (1.5 * np.median(off[known]) + 1e-9), 1.0)
    # The joints of a sample err together, and the samples of a take: the scatter over takes tells the error.
    pulls = _by_take(columns, rows, np.einsum("nk,nkc,nkcd->nd", weight, residual - shape @ amount, shape))
    inverse = np.linalg.inv(normal)
    error = float(np.sqrt(np.trace(inverse @ (pulls.T @ pulls) @ inverse)))
    return Move(fault, amount, error, float(median(_miss_moved(columns, rows, pattern @ amount))))


def _miss_moved(columns: Columns, rows: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """float64 [M]: the rows' misses with their labels' rays moved by [M 12 2]."""
    distance = np.linalg.norm(columns.keys[rows] - columns.labels[rows] - moves, axis=-1) / columns.size[rows, None]
    return mean_miss(distance, columns.comparable[rows])


def _by_take(columns: Columns, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[M D] of rows -> [T D], summed over each take's rows through one camera."""
    takes: dict[tuple[str, str, str], np.ndarray] = {}
    for row, value in zip(rows, values, strict=True):
        witness = columns.witnesses[row]
        take = (witness.subject, witness.action, witness.camera_id)
        takes[take] = takes[take] + value if take in takes else value
    return np.stack(list(takes.values()))


def best_move(case: Case, rows: np.ndarray, likely: str) -> Move:
    """The model that leaves the least of these rows' misses; the likely one, unless another is clearly better."""
    faults = (_PRINCIPAL_POINT, _SCALE, _PLACE) if has_pose(case.columns)[rows].all() else (_PRINCIPAL_POINT,)
    moves = {fault: fit_move(case.columns, fault, rows) for fault in faults}
    best = min(moves.values(), key=lambda move: move.left)
    return best if likely not in moves or best.left < MODEL_BETTER * moves[likely].left else moves[likely]


def has_pose(columns: Columns) -> np.ndarray:
    """bool [N]: a camera, a 3D label and keypoints to compare."""
    return columns.has_camera & np.isfinite(columns.limbs_m).any((1, 2)) & np.isfinite(columns.miss())


# ------------------------------------------------------------------------------------------------------ a step in space


def check_place(case: Case) -> None:
    """Subjects or takes whose labels lie beside the person by one step in the world, in all cameras alike."""
    columns = case.columns
    of_subject: dict[str, list[int]] = {}
    for row in np.flatnonzero(case.open & has_pose(columns)).tolist():
        of_subject.setdefault(columns.witnesses[row].subject, []).append(row)
    for subject, listed in of_subject.items():
        rows = np.array(listed)
        if _blame_place(case, subject, None, rows):
            continue
        actions = [columns.witnesses[row].action for row in rows]
        for action in sorted(set(actions)):
            own = rows[[name == action for name in actions]]
            if len(own) < len(rows):
                _blame_place(case, subject, action, own)


def _blame_place(case: Case, subject: str, action: str | None, rows: np.ndarray) -> bool:
    columns = case.columns
    cameras = {columns.witnesses[row].camera_id for row in rows}
    if len(rows) < LEAST_JOINTS or len(cameras) < 2:
        return False  # one camera cannot tell a step in space from a principal point
    move, miss = fit_move(columns, _PLACE, rows), columns.miss()
    length = float(np.linalg.norm(move.amount))
    if not length > max(PLACE_FLOOR_M, PLACE_SIGMAS * move.error) or move.left > PLACE_GAIN * typical(miss, rows):
        return False
    # The same step in every picture is a principal point's, and a step up is seen so by all cameras.
    if best_move(case, rows, _PRINCIPAL_POINT).fault != _PLACE or move.left > case.explained_miss():
        return False
    if not _in_all_cameras(columns, rows, move):
        return False
    x, y, z = move.amount
    case.blame(
        _PLACE,
        _region_of(case, rows, subject),
        f"labels lie {length:.2f} m beside the person, who is ({x:+.2f}, {y:+.2f}, {z:+.2f}) m from there in the"
        f" frame; moved, the distance to the keypoints falls from {typical(miss, rows):.1%} of the person's size to"
        f" {move.left:.1%}{case.left_out(rows)}; leave these labels out, or move them",
        rows,
        badness=miss,
        measured=length,
        expected=0.0,
        unit="m",
        action=action,
    )
    return True


def _in_all_cameras(columns: Columns, rows: np.ndarray, move: Move) -> bool:
    """Half of the cameras at least see labels come nearer, and none sees them go: one camera's fault is its own."""
    before = columns.miss()[rows]
    after = _miss_moved(columns, rows, pattern_of(columns, _PLACE, rows) @ move.amount)
    cameras = np.array([columns.witnesses[row].camera_id for row in rows])
    changes = []
    for camera in sorted(set(cameras)):
        own = cameras == camera
        changes.append(float(median(after[own])) / max(float(median(before[own])), 1e-9))
    return max(changes) < 1.15 and float(np.mean(np.array(changes) < PLACE_GAIN)) >= 0.5


def _region_of(case: Case, rows: np.ndarray, subject: str) -> Region:
    cells = {case.columns.cells[row] for row in rows}
    every = regions(list(case.columns.rows_of_cell))
    exact = [region for region in every if set(region.cells) == cells and region.subject]
    return exact[0] if exact else Region(subject, None, tuple(sorted(cells)))


# ---------------------------------------------------------------------------------------- one step of the rays, a scale


def check_shift(case: Case) -> None:
    """Groups whose keypoints lie beside the labels by one and the same step, where the others' do not."""
    columns = case.columns
    step = np.where(np.isfinite(columns.miss())[:, None], median(columns.keys - columns.labels, axis=1), np.nan)
    step = np.where(columns.has_camera[:, None], step, np.nan)  # [N 2] rays
    size = float(median(columns.size[case.open & columns.has_camera]))
    if not np.isfinite(size):
        return
    middles, errors = case.medians(step)
    for found in steps(middles, errors, floor=SHIFT_FLOOR * size, own_spread=SHIFT_SPREAD * size):
        rows = case.rows(found.region)
        move = best_move(case, rows, _PRINCIPAL_POINT)
        before = typical(columns.miss(), rows)
        if len(rows) < SHIFT_SAMPLES or move.left > SHIFT_GAIN * before:
            continue
        if move.left > case.explained_miss() and move.left > 0.5 * before:
            continue  # moved or not, nothing fits
        if move.fault == _SCALE and abs(move.amount[0]) > SCALE_PLAIN:
            _blame_scale(case, found.region, rows, float(move.amount[0]))
        elif move.fault == _PRINCIPAL_POINT:
            _blame_shift(case, found.region, rows, found.value - found.others, found.value)
    middles, _ = case.medians(step)
    overall = np.median(list(middles.values()), axis=0) if middles else np.zeros(2)
    if np.linalg.norm(overall) > SHIFT_ALL * size:
        region = Region(None, None, tuple(middles))
        _blame_shift(case, region, case.rows(region), overall, overall)


def _blame_shift(case: Case, region: Region, rows: np.ndarray, beyond: np.ndarray, value: np.ndarray) -> None:
    columns = case.columns
    x, y = beyond * float(np.median([w.camera.focal_px for w in (columns.witnesses[row] for row in rows) if w.camera]))
    miss, left = columns.miss(), columns.miss(columns.labels + value)
    case.blame(
        _PRINCIPAL_POINT,
        region,
        f"keypoints lie ({x:+.1f}, {y:+.1f}) px beside the labels, all joints alike, where the corpus's others do not:"
        " the camera's principal point is off, as after a crop that forgot to move it; without the step the distance"
        f" falls from {typical(miss, rows):.1%} of the person's size to {typical(left, rows):.1%}{case.left_out(rows)}",
        rows,
        badness=miss,
        measured=float(np.hypot(x, y)),
        expected=0.0,
        unit="px",
    )


def check_scale(case: Case) -> None:
    """Subjects whose keypoints spread more or less about the world's origin than the labels, against the others.

    Of cameras, and of single cells, `bones` and `views` tell better.
    """
    columns = case.columns
    use = case.open & has_pose(columns)
    of_subject: dict[str, list[int]] = {}
    for row in np.flatnonzero(use).tolist():
        of_subject.setdefault(columns.witnesses[row].subject, []).append(row)
    moves = {
        (subject, ""): fit_move(columns, _SCALE, np.array(rows))
        for subject, rows in of_subject.items()
        if len(rows) >= SCALE_SAMPLES
    }
    values, errors = {}, {}
    for cell, move in moves.items():
        rows = np.array(of_subject[cell[0]])
        takes = {columns.witnesses[row].action for row in rows}
        values[cell] = move.amount
        # What an estimator sees badly it sees too small, from everywhere: takes, not samples, average that out.
        habit = SCALE_PER_MISS * typical(columns.miss(), rows) / np.sqrt(len(takes))
        errors[cell] = float(np.hypot(move.error, habit))
    for step in steps(values, errors, floor=SCALE_FLOOR, own_spread=SCALE_SPREAD, least_sigmas=SCALE_SIGMAS):
        for subject, _ in step.region.cells:
            rows = np.array(of_subject[subject])
            share = float((step.value - step.others)[0])
            if len(moves) < SCALE_SUBJECTS and abs(share) < SCALE_PLAIN:
                continue  # one other subject does not tell which of the two is off
            if typical(columns.miss(), rows) > case.explained_miss() or best_move(case, rows, _SCALE).fault != _SCALE:
                continue
            if _in_most_cameras(case, subject, share):
                _blame_scale(case, _region_of(case, rows, subject), rows, share)


def _in_most_cameras(case: Case, subject: str, share: float) -> bool:
    """The subject's scale lies on the same side of the others' through nearly every camera."""
    columns = case.columns
    use = case.open & has_pose(columns)
    amounts: dict[str, dict[bool, list[float]]] = {}
    for (name, camera), rows in columns.rows_of_cell.items():
        rows = rows[use[rows]]
        if len(rows) >= LEAST_JOINTS:
            amount = float(fit_move(columns, _SCALE, rows).amount[0])
            amounts.setdefault(camera, {}).setdefault(name == subject, []).append(amount)
    apart = [np.median(both[True]) - np.median(both[False]) for both in amounts.values() if len(both) == 2]
    return not apart or float(np.mean(np.array(apart) * np.sign(share) > 0.25 * abs(share))) >= LEAST_AGREEMENT


def _blame_scale(case: Case, region: Region, rows: np.ndarray, share: float) -> None:
    case.blame(
        _SCALE,
        region,
        f"keypoints spread {abs(share):.1%} {'more' if share > 0 else 'less'} about the world's origin than the labels,"
        f" against the corpus's other groups: the 3D labels are too {'small' if share > 0 else 'large'}"
        f"{case.left_out(rows)}; check the scale they went through",
        rows,
        badness=case.columns.miss(),
        measured=1.0 - share,
        expected=1.0,
        unit="times",
    )
