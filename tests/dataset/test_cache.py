"""Chunks of a remote on this machine: whole, checked, shared, bounded, and safe after a kill."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from humanpose3d.chunks.layout import read_index
from humanpose3d.dataset import cache as cache_module
from humanpose3d.dataset.cache import BrokenChunk, CacheFull, ChunkCache, Prefetcher
from humanpose3d.remotes import LocalStore, open_store
from tests.dataset.chunk_sets import Drive, write_set

PLENTY = 10**9


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(cache_module, "RETRY_DELAYS_S", (0.01, 0.01))


@pytest.fixture(scope="module")
def chunk_set(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), samples=12, chunk_size=2, image=False)


@pytest.fixture(scope="module")
def packed_set(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("packed"), samples=4, chunk_size=2, compress="gz", image=False)


def entries_of(folder: Path):
    return read_index(LocalStore(folder)).chunks


def cached(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "chunks").glob("*.tar"))


def wait_until(is_so) -> None:
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def test_a_local_chunk_is_read_in_place(chunk_set, tmp_path):
    cache = ChunkCache(LocalStore(chunk_set), tmp_path / "cache", PLENTY)
    entry = entries_of(chunk_set)[1]
    assert cache.take(entry).path == chunk_set / entry.file
    assert not (tmp_path / "cache").exists()


def test_a_remote_chunk_is_fetched_once_and_is_the_same(chunk_set, tmp_path):
    drive = Drive(chunk_set)
    entry = entries_of(chunk_set)[0]
    with ChunkCache(drive, tmp_path, PLENTY).take(entry) as lease:
        assert lease.path.read_bytes() == (chunk_set / entry.file).read_bytes()
        assert lease.path.with_suffix(".idx").is_file()
    ChunkCache(drive, tmp_path, PLENTY).take(entry)
    assert drive.fetched == [entry.file]
    assert not list((tmp_path / "fetching").iterdir())


def test_a_packed_chunk_is_unpacked_once(packed_set, tmp_path):
    import gzip

    entry = entries_of(packed_set)[0]
    for store in (LocalStore(packed_set), Drive(packed_set)):
        path = ChunkCache(store, tmp_path, PLENTY).take(entry).path
        assert path.read_bytes() == gzip.decompress((packed_set / entry.file).read_bytes())
    assert len(cached(tmp_path)) == 2, "two stores, two places"


def test_a_chunk_damaged_on_the_way_is_fetched_again(chunk_set, tmp_path):
    drive = Drive(chunk_set, damaged_times=2)
    entry = entries_of(chunk_set)[0]
    path = ChunkCache(drive, tmp_path, PLENTY).take(entry).path
    assert path.read_bytes() == (chunk_set / entry.file).read_bytes()
    assert len(drive.fetched) == 3


def test_a_chunk_that_stays_damaged_is_broken_and_not_asked_for_again(chunk_set, tmp_path):
    drive = Drive(chunk_set, damaged_times=1000)
    entry = entries_of(chunk_set)[0]
    for _ in range(3):
        with pytest.raises(BrokenChunk, match=f"{entry.file} does not have the checksum"):
            ChunkCache(drive, tmp_path, PLENTY).take(entry)
    assert len(drive.fetched) == 3
    assert not cached(tmp_path)


def test_a_broken_chunk_is_asked_for_again_later(chunk_set, tmp_path, monkeypatch):
    drive = Drive(chunk_set, damaged_times=3)
    cache, entry = ChunkCache(drive, tmp_path, PLENTY), entries_of(chunk_set)[0]
    with pytest.raises(BrokenChunk):
        cache.take(entry)
    monkeypatch.setattr(cache_module, "BROKEN_FOR_S", 0.0)
    assert cache.take(entry).path.is_file()


FIND_BROKEN = """
import sys, time
from pathlib import Path
from humanpose3d.chunks.layout import read_index
from humanpose3d.dataset.cache import BrokenChunk, ChunkCache
from humanpose3d.remotes import LocalStore
from tests.dataset.chunk_sets import Drive
folder, cache = map(Path, sys.argv[1:])
try:
    ChunkCache(Drive(folder, damaged_times=1000), cache, 10**9).take(read_index(LocalStore(folder)).chunks[0])
except BrokenChunk:
    print("broken", flush=True)
