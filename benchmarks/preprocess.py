"""Preprocessing beside its two networks alone, beside a plain loop, on Ray, killed, and at length.

    python benchmarks/preprocess.py [--quick] [--only networks,speed,ray,kills,memory,listing,depth] [--json FILE]

networks: the stage's wall time, start-up apart, against the same networks on ready tensors in batches of the same size,
and against one image at a time written by Pillow. speed: both networks in fewer bits, and compiled (minutes). ray: two
workers of a private Ray cluster against two processes here. kills: kill -9 of a worker, again and again, of both
kinds. memory: resident size over many frames. listing: a simulated one of 10^7 frames until its first batch. Networks
have random weights, on which their speed does not depend. depth: what --depth-on crop and --precision cost the studio
network on people it has never seen, beside the exact depth.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from PIL import Image

from humanpose3d import images
from humanpose3d.engines import EngineKind
from humanpose3d.estimators.cues import CueNetworks
from humanpose3d.estimators.keypoints import prepare_ultralytics
from humanpose3d.estimators.speed import Speed
from humanpose3d.frames import LocalFrames
from humanpose3d.images import read_image
from humanpose3d.preprocess import Plan, preprocess_folders
from humanpose3d.remotes import LocalStore
from humanpose3d.reports import StageReport
from humanpose3d.shards import Shard
from humanpose3d.sidecars import is_complete
from humanpose3d.studio.film import TEST_SUBJECTS, film
from humanpose3d.studio.room import CAMERA_IDS

PARTS = ("networks", "speed", "ray", "kills", "memory", "listing", "depth")
GOALS = {"tiny": "reported", "middle": "1.08 x; 1.10 x on a GPU", "large": "1.08 x; 1.10 x on a GPU"}
LISTED = 10_000_000


@dataclass(frozen=True)
class Size:
    """Networks of the real kinds, and frames for them."""

    yolo: str  # Ultralytics' YAML
    yolo_px: int
    hidden: int  # of DepthPro's encoders
    layers: int
    patch_px: int  # DepthPro sees 4 x 4 of these and more
    frame_px: int


SIZES = {
    "tiny": Size("yolo11n-pose.yaml", 320, 32, 4, 64, 320),
    "middle": Size("yolo11x-pose.yaml", 640, 192, 6, 128, 1000),
    "large": Size("yolo11x-pose.yaml", 640, 1024, 24, 384, 1000),  # the published ones
}


def save_networks(folder: Path, size: Size) -> dict[str, Any]:
    """What preprocess_folders is to be told of them."""
    prepare_ultralytics(offline=True)
    from transformers import DepthProConfig, DepthProForDepthEstimation, DepthProImageProcessor, Dinov2Config
    from ultralytics.nn.tasks import PoseModel

    folder.mkdir(parents=True, exist_ok=True)
    pose, depth = folder / "pose.pt", folder / "depth"
    if not depth.exists():
        torch.manual_seed(0)
        model = PoseModel(size.yolo, nc=1, verbose=False)
        model.names = {0: "person"}
        torch.save({"model": model, "train_args": {"imgsz": size.yolo_px, "task": "pose"}}, pose)
        encoder = Dinov2Config(
            hidden_size=size.hidden, num_hidden_layers=size.layers, num_attention_heads=max(size.hidden // 64, 1),
            image_size=size.patch_px, patch_size=16, mlp_ratio=4,
        ).to_dict()  # fmt: skip
        third = size.layers // 3
        config = DepthProConfig(
            patch_size=size.patch_px, fusion_hidden_size=min(size.hidden, 256),
            intermediate_hook_ids=[2 * third - 1, third - 1], intermediate_feature_dims=[min(size.hidden, 256)] * 2,
            scaled_images_feature_dims=[size.hidden] * 3, use_fov_model=True,
            image_model_config=encoder, patch_model_config=encoder, fov_model_config=encoder,
        )  # fmt: skip
        side = 4 * size.patch_px
        DepthProImageProcessor(size={"height": side, "width": side}).save_pretrained(depth)
        DepthProForDepthEstimation(config).save_pretrained(depth)
    return {"yolo_model": str(pose), "depth_model": str(depth)}


def write_frames(folder: Path, number: int, side: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for frame in range(number):
        if (path := folder / f"{frame:06d}.jpg").exists():
            continue
        smooth = cv2.resize(rng.integers(0, 255, (side // 20, side // 20, 3), dtype=np.uint8), (side, side))
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=95)


def networks_alone(told: dict[str, Any], device: str, frames: list[Path], batch_size: int) -> Callable[[], float]:
    """Seconds for all frames on ready tensors: two calls a batch, nothing else."""
    pose, depth = CueNetworks(told["yolo_model"], told["depth_model"], device).load()
    assert depth is not None
    looks = [read_image(path) for path in frames[:batch_size]]
    pixels = np.stack([pose.prepare(image).pixels for image in looks])  # type: ignore[union-attr]
    for_pose = torch.from_numpy(pixels).to(depth.device).permute(0, 3, 1, 2).float() / 255.0
    for_depth = depth._resized(looks)

    def once() -> float:
        begun = time.perf_counter()
        with torch.inference_mode():
            for start in range(0, len(frames), batch_size):
                number = min(batch_size, len(frames) - start)
                pose.network(for_pose[:number])  # type: ignore[union-attr]
                depth.network(pixel_values=for_depth[:number])
        if depth.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    return once


def plain_loop(told: dict[str, Any], device: str, frames: list[Path], out: Path) -> Callable[[], float]:
    """Seconds for all frames one by one: read, both networks, Pillow's PNG at its own level, json."""
    pose, depth = CueNetworks(told["yolo_model"], told["depth_model"], device).load()
    assert depth is not None
    out.mkdir(exist_ok=True)

    def once() -> float:
        begun = time.perf_counter()
        for path in frames:
            image = np.array(Image.open(path).convert("RGB"))
            [people], [estimate] = pose.predict([image]), depth.predict([image])
            millimetres = np.clip(estimate.depth_m * 1000, 0, 65535).astype(np.uint16)
            Image.fromarray(millimetres).save(out / f"{path.stem}_depth.png")
            (out / f"{path.stem}.json").write_text(json.dumps([person.keypoints_px.tolist() for person in people]))
        return time.perf_counter() - begun

    return once


