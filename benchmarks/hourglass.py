"""Training and inference of the stacked hourglass beside a plain re-implementation of the public recipe, in one run.

    python benchmarks/hourglass.py --chunks-dir ROOT --images DIR [--rounds 5] [--quick] [--json FILE]

ROOT: train/ of pictures with 2D labels (chunks). DIR: the same corpus as it lies on the disk, in MPII's layout
(`humanpose3d fake mpii DIR`), for the peer. The peer: one process that opens a picture with OpenCV, cuts out the
person, flips, turns, scales and colours it, draws the heat maps with NumPy and trains in 32 bits, channels first, with
Adam. Ours: chunks through the toolkit's loader, heat maps on the device, channels last, bf16 where the CPU has tiles
for it. Both train the same architecture at the same input size and batch; turns alternate, ratios are of the rounds'
own rates.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from public_hourglass import PoseNet

from humanpose3d.config import AugmentationConfig, LossWeights
from humanpose3d.dataset.augmentation import PoseAugmentor
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.model_config import HourglassConfig, model_config
from humanpose3d.models import build_model
from humanpose3d.models.hourglass import peaks
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import MPII_16
from humanpose3d.tasks.devices import precision_of, train_device
from humanpose3d.tasks.heatmaps import HeatmapTask

SIGMA = 1.0
PEER_SCALE_PX = 200.0  # MPII's "scale" is the person's height over this


class Peer:
    """The public recipe."""

    def __init__(self, images: Path, config: HourglassConfig, batch: int, device: torch.device) -> None:
        self.folder, self.size, self.batch, self.device = images / "images", config.input_size, batch, device
        self.people = json.loads((images / "annotations" / "train.json").read_text())
        self.model = PoseNet(len(config.depths), config.channels, 16).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.rng = np.random.default_rng(0)
        self.next = 0

    def train(self, steps: int) -> None:
        self.model.train()
        for _ in range(steps):
            pictures, targets = zip(*(self._example() for _ in range(self.batch)), strict=True)
            image = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().to(self.device)
            target = torch.from_numpy(np.stack(targets)).to(self.device)
            loss = (self.model(image) - target[:, None]).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def infer(self, pictures: np.ndarray) -> None:
        self.model.eval()
        for start in range(0, len(pictures), self.batch):
            some = pictures[start : start + self.batch].astype(np.float32) / 255.0
            maps = self.model(torch.from_numpy(some).permute(0, 3, 1, 2).contiguous().to(self.device))[:, -1]
            flat = maps.flatten(2).argmax(-1).cpu()
            _ = torch.stack([flat % maps.shape[-1], flat // maps.shape[-1]], dim=-1)

    def _example(self) -> tuple[np.ndarray, np.ndarray]:
        person = self.people[self.next % len(self.people)]
        self.next += 1
        image = cv2.imread(str(self.folder / person["image"]))[..., ::-1]
        side = PEER_SCALE_PX * person["scale"] * 1.25 * self.rng.uniform(0.75, 1.25)
        angle, is_mirrored = np.radians(self.rng.uniform(-30, 30)), self.rng.random() < 0.5
        turn = self.size / side * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        warp = np.concatenate([turn, (self.size / 2 - turn @ np.array(person["center"]))[:, None]], axis=1)
        cut = cv2.warpAffine(image, warp, (self.size, self.size))
        joints = np.array(person["joints"]) @ turn.T + warp[:, 2]
        if is_mirrored:
            cut, joints = cut[:, ::-1], np.stack([self.size - 1 - joints[:, 0], joints[:, 1]], -1)
            joints = joints[MPII_16.flip_permutation]
        colours = cut.astype(np.float32) / 255.0 * self.rng.uniform(0.8, 1.2, 3).astype(np.float32)
        return np.clip(colours, 0, 1), self._heatmaps(joints / 4.0, np.array(person["joints_vis"]))

    def _heatmaps(self, joints: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """As the public code draws them: a patch of a Gaussian, put onto each map."""
        side = self.size // 4
        maps, radius = np.zeros((16, side, side), np.float32), int(3 * SIGMA)
        x = np.arange(2 * radius + 1, dtype=np.float32) - radius
        patch = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * SIGMA**2))
        for joint, (u, v) in enumerate(joints.astype(int)):
            left, top = u - radius, v - radius
            if not visible[joint] or left >= side or top >= side or u + radius < 0 or v + radius < 0:
                continue
            columns, rows = (
                slice(max(left, 0), min(u + radius + 1, side)),
                slice(max(top, 0), min(v + radius + 1, side)),
            )
            cut = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            maps[joint, rows, columns] = np.maximum(maps[joint, rows, columns], cut)
        return maps


class Ours:
    """The toolkit's way; what Lightning does around a step is left out of both."""

    def __init__(self, root: str, config: HourglassConfig, batch: int, device: torch.device, workers: int) -> None:
        self.device, self.batch = device, batch
        self.model = build_model(config).to(device)
        self.task = HeatmapTask(config, LossWeights(), "absolute")
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, fused=True)
        self.bits = precision_of("auto", device, "hourglass")
        changes = AugmentationConfig(rotation_deg=30.0, scale=(0.75, 1.25), translation=0.0)
        dataset = StreamingChunkedDataset(
            Path(root) / "train", fields=("image",), transform=PoseAugmentor(changes, config.input_size), seed=0
        )
        collate = Human36MCollator(config.skeleton, config.keypoint_skeleton, depth=False, keypoints=False)
        self.loader = StreamingLoader(dataset, global_batch=batch, collate=collate, num_workers=workers)
        self._batches = self._endless()

    def _endless(self) -> Iterator[PoseBatch]:
        while True:
            yield from self.loader

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bits == "bf16-mixed" else nullcontext()

    def train(self, steps: int) -> None:
        self.model.train()
        for _ in range(steps):
            batch = next(self._batches).to(self.device)
            with self._precision():
                loss = self.task.training_scalars(self.model, batch)["loss"]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def infer(self, pictures: np.ndarray) -> None:
        self.model.eval()
        for start in range(0, len(pictures), self.batch):
            image = torch.from_numpy(pictures[start : start + self.batch]).permute(0, 3, 1, 2).to(self.device)
            with self._precision():
                maps = self.model.heatmaps_of(image)[:, -1]
            peaks(maps)[0].cpu()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks-dir", required=True, help="folder with train/")
    parser.add_argument("--images", required=True, type=Path, help="folder with images/ and annotations/train.json")
    parser.add_argument("--stacks", type=int, default=2)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--input-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="of each turn")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="two rounds of two steps")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.steps = 2, 2
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    torch.manual_seed(0)
    device = train_device(args.device)
    config = model_config(
        "hourglass", "small", skeleton="mpii_16", channels=args.channels, depths=(4,) * args.stacks,
        input_size=args.input_size,
    )  # fmt: skip
    assert isinstance(config, HourglassConfig)
    ways = {
        "ours": Ours(args.chunks_dir, config, args.batch_size, device, args.workers),
        "peer": Peer(args.images, config, args.batch_size, device),
    }
    pictures = np.random.default_rng(0).integers(
        0, 256, (args.steps * args.batch_size, config.input_size, config.input_size, 3), dtype=np.uint8
    )
    rates: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in ways} for kind in ("training", "inference")}
    for way in ways.values():  # the first steps choose algorithms and fill buffers
        way.train(1)
        way.infer(pictures[: args.batch_size])
    for number in range(args.rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            for kind, work in (
                ("training", lambda way: way.train(args.steps)), ("inference", lambda way: way.infer(pictures)),
            ):  # fmt: skip
                start = time.perf_counter()
                work(ways[name])
                rates[kind][name].append(len(pictures) / (time.perf_counter() - start))
    print(f"{args.stacks} stacks, {args.channels} channels, {args.input_size} px, batches of {args.batch_size}")
    print(f"ours in {ways['ours'].bits}; {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("\n| | ours, images/s | peer | ratio | from - to |\n| --- | --- | --- | --- | --- |")
    figures: dict[str, Any] = {}
    for kind, found in rates.items():
        ratios = [ours / peer for ours, peer in zip(found["ours"], found["peer"], strict=True)]
        ours, peer = (statistics.median(found[name]) for name in ("ours", "peer"))
        spread = f"{min(ratios):.2f} - {max(ratios):.2f}"
        print(f"| {kind} | {ours:.1f} | {peer:.1f} | {statistics.median(ratios):.2f} | {spread} |")
        figures[kind] = {"ours": found["ours"], "peer": found["peer"], "ratio": statistics.median(ratios)}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
