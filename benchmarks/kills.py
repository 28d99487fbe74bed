"""`kill -9` at random moments of every stage that writes, started again until it ends: the bytes of an undisturbed run?

    python benchmarks/kills.py [--kills 200] [--seed 0] [--quick] [--only TEXT] [--log FILE] [--markdown FILE]

Every stage is a process of its own, started as a user would, on a studio corpus and chunks made from it; the drive is
`rclone serve s3`. A kill takes the whole process group, sometimes the first process alone, and on a remote sometimes
the rclone daemon. Afterwards the output must be that of the undisturbed run, every file but the reports, and nothing
may be left beside it: no temporary file, folder or process. Ends with 1 where a stage failed that.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

import orjson

ROOT = Path(__file__).parents[1]
ENDS_WITHIN_S = 180.0  # any run
CLEARED_WITHIN_S = 10.0  # what others clear away after an end: a daemon its folder, workers themselves
KILLS_A_ROUND = 3  # of one output, at the most
MISSES_AT_MOST = 30  # in a row: runs that ended before their kill
DAEMON_SHARE, FIRST_ALONE_SHARE = 0.2, 0.5  # of the kills, where there is a daemon, or workers
BATCH, CACHE_CHUNKS = 32, 8  # of the reader; as many chunks fit into its cache
QUICK_KILLS = 20


@dataclass(frozen=True)
class Size:
    """How much work there is."""

    subjects: tuple[str, ...] = ("S1", "S5", "S9")
    frames: int = 2  # of each subject, take and camera: 120 images of each subject for one
    image_size: int = 128  # px
    copies: int = 8  # of the chunker's samples, in the set that the later stages read
    chunk_size: int = 200
    photographs: int = 150


QUICK = Size(frames=1, copies=5, chunk_size=60, photographs=12)


# --- the surroundings -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rig:
    """The folders that the stages work in, the drive, and the environment of all processes."""

    work: Path
    size: Size
    environment: dict[str, str]
    started: list[subprocess.Popen] = field(default_factory=list)

    @property
    def bucket(self) -> Path:
        """What the remote `killed:bucket` shows."""
        return self.work / "drive" / "bucket"

    @property
    def daemons(self) -> Path:
        return Path(self.environment["HUMANPOSE3D_RCLONE_FOLDER"])

    def run(self, *arguments: str | Path) -> None:
        """A command that is not disturbed. RuntimeError where it fails."""
        process = self.start(arguments)
        code = process.wait(ENDS_WITHIN_S)
        if code:
            raise RuntimeError(f"{' '.join(map(str, arguments))} ended with {code}: {self.complaint()}")

    def start(self, arguments: Sequence[str | Path]) -> subprocess.Popen:
        """A process in a group of its own."""
        with (self.work / "errors").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)], cwd=self.work / "here", env=self.environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def complaint(self) -> str:
        """The last line that a failed process wrote."""
        lines = (self.work / "errors").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"

    def left_behind(self) -> list[Path]:
        """What a stage should have cleared away, besides its output."""
        places = [self.work / name for name in ("tmp", "temp", "here")] + [self.daemons]
        return [path for place in places for path in sorted(place.iterdir())]


@contextmanager
def rig(work: Path, size: Size) -> Iterator[Rig]:
    """The corpus, the chunks and the drive in `work`; all is stopped at the end."""
    from humanpose3d.remotes import rclone_binary

    for name in ("tmp", "temp", "here", "drive/bucket"):
        (work / name).mkdir(parents=True)
    config, port = work / "rclone.conf", _free_port()
    config.write_text(
        f"[killed]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\n"
        "access_key_id = KEY\nsecret_access_key = SECRET\n"
    )
    serve = [str(rclone_binary()), "serve", "s3", str(work / "drive"), "--addr", f"127.0.0.1:{port}"]
    serve += ["--auth-key", "KEY,SECRET", "--config", str(config)]
    with tempfile.TemporaryDirectory(prefix="hp3d-rc-") as daemons:  # short: a socket's path must be
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HUMANPOSE3D_")}
        environment |= {
            "RCLONE_CONFIG": str(config), "TMPDIR": str(work / "tmp"), "HUMANPOSE3D_RCLONE_FOLDER": daemons,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1",
            "HUMANPOSE3D_CACHE": str(work / "weights"), "YOLO_CONFIG_DIR": str(work / "weights"),
            "TORCHINDUCTOR_CACHE_DIR": str(work / "weights"),  # torch leaves an empty folder in every TMPDIR
        }  # fmt: skip
        made = Rig(work, size, environment)
        server = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        try:
            _wait_for(port)
            _make_inputs(made)
            yield made
        finally:
            for process in made.started:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait(timeout=10)
            server.kill()
            server.wait(timeout=10)


def _make_inputs(rig: Rig) -> None:
    """corpus/ and photographs/; set/ (chunks of many samples), the same packed, and on the drive."""
    work, size = rig.work, rig.size
    rig.run("-m", "humanpose3d", "fake", "human36m", work / "corpus", "--frames-per-take", str(size.frames),
            "--size", str(size.image_size), "--subjects", *size.subjects)  # fmt: skip
    (work / "photographs").mkdir()
    images = sorted((work / "corpus" / "images").glob("*/*.jpg"))
    for image in images[:: max(len(images) // size.photographs, 1)][: size.photographs]:
        os.link(image, work / "photographs" / image.name)
    rig.run(*_chunk(rig, work / "seed", 1))
    _multiply(work / "seed", work / "set", size)
    rig.run("-m", "humanpose3d", "rechunk", "--input-dir", work / "set", "--output-dir", work / "packed",
            "--no-shuffle", "--compress", "gz", "--chunk-size", str(size.chunk_size),
            "--temp-dir", work / "temp")  # fmt: skip
    for path in (work / "packed").glob("*_report.json"):
        path.unlink()
    shutil.copytree(work / "set", rig.bucket / "set")


def _multiply(source: Path, target: Path, size: Size) -> None:
    """A set of several times as many samples, each with a key of its own."""
    from humanpose3d.chunks.layout import read_index
    from humanpose3d.chunks.read import open_chunk
    from humanpose3d.chunks.write import ChunkSetWriter
    from humanpose3d.remotes import LocalStore

    chunks = [open_chunk(source / entry.file) for entry in read_index(LocalStore(source)).chunks]
    with ChunkSetWriter(
        LocalStore(target), prefix="chunk", chunk_size=size.chunk_size, compress="none", plan={"stage": "kills"},
        staging=target, state=dict,
    ) as writer:  # fmt: skip
        position = 0
        for copy in range(size.copies):
            for chunk in chunks:
                for number in range(len(chunk)):
                    members = chunk.read(number)
                    *names, frame, person = chunk.key(number).split("-")
                    moved = int(frame) + 1000 * copy
                    key = "-".join([*names, f"{moved:06d}", person])
                    meta = orjson.loads(members["meta.json"]) | {"key": key, "frame_index": moved}
                    writer.write(position, key, members | {"meta.json": orjson.dumps(meta)})
                    position += 1
        writer.finish()


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


# --- the stages -------------------------------------------------------------------------------------------------------

Command = list[str | Path]


@dataclass(frozen=True)
class Stage:
    """What is killed: the processes of a run, and where its output lies."""

    name: str
    share: float  # of all kills
    commands: Callable[[Rig, str], list[Command]]  # of the run of that name, started together
    on_remote: bool = False  # the output is on the drive
    has_workers: bool = False
    prepare: Callable[[Rig, Path], object] = lambda rig, output: None

    def output(self, rig: Rig, name: str) -> Path:
        return rig.bucket / name if self.on_remote else rig.work / "out" / name


def _place(rig: Rig, name: str, *, remote: bool) -> str:
    return f"killed:bucket/{name}" if remote else str(rig.work / "out" / name)


def _chunk(rig: Rig, output: Path, workers: int) -> Command:
    corpus = rig.work / "corpus"
    return [
        "-m", "humanpose3d", "chunk", "--subjects", *rig.size.subjects, "--images-path", corpus / "images",
        "--annotations-path", corpus / "annotations", "--processed-path", rig.work / "none", "--cues", "optional",
        "--image-size", "96", "--chunk-size", "40", "--workers", str(workers), "--output", output,
    ]  # fmt: skip


def _split(rig: Rig, name: str, *, remote: bool = False) -> list[Command]:
    return [[
        "-m", "humanpose3d", "split", "--rclone-input-prefix", "killed:bucket/set" if remote else rig.work / "set",
        "--rclone-destination-prefix", _place(rig, name, remote=remote),
        "--train-subjects", ",".join(rig.size.subjects[:-1]), "--test-subjects", rig.size.subjects[-1],
        "--new-chunk-size", str(rig.size.chunk_size // 2),
        "--temp-extraction-dir", rig.work / "temp", "--staging-dir", rig.work / "temp",
    ]]  # fmt: skip


def _rechunk(rig: Rig, name: str, *, remote: bool = False, compress: str = "none") -> list[Command]:
    source = "killed:bucket/set" if remote else rig.work / ("packed" if compress == "gz" else "set")
    return [[
        "-m", "humanpose3d", "rechunk", "--input-dir", source, "--output-dir", _place(rig, name, remote=remote),
        "--chunk-size", str(rig.size.chunk_size), "--compress", compress, "--temp-dir", rig.work / "temp",
    ]]  # fmt: skip


def _index(rig: Rig, name: str, *, remote: bool = False) -> list[Command]:
    return [["-m", "humanpose3d", "index", _place(rig, name, remote=remote)]]


def _bare_chunks(rig: Rig, output: Path) -> None:
    from humanpose3d.remotes import rclone_binary

    # Onto the drive by way of its server, which remembers what it has listed.
    target = f"killed:bucket/{output.name}" if output.parent == rig.bucket else str(output)
    copy = [str(rclone_binary()), "copy", str(rig.work / "set"), target, "--include", "*.tar"]
    subprocess.run(copy, check=True, timeout=ENDS_WITHIN_S, env=rig.environment)


def _preprocess(rig: Rig, name: str) -> list[Command]:
    return [[
        "-m", "humanpose3d", "preprocess", rig.work / "photographs", rig.work / "out" / name, "--yolo-model", "studio",
        "--depth-model", "studio", "--device", "cpu", "--batch-size", "2",
    ]]  # fmt: skip


def _readers(rig: Rig, name: str) -> list[Command]:
    folder = rig.work / "out" / name
    limit = CACHE_CHUNKS * max(path.stat().st_size for path in (rig.work / "set").glob("*.tar"))
    return [
        [
            Path(__file__),
            "--read",
            "killed:bucket/set",
            rig.work / f"cache-{name}",
            str(limit),
            folder / f"{reader}.log",
        ]
        for reader in ("a", "b")
    ]


STAGES = (
    Stage("chunk", 0.12, lambda rig, name: [_chunk(rig, rig.work / "out" / name, 1)]),
    Stage("chunk, two workers", 0.08, lambda rig, name: [_chunk(rig, rig.work / "out" / name, 2)], has_workers=True),
    Stage("split", 0.12, _split),
    Stage("rechunk", 0.12, _rechunk),
    Stage("rechunk .tar.gz", 0.1, lambda rig, name: _rechunk(rig, name, compress="gz")),
    Stage("split on a remote", 0.1, lambda rig, name: _split(rig, name, remote=True), on_remote=True),
    Stage("rechunk on a remote", 0.1, lambda rig, name: _rechunk(rig, name, remote=True), on_remote=True),
    Stage("index", 0.08, _index, prepare=_bare_chunks),
    Stage("index on a remote", 0.06, lambda rig, name: _index(rig, name, remote=True), on_remote=True,
          prepare=_bare_chunks),
    Stage("two readers of a remote, one cache", 0.09, _readers),
    Stage("preprocess", 0.03, _preprocess),
)  # fmt: skip


def read(source: str, cache: str, limit: int, log: Path) -> None:
    """One epoch: a line a batch with the checksum of what came. Goes on where the log of a killed reader ends."""
    from humanpose3d.dataset.chunked_dataset import StreamingChunkedDataset, StreamingLoader
    from humanpose3d.files import write_whole

    def checksum(samples: list, counted: list) -> int:
        return zlib.crc32(b"".join(sample.key.encode() + sample.image.tobytes() for sample in samples))

    dataset = StreamingChunkedDataset(source, fields=("image",), seed=3, cache_dir=cache, cache_bytes=limit)
    loader = StreamingLoader(dataset, global_batch=BATCH, collate=checksum, num_workers=2)
    state, log = log.with_suffix(".json"), Path(log)
    saved = orjson.loads(state.read_bytes()) if state.exists() else None
    if saved is not None:
        loader.load_state_dict(saved["loader"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as lines:
        lines.truncate(saved["log"] if saved else 0)
        while loader.epoch == 0:
            for batch in loader:
                lines.write(f"{batch:08x}\n".encode())
                lines.flush()
                write_whole(state, orjson.dumps({"loader": loader.state_dict(), "log": lines.tell()}))
    assert not loader.quarantined, loader.quarantined
    loader.close()


# --- one stage, killed ------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of one stage."""

    seconds: float = 0.0  # of the undisturbed run
    kills: int = 0
    daemon_kills: int = 0
    outputs: int = 0  # each killed a few times, then finished
    restarts: int = 0
    faults: list[str] = field(default_factory=list)


