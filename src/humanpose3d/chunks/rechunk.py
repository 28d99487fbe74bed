"""Chunks -> the same samples in one global random order. Every sample is checked on the way.

The order is a permutation of all samples; memory holds it, the tables of offsets (about 100 bytes a sample), and the
samples that the threads have in hand. Where samples are read from is `pool.py`'s.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from humanpose3d.chunks.codec import BadSample
from humanpose3d.chunks.layout import ChunkEntry, ChunkIndex, has_chunks, read_index
from humanpose3d.chunks.pool import Pool, open_pool, verify_in_place
from humanpose3d.chunks.transfer import Arena, Taken, in_turns
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
from humanpose3d.remotes import LocalStore, Store, open_store
from humanpose3d.reports import StageReport, progress
from humanpose3d.shards import Shard, write_shard_report

PARTS = ("train", "val", "test")  # of a parent that is mirrored
EXTRACTED = "extracted"


def rechunk(
    *,
    input_dir: str,
    output_dir: str,
    chunk_size: int,
    seed: int,
    shuffle: bool,
    keep_extracted_originals: bool,
    compress: str,
    temp_dir: Path,
    workers: int,
    max_bad: float,
    engine: EngineKind = "local",
    address: str | None = None,
    shard: str = "1/1",
) -> StageReport:
    """Fields as in RechunkConfig. Cut off, it goes on after the last whole chunk and ends with the same bytes.

    Remote and compressed chunks are copied to `temp_dir` first; what does not fit there is fetched in several passes.
    """
    source, target, mine = open_store(input_dir), open_store(output_dir), Shard.parse(shard)
    refuse_same_place(source, [target])
    if keep_extracted_originals and not isinstance(target, LocalStore):
        raise ValueError(f"--keep-extracted-originals needs a local folder, and {target.location} is on a remote")
    report = StageReport("rechunk", max_bad=max_bad)
    is_new = False
    for part in parts_of(source):
        of_part, is_part_new = _rechunk_part(
            source.child(part) if part else source, target.child(part) if part else target, chunk_size=chunk_size,
            seed=seed if shuffle else None, keep=keep_extracted_originals, compress=compress, temp_dir=temp_dir,
            workers=workers, shard=mine, engine=engine, address=address,
        )  # fmt: skip
        merge_part(report, of_part, part)
        is_new |= is_part_new
    report.facts["output"] = target.location
    report.summary = f"rechunked {report.counts['samples']} samples into {target.location}: {report.summary}"
    write_shard_report(target, report, mine, is_new=is_new)
    return report


def parts_of(source: Store) -> list[str]:
    """["train", "test"] of a parent of those; [""] for a folder of chunks."""
    if has_chunks(source):
        return [""]
    return [part for part in PARTS if part in source.folders() and has_chunks(source.child(part))] or [""]


def merge_part(report: StageReport, of_part: StageReport, part: str) -> None:
    """What was gathered of one part, into the report of the whole."""
    report.inputs += of_part.inputs
    report.counts.update(of_part.counts)
    report.skipped_counts.update(of_part.skipped_counts)
    for reason, names in of_part.skipped.items():
        report.skipped.setdefault(reason, []).extend(f"{part}/{name}" if part else name for name in names)
    report.facts[part or "set"] = of_part.facts
    report.summary = "; ".join(filter(None, (report.summary, f"{part} {of_part.summary}".strip())))


def _rechunk_part(
    source: Store,
    target: Store,
    *,
    chunk_size: int,
    seed: int | None,
    keep: bool,
    compress: str,
    temp_dir: Path,
    workers: int,
    shard: Shard,
    engine: EngineKind,
    address: str | None,
) -> tuple[StageReport, bool]:
    """The report, and whether the part was not finished before."""
    index = read_index(source)
    chunks = shard.stretch(-(-index.samples // chunk_size))
    report = StageReport(
        "rechunk", inputs=len(range(index.samples)[chunks.start * chunk_size : chunks.stop * chunk_size])
    )
    plan = {"stage": "rechunk", "seed": seed, "chunk_size": chunk_size, "compress": compress, "input": index.digest}
    if keep:
        plan["keep_extracted_originals"] = True
    temporary = job_folder(temp_dir, source.place, target.place, index.digest, *shard.of_several)
    with ChunkSetWriter(
        target, prefix=index.prefix, chunk_size=chunk_size, compress=compress, plan=plan, staging=temporary / "staging",
        state=lambda: report_state(report), history=index.provenance.get("history", []), shard=shard, chunks=chunks,
        skeletons=(index.skeleton, index.keypoint_skeleton),
    ) as writer:  # fmt: skip
        if writer.state is not None:
            restore_report(report, writer.state)
        is_new = writer.index is None
        positions = range(writer.position, min(writer.end, index.samples))
        if engine == "ray" and positions and not writer.is_done:
            job = RechunkJob(
                seen_from_elsewhere(source), seen_from_elsewhere(target), index, seed, chunk_size, compress, keep,
                temporary.absolute(),
            )  # fmt: skip
            with open_engine("ray", address, workers, False) as cluster:
                _write_on(cluster, job, writer, positions, report)
        elif not writer.is_done:
            order = _order(index.samples, seed)
            pool = open_pool(source, index, order, positions, temporary / "chunks", workers)
            _write_all(writer, pool, positions, report, target.child(EXTRACTED) if keep else None, workers)
            try:
                pool.verify()
            except ValueError:
                writer.start_over()
                raise
        whole = writer.finish_part(why_none=report.skipped_line() or f"{source.location} is empty")
    shutil.rmtree(temporary, ignore_errors=True)
    report.counts.update(samples=writer.samples, chunks=len(writer.entries))
    report.facts.update(samples=writer.samples, chunks=len(writer.entries))
    report.summary = f"{writer.samples} in {len(writer.entries)} chunks" + shard.remark(is_last=whole is not None)
    return report, is_new


@dataclass(frozen=True)
class ChunkTask:
    number: int
    to_check: tuple[ChunkEntry, ...]  # of the source: all tasks together check all of it

    def __repr__(self) -> str:
        return str(self.number)


@dataclass(frozen=True)
class RechunkJob:
    """What a worker on another machine needs to write any chunk. Goes to it as it is."""

    source: str
    target: str
    index: ChunkIndex
    seed: int | None
    chunk_size: int
    compress: str
    keep: bool
    folder: Path

    def __call__(self, worker: int) -> Callable[[ChunkTask], tuple[int, Written]]:
        return _Rechunker(self, self.folder / f"worker-{worker}").do


class _Rechunker:
    """Writes chunks; several threads may call `do`."""

    def __init__(self, job: RechunkJob, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.source, self.target = open_store(job.source), open_store(job.target)
        self.order = _order(job.index.samples, job.seed)
        self._turn = threading.Lock()
        self._pool: Pool | None = None

    def do(self, task: ChunkTask) -> tuple[int, Written]:
        for entry in task.to_check:
            verify_in_place(self.source, entry)
        size = self.job.chunk_size
        positions = range(task.number * size, min((task.number + 1) * size, self.job.index.samples))
        with self._turn:
            opened = self._pool or self._open(positions)
            pool = self._pool = opened.at(positions)
            if pool is None:  # too large for this disk, or this memory: in buckets, one chunk at a time
                return task.number, self._write(task.number, opened, positions)
        return task.number, self._write(task.number, pool, positions)

    def _open(self, positions: range) -> Pool:
        return open_pool(self.source, self.job.index, self.order, positions, self.folder / "chunks", 1, verify=False)

    def _write(self, number: int, pool: Pool, positions: range) -> Written:
        job, report = self.job, StageReport("rechunk")
        with StretchWriter(
            self.target, prefix=job.index.prefix, chunk_size=job.chunk_size, compress=job.compress,
            staging=self.folder / "staging", chunks=range(number, number + 1),
            skeletons=(job.index.skeleton, job.index.keypoint_skeleton),
        ) as writer:  # fmt: skip
            _write_all(writer, pool, positions, report, self.target.child(EXTRACTED) if job.keep else None, 1)
            return Written.by(writer, report)


def _write_on(cluster: Engine, job: RechunkJob, writer: ChunkSetWriter, positions: range, report: StageReport) -> None:
    """A chunk is a task; their accounts are taken in in order."""
    numbers = range(positions.start // job.chunk_size, -(-positions.stop // job.chunk_size))
    entries = job.index.chunks
    tasks = (ChunkTask(number, entries[turn :: len(numbers)]) for turn, number in enumerate(numbers))
    try:
        with progress("chunks", len(numbers)) as bar:
            for written in in_order(cluster.run(job, tasks, killed_its_worker), numbers.start):
                add_to_report(report, written.state)
                writer.add(written)
                bar.advance()
    except ValueError:  # a chunk of the source is not as it should be: others may have taken samples of it
        writer.start_over()
        raise


def _order(count: int, seed: int | None) -> np.ndarray:
    return np.arange(count) if seed is None else global_order(count, seed)


def global_order(count: int, seed: int) -> np.ndarray:
    """int64 [count]: a random permutation. From a generator's raw bits, whose values NumPy promises never to change."""
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def _write_all(
    writer: StretchWriter,
    pool: Pool,
    positions: range,
    report: StageReport,
    extracted: Store | None,
    threads: int,
) -> None:
    places = iter(positions)

    def read(numbers: list[int], arena: Arena) -> tuple[list[int], list[Taken]]:
        return numbers, part.take(numbers, arena)

    def write(read: tuple[list[int], list[Taken]]) -> None:
        for number, taken in zip(*read, strict=True):
            position = next(places)
            writer.reach(position)
            try:
                if number in pool.repeated:
                    raise BadSample(taken.key, "its key is used twice")
                if taken.fault is not None:
                    raise taken.fault
                if extracted is not None:  # first: a chunk that is whole has all its samples extracted
                    for extension, data in taken.members().items():
                        extracted.write_bytes(f"{taken.key}.{extension}", data)
                writer.take_over(position, taken)
            except BadSample as bad:
                report.skip(bad.key, bad.reason)
        writer.flush()
        bar.advance(len(read[0]))

    with progress("rechunk", len(positions)) as bar:
        for part, order in pool.parts:
            in_turns(threads, part.stretches(order), read, write)
