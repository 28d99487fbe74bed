"""Writing a set of chunks: tars with their `.idx`, and an index that comes last. Resumable after every chunk.

Owns the order building.json -> chunks -> index.json, and that the same samples give the same bytes. What stands in
building.json, and how an index comes of it, is `parts.py`'s.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from isal import isal_zlib

from humanpose3d.chunks.codec import LONGEST_NAME, BadSample, check_key, decode_meta
from humanpose3d.chunks.layout import (
    BUILDING,
    INDEX,
    ChunkEntry,
    ChunkIndex,
    SetFacts,
    building_shards,
    chunk_file,
    parse_chunk_file,
)
from humanpose3d.chunks.parts import Part, Plan, difference, finish_shards, make_index, refuse_other_shards
from humanpose3d.chunks.read import BLOCK, TableBuilder
from humanpose3d.chunks.transfer import Piece, Taken, canonical_order, member_header
from humanpose3d.files import PART, part_path, sole_writer
from humanpose3d.remotes import LocalStore, RemoteError, Store
from humanpose3d.reports import NAMED_AT_MOST, StageReport
from humanpose3d.shards import WHOLE, Shard

# zlib, not ISA-L: its output depends on the processor, and the same input is to give the same bytes everywhere.
GZIP_LEVEL = 1
GATHERED_BYTES, GATHERED_PARTS = 4 << 20, 512  # handed to the system at once; it takes 1024 parts

Skeletons = tuple[str | None, str | None]  # of the labels, of the keypoints


class StretchWriter:
    """Writes samples into numbered chunks of a store: chunk n takes what the inputs from n * chunk_size on give. So
    which sample stands where follows from the input alone, whoever writes the chunks before it.

    An input that gives no sample leaves its chunk one short. Inputs are given in order, none of another chunk than
    those in `chunks`.
    """

    def __init__(
        self,
        store: Store,
        *,
        prefix: str,
        chunk_size: int,
        compress: str,
        staging: Path,
        chunks: range | None = None,
        skeletons: Skeletons = (None, None),
    ) -> None:
        """staging: where chunks for a remote wait. chunks: the numbers that are written here; None: all.
        skeletons: the labels' and the keypoints', where they are known beforehand."""
        self.store, self.prefix, self.chunk_size, self.compress = store, prefix, chunk_size, compress
        self.position = 0 if chunks is None else chunks.start * chunk_size
        self.end = sys.maxsize if chunks is None else chunks.stop * chunk_size  # positions from here on are others'
        self._first = self.position
        self.facts, self.entries = SetFacts(*skeletons), list[ChunkEntry]()
        self._staging, self._skeletons = staging, skeletons
        self._open: ChunkFileWriter | None = None

    def wants(self, position: int) -> bool:
        """The sample that input number `position` gives is still to be written."""
        return self.position <= position < self.end

    @property
    def is_done(self) -> bool:
        """All that is to be written here is written."""
        return self.position >= self.end

    def start_over(self) -> None:
        """Forgets all that was written: what it was read from is damaged."""
        self._discard()
        self.entries, self.facts, self.position = [], SetFacts(*self._skeletons), self._first

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

    def reach(self, position: int) -> None:
        """Whatever comes now is of input number `position`: ends the chunk before, if the last of its inputs gave none.
        To be called before anything is counted that is stored with a chunk."""
        if self._open is not None and self._open.number < position // self.chunk_size:
            with self._explained():
                self._finish_chunk()

    def flush(self) -> None:
        """All samples so far are with the system, if not yet with the disk."""
        if self._open is not None:
            with self._explained():
                self._open.flush()

    def close(self) -> None:
        """Ends the last chunk."""
        if self._open is not None:
            with self._explained():
                self._finish_chunk()

    def _place_for(
        self, position: int, key: str, extensions: Collection[str], meta: Mapping[str, Any]
    ) -> tuple[ChunkFileWriter, str]:
        """The chunk that takes the sample, and the sample's subject. BadSample."""
        assert self.wants(position)
        self.reach(position)
        chunk = self._open or self._start_chunk(position // self.chunk_size)
        chunk.check(key, extensions)
        return chunk, self.facts.add(key, meta, extensions)

    def _finish_if_full(self, position: int) -> None:
        if (position + 1) % self.chunk_size == 0:
            self._finish_chunk()

    @property
    def samples(self) -> int:
        """Samples written so far."""
        return sum(entry.samples for entry in self.entries) + (self._open.samples if self._open else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._discard()

    def _discard(self) -> None:
        if self._open is not None:
            self._open.discard()
            self._open = None

    def _start_chunk(self, number: int) -> ChunkFileWriter:
        file = chunk_file(self.prefix, number, self.compress)
        folder = self.store.folder if isinstance(self.store, LocalStore) else self._staging
        self._open = ChunkFileWriter(part_path(folder / file), file, number, self.compress)
        return self._open

    def _finish_chunk(self) -> None:
        assert self._open is not None
        chunk, path = self._open, self._open.path
        entry, table = chunk.close()
        if not chunk.samples:
            path.unlink()  # its only samples were refused
        else:
            self._store_chunk(path, entry, table)
            self.entries.append(entry)
        self._open = None
        self.position = (chunk.number + 1) * self.chunk_size
        self._chunk_is_done()

    def _store_chunk(self, path: Path, entry: ChunkEntry, table: TableBuilder) -> None:
        self._move(path, entry.file)
        if self.compress == "none":
            file = f"{entry.file.removesuffix('.tar')}.idx"
            idx = part_path(path.with_name(file))
            table.table().save(idx)
            self._move(idx, file)

    def _move(self, path: Path, file: str) -> None:
        if isinstance(self.store, LocalStore):
            os.replace(path, self.store.local_path(file))
        else:
            self.store.put(path, file)
            path.unlink()

    def _chunk_is_done(self) -> None:
        pass

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


class ChunkSetWriter(StretchWriter):
    """Writes a set of chunks, or a shard's stretch of them. Use as a context manager, then `finish`.

    Where the same plan was cut off before, it goes on after the last whole chunk: `position` says with which input, and
    `state` is what the caller had stored. Where the plan was finished before, `index` is set too and nothing is wanted.
    ValueError where the store holds something else, or shards with other settings write to it. BlockingIOError where
    another process of this machine is writing the set to the same folder.
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
        shard: Shard = WHOLE,
        chunks: range | None = None,
        skeletons: Skeletons = (None, None),
    ) -> None:
        """state: asked, with each whole chunk, what to store for a restart; a shard's is to be of `report_state`.
        history: the plans of the stages before this one. chunks: the shard's. The rest as in StretchWriter."""
        assert shard.of == 1 or chunks is not None
        chunks = chunks if shard.of > 1 else None  # the whole is never done before `finish`
        super().__init__(
            store, prefix=prefix, chunk_size=chunk_size, compress=compress, staging=staging, chunks=chunks,
            skeletons=skeletons,
        )  # fmt: skip
        self.plan, self.history = _as_json(plan), [_as_json(each) for each in history]
        self.shard = shard
        self.state: Any = None
        self.index: ChunkIndex | None = None
        self._ask_state = state
        with ExitStack() as alone:
            if isinstance(store, LocalStore) and shard.of == 1:
                with self._explained():
                    store.folder.mkdir(parents=True, exist_ok=True)
                alone.enter_context(sole_writer(store.folder))
            with self._explained():
                self._start()
            self._alone = alone.pop_all()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self._alone.close()

    def wants(self, position: int) -> bool:
        return self.index is None and super().wants(position)

    @property
    def is_done(self) -> bool:
        return self.index is not None or super().is_done

    def add(self, written: Written) -> None:
        """Takes in the next stretch, which a `StretchWriter` wrote to the same store."""
        with self._explained():
            self.facts.update(written.facts)
            self.entries += written.entries
            self.position = written.end
            self._chunk_is_done()

    def start_over(self) -> None:
        """As for any stretch; and a rerun begins from the start."""
        super().start_over()
        self._save()

    def finish(self, why_none: str = "") -> ChunkIndex:
        """Ends the set: its last chunk, then its index. ValueError, with `why_none`, for a set without a sample."""
        index = self.finish_part(why_none)
        assert index is not None, "a shard's set may not be whole yet"
        return index

    def finish_part(self, why_none: str = "") -> ChunkIndex | None:
        """`finish` for what may be a shard: None while others have not ended. The last one ends the set."""
        if self.index is not None:
            return self.index
        self.close()
        with self._explained():
            if self.shard.of > 1:
                self.position = self.end
                self._save(is_done=True)
                self.index = finish_shards(self.store, why_none)
                return self.index
            if not self.entries:
                self.store.delete(BUILDING)  # nothing to go on from, and nothing to stand in the way
                raise ValueError(f"no sample is left to write to {self.store.location}: {why_none}")
            self.index = make_index([self._part(is_done=True)])
            self.store.write_bytes(INDEX, self.index.to_json())
            self.store.delete(BUILDING)
        return self.index

    def _start(self) -> None:
        names = {entry.name: entry.size for entry in self.store.list()}
        shards = building_shards(names)
        if INDEX in names and BUILDING not in names:
            self._recognise()
            if shards:
                finish_shards(self.store)  # clears up, where that was cut off
        elif self.shard.of > 1:
            self._start_shard(names, shards)
        elif shards:
            raise ValueError(
                f"{self.store.location} is being written by shards; go on with --shard i/{shards[0].of}, or delete it"
            )
        elif BUILDING in names:
            self._resume(names)
        else:
            self._begin(names)
        if isinstance(self.store, LocalStore) and self.shard.of == 1:
            for leftover in self.store.folder.glob(f".*{PART}"):  # of a run that was killed
                leftover.unlink()

    def _start_shard(self, names: Mapping[str, int], shards: Sequence[Shard]) -> None:
        if BUILDING in names:
            raise ValueError(f"{self.store.location} is being written without --shard; go on so, or delete the folder")
        refuse_other_shards(self.store, shards, self.shard)
        for another in [shard for shard in shards if shard != self.shard][:1]:
            with suppress(FileNotFoundError):  # the set has just been finished
                plan = Part.read(self.store, another.name(BUILDING)).plan
                self._refuse_other_plan(plan, "an unfinished", "finish that one, or delete the folder")
        if self.shard in shards:
            self._resume(names)
        elif shards:
            self._save()
        else:
            self._begin(names)

    def _begin(self, names: Iterable[str]) -> None:
        if any(map(parse_chunk_file, names)):
            raise ValueError(
                f"{self.store.location} holds chunks that this command did not write; choose another folder"
            )
        self._save()

    def _resume(self, names: Mapping[str, int]) -> None:
        part = Part.read(self.store, self._building)
        self._refuse_other_plan(part.plan, "an unfinished", "finish that one, or delete the folder")
        wrong = [entry.file for entry in part.entries if names.get(entry.file) != entry.bytes]
        if wrong:
            raise ValueError(
                f"{self.store.location}/{wrong[0]} is not as it was written; delete that folder and start again"
            )
        self.entries, self.position, self.state = part.entries, part.position, part.state
        self.facts = SetFacts(*self._skeletons)
        self.facts.update(part.facts)

    def _recognise(self) -> None:
        index = ChunkIndex.from_json(self.store.read_bytes(INDEX), f"{self.store.location}/{INDEX}")
        plans = index.provenance.get("history") or [{}]
        self._refuse_other_plan(plans[-1], "a finished", "choose another folder, or delete that one")
        first, after = self._first // self.chunk_size, self.end // self.chunk_size
        self.index, self.entries = index, [entry for entry in index.chunks if first <= entry.number < after]
        self.state = index.provenance.get("report") if self.shard.of == 1 else None  # it is of all shards

    def _refuse_other_plan(self, plan: Plan, how: str, advice: str) -> None:
        if plan != self.plan:
            raise ValueError(
                f"{self.store.location} holds {how} set of other settings or other input "
                f"({difference(plan, self.plan)}); {advice}"
            )

    @property
    def _building(self) -> str:
        return self.shard.name(BUILDING)

    def _chunk_is_done(self) -> None:
        self._save()

    def _save(self, *, is_done: bool = False) -> None:
        self.store.write_bytes(self._building, self._part(is_done).to_json())

    def _part(self, is_done: bool) -> Part:
        return Part(
            self.prefix, self.plan, self.history, self.position, is_done, self._ask_state(), self.facts, self.entries
        )


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


def add_to_report(report: StageReport, state: Mapping[str, Any]) -> None:
    """Takes in what `report_state` had of another report, of inputs that come after."""
    report.counts.update(state["counts"])
    report.skipped_counts.update(state["skipped_counts"])
    for reason, names in state["skipped"].items():
        report.skipped[reason] = (report.skipped.get(reason, []) + names)[:NAMED_AT_MOST]


@dataclass(frozen=True)
class Written:
    """What came of a stretch that was written elsewhere."""

    entries: list[ChunkEntry]
    facts: SetFacts
    state: dict[str, Any]  # of its report
    end: int  # the position after it

    @staticmethod
    def by(writer: StretchWriter, report: StageReport) -> Written:
        """Ends the stretch."""
        writer.close()
        return Written(writer.entries, writer.facts, report_state(report), writer.end)


def seen_from_elsewhere(store: Store) -> str:
    """The location under which other machines find a store."""
    return store.place if store.is_local else store.location


def killed_its_worker(task: Any) -> Any:
    """Instead of a task that kills whoever does it: nothing can stand for a chunk."""
    raise OSError(
        f"chunk {task} kills every worker that writes it, most likely for want of memory; run the same command again "
        "with fewer --workers: finished chunks are kept"
    )


def restore_report(report: StageReport, state: Mapping[str, Any]) -> None:
    """Gives a report back what `report_state` had of it."""
    report.counts = Counter(state["counts"])
    report.skipped = {reason: list(names) for reason, names in state["skipped"].items()}
    report.skipped_counts = Counter(state["skipped_counts"])


def _as_json(plan: Plan) -> dict[str, Any]:
    return orjson.loads(orjson.dumps(plan))
