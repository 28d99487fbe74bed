"""Streaming: samples/s, CPU and memory of our loader beside its peers on the same bytes, interleaved in one run.

    python benchmarks/streaming.py [--quick] [--json FILE] [--rounds 5] [--data DIR] [--only rates,memory,...]

The work: 512 px JPEG + 256 px 16-bit PNG + JSON -> uint8 [B 3 256 256], float32 [B 1 256 256] metres, keypoints,
joints, intrinsics; shuffled, batches of 64. Each run is a fresh process; imports are not counted. DIR holds tar/ and
files/ as ../shared/bench/gen_dataset.py writes them; without it a stand-in of the same sizes is made. Peers that are
not installed are left out by name; HUMANPOSE3D_PEERS and HUMANPOSE3D_MOSAIC name interpreters that have them.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import json
import os
import platform
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import simplejpeg

from humanpose3d.camera import Camera
from humanpose3d.chunks.codec import decode_depth, decode_jpeg, encode_jpeg, encode_sample
from humanpose3d.chunks.layout import ChunkEntry, ChunkIndex, index_chunks
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.config import AugmentationConfig
from humanpose3d.dataset.decoding import ArrayBatch, ArrayDecoder, StoredSample
from humanpose3d.remotes import LocalStore
from humanpose3d.sample import PoseSample, make_key
from humanpose3d.warp import crop_person

BATCH, VIEW, WORKERS = 64, 256, 2
SHARD = 500
CROP, CROP_MARGIN = 320, 0.25  # what the chunker does unless told otherwise
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
TINY_SAMPLES = 20_000  # read whatever the set's size, or the longer run would look the larger
LOOK_EVERY_S = 0.1  # at the memory of a run
SIMULATED_CHUNKS, SIMULATED_CHUNK = 200, 5000  # a million samples

# --- the common data --------------------------------------------------------------------------------------------------


def make_data(folder: Path, samples: int, side: int = 512) -> None:
    """A stand-in for gen_dataset.py: photo-like noise of about as many bytes a pixel, PNGs as OpenCV writes them."""
    (folder / "tar").mkdir(parents=True)
    (folder / "files").mkdir()
    pictures = [_members(number, side) for number in range(min(samples, 100))]
    for shard in range(-(-samples // SHARD)):
        with tarfile.open(folder / "tar" / f"shard-{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(shard * SHARD, min((shard + 1) * SHARD, samples)):
                for extension, data in pictures[number % len(pictures)].items():
                    info = tarfile.TarInfo(f"{number:08d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                    (folder / "files" / info.name).write_bytes(data)


def _members(number: int, side: int = 512) -> dict[str, bytes]:
    rng = np.random.default_rng(number)
    image = sum(
        cv2.resize(rng.normal(0, 160 / octave, (octave, octave, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
        for octave in (4, 8, 16, 32, 64, 128)
    )
    image = np.clip(128 + image + rng.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)
    depth = np.add.outer(8.0 * np.arange(side // 2), np.arange(side / 2)) + 2000
    depth += rng.normal(0, 1.6, depth.shape)
    joints_m = rng.normal(0, 0.3, (17, 3)) + [0, 0, 3.6]
    focal_px, middle_px = 1.1 * side, side / 2
    pixels = joints_m[:, :2] / joints_m[:, 2:] * focal_px + middle_px
    K = [[focal_px, 0, middle_px], [0, focal_px, middle_px], [0, 0, 1]]
    meta = {
        "key": f"{number:08d}", "subject": f"S{number % 7}", "sequence": f"seq_{number % 113:04d}", "frame": number,
        "bbox": [*pixels.min(0).tolist(), *pixels.max(0).tolist()],
        "keypoints_2d": [[*pixel.tolist(), 2] for pixel in pixels], "joints_3d": joints_m.tolist(),
        "camera": {"K": K, "R": np.eye(3).tolist(), "t": [0, 0, 3.0]},
    }  # fmt: skip
    return {
        "jpg": encode_jpeg(image, 90),
        "depth.png": cv2.imencode(".png", depth.astype(np.uint16))[1].tobytes(),
        "json": json.dumps(meta).encode(),
    }


def make_own(folder: Path, data: Path) -> None:
    """The same frames as the chunker writes them: cropped to the person, 320 px, quality 90, depth at half the side."""
    keys = sorted(path.name[:-4] for path in (data / "files").glob("*.jpg"))
    with _writer(folder, SHARD) as writer:
        for number, key in enumerate(keys):
            read = {each: (data / "files" / f"{key}.{each}").read_bytes() for each in ("jpg", "depth.png", "json")}
            sample = crop_person(_record(number, read), CROP_MARGIN, CROP)
            writer.write(number, sample.key, encode_sample(sample))
        writer.finish()


def _record(number: int, members: dict[str, bytes]) -> PoseSample:
    """The whole frame as one of our records."""
    meta = orjson.loads(members["json"])
    keypoints = np.array(meta["keypoints_2d"], np.float32)
    K = meta["camera"]["K"]
    image = simplejpeg.decode_jpeg(members["jpg"])
    side = image.shape[0]
    return PoseSample(
        key=make_key("bench", meta["subject"], meta["sequence"], f"{number:06d}", "p0"),
        image=image, image_size_wh=(side, side),
        depth_m=decode_depth("", members["depth.png"]), keypoints_px=keypoints[:, :2],
        keypoint_score=np.ones(17, np.float32), keypoint_skeleton="coco_17", joints_px=keypoints[:, :2],
        joints_cam_m=np.array(meta["joints_3d"], np.float32), joint_score=np.ones(17, np.float32), skeleton="coco_17",
        camera=Camera.create((K[0][0], K[1][1]), (K[0][2], K[1][2])),
        box_px=np.clip(np.array(meta["bbox"], np.float32), 0, side - 1), corpus="bench", subject=meta["subject"],
        frame_index=number, fps=30.0,
    )  # fmt: skip


def _writer(folder: Path, chunk_size: int) -> ChunkSetWriter:
    plan = {"stage": "benchmark", "chunk_size": chunk_size}
    return ChunkSetWriter(
        LocalStore(folder),
        prefix="train",
        chunk_size=chunk_size,
        compress="none",
        plan=plan,
        staging=folder,
        state=dict,
    )


def make_tiny(folder: Path, chunks: int, samples: int) -> None:
    """Chunks of small samples: what grows with their number shows, the pictures do not hide it."""
    frame = _members(0)
    sample = crop_person(_record(0, frame), CROP_MARGIN, 32)
    with _writer(folder, samples) as writer:
        for number in range(chunks * samples):
            key = make_key("bench", "S1", "Walking", f"{number:07d}", "p0")
            writer.write(number, key, encode_sample(sample.with_(key=key)))
        writer.finish()


# --- decoders ---------------------------------------------------------------------------------------------------------

Decode = Callable[[bytes], np.ndarray]


def _jpeg_pil(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((VIEW, VIEW), Image.Resampling.BILINEAR))


def _png_pil(data: bytes) -> np.ndarray:
    from PIL import Image

    return (np.asarray(Image.open(io.BytesIO(data))).astype(np.float32) * np.float32(0.001))[None]


def _jpeg_fast(data: bytes) -> np.ndarray:
    image = simplejpeg.decode_jpeg(data, min_height=VIEW, min_width=VIEW, min_factor=2)
    return image if image.shape[0] == VIEW else cv2.resize(image, (VIEW, VIEW), interpolation=cv2.INTER_AREA)


def _png_cv2(data: bytes) -> np.ndarray:
    depth = cv2.imdecode(np.frombuffer(data, np.uint8), -1)
    depth = depth if depth.shape[0] == VIEW else cv2.resize(depth, (VIEW, VIEW), interpolation=cv2.INTER_NEAREST)
    return (depth.astype(np.float32) * np.float32(0.001))[None]


def _jpeg_ours(data: bytes) -> np.ndarray:
    return decode_jpeg("", data, np.empty((VIEW, VIEW, 3), np.uint8))


def _png_ours(data: bytes) -> np.ndarray:
    return decode_depth("", data)[None]


DECODERS: dict[str, tuple[Decode, Decode, Callable]] = {
    "documented": (_jpeg_pil, _png_pil, json.loads),
    "same JPEG decoder": (_jpeg_fast, _png_cv2, json.loads),
    "all our decoders": (_jpeg_ours, _png_ours, orjson.loads),
}


def _sample(members: dict[str, bytes], kind: str) -> dict[str, np.ndarray]:
    jpeg, png, loads = DECODERS[kind]
    meta = loads(bytes(members["json"]))
    return {
        "rgb": jpeg(members["jpg"]), "depth": png(members["depth.png"]),
        "keypoints": np.array(meta["keypoints_2d"], np.float32), "joints": np.array(meta["joints_3d"], np.float32),
        "K": np.array(meta["camera"]["K"], np.float32),
    }  # fmt: skip


def _stack(samples: list[dict]) -> dict[str, Any]:
    import torch

    return {
        name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0] if name[0] != "_"
    }


def _channels_first(batch: dict) -> dict:
    return batch | {"rgb": batch["rgb"].permute(0, 3, 1, 2)}


# --- loaders: (data, kind) -> batches ---------------------------------------------------------------------------------


def webdataset(data: Path, kind: str) -> Iterator[dict]:
    """As its README shows it: shuffled shards, a shuffle buffer, decode, map, batched in the workers."""
    import webdataset as wds
    from PIL import Image

    samples = wds.WebDataset(_tars(data), shardshuffle=100, empty_check=False).shuffle(1000)
    if kind == "documented":  # "pil" would turn 16-bit depth into 8-bit RGB, hence a handler of its own

        def convert(sample: dict) -> dict:
            meta = sample["json"]
            return {
                "rgb": np.asarray(sample["jpg"].resize((VIEW, VIEW), Image.Resampling.BILINEAR)),
                "depth": sample["depth.png"], "keypoints": np.array(meta["keypoints_2d"], np.float32),
                "joints": np.array(meta["joints_3d"], np.float32), "K": np.array(meta["camera"]["K"], np.float32),
            }  # fmt: skip

        samples = samples.decode(wds.handle_extension("depth.png", _png_pil), "pil").map(convert)
    else:
        samples = samples.map(lambda sample: _sample(sample, kind))
    batches = samples.batched(BATCH, collation_fn=_stack, partial=True)
    return map(_channels_first, wds.WebLoader(batches, batch_size=None, num_workers=WORKERS, worker_init_fn=_single))


def files(data: Path, kind: str) -> Iterator[dict]:
    """Loose files and torch's DataLoader."""
    import torch

    class Files(torch.utils.data.Dataset):
        keys = sorted(str(path)[:-4] for path in (data / "files").glob("*.jpg"))

        def __len__(self) -> int:
            return len(self.keys)

        def __getitem__(self, index: int) -> dict:
            return _sample(_read(self.keys[index]), kind)

    return map(
        _channels_first,
        torch.utils.data.DataLoader(
            Files(), BATCH, shuffle=True, num_workers=WORKERS, collate_fn=_stack, worker_init_fn=_single
        ),
    )


