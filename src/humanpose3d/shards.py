"""One job cut into n equal ones that know nothing of each other: --shard 3/8 does the third of eight.

Which tasks there are is the stage's, and must be the same in every shard. Here they are dealt, and reports gathered.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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

    def stretch(self, count: int) -> range:
        """This shard's of `count` numbered tasks that are better done side by side."""
        return range(count * (self.number - 1) // self.of, count * self.number // self.of)

    def slice(self, tasks: Sequence[T]) -> Sequence[T]:
        """This shard's of tasks that are better done side by side."""
        mine = self.stretch(len(tasks))
        return tasks[mine.start : mine.stop]

    @property
    def all(self) -> list[Shard]:
        return [Shard(number, self.of) for number in range(1, self.of + 1)]

    def name(self, file: str) -> str:
        """This shard's own of a JSON file that there would be once: <file>.3-of-8.json."""
        return file if self.of == 1 else f"{file.removesuffix('.json')}.{self.number}-of-{self.of}.json"

    @staticmethod
    def of_name(name: str, file: str) -> Shard | None:
        """The shard whose own of `file` is called so; None for any other name."""
        found = re.fullmatch(re.escape(file.removesuffix(".json")) + r"\.(\d+)-of-(\d+)\.json", name)
        return Shard(int(found[1]), int(found[2])) if found else None

    @property
    def of_several(self) -> list[str]:
        """["3/8"]; [] where the job is not cut: what tells a shard's things from the whole job's."""
        return [str(self)] if self.of > 1 else []

    def remark(self, *, is_last: bool) -> str:
        """What a summary adds: '' where the job is not cut."""
        if self.of == 1:
            return ""
        return f" (shard {self}; " + ("all have ended)" if is_last else "the others have not all ended)")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


WHOLE = Shard()  # the job is not cut


def write_shard_report(folder: Store, report: StageReport, shard: Shard, *, is_new: bool = True) -> bool:
    """This shard's report, and <stage>_report.json of them all where it finds that all shards have written theirs.
    Returns whether it did.

    is_new: False where all shards had ended before; what this one reported then says more.
    """
    file = f"{report.stage}_report.json"
    if shard.of == 1:
        folder.write_bytes(file, report.to_json())
        return True
    if is_new or folder.stat(shard.name(file)) is None:
        folder.write_bytes(shard.name(file), report.to_json())
    try:
        parts = [json.loads(folder.read_bytes(each.name(file))) for each in shard.all]
    except FileNotFoundError:
        return False
    folder.write_bytes(file, (json.dumps(_together(parts), indent=2) + "\n").encode())
    return True


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The first part's report with what is counted counted together. `seconds` are those of all machines."""
    skipped: dict[str, dict[str, Any]] = {}
    for reason, some in ((reason, some) for part in parts for reason, some in part["skipped"].items()):
        whole = skipped.setdefault(reason, {"count": 0, "inputs": []})
        whole["count"] += some["count"]
        whole["inputs"] = (whole["inputs"] + some["inputs"])[:NAMED_AT_MOST]
    counts = Counter[str]()
    for part in parts:
        counts.update(part["counts"])
    facts = dict(parts[0])
    if "inspection" in facts:
        found = [part["inspection"] for part in parts]
        facts["inspection"] = {
            "samples": sum(each["samples"] for each in found),
            "findings": [finding for each in found for finding in each["findings"]],
        }
    return {
        **facts,
        "summary": "; ".join(part["summary"] for part in parts),
        "inputs": sum(part["inputs"] for part in parts),
        "counts": dict(counts),
        "skipped": skipped,
        "faults": [fault for part in parts for fault in part["faults"]],
        "notes": [note for part in parts for note in part["notes"]],
        "seconds": round(sum(part["seconds"] for part in parts), 3),
        "shards": len(parts),
    }
