"""What a stage tells its user: progress while it works, a report when it ends. Exit codes follow from the report."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

QUIET_INTERVAL_S = 10.0  # between progress lines where there is no terminal to draw a bar on
NAMED_AT_MOST = 1000  # skipped inputs listed by name in a report; beyond that they are only counted
SHOWN_AT_MOST = 3  # skipped inputs named on the terminal too


@dataclass
class StageReport:
    """Counts, skipped inputs with their reasons, seconds. `skip` never stops a run; `exit_code` says what it meant."""

    stage: str
    counts: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, list[str]] = field(default_factory=dict)  # reason -> inputs, NAMED_AT_MOST of them
    skipped_counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)  # what is wrong with the input, a line each; the rest went on
    notes: list[str] = field(default_factory=list)  # what is worth knowing and no fault
    facts: dict[str, Any] = field(default_factory=dict)
    summary: str = ""  # the one line printed at the end
    inputs: int = 0  # how many were asked for, done and skipped together
    max_bad: float = 0.01  # share of the inputs that may be skipped before the exit code says so
    started: float = field(default_factory=time.monotonic)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] += number

    def skip(self, name: str, reason: str) -> None:
        """An input left out, by name."""
        self.skipped_counts[reason] += 1
        named = self.skipped.setdefault(reason, [])
        if len(named) < NAMED_AT_MOST:
            named.append(name)

    def fault(self, message: str) -> None:
        """Something wrong with the input beyond one item: a broken file, say. Names it, and what to do."""
        if message not in self.faults:
            self.faults.append(message)

    def note(self, message: str) -> None:
        """Something worth knowing, in a line."""
        if message not in self.notes:
            self.notes.append(message)

    @property
    def total_skipped(self) -> int:
        return sum(self.skipped_counts.values())

    @property
    def exit_code(self) -> int:
        """0 done; 1 done, but a fault was found or more than `max_bad` of the inputs were skipped."""
        return 1 if self.faults or self.total_skipped > self.max_bad * self.inputs else 0

    def to_dict(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.started
        return {
            "stage": self.stage,
            "summary": self.summary,
            "inputs": self.inputs,
            "counts": dict(self.counts),
            "skipped": {
                reason: {"count": number, "inputs": self.skipped.get(reason, [])}
                for reason, number in self.skipped_counts.items()
            },
            "faults": self.faults,
            "notes": self.notes,
            "seconds": round(seconds, 3),
            **self.facts,
            "versions": versions(),
        }

    def to_json(self) -> bytes:
        return (json.dumps(self.to_dict(), indent=2, default=str) + "\n").encode()

    def skipped_names(self) -> str:
        """Where few were skipped, their names, 'a.jpg (empty file), b.jpg (not an image)'; else ''."""
        names = [name for of_reason in self.skipped.values() for name in of_reason]
        return ", ".join(names) if self.total_skipped <= SHOWN_AT_MOST else ""

    def skipped_line(self) -> str:
        """'skipped 3 of 5000: 2 unreadable image, 1 no person found', or '' where nothing was."""
        if not self.total_skipped:
            return ""
        reasons = ", ".join(f"{number} {reason}" for reason, number in self.skipped_counts.most_common())
        return f"skipped {self.total_skipped} of {self.inputs}: {reasons}"


def versions() -> dict[str, str]:
    """Versions of what a result depends on, of those installed."""
    found = {"python": sys.version.split()[0]}
    for package in ("humanpose3d", "numpy", "torch", "webdataset", "ultralytics", "transformers", "lightning"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


class Progress:
    """Counts done work. Made by `progress`."""

    def __init__(self, what: str, total: int | None, bar: Any, task: Any) -> None:
        self.what, self.total, self.done = what, total, 0
        self._bar, self._task = bar, task
        self._started = self._told = time.monotonic()

    def advance(self, number: int = 1) -> None:
        self.done += number
        if self._bar is not None:
            self._bar.update(self._task, advance=number)
        elif time.monotonic() - self._told > QUIET_INTERVAL_S:
            self._told = time.monotonic()
            self._tell()

    def set_total(self, total: int) -> None:
        """For work whose amount is known only after a while."""
        self.total = total
        if self._bar is not None:
            self._bar.update(self._task, total=total)

    def _tell(self) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self.done / seconds
        line = f"{self.what}: {self.done}" + (f"/{self.total}" if self.total else "") + f", {rate:.1f}/s"
        if self.total and rate > 0:
            line += f", {max(self.total - self.done, 0) / rate:.0f} s left"
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """A bar with rate and time left on a terminal; a line every 10 s elsewhere. Writes to standard error."""
    if not sys.stderr.isatty():
        yield Progress(what, total, None, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    class Rate(TextColumn):
        def __init__(self) -> None:
            super().__init__("")

        def render(self, task: Any) -> Any:
            from rich.text import Text

            return Text(f"{task.speed:.1f}/s" if task.speed else "", style="cyan")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        yield Progress(what, total, bar, bar.add_task(what, total=total))