def litdata(data: Path, kind: str) -> Iterator[dict]:
    import litdata as lit

    class Set(lit.StreamingDataset):
        def __getitem__(self, index: Any) -> dict:
            return _sample(super().__getitem__(index), kind)

    loader = lit.StreamingDataLoader(
        Set(str(data / "litdata"), shuffle=True, seed=1), batch_size=BATCH, num_workers=WORKERS, collate_fn=_stack,
        worker_init_fn=_single,
    )  # fmt: skip
    return map(_channels_first, loader)


def mosaic(data: Path, kind: str) -> Iterator[dict]:
    streaming = _mosaic()
    import torch

    class Set(streaming.StreamingDataset):
        def __getitem__(self, index: Any) -> dict:
            return _sample(super().__getitem__(index), kind)

    source = Set(local=str(data / "mosaic"), shuffle=True, batch_size=BATCH, shuffle_seed=1, num_canonical_nodes=1)
    return map(
        _channels_first,
        torch.utils.data.DataLoader(source, BATCH, num_workers=WORKERS, collate_fn=_stack, worker_init_fn=_single),
    )


def _prepare(name: str, data: Path) -> None:
    """The same members in the formats of LitData and Mosaic."""
    keys = [str(path)[:-4] for path in sorted((data / "files").glob("*.jpg"))]
    if name == "litdata":
        import litdata as lit

        lit.optimize(fn=_read, inputs=keys, output_dir=str(data / "litdata"), chunk_bytes="58MB", num_workers=1)
    else:
        streaming = _mosaic()
        columns = dict.fromkeys(("jpg", "depth.png", "json"), "bytes")
        with streaming.MDSWriter(out=str(data / "mosaic"), columns=columns, size_limit=60_000_000) as writer:
            for key in keys:
                writer.write(_read(key))


