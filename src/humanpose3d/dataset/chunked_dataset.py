"""Chunks -> samples at any position of any epoch, and batches of them, the same for any number of processes.

What comes when is `order.py`'s, where a chunk's file is `cache.py`'s, the bytes are the codec's. Broken samples and
chunks are replaced, named and counted here.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import traceback
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from humanpose3d.chunks.codec import MEMBER_OF_FIELD, BadSample, decode_sample, members_of
from humanpose3d.chunks.layout import ChunkEntry, read_index
from humanpose3d.chunks.read import Chunk, open_indexed
from humanpose3d.dataset.cache import BrokenChunk, CacheFull, ChunkCache, Lease, Prefetcher
from humanpose3d.dataset.order import WINDOW_CHUNKS, BatchOrder, Place, SampleOrder, slice_size
from humanpose3d.remotes import Store, open_store
from humanpose3d.sample import PoseSample

FIELDS = tuple(MEMBER_OF_FIELD)  # image, depth_m, keypoint_window: what may be left undecoded; the rest always comes
MOST_ATTEMPTS = 64  # samples read in vain for one place before the data is declared broken

Transform = Callable[[PoseSample, np.random.Generator], PoseSample]
Collate = Callable[[list[PoseSample], list[bool]], Any]  # samples, and which of them count in an evaluation

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
    rng follows from (seed, epoch, sample) alone. cache_dir, cache_bytes: for chunks of a remote and packed ones.

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
    ) -> None:
        if unknown := sorted(set(fields) - set(FIELDS)):
            raise ValueError(f"unknown fields {', '.join(unknown)}; known: {', '.join(FIELDS)}")
        self.store = source if isinstance(source, Store) else open_store(source)
        index = read_index(self.store)
        self.skeleton, self.keypoint_skeleton = index.skeleton, index.keypoint_skeleton
        self.entries = _chosen(index.chunks, chunks, self.store.location)
        self.transform, self.seed, self.shuffle, self.window_chunks = transform, seed, shuffle, window_chunks
        self.cache = ChunkCache(self.store, Path(cache_dir), int(cache_bytes))
        self._check_cache_size()
        self._reader = _Reader(self.cache, self.entries, frozenset(fields))
        self._order = self.make_order()
        self._broken_chunks: dict[int, int] = {}  # chunk -> the epoch in which it could not be had
        self._quarantined: list[Quarantined] = []

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_broken_chunks": {}, "_quarantined": []}

    def __len__(self) -> int:
        return self._order.samples

    def make_order(self, stream_groups: int = 1) -> SampleOrder:
        """The order of this set's epochs."""
        self._reader.most_open = self.window_chunks * stream_groups + 1
        return SampleOrder(
            [entry.samples for entry in self.entries],
            seed=self.seed,
            groups=stream_groups,
            window_chunks=self.window_chunks,
            shuffle=self.shuffle,
        )

    @property
    def fingerprint(self) -> str:
        """Of what decides the order: the chunks chosen, their contents, and how they are shuffled."""
        facts = np.array([(entry.number, entry.samples, entry.crc32) for entry in self.entries], dtype=np.int64)
        settings = np.array([self.window_chunks, self.shuffle], dtype=np.int64)
        return hashlib.sha256(facts.tobytes() + settings.tobytes()).hexdigest()[:16]

    def __getitem__(self, place: tuple[int, int]) -> PoseSample:
        """The sample at (epoch, position), 0 <= position < len."""
        epoch, position = place
        return self.sample_at(self._order, epoch, 0, position)[0]

    def sample_at(self, order: SampleOrder, epoch: int, group: int, offset: int) -> tuple[PoseSample, bool]:
        """(the sample at an address of `order`, whether it stands in for a broken one). BrokenWindow."""
        places = chain([order.place(epoch, group, offset)], order.replacements(epoch, group, offset))
        attempts = 0
        for number, place in enumerate(places):
            if self._broken_chunks.get(place.chunk) == epoch:
                continue
            sample = self._read(place, epoch)
            if sample is not None:
                return self._transformed(sample, place, epoch), number > 0
            attempts += 1
            if attempts == MOST_ATTEMPTS:
                break
        raise self._broken_window(order, epoch, group, offset)

    def take_quarantined(self) -> list[Quarantined]:
        """What was found broken in this process since the last call."""
        found, self._quarantined = self._quarantined, []
        return found

    def _read(self, place: Place, epoch: int) -> PoseSample | None:
        """The stored sample; None, and noted, where it or its chunk is broken."""
        entry = self.entries[place.chunk]
        try:
            return self._reader.read(place)
        except CacheFull:
            raise
        except BrokenChunk as error:
            self._broken_chunks[place.chunk] = epoch
            self._quarantined.append(Quarantined(entry.file, str(error)))
        except BadSample as error:
            self._quarantined.append(Quarantined(f"{entry.file}:{error.key}", error.reason))
        except OSError as error:
            self._quarantined.append(Quarantined(f"{entry.file}:{place.sample}", str(error)))
        return None

    def _transformed(self, sample: PoseSample, place: Place, epoch: int) -> PoseSample:
        if self.transform is None:
            return sample
        number = self.entries[place.chunk].number
        rng = np.random.default_rng([part % 2**64 for part in (self.seed, epoch, number, place.sample)])
        try:
            return self.transform(sample, rng)
        except Exception as error:
            error.add_note(f"in sample {sample.key} of {self.entries[place.chunk].file}")
            raise

    def _broken_window(self, order: SampleOrder, epoch: int, group: int, offset: int) -> BrokenWindow:
        chunks = order.window_chunk_list(epoch, group, order.window_of(epoch, group, offset))
        names = ", ".join(self.entries[chunk].file for chunk in chunks)
        last = self._quarantined[-1].reason if self._quarantined else "all of them were found broken before"
        return BrokenWindow(f"nothing can be read from {names} in {self.store.location}; the last reason: {last}")

    def _check_cache_size(self) -> None:
        cached = sorted(entry.bytes for entry in self.entries if not self.cache.is_in_place(entry))
        needed = sum(cached[-self.window_chunks :])
        if needed > self.cache.max_bytes:
            raise ValueError(
                f"a cache of {self.cache.max_bytes / 1e9:.3g} GB cannot hold the "
                f"{min(len(cached), self.window_chunks)} chunks read at a time ({needed / 1e9:.3g} GB); "
                "raise --cache-gb, or rechunk into smaller chunks"
            )


