"""Batches of random but consistent samples for tests: joints project onto their pixels, depth is the person's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton


def random_batch(
    size: int = 4,
    *,
    seed: int = 0,
    input_size: int = 128,
    skeleton: str = "h36m_17",
    keypoint_skeleton: str = "coco_17",
    **changes: Any,
) -> PoseBatch:
    """`size` samples with every field there; `changes` replace fields."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    joints, keypoints = len(get_skeleton(skeleton)), len(get_skeleton(keypoint_skeleton))
    middle_px = (input_size - 1) / 2
    intrinsics = torch.eye(3).repeat(size, 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = uniform(2.0, 2.6, size) * input_size
    intrinsics[:, :2, 2] = middle_px + uniform(-0.4, 0.4, size, 2) * input_size
    root_px = middle_px + uniform(-0.05, 0.05, size, 2) * input_size
    root_m = torch.cat([root_px, torch.ones(size, 1)], 1) @ torch.eye(3)
    root_m = torch.linalg.solve(intrinsics, root_m[..., None])[..., 0] * uniform(4.0, 5.5, size, 1)
    joints_cam_m = root_m[:, None] + uniform(-0.7, 0.7, size, joints, 3)
    joints_cam_m[:, get_skeleton(skeleton).root_index if get_skeleton(skeleton).root else 0] = root_m
    projected = joints_cam_m @ intrinsics.mT
    joints_px = projected[..., :2] / projected[..., 2:]
    batch = PoseBatch(
        keys=[f"test-{seed}-{i}" for i in range(size)],
        subjects=["S1"] * size,
        actions=["Walking"] * size,
        counted=torch.ones(size, dtype=torch.bool),
        image=torch.randint(0, 256, (size, 3, input_size, input_size), dtype=torch.uint8, generator=generator),
        depth_m=root_m[:, 2, None, None, None] + uniform(-0.4, 0.4, size, 1, input_size // 2, input_size // 2),
        keypoints_px=uniform(0.1 * input_size, 0.9 * input_size, size, keypoints, 2),
        keypoint_score=uniform(0.4, 1.0, size, keypoints),
        keypoint_mask=torch.ones(size, keypoints, dtype=torch.bool),
        intrinsics=intrinsics,
        image_size_wh=torch.full((size, 2), float(input_size)),
        joints_px=joints_px,
        joints_cam_m=joints_cam_m,
        joint_mask=torch.ones(size, joints, dtype=torch.bool),
        joint_in_view=torch.ones(size, joints, dtype=torch.bool),
        keypoint_depth_m=torch.stack(
            [root_m[:, 2:] + uniform(-0.4, 0.4, size, keypoints), uniform(0.0, 0.1, size, keypoints)], dim=-1
        ),
        keypoint_depth_mask=torch.ones(size, keypoints, dtype=torch.bool),
    )
    return replace(batch, **changes)
