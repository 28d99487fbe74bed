"""Where the pictures of one camera of MPI-INF-3DHP lie: a video, or the frames somebody has extracted from it.

The corpus comes as imageSequence/video_<camera>.avi and tells its users to extract frames; its readme, SPIN, HMR,
HybrIK and others each chose their own folders and names. A folder is looked through for files that end in a number of
three digits or more. Extracted frames are taken before the video they come from: who has them made them in order to
use them.

Numbers: ffmpeg and all tools named here count from 1, so frame 0 of the labels is ..._000001.jpg; PosePile counts
from 0. Where a file with the number 0 lies there, the names count from 0, otherwise from 1.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image

from humanpose3d.video import UnreadableVideo, count_frames, frame_path, read_frame, split_frame_path

# Below the folder given. The test set's archive unpacks into two folders of its name; others are tools' own.
PLACES = (
    "",
    "mpi_inf_3dhp_test_set",
    "mpi_inf_3dhp_test_set/mpi_inf_3dhp_test_set",
    "mpi_inf_3dhp_train_set",
    "mpi_inf_3dhp",
    "train",
    "test",
    "train_data",
    "test_data",
)
# Folders of one camera's frames, below the sequence's, with any names in them.
CAMERA_FOLDERS = (
    "imageFrames/video_{camera}",  # SPIN and what follows it
    "imageSequence/video_{camera}",
    "imageSequence/video_{camera}/frames",
    "video_{camera}",  # HMR, mmhuman3d
    "images/{subject}_{sequence}_V{camera}",  # HybrIK
)
# Folders of all cameras' frames, and how a camera's names begin.
SHARED_FOLDERS = (
    ("imageSequence", "img_{camera}_"),  # the corpus's own readme; PosePile
    ("imageSequence", "video_{camera}_"),
    ("images", "img_{camera}_"),
    ("imageFrames", "img_{camera}_"),
)
VIDEO = "imageSequence/video_{camera}.avi"
VIDEO_SUFFIXES = (".avi", ".mp4")  # the corpus's, and what people turn it into
TEST_FOLDER = "imageSequence"

_NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>\d{3,})(?P<suffix>\.(?:jpe?g|png))", re.IGNORECASE)
_OF_CAMERA = re.compile(r"video_(?P<camera>\d+)(?:\.avi|\.mp4)?")


@dataclass(frozen=True)
class Footage:
    """The pictures of one camera of one sequence."""

    what: str  # for messages: the video, or the folder and how its files' names begin
    path: Callable[[int], Path]  # of a frame, counted from 0; relative to the images folder
    frames: Collection[int] | None  # those that are there; None where nothing is, or nobody looked

    @property
    def end(self) -> int | None:
        """One more than the last frame there is."""
        return None if self.frames is None else max(self.frames, default=-1) + 1


def subject_folder(root: Path, subject: str) -> Path:
    """Where the subject lies, relative to the root; right below it where it lies nowhere."""
    return next((Path(place, subject) for place in PLACES if (root / place / subject).is_dir()), Path(subject))


def train_footage(images_path: Path, subject: str, sequence: str, camera: str) -> Footage:
    """The extracted frames or the video of a training camera. UnreadableVideo."""
    folder = subject_folder(images_path, subject) / sequence
    names = {"subject": subject, "sequence": sequence, "camera": camera}
    for inside in CAMERA_FOLDERS:
        if found := _numbered_files(images_path, folder / inside.format(**names), ""):
            return found
    for inside, head in SHARED_FOLDERS:
        if found := _numbered_files(images_path, folder / inside.format(**names), head.format(**names)):
            return found
    found = video_footage(images_path, subject, sequence, camera)
    path = images_path / found.what
    return replace(found, frames=range(_count(path))) if path.is_file() else found


def video_footage(images_path: Path, subject: str, sequence: str, camera: str) -> Footage:
    """The video of a training camera, whether it is there or not; its frames are not counted."""
    folder = subject_folder(images_path, subject) / sequence
    videos = [(folder / VIDEO.format(camera=camera)).with_suffix(suffix) for suffix in VIDEO_SUFFIXES]
    video = next((video for video in videos if (images_path / video).is_file()), videos[0])
    return Footage(video.as_posix(), lambda frame: frame_path(video, frame), None)


def test_footage(images_path: Path, subject: str) -> Footage:
    """TS1/imageSequence/img_000001.jpg and on."""
    folder = subject_folder(images_path, subject) / TEST_FOLDER
    return _numbered_files(images_path, folder, "img_") or Footage(
        f"{folder.as_posix()}/img_", lambda frame: folder / f"img_{frame + 1:06d}.jpg", None
    )


def pattern_footage(pattern: str, subject: str, sequence: str, camera: str) -> Footage:
    """Wherever a pattern says. ValueError for a pattern that cannot be filled in."""

    def path(frame: int) -> Path:
        try:
            return Path(
                pattern.format(subject=subject, sequence=sequence, camera=camera, frame=frame, number=frame + 1)
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"--image-pattern '{pattern}' cannot be filled in ({error}); its fields are {{subject}}, {{sequence}}, "
                "{camera}, {frame} (from 0) and {number} (from 1), such as {number:06d}"
            ) from None

    path(0)
    return Footage(pattern, path, None)


def picture_size(images_path: Path, footage: Footage) -> tuple[int, int] | None:
    """(W, H) of the first picture; None where there is none that can be read."""
    if not footage.frames:
        return None
    path = images_path / footage.path(min(footage.frames))
    try:
        if in_video := split_frame_path(path):
            height, width, _ = read_frame(*in_video).shape
            return width, height
        with Image.open(path) as image:
            return image.size
    except (UnreadableVideo, OSError, SyntaxError):
        return None


def filmed_cameras(images_path: Path, subject: str, sequence: str) -> set[str]:
    """The numbers of the cameras that have a video or a folder of frames."""
    folder = images_path / subject_folder(images_path, subject) / sequence
    names = [
        name for inside in ("imageSequence", "imageFrames", "") for name in _names(folder / inside) if name[0] != "."
    ]
    return {match["camera"] for match in map(_OF_CAMERA.fullmatch, names) if match}


def _numbered_files(images_path: Path, folder: Path, head: str) -> Footage | None:
    """The files of a folder whose names begin with `head`, then a number; any one beginning where `head` is empty."""
    series = _series(str(images_path / folder), _changed(images_path / folder))
    if not head and series:
        head = max(series, key=lambda name: len(series[name][0]))
    if head not in series:
        return None
    numbers, digits, suffix = series[head]
    first = 0 if 0 in numbers else 1
    return Footage(
        f"{(folder / head).as_posix()}",
        lambda frame: folder / f"{head}{frame + first:0{digits}d}{suffix}",
        frozenset(number - first for number in numbers),
    )


@lru_cache(maxsize=16)  # a folder may hold the frames of all cameras, and a corpus is read twice
def _series(folder: str, changed: int) -> dict[str, tuple[frozenset[int], int, str]]:
    """How names begin -> (the numbers that follow, their digits, what follows them)."""
    numbers: dict[str, set[int]] = defaultdict(set)
    form: dict[str, tuple[int, str]] = {}
    for match in filter(None, map(_NUMBERED.fullmatch, _names(Path(folder)))):
        numbers[match["head"]].add(int(match["number"]))
        form.setdefault(match["head"], (len(match["number"]), match["suffix"]))
    return {head: (frozenset(found), *form[head]) for head, found in numbers.items()}


def _changed(folder: Path) -> int:
    """When files came or went there."""
    return folder.stat().st_mtime_ns if folder.is_dir() else 0


def _names(folder: Path) -> list[str]:
    """Sorted: listings differ between machines."""
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def _count(video: Path) -> int:
    status = video.stat()
    return _count_of(str(video), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=512)  # counting reads the whole video
def _count_of(video: str, size: int, changed: int) -> int:
    return count_frames(Path(video))
