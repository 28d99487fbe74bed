"""docs/INFERENCE.md and docs/VALIDATION.md anew, from what `make demo` left in demo/: `make galleries`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from humanpose3d.config import LossWeights
from humanpose3d.dataset.augmentation import FitView
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.metrics import joint_error
from humanpose3d.models.checkpoint import load_model
from humanpose3d.sample import PoseBatch
from humanpose3d.tasks.lifting import LiftingTask

DOCS = Path(__file__).resolve().parent
DEMO = DOCS.parent / "demo"
CHECKPOINT = DEMO / "logs/demo/checkpoints/best_model.pth"
PANELS = 6
PERCENTILES = (0, 25, 50, 75, 95, 100)  # of the error: the best sample, the worst, and those between
WIDTH = 900  # px of a stored picture


def main() -> None:
    if not (DEMO / "report.json").exists():
        raise SystemExit("demo/report.json is missing; run make demo first")
    (DOCS / "images").mkdir(exist_ok=True)
    report = json.loads((DEMO / "report.json").read_text())
    write_inference(report)
    write_validation(report)


def write_inference(report: dict) -> None:
    """The demo's panels."""
    lines = [
        "# What infer.py draws",
        "",
        "Frames of the studio's S9, whom neither the lifter nor the two tiny networks saw in training, and the demo's",
        "model. Top: the image, and the 2D keypoints found in it. Bottom: the depth map, and the 3D pose in metres.",
        "Made by `make demo` and `make galleries`.",
        "",
    ]
    # The README shows the first: the frame whose keypoints the network is surest of.
    panels = sorted(report["panels"][:PANELS], key=lambda panel: -least_confidence(panel))
    for number, panel in enumerate(panels):
        name = "panel.png" if number == 0 else f"inference_{number}.jpg"
        store(Image.open(DOCS.parent / panel), name)
        lines += [f"![{Path(panel).name}](images/{name})", ""]
    (DOCS / "INFERENCE.md").write_text("\n".join(lines))


def least_confidence(panel: str) -> float:
    """The lowest confidence among the keypoints of a panel's best person."""
    found = json.loads((DOCS.parent / panel.replace("_combined_viz.png", ".json")).read_text())
    return min(found["people"][0]["confidences"], default=0.0) if found["people"] else 0.0


def write_validation(report: dict) -> None:
    """Predictions beside the truth, from the best sample of the unseen subjects to the worst."""
    errors_mm, pictures = predictions()
    order = np.argsort(errors_mm)
    lines = [
        "# Predictions beside the truth",
        "",
        f"The demo's model on {report['samples']} samples of S9 and S11, unseen in training:",
        f"{report['mpjpe_mm']:.1f} mm MPJPE, {report['pa_mpjpe_mm']:.1f} mm after similarity alignment; always",
        f"answering with the mean training pose costs {report['mean_pose_mpjpe_mm']:.1f} mm. Left: the model's input",
        "with the 2D keypoints; then the predicted pose (coloured) over the true one (dark) from two sides. Not chosen",
        "by hand: the samples at these percentiles of the error. Made by `make demo` and `make galleries`.",
        "",
    ]
    for percentile in PERCENTILES:
        row = order[round(percentile / 100 * (len(order) - 1))]
        name = f"validation_{percentile}.jpg"
        store(Image.fromarray(pictures(int(row))), name)
        lines += [f"Percentile {percentile}: {errors_mm[row]:.0f} mm", "", f"![](images/{name})", ""]
    (DOCS / "VALIDATION.md").write_text("\n".join(lines))


def predictions():
    """Error of each validation sample in mm, and a function that draws one."""
    loaded = load_model(CHECKPOINT, "cpu")
    config = loaded.config
    task = LiftingTask(config, LossWeights(), "root_relative")
    root = str(DEMO / "shuffled/test")
    dataset = StreamingChunkedDataset(root, fields=config.needs, transform=FitView(config.input_size), shuffle=False)
    collate = Human36MCollator(config.skeleton, config.keypoint_skeleton, depth=config.use_depth)
    loader = StreamingLoader(dataset, global_batch=1, collate=collate, training=False)
    batches: list[PoseBatch] = list(loader)
    with torch.inference_mode():
        answers = [task.predict(loaded.model, batch) for batch in batches]
    root_index = task.skeleton.root_index
    errors_mm = [
        1e3
        * float(joint_error(answer.joints_rel_m, batch.joints_cam_m - batch.joints_cam_m[:, root_index, None]).mean())
        for answer, batch in zip(answers, batches, strict=True)
    ]
    return np.array(errors_mm), lambda row: task.previews(answers[row], batches[row], 1)[0]


def store(picture: Image.Image, name: str) -> None:
    picture = picture.convert("RGB")
    picture.thumbnail((WIDTH, WIDTH * 2), Image.Resampling.LANCZOS)
    picture.save(DOCS / "images" / name, quality=88)


if __name__ == "__main__":
    main()
