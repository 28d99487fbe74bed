"""A recording for the rerun viewer: whole or not there, and a clear line where rerun is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.camera import Camera
from humanpose3d.skeletons import H36M_17
from humanpose3d.visualize.rerun_log import RerunRecording

CAMERA = Camera.create(200.0, (99.5, 59.5))
IMAGE = np.full((120, 200, 3), 90, np.uint8)


def test_without_rerun_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ValueError, match=r'--rerun needs the rerun viewer: pip install -e "\.\[rerun\]"'):
        RerunRecording(tmp_path / "people.rrd", H36M_17)


def test_everything_is_in_one_file_that_is_whole_or_not_there(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install -e '.[rerun]'")
    people = [np.zeros((17, 3), np.float32) + (0, 0, 4), np.ones((17, 3), np.float32)]
    with RerunRecording(tmp_path / "people.rrd", H36M_17) as recording:
        recording.add("a.jpg", people, CAMERA, IMAGE, np.full((30, 50), 4.0, np.float32))
        recording.add("b.jpg", [], CAMERA, IMAGE, None)
    content = (tmp_path / "people.rrd").read_bytes()
    assert content.startswith(b"RRF") and len(content) > 1000
    with pytest.raises(KeyError), RerunRecording(tmp_path / "broken.rrd", H36M_17) as recording:
        recording.add("a.jpg", people, CAMERA, IMAGE, None)
        raise KeyError
    with RerunRecording(tmp_path / "empty.rrd", H36M_17):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["people.rrd"]
