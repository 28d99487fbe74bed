"""The tasks by the model types they train: which fields, loss, metrics and preview go together."""

from __future__ import annotations

from humanpose3d.tasks.lifting import LiftingTask

TASKS = {"cnn": LiftingTask, "transformer": LiftingTask, "lifter": LiftingTask}

__all__ = ["TASKS", "LiftingTask"]
