"""`humanpose3d inspect`: reads a set of chunks, has it judged, tells what is wrong: a table, JSON, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from textwrap import wrap
from typing import Any

from humanpose3d.checks import limits
from humanpose3d.checks.figures import group_figures
from humanpose3d.checks.finding import ERROR, Finding
from humanpose3d.checks.judge import judge
from humanpose3d.chunks.codec import BadSample
from humanpose3d.files import make_folder, write_report, write_whole
from humanpose3d.inspect.page import Gallery, Picture, html_page
from humanpose3d.inspect.pictures import distance_m, draw_sample, height_m, keypoint_distance_px, reprojection_px
from humanpose3d.inspect.reading import Heard, chunker_findings, read_again, read_evidence
from humanpose3d.inspect.table import MEANINGS, make_rows, text_table
from humanpose3d.remotes import open_store
from humanpose3d.reports import StageReport
from humanpose3d.sample import PoseSample

PAGE = "index.html"
PICTURES_AT_MOST = 24
PICTURES_OF_A_FINDING = 4
PICTURES_OF_A_CLEAN_SET = 8


def inspect_chunks(location: str, *, report: Path | None, max_samples: int, all: bool, temp_dir: Path) -> StageReport:
    """Fields as in InspectConfig. Prints the table; the findings are the returned report's faults and notes.

    ValueError, FileNotFoundError: there is no whole set of chunks to look at.
    """
    stage = StageReport("inspect", max_bad=1.0)
    if report is not None:
        make_folder(report)
    heard = read_evidence(location, samples=max_samples, all=all, temp_dir=temp_dir)
    findings = all_findings(heard)
    groups = group_figures(heard.evidence)
    rows = make_rows(groups, findings)
    errors = [finding for finding in findings if finding.severity == ERROR]
    notes = [finding for finding in findings if finding.severity != ERROR]
    stage.inputs = heard.read
    for finding in findings:
        (stage.fault if finding.severity == ERROR else stage.note)(str(finding))
    stage.counts.update(
        samples=heard.samples, read=heard.read, chunks=heard.chunks, faults=len(errors), notes=len(notes),
        depth_maps=heard.depths, pictures=heard.images, broken=sum(map(len, heard.broken.values())),
    )  # fmt: skip
    stage.summary = _summary(location, heard, errors, notes)
    stage.facts |= {
        "location": open_store(location).location,
        "findings": [_plain(finding.to_dict()) for finding in findings],
        "groups": [_plain(vars(group)) for group in groups],
        "thresholds": _thresholds(),
    }
    print(text_table(rows))
    print("", *wrap(f"{MEANINGS}.", 118), "", sep="\n")
    if report is not None:
        galleries = _galleries(heard, findings, temp_dir)
        facts = {name: number for name, number in stage.counts.items()} | _thresholds()
        write_whole(report / PAGE, html_page(location, stage.summary, findings, rows, galleries, facts))
        write_report(report, stage)
    return stage


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    return {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in values.items()}


def all_findings(heard: Heard) -> list[Finding]:
    """What could not be read, what is judged wrong, and what else the chunker found in frames that it left out."""
    findings = [*heard.broken_findings(), *judge(heard.evidence)]
    known = {_subject_of(finding) for finding in findings}
    findings += [finding for finding in chunker_findings(heard.parts) if _subject_of(finding) not in known]
    return _errors_first(findings)


def _subject_of(finding: Finding) -> tuple[str | None, ...]:
    return finding.fault, finding.corpus, finding.subject, finding.camera_id, finding.action


def _errors_first(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.severity != ERROR)


def _summary(location: str, heard: Heard, errors: Sequence[Finding], notes: Sequence[Finding]) -> str:
    corpora = ", ".join(sorted({witness.corpus or "?" for witness in heard.evidence})) or "nothing"
    told = [f"{len(errors)} {'fault' if len(errors) == 1 else 'faults'}" if errors else "nothing wrong"]
    told += [f"{len(notes)} {'note' if len(notes) == 1 else 'notes'}"] if notes else []
    return f"inspected {heard.read} of {heard.samples} samples of {corpora} in {location}: {', '.join(told)}"


def _galleries(heard: Heard, findings: Sequence[Finding], temp_dir: Path) -> list[Gallery]:
    """The worst samples of each finding; of a set without any, those whose keypoints lie farthest from their labels."""
    galleries, left, shown = [], PICTURES_AT_MOST, set[str]()
    for finding in findings:
        keys = [key for key in finding.worst if key in heard.places and key not in shown][:PICTURES_OF_A_FINDING]
        pictures = _pictures(heard, keys[:left], temp_dir)
        if pictures:
            galleries.append(Gallery(f"{finding.fault}: {finding.where}", pictures))
        left -= len(pictures)
        shown.update(keys)
    if not galleries:
        pictures = _pictures(heard, _least_fitting(heard), temp_dir)
        galleries = [Gallery("Nothing wrong: the samples whose keypoints lie farthest from their labels", pictures)]
    return galleries if any(gallery.pictures for gallery in galleries) else []


def _pictures(heard: Heard, keys: Sequence[str], temp_dir: Path) -> list[Picture]:
    pictures = []
    for key in keys:
        try:
            sample = read_again(heard.places[key], key, temp_dir)
        except BadSample:
            continue
        pictures.append(Picture(key, _caption(sample), draw_sample(sample)))
    return pictures


def _caption(sample: PoseSample) -> str:
    parts = [f"{sample.subject}, camera {sample.camera_id}, {sample.action}, frame {sample.frame_index}"]
    for value, text in (
        (reprojection_px(sample), "3D on 2D {:.1f} px"),
        (keypoint_distance_px(sample), "keypoints off by {:.1f} px"),
        (height_m(sample), "longest extent {:.2f} m"),
        (distance_m(sample), "distance {:.2f} m"),
    ):
        if value is not None:
            parts.append(text.format(value))
    return " \u00b7 ".join(parts)


def _least_fitting(heard: Heard) -> list[str]:
    """Keys of the samples whose keypoints lie farthest from the labels, one of each subject and camera at most."""
    worst: dict[tuple[str, str, str], tuple[float, str]] = {}
    for witness in heard.evidence:
        cell = (witness.corpus, witness.subject, witness.camera_id)
        worst[cell] = max(worst.get(cell, (-1.0, "")), (keypoint_distance_px(witness) or 0.0, witness.key))
    return [key for _, key in sorted(worst.values(), reverse=True)[:PICTURES_OF_A_CLEAN_SET]]


def _thresholds() -> dict[str, Any]:
    """The doctor's limits by name."""
    return {
        name.lower(): value
        for name, value in vars(limits).items()
        if name.isupper() and isinstance(value, (int, float, tuple))
    }
