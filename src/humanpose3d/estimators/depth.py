"""Metric depth and focal length by DepthPro, through `transformers`.

The network and its processors are Hugging Face's; how large the map is kept and the units are decided here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from humanpose3d.estimators.speed import PLAIN, Speed
from humanpose3d.estimators.weights import STUDIO, is_path, packaged_weights, pick_device, sha256_of

if TYPE_CHECKING:
    import torch

WEIGHT_FILE = "model.safetensors"
FILES = ["config.json", "preprocessor_config.json", WEIGHT_FILE]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, eq=False)
class DepthEstimate:
    """Depth of one image, and the focal length that goes with it."""

    depth_m: np.ndarray  # float32 [h w], camera z in metres; spans the image, never larger than the network's own map
    focal_px: float  # in the image's own pixels, whatever the map's size


Region = tuple[int, int, int, int]  # x0 y0 x1 y1 px of an image


@dataclass(frozen=True, eq=False)
class DepthInput:
    """An image, or a part of one, as the network takes it."""

    pixels: (
        Any  # uint8 [h w 3] RGB; on the CPU, where that is no faster beside the network, its float32 [3 S S] already
    )
    image_hw: tuple[int, int]
    region: Region  # what of the image `pixels` shows


class DepthProDepth:
    """Depth maps in metres and focal lengths in pixels from RGB images.

    model: 'studio' (packaged), a hub id such as 'apple/DepthPro-hf' (downloaded into Hugging Face's cache on first
    use), or a folder with config.json, preprocessor_config.json and model.safetensors, which is only loaded.
    """

    def __init__(self, model: str = "apple/DepthPro-hf", device: str = "auto", *, speed: Speed = PLAIN) -> None:
        self.device, self.speed = pick_device(device), speed
        folder = _find_folder(model)
        network, self.processor = _load(folder, self.device)
        self.network = speed.prepare(network)
        name = folder.name if folder == Path(model).expanduser() else model
        self.provenance = {"name": name, "version": _version(), "sha256": _hash(folder / WEIGHT_FILE)}

    def predict(self, images: Sequence[np.ndarray]) -> list[DepthEstimate]:
        """uint8 [H W 3] RGB images of any sizes -> depth and focal length of each.

        A map has its image's size where the network's own map is as large, else the network's longer side, the
        image's aspect kept: more pixels would hold nothing more.
        """
        return self.run([self.prepare(image) for image in images])

    def prepare(self, image: np.ndarray, region: Region | None = None) -> DepthInput:
        """What `run` takes: the part that needs no network, for any thread. region: look at this part only."""
        height, width = image.shape[:2]
        left, top, right, bottom = region or (0, 0, width, height)
        pixels: Any = np.ascontiguousarray(image[top:bottom, left:right])
        if self.device.type == "cpu":
            pixels = self._resized([pixels])[0]
        return DepthInput(pixels, (height, width), (left, top, right, bottom))

    def run(self, inputs: Sequence[DepthInput]) -> list[DepthEstimate]:
        """The network's part of `predict`. Outside its region a map is 0, unknown."""
        import torch

        seen = [given.pixels for given in inputs]
        batch = self._resized(seen) if isinstance(seen[0], np.ndarray) else torch.stack(seen)
        with torch.inference_mode():
            with self.speed.autocast(self.device):
                outputs = self.network(pixel_values=batch)
            outputs.predicted_depth = outputs.predicted_depth.float()
            outputs.field_of_view = outputs.field_of_view.float()
            map_size = max(outputs.predicted_depth.shape[-2:])
            places = [_place(given, map_size) for given in inputs]
            # predicted_depth is canonical inverse depth; only this, with the field of view, makes it metres.
            sizes_hw = [place.size_hw for place in places]
            maps = self.processor.post_process_depth_estimation(outputs, target_sizes=sizes_hw)
        return [
            DepthEstimate(
                depth_m=place.fill(depth["predicted_depth"].cpu().numpy().reshape(place.size_hw)),
                focal_px=float(depth["focal_length"]) * (given.region[2] - given.region[0]) / place.size_hw[1],
            )
            for given, place, depth in zip(inputs, places, maps, strict=True)
        ]

    def unknown(self, image: np.ndarray) -> np.ndarray:
        """float32 [h w]: the map of an image of which nothing was looked at."""
        return np.zeros(_kept_size(image.shape[:2], max(dict(self.processor.size).values())), np.float32)

    def _resized(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """float32 [B 3 S S] on the device."""
        given = self.processor(list(images), return_tensors="pt", input_data_format="channels_last", device=self.device)
        return given["pixel_values"].to(self.device)


@dataclass(frozen=True)
class _Place:
    """Where a region's map lies in that of its image, both in pixels of the map."""

    map_hw: tuple[int, int]
    left: int
    top: int
    size_hw: tuple[int, int]

    def fill(self, depth_m: np.ndarray) -> np.ndarray:
        if self.size_hw == self.map_hw:
            return depth_m
        whole = np.zeros(self.map_hw, np.float32)
        whole[self.top : self.top + self.size_hw[0], self.left : self.left + self.size_hw[1]] = depth_m
        return whole


def _place(given: DepthInput, limit: int) -> _Place:
    """As many pixels as the region has, `limit` along its longer side at most; the image's others at the same scale."""
    left, top, right, bottom = given.region
    (height, width), scale = given.image_hw, min(1.0, limit / max(right - left, bottom - top))
    map_hw = (max(round(height * scale), 1), max(round(width * scale), 1))
    x0, x1 = (round(x * map_hw[1] / width) for x in (left, right))
    y0, y1 = (round(y * map_hw[0] / height) for y in (top, bottom))
    return _Place(map_hw, x0, y0, (max(y1 - y0, 1), max(x1 - x0, 1)))


def _kept_size(image_hw: tuple[int, ...], limit: int) -> tuple[int, int]:
    scale = min(1.0, limit / max(image_hw))
    return max(round(image_hw[0] * scale), 1), max(round(image_hw[1] * scale), 1)


def _find_folder(model: str) -> Path:
    """The folder a model name stands for, downloaded where needed. FileNotFoundError says what to put where."""
    if model == STUDIO:
        return packaged_weights("depth")
    folder = Path(model).expanduser()
    if not folder.exists() and not is_path(model) and HUB_ID.fullmatch(model):
        folder = _download(model)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} is no DepthPro model: {', '.join(missing)} missing; put a copy of the hub's apple/DepthPro-hf "
            "there, or name a hub id"
        )
    return folder


