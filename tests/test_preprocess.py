"""Preprocessing folders: complete, resumable, the same whatever the batches, and never stopped by a bad image."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from humanpose3d import frames as frames_module
from humanpose3d import preprocess
from humanpose3d.estimators.cues import CueNetworks, region_of
from humanpose3d.preprocess import preprocess_folders
from humanpose3d.remotes import LocalStore
from humanpose3d.reports import StageReport
from humanpose3d.shards import Shard
from humanpose3d.sidecars import is_complete, read_sidecar, write_sidecar
from humanpose3d.video import write_video

SIZES = {"s1/a.jpg": (64, 48), "s1/b.jpg": (64, 48), "s1/deep/a.png": (40, 90), "s2/Directions 1.54_01.jpg": (64, 64)}


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for name, (width, height) in SIZES.items():
        path = tmp_path / "frames" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    return tmp_path / "frames"


@pytest.fixture
def networks(tiny_pose_model: str, tiny_depth_model: str) -> dict[str, Any]:
    return {"yolo_model": tiny_pose_model, "depth_model": tiny_depth_model, "device": "cpu"}


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "preprocess_report.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_every_image_gets_its_sidecar_in_the_same_subfolder(frames: Path, tmp_path: Path, networks: dict) -> None:
    report = preprocess_folders(frames, tmp_path / "out", **networks, batch_size=3)
    assert report.exit_code == 0 and report.counts["frames"] == report.inputs == len(SIZES)
    for name, size in SIZES.items():
        sidecar = read_sidecar(tmp_path / "out" / name.rpartition(".")[0])
        assert sidecar.image_size_wh == size and sidecar.depth_size == size
        assert sidecar.people and sidecar.focal_px is not None and sidecar.focal_px > 0
        assert set(sidecar.estimators) == {"keypoints", "depth"}
        assert len(sidecar.estimators["depth"]["sha256"]) == 64
    written = json.loads((tmp_path / "out" / "preprocess_report.json").read_text())
    assert written["counts"]["frames"] == 4 and written["summary"] == report.summary
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_batches_do_not_change_what_is_found(frames: Path, tmp_path: Path, networks: dict) -> None:
    for size in (1, 4):
        preprocess_folders(frames, tmp_path / str(size), **networks, batch_size=size)
    for name in SIZES:
        one, four = (read_sidecar(tmp_path / str(size) / name.rpartition(".")[0]) for size in (1, 4))
        assert len(one.people) == len(four.people)
        for a, b in zip(one.people, four.people, strict=True):
            np.testing.assert_allclose(a.keypoints_px, b.keypoints_px, atol=0.01)


def test_complete_frames_are_left_alone_and_need_no_weights(frames: Path, tmp_path: Path, networks: dict) -> None:
    preprocess_folders(frames, tmp_path / "out", **networks)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("a*")}
    nothing = {"yolo_model": "/not/there.pt", "depth_model": "/not/there", "device": "cpu"}
    report = preprocess_folders(frames, tmp_path / "out", **nothing)
    assert report.counts["complete_before"] == 4 and not report.counts["frames"]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("a*")}
    with pytest.raises(FileNotFoundError, match="/not/there.pt is missing"):
        preprocess_folders(frames, tmp_path / "out", **nothing, overwrite=True)


def test_a_half_written_frame_is_done_again(frames: Path, tmp_path: Path, networks: dict) -> None:
    preprocess_folders(frames, tmp_path / "out", **networks)
    whole = files_of(tmp_path / "out")
    (tmp_path / "out" / "s1" / "a.json").write_bytes(whole["s1/a.json"][:40])
    (tmp_path / "out" / "s1" / "b_depth.png").unlink()
    report = preprocess_folders(frames, tmp_path / "out", **networks)
    assert report.counts["frames"] == 2 and report.counts["complete_before"] == 2
    assert set(files_of(tmp_path / "out")) == set(whole)
    assert is_complete(tmp_path / "out" / "s1" / "a", depth=True)


def test_a_run_that_was_killed_goes_on(
    frames: Path, tmp_path: Path, networks: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess_folders(frames, tmp_path / "straight", **networks, batch_size=1)
    written = []

    def write_two(path_stem: Path, sidecar: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path_stem)
        write_sidecar(path_stem, sidecar)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(frames_module, "write_sidecar", write_two)
        preprocess_folders(frames, tmp_path / "broken", **networks, batch_size=1)
    assert sum(is_complete(stem, depth=True) for stem in written) == 2
    report = preprocess_folders(frames, tmp_path / "broken", **networks, batch_size=1)
    assert report.counts["complete_before"] == 2
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "straight")


def test_a_bad_image_is_named_and_does_not_stop_the_run(frames: Path, tmp_path: Path, networks: dict) -> None:
    (frames / "s1" / "aa.jpg").write_text("no picture")
    report = preprocess_folders(frames, tmp_path / "out", **networks)
    assert report.counts["frames"] == 4 and report.exit_code == 1
    assert report.skipped == {"unreadable image": ["s1/aa.jpg (not an image)"]}
    assert preprocess_folders(frames, tmp_path / "out", **networks, max_bad=0.5).exit_code == 0
    assert not (tmp_path / "out" / "s1" / "aa.json").exists()


def test_without_depth_there_are_keypoints_only_and_depth_can_follow(
    frames: Path, tmp_path: Path, networks: dict
) -> None:
    keypoints_only = networks | {"depth_model": "/not/there", "no_depth": True}
    preprocess_folders(frames, tmp_path / "out", **keypoints_only)
    assert not list((tmp_path / "out").rglob("*.png"))
    sidecar = read_sidecar(tmp_path / "out" / "s1" / "a")
    assert sidecar.people and sidecar.depth_m is None and sidecar.focal_px is None
    assert preprocess_folders(frames, tmp_path / "out", **keypoints_only).counts["complete_before"] == 4
    assert preprocess_folders(frames, tmp_path / "out", **networks).counts["frames"] == 4
    assert read_sidecar(tmp_path / "out" / "s1" / "a").depth_m is not None


def test_frames_by_other_networks_are_told_and_a_fault_among_new_ones(
    frames: Path, tmp_path: Path, networks: dict
) -> None:
    shutil.copyfile(networks["yolo_model"], tmp_path / "other.pt")
    renamed = networks | {"yolo_model": str(tmp_path / "other.pt")}
    preprocess_folders(frames, tmp_path / "out", **networks)
    assert not preprocess_folders(frames, tmp_path / "out", **networks, precision="bf16").notes
    kept = preprocess_folders(frames, tmp_path / "out", **renamed)
    words = (
        "frames that were complete are by other networks: s1/a.jpg has keypoints by tiny; --overwrite does them again"
    )
    assert kept.notes == [words] and kept.exit_code == 0 and kept.counts["complete_before"] == 4
    (tmp_path / "out/s1/b.json").unlink()
    assert not preprocess_folders(frames, tmp_path / "out", **renamed).faults, "the same weights by another name"
    (tmp_path / "out/s1/b.json").unlink()
    mixed = preprocess_folders(frames, tmp_path / "out", **networks, depth_on="crop")
    assert "s1/a.jpg has depth of the frame" in mixed.faults[0] and mixed.exit_code == 1
    whole = preprocess_folders(frames, tmp_path / "out", **networks, depth_on="crop", overwrite=True)
    assert whole.exit_code == 0 and not whole.notes


def test_sidecars_may_lie_beside_or_below_the_images(frames: Path, tmp_path: Path, networks: dict) -> None:
    for target in (frames, frames / "processed"):
        preprocess_folders(frames, target, **networks)
        report = preprocess_folders(frames, target, **networks)
        assert report.inputs == report.counts["complete_before"] == len(SIZES)
        if target != frames:
            continue
        for path in frames.rglob("*_depth.png"):
            path.unlink()


def test_an_image_whose_sidecar_would_be_anothers_is_named(frames: Path, tmp_path: Path, networks: dict) -> None:
    Image.new("RGB", (20, 20)).save(frames / "s1" / "a.png")
    report = preprocess_folders(frames, tmp_path / "out", **networks)
    assert report.skipped == {"same name as another image but for its ending": ["s1/a.png"]}


def test_people_nobody_found_are_a_complete_frame(frames: Path, tmp_path: Path, blind_pose_model: str) -> None:
    arguments = {"yolo_model": blind_pose_model, "no_depth": True, "device": "cpu"}
    report = preprocess_folders(frames, tmp_path / "out", **arguments)
    assert report.counts["frames_without_people"] == 4 and report.exit_code == 0
    assert read_sidecar(tmp_path / "out" / "s1" / "a").people == []


def test_every_nth_frame_of_a_video_is_a_frame(tmp_path: Path, networks: dict) -> None:
    rng = np.random.default_rng(0)
    write_video(tmp_path / "in/S1/walk 1.5.mp4", (rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(7)), 25.0)
    report = preprocess_folders(tmp_path / "in", tmp_path / "out", **networks, frame_step=3)
    folder = tmp_path / "out/S1/walk 1.5.mp4"
    assert sorted(path.stem for path in folder.glob("*.json")) == ["000000", "000003", "000006"]
    assert report.counts["frames"] == 3 and read_sidecar(folder / "000006").image_size_wh == (64, 48)
    again = preprocess_folders(tmp_path / "in", tmp_path / "out", **networks, frame_step=3)
    assert again.counts["complete_before"] == 3


def test_a_broken_video_is_named_and_does_not_stop_the_run(frames: Path, tmp_path: Path, networks: dict) -> None:
    (frames / "s1/clip.mp4").write_bytes(b"no video")
    report = preprocess_folders(frames, tmp_path / "out", **networks)
    assert report.counts["frames"] == 4 and "clip.mp4 is no video" in report.skipped["unreadable image"][0]


def test_a_batch_that_memory_does_not_hold_is_halved_and_the_run_goes_on(
    frames: Path, tmp_path: Path, networks: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, estimate = [], CueNetworks.estimate_depth

    def two_at_most(self: CueNetworks, inputs: Any) -> list:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return estimate(self, inputs)

    monkeypatch.setattr(CueNetworks, "estimate_depth", two_at_most)
    for number in range(4):
        Image.new("RGB", (20, 20)).save(frames / f"z{number}.png")
    report = preprocess_folders(frames, tmp_path / "out", **networks, batch_size=4)
    assert report.counts["frames"] == 8 and report.exit_code == 0
    assert sizes == [4, 2, 2, 2, 2], "what was too much once is not tried again"
    assert report.notes == ["the memory holds 2 images in the networks at once; --batch-size was more"]


def test_an_image_that_the_networks_cannot_take_is_named_and_the_others_of_its_batch_are_done(
    frames: Path, tmp_path: Path, networks: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = CueNetworks.find_people

    def no_tall_ones(self: CueNetworks, looks: Any) -> list:
        if any(look.image.shape[0] == 90 for look in looks):
            raise RuntimeError("shape '[1, 2]' is invalid\nmore")
        return find(self, looks)

    monkeypatch.setattr(CueNetworks, "find_people", no_tall_ones)
    report = preprocess_folders(frames, tmp_path / "out", **networks)
    assert report.counts["frames"] == 3
    assert report.skipped == {"the networks cannot take it": ["s1/deep/a.png (shape '[1, 2]' is invalid)"]}


def test_depth_on_the_people_alone_is_unknown_elsewhere(frames: Path, tmp_path: Path, networks: dict) -> None:
    preprocess_folders(frames, tmp_path / "frame", **networks)
    report = preprocess_folders(frames, tmp_path / "crop", **networks, depth_on="crop")
    assert report.counts["frames"] == 4
    for name, size in SIZES.items():
        stem = tmp_path / "crop" / name.rpartition(".")[0]
        sidecar = read_sidecar(stem)
        x0, y0, x1, y1 = region_of(sidecar.people, size[::-1])
        assert sidecar.depth_m is not None and sidecar.focal_px and sidecar.depth_m.shape == size[::-1]
        assert (sidecar.depth_m[y0:y1, x0:x1] > 0).all()
        assert np.count_nonzero(sidecar.depth_m) == (x1 - x0) * (y1 - y0)
        assert sidecar.estimators["depth"]["on"] == "crop"


def test_frames_without_people_have_an_unknown_depth_on_the_people(
    frames: Path, tmp_path: Path, networks: dict, blind_pose_model: str
) -> None:
    blind = networks | {"yolo_model": blind_pose_model, "depth_on": "crop"}
    assert preprocess_folders(frames, tmp_path / "out", **blind).counts["frames"] == 4
    sidecar = read_sidecar(tmp_path / "out/s1/a")
    assert sidecar.depth_m is not None and not sidecar.depth_m.any() and sidecar.focal_px is None
    assert preprocess_folders(frames, tmp_path / "out", **blind).counts["complete_before"] == 4


def test_shards_together_write_what_one_run_does(frames: Path, tmp_path: Path, networks: dict) -> None:
    Image.new("RGB", (20, 20)).save(frames / "s1" / "a.png")
    (frames / "s2" / "none.jpg").write_text("no picture")
    whole = preprocess_folders(frames, tmp_path / "whole", **networks, batch_size=2, max_bad=1.0)
    for number in (3, 1, 2, 4):  # more shards than batches
        preprocess_folders(frames, tmp_path / "parts", **networks, batch_size=2, shard=f"{number}/4", max_bad=1.0)
    parts = {name: data for name, data in files_of(tmp_path / "parts").items() if "_report." not in name}
    assert parts == files_of(tmp_path / "whole")
    report = json.loads((tmp_path / "parts/preprocess_report.json").read_bytes())
    assert report["inputs"] == whole.inputs == 6 and report["counts"]["frames"] == whole.counts["frames"] == 4
    assert {reason: some["inputs"] for reason, some in report["skipped"].items()} == whole.skipped


def test_what_was_there_before_does_not_change_what_comes_after(frames: Path, tmp_path: Path, networks: dict) -> None:
    preprocess_folders(frames, tmp_path / "out", **networks)
    before = files_of(tmp_path / "out")
    for name in ("s1/a.json", "s2/Directions 1.54_01_depth.png"):
        (tmp_path / "out" / name).unlink()
    untouched = (tmp_path / "out/s1/b.json").stat().st_mtime_ns
    preprocess_folders(frames, tmp_path / "out", **networks)
    assert files_of(tmp_path / "out") == before
    assert (tmp_path / "out/s1/b.json").stat().st_mtime_ns == untouched


def test_a_listing_is_read_as_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = 0

    def find_images(*_: Any, **__: Any) -> Iterator[Path]:
        nonlocal listed
        for listed in range(1, 10**7):
            yield Path(f"s{listed // 1000}/{listed}.jpg")

    monkeypatch.setattr(frames_module, "find_images", find_images)
    frames, target = frames_module.LocalFrames(LocalStore(tmp_path)), LocalStore(tmp_path / "out")
    batches = preprocess.Plan(frames, target, 1, 8, Shard(2, 4)).batches(StageReport("preprocess"))
    assert next(batches)[0] == "s0/9.jpg" and listed == 16


def test_processes_that_are_killed_lose_nothing(
    tmp_path: Path, networks: dict, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)  # two workers of one thread each: as this process has here
    rng = np.random.default_rng(5)
    for number in range(24):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"in/{number:02d}.png")
    preprocess_folders(tmp_path / "in", tmp_path / "whole", **networks, batch_size=2)
    stop, killed = threading.Event(), []

    def kill() -> None:
        while not stop.is_set():
            done = len(list((tmp_path / "killed").rglob("*.json")))
            if done >= 8 * (len(killed) + 1) and len(killed) < 2 and (children := active_children()):
                os.kill(children[len(killed) % len(children)].pid or 0, signal.SIGKILL)
                killed.append(done)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = preprocess_folders(tmp_path / "in", tmp_path / "killed", **networks, batch_size=2, devices=2)
    finally:
        stop.set()
        killer.join()
    assert killed and report.exit_code == 0 and report.counts["frames"] + report.counts["complete_before"] == 24
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_bad_folders_are_one_clear_line(tmp_path: Path, networks: dict) -> None:
    def run(source: Path, target: Path) -> StageReport:
        return preprocess_folders(source, target, **networks)

    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in .*empty"):
        run(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    Image.new("RGB", (20, 20)).save(tmp_path / "empty" / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is or lies in a file"):
        run(tmp_path / "empty", tmp_path / "file")


def test_a_full_disk_is_told_with_the_file(
    frames: Path, tmp_path: Path, networks: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"_depth.png cannot be written \(No space left on device\)"):
        preprocess_folders(frames, tmp_path / "out", **networks)
