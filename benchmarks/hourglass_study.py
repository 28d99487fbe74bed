"""The study's eight hourglasses side by side: training time, PCKh and inference time, on the same number of images.

    python benchmarks/hourglass_study.py --chunks-dir ROOT --work DIR [--images 20000] [--full] [--json FILE]

ROOT: train/ and val/ with MPII's joints and head sizes (`humanpose3d fake mpii`, or MPII itself). Each case is its
preset, configs/hourglass/case1.yaml to case8.yaml, at a quarter of its channels and 128 px unless --full, with Adam,
one cosine and the same seed, order and augmentation for all. DIR gets the runs; a case that is there already is not
trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from humanpose3d.cli import parse
from humanpose3d.config import AugmentationConfig, TrainConfig
from humanpose3d.models.checkpoint import load_model
from humanpose3d.models.hourglass import peaks
from humanpose3d.train import train_model

CONFIGS = Path(__file__).parents[1] / "configs" / "hourglass"
WHAT = {
    1: "as published", 2: "64 channels", 3: "6 stacks", 4: "6 stacks, 64 channels, 4 residual blocks",
    5: "64 channels, instance norm", 6: "depths 2x3,3x3,4x2, 64 channels", 7: "depths 4x2,3x4,2x2, 64 channels",
    8: "four {conv, ReLU, norm} in a bottleneck",
}  # fmt: skip
REPORTED = {1: 83.18, 2: 80.48, 3: 83.13, 4: 80.73, 5: 78.83, 6: 80.68, 7: 81.47, 8: 84.23}  # PCKh on MPII, 50 epochs
REPORTED_MIN = {1: 18.0, 2: 14.3, 3: 14.4, 4: 14.3, 5: 14.7, 6: 14.3, 7: 14.8, 8: 14.6}  # an epoch of training
SMALLER, SMALL_INPUT = 4, 128
INFERENCE_IMAGES, INFERENCE_BATCH = 256, 16


def settings(case: int, args: argparse.Namespace) -> TrainConfig:
    """A case's preset, made alike in all that is not its architecture."""
    preset = parse(
        TrainConfig, ["--config", str(CONFIGS / f"case{case}.yaml"), "--chunks-dir", args.chunks_dir], "study"
    )
    if not args.full:
        preset = replace(preset, channels=(preset.channels or 256) // SMALLER, input_size=SMALL_INPUT)
    return replace(
        preset, batch_size=args.batch_size, max_steps=args.images // args.batch_size, epochs=10_000, optimizer="adam",
        learning_rate=1e-3, schedule=(), warmup_steps=100, eval_interval=10**9, checkpoint_interval=10**9,
        ema_decay=0.999, clip_norm=1.0, log_dir=args.work, exp=f"case{case}", num_workers=1, device=args.device,
        augmentation=AugmentationConfig(rotation_deg=30.0, scale=(0.75, 1.25), translation=0.0),
    )  # fmt: skip


def train(case: int, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of training and PCKh, from the run's report where it is done."""
    told = args.work / f"case{case}" / "train_report.json"
    if not told.is_file():
        train_model(settings(case, args))
    facts = json.loads(told.read_text())
    seconds = args.images / facts["samples_per_second"]
    return {"training_s": seconds, "pckh_percent": facts["pck_percent"], "parameters": facts["parameters"]}


def inference_s(case: int, args: argparse.Namespace) -> float:
    """Of INFERENCE_IMAGES, decoding of the maps included; the fastest of three."""
    loaded = load_model(args.work / f"case{case}" / "checkpoints" / "last.pth", args.device)
    size = loaded.config.input_size
    image = torch.randint(0, 256, (INFERENCE_BATCH, 3, size, size), dtype=torch.uint8, device=args.device)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(INFERENCE_IMAGES // INFERENCE_BATCH):
                peaks(loaded.model.heatmaps_of(image)[:, -1])[0].cpu()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks-dir", required=True, help="folder with train/ and val/")
    parser.add_argument("--work", required=True, type=Path, help="folder for the runs")
    parser.add_argument("--images", type=int, default=20_000, help="that each case sees")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cases", type=int, nargs="+", default=list(WHAT))
    parser.add_argument("--full", action="store_true", help="all channels, 256 px: for a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="64 images each")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    if args.quick:
        args.images = 64
    figures = {case: train(case, args) for case in args.cases}
    for case, found in figures.items():
        found["inference_s"] = inference_s(case, args)
    channels = "full" if args.full else "a quarter of the"
    print(f"{args.images} images each, batches of {args.batch_size}, {channels} channels")
    print("\n| case | | parameters | training s | PCKh % | inference s (256 images) | reported: min/epoch, PCKh % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case, found in figures.items():
        print(
            f"| {case} | {WHAT[case]} | {found['parameters'] / 1e6:.2f} M | {found['training_s']:.0f} | "
            f"{found['pckh_percent']:.1f} | {found['inference_s']:.1f} | {REPORTED_MIN[case]:g}, {REPORTED[case]} |"
        )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