def _mosaic() -> Any:
    """Its package, not this file of the same name."""
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
    return importlib.import_module("streaming")


def _read(key: str) -> dict[str, bytes]:
    return {each: Path(f"{key}.{each}").read_bytes() for each in ("jpg", "depth.png", "json")}


def _tars(data: Path) -> list[str]:
    return sorted(str(path) for path in (data / "tar").glob("*.tar"))


def _single(_: int = 0) -> None:
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


class Frames(ArrayDecoder):
    """How somebody else's members are read by our loader."""

    extensions = ("jpg", "depth.png", "json")
    rows = {
        "rgb": ((VIEW, VIEW, 3), np.uint8),
        "depth": ((1, VIEW, VIEW), np.float32),
        "keypoints": ((17, 3), np.float32),
        "joints": ((17, 3), np.float32),
        "K": ((3, 3), np.float32),
    }

    def decode_row(self, sample: StoredSample, row: dict[str, np.ndarray]) -> None:
        decode_jpeg(sample.key, sample.member("jpg"), row["rgb"])
        decode_depth(sample.key, sample.member("depth.png"), row["depth"][0])
        meta = sample.json("json")
        row["keypoints"][...], row["joints"][...] = meta["keypoints_2d"], meta["joints_3d"]
        row["K"][...] = meta["camera"]["K"]

    def finish(self, batch: ArrayBatch, counted: Sequence[bool]) -> dict:
        return _channels_first(batch.tensors)


