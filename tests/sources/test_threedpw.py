"""3DPW's sequence files and SPIN's tables, written by the studio and then harmed; real samples where they are."""

import copy
import json
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel
from humanpose3d.reports import StageReport
from humanpose3d.sources import threedpw
from humanpose3d.sources.reading import read_pickle
from humanpose3d.studio.free_body import free_body
from humanpose3d.studio.threedpw import SUBJECTS, write_threedpw
from tests import bodies

SIZE, FRAMES = 48, 4
WALKING, SITTING, GREETING = "train/courtyard_walking_00", "train/flat_sitting_00", "train/downtown_greeting_00"


class Nothing:
    """Fails where a reader leaves anything out."""

    def skip(self, name, reason):
        raise AssertionError(f"{name}: {reason}")

    def fault(self, message):
        raise AssertionError(message)


def read(folder, subjects=("train", "validation", "test"), told=None, **options):
    return list(threedpw.read_frames(folder, folder, subjects, told=told or Nothing(), **options))


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    """The studio's six sequences."""
    out = tmp_path_factory.mktemp("threedpw")
    write_threedpw(out, frames_per_take=FRAMES, size=SIZE)
    return out


@pytest.fixture(scope="session")
def spin(tmp_path_factory):
    out = tmp_path_factory.mktemp("spin")
    write_threedpw(out, frames_per_take=FRAMES, size=SIZE, layout="spin")
    return out


@pytest.fixture
def corpus(studio, tmp_path):
    """A copy of the labels to harm, without images."""
    for split in threedpw.SPLITS:
        (tmp_path / "sequenceFiles" / split).mkdir(parents=True)
    for subject in SUBJECTS:
        path_of(tmp_path, subject).write_bytes(path_of(studio, subject).read_bytes())
    return tmp_path


def path_of(folder: Path, subject: str) -> Path:
    return folder / "sequenceFiles" / f"{subject}.pkl"


def change(folder: Path, subject: str, changed) -> None:
    """Writes the sequence's file anew, after `changed` has been at its content."""
    data = copy.deepcopy(read_pickle(path_of(folder, subject)))
    changed(data)
    path_of(folder, subject).write_bytes(pickle.dumps(data, protocol=2))


# ------------------------------------------------------------------------------------------- sequence files


def test_frames_come_in_order_with_names_of_the_corpus(studio):
    frames = read(studio)
    assert [(frame.subject, frame.frame_index) for frame in frames] == [
        (subject, index) for subject in sorted(SUBJECTS) for index in range(FRAMES)
    ]
    assert len({frame.key for frame in frames}) == len(frames)
    first = next(frame for frame in frames if frame.subject == WALKING)
    assert first.key == "3dpw-train_courtyard_walking_00-handheld-000000-p0"
    assert first.image_path == Path("imageFiles/courtyard_walking_00/image_00000.jpg")
    assert (first.corpus, first.action, first.fps) == ("threedpw", "courtyard_walking_00", 30.0)
    assert (first.skeleton, first.image_size_wh, first.valid) == ("smpl_24", (SIZE, SIZE), True)
    assert all((studio / frame.image_path).is_file() for frame in frames)
    assert {frame.gender for frame in frames} == {"male", "female"}


def test_smpl_posed_by_the_labels_stands_on_the_labelled_joints_in_the_camera(studio):
    for frame in read(studio):
        rest_m = free_body().joints_m(frame.smpl_betas)
        posed = bodies.pose_joints(rest_m, frame.smpl_pose_rad, frame.smpl_trans_m)
        np.testing.assert_allclose(posed, frame.joints_cam_m, atol=1e-4)
        assert frame.smpl_pose_rad.shape == (24, 3) and frame.smpl_betas.shape == (10,)
        assert {frame.smpl_pose_rad.dtype, frame.smpl_trans_m.dtype, frame.joints_cam_m.dtype} == {np.dtype("f4")}


