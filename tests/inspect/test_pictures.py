"""What a picture of a sample shows."""

import dataclasses

import numpy as np
import pytest

from humanpose3d.inspect.pictures import (
    KEYPOINT_COLOUR,
    PICTURE_PX,
    PROJECTED_COLOUR,
    distance_m,
    draw_sample,
    height_m,
    keypoint_distance_px,
    reprojection_px,
)
from humanpose3d.visualize.panels import SIDE_COLOURS_ON_PHOTO
from tests.inspect.sets import studio_samples


def pixels_of(picture, colour):
    return int((np.abs(picture.astype(int) - colour).max(-1) < 12).sum())


def moved_camera(sample, step):
    K = sample.camera.K.copy()
    K[:2, 2] += step
    return sample.with_(camera=dataclasses.replace(sample.camera, K=K))


def test_label_and_keypoints_are_drawn_and_the_projection_only_where_it_is_elsewhere():
    sample = studio_samples()[0]
    picture = draw_sample(sample)
    assert max(picture.shape[:2]) == PICTURE_PX
    for colour in (SIDE_COLOURS_ON_PHOTO["left"], SIDE_COLOURS_ON_PHOTO["right"], KEYPOINT_COLOUR):
        assert pixels_of(picture, colour) > 50
    assert pixels_of(picture, PROJECTED_COLOUR) == 0
    assert pixels_of(draw_sample(moved_camera(sample, 10)), PROJECTED_COLOUR) > 50


@pytest.mark.parametrize(
    "change",
    [
        {"image": None},
        {"joints_px": None, "joints_cam_m": None, "skeleton": None, "joint_score": None, "joint_in_view": None},
        {"keypoints_px": None, "keypoint_score": None, "keypoint_skeleton": None},
        {"camera": None, "box_px": None},
        {"joints_px": np.full((17, 2), 1e9, np.float32)},
        {"joints_px": np.full((17, 2), np.nan, np.float32)},
        {"joints_cam_m": np.full((17, 3), -1.0, np.float32)},
    ],
    ids=lambda change: "-".join(change),
)
def test_whatever_is_missing_or_far_off_there_is_a_picture(change):
    picture = draw_sample(studio_samples()[0].with_(**change))
    assert picture.dtype == np.uint8
    assert max(picture.shape[:2]) <= PICTURE_PX


def test_the_numbers_under_a_picture_are_those_of_the_sample():
    sample = studio_samples()[0]
    assert reprojection_px(sample) == pytest.approx(0.0, abs=1e-3)
    assert reprojection_px(moved_camera(sample, np.array([3.0, 4.0]))) == pytest.approx(5.0, abs=1e-3)
    assert keypoint_distance_px(sample.with_(keypoints_px=sample.keypoints_px + 100)) > 100
    assert 1.2 < height_m(sample) < 2.4
    assert distance_m(sample) == pytest.approx(float(np.median(sample.joints_cam_m[:, 2])))
    nothing = sample.with_(joints_cam_m=None, joints_px=None)
    assert (reprojection_px(nothing), keypoint_distance_px(nothing), height_m(nothing), distance_m(nothing)) == (
        None,
    ) * 4


def test_joints_that_the_label_lacks_are_not_counted():
    sample = studio_samples()[0]
    score = sample.joint_score.copy()
    score[0] = 0
    off = sample.joints_px.copy()
    off[0] += 500
    assert reprojection_px(sample.with_(joints_px=off, joint_score=score)) == pytest.approx(0.0, abs=1e-3)
