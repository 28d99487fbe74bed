"""A set of chunks -> the evidence that `checks` judges. Broken samples and chunks become findings and never stop it.

Of a big set only a share is read: runs of neighbouring frames, the same ones through every camera, spread over all
takes. Which ones follows from the samples' keys alone, so it does not matter how the set is cut or shuffled.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import simplejpeg

from humanpose3d.checks.evidence import Evidence
from humanpose3d.checks.finding import FAULTS, Finding
from humanpose3d.chunks.build import REPORT as CHUNKER_REPORT
from humanpose3d.chunks.codec import BadSample, decode_depth, decode_meta, decode_sample, members_of
from humanpose3d.chunks.layout import ChunkEntry, ChunkIndex, has_chunks, read_index
from humanpose3d.chunks.read import Chunk, borrowed_chunk, is_compressed, open_indexed
from humanpose3d.files import make_folder, scratch_folder
from humanpose3d.inspect.sparse import Choice, SparseChunk, sparse_chunk
from humanpose3d.remotes import Store, open_store
from humanpose3d.reports import Progress, progress
from humanpose3d.sample import PoseSample

PARTS = ("train", "val", "test")  # of a parent of several sets
RUN_FRAMES = 16  # neighbouring frames of a take that are read together: what a shift in time is seen by
DEPTH_SAMPLES = 500  # of which the depth map is decoded
IMAGE_SAMPLES = 2000  # of which the picture is hashed
HASH_SIDE = 8  # of the hash: 8 x 8 bits
NAMED_AT_MOST = 12  # broken samples named in a finding

_KEY = re.compile(r"(?P<take>.+)-(?P<camera>[^-]+)-(?P<frame>\d+)-p\d+")  # corpus-subject-take-camera-frame-person
_DEPTH_IS_THERE = np.zeros((1, 1), np.float32)  # stands for a depth map that was not decoded


@dataclass(frozen=True)
class Part:
    """One folder of chunks and the side of the split it is."""

    store: Store
    index: ChunkIndex
    split: str | None  # "train", "val" or "test"; None for a set that is not split


@dataclass(frozen=True)
class Place:
    """Where a sample lies."""

    part: Part
    entry: ChunkEntry
    row: int  # in the chunk
    members: dict[str, tuple[int, int]]  # extension -> offset and size in the uncompressed tar


@dataclass
class Heard:
    """What reading a set gave."""

    parts: list[Part]
    evidence: Evidence = field(default_factory=Evidence)
    places: dict[str, Place] = field(default_factory=dict)  # by key
    broken: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # reason -> keys or files
    corpus_of: Counter[tuple[str, str]] = field(default_factory=Counter)  # (first part of the key, corpus)
    read: int = 0  # samples looked at, broken ones too
    depths: int = 0  # depth maps decoded
    images: int = 0  # pictures hashed

    @property
    def samples(self) -> int:
        """In the whole set."""
        return sum(part.index.samples for part in self.parts)

    @property
    def chunks(self) -> int:
        return sum(len(part.index.chunks) for part in self.parts)

    def broken_findings(self) -> list[Finding]:
        """What could not be read, one finding for each reason and corpus."""
        findings = []
        for reason, names in sorted(self.broken.items()):
            by_corpus: dict[str, list[str]] = defaultdict(list)
            for name in names:
                by_corpus[self._corpus(name)].append(name)
            findings += [_broken_finding(corpus, reason, some) for corpus, some in sorted(by_corpus.items())]
        return findings

    def _corpus(self, name: str) -> str:
        """The corpus that keys of this beginning have; the set's only one where nothing else tells."""
        corpora = {corpus for _, corpus in self.corpus_of}
        known = [corpus for (first, corpus), _ in self.corpus_of.most_common() if first == name.split("-")[0]]
        return known[0] if known else corpora.pop() if len(corpora) == 1 else "?"


def find_parts(location: str | Path) -> list[Part]:
    """The folder's own chunks, or those of train/, val/ and test/ in it.

    FileNotFoundError where there are none, ValueError where a set is unfinished.
    """
    store = open_store(location)
    if not has_chunks(store):
        there = [part for part in PARTS if part in store.folders()]
        children = [(part, store.child(part)) for part in there]
        parts = [Part(child, read_index(child), part) for part, child in children if has_chunks(child)]
        if parts:
            return parts
    return [Part(store, read_index(store), None)]


