"""The stacked hourglass as its authors publish it (princeton-vl/pytorch_stacked_hourglass), in plain layers.

The names of its weights are theirs, so that checkpoints of that layout can be made; what benchmarks/hourglass.py
measures ours against.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution, then batch norm and ReLU where asked for."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, bn: bool = False, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=True)
        self.relu = nn.ReLU() if relu else None
        self.bn = nn.BatchNorm2d(outputs) if bn else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x if self.bn is None else self.bn(x)
        return x if self.relu is None else self.relu(x)


class Residual(nn.Module):
    """x + three convolutions, each after batch norm and ReLU. Each has a skip layer, used or not."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), Conv(inputs, half, 1, relu=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), Conv(half, half, 3, relu=False)
        self.bn3, self.conv3 = nn.BatchNorm2d(half), Conv(half, outputs, 1, relu=False)
        self.skip_layer, self.needs_skip = Conv(inputs, outputs, 1, relu=False), inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv3(F.relu(self.bn3(self.conv2(F.relu(self.bn2(y))))))
        return y + (self.skip_layer(x) if self.needs_skip else x)


class Hourglass(nn.Module):
    """Halves the side `depth` times and comes back."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.up1, self.low1 = Residual(channels, channels), Residual(channels, channels)
        self.low2 = Hourglass(depth - 1, channels) if depth > 1 else Residual(channels, channels)
        self.low3 = Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low3(self.low2(self.low1(F.max_pool2d(x, 2))))
        return self.up1(x) + F.interpolate(low, scale_factor=2)


class Merge(nn.Module):
    """Brings one stack's answer to the next."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(inputs, outputs, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class PoseNet(nn.Module):
    """float32 [B 3 S S] in 0..1 -> [B stacks joints S/4 S/4]."""

    def __init__(self, stacks: int, channels: int, joints: int) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.pre = nn.Sequential(
            Conv(3, quarter, 7, 2, bn=True), Residual(quarter, half), nn.MaxPool2d(2),
            Residual(half, half), Residual(half, channels),
        )  # fmt: skip
        self.hgs = nn.ModuleList(nn.Sequential(Hourglass(4, channels)) for _ in range(stacks))
        self.features = nn.ModuleList(
            nn.Sequential(Residual(channels, channels), Conv(channels, channels, 1, bn=True)) for _ in range(stacks)
        )
        self.outs = nn.ModuleList(Conv(channels, joints, 1, relu=False) for _ in range(stacks))
        self.merge_features = nn.ModuleList(Merge(channels, channels) for _ in range(stacks - 1))
        self.merge_preds = nn.ModuleList(Merge(joints, channels) for _ in range(stacks - 1))

    def forward(self, image: Tensor) -> Tensor:
        x, found = self.pre(image), []
        for i, hourglass in enumerate(self.hgs):
            features = self.features[i](hourglass(x))
            found.append(self.outs[i](features))
            if i < len(self.hgs) - 1:
                x = x + self.merge_preds[i](found[-1]) + self.merge_features[i](features)
        return torch.stack(found, dim=1)
