"""Heat maps over the picture they came from, beside the joints found in them and the true ones."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from humanpose3d.skeletons import Skeleton
from humanpose3d.visualize.panels import PICTURE_LIMIT_PX, draw_keypoints, framed, grid, shrunk
from humanpose3d.warp import VIEW_MARGIN, compose, crop_warp

TILE_PX = 420


def draw_heatmaps(
    image: np.ndarray,
    heatmaps: np.ndarray,
    points_px: np.ndarray,
    score: np.ndarray,
    truth_px: np.ndarray | None = None,
    *,
    skeleton: Skeleton,
    title: str = "",
    tile_px: int = TILE_PX,
) -> np.ndarray:
    """Found joints, heat maps and, where there are labels, true joints, side by side: uint8 [h w 3].

    image: uint8 [H W 3]. heatmaps: [J h w], 0..1. points_px, truth_px: [J 2] px of the image, NaN where unknown; score
    [J], 0..1.
    """
    height, width = image.shape[:2]
    scale = tile_px / max(height, width)
    size = (round(width * scale), round(height * scale))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)

    def bones(points: np.ndarray, strength: np.ndarray) -> np.ndarray:
        moved = (points + 0.5) * scale - 0.5
        return draw_keypoints(picture, [moved], [strength], skeleton)

    tiles = [
        framed(bones(points_px, score), title or "found", "the fainter, the less sure"),
        framed(overlaid(picture, heatmaps), "heat maps", f"highest {float(heatmaps.max()):.2f}"),
    ]
    if truth_px is not None:
        distance = np.linalg.norm(points_px - truth_px, axis=-1)
        note = f"mean error {np.nanmean(distance):.1f} px" if np.isfinite(distance).any() else ""
        tiles.append(framed(bones(truth_px, np.ones(len(truth_px))), "truth", note))
    return grid([tiles])


def draw_heat(image: np.ndarray, boxes_px: Sequence[np.ndarray], heats: Sequence[np.ndarray]) -> np.ndarray:
    """The image, grey, under everybody's heat maps: uint8 [h w 3], no longer than an overlay of keypoints.

    image: uint8 [H W 3]. boxes_px: [4] each, xyxy. heats: [h h] each, the highest of the maps, 0..1, over the square
    that a network is shown of the box.
    """
    picture, scale = shrunk(image, PICTURE_LIMIT_PX)
    to_picture = np.array([[scale, 0.0, 0.5 * scale - 0.5], [0.0, scale, 0.5 * scale - 0.5]])
    everybody = np.zeros(picture.shape[:2], np.float32)
    for box_px, heat in zip(boxes_px, heats, strict=True):
        to_image = cv2.invertAffineTransform(crop_warp(box_px.astype(np.float64), VIEW_MARGIN, len(heat)))
        placed = cv2.warpAffine(heat.astype(np.float32), compose(to_image, to_picture), picture.shape[1::-1])
        everybody = np.maximum(everybody, placed)
    return overlaid(picture, everybody[None])


def overlaid(picture: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """uint8 [H W 3]: the picture, grey, under the highest of the maps [J h w] at each place."""
    highest = cv2.resize(heatmaps.max(0).astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    heat = np.clip(highest, 0.0, 1.0)
    colour = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = picture.mean(-1, keepdims=True).repeat(3, -1)
    share = np.clip(1.5 * heat, 0.0, 1.0)[..., None]
    return np.ascontiguousarray(((1.0 - share) * grey + share * colour).round().astype(np.uint8))
