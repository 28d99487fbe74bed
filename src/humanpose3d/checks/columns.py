"""The evidence of one corpus as arrays: limbs of labels and keypoints side by side, whatever skeletons they came in.

Comparisons are made on *rays*, x / z and y / z of what a pixel sees, free of lens and crop: the same in a whole image
and in any crop of it. Where a sample has no camera its pixels stand for rays; distances are then meaningful against
`size` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from humanpose3d.camera import Camera, undistort
from humanpose3d.checks.evidence import Witness
from humanpose3d.checks.limits import KEYPOINT_SCORE, LEAST_JOINTS, MISS_AT_MOST
from humanpose3d.skeletons import SKELETONS, Skeleton

SIDED = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
LIMBS = tuple(f"{side}_{joint}" for joint in SIDED for side in ("left", "right"))  # points that all body sets share
MIRRORED = np.array([1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10])  # LIMBS with left and right exchanged
Cell = tuple[str, str]  # subject, camera


@dataclass(eq=False)
class Columns:
    """Row n is witness n. Missing values are NaN."""

    corpus: str
    witnesses: list[Witness]

    def __len__(self) -> int:
        return len(self.witnesses)

    @cached_property
    def cells(self) -> list[Cell]:
        """Of each row."""
        return [(witness.subject, witness.camera_id) for witness in self.witnesses]

    @cached_property
    def rows_of_cell(self) -> dict[Cell, np.ndarray]:
        """int64 rows of each subject and camera, in the order of their names."""
        return _rows_by(self.cells)

    @cached_property
    def rows_of_person(self) -> dict[tuple[str, str], np.ndarray]:
        """int64 rows of each (subject, person of the picture): of one body, where the corpus names people."""
        return _rows_by([(witness.subject, witness.person) for witness in self.witnesses])

    @cached_property
    def rows_of_moment(self) -> dict[tuple[str, str, int, str], np.ndarray]:
        """int64 rows of each (subject, action, frame, person): one pose, seen through one camera or several."""
        return _rows_by([(w.subject, w.action, w.frame_index, w.person) for w in self.witnesses])

    @cached_property
    def rows_of_take(self) -> dict[tuple[str, str, str, str], np.ndarray]:
        """int64 rows of each (subject, action, camera, person), by frame."""
        takes = _rows_by([(w.subject, w.action, w.camera_id, w.person) for w in self.witnesses])
        return {take: rows[np.argsort(self.frames[rows], kind="stable")] for take, rows in takes.items()}

    @cached_property
    def frames(self) -> np.ndarray:
        """int64 [N]."""
        return np.array([witness.frame_index for witness in self.witnesses], dtype=np.int64)

    @cached_property
    def skeletons(self) -> list[Skeleton | None]:
        """Of the labels, as declared."""
        return [SKELETONS.get(witness.skeleton or "") for witness in self.witnesses]

    # ------------------------------------------------------------------------------------------------- cameras

    @cached_property
    def has_camera(self) -> np.ndarray:
        """bool [N]."""
        return np.array([_is_sound(witness.camera) for witness in self.witnesses], dtype=bool)

    @cached_property
    def R(self) -> np.ndarray:
        """float64 [N 3 3], world -> camera; NaN without a camera."""
        return self._of_cameras("R", (3, 3))

    @cached_property
    def t_m(self) -> np.ndarray:
        """float64 [N 3]."""
        return self._of_cameras("t_m", (3,))

    def _of_cameras(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        none = np.full(shape, np.nan)
        return _stack([getattr(w.camera, name) if w.camera is not None else none for w in self.witnesses], shape)

    def to_rays(self, points_px: np.ndarray) -> np.ndarray:
        """[N J 2] pixels -> float64 [N J 2] rays; pixels where there is no camera."""
        rays = points_px.astype(np.float64)
        lenses: dict[bytes, list[int]] = {}
        for row, witness in enumerate(self.witnesses):
            if self.has_camera[row] and witness.camera is not None:
                K = witness.camera.K
                rays[row] = (rays[row] - K[:2, 2]) @ np.linalg.inv(K[:2, :2]).T
                lenses.setdefault(witness.camera.distortion.tobytes(), []).append(row)
        for lens, rows in lenses.items():
            with np.errstate(all="ignore"):
                rays[rows] = undistort(rays[rows], np.frombuffer(lens))
        return rays

    # -------------------------------------------------------------------------------------- labels and keypoints

    @cached_property
    def joints_m(self) -> list[np.ndarray | None]:
        """float64 [J 3] of each row in its own skeleton, NaN where missing."""
        return [_known(w.joints_cam_m, w.joint_score) for w in self.witnesses]

    @cached_property
    def joints_px(self) -> list[np.ndarray | None]:
        """float64 [J 2] of each row in its own skeleton, NaN where missing."""
        return [_known(w.joints_px, w.joint_score) for w in self.witnesses]

    @cached_property
    def keypoints_px(self) -> list[np.ndarray | None]:
        """float64 [Jin 2] of each row; NaN where the score is low, the point was zeroed, or the picture is drawn."""
        return [_trusted(witness) for witness in self.witnesses]

    @cached_property
    def limbs_m(self) -> np.ndarray:
        """float64 [N 12 3], the labels' LIMBS in the camera frame."""
        return pick(self.joints_m, self.skeletons, LIMBS, 3)

    @cached_property
    def limbs_px(self) -> np.ndarray:
        """float64 [N 12 2], the 2D labels' LIMBS."""
        return pick(self.joints_px, self.skeletons, LIMBS, 2)

    @cached_property
    def keys_px(self) -> np.ndarray:
        """float64 [N 12 2], the keypoints' LIMBS."""
        return pick(self.keypoints_px, self.keypoint_skeletons, LIMBS, 2)

    @cached_property
    def keypoint_skeletons(self) -> list[Skeleton | None]:
        """As declared."""
        return [SKELETONS.get(witness.keypoint_skeleton or "") for witness in self.witnesses]

    @cached_property
    def keys(self) -> np.ndarray:
        """float64 [N 12 2], rays of the keypoints."""
        return self.to_rays(self.keys_px)

    @cached_property
    def labels(self) -> np.ndarray:
        """float64 [N 12 2], rays of the 3D labels; of the 2D ones where there are no 3D labels."""
        in_3d = rays_of(self.limbs_m)
        flat = ~np.isfinite(self.limbs_m).any((1, 2)) | ~self.has_camera
        in_3d[flat] = self.to_rays(self.limbs_px)[flat]
        return in_3d

    @cached_property
    def size(self) -> np.ndarray:
        """float64 [N], the person's longer extent in rays: of the keypoints, which faults of labels leave alone, else
        of the labels."""
        return np.where(np.isfinite(_extent(self.keys)), _extent(self.keys), _extent(self.labels))

    def miss(self, labels: np.ndarray | None = None, keys: np.ndarray | None = None) -> np.ndarray:
        """float64 [N]: mean distance of keypoints from labels (rays [N 12 2]), in person sizes, no joint counting more
        than MISS_AT_MOST; NaN where too few joints can be compared."""
        labels, keys = self.labels if labels is None else labels, self.keys if keys is None else keys
        return mean_miss(np.linalg.norm(keys - labels, axis=-1) / self.size[:, None], self.comparable)

    @cached_property
    def reliability(self) -> np.ndarray:
        """float64 [12]: how much each limb's keypoints can be trusted, from their scatter about the labels; about 1."""
        off = (self.keys - self.labels) / self.size[:, None, None]
        scatter = median(np.linalg.norm(off - median(off, axis=0), axis=-1), axis=0)
        with np.errstate(all="ignore"):
            trust = (median(scatter) / scatter) ** 2
        return np.where(np.isfinite(trust), np.clip(trust, 0.1, 10.0), 1.0)

    @cached_property
    def comparable(self) -> np.ndarray:
        """bool [N 12]: limbs that both labels and keypoints have."""
        labelled = np.isfinite(self.limbs_px).all(-1) | np.isfinite(self.limbs_m).all(-1)
        return np.isfinite(self.keys).all(-1) & labelled & (self.size[:, None] > 0)


