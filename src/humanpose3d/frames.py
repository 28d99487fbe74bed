"""Where frames lie and where their sidecars go: a folder of this machine or one on an rclone remote, with one face.

For `preprocess`. What is in the files is `images`', `video`'s and `sidecars`'; how a remote is asked, and asked again,
`remotes`'.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from humanpose3d.files import PART, make_folder, scratch_folder
from humanpose3d.images import UnreadableImage, ahead, find_images, frames_of, is_image, read_image
from humanpose3d.remotes import LocalStore, RcloneStore, RemoteError, Store
from humanpose3d.sidecars import SidecarFiles, estimators_in, is_complete, sidecar_paths, write_sidecar
from humanpose3d.video import frame_path, is_video, split_frame_path

GIVE_UP_AFTER = 16  # files in a row that a remote did not give, or take, whatever the retries: it is gone
FOLDERS_KNOWN = 64  # of the output on a remote whose listings are kept: those of the batches in hand
ASKED_AT_MOST = 100  # sidecars on a remote that are read to see whose work they are, by each worker
VIDEOS_KEPT = 2  # that a worker fetched for itself and has no batch of: its next one may well be of them
Encoded = Path | bytes  # a frame not yet decoded: where it lies, or what is in its file


class NotWritten(Exception):
    """One frame's sidecar could not be put where it belongs. The message says why."""


class Uncountable(Exception):
    """How many frames there are is known only once a video has been fetched."""


class LocalFrames:
    """The images, and frames of videos, below a folder of this machine."""

    at_once = 0  # threads that wait for files: those that decode them do it

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def names(self, sidecars: Store, frame_step: int, *, count_only: bool = False) -> Iterator[Path]:
        """Relative to the folder and sorted, as `find_images` lists them; where sidecars go nothing is looked for.

        count_only: nothing is going to be read. Uncountable, where that would have to be.
        """
        if sidecars.place == self.store.place:
            return _without_depth_maps(find_images(self.store.folder, frame_step=frame_step))
        closed = [sidecars.folder] if isinstance(sidecars, LocalStore) else []
        return find_images(self.store.folder, leave_out=closed, frame_step=frame_step)

    def fetch(self, name: str) -> Encoded:
        """UnreadableImage: it cannot be had. RemoteError: nor can any other."""
        return self.store.folder / name

    def read(self, frame: Encoded) -> np.ndarray:
        """uint8 [H W 3] RGB. UnreadableImage."""
        return read_image(frame)

    def finish(self, names: Iterable[str]) -> None:
        """Who fetched these frames has read them."""

    def release(self, names: Iterable[str]) -> None:
        """Nobody will ask for these frames any more."""


