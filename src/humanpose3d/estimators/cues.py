"""Both networks behind one call: images in, what they say about each out. For preprocessing and inference alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from humanpose3d.estimators.depth import DepthEstimate, DepthInput, DepthProDepth, Region
from humanpose3d.estimators.hourglass import KIND, HourglassKeypoints
from humanpose3d.estimators.keypoints import YoloKeypoints
from humanpose3d.estimators.speed import PLAIN, Speed
from humanpose3d.sidecars import Person, Sidecar

DepthOn = Literal["frame", "crop"]
CROP_MARGIN = 0.25  # around the people, a share of their box's longer side: what the chunker's crops show


@dataclass(frozen=True, eq=False)
class Look:
    """An image and what the networks take of it."""

    image: np.ndarray  # uint8 [H W 3] RGB
    for_keypoints: Any
    for_depth: DepthInput | None  # None where no depth is wanted, or where to look is not known yet


class CueNetworks:
    """Both networks behind one call, loaded when first needed: a run with nothing to do needs no weights.

    `cues` is its parts in a row. The parts whose names begin with `prepare`, and `sidecar`, are for any thread and many
    at once; `find_people` and `estimate_depth` are the networks, for one thread.
    """

    def __init__(
        self,
        yolo_model: str,
        depth_model: str | None,
        device: str,
        keypoints: str = "yolo",
        min_score: float = 0.25,
        *,
        flip_test: bool = False,
        depth_on: DepthOn = "frame",
        speed: Speed = PLAIN,
    ) -> None:
        """keypoints: "yolo", or "hourglass:CHECKPOINT" for the joints in YOLO's boxes; ValueError for anything else.

        min_score: of a person's box. flip_test: keypoints by the image and its mirror image. depth_on: what DepthPro
        sees, the whole frame or the people in it.
        """
        if keypoints != "yolo" and not keypoints.startswith(KIND):
            raise ValueError(f"--keypoints {keypoints}: take yolo, or {KIND}CHECKPOINT with a checkpoint of main.py")
        self.names, self.min_score = (yolo_model, depth_model, device), min_score
        self.hourglass = keypoints.removeprefix(KIND) if keypoints != "yolo" else None
        self.flip_test, self.depth_on, self.speed = flip_test, depth_on, speed
        self.provenance: dict[str, dict[str, Any]] = {}
        self._loaded: tuple[YoloKeypoints | HourglassKeypoints, DepthProDepth | None] | None = None

    def others(self, estimators: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """What in a sidecar's `estimators` isn't by these networks: "keypoints by yolo11x-pose", ...

        Told by their weights once they are loaded; before, by their names.
        """
        yolo_model, depth_model, _ = self.names
        keypoints = yolo_model if self.hourglass is None else f"hourglass {Path(self.hourglass).stem}"
        asked: dict[str, dict[str, Any]] = self.provenance or {
            "keypoints": {"name": keypoints} | ({} if self.hourglass is None else {"boxes": {"name": yolo_model}}),
            **({} if depth_model is None else {"depth": {"name": depth_model}}),
        }
        found = {role: by for role, by in estimators.items() if role in asked}
        told = [f"{role} by {by['name']}" for role, by in found.items() if not _is_same(by, asked[role])]
        if self.depth_on != (found["depth"].get("on", "frame") if "depth" in found else self.depth_on):
            told.append(f"depth of the {found['depth'].get('on', 'frame')}")
        return told

    def load(self) -> tuple[YoloKeypoints | HourglassKeypoints, DepthProDepth | None]:
        if self._loaded is None:
            yolo_model, depth_model, device = self.names
            options: dict[str, Any] = {"min_score": self.min_score, "flip_test": self.flip_test, "speed": self.speed}
            keypoints: YoloKeypoints | HourglassKeypoints = (
                YoloKeypoints(yolo_model, device, **options)
                if self.hourglass is None
                else HourglassKeypoints(self.hourglass, yolo_model, device, **options)
            )
            depth = None if depth_model is None else DepthProDepth(depth_model, device, speed=self.speed)
            self._loaded = keypoints, depth
            self.provenance = {"keypoints": keypoints.provenance}
            if depth:
                self.provenance["depth"] = depth.provenance | ({"on": "crop"} if self.depth_on == "crop" else {})
        return self._loaded

    def cues(self, images: Sequence[np.ndarray]) -> list[Sidecar]:
        """uint8 [H W 3] RGB images of any sizes -> what the networks say about each."""
        looks = [self.prepare(image) for image in images]
        people = self.find_people(looks)
        inputs = [self.prepare_depth(look, found) for look, found in zip(looks, people, strict=True)]
        depths = iter(self.estimate_depth([given for given in inputs if given is not None]))
        return [
            self.sidecar(look, found, None if given is None else next(depths))
            for look, found, given in zip(looks, people, inputs, strict=True)
        ]

    def prepare(self, image: np.ndarray) -> Look:
        keypoints, depth = self.load()
        whole = None if depth is None or self.depth_on == "crop" else depth.prepare(image)
        return Look(image, keypoints.prepare(image), whole)

    def find_people(self, looks: Sequence[Look]) -> list[list[Person]]:
        keypoints, _ = self.load()
        return keypoints.run([look.for_keypoints for look in looks])

    def prepare_depth(self, look: Look, people: Sequence[Person]) -> DepthInput | None:
        """None where no depth is wanted, or there is nobody to crop."""
        _, depth = self.load()
        if depth is None or self.depth_on == "frame":
            return look.for_depth
        return depth.prepare(look.image, region_of(people, look.image.shape[:2])) if people else None

    def estimate_depth(self, inputs: Sequence[DepthInput]) -> list[DepthEstimate]:
        _, depth = self.load()
        return depth.run(inputs) if depth is not None and inputs else []

    def sidecar(self, look: Look, people: list[Person], estimate: DepthEstimate | None) -> Sidecar:
        keypoints, depth = self.load()
        depth_m = None if estimate is None else estimate.depth_m
        if estimate is None and depth is not None:
            depth_m = depth.unknown(look.image)
        return Sidecar(
            image_size_wh=(look.image.shape[1], look.image.shape[0]),
            people=people,
            keypoint_skeleton=keypoints.skeleton,
            depth_m=depth_m,
            focal_px=None if estimate is None else round(estimate.focal_px, 3),
            estimators=self.provenance,
        )


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if "sha256" in one and "sha256" in other:
        is_same = one["sha256"] == other["sha256"]
    else:
        is_same = Path(one["name"]).name.removesuffix(".pt") == Path(other["name"]).name.removesuffix(".pt")
    return (
        is_same
        and ("boxes" in one) == ("boxes" in other)
        and ("boxes" not in one or _is_same(one["boxes"], other["boxes"]))
    )


def region_of(people: Sequence[Person], image_hw: tuple[int, ...]) -> Region:
    """The part of an image that shows these people, with a margin."""
    boxes = np.array([person.box_px for person in people], np.float64)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    margin = CROP_MARGIN * float((high - low).max())
    limit = np.array(image_hw[::-1])
    x0, y0 = np.clip(np.floor(low - margin), 0, limit - 1).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(high + margin), [x0 + 1, y0 + 1], limit).astype(int).tolist()
    return x0, y0, x1, y1
