"""A video's frames as one take: steadier poses, a video that is whole or not there, everybody's motion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from humanpose3d.camera import Camera
from humanpose3d.pipeline import Result
from humanpose3d.sidecars import Person, Sidecar
from humanpose3d.skeletons import COCO_17, H36M_17
from humanpose3d.takes import ANNOTATED, Videos
from humanpose3d.video import count_frames, write_video

CAMERA = Camera.create(300.0, (159.5, 119.5))


@pytest.fixture
def source(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "clip.mp4", (np.zeros((48, 64, 3), np.uint8) for _ in range(3)), 10.0)
    return tmp_path / "in"


def result(name: str, places: list[float], frame: int = 0, tremble: float = 0.0) -> Result:
    """People at these pixels from the left, numbered; their order changes from frame to frame."""
    rng = np.random.default_rng(frame)
    order = places if frame % 2 else places[::-1]
    people = [
        Person(np.array([x, 60, x + 40, 180], np.float32), 0.9, np.full((17, 2), x + 20, np.float32), np.ones(17))
        for x in order
    ]
    body = np.random.default_rng(9).normal(0, 0.4, (17, 3))
    body -= body[0]
    joints = np.array([body + (x / 100, 0, 4) for x in order], np.float32).reshape(-1, 17, 3)
    joints += tremble * rng.normal(size=joints.shape).astype(np.float32)
    image = np.full((240, 320, 3), 90, np.uint8)
    tracks = [1 + places.index(x) for x in order]
    return Result(Path(name), image, Sidecar((320, 240), people), CAMERA, "", joints, joints[:, 0], tracks=tracks)


def follow(videos: Videos, frames: int, places=(40.0, 200.0), **changes) -> list[Result]:
    return [
        videos.follow(result(f"clip.mp4/{frame:06d}", [x + 2 * frame for x in places], frame, **changes))
        for frame in range(frames)
    ]


def videos_of(source: Path, target: Path, *, smooth: bool = False, draws: bool = False, bvh: bool = False) -> Videos:
    return Videos(source, target, smooth=smooth, draws=draws, exports_bvh=bvh, skeletons=(COCO_17, H36M_17))


def test_smoothing_steadies_each_by_itself(source, tmp_path):
    with videos_of(source, tmp_path) as videos:
        plain = follow(videos, 40, places=(40.0,), tremble=0.02)
    with videos_of(source, tmp_path, smooth=True) as videos:
        smooth = follow(videos, 40, places=(40.0,), tremble=0.02)

    def jitter(results):
        return np.abs(np.diff([each.joints_cam_m[0] for each in results], n=2, axis=0))[10:].mean()

    assert jitter(smooth) < 0.5 * jitter(plain)
    assert all(np.allclose(each.joints_cam_m[:, 0], each.root_cam_m, atol=1e-5) for each in smooth)


def test_the_annotated_video_is_whole_or_not_there(source, tmp_path):
    for frames in (1, 5):
        with videos_of(source, tmp_path / str(frames), draws=True) as videos:
            follow(videos, frames)
        assert count_frames(tmp_path / str(frames) / "clip.mp4" / ANNOTATED) == frames
    with videos_of(source, tmp_path / "photo", draws=True) as videos:
        photo = result("photo.jpg", [40.0])
        assert videos.follow(photo) is photo
    with pytest.raises(KeyboardInterrupt), videos_of(source, tmp_path / "stopped", draws=True) as videos:
        follow(videos, 3)
        raise KeyboardInterrupt
    assert not list((tmp_path / "stopped" / "clip.mp4").glob("*.mp4"))


def test_each_persons_motion_is_a_file_of_their_own(source, tmp_path):
    with videos_of(source, tmp_path, bvh=True) as videos:
        for frame in (0, 2, 4, 8):  # frame 6 is missing
            videos.follow(result(f"clip.mp4/{frame:06d}", [40.0, 200.0], frame))
    for number in (1, 2):
        text = (tmp_path / "clip.mp4" / f"person_{number}.bvh").read_text()
        assert "Frames: 5\n" in text and "Frame Time: 0.200000" in text
    with pytest.raises(ValueError, match="--export bvh knows the bones of h36m_17, not of coco_17"):
        Videos(source, tmp_path, smooth=False, draws=False, exports_bvh=True, skeletons=(COCO_17, COCO_17))
