"""People, cameras, pictures and depth maps as a recording for the rerun viewer (rerun.io; optional)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from humanpose3d.camera import Camera
from humanpose3d.files import whole_file
from humanpose3d.skeletons import Skeleton
from humanpose3d.visualize.panels import SIDE_COLOURS, shrunk

PICTURE_PX = 640  # longer side of a stored picture
BONE_M = 0.015


class RerunRecording:
    """One file of all that is added, in order. A context: at its end the file is whole; without anything, not there."""

    def __init__(self, path: Path, skeleton: Skeleton) -> None:
        """ValueError where rerun is not installed."""
        try:
            import rerun
        except ImportError:
            raise ValueError('--rerun needs the rerun viewer: pip install -e ".[rerun]"') from None
        self.path, self.skeleton, self._rerun = path, skeleton, rerun
        self._count, self._end = 0, ExitStack()
        self._stream: Any = None

    def __enter__(self) -> RerunRecording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.disconnect()
        self._end.__exit__(kind, error, trace)

    def add(
        self,
        name: str,
        people_cam_m: Sequence[np.ndarray],
        camera: Camera,
        image: np.ndarray,
        depth_m: np.ndarray | None,
        *,
        numbers: Sequence[str] = (),
    ) -> None:
        """One picture's. Shapes as in `visualize.viewer.make_scene`."""
        if self._stream is None:
            self._start()
        rerun, stream = self._rerun, self._stream
        stream.set_time("picture", sequence=self._count)
        self._count += 1
        small, scale = shrunk(image, PICTURE_PX)
        stream.log("name", rerun.TextDocument(name))
        stream.log("camera", self._pinhole(camera, scale, small.shape))
        stream.log("camera/picture", rerun.Image(small).compress(jpeg_quality=80))
        if depth_m is not None:
            fit = depth_m.shape[1] / image.shape[1]
            stream.log("depth", self._pinhole(camera, fit, depth_m.shape))
            stream.log("depth/map", rerun.DepthImage(depth_m, meter=1.0))
        strips = [joints[list(bone)] for joints in people_cam_m for bone in self.skeleton.bones]
        colours = [SIDE_COLOURS[self.skeleton.sides[child]] for _ in people_cam_m for _, child in self.skeleton.bones]
        stream.log("people/bones", rerun.LineStrips3D(strips, colors=colours, radii=BONE_M))
        names = numbers or [str(number + 1) for number in range(len(people_cam_m))]
        joints = np.concatenate(people_cam_m) if len(people_cam_m) else np.zeros((0, 3), np.float32)
        labels = [f"person {each}, {joint.replace('_', ' ')}" for each in names for joint in self.skeleton.joints]
        stream.log("people/joints", rerun.Points3D(joints, labels=labels, radii=1.5 * BONE_M, show_labels=False))

    def _start(self) -> None:
        temporary = self._end.enter_context(whole_file(self.path))
        self._stream = self._rerun.RecordingStream("humanpose3d")
        self._stream.save(str(temporary))
        self._stream.log("/", self._rerun.ViewCoordinates.RDF, static=True)  # x right, y down, z forward

    def _pinhole(self, camera: Camera, scale: float, shape: Sequence[int]) -> Any:
        K = camera.K.copy()
        K[:2] *= scale
        K[:2, 2] += (scale - 1.0) / 2.0  # the middle of the first pixel is 0
        return self._rerun.Pinhole(image_from_camera=K, width=shape[1], height=shape[0])
