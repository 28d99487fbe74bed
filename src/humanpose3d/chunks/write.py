"""Writing a set of chunks: tars with their `.idx`, and an index that comes last. Resumable after every chunk.

Owns the order building.json -> chunks -> index.json, and that the same samples give the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from isal import isal_zlib

from humanpose3d.chunks.codec import LONGEST_NAME, BadSample, check_key, decode_meta
from humanpose3d.chunks.layout import (
    BUILDING,
    INDEX,
    ChunkEntry,
    ChunkIndex,
    SetFacts,
    chunk_file,
    has_chunks,
)
from humanpose3d.chunks.read import BLOCK, TableBuilder
from humanpose3d.chunks.transfer import Piece, Taken, canonical_order, member_header
from humanpose3d.files import PART
from humanpose3d.remotes import LocalStore, RemoteError, Store
from humanpose3d.reports import StageReport
from humanpose3d.sample import SCHEMA_VERSION

# zlib, not ISA-L: its output depends on the processor, and the same input is to give the same bytes everywhere.
GZIP_LEVEL = 1
GATHERED_BYTES, GATHERED_PARTS = 4 << 20, 512  # handed to the system at once; it takes 1024 parts

Plan = Mapping[str, Any]  # the stage, its settings and a digest of its input: what decides the bytes, and nothing else


class ChunkSetWriter:
    """Writes samples into numbered chunks of a store. Use as a context manager, then `finish`.

    Where the same plan was cut off before, it goes on after the last whole chunk: `position` says with which input, and
    `state` is what the caller had stored. Where the plan was finished before, `index` is set too and nothing is wanted.
    ValueError where the store holds something else.
    """

    def __init__(
        self,
        store: Store,
        *,
        prefix: str,
        chunk_size: int,
        compress: str,
        plan: Plan,
        staging: Path,
        state: Callable[[], Any],
        history: Sequence[Plan] = (),
    ) -> None:
        """staging: where chunks for a remote wait. state: asked, with each whole chunk, what to store for a restart.
        history: the plans of the stages before this one."""
        self.store, self.prefix, self.chunk_size, self.compress = store, prefix, chunk_size, compress
        self.plan, self.history = dict(plan), [dict(each) for each in history]
        self.position = 0
        self.state: Any = None
        self.index: ChunkIndex | None = None
        self._staging, self._ask_state = staging, state
        self._facts, self._entries = SetFacts(), list[ChunkEntry]()
        self._open: ChunkFileWriter | None = None
        with self._explained():
            self._start()

    def wants(self, position: int) -> bool:
        """The sample that input number `position` gives is still to be written."""
        return self.index is None and position >= self.position

    def write(
        self, position: int, key: str, members: Mapping[str, bytes], meta: Mapping[str, Any] | None = None
    ) -> None:
        """Appends a sample, its members untouched. `meta`: its metadata, where it is known already.

        BadSample, and nothing is written, for a sample that cannot stand in a chunk.
        """
        meta = decode_meta(key, members) if meta is None else meta
        with self._explained():
            chunk, subject = self._place_for(position, key, members, meta)
            chunk.write(key, members, subject)
            self._finish_if_full(position)

    def take_over(self, position: int, taken: Taken) -> None:
        """Appends a sample of another chunk: in one piece, where it lies there as we would write it. That piece's
        memory must stay as it is until `flush`."""
        try:
            chunk, subject = self._place_for(position, taken.key, taken.extensions, taken.meta)
            chunk.take_over(taken, subject)
            self._finish_if_full(position)
        except OSError:
            with self._explained():
                raise

    def flush(self) -> None:
        """All samples so far are with the system, if not yet with the disk."""
        if self._open is not None:
            with self._explained():
                self._open.flush()

    def _place_for(
        self, position: int, key: str, extensions: Collection[str], meta: Mapping[str, Any]
    ) -> tuple[ChunkFileWriter, str]:
        """The chunk that takes the sample, and the sample's subject. BadSample."""
        assert self.wants(position)
        chunk = self._open or self._next_chunk()
        chunk.check(key, extensions)
        return chunk, self._facts.add(key, meta, extensions)

    def _finish_if_full(self, position: int) -> None:
        if self._open is not None and self._open.samples == self.chunk_size:
            self._finish_chunk(position + 1)

    def start_over(self) -> None:
        """Forgets all that was written: what it was read from is damaged. A rerun begins from the start."""
        if self._open is not None:
            self._open.discard()
            self._open = None
        self._entries, self._facts, self.position = [], SetFacts(), 0
        self._save(0)

    @property
    def samples(self) -> int:
        """Samples in the set so far."""
        entries = self._entries if self.index is None else self.index.chunks
        return sum(entry.samples for entry in entries) + (self._open.samples if self._open else 0)

    def finish(self, why_none: str = "") -> ChunkIndex:
        """Ends the set: its last chunk, then its index. ValueError, with `why_none`, for a set without a sample."""
        if self.index is not None:
            return self.index
        with self._explained():
            if self._open is not None:
                self._finish_chunk(None)
            if not self._entries:
                self.store.delete(BUILDING)  # nothing to go on from, and nothing to stand in the way
                raise ValueError(f"no sample is left to write to {self.store.location}: {why_none}")
            self.index = self._make_index()
            self.store.write_bytes(INDEX, self.index.to_json())
            self.store.delete(BUILDING)
        return self.index

    def __enter__(self) -> ChunkSetWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._open is not None:
            self._open.discard()
            self._open = None

    def _start(self) -> None:
        names = {entry.name: entry.size for entry in self.store.list()}
        if BUILDING in names:
            self._resume(names)
        elif INDEX in names:
            self._recognise()
        elif has_chunks(self.store):
            raise ValueError(
                f"{self.store.location} holds chunks that this command did not write; choose another folder"
            )
        else:
            self._save(0)
        if isinstance(self.store, LocalStore):
            for leftover in self.store.folder.glob(f".*{PART}"):  # of a run that was killed
                leftover.unlink()

    def _resume(self, names: Mapping[str, int]) -> None:
        try:
            saved = orjson.loads(self.store.read_bytes(BUILDING))
            plan, position = saved["plan"], saved["position"]
            entries = [ChunkEntry.from_dict(entry) for entry in saved["chunks"]]
            facts, state = SetFacts.from_dict(saved["facts"]), saved["state"]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise ValueError(
                f"{self.store.location}/{BUILDING} is damaged; delete that folder and start again"
            ) from None
        if plan != _as_json(self.plan):
            raise ValueError(
                f"{self.store.location} holds an unfinished set of other settings or other input "
                f"({_difference(plan, self.plan)}); finish that one, or delete the folder"
            )
        wrong = [entry.file for entry in entries if names.get(entry.file) != entry.bytes]
        if wrong:
            raise ValueError(
                f"{self.store.location}/{wrong[0]} is not as it was written; delete that folder and start again"
            )
        self._entries, self._facts, self.position, self.state = entries, facts, position, state

    def _recognise(self) -> None:
        index = ChunkIndex.from_json(self.store.read_bytes(INDEX), f"{self.store.location}/{INDEX}")
        plans = index.provenance.get("history") or [{}]
        if plans[-1] != _as_json(self.plan):
            raise ValueError(
                f"{self.store.location} holds a finished set of other settings or other input "
                f"({_difference(plans[-1], self.plan)}); choose another folder, or delete that one"
            )
        self.index, self.state = index, index.provenance.get("report")

    def _next_chunk(self) -> ChunkFileWriter:
        file = chunk_file(self.prefix, len(self._entries), self.compress)
        local = isinstance(self.store, LocalStore)
        path = self.store.local_path(f".{file}{PART}") if local else self._staging / f".{file}{PART}"
        self._open = ChunkFileWriter(path, file, len(self._entries), self.compress)
        return self._open

    def _finish_chunk(self, position: int | None) -> None:
        assert self._open is not None
        chunk, path = self._open, self._open.path
        entry, table = chunk.close()
        if isinstance(self.store, LocalStore):
            os.replace(path, self.store.local_path(entry.file))
        else:
            self.store.put(path, entry.file)
            path.unlink()
        if self.compress == "none":
            idx = path.with_suffix(".idx")
            table.table().save(idx)
            self.store.put(idx, f"{entry.file.removesuffix('.tar')}.idx")
            idx.unlink()
        self._open = None
        self._entries.append(entry)
        if position is not None:
            self.position = position
            self._save(position)

    def _save(self, position: int) -> None:
        saved = {
            "schema_version": SCHEMA_VERSION,
            "plan": self.plan,
            "position": position,
            "state": self._ask_state(),
            "facts": self._facts.to_dict(),
            "chunks": [entry.to_dict() for entry in self._entries],
        }
        self.store.write_bytes(BUILDING, orjson.dumps(saved, option=orjson.OPT_INDENT_2))

    def _make_index(self) -> ChunkIndex:
        return ChunkIndex(
            prefix=self.prefix,
            chunks=tuple(self._entries),
            skeleton=self._facts.skeleton,
            keypoint_skeleton=self._facts.keypoint_skeleton,
            members=dict(self._facts.members),
            provenance={
                "estimators": self._facts.estimators,
                "history": [*self.history, _as_json(self.plan)],
                "report": self._ask_state(),
            },
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A full disk or a missing permission in one line that says what stays."""
        try:
            yield
        except RemoteError as error:
            raise RemoteError(f"{error}; finished chunks are kept, and the same command goes on from there") from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OSError(
                f"{self.store.location} cannot be written ({error.strerror or error}); mend that and run the same "
                "command again: finished chunks are kept"
            ) from error


class ChunkFileWriter:
    """One tar being written under a temporary name, its length and checksum counted on the way.

    Byte for byte what `webdataset.TarWriter` writes, without its stream of 10 kB pieces, which costs several times as
    much as the copying, and without importing torch.
    """

    def __init__(self, path: Path, file: str, number: int, compress: str) -> None:
        self.path, self.file, self.number = path, file, number
        self.subjects: Counter[str] = Counter()
        self._keys: set[str] = set()
        self._rows = TableBuilder()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stored = _CountingFile(path)
        # No file name and no time in the gzip header: the same samples, the same bytes.
        self._packed = gzip.GzipFile("", "wb", GZIP_LEVEL, self._stored, 0) if compress == "gz" else None
        self._tar: gzip.GzipFile | _CountingFile = self._packed or self._stored
        self._offset = 0  # in the tar

    @property
    def samples(self) -> int:
        return len(self._keys)

    def check(self, key: str, extensions: Collection[str]) -> None:
        """BadSample where the tar cannot take this sample."""
        check_key(key)
        if key in self._keys:
            raise BadSample(key, "its key is used twice")
        for extension in extensions:
            if len(key) + 1 + len(extension) > LONGEST_NAME or " " in extension:
                raise BadSample(key, f"a member's name is over {LONGEST_NAME} bytes or has a space")

    def write(self, key: str, members: Mapping[str, bytes], subject: str) -> None:
        for extension in canonical_order(members):
            data = members[extension]
            self._rows.add_member(key, extension, self._offset + BLOCK, len(data), self.path)
            self._append(member_header(f"{key}.{extension}", len(data)))
            self._append(data)
            self._append(bytes(-len(data) % BLOCK))
        self._keys.add(key)
        self.subjects[subject] += 1

    def take_over(self, taken: Taken, subject: str) -> None:
        """A sample of another tar; the memory of a piece must stay as it is until `flush`."""
        if not isinstance(taken.content, Piece):
            return self.write(taken.key, taken.content, subject)
        key, piece = taken.key, taken.content
        self._rows.add_sample(key, piece.parts, self._offset)
        if self._packed is None:
            self._stored.write_piece(piece)
        else:
            self._packed.write(piece.raw)
        self._offset += piece.end - piece.start
        self._keys.add(key)
        self.subjects[subject] += 1

    def _append(self, data: bytes) -> None:
        self._tar.write(data)
        self._offset += len(data)

    def flush(self) -> None:
        self._stored.flush()

    def close(self) -> tuple[ChunkEntry, TableBuilder]:
        # A tar ends with two blocks of zeros, and fills a record.
        self._append(bytes(2 * BLOCK))
        self._append(bytes(-self._offset % tarfile.RECORDSIZE))
        if self._packed is not None:
            self._packed.close()
        self._stored.close()
        entry = ChunkEntry(
            self.number, self.file, self.samples, self._stored.bytes, self._stored.crc32, dict(self.subjects)
        )
        return entry, self._rows

    def discard(self) -> None:
        with suppress(OSError):  # a full disk refuses the last bytes once more, and the file goes anyway
            self._stored.close()
        self.path.unlink(missing_ok=True)


class _CountingFile:
    """A file for writing that knows the length and CRC-32 of what went in. Gathers what it gets and hands it to the
    system in one piece."""

    def __init__(self, path: Path) -> None:
        self._file: FileIO | None = FileIO(path, "w")
        self._gathered: list[bytes | memoryview] = []
        self._stretch: tuple[bytearray, int, int] | None = None  # pieces that lie behind one another; not gathered yet
        self._waiting = 0  # bytes in both
        self.bytes, self.crc32 = 0, 0

    def write(self, data: bytes | memoryview) -> int:
        if self._file is None:
            return len(data)  # what gzip still flushes when a discarded chunk is collected
        self._gather_stretch()
        self._gathered.append(data)
        self._wait(len(data))
        return len(data)

    def write_piece(self, piece: Piece) -> None:
        """Its memory must stay as it is until `flush`."""
        if self._stretch is not None and self._stretch[0] is piece.memory and self._stretch[2] == piece.start:
            self._stretch = (piece.memory, self._stretch[1], piece.end)
        else:
            self._gather_stretch()
            self._stretch = (piece.memory, piece.start, piece.end)
        self._wait(piece.end - piece.start)

    def _gather_stretch(self) -> None:
        if self._stretch is not None:
            memory, start, end = self._stretch
            self._gathered.append(memoryview(memory)[start:end])
            self._stretch = None

    def _wait(self, size: int) -> None:
        self._waiting += size
        if self._waiting >= GATHERED_BYTES or len(self._gathered) >= GATHERED_PARTS:
            self.flush()

    def flush(self) -> None:
        self._gather_stretch()
        if self._file is None or not self._gathered:
            return
        for data in self._gathered:
            self.crc32 = isal_zlib.crc32(data, self.crc32)
        self.bytes += self._waiting
        parts, self._gathered, self._waiting = self._gathered, [], 0
        while parts:
            written = os.writev(self._file.fileno(), parts)
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            if written:
                parts[0] = memoryview(parts[0])[written:]

    def close(self) -> None:
        if self._file is not None:
            try:
                self.flush()
            finally:
                self._file.close()
                self._file = None


def refuse_same_place(source: Store, targets: Sequence[Store]) -> None:
    """ValueError where a stage would write into what it reads."""
    if source.place in {target.place for target in targets}:
        raise ValueError(f"{source.location} is read and cannot be written at the same time; give another destination")


def job_folder(parent: Path, *what: str) -> Path:
    """A folder in `parent` that only the same job uses, so that a restart finds, or clears, what a killed run left."""
    return parent / f"hp3d-{hashlib.sha256(chr(10).join(what).encode()).hexdigest()[:16]}"


def report_state(report: StageReport) -> dict[str, Any]:
    """What a report has gathered, for `state`."""
    return {
        "counts": dict(report.counts),
        "skipped": report.skipped,
        "skipped_counts": dict(report.skipped_counts),
    }


def restore_report(report: StageReport, state: Mapping[str, Any]) -> None:
    """Gives a report back what `report_state` had of it."""
    report.counts = Counter(state["counts"])
    report.skipped = {reason: list(names) for reason, names in state["skipped"].items()}
    report.skipped_counts = Counter(state["skipped_counts"])


def _as_json(plan: Plan) -> dict[str, Any]:
    return orjson.loads(orjson.dumps(plan))


def _difference(theirs: Mapping[str, Any], ours: Plan) -> str:
    """The names of the settings in which two plans differ."""
    mine = _as_json(ours)
    return ", ".join(sorted(name for name in {*theirs, *mine} if theirs.get(name) != mine.get(name))) or "order"
