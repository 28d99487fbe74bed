"""Samples moved from tar to tar as they lie: headers, data and padding in one piece. Several threads read and check,
each into memory of its own, and write in turns.
"""

from __future__ import annotations

import os
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from humanpose3d.chunks.checksums import PieceChecksums
from humanpose3d.chunks.codec import SAMPLE_MEMBERS, BadSample, glance
from humanpose3d.chunks.read import BLOCK, Chunk, OffsetTable, verify_chunk

if TYPE_CHECKING:
    from humanpose3d.chunks.layout import ChunkEntry

HEAD, TAIL = 16, 64  # bytes of a picture that tell whether it is whole
MEMBER_MODE = 0o444  # of all members we write
STRETCH_BYTES, STRETCH_SAMPLES = 1 << 20, 256  # that a thread takes at a time: what bounds the memory. Half a level-2
# cache, so that what was just read is checked and written from there.

A = TypeVar("A")
B = TypeVar("B")


class Arena:
    """A thread's memory for the samples it has in hand, used again for the next ones.

    Fresh memory is mapped page by page as it is first touched, which costs more than the copying (60 of 83 us for a
    sample of 140 kB).
    """

    def __init__(self) -> None:
        self.memory = bytearray()

    def make_room(self, size: int) -> bytearray:
        """At least that many bytes. What was there before is gone; views of it stay what they are if it has to grow."""
        if len(self.memory) < size:
            self.memory = bytearray(max(size, STRETCH_BYTES))
        return self.memory


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """One sample's stretch of a tar that our writer made, or could have made, byte for byte."""

    memory: bytearray
    start: int  # in memory, as is `end`
    end: int
    parts: list[tuple[str, int, int]]  # extension, offset of the data from `start`, size; in the order they lie

    @property
    def raw(self) -> memoryview:
        return memoryview(self.memory)[self.start : self.end]

    def ends(self) -> dict[str, bytes]:
        """The members as far as `check_sample` looks at them: of pictures, only the first and the last bytes."""
        return {extension: self._end(extension, offset, size) for extension, offset, size in self.parts}

    def members(self) -> dict[str, bytes]:
        raw = self.raw
        return {extension: bytes(raw[offset : offset + size]) for extension, offset, size in self.parts}

    def _end(self, extension: str, offset: int, size: int) -> bytes:
        if size > HEAD + TAIL and extension.endswith((".jpg", ".png")):
            tail = bytes(self.raw[offset + size - TAIL : offset + size])
            if tail.strip(b"\0"):
                return bytes(self.raw[offset : offset + HEAD]) + tail
        return bytes(self.raw[offset : offset + size])


def canonical_order(extensions: Collection[str]) -> list[str]:
    """The order in which we write a sample's members."""
    return [*(each for each in SAMPLE_MEMBERS if each in extensions), *sorted(set(extensions) - set(SAMPLE_MEMBERS))]


