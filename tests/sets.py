"""Sets of chunks for tests, written by the real writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from humanpose3d.chunks.codec import encode_sample
from humanpose3d.chunks.layout import ChunkIndex
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.remotes import open_store
from humanpose3d.sample import PoseSample


def write_set(folder: Path, samples: Sequence[PoseSample], *, chunk_size: int = 8, prefix: str = "train") -> ChunkIndex:
    """A finished set of chunks in `folder`."""
    writer = ChunkSetWriter(
        open_store(folder),
        prefix=prefix,
        chunk_size=chunk_size,
        compress="none",
        plan={"stage": "test", "set": str(folder)},
        staging=folder / "staging",
        state=lambda: None,
    )
    with writer:
        for position, sample in enumerate(samples):
            writer.write(position, sample.key, encode_sample(sample))
        return writer.finish()
