"""People as rays of their keypoints, and random changes of the camera that sees them: for whole batches at a time.

In rays a change of focal length or principal point is none, a turn of the camera about its centre is exact for 2D,
depth and 3D alike, and a depth map has been read where the keypoints are. One sample at a time all this would cost as
much as a lifter's training step. Pictures and their warps are `augmentation.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from humanpose3d.config import AugmentationConfig
from humanpose3d.dataset.keypoint_hiding import hidden_keypoints
from humanpose3d.dataset.keypoint_noise import NoiseDraws, add_noise
from humanpose3d.skeletons import Skeleton

NEAREST_Z = 0.1  # of a ray of length 1 at z: what a turn brings closer to the camera's side is lost
SKIN_M = 0.07  # what a depth map sees lies about so much before a joint
BEHIND = 1.4  # standard deviations of a joint's error, above which its patch lies on what is behind: 8 in 100
HIDES_M = 0.06  # across the picture: as near as that a nearer joint hides another from a depth map


@dataclass(frozen=True, eq=False)
class People:
    """B samples. Camera frame; NaN where missing."""

    rays: np.ndarray  # float32 [B T Jin 2]: x/z, y/z, lens distortion removed; the sample's own frame in the middle
    score: np.ndarray  # float32 [B T Jin]
    frame_s: np.ndarray  # float32 [B], seconds between frames
    depth_m: np.ndarray  # float32 [B Jin 2]: z around the keypoint in the own frame, and its spread
    joints_m: np.ndarray  # float32 [B J 3]
    projected: np.ndarray  # bool [B]: the keypoints are the labels' own, seen by a virtual camera; no network's


class Draws(NamedTuple):
    """The random values behind the changes of B samples."""

    uniform: np.ndarray  # float32 [B CHANGES], 0..1
    drop: np.ndarray  # float32 [B Jin], 0..1
    depth: np.ndarray  # float32 [B 2+2Jin], normal
    noise: NoiseDraws


CHANGES = 9  # flip, roll, pitch, yaw, distance, strength of the noise, depth dropped, depth imagined, hidden told


def draw(rng: np.random.Generator, frames: int, joints: int) -> tuple[np.ndarray, np.ndarray]:
    """One sample's random values: (uniform, normal), always as many."""
    return (
        rng.random(CHANGES + 3 + 3 * joints, dtype=np.float32),
        rng.standard_normal(normal_draws(frames, joints), dtype=np.float32),
    )


def normal_draws(frames: int, joints: int) -> int:
    return 2 + 2 * joints + 2 * frames * joints * 2


def sort_draws(uniform: np.ndarray, normal: np.ndarray, frames: int, joints: int) -> Draws:
    """Of B samples, in rows as `draw` gave them."""
    changes, swap, drop, chance, level = np.split(uniform, np.cumsum([CHANGES, 3, joints, joints]), axis=1)
    depth, error, spread = np.split(normal, [2 + joints, normal.shape[1] - joints], axis=1)
    own, news = error.reshape(len(error), 2, frames, joints, 2).swapaxes(0, 1)
    return Draws(changes, drop, np.concatenate([depth, spread], axis=1), NoiseDraws(chance, level, swap, own, news))


def augment(
    people: People, draws: Draws, config: AugmentationConfig, skeleton: Skeleton, keypoints: Skeleton
) -> People:
    """People after random changes: the camera rolled, turned, moved; mirrored; the errors of networks; cues lost."""
    flip, roll, pitch, yaw, distance, strength, drop_depth, imagine, told = draws.uniform.T
    turn_rad = np.radians(config.camera_turn_deg)
    people = move_camera(people, _uniform(distance, *config.camera_distance), skeleton)
    people = imagine_depth(people, draws.depth, imagine < config.imagined_depth)
    people = turn_camera(
        people,
        _rotations(
            _uniform(pitch, -turn_rad, turn_rad),
            _uniform(yaw, -turn_rad, turn_rad),
            np.radians(_uniform(roll, -config.rotation_deg, config.rotation_deg)),
        ),
    )
    people = mirror(people, flip < config.flip, skeleton, keypoints)
    hidden = hidden_by_themselves(people, told < config.hidden_scores, skeleton, keypoints)
    people = with_noise(people, draws.noise, _uniform(strength, *config.keypoint_noise), keypoints, hidden)
    return drop_cues(people, drop_depth < config.drop_depth, draws.drop < config.drop_keypoint)


