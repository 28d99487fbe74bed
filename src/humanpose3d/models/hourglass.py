"""The stacked hourglass: a picture -> one heat map a joint, refined stack by stack (Newell et al. 2016).

After "Stacked Hourglass Networks for Human Pose Estimation" and the authors' public networks (whose weights
`models/public_hourglass.py` reads); the numbers are `HourglassConfig`'s. Where a joint is in a map: `peaks`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from humanpose3d.model_config import HEATMAP_STRIDE, HourglassConfig
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton

STEM_SHARES = (4, 2, 2)  # the channels come in by a fourth, half, half
DECODERS = ("subpixel", "quarter", "peak")


class HeatmapPrediction(NamedTuple):
    """What a heat-map network answers."""

    heatmaps: Tensor  # float [B stacks J h w]; the last stack's are the answer


class StackedHourglass(nn.Module):
    """PoseBatch with pictures -> HeatmapPrediction."""

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.config = config
        check_depths(config)
        channels, joints = config.channels, len(get_skeleton(config.skeleton))
        quarter, half, _ = (max(channels // share, 1) for share in STEM_SHARES)
        self.stem = nn.Sequential(
            _convolution(config, 3, quarter, kernel=7, stride=2),
            _residuals(config, quarter, half),
            nn.MaxPool2d(2),
            _residuals(config, half, half),
            _residuals(config, half, channels),
        )
        last = len(config.depths) - 1
        self.stacks = nn.ModuleList(
            Stack(config, depth, joints, is_last=number == last) for number, depth in enumerate(config.depths)
        )
        _start(self)
        self.to(memory_format=torch.channels_last)  # what tensor cores and a CPU's tiles want

    def forward(self, batch: PoseBatch) -> HeatmapPrediction:
        assert batch.image is not None
        return HeatmapPrediction(self.heatmaps_of(batch.image))

    def heatmaps_of(self, image: Tensor) -> Tensor:
        """uint8 [B 3 S S] RGB -> [B stacks J S/4 S/4]."""
        x = self.stem(image.to(torch.float32, memory_format=torch.channels_last).div_(255.0))
        found = []
        for stack in self.stacks:
            heatmaps, x = stack(x)
            found.append(heatmaps)
        return torch.stack(found, dim=1)


class Stack(nn.Module):
    """One hourglass, its heat maps, and what the next one starts from."""

    def __init__(self, config: HourglassConfig, depth: int, joints: int, *, is_last: bool) -> None:
        super().__init__()
        channels = config.channels
        self.hourglass = Hourglass(config, depth)
        self.features = nn.Sequential(_residuals(config, channels, channels), _convolution(config, channels, channels))
        self.heatmaps = nn.Conv2d(channels, joints, 1)
        self.merge_features = None if is_last else nn.Conv2d(channels, channels, 1)
        self.merge_heatmaps = None if is_last else nn.Conv2d(joints, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(self.hourglass(x))
        heatmaps = self.heatmaps(features)
        if self.merge_features is None or self.merge_heatmaps is None:
            return heatmaps, features
        return heatmaps, x + self.merge_features(features) + self.merge_heatmaps(heatmaps)


class Hourglass(nn.Module):
    """Halves the side `depth` times and comes back, with a branch at each side that skips what is smaller."""

    def __init__(self, config: HourglassConfig, depth: int) -> None:
        super().__init__()
        channels = config.channels
        self.skip = _residuals(config, channels, channels)
        self.enter = _residuals(config, channels, channels)
        self.inner: nn.Module = Hourglass(config, depth - 1) if depth > 1 else _residuals(config, channels, channels)
        self.leave = _residuals(config, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.leave(self.inner(self.enter(F.max_pool2d(x, 2))))
        return self.skip(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


class Residual(nn.Module):
    """x + three convolutions of it, each after norm and ReLU, through half the channels."""

    def __init__(self, config: HourglassConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = max(outputs // 2, 1)
        self.norm1, self.conv1 = _norm(config, inputs), nn.Conv2d(inputs, middle, 1)
        self.norm2, self.conv2 = _norm(config, middle), nn.Conv2d(middle, middle, 3, padding=1)
        self.norm3, self.conv3 = _norm(config, middle), nn.Conv2d(middle, outputs, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        y = self.conv2(F.relu(self.norm2(y), inplace=True))
        y = self.conv3(F.relu(self.norm3(y), inplace=True))
        return self.skip(x) + y


class ConvReluNorm(nn.Module):
    """The study's other bottleneck: x + four blocks of {convolution, ReLU, norm}, 1 3 3 1 wide, through half the
    channels."""

    def __init__(self, config: HourglassConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = max(outputs // 2, 1)
        shapes = ((inputs, middle, 1), (middle, middle, 3), (middle, middle, 3), (middle, outputs, 1))
        layers = [
            layer
            for start, end, kernel in shapes
            for layer in (nn.Conv2d(start, end, kernel, padding=kernel // 2), nn.ReLU(), _norm(config, end))
        ]
        self.blocks = nn.Sequential(*layers)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.blocks(x)


def check_depths(config: HourglassConfig) -> None:
    """ValueError where an hourglass is too deep for the side of the heat maps."""
    side = config.input_size // HEATMAP_STRIDE
    if config.input_size % HEATMAP_STRIDE:
        raise ValueError(
            f"input_size {config.input_size} must be a multiple of {HEATMAP_STRIDE}, the heat maps' stride"
        )
    smallest = 2 if config.norm == "instance" else 1  # one pixel has no spread to divide by
    for depth in sorted(set(config.depths)):
        if side % 2**depth or side // 2**depth < smallest:
            deepest = _deepest(side, smallest)
            raise ValueError(
                f"an hourglass of depth {depth} halves its side {depth} times, and heat maps of {side} px (an input of "
                f"{config.input_size}) do not allow it: take "
                + (f"--depths of at most {deepest}, or " if deepest else "")
                + f"an --input-size divisible by {HEATMAP_STRIDE * 2**depth * smallest}"
            )


def _deepest(side: int, smallest: int) -> int:
    depth = 0
    while side % 2 == 0 and side // 2 >= smallest:
        side, depth = side // 2, depth + 1
    return depth


def _residuals(config: HourglassConfig, inputs: int, outputs: int) -> nn.Sequential:
    block = ConvReluNorm if config.block == "conv_relu_norm" else Residual
    return nn.Sequential(
        *(block(config, inputs if number == 0 else outputs, outputs) for number in range(config.residual_blocks))
    )


def _convolution(config: HourglassConfig, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), _norm(config, outputs), nn.ReLU(inplace=True)
    )


def _norm(config: HourglassConfig, channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True) if config.norm == "instance" else nn.BatchNorm2d(channels)


def _start(model: StackedHourglass) -> None:
    """Weights that keep the size of what goes through (He et al. 2015), residuals and heat maps that begin small.

    The sum of many residuals would otherwise grow with each, and heat maps of noise would go into the next stack.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in model.modules():
        if isinstance(layer, Residual):
            layer.conv3.weight.data.mul_(0.1)
    for stack in model.stacks:
        assert isinstance(stack, Stack)
        nn.init.normal_(stack.heatmaps.weight, std=1e-3)


