"""A folder of chunks: what its files are called, and `index.json`, which says what is in them.

The bytes of samples are `codec.py`'s, those of tars `read.py`'s and `write.py`'s.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from humanpose3d.chunks.codec import SAMPLE_MEMBERS as SAMPLE_MEMBERS
from humanpose3d.chunks.codec import BadSample, decode_meta
from humanpose3d.chunks.read import Chunk, OffsetTable, file_crc32, is_compressed, open_chunk, unpack_chunk
from humanpose3d.files import scratch_folder
from humanpose3d.remotes import Store
from humanpose3d.reports import progress
from humanpose3d.sample import SCHEMA_VERSION
from humanpose3d.shards import Shard

INDEX = "index.json"
BUILDING = "building.json"  # stands in for index.json while a set is being written; a shard has its own
DEFAULT_PREFIX = "chunk"
UNKNOWN_SUBJECT = "?"  # of a sample whose metadata cannot be read

_CHUNK_FILE = re.compile(r"(?P<prefix>.*?)[_-]?(?P<number>\d+)\.(?P<kind>tar|tar\.gz|tgz)")
_log = logging.getLogger("humanpose3d")


@dataclass(frozen=True)
class ChunkFile:
    """What a chunk's file name says."""

    prefix: str
    number: int
    compress: str  # "none" or "gz"


@dataclass(frozen=True)
class ChunkEntry:
    """One chunk, as index.json tells of it."""

    number: int
    file: str
    samples: int
    bytes: int  # of the file as it is stored, compressed or not
    crc32: int  # of the same bytes
    subjects: dict[str, int]  # samples of each

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "crc32": f"{self.crc32:08x}", "subjects": dict(sorted(self.subjects.items()))}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ChunkEntry:
        values = {each.name: data[each.name] for each in fields(ChunkEntry)}
        values["crc32"] = int(values["crc32"], 16)
        return ChunkEntry(**values)


