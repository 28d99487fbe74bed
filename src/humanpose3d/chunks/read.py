"""Reading one chunk: where its members lie (`OffsetTable`), any sample in place (`Chunk`), and bringing a chunk here.

Nothing is decoded, and a tar is never extracted: members are read by position.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
import zlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from isal import igzip, isal_zlib
from isal.igzip_lib import IsalError

from humanpose3d.chunks.codec import BadSample
from humanpose3d.files import whole_file
from humanpose3d.remotes import LocalStore, Store

if TYPE_CHECKING:
    from humanpose3d.chunks.layout import ChunkEntry

BLOCK = 512  # a tar is made of these
COPY_BYTES = 1 << 20
ADLER = 65521  # the modulus of its sums
IDX_VERSION = "v1.2"  # of NVIDIA DALI's wds2idx
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


@dataclass(frozen=True, eq=False)
class OffsetTable:
    """Where each member of each sample of one tar lies. N samples, E extensions."""

    keys: np.ndarray  # bytes_ [N]
    extensions: tuple[str, ...]  # all that occur, E of them
    offsets: np.ndarray  # int64 [N E], of the data; -1 where a sample has no such member
    sizes: np.ndarray  # int64 [N E]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        return self.keys[index].decode()

    def extensions_of(self, index: int) -> tuple[str, ...]:
        """A sample's own extensions, in the order they lie in the tar."""
        row = self.offsets[index]
        return tuple(self.extensions[column] for column in np.argsort(row, kind="stable") if row[column] >= 0)

    @property
    def end(self) -> int:
        """The byte after the last member's data; 0 where there are none."""
        return int((self.offsets + self.sizes).max()) if len(self) else 0

    @staticmethod
    def scan(path: Path) -> OffsetTable:
        """From the tar itself. ValueError where it is cut short or not a tar."""
        rows = TableBuilder()
        for name, offset, size in _tar_members(path):
            rows.add(name, offset, size, path)
        return rows.table()

    @staticmethod
    def load(path: Path) -> OffsetTable:
        """From an `.idx` file. ValueError where it is not one."""
        head, _, body = path.read_bytes().partition(b"\n")
        try:
            version, count = head.split()
            table = _table_of_equals(body.split()) or _table_of_lines(body.splitlines(), path)
        except (ValueError, IndexError):
            raise ValueError(
                f"{path} is not an index of wds2idx {IDX_VERSION}; delete it, it will be made again"
            ) from None
        if version != IDX_VERSION.encode() or int(count) != len(table):
            raise ValueError(f"{path} is not a whole index of wds2idx {IDX_VERSION}; delete it, it will be made again")
        return table

    def save(self, path: Path) -> None:
        """As an `.idx` file, whole or not at all."""
        with whole_file(path) as temporary, temporary.open("w") as file:
            file.write(f"{IDX_VERSION} {len(self)}\n")
            file.writelines(self._lines())

    def _lines(self) -> Iterator[str]:
        order = np.argsort(self.offsets, axis=1, kind="stable")
        if len(self) and (self.offsets >= 0).all() and (order == order[0]).all():
            # All samples alike, as nearly always: one format for all of them, in a third of the time.
            extensions = [self.extensions[column] for column in order[0]]
            line = " ".join(f"{extension} %d %d %s.{extension}" for extension in extensions) + "\n"
            columns: list[list] = []
            for column in order[0]:
                columns += [
                    self.offsets[:, column].tolist(),
                    self.sizes[:, column].tolist(),
                    self.keys.astype(str).tolist(),
                ]
            yield from map(line.__mod__, zip(*columns, strict=True))
            return
        for key, columns_of, offsets, sizes in zip(
            self.keys.tolist(), order.tolist(), self.offsets.tolist(), self.sizes.tolist(), strict=True
        ):
            name = key.decode()
            members = (
                f"{self.extensions[column]} {offsets[column]} {sizes[column]} {name}.{self.extensions[column]}"
                for column in columns_of
                if offsets[column] >= 0
            )
            yield " ".join(members) + "\n"


