"""From a stored sample to the model's square view of the person, with random changes in training and without elsewhere.

Every geometric change goes into ONE warp, so pixels are sampled once and labels follow exactly (`warp.py`).
"""

from __future__ import annotations

import cv2
import numpy as np

from humanpose3d.config import AugmentationConfig
from humanpose3d.sample import PoseSample
from humanpose3d.warp import MIRROR, VIEW_MARGIN, compose, crop_warp, warp_sample

DEPTH_SCALE = 0.5  # side of the view's depth map against its image's

# NTSC's luma and two colour axes: in these a change of hue is a turn and a change of saturation a scale.
_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


def view_warp(sample: PoseSample, size: int) -> np.ndarray:
    """[2 3] warp to the `size` x `size` view of the person; of the whole image where there is no box."""
    width, height = sample.image_size_wh
    box_px = np.array([-0.5, -0.5, width - 0.5, height - 0.5]) if sample.box_px is None else sample.box_px
    margin = 0.0 if sample.box_px is None else VIEW_MARGIN
    return crop_warp(box_px.astype(np.float64), margin, size)


def fit_view(sample: PoseSample, size: int) -> PoseSample:
    """The model's view without randomness: what validation and inference see. Image [size size], depth half that."""
    return warp_sample(sample, view_warp(sample, size), (size, size), depth_scale=DEPTH_SCALE)


class FitView:
    """`fit_view` as a dataset's transform."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        return fit_view(sample, self.size)


class PoseAugmentor:
    """The model's view of a sample after random changes: a dataset's transform for training."""

    def __init__(self, config: AugmentationConfig, size: int) -> None:
        self.config, self.size = config, size

    def __call__(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        """A new record, image [size size]. The same `rng` state gives the same record."""
        if not self.config.enabled:
            return fit_view(sample, self.size)
        change, turn = self.draw_change(rng)
        warp = compose(view_warp(sample, self.size), change)
        sample = warp_sample(sample, warp, (self.size, self.size), turn, depth_scale=DEPTH_SCALE)
        return self._drop_cues(self._occlude(self._jitter_colour(sample, rng), rng), rng)

    def draw_change(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random change of the view about its middle: [2 3] in pixels, and the [2 2] turn of camera x and y in it."""
        angle = np.radians(rng.uniform(-self.config.rotation_deg, self.config.rotation_deg))
        scale = rng.uniform(*self.config.scale)
        shift_px = rng.uniform(-self.config.translation, self.config.translation, 2) * self.size
        mirror = MIRROR if rng.random() < self.config.flip else np.eye(2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ mirror
        middle = np.full(2, (self.size - 1) / 2.0)
        return np.concatenate([scale * turn, (middle + shift_px - scale * turn @ middle)[:, None]], axis=1), turn

    def _jitter_colour(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        brightness, contrast, saturation = (
            rng.uniform(*limits) for limits in (self.config.brightness, self.config.contrast, self.config.saturation)
        )
        hue = rng.uniform(-self.config.hue, self.config.hue)
        if sample.image is None:
            return sample
        return sample.with_(image=jitter_colour(sample.image, brightness, contrast, saturation, hue))

    def _occlude(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        """A rectangle of one colour somewhere over the person, as of something in front."""
        if not self.config.occlusion or sample.image is None or rng.random() >= self.config.occlusion:
            return sample
        sides = rng.uniform(*self.config.occlusion_size, 2)
        return sample.with_(image=occlude(sample.image, sides, rng, sample.box_px))

    def _drop_cues(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        """Depth or single keypoints taken away, as a network that found nothing would leave them."""
        if rng.random() < self.config.drop_depth:
            sample = sample.with_(depth_m=None)
        if sample.keypoints_px is None or sample.keypoint_score is None:
            return sample
        lost = rng.random(len(sample.keypoint_score)) < self.config.drop_keypoint
        changes = {
            "keypoints_px": np.where(lost[:, None], np.float32(np.nan), sample.keypoints_px),
            "keypoint_score": np.where(lost, np.float32(0.0), sample.keypoint_score),
        }
        if sample.keypoint_window is not None:
            nothing = np.array([np.nan, np.nan, 0.0], dtype=np.float32)
            changes["keypoint_window"] = np.where(lost[:, None], nothing, sample.keypoint_window)
        return sample.with_(**changes)


def occlude(
    image: np.ndarray, sides: np.ndarray, rng: np.random.Generator, box_px: np.ndarray | None = None
) -> np.ndarray:
    """uint8 [H W 3] with a rectangle; sides: its height and width, as shares of the image's.

    box_px: x0 y0 x1 y1 within which its middle lies; None: anywhere. What lies beyond the image's edges is cut off.
    """
    limits = np.array(image.shape[:2], float)
    low, high = np.zeros(2), limits
    if box_px is not None:
        low, high = np.clip(box_px[[1, 0]], 0.0, limits), np.clip(box_px[[3, 2]], 0.0, limits)
    middle, half = rng.uniform(low, high), np.maximum(sides * limits, 1.0) / 2
    top, left = np.rint(np.maximum(middle - half, 0.0)).astype(int)
    bottom, right = np.rint(middle + half).astype(int)
    hidden = image.copy()
    hidden[top:bottom, left:right] = rng.integers(0, 256, 3)
    return hidden


def jitter_colour(image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """uint8 [H W 3] RGB with factors of brightness, contrast (about the mean grey) and saturation, and the hue turned
    by a share of the circle. All four are linear in RGB, so they are one 3 x 4 matrix and one pass."""
    c, s = np.cos(2 * np.pi * hue) * saturation, np.sin(2 * np.pi * hue) * saturation
    colour = _YIQ_TO_RGB @ np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]]) @ _RGB_TO_YIQ
    grey = _RGB_TO_YIQ[0] @ np.array(cv2.mean(image)[:3])
    offset = np.full((3, 1), brightness * (1.0 - contrast) * grey)
    return cv2.transform(image, np.concatenate([brightness * contrast * colour, offset], axis=1))
