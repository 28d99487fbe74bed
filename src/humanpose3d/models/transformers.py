"""The transformer lifter: a vision transformer over image and depth, tokens for the keypoints, attention both ways.

Cues and the regression head are common.py's; the numbers are `TransformerConfig`'s. timm is imported when one is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from humanpose3d.model_config import TransformerConfig
from humanpose3d.models.common import JOINT_CUES, CueEncoder, Cues, PosePrediction, PoseRegressionHead, scale_image
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


class TransformerPoseEstimation(nn.Module):
    """PoseBatch -> PosePrediction."""

    def __init__(self, config: TransformerConfig, *, pretrained: bool = False) -> None:
        """pretrained: start from timm's ImageNet weights, which timm downloads where it has not yet."""
        super().__init__()
        from timm.models.vision_transformer import Block

        self.config = config
        joints = len(get_skeleton(config.keypoint_skeleton))
        self.cues = CueEncoder(config, depth_map_size=config.input_size)
        self.backbone = _backbone(config, pretrained)
        self.joint_tokens = HeatmapTokens(joints, (config.input_size // config.heatmap_stride) ** 2, config.width)
        self.fusion = nn.ModuleList(
            CrossModalFusion(config.width, config.heads, config.dropout) for _ in range(config.fusion_layers)
        )
        self.encoder = nn.Sequential(
            *(
                Block(config.width, config.heads, qkv_bias=True, proj_drop=config.dropout)
                for _ in range(config.final_blocks)
            )
        )
        self.norm = nn.LayerNorm(config.width)
        self.joint_features = nn.Linear(config.width, config.joint_channels)
        self.head = PoseRegressionHead(config, features=joints * config.joint_channels + config.width)

    def forward(self, batch: PoseBatch) -> PosePrediction:
        assert batch.image is not None
        cues = self.cues(batch)
        image = torch.cat([scale_image(batch.image), cues.depth], dim=1)  # [B 4 S S]
        pixels = self.backbone.forward_features(image)  # [B 1 + N D], the class token first
        joints = self.joint_tokens(cues)  # [B Jin D]
        for fusion in self.fusion:
            pixels, joints = fusion(pixels, joints)
        tokens = self.norm(self.encoder(torch.cat([joints, pixels], dim=1)))
        number = joints.shape[1]
        features = torch.cat([self.joint_features(tokens[:, :number]).flatten(1), tokens[:, number]], dim=1)
        return self.head(features, cues, batch.intrinsics)


def _backbone(config: TransformerConfig, pretrained: bool) -> VisionTransformer:
    """timm's vision transformer, taking four channels."""
    import timm

    if pretrained and config.size == "tiny":
        raise ValueError("there are no pretrained weights for the tiny transformer; use the size small or base")
    try:
        backbone: Any = timm.create_model(
            config.backbone,
            pretrained=pretrained,
            num_classes=0,
            img_size=config.input_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            class_token=True,
        )
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"timm could not get the weights of {config.backbone} ({reason}); train without --pretrained"
        ) from None
    backbone.patch_embed.proj = with_depth_channel(backbone.patch_embed.proj)
    return backbone


class PatchConvolution(nn.Conv2d):
    """A convolution whose patches do not overlap, as the matrix product it is.

    The learned absent depth wants the gradient of the input, and a CPU takes 20 times as long for a convolution's.
    """

    def forward(self, image: Tensor) -> Tensor:
        """[B C S S] -> [B D S/p S/p]"""
        side = self.kernel_size[0]
        patches = image.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [B C h p w p]
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def with_depth_channel(rgb: nn.Conv2d) -> PatchConvolution:
    """The patch embedding with a fourth channel, depth, whose weights start as the mean of the three colours'."""
    assert rgb.in_channels == 3 and rgb.bias is not None and rgb.kernel_size == rgb.stride
    rgbd = PatchConvolution(4, rgb.out_channels, rgb.kernel_size, rgb.stride)  # type: ignore[arg-type]
    assert rgbd.bias is not None
    with torch.no_grad():
        rgbd.weight.copy_(torch.cat([rgb.weight, rgb.weight.mean(1, keepdim=True)], dim=1))
        rgbd.bias.copy_(rgb.bias)
    return rgbd


class HeatmapTokens(nn.Module):
    """Each keypoint's heat map, and its cues beside it, as one token. A missing one's are the learned absent values."""

    def __init__(self, joints: int, cells: int, width: int) -> None:
        super().__init__()
        self.from_heatmap = nn.Linear(cells, width)
        self.from_cues = nn.Linear(JOINT_CUES, width)
        self.name = nn.Parameter(torch.randn(joints, width) * 0.02)

    def forward(self, cues: Cues) -> Tensor:
        """[B Jin h w] and [B Jin JOINT_CUES] -> [B Jin D]"""
        return self.from_heatmap(cues.heatmaps.flatten(2)) + self.from_cues(cues.joints) + self.name


class CrossModalFusion(nn.Module):
    """Keypoint tokens look at the image's, and the image's at theirs; each then thinks it over."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.to_joints = CrossAttention(width, heads, dropout)
        self.to_pixels = CrossAttention(width, heads, dropout)

    def forward(self, pixels: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """[B N D], [B Jin D] -> the same. Both look at what the other was before."""
        return self.to_pixels(pixels, joints), self.to_joints(joints, pixels)


class CrossAttention(nn.Module):
    """`tokens` after a look at `others`, and a layer of their own."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_tokens, self.norm_others, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        others = self.norm_others(others)
        tokens = tokens + self.attention(self.norm_tokens(tokens), others, others, need_weights=False)[0]
        return tokens + self.mlp(self.norm_mlp(tokens))
