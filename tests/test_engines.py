"""Tasks and those who do them: each task once, whatever dies, and errors as they were raised."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from humanpose3d.engines import AT_ONCE, Engine, open_engine


@dataclass(frozen=True)
class Note:
    """Leaves a file for each task; kills its process over task 13, and fails over "bad"."""

    folder: Path

    def __call__(self, worker: int) -> Callable[[int | str], tuple[int | str, int]]:
        def do(task: int | str) -> tuple[int | str, int]:
            if task == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            if task == "bad":
                raise ValueError("bad is not done here")
            time.sleep(0.02)
            (self.folder / str(task)).touch()
            return task, os.getpid()

        return do


@pytest.fixture(params=[1, 2])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with open_engine("local", None, request.param, False) as opened:
        yield opened


def left_out(task: int | str) -> tuple[int | str, int]:
    return f"not {task}", 0


def test_every_task_is_done_once(engine: Engine, tmp_path: Path) -> None:
    done = Counter(task for task, _ in engine.run(Note(tmp_path), range(20, 40), left_out))
    assert done == Counter(range(20, 40)) == Counter(int(path.name) for path in tmp_path.iterdir())


def test_tasks_are_asked_for_as_workers_get_free(engine: Engine, tmp_path: Path) -> None:
    numbers = iter(range(10**9))
    results = engine.run(Note(tmp_path), numbers, left_out)
    for _ in range(10):
        next(results)
    assert next(numbers) <= 10 + AT_ONCE * engine.workers
    results.close()  # type: ignore[attr-defined]


def test_an_error_is_raised_as_it_was(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad is not done here"):
        list(engine.run(Note(tmp_path), [1, "bad", 2], left_out))


def test_a_task_that_kills_its_worker_is_left_out_and_the_others_are_done(tmp_path: Path) -> None:
    with open_engine("local", None, 2, False) as engine:
        done = Counter(task for task, _ in engine.run(Note(tmp_path), range(8, 20), left_out))
    assert done == Counter([*range(8, 13), "not 13", *range(14, 20)])


def test_workers_that_cannot_start_are_not_started_for_ever(tmp_path: Path) -> None:
    with open_engine("local", None, 2, False) as engine, pytest.raises(OSError, match="20 workers ended before one"):
        list(engine.run(Dying(), [range(start, start + 8) for start in range(0, 800, 8)], list))


@dataclass(frozen=True)
class Dying:
    """A job that has no room to begin."""

    def __call__(self, worker: int) -> Callable[[range], range]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_task_that_kills_may_be_cut_into_smaller_ones(tmp_path: Path) -> None:
    with open_engine("local", None, 2, False) as engine:
        done = {task for task, _ in engine.run(Note(tmp_path), [13, 1], lambda task: [2, 3] if task == 13 else task)}
    assert done == {1, 2, 3}


def test_workers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    pids: set[int] = set()
    killed = 0
    with open_engine("local", None, 2, False) as engine:
        done = Counter[int | str]()
        for task, pid in engine.run(Note(tmp_path), range(100, 200), left_out):
            done[task] += 1
            if done.total() % 15 == 0:
                threading.Thread(target=os.kill, args=(pid, signal.SIGKILL)).start()
                killed += 1
            pids.add(pid)
    assert killed >= 6 and len(pids) > 2 and done == Counter(range(100, 200))


def test_as_many_workers_as_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    with open_engine("local", None, -1, False) as engine:
        assert (engine.workers, engine.cpus) == (6, 1)
    with open_engine("local", None, 2, False) as engine:
        assert (engine.workers, engine.cpus) == (2, 3)
