"""The convolutional lifter: image, depth and heat maps -> inverted residuals -> dual paths -> WASP -> pose.

Cues and the regression head are common.py's; the numbers are `CNNConfig`'s.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from humanpose3d.model_config import CNNConfig
from humanpose3d.models.common import CueEncoder, PosePrediction, PoseRegressionHead, scale_image
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton


class CNNPoseEstimation(nn.Module):
    """PoseBatch -> PosePrediction. Depth joins the image at stride 2, the heat maps at theirs, stride 4."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        if config.heatmap_stride != 4:
            raise ValueError(f"heatmap_stride is {config.heatmap_stride}; the CNN takes heat maps at stride 4")
        if config.input_size % 2 ** (len(config.stage_channels) + 1):
            raise ValueError(f"input_size {config.input_size} must divide by every stage's stride")
        self.config = config
        channels = config.stage_channels
        keypoints = len(get_skeleton(config.keypoint_skeleton))
        self.cues = CueEncoder(config, depth_map_size=config.input_size // 2)
        self.image_stem = convolution(3, config.stem_channels, stride=2)
        self.depth_stem = convolution(config.stem_channels + 2, channels[0], stride=2)
        self.merge = convolution(channels[0] + keypoints, channels[0], kernel=1)
        self.stages = nn.Sequential(*_stages(config))
        self.dual_path = DualPath(channels[-1], config.dual_path_growth, config.dual_path_blocks)
        self.waterfall = WASP(self.dual_path.out_channels, config.waterfall_channels, config.waterfall_rates)
        self.to_pose = convolution(config.waterfall_channels, config.pose_channels, kernel=1)
        last_side = config.input_size // 2 ** (len(channels) + 1)
        self.head = PoseRegressionHead(config, features=config.pose_channels * last_side**2)
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU, and what tensor cores want

    def forward(self, batch: PoseBatch) -> PosePrediction:
        assert batch.image is not None
        cues = self.cues(batch)
        x = self.image_stem(scale_image(batch.image, torch.channels_last))  # [B C S/2 S/2]
        x = self.depth_stem(torch.cat([x, cues.depth, cues.depth_valid], dim=1))  # [B C S/4 S/4]
        x = self.merge(torch.cat([x, cues.heatmaps], dim=1))
        x = self.stages(x)  # [B C S/16 S/16]
        x = self.dual_path(x)
        x = self.waterfall(x)
        x = self.to_pose(x)
        return self.head(x.flatten(1), cues, batch.intrinsics)


def convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the side is kept, or divided by `stride`."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _stages(config: CNNConfig) -> list[nn.Module]:
    """Inverted residual blocks, halving the side from each stage to the next."""
    blocks: list[nn.Module] = []
    inputs = config.stage_channels[0]
    for stage, (channels, number) in enumerate(zip(config.stage_channels, config.stage_blocks, strict=True)):
        for block in range(number):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append(InvertedResidual(inputs, channels, config.expansion, stride))
            inputs = channels
    return blocks


class InvertedResidual(nn.Module):
    """Widen, depthwise convolution, squeeze-excitation, narrow (MobileNetV3, Howard et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.layers = nn.Sequential(
            convolution(inputs, inner, kernel=1),
            convolution(inner, inner, stride=stride, groups=inner),
            SqueezeExcitation(inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.keeps_shape = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.keeps_shape else self.layers(x)


class SqueezeExcitation(nn.Module):
    """Each channel times a number in 0..1 that the whole picture decides (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x.mean((2, 3)))[..., None, None]


class DualPath(nn.Module):
    """Dual-path blocks in a row; both paths together come out."""

    def __init__(self, channels: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DualPathBlock(channels, growth * block, growth) for block in range(blocks))
        self.out_channels = channels + growth * blocks

    def forward(self, x: Tensor) -> Tensor:
        dense = x[:, :0]
        for block in self.blocks:
            x, dense = block(x, dense)
        return torch.cat([x, dense], dim=1)


class DualPathBlock(nn.Module):
    """Looks at both paths; adds to the residual one, appends to the dense one (DPN, Chen et al. 2017)."""

    def __init__(self, residual: int, dense: int, growth: int) -> None:
        super().__init__()
        inner = residual // 2
        self.residual = residual
        self.layers = nn.Sequential(
            convolution(residual + dense, inner, kernel=1),
            convolution(inner, inner),
            nn.Conv2d(inner, residual + growth, 1, bias=False),
            nn.BatchNorm2d(residual + growth),
        )

    def forward(self, residual: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        new = self.layers(torch.cat([residual, dense], dim=1))
        residual = residual + new[:, : self.residual]
        return residual, torch.cat([dense, new[:, self.residual :]], dim=1)


class WASP(nn.Module):
    """Waterfall atrous spatial pooling: dilated convolutions, each fed by the one before, all of them and the picture's
    mean merged (UniPose, Artacho & Savakis 2020)."""

    def __init__(self, inputs: int, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = convolution(inputs, channels, kernel=1)
        self.falls = nn.ModuleList(convolution(channels, channels, dilation=rate) for rate in rates)
        # No batch norm here: of one picture's mean there is one value, which it cannot take in training.
        self.mean = nn.Sequential(nn.Linear(inputs, channels), nn.ReLU(inplace=True))
        self.merge = convolution(channels * (len(rates) + 2), channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        pool = self.mean(x.mean((2, 3)))[..., None, None].expand(-1, -1, *x.shape[2:])
        levels = [self.enter(x)]
        for fall in self.falls:
            levels.append(fall(levels[-1]))
        return self.merge(torch.cat([*levels, pool], dim=1))
