"""MPII Human Pose: the same people from every form of its annotations, and nobody of the validation set in training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from humanpose3d.reports import StageReport
from humanpose3d.skeletons import MPII_16, SPIN_24, shared_joints
from humanpose3d.sources import mpii
from humanpose3d.sources.reading import BrokenFile, read_mat
from humanpose3d.studio.mpii import LAYOUTS, film_picture, image_name, write_mpii

IMAGES, SIZE = 4, 64  # of `valid`; twice as many of `train`
ASKED = {"frames_per_take": IMAGES, "size": SIZE}
VALID = [index for index in range(3 * IMAGES) if index % 3 == 2]
MAT = "mpii_human_pose_v1_u12_1.mat"
TOLERANCE_PX = {"json": 1e-3, "mat": 1e-3, "mpii_annotations": 1e-3, "h5": 1.0, "spin": 1.0}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory) -> dict[str, Path]:
    """layout -> a folder with its annotations and pictures."""
    root = tmp_path_factory.mktemp("mpii")
    for layout in LAYOUTS:
        write_mpii(root / layout, **ASKED, layout=layout)
    return {layout: root / layout for layout in LAYOUTS}


@pytest.fixture(scope="module")
def truth():
    """(image, number) -> the studio's own labels."""
    pictures = [film_picture(index, size=SIZE)[0] for index in range(3 * IMAGES)]
    return {(picture.name, number): one for picture in pictures for number, one in enumerate(picture.people)}


@pytest.fixture
def corpus(layouts, tmp_path):
    """A function that copies files of the layouts into one folder; its result is the corpus."""

    def gather(*files: str) -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for file in files:
            source = next(path for root in layouts.values() if (path := root / "annotations" / file).exists())
            shutil.copy(source, tmp_path / "annotations")
        return tmp_path

    return gather


def read(root: Path, *subjects: str, file: str = "", told: StageReport | None = None, **options) -> list:
    """The frames; nothing may be wrong unless somebody listens."""
    report = told or StageReport("chunker")
    found = list(mpii.read_frames(root / "images", root / "annotations" / file, subjects, told=report, **options))
    assert told is not None or (not report.faults and not report.skipped), (report.faults, report.skipped)
    return found


def places(frames) -> list[tuple[str, int]]:
    return [(frame.image_path.name, int(frame.key.rsplit("p", 1)[1])) for frame in frames]


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# ---------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_gives_the_joints_and_boxes_of_the_people_that_were_filmed(layouts, truth, layout):
    frames = read(layouts[layout], "train")
    whole = [place for place, person in truth.items() if np.isfinite(person.joints_px).all()]
    expected = [place for place in truth if _index(place[0]) % 3 != 2 and (layout != "spin" or place in whole)]
    if layout == "spin":  # who are cut off are not in it, so that the others' numbers move up
        assert len(frames) == len(expected)
        pairs = [(frame, _nearest(frame, truth)) for frame in frames]
    else:
        assert places(frames) == sorted(expected)
        pairs = [(frame, truth[place]) for frame, place in zip(frames, places(frames), strict=True)]
    for frame, person in pairs:
        joints_px, score = _as_mpii(frame)
        np.testing.assert_allclose(joints_px, person.joints_px, atol=TOLERANCE_PX[layout])
        labelled = np.isfinite(person.joints_px).all(-1)
        np.testing.assert_array_equal(score > 0, labelled)
        half = 100.0 * person.scale
        box = [person.centre[0] - half, person.centre[1] - half, person.centre[0] + half, person.centre[1] + half]
        np.testing.assert_allclose(frame.box_px, box, atol=0.01)
        if layout in ("h5", "mat", "mpii_annotations"):
            heads = [MPII_16.index("upper_neck"), MPII_16.index("head_top")]
            seen = (person.visible > 0) | (np.isin(np.arange(16), heads) & labelled)
            np.testing.assert_array_equal(score, np.where(labelled, np.where(seen, 1.0, 0.5), 0.0))
        if layout in ("h5", "mat"):
            assert frame.head_size_px == pytest.approx(person.head_size_px)


