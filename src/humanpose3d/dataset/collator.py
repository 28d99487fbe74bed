"""Samples -> one PoseBatch of tensors. The one place where masks are made and NaN becomes zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from humanpose3d.camera import Camera
from humanpose3d.dataset.augmentation import DEPTH_SCALE
from humanpose3d.dataset.decoding import BatchMemory
from humanpose3d.sample import GENDERS, PoseBatch, PoseSample
from humanpose3d.skeletons import SMPL_24, Skeleton, get_skeleton, shared_joints

SMPL_BETAS = 10
DEFAULT_FOV_DEG = 55.0  # assumed along the longer side of an image whose camera is unknown


class Human36MCollator:
    """Model views (`PoseAugmentor`, `fit_view`) -> PoseBatch.

    skeleton, keypoint_skeleton: what the model predicts and reads. A sample that speaks another is a ValueError:
    feeding one set where the other is meant costs centimetres and nobody notices.
    depth: False for a model without depth; else every batch has a map, zeros where a sample has none.
    keypoints: False for a model that finds them itself; whatever the samples have is then masked.
    bodies: SMPL's labels come along, and joints of other skeletons are taken where they mark the same points; the rest
    of the skeleton counts as not labelled.
    """

    def __init__(
        self,
        skeleton: str,
        keypoint_skeleton: str,
        *,
        depth: bool = True,
        keypoints: bool = True,
        bodies: bool = False,
        fov_deg: float = DEFAULT_FOV_DEG,
    ) -> None:
        self.skeleton: Skeleton = get_skeleton(skeleton)
        self.keypoint_skeleton: Skeleton = get_skeleton(keypoint_skeleton)
        self.depth, self.keypoints, self.bodies, self.fov_deg = depth, keypoints, bodies, fov_deg
        self._memory = BatchMemory()

    def __call__(self, samples: Sequence[PoseSample], counted: Sequence[bool] | None = None) -> PoseBatch:
        """counted: False for repeats. A sample that its corpus's evaluation leaves out (`valid`) does not count either.

        Without a labelled root nothing can be measured from it, so such a sample's `joint_mask` is all False.
        ValueError: another skeleton, or views of different sizes.
        """
        counted = [True] * len(samples) if counted is None else counted
        for sample in samples:
            self._check(sample, samples[0])
        keypoints, keypoint_mask = self._keypoints(samples)
        return PoseBatch(
            keys=[sample.key for sample in samples],
            subjects=[sample.subject for sample in samples],
            actions=[sample.action for sample in samples],
            counted=torch.tensor([bool(c) and sample.valid for c, sample in zip(counted, samples, strict=True)]),
            image=_images(samples, self._memory),
            depth_m=self._depths(samples),
            keypoints_px=_tensor(keypoints[..., :2]),
            keypoint_score=_tensor(keypoints[..., 2]),
            keypoint_mask=_tensor(keypoint_mask),
            intrinsics=_tensor(np.stack([self._intrinsics(sample) for sample in samples])),
            image_size_wh=_tensor(np.array([sample.image_size_wh for sample in samples], dtype=np.float32)),
            head_size_px=_tensor(np.array([s.head_size_px or 0.0 for s in samples], dtype=np.float32)),
            **self._labels(samples),
            **(_bodies(samples) if self.bodies else {}),
        )

    def _check(self, sample: PoseSample, first: PoseSample) -> None:
        has_keypoints = self.keypoints and sample.keypoints_px is not None
        has_labels = _is_labelled(sample) and not self.bodies
        for found, wanted, is_used, what in (
            (sample.keypoint_skeleton, self.keypoint_skeleton.name, has_keypoints, "2D keypoints"),
            (sample.skeleton, self.skeleton.name, has_labels, "joints"),
        ):
            if is_used and found != wanted:
                raise ValueError(f"{sample.key}: {what} are in skeleton '{found}', but the model wants '{wanted}'")
        if sample.image_size_wh != first.image_size_wh or (sample.image is None) != (first.image is None):
            raise ValueError(
                f"{sample.key} and {first.key} do not fit in one batch: images of {sample.image_size_wh} "
                f"and {first.image_size_wh}, or only one has pixels; fit_view makes them alike"
            )

    def _keypoints(self, samples: Sequence[PoseSample]) -> tuple[np.ndarray, np.ndarray]:
        """(float32 [B Jin 3] x, y, score; bool [B Jin]), zeros where masked."""
        keypoints = np.full((len(samples), len(self.keypoint_skeleton), 3), np.nan, dtype=np.float32)
        for row, sample in zip(keypoints, samples, strict=True):
            if self.keypoints and sample.keypoints_px is not None:
                row[:, :2], row[:, 2] = sample.keypoints_px, sample.keypoint_score
        mask = np.isfinite(keypoints).all(-1) & (keypoints[..., 2] > 0)
        return np.where(mask[..., None], keypoints, np.float32(0.0)), mask

    def _depths(self, samples: Sequence[PoseSample]) -> torch.Tensor | None:
        """float32 [B 1 h w]; an absent map, and an unknown depth in one, is 0."""
        if not self.depth:
            return None
        width, height = samples[0].image_size_wh
        known = [sample.depth_m.shape for sample in samples if sample.depth_m is not None]
        shape = known[0] if known else (max(round(height * DEPTH_SCALE), 1), max(round(width * DEPTH_SCALE), 1))
        depths = self._memory.tensor((len(samples), 1, *shape), np.float32)
        for row, sample in zip(depths.numpy(), samples, strict=True):
            row[0] = 0.0 if sample.depth_m is None else sample.depth_m
            if not np.isfinite(row.sum()):
                row[~np.isfinite(row)] = 0.0
        return depths

    def _intrinsics(self, sample: PoseSample) -> np.ndarray:
        camera = sample.camera or Camera.from_fov(sample.image_size_wh, self.fov_deg)
        return camera.K.astype(np.float32)

    def _labels(self, samples: Sequence[PoseSample]) -> dict[str, torch.Tensor | None]:
        has_bodies = self.bodies and any(sample.smpl_pose_rad is not None for sample in samples)
        if not has_bodies and not any(_is_labelled(sample) for sample in samples):
            return dict.fromkeys(("joints_px", "joints_cam_m", "joint_mask", "joint_in_view", "joint_px_mask"))
        number = (len(samples), len(self.skeleton))
        joints_px = np.full((*number, 2), np.nan, dtype=np.float32)
        joints_cam_m = np.full((*number, 3), np.nan, dtype=np.float32)
        score, in_view = np.zeros(number, dtype=np.float32), np.zeros(number, dtype=bool)
        for i, sample in enumerate(samples):
            if not _is_labelled(sample):
                continue
            own, theirs = self._columns(sample)
            if sample.joints_px is not None:
                joints_px[i, own] = sample.joints_px[theirs]
                in_view[i, own] = True if sample.joint_in_view is None else sample.joint_in_view[theirs]
            if sample.joints_cam_m is not None:
                joints_cam_m[i, own] = sample.joints_cam_m[theirs]
            score[i, own] = 1.0 if sample.joint_score is None else sample.joint_score[theirs]
        mask = np.isfinite(joints_cam_m).all(-1) & (score > 0)
        if self.skeleton.root is not None:
            mask &= mask[:, [self.skeleton.root_index]]
        is_labelled = np.isfinite(joints_px).all(-1) & (score > 0)
        return {
            "joints_px": _tensor(np.nan_to_num(joints_px, nan=0.0)),
            "joints_cam_m": _tensor(np.where(mask[..., None], joints_cam_m, np.float32(0.0))),
            "joint_mask": _tensor(mask),
            "joint_in_view": _tensor(in_view & is_labelled),
            "joint_px_mask": _tensor(is_labelled),
        }

    def _columns(self, sample: PoseSample) -> tuple[Any, Any]:
        """Where the sample's joints go, and which those are."""
        if sample.skeleton is None or sample.skeleton == self.skeleton.name:
            return slice(None), slice(None)
        return shared_joints(self.skeleton, get_skeleton(sample.skeleton))