time.sleep(60)
"""


def test_a_chunk_that_was_mended_is_asked_for_at_once_by_the_next_run(chunk_set, tmp_path):
    entry = entries_of(chunk_set)[0]
    command = [sys.executable, "-c", FIND_BROKEN, str(chunk_set), str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "broken\n"
        drive = Drive(chunk_set)
        with pytest.raises(BrokenChunk, match="does not have the checksum"):  # of the same run, as far as one can tell
            ChunkCache(drive, tmp_path, PLENTY).take(entry)
        assert not drive.fetched
        other.kill()
    assert ChunkCache(drive, tmp_path, PLENTY).take(entry).path.is_file()
    assert not list((tmp_path / "locks").glob("life-*"))


def test_a_missing_chunk_and_a_gone_remote_are_named(chunk_set, tmp_path):
    import dataclasses

    drive = Drive(chunk_set)
    lost = dataclasses.replace(entries_of(chunk_set)[0], file="train_000099.tar", number=99)
    with pytest.raises(BrokenChunk, match="train_000099.tar"):
        ChunkCache(drive, tmp_path, PLENTY).take(lost)
    drive.is_gone = True
    with pytest.raises(BrokenChunk, match="does not answer"):
        ChunkCache(drive, tmp_path, PLENTY).take(entries_of(chunk_set)[1])


def test_a_local_chunk_of_another_size_or_missing_is_broken(tmp_path):
    folder = write_set(tmp_path / "set", samples=4, chunk_size=2, image=False)
    first, second = entries_of(folder)
    with (folder / first.file).open("r+b") as file:
        file.truncate(first.bytes - 512)
    (folder / second.file).unlink()
    cache = ChunkCache(LocalStore(folder), tmp_path / "cache", PLENTY)
    with pytest.raises(BrokenChunk, match=f"{first.file} has {first.bytes - 512} bytes where"):
        cache.take(first)
    with pytest.raises(BrokenChunk, match=f"{second.file} is missing"):
        cache.take(second)


def test_the_longest_unused_chunk_goes_first(chunk_set, tmp_path):
    entries = entries_of(chunk_set)
    limit = sum(entry.bytes for entry in entries[:3])
    cache = ChunkCache(Drive(chunk_set), tmp_path, limit)
    for entry in (entries[0], entries[1], entries[2], entries[0]):
        cache.take(entry).release()
    cache.take(entries[3]).release()
    names = " ".join(cached(tmp_path))
    assert entries[1].file[:-4] not in names and entries[0].file[:-4] in names
    assert sum(path.stat().st_size for path in (tmp_path / "chunks").glob("*.tar")) <= limit
    assert not list((tmp_path / "chunks").glob(f"*{entries[1].file[:-4]}*"))


def test_a_chunk_in_use_is_not_evicted(chunk_set, tmp_path):
    entries = entries_of(chunk_set)
    cache = ChunkCache(Drive(chunk_set), tmp_path, entries[0].bytes + entries[1].bytes)
    with cache.take(entries[0]) as held:
        for entry in entries[1:]:
            cache.take(entry).release()
        assert held.path.is_file()
    cache.take(entries[1]).release()
    assert not held.path.is_file(), "after its release it goes as any other"


def test_a_disk_without_room_is_told_in_one_line(chunk_set, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(CacheFull, match=r"has 0.00 GB left.*--cache-dir"):
        ChunkCache(Drive(chunk_set), tmp_path, PLENTY).take(entries_of(chunk_set)[0])


def test_a_set_written_anew_is_not_mistaken_for_the_old_one(tmp_path):
    folder = tmp_path / "set"
    for seed in (1, 2):
        write_set(folder, samples=2, chunk_size=2, seed=seed, image=False)
        entry = entries_of(folder)[0]
        path = ChunkCache(Drive(folder), tmp_path / "cache", PLENTY).take(entry).path
        assert path.read_bytes() == (folder / entry.file).read_bytes()
        for file in folder.iterdir():
            file.unlink()


TAKE_ALL = """
import sys
from pathlib import Path
from humanpose3d.chunks.layout import read_index
from humanpose3d.dataset.cache import ChunkCache
from humanpose3d.remotes import LocalStore
from tests.dataset.chunk_sets import Drive
folder, cache, log, limit, seconds = sys.argv[1:]
cache = ChunkCache(Drive(Path(folder), seconds=float(seconds), log=Path(log)), Path(cache), int(limit))
for _ in range(2):
    for entry in read_index(LocalStore(Path(folder))).chunks:
        with cache.take(entry) as lease:
            assert lease.path.read_bytes() == (Path(folder) / entry.file).read_bytes()