def _index(image: str) -> int:
    return [image_name(index) for index in range(3 * IMAGES)].index(image)


def _nearest(frame, truth):
    middle = (frame.box_px[:2] + frame.box_px[2:]) / 2
    people = [person for (image, _), person in truth.items() if image == frame.image_path.name]
    return min(people, key=lambda person: np.abs(middle - person.centre).sum())


def _as_mpii(frame):
    if frame.skeleton == MPII_16.name:
        return frame.joints_px, frame.joint_score
    assert frame.skeleton == SPIN_24.name and frame.joints_cam_m is None, "a fitted body is no label"
    ours, spin = shared_joints(MPII_16, SPIN_24)
    assert len(ours) == 16 and (frame.joint_score > 0).sum() == 16
    return frame.joints_px[spin], frame.joint_score[spin]


def test_what_a_frame_says_of_itself(layouts):
    frames = read(layouts["mat"], "train", "valid")
    assert [frame.subject for frame in frames] == sorted(frame.subject for frame in frames)
    keys = [frame.key for frame in frames]
    assert len(set(keys)) == len(keys) and not any(set(key) & set("./ ") for key in keys)
    assert "mpii-train-004000012-p1" in keys
    for frame in frames:
        assert (frame.corpus, frame.camera_id, frame.fps, frame.camera) == ("mpii", "", None, None)
        assert frame.joints_px.dtype == frame.joint_score.dtype == frame.box_px.dtype == np.float32
        assert (frame.source_file, frame.valid, bool(frame.action)) == (MAT, True, True)
        assert (layouts["mat"] / "images" / frame.image_path).is_file()


def test_a_frame_step_takes_whole_images(layouts):
    frames, some = read(layouts["h5"], "train"), read(layouts["h5"], "train", frame_step=3)
    assert sorted({frame.frame_index for frame in frames}) == list(range(2 * IMAGES))
    assert [frame.key for frame in some] == [frame.key for frame in frames if frame.frame_index in (0, 3, 6)]


def test_reading_twice_gives_the_same(layouts):
    assert [frame.key for frame in read(layouts["json"], "valid")] == [
        frame.key for frame in read(layouts["json"], "valid")
    ]


def test_images_are_found_below_the_corpuss_folder_too(layouts):
    root = layouts["spin"]
    told = StageReport("chunker")
    frame = next(mpii.read_frames(root, root / "annotations", ["train"], told=told))
    assert (root / frame.image_path).is_file()


# ---------------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("layout", ["json", "h5", "mpii_annotations"])
def test_validation_people_are_those_of_the_list(layouts, layout):
    assert places(read(layouts[layout], "valid")) == [(image_name(index), 0) for index in VALID]


@pytest.mark.parametrize("of_list", ["valid.h5", "valid.json", "mpii_annotations.json"])
def test_the_mat_takes_its_split_from_the_list_beside_it(corpus, of_list):
    root = corpus(MAT, of_list)
    assert places(read(root, "valid")) == [(image_name(index), 0) for index in VALID]
    assert {_index(image) % 3 for image, _ in places(read(root, "train"))} == {0, 1}


def test_by_a_list_of_images_everybody_in_them_is_for_validation(corpus, truth):
    root = corpus(MAT, "valid_images.txt")
    expected = sorted(place for place in truth if _index(place[0]) in VALID)
    told = StageReport("chunker")
    assert places(read(root, "valid", told=told)) == expected and len(expected) > len(VALID)
    assert len(told.notes) == 1 and "names images, not people" in told.notes[0] and not told.faults


def test_without_a_list_the_mat_gives_neither_train_nor_valid_but_all(corpus, truth):
    root = corpus(MAT)
    for subject in mpii.SPLITS:
        with pytest.raises(ValueError, match=r"does not tell which.*valid_images\.txt.*--subjects trainval"):
            read(root, subject)
    assert places(read(root, "trainval")) == sorted(truth)
    assert {frame.subject for frame in read(root, "trainval")} == {"trainval"}


def test_a_file_that_tells_is_read_where_the_mat_cannot(corpus):
    root = corpus(MAT, "train.h5")
    assert {frame.source_file for frame in read(root, "train")} == {"train.h5"}


