"""FreiHAND, as the studio writes it and as it comes damaged; the real sample where it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel
from humanpose3d.reports import StageReport
from humanpose3d.sample import LabelledFrame, subjects_asked_for
from humanpose3d.skeletons import HAND_21
from humanpose3d.sources import freihand
from humanpose3d.sources.freihand import PHOTO, SAMPLES, VERSIONS, subject_of
from humanpose3d.studio.freihand import write_freihand

SAMPLES_HERE = 4


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("freihand")
    write_freihand(out, frames_per_take=SAMPLES_HERE, size=224, seed=1)
    return out


@pytest.fixture
def corpus(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(written, tmp_path / "freihand"))


@pytest.fixture
def labels_only(tmp_path: Path) -> Path:
    """2,500 labelled samples and not one image."""
    joints = np.random.default_rng(0).uniform(-0.1, 0.1, (2500, 21, 3)).round(4) + [0.0, 0.0, 0.6]
    put(tmp_path / "training_xyz.json", joints.tolist())
    put(tmp_path / "training_K.json", [[[480, 0, 112], [0, 480, 112], [0, 0, 1]]] * 2500)
    (tmp_path / "training/rgb").mkdir(parents=True)
    return tmp_path


def put(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def get(path: Path) -> list:
    return json.loads(path.read_text())


def read(
    root: Path, *subjects: str, told: StageReport | None = None, annotations: Path | None = None, **options: object
) -> list[LabelledFrame]:
    """The frames. Without `told`, nothing may be left out."""
    report = told or StageReport("test")
    asked = subjects or ("training", "evaluation")
    frames = list(freihand.read_frames(root, annotations or root, asked, told=report, **options))
    assert told is not None or (not report.faults and not report.skipped)
    return frames


# ------------------------------------------------------------------------------------------------------------- sound


def test_frames_are_the_studios_own_hands(written):
    xyz, K = np.array(get(written / "training_xyz.json")), np.array(get(written / "training_K.json"))
    frames = read(written, "training")
    assert len(frames) == 4 * SAMPLES_HERE
    for frame in frames:
        sample = frame.frame_index
        np.testing.assert_allclose(frame.joints_cam_m, xyz[sample], atol=1e-6)
        np.testing.assert_array_equal(frame.camera.K, K[sample])
        projected = xyz[sample] @ K[sample].T
        np.testing.assert_allclose(frame.joints_px, projected[:, :2] / projected[:, 2:], atol=1e-3)
        np.testing.assert_allclose(camera_to_pixel(frame.joints_cam_m, frame.camera), frame.joints_px, atol=1e-3)
        assert np.array_equal(frame.joint_score, np.ones(21)) and frame.joints_cam_m.dtype == np.float32
        assert (frame.corpus, frame.skeleton, frame.action, frame.fps) == ("freihand", HAND_21.name, "", None)
        assert frame.image_size_wh == (224, 224) and frame.source_file == "training_xyz.json"
        assert not frame.camera.distortion.any() and np.array_equal(frame.camera.R, np.eye(3))


def test_the_versions_of_a_sample_lie_together_and_share_its_label(written):
    frames = read(written, "training")
    assert [(frame.frame_index, frame.camera_id) for frame in frames] == [
        (sample, version) for sample in range(SAMPLES_HERE) for version in VERSIONS
    ]
    assert [frame.image_path.name for frame in frames[4:8]] == [
        "00000001.jpg", "00032561.jpg", "00065121.jpg", "00097681.jpg",
    ]  # fmt: skip
    assert all((written / frame.image_path).is_file() for frame in frames)
    for frame in frames[1:4]:
        np.testing.assert_array_equal(frame.joints_cam_m, frames[0].joints_cam_m)


def test_evaluation_has_one_version_and_a_subject_of_its_own(written):
    frames = read(written, "evaluation")
    assert [frame.frame_index for frame in frames] == list(range(SAMPLES_HERE))
    assert {(frame.subject, frame.camera_id) for frame in frames} == {("evaluation", PHOTO)}
    assert frames[2].image_path == Path("evaluation/rgb/00000002.jpg")
    np.testing.assert_allclose(frames[2].joints_cam_m, get(written / "evaluation_xyz.json")[2], atol=1e-6)
    assert [frame.subject for frame in read(written)] == ["training/0-999"] * 4 * SAMPLES_HERE + [
        "evaluation"
    ] * SAMPLES_HERE


def test_keys_are_unique_short_and_plain(written):
    keys = [frame.key for frame in read(written)]
    assert keys[1] == "freihand-training-hom-000000-p0" and keys[-1] == "freihand-evaluation-photo-000003-p0"
    assert len(set(keys)) == len(keys) and max(map(len, keys)) <= 70
    assert not any(set(key) & set("./ ") for key in keys)


def test_a_box_holds_the_joints_and_a_fifth_more(written):
    for frame in read(written):
        low, high = frame.joints_px.min(0), frame.joints_px.max(0)
        size = frame.box_px[2:] - frame.box_px[:2]
        assert (size >= 1.2 * (high - low) - 1e-3).all()
        np.testing.assert_allclose((frame.box_px[:2] + frame.box_px[2:]) / 2, (low + high) / 2, atol=1e-3)


def test_reading_twice_gives_the_same(written):
    first, second = read(written), read(written)
    assert [frame.key for frame in first] == [frame.key for frame in second]
    np.testing.assert_array_equal(first[7].joints_px, second[7].joints_px)


# ------------------------------------------------------------------------------------------ who is in the same split


@pytest.mark.parametrize(
    "sample, subject",
    [
        (0, "training/0-999"),
        (999, "training/0-999"),
        (1000, "training/1000-1999"),
        (31999, "training/31000-31999"),
        (32559, "training/32000-32559"),
    ],
)
def test_a_subject_is_a_block_of_a_thousand_samples(sample, subject):
    assert subject_of(sample) == subject


def test_a_hand_is_in_one_subject_whatever_its_background(labels_only):
    subject = {}
    for frame in read(labels_only, "training"):
        subject.setdefault(frame.frame_index, set()).add(frame.subject)
        assert len(subject[frame.frame_index]) == 1
    assert {name for names in subject.values() for name in names} == {
        "training/0-999",
        "training/1000-1999",
        "training/2000-2999",
    }


def test_a_range_of_samples_keeps_its_blocks_and_can_be_split_by_them(labels_only):
    frames = read(labels_only, "500-1999")
    assert (frames[0].frame_index, frames[-1].frame_index, len(frames)) == (500, 1999, 4 * 1500)
    assert [frame.subject for frame in (frames[0], frames[-1])] == ["training/0-999", "training/1000-1999"]
    present = {frame.subject for frame in read(labels_only, "training")}
    assert subjects_asked_for("0-1999", present) == ["training/0-999", "training/1000-1999"]
    blocks = {subject_of(sample) for sample in range(SAMPLES)} | {"evaluation"}
    train, test = subjects_asked_for("0-27999", blocks), subjects_asked_for("28000-32559", blocks)
    assert len(train) == 28 and len(test) == 5 and set(train) | set(test) == blocks - {"evaluation"}
    with pytest.raises(ValueError, match="cuts the block"):
        subjects_asked_for("0-27500", blocks)


def test_ranges_may_overlap_and_come_in_any_order(labels_only):
    frames = read(labels_only, "20-29", "0-9", "5-24")
    assert [frame.frame_index for frame in frames[::4]] == list(range(30))


def test_the_frame_step_goes_by_the_samples_number(labels_only):
    assert [frame.frame_index for frame in read(labels_only, "5-30", frame_step=10)[::4]] == [10, 20, 30]
    assert {frame.camera_id for frame in read(labels_only, "10-10", frame_step=10)} == set(VERSIONS)


@pytest.mark.parametrize("subject", ["S1", "0-32560", "9-3", "gs"])
def test_an_unknown_subject_is_told_what_there_is(written, subject):
    with pytest.raises(ValueError, match=f"no subject '{subject}'; there are training, evaluation and ranges"):
        read(written, subject)


def test_a_range_without_samples_is_told_which_there_are(written):
    with pytest.raises(ValueError, match="no samples 1000-1999 in training_xyz.json; it has 0-3"):
        read(written, "0-2", "1000-1999")


# -------------------------------------------------------------------------------------------------- as people hold it


def test_labels_stored_once_an_image_are_read_by_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr(freihand, "SAMPLES", 3)
    joints = np.random.default_rng(0).uniform(-0.1, 0.1, (12, 21, 3)) + [0.0, 0.0, 0.6]
    put(tmp_path / "training_xyz.json", joints.tolist())
    put(tmp_path / "training_K.json", [[[400 + i, 0, 112], [0, 480, 112], [0, 0, 1]] for i in range(3)] * 4)
    frames = read(tmp_path, "training")
    assert len(frames) == 12
    for frame in frames:
        number = int(frame.image_path.stem)
        np.testing.assert_allclose(frame.joints_cam_m, joints[number], atol=1e-6)
        assert frame.camera.K[0, 0] == 400 + number % 3
    put(tmp_path / "training_K.json", get(tmp_path / "training_K.json")[:3])
    assert len(read(tmp_path, "training")) == 12, "one file tiled, the other not"


def test_both_archives_may_lie_side_by_side(corpus, tmp_path):
    first, second = tmp_path / "FreiHAND_pub_v2", tmp_path / "FreiHAND_pub_v2_eval"
    for path in [*corpus.glob("*.json"), corpus / "training", corpus / "evaluation"]:
        target = second if path.name.startswith("evaluation") else first
        target.mkdir(exist_ok=True)
        path.rename(target / path.name)
    frames = read(tmp_path)
    assert len(frames) == 5 * SAMPLES_HERE
    assert all((tmp_path / frame.image_path).is_file() for frame in frames)


def test_the_green_screen_images_alone_are_enough_and_it_is_told(corpus):
    for path in (corpus / "training/rgb").iterdir():
        if int(path.stem) >= SAMPLES:
            path.unlink()
    told = StageReport("test")
    frames = read(corpus, "training", told=told)
    assert [frame.camera_id for frame in frames] == ["gs"] * SAMPLES_HERE
    assert "no image of the versions hom, sample, auto (00032560.jpg and so on), only of gs" in told.notes[0]
    assert len(told.notes) == 1 and not told.faults and not told.skipped


def test_one_missing_image_is_not_the_readers_business(corpus):
    (corpus / "training/rgb/00032561.jpg").unlink()
    assert len(read(corpus, "training")) == 4 * SAMPLES_HERE


def test_without_any_image_all_frames_are_named(labels_only):
    assert {frame.camera_id for frame in read(labels_only, "0-9")} == set(VERSIONS)


# ------------------------------------------------------------------------------------------------------------- broken


def test_lists_of_two_lengths_are_told_and_their_common_part_is_read(corpus):
    put(corpus / "training_K.json", get(corpus / "training_K.json")[:3])
    told = StageReport("test")
    assert [frame.frame_index for frame in read(corpus, "training", told=told)[::4]] == [0, 1, 2]
    assert "training_K.json has 3 entries and training_xyz.json has 4" in told.faults[0]
    assert told.skipped == {
        "no whole entry in training_K.json": [
            f"training/rgb/{3 + SAMPLES * version:08d}.jpg" for version in range(len(VERSIONS))
        ]
    }


def test_one_bad_entry_loses_its_own_sample(corpus):
    joints = get(corpus / "training_xyz.json")
    joints[1], joints[2][4] = None, [0.1, 0.2]
    put(corpus / "training_xyz.json", joints)
    told = StageReport("test")
    assert [frame.frame_index for frame in read(corpus, "training", told=told)[::4]] == [0, 3]
    assert told.skipped_counts == {"no whole entry in training_xyz.json": 8}


def test_a_camera_that_is_none_loses_its_own_sample(corpus):
    cameras = get(corpus / "training_K.json")
    cameras[0] = np.array(cameras[0]).T.tolist()
    put(corpus / "training_K.json", cameras)
    told = StageReport("test")
    assert len(read(corpus, "training", told=told)) == 12
    assert told.skipped_counts == {"its entry in training_K.json is no camera matrix": 4}


def test_a_hand_behind_the_camera_is_told(corpus):
    joints = np.array(get(corpus / "training_xyz.json"))
    joints[2] *= -1
    put(corpus / "training_xyz.json", joints.tolist())
    told = StageReport("test")
    assert len(read(corpus, "training", told=told)) == 12
    assert told.skipped_counts == {"the whole hand is behind the camera": 4}


def test_joints_in_millimetres_do_not_fit_the_scale(corpus):
    put(corpus / "training_xyz.json", (1000 * np.array(get(corpus / "training_xyz.json"))).tolist())
    told = StageReport("test")
    read(corpus, "training", told=told)
    assert "training_scale.json says the middle finger's first bone measures 0.0" in told.faults[0]
    assert "in metres" in told.faults[0]


def test_the_scale_is_not_needed_and_a_broken_one_is_told(corpus):
    (corpus / "training_scale.json").unlink()
    assert len(read(corpus, "training")) == 16
    (corpus / "training_scale.json").write_text("[0.03, 0.0")
    told = StageReport("test")
    assert len(read(corpus, "training", told=told)) == 16
    assert "training_scale.json: not whole JSON" in told.faults[0]


@pytest.mark.parametrize("what", ["K", "xyz"])
def test_half_a_file_loses_its_own_split(corpus, what):
    path = corpus / f"training_{what}.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match=f"training_{what}.json: not whole JSON.*copy it anew"):
        read(corpus, "training")
    told = StageReport("test")
    assert {frame.subject for frame in read(corpus, told=told)} == {"evaluation"}
    assert f"training_{what}.json: not whole JSON" in told.faults[0]


@pytest.mark.parametrize(
    "content, problem",
    [
        ({"a": 1}, "not a list"),
        ([], "not a list"),
        ([[[1, 2]]] * 4, "expected N x 21 x 3"),
        (["x"], "array of numbers"),
    ],
)
def test_a_file_of_another_kind_is_named(corpus, content, problem):
    put(corpus / "training_xyz.json", content)
    with pytest.raises(ValueError, match=f"training_xyz.json: .*{problem}"):
        read(corpus, "training")


def test_evaluation_without_its_later_labels_is_told_where_they_are(corpus):
    (corpus / "evaluation_xyz.json").unlink()
    with pytest.raises(FileNotFoundError, match="evaluation_xyz.json is missing .* FreiHAND_pub_v2_eval.zip"):
        read(corpus, "evaluation")
    told = StageReport("test")
    assert {frame.subject for frame in read(corpus, told=told)} == {"training/0-999"}
    assert "FreiHAND_pub_v2_eval.zip" in told.faults[0]


def test_missing_folders_and_files_are_named(corpus, tmp_path):
    assert read(tmp_path / "nowhere", annotations=corpus), "labels can be read before the images are there"
    with pytest.raises(FileNotFoundError, match="no training_xyz.json and no freihand_train.json.*--annotations-path"):
        read(corpus, "training", annotations=tmp_path)
    (corpus / "training_K.json").unlink()
    with pytest.raises(FileNotFoundError, match="training_K.json is missing"):
        read(corpus, "training")


def test_there_is_no_image_pattern(corpus):
    with pytest.raises(ValueError, match="--image-pattern is not for freihand"):
        read(corpus, image_pattern="{number}.jpg")


# -------------------------------------------------------------------------------------------------------- mmpose's form


@pytest.fixture(scope="module")
def coco_written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("coco")
    write_freihand(out, frames_per_take=SAMPLES_HERE, seed=1, layout="coco")
    return out


@pytest.fixture
def coco(coco_written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(coco_written, tmp_path / "coco"))


def change(path: Path, edit: Callable[[dict], object]) -> None:
    data = json.loads(path.read_text())
    edit(data)
    put(path, data)


def test_mmposes_json_gives_the_same_hands_in_2d(coco, written):
    frames, whole = read(coco, "training"), read(written, "training")
    assert [frame.key for frame in frames] == [frame.key for frame in whole]
    for frame, other in zip(frames, whole, strict=True):
        assert (frame.subject, frame.image_path) == (other.subject, other.image_path)
        assert frame.joints_cam_m is None and frame.camera is None and frame.image_size_wh == (224, 224)
        np.testing.assert_allclose(frame.joints_px, other.joints_px, atol=1e-3)
        np.testing.assert_allclose(frame.box_px, other.box_px, atol=1e-2)
        assert (coco / frame.image_path).is_file()


def test_the_corpus_own_files_go_before_mmposes(coco, written):
    for name in ("training_K.json", "training_xyz.json"):
        shutil.copy(written / name, coco / name)
    assert all(frame.joints_cam_m is not None for frame in read(coco, "training"))


def test_mmposes_json_has_no_evaluation(coco):
    with pytest.raises(FileNotFoundError, match="evaluation_K.json is missing"):
        read(coco, "evaluation")


def test_file_names_may_be_relative_to_the_rgb_folder(coco):
    for path in (coco / "annotations").iterdir():
        path.write_text(path.read_text().replace("training/rgb/", ""))
    assert all((coco / frame.image_path).is_file() for frame in read(coco, "training"))


def test_an_unlabelled_joint_is_missing(coco):
    def hide(data: dict) -> None:
        data["annotations"][0]["keypoints"][5] = 0

    change(coco / "annotations/freihand_train.json", hide)
    hidden = [frame for frame in read(coco, "training") if frame.joint_score.min() == 0]
    assert len(hidden) == 1 and np.isnan(hidden[0].joints_px[1]).all() and np.isfinite(hidden[0].box_px).all()
    assert np.isfinite(hidden[0].joints_px).all(-1).sum() == 20


def test_faulty_rows_of_mmposes_json_are_told_and_the_rest_is_read(coco):
    def damage(data: dict) -> None:
        data["annotations"][0]["keypoints"] = data["annotations"][0]["keypoints"][:30]
        data["annotations"][1]["image_id"] = [999_999]
        data["images"][2]["file_name"] = "training/rgb/³².jpg"
        data["annotations"][3]["keypoints"] = [0.0] * 63

    change(coco / "annotations/freihand_train.json", damage)
    told = StageReport("test")
    assert len(read(coco, "training", told=told)) == 12
    assert told.skipped_counts == {
        "no 21 joints in freihand_train.json": 2,
        "its name is no number of a FreiHAND image": 1,
        "no labelled joint in freihand_train.json": 1,
    }
    assert "1 annotations of images that it does not list" in told.faults[0]


def test_half_of_one_of_mmposes_files_loses_its_images_only(coco):
    path = coco / "annotations/freihand_val.json"
    lost = len(json.loads(path.read_text())["images"])
    path.write_text(path.read_text()[:-30])
    told = StageReport("test")
    assert len(read(coco, "training", told=told)) == 16 - lost
    assert "freihand_val.json: not whole JSON" in told.faults[0]
    for other in ("train", "test"):
        put(coco / f"annotations/freihand_{other}.json", [1, 2])
    with pytest.raises(ValueError, match="freihand_test.json: has no 'annotations'"):
        read(coco, "training")


def test_an_image_that_two_files_label_is_told(coco):
    shutil.copy(coco / "annotations/freihand_val.json", coco / "annotations/freihand_trainval.json")
    told = StageReport("test")
    assert len(read(coco, "training", told=told)) == 16
    assert "that another file labels too" in told.faults[0]


def test_the_real_hand_is_read_in_its_four_versions(samples):
    frames = read(samples / "freihand", "training")
    assert [frame.camera_id for frame in frames] == list(VERSIONS)
    assert {(frame.subject, frame.frame_index) for frame in frames} == {("training/17000-17999", 17620)}
    annotation = json.loads((samples / "freihand/annotations.json").read_text())["annotations"][0]
    x, y, width, height = annotation["bbox"]
    for frame in frames:
        assert (samples / "freihand" / frame.image_path).is_file()
        assert (frame.joints_px >= [x, y]).all() and (frame.joints_px <= [x + width, y + height]).all()
        np.testing.assert_array_equal(frame.joints_px, frames[0].joints_px)
