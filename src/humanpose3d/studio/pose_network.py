"""The studio's pose network, a small Ultralytics YOLO: training and measuring.

The network and its losses are Ultralytics'; the loop around them is ours, in 16 bits where that is possible. torch and
ultralytics are imported by the functions that need them.
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from humanpose3d.skeletons import COCO_17
from humanpose3d.studio.film import StudioFrame
from humanpose3d.studio.lessons import IMAGE_SIZE, TRAIN, film_lessons, read_lesson, unseen_frames

if TYPE_CHECKING:
    import torch

POSE_WEIGHTS = Path(__file__).parent / "weights" / "studio_pose.pt"
POSE_SCALE = {"t": [0.33, 0.125, 1024]}  # depth, width, most channels: 1.0 M parameters
FOUND_SCORE = 0.25  # Ultralytics' own cut for a person
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1.5e-3, 5e-4, 10.0
MEAN_KEEPS, MEAN_STEPS = 0.9995, 300  # what the running mean of the weights keeps, and how soon it does
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 6.0, "kobj": 1.0}  # of Ultralytics' losses
LOSS_SCALE = 1 / 8  # Ultralytics' losses are sums over a batch; the gradients are clipped
TOLERANCE = 0.06  # of every joint alike: COCO's would have the eyes exact, and leave wrists and ankles where they are
SCALED, MOVED, TURNED_DEG = 0.2, 0.08, 2.0  # changes of a picture: shares of its size, degrees
RECOLOURED = np.array([0.015, 0.7, 0.4])  # hue, saturation, value: Ultralytics' own
LEAST_LEFT = 0.1  # of a person's box, after that
BACKGROUND = (114, 114, 114)
TOLD_S, STORED_S = 60.0, 300.0


@dataclass(frozen=True)
class PoseFigures:
    """How well a pose model does on the studio's test subjects."""

    frames: int
    found: float  # share of frames in which a person is found
    median_error_px: float  # over joints inside the image, at IMAGE_SIZE
    median_seen_error_px: float  # over joints that nothing hides


def _quiet_ultralytics() -> None:
    """Before ultralytics is imported: no downloads, no installs, no settings in the user's home."""
    os.environ.setdefault("YOLO_OFFLINE", "1")
    os.environ.setdefault("YOLO_AUTOINSTALL", "0")
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="hp3d-yolo-"))


def train_pose(
    out: Path = POSE_WEIGHTS,
    *,
    seed: int = 0,
    minutes: float = 40.0,
    images: int = 2600,
    groups_share: float = 0.0,
    workplace: Path | None = None,
    batch: int = 32,
    start: Path | None = None,
    image_size: int = IMAGE_SIZE,
) -> Path:
    """Trains the pose model for that long; stores it at `out` every few minutes. `start`: weights to go on from.

    Pictures are filmed at the size that it is trained at, or shrunk to it from IMAGE_SIZE.
    """
    _quiet_ultralytics()
    import torch
    from ultralytics.utils.torch_utils import ModelEMA

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    fast_in_16_bits = torch.cpu._is_amx_tile_supported()  # a CPU without them takes several times as long as in 32
    folder = workplace or Path(tempfile.mkdtemp(prefix="hp3d-pose-"))
    size = max(image_size, IMAGE_SIZE)
    film_lessons(folder, images, seed=seed, groups_share=groups_share, val_images=0, size=size)
    lessons, rng = Lessons(folder / TRAIN), np.random.default_rng(seed)
    model = _network(start).to(memory_format=torch.channels_last)
    criterion = _criterion(model)
    learning = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in learning if each.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [each for each in learning if each.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    mean = ModelEMA(model, decay=MEAN_KEEPS, tau=MEAN_STEPS)
    started, told, stored, step = time.monotonic(), 0.0, time.monotonic(), 0
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        rate = LEARNING_RATE * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * share)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        lesson = lessons.draw(rng, batch, image_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_in_16_bits):
            answer = model(lesson["img"])
        losses, parts = criterion(_in_32_bits(answer), lesson)
        optimiser.zero_grad()
        (LOSS_SCALE * losses.sum()).backward()
        torch.nn.utils.clip_grad_norm_(learning, CLIP_NORM)
        optimiser.step()
        mean.update(model)
        step += 1
        now = time.monotonic()
        if now - told > TOLD_S:
            told = now
            line = ", ".join(f"{name.removesuffix('_loss')} {float(value):.3f}" for name, value in parts.items())
            print(f"{(now - started) / 60:.1f} min, step {step}: {line}", flush=True)
        if now - stored > STORED_S:
            stored = now
            _store(mean.ema, out, image_size)
    _store(mean.ema, out, image_size)
    return out