def ours(data: Path, kind: str) -> Any:
    from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader

    source = StreamingChunkedDataset(data / "tar", seed=1)
    return StreamingLoader(
        source, global_batch=BATCH, decoder=Frames(), num_workers=WORKERS, workers=kind,  # type: ignore[arg-type]
    )  # fmt: skip


def own_chunks(data: Path, kind: str) -> Any:
    """Our own chunks at the default crop -> augmented views, kind of workers as named."""
    from humanpose3d.dataset.augmentation import PoseAugmentor
    from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
    from humanpose3d.dataset.collator import Human36MCollator

    source = StreamingChunkedDataset(
        data / "own", seed=1, fields=("image", "depth_m"), transform=PoseAugmentor(AugmentationConfig(), VIEW)
    )
    collate = Human36MCollator("coco_17", "coco_17")
    return StreamingLoader(source, global_batch=BATCH, collate=collate, num_workers=WORKERS, workers=kind)  # type: ignore[arg-type]


def augmented_frames(data: Path, kind: str) -> Iterator[Any]:
    """The peer of `own_chunks`: webdataset on the original frames, the same views, our augmentation."""
    import webdataset as wds

    from humanpose3d.dataset.augmentation import PoseAugmentor
    from humanpose3d.dataset.collator import Human36MCollator

    augment, collate = PoseAugmentor(AugmentationConfig(), VIEW), Human36MCollator("coco_17", "coco_17")

    def view(sample: dict) -> PoseSample:
        return augment(_record(int(sample["__key__"]), sample), np.random.default_rng())

    samples = wds.WebDataset(_tars(data), shardshuffle=100, empty_check=False).shuffle(1000).map(view)
    batches = samples.batched(BATCH, collation_fn=collate, partial=True)
    return iter(wds.WebLoader(batches, batch_size=None, num_workers=WORKERS, worker_init_fn=_single))


