"""What infer.py's --smooth, and a lifter with a window, do to jitter and to the error, on videos of studio people.

    python benchmarks/smoothing.py [--json FILE] [--quick] [--work FOLDER]

Videos at 25 frames a second of the test people S9 and S11, with exact joints; infer.py with the packaged
networks, without depth, told the true focal length. Errors are about the root (the pelvis); jitter is the error of the
acceleration, from three frames in a row: what is steady and follows the motion has none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from humanpose3d.inference import infer
from humanpose3d.studio.film import cast_scene, film_scene
from humanpose3d.video import write_video

FPS = 25.0
TAKES = (("S9", 2), ("S11", 6), ("S9", 14), ("S11", 10), ("S9", 9), ("S11", 15))  # person, action
CAMERA, SIZE_PX = 1, 256
WAYS = {
    "lifter": ("lifter", False),
    "lifter --smooth": ("lifter", True),
    "lifter_window27": ("lifter_window27", False),
    "lifter_window27 --smooth": ("lifter_window27", True),
}


class Film(NamedTuple):
    """One video and the truth about it."""

    name: str
    focal_px: float
    joints_cam_m: np.ndarray  # [frames 17 3]


def film(folder: Path, person: str, action: int, frames: int) -> Film:
    scene = cast_scene(person, int(person[1:]), action, 1, size=SIZE_PX, fps=FPS)
    shots = [film_scene(scene, CAMERA, frame) for frame in range(frames)]
    name = f"{person}_{shots[0].action_name.replace(' ', '_')}.mp4"
    write_video(folder / name, (shot.image for shot in shots), FPS)
    return Film(name, float(shots[0].camera.K[0, 0]), np.stack([shot.joints_cam_m for shot in shots]))


def predicted(out: Path, film: Film) -> np.ndarray:
    """[frames 17 3], the person of the surest box; NaN where nobody was found."""
    found = np.full(film.joints_cam_m.shape, np.nan)
    for frame in range(len(found)):
        people = np.load(out / film.name / f"{frame:06d}_pred_joints3d.npy")
        if len(people):
            found[frame] = people[0]
    return found


def errors(found_m: np.ndarray, truth_m: np.ndarray) -> dict[str, float]:
    """Millimetres; of the accelerations, millimetres per frame squared."""
    relative_m = (found_m - found_m[:, :1]) - (truth_m - truth_m[:, :1])
    root_m = (found_m - truth_m)[:, :1]
    return {
        "mpjpe_mm": _mean_mm(relative_m),
        "acceleration_mm": _mean_mm(_acceleration(relative_m)),
        "root_mm": _mean_mm(root_m),
        "root_acceleration_mm": _mean_mm(_acceleration(root_m)),
        "not_found": float(np.isnan(found_m).any((1, 2)).mean()),
    }


def _mean_mm(differences_m: np.ndarray) -> float:
    return 1e3 * float(np.nanmean(np.linalg.norm(differences_m, axis=-1)))


def _acceleration(joints_m: np.ndarray) -> np.ndarray:
    return joints_m[2:] - 2 * joints_m[1:-1] + joints_m[:-2]


def measure(work: Path, frames: int, takes: int) -> dict[str, dict[str, float]]:
    videos = work / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    films = [film(videos, person, action, frames) for person, action in TAKES[:takes]]
    figures = {}
    for number, (way, (checkpoint, smooth)) in enumerate(WAYS.items()):
        parts = []
        for each in films:
            out = work / f"out_{number}"
            infer(
                input=[str(videos / each.name)], output_folder=out, checkpoint_path=checkpoint, smooth=smooth,
                yolo_model_path="studio", no_depth=True, focal_px=each.focal_px, joint_definitions="trained",
                device="cpu",
            )  # fmt: skip
            parts.append(errors(predicted(out, each), each.joints_cam_m))
        figures[way] = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=150, help="of each video")
    parser.add_argument("--quick", action="store_true", help="two videos of 40 frames")
    parser.add_argument("--work", type=Path, help="folder for videos and results (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    frames, takes = (40, 2) if args.quick else (args.frames, len(TAKES))
    with tempfile.TemporaryDirectory(prefix="hp3d-bench-") as temporary:
        figures = measure(args.work or Path(temporary), frames, takes)
    print(f"{takes} videos of {frames} frames at {FPS:g} a second\n")
    print("| | MPJPE, mm | acceleration error, mm/frame² | root, mm | root's acceleration error, mm/frame² |")
    print("| --- | --- | --- | --- | --- |")
    for way, row in figures.items():
        print(f"| {way} | {row['mpjpe_mm']:.1f} | {row['acceleration_mm']:.1f} | {row['root_mm']:.0f} |"
              f" {row['root_acceleration_mm']:.1f} |")  # fmt: skip
    missing = max(row["not_found"] for row in figures.values())
    print(f"\nFrames in which nobody was found: {100 * missing:.1f} %")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
