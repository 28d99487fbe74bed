"""The errors of the 2D pose and depth networks, for exact input: motion capture filmed by virtual cameras.

`benchmarks/keypoint_noise.py` measures the first on any chunks with labels and prints the table the numbers come from.
All is for whole batches, and of random values drawn before, sample by sample: what comes does not depend on the batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from humanpose3d.skeletons import get_skeleton

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

    Medians and 90th percentiles of YOLOv8n-pose on 12 people of Human3.6M, MPI-INF-3DHP, MPII and COCO (150 joints),
    shares of the size: face 0.012 0.018, shoulder 0.023 0.051, elbow 0.027 0.084, wrist 0.023 0.091, hip 0.048 0.098,
    knee 0.021 0.089, ankle 0.035 0.23; at a confidence below 0.5 0.089 0.23, above 0.95 0.025 0.059. A Gaussian's
    median distance is 1.18 and its 90th percentile 2.15 standard deviations, so the tails are a second, wider one.
    Hips and shoulders are given less than measured: part of theirs is that corpora mean different spots by the name.
    """

    face: PartNoise = PartNoise(jitter=0.010, unsure=0.05)
    shoulder: PartNoise = PartNoise(jitter=0.016, unsure=0.05)
    elbow: PartNoise = PartNoise(jitter=0.019, unsure=0.12)
    wrist: PartNoise = PartNoise(jitter=0.018, unsure=0.16)
    hip: PartNoise = PartNoise(jitter=0.022, unsure=0.05)
    knee: PartNoise = PartNoise(jitter=0.016, unsure=0.12)
    ankle: PartNoise = PartNoise(jitter=0.022, unsure=0.17)
    unsure_factor: float = 5.0
    """Jitter of an unsure joint against that of one well seen."""
    lost: float = 0.015
    """Chance that a joint is a mere guess, of low confidence, `lost_jitter` away."""
    lost_jitter: float = 0.12
    """Standard deviation of a lost joint's error, share of the person's size."""
    swapped: float = 0.01
    """Chance that left and right are taken for each other in the whole person, as in views from behind."""
    limbs_swapped: float = 0.015
    """Chance of the same in the arms alone, and in the legs alone."""
    sure_score: float = 0.7
    """Lowest confidence of a joint well seen; three in four of YOLO's are above 0.95."""
    unsure_score: tuple[float, float] = (0.3, 0.99)
    """Confidence of an unsure joint, uniform. It overlaps with the sure ones: so do YOLO's."""
    lost_score: tuple[float, float] = (0.02, 0.3)
    """Confidence of a lost joint, uniform."""
    hidden_factor: float = 3.0
    """Jitter of a joint that the body itself hides, and that is known to be so, against that of one well seen."""
    hidden_score: tuple[float, float] = (0.15, 0.85)
    """Its confidence, uniform. YOLO's of a far ear or arm, or of a nose from behind, is mostly 0.2 to 0.8."""
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


class NoiseDraws(NamedTuple):
    """The random values behind the errors of B samples: uniform in 0..1, and normal."""

    chance: np.ndarray  # float32 [B J]: of being unsure or lost
    level: np.ndarray  # float32 [B J]: of the confidence
    swap: np.ndarray  # float32 [B 3]: of the whole person, the arms, the legs
    error: np.ndarray  # float32 [B T J 2], normal: each frame's own
    news: np.ndarray  # float32 [B T J 2], normal: what the slow part of the error learns in each frame


def add_noise(
    points: np.ndarray,
    score: np.ndarray,
    skeleton: str,
    draws: NoiseDraws,
    *,
    strength: np.ndarray,
    frame_s: np.ndarray,
    noise: DetectorNoise = DETECTOR,
    hidden: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact keypoints [B T J 2] of any unit and their scores [B T J] -> the same as a detector would have found them.

    The middle frame says how large a person is. strength [B]: scales errors and their chances; 0 changes nothing.
    frame_s [B]: seconds between frames, for what they remember of one another. hidden: bool [B J], those of which the
    confidence tells that the body hides them. Missing joints (NaN) stay missing.
    """
    table = _table(noise, skeleton)
    strength = strength.astype(np.float32)[:, None]
    lost = draws.chance < strength * noise.lost
    unsure = draws.chance < strength * (noise.lost + table.unsure)
    jitter = np.where(unsure, noise.unsure_factor * table.jitter, table.jitter)
    if hidden is not None:
        jitter = np.where(hidden & ~unsure, noise.hidden_factor * table.jitter, jitter)
    jitter = strength * np.where(lost, np.float32(noise.lost_jitter), jitter)  # [B J]
    sure_score = 1.0 - (1.0 - noise.sure_score) * draws.level**6 * np.minimum(strength, 1.0)
    factor = np.where(unsure, _between(noise.unsure_score, draws.level), sure_score)
    if hidden is not None:
        told = 1.0 - (1.0 - _between(noise.hidden_score, draws.level)) * np.minimum(strength, 1.0)
        factor = np.where(hidden, told, factor)
    factor = np.where(lost, _between(noise.lost_score, draws.level), factor)
    size = person_size(points[:, points.shape[1] // 2])
    error = _errors(draws, noise, frame_s)
    points = points + (size[:, None] * jitter)[:, None, :, None] * error
    score = score * factor[:, None].astype(np.float32)
    chances = np.array([noise.swapped, *[noise.limbs_swapped] * len(LIMBS)], dtype=np.float32)
    for mirror, swaps in zip(table.mirrors, (draws.swap < strength * chances).T, strict=True):
        points = np.where(swaps[:, None, None, None], points[:, :, mirror], points)
        score = np.where(swaps[:, None, None], score[:, :, mirror], score)
    return points, score


def person_size(points: np.ndarray) -> np.ndarray:
    """[... J 2] -> [...]: the longer side of the box around the joints that are not NaN; 0 where there are none."""
    known = np.isfinite(points)
    high = np.where(known, points, -np.inf).max(-2)
    low = np.where(known, points, np.inf).min(-2)
    return np.where(known.any(-2), high - low, 0.0).max(-1).astype(np.float32)


class _Table(NamedTuple):
    """A skeleton's numbers as arrays [J]."""

    jitter: np.ndarray  # float32
    unsure: np.ndarray  # float32
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


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * share


def _errors(draws: NoiseDraws, noise: DetectorNoise, frame_s: np.ndarray) -> np.ndarray:
    """float32 [B T J 2] of unit variance: a part is each frame's own, a part moves slowly (AR(1)) along the frames."""
    if draws.error.shape[1] == 1:
        return draws.error
    keep = np.exp(-frame_s / noise.memory_s).astype(np.float32)[:, None, None]
    fresh = np.sqrt(1.0 - keep**2)
    slow = draws.news.copy()  # written over frame by frame
    for frame in range(1, slow.shape[1]):
        slow[:, frame] = keep * slow[:, frame - 1] + fresh * draws.news[:, frame]
    return np.float32(np.sqrt(noise.slow)) * slow + np.float32(np.sqrt(1.0 - noise.slow)) * draws.error
