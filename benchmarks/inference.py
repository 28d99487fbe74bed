"""infer.py beside the networks alone, what pictures cost, and a long run's memory and speed.

    python benchmarks/inference.py --yolo WEIGHTS [--photos FOLDER] [--json FILE] [--quick]

WEIGHTS: an Ultralytics pose model (yolov8n-pose.pt). FOLDER: photographs, repeated until there are enough of them;
without it the two that come with ultralytics. No depth network. Each round measures, one after the other: the networks'
forward passes on inputs that are ready (the detector and the lifter, at infer.py's batch size), `infer`, and `infer`
with --visualize; both the time that passes and the processor's, which other work on the machine disturbs less: the
ratio of the latter is what infer takes if nothing of it goes on beside the networks. The long run is a process of its
own, watched from outside.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from humanpose3d.estimators.keypoints import YoloKeypoints
from humanpose3d.images import batches, find_images, read_image
from humanpose3d.inference import infer
from humanpose3d.pipeline import Picture, Pipeline
from humanpose3d.visualize import panels

BATCH = 8
WARM = 100  # images of a long run before memory and speed are compared
BLOCK = 100
PANELS = 30  # drawn for the mean time of one
INFER = [sys.executable, "-m", "humanpose3d", "infer", "--no-depth", "--device", "cpu"]


class Spent(NamedTuple):
    """By a piece of work."""

    wall_s: float
    processor_s: float  # of all threads


class Moment(NamedTuple):
    """A long run as seen from outside."""

    seconds: float
    images: int
    bytes: int  # resident at most, up to then: how much is at one moment depends on which pictures are in hand


def make_folder(photos: Path, out: Path, number: int) -> Path:
    """`number` images, those of `photos` again and again."""
    out.mkdir(parents=True)
    for place, name in zip(range(number), itertools.cycle(find_images(photos)), strict=False):
        os.link(_copied(photos / name, out.parent / "originals"), out / f"{place:06d}{name.suffix}")
    return out


def _copied(photo: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    copy = folder / photo.name
    if not copy.exists():
        shutil.copy(photo, copy)
    return copy


class NetworksAlone:
    """The forward passes that `infer` makes on a folder, on the very same inputs, made ready before."""

    def __init__(self, folder: Path, yolo: str) -> None:
        self.calls: list[tuple[torch.nn.Module, tuple[Any, ...]]] = []
        pipeline = Pipeline(yolo_model=yolo, depth_model=None, device="cpu")
        detector, _ = pipeline.networks.load()
        assert isinstance(detector, YoloKeypoints)
        networks = (detector.network, pipeline.lifter.loaded.model)
        hooks = [each.register_forward_pre_hook(lambda *call: self.calls.append(call)) for each in networks]
        for some in batches(find_images(folder), BATCH):
            list(pipeline.run([Picture(name, read_image(folder / name)) for name in some]))
        for hook in hooks:
            hook.remove()

    def run(self) -> None:
        with torch.inference_mode():
            for network, inputs in self.calls:
                network(*inputs)


def spent(work: Callable[[], object]) -> Spent:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


def infer_folder(folder: Path, out: Path, yolo: str, *, visualize: bool) -> None:
    """Its loading of weights included."""
    shutil.rmtree(out, ignore_errors=True)
    infer(
        input_folder=folder, output_folder=out, yolo_model_path=yolo, no_depth=True, device="cpu", batch_size=BATCH,
        visualize=visualize,
    )  # fmt: skip


def panel_ms(folder: Path, yolo: str) -> tuple[float, float]:
    """(median time, mean processor time) to draw and encode one 2x2 panel, with a depth map."""
    pipeline = Pipeline(yolo_model=yolo, depth_model=None, device="cpu")
    each = []
    for name in itertools.islice(itertools.cycle(find_images(folder)), PANELS):
        [result] = pipeline.run([Picture(name, read_image(folder / name))])
        people, depth_m = result.cues.people, np.full((256, 256), 4.0, np.float32)
        draw = partial(
            panels.combined_panel, result.image, [person.keypoints_px for person in people],
            [person.keypoint_score for person in people], depth_m, list(result.joints_cam_m),
            boxes_px=[person.box_px for person in people], title=name.name,
        )  # fmt: skip
        each.append(spent(lambda draw=draw: panels.encode_png(draw())))
    return 1e3 * statistics.median(one.wall_s for one in each), 1e3 * statistics.mean(one.processor_s for one in each)


def long_run(folder: Path, out: Path, yolo: str) -> list[Moment]:
    """At each BLOCK of images that are done."""
    number = sum(1 for _ in find_images(folder))
    command = [*INFER, "--input-folder", str(folder), "--output-folder", str(out), "--yolo-model-path", yolo]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started, moments = time.perf_counter(), []
    while process.poll() is None:
        time.sleep(0.1)
        done = sum(path.name.endswith(".json") for path in os.scandir(out)) if out.exists() else 0
        if done >= BLOCK * (len(moments) + 1) and done <= number:
            try:
                told = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            highest = re.search(r"VmHWM:\s*(\d+) kB", told)
            if highest is None:
                break  # it has ended
            moments.append(Moment(time.perf_counter() - started, done, 1024 * int(highest[1])))
    if process.wait() not in (0, 1):
        raise RuntimeError(f"infer ended with {process.returncode}")
    return moments


def of_long_run(moments: list[Moment]) -> dict[str, float]:
    """Growth of memory after the first WARM images, and speed of the last third against that of the first."""
    first, *later = [moment for moment in moments if moment.images >= WARM]
    rates = [
        (after.images - before.images) / (after.seconds - before.seconds)
        for before, after in itertools.pairwise([first, *later])
    ]
    third = max(len(rates) // 3, 1)
    return {
        "images": moments[-1].images,
        "memory_mb_first": first.bytes / 1e6,
        "memory_mb_last": later[-1].bytes / 1e6,
        "memory_growth": later[-1].bytes / first.bytes - 1.0,
        "images_per_s_first_third": statistics.mean(rates[:third]),
        "images_per_s_last_third": statistics.mean(rates[-third:]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yolo", required=True, help="weights of an Ultralytics pose model")
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--long", type=int, default=1000, help="images of the long run; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="24 images, one round, 300 in the long run")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    if args.quick:
        args.images, args.rounds, args.long = 24, 1, min(args.long, 300)
    import ultralytics

    photos = args.photos or Path(ultralytics.__file__).parent / "assets"
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="hp3d-bench-") as work:
        folder, out = make_folder(photos, Path(work) / "images", args.images), Path(work) / "out"
        alone = NetworksAlone(folder, args.yolo)
        rounds = [
            (
                spent(alone.run),
                spent(partial(infer_folder, folder, out, args.yolo, visualize=False)),
                spent(partial(infer_folder, folder, out, args.yolo, visualize=True)),
            )
            for _ in range(args.rounds)
        ]
        print(
            f"{args.images} images, median of {args.rounds} rounds\n\n| | time | processor time |\n| --- | --- | --- |"
        )
        for kind, name in enumerate(Spent._fields):
            own, whole, drawn = (np.array([round_[part][kind] for round_ in rounds]) for part in range(3))
            figures[name] = {
                "networks_s": float(np.median(own)),
                "infer_s": float(np.median(whole)),
                "ratios": (whole / own).tolist(),
                "ratio": float(np.median(whole / own)),
                "pictures_ms": float(1e3 * np.median(drawn - whole) / args.images),
            }
        figures["wall_s"]["panel_ms"], figures["processor_s"]["panel_ms"] = panel_ms(folder, args.yolo)
        for what, name, form in (
            ("the networks alone", "networks_s", "{:.1f} s"),
            ("infer", "infer_s", "{:.1f} s"),
            ("ratio", "ratio", "{:.2f}"),
            ("more with --visualize, for an image (five pictures)", "pictures_ms", "{:.0f} ms"),
            ("one panel, drawn and encoded", "panel_ms", "{:.0f} ms"),
        ):
            cells = [form.format(figures[kind][name]) for kind in Spent._fields]
            print(f"| {what} | {cells[0]} | {cells[1]} |", flush=True)
        if args.long:
            many = make_folder(photos, Path(work) / "many", args.long)
            figures["long_run"] = told = of_long_run(long_run(many, Path(work) / "out_many", args.yolo))
            memory = f"{told['memory_mb_first']:.0f} MB, to the end {told['memory_mb_last']:.0f} MB"
            print(f"\nMemory at its highest, up to image {WARM}: {memory} ({100 * told['memory_growth']:+.1f} %)")
            rates = f"{told['images_per_s_first_third']:.2f}, {told['images_per_s_last_third']:.2f}"
            print(f"Images/s, first and last third of {told['images']:.0f}: {rates}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
