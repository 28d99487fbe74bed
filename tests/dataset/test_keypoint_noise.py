"""A detector's errors: of the size and shape the table says, tied to the confidence, remembered along a window."""

import numpy as np
import pytest

from humanpose3d.dataset.keypoint_noise import DETECTOR, NoiseDraws, add_noise, person_size
from humanpose3d.skeletons import COCO_17

SIZE = 200.0  # px, of the person


def draws(number: int, frames: int = 1, seed: int = 0) -> NoiseDraws:
    rng = np.random.default_rng(seed)
    joints = len(COCO_17)
    return NoiseDraws(
        rng.random((number, joints), dtype=np.float32),
        rng.random((number, joints), dtype=np.float32),
        rng.random((number, 3), dtype=np.float32),
        rng.standard_normal((number, frames, joints, 2), dtype=np.float32),
        rng.standard_normal((number, frames, joints, 2), dtype=np.float32),
    )


def person(number: int, frames: int = 1) -> tuple[np.ndarray, np.ndarray]:
    points = np.random.default_rng(9).uniform(0, SIZE, (len(COCO_17), 2)).astype(np.float32)
    points[0], points[1] = (0.0, 0.0), (50.0, SIZE)
    return np.tile(points, (number, frames, 1, 1)), np.ones((number, frames, len(COCO_17)), np.float32)


def noisy(number: int, frames: int = 1, strength: float = 1.0, fps: float = 25.0):
    points, score = person(number, frames)
    found, scores = add_noise(
        points, score, "coco_17", draws(number, frames), strength=np.full(number, strength),
        frame_s=np.full(number, 1 / fps),
    )  # fmt: skip
    return found, scores, (found - points) / SIZE


def test_without_strength_nothing_changes():
    found, score, _ = noisy(50, strength=0.0)
    assert np.array_equal(found, person(50)[0]) and (score == 1).all()


def test_errors_are_as_large_as_the_table_says():
    _, score, error = noisy(4000)
    wrist = error[:, 0, COCO_17.index("left_wrist")]
    median = np.median(np.linalg.norm(wrist, axis=-1))
    assert 0.019 < median < 0.027  # measured: 0.023, and at the 90th percentile 0.091
    assert 0.06 < np.quantile(np.linalg.norm(wrist, axis=-1), 0.9) < 0.12
    nose = np.median(np.linalg.norm(error[:, 0, 0], axis=-1))
    assert 0.010 < nose < 0.014  # measured: 0.012


def test_low_confidence_means_large_errors():
    _, score, error = noisy(3000)
    distance = np.linalg.norm(error, axis=-1)
    assert np.median(distance[score < 0.5]) > 2.5 * np.median(distance[score > 0.95])
    assert 0.02 < (score < 0.5).mean() < 0.08


def test_sides_are_swapped_now_and_then_with_their_scores():
    points, score = person(2000)
    score = score * np.linspace(0.5, 1.0, 17, dtype=np.float32)
    ones = np.ones((2000, 17), np.float32)
    silent = draws(2000)._replace(error=np.zeros((2000, 1, 17, 2), np.float32), chance=ones, level=ones)
    found, scores = add_noise(points, score, "coco_17", silent, strength=np.ones(2000), frame_s=np.zeros(2000))
    left, right = COCO_17.index("left_knee"), COCO_17.index("right_knee")
    swapped = (found[:, 0, left] == points[:, 0, right]).all(-1)
    assert swapped.mean() == pytest.approx(DETECTOR.swapped + DETECTOR.limbs_swapped, abs=0.008)
    assert (scores[swapped, 0, left] > scores[swapped, 0, right]).all()


def test_missing_joints_stay_missing():
    points, score = person(10)
    points[:, :, 3], score[:, :, 3] = np.nan, 0.0
    found, scores = add_noise(points, score, "coco_17", draws(10), strength=np.ones(10), frame_s=np.zeros(10))
    assert np.isnan(found[:, 0, 3]).all() or np.isnan(found).any(-1).sum() == 10
    assert (scores[np.isnan(found).any(-1)] == 0).all()


@pytest.mark.parametrize("fps", [10.0, 50.0])
def test_neighbouring_frames_share_their_errors_for_a_while(fps):
    _, _, error = noisy(3000, frames=27, fps=fps)
    elbow = error[:, :, COCO_17.index("left_elbow"), 0]
    elbow = elbow[np.abs(elbow).max(1) < 0.1]
    spread = elbow.std(0)
    assert spread.max() / spread.min() < 1.15  # as large in each frame
    found = np.corrcoef(elbow[:, 10], elbow[:, 15])[0, 1]
    assert found == pytest.approx(DETECTOR.slow * np.exp(-5 / fps / DETECTOR.memory_s), abs=0.08)


def test_a_person_is_as_large_as_the_longer_side_of_its_box():
    points = np.array([[[1.0, 5.0], [4.0, np.nan], [2.0, 25.0]], [[np.nan] * 2] * 3])
    assert person_size(points).tolist() == [20.0, 0.0]
