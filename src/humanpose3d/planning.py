"""What a corpus of so many frames will cost: this machine measured at each stage's own work, then multiplied.

The stages are run as they are, on a few frames of the studio. What a GPU, a network or a drive elsewhere does is not
known here, and nothing is said of it.
"""

from __future__ import annotations

import shutil
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from humanpose3d.chunks.build import build_chunks
from humanpose3d.chunks.codec import META
from humanpose3d.chunks.maker import SampleMaker
from humanpose3d.chunks.rechunk import rechunk
from humanpose3d.chunks.split import split_by_subject
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.engines import open_engine
from humanpose3d.estimators.speed import Precision, Speed
from humanpose3d.estimators.weights import pick_device
from humanpose3d.files import scratch_folder
from humanpose3d.images import batches
from humanpose3d.preprocess import FrameJob, Outcome
from humanpose3d.remotes import LocalStore
from humanpose3d.reports import StageReport
from humanpose3d.sources import get_source
from humanpose3d.studio.human36m import write_human36m

SUBJECTS = ("S1", "S9")
FRAMES_PER_TAKE, CAMERAS = 2, (1,)  # so 4 frames are filmed: at 1000 px that takes seconds
SET_BYTES = 200e6  # that split and rechunk are measured on, in at most SET_SAMPLES
SET_SAMPLES = 4000
SAMPLES_FOR_S = 3.0
CHUNK_SIZES = {"chunk": 5000, "split": 2000, "rechunk": 8000}  # the commands' defaults
FILES_PER_CHUNK = 3  # written: the tar, its .idx, and building.json anew
FILES_PER_SET = 2  # index.json and building.json; read once by the next stage
DAY_S, HOUR_S, MINUTE_S = 86400, 3600, 60


@dataclass(frozen=True)
class Measured:
    """This machine at each stage."""

    preprocess_s: float  # a frame, by one device
    chunk_s: float  # a sample, by one process
    split_s: float  # a sample
    rechunk_s: float  # a sample
    frame_bytes: float
    sidecar_bytes: float
    sample_bytes: float  # in a chunk


@dataclass(frozen=True)
class StageCost:
    """A row of the answer."""

    stage: str
    seconds: float
    read_bytes: float
    written_bytes: float
    requests: int  # files fetched from and put on a remote, where all chunks are on one


def plan(
    *,
    frames: float,
    gpus: int,
    workers: int,
    frame_size: int,
    yolo_model: str,
    depth_model: str,
    no_depth: bool,
    device: str,
    precision: Precision,
    batch_size: int,
    seconds: float,
) -> StageReport:
    """Fields as in PlanConfig. The summary is the table."""
    report = StageReport("plan", inputs=round(frames))
    depth = None if no_depth else depth_model
    job = FrameJob(
        LocalStore(Path()),
        LocalStore(Path()),
        yolo_model,
        "yolo",
        depth,
        "frame",
        device,
        Speed(precision),
        hands=2,
        overwrite=True,
    )
    with scratch_folder() as folder:
        measured = measure(folder, job, frame_size, batch_size, seconds)
    rows = costs(measured, round(frames), gpus, workers)
    report.facts |= {"measured": vars(measured), "stages": [vars(row) for row in rows]}
    report.summary = table(rows, round(frames), gpus, workers)
    kind = pick_device(device).type
    report.note(f"measured here: {1 / measured.preprocess_s:.2f} frames/s on one device ({kind})")
    if kind == "cpu":
        report.note(
            "preprocess is this CPU's rate, as if --gpus were as many machines like it: plan where the GPUs are"
        )
    return report


