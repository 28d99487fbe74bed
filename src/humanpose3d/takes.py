"""Frames of a video as one take: steadied if asked for, drawn as an annotated video, written as BVH files.

A take's last file, take.json, says that all of it is there, and of which frames.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import orjson

from humanpose3d.bvh import to_bvh
from humanpose3d.files import write_whole
from humanpose3d.pipeline import Result
from humanpose3d.skeletons import H36M_17, Skeleton
from humanpose3d.smoothing import OneEuro
from humanpose3d.tracks import DEFAULT_FPS, rate_of
from humanpose3d.video import split_frame_path, write_video
from humanpose3d.visualize.panels import draw_keypoints, draw_pose3d

ANNOTATED, FINISHED = "annotated.mp4", "take.json"  # in a video's folder of results
HEIGHT_PX = 480
AHEAD = 8  # pictures that wait to be encoded


class Videos:
    """Results in order, those of videos with tracks -> the same. A context: at its end all videos are whole."""

    def __init__(
        self,
        source: Path,
        target: Path,
        *,
        smooth: bool,
        draws: bool,
        exports_bvh: bool,
        skeletons: tuple[Skeleton, Skeleton],
        request: str = "",
    ) -> None:
        """skeletons: of the keypoints and of the 3D joints. request: what `finished_frames` will ask for.

        ValueError: BVH of other joints than Human3.6M's 17.
        """
        if exports_bvh and skeletons[1] is not H36M_17:
            raise ValueError(f"--export bvh knows the bones of {H36M_17.name}, not of {skeletons[1].name}")
        self.source, self.target, self.smooth, self.draws = source, target, smooth, draws
        self.exports_bvh, self.skeletons, self.request = exports_bvh, skeletons, request
        self._take: _Take | None = None

    def __enter__(self) -> Videos:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(is_whole=kind is None)

    def follow(self, result: Result) -> Result:
        """The next result; one that is no video's frame passes."""
        found = split_frame_path(result.name)
        if found is None:
            return result
        video, frame = found
        if self._take is None or self._take.video != video:
            self._end(is_whole=True)
            self._take = _Take(self, video)
        return self._take.follow(result, frame)

    def _end(self, *, is_whole: bool) -> None:
        if self._take is not None:
            self._take.end(is_whole=is_whole)
            self._take = None


def finished_frames(folder: Path, request: str) -> set[str] | None:
    """Names of the frames whose take an earlier run of the same request has written whole; None: there is none.

    folder: the video's, of results.
    """
    try:
        told = orjson.loads((folder / FINISHED).read_bytes())
        return set(told["frames"]) if told["request"] == request else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


