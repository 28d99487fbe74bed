"""Frames -> sidecars: walk the folders, leave out what is complete, run both estimators, write behind them.

The networks are `estimators`', the files `sidecars`'. Reading and writing overlap with the networks, on threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from humanpose3d.estimators.cues import CueNetworks
from humanpose3d.files import make_folder, write_report
from humanpose3d.images import UnreadableImage, ahead, batches, find_images, read_image, without_twins
from humanpose3d.reports import StageReport, progress
from humanpose3d.sidecars import Sidecar, is_complete, write_sidecar


@dataclass(frozen=True)
class Frame:
    """One image on its way through: exactly one of `image` and `problem`, or neither where it is complete."""

    name: Path  # relative to the input folder
    image: np.ndarray | None = None  # uint8 [H W 3] RGB
    problem: str = ""


def preprocess_folders(
    input_base_directory: Path,
    output_base_directory: Path,
    *,
    yolo_model: str = "yolo11x-pose",
    keypoints: str = "yolo",
    depth_model: str = "apple/DepthPro-hf",
    no_depth: bool = False,
    device: str = "auto",
    batch_size: int = 8,
    num_workers: int = 2,
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
    report = StageReport("preprocess", max_bad=max_bad)
    names = _list_frames(source, target, frame_step)
    report.inputs = len(names)
    make_folder(target)
    networks = CueNetworks(yolo_model, None if no_depth else depth_model, device, keypoints)

    def read(name: Path) -> Frame:
        if not overwrite and is_complete(target / name.with_suffix(""), depth=not no_depth):
            return Frame(name)
        try:
            return Frame(name, image=read_image(source / name))
        except UnreadableImage as error:
            return Frame(name, problem=str(error))

    with (
        ThreadPoolExecutor(num_workers) as readers,
        ThreadPoolExecutor(num_workers) as writers,
        progress("preprocess", len(names)) as bar,
    ):
        unique = without_twins(names, report)
        frames = ahead(readers, read, unique, 2 * batch_size)
        waiting: deque[Future[None]] = deque()
        for batch in batches(_readable(frames, report, bar.advance), batch_size):
            sidecars = networks.cues([frame.image for frame in batch if frame.image is not None])
            for frame, sidecar in zip(batch, sidecars, strict=True):
                report.count("people", len(sidecar.people))
                report.count("frames_without_people", not sidecar.people)
                waiting.append(writers.submit(_write, target / frame.name.with_suffix(""), sidecar))
            _finish(waiting, 2 * batch_size, report, bar.advance)
        _finish(waiting, 0, report, bar.advance)
    rate = report.counts["frames"] / max(time.monotonic() - report.started, 1e-9)
    report.facts |= {"images_per_s": round(rate, 2)}
    report.facts |= {"input": str(source), "output": str(target), "estimators": networks.provenance}
    report.summary = _summary(report, target)
    write_report(target, report)
    return report


def _list_frames(source: Path, target: Path, frame_step: int) -> list[Path]:
    inside = source.is_dir() and target.resolve() != source.resolve()
    names = list(find_images(source, leave_out=[target] if inside else [], frame_step=frame_step))
    if not inside:  # sidecars beside the images: our own depth maps are no frames
        names = [name for name in names if not name.name.endswith("_depth.png")]
    if not names:
        raise ValueError(f"no images in {source}; it needs images (jpg, png, ...) or videos, in subfolders or directly")
    return names


def _readable(frames: Iterable[Frame], report: StageReport, done: Callable[[], None]) -> Iterator[Frame]:
    """The frames there is something to do for; the others are counted."""
    for frame in frames:
        if frame.image is not None:
            yield frame
            continue
        if frame.problem:
            report.skip(f"{frame.name} ({frame.problem})", "unreadable image")
        else:
            report.count("complete_before")
        done()


def _finish(waiting: deque[Future[None]], leave: int, report: StageReport, done: Callable[[], None]) -> None:
    """Wait until at most `leave` frames are unwritten. A write that failed is raised here."""
    while len(waiting) > leave:
        waiting.popleft().result()
        report.count("frames")
        done()


def _write(path_stem: Path, sidecar: Sidecar) -> None:
    make_folder(path_stem.parent)
    write_sidecar(path_stem, sidecar)


def _summary(report: StageReport, target: Path) -> str:
    line = f"preprocessed {report.counts['frames']} of {report.inputs} images, {report.counts['people']} people"
    if report.counts["complete_before"]:
        line += f", {report.counts['complete_before']} were complete"
    return f"{line}; {target}"
