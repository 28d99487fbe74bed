"""Scoring by a published protocol: predictions and labels, batch by batch, then every figure at once.

What the samples of an evaluation are (`Frames`) is read from their metadata first; the poses come in any order after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from humanpose3d.metrics import JointMeans
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import Skeleton, get_skeleton
from humanpose3d.tasks.criterion import Measurable, not_finite
from humanpose3d.tasks.groups import GROUPS, NOBODY
from humanpose3d.tasks.measures import MEASURES, Block
from humanpose3d.tasks.protocols import Protocol, scored_columns

ROWS = 4096  # samples measured at a time
VELOCITY, HEAD_SHARE = "mpjve_mm", "pckh_percent"


@dataclass
class Frames:
    """What the samples are that a protocol scores, a row each. Others are only counted."""

    keys: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)  # as the protocol knows them
    cameras: list[str] = field(default_factory=list)
    takes: list[str] = field(default_factory=list)  # one person through one camera
    numbers: list[int] = field(default_factory=list)  # of the frame in its take
    head_sizes_px: list[float] = field(default_factory=list)  # NaN where unknown
    focals_px: list[float] = field(default_factory=list)  # of the stored pictures; NaN where unknown
    corpora: Counter[str] = field(default_factory=Counter)
    keypoints: Counter[str] = field(default_factory=Counter)  # who found the 2D joints
    fps: Counter[float] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> samples

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, sample: PoseSample, protocol: Protocol) -> None:
        """A sample of the chunks, its arrays aside."""
        is_own = sample.corpus == protocol.corpus
        if sample.synthetic:
            self.left_out["a stand-in picture"] += 1
        elif not sample.valid:
            self.left_out["not valid in its corpus's evaluation"] += 1
        elif is_own and not protocol.tests(sample.subject):
            self.left_out[f"{sample.subject} is not tested by the protocol"] += 1
        else:
            self.keys.append(sample.key)
            self.subjects.append(sample.subject)
            self.actions.append(protocol.action(sample.action))
            self.cameras.append(sample.camera_id)
            self.takes.append(take_of(sample))
            self.numbers.append(sample.frame_index)
            self.head_sizes_px.append(np.nan if sample.head_size_px is None else sample.head_size_px)
            self.focals_px.append(np.nan if sample.camera is None else sample.camera.focal_px)
            self.corpora[sample.corpus] += 1
            self.keypoints[keypoint_source(sample)] += 1
            if sample.fps is not None:
                self.fps[sample.fps] += 1


def read_frames(samples: Iterable[PoseSample], protocol: Protocol) -> Frames:
    """The samples that count. ValueError where none does."""
    frames, seen = Frames(), set[str]()
    for sample in samples:
        if sample.key not in seen:  # a broken sample's place is taken by another one
            frames.add(sample, protocol)
        seen.add(sample.key)
    if not len(frames):
        reasons = ", ".join(f"{number} because {reason}" for reason, number in frames.left_out.most_common(3))
        who = f"it tests {', '.join(protocol.subjects)} of {protocol.corpus}" if protocol.subjects else protocol.corpus
        raise ValueError(f"no sample counts for the protocol, {who}; left out: {reasons or 'the set is empty'}")
    return frames


def take_of(sample: PoseSample) -> str:
    """The sample's key without its frame number: the same for all frames of one person through one camera."""
    parts = sample.key.split("-")
    if len(parts) > 2 and parts[-2].isdigit() and int(parts[-2]) == sample.frame_index:
        return "-".join([*parts[:-2], parts[-1]])
    return "-".join((sample.corpus, sample.subject, sample.action, sample.camera_id))  # somebody else's key


def keypoint_source(sample: PoseSample) -> str:
    """'yolo11x-pose 8.3.0, coco_17': who found the 2D joints that go in, and in which joints."""
    if sample.keypoint_skeleton is None:
        return "no 2D keypoints"
    estimator = sample.provenance.get("estimators", {}).get("keypoints")
    if not estimator:
        return f"keypoints of the corpus itself (true projections), {sample.keypoint_skeleton}"
    found_by = f"{estimator.get('name', 'unknown')} {estimator.get('version', '')}".strip()
    return f"{found_by}, {sample.keypoint_skeleton}"


@dataclass(frozen=True)
class Means:
    """The figures of one group of samples."""

    samples: int
    values: dict[str, float]  # measure -> mean over its joints
    by_joint: dict[str, dict[str, float]]  # measure -> joint -> mean


@dataclass(frozen=True)
class ProtocolScores:
    """All figures. `parts`: "action", "subject", "camera" and the questions of groups.py -> each part's means."""

    whole: Means  # frame-wise: every sample counts alike
    parts: dict[str, dict[str, Means]]
    pairs: int  # of consecutive frames, behind MPJVE
    step: int | None  # between neighbouring frames of a take
    headless: int = 0  # labelled samples without a head size, which PCKh cannot measure

    def means_over(self, part: str) -> dict[str, float]:
        """The mean over the parts, each counting alike whatever its samples: action-wise means."""
        rows = [means.values for means in self.parts[part].values()]
        names = self.whole.values
        return {
            name: float(np.mean([row[name] for row in rows if np.isfinite(row[name])] or [np.nan])) for name in names
        }


