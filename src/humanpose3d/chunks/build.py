"""A corpus and its sidecars -> chunks: each labelled person joined with the detection that is theirs, cropped, encoded.

What a frame is comes from `sources/`, how a sample is stored from `codec.py`, how a set is written from `write.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from humanpose3d.chunks.codec import BadSample, encode_sample
from humanpose3d.chunks.layout import DEFAULT_PREFIX
from humanpose3d.chunks.write import ChunkSetWriter, report_state, restore_report
from humanpose3d.images import UnreadableImage, plain_jpeg, read_image
from humanpose3d.remotes import open_store
from humanpose3d.reports import StageReport, progress
from humanpose3d.sample import LabelledFrame, PoseSample, normalise_subject
from humanpose3d.sidecars import Person, Sidecar, read_sidecar, sidecar_paths
from humanpose3d.skeletons import get_skeleton, shared_joints
from humanpose3d.sources import get_source
from humanpose3d.warp import clip_box, crop_person, in_view, warp_sample

REPORT = "chunker_report.json"
FRAMES_PER_TASK = 8  # handed to a worker at once
TASKS_AHEAD = 4  # per worker: what bounds the memory
SIDECARS_KEPT = 512  # of the frames around, for --window; neighbours share most of theirs
WINDOW_STEP = 0.5  # furthest mean move of a person from one frame to the next, as a share of their size

_NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>\d+)")


@dataclass(frozen=True)
class SampleMaker:
    """LabelledFrame -> an encoded sample. Goes to worker processes as it is."""

    images_path: Path
    processed_path: Path
    crop: str  # "person" or "none"
    image_size: int  # px, side of a crop
    margin: float
    depth_scale: float
    jpeg_quality: int
    window: int  # frames, odd; 0 for none
    match_threshold: float  # share of the person's size
    _people: dict[Path, tuple[Person, ...]] = field(default_factory=dict, repr=False, compare=False)

    def make(self, frame: LabelledFrame) -> dict[str, bytes]:
        """The members of the frame's sample. BadSample says why there is none."""
        stem = self.processed_path / frame.image_path.with_suffix("")
        try:
            sidecar = read_sidecar(stem)
        except FileNotFoundError:
            raise BadSample(frame.key, "no sidecar of preprocess.py") from None
        except ValueError:
            raise BadSample(frame.key, "broken sidecar; run preprocess.py --overwrite") from None
        image_path = self.images_path / frame.image_path
        try:
            image = read_image(image_path)  # as preprocess.py read it, so that the keypoints fit
        except UnreadableImage:
            raise BadSample(frame.key, "unreadable image" if image_path.exists() else "no image") from None
        if image.shape[1::-1] != tuple(sidecar.image_size_wh):
            raise BadSample(frame.key, "its sidecar is of an image of another size")
        person = match_person(frame, sidecar, self.match_threshold)
        sample = _join(frame, sidecar, person, image)
        if self.window:
            track = self._track(stem, person, sidecar.keypoint_skeleton)
            sample = sample.with_(keypoint_window=track, window_fps=frame.fps)
        if self.crop == "person":
            cropped = crop_person(sample, self.margin, self.image_size, depth_scale=self.depth_scale)
            return encode_sample(cropped, jpeg_quality=self.jpeg_quality)
        return encode_sample(self._whole(sample), image_jpeg=plain_jpeg(image_path), jpeg_quality=self.jpeg_quality)

    def _whole(self, sample: PoseSample) -> PoseSample:
        """The same picture, with the depth map at the size asked for."""
        unmoved = warp_sample(
            sample.with_(image=None), np.eye(2, 3), sample.image_size_wh, depth_scale=self.depth_scale
        )
        return unmoved.with_(image=sample.image)

    def _track(self, stem: Path, person: Person, skeleton: str) -> np.ndarray:
        """float32 [T Jin 3]: the same person in the frames around, followed outwards; NaN and score 0 where lost."""
        half = self.window // 2
        track = np.full((self.window, len(get_skeleton(skeleton)), 3), (np.nan, np.nan, 0.0), dtype=np.float32)
        track[half] = np.column_stack([person.keypoints_px, person.keypoint_score])
        for direction in (-1, 1):
            last = person
            for step in range(1, half + 1):
                found = _nearest(self._people_of(_neighbour(stem, direction * step)), last)
                if found is not None:
                    track[half + direction * step] = np.column_stack([found.keypoints_px, found.keypoint_score])
                    last = found
        return track

    def _people_of(self, stem: Path | None) -> tuple[Person, ...]:
        if stem is None:
            return ()
        if stem not in self._people:
            if len(self._people) >= SIDECARS_KEPT:
                del self._people[next(iter(self._people))]  # the oldest
            try:
                self._people[stem] = tuple(read_sidecar(stem, depth=False).people)
            except (FileNotFoundError, ValueError):
                self._people[stem] = ()  # a gap in the window; the frame's own sample reports it
        return self._people[stem]