def bare(data: Path, kind: str) -> Iterator[dict]:
    """Our decoders alone, on bytes in memory, into arrays that are there: what no loader can go below."""
    members = [_read(str(path)[:-4]) for path in sorted((data / "files").glob("*.jpg"))[: 2 * SHARD]]
    decoder = Frames()
    row = {name: np.empty(shape, dtype) for name, (shape, dtype) in decoder.rows.items()}

    def decode(number: int) -> dict:
        decoder.decode_row(StoredSample("", members[number], ()), row)
        return {"rgb": row["rgb"][None]}

    return map(decode, range(len(members)))


LOADERS: dict[str, tuple[Callable[[Path, str], Iterable], str]] = {
    "ours, threads": (ours, "threads"),
    "ours, processes": (ours, "processes"),
    "webdataset, documented": (webdataset, "documented"),
    "webdataset, same JPEG decoder": (webdataset, "same JPEG decoder"),
    "webdataset, all our decoders": (webdataset, "all our decoders"),
    "files, documented": (files, "documented"),
    "files, same JPEG decoder": (files, "same JPEG decoder"),
    "files, all our decoders": (files, "all our decoders"),
    "litdata, same JPEG decoder": (litdata, "same JPEG decoder"),
    "mosaic, same JPEG decoder": (mosaic, "same JPEG decoder"),
    "own chunks, augmented, threads": (own_chunks, "threads"),
    "own chunks, augmented, processes": (own_chunks, "processes"),
    "webdataset, frames, augmented": (augmented_frames, ""),
    "bare decoders": (bare, ""),
}
REFERENCE = "ours, threads"
QUICK = (REFERENCE, "webdataset, same JPEG decoder", "webdataset, all our decoders", "bare decoders")

# --- one run ----------------------------------------------------------------------------------------------------------


def run_loader(data: Path, name: str) -> dict[str, float]:
    """An epoch in this process, which is fresh; imports are not counted."""
    import humanpose3d.dataset.chunked_dataset
    import humanpose3d.dataset.collator  # noqa: F401

    loader, kind = LOADERS[name]
    peers = {webdataset: "webdataset", augmented_frames: "webdataset", litdata: "litdata", mosaic: "streaming"}
    peer = peers.get(loader)
    if peer is not None:
        _mosaic() if loader is mosaic else importlib.import_module(peer)
    _single()
    if name == "bare decoders":  # the bytes are read before
        batches = bare(data, kind)
    cpu, started = _cpu_s(), time.perf_counter()
    if name != "bare decoders":
        batches = loader(data, kind)  # type: ignore[assignment]
    first, samples = 0.0, 0
    for batch in batches:
        first = first or time.perf_counter() - started
        samples += len(batch["rgb"] if isinstance(batch, dict) else batch)
    seconds = time.perf_counter() - started
    if hasattr(batches, "close"):
        batches.close()
    del batches
    gc.collect()
    return {"samples": samples, "seconds": seconds, "first_s": first, "cpu_ms": (_cpu_s() - cpu) / samples * 1e3}


def _cpu_s() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_tiny(data: Path, name: str) -> dict[str, float]:
    """As many batches of tiny samples, however many lie there; the peak of memory is what the parent watches."""
    from humanpose3d.dataset.augmentation import FitView
    from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
    from humanpose3d.dataset.collator import Human36MCollator

    source = StreamingChunkedDataset(data / name, fields=("image", "depth_m"), transform=FitView(VIEW))
    loader = StreamingLoader(
        source, global_batch=BATCH, collate=Human36MCollator("coco_17", "coco_17"), num_workers=WORKERS
    )
    samples = 0
    while samples < TINY_SAMPLES:
        samples += sum(len(batch) for batch in loader)
    return {"samples": samples}


