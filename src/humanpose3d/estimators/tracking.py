"""Who is who from frame to frame of a video: Ultralytics' ByteTrack over the boxes of people."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from humanpose3d.sidecars import Person

# ByteTrack's own defaults (Zhang et al. 2022, as Ultralytics sets them).
SURE, UNSURE, NEW, MATCH = 0.25, 0.1, 0.25, 0.8
LOST_S = 1.0  # a person who has been out of sight for longer is somebody new


class PeopleTracker:
    """One video's. Numbers count from 1 and are never given twice."""

    def __init__(self, fps: float | None) -> None:
        from ultralytics.trackers.byte_tracker import BYTETracker

        self._tracker = BYTETracker(
            SimpleNamespace(
                track_high_thresh=SURE, track_low_thresh=UNSURE, new_track_thresh=NEW, match_thresh=MATCH,
                track_buffer=max(round(LOST_S * (fps or 30.0)), 1), fuse_score=True,
            )
        )  # fmt: skip
        self._numbers: dict[int, int] = {}  # Ultralytics' -> ours

    def update(self, people: Sequence[Person], size_wh: tuple[int, int]) -> list[int | None]:
        """The next frame's people -> each one's number; None of somebody seen too faintly to be followed."""
        from ultralytics.engine.results import Boxes

        rows = np.array([[*person.box_px, person.score, 0.0] for person in people], np.float32).reshape(-1, 6)
        found: list[int | None] = [None] * len(people)
        for row in self._tracker.update(Boxes(rows, size_wh[::-1])):
            found[int(row[7])] = self._numbers.setdefault(int(row[4]), len(self._numbers) + 1)
        return found
