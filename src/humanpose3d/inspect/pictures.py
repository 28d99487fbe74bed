"""Pictures of samples for the report: label, the estimator's keypoints and projected 3D joints over the image."""

from __future__ import annotations

import cv2
import numpy as np

from humanpose3d.camera import camera_to_pixel
from humanpose3d.checks.evidence import Witness
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import SKELETONS, Skeleton, shared_joints
from humanpose3d.visualize.panels import INK, SIDE_COLOURS_ON_PHOTO, Colour

PICTURE_PX = 420  # longer side
PADDING = 0.5  # most that is added around an image to show labels that lie off it, as a share of its side
ZOOM = 1.25  # shown around the person, as a share of their size
PROJECTED_FROM_PX = 2.0  # projected joints nearer to their labels than this are not drawn: they would hide them
KEYPOINT_COLOUR: Colour = (255, 70, 200)
PROJECTED_COLOUR: Colour = (60, 235, 60)
BLANK: Colour = (88, 92, 96)  # where there is no picture


def draw_sample(sample: PoseSample) -> np.ndarray:
    """uint8 [h w 3], PICTURE_PX long, cut to the person.

    Label: thick, left blue, right orange. Keypoints: rings, filled in the side's colour. 3D joints through the sample's
    camera: thin green lines, where they are not on the label.
    """
    image = sample.image
    if image is None:
        image = np.full((sample.image_size_wh[1] or 1, sample.image_size_wh[0] or 1, 3), BLANK, np.uint8)
    window = _window(sample, image.shape[1], image.shape[0])
    picture, scale = _cut(image, window)

    def placed(points_px: np.ndarray) -> np.ndarray:
        return (points_px + 0.5 - window[:2]) * scale - 0.5

    skeleton = SKELETONS.get(sample.skeleton or "")
    if skeleton is not None and sample.joints_px is not None:
        _draw_label(picture, placed(_labelled(sample, sample.joints_px)), skeleton)
    projected = projected_px(sample)
    if skeleton is not None and projected is not None and _differs(projected, sample.joints_px):
        _draw_projection(picture, placed(projected), skeleton)
    keypoint_skeleton = SKELETONS.get(sample.keypoint_skeleton or "")
    if keypoint_skeleton is not None and sample.keypoints_px is not None:
        _draw_keypoints(picture, placed(sample.keypoints_px), keypoint_skeleton)
    return picture


def projected_px(sample: PoseSample) -> np.ndarray | None:
    """[J 2]: the 3D joints through the sample's own camera; None without either."""
    if sample.joints_cam_m is None or sample.camera is None:
        return None
    return camera_to_pixel(_labelled(sample, sample.joints_cam_m), sample.camera)


def reprojection_px(sample: PoseSample) -> float | None:
    """Mean distance of the projected 3D joints from the 2D labels."""
    projected = projected_px(sample)
    return None if projected is None else _mean_distance(projected, sample.joints_px)


def keypoint_distance_px(sample: PoseSample | Witness) -> float | None:
    """Mean distance of the keypoints from the 2D labels, over the joints that both have."""
    if sample.joints_px is None or sample.keypoints_px is None or not sample.skeleton or not sample.keypoint_skeleton:
        return None
    of_label, of_keypoints = shared_joints(SKELETONS[sample.skeleton], SKELETONS[sample.keypoint_skeleton])
    return _mean_distance(sample.keypoints_px[of_keypoints], _labelled(sample, sample.joints_px)[of_label])


def height_m(sample: PoseSample) -> float | None:
    """The longest extent of the 3D joints."""
    if sample.joints_cam_m is None:
        return None
    joints = _labelled(sample, sample.joints_cam_m)
    joints = joints[np.isfinite(joints).all(-1)]
    return float(np.linalg.norm(joints[:, None] - joints[None], axis=-1).max()) if len(joints) else None


def distance_m(sample: PoseSample) -> float | None:
    """Median depth of the 3D joints."""
    if sample.joints_cam_m is None or not np.isfinite(sample.joints_cam_m[:, 2]).any():
        return None
    return float(np.nanmedian(sample.joints_cam_m[:, 2]))


def _labelled(sample: PoseSample | Witness, joints: np.ndarray) -> np.ndarray:
    """The joints, NaN where the label says missing."""
    if sample.joint_score is None:
        return joints
    return np.where(sample.joint_score[:, None] > 0, joints, np.nan)


