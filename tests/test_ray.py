"""A real Ray cluster of two nodes on 127.0.0.1: the same bytes as here, whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from humanpose3d.chunks.build import build_chunks
from humanpose3d.engines import import_ray, open_engine
from humanpose3d.preprocess import preprocess_folders
from humanpose3d.remotes import open_store
from humanpose3d.studio.mocap import write_mocap
from humanpose3d.video import write_video
from tests.chunks.sets import hashes, samples_of, write_set
from tests.chunks.test_rechunk import shuffle
from tests.chunks.test_split import split
from tests.conftest import S3Remote
from tests.ports import free_port, wait_for_port
from tests.test_engines import Note

pytest.importorskip("ray", reason="Ray is not installed: pip install 'humanpose3d[ray]'")

FRAMES = 24


@pytest.fixture(scope="module")
def cluster(_s3_server: S3Remote) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """(address, the two nodes' processes), one CPU each. They know the test's remote."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    with tempfile.TemporaryDirectory(prefix="hp3d-", ignore_cleanup_errors=True) as folder:
        env = os.environ | _s3_server.env
        env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        env["RAY_AUTH_MODE"] = "disabled"  # else `ray start` asks for the token of the user's home, where one lies
        common = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        small = ["--object-store-memory=80000000"]
        head = [*ray, "--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
        nodes = [subprocess.Popen([*head, *small, f"--temp-dir={folder}"], **common)]  # type: ignore[call-overload]
        try:
            wait_for_port(port, nodes[0])
            second = [*ray, f"--address={address}", "--node-ip-address=127.0.0.1", *small]
            nodes.append(subprocess.Popen(second, **common))  # type: ignore[call-overload]
            _wait_for_cpus(address, 2)
            yield address, nodes
        finally:
            for pid in processes_of(nodes, "ray::"):  # Ray Data's helpers outlive their driver; Ray would wait for them
                os.kill(pid, signal.SIGKILL)
            for node in reversed(nodes):
                node.terminate()
                node.wait(timeout=60)


def _wait_for_cpus(address: str, number: int) -> None:
    code = (
        "import ray, sys, time\n"
        f"ray.init('{address}', log_to_driver=False, logging_level='error')\n"
        f"while ray.cluster_resources().get('CPU', 0) < {number}: time.sleep(0.2)"
    )
    driver = subprocess.run([sys.executable, "-c", code], timeout=300, capture_output=True, text=True)
    assert driver.returncode == 0, driver.stderr


@pytest.fixture
def arguments(tiny_pose_model: str, tiny_depth_model: str, tmp_path: Path) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    (tmp_path / "in").mkdir()
    for number in range(FRAMES):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"in/{number:02d}.png")
    return {
        "input_base_directory": tmp_path / "in", "yolo_model": tiny_pose_model, "depth_model": tiny_depth_model,
        "device": "cpu", "batch_size": 2, "temp_dir": tmp_path / "temp",
    }  # fmt: skip


def sidecars(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "report" not in path.name)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def workers_of(nodes: list[subprocess.Popen]) -> list[int]:
    """Processes of our nodes that hold networks."""
    return processes_of(nodes, "ray::MapWorker")


def processes_of(nodes: list[subprocess.Popen], name: str) -> list[int]:
    below = [child for node in nodes for child in psutil.Process(node.pid).children(recursive=True)]
    return [child.pid for child in below if _name(child).startswith(name)]


def _name(process: Any) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_cluster_writes_the_same_bytes_though_its_workers_are_killed(
    cluster: tuple[str, list[subprocess.Popen]],
    tmp_path: Path,
    arguments: dict,
    one_thread: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, nodes = cluster
    monkeypatch.chdir(tmp_path)  # whose relative paths mean the same to workers that were started elsewhere
    for name in ("input_base_directory", "yolo_model", "depth_model"):
        arguments[name] = os.path.relpath(arguments[name])
    preprocess_folders(output_base_directory="here", **arguments)
    stop, killed = threading.Event(), []

    def kill() -> None:
        while not stop.wait(0.05):
            done = len(list((tmp_path / "there").glob("*.json")))
            if done >= 8 * (len(killed) + 1) and len(killed) < 2 and (pids := workers_of(nodes)):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(done)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = preprocess_folders(
            output_base_directory="there", **arguments, engine="ray", address=address, devices=-1
        )
    finally:
        stop.set()
        killer.join()
    assert killed and report.exit_code == 0 and report.facts["workers"] == 2
    assert report.counts["frames"] + report.counts["complete_before"] == FRAMES
    assert sidecars(tmp_path / "there") == sidecars(tmp_path / "here")


def test_a_cluster_reads_and_writes_a_remote(
    cluster: tuple[str, list[subprocess.Popen]], tmp_path: Path, arguments: dict, s3_remote: S3Remote, one_thread: None
) -> None:
    rng = np.random.default_rng(0)
    clip = arguments["input_base_directory"] / "zz.mp4"
    write_video(clip, (rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(10)), 25.0)
    preprocess_folders(output_base_directory=tmp_path / "here", **arguments)
    for path in arguments["input_base_directory"].iterdir():
        open_store(f"{s3_remote.location}/in").put(path, path.name)
    there = arguments | {"input_base_directory": f"{s3_remote.location}/in", "engine": "ray", "address": cluster[0]}
    report = preprocess_folders(output_base_directory=f"{s3_remote.location}/out", **there, devices=-1)
    assert report.counts["frames"] == FRAMES + 10 and report.facts["workers"] == 2
    assert sidecars(s3_remote.folder / "out") == sidecars(tmp_path / "here")
    assert not list(arguments["temp_dir"].rglob("*.mp4")), "no video stays behind"


def test_what_is_wrong_is_the_same_one_line_from_a_cluster(
    cluster: tuple[str, list[subprocess.Popen]], tmp_path: Path, arguments: dict
) -> None:
    on_ray = arguments | {"engine": "ray", "address": cluster[0], "output_base_directory": tmp_path / "out"}
    with pytest.raises(FileNotFoundError, match="/not/there.pt is missing"):
        preprocess_folders(**on_ray | {"yolo_model": "/not/there.pt"})
    with pytest.raises(ValueError, match="9 workers, and the Ray cluster has 0 GPUs and 2 CPUs; ask for fewer"):
        preprocess_folders(**on_ray, devices=9)


def test_a_cluster_makes_the_same_chunks(cluster: tuple[str, list[subprocess.Popen]], tmp_path: Path) -> None:
    write_mocap(tmp_path / "motion", subjects=["S101", "S901"], frames_per_take=6)
    settings: dict[str, Any] = {
        "subjects": ("train", "validation"), "dataset": "mocap", "images_path": None, "processed_path": None,
        "annotations_path": tmp_path / "motion", "chunk_size": 100, "crop": "person", "image_size": 96, "margin": 0.25,
        "depth_scale": 0.5, "jpeg_quality": 95, "image_pattern": None, "frame_step": 1, "window": 5,
        "match_threshold": 0.15, "cues": "auto", "missing_images": "error", "cameras": 2, "camera_seed": None,
        "bodies": None, "compress": "none", "max_bad": 0.2,
    }  # fmt: skip
    build_chunks(output=str(tmp_path / "here"), workers=1, **settings)
    report = build_chunks(output=str(tmp_path / "there"), workers=2, engine="ray", address=cluster[0], **settings)
    assert report.exit_code == 0
    here, there = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("here", "there"))
    assert len(here) > 4 and {name for name in here if here[name] != there[name]} == {"chunker_report.json"}


def test_a_cluster_splits_and_shuffles_to_the_same_bytes_though_a_worker_is_killed(
    cluster: tuple[str, list[subprocess.Popen]], tmp_path: Path
) -> None:
    address, nodes = cluster
    write_set(tmp_path / "chunks", samples_of(60), chunk_size=9)
    stop = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not killed and not stop.wait(0.02):
            if list((tmp_path / "there").rglob("*.tar")) and (pids := workers_of(nodes)):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        on_ray: dict[str, Any] = {"engine": "ray", "address": address}
        for place, engine in (("there", on_ray), ("here", {})):
            folder = tmp_path / place
            split(tmp_path, tmp_path / "chunks", folder / "split", "S1", "S9", **engine)
            report = shuffle(tmp_path, folder / "split", folder / "shuffled", chunk_size=2, **engine)
            assert report.counts == {"samples": 60, "chunks": 30} and report.exit_code == 0
    finally:
        stop.set()
        killer.join()
    assert killed and hashes(tmp_path / "there") == hashes(tmp_path / "here")
    assert not list((tmp_path / "there").rglob("*.part"))


def test_damage_that_a_worker_finds_is_the_same_one_line_and_leaves_nothing(
    cluster: tuple[str, list[subprocess.Popen]], tmp_path: Path
) -> None:
    write_set(tmp_path / "chunks", samples_of(20), chunk_size=9)
    chunk = tmp_path / "chunks" / "chunk_000001.tar"
    whole = chunk.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(b"\xff\xd8\xff") + 200] ^= 0xFF  # inside a JPEG: its ends are well
    chunk.write_bytes(damaged)
    with pytest.raises(ValueError, match="chunk_000001.tar does not have the checksum that index.json says"):
        shuffle(tmp_path, tmp_path / "chunks", tmp_path / "out", engine="ray", address=cluster[0])
    chunk.write_bytes(whole)
    shuffle(tmp_path, tmp_path / "chunks", tmp_path / "out")
    shuffle(tmp_path, tmp_path / "chunks", tmp_path / "straight")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "straight")


