"""Frames of videos: the right one whatever the order asked in, and clear words where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.video import (
    UnreadableVideo,
    count_frames,
    frame_path,
    frame_rate,
    read_frame,
    split_frame_path,
    write_video,
)

FRAMES = 150


def numbered_frames(number: int = FRAMES) -> Iterator[np.ndarray]:
    """Each shows its own number: eight stripes, a white one for each bit that is set."""
    for frame in range(number):
        bits = (frame >> np.arange(8)) & 1
        yield np.broadcast_to(np.repeat(255 * bits, 8)[None, :, None], (48, 64, 3)).astype(np.uint8)


def number_in(image: np.ndarray) -> int:
    bits = image.mean((0, 2)).reshape(8, 8).mean(1) > 127
    return int((bits << np.arange(8)).sum())


@pytest.fixture(scope="module", params=["clip.mp4", "mpeg4.avi", "h264.avi", "clip.mkv"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / request.param
    codec = "mpeg4" if path.stem == "mpeg4" else "libx264"
    assert write_video(path, numbered_frames(), 25.0, codec=codec) == FRAMES
    return path


@pytest.mark.parametrize("order", [range(0, FRAMES, 7), (140, 3, 4, 90, 0, 149, 149), range(FRAMES - 1, 100, -9)])
def test_any_frame_can_be_read_in_any_order(clip: Path, order: range | tuple[int, ...]) -> None:
    for frame in order:
        image = read_frame(clip, frame)
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        assert number_in(image) == frame


def test_a_video_tells_its_length_and_rate(clip: Path) -> None:
    assert count_frames(clip) == FRAMES and frame_rate(clip) == pytest.approx(25.0)


def test_a_frame_beyond_the_end_says_how_many_there_are(clip: Path) -> None:
    with pytest.raises(UnreadableVideo, match=f"ends before frame {FRAMES}; it has {FRAMES} frames"):
        read_frame(clip, FRAMES)


def test_what_is_no_video_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video at all")
    with pytest.raises(UnreadableVideo, match="clip.mp4 is no video that can be read"):
        read_frame(tmp_path / "clip.mp4", 0)
    with pytest.raises(FileNotFoundError, match=r"other\.mp4 is missing"):
        count_frames(tmp_path / "other.mp4")


def test_a_video_cut_short_is_counted_by_what_is_left(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", numbered_frames(), 25.0, codec="mpeg4")
    content = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    assert 20 < count_frames(tmp_path / "cut.avi") < FRAMES


def test_a_frames_path_names_video_and_number() -> None:
    video = Path("S1/Videos/Directions 1.54138969.mp4")
    assert frame_path(video, 12) == video / "000012"
    assert split_frame_path(video / "000012") == (video, 12)
    assert split_frame_path(Path("S1/000012.jpg")) is None and split_frame_path(video) is None


def test_a_video_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from numbered_frames(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "clip.mp4", broken(), 25.0)
    assert list(tmp_path.iterdir()) == []