def test_unlabelled_people_and_test_images_are_not_there(layouts):
    release = read_mat(layouts["mat"] / "annotations" / MAT)["RELEASE"]
    images = [entry.image.name for entry in release.annolist]
    found = {image for image, _ in places(read(layouts["mat"], "train", "valid"))}
    assert set(images) - found == {"999000000.jpg", "999000001.jpg"}
    assert len(release.annolist[0].annorect) == 2, "one of them is unlabelled"


def test_people_to_train_on_in_validation_images_are_left_out_and_told(corpus):
    root = corpus("train.json", "valid.json")
    path = root / "annotations" / "train.json"
    rows = json.loads(path.read_text())
    rows[0]["image"] = image_name(VALID[0])
    path.write_text(json.dumps(rows))
    told = StageReport("chunker")
    assert len(read(root, "train", told=told)) == len(rows) - 1
    assert len(told.faults) == 1 and f"1 of {len(rows)} people to train on stand in images that" in told.faults[0]


def test_a_row_with_words_for_visibility_is_left_out_by_name(corpus):
    root = corpus("valid.json")
    path = root / "annotations" / "valid.json"
    rows = json.loads(path.read_text())
    rows[0]["joints_vis"] = ["yes"] * 16
    path.write_text(json.dumps(rows))
    told = StageReport("chunker")
    assert len(read(root, "valid", told=told)) == len(rows) - 1
    assert told.skipped["joints_vis is not of 16 joints"] == [rows[0]["image"]]


def test_left_over_joints_of_the_other_version_of_the_list_are_taken_as_missing(corpus, truth):
    """It was written over an older list in memory: who lacks a joint has that of whoever stood there before."""
    root = corpus("mpii_annotations.json")
    path = root / "annotations" / "mpii_annotations.json"
    older = json.loads(path.read_text())
    first = next(place for place, row in enumerate(older) if row["isValidation"])
    somebody = {"isValidation": 0.0, "people_index": 2.0, "objpos": [1, 2], "joint_self": [[5.0, 6.0, 1.0]] * 16}
    newer = [*older[: first + 1], older[first] | somebody, *older[first + 1 :]]  # whom the older list did not have
    strangers = 0
    for place, before in enumerate(older):
        pairs = list(zip(newer[place]["joint_self"], before["joint_self"], strict=True))
        strangers += sum(new[:2] == [0, 0] != old[:2] for new, old in pairs)
        newer[place] = newer[place] | {"joint_self": [old if new[:2] == [0, 0] else new for new, old in pairs]}
    assert strangers > 3
    path.write_text(json.dumps(newer))
    told = StageReport("chunker")
    frames = read(root, "train", "valid", told=told)
    assert len(frames) == len(older)
    for frame, place in zip(frames, places(frames), strict=True):
        np.testing.assert_allclose(frame.joints_px, truth[place].joints_px, atol=1e-3)
    assert len(told.faults) == 1
    assert f"1 of the people to train on stand in validation images and {strangers} joints are other" in told.faults[0]


def test_subjects_that_mpii_does_not_have_are_named_with_those_it_has(layouts):
    with pytest.raises(ValueError, match="no subject S1; it has train, valid, trainval"):
        read(layouts["json"], "train", "S1")
    with pytest.raises(ValueError, match="ask for it alone"):
        read(layouts["mat"], "trainval", "valid")
    with pytest.raises(ValueError, match=r"valid\.json holds nobody of 'train'"):
        read(layouts["json"], "train", file="valid.json")


# --------------------------------------------------------------------------------------------- one form from another


@pytest.mark.parametrize("of_heads", ["valid.h5", "gt_valid.mat", MAT])
def test_the_json_takes_head_sizes_from_what_lies_beside_it(corpus, truth, of_heads):
    frames = read(corpus("valid.json", of_heads), "valid", file="valid.json")
    for frame, place in zip(frames, places(frames), strict=True):
        assert frame.head_size_px == pytest.approx(truth[place].head_size_px)


