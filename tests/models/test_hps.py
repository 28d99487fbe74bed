"""Body regressors: shapes, where the body comes to stand, attention, and published backbones' weights."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from tests.batches import random_batch

from humanpose3d.metrics import rotation_error_deg
from humanpose3d.model_config import BodyConfig, model_config
from humanpose3d.models import build_model
from humanpose3d.models.common import view_rotation
from humanpose3d.models.hps import PARTS, BodyRegressor, PartAttentionHead, load_backbone_weights

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64


def regressor(head: str = "pare", backbone: str = "hrnet_w18_small") -> BodyRegressor:
    torch.manual_seed(0)
    model = build_model(
        model_config("hps", "tiny", head=head, backbone=backbone, input_size=SIZE, channels=16, hidden=32)
    )
    assert isinstance(model, BodyRegressor)
    return model.eval()


@pytest.mark.parametrize("head", ["pare", "baseline"])
@pytest.mark.parametrize("backbone", ["hrnet_w18_small", "resnet18"])
def test_an_untrained_regressor_answers_somebody_upright_before_the_camera(head, backbone):
    batch = random_batch(3, input_size=SIZE)
    with torch.inference_mode():
        found = regressor(head, backbone)(batch)
    assert found.rotations.shape == (3, PARTS, 3, 3) and found.betas.shape == (3, 10)
    eye = torch.eye(3).expand(3, PARTS, 3, 3)
    torch.testing.assert_close(found.rotations @ found.rotations.mT, eye, atol=1e-5, rtol=0)
    upright = view_rotation(batch.intrinsics, SIZE) @ torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    assert rotation_error_deg(found.rotations[:, 0], upright).max() < 20
    assert rotation_error_deg(found.rotations[:, 1:], eye[:, 1:]).max() < 20
    assert (found.root_cam_m[:, 2] > 1).all()
    if head == "pare":
        assert found.part_maps.shape == (3, PARTS + 1, SIZE // 4, SIZE // 4)
    else:
        assert found.part_maps is None


@pytest.mark.parametrize("head", ["pare", "baseline"])
def test_every_parameter_is_trained(head):
    """DDP waits for every parameter's gradient."""
    model = regressor(head).train()
    found = model(random_batch(2, input_size=SIZE))
    (found.rotations.sum() + found.betas.sum() + found.root_cam_m.sum()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_picture_zoomed_with_its_camera_is_answered_by_the_same_body():
    """Focal length and principal point change, the pixels do not: distance follows the focal length, shape does not."""
    model, batch = regressor(), random_batch(2, input_size=SIZE)
    longer = batch.intrinsics.clone()
    longer[:, :2, :2] *= 2.0
    with torch.inference_mode():
        near, far = model(batch), model(replace(batch, intrinsics=longer))
    torch.testing.assert_close(far.root_cam_m[:, 2], 2.0 * near.root_cam_m[:, 2])
    torch.testing.assert_close(far.betas, near.betas)
    torch.testing.assert_close(far.rotations[:, 1:], near.rotations[:, 1:])


def test_a_parts_rotation_follows_the_features_where_the_part_is_seen():
    config = model_config("hps", "tiny", channels=8)
    assert isinstance(config, BodyConfig)
    head = PartAttentionHead(config, [8, 8, 8, 8]).eval()
    torch.nn.init.normal_(head.pose.weight)
    maps = torch.zeros(1, PARTS + 1, 8, 8)
    maps[0, 0] = 50.0  # background, but for row 2, column 3, where part 4 is seen
    maps[0, [0, 5], 2, 3] = torch.tensor([0.0, 50.0])
    features = torch.randn(1, 8, 8, 8)
    head.parts, head.features = Answer(maps), Answer(features)
    before, *_ = head([torch.zeros(1, 8, 8, 8)] * 4)
    elsewhere = features.clone()
    elsewhere[0, :, 6, 6] += 5.0
    head.features = Answer(elsewhere)
    after, *_ = head([torch.zeros(1, 8, 8, 8)] * 4)
    torch.testing.assert_close(after[0, 4], before[0, 4])
    assert not torch.allclose(after[0, 3], before[0, 3])


class Answer(torch.nn.Module):
    """Says the same whatever it is asked."""

    def __init__(self, what: torch.Tensor) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.what


def test_hrnets_public_pose_weights_are_taken_and_its_heat_map_layer_left(tmp_path):
    """The file's form: HRNet's own names, a final layer, perhaps `module.` before all."""
    donor, model = regressor(), regressor()
    with torch.no_grad():
        for parameter in donor.backbone.parameters():
            parameter.add_(1.0)
    weights = {f"module.{name}": value for name, value in donor.backbone.state_dict().items()}
    last = max(name.split(".")[2] for name in weights if ".stage4." in name)
    only_ours = [name for name in weights if re.match(rf"module\.stage4\.{last}\.fuse_layers\.[123]\.", name)]
    assert only_ours, "the published network has one resolution at its end"
    for name in only_ours:
        del weights[name]
    taken = {name.removeprefix("module.") for name in weights}
    weights |= {"module.final_layer.weight": torch.zeros(16, 32, 1, 1), "module.final_layer.bias": torch.zeros(16)}
    torch.save(weights, tmp_path / "pose_hrnet.pth")
    assert load_backbone_weights(model, tmp_path / "pose_hrnet.pth") == len(taken)
    for name in taken:
        torch.testing.assert_close(model.backbone.state_dict()[name], donor.backbone.state_dict()[name])


def test_weights_that_are_not_the_backbones_are_named(tmp_path):
    model = regressor()
    with pytest.raises(FileNotFoundError, match="deep-high-resolution-net"):
        load_backbone_weights(model, tmp_path / "nowhere.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not the weights of hrnet_w18_small"):
        load_backbone_weights(model, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="safely"):
        load_backbone_weights(model, tmp_path / "text.pth")


def test_an_unknown_backbone_is_named():
    with pytest.raises(ValueError, match="hrnet_w99"):
        regressor(backbone="hrnet_w99")