def costs(measured: Measured, frames: int, gpus: int, workers: int) -> list[StageCost]:
    """Each stage's share, if every frame becomes a sample."""
    samples_bytes = frames * measured.sample_bytes
    files = {stage: chunk_files(frames, size) for stage, size in CHUNK_SIZES.items()}
    read = {stage: files_read(frames, size) for stage, size in CHUNK_SIZES.items()}
    frames_bytes, sidecars_bytes = frames * measured.frame_bytes, frames * measured.sidecar_bytes
    return [
        StageCost("preprocess", frames * measured.preprocess_s / gpus, frames_bytes, sidecars_bytes, 0),
        StageCost(
            "chunk", frames * measured.chunk_s / workers, frames_bytes + sidecars_bytes, samples_bytes, files["chunk"]
        ),
        StageCost("split", frames * measured.split_s, samples_bytes, samples_bytes, read["chunk"] + files["split"]),
        StageCost(
            "rechunk", frames * measured.rechunk_s, samples_bytes, samples_bytes, read["split"] + files["rechunk"]
        ),
    ]


def chunk_files(samples: int, chunk_size: int) -> int:
    """Files put on a remote by the writing of a set."""
    return FILES_PER_CHUNK * ceil(samples / chunk_size) + FILES_PER_SET


def files_read(samples: int, chunk_size: int) -> int:
    """Files fetched from a remote by the reading of a set: each tar, and the index."""
    return ceil(samples / chunk_size) + 1


def table(rows: list[StageCost], frames: int, gpus: int, workers: int) -> str:
    lines = [
        f"{frames} frames, {gpus} devices for preprocess, {workers} processes for chunk, all files on a local disk:",
        f"{'stage':<12}{'time':>10}{'reads':>12}{'writes':>12}{'cloud requests':>17}",
    ]
    lines += [
        f"{row.stage:<12}{_time(row.seconds):>10}{_bytes(row.read_bytes):>12}{_bytes(row.written_bytes):>12}"
        f"{row.requests or '-':>17}"
        for row in rows
    ]
    total = sum(row.requests for row in rows)
    return "\n".join([*lines, f"{'all':<12}{_time(sum(row.seconds for row in rows)):>10}{'':>24}{total:>17}"])


