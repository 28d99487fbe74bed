"""Chunks -> samples at any position of any epoch, and batches of them, the same for any number of processes.

What comes when is `order.py`'s, where a chunk's file is `cache.py`'s, what is made of the bytes `decoding.py`'s, who
makes it `workers.py`'s. Broken samples and chunks are replaced, named and counted here.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import traceback
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
from torch.utils.data import Dataset

from humanpose3d.chunks.codec import MEMBER_OF_FIELD, BadSample, members_of
from humanpose3d.chunks.layout import ChunkEntry, read_index
from humanpose3d.chunks.read import Chunk, is_compressed, open_indexed, tar_bytes
from humanpose3d.dataset.cache import BrokenChunk, CacheFull, ChunkCache, Lease, Prefetcher, Wish
from humanpose3d.dataset.decoding import Collate, Decoder, PoseDecoder, StoredSample, Transform, decode_record
from humanpose3d.dataset.order import (
    WINDOW_CHUNKS,
    BatchOrder,
    GlobalBatches,
    Place,
    SampleOrder,
    Slot,
    Window,
    slice_size,
)
from humanpose3d.dataset.workers import ProcessWorkers, ThreadWorkers, Workers
from humanpose3d.remotes import Store, open_store
from humanpose3d.sample import PoseSample

FIELDS = tuple(MEMBER_OF_FIELD)  # image, depth_m, keypoint_window: what may be left undecoded; the rest always comes
MOST_ATTEMPTS = 64  # samples read in vain for one place before the data is declared broken
MOST_THREADS = 4  # "auto" takes as many at the most where samples are transformed; docs/performance.md says why

WorkerKind = Literal["auto", "threads", "processes"]
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class BrokenWindow(ValueError):
    """So much of the data cannot be read that nothing is left to stand in for it."""


class Quarantined(NamedTuple):
    """A chunk or sample left out."""

    name: str
    reason: str


class StreamingChunkedDataset(Dataset[PoseSample]):
    """The samples of a set of chunks, read in place and decoded one at a time. `dataset[epoch, position]`.

    source: folder, remote:path or Store with the chunks. chunks: their numbers; None or none of them means all.
    fields: which of `FIELDS` to decode; members of the others are never opened. transform: (sample, rng) -> sample; its
    rng follows from (seed, epoch, sample) alone. cache_dir, cache_bytes: for chunks of a remote and packed ones. name:
    the set's in a `DatasetMix`; it stands before the names of what is left out, and gives the set random numbers of its
    own.

    FileNotFoundError: no chunks there. ValueError: an unfinished set, an unknown field or chunk number, a cache that
    cannot hold what is read at a time.
    """

    def __init__(
        self,
        source: Store | str | Path,
        *,
        chunks: Sequence[int] | None = None,
        fields: Collection[str] = FIELDS,
        transform: Transform | None = None,
        seed: int = 0,
        cache_dir: str | Path = "./dataset_cache",
        cache_bytes: float = 50e9,
        shuffle: bool = True,
        window_chunks: int = WINDOW_CHUNKS,
        name: str = "",
    ) -> None:
        if unknown := sorted(set(fields) - set(FIELDS)):
            raise ValueError(f"unknown fields {', '.join(unknown)}; known: {', '.join(FIELDS)}")
        self.store = source if isinstance(source, Store) else open_store(source)
        index = read_index(self.store)
        self.skeleton, self.keypoint_skeleton = index.skeleton, index.keypoint_skeleton
        self.entries = _chosen(index.chunks, chunks, self.store.location)
        self.fields, self.transform = tuple(fields), transform
        self.name, self.seed, self.shuffle, self.window_chunks = name, seed, shuffle, window_chunks
        self._random_seed = _seed_of(seed, name)
        unpacked = _unpacked(self.store, self.entries)
        self.cache = ChunkCache(self.store, Path(cache_dir), int(cache_bytes), unpacked=unpacked)
        self._reader = _Reader(self.cache, self.entries)
        self.read_groups(1)
        check_cache_size([self])
        self._order = self.make_order()
        self._broken_chunks: dict[int, tuple[int, str]] = {}  # chunk -> the epoch in which it could not be had, and why
        self._quarantined: list[Quarantined] = []

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_broken_chunks": {}, "_quarantined": []}

    def __len__(self) -> int:
        return self._order.samples

    def make_order(self, stream_groups: int = 1) -> SampleOrder:
        """The order of this set's epochs."""
        return SampleOrder(
            [entry.samples for entry in self.entries],
            seed=self._random_seed,
            groups=stream_groups,
            window_chunks=self.window_chunks,
            shuffle=self.shuffle,
        )

    def read_groups(self, groups: int) -> None:
        """So many groups of the order are read at a time by this process: what decides how many chunks are open."""
        # Twice a window: batches made ahead may lie in the next one already.
        self._reader.most_open = 2 * self.window_chunks * groups

    @property
    def most_open(self) -> int:
        """How many chunks this process has open at a time."""
        return self._reader.most_open

    @property
    def sets(self) -> tuple[StreamingChunkedDataset, ...]:
        """What a loader reads of it: itself."""
        return (self,)

    @property
    def shares(self) -> str:
        """Of a mix: its sets' names and parts. Here: none."""
        return ""

    def make_batches(self, global_batch: int, *, stream_groups: int, training: bool) -> GlobalBatches:
        """The order of a loader's batches."""
        return BatchOrder(self.make_order(stream_groups), global_batch=global_batch, drop_last=training)

    def other_than(self, fingerprint: str) -> str:
        """What is here instead of the data of that fingerprint; empty where it is the same."""
        if fingerprint == self.fingerprint:
            return ""
        return f"{self.store.location} ({len(self)} samples in {len(self.entries)} chunks)"

    @property
    def fingerprint(self) -> str:
        """Of what decides the order: the chunks chosen, their contents, and how they are shuffled."""
        facts = np.array([(entry.number, entry.samples, entry.crc32) for entry in self.entries], dtype=np.int64)
        settings = np.array([self.window_chunks, self.shuffle], dtype=np.int64)
        return hashlib.sha256(facts.tobytes() + settings.tobytes()).hexdigest()[:16]

    def __getitem__(self, place: tuple[int, int]) -> PoseSample:
        """The sample at (epoch, position), 0 <= position < len."""
        epoch, position = place

        def decode(sample: StoredSample) -> PoseSample:
            return decode_record(sample, self.fields, self.transform)

        return self.read(self._order, epoch, 0, position, members_of(self.fields), decode, self._quarantined)[0]

    def read(
        self,
        order: SampleOrder,
        epoch: int,
        group: int,
        offset: int,
        extensions: Collection[str],
        decode: Callable[[StoredSample], _T],
        quarantined: list[Quarantined],
    ) -> tuple[_T, bool]:
        """(what `decode` makes of the sample at an address of `order`, whether that one stands in for a broken one).

        What is found broken on the way is added to `quarantined`. Threads may read at the same time. BrokenWindow.
        """
        places = chain([order.place(epoch, group, offset)], order.replacements(epoch, group, offset))
        attempts = 0
        for number, place in enumerate(places):
            if self._is_broken(place.chunk, epoch):
                continue
            stored = self._stored(place, epoch, extensions, quarantined)
            if stored is not None:
                try:
                    return decode(stored), number > 0
                except BadSample as error:
                    quarantined.append(Quarantined(self._named(place.chunk, error.key), error.reason))
            attempts += 1
            if attempts == MOST_ATTEMPTS:
                break
        raise self._broken_window(order, epoch, group, offset, quarantined)

    def take_quarantined(self) -> list[Quarantined]:
        """What `dataset[...]` found broken in this process since the last call."""
        found, self._quarantined = self._quarantined, []
        return found

    def _stored(
        self, place: Place, epoch: int, extensions: Collection[str], quarantined: list[Quarantined]
    ) -> StoredSample | None:
        """The stored sample; None, and noted, where it or its chunk is broken."""
        entry = self.entries[place.chunk]
        try:
            chunk = self._reader.chunk(place.chunk)
            key, members = chunk.key(place.sample), chunk.read(place.sample, extensions)
        except CacheFull:
            raise
        except BrokenChunk as error:
            self._broken_chunks[place.chunk] = epoch, str(error)
            quarantined.append(Quarantined(self._named(place.chunk), str(error)))
        except BadSample as error:
            quarantined.append(Quarantined(self._named(place.chunk, error.key), error.reason))
        except OSError as error:
            quarantined.append(Quarantined(self._named(place.chunk, place.sample), str(error)))
        else:
            return StoredSample(key, members, (self._random_seed, epoch, entry.number, place.sample))
        return None

    def _broken_window(
        self, order: SampleOrder, epoch: int, group: int, offset: int, quarantined: list[Quarantined]
    ) -> BrokenWindow:
        chunks = order.window_chunk_list(epoch, group, order.window_of(epoch, group, offset)).tolist()
        names = ", ".join(self.entries[chunk].file for chunk in chunks)
        # Also what threads at work on other batches found out, which may never be handed out.
        broken = [chunk for chunk in chunks if self._is_broken(chunk, epoch)]
        quarantined += [Quarantined(self._named(chunk), self._broken_chunks[chunk][1]) for chunk in broken]
        return BrokenWindow(
            f"nothing can be read from {names} in {self.store.location}; the last reason: {quarantined[-1].reason}"
        )

    def _is_broken(self, chunk: int, epoch: int) -> bool:
        return self._broken_chunks.get(chunk, (None,))[0] == epoch

    def _named(self, chunk: int, sample: str | int | None = None) -> str:
        """A chunk or sample as the user is told of it."""
        name = self.entries[chunk].file if sample is None else f"{self.entries[chunk].file}:{sample}"
        return f"{self.name}/{name}" if self.name else name


