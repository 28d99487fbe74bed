"""Joint orders: labels or keypoints that are stored in another order than their skeleton's name says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from humanpose3d.checks.bones import unlike_humans
from humanpose3d.checks.case import Case, most, typical
from humanpose3d.checks.columns import LIMBS, mean_miss, pick, rays_of, rows_by_skeleton
from humanpose3d.checks.limits import JUMBLED, MIXED_SHARE, ORDER_BETTER, REPAIR_SHARE
from humanpose3d.checks.regions import Region, accused
from humanpose3d.checks.shares import check_share
from humanpose3d.skeletons import MPI_17_LEGACY, SKELETONS, Skeleton


def other_orders(skeleton: Skeleton) -> list[Skeleton]:
    """The known sets of as many joints."""
    return [other for other in SKELETONS.values() if len(other) == len(skeleton) and other is not skeleton]


def check_declared(case: Case) -> None:
    """One corpus declared in several skeletons."""
    names = [witness.skeleton for witness in case.columns.witnesses]
    _check_minority(case, names, "labels")
    _check_minority(case, [witness.keypoint_skeleton for witness in case.columns.witnesses], "keypoints")


def _check_minority(case: Case, names: Sequence[str | None], what: str) -> None:
    usual = most(names)
    votes = np.array([0.0 if not name else 1.0 if name != usual else -1.0 for name in names])
    for region in accused(case.votes(votes)):
        rows = case.rows(region, votes > 0)
        found = most([names[row] for row in rows])
        legacy = found == MPI_17_LEGACY.name
        case.blame(
            "legacy_joint_list" if legacy else "mixed_skeletons",
            region,
            f"{what} are declared {found}, those of the rest of the corpus {usual}"
            + ("; it is the widely copied wrong list, so read the corpus anew" if legacy else "")
            + "; convert() them to one skeleton",
            rows,
            explains=False,
        )


def check_label_order(case: Case) -> None:
    """3D labels whose joints make no human body in the declared order, and one in another, or in none that is known."""
    columns = case.columns
    declared, orders = np.full(len(columns), np.nan), dict[str, np.ndarray]()
    for skeleton, rows in rows_by_skeleton(columns.joints_m, columns.skeletons):
        joints_m = np.stack([columns.joints_m[row] for row in rows])  # type: ignore[misc]
        broken = unlike_humans(joints_m, skeleton)
        declared[rows] = np.where(np.isfinite(broken).any(-1), np.nansum(broken, -1), np.nan)
        for other in other_orders(skeleton):
            found = np.nansum(unlike_humans(joints_m, other), -1)
            orders.setdefault(other.name, np.full(len(columns), np.nan))[rows] = found
    declared[~case.open] = np.nan
    fewest = np.fmin.reduce([np.full(len(columns), np.inf), *orders.values()])
    other_fits = (declared >= 1) & (fewest <= declared / 3)
    wrong = (declared >= JUMBLED) | other_fits
    for region in accused(case.votes(np.where(np.isfinite(declared), np.where(wrong, 1.0, -1.0), 0.0))):
        rows = case.rows(region, np.isfinite(declared))
        means = {name: float(np.nan_to_num(found[rows], nan=np.inf).mean()) for name, found in orders.items()}
        best = min(means, key=lambda name: means[name], default="")
        if best and means[best] < min(1.0, declared[rows].mean() / 3):
            _blame_order(case, region, rows, best, "3D labels", "make a human body in", declared)
        elif found := _where_keypoints_lie(case, rows):
            case.blame(
                "joint_order",
                region,
                f"joints are in no known order, not {most([w.skeleton for w in _of(columns.witnesses, rows)])} as"
                f" declared: {found}{case.left_out(rows)}; read the corpus with the right list of joints",
                rows,
                badness=declared,
            )

    _check_mixture(case, (declared >= 2) & other_fits, declared)


def _check_mixture(case: Case, wrong: np.ndarray, declared: np.ndarray) -> None:
    """Groups of which some samples are in another order."""
    check_share(
        case,
        "mixed_skeletons",
        np.where(np.isfinite(declared), wrong, np.nan),
        MIXED_SHARE,
        lambda mine, others: (
            f"{mine:.0%} of the 3D labels make a human body in another joint order than the declared one only: several"
            " orders were mixed; convert() them to one"
        ),
        badness=declared,
        everywhere=True,
    )


def _where_keypoints_lie(case: Case, rows: np.ndarray) -> str:
    """'left wrist lies at joint 12 (left_knee), ...' for limbs on another joint's label; '' where too few are."""
    columns = case.columns
    names = Counter(skeleton.name for skeleton in _of(columns.skeletons, rows) if skeleton is not None)
    if not names:
        return ""
    skeleton = SKELETONS[names.most_common(1)[0][0]]
    own = [row for row in rows if columns.skeletons[row] is skeleton and columns.joints_m[row] is not None]
    if not own:
        return ""
    labels = np.stack([rays_of(np.asarray(columns.joints_m[row])) for row in own])
    distances = np.linalg.norm(columns.keys[own][:, :, None] - labels[:, None], axis=-1)
    with np.errstate(all="ignore"):
        cost = np.nanmedian(np.nan_to_num(distances / columns.size[own][:, None, None], nan=1.0), axis=0)  # [12 J]
    moved = []
    for limb, point in enumerate(LIMBS):
        best = int(np.argmin(cost[limb]))
        column = skeleton.points.index(point) if point in skeleton.points else None
        if column is not None and cost[limb, best] < REPAIR_SHARE * cost[limb, column] and cost[limb, best] < 0.1:
            moved.append(f"the {point.replace('_', ' ')} is at joint {best} ({skeleton.joints[best]})")
    return ", ".join(moved[:3]) if len(moved) >= len(LIMBS) / 3 else ""


