"""Frames of a video on their way to the lifter: numbers that stay with people, and each one's keypoints around."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.camera import Camera
from humanpose3d.pipeline import Picture, Seen
from humanpose3d.sidecars import Person, Sidecar
from humanpose3d.tracks import rate_of, with_tracks
from humanpose3d.video import write_video

CAMERA = Camera.create(300.0, (159.5, 119.5))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name, fps in (("clip.mp4", 10.0), ("fast.mp4", 30.0)):
        write_video(tmp_path / "in" / name, (np.zeros((48, 64, 3), np.uint8) for _ in range(3)), fps)
    return tmp_path / "in"


def seen(name: str, places: Sequence[float], frame: int = 0) -> Seen:
    """People this far from the left; their order changes from frame to frame, and their keypoints tell the frame."""
    order = list(places) if frame % 2 else list(places)[::-1]
    people = [
        Person(
            np.array([x, 60, x + 40, 180], np.float32), 0.9, np.full((17, 2), (x + 20, frame), np.float32), np.ones(17)
        )
        for x in order
    ]
    return Seen(Picture(Path(name), np.zeros((240, 320, 3), np.uint8)), Sidecar((320, 240), people), CAMERA, "")


def film(video: str, frames: Sequence[int]) -> list[Seen]:
    return [seen(f"{video}/{frame:06d}", [40.0 + 2 * frame, 200.0 + 2 * frame], frame) for frame in frames]


def test_numbers_stay_with_people_whatever_their_order(source: Path) -> None:
    frames = [*film("clip.mp4", range(12)), seen("other.mp4/000000", [40.0]), seen("photo.jpg", [40.0])]
    *found, again, photo = with_tracks(frames, source)
    for each in found:
        number_of = dict(zip([person.box_px[0] > 150 for person in each.cues.people], each.tracks, strict=True))
        assert number_of[False] != number_of[True] and set(number_of.values()) == {1, 2}
    first, last = (
        {number: person.box_px[0] for number, person in zip(each.tracks, each.cues.people, strict=True)}
        for each in (found[0], found[-1])
    )
    assert all(last[number] - first[number] == 22.0 for number in (1, 2))
    assert list(again.tracks) == [1] and photo.tracks == () and not photo.keypoint_windows


def windows_of(found: Sequence[Seen]) -> dict[int, dict[int, np.ndarray]]:
    """frame -> track -> [T Jin 3]"""
    return {int(each.picture.name.name): dict(zip(each.tracks, each.keypoint_windows, strict=True)) for each in found}


def test_a_window_holds_the_same_persons_keypoints_around(source: Path) -> None:
    frames = [frame for frame in range(10) if frame != 4]  # one cannot be read
    found = list(with_tracks([*film("clip.mp4", frames), seen("photo.jpg", [40.0])], source, window=5))
    assert [each.picture.name.name for each in found] == [*(f"{frame:06d}" for frame in frames), "photo.jpg"]
    assert all(each.window_fps == 10.0 for each in found[:-1]) and found[-1].window_fps is None
    windows = windows_of(found[:-1])
    for frame, of_tracks in windows.items():
        for window in of_tracks.values():
            assert window.shape == (5, 17, 3) and window.dtype == np.float32
            for place, at in enumerate(range(frame - 2, frame + 3)):
                if at in frames:
                    assert (window[place, :, 1] == at).all() and (window[place, :, 2] == 1).all()
                else:
                    assert np.isnan(window[place, :, :2]).all() and not window[place, :, 2].any()
            apart = window[:, 0, 0] - window[2, 0, 0]
            assert np.nanmax(np.abs(apart)) <= 4.0, "somebody else's"


@pytest.mark.parametrize("frame_step, spacing", [(1, 3), (2, 4), (5, 5)])
def test_frames_of_a_window_are_about_a_tenth_of_a_second_apart(source: Path, frame_step: int, spacing: int) -> None:
    frames = range(0, 40, frame_step)
    found = list(with_tracks(film("fast.mp4", frames), source, window=3, frame_step=frame_step))
    assert found[0].window_fps == 30.0 / spacing and len(found) == len(frames)
    for window in windows_of(found)[20].values():
        assert window[:, 0, 1].tolist() == [20 - spacing, 20, 20 + spacing]


def test_frames_wait_no_longer_than_their_window(source: Path) -> None:
    started = 0

    def frames():
        nonlocal started
        for each in film("clip.mp4", range(20)):
            started += 1
            yield each

    found = with_tracks(frames(), source, window=5)
    next(found)
    assert started == 3


def test_a_video_without_a_rate_has_the_usual_one(tmp_path: Path) -> None:
    assert rate_of(tmp_path / "missing.mp4") == 30.0
