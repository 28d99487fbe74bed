"""Sidecars: what is written is what is read; a broken or half-written one is never taken for whole."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose3d.files import write_whole
from humanpose3d.sidecars import (
    Person,
    Sidecar,
    decode_depth_png,
    encode_depth_png,
    is_complete,
    read_sidecar,
    sidecar_paths,
    write_sidecar,
)


def a_sidecar(depth: bool = True, people: int = 2) -> Sidecar:
    rng = np.random.default_rng(3)
    return Sidecar(
        image_size_wh=(64, 48),
        people=[
            Person(
                box_px=rng.uniform(0, 48, 4).astype(np.float32),
                score=0.75,
                keypoints_px=rng.uniform(0, 48, (17, 2)).astype(np.float32),
                keypoint_score=rng.uniform(0, 1, 17).astype(np.float32),
            )
            for _ in range(people)
        ],
        depth_m=np.round(rng.uniform(1, 5, (24, 32)), 3).astype(np.float32) if depth else None,
        focal_px=71.25,
        estimators={"keypoints": {"name": "studio", "version": "1", "sha256": "ab"}},
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = a_sidecar()
    write_sidecar(tmp_path / "Directions 1.54138969_000001", written)
    read = read_sidecar(tmp_path / "Directions 1.54138969_000001")
    assert read.image_size_wh == (64, 48) and read.depth_size == (32, 24) and read.focal_px == 71.25
    assert read.estimators == written.estimators and read.keypoint_skeleton == "coco_17"
    for a, b in zip(written.people, read.people, strict=True):
        np.testing.assert_array_equal(a.keypoints_px, b.keypoints_px)
        np.testing.assert_array_equal(a.keypoint_score, b.keypoint_score)
        np.testing.assert_array_equal(a.box_px, b.box_px)
    assert written.depth_m is not None and read.depth_m is not None
    np.testing.assert_allclose(read.depth_m, written.depth_m, atol=1e-6)
    assert read.depth_min_m == pytest.approx(written.depth_m.min(), abs=1e-4)
    assert read.depth_max_m == pytest.approx(written.depth_m.max(), abs=1e-4)


def test_the_same_cues_give_the_same_bytes_and_leave_no_temporary_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_sidecar(tmp_path / name, a_sidecar())
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a_depth.png").read_bytes() == (tmp_path / "b_depth.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a_depth.png", "b.json", "b_depth.png"]


def test_an_image_without_people_and_depth_is_a_complete_frame(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "empty", a_sidecar(depth=False, people=0))
    assert is_complete(tmp_path / "empty", depth=False) and not is_complete(tmp_path / "empty", depth=True)
    read = read_sidecar(tmp_path / "empty")
    assert read.people == [] and read.depth_m is None and read.depth_size is None


def test_depth_is_stored_in_millimetres_with_unknown_as_zero_and_saturation() -> None:
    depth_m = np.array([[0.0, 1.2344, 65.535, 80.0], [np.nan, np.inf, -1.0, 1.2346]], dtype=np.float32)
    png = encode_depth_png(depth_m)
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 1234, 65535, 65535], [0, 65535, 0, 1235]]
    np.testing.assert_array_equal(decode_depth_png(png), stored.astype(np.float32) / np.float32(1000))


def test_depth_is_not_read_where_it_is_not_asked_for(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "f", a_sidecar())
    sidecar_paths(tmp_path, "f")[1].write_bytes(b"no png")
    assert read_sidecar(tmp_path / "f", depth=False).depth_m is None


def test_a_frame_counts_as_complete_only_with_a_whole_json_and_its_png(tmp_path: Path) -> None:
    stem = tmp_path / "f"
    json_path, png_path = sidecar_paths(tmp_path, "f")
    assert not is_complete(stem, depth=False) and not is_complete(tmp_path / "nowhere" / "f", depth=False)
    write_sidecar(stem, a_sidecar())
    assert is_complete(stem, depth=True) and is_complete(stem, depth=False)
    whole = json_path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 2):
        json_path.write_bytes(whole[:length])
        assert not is_complete(stem, depth=False)
    json_path.write_bytes(whole)
    png_path.unlink()
    assert is_complete(stem, depth=False) and not is_complete(stem, depth=True)


def test_a_kill_between_png_and_json_leaves_an_incomplete_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sidecar(tmp_path / "f", a_sidecar())
    from humanpose3d import sidecars

    def killed_before_the_json(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write_whole(path, content)

    monkeypatch.setattr(sidecars, "write_whole", killed_before_the_json)
    with pytest.raises(KeyboardInterrupt):
        write_sidecar(tmp_path / "f", a_sidecar())
    assert not is_complete(tmp_path / "f", depth=True)


@pytest.mark.parametrize("missing", ["image_size", "people", "focal_px", "keypoint_skeleton", "estimators"])
def test_a_json_without_a_field_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    write_sidecar(tmp_path / "f", a_sidecar())
    path = tmp_path / "f.json"
    data = json.loads(path.read_text())
    del data[missing]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"f.json has no '{missing}'; delete it, or run preprocess.py"):
        read_sidecar(tmp_path / "f")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"image_size": 3}'])
def test_a_broken_json_is_refused_with_the_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(ValueError, match="f.json .*--overwrite"):
        read_sidecar(tmp_path / "f")


def test_keypoints_of_another_count_are_refused(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "f", a_sidecar())
    data = json.loads((tmp_path / "f.json").read_text())
    data["people"][1]["keypoints"].pop()
    (tmp_path / "f.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"'keypoints' has shape \[16, 2\], not \[17, 2\]"):
        read_sidecar(tmp_path / "f")


def test_a_missing_or_broken_depth_map_is_named(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "f", a_sidecar())
    png_path = tmp_path / "f_depth.png"
    whole = png_path.read_bytes()
    png_path.write_bytes(b"")
    with pytest.raises(ValueError, match="f_depth.png is broken"):
        read_sidecar(tmp_path / "f")
    png_path.write_bytes(encode_depth_png(np.ones((5, 5), np.float32)))
    with pytest.raises(ValueError, match="5x5 px, but its JSON says 32x24"):
        read_sidecar(tmp_path / "f")
    png_path.unlink()
    with pytest.raises(FileNotFoundError, match="f_depth.png is missing; run preprocess.py"):
        read_sidecar(tmp_path / "f")
    png_path.write_bytes(whole)
    assert read_sidecar(tmp_path / "f").depth_m is not None


def test_a_missing_sidecar_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="g.json is missing; run preprocess.py"):
        read_sidecar(tmp_path / "g")
