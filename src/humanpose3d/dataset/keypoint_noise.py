"""The errors of a 2D pose network, for keypoints that are exact: motion capture filmed by virtual cameras.

`benchmarks/keypoint_noise.py` measures them on any chunks with labels and prints the table the numbers come from.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from humanpose3d.skeletons import get_skeleton

DEFAULT_FPS = 25.0  # of a window that does not say
LIMBS = (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle"))  # swapped as a whole, arms or legs


@dataclass(frozen=True)
class PartNoise:
    """Errors of one kind of joint."""

    jitter: float  # of a joint well seen: standard deviation along x and y, share of the person's size
    unsure: (
        float  # chance that it is hidden or mistaken: then the error is `DetectorNoise.unsure_factor` times as large
    )


@dataclass(frozen=True)
class DetectorNoise:
    """Errors of YOLO pose, by joint and confidence. The person's size is the longer side of its keypoints' box.

    Medians and 90th percentiles of YOLOv8n-pose on 13 people of Human3.6M, MPI-INF-3DHP, MPII and COCO (150 joints),
    shares of the size: face 0.012 0.018, shoulder 0.023 0.051, elbow 0.027 0.084, wrist 0.023 0.091, hip 0.048 0.098,
    knee 0.021 0.089, ankle 0.035 0.23; at a confidence below 0.5 0.089 0.23, above 0.95 0.025 0.059. A Gaussian's
    median distance is 1.18 and its 90th percentile 2.15 standard deviations, so the tails are a second, wider one.
    Hips and shoulders are given less than measured: part of theirs is that corpora mean different spots by the name.
    """

    face: PartNoise = PartNoise(jitter=0.010, unsure=0.05)
    shoulder: PartNoise = PartNoise(jitter=0.016, unsure=0.05)
    elbow: PartNoise = PartNoise(jitter=0.019, unsure=0.10)
    wrist: PartNoise = PartNoise(jitter=0.018, unsure=0.14)
    hip: PartNoise = PartNoise(jitter=0.022, unsure=0.05)
    knee: PartNoise = PartNoise(jitter=0.017, unsure=0.09)
    ankle: PartNoise = PartNoise(jitter=0.022, unsure=0.14)
    unsure_factor: float = 4.0
    """Jitter of an unsure joint against that of one well seen."""
    lost: float = 0.015
    """Chance that a joint is a mere guess, of low confidence, `lost_jitter` away."""
    lost_jitter: float = 0.12
    """Standard deviation of a lost joint's error, share of the person's size."""
    swapped: float = 0.01
    """Chance that left and right are taken for each other in the whole person, as in views from behind."""
    limbs_swapped: float = 0.015
    """Chance of the same in the arms alone, and in the legs alone."""
    sure_score: float = 0.88
    """Lowest confidence of a joint well seen; the median of YOLO's is 0.96."""
    unsure_score: tuple[float, float] = (0.3, 0.97)
    """Confidence of an unsure joint, uniform. It overlaps with the sure ones: so do YOLO's."""
    lost_score: tuple[float, float] = (0.02, 0.3)
    """Confidence of a lost joint, uniform."""
    memory_s: float = 0.4
    """Time after which errors of a video's frames have forgotten 63 % of what they were."""
    slow: float = 0.8
    """Share of the variance that is remembered so; the rest is each frame's own."""

    def part(self, joint: str) -> PartNoise:
        """Of a joint by its name; every point of the head is of the face."""
        kind = joint.rpartition("_")[2]
        return getattr(self, kind) if kind in PARTS else self.face


PARTS = tuple(field.name for field in dataclasses.fields(DetectorNoise) if isinstance(field.default, PartNoise))
DETECTOR = DetectorNoise()


class _Table(NamedTuple):
    """A skeleton's numbers as arrays [J]."""

    jitter: np.ndarray  # float32
    unsure: np.ndarray
    mirrors: tuple[np.ndarray, ...]  # permutations: the whole person, then each of LIMBS


@lru_cache
def _table(noise: DetectorNoise, skeleton: str) -> _Table:
    joints = get_skeleton(skeleton).joints
    parts = [noise.part(joint) for joint in joints]
    flip, stay = get_skeleton(skeleton).flip_permutation, np.arange(len(joints))
    limbs = [np.where([joint.rpartition("_")[2] in limb for joint in joints], flip, stay) for limb in LIMBS]
    return _Table(
        np.array([part.jitter for part in parts], dtype=np.float32),
        np.array([part.unsure for part in parts], dtype=np.float32),
        (flip, *limbs),
    )


def add_noise(
    keypoints: np.ndarray,
    skeleton: str,
    rng: np.random.Generator,
    *,
    strength: float = 1.0,
    fps: float | None = None,
    noise: DetectorNoise = DETECTOR,
) -> np.ndarray:
    """float32 [T J 3] (x, y, score) of one person's frames, exact -> the same as a detector would have found them.

    The middle frame says how large the person is. strength: scales errors and their chances; 0 changes nothing.
    fps: of the frames, for what they remember of one another. Missing joints stay missing. One call draws the same
    number of random values whatever the keypoints are.
    """
    table = _table(noise, skeleton)
    frames, joints = keypoints.shape[:2]
    chance, level = rng.random((2, joints), dtype=np.float32)
    swap = rng.random(1 + len(LIMBS), dtype=np.float32)
    error = rng.standard_normal((frames, joints, 2), dtype=np.float32)
    if frames > 1:
        error = _remember(error, rng.standard_normal(error.shape, dtype=np.float32), noise, fps or DEFAULT_FPS)
    lost = chance < strength * noise.lost
    unsure = chance < strength * (noise.lost + table.unsure)
    jitter = np.where(unsure, noise.unsure_factor * table.jitter, table.jitter)
    jitter = strength * np.where(lost, np.float32(noise.lost_jitter), jitter)
    sure_score = 1.0 - (1.0 - noise.sure_score) * level**1.5 * min(strength, 1.0)
    score = np.where(unsure, _between(noise.unsure_score, level), sure_score)
    score = np.where(lost, _between(noise.lost_score, level), score)
    found = keypoints.copy()
    found[..., :2] += person_size(keypoints[frames // 2]) * jitter[:, None] * error
    found[..., 2] *= score
    for mirror, drawn, limit in zip(table.mirrors, swap, (noise.swapped, *[noise.limbs_swapped] * 2), strict=True):
        if drawn < strength * limit:
            found = found[:, mirror]
    return found


def person_size(keypoints: np.ndarray) -> np.float32:
    """The longer side of the box around one person's keypoints [J 2 or more], px; 0 where there are none."""
    points = keypoints[np.isfinite(keypoints[:, 0]), :2]
    return (points.max(0) - points.min(0)).max() if len(points) else np.float32(0.0)


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * share


def _remember(own: np.ndarray, news: np.ndarray, noise: DetectorNoise, fps: float) -> np.ndarray:
    """Errors [T J 2] of unit variance, made of unit errors: a part is each frame's own, a part moves slowly (AR(1))."""
    keep = float(np.exp(-1.0 / (fps * noise.memory_s)))
    fresh = float(np.sqrt(1.0 - keep**2))
    slow = news  # written over frame by frame
    for frame in range(1, len(slow)):
        slow[frame] = keep * slow[frame - 1] + fresh * news[frame]
    return float(np.sqrt(noise.slow)) * slow + float(np.sqrt(1.0 - noise.slow)) * own
