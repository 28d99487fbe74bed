"""Who is who in the frames of videos, and each person's 2D keypoints in the frames around: what a window lifter reads.

Frames go in one after the other; with a window they come out late, when the frames after them have been seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from humanpose3d.estimators.tracking import PeopleTracker
from humanpose3d.pipeline import Seen
from humanpose3d.video import UnreadableVideo, frame_rate, split_frame_path

WINDOW_FPS = 10.0  # about: what `lifter_window27` was trained at; of a faster video every n-th frame is looked at
DEFAULT_FPS = 30.0  # of a video that does not say


def rate_of(video: Path) -> float:
    """Frames per second, assumed where the video does not tell."""
    try:
        return frame_rate(video) or DEFAULT_FPS
    except (UnreadableVideo, OSError):
        return DEFAULT_FPS


def with_tracks(seen: Iterable[Seen], source: Path, *, window: int = 1, frame_step: int = 1) -> Iterator[Seen]:
    """The same in the same order, people of videos with track numbers and, for a window, keypoints around.

    source: the folder that the names lie in. window: frames of keypoints, odd. frame_step: between frames of a video.
    """
    take: _Take | None = None
    for each in seen:
        found = split_frame_path(each.picture.name)
        video = found[0] if found else None
        if take is not None and take.video != video:
            yield from take.rest()
            take = None
        if found is None:
            yield each
            continue
        if take is None:
            take = _Take(found[0], rate_of(source / found[0]), window, frame_step)
        yield from take.add(each, found[1])
    if take is not None:
        yield from take.rest()


class _Take:
    """One video on its way through."""

    def __init__(self, video: Path, fps: float, window: int, frame_step: int) -> None:
        self.video, self.half = video, window // 2
        self.spacing = frame_step * max(round(fps / frame_step / WINDOW_FPS), 1)  # of the window, in frames
        self.window_fps = fps / self.spacing
        self._tracker = PeopleTracker(fps / frame_step)
        self._waiting: deque[tuple[int, Seen]] = deque()
        self._keypoints: dict[int, dict[int, np.ndarray]] = {}  # frame -> track -> float32 [Jin 3]

    def add(self, seen: Seen, frame: int) -> Iterator[Seen]:
        """Those whose window is whole now."""
        tracks = self._tracker.update(seen.cues.people, seen.cues.image_size_wh)
        seen = replace(seen, tracks=tracks)
        if not self.half:
            yield seen
            return
        self._keypoints[frame] = {
            track: np.column_stack([person.keypoints_px, person.keypoint_score]).astype(np.float32)
            for track, person in zip(tracks, seen.cues.people, strict=True)
            if track is not None
        }
        self._waiting.append((frame, seen))
        reach = self.half * self.spacing
        while self._waiting and self._waiting[0][0] + reach <= frame:
            yield self._windowed(*self._waiting.popleft())
        oldest = self._waiting[0][0] - reach
        for past in [past for past in self._keypoints if past < oldest]:
            del self._keypoints[past]

    def rest(self) -> Iterator[Seen]:
        """Those whose window goes beyond the video's end."""
        while self._waiting:
            yield self._windowed(*self._waiting.popleft())

    def _windowed(self, frame: int, seen: Seen) -> Seen:
        windows = [
            self._window(frame, track, np.column_stack([person.keypoints_px, person.keypoint_score]))
            for track, person in zip(seen.tracks, seen.cues.people, strict=True)
        ]
        return replace(seen, keypoint_windows=windows, window_fps=self.window_fps)

    def _window(self, frame: int, track: int | None, own: np.ndarray) -> np.ndarray:
        """float32 [T Jin 3]; NaN and score 0 where the person was not seen, all but the middle without a track."""
        window = np.full((2 * self.half + 1, *own.shape), (np.nan, np.nan, 0.0), np.float32)
        for place, offset in enumerate(range(-self.half, self.half + 1)):
            found = self._keypoints.get(frame + offset * self.spacing, {})
            if track is not None and track in found:
                window[place] = found[track]
        window[self.half] = own
        return window
