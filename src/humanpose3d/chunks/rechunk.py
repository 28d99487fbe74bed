"""Chunks -> the same samples in one global random order. Every sample is checked on the way.

The order is a permutation of all samples; each is read where it lies and written at once, so memory holds one sample
and the tables of offsets (about 100 bytes a sample).
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

import numpy as np

from humanpose3d.chunks.codec import BadSample, check_sample
from humanpose3d.chunks.layout import ChunkEntry, ChunkIndex, has_chunks, read_index
from humanpose3d.chunks.read import fetch_chunk, is_compressed, open_indexed, verify_chunk
from humanpose3d.chunks.transfer import Arena, SourceChunk, Taken, in_turns, stretches, take
from humanpose3d.chunks.write import ChunkSetWriter, job_folder, refuse_same_place, report_state, restore_report
from humanpose3d.remotes import LocalStore, Store, open_store
from humanpose3d.reports import StageReport, progress

REPORT = "rechunk_report.json"
PARTS = ("train", "val", "test")  # of a parent that is mirrored
EXTRACTED = "extracted"
OPEN_AT_MOST = 256  # chunks; a process may open 1024 files
SLAB = 1 << 16  # numbers of the order that are Python's at a time


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
) -> StageReport:
    """Fields as in RechunkConfig. Cut off, it goes on after the last whole chunk and ends with the same bytes.

    Remote and compressed chunks are all copied to `temp_dir` first: a global order asks for any of them at any time.
    """
    source, target = open_store(input_dir), open_store(output_dir)
    refuse_same_place(source, [target])
    if keep_extracted_originals and not isinstance(target, LocalStore):
        raise ValueError(f"--keep-extracted-originals needs a local folder, and {target.location} is on a remote")
    report = StageReport("rechunk", max_bad=max_bad)
    for part in _parts(source):
        of_part = _rechunk_part(
            source.child(part) if part else source, target.child(part) if part else target, chunk_size=chunk_size,
            seed=seed if shuffle else None, keep=keep_extracted_originals, compress=compress, temp_dir=temp_dir,
            workers=workers,
        )  # fmt: skip
        _merge(report, of_part, part)
    report.facts["output"] = target.location
    report.summary = f"rechunked {report.counts['samples']} samples into {target.location}: {report.summary}"
    target.write_bytes(REPORT, report.to_json())
    return report


def _parts(source: Store) -> list[str]:
    """["train", "test"] of a parent of those; [""] for a folder of chunks."""
    if has_chunks(source):
        return [""]
    return [part for part in PARTS if part in source.folders() and has_chunks(source.child(part))] or [""]


def _merge(report: StageReport, of_part: StageReport, part: str) -> None:
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
) -> StageReport:
    index = read_index(source)
    report = StageReport("rechunk", inputs=index.samples)
    plan = {"stage": "rechunk", "seed": seed, "chunk_size": chunk_size, "compress": compress, "input": index.digest}
    if keep:
        plan["keep_extracted_originals"] = True
    temporary = job_folder(temp_dir, source.place, target.place, index.digest)
    with ChunkSetWriter(
        target, prefix=index.prefix, chunk_size=chunk_size, compress=compress, plan=plan, staging=temporary / "staging",
        state=lambda: report_state(report), history=index.provenance.get("history", []),
    ) as writer:  # fmt: skip
        if writer.state is not None:
            restore_report(report, writer.state)
        if writer.index is None:
            samples = _Samples(_bring(source, index, temporary / "chunks", verify=writer.position > 0))
            extracted = target.child(EXTRACTED) if keep else None
            _write_all(writer, samples, _order(index.samples, seed), report, extracted, workers)
            try:
                samples.verify()
            except ValueError:
                writer.start_over()
                raise
        written = writer.finish(why_none=report.skipped_line() or f"{source.location} is empty")
    shutil.rmtree(temporary, ignore_errors=True)
    report.counts.update(samples=written.samples, chunks=len(written.chunks))
    report.facts.update(samples=written.samples, chunks=len(written.chunks))
    report.summary = f"{written.samples} in {len(written.chunks)} chunks"
    return report


def _order(count: int, seed: int | None) -> np.ndarray:
    return np.arange(count) if seed is None else global_order(count, seed)


def global_order(count: int, seed: int) -> np.ndarray:
    """int64 [count]: a random permutation. From a generator's raw bits, whose values NumPy promises never to change."""
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def _write_all(
    writer: ChunkSetWriter,
    samples: _Samples,
    order: np.ndarray,
    report: StageReport,
    extracted: Store | None,
    threads: int,
) -> None:
    repeated = samples.repeated_keys()
    positions = count(writer.position)

    def read(numbers: list[int], arena: Arena) -> tuple[list[int], list[Taken]]:
        return numbers, samples.take(numbers, arena)

    def write(read: tuple[list[int], list[Taken]]) -> None:
        for number, taken in zip(*read, strict=True):
            position = next(positions)
            try:
                if number in repeated:
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

    with progress("rechunk", len(order)) as bar:
        bar.advance(writer.position)
        in_turns(threads, samples.stretches(order[writer.position :]), read, write)