def check_cache_size(datasets: Sequence[StreamingChunkedDataset]) -> None:
    """ValueError where the cache cannot hold all that a process has open of the sets that share it."""
    chunks = needed = in_flight = 0
    for cache, entries, most_open in ((each.cache, each.entries, each.most_open) for each in datasets):
        cached = sorted((entry for entry in entries if not cache.is_in_place(entry)), key=cache.size)[-most_open:]
        chunks += len(cached)
        needed += sum(map(cache.size, cached))
        in_flight = max([in_flight, *(cache.needed(entry) - cache.size(entry) for entry in cached)])
    needed += in_flight
    if needed > datasets[0].cache.max_bytes:
        raise ValueError(
            f"a cache of {datasets[0].cache.max_bytes / 1e9:.3g} GB cannot hold the {chunks} chunks read at a time, "
            f"two windows of each set ({needed / 1e9:.3g} GB); raise --cache-gb, or rechunk into smaller chunks"
        )


def _unpacked(store: Store, entries: Sequence[ChunkEntry]) -> float:
    """How many times as large as the set's .tar.gz the tars in them are, by the largest; 1 where there are none."""
    packed = [entry for entry in entries if is_compressed(entry.file)]
    largest = max(packed, key=lambda entry: entry.bytes, default=None)
    try:
        return 1.0 if largest is None else tar_bytes(store, largest) / largest.bytes
    except (OSError, EOFError):
        return 1.0  # it cannot be read: whoever reads samples names it


