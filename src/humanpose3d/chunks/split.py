"""Chunks -> train/ and test/ by subject, chunk by chunk: a few chunks of disk whatever the set's size.

Members move as bytes; of a sample only its metadata is looked into.
"""

from __future__ import annotations

import re
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from humanpose3d.chunks.codec import BadSample, decode_meta, read_facts
from humanpose3d.chunks.layout import (
    BUILDING,
    INDEX,
    UNKNOWN_SUBJECT,
    ChunkEntry,
    ChunkIndex,
    building_shards,
    read_index,
)
from humanpose3d.chunks.parts import Part
from humanpose3d.chunks.read import borrowed_chunk
from humanpose3d.chunks.transfer import Arena, SourceChunk, Taken, in_turns, one_ahead, stretches, take
from humanpose3d.chunks.write import (
    ChunkSetWriter,
    StretchWriter,
    Written,
    add_to_report,
    job_folder,
    killed_its_worker,
    refuse_same_place,
    report_state,
    restore_report,
    seen_from_elsewhere,
)
from humanpose3d.engines import Engine, EngineKind, in_order, open_engine
from humanpose3d.images import batches
from humanpose3d.remotes import Store, open_store
from humanpose3d.reports import StageReport, progress
from humanpose3d.sample import normalise_subject, subjects_asked_for
from humanpose3d.shards import Shard, write_shard_report

TASKS_PER_WORKER = 8  # of a cluster


def split_by_subject(
    *,
    rclone_input_prefix: str,
    rclone_destination_prefix: str,
    train_subjects: str,
    test_subjects: str,
    new_chunk_size: int,
    temp_extraction_dir: Path,
    staging_dir: Path,
    compress: str,
    workers: int,
    max_bad: float,
    engine: EngineKind = "local",
    address: str | None = None,
    shard: str = "1/1",
) -> StageReport:
    """Fields as in SplitConfig. Cut off, it goes on after the last whole chunk of each part.

    ValueError: a subject in both lists, or in the other part by an earlier run, or in none of the data (with the
    subjects there are); no list at all; a destination that is the source.
    """
    mine = Shard.parse(shard)
    requests = {"train": _names(train_subjects), "test": _names(test_subjects)}
    asked = {part: names for part, names in requests.items() if names}
    if not asked:
        raise ValueError("neither --train-subjects nor --test-subjects names a subject")
    source, destination = open_store(rclone_input_prefix), open_store(rclone_destination_prefix)
    targets = {part: destination.child(part) for part in asked}
    refuse_same_place(source, [destination, *targets.values()])
    _refuse_overlap(asked)
    index = read_index(source)
    wanted = _subjects_meant(asked, index, source)
    _refuse_overlap(wanted)
    _refuse_overlap_with_earlier(wanted, destination)
    places = Places.of(index, wanted, new_chunk_size)
    own = mine.slice(places.chunks())
    chunks = places.ranges(own)
    reports = {part: StageReport("split") for part in targets}
    borrowed = job_folder(temp_extraction_dir, source.place, destination.place, *mine.of_several)
    staging = job_folder(staging_dir, source.place, destination.place, *mine.of_several)
    with ExitStack() as stack:
        writers = {
            part: stack.enter_context(
                ChunkSetWriter(
                    target,
                    prefix=part,
                    chunk_size=new_chunk_size,
                    compress=compress,
                    plan={
                        "stage": "split", "subjects": sorted(wanted[part]), "chunk_size": new_chunk_size,
                        "compress": compress, "input": index.digest,
                    },
                    staging=staging / part,
                    state=partial(report_state, reports[part]),
                    history=index.provenance.get("history", []),
                    shard=mine,
                    chunks=chunks[part],
                    skeletons=(index.skeleton, index.keypoint_skeleton),
                )
            )
            for part, target in targets.items()
        }  # fmt: skip
        for folder in (borrowed, staging):  # ours from here on: another run would have been met by now
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for part, writer in writers.items():
            if writer.state is not None:
                restore_report(reports[part], writer.state)
        is_new = not all(writer.index for writer in writers.values())
        if engine == "ray" and is_new:
            job = SplitJob(
                seen_from_elsewhere(source), seen_from_elsewhere(destination), index, places, compress,
                borrowed.absolute(), staging.absolute(),
            )  # fmt: skip
            with open_engine("ray", address, workers, False) as cluster:
                _split_on(cluster, job, own, writers, reports)
        else:
            _split(source, index, places, writers, reports, borrowed, workers)
        ended = [
            writer.finish_part(why_none=reports[part].skipped_line() or f"no sample of {', '.join(wanted[part])}")
            for part, writer in writers.items()
        ]
    report = _summarise(reports, writers, index, places, chunks, destination, mine, is_last=None not in ended)
    report.max_bad = max_bad
    write_shard_report(destination, report, mine, is_new=is_new)
    return report


