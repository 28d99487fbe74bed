"""The loss's terms against numbers worked out by hand, and what masks do to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from humanpose3d.config import LossWeights
from humanpose3d.loss import ComprehensivePoseLoss
from humanpose3d.models.common import PosePrediction
from tests.batches import random_batch

ROOT = 0  # the pelvis


def two_joint_batch(labels_m: list[list[float]], mask: tuple[bool, bool] = (True, True)):
    batch = random_batch(1)
    return replace(batch, joints_cam_m=torch.tensor([labels_m]), joint_mask=torch.tensor([mask]))


def predict(joints_rel_m: list[list[float]], root_cam_m: list[float]) -> PosePrediction:
    return PosePrediction(
        torch.tensor([joints_rel_m], requires_grad=True), torch.tensor([root_cam_m], requires_grad=True)
    )


LABELS_M = [[0.0, 0.0, 4.0], [0.0, 0.3, 4.0]]
PREDICTION = ([[0.0, 0.0, 0.0], [0.0, 0.0, 0.4]], [0.3, 0.0, 4.0])


def test_each_term_is_what_it_says() -> None:
    loss = ComprehensivePoseLoss(
        LossWeights(mse=2.0, l1=3.0, inter_joint=5.0, absolute_root=7.0), "root_relative", ROOT
    )
    terms = loss(predict(*PREDICTION), two_joint_batch(LABELS_M))
    # The second joint is off by (0, -0.3, 0.4) m, the first by nothing; their distance is 0.4 m and not 0.3 m.
    assert terms["mse"].item() == pytest.approx((0.09 + 0.16) / 6, rel=1e-4)
    assert terms["l1"].item() == pytest.approx((0.3 + 0.4) / 6, rel=1e-4)
    assert terms["inter_joint"].item() == pytest.approx(0.01, rel=1e-4)
    assert terms["absolute_root"].item() == pytest.approx(0.1, rel=1e-4)
    parts = 2 * terms["mse"] + 3 * terms["l1"] + 5 * terms["inter_joint"] + 7 * terms["absolute_root"]
    assert terms["total"].item() == pytest.approx(parts.item())


def test_the_absolute_target_compares_positions() -> None:
    terms = ComprehensivePoseLoss(LossWeights(), "absolute", ROOT)(predict(*PREDICTION), two_joint_batch(LABELS_M))
    assert terms["mse"].item() == pytest.approx((0.09 + 0.09 + 0.09 + 0.16) / 6, rel=1e-4)


def test_unlabelled_joints_do_not_count() -> None:
    loss = ComprehensivePoseLoss(LossWeights(), "root_relative", ROOT)
    terms = loss(predict(*PREDICTION), two_joint_batch(LABELS_M, mask=(True, False)))
    assert terms["mse"].item() == terms["l1"].item() == terms["inter_joint"].item() == 0.0
    assert terms["absolute_root"].item() == pytest.approx(0.1, rel=1e-4)


def test_without_a_labelled_root_only_what_does_not_need_it_counts() -> None:
    batch = two_joint_batch(LABELS_M, mask=(False, True))
    relative = ComprehensivePoseLoss(LossWeights(), "root_relative", ROOT)(predict(*PREDICTION), batch)
    assert relative["total"].item() == 0.0
    absolute = ComprehensivePoseLoss(LossWeights(), "absolute", ROOT)(predict(*PREDICTION), batch)
    assert absolute["mse"].item() == pytest.approx((0.09 + 0.09 + 0.16) / 3, rel=1e-4)


@pytest.mark.parametrize("target", ["root_relative", "absolute"])
def test_a_batch_without_any_label_costs_nothing_and_moves_nothing(target) -> None:
    batch = two_joint_batch([[0.0] * 3, [0.0] * 3], mask=(False, False))
    prediction = predict(*PREDICTION)
    total = ComprehensivePoseLoss(LossWeights(), target, ROOT)(prediction, batch)["total"]
    total.backward()
    assert total.item() == 0.0
    assert all(part.grad.abs().max() == 0 for part in prediction[:2])


def test_repeats_that_fill_up_a_batch_do_not_count() -> None:
    batch = random_batch(4, counted=torch.tensor([True, True, False, False]))
    prediction = PosePrediction(torch.randn(4, 17, 3), torch.randn(4, 3))
    spoiled = replace(batch, joints_cam_m=batch.joints_cam_m * torch.tensor([1.0, 1.0, 9.0, 9.0])[:, None, None])
    loss = ComprehensivePoseLoss(LossWeights(), "root_relative", ROOT)
    assert loss(prediction, batch)["total"].item() == pytest.approx(loss(prediction, spoiled)["total"].item())


def test_joints_in_one_point_have_a_gradient() -> None:
    prediction = predict([[0.0] * 3, [0.0] * 3], [0.0, 0.0, 4.0])
    ComprehensivePoseLoss(LossWeights(), "root_relative", ROOT)(prediction, two_joint_batch(LABELS_M))[
        "total"
    ].backward()
    assert torch.isfinite(prediction.joints_rel_m.grad).all()
