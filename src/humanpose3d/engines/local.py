"""Tasks done in this process, or in processes of this machine that are started again when they die."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import count
from multiprocessing import get_context
from typing import Any

from humanpose3d.engines.work import DEATHS, HOPELESS, Deadly, Job, R, Server, T, none_works, sendable


class WorkerDied(RuntimeError):
    """A worker ended before it had done its task."""


def run_here(job: Job[T, R], tasks: Iterable[T], in_hand: int) -> Iterator[R]:
    """What becomes of the tasks, in their order."""
    do, waiting, pool = job(0), deque[Future[R]](), ThreadPoolExecutor(in_hand)
    try:
        for task in tasks:
            waiting.append(pool.submit(do, task))
            if len(waiting) >= in_hand:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Slot:
    """A worker, and what it has in hand."""

    def __init__(self, worker: _Process) -> None:
        self.worker = worker
        self.busy: dict[Future, Any] = {}
        self.is_trying = False  # doing one task alone, to see whether it is what kills


def run_in_processes(
    job: Job[T, R], tasks: Iterable[T], deadly: Deadly[T, R], *, workers: int, in_hand: int
) -> Iterator[R]:
    """What becomes of the tasks, in any order."""

    def start(number: int) -> _Slot:
        return _Slot(_Process(job, number, in_hand))

    tasks, slots = iter(tasks), [start(number) for number in range(workers)]
    suspects, deaths = deque[T](), Counter[str]()
    in_vain: int | None = 0  # workers that died; None once a task is done
    try:
        while True:
            for slot in slots:
                _fill(slot, suspects, tasks, in_hand)
            busy = [future for slot in slots for future in slot.busy]
            if not busy:
                return
            done, _ = wait(busy, return_when=FIRST_COMPLETED)
            for number, slot in enumerate(slots):
                finished = list(done & slot.busy.keys())
                if any(isinstance(future.exception(), WorkerDied) for future in finished):
                    finished = list(slot.busy)  # they all end now, and some of them well
                    wait(finished)
                    slot.worker.close()
                    in_vain = None if in_vain is None else in_vain + 1
                    if in_vain == HOPELESS:
                        raise none_works()
                    slots[number] = start(number)
                for future in finished:
                    task = slot.busy.pop(future)
                    if not isinstance(future.exception(), WorkerDied):
                        in_vain = None
                        yield future.result()
                        continue
                    # One that was alone is to blame; several are tried one by one.
                    deaths[repr(task)] += slot.is_trying
                    instead = [task] if deaths[repr(task)] < DEATHS else deadly(task)
                    if isinstance(instead, list):
                        suspects.extend(instead)
                    else:
                        yield instead
    finally:
        for slot in slots:
            slot.worker.close()


def _fill(slot: _Slot, suspects: deque[T], tasks: Iterator[T], in_hand: int) -> None:
    """Gives a worker what it can take: a suspect alone, else tasks until it has its number in hand."""
    if not slot.busy:
        slot.is_trying = bool(suspects)
        if suspects:
            task = suspects.popleft()
            slot.busy[slot.worker.submit(task)] = task
    while not slot.is_trying and len(slot.busy) < in_hand:
        if suspects:
            return  # soon it has nothing in hand, and takes one
        try:
            task = next(tasks)
        except StopIteration:
            return
        slot.busy[slot.worker.submit(task)] = task


class _Process:
    """A worker in a process of this machine."""

    def __init__(self, job: Job, number: int, in_hand: int) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, job, number, in_hand), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is heard here
        self._lock, self._numbers = threading.Lock(), count()
        self._waiting: dict[int, Future] | None = {}  # None once it is dead
        threading.Thread(target=self._listen, daemon=True).start()

    def submit(self, task: Any) -> Future:
        future: Future = Future()
        with self._lock:
            if self._waiting is None:
                future.set_exception(WorkerDied())
                return future
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                self._pipe.send((number, task))
            except OSError:
                pass  # it has died, and `_listen` says so
        return future

    def _listen(self) -> None:
        try:
            while True:
                number, result, error = self._pipe.recv()
                with self._lock:
                    assert self._waiting is not None
                    future = self._waiting.pop(number)
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        except (EOFError, OSError, pickle.UnpicklingError):
            with self._lock:
                lost, self._waiting = self._waiting or {}, None
            for future in lost.values():
                future.set_exception(WorkerDied())

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _serve(pipe: Any, job: Job, number: int, in_hand: int) -> None:
    """A worker process's whole life."""
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    server, sending = Server(job, number), threading.Lock()

    def do(task_number: int, task: Any) -> None:
        answer: tuple[int, Any, BaseException | None]
        try:
            answer = (task_number, server.do(task), None)
        except BaseException as error:
            answer = (task_number, None, sendable(error))
        with sending:
            pipe.send(answer)

    with ThreadPoolExecutor(in_hand) as pool:
        try:
            while True:
                pool.submit(do, *pipe.recv())
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone
