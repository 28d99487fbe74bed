"""Epochs streamed from a cloud drive against the same epochs from a local folder, interleaved in one run.

    python benchmarks/remote.py [--quick] [--json FILE] [--rounds 3] [--samples 8000] [--work DIR]

The drive is `rclone serve s3` behind a proxy that gives each connection 60 ms of latency and 25 MB/s. A real drive
takes none of this machine's processors, so it has one to itself here, and all runs, the local ones too, do without that
one. Every run is a fresh process with an empty cache. 512 px JPEG and 256 px depth -> views of 256 px, batches of 64.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

LATENCY_S, BYTES_PER_S = 0.06, 25e6  # of a connection to the drive
BATCH, VIEW, WORKERS, CACHE_BYTES = 64, 256, 2, 1e9
CHUNK_SAMPLES = 250  # 36 MB: small enough for a short run to show more than its first window
QUICK_SAMPLES, QUICK_ROUNDS = 2000, 1
WAYS = {  # what a run does -> the environment it does it in
    "local": {},
    "remote": {},
    "remote, a process per call": {"HUMANPOSE3D_RCLONE_DAEMON": "0"},
    "remote, one stream": {"HP3D_BENCH_STREAMS": "1"},
}
GOALS = {"full": 0.85, "half": 0.97}

# --- the drive --------------------------------------------------------------------------------------------------------


def shape(port: int, origin: int) -> None:
    """Forwards TCP for ever: a request waits LATENCY_S, and an answer comes at BYTES_PER_S."""

    def up(client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(1 << 16):
            time.sleep(LATENCY_S)
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)

    def down(server: socket.socket, client: socket.socket) -> None:
        buffer = memoryview(bytearray(1 << 18))
        due = time.perf_counter()
        while count := server.recv_into(buffer):
            now = time.perf_counter()
            due = max(due, now) + count / BYTES_PER_S
            time.sleep(due - now)
            client.sendall(buffer[:count])
        client.close()

    def quietly(pump: Any, *sockets: socket.socket) -> None:
        try:
            pump(*sockets)
        except OSError:
            for each in sockets:
                each.close()

    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    while True:
        client = listener.accept()[0]
        server = socket.create_connection(("127.0.0.1", origin))
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=quietly, args=(up, client, server), daemon=True).start()
        threading.Thread(target=quietly, args=(down, server, client), daemon=True).start()


@contextmanager
def drive(folder: Path, work: Path) -> Iterator[list[int]]:
    """A slow drive of the folder as the remote `bench:`, known to RCLONE_CONFIG; the processes that make it."""
    from humanpose3d.remotes import rclone_binary

    origin, port = _free_port(), _free_port()
    config = work / "rclone.conf"
    config.write_text(
        f"[bench]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\n"
        "access_key_id = BENCHKEY\nsecret_access_key = SECRET\n"
    )
    serve = [str(rclone_binary()), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{origin}"]
    serve += ["--auth-key", "BENCHKEY,SECRET", "--config", str(config)]
    with ExitStack() as stack:
        commands = [serve, [sys.executable, __file__, "--shape", str(port), str(origin)]]
        processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
        for process in processes:
            os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
            stack.callback(process.wait)
            stack.callback(process.kill)
        _wait_for(origin)
        _wait_for(port)
        os.environ["RCLONE_CONFIG"] = str(config)
        yield [process.pid for process in processes]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the drive did not start")


def _cpu_s(pids: list[int]) -> float:
    """Processor seconds they have used."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


# --- one run, in a process of its own ---------------------------------------------------------------------------------


def run(kind: str, source: str, cache: str, step_s: float) -> dict[str, float]:
    """kind "epoch": seconds to the first batch and for all; "get": every chunk to this disk, undecoded."""
    from humanpose3d.chunks.layout import read_index
    from humanpose3d.remotes import daemon, open_store
    from humanpose3d.remotes import drive as drive_module

    if streams := os.environ.get("HP3D_BENCH_STREAMS"):
        drive_module.RANGES_AT_ONCE, drive_module.RANGE_BYTES = int(streams), 1 << 40
    if kind == "get":
        store = open_store(source)
        index = read_index(store)
        start = time.perf_counter()
        for entry in index.chunks:
            store.get(entry.file, Path(cache) / entry.file, size=entry.bytes)
        return {"seconds": time.perf_counter() - start, "bytes": sum(entry.bytes for entry in index.chunks)}
    from humanpose3d.dataset.augmentation import FitView
    from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
    from humanpose3d.dataset.collator import Human36MCollator

    start, count, first_s = time.perf_counter(), 0, 0.0
    dataset = StreamingChunkedDataset(
        source, fields=("image", "depth_m"), transform=FitView(VIEW), cache_dir=cache, cache_bytes=CACHE_BYTES
    )
    collate = Human36MCollator("h36m_17", "coco_17")
    loader = StreamingLoader(dataset, global_batch=BATCH, collate=collate, num_workers=WORKERS)
    waited_s = 0.0
    asked = time.perf_counter()
    for batch in loader:
        waited_s += time.perf_counter() - asked
        first_s = first_s or time.perf_counter() - start
        count += len(batch.keys)
        time.sleep(step_s)  # the training step, on another device
        asked = time.perf_counter()
    seconds = time.perf_counter() - start
    assert not loader.quarantined, loader.quarantined
    loader.close()
    usage = sum(os.times()[:2])
    up = daemon.daemon_for([])
    pid = up.call("core/pid", 10.0)["pid"] if up is not None and source.startswith("bench:") else 0
    return {
        "samples": count, "seconds": seconds, "first_s": first_s, "waited_s": waited_s,
        "cpu_s": usage, "daemon_cpu_s": _cpu_s([pid]) if pid else 0.0,
    }  # fmt: skip


