"""The figures of each subject and camera as rows of text: shared by the terminal's table and the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from humanpose3d.checks.figures import GroupFigures
from humanpose3d.checks.finding import ERROR, Finding

COLUMNS = ("subject", "camera", "samples", "3D on 2D", "keypoints", "bones", "depth", "missing")
MEANINGS = (
    "3D on 2D: median distance of the projected 3D joints from the 2D labels, px; keypoints: of the estimator's "
    "keypoints from the 2D labels, px and share of the person's size; bones: median change of a bone's length; "
    "depth: depth map against labelled depth"
)
ROWS_SHOWN = 60  # of a corpus on a terminal; of more, those with something wrong and the first ones
TOLD_FROM = 0.005  # share of samples or joints from which it stands in the table
NONE = "-"


@dataclass(frozen=True)
class Row:
    """One subject through one camera."""

    corpus: str
    cells: tuple[str, ...]  # as COLUMNS
    errors: tuple[str, ...]  # names of the faults found there, with the take where they are of one
    notes: tuple[str, ...]

    @property
    def marks(self) -> tuple[str, ...]:
        return self.errors + self.notes


def make_rows(groups: Iterable[GroupFigures], findings: Sequence[Finding]) -> list[Row]:
    """A row for each group, marked with the findings that concern it."""
    return [_row(group, [finding for finding in findings if concerns(finding, group)]) for group in groups]


def concerns(finding: Finding, group: GroupFigures) -> bool:
    """The finding is of this subject and camera. A note on a whole corpus marks none of its rows."""
    if finding.severity != ERROR and finding.subject is None and finding.camera_id is None:
        return False
    return (
        finding.corpus == group.corpus
        and finding.subject in (None, group.subject)
        and finding.camera_id in (None, group.camera_id)
    )


def _row(group: GroupFigures, findings: Sequence[Finding]) -> Row:
    keypoints = NONE
    if group.keypoint_px is not None:
        keypoints = f"{group.keypoint_px:.1f}"
        keypoints += f" ({100 * group.keypoint_share:.1f} %)" if group.keypoint_share is not None else ""
    cells = (
        group.subject or NONE,
        group.camera_id or NONE,
        str(group.samples),
        NONE if group.reprojection_px is None else f"{group.reprojection_px:.2f}",
        keypoints,
        NONE if group.bone_error is None else f"{100 * group.bone_error:.1f} %",
        NONE if group.depth_ratio is None else f"{group.depth_ratio:.2f}",
        _missing(group),
    )
    errors = [finding for finding in findings if finding.severity == ERROR]
    notes = [finding for finding in findings if finding.severity != ERROR]
    return Row(group.corpus, cells, _names(errors), _names(notes))


def _names(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Each once: 'time_shift (Walking 1)'."""
    takes: dict[str, list[str]] = {}
    for finding in findings:
        takes.setdefault(finding.fault, []).extend([finding.action] if finding.action else [])
    return tuple(f"{fault} ({', '.join(dict.fromkeys(of))})" if of else fault for fault, of in takes.items())


def _missing(group: GroupFigures) -> str:
    """'depth, unmatched 3 %'; NONE where nothing is."""
    shares = {
        "3D": group.without_3d,
        "2D": group.without_2d,
        "keypoints": group.without_keypoints,
        "depth": group.without_depth,
        "camera": group.without_camera,
        "unmatched": group.unmatched,
        "behind camera": group.behind_camera,
        "off image": group.off_image,
        "zeroed": group.zeroed,
    }
    parts = [
        name if share >= 1.0 else f"{name} {_percent(share)}" for name, share in shares.items() if share >= TOLD_FROM
    ]
    return ", ".join(parts) or NONE


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"


def text_table(rows: Sequence[Row]) -> str:
    """For a terminal: corpus by corpus, `!` before what is wrong and the faults' names behind it."""
    blocks = []
    for corpus in dict.fromkeys(row.corpus for row in rows):
        of_corpus = [row for row in rows if row.corpus == corpus]
        shown = of_corpus if len(of_corpus) <= ROWS_SHOWN else _most_telling(of_corpus)
        table = [COLUMNS, *(row.cells for row in shown)]
        widths = [max(len(cells[column]) for cells in table) for column in range(len(COLUMNS))]
        lines = [corpus or NONE, f"  {_aligned(COLUMNS, widths)}".rstrip()]
        lines += [
            f"{'!' if row.errors else ' '} {_aligned(row.cells, widths)}  {', '.join(row.marks)}".rstrip()
            for row in shown
        ]
        if len(shown) < len(of_corpus):
            lines.append(f"  ... and {len(of_corpus) - len(shown)} more (all in the report: --report DIR)")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _most_telling(rows: Sequence[Row]) -> list[Row]:
    marked = [row for row in rows if row.marks][:ROWS_SHOWN]
    plain = [row for row in rows if not row.marks][: ROWS_SHOWN - len(marked)]
    chosen = {id(row) for row in (*marked, *plain)}
    return [row for row in rows if id(row) in chosen]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    words = (0, 1, len(COLUMNS) - 1)
    return "  ".join(
        cell.ljust(width) if column in words else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