def _seed_of(seed: int, name: str) -> int:
    """A set's own: the same chunk and sample numbers in two sets of a mix must not draw the same random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") if name else seed


class Source(Protocol):
    """What a loader reads: a `StreamingChunkedDataset`, or a `DatasetMix` of several."""

    seed: int

    @property
    def sets(self) -> tuple[StreamingChunkedDataset, ...]: ...

    @property
    def shares(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def other_than(self, fingerprint: str) -> str: ...

    def make_batches(self, global_batch: int, *, stream_groups: int, training: bool) -> GlobalBatches: ...

    def __len__(self) -> int: ...


class _Reader:
    """The chunks of a set, a few of which are open at a time. Threads may share it."""

    def __init__(self, cache: ChunkCache, entries: Sequence[ChunkEntry]) -> None:
        self.cache, self.entries = cache, entries
        self.most_open = 1
        self._open: OrderedDict[int, _OpenChunk] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _open=OrderedDict(), _lock=threading.Lock())

    def chunk(self, number: int) -> Chunk:
        """BrokenChunk, OSError."""
        with self._lock:
            opened = self._open.get(number)
            if opened is None:
                opened = self._open[number] = _OpenChunk()
                while len(self._open) > self.most_open:
                    # Not closed here: another thread may be reading it. The last one to let go of it does.
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(number)
        try:
            return opened.get(self.cache, self.entries[number])
        except BaseException:
            with self._lock:  # so that the next epoch tries again
                if self._open.get(number) is opened:
                    del self._open[number]
            raise


class _OpenChunk:
    """A chunk and the lease on its file. The first thread that needs it fetches it, others wait for that one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunk: Chunk | None = None
        self._fault: str | None = None

    def get(self, cache: ChunkCache, entry: ChunkEntry) -> Chunk:
        with self._lock:
            if self._chunk is None:
                if self._fault is None:
                    try:
                        self._chunk = self._opened(cache.take(entry), entry)
                    except (ValueError, FileNotFoundError, TimeoutError) as error:
                        self._fault = str(error)
                if self._chunk is None:
                    raise BrokenChunk(self._fault)
            return self._chunk

    def _opened(self, lease: Lease, entry: ChunkEntry) -> Chunk:
        try:
            chunk = open_indexed(lease.path, entry)
        except BaseException:
            lease.release()
            raise
        chunk.lease = lease
        return chunk