def run_resume(data: Path, name: str) -> dict[str, Any]:
    """Time from a saved position to the batch after it, at random positions of a million-sample epoch."""
    from humanpose3d.dataset.augmentation import FitView
    from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
    from humanpose3d.dataset.collator import Human36MCollator

    rng, seconds = random.Random(0), []
    for _ in range(10):
        state = None
        for _ in range(2):  # the first only tells what a position looks like
            started = time.perf_counter()
            source = StreamingChunkedDataset(data / "million", fields=("image",), transform=FitView(VIEW))
            loader = StreamingLoader(
                source, global_batch=BATCH, collate=Human36MCollator("coco_17", "coco_17", depth=False),
                num_workers=WORKERS,
            )  # fmt: skip
            if state is not None:
                loader.load_state_dict(state)
                next(iter(loader))
            else:
                state = loader.state_dict() | {"epoch": 3, "samples": rng.randrange(len(loader)) * BATCH}
        seconds.append(time.perf_counter() - started)
        loader.close()
    return {"samples": len(source), "seconds": seconds}


def run_plan(data: Path, name: str) -> dict[str, float]:
    """From a folder's index.json to the first batch's and a far batch's places."""
    from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset
    from humanpose3d.dataset.order import BatchOrder

    before, started = _private_bytes([os.getpid()]), time.perf_counter()
    source = StreamingChunkedDataset(data / name)
    order = BatchOrder(source.make_order(), global_batch=1024, drop_last=True)
    for batch in (0, order.batches - 1):
        for slot in order.slots(7, batch, 3, 64):
            order.order.place(7, slot.group, slot.offset)
    seconds = time.perf_counter() - started
    return {"samples": len(source), "seconds": seconds, "bytes": _private_bytes([os.getpid()]) - before}


RUNS: dict[str, Callable[[Path, str], dict]] = {
    "loader": run_loader, "tiny": run_tiny, "resume": run_resume, "plan": run_plan,
}  # fmt: skip


