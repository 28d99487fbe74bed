"""SMPL's root orientation against the joints: a pose left in the world's frame turns the body away from its picture."""

from __future__ import annotations

import numpy as np

from humanpose3d.checks.case import Case
from humanpose3d.checks.columns import LIMBS, Columns
from humanpose3d.checks.limits import BODY_TURNED_DEG, BODY_UPSIDE_DOWN
from humanpose3d.checks.regions import accused
from humanpose3d.rotations import axis_angle_to_matrix


def check_body_frame(case: Case) -> None:
    """Groups whose bodies are turned away from the labelled joints; without joints, whose bodies stand head down."""
    votes = _votes(case.columns)
    for region in accused(case.votes(votes)):
        rows = case.rows(region, votes > 0)
        share = len(rows) / max(int((votes[case.rows(region)] != 0).sum()), 1)
        case.blame(
            "body_frame",
            region,
            f"SMPL's root orientation of {share:.0%} of the people is not that of the camera's frame: the pose is "
            "likely in the world's; multiply the root's rotation by the camera's (cam_poses of 3DPW)",
            rows,
            measured=share,
            expected=0.0,
            unit="share",
            explains=False,
        )


def _votes(columns: Columns) -> np.ndarray:
    """float64 [N]: 1 where the body is turned away, -1 where it is not, 0 where that cannot be told."""
    votes = np.zeros(len(columns))
    at = {point: columns.limbs_m[:, place] for place, point in enumerate(LIMBS)}
    left_m = at["left_hip"] - at["right_hip"]
    up_m = at["left_shoulder"] + at["right_shoulder"] - at["left_hip"] - at["right_hip"]
    for row, witness in enumerate(columns.witnesses):
        if witness.smpl_root_rad is None or not np.isfinite(witness.smpl_root_rad).all():
            continue
        root = axis_angle_to_matrix(witness.smpl_root_rad)  # columns: the body's left, up, forward
        if np.isfinite(left_m[row]).all() and np.isfinite(up_m[row]).all():
            turned = max(_degrees(root[:, 0], left_m[row]), _degrees(root[:, 1], up_m[row]))
            votes[row] = 1.0 if turned > BODY_TURNED_DEG else -1.0
        elif abs(root[1, 1]) > BODY_UPSIDE_DOWN:
            votes[row] = np.sign(root[1, 1])  # the camera's y points down
    return votes


def _degrees(first: np.ndarray, second: np.ndarray) -> float:
    cosine = first @ second / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-12)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
