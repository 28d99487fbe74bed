"""2D pose by heat maps: a picture -> where each joint is. What goes with an hourglass.

Targets are drawn on the device, from the labels' pixels. A joint without a label, or off the view, is masked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from humanpose3d.config import LossWeights
from humanpose3d.loss import Target
from humanpose3d.metrics import KeypointMetrics
from humanpose3d.model_config import HEATMAP_STRIDE, HourglassConfig, ModelConfig
from humanpose3d.models.common import GaussianHeatmapGenerator
from humanpose3d.models.hourglass import DECODERS, flipped_back, gaussian_energy, peaks
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton
from humanpose3d.tasks.criterion import Criterion, Measurable
from humanpose3d.visualize.heatmaps import draw_heatmaps

# A joint is a few cells of thousands: without this an hourglass answers nothing anywhere for a long time (docs/LOG.md).
FOREGROUND = 10.0


class KeypointPrediction(NamedTuple):
    """Heat maps and the joints in them."""

    heatmaps: Tensor  # float32 [B stacks J h w]
    points_px: Tensor  # float32 [B J 2], of the model input
    score: Tensor  # float32 [B J], height of the peak


@dataclass(frozen=True)
class Decoding:
    """How joints are read from heat maps."""

    decoder: str = DECODERS[0]
    flip: bool = False  # mean with the maps of the mirrored picture, which costs as much again


class HeatmapTask:
    """Loss, metrics and previews of a heat-map network of this configuration."""

    needed = "a labelled joint in its picture"  # for the criterion
    criterion = Criterion("pck_percent", "PCK", "%", higher_is_better=True)
    watched = Criterion("error_px", "error", "px")  # of a training step
    summary = {"pck_percent": "PCK {:.1f} %", "error_px": "mean error {:.2f} px"}

    def __init__(
        self, config: ModelConfig, weights: LossWeights, target: Target, decoding: Decoding | None = None
    ) -> None:
        assert isinstance(config, HourglassConfig)
        self.config, self.fields = config, config.needs
        self.skeleton = get_skeleton(config.skeleton)
        self.decoding = decoding or Decoding()
        self._draw = GaussianHeatmapGenerator(config.input_size, HEATMAP_STRIDE, config.heatmap_sigma)
        self._energy = gaussian_energy(config.heatmap_sigma, FOREGROUND)
        self._flip = torch.from_numpy(self.skeleton.flip_permutation)

    def predict(self, model: nn.Module, batch: PoseBatch) -> KeypointPrediction:
        """The model's answer, in float32 whatever the precision it was computed in."""
        heatmaps = model(batch).heatmaps.float()
        last = heatmaps[:, -1]
        if self.decoding.flip:
            assert batch.image is not None
            mirrored = model(replace(batch, image=batch.image.flip(-1))).heatmaps[:, -1].float()
            last = 0.5 * (last + flipped_back(mirrored, self._flip.to(mirrored.device)))
        return KeypointPrediction(heatmaps, *peaks(last, self.decoding.decoder))

    def loss(self, prediction: KeypointPrediction, batch: PoseBatch) -> dict[str, Tensor]:
        """Squared error of the labelled joints' maps, cells near a joint weighing more, in units of what an empty map
        would have: of each stack, "stack_1" ..., and "loss", their mean."""
        assert batch.joints_px is not None and batch.joint_in_view is not None
        heatmaps = prediction.heatmaps
        with torch.autocast(heatmaps.device.type, enabled=False):
            self._draw.to(heatmaps.device)
            seen = batch.joint_in_view
            target = self._draw(batch.joints_px, torch.ones_like(batch.joints_px[..., 0]), seen)
            weight = 1.0 + FOREGROUND * target[:, None]
            square = (weight * (heatmaps - target[:, None]).square()).sum((-1, -2)) / self._energy  # [B stacks J]
            count = seen.sum().clamp(min=1)
            stacks = (square * seen[:, None]).sum((0, 2)) / count
        return {"loss": stacks.mean()} | {f"stack_{number}": value for number, value in enumerate(stacks, start=1)}

    def training_scalars(self, model: nn.Module, batch: PoseBatch) -> dict[str, Tensor]:
        """What a training step shows: the loss (the one to descend), its terms, the joints' mean error_px, and which
        share of the labels is off its view and masked."""
        heatmaps = model(batch).heatmaps.float()
        prediction = KeypointPrediction(heatmaps, *peaks(heatmaps[:, -1], "peak"))
        assert batch.joints_px is not None and batch.joint_in_view is not None and batch.joint_px_mask is not None
        error_px = (prediction.points_px - batch.joints_px).norm(dim=-1) * batch.joint_in_view
        return {
            **self.loss(prediction, batch),
            "error_px": error_px.sum() / batch.joint_in_view.sum().clamp(min=1),
            "labels_off_view": (batch.joint_px_mask & ~batch.joint_in_view).sum()
            / batch.joint_px_mask.sum().clamp(min=1),
        }

    def metrics(self) -> KeypointMetrics:
        return KeypointMetrics(self.skeleton)

    def measurable(self, prediction: KeypointPrediction, batch: PoseBatch) -> Measurable:
        """Joints beside the view count too, as published: they are missed."""
        assert batch.joints_px is not None and batch.joint_px_mask is not None
        focal_px = torch.linalg.det(batch.intrinsics[:, :2, :2]).abs().sqrt()
        return Measurable(prediction.points_px, batch.joints_px, batch.joint_px_mask, batch.head_size_px, focal_px)

    def parts(self, batch: PoseBatch) -> dict[str, np.ndarray]:
        """What its samples are asked about -> each one's answer; "" where it has none."""
        return {"action": np.array(batch.actions)}

    def previews(self, prediction: KeypointPrediction, batch: PoseBatch, number: int) -> list[np.ndarray]:
        """uint8 [H W 3] pictures of the first samples: predicted joints, heat maps, true joints."""
        assert batch.image is not None and batch.joints_px is not None and batch.joint_in_view is not None
        drawn = [row for row in range(len(batch)) if batch.counted[row] and batch.joint_in_view[row].any()][:number]
        return [
            draw_heatmaps(
                batch.image[row].permute(1, 2, 0).cpu().numpy(),
                prediction.heatmaps[row, -1].cpu().numpy(),
                prediction.points_px[row].cpu().numpy(),
                prediction.score[row].cpu().numpy(),
                batch.joints_px[row].where(batch.joint_in_view[row][..., None], torch.nan).cpu().numpy(),
                skeleton=self.skeleton,
                title=f"{batch.subjects[row]} {batch.actions[row]}",
            )
            for row in drawn
        ]

    @staticmethod
    def check_labels(batch: PoseBatch) -> None:
        """ValueError where a batch has no 2D labels at all."""
        if batch.joints_px is None or batch.joint_in_view is None:
            raise ValueError(
                f"sample {batch.keys[0]} and its batch have no 2D labels; training and measuring need them"
            )
        if batch.image is None:
            raise ValueError(f"sample {batch.keys[0]} and its batch have no pictures, which an hourglass looks at")
