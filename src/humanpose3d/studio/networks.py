"""The studio's own small networks, a pose model (Ultralytics) and a depth model (DepthPro): training and measuring.

    python -m humanpose3d.studio.networks keypoints --seed 0 --minutes 40
    python -m humanpose3d.studio.networks depth --seed 0 --minutes 40
    python -m humanpose3d.studio.networks measure

Both are stored in the formats of the real ones: what loads `yolo11x-pose.pt` and `apple/DepthPro-hf` loads them.
torch, ultralytics and transformers are imported by the functions that need them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from humanpose3d.camera import Camera
from humanpose3d.reports import progress
from humanpose3d.skeletons import COCO_17
from humanpose3d.studio.film import (
    SUBACTIONS,
    TEST_SUBJECTS,
    TRAIN_SUBJECTS,
    StudioFrame,
    film,
    film_group,
    make_scene,
    random_scene,
)
from humanpose3d.studio.motion import ACTIONS
from humanpose3d.studio.room import CAMERA_IDS
from humanpose3d.studio.shoot import encode_jpeg

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).parent / "weights"
POSE_WEIGHTS, DEPTH_WEIGHTS, FIGURES_FILE = (
    WEIGHTS / "studio_pose.pt",
    WEIGHTS / "studio_depth",
    WEIGHTS / "figures.json",
)

IMAGE_SIZE = 256  # pixels, what the pose model is trained on
DEPTH_SIZE = 128  # pixels, what the depth model takes in
POSE_SCALE = {"t": [0.33, 0.125, 1024]}  # depth, width, most channels: 1.0 M parameters
FOUND_SCORE = 0.25  # Ultralytics' own cut for a person
PERSON_WEIGHT = 8.0  # of the person's pixels in the depth loss: they are few, and what the depth is for
PIXEL_MEAN, PIXEL_DEVIATION = 0.5, 0.5  # what DepthPro's processor does to pixels of 0 to 1
ZOOMED_SHARE = 0.08  # of depth lessons; with a third of them the field of view was 7 % off on whole images
FIRST_GUEST = 20_000  # of a group, among the seeds' random scenes
SPREAD_M, APART_M = 1.4, 0.45  # of a group: how far from the room's middle it stands, and from each other at least
FEWEST_SEEN = 4  # joints of somebody in a group, who else is no example
LEARNING_RATE = 1e-3  # of the depth model, at its highest
FOV_SCALE_DEG = 45.0  # the loss and the first guess of the field of view are in units of it


@dataclass(frozen=True)
class PoseFigures:
    """How well a pose model does on the studio's test subjects."""

    frames: int
    found: float  # share of frames in which a person is found
    median_error_px: float  # over joints inside the image, at IMAGE_SIZE
    median_seen_error_px: float  # over joints that nothing hides


@dataclass(frozen=True)
class DepthFigures:
    """How well a depth model does on the studio's test subjects. Relative errors: |z - true z| / true z."""

    frames: int
    median_error: float  # over all pixels
    median_person_error: float  # over the person's pixels
    median_focal_error: float


# ---------------------------------------------------------------------------------------- pictures to learn from


