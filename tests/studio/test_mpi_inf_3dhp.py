"""The studio in MPI-INF-3DHP's formats: that its files are what the corpus's own tools expect."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from humanpose3d.skeletons import MPI_17, MPI_28
from humanpose3d.studio.film import film_scene
from humanpose3d.studio.mpi_inf_3dhp import (
    CAMERAS,
    LAYOUTS,
    camera_of,
    labels_of,
    scene_of,
    write_mpi_inf_3dhp,
)
from humanpose3d.video import count_frames, frame_rate, read_frame

ASKED = {"subjects": ("S1", "TS1"), "frames_per_take": 4, "size": 64}


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Layout -> its folder."""
    folders = {layout: tmp_path_factory.mktemp(layout) for layout in LAYOUTS}
    for layout, out in folders.items():
        report = write_mpi_inf_3dhp(out, layout=layout, **ASKED)
        assert report.counts["images"] == report.inputs == 2 * 4 * 4 + 4
        assert report.exit_code == 0
    return folders


def test_annot_mat_holds_a_cell_per_camera_and_a_row_per_frame(written: dict[str, Path]) -> None:
    values = scipy.io.loadmat(written["videos"] / "S1/Seq2/annot.mat")
    assert values["cameras"].tolist() == [[0, 2, 7, 8]] and values["frames"].tolist() == [[0], [1], [2], [3]]
    for name, width in (("annot2", 56), ("annot3", 84), ("univ_annot3", 84)):
        assert values[name].shape == (4, 1) and values[name][0, 0].shape == (4, width)
    annot2, annot3, univ_annot3 = labels_of(scene_of("S1", "Seq2", size=64), "7", 4, MPI_28)
    np.testing.assert_allclose(values["annot2"][2, 0].reshape(4, 28, 2), annot2)
    np.testing.assert_allclose(values["annot3"][2, 0].reshape(4, 28, 3), annot3)
    np.testing.assert_allclose(values["univ_annot3"][2, 0].reshape(4, 28, 3), univ_annot3)


def test_annot_data_is_matlab_7_3_with_axes_in_reverse(written: dict[str, Path]) -> None:
    path = written["videos"] / "mpi_inf_3dhp_test_set/TS1/annot_data.mat"
    header = path.read_bytes()[:512]
    assert header.startswith(b"MATLAB 7.3 MAT-file") and header[124:128] == b"\x00\x02IM"
    with h5py.File(path) as file:
        assert file["annot2"].shape == (4, 1, 17, 2) and file["univ_annot3"].shape == (4, 1, 17, 3)
        assert file["valid_frame"][()].ravel().tolist() == [1, 1, 1, 0]
        np.testing.assert_allclose(file["annot3"][:, 0], labels_of(scene_of("TS1", "", size=64), "0", 4, MPI_17)[1])


def test_annot3_projects_on_annot2_by_the_calibration_file_and_univ_annot3_does_not(written: dict[str, Path]) -> None:
    lines = (written["videos"] / "S1/Seq1/camera.calibration").read_text().splitlines()
    assert lines[0] == "Skeletool Camera Calibration File V1.0" and len(lines) == 1 + 7 * len(CAMERAS)
    entry = lines[1 + 7 * 2 : 1 + 7 * 3]  # seven lines a camera: public readers count them
    assert entry[0].split() == ["name", "7"] and entry[2].split() == ["size", "64", "64"]
    K = np.array(entry[4].split()[1:], dtype=float).reshape(4, 4)
    values = scipy.io.loadmat(written["videos"] / "S1/Seq1/annot.mat")
    annot2, annot3, univ_annot3 = (
        values[name][2, 0].reshape(4, 28, -1) for name in ("annot2", "annot3", "univ_annot3")
    )
    f, c = K[[0, 1], [0, 1]], K[:2, 2]
    np.testing.assert_allclose(annot3[..., :2] / annot3[..., 2:] * f + c, annot2, atol=1e-4)
    assert np.abs(univ_annot3[..., :2] / univ_annot3[..., 2:] * f + c - annot2).max() > 0.2
    pelvis = MPI_28.root_index
    np.testing.assert_allclose(univ_annot3[:, pelvis], annot3[:, pelvis])


