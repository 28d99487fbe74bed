"""Store: list, stat, get, put and ranged read on a folder of files, and the folder on this machine."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from humanpose3d.files import PART, whole_file
from humanpose3d.remotes.rclone import RemoteError


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

    def contents(self) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
        """`list` and `folders`, of a remote by one request."""
        return self.list(), self.folders()

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


class LocalStore(Store):
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder.absolute()  # a worker elsewhere may be at home in another folder

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
            return exactly(file.read(length), length, f"{self.local_path(name)} at {offset}")

    def get(self, name: str, path: Path, *, size: int | None = None) -> None:
        with whole_file(path) as temporary:
            shutil.copyfile(self.local_path(name), temporary)
            check_size(temporary.stat().st_size, size, f"{self.location}/{name}")

    def put(self, path: Path, name: str) -> None:
        with whole_file(self.local_path(name)) as temporary:
            shutil.copyfile(path, temporary)

    def write_bytes(self, name: str, data: bytes) -> None:
        with whole_file(self.local_path(name)) as temporary:
            temporary.write_bytes(data)

    def delete(self, name: str) -> None:
        self.local_path(name).unlink(missing_ok=True)

    def child(self, folder: str) -> Store:
        return LocalStore(Path(self.location) / folder)

    def local_path(self, name: str) -> Path:
        return self.folder / name


def exactly(data: bytes, length: int, where: str) -> bytes:
    """The data. EOFError where it is not of that length."""
    if len(data) != length:
        raise EOFError(f"{where}: {len(data)} bytes came where {length} were asked for; the file is cut short")
    return data


def check_size(found: int, size: int | None, where: str) -> None:
    """RemoteError where a file has not the length it must have."""
    if size is not None and found != size:
        raise RemoteError(f"{where}: {found} bytes arrived where {size} were expected; copy it there again")