def _bodies(samples: Sequence[PoseSample]) -> dict[str, torch.Tensor]:
    """SMPL's labels, zeros where a sample has none."""
    pose = np.zeros((len(samples), len(SMPL_24), 3), dtype=np.float32)
    betas = np.zeros((len(samples), SMPL_BETAS), dtype=np.float32)
    mask = np.zeros(len(samples), dtype=bool)
    for row, sample in enumerate(samples):
        if sample.smpl_pose_rad is not None and sample.smpl_betas is not None:
            pose[row], betas[row], mask[row] = sample.smpl_pose_rad, sample.smpl_betas, True
    genders = [GENDERS.index(sample.gender) if sample.gender in GENDERS else -1 for sample in samples]
    return {
        "smpl_pose_rad": _tensor(pose),
        "smpl_betas": _tensor(betas),
        "smpl_mask": _tensor(mask),
        "smpl_gender": torch.tensor(genders),
    }


def _is_labelled(sample: PoseSample) -> bool:
    return sample.joints_cam_m is not None or sample.joints_px is not None


def _images(samples: Sequence[PoseSample], memory: BatchMemory) -> torch.Tensor | None:
    """uint8 [B 3 H W], or None where the samples have no pixels."""
    if samples[0].image is None:
        return None
    height, width = samples[0].image.shape[:2]
    # Channels last in memory, as the pictures are: taking them apart costs five times as much as copying them, and
    # convolutions are faster that way.
    images = memory.tensor((len(samples), height, width, 3), np.uint8)
    for row, sample in zip(images.numpy(), samples, strict=True):
        row[...] = sample.image
    return images.permute(0, 3, 1, 2)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