def torment(rig: Rig, stage: Stage, kills: int, rng: random.Random, tell: Callable[[str], object] = print) -> Tally:
    """Kills a stage so many times, over as many outputs as it takes. `tell` gets a line a kill."""
    tally = Tally()
    whole = stage.output(rig, "whole")
    stage.prepare(rig, whole)
    started = time.monotonic()
    for process in [rig.start(command) for command in stage.commands(rig, "whole")]:
        if process.wait(ENDS_WITHIN_S):
            raise RuntimeError(f"{stage.name} fails without a kill: {rig.complaint()}")
    tally.seconds = time.monotonic() - started
    expected = hashes(whole)
    missed = 0
    while tally.kills < kills and missed < MISSES_AT_MOST:
        name = f"cut{tally.outputs:03d}"
        before = tally.kills
        faults = _one_output(
            rig, stage, name, min(rng.randint(1, KILLS_A_ROUND), kills - tally.kills), rng, tally, tell
        )
        found, left = hashes(stage.output(rig, name)), _after_a_while(rig.left_behind)
        faults += [f"{each} differs" for each in sorted(expected.keys() & found) if expected[each] != found[each]]
        faults += [f"{each} is missing" for each in sorted(expected.keys() - found)]
        faults += [f"{each} is left behind" for each in [*sorted(found.keys() - expected), *left]]
        faults += _wrong_in_cache(rig.work / f"cache-{name}")
        if faults:
            tell(f"    {stage.name}, {name}: {'; '.join(faults)}")
        tally.faults += faults
        tally.outputs += 1
        missed = 0 if tally.kills > before else missed + 1
        shutil.rmtree(stage.output(rig, name), ignore_errors=True)
        shutil.rmtree(rig.work / f"cache-{name}", ignore_errors=True)
        for path in left:  # so that the next output does not answer for it
            shutil.rmtree(path, ignore_errors=True)
    if tally.kills < kills:
        tally.faults.append(f"only {tally.kills} of {kills} kills came in time")
    shutil.rmtree(whole)
    return tally


