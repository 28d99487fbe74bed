"""Images: which ones a folder holds, their pixels upright and in RGB, and reading them ahead. Frames of videos too.

For `preprocess` and `inference`. Pictures inside chunks are `chunks/codec.py`'s.
"""

from __future__ import annotations

import glob
import io
import os
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import simplejpeg
from PIL import Image

from humanpose3d.reports import StageReport
from humanpose3d.video import UnreadableVideo, count_frames, frame_path, is_video, read_frame, split_frame_path

A = TypeVar("A")
B = TypeVar("B")
ORIENTATION = 274  # the EXIF tag; 1 is upright
TURNS = {  # what makes the others upright (EXIF 2.32, 4.6.4)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXIF_IFD, FOCAL_35MM, FOCAL_MM, PIXELS_WIDE = 0x8769, 0xA405, 0x920A, 0xA002
PLANE_RESOLUTION, PLANE_UNIT = 0xA20E, 0xA210
LONGEST_NAME = 220  # bytes, without the ending: file systems allow 255, and results have longer endings
FILM_DIAGONAL_MM = float(np.hypot(36.0, 24.0))
TWIN = "same name as another image but for its ending"
MISNAMED = f"a name that is not UTF-8, or beyond {LONGEST_NAME} bytes; rename it"
# From half the limit on Pillow warns, in two lines with a path of its own; beyond the limit read_image says what to do.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
EXTENSIONS = frozenset(".jpg .jpeg .jpe .png .bmp .webp .tif .tiff .gif .ppm .pgm .jp2".split())


class UnreadableImage(ValueError):
    """A file that should be an image and is not. The message is the reason, without the path."""


def find_images(folder: Path, *, leave_out: Collection[Path] = (), frame_step: int | None = None) -> Iterator[Path]:
    """Paths of all images under a folder, relative to it, sorted folder by folder. Hidden ones are not listed.

    leave_out: folders that are not entered. frame_step: every n-th frame of each video too, from its first on, as
    `video.frame_path`s; a video that cannot be opened gives its first, so that reading it says why.
    FileNotFoundError and NotADirectoryError where there is no such folder.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder} is missing; give the folder that holds the images")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give the folder that holds the images")
    closed = {path.resolve() for path in leave_out}
    for place, folders, files in os.walk(folder, onerror=_raise):
        # Sorted: listings differ between machines, and the order decides which frame goes with which in a batch.
        folders[:] = sorted(name for name in folders if name[0] != "." and (Path(place) / name).resolve() not in closed)
        here = Path(place).relative_to(folder)
        for name in sorted(files):
            if is_image(name):
                yield here / name
            elif name[0] != "." and frame_step is not None and is_video(Path(name)):
                yield from (frame_path(here / name, frame) for frame in frames_of(Path(place) / name, frame_step))


def find_inputs(inputs: Sequence[str], *, leave_out: Collection[Path] = (), frame_step: int = 1) -> list[Path]:
    """All images that folders, files, videos and patterns (with * ? [) name, each once, in the order of the request.

    Absolute paths. leave_out: folders that neither a folder nor a pattern finds anything in. frame_step: every n-th
    frame of each video. FileNotFoundError, ValueError name the request that gives nothing.
    """
    found: dict[Path, None] = {}
    closed = {path.resolve() for path in leave_out}
    for request in inputs:
        path = Path(request)
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(request, recursive=True))]
        if not matches:
            raise FileNotFoundError(
                f"{request} is missing; give a folder, an image, a video or a pattern such as 'a/*.jpg'"
            )
        gives_any = False
        for match in map(absolute, matches):
            if not path.exists() and closed.intersection((match.resolve(), *match.resolve().parents)):
                continue
            for image in _images_of(match, leave_out, frame_step, is_meant=len(matches) == 1):
                found[image], gives_any = None, True
        if not gives_any:
            raise ValueError(f"no images in {request}; it needs image files (jpg, png, ...) or videos")
    return list(found)


def _images_of(match: Path, leave_out: Collection[Path], frame_step: int, *, is_meant: bool) -> Iterator[Path]:
    """is_meant: a file is an image whatever its ending, since somebody named it."""
    if match.is_dir():
        yield from (match / name for name in find_images(match, leave_out=leave_out, frame_step=frame_step))
    elif is_video(match):
        yield from (frame_path(match, frame) for frame in frames_of(match, frame_step))
    elif is_meant or match.suffix.lower() in EXTENSIONS:
        yield match


def absolute(path: Path) -> Path:
    """One place, one path; links keep their names unless a `..` comes after them."""
    return path.resolve() if ".." in path.parts else path.absolute()


def common_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder that all of them lie in."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def is_image(name: str) -> bool:
    """By its ending. A hidden file is none."""
    return name[0] != "." and os.path.splitext(name)[1].lower() in EXTENSIONS


def frames_of(video: Path, step: int) -> range:
    """Every n-th frame of a video; of one that cannot be opened the first, so that reading it says why."""
    try:
        return range(0, max(count_frames(video), 1), step)
    except UnreadableVideo:
        return range(1)


def image_bytes(path: Path) -> int:
    """Size of the file that holds the image: its own, or its video's. -1 where there is none."""
    in_video = split_frame_path(path)
    try:
        return (in_video[0] if in_video else path).stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def read_image(file: Path | bytes) -> np.ndarray:
    """uint8 [H W 3] RGB, turned upright by its EXIF orientation. Any mode Pillow reads: grey, 16-bit, CMYK, RGBA.

    file: where it lies, or what is in it; a frame of a video where the path is one. UnreadableImage, a ValueError, says
    what is wrong with it.
    """
    if isinstance(file, bytes):
        return _decoded(io.BytesIO(file))
    if in_video := split_frame_path(file):
        try:
            return read_frame(*in_video)
        except FileNotFoundError:
            raise UnreadableImage("no such video") from None
        except UnreadableVideo as error:
            raise UnreadableImage(str(error)) from None
    try:
        with file.open("rb") as opened:
            return _decoded(opened)
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except PermissionError:
        raise UnreadableImage("no permission to read it") from None
    except OSError as error:
        raise UnreadableImage(f"damaged image: {error.strerror}") from None


def _decoded(file: BinaryIO) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if (pixels := _plain_jpeg(file, image)) is not None:
                return pixels
            image.load()
            # Not by ImageOps.exif_transpose: it writes the tags anew, which those of a damaged block do not allow.
            turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
            return np.array(_to_rgb(image if turn is None else image.transpose(turn)))
    except (Image.UnidentifiedImageError, ImportError):
        # Once imported, ultralytics has Image.open look for a plug-in that is not there: that is the ImportError.
        raise UnreadableImage("not an image" if file.seek(0, os.SEEK_END) else "empty file") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise UnreadableImage(f"far too many pixels, more than {limit} million; make it smaller") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow's own, of a truncated or damaged file
        raise UnreadableImage(f"damaged image: {next(iter(str(error).splitlines()), type(error).__name__)}") from None


def _plain_jpeg(file: BinaryIO, image: Image.Image) -> np.ndarray | None:
    """The pixels of an upright colour JPEG, Pillow's own in a third of its time; None of others, and of a damaged one,
    of which Pillow says what is wrong."""
    if image.format != "JPEG" or image.mode != "RGB" or image.getexif().get(ORIENTATION, 1) != 1:
        return None
    file.seek(0)
    try:
        return simplejpeg.decode_jpeg(file.read(), "RGB", fastdct=False, fastupsample=False)
    except ValueError:
        file.seek(0)
        return None


def exif_focal_px(path: Path) -> float | None:
    """The focal length in pixels that a picture's EXIF tells; None where it tells none, and of a video's frame.

    By the 35 mm equivalent, whose film's diagonal (43.27 mm) is the picture's (CIPA DCG-001), else by millimetres and
    the sensor's resolution. An upright turn changes neither.
    """
    if split_frame_path(path):
        return None
    try:
        with Image.open(path) as image:
            width, height = image.size
            told = image.getexif().get_ifd(EXIF_IFD)
    except (OSError, ValueError, SyntaxError, ImportError, Image.DecompressionBombError):
        return None  # reading the picture says why
    try:
        if (millimetres := float(told.get(FOCAL_35MM) or 0)) > 0:
            return millimetres / FILM_DIAGONAL_MM * float(np.hypot(width, height))
        resolution, unit = float(told.get(PLANE_RESOLUTION) or 0), told.get(PLANE_UNIT, 2)
        per_mm = resolution / {2: 25.4, 3: 10.0, 4: 1.0}.get(unit, np.inf)
        whole_width = float(told.get(PIXELS_WIDE) or width)  # before somebody made the picture smaller
        focal_px = float(told.get(FOCAL_MM) or 0) * per_mm * max(width, height) / max(whole_width, 1.0)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return focal_px if focal_px > 0 and np.isfinite(focal_px) else None


def plain_jpeg(path: Path) -> bytes | None:
    """The bytes of a JPEG whose pixels need no turning or conversion; None for any other file, or a video's frame."""
    if split_frame_path(path):
        return None
    with Image.open(path) as image:
        plain = image.format == "JPEG" and image.mode in ("RGB", "L") and image.getexif().get(ORIENTATION, 1) == 1
    return path.read_bytes() if plain else None


def ahead(pool: ThreadPoolExecutor, do: Callable[[A], B], items: Iterable[A], number: int) -> Iterator[B]:
    """`do(item)` for each item, in order, worked on by the pool at most `number` items ahead of the reader."""
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(do, item))
        if len(waiting) > number:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def usable(names: Iterable[Path], report: StageReport, *, by_folder: bool = True) -> Iterator[Path]:
    """The names that results can be filed by; the others the report names: TWIN, a.png beside a.jpg, and MISNAMED.

    by_folder: those of a folder follow each other, and only its names are kept in memory.
    """
    stems = defaultdict[Path, set[str]](set)
    for name in names:
        if not _is_utf8(str(name)) or len(name.stem.encode()) > LONGEST_NAME:
            report.skip(str(name).encode(errors="backslashreplace").decode(), MISNAMED)
            continue
        if split_frame_path(name):  # a video's ending is part of its frames' names
            yield name
            continue
        if by_folder and name.parent not in stems:
            stems.clear()
        if name.stem in stems[name.parent]:
            report.skip(str(name), TWIN)
        else:
            stems[name.parent].add(name.stem)
            yield name


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def batches(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """The items in lists of `size`, the last one maybe shorter."""
    batch: list[A] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # 16-bit grey: Pillow's own conversion would clip all above 255 to white.
        eight_bit = (np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)
        return Image.fromarray(eight_bit).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _raise(error: OSError) -> None:
    raise error