def _private_bytes(pids: Iterable[int]) -> int:
    """Memory that is no file's: each process's anonymous pages and its share of shared ones."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(kib) for kib in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+)", text, re.MULTILINE)) * 1024
    return total


def _family(pid: int) -> list[int]:
    children = [pid]
    for each in children:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                children += [int(child) for child in path.read_text().split()]
            except OSError:
                continue
    return children


def run_fresh(run: str, data: Path, name: str) -> dict[str, Any]:
    """A run in a process of its own: its figures, with the peak of its family's private memory; or why not."""
    command = [_python(name), str(Path(__file__).resolve()), "--data", str(data), "--child", run, name]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD
    )
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_EVERY_S):
            peak[0] = max(peak[0], _private_bytes(_family(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        output, errors = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
    done.set()
    watcher.join()
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[7:]) | {"peak_bytes": peak[0]}
    last = (errors.strip().splitlines() or ["no output"])[-1]
    return {"failed": "not installed" if "ModuleNotFoundError" in last else last[:200]}


def _python(name: str) -> str:
    peers = os.environ.get("HUMANPOSE3D_PEERS", sys.executable)
    return os.environ.get("HUMANPOSE3D_MOSAIC", peers) if name.startswith("mosaic") else peers


# --- sections ---------------------------------------------------------------------------------------------------------


def rates(data: Path, rounds: int, names: Iterable[str]) -> dict[str, list[dict]]:
    for peer in ("litdata", "mosaic"):
        if any(name.startswith(peer) for name in names) and not (data / peer / "index.json").exists():
            shutil.rmtree(data / peer, ignore_errors=True)
            command = [_python(peer), __file__, "--data", str(data), "--child", "prepare", peer]
            subprocess.run(command, check=False, capture_output=True)
    found: dict[str, list[dict]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, runs in found.items():
            if not (runs and "failed" in runs[-1]):
                runs.append(run_fresh("loader", data, name))
    return found


def print_rates(found: dict[str, list[dict]]) -> None:
    print(f"\n{WORKERS} workers, batches of {BATCH}, medians of {max(map(len, found.values()))} rounds\n")
    print("| loader | samples/s | from - to | ours is x faster | CPU ms a sample | first batch s | private MB, peak |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, runs in found.items():
        if "failed" in runs[-1]:
            print(f"| {name} | {runs[-1]['failed']} | | | | | |")
            continue
        speed = [run["samples"] / run["seconds"] for run in runs]
        base = found.get(_own(found) if name.startswith(("own", "webdataset, frames")) else REFERENCE, runs)
        ratios = [each["samples"] / each["seconds"] / mine for each, mine in zip(base, speed, strict=True)]
        cpu = "-" if name.endswith("processes") else f"{_middle(runs, 'cpu_ms'):.3f}"  # children of a fork server
        cells = (
            name, f"{statistics.median(speed):.0f}", f"{min(speed):.0f} - {max(speed):.0f}",
            f"{statistics.median(ratios):.2f}", cpu, f"{_middle(runs, 'first_s'):.2f}",
            f"{_middle(runs, 'peak_bytes') / 1e6:.0f}",
        )  # fmt: skip
        print("| " + " | ".join(cells) + " |")
    print_ratios(found)


def print_ratios(found: dict[str, list[dict]]) -> None:
    """The issue's figures, each the median of the rounds' own ratios."""
    whole = {name: runs for name, runs in found.items() if "failed" not in runs[-1]}

    def against(ours: str, peers: list[str]) -> str:
        known = [whole[name] for name in peers if name in whole]
        if ours not in whole or not known:
            return "not measured | not measured"
        rates, costs = [], []
        for at, run in enumerate(whole[ours]):
            rates.append(
                run["samples"] / run["seconds"] / max(each[at]["samples"] / each[at]["seconds"] for each in known)
            )
            costs.append(min(each[at]["cpu_ms"] for each in known) / run["cpu_ms"])
        return f"{statistics.median(rates):.2f} | {statistics.median(costs):.2f}"

    frames = [name for name in whole if not name.startswith(("ours", "own", "bare"))]
    same, all_ours = ([name for name in frames if kind in name] for kind in ("same JPEG", "all our"))
    print("\n| ours against | times the samples/s | times less CPU a sample |\n| --- | --- | --- |")
    print(f"| the best peer with the same JPEG decoder | {against(REFERENCE, same)} |")
    print(f"| the best of webdataset and files with all our decoders | {against(REFERENCE, all_ours)} |")
    print(f"| webdataset as documented | {against(REFERENCE, ['webdataset, documented'])} |")
    own = _own(found)
    print(
        f"| own chunks, augmented ({own}) against the best peer on the frames, not augmented | {against(own, same)} |"
    )
    print(f"| ... against webdataset with the same augmentation | {against(own, ['webdataset, frames, augmented'])} |")
    if "bare decoders" in whole and REFERENCE in whole:
        mine, floor = whole[REFERENCE], whole["bare decoders"]
        ratio = statistics.median(m["cpu_ms"] / f["cpu_ms"] for m, f in zip(mine, floor, strict=True))
        print(f"\nCPU a sample is {ratio:.2f} times that of the bare decoders")


def _own(found: dict[str, list[dict]]) -> str:
    return next((name for name in found if name.startswith("own")), "own chunks")


def _middle(runs: list[dict], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def memory(data: Path, quick: bool) -> dict[str, Any]:
    """Peak private memory with ten times the samples per chunk, and ten times the chunks."""
    samples = 50 if quick else 500
    found = {}
    for name, chunks, each in (("few", 4, samples), ("large", 4, 10 * samples), ("many", 40, samples)):
        folder = data / f"tiny_{chunks}_{each}"
        if not (folder / "index.json").exists():
            make_tiny(folder, chunks, each)
        peaks = [run_fresh("tiny", data, folder.name)["peak_bytes"] for _ in range(1 if quick else 3)]
        found[name] = {"chunks": chunks, "samples": each, "peak_bytes": statistics.median(peaks)}
    print("\n| chunks | samples each | private MB, peak | against the first |\n| --- | --- | --- | --- |")
    for row in found.values():
        growth = row["peak_bytes"] / found["few"]["peak_bytes"] - 1
        print(f"| {row['chunks']} | {row['samples']} | {row['peak_bytes'] / 1e6:.0f} | {growth:+.1%} |")
    return found


def resume(data: Path) -> dict[str, Any]:
    folder = data / "million"
    if not (folder / "index.json").exists():
        make_million(folder)
    found = run_fresh("resume", data, "million")
    seconds = found["seconds"]
    print(
        f"\nfrom a position in a {found['samples'] / 1e6:.1f} million-sample epoch to its batch, "
        f"index and offset tables read anew: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s"
    )
    return found


def make_million(folder: Path) -> None:
    """One real chunk under 200 names."""
    make_tiny(folder, 1, SIMULATED_CHUNK)
    index = ChunkIndex.from_json((folder / "index.json").read_bytes(), str(folder))
    [real] = index.chunks
    entries = []
    for number in range(SIMULATED_CHUNKS):
        file = f"train_{number:06d}.tar"
        entries.append(ChunkEntry(number, file, real.samples, real.bytes, real.crc32, real.subjects))
        if number:
            os.link(folder / real.file, folder / file)
            os.link((folder / real.file).with_suffix(".idx"), (folder / file).with_suffix(".idx"))
    (folder / "index.json").write_bytes(_with(index, entries).to_json())


def plan(data: Path) -> dict[str, Any]:
    folder = data / "billion"
    if not (folder / "index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        entries = [
            ChunkEntry(number, f"train_{number:06d}.tar", 10_000, 10**9, number, {"S1": 5000, "S5": 5000})
            for number in range(100_000)
        ]
        index = ChunkIndex("train", tuple(entries), "h36m_17", "coco_17", {"image.jpg": 10**9, "meta.json": 10**9})
        (folder / "index.json").write_bytes(index.to_json())
    found = run_fresh("plan", data, "billion")
    print(
        f"\nplanning an epoch of {found['samples']:.0e} samples in 100,000 chunks, index.json read: "
        f"{found['seconds']:.2f} s, {found['bytes'] / 1e6:.0f} MB"
    )
    return found


def _with(index: ChunkIndex, entries: list[ChunkEntry]) -> ChunkIndex:
    return ChunkIndex(index.prefix, tuple(entries), index.skeleton, index.keypoint_skeleton, index.members)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples, peers and rounds: under a minute")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--side", type=int, default=512, help="of the frames made, px")
    parser.add_argument("--data", type=Path, help="folder with tar/ and files/; kept and reused (default: temporary)")
    parser.add_argument("--only", default="rates,memory,resume,plan", help="sections")
    parser.add_argument("--loaders", default=".", help="regular expression of the loaders to run")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run, name = args.child
        result = _prepare(name, args.data) if run == "prepare" else RUNS[run](args.data, name)
        print("RESULT " + json.dumps(result), flush=True)
        os._exit(0)  # peers' background threads are not waited for
    data = args.data or Path(tempfile.mkdtemp(prefix="hp3d-bench-"))
    if not (data / "tar").is_dir():
        make_data(data, SHARD if args.quick else args.samples, args.side)
    if not (data / "tar" / "index.json").exists():
        index_chunks(LocalStore(data / "tar"))
    print_machine()
    figures: dict[str, Any] = {}
    if "rates" in args.only:
        names = [name for name in (QUICK if args.quick else LOADERS) if re.search(args.loaders, name)]
        if any("own chunks" in name for name in names) and not (data / "own" / "index.json").exists():
            make_own(data / "own", data)
        figures["rates"] = rates(data, 1 if args.quick else args.rounds, names)
        print_rates(figures["rates"])
    if "memory" in args.only:
        figures["memory"] = memory(data, args.quick)
    if "resume" in args.only and not args.quick:
        figures["resume"] = resume(data)
    if "plan" in args.only:
        figures["plan"] = plan(data)
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}")
    if args.json:
        args.json.write_text(json.dumps(figures | {"versions": _versions()}))
    if args.data is None:
        shutil.rmtree(data)
    return 0


def print_machine() -> None:
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(", ".join(f"{name} {version}" for name, version in _versions().items()))


def _versions() -> dict[str, str]:
    names = ["humanpose3d", "torch", "numpy", "webdataset", "litdata", "mosaicml-streaming", "opencv-python"]
    names += ["pillow", "simplejpeg", "isal", "orjson"]
    found = {}
    for name in names:
        program = f"from importlib import metadata; print(metadata.version({name!r}))"
        done = subprocess.run([_python(name), "-c", program], capture_output=True, text=True)
        found[name] = done.stdout.strip() or "not installed"
    return found


if __name__ == "__main__":
    sys.exit(main())
