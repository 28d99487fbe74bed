"""YOLO keypoints: all people, raw confidences, the way back to the image's pixels, and what lacking weights say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from humanpose3d.estimators.keypoints import Letterbox, YoloKeypoints, mean_with_mirrored
from humanpose3d.estimators.weights import sha256_of
from humanpose3d.images import read_image
from humanpose3d.skeletons import COCO_17
from tests.networks import save_tiny_pose_model


@pytest.mark.parametrize("image_wh", [(1000, 1002), (1280, 720), (64, 64), (37, 301), (1, 500)])
def test_a_point_comes_back_from_the_letterbox(image_wh: tuple[int, int]) -> None:
    fit = Letterbox.fit(image_wh, 640, 32)
    assert fit.input_wh[0] % 32 == 0 and fit.input_wh[1] % 32 == 0
    assert max(fit.resized_wh) == 640
    assert fit.apply(np.zeros((*image_wh[::-1], 3), np.uint8)).shape == (*fit.input_wh[::-1], 3)
    corners = np.array([fit.offset_xy, np.add(fit.offset_xy, fit.resized_wh)], dtype=float)
    np.testing.assert_allclose(fit.undo(corners, image_wh), [[0, 0], image_wh], atol=1e-3)


def test_what_is_found_does_not_depend_on_the_other_images(tiny_pose_model: str) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, size, dtype=np.uint8) for size in ((64, 64, 3), (90, 40, 3), (64, 64, 3))]
    estimator = YoloKeypoints(tiny_pose_model, "cpu")
    together, alone = estimator.predict(images), [estimator.predict([image])[0] for image in images]
    assert all(together)
    for first, second in zip(together, alone, strict=True):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a.keypoints_px, b.keypoints_px, atol=1e-2)
            assert a.score == pytest.approx(b.score, abs=1e-4)


def test_people_come_best_first_with_boxes_inside_the_image(tiny_pose_model: str) -> None:
    image = np.random.default_rng(1).integers(0, 255, (50, 80, 3), dtype=np.uint8)
    people = YoloKeypoints(tiny_pose_model, "cpu").predict([image])[0]
    scores = [person.score for person in people]
    assert len(people) > 1 and scores == sorted(scores, reverse=True) and min(scores) >= 0.25
    for person in people:
        assert person.keypoints_px.shape == (17, 2) and person.keypoint_score.shape == (17,)
        assert person.keypoints_px.dtype == person.keypoint_score.dtype == person.box_px.dtype == np.float32
        assert (person.box_px >= 0).all() and (person.box_px <= [80, 50, 80, 50]).all()


def test_an_empty_scene_has_no_people(blind_pose_model: str) -> None:
    assert YoloKeypoints(blind_pose_model, "cpu").predict([np.zeros((30, 30, 3), np.uint8)]) == [[]]


def row(box: tuple[float, ...], left_wrist: tuple[float, float], right_wrist: tuple[float, float]) -> np.ndarray:
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[COCO_17.index("left_wrist")] = (*left_wrist, 0.8)
    keypoints[COCO_17.index("right_wrist")] = (*right_wrist, 0.6)
    return np.array([*box, 0.9, 0.0, *keypoints.ravel()], np.float32)


def test_the_mirror_image_moves_the_keypoints_of_the_same_person_alone() -> None:
    somebody, other = row((10, 0, 30, 40), (28, 20), (12, 20)), row((60, 0, 80, 40), (78, 20), (62, 20))
    # Mirrored at a width of 100, 4 px higher; his left hand is a right one there.
    mirrored = row((70, 0, 90, 40), left_wrist=(88, 16), right_wrist=(72, 16))
    mean = mean_with_mirrored(np.stack([somebody, other]), mirrored[None], 100)
    wrists = mean[:, 6:].reshape(2, 17, 3)[:, [COCO_17.index("left_wrist"), COCO_17.index("right_wrist")]]
    np.testing.assert_allclose(wrists[0], [(28, 18, 0.7), (12, 18, 0.7)], atol=1e-5)
    np.testing.assert_array_equal(mean[1], other)
    np.testing.assert_array_equal(mean[0, :6], somebody[:6])
    nobody = mirrored[None][:0]
    assert len(mean_with_mirrored(nobody, mirrored[None], 100)) == 0
    np.testing.assert_array_equal(mean_with_mirrored(somebody[None], nobody, 100), somebody[None])


def test_the_flip_test_shows_the_network_the_mirror_image_too(tiny_pose_model: str, monkeypatch) -> None:
    answers = [row((8, 0, 24, 40), (20, 20), (10, 20)), row((40, 0, 56, 40), (54, 18), (44, 18))]
    seen: list[np.ndarray] = []

    def detect(_: YoloKeypoints, inputs: list[np.ndarray]) -> list[np.ndarray]:
        seen.extend(inputs)
        return [answers[len(seen) - 1][None]]

    monkeypatch.setattr(YoloKeypoints, "_detect", detect)
    image = np.random.default_rng(2).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    [[person]] = YoloKeypoints(tiny_pose_model, "cpu", flip_test=True).predict([image])
    np.testing.assert_array_equal(seen[1], seen[0][:, ::-1])
    np.testing.assert_allclose(person.keypoints_px[COCO_17.index("left_wrist")], (20, 19))
    np.testing.assert_allclose(person.keypoints_px[COCO_17.index("right_wrist")], (10, 19))


def test_the_training_image_size_and_the_hash_come_from_the_file(tiny_pose_model: str) -> None:
    estimator = YoloKeypoints(tiny_pose_model, "cpu")
    assert estimator.input_size == 64
    assert estimator.provenance["sha256"] == sha256_of(Path(tiny_pose_model)) and estimator.provenance["name"] == "tiny"


def test_a_missing_path_is_never_downloaded_and_says_what_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.pt is missing; put the YOLO pose weights there"):
        YoloKeypoints(str(tmp_path / "nowhere.pt"), "cpu")


def test_a_bare_name_is_looked_for_with_or_without_its_ending(
    tmp_path: Path, tiny_pose_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_pose_model, tmp_path / "mine.pt")
    assert YoloKeypoints("mine", "cpu").path == YoloKeypoints("mine.pt", "cpu").path == Path("mine.pt")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match="no weights yolo99z-pose.pt: put the file at .*yolo11x-pose"):
        YoloKeypoints("yolo99z-pose", "cpu")


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HUMANPOSE3D_CACHE", str(tmp_path))
    monkeypatch.setenv("YOLO_OFFLINE", "1")  # so that a failure ends at once
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(FileNotFoundError) as caught:
        YoloKeypoints("yolo11x-pose", "cpu")
    message = str(caught.value)
    assert str(tmp_path / "weights" / "yolo11x-pose.pt") in message and "cannot be downloaded" in message
    assert "\n" not in message


def test_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "foreign.pt")
    for name in ("text.pt", "empty.pt", "foreign.pt"):
        with pytest.raises(ValueError, match=f"{name} is no Ultralytics weight file"):
            YoloKeypoints(str(tmp_path / name), "cpu")


class _Command:
    """What a malicious weight file holds: unpickling it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def test_code_in_a_weight_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": _Command(f"touch {tmp_path / 'ran'}")}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="bad.pt is no Ultralytics weight file"):
        YoloKeypoints(str(tmp_path / "bad.pt"), "cpu")
    assert not (tmp_path / "ran").exists()


