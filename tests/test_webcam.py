"""A webcam as a video: what names one, that a file of its pictures is made, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose3d import webcam
from humanpose3d.video import count_frames, read_frame, write_video
from humanpose3d.webcam import film_webcam, webcam_number


def test_a_number_is_a_webcam_unless_a_file_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert webcam_number("webcam:1") == 1 and webcam_number("0") == 0
    assert webcam_number("photos") is None and webcam_number("clip.mp4") is None
    (tmp_path / "0").mkdir()
    assert webcam_number("0") is None and webcam_number("webcam:0") == 0
    with pytest.raises(ValueError, match="webcam:front names no webcam; give webcam:0 for the first one"):
        webcam_number("webcam:front")


def test_no_webcam_is_one_clear_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="no webcam 63 can be opened; is it plugged in"):
        film_webcam(63, tmp_path / "film.mp4", 1.0)
    assert capfd.readouterr().err == "" and not list(tmp_path.iterdir())


def test_its_pictures_become_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video in the camera's place, through the same class of OpenCV's."""
    write_video(tmp_path / "seen.mp4", (np.full((48, 64, 3), (200, 60, 20), np.uint8) for _ in range(200)), 30.0)
    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture(str(tmp_path / "seen.mp4")))
    monkeypatch.setattr(webcam, "SETTLING_S", 0.0)
    monkeypatch.setattr(webcam, "_settled", lambda camera, number: 10.0)
    film_webcam(0, tmp_path / "film.mp4", 2.0)
    assert count_frames(tmp_path / "film.mp4") == 20
    assert np.abs(read_frame(tmp_path / "film.mp4", 5).mean((0, 1)) - (200, 60, 20)).max() < 12
    with pytest.raises(OSError, match="webcam 0 gives no pictures"):
        film_webcam(0, tmp_path / "long.mp4", 100.0)
    assert not (tmp_path / "long.mp4").exists()
