"""The order of an epoch: a function of (chunk sizes, seed, epoch) alone, found at any position without walking there.

Plain NumPy, no files: which sample is read comes from here, reading it is `chunked_dataset.py`'s.
"""

from __future__ import annotations

import heapq
import math
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

PATTERN = 10_000  # samples after which the pattern of a mix repeats itself: weights count in ten-thousandths
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

    def window_end(self, epoch: int, group: int, window: int) -> int:
        """The offset after a window's last."""
        return int(self._plan(epoch, group).window_starts[window + 1])

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
    epoch: int  # of the set that the sample is from; in a mix each set has its own
    set: int = 0  # position in the list of sets


class Window(NamedTuple):
    """Chunks of one set whose samples are being mixed."""

    set: int
    epoch: int  # the set's own
    group: int
    number: int


class GlobalBatches(ABC):
    """Fixed batches over the epochs of one or several `SampleOrder`s, shared evenly by processes.

    A batch takes `share` samples from each group, group by group.
    """

    batches: int  # of an epoch
    repeats: bool  # whether a set's first window follows its last one in the same epoch, or in the next

    def __init__(self, orders: Sequence[SampleOrder], global_batch: int) -> None:
        groups = orders[0].groups
        if global_batch < 1 or global_batch % groups:
            raise ValueError(f"the batch size ({global_batch}) must be a multiple of stream_groups ({groups})")
        self.orders, self.groups = tuple(orders), groups
        self.global_batch, self.share = global_batch, global_batch // groups

    def slots(self, epoch: int, batch: int, rank: int = 0, world_size: int = 1) -> list[Slot]:
        """A process's slice of a global batch. The slices of all processes, one after the other, are the batch."""
        size = slice_size(self.global_batch, world_size)
        numbers = range(rank * size, (rank + 1) * size)
        return [self._slot(epoch, batch, *divmod(number, self.share)) for number in numbers]

    def groups_of(self, rank: int, world_size: int) -> range:
        """The groups a process reads."""
        size = slice_size(self.global_batch, world_size)
        return range(rank * size // self.share, ((rank + 1) * size - 1) // self.share + 1)

    @abstractmethod
    def windows(self, epoch: int, batch: int, groups: Iterable[int]) -> list[Window]:
        """The windows of those groups that a batch is read from, or begins in; those left soonest come first."""

    def chunks(self, window: Window) -> np.ndarray:
        """int64: the chunks of a window, as positions in its set's list."""
        return self.orders[window.set].window_chunk_list(window.epoch, window.group, window.number)

    def after(self, window: Window) -> Window:
        """The window that its set and group are read from next."""
        if window.number + 1 < self.orders[window.set].windows(window.epoch, window.group):
            return window._replace(number=window.number + 1)
        return window._replace(epoch=window.epoch + (not self.repeats), number=0)

    @abstractmethod
    def _slot(self, epoch: int, batch: int, group: int, inside: int) -> Slot:
        """inside: 0 ... share - 1, in the group's part of the batch."""

    def _check_filled(self) -> None:
        if not self.batches:
            raise ValueError(
                f"{sum(order.samples for order in self.orders)} samples in {self.groups} group(s) do not fill one "
                f"batch of {self.global_batch}; lower the batch size"
            )


class BatchOrder(GlobalBatches):
    """Global batches over one `SampleOrder`: batch `b` takes the same fixed stretch of each group's epoch.

    Training drops the samples that fill no batch; evaluation repeats samples, marked, to fill the last one.
    """

    def __init__(self, order: SampleOrder, *, global_batch: int, drop_last: bool) -> None:
        super().__init__([order], global_batch)
        self.order, self.repeats = order, not drop_last
        if drop_last:
            self.batches = int((order.group_samples // self.share).min())
        else:
            self.batches = int((-(-order.group_samples // self.share)).max())
        self._check_filled()

    def windows(self, epoch: int, batch: int, groups: Iterable[int]) -> list[Window]:
        starts = [self._slot(epoch, batch, group, 0) for group in groups]
        return [Window(0, epoch, slot.group, self.order.window_of(epoch, slot.group, slot.offset)) for slot in starts]

    def _slot(self, epoch: int, batch: int, group: int, inside: int) -> Slot:
        offset, samples = batch * self.share + inside, int(self.order.group_samples[group])
        return Slot(group, offset % samples, offset < samples, epoch)


class MixOrder(GlobalBatches):
    """Global batches drawn from several sets by weight, in a fixed pattern that repeats itself.

    parts: how many of each `PATTERN` samples a set gives (`weights_to_parts`). Each set and group goes through epochs
    of its own, at its own pace: every sample comes exactly once in each, none is dropped, and an epoch of the mix, as
    many batches as the samples of all sets fill, goes on where the last one stopped.
    """

    repeats = False

    def __init__(self, orders: Sequence[SampleOrder], parts: Sequence[int], *, global_batch: int) -> None:
        super().__init__(orders, global_batch)
        self.batches = sum(order.samples for order in orders) // global_batch
        self._check_filled()
        self._parts = np.asarray(parts, dtype=np.int64)
        self._pattern = _interleaved(parts)
        counts = self._pattern[None, :] == np.arange(len(parts))[:, None]
        self._before = np.concatenate([np.zeros((len(parts), 1), np.int64), np.cumsum(counts, axis=1)], axis=1)

    def windows(self, epoch: int, batch: int, groups: Iterable[int]) -> list[Window]:
        found = []
        for group in groups:
            first = (epoch * self.batches + batch) * self.share
            for number, order in enumerate(self.orders):
                own_epoch, offset = self._own(number, group, self._drawn(number, group, first))
                window = order.window_of(own_epoch, group, offset)
                left = own_epoch * int(order.group_samples[group]) + order.window_end(own_epoch, group, window)
                # About when the set is through with it: the same for all batches that meet it.
                found.append((left / int(self._parts[number]), Window(number, own_epoch, group, window)))
        return [window for _, window in sorted(found)]

    def _slot(self, epoch: int, batch: int, group: int, inside: int) -> Slot:
        number = (epoch * self.batches + batch) * self.share + inside
        drawn_from = int(self._pattern[(self._phase(group) + number) % PATTERN])
        own_epoch, offset = self._own(drawn_from, group, self._drawn(drawn_from, group, number))
        return Slot(group, offset, True, own_epoch, drawn_from)

    def _phase(self, group: int) -> int:
        """Where in the pattern a group begins: the groups' parts of a batch are one stretch of it, so that a batch is
        mixed as it should be even where a group gives it a single sample."""
        return group * self.share

    def _drawn(self, number: int, group: int, slot: int) -> int:
        """Samples of a set among the first `slot` of a group, over all epochs."""
        first = self._phase(group)
        return self._among(number, first + slot) - self._among(number, first)

    def _among(self, number: int, length: int) -> int:
        """Samples of a set in the first `length` of the endless pattern."""
        rounds, rest = divmod(length, PATTERN)
        return rounds * int(self._parts[number]) + int(self._before[number, rest])

    def _own(self, number: int, group: int, position: int) -> tuple[int, int]:
        """(the set's own epoch, the offset in it)."""
        return divmod(position, int(self.orders[number].group_samples[group]))


def weights_to_parts(weights: Sequence[float]) -> list[int]:
    """Whole parts of `PATTERN` in proportion to the weights, at least one each, by largest remainders."""
    if not 0 < len(weights) <= PATTERN or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"weights must be above 0, one for each set, not {', '.join(map(str, weights)) or 'none'}")
    exact = np.asarray(weights, dtype=np.float64) / math.fsum(weights) * PATTERN
    parts = np.maximum(np.floor(exact), 1).astype(np.int64)
    while (missing := PATTERN - int(parts.sum())) != 0:
        parts[np.argmax(exact - parts) if missing > 0 else np.argmax(parts)] += 1 if missing > 0 else -1
    return [int(part) for part in parts]


def _interleaved(parts: Sequence[int]) -> np.ndarray:
    """int64 [PATTERN]: the numbers of the sets, each as often as its parts say, and spread as evenly as can be.

    Every prefix has of each set less than one more or fewer than its share. The set with the largest deficit first
    would not do: with many sets it can be off by more than one. So each sample has a time before which it
    is not drawn, and the one with the earliest deadline is taken: with whole times and full use a schedule that exists
    is found (Still, A class of new methods for congressional apportionment, 1979; Baruah et al., Proportionate
    progress, 1996).
    """
    waiting: list[tuple[int, int, int]] = []  # deadline, set, samples of it until then: may be drawn now
    coming = [(0, _deadline(1, part), number, 1) for number, part in enumerate(parts)]  # and those that may not yet
    heapq.heapify(coming)
    pattern = np.empty(PATTERN, dtype=np.int64)
    for position in range(PATTERN):
        while coming and coming[0][0] <= position:
            heapq.heappush(waiting, heapq.heappop(coming)[1:])
        _, number, count = heapq.heappop(waiting)
        pattern[position] = number
        heapq.heappush(
            coming, (count * PATTERN // parts[number], _deadline(count + 1, parts[number]), number, count + 1)
        )
    return pattern


def _deadline(count: int, part: int) -> int:
    """The length of the first prefix that must have `count` samples of a set."""
    return -(-count * PATTERN // part)


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
