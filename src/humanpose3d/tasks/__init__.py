"""The tasks by the model types they train: which fields, loss, metrics and preview go together."""

from __future__ import annotations

from humanpose3d.tasks.criterion import Criterion
from humanpose3d.tasks.heatmaps import HeatmapTask
from humanpose3d.tasks.lifting import LiftingTask

Task = LiftingTask | HeatmapTask
TASKS: dict[str, type[Task]] = {
    "cnn": LiftingTask,
    "transformer": LiftingTask,
    "lifter": LiftingTask,
    "hourglass": HeatmapTask,
}

__all__ = ["TASKS", "Criterion", "HeatmapTask", "LiftingTask", "Task"]
