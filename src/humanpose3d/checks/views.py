"""One moment through several cameras: in the world's frame its poses must be the same.

No estimator is needed, so this sees what keypoints cannot: labels scaled about the camera, and wrong poses of cameras
that the labels did not go through.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from humanpose3d.checks.cameras import REPAIRS, repaired
from humanpose3d.checks.case import Case, typical
from humanpose3d.checks.columns import LIMBS, MIRRORED, Columns, median, to_world
from humanpose3d.checks.lags import best_lag, lag_words, lags
from humanpose3d.checks.limits import LYING_DEG, UPRIGHT_DEG, VIEWS_APART_M, VIEWS_REPAIRED, VIEWS_SCALE, VIEWS_TIMES
from humanpose3d.checks.regions import Region, accused


@dataclass
class Views:
    """The rows of moments that several cameras saw, and where they put the person."""

    columns: Columns
    moments: list[np.ndarray]  # int64 rows, at least two
    world_m: np.ndarray  # float64 [N 12 3]; NaN outside the moments

    def apart(self, world_m: np.ndarray | None = None, others_m: np.ndarray | None = None) -> np.ndarray:
        """float64 [N] metres: each row's pose (of `world_m`) from the median of the other cameras' (of `others_m`)."""
        own = self.world_m if world_m is None else world_m
        others = self.of_others(self.world_m if others_m is None else others_m)
        return median(np.linalg.norm(own - others, axis=-1), axis=1)

    def of_others(self, world_m: np.ndarray) -> np.ndarray:
        """float64 [N 12 3]: the median of the other cameras' poses of each row's moment; NaN outside the moments."""
        others = np.full_like(world_m, np.nan)
        for rows in self.by_count:  # [moments, cameras]
            for place in range(rows.shape[1]):
                others[rows[:, place]] = median(world_m[np.delete(rows, place, axis=1)], axis=1)
        return others

    @cached_property
    def by_count(self) -> list[np.ndarray]:
        """The moments of two cameras, of three, ... as int64 [moments, cameras]."""
        counts = sorted({len(rows) for rows in self.moments})
        return [np.stack([rows for rows in self.moments if len(rows) == count]) for count in counts]


def views(case: Case) -> Views | None:
    """None where no moment was seen through two cameras with poses of their own."""
    columns = case.columns
    use = case.open & columns.has_camera & np.isfinite(columns.limbs_m).any((1, 2))
    moments = []
    for rows in columns.rows_of_moment.values():
        rows = rows[use[rows]]
        cameras = [columns.witnesses[row].camera_id for row in rows]
        if len(rows) < 2 or len(set(cameras)) < len(cameras):
            continue
        poses = np.concatenate([columns.R[rows].reshape(len(rows), -1), columns.t_m[rows]], axis=1)
        if np.abs(poses - poses[0]).max() > 1e-6:  # cameras whose poses nobody knows all stand in one place
            moments.append(rows)
    if not moments:
        return None
    world_m = np.full_like(columns.limbs_m, np.nan)
    seen = np.concatenate(moments)
    world_m[seen] = to_world(columns.limbs_m, columns.R, columns.t_m)[seen]
    return Views(columns, moments, world_m)


def check_views(case: Case) -> None:
    """Cameras that put the same moment elsewhere than the others: turned, scaled, exchanged or at another time."""
    for _ in range(4):  # one cause may hide another camera's
        found = views(case)
        if found is None or not _explain(case, found):
            return


def _explain(case: Case, seen: Views) -> bool:
    apart = seen.apart()
    limit = max(VIEWS_APART_M, VIEWS_TIMES * case.sound(apart, (0.0, np.inf)))
    limit = min(limit, 10 * VIEWS_APART_M)  # where every group is off, none is sound
    if not (apart > limit).any():
        return _explain_scale(case, seen, apart)
    return (
        _explain_by(case, apart, limit, _repairs(case, seen))
        or _explain_lag(case, seen, limit)
        or _explain_scale(case, seen, apart)
        or _explain_by(case, apart, limit, [("beside", _beside(case, seen))])
    )


def _explain_by(case: Case, apart: np.ndarray, limit: float, repairs: list[tuple[str, np.ndarray]]) -> bool:
    """Blames the group and the repair that bring views together most."""
    best: tuple[float, str, Region, np.ndarray] | None = None
    for name, left in repairs:
        fits = (apart > limit) & (left < VIEWS_REPAIRED * apart)
        votes = np.where(np.isfinite(apart), np.where(fits, 1.0, -1.0), 0.0)
        for region in accused(case.votes(votes)):
            rows = case.rows(region, votes > 0)
            gain = float(np.sum(apart[rows] - left[rows]))
            if best is None or gain > best[0]:
                best = (gain, name, region, left)
    if best is not None:
        _blame(case, best[1], best[2], apart, best[3])
    return best is not None


def _repairs(case: Case, seen: Views) -> list[tuple[str, np.ndarray]]:
    """(name, float64 [N] metres apart): of this row read otherwise, or of all its moment's rows read otherwise."""
    columns = case.columns
    found = []
    worlds = [(name, to_world(columns.limbs_m, R, t_m)) for name, R, t_m in repaired(columns.R, columns.t_m)]
    for name, world_m in worlds:
        found.append((name, np.fmin(seen.apart(world_m), seen.apart(world_m, world_m))))
    found.append(("sides", seen.apart(seen.world_m[:, MIRRORED])))
    return found


