"""Frames of videos, read in place. A frame is a path below its video: `clip.mp4/000123` is frame 123, counted from 0.

So a frame of a video has a name, a sidecar and a key like any image file, and nothing has to be extracted.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

VIDEO_EXTENSIONS = frozenset(".mp4 .avi .mkv .mov .webm .mpg .mpeg .m4v".split())
OPEN_AT_ONCE = 4  # videos a thread keeps open: those of the cameras of one take
SEEK_BEYOND = 64  # frames: up to here decoding on is cheaper than seeking to the key frame before


class UnreadableVideo(ValueError):
    """A video that cannot be opened or decoded. The message names it."""


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_EXTENSIONS


def frame_path(video: Path, frame: int) -> Path:
    """`clip.mp4` and 123 -> `clip.mp4/000123`."""
    return video / f"{frame:06d}"


def split_frame_path(path: Path) -> tuple[Path, int] | None:
    """`clip.mp4/000123` -> (`clip.mp4`, 123); None for paths that are no frame of a video."""
    return (path.parent, int(path.name)) if is_video(path.parent) and path.name.isdigit() else None


def count_frames(video: Path) -> int:
    """How many frames the video really holds. UnreadableVideo, FileNotFoundError."""
    with _Reader(video) as reader:
        return reader.count()


def frame_rate(video: Path) -> float | None:
    """Frames per second, where the video says."""
    with _Reader(video) as reader:
        return reader.fps


def read_frame(video: Path, frame: int) -> np.ndarray:
    """uint8 [H W 3] RGB of one frame, turned upright. Fast when a thread asks for rising numbers: it decodes on.

    UnreadableVideo: no such frame, or a broken video.
    """
    readers: OrderedDict[Path, _Reader] = _kept.__dict__.setdefault("readers", OrderedDict())
    reader = readers.pop(video, None) or _Reader(video)
    try:
        image = reader.read(frame)
    except BaseException:
        reader.close()
        raise
    readers[video] = reader
    while len(readers) > OPEN_AT_ONCE:
        readers.popitem(last=False)[1].close()
    for gone in [path for path in readers if not path.exists()]:  # an open file would still take its room on the disk
        readers.pop(gone).close()
    return image


def write_video(path: Path, frames: Iterator[np.ndarray], fps: float, *, codec: str = "libx264", crf: int = 18) -> int:
    """Write uint8 [H W 3] RGB frames, all of one even-sized shape; returns how many. The file is whole or not there."""
    import av

    from humanpose3d.files import whole_file

    count = 0
    with whole_file(path) as temporary:
        with av.open(str(temporary), "w", format=_FORMATS.get(path.suffix.lower(), "mp4")) as container:
            stream: Any = None
            for image in frames:
                if stream is None:
                    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
                    stream.height, stream.width = image.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    stream.options = {"crf": str(crf)} if codec == "libx264" else {}
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
                count += 1
            if stream is not None:
                container.mux(stream.encode())
    return count


_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".avi": "avi", ".mkv": "matroska", ".mov": "mov", ".webm": "webm"}
_kept = threading.local()


class _Reader:
    """One open video and the place it is at."""

    def __init__(self, video: Path) -> None:
        import av

        if not video.is_file():
            raise FileNotFoundError(f"{video} is missing")
        self.video = video
        self._error = av.FFmpegError
        try:
            self._container = av.open(str(video))
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{video} is no video that can be read ({_reason(error)})") from None
        if not self._container.streams.video:
            self._container.close()
            raise UnreadableVideo(f"{video} holds no pictures")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "NONE"  # many are read side by side already
        self._frames: Iterator | None = None
        self._next = 0  # the frame that comes next out of `_frames`

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    @property
    def fps(self) -> float | None:
        return float(self._stream.average_rate) if self._stream.average_rate else None

    def count(self) -> int:
        return len(self._times)

    @property
    def _times(self) -> list[int]:
        """When each frame is shown, rising, in units of the stream's time base."""
        status = self.video.stat()
        return _times(self.video, status.st_size, status.st_mtime_ns)

    def read(self, frame: int) -> np.ndarray:
        try:
            if self._frames is None or not self._next <= frame <= self._next + SEEK_BEYOND:
                self._seek(frame)
            assert self._frames is not None
            for decoded in self._frames:
                place, self._next = self._next, self._next + 1
                if place == frame:
                    return _upright(decoded)
        except self._error as error:
            raise UnreadableVideo(f"{self.video}: frame {frame} cannot be decoded ({_reason(error)})") from None
        number = self.count()
        if frame < number:
            raise UnreadableVideo(f"{self.video}: frame {frame} cannot be decoded; {self._next} of {number} can")
        raise UnreadableVideo(f"{self.video} ends before frame {frame}; it has {number} frames")

    def _seek(self, frame: int) -> None:
        """To the last key frame at or before `frame`, so that decoding on meets it."""
        times = self._times
        if not times:
            raise UnreadableVideo(f"{self.video} holds no frames")
        self._frames = self._decoded(times[min(frame, len(times) - 1)])
        first = next(self._frames, None)
        if first is None or first.pts is None or (place := bisect_left(times, first.pts)) > frame:
            self._frames, self._next = self._decoded(times[0]), 0  # from the start, one by one
        else:
            self._frames, self._next = chain([first], self._frames), place

    def _decoded(self, time: int) -> Iterator[Any]:
        self._container.seek(time, stream=self._stream, backward=True)
        return self._container.decode(self._stream)


@lru_cache(maxsize=64)
def _times(video: Path, _size: int, _changed: int) -> list[int]:
    """By the packets, not the header's number and rate: a video cut short keeps its old header, phones film at a rate
    that varies, and what an edit list cuts away is decoded and not shown."""
    import av

    times: list[int | None] = []
    try:
        with av.open(str(video)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.size and not packet.is_discard:
                    times.append(packet.dts if packet.pts is None else packet.pts)
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{video} breaks off ({_reason(error)})") from None
    known = sorted(time for time in times if time is not None)
    if len(set(known)) < len(times):  # times that tell nothing: each frame is found from the start
        return known[:1] * len(times) or [0] * len(times)
    return known


def _reason(error: Exception) -> str:
    """FFmpeg's words, without its number and the path."""
    return getattr(error, "strerror", None) or str(error)


def _upright(frame: Any) -> np.ndarray:
    """uint8 [H W 3] RGB. Phones film lying down and note how far to turn it."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