def test_the_json_alone_has_no_head_sizes_and_knows_of_no_hidden_joint(corpus, truth):
    told = StageReport("chunker")
    alone, helped = read(corpus("valid.json"), "valid", told=told), read(corpus("valid.json", "valid.h5"), "valid")
    assert len(told.notes) == 1 and "valid.h5 or gt_valid.mat beside it would" in told.notes[0] and not told.faults
    assert all(frame.head_size_px is None for frame in alone)
    for first, second in zip(alone, helped, strict=True):
        np.testing.assert_array_equal(first.joints_px, second.joints_px)
        assert set(first.joint_score) <= {0.0, 1.0}
    assert any((frame.joint_score == 0.5).any() for frame in helped)


def test_head_sizes_of_other_people_are_refused(corpus):
    root = corpus("valid.json", "gt_valid.mat")
    path = root / "annotations" / "valid.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    told = StageReport("chunker")
    frames = read(root, "valid", told=told)
    assert len(frames) == IMAGES and all(frame.head_size_px is None for frame in frames)
    assert len(told.faults) == 1 and "gt_valid.mat: its joints are not those of valid.json" in told.faults[0]


def test_the_file_that_tells_most_is_read_and_a_named_one_before_all(corpus):
    root = corpus(MAT, "valid.json", "valid.h5", "mpii_annotations.json")
    assert {frame.source_file for frame in read(root, "valid")} == {MAT}
    assert {frame.source_file for frame in read(root, "valid", file="valid.h5")} == {"valid.h5"}
    (root / "annotations" / MAT).unlink()
    assert {frame.source_file for frame in read(root, "valid")} == {"valid.json"}


def test_annotations_may_lie_one_folder_deeper(corpus):
    root = corpus("valid.json", "valid.h5")
    (root / "annotations" / "annot").mkdir()
    for name in ("valid.json", "valid.h5"):
        shutil.move(root / "annotations" / name, root / "annotations" / "annot")
    assert all(frame.head_size_px for frame in read(root, "valid"))


# ------------------------------------------------------------------------------------- what the forms differ in


def _change_h5(path: Path, change) -> None:
    with h5py.File(path) as file:
        columns = {name: column[()] for name, column in file.items()}
    change(columns)
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            file[name] = column


def test_image_names_may_be_stored_letter_by_letter(corpus):
    root = corpus("valid.h5")
    before = read(root, "valid")

    def spell(columns):
        names = [name.ljust(16, b"\0") for name in columns["imgname"]]
        columns["imgname"] = np.array([[float(letter) for letter in name] for name in names])

    _change_h5(root / "annotations" / "valid.h5", spell)
    assert [frame.image_path for frame in read(root, "valid")] == [frame.image_path for frame in before]


def test_raw_centres_are_told_from_adjusted_ones_by_being_whole(corpus):
    root = corpus("valid.h5", "valid.json")
    expected = read(root, "valid", file="valid.json")

    def as_annot(columns):
        columns["center"][:, 1] -= 15 * columns["scale"] / 1.25
        columns["scale"] /= 1.25

    def with_test_images(columns):
        columns["istrain"] = np.array([1.0] * (IMAGES - 1) + [0.0])

    path = root / "annotations" / "annot.h5"
    for change, people in ((lambda columns: None, IMAGES), (as_annot, IMAGES), (with_test_images, IMAGES - 1)):
        shutil.copy(root / "annotations" / "valid.h5", path)
        _change_h5(path, change)
        frames = read(root, "trainval", file="annot.h5")
        assert len(frames) == people
        for frame, same in zip(frames, expected, strict=False):
            np.testing.assert_allclose(frame.box_px, same.box_px, atol=1e-3)