@dataclass(frozen=True)
class ChunkIndex:
    """A set of chunks: what index.json holds."""

    prefix: str
    chunks: tuple[ChunkEntry, ...]  # by number
    skeleton: str | None  # of the labels; None where the set has none
    keypoint_skeleton: str | None
    members: dict[str, int]  # extension -> how many samples have it
    provenance: dict[str, Any] = field(
        default_factory=dict
    )  # "estimators": [...], "history": the stages it came through
    schema_version: int = SCHEMA_VERSION

    @property
    def samples(self) -> int:
        return sum(chunk.samples for chunk in self.chunks)

    @property
    def subjects(self) -> dict[str, int]:
        """Samples of each subject in the whole set."""
        return total_subjects(self.chunks)

    @property
    def is_ours(self) -> bool:
        """Our own stages wrote its chunks, and checked each sample as they did; not so where it was only indexed."""
        return bool(self.provenance.get("history"))

    @property
    def digest(self) -> str:
        """Which samples the set holds, and in which order: the same for every copy of it."""
        lines = (f"{entry.number} {entry.samples} {entry.bytes} {entry.crc32:08x}\n" for entry in self.chunks)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def chunk(self, number: int) -> ChunkEntry:
        """The chunk of that number. ValueError lists the numbers there are."""
        for entry in self.chunks:
            if entry.number == number:
                return entry
        raise ValueError(f"there is no chunk {number}; there are {_ranges([entry.number for entry in self.chunks])}")

    def to_json(self) -> bytes:
        """The same bytes for the same set."""
        data = {
            "schema_version": self.schema_version,
            "prefix": self.prefix,
            "samples": self.samples,
            "skeleton": self.skeleton,
            "keypoint_skeleton": self.keypoint_skeleton,
            "members": dict(sorted(self.members.items())),
            "subjects": dict(sorted(self.subjects.items())),
            "provenance": self.provenance,
            "chunks": [entry.to_dict() for entry in self.chunks],
        }
        return orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @staticmethod
    def from_json(data: bytes, where: str) -> ChunkIndex:
        """ValueError where it is not an index of ours, or a newer one."""
        try:
            values = orjson.loads(data)
            version = values["schema_version"]
            index = ChunkIndex(
                chunks=tuple(ChunkEntry.from_dict(entry) for entry in values["chunks"]),
                **{name: values[name] for name in ("prefix", "skeleton", "keypoint_skeleton", "members", "provenance")},
                schema_version=version,
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise ValueError(
                f"{where} is not a whole index of chunks; delete it and make it again with 'humanpose3d index'"
            ) from None
        if version > SCHEMA_VERSION:
            raise ValueError(f"{where} has schema_version {version}, newer than this program's; update humanpose3d")
        return index


def total_subjects(chunks: Iterable[ChunkEntry]) -> dict[str, int]:
    """Samples of each subject in some chunks."""
    total: Counter[str] = Counter()
    for entry in chunks:
        total.update(entry.subjects)
    return dict(total)


def chunk_file(prefix: str, number: int, compress: str = "none") -> str:
    """("train", 7, "gz") -> "train_000007.tar.gz"."""
    return f"{prefix}_{number:06d}.tar" + (".gz" if compress == "gz" else "")


def parse_chunk_file(name: str) -> ChunkFile | None:
    """What a file name says, whatever its zero padding; None for files that are no chunks."""
    match = _CHUNK_FILE.fullmatch(name)
    if match is None:
        return None
    return ChunkFile(
        match["prefix"] or DEFAULT_PREFIX, int(match["number"]), "none" if match["kind"] == "tar" else "gz"
    )


def read_index(store: Store) -> ChunkIndex:
    """What a folder of chunks holds. A set without an index is somebody else's: indexed on the way, with a warning.

    ValueError: the set is unfinished, or its index is no index. FileNotFoundError: there are no chunks.
    """
    with ThreadPoolExecutor(1) as beside:  # a remote answers slowly: both questions at once
        reading = beside.submit(store.read_bytes, INDEX)
        names = {entry.name for entry in store.list()}
    _refuse_unfinished(store, names)
    if INDEX in names:
        return ChunkIndex.from_json(reading.result(), f"{store.location}/{INDEX}")
    _named_chunks(store)
    _log.warning(
        "%s has no %s: reading all of it to make one; 'humanpose3d index %s' does that once for all",
        store.location, INDEX, store.location,
    )  # fmt: skip
    return index_chunks(store, write=False)


def _refuse_unfinished(store: Store, names: Collection[str]) -> None:
    if BUILDING in names:
        raise ValueError(
            f"{store.location} is unfinished; run the command that writes it again, it will go on from there"
        )
    shards = building_shards(names)
    if shards and INDEX not in names:
        absent = _ranges([shard.number for shard in shards[0].all if shard not in shards])
        raise ValueError(
            f"{store.location} is unfinished (its {shards[0].of} shards have not all ended"
            + (f", not begun: {absent}" if absent else "")
            + "); run them again, each goes on from where it was"
        )


def building_shards(names: Iterable[str]) -> list[Shard]:
    """The shards that are writing their part of a set, or have written it, from the names of its files."""
    found = (Shard.of_name(name, BUILDING) for name in names)
    return sorted((shard for shard in found if shard is not None), key=lambda shard: (shard.of, shard.number))


def has_chunks(store: Store) -> bool:
    """A finished or unfinished set, ours or somebody else's, lies in this folder."""
    names = [entry.name for entry in store.list()]
    return bool({INDEX, BUILDING} & set(names) or building_shards(names) or any(map(parse_chunk_file, names)))


def index_chunks(store: Store, *, write: bool = True) -> ChunkIndex:
    """The index of a folder of chunks, from reading all of them; `write` leaves it and the `.idx` files there.

    ValueError names a chunk that is half-written, or two that have one number, or says that the set is unfinished.
    """
    _refuse_unfinished(store, {entry.name for entry in store.list()})
    named = _named_chunks(store)
    facts = SetFacts()
    entries = []
    with scratch_folder() as folder, progress("index", len(named)) as bar:
        for parsed, file in named:
            entries.append(_index_chunk(store, parsed, file, folder, facts, write=write))
            bar.advance()
    index = ChunkIndex(
        prefix=named[0][0].prefix,
        chunks=tuple(entries),
        skeleton=facts.skeleton,
        keypoint_skeleton=facts.keypoint_skeleton,
        members=dict(facts.members),
        provenance={"estimators": facts.estimators, "history": []},
    )
    if write:
        store.write_bytes(INDEX, index.to_json())
    return index


class SetFacts:
    """What a whole set has in common, gathered from its samples' metadata."""

    def __init__(self, skeleton: str | None = None, keypoint_skeleton: str | None = None) -> None:
        """Those that the set is known to have: without them the first sample decides, and each shard has its own."""
        self._known = (skeleton, keypoint_skeleton)
        self.skeleton: str | None = None  # seen so far
        self.keypoint_skeleton: str | None = None
        self.members: Counter[str] = Counter()
        self._estimators: set[bytes] = set()
        self._last: Any = None  # estimators of the sample before: nearly always the same, and comparing is cheap

    @property
    def estimators(self) -> list[Any]:
        """The distinct estimators that made the cues, in an order that does not depend on the samples'."""
        return [orjson.loads(text) for text in sorted(self._estimators)]

    def add(self, key: str, meta: Mapping[str, Any], extensions: Iterable[str]) -> str:
        """Takes a sample in; its subject. BadSample where its skeletons are not those of the samples before it."""
        known, known_of_keypoints = self._known
        skeleton = _same(key, "skeleton", self.skeleton or known, meta)
        keypoint_skeleton = _same(key, "keypoint_skeleton", self.keypoint_skeleton or known_of_keypoints, meta)
        self.skeleton, self.keypoint_skeleton = skeleton or self.skeleton, keypoint_skeleton or self.keypoint_skeleton
        self.members.update(tuple(extensions))
        provenance = meta.get("provenance")
        if isinstance(provenance, dict) and "estimators" in provenance and provenance["estimators"] != self._last:
            self._last = provenance["estimators"]
            self._estimators.add(orjson.dumps(self._last, option=orjson.OPT_SORT_KEYS))
        subject = meta.get("subject")
        return subject if isinstance(subject, str) else UNKNOWN_SUBJECT

    def update(self, other: SetFacts) -> None:
        """Takes in what was gathered of other samples. ValueError where their skeletons are others."""
        for name in ("skeleton", "keypoint_skeleton"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours and theirs and ours != theirs:
                raise ValueError(f"one part of the set has the {name} {ours}, another {theirs}; index its input anew")
            setattr(self, name, ours or theirs)
        self.members.update(other.members)
        self._estimators |= other._estimators

    def to_dict(self) -> dict[str, Any]:
        return {
            "skeleton": self.skeleton,
            "keypoint_skeleton": self.keypoint_skeleton,
            "members": dict(self.members),
            "estimators": self.estimators,
        }

    @staticmethod
    def from_dict(
        data: Mapping[str, Any], skeleton: str | None = None, keypoint_skeleton: str | None = None
    ) -> SetFacts:
        facts = SetFacts(skeleton, keypoint_skeleton)
        facts.skeleton, facts.keypoint_skeleton = data["skeleton"], data["keypoint_skeleton"]
        facts.members = Counter(data["members"])
        facts._estimators = {orjson.dumps(each, option=orjson.OPT_SORT_KEYS) for each in data["estimators"]}
        return facts


def _same(key: str, name: str, known: str | None, meta: Mapping[str, Any]) -> str | None:
    """The sample's own, None where it has none."""
    found = meta.get(name)
    if found is not None and known is not None and found != known:
        raise BadSample(key, f"its {name} {found} is not the set's {known}")
    return found


def _named_chunks(store: Store) -> list[tuple[ChunkFile, str]]:
    """The chunks a folder holds, by number."""
    named = [(parsed, entry.name) for entry in store.list() if (parsed := parse_chunk_file(entry.name))]
    if not named:
        folders = [folder for folder in store.folders() if folder in ("train", "test", "val")]
        hint = f"give one of its folders {', '.join(folders)}" if folders else "check the path"
        raise FileNotFoundError(f"there are no chunks in {store.location}; {hint}")
    prefixes = sorted({parsed.prefix for parsed, _ in named})
    if len(prefixes) > 1:
        raise ValueError(
            f"{store.location} holds chunks of several sets ({', '.join(prefixes)}); give each its own folder"
        )
    named.sort(key=lambda pair: pair[0].number)
    for (first, first_file), (second, second_file) in zip(named, named[1:], strict=False):
        if first.number == second.number:
            raise ValueError(
                f"{store.location}: {first_file} and {second_file} are both chunk {first.number}; remove one"
            )
    return named


def _index_chunk(
    store: Store, parsed: ChunkFile, file: str, folder: Path, facts: SetFacts, *, write: bool
) -> ChunkEntry:
    stored = store.local_path(file) if store.is_local else folder / file
    if not store.is_local:
        store.get(file, stored)
    tar = stored
    if is_compressed(file):
        tar = folder / "unpacked.tar"
        unpack_chunk(stored, tar)
    table = OffsetTable.scan(tar)
    subjects = _gather(open_chunk(tar), facts)
    if write and not is_compressed(file):
        idx = folder / "offsets.idx"
        table.save(idx)
        store.put(idx, f"{file.removesuffix('.tar')}.idx")
    entry = ChunkEntry(parsed.number, file, len(table), stored.stat().st_size, file_crc32(stored), subjects)
    for path in {tar, stored} - ({stored} if store.is_local else set()):
        path.unlink()
    return entry


def _gather(chunk: Chunk, facts: SetFacts) -> dict[str, int]:
    """Takes a chunk's samples into `facts`; its subjects. A sample nobody can read counts as of no known subject."""
    subjects: Counter[str] = Counter()
    for index in range(len(chunk)):
        key = chunk.key(index)
        try:
            meta = decode_meta(key, chunk.read(index, ("meta.json",)))
            subjects[facts.add(key, meta, chunk.table.extensions_of(index))] += 1
        except BadSample:
            subjects[UNKNOWN_SUBJECT] += 1
    chunk.close()
    return dict(subjects)


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> '0-2, 5'."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
