from dataclasses import replace

import pytest
import torch

from humanpose3d.config import LossWeights
from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.tasks import TASKS, LiftingTask
from tests.batches import random_batch

CONFIG = model_config("cnn", "tiny", input_size=64)


def test_every_model_has_a_task():
    from humanpose3d.models import MODELS

    assert TASKS.keys() == MODELS.keys()


def test_a_model_without_depth_does_not_ask_for_it():
    assert "depth_m" in LiftingTask(CONFIG, LossWeights(), "root_relative").fields
    blind = replace(CONFIG, use_depth=False)
    assert "depth_m" not in LiftingTask(blind, LossWeights(), "root_relative").fields


def test_a_training_step_shows_the_loss_its_terms_and_the_error():
    task, batch = LiftingTask(CONFIG, LossWeights(), "root_relative"), random_batch(2, input_size=64)
    scalars = task.training_scalars(build_model(CONFIG), batch)
    assert set(scalars) == {"loss", "mse", "l1", "inter_joint", "absolute_root", "mpjpe_mm"}
    terms = {name: scalars[name] for name in ("mse", "l1", "inter_joint", "absolute_root")}
    expected = terms["mse"] + terms["l1"] + 100 * terms["inter_joint"] + terms["absolute_root"]
    assert scalars["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert scalars["loss"].requires_grad and not scalars["mpjpe_mm"].requires_grad


def test_the_loss_is_computed_in_full_precision_under_autocast():
    task, batch = LiftingTask(CONFIG, LossWeights(), "root_relative"), random_batch(2, input_size=64)
    model = build_model(CONFIG).eval()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = task.predict(model, batch)
        inside = task.loss(prediction, batch)
    outside = task.loss(prediction, batch)
    assert prediction.joints_rel_m.dtype == torch.float32
    assert {name: value.item() for name, value in inside.items()} == {n: v.item() for n, v in outside.items()}