def test_a_model_without_cocos_keypoints_is_refused(tmp_path: Path) -> None:
    path = save_tiny_pose_model(tmp_path / "hand.pt", keypoints=21)
    with pytest.raises(ValueError, match=r"hand.pt has keypoints of shape \[21, 3\]; .*\[17, 3\]"):
        YoloKeypoints(str(path), "cpu")


def test_a_device_that_is_not_there_is_named(tiny_pose_model: str) -> None:
    for device in ("cuda:99", "toaster"):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
            YoloKeypoints(tiny_pose_model, device)


def test_real_people_are_found_as_ultralytics_itself_finds_them(samples: Path) -> None:
    weights = str(samples / "weights" / "yolov8n-pose.pt")
    estimator = YoloKeypoints(weights, "cpu")
    import ultralytics

    assets = Path(ultralytics.__file__).parent / "assets"
    images = [read_image(assets / "bus.jpg"), read_image(assets / "zidane.jpg")]
    found = estimator.predict(images)
    assert [len(people) for people in found] == [4, 2]
    for image, people in zip(images, found, strict=True):
        theirs = ultralytics.YOLO(weights).predict(image[..., ::-1], device="cpu", verbose=False)[0]
        limits = [image.shape[1], image.shape[0]]
        for person, box, rows in zip(people, theirs.boxes.xyxy, theirs.keypoints.data, strict=True):
            np.testing.assert_allclose(person.box_px, box.numpy(), atol=0.1)
            # Theirs are clipped to the image, ours are where the network put them.
            np.testing.assert_allclose(np.clip(person.keypoints_px, 0, limits), rows[:, :2].numpy(), atol=0.1)
            np.testing.assert_allclose(person.keypoint_score, rows[:, 2].numpy(), atol=1e-3)
    weakest = found[1][1]  # half of him lies outside the picture
    assert (weakest.keypoint_score < 0.05).any() and (np.abs(weakest.keypoints_px) > 1).all()


def test_the_labelled_people_of_human36m_are_found(samples: Path) -> None:
    import json

    estimator = YoloKeypoints(str(samples / "weights" / "yolov8n-pose.pt"), "cpu")
    for labels in sorted((samples / "human36m" / "annotations").glob("*_data.json")):
        data = json.loads(labels.read_text())
        for image in data["images"]:
            x, y, width, height = next(a["bbox"] for a in data["annotations"] if a["image_id"] == image["id"])
            label = np.array([x, y, x + width, y + height])
            pixels = read_image(samples / "human36m" / "images" / image["file_name"])
            people = estimator.predict([pixels])[0]
            assert max(_overlap(person.box_px, label) for person in people) > 0.5


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    inner = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return float(inner / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inner))
