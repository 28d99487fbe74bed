"""A chunk on a remote of which only some samples are wanted: their stretches of bytes, instead of all of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from humanpose3d.chunks.codec import BadSample
from humanpose3d.chunks.layout import ChunkEntry
from humanpose3d.chunks.read import OffsetTable, idx_path, is_compressed
from humanpose3d.remotes import Store

CALL_BYTES = 4 << 20  # what could be fetched in the time that one more call to a remote takes
WORTH_IT = 0.7  # share of fetching the whole chunk, below which stretches are read
IDX = "chunk.idx"

Choice = Callable[[Sequence[str]], Sequence[bool]]  # a chunk's keys -> which of its samples are wanted


class SparseChunk:
    """Some samples of a chunk, read like a `Chunk`."""

    def __init__(self, table: OffsetTable, stretches: Sequence[tuple[int, int]], store: Store, file: str) -> None:
        self.table = table
        self._parts = [(first, store.read_range(file, first, end - first)) for first, end in stretches]

    def __len__(self) -> int:
        return len(self.table)

    def key(self, index: int) -> str:
        return self.table.key(index)

    def read(self, index: int, extensions: Collection[str]) -> dict[str, bytes]:
        """A sample's members, of those in `extensions`."""
        members = {}
        for extension in self.table.extensions_of(index):
            if extension in extensions:
                column = self.table.extensions.index(extension)
                offset, size = (int(array[index, column]) for array in (self.table.offsets, self.table.sizes))
                members[extension] = self._bytes(index, offset, size)
        return members

    def _bytes(self, index: int, offset: int, size: int) -> bytes:
        for first, data in self._parts:
            if first <= offset and offset + size <= first + len(data):
                return data[offset - first : offset - first + size]
        raise BadSample(self.key(index), "it was not among the samples to read")


def sparse_chunk(store: Store, entry: ChunkEntry, choose: Choice, folder: Path) -> SparseChunk | None:
    """The samples of a remote's chunk that `choose` picks from all keys; None where the whole chunk is as cheap, or
    its table is not there."""
    if store.is_local or is_compressed(entry.file) or entry.bytes < CALL_BYTES:
        return None
    path = folder / IDX
    try:
        store.get(idx_path(Path(entry.file)).name, path)
        table = OffsetTable.load(path)
    except (FileNotFoundError, ValueError):
        return None
    finally:
        path.unlink(missing_ok=True)
    if len(table) != entry.samples or table.end > entry.bytes:
        return None
    found = stretches(table, np.flatnonzero(choose([table.key(row) for row in range(len(table))])))
    cost = sum(end - first + CALL_BYTES for first, end in found)
    return SparseChunk(table, found, store, entry.file) if cost < WORTH_IT * entry.bytes else None


def stretches(table: OffsetTable, rows: np.ndarray) -> list[tuple[int, int]]:
    """(first byte, byte after the last) of the samples in `rows`, neighbours in one; gaps that cost less than a call
    are read too."""
    starts = np.where(table.offsets >= 0, table.offsets, np.iinfo(np.int64).max).min(1)[rows]
    ends = (table.offsets + table.sizes).max(1)[rows]
    found: list[tuple[int, int]] = []
    for first, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if found and first - found[-1][1] < CALL_BYTES:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found
