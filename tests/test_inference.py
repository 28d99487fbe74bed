"""Inference on folders: documented files with the documented numbers, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from humanpose3d import Pipeline, inference, takes
from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.dataset.keypoint_batches import KeypointDecoder
from humanpose3d.files import sole_writer
from humanpose3d.images import TWIN, UnreadableImage, exif_focal_px, read_image
from humanpose3d.inference import GATHERED, infer
from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.models.checkpoint import PACKAGED, load_model, save_model
from humanpose3d.reports import StageReport
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import H36M_17
from humanpose3d.sources import mocap
from humanpose3d.studio.mocap import write_mocap
from humanpose3d.video import count_frames, write_video
from tests.browser import part

PICTURES = ("original.jpg", "2d_overlay.jpg", "depth.png", "3d_pose.png", "combined_viz.png")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = model_config("cnn", "tiny")
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    save_model(path, build_model(config), config)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for name, (width, height) in {"a.jpg": (64, 48), "sub/b.png": (40, 90)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def request_(photos: Path, tmp_path: Path, checkpoint: Path, tiny_pose_model: str, tiny_depth_model: str) -> dict:
    return {
        "checkpoint_path": checkpoint,
        "input_folder": photos,
        "output_folder": tmp_path / "out",
        "yolo_model_path": tiny_pose_model,
        "depth_model_path": tiny_depth_model,
        "device": "cpu",
    }


def result_of(folder: Path, stem: str) -> tuple[np.ndarray, dict[str, Any]]:
    return np.load(folder / f"{stem}_pred_joints3d.npy"), json.loads((folder / f"{stem}.json").read_text())


def test_without_a_checkpoint_the_packages_own_lifter_answers(request_: dict) -> None:
    del request_["checkpoint_path"]
    report = infer(**request_ | {"no_depth": True})
    _, written = result_of(request_["output_folder"], "a")
    assert report.facts["model"]["checkpoint"] == "lifter" and len(written["model"]["sha256"]) == 64
    assert written["model"]["joint_definitions"] == "human36m"


@pytest.mark.parametrize("name", PACKAGED)
def test_the_packages_own_lifters_know_people_they_never_saw(name: str, tmp_path: Path) -> None:
    write_mocap(tmp_path, subjects=["S950"], frames_per_take=6)
    frames = list(mocap.read_frames(Path(), tmp_path, ("S950",), cameras=3, told=StageReport("test")))
    samples = [
        PoseSample(
            key=frame.key, image_size_wh=frame.image_size_wh, camera=frame.camera, keypoint_skeleton="coco_17",
            keypoints_px=frame.keypoint_track.points[frame.track_row, :, :2],
            keypoint_score=frame.keypoint_track.points[frame.track_row, :, 2],
        )
        for frame in frames
    ]  # fmt: skip
    model, batch = load_model(name).model, KeypointDecoder("h36m_17", "coco_17")(samples)
    with torch.inference_mode():
        prediction = model(batch)
    truth_m = np.stack([frame.joints_cam_m for frame in frames])
    error_m = np.linalg.norm(prediction.joints_rel_m.numpy() - (truth_m - truth_m[:, :1]), axis=-1)
    assert error_m.mean() < 0.07
    told_m = prediction.log_error_m.exp().numpy()
    assert 0.3 < told_m.mean() / error_m.mean() < 3.0
    assert np.corrcoef(told_m.mean(1), error_m.mean(1))[0, 1] > 0.2, "it does not know where it errs"
    root_error_m = np.linalg.norm(prediction.root_cam_m.numpy() - truth_m[:, 0], axis=-1)
    assert np.median(root_error_m / truth_m[:, 0, 2]) < 0.12
    for spread_m in (0.01, 0.03, 0.1, 0.3):  # a true depth helps, however rough its map is around the joints
        depth_m = np.stack(np.broadcast_arrays(truth_m[:, :1, 2] - 0.07, np.full((1, 17), spread_m)), axis=-1)
        known = torch.ones(depth_m.shape[:2], dtype=torch.bool)
        with torch.inference_mode():
            helped = model(replace(batch, keypoint_depth_m=torch.tensor(depth_m).float(), keypoint_depth_mask=known))
        helped_m = np.linalg.norm(helped.root_cam_m.numpy() - truth_m[:, 0], axis=-1)
        assert helped_m.mean() < root_error_m.mean(), spread_m


def test_every_person_of_every_image_comes_out_in_metres(request_: dict) -> None:
    report = infer(**request_)
    assert report.exit_code == 0 and report.counts["images"] == 2
    for stem, size in (("a", [64, 48]), ("sub/b", [40, 90])):
        joints, data = result_of(request_["output_folder"], stem)
        assert joints.dtype == np.float32 and joints.shape == (len(data["people"]), 17, 3) and len(joints) > 0
        assert data["image_size"] == size and data["joints"] == list(H36M_17.joints)
        assert data["depth_used"] and data["camera"]["source"] == "focal length estimated by the depth network"
        camera = Camera.create(data["camera"]["focal_px"], data["camera"]["center_px"])
        for person, joints_cam_m in zip(data["people"], joints, strict=True):
            np.testing.assert_allclose(person["joints_cam_m"], joints_cam_m, rtol=1e-6)
            np.testing.assert_allclose(joints_cam_m[H36M_17.root_index], person["root_cam_m"], atol=1e-5)
            projected = camera_to_pixel(joints_cam_m, camera)
            in_front = joints_cam_m[:, 2] > 0
            np.testing.assert_allclose(np.array(person["joints_px"], float)[in_front], projected[in_front], rtol=1e-3)
            assert len(person["confidences"]) == 17 and len(person["box"]) == 4
        assert data["model"]["model_type"] == "cnn" and len(data["model"]["sha256"]) == 64
    assert sum(len(result_of(request_["output_folder"], s)[0]) for s in ("a", "sub/b")) == report.counts["people"]
    assert json.loads((request_["output_folder"] / "infer_report.json").read_text())["counts"]["images"] == 2


@pytest.mark.parametrize("window", [1, 27])
def test_a_lifter_answers_from_keypoints_with_depth_and_without(request_: dict, tmp_path: Path, window: int) -> None:
    config = model_config("lifter", "tiny", window=window)
    save_model(tmp_path / "lifter.pth", build_model(config), config)
    found = {}
    for no_depth in (False, True):
        out = tmp_path / str(no_depth)
        lifter = {"checkpoint_path": tmp_path / "lifter.pth", "no_depth": no_depth, "output_folder": out}
        infer(**request_ | lifter, visualize=True)
        joints, data = result_of(out, "a")
        found[no_depth] = joints
        assert np.isfinite(joints).all() and data["depth_used"] is not no_depth
        assert (out / "a_combined_viz.png").is_file()
    assert found[True].shape == found[False].shape and not np.allclose(found[True], found[False])


def test_a_window_lifter_sees_the_frames_around_in_a_video_alone(request_: dict, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    noise = cv2.resize(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), (96, 64))
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "clip.mp4", (np.roll(noise, 2 * n, axis=1) for n in range(6)), 10.0)
    Image.fromarray(read_image(tmp_path / "in" / "clip.mp4" / "000003")).save(tmp_path / "in" / "alone.png")
    request = {**request_, "input_folder": None, "checkpoint_path": "lifter_window27", "no_depth": True}
    report = infer(**request, input=[str(tmp_path / "in")])
    assert report.counts["images"] == 7
    alone, facts = result_of(request["output_folder"], "alone")
    amid, facts_amid = result_of(request["output_folder"], "clip.mp4/000003")
    assert facts["people"][0]["keypoints"] == facts_amid["people"][0]["keypoints"]
    assert np.abs(alone[0] - amid[0]).max() > 1e-3 and np.isfinite(amid).all()


def test_hands_are_found_beside_the_people(request_: dict, tmp_path: Path, blind_pose_model: str) -> None:
    config = model_config("hourglass", "tiny", input_size=64, channels=8, depths=(2,), skeleton="hand_21")
    save_model(tmp_path / "hand.pth", build_model(config), config)
    report = infer(**{**request_, "yolo_model_path": blind_pose_model}, hands=tmp_path / "hand.pth", visualize=True)
    _, facts = result_of(request_["output_folder"], "a")
    assert report.counts["hands"] == 2  # one in each picture without people
    [hand] = facts["hands"]
    assert hand["side"] == "right" and np.array(hand["keypoints"]).shape == (21, 2) and len(hand["confidences"]) == 21
    with pytest.raises(ValueError, match="--hands takes an hourglass trained on hand_21"):
        body = model_config("hourglass", "tiny", input_size=64, channels=8, depths=(2,), skeleton="mpii_16")
        save_model(tmp_path / "body.pth", build_model(body), body)
        infer(**request_, hands=tmp_path / "body.pth")


def test_an_hourglass_in_the_lifters_place_is_told_where_it_belongs(request_: dict, tmp_path: Path) -> None:
    config = model_config("hourglass", "tiny", input_size=64, channels=8, depths=(2,), skeleton="mpii_16")
    save_model(tmp_path / "body.pth", build_model(config), config)
    with pytest.raises(ValueError, match=r"is an hourglass, .* give it as --keypoints hourglass:"):
        infer(**{**request_, "checkpoint_path": tmp_path / "body.pth"})


def test_a_model_of_other_keypoints_is_not_fed_the_hourglasss(request_: dict, tmp_path: Path) -> None:
    body = model_config("hourglass", "tiny", input_size=64, channels=8, depths=(2,), skeleton="mpii_16")
    save_model(tmp_path / "body.pth", build_model(body), body)
    with pytest.raises(ValueError, match="reads keypoints in coco_17, and those found are in mpii_16"):
        infer(**request_, keypoints=f"hourglass:{tmp_path / 'body.pth'}")
    config = model_config("lifter", "tiny", keypoint_skeleton="mpii_16")
    save_model(tmp_path / "lifter.pth", build_model(config), config)
    request = {
        **request_,
        "checkpoint_path": tmp_path / "lifter.pth",
        "keypoints": f"hourglass:{tmp_path / 'body.pth'}",
    }
    assert infer(**request, visualize=True).counts["people"] > 0
    assert result_of(request_["output_folder"], "a")[1]["keypoint_skeleton"] == "mpii_16"
    heat, overlay = (read_image(request_["output_folder"] / f"a_{name}") for name in ("heatmaps.png", "2d_overlay.jpg"))
    assert heat.shape == overlay.shape


def test_the_flip_test_finds_the_same_people_a_little_elsewhere(request_: dict) -> None:
    infer(**request_)
    plain = result_of(request_["output_folder"], "a")[1]["people"]
    report = infer(**request_, flip_test=True)
    flipped = result_of(request_["output_folder"], "a")[1]["people"]
    assert report.counts["complete_before"] == 0 and len(flipped) == len(plain) > 0
    assert all(one["box"] == other["box"] for one, other in zip(plain, flipped, strict=True))
    assert any(one["keypoints"] != other["keypoints"] for one, other in zip(plain, flipped, strict=True))


def test_everything_is_gathered_in_one_file(request_: dict) -> None:
    infer(**request_)
    joints, facts = result_of(request_["output_folder"], "a")
    for _ in range(2):  # and again where nothing is left to do
        with np.load(request_["output_folder"] / "predictions.npz") as gathered:
            mine = gathered["image"] == "a.jpg"
            assert set(gathered["image"]) == {"a.jpg", "sub/b.png"} and gathered["joints"].tolist() == facts["joints"]
            np.testing.assert_allclose(gathered["joints_cam_m"][mine], joints, rtol=1e-5)
            assert gathered["person"][mine].tolist() == list(range(len(joints))) and (gathered["track"] == -1).all()
        infer(**request_)


def test_batches_do_not_change_the_result(request_: dict, tmp_path: Path) -> None:
    for size in (1, 2):
        infer(**request_ | {"batch_size": size, "output_folder": tmp_path / str(size), "no_depth": True})
    for stem in ("a", "sub/b"):
        one, two = (result_of(tmp_path / str(size), stem)[0] for size in (1, 2))
        np.testing.assert_allclose(one, two, atol=2e-3)


def test_without_the_depth_network_the_camera_is_assumed_and_it_says_so(request_: dict) -> None:
    infer(**request_ | {"no_depth": True, "depth_model_path": "/not/there", "fov_deg": 90.0})
    joints, data = result_of(request_["output_folder"], "a")
    assert data["camera"]["source"] == "given field of view of 90 degrees"
    assert data["camera"]["focal_px"] == pytest.approx(32.0) and data["camera"]["center_px"] == [31.5, 23.5]
    assert not data["depth_used"] and "depth" not in data["estimators"] and np.isfinite(joints).all()


def test_legacy_npy_is_the_first_person_in_millimetres_about_the_root(request_: dict, tmp_path: Path) -> None:
    infer(**request_)
    infer(**request_ | {"legacy_npy": True, "output_folder": tmp_path / "legacy"})
    joints, data = result_of(request_["output_folder"], "a")
    legacy, _ = result_of(tmp_path / "legacy", "a")
    assert legacy.shape == (17, 3) and legacy.dtype == np.float32
    np.testing.assert_allclose(legacy, 1000 * (joints[0] - data["people"][0]["root_cam_m"]), atol=0.01)


def test_an_image_without_people_is_an_empty_but_whole_result(request_: dict, blind_pose_model: str) -> None:
    report = infer(**request_ | {"yolo_model_path": blind_pose_model, "visualize": True})
    joints, data = result_of(request_["output_folder"], "a")
    assert joints.shape == (0, 17, 3) and joints.dtype == np.float32 and data["people"] == []
    assert report.exit_code == 0 and report.counts["images_without_people"] == 2
    assert all((request_["output_folder"] / f"a_{ending}").is_file() for ending in PICTURES)
    infer(**request_ | {"yolo_model_path": blind_pose_model, "legacy_npy": True})
    assert np.isnan(result_of(request_["output_folder"], "a")[0]).all()


def test_pictures_are_written_only_where_asked_for(request_: dict) -> None:
    infer(**request_)
    assert {path.name for path in request_["output_folder"].iterdir() if path.is_file()} == {
        "a.json",
        "a_pred_joints3d.npy",
        "infer_report.json",
        "predictions.npz",
    }
    infer(**request_ | {"visualize": True})
    for stem in ("a", "sub/b"):
        for ending in PICTURES:
            with Image.open(request_["output_folder"] / f"{stem}_{ending}") as picture:
                assert np.asarray(picture).std() > 5, "something is drawn"
    with Image.open(request_["output_folder"] / "a_original.jpg") as picture:
        assert picture.size == (64, 48)


def test_the_viewer_is_one_file_of_everything_found(request_: dict) -> None:
    report = infer(**request_, viewer=True)
    page = (request_["output_folder"] / "viewer.html").read_text()
    assert report.facts["viewer"].endswith("viewer.html")
    assert "person 1, left wrist" in part(page, "first")["data"][0]["text"]
    assert [step["label"] for step in part(page, "rest")["layout"]["sliders"][0]["steps"]] == ["a.jpg", "sub/b.png"]


def test_a_bad_image_is_named_and_the_others_come_out(request_: dict) -> None:
    (request_["input_folder"] / "aa.jpg").write_text("no picture")
    report = infer(**request_)
    assert report.counts["images"] == 2 and report.exit_code == 1
    assert report.skipped == {"unreadable image": ["aa.jpg (not an image)"]}


def test_a_contradicting_model_type_is_refused(request_: dict) -> None:
    infer(**request_ | {"model_type": "cnn", "no_depth": True})
    with pytest.raises(ValueError, match="tiny.pth holds a cnn, not a transformer"):
        infer(**request_ | {"model_type": "transformer"})


def test_a_checkpoint_that_is_not_ours_is_refused(request_: dict, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match="foreign.pth"):
        infer(**request_ | {"checkpoint_path": tmp_path / "foreign.pth"})
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        infer(**request_ | {"checkpoint_path": tmp_path / "gone.pth"})


def test_bad_folders_are_one_clear_line(request_: dict, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is missing"):
        infer(**request_ | {"input_folder": tmp_path / "nowhere"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in .*empty"):
        infer(**request_ | {"input_folder": tmp_path / "empty"})
    with pytest.raises(ValueError, match="is the input folder too"):
        infer(**request_ | {"output_folder": request_["input_folder"]})


def test_bad_inputs_are_named_with_their_reasons(request_: dict, photos: Path, tmp_path: Path) -> None:
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "cut.jpg").write_bytes((photos / "a.jpg").read_bytes()[:700])
    (photos / "noise.mp4").write_bytes(bytes(100))
    Image.new("L", (13500, 13500)).save(photos / "bomb.png")
    with av.open(str(photos / "none.avi"), "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        video.start_encoding()
    report = infer(**{**request_, "input_folder": None}, input=[str(photos)])
    named = " ".join(report.skipped["unreadable image"])
    assert report.counts["images"] == 2 and report.exit_code == 1 and report.inputs == 7
    for words in (
        "empty.jpg (empty file)",
        "cut.jpg (damaged image",
        "bomb.png (far too many pixels, more than 178 mi",
    ):
        assert words in named
    assert "noise.mp4 is no video that can be read (Invalid data" in named and "none.avi holds no frames" in named


def test_a_panorama_goes_through_with_all_pictures(request_: dict, tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    Image.new("RGB", (20000, 300), (90, 120, 90)).save(tmp_path / "wide" / "a.jpg")
    infer(**{**request_, "input_folder": tmp_path / "wide"}, visualize=True, viewer=True)
    with Image.open(request_["output_folder"] / "a_combined_viz.png") as panel:
        assert max(panel.size) < 1300
    assert result_of(request_["output_folder"], "a")[1]["image_size"] == [20000, 300]


def test_two_runs_into_one_folder_do_not_mix(request_: dict) -> None:
    infer(**request_)
    with sole_writer(request_["output_folder"]), pytest.raises(OSError, match="another run is writing to .*out"):
        infer(**request_, overwrite=True)
    assert infer(**request_).counts["complete_before"] == 2


def test_results_below_the_input_are_not_taken_for_images(request_: dict) -> None:
    inside = request_ | {"output_folder": request_["input_folder"] / "results", "visualize": True, "no_depth": True}
    infer(**inside)
    assert infer(**inside).inputs == 2


def test_real_photographs_go_through_from_end_to_end(request_: dict, samples: Path) -> None:
    import ultralytics

    weights = samples / "weights" / "yolov8n-pose.pt"
    assets = Path(ultralytics.__file__).parent / "assets"
    infer(**request_ | {"input_folder": assets, "yolo_model_path": str(weights), "visualize": True})
    assert result_of(request_["output_folder"], "bus")[0].shape == (4, 17, 3)
    assert result_of(request_["output_folder"], "zidane")[0].shape == (2, 17, 3)


def test_the_labelled_person_of_each_real_frame_is_found(request_: dict, samples: Path) -> None:
    frames = samples / "human36m" / "images"
    infer(
        **request_ | {"input_folder": frames, "yolo_model_path": str(samples / "weights" / "yolov8n-pose.pt")},
        no_depth=True,
    )
    labelled = 0
    for labels in sorted((samples / "human36m" / "annotations").glob("*_data.json")):
        told = json.loads(labels.read_text())
        for image, label in zip(told["images"], told["annotations"], strict=True):
            _, facts = result_of(request_["output_folder"], image["file_name"].removesuffix(".jpg"))
            x, y, width, height = label["bbox"]
            overlaps = [overlap(person["box"], [x, y, x + width, y + height]) for person in facts["people"]]
            assert max(overlaps) > 0.5, image["file_name"]
            labelled += 1
    assert labelled == 4


def overlap(first: list[float], second: list[float]) -> float:
    """Intersection over union of two boxes, xyxy."""
    a, b = np.array(first), np.array(second)
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def test_one_picture_in_three_lines_gives_what_the_command_gives(request_: dict, photos: Path) -> None:
    infer(**request_)
    joints, facts = result_of(request_["output_folder"], "a")
    pipeline = Pipeline(
        request_["checkpoint_path"], yolo_model=request_["yolo_model_path"], depth_model=request_["depth_model_path"],
        device="cpu",
    )  # fmt: skip
    for people in (pipeline.predict(photos / "a.jpg"), pipeline.predict(read_image(photos / "a.jpg"))):
        assert len(people) == len(joints) > 0 and people[0].joints == H36M_17.joints
        np.testing.assert_allclose([person.joints_cam_m for person in people], joints, atol=1e-4)
        np.testing.assert_allclose(people[0].joints_px, facts["people"][0]["joints_px"], atol=0.05)
    with pytest.raises(ValueError, match=r"an image is uint8 \[H W 3\] RGB, not float64"):
        pipeline.predict(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="not an image"):
        (photos / "text.jpg").write_text("no picture")
        pipeline.predict(photos / "text.jpg")


def test_whom_to_lift_can_be_chosen(request_: dict, tmp_path: Path) -> None:
    everybody = infer(**request_).counts["people"]
    _, facts = result_of(request_["output_folder"], "a")
    boxes = np.array([person["box"] for person in facts["people"]])
    assert len(boxes) > 2

    def found(**choice: Any) -> list[dict[str, Any]]:
        infer(**{**request_, "output_folder": tmp_path / "chosen"}, **choice)
        return result_of(tmp_path / "chosen", "a")[1]["people"]

    assert [person["box"] for person in found(max_people=2)] == boxes[:2].tolist()
    assert [person["box"] for person in found(person="first")] == boxes[:1].tolist()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert [person["box"] for person in found(person="largest")] == [boxes[areas.argmax()].tolist()]
    scores = sorted((person["score"] for person in facts["people"]), reverse=True)
    assert len(found(min_score=(scores[0] + scores[1]) / 2)) < len(boxes) <= everybody


def test_the_lens_is_as_told_else_by_exif_else_as_estimated(request_: dict, photos: Path, tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 200))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50  # millimetres on 35 mm film
    picture.save(photos / "a.jpg", exif=exif)

    def camera(**choice: Any) -> dict[str, Any]:
        infer(**{**request_, "output_folder": tmp_path / "lens"}, **choice)
        return result_of(tmp_path / "lens", "a")[1]["camera"]

    by_exif = 50.0 / np.hypot(36, 24) * np.hypot(300, 200)
    assert camera()["focal_px"] == pytest.approx(by_exif) and "EXIF" in camera()["source"]
    assert camera(focal_px=321.0) == camera(focal_px=321.0) | {"focal_px": 321.0, "source": "focal length as given"}
    by_angle = camera(fov_deg=90.0)
    assert by_angle["focal_px"] == pytest.approx(150.0) and by_angle["source"] == "given field of view of 90 degrees"
    with pytest.raises(ValueError, match="not both"):
        camera(fov_deg=90.0, focal_px=100.0)
    Image.new("RGB", (300, 200)).save(photos / "a.jpg")
    assert "depth network" in camera()["source"]
    assert camera(no_depth=True)["source"] == "assumed field of view of 55 degrees"


def test_a_lens_by_millimetres_and_the_sensors_resolution(tmp_path: Path) -> None:
    exif = Image.Exif()
    ifd = exif.get_ifd(0x8769)
    ifd[0x920A], ifd[0xA20E], ifd[0xA210], ifd[0xA002] = 8.0, 1000.0, 3, 600  # 100 pixels a millimetre, halved since
    Image.new("RGB", (300, 200)).save(tmp_path / "a.jpg", exif=exif)
    assert exif_focal_px(tmp_path / "a.jpg") == pytest.approx(8.0 * 100.0 / 2.0)
    Image.new("RGB", (300, 200)).save(tmp_path / "b.jpg")
    assert exif_focal_px(tmp_path / "b.jpg") is None and exif_focal_px(tmp_path / "missing.jpg") is None


def test_a_folder_goes_on_where_a_run_was_stopped(request_: dict, photos: Path) -> None:
    assert infer(**request_).counts["images"] == 2
    again = infer(**request_)
    assert again.counts["complete_before"] == 2 and not again.counts["images"] and "2 were complete" in again.summary
    (request_["output_folder"] / "a_pred_joints3d.npy").unlink()
    (request_["output_folder"] / "a.json").unlink()  # goes last, so without it nothing is complete
    assert infer(**request_).counts["images"] == 1
    assert result_of(request_["output_folder"], "a")[0].size
    os.utime(photos / "a.jpg", (time.time() + 60,) * 2)
    assert infer(**request_).counts["images"] == 1, "the picture is newer"
    os.utime(photos / "a.jpg")
    assert infer(**request_, max_people=1).counts["images"] == 2, "other settings"
    assert infer(**request_, max_people=1, overwrite=True).counts["images"] == 2


def test_a_take_whose_end_failed_is_done_again(request_: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "films").mkdir()
    clip, folder = tmp_path / "films" / "clip.mp4", request_["output_folder"] / "clip.mp4"
    write_video(clip, (np.full((64, 96, 3), 40 * n, np.uint8) for n in range(5)), 10.0)
    request = {**request_, "input_folder": None, "input": [str(clip)], "visualize": True, "export": ["bvh"]}
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk is full"):
        patch.setattr(takes, "write_video", Mock(side_effect=OSError("disk is full")))
        infer(**request)
    assert (folder / "000004.json").is_file()
    (folder / "person_999.bvh").write_text("of an earlier run")
    assert infer(**request).counts["images"] == 5
    assert count_frames(folder / "annotated.mp4") == 5 and not (folder / "person_999.bvh").exists()
    assert infer(**request).counts["complete_before"] == 5
    assert infer(**request, frame_step=2).counts["images"] == 3, "another take"


def test_a_frame_that_cannot_be_read_is_named_each_time_and_the_take_done_once(
    request_: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "films").mkdir()
    clip = tmp_path / "films" / "clip.mp4"
    write_video(clip, (np.full((64, 96, 3), 40 * n, np.uint8) for n in range(5)), 10.0)
    read = inference.read_image

    def damaged(path: Path) -> np.ndarray:
        if path.name == "000003":
            raise UnreadableImage("damaged there")
        return read(path)

    monkeypatch.setattr(inference, "read_image", damaged)
    request = {**request_, "input_folder": None, "input": [str(clip)]}
    first, again = infer(**request), infer(**request)
    assert first.counts["images"] == 4 and first.skipped["unreadable image"] == ["clip.mp4/000003 (damaged there)"]
    assert again.counts["complete_before"] == 4 and again.skipped["unreadable image"] == ["clip.mp4/000003 (as before)"]


def test_inputs_by_dots_and_patterns_leave_results_and_their_folder_alone(
    request_: dict, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    up = os.path.relpath(photos)
    request = {**request_, "input_folder": None, "output_folder": Path("results")}
    assert infer(**request, input=[f"{up}/a.jpg", str(photos / "sub" / "b.png")]).counts["images"] == 2
    assert Path("results/a.json").is_file() and Path("results/sub/b.json").is_file()
    assert [path.name for path in Path().iterdir()] == ["results"], "nothing beside it"
    Image.new("RGB", (64, 48)).save("own.jpg")
    assert infer(**request, input=["**/*.jpg"], visualize=True).inputs == 1, "none of the results"
    with pytest.raises(ValueError, match=r"no images in results/\*.jpg"):
        infer(**request, input=["results/*.jpg"])


def test_images_of_one_name_are_gathered_once(request_: dict, photos: Path) -> None:
    Image.open(photos / "sub" / "b.png").save(photos / "a.png")
    report = infer(
        **request_ | {"input_folder": None}, input=[str(photos / name) for name in ("a.jpg", "sub/b.png", "a.png")]
    )
    assert report.skipped == {TWIN: ["a.png"]} and report.counts["images"] == 2
    with np.load(request_["output_folder"] / GATHERED) as gathered:
        assert set(gathered["image"]) == {"a.jpg", "sub/b.png"}


def test_files_patterns_and_videos_are_inputs_too(request_: dict, photos: Path, tmp_path: Path) -> None:
    request = {**request_, "input_folder": None}
    (tmp_path / "films").mkdir()
    write_video(tmp_path / "films" / "clip.mp4", (np.full((64, 96, 3), 40 * n, np.uint8) for n in range(5)), 10.0)
    out = request["output_folder"]
    assert infer(**request, input=[str(photos / "a.jpg")]).counts["images"] == 1 and (out / "a.json").is_file()
    assert infer(**request, input=[str(photos / "**" / "*.png")]).counts["images"] == 1 and (out / "b.json").is_file()
    video = infer(**request, input=[str(tmp_path / "films" / "clip.mp4")], frame_step=2, visualize=True)
    assert video.counts["images"] == 3 and (out / "clip.mp4" / "000004_combined_viz.png").is_file()
    assert infer(**request, input=[str(tmp_path / "films")]).counts["images"] == 5
    both = infer(**{**request, "output_folder": tmp_path / "both"}, input=[str(photos), str(tmp_path / "films/*.mp4")])
    assert both.counts["images"] == 7 and (tmp_path / "both" / "films" / "clip.mp4" / "000000.json").is_file()
    twice = infer(**{**request, "output_folder": tmp_path / "twice"}, input=[str(photos), str(photos / "a.jpg")])
    assert twice.counts["images"] == 2, "each is looked at once"
    with pytest.raises(FileNotFoundError, match=r"nothing_\*.jpg is missing; give a folder, an image"):
        infer(**request, input=["nothing_*.jpg"])
    with pytest.raises(ValueError, match="say what to look at"):
        infer(**request)