def _beside(case: Case, seen: Views) -> np.ndarray:
    """float64 [N] metres apart, once each camera's usual step from the others is taken out."""
    others, step = seen.of_others(seen.world_m), np.zeros((len(case.columns), 1, 3))
    for rows in case.columns.rows_of_cell.values():
        rows = rows[case.open[rows]]
        step[rows] = median(seen.world_m[rows] - others[rows], axis=(0, 1))
    return seen.apart(seen.world_m - step)


def _blame(case: Case, name: str, region: Region, apart: np.ndarray, left: np.ndarray) -> None:
    rows = case.rows(region)
    distance, remaining = typical(apart, rows), typical(left, rows)
    if name == "beside":
        # A camera that stands elsewhere than it says, or labels beside the person: keypoints see the latter only.
        beside = typical(case.columns.miss(), rows) > case.explained_miss()
        fault = "place_shift" if beside else "camera_position"
        words = f"{'the labels lie' if beside else 'the camera stands'} {_metres(distance)} beside where it should"
    else:
        fault, words = (REPAIRS | _SIDES)[name]
    case.blame(
        fault,
        region,
        f"{words}: seen from the other cameras the same people stand {_metres(distance)} away, read so"
        f" {_metres(remaining)}; correct {'the camera' if fault.startswith('camera') else 'the labels'}",
        rows,
        badness=apart,
        measured=distance,
        expected=remaining,
        unit="m",
    )


_SIDES = {"sides": ("sides_swapped", "left and right are exchanged in the 3D labels")}


def _metres(distance: float) -> str:
    return f"{distance:.2f} m" if distance >= 0.1 else f"{100 * distance:.1f} cm"


def _explain_lag(case: Case, seen: Views, limit: float) -> bool:
    """A camera whose labels are the other cameras' of another frame."""
    columns = case.columns
    others = seen.of_others(seen.world_m)

    def apart(rows: np.ndarray, labelled: np.ndarray) -> np.ndarray:
        return median(np.linalg.norm(others[rows] - seen.world_m[labelled], axis=-1), axis=1)

    use = np.flatnonzero(case.open & np.isfinite(others).any((1, 2)))
    best: tuple[float, Region] | None = None
    for lag in lags(case, use, apart):
        votes = np.zeros(len(columns))
        better = lag.after < VIEWS_REPAIRED * lag.before
        # Who stands still is no witness, whatever the lag.
        votes[lag.seen] = np.where(better, np.where(lag.before > limit, 1.0, 0.0), -1.0)
        for region in accused(case.votes(votes)):
            inside = np.isin(lag.seen, case.rows(region))
            gain = float((lag.before - lag.after)[inside].sum())
            if best is None or gain > best[0]:
                best = (gain, region)
    if best is None:
        return False
    region = best[1]
    rows = case.rows(region)
    found = best_lag(case, rows, apart, least=limit / 2)
    if found is None:
        return False
    case.blame(
        "time_shift",
        region,
        f"the other cameras' labels are this one's of {lag_words(case, found, rows, _metres)}; shift them back",
        rows,
        badness=apart(np.arange(len(columns)), np.arange(len(columns))),
        measured=found.frames,
        expected=0.0,
        unit="frames",
    )
    return True


