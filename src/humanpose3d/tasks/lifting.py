"""Lifting: image, depth and 2D keypoints -> 3D joints and root. What goes with a lifter, whichever its network is.

Which fields the reader decodes, the loss, the metrics and the pictures; reading and stepping are others'.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from humanpose3d.config import LossWeights
from humanpose3d.loss import ComprehensivePoseLoss, Target
from humanpose3d.metrics import MM_PER_M, PoseMetrics, joint_error
from humanpose3d.model_config import ModelConfig
from humanpose3d.models.common import PosePrediction
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton
from humanpose3d.tasks.criterion import Criterion, Measurable
from humanpose3d.tasks.groups import GROUPS
from humanpose3d.visualize.panels import visualize_comparison


class LiftingTask:
    """Loss, metrics and previews of a lifter of this configuration."""

    needed = "a labelled root joint"  # for the criterion
    criterion = watched = Criterion("mpjpe_mm", "MPJPE", "mm")
    summary = {
        "mpjpe_mm": "MPJPE {:.1f} mm",
        "pa_mpjpe_mm": "PA-MPJPE {:.1f} mm",
        "absolute_mpjpe_mm": "absolute MPJPE {:.1f} mm",
        "root_error_mm": "root error {:.1f} mm",
    }

    def __init__(self, config: ModelConfig, weights: LossWeights, target: Target) -> None:
        self.skeleton = get_skeleton(config.skeleton)
        self.keypoint_skeleton = get_skeleton(config.keypoint_skeleton)
        self.fields = config.needs  # of a stored sample, decoded beside its metadata
        self._loss = ComprehensivePoseLoss(weights, target, self.skeleton.root_index)

    def predict(self, model: nn.Module, batch: PoseBatch) -> PosePrediction:
        """The model's answer, in float32 whatever the precision it was computed in."""
        prediction = model(batch)
        log_error_m = None if prediction.log_error_m is None else prediction.log_error_m.float()
        return PosePrediction(prediction.joints_rel_m.float(), prediction.root_cam_m.float(), log_error_m)

    def loss(self, prediction: PosePrediction, batch: PoseBatch) -> dict[str, Tensor]:
        """Named terms without their weights, and "loss", their weighted sum. Scalars."""
        # Squares of metres: 16 bits would keep two digits of them.
        with torch.autocast(prediction.root_cam_m.device.type, enabled=False):
            terms = self._loss(prediction, batch)
        return {"loss": terms.pop("total"), **terms}

    def training_scalars(self, model: nn.Module, batch: PoseBatch) -> dict[str, Tensor]:
        """What a training step shows: the loss (the one to descend), its terms, and the batch's mpjpe_mm."""
        prediction = self.predict(model, batch)
        return {**self.loss(prediction, batch), "mpjpe_mm": self._mpjpe_mm(prediction, batch)}

    def metrics(self) -> PoseMetrics:
        return PoseMetrics(self.skeleton)

    def measurable(self, prediction: PosePrediction, batch: PoseBatch) -> Measurable:
        assert batch.joints_cam_m is not None and batch.joint_mask is not None
        return Measurable(prediction.joints_rel_m, batch.joints_cam_m, batch.joint_mask)

    def parts(self, batch: PoseBatch) -> dict[str, np.ndarray]:
        """What its samples are asked about (the action, the questions of groups.py) -> each one's answer; "" where it
        cannot be told."""
        assert batch.joints_cam_m is not None and batch.joint_mask is not None
        truth = batch.joints_cam_m.where(batch.joint_mask[..., None], torch.nan).cpu().numpy()
        found = {"action": np.array(batch.actions)}
        for question, (names, group_of) in GROUPS.items() if "left_hip" in self.skeleton.points else ():
            found[question] = np.array([*names, ""])[group_of(truth, self.skeleton)]
        return found

    def previews(self, prediction: PosePrediction, batch: PoseBatch, number: int) -> list[np.ndarray]:
        """uint8 [H W 3] pictures of the first samples: input, keypoints, true pose and predicted pose."""
        assert batch.joints_cam_m is not None and batch.joint_mask is not None
        truth_m = batch.joints_cam_m.where(batch.joint_mask[..., None], torch.nan)
        drawn = [row for row in range(len(batch)) if batch.counted[row] and batch.joint_mask[row].any()][:number]
        return [
            visualize_comparison(
                None if batch.image is None else batch.image[row].permute(1, 2, 0).cpu().numpy(),
                batch.keypoints_px[row].cpu().numpy(),
                batch.keypoint_score[row].cpu().numpy(),
                prediction.joints_cam_m[row].cpu().numpy(),
                truth_m[row].cpu().numpy(),
                skeleton=self.skeleton,
                keypoint_skeleton=self.keypoint_skeleton,
                title=f"{batch.subjects[row]} {batch.actions[row]}",
            )
            for row in drawn
        ]

    def _mpjpe_mm(self, prediction: PosePrediction, batch: PoseBatch) -> Tensor:
        assert batch.joints_cam_m is not None and batch.joint_mask is not None
        root = self.skeleton.root_index
        labels_m = batch.joints_cam_m - batch.joints_cam_m[:, root, None]
        mask = batch.joint_mask & batch.joint_mask[:, root, None]
        error_m = joint_error(prediction.joints_rel_m.detach(), labels_m) * mask
        return MM_PER_M * error_m.sum() / mask.sum().clamp(min=1)

    @staticmethod
    def check_labels(batch: PoseBatch) -> None:
        """ValueError where a batch has no 3D labels at all."""
        if batch.joints_cam_m is None or batch.joint_mask is None:
            raise ValueError(
                f"sample {batch.keys[0]} and its batch have no 3D labels; training and measuring need them"
            )