def _time(seconds: float) -> str:
    for unit, name in ((DAY_S, "days"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def _bytes(number: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number / 1e6:.0f} MB"


def measure(folder: Path, job: FrameJob, frame_size: int, batch_size: int, seconds: float) -> Measured:
    """A part of `seconds` for the networks, a few more for the rest."""
    corpus, cues, chunks = folder / "corpus", folder / "processed", folder / "chunks"
    write_human36m(
        corpus, subjects=SUBJECTS, actions=[2], subactions=[1], cameras=CAMERAS, frames_per_take=FRAMES_PER_TAKE,
        size=frame_size,
    )  # fmt: skip
    paths = sorted((corpus / "images").rglob("*.jpg"))
    names = [str(path.relative_to(corpus / "images")) for path in paths]
    (folder / "frames").mkdir()
    for number in range(2 * batch_size):
        shutil.copy(paths[number % len(paths)], folder / "frames" / f"{number:06d}.jpg")
    preprocess_s = _preprocess_s(folder / "frames", folder / "sidecars", job, batch_size, seconds / 2)
    replace(job, source=LocalStore(corpus / "images"), target=LocalStore(cues))(0)(names)
    build_chunks(
        subjects=SUBJECTS, output=str(chunks), dataset="human36m", images_path=corpus / "images", processed_path=cues,
        annotations_path=corpus / "annotations", chunk_size=1000, crop="person", image_size=320, margin=0.25,
        depth_scale=0.5, jpeg_quality=90, image_pattern=None, frame_step=1, window=0, match_threshold=0.15,
        cues="optional", missing_images="error", cameras=None, camera_seed=None, bodies=None, compress="none",
        workers=1, max_bad=1.0,
    )  # fmt: skip
    sample_bytes, samples = _multiply(chunks / "chunk_000000.tar", folder / "set")
    begun = time.monotonic()
    split_by_subject(
        rclone_input_prefix=str(folder / "set"), rclone_destination_prefix=str(folder / "split"), train_subjects="S1",
        test_subjects="S9", new_chunk_size=1000, temp_extraction_dir=folder / "a", staging_dir=folder / "b",
        compress="none", workers=2, max_bad=0.0,
    )  # fmt: skip
    split_s, begun = time.monotonic() - begun, time.monotonic()
    rechunk(
        input_dir=str(folder / "split"), output_dir=str(folder / "shuffled"), chunk_size=1000, seed=0, shuffle=True,
        keep_extracted_originals=False, compress="none", temp_dir=folder / "c", workers=2, max_bad=0.0,
    )  # fmt: skip
    return Measured(
        preprocess_s=preprocess_s,
        chunk_s=_sample_s(corpus, cues),
        split_s=split_s / samples,
        rechunk_s=(time.monotonic() - begun) / samples,
        frame_bytes=_bytes_in(corpus / "images") / len(names),
        sidecar_bytes=_bytes_in(cues) / len(names),
        sample_bytes=sample_bytes,
    )


def _preprocess_s(source: Path, target: Path, job: FrameJob, batch_size: int, seconds: float) -> float:
    """A frame's, from the first batch's end on where there is time for a second."""
    names = sorted(path.name for path in source.iterdir())
    job = replace(job, source=LocalStore(source), target=LocalStore(target))
    done, first, last, outcomes = 0, 0.0, 0.0, list[Outcome]()
    with open_engine("local", None, 1, None) as engine:
        begun = time.monotonic()
        for outcome in engine.run(job, _batches(names, batch_size, begun + seconds), _never):
            last = time.monotonic()
            outcomes.append(outcome)
            first, done = (first, done + outcome.frames) if first else (last, 0)
    if done:
        return (last - first) / done
    return (last - begun - outcomes[0].load_s) / sum(outcome.frames for outcome in outcomes)


def _sample_s(corpus: Path, cues: Path) -> float:
    """A sample's, from picture and sidecar to what a chunk holds, by one process."""
    maker = SampleMaker(
        corpus / "images", cues, "person", 320, 0.25, 0.5, 90, 0, 0.15, "optional", False, "coco_17"
    )  # fmt: skip
    silent = StageReport("plan")
    frames = list(get_source("human36m").read_frames(corpus / "images", corpus / "annotations", SUBJECTS, told=silent))
    begun, made = time.monotonic(), 0
    while time.monotonic() < begun + SAMPLES_FOR_S:
        maker.make(frames[made % len(frames)])
        made += 1
    return (time.monotonic() - begun) / made


def _batches(names: list[str], size: int, until: float) -> Iterator[list[str]]:
    """All names once, and again while there is time."""
    yield from batches(names, size)
    while time.monotonic() < until:
        yield from batches(names, size)


def _never(batch: list[str]) -> Outcome:
    raise AssertionError("a worker in this process does not die alone")


def _multiply(chunk: Path, out: Path) -> tuple[float, int]:
    """(bytes a sample, samples) of a set made of the chunk's samples, each many times under other keys."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(chunk) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            data = tar.extractfile(member)
            assert data is not None
            samples.setdefault(key, {})[extension] = data.read()
    sample_bytes = chunk.stat().st_size / len(samples)
    times = max(int(min(SET_BYTES / sample_bytes, SET_SAMPLES)) // len(samples), 1)
    with ChunkSetWriter(
        LocalStore(out), prefix="chunk", chunk_size=1000, compress="none", plan={"stage": "plan"}, staging=out,
        state=dict,
    ) as writer:  # fmt: skip
        for number in range(times * len(samples)):
            key, members = list(samples.items())[number % len(samples)]
            new = f"{key}-{number:06d}"
            meta = members[META].replace(key.encode(), new.encode())
            writer.write(number, new, members | {META: meta})
        writer.finish()
    return sample_bytes, times * len(samples)


def _bytes_in(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
