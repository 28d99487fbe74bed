"""Stores: a local folder and a real rclone remote answer alike."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from humanpose3d.remotes import Entry, LocalStore, RcloneStore, RemoteError, Store, open_store, rclone
from humanpose3d.remotes.daemon import SWITCH


@pytest.fixture(params=["folder", "remote", "remote without a daemon"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "store")
    if request.param != "remote":
        monkeypatch.setenv(SWITCH, "0")
    return open_store(request.getfixturevalue("s3_remote").location)


def test_what_is_written_is_listed_found_and_read(store: Store) -> None:
    store.write_bytes("b.json", b"{}")
    store.write_bytes("a.bin", bytes(range(256)))
    store.child("train").write_bytes("c", b"c")
    assert store.list() == (Entry("a.bin", 256), Entry("b.json", 2))
    assert store.folders() == ("train",)
    assert store.stat("a.bin") == Entry("a.bin", 256)
    assert store.read_bytes("b.json") == b"{}"
    assert store.read_range("a.bin", 10, 5) == bytes(range(10, 15))
    assert store.read_range("a.bin", 10, 0) == b""
    assert store.child("train").read_bytes("c") == b"c"


def test_an_overwritten_file_holds_the_new_bytes(store: Store, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    store.write_bytes("file", b"old")  # same length, same second: only the content differs
    store.put(tmp_path / "new", "file")
    assert store.read_bytes("file") == b"new"


def test_a_file_travels_up_and_down_whole(store: Store, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "deep" / "copy"
    source.write_bytes(os.urandom(300_000))
    store.put(source, "chunk_000000.tar")
    store.get("chunk_000000.tar", copy, size=300_000)
    assert copy.read_bytes() == source.read_bytes()
    store.get("chunk_000000.tar", copy)
    assert list(copy.parent.iterdir()) == [copy]


def test_a_file_of_another_length_is_refused_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    store.write_bytes("file", b"four")
    with pytest.raises(RemoteError, match="4 bytes arrived where 5 were expected"):
        store.get("file", tmp_path / "copies" / "file", size=5)
    assert not list((tmp_path / "copies").iterdir())


def test_a_range_past_the_end_is_an_error(store: Store) -> None:
    store.write_bytes("file", b"four")
    with pytest.raises(EOFError, match="cut short"):
        store.read_range("file", 2, 10)


def test_what_is_missing_is_said_to_be_missing(store: Store, tmp_path: Path) -> None:
    assert store.child("nowhere").list() == () == store.child("nowhere").folders()
    assert store.stat("nothing") is None
    store.write_bytes("something", b"x")
    assert store.stat("nothing") is None
    with pytest.raises(FileNotFoundError):
        store.read_bytes("nothing")
    with pytest.raises(FileNotFoundError):
        store.get("nothing", tmp_path / "copy")
    store.delete("nothing")
    store.delete("something")
    assert store.stat("something") is None


@pytest.mark.usefixtures("s3_remote")
def test_an_unknown_remote_is_refused_with_the_remotes_there_are() -> None:
    with pytest.raises(ValueError, match=r"no remote 'mydrive'; configured: hp3dtest:\. Create one with"):
        open_store("mydrive:chunks").list()


def test_a_location_is_a_remote_only_when_it_looks_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_store("myonedrive:h36m/chunks"), RcloneStore)
    assert isinstance(open_store("data/chunks"), LocalStore)
    assert isinstance(open_store("t:bucket"), RcloneStore)  # not a folder named "t:bucket"
    assert isinstance(open_store(Path("odd:name")), LocalStore)
    assert isinstance(open_store("./odd:name"), LocalStore)
    Path("odd:name").mkdir()
    assert isinstance(open_store("odd:name"), LocalStore)


def test_a_drive_that_fails_twice_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = tmp_path / "tries"
    _fake_rclone(
        tmp_path / "rclone", monkeypatch,
        f"echo x >> {tries}; [ $(wc -l < {tries}) -lt 3 ] && {{ echo busy >&2; exit 5; }}; echo []",
    )  # fmt: skip
    assert open_store("drive:folder").list() == ()
    assert tries.read_text() == "x\n" * 3


def test_a_drive_that_keeps_failing_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_rclone(tmp_path / "rclone", monkeypatch, 'echo "2026/01/01 00:00:00 ERROR : quota exceeded" >&2; exit 1')
    with pytest.raises(RemoteError, match="^rclone lsjson --files-only drive:folder: quota exceeded$"):
        open_store("drive:folder").list()


def test_a_drive_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_rclone(tmp_path / "rclone", monkeypatch, "exec sleep 60")
    with pytest.raises(RemoteError, match="no end after 0 s"):
        rclone.run_rclone(["lsjson", "drive:folder"], limit_s=0.1)


def _fake_rclone(path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(rclone, "rclone_binary", lambda: path)
    monkeypatch.setenv(SWITCH, "0")
    monkeypatch.setattr(rclone, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))