class _Take:
    """One video on its way through."""

    def __init__(self, videos: Videos, video: Path) -> None:
        self.video, self._videos = video, videos
        self._fps = rate_of(videos.source / video)
        self._filters: dict[int, tuple[OneEuro, OneEuro]] = {}
        self._film = _Film(videos.target / video / ANNOTATED) if videos.draws else None
        self._motion: dict[int, dict[int, np.ndarray]] = {}  # track -> frame -> joints
        self._last = -1
        self._frames: list[str] = []
        (videos.target / video / FINISHED).unlink(missing_ok=True)

    def follow(self, result: Result, frame: int) -> Result:
        if self._videos.smooth:
            result = self._steadied(result, frame / self._fps)
        if self._videos.exports_bvh:
            for track, joints in zip(result.tracks, result.joints_cam_m, strict=True):
                if track is not None:
                    self._motion.setdefault(track, {})[frame] = joints.copy()
        if self._film is not None:
            step = frame - self._last if self._last >= 0 else 1
            self._film.add(self._picture(result), self._fps / step)
        self._last = frame
        self._frames.append(result.name.name)
        return result

    def _steadied(self, result: Result, time_s: float) -> Result:
        """The root's way and the pose about it, each by a filter of its own: the root's distance is the less sure."""
        joints, roots = result.joints_cam_m.copy(), result.root_cam_m.copy()
        for row, track in enumerate(result.tracks):
            if track is not None:
                of_root, of_pose = self._filters.setdefault(track, (OneEuro(), OneEuro()))
                pose = of_pose(joints[row] - roots[row], time_s)
                roots[row] = of_root(roots[row], time_s)
                joints[row] = pose + roots[row]
        return replace(result, joints_cam_m=joints, root_cam_m=roots)

    def _picture(self, result: Result) -> np.ndarray:
        people = result.cues.people
        keypoint_skeleton, skeleton = self._videos.skeletons
        height, width = result.image.shape[:2]
        scale = HEIGHT_PX / height
        size = max(2 * round(width * scale / 2), 2), HEIGHT_PX
        overlay = draw_keypoints(
            cv2.resize(result.image, size, interpolation=cv2.INTER_AREA),
            [(person.keypoints_px + 0.5) * scale - 0.5 for person in people],
            [person.keypoint_score for person in people],
            keypoint_skeleton,
            [np.asarray(person.box_px) * scale for person in people],
            [str(track or "?") for track in result.tracks],
        )
        # Without numbers: there they are of the order, which changes from frame to frame.
        pose = draw_pose3d(list(result.joints_cam_m), (HEIGHT_PX, HEIGHT_PX), skeleton, numbers=False)
        return np.concatenate([overlay, pose], axis=1)

    def end(self, *, is_whole: bool) -> None:
        if self._film is not None:
            self._film.end(is_whole=is_whole)
        if not is_whole:
            return
        folder = self._videos.target / self.video
        if self._videos.exports_bvh:
            for earlier in folder.glob("person_*.bvh"):
                earlier.unlink()
        for track, motion in self._motion.items():
            write_whole(folder / f"person_{track}.bvh", self._bvh(motion).encode())
        finished = {"request": self._videos.request, "frames": self._frames}
        write_whole(folder / FINISHED, orjson.dumps(finished, option=orjson.OPT_APPEND_NEWLINE))

    def _bvh(self, motion: dict[int, np.ndarray]) -> str:
        """With straight lines through the frames that the person is missing in. All begin with the take, so that they
        fit together in one scene: who comes later stands still until then."""
        frames, first = np.array(sorted(motion)), int(self._frames[0])
        step = max(int(np.gcd.reduce(np.diff([first, *frames]))), 1)
        every = np.arange(first, frames[-1] + 1, step)
        known = np.array([motion[frame] for frame in frames.tolist()]).reshape(len(frames), -1)
        filled = np.stack([np.interp(every, frames, column) for column in known.T], axis=-1)
        return to_bvh(filled.reshape(len(every), -1, 3), self._fps / step)


class _Film:
    """A video that is written beside the work; it is whole or not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pictures: queue.Queue[np.ndarray | None] = queue.Queue(AHEAD)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._held: np.ndarray | None = None  # the first, until the second tells the rate
        self._is_whole = True

    def add(self, picture: np.ndarray, fps: float) -> None:
        if self._held is None and self._thread is None:
            self._held = picture
            return
        if self._thread is None:
            self._start(fps)
        self._put(picture)

    def end(self, *, is_whole: bool) -> None:
        """Raises what kept it from being written."""
        if self._thread is None and is_whole:
            self._start(DEFAULT_FPS)
        self._is_whole = is_whole
        self._put(None)
        if self._thread is not None:
            self._thread.join()
        if self._error is not None and is_whole:
            raise self._error

    def _start(self, fps: float) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._write, args=(fps,), daemon=True)
        self._thread.start()
        if self._held is not None:
            self._put(self._held)
            self._held = None

    def _put(self, picture: np.ndarray | None) -> None:
        while self._thread is not None and self._thread.is_alive():
            try:
                self._pictures.put(picture, timeout=0.1)
                return
            except queue.Full:
                continue

    def _write(self, fps: float) -> None:
        try:
            write_video(self.path, self._frames(), fps)
        except BaseException as error:  # told by the thread that adds
            self._error = error

    def _frames(self) -> Iterator[np.ndarray]:
        while (picture := self._pictures.get()) is not None:
            yield picture
        if not self._is_whole:
            raise RuntimeError("stopped")
