"""Joints by one of our heat-map networks, in boxes that somebody else found: bodies in YOLO's, hands at its wrists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from humanpose3d.estimators.keypoints import FittedImage, YoloKeypoints
from humanpose3d.estimators.speed import PLAIN, Speed
from humanpose3d.estimators.weights import pick_device, sha256_of
from humanpose3d.sidecars import Person
from humanpose3d.skeletons import COCO_17, HAND_21, Skeleton, get_skeleton
from humanpose3d.warp import VIEW_MARGIN, compose, crop_warp

KIND = "hourglass:"  # --keypoints hourglass:CHECKPOINT
AT_ONCE = 16  # views through the network
HAND_REACH = 0.45  # middle of the hand beyond the wrist, in lengths of the forearm
HAND_SIZE = 0.9  # side of its box, likewise
SURE_WRIST = 0.3  # confidence from which a wrist, and its elbow, say where the hand is


class View(NamedTuple):
    """A square of an image."""

    image: np.ndarray  # uint8 [H W 3] RGB
    box_px: np.ndarray  # [4] x0 y0 x1 y1
    is_mirrored: bool = False  # a left hand is shown as the right one that the network knows


class Found(NamedTuple):
    """What the network says of a view."""

    points_px: np.ndarray  # float32 [J 2], of the view's image
    score: np.ndarray  # float32 [J], heights of the peaks
    heat: np.ndarray  # float16 [h h], the highest of the heat maps at each place of the view


class HourglassJoints:
    """A trained hourglass: views -> joints with confidences, the heights of their peaks."""

    def __init__(self, checkpoint: str | Path, device: str = "auto", *, flip_test: bool = False) -> None:
        """flip_test: heat maps are the mean of a view's and its mirror image's.

        ValueError where the checkpoint is of another kind of network.
        """
        from humanpose3d.models.checkpoint import load_model
        from humanpose3d.models.hourglass import StackedHourglass

        self.device, self.flip_test = pick_device(device), flip_test
        loaded = load_model(checkpoint, self.device)
        if not isinstance(loaded.model, StackedHourglass):
            raise ValueError(f"{checkpoint} holds a {loaded.config.model_type}; keypoints need an hourglass")
        self.network = loaded.model
        self.skeleton, self.size = get_skeleton(loaded.config.skeleton), loaded.config.input_size
        self.provenance = {"name": f"hourglass {Path(checkpoint).stem}", "sha256": sha256_of(Path(checkpoint))}

    def find(self, views: Sequence[View]) -> Iterator[Found]:
        """What each shows, in the same order."""
        import torch

        from humanpose3d.models.hourglass import flipped_back, peaks

        flip = torch.from_numpy(self.skeleton.flip_permutation).to(self.device)

        for start in range(0, len(views), AT_ONCE):
            some = views[start : start + AT_ONCE]
            warps = [self._warp(view) for view in some]
            pictures = [
                cv2.warpAffine(view.image, warp, (self.size, self.size), flags=cv2.INTER_LINEAR)
                for view, warp in zip(some, warps, strict=True)
            ]
            batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(self.device)
            with torch.inference_mode():
                heatmaps = self.network.heatmaps_of(batch)[:, -1]
                if self.flip_test:
                    mirrored = self.network.heatmaps_of(batch.flip(-1))[:, -1]
                    heatmaps = 0.5 * (heatmaps + flipped_back(mirrored, flip))
                answers = (*peaks(heatmaps), heatmaps.amax(1).half())
            for points, score, heat, warp in zip(*(each.cpu().numpy() for each in answers), warps, strict=True):
                back = cv2.invertAffineTransform(warp)
                yield Found((points @ back[:, :2].T + back[:, 2]).astype(np.float32), score, heat)

    def _warp(self, view: View) -> np.ndarray:
        warp = crop_warp(view.box_px.astype(np.float64), VIEW_MARGIN, self.size)
        mirror = np.array([[-1.0, 0.0, self.size - 1.0], [0.0, 1.0, 0.0]])
        return compose(warp, mirror) if view.is_mirrored else warp


class HourglassKeypoints:
    """People as YOLO finds them, their joints as the hourglass does."""

    def __init__(
        self,
        checkpoint: str | Path,
        yolo_model: str,
        device: str = "auto",
        *,
        min_score: float = 0.25,
        flip_test: bool = False,
        speed: Speed = PLAIN,
    ) -> None:
        self.joints = HourglassJoints(checkpoint, device, flip_test=flip_test)
        if self.joints.skeleton is HAND_21:
            raise ValueError(f"{checkpoint} finds the joints of hands; give it as --hands")
        self.detector = YoloKeypoints(yolo_model, device, min_score=min_score, speed=speed)
        self.skeleton = self.joints.skeleton.name
        self.provenance: dict[str, Any] = {**self.joints.provenance, "boxes": self.detector.provenance}

    def predict(self, images: Sequence[np.ndarray]) -> list[list[Person]]:
        """uint8 [H W 3] RGB images of any sizes -> the people in each, best box first, in that image's pixels."""
        return self.run([self.prepare(image) for image in images])

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, FittedImage]:
        """What `run` takes: the part that needs no network, for any thread."""
        return image, self.detector.prepare(image)

    def run(self, images: Sequence[tuple[np.ndarray, FittedImage]]) -> list[list[Person]]:
        """The networks' part of `predict`."""
        people = self.detector.run([fitted for _, fitted in images])
        views = [View(image, person.box_px) for (image, _), some in zip(images, people, strict=True) for person in some]
        found = self.joints.find(views)
        return [[_with(person, next(found)) for person in some] for some in people]


def _with(person: Person, found: Found) -> Person:
    return replace(person, keypoints_px=found.points_px, keypoint_score=found.score, heat=found.heat)


def hand_views(
    image: np.ndarray, people: Sequence[Person], skeleton: Skeleton = COCO_17
) -> list[tuple[int, str, View]]:
    """(person's number, "left" or "right", view) of each hand whose wrist and elbow were found surely.

    A picture without anybody is taken for one of a right hand, as FreiHAND's are.
    """
    if not people:
        return [(0, "right", View(image, np.array([-0.5, -0.5, image.shape[1] - 0.5, image.shape[0] - 0.5])))]
    found = []
    for number, person in enumerate(people):
        for side in ("left", "right"):
            wrist, elbow = (skeleton.index(f"{side}_{joint}") for joint in ("wrist", "elbow"))
            if min(person.keypoint_score[[wrist, elbow]]) < SURE_WRIST:
                continue
            forearm = person.keypoints_px[wrist] - person.keypoints_px[elbow]
            # A forearm that points at the camera is short: the body's size says how short it can be at most.
            length = max(float(np.linalg.norm(forearm)), 0.12 * float(person.box_px[3] - person.box_px[1]))
            middle = person.keypoints_px[wrist] + HAND_REACH * forearm
            half = 0.5 * HAND_SIZE * length
            found.append((number, side, View(image, np.array([*(middle - half), *(middle + half)]), side == "left")))
    return found
