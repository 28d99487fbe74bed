"""The lifter beside the floor: a plain residual MLP that sees the same, for as many samples.

    python benchmarks/accuracy.py --chunks-dir ROOT [--samples 500000] [--use-depth] [--json FILE] [--quick]

ROOT holds train/ and test/ (or val/). Both see keypoints in the virtual camera turned onto the person (and depth around
them with --use-depth), the same batches with the same changes, and are optimised alike, with a cosine schedule and a
running mean of the weights; of the MLP's learning rates the best counts. The floor is that of Martinez et al. 2017
(1,024 wide, two blocks of two layers, batch norm), which sees keypoints alone; with --use-depth the lifter, and a floor
that is told of depth too, run with it and without, for what depth is worth.
Figures in mm on the validation chunks: as stored, and with a detector's errors where the stored keypoints are exact.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from humanpose3d.config import AugmentationConfig, LossWeights
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.keypoint_batches import KeypointDecoder
from humanpose3d.model_config import LifterConfig, ModelConfig, model_config
from humanpose3d.models import PosePrediction, build_model
from humanpose3d.models.lifter import TYPICAL_SPREAD_M, place_root, turn, turn_onto_person
from humanpose3d.remotes import open_store
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton
from humanpose3d.tasks.evaluation import evaluate
from humanpose3d.tasks.lifting import LiftingTask
from humanpose3d.tasks.training import ema_decay, follow, warm_up_cosine

WIDTH, BLOCKS = 1024, 2  # of the floor
FLOOR_RATES = (3e-4, 1e-3, 3e-3)
LIFTER_RATE = 2e-3
BLIND = " without depth"
WEIGHT_DECAY, CLIP_NORM, EMA = 0.05, 1.0, 0.999
# AdamW's, and the warm-up's share of the steps: with 0.999 and 0.05 a short training at 3e-3 goes astray.
BETAS, WARM_UP = (0.9, 0.95), 0.2
WEIGHTS = LossWeights(mse=1.0, l1=10.0, inter_joint=0.0, absolute_root=1.0)
QUICK_SAMPLES = 20_000
SCORES = ("mpjpe_mm", "pa_mpjpe_mm", "root_error_mm")


class Floor(nn.Module):
    """PoseBatch -> PosePrediction through one wide vector."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.use_depth = config.use_depth
        skeleton, inputs = get_skeleton(config.skeleton), len(get_skeleton(config.keypoint_skeleton))
        self.root_index = skeleton.root_index
        features = 4 * inputs + 1 + (3 * inputs + 2 if config.use_depth else 0)
        self.enter = _layer(features, WIDTH)
        self.blocks = nn.ModuleList(nn.Sequential(_layer(WIDTH, WIDTH), _layer(WIDTH, WIDTH)) for _ in range(BLOCKS))
        self.joints = nn.Linear(WIDTH, 3 * len(skeleton))
        self.root = nn.Linear(WIDTH, 5)
        for last in (self.joints, self.root):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    def forward(self, batch: PoseBatch) -> PosePrediction:
        view = turn_onto_person(batch, use_depth=self.use_depth)
        known = view.joint_known[..., None].float()
        features = [torch.cat([view.joints, view.score[..., None], known], dim=-1).flatten(1), view.spread.log()]
        if self.use_depth:
            relative = (view.depth_m - view.person_depth_m[:, None]) * view.depth_known
            depths = torch.stack([relative, view.depth_spread_m, view.depth_known.float()], dim=-1)
            has_depth = view.person_depth_m > 0
            size = (view.person_depth_m * view.spread[:, 0]).clamp(min=1e-3).log().where(has_depth, 0.0)
            features += [depths.clamp(-1.0, 1.0).flatten(1), size[:, None], has_depth[:, None].float()]
        hidden = self.enter(torch.cat(features, dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        joints_m = TYPICAL_SPREAD_M * self.joints(hidden).unflatten(1, (-1, 3))
        joints_m = joints_m - joints_m[:, self.root_index, None]
        root_m = place_root(self.root(hidden), view)
        return PosePrediction(turn(joints_m, view.to_camera), turn(root_m[:, None], view.to_camera)[:, 0])


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())


class Data:
    """Batches for training, of any number, and for validation with and without a detector's errors."""

    def __init__(self, root: str, config: LifterConfig, batch_size: int, cache_dir: Path) -> None:
        store = open_store(root)
        held_out = next(name for name in ("val", "test") if name in store.folders())
        options: dict[str, Any] = {"depth": config.use_depth, "window": config.window}
        names = (config.skeleton, config.keypoint_skeleton)

        def loader(part: str, training: bool, **changes: Any) -> StreamingLoader:
            dataset = StreamingChunkedDataset(store.child(part), seed=0, cache_dir=cache_dir, shuffle=training)
            decoder = KeypointDecoder(*names, **options, **changes)
            return StreamingLoader(
                dataset, global_batch=batch_size, decoder=decoder, training=training, num_workers=1, prefetch=4
            )

        self._training = lambda: loader("train", True, augmentation=AugmentationConfig(rotation_deg=10.0))
        self.clean = loader(held_out, False)
        self.noisy = loader(held_out, False, noise=1.0)

    def training(self, steps: int) -> Iterator[PoseBatch]:
        """The same batches for every model."""

        def endless() -> Iterator[PoseBatch]:
            batches = self._training()
            while True:
                yield from batches

        return islice(endless(), steps)


def train(model: nn.Module, task: LiftingTask, data: Data, steps: int, rate: float) -> tuple[nn.Module, float]:
    """(the running mean of the trained model, samples a second)"""
    mean = copy.deepcopy(model).requires_grad_(False)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up_cosine(step, int(WARM_UP * steps), steps)
    )
    samples, started = 0, time.perf_counter()
    for step, batch in enumerate(data.training(steps)):
        loss = task.loss(task.predict(model, batch), batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        follow(mean, model, ema_decay(step, EMA))
        samples += len(batch)
    return mean.eval(), samples / (time.perf_counter() - started)


def score(model: nn.Module, task: LiftingTask, data: Data) -> dict[str, float]:
    """SCORES, and with " noisy" those under a detector's errors."""
    found: dict[str, float] = {}
    with torch.inference_mode():
        for ending, batches in (("", data.clean), (" noisy", data.noisy)):
            values = evaluate(model, task, batches).values
            found |= {name + ending: values[name] for name in SCORES}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks-dir", required=True, help="folder or remote:path with train/ and test/ (or val/)")
    parser.add_argument("--samples", type=int, default=500_000, help="that each model sees")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--model-size", default="base", help="of the lifter")
    parser.add_argument("--window", type=int, default=1, help="frames the lifter sees; the floor sees one")
    parser.add_argument("--use-depth", action="store_true", help="depth around the keypoints, where chunks have it")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--cache-dir", type=Path, default=Path("./dataset_cache"))
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SAMPLES} samples")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    labels = StreamingChunkedDataset(open_store(args.chunks_dir).child("train"), fields=(), cache_dir=args.cache_dir)
    config = model_config(
        "lifter", args.model_size, use_depth=args.use_depth, window=args.window, skeleton=labels.skeleton,
        keypoint_skeleton=labels.keypoint_skeleton,
    )  # fmt: skip
    assert isinstance(config, LifterConfig)
    task = LiftingTask(config, WEIGHTS, "root_relative")
    blind = dataclasses.replace(config, use_depth=False)
    data = Data(args.chunks_dir, config, args.batch_size, args.cache_dir)
    steps = max((QUICK_SAMPLES if args.quick else args.samples) // args.batch_size, 20)
    runs = [("lifter", LIFTER_RATE), *(("floor", rate) for rate in FLOOR_RATES)]
    if args.use_depth:
        runs += [(name + BLIND, rate) for name, rate in runs]
    print(
        f"{steps * args.batch_size} samples of {len(labels)} seen, batches of {args.batch_size}; {platform.platform()}"
    )
    print("\n| model | learning rate | samples/s | MPJPE | PA-MPJPE | root | the same with a detector's errors | | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    figures: dict[str, dict[str, Any]] = {}
    for name, rate in runs:
        if args.only not in name:
            continue
        torch.manual_seed(0)
        sees = blind if name.endswith(BLIND) else config
        model = (Floor(sees) if name.startswith("floor") else build_model(sees)).train()
        trained, speed = train(model, task, data, steps, rate)
        found = score(trained, task, data)
        numbers = " | ".join(f"{found[key + ending]:.1f}" for ending in ("", " noisy") for key in SCORES)
        print(f"| {name} | {rate:g} | {speed:.0f} | {numbers} |", flush=True)
        if name not in figures or found["mpjpe_mm"] < figures[name]["mpjpe_mm"]:
            figures[name] = {"learning_rate": rate, "samples_per_second": speed, **found}
    for other, key, what in (
        ("floor", "mpjpe_mm", "MPJPE"),
        ("floor" + BLIND, "mpjpe_mm", "MPJPE"),
        ("lifter" + BLIND, "root_error_mm", "error of the root"),
    ):
        if {"lifter", other} <= figures.keys():
            clean, noisy = (figures["lifter"][key + end] / figures[other][key + end] - 1.0 for end in ("", " noisy"))
            print(f"\n{what} of the lifter against the {other}: {clean:+.0%}, with a detector's errors {noisy:+.0%}")
    if args.json:
        args.json.write_text(json.dumps({"samples": steps * args.batch_size, **figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
