"""The studio in Human3.6M's 3DMPPE layout."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose3d.studio.film import film
from humanpose3d.studio.human36m import image_name, write_human36m

ASKED = {"subjects": ("S1", 9), "actions": (2, 9), "frames_per_take": 2, "cameras": (1, 3), "size": 64}


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studio")
    report = write_human36m(out, **ASKED)
    assert report.counts["images"] == report.inputs == 2 * 2 * 2 * 2 * 2
    assert report.exit_code == 0
    return out


def test_names_are_those_of_the_layout(written: Path) -> None:
    assert image_name("S1", 2, 1, 1, 0) == "s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg"
    assert (written / "images" / image_name("S9", 9, 2, 3, 1)).is_file()
    assert sorted(path.name for path in (written / "annotations").iterdir()) == sorted(
        f"Human36M_subject{number}_{what}.json" for number in (1, 9) for what in ("camera", "data", "joint_3d")
    )


def test_annotations_reproject_onto_the_frames(written: Path) -> None:
    camera, data, joints = (
        json.loads((written / f"annotations/Human36M_subject9_{what}.json").read_text())
        for what in ("camera", "data", "joint_3d")
    )
    assert set(camera) == {"1", "2", "3", "4"} and set(camera["1"]) == {"R", "t", "f", "c"}
    assert len(data["images"]) == len(data["annotations"]) == 2 * 2 * 2 * 2
    for image, person in zip(data["images"], data["annotations"], strict=True):
        assert person["image_id"] == image["id"] and len(person["keypoints_vis"]) == 17
        world_mm = np.array(joints[str(image["action_idx"])][str(image["subaction_idx"])][str(image["frame_idx"])])
        seen_by = camera[str(image["cam_idx"])]
        cam_mm = world_mm @ np.array(seen_by["R"]).T + seen_by["t"]
        pixels = cam_mm[:, :2] / cam_mm[:, 2:] * seen_by["f"] + seen_by["c"]
        frame = film(9, image["action_idx"], image["subaction_idx"], image["cam_idx"], image["frame_idx"], 64)
        np.testing.assert_allclose(pixels, frame.joints_px, atol=1e-3)
        np.testing.assert_allclose(cam_mm / 1000, frame.joints_cam_m, atol=1e-5)
        x, y, width, height = person["bbox"]
        np.testing.assert_allclose([width, height], 1.2 * np.ptp(pixels, axis=0), rtol=1e-6)
        np.testing.assert_allclose([x + width / 2, y + height / 2], (pixels.min(0) + pixels.max(0)) / 2, rtol=1e-6)


def test_images_are_the_filmed_frames(written: Path) -> None:
    stored = cv2.imread(str(written / "images" / image_name(1, 2, 2, 3, 1)))[..., ::-1]
    assert abs(stored.astype(float) - film("S1", 2, 2, 3, 1, 64).image).mean() < 6


def test_the_same_seed_gives_the_same_bytes_after_any_interruption(written: Path, tmp_path: Path) -> None:
    write_human36m(tmp_path, **{**ASKED, "actions": (9,), "frames_per_take": 1})
    report = write_human36m(tmp_path, **ASKED)
    assert report.counts["already there"] == 8
    assert _bytes(tmp_path) == _bytes(written)


def test_two_workers_write_what_one_does(written: Path, tmp_path: Path) -> None:
    write_human36m(tmp_path, **ASKED, workers=2)
    assert _bytes(tmp_path) == _bytes(written)


def test_frames_of_two_seeds_do_not_mix(written: Path) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        write_human36m(written, **ASKED, seed=1)


def test_an_unknown_action_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no action 1; it has 2, 3"):
        write_human36m(tmp_path / "new", actions=(1,))
    assert not (tmp_path / "new").exists()
