"""The keypoint lifter: what its virtual camera makes the same, what it masks, depth, windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.batches import random_batch
from torch import nn

from humanpose3d.dataset.keypoint_batches import depth_around
from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.models.joint_features import JointImageFeatures, depths_at_keypoints
from humanpose3d.models.lifter import (
    KeypointLifter,
    keypoint_rays,
    look_along,
    time_waves,
    turn,
    turn_onto_person,
    with_window,
)
from humanpose3d.rotations import axis_angle_to_matrix
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import COCO_17


@pytest.fixture(autouse=True)
def one_seed(one_thread):
    torch.manual_seed(0)


def lifter(**changes) -> KeypointLifter:
    model = build_model(model_config("lifter", "tiny", **changes)).eval()
    assert isinstance(model, KeypointLifter)
    for last in (model.to_joint, model.to_root):
        nn.init.normal_(last.weight, std=0.1)
    return model


def person_batch(size: int = 3, **changes) -> PoseBatch:
    """Without picture and depth; keypoints no further apart than a person's."""
    batch = random_batch(
        size, input_size=256, image=None, depth_m=None, keypoint_depth_m=None, keypoint_depth_mask=None
    )
    middle_px = batch.keypoints_px.mean(1, keepdim=True)
    return replace(batch, keypoints_px=middle_px + 0.5 * (batch.keypoints_px - middle_px), **changes)