def _bring(source: Store, index: ChunkIndex, folder: Path, *, verify: bool) -> list[SourceChunk]:
    """Every chunk, readable in place: where it lies, else as a copy in `folder`, which is checked against the index.

    verify: check now what lies in place too. Otherwise its pieces are checked as they are read, where they can be.
    """
    paths = {entry.number: _place_of(source, entry, folder) for entry in index.chunks}
    missing = [
        entry for entry in index.chunks if paths[entry.number].parent == folder and not paths[entry.number].is_file()
    ]
    _refuse_without_room(folder, sum(entry.bytes for entry in missing))
    chunks = []
    with progress("read chunks", len(index.chunks)) as bar:
        for entry in index.chunks:
            path = paths[entry.number]
            if entry in missing:
                fetch_chunk(source, entry, path)
            checked = path.parent == folder
            if not checked:
                verify_chunk(path, entry, content=verify)
            chunks.append(SourceChunk(open_indexed(path, entry), entry, checked=checked or verify))
            bar.advance()
    return chunks


def _place_of(source: Store, entry: ChunkEntry, folder: Path) -> Path:
    if isinstance(source, LocalStore) and not is_compressed(entry.file):
        return source.local_path(entry.file)
    return folder / f"{entry.number:06d}.tar"


def _refuse_without_room(folder: Path, needed: int) -> None:
    if not needed:
        return
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder} needs {needed / 1e9:.1f} GB for the chunks and has {free / 1e9:.1f} GB free; "
            "name a roomier disk with --temp-dir"
        )


class _Samples:
    """All samples of some chunks under one number, a bounded number of files open. Threads may take them."""

    def __init__(self, sources: list[SourceChunk]) -> None:
        self._sources = sources
        self._ends = np.cumsum([len(source.chunk) for source in sources])
        self._bytes = np.concatenate([source.pieces.lengths for source in sources]) if sources else np.empty(0, int)
        self._used: OrderedDict[int, None] = OrderedDict()  # chunks with an open file, the longest unused first
        self._in_hand: Counter[int] = Counter()  # chunks that threads are reading
        self._lock = threading.Lock()

    def stretches(self, order: np.ndarray) -> Iterator[list[int]]:
        """Numbers in that order, as many at a time as a thread is to take."""
        slabs = (order[first : first + SLAB].tolist() for first in range(0, len(order), SLAB))
        return stretches(chain.from_iterable(slabs), self._bytes)

    def take(self, numbers: list[int], arena: Arena) -> list[Taken]:
        """These samples, read and checked; they lie in the arena."""
        chunks = np.searchsorted(self._ends, numbers, side="right")
        firsts = np.where(chunks > 0, self._ends[chunks - 1], 0)
        places = [
            (self._sources[chunk], number - first)
            for chunk, first, number in zip(chunks.tolist(), firsts.tolist(), numbers, strict=True)
        ]
        with self._opened(set(chunks.tolist())):
            return take(places, arena, check_sample)

    @contextmanager
    def _opened(self, chunks: set[int]) -> Iterator[None]:
        """Those chunks may be read meanwhile; others, the longest unused, are closed to make room for them."""
        with self._lock:
            self._in_hand.update(chunks)
            for chunk in chunks:
                self._used[chunk] = None
                self._used.move_to_end(chunk)
            spare = [chunk for chunk in self._used if not self._in_hand[chunk]]
            for chunk in spare[: max(len(self._used) - OPEN_AT_MOST, 0)]:
                self._sources[chunk].chunk.close()
                del self._used[chunk]
        try:
            yield
        finally:
            with self._lock:
                self._in_hand.subtract(chunks)

    def verify(self) -> None:
        """ValueError where a chunk was not what the index says. All samples must have been taken."""
        for source in self._sources:
            source.verify()

    def repeated_keys(self) -> frozenset[int]:
        """The numbers of samples whose key an earlier one has: side by side in a chunk the two would become one."""
        hashes = np.concatenate(
            [np.fromiter(map(hash, source.chunk.table.keys.tolist()), np.int64) for source in self._sources]
        )
        _, first = np.unique(hashes, return_index=True)
        return frozenset(np.setdiff1d(np.arange(len(hashes)), first).tolist())