def _explain_scale(case: Case, seen: Views, apart: np.ndarray) -> bool:
    """Labels scaled about each camera: the factor by which all of a moment's views agree best."""
    columns = case.columns
    factor, left = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    for rows in seen.by_count:
        # world = R^T (s X - t) is linear in s: the s that makes the views' poses one, by least squares.
        R, limbs_m = columns.R[rows], columns.limbs_m[rows]  # [M C 3 3], [M C 12 3]
        along = np.einsum("mcji,mckj->mcki", R, limbs_m)
        fixed = np.einsum("mcji,mcj->mci", R, columns.t_m[rows])[:, :, None]
        along, fixed = along - along.mean(1, keepdims=True), fixed - fixed.mean(1, keepdims=True)
        known = np.isfinite(along)
        with np.errstate(all="ignore"):
            s = np.where(known, along * fixed, 0.0).sum((1, 2, 3)) / np.where(known, along**2, 0.0).sum((1, 2, 3))
        factor[rows] = s[:, None]
        left[rows] = median(np.linalg.norm(s[:, None, None, None] * along - fixed, axis=-1), axis=2)
    off = np.abs(factor - 1.0)
    fits = (off > VIEWS_SCALE) & (left < VIEWS_REPAIRED * apart) & (apart > VIEWS_APART_M / 4)
    votes = np.where(np.isfinite(off), np.where(fits, 1.0, -1.0), 0.0)
    for region in accused(case.votes(votes)):
        rows = case.rows(region)
        share = 1.0 / typical(factor, rows) - 1.0
        case.blame(
            "scale",
            region,
            f"labels are {abs(share):.1%} {'too far from' if share > 0 else 'too near to'} every camera: scaled back,"
            f" the cameras' views of one moment agree within {_metres(typical(left, rows))} instead of"
            f" {_metres(typical(apart, rows))}; check the unit and the calibration they went through",
            rows,
            badness=apart,
            measured=1 + share,
            expected=1.0,
            unit="times",
        )
        return True
    return False


# ------------------------------------------------------------------------------------------------------ which way is up


def check_upright(case: Case) -> None:
    """Cameras in whose world people lie on their sides while those of the rest of the corpus stand."""
    columns = case.columns
    if not (case.open & columns.has_camera).any():
        return
    up = _up(to_world(columns.limbs_m, columns.R, columns.t_m))
    middles, _ = case.medians(up)
    if len(middles) < 2:
        return
    usual = np.median(np.array(list(middles.values())), axis=0)
    if np.linalg.norm(usual) < 0.5:
        return  # cells do not agree on what is up
    tilt = _angle_deg(up, usual)
    if case.sound(tilt, (0.0, 180.0)) > UPRIGHT_DEG:
        return
    turned = _up(to_world(columns.limbs_m, np.swapaxes(columns.R, -1, -2), columns.t_m))
    repaired_tilt = _angle_deg(turned, usual)
    lies = np.full(len(columns), np.nan)
    for rows in columns.rows_of_cell.values():
        lies[rows] = median(tilt[rows])
    fits = (tilt > LYING_DEG) & (lies > LYING_DEG) & (repaired_tilt < UPRIGHT_DEG)
    votes = np.where(np.isfinite(tilt), np.where(fits, 1.0, -1.0), 0.0)
    for region in accused(case.votes(votes)):
        rows = case.rows(region)
        case.blame(
            "camera_rotation",
            region,
            f"people lie in the world's frame, {typical(tilt, rows):.0f} degrees from where those of the other groups"
            f" have their heads, and stand once the rotation is transposed ({typical(repaired_tilt, rows):.0f}"
            " degrees); correct the camera",
            rows,
            badness=tilt,
            measured=typical(tilt, rows),
            expected=typical(repaired_tilt, rows),
            unit="deg",
        )


def _up(world_m: np.ndarray) -> np.ndarray:
    """float64 [N 3], unit length: from ankles to shoulders."""
    shoulders = [LIMBS.index("left_shoulder"), LIMBS.index("right_shoulder")]
    ankles = [LIMBS.index("left_ankle"), LIMBS.index("right_ankle")]
    way = world_m[:, shoulders].mean(1) - world_m[:, ankles].mean(1)
    with np.errstate(all="ignore"):
        return way / np.linalg.norm(way, axis=-1, keepdims=True)


def _angle_deg(ways: np.ndarray, usual: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.degrees(np.arccos(np.clip(ways @ usual / np.linalg.norm(usual), -1.0, 1.0)))