"""


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}


def taker(folder: Path, cache: Path, log: Path, limit: int, seconds: float) -> subprocess.Popen:
    arguments = [str(part) for part in (folder, cache, log, limit, seconds)]
    return subprocess.Popen([sys.executable, "-c", TAKE_ALL, *arguments], env=environment())


def test_processes_share_one_fetch(chunk_set, tmp_path):
    takers = [taker(chunk_set, tmp_path / "cache", tmp_path / "log", PLENTY, 0.25) for _ in range(3)]
    assert [process.wait(timeout=60) for process in takers] == [0, 0, 0]
    assert set(Counter((tmp_path / "log").read_text().split()).values()) == {1}


def test_processes_under_a_tight_limit_always_read_whole_chunks(chunk_set, tmp_path):
    limit = 2 * entries_of(chunk_set)[0].bytes
    takers = [taker(chunk_set, tmp_path / "cache", tmp_path / "log", limit, 0.0) for _ in range(3)]
    assert [process.wait(timeout=60) for process in takers] == [0, 0, 0]
    assert len(cached(tmp_path / "cache")) <= 4  # two, and one held by each other process at its last eviction


def test_a_killed_fetch_leaves_nothing_in_the_way(chunk_set, tmp_path):
    cache = tmp_path / "cache"
    process = taker(chunk_set, cache, tmp_path / "log", PLENTY, 60.0)
    wait_until(lambda: list((cache / "fetching").glob("*/half")))
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    assert not cached(cache)
    entries = entries_of(chunk_set)
    ChunkCache(Drive(chunk_set), cache, PLENTY).take(entries[1]).release()
    assert len(list((cache / "fetching").iterdir())) == 1, "it waits for somebody to go on with it"
    with ChunkCache(Drive(chunk_set), cache, PLENTY).take(entries[0]) as lease:
        assert lease.path.read_bytes() == (chunk_set / entries[0].file).read_bytes()


def test_what_a_killed_fetch_left_goes_after_an_hour_or_when_the_room_is_needed(chunk_set, tmp_path, monkeypatch):
    entries = entries_of(chunk_set)
    cache = ChunkCache(Drive(chunk_set), tmp_path, PLENTY)
    for chunk, make_due in ((1, "age"), (2, "room")):
        left = tmp_path / "fetching" / f"left{chunk}"
        left.mkdir(parents=True)
        (left / "reserved").touch()
        if make_due == "age":
            os.utime(left / "reserved", (0, 0))
        else:
            sizes = iter([10, 10])  # of the disk, before and after the sweep
            monkeypatch.setattr(
                cache_module.shutil, "disk_usage", lambda path, sizes=sizes: SimpleNamespace(free=next(sizes, PLENTY))
            )
        cache.take(entries[chunk]).release()
        assert not left.exists()


def test_a_disk_that_others_fill_ends_in_one_line_not_in_quarantine(chunk_set, tmp_path):
    class Full(Drive):
        def get(self, name, path, *, size=None):
            self.fetched.append(name)
            raise OSError(errno.ENOSPC, "No space left on device")

    drive = Full(chunk_set)
    with pytest.raises(CacheFull, match="--cache-dir"):
        ChunkCache(drive, tmp_path, PLENTY).take(entries_of(chunk_set)[0])
    assert len(drive.fetched) == 3 and not list((tmp_path / "fetching").iterdir())


def test_a_disk_with_room_for_two_chunks_serves_all_of_them(chunk_set, tmp_path):
    """A real small disk; the cache may use more than it has."""
    disk = tmp_path / "disk"
    disk.mkdir()
    entries = entries_of(chunk_set)
    size = 4 * max(entry.bytes for entry in entries)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        cache = ChunkCache(Drive(chunk_set), disk, PLENTY)
        for entry in entries:
            with cache.take(entry) as lease:
                assert lease.path.read_bytes() == (chunk_set / entry.file).read_bytes()
        somebodys = os.open(disk / "somebody's", os.O_CREAT | os.O_WRONLY)
        with pytest.raises(OSError, match="No space"):
            while True:
                os.write(somebodys, bytes(4096))
        os.close(somebodys)
        held = [cache.take(entry) for entry in entries if cache._path(entry).is_file()]
        absent = next(entry for entry in entries if not cache._path(entry).is_file())
        with pytest.raises(CacheFull, match="--cache-dir"):
            cache.take(absent)
        del held
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_waiting_for_another_process_has_a_limit(chunk_set, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "LEAST_WAIT_S", 0.2)
    monkeypatch.setattr(cache_module, "SLOWEST_BYTES_PER_S", 1e9)
    cache, entry = ChunkCache(Drive(chunk_set), tmp_path, PLENTY), entries_of(chunk_set)[0]
    with cache_module._locked(cache._lock_path(cache._path(entry)), 0.0), pytest.raises(TimeoutError, match="hanging"):
        cache.take(entry)


def test_prefetching_brings_what_is_wanted_and_fits(chunk_set, tmp_path):
    drive, entries = Drive(chunk_set), entries_of(chunk_set)
    cache = ChunkCache(drive, tmp_path, sum(entry.bytes for entry in entries[:4]))
    prefetcher = Prefetcher(cache.max_bytes)
    prefetcher.want((cache, entry) for entry in entries)
    wait_until(lambda: len(cached(tmp_path)) == 4)
    prefetcher.close()
    time.sleep(0.1)
    assert sorted(drive.fetched) == [entry.file for entry in entries[:4]]


def test_prefetching_leaves_broken_chunks_to_the_reader(chunk_set, tmp_path):
    drive, entries = Drive(chunk_set, damaged_times=3), entries_of(chunk_set)
    prefetcher = Prefetcher(PLENTY, threads=1)
    prefetcher.want((ChunkCache(drive, tmp_path, PLENTY), entry) for entry in entries[:2])
    wait_until(lambda: len(cached(tmp_path)) == 1)
    prefetcher.close()
    with pytest.raises(BrokenChunk):
        ChunkCache(drive, tmp_path, PLENTY).take(entries[0])


def test_a_real_remote_is_cached_too(chunk_set, tmp_path, s3_remote):
    store = open_store(s3_remote.location)
    for file in chunk_set.iterdir():
        store.put(file, file.name)
    entry = read_index(store).chunks[2]
    with ChunkCache(store, tmp_path / "cache", PLENTY).take(entry) as lease:
        assert lease.path.read_bytes() == (chunk_set / entry.file).read_bytes()
