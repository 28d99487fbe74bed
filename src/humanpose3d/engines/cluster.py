"""Tasks done on a Ray cluster, by a Ray Data pipeline: tasks -> a pool of actors that hold the job -> answers.

Ray Data starts the actors, hands blocks to them as they get free, starts again what dies and does its blocks anew. What
is ours: a block is one task, handed out when a worker has room for it, so that no listing runs ahead of the work; a
task that was in hand when its worker died is done alone from then on, and one that kills its worker again and again is
given up, by name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from humanpose3d.engines.work import DEATHS, HOPELESS, Deadly, Job, R, Server, T, none_works, sendable

if TYPE_CHECKING:
    import pyarrow as pa

AHEAD = 2  # tasks handed out for each that workers have in hand: they travel while others are done
DONE = b""  # instead of a task that was answered, where a dealer that was started again asks for it


def run_on_ray(
    ray: Any,
    job: Job[T, R],
    tasks: Iterable[T],
    deadly: Deadly[T, R],
    *,
    workers: int,
    in_hand: int,
    needs: dict[str, int],
) -> Iterator[R]:
    """What becomes of the tasks, in any order. needs: num_cpus and num_gpus of a worker."""
    node = ray.get_runtime_context().get_node_id()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    desk = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here).remote()
    tasks, numbers, again = iter(tasks), count(), deque[T]()
    waiting: dict[int, T] = {}
    in_vain: int | None = 0  # workers that died; None once a task is done

    def hand_out() -> None:
        """Fills up what is waiting; after the last answer says that no more will come."""
        while len(waiting) < AHEAD * in_hand * workers:
            try:
                task = again.popleft() if again else next(tasks)
            except StopIteration:
                break
            number = next(numbers)
            waiting[number] = task
            ray.get(desk.give.remote(pickle.dumps((number, task))))
        if not waiting:
            ray.get(desk.end.remote())

    try:
        hand_out()
        for number, answer, error in _answers(ray, desk, node, job, workers, in_hand, needs):
            if number not in waiting:
                continue  # a block that was done anew though its answer had come
            task = waiting.pop(number)
            ray.get(desk.forget.remote(number))
            if error is None:
                in_vain = None
                hand_out()
                yield answer
            elif isinstance(error, _Deadly):
                in_vain = None if in_vain is None else in_vain + DEATHS
                if in_vain == HOPELESS:
                    raise none_works()
                instead = deadly(task)
                again.extend(instead if isinstance(instead, list) else ())
                hand_out()
                if not isinstance(instead, list):
                    yield instead
            else:
                raise error
    finally:
        ray.kill(desk)


def _answers(
    ray: Any, desk: Any, node: str, job: Job, workers: int, in_hand: int, needs: dict[str, int]
) -> Iterator[tuple[int, Any, BaseException | None]]:
    """The pipeline's: a task's number, and what became of it."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the stages have their own
    context.target_max_block_size = 1  # a block holds one task, or one answer
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    pool = ray.data.ActorPoolStrategy(
        size=workers, max_tasks_in_flight_per_actor=in_hand, max_concurrent_calls_per_actor=in_hand,
        enable_true_multi_threading=True,
    )  # fmt: skip
    dealt = ray.data.read_datasource(
        _dealer(desk), override_num_blocks=1, num_cpus=0, label_selector={"ray.io/node-id": node}
    )
    done = dealt.map_batches(
        RayWorker,
        fn_constructor_args=(desk, job, os.getcwd()),
        batch_size=None,
        batch_format="pyarrow",
        compute=pool,
        **needs,
    )
    for block in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for answer in block["answer"]:
            yield pickle.loads(answer.as_py())


def _dealer(desk: Any) -> Any:
    """A source of Ray Data's whose one reader asks the desk for task after task."""
    import pyarrow as pa
    import ray
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def read() -> Iterator[pa.Table]:
        for place in count():
            task = ray.get(desk.task.remote(place))
            if task is None:
                return
            yield pa.table({"task": [task]})

    class Tasks(Datasource):
        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(read, unknown)]

    return Tasks()


