"""One job cut into n equal ones that know nothing of each other: --shard 3/8 does the third of eight.

Which tasks there are is the stage's, and must be the same in every shard. Here they are dealt, and reports gathered.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from humanpose3d.remotes import Store
from humanpose3d.reports import NAMED_AT_MOST, StageReport

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The `number`th of `of`, counted from 1."""

    number: int = 1
    of: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """'3/8'. ValueError for anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"--shard {text}: write i/n, from 1/n to n/n, such as 3/8 for the third of eight")
        return Shard(int(found[1]), int(found[2]))

    def deal(self, tasks: Iterable[T], others: Callable[[T], object] = lambda task: None) -> Iterator[T]:
        """This shard's of them: every n-th, so that all shards end at about the same time. `others` gets the rest."""
        for position, task in enumerate(tasks):
            if position % self.of == self.number - 1:
                yield task
            else:
                others(task)

    def report_name(self, stage: str) -> str:
        """<stage>_report.json, or this shard's own beside it."""
        return f"{stage}_report.json" if self.of == 1 else f"{stage}_report.{self.number}-of-{self.of}.json"


def write_shard_report(folder: Store, report: StageReport, shard: Shard) -> bool:
    """This shard's report, and <stage>_report.json of them all where it finds that all shards have written theirs.
    Returns whether it did."""
    folder.write_bytes(shard.report_name(report.stage), report.to_json())
    if shard.of == 1:
        return True
    names = [Shard(number, shard.of).report_name(report.stage) for number in range(1, shard.of + 1)]
    try:
        parts = [json.loads(folder.read_bytes(name)) for name in names]
    except FileNotFoundError:
        return False
    folder.write_bytes(f"{report.stage}_report.json", (json.dumps(_together(parts), indent=2) + "\n").encode())
    return True


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The first part's report with what is counted counted together. `seconds` are those of all machines."""
    skipped: dict[str, dict[str, Any]] = {}
    for reason, some in ((reason, some) for part in parts for reason, some in part["skipped"].items()):
        whole = skipped.setdefault(reason, {"count": 0, "inputs": []})
        whole["count"] += some["count"]
        whole["inputs"] = (whole["inputs"] + some["inputs"])[:NAMED_AT_MOST]
    counts = sum((Counter(part["counts"]) for part in parts), Counter[str]())
    return {
        **parts[0],
        "summary": "; ".join(part["summary"] for part in parts),
        "inputs": sum(part["inputs"] for part in parts),
        "counts": dict(counts),
        "skipped": skipped,
        "faults": [fault for part in parts for fault in part["faults"]],
        "notes": [note for part in parts for note in part["notes"]],
        "seconds": round(sum(part["seconds"] for part in parts), 3),
        "shards": len(parts),
    }
