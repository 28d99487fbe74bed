"""The packaged networks meet their figures on people they never saw, loaded as the real ones are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose3d.estimators.keypoints import YoloKeypoints
from humanpose3d.skeletons import COCO_17
from humanpose3d.studio.depth_network import DEPTH_WEIGHTS, measure_depth
from humanpose3d.studio.film import StudioFrame, film
from humanpose3d.studio.lessons import film_training_set, is_in_sight, unseen_frames, yolo_label
from humanpose3d.studio.pose_network import POSE_WEIGHTS, Lessons, forget_places, measure_pose, train_pose

WEIGHTS = POSE_WEIGHTS.parent


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


def test_the_pose_model_tells_no_folder_of_the_machine_that_trained_it() -> None:
    import torch

    def places(stored: dict) -> list[str]:
        network = stored["model"]
        each = (stored["train_args"], stored["git"], vars(network), network.yaml, network.args)
        return [value for values in each for value in values.values() if isinstance(value, str) and value[:1] == "/"]

    stored = torch.load(POSE_WEIGHTS, weights_only=False)  # the package's own
    assert places(stored) == []
    stored["git"], stored["train_args"]["data"], stored["model"].pt_path = {"root": "/a"}, "/a/data.yaml", "/a/b.pt"
    assert len(places(stored)) == 3
    forget_places(stored)
    assert places(stored) == []


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


def test_a_changed_lesson_keeps_its_joints_and_boxes_on_what_they_mark(tmp_path: Path) -> None:
    film_training_set(tmp_path, 1, seed=5)
    lessons, left = Lessons(tmp_path), COCO_17.index("left_wrist")
    rows, picture = lessons.people[0], np.zeros((256, 256, 3), np.uint8)
    cv2.circle(picture, (100, 140), 3, (255, 255, 255), -1)
    rows[0, 5 + 3 * left :][:3] = (*(np.array([100.5, 140.5]) / 256), 2.0)
    rows[0, 1:5] = (*(np.array([100.5, 140.5]) / 256), 7 / 256, 7 / 256)
    lessons.images[0] = picture
    found = set()
    for seed in range(12):
        image, boxes, joints = lessons.pick(0, np.random.default_rng(seed), 320)
        y, x = np.argwhere(image[..., 0] > 0.7 * image.max()).mean(0) + 0.5
        for name in ("left_wrist", "right_wrist"):
            place = 320 * joints[0, COCO_17.index(name)]
            if np.hypot(place[0] - x, place[1] - y) < 1.5:
                found.add(name)
                break
        else:
            pytest.fail(f"no wrist on the mark at {x:.1f}, {y:.1f}")
        assert np.abs(320 * boxes[0, :2] - [x, y]).max() < 1.5
        assert 7 < 320 * boxes[0, 2] < 12
    assert found == {"left_wrist", "right_wrist"}


def test_a_short_training_stores_what_the_estimators_load(tmp_path: Path) -> None:
    trained = train_pose(
        tmp_path / "pose.pt", minutes=0.02, images=6, workplace=tmp_path / "work", batch=2, start=POSE_WEIGHTS
    )
    assert measure_pose(trained, unseen_frames(8)).found == 1.0
    (people,) = YoloKeypoints(str(trained), "cpu").predict([film("S9", 5, 1, 2, 6).image])
    assert len(people) == 1
