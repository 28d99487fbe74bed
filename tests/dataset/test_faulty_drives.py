"""Epochs from real drives behind a faulty network: the very batches of a local run, or what is missing by name."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from humanpose3d.chunks.layout import index_chunks, read_index
from humanpose3d.chunks.read import open_chunk
from humanpose3d.dataset import cache as cache_module
from humanpose3d.dataset.cache import CacheFull
from humanpose3d.dataset.chunked_dataset import BrokenWindow, StreamingChunkedDataset, StreamingLoader
from humanpose3d.remotes import LocalStore, RemoteError, daemon, drive, rclone
from tests.chunks.sets import hashes
from tests.chunks.test_rechunk import shuffle
from tests.chunks.test_split import split
from tests.dataset.chunk_sets import write_set
from tests.faulty import Fault, FaultyProxy, busy, remote_settings, serving

SAMPLES, CHUNK = 60, 5  # twelve chunks of about 0.2 MB: three windows


def keys(samples, counted):
    return [sample.key for sample in samples]


def loader(
    source, cache: Path | None = None, workers: int = 0, cache_bytes: float = 1e9, fields=(), **changes
) -> StreamingLoader:
    where = {} if cache is None else {"cache_dir": cache, "cache_bytes": cache_bytes}
    dataset = StreamingChunkedDataset(source, fields=fields, seed=7, **where)
    return StreamingLoader(dataset, collate=keys, num_workers=workers, **({"global_batch": 5} | changes))


@pytest.fixture(scope="module")
def chunk_set(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), SAMPLES, CHUNK, size=128, noise=True)


@pytest.fixture(params=["s3", "webdav", "sftp"])
def proxy(request, chunk_set, tmp_path, monkeypatch) -> Iterator[FaultyProxy]:
    """Before a drive with the chunks in `drive:bucket`, whose folder is `tmp_path/drive/bucket`."""
    patience = 3.0 if request.param == "sftp" else 1.0  # it shakes hands for longer
    for module, name, value in (
        (rclone, "RETRY_DELAYS_S", (0.05, 0.1, 0.2)), (rclone, "OUTAGE_DELAYS_S", (0.05, 0.1, 0.2)),
        (rclone, "CONNECT_S", patience), (rclone, "IDLE_S", 0.6 * patience), (rclone, "LOW_LEVEL_RETRIES", 1),
        (daemon, "CRAWL_S", 0.5), (drive, "RANGE_BYTES", 1 << 16), (drive, "LARGE_RANGE_BYTES", 1 << 16),
        (cache_module, "RETRY_DELAYS_S", (0.05, 0.1)),
        (rclone, "LONGEST_PAUSE_S", 0.2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    shutil.copytree(chunk_set, tmp_path / "drive" / "bucket")
    with serving(request.param, tmp_path / "drive", tmp_path, remembers=True) as port, FaultyProxy(port) as proxy:
        (tmp_path / "rclone.conf").write_text(remote_settings(request.param, proxy.port))
        monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
        yield proxy


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_through_all_faults_has_the_batches_of_a_local_one(proxy, chunk_set, tmp_path, workers, monkeypatch):
    # One unlucky range may meet all of them: it is asked for once more often than there are faults.
    monkeypatch.setattr(rclone, "OUTAGE_DELAYS_S", (0.05, 0.1) + (0.2,) * 12)
    source = loader("drive:bucket", tmp_path / "cache", workers)
    faults = [Fault(kind, 20_000) for kind in ("cut", "reset", "corrupt", "hang", "crawl") for _ in range(2)]
    faults += [Fault("cut", 0)]
    if "type = sftp" not in Path(os.environ["RCLONE_CONFIG"]).read_text():
        faults += [busy(429), busy(503, 1)]  # sftp has no such answers
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


def again_and_again(stage, *arguments, **changes) -> None:
    """Until it ends well: a drive that failed too often in a row ends it in a line that says to run it again."""
    for _ in range(10):
        try:
            stage(*arguments, **changes)
            return
        except RemoteError as error:
            assert "\n" not in str(error)
    raise AssertionError("ten runs were not enough")


@pytest.mark.parametrize("proxy", ["s3", "webdav"], indirect=True)
def test_split_and_rechunk_through_a_broken_network_write_the_bytes_of_local_ones(
    proxy, chunk_set, tmp_path, monkeypatch
):
    monkeypatch.setattr(rclone, "IDLE_S", 1.5)  # an upload's answer takes its time
    faults = [Fault(kind, 20_000) for kind in ("cut", "reset", "cut", "reset", "crawl", "hang")]
    faults += [Fault("corrupt up", 20_000), busy(429), Fault("corrupt up", 20_000), busy(503, 1), Fault("cut", 0)]
    random.Random(6).shuffle(faults)
    proxy.plan(*faults)
    for source, target in (("drive:bucket", "drive:bucket/"), (chunk_set, f"{tmp_path}/local/")):
        again_and_again(split, tmp_path, source, f"{target}split", "S1", "", new_chunk_size=12)
        again_and_again(shuffle, tmp_path, f"{target}split", f"{target}shuffled")
    assert len(proxy.met) >= 8
    for stage in ("split", "shuffled"):
        assert hashes(tmp_path / "drive" / "bucket" / stage) == hashes(tmp_path / "local" / stage)


@pytest.mark.parametrize("proxy", ["s3", "webdav"], indirect=True)
def test_a_far_drive_gives_the_same_batches(proxy, chunk_set, tmp_path):
    source = loader("drive:bucket", tmp_path / "cache")
    proxy.delay_s = 0.06  # of every question
    assert list(source) == list(loader(chunk_set)) and not source.quarantined
    source.close()


@pytest.mark.parametrize("proxy, workers", [("s3", 0), ("webdav", 2)], indirect=["proxy"])
def test_a_drive_that_hangs_for_good_in_mid_epoch_ends_it_in_one_line(proxy, chunk_set, tmp_path, workers):
    source = loader("drive:bucket", tmp_path / "cache", workers)
    batches = iter(source)
    came = [next(batches)]
    proxy.plan(Fault("hang", 0, times=10_000))
    start = time.monotonic()
    with pytest.raises(
        BrokenWindow, match=r"nothing can be read from train_.* in drive:bucket; the last reason: "
    ) as error:
        for batch in batches:
            came.append(batch)
    assert time.monotonic() - start < 90 and "\n" not in str(error.value)
    assert came[0] == next(iter(loader(chunk_set)))
    assert set(source.quarantined) <= {entry.file for entry in read_index(LocalStore(chunk_set)).chunks}
    assert len(source.quarantined) >= 2, "every chunk that could not be had is named"
    source.close()


@pytest.mark.parametrize("proxy", ["s3"], indirect=True)
def test_a_chunk_renamed_on_the_drive_is_left_out_by_name_until_it_is_indexed_anew(proxy, chunk_set, tmp_path):
    folder = tmp_path / "drive" / "bucket"
    renamed = read_index(LocalStore(chunk_set)).chunks[4].file
    (folder / renamed).rename(folder / "train_000077.tar")
    source = loader("drive:bucket", tmp_path / "cache")
    came = set(itertools.chain(*source))
    assert source.quarantined.keys() == {renamed} and "missing" in source.quarantined[renamed]
    assert not {int(key.split("-")[4]) // CHUNK for key in came} & {4}
    source.close()
    (folder / "index.json").unlink()
    index_chunks(LocalStore(folder))
    source = loader(folder)
    assert len(set(itertools.chain(*source))) == SAMPLES and not source.quarantined


@pytest.mark.parametrize("proxy, workers", [("s3", 0), ("webdav", 2)], indirect=["proxy"])
def test_a_broken_picture_in_a_whole_chunk_is_left_out_by_name(proxy, chunk_set, tmp_path, workers):
    folder = tmp_path / "drive" / "bucket"
    broken = read_index(LocalStore(chunk_set)).chunks[2].file
    opened = open_chunk(folder / broken)
    key, column = opened.key(3), opened.table.extensions.index("image.jpg")
    start, size = int(opened.table.offsets[3, column]), int(opened.table.sizes[3, column])
    opened.close()
    with (folder / broken).open("r+b") as file:  # its ends stay, and the index knows the chunk as it is
        file.seek(start + 2)
        file.write(bytes(size - 4))
    (folder / "index.json").unlink()
    index_chunks(LocalStore(folder))
    source = loader("drive:bucket", tmp_path / "cache", workers, fields=("image",))
    came = list(itertools.chain(*source))
    assert list(source.quarantined) == [f"{broken}:{key}"] and "image.jpg" in source.quarantined[f"{broken}:{key}"]
    expected = list(itertools.chain(*loader(folder)))  # reads no pictures, and misses nothing
    changed = [(old, new) for old, new in zip(expected, came, strict=True) if new != old]
    assert [old for old, _ in changed] == [key] and key not in came
    source.close()


@pytest.fixture
def small_disk(chunk_set, tmp_path) -> Iterator[Path]:
    """A real disk with room for ten of the twelve chunks."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = int(10.5 * max(entry.bytes for entry in read_index(LocalStore(chunk_set)).chunks))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user cannot mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("proxy", ["webdav"], indirect=True)
