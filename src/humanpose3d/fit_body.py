"""Chunks -> the same chunks with SMPL's pose, shape and translation, fitted to each sample's joints.

How a body is fitted is `models/body_fitting.py`'s; here is what it is fitted to, how far off it is, what is written.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from humanpose3d.camera import Camera, camera_to_pixel, pixel_to_ray
from humanpose3d.chunks.codec import META, BadSample, check_sample, decode_sample, with_fields
from humanpose3d.chunks.layout import ChunkIndex, read_index
from humanpose3d.chunks.read import Chunk, borrowed_chunk
from humanpose3d.chunks.rechunk import merge_part, parts_of
from humanpose3d.chunks.write import ChunkSetWriter, job_folder, refuse_same_place, report_state, restore_report
from humanpose3d.dataset.collator import DEFAULT_FOV_DEG
from humanpose3d.models.body_fitting import BodyFitter, Evidence, is_enough
from humanpose3d.models.smpl_body import BETAS, SmplBody, load_bodies
from humanpose3d.remotes import Store, open_store
from humanpose3d.reports import StageReport, progress
from humanpose3d.residuals import Residuals
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import SKELETONS, Skeleton
from humanpose3d.tasks.devices import train_device

REPORT = "fit_body_report.json"
GENDER = "neutral"
LABELS = ("smpl_pose_rad", "smpl_betas", "smpl_trans_m", "gender")
DIGITS = 5  # after the point, of what is stored: a hundredth of a millimetre
SHAPE_SAMPLES = 64  # of a subject, spread over the set: the mean of those of a person is the person's
TOO_FEW = "too few joints known, or no hips and shoulders: written without SMPL labels"


@dataclass(frozen=True)
class _Limits:
    """Residuals above which a sample keeps no SMPL labels."""

    mm: float  # mean over its 3D joints
    px: float  # mean over its 2D points, where it has no 3D joints


def fit_body(
    *,
    input_dir: str,
    output_dir: str,
    body_model: Path,
    fit_to: str,
    one_shape: bool,
    max_residual_mm: float,
    max_residual_px: float,
    replace: bool,
    device: str,
    batch_size: int,
    temp_dir: Path,
    max_bad: float,
) -> StageReport:
    """Fields as in FitBodyConfig. Cut off, it goes on after the last whole chunk and ends with the same bytes.

    FileNotFoundError: no body file. ValueError: no joints in the chunks, or of a set that the body has no regressor to.
    """
    source, target = open_store(input_dir), open_store(output_dir)
    refuse_same_place(source, [target])
    body = load_bodies(body_model).neutral.to(train_device(device))
    report = StageReport("fit_body", max_bad=max_bad)
    millimetres, pixels = Residuals(), Residuals()
    limits = _Limits(max_residual_mm, max_residual_px)
    for part in parts_of(source):
        of_part, residuals = _fit_part(
            source.child(part) if part else source, target.child(part) if part else target, body, fit_to=fit_to,
            one_shape=one_shape, limits=limits, replace=replace, batch_size=batch_size, temp_dir=temp_dir,
        )  # fmt: skip
        merge_part(report, of_part, part)
        millimetres.add_all(residuals[0])
        pixels.add_all(residuals[1])
    report.facts |= {"output": target.location, "residual_mm": millimetres.facts(), "residual_px": pixels.facts()}
    told = ", ".join(filter(None, (millimetres.line("mm"), pixels.line("px")))) or "nothing to compare"
    fitted, samples = report.counts["fitted"], report.counts["samples"]
    report.summary = f"fitted {fitted} of {samples} samples into {target.location}; residual {told}"
    for unit, residual in (("mm", millimetres), ("px", pixels)):
        if residual.count:
            report.note(f"residual by joint, {unit}: {residual.joint_line()}")
    target.write_bytes(REPORT, report.to_json())
    return report


def _fit_part(
    source: Store,
    target: Store,
    body: SmplBody,
    *,
    fit_to: str,
    one_shape: bool,
    limits: _Limits,
    replace: bool,
    batch_size: int,
    temp_dir: Path,
) -> tuple[StageReport, tuple[Residuals, Residuals]]:
    index = read_index(source)
    if fit_to == "auto":
        fit_to = "keypoints" if index.skeleton is None else "joints"
    reader = _EvidenceReader(*_skeletons(index, fit_to, source), fit_to)
    fitter = BodyFitter(body, reader.joint_skeleton, reader.point_skeleton)
    report = StageReport("fit_body", inputs=index.samples)
    residuals = Residuals(), Residuals()
    temporary = job_folder(temp_dir, source.place, target.place, index.digest)
    plan = {
        "stage": "fit-body", "fit_to": fit_to, "one_shape": one_shape, "max_residual_mm": limits.mm,
        "max_residual_px": limits.px, "replace": replace, "batch_size": batch_size, "body": body_digest(body),
        "input": index.digest,
    }  # fmt: skip

    def state() -> dict[str, Any]:
        return {**report_state(report), "residuals": [each.to_dict() for each in residuals]}

    with ChunkSetWriter(
        target, prefix=index.prefix, chunk_size=max(entry.samples for entry in index.chunks), compress="none",
        plan=plan, staging=temporary / "staging", state=state, history=index.provenance.get("history", []),
    ) as writer:  # fmt: skip
        if writer.state is not None:
            restore_report(report, writer.state)
            residuals = tuple(map(Residuals.from_dict, writer.state["residuals"]))  # type: ignore[assignment]
        if writer.index is None:
            chunks = _Chunks(source, index, temporary / "chunks")
            shapes = _shapes(chunks, reader, fitter, batch_size) if one_shape else None
            job = _Job(reader, fitter, shapes, limits, replace, report, residuals)
            with progress("fit-body", index.samples) as bar:
                for positions, chunk, numbers in chunks.batches(batch_size, writer.position):
                    bar.advance(positions[0] - bar.done)
                    job.fit_batch(writer, positions, chunk, numbers)
                    bar.advance(len(positions))
        written = writer.finish(why_none=report.skipped_line() or f"{source.location} is empty")
    shutil.rmtree(temporary, ignore_errors=True)
    report.counts.update(samples=written.samples, chunks=len(written.chunks))
    report.facts |= {"joints": reader.facts()}
    report.summary = f"{report.counts['fitted']} of {written.samples}"
    return report, residuals


def _skeletons(index: ChunkIndex, fit_to: str, source: Store) -> tuple[Skeleton | None, Skeleton | None]:
    """Of the labels and of the 2D points that bodies are fitted to. ValueError where the chunks have none."""
    labels, cues = (SKELETONS.get(name or "") for name in (index.skeleton, index.keypoint_skeleton))
    if fit_to != "keypoints" and labels is None:
        raise ValueError(f"{source.location} has no labelled joints; --fit-to keypoints fits to what a detector found")
    if fit_to in ("keypoints", "both") and cues is None:
        raise ValueError(f"{source.location} has no keypoints; run preprocess.py and the chunker, or --fit-to joints")
    if fit_to == "joints":
        return labels, labels
    return (None if fit_to == "keypoints" else labels), cues


def body_digest(body: SmplBody) -> str:
    """Of the body's numbers: another file, other bytes."""
    digest = hashlib.sha256()
    for name, numbers in sorted(body.named_buffers()):
        digest.update(name.encode() + numbers.cpu().numpy().tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------- what is known


@dataclass(frozen=True, eq=False)
class _Known:
    """What one sample's body is fitted to, and compared with."""

    joints_m: np.ndarray  # float32 [J 3]
    joint_weight: np.ndarray  # float32 [J]; all 0 where the joints are too few
    points_px: np.ndarray  # float32 [K 2]
    point_weight: np.ndarray  # float32 [K]
    camera: Camera
    by_points: bool  # they are fitted to, not only compared with

    @property
    def is_enough(self) -> bool:
        return bool(self.joint_weight.any()) or self.by_points


@dataclass(frozen=True)
class _EvidenceReader:
    """A sample -> what is known of it."""

    joint_skeleton: Skeleton | None
    point_skeleton: Skeleton | None
    fit_to: str  # joints, keypoints, both

    def read(self, sample: PoseSample) -> _Known:
        joints_m, joint_weight = _weighted(sample.joints_cam_m, sample.joint_score, self.joint_skeleton, 3)
        by_keypoints = self.fit_to != "joints"
        points = (
            (sample.keypoints_px, sample.keypoint_score) if by_keypoints else (sample.joints_px, sample.joint_score)
        )
        points_px, point_weight = _weighted(*points, self.point_skeleton, 2)
        by_points = by_keypoints or not joint_weight.any()  # labelled 2D joints say no more than their 3D ones
        by_points &= self.point_skeleton is not None and is_enough(point_weight > 0, self.point_skeleton)
        # As the collator takes it in training.
        camera = sample.camera or Camera.from_fov(sample.image_size_wh, DEFAULT_FOV_DEG)
        return _Known(joints_m, joint_weight, points_px, point_weight, camera, by_points)

    def facts(self) -> dict[str, Any]:
        names = (None if skeleton is None else skeleton.name for skeleton in (self.joint_skeleton, self.point_skeleton))
        return {"fit_to": self.fit_to, **dict(zip(("joints", "points"), names, strict=True))}


def _weighted(
    points: np.ndarray | None, score: np.ndarray | None, skeleton: Skeleton | None, axes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(points [J axes], weights [J]), without a point of no weight; 3D joints that are too few have none at all."""
    count = 0 if skeleton is None else len(skeleton)
    if points is None or skeleton is None:
        return np.zeros((count, axes), np.float32), np.zeros(count, np.float32)
    weight = np.ones(count, np.float32) if score is None else np.clip(np.nan_to_num(score), 0.0, 1.0)
    weight = np.where(np.isfinite(points).all(-1), weight, 0.0).astype(np.float32)
    if axes == 3 and not is_enough(weight > 0, skeleton):
        weight = np.zeros_like(weight)
    return np.where(weight[:, None] > 0, points, 0.0).astype(np.float32), weight


def _evidence(known: list[_Known], device: torch.device) -> Evidence:
    rays = [pixel_to_ray(each.points_px, each.camera) for each in known]
    ray_weight = [each.point_weight * each.by_points for each in known]
    parts = [each.joints_m for each in known], [each.joint_weight for each in known], rays, ray_weight
    return Evidence(*(torch.from_numpy(np.array(part, np.float32)).to(device) for part in parts))


# ----------------------------------------------------------------------------------------------------- the work


@dataclass(frozen=True)
class _Chunks:
    """The samples of a set under their positions, chunk by chunk."""

    source: Store
    index: ChunkIndex
    folder: Path

    def batches(self, size: int, first: int = 0) -> Iterator[tuple[range, Chunk, range]]:
        """(positions in the set, the chunk, numbers in it), `size` at most, from the one with position `first` on.

        Always the same batches: a fit may depend, in its last digits, on who is fitted beside.
        """
        position = 0
        for entry in self.index.chunks:
            if position + entry.samples <= first:
                position += entry.samples
                continue
            with borrowed_chunk(self.source, entry, self.folder) as chunk:
                for start in range(0, entry.samples, size):
                    numbers = range(start, min(start + size, entry.samples))
                    positions = range(position + start, position + numbers[-1] + 1)
                    if positions[-1] >= first:
                        yield positions, chunk, numbers
                chunk.close()
            position += entry.samples


@dataclass
class _Job:
    """A set on its way: what is known of each sample, its body, its account."""

    reader: _EvidenceReader
    fitter: BodyFitter
    shapes: Mapping[tuple[str, str], np.ndarray] | None  # person -> betas, where they are known
    limits: _Limits
    replace: bool
    report: StageReport
    residuals: tuple[Residuals, Residuals]

    def fit_batch(self, writer: ChunkSetWriter, positions: range, chunk: Chunk, numbers: range) -> None:
        read = [_read(chunk, number) for number in numbers]
        samples = [sample for _, sample in read if isinstance(sample, PoseSample) and self._is_wanted(sample)]
        known = {sample.key: self.reader.read(sample) for sample in samples}
        bodies = self._bodies([sample for sample in samples if known[sample.key].is_enough], known)
        for position, (members, sample) in zip(positions, read, strict=True):
            if not writer.wants(position):
                continue
            if isinstance(sample, BadSample):
                self.report.skip(sample.key, sample.reason)
            else:
                body = bodies.get(sample.key)
                self._write(writer, position, sample, members, known.get(sample.key), body)

    def _write(
        self,
        writer: ChunkSetWriter,
        position: int,
        sample: PoseSample,
        members: Mapping[str, bytes],
        known: _Known | None,
        body: Mapping[str, np.ndarray] | None,
    ) -> None:
        outcome = self._outcome(sample, known, body)
        before = self.report.counts.copy()
        outcome.tell(self, sample.key)  # first: the chunk that the sample ends stores the account
        try:
            fields = outcome.fields
            writer.write(position, sample.key, with_fields(sample.key, members, **fields) if fields else members)
        except BadSample as bad:
            outcome.add_residuals(self, times=-1)
            self.report.counts = before
            self.report.skip(bad.key, bad.reason)

    def _is_wanted(self, sample: PoseSample) -> bool:
        return self.replace or sample.smpl_pose_rad is None

    def _bodies(self, samples: list[PoseSample], known: Mapping[str, _Known]) -> dict[str, dict[str, np.ndarray]]:
        """Key -> the body's numbers and joints."""
        if not samples:
            return {}
        device = self.fitter.mean_pose.device
        betas = None
        if self.shapes is not None:
            mean = np.zeros(BETAS, np.float32)
            rows = np.array([self.shapes.get(_person(sample), mean) for sample in samples])
            betas = torch.from_numpy(rows).to(device)
        fit = self.fitter.fit(_evidence([known[sample.key] for sample in samples], device), betas)
        return {
            sample.key: {name: numbers[row] for name, numbers in fit._asdict().items()}
            for row, sample in enumerate(samples)
        }

    def _outcome(self, sample: PoseSample, known: _Known | None, body: Mapping[str, np.ndarray] | None) -> _Outcome:
        if known is None:
            return _Outcome(("kept with labels of their own",), {})
        without = {} if sample.smpl_pose_rad is None else dict.fromkeys(LABELS)
        if body is None:
            return _Outcome((), without, TOO_FEW)
        off_mm = 1e3 * np.linalg.norm(body["joints_m"] - known.joints_m, axis=-1)
        off_px = np.linalg.norm(camera_to_pixel(body["points_m"], known.camera) - known.points_px, axis=-1)
        off = np.where(known.joint_weight > 0, off_mm, np.nan), np.where(known.point_weight > 0, off_px, np.nan)
        by_joints = bool(known.joint_weight.any())
        most = f"{self.limits.mm:g} mm" if by_joints else f"{self.limits.px:g} px"
        if not (np.nanmean(off[0]) <= self.limits.mm if by_joints else np.nanmean(off[1]) <= self.limits.px):
            return _Outcome((), without, f"fit off by more than {most}: written without SMPL labels", off)
        labels = {
            f"smpl_{name}": (np.round(body[name].astype(np.float64), DIGITS) + 0.0).astype(np.float32)  # no -0.0
            for name in ("pose_rad", "betas", "trans_m")
        }
        assumed = ("fitted by an assumed camera",) if known.by_points and sample.camera is None else ()
        return _Outcome(("fitted", *assumed), labels | {"gender": GENDER}, "", off)


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What comes of a sample."""

    counted_as: tuple[str, ...]
    fields: dict[str, Any]  # of the record, to be changed
    reason: str = ""  # why it has no labels
    off: tuple[np.ndarray, np.ndarray] | None = None  # [J] mm, [K] px; NaN where nothing is known

    def tell(self, job: _Job, key: str) -> None:
        for what in self.counted_as:
            job.report.count(what)
        if self.reason:
            job.report.skip(key, self.reason)
        self.add_residuals(job)

    def add_residuals(self, job: _Job, times: int = 1) -> None:
        skeletons = job.reader.joint_skeleton, job.reader.point_skeleton
        for residuals, skeleton, off in zip(job.residuals, skeletons, self.off or (), strict=False):
            residuals.add(skeleton, off, times)


def _read(chunk: Chunk, number: int) -> tuple[dict[str, bytes], PoseSample | BadSample]:
    members: dict[str, bytes] = {}
    try:
        key, members = chunk.key(number), chunk.read(number)
        check_sample(key, members)
        return members, decode_sample(key, members, fields=())
    except BadSample as bad:
        return members, bad


def _person(sample: PoseSample) -> tuple[str, str]:
    """Whose shape it is: in 3DPW the subject is a sequence of two people, in mocap its bodies are numbered."""
    return sample.subject, sample.key.rpartition("-")[2]


def _shapes(
    chunks: _Chunks, reader: _EvidenceReader, fitter: BodyFitter, batch_size: int
) -> dict[tuple[str, str], np.ndarray]:
    """Each person's betas: the mean of those fitted to some samples, SHAPE_SAMPLES of a subject.

    ValueError for MPII, which does not tell who is who.
    """
    total = chunks.index.subjects
    every = {subject: -(-number // SHAPE_SAMPLES) for subject, number in total.items()}
    seen, found = Counter[tuple[str, str]](), dict[tuple[str, str], list[np.ndarray]]()
    waiting: list[tuple[tuple[str, str], _Known]] = []

    def fit() -> None:
        if waiting:
            fitted = fitter.fit(_evidence([known for _, known in waiting], fitter.mean_pose.device))
            for (person, _), betas in zip(waiting, fitted.betas, strict=True):
                found.setdefault(person, []).append(betas)
            waiting.clear()

    with progress("shapes", chunks.index.samples) as bar:
        for _, chunk, numbers in chunks.batches(batch_size):
            for number in numbers:
                key = chunk.key(number)
                try:
                    sample = decode_sample(key, chunk.read(number, (META,)), fields=())
                except BadSample:
                    continue  # told when its turn to be written comes
                if sample.corpus == "mpii":
                    raise ValueError("--one-shape needs to know who is who, and MPII does not tell; leave it out")
                person, known = _person(sample), reader.read(sample)
                if seen[person] % every.get(sample.subject, 1) == 0 and known.is_enough:
                    waiting.append((person, known))
                    if len(waiting) == batch_size:
                        fit()
                seen[person] += 1
            bar.advance(len(numbers))
    fit()
    return {person: np.mean(betas, axis=0).round(DIGITS) for person, betas in found.items()}
