"""The figures of each subject and camera, for the table that people read: what the findings rest on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from humanpose3d.checks.bones import limb_lengths
from humanpose3d.checks.case import typical
from humanpose3d.checks.columns import Columns, median
from humanpose3d.checks.depths import depth_ratio
from humanpose3d.checks.evidence import Evidence, Witness
from humanpose3d.checks.fields import FIELDS
from humanpose3d.checks.people import behind_share, off_image_share, zeroed_share
from humanpose3d.checks.projection import both_labels


@dataclass(frozen=True)
class GroupFigures:
    """One subject through one camera. None where there is nothing to measure."""

    corpus: str
    subject: str
    camera_id: str
    samples: int  # looked at, matched and not
    unmatched: float  # share left out because no detection fits the label
    reprojection_px: float | None  # median distance of projected 3D labels from the 2D labels
    keypoint_px: float | None  # median distance of keypoints from the 2D labels, over joints both have
    keypoint_share: float | None  # the same against the person's size
    bone_error: float | None  # median |limb bone / the person's median - 1|
    depth_ratio: float | None  # median depth at the joints / labelled depth
    behind_camera: float  # share of labelled joints
    off_image: float  # share of labelled joints
    zeroed: float  # share of keypoints
    without_3d: float  # shares of samples that miss a field
    without_2d: float
    without_keypoints: float
    without_depth: float
    without_camera: float


def group_figures(evidence: Evidence) -> list[GroupFigures]:
    """One for each corpus, subject and camera there is, sorted."""
    figures = []
    for corpus in sorted({witness.corpus for witness in evidence}):
        columns = Columns(corpus, [witness for witness in evidence if witness.corpus == corpus])
        each = _Each.of(columns)
        figures += [_group(columns, each, cell, rows) for cell, rows in columns.rows_of_cell.items()]
    return figures


@dataclass(frozen=True, eq=False)
class _Each:
    """Figures of single samples, float64 [N]."""

    reprojection_px: np.ndarray
    keypoint_px: np.ndarray
    keypoint_share: np.ndarray
    bone_error: np.ndarray
    depth_ratio: np.ndarray
    behind: np.ndarray
    off_image: np.ndarray
    zeroed: np.ndarray

    @staticmethod
    def of(columns: Columns) -> _Each:
        both = both_labels(columns)
        focal_px = np.array([w.camera.focal_px if w.camera is not None else np.nan for w in columns.witnesses])
        keypoint_px = median(np.linalg.norm(columns.keys_px - columns.limbs_px, axis=-1), axis=1)
        return _Each(
            reprojection_px=both.miss() * both.size * focal_px,
            keypoint_px=keypoint_px,
            keypoint_share=keypoint_px / _size_px(columns),
            bone_error=_bone_errors(columns),
            depth_ratio=depth_ratio(columns),
            behind=behind_share(columns),
            off_image=off_image_share(columns),
            zeroed=zeroed_share(columns),
        )


def _size_px(columns: Columns) -> np.ndarray:
    """float64 [N]: the person's longer extent in pixels, by the keypoints."""
    known = np.isfinite(columns.keys_px).all(-1, keepdims=True)
    low, high = (np.where(known, columns.keys_px, edge) for edge in (np.inf, -np.inf))
    with np.errstate(all="ignore"):
        side = (high.max(1) - low.min(1)).max(-1)
    return np.where(np.isfinite(side) & (side > 0), side, np.nan)


def _bone_errors(columns: Columns) -> np.ndarray:
    """float64 [N]: median over limb bones of their relative distance from the same person's median length."""
    lengths, errors = limb_lengths(columns), np.full(len(columns), np.nan)
    for rows in columns.rows_of_person.values():
        if len(rows) > 1:
            with np.errstate(all="ignore"):
                errors[rows] = median(np.abs(lengths[rows] / median(lengths[rows], axis=0) - 1.0), axis=1)
    return errors


def _group(columns: Columns, each: _Each, cell: tuple[str, str], rows: np.ndarray) -> GroupFigures:
    own: list[Witness] = [columns.witnesses[row] for row in rows]
    lacks = {name: float(np.mean([not has(witness) for witness in own])) for name, has in FIELDS.items()}
    return GroupFigures(
        corpus=columns.corpus,
        subject=cell[0],
        camera_id=cell[1],
        samples=len(rows),
        unmatched=float(np.mean([not witness.matched for witness in own])),
        reprojection_px=_middle(each.reprojection_px, rows),
        keypoint_px=_middle(each.keypoint_px, rows),
        keypoint_share=_middle(each.keypoint_share, rows),
        bone_error=_middle(each.bone_error, rows),
        depth_ratio=_middle(each.depth_ratio, rows),
        behind_camera=_mean(each.behind, rows),
        off_image=_mean(each.off_image, rows),
        zeroed=_mean(each.zeroed, rows),
        without_3d=lacks["3D labels"],
        without_2d=lacks["2D labels"],
        without_keypoints=lacks["keypoints"],
        without_depth=lacks["a depth map"],
        without_camera=lacks["a camera"],
    )


def _middle(values: np.ndarray, rows: np.ndarray) -> float | None:
    middle = typical(values, rows)
    return middle if np.isfinite(middle) else None


def _mean(values: np.ndarray, rows: np.ndarray) -> float:
    known = values[rows][np.isfinite(values[rows])]
    return float(known.mean()) if len(known) else 0.0
