"""Human3.6M's 3DMPPE layout, on annotations written here and on the real samples where they are."""

import json
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel
from humanpose3d.sources import human36m


def fail(what, why):
    raise AssertionError(f"{what}: {why}")


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
    return list(human36m.read_frames(*corpus, subjects, **{"skip": fail, **options}))


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


def test_a_pattern_names_any_other_place(corpus):
    frame = read(corpus, image_pattern="{subject}_{action}_{camera}/frame_{number:04d}.jpg")[1]
    assert frame.image_path == Path("S9_Directions_54138969/frame_0002.jpg")


def test_a_subject_that_is_not_there_is_named_with_those_that_are(corpus):
    with pytest.raises(ValueError, match="S8.*there are S9"):
        read(corpus, ["8"])


def test_a_frame_without_its_label_is_told(corpus):
    path = corpus[1] / "Human36M_subject9_joint_3d.json"
    labels = json.loads(path.read_text())
    del labels["2"]["1"]["1"]
    path.write_text(json.dumps(labels))
    told = []
    assert len(read(corpus, skip=lambda what, why: told.append(what))) == 6
    assert len(told) == 2 and all(name.endswith("000002.jpg") for name in told)


@pytest.mark.parametrize("part, field", [("data", "images"), ("data", "annotations"), ("camera", "R")])
def test_annotations_without_a_field_are_named(corpus, part, field):
    path = corpus[1] / f"Human36M_subject9_{part}.json"
    values = json.loads(path.read_text())
    for holder in (values, *(value for value in values.values() if isinstance(value, dict))):
        holder.pop(field, None)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{path.name} lacks the field '{field}'"):
        read(corpus)


def test_half_a_file_is_named(corpus):
    path = corpus[1] / "Human36M_subject9_data.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="data.json is not whole JSON"):
        read(corpus)


def test_a_transposed_or_scaled_rotation_is_not_a_rotation(corpus):
    path = corpus[1] / "Human36M_subject9_camera.json"
    path.write_text(path.read_text().replace("1.0", "1.1"))
    with pytest.raises(ValueError, match="not a rotation"):
        read(corpus)


def test_missing_folders_are_named(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match="--images-path"):
        read((tmp_path / "nowhere", corpus[1]))
    with pytest.raises(FileNotFoundError, match="--annotations-path"):
        read((corpus[0], tmp_path))


def test_real_frames_are_read_and_their_joints_lie_in_their_boxes(samples):
    root = samples / "human36m"
    frames = list(human36m.read_frames(root / "images", root / "annotations", ["1", "5", "7", "8"], skip=fail))
    assert [frame.subject for frame in frames] == ["S1", "S5", "S7", "S8"]
    for frame in frames:
        assert (root / "images" / frame.image_path).is_file()
        low, high = frame.joints_px.min(0), frame.joints_px.max(0)
        assert (low >= frame.box_px[:2] - 3).all() and (high <= frame.box_px[2:] + 3).all()
        np.testing.assert_allclose(camera_to_pixel(frame.joints_cam_m, frame.camera), frame.joints_px, atol=0.01)
        assert 3 < frame.joints_cam_m[0, 2] < 8
