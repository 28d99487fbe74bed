"""Fewer bits: the same people and depths, nearly, and results in 32 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from humanpose3d.estimators.depth import DepthProDepth
from humanpose3d.estimators.keypoints import YoloKeypoints
from humanpose3d.estimators.speed import Speed

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_fewer_bits_change_little(tiny_pose_model: str, tiny_depth_model: str, precision: Any) -> None:
    [exact], [near] = (
        DepthProDepth(tiny_depth_model, "cpu", speed=speed).predict([IMAGE]) for speed in (Speed(), Speed(precision))
    )
    assert near.depth_m.dtype == np.float32 and near.focal_px == pytest.approx(exact.focal_px, rel=0.05)
    assert not np.array_equal(near.depth_m, exact.depth_m)
    # Inverse depth, as the network has it; far away, where that is next to nothing, all its bits are noise.
    assert np.median(np.abs(1 / near.depth_m - 1 / exact.depth_m)) < 0.05 * np.median(1 / exact.depth_m)
    [people], [same] = (
        YoloKeypoints(tiny_pose_model, "cpu", speed=speed).predict([IMAGE]) for speed in (Speed(precision), Speed())
    )
    assert people and people[0].keypoints_px.dtype == people[0].keypoint_score.dtype == np.float32
    assert people[0].score == pytest.approx(same[0].score, abs=0.05)
