"""humanpose3d: from raw frames to 3D human poses. A streaming data pipeline and a trainer.

from humanpose3d import Pipeline
people = Pipeline().predict("photo.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from humanpose3d.pipeline import PersonPose, Pipeline

__version__ = "0.1.0"
__all__ = ["PersonPose", "Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """The library's names, loaded when they are asked for: they bring torch."""
    if name in ("PersonPose", "Pipeline"):
        from humanpose3d import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'humanpose3d' has no attribute '{name}'")
