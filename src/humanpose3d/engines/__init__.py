"""Where a stage's tasks are done: in this process, in processes of this machine, or by Ray Data on a cluster.

A stage hands over a job (what a worker does, made where it works) and its tasks. A worker that dies is started again,
and what it had in hand is done anew. What the tasks are, and that doing one twice does no harm, is the stage's.
work.py has what both kinds of workers share, local.py those of this machine, cluster.py Ray's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from humanpose3d.engines.cluster import import_ray as import_ray
from humanpose3d.engines.cluster import joined_cluster, run_on_ray
from humanpose3d.engines.local import run_here, run_in_processes
from humanpose3d.engines.work import AT_ONCE, Deadly, Job, R, T

EngineKind = Literal["local", "ray"]


@dataclass(frozen=True)
class Engine:
    """Who works."""

    workers: int
    cpus: int | None  # threads of each worker; None: it has this process to itself
    _run: Callable[[Job, Iterable, Deadly], Iterator]

    def run(self, job: Job[T, R], tasks: Iterable[T], deadly: Deadly[T, R]) -> Iterator[R]:
        """What becomes of the tasks, in any order. They are asked for as workers get free.

        deadly: what stands for a task that kills whoever does it: smaller tasks, or a result. The first error that a
        task raises is raised here and ends it all.
        """
        return self._run(job, tasks, deadly)


@contextmanager
def open_engine(
    kind: EngineKind, address: str | None, workers: int, on_gpus: bool | None, *, in_hand: int = AT_ONCE
) -> Iterator[Engine]:
    """workers: -1 for one on each GPU, or on each core where there are none. on_gpus: None where that is to be seen.
    address: of a running Ray cluster. in_hand: tasks of each worker at once. ValueError where what is asked for is not
    there."""
    if kind == "ray":
        with joined_cluster(address) as ray:
            yield _on_cluster(ray, workers, on_gpus, in_hand)
    elif workers == 1:
        yield Engine(1, None, lambda job, tasks, deadly: run_here(job, tasks, in_hand))
    else:
        gpus = _gpus_here() if on_gpus is not False else 0
        cores = os.cpu_count() or 1
        workers = (gpus or cores) if workers < 0 else workers
        yield Engine(workers, max(cores // workers, 1), partial(run_in_processes, workers=workers, in_hand=in_hand))


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
    needs = {"num_cpus": cpus, "num_gpus": int(needs_gpu)}
    return Engine(workers, cpus, partial(run_on_ray, ray, workers=workers, in_hand=in_hand, needs=needs))
