"""Samples that are there twice, and what stands on both sides of a split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from humanpose3d.checks.case import WORST
from humanpose3d.checks.evidence import Witness
from humanpose3d.checks.finding import ERROR, NOTE, Finding
from humanpose3d.checks.limits import DUPLICATE_M


def find_copies(witnesses: list[Witness]) -> list[Finding]:
    """Equal pictures with equal labels under several keys. Frames of one take that hardly differ are a note."""
    groups: dict[tuple, list[Witness]] = {}
    for witness in witnesses:
        if witness.image_hash is not None and not witness.synthetic:
            groups.setdefault((witness.corpus, witness.image_hash), []).append(witness)
    pairs = [pair for group in groups.values() if len(group) > 1 for pair in _equal_pairs(group)]
    found = []
    for corpus in sorted({first.corpus for first, _ in pairs}):
        own = [pair for pair in pairs if pair[0].corpus == corpus and not _one_moment(*pair)]
        copied = [pair for pair in own if _take(pair[0]) != _take(pair[1]) or _one_file(*pair)]
        still = [pair for pair in own if pair not in copied]
        if copied:
            words = "are the same picture and label under another subject, take, camera or frame; leave one of each out"
            found.append(_copies(corpus, copied, words, ERROR))
        if still:
            found.append(_copies(corpus, still, "do not differ from another frame of their take; a larger --frame-step"
                                 " loses nothing", NOTE))  # fmt: skip
    return found


def _copies(corpus: str, pairs: list[tuple[Witness, Witness]], words: str, severity: str) -> Finding:
    second = [later for _, later in pairs]
    return Finding(
        fault="duplicates",
        corpus=corpus,
        subject=_only(witness.subject for pair in pairs for witness in pair),
        camera_id=_only(witness.camera_id for pair in pairs for witness in pair),
        message=f"{len(second)} samples {words} ({pairs[0][0].key} and {pairs[0][1].key})",
        measured=float(len(second)),
        expected=0.0,
        unit="samples",
        samples=len(second),
        severity=severity,
        worst=tuple(witness.key for witness in second[:WORST]),
    )


def _equal_pairs(group: list[Witness]) -> list[tuple[Witness, Witness]]:
    """Each witness that has a forerunner with the same label, with the first such."""
    pairs = []
    for place, later in enumerate(group):
        for earlier in group[:place]:
            if _same_label(earlier, later):
                pairs.append((earlier, later))
                break
    return pairs


def _same_label(first: Witness, second: Witness) -> bool:
    if first.key == second.key and first.split == second.split:
        return True
    for name, tolerance in (("joints_cam_m", DUPLICATE_M), ("joints_px", 0.05)):
        one, other = getattr(first, name), getattr(second, name)
        if one is not None and other is not None and one.shape == other.shape and np.isfinite(one).any():
            with np.errstate(all="ignore"):
                return bool(np.nanmax(np.abs(one - other)) < tolerance)
    return False


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
    shared = sorted(action for action, both in takes.items() if len(both) > 1)
    counts = {split: sum(witness.split == split for witness in own) for split in sorted({str(w.split) for w in own})}
    told = ", ".join(f"{number} samples in {split}" for split, number in counts.items())
    sequences = f", with frames of one take ({', '.join(shared[:3])}) on both sides" if shared else ""
    smaller = min(counts, key=lambda split: counts[split])
    return Finding(
        fault="split_leak",
        corpus=corpus,
        subject=subject,
        camera_id=None,
        message=f"the subject is on both sides of the split ({told}){sequences}; split by subject",
        measured=float(counts[smaller]),
        expected=0.0,
        unit="samples",
        samples=len(own),
        worst=tuple(witness.key for witness in own if witness.split == smaller)[:WORST],
    )


def _picture_leaks(corpus: str, own: list[Witness]) -> list[Finding]:
    """Equal pictures with equal labels on two sides, of subjects that are not."""
    groups: dict[int, list[Witness]] = {}
    for witness in own:
        if witness.image_hash is not None and not witness.synthetic:
            groups.setdefault(witness.image_hash, []).append(witness)
    pairs = [
        (first, later)
        for group in groups.values()
        for first, later in _equal_pairs(group)
        if first.split != later.split
    ]
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


def _one_moment(first: Witness, second: Witness) -> bool:
    """The same frame of the same take in another picture file: another camera's, or another background's."""
    moment = [(w.subject, w.action, w.frame_index) for w in (first, second)]
    return moment[0] == moment[1] and first.camera_id != second.camera_id and not _one_file(first, second)


def _one_file(first: Witness, second: Witness) -> bool:
    return bool(first.image_file) and first.image_file == second.image_file


def _take(witness: Witness) -> tuple[str, str, str]:
    return witness.subject, witness.action, witness.camera_id


def _only(names: Iterable[str]) -> str | None:
    """The one name there is; None for several."""
    found = set(names)
    return found.pop() if len(found) == 1 else None
