from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from humanpose3d.config import LossWeights
from humanpose3d.model_config import model_config
from humanpose3d.models.common import PosePrediction
from humanpose3d.skeletons import H36M_17
from humanpose3d.tasks import LiftingTask
from humanpose3d.tasks.evaluation import evaluate, mean_pose, score_mean_pose
from tests.batches import random_batch

TASK = LiftingTask(model_config("cnn", "tiny"), LossWeights(), "root_relative")


class Shifted(nn.Module):
    """Answers with the truth, its wrist 34 mm and its root 50 mm off."""

    def forward(self, batch):
        joints_rel_m = batch.joints_cam_m - batch.joints_cam_m[:, :1]
        joints_rel_m[:, H36M_17.index("left_wrist"), 1] += 0.034
        return PosePrediction(joints_rel_m, batch.joints_cam_m[:, 0] + torch.tensor([0.03, 0.0, 0.04]))


def test_scores_are_those_of_a_known_error():
    scores = evaluate(Shifted(), TASK, [random_batch(4, seed=1), random_batch(4, seed=2)])
    assert scores.values["mpjpe_mm"] == pytest.approx(34 / 17, rel=1e-4)
    assert scores.values["root_error_mm"] == pytest.approx(50, rel=1e-4)
    assert scores.values["absolute_root"] == pytest.approx(0.07 / 3, rel=1e-4)
    assert scores.samples == 8


def test_repeats_that_fill_the_last_batch_change_nothing():
    whole = random_batch(4)
    spoilt = replace(whole, counted=torch.tensor([True, True, False, False]), joints_cam_m=whole.joints_cam_m.clone())
    spoilt.joints_cam_m[2:] += torch.rand(2, 17, 3, generator=torch.Generator().manual_seed(0))
    head = replace(whole, counted=torch.tensor([True, True, False, False]))
    model = nn.Module()
    truth = whole.joints_cam_m
    model.forward = lambda batch: PosePrediction(truth - truth[:, :1] + 0.01, truth[:, 0])
    first, second = (evaluate(model, TASK, [batch]) for batch in (head, spoilt))
    assert first.values == second.values
    assert first.samples == second.samples == 2


def test_actions_and_kinds_of_poses_are_scored_apart():
    batch = replace(random_batch(4), actions=["Sit", "Walk", "Sit", "Walk"])
    truth = batch.joints_cam_m
    off = truth - truth[:, :1]
    off[[0, 2], 5, 0] += 0.17
    model = nn.Module()
    model.forward = lambda batch: PosePrediction(off, truth[:, 0])
    scores = evaluate(model, TASK, [batch], by_part=True)
    assert scores.by_part["action"]["Sit"]["mpjpe_mm"] == pytest.approx(10, rel=1e-4)
    assert scores.by_part["action"]["Walk"]["mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    for question in ("facing", "posture", "limbs"):
        parts = scores.by_part[question]
        assert sum(part["samples"] for part in parts.values()) == 4, question
        mean = sum(part["samples"] * part["mpjpe_mm"] for part in parts.values()) / 4
        assert mean == pytest.approx(scores.values["mpjpe_mm"], rel=1e-4)


def test_the_mean_pose_and_its_error_are_those_computed_by_hand():
    batch = random_batch(6)
    relative_m = (batch.joints_cam_m - batch.joints_cam_m[:, :1]).numpy().astype(np.float64)
    pose_m = mean_pose([batch], H36M_17)
    np.testing.assert_allclose(pose_m, relative_m.mean(0), atol=1e-6)
    expected_mm = 1000 * np.linalg.norm(relative_m - relative_m.mean(0), axis=-1).mean()
    assert score_mean_pose(pose_m, [batch], H36M_17) == pytest.approx(expected_mm, rel=1e-5)


def test_a_joint_without_a_label_is_left_out_of_the_mean_pose():
    batch = random_batch(3)
    batch.joint_mask[0, 5] = False
    relative_m = batch.joints_cam_m - batch.joints_cam_m[:, :1]
    assert torch.allclose(mean_pose([batch], H36M_17)[5], relative_m[1:, 5].mean(0), atol=1e-6)


def test_batches_without_labels_cannot_be_measured():
    batch = replace(random_batch(2), joints_cam_m=None, joint_mask=None)
    with pytest.raises(ValueError, match="no 3D labels"):
        evaluate(Shifted(), TASK, [batch])


def test_a_set_where_no_root_is_labelled_cannot_be_measured():
    batch = random_batch(2)
    with pytest.raises(ValueError, match="labelled root"):
        evaluate(Shifted(), TASK, [replace(batch, joint_mask=torch.zeros_like(batch.joint_mask))])


def test_answers_that_are_no_numbers_are_named_whichever_joint_they_are_of():
    batch, model = random_batch(6), nn.Module()
    answers_m = batch.joints_cam_m - batch.joints_cam_m[:, :1]
    answers_m[1:5, 5] = torch.nan
    model.forward = lambda batch: PosePrediction(answers_m, batch.joints_cam_m[:, 0])
    with pytest.raises(
        ValueError, match=r"answers to 4 samples are not finite \(test-0-1, test-0-2, test-0-3, \.\.\.\)"
    ):
        evaluate(model, TASK, [batch])


def test_previews_show_the_first_samples_as_pictures():
    scores = evaluate(Shifted(), TASK, [random_batch(2), random_batch(2, seed=1)], previews=3)
    assert len(scores.previews) == 3
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in scores.previews)