class Pieces:
    """Where each sample of a chunk lies as one piece. N samples."""

    def __init__(self, table: OffsetTable) -> None:
        ordered = canonical_order(table.extensions)
        self._extensions = [(extension, b"." + extension.encode()) for extension in ordered]
        columns = [table.extensions.index(extension) for extension in ordered]
        self.keys = table.keys
        self.offsets, self.sizes = table.offsets[:, columns], table.sizes[:, columns]
        there = self.offsets >= 0
        big = np.iinfo(np.int64).max
        self.starts = np.where(there, self.offsets, big).min(1, initial=big) - BLOCK  # int64 [N]
        position, plain = self.starts.copy(), np.ones(len(table), dtype=bool)
        for column in range(len(ordered)):
            has = there[:, column]
            plain &= ~has | (self.offsets[:, column] == position + BLOCK)
            padded = -(-self.sizes[:, column] // BLOCK) * BLOCK
            position = np.where(has, position + BLOCK + padded, position)
        self.ends = position  # int64 [N]
        self.lengths = np.where(plain, self.ends - self.starts, 0)  # int64 [N], as pieces; 0 for those that are none
        self.plain = plain  # bool [N]: nothing else between the sample's members, and they are in our order

    @property
    def tile(self) -> bool:
        """The samples, one after the other, are the tar up to its end mark."""
        return bool(
            len(self.starts) and self.plain.all() and self.starts[0] == 0 and (self.starts[1:] == self.ends[:-1]).all()
        )

    def parts(self, index: int) -> list[tuple[str, int, int]]:
        """(extension, offset from the sample's start, size) of its members, in the order they lie."""
        start = self.starts.item(index)
        rows = zip(self._extensions, self.offsets[index].tolist(), self.sizes[index].tolist(), strict=True)
        return [(extension, offset - start, size) for (extension, _), offset, size in rows if offset >= 0]

    def piece(self, index: int, memory: bytearray, at: int) -> Piece | None:
        """The sample, whose stretch has been read into `memory` at `at`; None where it is not as we would write it."""
        start, key = int(self.starts[index]), self.keys[index]
        parts = []
        for (extension, ending), offset, size in zip(
            self._extensions, self.offsets[index].tolist(), self.sizes[index].tolist(), strict=True
        ):
            if offset < 0:
                continue
            header = at + offset - start - BLOCK
            beginning = (key + ending).ljust(100, b"\0") + _OWNER + b"%011o\0" % size + _TIME
            if not (memory.startswith(beginning, header) and memory.startswith(_HEADER_REST, header + _REST)):
                return None
            parts.append((extension, offset - start, size))
        return Piece(memory, at, at + int(self.ends[index]) - start, parts)


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


_REST = 156  # of a header: what follows its checksum
_TEMPLATE = _header_by_tarfile("x", 0)
_OWNER, _TIME, _HEADER_REST = _TEMPLATE[100:124], _TEMPLATE[136:148], _TEMPLATE[_REST:]


# --- a chunk that is read from ----------------------------------------------------------------------------------------

Check = Callable[[str, Mapping[str, Any]], dict[str, Any]]  # (key, members) -> what is known of it, or BadSample


class Taken(NamedTuple):
    """A sample on its way from one chunk to another."""

    key: str
    content: Piece | dict[str, bytes]
    meta: dict[str, Any]  # as `check_sample` gives it
    fault: BadSample | None  # why it is left out

    @property
    def extensions(self) -> list[str]:
        if isinstance(self.content, Piece):
            return [extension for extension, _, _ in self.content.parts]
        return list(self.content)

    def members(self) -> dict[str, bytes]:
        return self.content.members() if isinstance(self.content, Piece) else self.content


class SourceChunk:
    """A chunk whose samples are taken, and which is checked against its entry in the index on the way."""

    def __init__(self, chunk: Chunk, entry: ChunkEntry, *, checked: bool, ours: bool = False) -> None:
        """checked: it was compared with its entry already. Otherwise that is done here, at once or, where the samples
        are the whole tar, as they are taken. ours: a stage of ours wrote it (`ChunkIndex.is_ours`)."""
        self.chunk, self.entry, self.pieces = chunk, entry, Pieces(chunk.table)
        self.ours = ours
        self.checksums: PieceChecksums | None = None
        if not checked and self.pieces.tile:
            self.checksums = PieceChecksums(chunk, self.pieces.starts, self.pieces.ends)
        elif not checked:
            verify_chunk(chunk.path, entry)

    @property
    def must_be_read_whole(self) -> bool:
        """Every sample has to be taken before `verify` can tell."""
        return self.checksums is not None

    def verify(self) -> None:
        """ValueError where the chunk is not what its entry says; every sample must have been taken."""
        if self.checksums is None or self.checksums.are_those_of(self.entry):
            return
        verify_chunk(self.chunk.path, self.entry)  # says what is wrong
        raise ValueError(f"{self.chunk.path} changed while it was read; run the same command again")


Place = tuple[SourceChunk, int]  # a sample: its chunk, and its number in it


def take(places: Sequence[Place], arena: Arena, check: Check) -> list[Taken]:
    """Samples, read and checked, in the order asked for. Their pieces lie in `arena`, one after the other."""
    ends = list(accumulate(int(source.pieces.lengths[index]) for source, index in places))
    memory = arena.make_room(ends[-1])
    arrived = _read(places, ends, memory)
    return [
        _taken(source, index, memory, start, is_whole, check)
        for (source, index), start, is_whole in zip(places, [0, *ends], arrived, strict=False)
    ]


def _read(places: Sequence[Place], ends: Sequence[int], memory: bytearray) -> list[bool]:
    """Reads the samples' stretches into memory, neighbours at once; whether each is there to its end."""
    arrived: list[bool] = []
    while len(arrived) < len(places):
        first = len(arrived)
        after = first + 1
        while after < len(places) and _follows(places[after - 1], places[after]):
            after += 1
        source, index = places[first]
        at = ends[first - 1] if first else 0
        view = memoryview(memory)[at : ends[after - 1]]
        got = _pread(source.chunk.descriptor(), view, source.pieces.starts[index])
        if source.checksums is not None and got == len(view):
            source.checksums.add(index, index + after - first, view)
        arrived += [end <= at + got for end in ends[first:after]]
    return arrived


def _follows(one: Place, other: Place) -> bool:
    """The other sample lies right behind the one."""
    (source, index), (other_source, other_index) = one, other
    pieces = source.pieces
    return (
        other_source is source
        and other_index == index + 1
        and bool(pieces.plain[index] and pieces.plain[other_index])
        and pieces.starts[other_index] == pieces.ends[index]
    )


def _pread(descriptor: int, view: memoryview, offset: int) -> int:
    """Fills the view from a file; how many bytes of it, fewer than asked for where the file ends."""
    got = 0
    while got < len(view) and (count := os.preadv(descriptor, [view[got:]], int(offset) + got)):
        got += count
    return got


def _taken(source: SourceChunk, index: int, memory: bytearray, at: int, is_whole: bool, check: Check) -> Taken:
    key, pieces = source.chunk.key(index), source.pieces
    content: Piece | dict[str, bytes] = {}
    try:
        piece = None
        if pieces.plain[index]:
            if not is_whole:
                raise BadSample(key, "the chunk ends in it")
            if source.ours:
                # Its bytes are compared with the index's checksum, and whoever wrote that had looked at them closely.
                parts = pieces.parts(index)
                facts = glance(key, memory, parts, at)
                if facts is not None:
                    return Taken(key, Piece(memory, at, at + pieces.lengths.item(index), parts), facts, None)
            piece = pieces.piece(index, memory, at)
        content = source.chunk.read(index) if piece is None else piece
        meta = check(key, content.ends() if isinstance(content, Piece) else content)
    except BadSample as bad:
        return Taken(key, content, {}, bad)
    return Taken(key, content, meta, None)


# --- several threads --------------------------------------------------------------------------------------------------


def stretches(numbers: Iterable[int], size_of: Callable[[int], int]) -> Iterator[list[int]]:
    """Numbers of samples, cut into what a thread takes at a time. size_of: number -> bytes of the sample."""
    some: list[int] = []
    total = 0
    for number in numbers:
        some.append(number)
        total += size_of(number)
        if total >= STRETCH_BYTES or len(some) == STRETCH_SAMPLES:
            yield some
            some, total = [], 0
    if some:
        yield some


def one_ahead(contexts: Iterable[AbstractContextManager[A]]) -> Generator[A, None, None]:
    """What each context gives; the next one is entered, on a thread, while this one is used. Close the iterator."""
    entered: deque[tuple[AbstractContextManager[A], Future[A]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            for context in chain(contexts, [None]):
                if context is not None:
                    entered.append((context, pool.submit(context.__enter__)))
                if entered and (context is None or len(entered) > 1):
                    yield entered[0][1].result()
                    entered.popleft()[0].__exit__(None, None, None)
        finally:
            for context, value in entered:
                if value.exception() is None:  # waits for it
                    context.__exit__(None, None, None)


def in_turns(threads: int, items: Iterable[A], prepare: Callable[[A, Arena], B], commit: Callable[[B], None]) -> None:
    """`prepare` each item, on several threads at a time; `commit` what came of it, one at a time, in the items' order.

    A thread does both for an item, so that what it has prepared is still in its cache, and its arena is free again for
    the next one. An error of either ends all and is raised here.
    """
    turns = _Turns(iter(items))

    def work() -> None:
        arena = Arena()
        while (drawn := turns.draw()) is not None:
            number, item = drawn
            try:
                prepared = prepare(item, arena)
                if turns.wait_for(number):
                    commit(prepared)
            except BaseException as error:
                turns.fail(error)
            finally:
                turns.end(number)

    def work_here() -> None:
        try:
            work()
        except BaseException as error:  # Ctrl-C between two items
            turns.fail(error)

    others = [threading.Thread(target=work, name=f"transfer-{number}", daemon=True) for number in range(1, threads)]
    for thread in others:
        thread.start()
    work_here()
    for thread in others:
        thread.join()
    if turns.error is not None:
        raise turns.error


class _Turns:
    """Who is at work on which item, and whose turn it is."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.error: BaseException | None = None
        self._items, self._drawn, self._turn = items, 0, 0
        self._changed = threading.Condition()

    def draw(self) -> tuple[int, Any] | None:
        """The next item and its number; None where there are no more, or something went wrong."""
        with self._changed:
            if self.error is not None:
                return None
            try:
                item = next(self._items, _NOTHING)
            except BaseException as error:
                self.error = error
                return None
            if item is _NOTHING:
                return None
            self._drawn += 1
            return self._drawn - 1, item

    def wait_for(self, number: int) -> bool:
        """Waits for an item's turn; False where it will never come."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number or self.error is not None)
            return self.error is None

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def end(self, number: int) -> None:
        with self._changed:
            if self._turn == number:
                self._turn += 1
            self._changed.notify_all()


_NOTHING = object()
