"""2D pose by heat maps: its loss, its measures by hand, what is masked, its pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from humanpose3d.config import LossWeights
from humanpose3d.metrics import KeypointMetrics
from humanpose3d.model_config import model_config
from humanpose3d.models.common import GaussianHeatmapGenerator
from humanpose3d.models.hourglass import HeatmapPrediction
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton
from humanpose3d.tasks.evaluation import evaluate
from humanpose3d.tasks.heatmaps import Decoding, HeatmapTask
from tests.batches import random_batch

SIZE = 128
CONFIG = model_config("hourglass", "tiny", skeleton="mpii_16")


def task(decoding: Decoding | None = None) -> HeatmapTask:
    return HeatmapTask(CONFIG, LossWeights(), "absolute", decoding)


def labelled_batch(size: int = 3, seed: int = 0, **changes) -> PoseBatch:
    batch = random_batch(size, seed=seed, input_size=SIZE, skeleton="mpii_16")
    generator = torch.Generator().manual_seed(seed)
    points = 12.0 + (SIZE - 24.0) * torch.rand(size, 16, 2, generator=generator)
    everywhere = torch.ones(size, 16, dtype=torch.bool)
    values = {"joints_px": points, "joint_in_view": everywhere, "joint_px_mask": everywhere} | changes
    return replace(batch, **values)


class Drawn(torch.nn.Module):
    """Answers two stacks: nothing, then the labels moved by so many pixels to the right."""

    def __init__(self, batches: list[PoseBatch], moved_px: float = 0.0) -> None:
        super().__init__()
        self.draw, self.moved = GaussianHeatmapGenerator(SIZE, 4, 1.0), torch.tensor([moved_px, 0.0])
        self.labels = {batch.keys[0]: batch.joints_px for batch in batches}

    def forward(self, batch: PoseBatch) -> HeatmapPrediction:
        points = self.labels[batch.keys[0]] + self.moved
        maps = self.draw(points, torch.ones(points.shape[:2]), torch.ones(points.shape[:2], dtype=torch.bool))
        return HeatmapPrediction(torch.stack([torch.zeros_like(maps), maps], dim=1))


def test_the_loss_of_empty_maps_is_one_and_of_true_ones_nothing():
    batch = labelled_batch()
    terms = task().training_scalars(Drawn([batch]), batch)
    assert terms["stack_1"].item() == pytest.approx(1.0, abs=0.02) and terms["stack_2"].item() < 1e-9
    assert terms["loss"].item() == pytest.approx(terms["stack_1"].item() / 2.0)
    assert terms["error_px"].item() < 3.0  # of the middles of cells of 4 px


def test_joints_without_a_label_or_off_the_view_are_masked():
    batch = labelled_batch()
    points, seen = batch.joints_px.clone(), batch.joint_in_view.clone()
    points[:, 3], seen[:, 3] = torch.tensor([-900.0, 40.0]), False
    points[0, 5], seen[0, 5] = torch.tensor([0.0, 0.0]), False
    before, after = (
        task().training_scalars(Drawn([batch]), each)
        for each in (batch, replace(batch, joints_px=points, joint_in_view=seen))
    )
    assert after["stack_2"].item() < 1e-9 and after["error_px"].item() == pytest.approx(
        before["error_px"].item(), abs=0.2
    )
    assert (before["labels_off_view"], after["labels_off_view"]) == (0.0, pytest.approx(4 / 48))
    nobody = replace(batch, joint_in_view=torch.zeros_like(seen))
    assert task().training_scalars(Drawn([batch]), nobody)["loss"].item() == 0.0


def test_pck_is_within_half_the_head_or_a_sixteenth_of_the_box():
    batch = labelled_batch(head_size_px=torch.tensor([20.0, 18.0, 0.0]))
    box_px = SIZE / 1.2
    for moved_px, found in ((8.9, 3), (9.5, 1), (10.5, 0)):
        assert box_px / 16.0 < 8.9  # the third has no head: its limit is smaller than either
        expected = 100.0 * (found - (moved_px > box_px / 16.0) if found == 3 else found) / 3.0
        metrics = KeypointMetrics(get_skeleton("mpii_16"))
        metrics.update(task().predict(Drawn([batch], moved_px), batch), batch)
        values = metrics.compute()
        assert values["pck_percent"].item() == pytest.approx(expected)
        assert values["error_px"].item() == pytest.approx(moved_px, abs=0.05)
        assert values["pck_percent/head_top"].item() == pytest.approx(expected)


def test_an_evaluation_names_pck_first_and_tells_it_by_action():
    batches = [
        replace(labelled_batch(2, seed), keys=[f"{seed}a", f"{seed}b"], actions=["walk", "sit"]) for seed in (1, 2)
    ]
    scores = evaluate(Drawn(batches, 1.0), task(), batches, previews=1, by_part=True)
    assert scores.values["pck_percent"] == 100.0 and scores.values["error_px"] == pytest.approx(1.0, abs=0.05)
    assert scores.by_part["action"]["sit"]["samples"] == 2 and set(scores.by_part) == {"action"}
    assert scores.previews[0].ndim == 3 and scores.previews[0].dtype == np.uint8
    assert task().criterion.cost(90.0) < task().criterion.cost(80.0)


def test_the_flip_test_brings_the_mirrored_maps_back():
    batch = labelled_batch()
    flip = torch.from_numpy(get_skeleton("mpii_16").flip_permutation)

    class Mirroring(Drawn):
        """Right where it is asked about the mirrored picture, and wrong else."""

        def forward(self, asked: PoseBatch) -> HeatmapPrediction:
            maps = super().forward(asked).heatmaps
            is_mirrored = torch.equal(asked.image, batch.image.flip(-1))
            return HeatmapPrediction(maps.flip(-1)[:, :, flip] if is_mirrored else torch.zeros_like(maps))

    found = task(Decoding(flip=True)).predict(Mirroring([batch]), batch)
    assert (found.points_px - batch.joints_px).norm(dim=-1).max() < 0.05
    assert found.score.max() <= 0.5


def test_batches_without_2d_labels_or_pictures_are_refused():
    batch = labelled_batch()
    with pytest.raises(ValueError, match="no 2D labels"):
        task().check_labels(replace(batch, joints_px=None, joint_in_view=None))
    with pytest.raises(ValueError, match="no pictures"):
        task().check_labels(replace(batch, image=None))
