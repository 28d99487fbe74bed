"""What an evaluation by a published protocol says: the facts of evaluate_report.json, the terminal's table, notes.

The figures are protocol_scores.py's; the picture of them is visualize/errors.py's.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from textwrap import fill
from typing import Any

from humanpose3d.files import write_report, write_whole
from humanpose3d.reports import StageReport
from humanpose3d.skeletons import get_skeleton
from humanpose3d.tasks.measures import MEASURES
from humanpose3d.tasks.protocol_scores import VELOCITY, Frames, Means, ProtocolEvaluation, ProtocolScores
from humanpose3d.tasks.protocols import Protocol
from humanpose3d.visualize.errors import MOST_BARS, Bars, draw_errors

MOST_ROWS = 24  # of cameras, actions ... on a terminal; all are in the report
WIDTH = 118
PART_TITLES = {"action": "by action", "subject": "by subject", "camera": "by camera"}
FRAME_WISE, MEAN_OF = "all frames", "mean of the"


def report_protocol(
    report: StageReport, folder: Path, name: str, evaluation: ProtocolEvaluation, about: dict[str, Any]
) -> StageReport:
    """Measure, print the tables, write evaluate_report.json and evaluate_<name>.png into the folder.

    about: checkpoint, checkpoint_sha256, model_type, skeleton (the model's); they go into the facts.
    """
    protocol, frames, scores = evaluation.protocol, evaluation.frames, evaluation.compute()
    report.facts |= about | protocol_facts(name, protocol, frames, scores)
    picture = folder / f"evaluate_{name}.png"
    report.facts["figure"] = str(picture)
    for deviation in report.facts["protocol"]["deviations"]:
        report.note(deviation)
    report.summary = f"{summary(name, protocol, scores)}; {picture}"
    write_whole(picture, error_figure(report.facts, protocol, scores))
    write_report(folder, report)
    print(text_report(report.facts, protocol, scores))
    return report


def protocol_facts(name: str, protocol: Protocol, frames: Frames, scores: ProtocolScores) -> dict[str, Any]:
    """JSON facts. The frame-wise figures stand by their own names at the top, as without a protocol.

    mpjpe_mm, pa_mpjpe_mm, ... of those that the protocol measures; action_wise, subject_wise; by_action, by_subject,
    by_camera, by_group; by_joint, and by_joint_mm of the first measure in mm; protocol: what was done.
    """
    in_mm = next((measure for measure in protocol.measures if MEASURES[measure].unit == "mm"), None)
    facts: dict[str, Any] = {
        **_numbers(scores.whole.values),
        "samples": scores.whole.samples,
        "action_wise": _numbers(scores.means_over("action")),
        "subject_wise": _numbers(scores.means_over("subject")),
        **{f"by_{part}": _by_part(scores.parts[part]) for part in PART_TITLES},
        "by_group": {part: _by_part(of) for part, of in scores.parts.items() if part not in PART_TITLES},
        "by_joint": {measure: _numbers(joints) for measure, joints in scores.whole.by_joint.items()},
        "subjects": sorted(set(frames.subjects)),
        "protocol": {
            "name": name,
            "title": protocol.title,
            "corpus": dict(frames.corpora),
            "cameras": sorted(set(frames.cameras)),
            "skeleton": protocol.skeleton,
            "joints": [joint for joint in get_skeleton(protocol.skeleton).joints if joint not in protocol.unscored],
            "alignment": protocol.alignment,
            "measures": {
                measure: f"{MEASURES[measure].label}, {MEASURES[measure].unit}: {MEASURES[measure].meaning}"
                for measure in protocol.measures
            },
            "keypoints": dict(frames.keypoints),
            "left_out": dict(frames.left_out),
            "deviations": deviations(protocol, frames, scores),
        },
    }
    if in_mm is not None:
        facts["by_joint_mm"] = facts["by_joint"][in_mm]
    if protocol.table:
        facts["table"] = _numbers(paper_table(protocol, scores))
    if VELOCITY in protocol.measures:
        facts["protocol"] |= {"velocity_step_frames": scores.step, "velocity_pairs": scores.pairs}
        facts["protocol"]["velocity_step_ms"] = _step_ms(frames, scores)
    return facts


def paper_table(protocol: Protocol, scores: ProtocolScores) -> dict[str, float]:
    """The columns of papers: mean of left and right, then the mean over all joints and samples."""
    measure = protocol.measures[0]
    by_joint = scores.whole.by_joint[measure]
    row = {name: sum(by_joint[joint] for joint in joints) / len(joints) for name, joints in protocol.table.items()}
    return {**row, "Mean": scores.whole.values[measure]}


def deviations(protocol: Protocol, frames: Frames, scores: ProtocolScores) -> list[str]:
    """In which ways this is not the published protocol, a line each."""
    found = [protocol.deviation] if protocol.deviation else []
    if foreign := sorted(set(frames.corpora) - {protocol.corpus}):
        found.append(
            f"measured on {', '.join(foreign)}, the protocol is of {protocol.corpus}: compare with no published figure"
        )
    else:
        present = {subject.partition("/")[0] for subject in frames.subjects} | set(frames.subjects)
        if absent := [subject for subject in protocol.subjects if subject not in present]:
            found.append(f"{', '.join(absent)} of the protocol's subjects are not in the chunks")
        for subject, official in protocol.frames.items():
            here = frames.subjects.count(subject)
            if here and here != official:
                found.append(f"{subject} has {here} samples here, {official} in the protocol")
        if unseen := [camera for camera in protocol.cameras if camera not in frames.cameras]:
            found.append(f"{', '.join(unseen)} of the protocol's cameras are not in the chunks")
        if protocol.every_frame and scores.step not in (None, 1):
            found.append(f"the frames of a take are {scores.step} apart here; the protocol tests every one")
    labelled = scores.whole.samples + scores.headless
    if scores.headless:
        found.append(f"{scores.headless} of {labelled} samples have no head size and are not measured")
    if unscored := len(frames) - labelled:
        found.append(f"{unscored} samples have no labelled root or could not be read, and are not measured")
    if VELOCITY in protocol.measures:
        if scores.step is None:
            found.append("no two frames of one take, so nothing is said about velocity (MPJVE)")
        elif scores.step != 1:
            found.append(f"MPJVE is over steps of {scores.step} frames; papers take neighbouring frames")
    return found


def summary(name: str, protocol: Protocol, scores: ProtocolScores) -> str:
    """'h36m_p1: MPJPE 50.1 mm (action-wise 51.2), PA-MPJPE 38.0 mm (39.1); 1200 frames'"""
    by_action = scores.means_over("action")
    parts = [
        f"{MEASURES[measure].label} {scores.whole.values[measure]:.1f} {MEASURES[measure].unit} "
        f"(action-wise {by_action[measure]:.1f})"
        for measure in protocol.measures
    ]
    return f"{name}: {', '.join(parts)}; {scores.whole.samples} frames"


def text_report(facts: dict[str, Any], protocol: Protocol, scores: ProtocolScores) -> str:
    """For a terminal: what was done, a table by joint, and one by action, subject, camera and kind of pose."""
    from rich.console import Console

    about = facts["protocol"]
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, emoji=False, markup=False)
    console.print(protocol.title)
    for what, text in (
        ("checkpoint", f"{facts['checkpoint']} ({facts['model_type']}, sha256 {facts['checkpoint_sha256'][:12]})"),
        ("subjects", ", ".join(facts["subjects"])),
        ("cameras", _listed(about["cameras"])),
        ("joints", f"{len(about['joints'])} of {about['skeleton']}: {', '.join(about['joints'])}"),
        ("alignment", about["alignment"]),
        ("2D source", ", ".join(f"{source} ({number})" for source, number in about["keypoints"].items())),
        ("frames", f"{facts['samples']}" + _told(about["left_out"])),
        ("bodies", facts.get("bodies", "")),
        ("velocity", _velocity(about)),
    ):
        if text:
            console.print(fill(f"{what + ':':<12}{text}", WIDTH, initial_indent="  ", subsequent_indent=" " * 14))
    for table in (_parts_table(protocol, scores), _joints_table(protocol, scores)):
        console.print()
        console.print(table)
    if protocol.table:
        row = paper_table(protocol, scores)
        console.print("  ".join(f"{name} {_figure(value)}" for name, value in row.items()) + "\n")
    meanings = (f"{MEASURES[key].label}: {MEASURES[key].meaning}." for key in protocol.measures)
    console.print(fill("  ".join(meanings), WIDTH))
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def error_figure(facts: dict[str, Any], protocol: Protocol, scores: ProtocolScores) -> bytes:
    """A PNG of the first measure: by joint; by action; by kind of pose."""
    skeleton, key = get_skeleton(protocol.skeleton), protocol.measures[0]
    measure, about = MEASURES[key], facts["protocol"]
    panels = [
        Bars(
            "by joint (blue left, orange right)",
            scores.whole.by_joint[key],
            skeleton.sides,
            frozenset(protocol.unscored),
        ),
    ]
    if len(scores.parts["action"]) > 1:
        panels.append(_bars("by action (frames)", scores.parts["action"], key))
    asked = [of for part, of in scores.parts.items() if part not in PART_TITLES]
    kinds = {kind: means for of in asked for kind, means in of.items()}
    if kinds:
        panels.append(_bars("by facing, posture and crossing of the true pose (frames)", kinds, key))
    mean = scores.whole.values[key]
    title = (
        f"{about['name']}: {measure.label} {mean:.1f} {measure.unit} over {scores.whole.samples} frames (dashed); "
        f"action-wise {scores.means_over('action')[key]:.1f}\n2D: {_main(about['keypoints'])}; "
        f"{facts['model_type']}, sha256 {facts['checkpoint_sha256'][:12]}"
    )
    unit = f"{measure.label}, {measure.unit}"
    return draw_errors(title, unit, mean, panels)


def _bars(title: str, parts: dict[str, Means], key: str) -> Bars:
    worst_first = sorted(parts, key=lambda name: _badness(parts[name].values[key], key))
    shown = [name for name in parts if name in set(worst_first[:MOST_BARS])]
    more = f" (the {MOST_BARS} worst of {len(parts)})" if len(shown) < len(parts) else ""
    named = {name or "(not named)": parts[name] for name in shown}
    return Bars(
        title + more,
        {name: means.values[key] for name, means in named.items()},
        notes={name: f"({means.samples})" for name, means in named.items()},
    )


def _badness(value: float, key: str) -> float:
    if not math.isfinite(value):
        return math.inf
    return -value if MEASURES[key].is_error else value


def _main(counts: dict[str, int]) -> str:
    return max(counts, key=lambda name: counts[name])


def _parts_table(protocol: Protocol, scores: ProtocolScores) -> Any:
    table = _table(protocol, "samples")

    def add(title: str, samples: str, values: dict[str, float]) -> None:
        table.add_row(title, samples, *(_figure(values[measure]) for measure in protocol.measures))

    add(f"{FRAME_WISE} (frame-wise)", str(scores.whole.samples), scores.whole.values)
    for part in ("action", "subject"):
        number = len(scores.parts[part])
        add(f"{MEAN_OF} {number} {part}s ({part}-wise)", "", scores.means_over(part))
    for part, of in scores.parts.items():
        table.add_section()
        for title, means in list(of.items())[:MOST_ROWS]:
            kind = PART_TITLES.get(part, part).removeprefix("by ")
            add(f"{kind}: {title or '(not named)'}", str(means.samples), means.values)
        if len(of) > MOST_ROWS:
            table.add_row(f"... and {len(of) - MOST_ROWS} more in evaluate_report.json", "")
    return table


def _joints_table(protocol: Protocol, scores: ProtocolScores) -> Any:
    table = _table(protocol, "")
    for joint in get_skeleton(protocol.skeleton).joints:
        left_out = " (left out of the means)" if joint in protocol.unscored else ""
        by_joint = (scores.whole.by_joint[measure][joint] for measure in protocol.measures)
        table.add_row(f"joint: {joint}{left_out}", "", *map(_figure, by_joint))
    return table


def _table(protocol: Protocol, second: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column(second, justify="right")
    for key in protocol.measures:
        table.add_column(f"{MEASURES[key].label}, {MEASURES[key].unit}", justify="right")
    return table


def _by_part(parts: dict[str, Means]) -> dict[str, dict[str, float | int | None]]:
    return {name: {**_numbers(means.values), "samples": means.samples} for name, means in parts.items()}


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: nothing measured is null."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _figure(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "-"


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_ROWS else f"{len(names)}, {names[0]} to {names[-1]}"


def _told(left_out: dict[str, int]) -> str:
    return "".join(f"; {number} left out, {reason}" for reason, number in left_out.items())


def _step_ms(frames: Frames, scores: ProtocolScores) -> float | None:
    """Where all samples tell the same frame rate."""
    if scores.step is None or len(frames.fps) != 1:
        return None
    return 1000.0 * scores.step / next(iter(frames.fps))


def _velocity(about: dict[str, Any]) -> str:
    if about.get("velocity_step_frames") is None:
        return ""
    step, ms = about["velocity_step_frames"], about["velocity_step_ms"]
    frames = "1 frame" if step == 1 else f"{step} frames"
    return f"{about['velocity_pairs']} pairs, {frames} apart" + (f" ({ms:g} ms)" if ms else "")
