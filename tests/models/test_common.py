"""Heat maps, depth normalisation and the head's camera geometry against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.batches import random_batch

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.models.common import (
    GaussianHeatmapGenerator,
    normalize_depth,
    pixel_to_ray,
    place_root,
    sample_map,
    view_to_camera,
)


def heatmaps(keypoint: tuple[float, float], score: float = 1.0, there: bool = True, stride: int = 4) -> torch.Tensor:
    generator = GaussianHeatmapGenerator(input_size=32, stride=stride, sigma=1.0)
    return generator(torch.tensor([[keypoint]]), torch.tensor([[score]]), torch.tensor([[there]]))[0, 0]


def test_a_keypoint_in_the_middle_of_a_cell_peaks_there_with_its_score() -> None:
    # The middle of cell 3 at stride 4 lies between pixels 13 and 14, that of cell 5 between 21 and 22.
    drawn = heatmaps((13.5, 21.5), score=0.7)
    assert drawn.shape == (8, 8)
    assert drawn[5, 3] == drawn.max() == pytest.approx(0.7)
    assert drawn[5, 4] == pytest.approx(0.7 * np.exp(-0.5))
    assert drawn[4, 2] == pytest.approx(0.7 * np.exp(-1.0))


def test_at_stride_1_a_pixel_is_a_cell() -> None:
    drawn = heatmaps((3.0, 0.0), stride=1)
    assert drawn[0, 3] == drawn.max() == 1.0


def test_a_missing_keypoint_draws_nothing() -> None:
    assert heatmaps((16.0, 16.0), score=0.9, there=False).abs().max() == 0
    assert heatmaps((16.0, 16.0), score=0.0).abs().max() == 0


def normalized(depth_m: torch.Tensor | None, keypoints_px: torch.Tensor, score: torch.Tensor):
    return normalize_depth(depth_m, keypoints_px, score, input_size=32, map_size=16, range_m=1.0)


def test_depth_is_measured_from_the_person_and_clipped() -> None:
    depth_m = torch.full((1, 1, 16, 16), 9.0)  # a wall
    depth_m[..., 4:12, 4:12] = 4.0
    depth_m[..., 5, 5] = 3.5  # an arm towards the camera
    depth_m[..., 0, :] = 0.0
    result = normalized(depth_m, torch.full((1, 5, 2), 15.0), torch.full((1, 5), 0.9))
    assert result.centre_m.item() == 4.0 and result.has_depth.item()
    assert result.relative[0, 0, 8, 8] == 0.0
    assert result.relative[0, 0, 5, 5] == -0.5
    assert result.relative[0, 0, 15, 15] == 1.0
    assert not result.valid[0, 0, 0].any() and result.valid[0, 0, 1:].all()
    assert result.relative[0, 0, 0].abs().max() == 0


def test_unsure_keypoints_and_holes_do_not_move_the_centre() -> None:
    depth_m = torch.full((1, 1, 16, 16), 9.0)
    depth_m[..., :8] = 4.0
    depth_m[..., 0, 0] = 0.0
    keypoints_px = torch.tensor(
        [[[4.0, 4.0], [5.0, 20.0], [9.0, 9.0], [0.0, 0.0], [28.0, 9.0], [28.0, 20.0], [30.0, 3.0]]]
    )
    score = torch.tensor([[0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1]])
    assert normalized(depth_m, keypoints_px, score).centre_m.item() == 4.0


def test_without_keypoints_the_middle_of_the_map_is_the_person() -> None:
    depth_m = torch.full((1, 1, 16, 16), 9.0)
    depth_m[..., 4:12, 4:12] = 4.0
    assert normalized(depth_m, torch.zeros(1, 5, 2), torch.zeros(1, 5)).centre_m.item() == 4.0


def test_unknown_depth_is_marked_and_finite() -> None:
    for nothing in (None, torch.zeros(2, 1, 16, 16)):
        result = normalized(nothing, torch.full((2, 5, 2), 15.0), torch.ones(2, 5))
        assert result.relative.shape == (2, 1, 16, 16)
        assert result.relative.abs().max() == 0 and not result.valid.any()
        assert result.centre_m.tolist() == [0.0, 0.0] and not result.has_depth.any()


def test_a_map_is_read_under_the_pixel_asked_for() -> None:
    values = torch.arange(256.0).view(1, 1, 16, 16)  # two pixels a cell
    points_px = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [4.0, 2.0], [31.0, 31.0], [40.0, 3.0]]])
    assert sample_map(values, points_px, 32)[0, :, 0].tolist() == [0.0, 1.0, 18.0, 255.0, 0.0]


def skewed_intrinsics() -> torch.Tensor:
    return torch.tensor([[[300.0, 12.0, 40.0], [-7.0, 280.0, 90.0], [0.0, 0.0, 1.0]]])


def test_the_root_projects_onto_its_pixel_whatever_the_intrinsics() -> None:
    root_px = torch.tensor([[70.0, 35.0]])
    root_m = place_root(root_px, torch.tensor([1.9]), skewed_intrinsics(), input_size=128)
    camera = replace(Camera.create(1.0, (0.0, 0.0)), K=skewed_intrinsics()[0].double().numpy())
    assert np.allclose(camera_to_pixel(root_m.double().numpy(), camera), root_px, atol=1e-3)
    assert root_m[0, 2].item() == pytest.approx(1.9 * camera.focal_px / 128, rel=1e-5)


def test_zooming_a_crop_leaves_the_root_where_it_is() -> None:
    intrinsics, root_px, width_m, zoom = skewed_intrinsics(), torch.tensor([[70.0, 35.0]]), torch.tensor([1.9]), 1.3
    zoomed = intrinsics.clone()
    zoomed[:, :2] *= zoom
    before = place_root(root_px, width_m, intrinsics, 128)
    after = place_root(root_px * zoom, width_m / zoom, zoomed, 128)
    assert torch.allclose(before, after, atol=1e-5)


def test_straight_ahead_of_the_view_is_along_its_middle_ray() -> None:
    intrinsics = skewed_intrinsics()
    ahead = view_to_camera(torch.tensor([[[0.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.3, 0.4, 0.0]]]), intrinsics, 128)[0]
    ray = torch.cat([pixel_to_ray(torch.tensor([[63.5, 63.5]]), intrinsics)[0], torch.ones(1)])
    assert torch.allclose(ahead[0], 2.0 * ray / ray.norm(), atol=1e-6)
    assert ahead[1].tolist() == [0.0, 0.0, 0.0]
    assert ahead[2].norm().item() == pytest.approx(0.5) and (ahead[2] @ ray).item() == pytest.approx(0.0, abs=1e-6)


def test_a_view_around_the_principal_point_is_not_turned() -> None:
    intrinsics = torch.tensor([[[300.0, 0.0, 63.5], [0.0, 300.0, 63.5], [0.0, 0.0, 1.0]]])
    points = random_batch(1).joints_cam_m
    assert torch.equal(view_to_camera(points, intrinsics, 128), points)
