"""Small sets of chunks for tests, and what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.chunks.codec import encode_sample
from humanpose3d.chunks.layout import ChunkIndex, read_index
from humanpose3d.chunks.read import borrowed_chunk
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.remotes import open_store
from humanpose3d.sample import PoseSample
from tests.records import random_samples

Members = dict[str, bytes]


def samples_of(count: int, **changes: Any) -> list[PoseSample]:
    """`count` small samples of S1 and S9, the same at every call."""
    return random_samples(np.random.default_rng(0), count, size=32, **changes)


def write_set(
    location: str | Path,
    samples: Sequence[PoseSample],
    *,
    chunk_size: int = 10,
    compress: str = "none",
    prefix: str = "chunk",
    staging: Path | None = None,
) -> ChunkIndex:
    """A finished set of these samples."""
    with ChunkSetWriter(
        open_store(location), prefix=prefix, chunk_size=chunk_size, compress=compress,
        plan={"stage": "test", "samples": len(samples)}, staging=staging or Path("unused"), state=dict,
    ) as writer:  # fmt: skip
        for position, sample in enumerate(samples):
            writer.write(position, sample.key, encode_sample(sample))
        return writer.finish()


def read_set(location: str | Path, folder: Path) -> list[tuple[str, Members]]:
    """All samples of a set, in order: key and members."""
    store = open_store(location)
    found = []
    for entry in read_index(store).chunks:
        with borrowed_chunk(store, entry, folder) as chunk:
            found += [(chunk.key(index), chunk.read(index)) for index in range(len(chunk))]
    return found


def hashes(folder: Path) -> dict[str, str]:
    """Relative path -> hash, of all files but the reports, which tell the time."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("_report.json")
    }