def make_columns(corpus: str, witnesses: Sequence[Witness]) -> Columns:
    """The rows that count: those of the official evaluation where the corpus has such."""
    valid = [witness for witness in witnesses if witness.valid]
    return Columns(corpus, valid or list(witnesses))


def rays_of(points_m: np.ndarray) -> np.ndarray:
    """[..., 3] camera-frame points -> [..., 2] rays; NaN at and behind the lens."""
    with np.errstate(all="ignore"):
        return points_m[..., :2] / np.where(points_m[..., 2:] > 1e-6, points_m[..., 2:], np.nan)


def to_world(points_m: np.ndarray, R: np.ndarray, t_m: np.ndarray) -> np.ndarray:
    """[N J 3] camera frame -> [N J 3] world, by rotations [N 3 3] and translations [N 3]."""
    return np.einsum("nji,nkj->nki", R, points_m - t_m[:, None])


def mean_miss(distances: np.ndarray, comparable: np.ndarray) -> np.ndarray:
    """[N J] distances in person sizes -> float64 [N]. A comparable joint without a distance (behind the lens) counts
    as far off."""
    capped = np.minimum(np.nan_to_num(distances, nan=MISS_AT_MOST, posinf=MISS_AT_MOST), MISS_AT_MOST)
    count = comparable.sum(1)
    with np.errstate(all="ignore"):
        return np.where(count >= LEAST_JOINTS, (capped * comparable).sum(1) / count, np.nan)


