"""The networks: shapes, what may be missing, where the root lands, and that they can learn a handful by heart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.batches import random_batch
from torch import nn

from humanpose3d.config import LossWeights
from humanpose3d.loss import ComprehensivePoseLoss
from humanpose3d.model_config import PRESETS, model_config
from humanpose3d.models import MODELS, build_model
from humanpose3d.models.common import JOINT_CUES, VIEW_CUES, Cues, PosePrediction
from humanpose3d.models.transformers import with_depth_channel
from humanpose3d.skeletons import COCO_17, H36M_17

LIFTERS = sorted(MODELS.keys() - {"hourglass", "hps"})
OF_PICTURES = ["cnn", "transformer"]
SKELETON = H36M_17


@pytest.fixture(autouse=True)
def one_seed(one_thread):
    torch.manual_seed(0)


def tiny(model_type: str, **changes) -> nn.Module:
    return build_model(model_config(model_type, "tiny", **changes))


def same(first: PosePrediction, second: PosePrediction) -> bool:
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(first[:2], second[:2], strict=True))


@pytest.mark.parametrize("model_type", LIFTERS)
def test_a_batch_gives_joints_around_a_root_at_zero_and_a_root_before_the_camera(model_type: str) -> None:
    prediction = tiny(model_type)(random_batch(3))
    assert prediction.joints_rel_m.shape == prediction.joints_cam_m.shape == (3, 17, 3)
    assert prediction.root_cam_m.shape == (3, 3)
    assert prediction.joints_rel_m[:, SKELETON.root_index].abs().max() == 0
    assert (prediction.root_cam_m[:, 2] > 0).all()
    assert torch.equal(prediction.joints_cam_m[:, SKELETON.root_index], prediction.root_cam_m)


@pytest.mark.parametrize("model_type", LIFTERS)
def test_every_joint_set_fits(model_type: str) -> None:
    model = tiny(model_type, skeleton="h36m_17", keypoint_skeleton="h36m_17").eval()
    assert model(random_batch(1, keypoint_skeleton="h36m_17")).joints_rel_m.shape == (1, len(H36M_17), 3)


@pytest.mark.parametrize("model_type", LIFTERS)
def test_a_batch_of_one_can_be_trained_on(model_type: str) -> None:
    model = tiny(model_type).train()
    prediction = model(random_batch(1))
    loss = prediction.joints_cam_m.sum() + (0.0 if prediction.log_error_m is None else prediction.log_error_m.sum())
    loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []  # DDP waits for every parameter's gradient


@pytest.mark.parametrize("model_type", OF_PICTURES)
def test_no_depth_map_and_an_empty_one_are_the_same_and_finite(model_type: str) -> None:
    model = tiny(model_type).eval()
    batch = random_batch(2)
    assert batch.depth_m is not None
    without = model(replace(batch, depth_m=None))
    assert same(without, model(replace(batch, depth_m=torch.zeros_like(batch.depth_m))))
    assert not same(without, model(batch))
    assert torch.isfinite(without.joints_cam_m).all()


@pytest.mark.parametrize("model_type", OF_PICTURES)
def test_a_model_without_depth_never_looks_at_it(model_type: str) -> None:
    model = tiny(model_type, use_depth=False).eval()
    batch = random_batch(2)
    assert same(model(batch), model(replace(batch, depth_m=None)))
    assert model.config.needs == ("image",)


@pytest.mark.parametrize("model_type", OF_PICTURES)
def test_where_a_missing_keypoint_would_be_does_not_matter(model_type: str) -> None:
    model = tiny(model_type).eval()
    nn.init.normal_(model.cues.absent_joint)
    batch = random_batch(2)
    mask = batch.keypoint_mask.clone()
    mask[0, COCO_17.index("left_wrist")] = False
    mask[1] = False
    hidden = replace(batch, keypoint_mask=mask)
    moved = replace(hidden, keypoints_px=batch.keypoints_px.where(mask[..., None], 17.0))
    assert same(model(hidden), model(moved))
    assert not same(model(hidden), model(batch))
    assert torch.isfinite(model(hidden).joints_cam_m).all()


@pytest.mark.parametrize("model_type", OF_PICTURES)
def test_stand_ins_for_what_is_absent_are_learned(model_type: str) -> None:
    model = tiny(model_type).train()
    batch = random_batch(2, keypoint_mask=torch.zeros(2, 17, dtype=torch.bool), depth_m=None)
    model(batch).joints_cam_m.square().sum().backward()
    cues = model.cues
    for absent in (cues.absent_heatmap, cues.absent_joint, cues.absent_depth, cues.absent_width):
        assert absent.grad.abs().max() > 0


@pytest.mark.parametrize("model_type", OF_PICTURES)
def test_the_root_follows_the_lens_and_stays_on_its_pixel(model_type: str) -> None:
    model = tiny(model_type).eval()
    nn.init.normal_(model.head.root.weight, std=0.1)
    batch = random_batch(2, depth_m=None)
    seen: list[torch.Tensor] = []
    model.head.root.register_forward_hook(lambda module, inputs, output: seen.append(output))
    root = model(batch).root_cam_m
    projected = (batch.intrinsics @ root[..., None])[..., 0]
    expected_px = ((seen[0][:, :2] + 1.0) * 128 - 1.0) / 2.0
    assert torch.allclose(projected[:, :2] / projected[:, 2:], expected_px, atol=1e-2)


def test_trusted_depth_gives_the_root_its_depth_in_metres() -> None:
    head = tiny("cnn").head.eval()
    nn.init.zeros_(head.root.weight)
    head.root.bias.data[:] = torch.tensor([0.0, 0.0, 0.0, 0.0, 20.0])  # no correction, all trust in the depth map
    intrinsics = random_batch(1).intrinsics
    focal = intrinsics[:, 0, 0]
    cues = Cues(
        *(torch.zeros(1),) * 3,
        torch.zeros(1, 17, JOINT_CUES),
        torch.zeros(1, VIEW_CUES),
        depth_width_m=4.2 * 128 / focal,
    )
    features = torch.zeros(1, head.enter.in_features - 17 * JOINT_CUES - VIEW_CUES)
    assert head(features, cues, intrinsics).root_cam_m[0, 2].item() == pytest.approx(4.2, rel=1e-5)
    blind = cues._replace(depth_width_m=torch.zeros(1))
    assert head(features, blind, intrinsics).root_cam_m[0, 2].item() == pytest.approx(2.0 * focal.item() / 128)


@pytest.mark.parametrize("model_type", LIFTERS)
def test_a_handful_of_samples_is_learned_by_heart(model_type: str) -> None:
    model = tiny(model_type, dropout=0.0).train()
    batch = random_batch(6)
    loss = ComprehensivePoseLoss(LossWeights(inter_joint=0.0), "root_relative", SKELETON.root_index)
    # The lifter's joints all share one head, which has further to go than a row of it for each.
    steps, rate = (400, 2e-3) if model_type == "lifter" else (120, 5e-4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
    first = math.nan
    for step in range(steps):
        terms = loss(model(batch), batch)
        first = terms["total"].item() if step == 0 else first
        optimizer.zero_grad()
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    assert terms["l1"].item() < 0.02  # metres; the joints lie 0.35 from the root's planes
    assert terms["absolute_root"].item() < 0.05
    assert terms["total"].item() < 0.06 * first


def test_depth_starts_with_the_mean_of_the_colours_weights() -> None:
    rgb = nn.Conv2d(3, 8, 16, 16)
    rgbd = with_depth_channel(rgb)
    grey = torch.randn(2, 1, 32, 48)
    image = torch.randn(2, 3, 32, 48)
    expected = rgb(image) + (rgb(grey.expand(-1, 3, -1, -1)) - rgb.bias[:, None, None]) / 3.0
    assert torch.allclose(rgbd(torch.cat([image, grey], dim=1)), expected, atol=1e-5)


def test_networks_without_published_weights_say_so() -> None:
    for model_type in MODELS.keys() - {"hps"}:  # whose backbones all have some
        with pytest.raises(ValueError, match="no pretrained weights"):
            build_model(model_config(model_type, "tiny"), pretrained=True)


@pytest.mark.parametrize(("model_type", "size"), [key for key in PRESETS if key[0] in OF_PICTURES and key[1] != "tiny"])
def test_larger_presets_can_be_built(model_type: str, size: str) -> None:
    with torch.device("meta"):
        model = build_model(model_config(model_type, size))
    assert sum(parameter.numel() for parameter in model.parameters()) > 5e6


def test_sixteen_bits_leave_the_geometry_in_thirty_two() -> None:
    model = tiny("cnn").eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model(random_batch(2))
    assert prediction.joints_rel_m.dtype == prediction.root_cam_m.dtype == torch.float32
