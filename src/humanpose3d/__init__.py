"""humanpose3d: from raw frames to 3D human poses. A streaming data pipeline and a trainer."""

__version__ = "0.1.0"
