"""Samples moved from tar to tar as they lie: headers, data and padding in one piece. And checksums of chunks put
together from those of their pieces, so that a chunk is read once, in any order.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from isal import isal_zlib

from humanpose3d.chunks.codec import SAMPLE_MEMBERS, BadSample
from humanpose3d.chunks.read import BLOCK, Chunk, OffsetTable, verify_chunk

if TYPE_CHECKING:
    from humanpose3d.chunks.layout import ChunkEntry

HEAD, TAIL = 16, 64  # bytes of a picture that tell whether it is whole
MEMBER_MODE = 0o444  # of all members we write
SAMPLES_PER_TASK, TASKS_AHEAD = 8, 4  # read and checked on a thread while others are written: what bounds the memory


@dataclass(frozen=True, eq=False)
class Piece:
    """One sample's stretch of a tar that our writer made, or could have made, byte for byte."""

    raw: bytes
    parts: tuple[tuple[str, int, int], ...]  # extension, offset of the data in `raw`, size; in the order they lie

    def ends(self) -> dict[str, bytes]:
        """The members as far as `check_sample` looks at them: of pictures, only the first and the last bytes."""
        return {extension: self._end(extension, offset, size) for extension, offset, size in self.parts}

    def members(self) -> dict[str, bytes]:
        return {extension: self.raw[offset : offset + size] for extension, offset, size in self.parts}

    def _end(self, extension: str, offset: int, size: int) -> bytes:
        if size > HEAD + TAIL and extension.endswith((".jpg", ".png")):
            tail = self.raw[offset + size - TAIL : offset + size]
            if tail.strip(b"\0"):
                return self.raw[offset : offset + HEAD] + tail
        return self.raw[offset : offset + size]


def canonical_order(extensions: Collection[str]) -> list[str]:
    """The order in which we write a sample's members."""
    return [*(each for each in SAMPLE_MEMBERS if each in extensions), *sorted(set(extensions) - set(SAMPLE_MEMBERS))]