def peaks(heatmaps: Tensor, decoder: str = "subpixel") -> tuple[Tensor, Tensor]:
    """(float32 [B J 2] px of the model input, float32 [B J] height of the peak, 0..1) of heat maps [B J h w].

    decoder: "peak", the middle of the highest cell; "quarter", moved a quarter cell towards the higher neighbour along
    x and y (Newell et al. 2016); "subpixel", to the top of the parabola through the logarithms of the cell and its two
    neighbours, which is exact for a Gaussian.
    """
    if decoder not in DECODERS:
        raise ValueError(f"unknown decoder '{decoder}'; known: {', '.join(DECODERS)}")
    heatmaps = heatmaps.detach().float()
    height, width = heatmaps.shape[-2:]
    score, best = heatmaps.flatten(2).max(-1)
    y, x = best // width, best % width
    cells = torch.stack([x, y], dim=-1).float()
    if decoder != "peak":
        padded = F.pad(heatmaps, (1, 1, 1, 1), mode="replicate").flatten(2)  # a step over the edge finds the edge again

        def at(dx: int, dy: int) -> Tensor:
            return padded.gather(-1, ((y + 1 + dy) * (width + 2) + x + 1 + dx)[..., None])[..., 0]

        pairs = [(at(-1, 0), at(1, 0)), (at(0, -1), at(0, 1))]
        if decoder == "quarter":
            shift = torch.stack([0.25 * (after - before).sign() for before, after in pairs], dim=-1)
        else:
            shift = torch.stack([_top(before, score, after) for before, after in pairs], dim=-1)
        inside = torch.stack([(x > 0) & (x < width - 1), (y > 0) & (y < height - 1)], dim=-1)
        cells = cells + shift.where(inside, 0.0)
    return cells * HEATMAP_STRIDE + (HEATMAP_STRIDE - 1) / 2.0, score.clamp(0.0, 1.0)


def _top(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    """Where the parabola through three logarithms, at -1, 0 and 1, is highest: within half a cell."""
    a, b, c = (value.clamp(min=1e-6).log() for value in (before, middle, after))
    bend = 2.0 * b - a - c
    return (0.5 * (c - a) / bend.clamp(min=1e-6)).clamp(-0.5, 0.5).where(bend > 1e-6, 0.0)


def parse_depths(text: str) -> tuple[int, ...]:
    """'2x3,4x1' (three stacks of depth 2, then one of depth 4) or '4,4' -> (2, 2, 2, 4) or (4, 4). ValueError."""
    depths: list[int] = []
    for part in text.replace(" ", "").split(","):
        depth, times, number = part.partition("x")
        number = number if times else "1"
        if not depth.isdigit() or not number.isdigit() or int(depth) * int(number) < 1:
            raise ValueError(f"--depths '{text}': write DxN for N stacks of depth D, joined by commas, 2x3,3x3,4x2 say")
        depths += [int(depth)] * int(number)
    return tuple(depths)


def flipped_back(heatmaps: Tensor, flip_permutation: Tensor) -> Tensor:
    """Heat maps [B J h w] of mirrored pictures -> as of the pictures themselves."""
    return heatmaps.flip(-1)[:, flip_permutation]


def gaussian_energy(sigma: float, weight: float = 0.0) -> float:
    """Sum of the squares of a Gaussian's cells, peak 1, `sigma` cells wide, each times 1 + weight * itself."""
    return math.pi * sigma**2 * (1.0 + weight * 2.0 / 3.0)
