"""PARE beside the iterative regressor on the studio's people: accuracy, what an occluder costs, where attention looks.

    python benchmarks/body.py --chunks-dir ROOT --body-model DIR --work DIR [--images 80000] [--json FILE] [--quick]

ROOT: train/ and val/ of `humanpose3d fake threedpw` (or 3DPW itself); DIR of --body-model: `humanpose3d fake smpl`.
All see the same number of images in the same order with the same augmentation: PARE at one learning rate, the baseline
at two, of which the better counts. A run that is in --work already is not trained again. An occluder is a grey
rectangle over 40 % of the person's box, its place drawn anew for each person. A part's attention is right where its
peak lies on the part's own cells of the labelled body; parts that show no cell are left out.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from humanpose3d.config import AugmentationConfig, TrainConfig
from humanpose3d.dataset.augmentation import fit_view
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.model_config import model_config
from humanpose3d.models.checkpoint import load_model
from humanpose3d.sample import PoseSample
from humanpose3d.tasks import TASKS
from humanpose3d.tasks.body import BodyTask
from humanpose3d.tasks.evaluation import mean_body, score_mean_body
from humanpose3d.train import train_model

RUNS = {"pare": ("pare", 1e-3), "baseline": ("baseline", 1e-3), "baseline, lower rate": ("baseline", 3e-4)}
OCCLUDED = 0.4  # of the person's box
GREY = 127
MOST_OF_MEAN, MOST_OF_LOSS, LEAST_ATTENTION = 0.5, 2 / 3, 0.8  # the goals


class Occluded:
    """The model's view with a rectangle of the box's own proportions over the person."""

    def __init__(self, size: int, share: float) -> None:
        self.size, self.share = size, share

    def __call__(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        view = fit_view(sample, self.size)
        if not self.share:
            return view
        assert view.image is not None and view.box_px is not None
        x0, y0, x1, y1 = view.box_px
        side = math.sqrt(self.share)
        left, top = x0 + rng.random() * (1 - side) * (x1 - x0), y0 + rng.random() * (1 - side) * (y1 - y0)
        image = view.image.copy()
        right, bottom = left + side * (x1 - x0), top + side * (y1 - y0)
        image[round(top) : round(bottom) + 1, round(left) : round(right) + 1] = GREY
        return view.with_(image=image)


def settings(head: str, rate: float, name: str, args: argparse.Namespace) -> TrainConfig:
    return TrainConfig(
        chunks_dir=args.chunks_dir, model_type="hps", model_size="tiny", head=head, body_model=args.body_model,
        batch_size=args.batch_size, gradient_accumulation_steps=1, max_steps=args.images // args.batch_size,
        epochs=10_000, optimizer="adam", learning_rate=rate, weight_decay=0.0, warmup_steps=200, ema_decay=0.999,
        eval_interval=10**9, checkpoint_interval=10**9, num_workers=1, log_dir=args.work, exp=name, device=args.device,
        augmentation=AugmentationConfig(
            rotation_deg=15.0, scale=(0.85, 1.15), translation=0.03, occlusion=0.5, occlusion_size=(0.1, 0.5)
        ),
    )  # fmt: skip


def loader(args: argparse.Namespace, part: str, share: float, size: int, **options: Any) -> StreamingLoader:
    dataset = StreamingChunkedDataset(
        Path(args.chunks_dir) / part, fields=options.get("fields", ("image",)), transform=Occluded(size, share),
        shuffle=False, cache_dir=args.work / "cache",
    )  # fmt: skip
    collate = Human36MCollator("smpl_24", "coco_17", depth=False, keypoints=False, bodies=True)
    return StreamingLoader(dataset, global_batch=32, collate=collate, training=False)


def measure(checkpoint: Path, share: float, args: argparse.Namespace) -> dict[str, float]:
    """The scores of a checkpoint, and the share of parts whose attention peaks on the part."""
    loaded = load_model(checkpoint, args.device)
    task = TASKS["hps"](loaded.config, settings("pare", 1e-3, "", args))
    assert isinstance(task, BodyTask)
    metrics, right, shown = task.metrics(), 0, 0
    with torch.inference_mode():
        for batch in loader(args, "val", share, loaded.config.input_size):
            batch = batch.to(args.device)
            found = task.predict(loaded.model, batch)
            metrics.update(found, batch)
            if found.part_maps is not None:
                parts = task.part_targets(found, batch).flatten(1)  # [B cells]
                peak = found.part_maps[:, 1:].flatten(2).argmax(-1)  # [B 24]
                number = torch.arange(1, 25, device=parts.device)
                shows = (parts[:, None] == number[:, None]).any(-1) & batch.counted[:, None]
                right += int(((parts.gather(1, peak) == number) & shows).sum())
                shown += int(shows.sum())
    scores = {name: float(value) for name, value in metrics.compute().items() if "/" not in name}
    return scores | ({"attention": right / shown} if shown else {})


def floor(args: argparse.Namespace) -> float:
    """PA-MPJPE, over the joints that the models are measured on, of always answering with the mean training pose."""
    task = TASKS["hps"](model_config("hps", "tiny"), settings("pare", 1e-3, "", args))
    assert isinstance(task, BodyTask)
    scored_m = mean_body(loader(args, "train", 0.0, 160, fields=()), task)
    return score_mean_body(scored_m, loader(args, "val", 0.0, 160, fields=()), task)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks-dir", required=True)
    parser.add_argument("--body-model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=80_000, help="each run sees")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a minute: the machinery, not the figures")
    args = parser.parse_args()
    if args.quick:
        args.images = 10 * args.batch_size
    found: dict[str, Any] = {"images": args.images, "mean_pose_pa_mpjpe_mm": floor(args), "runs": {}}
    for name, (head, rate) in RUNS.items():
        run = name.replace(", ", "_").replace(" ", "_")
        told = args.work / run / "train_report.json"
        if not told.is_file():
            train_model(settings(head, rate, run, args))
        facts = json.loads(told.read_text())
        best = args.work / run / "checkpoints" / "last.pth"
        clean, hidden = measure(best, 0.0, args), measure(best, OCCLUDED, args)
        minutes = args.images / facts["samples_per_second"] / 60
        found["runs"][name] = {"minutes": minutes, "rate": rate, "clean": clean, "occluded": hidden}
        print(
            f"{name:<22} {minutes:5.1f} min  PA-MPJPE {clean['pa_mpjpe_mm']:6.1f} mm  MPJPE {clean['mpjpe_mm']:6.1f}  "
            f"vertices {clean['vertex_error_mm']:6.1f}  occluded: PA-MPJPE {hidden['pa_mpjpe_mm']:6.1f}  "
            + (f"attention {clean['attention']:.0%}" if "attention" in clean else ""),
            flush=True,
        )
    pare = found["runs"]["pare"]
    baseline = min(
        (found["runs"][name] for name in RUNS if name != "pare"), key=lambda run: run["clean"]["pa_mpjpe_mm"]
    )
    loss = {
        which: run["occluded"]["pa_mpjpe_mm"] - run["clean"]["pa_mpjpe_mm"]
        for which, run in (("pare", pare), ("baseline", baseline))
    }
    found["of_mean_pose"] = pare["clean"]["pa_mpjpe_mm"] / found["mean_pose_pa_mpjpe_mm"]
    found["loss_ratio"] = loss["pare"] / loss["baseline"]
    print(
        f"mean pose {found['mean_pose_pa_mpjpe_mm']:.1f} mm; PARE has {found['of_mean_pose']:.2f} of it (at most "
        f"{MOST_OF_MEAN}), and loses {loss['pare']:.1f} mm to an occluder where the baseline loses "
        f"{loss['baseline']:.1f}: {found['loss_ratio']:.2f} (at most {MOST_OF_LOSS:.2f}); attention on its part in "
        f"{pare['clean']['attention']:.0%} (at least {LEAST_ATTENTION:.0%})"
    )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
