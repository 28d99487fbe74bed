"""Who and when every sample of a folder of chunks is, and which samples make the batches that training would see.

A sample's key tells its subject, take and frame, so the offset tables are enough, and what they tell is checked by the
index's subjects. Chunks of other keys have their metadata read. Pictures and depth maps are never looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from humanpose3d.chunks.codec import META, BadSample, decode_meta, decode_sample
from humanpose3d.chunks.layout import ChunkEntry
from humanpose3d.chunks.read import Chunk
from humanpose3d.dataset.order import BatchOrder, SampleOrder
from humanpose3d.inspect.reading import Heard, Part, opened_chunk, without_name
from humanpose3d.inspect.shuffle import (
    NEAR_S,
    ShuffleFigures,
    lag_one_correlation,
    neighbours_in_batches,
    neighbours_in_store,
    neighbours_of,
    variety,
)
from humanpose3d.inspect.sparse import SparseChunk
from humanpose3d.reports import Progress
from humanpose3d.sample import PoseSample, make_key
from humanpose3d.skeletons import SKELETONS

EPOCH = 0
BATCHES_AT_MOST = 1000  # of an epoch, evenly spread over it
SAMPLES_AT_MOST = 4_000_000  # of a folder; of larger ones only the chunks that fewer batches are read from
RUNS, RUN_SAMPLES = 32, 17  # stretches of the stored order whose poses are compared, evenly spread over it
FPS_UNTOLD = 25.0
UNREAD = -1  # the take of a sample that could not be read

Who = tuple[str, str, str, str]  # corpus (as keys begin), subject, action, camera


@dataclass(frozen=True)
class Plan:
    """What is read of a folder. Rows count the samples of the chosen chunks, in stored order."""

    chunks: np.ndarray  # int64, positions in the index, ascending
    starts: np.ndarray  # int64 [chunks + 1], the row each begins at
    batches: list[np.ndarray]  # int64 [batch size] each: rows
    batches_of_epoch: int
    batch_size: int
    poses: np.ndarray  # int64, rows whose pose is read, ascending


class Takes:
    """Numbers for takes, for scenes (a take through any camera) and for people; the same in all folders."""

    def __init__(self) -> None:
        self.who: list[Who] = []  # of each take
        self.scene_of: list[int] = []
        self.person_of: list[int] = []
        self._takes: dict[Who, int] = {}
        self._scenes: dict[tuple[str, str, str], int] = {}
        self._people: dict[tuple[str, str], int] = {}

    def number(self, who: Who) -> int:
        known = self._takes.get(who)
        if known is None:
            known = self._takes[who] = len(self.who)
            self.who.append(who)
            self.scene_of.append(self._scenes.setdefault(who[:3], len(self._scenes)))
            self.person_of.append(self._people.setdefault(who[:2], len(self._people)))
        return known


@dataclass(eq=False)
class Roster:
    """What a folder's samples say of themselves, row by row of the plan."""

    part: Part
    plan: Plan
    takes: np.ndarray  # int32 [N], numbers of `Takes`; UNREAD where a sample could not be read
    frames: np.ndarray  # int64 [N]
    keys: np.ndarray  # int64 [N], their hashes in this process
    poses: dict[int, np.ndarray] = field(default_factory=dict)  # row -> root-relative coordinates, NaN where missing
    fps: list[float] = field(default_factory=list)  # of the samples whose pose was read

    @property
    def known(self) -> np.ndarray:
        """int64: the rows that could be read."""
        return np.flatnonzero(self.takes != UNREAD)

    @property
    def near_frames(self) -> int:
        """Frames up to this far apart are neighbours: NEAR_S, and at least one step of the takes."""
        step = int(np.gcd.reduce(self.frames)) if len(self.frames) else 0
        return max(round(NEAR_S * (median(self.fps) if self.fps else FPS_UNTOLD)), step, 1)


def is_training(part: Part) -> bool:
    """The folder is one to train on: not `val` or `test`, by its own name or its chunks' names."""
    return (part.split or part.index.prefix) not in ("val", "test")


