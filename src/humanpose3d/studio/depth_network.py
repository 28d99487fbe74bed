"""The studio's depth network, a small DepthPro: training and measuring.

torch and transformers are imported by the functions that need them.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from humanpose3d.studio.film import StudioFrame
from humanpose3d.studio.lessons import DEPTH_SIZE, IMAGE_SIZE, TRAIN, VAL, film_lessons, read_lesson, unseen_frames

if TYPE_CHECKING:
    import torch

DEPTH_WEIGHTS = Path(__file__).parent / "weights" / "studio_depth"
PERSON_WEIGHT = 8.0  # of the person's pixels in the loss: they are few, and what the depth is for
PIXEL_MEAN, PIXEL_DEVIATION = 0.5, 0.5  # what DepthPro's processor does to pixels of 0 to 1
ZOOMED_SHARE = 0.08  # of lessons; with a third of them the field of view was 7 % off on whole images
FOV_SCALE_DEG = 45.0  # the loss and the first guess of the field of view are in units of it
LEARNING_RATE = 1e-3  # at its highest


@dataclass(frozen=True)
class DepthFigures:
    """How well a depth model does on the studio's test subjects. Relative errors: |z - true z| / true z."""

    frames: int
    median_error: float  # over all pixels
    median_person_error: float  # over the person's pixels
    median_focal_error: float


def build_depth_model() -> Any:
    """An untrained DepthPro of 0.6 M parameters for images of DEPTH_SIZE.

    One intermediate level where the real one has two: a second would double the output and triple the time.
    """
    from transformers import DepthProConfig, DepthProForDepthEstimation

    encoder = {
        "model_type": "dinov2",
        "hidden_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "patch_size": 8,
        "image_size": 64,
        "mlp_ratio": 4,
    }
    config = DepthProConfig(
        patch_size=64,
        fusion_hidden_size=32,
        intermediate_hook_ids=[1],
        intermediate_feature_dims=[32],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.25],
        scaled_images_feature_dims=[32, 32],
        use_fov_model=True,
        num_fov_head_layers=2,
        image_model_config=dict(encoder),
        patch_model_config=dict(encoder),
        fov_model_config=dict(encoder),
    )
    return DepthProForDepthEstimation(config)


def depth_processor() -> Any:
    """The image processor that goes with the depth model."""
    from transformers import DepthProImageProcessor

    return DepthProImageProcessor(size={"height": DEPTH_SIZE, "width": DEPTH_SIZE})


def train_depth(
    out: Path = DEPTH_WEIGHTS,
    *,
    seed: int = 0,
    minutes: float = 40.0,
    images: int = 2600,
    groups_share: float = 0.0,
    workplace: Path | None = None,
    batch: int = 8,
    start: Path | None = None,
) -> Path:
    """Trains the depth model for that long; stores it at `out` every few minutes. `start`: weights to go on from."""
    import torch
    from transformers import DepthProForDepthEstimation

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    folder = workplace or Path(tempfile.mkdtemp(prefix="hp3d-depth-"))
    film_lessons(folder, images, seed=seed, groups_share=groups_share)
    lessons, tests = _Lessons(folder / TRAIN), _Lessons(folder / VAL)
    model = DepthProForDepthEstimation.from_pretrained(start) if start else build_depth_model()
    if not start:
        _first_guess(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    rng, started, told, stored, step = np.random.default_rng(seed), time.monotonic(), 0.0, 0.0, 0
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * share)))
        model.train()
        loss, parts = _depth_loss(model, *lessons.draw(rng, batch, zoom=True))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        now = time.monotonic()
        if now - told > 30:
            told = now
            line = ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
            print(f"{(now - started) / 60:.1f} min, step {step}: {line}", flush=True)
        if now - stored > 240:
            stored = now
            _store_depth(model, out)
            print("val:", {name: round(value, 4) for name, value in _depth_check(model, tests).items()}, flush=True)
    _store_depth(model, out)
    print("val:", _depth_check(model, tests), flush=True)
    return out


class _Lessons:
    """A filmed training set in memory, as batches for the depth model."""

    def __init__(self, folder: Path) -> None:
        labels = np.load(folder / "depth.npz")
        self.depth_m, self.person, self.focal_px = labels["depth_m"], labels["person"], labels["focal_px"]
        files = sorted((folder / "images").glob("*.jpg"))
        self.images = np.stack([read_lesson(path) for path in files])

    def draw(self, rng: np.random.Generator, batch: int, zoom: bool) -> tuple[torch.Tensor, ...]:
        """Pixels [B 3 h w] normalised, inverse canonical depth and weights [B h w], field of view [B] in degrees."""
        return self.pick(rng.integers(0, len(self.images), batch), rng if zoom else None)

    def pick(self, which: np.ndarray, rng: np.random.Generator | None = None) -> tuple[torch.Tensor, ...]:
        """The same for given pictures; with `rng`, mirrored, zoomed and recoloured at random."""
        import torch

        images, depths, people, focals = [], [], [], []
        for number in which:
            image, depth, person, focal = (
                self.images[number],
                self.depth_m[number],
                self.person[number],
                self.focal_px[number],
            )
            if rng is not None:
                image, depth, person, focal = _vary_lesson(image, depth, person, focal, rng)
            images.append(cv2.resize(image, (DEPTH_SIZE, DEPTH_SIZE), interpolation=cv2.INTER_LINEAR))
            depths.append(depth)
            people.append(person)
            focals.append(focal)
        pixels = np.stack(images).astype(np.float32) / 255
        pixels = (pixels - PIXEL_MEAN) / PIXEL_DEVIATION
        focal_share = np.array(focals) / IMAGE_SIZE
        inverse = focal_share[:, None, None] / np.stack(depths).astype(np.float32)
        weights = 1 + (PERSON_WEIGHT - 1) * np.stack(people)
        fov = np.degrees(2 * np.arctan(0.5 / focal_share))
        arrays = (np.moveaxis(pixels, -1, 1), inverse, weights, fov)
        return tuple(torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays)