def _network(start: Path | None) -> Any:
    """Ultralytics' module, ready to learn."""
    import yaml
    from ultralytics import YOLO
    from ultralytics.cfg import get_cfg
    from ultralytics.utils import ROOT

    if start is None:
        architecture = yaml.safe_load((ROOT / "cfg/models/11/yolo11-pose.yaml").read_text())
        architecture |= {"scales": POSE_SCALE, "scale": "t", "nc": 1, "kpt_shape": [len(COCO_17), 3]}
        with tempfile.TemporaryDirectory(prefix="hp3d-pose-") as folder:
            plan = Path(folder) / "studio-pose.yaml"
            plan.write_text(yaml.safe_dump(architecture))
            model: Any = YOLO(plan, task="pose").model
        model.names = {0: "person"}
    else:
        model = YOLO(start, task="pose").model
    model = model.float().train()
    for name, weights in model.named_parameters():
        weights.requires_grad_(".dfl" not in name)  # a fixed sum, written as a layer
    model.args = get_cfg(overrides=GAINS)
    return model


def _criterion(model: Any) -> Any:
    import torch
    from ultralytics.utils.loss import KeypointLoss, v8PoseLoss

    KeypointLoss.forward = _steady_keypoint_loss  # type: ignore[method-assign]
    criterion = v8PoseLoss(model)
    criterion.keypoint_loss.sigmas = torch.full((len(COCO_17),), TOLERANCE)
    return criterion


def _in_32_bits(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: _in_32_bits(part) for name, part in answer.items()}
    if isinstance(answer, list | tuple):
        return type(answer)(_in_32_bits(part) for part in answer)
    return answer.float()


def _store(model: Any, out: Path, image_size: int) -> None:
    """In Ultralytics' format, in 16 bits, whole or not there."""
    import torch
    from ultralytics import __version__

    network = copy.deepcopy(model).half().to(memory_format=torch.contiguous_format).requires_grad_(False)
    train_args = {"task": "pose", "imgsz": image_size, "single_cls": False}
    network.args, network.criterion = dict(train_args), None
    stored = {"model": network, "ema": None, "train_args": train_args, "version": __version__, "git": {}}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".part.pt")
    forget_places(stored)
    torch.save(stored, temporary)
    os.replace(temporary, out)