def check_2d_order(case: Case) -> None:
    """Labels without 3D, and keypoints, that fit one another in another order than the declared one."""
    columns = case.columns
    miss = columns.miss()
    has_3d = np.isfinite(columns.limbs_m).any((1, 2))
    by_labels, by_keypoints = {}, {}
    for name in SKELETONS:
        limbs = _limbs_as(case, columns.joints_px, columns.skeletons, name, ~has_3d)
        if limbs is not None:
            by_labels[name] = _fit_votes(miss, _miss_of(case, limbs, columns.keys))
        keys = _limbs_as(case, columns.keypoints_px, columns.keypoint_skeletons, name, np.ones(len(columns), bool))
        if keys is not None:
            by_keypoints[name] = _fit_votes(miss, _miss_of(case, columns.labels, keys))
    for name, region in _best_regions(case, by_labels):
        rows = case.rows(region)
        _blame_order(case, region, rows, name, "2D labels", "fit the keypoints in", miss)
    for name, region in _best_regions(case, by_keypoints):
        rows = case.rows(region)
        declared = most([w.keypoint_skeleton for w in _of(columns.witnesses, rows)])
        case.blame(
            "mixed_skeletons",
            region,
            f"keypoints fit the labels in the order of {name}, not of {declared} as declared{case.left_out(rows)};"
            " convert() them, or declare what they are",
            rows,
            badness=miss,
        )


def _limbs_as(
    case: Case,
    arrays: Sequence[np.ndarray | None],
    skeletons: Sequence[Skeleton | None],
    name: str,
    among: np.ndarray,
) -> np.ndarray | None:
    """float64 [N 12 2] rays of LIMBS where the arrays are read in the order `name`; None where no row can be."""
    other = SKELETONS[name]
    read_as = [
        other if use and own is not None and own is not other and len(own) == len(other) else None
        for own, use in zip(skeletons, among, strict=True)
    ]
    if not any(read_as):
        return None
    return case.columns.to_rays(pick(arrays, read_as, LIMBS, 2))


def _miss_of(case: Case, labels: np.ndarray, keys: np.ndarray) -> np.ndarray:
    comparable = np.isfinite(labels).all(-1) & np.isfinite(keys).all(-1)
    return mean_miss(np.linalg.norm(keys - labels, axis=-1) / case.columns.size[:, None], comparable)


def _fit_votes(miss: np.ndarray, other: np.ndarray) -> np.ndarray:
    votes = np.where((miss - other > ORDER_BETTER) & (other < REPAIR_SHARE * miss), 1.0, -1.0)
    return np.where(np.isfinite(miss) & np.isfinite(other), votes, 0.0)


def _best_regions(case: Case, votes: dict[str, np.ndarray]) -> list[tuple[str, Region]]:
    """(order, region) of what is accused, the order with most votes first where several fit."""
    found: list[tuple[float, str, Region]] = []
    for name, values in votes.items():
        for region in accused(case.votes(values)):
            found.append((float(values[case.rows(region)].sum()), name, region))
    chosen: list[tuple[str, Region]] = []
    taken: set = set()
    for _, name, region in sorted(found, key=lambda entry: (-entry[0], entry[1])):
        if not taken & set(region.cells):
            chosen.append((name, region))
            taken |= set(region.cells)
    return chosen


def _blame_order(
    case: Case, region: Region, rows: np.ndarray, name: str, what: str, how: str, badness: np.ndarray
) -> None:
    declared = most([witness.skeleton for witness in _of(case.columns.witnesses, rows)])
    legacy = MPI_17_LEGACY.name in (name, declared)
    advice = (
        "the widely copied wrong list was used; read the corpus anew"
        if name == MPI_17_LEGACY.name
        else "the corpus mixes skeletons; declare what they are, or convert() them"
    )
    case.blame(
        "legacy_joint_list" if legacy else "joint_order",
        region,
        f"{what} {how} the order of {name}, not of {declared} as declared{case.left_out(rows)}: {advice}",
        rows,
        badness=badness,
        measured=typical(badness, rows),
    )


def _of(values: Sequence, rows: np.ndarray) -> list:
    return [values[row] for row in rows]
