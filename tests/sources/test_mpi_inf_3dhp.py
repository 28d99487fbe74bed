"""MPI-INF-3DHP's files, written by the studio, read back; each kind of damage loses its own part only."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.reports import StageReport
from humanpose3d.sample import LabelledFrame
from humanpose3d.skeletons import MPI_17
from humanpose3d.sources import mpi_inf_3dhp, mpi_inf_3dhp_labels
from humanpose3d.sources.mpi_inf_3dhp_cameras import fit_view, read_test_calibration
from humanpose3d.studio.mpi_inf_3dhp import LAYOUTS, camera_of, labels_of, scene_of, write_mpi_inf_3dhp
from humanpose3d.video import read_frame, write_video

FRAMES, SIZE = 6, 64
TEST_SET = "mpi_inf_3dhp_test_set"


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Subjects 1 and TS1 of six frames a take, in each layout."""
    folders = {layout: tmp_path_factory.mktemp(layout) for layout in LAYOUTS}
    for layout, out in folders.items():
        write_mpi_inf_3dhp(out, subjects=("S1", "TS1"), frames_per_take=FRAMES, size=SIZE, layout=layout)
    return folders


@pytest.fixture
def corpus(layouts: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a layout to damage."""

    def copy(layout: str) -> Path:
        return shutil.copytree(layouts[layout], tmp_path / "corpus")

    return copy


def read(
    root: Path, subjects: tuple[str, ...] = ("S1", "TS1"), annotations: Path | None = None, **options: Any
) -> tuple[list[LabelledFrame], StageReport]:
    told = StageReport("reader")
    frames = list(mpi_inf_3dhp.read_frames(root, annotations or root, subjects, told=told, **options))
    return frames, told


def read_soundly(root: Path, subjects: tuple[str, ...] = ("S1", "TS1"), **options: Any) -> list[LabelledFrame]:
    frames, told = read(root, subjects, **options)
    assert not told.faults and not told.skipped
    return frames


def cameras_of(frames: list[LabelledFrame]) -> list[tuple[str, str, str]]:
    """Each camera of each take that there are frames of, in order."""
    return list(dict.fromkeys((frame.subject, frame.action, frame.camera_id) for frame in frames))


# ----------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_the_studio_wrote_is_read_back(layouts: dict[str, Path], layout: str) -> None:
    frames = read_soundly(layouts[layout])
    assert len(frames) == 2 * 4 * FRAMES + 5  # every fourth test frame is not valid
    for frame in frames:
        scene = scene_of(frame.subject, frame.action if frame.subject == "S1" else "", size=SIZE)
        annot2, annot3, _ = labels_of(scene, frame.camera_id, FRAMES, MPI_17)
        np.testing.assert_allclose(frame.joints_cam_m, annot3[frame.frame_index] / 1000.0, atol=1e-5)
        np.testing.assert_allclose(frame.joints_px, annot2[frame.frame_index], atol=1e-4)
        assert frame.camera is not None and frame.joints_cam_m is not None
        np.testing.assert_allclose(camera_to_pixel(frame.joints_cam_m, frame.camera), frame.joints_px, atol=1e-3)
        low, high = annot2[frame.frame_index].min(0), annot2[frame.frame_index].max(0)
        np.testing.assert_allclose(frame.box_px[2:] - frame.box_px[:2], 1.2 * (high - low), rtol=1e-4)
        assert frame.skeleton == "mpi_17" and frame.image_size_wh == (SIZE, SIZE) and frame.valid
        assert frame.joint_score.tolist() == [1.0] * 17


def test_a_frames_picture_is_the_one_that_was_labelled(layouts: dict[str, Path]) -> None:
    in_video, extracted = (
        next(frame for frame in read_soundly(layouts[layout]) if (frame.camera_id, frame.frame_index) == ("7", 3))
        for layout in ("videos", "frames")
    )
    assert in_video.image_path == Path("S1/Seq1/imageSequence/video_7.avi/000003")
    assert extracted.image_path == Path("S1/Seq1/imageFrames/video_7/frame_000004.jpg")
    decoded = read_frame(layouts["videos"] / in_video.image_path.parent, 3)
    stored = cv2.imread(str(layouts["frames"] / extracted.image_path))[..., ::-1]
    assert np.abs(decoded.astype(float) - stored).mean() < 6


def test_training_cameras_are_those_of_the_calibration_file(layouts: dict[str, Path]) -> None:
    for frame in read_soundly(layouts["videos"], ("S1",)):
        expected = camera_of(scene_of("S1", frame.action, size=SIZE), frame.camera_id)
        assert frame.camera is not None
        np.testing.assert_allclose(frame.camera.K, expected.K, atol=1e-6)
        np.testing.assert_allclose(frame.camera.R, expected.R, atol=1e-8)
        np.testing.assert_allclose(frame.camera.t_m, expected.t_m, atol=1e-8)


def test_frames_come_in_order_under_unique_keys(layouts: dict[str, Path]) -> None:
    frames = read_soundly(layouts["videos"], ("ts1", "1"))
    assert cameras_of(frames)[:8] == [
        ("S1", sequence, camera) for sequence in ("Seq1", "Seq2") for camera in ("0", "2", "7", "8")
    ]
    assert [frame.frame_index for frame in frames[:FRAMES]] == list(range(FRAMES))
    keys = [frame.key for frame in frames]
    assert keys[1] == "3dhp-S1-Seq1-0-000001-p0" and keys[-1] == "3dhp-TS1-test-0-000005-p0"
    assert len(set(keys)) == len(keys) and not any(set(key) & set("./ ") for key in keys)
    assert {frame.fps for frame in frames if frame.action == "Seq2"} == {50.0}


def test_the_frame_step_goes_by_frame_number_and_in_the_test_set_by_place(layouts: dict[str, Path]) -> None:
    frames = read_soundly(layouts["videos"], frame_step=4)
    assert [frame.frame_index for frame in frames if frame.key.startswith("3dhp-S1-Seq1-0-")] == [0, 4]
    assert [frame.frame_index for frame in frames if frame.subject == "TS1"] == [0, 5]  # 0 and 5 of 0 1 2 4 5


def test_only_valid_test_frames_are_read_with_their_activity(layouts: dict[str, Path]) -> None:
    frames = read_soundly(layouts["videos"], ("TS1",))
    assert [frame.frame_index for frame in frames] == [0, 1, 2, 4, 5]
    assert frames[0].image_path == Path(f"{TEST_SET}/TS1/imageSequence/img_000001.jpg")
    assert {frame.action for frame in frames} <= set(mpi_inf_3dhp_labels.ACTIVITIES)


def test_rows_beyond_the_corpuss_own_count_are_not_used(
    layouts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mpi_inf_3dhp_labels.SEQUENCES, ("S1", "Seq1"), (FRAMES - 1, 25.0))
    frames = read_soundly(layouts["videos"], ("S1",))
    assert sum(frame.action == "Seq1" for frame in frames) == 4 * (FRAMES - 1)


def test_a_real_frames_joints_stand_where_the_skeleton_says(samples: Path) -> None:
    for label in json.loads((samples / "mpi_inf_3dhp/labels.json").read_text()):
        joints = dict(zip(MPI_17.joints, np.array(label["joints_cam_m"]), strict=True))
        known = label["camera"]
        camera = Camera.create(known["f_px"], known["c_px"], np.array(known["R_world_to_camera"]), known["T_m"])
        error = np.linalg.norm(camera_to_pixel(np.array(list(joints.values())), camera) - label["joints_px"], axis=-1)
        moved = [MPI_17.index(name) for name in ("left_hip", "right_hip", "spine")]  # this file's are means of others
        assert np.delete(error, moved).max() < 0.01 and error.max() < 2.5

        def length(first: str, second: str, joints: dict[str, np.ndarray] = joints) -> float:
            return float(np.linalg.norm(joints[first] - joints[second]))

        for end, middle in (("wrist", "elbow"), ("elbow", "shoulder"), ("ankle", "knee")):
            left, right = (length(f"{side}_{end}", f"{side}_{middle}") for side in ("left", "right"))
            assert left == pytest.approx(right, rel=0.01) and 0.2 < left < 0.5
        np.testing.assert_allclose(joints["pelvis"], (joints["left_hip"] + joints["right_hip"]) / 2, atol=1e-4)
        for child, parent in zip(MPI_17.joints, MPI_17.parents, strict=True):
            assert parent is None or 0.05 < length(child, parent) < 0.5, (child, parent)
        assert length("head", "head_top") < 0.25 and length("neck", "head") < 0.15


# ------------------------------------------------------------------------------------------------ cameras from labels


def test_the_test_sets_calibration_file_is_taken_where_it_fits(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    expected = camera_of(scene_of("TS1", "", size=SIZE), "0")
    calibrated = read_soundly(root, ("TS1",))[0]
    np.testing.assert_allclose(calibrated.camera.R, expected.R, atol=1e-8)
    np.testing.assert_allclose(calibrated.camera.t_m, expected.t_m, atol=1e-8)
    path = root / TEST_SET / "test_util/camera_calibration/ts1-4cameras.calib"
    path.write_text(path.read_text().replace("focalLength\t", "focalLength\t1"))
    fitted = read_soundly(root, ("TS1",))[0]
    np.testing.assert_allclose(fitted.camera.K, expected.K, atol=1e-3)
    np.testing.assert_array_equal(fitted.camera.R, np.eye(3))
    assert fitted.source_file.endswith("annot_data.mat, camera fitted to the labels")


def test_without_a_calibration_file_the_test_camera_is_found_in_the_labels(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    shutil.rmtree(root / TEST_SET / "test_util")
    frame = read_soundly(root, ("TS1",))[0]
    np.testing.assert_allclose(frame.camera.K, camera_of(scene_of("TS1", "", size=SIZE), "0").K, atol=1e-3)


def test_a_calibration_file_with_distortion_is_taken_where_the_labels_are_distorted(tmp_path: Path) -> None:
    path = tmp_path / "ts5-6cameras.calib"
    path.write_text(
        "tc camera calibration v0.3\ncamera 0 GoPro\n frame 0\n sensorSize 10.0 5.625 # in mm\n focalLength 9.0\n"
        " pixelAspect 1.0\n centerOffset 0.1 -0.1\n distortionModel OpenCV\n distortion -0.28 0.13 0.0 0.0 0.0\n"
        " origin 100 200 300\n up 0 1 0\n right 1 0 0\n"
    )
    distorted, plain = read_test_calibration(path, (1920, 1080))
    np.testing.assert_allclose(plain.K, [[1728, 0, 979.2], [0, 1728, 520.8], [0, 0, 1]])
    np.testing.assert_allclose(plain.t_m, [-0.1, 0.2, 0.3])
    points = np.random.default_rng(0).normal((0, 0, 4), (0.8, 0.5, 0.4), (20, 17, 3))
    for camera in (distorted, plain):
        fit = fit_view(points, camera_to_pixel(points, camera), [distorted, plain])
        assert fit.camera is camera and fit.calibrated and fit.error < 1e-9


def test_a_fitted_camera_and_size_withstand_noise() -> None:
    annot2, annot3, univ_annot3 = labels_of(scene_of("S1", "Seq2", size=2048), "0", 200, MPI_17)
    noise = np.random.default_rng(0).normal(0, 0.3, annot2.shape)
    fit = fit_view(univ_annot3 / 1000.0, annot2 + noise, rescale=True)
    np.testing.assert_allclose(fit.joints_cam_m, annot3 / 1000.0, atol=2e-3)
    assert abs(fit.camera.focal_px / camera_of(scene_of("S1", "Seq2", size=2048), "0").focal_px - 1) < 0.003


# -------------------------------------------------------------------------------------------------------- the npz pair


def test_the_npz_pairs_person_gets_their_own_size_back(layouts: dict[str, Path]) -> None:
    frame = read_soundly(layouts["npz"], ("S1",))[0]
    assert frame.source_file.startswith("motion3d/data_train_3dhp.npz, drawn 0.9")
    np.testing.assert_array_equal(frame.camera.R, np.eye(3))


def test_the_npz_pair_takes_a_calibration_that_lies_beside_the_pictures(
    corpus: Callable[[str], Path], layouts: dict[str, Path]
) -> None:
    root = corpus("npz")
    shutil.copy(layouts["videos"] / "S1/Seq2/camera.calibration", root / "S1/Seq2")
    frame = read_soundly(root, ("S1",))[-1]
    np.testing.assert_allclose(frame.camera.R, camera_of(scene_of("S1", "Seq2", size=SIZE), "8").R, atol=1e-8)
    assert "fitted" not in frame.source_file


def test_pictures_and_npz_may_lie_in_two_roots(layouts: dict[str, Path]) -> None:
    annotations = layouts["npz"] / "motion3d"
    frames = read_soundly(layouts["videos"], annotations=annotations)
    assert frames[0].image_path == Path("S1/Seq1/imageSequence/video_0.avi/000000")
    assert frames[0].source_file.startswith("data_train_3dhp.npz")


def test_a_subjects_own_files_are_preferred_to_the_npz(corpus: Callable[[str], Path], layouts: dict[str, Path]) -> None:
    root = corpus("videos")
    shutil.copytree(layouts["npz"] / "motion3d", root / "motion3d")
    assert {frame.source_file for frame in read_soundly(root, ("S1",))} == {"S1/Seq1/annot.mat", "S1/Seq2/annot.mat"}


def test_npz_labels_that_no_camera_explains_are_left_out(corpus: Callable[[str], Path]) -> None:
    root = corpus("npz")
    with changed_npz(root / "motion3d/data_train_3dhp.npz") as data:
        root_relative = data["S1 Seq1"][0]["2"]["data_3d"]
        root_relative -= root_relative[:, [MPI_17.root_index]].copy()
    frames, told = read(root, ("S1",))
    assert ("S1", "Seq1", "2") not in cameras_of(frames) and len(frames) == 7 * FRAMES
    assert "no camera projects the 3D labels of S1 Seq1 camera 2" in told.faults[0]
    assert told.skipped_counts == {"no camera that fits": FRAMES}


def test_a_truncated_npz_loses_its_half_of_the_pair(corpus: Callable[[str], Path]) -> None:
    root = corpus("npz")
    cut(root / "motion3d/data_train_3dhp.npz")
    frames, told = read(root)
    assert {frame.subject for frame in frames} == {"TS1"}
    assert "data_train_3dhp.npz: not a whole .npz file" in told.faults[0]
    with pytest.raises(ValueError, match="no annotations of TS5 in .*; there are TS1"):
        read(root, ("S1", "TS5"))


def test_an_npz_of_another_kind_is_named(corpus: Callable[[str], Path]) -> None:
    root = corpus("npz")
    np.savez(root / "motion3d/data_test_3dhp.npz", poses=np.zeros(3))
    with changed_npz(root / "motion3d/data_train_3dhp.npz") as data:
        del data["S1 Seq1"][0]["0"]["data_2d"]
        data["S1 Seq1"][0]["2"]["data_3d"] = data["S1 Seq1"][0]["2"]["data_3d"][:-1]
    frames, told = read(root)
    assert cameras_of(frames)[:2] == [("S1", "Seq1", "7"), ("S1", "Seq1", "8")]
    text = "\n".join(told.faults)
    assert "has no 'data'" in text and "has no 'data_2d'" in text and "6 of data_2d, 5 of data_3d" in text


# ---------------------------------------------------------------------------------------------- where the pictures lie


PLACES = [
    ("imageSequence/video_7", "frame_{:06d}.jpg", 1),
    ("imageSequence/video_7", "img_7_{:06d}.jpg", 1),
    ("imageFrames/video_7", "frame_{:06d}.png", 1),
    ("video_7", "frame_{:06d}.jpg", 1),
    ("imageSequence", "img_7_{:06d}.jpg", 1),
    ("imageSequence", "img_7_{:06d}.jpg", 0),
    ("imageSequence", "video_7_{:06d}.jpg", 1),
    ("images/S1_Seq1_V7", "img_S1_Seq1_V7_{:06d}.jpg", 1),
    ("imageFrames/video_7", "frame_{:05d}.jpg", 0),
]


@pytest.mark.parametrize("folder, name, first", PLACES)
def test_extracted_frames_are_found_where_tools_put_them(
    corpus: Callable[[str], Path], folder: str, name: str, first: int
) -> None:
    root = corpus("videos")
    target = root / "S1/Seq1" / folder
    target.mkdir(parents=True, exist_ok=True)
    for frame in range(FRAMES):
        (target / name.format(frame + first)).touch()
    frames = read_soundly(root, ("S1",))
    paths = [frame.image_path for frame in frames if (frame.action, frame.camera_id) == ("Seq1", "7")]
    assert paths == [Path("S1/Seq1", folder, name.format(frame + first)) for frame in range(FRAMES)]


def test_a_pattern_names_any_other_place(layouts: dict[str, Path]) -> None:
    pattern = "images/{subject}_{sequence}_Cam{camera}_{number:06d}.jpg"
    frame = read_soundly(layouts["videos"], ("S1",), image_pattern=pattern)[FRAMES + 1]
    assert frame.image_path == Path("images/S1_Seq1_Cam2_000002.jpg")
    with pytest.raises(ValueError, match="--image-pattern.*its fields are"):
        read(layouts["videos"], ("S1",), image_pattern="{action}/{number}.jpg")


@pytest.mark.parametrize("place", ["", "test", f"{TEST_SET}/{TEST_SET}"])
def test_the_test_set_is_found_in_folders_of_its_own(corpus: Callable[[str], Path], tmp_path: Path, place: str) -> None:
    moved = tmp_path / "moved" / place
    shutil.copytree(corpus("videos") / TEST_SET / "TS1", moved / "TS1")
    frame = read_soundly(tmp_path / "moved", ("TS1",))[0]
    assert frame.image_path == Path(place, "TS1/imageSequence/img_000001.jpg")


def test_without_any_picture_all_labelled_frames_are_named_as_the_corpus_names_them(
    layouts: dict[str, Path], tmp_path: Path
) -> None:
    frames = read_soundly(tmp_path, annotations=layouts["videos"])
    assert len(frames) == 8 * FRAMES + 5
    assert frames[0].image_path == Path("S1/Seq1/imageSequence/video_0.avi/000000")
    assert frames[-1].image_path == Path("TS1/imageSequence/img_000006.jpg")


def test_absent_videos_are_told_only_of_the_usual_cameras(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    path = root / "S1/Seq1/annot.mat"
    for folder in ("Seq1", "Seq2"):
        calibration = root / "S1" / folder / "camera.calibration"
        calibration.write_text(calibration.read_text().replace("name          8", "name          11"))
        change_mat(root / "S1" / folder / "annot.mat", cameras=np.array([[0.0, 2, 7, 11]]))
        (root / "S1" / folder / "imageSequence/video_8.avi").unlink()
    frames, told = read(root, ("S1",))
    assert {camera for _, _, camera in cameras_of(frames)} == {"0", "2", "7"} and not told.faults
    (root / "S1/Seq1/imageSequence/video_2.avi").unlink()
    frames, told = read(root, ("S1",))
    assert len(frames) == 6 * FRAMES  # a picture that is missing is the chunker's business
    assert told.faults == [
        f"{path}: of S1/Seq1, 4 cameras are labelled and 2 have pictures; camera 2 has labels, but no pictures; "
        "copy what is missing"
    ]


def test_a_video_without_labels_is_told(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    shutil.copy(root / "S1/Seq1/imageSequence/video_8.avi", root / "S1/Seq1/imageSequence/video_9.avi")
    frames, told = read(root, ("S1",))
    assert len(frames) == 8 * FRAMES
    assert "4 cameras are labelled and 5 have pictures; camera 9 has pictures, but no labels" in told.faults[0]


# ------------------------------------------------------------------------------------------------------------ bad input


def test_fewer_extracted_frames_than_labels_are_told_with_both_counts(corpus: Callable[[str], Path]) -> None:
    root = corpus("frames")
    folder = root / "S1/Seq1/imageFrames/video_2"
    (folder / "frame_000002.jpg").unlink()
    (folder / "frame_000006.jpg").unlink()
    frames, told = read(root, ("S1",))
    indices = [frame.frame_index for frame in frames if (frame.action, frame.camera_id) == ("Seq1", "2")]
    assert indices == [0, 1, 2, 3, 4]  # number 1 has no picture, which is the chunker's business
    assert len(told.faults) == 1 and "4 pictures, but 6 labelled frames in annot.mat" in told.faults[0]
    assert "2 are not there, the first is frame 1 (frame_000002.jpg)" in told.faults[0]
    assert told.skipped == {
        "beyond the end of its video or its pictures": ["S1/Seq1/imageFrames/video_2/frame_000006.jpg"]
    }


def test_frames_extracted_at_the_step_that_is_asked_for_are_enough(corpus: Callable[[str], Path]) -> None:
    root = corpus("frames")
    for frame in (2, 3, 5, 6):
        for path in root.glob(f"S1/Seq*/imageFrames/video_*/frame_{frame:06d}.jpg"):
            path.unlink()
    assert len(read_soundly(root, ("S1",), frame_step=3)) == 2 * 4 * 2


def test_a_video_shorter_than_its_labels_loses_the_rest(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    video = root / "S1/Seq2/imageSequence/video_7.avi"
    write_video(video, blank(4), 50.0, codec="ffv1")
    frames, told = read(root, ("S1",))
    assert len(frames) == 8 * FRAMES - 2
    assert f"{video}: 4 pictures, but 6 labelled frames in annot.mat" in told.faults[0]
    assert told.skipped["beyond the end of its video or its pictures"] == [
        f"S1/Seq2/imageSequence/video_7.avi/00000{frame}" for frame in (4, 5)
    ]


def test_a_video_of_another_frame_rate_is_told(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    write_video(root / "S1/Seq2/imageSequence/video_7.avi", blank(2 * FRAMES), 100.0, codec="ffv1")
    frames, told = read(root, ("S1",))
    assert len(frames) == 8 * FRAMES and "is it another frame rate?" in told.faults[0]


def test_what_is_no_video_loses_its_camera(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    (root / "S1/Seq2/imageSequence/video_7.avi").write_bytes(b"nothing")
    frames, told = read(root, ("S1",))
    assert ("S1", "Seq2", "7") not in cameras_of(frames) and len(frames) == 7 * FRAMES
    assert told.skipped_counts.total() == FRAMES and "video_7.avi is no video that can be read" in told.faults[0]


def test_a_truncated_annot_mat_loses_its_sequence(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    cut(root / "S1/Seq1/annot.mat")
    frames, told = read(root)
    assert {(frame.subject, frame.action) for frame in frames if frame.subject == "S1"} == {("S1", "Seq2")}
    assert any(frame.subject == "TS1" for frame in frames)
    assert "S1/Seq1/annot.mat: not a whole MATLAB file" in told.faults[0]


def test_a_truncated_annot_data_loses_its_subject(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    cut(root / TEST_SET / "TS1/annot_data.mat")
    frames, told = read(root)
    assert {frame.subject for frame in frames} == {"S1"}
    assert "TS1/annot_data.mat: not a whole HDF5 file" in told.faults[0]


def test_annotations_of_another_version_are_named(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    change_mat(root / "S1/Seq1/annot.mat", annot3=None)
    change_mat(root / "S1/Seq2/annot.mat", cameras=np.array([[0.0, 2, 7]]))
    with h5py.File(root / TEST_SET / "TS1/annot_data.mat", "r+") as file:
        del file["annot2"]
        file["annot2"] = np.zeros((FRAMES, 1, 14, 2))
    frames, told = read_broken(root)
    assert not frames
    text = "\n".join(told.faults)
    assert "has no 'annot3'" in text and "names 3 cameras, but has 4 cells of annot2" in text
    assert "'annot2' is 6 x 1 x 14 x 2, expected N x 17 x 2" in text


def test_an_annot_mat_saved_as_matlab_7_3_is_named(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    shutil.copy(root / TEST_SET / "TS1/annot_data.mat", root / "S1/Seq1/annot.mat")
    frames, told = read(root, ("S1",))
    assert {frame.action for frame in frames} == {"Seq2"} and "S1/Seq1/annot.mat" in told.faults[0]


def test_a_test_set_saved_as_matlab_5_is_read(corpus: Callable[[str], Path], layouts: dict[str, Path]) -> None:
    root = corpus("videos")
    path = root / TEST_SET / "TS1/annot_data.mat"
    with h5py.File(path) as file:
        values = {name: node[()].T for name, node in file.items()}
    path.write_bytes(mat_bytes(values))
    for copied, own in zip(read_soundly(root, ("TS1",)), read_soundly(layouts["videos"], ("TS1",)), strict=True):
        np.testing.assert_array_equal(copied.joints_cam_m, own.joints_cam_m)
        assert copied.action == own.action


def test_a_camera_whose_rows_differ_in_number_is_left_out(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    path = root / "S1/Seq1/annot.mat"
    annot2 = scipy.io.loadmat(path)["annot2"]
    annot2[1, 0] = annot2[1, 0][:-1]
    change_mat(path, annot2=annot2)
    frames, told = read(root, ("S1",))
    assert ("S1", "Seq1", "2") not in cameras_of(frames) and len(frames) == 7 * FRAMES
    assert "the rows of camera 2 differ in number: 5 of annot2, 6 of annot3, 6 of frames" in told.faults[0]


def test_a_camera_missing_in_the_calibration_is_left_out(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    path = root / "S1/Seq1/camera.calibration"
    path.write_text(path.read_text().replace("name          7", "name          5"))
    frames, told = read(root, ("S1",))
    assert ("S1", "Seq1", "7") not in cameras_of(frames) and len(frames) == 7 * FRAMES
    assert (
        f"{path}: lacks cameras that annot.mat labels (it has camera 0, camera 2, camera 5, camera 8)"
        in (told.faults[0])
    )
    assert told.skipped_counts == {"no camera that fits": FRAMES}


@pytest.mark.parametrize(
    "found, put, problem",
    [
        ("extrinsic   -", "extrinsic   -9", "the extrinsic of camera 0 is not a rotation"),
        ("animated    0\n", "animated    0\nrest ", "the entry of camera 0 is not whole"),
        ("radial      0", "radial      0.1 0", "camera 0 has radial distortion"),
    ],
)
def test_a_spoilt_entry_of_the_calibration_loses_its_camera(
    corpus: Callable[[str], Path], found: str, put: str, problem: str
) -> None:
    root = corpus("videos")
    path = root / "S1/Seq1/camera.calibration"
    path.write_text(path.read_text().replace(found, put, 1))
    frames, told = read(root, ("S1",))
    assert len(frames) == 7 * FRAMES and problem in told.faults[0]


@pytest.mark.parametrize("content", [None, "Skeletool 2.0\n"])
def test_a_missing_or_foreign_calibration_loses_its_sequence(
    corpus: Callable[[str], Path], content: str | None
) -> None:
    root = corpus("videos")
    path = root / "S1/Seq1/camera.calibration"
    path.unlink()
    if content:
        path.write_text(content)
    frames, told = read(root, ("S1",))
    assert {frame.action for frame in frames} == {"Seq2"} and len(told.faults) == 1
    assert str(path) in told.faults[0] and told.skipped_counts.total() == 4 * FRAMES


def test_a_foreign_test_calibration_is_told_and_the_labels_used(corpus: Callable[[str], Path]) -> None:
    root = corpus("videos")
    (root / TEST_SET / "test_util/camera_calibration/ts1-4cameras.calib").write_text("camera: 0\n")
    frames, told = read(root, ("TS1",))
    assert len(frames) == 5 and "fitted to the labels instead" in told.faults[0]


def test_a_request_without_any_answer_says_what_there_is(layouts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no annotations of S3, TS4 in .*; there are S1, TS1"):
        read(layouts["videos"], ("3", "TS4"))
    with pytest.raises(ValueError, match="no annotations of S3 in .*; there are S1"):
        read(layouts["npz"], ("3",))
    with pytest.raises(FileNotFoundError, match="--annotations-path"):
        read(layouts["videos"], ("S1",), annotations=tmp_path)


# ---------------------------------------------------------------------------------------------------------------- tools


def read_broken(root: Path) -> tuple[list[LabelledFrame], StageReport]:
    """`read` where nothing at all can be read."""
    told, frames = StageReport("reader"), []
    with pytest.raises(ValueError, match="nothing of S1, TS1 can be read: .*annot.mat"):
        frames = list(mpi_inf_3dhp.read_frames(root, root, ("S1", "TS1"), told=told))
    return frames, told


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def mat_bytes(values: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, values)
    return stream.getvalue()


def change_mat(path: Path, **changes: Any) -> None:
    """Write variables anew; None takes one away."""
    values = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    path.write_bytes(mat_bytes({name: value for name, value in (values | changes).items() if value is not None}))


class changed_npz:
    """The dict of a file of the pair, written back at the end of the block."""

    def __init__(self, path: Path) -> None:
        self.path, self.data = path, np.load(path, allow_pickle=True)["data"].item()

    def __enter__(self) -> dict[str, Any]:
        return self.data

    def __exit__(self, *_: object) -> None:
        np.savez(self.path, data=np.array(self.data, dtype=object))


def blank(number: int) -> Iterator[np.ndarray]:
    for _ in range(number):
        yield np.zeros((SIZE, SIZE, 3), np.uint8)
