"""One rclone daemon for all processes of a machine: shared, private, there when needed, gone with the last of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from humanpose3d.remotes import daemon, open_store, rclone
from tests.faulty import Fault, FaultyProxy, remote_settings, serving

ROOT = Path(__file__).parents[1]
HEADER = """
import os, sys, time
from pathlib import Path
from humanpose3d.remotes import daemon, drive, open_store, rclone
def pid_of_daemon():
    return daemon.daemon_for([]).call("core/pid", 10.0)["pid"]
store = open_store(sys.argv[1])
"""


def program(code: str, *arguments: str | Path) -> subprocess.Popen:
    """A Python process of its own, as torchrun or a shell starts them."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    return subprocess.Popen(
        [sys.executable, "-c", HEADER + code, *map(str, arguments)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def own_folder(tmp_path_factory, monkeypatch, s3_remote):
    """Daemons of this test alone."""
    folder = tmp_path_factory.mktemp("d")
    monkeypatch.setenv(daemon.FOLDER, str(folder))
    return folder


REPORT = "store.list(); print(pid_of_daemon(), flush=True); sys.stdin.read()"


def test_programs_share_one_daemon_and_the_last_takes_it_along(s3_remote, own_folder):
    programs = [program(REPORT, s3_remote.location) for _ in range(3)]
    pids = {int(each.stdout.readline()) for each in programs}
    assert len(pids) == 1
    [pid] = pids
    [folder] = own_folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    programs[0].kill()
    programs[1].stdin.close()
    for each in programs[:2]:
        each.wait(timeout=10)
    time.sleep(0.2)
    assert is_alive(pid)
    programs[2].send_signal(signal.SIGKILL)
    programs[2].wait(timeout=10)
    wait_until(lambda: not is_alive(pid) and not list(own_folder.iterdir()))


def test_a_child_uses_its_parents_daemon_even_with_another_tmpdir(s3_remote, own_folder):
    code = """
import subprocess
store.list()
print(pid_of_daemon(), flush=True)
if len(sys.argv) == 2:
    environment = os.environ | {"TMPDIR": "/var/tmp"}
    subprocess.run([sys.executable, *sys.orig_argv[1:], "child"], env=environment, check=True)
"""
    parent = program(code, s3_remote.location)
    told, _ = parent.communicate(timeout=30)
    assert parent.returncode == 0 and len(set(told.split())) == 1 and len(told.split()) == 2


def test_forked_workers_use_the_parents_daemon(s3_remote, own_folder):
    code = """
import multiprocessing
def work(store, queue):
    store.list()
    queue.put(pid_of_daemon())
store.list()
context = multiprocessing.get_context("fork")
queue = context.Queue()
worker = context.Process(target=work, args=(store, queue))
worker.start()
print(queue.get(timeout=20) == pid_of_daemon())
worker.join()
"""
    parent = program(code, s3_remote.location)
    assert parent.communicate(timeout=40)[0].split() == ["True"]


def test_a_daemon_that_dies_is_started_anew(s3_remote, own_folder):
    store = open_store(s3_remote.location)
    store.write_bytes("file", b"data")
    for _ in range(2):
        pid = daemon.daemon_for([]).call("core/pid", 10.0)["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not is_alive(pid))
        assert store.read_bytes("file") == b"data"


def test_a_daemon_killed_in_the_middle_of_a_file_costs_nothing(s3_remote, own_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(rclone, "OUTAGE_DELAYS_S", (0.05, 0.05, 0.05))
    store, data = open_store(s3_remote.location), os.urandom(40_000_000)
    (tmp_path / "up").write_bytes(data)
    store.put(tmp_path / "up", "file")
    pid = daemon.daemon_for([]).call("core/pid", 10.0)["pid"]
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.05; kill -9 {pid}"])
    for number in range(5):
        store.get("file", tmp_path / f"down{number}", size=len(data))
        assert (tmp_path / f"down{number}").read_bytes() == data
    killer.wait()
    assert not is_alive(pid)


def test_without_a_daemon_each_call_is_a_process_and_that_is_said_once(s3_remote, own_folder, monkeypatch, caplog):
    daemon.daemon_for([]).folder.write_text("somebody else's")
    store = open_store(s3_remote.location)
    store.write_bytes("file", b"data")
    assert store.read_bytes("file") == b"data" and store.stat("file").size == 4
    warnings = [record.message for record in caplog.records if "cannot run here" in record.message]
    assert len(warnings) == 1 and "is not a private folder of this user" in warnings[0]


def test_a_folder_that_others_may_enter_is_not_used(own_folder):
    folder = daemon.daemon_for([]).folder
    folder.mkdir(mode=0o755)
    with pytest.raises(daemon.NoDaemon, match="not a private folder"):
        daemon._private_folder(folder)


def test_a_killed_get_goes_on_where_it_was(tmp_path, monkeypatch):
    (tmp_path / "drive" / "bucket").mkdir(parents=True)
    data = os.urandom(6_000_000)
    (tmp_path / "drive" / "bucket" / "file").write_bytes(data)
    with serving("webdav", tmp_path / "drive", tmp_path) as port, FaultyProxy(port) as proxy:
        (tmp_path / "rclone.conf").write_text(remote_settings("webdav", proxy.port))
        monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
        code = """
drive.RANGE_BYTES, drive.RANGES_AT_ONCE = 1 << 20, 2
store.get("file", Path(sys.argv[2]))
"""
        store = open_store("drive:bucket")
        # Both of its connections hang after they have brought some ranges.
        proxy.plan(Fault("hang", 2_500_000, times=2))
        first = program(code, store.location, tmp_path / "copy")
        part = tmp_path / ".copy.ranges.part"
        wait_until(lambda: part.exists() and part.read_bytes().count(b"\1") >= 2 and len(proxy.met) == 2)
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=10)
        before = proxy.bytes_down
        again = program(code, store.location, tmp_path / "copy")
        again.communicate(timeout=30)
        assert again.returncode == 0 and (tmp_path / "copy").read_bytes() == data
        assert proxy.bytes_down - before < 5_000_000, "two ranges at least were there already"
        assert not list(tmp_path.glob(".copy*"))


# --- throttling -------------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path, monkeypatch):
    (tmp_path / "rclone.conf").write_text(
        "[one]\ntype = onedrive\n\n[hidden]\ntype = crypt\nremote = one:secret\n\n[fast]\ntype = s3\n"
    )
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    monkeypatch.delenv(rclone.TPSLIMIT, raising=False)


@pytest.mark.usefixtures("configured")
def test_a_onedrive_is_asked_three_times_a_second_even_behind_encryption(monkeypatch):
    assert [rclone.requests_per_s(name) for name in ("one", "hidden", "fast", "unknown")] == [3.0, 3.0, 0.0, 0.0]
    assert rclone.throttle_flags("one") == ["--tpslimit", "3", "--tpslimit-burst", "15"]
    assert rclone.throttle_flags("fast") == []
    monkeypatch.setenv("RCLONE_CONFIG_FAST_TYPE", "onedrive")
    assert rclone.requests_per_s("fast") == 3.0


@pytest.mark.usefixtures("configured")
def test_the_users_own_limit_comes_first(monkeypatch):
    monkeypatch.setenv(rclone.TPSLIMIT, "0.5")
    assert rclone.throttle_flags("fast") == ["--tpslimit", "0.5", "--tpslimit-burst", "2"]
    monkeypatch.setenv(rclone.TPSLIMIT, "0")
    assert rclone.throttle_flags("one") == []
    monkeypatch.setenv(rclone.TPSLIMIT, "many")
    with pytest.raises(ValueError, match="HUMANPOSE3D_TPSLIMIT is 'many', not a number"):
        rclone.requests_per_s("one")


def test_a_throttled_drive_really_gets_fewer_requests(s3_remote, own_folder, monkeypatch):
    store = open_store(s3_remote.location)
    store.write_bytes("file", b"data")
    monkeypatch.setenv(rclone.TPSLIMIT, "10")
    store.stat("file")
    for _ in range(50):  # the burst
        store.stat("file")
    start = time.monotonic()
    for _ in range(10):
        store.stat("file")
    assert time.monotonic() - start > 0.5


def test_all_processes_keep_the_pause_that_one_was_told(tmp_path):
    first, second = (rclone.Pace(tmp_path / "pause") for _ in range(2))
    first.slow_down(0.3)
    start = time.monotonic()
    second.wait()
    assert 0.2 < time.monotonic() - start < 2


def test_many_refusals_at_once_are_one_and_later_ones_ask_for_longer_pauses(tmp_path):
    pace = rclone.Pace(tmp_path / "pause")

    def pause_s():
        return (tmp_path / "pause").stat().st_mtime - time.time()

    for _ in range(16):
        pace.slow_down(None)
    assert 1.5 < pause_s() <= 2
    pace._until = 0.0
    os.utime(tmp_path / "pause", (0, 0))
    pace.slow_down(None)
    assert 3.5 < pause_s() <= 4
    pace.slow_down(1e9)
    assert pause_s() <= rclone.LONGEST_PAUSE_S


def test_a_drive_says_how_long_it_wants_to_be_left_alone():
    assert rclone.Failure("429 Too Many Requests: Retry-After: 17").retry_after_s == 17
    assert rclone.Failure("activityLimitReached: trying again in 2.5s").retry_after_s == 2.5
    assert rclone.Failure("StatusCode: 503").is_busy and rclone.Failure("503 Service Unavailable").is_busy
    assert not rclone.Failure("chunk_503.tar is damaged").is_busy
    assert rclone.Failure("StatusCode: 403, AccessDenied").is_final
    assert not rclone.Failure("connection reset").is_final
