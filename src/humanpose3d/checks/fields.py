"""Fields that some groups of a corpus lack and others have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from humanpose3d.checks.case import Case
from humanpose3d.checks.evidence import Witness
from humanpose3d.checks.finding import ERROR, NOTE
from humanpose3d.checks.limits import CUES_MISSING, LABELS_MISSING
from humanpose3d.checks.regions import steps
from humanpose3d.checks.shares import cell_shares


def has_points(points: np.ndarray | None) -> bool:
    return points is not None and bool(np.isfinite(points).any())


FIELDS: dict[str, Callable[[Witness], bool]] = {
    "3D labels": lambda witness: has_points(witness.joints_cam_m),
    "2D labels": lambda witness: has_points(witness.joints_px),
    "keypoints": lambda witness: has_points(witness.keypoints_px),
    "a depth map": lambda witness: witness.has_depth or not witness.matched,  # the unmatched come without theirs
    "a camera": lambda witness: witness.camera is not None,
}


def check_fields(case: Case) -> None:
    """Labels that a group lacks are an error where the others have them; cues and cameras may be had for some only."""
    for name, has in FIELDS.items():
        lacks = np.array([not has(witness) for witness in case.columns.witnesses], dtype=np.float64)
        means, errors = cell_shares(case, lacks)
        of_labels = name.endswith("labels")
        floor = LABELS_MISSING if of_labels else CUES_MISSING
        for step in steps(means, errors, floor=floor, own_spread=floor / 10):
            rows = case.rows(step.region, lacks > 0)
            case.blame(
                "missing_fields",
                step.region,
                f"{step.value[0]:.0%} of the samples have not {name}, {step.others[0]:.0%} in the other groups",
                rows,
                measured=float(step.value[0]),
                expected=float(step.others[0]),
                unit="share",
                severity=ERROR if of_labels else NOTE,
                explains=False,
            )