class RemoteFrames:
    """The images, and frames of videos, in a folder on a remote.

    An image is read into memory. A video is fetched whole to `videos` when the listing comes to it, and removed after
    its last frame: one ahead of those that are being worked on.
    """

    def __init__(self, store: RcloneStore, videos: Path) -> None:
        """videos: a folder that all who work see."""
        self.store, self.videos, self.at_once = store, videos, store.files_at_once
        self._streak = Streak()
        self._unfinished, self._lock = Counter[Path](), threading.Lock()  # frames of each video that is here

    def names(self, sidecars: Store, frame_step: int, *, count_only: bool = False) -> Iterator[Path]:
        files = self._files(self.store, Path(), sidecars.place)
        names = self._counted(files) if count_only else self._opened(files, frame_step)
        return _without_depth_maps(names) if sidecars.place == self.store.place else names

    def _files(self, store: Store, here: Path, closed: str) -> Iterator[tuple[Path, int]]:
        """(path, bytes) of images and videos in the order of `find_images`, folder by folder: one request each."""
        files, folders = store.contents()
        for file in files:
            if is_image(file.name) or (file.name[0] != "." and is_video(Path(file.name))):
                yield here / file.name, file.size
        for name in folders:
            below = store.child(name)
            if name[0] != "." and below.place != closed:
                yield from self._files(below, here / name, closed)

    def _counted(self, files: Iterator[tuple[Path, int]]) -> Iterator[Path]:
        for path, _ in files:
            if is_video(path):
                raise Uncountable
            yield path

    def _opened(self, files: Iterator[tuple[Path, int]], frame_step: int) -> Iterator[Path]:
        with ThreadPoolExecutor(1) as pool:
            for path, frames in ahead(pool, lambda file: (file[0], self._fetch_video(*file, frame_step)), files, 1):
                if frames is None:
                    yield path
                else:
                    yield from (frame_path(path, frame) for frame in frames)

    def _fetch_video(self, path: Path, size: int, frame_step: int) -> range | None:
        """Its frames; None of an image, which is fetched by who decodes it."""
        if not is_video(path):
            return None
        _folder(self.store, path.parent).get(path.name, self.videos / path, size=size)
        frames = frames_of(self.videos / path, frame_step)
        with self._lock:
            self._unfinished[path] += len(frames)
        return frames

    def fetch(self, name: str) -> Encoded:
        path = Path(name)
        if split_frame_path(path):
            return self.videos / path
        with self._asking():
            return _folder(self.store, path.parent).read_bytes(path.name)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """For a file of the remote. UnreadableImage: this one cannot be had. RemoteError: nor can any other."""
        try:
            yield
        except FileNotFoundError:
            raise UnreadableImage("no such file") from None
        except RemoteError as error:
            self._streak.failed(error)
            raise UnreadableImage(str(error)) from None
        self._streak.went_well()

    def read(self, frame: Encoded) -> np.ndarray:
        try:
            return read_image(frame)
        except UnreadableImage as error:  # a video's names the copy
            raise UnreadableImage(str(error).replace(str(self.videos), self.store.location)) from None

    def finish(self, names: Iterable[str]) -> None:
        pass

    def release(self, names: Iterable[str]) -> None:
        for video, frames in _videos_of(names).items():
            with self._lock:
                self._unfinished[video] -= frames
                is_done = self._unfinished[video] == 0
            if is_done:
                (self.videos / video).unlink(missing_ok=True)


class OwnVideos(RemoteFrames):
    """The same for a worker whose machine may not be that of who lists: it fetches the videos of its batches itself."""

    def __init__(self, store: RcloneStore, folder: Path) -> None:
        """folder: on the worker's machine. The videos go into one in there that is this worker's alone."""
        make_folder(folder)
        self._scratch = ExitStack()
        super().__init__(store, self._scratch.enter_context(scratch_folder(folder)))
        self._idle = OrderedDict[Path, None]()  # videos here of which no frame is wanted now, the longest idle first

    def fetch(self, name: str) -> Encoded:
        in_video = split_frame_path(Path(name))
        if in_video:
            video = in_video[0]
            with self._lock:  # one after the other: many frames of a batch want the same
                self._unfinished[video] += 1
                self._idle.pop(video, None)
                if not (self.videos / video).exists():
                    with self._asking():
                        _folder(self.store, video.parent).get(video.name, self.videos / video)
        return super().fetch(name)

    def finish(self, names: Iterable[str]) -> None:
        with self._lock:
            for video, frames in _videos_of(names).items():
                self._unfinished[video] -= frames
                if not self._unfinished[video]:
                    del self._unfinished[video]
                    self._idle[video] = None
            # A worker without work may be at its end, of which it is not told.
            while len(self._idle) > (VIDEOS_KEPT if self._unfinished else 0):
                (self.videos / self._idle.popitem(last=False)[0]).unlink(missing_ok=True)


def _videos_of(names: Iterable[str]) -> Counter[Path]:
    """The videos that these frames are of, and how many of each."""
    return Counter(in_video[0] for name in names if (in_video := split_frame_path(Path(name))))


class LocalSidecars:
    """Sidecars below a folder of this machine."""

    at_once = 0

    def __init__(self, store: LocalStore) -> None:
        self.store = store

    def open(self) -> None:
        """Says, before any work, where nothing can be written: OSError."""
        make_folder(self.store.folder)

    def is_complete(self, name: str, *, depth: bool) -> bool:
        return is_complete(self.store.folder / Path(name).with_suffix(""), depth=depth)

    def estimators(self, name: str) -> dict[str, dict[str, Any]]:
        """Whose work a complete frame is; {} where nobody knows."""
        return estimators_in((self.store.folder / Path(name).with_suffix(".json")).read_bytes())

    def write(self, name: str, files: SidecarFiles) -> None:
        """NotWritten: this one cannot be. OSError: nor can others."""
        stem = self.store.folder / Path(name).with_suffix("")
        make_folder(stem.parent)
        write_sidecar(stem, files)


