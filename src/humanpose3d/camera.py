"""A pinhole camera with lens distortion, and the ways between world, camera and pixel.

Owns every change of frame. Moving a whole record through an image warp is `warp.py`'s.
Camera frame: x right, y down, z forward, metres. Pixel (0, 0) is the centre of the top left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNDISTORT_STEPS = 12  # Newton steps; real lenses settle to 1e-12 in 4


@dataclass(frozen=True, eq=False)
class Camera:
    """Intrinsics, distortion and pose of one camera, for one image's pixels.

    X_cam = R @ X_world + t_m;  pixel = K[:2, :2] @ distort(X_cam[:2] / X_cam[2]) + K[:2, 2].
    """

    K: (
        np.ndarray
    )  # float64 [3 3]; its 2x2 block may be any invertible matrix: a turned image of a lens with fx != fy has skew
    R: np.ndarray  # float64 [3 3], world -> camera
    t_m: np.ndarray  # float64 [3], metres
    distortion: np.ndarray  # float64 [5]: k1 k2 p1 p2 k3, OpenCV's order

    @staticmethod
    def create(
        focal_px: float | tuple[float, float] | np.ndarray,
        center_px: tuple[float, float] | np.ndarray,
        R: np.ndarray | None = None,
        t_m: np.ndarray | None = None,
        distortion: np.ndarray | None = None,
    ) -> Camera:
        """A camera from focal length(s) and principal point in pixels. The pose defaults to the world's origin."""
        fx, fy = np.broadcast_to(np.asarray(focal_px, dtype=np.float64), 2)
        K = np.array([[fx, 0.0, center_px[0]], [0.0, fy, center_px[1]], [0.0, 0.0, 1.0]])
        return Camera(
            K=K,
            R=np.eye(3) if R is None else np.asarray(R, dtype=np.float64),
            t_m=np.zeros(3) if t_m is None else np.asarray(t_m, dtype=np.float64),
            distortion=np.zeros(5) if distortion is None else np.asarray(distortion, dtype=np.float64),
        )

    @staticmethod
    def from_fov(size_wh: tuple[int, int], fov_deg: float) -> Camera:
        """A camera looking through the middle of an image whose longer side spans `fov_deg` degrees."""
        focal_px = max(size_wh) / 2.0 / np.tan(np.radians(fov_deg) / 2.0)
        return Camera.create(focal_px, ((size_wh[0] - 1) / 2.0, (size_wh[1] - 1) / 2.0))

    @property
    def focal_px(self) -> float:
        """One focal length for both axes: the geometric mean, unchanged by turning the image."""
        return float(np.sqrt(abs(np.linalg.det(self.K[:2, :2]))))

    def to_dict(self) -> dict:
        """Plain lists, for JSON; `from_dict` gives the camera back bit for bit."""
        return {
            "K": self.K.tolist(),
            "R": self.R.tolist(),
            "t_m": self.t_m.tolist(),
            "distortion": self.distortion.tolist(),
        }

    @staticmethod
    def from_dict(data: dict) -> Camera:
        camera = Camera(**{name: np.asarray(data[name], dtype=np.float64) for name in ("K", "R", "t_m", "distortion")})
        shapes = (camera.K.shape, camera.R.shape, camera.t_m.shape, camera.distortion.shape)
        if shapes != ((3, 3), (3, 3), (3,), (5,)):
            raise ValueError(f"a camera needs K [3 3], R [3 3], t_m [3], distortion [5]; got shapes {shapes}")
        return camera


def world_to_camera(points_world_m: np.ndarray, camera: Camera) -> np.ndarray:
    """[..., 3] metres, world frame -> [..., 3] metres, camera frame."""
    return points_world_m @ camera.R.T + camera.t_m


def camera_to_world(points_cam_m: np.ndarray, camera: Camera) -> np.ndarray:
    """[..., 3] metres, camera frame -> [..., 3] metres, world frame."""
    return (points_cam_m - camera.t_m) @ camera.R


def camera_to_pixel(points_cam_m: np.ndarray, camera: Camera) -> np.ndarray:
    """[..., 3] metres, camera frame -> float64 [..., 2] pixels. Points at or behind the lens give NaN."""
    points_cam_m = np.asarray(points_cam_m, dtype=np.float64)
    z = np.where(points_cam_m[..., 2:] > 0, points_cam_m[..., 2:], np.nan)
    return distort(points_cam_m[..., :2] / z, camera.distortion) @ camera.K[:2, :2].T + camera.K[:2, 2]


