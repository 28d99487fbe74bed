"""Files are whole or not there, and what a killed process left goes with the next one that writes beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from humanpose3d.files import part_path, scratch_folder, sole_writer, whole_file, write_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from humanpose3d.files import scratch_folder, whole_file
folder = Path(sys.argv[1])
with whole_file(folder / "a.txt") as temporary, scratch_folder(folder) as scratch:
    temporary.write_text("half")
    (scratch / "data").write_text("half")
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("ready", flush=True)
    sys.stdin.read()
"""


def writer(folder: Path, end: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), end], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_file_and_folder(tmp_path):
    process = writer(tmp_path, "killed")
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    write_whole(tmp_path / "b.txt", b"whole")
    with scratch_folder(tmp_path) as scratch:
        assert names(tmp_path) == ["b.txt", scratch.name]
    assert names(tmp_path) == ["b.txt"]


def test_what_another_process_is_writing_stays(tmp_path):
    process = writer(tmp_path, "alive")
    assert process.stdout.readline() == "ready\n"
    write_whole(tmp_path / "b.txt", b"whole")
    with scratch_folder(tmp_path):
        assert len(names(tmp_path)) == 4
    process.communicate("", timeout=60)
    assert names(tmp_path) == ["a.txt", "b.txt"] and (tmp_path / "a.txt").read_text() == "half"


def test_what_another_machine_is_writing_stays(tmp_path):
    other = tmp_path / ".a.txt.elsewhere-999999-1.part"
    other.touch()
    write_whole(tmp_path / "b.txt", b"whole")
    assert other.exists()


def test_what_another_thread_is_writing_stays(tmp_path):
    other = part_path(tmp_path / "new" / "a.txt")
    other.touch()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(write_whole, tmp_path / "new" / "b.txt", b"whole").result()
    assert other.exists()


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


def test_a_folder_has_one_writer_and_whoever_dies_frees_it(tmp_path):
    code = "import sys; from pathlib import Path; from humanpose3d.files import sole_writer\n"
    code += "with sole_writer(Path(sys.argv[1])): print('ready', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    with pytest.raises(OSError, match="another run is writing to .*; wait for it, or give another folder"):
        with sole_writer(tmp_path):
            pass
    other.kill()
    other.wait()
    with sole_writer(tmp_path):
        pass
    assert names(tmp_path) == []
