"""Human3.6M's 3DMPPE layout, on annotations written here and on the real samples where they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel
from humanpose3d.reports import StageReport
from humanpose3d.sources import human36m
from humanpose3d.video import write_video

BROKEN = "its subject's annotations are broken"


class Nothing:
    """Fails where a reader leaves anything out."""

    def skip(self, name, reason):
        raise AssertionError(f"{name}: {reason}")

    def fault(self, message):
        raise AssertionError(message)


@pytest.fixture
def corpus(tmp_path):
    """Subject 9, one take of four frames seen by two cameras; joints stand 5 m before camera 1."""
    images, annotations = tmp_path / "images", tmp_path / "annotations"
    images.mkdir()
    annotations.mkdir()
    joints = [[[100.0 * joint, 10.0 * frame, 0.0] for joint in range(17)] for frame in range(4)]
    camera = {"R": np.eye(3).tolist(), "t": [0.0, 0.0, 5000.0], "f": [1000.0, 1000.0], "c": [500.0, 500.0]}
    take = "s_09_act_02_subact_01_ca_0{0}/s_09_act_02_subact_01_ca_0{0}_{1:06d}.jpg"
    names = {"subject": 9, "action_name": "Directions", "action_idx": 2, "subaction_idx": 1}
    rows = [
        {"id": 10 * cam + frame, "file_name": take.format(cam, frame + 1), "cam_idx": cam, "frame_idx": frame, **names}
        for cam in (2, 1)
        for frame in (3, 2, 1, 0)
    ]
    parts = {
        "data": {"images": rows, "annotations": [{"image_id": row["id"], "bbox": [1, 2, 10, 20]} for row in rows]},
        "camera": {"1": camera, "2": camera},
        "joint_3d": {"2": {"1": {str(frame): joints[frame] for frame in range(4)}}},
    }
    for part, values in parts.items():
        (annotations / f"Human36M_subject9_{part}.json").write_text(json.dumps(values))
    return images, annotations


def read(corpus, subjects=("9",), **options):
    return list(human36m.read_frames(*corpus, subjects, **{"told": Nothing(), **options}))


def change(corpus, part, change_values):
    """Rewrites one of the files; its path."""
    path = corpus[1] / f"Human36M_subject9_{part}.json"
    values = json.loads(path.read_text())
    change_values(values)
    path.write_text(json.dumps(values))
    return path


def test_frames_come_in_order_in_metres_and_camera_space(corpus):
    frames = read(corpus)
    assert [(frame.camera_id, frame.frame_index) for frame in frames] == [
        (camera, index) for camera in ("54138969", "55011271") for index in range(4)
    ]
    np.testing.assert_allclose(frames[2].joints_cam_m[3], [0.3, 0.02, 5.0], atol=1e-6)
    np.testing.assert_allclose(frames[2].joints_px[3], [500 + 1000 * 0.3 / 5, 500 + 1000 * 0.02 / 5], atol=1e-4)
    np.testing.assert_array_equal(frames[0].box_px, [1, 2, 11, 22])
    assert (frames[0].subject, frames[0].action, frames[0].fps) == ("S9", "Directions 1", 50.0)


def test_keys_are_unique_and_carry_no_dot_or_slash(corpus):
    keys = [frame.key for frame in read(corpus)]
    assert keys[1] == "h36m-S9-Directions_1-54138969-000001-p0"
    assert len(set(keys)) == len(keys) and not any(set(key) & set("./ ") for key in keys)


def test_the_frame_step_counts_within_a_take(corpus):
    assert [frame.frame_index for frame in read(corpus, frame_step=3)] == [0, 3, 0, 3]


def test_one_subject_has_many_spellings(corpus):
    assert len(read(corpus, ["S9", "9", "s09"])) == 8


def test_images_under_the_official_videos_names_are_found(corpus):
    folder = corpus[0] / "S9_Directions_1.54138969"
    folder.mkdir()
    (folder / "frame_000002.jpg").touch()
    assert read(corpus)[1].image_path == Path("S9_Directions_1.54138969/frame_000002.jpg")


def test_images_that_are_counted_from_0_are_those_of_their_frames(corpus):
    folder = corpus[0] / "S9_Directions_1.54138969"
    folder.mkdir()
    for number in range(3):
        (folder / f"frame_{number:06d}.jpg").touch()
    assert [frame.image_path.name for frame in read(corpus)[:2]] == ["frame_000000.jpg", "frame_000001.jpg"]
    counted = read(corpus, image_pattern="{subject}/{frame:04d}.jpg")[1]
    assert counted.image_path == Path("S9/0001.jpg")


def test_a_pattern_names_any_other_place(corpus):
    frame = read(corpus, image_pattern="{subject}_{action}_{camera}/frame_{number:04d}.jpg")[1]
    assert frame.image_path == Path("S9_Directions_54138969/frame_0002.jpg")


def test_a_pattern_that_cannot_be_filled_in_is_named_with_what_it_can_have(corpus):
    with pytest.raises(ValueError, match=r"cannot be filled in \('person'\); it can have \{subject\}"):
        read(corpus, image_pattern="{person}/{number}.jpg")


def test_a_subject_that_is_not_there_is_named_with_those_that_are(corpus):
    with pytest.raises(ValueError, match="S8.*there are S9"):
        read(corpus, ["8"])


def test_a_frame_without_its_label_is_told(corpus):
    change(corpus, "joint_3d", lambda labels: labels["2"]["1"].pop("1"))
    report = StageReport("test")
    assert len(read(corpus, told=report)) == 6
    ((_, told),) = report.skipped.items()
    assert len(told) == 2 and all(name.endswith("000002.jpg") for name in told)


def test_a_label_of_another_skeleton_costs_only_its_own_frame(corpus):
    change(corpus, "joint_3d", lambda labels: labels["2"]["1"]["1"].append([0.0, 0.0, 0.0]))
    report = StageReport("test")
    assert len(read(corpus, told=report)) == 6
    assert report.skipped_counts == {"its 3D label is not 17 x 3": 2}
    assert "18 x 3, expected 17 x 3" in report.faults[0] and len(report.faults) == 1


@pytest.mark.parametrize("part, field", [("data", "images"), ("data", "annotations"), ("camera", "R")])
def test_annotations_without_a_field_are_named(corpus, part, field):
    def lose(values):
        for holder in (values, *(value for value in values.values() if isinstance(value, dict))):
            holder.pop(field, None)

    path = change(corpus, part, lose)
    with pytest.raises(ValueError, match=f"{path.name}: has no '{field}'"):
        read(corpus, told=StageReport("test"))


@pytest.mark.parametrize("part", ["data", "camera", "joint_3d"])
def test_half_a_file_is_named(corpus, part):
    path = corpus[1] / f"Human36M_subject9_{part}.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=f"{path.name}: not whole JSON"):
        read(corpus, told=StageReport("test"))


@pytest.mark.parametrize("part, left_out", [("data", {}), ("camera", {BROKEN: 8}), ("joint_3d", {BROKEN: 8})])
def test_a_broken_subject_does_not_cost_the_others(corpus, part, left_out):
    for name in ("data", "camera", "joint_3d"):
        path = corpus[1] / f"Human36M_subject9_{name}.json"
        whole = path.read_text().replace("s_09", "s_11")
        path.with_name(path.name.replace("9", "11")).write_text(whole)
    path = corpus[1] / f"Human36M_subject9_{part}.json"
    path.write_text(path.read_text()[:100])
    report = StageReport("test")
    assert {frame.subject for frame in read(corpus, ["9", "11"], told=report)} == {"S11"}
    assert len(report.faults) == 1 and path.name in report.faults[0]
    assert report.skipped_counts == left_out


def test_a_missing_camera_costs_only_its_own_frames(corpus):
    change(corpus, "camera", lambda cameras: cameras.pop("2"))
    report = StageReport("test")
    assert {frame.camera_id for frame in read(corpus, told=report)} == {"54138969"}
    assert "subject9_camera.json: has no '55011271'" in report.faults[0]
    assert report.skipped_counts == {"no camera parameters": 4}


@pytest.mark.parametrize("was, now", [("1.0", "1.1"), ("[1.0, 0.0, 0.0]", "[-1.0, 0.0, 0.0]")])
def test_a_scaled_or_mirrored_rotation_is_not_a_rotation(corpus, was, now):
    path = corpus[1] / "Human36M_subject9_camera.json"
    path.write_text(path.read_text().replace(was, now))
    with pytest.raises(ValueError, match="R of camera 1 is not a rotation"):
        read(corpus, told=StageReport("test"))


def test_a_centre_is_told_from_a_translation_by_its_capital_letter(corpus):
    R = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])

    def turn(cameras):
        cameras["1"] |= {"R": R.tolist(), "T": [-5000.0, 0.0, 0.0]}
        del cameras["1"]["t"]

    change(corpus, "camera", turn)
    camera = read(corpus)[0].camera
    np.testing.assert_allclose(camera.t_m, [0.0, 0.0, 5.0], atol=1e-9)


def test_the_image_size_of_the_annotations_is_kept(corpus):
    assert read(corpus)[0].image_size_wh is None
    change(corpus, "data", lambda data: [row.update(width=1000, height=1002) for row in data["images"]])
    assert read(corpus)[0].image_size_wh == (1000, 1002)


def test_the_official_videos_are_found_for_these_annotations(corpus):
    video = corpus[0] / "S9/Videos/Directions 1.54138969.mp4"
    write_video(video, iter(np.zeros((3, 16, 16, 3), np.uint8)), 50)
    report = StageReport("test")
    frames = read(corpus, told=report)
    assert frames[1].image_path == Path("S9/Videos/Directions 1.54138969.mp4/000001")
    assert frames[3].image_path.name == "s_09_act_02_subact_01_ca_02_000001.jpg"
    assert "54138969.mp4 has 3 frames" in report.faults[0] and "labels 4" in report.faults[0]
    assert report.skipped_counts == {"beyond the end of its video": 1}


def test_missing_folders_are_named(corpus, tmp_path):
    assert read((tmp_path / "nowhere", corpus[1])), "labels can be read before the images are there"
    with pytest.raises(FileNotFoundError, match="--annotations-path"):
        read((corpus[0], tmp_path))


def test_real_frames_are_read_and_their_joints_lie_in_their_boxes(samples):
    root = samples / "human36m"
    frames = list(human36m.read_frames(root / "images", root / "annotations", ["1", "5", "7", "8"], told=Nothing()))
    assert [frame.subject for frame in frames] == ["S1", "S5", "S7", "S8"]
    for frame in frames:
        assert (root / "images" / frame.image_path).is_file()
        low, high = frame.joints_px.min(0), frame.joints_px.max(0)
        assert (low >= frame.box_px[:2] - 3).all() and (high <= frame.box_px[2:] + 3).all()
        np.testing.assert_allclose(camera_to_pixel(frame.joints_cam_m, frame.camera), frame.joints_px, atol=0.01)
        assert 3 < frame.joints_cam_m[0, 2] < 8
