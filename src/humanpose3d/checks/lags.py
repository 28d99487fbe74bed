"""Time: labels that belong to another frame of their take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from humanpose3d.checks.case import Case, most
from humanpose3d.checks.columns import mean_miss, median
from humanpose3d.checks.limits import (
    LAG_AGREEMENT,
    LAG_BETTER,
    LAG_EXACT,
    LAG_FRAMES,
    LAG_LEAST,
    LAG_PAIRS,
    LAG_SIGMAS,
    LAG_SLIGHT,
    LAG_SLIGHT_MOMENTS,
    LAG_SLIGHT_SIGMAS,
    LAG_SLIGHT_TIMES,
    MODEL_BETTER,
)
from humanpose3d.checks.moves import best_move
from humanpose3d.checks.regions import Region, accused

# (rows seen [M], rows labelled [M]) -> float64 [M]: how far what is seen in the first lies from the second's labels
MissBetween = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Lag:
    """Labels of frame f are those of frame f + `frames`."""

    frames: int
    seen: np.ndarray  # int64 [M] rows
    labelled: np.ndarray  # int64 [M] rows, `frames` earlier in the same take
    before: np.ndarray  # float64 [M] misses of the rows seen with their own labels
    after: np.ndarray  # float64 [M] misses with the labels of the other frame


def lags(case: Case, rows: np.ndarray, miss_between: MissBetween) -> Iterator[Lag]:
    """Every lag that pairs of these rows allow, 0 left out."""
    columns, use = case.columns, np.zeros(len(case.columns), dtype=bool)
    use[rows] = True
    own = miss_between(rows, rows)
    before = np.full(len(columns), np.nan)
    before[rows] = own
    takes = [take[use[take]] for take in columns.rows_of_take.values()]
    takes = [take for take in takes if len(take) > 1]
    frames = columns.frames
    gaps = np.concatenate([np.diff(frames[take]) for take in takes]) if takes else np.zeros(0, dtype=np.int64)
    gaps = gaps[gaps > 0]
    step = int(np.gcd.reduce(gaps)) if len(gaps) else 0
    for frames_off in [step * number for number in range(-LAG_FRAMES, LAG_FRAMES + 1) if step and number]:
        pairs = [_pairs(frames[take], take, frames_off) for take in takes]
        seen, labelled = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        if len(seen):
            after = miss_between(seen, labelled)
            known = np.isfinite(after) & np.isfinite(before[seen])
            if known.sum() >= LAG_PAIRS:
                yield Lag(frames_off, seen[known], labelled[known], before[seen[known]], after[known])


def _pairs(frames: np.ndarray, rows: np.ndarray, frames_off: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows seen, rows labelled): those whose frames are `frames_off` apart."""
    place = {frame: row for frame, row in zip(frames.tolist(), rows.tolist(), strict=True)}
    found = [(row, place[frame - frames_off]) for frame, row in place.items() if frame - frames_off in place]
    array = np.array(found, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def best_lag(case: Case, rows: np.ndarray, miss_between: MissBetween, *, least: float = LAG_LEAST) -> Lag | None:
    """The lag that explains most of these rows' misses; None where none gains `least` and is convincing."""
    convincing = [lag for lag in lags(case, rows, miss_between) if _is_convincing(lag, least)]
    return min(convincing, key=lambda lag: lag.after.mean() - lag.before.mean(), default=None)


def _is_convincing(lag: Lag, least: float = LAG_LEAST, *, slight_below: float = 0.0) -> bool:
    """slight_below: a slight lag counts too, where it leaves less than this."""
    gain, left = lag.before - lag.after, lag.after.mean() / max(lag.before.mean(), 1e-9)
    if gain.mean() < least:
        return False
    sigmas = gain.mean() / max(float(gain.std()) / np.sqrt(len(gain)), 1e-9)
    slight = lag.after.mean() < slight_below and left <= LAG_SLIGHT and sigmas >= LAG_SLIGHT_SIGMAS
    return bool(left < LAG_EXACT or (left <= LAG_BETTER and sigmas >= LAG_SIGMAS) or slight)


def check_lags(case: Case) -> None:
    """Keypoints that fit the labels of another frame: of a subject, a camera or one of their takes."""
    columns = case.columns
    use = np.flatnonzero(case.open & columns.has_camera & np.isfinite(columns.miss()))
    if not len(use):
        return

    def miss_between(seen: np.ndarray, labelled: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(columns.keys[seen] - columns.labels[labelled], axis=-1) / columns.size[seen, None]
        return mean_miss(distance, columns.comparable[seen] & columns.comparable[labelled])

    found = list(lags(case, use, miss_between))
    _blame_lags(case, found, None, "keypoints", miss_between)
    for action in sorted({columns.witnesses[row].action for row in use}):
        _blame_lags(case, found, action, "keypoints", miss_between)


def _blame_lags(case: Case, found: list[Lag], action: str | None, what: str, miss_between: MissBetween) -> None:
    """Accuses groups (of one take's name, where told), the lag that gains most first."""
    columns = case.columns
    of_action = np.array([action in (None, witness.action) for witness in columns.witnesses], dtype=bool)
    while True:
        best: tuple[float, Lag, Region] | None = None
        for lag in found:
            votes = np.zeros(len(columns))
            gain = lag.before - lag.after
            votes[lag.seen] = np.where(np.abs(gain) > LAG_LEAST / 2, np.sign(gain), 0.0)
            for region in accused(case.votes(votes, of_action), agreement=LAG_AGREEMENT):
                inside = np.isin(lag.seen, case.rows(region, of_action))
                own = Lag(lag.frames, *(values[inside] for values in (lag.seen, lag.labelled, lag.before, lag.after)))
                total = float((own.before - own.after).sum())
                if (
                    len(own.seen) >= LAG_PAIRS
                    and _is_convincing(own, slight_below=_slight_below(case, own, region))
                    and (best is None or total > best[0])
                ):
                    best = (total, own, region)
        if best is None:
            return
        _, lag, region = best
        rows = case.rows(region, of_action)
        if best_move(case, rows, "place_shift").left < MODEL_BETTER * float(median(lag.after)):
            return  # a step in place explains it better
        if action is not None:
            region = _of_take(case, region, rows)
        case.blame(
            "time_shift",
            region,
            f"{what} fit the labels of {lag_words(case, lag, rows)}{case.left_out(rows)}; shift the labels back",
            rows,
            badness=columns.miss(),
            measured=lag.frames,
            expected=0.0,
            unit="frames",
            action=action,
        )


def _slight_below(case: Case, lag: Lag, region: Region) -> float:
    """What a slight lag must leave less than; 0 where one would be no proof.

    An estimator's habit can look like one in a single view, or at a few moments; and in a pose it finds badly, in all.
    """
    cameras = {camera for _, camera in region.cells}
    witnesses = [case.columns.witnesses[row] for row in lag.seen]
    moments = {(witness.subject, witness.action, witness.frame_index) for witness in witnesses}
    return LAG_SLIGHT_TIMES * case.sound_miss() if len(cameras) > 1 and len(moments) >= LAG_SLIGHT_MOMENTS else 0.0


def _of_take(case: Case, region: Region, rows: np.ndarray) -> Region:
    """The region with its subject named: a take is somebody's."""
    subjects = {case.columns.witnesses[row].subject for row in rows}
    return Region(subjects.pop(), region.camera_id, region.cells) if len(subjects) == 1 else region


def _of_size(share: float) -> str:
    return f"{share:.1%} of the person's size"


def lag_words(case: Case, lag: Lag, rows: np.ndarray, distance: Callable[[float], str] = _of_size) -> str:
    """'3 frames later (0.06 s), which brings the miss from 9.1% of the person's size to 3.2%'."""
    fps = most([str(case.columns.witnesses[row].fps or "") for row in rows])
    seconds = f" ({abs(lag.frames) / float(fps):.2f} s)" if fps else ""
    way = "earlier" if lag.frames > 0 else "later"
    number = f"{abs(lag.frames)} frame{'s' if abs(lag.frames) > 1 else ''}"
    return (
        f"{number} {way}{seconds}, which brings the distance from {distance(float(lag.before.mean()))} to"
        f" {distance(float(lag.after.mean()))}"
    )