class Desk:
    """An actor where tasks lie until they are answered, in the order in which they came: a dealer that is started again
    gets the same ones in the same places. It also counts how often each was begun."""

    def __init__(self) -> None:
        self._tasks: dict[int, bytes] = {}  # by place, which is the task's number too
        self._given, self._begun = 0, Counter[int]()
        self._is_over, self._news = False, asyncio.Condition()

    async def give(self, task: bytes) -> None:
        async with self._news:
            self._tasks[self._given] = task
            self._given += 1
            self._news.notify_all()

    async def end(self) -> None:
        async with self._news:
            self._is_over = True
            self._news.notify_all()

    async def task(self, place: int) -> bytes | None:
        """The one that came as number `place`, once it has; None if none will."""
        async with self._news:
            await self._news.wait_for(lambda: place < self._given or self._is_over)
        return self._tasks.get(place, DONE) if place < self._given else None

    async def forget(self, number: int) -> None:
        self._tasks.pop(number, None)
        self._begun.pop(number, None)

    async def times_begun(self, number: int) -> int:
        return self._begun[number]

    async def begin(self, number: int) -> None:
        self._begun[number] += 1


class RayWorker:
    """What an actor of the pool does with blocks, in several threads at once."""

    def __init__(self, desk: Any, job: Job, folder: str) -> None:
        """folder: that the command was given in, from which its relative paths lead; here it may be missing."""
        if os.path.isdir(folder):
            os.chdir(folder)
        self._desk, self._server, self._floor = desk, Server(job, 0), _Floor()

    def __call__(self, block: pa.Table) -> pa.Table:
        import pyarrow as pa

        tasks = [task.as_py() for task in block["task"]]
        return pa.table({"answer": pa.array([self._do(task) for task in tasks if task != DONE], pa.binary())})

    def _do(self, packed: bytes) -> bytes:
        import ray

        number, task = pickle.loads(packed)
        begun = ray.get(self._desk.times_begun.remote(number))
        if begun > DEATHS:  # once beside others, then alone
            return pickle.dumps((number, None, _Deadly()))
        with self._floor.alone() if begun else self._floor.shared():
            ray.get(self._desk.begin.remote(number))
            try:
                return pickle.dumps((number, self._server.do(task), None))
            except BaseException as error:
                return pickle.dumps((number, None, sendable(error)))


class _Deadly(Exception):
    """The task killed its worker DEATHS times while it was doing nothing else."""


class _Floor:
    """Who works at the same time: several, or one alone."""

    def __init__(self) -> None:
        self._here, self._waiting, self._change = 0, 0, threading.Condition()

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._change:
            self._change.wait_for(lambda: self._here >= 0 and not self._waiting)
            self._here += 1
        try:
            yield
        finally:
            with self._change:
                self._here -= 1
                self._change.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._change:
            self._waiting += 1
            self._change.wait_for(lambda: self._here == 0)
            self._waiting -= 1
            self._here = -1
        try:
            yield
        finally:
            with self._change:
                self._here = 0
                self._change.notify_all()


@contextmanager
def joined_cluster(address: str | None) -> Iterator[Any]:
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
            raise ValueError(
                f"no Ray cluster answers at {address or 'RAY_ADDRESS'} ({_first_line(error)}); start one with "
                "'ray start --head', or leave --address out to work on this machine alone"
            ) from None
        try:
            yield ray
        except ray.exceptions.RayError as error:
            raise OSError(
                f"the Ray cluster broke off ({_first_line(error)}); what was done is kept, start the same command again"
            ) from None
        finally:
            ray.shutdown()
    else:
        yield ray


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _knock(address: str) -> None:
    """OSError where nothing listens at host:port: Ray itself would try for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def import_ray() -> Any:
    """The package. ValueError says how to get it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers about each cluster
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong comes as an exception too
    try:
        import ray.data  # with pyarrow
        import ray.exceptions
    except ImportError:
        raise ValueError("--engine ray needs Ray Data: pip install 'humanpose3d[ray]'; or say --engine local") from None
    return ray
