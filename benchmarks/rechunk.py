"""Shuffling, rechunking and splitting chunks, against `cp` of the same bytes, interleaved in one run.

    python benchmarks/rechunk.py [--quick] [--json FILE] [--rounds 5] [--samples 4000] [--work DIR]

Peers: the usual way (extract every member, pack the loose files anew) and webdataset's ShardWriter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.chunks.codec import encode_sample
from humanpose3d.chunks.rechunk import rechunk
from humanpose3d.chunks.split import split_by_subject
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.remotes import LocalStore
from humanpose3d.sample import PoseSample, make_key
from humanpose3d.skeletons import COCO_17, H36M_17

PER_CHUNK = 500
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
QUICK_SAMPLES, QUICK_ROUNDS = 1000, 2


def make_set(folder: Path, samples: int) -> None:
    """Samples of about 120 kB: a 512 px JPEG, a 256 px depth map, all the metadata, subjects in turn by hundreds."""
    rng = np.random.default_rng(0)
    pictures = [encode_sample(_sample(rng, number, "S1")) for number in range(24)]
    with ChunkSetWriter(
        LocalStore(folder), prefix="chunk", chunk_size=PER_CHUNK, compress="none", plan={"stage": "benchmark"},
        staging=folder, state=dict,
    ) as writer:  # fmt: skip
        for number in range(samples):
            sample = _sample(rng, number, SUBJECTS[number // 100 % len(SUBJECTS)], pixels=False)
            members = encode_sample(sample, image_jpeg=pictures[number % 24]["image.jpg"])
            members["depth.png"] = pictures[number % 24]["depth.png"]
            meta = json.loads(members.pop("meta.json"))
            members["meta.json"] = json.dumps(meta | {"members": [*members, "meta.json"]}).encode()
            writer.write(number, sample.key, members)
        writer.finish()


def _sample(rng: np.random.Generator, number: int, subject: str, *, pixels: bool = True) -> PoseSample:
    camera = Camera.create(600.0, (256.0, 256.0))
    joints_m = rng.normal(0, 0.4, (len(H36M_17), 3)) + [0, 0, 4]
    smooth = np.kron(rng.integers(40, 215, (32, 32, 3)), np.ones((16, 16, 1)))
    return PoseSample(
        key=make_key("bench", subject, "Walking", "54138969", f"{number:06d}", "p0"),
        image=np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8) if pixels else None,
        image_size_wh=(512, 512),
        depth_m=(3 + rng.normal(0, 0.0012, (256, 256))).astype(np.float32) if pixels else None,
        keypoints_px=rng.uniform(0, 512, (len(COCO_17), 2)).astype(np.float32),
        keypoint_score=rng.random(len(COCO_17)).astype(np.float32),
        keypoint_skeleton=COCO_17.name,
        joints_px=camera_to_pixel(joints_m, camera).astype(np.float32),
        joints_cam_m=joints_m.astype(np.float32),
        joint_score=np.ones(len(H36M_17), np.float32),
        skeleton=H36M_17.name,
        camera=camera,
        box_px=np.array([100, 50, 400, 500], np.float32),
        corpus="human36m",
        subject=subject,
        action="Walking 1",
        camera_id="54138969",
        frame_index=number,
        fps=50.0,
    )


def copy(source: Path, out: Path) -> None:
    for path in sorted(source.glob("*.tar")):
        subprocess.run(["cp", str(path), str(out)], check=True)


def extract_and_repack(source: Path, out: Path) -> None:
    loose = out / "loose"
    for path in sorted(source.glob("*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(loose, filter="data")
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(loose)):
        names.setdefault(name.split(".", 1)[0], []).append(name)
    keys = list(names)
    random.Random(0).shuffle(keys)
    for number in range(0, len(keys), PER_CHUNK):
        with tarfile.open(out / f"{number // PER_CHUNK:06d}.tar", "w") as tar:
            for key in keys[number : number + PER_CHUNK]:
                for name in names[key]:
                    tar.add(loose / name, arcname=name)


def shard_writer(source: Path, out: Path) -> None:
    import webdataset as wds

    urls = [str(path) for path in sorted(source.glob("*.tar"))]
    samples = wds.WebDataset(urls, shardshuffle=100, empty_check=False).shuffle(1000)
    with wds.ShardWriter(f"{out}/%06d.tar", maxcount=PER_CHUNK, verbose=0) as writer:
        for sample in samples:
            writer.write({key: value for key, value in sample.items() if key == "__key__" or "." in key})


def ours(source: Path, out: Path, **changes: object) -> None:
    settings = {
        "chunk_size": PER_CHUNK, "seed": 1, "shuffle": True, "keep_extracted_originals": False, "compress": "none",
        "temp_dir": out / "temp", "workers": 2, "max_bad": 0.0,
    }  # fmt: skip
    rechunk(input_dir=str(source), output_dir=str(out / "set"), **(settings | changes))  # type: ignore[arg-type]


def ours_split(source: Path, out: Path) -> None:
    split_by_subject(
        rclone_input_prefix=str(source), rclone_destination_prefix=str(out / "set"), train_subjects="1,5,6,7,8",
        test_subjects="9,11", new_chunk_size=PER_CHUNK, temp_extraction_dir=out / "a", staging_dir=out / "b",
        compress="none", workers=2, max_bad=0.0,
    )  # fmt: skip


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "cp": copy,
    "shuffle": ours,
    "rechunk in the same order": lambda source, out: ours(source, out, shuffle=False, chunk_size=2 * PER_CHUNK),
    "split by subject": ours_split,
    "peer: extract, shuffle, repack": extract_and_repack,
    "peer: webdataset shuffle(1000) -> ShardWriter": shard_writer,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SAMPLES} samples, {QUICK_ROUNDS} rounds")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--work", type=Path, help="folder for the data (default: a temporary one)")
    parser.add_argument("--only", default="", help="ways whose name contains this, and cp")
    args = parser.parse_args()
    samples = QUICK_SAMPLES if args.quick else args.samples
    rounds = QUICK_ROUNDS if args.quick else args.rounds
    work = args.work or Path(tempfile.mkdtemp(prefix="hp3d-bench-"))
    source = work / f"set_{samples}"
    if not (source / "index.json").exists():
        make_set(source, samples)
    bytes_all = sum(path.stat().st_size for path in source.glob("*.tar"))
    ways = {name: way for name, way in WAYS.items() if name == "cp" or args.only in name}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            out = work / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            os.sync()
            started = time.perf_counter()
            way(source, out)
            seconds[name].append(time.perf_counter() - started)
    shutil.rmtree(work / "out", ignore_errors=True)
    if args.work is None:
        shutil.rmtree(work)
    versions = {name: metadata.version(name) for name in ("humanpose3d", "webdataset", "numpy")}
    print(f"{samples} samples, {bytes_all / 1e6:.0f} MB in the page cache, {rounds} rounds; {platform.platform()}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()) + "\n")
    print("| way | seconds (median) | us a sample | x cp (median of the rounds' ratios) | from - to |")
    print("| --- | --- | --- | --- | --- |")
    figures = {}
    for name, own in seconds.items():
        ratios = [mine / base for mine, base in zip(own, seconds["cp"], strict=True)]
        middle, ratio = statistics.median(own), statistics.median(ratios)
        figures[name] = {"seconds": own, "times_cp": ratio}
        span = f"{min(ratios):.2f} - {max(ratios):.2f}"
        print(f"| {name} | {middle:.3f} | {middle / samples * 1e6:.0f} | {ratio:.2f} | {span} |")
    if args.json:
        args.json.write_text(
            json.dumps({"samples": samples, "bytes": bytes_all, "versions": versions, "ways": figures})
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