def film_training_set(
    folder: Path, count: int, *, seed: int, subjects_share: float = 0.5, groups_share: float = 0.0
) -> None:
    """`count` pictures with labels: `images/*.jpg`, `labels/*.txt` (YOLO pose) and `depth.npz`.

    A share shows the training subjects in their room, the rest random people in random rooms; a share of both shows
    two to four people.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    depths, people, focals = [], [], []
    with progress("filming", count) as bar:
        for number in range(count):
            people_in_it = _draw_people(rng, seed, number, subjects_share, groups_share)
            frame, name = people_in_it[0], f"{number:06d}"
            (folder / "images" / f"{name}.jpg").write_bytes(encode_jpeg(frame.image))
            labels = [yolo_label(each) for each in people_in_it if len(people_in_it) == 1 or is_in_sight(each)]
            (folder / "labels" / f"{name}.txt").write_text("".join(labels))
            depths.append(
                cv2.resize(frame.depth_m, (DEPTH_SIZE, DEPTH_SIZE), interpolation=cv2.INTER_NEAREST).astype(np.float16)
            )
            people.append(
                cv2.resize(
                    np.any([each.person for each in people_in_it], axis=0).astype(np.uint8),
                    (DEPTH_SIZE, DEPTH_SIZE),
                    interpolation=cv2.INTER_NEAREST,
                )
                > 0
            )
            focals.append(frame.camera.K[0, 0])
            bar.advance()
    np.savez(folder / "depth.npz", depth_m=np.array(depths), person=np.array(people), focal_px=np.array(focals))


def _draw_people(
    rng: np.random.Generator, seed: int, number: int, subjects_share: float, groups_share: float
) -> list[StudioFrame]:
    """A picture: one frame, or one for each of a group."""
    frame = int(rng.integers(0, 200))
    if rng.random() < subjects_share:
        subject, action = str(rng.choice(TRAIN_SUBJECTS)), int(rng.choice(list(ACTIONS)))
        scene, camera = (
            make_scene(subject, action, int(rng.choice(SUBACTIONS)), size=IMAGE_SIZE),
            int(rng.choice(CAMERA_IDS)),
        )
    else:  # three frames in a row share a scene and a camera: seeing an empty room costs more than a frame
        scene, camera = random_scene(100_000 * seed + number // 3, size=IMAGE_SIZE), CAMERA_IDS[number // 3 % 4]
    people = [(scene, frame)]
    if groups_share and rng.random() < groups_share:
        people += [
            (
                random_scene(100_000 * seed + FIRST_GUEST + 3 * number + guest, size=IMAGE_SIZE),
                int(rng.integers(0, 200)),
            )
            for guest in range(rng.integers(1, 4))
        ]
        spots_m = _draw_spots(rng, len(people), scene.cameras[camera])
        people = [(replace(who, moved_m=spot_m), when) for (who, when), spot_m in zip(people, spots_m, strict=True)]
    return film_group(people, camera, seed=number)


def _draw_spots(rng: np.random.Generator, people: int, camera: Camera) -> list[tuple[float, float]]:
    """World x, y: somewhere before the camera, beside, before and behind each other, and not inside."""
    ahead = camera.R[2, :2] / np.linalg.norm(camera.R[2, :2])
    spots: list[np.ndarray] = []
    while len(spots) < people:
        spot = rng.uniform(-SPREAD_M, SPREAD_M) * camera.R[0, :2] + rng.uniform(-SPREAD_M, SPREAD_M) * ahead
        if all(np.linalg.norm(spot - other) > APART_M for other in spots):
            spots.append(spot)
    return [(float(x), float(y)) for x, y in spots]


def is_in_sight(frame: StudioFrame) -> bool:
    """Whether somebody in a group is to be found: at least so many joints in the picture that nothing hides."""
    return int((frame.keypoint_flag == 2).sum()) >= FEWEST_SEEN


def yolo_label(frame: StudioFrame) -> str:
    """A line of YOLO pose format: class, box centre and size, then x, y, flag of each joint, as shares of the image."""
    height, width = frame.depth_m.shape
    low, high = np.clip(frame.box_px.reshape(2, 2) + 0.5, 0, [width, height])
    box = [*((low + high) / 2 / [width, height]), *((high - low) / [width, height])]
    # Shares are measured from the image's edge, our pixels from the first pixel's centre.
    joints = np.clip((frame.keypoints_px + 0.5) / [width, height], 0, 1)
    flags = frame.keypoint_flag
    values = [f"{x:.6f} {y:.6f} {flag}" if flag else "0 0 0" for (x, y), flag in zip(joints, flags, strict=True)]
    return " ".join(["0", *(f"{value:.6f}" for value in box), *values]) + "\n"


# ------------------------------------------------------------------------------------------------ the pose model


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
    workplace: Path | None = None,
    start: Path | None = None,
    image_size: int = IMAGE_SIZE,
    batch: int = 8,
    groups_share: float = 0.0,
) -> Path:
    """Trains the pose model for that long; stores the best so far at `out`. `start`: weights to go on from."""
    _quiet_ultralytics()
    import torch
    import yaml
    from ultralytics import YOLO
    from ultralytics.utils import ROOT
    from ultralytics.utils.loss import KeypointLoss
    from ultralytics.utils.torch_utils import strip_optimizer

    torch.set_num_threads(1)
    KeypointLoss.forward = _steady_keypoint_loss  # type: ignore[method-assign]
    folder = workplace or Path(tempfile.mkdtemp(prefix="hp3d-pose-"))
    for part, count, part_seed in (("train", images, seed + 1), ("val", 120, seed + 2)):
        if not (folder / part / "depth.npz").exists():
            film_training_set(folder / part, count, seed=part_seed, subjects_share=0.5, groups_share=groups_share)
    architecture = yaml.safe_load((ROOT / "cfg/models/11/yolo11-pose.yaml").read_text())
    architecture |= {"scales": POSE_SCALE, "scale": "t", "nc": 1, "kpt_shape": [len(COCO_17), 3]}
    (folder / "studio-pose.yaml").write_text(yaml.safe_dump(architecture))
    data = {
        "path": str(folder),
        "train": "train/images",
        "val": "val/images",
        "names": {0: "person"},
        "kpt_shape": [len(COCO_17), 3],
        "flip_idx": COCO_17.flip_permutation.tolist(),
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(data))

    def store(best: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_suffix(".part.pt")
        strip_optimizer(best, str(temporary))
        forget_places(temporary)
        os.replace(temporary, out)

    def store_best(trainer: Any) -> None:
        torch.set_num_threads(1)
        if trainer.best.exists():
            store(trainer.best)

    model = YOLO(start or folder / "studio-pose.yaml", task="pose")
    model.add_callback("on_model_save", store_best)
    model.train(
        data=str(folder / "data.yaml"),
        imgsz=image_size,
        time=minutes / 60,
        batch=batch,
        nbs=batch,
        optimizer="AdamW",
        lr0=0.002,
        lrf=0.02,
        warmup_epochs=0.5,
        warmup_bias_lr=0.0,
        cos_lr=False,
        close_mosaic=6,
        mosaic=0.0,
        scale=0.2,
        translate=0.08,
        degrees=2.0,
        amp=False,
        plots=False,
        pretrained=str(start) if start else False,
        device="cpu",
        workers=0,
        seed=seed,
        cache="ram",
        project=str(folder),
        name="run",
        exist_ok=True,
        deterministic=True,
        erasing=0.0,
        patience=1000,
        pose=6.0,
        verbose=False,
    )
    store(folder / "run/weights/best.pt")
    return out


def forget_places(weights: Path) -> None:
    """Of a checkpoint of Ultralytics': folders of the machine that trained it become bare file names, in place."""
    import torch

    stored = torch.load(weights, map_location="cpu", weights_only=False)  # our own, written just now
    stored["git"] = {}
    network = stored["model"]
    for values in (stored["train_args"], vars(network), network.yaml, network.args):
        for name, value in values.items():
            if isinstance(value, str) and Path(value).is_absolute():
                values[name] = Path(value).name
    torch.save(stored, weights)


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


