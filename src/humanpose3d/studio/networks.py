"""The studio's own small networks, a pose model (Ultralytics) and a depth model (DepthPro): training and measuring.

    python -m humanpose3d.studio.networks keypoints --seed 0 --minutes 40
    python -m humanpose3d.studio.networks depth --seed 0 --minutes 40
    python -m humanpose3d.studio.networks measure

Both are stored in the formats of the real ones: what loads `yolo11x-pose.pt` and `apple/DepthPro-hf` loads them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from humanpose3d.studio.depth_network import DEPTH_WEIGHTS, measure_depth, train_depth
from humanpose3d.studio.lessons import IMAGE_SIZE, unseen_frames
from humanpose3d.studio.pose_network import POSE_WEIGHTS, measure_pose, train_pose

FIGURES_FILE = POSE_WEIGHTS.parent / "figures.json"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train or measure the studio's networks.")
    parser.add_argument("what", choices=("keypoints", "depth", "measure"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=40.0, help="how long to train")
    parser.add_argument("--images", type=int, default=2600, help="frames to film and train on")
    parser.add_argument("--workplace", type=Path, help="folder for filmed frames, kept; a temporary one by default")
    parser.add_argument("--out", type=Path, help="where to store the weights; the package by default")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE, help="pixels the pose model is trained at")
    parser.add_argument("--batch", type=int, default=32, help="pictures a step of the pose model's training")
    parser.add_argument("--groups", type=float, default=0.0, help="share of the pictures with 2 to 4 people")
    parser.add_argument("--frames", type=int, default=240, help="frames to measure on")
    given = parser.parse_args(arguments)
    settings: dict[str, Any] = {
        "seed": given.seed,
        "minutes": given.minutes,
        "images": given.images,
        "groups_share": given.groups,
        "workplace": given.workplace,
        "start": given.start,
    }
    if given.what == "keypoints":
        print(train_pose(given.out or POSE_WEIGHTS, image_size=given.image_size, batch=given.batch, **settings))
    elif given.what == "depth":
        print(train_depth(given.out or DEPTH_WEIGHTS, **settings))
    else:
        frames = unseen_frames(given.frames)
        figures = {"keypoints": asdict(measure_pose(frames=frames)), "depth": asdict(measure_depth(frames=frames))}
        FIGURES_FILE.write_text(json.dumps(figures, indent=2) + "\n")
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
