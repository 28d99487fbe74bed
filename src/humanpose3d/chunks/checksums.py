"""The CRC-32 of a chunk from those of its pieces, read in whatever order: a chunk that is copied is read once."""

from __future__ import annotations

from functools import cache

import numpy as np
from isal import isal_zlib

from humanpose3d.chunks.layout import ChunkEntry
from humanpose3d.chunks.read import Chunk

_POLYNOMIAL = 0xEDB88320  # of CRC-32, its bits reversed
_BITS = 32
_X8 = 1 << 23  # x^8: the highest bit is x^0


class PieceChecksums:
    """The CRC-32s of one chunk's pieces, gathered as they are read, neighbours at once. Threads may add."""

    def __init__(self, chunk: Chunk, starts: np.ndarray, ends: np.ndarray) -> None:
        """starts, ends: int64 [N], where each piece lies; one after the other they are the tar up to its end mark."""
        self.path, self._starts, self._ends = chunk.path, starts, ends
        self._crcs = np.zeros(len(starts), dtype=np.uint32)  # of the run of pieces that begins here
        self._after = np.zeros(len(starts), dtype=np.int64)  # the piece after that run; 0 where none begins

    def add(self, first: int, after: int, raw: bytes | memoryview) -> None:
        """The bytes of pieces first ... after - 1. One call for many: each gives the interpreter to another thread."""
        self._crcs[first], self._after[first] = isal_zlib.crc32(raw), after

    def are_those_of(self, entry: ChunkEntry) -> bool:
        """The file has the size and the checksum of its entry in the index; False too where a piece was not read."""
        firsts = np.flatnonzero(self._after)
        afters = self._after[firsts]
        if not len(firsts) or firsts[0] != 0 or afters[-1] != len(self._after) or (afters[:-1] != firsts[1:]).any():
            return False
        end = int(self._ends[-1])
        with self.path.open("rb") as file:
            file.seek(end)
            tail = file.read()
        if end + len(tail) != entry.bytes:
            return False
        crcs = np.append(self._crcs[firsts], np.uint32(isal_zlib.crc32(tail)))
        return joined_crc32(crcs, np.append(self._ends[afters - 1] - self._starts[firsts], len(tail))) == entry.crc32


def joined_crc32(crcs: np.ndarray, lengths: np.ndarray) -> int:
    """The CRC-32 of stretches of bytes that follow one another, from uint32 [N] CRCs and int [N] lengths of each.

    The CRC of a sum of polynomials is the sum of theirs: each counts times x^(8 bytes that follow), modulo CRC-32's
    polynomial (the method of zlib's crc32_combine, for all stretches at once).
    """
    after = np.append(np.cumsum(lengths[::-1])[::-1][1:], 0).astype(np.int64)
    weighted = crcs.astype(np.uint32)
    for bit in range(int(after.max(initial=0)).bit_length()):
        chosen = np.flatnonzero((after >> bit) & 1)
        weighted[chosen] = _by_table(weighted[chosen], _table(bit))
    return int(np.bitwise_xor.reduce(weighted))


def _by_table(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """uint32 [N] times the factor a table was made for, byte by byte."""
    product = table[0][values & 0xFF]
    for byte in range(1, 4):
        product ^= table[byte][(values >> np.uint32(8 * byte)) & 0xFF]
    return product


@cache
def _table(bit: int) -> np.ndarray:
    """uint32 [4 256]: each value of each byte of a CRC, times x^(8 * 2^bit)."""
    values = np.arange(256, dtype=np.uint32)
    every = np.concatenate([values << np.uint32(8 * byte) for byte in range(4)])
    return _times(every, _power(bit)).reshape(4, 256)


@cache
def _power(bit: int) -> int:
    """x^(8 * 2^bit)."""
    if not bit:
        return _X8
    half = _power(bit - 1)
    return int(_times(np.array([half], dtype=np.uint32), half)[0])


def _times(values: np.ndarray, factor: int) -> np.ndarray:
    """uint32 [N] times one factor, as polynomials modulo CRC-32's."""
    product, shifted = np.zeros_like(values), factor
    for bit in range(_BITS - 1, -1, -1):
        product ^= np.where((values >> np.uint32(bit)) & np.uint32(1), np.uint32(shifted), np.uint32(0))
        shifted = (shifted >> 1) ^ (_POLYNOMIAL if shifted & 1 else 0)
    return product
