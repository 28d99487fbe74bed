"""A corpus and its sidecars -> chunks: the labels surveyed, samples made by processes, written as a set, looked over.

What a frame is comes from `sources/`, a sample from `maker.py`, a set from `write.py`, the judgement from `checks/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from humanpose3d.checks.evidence import Evidence
from humanpose3d.checks.judge import judge
from humanpose3d.chunks.codec import META, BadSample, decode_meta, decode_sample
from humanpose3d.chunks.layout import DEFAULT_PREFIX
from humanpose3d.chunks.maker import SampleMaker, Unmatched
from humanpose3d.chunks.write import ChunkSetWriter, report_state, restore_report
from humanpose3d.engines import EngineKind, open_engine
from humanpose3d.files import scratch_folder
from humanpose3d.images import batches, image_bytes
from humanpose3d.remotes import Store, open_store
from humanpose3d.reports import StageReport, progress
from humanpose3d.sample import LabelledFrame, PoseSample, normalise_subject
from humanpose3d.shards import Shard, write_shard_report
from humanpose3d.sidecars import read_sidecar, sidecar_paths
from humanpose3d.sources import get_source

REPORT = "chunker_report.json"
Made = tuple[str, dict[str, bytes] | BadSample]  # key, members
FRAMES_PER_TASK, WITHOUT_PICTURES = 8, 64  # handed to a worker at once; and frames without pictures, 100 us each
TASKS_AHEAD = 4  # per worker: what bounds the memory
LOOKED_OVER_PER_TAKE, LOOKED_OVER_PER_CAMERA = 16, 128  # samples of a subject kept for the light inspection, 2 kB each
FOLDERS_NAMED = 3  # of those that miss images


def build_chunks(
    *,
    subjects: Sequence[str],
    output: str,
    dataset: str,
    images_path: Path | None,
    processed_path: Path | None,
    annotations_path: Path | None,
    chunk_size: int,
    crop: str,
    image_size: int,
    margin: float,
    depth_scale: float,
    jpeg_quality: int,
    image_pattern: str | None,
    frame_step: int,
    window: int,
    match_threshold: float,
    cues: str,
    missing_images: str,
    cameras: int | None,
    camera_seed: int | None,
    bodies: str | None,
    compress: str,
    workers: int,
    max_bad: float,
    engine: EngineKind = "local",
    address: str | None = None,
    shard: str = "1/1",
) -> StageReport:
    """Fields as in ChunkConfig. The bytes do not depend on `workers`; cut off, it goes on after the last whole chunk.

    FileNotFoundError: no labels, no images or no sidecars at all. ValueError: a request that makes no sense.
    """
    if window and window % 2 == 0:
        raise ValueError(f"--window {window}: an odd number has the frame itself in the middle; take {window + 1}")
    source, mine = get_source(dataset), Shard.parse(shard)
    images, processed, annotations = _folders(source, dataset, images_path, processed_path, annotations_path)
    cues = source.CUES if cues == "auto" or source.CUES == "own" else cues
    if cues != "own":
        _check_folders(images, processed, dataset, cues, missing_images)
    own = _own_settings(source, dataset, {"cameras": cameras, "camera_seed": camera_seed, "bodies": bodies})
    frames = partial(source.read_frames, images, annotations, subjects, frame_step, image_pattern=image_pattern, **own)
    report = StageReport("chunker", max_bad=max_bad)
    heard = report if mine.number == 1 else _Silent()  # what the labels lack is the first shard's to report
    survey = _survey(frames(told=heard), images, processed, cues, missing_images)
    chunks = mine.stretch(survey.chunks(chunk_size))
    report.inputs = len(survey.frames_at(chunks.start * chunk_size, chunks.stop * chunk_size)) + report.total_skipped
    _check_survey(survey, images, processed, cues, missing_images, report)
    maker = SampleMaker(
        images, processed, crop, image_size, margin, depth_scale, jpeg_quality, window, match_threshold, cues,
        missing_images == "synthetic", survey.keypoint_skeleton,
    )  # fmt: skip
    plan = {
        "stage": "chunk", "dataset": dataset, "subjects": sorted({normalise_subject(name) for name in subjects}),
        "chunk_size": chunk_size, "crop": crop, "image_size": image_size, "margin": margin, "depth_scale": depth_scale,
        "jpeg_quality": jpeg_quality, "frame_step": frame_step, "window": window, "match_threshold": match_threshold,
        "cues": cues, "missing_images": missing_images, "compress": compress, "frames": survey.frames,
        "input": survey.digest, **own,
    }  # fmt: skip
    store = open_store(output)
    light = _LightInspection()
    with scratch_folder() as staging, ChunkSetWriter(
        store, prefix=DEFAULT_PREFIX, chunk_size=chunk_size, compress=compress, plan=plan, staging=staging,
        state=lambda: report_state(report), shard=mine, chunks=chunks,
        skeletons=(survey.skeleton, survey.keypoint_skeleton),
    ) as writer:  # fmt: skip
        if writer.state is not None:
            restore_report(report, writer.state)
        is_new, was_done = writer.index is None, writer.is_done
        told = _told_before(store, mine) if was_done else None
        if told is None:
            first = chunks.start * chunk_size
            numbers = survey.frames_at(first, writer.end)
            done = survey.frames_at(first, writer.end if was_done else writer.position)
            labels = islice(frames(told=_Silent()), numbers.start, numbers.stop)
            light.look_again(islice(labels, len(done)), maker, report)
            if not was_done:
                with _makers(maker, labels, workers, engine, address) as made:
                    _write_all(writer, made, survey.positions[done.stop : numbers.stop].tolist(), report, light)
        whole = writer.finish_part(why_none=_why_none(report))
    report.counts.update(samples=writer.samples, chunks=len(writer.entries))
    report.facts["output"] = store.location
    report.summary = f"wrote {writer.samples} samples in {len(writer.entries)} chunks to {store.location}"
    report.summary += _remarks(report) + mine.remark(is_last=whole is not None)
    if told is None:
        light.judge(report)
    else:
        report.facts["inspection"] = told["inspection"]
        for fault in told["faults"]:
            report.fault(fault)
    write_shard_report(store, report, mine, is_new=is_new)
    return report


def _folders(
    source: ModuleType, dataset: str, images: Path | None, processed: Path | None, annotations: Path | None
) -> tuple[Path, Path, Path]:
    """Where images, sidecars and annotations lie: as told, else below data/<dataset>."""
    root = Path("data") / dataset
    of_images, of_annotations = source.FOLDERS
    images = images or root / of_images
    # A corpus that keeps both in one tree has its annotations where its images are.
    annotations = annotations or (images if of_images == of_annotations else root / of_annotations)
    return images, processed or root / "processed", annotations


def _check_folders(images: Path, processed: Path, dataset: str, cues: str, missing_images: str) -> None:
    """FileNotFoundError where the pictures, or what preprocess.py makes of them, must be there and are not."""
    all_drawn = missing_images == "synthetic" and not images.is_dir()
    if cues == "require" and not processed.is_dir() and not all_drawn:
        raise FileNotFoundError(f"{processed} is missing; run preprocess.py on {images} first")
    if not images.is_dir() and missing_images == "error":
        raise FileNotFoundError(
            f"{images} is missing; --images-path names the folder of {dataset}'s images or videos "
            "(--missing-images synthetic does without them)"
        )


def _own_settings(source: ModuleType, dataset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The corpus's own settings that were given. ValueError where it does not know one of them."""
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(set(given) - set(getattr(source, "SETTINGS", ()))):
        flags = ", ".join("--" + name.replace("_", "-") for name in unknown)
        raise ValueError(f"{flags}: not for {dataset}, which is as it was filmed; leave that out")
    return given


