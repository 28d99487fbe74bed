"""Chunks on this machine: local ones where they lie, those of a remote or packed ones in a folder with a size limit.

The folder is shared by all processes of a machine. Every lock is the system's (`flock`), so a killed process leaves
none behind; a file there under its final name is whole and checked.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from humanpose3d.chunks.layout import ChunkEntry
from humanpose3d.chunks.read import OffsetTable, fetch_chunk, idx_path, is_compressed
from humanpose3d.files import write_whole
from humanpose3d.remotes import SLOWEST_BYTES_PER_S, RemoteError, Store

RETRY_DELAYS_S = (1.0, 5.0)  # between fetches that arrived damaged; what did not arrive, the store has asked for again
BROKEN_FOR_S = 600.0  # a chunk that stayed broken is asked for again after this long, or by a new run
LOCK_POLL_S = 0.05
LEAST_WAIT_S = 900.0  # for a chunk that another process is fetching; longer for a large one
FULL_TRIES = 3  # to fetch a chunk while others fill the same disk
FULL_WAIT_S = 60.0  # for chunks being fetched ahead to arrive, so that they can make room
HELD_S = 1.0  # so long nothing goes over the limit for chunks that are held, and maybe just for a moment
LEFTOVER_S = 3600.0  # what a killed process had fetched of a chunk waits so long for the next one to go on with it
PREFETCH_THREADS = 4

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class BrokenChunk(ValueError):
    """A chunk that cannot be had whole: missing, damaged, or not what the index says. Its samples are left out."""


class CacheFull(OSError):
    """The disk under the cache has no room for one more chunk."""


class _OverLimit(CacheFull):
    """What is being read and fetched leaves no room for one more chunk below the cache's limit."""


