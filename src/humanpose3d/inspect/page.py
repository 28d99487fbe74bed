"""The report as one HTML page: findings, the table of subjects and cameras, pictures. No script, nothing to fetch."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2
import numpy as np

from humanpose3d.checks.finding import ERROR, FAULTS, Finding
from humanpose3d.inspect.pictures import KEYPOINT_COLOUR, PROJECTED_COLOUR
from humanpose3d.inspect.table import COLUMNS, MEANINGS, Row
from humanpose3d.visualize.panels import SIDE_COLOURS_ON_PHOTO, Colour

JPEG_QUALITY = 82
_WORD = ' class="word"'  # of cells in words

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f5f6f8; --ink: #1c2126; --muted: #5d6771; --line: #d8dde2;
        --bad: #b3261e; --bad-back: #fdeceb; --note: #8a5a00; --note-back: #fdf3dd;
        --good: #1b6e3c; --good-back: #e6f4ea; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181b; --card: #1e2226; --ink: #e4e8eb; --muted: #9aa5af; --line: #343b42;
          --bad: #ff8a80; --bad-back: #3a1f1d; --note: #f2c063; --note-back: #352a14;
          --good: #7fd6a0; --good-back: #17301f; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: .95rem; margin: 1.5rem 0 .5rem; }
.muted { color: var(--muted); }
.verdict { display: inline-block; margin-top: .75rem; padding: .35rem .8rem; border-radius: 99px; font-weight: 600; }
.verdict.bad { background: var(--bad-back); color: var(--bad); }
.verdict.good { background: var(--good-back); color: var(--good); }
.finding { border: 1px solid var(--line); border-left: 4px solid var(--bad); border-radius: 8px;
           background: var(--card); padding: .7rem 1rem; margin: .6rem 0; }
.finding.note { border-left-color: var(--note); }
.finding p { margin: .2rem 0 0; }
.tag { font: 600 .8rem ui-monospace, Menlo, Consolas, monospace; padding: .1rem .45rem; border-radius: 5px;
       background: var(--bad-back); color: var(--bad); white-space: nowrap; }
.tag.note { background: var(--note-back); color: var(--note); }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .32rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--card); color: var(--muted); font-weight: 600; }
tr:last-child td { border-bottom: 0; }
th.word, td.word { text-align: left; white-space: normal; }
tr.wrong td { background: var(--bad-back); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #585c60; }
figcaption { padding: .5rem .7rem .6rem; font-size: .8rem; overflow-wrap: anywhere; }
figcaption b { display: block; font: 600 .75rem ui-monospace, Menlo, Consolas, monospace; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.25rem; font-size: .85rem; margin: .25rem 0 1rem; }
.legend i { display: inline-block; vertical-align: -1px; margin-right: .4rem; border: 1px solid #0006; }
.legend i.bone { width: 1.3rem; height: .5rem; border-radius: 2px; }
.legend i.ring { width: .85rem; height: .85rem; border-radius: 50%; border: .22rem solid; }
details { margin-top: 2rem; } summary { cursor: pointer; color: var(--muted); }
code { font: .85em ui-monospace, Menlo, Consolas, monospace; }
"""


@dataclass(frozen=True, eq=False)
class Picture:
    """One sample on the page."""

    title: str  # its key
    caption: str  # numbers
    image: np.ndarray  # uint8 [h w 3]


@dataclass(frozen=True)
class Gallery:
    """Pictures under a heading."""

    heading: str
    pictures: list[Picture]


def html_page(
    location: str,
    summary: str,
    findings: Sequence[Finding],
    rows: Sequence[Row],
    galleries: Sequence[Gallery],
    facts: Mapping[str, Any],
) -> bytes:
    """The whole page. facts: what was looked at and by which limits, shown at the end."""
    wrong = any(finding.severity == ERROR for finding in findings)
    parts = [
        "<h2>Findings</h2>" if findings else "",
        *(_finding(finding) for finding in findings),
        "<h2>Subjects and cameras</h2>",
        f'<p class="muted">{escape(MEANINGS)}.</p>',
        *(_table(corpus, rows) for corpus in dict.fromkeys(row.corpus for row in rows)),
        *([f"<h2>Pictures</h2>{_legend()}"] if galleries else []),
        *(_gallery(gallery) for gallery in galleries),
    ]
    return _page(location, summary, _verdict(findings), wrong, parts, facts)


def shuffle_page(
    location: str,
    summary: str,
    faults: Sequence[str],
    findings: Sequence[Finding],
    table: Sequence[Sequence[str]],
    meanings: str,
    facts: Mapping[str, Any],
) -> bytes:
    """The page of the report on shuffling. faults: what is wrong, in words, but for the findings; table: a header, then
    rows, the first cell of each in words."""
    number = len(faults) + len(findings)
    verdict = f"{number} {'fault' if number == 1 else 'faults'} found" if number else "Well shuffled, no leak found"
    parts = [
        "<h2>Findings</h2>" if number else "",
        *(f'<div class="finding"><p>{escape(fault)}</p></div>' for fault in faults),
        *(_finding(finding) for finding in findings),
        "<h2>Shuffle</h2>",
        f'<p class="muted">{escape(meanings)}.</p>',
        _plain_table(table),
    ]
    return _page(location, summary, verdict, number > 0, parts, facts)