def _table_of_equals(tokens: list[bytes]) -> OffsetTable | None:
    """The table of an `.idx` whose samples all have the same members in the same order; None of any other."""
    if not tokens:
        return None
    first = tokens[3].partition(b".")[0]
    number = 1
    while 4 * number + 3 < len(tokens) and tokens[4 * number + 3] == first + b"." + tokens[4 * number]:
        number += 1
    extensions = tokens[0 : 4 * number : 4]
    keys = [name[: -len(extensions[0]) - 1] for name in tokens[3 :: 4 * number]]
    if len(tokens) != 4 * number * len(keys) or any(b"/" in key or b"." in key for key in keys):
        return None
    if not all(keys) or len(set(extensions)) < number:
        return None
    for column, extension in enumerate(extensions):
        ending = b"." + extension
        if [key + ending for key in keys] != tokens[4 * column + 3 :: 4 * number]:
            return None
        if tokens[4 * column :: 4 * number].count(extension) != len(keys):
            return None
    shape = (len(keys), number)
    offsets, sizes = (np.array(list(map(int, tokens[part::4])), np.int64).reshape(shape) for part in (1, 2))
    return OffsetTable(np.array(keys, np.bytes_), tuple(extension.decode() for extension in extensions), offsets, sizes)


def _table_of_lines(lines: list[bytes], path: Path) -> OffsetTable:
    rows = TableBuilder()
    for line in lines:
        fields = line.decode().split()
        for column in range(0, len(fields), 4):
            _, offset, size, name = fields[column : column + 4]
            rows.add(name, int(offset), int(size), path)
    return rows.table()


class TableBuilder:
    """Members in the order they lie in a tar -> its table. Neighbours of one key are one sample, as in WebDataset."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.columns: dict[str, int] = {}
        self.members = (array("q"), array("q"), array("q"), array("q"))  # sample, column, offset, size
        self._key: str | None = None
        self._seen: set[str] = set()

    def add(self, name: str, offset: int, size: int, path: Path) -> None:
        """ValueError, naming `path`, where a sample has two members of one extension."""
        key, extension = split_name(name)
        if not key or key.endswith("/"):
            return  # a hidden file is no sample
        self.add_member(key, extension, offset, size, path)

    def add_member(self, key: str, extension: str, offset: int, size: int, path: Path) -> None:
        """`add` of a name that is cut already."""
        if key != self._key:
            self._key = key
            self.keys.append(key.encode())
            self._seen.clear()
        if extension in self._seen:
            raise ValueError(f"{path}: sample {key} has two members '{extension}'; make this chunk again")
        self._seen.add(extension)
        column = self.columns.setdefault(extension, len(self.columns))
        samples, columns, offsets, sizes = self.members
        samples.append(len(self.keys) - 1)
        columns.append(column)
        offsets.append(offset)
        sizes.append(size)

    def add_sample(self, key: str, parts: Sequence[tuple[str, int, int]], shift: int) -> None:
        """A whole sample of its own: (extension, offset, size) of its members, each offset `shift` further on."""
        self._key = None
        number = len(self.keys)
        self.keys.append(key.encode())
        samples, columns, offsets, sizes = self.members
        for extension, offset, size in parts:
            samples.append(number)
            columns.append(self.columns.setdefault(extension, len(self.columns)))
            offsets.append(offset + shift)
            sizes.append(size)

    def table(self) -> OffsetTable:
        shape = (len(self.keys), len(self.columns))
        offsets, sizes = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        samples, columns, starts, lengths = (np.frombuffer(values, dtype=np.int64) for values in self.members)
        offsets[samples, columns], sizes[samples, columns] = starts, lengths
        return OffsetTable(np.array(self.keys, dtype=np.bytes_), tuple(self.columns), offsets, sizes)


def split_name(name: str) -> tuple[str, str]:
    """A member's (key, extension): cut at the first dot of its file name, as WebDataset and DALI do."""
    name = name.removeprefix("./")
    start = name.rfind("/") + 1
    base, _, extension = name[start:].partition(".")
    return name[:start] + base, extension