class Lease:
    """A chunk's file, kept from eviction until released."""

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path, self._descriptor = path, descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class ChunkCache:
    """Gives out the chunks of one store as files. Can be sent to another process."""

    def __init__(self, store: Store, folder: Path, max_bytes: int, *, unpacked: float = 1.0) -> None:
        """unpacked: how many times as large as a .tar.gz of the store the tar in it is."""
        self.store, self.folder, self.max_bytes = store, Path(folder), int(max_bytes)
        self._unpacked = unpacked
        self._source = hashlib.sha256(store.place.encode()).hexdigest()[:8]

    def is_in_place(self, entry: ChunkEntry) -> bool:
        """The chunk is read where it lies and never copied."""
        return self.store.is_local and not is_compressed(entry.file)

    def size(self, entry: ChunkEntry) -> int:
        """Bytes that a chunk takes here, unpacked; 0 where it is read where it lies."""
        if self.is_in_place(entry):
            return 0
        return int(entry.bytes * self._unpacked) if is_compressed(entry.file) else entry.bytes

    def needed(self, entry: ChunkEntry) -> int:
        """Bytes that a chunk takes while it is brought here: a remote's .tar.gz lies beside what is in it."""
        return self.size(entry) + (entry.bytes if is_compressed(entry.file) and not self.store.is_local else 0)

    def take(self, entry: ChunkEntry) -> Lease:
        """The chunk's tar, fetched if need be. BrokenChunk; CacheFull; TimeoutError where another process hangs."""
        if self.is_in_place(entry):
            return Lease(_checked_in_place(self.store.local_path(entry.file), entry))
        path = self._path(entry)
        lease = _hold(path)
        if lease is not None:
            return lease
        try:
            with _locked(self._lock_path(path), LEAST_WAIT_S + self.needed(entry) / SLOWEST_BYTES_PER_S):
                return _hold(path) or self._fetch_patiently(entry, path)
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise self._full(entry.bytes) from error  # not even a lock or a folder has room

    def fetch_ahead(self, entry: ChunkEntry) -> None:
        """Puts a chunk into the folder, unless it is there or another process has it in hand. CacheFull."""
        path = self._path(entry)
        lease = _hold(path)
        if lease is None:
            try:
                with _locked(self._lock_path(path), 0.0):
                    lease = _hold(path) or self._fetch(entry, path)
            except TimeoutError:
                return
        lease.release()

    def _path(self, entry: ChunkEntry) -> Path:
        # The checksum is in the name: a set written anew at the same place is not mistaken for the old one.
        return self.folder / "chunks" / f"{self._source}-{entry.file.split('.')[0]}-{entry.crc32:08x}.tar"

    def _work_folder(self, path: Path) -> Path:
        return self.folder / "fetching" / path.stem

    def _lock_path(self, path: Path) -> Path:
        return self.folder / "locks" / f"{path.stem}.lock"

    def _fetch_patiently(self, entry: ChunkEntry, path: Path) -> Lease:
        """Where disk or cache are full of what others are just fetching, waits until that can be evicted. Over the
        cache's limit only where other processes read so much of it: a training is not to end for that."""
        begun, within_limit = time.monotonic(), True
        while True:
            try:
                return self._fetch(entry, path, within_limit=within_limit)
            except CacheFull as error:
                is_over, waited_s = isinstance(error, _OverLimit), time.monotonic() - begun
                # What has just come is held for a moment, by the thread that fetched it ahead.
                is_coming = self._reserved(self._work_folder(path)) or (is_over and waited_s < HELD_S)
                if not is_coming or waited_s > FULL_WAIT_S:
                    if not is_over:
                        raise
                    within_limit = False
            time.sleep(LOCK_POLL_S)

    def _fetch(self, entry: ChunkEntry, path: Path, *, within_limit: bool = True) -> Lease:
        """With the chunk's lock held."""
        broken = self.folder / "broken" / path.stem
        if reason := self._known_broken(broken):
            raise BrokenChunk(reason)
        work = self._work_folder(path)
        try:
            for _ in range(FULL_TRIES):
                self._reserve(work, self.needed(entry), within_limit)
                try:
                    return self._fetch_with_retries(entry, path, work)
                except OSError as error:
                    if error.errno not in _DISK_FULL:
                        raise
                    shutil.rmtree(work, ignore_errors=True)  # somebody else took the room that there was
            raise self._full(entry.bytes)
        except BrokenChunk as error:
            write_whole(broken, f"{_sign_of_life(self.folder / 'locks').name}\n{error}".encode())
            raise
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _known_broken(self, broken: Path) -> str:
        """Why a chunk could not be had lately; "" where the process that found it out has ended: a user who has mended
        the chunk since starts the next run at once."""
        if _age_s(broken) >= BROKEN_FOR_S:
            return ""
        name, _, reason = broken.read_text().partition("\n")
        life = self.folder / "locks" / name
        if (lease := _hold(life)) is not None:
            life.unlink(missing_ok=True)
            lease.release()
        return reason if life.is_file() else ""

    def _fetch_with_retries(self, entry: ChunkEntry, path: Path, work: Path) -> Lease:
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                return self._fetch_once(entry, path, work)
            except (FileNotFoundError, RemoteError) as error:
                raise BrokenChunk(str(error)) from error
            except ValueError as error:
                # A local file is the same the next time; what came over a wire may have been damaged on the way.
                if delay_s is None or self.store.is_local:
                    raise BrokenChunk(str(error)) from error
                time.sleep(delay_s)
        raise AssertionError

    def _fetch_once(self, entry: ChunkEntry, path: Path, work: Path) -> Lease:
        arrived = work / "chunk.tar"
        fetch_chunk(self.store, entry, arrived)
        OffsetTable.scan(arrived).save(idx_path(arrived))
        # Held before it has its final name, so that nobody can evict it in between.
        descriptor = os.open(arrived, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.fsync(descriptor)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(idx_path(arrived), idx_path(path))
        os.replace(arrived, path)
        return Lease(path, descriptor)

    def _reserve(self, work: Path, needed: int, within_limit: bool) -> None:
        """Room for a chunk, made by evicting the longest unused. A sparse file says to others that it is taken."""
        with _locked(self.folder / "locks" / "evict.lock", LEAST_WAIT_S):
            self._make_room(needed, within_limit, but=work)
            work.mkdir(parents=True, exist_ok=True)
            with (work / "reserved").open("wb") as file:
                file.truncate(needed)

    def _make_room(self, needed: int, within_limit: bool, *, but: Path) -> None:
        """`but`: the folder that the room is for; what a killed process left there is gone on with."""
        self._sweep(LEFTOVER_S, but)
        if shutil.disk_usage(self.folder).free < needed:
            self._sweep(0.0, but)
        coming = self._reserved(but)  # looked at first: what arrives in between is seen twice, and not overlooked
        chunks = sorted(self._chunks(), key=lambda found: found[0])
        used = sum((coming | {path.stem: size for _, size, path in chunks}).values())
        for _, size, path in chunks:
            is_tight = shutil.disk_usage(self.folder).free < needed
            if (used + needed > self.max_bytes or is_tight) and _evict(path):
                used -= size
        if within_limit and used + needed > self.max_bytes:
            raise _OverLimit(f"the cache {self.folder} is full of chunks that are being read")
        if shutil.disk_usage(self.folder).free < needed:
            raise self._full(needed)

    def _full(self, needed: int) -> CacheFull:
        free = shutil.disk_usage(self.folder).free
        return CacheFull(
            f"the disk of the cache {self.folder} has {free / 1e9:.2f} GB left, and the next chunk needs "
            f"{needed / 1e9:.2f}; free some, or choose another --cache-dir"
        )

    def _chunks(self) -> Iterator[tuple[int, int, Path]]:
        """(when last used, bytes, path) of each chunk in the folder."""
        for path in (self.folder / "chunks").glob("*.tar"):
            if (status := _status(path)) is not None:
                yield status.st_mtime_ns, status.st_size, path

    def _reserved(self, but: Path) -> dict[str, int]:
        """Chunk -> bytes, of those that are being fetched, into other folders than `but`."""
        works = [work for work in (self.folder / "fetching").glob("*") if work != but]
        found = {work.name: _status(work / "reserved") for work in works}
        return {name: status.st_size for name, status in found.items() if status is not None}

    def _sweep(self, older_s: float, but: Path) -> None:
        """Removes what killed processes were fetching: nobody holds its lock."""
        for work in (self.folder / "fetching").glob("*"):
            if work == but or _age_s(work / "reserved") < older_s:
                continue
            try:
                with _locked(self.folder / "locks" / f"{work.name}.lock", 0.0):
                    shutil.rmtree(work, ignore_errors=True)
            except TimeoutError:
                continue  # alive


Wish = tuple[ChunkCache, ChunkEntry]


class Prefetcher:
    """Threads that bring chunks into a cache ahead of the reader, in the order it will need them."""

    def __init__(self, max_bytes: int, threads: int = PREFETCH_THREADS) -> None:
        self._max_bytes = max_bytes
        self._wanted: deque[Wish] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def want(self, wishes: Iterable[Wish]) -> None:
        """The chunks needed next, soonest first; as many as fit into the cache. Replaces earlier wishes."""
        room = self._max_bytes
        wanted: deque[Wish] = deque()
        for cache, entry in wishes:
            room -= cache.needed(entry)
            if room < 0:
                break
            wanted.append((cache, entry))
        with self._changed:
            self._wanted = wanted
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads after what they are fetching; does not wait for it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while (wish := self._next()) is not None:
            cache, entry = wish
            try:
                cache.fetch_ahead(entry)
            except (BrokenChunk, OSError):
                continue  # the reader meets it too, and is the one who names and counts it

    def _next(self) -> Wish | None:
        with self._changed:
            while not self._wanted and not self._is_closed:
                self._changed.wait()
            return None if self._is_closed else self._wanted.popleft()


def _checked_in_place(path: Path, entry: ChunkEntry) -> Path:
    """A local chunk's path. Its size is compared, not its checksum: that would read the whole file for one sample."""
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise BrokenChunk(f"{path} is missing; copy it there, or index what is left with 'humanpose3d index'")
    if size != entry.bytes:
        raise BrokenChunk(
            f"{path} has {size} bytes where index.json says {entry.bytes}; "
            "copy it again from where it came, or remove it and index what is left with 'humanpose3d index'"
        )
    return path


def _hold(path: Path) -> Lease | None:
    """A lease on a chunk in the folder, now its most recently used; None where it is not there or is just going."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            os.utime(descriptor)
            return Lease(path, descriptor)
    except BlockingIOError:
        pass  # the evictor has it
    os.close(descriptor)
    return None


def _evict(path: Path) -> bool:
    """Removes a chunk that no process reads."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        idx_path(path).unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _sign_of_life(folder: Path) -> Path:
    """A file in that folder that nobody else can hold as long as this process lives."""
    if folder not in _lives:
        path = folder / f"life-{uuid4().hex}"
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _lives[folder] = Lease(path, descriptor)
    return _lives[folder].path


_lives: dict[Path, Lease] = {}


@contextmanager
def _locked(path: Path, wait_s: float) -> Iterator[None]:
    """Alone among all processes and threads. TimeoutError after `wait_s`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"another process has held {path} for {wait_s:.0f} s; is it hanging?") from None
                time.sleep(LOCK_POLL_S)
        yield


def _status(path: Path) -> os.stat_result | None:
    """None where another process has just removed it."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _age_s(path: Path) -> float:
    status = _status(path)
    return float("inf") if status is None else max(time.time() - status.st_mtime, 0.0)