# ----------------------------------------------------------------------------------------------- the depth model


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
    for part, count, part_seed in (("train", images, seed + 1), ("val", 120, seed + 2)):
        if not (folder / part / "depth.npz").exists():
            film_training_set(folder / part, count, seed=part_seed, subjects_share=0.5)
    lessons, tests = _Lessons(folder / "train"), _Lessons(folder / "val")
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


def _read_image(path: Path) -> np.ndarray:
    """uint8 [H W 3] RGB."""
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f"{path} is missing or no image; empty the workplace and film it anew")
    return image[..., ::-1]


class _Lessons:
    """A filmed training set in memory, as batches for the depth model."""

    def __init__(self, folder: Path) -> None:
        labels = np.load(folder / "depth.npz")
        self.depth_m, self.person, self.focal_px = labels["depth_m"], labels["person"], labels["focal_px"]
        files = sorted((folder / "images").glob("*.jpg"))
        self.images = np.stack([_read_image(path) for path in files])

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


# --------------------------------------------------------------------------------------- measuring, command line


def unseen_frames(count: int = 240) -> list[StudioFrame]:
    """Frames of S9 and S11 spread over actions, subactions, cameras and time."""
    frames, actions = [], list(ACTIONS)
    for number in range(count):
        subject, action = TEST_SUBJECTS[number % 2], actions[number // 2 % len(actions)]
        frames.append(
            film(subject, action, 1 + number // 30 % 2, 1 + (number + number // 4) % 4, (7 * number) % 40, IMAGE_SIZE)
        )
    return frames


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train or measure the studio's networks.")
    parser.add_argument("what", choices=("keypoints", "depth", "measure"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=40.0, help="how long to train")
    parser.add_argument("--images", type=int, default=2600, help="frames to film and train on")
    parser.add_argument("--workplace", type=Path, help="folder for filmed frames, kept; a temporary one by default")
    parser.add_argument("--out", type=Path, help="where to store the weights; the package by default")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE, help="pixels the pose model is trained at")
    parser.add_argument(
        "--groups", type=float, default=0.0, help="share of the pose model's pictures with 2 to 4 people"
    )
    parser.add_argument("--frames", type=int, default=240, help="frames to measure on")
    given = parser.parse_args(arguments)
    settings = {
        "seed": given.seed,
        "minutes": given.minutes,
        "images": given.images,
        "workplace": given.workplace,
        "start": given.start,
    }
    if given.what == "keypoints":
        settings |= {"image_size": given.image_size, "groups_share": given.groups}
        print(train_pose(given.out or POSE_WEIGHTS, **settings))
    elif given.what == "depth":
        print(train_depth(given.out or DEPTH_WEIGHTS, **settings))
    else:
        frames = unseen_frames(given.frames)
        figures = {"keypoints": asdict(measure_pose(frames=frames)), "depth": asdict(measure_depth(frames=frames))}
        FIGURES_FILE.write_text(json.dumps(figures, indent=2) + "\n")
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