@dataclass(frozen=True)
class Places:
    """Where samples go, as far as the source's index tells: sample number r of a part to its chunk r // chunk_size.

    A sample that the index could not read counts for the first part, which reports it.
    """

    chunk_size: int
    part_of: dict[str, str]  # subject -> part
    starts: dict[str, list[int]]  # part -> the number in it of each source chunk's first sample, and of all samples
    skeletons: tuple[str | None, str | None]

    @staticmethod
    def of(index: ChunkIndex, wanted: Mapping[str, list[str]], chunk_size: int) -> Places:
        part_of = {subject: part for part, subjects in wanted.items() for subject in subjects}
        sizes: dict[str, list[int]] = {part: [0] for part in wanted}
        for entry in index.chunks:
            counts = Counter[str]()
            for subject, number in entry.subjects.items():
                part = next(iter(wanted)) if subject == UNKNOWN_SUBJECT else part_of.get(normalise_subject(subject))
                counts[part or ""] += number
            for part, of_part in sizes.items():
                of_part.append(counts[part])
        starts = {part: np.cumsum(of_part).tolist() for part, of_part in sizes.items()}
        return Places(chunk_size, part_of, starts, (index.skeleton, index.keypoint_skeleton))

    def samples(self, part: str, chunks: range) -> int:
        return len(range(self.starts[part][-1])[chunks.start * self.chunk_size : chunks.stop * self.chunk_size])

    def chunks(self) -> list[tuple[str, int]]:
        """All chunks that will be written, as (part, number), in the order in which they begin in the source."""
        begins = []
        for part, starts in self.starts.items():
            for rank in range(0, starts[-1], self.chunk_size):
                source = bisect_right(starts, rank) - 1
                share = (rank - starts[source]) / (starts[source + 1] - starts[source])
                begins.append((source, share, part, rank // self.chunk_size))
        return [(part, number) for *_, part, number in sorted(begins)]

    def ranges(self, chunks: Sequence[tuple[str, int]]) -> dict[str, range]:
        """The numbers of each part among neighbours in `chunks`."""
        numbers = {part: [number for each, number in chunks if each == part] for part in self.starts}
        return {part: range(some[0], some[-1] + 1) if some else range(0) for part, some in numbers.items()}

    def ranks(self, part: str, source: int) -> range:
        """The numbers in a part that the samples of a source chunk have."""
        return range(self.starts[part][source], self.starts[part][source + 1])

    def part(self, taken: Taken) -> str:
        """The one that a sample counts for; "" for one that is dropped."""
        meta = taken.meta
        if taken.fault is not None:
            try:
                meta = decode_meta(taken.key, taken.members())
            except BadSample:
                return next(iter(self.starts))
        subject = meta.get("subject")
        own = (meta.get("skeleton"), meta.get("keypoint_skeleton"))
        fits = all(found in (None, known) for found, known in zip(own, self.skeletons, strict=True))
        if not isinstance(subject, str) or not fits:
            return next(iter(self.starts))
        return self.part_of.get(normalise_subject(subject), "")


@dataclass(frozen=True)
class SplitTask:
    number: int
    chunks: tuple[tuple[str, int], ...]  # as (part, number), neighbours in the source

    def __repr__(self) -> str:
        return ", ".join(f"{number} of {part}" for part, number in self.chunks)


@dataclass(frozen=True)
class SplitJob:
    """What a worker on another machine needs to write any chunks. Goes to it as it is."""

    source: str
    destination: str
    index: ChunkIndex
    places: Places
    compress: str
    borrowed: Path
    staging: Path

    def __call__(self, worker: int) -> Callable[[SplitTask], tuple[int, dict[str, Written]]]:
        return self.do

    def do(self, task: SplitTask) -> tuple[int, dict[str, Written]]:
        source, destination = open_store(self.source), open_store(self.destination)
        folder, staging = (each / f"task-{task.number}" for each in (self.borrowed, self.staging))
        chunks = {part: numbers for part, numbers in self.places.ranges(task.chunks).items() if numbers}
        reports = {part: StageReport("split") for part in chunks}
        with ExitStack() as stack:
            for each in (folder, staging):
                stack.callback(shutil.rmtree, each, ignore_errors=True)
            writers = {
                part: stack.enter_context(
                    StretchWriter(
                        destination.child(part), prefix=part, chunk_size=self.places.chunk_size,
                        compress=self.compress, staging=staging / part, chunks=numbers,
                        skeletons=self.places.skeletons,
                    )
                )
                for part, numbers in chunks.items()
            }  # fmt: skip
            _split(source, self.index, self.places, writers, reports, folder, 1)
            return task.number, {part: Written.by(writer, reports[part]) for part, writer in writers.items()}


def _split_on(
    cluster: Engine,
    job: SplitJob,
    own: Sequence[tuple[str, int]],
    writers: Mapping[str, ChunkSetWriter],
    reports: Mapping[str, StageReport],
) -> None:
    """Some chunks that begin side by side are a task; their accounts are taken in in order."""
    left = [(part, number) for part, number in own if writers[part].wants(number * job.places.chunk_size)]
    size = max(len(left) // (cluster.workers * TASKS_PER_WORKER), 1)
    tasks = (SplitTask(number, tuple(some)) for number, some in enumerate(batches(left, size)))
    try:
        with progress("chunks", len(left)) as bar:
            for parts in in_order(cluster.run(job, tasks, killed_its_worker)):
                for part, written in parts.items():
                    add_to_report(reports[part], written.state)
                    writers[part].add(written)
                    bar.advance(len(written.entries))
    except ValueError:  # a chunk of the source is not as it should be
        for writer in writers.values():
            writer.start_over()
        raise


def _split(
    source: Store,
    index: ChunkIndex,
    places: Places,
    writers: Mapping[str, StretchWriter],
    reports: Mapping[str, StageReport],
    folder: Path,
    threads: int,
) -> None:
    """Writes what the writers want."""
    numbers = [number for number in range(len(index.chunks)) if _is_wanted(places, writers, number)]
    entries = [index.chunks[number] for number in numbers]
    with (
        progress("split", sum(entry.samples for entry in entries)) as bar,
        closing(one_ahead(_borrowed(source, entry, folder, index.is_ours) for entry in entries)) as chunks,
    ):
        for chunk, number in zip(chunks, numbers, strict=True):
            _split_chunk(chunk, number, places, writers, reports, threads)
            bar.advance(chunk.entry.samples)


def _is_wanted(places: Places, writers: Mapping[str, StretchWriter], source: int) -> bool:
    """Whether a source chunk has samples that a writer wants."""
    return any(
        len(ranks) and ranks[-1] >= writer.position and ranks[0] < writer.end and not writer.is_done
        for part, writer in writers.items()
        for ranks in [places.ranks(part, source)]
    )


@contextmanager
def _borrowed(source: Store, entry: ChunkEntry, folder: Path, ours: bool) -> Iterator[SourceChunk]:
    """A chunk to take samples from. Where it is read in place, its checksum is compared on the way."""
    with borrowed_chunk(source, entry, folder, verify=False) as chunk:
        yield SourceChunk(chunk, entry, checked=chunk.path.parent == folder, ours=ours)


def _split_chunk(
    source: SourceChunk,
    number: int,
    places: Places,
    writers: Mapping[str, StretchWriter],
    reports: Mapping[str, StageReport],
    threads: int,
) -> None:
    seen = Counter[str]()

    def read(some: list[int], arena: Arena) -> list[Taken]:
        return take([(source, number) for number in some], arena, read_facts)

    def write(read: list[Taken]) -> None:
        for taken in read:
            _move(taken, number, seen, places, writers, reports)
        for writer in writers.values():
            writer.flush()

    in_turns(threads, stretches(range(len(source.chunk)), source.pieces.lengths.item), read, write)
    try:
        source.verify()
    except ValueError:
        for writer in writers.values():
            writer.start_over()
        raise


def _move(
    taken: Taken,
    source: int,
    seen: Counter[str],
    places: Places,
    writers: Mapping[str, StretchWriter],
    reports: Mapping[str, StageReport],
) -> None:
    """seen: samples of each part that came before it in its source chunk."""
    part = places.part(taken)
    if part not in writers:  # dropped, or of no interest here
        return
    ranks, writer = places.ranks(part, source), writers[part]
    rank = ranks.start + min(seen[part], len(ranks) - 1)  # not beyond what the index says
    seen[part] += 1
    if not writer.wants(rank):
        return
    writer.reach(rank)
    try:
        if taken.fault is not None:
            raise taken.fault
        if not isinstance(taken.meta.get("subject"), str):
            raise BadSample(taken.key, "meta.json has no subject")
        writer.take_over(rank, taken)
    except BadSample as bad:
        reports[part].skip(bad.key, bad.reason)


def _names(text: str) -> list[str]:
    return sorted({normalise_subject(name) for name in re.split(r"[,\s]+", text) if name})


def _refuse_overlap(lists: Mapping[str, list[str]]) -> None:
    both = sorted(set(lists.get("train", ())) & set(lists.get("test", ())))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be in both --train-subjects and --test-subjects")


def _refuse_overlap_with_earlier(wanted: Mapping[str, list[str]], destination: Store) -> None:
    """ValueError where a subject is in another part that an earlier run wrote there, or began."""
    meant = {subject for subjects in wanted.values() for subject in subjects}
    for part in sorted({"train", "test", "val"} - wanted.keys()):
        other = destination.child(part)
        if both := sorted(meant & _subjects_of(other)):
            raise ValueError(
                f"{', '.join(both)} went into {other.location} in an earlier run, and nobody may be in two parts of a "
                "split; leave that out, or give another destination"
            )


def _subjects_of(store: Store) -> set[str]:
    """The subjects that a set has or, where it is unfinished, will have; none of a set that nobody has indexed."""
    names = [entry.name for entry in store.list()]
    if INDEX in names:
        index = ChunkIndex.from_json(store.read_bytes(INDEX), f"{store.location}/{INDEX}")
        return set(map(normalise_subject, index.subjects))
    begun = [BUILDING] if BUILDING in names else [shard.name(BUILDING) for shard in building_shards(names)]
    return {subject for name in begun for subject in Part.read(store, name).plan.get("subjects", ())}


def _subjects_meant(asked: Mapping[str, list[str]], index: ChunkIndex, source: Store) -> dict[str, list[str]]:
    """The set's subjects that each part's names mean; ValueError where a name means none."""
    present = {normalise_subject(subject) for subject in index.subjects if subject != UNKNOWN_SUBJECT}
    meant = {name: subjects_asked_for(name, present) for names in asked.values() for name in names}
    absent = sorted(name for name, subjects in meant.items() if not subjects)
    if absent:
        raise ValueError(
            f"no samples of {', '.join(absent)} in {source.location}; there are {', '.join(sorted(present))}"
        )
    return {part: sorted({subject for name in names for subject in meant[name]}) for part, names in asked.items()}


def _summarise(
    reports: Mapping[str, StageReport],
    writers: Mapping[str, ChunkSetWriter],
    index: ChunkIndex,
    places: Places,
    chunks: Mapping[str, range],
    destination: Store,
    shard: Shard,
    *,
    is_last: bool,
) -> StageReport:
    report = StageReport("split")
    for part, writer in writers.items():
        report.inputs += places.samples(part, chunks[part])
        report.counts[part] = writer.samples
        report.skipped_counts.update(reports[part].skipped_counts)
        for reason, names in reports[part].skipped.items():
            report.skipped.setdefault(reason, []).extend(names)
    dropped = {
        subject: number
        for subject, number in sorted(index.subjects.items())
        if subject != UNKNOWN_SUBJECT and normalise_subject(subject) not in places.part_of
    }
    report.counts["dropped"] = sum(dropped.values()) if shard.number == 1 else 0
    report.facts.update(output=destination.location, dropped_subjects=dropped)
    sizes = " and ".join(f"{writer.samples} {part}" for part, writer in writers.items())
    report.summary = f"split {index.samples} samples into {sizes} in {destination.location}"
    if dropped:
        report.summary += f"; dropped {sum(dropped.values())} of {', '.join(dropped)}"
    report.summary += shard.remark(is_last=is_last)
    return report