def _vary_lesson(
    image: np.ndarray, depth: np.ndarray, person: np.ndarray, focal: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A mirrored, brightened lesson; a few are cropped, which lengthens the focal length of what is left."""
    if rng.random() < 0.5:
        image, depth, person = image[:, ::-1], depth[:, ::-1], person[:, ::-1]
    if rng.random() < ZOOMED_SHARE:
        side = int(rng.integers(DEPTH_SIZE * 3 // 4, DEPTH_SIZE))
        x, y = rng.integers(0, DEPTH_SIZE - side + 1, 2)
        scale = IMAGE_SIZE // DEPTH_SIZE
        image = image[scale * y : scale * (y + side), scale * x : scale * (x + side)]
        size = (DEPTH_SIZE, DEPTH_SIZE)
        depth = cv2.resize(depth[y : y + side, x : x + side].astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        person = (
            cv2.resize(person[y : y + side, x : x + side].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        )
        focal = focal * DEPTH_SIZE / side
    gain, shift = rng.uniform(0.85, 1.15, 3), rng.uniform(-15, 15)
    return np.clip(image * gain + shift, 0, 255).astype(np.uint8), depth, person, focal


def _first_guess(model: Any) -> None:
    """Starts near the mean answer: a last ReLU that begins at zero would never learn."""
    import torch

    with torch.no_grad():
        model.head.layers[-2].weight.mul_(0.02)
        model.head.layers[-2].bias.fill_(0.3)
        model.fov_model.head.layers[-1].bias.fill_(FOV_SCALE_DEG)


def _depth_loss(
    model: Any, pixels: torch.Tensor, inverse: torch.Tensor, weights: torch.Tensor, fov: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Error of the logarithm of canonical inverse depth, and of the field of view.

    The logarithm, because plain relative error forgives a person at the wall's depth more than a wall at the person's.
    """
    outputs = model(pixel_values=pixels)
    relative = ((outputs.predicted_depth + 1e-3) / inverse).log().abs()
    depth_loss = (relative * weights).sum() / weights.sum()
    fov_loss = (outputs.field_of_view - fov).abs().mean() / FOV_SCALE_DEG
    return depth_loss + fov_loss, {"depth": float(depth_loss.detach()), "fov": float(fov_loss.detach())}


def _depth_check(model: Any, lessons: _Lessons) -> dict[str, float]:
    """Median relative errors of metric depth on lessons not learnt from."""
    import torch

    model.eval()
    all_errors, person_errors = [], []
    with torch.no_grad():
        for which in np.array_split(np.arange(len(lessons.images)), 8):
            pixels, inverse, weights, fov = lessons.pick(which)
            outputs = model(pixel_values=pixels)
            tangents = [torch.tan(torch.deg2rad(angle) / 2) for angle in (outputs.field_of_view, fov)]
            true, predicted = inverse * tangents[1][:, None, None], outputs.predicted_depth * tangents[0][:, None, None]
            error = (true / predicted.clamp(min=1e-4) - 1).abs()
            all_errors.append(error.flatten())
            person_errors.append(error[weights > 1])
    return {"median": float(torch.cat(all_errors).median()), "person": float(torch.cat(person_errors).median())}


def _store_depth(model: Any, out: Path) -> None:
    """Model and processor in save_pretrained's format, each file whole or not there."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".depth-") as temporary:
        model.save_pretrained(temporary)
        depth_processor().save_pretrained(temporary)
        for path in Path(temporary).iterdir():
            path.chmod(0o644)
            os.replace(path, out / path.name)


def measure_depth(weights: Path = DEPTH_WEIGHTS, frames: list[StudioFrame] | None = None) -> DepthFigures:
    """The depth model's figures on unseen subjects, through the processor and its post-processing as in use."""
    import torch
    from transformers import AutoImageProcessor, DepthProForDepthEstimation

    model, processor = (
        DepthProForDepthEstimation.from_pretrained(weights).eval(),
        AutoImageProcessor.from_pretrained(weights),
    )
    frames = frames or unseen_frames()
    errors, person_errors, focal_errors = [], [], []
    for frame in frames:
        with torch.no_grad():
            outputs = model(**processor(images=frame.image, return_tensors="pt"))
        answer = processor.post_process_depth_estimation(outputs, target_sizes=[frame.depth_m.shape])[0]
        error = np.abs(answer["predicted_depth"].numpy() / frame.depth_m - 1)
        errors.append(error.ravel())
        person_errors.append(error[frame.person])
        focal_errors.append(abs(float(answer["focal_length"]) / frame.camera.K[0, 0] - 1))
    everywhere, on_person = (float(np.median(np.concatenate(part))) for part in (errors, person_errors))
    return DepthFigures(len(frames), everywhere, on_person, float(np.median(focal_errors)))
