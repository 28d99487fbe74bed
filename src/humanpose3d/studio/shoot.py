"""What every layout of the studio needs to put pictures on a disk: a folder's settings, JPEGs, worker processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from humanpose3d.files import write_whole

JPEG_QUALITY = 95
SETTINGS_FILE = "studio.json"
Job = TypeVar("Job")
Done = TypeVar("Done")


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Notes what the folder is filmed with. ValueError where it was filmed otherwise: two seeds must not mix."""
    path = out / SETTINGS_FILE
    if path.exists():
        found = json.loads(path.read_text())
        if found != settings:
            raise ValueError(
                f"{out} was filmed with {found}, not {settings}; choose another folder or the same settings"
            )
        return
    write_whole(path, json.dumps(settings).encode())


def in_processes(film: Callable[[Job], Done], jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """`film` of each job, as they are finished. It must be a module's function, for more workers than one."""
    if workers <= 1:
        yield from map(film, jobs)
        return
    # Spawned, because a forked child may inherit another library's locked threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for future in as_completed([pool.submit(film, job) for job in jobs]):
            yield future.result()


def _one_thread() -> None:
    cv2.setNumThreads(1)


def encode_jpeg(image: np.ndarray) -> bytes:
    """uint8 [H W 3] RGB -> JPEG."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return data.tobytes()


def even(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames cut to even sides, as video codecs want them."""
    for image in frames:
        yield image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