class Pieces:
    """Where each sample of a chunk lies as one piece."""

    def __init__(self, table: OffsetTable) -> None:
        ordered = canonical_order(table.extensions)
        self._extensions = ordered
        self._columns = [table.extensions.index(extension) for extension in ordered]
        self._keys = table.keys
        self._offsets, self._sizes = table.offsets[:, self._columns], table.sizes[:, self._columns]
        there = self._offsets >= 0
        big = np.iinfo(np.int64).max
        self.starts = np.where(there, self._offsets, big).min(1, initial=big) - BLOCK
        position, plain = self.starts.copy(), np.ones(len(table), dtype=bool)
        for column in range(len(ordered)):
            has = there[:, column]
            plain &= ~has | (self._offsets[:, column] == position + BLOCK)
            padded = -(-self._sizes[:, column] // BLOCK) * BLOCK
            position = np.where(has, position + BLOCK + padded, position)
        self.ends = position
        self.plain = plain  # bool [N]: nothing else between the sample's members, and they are in our order

    @property
    def tile(self) -> bool:
        """The samples, one after the other, are the tar up to its end mark."""
        return bool(
            len(self.starts) and self.plain.all() and self.starts[0] == 0 and (self.starts[1:] == self.ends[:-1]).all()
        )

    def read(self, chunk: Chunk, index: int) -> Piece | None:
        """The sample as one piece; None where it is not as we would write it. BadSample where it is cut short."""
        if not self.plain[index]:
            return None
        start, length = int(self.starts[index]), int(self.ends[index] - self.starts[index])
        raw = os.pread(chunk.descriptor(), length, start)
        if len(raw) != length:
            raise BadSample(chunk.key(index), "the chunk ends in it")
        key = bytes(self._keys[index])
        parts = []
        for extension, offset, size in zip(
            self._extensions, self._offsets[index].tolist(), self._sizes[index].tolist(), strict=True
        ):
            if offset >= 0:
                at = offset - start
                if not _is_our_header(raw, at - BLOCK, key + b"." + extension.encode(), size):
                    return None
                parts.append((extension, at, size))
        return Piece(raw, tuple(parts))


def member_header(name: str, size: int) -> bytes:
    """The block before a member's data: no owner, no time, so that the same samples give the same bytes.

    Those of `tarfile`, in a tenth of its time: samples without pictures are two headers and little else.
    """
    if not name.isascii():
        return _header_by_tarfile(name, size)
    header = bytearray(_TEMPLATE)
    header[:100] = name.encode().ljust(100, b"\0")
    header[124:136] = b"%011o\0" % size
    header[148:156] = b" " * 8  # what the checksum counts in its own place
    header[148:155] = b"%06o\0" % sum(header)
    assert len(header) == BLOCK, name
    return bytes(header)


def _header_by_tarfile(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, MEMBER_MODE
    return info.tobuf(tarfile.USTAR_FORMAT)


_TEMPLATE = _header_by_tarfile("x", 0)
_OWNER, _TIME, _REST = slice(100, 124), slice(136, 148), slice(156, BLOCK)  # all but name, size and checksum


def _is_our_header(raw: bytes, at: int, name: bytes, size: int) -> bool:
    header = raw[at : at + BLOCK]
    return (
        header[:100] == name.ljust(100, b"\0")
        and header[124:136] == b"%011o\0" % size
        and header[_OWNER] == _TEMPLATE[_OWNER]
        and header[_TIME] == _TEMPLATE[_TIME]
        and header[_REST] == _TEMPLATE[_REST]
    )


# --- checksums --------------------------------------------------------------------------------------------------------

_POLYNOMIAL = 0xEDB88320  # of CRC-32, its bits reversed
_BITS = 32


class PieceChecksums:
    """The CRC-32 of a chunk, from those of its pieces in whatever order they were read."""

    def __init__(self, chunk: Chunk, pieces: Pieces) -> None:
        assert pieces.tile
        self.path, self._pieces = chunk.path, pieces
        self._crcs = np.zeros(len(pieces.starts), dtype=np.uint32)
        self._read = np.zeros(len(pieces.starts), dtype=bool)

    def add(self, index: int, raw: bytes) -> None:
        self._crcs[index], self._read[index] = isal_zlib.crc32(raw), True

    def are_those_of(self, entry: ChunkEntry) -> bool:
        """The file has the size and the checksum of its entry in the index; False too where a piece was not read."""
        if not self._read.all():
            return False
        end = int(self._pieces.ends[-1])
        with self.path.open("rb") as file:
            file.seek(end)
            tail = file.read()
        if end + len(tail) != entry.bytes:
            return False
        lengths = np.append(self._pieces.ends - self._pieces.starts, len(tail))
        return joined_crc32(np.append(self._crcs, np.uint32(isal_zlib.crc32(tail))), lengths) == entry.crc32


def joined_crc32(crcs: np.ndarray, lengths: np.ndarray) -> int:
    """The CRC-32 of stretches of bytes that follow one another, from uint32 [N] CRCs and int [N] lengths of each.

    The CRC of a sum of polynomials is the sum of theirs: each counts times x^(8 bytes that follow), modulo CRC-32's
    polynomial (the method of zlib's crc32_combine, for all stretches at once).
    """
    after = np.append(np.cumsum(lengths[::-1])[::-1][1:], 0).astype(np.int64)
    weighted = crcs.astype(np.uint32)
    for bit, power in enumerate(_powers(int(after.max(initial=0)).bit_length())):
        chosen = (after >> bit) & 1 == 1
        weighted = np.where(chosen, _times(weighted, power), weighted)
    return int(np.bitwise_xor.reduce(weighted))


def _powers(count: int) -> list[int]:
    """x^(8 * 2^k) for k = 0 ... count - 1."""
    power, powers = 1 << 23, []  # x^8: the highest bit is x^0
    for _ in range(count):
        powers.append(power)
        power = int(_times(np.array([power], dtype=np.uint32), power)[0])
    return powers


def _times(values: np.ndarray, factor: int) -> np.ndarray:
    """uint32 [N] times one factor, as polynomials modulo CRC-32's."""
    product, shifted = np.zeros_like(values), factor
    for bit in range(_BITS - 1, -1, -1):
        product ^= np.where((values >> np.uint32(bit)) & np.uint32(1), np.uint32(shifted), np.uint32(0))
        shifted = (shifted >> 1) ^ (_POLYNOMIAL if shifted & 1 else 0)
    return product


# --- a chunk that is read from ----------------------------------------------------------------------------------------

Check = Callable[[str, Mapping[str, bytes]], dict[str, Any]]  # (key, members) -> metadata, or BadSample


class Taken(NamedTuple):
    """A sample on its way from one chunk to another."""

    key: str
    content: Piece | dict[str, bytes]
    meta: dict[str, Any]
    fault: BadSample | None  # why it is left out

    def members(self) -> dict[str, bytes]:
        return self.content.members() if isinstance(self.content, Piece) else self.content


class SourceChunk:
    """A chunk whose samples are taken, and which is checked against its entry in the index on the way."""

    def __init__(self, chunk: Chunk, entry: ChunkEntry, *, checked: bool) -> None:
        """checked: it was compared with its entry already. Otherwise that is done here, at once or, where the samples
        are the whole tar, as they are taken."""
        self.chunk, self.entry, self.pieces = chunk, entry, Pieces(chunk.table)
        self._checksums: PieceChecksums | None = None
        if not checked and self.pieces.tile:
            self._checksums = PieceChecksums(chunk, self.pieces)
        elif not checked:
            verify_chunk(chunk.path, entry)

    def take(self, index: int, check: Check) -> Taken:
        """A sample, read and checked."""
        key = self.chunk.key(index)
        content: Piece | dict[str, bytes] = {}
        try:
            piece = self.pieces.read(self.chunk, index)
            if piece is not None and self._checksums is not None:
                self._checksums.add(index, piece.raw)
            content = self.chunk.read(index) if piece is None else piece
            meta = check(key, content.ends() if isinstance(content, Piece) else content)
        except BadSample as bad:
            return Taken(key, content, {}, bad)
        return Taken(key, content, meta, None)

    @property
    def must_be_read_whole(self) -> bool:
        """Every sample has to be taken before `verify` can tell."""
        return self._checksums is not None

    def verify(self) -> None:
        """ValueError where the chunk is not what its entry says; every sample must have been taken."""
        if self._checksums is None or self._checksums.are_those_of(self.entry):
            return
        verify_chunk(self.chunk.path, self.entry)  # says what is wrong
        raise ValueError(f"{self.chunk.path} changed while it was read; run the same command again")