class ProtocolEvaluation:
    """Gathers predictions and labels of the frames of a protocol, in any order; `compute` measures them.

    predicted_in, labelled_in: the skeletons they come in; each must have every scored joint exactly (ValueError).
    Memory: 24 bytes a joint and sample (Human3.6M's whole test set: 0.2 GB).
    """

    def __init__(self, protocol: Protocol, frames: Frames, predicted_in: Skeleton, labelled_in: Skeleton) -> None:
        self.protocol, self.frames = protocol, frames
        self.skeleton = get_skeleton(protocol.skeleton)
        self._labelled_in = labelled_in
        self._columns = {"predicted": scored_columns(protocol, predicted_in)}
        try:
            self._columns["labels"] = scored_columns(protocol, labelled_in)
        except ValueError as error:
            raise ValueError(f"the chunks' labels cannot be scored by this protocol: {error}") from None
        shape = (len(frames), len(self.skeleton), protocol.dimensions)
        self._predicted, self._labels = (np.full(shape, np.nan, np.float32) for _ in range(2))
        self._head_sizes_px = np.array(frames.head_sizes_px, dtype=np.float64)
        self._rows = {key: row for row, key in enumerate(frames.keys)}
        self._kinds = {question: np.full(len(frames), NOBODY) for question in self._questions()}

    @property
    def keys(self) -> Collection[str]:
        """Of the samples that are scored."""
        return self._rows.keys()

    def update(self, keys: Sequence[str], batch: Measurable, counted: Tensor | None = None) -> None:
        """A batch. Samples that the protocol does not test, or that do not count, are passed over."""
        found = [self._rows.get(key, -1) for key in keys]
        kept = [b for b, row in enumerate(found) if row >= 0 and (counted is None or bool(counted[b]))]
        if not kept:
            return
        rows = np.array(found)[kept]
        truth = np.where(batch.mask[..., None].cpu().numpy(), batch.labels.cpu().numpy(), np.nan)[kept]
        predicted = batch.predicted.float().cpu().numpy()[kept]
        if self.protocol.in_stored_px:
            assert batch.focal_px is not None
            scale = np.array(self.frames.focals_px)[rows] / batch.focal_px.cpu().numpy()[kept]
            truth, predicted = truth * scale[:, None, None], predicted * scale[:, None, None]
        self._predicted[rows] = _rooted(predicted, *self._columns["predicted"])
        if batch.head_size_px is not None:  # in the pixels of the answers, which the sample's own are not
            sizes_px = batch.head_size_px.cpu().numpy()[kept]
            self._head_sizes_px[rows] = np.where(sizes_px > 0, sizes_px, np.nan)
        self._labels[rows] = _rooted(truth, *self._columns["labels"])
        if self.protocol.head:
            top, bottom = (self._labels[rows][:, self.skeleton.index(joint)] for joint in self.protocol.head)
            self._head_sizes_px[rows] = np.linalg.norm(top - bottom, axis=-1)
        for question, kinds in self._kinds.items():
            kinds[rows] = GROUPS[question][1](truth, self._labelled_in)

    def compute(self) -> ProtocolScores:
        """ValueError where nothing can be measured (no labelled root, no head size), or a prediction is not finite."""
        labelled = np.all(np.isfinite(self._labels), axis=-1)  # of delivered samples alone
        wrong = np.flatnonzero((labelled & ~np.isfinite(self._predicted).all(-1)).any(-1))
        if len(wrong):
            raise not_finite([self.frames.keys[row] for row in wrong], len(wrong))
        measured = np.flatnonzero(labelled[:, self.protocol.scored].any(-1))
        if not len(measured):
            raise ValueError("no sample of the protocol has labels that its root joint can be measured from")
        measured, headless = self._with_heads(measured)
        before, step = self._frames_before(measured)
        names = {"action": self.frames.actions, "subject": self.frames.subjects, "camera": self.frames.cameras}
        gathered = _Gathered(self.protocol)
        for start in range(0, len(measured), ROWS):
            rows = measured[start : start + ROWS]
            values = self._measure(rows, before[rows])
            labels = {part: [of[row] for row in rows] for part, of in names.items()}
            for question, kinds in self._kinds.items():
                kind_names = GROUPS[question][0]
                labels[question] = ["" if kinds[row] == NOBODY else kind_names[kinds[row]] for row in rows]
            gathered.add(values, labels)
        pairs = int((before[measured] >= 0).sum()) if step is not None else 0
        return gathered.scores(pairs, step, headless, self._kinds)

    def _questions(self) -> list[str]:
        return list(GROUPS) if self.protocol.dimensions == 3 and "left_hip" in self._labelled_in.points else []

    def _with_heads(self, labelled: np.ndarray) -> tuple[np.ndarray, int]:
        """(the rows that can be measured, the number of others). ValueError where no head size is known."""
        if HEAD_SHARE not in self.protocol.measures:
            return labelled, 0
        known = labelled[np.isfinite(self._head_sizes_px[labelled])]
        if not len(known):
            remedy = "put valid.h5 or gt_valid.mat beside the annotations, and make the chunks again"
            if self.protocol.head:
                remedy = f"it is told by labels of {' and '.join(self.protocol.head)}"
            raise ValueError(f"no sample has a head size, which PCKh needs: {remedy}")
        return known, len(labelled) - len(known)

    def _measure(self, rows: np.ndarray, before: np.ndarray) -> dict[str, Tensor]:
        own, earlier = self._block(rows), None
        if VELOCITY in self.protocol.measures:
            earlier = self._block(before)  # row -1 is masked below
            earlier = Block(earlier.predicted, earlier.labels, earlier.mask & torch.from_numpy(before >= 0)[:, None])
        head_size_px = torch.from_numpy(self._head_sizes_px[rows])
        block = Block(own.predicted, own.labels, own.mask, earlier, head_size_px)
        return {name: MEASURES[name].of(block) for name in self.protocol.measures}

    def _block(self, rows: np.ndarray) -> Block:
        predicted, labels = torch.from_numpy(self._predicted[rows]), torch.from_numpy(self._labels[rows])
        mask = labels.isfinite().all(-1)
        shown = mask[..., None]
        return Block(predicted.double().where(shown, 0.0), labels.double().where(shown, 0.0), mask)

    def _frames_before(self, measured: np.ndarray) -> tuple[np.ndarray, int | None]:
        """(int [N] the row one step earlier in the same take, -1 where there is none; the step in frames).

        The step is the most frequent one between neighbouring frames of a take (the smaller of two as frequent), so
        that a set of every fifth frame has pairs too; the report tells it, since MPJVE grows with it.
        """
        before = np.full(len(self.frames), -1)
        takes = np.unique(self.frames.takes, return_inverse=True)[1].reshape(-1)
        numbers = np.array(self.frames.numbers)
        order = measured[np.lexsort((numbers[measured], takes[measured]))]
        steps = np.where(np.diff(takes[order]) == 0, np.diff(numbers[order]), 0)
        if not (steps > 0).any():
            return before, None
        found, counts = np.unique(steps[steps > 0], return_counts=True)
        step = int(found[counts.argmax()])
        follows = steps == step
        before[order[1:][follows]] = order[:-1][follows]
        return before, step