def test_joints_are_the_files_seen_by_each_images_own_camera(studio):
    for frame in read(studio):
        data = read_pickle(path_of(studio, frame.subject))
        world = data["jointPositions"][0][frame.frame_index].reshape(24, 3)
        expected = np.array([data["cam_poses"][frame.frame_index] @ [*joint, 1.0] for joint in world])[:, :3]
        np.testing.assert_allclose(frame.joints_cam_m, expected, atol=1e-6)
        np.testing.assert_allclose(camera_to_pixel(expected, frame.camera), frame.joints_px, atol=1e-3)
        np.testing.assert_array_equal(frame.camera.R, data["cam_poses"][frame.frame_index, :3, :3])
        low, high = frame.joints_px.min(0), frame.joints_px.max(0)
        np.testing.assert_allclose(frame.box_px[2:] - frame.box_px[:2], 1.2 * (high - low), rtol=1e-4)
        np.testing.assert_allclose(frame.box_px[2:] + frame.box_px[:2], low + high, rtol=1e-4)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["train"], [WALKING, GREETING, SITTING]),
        (["flat_sitting_00"], [SITTING]),
        ([SITTING, "train"], [WALKING, GREETING, SITTING]),
        (["validation", "courtyard_walking_00"], [WALKING, "validation/outdoors_directions_00"]),
    ],
)
def test_splits_and_sequences_are_asked_for_by_name(studio, asked, found):
    assert [frame.subject for frame in read(studio, asked)] == [name for name in found for _ in range(FRAMES)]


def test_unknown_sequences_are_refused_with_those_there_are(studio):
    with pytest.raises(ValueError, match=r"no 3DPW labels of flat_guitar_00 .* train, validation, test, courtyard_wal"):
        read(studio, ["train", "flat_guitar_00"])


def test_a_frame_step_takes_every_nth_image(studio):
    assert [frame.frame_index for frame in read(studio, [WALKING], frame_step=3)] == [0, 3]


def test_images_count_entries_and_not_frame_ids(corpus):
    change(corpus, WALKING, lambda data: data.update(img_frame_ids=np.array([9, 11, 13, 15], np.uint16)))
    assert [frame.image_path.name for frame in read(corpus, [WALKING])] == [f"image_0000{n}.jpg" for n in range(FRAMES)]


def test_two_people_come_one_after_the_other(corpus):
    other = read_pickle(path_of(corpus, SITTING))

    def join(data):
        for name in ("poses", "trans", "betas", "genders", "jointPositions", "poses2d", "campose_valid"):
            data[name].append(other[name][0])

    change(corpus, WALKING, join)
    frames = read(corpus, [WALKING])
    assert [(frame.key[-2:], frame.frame_index) for frame in frames] == [
        (person, index) for person in ("p0", "p1") for index in range(FRAMES)
    ]
    np.testing.assert_allclose(frames[FRAMES].smpl_betas, other["betas"][0], rtol=1e-6)


def test_of_300_betas_the_first_ten_are_read(corpus):
    few = read(corpus, [WALKING])[0].smpl_betas
    change(corpus, WALKING, lambda data: data.update(betas=[np.append(data["betas"][0], np.ones(290))]))
    np.testing.assert_array_equal(read(corpus, [WALKING])[0].smpl_betas, few)


def test_frames_that_the_corpus_does_not_score_are_marked(corpus):
    def spoil(data):
        data["campose_valid"][0][1] = 0
        data["poses2d"][0][2] = 0.0

    change(corpus, WALKING, spoil)
    assert [frame.valid for frame in read(corpus, [WALKING])] == [True, False, False, True]
    change(corpus, WALKING, lambda data: data.pop("poses2d"))
    assert [frame.valid for frame in read(corpus, [WALKING])] == [True, False, True, True]


@pytest.mark.parametrize("poses2d", [[None], [np.array(3.0)], [[[1.0, 2.0], [3.0]]]])
def test_malformed_keypoints_cost_their_own_sequence(corpus, poses2d):
    change(corpus, WALKING, lambda data: data.update(poses2d=poses2d))
    told = StageReport("test")
    frames = read(corpus, ["train", "validation"], told)
    assert frames and len(told.faults) == 1 and "'poses2d'" in told.faults[0] and "walking" in told.faults[0]


def test_joints_behind_the_camera_have_no_pixel(corpus):
    def step_back(data):
        depth = read(corpus, [WALKING])[1].joints_cam_m[:, 2]
        data["cam_poses"][1, 2, 3] -= np.median(depth)
        data["cam_poses"][2, 2, 3] -= 50.0

    change(corpus, WALKING, step_back)
    told = StageReport("test")
    frames = read(corpus, [WALKING], told)
    assert [frame.frame_index for frame in frames] == [0, 1, 3]
    behind = frames[1].joints_cam_m[:, 2] <= 0
    assert 0 < behind.sum() < 24
    np.testing.assert_array_equal(np.isnan(frames[1].joints_px).all(-1), behind)
    assert np.isfinite(frames[1].box_px).all() and frames[1].joint_score.all()
    assert told.skipped == {"the person is behind the camera": ["3dpw-train_courtyard_walking_00-handheld-000002-p0"]}