def test_a_corpus_of_one_image_is_read_though_matlab_makes_no_list_of_it(layouts, corpus, truth):
    root = corpus(MAT, "valid.h5")
    path = root / "annotations" / MAT
    release = scipy.io.loadmat(path)["RELEASE"][0, 0]
    point = release["annolist"][0, 1]["annorect"][0, 0]["annopoints"][0, 0]["point"]
    for one in point[0]:  # some of the corpus's are text
        one["is_visible"] = np.array(["1"]) if one["is_visible"].size else one["is_visible"]
    one_image = {
        name: release[name][:, 1:2] if name in ("annolist", "img_train") else release[name][1:2]
        for name in ("annolist", "img_train", "act")
    }
    scipy.io.savemat(path, {"RELEASE": one_image})
    (frame,) = read(root, "train")
    np.testing.assert_allclose(frame.joints_px, truth[image_name(1), 0].joints_px, atol=1e-3)
    assert set(frame.joint_score) <= {0.0, 1.0}


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("file", ["train.json", "train.h5", "mpii_annotations.json", "mpii_train.npz"])
def test_a_cut_file_is_named_and_the_rest_goes_on(corpus, file):
    root = corpus(file)
    cut_in_half(root / "annotations" / file)
    with pytest.raises(BrokenFile, match=f"{file}: not a whole|{file}: not whole"):
        read(root, "train", told=StageReport("chunker"))
    corpus("valid.h5")
    told = StageReport("chunker")
    assert len(read(root, "train", "valid", told=told)) == IMAGES
    assert told.faults and all(file in fault for fault in told.faults)


def test_a_cut_mat_is_named_and_another_form_is_read(corpus):
    root = corpus(MAT, "train.json")
    cut_in_half(root / "annotations" / MAT)
    told = StageReport("chunker")
    assert {frame.source_file for frame in read(root, "train", told=told)} == {"train.json"}
    assert len(told.faults) == 1 and f"{MAT}: not a whole MATLAB file" in told.faults[0]


def test_a_broken_list_is_told_and_the_next_one_asked(corpus):
    root = corpus(MAT, "valid.h5", "valid_images.txt")
    cut_in_half(root / "annotations" / "valid.h5")
    told = StageReport("chunker")
    assert {_index(image) % 3 for image, _ in places(read(root, "train", told=told))} == {0, 1}
    assert len(told.faults) == 1 and "valid.h5" in told.faults[0]


def _another_version(path: Path) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps([{"image": "1.jpg", "center": [1, 2], "scale": 1.0}]))
    elif path.suffix == ".h5":
        _change_h5(path, lambda columns: columns.pop("normalize"))
    elif path.suffix == ".npz":
        np.savez(path, imgname=np.array(["images/1.jpg"]), center=np.ones((1, 2)), scale=np.ones(1))
    else:
        scipy.io.savemat(path, {"dataset": 1})


@pytest.mark.parametrize(
    "file, message",
    [
        ("valid.json", r"valid\.json: its people have no labelled joints.*test\.json has none"),
        ("valid.h5", r"valid\.h5: has no 'normalize' .*; expected train\.h5"),
        ("mpii_train.npz", r"mpii_train\.npz: has no 'part' .*; expected SPIN's"),
        (MAT, r"\.mat: has no 'RELEASE' \(it holds dataset\)"),
    ],
)
def test_a_file_of_another_version_says_what_it_lacks(corpus, file, message):
    root = corpus(file)
    _another_version(root / "annotations" / file)
    subject = {"valid.json": "valid", "valid.h5": "valid"}.get(file, "train")
    told = StageReport("chunker")
    with pytest.raises(BrokenFile, match=message):
        read(root, subject, told=told)


def test_columns_that_differ_in_length_are_counted(corpus):
    root = corpus("valid.h5")
    _change_h5(root / "annotations" / "valid.h5", lambda columns: columns.update(scale=columns["scale"][1:]))
    with pytest.raises(BrokenFile, match=rf"columns differ in length \(imgname {IMAGES}, .*scale {IMAGES - 1}"):
        read(root, "valid", told=StageReport("chunker"))


def test_a_person_with_a_broken_row_is_skipped_by_name(corpus):
    root = corpus("valid.json")
    path = root / "annotations" / "valid.json"
    rows = json.loads(path.read_text())
    rows[0]["joints"] = rows[0]["joints"][:15]
    del rows[1]["scale"]
    rows[2]["joints"] = [[-1.0, -1.0]] * 16
    path.write_text(json.dumps(rows))
    told = StageReport("chunker")
    assert len(read(root, "valid", told=told)) == IMAGES - 3
    assert told.skipped == {
        "'joints' is not 16 x 2 numbers": [rows[0]["image"]],
        "'scale' is not a number": [rows[1]["image"]],
        "no joint is labelled": [rows[2]["image"]],
    }


