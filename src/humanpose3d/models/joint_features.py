"""What a picture, and a depth map, show at each 2D keypoint: a small timm network's features, depths around it.

For the keypoint lifter where it is given pictures; where it is not, the reader takes the depths from the chunks itself
(dataset/keypoint_batches.py).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from humanpose3d.models.common import sample_map, scale_image
from humanpose3d.sample import PoseBatch

LEVELS = (2, 3)  # of the pyramid of a timm network: strides 8 and 16
PATCH = [(x, y) for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)]  # where depth is read around a joint,
PATCH_STEP = 0.02  # in shares of the person's size: about the radius of a wrist


class JointImageFeatures(nn.Module):
    """PoseBatch with pictures -> [B Jin width]: a network's features, at two scales, read at the keypoints."""

    def __init__(self, backbone: str, width: int, input_size: int, *, pretrained: bool = False) -> None:
        """backbone: timm's name of a network that gives a pyramid. ValueError for any other.

        pretrained: start from timm's ImageNet weights, which timm downloads where it has not yet.
        """
        super().__init__()
        import timm

        try:
            network: Any = timm.create_model(backbone, pretrained=pretrained, features_only=True, out_indices=LEVELS)
            _freeze_unread(network, input_size)
        except (RuntimeError, AttributeError, IndexError, AssertionError) as error:
            raise ValueError(
                f"timm has no network '{backbone}' with a pyramid of features ({error}); mobilenetv3_small_050, "
                "resnet18 and hrnet_w18_small have one"
            ) from None
        self.backbone: nn.Module = network
        self.project = nn.Linear(sum(network.feature_info.channels()), width)

    def forward(self, batch: PoseBatch) -> Tensor:
        assert batch.image is not None
        grid = (2.0 * batch.keypoints_px + 1.0) / batch.image.shape[-1] - 1.0
        found = [
            F.grid_sample(level, grid[:, None].to(level.dtype), padding_mode="border", align_corners=False)[:, :, 0]
            for level in self.backbone(scale_image(batch.image))
        ]
        return self.project(torch.cat(found, dim=1).mT)


@torch.enable_grad()
def _freeze_unread(network: nn.Module, input_size: int) -> None:
    """Of what timm builds, all that no level that is read depends on: processes would wait for its gradients."""
    parameters = list(network.parameters())
    levels = network.eval()(torch.zeros(1, 3, input_size, input_size))  # so that it leaves no trace in statistics
    found = torch.autograd.grad(sum(level.sum() for level in levels), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.requires_grad_(gradient is not None)
    network.train()


def depths_at_keypoints(depth_m: Tensor, points_px: Tensor, known: Tensor, input_size: int) -> tuple[Tensor, Tensor]:
    """([B J 2]: median and interquartile range of the depths around each keypoint; bool [B J]: whether there are any).

    depth_m: [B 1 h w] metres, 0 where unknown, of the `input_size` square that points_px [B J 2] lie in. A patch, since
    a joint at the body's edge has the wall's depth on one pixel in two.
    """
    wide = points_px.where(known[..., None], -torch.inf).amax(1) - points_px.where(known[..., None], torch.inf).amin(1)
    size = wide.amax(1).clamp(min=0.0)  # [B], the longer side of the person's box; 0 without a keypoint
    steps = PATCH_STEP * size[:, None, None, None] * torch.tensor(PATCH, device=points_px.device)
    patch_px = (points_px[:, :, None] + steps).flatten(1, 2)
    found = sample_map(depth_m, patch_px, input_size)[..., 0].unflatten(1, (-1, len(PATCH)))  # [B J P]
    found = found.where((found > 0) & known[..., None], torch.nan).sort(-1).values  # unknown ones last
    number = found.isfinite().sum(-1, keepdim=True)
    quarters = torch.tensor([0.25, 0.5, 0.75], device=found.device)
    at = ((number - 1).clamp(min=0) * quarters + 0.5).long()
    low, median, high = found.gather(-1, at).nan_to_num(0.0).unbind(-1)
    return torch.stack([median, high - low], dim=-1), number[..., 0] > 0
