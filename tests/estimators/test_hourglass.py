"""Joints in boxes by a heat-map network: they land where they are in the image, mirrored hands too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from humanpose3d.estimators.cues import CueNetworks
from humanpose3d.estimators.hourglass import HourglassJoints, HourglassKeypoints, View, hand_views
from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.models.checkpoint import save_model
from humanpose3d.models.common import GaussianHeatmapGenerator
from humanpose3d.models.hourglass import StackedHourglass
from humanpose3d.sidecars import Person
from humanpose3d.skeletons import COCO_17, MPII_16, convert

SIZE = 64


def save(path: Path, skeleton: str) -> Path:
    torch.manual_seed(0)
    config = model_config("hourglass", "tiny", input_size=SIZE, channels=8, depths=(2,), skeleton=skeleton)
    save_model(path, build_model(config), config)
    return path


@pytest.fixture
def body(tmp_path) -> Path:
    return save(tmp_path / "body.pth", "mpii_16")


@pytest.fixture
def hand(tmp_path) -> Path:
    return save(tmp_path / "hand.pth", "hand_21")


def bright_spot(network, image: torch.Tensor) -> torch.Tensor:
    """Heat maps that show every joint at the brightest pixel of each picture."""
    grey = image.float().mean(1).flatten(1)
    best = grey.argmax(1)
    points = torch.stack([best % SIZE, best // SIZE], dim=-1).float()[:, None].expand(-1, 21, -1)
    known = torch.ones(points.shape[:2])
    return GaussianHeatmapGenerator(SIZE, 4, 1.0)(points, known, known > 0)[:, None]


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_what_the_view_shows_is_told_in_the_images_pixels(hand, monkeypatch, is_mirrored, flip_test):
    monkeypatch.setattr(StackedHourglass, "heatmaps_of", bright_spot)
    spots = [(70, 40), (31, 66), (88, 90)]
    images = []
    for x, y in spots:
        image = np.zeros((120, 160, 3), np.uint8)
        image[y - 1 : y + 2, x - 1 : x + 2] = 255
        images.append(image)
    views = [View(image, np.array([20.0, 20.0, 100.0, 100.0]), is_mirrored) for image in images]
    found = list(HourglassJoints(hand, "cpu", flip_test=flip_test).find(views))
    for (points, score, heat), spot in zip(found, spots, strict=True):
        assert heat.shape == (SIZE // 4, SIZE // 4) and heat.max() == pytest.approx(score.max(), abs=0.3)
        assert points.shape == (21, 2) and np.abs(points - spot).max() < 2.0  # a view's pixel is 1.5 of the image's
        assert score.min() > 0.7


def test_people_are_yolos_and_their_joints_the_networks(body, tiny_pose_model):
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    both = HourglassKeypoints(body, tiny_pose_model, "cpu")
    people, by_yolo = both.predict([image])[0], both.detector.predict([image])[0]
    assert len(people) == len(by_yolo) > 0
    for ours, theirs in zip(people, by_yolo, strict=True):
        assert (ours.box_px == theirs.box_px).all() and ours.keypoints_px.shape == (16, 2)
    assert both.provenance["boxes"]["sha256"] and both.provenance["name"] == "hourglass body"
    sidecar = CueNetworks(tiny_pose_model, None, "cpu", f"hourglass:{body}").cues([image])[0]
    assert sidecar.keypoint_skeleton == "mpii_16" and len(sidecar.people) == len(people)


def test_what_is_no_hourglass_of_bodies_is_refused(hand, tmp_path, tiny_pose_model):
    config = model_config("lifter", "tiny")
    save_model(tmp_path / "lifter.pth", build_model(config), config)
    with pytest.raises(ValueError, match="lifter.pth holds a lifter; keypoints need an hourglass"):
        HourglassJoints(tmp_path / "lifter.pth", "cpu")
    with pytest.raises(ValueError, match="joints of hands; give it as --hands"):
        HourglassKeypoints(hand, tiny_pose_model, "cpu")
    with pytest.raises(ValueError, match="--keypoints openpose: take yolo, or hourglass:CHECKPOINT"):
        CueNetworks(tiny_pose_model, None, "cpu", "openpose")


def person(**joints: tuple[float, float]) -> Person:
    points, score = np.full((17, 2), np.nan, np.float32), np.zeros(17, np.float32)
    for name, at in joints.items():
        points[COCO_17.index(name)], score[COCO_17.index(name)] = at, 0.9
    return Person(np.array([0, 0, 100, 200], np.float32), 0.8, points, score)


def test_hands_lie_beyond_the_wrists():
    image = np.zeros((200, 200, 3), np.uint8)
    somebody = person(left_elbow=(50, 50), left_wrist=(90, 50), right_wrist=(10, 10))
    [(number, side, view)] = hand_views(image, [somebody])
    assert (number, side, view.is_mirrored) == (0, "left", True)
    middle = (view.box_px[:2] + view.box_px[2:]) / 2
    assert middle == pytest.approx([108.0, 50.0]) and view.box_px[2] - view.box_px[0] == pytest.approx(36.0)
    pointing = person(right_elbow=(50, 50), right_wrist=(51, 50))
    [(_, side, view)] = hand_views(image, [pointing])
    assert side == "right" and view.box_px[2] - view.box_px[0] == pytest.approx(0.9 * 0.12 * 200)
    [(number, side, view)] = hand_views(image, [])
    assert (number, side) == (0, "right") and view.box_px.tolist() == [-0.5, -0.5, 199.5, 199.5]


def test_hands_of_other_joint_orders_lie_at_the_same_places():
    somebody = person(left_elbow=(50, 50), left_wrist=(90, 50))
    points = convert(somebody.keypoints_px, COCO_17, MPII_16).joints
    other = replace(somebody, keypoints_px=points, keypoint_score=0.9 * np.isfinite(points[:, 0]))
    image = np.zeros((200, 200, 3), np.uint8)
    [(_, side, view)], [(_, expected, seen)] = hand_views(image, [other], MPII_16), hand_views(image, [somebody])
    assert side == expected and view.box_px.tolist() == seen.box_px.tolist()