def plan_reading(
    chunk_samples: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    shuffle: bool,
    batches_at_most: int = BATCHES_AT_MOST,
    samples_at_most: int = SAMPLES_AT_MOST,
) -> Plan:
    """The batches to look at, of those of the loader's epoch, and the chunks to look into: all, if they are not many.

    shuffle: as in training; else in stored order, as an evaluation reads. ValueError where there are no samples.
    """
    order = SampleOrder(chunk_samples, seed=seed, shuffle=shuffle)
    batch_order = BatchOrder(order, global_batch=min(batch_size, order.samples), drop_last=shuffle)
    number = min(batches_at_most, batch_order.batches)
    chunks = np.arange(len(chunk_samples))
    if order.samples > samples_at_most:
        while True:
            chunks = _chunks_of(batch_order, _spread(batch_order.batches, number))
            if number == 1 or order.chunk_samples[chunks].sum() <= samples_at_most:
                break
            number = -(-number // 2)
    starts = np.concatenate([[0], np.cumsum(order.chunk_samples[chunks])])
    start_of = dict(zip(chunks.tolist(), starts.tolist(), strict=False))
    batches = []
    for batch in _spread(batch_order.batches, number).tolist():
        places = [
            order.place(EPOCH, slot.group, slot.offset) for slot in batch_order.slots(EPOCH, batch) if slot.counted
        ]
        batches.append(np.array([start_of[place.chunk] + place.sample for place in places], dtype=np.int64))
    rows = int(starts[-1])
    runs = [np.arange(first, min(first + RUN_SAMPLES, rows)) for first in _spread(max(rows - RUN_SAMPLES, 0) + 1, RUNS)]
    return Plan(chunks, starts, batches, batch_order.batches, batch_order.global_batch, np.unique(np.concatenate(runs)))


def _chunks_of(order: BatchOrder, batches: np.ndarray) -> np.ndarray:
    """int64, ascending: the chunks whose samples are mixed into these batches."""
    found: set[int] = set()
    for batch in batches.tolist():
        slots = [slot for slot in order.slots(EPOCH, batch) if slot.counted]
        first, last = (order.order.window_of(EPOCH, slot.group, slot.offset) for slot in (slots[0], slots[-1]))
        for window in range(first, last + 1):
            found.update(order.order.window_chunk_list(EPOCH, 0, window).tolist())
    return np.array(sorted(found), dtype=np.int64)


def _spread(number: int, most: int) -> np.ndarray:
    """int64: up to `most` of 0 ... number - 1, evenly spread, the first and the last among them."""
    return np.unique(np.rint(np.linspace(0, number - 1, min(most, number))).astype(np.int64))


def read_roster(heard: Heard, part: Part, plan: Plan, takes: Takes, folder: Path, bar: Progress) -> Roster:
    """Reads what the plan asks for. Broken samples and chunks are told to `heard` and left out."""
    rows = int(plan.starts[-1])
    roster = Roster(part, plan, np.full(rows, UNREAD, np.int32), np.zeros(rows, np.int64), np.zeros(rows, np.int64))
    for position, start, end in zip(plan.chunks, plan.starts[:-1].tolist(), plan.starts[1:].tolist(), strict=True):
        entry = part.index.chunks[position]
        wanted = plan.poses[(plan.poses >= start) & (plan.poses < end)] - start
        try:
            with opened_chunk(part.store, entry, partial(_choose, entry=entry, wanted=wanted), folder) as chunk:
                _read_chunk(chunk, entry, start, wanted, roster, takes, heard)
        except (ValueError, FileNotFoundError) as error:
            heard.broken[without_name(str(error), entry.file)].append(entry.file)
        bar.advance(end - start)
    return roster


def _choose(keys: Sequence[str], entry: ChunkEntry, wanted: np.ndarray) -> Sequence[bool]:
    """The rows whose metadata is to be read: all where the keys do not tell who it is."""
    if _told_by_keys(keys, entry) is None:
        return [True] * len(keys)
    return np.isin(np.arange(len(keys)), wanted).tolist()


def _read_chunk(
    chunk: Chunk | SparseChunk,
    entry: ChunkEntry,
    start: int,
    wanted: np.ndarray,
    roster: Roster,
    takes: Takes,
    heard: Heard,
) -> None:
    keys = [key.decode() for key in chunk.table.keys.tolist()]
    told = _told_by_keys(keys, entry) or _told_by_metadata(chunk, keys, heard)
    rows = slice(start, start + len(keys))
    roster.takes[rows] = [UNREAD if one is None else takes.number(one[0]) for one in told]
    roster.frames[rows] = [0 if one is None else one[1] for one in told]
    roster.keys[rows] = [hash(key) for key in keys]
    heard.read += len(keys)
    for row in wanted.tolist():
        if told[row] is None:
            continue
        try:
            record = decode_sample(keys[row], chunk.read(row, (META,)), fields=())
        except BadSample as bad:
            heard.broken[bad.reason].append(keys[row])
            continue
        heard.corpus_of[_beginning(keys[row], record.corpus), record.corpus] += 1
        roster.fps += [record.fps] if record.fps else []
        if (pose := pose_of(record)) is not None:
            roster.poses[start + row] = pose


def _told_by_keys(keys: Sequence[str], entry: ChunkEntry) -> list[tuple[Who, int] | None] | None:
    """Who and which frame each is, from keys `corpus-subject-take-camera-frame-person`, the take where there is one.

    None where keys are of another form, or tell other subjects than the index.
    """
    names = {make_key(subject): subject for subject in entry.subjects}
    told: list[tuple[Who, int] | None] = []
    counts: Counter[str] = Counter()
    for key in keys:
        parts = key.split("-")
        if len(parts) not in (5, 6) or not parts[-2].isdecimal() or parts[1] not in names:
            return None
        subject = names[parts[1]]
        counts[subject] += 1
        told.append(((parts[0], subject, parts[2] if len(parts) == 6 else "", parts[-3]), int(parts[-2])))
    return told if counts == entry.subjects else None


def _told_by_metadata(chunk: Chunk | SparseChunk, keys: Sequence[str], heard: Heard) -> list[tuple[Who, int] | None]:
    """Who and which frame each is, from its metadata; None for a broken sample, which is told."""
    told: list[tuple[Who, int] | None] = []
    for row, key in enumerate(keys):
        try:
            meta = decode_meta(key, chunk.read(row, (META,)))
            corpus, subject, action, camera = (
                str(meta.get(name) or "") for name in ("corpus", "subject", "action", "camera_id")
            )
            frame = meta.get("frame_index")
            if not isinstance(frame, int):
                raise BadSample(key, "meta.json: frame_index is not a whole number")
        except BadSample as bad:
            heard.broken[bad.reason].append(key)
            told.append(None)
            continue
        told.append(((_beginning(key, corpus), subject, action, camera), frame))
    return told


def _beginning(key: str, corpus: str) -> str:
    """What stands for the corpus in keys of its form; the corpus itself where keys have none."""
    return key.split("-")[0] if "-" in key else corpus


def pose_of(record: PoseSample) -> np.ndarray | None:
    """float64 [D]: the 3D label from its root, else the 2D label or the keypoints from theirs, as a share of their
    size; NaN where missing. None without any of them."""
    if record.joints_cam_m is not None:
        return _from_root(_labelled(record, record.joints_cam_m), record.skeleton).ravel()
    if record.joints_px is not None:
        points = _from_root(_labelled(record, record.joints_px), record.skeleton)
    elif record.keypoints_px is not None:
        points = _from_root(record.keypoints_px, record.keypoint_skeleton)
    else:
        return None
    known = points[np.isfinite(points)]
    size = float(np.sqrt((known**2).mean())) if len(known) else 0.0
    return (points / size if size > 0 else np.full_like(points, np.nan)).ravel()


def _labelled(record: PoseSample, joints: np.ndarray) -> np.ndarray:
    return joints if record.joint_score is None else np.where(record.joint_score[:, None] > 0, joints, np.nan)


def _from_root(joints: np.ndarray, skeleton: str | None) -> np.ndarray:
    """From the root; from the middle of all joints where the skeleton has none."""
    joints = np.asarray(joints, dtype=np.float64)
    if skeleton is not None and SKELETONS[skeleton].root is not None:
        return joints - joints[SKELETONS[skeleton].root_index]
    known = np.isfinite(joints).all(-1)
    return joints - joints[known].mean(0) if known.any() else joints


def shuffle_figures(roster: Roster, takes: Takes) -> ShuffleFigures | None:
    """How well the folder is mixed; None where nothing of it could be read."""
    known = roster.known
    if not len(known):
        return None
    # Rows of samples that could be read, numbered anew; batches without the others.
    anew = np.full(len(roster.takes), -1)
    anew[known] = np.arange(len(known))
    batches = [rows[rows >= 0] for rows in (anew[batch] for batch in roster.plan.batches)]
    batches = [rows for rows in batches if len(rows)] or [np.arange(len(known))[: roster.plan.batch_size]]
    of_take, frames = roster.takes[known], roster.frames[known]
    scenes = np.array(takes.scene_of)[of_take]
    near = roster.near_frames
    neighbours = neighbours_of(scenes, frames, near)
    stored = _stored(roster.plan)
    correlation, pairs = _pose_correlation(roster, stored)
    return ShuffleFigures(
        batches=len(batches),
        batch_size=roster.plan.batch_size,
        subjects=variety(np.array(takes.person_of)[of_take], batches),
        takes=variety(of_take, batches),
        in_batch=neighbours_in_batches(scenes, frames, batches, near, neighbours),
        in_store=neighbours_in_store(scenes, frames, stored[known], near, neighbours),
        near_frames=near,
        pose_correlation=correlation,
        pose_pairs=pairs,
    )


def _stored(plan: Plan) -> np.ndarray:
    """int64 [N]: numbers that follow each other where rows do in the set: with a gap where chunks were left out."""
    gaps = plan.chunks - np.arange(len(plan.chunks))  # chunks left out before each
    return np.arange(int(plan.starts[-1])) + np.repeat(gaps, np.diff(plan.starts))


def _pose_correlation(roster: Roster, stored: np.ndarray) -> tuple[float | None, int]:
    """Of the poses that were read, those of the most common kind: samples may lack the 3D label."""
    kinds = Counter(len(pose) for pose in roster.poses.values())
    rows = sorted(row for row, pose in roster.poses.items() if len(pose) == kinds.most_common(1)[0][0])
    if len(rows) < 2:
        return None, 0
    return lag_one_correlation(np.stack([roster.poses[row] for row in rows]), stored[rows])
