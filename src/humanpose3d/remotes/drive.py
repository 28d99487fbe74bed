"""RcloneStore: a folder on an rclone remote, and `open_store`, which knows one when it sees it.

Reading goes through the shared daemon in ranges; what comes is counted, and what is missing asked for again. Without a
daemon each call is an rclone process.
"""

from __future__ import annotations

import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from humanpose3d.files import PART, scratch_folder, whole_file
from humanpose3d.remotes import rclone
from humanpose3d.remotes.daemon import BLOCK, Daemon, NoDaemon, daemon_for, fcntl, give_up, pace_of
from humanpose3d.remotes.rclone import (
    REMOTE,
    Failure,
    Patience,
    persist,
    refuse_unknown_remote,
    run_rclone,
    throttle_flags,
    transfer_limit_s,
)
from humanpose3d.remotes.store import Entry, LocalStore, Store, check_size, exactly

RANGE_BYTES = 8 << 20  # of a large file, at the most fetched as one request
LEAST_RANGE_BYTES = 1 << 20
RANGES_A_FILE = 8  # so many at least, where it is large enough: a few files at a time take all connections there are
LARGE_RANGE_BYTES = 64 << 20  # where requests are counted, or a connection is dear
DEAR_CONNECTIONS = ("sftp", "ftp", "smb")  # kinds of drives whose servers turn away many at once
RANGES_AT_ONCE = 32  # in a process, over all its files
FILES_AT_ONCE, SHY_FILES_AT_ONCE = 16, 4  # small ones, in a process; the second where connections are dear
PROGRESS_BYTES = 64 << 10  # a request that brought as much was no failure, though it broke
CUT_SHORT = "it ended early"

_SHORTEST_NAME = 2 if os.name == "nt" else 1  # of a remote: where there are drive letters, C: is one
_ANSWER = TypeVar("_ANSWER")
_Listing = list[dict[str, Any]]


def open_store(location: str | Path) -> Store:
    """The store at a folder's path or at 'remote:path'; a local folder of that name comes first. Contacts nothing."""
    text = str(location)
    match = REMOTE.fullmatch(text)
    if isinstance(location, Path) or match is None or len(match["name"]) < _SHORTEST_NAME or Path(text).exists():
        return LocalStore(Path(text).expanduser())
    path = match["path"]
    return RcloneStore(match["name"], path.rstrip("/") or path[:1])


