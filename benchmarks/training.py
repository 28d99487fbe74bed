"""Training steps on streamed batches beside the same steps on one cached batch: what the data costs a training.

    python benchmarks/training.py [--steps 40] [--rounds 5] [--json FILE] -- SETTINGS OF main.py
    python benchmarks/training.py -- --config configs/studio_demo.yaml --chunks-dir demo/chunks

The model, its loss, precision, augmentation and loader are those that main.py makes of the same settings; a step is
forward, backward and AdamW. Cached and streamed steps take turns; the cached batch is one of the stream's. A round's
steps begin with the loader's queue full, as it is in a training whose data are fast enough.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the commands do, before torch is imported

import torch

from humanpose3d.cli import parse
from humanpose3d.config import TrainConfig
from humanpose3d.dataset.chunked_dataset import StreamingLoader
from humanpose3d.sample import PoseBatch
from humanpose3d.starting import Start, starting_network
from humanpose3d.tasks import TASKS
from humanpose3d.tasks.devices import precision_of, train_device
from humanpose3d.training_sets import find_sets, training_loader, training_set

WARM_UP = 3  # steps
FILL_S = 2.0  # until the queue of batches is full


def endless(loader: StreamingLoader) -> Iterator[PoseBatch]:
    while True:
        yield from loader


def make_step(config: TrainConfig) -> tuple[Callable[[PoseBatch], None], Iterator[PoseBatch], dict[str, Any]]:
    """(a training step, the stream of batches, what they are)"""
    device = train_device(config.device)
    store, _ = find_sets(config)
    assert store is not None
    model, architecture = starting_network(Start(config, Path()), store, ())
    model.to(device).train()
    task = TASKS[architecture.model_type](architecture, config)
    precision = precision_of(config.precision, device, architecture.model_type)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate)
    loader = training_loader(config, training_set(config, store, architecture), architecture)

    def step(batch: PoseBatch) -> None:
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = task.training_scalars(model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    about = {
        "model": f"{architecture.model_type} {architecture.size}", "window": architecture.window,
        "precision": precision, "device": str(device), "batch_size": config.batch_size,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    return step, endless(loader), about


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="of a round, each way")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("settings", nargs=argparse.REMAINDER, help="after --: what main.py is to be told")
    args = parser.parse_args()
    config = parse(TrainConfig, args.settings[1:] if args.settings[:1] == ["--"] else args.settings, "main.py")
    step, stream, about = make_step(config)
    cached = next(stream)
    for _ in range(WARM_UP):
        step(cached)
    samples, rounds = args.steps * config.batch_size, []
    for _ in range(args.rounds):
        next(stream)
        time.sleep(FILL_S)
        begun, working = time.perf_counter(), time.process_time()
        for _ in range(args.steps):
            step(cached)
        between, worked = time.perf_counter(), time.process_time()
        for _ in range(args.steps):
            step(next(stream))
        ended, all_worked = time.perf_counter(), time.process_time()
        rounds.append(
            {
                "cached_per_s": samples / (between - begun),
                "streamed_per_s": samples / (ended - between),
                "ratio": (between - begun) / (ended - between),
                "cpu_ratio": (worked - working) / (all_worked - worked),
            }
        )
    middle = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    ratios = [found["ratio"] for found in rounds]
    print(f"{', '.join(f'{name} {value}' for name, value in about.items())}; {platform.platform()}\n")
    print("| samples/s cached | streamed | ratio (from - to) | of processor time |\n| --- | --- | --- | --- |")
    print(
        f"| {middle['cached_per_s']:.0f} | {middle['streamed_per_s']:.0f} | {middle['ratio']:.3f} "
        f"({min(ratios):.3f} - {max(ratios):.3f}) | {middle['cpu_ratio']:.3f} |"
    )
    if args.json:
        args.json.write_text(json.dumps({**about, "rounds": rounds, "median": middle}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
