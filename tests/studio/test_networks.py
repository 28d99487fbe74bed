"""The packaged networks meet their figures on people they never saw, loaded as the real ones are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.skeletons import COCO_17
from humanpose3d.studio.film import StudioFrame, film
from humanpose3d.studio.networks import (
    DEPTH_WEIGHTS,
    POSE_WEIGHTS,
    WEIGHTS,
    film_training_set,
    forget_places,
    is_in_sight,
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


def test_the_pose_model_tells_no_folder_of_the_machine_that_trained_it(tmp_path: Path) -> None:
    import torch

    def places(weights: Path) -> list[str]:
        stored = torch.load(weights, weights_only=False)
        network = stored["model"]
        each = (stored["train_args"], stored["git"], vars(network), network.yaml, network.args)
        return [value for values in each for value in values.values() if isinstance(value, str) and value[:1] == "/"]

    assert places(POSE_WEIGHTS) == []
    stored = torch.load(POSE_WEIGHTS, weights_only=False)
    stored["git"], stored["train_args"]["data"], stored["model"].pt_path = {"root": "/a"}, "/a/data.yaml", "/a/b.pt"
    torch.save(stored, tmp_path / "trained.pt")
    assert len(places(tmp_path / "trained.pt")) == 3
    forget_places(tmp_path / "trained.pt")
    assert places(tmp_path / "trained.pt") == []


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


def test_pictures_of_groups_have_a_label_for_everybody_in_sight(tmp_path: Path) -> None:
    film_training_set(tmp_path, 4, seed=5, groups_share=1.0)
    labels = [path.read_text().splitlines() for path in sorted(tmp_path.glob("labels/*.txt"))]
    assert len(labels) == 4 and max(map(len, labels)) > 1
    assert all(len(line.split()) == 5 + 3 * len(COCO_17) for lines in labels for line in lines)
    frame = film("S1", 5, 1, 2, 6)
    assert is_in_sight(frame) and not is_in_sight(replace(frame, keypoint_flag=np.ones(17, np.int64)))