def build_chunks(
    *,
    subjects: Sequence[str],
    output: str,
    dataset: str,
    images_path: Path,
    processed_path: Path,
    annotations_path: Path,
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
    compress: str,
    workers: int,
    max_bad: float,
) -> StageReport:
    """Fields as in ChunkConfig. The bytes do not depend on `workers`; cut off, it goes on after the last whole chunk.

    FileNotFoundError: no labels, no images or no sidecars at all. ValueError: a request that makes no sense.
    """
    if window and window % 2 == 0:
        raise ValueError(f"--window {window}: an odd number has the frame itself in the middle; take {window + 1}")
    if not processed_path.is_dir():
        raise FileNotFoundError(f"{processed_path} is missing; run preprocess.py on {images_path} first")
    frames = partial(
        get_source(dataset).read_frames,
        images_path, annotations_path, subjects, frame_step, image_pattern=image_pattern,
    )  # fmt: skip
    maker = SampleMaker(
        images_path, processed_path, crop, image_size, margin, depth_scale, jpeg_quality, window, match_threshold
    )
    report = StageReport("chunker", max_bad=max_bad)
    survey = _survey(frames(skip=report.skip), maker)
    report.inputs = survey.frames + report.total_skipped
    plan = {
        "stage": "chunk", "dataset": dataset, "subjects": sorted({normalise_subject(name) for name in subjects}),
        "chunk_size": chunk_size, "crop": crop, "image_size": image_size, "margin": margin, "depth_scale": depth_scale,
        "jpeg_quality": jpeg_quality, "frame_step": frame_step, "window": window, "match_threshold": match_threshold,
        "compress": compress, "frames": survey.frames, "input": survey.digest,
    }  # fmt: skip
    store = open_store(output)
    with TemporaryDirectory(prefix="hp3d-") as staging, ChunkSetWriter(
        store, prefix=DEFAULT_PREFIX, chunk_size=chunk_size, compress=compress, plan=plan, staging=Path(staging),
        state=lambda: report_state(report),
    ) as writer:  # fmt: skip
        if writer.state is not None:
            restore_report(report, writer.state)
        if writer.index is None:
            rest = islice(frames(skip=_told_already), writer.position, None)
            _write_all(writer, rest, maker, workers, survey, report)
        index = writer.finish(why_none=report.skipped_line() or "there are no frames of these subjects")
    report.counts.update(samples=index.samples, chunks=len(index.chunks))
    report.facts["output"] = store.location
    report.summary = f"wrote {index.samples} samples in {len(index.chunks)} chunks to {store.location}"
    store.write_bytes(REPORT, report.to_json())
    return report


@dataclass(frozen=True)
class _Survey:
    frames: int
    digest: str  # of the frames' keys and the sizes of their files: what a restart must find again


def _survey(frames: Iterator[LabelledFrame], maker: SampleMaker) -> _Survey:
    """Reads the labels once, before the work: how much there is, whether it is the same as before, what is missing."""
    digest, keys, sidecars = hashlib.sha256(), [], 0
    with progress("labels") as bar:
        for frame in frames:
            json_path, _ = sidecar_paths(maker.processed_path / frame.image_path.parent, frame.image_path.stem)
            sizes = [_size(maker.images_path / frame.image_path), _size(json_path)]
            sidecars += sizes[1] >= 0
            digest.update(f"{frame.key} {sizes[0]} {sizes[1]}\n".encode())
            keys.append(hashlib.blake2b(frame.key.encode(), digest_size=8).digest())
            bar.advance()
    if keys and not sidecars:
        raise FileNotFoundError(
            f"{maker.processed_path} has no sidecar of these frames; run preprocess.py on {maker.images_path} first"
        )
    if len(np.unique(np.frombuffer(b"".join(keys), dtype=np.uint64))) != len(keys):
        raise ValueError("the annotations name a frame twice; copy them anew")
    return _Survey(len(keys), digest.hexdigest())