class RcloneStore(Store):
    """A folder on an rclone remote: `name:path`. Every request is limited in time, counted and retried."""

    def __init__(self, remote: str, path: str) -> None:
        super().__init__(f"{remote}:{path}")
        self.remote, self.path = remote, path

    @property
    def place(self) -> str:
        return f"{self.remote}:{re.sub('/+', '/', self.path).strip('/')}"

    def _address(self, name: str) -> str:
        return f"{self.remote}:{self.path.rstrip('/')}/{name}" if self.path else f"{self.remote}:{name}"

    @property
    def _fs(self) -> str:
        # With a slash at its end it is a folder, and S3 need not be asked whether it is a file.
        return f"{self.location.rstrip('/')}/" if self.path else self.location

    def list(self) -> tuple[Entry, ...]:
        return tuple(Entry(entry["Name"], entry["Size"]) for entry in self._entries("files"))

    def folders(self) -> tuple[str, ...]:
        return tuple(entry["Name"] for entry in self._entries("dirs"))

    def contents(self) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
        entries = self._entries()
        files = tuple(Entry(entry["Name"], entry["Size"]) for entry in entries if not entry["IsDir"])
        return files, tuple(entry["Name"] for entry in entries if entry["IsDir"])

    @property
    def files_at_once(self) -> int:
        """How many small files it is asked for, or given, at once by one process."""
        return SHY_FILES_AT_ONCE if self._is_shy else FILES_AT_ONCE

    @property
    def _is_shy(self) -> bool:
        return bool(self._flags) or rclone.type_of(self.remote) in DEAR_CONNECTIONS

    def _entries(self, kind: str | None = None) -> _Listing:
        options = {"noModTime": True, "noMimeType": True} | ({f"{kind}Only": True} if kind else {})

        def ask(daemon: Daemon) -> _Listing:
            answer = daemon.call("operations/list", rclone.COMMAND_LIMIT_S, fs=self._fs, remote="", opt=options)
            return answer["list"]

        def run() -> _Listing:
            only = [f"--{kind}-only"] if kind else []
            return json.loads(self._run(["lsjson", "--no-modtime", "--no-mimetype", *only, self.location]))

        try:
            return sorted(self._ask("list", self.location, ask, run), key=lambda entry: entry["Name"])
        except FileNotFoundError:
            return []

    def stat(self, name: str) -> Entry | None:
        try:
            return Entry(name, self._facts(name)[0])
        except FileNotFoundError:
            return None

    def _facts(self, name: str) -> tuple[int, str]:
        """(bytes, time of change or "")."""

        def run() -> tuple[int, str]:
            told = self._run(["lsjson", "--stat", "--no-modtime", "--no-mimetype", self._address(name)])
            entry = json.loads(told)
            if entry is None or entry["IsDir"]:
                raise FileNotFoundError(f"{self._address(name)} is missing")
            return entry["Size"], ""

        return self._ask(
            "stat", self._address(name), lambda daemon: daemon.size(self._fs, name, rclone.COMMAND_LIMIT_S), run
        )

    def read_bytes(self, name: str) -> bytes:
        def ask(daemon: Daemon) -> bytes:
            with daemon.read(self._fs, name, 0, None, _idle_limit_s()) as reading:
                data = b"".join(bytes(block) for block in reading.blocks(memoryview(bytearray(BLOCK))))
            if len(data) != reading.total:
                raise Failure(CUT_SHORT)
            return data

        def run() -> bytes:
            size = self._facts(name)[0]
            return self.read_range(name, 0, size)

        return self._ask("read", self._address(name), ask, run)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        address = self._address(name)

        def ask(daemon: Daemon) -> bytes:
            data = bytearray(length)

            def write(position: int, block: memoryview) -> None:
                data[position - offset : position - offset + len(block)] = block

            total = self._read_range(daemon, name, offset, length, write)
            return bytes(data[: max(total - offset, 0)])

        def run() -> bytes:
            return self._run(
                ["cat", "--offset", str(offset), "--count", str(length), address], limit_s=transfer_limit_s(length)
            )

        return exactly(self._with_daemon(ask, run), length, f"{address} at {offset}")

    def _read_range(
        self,
        daemon: Daemon,
        name: str,
        offset: int,
        length: int,
        write: Callable[[int, memoryview], object],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> int:
        """Gives `write` all bytes of a range, asking again from where it broke; the whole file's length.

        Stops early, with nothing wrong, where the file ends before the range does or nobody wants it any more.
        """
        pace, end = pace_of(self.remote, self._flags), offset + length
        patience = Patience(
            f"rclone read {self._address(name)}", pace, transfer_limit_s(length), rclone.OUTAGE_DELAYS_S
        )
        buffer, done, total = memoryview(bytearray(min(BLOCK, length))), offset, None
        while True:
            pace.wait()
            start = done
            try:
                with daemon.read(self._fs, name, done, end - done, _idle_limit_s()) as reading:
                    total = reading.total
                    for block in reading.blocks(buffer):
                        block = block[: end - done]
                        write(done, block)
                        done += len(block)
                        if not is_wanted() or done == end:
                            break
                if total is not None and (done >= min(end, total) or not is_wanted()):
                    pace.was_answered()
                    return total
                raise Failure(CUT_SHORT)
            except FileNotFoundError:
                raise FileNotFoundError(f"{self._address(name)} is missing") from None
            except Failure as failure:
                refuse_unknown_remote(str(failure), [self.location])
                if done - start >= PROGRESS_BYTES:
                    patience.has_progressed()
                patience.again(failure)

    def get(self, name: str, path: Path, *, size: int | None = None) -> None:
        def run() -> None:
            expected = self._facts(name)[0] if size is None else size
            with whole_file(path) as temporary:
                self._run(["copyto", self._address(name), str(temporary)], limit_s=transfer_limit_s(expected))
                if not temporary.is_file():  # S3 takes what is not there for an empty folder
                    raise FileNotFoundError(f"{self._address(name)} is missing")
                check_size(temporary.stat().st_size, size, self._address(name))

        self._with_daemon(lambda daemon: self._get(daemon, name, path, size), run)

    def _get(self, daemon: Daemon, name: str, path: Path, size: int | None) -> None:
        """In ranges, several at once. What a killed process had fetched is not fetched again."""
        expected, changed = (size, "") if size is not None else self._facts(name)
        step = LARGE_RANGE_BYTES if self._is_shy else _range_bytes(expected)
        with _PartFile.opened(path, f"{self._address(name)} {expected} {changed}", expected, step) as part:

            def fetch(offset: int) -> None:
                length = min(step, expected - offset)
                total = self._read_range(daemon, name, offset, length, part.write, lambda: not stop.is_set())
                check_size(total, expected, self._address(name))
                if not stop.is_set():
                    part.note(offset)

            stop = threading.Event()
            if expected == 0:
                check_size(self._facts(name)[0], 0, self._address(name))
            in_parallel(fetch, part.missing(), stop)

    def put(self, path: Path, name: str) -> None:
        # rclone compares length and hash with what arrived, and every backend shows a file only once it is whole. Where
        # a drive has no hashes, what arrived is read back.
        limit_s, source = transfer_limit_s(path.stat().st_size), path.absolute()

        def ask(daemon: Daemon) -> None:
            daemon.call(
                "operations/copyfile", limit_s, srcFs=f"{source.parent}/", srcRemote=source.name,
                dstFs=self._fs, dstRemote=name, _config={"IgnoreTimes": True},
            )  # fmt: skip
            if not daemon.call("operations/fsinfo", rclone.COMMAND_LIMIT_S, fs=self._fs)["Hashes"]:
                self._compare(daemon, source, name)

        def run() -> None:
            self._run(["copyto", "--ignore-times", str(path), self._address(name)], limit_s=limit_s)

        self._ask("put", self._address(name), ask, run)

    def _compare(self, daemon: Daemon, path: Path, name: str) -> None:
        """Failure where the drive gives other bytes than the file at `path` holds."""
        size, differs = path.stat().st_size, False
        with path.open("rb") as file:

            def compare(position: int, block: memoryview) -> None:
                nonlocal differs
                differs |= os.pread(file.fileno(), len(block), position) != block

            total = self._read_range(daemon, name, 0, size, compare) if size else 0
        if differs or total != size:
            raise Failure("it arrived damaged")

    def write_bytes(self, name: str, data: bytes) -> None:
        # By way of a file: only a copy is compared with what arrived.
        with scratch_folder() as folder:
            path = folder / "data"
            path.write_bytes(data)
            self.put(path, name)

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._ask(
                "delete",
                self._address(name),
                lambda daemon: daemon.call("operations/deletefile", rclone.COMMAND_LIMIT_S, fs=self._fs, remote=name),
                lambda: self._run(["deletefile", self._address(name)]),
            )

    def child(self, folder: str) -> Store:
        return RcloneStore(self.remote, f"{self.path.rstrip('/')}/{folder}" if self.path else folder)

    @property
    def _flags(self) -> Sequence[str]:
        return throttle_flags(self.remote)

    def _ask(self, verb: str, address: str, ask: Callable[[Daemon], _ANSWER], run: Callable[[], _ANSWER]) -> _ANSWER:
        """By the daemon, with retries; `run`, which has its own, where there is none."""

        def attempt(daemon: Daemon) -> _ANSWER:
            try:
                return ask(daemon)
            except Failure as failure:
                refuse_unknown_remote(str(failure), [self.location])
                raise
            except FileNotFoundError:
                raise FileNotFoundError(f"{address} is missing") from None

        def persevere(daemon: Daemon) -> _ANSWER:
            pace = pace_of(self.remote, self._flags)
            return persist(f"rclone {verb} {address}", pace, float("inf"), lambda: attempt(daemon))

        return self._with_daemon(persevere, run)

    def _with_daemon(self, ask: Callable[[Daemon], _ANSWER], run: Callable[[], _ANSWER]) -> _ANSWER:
        daemon = daemon_for(self._flags)
        if daemon is not None:
            try:
                return ask(daemon)
            except NoDaemon as error:
                give_up(daemon, error)
        return run()

    def _run(self, arguments: Sequence[str], *, limit_s: float | None = None) -> bytes:
        return run_rclone(arguments, limit_s=limit_s, flags=self._flags, pace=pace_of(self.remote, self._flags))


def _range_bytes(size: int) -> int:
    """How much of a file of that size is fetched as one request."""
    return min(RANGE_BYTES, max(LEAST_RANGE_BYTES, -(-size // RANGES_A_FILE)))


class _PartFile:
    """A file being fetched in ranges, and which of them are there: both outlive a killed process."""

    def __init__(self, data: int, notes: int, header: bytes, size: int, step: int) -> None:
        self._data, self._notes, self._header, self._size, self._step = data, notes, header, size, step
        if os.pread(notes, len(header) + 1, 0)[: len(header)] != header or os.fstat(data).st_size != size:
            os.ftruncate(notes, 0)
            os.ftruncate(data, 0)
            _reserve(data, size)
            os.pwrite(notes, header + bytes(-(-size // step)), 0)

    @staticmethod
    @contextmanager
    def opened(path: Path, of: str, size: int, step: int) -> Iterator[_PartFile]:
        """Renamed to `path` when the block ends well, removed when it fails, left for the next when we are killed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        stem = f".{path.name}"
        descriptors = _open_locked(path.with_name(f"{stem}{PART}"), path.with_name(f"{stem}.ranges{PART}"))
        if descriptors is None:  # another process fetches to the same place
            stem = f"{stem}.{os.getpid()}-{threading.get_ident()}"
            descriptors = _open_locked(path.with_name(f"{stem}{PART}"), path.with_name(f"{stem}.ranges{PART}"))
            assert descriptors is not None
        data_path, notes_path = path.with_name(f"{stem}{PART}"), path.with_name(f"{stem}.ranges{PART}")
        try:
            yield _PartFile(*descriptors, f"{of} {step}\n".encode(), size, step)
            os.replace(data_path, path)
            notes_path.unlink(missing_ok=True)
        except Exception:
            data_path.unlink(missing_ok=True)
            notes_path.unlink(missing_ok=True)
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def missing(self) -> Sequence[int]:
        """Offsets of the ranges that are not there yet."""
        there = os.pread(self._notes, -(-self._size // self._step), len(self._header))
        return [number * self._step for number, is_there in enumerate(there) if not is_there]

    def write(self, position: int, block: memoryview) -> None:
        while len(block):
            count = os.pwrite(self._data, block, position)
            position, block = position + count, block[count:]

    def note(self, offset: int) -> None:
        """The range that begins there is whole."""
        os.pwrite(self._notes, b"\1", len(self._header) + offset // self._step)


def _open_locked(data: Path, notes: Path) -> tuple[int, int] | None:
    """Descriptors of both, alone among all processes; None where another process has them."""
    descriptors = tuple(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666) for path in (data, notes))
    try:
        if fcntl is not None:
            fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptors[0]), data.stat()):
            return descriptors[0], descriptors[1]
    except (BlockingIOError, FileNotFoundError):  # fetched, renamed or removed at this moment
        pass
    for descriptor in descriptors:
        os.close(descriptor)
    return None


def _reserve(descriptor: int, size: int) -> None:
    """Room for the whole file, so that a full disk is met before anything is fetched."""
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


class _Pool:
    """Threads that fetch ranges, in the order they were asked for. Daemons: none holds up the program's end."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for _ in range(RANGES_AT_ONCE):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


_pools: dict[int, _Pool] = {}  # by process: threads do not survive a fork
_making = threading.Lock()


def in_parallel(fetch: Callable[[int], None], offsets: Sequence[int], stop: threading.Event) -> None:
    """Calls it for each offset, `RANGES_AT_ONCE` at a time. The first error sets `stop` and is raised in the end."""
    if len(offsets) == 1:
        fetch(offsets[0])
        return
    with _making:
        if os.getpid() not in _pools:
            _pools[os.getpid()] = _Pool()
        pool = _pools[os.getpid()]
    errors: list[BaseException] = []
    finished: queue.SimpleQueue[None] = queue.SimpleQueue()

    def job(offset: int) -> None:
        try:
            if not stop.is_set():
                fetch(offset)
        except BaseException as error:
            errors.append(error)
            stop.set()
        finally:
            finished.put(None)

    for offset in offsets:
        pool.submit(lambda offset=offset: job(offset))  # type: ignore[misc]
    try:
        for _ in offsets:
            finished.get()  # each job ends within its own limits
    except BaseException:
        stop.set()
        raise
    if errors:
        raise errors[0]


def _idle_limit_s() -> float:
    """For each wait for bytes: longer than rclone's own, which tells why."""
    return rclone.IDLE_S * 1.5 + rclone.CONNECT_S
