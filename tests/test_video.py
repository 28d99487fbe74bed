"""Frames of videos: the right one whatever the order asked in, and clear words where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
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


def test_frames_at_uneven_times_are_found_by_their_numbers(tmp_path: Path) -> None:
    clip, rng = tmp_path / "phone.mp4", np.random.default_rng(0)
    _rewrite(clip, times=np.cumsum(rng.integers(1, 5, FRAMES)).tolist())
    assert count_frames(clip) == FRAMES
    for frame in (140, 3, 90, 12, 149, 70):
        assert number_in(read_frame(clip, frame)) == frame


def test_frames_that_an_edit_list_cuts_away_have_no_numbers(tmp_path: Path) -> None:
    """As of a clip cut out as it was encoded: it begins at the key frame before, and hides what is too early."""
    clip = tmp_path / "cut.mp4"
    _rewrite(clip, times=range(-20, FRAMES - 20), options={"avoid_negative_ts": "disabled"})
    assert count_frames(clip) == FRAMES - 20
    assert [number_in(read_frame(clip, frame)) for frame in (100, 0, 129)] == [120, 20, 149]


def test_a_video_filmed_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    clip = tmp_path / "portrait.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255  # above and left: above and right once it is turned clockwise
    write_video(clip, iter([picture] * 3), 25.0)
    content = bytearray(clip.read_bytes())
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30], ">i4").tobytes()
    clip.write_bytes(content)
    image = read_frame(clip, 1)
    assert image.shape == (64, 48, 3)
    assert image[:28, 28:].mean() > 200 and image[:28, :20].mean() < 50 and image[36:].mean() < 50


def test_a_video_is_written_at_the_rate_asked_for(tmp_path: Path) -> None:
    for fps in (30000 / 1001, 0.4):
        write_video(tmp_path / "clip.mp4", numbered_frames(20), fps)
        assert frame_rate(tmp_path / "clip.mp4") == pytest.approx(fps, rel=1e-4)


def _rewrite(path: Path, *, times: Iterable[int], options: dict[str, str] | None = None) -> None:
    """The numbered frames, a key frame every 30, each at its time in 1/25 s."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "30", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image, time in zip(numbered_frames(), times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