@dataclass
class _Survey:
    frames: int = 0
    digest: str = ""  # of the labels, cameras and keypoints, and of the pictures' sizes: what a restart must find again
    sidecars: int = 0
    skeleton: str | None = None
    keypoint_skeleton: str | None = None
    positions: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    # int64 [frames]: how many frames before each have all their files. It decides which chunk a frame goes to: those
    # that a half-copied corpus lacks leave no empty chunks behind.
    in_folder: Counter[Path] = field(default_factory=Counter)  # frames of each folder or video
    missing: Counter[Path] = field(default_factory=Counter)  # those of them whose image is not there
    first_missing: Path | None = None

    def chunks(self, chunk_size: int) -> int:
        """How many there will be at most."""
        return int(self.positions[-1]) // chunk_size + 1 if self.frames else 0

    def frames_at(self, first: int, after: int) -> range:
        """The numbers of the frames at these positions."""
        return range(*np.searchsorted(self.positions, (first, after)).tolist())


def _survey(frames: Iterator[LabelledFrame], images: Path, processed: Path, cues: str, missing_images: str) -> _Survey:
    """Reads the labels once, before the work: how much there is, whether it is the same as before, what is missing."""
    survey, digest, keys, has_files = _Survey(), hashlib.sha256(), [], bytearray()
    with progress("labels") as bar:
        for frame in frames:
            keys.append(hashlib.blake2b(frame.key.encode(), digest_size=8).digest())
            bar.advance()
            survey.skeleton = survey.skeleton or frame.skeleton
            if frame.image_path is None:
                assert frame.keypoint_track is not None
                survey.keypoint_skeleton = survey.keypoint_skeleton or frame.keypoint_track.skeleton
                has_files.append(True)
                digest.update(_told_by(frame))
                continue
            json_path, _ = sidecar_paths(processed / frame.image_path.parent, frame.image_path.stem)
            size, sidecar = image_bytes(images / frame.image_path), _content(json_path)
            survey.in_folder[frame.image_path.parent] += 1
            if size < 0:
                survey.missing[frame.image_path.parent] += 1
                survey.first_missing = survey.first_missing or frame.image_path
            if sidecar is not None:
                survey.sidecars += 1
                survey.keypoint_skeleton = survey.keypoint_skeleton or _skeleton_of(json_path)
            # The JSON vouches for the depth map: it names the network and the nearest and farthest depth.
            digest.update(b"%b|%d|%b\n" % (_told_by(frame), size, sidecar or b""))
            is_complete = size >= 0 and (sidecar is not None or cues != "require")
            has_files.append(is_complete or (size < 0 and missing_images == "synthetic"))
    if len(np.unique(np.frombuffer(b"".join(keys), dtype=np.uint64))) != len(keys):
        raise ValueError("the annotations name a frame twice; copy them anew")
    survey.frames, survey.digest = len(keys), digest.hexdigest()
    complete = np.frombuffer(has_files, np.uint8).astype(np.int64)
    # Frames behind the last that has its files stay in that one's chunk.
    survey.positions = np.minimum(np.cumsum(complete) - complete, max(complete.sum() - 1, 0))
    return survey


