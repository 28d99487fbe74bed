"""Where a stage's tasks are done: in this process, in processes of this machine, or by actors of a Ray cluster.

A stage hands over a job (what a worker does, made where it works) and its tasks. A worker that dies is started again,
and what it had in hand is done anew. What the tasks are, and that doing one twice does no harm, is the stage's.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

EngineKind = Literal["local", "ray"]
Do = Callable[[T], R]  # does one task; several threads call it at once
Job = Callable[[int], Do[T, R]]  # a worker's number -> what it does; small enough to be sent
AT_ONCE = 3  # tasks a worker has in hand, so that it can read for one, compute another and write a third
DEATHS = 5  # of workers that were doing nothing else, until a task is held to be what kills them


class WorkerDied(RuntimeError):
    """A worker ended before it had done its task."""


class Worker(Protocol):
    """One of several that do tasks somewhere else. What it answers of a task once it is dead: WorkerDied."""

    def submit(self, task: Any) -> Future: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Engine:
    """Who works."""

    workers: int
    cpus: int | None  # threads of each worker; None: it has this process to itself
    start: Callable[[Job, int], Worker] | None  # where they work; None: here
    in_hand: int = AT_ONCE  # tasks of each worker at once

    def run(self, job: Job[T, R], tasks: Iterable[T], deadly: Callable[[T], list[T] | R]) -> Iterator[R]:
        """What becomes of the tasks, in any order. They are asked for as workers get free.

        deadly: what stands for a task that kills whoever does it: smaller tasks, or a result. The first error that a
        task raises is raised here and ends it all.
        """
        if self.start is None:
            return _here(job, tasks, self.in_hand)
        start = self.start
        return _dispatch(lambda number: start(job, number), self.workers, iter(tasks), deadly, self.in_hand)


@contextmanager
def open_engine(
    kind: EngineKind, address: str | None, workers: int, on_gpus: bool | None, *, in_hand: int = AT_ONCE
) -> Iterator[Engine]:
    """workers: -1 for one on each GPU, or on each core where there are none. on_gpus: None where that is to be seen.
    address: of a running Ray cluster. in_hand: tasks of each worker at once. ValueError where what is asked for is not
    there."""
    if kind == "ray":
        with _cluster(address) as ray:
            yield _on_cluster(ray, workers, on_gpus, in_hand)
    elif workers == 1:
        yield Engine(1, None, None, in_hand)
    else:
        gpus = _gpus_here() if on_gpus is not False else 0
        cores = os.cpu_count() or 1
        workers = (gpus or cores) if workers < 0 else workers
        yield Engine(workers, max(cores // workers, 1), lambda job, number: _Process(job, number, in_hand), in_hand)


def in_order(results: Iterable[tuple[int, R]], first: int = 0) -> Iterator[R]:
    """The results of tasks numbered from `first` on, in the order of their numbers."""
    waiting: dict[int, R] = {}
    for number, result in results:
        waiting[number] = result
        while first in waiting:
            yield waiting.pop(first)
            first += 1


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def _on_cluster(ray: Any, workers: int, on_gpus: bool | None, in_hand: int) -> Engine:
    there = ray.cluster_resources()
    cores, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    needs_gpu = gpus > 0 if on_gpus is None else on_gpus
    workers = (gpus if needs_gpu else cores) if workers < 0 else workers
    if workers > (gpus if needs_gpu else cores) or not workers:
        raise ValueError(
            f"{max(workers, 1)} workers, and the Ray cluster has {gpus} GPUs and {cores} CPUs; ask for fewer "
            "(preprocess: --devices, and --device cpu where no GPU is wanted; the others: --workers)"
        )
    smallest = min(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    cpus = 1 if needs_gpu else max(min(cores // workers, smallest), 1)
    needs = {"num_cpus": cpus, "num_gpus": int(needs_gpu), "max_concurrency": in_hand}
    return Engine(workers, cpus, lambda job, number: _Actor(ray, job, number, needs), in_hand)


def _here(job: Job[T, R], tasks: Iterable[T], in_hand: int) -> Iterator[R]:
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

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.busy: dict[Future, Any] = {}
        self.is_trying = False  # doing one task alone, to see whether it is what kills


def _dispatch(
    start: Callable[[int], Worker], workers: int, tasks: Iterator[T], deadly: Callable[[T], list[T] | R], in_hand: int
) -> Iterator[R]:
    slots = [_Slot(start(number)) for number in range(workers)]
    suspects, deaths = deque[T](), Counter[str]()
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
                    slots[number] = _Slot(start(number))
                    slot.worker.close()
                for future in finished:
                    task = slot.busy.pop(future)
                    if not isinstance(future.exception(), WorkerDied):
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
            answer = (task_number, None, _sendable(error))
        with sending:
            pipe.send(answer)

    with ThreadPoolExecutor(in_hand) as pool:
        try:
            while True:
                pool.submit(do, *pipe.recv())
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone


def _sendable(error: BaseException) -> BaseException:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


class Server:
    """A worker where it works. Its job begins with the first task: what goes wrong then is that task's error."""

    def __init__(self, job: Job, number: int) -> None:
        self._job, self._number, self._lock = job, number, threading.Lock()
        self._do: Callable[[Any], Any] | None = None

    def do(self, task: Any) -> Any:
        with self._lock:
            if self._do is None:
                self._do = self._job(self._number)
        return self._do(task)


class _Actor:
    """A worker on a Ray cluster."""

    def __init__(self, ray: Any, job: Job, number: int, needs: dict[str, int]) -> None:
        self._ray = ray
        self._actor = ray.remote(Server).options(**needs).remote(job, number)

    def submit(self, task: Any) -> Future:
        future: Future = Future()
        self._actor.do.remote(task).future().add_done_callback(lambda answer: self._pass_on(answer, future))
        return future

    def _pass_on(self, answer: Future, future: Future) -> None:
        error = answer.exception()
        if error is None:
            future.set_result(answer.result())
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            future.set_exception(error.cause)
        elif isinstance(error, self._ray.exceptions.RayError):  # of the worker, its machine, or its memory
            future.set_exception(WorkerDied(str(error)))
        else:
            future.set_exception(error)

    def close(self) -> None:
        self._ray.kill(self._actor)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected. Without an address it joins what RAY_ADDRESS names, or begins with this machine alone."""
    ray = import_ray()
    if not ray.is_initialized():
        try:
            _knock(address or os.environ.get("RAY_ADDRESS", ""))
            ray.init(address, log_to_driver=False, logging_level="error", include_dashboard=False)
        except (OSError, ValueError, RuntimeError) as error:
            if "AuthenticationError" in f"{type(error)} {error} {error.__cause__}":
                raise ValueError(
                    f"the Ray cluster at {address or 'RAY_ADDRESS'} asks for its token: set RAY_AUTH_MODE=token, and "
                    "RAY_AUTH_TOKEN_PATH where it is not in ~/.ray/auth_token (or start the cluster with "
                    "RAY_AUTH_MODE=disabled)"
                ) from None
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"no Ray cluster answers at {address or 'RAY_ADDRESS'} ({reason}); start one with 'ray start --head', "
                "or leave --address out to work on this machine alone"
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()
    else:
        yield ray


def _knock(address: str) -> None:
    """OSError where nothing listens at host:port: Ray itself would try for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def import_ray() -> Any:
    """The package. ValueError says how to get it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers about each cluster
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ValueError("--engine ray needs Ray: pip install 'humanpose3d[ray]'; or say --engine local") from None
    return ray
