"""Which of the people found in an image is the labelled one, and where that person is in the frames around."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from humanpose3d.sample import LabelledFrame
from humanpose3d.sidecars import Person, Sidecar, read_sidecar
from humanpose3d.skeletons import get_skeleton, shared_joints

SIDECARS_KEPT = 512  # of the frames around, for --window; neighbours share most of theirs
WINDOW_STEP = 0.5  # furthest mean move of a person from one frame to the next, as a share of their size
BOXES_AGREE = 0.5  # least overlap (IoU) of label and detection where the label has no 2D joints

_NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>\d+)")


def nearest_person(frame: LabelledFrame, sidecar: Sidecar) -> tuple[Person | None, float]:
    """The detected person nearest to the label, and how far off (`match_error`); (None, inf) where nobody was found."""
    errors = [match_error(frame, person, sidecar.keypoint_skeleton) for person in sidecar.people]
    if not errors:
        return None, np.inf
    best = int(np.argmin(errors))
    return sidecar.people[best], errors[best]


def match_error(frame: LabelledFrame, person: Person, keypoint_skeleton: str) -> float:
    """Mean distance of detected from labelled joints, over those both have, against the labelled box's longer side.

    A joint that the detector does not give counts as a whole person off. A label without any 2D joint goes by its box:
    0 where the boxes overlap enough. inf where nothing can be compared.
    """
    if frame.joints_px is None or not np.isfinite(frame.joints_px).any():
        return 0.0 if _overlap(frame.box_px, person.box_px) >= BOXES_AGREE else np.inf
    of_label, of_person = shared_joints(get_skeleton(frame.skeleton), get_skeleton(keypoint_skeleton))
    labelled = frame.joints_px[of_label]
    known = np.isfinite(labelled).all(-1) & (frame.joint_score[of_label] > 0)
    if not known.any():
        return np.inf
    distances = np.linalg.norm(person.keypoints_px[of_person] - labelled, axis=-1)[known] / _size_px(frame.box_px)
    return float(np.nan_to_num(distances, nan=1.0).mean())


@dataclass
class Tracks:
    """People in the frames around a frame, read from their sidecars; the newest are kept."""

    frames: int  # odd
    _people: dict[Path, tuple[Person, ...]] = field(default_factory=dict, repr=False)

    def around(self, stem: Path, person: Person | None, skeleton: str) -> np.ndarray:
        """float32 [T Jin 3]: the person in the frames around, followed outwards; NaN and score 0 where lost."""
        half = self.frames // 2
        track = np.full((self.frames, len(get_skeleton(skeleton)), 3), (np.nan, np.nan, 0.0), dtype=np.float32)
        if person is None:
            return track
        track[half] = np.column_stack([person.keypoints_px, person.keypoint_score])
        for direction in (-1, 1):
            last = person
            for step in range(1, half + 1):
                found = _nearest(self._people_of(_neighbour(stem, direction * step), skeleton), last)
                if found is not None:
                    track[half + direction * step] = np.column_stack([found.keypoints_px, found.keypoint_score])
                    last = found
        return track

    def _people_of(self, stem: Path | None, skeleton: str) -> tuple[Person, ...]:
        if stem is None:
            return ()
        if stem not in self._people:
            if len(self._people) >= SIDECARS_KEPT:
                del self._people[next(iter(self._people))]  # the oldest
            try:
                sidecar = read_sidecar(stem, depth=False)
                self._people[stem] = tuple(sidecar.people) if sidecar.keypoint_skeleton == skeleton else ()
            except (FileNotFoundError, ValueError):
                self._people[stem] = ()  # a gap in the window; the frame's own sample reports it
        return self._people[stem]


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


def _size_px(box_px: np.ndarray) -> float:
    return float(max(box_px[2] - box_px[0], box_px[3] - box_px[1], 1.0))


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1."""
    sides = np.clip(np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2]), 0, None)
    common = float(sides[0] * sides[1])
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (first, second)]
    return common / max(sum(areas) - common, 1e-9)