class StreamingLoader:
    """Batches of the epochs of a dataset or a `DatasetMix`, for one of `world_size` processes, from any position on.

    Iterating yields `collate(samples, counted)` for the rest of the current epoch. A training epoch drops its last
    partial batch, and the position moves on to (epoch + 1, 0) as the last batch is handed out; an evaluation starts
    anew each time and fills its last batch with repeats that are not counted, as stand-ins for broken samples are not.

    global_batch: samples per batch over all processes, shared evenly. decoder: makes batches of stored samples by
    itself, in place of the dataset's `fields` and `transform` and of `collate`. stream_groups: see `SampleOrder`.
    num_workers: threads or processes that decode; 0 for none. workers: which of them; "auto" takes processes where
    more than MOST_THREADS workers run the dataset's transform, else threads. prefetch: batches made ahead, by each
    process or by all threads together. None of these three changes what comes.
    """

    def __init__(
        self,
        dataset: Source,
        *,
        global_batch: int,
        collate: Collate | None = None,
        decoder: Decoder | None = None,
        rank: int = 0,
        world_size: int = 1,
        stream_groups: int = 1,
        num_workers: int = 0,
        workers: WorkerKind = "auto",
        prefetch: int = 2,
        training: bool = True,
    ) -> None:
        slice_size(global_batch, world_size)
        if (collate is None) == (decoder is None):
            raise ValueError("a loader needs collate, for our own records, or a decoder, and not both")
        self.dataset, self.training = dataset, training
        self.epoch, self.batch = 0, 0  # the position: what is handed out next
        self.quarantined: dict[str, str] = {}  # name -> reason, of all chunks and samples left out so far
        self._order = dataset.make_batches(global_batch, stream_groups=stream_groups, training=training)
        self._groups = self._order.groups_of(rank, world_size)
        for each in dataset.sets:
            each.read_groups(len(self._groups))
        decoders = [decoder or PoseDecoder(each.fields, each.transform, collate) for each in dataset.sets]
        self._begin = _BatchMaker(dataset.sets, self._order, rank, world_size, decoders, training)
        self._is_threaded = _is_threaded(workers, num_workers, decoders)
        self._num_workers, self._prefetch = num_workers, prefetch
        self._workers: Workers | None = None
        self._prefetcher: Prefetcher | None = None
        self._asked: tuple[list[Window], bool] = [], False  # for which windows, and whether for the next ones too
        self._needs_cache = not all(each.cache.is_in_place(entry) for each in dataset.sets for entry in each.entries)
        self._iteration = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever the position is: Lightning skips a batch on resume if this changes."""
        return self._order.batches

    def __iter__(self) -> Iterator[Any]:
        if not self.training:
            self.batch = 0
        self._iteration += 1
        self._fetch(with_next=False)  # the first batch waits for nothing that is needed later
        if self._workers is None:
            self._workers = self._make_workers()
        positions = zip(repeat(self.epoch), range(self.batch, self._order.batches), strict=False)
        return self._hand_out(self._workers.run(positions), self._iteration)

    def state_dict(self) -> dict[str, int | str]:
        """The position, and what it is a position in. Batches prepared but not handed out do not count."""
        state: dict[str, int | str] = {
            "epoch": self.epoch,
            "samples": self.batch * self._order.global_batch,
            "seed": self.dataset.seed,
            "stream_groups": self._order.groups,
            "data": self.dataset.fingerprint,
        }
        if self.dataset.shares:  # a mix goes on from epoch to epoch, so where one begins depends on its batches
            state |= {"mix": self.dataset.shares, "global_batch": self._order.global_batch}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a position, without reading what lies before. ValueError where it belongs to another order."""
        ours = self.state_dict()
        if state.get("mix", "") != self.dataset.shares:
            saved, here = (mix or "one set alone" for mix in (state.get("mix"), self.dataset.shares))
            raise ValueError(f"the position was saved in {saved}, not in {here}: the order differs")
        if missing := sorted(ours.keys() - state.keys()):
            raise ValueError(f"this is no position in a data set: {', '.join(missing)} missing")
        if other := self.dataset.other_than(state["data"]):
            raise ValueError(
                f"the position was saved on other data than {other}; resume with the chunks that the run was started on"
            )
        for name in ("seed", "stream_groups", "global_batch"):
            if name in ours and state[name] != ours[name]:
                raise ValueError(
                    f"the position was saved with {name} {state[name]}, not {ours[name]}: the order differs"
                )
        batch, rest = divmod(int(state["samples"]), self._order.global_batch)
        if rest or batch >= self._order.batches:
            raise ValueError(
                f"position {state['samples']} is no start of a batch of {self._order.global_batch}; "
                "resume with the batch size that the run was started with"
            )
        self.epoch, self.batch = int(state["epoch"]), batch

    def close(self) -> None:
        """Ends workers and prefetching; iterating starts them again."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher, self._asked = None, ([], False)

    def _hand_out(self, answers: Iterator[_Answer], iteration: int) -> Iterator[Any]:
        for batch, quarantined in answers:
            if iteration != self._iteration:
                raise RuntimeError("this iterator is stale: the loader has been iterated anew")
            self._note(quarantined)
            if isinstance(batch, Exception):
                self.close()
                raise batch
            self._advance()
            yield batch

    def _advance(self) -> None:
        self.batch += 1
        if self.batch == self._order.batches:
            self.epoch, self.batch = self.epoch + self.training, 0
        else:
            self._fetch(with_next=True)

    def _note(self, quarantined: Sequence[Quarantined]) -> None:
        for name, reason in quarantined:
            if name not in self.quarantined:
                self.quarantined[name] = reason
                _log.warning("left out %s: %s", name, reason)

    def _make_workers(self) -> Workers:
        kind = ThreadWorkers if self._is_threaded else ProcessWorkers
        return kind(self._begin, self._num_workers, self._prefetch)

    def _fetch(self, *, with_next: bool) -> None:
        """Asks for the chunks of the windows being read, and of the next ones, when those change."""
        if not self._needs_cache:
            return
        windows = self._order.windows(self.epoch, self.batch, self._groups)
        if (windows, with_next) == self._asked:
            return
        self._asked = windows, with_next
        if self._prefetcher is None:
            check_cache_size(self.dataset.sets)  # of all groups that are read here
            self._prefetcher = Prefetcher(self.dataset.sets[0].cache.max_bytes)
            weakref.finalize(self, self._prefetcher.close)
        following = map(self._order.after, windows) if with_next else ()
        self._prefetcher.want(self._wishes([*windows, *following]))

    def _wishes(self, windows: Iterable[Window]) -> Iterator[Wish]:
        for window in windows:
            source = self.dataset.sets[window.set]
            entries = [source.entries[chunk] for chunk in self._order.chunks(window)]
            yield from ((source.cache, entry) for entry in entries if not source.cache.is_in_place(entry))


_Answer = tuple[Any, Sequence[Quarantined]]  # a batch, or what went wrong with it; and what was left out


class _BatchMaker:
    """Begins one process's slices of the global batches, wherever that is asked for: here, or in a worker process."""

    def __init__(
        self,
        sets: Sequence[StreamingChunkedDataset],
        order: GlobalBatches,
        rank: int,
        world_size: int,
        decoders: Sequence[Decoder],
        training: bool,
    ) -> None:
        self.sets, self.order, self.decoders, self.training = sets, order, decoders, training
        self.rank, self.world_size = rank, world_size

    def __call__(self, epoch: int, batch: int) -> _BatchInTheMaking:
        return _BatchInTheMaking(self, self.order.slots(epoch, batch, self.rank, self.world_size))


