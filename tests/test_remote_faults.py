"""Real drives behind a network at its worst: the right data in the end, or an error that names what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from humanpose3d.remotes import RemoteError, Store, daemon, drive, open_store, rclone
from tests.faulty import KINDS, Fault, FaultyProxy, busy, remote_settings, serving

SIZE = 3_000_000  # three ranges, as these tests cut them


@dataclass
class Drive:
    """A drive behind a faulty proxy."""

    kind: str
    store: Store
    folder: Path
    proxy: FaultyProxy
    data: bytes  # of its file "file"


@pytest.fixture
def any_drive(request, tmp_path, monkeypatch) -> Iterator[Drive]:
    """One of the kind in `request.param`, with limits that suit a test. Its server ends with the test: over an upload
    that broke off it may spin for ever."""
    # Short waits, but no shorter than a busy machine may take to answer.
    monkeypatch.setattr(rclone, "RETRY_DELAYS_S", (0.05, 0.1, 0.2, 0.5))
    monkeypatch.setattr(rclone, "OUTAGE_DELAYS_S", (0.05, 0.1, 0.2, 0.5))
    monkeypatch.setattr(rclone, "CONNECT_S", 5.0)
    monkeypatch.setattr(rclone, "IDLE_S", 2.5)
    monkeypatch.setattr(rclone, "LOW_LEVEL_RETRIES", 1)
    monkeypatch.setattr(daemon, "CRAWL_S", 2.0)
    monkeypatch.setattr(drive, "RANGE_BYTES", 1 << 20)
    monkeypatch.setattr(drive, "LARGE_RANGE_BYTES", 1 << 20)
    work = tmp_path / "server"
    folder = work / "drive" / "bucket" / "folder"
    folder.mkdir(parents=True)
    data = os.urandom(SIZE)
    (folder / "file").write_bytes(data)
    with serving(request.param, work / "drive", work) as port, FaultyProxy(port) as proxy:
        (tmp_path / "rclone.conf").write_text(remote_settings(request.param, proxy.port))
        monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
        yield Drive(request.param, open_store(f"drive:bucket/{folder.name}"), folder, proxy, data)


every_drive = pytest.mark.parametrize("any_drive", KINDS, indirect=True)
webdav = pytest.mark.parametrize("any_drive", ["webdav"], indirect=True)


@every_drive
def test_a_healthy_drive_of_any_kind_is_a_store(any_drive, tmp_path):
    store = any_drive.store.child("a folder [1]")
    (tmp_path / "up").write_bytes(any_drive.data)
    store.put(tmp_path / "up", "it's 100% #1?.bin")
    store.write_bytes("empty", b"")
    assert [(entry.name, entry.size) for entry in store.list()] == [("empty", 0), ("it's 100% #1?.bin", SIZE)]
    assert any_drive.store.folders() == ("a folder [1]",)
    assert store.read_bytes("empty") == b"" and store.stat("empty").size == 0
    assert store.read_range("it's 100% #1?.bin", 5, 7) == any_drive.data[5:12]
    store.get("it's 100% #1?.bin", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == any_drive.data
    store.get("empty", tmp_path / "nothing")
    assert (tmp_path / "nothing").read_bytes() == b""
    store.delete("empty")
    assert store.stat("empty") is None and store.stat("nowhere") is None


@pytest.mark.parametrize("kind", ["cut", "reset", "hang", "crawl"])
@every_drive
def test_a_large_file_comes_whole_through_broken_connections(any_drive, kind, tmp_path):
    any_drive.store.stat("file")  # the drive's own greetings are over
    any_drive.proxy.plan(Fault(kind, 300_000, times=2))
    any_drive.store.get("file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == any_drive.data
    assert any_drive.proxy.met == [kind] * 2
    if any_drive.kind != "sftp":  # which sends ahead of what was asked for
        assert any_drive.proxy.bytes_down < 2 * SIZE, "only what was missing is asked for again"


@every_drive
def test_a_range_comes_whole_through_broken_connections(any_drive):
    any_drive.store.stat("file")
    any_drive.proxy.plan(Fault("cut", 300_000, times=3))
    assert any_drive.store.read_range("file", 1000, SIZE - 2000) == any_drive.data[1000:-1000]
    assert any_drive.proxy.met == ["cut"] * 3


@pytest.mark.parametrize(("any_drive", "status"), [("s3", 503), ("webdav", 429)], indirect=["any_drive"])
def test_a_drive_that_counts_requests_is_asked_again_later(any_drive, status, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(rclone.Pace, "slow_down", lambda self, seconds: pauses.append(seconds))
    any_drive.proxy.plan(busy(status, times=6))
    any_drive.store.get("file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == any_drive.data
    assert any_drive.proxy.met == ["answer"] * 6 and pauses


@webdav
def test_a_drive_that_is_gone_ends_in_one_line_and_leaves_nothing(any_drive, tmp_path):
    any_drive.store.stat("file")
    any_drive.proxy.close()
    start = time.monotonic()
    with pytest.raises(RemoteError, match="^rclone read drive:bucket/.*/file: ") as error:
        any_drive.store.get("file", tmp_path / "copies" / "file", size=SIZE)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "copies").iterdir())
    assert time.monotonic() - start < 30


@webdav
def test_a_drive_that_hangs_for_good_is_given_up(any_drive, tmp_path):
    any_drive.store.stat("file")
    any_drive.proxy.plan(Fault("hang", 0, times=1000))
    with pytest.raises(RemoteError):
        any_drive.store.get("file", tmp_path / "file", size=SIZE)


@every_drive
def test_what_is_damaged_on_its_way_up_is_sent_again(any_drive, tmp_path):
    (tmp_path / "up").write_bytes(any_drive.data)
    any_drive.store.stat("file")
    any_drive.proxy.plan(Fault("corrupt up", 30_000))
    any_drive.store.put(tmp_path / "up", "new")
    assert any_drive.proxy.met == ["corrupt up"]
    assert (any_drive.folder / "new").read_bytes() == any_drive.data
