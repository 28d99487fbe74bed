"""What engines do, whoever works: a job is what a worker does with a task, made where it works."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Do = Callable[[T], R]  # does one task; several threads call it at once
Job = Callable[[int], Do[T, R]]  # a worker's number -> what it does; small enough to be sent
Deadly = Callable[[T], list[T] | R]  # what stands for a task that kills whoever does it: smaller tasks, or a result
AT_ONCE = 3  # tasks a worker has in hand, so that it can read for one, compute another and write a third
DEATHS = 5  # of workers that were doing nothing else, until a task is held to be what kills them
HOPELESS = 4 * DEATHS  # of workers, before any has done a single task, until the engine gives up


def none_works() -> OSError:
    return OSError(
        f"{HOPELESS} workers ended before one had done anything, likely for want of memory; lower --devices (1 works "
        "in this process, and says what is wrong)"
    )


def sendable(error: BaseException) -> BaseException:
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
