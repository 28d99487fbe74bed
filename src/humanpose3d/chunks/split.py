"""Chunks -> train/ and test/ by subject, chunk by chunk: a few chunks of disk whatever the set's size.

Members move as bytes; of a sample only its metadata is looked into.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np

from humanpose3d.chunks.codec import BadSample, read_facts
from humanpose3d.chunks.layout import UNKNOWN_SUBJECT, ChunkEntry, ChunkIndex, read_index
from humanpose3d.chunks.read import borrowed_chunk
from humanpose3d.chunks.transfer import Arena, SourceChunk, Taken, in_turns, one_ahead, stretches, take
from humanpose3d.chunks.write import ChunkSetWriter, job_folder, refuse_same_place, report_state, restore_report
from humanpose3d.remotes import Store, open_store
from humanpose3d.reports import Progress, StageReport, progress
from humanpose3d.sample import normalise_subject, subjects_asked_for

REPORT = "split_report.json"


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
) -> StageReport:
    """Fields as in SplitConfig. Cut off, it goes on after the last whole chunk of each part.

    ValueError: a subject in both lists, or in none of the data (with the subjects there are); no list at all; a
    destination that is the source.
    """
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
    part_of = {subject: part for part, subjects in wanted.items() for subject in subjects}
    report = StageReport(
        "split", inputs=sum(_wanted_samples(entry, part_of) for entry in index.chunks), max_bad=max_bad
    )
    borrowed = job_folder(temp_extraction_dir, source.place, destination.place)
    staging = job_folder(staging_dir, source.place, destination.place)
    with ExitStack() as stack:
        for folder in (borrowed, staging):
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
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
                    state=lambda: report_state(report),
                    history=index.provenance.get("history", []),
                )
            )
            for part, target in targets.items()
        }  # fmt: skip
        _go_on(writers, report)
        with progress("split", index.samples) as bar:
            _split(source, index, writers, part_of, borrowed, report, bar, workers)
        for part, writer in writers.items():
            writer.finish(why_none=report.skipped_line() or f"no sample of {', '.join(wanted[part])}")
    _summarise(report, writers, index, part_of, destination)
    destination.write_bytes(REPORT, report.to_json())
    return report


def _split(
    source: Store,
    index: ChunkIndex,
    writers: Mapping[str, ChunkSetWriter],
    part_of: Mapping[str, str],
    folder: Path,
    report: StageReport,
    bar: Progress,
    threads: int,
) -> None:
    starts = np.cumsum([0, *(entry.samples for entry in index.chunks)]).tolist()  # of each chunk in the whole set
    wanted = [
        (entry, positions)
        for entry, positions in zip(index.chunks, map(range, starts, starts[1:]), strict=True)
        if positions and _wanted_samples(entry, part_of) and any(w.wants(positions[-1]) for w in writers.values())
    ]
    bar.advance(index.samples - sum(len(positions) for _, positions in wanted))
    with closing(one_ahead(_borrowed(source, entry, folder, index.is_ours) for entry, _ in wanted)) as chunks:
        for chunk, (_, positions) in zip(chunks, wanted, strict=True):
            _split_chunk(chunk, positions, writers, part_of, report, threads)
            bar.advance(len(positions))


@contextmanager
def _borrowed(source: Store, entry: ChunkEntry, folder: Path, ours: bool) -> Iterator[SourceChunk]:
    """A chunk to take samples from. Where it is read in place, its checksum is compared on the way."""
    with borrowed_chunk(source, entry, folder, verify=False) as chunk:
        yield SourceChunk(chunk, entry, checked=chunk.path.parent == folder, ours=ours)


def _split_chunk(
    source: SourceChunk,
    positions: range,
    writers: Mapping[str, ChunkSetWriter],
    part_of: Mapping[str, str],
    report: StageReport,
    threads: int,
) -> None:
    numbers = [
        number
        for number, position in enumerate(positions)
        if source.must_be_read_whole or any(writer.wants(position) for writer in writers.values())
    ]

    def read(some: list[int], arena: Arena) -> tuple[list[int], list[Taken]]:
        return some, take([(source, number) for number in some], arena, read_facts)

    def write(read: tuple[list[int], list[Taken]]) -> None:
        for number, taken in zip(*read, strict=True):
            _move(positions[number], taken, writers, part_of, report)
        for writer in writers.values():
            writer.flush()

    in_turns(threads, stretches(numbers, source.pieces.lengths.item), read, write)
    try:
        source.verify()
    except ValueError:
        for writer in writers.values():
            writer.start_over()
        raise


def _move(
    position: int, taken: Taken, writers: Mapping[str, ChunkSetWriter], part_of: Mapping[str, str], report: StageReport
) -> None:
    if not any(writer.wants(position) for writer in writers.values()):
        return
    try:
        if taken.fault is not None:
            raise taken.fault
        if not isinstance(taken.meta.get("subject"), str):
            raise BadSample(taken.key, "meta.json has no subject")
        part = part_of.get(normalise_subject(taken.meta["subject"]))
        if part is not None and writers[part].wants(position):
            writers[part].take_over(position, taken)
    except BadSample as bad:
        report.skip(bad.key, bad.reason)


def _go_on(writers: Mapping[str, ChunkSetWriter], report: StageReport) -> None:
    """The report as it stood where the work goes on: at the part that is furthest back."""
    unfinished = [writer for writer in writers.values() if writer.index is None]
    furthest_back = min(unfinished or writers.values(), key=lambda writer: writer.position)
    if furthest_back.state is not None:
        restore_report(report, furthest_back.state)


def _names(text: str) -> list[str]:
    return sorted({normalise_subject(name) for name in re.split(r"[,\s]+", text) if name})


def _refuse_overlap(lists: Mapping[str, list[str]]) -> None:
    both = sorted(set(lists.get("train", ())) & set(lists.get("test", ())))
    if both:
        raise ValueError(f"{', '.join(both)} cannot be in both --train-subjects and --test-subjects")


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


def _wanted_samples(entry: ChunkEntry, part_of: Mapping[str, str]) -> int:
    """Samples of a chunk that belong to a part, or may: metadata nobody could read is looked at again, and reported."""
    return sum(
        number
        for subject, number in entry.subjects.items()
        if subject == UNKNOWN_SUBJECT or normalise_subject(subject) in part_of
    )


def _summarise(
    report: StageReport,
    writers: Mapping[str, ChunkSetWriter],
    index: ChunkIndex,
    part_of: Mapping[str, str],
    destination: Store,
) -> None:
    dropped = {
        subject: number
        for subject, number in sorted(index.subjects.items())
        if subject != UNKNOWN_SUBJECT and normalise_subject(subject) not in part_of
    }
    for part, writer in writers.items():
        report.counts[part] = writer.samples
    report.counts["dropped"] = sum(dropped.values())
    report.facts.update(output=destination.location, dropped_subjects=dropped)
    report.summary = f"split {index.samples} samples into {_sizes(writers)} in {destination.location}"
    if dropped:
        report.summary += f"; dropped {sum(dropped.values())} of {', '.join(dropped)}"


def _sizes(writers: Mapping[str, ChunkSetWriter]) -> str:
    return " and ".join(f"{writer.samples} {part}" for part, writer in writers.items())