def _one_output(
    rig: Rig, stage: Stage, name: str, kills: int, rng: random.Random, tally: Tally, tell: Callable[[str], object]
) -> list[str]:
    """Killed up to so many times, then left to end. What went wrong."""
    output = stage.output(rig, name)
    stage.prepare(rig, output)
    commands = stage.commands(rig, name)
    processes = [rig.start(command) for command in commands]
    faults = []
    for _ in range(kills):
        moment, number = rng.uniform(0.0, tally.seconds), rng.randrange(len(commands))
        wants_daemon, wants_first_alone = rng.random() < DAEMON_SHARE, rng.random() < FIRST_ALONE_SHARE
        victim = processes[number]
        try:
            victim.wait(moment)
            break  # it was faster
        except subprocess.TimeoutExpired:
            pass
        daemons = _daemons(rig) if wants_daemon else []  # stages on local folders have none
        tally.kills += 1
        text = f"{tally.kills:3d} {stage.name}, {moment:.2f} s of {tally.seconds:.2f}"
        if daemons:
            os.kill(daemons[0], signal.SIGKILL)
            tally.daemon_kills += 1
            tell(f"{text}, the daemon: {_on_disk(rig, output, name)}")
            continue
        if stage.has_workers and wants_first_alone:
            victim.kill()
            text += ", the first process alone"
        else:
            os.killpg(victim.pid, signal.SIGKILL)
        victim.wait(10)
        tell(f"{text}: {_on_disk(rig, output, name)}")
        faults += [f"process {pid} outlives a kill" for pid in _after_a_while(partial(_alive_in_group, victim.pid))]
        processes[number] = rig.start(commands[number])
        tally.restarts += 1
    for process in processes:
        try:
            if process.wait(ENDS_WITHIN_S):
                faults.append(f"it ended with {process.returncode}: {rig.complaint()}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            faults.append(f"it did not end within {ENDS_WITHIN_S:.0f} s")
    return faults


def hashes(folder: Path) -> dict[str, str]:
    """Relative path -> hash, of all files but the reports, which tell the time."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("_report.json")
    }


def _wrong_in_cache(folder: Path) -> list[str]:
    """Chunks there that are not what their names say. What a killed reader was fetching may stay, for the next one."""
    return [
        f"{path.name} in the cache is damaged"
        for path in (folder / "chunks").glob("*.tar")
        if f"{zlib.crc32(path.read_bytes()):08x}" != path.stem[-8:]
    ]


def _on_disk(rig: Rig, output: Path, name: str) -> str:
    """'building.json, 3 .tar, 3 .idx, 1 .part; temp 2 .tar', of what a killed run had made so far."""
    places = {"": output, "temp": rig.work / "temp", "tmp": rig.work / "tmp", "cache": rig.work / f"cache-{name}"}
    told = []
    for label, folder in places.items():
        kinds = Counter(
            path.name if path.name in ("building.json", "index.json") else path.suffix or path.name
            for path in folder.rglob("*")
            if path.suffix != ".lock" and not path.is_dir()
        )
        if kinds:
            counted = [
                kind if kind.endswith("json") and kind[0] != "." else f"{number} {kind}"
                for kind, number in sorted(kinds.items())
            ]
            told.append(f"{label} {', '.join(counted)}".strip())
    return "; ".join(told) or "nothing yet"


def _daemons(rig: Rig) -> list[int]:
    """The rclone daemons of this rig."""
    socket_folder = os.fsencode(f"unix://{rig.daemons}/")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if b"rclone" in words[0] and any(word.startswith(socket_folder) for word in words):
            found.append(int(folder.name))
    return found


def _alive_in_group(group: int) -> list[int]:
    """Processes of a group that run still."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(folder.name))
    return found


def _after_a_while(what: Callable[[], list]) -> list:
    """What is still there once those who clear it away had their time."""
    until = time.monotonic() + CLEARED_WITHIN_S
    while (found := what()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


# --- all of them ------------------------------------------------------------------------------------------------------


def quotas(kills: int, stages: Sequence[Stage]) -> list[int]:
    """How often each stage is killed; at least once, and `kills` in all."""
    total = sum(stage.share for stage in stages)
    counts = [max(round(kills * stage.share / total), 1) for stage in stages]
    counts[0] = max(counts[0] + kills - sum(counts), 1)
    return counts


def table(tallies: dict[str, Tally]) -> list[str]:
    lines = [
        "| stage | alone, s | kills | of the daemon | restarts | outputs | identical, nothing left |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in [*tallies.items(), ("all", _sum(tallies))]:
        verdict = f"no: {len(each.faults)} faults" if each.faults else "yes"
        lines.append(
            f"| {name} | {each.seconds:.1f} | {each.kills} | {each.daemon_kills} | {each.restarts} | {each.outputs} "
            f"| {verdict} |"
        )
    return lines


def _sum(tallies: dict[str, Tally]) -> Tally:
    total = Tally()
    for each in tallies.values():
        for name in ("seconds", "kills", "daemon_kills", "outputs", "restarts", "faults"):
            setattr(total, name, getattr(total, name) + getattr(each, name))
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of stages' kills and their moments")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_KILLS} kills of smaller sets, within a minute")
    parser.add_argument("--only", default="", help="stages whose name contains this")
    parser.add_argument("--log", type=Path, help="write a line a kill there")
    parser.add_argument("--markdown", type=Path, help="write command, versions, table and log there")
    parser.add_argument("--read", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read[0], args.read[1], int(args.read[2]), Path(args.read[3]))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the drive goes too
    kills, size = (QUICK_KILLS, QUICK) if args.quick else (args.kills, Size())
    stages = [stage for stage in STAGES if args.only in stage.name and not (args.quick and stage.name == "preprocess")]
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    tallies, started = {}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hp3d-kills-") as work, rig(Path(work), size) as made:
        for number, (stage, quota) in enumerate(zip(stages, quotas(kills, stages), strict=True)):
            # A generator of its own for each stage: one that needs a draw more does not change those after it.
            tallies[stage.name] = torment(made, stage, quota, random.Random(f"{args.seed} {number}"), tell)
    minutes = (time.monotonic() - started) / 60
    print("", *table(tallies), f"\n{minutes:.1f} minutes", sep="\n")
    if args.log:
        args.log.write_text("\n".join(lines) + "\n")
    if args.markdown:
        args.markdown.write_text(_markdown(args, tallies, lines, minutes))
    return 1 if _sum(tallies).faults else 0


def _markdown(args: argparse.Namespace, tallies: dict[str, Tally], lines: list[str], minutes: float) -> str:
    from humanpose3d.remotes import run_rclone

    versions = {name: metadata.version(name) for name in ("humanpose3d", "torch", "numpy", "webdataset")}
    rclone = run_rclone(["version"]).decode().split()[1]
    told = ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version}" for name, version in versions.items())]
    )
    flags = f"--kills {args.kills} --seed {args.seed}" + (" --quick" if args.quick else "")
    return "\n".join([
        "# Killed at random moments, and what became of it", "",
        *__doc__.strip().splitlines()[4:], "",
        f"    python benchmarks/kills.py {flags} --markdown docs/KILLS.md", "",
        f"{told}, rclone {rclone}; {platform.system()}, {os.cpu_count()} cores; {minutes:.1f} minutes.", "",
        *table(tallies), "",
        "The moments follow from the seed and the stages' own durations here. A line a kill: its number in the stage,",
        "the moment since the last start, of the seconds the stage takes alone, and what lay on the disk then.", "",
        "```", *lines, "```", "",
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
