"""Results on disk: folders made, files written whole. A file that exists is complete, so every stage can be rerun."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from humanpose3d.reports import StageReport

PART = ".part"  # ends the name of a file that is still being written; stores do not list it


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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


def write_report(folder: Path, report: StageReport) -> None:
    """<folder>/<stage>_report.json."""
    write_whole(folder / f"{report.stage}_report.json", report.to_json())