class Chunk:
    """One uncompressed chunk on this machine. Cheap to make and to send to another process: files open on first use.

    Threads may read it at the same time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lease: Any = None  # what keeps the file from being removed, held as long as the chunk
        self._table: OffsetTable | None = None
        self._file: int | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    @property
    def table(self) -> OffsetTable:
        if self._table is None:
            with self._lock:
                self._table = self._table or _table_of(self.path)
        return self._table

    def __len__(self) -> int:
        return len(self.table)

    def key(self, index: int) -> str:
        return self.table.key(index)

    def read(self, index: int, extensions: Collection[str] | None = None) -> dict[str, bytes]:
        """A sample's members, extension -> bytes: all, or those in `extensions`. BadSample where one is cut short."""
        table, members = self.table, {}
        for extension in table.extensions_of(index):
            if extensions is None or extension in extensions:
                column = table.extensions.index(extension)
                size = int(table.sizes[index, column])
                data = os.pread(self.descriptor(), size, int(table.offsets[index, column]))
                if len(data) != size:
                    raise BadSample(table.key(index), f"{extension} is cut short")
                members[extension] = data
        return members

    def descriptor(self) -> int:
        """The open file, for `os.pread`. It stays this object's."""
        if self._file is None:
            with self._lock:
                self._file = os.open(self.path, os.O_RDONLY) if self._file is None else self._file
        return self._file

    def close(self) -> None:
        """Gives the file back; reading opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


def open_chunk(path: Path) -> Chunk:
    """The chunk at `path`, an uncompressed tar. Its `.idx` is used where it fits the tar."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {_REMEDY_MISSING}")
    if is_compressed(path.name):
        raise ValueError(f"{path} is compressed; unpack it first (unpack_chunk)")
    return Chunk(path)


def idx_path(path: Path) -> Path:
    """chunk_000000.tar -> chunk_000000.idx."""
    return path.with_suffix(".idx")


def is_compressed(name: str) -> bool:
    return name.endswith(("gz", "tgz"))


def tar_bytes(store: Store, entry: ChunkEntry) -> int:
    """A chunk's size without compression. A gzip's last four bytes tell it, modulo 4 GiB."""
    if not is_compressed(entry.file):
        return entry.bytes
    size = int.from_bytes(store.read_range(entry.file, entry.bytes - 4, 4), "little") if entry.bytes >= 4 else 0
    return max(size, entry.bytes)


def unpack_chunk(packed: Path, path: Path) -> None:
    """A `.tar.gz` -> the tar in it, whole or not at all. ValueError where it is cut short or damaged."""
    try:
        with igzip.open(packed, "rb") as source, whole_file(path) as temporary, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
    except (EOFError, igzip.BadGzipFile, IsalError) as error:  # type: ignore[misc]  # a class
        raise ValueError(f"{packed} is half-written or damaged ({error}); {_REMEDY}") from None


