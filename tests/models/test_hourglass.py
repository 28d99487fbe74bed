"""The stacked hourglass: shapes, where joints are in its maps, what does not fit, weights that others published."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.public_hourglass import PoseNet
from tests.batches import random_batch

from humanpose3d.model_config import HourglassConfig, config_from_dict, model_config
from humanpose3d.models import build_model
from humanpose3d.models.checkpoint import load_model
from humanpose3d.models.common import GaussianHeatmapGenerator
from humanpose3d.models.hourglass import StackedHourglass, flipped_back, parse_depths, peaks
from humanpose3d.skeletons import get_skeleton


@pytest.fixture(autouse=True)
def one_seed(one_thread):
    torch.manual_seed(0)


def small(**changes) -> HourglassConfig:
    values = {"input_size": 64, "channels": 8, "depths": (2, 3), "skeleton": "mpii_16"} | changes
    config = model_config("hourglass", "tiny", **values)
    assert isinstance(config, HourglassConfig)
    return config


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "instance", "depths": (2, 2)}, {"block": "conv_relu_norm"}, {"residual_blocks": 3}, {"depths": (4,)}],
    ids=str,
)
@pytest.mark.parametrize("skeleton", ["mpii_16", "mpi_17", "hand_21"])
def test_every_stack_gives_a_map_a_joint(skeleton, changes):
    config = small(skeleton=skeleton, **changes)
    model, batch = build_model(config), random_batch(2, input_size=64, skeleton=skeleton)
    heatmaps = model(batch).heatmaps
    assert heatmaps.shape == (2, len(config.depths), len(get_skeleton(skeleton)), 16, 16)
    heatmaps.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert config_from_dict(config.to_dict()) == config


def test_the_published_sizes():
    base = model_config("hourglass", "base")
    assert base.channels == 256 and base.depths == (4,) * 8 and base.input_size == 256
    two = build_model(replace(base, depths=(4, 4), skeleton="mpii_16"))
    assert 6.4e6 < sum(parameter.numel() for parameter in two.parameters()) < 6.9e6  # princeton-vl's 2 stacks: 6.73 M,
    # of which 0.2 M are skip layers that are never used


def test_a_network_that_knows_nothing_answers_next_to_nothing():
    """What the first stack answers goes into the next: it must not begin as noise."""
    assert build_model(small())(random_batch(4, input_size=64, skeleton="mpii_16")).heatmaps.abs().max() < 0.1


@pytest.mark.parametrize("decoder, worst_px", [("peak", 2.9), ("quarter", 1.5), ("subpixel", 0.02)])
def test_a_gaussian_is_found_where_it_was_drawn(decoder, worst_px):
    points = 10.0 + 236.0 * torch.rand(32, 16, 2)
    maps = GaussianHeatmapGenerator(256, 4, 1.0)(points, torch.ones(32, 16), torch.ones(32, 16, dtype=torch.bool))
    found, score = peaks(maps, decoder)
    assert (found - points).norm(dim=-1).max() < worst_px
    assert score.min() > 0.7 and score.max() <= 1.0


def test_a_peak_at_the_edge_is_taken_as_it_is():
    maps = torch.zeros(1, 2, 16, 16)
    maps[0, 0, 0, 5], maps[0, 1, 15, 15] = 1.0, 0.5
    for decoder in ("peak", "quarter", "subpixel"):
        found, score = peaks(maps, decoder)
        assert found[0].tolist() == [[21.5, 1.5], [61.5, 61.5]] and score[0].tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="unknown decoder 'mean'; known: subpixel"):
        peaks(maps, "mean")


def test_maps_of_the_mirrored_picture_come_back():
    skeleton = get_skeleton("mpii_16")
    flip = torch.from_numpy(skeleton.flip_permutation)
    points = 20.0 + 200.0 * torch.rand(2, 16, 2)
    draw = GaussianHeatmapGenerator(256, 4, 1.0)
    ones, seen = torch.ones(2, 16), torch.ones(2, 16, dtype=torch.bool)
    mirrored = torch.stack([255.0 - points[..., 0], points[..., 1]], dim=-1)[:, flip]
    assert torch.allclose(flipped_back(draw(mirrored, ones, seen), flip), draw(points, ones, seen), atol=1e-5)


def test_depths_are_read_as_the_study_writes_them():
    assert parse_depths("2x3,3x3,4x2") == (2, 2, 2, 3, 3, 3, 4, 4)
    assert parse_depths("4, 4") == (4, 4)
    for wrong in ("", "4x", "x2", "4xx2", "0x2", "4x0", "four"):
        with pytest.raises(ValueError, match="write DxN"):
            parse_depths(wrong)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depths": (5,)}, "depth 5 .* heat maps of 16 px .* at most 4"),
        ({"depths": (4,), "norm": "instance"}, "at most 3"),
        ({"input_size": 72}, "heat maps of 18 px .* at most 1"),
        ({"input_size": 66}, "multiple of 4"),
    ],
)
def test_a_depth_that_does_not_fit_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        build_model(small(**changes))


def test_a_few_pictures_are_learned_by_heart_and_their_mirror_images_too():
    """Each joint within 2 cells: of the picture, and of its mirror image with left and right exchanged."""
    config = small(depths=(3,), channels=16)
    model = build_model(config)
    batch = random_batch(2, input_size=64, skeleton="mpii_16")
    flip = torch.from_numpy(get_skeleton("mpii_16").flip_permutation)
    points = 6.0 + 52.0 * torch.rand(2, 16, 2)
    both = torch.cat([points, torch.stack([63.0 - points[..., 0], points[..., 1]], dim=-1)[:, flip]])
    images = torch.cat([batch.image, batch.image.flip(-1)])
    target = GaussianHeatmapGenerator(64, 4, 1.0)(both, torch.ones(4, 16), torch.ones(4, 16, dtype=torch.bool))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(250):
        loss = (model(replace(batch, image=images)).heatmaps - target[:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = peaks(model(replace(batch, image=images)).heatmaps[:, -1])[0]
    assert (found - both).norm(dim=-1).max() < 2.0 * 4.0


@pytest.mark.parametrize("prefix", ["model.module.", "module.", ""])
def test_a_public_checkpoint_answers_as_the_public_network_does(tmp_path, prefix):
    public = PoseNet(2, 16, 16)
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for _ in range(3):  # the statistics of its norms are weights too
        public.train()(image / 255.0)
    optimizer = torch.optim.Adam(public.parameters())
    weights = {prefix + name: value for name, value in public.state_dict().items()}
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": weights, "optimizer": optimizer.state_dict(), "epoch": 7}, path)
    loaded = load_model(path)
    assert isinstance(loaded.model, StackedHourglass) and loaded.config.skeleton == "mpii_16"
    assert loaded.config.channels == 16 and loaded.config.depths == (4, 4)
    batch = replace(random_batch(2, input_size=64, skeleton="mpii_16"), image=image)
    with torch.inference_mode():
        assert torch.allclose(loaded.model(batch).heatmaps, public.eval()(image / 255.0), atol=1e-5)


def test_a_public_checkpoint_of_another_network_is_refused(tmp_path):
    weights = PoseNet(1, 16, 16).state_dict()
    torch.save({"state_dict": weights | {"extra.weight": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt: .*weight 'extra.weight' is none of the published"):
        load_model(tmp_path / "other.pt")
    torch.save({"state_dict": PoseNet(1, 16, 17).state_dict()}, tmp_path / "joints.pt")
    with pytest.raises(ValueError, match="of 17 joints"):
        load_model(tmp_path / "joints.pt")
