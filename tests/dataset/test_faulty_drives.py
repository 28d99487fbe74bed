"""Epochs from real drives behind a faulty network: the very batches of a local run, or what is missing by name."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from humanpose3d.chunks.layout import read_index
from humanpose3d.dataset import cache as cache_module
from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
from humanpose3d.remotes import LocalStore, daemon, drive, rclone
from tests.dataset.chunk_sets import write_set
from tests.faulty import Fault, FaultyProxy, busy, remote_settings, serving

SAMPLES, CHUNK = 60, 5  # twelve chunks of about 0.2 MB: three windows


def keys(samples, counted):
    return [sample.key for sample in samples]


def loader(source, cache: Path | None = None, workers: int = 0, cache_bytes: float = 1e9) -> StreamingLoader:
    changes = {} if cache is None else {"cache_dir": cache, "cache_bytes": cache_bytes}
    dataset = StreamingChunkedDataset(source, fields=(), seed=7, **changes)
    return StreamingLoader(dataset, global_batch=5, collate=keys, num_workers=workers)


@pytest.fixture(scope="module")
def chunk_set(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), SAMPLES, CHUNK, size=128, noise=True)


@pytest.fixture(params=["s3", "webdav"])
def proxy(request, chunk_set, tmp_path, monkeypatch) -> Iterator[FaultyProxy]:
    """Before a drive with the chunks in `drive:bucket`, whose folder is `tmp_path/drive/bucket`."""
    for module, name, value in (
        (rclone, "RETRY_DELAYS_S", (0.05, 0.1, 0.2)), (rclone, "OUTAGE_DELAYS_S", (0.05, 0.1, 0.2)),
        (rclone, "CONNECT_S", 1.0), (rclone, "IDLE_S", 0.6), (rclone, "LOW_LEVEL_RETRIES", 1),
        (daemon, "CRAWL_S", 0.5), (drive, "RANGE_BYTES", 1 << 16), (cache_module, "RETRY_DELAYS_S", (0.05, 0.1)),
        (rclone, "LONGEST_PAUSE_S", 0.2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    shutil.copytree(chunk_set, tmp_path / "drive" / "bucket")
    with serving(request.param, tmp_path / "drive", tmp_path) as port, FaultyProxy(port) as proxy:
        (tmp_path / "rclone.conf").write_text(remote_settings(request.param, proxy.port))
        monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
        yield proxy


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_through_all_faults_has_the_batches_of_a_local_one(proxy, chunk_set, tmp_path, workers):
    source = loader("drive:bucket", tmp_path / "cache", workers)
    faults = [Fault(kind, 20_000) for kind in ("cut", "corrupt", "hang", "crawl") for _ in range(2)]
    faults += [busy(429), busy(503, 1), Fault("cut", 0)]
    random.Random(5).shuffle(faults)
    proxy.plan(*faults)
    assert list(source) == list(loader(chunk_set))
    assert len(proxy.met) >= 6 and not source.quarantined
    source.close()


def test_what_is_damaged_on_the_drive_itself_is_left_out_by_name(proxy, chunk_set, tmp_path):
    folder = tmp_path / "drive" / "bucket"
    entries = read_index(LocalStore(chunk_set)).chunks
    damaged, cut, missing = (folder / entries[number].file for number in (1, 5, 10))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-2000])
    missing.unlink()
    source = loader("drive:bucket", tmp_path / "cache")
    batches = list(source)
    assert len(batches) == SAMPLES // 5
    assert source.quarantined.keys() == {damaged.name, cut.name, missing.name}
    assert "checksum" in source.quarantined[damaged.name] and "bytes" in source.quarantined[cut.name]
    assert "missing" in source.quarantined[missing.name]
    broken = {1, 5, 10}
    for old, new in zip(itertools.chain(*loader(chunk_set)), itertools.chain(*batches), strict=True):
        chunk = int(old.split("-")[4]) // CHUNK
        assert (new != old) == (chunk in broken)
    source.close()


TRAIN = """
import sys
from tests.dataset.test_faulty_drives import loader
source = loader("drive:bucket", sys.argv[1], cache_bytes=float(sys.argv[2]))
for batch in source:
    print(*batch)
assert not source.quarantined
"""


@pytest.mark.parametrize("proxy", ["webdav"], indirect=True)
def test_two_trainings_on_one_small_cache_read_the_same(proxy, chunk_set, tmp_path):
    limit = 6.5 * max(entry.bytes for entry in read_index(LocalStore(chunk_set)).chunks)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    trainings = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(tmp_path / "cache"), str(limit)],
            env=environment, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    told = [each.communicate(timeout=60)[0].splitlines() for each in trainings]
    assert [each.returncode for each in trainings] == [0, 0]
    expected = [" ".join(batch) for batch in loader(chunk_set)]
    assert told == [expected, expected]
