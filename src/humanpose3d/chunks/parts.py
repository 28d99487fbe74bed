"""What is known of a set while it is written: building.json, or one for each shard, and the index that comes of them.

A shard's part of a set is a stretch of its chunks. Which chunks are whose follows from the input alone, so that shards
need not know of each other; whoever finds that all have ended writes the index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from humanpose3d.chunks.layout import (
    BUILDING,
    INDEX,
    ChunkEntry,
    ChunkIndex,
    SetFacts,
    building_shards,
    parse_chunk_file,
)
from humanpose3d.files import PART
from humanpose3d.remotes import LocalStore, Store
from humanpose3d.reports import NAMED_AT_MOST
from humanpose3d.sample import SCHEMA_VERSION
from humanpose3d.shards import Shard

Plan = Mapping[str, Any]  # the stage, its settings and a digest of its input: what decides the bytes, and nothing else


@dataclass(frozen=True)
class Part:
    """What is written of a set, or of a shard's part of it."""

    prefix: str
    plan: dict[str, Any]
    history: list[dict[str, Any]]  # the plans of the stages before this one
    position: int  # of the input: where to go on
    is_done: bool
    state: Any  # what the stage stored for a restart
    facts: SetFacts
    entries: list[ChunkEntry]

    def to_json(self) -> bytes:
        data = {
            "schema_version": SCHEMA_VERSION,
            **{name: getattr(self, name) for name in ("prefix", "plan", "history", "position", "is_done", "state")},
            "facts": self.facts.to_dict(),
            "chunks": [entry.to_dict() for entry in self.entries],
        }
        return orjson.dumps(data, option=orjson.OPT_INDENT_2)

    @staticmethod
    def read(store: Store, name: str) -> Part:
        """ValueError where it is damaged. FileNotFoundError where it is not there."""
        try:
            saved = orjson.loads(store.read_bytes(name))
            plain = {key: saved[key] for key in ("prefix", "plan", "history", "position", "is_done", "state")}
            entries = [ChunkEntry.from_dict(entry) for entry in saved["chunks"]]
            return Part(**plain, facts=SetFacts.from_dict(saved["facts"]), entries=entries)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise ValueError(f"{store.location}/{name} is damaged; delete that folder and start again") from None


def make_index(parts: Sequence[Part]) -> ChunkIndex:
    """The index of a set from all its parts, in order. The same however it was cut into parts."""
    facts = SetFacts()
    for part in parts:
        facts.update(part.facts)
    first = parts[0]
    return ChunkIndex(
        prefix=first.prefix,
        chunks=tuple(entry for part in parts for entry in part.entries),
        skeleton=facts.skeleton,
        keypoint_skeleton=facts.keypoint_skeleton,
        members=dict(facts.members),
        provenance={
            "estimators": facts.estimators,
            "history": [*first.history, first.plan],
            "report": first.state if len(parts) == 1 else _joined([part.state for part in parts]),
        },
    )


def _joined(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`report_state` of the whole from those of its parts, in order: what a single run would have gathered."""
    counts, skipped_counts, skipped = Counter[str](), Counter[str](), dict[str, list[str]]()
    for state in states:
        counts.update(state["counts"])
        skipped_counts.update(state["skipped_counts"])
        for reason, names in state["skipped"].items():
            skipped[reason] = (skipped.get(reason, []) + names)[:NAMED_AT_MOST]
    return {"counts": dict(counts), "skipped": skipped, "skipped_counts": dict(skipped_counts)}


def finish_shards(store: Store, why_none: str = "all inputs were left out") -> ChunkIndex | None:
    """Writes the index of a set whose shards have all ended. None where some have not, or there are none.

    Any number of processes may do this at once: they all write the same. ValueError, with `why_none`, for a set without
    a sample, and where the shards' settings or inputs differ.
    """
    names = {entry.name: entry.size for entry in store.list()}
    shards = building_shards(names)
    if not shards or BUILDING in names:
        return None
    if INDEX not in names:
        refuse_other_shards(store, shards, shards[0])
        if len(shards) < shards[0].of:
            return None
        try:
            parts = [Part.read(store, shard.name(BUILDING)) for shard in shards]
        except FileNotFoundError:  # another has written the index, and is clearing up
            return ChunkIndex.from_json(store.read_bytes(INDEX), f"{store.location}/{INDEX}")
        if not all(part.is_done for part in parts):
            return None
        _refuse_differences(store, parts)
        _check_files(store, parts, {entry.name: entry.size for entry in store.list()})  # anew: some ended just now
        if not any(part.entries for part in parts):
            _clear(store, shards)  # nothing to go on from, and nothing to stand in the way
            raise ValueError(f"no sample is left to write to {store.location}: {why_none}")
        store.write_bytes(INDEX, make_index(parts).to_json())
    _clear(store, shards)
    return ChunkIndex.from_json(store.read_bytes(INDEX), f"{store.location}/{INDEX}")


def refuse_other_shards(store: Store, shards: Sequence[Shard], mine: Shard) -> None:
    """ValueError where a set was begun with another number of shards."""
    others = [shard for shard in shards if shard.of != mine.of]
    if others:
        raise ValueError(
            f"{store.location} is being written by {others[0].of} shards, and --shard {mine} is of {mine.of}; "
            "take as many, or delete the folder"
        )


def difference(theirs: Plan, ours: Plan) -> str:
    """The names of the settings in which two plans differ."""
    return ", ".join(sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))) or "order"


def _refuse_differences(store: Store, parts: Sequence[Part]) -> None:
    for number, part in enumerate(parts, 1):
        if part.plan != parts[0].plan:
            raise ValueError(
                f"{store.location}: shards 1 and {number} of {len(parts)} have other settings or other input "
                f"({difference(parts[0].plan, part.plan)}); delete the folder and run all with the same"
            )


def _check_files(store: Store, parts: Sequence[Part], sizes: Mapping[str, int]) -> None:
    """ValueError where a chunk is not there, or not of its size."""
    for number, part in enumerate(parts, 1):
        if wrong := [entry.file for entry in part.entries if sizes.get(entry.file) != entry.bytes]:
            raise ValueError(
                f"{store.location}/{wrong[0]} is not as it was written; delete "
                f"{Shard(number, len(parts)).name(BUILDING)} beside it and run shard {number}/{len(parts)} again"
            )


def _clear(store: Store, shards: Sequence[Shard]) -> None:
    """Removes what stood in for the index, and what killed shards left. Nobody is writing chunks any more."""
    for shard in shards:
        store.delete(shard.name(BUILDING))
    if isinstance(store, LocalStore):
        for leftover in store.folder.glob(f".*{PART}"):
            if parse_chunk_file(leftover.name[1:].rpartition(".tar")[0] + ".tar") is not None:
                leftover.unlink(missing_ok=True)