class _BatchInTheMaking:
    """A batch, empty at first. Threads fill rows of it, each its own."""

    def __init__(self, maker: _BatchMaker, slots: list[Slot]) -> None:
        self.size = len(slots)
        self._maker, self._slots = maker, slots
        self._batch = maker.decoders[0].new_batch(self.size)
        self._counted = [slot.counted for slot in slots]
        self._quarantined: list[Quarantined] = []
        self._fault: Exception | None = None

    def fill(self, rows: range) -> None:
        # An error is kept as a value: torch would wrap a user's one-line mistake into a worker's traceback.
        try:
            for row in rows:
                if self._fault is not None:
                    return
                self._fill_row(row)
        except (ValueError, OSError) as error:
            error.add_note(traceback.format_exc())
            self._fault = error

    def finish(self) -> _Answer:
        if self._fault is None:
            try:
                return self._maker.decoders[0].finish(self._batch, self._counted), self._quarantined
            except (ValueError, OSError) as error:
                error.add_note(traceback.format_exc())
                self._fault = error
        return self._fault, self._quarantined

    def _fill_row(self, row: int) -> None:
        slot, maker, batch = self._slots[row], self._maker, self._batch
        order, decoder = maker.order.orders[slot.set], maker.decoders[slot.set]
        countable, is_stand_in = maker.sets[slot.set].read(
            order, slot.epoch, slot.group, slot.offset, decoder.extensions,
            lambda sample: decoder.decode(sample, batch, row), self._quarantined,
        )  # fmt: skip
        self._counted[row] = slot.counted and (maker.training or (countable and not is_stand_in))


