"""Preprocessing from and to a real remote: the bytes of a local run, whatever the drive does, with next to no disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from humanpose3d import frames as frames_module
from humanpose3d.frames import RemoteFrames, Uncountable, open_frames
from humanpose3d.images import UnreadableImage, find_images
from humanpose3d.preprocess import preprocess_folders
from humanpose3d.remotes import LocalStore, RcloneStore, RemoteError, open_store, rclone
from humanpose3d.video import write_video
from tests.conftest import S3Remote
from tests.faulty import Fault, FaultyProxy, busy, remote_settings, serving
from tests.test_preprocess import files_of

SIZES = {"a.jpg": (64, 48), "s1/b.jpg": (64, 48), "s1/deep/a.png": (40, 90), "s2/Directions 1.54_01.jpg": (64, 64)}


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Images, a video, a broken one of each, and what is neither, in subfolders."""
    rng, folder = np.random.default_rng(5), tmp_path / "frames"
    for name, (width, height) in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / name)
    write_clip(folder / "s1/clip 1.5.mp4", 5)
    for name in ("s1/broken.jpg", "s2/broken.mp4", "s2/notes.txt", ".hidden.jpg", ".trash/a.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no picture")
    return folder


def write_clip(path: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    write_video(path, (rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(number)), 25.0)


@pytest.fixture
def arguments(tiny_pose_model: str, tiny_depth_model: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "yolo_model": tiny_pose_model, "depth_model": tiny_depth_model, "device": "cpu", "batch_size": 3,
        "frame_step": 2, "max_bad": 1.0, "temp_dir": tmp_path / "temp",
    }  # fmt: skip


def send(folder: Path, location: str) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        open_store(f"{location}/{path.relative_to(folder).parent}".removesuffix("/.")).put(path, path.name)


def test_a_remote_gives_and_takes_the_bytes_of_a_local_run(
    frames: Path, tmp_path: Path, s3_remote: S3Remote, arguments: dict
) -> None:
    send(frames, f"{s3_remote.location}/in")
    here = preprocess_folders(frames, tmp_path / "out", **arguments)
    there = preprocess_folders(f"{s3_remote.location}/in", f"{s3_remote.location}/out", **arguments)
    out = s3_remote.folder / "out"
    assert files_of(out) == files_of(tmp_path / "out") and len(files_of(out)) == 14
    assert there.inputs == here.inputs == 9 and there.counts == here.counts and there.counts["frames"] == 7
    broken, video = there.skipped["unreadable image"]
    assert broken == "s1/broken.jpg (not an image)"
    assert f"{s3_remote.location}/in/s2/broken.mp4 is no video" in video and "temp" not in video
    assert json.loads((out / "preprocess_report.json").read_bytes())["summary"] == there.summary
    assert list((tmp_path / "temp").iterdir()) == []
    nothing = arguments | {"yolo_model": "/not/there.pt"}
    for name in ("s1/broken.jpg", "s2/broken.mp4"):
        folder, _, file = name.rpartition("/")
        open_store(f"{s3_remote.location}/in/{folder}").delete(file)
    again = preprocess_folders(f"{s3_remote.location}/in", f"{s3_remote.location}/out", **nothing)
    assert again.counts == {"complete_before": 7} and again.exit_code == 0


def test_one_side_may_be_a_folder_and_shards_share_a_remote(
    frames: Path, tmp_path: Path, s3_remote: S3Remote, arguments: dict
) -> None:
    preprocess_folders(frames, tmp_path / "whole", **arguments)
    for number in (2, 1):
        preprocess_folders(frames, f"{s3_remote.location}/up", **arguments, shard=f"{number}/2")
    parts = {name: data for name, data in files_of(s3_remote.folder / "up").items() if "_report." not in name}
    assert parts == files_of(tmp_path / "whole")
    assert json.loads((s3_remote.folder / "up/preprocess_report.json").read_bytes())["counts"]["frames"] == 7
    send(frames, f"{s3_remote.location}/in")
    for number in (1, 2):
        preprocess_folders(f"{s3_remote.location}/in", tmp_path / "down", **arguments, shard=f"{number}/2")
    parts = {name: data for name, data in files_of(tmp_path / "down").items() if "_report." not in name}
    assert parts == files_of(tmp_path / "whole")


def test_a_run_that_was_stopped_goes_on_and_an_older_json_vouches_for_nothing(
    frames: Path, tmp_path: Path, s3_remote: S3Remote, arguments: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, put = f"{s3_remote.location}/out", RcloneStore.write_bytes
    preprocess_folders(frames, tmp_path / "whole", **arguments)
    names = list[str]()

    def stop_at_the_sixth(self: RcloneStore, name: str, data: bytes) -> None:
        names.append(name)
        if len([name for name in names if not name.startswith(".")]) >= 6:
            raise KeyboardInterrupt
        put(self, name, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RcloneStore, "write_bytes", stop_at_the_sixth)
        preprocess_folders(frames, out, **arguments)
    done = {name: data for name, data in files_of(s3_remote.folder / "out").items() if name.endswith(".json")}
    assert done and all(files_of(tmp_path / "whole")[name] == data for name, data in done.items())
    report = preprocess_folders(frames, out, **arguments)
    assert report.counts["complete_before"] == len(done) and report.counts["frames"] == 7 - len(done)
    assert files_of(s3_remote.folder / "out") == files_of(tmp_path / "whole")

    def no_depth_maps(self: RcloneStore, name: str, data: bytes) -> None:
        if name.endswith("_depth.png"):
            raise RemoteError("the drive is full")
        put(self, name, data)

    monkeypatch.setattr(RcloneStore, "write_bytes", no_depth_maps)
    report = preprocess_folders(frames, out, **arguments, overwrite=True)
    assert report.skipped_counts["not written"] == 7 and report.skipped["not written"][0].endswith("the drive is full)")
    assert not list((s3_remote.folder / "out").rglob("[!p]*.json"))


def test_a_file_that_does_not_come_is_named_and_many_in_a_row_end_the_run(
    frames: Path, s3_remote: S3Remote, arguments: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(frames, f"{s3_remote.location}/in")
    get = RcloneStore.read_bytes

    def not_b(self: RcloneStore, name: str) -> bytes:
        if name == "b.jpg":
            raise RemoteError("rclone read b.jpg: damaged on the drive")
        return get(self, name)

    monkeypatch.setattr(RcloneStore, "read_bytes", not_b)
    report = preprocess_folders(f"{s3_remote.location}/in", f"{s3_remote.location}/out", **arguments)
    assert report.counts["frames"] == 6
    assert "s1/b.jpg (rclone read b.jpg: damaged on the drive)" in report.skipped["unreadable image"]
    monkeypatch.setattr(frames_module, "GIVE_UP_AFTER", 1)
    with pytest.raises(RemoteError, match="damaged on the drive"):
        preprocess_folders(f"{s3_remote.location}/in", f"{s3_remote.location}/out", **arguments)


def test_videos_of_a_remote_lie_here_only_while_they_are_needed(tmp_path: Path, s3_remote: S3Remote) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(6):
        write_clip(tmp_path / f"clips/{number}.mp4", 10 + number)
    Image.new("RGB", (20, 20)).save(tmp_path / "clips/9.png")
    send(tmp_path / "clips", s3_remote.location)
    (tmp_path / "videos").mkdir()
    remote = open_frames(open_store(s3_remote.location), tmp_path / "videos")
    most, found = 0, list[Path]()
    for name in remote.names(LocalStore(tmp_path / "out"), 3):
        found.append(name)
        assert name.name == "9.png" or remote.read(remote.fetch(str(name))).shape == (48, 64, 3)
        most = max(most, len(list((tmp_path / "videos").glob("*.mp4"))))
        remote.release([str(name)])
    assert found == list(find_images(tmp_path / "clips", frame_step=3)) and most == 2, "one, and the next"
    assert list((tmp_path / "videos").iterdir()) == []
    with pytest.raises(Uncountable):
        list(remote.names(LocalStore(tmp_path / "out"), 3, count_only=True))


def test_a_worker_apart_fetches_the_videos_of_its_batches_and_keeps_few(
    tmp_path: Path, s3_remote: S3Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(5):
        write_clip(tmp_path / f"clips/{number}.mp4", 10 + number)
    send(tmp_path / "clips", f"{s3_remote.location}/in")
    names, gets, get = [f"in/{number}.mp4/000003" for number in range(5)], list[str](), RcloneStore.get

    def noted(self: RcloneStore, name: str, path: Path, *, size: int | None = None) -> None:
        gets.append(name)
        get(self, name, path, size=size)

    monkeypatch.setattr(RcloneStore, "get", noted)
    worker = open_frames(open_store(s3_remote.location), tmp_path / "videos", apart=True)

    def here() -> list[str]:
        return sorted(path.name for path in (tmp_path / "videos").rglob("*.mp4"))

    for name in [*names, *names[:1]]:
        assert worker.read(worker.fetch(name)).shape == (48, 64, 3)
    assert gets == here() == [f"{number}.mp4" for number in range(5)], "each once, while frames of it are wanted"
    worker.finish(names[:4])
    assert here() == ["0.mp4", "2.mp4", "3.mp4", "4.mp4"], "the first is wanted once more, two are kept"
    worker.fetch(names[3])
    assert len(gets) == 5
    worker.finish([names[0], names[3], names[4]])
    assert here() == [], "nothing in hand: this may be the end"
    with pytest.raises(UnreadableImage, match="no such file"):
        worker.fetch("in/9.mp4/000000")


def test_a_listing_of_a_remote_asks_once_a_folder_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def answer(self: RcloneStore, kind: str | None = None) -> list[dict[str, Any]]:
        asked.append(self.location)
        folders = [f"s{number}" for number in range(1000)] if self.path == "in" else []
        files = [] if folders else [f"{number}.jpg" for number in range(3)]
        return [{"Name": name, "Size": 1, "IsDir": name in folders} for name in [*files, *folders]]

    monkeypatch.setattr(RcloneStore, "_entries", answer)
    names = RemoteFrames(RcloneStore("drive", "in"), Path("videos")).names(LocalStore(Path("out")), 1)
    assert [str(next(names)) for _ in range(3)] == ["s0/0.jpg", "s0/1.jpg", "s0/2.jpg"]
    assert asked == ["drive:in", "drive:in/s0", "drive:in/s1"]


@pytest.fixture
def proxy(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Before the remote "drive:bucket", an S3 server's that has the frames, with short waits."""
    monkeypatch.setattr(rclone, "RETRY_DELAYS_S", (0.05, 0.1, 0.2, 0.5))
    monkeypatch.setattr(rclone.Pace, "slow_down", lambda self, seconds: None)
    shutil.copytree(frames, tmp_path / "drive/bucket/in")
    with serving("s3", tmp_path / "drive", tmp_path, remembers=True) as port, FaultyProxy(port) as proxy:
        (tmp_path / "rclone.conf").write_text(remote_settings("s3", proxy.port))
        monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
        yield proxy


def test_a_drive_at_its_worst_changes_nothing_and_one_that_is_gone_is_one_line(
    frames: Path, tmp_path: Path, proxy: FaultyProxy, arguments: dict
) -> None:
    preprocess_folders(frames, tmp_path / "out", **arguments)
    proxy.plan(busy(503, times=2), Fault("cut", 500, times=2), busy(503), Fault("reset", 500))
    report = preprocess_folders("drive:bucket/in", "drive:bucket/out", **arguments)
    assert files_of(tmp_path / "drive/bucket/out") == files_of(tmp_path / "out") and report.counts["frames"] == 7
    assert proxy.met == ["answer"] * 2 + ["cut"] * 2 + ["answer", "reset"]
    proxy.close()
    with pytest.raises(RemoteError, match="^rclone list drive:bucket/in: ") as error:
        preprocess_folders("drive:bucket/in", "drive:bucket/out", **arguments)
    assert "\n" not in str(error.value)


def test_remotes_that_cannot_be_used_are_one_clear_line(frames: Path, s3_remote: S3Remote, arguments: dict) -> None:
    there = s3_remote.location
    with pytest.raises(ValueError, match="rclone has no remote 'mydrive'; configured: hp3dtest:"):
        preprocess_folders("mydrive:in", f"{there}/out", **arguments)
    with pytest.raises(ValueError, match="rclone has no remote 'mydrive'; configured: hp3dtest:"):
        preprocess_folders(frames, "mydrive:out", **arguments)
    with pytest.raises(ValueError, match=f"no images in {there}/nowhere; it needs images"):
        preprocess_folders(f"{there}/nowhere", f"{there}/out", **arguments)


def test_a_remote_that_may_not_be_written_is_told_before_any_work(
    frames: Path, tmp_path: Path, s3_remote: S3Remote, arguments: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = s3_remote.config.read_text().replace("SECRET", "FALSE").replace("hp3dtest", "closed")
    (tmp_path / "rclone.conf").write_text(settings)
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    with pytest.raises(RemoteError, match="^rclone put closed:bucket/out/.*403"):
        preprocess_folders(frames, "closed:bucket/out", **arguments | {"yolo_model": "/not/there.pt"})
