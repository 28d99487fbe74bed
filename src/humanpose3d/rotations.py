"""Rotations as axis-angle vectors (the axis times the angle in radians, as SMPL has them) and as matrices."""

from __future__ import annotations

import numpy as np


def axis_angle_to_matrix(axis_angle_rad: np.ndarray) -> np.ndarray:
    """[..., 3] -> float64 [..., 3 3], by Rodrigues' formula; exact to rounding at any angle, 0 included."""
    vector = np.asarray(axis_angle_rad, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*vector.shape, 3)
    # np.sinc(a / pi) is sin(a) / a, and 1 where a is 0.
    sine, versine = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2.0 * np.pi)) ** 2
    return np.eye(3) + sine * cross + versine * (cross @ cross)


def matrix_to_axis_angle(matrix: np.ndarray) -> np.ndarray:
    """Rotations [..., 3 3] -> float64 [..., 3], angles from 0 to pi. At pi exactly, either sign of the axis is right.

    By way of a unit quaternion, because the skew part alone loses the axis near pi and its trace the angle near 0.
    """
    quaternion = _quaternion(np.asarray(matrix, dtype=np.float64))
    quaternion = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)  # the shorter way round
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)  # of half the angle
    angle = 2.0 * np.arctan2(sine, quaternion[..., :1])
    tiny = sine < 1e-12  # there, angle / sine is 2
    return quaternion[..., 1:] * np.where(tiny, 2.0, angle / np.where(tiny, 1.0, sine))


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    """float64 [..., 4] w x y z, of either sign."""
    ((a, b, c), (d, e, f), (g, h, i)) = np.moveaxis(matrix, (-2, -1), (0, 1))
    # Each row is the quaternion times four times one of its own parts; the row of the largest part is the exact one.
    rows = np.stack(
        [
            np.stack([1 + a + e + i, h - f, c - g, d - b], axis=-1),
            np.stack([h - f, 1 + a - e - i, d + b, c + g], axis=-1),
            np.stack([c - g, d + b, 1 - a + e - i, h + f], axis=-1),
            np.stack([d - b, c + g, h + f, 1 - a - e + i], axis=-1),
        ],
        axis=-2,
    )
    largest = np.argmax(np.diagonal(rows, axis1=-2, axis2=-1), axis=-1)[..., None, None]
    row = np.take_along_axis(rows, largest, axis=-2)[..., 0, :]
    return row / np.linalg.norm(row, axis=-1, keepdims=True)
