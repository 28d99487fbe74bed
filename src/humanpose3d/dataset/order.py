"""The order of an epoch: a function of (chunk sizes, seed, epoch) alone, found at any position without walking there.

Plain NumPy, no files: which sample is read comes from here, reading it is `chunked_dataset.py`'s.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

WINDOW_CHUNKS = 4  # chunks whose samples are mixed with each other; as many are read at a time
_KEPT_WINDOWS = 3  # permutations kept per group: the one being read and its neighbours
_CHUNKS, _SAMPLES, _REPLACEMENTS = 0, 1, 2  # what a stream of random numbers is for


@dataclass(frozen=True)
class Place:
    """Where a sample lies."""

    chunk: int  # position in the list of chunk sizes, not the chunk's number
    sample: int  # in the chunk


@dataclass(frozen=True)
class _Plan:
    """One group's epoch: its chunks in order, cut into windows."""

    chunks: np.ndarray  # int64 [chunks of the group], in this epoch's order
    first_chunks: np.ndarray  # int64 [windows + 1], where in `chunks` each window begins
    window_starts: np.ndarray  # int64 [windows + 1], the group's samples before each window


class SampleOrder:
    """The order of every epoch over chunks of given sizes.

    Chunks are dealt to `groups` once; in each epoch each group's chunks are permuted, and samples are permuted inside
    windows of up to `window_chunks` chunks. A sample's address is (epoch, group, offset in the group). With `shuffle`
    False everything stays in stored order.
    """

    def __init__(
        self,
        chunk_samples: Sequence[int] | np.ndarray,
        *,
        seed: int,
        groups: int = 1,
        window_chunks: int = WINDOW_CHUNKS,
        shuffle: bool = True,
    ) -> None:
        self.chunk_samples = np.asarray(chunk_samples, dtype=np.int64)
        self.seed, self.groups, self.window_chunks, self.shuffle = seed, groups, window_chunks, shuffle
        if groups < 1 or window_chunks < 1:
            raise ValueError(f"stream_groups ({groups}) and window_chunks ({window_chunks}) must be at least 1")
        filled = np.flatnonzero(self.chunk_samples > 0)
        if groups > len(filled):
            raise ValueError(f"stream_groups is {groups}, but there are only {len(filled)} chunks to deal out")
        self._dealt = _deal(self.chunk_samples, filled, groups)
        self.group_samples = np.array([self.chunk_samples[chunks].sum() for chunks in self._dealt], dtype=np.int64)
        self._forget_plans()

    def _forget_plans(self) -> None:
        self._plans: OrderedDict[tuple[int, int], _Plan] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self._lock = threading.RLock()  # threads may ask at the same time

    def __getstate__(self) -> dict:
        """For a worker process: everything but the plans, which it makes again where it needs them."""
        return {name: value for name, value in vars(self).items() if name not in ("_plans", "_windows", "_lock")}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._forget_plans()

    @property
    def samples(self) -> int:
        return int(self.chunk_samples.sum())

    def place(self, epoch: int, group: int, offset: int) -> Place:
        """The sample at an offset (0 ... group_samples[group] - 1) of a group's epoch. O(log windows)."""
        window, inside = self._find(epoch, group, offset)
        return self._place_in_window(epoch, group, window, inside)

    def replacements(self, epoch: int, group: int, offset: int) -> Iterator[Place]:
        """The other samples of the same window, each once, in the order they stand in for a broken one.

        A walk of constant stride: two broken samples of a window get different stand-ins, and a stand-in is far
        from the place where it is read itself.
        """
        window, inside = self._find(epoch, group, offset)
        starts = self._plan(epoch, group).window_starts
        size = int(starts[window + 1] - starts[window])
        stride = _coprime(int(_random(1, self.seed, epoch, group, _REPLACEMENTS, window)[0] % np.uint64(size)), size)
        for step in range(1, size):
            yield self._place_in_window(epoch, group, window, (inside + step * stride) % size)

    def window_of(self, epoch: int, group: int, offset: int) -> int:
        """Number of the window an offset lies in."""
        return self._find(epoch, group, offset)[0]

    def windows(self, epoch: int, group: int) -> int:
        """How many windows a group's epoch has."""
        return len(self._plan(epoch, group).window_starts) - 1

    def window_chunk_list(self, epoch: int, group: int, window: int) -> np.ndarray:
        """int64 [<= window_chunks]: the chunks read in that window."""
        plan = self._plan(epoch, group)
        return plan.chunks[plan.first_chunks[window] : plan.first_chunks[window + 1]]

    def _find(self, epoch: int, group: int, offset: int) -> tuple[int, int]:
        if not 0 <= offset < self.group_samples[group]:
            raise IndexError(f"offset {offset} lies outside a group of {self.group_samples[group]} samples")
        starts = self._plan(epoch, group).window_starts
        window = int(np.searchsorted(starts, offset, side="right")) - 1
        return window, int(offset - starts[window])

    def _place_in_window(self, epoch: int, group: int, window: int, inside: int) -> Place:
        if self.shuffle:
            inside = int(self._window(epoch, group, window)[inside])
        for chunk in self.window_chunk_list(epoch, group, window):
            if inside < self.chunk_samples[chunk]:
                return Place(int(chunk), int(inside))
            inside -= int(self.chunk_samples[chunk])
        raise AssertionError("an offset beyond its window")

    def _plan(self, epoch: int, group: int) -> _Plan:
        with self._lock:
            plan = self._plans.get((epoch, group))
            if plan is None:
                plan = self._plans[epoch, group] = self._make_plan(epoch, group)
                _forget(self._plans, 2 * self.groups)
            return plan

    def _make_plan(self, epoch: int, group: int) -> _Plan:
        chunks = self._dealt[group]
        if self.shuffle:
            chunks = chunks[_permutation(len(chunks), self.seed, epoch, group, _CHUNKS)]
        before = np.concatenate([[0], np.cumsum(self.chunk_samples[chunks])])
        # Windows of equal size, not a short last one: a chunk alone in its window could not be stood in for.
        windows = -(-len(chunks) // self.window_chunks)
        edges = np.arange(windows + 1) * len(chunks) // windows
        return _Plan(chunks, edges, before[edges])

    def _window(self, epoch: int, group: int, window: int) -> np.ndarray:
        with self._lock:
            order = self._windows.get((epoch, group, window))
            if order is None:
                starts = self._plan(epoch, group).window_starts
                size = int(starts[window + 1] - starts[window])
                order = _permutation(size, self.seed, epoch, group, _SAMPLES, window).astype(np.uint32)
                self._windows[epoch, group, window] = order
                _forget(self._windows, _KEPT_WINDOWS * self.groups)
            return order


@dataclass(frozen=True)
class Slot:
    """One sample's place in a global batch."""

    group: int
    offset: int  # in the group's epoch
    counted: bool  # False for a repeat that fills up the last batch of an evaluation


class BatchOrder:
    """Global batches over a `SampleOrder`: batch `b` takes the same fixed stretch of each group's epoch.

    Training drops the samples that fill no batch; evaluation repeats samples, marked, to fill the last one.
    """

    def __init__(self, order: SampleOrder, *, global_batch: int, drop_last: bool) -> None:
        if global_batch < 1 or global_batch % order.groups:
            raise ValueError(f"the batch size ({global_batch}) must be a multiple of stream_groups ({order.groups})")
        self.order, self.global_batch, self.share = order, global_batch, global_batch // order.groups
        if drop_last:
            self.batches = int((order.group_samples // self.share).min())
        else:
            self.batches = int((-(-order.group_samples // self.share)).max())
        if not self.batches:
            raise ValueError(
                f"{order.samples} samples in {order.groups} group(s) do not fill one batch of {global_batch}; "
                "lower the batch size"
            )

    def slots(self, batch: int, rank: int = 0, world_size: int = 1) -> list[Slot]:
        """A process's slice of a global batch. The slices of all processes, one after the other, are the batch."""
        size = slice_size(self.global_batch, world_size)
        return [self._slot(batch, number) for number in range(rank * size, (rank + 1) * size)]

    def groups_of(self, rank: int, world_size: int) -> range:
        """The groups a process reads."""
        size = slice_size(self.global_batch, world_size)
        return range(rank * size // self.share, ((rank + 1) * size - 1) // self.share + 1)

    def _slot(self, batch: int, number: int) -> Slot:
        group, inside = divmod(number, self.share)
        offset, samples = batch * self.share + inside, int(self.order.group_samples[group])
        return Slot(group, offset % samples, counted=offset < samples)


def slice_size(global_batch: int, world_size: int) -> int:
    """Samples of each process in a global batch. ValueError where they do not share it evenly."""
    if world_size < 1 or global_batch % world_size:
        raise ValueError(
            f"the batch size counts all processes: {global_batch} cannot be shared evenly by {world_size}; "
            f"take a multiple of {world_size}"
        )
    return global_batch // world_size


def _deal(chunk_samples: np.ndarray, filled: np.ndarray, groups: int) -> list[np.ndarray]:
    """Chunks for each group, ascending, with sums of samples as equal as going from large to small makes them."""
    if groups == 1:
        return [filled]
    dealt: list[list[int]] = [[] for _ in range(groups)]
    loads = [(0, group) for group in range(groups)]
    for chunk in filled[np.argsort(-chunk_samples[filled], kind="stable")]:
        load, group = heapq.heappop(loads)
        dealt[group].append(int(chunk))
        heapq.heappush(loads, (load + int(chunk_samples[chunk]), group))
    return [np.array(sorted(chunks), dtype=np.int64) for chunks in dealt]


def _random(number: int, *key: int) -> np.ndarray:
    """uint64 [number]. Raw output of a seeded bit generator: NumPy promises that it never changes between versions,
    which it does not for `permutation` or `integers`."""
    entropy = np.array([part % 2**64 for part in key], dtype=np.uint64).view(np.uint32)
    return np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(number)


def _permutation(number: int, *key: int) -> np.ndarray:
    """int64 [number], every order equally likely."""
    return np.argsort(_random(number, *key), kind="stable")


def _coprime(start: int, size: int) -> int:
    """The first number from `start` on that shares no factor with `size`: steps of it visit everything."""
    stride = max(start, 1)
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride


def _forget(kept: OrderedDict, number: int) -> None:
    """Drops the oldest entries beyond a number."""
    while len(kept) > number:
        kept.popitem(last=False)
