"""Frames -> sidecars: list them batch by batch, leave out what is complete, run both networks, write behind them.

The networks are `estimators`', where frames lie and sidecars go `frames`', who works `engines`'. A batch is a stretch
of the sorted listing, whatever was done before and whoever does it: in other company a frame's last bits could differ.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from humanpose3d.engines import AT_ONCE, EngineKind, open_engine
from humanpose3d.estimators.cues import CueNetworks, DepthOn, Look
from humanpose3d.estimators.depth import DepthEstimate
from humanpose3d.estimators.halving import Failed, Halving
from humanpose3d.estimators.speed import Precision, Speed
from humanpose3d.files import make_folder, scratch_folder
from humanpose3d.frames import (
    Encoded,
    LocalFrames,
    NotWritten,
    RemoteFrames,
    Uncountable,
    open_frames,
    open_sidecars,
)
from humanpose3d.images import MISNAMED, TWIN, UnreadableImage, batches, usable
from humanpose3d.remotes import Store, open_store
from humanpose3d.reports import Progress, StageReport, progress
from humanpose3d.shards import Shard, write_shard_report
from humanpose3d.sidecars import Person, SidecarFiles, encode_sidecar

T = TypeVar("T")
R = TypeVar("R")
IN_HAND_AFAR = 8  # where a remote is read or written: AT_ONCE batches in memory as pixels, the others as files


def preprocess_folders(
    input_base_directory: str | Path,
    output_base_directory: str | Path,
    *,
    yolo_model: str = "yolo11x-pose",
    keypoints: str = "yolo",
    depth_model: str = "apple/DepthPro-hf",
    no_depth: bool = False,
    depth_on: DepthOn = "frame",
    device: str = "auto",
    devices: int = 1,
    precision: Precision = "32",
    compile: bool = False,
    batch_size: int = 8,
    num_workers: int = 2,
    engine: EngineKind = "local",
    address: str | None = None,
    shard: str = "1/1",
    overwrite: bool = False,
    frame_step: int = 1,
    temp_dir: Path = Path("./dataset_cache/preprocess"),
    max_bad: float = 0.01,
) -> StageReport:
    """Write <sub>/<stem>.json and <sub>/<stem>_depth.png for every image, and every `frame_step`-th frame of each
    video, under the input folder. The frames of clip.mp4 go to <sub>/clip.mp4/000000.json, ...

    Each folder is one of this machine or remote:path. A remote's videos lie in `temp_dir`, one after the other, while
    they are read. Complete frames are left as they are unless `overwrite`. An unreadable image is named in the report
    and does not stop the run. Nothing that is finished is lost when the run is stopped: start it again.
    """
    source, target = open_store(input_base_directory), open_store(output_base_directory)
    part = Shard.parse(shard)
    report = StageReport("preprocess", max_bad=max_bad)
    job = FrameJob(
        source, target, yolo_model, keypoints, None if no_depth else depth_model, depth_on, device,
        Speed(precision, compile), num_workers, overwrite, videos=temp_dir.absolute(), apart=engine == "ray",
    )  # fmt: skip
    job.networks(device)  # says what is wrong with a request before any work
    total = Total()
    on_gpus = None if device == "auto" else device.startswith("cuda")
    with ExitStack() as stack:
        videos = job.videos
        if not source.is_local:
            make_folder(videos)
            videos = stack.enter_context(scratch_folder(videos))
        job = job if job.apart else replace(job, videos=videos)
        plan = Plan(open_frames(source, videos), target, frame_step, batch_size, part)
        tasks = plan.batches(report)
        first = list(islice(tasks, 1))
        if not first and part.number == 1:
            raise ValueError(
                f"no images in {source.location}; it needs images (jpg, png, ...) or videos, in subfolders or directly"
            )
        open_sidecars(target).open()
        in_hand = AT_ONCE if source.is_local and target.is_local else IN_HAND_AFAR
        workers = stack.enter_context(open_engine(engine, address, devices, on_gpus, in_hand=in_hand))
        bar = stack.enter_context(progress("preprocess"))
        stack.enter_context(plan.counted(bar))
        for outcome in workers.run(replace(job, threads=workers.cpus), chain(first, tasks), _deadly):
            plan.frames.release(outcome.names)
            total.add(outcome, report)
            bar.advance(outcome.frames)
    report.inputs = total.frames + report.skipped_counts[TWIN] + report.skipped_counts[MISNAMED]
    total.compare(report)
    report.facts |= {"input": source.location, "output": target.location, "engine": engine, "workers": workers.workers}
    report.facts |= total.facts(report, workers.workers)
    report.summary = _summary(report, target)
    write_shard_report(target, report, part)
    return report


@dataclass(frozen=True)
class Plan:
    """Which frames there are and which go together: the same in every shard, and listed as they are asked for."""

    frames: LocalFrames | RemoteFrames
    target: Store
    frame_step: int
    batch_size: int
    shard: Shard

    def batches(self, report: StageReport, *, count_only: bool = False) -> Iterator[list[str]]:
        """This shard's. What is no frame for its name is named in the first shard's report."""
        heard = report if self.shard.number == 1 else StageReport("preprocess")
        names = self.frames.names(self.target, self.frame_step, count_only=count_only)
        all_batches = batches(map(str, usable(names, heard)), self.batch_size)
        return self.shard.deal(all_batches) if count_only else self.shard.deal(all_batches, self.frames.release)

    @contextmanager
    def counted(self, bar: Progress) -> Iterator[None]:
        """Counts the frames beside the work, and tells the bar: listing millions takes longer than a first batch."""
        ended = threading.Event()

        def count() -> None:
            with suppress(OSError, Uncountable):  # the first the work itself meets too
                frames = 0
                for batch in self.batches(StageReport("preprocess"), count_only=True):
                    if ended.is_set():
                        return
                    frames += len(batch)
                bar.set_total(frames)

        threading.Thread(target=count, daemon=True).start()
        try:
            yield
        finally:
            ended.set()


@dataclass
class Outcome:
    """What became of a batch."""

    names: Sequence[str]
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # frame with what is wrong, reason
    network_s: float = 0.0
    load_s: float = 0.0  # until its worker's networks were ready
    notes: list[str] = field(default_factory=list)
    others: str = ""  # the frame that was complete, and whose other work it is
    estimators: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        return len(self.names)


def _deadly(batch: list[str]) -> list[list[str]] | Outcome:
    """Instead of a batch that kills its workers: its frames one by one; a frame that does is left out."""
    if len(batch) > 1:
        return [[name] for name in batch]
    return Outcome(batch, skipped=[(f"{batch[0]} (delete it, or look at it elsewhere)", "killed its worker")])


@dataclass(frozen=True)
class FrameJob:
    """What a worker is to do with batches of frames. Goes to it as it is."""

    source: Store
    target: Store
    yolo_model: str
    keypoints: str
    depth_model: str | None
    depth_on: DepthOn
    device: str
    speed: Speed
    hands: int  # threads that read, prepare and write
    overwrite: bool
    threads: int | None = None  # of the networks, on the CPU; None: torch's own choice
    videos: Path = Path()  # where those of a remote are put
    apart: bool = False  # workers may be on other machines: each fetches the videos it needs

    def __call__(self, worker: int) -> Callable[[list[str]], Outcome]:
        return FrameWorker(self, worker).do

    def networks(self, device: str) -> CueNetworks:
        return CueNetworks(
            self.yolo_model, self.depth_model, device, self.keypoints, depth_on=self.depth_on, speed=self.speed
        )


@dataclass(frozen=True)
class Made:
    """What the networks found in a frame, ready to be written."""

    files: SidecarFiles
    people: int


class FrameWorker:
    """Does batches: several threads call `do`, whose networks take turns on one thread, the rest on `hands` others.

    So one batch is read and prepared, another in the networks, a third being written. Around these, batches of a remote
    are being fetched ahead and put behind, by threads that only wait: as files, which take far less memory.
    """

    def __init__(self, job: FrameJob, number: int) -> None:
        self.job, self.number = job, number
        self._source, self._target = open_frames(job.source, job.videos, apart=job.apart), open_sidecars(job.target)
        self._hands = ThreadPoolExecutor(job.hands)
        self._fetchers = ThreadPoolExecutor(self._source.at_once) if self._source.at_once else self._hands
        self._writers = ThreadPoolExecutor(self._target.at_once) if self._target.at_once else self._hands
        self._as_pixels = threading.Semaphore(AT_ONCE)
        self._network = ThreadPoolExecutor(1)  # a queue of its own: first come, first served
        self._loading = threading.Lock()
        self._networks: CueNetworks | None = None

    def do(self, names: list[str]) -> Outcome:
        """Writes the sidecars that are missing."""
        job, outcome = self.job, Outcome(names)
        missing = set(names) if job.overwrite else {name for name in names if not self._is_complete(name)}
        outcome.counts["complete_before"] = len(names) - len(missing)
        complete = next((name for name in names if name not in missing), None)
        before = {} if complete is None else self._target.estimators(complete)
        if not missing:
            outcome.others = self._others(complete, before)
            return outcome
        # The others of its batch too: what is found in one depends, in its last bits, on its company.
        fetched = dict(zip(names, self._fetchers.map(self._fetch, names), strict=True))
        with self._as_pixels:
            self._load(outcome)
            seen = self._read({name: fetched[name] for name in sorted(missing)}, outcome)
            if seen:
                seen |= self._read({name: fetched[name] for name in names if name not in missing}, None)
            self._source.finish(names)
            made = self._find({name: seen[name] for name in names if name in seen}, missing, outcome)
        self._write(made, outcome)
        outcome.others = self._others(complete, before)
        return outcome

    def _others(self, name: str | None, estimators: dict[str, dict[str, Any]]) -> str:
        told = (self._networks or self.job.networks(self.job.device)).others(estimators)
        return f"{name} has {' and '.join(told)}" if told else ""

    def _is_complete(self, name: str) -> bool:
        return self._target.is_complete(name, depth=self.job.depth_model is not None)

    def _fetch(self, name: str) -> Encoded | UnreadableImage:
        try:
            return self._source.fetch(name)
        except UnreadableImage as error:
            return error

    def _load(self, outcome: Outcome) -> None:
        with self._loading:
            if self._networks is None:
                begun = time.monotonic()
                self._networks = self._network.submit(self._loaded).result()
                self._find_people = Halving(self._networks.find_people)
                self._estimate_depth = Halving(self._networks.estimate_depth)
                outcome.load_s = time.monotonic() - begun
        outcome.estimators = self._networks.provenance

    def _loaded(self) -> CueNetworks:
        if self.job.threads:
            import torch

            torch.set_num_threads(self.job.threads)
        networks = self.job.networks(_device_of(self.job.device, self.number))
        networks.load()
        return networks

    @property
    def networks(self) -> CueNetworks:
        assert self._networks is not None
        return self._networks

    def _read(self, frames: dict[str, Encoded | UnreadableImage], outcome: Outcome | None) -> dict[str, Look]:
        """The frames as the networks take them; those that cannot be read are told to the outcome."""
        found: dict[str, Look] = {}
        for name, look in zip(frames, self._hands.map(self._look, frames.values()), strict=True):
            if isinstance(look, Look):
                found[name] = look
            elif outcome is not None:
                outcome.skipped.append((f"{name} ({look})", "unreadable image"))
        return found

    def _look(self, frame: Encoded | UnreadableImage) -> Look | str:
        try:
            if isinstance(frame, UnreadableImage):
                raise frame
            return self.networks.prepare(self._source.read(frame))
        except UnreadableImage as error:
            return str(error)

    def _find(self, looks: dict[str, Look], wanted: set[str], outcome: Outcome) -> dict[str, Made]:
        people = self._through(self._find_people, looks, wanted, outcome)
        prepared = self._hands.map(lambda name: self.networks.prepare_depth(looks[name], people[name]), people)
        inputs = dict(zip(people, prepared, strict=True))
        depths = self._through(
            self._estimate_depth,
            {name: given for name, given in inputs.items() if given is not None},
            wanted,
            outcome,
        )
        found = [name for name in people if name in wanted and (inputs[name] is None or name in depths)]
        made = self._hands.map(lambda name: self._made(looks[name], people[name], depths.get(name)), found)
        return dict(zip(found, made, strict=True))

    def _made(self, look: Look, people: list[Person], depth: DepthEstimate | None) -> Made:
        return Made(encode_sidecar(self.networks.sidecar(look, people, depth)), len(people))

    def _through(
        self, network: Halving[T, R], inputs: dict[str, T], wanted: set[str], outcome: Outcome
    ) -> dict[str, R]:
        """What the network says about each, those aside that it cannot take."""
        answers, seconds = self._network.submit(_timed, network, list(inputs.values())).result()
        outcome.network_s += seconds
        if network.fits:
            outcome.notes.append(
                f"the memory holds {network.fits} images in the networks at once; --batch-size was more"
            )
        found: dict[str, R] = {}
        for name, answer in zip(inputs, answers, strict=True):
            if not isinstance(answer, Failed):
                found[name] = answer
            elif name in wanted:
                outcome.skipped.append((f"{name} ({answer.reason})", "the networks cannot take it"))
        return found

    def _write(self, made: dict[str, Made], outcome: Outcome) -> None:
        for name, fault in zip(made, self._writers.map(self._put, made, made.values()), strict=True):
            if fault is not None:
                outcome.skipped.append((f"{name} ({fault})", "not written"))
                continue
            outcome.counts["frames"] += 1
            outcome.counts["people"] += made[name].people
            outcome.counts["frames_without_people"] += not made[name].people

    def _put(self, name: str, made: Made) -> str | None:
        """What is wrong, where this frame's alone could not be written."""
        try:
            self._target.write(name, made.files)
        except NotWritten as error:
            return str(error)
        return None