def pixel_to_camera(points_px: np.ndarray, z_m: np.ndarray, camera: Camera) -> np.ndarray:
    """[..., 2] pixels at depth [...] metres (camera z) -> float64 [..., 3] metres, camera frame."""
    z_m = np.asarray(z_m, dtype=np.float64)[..., None]
    rays = pixel_to_ray(points_px, camera)
    return np.concatenate([rays * z_m, np.broadcast_to(z_m, (*rays.shape[:-1], 1))], axis=-1)


def pixel_to_ray(points_px: np.ndarray, camera: Camera) -> np.ndarray:
    """[..., 2] pixels -> float64 [..., 2]: x/z and y/z of the ray through each, distortion removed."""
    centred = np.asarray(points_px, dtype=np.float64) - camera.K[:2, 2]
    return undistort(centred @ np.linalg.inv(camera.K[:2, :2]).T, camera.distortion)


def distort(rays: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """[..., 2] ideal rays (x/z, y/z) -> where the lens puts them. Brown's model, OpenCV's coefficients."""
    if not np.any(distortion):
        return rays
    k1, k2, p1, p2, k3 = distortion
    r2 = (rays**2).sum(-1, keepdims=True)
    # The tangential part in vector form, 2 (q.x) x + r2 q: it turns and mirrors with the image as q does.
    q = np.array([p2, p1])
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return rays * (radial + 2.0 * (rays @ q)[..., None]) + r2 * q


def undistort(points: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """The inverse of `distort`, by Newton's method with a finite-difference Jacobian. [..., 2] -> [..., 2]."""
    if not np.any(distortion):
        return points
    rays, step = points.copy(), 1e-7
    for _ in range(UNDISTORT_STEPS):
        error = distort(rays, distortion) - points
        columns = [
            (distort(rays + offset, distortion) - distort(rays - offset, distortion)) / (2 * step)
            for offset in step * np.eye(2)
        ]
        (a, c), (b, d) = (np.moveaxis(column, -1, 0) for column in columns)
        determinant = a * d - b * c
        rays = (
            rays
            - np.stack([(d * error[..., 0] - b * error[..., 1]), (a * error[..., 1] - c * error[..., 0])], axis=-1)
            / np.where(np.abs(determinant) < 1e-12, np.nan, determinant)[..., None]
        )
    return rays


def warp_camera(camera: Camera, warp: np.ndarray, turn: np.ndarray | None = None) -> Camera:
    """The camera of a warped image.

    warp: [2 3] affine, old pixel -> new pixel. turn: orthogonal [2 2] applied to camera x and y of everything seen
    (`turn_points`): a rotation about the optical axis, or a mirror. Exact: the turned points, seen by the new camera,
    land on the warped pixels, distortion included. A mirror mirrors the world's first axis too, so R stays a rotation.
    """
    K = np.array(camera.K)
    linear = warp[:, :2]
    K[:2, 2] = linear @ camera.K[:2, 2] + warp[:, 2]
    if turn is None:
        K[:2, :2] = linear @ camera.K[:2, :2]
        return Camera(K, camera.R, camera.t_m, camera.distortion)
    K[:2, :2] = linear @ camera.K[:2, :2] @ turn.T
    distortion = np.array(camera.distortion)
    distortion[3], distortion[2] = turn @ (distortion[3], distortion[2])
    R, t_m = np.array(camera.R), np.array(camera.t_m)
    R[:2], t_m[:2] = turn @ R[:2], turn @ t_m[:2]
    if is_mirror(turn):
        R[:, 0] *= -1.0
    return Camera(K, R, t_m, distortion)


def is_mirror(turn: np.ndarray) -> bool:
    """An orthogonal [2 2] that turns left into right."""
    (a, b), (c, d) = turn.tolist()
    return a * d - b * c < 0.0


def turn_points(points_cam_m: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """[..., 3] camera-frame points with x and y turned by an orthogonal [2 2]; z, the depth, stays."""
    return np.concatenate([points_cam_m[..., :2] @ turn.T.astype(points_cam_m.dtype), points_cam_m[..., 2:]], axis=-1)