def _load(folder: Path, device: torch.device) -> tuple[Any, Any]:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import DepthProForDepthEstimation, DepthProImageProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    broken = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, StrictDataclassError)
    try:
        loaded: Any = DepthProForDepthEstimation.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        network, loading = loaded
        processor = DepthProImageProcessor.from_pretrained(folder, local_files_only=True)
    except broken as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{folder} cannot be loaded as a DepthPro model: {reason}") from None
    if loading["missing_keys"]:  # transformers would go on with random numbers in their place
        raise ValueError(
            f"{folder}: its {WEIGHT_FILE} is not DepthPro's, {len(loading['missing_keys'])} tensors missing"
        )
    if not network.config.use_fov_model:
        raise ValueError(f"{folder} has no field-of-view network, so its depth has no metres; use apple/DepthPro-hf")
    return network.to(device).eval(), processor


def _download(hub_id: str) -> Path:
    """The model's folder in Hugging Face's cache, downloaded where it is not there yet."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError  # of whichever HTTP library it uses

    cached = [try_to_load_from_cache(hub_id, name) for name in FILES]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])).parent
    try:
        HfApi().model_info(hub_id, timeout=30)  # fails at once where there is no network; a download retries long
        return Path(snapshot_download(hub_id, allow_patterns=FILES))
    except (OSError, ValueError, HTTPError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise FileNotFoundError(
            f"depth model {hub_id} is not here and cannot be downloaded ({reason}); put a copy of it "
            f"({', '.join(FILES)}) in a folder and give its path, or leave depth out with --no-depth"
        ) from None


def _hash(weights: Path) -> str:
    # Hugging Face's cache keeps a large file under its own sha256: no need to read two gigabytes for it.
    kept_as = weights.resolve().name
    return kept_as if re.fullmatch(r"[0-9a-f]{64}", kept_as) else sha256_of(weights)


def _version() -> str:
    from importlib import metadata

    return f"transformers {metadata.version('transformers')}"
