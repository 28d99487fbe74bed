"""Frames -> sidecars: list them batch by batch, leave out what is complete, run both networks, write behind them.

The networks are `estimators`', the files `sidecars`', who works `engines`'. A batch is a stretch of the sorted listing,
whatever was done before and whoever does it: in other company a frame's last bits could differ.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from humanpose3d.engines import EngineKind, open_engine
from humanpose3d.estimators.cues import CueNetworks, DepthOn, Look
from humanpose3d.estimators.depth import DepthEstimate
from humanpose3d.estimators.halving import Failed, Halving
from humanpose3d.estimators.speed import Precision, Speed
from humanpose3d.files import make_folder, write_whole
from humanpose3d.images import TWIN, UnreadableImage, batches, find_images, read_image, without_twins
from humanpose3d.reports import Progress, StageReport, progress
from humanpose3d.shards import Shard, write_shard_report
from humanpose3d.sidecars import Person, is_complete, write_sidecar

T = TypeVar("T")
R = TypeVar("R")


def preprocess_folders(
    input_base_directory: Path,
    output_base_directory: Path,
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
    max_bad: float = 0.01,
) -> StageReport:
    """Write <sub>/<stem>.json and <sub>/<stem>_depth.png for every image, and every `frame_step`-th frame of each
    video, under the input folder. The frames of clip.mp4 go to <sub>/clip.mp4/000000.json, ...

    Complete frames are left as they are unless `overwrite`. An unreadable image is named in the report and does not
    stop the run. Nothing that is finished is lost when the run is stopped: start it again.
    """
    source, target = Path(input_base_directory), Path(output_base_directory)
    part = Shard.parse(shard)
    report = StageReport("preprocess", max_bad=max_bad)
    job = FrameJob(
        source, target, yolo_model, keypoints, None if no_depth else depth_model, depth_on, device,
        Speed(precision, compile), num_workers, overwrite,
    )  # fmt: skip
    job.networks(device)  # says what is wrong with a request before any work
    plan = Plan(source, target, frame_step, batch_size, part)
    tasks = plan.batches(report)
    first = list(islice(tasks, 1))
    if not first and part.number == 1:
        raise ValueError(f"no images in {source}; it needs images (jpg, png, ...) or videos, in subfolders or directly")
    make_folder(target)
    total = Total()
    on_gpus = None if device == "auto" else device.startswith("cuda")
    with open_engine(engine, address, devices, on_gpus) as workers, progress("preprocess") as bar, plan.counted(bar):
        for outcome in workers.run(replace(job, threads=workers.cpus), chain(first, tasks), _deadly):
            total.add(outcome, report)
            bar.advance(outcome.frames)
    report.inputs = total.frames + report.skipped_counts[TWIN]
    report.facts |= {"input": str(source), "output": str(target), "engine": engine, "workers": workers.workers}
    report.facts |= total.facts(report, workers.workers)
    report.summary = _summary(report, target)
    write_shard_report(
        report, part, lambda name: (target / name).read_bytes(), lambda name, data: write_whole(target / name, data)
    )
    return report


@dataclass(frozen=True)
class Plan:
    """Which frames there are and which go together: the same in every shard, and listed as they are asked for."""

    source: Path
    target: Path
    frame_step: int
    batch_size: int
    shard: Shard

    def batches(self, report: StageReport) -> Iterator[list[str]]:
        """This shard's. What is no frame for its name is named in the first shard's report."""
        heard = report if self.shard.number == 1 else StageReport("preprocess")
        return self.shard.deal(batches(map(str, without_twins(self._frames(), heard)), self.batch_size))

    def _frames(self) -> Iterator[Path]:
        inside = self.source.is_dir() and self.target.resolve() != self.source.resolve()
        names = find_images(self.source, leave_out=[self.target] if inside else [], frame_step=self.frame_step)
        # Sidecars beside the images: our own depth maps are no frames.
        return names if inside else (name for name in names if not name.name.endswith("_depth.png"))

    @contextmanager
    def counted(self, bar: Progress) -> Iterator[None]:
        """Counts the frames beside the work, and tells the bar: listing millions takes longer than a first batch."""
        ended = threading.Event()

        def count() -> None:
            with suppress(OSError):  # the work itself meets it too
                frames = 0
                for batch in self.batches(StageReport("preprocess")):
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

    frames: int
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # frame with what is wrong, reason
    network_s: float = 0.0
    load_s: float = 0.0  # until its worker's networks were ready
    notes: list[str] = field(default_factory=list)
    estimators: dict[str, Any] = field(default_factory=dict)


def _deadly(batch: list[str]) -> list[list[str]] | Outcome:
    """Instead of a batch that kills its workers: its frames one by one; a frame that does is left out."""
    if len(batch) > 1:
        return [[name] for name in batch]
    return Outcome(1, skipped=[(f"{batch[0]} (delete it, or look at it elsewhere)", "killed its worker")])


@dataclass(frozen=True)
class FrameJob:
    """What a worker is to do with batches of frames. Goes to it as it is."""

    source: Path
    target: Path
    yolo_model: str
    keypoints: str
    depth_model: str | None
    depth_on: DepthOn
    device: str
    speed: Speed
    hands: int  # threads that read, prepare and write
    overwrite: bool
    threads: int | None = None  # of the networks, on the CPU; None: torch's own choice

    def __call__(self, worker: int) -> Callable[[list[str]], Outcome]:
        return FrameWorker(self, worker).do

    def networks(self, device: str) -> CueNetworks:
        return CueNetworks(
            self.yolo_model, self.depth_model, device, self.keypoints, depth_on=self.depth_on, speed=self.speed
        )


class FrameWorker:
    """Does batches: several threads call `do`, whose networks take turns on one thread, the rest on `hands` others.

    So one batch is read and prepared, another in the networks, a third being written.
    """

    def __init__(self, job: FrameJob, number: int) -> None:
        self.job, self.number = job, number
        self._hands = ThreadPoolExecutor(job.hands)
        self._network = ThreadPoolExecutor(1)  # a queue of its own: first come, first served
        self._loading = threading.Lock()
        self._networks: CueNetworks | None = None

    def do(self, names: list[str]) -> Outcome:
        """Writes the sidecars that are missing."""
        job, outcome = self.job, Outcome(len(names))
        missing = set(names) if job.overwrite else {name for name in names if not self._is_complete(name)}
        outcome.counts["complete_before"] = len(names) - len(missing)
        if not missing:
            return outcome
        self._load(outcome)
        seen = self._read(sorted(missing), outcome)
        if seen:  # the others of its batch too: what is found in one depends, in its last bits, on its company
            seen |= self._read([name for name in names if name not in missing], None)
        looks = {name: seen[name] for name in names if name in seen}
        self._find_and_write(looks, missing, outcome)
        return outcome

    def _is_complete(self, name: str) -> bool:
        return is_complete(self._stem(name), depth=self.job.depth_model is not None)

    def _stem(self, name: str) -> Path:
        return self.job.target / Path(name).with_suffix("")

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

    def _read(self, names: Sequence[str], outcome: Outcome | None) -> dict[str, Look]:
        """The frames as the networks take them; those that cannot be read are told to the outcome."""
        found: dict[str, Look] = {}
        for name, look in zip(names, self._hands.map(self._look, names), strict=True):
            if isinstance(look, Look):
                found[name] = look
            elif outcome is not None:
                outcome.skipped.append((f"{name} ({look})", "unreadable image"))
        return found

    def _look(self, name: str) -> Look | str:
        try:
            return self.networks.prepare(read_image(self.job.source / name))
        except UnreadableImage as error:
            return str(error)

    def _find_and_write(self, looks: dict[str, Look], wanted: set[str], outcome: Outcome) -> None:
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
        for _ in self._hands.map(lambda name: self._write(name, looks[name], people[name], depths.get(name)), found):
            pass  # a write that failed is raised here
        outcome.counts["frames"] = len(found)
        outcome.counts["people"] = sum(len(people[name]) for name in found)
        outcome.counts["frames_without_people"] = sum(not people[name] for name in found)

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

    def _write(self, name: str, look: Look, people: list[Person], depth: DepthEstimate | None) -> None:
        stem = self._stem(name)
        make_folder(stem.parent)
        write_sidecar(stem, self.networks.sidecar(look, people, depth))


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

    def add(self, outcome: Outcome, report: StageReport) -> None:
        self.frames += outcome.frames
        self._network_s += outcome.network_s
        self._load_s = max(self._load_s, outcome.load_s)
        self._estimators = outcome.estimators or self._estimators
        report.counts.update(outcome.counts)
        for name, reason in outcome.skipped:
            report.skip(name, reason)
        for note in outcome.notes:
            report.note(note)

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


def _summary(report: StageReport, target: Path) -> str:
    line = f"preprocessed {report.counts['frames']} of {report.inputs} images, {report.counts['people']} people"
    if report.counts["complete_before"]:
        line += f", {report.counts['complete_before']} were complete"
    return f"{line}; {target}"
