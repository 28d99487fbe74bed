"""Moving a whole PoseSample through an image warp: image, depth, keypoints, window, joints, camera and box together.

The one place where a crop, flip, turn, scale or shift is done; the chunker, augmentation and inference all call it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from humanpose3d.camera import is_mirror, turn_points, warp_camera
from humanpose3d.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import SMPL_24, get_skeleton

VIEW_MARGIN = 0.1  # room left around the person's box on each side of a model's view, as a share of its longer side


def warp_sample(
    sample: PoseSample,
    warp: np.ndarray,
    size_wh: tuple[int, int],
    turn: np.ndarray | None = None,
    *,
    depth_scale: float = 0.5,
) -> PoseSample:
    """The record as seen after an affine image warp.

    warp: [2 3], old pixel -> new pixel. size_wh: the new image's. turn: orthogonal [2 2], what the warp does to the
    camera's x and y (a turn about the optical axis or a mirror); None for crops, scales and shifts.
    Depth comes out at `depth_scale` of the new image's side. Joints off the new image stay labelled in 3D and are
    marked out of view. A mirror swaps left and right joints too. A turn or a mirror moves SMPL's pose and translation
    along; the translation is lost where the sample has no joints of SMPL that say where the pelvis is.
    """
    mirrored = turn is not None and is_mirror(turn)
    changes: dict = {"image_size_wh": size_wh}
    if sample.image is not None:
        changes["image"] = _warp_image(sample.image, warp, size_wh)
    if sample.depth_m is not None:
        changes["depth_m"] = _warp_depth(sample.depth_m, sample.image_size_wh, warp, size_wh, depth_scale)
    if sample.keypoints_px is not None and sample.keypoint_score is not None:
        order = _joint_order(sample.keypoint_skeleton, mirrored)
        changes["keypoints_px"] = warp_points(sample.keypoints_px, warp)[order]
        changes["keypoint_score"] = sample.keypoint_score[order]
        if sample.keypoint_window is not None:
            window = sample.keypoint_window
            moved = np.concatenate([warp_points(window[..., :2], warp), window[..., 2:]], axis=-1)
            changes["keypoint_window"] = moved[:, order]
    if sample.skeleton is not None:
        order = _joint_order(sample.skeleton, mirrored)
        if sample.joint_score is not None:
            changes["joint_score"] = sample.joint_score[order]
        if sample.joints_cam_m is not None:
            joints_cam_m = sample.joints_cam_m if turn is None else turn_points(sample.joints_cam_m, turn)
            changes["joints_cam_m"] = joints_cam_m[order]
        if sample.joints_px is not None:
            changes["joints_px"] = warp_points(sample.joints_px, warp)[order]
            changes["joint_in_view"] = in_view(changes["joints_px"], size_wh)
    if turn is not None and sample.smpl_pose_rad is not None:
        changes["smpl_pose_rad"] = turn_smpl_pose(sample.smpl_pose_rad, turn)
    if turn is not None and sample.smpl_trans_m is not None:
        changes["smpl_trans_m"] = _turn_smpl_trans(sample, sample.smpl_trans_m, turn)
    if sample.camera is not None:
        changes["camera"] = warp_camera(sample.camera, warp, turn)
    if sample.box_px is not None:
        changes["box_px"] = clip_box(_warp_box(sample.box_px, warp), size_wh)
    if sample.head_size_px is not None:
        changes["head_size_px"] = sample.head_size_px * float(np.sqrt(abs(np.linalg.det(warp[:, :2]))))
    return sample.with_(**changes)


def turn_smpl_pose(pose_rad: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """SMPL's pose [24 3] of the person as seen after `turn`, an orthogonal [2 2] on the camera's x and y.

    A mirror M = diag(-1, 1, 1) of the body itself gives each joint its twin's rotation, M R M: the same angle about an
    axis whose y and z are negated. What is left of `turn` is a proper rotation, of the root alone.
    """
    turn3 = np.eye(3)
    turn3[:2, :2] = turn
    turned = pose_rad.astype(np.float64)
    if is_mirror(turn):
        turned = turned[SMPL_24.flip_permutation] * [1.0, -1.0, -1.0]
        turn3 = turn3 @ np.diag([-1.0, 1.0, 1.0])  # the mirrored body is turned by Q M
    root = SMPL_24.root_index
    turned[root] = matrix_to_axis_angle(turn3 @ axis_angle_to_matrix(turned[root]))
    return turned.astype(pose_rad.dtype)


def _turn_smpl_trans(sample: PoseSample, trans_m: np.ndarray, turn: np.ndarray) -> np.ndarray | None:
    """The translation that puts the pelvis where the turn puts it; None where the pelvis is not known.

    The model adds `trans` to the pelvis of the rest body, which follows from the betas alone: no turn moves it. (Nor a
    mirror: SMPL's rest body is its own mirror image within millimetres, and the betas stay.)
    """
    if sample.skeleton != SMPL_24.name or sample.joints_cam_m is None:
        return None
    pelvis_m = sample.joints_cam_m[SMPL_24.root_index].astype(np.float64)
    if not np.isfinite(pelvis_m).all():
        return None
    return (turn_points(pelvis_m, turn) - pelvis_m + trans_m).astype(trans_m.dtype)


def crop_warp(box_px: np.ndarray, margin: float, size: int) -> np.ndarray:
    """[2 3] warp from an image to a `size` x `size` square around a box, with `margin` of the box's long side added
    on each side. The square's outer edges, not its pixel centres, meet the enlarged box."""
    centre = (box_px[:2] + box_px[2:]) / 2.0
    side = float(max(box_px[2] - box_px[0], box_px[3] - box_px[1], 1.0)) * (1.0 + 2.0 * margin)
    scale = size / side
    return np.array(
        [[scale, 0.0, size / 2.0 - 0.5 - scale * centre[0]], [0.0, scale, size / 2.0 - 0.5 - scale * centre[1]]]
    )


def crop_person(sample: PoseSample, margin: float, size: int, *, depth_scale: float = 0.5) -> PoseSample:
    """The square around the sample's box with `margin` on each side, at `size` pixels. The camera follows exactly."""
    assert sample.box_px is not None
    return warp_sample(
        sample, crop_warp(sample.box_px.astype(np.float64), margin, size), (size, size), depth_scale=depth_scale
    )


MIRROR = np.diag([-1.0, 1.0])


def mirror_warp(width: int) -> np.ndarray:
    """[2 3]: pixel x -> width - 1 - x. Goes with `turn=MIRROR`."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def warp_points(points_px: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """[..., 2] pixels through a [2 3] warp, in the points' own dtype."""
    return (points_px @ warp[:, :2].T + warp[:, 2]).astype(points_px.dtype)


def compose(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The [2 3] warp that does `first`, then `then`."""
    both = then[:, :2] @ first
    both[:, 2] += then[:, 2]
    return both


def in_view(points_px: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """bool [...]: the pixel [..., 2] lies on the image. NaN does not."""
    x, y = points_px[..., 0], points_px[..., 1]
    return (x >= -0.5) & (x <= size_wh[0] - 0.5) & (y >= -0.5) & (y <= size_wh[1] - 0.5)


def clip_box(box_px: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """float32 [4] x0 y0 x1 y1 clipped to the image."""
    limits = np.array([size_wh[0] - 1, size_wh[1] - 1] * 2, dtype=np.float32)
    return np.clip(box_px.astype(np.float32), 0, limits)


def _joint_order(skeleton: str | None, mirrored: bool) -> np.ndarray | slice:
    # Mirror the joint order too, or the left wrist would supervise the right one.
    return get_skeleton(skeleton).flip_permutation if mirrored and skeleton else slice(None)


def _warp_image(image: np.ndarray, warp: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    (a, b, _), (c, d, _) = warp.tolist()
    if abs(a * d - b * c) < 0.25:  # average first: bilinear sampling of a much larger image skips pixels
        factor = int(1.0 / np.sqrt(abs(np.linalg.det(warp[:, :2]))))
        height, width = image.shape[:2]
        small = (max(width // factor, 1), max(height // factor, 1))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        warp = compose(_resize_warp(small, (width, height)), warp)
    # OpenCV 5 interpolates four channels faster than three, and slows down wherever it looks beyond the image: with a
    # fourth channel and a border a view of 256 px takes 0.15 ms in place of 0.41, and differs by one level at most.
    image, warp = _bordered(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), warp, size_wh)
    view = cv2.warpAffine(image, warp, size_wh, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return cv2.cvtColor(view, cv2.COLOR_RGBA2RGB)


def _bordered(image: np.ndarray, warp: np.ndarray, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(the image with the black that its warp looks at around it, at most its own side each way; and its warp)."""
    (a, b, x), (c, d, y) = warp.tolist()
    height, width = image.shape[:2]
    determinant = a * d - b * c
    if not determinant:
        return image, warp
    # The view's middle and half its extent, on the image.
    half_x, half_y = (size_wh[0] - 1) / 2.0, (size_wh[1] - 1) / 2.0
    middle_x = (d * (half_x - x) - b * (half_y - y)) / determinant
    middle_y = (a * (half_y - y) - c * (half_x - x)) / determinant
    reach_x = (abs(d) * half_x + abs(b) * half_y) / abs(determinant) + 2.0
    reach_y = (abs(c) * half_x + abs(a) * half_y) / abs(determinant) + 2.0
    left, right = max(-math.floor(middle_x - reach_x), 0), max(math.ceil(middle_x + reach_x) - width + 1, 0)
    top, bottom = max(-math.floor(middle_y - reach_y), 0), max(math.ceil(middle_y + reach_y) - height + 1, 0)
    if left + right + top + bottom == 0 or max(left, right) > width or max(top, bottom) > height:
        return image, warp
    moved = warp.copy()
    moved[:, 2] -= warp[:, :2] @ (left, top)
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT), moved


def _warp_depth(
    depth_m: np.ndarray, old_wh: tuple[int, int], warp: np.ndarray, size_wh: tuple[int, int], depth_scale: float
) -> np.ndarray:
    # Nearest, because a mean across an edge is a depth where nothing is, and 0 means unknown.
    out_wh = (max(round(size_wh[0] * depth_scale), 1), max(round(size_wh[1] * depth_scale), 1))
    height, width = depth_m.shape
    full = compose(compose(_resize_warp((width, height), old_wh), warp), _resize_warp(size_wh, out_wh))
    return cv2.warpAffine(depth_m, full, out_wh, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)


def _resize_warp(old_wh: tuple[int, int], new_wh: tuple[int, int]) -> np.ndarray:
    """[2 3] pixel map of a plain resize; the images' outer edges coincide."""
    sx, sy = new_wh[0] / old_wh[0], new_wh[1] / old_wh[1]
    return np.array([[sx, 0.0, 0.5 * sx - 0.5], [0.0, sy, 0.5 * sy - 0.5]])


def _warp_box(box_px: np.ndarray, warp: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = box_px.astype(np.float64)
    corners = warp_points(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), warp)
    return np.concatenate([corners.min(0), corners.max(0)])
