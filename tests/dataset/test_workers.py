"""Threads that fill batches: in order, no further ahead than asked, gone when nobody needs them."""

import gc
import threading
import time

import pytest

from humanpose3d.dataset.workers import ROWS_AT_A_TIME, ThreadWorkers

SIZE = 2 * ROWS_AT_A_TIME + 3


class Batch:
    """Notes who filled which row; row 0 takes its time, so that later batches could overtake."""

    def __init__(self, epoch: int, batch: int, fault: BaseException | None = None, seconds: float = 0.0) -> None:
        self.size, self.position, self.fault, self.seconds = SIZE, (epoch, batch), fault, seconds
        self.rows: list[str | None] = [None] * SIZE

    def fill(self, rows: range) -> None:
        for row in rows:
            if self.fault is not None and row == SIZE - 1:
                raise self.fault
            time.sleep(self.seconds if row == 0 else 0.0)
            assert self.rows[row] is None
            self.rows[row] = threading.current_thread().name

    def finish(self):
        return self.position, list(self.rows)


class Begun:
    """Counts the batches begun."""

    def __init__(self, **changes) -> None:
        self.number, self.changes = 0, changes

    def __call__(self, epoch: int, batch: int) -> Batch:
        self.number += 1
        return Batch(epoch, batch, **self.changes)


def positions(number: int) -> list[tuple[int, int]]:
    return [(0, batch) for batch in range(number)]


def decoders() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("decoder")}


def wait_until(condition) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_batches_come_whole_and_in_order(threads):
    workers = ThreadWorkers(Begun(seconds=0.002), threads, 3)
    found = list(workers.run(positions(20)))
    assert [position for position, _ in found] == positions(20)
    names = {name for _, rows in found for name in rows}
    assert None not in names and (len(names) > 1 or threads < 2)
    workers.close()


@pytest.mark.parametrize(("threads", "ahead"), [(0, 2), (3, 1), (3, 4)])
def test_a_slow_consumer_has_no_more_made_ahead_than_asked(threads, ahead):
    begin = Begun()
    workers = ThreadWorkers(begin, threads, ahead)
    for handed_out, _ in enumerate(workers.run(positions(30)), 1):
        time.sleep(0.01)
        assert begin.number <= handed_out + (ahead if threads else 0)
    workers.close()


def test_an_error_is_raised_where_its_batch_is_asked_for():
    def begin(epoch, batch):
        return Batch(epoch, batch, fault=KeyError("x") if batch == 2 else None)

    workers = ThreadWorkers(begin, 2, 2)
    run = workers.run(positions(6))
    assert [next(run)[0], next(run)[0]] == [(0, 0), (0, 1)]
    with pytest.raises(KeyError):
        next(run)
    assert len(list(workers.run(positions(2)))) == 2, "the threads go on"
    workers.close()


def test_threads_end_with_close_and_with_their_owner():
    before = decoders()  # of other tests, ending
    workers = ThreadWorkers(Begun(), 2, 2)
    next(workers.run(positions(5)))
    assert len(decoders() - before) == 2
    workers.close()
    wait_until(lambda: not decoders() - before)
    forgotten = ThreadWorkers(Begun(), 2, 2)
    next(forgotten.run(positions(5)))
    assert len(decoders() - before) == 2
    del forgotten
    gc.collect()
    wait_until(lambda: not decoders() - before)


def test_what_was_made_ahead_of_an_abandoned_run_is_dropped():
    workers = ThreadWorkers(Begun(seconds=0.001), 2, 4)
    for _ in range(20):
        run = workers.run(positions(10))
        assert next(run)[0] == (0, 0)
        run.close()
    assert [position for position, _ in workers.run(positions(10))] == positions(10)
    workers.close()
