"""A webcam's pictures as a video file: filmed for a while, then looked at like any other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.video import write_video

KIND = "webcam:"  # --input webcam:0
SETTLING_S = 1.0  # not kept: the camera finds its exposure, and how fast it is shows


def webcam_number(request: str) -> int | None:
    """0 of `webcam:0`, and of `0` where no file is called so; None of anything else. ValueError: `webcam:x`."""
    number = request.removeprefix(KIND)
    if number.isdecimal() and (request != number or not Path(request).exists()):
        return int(number)
    if request.startswith(KIND):
        raise ValueError(f"{request} names no webcam; give {KIND}0 for the first one, {KIND}1 for the second")
    return None


def film_webcam(number: int, path: Path, seconds: float) -> None:
    """Film for so long. FileNotFoundError: no such webcam. The file is whole or not there."""
    camera = _open(number)
    try:
        fps = _settled(camera, number)
        write_video(path, _frames(camera, number, round(seconds * fps)), fps)
    finally:
        camera.release()


def _open(number: int) -> Any:
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it tells of every way that it tried
    try:
        camera = cv2.VideoCapture(number)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not camera.isOpened():
        raise FileNotFoundError(
            f"no webcam {number} can be opened; is it plugged in, and does no other program use it?"
        )
    return camera


def _settled(camera: Any, number: int) -> float:
    """Its pictures a second, as they come."""
    started, count = time.monotonic(), 0
    while (passed_s := time.monotonic() - started) < SETTLING_S or count < 2:
        _read(camera, number)
        count += 1
    return min(max(count / passed_s, 1.0), 60.0)


def _frames(camera: Any, number: int, count: int) -> Iterator[np.ndarray]:
    for _ in range(max(count, 1)):
        image = _read(camera, number)
        height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2  # as H.264 wants it
        yield np.ascontiguousarray(image[:height, :width, ::-1])


def _read(camera: Any, number: int) -> np.ndarray:
    found, image = camera.read()
    if not found:
        raise OSError(f"webcam {number} gives no pictures; is it used by another program?")
    return image