def test_the_cameras_world_has_y_up() -> None:
    camera = camera_of(scene_of("S1", "Seq1"), "0")
    up_in_camera = camera.R @ [0.0, 1.0, 0.0]
    assert up_in_camera[1] < -0.9  # a camera's y points down


def test_videos_show_the_filmed_frames_under_the_corpuss_numbers(written: dict[str, Path]) -> None:
    folder = written["videos"] / "S1/Seq2/imageSequence"
    assert sorted(path.name for path in folder.iterdir()) == [f"video_{camera}.avi" for camera in CAMERAS]
    video = folder / "video_7.avi"
    assert count_frames(video) == 4 and frame_rate(video) == 50.0
    filmed = film_scene(scene_of("S1", "Seq2", size=64), CAMERAS["7"], 2).image
    assert np.abs(read_frame(video, 2).astype(float) - filmed).mean() < 6


def test_extracted_frames_and_test_images_count_from_one(written: dict[str, Path]) -> None:
    out = written["frames"]
    stored = cv2.imread(str(out / "S1/Seq1/imageFrames/video_8/frame_000001.jpg"))[..., ::-1]
    filmed = film_scene(scene_of("S1", "Seq1", size=64), CAMERAS["8"], 0).image
    assert np.abs(stored.astype(float) - filmed).mean() < 6
    names = sorted(path.name for path in (out / "mpi_inf_3dhp_test_set/TS1/imageSequence").iterdir())
    assert names == [f"img_{number:06d}.jpg" for number in (1, 2, 3, 4)]


def test_the_npz_pair_has_the_structure_that_lifters_load(written: dict[str, Path]) -> None:
    folder = written["npz"] / "motion3d"
    train = np.load(folder / "data_train_3dhp.npz", allow_pickle=True)["data"].item()
    assert list(train) == ["S1 Seq1", "S1 Seq2"] and list(train["S1 Seq1"][0]) == ["0", "2", "7", "8"]
    assert [entry[1] for entry in train.values()] == [25, 50]
    view = train["S1 Seq2"][0]["2"]
    annot2, _, univ_annot3 = labels_of(scene_of("S1", "Seq2", size=64), "2", 4, MPI_17)
    np.testing.assert_allclose(view["data_2d"], annot2)
    np.testing.assert_allclose(view["data_3d"], univ_annot3)
    test = np.load(folder / "data_test_3dhp.npz", allow_pickle=True)["data"].item()
    assert list(test) == ["TS1"] and test["TS1"]["valid"].tolist() == [1, 1, 1, 0]


def test_test_subjects_one_to_four_stand_before_one_camera() -> None:
    first, third, fifth = (camera_of(scene_of(name, ""), "0") for name in ("TS1", "TS3", "TS5"))
    np.testing.assert_array_equal(first.K, third.K)
    assert not np.allclose(first.K, fifth.K)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_seed_gives_the_same_bytes_and_keeps_what_is_there(
    written: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    write_mpi_inf_3dhp(tmp_path, layout=layout, **{**ASKED, "subjects": ("TS1",)})
    report = write_mpi_inf_3dhp(tmp_path, layout=layout, workers=2, **ASKED)
    assert report.counts["already there"] == 4
    assert _bytes(tmp_path) == _bytes(written[layout])


def test_two_layouts_or_lengths_of_video_do_not_mix(written: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        write_mpi_inf_3dhp(written["videos"], layout="frames", **ASKED)
    with pytest.raises(ValueError, match="choose another folder"):
        write_mpi_inf_3dhp(written["videos"], **{**ASKED, "frames_per_take": 5})


def test_an_unknown_subject_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the studio writes S1, S2.*not S9"):
        write_mpi_inf_3dhp(tmp_path / "new", subjects=("S9",))
    assert not (tmp_path / "new").exists()
