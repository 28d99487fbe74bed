"""Who makes the batches, and how far ahead of the consumer: this thread, threads beside it, or worker processes."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

ROWS_AT_A_TIME = 8  # of a batch that a thread takes: enough to hide the hand-over, few enough for an early first batch

Position = tuple[int, int]  # epoch, batch


class BatchInTheMaking(Protocol):
    """One batch, filled row by row, in any order and by several threads."""

    size: int

    def fill(self, rows: range) -> None: ...

    def finish(self) -> Any:
        """What is handed out; an error that the user is to see is a value, not an exception."""


Begin = Callable[[int, int], BatchInTheMaking]  # epoch, batch -> the batch, all its rows empty


def make(begin: Begin, position: Position) -> Any:
    """One batch, here and now."""
    batch = begin(*position)
    batch.fill(range(batch.size))
    return batch.finish()


class Workers(Protocol):
    """Makers of batches. Iterating anew drops what was made ahead."""

    def run(self, positions: Iterable[Position]) -> Iterator[Any]: ...

    def close(self) -> None: ...


class ThreadWorkers:
    """Threads of this process that share the rows of each batch; `ahead` batches are made ahead of the consumer.

    With no threads, batches are made as they are asked for. Decoders release the interpreter's lock while they work,
    nothing is copied between processes, and nothing needs to be started.
    """

    def __init__(self, begin: Begin, threads: int, ahead: int) -> None:
        self._begin, self._ahead, self._number = begin, ahead if threads else 0, threads
        self._parts: queue.SimpleQueue[tuple[_Task, range] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, positions: Iterable[Position]) -> Iterator[Any]:
        if not self._number:
            yield from (make(self._begin, position) for position in positions)
            return
        self._start_threads()
        pending: deque[_Task] = deque()
        try:
            for position in positions:
                pending.append(self._submit(position))
                if len(pending) > self._ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for task in pending:
                task.cancel()

    def close(self) -> None:
        """Ends the threads after the rows they are at; does not wait for them."""
        for _ in self._threads:
            self._parts.put(None)
        self._threads = []

    def _start_threads(self) -> None:
        if self._threads:
            return
        cv2.setNumThreads(0)  # these threads are the parallelism
        parts = self._parts = queue.SimpleQueue()
        # Daemons: a program that ends in mid-epoch does not wait for a chunk from a slow drive.
        self._threads = [
            threading.Thread(target=_work, args=(parts,), daemon=True, name=f"decoder-{number}")
            for number in range(self._number)
        ]
        for thread in self._threads:
            thread.start()
        weakref.finalize(self, _end, parts, self._number).atexit = False

    def _submit(self, position: Position) -> _Task:
        batch = self._begin(*position)
        rows = [range(first, min(first + ROWS_AT_A_TIME, batch.size)) for first in range(0, batch.size, ROWS_AT_A_TIME)]
        task = _Task(batch, len(rows))
        for part in rows:
            self._parts.put((task, part))
        return task


class _Task:
    """A batch whose rows are being filled by threads; the one that fills the last finishes it."""

    def __init__(self, batch: BatchInTheMaking, parts: int) -> None:
        self._batch, self._parts = batch, parts
        self._lock, self._is_done = threading.Lock(), threading.Event()
        self._is_cancelled = False
        self._result: Any = None
        self._error: BaseException | None = None

    def result(self) -> Any:
        """Waits for it."""
        self._is_done.wait()
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        self._is_cancelled = True

    def run(self, rows: range) -> None:
        try:
            if not self._is_cancelled and self._error is None:
                self._batch.fill(rows)
        except BaseException as error:  # raised again where the batch is asked for
            self._error = error
        with self._lock:
            self._parts -= 1
            is_last = self._parts == 0
        if is_last:
            self._finish()

    def _finish(self) -> None:
        try:
            if not self._is_cancelled and self._error is None:
                self._result = self._batch.finish()
        except BaseException as error:
            self._error = error
        self._is_done.set()


def _work(parts: queue.SimpleQueue) -> None:
    while (part := parts.get()) is not None:
        task, rows = part
        task.run(rows)
        del part, task  # a waiting thread keeps no batch alive


def _end(parts: queue.SimpleQueue, threads: int) -> None:
    for _ in range(threads):
        parts.put(None)


class ProcessWorkers:
    """Worker processes, a whole batch each, `ahead` batches each: for transforms that keep the interpreter busy."""

    def __init__(self, begin: Begin, processes: int, ahead: int) -> None:
        self._sequence = _Sequence()
        self._loader = DataLoader(
            _Batches(begin),
            batch_size=None,  # an item is a whole batch
            sampler=self._sequence,
            collate_fn=_as_it_is,
            num_workers=processes,
            prefetch_factor=ahead,
            persistent_workers=True,
            multiprocessing_context=_worker_context(),
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # of its own: the global one's state must not depend on how often we iterate
        )

    def run(self, positions: Iterable[Position]) -> Iterator[Any]:
        self._sequence.positions = positions
        return iter(self._loader)

    def close(self) -> None:
        iterator: Any = self._loader._iterator
        if iterator is not None:
            # As Lightning does it: left to the garbage collector, workers may wait 5 s each for a queue that has gone.
            iterator._shutdown_workers()
            self._loader._iterator = None


class _Batches(Dataset):
    """Batches made where the DataLoader asks for them."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin

    def __getitem__(self, position: Position) -> Any:
        return make(self._begin, position)


class _Sequence(Sampler[Position]):
    """The positions of one run."""

    def __init__(self) -> None:
        self.positions: Iterable[Position] = ()

    def __iter__(self) -> Iterator[Position]:
        return iter(self.positions)


def _worker_context() -> Any:
    """How workers start. Not by fork: the training process has threads (torch, CUDA, prefetching), and a lock that one
    of them holds stays locked in a forked child for good. A fork server imports torch once and forks from there."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["humanpose3d.dataset.chunked_dataset"])
    return context


def _start_worker(number: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism


def _as_it_is(answer: Any) -> Any:
    return answer
