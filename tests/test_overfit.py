"""An hourglass learns a handful of real pictures by heart, bodies and a hand: every joint within 2 cells of 64 x 64.

And of their mirror images, with left and right exchanged: wrong pairs of joints, a label that a flip leaves where it
was or a view that the labels do not follow would not be learned.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from humanpose3d.config import AugmentationConfig, LossWeights
from humanpose3d.dataset.augmentation import PoseAugmentor
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.images import read_image
from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.reports import StageReport
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import get_skeleton
from humanpose3d.sources import freihand, mpii
from humanpose3d.tasks.heatmaps import HeatmapTask

pytestmark = pytest.mark.usefixtures("one_thread")

LEARNED, STEPS, RATE, CELLS = 2, 300, 3e-3, 2.0  # pictures: time goes with them
MIRRORS = AugmentationConfig(
    rotation_deg=0.0, scale=(1.0, 1.0), translation=0.0, brightness=(1.0, 1.0), contrast=(1.0, 1.0),
    saturation=(1.0, 1.0), hue=0.0, drop_depth=0.0, drop_keypoint=0.0,
)  # fmt: skip


def mpii_samples(samples: Path) -> list[PoseSample]:
    folder = samples / "mpii"
    frames = mpii.read_frames(folder / "images", folder / "annotations.json", ("valid",), told=StageReport("test"))
    return [of_frame(frame, folder / "images") for frame in frames]


def freihand_samples(samples: Path) -> list[PoseSample]:
    folder = samples / "freihand"
    return [
        of_frame(frame, folder) for frame in freihand.read_frames(folder, folder, ("training",), told=StageReport("t"))
    ]


def mpi_inf_3dhp_samples(samples: Path) -> list[PoseSample]:
    folder, found = samples / "mpi_inf_3dhp", []
    for label in json.loads((folder / "labels.json").read_text()):
        points = np.array(label["joints_px"], np.float32)
        image = read_image(folder / label["image"])
        box_px = np.concatenate([points.min(0), points.max(0)])
        found.append(PoseSample(
            key=label["image"], image=image, image_size_wh=image.shape[1::-1], joints_px=points, box_px=box_px,
            joint_score=np.ones(len(points), np.float32), skeleton=label["skeleton"],
        ))  # fmt: skip
    return found


def of_frame(frame, images: Path) -> PoseSample:
    image = read_image(images / frame.image_path)
    return PoseSample(
        key=frame.key, image=image, image_size_wh=image.shape[1::-1], joints_px=frame.joints_px,
        joint_score=frame.joint_score, skeleton=frame.skeleton, box_px=frame.box_px,
    )  # fmt: skip


@pytest.mark.parametrize(
    "pictures, number, skeleton",
    [(mpii_samples, 5, "mpii_16"), (freihand_samples, 4, "hand_21"), (mpi_inf_3dhp_samples, 2, "mpi_17")],
    ids=["mpii", "freihand", "mpi_inf_3dhp"],
)
def test_real_pictures_and_their_mirror_images_are_learned_by_heart(samples, pictures, number, skeleton):
    known = pictures(samples)
    assert len(known) == number and known[0].skeleton == skeleton
    known = known[:LEARNED]
    torch.manual_seed(0)
    config = model_config("hourglass", "small", skeleton=skeleton, channels=32, depths=(4,))
    model, task = build_model(config), HeatmapTask(config, LossWeights(), "absolute")
    flips = [PoseAugmentor(replace(MIRRORS, flip=chance), config.input_size) for chance in (0.0, 0.999999)]
    views = [flip(sample, np.random.default_rng(0)) for flip in flips for sample in known]
    collate = Human36MCollator(skeleton, config.keypoint_skeleton, depth=False, keypoints=False)
    batch = collate(views)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        # Around each step anew: inside it casts of the weights are remembered.
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_amx_tile_supported()):
            loss = task.training_scalars(model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        found = task.predict(model, batch).points_px
    error_cells = (found - batch.joints_px).norm(dim=-1)[batch.joint_in_view] / 4.0
    assert error_cells.max() < CELLS, f"worst {error_cells.max():.1f} cells"
    # The same picture, mirrored by nobody but this test: its joints are those of the picture, with the sides exchanged.
    flip = torch.from_numpy(get_skeleton(skeleton).flip_permutation)
    mirrored = torch.stack([config.input_size - 1.0 - batch.joints_px[..., 0], batch.joints_px[..., 1]], dim=-1)[
        :, flip
    ]
    seen = batch.joint_in_view[:, flip]
    with torch.inference_mode():
        found = task.predict(model, replace(batch, image=batch.image.flip(-1))).points_px
    assert ((found - mirrored).norm(dim=-1)[seen] / 4.0).max() < CELLS
