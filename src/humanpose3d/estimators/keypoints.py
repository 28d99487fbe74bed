"""People and their 2D keypoints by an Ultralytics YOLO pose model: raw coordinates, raw confidences.

The network, its weights and NMS are Ultralytics'; fitting images to it and back is done here, where nothing is cut.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from humanpose3d.estimators.speed import PLAIN, Speed
from humanpose3d.estimators.weights import STUDIO, cache_dir, is_path, packaged_weights, pick_device, sha256_of
from humanpose3d.sidecars import Person
from humanpose3d.skeletons import COCO_17

if TYPE_CHECKING:
    import torch

KEYPOINT_SKELETON = "coco_17"
PADDING_GREY = 114  # what Ultralytics pads with, in training too
SAME_PERSON = 0.5  # overlap (IoU) of boxes found in an image and in its mirror image


@dataclass(frozen=True)
class Letterbox:
    """An image resized with its aspect kept and padded to whole strides: how, and the way back."""

    resized_wh: tuple[int, int]
    offset_xy: tuple[int, int]  # of the resized image in the network's input, px
    input_wh: tuple[int, int]

    @staticmethod
    def fit(image_wh: tuple[int, int], size: int, stride: int) -> Letterbox:
        """The smallest input of whole strides around an image whose longer side becomes `size`."""
        gain = size / max(image_wh)
        width, height = (max(round(side * gain), 1) for side in image_wh)
        pad_x, pad_y = -width % stride, -height % stride
        return Letterbox((width, height), (pad_x // 2, pad_y // 2), (width + pad_x, height + pad_y))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H W 3] -> uint8 [h w 3], the network's input."""
        (width, height), (left, top) = self.resized_wh, self.offset_xy
        right, bottom = self.input_wh[0] - width - left, self.input_wh[1] - height - top
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.copyMakeBorder(resized, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(PADDING_GREY,) * 3)

    def undo(self, points: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
        """[..., 2] input pixels -> [..., 2] image pixels, not clipped."""
        scale = np.array(image_wh, dtype=np.float64) / self.resized_wh
        return ((points - np.array(self.offset_xy)) * scale).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FittedImage:
    """An image as the network takes it."""

    pixels: np.ndarray  # uint8 [h w 3] RGB
    fit: Letterbox
    image_wh: tuple[int, int]


class YoloKeypoints:
    """Finds people and their COCO-17 keypoints in RGB images.

    model: 'studio' (packaged), a name such as 'yolo11x-pose' (looked for in the working folder and in our cache, else
    downloaded into the cache by Ultralytics), or a path, which is only loaded. Weight files are pickles; they are
    loaded in Ultralytics' restricted mode, which rebuilds its own layers and runs nothing else, unless
    ULTRALYTICS_SAFE_LOAD=0 is set for a model with layers of your own.
    """

    def __init__(
        self,
        model: str = "yolo11x-pose",
        device: str = "auto",
        *,
        min_score: float = 0.25,
        flip_test: bool = False,
        speed: Speed = PLAIN,
    ) -> None:
        self.skeleton, self.speed = KEYPOINT_SKELETON, speed
        self.flip_test = flip_test  # keypoints are the mean of the image's and its mirror image's
        self.min_score = min_score  # of a person's box; keypoints are never cut
        self.device = pick_device(device)
        self.path = _find_weights(model)
        network, self.input_size = _load(self.path, self.device)
        self.stride, self.end2end = max(int(network.stride.max()), 32), getattr(network, "end2end", False)
        self.classes = len(network.names)
        self.network = speed.prepare(network)
        name = model if model == STUDIO else self.path.stem
        self.provenance = {"name": name, "version": _version(), "sha256": sha256_of(self.path)}

    def predict(self, images: Sequence[np.ndarray]) -> list[list[Person]]:
        """uint8 [H W 3] RGB images of any sizes -> the people in each, best box first, in that image's pixels.

        Keypoints may lie outside the image, where the network put them; boxes are clipped to it. What is found in an
        image does not depend on the others in the call.
        """
        return self.run([self.prepare(image) for image in images])

    def prepare(self, image: np.ndarray) -> FittedImage:
        """What `run` takes: the part that needs no network, for any thread."""
        image_wh = (image.shape[1], image.shape[0])
        fit = Letterbox.fit(image_wh, self.input_size, self.stride)
        return FittedImage(fit.apply(image), fit, image_wh)

    def run(self, images: Sequence[FittedImage]) -> list[list[Person]]:
        """The network's part of `predict`."""
        groups = defaultdict(list)
        for index, image in enumerate(images):
            groups[image.fit.input_wh].append(index)
        people: list[list[Person]] = [[] for _ in images]
        for indices in groups.values():
            inputs = [images[index].pixels for index in indices]
            rows = self._detect(inputs)
            if self.flip_test:
                mirrored = self._detect([np.ascontiguousarray(pixels[:, ::-1]) for pixels in inputs])
                width = inputs[0].shape[1]
                rows = [mean_with_mirrored(*both, width) for both in zip(rows, mirrored, strict=True)]
            for index, found in zip(indices, rows, strict=True):
                people[index] = [_person(row, images[index].fit, images[index].image_wh) for row in found]
        return people

    def _detect(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """uint8 [h w 3] of one size -> per image float32 [N 6+51]: box, score, class, keypoints with confidences."""
        import torch
        from ultralytics.utils.nms import non_max_suppression

        batch = torch.from_numpy(np.stack(inputs)).to(self.device).permute(0, 3, 1, 2).float() / 255.0
        with torch.inference_mode():
            with self.speed.autocast(self.device):
                answer = self.network(batch)
            boxes = answer[0] if isinstance(answer, list | tuple) else answer
            rows = non_max_suppression(
                boxes.float(),
                conf_thres=self.min_score,
                iou_thres=0.7,
                nc=self.classes,
                end2end=self.end2end,
                max_time_img=10.0,  # a slow machine must not lose people to NMS's own time limit
            )
        return [found.float().cpu().numpy() for found in rows]


def mean_with_mirrored(rows: np.ndarray, mirrored: np.ndarray, width: int) -> np.ndarray:
    """float32 [N 6+51] of an image and of its mirror image -> the former, with the mean of both's keypoints.

    Where a network takes left for right in one of them, it seldom does in the other. Who is found in the image alone
    stays as found. Places count from the image's edge.
    """
    if not len(rows) or not len(mirrored):
        return rows
    boxes = np.stack([width - mirrored[:, 2], mirrored[:, 1], width - mirrored[:, 0], mirrored[:, 3]], axis=-1)
    keypoints = mirrored[:, 6:].reshape(len(mirrored), -1, 3)[:, COCO_17.flip_permutation]
    keypoints[..., 0] = width - keypoints[..., 0]
    overlaps = _overlaps(rows[:, :4], boxes)
    twin, is_found = overlaps.argmax(1), overlaps.max(1) >= SAME_PERSON
    mean = rows.copy()
    mean[is_found, 6:] = (rows[is_found, 6:] + keypoints[twin[is_found]].reshape(-1, rows.shape[1] - 6)) / 2.0
    return mean


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[N 4], [M 4] xyxy -> [N M], IoU."""
    low, high = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(min=0.0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9)


def _person(row: np.ndarray, fit: Letterbox, image_wh: tuple[int, int]) -> Person:
    corners = fit.undo(row[:4].reshape(2, 2), image_wh)
    keypoints = row[6:].reshape(-1, 3)
    return Person(
        box_px=np.clip(corners, 0, image_wh).reshape(4).astype(np.float32),
        score=float(row[4]),
        keypoints_px=fit.undo(keypoints[:, :2], image_wh),
        keypoint_score=keypoints[:, 2].copy(),
    )


def _find_weights(model: str) -> Path:
    """The weight file a model name stands for, downloaded where needed. FileNotFoundError says what to put where."""
    if model == STUDIO:
        return packaged_weights("keypoints")
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if is_path(model) or "/" in model:
        raise FileNotFoundError(f"{path} is missing; put the YOLO pose weights there, or name a model (yolo11x-pose)")
    name = model.removesuffix(".pt") + ".pt"
    kept = cache_dir() / "weights" / name
    for place in (Path(name), kept):
        if place.is_file():
            return place
    return _download(name, kept)


def _download(name: str, target: Path) -> Path:
    prepare_ultralytics(offline=False)
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    pose_models = sorted(asset for asset in GITHUB_ASSETS_NAMES if "-pose" in asset)
    if name not in pose_models:
        raise FileNotFoundError(
            f"no weights {name}: put the file at {target}, give a path, or name one of "
            + ", ".join(asset.removesuffix(".pt") for asset in pose_models)
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        attempt_download_asset(target)
    except OSError as error:  # ConnectionError is one
        raise FileNotFoundError(
            f"weights {name} are not here and cannot be downloaded ({_plain_reason(error)}); "
            f"put the file at {target}, or give --yolo-model its path"
        ) from None
    return target


def _load(path: Path, device: torch.device) -> tuple[Any, int]:
    """(the network, fused, in evaluation mode, on the device; the image size it was trained at)."""
    prepare_ultralytics(offline=True)
    from ultralytics.nn.tasks import load_checkpoint

    try:
        network, _ = load_checkpoint(str(path.resolve()), device=device, fuse=True)
    except (TypeError, AttributeError, KeyError, RuntimeError, EOFError, ModuleNotFoundError) as error:
        reason = _plain_reason(error)
        raise ValueError(f"{path} is no Ultralytics weight file that can be loaded: {reason}") from None
    shape = tuple(getattr(network, "kpt_shape", None) or ())
    if shape != (17, 3):
        found = f"keypoints of shape {list(shape)}" if shape else "no keypoints"
        raise ValueError(f"{path} has {found}; a pose model with COCO's [17, 3] is needed, such as yolo11x-pose")
    size = network.args.get("imgsz") or 640
    return network, int(max(size) if isinstance(size, list | tuple) else size)


def prepare_ultralytics(*, offline: bool) -> None:
    """Settings it reads when first imported: its files in our cache, nothing installed, no network unless needed."""
    os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_dir()))
    os.environ.setdefault("YOLO_AUTOINSTALL", "0")
    os.environ.setdefault("YOLO_VERBOSE", "0")
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
    if offline:
        os.environ.setdefault("YOLO_OFFLINE", "1")


def _plain_reason(error: Exception) -> str:
    """An exception's first line without Ultralytics' signs; its type where it says no more than a number."""
    line = next(iter(str(error).splitlines()), "").removeprefix("ERROR").lstrip(" \u274c\ufe0f").rstrip(". ")
    return line if " " in line else type(error).__name__


def _version() -> str:
    from importlib import metadata

    return f"ultralytics {metadata.version('ultralytics')}"
