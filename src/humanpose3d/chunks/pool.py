"""All samples of a set, under one number each, to be taken in any order: where they lie, from copies, or, where neither
the disk nor the memory holds the set, bucket by bucket.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import statistics
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from humanpose3d.chunks.codec import BadSample, check_sample
from humanpose3d.chunks.layout import ChunkEntry, ChunkIndex
from humanpose3d.chunks.read import (
    borrowed_chunk,
    fetch_chunk,
    idx_path,
    is_compressed,
    open_chunk,
    open_indexed,
    tar_bytes,
    verify_chunk,
)
from humanpose3d.chunks.transfer import Arena, Pieces, SourceChunk, Taken, in_turns, one_ahead, stretches, take
from humanpose3d.chunks.write import ChunkFileWriter
from humanpose3d.remotes import LocalStore, Store
from humanpose3d.reports import progress

OPEN_AT_MOST = 256  # chunks; a process may open 1024 files
SLAB = 1 << 16  # numbers of an order that are Python's at a time
ROOM_SHARE = 0.9  # of a disk's free space that buckets and chunks may take
CACHE_SHARE = 0.5  # of the available memory that a set, or a bucket, may take and still be read at random from memory
SEEKS_COST = (
    4.0  # times the time of reading on, from which a second pass (read, write, read again) is faster than seeks
)
PROBES, PROBE_BYTES = 24, 128 << 10  # reads that tell what a seek costs

_log = logging.getLogger("humanpose3d")


class Samples(Protocol):
    """Samples under their numbers in the whole set. Threads may take them."""

    def stretches(self, order: np.ndarray) -> Iterator[list[int]]:
        """Numbers in that order, as many at a time as a thread is to take."""

    def take(self, numbers: list[int], arena: Arena) -> list[Taken]:
        """These samples, read and checked; they lie in the arena."""


@dataclass
class Pool:
    """A set, ready to be written in one order: parts of the order, one after the other, and where their samples are.

    `repeated` and `verify` speak of the whole set: the one once the first part was asked for, the other after the last.
    """

    parts: Iterator[tuple[Samples, np.ndarray]]  # what is left of the order, in order
    repeated: set[int] = field(default_factory=set)  # numbers of samples whose key an earlier one has
    sources: list[SourceChunk] = field(default_factory=list)
    in_place: InPlace | None = None  # what all samples are taken from, where they lie in place
    order: np.ndarray | None = None

    def at(self, positions: range) -> Pool | None:
        """The samples at other positions; None where they are not in place, and need a pool of their own."""
        if self.in_place is None or self.order is None:
            return None
        rest = self.order[positions.start : positions.stop]
        return Pool(iter([(self.in_place, rest)]), self.repeated, self.sources, self.in_place, self.order)

    def verify(self) -> None:
        """ValueError where a chunk was not what the index says. All samples must have been taken."""
        for source in self.sources:
            source.verify()


def open_pool(
    store: Store,
    index: ChunkIndex,
    order: np.ndarray,
    positions: range,
    folder: Path,
    threads: int,
    *,
    verify: bool = True,
) -> Pool:
    """The set's samples in `order` (int64 [N]), of which those at these positions are taken.

    Chunks of a remote, and packed ones, are copied to `folder` where its disk has the room. Where it has not, the order
    is cut into buckets that fit, and the chunks are fetched once for each. Chunks in place are read at random; a set
    that memory cannot hold, on a disk that is slow to seek, is dealt to buckets first, in a second pass over it.
    OSError where the disk has no room for even a few chunks. verify: False where another looks after the checksums of
    chunks in place.
    """
    copied = [entry for entry in index.chunks if not _is_in_place(store, entry)]
    missing = sum(tar_bytes(store, entry) for entry in copied if not _copy(entry, folder).is_file())
    free, set_bytes = _free(folder), sum(entry.bytes for entry in index.chunks)
    if missing > free:
        return _in_buckets(store, index, order, positions, folder, threads, room=free, passes=True)
    if not copied and CACHE_SHARE * available_memory() < set_bytes < free and _is_slow_to_seek(store, index):
        return _in_buckets(store, index, order, positions, folder, threads, room=free, passes=False)
    # A chunk of which not every sample is taken cannot be checked on the way.
    sources = _bring(store, index, folder, verify=verify and len(positions) < len(order))
    samples = InPlace(sources)
    repeated = _repeated([source.pieces for source in sources])
    rest = order[positions.start : positions.stop]
    return Pool(iter([(samples, rest)]), repeated, sources, samples, order)


class InPlace:
    """Chunks that can all be read where they are, a bounded number of files open."""

    def __init__(self, sources: list[SourceChunk]) -> None:
        self._sources = sources
        self._ends = np.cumsum([len(source.chunk) for source in sources])
        self._bytes = np.concatenate([source.pieces.lengths for source in sources]) if sources else np.empty(0, int)
        self._used: OrderedDict[int, None] = OrderedDict()  # chunks with an open file, the longest unused first
        self._in_hand: Counter[int] = Counter()  # chunks that threads are reading
        self._lock = threading.Lock()

    def stretches(self, order: np.ndarray) -> Iterator[list[int]]:
        return stretches(_slabs(order), self._bytes.item)

    def take(self, numbers: list[int], arena: Arena) -> list[Taken]:
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


# --- buckets ----------------------------------------------------------------------------------------------------------


class _Bucket:
    """A stretch of the order: its samples in a tar of their own, as they came. Those found broken are only noted."""

    def __init__(self, path: Path, positions: range) -> None:
        self.path, self.positions = path, positions
        self._writer: ChunkFileWriter | None = ChunkFileWriter(path, path.name, 0, "none")
        self._numbers: list[int] = []  # of the samples in the tar, as they lie
        self._faults: dict[int, Taken] = {}

    def add(self, number: int, taken: Taken) -> None:
        assert self._writer is not None
        try:
            if taken.fault is not None:
                raise taken.fault
            self._writer.check(taken.key, taken.extensions)
            self._writer.take_over(taken, "")
            self._numbers.append(number)
        except BadSample as bad:
            self._faults[number] = Taken(taken.key, {}, {}, bad)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Ends the tar; its samples may be taken."""
        assert self._writer is not None
        entry, rows = self._writer.close()
        rows.table().save(idx_path(self.path))
        self._writer = None
        self._chunk = SourceChunk(open_chunk(self.path), entry, checked=True, ours=True)
        self._index = {number: index for index, number in enumerate(self._numbers)}

    def stretches(self, order: np.ndarray) -> Iterator[list[int]]:
        lengths, index = self._chunk.pieces.lengths, self._index
        return stretches(_slabs(order), lambda number: lengths.item(index[number]) if number in index else 0)

    def take(self, numbers: list[int], arena: Arena) -> list[Taken]:
        whole = [number for number in numbers if number in self._index]
        taken = take([(self._chunk, self._index[number]) for number in whole], arena, check_sample) if whole else []
        found = dict(zip(whole, taken, strict=True))
        return [found[number] if number in found else self._faults[number] for number in numbers]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        idx_path(self.path).unlink(missing_ok=True)