def window_batch(frames: int, fps: float = 25.0) -> PoseBatch:
    batch = person_batch()
    own = torch.cat([batch.keypoints_px, batch.keypoint_score[..., None]], dim=-1)
    drift = torch.linspace(-5.0, 5.0, frames)[:, None, None] * torch.tensor([1.0, 0.3, 0.0])
    return replace(
        batch,
        keypoint_window=own[:, None] + drift,
        window_mask=batch.keypoint_mask[:, None].repeat(1, frames, 1),
        window_time_s=(torch.arange(frames) - frames // 2).expand(len(batch), -1) / fps,
    )


def turned_about_the_camera(batch: PoseBatch, angle_y_rad: float) -> PoseBatch:
    """The camera turned about its own y axis: all that keeps the virtual camera's horizon."""
    rotation = torch.from_numpy(axis_angle_to_matrix(np.array([0.0, angle_y_rad, 0.0]))).float()
    to_new = batch.intrinsics @ rotation @ torch.linalg.inv(batch.intrinsics)
    points = torch.cat([batch.keypoints_px, torch.ones_like(batch.keypoints_px[..., :1])], dim=-1) @ to_new.mT
    return replace(batch, keypoints_px=points[..., :2] / points[..., 2:])


def close(first: torch.Tensor, second: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return torch.allclose(first, second, atol=tolerance)


def test_no_picture_is_asked_for():
    assert lifter().config.needs == ("depth_m",)
    assert lifter(use_depth=False).config.needs == ()
    assert lifter(use_depth=False, window=27).config.needs == ("keypoint_window",)


def test_the_virtual_camera_looks_at_the_person_and_keeps_its_horizon():
    batch = person_batch()
    view = turn_onto_person(batch, use_depth=False)
    identity = torch.eye(3).expand(3, 3, 3)
    assert close(view.to_camera.mT @ view.to_camera, identity, 1e-6) and (torch.linalg.det(view.to_camera) > 0).all()
    assert (view.to_camera[:, 1, 0] == 0).all()  # its x axis has no part of the real y
    assert view.joints.mean(1).abs().max() < 0.05
    assert close(view.joints.square().sum(-1).mean(1), torch.ones(3))


def test_a_direction_straight_ahead_changes_nothing():
    assert close(look_along(torch.tensor([[0.0, 0.0, 2.0]])), torch.eye(3)[None], 1e-7)


def test_turning_the_camera_turns_the_answer_along():
    model, batch = lifter(), person_batch()
    rotation = torch.from_numpy(axis_angle_to_matrix(np.array([0.0, 0.3, 0.0]))).float().expand(3, 3, 3)
    before, after = model(batch), model(turned_about_the_camera(batch, 0.3))
    assert close(after.joints_rel_m, turn(before.joints_rel_m, rotation))
    assert close(after.root_cam_m, turn(before.root_cam_m[:, None], rotation)[:, 0])
    assert close(after.log_error_m, before.log_error_m)


def test_the_focal_length_does_not_matter_where_the_rays_are_the_same():
    model, batch = lifter(), person_batch()
    zoom = torch.diag(torch.tensor([2.0, 2.0, 1.0]))
    other = replace(batch, keypoints_px=2.0 * batch.keypoints_px, intrinsics=zoom @ batch.intrinsics)
    assert close(model(batch).joints_cam_m, model(other).joints_cam_m)


def test_a_missing_joint_is_masked_wherever_it_would_be():
    model, batch = lifter(), person_batch()
    mask = batch.keypoint_mask.clone()
    mask[0, COCO_17.index("left_wrist")] = False
    mask[1] = False
    hidden = replace(batch, keypoint_mask=mask)
    moved = replace(
        hidden,
        keypoints_px=batch.keypoints_px.where(mask[..., None], 17.0),
        keypoint_score=batch.keypoint_score.where(mask, 0.9),
    )
    answer = model(hidden).joints_cam_m
    assert close(answer, model(moved).joints_cam_m, 1e-6)
    assert not close(answer[0], model(batch).joints_cam_m[0]) and torch.isfinite(answer).all()


def test_one_known_joint_is_enough_for_a_finite_answer():
    mask = torch.zeros(3, 17, dtype=torch.bool)
    mask[:, 4] = True
    prediction = lifter()(person_batch(keypoint_mask=mask))
    assert all(torch.isfinite(part).all() for part in prediction)


def with_depth(batch: PoseBatch, z_m: float = 4.2, known: bool = True) -> PoseBatch:
    return replace(
        batch,
        keypoint_depth_m=torch.tensor([z_m, 0.05]).expand(*batch.keypoint_score.shape, 2),
        keypoint_depth_mask=torch.full_like(batch.keypoint_mask, known),
    )


def test_trusted_depth_gives_the_root_its_distance():
    model = lifter()
    nn.init.zeros_(model.to_root.weight)
    model.to_root.bias.data[:] = torch.tensor([0.0, 0.0, 0.0, 0.0, 20.0])  # no correction, all trust in the depth map
    batch = with_depth(person_batch(), 4.2)
    view, root_m = turn_onto_person(batch, use_depth=True), model(batch).root_cam_m
    assert close(root_m.norm(dim=-1), view.person_depth_m, 1e-3)
    assert (root_m[:, 2] / 4.2 - 1.0).abs().max() < 0.1


def test_depth_turns_with_the_camera():
    batch = with_depth(person_batch(), 4.2)
    view = turn_onto_person(batch, use_depth=True)
    points_m = 4.2 * keypoint_rays(batch.keypoints_px, batch.intrinsics)
    assert close(view.depth_m, turn(points_m, view.to_camera.mT)[..., 2])


def test_depth_is_optional_and_an_unknown_one_is_none():
    model, batch = lifter(), person_batch()
    without = model(batch).joints_cam_m
    assert close(without, model(with_depth(batch, 4.2, known=False)).joints_cam_m, 1e-6)
    assert not close(without, model(with_depth(batch, 4.2)).joints_cam_m)
    blind = lifter(use_depth=False)
    assert close(blind(batch).joints_cam_m, blind(with_depth(batch, 4.2)).joints_cam_m, 1e-6)


def test_depth_of_one_joint_is_used_and_of_a_missing_one_is_not():
    model, batch = lifter(), with_depth(person_batch())
    depth_m = batch.keypoint_depth_m.clone()
    depth_m[:, 9, 0] += 0.4
    other = replace(batch, keypoint_depth_m=depth_m)
    assert not close(model(batch).joints_cam_m, model(other).joints_cam_m)
    mask = batch.keypoint_mask.clone()
    mask[:, 9] = False
    hidden, other = replace(batch, keypoint_mask=mask), replace(other, keypoint_mask=mask)
    assert close(model(hidden).joints_cam_m, model(other).joints_cam_m, 1e-6)


def test_a_window_is_looked_at_and_may_be_absent():
    model = lifter(window=27)
    batch = window_batch(27)
    alone = replace(batch, keypoint_window=None, window_mask=None, window_time_s=None)
    assert torch.isfinite(model(alone).joints_cam_m).all()
    assert not close(model(batch).joints_cam_m, model(alone).joints_cam_m)
    with pytest.raises(ValueError, match="9 frames, the model is made for 27"):
        model(window_batch(9))


def test_masked_frames_do_not_matter():
    model, batch = lifter(window=27), window_batch(27)
    mask = batch.window_mask.clone()
    mask[:, :10] = False
    noise = torch.where(mask[..., None], 0.0, 50.0 * torch.randn_like(batch.keypoint_window))
    first = replace(batch, window_mask=mask)
    assert close(
        model(first).joints_cam_m, model(replace(first, keypoint_window=first.keypoint_window + noise)).joints_cam_m
    )


def test_the_same_second_looks_the_same_at_any_frame_rate():
    assert torch.equal(time_waves(torch.tensor([[0.4]])), time_waves(torch.tensor([[4 / 10]])))
    model, slow, fast = lifter(window=27), window_batch(27, 10.0), window_batch(27, 50.0)
    assert not close(model(slow).joints_cam_m, model(fast).joints_cam_m)


def test_a_lifter_of_one_frame_goes_on_with_a_window_from_what_it_knows():
    model, batch = lifter(), window_batch(27)
    before = model(batch)
    wider = with_window(model, 27).train()
    assert wider.config == replace(model.config, window=27)
    assert torch.equal(wider(batch).joints_cam_m, before.joints_cam_m)
    wider(batch).joints_cam_m.square().mean().backward()
    assert wider.frames.look.merge.weight.grad.abs().sum() > 0, "and learns to look around"
    longer = with_window(lifter(window=27), 81)
    assert longer.config.window == 81 and longer.frames.window == 81


def test_an_even_window_has_no_middle():
    with pytest.raises(ValueError, match="odd"):
        lifter(window=8)


def picture_batch() -> PoseBatch:
    return replace(random_batch(3, input_size=64), keypoint_depth_m=None, keypoint_depth_mask=None)


def test_with_a_backbone_it_looks_at_the_picture_at_the_keypoints():
    model, batch = lifter(image_backbone="mobilenetv3_small_050", input_size=64), picture_batch()
    assert model.config.needs == ("image", "depth_m")
    before = model(batch)
    assert before.joints_rel_m.shape == (3, 17, 3)
    other = model(replace(batch, image=255 - batch.image))
    assert not close(before.joints_rel_m, other.joints_rel_m)
    loss = model.train()(batch).joints_cam_m.square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.image.backbone.blocks[0].parameters())


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "efficientnet_b0", "hrnet_w18_small", "resnet18"])
def test_of_a_backbone_just_what_is_read_is_trained(backbone):
    image = JointImageFeatures(backbone, 8, 64)
    assert all(module.training for module in image.modules()), "as it came"
    image(picture_batch()).sum().backward()
    for name, parameter in image.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_a_keypoint_off_the_picture_or_missing_is_no_trouble_for_the_backbone():
    model, batch = lifter(image_backbone="mobilenetv3_small_050", input_size=64), picture_batch()
    points = batch.keypoints_px.clone()
    points[0, 3] = torch.tensor([-500.0, 9000.0])
    mask = batch.keypoint_mask.clone()
    mask[0, 4:] = False
    answer = model(replace(batch, keypoints_px=points, keypoint_mask=mask))
    assert answer.joints_cam_m.isfinite().all()


def test_a_backbone_that_is_none_is_named():
    with pytest.raises(ValueError, match="timm has no network 'resnet_18'"):
        lifter(image_backbone="resnet_18")
    with pytest.raises(ValueError, match="do not go together"):
        lifter(image_backbone="resnet18", window=27)


def test_depths_on_the_device_are_those_the_reader_takes_from_a_map():
    generator = np.random.default_rng(0)
    depth_m = generator.uniform(1.0, 4.0, (48, 48)).astype(np.float32)
    depth_m[generator.random((48, 48)) < 0.3] = 0.0
    points_px = generator.uniform(-10.0, 106.0, (17, 2)).astype(np.float32)
    known = np.ones(17, bool)
    known[5] = False
    masked_px = np.where(known[:, None], points_px, np.nan).astype(np.float32)
    expected = depth_around(depth_m, masked_px, (96, 96))
    found, is_there = depths_at_keypoints(
        torch.from_numpy(depth_m)[None, None], torch.from_numpy(points_px)[None], torch.from_numpy(known)[None], 96
    )
    assert (is_there[0].numpy() == np.isfinite(expected).all(-1)).all() and is_there.sum() > 8
    np.testing.assert_allclose(found[0].numpy(), np.nan_to_num(expected), atol=1e-6)