def stage(told: dict[str, Any], source: Path, out: Path, **settings: Any) -> tuple[float, StageReport]:
    """(seconds without the loading of the networks, report)."""
    report = preprocess_folders(source, out, **told, **settings, overwrite=True)
    return report.to_dict()["seconds"] - report.facts["load_s"], report


def measure_networks(work: Path, name: str, device: str, frames: int, batch_size: int, rounds: int) -> dict[str, Any]:
    size = SIZES[name]
    told, source = save_networks(work / name, size), work / f"frames_{size.frame_px}_{frames}"
    write_frames(source, frames, size.frame_px)
    paths = sorted(source.iterdir())
    alone = networks_alone(told, device, paths, batch_size)
    loop = plain_loop(told, device, paths, work / f"plain_{name}")
    alone()  # the first call of a network is slower
    found: dict[str, list[float]] = {"stage": [], "alone": [], "loop": [], "share": [], "load": []}
    for _ in range(rounds):
        found["alone"].append(alone())
        seconds, report = stage(told, source, work / f"out_{name}", device=device, batch_size=batch_size)
        found["stage"].append(seconds)
        found["share"].append(report.facts["network_share"])
        found["load"].append(report.facts["load_s"])
        found["loop"].append(loop())
    against_alone = statistics.median(a / b for a, b in zip(found["stage"], found["alone"], strict=True))
    against_loop = statistics.median(b / a for a, b in zip(found["stage"], found["loop"], strict=True))
    return {
        "networks": name, "frames": frames, "batch_size": batch_size, "device": device,
        "threads": torch.get_num_threads(),
        **{f"{what}_s": values for what, values in found.items() if what != "share"}, "network_share": found["share"],
        "stage_against_networks": against_alone, "loop_against_stage": against_loop,
    }  # fmt: skip


