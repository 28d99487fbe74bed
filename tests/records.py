"""Random records for tests: `random_sample` gives a whole PoseSample, geometry consistent, fields changed at will."""

from __future__ import annotations

from typing import Any

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.sample import PoseSample, make_key
from humanpose3d.skeletons import COCO_17, H36M_17, shared_joints
from humanpose3d.warp import in_view


def random_sample(
    rng: np.random.Generator,
    key: str = "h36m-S1-Walking-54138969-000000-p0",
    *,
    size: int = 64,
    window: int = 0,
    image: bool = True,
    depth: bool = True,
    **changes: Any,
) -> PoseSample:
    """A labelled person 4 m away: `size` px square image, depth at half its side, YOLO keypoints near the labels."""
    camera = Camera.create(1.2 * size, ((size - 1) / 2, (size - 1) / 2), t_m=rng.normal(size=3), distortion=np.zeros(5))
    joints_cam_m = (rng.normal(scale=0.3, size=(17, 3)) + [0.0, 0.0, 4.0]).astype(np.float32)
    joints_px = camera_to_pixel(joints_cam_m, camera).astype(np.float32)
    keypoints_px = rng.uniform(0, size, (17, 2)).astype(np.float32)
    of_labels, of_keypoints = shared_joints(H36M_17, COCO_17)
    keypoints_px[of_keypoints] = joints_px[of_labels] + rng.normal(scale=0.5, size=(len(of_labels), 2))
    keypoint_score = rng.uniform(0.2, 1.0, 17).astype(np.float32)
    low, high = joints_px.min(0), joints_px.max(0)
    values: dict[str, Any] = {
        "image": _smooth_picture(rng, size) if image else None,
        "image_size_wh": (size, size),
        "depth_m": np.round(rng.uniform(3.0, 5.0, (size // 2, size // 2)), 3).astype(np.float32) if depth else None,
        "keypoints_px": keypoints_px,
        "keypoint_score": keypoint_score,
        "keypoint_skeleton": "coco_17",
        "joints_px": joints_px,
        "joints_cam_m": joints_cam_m,
        "joint_score": np.ones(17, np.float32),
        "joint_in_view": in_view(joints_px, (size, size)),
        "skeleton": "h36m_17",
        "camera": camera,
        "box_px": np.clip(np.concatenate([low, high]), 0, size - 1).astype(np.float32),
        "corpus": "h36m",
        "subject": "S1",
        "action": "Walking",
        "camera_id": "54138969",
        "fps": 50.0,
        "provenance": {"estimators": {"keypoints": {"name": "test", "version": "1", "sha256": "0"}}},
    }
    if window:
        still = np.concatenate([keypoints_px, keypoint_score[:, None]], axis=-1)
        moving = still + rng.normal(scale=0.5, size=(window, 1, 1)) * [1.0, 1.0, 0.0]
        values |= {"keypoint_window": moving.astype(np.float32), "window_fps": 50.0}
    return PoseSample(key=key, **(values | changes))


def random_samples(
    rng: np.random.Generator, count: int, subjects: tuple[str, ...] = ("S1", "S9"), **changes: Any
) -> list[PoseSample]:
    """`count` samples with keys of their own, the subjects taking turns."""
    return [
        random_sample(
            rng,
            make_key("h36m", subjects[index % len(subjects)], "Walking", 54138969, f"{index:06d}", "p0"),
            subject=subjects[index % len(subjects)],
            frame_index=index,
            **changes,
        )
        for index in range(count)
    ]


def _smooth_picture(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8 [size size 3]: a colour gradient, which JPEG keeps well."""
    ramp = np.linspace(0, 1, size)[:, None, None] * rng.uniform(50, 200, 3) + rng.uniform(0, 55, 3)
    return np.broadcast_to(ramp, (size, size, 3)).astype(np.uint8).copy()