def _told_by(frame: LabelledFrame) -> bytes:
    """All that a sample takes from its label: where one of it is another, so is the set."""
    track = frame.keypoint_track
    keypoints = None if track is None else track.points[frame.track_row]
    camera = () if frame.camera is None else vars(frame.camera).values()
    facts = (*(vars(frame) | {"camera": None, "keypoint_track": keypoints}).values(), *camera)
    # In float32: shards run on several machines, which may differ in a double's last bit.
    return b"|".join(
        np.asarray(fact, np.float32).tobytes() if isinstance(fact, np.ndarray) else str(fact).encode() for fact in facts
    )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _skeleton_of(json_path: Path) -> str | None:
    try:
        return read_sidecar(json_path.with_suffix(""), depth=False).keypoint_skeleton
    except (FileNotFoundError, ValueError):
        return None  # the frame's own sample reports it


def _check_survey(
    survey: _Survey, images: Path, processed: Path, cues: str, missing_images: str, report: StageReport
) -> None:
    """FileNotFoundError where images that the labels name, or all sidecars, are missing and must not be."""
    if survey.missing:
        lacking = ", ".join(
            f"{folder} {number} of {survey.in_folder[folder]}"
            for folder, number in survey.missing.most_common(FOLDERS_NAMED)
        ) + (f" and {len(survey.missing) - FOLDERS_NAMED} more folders" if len(survey.missing) > FOLDERS_NAMED else "")
        message = (
            f"{survey.missing.total()} of {survey.frames} images that the annotations name are not in {images} "
            f"({lacking}), the first {survey.first_missing}"
        )
        if missing_images == "error":
            raise FileNotFoundError(
                f"{message}; get them, or say --missing-images skip (leave them out) or synthetic (draw stand-ins)"
            )
        report.facts["missing_images"] = message
    if cues != "own" and survey.frames > survey.missing.total() and not survey.sidecars:
        if cues == "require":
            raise FileNotFoundError(
                f"{processed} has no sidecar of these frames; run preprocess.py on {images} first, or say "
                "--cues optional to do without 2D keypoints and depth"
            )
        report.facts["cues"] = f"none: {processed} has no sidecar of these frames"


