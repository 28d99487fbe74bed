"""The table of subjects and cameras."""

from humanpose3d.checks.figures import GroupFigures
from humanpose3d.checks.finding import NOTE, Finding
from humanpose3d.inspect.table import ROWS_SHOWN, make_rows, text_table


def group(subject="S1", camera_id="cam1", **changes):
    values = dict.fromkeys(GroupFigures.__dataclass_fields__) | {
        name: 0.0
        for name in ("unmatched", "behind_camera", "off_image", "zeroed", "without_3d", "without_2d",
                     "without_keypoints", "without_depth", "without_camera")
    }  # fmt: skip
    return GroupFigures(**values | {"corpus": "c", "subject": subject, "camera_id": camera_id, "samples": 10} | changes)


def finding(fault="scale", subject=None, camera_id=None, **changes):
    return Finding(fault=fault, corpus="c", subject=subject, camera_id=camera_id, **changes)


def test_a_finding_marks_the_rows_of_its_subject_and_camera_only():
    groups = [group(subject, camera) for subject in ("S1", "S2") for camera in ("cam1", "cam2")]
    rows = make_rows(
        groups, [finding(subject="S1"), finding("units", camera_id="cam2"), finding("sides_swapped", "S3")]
    )
    assert [row.errors for row in rows] == [("scale",), ("scale", "units"), (), ("units",)]


def test_a_note_on_the_whole_corpus_marks_no_row_and_one_on_a_subject_does():
    [row] = make_rows([group()], [finding(severity=NOTE), finding("units", "S1", severity=NOTE)])
    assert (row.errors, row.notes) == ((), ("units",))
    assert text_table([row]).splitlines()[-1].startswith("  S1")


def test_takes_are_named_once_behind_their_fault():
    takes = [finding("time_shift", "S1", action=action) for action in ("Walking 1", "Eating 1", "Walking 1")]
    [row] = make_rows([group()], takes)
    assert row.errors == ("time_shift (Walking 1, Eating 1)",)


def test_what_there_is_nothing_to_measure_of_is_a_dash_and_missing_shares_are_told():
    [row] = make_rows([group(without_depth=1.0, unmatched=0.25, off_image=0.001)], [])
    assert row.cells == ("S1", "cam1", "10", "-", "-", "-", "-", "depth, unmatched 25 %")


def test_of_many_rows_those_with_something_wrong_are_shown():
    groups = [group(f"S{number:03d}") for number in range(3 * ROWS_SHOWN)]
    lines = text_table(make_rows(groups, [finding(subject=f"S{3 * ROWS_SHOWN - 1:03d}")])).splitlines()
    assert len(lines) == ROWS_SHOWN + 3
    assert lines[-2].startswith(f"! S{3 * ROWS_SHOWN - 1:03d}")
    assert f"{2 * ROWS_SHOWN} more" in lines[-1]