def test_an_epoch_through_a_cache_that_fills_its_disk(proxy, chunk_set, small_disk):
    source = loader("drive:bucket", small_disk)  # which it believes to be larger
    assert list(source) == list(loader(chunk_set)) and not source.quarantined
    source.close()


@pytest.mark.parametrize("proxy", ["webdav"], indirect=True)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_on_a_full_disk_ends_the_epoch_in_one_line(proxy, small_disk, workers):
    source = loader("drive:bucket", small_disk, workers)
    with (small_disk / "somebody's").open("wb") as somebodys, pytest.raises(OSError, match="No space"):
        while True:
            somebodys.write(bytes(1 << 16))
            somebodys.flush()
    with pytest.raises(CacheFull, match="--cache-dir"):
        list(source)
    assert not source.quarantined, "no chunk is broken"
    source.close()


NODE = """
import json, sys
from tests.dataset.test_faulty_drives import loader
cache, rank = sys.argv[1:]
source = loader("drive:bucket", cache, rank=int(rank), world_size=4, stream_groups=2, global_batch=4)
for batch in source:
    print(*batch, flush=True)
assert not source.quarantined
"""


@pytest.mark.parametrize("proxy", ["s3"], indirect=True)
def test_two_nodes_of_two_processes_fetch_a_share_each_and_give_the_batches_of_one_process(proxy, chunk_set, tmp_path):
    root = Path(__file__).parents[2]
    ranks = []
    for rank in range(4):
        node = tmp_path / f"node{rank // 2}"
        node.mkdir(exist_ok=True)
        # A configuration of its own: a daemon of its own, as another machine has.
        shutil.copy(tmp_path / "rclone.conf", node / "rclone.conf")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")]), "RCLONE_CONFIG": str(node / "rclone.conf"),
        }  # fmt: skip
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", NODE, str(node / "cache"), str(rank)],
                env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )
        )  # fmt: skip
    told = [rank.communicate(timeout=90)[0].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 4
    alone = [" ".join(batch) for batch in loader(chunk_set, stream_groups=2, global_batch=4)]
    assert [" ".join(parts) for parts in zip(*told, strict=True)] == alone
    fetched = [{path.name for path in (tmp_path / f"node{n}" / "cache" / "chunks").glob("*.tar")} for n in (0, 1)]
    assert len(fetched[0]) == len(fetched[1]) == SAMPLES // CHUNK // 2 and not fetched[0] & fetched[1]


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
    limit = 8.5 * max(entry.bytes for entry in read_index(LocalStore(chunk_set)).chunks)
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