def with_noise(
    people: People, draws: NoiseDraws, strength: np.ndarray, keypoints: Skeleton, hidden: np.ndarray | None = None
) -> People:
    """A detector's errors where the keypoints are exact; those that a network found have their own."""
    strength = np.where(people.projected, strength, 0.0)
    rays, score = add_noise(
        people.rays, people.score, keypoints.name, draws, strength=strength, frame_s=people.frame_s, hidden=hidden
    )
    return replace(people, rays=rays, score=score)


def hidden_by_themselves(people: People, chosen: np.ndarray, skeleton: Skeleton, keypoints: Skeleton) -> np.ndarray:
    """bool [B Jin]: keypoints of the own frame that the body hides, of those `chosen` [B]."""
    own = people.rays[:, people.rays.shape[1] // 2]
    return chosen[:, None] & hidden_keypoints(own, nearest_z(people), people.joints_m, skeleton, keypoints)


def turn_camera(people: People, rotation: np.ndarray) -> People:
    """As seen by cameras turned about their centres: [B 3 3], old camera coordinates to new ones. Exact."""
    rotation = rotation.astype(np.float32)
    x, y = np.moveaxis(people.rays, -1, 0)
    r = rotation[:, :, :, None, None]
    turned_x, turned_y, z = (r[:, i, 0] * x + r[:, i, 1] * y + r[:, i, 2] for i in range(3))
    z = np.where(z > NEAREST_Z, z, np.float32(np.nan))
    own_z = z[:, z.shape[1] // 2, :, None]
    joints_x, joints_y, joints_z = np.moveaxis(people.joints_m, -1, 0)
    r = rotation[:, :, :, None]
    joints = [r[:, i, 0] * joints_x + r[:, i, 1] * joints_y + r[:, i, 2] * joints_z for i in range(3)]
    return replace(
        people,
        rays=np.stack([turned_x / z, turned_y / z], axis=-1),
        depth_m=people.depth_m * own_z,
        joints_m=np.stack(joints, axis=-1),
    )


def move_camera(people: People, factor: np.ndarray, skeleton: Skeleton) -> People:
    """As seen from `factor` [B] times the distance, along the ray to the root; single frames of exact keypoints only.

    A keypoint that marks no labelled joint (of the face) is taken to be as far away as the labelled one that is next to
    it in the picture: 10 cm wrong there move it by less than a centimetre.
    """
    if people.rays.shape[1] > 1:
        return people
    z_m = nearest_z(people)
    root_m = people.joints_m[:, skeleton.root_index]
    shift_m = (factor.astype(np.float32) - 1.0)[:, None] * root_m
    moved_z = z_m + shift_m[:, None, 2]
    rays = (people.rays[:, 0] * z_m[..., None] + shift_m[:, None, :2]) / moved_z[..., None]
    joints_m = people.joints_m + shift_m[:, None]
    possible = people.projected & np.isfinite(root_m).all(-1)
    possible &= np.nan_to_num(np.minimum(joints_m[..., 2].min(-1), moved_z.min(-1)), nan=1.0) > NEAREST_Z
    return replace(
        people,
        rays=np.where(possible[:, None, None, None], rays[:, None], people.rays),
        depth_m=np.where(possible[:, None, None], people.depth_m + shift_m[:, None, 2:] * [1.0, 0.0], people.depth_m),
        joints_m=np.where(possible[:, None, None], joints_m, people.joints_m),
    )


def nearest_z(people: People) -> np.ndarray:
    """float32 [B Jin]: z of the labelled joint that the own frame's keypoint is next to in the picture."""
    own = people.rays[:, people.rays.shape[1] // 2]
    z_m = people.joints_m[..., 2]
    x, y = people.joints_m[..., 0] / z_m, people.joints_m[..., 1] / z_m
    # One coordinate at a time: NumPy takes long to sum over an axis of two.
    distance = np.square(own[..., None, 0] - x[:, None]) + np.square(own[..., None, 1] - y[:, None])  # [B Jin J]
    nearest = np.where(np.isfinite(distance), distance, np.inf).argmin(-1)
    return np.take_along_axis(z_m, nearest, axis=1)


def imagine_depth(people: People, normal: np.ndarray, chosen: np.ndarray) -> People:
    """What a depth network might say around exact keypoints that have no depth map, where `chosen` [B].

    The nearest of the joints about the keypoint, SKIN_M before it, with errors: of the whole map's scale (10 %; users
    report up to half of DepthPro's), of each joint (5 cm, in one map 2 and in another 15), and one joint in twelve has
    what is behind the person. The spread in a patch is drawn for itself, from 5 mm to a metre: were it tied
    to an error, the network would read that off it, and believe no real map, whose spread follows the edges it crosses.
    """
    if not chosen.any():
        return people
    z_m = nearest_z(people)
    own = people.rays[:, people.rays.shape[1] // 2]
    x, y = own[..., 0], own[..., 1]
    across = np.maximum(np.abs(x[:, :, None] - x[:, None]), np.abs(y[:, :, None] - y[:, None]))
    distance = across * z_m[:, None]  # metres across the picture, about
    visible_m = np.where(distance < HIDES_M, z_m[:, None], np.float32(np.inf)).min(-1)
    joints = own.shape[1]
    scale, level_m = np.exp(0.10 * normal[:, :1]), 0.05 * np.exp(0.7 * normal[:, 1:2])
    error, spread = normal[:, 2 : 2 + joints], normal[:, 2 + joints :]
    behind_m = np.where(error > BEHIND, 0.3 + 3.0 * (error - BEHIND), 0.0)
    depth_m = scale * (visible_m - SKIN_M + behind_m + level_m * np.minimum(error, BEHIND))
    spread_m = np.where(error > BEHIND, 0.3, 0.04) * np.exp(1.2 * spread)
    imagined = np.stack([depth_m, spread_m], axis=-1).astype(np.float32)
    takes = chosen & people.projected & ~np.isfinite(people.depth_m).any((1, 2))
    usable = takes[:, None, None] & np.isfinite(imagined) & (imagined > 0)
    return replace(people, depth_m=np.where(usable, imagined, people.depth_m))


def mirror(people: People, chosen: np.ndarray, skeleton: Skeleton, keypoints: Skeleton) -> People:
    """Left and right exchanged where `chosen` [B]: positions, and the joints' names with them."""
    change = np.array([-1.0, 1.0], dtype=np.float32)
    there, here = keypoints.flip_permutation, skeleton.flip_permutation
    four, three = chosen[:, None, None, None], chosen[:, None, None]
    return replace(
        people,
        rays=np.where(four, people.rays[:, :, there] * change, people.rays),
        score=np.where(three, people.score[:, :, there], people.score),
        depth_m=np.where(three, people.depth_m[:, there], people.depth_m),
        joints_m=np.where(
            three, people.joints_m[:, here] * np.array([-1.0, 1.0, 1.0], dtype=np.float32), people.joints_m
        ),
    )


def drop_cues(people: People, depth: np.ndarray, joints: np.ndarray) -> People:
    """Depth [B] or single keypoints [B Jin] taken away, as a network that found nothing would leave them."""
    nothing = np.float32(np.nan)
    return replace(
        people,
        rays=np.where(joints[:, None, :, None], nothing, people.rays),
        depth_m=np.where((depth[:, None] | joints)[..., None], nothing, people.depth_m),
    )


def _uniform(share: np.ndarray, low: float, high: float) -> np.ndarray:
    return low + (high - low) * share


def _rotations(pitch: np.ndarray, yaw: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """[B 3 3] of radians [B]: first about y, then about x, then about z, the optical axis."""
    zero, one = np.zeros_like(pitch), np.ones_like(pitch)

    def matrix(*rows: tuple[np.ndarray, ...]) -> np.ndarray:
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    (cx, cy, cz), (sx, sy, sz) = (list(map(f, (pitch, yaw, roll))) for f in (np.cos, np.sin))
    about_x = matrix((one, zero, zero), (zero, cx, -sx), (zero, sx, cx))
    about_y = matrix((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    about_z = matrix((cz, -sz, zero), (sz, cz, zero), (zero, zero, one))
    return about_z @ about_x @ about_y
