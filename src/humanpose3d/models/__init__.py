"""The networks by name. A new one: a file here, its config in model_config.py, a line in MODELS, a shape test."""

from __future__ import annotations

from torch import nn

from humanpose3d.model_config import BodyConfig, LifterConfig, ModelConfig, TransformerConfig
from humanpose3d.models.cnn import CNNPoseEstimation
from humanpose3d.models.common import PosePrediction
from humanpose3d.models.hourglass import StackedHourglass
from humanpose3d.models.hps import BodyRegressor
from humanpose3d.models.lifter import KeypointLifter
from humanpose3d.models.transformers import TransformerPoseEstimation

MODELS: dict[str, type[nn.Module]] = {
    "cnn": CNNPoseEstimation,
    "transformer": TransformerPoseEstimation,
    "lifter": KeypointLifter,
    "hourglass": StackedHourglass,
    "hps": BodyRegressor,
}

__all__ = [
    "MODELS",
    "BodyRegressor",
    "CNNPoseEstimation",
    "KeypointLifter",
    "PosePrediction",
    "StackedHourglass",
    "TransformerPoseEstimation",
    "build_model",
]


def build_model(config: ModelConfig, *, pretrained: bool = False) -> nn.Module:
    """The untrained network of that configuration; random numbers come from torch's global generator.

    pretrained: start from published ImageNet weights; ValueError for a network that has none.
    """
    if config.model_type not in MODELS:
        raise ValueError(f"unknown model type '{config.model_type}'; known: {', '.join(MODELS)}")
    if not pretrained:
        return MODELS[config.model_type](config)
    if isinstance(config, LifterConfig) and config.image_backbone:
        return KeypointLifter(config, pretrained=True)
    if isinstance(config, BodyConfig):
        return BodyRegressor(config, pretrained=True)
    if not isinstance(config, TransformerConfig):
        raise ValueError(f"there are no pretrained weights for the {config.model_type}; train without --pretrained")
    return TransformerPoseEstimation(config, pretrained=True)
