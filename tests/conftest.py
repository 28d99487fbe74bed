"""Real parts that tests run against: an rclone remote on 127.0.0.1, networks in real formats, real samples."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from humanpose3d.remotes import rclone_binary
from tests.ports import free_port, wait_for_port

# No example fails for its time: on a busy machine any of them may wait.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@dataclass(frozen=True)
class S3Remote:
    """A cloud drive of our own: an S3 server by rclone, and the rclone remote that reaches it."""

    location: str  # "hp3dtest:bucket"
    folder: Path  # what lies there, to look at; write through the remote only: the server remembers its listings
    config: Path  # the rclone configuration that knows the remote

    @property
    def env(self) -> dict[str, str]:
        """What a subprocess needs to reach it."""
        return {"RCLONE_CONFIG": str(self.config)}


@pytest.fixture(scope="session")
def _s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Remote]:
    root = tmp_path_factory.mktemp("s3")
    folder, config = root / "drive" / "bucket", root / "rclone.conf"
    folder.mkdir(parents=True)
    port = free_port()
    config.write_text(
        f"[hp3dtest]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\n"
        "access_key_id = KEY\nsecret_access_key = SECRET\n"
    )
    server = subprocess.Popen(
        [str(rclone_binary()), "serve", "s3", str(folder.parent), "--addr", f"127.0.0.1:{port}",
         "--auth-key", "KEY,SECRET", "--config", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(port, server)
        yield S3Remote("hp3dtest:bucket", folder, config)
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture
def s3_remote(_s3_server: S3Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Remote:
    """An empty folder on a cloud drive, reached as `s3_remote.location` by this process and those it starts."""
    monkeypatch.setenv("RCLONE_CONFIG", str(_s3_server.config))
    name = tmp_path.name
    return S3Remote(f"{_s3_server.location}/{name}", _s3_server.folder / name, _s3_server.config)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Downloads and other libraries' settings go here, never to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUMANPOSE3D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_pose_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of an Ultralytics pose model with random weights that finds people everywhere."""
    from tests.networks import save_tiny_pose_model

    return str(save_tiny_pose_model(tmp_path_factory.mktemp("pose") / "tiny.pt"))


@pytest.fixture(scope="session")
def blind_pose_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of an Ultralytics pose model that never finds anybody."""
    from tests.networks import save_tiny_pose_model

    return str(save_tiny_pose_model(tmp_path_factory.mktemp("pose") / "blind.pt", sees=False))


@pytest.fixture(scope="session")
def tiny_depth_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a DepthPro with random weights."""
    from tests.networks import save_tiny_depth_model

    return str(save_tiny_depth_model(tmp_path_factory.mktemp("depth")))


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples; tests that need them are skipped without it."""
    if not os.environ.get("HUMANPOSE3D_SAMPLES"):
        pytest.skip("HUMANPOSE3D_SAMPLES names no folder of real samples")
    return Path(os.environ["HUMANPOSE3D_SAMPLES"])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread: tests run side by side, and sums come out the same."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
