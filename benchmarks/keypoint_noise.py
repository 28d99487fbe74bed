"""How wrong 2D keypoints are, by joint and by confidence: what the errors given to exact keypoints are made after.

    python benchmarks/keypoint_noise.py CHUNKS... [--json FILE] [--quick]

CHUNKS: sets of chunks whose keypoints a network found (preprocess.py, dataset_chunker.py) and whose joints have 2D
labels. Errors are shares of the person's size, the longer side of the box around its labelled joints. Beside them
stand those of `humanpose3d.dataset.keypoint_noise.DETECTOR` on the same joints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset
from humanpose3d.dataset.keypoint_noise import DETECTOR, PARTS, NoiseDraws, add_noise, person_size
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import get_skeleton, shared_joints

CONFIDENCES = (0.0, 0.3, 0.5, 0.8, 0.95, 1.01)
QUICK_SAMPLES = 200
DRAWS = 200  # of the model, for each person


class Errors(NamedTuple):
    """Of N joints."""

    kinds: np.ndarray  # str [N]: face, shoulder, ...
    score: np.ndarray  # [N]
    distance: np.ndarray  # [N], share of the person's size
    swapped: np.ndarray  # bool [N]: nearer to the other side's label than to its own


def measure(folders: list[str], limit: int | None) -> tuple[Errors, int]:
    """(the joints' errors, people)"""
    parts = [errors for folder in folders for errors in _read(folder, limit)]
    if not parts:
        raise ValueError(
            "no sample has both a network's keypoints and 2D labels; make chunks with preprocess.py's cues"
        )
    return _join(parts), len(parts)


def _read(folder: str, limit: int | None) -> Iterator[Errors]:
    dataset = StreamingChunkedDataset(folder, fields=(), shuffle=False)
    for position in range(len(dataset) if limit is None else min(limit, len(dataset))):
        sample = dataset[0, position]
        if sample.keypoints_px is not None and sample.joints_px is not None and sample.provenance.get("estimators"):
            yield _errors(sample, sample.keypoints_px, sample.keypoint_score)


def _errors(sample: PoseSample, keypoints_px: np.ndarray, score: np.ndarray | None) -> Errors:
    assert sample.joints_px is not None and score is not None and sample.skeleton and sample.keypoint_skeleton
    labels, keypoints = get_skeleton(sample.skeleton), get_skeleton(sample.keypoint_skeleton)
    of_labels, of_keypoints = shared_joints(labels, keypoints)
    found, truth = keypoints_px[of_keypoints], sample.joints_px[of_labels]
    other = sample.joints_px[labels.flip_permutation][of_labels]
    size = float(person_size(sample.joints_px))
    distance = np.linalg.norm(found - truth, axis=-1) / max(size, 1e-6)
    to_other = np.linalg.norm(found - other, axis=-1) / max(size, 1e-6)
    kinds = [keypoints.joints[joint].rpartition("_")[2] for joint in of_keypoints]
    kinds = [kind if kind in PARTS else "face" for kind in kinds]
    known = np.isfinite(distance)
    # Only where the sides lie apart does the nearer label say anything.
    apart = np.linalg.norm(truth - other, axis=-1) / max(size, 1e-6) > 0.05
    errors = Errors(np.array(kinds), score[of_keypoints], distance, apart & (to_other < 0.5 * distance))
    return Errors(*(part[known] for part in errors))


def imitate(errors: Errors, people: int) -> Errors:
    """What `DETECTOR` gives for as many joints of each kind, DRAWS times over; of no particular pose, so no swaps."""
    rng, skeleton = np.random.default_rng(0), get_skeleton("coco_17")
    number, joints = people * DRAWS, len(skeleton)
    points = np.zeros((number, 1, joints, 2), dtype=np.float32)
    points[:, 0, -1] = 1.0  # a person of size 1
    draws = NoiseDraws(
        rng.random((number, joints), dtype=np.float32),
        rng.random((number, joints), dtype=np.float32),
        np.ones((number, 3), dtype=np.float32),
        *(rng.standard_normal((2, number, 1, joints, 2), dtype=np.float32)),
    )
    score = np.ones(points.shape[:3], dtype=np.float32)
    noisy = add_noise(points, score, skeleton.name, draws, strength=np.ones(number), frame_s=np.zeros(number))
    distance = np.linalg.norm(noisy[0] - points, axis=-1)[:, 0]
    kinds = [joint.rpartition("_")[2] if joint.rpartition("_")[2] in PARTS else "face" for joint in skeleton.joints]
    present = [joint for joint, kind in enumerate(kinds) if kind in errors.kinds]
    tiled = np.tile(np.array(kinds)[present], number)
    return Errors(tiled, noisy[1][:, 0, present].ravel(), distance[:, present].ravel(), np.zeros(len(tiled), bool))


def _join(parts: list[Errors]) -> Errors:
    return Errors(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def groups(errors: Errors) -> Iterator[tuple[str, np.ndarray]]:
    """(name, bool [N]): all joints, then by kind, then by confidence."""
    yield "all", np.ones(len(errors.kinds), dtype=bool)
    for kind in PARTS:
        yield kind, errors.kinds == kind
    for low, high in zip(CONFIDENCES, CONFIDENCES[1:], strict=False):
        yield f"confidence {low:g} to {min(high, 1):g}", (errors.score >= low) & (errors.score < high)


def figures(errors: Errors) -> dict[str, dict[str, float]]:
    """By group: joints, median, p90, share of confidences under 0.5, share on the other side."""
    return {
        name: {
            "joints": int(rows.sum()),
            "median": float(np.median(errors.distance[rows])),
            "p90": float(np.quantile(errors.distance[rows], 0.9)),
            "under_half": float((errors.score[rows] < 0.5).mean()),
            "swapped": float(errors.swapped[rows].mean()),
        }
        for name, rows in groups(errors)
        if rows.any()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chunks", nargs="+", help="folders or remote:paths of chunks")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_SAMPLES} samples of each")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    errors, people = measure(args.chunks, QUICK_SAMPLES if args.quick else None)
    measured, modelled = figures(errors), figures(imitate(errors, min(people, 50)))
    print(f"{people} people; shares of the person's size; in brackets the model's: {DETECTOR.__class__.__name__}\n")
    print("| joints | number | median | 90th percentile | confidence under 0.5 | on the other side |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in measured.items():
        model = modelled.get(name)
        cells = [
            f"{row[key]:.3f}" + ("" if model is None else f" ({model[key]:.3f})")
            for key in ("median", "p90", "under_half")
        ]
        print(f"| {name} | {row['joints']} | {' | '.join(cells)} | {row['swapped']:.3f} |")
    if args.json:
        args.json.write_text(json.dumps({"people": people, "measured": measured, "modelled": modelled}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
