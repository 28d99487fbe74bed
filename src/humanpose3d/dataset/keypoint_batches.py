"""Samples -> a keypoint lifter's batches, without pictures: from chunks in one go, or from records at inference.

What a collator and an augmentor are to the networks that look at pictures; changes are `keypoint_augmentation.py`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from humanpose3d.camera import Camera, pixel_to_ray
from humanpose3d.chunks.codec import decode_sample, members_of
from humanpose3d.config import AugmentationConfig
from humanpose3d.dataset.collator import DEFAULT_FOV_DEG
from humanpose3d.dataset.decoding import StoredSample, is_pinning
from humanpose3d.dataset.keypoint_augmentation import (
    CHANGES,
    People,
    augment,
    draw,
    normal_draws,
    sort_draws,
    with_noise,
)
from humanpose3d.dataset.keypoint_noise import person_size
from humanpose3d.models.joint_features import PATCH, PATCH_STEP
from humanpose3d.sample import PoseBatch, PoseSample
from humanpose3d.skeletons import get_skeleton

VIEW_PX = 256.0  # rays are handed on as pixels of a square camera with this focal length


@dataclass
class Rows:
    """A batch in the making: one row a sample."""

    keys: list[str]
    subjects: list[str]
    actions: list[str]
    valid: np.ndarray  # bool [B]
    points_px: np.ndarray  # float32 [B T Jin 2], lens distortion removed
    K: np.ndarray  # float64 [B 3 3]
    score: np.ndarray  # as in People, and so are the others
    frame_s: np.ndarray
    depth_m: np.ndarray
    joints_m: np.ndarray
    joint_score: np.ndarray  # float32 [B J]
    projected: np.ndarray
    uniform: np.ndarray  # float32 [B ...], of `draw`
    normal: np.ndarray


class KeypointDecoder:
    """Stored samples -> PoseBatch, a `Decoder`; and records -> PoseBatch, a collator.

    depth: read the depth maps where keypoints are. window: frames of keypoints, the middle ones of those a sample has;
    a sample without any has its own frame alone. augmentation: random changes, for training. noise: without them,
    the strength of a detector's errors in exact keypoints, for validation.
    A sample that speaks another skeleton, or has fewer frames than `window`, is a ValueError.
    """

    def __init__(
        self,
        skeleton: str,
        keypoint_skeleton: str,
        *,
        depth: bool = True,
        window: int = 1,
        augmentation: AugmentationConfig | None = None,
        noise: float = 0.0,
        fov_deg: float = DEFAULT_FOV_DEG,
    ) -> None:
        self.skeleton, self.keypoint_skeleton = get_skeleton(skeleton), get_skeleton(keypoint_skeleton)
        self.depth, self.window, self.fov_deg = depth, window, fov_deg
        self.augmentation = augmentation if augmentation is not None and augmentation.enabled else None
        self.noise = noise
        self.fields = (*(["depth_m"] if depth else []), *(["keypoint_window"] if window > 1 else []))

    @property
    def extensions(self) -> Collection[str]:
        return members_of(self.fields)

    def __call__(self, samples: Sequence[PoseSample], counted: Sequence[bool] | None = None) -> PoseBatch:
        """Records as they are. counted: False for repeats."""
        batch = self.new_batch(len(samples))
        for row, sample in enumerate(samples):
            self._fill(batch, row, sample)
        return self._to_batch(batch, self._people(batch), counted or [True] * len(samples))

    def new_batch(self, size: int) -> Rows:
        joints, labels, frames = len(self.keypoint_skeleton), len(self.skeleton), self.window

        def nothing(*shape: int) -> np.ndarray:
            return np.full((size, *shape), np.nan, dtype=np.float32)

        return Rows(
            keys=[""] * size,
            subjects=[""] * size,
            actions=[""] * size,
            valid=np.zeros(size, dtype=bool),
            points_px=nothing(frames, joints, 2),
            K=np.tile(np.eye(3), (size, 1, 1)),
            score=np.zeros((size, frames, joints), dtype=np.float32),
            frame_s=np.zeros(size, dtype=np.float32),
            depth_m=nothing(joints, 2),
            joints_m=nothing(labels, 3),
            joint_score=np.zeros((size, labels), dtype=np.float32),
            projected=np.zeros(size, dtype=bool),
            uniform=nothing(CHANGES + 3 + 3 * joints),
            normal=nothing(normal_draws(frames, joints)),
        )

    def decode(self, sample: StoredSample, batch: Rows, row: int) -> bool:
        record = decode_sample(sample.key, sample.members, self.fields)
        self._fill(batch, row, record)
        if self.augmentation is not None or self.noise:
            batch.uniform[row], batch.normal[row] = draw(sample.rng(), self.window, len(self.keypoint_skeleton))
        return not record.synthetic

    def finish(self, batch: Rows, counted: Sequence[bool]) -> PoseBatch:
        people = self._people(batch)
        if self.augmentation is not None or self.noise:
            draws = sort_draws(batch.uniform, batch.normal, self.window, len(self.keypoint_skeleton))
            if self.augmentation is not None:
                people = augment(people, draws, self.augmentation, self.skeleton, self.keypoint_skeleton)
            else:
                strength = np.full(len(batch.keys), self.noise, dtype=np.float32)
                people = with_noise(people, draws.noise, strength, self.keypoint_skeleton)
        whole = self._to_batch(batch, people, counted)
        return whole.pin_memory() if is_pinning() else whole

    def _fill(self, batch: Rows, row: int, sample: PoseSample) -> None:
        """All of a row."""
        self._check(sample)
        camera = sample.camera or Camera.from_fov(sample.image_size_wh, self.fov_deg)
        batch.keys[row], batch.subjects[row], batch.actions[row] = sample.key, sample.subject, sample.action
        batch.valid[row] = sample.valid
        batch.points_px[row], batch.score[row], batch.depth_m[row] = np.nan, 0.0, np.nan
        batch.joints_m[row], batch.joint_score[row] = np.nan, 0.0
        if sample.joints_cam_m is not None:
            batch.joints_m[row] = sample.joints_cam_m
            batch.joint_score[row] = 1.0 if sample.joint_score is None else sample.joint_score
        batch.projected[row] = sample.keypoints_px is not None and not sample.provenance.get("estimators")
        batch.frame_s[row] = 0.0 if not sample.window_fps else 1.0 / sample.window_fps
        if sample.keypoints_px is None or sample.keypoint_score is None:
            return
        half = self.window // 2
        batch.K[row] = camera.K
        batch.points_px[row, half] = sample.keypoints_px
        batch.score[row, half] = sample.keypoint_score
        if self.window > 1 and sample.keypoint_window is not None:
            spare = len(sample.keypoint_window) // 2 - half
            frames = sample.keypoint_window[spare : spare + self.window]
            batch.points_px[row], batch.score[row] = frames[..., :2], frames[..., 2]
        if camera.distortion.any():
            batch.points_px[row] = pixel_to_ray(batch.points_px[row], camera)
            batch.K[row] = np.eye(3)
        if self.depth and sample.depth_m is not None:
            batch.depth_m[row] = depth_around(sample.depth_m, sample.keypoints_px, sample.image_size_wh)

    def _check(self, sample: PoseSample) -> None:
        for found, wanted, is_used, what in (
            (sample.keypoint_skeleton, self.keypoint_skeleton.name, sample.keypoints_px is not None, "2D keypoints"),
            (sample.skeleton, self.skeleton.name, sample.joints_cam_m is not None, "joints"),
        ):
            if is_used and found != wanted:
                raise ValueError(f"{sample.key}: {what} are in skeleton '{found}', but the model wants '{wanted}'")
        if self.window > 1 and sample.keypoint_window is not None:
            frames = len(sample.keypoint_window)
            if frames < self.window or not sample.window_fps:
                raise ValueError(
                    f"{sample.key} has {frames} frames of keypoints at {sample.window_fps} a second, the model wants "
                    f"{self.window}; make the chunks with dataset_chunker.py --window {self.window}"
                )

    def _people(self, batch: Rows) -> People:
        # As a batch's masks have it: without a score there is no keypoint.
        inverse = np.linalg.inv(batch.K)[:, None, None, :2]  # [B 1 1 2 3]
        points_px = np.where(batch.score[..., None] > 0, batch.points_px, np.float32(np.nan)).astype(np.float64)
        x, y = np.moveaxis(points_px, -1, 0)
        rays = x[..., None] * inverse[..., 0] + y[..., None] * inverse[..., 1] + inverse[..., 2]
        labelled = (batch.joint_score > 0)[..., None]
        joints_m = np.where(labelled, batch.joints_m, np.float32(np.nan))
        return People(rays.astype(np.float32), batch.score, batch.frame_s, batch.depth_m, joints_m, batch.projected)

    def _to_batch(self, batch: Rows, people: People, counted: Sequence[bool]) -> PoseBatch:
        half, size = self.window // 2, len(batch.keys)
        known = np.isfinite(people.rays).all(-1) & (people.score > 0)
        middle = (VIEW_PX - 1.0) / 2.0
        points_px = np.where(known[..., None], VIEW_PX * people.rays + middle, 0.0).astype(np.float32)
        score = np.where(known, people.score, 0.0).astype(np.float32)
        depth_known = np.isfinite(people.depth_m).all(-1) & (people.depth_m[..., 0] > 0) & known[:, half]
        labelled = np.isfinite(people.joints_m).all(-1)
        if self.skeleton.root is not None:  # without it nothing can be measured
            labelled &= labelled[:, [self.skeleton.root_index]]
        intrinsics = np.array([[VIEW_PX, 0, middle], [0, VIEW_PX, middle], [0, 0, 1]], dtype=np.float32)
        times = np.arange(-half, half + 1, dtype=np.float32) * batch.frame_s[:, None]
        has_labels = bool(np.isfinite(batch.joints_m).any())
        joints_m = np.where(labelled[..., None], people.joints_m, 0.0).astype(np.float32)
        windowed = self.window > 1
        return PoseBatch(
            keys=batch.keys,
            subjects=batch.subjects,
            actions=batch.actions,
            counted=torch.from_numpy(batch.valid & np.array(counted, dtype=bool)),
            image=None,
            depth_m=None,
            keypoints_px=_tensor(points_px[:, half]),
            keypoint_score=_tensor(score[:, half]),
            keypoint_mask=_tensor(known[:, half]),
            intrinsics=torch.from_numpy(intrinsics).repeat(size, 1, 1),
            image_size_wh=torch.full((size, 2), VIEW_PX),
            joints_px=None,
            joints_cam_m=_tensor(joints_m) if has_labels else None,
            joint_mask=_tensor(labelled) if has_labels else None,
            joint_in_view=None,
            keypoint_depth_m=_tensor(np.where(depth_known[..., None], people.depth_m, 0.0).astype(np.float32)),
            keypoint_depth_mask=_tensor(depth_known),
            keypoint_window=_tensor(np.concatenate([points_px, score[..., None]], axis=-1)) if windowed else None,
            window_mask=_tensor(known) if windowed else None,
            window_time_s=_tensor(times) if windowed else None,
        )


def depth_around(depth_m: np.ndarray, points_px: np.ndarray, image_size_wh: tuple[int, int]) -> np.ndarray:
    """float32 [J 2]: median and interquartile range of the depths in a patch around each point; NaN where unknown.

    A patch, since a joint at the body's edge has the wall's depth on one pixel in two. The map spans the image.
    """
    height, width = depth_m.shape
    scale = np.array([width, height]) / np.array(image_size_wh)
    points = points_px[:, None] + PATCH_STEP * float(person_size(points_px)) * np.array(PATCH)  # [J P 2]
    cells = np.floor((np.nan_to_num(points, nan=-1e6) + 0.5) * scale).clip(-1, [width, height]).astype(np.int64)
    inside = ((cells >= 0) & (cells < [width, height])).all(-1)
    found = np.where(inside, depth_m[cells[..., 1].clip(0, height - 1), cells[..., 0].clip(0, width - 1)], np.nan)
    found = np.sort(np.where(found > 0, found, np.nan), axis=-1)  # unknown ones last
    last = np.isfinite(found).sum(-1, keepdims=True) - 1
    at = (np.clip(last, 0, None) * [0.25, 0.5, 0.75] + 0.5).astype(np.int64)
    low, median, high = np.moveaxis(np.take_along_axis(found, at, axis=-1), -1, 0)
    return np.stack([median, high - low], axis=-1).astype(np.float32)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