def test_a_task_that_kills_is_cut_and_a_killed_dealer_deals_on(
    cluster: tuple[str, list[subprocess.Popen]], tmp_path: Path
) -> None:
    address, nodes = cluster
    done, dealers = Counter[int | str](), 0
    with open_engine("ray", address, 2, False) as engine:
        cut: dict[int | str, list[int | str]] = {13: [2, 3]}
        for task, _ in engine.run(Note(tmp_path), range(4, 44), lambda task: cut[task]):
            done[task] += 1
            if not dealers:
                for pid in processes_of(nodes, "ray::ReadTasks"):
                    os.kill(pid, signal.SIGKILL)
                    dealers += 1
    assert dealers == 1 and done == Counter({*range(2, 44)} - {13})


def test_an_address_where_nothing_is_is_one_clear_line() -> None:
    with (
        pytest.raises(ValueError, match="no Ray cluster answers at 127.0.0.1:1 .*refused.*'ray start --head'"),
        open_engine("ray", "127.0.0.1:1", 1, False),
    ):
        pass


def test_a_cluster_that_asks_for_its_token_is_one_line_that_says_how_to_give_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        cause = RuntimeError("Failed to connect to GCS. ...\nray.exceptions.AuthenticationError: InvalidAuthToken")
        raise ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:1") from cause

    monkeypatch.setattr("humanpose3d.engines.cluster._knock", lambda address: None)
    monkeypatch.setattr(import_ray(), "init", refuse)
    with (
        pytest.raises(ValueError, match="cluster at 127.0.0.1:1 asks for its token: set RAY_AUTH_MODE=token"),
        open_engine("ray", "127.0.0.1:1", 1, False),
    ):
        pass


@pytest.mark.parametrize("missing", ["ray", "ray.data"])
def test_without_ray_there_is_one_line_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"--engine ray needs Ray Data: pip install 'humanpose3d\[ray\]'"):
        import_ray()