def _timed(network: Halving[T, R], inputs: Sequence[T]) -> tuple[list[R | Failed], float]:
    begun = time.monotonic()
    return network(inputs), time.monotonic() - begun


def _device_of(device: str, worker: int) -> str:
    """Each worker's own GPU."""
    if device not in ("auto", "cuda"):
        return device
    import torch

    return f"cuda:{worker % torch.cuda.device_count()}" if torch.cuda.is_available() else device


class Total:
    """What became of all batches."""

    def __init__(self) -> None:
        self.frames, self._network_s, self._load_s = 0, 0.0, 0.0
        self._estimators: dict[str, Any] = {}
        self._others = ""

    def add(self, outcome: Outcome, report: StageReport) -> None:
        self.frames += outcome.frames
        self._network_s += outcome.network_s
        self._load_s = max(self._load_s, outcome.load_s)
        self._estimators = outcome.estimators or self._estimators
        self._others = self._others or outcome.others
        report.counts.update(outcome.counts)
        for name, reason in outcome.skipped:
            report.skip(name, reason)
        for note in outcome.notes:
            report.note(note)

    def compare(self, report: StageReport) -> None:
        """Says where frames that were complete are by other networks: a fault where they lie among new ones."""
        if self._others:
            (report.fault if report.counts["frames"] else report.note)(
                f"frames that were complete are by other networks: {self._others}; --overwrite does them again"
            )

    def facts(self, report: StageReport, workers: int) -> dict[str, Any]:
        """network_share: of the time since the networks were loaded, the part in which they worked."""
        seconds = max(time.monotonic() - report.started, 1e-9)
        working_s = max(seconds - self._load_s, 1e-9) * workers
        return {
            "images_per_s": round(report.counts["frames"] / seconds, 2),
            "network_s": round(self._network_s, 3),
            "network_share": round(min(self._network_s / working_s, 1.0), 3),
            "load_s": round(self._load_s, 3),
            "estimators": self._estimators,
        }


def _summary(report: StageReport, target: Store) -> str:
    line = f"preprocessed {report.counts['frames']} of {report.inputs} images, {report.counts['people']} people"
    if report.counts["complete_before"]:
        line += f", {report.counts['complete_before']} were complete"
    return f"{line}; {target.location}"