def _in_buckets(
    store: Store,
    index: ChunkIndex,
    order: np.ndarray,
    positions: range,
    folder: Path,
    threads: int,
    *,
    room: int,
    passes: bool,
) -> Pool:
    """passes: a bucket at a time, each from all the chunks anew; otherwise all buckets from one pass."""
    sizes = [tar_bytes(store, entry) for entry in index.chunks]
    set_bytes, largest = sum(sizes), max(sizes)
    # Beside a bucket: the chunk that is read, the next one, and the packed form of that.
    most = room - 3 * largest if passes else CACHE_SHARE * available_memory()
    span = int(len(order) * min(most / set_bytes, 1.0) * ROOM_SHARE)  # samples of a bucket
    if span < 1 or (passes and most < largest):
        raise OSError(
            f"{folder} has {room / 1e9:.2f} GB free, too little for a few chunks of this set "
            f"({largest / 1e9:.2f} GB each); name a roomier disk with --temp-dir"
        )
    if not positions:
        return Pool(iter(()))
    firsts = range(positions.start, positions.stop, span)
    stretches_of = [range(first, min(first + span, positions.stop)) for first in firsts]
    how = f"{len(stretches_of)} passes over the chunks" if passes else f"{len(stretches_of)} buckets, in a second pass"
    _log.warning("%s: the set (%.1f GB) is shuffled in %s", folder, set_bytes / 1e9, how)
    pool = Pool(iter(()))
    groups = [[each] for each in stretches_of] if passes else [stretches_of]
    pool.parts = _parts(pool, store, index, order, groups, folder, threads)
    return pool


def _parts(
    pool: Pool,
    store: Store,
    index: ChunkIndex,
    order: np.ndarray,
    groups: list[list[range]],
    folder: Path,
    threads: int,
) -> Iterator[tuple[Samples, np.ndarray]]:
    position_of = np.empty(len(order), dtype=np.int64)
    position_of[order] = np.arange(len(order))
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left; this one cannot tell which is whole
    folder.mkdir(parents=True)
    for number, group in enumerate(groups):
        buckets = [_Bucket(folder / f"bucket_{span.start:012d}.tar", span) for span in group]
        with progress(f"pass {number + 1} of {len(groups)}", len(index.chunks)) as bar:
            keys = []
            contexts = (_borrowed(store, entry, folder, index.is_ours) for entry in index.chunks)
            with closing(one_ahead(contexts)) as sources:
                for source, first in zip(sources, _starts(index), strict=True):
                    _deal(source, first, position_of, buckets, threads)
                    source.verify()
                    keys.append(source.pieces)
                    bar.advance()
        if not number:
            pool.repeated |= _repeated(keys)
        for bucket in buckets:
            bucket.close()
        for bucket in buckets:
            yield bucket, order[bucket.positions.start : bucket.positions.stop]
            bucket.remove()