def _told_before(store: Store, shard: Shard) -> dict[str, Any] | None:
    """The report of the run that wrote what is complete here; None where it did not come so far."""
    try:
        return json.loads(store.read_bytes(shard.name(REPORT)))
    except FileNotFoundError:
        return None


def _why_none(report: StageReport) -> str:
    return report.skipped_line() or next(iter(report.faults), "there are no frames of these subjects")


def _remarks(report: StageReport) -> str:
    """What the summary line adds where something is unusual."""
    remarks = [
        f"{report.counts[what]} {text}"
        for what, text in (("synthetic", "with a drawn picture"), ("without_keypoints", "without 2D keypoints"))
        if report.counts[what]
    ]
    return f" ({', '.join(remarks)})" if remarks else ""


class _Silent:
    """Hears what the survey has told already."""

    def skip(self, name: str, reason: str) -> None:
        pass

    def fault(self, message: str) -> None:
        pass

    def note(self, message: str) -> None:
        pass


class _LightInspection:
    """The doctor's look at what is being written: labels and keypoints of some frames of each take, no pictures."""

    def __init__(self) -> None:
        self.evidence = Evidence()
        self._of_take: Counter[tuple[str, str, str, bool]] = Counter()
        self._of_camera: Counter[tuple[str, str, bool]] = Counter()

    def wants(self, subject: str, action: str, camera_id: str, *, matched: bool = True) -> bool:
        """Another sample of that take, for `add`: few are kept, and most need not even be decoded."""
        return (
            self._of_take[subject, action, camera_id, matched] < LOOKED_OVER_PER_TAKE
            and self._of_camera[subject, camera_id, matched] < LOOKED_OVER_PER_CAMERA
        )

    def add(self, sample: PoseSample, *, matched: bool = True) -> None:
        self._of_take[sample.subject, sample.action, sample.camera_id, matched] += 1
        self._of_camera[sample.subject, sample.camera_id, matched] += 1
        self.evidence.add(sample, matched=matched)

    def look_again(self, frames: Iterator[LabelledFrame], maker: SampleMaker, report: StageReport) -> None:
        """At frames that were done before a restart: the few that were looked at then are made once more."""
        left_out = {name for names in report.skipped.values() for name in names}
        for frame in frames:
            matched = frame.key not in left_out
            if not self.wants(frame.subject, frame.action, frame.camera_id, matched=matched):
                continue
            key, result = _try(maker, frame)
            if isinstance(result, Unmatched):
                self.add(result.sample, matched=False)
            elif not isinstance(result, BadSample):
                self.add(decode_sample(key, {META: result[META]}, fields=()))

    def judge(self, report: StageReport) -> None:
        """Puts what is wrong into the report."""
        findings = judge(self.evidence)
        report.facts["inspection"] = {
            "samples": len(self.evidence),
            "findings": [asdict(finding) for finding in findings],
        }
        for finding in findings:
            if finding.severity == "error":
                report.fault(str(finding))


def _write_all(
    writer: ChunkSetWriter,
    made: Iterator[Made],
    positions: Sequence[int],
    report: StageReport,
    light: _LightInspection,
) -> None:
    with progress("chunks", len(positions)) as bar:
        for position, (key, result) in zip(positions, made, strict=True):
            writer.reach(position)
            try:
                if isinstance(result, BadSample):
                    raise result
                meta = decode_meta(key, result)
                with _counted(report, meta):  # first: what is stored with the chunk that the sample ends counts it
                    writer.write(position, key, result, meta)
                if light.wants(meta["subject"], meta["action"], meta["camera_id"]):
                    light.add(decode_sample(key, {META: result[META]}, fields=()))
            except BadSample as bad:
                report.skip(bad.key, bad.reason)
                if isinstance(bad, Unmatched):
                    known = bad.sample
                    if light.wants(known.subject, known.action, known.camera_id, matched=False):
                        light.add(known, matched=False)
            bar.advance()