def test_missing_numbers_stay_missing(corpus):
    def lose(data):
        data["jointPositions"][0][1, 3 * 20 : 3 * 21] = np.nan  # a wrist
        data["poses"][0][2, 7] = np.nan
        data["jointPositions"][0][3] = np.nan

    change(corpus, WALKING, lose)
    told = StageReport("test")
    frames = read(corpus, [WALKING], told)
    assert frames[1].joint_score.tolist() == [float(joint != 20) for joint in range(24)]
    assert np.isnan(frames[1].joints_cam_m[20]).all() and np.isnan(frames[1].joints_px[20]).all()
    assert frames[2].smpl_pose_rad is None and frames[2].smpl_trans_m is not None
    assert told.skipped == {"its label is incomplete": ["3dpw-train_courtyard_walking_00-handheld-000003-p0"]}


class _Python2Pickler(pickle._Pickler):
    """Strings and bytes as Python 2 wrote both: byte strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def test_files_of_python_2_are_read_as_they_are(corpus, tmp_path):
    before = read(corpus, [WALKING])
    data = read_pickle(path_of(corpus, WALKING))
    data["sequence"] = np.array(b"courtyard_walking_00")
    data["genders"] = [np.bytes_(data["genders"][0])]
    with path_of(corpus, WALKING).open("wb") as file:
        _Python2Pickler(file, protocol=2).dump(data)
    content = path_of(corpus, WALKING).read_bytes()
    path_of(corpus, WALKING).write_bytes(content.replace(b"cnumpy._core.", b"cnumpy.core."))
    assert b"_codecs" not in content and b"cnumpy._core." in content
    for old, new in zip(before, read(corpus, [WALKING]), strict=True):
        assert (old.key, old.image_path, old.gender) == (new.key, new.image_path, new.gender)
        np.testing.assert_array_equal(old.smpl_pose_rad, new.smpl_pose_rad)


def test_images_are_named_after_the_sequence_in_the_file_and_found_where_archives_unpack(corpus):
    path_of(corpus, WALKING).rename(path_of(corpus, "train/renamed"))
    (corpus / "imageFiles/imageFiles/courtyard_walking_00").mkdir(parents=True)
    frame = read(corpus, ["renamed"])[0]
    assert frame.image_path == Path("imageFiles/imageFiles/courtyard_walking_00/image_00000.jpg")
    (corpus / "again").mkdir()
    (corpus / "sequenceFiles").rename(corpus / "again/sequenceFiles")
    (corpus / "again").rename(corpus / "sequenceFiles")
    assert read(corpus, ["renamed"])[0].key == frame.key
    inner = corpus / "sequenceFiles/sequenceFiles"
    assert next(threedpw.read_frames(corpus, inner, ["renamed"], told=Nothing())).key == frame.key


def test_frames_whose_images_are_missing_come_all_the_same(corpus):
    assert [frame.image_path.parent.as_posix() for frame in read(corpus, [WALKING])] == [
        "imageFiles/courtyard_walking_00"
    ] * FRAMES


# ------------------------------------------------------------------------------------------------ bad input


def told_of(folder, subjects=("train",)):
    report = StageReport("test")
    return read(folder, subjects, report), report


class _Runs:
    def __reduce__(self):
        return print, ("a pickle ran code",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda whole: whole[:5000], "not a whole pickle"),
        (lambda whole: b"", "not a whole pickle"),
        (lambda whole: pickle.dumps({"poses": _Runs()}), "asks for builtins.print"),
        (lambda whole: pickle.dumps([1, 2]), "holds a list; expected a sequence file of 3DPW"),
        (lambda whole: pickle.dumps({"poses": []}), "has no 'cam_intrinsics'"),
    ],
)
def test_a_bad_file_costs_its_own_sequence_only(corpus, capsys, content, problem):
    path = path_of(corpus, GREETING)
    path.write_bytes(content(path.read_bytes()))
    frames, report = told_of(corpus)
    assert {frame.subject for frame in frames} == {WALKING, SITTING}
    assert len(report.faults) == 1 and report.exit_code == 1
    assert problem in report.faults[0] and str(path) in report.faults[0] and "; " in report.faults[0]
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["poses", "trans", "jointPositions", "betas", "genders", "campose_valid", "cam_poses"])
def test_a_missing_field_is_named(corpus, name):
    change(corpus, GREETING, lambda data: data.pop(name))
    frames, report = told_of(corpus)
    assert {frame.subject for frame in frames} == {WALKING, SITTING}
    assert re.search(rf"downtown_greeting_00.pkl: has no '{name}'", report.faults[0])


@pytest.mark.parametrize("name", ["poses", "trans", "jointPositions", "campose_valid"])
def test_of_lengths_that_differ_the_common_part_is_read(corpus, name):
    change(corpus, GREETING, lambda data: data.update({name: [data[name][0][:2]]}))
    frames, report = told_of(corpus, [GREETING])
    assert [frame.frame_index for frame in frames] == [0, 1]
    assert f"2 {name}" in report.faults[0] and "4 cam_poses" in report.faults[0]
    assert report.skipped == {
        "its label is incomplete": [f"3dpw-train_downtown_greeting_00-handheld-00000{n}-p0" for n in (2, 3)]
    }


def test_fewer_cameras_than_poses_are_told(corpus):
    change(corpus, GREETING, lambda data: data.update(cam_poses=data["cam_poses"][:3]))
    frames, report = told_of(corpus, [GREETING])
    assert len(frames) == 3 and "3 cam_poses" in report.faults[0]


def test_a_broken_person_costs_no_other(corpus):
    def break_first(data):
        for name in ("poses", "trans", "betas", "genders", "jointPositions", "poses2d", "campose_valid"):
            data[name] = [data[name][0]] * 2
        data["poses"] = [data["poses"][0][:, :69], data["poses"][0]]

    change(corpus, GREETING, break_first)
    frames, report = told_of(corpus, [GREETING])
    assert [frame.key[-2:] for frame in frames] == ["p1"] * FRAMES
    assert "'poses[0]' is 4 x 69, expected N x 72" in report.faults[0]


def test_a_list_that_lacks_a_person_is_told(corpus):
    change(corpus, GREETING, lambda data: data["poses"].append(data["poses"][0]))
    frames, report = told_of(corpus, [GREETING])
    assert len(frames) == FRAMES and "2 poses, 1 trans" in report.faults[0]


def test_a_camera_pose_that_is_no_rotation_costs_its_frame(corpus):
    def spoil(data):
        data["cam_poses"][1] = 0.0
        data["cam_poses"][2, 0] *= -1.0

    change(corpus, GREETING, spoil)
    frames, report = told_of(corpus, [GREETING])
    assert [frame.frame_index for frame in frames] == [0, 3]
    assert report.skipped_counts == {"no camera pose": 2} and not report.faults


def test_where_nothing_can_be_read_the_reason_is_the_error(corpus):
    path_of(corpus, GREETING).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a whole pickle"):
        read(corpus, [GREETING], StageReport("test"))


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no sequenceFiles.*--annotations-path"):
        read(tmp_path)
    with pytest.raises(ValueError, match="leave --image-pattern out"):
        read(tmp_path, image_pattern="{subject}")


# --------------------------------------------------------------------------------------------- SPIN's tables


def change_table(folder: Path, split: str, **columns) -> None:
    path = folder / f"3dpw_{split}.npz"
    with np.load(path) as table:
        whole = {name: table[name] for name in table}
    np.savez(path, **{name: columns.get(name, whole[name]) for name in whole if columns.get(name, 0) is not None})


@pytest.fixture
def tables(spin, tmp_path):
    for path in spin.glob("*.npz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_tables_give_the_same_poses_as_sequence_files(studio, spin):
    official, rows = read(studio), read(spin)
    assert [row.key for row in rows] == [frame.key for frame in official]
    for frame, row in zip(official, rows, strict=True):
        assert (row.image_path, row.subject, row.gender) == (frame.image_path, frame.subject, frame.gender)
        np.testing.assert_allclose(row.smpl_pose_rad, frame.smpl_pose_rad, atol=1e-6)
        np.testing.assert_allclose(row.smpl_betas, frame.smpl_betas, atol=1e-6)
        assert row.joints_cam_m is row.joints_px is row.camera is row.smpl_trans_m is None
        assert not row.joint_score.any() and row.joint_score.shape == (24,)
        side = row.box_px[2:] - row.box_px[:2]
        assert side[0] == pytest.approx(side[1]) and (frame.box_px[:2] < row.box_px[2:]).all()


def test_sequence_files_go_before_tables(studio, tables):
    (tables / "sequenceFiles").symlink_to(studio / "sequenceFiles")
    assert all(frame.joints_cam_m is not None for frame in read(tables))


def test_tables_lie_in_dataset_extras_too(tables):
    keys = [frame.key for frame in read(tables, ["train"])]
    (tables / "dataset_extras").mkdir()
    (tables / "3dpw_train.npz").rename(tables / "dataset_extras/3dpw_train.npz")
    assert [frame.key for frame in read(tables, ["train"])] == keys


def test_a_frame_step_takes_every_nth_image_of_a_table(tables):
    assert [frame.frame_index for frame in read(tables, [WALKING], frame_step=2)] == [0, 2]


def test_people_of_a_table_are_told_apart_by_their_shape(tables):
    """The second person is not seen in the first image, so that counting rows would mix the two up."""
    with np.load(tables / "3dpw_validation.npz") as table:
        whole = {name: table[name] for name in table}
    twice = {name: np.concatenate([column, column[1:]]) for name, column in whole.items()}
    twice["shape"] = twice["shape"].copy()
    twice["shape"][FRAMES:] += 1.0
    twice["shape"][:FRAMES] += 1e-9  # rounding makes no other person
    change_table(tables, "validation", **twice)
    keys = [frame.key[-9:] for frame in read(tables, ["validation"])]
    assert keys == [f"00000{n}-p0" for n in range(4)] + [f"00000{n}-p1" for n in range(1, 4)]
    twice["shape"] = np.random.default_rng(0).normal(size=twice["shape"].shape)  # refitted in every frame
    change_table(tables, "validation", **twice)
    assert sorted(frame.key[-9:] for frame in read(tables, ["validation"])) == sorted(keys)


def test_columns_of_a_table_that_differ_in_length_are_told(tables):
    with np.load(tables / "3dpw_train.npz") as table:
        change_table(tables, "train", pose=table["pose"][:-1])
    frames, report = told_of(tables)
    assert len(frames) == 3 * FRAMES - 1
    assert "12 imgname" in report.faults[0] and "11 pose" in report.faults[0]
    assert report.skipped_counts == {"its label is incomplete": 1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [(lambda whole: whole[:900], "not a whole .npz"), (lambda whole: b"PK", "not a whole .npz")],
)
def test_a_broken_table_costs_its_own_split_only(tables, content, problem):
    path = tables / "3dpw_test.npz"
    path.write_bytes(content(path.read_bytes()))
    frames, report = told_of(tables)
    assert len(frames) == 3 * FRAMES and problem in report.faults[0]
    with pytest.raises(ValueError, match="no 3DPW labels of test .*3dpw_test.npz: not a whole"):
        read(tables, ["test"], StageReport("test"))


def test_a_table_that_lacks_a_column_is_told_and_genders_may_be_absent(tables):
    change_table(tables, "test", pose=None)
    change_table(tables, "train", gender=None)
    frames, report = told_of(tables)
    assert "has no 'pose'" in report.faults[0]
    assert {frame.gender for frame in frames} == {None}


def test_rows_without_a_name_or_a_box_are_skipped(tables):
    with np.load(tables / "3dpw_validation.npz") as table:
        names, scale = table["imgname"].copy(), table["scale"].copy()
    names[0], scale[1] = "frame.png", np.nan
    change_table(tables, "validation", imgname=names, scale=scale)
    frames, report = told_of(tables, ["validation"])
    assert [frame.frame_index for frame in frames] == [2, 3]
    assert report.skipped_counts == {"not an image name of 3DPW": 1, "no box": 1}


# --------------------------------------------------------------------------------------------- real samples


def test_real_people_stand_upright_in_the_camera(samples, tmp_path):
    """Their poses, put into a table as they are, are read back; the image is where its name says."""
    for split in ("train", "test"):
        real = json.loads((samples / f"threedpw/sample_3dpw_{split}.json").read_text())
        smpl = {name: np.array(values) for name, values in real["smpl"].items()}
        pose = np.concatenate([smpl["global_orient"][:, None], smpl["body_pose"]], axis=1)
        assert pose.shape == (1, 24, 3) and np.isfinite(pose).all()
        x, y, *_ = real["bbox_xywh"][0]
        np.savez(
            tmp_path / f"3dpw_{split}.npz",
            imgname=real["image_path"],
            center=[[x + 100, y + 100]],
            scale=[1.0],
            pose=pose.reshape(1, 72),
            shape=smpl["betas"],
            gender=real["meta"]["gender"],
        )
    told = StageReport("test")
    train, test = sorted(
        threedpw.read_frames(samples / "threedpw", tmp_path, ["train", "test"], told=told),
        key=lambda frame: frame.subject,
        reverse=True,
    )
    assert not told.faults and not told.skipped
    assert (train.subject, train.frame_index) == ("train/courtyard_rangeOfMotions_00", 311)
    assert (samples / "threedpw" / train.image_path).is_file()
    assert (train.gender, test.gender) == ("female", "male")
    for frame in (train, test):
        up = bodies.Rotation.from_rotvec(frame.smpl_pose_rad[0]).apply([0.0, 1.0, 0.0])
        assert up[1] < -0.7  # the camera's y points down: the root is in the camera's frame