def test_a_person_named_twice_is_there_once(corpus):
    root = corpus("valid.json", "valid.h5")
    path = root / "annotations" / "valid.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0]]))
    told = StageReport("chunker")
    assert len(read(root, "valid", told=told)) == IMAGES
    assert told.skipped == {"named twice": [f"{rows[0]['image']} p1"]}


def test_an_image_named_twice_in_the_mat_is_there_once(corpus, truth):
    root = corpus(MAT, "valid.h5")
    path = root / "annotations" / MAT
    content = scipy.io.loadmat(path)
    annolist = content["RELEASE"][0, 0]["annolist"]
    annolist[0, 1]["image"] = annolist[0, 0]["image"]
    scipy.io.savemat(path, {"RELEASE": content["RELEASE"]})
    told = StageReport("chunker")
    found = places(read(root, "train", told=told))
    assert found == sorted(place for place in truth if _index(place[0]) % 3 != 2 and _index(place[0]) != 1)
    assert len(told.faults) == 1 and f"names {image_name(0)} twice" in told.faults[0]


def test_a_missing_folder_or_an_empty_one_says_what_belongs_there(layouts, tmp_path):
    told = StageReport("chunker")
    with pytest.raises(FileNotFoundError, match="--annotations-path"):
        list(mpii.read_frames(tmp_path, tmp_path / "nowhere", ["train"], told=told))
    with pytest.raises(FileNotFoundError, match=r"one of mpii_human_pose\*\.mat, train\.json, train\.h5"):
        list(mpii.read_frames(tmp_path, tmp_path, ["train"], told=told))
    with pytest.raises(ValueError, match="--image-pattern"):
        read(layouts["json"], "train", image_pattern="{number}.jpg")


# ---------------------------------------------------------------------------------------------------- real samples


def test_the_real_json_and_h5_hold_the_same_five_people(samples):
    images, folder = samples / "mpii" / "images", samples / "mpii"
    told = StageReport("chunker")
    few = list(mpii.read_frames(images, folder / "annotations.json", ["valid"], told=told))
    many = {
        (frame.image_path, *frame.box_px.round(2)): frame
        for frame in mpii.read_frames(images, folder / "valid.h5", ["valid"], told=told)
    }
    assert (len(few), len(many), told.faults, told.total_skipped) == (5, 2957, [], 0)
    for frame in few:
        same = many[frame.image_path, *frame.box_px.round(2)]  # centre and scale, the adjustment undone
        np.testing.assert_array_equal(np.trunc(frame.joints_px), same.joints_px)  # .h5 has whole numbers
        np.testing.assert_array_equal(frame.joint_score, same.joint_score)
        assert frame.head_size_px == same.head_size_px and 40 < frame.head_size_px < 130
        assert (images / frame.image_path).is_file()
        # upper neck and top of the head span 0.8 of the head box's diagonal, of which the head size is 0.6
        neck, top = frame.joints_px[[MPII_16.index("upper_neck"), MPII_16.index("head_top")]]
        assert np.linalg.norm(top - neck) / frame.head_size_px == pytest.approx(4 / 3, rel=0.02)


def test_real_joints_lie_near_their_boxes(samples):
    folder = samples / "mpii"
    frames = list(mpii.read_frames(folder / "images", folder / "valid.h5", ["valid"], told=StageReport("chunker")))
    outside = []
    for frame in frames:
        centre, half = (frame.box_px[:2] + frame.box_px[2:]) / 2, (frame.box_px[2] - frame.box_px[0]) / 2
        outside.append(np.abs(frame.joints_px - centre).max(-1)[frame.joint_score > 0] / half)
    shares = np.concatenate(outside)
    assert (shares > 1).mean() == pytest.approx(0.041, abs=0.001)
    assert (shares > 1.5).mean() < 0.002