class Lessons:
    """A filmed training set in memory, as batches for Ultralytics' pose loss."""

    def __init__(self, folder: Path) -> None:
        files = sorted((folder / "images").glob("*.jpg"))
        self.images = [read_lesson(path) for path in files]
        rows = [(folder / "labels" / f"{path.stem}.txt").read_text().split() for path in files]
        self.people = [np.array(row, np.float32).reshape(-1, 5 + 3 * len(COCO_17)) for row in rows]

    def draw(self, rng: np.random.Generator, batch: int, size: int) -> dict[str, torch.Tensor]:
        """img [B 3 size size] of 0 to 1; of each person the image's number, class, box and keypoints."""
        import torch

        drawn = [self.pick(int(number), rng, size) for number in rng.integers(0, len(self.images), batch)]
        people = [len(boxes) for _, boxes, _ in drawn]
        pixels = torch.from_numpy(np.stack([image for image, _, _ in drawn])).permute(0, 3, 1, 2)
        return {
            "img": pixels.contiguous(memory_format=torch.channels_last).float() / 255,
            "batch_idx": torch.repeat_interleave(torch.arange(batch), torch.tensor(people)).float(),
            "cls": torch.zeros(sum(people), 1),
            "bboxes": torch.from_numpy(np.concatenate([boxes for _, boxes, _ in drawn])),
            "keypoints": torch.from_numpy(np.concatenate([joints for _, _, joints in drawn])),
        }

    def pick(self, number: int, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A picture, mirrored, moved and recoloured at random, float32 [N 4] boxes and [N 17 3] keypoints as YOLO's."""
        image, people = self.images[number], self.people[number]
        before, mirrored = image.shape[0], rng.random() < 0.5
        scale, turn = (
            size / before * rng.uniform(1 - SCALED, 1 + SCALED),
            np.radians(rng.uniform(-TURNED_DEG, TURNED_DEG)),
        )
        change = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        change = change * [-1.0 if mirrored else 1.0, 1.0]
        middle = size * (0.5 + rng.uniform(-MOVED, MOVED, 2))
        shift = middle - change @ np.full(2, before / 2)  # of places that count from the picture's edge
        centres = shift + change @ np.full(2, 0.5) - 0.5  # of those that count from the first pixel's centre
        moved = cv2.warpAffine(image, np.column_stack([change, centres]), (size, size), borderValue=BACKGROUND)
        places = people[:, 5:].reshape(-1, len(COCO_17), 3).copy()
        places[..., :2] = before * places[..., :2] @ change.T + shift
        if mirrored:
            places = places[:, COCO_17.flip_permutation]
        off = ((places[..., :2] < 0) | (places[..., :2] > size)).any(-1) | (places[..., 2] == 0)
        places[off] = 0.0
        places[..., :2] /= size
        half = people[:, None, 3:5] * [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]
        corners = before * (people[:, None, 1:3] + half) @ change.T + shift
        low, high = corners.min(1), corners.max(1)
        seen_low, seen_high = np.clip(low, 0, size), np.clip(high, 0, size)
        left = (seen_high - seen_low).prod(-1) / (high - low).prod(-1)
        boxes = np.concatenate([(seen_low + seen_high) / 2, seen_high - seen_low], axis=-1) / size
        stay = left > LEAST_LEFT
        return _recoloured(moved, rng), boxes[stay].astype(np.float32), places[stay].astype(np.float32)


def _recoloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    hue, saturation, value = 1.0 + RECOLOURED * rng.uniform(-1, 1, 3)
    levels = np.arange(256)
    tables = [levels * hue % 180, np.clip(levels * saturation, 0, 255), np.clip(levels * value, 0, 255)]
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    changed = [cv2.LUT(channel, table.astype(np.uint8)) for channel, table in zip(channels, tables, strict=True)]
    return cv2.cvtColor(cv2.merge(changed), cv2.COLOR_HSV2RGB)


def forget_places(stored: dict[str, Any]) -> None:
    """Of what goes into a checkpoint of Ultralytics': folders of the machine that trained it become bare file names."""
    stored["git"] = {}
    network = stored["model"]
    for values in (stored["train_args"], vars(network), network.yaml, network.args):
        for name, value in values.items():
            if isinstance(value, str) and Path(value).is_absolute():
                values[name] = Path(value).name


def _steady_keypoint_loss(
    self: Any, pred_kpts: torch.Tensor, gt_kpts: torch.Tensor, kpt_mask: torch.Tensor, area: torch.Tensor
) -> torch.Tensor:
    """Ultralytics' keypoint loss without its exponential: the distance in units of the joint's tolerance.

    1 - exp(-e) has no slope where e is large. A network that starts from nothing kept wrists at their mean place.
    """
    squared = (pred_kpts[..., :2] - gt_kpts[..., :2]).pow(2).sum(-1)
    share = kpt_mask.shape[1] / ((kpt_mask != 0).sum(dim=1) + 1e-9)
    e = squared / ((2 * self.sigmas).pow(2) * (area + 1e-9) * 2)
    return (share.view(-1, 1) * ((e + 1e-2).sqrt() * kpt_mask)).mean()


def measure_pose(weights: Path = POSE_WEIGHTS, frames: list[StudioFrame] | None = None) -> PoseFigures:
    """The pose model's figures on unseen subjects."""
    _quiet_ultralytics()
    from ultralytics import YOLO

    model: Any = YOLO(weights)
    frames = frames or unseen_frames()
    errors, seen_errors, found = [], [], 0
    for frame in frames:
        # Ultralytics takes arrays as BGR.
        result = model.predict(
            np.ascontiguousarray(frame.image[..., ::-1]), imgsz=IMAGE_SIZE, conf=FOUND_SCORE, verbose=False
        )[0]
        if not len(result.boxes):
            continue
        found += 1
        best = int(result.boxes.conf.argmax())
        # Ultralytics measures from the image's edge.
        error = np.linalg.norm(result.keypoints.data[best, :, :2].numpy() - 0.5 - frame.keypoints_px, axis=-1)
        errors.append(error[frame.keypoint_flag > 0])
        seen_errors.append(error[frame.keypoint_flag == 2])
    scale = IMAGE_SIZE / frames[0].image.shape[0]
    medians = [
        float(np.median(np.concatenate(part))) * scale if part else float("nan") for part in (errors, seen_errors)
    ]
    return PoseFigures(len(frames), found / len(frames), *medians)
