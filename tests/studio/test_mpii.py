"""The studio as MPII Human Pose: pictures, labels and the forms they are held in."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from humanpose3d.skeletons import MPII_16
from humanpose3d.studio.mpii import LAYOUTS, film_picture, image_name, subject_of, write_mpii

ASKED = {"frames_per_take": 2, "size": 64}
FILES = {
    "json": {"train.json", "valid.json", "gt_valid.mat"},
    "h5": {"train.h5", "valid.h5"},
    "mat": {"mpii_human_pose_v1_u12_1.mat", "train_images.txt", "valid_images.txt"},
    "spin": {"mpii_train.npz"},
    "mpii_annotations": {"mpii_annotations.json"},
}


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All layouts in one folder."""
    out = tmp_path_factory.mktemp("studio")
    for layout in LAYOUTS:
        report = write_mpii(out, **ASKED, layout=layout)
        images = 4 if layout == "spin" else 6
        assert report.counts["images"] + report.counts["already there"] == report.inputs == images
        assert report.exit_code == 0
    return out


def test_every_layout_writes_its_own_files_and_all_show_the_same_pictures(written):
    assert {path.name for path in (written / "annotations").iterdir()} == set().union(*FILES.values())
    assert sorted(path.name for path in (written / "images").iterdir()) == sorted(map(image_name, range(6)))
    assert [subject_of(index) for index in range(6)] == ["train", "train", "valid"] * 2


def test_images_are_the_filmed_pictures(written):
    _, image = film_picture(3, size=64)
    stored = cv2.imread(str(written / "images" / image_name(3)))[..., ::-1]
    assert abs(stored.astype(float) - image).mean() < 6


def test_labels_lie_on_the_image_and_two_people_have_a_half_each():
    pictures = [film_picture(index, size=64)[0] for index in range(12)]
    assert [len(picture.people) for picture in pictures[:4]] == [1, 1, 1, 2]
    left, right = pictures[3].people
    assert np.nanmax(left.joints_px[:, 0]) <= 31 and np.nanmin(right.joints_px[:, 0]) >= 32
    people = [person for picture in pictures for person in picture.people]
    joints = np.array([person.joints_px for person in people])
    assert np.nanmin(joints) >= 0 and np.nanmax(joints) <= 63
    assert np.isnan(joints).any(), "somebody is cut off"
    visible = np.array([person.visible for person in people])
    assert not visible[np.isnan(joints).any(-1)].any() and (visible == 0).sum() > np.isnan(joints).any(-1).sum()


def test_a_person_is_two_hundred_scales_tall_and_the_head_box_holds_the_head():
    upright = [film_picture(index, size=256)[0].people[0] for index in (1, 4)]
    for person in upright:
        height = np.ptp(person.joints_px[:, 1])
        assert 0.9 * height < 200 * person.scale < 1.3 * height
        x1, y1, x2, y2 = person.head_box
        middle = person.joints_px[[MPII_16.index("upper_neck"), MPII_16.index("head_top")]].mean(0)
        assert x1 <= middle[0] <= x2 and y1 <= middle[1] <= y2
        assert 0.05 < person.head_size_px / (200 * person.scale) < 0.25


def test_the_mat_nests_as_the_corpuss_own(written):
    release = scipy.io.loadmat(written / "annotations" / "mpii_human_pose_v1_u12_1.mat")["RELEASE"]
    assert release.shape == (1, 1)
    assert release.dtype.names == ("annolist", "img_train", "version", "single_person", "act", "video_list")
    found = release[0, 0]
    images = 6 + 2
    shapes = {"annolist": (1, images), "img_train": (1, images), "single_person": (images, 1), "act": (images, 1)}
    assert {name: found[name].shape for name in shapes} == shapes
    entry = found["annolist"][0, 3]
    assert entry.dtype.names == ("image", "annorect", "frame_sec", "vididx")
    assert entry["image"][0, 0]["name"][0] == image_name(3)
    rectangles = entry["annorect"]
    assert rectangles.shape == (1, 2)
    assert rectangles.dtype.names == ("x1", "y1", "x2", "y2", "annopoints", "scale", "objpos")
    point = rectangles[0, 0]["annopoints"][0, 0]["point"]
    assert point.shape[0] == 1 and set(point.dtype.names) == {"x", "y", "id", "is_visible"}
    visible = {int(one["id"][0, 0]): one["is_visible"] for one in point[0]}
    assert all(visible[joint].size == (joint not in (8, 9)) for joint in visible)
    assert found["act"][0, 0]["act_name"][0] and "annopoints" not in found["annolist"][0, 7]["annorect"].dtype.names


def test_the_h5_has_the_columns_of_pose_hg_train(written):
    with h5py.File(written / "annotations" / "valid.h5") as file:
        assert set(file) == {
            "center", "imgname", "index", "normalize", "part", "person", "scale", "torsoangle", "visible",
        }  # fmt: skip
        assert file["imgname"].dtype == "S13" and file["part"].shape == (2, 16, 2)
        assert all(file[name].dtype == np.float64 for name in file if name != "imgname")
    rows = json.loads((written / "annotations" / "valid.json").read_text())
    with h5py.File(written / "annotations" / "valid.h5") as file:
        for number, row in enumerate(rows):
            np.testing.assert_allclose(file["center"][number], [row["center"][0], row["center"][1] + 15 * row["scale"]])
            np.testing.assert_allclose(file["scale"][number], 1.25 * row["scale"])


def test_spin_holds_whole_people_to_train_on(written):
    with np.load(written / "annotations" / "mpii_train.npz") as data:
        rows = len(data["imgname"])
        assert (data["part"].shape, data["S"].shape) == ((rows, 24, 3), (rows, 24, 4))
        assert (data["part"][:, :, 2].sum(-1) == 16).all()
        assert all(subject_of(list(map(image_name, range(6))).index(name[7:])) == "train" for name in data["imgname"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_seed_gives_the_same_bytes_after_an_interruption_and_by_two_workers(tmp_path, layout):
    asked = ASKED | {"layout": layout, "frames_per_take": 1, "size": 32}
    write_mpii(tmp_path / "first", **asked)
    whole = _bytes(tmp_path / "first")
    (tmp_path / "first" / "images" / image_name(1)).unlink()
    assert write_mpii(tmp_path / "first", **asked).counts["images"] == 1
    assert _bytes(tmp_path / "first") == whole
    if layout == "mat":  # a process takes a second to start
        write_mpii(tmp_path / "second", **asked, workers=2)
        assert _bytes(tmp_path / "second") == whole


def test_requests_that_make_no_sense_are_refused_before_anything_is_written(tmp_path, written):
    for asked, message in (
        ({"layout": "coco"}, "as json, h5, mat, spin, mpii_annotations, not as 'coco'"),
        ({"subjects": ("test",)}, "no subject 'test'; it has train, valid"),
        ({"frames_per_take": 0}, "at least 1 image"),
        ({"layout": "spin", "subjects": ("valid",)}, "ask for subject train"),
    ):
        with pytest.raises(ValueError, match=message):
            write_mpii(tmp_path / "new", **asked)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="choose another folder"):
        write_mpii(written, **ASKED, seed=1)
