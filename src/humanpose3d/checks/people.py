"""Whose keypoints they are, and where the labels lie: what is left to say once no specific cause explains a group."""

from __future__ import annotations

import numpy as np

from humanpose3d.checks.case import Case, typical
from humanpose3d.checks.columns import Columns, zeroed
from humanpose3d.checks.finding import ERROR, NOTE
from humanpose3d.checks.limits import (
    BEHIND_SHARE,
    OFF_IMAGE_SHARE,
    RESIDUAL_FLOOR,
    RESIDUAL_SAMPLES,
    RESIDUAL_WRONG,
    SHIFT_SPREAD,
    UNMATCHED_SHARE,
    WRONG_PERSON,
    WRONG_SHARE,
    ZEROED_SHARE,
)
from humanpose3d.checks.moves import best_move
from humanpose3d.checks.regions import steps
from humanpose3d.checks.shares import check_share
from humanpose3d.warp import in_view


def check_zeroed(case: Case) -> None:
    """Keypoints that were set to zero, as some outputs of estimators are where the confidence is low."""
    share = zeroed_share(case.columns)
    check_share(
        case,
        "keypoints_zeroed",
        np.where(np.isfinite(share), share > 0, np.nan),
        ZEROED_SHARE,
        lambda mine, others: (
            f"keypoints of {mine:.0%} of the samples lie on one and the same point: they were set to zero; take raw"
            " coordinates and confidences from the estimator"
        ),
        badness=share,
        everywhere=True,
        explains=False,
    )


def zeroed_share(columns: Columns) -> np.ndarray:
    """float64 [N]: share of a sample's keypoints that were set to zero; NaN without keypoints."""
    share = np.full(len(columns), np.nan)
    for row, witness in enumerate(columns.witnesses):
        if witness.keypoints_px is not None and np.isfinite(witness.keypoints_px).any() and not witness.synthetic:
            share[row] = zeroed(witness.keypoints_px.astype(np.float64)).mean()
    return share


def check_behind(case: Case) -> None:
    """Labels behind the lens."""
    share = behind_share(case.columns)
    check_share(
        case,
        "behind_camera",
        np.where(np.isfinite(share), share > 0, np.nan),
        BEHIND_SHARE,
        lambda mine, others: f"{mine:.0%} of the people have joints behind the camera; check its pose and the unit",
        badness=share,
        everywhere=True,
    )


def behind_share(columns: Columns) -> np.ndarray:
    """float64 [N]: share of a sample's 3D joints that are not before the lens; NaN without 3D labels."""
    share = np.full(len(columns), np.nan)
    for row, joints in enumerate(columns.joints_m):
        # Joints of a sample without a camera are often given from the root on.
        if joints is not None and columns.has_camera[row] and np.isfinite(joints).all(-1).any():
            share[row] = float((joints[np.isfinite(joints).all(-1), 2] <= 0).mean())
    return share


def check_off_image(case: Case) -> None:
    """People whose labels lie off their picture."""
    share = off_image_share(case.columns)
    check_share(
        case,
        "off_image",
        np.where(np.isfinite(share), share > 0.5, np.nan),
        OFF_IMAGE_SHARE,
        lambda mine, others: (
            f"{mine:.0%} of the people have most joints off the image, {others:.0%} in the corpus's other groups; check"
            " the camera"
        ),
        badness=share,
    )


def off_image_share(columns: Columns) -> np.ndarray:
    """float64 [N]: share of a sample's 2D joints off the picture; NaN without 2D labels."""
    share = np.full(len(columns), np.nan)
    for row, (witness, joints) in enumerate(zip(columns.witnesses, columns.joints_px, strict=True)):
        if joints is not None and min(witness.image_size_wh) > 0 and np.isfinite(joints).all(-1).any():
            known = joints[np.isfinite(joints).all(-1)]
            share[row] = float((~in_view(known, witness.image_size_wh)).mean())
    return share


def check_wrong_person(case: Case) -> None:
    """Samples whose keypoints lie on somebody else."""
    miss = case.columns.miss()
    matched = np.array([witness.matched for witness in case.columns.witnesses], dtype=bool)
    check_share(
        case,
        "wrong_person",
        np.where(matched & np.isfinite(miss), miss > WRONG_PERSON, np.nan),
        WRONG_SHARE,
        lambda mine, others: (
            f"keypoints of {mine:.0%} of the samples lie on somebody else, more than {WRONG_PERSON:.0%} of the person's"
            f" size from the label ({others:.0%} in the corpus's other groups): labels and detections are mismatched;"
            " match them anew"
        ),
        badness=miss,
        unless=lambda rows: best_move(case, rows, "principal_point").left < 0.5 * typical(miss, rows),
    )


def check_residual(case: Case) -> None:
    """Groups whose keypoints lie farther from the labels than the others', for no reason that is known."""
    miss = case.columns.miss()
    middles, errors = case.medians(miss)
    for step in steps(middles, errors, floor=RESIDUAL_FLOOR, own_spread=2 * SHIFT_SPREAD):
        rows = case.rows(step.region)
        case.blame(
            "keypoint_residual",
            step.region,
            f"keypoints lie {step.value[0]:.1%} of the person's size from the labels, {step.others[0]:.1%} in the"
            f" corpus's other groups, and no simple cause explains it{case.left_out(rows)}",
            rows,
            badness=miss,
            measured=float(step.value[0]),
            expected=float(step.others[0]),
            unit="person sizes",
            severity=ERROR if step.value[0] > RESIDUAL_WRONG and not _of_one_take(case, rows, miss) else NOTE,
        )


def _of_one_take(case: Case, rows: np.ndarray, miss: np.ndarray) -> bool:
    """All that is bad is of one take, or of too few samples: estimators fail on poses, and poses are a take's."""
    bad = rows[np.nan_to_num(miss[rows], nan=np.inf) > case.explained_miss()]
    return len(bad) < RESIDUAL_SAMPLES or len({case.columns.witnesses[row].action for row in bad}) < 2


def check_unmatched(case: Case) -> None:
    """Groups that lose many frames because no detection fits the label."""
    unmatched = np.array([not witness.matched for witness in case.columns.witnesses], dtype=np.float64)
    check_share(
        case,
        "unmatched",
        unmatched,
        UNMATCHED_SHARE,
        lambda mine, others: (
            f"{mine:.0%} of the frames are left out because no detection fits the label, {others:.0%} in the corpus's"
            " other groups, and no simple cause explains it; look at some of them"
        ),
        badness=case.columns.miss(),
        severity=lambda rows: NOTE if _of_one_take(case, rows, case.columns.miss()) else ERROR,
    )