def _page(
    location: str, summary: str, verdict: str, wrong: bool, parts: Sequence[str], facts: Mapping[str, Any]
) -> bytes:
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>inspect: {escape(location)}</title><style>{STYLE}</style></head>"
    )
    top = (
        f'<h1>{escape(location)}</h1><div class="muted">{escape(summary)}</div>'
        f'<div class="verdict {"bad" if wrong else "good"}">{escape(verdict)}</div>'
    )
    return f"{head}<body>{top}{''.join(parts)}{_facts(facts)}</body></html>\n".encode()


def _plain_table(rows: Sequence[Sequence[str]]) -> str:
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = (f"<{tag}{_WORD if column == 0 else ''}>{escape(cell)}</{tag}>" for column, cell in enumerate(row))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _verdict(findings: Sequence[Finding]) -> str:
    errors = sum(finding.severity == ERROR for finding in findings)
    notes = len(findings) - errors
    told = f", {notes} {'note' if notes == 1 else 'notes'}" if notes else ""
    return f"{errors} {'fault' if errors == 1 else 'faults'} found{told}" if errors else f"No fault found{told}"


def _finding(finding: Finding) -> str:
    kind = "" if finding.severity == ERROR else " note"
    return (
        f'<div class="finding{kind}"><span class="tag{kind}">{escape(finding.fault)}</span> '
        f"<b>{escape(finding.where)}</b>"
        f"<p>{escape(finding.message)}</p>"
        f'<p class="muted">{escape(FAULTS[finding.fault].capitalize())}. {_figures(finding)}</p></div>'
    )


def _figures(finding: Finding) -> str:
    parts = []
    if finding.measured is not None:
        parts.append(f"Measured {finding.measured:.4g}{' ' * bool(finding.unit)}{finding.unit}")
    if finding.expected is not None:
        parts.append(f"expected {finding.expected:.4g}{' ' * bool(finding.unit)}{finding.unit}")
    if finding.samples:
        parts.append(f"{finding.samples} samples")
    return escape(", ".join(parts)) + ("." if parts else "")


def _table(corpus: str, rows: Sequence[Row]) -> str:
    words = (0, 1, len(COLUMNS) - 1)
    names = [*COLUMNS, "faults"]
    head = "".join(
        f'<th class="{"word" if i in (*words, len(COLUMNS)) else ""}">{escape(n)}</th>' for i, n in enumerate(names)
    )
    body = []
    for row in rows:
        if row.corpus != corpus:
            continue
        cells = "".join(
            f'<td class="{"word" if number in words else ""}">{escape(cell)}</td>'
            for number, cell in enumerate(row.cells)
        )
        faults = " ".join(
            f'<span class="tag{kind}">{escape(name)}</span>'
            for kind, names in (("", row.errors), (" note", row.notes))
            for name in names
        )
        body.append(f'<tr class="{"wrong" if row.errors else ""}">{cells}<td class="word">{faults}</td></tr>')
    return f'<h3>{escape(corpus)}</h3><div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def _legend() -> str:
    left, right = SIDE_COLOURS_ON_PHOTO["left"], SIDE_COLOURS_ON_PHOTO["right"]
    entries = [
        (f'<i class="bone" style="background: {_css(left)}"></i>', "label, left"),
        (f'<i class="bone" style="background: {_css(right)}"></i>', "label, right"),
        (_ring(left), "keypoint, left"),
        (_ring(right), "keypoint, right"),
        (
            f'<i class="bone" style="background: {_css(PROJECTED_COLOUR)}"></i>',
            "3D label projected, where it misses the 2D label",
        ),
    ]
    return '<div class="legend">' + "".join(f"<span>{mark}{escape(name)}</span>" for mark, name in entries) + "</div>"


def _ring(fill: Colour) -> str:
    return f'<i class="ring" style="background: {_css(fill)}; border-color: {_css(KEYPOINT_COLOUR)}"></i>'


def _css(colour: Colour) -> str:
    return "rgb({}, {}, {})".format(*colour)


def _gallery(gallery: Gallery) -> str:
    figures = "".join(
        f'<figure><img alt="{escape(picture.title)}" src="data:image/jpeg;base64,{_base64(picture.image)}">'
        f"<figcaption><b>{escape(picture.title)}</b>{escape(picture.caption)}</figcaption></figure>"
        for picture in gallery.pictures
    )
    return f'<h3>{escape(gallery.heading)}</h3><div class="pictures">{figures}</div>'


def _base64(image: np.ndarray) -> str:
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return base64.b64encode(data.tobytes()).decode()


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td class="word">{escape(str(name))}</td><td class="word">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    table = f'<div class="wide"><table>{rows}</table></div>'
    return f"<details><summary>What was looked at, and the limits</summary>{table}</details>"
