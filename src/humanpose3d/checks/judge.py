"""The judgement of evidence: what is wrong, by name, and of which subject and camera.

Each corpus is judged by itself. The checks run from the most specific cause to the vaguest sign; what one explains the
later ones do not see (`Case`).
"""

from __future__ import annotations

from collections.abc import Callable

from humanpose3d.checks.body_frame import check_body_frame
from humanpose3d.checks.bones import check_bone_scale, check_human, check_noise, check_units
from humanpose3d.checks.cameras import check_cameras
from humanpose3d.checks.case import Case
from humanpose3d.checks.columns import make_columns
from humanpose3d.checks.copies import check_copies, find_leaks
from humanpose3d.checks.depths import check_depth
from humanpose3d.checks.evidence import Evidence
from humanpose3d.checks.fields import check_fields
from humanpose3d.checks.finding import ERROR, Finding
from humanpose3d.checks.lags import check_lags
from humanpose3d.checks.moves import check_place, check_scale, check_shift
from humanpose3d.checks.order import check_2d_order, check_declared, check_label_order
from humanpose3d.checks.people import (
    check_behind,
    check_off_image,
    check_residual,
    check_unmatched,
    check_wrong_person,
    check_zeroed,
)
from humanpose3d.checks.projection import check_projection
from humanpose3d.checks.sides import check_sides
from humanpose3d.checks.views import check_upright, check_views

CHECKS: tuple[Callable[[Case], None], ...] = (
    check_copies,
    check_declared,
    check_zeroed,
    check_units,
    check_label_order,
    check_2d_order,
    check_noise,
    check_projection,
    check_sides,
    check_cameras,
    check_bone_scale,
    check_views,
    check_lags,
    check_wrong_person,
    check_scale,
    check_place,
    check_shift,
    check_upright,
    check_human,
    check_behind,
    check_off_image,
    check_residual,
    check_unmatched,
    check_depth,
    check_body_frame,
    check_fields,
)


def judge(evidence: Evidence) -> list[Finding]:
    """What is wrong, errors first, one finding per cause. Empty for evidence that is as it should be."""
    witnesses = list(evidence)
    findings = find_leaks(witnesses)
    for corpus in sorted({witness.corpus for witness in witnesses}):
        case = Case(make_columns(corpus, [witness for witness in witnesses if witness.corpus == corpus]))
        for check in CHECKS:
            check(case)
        findings += case.findings
    return sorted(findings, key=lambda finding: (finding.severity != ERROR, finding.corpus))