def _deal(source: SourceChunk, first: int, position_of: np.ndarray, buckets: list[_Bucket], threads: int) -> None:
    """Appends a chunk's samples to their buckets; `first` is the number of its first one."""
    positions = position_of[first : first + len(source.chunk)]
    spans = np.array([bucket.positions.start for bucket in buckets])
    bucket_of = np.searchsorted(spans, positions, side="right") - 1
    wanted = (bucket_of >= 0) & (positions < buckets[-1].positions.stop)
    numbers = np.arange(len(positions)) if source.must_be_read_whole else np.flatnonzero(wanted)

    def read(some: list[int], arena: Arena) -> tuple[list[int], list[Taken]]:
        return some, take([(source, number) for number in some], arena, check_sample)

    def write(read: tuple[list[int], list[Taken]]) -> None:
        for number, taken in zip(*read, strict=True):
            if wanted[number]:
                buckets[bucket_of[number]].add(first + number, taken)
        for bucket in buckets:
            bucket.flush()

    in_turns(threads, stretches(numbers.tolist(), source.pieces.lengths.item), read, write)


@contextmanager
def _borrowed(store: Store, entry: ChunkEntry, folder: Path, ours: bool) -> Iterator[SourceChunk]:
    with borrowed_chunk(store, entry, folder / "borrowed", verify=False) as chunk:
        yield SourceChunk(chunk, entry, checked=chunk.path.parent == folder / "borrowed", ours=ours)


def _starts(index: ChunkIndex) -> list[int]:
    """The number of each chunk's first sample."""
    return np.cumsum([0, *(entry.samples for entry in index.chunks)])[:-1].tolist()


# --- where the chunks are ---------------------------------------------------------------------------------------------


def _bring(store: Store, index: ChunkIndex, folder: Path, *, verify: bool) -> list[SourceChunk]:
    """Every chunk, readable in place: where it lies, else as a copy in `folder`, which is checked against the index.

    verify: check now what lies in place too. Otherwise its pieces are checked as they are read, where they can be.
    """
    chunks = []
    with progress("read chunks", len(index.chunks)) as bar:
        for entry in index.chunks:
            path = _copy(entry, folder)
            is_in_place = _is_in_place(store, entry)
            if is_in_place:
                path = store.local_path(entry.file)
                verify_chunk(path, entry, content=verify)
            elif not path.is_file():
                fetch_chunk(store, entry, path)
            checked = verify or not is_in_place
            chunks.append(SourceChunk(open_indexed(path, entry), entry, checked=checked, ours=index.is_ours))
            bar.advance()
    return chunks


def verify_in_place(store: Store, entry: ChunkEntry) -> None:
    """ValueError where a chunk that is read where it lies is not as the index says."""
    if _is_in_place(store, entry):
        verify_chunk(store.local_path(entry.file), entry)


def _is_in_place(store: Store, entry: ChunkEntry) -> bool:
    return store.is_local and not is_compressed(entry.file)


def _copy(entry: ChunkEntry, folder: Path) -> Path:
    return folder / f"{entry.number:06d}.tar"


def _free(folder: Path) -> int:
    """Bytes free on the disk that holds a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def available_memory() -> int:
    """Bytes that programs and the page cache may still take."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (FileNotFoundError, StopIteration):  # not Linux: all there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _is_slow_to_seek(store: Store, index: ChunkIndex) -> bool:
    """Reading here and there takes several times as long as reading on. Measured, on chunks that are not in memory."""
    assert isinstance(store, LocalStore)
    draw = random.Random(0)
    entries = [entry for entry in index.chunks if entry.bytes > 4 * PROBE_BYTES]
    if not entries:
        return False
    seeks, ons = [], []
    for _ in range(PROBES):
        entry = draw.choice(entries)
        offset = draw.randrange(entry.bytes - 3 * PROBE_BYTES)
        with store.local_path(entry.file).open("rb", buffering=0) as file:
            started = time.perf_counter()
            os.pread(file.fileno(), PROBE_BYTES, offset)
            between = time.perf_counter()
            os.pread(file.fileno(), PROBE_BYTES, offset + PROBE_BYTES)
            ons.append(time.perf_counter() - between)
            seeks.append(between - started)
    return statistics.median(seeks) > SEEKS_COST * statistics.median(ons)


def _slabs(order: np.ndarray) -> Iterator[int]:
    return chain.from_iterable(order[first : first + SLAB].tolist() for first in range(0, len(order), SLAB))


def _repeated(chunks: Sequence[Pieces]) -> set[int]:
    """The numbers of samples whose key an earlier one has: side by side in a chunk the two would become one."""
    hashes = np.concatenate([np.fromiter(map(hash, pieces.keys.tolist()), np.int64) for pieces in chunks])
    _, first = np.unique(hashes, return_index=True)
    return set(np.setdiff1d(np.arange(len(hashes)), first).tolist())