@contextmanager
def _counted(report: StageReport, meta: Mapping[str, Any]) -> Iterator[None]:
    """Counts what is unusual about a sample; not if the block refuses it."""
    before = report.counts.copy()
    if meta.get("synthetic"):
        report.count("synthetic")
    if not any(number is not None for point in meta.get("keypoints_px") or () for number in point):
        report.count("without_keypoints")
    try:
        yield
    except BadSample:
        report.counts = before
        raise


def _try(maker: SampleMaker, frame: LabelledFrame) -> Made:
    try:
        return frame.key, maker.make(frame)
    except BadSample as bad:
        return frame.key, bad


_maker: SampleMaker | None = None  # of this worker process


def _start_worker(maker: SampleMaker) -> None:
    global _maker
    _maker = maker
    cv2.setNumThreads(1)  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A pool's workers would wait for work for good once their parent was killed.
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(frames: list[LabelledFrame]) -> list[Made]:
    assert _maker is not None
    return [_try(_maker, frame) for frame in frames]


@contextmanager
def _makers(
    maker: SampleMaker, frames: Iterator[LabelledFrame], workers: int, engine: EngineKind, address: str | None
) -> Iterator[Iterator[Made]]:
    """The samples in the frames' order, whoever makes them."""
    if engine == "ray":
        with open_engine("ray", address, workers, False) as cluster:
            yield _in_order(cluster.run(SampleJob(maker), _tasks(frames, _task_size(maker)), _deadly))
    elif workers > 1:
        yield _in_processes(maker, frames, workers)
    else:
        yield map(partial(_try, maker), frames)


Numbered = list[tuple[int, LabelledFrame]]  # frames with their places in the order
NumberedMade = list[tuple[int, Made]]


@dataclass(frozen=True)
class SampleJob:
    """What a worker of an engine does: a task's frames, one after the other."""

    maker: SampleMaker

    def __call__(self, worker: int) -> Callable[[Numbered], NumberedMade]:
        turn = threading.Lock()  # the maker's tracks are for one thread

        def do(task: Numbered) -> NumberedMade:
            with turn:
                return [(number, _try(self.maker, frame)) for number, frame in task]

        return do


def _tasks(frames: Iterator[LabelledFrame], size: int) -> Iterator[Numbered]:
    return batches(enumerate(frames), size)


def _deadly(task: Numbered) -> list[Numbered] | NumberedMade:
    """Instead of frames that kill their worker: each alone; one that does is left out."""
    if len(task) > 1:
        return [[each] for each in task]
    [(number, frame)] = task
    left_out: Made = frame.key, BadSample(frame.key, "killed its worker")
    return [(number, left_out)]


def _in_order(results: Iterator[NumberedMade]) -> Iterator[Made]:
    waiting: dict[int, Made] = {}
    number = 0
    for result in results:
        waiting.update(result)
        while number in waiting:
            yield waiting.pop(number)
            number += 1


def _in_processes(maker: SampleMaker, frames: Iterator[LabelledFrame], workers: int) -> Iterator[Made]:
    """The samples in the frames' order, made by `workers` processes, a bounded number of frames ahead."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (maker,))
    size = _task_size(maker)
    ahead: deque[Future[list[Made]]] = deque()
    try:
        while True:
            while len(ahead) < workers * TASKS_AHEAD and (task := list(islice(frames, size))):
                ahead.append(pool.submit(_work, task))
            if not ahead:
                return
            yield from ahead.popleft().result()
    except BrokenProcessPool:
        raise OSError(
            "a worker process was killed, most likely for want of memory; run the same command again with fewer "
            "--workers: finished chunks are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _task_size(maker: SampleMaker) -> int:
    return WITHOUT_PICTURES if maker.cues == "own" else FRAMES_PER_TASK
