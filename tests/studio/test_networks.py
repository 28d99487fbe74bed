"""The packaged networks meet their figures on people they never saw, loaded as the real ones are."""

from __future__ import annotations

import numpy as np
import pytest

from humanpose3d.skeletons import COCO_17
from humanpose3d.studio.film import StudioFrame, film
from humanpose3d.studio.networks import (
    DEPTH_WEIGHTS,
    POSE_WEIGHTS,
    WEIGHTS,
    measure_depth,
    measure_pose,
    unseen_frames,
    yolo_label,
)


@pytest.fixture(scope="module")
def frames() -> list[StudioFrame]:
    return unseen_frames(48)


def test_the_pose_model_finds_people_it_never_saw(frames: list[StudioFrame]) -> None:
    figures = measure_pose(POSE_WEIGHTS, frames)
    assert figures.found > 0.97
    assert figures.median_error_px < 4


def test_the_depth_model_measures_rooms_and_people(frames: list[StudioFrame]) -> None:
    figures = measure_depth(DEPTH_WEIGHTS, frames)
    assert figures.median_error < 0.05
    assert figures.median_person_error < 0.05


def test_the_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 5e6


def test_a_label_is_in_the_format_of_yolo_pose() -> None:
    frame = film("S1", 5, 1, 2, 6)
    values = np.array(yolo_label(frame).split(), float)
    assert len(values) == 5 + 3 * len(COCO_17) and values[0] == 0
    joints = values[5:].reshape(-1, 3)
    seen = joints[:, 2] > 0
    np.testing.assert_allclose(256 * joints[seen, :2] - 0.5, frame.keypoints_px[seen], atol=1e-3)
    x, y, width, height = 256 * values[1:5]
    np.testing.assert_allclose(
        [x - width / 2 - 0.5, y - height / 2 - 0.5, x + width / 2 - 0.5, y + height / 2 - 0.5], frame.box_px, atol=1e-3
    )