def pick(
    arrays: Sequence[np.ndarray | None], skeletons: Sequence[Skeleton | None], points: Sequence[str], width: int
) -> np.ndarray:
    """float64 [N P width]: the named points of each row's array; NaN where it or its skeleton lacks them."""
    picked = np.full((len(arrays), len(points), width), np.nan)
    for skeleton, rows in rows_by_skeleton(arrays, skeletons):
        there = [
            (place, skeleton.points.index(point)) for place, point in enumerate(points) if point in skeleton.points
        ]
        if there:
            places, columns = zip(*there, strict=True)
            stacked = np.stack([arrays[row] for row in rows])  # type: ignore[misc]
            picked[np.ix_(rows, places)] = stacked[:, list(columns)]
    return picked


def rows_by_skeleton(
    arrays: Sequence[np.ndarray | None], skeletons: Sequence[Skeleton | None]
) -> list[tuple[Skeleton, np.ndarray]]:
    """The rows whose arrays [J ...] fit their skeletons, skeleton by skeleton."""
    found: dict[str, tuple[Skeleton, list[int]]] = {}
    for row, (array, skeleton) in enumerate(zip(arrays, skeletons, strict=True)):
        if array is not None and skeleton is not None and len(array) == len(skeleton):
            found.setdefault(skeleton.name, (skeleton, []))[1].append(row)
    return [(skeleton, np.array(rows, dtype=np.int64)) for skeleton, rows in found.values()]


def median(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """np.nanmedian, several times faster on short axes, and quietly NaN where there is nothing."""
    values = np.asarray(values, dtype=np.float64)
    if axis is None:
        values, axis = values.reshape(-1), 0
    if isinstance(axis, tuple):
        kept = [side for side in range(values.ndim) if side not in axis]
        values = values.transpose(*kept, *axis).reshape(*(values.shape[side] for side in kept), -1)
        axis = -1
    if values.shape[axis] == 0:
        return np.full(np.delete(values.shape, axis), np.nan)
    ordered = np.sort(values, axis=axis)  # NaN last
    count = np.isfinite(values).sum(axis=axis, keepdims=True)
    low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, values.shape[axis] - 1)
    middle = 0.5 * (np.take_along_axis(ordered, low, axis) + np.take_along_axis(ordered, high, axis))
    return np.where(count > 0, middle, np.nan).squeeze(axis)


def _rows_by(names: Sequence[tuple]) -> dict:
    rows: dict[tuple, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return {name: np.array(rows[name], dtype=np.int64) for name in sorted(rows)}


def _stack(arrays: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(arrays).astype(np.float64) if len(arrays) else np.zeros((0, *shape))


def _is_sound(camera: Camera | None) -> bool:
    return camera is not None and np.isfinite(camera.K).all() and abs(np.linalg.det(camera.K[:2, :2])) > 1e-12


def _known(joints: np.ndarray | None, score: np.ndarray | None) -> np.ndarray | None:
    if joints is None:
        return None
    joints = joints.astype(np.float64)
    return joints if score is None else np.where((score > 0)[:, None], joints, np.nan)


def _trusted(witness: Witness) -> np.ndarray | None:
    # A drawn picture has its label for keypoints: they would vouch for any label.
    if witness.keypoints_px is None or witness.synthetic:
        return None
    keypoints = witness.keypoints_px.astype(np.float64)
    if witness.keypoint_score is not None:
        keypoints = np.where((witness.keypoint_score >= KEYPOINT_SCORE)[:, None], keypoints, np.nan)
    keypoints[zeroed(keypoints)] = np.nan
    return keypoints


def zeroed(keypoints_px: np.ndarray) -> np.ndarray:
    """bool [Jin]: points at one and the same spot as another. Zeroed points are (0, 0) in the image, and stay together
    wherever a crop moves that."""
    known = np.isfinite(keypoints_px).all(-1)
    same = np.abs(keypoints_px[:, None] - keypoints_px[None]).max(-1) < 1e-3
    np.fill_diagonal(same, False)
    with np.errstate(all="ignore"):
        return known & same.any(1)


def _extent(rays: np.ndarray) -> np.ndarray:
    """float64 [N]: the longer side of the points' box; NaN without LEAST_JOINTS points."""
    finite = np.isfinite(rays).all(-1)
    low = np.where(finite[..., None], rays, np.inf).min(1)
    high = np.where(finite[..., None], rays, -np.inf).max(1)
    side = (high - low).max(-1)
    return np.where((finite.sum(1) >= LEAST_JOINTS) & (side > 0), side, np.nan)
