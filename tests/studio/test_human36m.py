"""The studio in Human3.6M's 3DMPPE layout."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel, pixel_to_ray
from humanpose3d.studio.film import film
from humanpose3d.studio.human36m import LAYOUTS, image_name, write_human36m
from humanpose3d.studio.human36m_archives import archive_scene, lens_places, through_lens, with_lens
from humanpose3d.video import count_frames, frame_rate, read_frame

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


# ------------------------------------------------------------------------------------- the archives, and the npz

FEW = {"subjects": ("S1", "S5"), "actions": (12,), "frames_per_take": 3, "cameras": (1, 3), "size": 64}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("official")
    report = write_human36m(out, **FEW, layout="official")
    assert report.counts["images"] == report.inputs == 2 * 2 * 2 * 3 and report.exit_code == 0
    return out


def test_the_archives_have_the_corpuss_names(official: Path) -> None:
    names = {"S1": ("TakingPhoto 1", "TakingPhoto"), "S5": ("Photo", "Photo 2")}
    assert sorted(_bytes(official)) == sorted(
        ["studio.json", "metadata.xml"]
        + [f"{who}/MyPoseFeatures/D3_Positions/{name}.cdf" for who in names for name in names[who]]
        + [
            f"{who}/Videos/{name}.{camera}.mp4"
            for who in names for name in names[who] for camera in (54138969, 58860488)
        ]
    )  # fmt: skip


def test_a_cdf_holds_32_joints_in_millimetres_for_each_frame_of_the_video(official: Path) -> None:
    import cdflib

    pose = cdflib.CDF(official / "S5/MyPoseFeatures/D3_Positions/Photo.cdf").varget("Pose")
    assert pose.shape == (1, 3, 96) and pose.dtype == np.float32
    video = official / "S5/Videos/Photo.54138969.mp4"
    assert count_frames(video) == 3 and frame_rate(video) == 50
    pelvis = archive_scene("S5", 12, 1, 64, 0).joints_at(2).h36m[0]
    np.testing.assert_allclose(pose[0, 2, :3], 1000 * pelvis, atol=1e-3)


def test_a_video_shows_the_take_through_the_cameras_lens(official: Path) -> None:
    from humanpose3d.studio.film import film_scene

    scene = archive_scene("S5", 12, 1, 64, 0)
    image = film_scene(scene, 3, 2).image
    stored = read_frame(official / "S5/Videos/Photo.58860488.mp4", 2).astype(float)
    bent = through_lens(image, lens_places(scene.cameras[3], 3, 64))
    assert abs(stored - bent).mean() < min(6, 0.8 * abs(stored - image).mean())


def test_a_lens_moves_what_is_at_a_point_to_where_the_camera_puts_it() -> None:
    camera = archive_scene("S1", 2, 1, 200, 0).cameras[2]
    image = np.zeros((200, 200, 3), np.uint8)
    image[28:33, 168:173] = 255
    rows, columns = np.nonzero(through_lens(image, lens_places(camera, 2, 200))[..., 0] > 127)
    ray = pixel_to_ray(np.array([170.0, 30.0]), camera)
    expected = camera_to_pixel(np.array([*ray, 1.0]), with_lens(camera, 2))
    assert np.linalg.norm(expected - [170, 30]) > 2
    np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=0.5)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_the_other_layouts_too_end_with_the_same_bytes_after_any_interruption(layout: str, tmp_path: Path) -> None:
    write_human36m(tmp_path / "one", **FEW, layout=layout)
    write_human36m(tmp_path / "two", **{**FEW, "cameras": (1,), "subjects": ("S1",)}, layout=layout)
    report = write_human36m(tmp_path / "two", **FEW, layout=layout, workers=2)
    assert report.counts["already there"] == 2 * 3
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")


def test_a_folder_keeps_to_one_layout(official: Path) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        write_human36m(official, **FEW, layout="npz")
    with pytest.raises(ValueError, match="3dmppe, official, npz, not as 'cdf'"):
        write_human36m(official, **FEW, layout="cdf")


def test_the_default_of_the_other_layouts_is_a_few_hundred_images() -> None:
    from humanpose3d.studio.human36m import FEWER_ACTIONS, FEWER_SUBJECTS

    assert len(FEWER_SUBJECTS) * len(FEWER_ACTIONS) * 2 * 4 * 8 <= 512
