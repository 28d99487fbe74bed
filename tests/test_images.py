"""Images: every mode comes out as upright RGB, what is no image says so, and listings are sorted."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from humanpose3d.images import UnreadableImage, ahead, find_images, image_bytes, read_image, usable
from humanpose3d.reports import StageReport
from humanpose3d.video import write_video


def gradient(width: int = 8, height: int = 6) -> np.ndarray:
    return np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)


def test_a_photograph_is_turned_upright_by_its_exif(tmp_path: Path) -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40, 0] = 255  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.shape == (80, 40, 3)
    assert upright[:30, :, 0].min() > 200 and upright[50:, :, 0].max() < 60


def test_a_damaged_exif_turns_the_picture_and_stops_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0128] = 6, 2
    Image.fromarray(gradient()).convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content.replace(b"\x01\x28\x00\x03", b"\x01\x28\x00\x0b"))  # a float
    with Image.open(tmp_path / "a.jpg") as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    assert read_image(tmp_path / "a.jpg").shape == (8, 6, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_turn_of_the_exif_is_pillows_own(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_plain_jpegs_have_the_pixels_that_pillow_gives_them(
    tmp_path: Path, subsampling: int, progressive: bool
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8).repeat(9, 0).repeat(9, 1)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, quality=80, subsampling=subsampling, progressive=progressive)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path), np.asarray(image))


def test_a_truncated_jpeg_is_damaged_however_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UnreadableImage, match="damaged"):
        read_image(path)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "RGB"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(gradient())
    if mode == "I;16":
        image = Image.fromarray(gradient().astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA", "P"):
        image = grey.convert(mode)
    else:
        image = grey.convert("RGB").convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    pixels = read_image(path)
    assert pixels.shape == (6, 8, 3) and pixels.dtype == np.uint8 and pixels.flags.writeable
    if mode != "1":
        assert np.abs(pixels[..., 1].astype(int) - gradient()).max() <= 12


def test_what_shines_through_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png") == 255).all()


def test_what_is_no_image_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:1500])
    Image.fromarray(gradient()).save(tmp_path / "whole.png")
    damaged = bytearray((tmp_path / "whole.png").read_bytes())
    damaged[45:60] = bytes(15)
    (tmp_path / "damaged.png").write_bytes(damaged)
    reasons = {"text.jpg": "not an image", "empty.jpg": "empty file", "half.jpg": "damaged", "damaged.png": "damaged"}
    for name, reason in (reasons | {"gone.jpg": "no such file"}).items():
        with pytest.raises(UnreadableImage, match=reason):
            read_image(tmp_path / name)


def test_a_decompression_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (300, 300)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match="far too many pixels"):
        read_image(tmp_path / "bomb.png")


def test_images_are_listed_sorted_without_hidden_and_closed_folders(tmp_path: Path) -> None:
    for name in (
        "b/2.jpg",
        "b/10.PNG",
        "a/x.webp",
        "a/notes.txt",
        ".git/y.jpg",
        "a/.hidden.jpg",
        "out/z.jpg",
        "top.bmp",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [str(name) for name in find_images(tmp_path, leave_out=[tmp_path / "out"])]
    assert found == ["top.bmp", "a/x.webp", "b/10.PNG", "b/2.jpg"]


def test_a_missing_folder_and_a_file_in_its_place_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        list(find_images(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is not a folder"):
        list(find_images(tmp_path / "file"))


def test_images_that_would_share_a_result_are_named() -> None:
    report = StageReport("test")
    names = [Path(name) for name in ("a/1.jpg", "a/1.mp4/000000", "a/1.png", "a/2.png", "b/1.jpg")]
    assert list(usable(names, report)) == [name for name in names if name.name != "1.png"]
    assert report.skipped == {"same name as another image but for its ending": ["a/1.png"]}
    mixed = [Path(name) for name in ("a/1.jpg", "b/1.jpg", "a/1.png")]
    assert list(usable(mixed, report, by_folder=False)) == mixed[:2]


def test_names_that_no_result_can_be_filed_by_are_named() -> None:
    report = StageReport("test")
    names = [Path(os.fsdecode(name)) for name in (b"caf\xe9.jpg", b"x" * 221 + b".jpg", "café.jpg".encode())]
    assert list(usable(names, report)) == names[2:]
    ((reason, named),) = report.skipped.items()
    assert "not UTF-8" in reason and named == ["caf\\udce9.jpg", "x" * 221 + ".jpg"]


def test_reading_ahead_keeps_the_order_and_its_distance() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return -item

    with ThreadPoolExecutor(3) as pool:
        results = ahead(pool, work, range(50), 5)
        assert next(results) == 0
        assert max(started, default=0) <= 6
        assert list(results) == [-item for item in range(1, 50)]


def test_a_videos_frame_is_read_like_an_image(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", (np.full((32, 32, 3), 40 * n, np.uint8) for n in range(5)), 25.0)
    (tmp_path / "a.png").write_bytes(b"x")
    assert [str(path) for path in find_images(tmp_path, frame_step=2)] == [
        "a.png", "clip.mp4/000000", "clip.mp4/000002", "clip.mp4/000004",
    ]  # fmt: skip
    assert [str(path) for path in find_images(tmp_path)] == ["a.png"]
    assert abs(float(read_image(tmp_path / "clip.mp4/000002").mean()) - 80) < 4
    assert image_bytes(tmp_path / "clip.mp4/000002") == (tmp_path / "clip.mp4").stat().st_size
    with pytest.raises(UnreadableImage, match="ends before frame 9; it has 5 frames"):
        read_image(tmp_path / "clip.mp4/000009")
    with pytest.raises(UnreadableImage, match="no such video"):
        read_image(tmp_path / "none.mp4/000009")
    assert image_bytes(tmp_path / "none.mp4/000009") == image_bytes(tmp_path / "b.png") == -1