def measured(
    kind: str, way: str, folder: Path, work: Path, servers: list[int], step_s: float = 0.0
) -> dict[str, float]:
    cache = work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    source = str(folder) if way == "local" else f"bench:{folder.name}"
    cores = os.sched_getaffinity(0)
    before = _cpu_s(servers)
    done = subprocess.run(
        [sys.executable, __file__, "--run", kind, source, str(cache), str(step_s)],
        env=os.environ | WAYS[way] | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores - {max(cores)} or cores),
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) | {"drive_cpu_s": _cpu_s(servers) - before}


# --- all of them ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SAMPLES} samples, {QUICK_ROUNDS} round")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8000)
    parser.add_argument("--work", type=Path, help="folder for the data (default: a temporary one)")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--shape", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.shape:
        return shape(*args.shape)
    if args.run:
        print(json.dumps(run(*args.run[:3], float(args.run[3]))))
        return None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the drive goes too
    samples, rounds = (QUICK_SAMPLES, QUICK_ROUNDS) if args.quick else (args.samples, args.rounds)
    with ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hp3d-bench-")))
        work.mkdir(parents=True, exist_ok=True)
        folder = work / "drive" / f"set{samples}"
        if not (folder / "index.json").exists():
            import rechunk

            rechunk.PER_CHUNK = CHUNK_SAMPLES
            rechunk.make_set(folder, samples)
        servers = stack.enter_context(drive(folder.parent, work))
        report(folder, work, servers, samples, rounds, args)
    return None


def report(folder: Path, work: Path, servers: list[int], samples: int, rounds: int, args: argparse.Namespace) -> None:
    """Runs everything, prints the tables, writes the figures."""
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    print(f"{samples} samples, {size / 1e9:.2f} GB in {len(list(folder.glob('*.tar')))} chunks; {rounds} rounds")
    figures: dict[str, Any] = {"samples": samples, "bytes": size, "rounds": rounds, "epochs": {}, "gets": {}}
    measured("epoch", "local", folder, work, servers)  # what is read for the first time does not count
    steps = {"full": 0.0}
    for speed in ("full", "half"):
        ways = list(WAYS) if speed == "full" else list(WAYS)[:2]
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                runs[way].append(measured("epoch", way, folder, work, servers, steps.get(speed, 0.0)))
        if speed == "full":
            # A step takes as long as two batches took to decode: half the rate.
            steps["half"] = 2 * BATCH / statistics.median(_rate(each) for each in runs["local"])
        figures["epochs"][speed] = _table(speed, runs, size)
    for way in list(WAYS)[1:]:
        gets = [measured("get", way, folder, work, servers) for _ in range(rounds)]
        figures["gets"][way] = statistics.median(each["bytes"] / each["seconds"] / 1e6 for each in gets)
        print(f"every chunk fetched, {way}: {figures['gets'][way]:.0f} MB/s")
    figures["versions"] = {"python": platform.python_version(), "cores": os.cpu_count()}
    if args.json:
        args.json.write_text(json.dumps(figures))


def _table(speed: str, runs: dict[str, list[dict[str, float]]], size: int) -> dict[str, dict[str, float]]:
    print(f"\nconsumer: {'none, full decode speed' if speed == 'full' else 'half the full decode speed'}")
    print("| way | samples/s | against local | first batch s | steady, against local | CPU s/GB | daemon's | drive's |")
    print("|---|---|---|---|---|---|---|---|")
    found = {}
    for way, each in runs.items():
        ratio, steady = (
            statistics.median(rate(one) / rate(base) for one, base in zip(each, runs["local"], strict=True))
            for rate in (_rate, _steady_rate)
        )
        middle = {key: statistics.median(one[key] for one in each) for key in each[0]}
        found[way] = middle | {
            "samples_per_s": statistics.median(_rate(one) for one in each),
            "against_local": ratio,
            "steady_against_local": steady,
        }
        per_gb = [middle[key] / size * 1e9 for key in ("cpu_s", "daemon_cpu_s", "drive_cpu_s")]
        print(
            f"| {way} | {found[way]['samples_per_s']:.0f} | {ratio:.2f} | {middle['first_s']:.2f} | {steady:.2f} | "
            + " | ".join(f"{value:.2f}" for value in per_gb)
            + " |",
            flush=True,
        )
    remote = found["remote"]
    print(
        f"goal {GOALS[speed]} x: {remote['against_local']:.2f} x with the first window ({remote['first_s']:.1f} s, "
        f"once an epoch of any length), {remote['steady_against_local']:.2f} x after it"
    )
    return found


def _rate(run: dict[str, float]) -> float:
    return run["samples"] / run["seconds"]


def _steady_rate(run: dict[str, float]) -> float:
    """After the first batch."""
    return (run["samples"] - BATCH) / (run["seconds"] - run["first_s"])


if __name__ == "__main__":
    main()