class _Gathered:
    """Sums and counts of every measure, of the whole and of each part."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.joints = get_skeleton(protocol.skeleton).joints
        self._means: dict[tuple[str, str], dict[str, JointMeans]] = {}
        self._samples: Counter[tuple[str, str]] = Counter()

    def add(self, values: dict[str, Tensor], labels: dict[str, list[str]]) -> None:
        size = len(next(iter(values.values())))
        self._add(("", ""), values, np.ones(size, bool))
        for part, of in labels.items():
            for name in set(of):
                self._add((part, name), values, np.array(of) == name)

    def _add(self, place: tuple[str, str], values: dict[str, Tensor], rows: np.ndarray) -> None:
        self._samples[place] += int(rows.sum())
        means = self._means.setdefault(place, {name: JointMeans(len(self.joints)) for name in values})
        for name, of in values.items():
            means[name].add(of[torch.from_numpy(rows)])

    def scores(self, pairs: int, step: int | None, headless: int, questions: Iterable[str]) -> ProtocolScores:
        parts: dict[str, dict[str, Means]] = {
            part: {name: self._figures((part, name)) for own, name in sorted(self._means) if own == part}
            for part in ("action", "subject", "camera")
        }
        for question in questions:  # in the order of their names there
            kinds = GROUPS[question][0]
            parts[question] = {
                kind: self._figures((question, kind)) for kind in kinds if (question, kind) in self._means
            }
        return ProtocolScores(self._figures(("", "")), parts, pairs, step, headless)

    def _figures(self, place: tuple[str, str]) -> Means:
        scored, found = self.protocol.scored, self._means[place]
        return Means(
            samples=self._samples[place],
            values={name: means.mean(scored) for name, means in found.items()},
            by_joint={
                name: dict(zip(self.joints, means.by_joint.tolist(), strict=True)) for name, means in found.items()
            },
        )


def _rooted(joints: np.ndarray, columns: np.ndarray, root: np.ndarray) -> np.ndarray:
    """[B J C] of any skeleton -> [B S C], the scored joints relative to the middle of the root's."""
    chosen = joints[:, columns]
    return chosen - joints[:, root].mean(1, keepdims=True) if len(root) else chosen