def fetch_chunk(store: Store, entry: ChunkEntry, path: Path) -> None:
    """Brings a chunk here as an uncompressed tar at `path`, checked against its entry in the index.

    ValueError where it is not what the index says, FileNotFoundError where it is not there, naming the file as the user
    knows it and what to do.
    """
    if isinstance(store, LocalStore):
        verify_chunk(store.local_path(entry.file), entry)
        if is_compressed(entry.file):
            unpack_chunk(store.local_path(entry.file), path)
        else:
            store.get(entry.file, path)
        return
    arrived = path.with_name(f"{path.name}.gz") if is_compressed(entry.file) else path
    try:
        store.get(entry.file, arrived, size=entry.bytes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {_REMEDY_MISSING}") from None
    try:
        verify_chunk(arrived, entry, f"{store.location}/{entry.file}")
        if arrived != path:
            unpack_chunk(arrived, path)
    except ValueError:
        arrived.unlink(missing_ok=True)
        raise
    if arrived != path:
        arrived.unlink()


@contextmanager
def borrowed_chunk(store: Store, entry: ChunkEntry, folder: Path, *, verify: bool = True) -> Iterator[Chunk]:
    """A chunk of a store, read where it lies if it can be, else from a copy in `folder`, gone when the block ends.

    verify: False leaves it to the caller to compare a chunk that is read where it lies with its entry.
    """
    if isinstance(store, LocalStore) and not is_compressed(entry.file):
        verify_chunk(store.local_path(entry.file), entry, content=verify)
        yield open_indexed(store.local_path(entry.file), entry)
        return
    path = folder / f"{entry.number:06d}.tar"
    try:
        fetch_chunk(store, entry, path)
        yield open_indexed(path, entry)
    finally:
        path.unlink(missing_ok=True)


def open_indexed(path: Path, entry: ChunkEntry) -> Chunk:
    """The chunk at `path`. ValueError where it does not hold as many samples as its entry in the index says."""
    chunk = open_chunk(path)
    if len(chunk) != entry.samples:
        raise ValueError(f"{path} holds {len(chunk)} samples where index.json says {entry.samples}; {_REMEDY}")
    return chunk


_REMEDY_MISSING = "copy it there, or index what is left with 'humanpose3d index'"
_REMEDY = "copy it again from where it came, or remove it and index what is left with 'humanpose3d index'"


def verify_chunk(path: Path, entry: ChunkEntry, named: str = "", *, content: bool = True) -> None:
    """ValueError where a chunk's file is not the one its entry in the index was written for; by its size alone, without
    `content`."""
    if not path.is_file():
        raise FileNotFoundError(f"{named or path} is missing; {_REMEDY}")
    size = path.stat().st_size
    if size != entry.bytes:
        raise ValueError(f"{named or path} has {size} bytes where index.json says {entry.bytes}; {_REMEDY}")
    if content and file_crc32(path) != entry.crc32:
        raise ValueError(f"{named or path} does not have the checksum that index.json says; {_REMEDY}")


def file_crc32(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(COPY_BYTES):
            crc = isal_zlib.crc32(block, crc)
    return crc


def _table_of(path: Path) -> OffsetTable:
    """From the `.idx` beside a tar where it tells of this tar, else from the tar."""
    try:
        table = OffsetTable.load(idx_path(path))
    except (FileNotFoundError, ValueError):  # costs a scan, nothing else: the tar has all that its .idx says
        return OffsetTable.scan(path)
    return table if _fits(table, path) else OffsetTable.scan(path)


def _fits(table: OffsetTable, path: Path) -> bool:
    """The first and the last sample stand in the tar where the table says."""
    if not len(table) or path.stat().st_size < table.end:
        return False
    with path.open("rb") as file:
        for index in (0, len(table) - 1):
            extension = table.extensions_of(index)[-1]
            file.seek(int(table.offsets[index, table.extensions.index(extension)]) - BLOCK)
            name = file.read(100).rstrip(b"\0").decode(errors="replace").removeprefix("./")
            if name != f"{table.key(index)}.{extension}"[:100]:
                return False
    return True


def _tar_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the data, size) of each regular file in a tar.

    Strict where `tarfile` is not: it takes a damaged header in mid-file for the end.
    """
    size_of_file = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        offset, long_name, long_size = 0, None, None
        while True:
            file.seek(offset)
            block = file.read(BLOCK)
            if long_name is None and long_size is None and (plain := _plain_header(block)) is not None:
                if offset + BLOCK + plain[1] > size_of_file:
                    raise ValueError(f"{path} is half-written: it ends within {plain[0]}; {_REMEDY}")
                yield plain[0], offset + BLOCK, plain[1]
                offset += BLOCK + -(-plain[1] // BLOCK) * BLOCK
                continue
            if len(block) == BLOCK and not any(block):
                return
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                raise ValueError(f"{path} is half-written or damaged at byte {offset}; {_REMEDY}") from None
            data, size = offset + BLOCK, header.size if long_size is None else long_size
            if data + size > size_of_file:
                raise ValueError(f"{path} is half-written: it ends within {long_name or header.name}; {_REMEDY}")
            offset = data + -(-size // BLOCK) * BLOCK
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = file.read(size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                facts = _pax_facts(file.read(size))
                long_name, long_size = facts.get("path", long_name), int(facts["size"]) if "size" in facts else None
            elif header.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                if header.type in _REGULAR:
                    yield long_name or header.name, data, size
                long_name = long_size = None


def _plain_header(block: bytes) -> tuple[str, int] | None:
    """(name, size) from the header of a regular file, with nothing special in it, in a fifth of `tarfile`'s time.

    None of any other, and of a damaged one.
    """
    if len(block) < BLOCK or block[156:157] != tarfile.REGTYPE or block[257:262] != b"ustar" or block[345] != 0:
        return None
    try:
        size, told = int(block[124:135], 8), int(block[148:154], 8)
    except ValueError:  # of another length or in another base
        return None
    # The header's checksum is the sum of its bytes, its own field taken for spaces; Adler-32 holds a sum, plus 1.
    found = told - len(block[148:156]) * ord(" ") + sum(block[148:156])
    if zlib.adler32(block) & 0xFFFF != (found + 1) % ADLER:
        return None
    return block[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape"), size


def _pax_facts(records: bytes) -> dict[str, str]:
    """`length key=value` lines of an extended header."""
    facts, position = {}, 0
    while position < len(records) and records[position : position + 1] != b"\0":
        length = int(records[position : records.index(b" ", position)])
        key, _, value = records[position : position + length - 1].partition(b" ")[2].partition(b"=")
        facts[key.decode()] = value.decode("utf-8", "surrogateescape")
        position += length
    return facts