def _mean_distance(points: np.ndarray, others: np.ndarray | None) -> float | None:
    if others is None:
        return None
    distances = np.linalg.norm(points - others, axis=-1)
    known = np.isfinite(distances)
    return float(distances[known].mean()) if known.any() else None


def _differs(projected: np.ndarray, joints_px: np.ndarray | None) -> bool:
    distance = _mean_distance(projected, joints_px)
    return distance is None or distance > PROJECTED_FROM_PX


def _window(sample: PoseSample, width: int, height: int) -> np.ndarray:
    """[4] x0 y0 x1 y1 in image coordinates from its outer corner: the person with room around."""
    points = [part for part in (sample.joints_px, sample.keypoints_px, projected_px(sample)) if part is not None]
    points = [part[np.isfinite(part).all(-1)] for part in points]
    everything = np.concatenate([*points, np.zeros((0, 2))])
    if not len(everything) and sample.box_px is not None:
        everything = sample.box_px.reshape(2, 2)
    limits = np.array([[-PADDING * width, -PADDING * height], [(1 + PADDING) * width, (1 + PADDING) * height]])
    if not len(everything):
        return np.array([0.0, 0.0, width, height])
    low, high = np.clip(np.stack([everything.min(0), everything.max(0)]), *limits)
    middle, half = (low + high) / 2, ZOOM / 2 * max(float((high - low).max()), 0.25 * max(width, height))
    x0, y0 = np.maximum(middle - half, np.minimum(low, 0.0))
    x1, y1 = np.minimum(middle + half, np.maximum(high, [width, height]))
    return np.array([x0, y0, max(x1, x0 + 8), max(y1, y0 + 8)])


def _cut(image: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, float]:
    """The window of the image at PICTURE_PX, and its scale; grey where it looks past the image."""
    x0, y0, x1, y1 = window
    scale = PICTURE_PX / max(x1 - x0, y1 - y0)
    size = (max(round((x1 - x0) * scale), 1), max(round((y1 - y0) * scale), 1))
    warp = np.array([[scale, 0.0, (0.5 - x0) * scale - 0.5], [0.0, scale, (0.5 - y0) * scale - 0.5]])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, warp, size, flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=BLANK), scale


def _draw_label(picture: np.ndarray, points: np.ndarray, skeleton: Skeleton) -> None:
    for halo in (True, False):
        for parent, child in skeleton.bones:
            colour = INK if halo else SIDE_COLOURS_ON_PHOTO[skeleton.sides[child]]
            _line(picture, points[parent], points[child], colour, 6 if halo else 3)
        for joint, point in enumerate(points):
            _dot(picture, point, 5 if halo else 4, INK if halo else SIDE_COLOURS_ON_PHOTO[skeleton.sides[joint]])


def _draw_projection(picture: np.ndarray, points: np.ndarray, skeleton: Skeleton) -> None:
    for halo in (True, False):
        for parent, child in skeleton.bones:
            _line(picture, points[parent], points[child], INK if halo else PROJECTED_COLOUR, 4 if halo else 2)


def _draw_keypoints(picture: np.ndarray, points: np.ndarray, skeleton: Skeleton) -> None:
    for parent, child in skeleton.bones:
        _line(picture, points[parent], points[child], KEYPOINT_COLOUR, 1)
    for joint, point in enumerate(points):
        for radius, colour in ((6, INK), (5, KEYPOINT_COLOUR), (3, SIDE_COLOURS_ON_PHOTO[skeleton.sides[joint]])):
            _dot(picture, point, radius, colour)


def _line(picture: np.ndarray, start: np.ndarray, end: np.ndarray, colour: Colour, width: int) -> None:
    if np.isfinite(start).all() and np.isfinite(end).all():
        cv2.line(picture, _fixed(start), _fixed(end), colour, width, cv2.LINE_AA, 4)


def _dot(picture: np.ndarray, point: np.ndarray, radius: int, colour: Colour) -> None:
    if np.isfinite(point).all():
        cv2.circle(picture, _fixed(point), radius * 16, colour, -1, cv2.LINE_AA, 4)


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """For OpenCV with 4 bits after the point, held within what it can draw."""
    x, y = np.clip(np.rint(point * 16), -(1 << 17), 1 << 17).astype(int).tolist()
    return x, y
