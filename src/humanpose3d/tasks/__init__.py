"""The tasks by the model types they train: which fields, loss, metrics and preview go together."""

from __future__ import annotations

from collections.abc import Callable

from humanpose3d.config import TrainConfig
from humanpose3d.model_config import ModelConfig
from humanpose3d.tasks.body import BodyTask
from humanpose3d.tasks.criterion import Criterion
from humanpose3d.tasks.heatmaps import HeatmapTask
from humanpose3d.tasks.lifting import LiftingTask

Task = LiftingTask | HeatmapTask | BodyTask


def _lifting(model: ModelConfig, settings: TrainConfig) -> Task:
    return LiftingTask(model, settings.weights, settings.target)


def _heatmaps(model: ModelConfig, settings: TrainConfig) -> Task:
    return HeatmapTask(model, settings.weights, settings.target)


def _body(model: ModelConfig, settings: TrainConfig) -> Task:
    return BodyTask(model, settings.body_weights, settings.body_model)


TASKS: dict[str, Callable[[ModelConfig, TrainConfig], Task]] = {
    "cnn": _lifting,
    "transformer": _lifting,
    "lifter": _lifting,
    "hourglass": _heatmaps,
    "hps": _body,
}

__all__ = ["TASKS", "BodyTask", "Criterion", "HeatmapTask", "LiftingTask", "Task"]
