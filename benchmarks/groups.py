"""Several people in one picture: do they stand on one plane, and are left and right as the labels have them?

    python benchmarks/groups.py [--yolo WEIGHTS] [--flip-test] [--checkpoint NAME] [--first SEED] [--quick]

Scenes of three of the studio's people beside each other, at different distances; the pipeline without depth network,
told the focal length. A pair of joints (left and right wrist, say) agrees where the predicted one lies to the same side
as the labelled one: the vectors from right to left have a positive product. Pairs nearer to each other than 5 cm are
left out. --json FILE writes the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.pipeline import Pipeline
from humanpose3d.skeletons import H36M_17
from humanpose3d.studio.film import cast_scene, film_group

SIZE_PX = 512
CAMERA = 1
PEOPLE = 3
ACTIONS = (2, 3, 5, 6, 13, 14, 15)  # on their feet
APART_M = 0.05
SAME_PX = 0.1  # mean distance of a found person's joints from a labelled one's, share of the picture
ANKLES = [H36M_17.index("left_ankle"), H36M_17.index("right_ankle")]
LEFT = [joint for joint, side in enumerate(H36M_17.sides) if side == "left"]
RIGHT = [H36M_17.flip_permutation[joint] for joint in LEFT]


class Group(NamedTuple):
    """One picture of several people."""

    image: np.ndarray
    camera: Camera
    joints_cam_m: np.ndarray  # [people 17 3]


def film(seed: int) -> Group:
    rng = np.random.default_rng(seed)
    cameras = cast_scene("group", 300 + seed, ACTIONS[0], 1, size=SIZE_PX).cameras
    right, ahead = cameras[CAMERA].R[0], cameras[CAMERA].R[2] * (1, 1, 0) / np.linalg.norm(cameras[CAMERA].R[2, :2])
    people = []
    for number in range(PEOPLE):
        scene = cast_scene("guest", 1000 + PEOPLE * seed + number, int(rng.choice(ACTIONS)), 1, size=SIZE_PX)
        frame = int(rng.integers(8))
        stand_m = (number - (PEOPLE - 1) / 2) * right + rng.uniform(-0.5, 1.0) * ahead
        x, y, _ = stand_m - scene.joints_at(frame).h36m[H36M_17.root_index]
        people.append((dataclasses.replace(scene, cameras=cameras, moved_m=(float(x), float(y))), frame))
    frames = film_group(people, CAMERA, seed=PEOPLE * seed)
    return Group(frames[0].image, cameras[CAMERA], np.stack([frame.joints_cam_m for frame in frames]))


def found_in(group: Group, pipeline: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """([N 17 3] predicted, [N 17 3] labelled) of the people that were found."""
    pipeline.focal_px = float(group.camera.K[0, 0])
    people = pipeline.predict(group.image)
    if not people:
        return np.zeros((0, 17, 3)), np.zeros((0, 17, 3))
    places = np.stack([person.joints_px for person in people])[:, None]
    apart = np.linalg.norm(places - camera_to_pixel(group.joints_cam_m, group.camera)[None], axis=-1).mean(-1)
    rows, columns = linear_sum_assignment(apart)
    same = apart[rows, columns] < SAME_PX * SIZE_PX
    joints = np.stack([person.joints_cam_m for person in people])
    return joints[rows[same]], group.joints_cam_m[columns[same]]


def off_plane_m(joints_cam_m: np.ndarray) -> np.ndarray:
    """[2 people]: distances of the ankles from the plane that fits them best."""
    ankles = joints_cam_m[:, ANKLES].reshape(-1, 3)
    centred = ankles - ankles.mean(0)
    return np.abs(centred @ np.linalg.svd(centred)[2][2])


def off_level_m(joints_cam_m: np.ndarray, camera: Camera) -> np.ndarray:
    """[2 people]: how much higher or lower they are than the middle one, along the true vertical."""
    heights = joints_cam_m[:, ANKLES].reshape(-1, 3) @ camera.R[:, 2]
    return np.abs(heights - np.median(heights))


def agreeing(predicted_m: np.ndarray, labels_m: np.ndarray) -> np.ndarray:
    """bool, one for each pair of joints that lie apart."""
    found, true = (joints[:, LEFT] - joints[:, RIGHT] for joints in (predicted_m, labels_m))
    return ((found * true).sum(-1) > 0)[np.linalg.norm(true, axis=-1) > APART_M]


def measure(pipeline: Pipeline, seeds: range) -> dict[str, float]:
    planes, levels, sides, people = [], [], [], 0
    for seed in seeds:
        group = film(seed)
        predicted, labels = found_in(group, pipeline)
        people += len(predicted)
        sides.append(agreeing(predicted, labels))
        if len(predicted) > 1:
            planes.append(off_plane_m(predicted))
            levels.append(off_level_m(predicted, group.camera))
    plane, level, side = np.concatenate(planes), np.concatenate(levels), np.concatenate(sides)
    return {
        "people": len(seeds) * PEOPLE,
        "found": people,
        "ankles_within_15_cm_of_a_plane": float((plane < 0.15).mean()),
        "farthest_from_the_plane_m": float(plane.max()),
        "ankles_within_15_cm_of_the_level_ground": float((level < 0.15).mean()),
        "pairs": len(side),
        "pairs_agree": float(side.mean()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yolo", default="studio", help="weights of the detector (default: the packaged one's)")
    parser.add_argument("--checkpoint", default="lifter")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="seed of the first scene")
    parser.add_argument("--flip-test", action="store_true")
    parser.add_argument("--quick", action="store_true", help="10 scenes")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    pipeline = Pipeline(
        args.checkpoint, yolo_model=args.yolo, depth_model=None, joint_definitions="trained", flip_test=args.flip_test
    )
    figures = measure(pipeline, range(args.first, args.first + (10 if args.quick else args.scenes)))
    print("| | |\n| --- | --- |")
    for name, value in figures.items():
        print(f"| {name.replace('_', ' ')} | {value:.3g} |")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