def measure_speed(work: Path, name: str, device: str, batch_size: int, rounds: int) -> list[dict[str, Any]]:
    """A batch through both networks in fewer bits, and compiled; start: the first batch, in which it compiles."""
    size = SIZES[name]
    told, source = save_networks(work / name, size), work / f"frames_{size.frame_px}_{batch_size}"
    write_frames(source, batch_size, size.frame_px)
    images, rows = [read_image(path) for path in sorted(source.iterdir())], []
    for precision, compiled in (("32", False), ("bf16", False), ("32", True), ("bf16", True)):
        torch._dynamo.reset()
        speed = Speed(precision, compiled)  # type: ignore[arg-type]
        networks = CueNetworks(told["yolo_model"], told["depth_model"], device, speed=speed)
        looks = [networks.prepare(image) for image in images]
        taken = []
        for _ in range(rounds + 1):
            begun, working = time.perf_counter(), time.process_time()
            networks.find_people(looks)
            networks.estimate_depth([look.for_depth for look in looks if look.for_depth is not None])
            taken.append((time.perf_counter() - begun, time.process_time() - working))
        wall_s, cpu_s = (statistics.median(seconds) / batch_size for seconds in zip(*taken[1:], strict=True))
        row = {"precision": precision, "compiled": compiled, "start_s": taken[0][0]}
        rows.append(row | {"s_a_frame": wall_s, "cpu_s_a_frame": cpu_s})
    return rows


def measure_ray(work: Path, name: str, frames: int, batch_size: int) -> dict[str, Any]:
    """Two workers each way, on the CPU, and whether the bytes are the same."""
    size = SIZES[name]
    told, source = save_networks(work / name, size), work / f"frames_{size.frame_px}_{frames}"
    write_frames(source, frames, size.frame_px)
    seconds, loads = {}, {}
    for kind in ("local", "ray"):
        begun = time.perf_counter()
        # Ray's own cluster begins and ends inside, and is part of the start-up.
        first, _ = stage(
            told, source, work / f"out_{kind}", device="cpu", batch_size=batch_size, devices=2, engine=kind
        )
        seconds[kind], loads[kind] = first, time.perf_counter() - begun - first
    same = sidecars(work / "out_local") == sidecars(work / "out_ray")
    return {
        "networks": name, "frames": frames, "seconds": seconds, "start_up_s": loads, "identical_bytes": same,
        "ray_against_local": seconds["ray"] / seconds["local"],
    }  # fmt: skip


def sidecars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if "report" not in path.name}


def measure_kills(work: Path, engine: EngineKind, kills: int, frames: int) -> dict[str, Any]:
    """kill -9 of one of two workers at random moments of one run."""
    size = SIZES["tiny"]
    told, source = save_networks(work / "tiny", size), work / f"frames_{size.frame_px}_{frames}"
    write_frames(source, frames, size.frame_px)
    settings: dict[str, Any] = {"device": "cpu", "batch_size": 4, "devices": 2}
    stage(told, source, work / "straight", **settings)
    stop, dealt, killed = threading.Event(), [0], work / f"killed_{engine}"

    def workers() -> list[int]:
        if engine == "local":
            return [child.pid or 0 for child in active_children()]
        return [child.pid for child in psutil.Process().children(recursive=True) if child.name() == "ray::MapWorker"]

    def kill() -> None:
        chance = random.Random(0)
        while dealt[0] < kills and not stop.wait(chance.uniform(1.0, 8.0)):
            with suppress(psutil.Error):  # one that has just ended
                if pids := workers():
                    os.kill(chance.choice(pids), signal.SIGKILL)
                    dealt[0] += 1

    killer = threading.Thread(target=kill)
    killer.start()
    begun = time.perf_counter()
    try:
        report = preprocess_folders(source, killed, **told, **settings, engine=engine)
    finally:
        stop.set()
        killer.join()
    return {
        "engine": engine, "kills": dealt[0], "frames": frames, "seconds": time.perf_counter() - begun,
        "complete": sum(is_complete(killed / path.stem, depth=True) for path in source.iterdir()),
        "skipped": report.total_skipped, "identical_bytes": sidecars(work / "straight") == sidecars(killed),
    }  # fmt: skip