def read_evidence(location: str | Path, *, samples: int, all: bool, temp_dir: Path) -> Heard:
    """About `samples` of the set's samples (all of them with `all`), as evidence.

    Chunks of a remote and compressed ones are fetched one at a time to `temp_dir`.
    """
    heard = Heard(find_parts(location))
    share = 1.0 if all else min(samples / max(heard.samples, 1), 1.0)
    expected = max(share * heard.samples, 1)
    depth_turns, image_turns = _Turns(expected / DEPTH_SAMPLES), _Turns(expected / IMAGE_SAMPLES)
    with progress("inspect", heard.samples) as bar, folder_for_copies(heard.parts, temp_dir) as folder:
        for part in heard.parts:
            for entry in part.index.chunks:
                before = bar.done
                try:
                    with opened_chunk(part.store, entry, partial(choose, share=share), folder) as chunk:
                        _read_chunk(chunk, part, entry, share, heard, depth_turns, image_turns, bar)
                except (ValueError, FileNotFoundError) as error:
                    heard.broken[without_name(str(error), entry.file)].append(entry.file)
                bar.advance(before + entry.samples - bar.done)
    if not heard.read and heard.samples and not heard.broken:
        raise ValueError(f"--max-samples {samples} of {heard.samples} samples are too few to choose from; say --all")
    return heard


@contextmanager
def folder_for_copies(parts: Sequence[Part], temp_dir: Path) -> Iterator[Path]:
    """A folder for the chunks that cannot be read where they lie, gone when the block ends; not made where all can."""
    if all(_in_place(part.store, entry) for part in parts for entry in part.index.chunks):
        yield temp_dir
        return
    make_folder(temp_dir)
    with scratch_folder(temp_dir) as folder:
        yield folder


def _in_place(store: Store, entry: ChunkEntry) -> bool:
    return store.is_local and not is_compressed(entry.file)


@contextmanager
def opened_chunk(store: Store, entry: ChunkEntry, choose: Choice, folder: Path) -> Iterator[Chunk | SparseChunk]:
    """The chunk, in place where it can be: a sum over all its bytes would cost more than reading a share of them.

    Of a large chunk on a remote only the samples that `choose` picks from all keys can be read.
    """
    if not _in_place(store, entry):
        if (some := sparse_chunk(store, entry, choose, folder)) is not None:
            yield some
            return
        with borrowed_chunk(store, entry, folder) as borrowed:
            yield borrowed
        return
    path = store.local_path(entry.file)
    if path.is_file() and (size := path.stat().st_size) != entry.bytes:
        raise ValueError(f"{path} has {size} bytes where index.json says {entry.bytes}; copy it again")
    chunk = open_indexed(path, entry)
    try:
        yield chunk
    finally:
        chunk.close()


def _read_chunk(
    chunk: Chunk | SparseChunk,
    part: Part,
    entry: ChunkEntry,
    share: float,
    heard: Heard,
    depth_turns: _Turns,
    image_turns: _Turns,
    bar: Progress,
) -> None:
    keys = [chunk.key(row) for row in range(len(chunk))]
    chosen = choose(keys, share)
    for row, key in enumerate(keys):
        bar.advance()
        if not chosen[row]:
            continue
        heard.read += 1
        try:
            record = _hear(chunk, row, part.split, heard, depth_turns, image_turns)
        except BadSample as bad:
            heard.broken[bad.reason].append(key)
            continue
        heard.corpus_of[key.split("-")[0], record.corpus] += 1
        heard.places.setdefault(key, Place(part, entry, row, _members(chunk, row)))


def _hear(
    chunk: Chunk | SparseChunk, row: int, split: str | None, heard: Heard, depth_turns: _Turns, image_turns: _Turns
) -> PoseSample:
    """Takes one sample in; BadSample where it is broken."""
    key, extensions = chunk.key(row), chunk.table.extensions_of(row)
    members = chunk.read(row, members_of(()))
    record = decode_sample(key, members, fields=())
    for extension in decode_meta(key, members).get("members", ()):
        if extension not in extensions:
            raise BadSample(key, f"{extension} is missing")
    cell = (record.corpus, record.subject, record.camera_id)
    depth_at_joints_m, image_hash = None, None
    if "depth.png" in extensions:
        if record.joints_px is not None and depth_turns.turn_of(cell):
            depth_m = decode_depth(key, chunk.read(row, ("depth.png",))["depth.png"])
            depth_at_joints_m = depth_at(depth_m, record.joints_px, record.image_size_wh)
            heard.depths += 1
        record = record.with_(depth_m=_DEPTH_IS_THERE)
    if "image.jpg" in extensions and image_turns.turn_of(cell):
        image_hash = difference_hash(key, chunk.read(row, ("image.jpg",))["image.jpg"])
        heard.images += 1
    heard.evidence.add(record, split=split, depth_at_joints_m=depth_at_joints_m, image_hash=image_hash)
    return record


class _Turns:
    """Every n-th sample of each cell, its first one always."""

    def __init__(self, every: float) -> None:
        self._every = max(every, 1.0)
        self._seen: Counter[tuple[str, ...]] = Counter()

    def turn_of(self, cell: tuple[str, ...]) -> bool:
        number = self._seen[cell]
        self._seen[cell] += 1
        return number % self._every < 1.0


