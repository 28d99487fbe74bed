"""From a stored sample to what a keypoint lifter reads: no picture, ideal lens, random cameras and errors in training.

Changes of the camera are exact for rays and joints; a depth map allows fewer of them, and they go through `warp.py`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from humanpose3d.camera import camera_to_pixel, pixel_to_ray
from humanpose3d.config import AugmentationConfig
from humanpose3d.dataset.augmentation import PoseAugmentor, fit_view
from humanpose3d.dataset.keypoint_noise import add_noise
from humanpose3d.rotations import axis_angle_to_matrix
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import get_skeleton

NEAREST_RAY_Z = 0.1  # a turn that brings a joint closer than this to the camera's side is not done


def keypoint_view(sample: PoseSample, size: int) -> PoseSample:
    """What validation and inference see: `fit_view` without the picture and through an ideal lens."""
    return fit_view(straighten(sample.with_(image=None)), size)


class KeypointView:
    """`keypoint_view` as a dataset's transform. noise: strength of errors added to keypoints that are projections."""

    def __init__(self, size: int, noise: float = 0.0) -> None:
        self.size, self.noise = size, noise

    def __call__(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        if self.noise and is_projected(sample):
            sample = with_noise(sample, rng, self.noise)
        return keypoint_view(sample, self.size)


class KeypointAugmentor(PoseAugmentor):
    """The lifter's view after random changes: a dataset's transform for training.

    Roll, flip, focal length (`scale`) and principal point (`translation`) as for pictures; where no depth map stands in
    the way the camera also turns about its centre, and moves nearer or away where the labels say how far all is.
    Keypoints that are projections of labels get a detector's errors; those that a network found have their own.
    """

    def __init__(self, config: AugmentationConfig, size: int) -> None:
        # Colours are the picture's, which is not read: one jitter less to draw.
        super().__init__(dataclasses.replace(config), size)

    def __call__(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        """A new record. The same `rng` state gives the same record."""
        sample = straighten(sample.with_(image=None))
        if not self.config.enabled:
            return fit_view(sample, self.size)
        angles_rad = np.radians(rng.uniform(-self.config.camera_turn_deg, self.config.camera_turn_deg, 2))
        nearer, strength = rng.uniform(*self.config.camera_distance), rng.uniform(*self.config.keypoint_noise)
        if sample.depth_m is None:
            if is_projected(sample) and sample.keypoint_window is None:
                sample = move_camera(sample, nearer)
            sample = turn_camera(sample, axis_angle_to_matrix(np.array([*angles_rad, 0.0])))
        if is_projected(sample):
            sample = with_noise(sample, rng, strength)
        return self.change_view(sample, rng)


def is_projected(sample: PoseSample) -> bool:
    """The keypoints are the labels' own, seen by a virtual camera: no network found them, so they have no errors."""
    return sample.keypoints_px is not None and not sample.provenance.get("estimators")


def with_noise(sample: PoseSample, rng: np.random.Generator, strength: float) -> PoseSample:
    """The sample with its keypoints, and those of its window, as a detector would have found them."""
    assert sample.keypoints_px is not None and sample.keypoint_score is not None and sample.keypoint_skeleton
    frames = _frames(sample)
    frames = add_noise(frames, sample.keypoint_skeleton, rng, strength=strength, fps=sample.window_fps)
    return _with_frames(sample, frames)


def straighten(sample: PoseSample) -> PoseSample:
    """The sample through a lens without distortion: keypoints, window and 2D labels where it would have put them.

    The picture and the depth map stay as they are, a few pixels off at the edges of a wide lens.
    """
    camera = sample.camera
    if camera is None or not np.any(camera.distortion):
        return sample
    ideal = dataclasses.replace(camera, distortion=np.zeros(5))

    def moved(points_px: np.ndarray) -> np.ndarray:
        rays = pixel_to_ray(points_px, camera)
        return (rays @ ideal.K[:2, :2].T + ideal.K[:2, 2]).astype(points_px.dtype)

    return _move_points(sample, moved).with_(camera=ideal)


def turn_camera(sample: PoseSample, rotation: np.ndarray) -> PoseSample:
    """As seen by the camera turned about its centre: `rotation` [3 3] takes old camera coordinates to new ones.

    For a sample without picture and depth, through an ideal lens. Exact: rays and 3D joints turn together, and the box
    becomes the one around the keypoints. The sample as it is where a keypoint would come to lie beside the camera.
    """
    assert sample.image is None and sample.depth_m is None
    camera = sample.camera
    if camera is None:
        return sample
    to_new = camera.K @ rotation @ np.linalg.inv(camera.K)

    def homogeneous(points_px: np.ndarray) -> np.ndarray:
        return points_px @ to_new[:, :2].T + to_new[:, 2]

    def moved(points_px: np.ndarray) -> np.ndarray:
        found = homogeneous(points_px)
        z = np.where(found[..., 2:] > NEAREST_RAY_Z, found[..., 2:], np.nan)
        return (found[..., :2] / z).astype(points_px.dtype)

    seen = [points for points in (sample.keypoints_px, sample.joints_px) if points is not None]
    if any((homogeneous(points)[..., 2] <= NEAREST_RAY_Z).any() for points in seen):
        return sample
    turned = _move_points(sample, moved)
    changes: dict = {"camera": dataclasses.replace(camera, R=rotation @ camera.R, t_m=rotation @ camera.t_m)}
    if sample.joints_cam_m is not None:
        changes["joints_cam_m"] = (sample.joints_cam_m @ rotation.T).astype(np.float32)
    return turned.with_(**changes, box_px=_box_around(turned))


def move_camera(sample: PoseSample, factor: float) -> PoseSample:
    """As seen from `factor` times the distance along the ray to the root, for exact keypoints with 3D labels.

    Keypoints that mark no labelled joint (of the face) are taken to be as far away as the labelled joint next to them
    in the image: 10 cm wrong there move a keypoint by less than a centimetre. Extrinsics follow.
    """
    camera, joints_m, keypoints_px = sample.camera, sample.joints_cam_m, sample.keypoints_px
    if camera is None or joints_m is None or sample.joints_px is None or keypoints_px is None or not sample.skeleton:
        return sample
    root_m = joints_m[get_skeleton(sample.skeleton).root_index].astype(np.float64)
    labelled = np.isfinite(joints_m).all(-1) & np.isfinite(sample.joints_px).all(-1)
    if not np.isfinite(root_m).all() or not labelled.any():
        return sample
    shift_m = (factor - 1.0) * root_m
    distance = np.linalg.norm(keypoints_px[:, None] - sample.joints_px[labelled], axis=-1)
    z_m = joints_m[labelled, 2][np.nan_to_num(distance, nan=0.0).argmin(1)].astype(np.float64)
    rays = pixel_to_ray(keypoints_px, camera)
    points_m = np.concatenate([rays * z_m[:, None], z_m[:, None]], axis=-1) + shift_m
    joints_m = joints_m + shift_m.astype(np.float32)
    if not (points_m[:, 2] > NEAREST_RAY_Z).all() or not (joints_m[labelled, 2] > NEAREST_RAY_Z).all():
        return sample
    moved = sample.with_(
        keypoints_px=camera_to_pixel(points_m, camera).astype(np.float32),
        joints_cam_m=joints_m,
        joints_px=camera_to_pixel(joints_m, camera).astype(np.float32),
        camera=dataclasses.replace(camera, t_m=camera.t_m + shift_m),
    )
    return moved.with_(box_px=_box_around(moved))


def _box_around(sample: PoseSample) -> np.ndarray | None:
    """float32 [4] around the keypoints, not clipped: there is no picture whose edge would mean anything."""
    if sample.box_px is None or sample.keypoints_px is None:
        return sample.box_px
    points = sample.keypoints_px[np.isfinite(sample.keypoints_px[:, 0])]
    return np.concatenate([points.min(0), points.max(0)]).astype(np.float32) if len(points) else sample.box_px


def _frames(sample: PoseSample) -> np.ndarray:
    """float32 [T Jin 3]: the window, or the sample's own frame alone."""
    if sample.keypoint_window is not None:
        return sample.keypoint_window
    assert sample.keypoints_px is not None and sample.keypoint_score is not None
    return np.concatenate([sample.keypoints_px, sample.keypoint_score[:, None]], axis=1)[None]


def _with_frames(sample: PoseSample, frames: np.ndarray) -> PoseSample:
    own = frames[len(frames) // 2]
    changes: dict = {"keypoints_px": own[:, :2], "keypoint_score": own[:, 2]}
    if sample.keypoint_window is not None:
        changes["keypoint_window"] = frames
    return sample.with_(**changes)


def _move_points(sample: PoseSample, moved) -> PoseSample:  # type: ignore[no-untyped-def]
    changes = {}
    if sample.keypoints_px is not None:
        changes["keypoints_px"] = moved(sample.keypoints_px)
    if sample.joints_px is not None:
        changes["joints_px"] = moved(sample.joints_px)
    if sample.keypoint_window is not None:
        window = sample.keypoint_window
        changes["keypoint_window"] = np.concatenate([moved(window[..., :2]), window[..., 2:]], axis=-1)
    return sample.with_(**changes)