def measure_memory(work: Path, frames: int) -> dict[str, Any]:
    """Resident megabytes after each twentieth of the frames, all alike: the same few files under many names."""
    size = SIZES["tiny"]
    told, source = save_networks(work / "tiny", size), work / f"linked_{frames}"
    write_frames(work / "few", 50, 64)
    if not source.exists():
        for number in range(frames):
            folder = source / f"{number // 1000:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            os.link(work / "few" / f"{number % 50:06d}.jpg", folder / f"{number:06d}.jpg")
    code = (
        "import sys; from pathlib import Path; from humanpose3d.preprocess import preprocess_folders; "
        "preprocess_folders(Path(sys.argv[1]), Path(sys.argv[2]), yolo_model=sys.argv[3], depth_model=sys.argv[4], "
        "device='cpu', overwrite=True)"
    )
    out = work / "out_memory"
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out), *told.values()])
    sizes_mb: dict[int, float] = {}
    while process.poll() is None:
        done = sum(len(files) for _, _, files in os.walk(out)) // 2 if out.exists() else 0
        sizes_mb.setdefault(done // max(frames // 20, 1) * (frames // 20), resident_mb(process.pid))
        time.sleep(0.5)
    after_500 = [size for done, size in sizes_mb.items() if done >= min(500, frames // 4)]
    return {"frames": frames, "resident_mb": sizes_mb, "growth_after_500": max(after_500) / after_500[0]}


def resident_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def measure_listing(frames: int) -> dict[str, Any]:
    """Seconds until the first batch, and what listing all adds to the memory, in folders of a thousand names."""

    def walk(top: Any, **_: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        folders = [f"take_{number:06d}" for number in range(frames // 1000)]
        yield str(top), folders, []
        for folder in folders:
            yield f"{top}/{folder}", [], [f"frame_{number:06d}.jpg" for number in range(1000)]

    with tempfile.TemporaryDirectory() as empty, replaced(images.os, "walk", walk):
        before = resident_mb(os.getpid())
        begun = time.perf_counter()
        frames_below, target = LocalFrames(LocalStore(Path(empty))), LocalStore(Path(empty) / "out")
        batches = Plan(frames_below, target, 1, 8, Shard()).batches(StageReport("preprocess"))
        next(batches)
        first_s = time.perf_counter() - begun
        peak, listed = 0.0, 8
        for number, batch in enumerate(batches):
            listed += len(batch)
            if number % 10_000 == 0:
                peak = max(peak, resident_mb(os.getpid()))
    return {
        "frames": listed, "first_batch_s": first_s, "all_s": time.perf_counter() - begun, "added_mb": peak - before,
    }  # fmt: skip


def measure_depth(frames: int) -> list[dict[str, Any]]:
    """Of the pixels that show the person, and of the focal length, against the studio's own."""
    takes = [(subject, action, camera) for subject in TEST_SUBJECTS for action in (2, 7, 14) for camera in CAMERA_IDS]
    filmed = [film(subject, action, 1, camera, 3) for subject, action, camera in takes[:frames]]
    rows = []
    for depth_on, precision in (("frame", "32"), ("crop", "32"), ("frame", "bf16"), ("frame", "16")):
        networks = CueNetworks("studio", "studio", "cpu", depth_on=depth_on, speed=Speed(precision))  # type: ignore[arg-type]
        errors_mm, focal, unknown = [], [], 0
        for shot in filmed:
            [found] = networks.cues([shot.image])
            assert found.depth_m is not None
            depth_m = cv2.resize(found.depth_m, shot.person.shape[::-1], interpolation=cv2.INTER_NEAREST)
            known = shot.person & (depth_m > 0)
            unknown += int(shot.person.sum() - known.sum())
            errors_mm.append(np.abs(depth_m - shot.depth_m)[known] * 1000)
            if found.focal_px is not None:
                focal.append(abs(found.focal_px / float(shot.camera.K[0, 0]) - 1))
        rows.append(
            {
                "depth_on": depth_on,
                "precision": precision,
                "frames": len(filmed),
                "person_error_mm": float(np.median(np.concatenate(errors_mm))),
                "focal_error": float(np.median(focal)),
                "unknown_pixels": unknown,
            }  # fmt: skip
        )
    return rows


@contextmanager
def replaced(module: Any, name: str, by: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, by)
    try:
        yield
    finally:
        setattr(module, name, before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny networks, few frames: within a minute")
    parser.add_argument("--only", default="networks,memory,listing", help=f"of {', '.join(PARTS)}, comma-separated")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", choices=SIZES, default="middle", help="of the networks")
    parser.add_argument("--frames", type=int, default=24, help="of networks, and of ray")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, help="folder for networks and frames (default: a temporary one)")
    args = parser.parse_args()
    only = args.only.split(",")
    if unknown := set(only) - set(PARTS):
        parser.error(f"--only {', '.join(sorted(unknown))}: take {', '.join(PARTS)}")
    size = "tiny" if args.quick else args.size
    rounds = 1 if args.quick else args.rounds
    figures: dict[str, Any] = {"platform": platform.platform(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory(prefix="hp3d-bench-") as temporary:
        work = args.work or Path(temporary)
        if "networks" in only:
            found = measure_networks(work, size, args.device, args.frames, args.batch_size, rounds)
            figures["networks"] = found
            a_frame = {what: statistics.median(found[f"{what}_s"]) / args.frames for what in ("alone", "stage", "loop")}
            print(f"{size} networks on {args.device}, {args.frames} frames, batches of {args.batch_size}\n")
            print("| what | s a frame (median) | ratio (median of the rounds') | wanted |\n| --- | --- | --- | --- |")
            print(f"| the two networks on ready tensors | {a_frame['alone']:.4f} | | |")
            print(
                f"| the stage, start-up ({statistics.median(found['load_s']):.1f} s) apart | {a_frame['stage']:.4f} "
                f"| {found['stage_against_networks']:.3f} x the networks | {GOALS[size]} |"
            )
            print(
                f"| one image at a time | {a_frame['loop']:.4f} | {found['loop_against_stage']:.2f} x the stage "
                "| 2.5 x on a GPU |"
            )
        if "speed" in only:
            figures["speed"] = measure_speed(work, size, args.device, args.batch_size, rounds)
            print(
                f"\n{size} networks on {args.device}, batches of {args.batch_size}, {torch.get_num_threads()} threads\n"
            )
            print(
                "| bits | compiled | first batch s | s a frame | processor s a frame |\n| --- | --- | --- | --- | --- |"
            )
            for row in figures["speed"]:
                print(
                    f"| {row['precision']} | {'yes' if row['compiled'] else 'no'} | {row['start_s']:.1f} "
                    f"| {row['s_a_frame']:.4f} | {row['cpu_s_a_frame']:.4f} |"
                )
        if "ray" in only:
            figures["ray"] = found = measure_ray(work, size, args.frames, args.batch_size)
            print(
                f"\nRay, two workers against two processes here, {size} networks, {args.frames} frames: "
                f"{found['ray_against_local']:.3f} x (wanted: 1.25 x over 5 minutes or more; here "
                f"{found['seconds']['local']:.0f} s), start-up {found['start_up_s']['ray']:.1f} s against "
                f"{found['start_up_s']['local']:.1f} s; bytes identical: {found['identical_bytes']}"
            )
        if "kills" in only:
            figures["kills"] = [
                measure_kills(work, engine, args.kills, 40 if args.quick else 600) for engine in ("local", "ray")
            ]
            for found in figures["kills"]:
                print(
                    f"\n{found['engine']}: {found['kills']} kills of a worker in {found['seconds']:.0f} s: "
                    f"{found['complete']} of {found['frames']} frames complete, {found['skipped']} left out, bytes "
                    f"identical: {found['identical_bytes']}"
                )
        if "memory" in only:
            figures["memory"] = found = measure_memory(work, 100 if args.quick else 10_000)
            print(
                f"\nresident MB by frames done: {', '.join(f'{n}: {mb:.0f}' for n, mb in found['resident_mb'].items())}"
                f"; at most, against after the first 500 (or quarter), x {found['growth_after_500']:.3f}"
            )
        if "listing" in only:
            figures["listing"] = found = measure_listing(LISTED // 100 if args.quick else LISTED)
            print(
                f"\nlisting {found['frames']} frames: first batch after {found['first_batch_s']:.3f} s, all after "
                f"{found['all_s']:.0f} s, {found['added_mb']:.0f} MB more than before (wanted: 5 s, 300 MB)"
            )
        if "depth" in only:
            figures["depth"] = measure_depth(4 if args.quick else 24)
            print("\n| DepthPro sees | bits | person, median error mm | focal length, median error |")
            print("| --- | --- | --- | --- |")
            for row in figures["depth"]:
                print(
                    f"| {row['depth_on']} | {row['precision']} | {row['person_error_mm']:.0f} "
                    f"| {100 * row['focal_error']:.1f} % |"
                )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