class _Reader:
    """Samples of a set's chunks, a few of which are open at a time."""

    def __init__(self, cache: ChunkCache, entries: Sequence[ChunkEntry], fields: Collection[str]) -> None:
        self.cache, self.entries, self.fields = cache, entries, fields
        self.most_open = 1
        self._members = members_of(fields)
        self._open: OrderedDict[int, tuple[Chunk, Lease]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_open": OrderedDict()}

    def read(self, place: Place) -> PoseSample:
        """BrokenChunk, BadSample, OSError."""
        chunk = self._chunk(place.chunk)
        return decode_sample(chunk.key(place.sample), chunk.read(place.sample, self._members), self.fields)

    def _chunk(self, number: int) -> Chunk:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number][0]
        while len(self._open) >= self.most_open:
            _, (chunk, lease) = self._open.popitem(last=False)
            chunk.close()
            lease.release()
        entry = self.entries[number]
        try:
            lease = self.cache.take(entry)
            chunk = open_indexed(lease.path, entry)
        except (ValueError, FileNotFoundError, TimeoutError) as error:
            raise BrokenChunk(str(error)) from error
        self._open[number] = (chunk, lease)
        return chunk


class StreamingLoader:
    """Batches of a dataset's epochs for one of `world_size` processes, from any position on.

    Iterating yields `collate(samples, counted)` for the rest of the current epoch. A training epoch drops its last
    partial batch, and the position moves on to (epoch + 1, 0) as the last batch is handed out; an evaluation starts
    anew each time and fills its last batch with repeats that are not counted, as stand-ins for broken samples are not.

    global_batch: samples per batch over all processes, shared evenly. stream_groups: see `SampleOrder`. num_workers:
    processes that decode; 0 for none. prefetch: batches each prepares ahead.
    """

    def __init__(
        self,
        dataset: StreamingChunkedDataset,
        *,
        global_batch: int,
        collate: Collate,
        rank: int = 0,
        world_size: int = 1,
        stream_groups: int = 1,
        num_workers: int = 0,
        prefetch: int = 2,
        training: bool = True,
    ) -> None:
        slice_size(global_batch, world_size)
        self.dataset, self.training = dataset, training
        self.epoch, self.batch = 0, 0  # the position: what is handed out next
        self.quarantined: dict[str, str] = {}  # name -> reason, of all chunks and samples left out so far
        self._order = BatchOrder(dataset.make_order(stream_groups), global_batch=global_batch, drop_last=training)
        self._groups = self._order.groups_of(rank, world_size)
        self._batches = _Batches(dataset, self._order, rank, world_size, collate, training)
        self._sequence = _Sequence(self._order.batches)
        self._num_workers, self._prefetch = num_workers, prefetch
        self._loader: DataLoader | None = None
        self._prefetcher: Prefetcher | None = None
        self._windows: list[tuple[int, int]] = []
        self._needs_cache = not all(dataset.cache.is_in_place(entry) for entry in dataset.entries)
        self._iteration = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever the position is: Lightning skips a batch on resume if this changes."""
        return self._order.batches

    def __iter__(self) -> Iterator[Any]:
        if not self.training:
            self.batch = 0
        self._iteration += 1
        self._sequence.start = (self.epoch, self.batch)
        self._fetch_ahead()
        if self._loader is None:
            self._loader = self._make_loader()
        return self._hand_out(iter(self._loader), self._iteration)

    def state_dict(self) -> dict[str, int | str]:
        """The position, and what it is a position in. Batches prepared but not handed out do not count."""
        return {
            "epoch": self.epoch,
            "samples": self.batch * self._order.global_batch,
            "seed": self.dataset.seed,
            "stream_groups": self._order.order.groups,
            "data": self.dataset.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a position, without reading what lies before. ValueError where it belongs to another order."""
        if missing := sorted(self.state_dict().keys() - state.keys()):
            raise ValueError(f"this is no position in a data set: {', '.join(missing)} missing")
        if state["data"] != self.dataset.fingerprint:
            raise ValueError(
                f"the position was saved on other data than {self.dataset.store.location} ({len(self.dataset)} samples "
                f"in {len(self.dataset.entries)} chunks); resume with the chunks that the run was started on"
            )
        for name, ours in (("seed", self.dataset.seed), ("stream_groups", self._order.order.groups)):
            if state[name] != ours:
                raise ValueError(f"the position was saved with {name} {state[name]}, not {ours}: the order differs")
        batch, rest = divmod(int(state["samples"]), self._order.global_batch)
        if rest or batch >= self._order.batches:
            raise ValueError(
                f"position {state['samples']} is no start of a batch of {self._order.global_batch}; "
                "resume with the batch size that the run was started with"
            )
        self.epoch, self.batch = int(state["epoch"]), batch

    def close(self) -> None:
        """Ends workers and prefetching; iterating starts them again."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None:
            # As Lightning does it: left to the garbage collector, workers may wait 5 s each for a queue that has gone.
            iterator._shutdown_workers()
        self._loader = None
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher, self._windows = None, []

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
            self._fetch_ahead()

    def _note(self, quarantined: Sequence[Quarantined]) -> None:
        for name, reason in quarantined:
            if name not in self.quarantined:
                self.quarantined[name] = reason
                _log.warning("left out %s: %s", name, reason)

    def _make_loader(self) -> DataLoader:
        context = _worker_context() if self._num_workers else None
        return DataLoader(
            self._batches,
            batch_size=None,  # an item is a whole batch
            sampler=self._sequence,
            collate_fn=_as_it_is,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch if self._num_workers else None,
            persistent_workers=bool(self._num_workers),
            multiprocessing_context=context,
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # of its own: the global one's state must not depend on how often we iterate
        )

    def _fetch_ahead(self) -> None:
        """Asks for the chunks of the windows being read and of the next ones, when those change."""
        if not self._needs_cache:
            return
        order, share = self._order.order, self._order.share
        windows = [
            (group, order.window_of(self.epoch, group, self.batch * share % int(order.group_samples[group])))
            for group in self._groups
        ]
        if windows == self._windows:
            return
        self._windows = windows
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(self.dataset.cache)
            weakref.finalize(self, self._prefetcher.close)
        self._prefetcher.want(chain.from_iterable(self._chunks_from(step) for step in (0, 1)))

    def _chunks_from(self, step: int) -> Iterator[ChunkEntry]:
        """Chunks of the windows `step` after those being read; the next epoch's first follow an epoch's last."""
        order = self._order.order
        for group, window in self._windows:
            epoch, after = self.epoch, window + step
            if after >= order.windows(epoch, group):
                epoch, after = epoch + self.training, 0
            entries = [self.dataset.entries[chunk] for chunk in order.window_chunk_list(epoch, group, after)]
            yield from (entry for entry in entries if not self.dataset.cache.is_in_place(entry))


_Answer = tuple[Any, Sequence[Quarantined]]  # a batch, or what went wrong with it; and what was left out


class _Batches(Dataset[_Answer]):
    """One process's slices of the global batches, made where the DataLoader asks: in a worker, or here."""

    def __init__(
        self,
        dataset: StreamingChunkedDataset,
        order: BatchOrder,
        rank: int,
        world_size: int,
        collate: Collate,
        training: bool,
    ) -> None:
        self.dataset, self.order, self.collate, self.training = dataset, order, collate, training
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, position: tuple[int, int]) -> _Answer:
        # An error travels as a value: the DataLoader would wrap a user's one-line mistake into a worker's traceback.
        try:
            batch = self._make(*position)
        except (ValueError, OSError) as error:
            error.add_note(traceback.format_exc())
            return error, self.dataset.take_quarantined()
        return batch, self.dataset.take_quarantined()

    def _make(self, epoch: int, batch: int) -> Any:
        samples, counted = [], []
        for slot in self.order.slots(batch, self.rank, self.world_size):
            sample, is_stand_in = self.dataset.sample_at(self.order.order, epoch, slot.group, slot.offset)
            samples.append(sample)
            counted.append(slot.counted and (self.training or not (is_stand_in or sample.synthetic)))
        return self.collate(samples, counted)


class _Sequence(Sampler[tuple[int, int]]):
    """(epoch, batch) from `start` to the epoch's end."""

    def __init__(self, batches: int) -> None:
        self.batches, self.start = batches, (0, 0)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, first = self.start
        return ((epoch, batch) for batch in range(first, self.batches))


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


def _worker_context() -> Any:
    """How workers start. Not by fork: the training process has threads (torch, CUDA, prefetching), and a lock that one
    of them holds stays locked in a forked child for good. A fork server imports torch once and forks from there."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_worker(number: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism


def _as_it_is(answer: Any) -> Any:
    return answer