class RemoteSidecars:
    """Sidecars in a folder on a remote. One listing of a folder says which of its frames are complete."""

    def __init__(self, store: RcloneStore) -> None:
        self.store, self.at_once = store, store.files_at_once
        self._streak, self._asked = Streak(), 0
        self._listed, self._listing = OrderedDict[Path, dict[str, int]](), threading.Lock()

    def open(self) -> None:
        probe = f".{uuid4().hex}{PART}"
        self.store.write_bytes(probe, b"preprocess.py looks whether it may write here")
        self.store.delete(probe)

    def is_complete(self, name: str, *, depth: bool) -> bool:
        """By names and sizes alone: a file on a remote is whole, and the JSON is put there last."""
        stem = Path(name).with_suffix("")
        json_path, png_path = sidecar_paths(stem.parent, stem.name)
        there = self._files_in(stem.parent)
        return all(there.get(path.name) for path in ([json_path, png_path] if depth else [json_path]))

    def estimators(self, name: str) -> dict[str, dict[str, Any]]:
        """Of the first ASKED_AT_MOST that it is asked for: each costs a reading."""
        self._asked += 1
        if self._asked > ASKED_AT_MOST:
            return {}
        path = Path(name).with_suffix(".json")
        try:
            return estimators_in(_folder(self.store, path.parent).read_bytes(path.name))
        except (FileNotFoundError, RemoteError):
            return {}

    def write(self, name: str, files: SidecarFiles) -> None:
        stem = Path(name).with_suffix("")
        json_path, png_path = sidecar_paths(stem.parent, stem.name)
        store, before = _folder(self.store, stem.parent), self._files_in(stem.parent)
        try:
            if json_path.name in before:
                store.delete(json_path.name)  # an older JSON must not vouch for the new PNG
            if files.depth_png is not None:
                store.write_bytes(png_path.name, files.depth_png)
            elif png_path.name in before:
                store.delete(png_path.name)
            store.write_bytes(json_path.name, files.json)
        except RemoteError as error:
            self._streak.failed(error)
            raise NotWritten(str(error)) from None
        self._streak.went_well()

    def _files_in(self, folder: Path) -> dict[str, int]:
        """Name -> bytes, as they were when the folder was first asked for."""
        with self._listing:
            found = self._listed.pop(folder, None)
            if found is None:
                found = {entry.name: entry.size for entry in _folder(self.store, folder).list()}
            self._listed[folder] = found
            while len(self._listed) > FOLDERS_KNOWN:
                self._listed.popitem(last=False)
            return found


class Streak:
    """Single files may fail and are named; when too many do in a row, the error of the last is everybody's."""

    def __init__(self) -> None:
        self._failed = 0

    def went_well(self) -> None:
        self._failed = 0

    def failed(self, error: RemoteError) -> None:
        self._failed += 1
        if self._failed >= GIVE_UP_AFTER:
            raise error


def open_frames(store: Store, videos: Path, *, apart: bool = False) -> LocalFrames | RemoteFrames:
    """videos: where those of a remote lie while they are needed. apart: not all who work see that folder, and who
    opens the frames here is one of them."""
    if isinstance(store, RcloneStore):
        return OwnVideos(store, videos) if apart else RemoteFrames(store, videos)
    assert isinstance(store, LocalStore)
    return LocalFrames(store)


def open_sidecars(store: Store) -> LocalSidecars | RemoteSidecars:
    if isinstance(store, RcloneStore):
        return RemoteSidecars(store)
    assert isinstance(store, LocalStore)
    return LocalSidecars(store)


def _folder(store: Store, folder: Path) -> Store:
    return store if folder == Path() else store.child(folder.as_posix())


def _without_depth_maps(names: Iterator[Path]) -> Iterator[Path]:
    """Where sidecars lie beside the images: our own depth maps are no frames."""
    return (name for name in names if not name.name.endswith("_depth.png"))