def choose(keys: Sequence[str], share: float) -> list[bool]:
    """Which samples are read: about `share` of them, in runs of RUN_FRAMES frames spread evenly over each take.

    A key that is not `corpus-subject-take-camera-frame-person` counts as a frame of its own.
    """
    if share >= 1.0:
        return [True] * len(keys)
    parsed = [_take_and_frame(key) for key in keys]
    step = _frame_step(parsed)
    chosen = []
    for take, frame in parsed:
        # An offset of the take's own, so that not all takes are read at their beginnings, nor all left out.
        run = frame // (step * RUN_FRAMES) + zlib.crc32(take.encode()) % 1009
        chosen.append(int((run + 1) * share) > int(run * share))
    return chosen


def _take_and_frame(key: str) -> tuple[str, int]:
    match = _KEY.fullmatch(key)
    return (match["take"], int(match["frame"])) if match else ("", zlib.crc32(key.encode()))


def _frame_step(parsed: list[tuple[str, int]]) -> int:
    """The distance of frames in their takes: with --frame-step 5 all numbers of a take are multiples of 5."""
    frames = [frame for take, frame in parsed if take]
    return int(np.gcd.reduce(np.array(frames or [1], dtype=np.int64))) or 1


def _members(chunk: Chunk | SparseChunk, row: int) -> dict[str, tuple[int, int]]:
    table = chunk.table
    columns = {extension: table.extensions.index(extension) for extension in table.extensions_of(row)}
    return {name: (int(table.offsets[row, col]), int(table.sizes[row, col])) for name, col in columns.items()}


def read_again(place: Place, key: str, temp_dir: Path) -> PoseSample:
    """A sample with its picture, from where it lies. BadSample where the picture is broken."""
    store, entry = place.part.store, place.entry
    wanted = members_of(("image",))
    if is_compressed(entry.file):
        with folder_for_copies([place.part], temp_dir) as folder, borrowed_chunk(store, entry, folder) as chunk:
            members: Mapping[str, bytes] = chunk.read(place.row, wanted)
    else:
        members = {name: store.read_range(entry.file, *span) for name, span in place.members.items() if name in wanted}
    return decode_sample(key, members, fields=("image",) if "image.jpg" in members else ())


def depth_at(depth_m: np.ndarray, joints_px: np.ndarray, image_size_wh: tuple[int, int]) -> np.ndarray:
    """float32 [J]: metres at the joints' pixels; NaN off the map and where it knows nothing."""
    height, width = depth_m.shape
    scale = np.array([width / max(image_size_wh[0], 1), height / max(image_size_wh[1], 1)])
    places = np.nan_to_num((joints_px + 0.5) * scale - 0.5, nan=-9.0, posinf=-9.0, neginf=-9.0)
    columns, rows = np.clip(np.rint(places), -9, 1 << 20).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    found = depth_m[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return np.where(inside & (found > 0), found, np.nan).astype(np.float32)


def difference_hash(key: str, jpeg: bytes) -> int:
    """64 bits: whether each patch of the picture is brighter than the one to its right. Equal for equal pictures,
    a few bits apart for pictures that were compressed or scaled anew. BadSample where it cannot be decoded."""
    try:
        # The decoder shrinks by up to 8 on the way: all that is needed is 9 x 8 patches.
        grey = simplejpeg.decode_jpeg(jpeg, colorspace="GRAY", min_height=64, min_width=64, min_factor=1, strict=True)
    except ValueError:
        raise BadSample(key, "image.jpg cannot be decoded") from None
    small = cv2.resize(grey[..., 0], (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def chunker_findings(parts: Sequence[Part]) -> list[Finding]:
    """What the chunker found when it wrote the set, and told in its report: it also saw the frames that it left out."""
    findings = []
    for part in parts:
        try:
            told = orjson.loads(part.store.read_bytes(CHUNKER_REPORT))["inspection"]["findings"]
        except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
            continue  # somebody else's set, an older one, or one that was split or shuffled since
        findings += [Finding(**_known_fields(one)) for one in told if one.get("fault") in FAULTS]
    return findings


def _known_fields(told: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(Finding)}
    return {name: tuple(value) if name == "worst" else value for name, value in told.items() if name in names}


def _broken_finding(corpus: str, reason: str, names: list[str]) -> Finding:
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    what = "sample" if len(names) == 1 else "samples"
    return Finding(
        fault="missing_fields",
        corpus=corpus,
        subject=None,
        camera_id=None,
        message=f"{len(names)} {what} cannot be read: {reason} ({some}); make this set again, or copy it again",
        samples=len(names),
        worst=tuple(names[:NAMED_AT_MOST]),
    )


def without_name(message: str, file: str) -> str:
    """Equal faults of several chunks are counted together."""
    return re.sub(rf"\S*{re.escape(file)}", "the chunk", message)
