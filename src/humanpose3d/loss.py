"""What the lifters minimise: named terms on tensors, each masked by the joints that have a label.

The weights are `config.LossWeights`'; distances are metres.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

import torch
from torch import Tensor, nn

from humanpose3d.config import LossWeights
from humanpose3d.models.common import PosePrediction
from humanpose3d.sample import PoseBatch

Target = Literal["root_relative", "absolute"]
COINCIDENT_M2 = 1e-9  # added to squared distances: the root of 0 has no gradient


class ComprehensivePoseLoss(nn.Module):
    """Weighted sum of joint MSE, joint L1, distances between all pairs of joints, and the absolute root; and, for a
    network that says how far each joint may be off, how likely that makes the labels.

    target: what the joint terms compare, "root_relative" (root at the origin) or "absolute" (camera frame).
    """

    def __init__(self, weights: LossWeights, target: Target, root_index: int) -> None:
        super().__init__()
        self.weights: dict[str, float] = asdict(weights)
        self.target, self.root_index = target, root_index

    def forward(self, prediction: PosePrediction, batch: PoseBatch) -> dict[str, Tensor]:
        """Each term without its weight, by the weight's name, and their weighted sum as "total"; scalars.

        A term without any labelled joint is 0. Samples whose root has no label count only where it is not needed.
        """
        assert batch.joints_cam_m is not None and batch.joint_mask is not None
        labels_m, mask = batch.joints_cam_m, batch.joint_mask & batch.counted[:, None]
        root_m, root_mask = labels_m[:, self.root_index], mask[:, self.root_index]
        if self.target == "absolute":
            error_m, error_mask = prediction.joints_cam_m - labels_m, mask
        else:
            error_m, error_mask = prediction.joints_rel_m - (labels_m - root_m[:, None]), mask & root_mask[:, None]
        terms = {
            "mse": masked_mean(error_m.square().mean(-1), error_mask),
            "l1": masked_mean(error_m.abs().mean(-1), error_mask),
            "inter_joint": inter_joint(prediction.joints_rel_m, labels_m, mask),
            "absolute_root": masked_mean((prediction.root_cam_m - root_m).abs().mean(-1), root_mask),
        }
        if prediction.log_error_m is not None:
            error_mask = error_mask.clone()
            error_mask[:, self.root_index] = False  # relative to itself it is always right
            terms["uncertainty"] = masked_mean(laplace_nll(error_m.abs().mean(-1), prediction.log_error_m), error_mask)
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {**terms, "total": total}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values whose mask is True; 0, with a gradient of 0, where there are none."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def laplace_nll(error_m: Tensor, log_error_m: Tensor) -> Tensor:
    """[B J] mean absolute errors along the axes, and what they were expected to be -> [B J], up to a constant."""
    return error_m * (-log_error_m).exp() + log_error_m


def inter_joint(joints_m: Tensor, labels_m: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the distances between all pairs of joints. [B J 3], [B J 3], bool [B J] -> scalar, m^2."""
    first, second = torch.triu_indices(mask.shape[1], mask.shape[1], offset=1, device=mask.device)
    error_m = _distances(joints_m, first, second) - _distances(labels_m, first, second)
    return masked_mean(error_m.square(), mask[:, first] & mask[:, second])


def _distances(joints_m: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return ((joints_m[:, first] - joints_m[:, second]).square().sum(-1) + COINCIDENT_M2).sqrt()
