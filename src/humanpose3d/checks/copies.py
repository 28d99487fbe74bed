"""Samples that are there twice, and what stands on both sides of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from humanpose3d.checks.case import WORST, Case
from humanpose3d.checks.evidence import Witness
from humanpose3d.checks.finding import NOTE, Finding
from humanpose3d.checks.limits import COPIED_SHARE, COPY_M, DUPLICATE_M
from humanpose3d.checks.regions import Region
from humanpose3d.checks.shares import check_share


def check_copies(case: Case) -> None:
    """Equal pictures with equal labels under several keys. Frames of one take that hardly differ are a note."""
    columns = case.columns
    copied, still = np.zeros(len(columns), dtype=bool), np.zeros(len(columns), dtype=bool)
    first_of: dict[int, int] = {}
    for first, later in _equal_pairs(columns.witnesses):
        earlier, copy = columns.witnesses[first], columns.witnesses[later]
        if earlier.key == copy.key and earlier.split != copy.split:
            continue  # `find_leaks` tells
        if _other_view(earlier, copy):
            continue
        same = _take(earlier) != _take(copy) or _apart_m(earlier, copy) < COPY_M
        (copied if same else still)[later] = True
        first_of[later] = first
    first_key = next((columns.witnesses[first_of[row]].key for row in np.flatnonzero(copied).tolist()), "")
    check_share(
        case,
        "duplicates",
        copied.astype(np.float64),
        COPIED_SHARE,
        lambda mine, others: (
            f"{mine:.0%} of the samples are the same picture and label as another, such as {first_key}; leave one of"
            " each out"
        ),
        badness=copied.astype(np.float64),
        everywhere=True,
        explains=False,
    )
    rows = np.flatnonzero(still)
    if len(rows):
        case.blame(
            "duplicates",
            Region(None, None, tuple(columns.rows_of_cell)),
            f"{len(rows)} samples hardly differ from another frame of their take; a larger --frame-step loses nothing",
            rows,
            measured=len(rows),
            expected=0.0,
            unit="samples",
            severity=NOTE,
            explains=False,
        )


def _other_view(first: Witness, second: Witness) -> bool:
    """The same moment in another picture file: FreiHAND has each hand before four backgrounds."""
    moments = [(witness.subject, witness.action, witness.frame_index) for witness in (first, second)]
    return (
        moments[0] == moments[1]
        and first.camera_id != second.camera_id
        and (not first.image_file or first.image_file != second.image_file)
    )


def _equal_pairs(witnesses: list[Witness]) -> list[tuple[int, int]]:
    """(first, later) rows: each row that has a forerunner with the same picture and label, with its first such."""
    groups: dict[tuple[str, object], list[int]] = {}
    for row, witness in enumerate(witnesses):
        for sign in _signs(witness):
            groups.setdefault(sign, []).append(row)
    found: dict[int, int] = {}
    for rows in groups.values():
        for place, later in enumerate(rows):
            earlier = next(
                (row for row in rows[:place] if _apart_m(witnesses[row], witnesses[later]) < DUPLICATE_M), None
            )
            if earlier is not None:
                found[later] = min(earlier, found.get(later, earlier))
    return sorted((first, later) for later, first in found.items())


def _signs(witness: Witness) -> list[tuple[str, object]]:
    """What equal pictures have in common: the hash, or to the last bit all that an estimator found in them."""
    if witness.synthetic:
        return []
    signs: list[tuple[str, object]] = []
    if witness.image_hash is not None:
        signs.append(("hash", witness.image_hash))
    keypoints = witness.keypoints_px
    if keypoints is not None and np.isfinite(keypoints).any() and len(np.unique(keypoints)) > keypoints.size // 2:
        signs.append(("keypoints", keypoints.tobytes()))
    return signs


def _apart_m(first: Witness, second: Witness) -> float:
    """Largest distance of the labels' coordinates, metres; of 2D labels where there are no 3D ones, in 100 px; inf
    where they cannot be compared."""
    for one, other, unit in (
        (first.joints_cam_m, second.joints_cam_m, 1.0),
        (first.joints_px, second.joints_px, 100.0),
    ):
        if one is not None and other is not None and one.shape == other.shape:
            apart = np.abs(one - other)[np.isfinite(one) & np.isfinite(other)]
            if len(apart):
                return float(apart.max()) / unit
    return np.inf


def find_leaks(witnesses: list[Witness]) -> list[Finding]:
    """Subjects, or sequences of them, and pictures, on both sides of a split."""
    found: list[Finding] = []
    for corpus in sorted({witness.corpus for witness in witnesses}):
        own = [witness for witness in witnesses if witness.corpus == corpus and witness.split is not None]
        sides: dict[str, set[str]] = {}
        for witness in own:
            sides.setdefault(witness.subject, set()).add(str(witness.split))
        leaking = sorted(subject for subject, both in sides.items() if len(both) > 1)
        found += [_leak(corpus, subject, [w for w in own if w.subject == subject]) for subject in leaking]
        found += _picture_leaks(corpus, [witness for witness in own if witness.subject not in leaking])
    return found


def _leak(corpus: str, subject: str, own: list[Witness]) -> Finding:
    takes: dict[str, set[str]] = {}
    for witness in own:
        takes.setdefault(witness.action, set()).add(str(witness.split))
    counts = {split: sum(witness.split == split for witness in own) for split in sorted({str(w.split) for w in own})}
    smaller = min(counts, key=lambda split: counts[split])
    return subject_leak(
        corpus,
        subject,
        counts,
        sorted(action for action, both in takes.items() if len(both) > 1),
        worst=[witness.key for witness in own if witness.split == smaller],
    )


def subject_leak(
    corpus: str,
    subject: str,
    counts: Mapping[str, int],
    shared: Sequence[str],
    *,
    same: int = 0,
    views: int = 0,
    worst: Sequence[str] = (),
) -> Finding:
    """A subject on several sides of a split. counts: split -> samples; shared: takes that are on several sides too.

    same, views: samples that are on another side as well, under the same key or seen by another camera, where known.
    """
    told = ", ".join(f"{number} samples in {split}" for split, number in counts.items())
    named = f" ({', '.join(shared[:3])})" if any(shared) else ""
    sequences = f", with frames of one take{named} on both sides" if shared else ""
    copies = f", {same} samples under the same key" if same else ""
    copies += f", {views} moments through another camera" if views else ""
    return Finding(
        fault="split_leak",
        corpus=corpus,
        subject=subject,
        camera_id=None,
        message=f"the subject is on both sides of the split ({told}){sequences}{copies}; split by subject",
        measured=float(min(counts.values())),
        expected=0.0,
        unit="samples",
        samples=sum(counts.values()),
        worst=tuple(worst[:WORST]),
    )


def _picture_leaks(corpus: str, own: list[Witness]) -> list[Finding]:
    """Equal pictures with equal labels on two sides, of subjects that are not."""
    pairs = [(own[first], own[later]) for first, later in _equal_pairs(own) if own[first].split != own[later].split]
    if not pairs:
        return []
    return [
        Finding(
            fault="split_leak",
            corpus=corpus,
            subject=None,
            camera_id=None,
            message=f"{len(pairs)} pictures with their labels are on both sides of the split ({pairs[0][0].key} and"
            f" {pairs[0][1].key}); leave one of each out",
            measured=float(len(pairs)),
            expected=0.0,
            unit="samples",
            samples=len(pairs),
            worst=tuple(later.key for _, later in pairs[:WORST]),
        )
    ]


def _take(witness: Witness) -> tuple[str, str, str]:
    return witness.subject, witness.action, witness.camera_id
