"""Results on disk: folders made, files written whole. A file that exists is complete, so every stage can be rerun.

What a killed process could not clear away goes when the next one writes to the same folder: the names of temporary
files and folders tell whose they are.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from humanpose3d.reports import StageReport

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PART = ".part"  # ends the name of a file that is still being written; stores do not list it
SCRATCH = "hp3d-scratch-"
LONGEST_NAME = 120  # bytes that a temporary name repeats: file systems allow 255 with the rest of it

_HOST = re.sub(r"[^A-Za-z0-9]", "_", platform.node())  # folders may be shared between machines
_OWNED_PART = re.compile(rf"\..*\.{_HOST}-(?P<pid>\d+)-\d+{re.escape(PART)}", re.DOTALL)
_OWNED_SCRATCH = re.compile(rf"{SCRATCH}{_HOST}-(?P<pid>\d+)-.*")
_swept: set[tuple[Path, re.Pattern[str]]] = set()
_sweeping = threading.Lock()


def _forget() -> None:
    """In a forked child: another thread may have held the lock."""
    global _sweeping
    _sweeping = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def part_path(path: Path) -> Path:
    """Where a file is written before it gets its name: beside it, no other process's or thread's.

    Its folder is there then, and what killed processes left in it is not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent, _OWNED_PART)
    name = path.name if len(os.fsencode(path.name)) <= LONGEST_NAME else hashlib.md5(os.fsencode(path.name)).hexdigest()
    return path.with_name(f".{name}.{_HOST}-{os.getpid()}-{threading.get_ident()}{PART}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not."""
    temporary = part_path(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder in `parent` (the system's for such things) that goes at the end, or when the next is made there."""
    parent = parent or Path(tempfile.gettempdir())
    _sweep(parent, _OWNED_SCRATCH)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"{SCRATCH}{_HOST}-{os.getpid()}-") as folder:
        yield Path(folder)


def _sweep(folder: Path, owned: re.Pattern[str]) -> None:
    """Removes what killed processes of this machine left there, before this process puts its first own file there."""
    with _sweeping:
        if (folder, owned) in _swept or os.name == "nt":  # where signal 0 is Ctrl-C
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                match = owned.fullmatch(entry.name)
                if match is None or _is_another_alive(int(match["pid"])):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)
        _swept.add((folder, owned))


def _is_another_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # of an earlier process that had our number: we have written nothing there yet
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Under a temporary name, then renamed. OSError names the file and the reason."""
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}); what was finished before is kept") from error


def make_folder(folder: Path) -> None:
    """Make the folder where it is not there yet. OSError says why results cannot go there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"{folder} is or lies in a file; give a folder for the output") from None
    except OSError as error:
        raise OSError(f"{folder} cannot be made ({error.strerror}); choose another, or change its rights") from None
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"no permission to write in {folder}; choose another, or change its rights")


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """While the block runs no other of this machine has the folder. BlockingIOError where one has it already.

    The lock lies on the folder itself: nothing is left behind, whatever kills the process.
    """
    handle = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if fcntl is not None and handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"another run is writing to {folder}; wait for it, or give another folder for the output"
                ) from None
            except OSError:
                pass  # a file system without locks
        yield
    finally:
        if handle is not None:
            os.close(handle)


def write_report(folder: Path, report: StageReport) -> None:
    """<folder>/<stage>_report.json."""
    write_whole(folder / f"{report.stage}_report.json", report.to_json())
