"""The numbers of each network's architecture, and the presets tiny, small and base. A checkpoint carries them as JSON.

Plain data: the networks are in models/. What a user edits (which preset, with or without depth) is config.py's.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
STRICT = ConfigDict(extra="forbid")
HEATMAP_STRIDE = 4  # pixels of the hourglass's input per cell of its heat maps


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """What every network has."""

    model_type: str
    """Key of models.MODELS."""
    size: str
    """Preset it comes from: tiny, small or base."""
    input_size: Count
    """Side of the square model input S, px."""
    skeleton: str = "h36m_17"
    """Joints that come out."""
    keypoint_skeleton: str = "coco_17"
    """2D keypoints that go in."""
    use_depth: bool = True
    """False: the network never sees depth maps."""
    depth_range_m: Positive = 1.0
    """Depths further than this from the person's are clipped, metres."""
    window: Count = 1
    """Frames of 2D keypoints it sees, an odd number; 1: the sample's own alone."""
    dropout: Share = 0.1
    """Share of units dropped (in regression heads and the blocks of transformers) in training."""

    @property
    def reads_keypoints(self) -> bool:
        """Whether it looks at 2D keypoints that somebody else has found."""
        return True

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of a sample that the reader has to decode, beside its metadata."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageModelConfig(ModelConfig):
    """What the networks that look at the picture have."""

    window: Literal[1] = 1
    heatmap_stride: Count
    """Pixels of the model input per cell of a heat map."""
    heatmap_sigma: Positive = 1.5
    """Width of a keypoint's Gaussian, cells of the heat map."""
    head_width: Count
    """Units of the regression head's layers."""
    head_blocks: Count = 2
    """Residual blocks in the regression head."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of a sample that the reader has to decode, beside its metadata."""
        return ("image", "depth_m") if self.use_depth else ("image",)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CNNConfig(ImageModelConfig):
    """Numbers of `models.cnn.CNNPoseEstimation`."""

    model_type: Literal["cnn"] = "cnn"
    heatmap_stride: Count = 4
    stem_channels: Count
    """Channels at stride 2."""
    stage_channels: tuple[Count, ...]
    """Channels at strides 4, 8, 16, ..."""
    stage_blocks: tuple[Count, ...]
    """Inverted residual blocks at each of these strides."""
    expansion: Count = 3
    """Widening inside an inverted residual block."""
    dual_path_blocks: Count
    """Dual-path blocks at the last stride."""
    dual_path_growth: Count
    """Channels each of them adds to the dense path."""
    waterfall_rates: tuple[Count, ...] = (1, 2, 3)
    """Dilation of the WASP module's convolutions, one after the other."""
    waterfall_channels: Count
    """Channels of each of them."""
    pose_channels: Count = 32
    """Channels of the map that is flattened into the regression head."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformerConfig(ImageModelConfig):
    """Numbers of `models.transformers.TransformerPoseEstimation`."""

    model_type: Literal["transformer"] = "transformer"
    heatmap_stride: Count = 8
    backbone: str
    """timm's name of the vision transformer; the next five numbers are laid over it."""
    patch_size: Count = 16
    """Side of a patch, px."""
    width: Count
    """Length of a token."""
    depth: Count
    """Encoder blocks of the backbone."""
    heads: Count
    """Attention heads of every block."""
    fusion_layers: Count = 2
    """Cross-modal layers: image tokens and heat-map tokens attend to each other."""
    final_blocks: Count
    """Encoder blocks over both kinds of tokens together."""
    joint_channels: Count = 32
    """Numbers each joint's token gives to the regression head."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LifterConfig(ModelConfig):
    """Numbers of `models.lifter.KeypointLifter`."""

    model_type: Literal["lifter"] = "lifter"
    input_size: Count = 256
    """Side of the square view, px, where there is an image backbone; else of no meaning: rays are read, no picture."""
    image_backbone: str = ""
    """timm's name of a small network whose features are read at the keypoints; "" for none."""
    width: Count
    """Length of a token."""
    heads: Count
    """Attention heads of every block."""
    input_blocks: Count
    """Encoder blocks over the tokens of the input joints."""
    output_blocks: Count
    """Encoder blocks over the tokens of the output joints."""
    frame_blocks: Count = 2
    """Encoder blocks over the tokens of the window's frames, where it has any."""
    expansion: Count = 2
    """Widening inside a block's two layers."""
    dropout: Share = 0.0

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of a sample that the reader has to decode, beside its metadata."""
        image = ("image",) if self.image_backbone else ()
        depth = ("depth_m",) if self.use_depth else ()
        return (*image, *depth, *(("keypoint_window",) if self.window > 1 else ()))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HourglassConfig(ModelConfig):
    """Numbers of `models.hourglass.StackedHourglass`."""

    model_type: Literal["hourglass"] = "hourglass"
    input_size: Count = 256
    """Side of the square view, px; heat maps have a quarter of it."""
    use_depth: Literal[False] = False
    window: Literal[1] = 1
    channels: Count = 256
    """Of every feature map."""
    depths: tuple[Count, ...] = (4,) * 8
    """For each stack how often its hourglass halves the side."""
    residual_blocks: Annotated[int, Field(gt=0, le=4)] = 1
    """Bottlenecks wherever the network has one."""
    norm: Literal["batch", "instance"] = "batch"
    """Normalisation."""
    block: Literal["residual", "conv_relu_norm"] = "residual"
    """Which bottleneck: norm, ReLU, convolution three times, or convolution, ReLU, norm four times."""
    heatmap_sigma: Positive = 1.0
    """Width of a joint's Gaussian, cells of the heat map."""

    @property
    def reads_keypoints(self) -> bool:
        return False

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of a sample that the reader has to decode, beside its metadata."""
        return ("image",)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BodyConfig(ModelConfig):
    """Numbers of `models.hps.BodyRegressor`."""

    model_type: Literal["hps"] = "hps"
    input_size: Count = 224
    """Side of the square view, px; part maps have a quarter of it."""
    skeleton: Literal["smpl_24"] = "smpl_24"
    use_depth: Literal[False] = False
    window: Literal[1] = 1
    head: Literal["pare", "baseline"] = "pare"
    """pare: each body part from where it is seen; baseline: all from one vector, in three rounds."""
    backbone: str
    """timm's name of a network with features at strides 4 to 32."""
    channels: Count = 128
    """pare: of the part and feature maps."""
    hidden: Count = 1024
    """baseline: units of each layer."""
    rounds: Count = 3
    """baseline: how often the answer is improved."""
    dropout: Share = 0.0

    @property
    def reads_keypoints(self) -> bool:
        return False

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of a sample that the reader has to decode, beside its metadata."""
        return ("image",)


PRESETS: dict[tuple[str, str], ModelConfig] = {
    # The demo's: made to train at 300 images/s on two CPU cores.
    ("cnn", "tiny"): CNNConfig(
        size="tiny",
        input_size=128,
        stem_channels=14,  # 16 with the two of depth
        stage_channels=(24, 48, 96),
        stage_blocks=(1, 1, 2),
        expansion=2,
        dual_path_blocks=1,
        dual_path_growth=16,
        waterfall_channels=32,
        pose_channels=16,
        head_width=512,
    ),
    ("cnn", "small"): CNNConfig(
        size="small",
        input_size=192,
        stem_channels=24,
        stage_channels=(48, 96, 192),
        stage_blocks=(2, 3, 4),
        expansion=4,
        dual_path_blocks=3,
        dual_path_growth=32,
        waterfall_rates=(1, 2, 3, 4),
        waterfall_channels=96,
        head_width=512,
    ),
    ("cnn", "base"): CNNConfig(
        size="base",
        input_size=256,
        stem_channels=32,
        stage_channels=(64, 128, 320),
        stage_blocks=(3, 5, 8),
        expansion=4,
        dual_path_blocks=6,
        dual_path_growth=48,
        waterfall_rates=(1, 2, 4, 6),
        waterfall_channels=192,
        head_width=1024,
    ),
    ("transformer", "tiny"): TransformerConfig(
        size="tiny",
        input_size=128,
        backbone="vit_tiny_patch16_224",
        width=64,
        depth=3,
        heads=4,
        final_blocks=1,
        head_width=512,
        joint_channels=16,
    ),
    ("transformer", "small"): TransformerConfig(
        size="small",
        input_size=224,
        backbone="vit_small_patch16_224",
        width=384,
        depth=12,
        heads=6,
        final_blocks=2,
        head_width=512,
    ),
    ("transformer", "base"): TransformerConfig(
        size="base",
        input_size=224,
        backbone="vit_base_patch16_224",
        width=768,
        depth=12,
        heads=12,
        final_blocks=2,
        head_width=1024,
    ),
    ("lifter", "tiny"): LifterConfig(size="tiny", width=64, heads=4, input_blocks=2, output_blocks=1),
    ("lifter", "small"): LifterConfig(size="small", width=128, heads=4, input_blocks=2, output_blocks=2),
    ("lifter", "base"): LifterConfig(size="base", width=128, heads=4, input_blocks=3, output_blocks=3),
    ("hourglass", "tiny"): HourglassConfig(size="tiny", input_size=128, channels=32, depths=(4,)),
    ("hourglass", "small"): HourglassConfig(size="small", channels=64, depths=(4, 4)),
    ("hourglass", "base"): HourglassConfig(size="base"),  # as published: 8 stacks, 256 channels
    ("hps", "tiny"): BodyConfig(size="tiny", input_size=160, backbone="hrnet_w18_small", channels=64, hidden=256),
    ("hps", "small"): BodyConfig(size="small", backbone="resnet50"),
    ("hps", "base"): BodyConfig(size="base", backbone="hrnet_w32"),
}
CONFIGS: dict[str, type[ModelConfig]] = {
    "cnn": CNNConfig,
    "transformer": TransformerConfig,
    "lifter": LifterConfig,
    "hourglass": HourglassConfig,
    "hps": BodyConfig,
}


def model_config(model_type: str, size: str, **changes: Any) -> ModelConfig:
    """A preset, with some fields changed. ValueError lists the presets there are."""
    if (model_type, size) not in PRESETS:
        known = ", ".join(f"{kind} {preset}" for kind, preset in PRESETS)
        raise ValueError(f"no preset '{size}' of a model '{model_type}'; known: {known}")
    return replace(PRESETS[model_type, size], **changes)


def config_from_dict(data: dict[str, Any]) -> ModelConfig:
    """The inverse of `to_dict`. ValueError, one line, where it is not one of our models' settings."""
    model_type = data.get("model_type") if isinstance(data, dict) else None
    if model_type not in CONFIGS:
        raise ValueError(f"unknown model type {model_type!r}; known: {', '.join(CONFIGS)}")
    try:
        return CONFIGS[model_type](**data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"model settings of '{model_type}': {where}: {first['msg']}") from None
