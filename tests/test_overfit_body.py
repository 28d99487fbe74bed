"""A body regressor learns real people of 3DPW by heart: pose within 5 degrees a joint, the body on the person.

The sample says pose and shape; where the person stands follows from a box. The free body stands in for SMPL.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.config import BodyLossWeights
from humanpose3d.dataset.augmentation import fit_view
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.images import read_image
from humanpose3d.metrics import rotation_error_deg
from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.models.smpl_body import load_bodies, rotations_from_axis_angle
from humanpose3d.sample import PoseSample
from humanpose3d.studio.free_body import write_free_body
from humanpose3d.tasks.body import BodyTask, project

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, RATE, MOST_DEG, MOST_PX = 450, 3e-3, 5.0, 4.0
BOX_PX = (0.0, 660.0, 460.0, 1540.0)  # of the woman on the left, by eye: the sample's own box is beside her


def person(samples: Path, body: Path) -> PoseSample:
    """The labelled person, placed so that the body fills the box's height."""
    folder = samples / "threedpw"
    label = json.loads((folder / "sample_3dpw_train.json").read_text())
    smpl = {name: np.array(values, np.float32) for name, values in label["smpl"].items()}
    pose_rad = np.concatenate([smpl["global_orient"], smpl["body_pose"][0]])
    image = read_image(folder / label["image_path"][0])
    size_wh = image.shape[1::-1]
    camera = Camera.from_fov(size_wh, 55.0)
    x0, y0, x1, y1 = BOX_PX
    rotations, betas = rotations_from_axis_angle(torch.from_numpy(pose_rad))[None], torch.from_numpy(smpl["betas"])
    surface = load_bodies(body).neutral(rotations, betas)
    vertices_m = surface.vertices_m[0].double().numpy()
    low, high = vertices_m.min(0), vertices_m.max(0)
    z_m = camera.K[1, 1] * (high[1] - low[1]) / (y1 - y0)
    middle = np.linalg.inv(camera.K) @ np.array([(x0 + x1) / 2, (y0 + y1) / 2, 1.0]) * z_m
    trans_m = middle - (low + high) / 2
    joints_m = (surface.joints_m[0].double().numpy() + trans_m).astype(np.float32)
    return PoseSample(
        key="real", image=image, image_size_wh=size_wh, joints_cam_m=joints_m,
        joints_px=camera_to_pixel(joints_m, camera).astype(np.float32), joint_score=np.ones(24, np.float32),
        skeleton="smpl_24", camera=camera, box_px=np.array(BOX_PX, np.float32), smpl_pose_rad=pose_rad,
        smpl_betas=smpl["betas"][0], smpl_trans_m=trans_m.astype(np.float32), gender="female",
    )  # fmt: skip


def test_a_real_person_is_learned_by_heart(samples, tmp_path):
    write_free_body(tmp_path)
    config = model_config("hps", "tiny")
    torch.manual_seed(0)
    model, task = build_model(config), BodyTask(config, BodyLossWeights(), tmp_path)
    known = person(samples, tmp_path)
    collate = Human36MCollator("smpl_24", "coco_17", depth=False, keypoints=False, bodies=True)
    # Two crops: batch norm needs more than one picture to be the same in training and afterwards.
    batch = collate(
        [fit_view(known.with_(box_px=known.box_px + grow), config.input_size) for grow in (0.0, [-40, -40, 40, 40])]
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        loss = task.training_scalars(model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        found = task.predict(model, batch)
    turned = rotation_error_deg(found.rotations, found.true_rotations)
    assert turned.max() < MOST_DEG, f"worst joint {turned.max():.1f} degrees"
    places = project(found.joints_rel_m + found.root_cam_m[:, None], batch.intrinsics)
    assert (places - batch.joints_px).norm(dim=-1).max() < MOST_PX
