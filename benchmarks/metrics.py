"""Each metric of the published protocols beside an independent implementation, on random poses.

The second one shares no code and, where there is a choice, no method with ours: Horn's quaternions and SciPy's
orthogonal_procrustes for the similarity alignment, a numerical minimum for the scale, counting for shares and areas.

    python benchmarks/metrics.py [--quick] [--json FILE] [--markdown]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize_scalar
from scipy.spatial.transform import Rotation

from humanpose3d.metrics import (
    MM_PER_M,
    auc,
    auc_trapezoid,
    joint_error,
    pck,
    pckh,
    scale_align,
    similarity_align,
    velocity_error,
)

POSES, QUICK_POSES = 2000, 100
JOINTS = 17


class Comparison(NamedTuple):
    """One metric, twice."""

    metric: str
    by: str  # the other implementation
    unit: str
    ours: float
    theirs: float
    worst: float  # largest difference of one pose


def random_poses(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(predicted, labels): float64 [number J 3], root-relative metres, the predicted ones another size and far off."""
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(number, JOINTS, 3)) * 0.4
    predicted = 0.8 * labels + rng.normal(size=labels.shape) * 0.1
    return predicted - predicted[:, :1], labels - labels[:, :1]


def compare(number: int) -> list[Comparison]:
    """Every metric on `number` poses."""
    predicted, labels = random_poses(number, 7)
    ours_m, labels_m = torch.from_numpy(predicted), torch.from_numpy(labels)
    mask = torch.ones(number, JOINTS, dtype=torch.bool)
    aligned = _pose_means(similarity_align(ours_m, labels_m, mask), labels_m)
    scaled = _pose_means(scale_align(ours_m, labels_m, mask), labels_m)
    speed = MM_PER_M * velocity_error(ours_m[1:], ours_m[:-1], labels_m[1:], labels_m[:-1]).double().mean(1).numpy()
    steps = np.linalg.norm(np.diff(predicted, axis=0) - np.diff(labels, axis=0), axis=-1)
    rows = [
        _row("MPJPE", "NumPy's norm", "mm", _pose_means(ours_m, labels_m), MM_PER_M * _distances(predicted, labels)),
        _row("PA-MPJPE", "Horn's quaternions", "mm", aligned, _each(_horn, predicted, labels)),
        _row("PA-MPJPE", "scipy.linalg.orthogonal_procrustes", "mm", aligned, _each(_scipy, predicted, labels)),
        _row("N-MPJPE", "scipy.optimize.minimize_scalar", "mm", scaled, _each(_searched, predicted, labels)),
        _row("MPJVE", "numpy.diff over the whole take", "mm", speed, MM_PER_M * steps.mean(1)),
    ]
    errors_mm = np.random.default_rng(0).gamma(2.0, 40.0, (number, JOINTS))
    ours_mm, fives = torch.from_numpy(errors_mm), 5.0 * torch.arange(31, dtype=torch.float64)
    counted = np.array([[_share(row, 5 * step) for step in range(31)] for row in errors_mm.tolist()])
    rows.append(_row("PCK@150", "counting", "%", 100 * pck(ours_mm, 150.0).mean(1).numpy(), 100 * counted[:, 30]))
    rows.append(_row("AUC", "counting", "%", 100 * auc(ours_mm, fives).mean(1).numpy(), 100 * counted.mean(1)))
    hand_mm, thresholds = errors_mm / 5, np.linspace(0.0, 50.0, 100)
    curves = np.stack([(hand_mm <= threshold).mean(1) for threshold in thresholds], axis=1)
    areas = 100 * auc_trapezoid(torch.from_numpy(hand_mm), 50.0, 100).mean(1).numpy()
    rows.append(_row("AUC 0-50 mm", "numpy.trapezoid", "%", areas, 2 * np.trapezoid(curves, thresholds, axis=1)))
    distances_px, heads_px = errors_mm / 2, np.random.default_rng(1).uniform(20, 120, number)
    hits = [100 * np.mean([far / head <= 0.5 for far in row]) for row, head in zip(distances_px, heads_px, strict=True)]
    shares = 100 * pckh(torch.from_numpy(distances_px), torch.from_numpy(heads_px)).mean(1).numpy()
    return [*rows, _row("PCKh@0.5", "counting", "%", shares, np.array(hits))]


def _row(metric: str, by: str, unit: str, ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    return Comparison(metric, by, unit, float(ours.mean()), float(theirs.mean()), float(np.abs(ours - theirs).max()))


def _pose_means(predicted_m: torch.Tensor, labels_m: torch.Tensor) -> np.ndarray:
    return MM_PER_M * joint_error(predicted_m, labels_m).double().mean(1).numpy()


def _distances(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.linalg.norm(predicted - labels, axis=-1).mean(1)


def _each(error_m, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return MM_PER_M * np.array([error_m(one, other) for one, other in zip(predicted, labels, strict=True)])


def _horn(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Horn 1987: the rotation is the top eigenvector, a quaternion, of a 4x4 matrix."""
    a, b = predicted - predicted.mean(0), labels - labels.mean(0)
    s = a.T @ b
    delta = np.array([s[1, 2] - s[2, 1], s[2, 0] - s[0, 2], s[0, 1] - s[1, 0]])
    n = np.zeros((4, 4))
    n[0, 0] = np.trace(s)
    n[0, 1:] = n[1:, 0] = delta
    n[1:, 1:] = s + s.T - np.trace(s) * np.eye(3)
    w, x, y, z = np.linalg.eigh(n)[1][:, -1]
    turned = Rotation.from_quat([x, y, z, w]).apply(a)
    return float(np.linalg.norm((turned * b).sum() / (a**2).sum() * turned - b, axis=-1).mean())


def _scipy(predicted: np.ndarray, labels: np.ndarray) -> float:
    a, b = predicted - predicted.mean(0), labels - labels.mean(0)
    turn, size = orthogonal_procrustes(a, b)
    assert np.linalg.det(turn) > 0, "SciPy's may mirror, ours does not; these poses need no mirror"
    return float(np.linalg.norm(size / (a**2).sum() * a @ turn - b, axis=-1).mean())


def _searched(predicted: np.ndarray, labels: np.ndarray) -> float:
    best = minimize_scalar(lambda scale: ((scale * predicted - labels) ** 2).sum(), options={"xtol": 1e-12}).x
    return float(np.linalg.norm(best * predicted - labels, axis=-1).mean())


def _share(errors: list[float], threshold: float) -> float:
    return sum(1 for error in errors if error < threshold) / len(errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_POSES} poses instead of {POSES}")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/EVALUATION.md")
    arguments = parser.parse_args()
    number = QUICK_POSES if arguments.quick else POSES
    rows = compare(number)
    edge = "| " if arguments.markdown else ""
    print(f"{edge}metric | the other implementation | ours | the other | largest difference of one of {number} poses")
    if arguments.markdown:
        print("| --- | --- | --- | --- | --- |")
    for row in rows:
        figures = f"{row.ours:.6f} {row.unit} | {row.theirs:.6f} {row.unit} | {row.worst:.0e} {row.unit}"
        print(f"{edge}{row.metric} | {row.by} | {figures}")
    if arguments.json:
        arguments.json.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
