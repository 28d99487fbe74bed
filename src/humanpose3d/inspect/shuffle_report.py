"""`humanpose3d inspect --shuffle`: how well a set is mixed as training reads it, and what its splits share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from humanpose3d.checks.copies import subject_leak
from humanpose3d.checks.finding import Finding
from humanpose3d.files import make_folder, write_report, write_whole
from humanpose3d.inspect import shuffle
from humanpose3d.inspect.page import shuffle_page
from humanpose3d.inspect.reading import Heard, find_parts, folder_for_copies
from humanpose3d.inspect.report import PAGE
from humanpose3d.inspect.roster import EPOCH, Roster, Takes, is_training, plan_reading, read_roster, shuffle_figures
from humanpose3d.inspect.shuffle import SHUFFLED, ShuffleFigures
from humanpose3d.remotes import open_store
from humanpose3d.reports import StageReport, progress

MEANINGS = (
    "subjects, takes (subject, action and camera): distinct ones in a batch, mean and standard deviation, and how many "
    "in a perfect shuffle; neighbouring frame: of the same subject and action, through any camera, within a second; "
    "pose and the next one: correlation of poses as they are stored, near 1 in film order, 0 if shuffled"
)
NONE = "-"
REMEDY = "run dataset_rechunker.py"


@dataclass(frozen=True, eq=False)
class Folder:
    """One folder and how well it is mixed."""

    name: str  # "train", "val", "test", or "set"
    roster: Roster
    figures: ShuffleFigures | None  # None where nothing could be read
    trains: bool

    @property
    def verdict(self) -> str:
        if self.figures is None:
            return "cannot be read"
        excused = self.figures.verdict != SHUFFLED and not self.trains
        return self.figures.verdict + (" (only training needs more)" if excused else "")

    @property
    def fault(self) -> str | None:
        """What is wrong with a folder to train on, and what to do, in a line."""
        if not self.trains or self.figures is None or self.figures.verdict == SHUFFLED:
            return None
        why = "; ".join(self.figures.shortcomings)
        return f"{self.name}: {self.figures.verdict} ({why}): {REMEDY}"


def inspect_shuffle(location: str, *, report: Path | None, batch_size: int, seed: int, temp_dir: Path) -> StageReport:
    """Fields as in InspectConfig; seed: of the order. Prints the table; faults are the returned report's.

    ValueError, FileNotFoundError: there is no whole set of chunks to look at.
    """
    stage = StageReport("inspect", max_bad=1.0)
    if report is not None:
        make_folder(report)
    heard, takes = Heard(find_parts(location)), Takes()
    folders = _read(heard, takes, batch_size=batch_size, seed=seed, temp_dir=temp_dir)
    corpora = {first: corpus for (first, corpus), _ in reversed(heard.corpus_of.most_common())}
    leaks = find_split_leaks([folder.roster for folder in folders], takes, corpora)
    findings = [*heard.broken_findings(), *leaks]
    faults = [folder.fault for folder in folders if folder.fault]
    for fault in (*faults, *map(str, findings)):
        stage.fault(fault)
    for folder in folders:
        if folder.figures is not None and folder.figures.batch_size < batch_size:
            stage.note(f"{folder.name} has {folder.figures.batch_size} samples, fewer than a batch of {batch_size}")
    stage.inputs = heard.read
    stage.counts.update(
        samples=heard.samples, read=heard.read, chunks=heard.chunks, leaks=len(leaks),
        broken=sum(map(len, heard.broken.values())),
    )  # fmt: skip
    stage.summary = _summary(location, heard, folders, leaks)
    stage.facts |= {
        "location": open_store(location).location,
        "shuffle": {folder.name: _told(folder) for folder in folders},
        "findings": [finding.to_dict() for finding in findings],
        "thresholds": _limits(),
        "batch_size": batch_size,
        "seed": seed,
        "epoch": EPOCH,
    }
    table = make_table(folders)
    print(_text(table))
    print("", *wrap(f"{MEANINGS}.", 118), "", sep="\n")
    if report is not None:
        facts = {**stage.counts, "batch_size": batch_size, "seed": seed, "epoch": EPOCH, **_limits()}
        page = shuffle_page(location, stage.summary, faults, findings, table, MEANINGS, facts)
        write_whole(report / PAGE, page)
        write_report(report, stage)
    return stage


def _read(heard: Heard, takes: Takes, *, batch_size: int, seed: int, temp_dir: Path) -> list[Folder]:
    plans = []
    for part in heard.parts:
        if not part.index.samples:
            raise ValueError(f"{part.store.location} holds no samples; make this set again")
        sizes = [entry.samples for entry in part.index.chunks]
        plans.append(plan_reading(sizes, batch_size=batch_size, seed=seed, shuffle=is_training(part)))
    folders = []
    total = sum(int(plan.starts[-1]) for plan in plans)
    with progress("inspect", total) as bar, folder_for_copies(heard.parts, temp_dir) as copies:
        for part, plan in zip(heard.parts, plans, strict=True):
            roster = read_roster(heard, part, plan, takes, copies, bar)
            folders.append(Folder(part.split or "set", roster, shuffle_figures(roster, takes), is_training(part)))
    return folders


def find_split_leaks(rosters: Sequence[Roster], takes: Takes, corpora: dict[str, str]) -> list[Finding]:
    """Subjects on several sides of a split, with the takes, keys and moments they share; keys of other subjects too.

    corpora: the beginning of keys -> the corpus's name.
    """
    if len(rosters) < 2 or not takes.who:
        return []
    people, scenes = np.array(takes.person_of), np.array(takes.scene_of)
    sides = {
        str(roster.part.split): np.bincount(roster.takes[roster.known], minlength=len(people)) for roster in rosters
    }
    of_person = {split: np.bincount(people, weights=counts).astype(int) for split, counts in sides.items()}
    of_scene = {split: np.bincount(scenes, weights=counts).astype(int) for split, counts in sides.items()}
    leaking = np.sum([counts > 0 for counts in of_person.values()], axis=0) > 1
    shared = np.sum([counts > 0 for counts in of_scene.values()], axis=0) > 1
    same, views = _copies(rosters, people, scenes)
    findings = []
    for person in np.flatnonzero(leaking).tolist():
        own = np.flatnonzero(people == person).tolist()
        first, subject = takes.who[own[0]][:2]
        findings.append(
            subject_leak(
                corpora.get(first, first),
                subject,
                {split: int(counts[person]) for split, counts in sorted(of_person.items()) if counts[person]},
                sorted({takes.who[take][2] for take in own if shared[scenes[take]]}),
                same=same[person],
                views=views[person],
            )
        )
    for person in sorted(set(same) - set(np.flatnonzero(leaking).tolist())):
        first, subject = takes.who[int(np.flatnonzero(people == person)[0])][:2]
        findings.append(_key_leak(corpora.get(first, first), subject, same[person]))
    return findings


def _copies(rosters: Sequence[Roster], people: np.ndarray, scenes: np.ndarray) -> tuple[Counter[int], Counter[int]]:
    """Of each person, samples whose key is in an earlier folder too, and others whose moment is."""
    same: Counter[int] = Counter()
    views: Counter[int] = Counter()
    earlier_keys, earlier_moments = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for roster in rosters:
        rows = roster.known
        of_take, keys = roster.takes[rows], roster.keys[rows]
        moments = scenes[of_take] * (1 << 32) + roster.frames[rows]
        has_key = np.isin(keys, earlier_keys)
        has_moment = np.isin(moments, earlier_moments) & ~has_key
        for found, counts in ((has_key, same), (has_moment, views)):
            numbers, times = np.unique(people[of_take[found]], return_counts=True)
            counts.update(dict(zip(numbers.tolist(), times.tolist(), strict=True)))
        earlier_keys = np.concatenate([earlier_keys, keys])
        earlier_moments = np.concatenate([earlier_moments, moments])
    return same, views


def _key_leak(corpus: str, subject: str, number: int) -> Finding:
    return Finding(
        fault="split_leak",
        corpus=corpus,
        subject=subject,
        camera_id=None,
        message=f"{number} samples have keys that are on the other side of the split too, of another subject; leave one"
        " of each out",
        measured=float(number),
        expected=0.0,
        unit="samples",
        samples=number,
    )


def make_table(folders: Sequence[Folder]) -> list[list[str]]:
    """A header, then a row for each figure: its name, and a cell for each folder."""
    columns = [_column(folder) for folder in folders]
    return [["", *(folder.name for folder in folders)]] + [
        [name, *(column[name] for column in columns)] for name in columns[0]
    ]


def _column(folder: Folder) -> dict[str, str]:
    figures, index = folder.figures, folder.roster.part.index
    looked_at = len(folder.roster.takes)
    part = "" if looked_at == index.samples else f", {looked_at:,} of them looked at"
    column = {
        "samples": f"{index.samples:,} in {len(index.chunks):,} chunks{part}",
        "read as": "training does" if folder.trains else "an evaluation does, as stored",
        "batches": NONE,
        "subjects in a batch": NONE,
        "takes in a batch": NONE,
        "neighbouring frame in the batch": NONE,
        "neighbouring frame stored next": NONE,
        "pose and the next one": NONE,
    }
    if figures is not None:
        of = folder.roster.plan.batches_of_epoch
        some = "" if figures.batches == of else f"{figures.batches:,} of "
        correlation = figures.pose_correlation
        column |= {
            "batches": f"{some}{of:,}, {figures.batch_size} samples each",
            "subjects in a batch": figures.subjects.text,
            "takes in a batch": figures.takes.text,
            "neighbouring frame in the batch": figures.in_batch.text,
            "neighbouring frame stored next": figures.in_store.text,
            "pose and the next one": NONE if correlation is None else f"{correlation:.2f}",
        }
    return {**column, "verdict": folder.verdict + (f": {REMEDY}" if folder.fault else "")}


def _text(table: Sequence[Sequence[str]]) -> str:
    """For a terminal: the figures' names to the left, a column for each folder."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _summary(location: str, heard: Heard, folders: Sequence[Folder], leaks: Sequence[Finding]) -> str:
    verdicts = ", ".join(
        (folder.verdict if folder.name == "set" else f"{folder.name} {folder.verdict}") for folder in folders
    )
    leaking = f"{len(leaks)} {'leak' if len(leaks) == 1 else 'leaks'}" if leaks else "no leak"
    split = f"; {leaking} between them" if len(folders) > 1 else ""
    return f"inspected the shuffle of {heard.read} of {heard.samples} samples in {location}: {verdicts}{split}"


def _told(folder: Folder) -> dict[str, Any]:
    """For JSON."""
    plan = folder.roster.plan
    return {
        "samples": folder.roster.part.index.samples,
        "looked_at": len(folder.roster.takes),
        "trains": folder.trains,
        "batches_of_epoch": plan.batches_of_epoch,
        "fault": folder.fault,
        **({"verdict": folder.verdict} if folder.figures is None else folder.figures.to_dict()),
    }


def _limits() -> dict[str, float]:
    names = (
        "NEAR_S", "LEAST_SHARE", "MOST_NEIGHBOURS", "MOST_CORRELATION", "FILM_NEIGHBOURS", "FILM_CORRELATION",
        "LEAST_ROOM", "CHANCE",
    )  # fmt: skip
    return {name.lower(): getattr(shuffle, name) for name in names}
