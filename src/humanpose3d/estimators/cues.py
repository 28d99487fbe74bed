"""Both networks behind one call: images in, what they say about each out. For preprocessing and inference alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from humanpose3d.estimators.depth import DepthProDepth
from humanpose3d.estimators.hourglass import KIND, HourglassKeypoints
from humanpose3d.estimators.keypoints import YoloKeypoints
from humanpose3d.sidecars import Sidecar


class CueNetworks:
    """Both networks behind one call, loaded when first needed: a run with nothing to do needs no weights."""

    def __init__(
        self, yolo_model: str, depth_model: str | None, device: str, keypoints: str = "yolo", min_score: float = 0.25
    ) -> None:
        """keypoints: "yolo", or "hourglass:CHECKPOINT" for the joints in YOLO's boxes; ValueError for anything else.

        min_score: of a person's box.
        """
        if keypoints != "yolo" and not keypoints.startswith(KIND):
            raise ValueError(f"--keypoints {keypoints}: take yolo, or {KIND}CHECKPOINT with a checkpoint of main.py")
        self.names, self.min_score = (yolo_model, depth_model, device), min_score
        self.hourglass = keypoints.removeprefix(KIND) if keypoints != "yolo" else None
        self.provenance: dict[str, dict[str, Any]] = {}
        self._loaded: tuple[YoloKeypoints | HourglassKeypoints, DepthProDepth | None] | None = None

    def load(self) -> tuple[YoloKeypoints | HourglassKeypoints, DepthProDepth | None]:
        if self._loaded is None:
            yolo_model, depth_model, device = self.names
            keypoints: YoloKeypoints | HourglassKeypoints = (
                YoloKeypoints(yolo_model, device, min_score=self.min_score)
                if self.hourglass is None
                else HourglassKeypoints(self.hourglass, yolo_model, device, min_score=self.min_score)
            )
            depth = None if depth_model is None else DepthProDepth(depth_model, device)
            self._loaded = keypoints, depth
            self.provenance = {"keypoints": keypoints.provenance} | ({"depth": depth.provenance} if depth else {})
        return self._loaded

    def cues(self, images: Sequence[np.ndarray]) -> list[Sidecar]:
        """uint8 [H W 3] RGB images of any sizes -> what the networks say about each."""
        keypoints, depth = self.load()
        people = keypoints.predict(images)
        depths = [None] * len(images) if depth is None else depth.predict(images)
        return [
            Sidecar(
                image_size_wh=(image.shape[1], image.shape[0]),
                people=found,
                keypoint_skeleton=keypoints.skeleton,
                depth_m=None if estimate is None else estimate.depth_m,
                focal_px=None if estimate is None else round(estimate.focal_px, 3),
                estimators=self.provenance,
            )
            for image, found, estimate in zip(images, people, depths, strict=True)
        ]