def _is_threaded(workers: WorkerKind, number: int, decoders: Sequence[Decoder]) -> bool:
    if workers not in get_args(WorkerKind):
        raise ValueError(f"unknown workers '{workers}'; known: {', '.join(get_args(WorkerKind))}")
    if not number or workers == "threads":
        return True
    if workers == "processes":
        return False
    transforms = [each.transform for each in decoders if isinstance(each, PoseDecoder)]
    return number <= MOST_THREADS or all(transform is None for transform in transforms)


def _chosen(entries: Sequence[ChunkEntry], numbers: Sequence[int] | None, location: str) -> tuple[ChunkEntry, ...]:
    """The entries of those chunks, by number."""
    by_number = {entry.number: entry for entry in sorted(entries, key=lambda entry: entry.number)}
    if unknown := sorted(set(numbers or ()) - by_number.keys()):
        raise ValueError(f"{location} has no chunk {_listed(unknown)}; it has {_listed(sorted(by_number))}")
    chosen = tuple(entry for number, entry in by_number.items() if not numbers or number in numbers)
    if not sum(entry.samples for entry in chosen):
        raise ValueError(f"{location} has no samples in its {len(chosen)} chunks; make them again or choose others")
    return chosen


def _listed(numbers: Sequence[int]) -> str:
    """1, 2, 3 ... of many only the first and the last."""
    shown = [str(number) for number in numbers]
    return ", ".join(shown if len(shown) <= 20 else [*shown[:10], "...", shown[-1]])
