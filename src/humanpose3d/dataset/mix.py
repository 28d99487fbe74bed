"""Several sets of chunks drawn from by weight, as one source of a `StreamingLoader`.

Which set comes when is `order.py`'s `MixOrder`; each set is read by its own `StreamingChunkedDataset`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, check_cache_size
from humanpose3d.dataset.order import PATTERN, GlobalBatches, MixOrder, SampleOrder, weights_to_parts

_ITEM = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)=(?P<root>.+):(?P<weight>[^:/]+)")


class MixItem(NamedTuple):
    """One set of --mix."""

    name: str
    root: str  # a folder or remote:path
    weight: float


class DatasetMix:
    """Samples of several sets, each as often as its weight says; for training.

    Every set goes through epochs of its own: each of its samples comes once before any comes again, whatever its size
    and weight. The mix's epoch is as many batches as the samples of all sets fill, and goes on where the last stopped.
    Weights need not sum to 1; they are rounded to whole parts of `PATTERN`.

    ValueError: sets without names of their own, or that differ in seed, fields or cache; a cache that cannot hold what
    is read of all sets at a time.
    """

    def __init__(self, sets: Sequence[StreamingChunkedDataset], weights: Sequence[float]) -> None:
        names = [each.name for each in sets]
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(f"the sets of a mix need names of their own, not {', '.join(map(repr, names)) or 'none'}")
        if len(weights) != len(names):
            raise ValueError(f"a mix of {len(names)} sets needs as many weights, not {len(weights)}")
        for what in ("seed", "fields"):
            if len({getattr(each, what) for each in sets}) > 1:
                raise ValueError(f"the sets of a mix must have the same {what}; {', '.join(names)} differ")
        if len({(each.cache.folder, each.cache.max_bytes) for each in sets}) > 1:
            raise ValueError(f"the sets of a mix share one cache folder and size; those of {', '.join(names)} differ")
        check_cache_size(sets)
        self.sets, self.seed, self.parts = tuple(sets), sets[0].seed, weights_to_parts(weights)

    def __len__(self) -> int:
        """Samples of all sets."""
        return sum(len(each) for each in self.sets)

    @property
    def shares(self) -> str:
        """The sets and the parts they have: mpii=0.4 threedpw=0.6."""
        return " ".join(f"{each.name}={part / PATTERN:g}" for each, part in zip(self.sets, self.parts, strict=True))

    @property
    def fingerprint(self) -> str:
        """Of what decides the order of each set."""
        return " ".join(f"{each.name}={each.fingerprint}" for each in self.sets)

    def other_than(self, fingerprint: str) -> str:
        """What is here instead of the data of that fingerprint; empty where it is the same."""
        saved = dict(part.rpartition("=")[::2] for part in fingerprint.split())
        others = [each.other_than(saved.get(each.name, "")) for each in self.sets]
        return ", ".join(f"{each.name}={other}" for each, other in zip(self.sets, others, strict=True) if other)

    def make_batches(self, global_batch: int, *, stream_groups: int, training: bool) -> GlobalBatches:
        """The order of a loader's batches."""
        if not training:
            raise ValueError("a mix has no end at which an evaluation would stop; evaluate its sets one by one")
        return MixOrder([_order(each, stream_groups) for each in self.sets], self.parts, global_batch=global_batch)


def parse_mix(items: Sequence[str]) -> list[MixItem]:
    """The sets of --mix NAME=ROOT:WEIGHT ...; ROOT may have colons of its own. ValueError names the bad item."""
    found: dict[str, MixItem] = {}
    for item in items:
        match = _ITEM.fullmatch(item)
        weight = None if match is None else _number(match["weight"])
        if match is None or weight is None:
            raise ValueError(
                f"--mix '{item}' is not NAME=ROOT:WEIGHT; an example: --mix h36m=drive:h36m:0.8 studio=data/studio:0.2"
            )
        if match["name"] in found:
            raise ValueError(f"--mix '{item}': the name {match['name']} is taken by {found[match['name']].root}")
        found[match["name"]] = MixItem(match["name"], match["root"], weight)
    return list(found.values())


def _number(text: str) -> float | None:
    """Above 0; None where it is not."""
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if weight > 0 and math.isfinite(weight) else None


def _order(dataset: StreamingChunkedDataset, stream_groups: int) -> SampleOrder:
    try:
        return dataset.make_order(stream_groups)
    except ValueError as error:
        raise ValueError(f"{dataset.name}: {error}") from None
