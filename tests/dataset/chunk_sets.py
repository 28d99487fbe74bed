"""Small sets of chunks for tests, and a cloud drive in a folder that can be slow, damaged or gone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from humanpose3d.chunks.codec import encode_sample
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.remotes import Entry, LocalStore, RcloneStore, RemoteError
from tests.records import random_samples


def write_set(
    folder: Path,
    samples: int,
    chunk_size: int,
    *,
    compress: str = "none",
    seed: int = 0,
    noise: bool = False,
    **changes,
) -> Path:
    """Chunks of random samples, 32 px small, with keys in stored order. noise: pictures that JPEG keeps large."""
    rng = np.random.default_rng(seed)
    plan = {"stage": "test", "seed": seed}
    with ChunkSetWriter(
        LocalStore(folder), prefix="train", chunk_size=chunk_size, compress=compress, plan=plan,
        staging=folder, state=dict,
    ) as writer:  # fmt: skip
        for position, sample in enumerate(random_samples(rng, samples, ("S1",), **({"size": 32} | changes))):
            if noise:
                sample = sample.with_(image=rng.integers(0, 255, sample.image.shape, dtype=np.uint8))
            writer.write(position, sample.key, encode_sample(sample))
        writer.finish()
    return folder


class Drive(RcloneStore):
    """A remote over a folder, without rclone: it counts what is fetched, and can misbehave."""

    def __init__(self, folder: Path, *, seconds: float = 0.0, damaged_times: int = 0, log: Path | None = None) -> None:
        super().__init__("drive", str(folder))
        self.files, self.seconds, self.damaged_times, self.log = LocalStore(folder), seconds, damaged_times, log
        self.fetched: list[str] = []
        self.is_gone = False

    def get(self, name: str, path: Path, *, size: int | None = None) -> None:
        if self.is_gone:
            raise RemoteError(f"{self.location} does not answer")
        self.fetched.append(name)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{name}\n")
        if self.seconds:
            path.with_name("half").write_bytes(b"half")
            time.sleep(self.seconds)
        self.files.get(name, path, size=size)
        if self.damaged_times:
            self.damaged_times -= 1
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)

    def list(self) -> tuple[Entry, ...]:
        return self.files.list()

    def folders(self) -> tuple[str, ...]:
        return self.files.folders()

    def stat(self, name: str) -> Entry | None:
        return self.files.stat(name)

    def read_bytes(self, name: str) -> bytes:
        return self.files.read_bytes(name)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self.files.read_range(name, offset, length)