def _size(path: Path) -> int:
    """Bytes, or -1 where there is no such file."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _told_already(name: str, reason: str) -> None:
    """The survey has counted what the source leaves out."""


def _write_all(
    writer: ChunkSetWriter,
    frames: Iterator[LabelledFrame],
    maker: SampleMaker,
    workers: int,
    survey: _Survey,
    report: StageReport,
) -> None:
    made = _in_processes(maker, frames, workers) if workers > 1 else map(partial(_try, maker), frames)
    with progress("chunks", survey.frames) as bar:
        bar.advance(writer.position)
        for position, (key, result) in enumerate(made, start=writer.position):
            try:
                if isinstance(result, BadSample):
                    raise result
                writer.write(position, key, result)
            except BadSample as bad:
                report.skip(bad.key, bad.reason)
            bar.advance()


Made = tuple[str, dict[str, bytes] | BadSample]  # key, members


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


def _in_processes(maker: SampleMaker, frames: Iterator[LabelledFrame], workers: int) -> Iterator[Made]:
    """The samples in the frames' order, made by `workers` processes, a bounded number of frames ahead."""
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (maker,))
    ahead: deque[Future[list[Made]]] = deque()
    try:
        while True:
            while len(ahead) < workers * TASKS_AHEAD and (task := list(islice(frames, FRAMES_PER_TASK))):
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


def match_person(frame: LabelledFrame, sidecar: Sidecar, threshold: float) -> Person:
    """The detected person nearest to the labelled joints. BadSample where even that one is too far off."""
    if not sidecar.people:
        raise BadSample(frame.key, "no person found")
    errors = [match_error(frame, person, sidecar.keypoint_skeleton) for person in sidecar.people]
    best = int(np.argmin(errors))
    if not errors[best] <= threshold:
        raise BadSample(frame.key, "no detection matches the label")
    return sidecar.people[best]


def match_error(frame: LabelledFrame, person: Person, keypoint_skeleton: str) -> float:
    """Mean distance of detected from labelled joints, over those both have, against the labelled box's longer side.

    A joint that the detector does not give counts as a whole person off.
    """
    of_label, of_person = shared_joints(get_skeleton(frame.skeleton), get_skeleton(keypoint_skeleton))
    if frame.joints_px is None:
        raise BadSample(frame.key, "its label has no 2D joints")
    labelled = frame.joints_px[of_label]
    known = np.isfinite(labelled).all(-1) & (frame.joint_score[of_label] > 0)
    if not known.any():
        return np.inf
    distances = np.linalg.norm(person.keypoints_px[of_person] - labelled, axis=-1)[known] / _size_px(frame.box_px)
    return float(np.nan_to_num(distances, nan=1.0).mean())


def _size_px(box_px: np.ndarray) -> float:
    return float(max(box_px[2] - box_px[0], box_px[3] - box_px[1], 1.0))


def _nearest(people: Sequence[Person], last: Person) -> Person | None:
    """The person who moved least from where `last` was; None where nobody is near."""
    moves = [
        float(np.nan_to_num(np.linalg.norm(person.keypoints_px - last.keypoints_px, axis=-1), nan=np.inf).mean())
        for person in people
    ]
    if not moves or min(moves) > WINDOW_STEP * _size_px(last.box_px):
        return None
    return people[int(np.argmin(moves))]


def _neighbour(stem: Path, step: int) -> Path | None:
    """The frame `step` files further in the same take: ..._000010 and -1 -> ..._000009. None before the first."""
    match = _NUMBERED.fullmatch(stem.name)
    if match is None or int(match["number"]) + step < 0:
        return None
    return stem.with_name(f"{match['head']}{int(match['number']) + step:0{len(match['number'])}d}")


def _join(frame: LabelledFrame, sidecar: Sidecar, person: Person, image: np.ndarray) -> PoseSample:
    """Label and detection of one person, in the whole image."""
    size_wh = (image.shape[1], image.shape[0])
    low = np.minimum(frame.box_px[:2], person.box_px[:2])
    high = np.maximum(frame.box_px[2:], person.box_px[2:])
    provenance: dict[str, Any] = {
        "estimators": sidecar.estimators,
        "image_file": frame.image_path.as_posix(),
        "source_file": frame.source_file,
    }
    return PoseSample(
        key=frame.key,
        image=image,
        image_size_wh=size_wh,
        depth_m=sidecar.depth_m,
        keypoints_px=person.keypoints_px,
        keypoint_score=person.keypoint_score,
        keypoint_skeleton=sidecar.keypoint_skeleton,
        joints_px=frame.joints_px,
        joints_cam_m=frame.joints_cam_m,
        joint_score=frame.joint_score,
        joint_in_view=None if frame.joints_px is None else in_view(frame.joints_px, size_wh),
        skeleton=frame.skeleton,
        camera=frame.camera,
        box_px=clip_box(np.concatenate([low, high]), size_wh),
        corpus=frame.corpus,
        subject=frame.subject,
        action=frame.action,
        camera_id=frame.camera_id,
        frame_index=frame.frame_index,
        fps=frame.fps,
        valid=frame.valid,
        provenance=provenance,
    )
