"""Human3.6M's own archives and data_3d_h36m.npz, written by the studio, whole and broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel, camera_to_world, world_to_camera
from humanpose3d.reports import StageReport
from humanpose3d.sample import LabelledFrame
from humanpose3d.skeletons import H36M_17
from humanpose3d.sources import human36m
from humanpose3d.sources.human36m_takes import ACTIONS, file_name, find_take
from humanpose3d.studio.human36m import write_human36m
from humanpose3d.studio.human36m_archives import archive_scene, take_file, with_lens
from humanpose3d.video import read_frame

SIZE, FRAMES = 64, 3
CAMERAS = {"54138969": 1, "55011271": 2, "58860488": 3, "60457274": 4}
POSES = "MyPoseFeatures/D3_Positions"
CDF, VIDEO = f"S1/{POSES}/Directions 1.cdf", "S1/Videos/Directions 1.54138969.mp4"


class Nothing:
    """Fails where a reader leaves anything out."""

    def skip(self, name, reason):
        raise AssertionError(f"{name}: {reason}")

    def fault(self, message):
        raise AssertionError(message)


def read(images: Path, annotations: Path | None = None, subjects=("1", "S5"), **options) -> list[LabelledFrame]:
    return list(human36m.read_frames(images, annotations or images, subjects, **{"told": Nothing(), **options}))


def written(folder: Path, layout: str) -> Path:
    write_human36m(folder, subjects=("S1", "S5"), actions=(12,), frames_per_take=FRAMES, size=SIZE, layout=layout)
    write_human36m(
        folder, subjects=("S1",), actions=(2,), subactions=(1,), frames_per_take=FRAMES, size=SIZE, layout=layout
    )  # as archives come: subject by subject
    return folder


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("official"), "official")


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("npz")
    write_human36m(folder, subjects=("S1", "S5"), actions=(12,), frames_per_take=FRAMES, size=SIZE, layout="npz")
    return folder


@pytest.fixture
def copied(official: Path, tmp_path: Path) -> Path:
    return shutil.copytree(official, tmp_path / "copy")


def test_frames_of_the_archives_come_by_subject_action_take_camera_and_frame(official: Path) -> None:
    frames = read(official)
    expected = [("S1", "Directions 1"), ("S1", "Photo 1"), ("S1", "Photo 2"), ("S5", "Photo 1"), ("S5", "Photo 2")]
    assert [(frame.subject, frame.action, frame.camera_id, frame.frame_index) for frame in frames] == [
        (*take, camera, index) for take in expected for camera in CAMERAS for index in range(FRAMES)
    ]
    assert len({frame.key for frame in frames}) == len(frames)
    assert frames[1].key == "h36m-S1-Directions_1-54138969-000001-p0"
    assert frames[0].fps == 50.0 and frames[0].source_file == CDF and frames[0].image_size_wh == (SIZE, SIZE)


def test_labels_of_the_archives_are_the_studios(official: Path) -> None:
    for frame in read(official)[:: FRAMES + 1]:
        scene = archive_scene(frame.subject, 2 if "Dir" in frame.action else 12, int(frame.action[-1]), SIZE, 0)
        camera = with_lens(scene.cameras[CAMERAS[frame.camera_id]], CAMERAS[frame.camera_id])
        joints_cam_m = world_to_camera(scene.joints_at(frame.frame_index).h36m, camera)
        np.testing.assert_allclose(frame.joints_cam_m, joints_cam_m, atol=1e-6)
        np.testing.assert_allclose(frame.joints_px, camera_to_pixel(joints_cam_m, camera), atol=1e-3)
        np.testing.assert_allclose(camera_to_pixel(frame.joints_cam_m, frame.camera), frame.joints_px, atol=1e-3)
        low, high = frame.joints_px.min(0), frame.joints_px.max(0)
        np.testing.assert_allclose(frame.box_px[2:] - frame.box_px[:2], 1.2 * (high - low), rtol=1e-4)
        assert frame.skeleton == "h36m_17" and (frame.joint_score == 1).all()


def test_each_frame_names_its_picture_in_the_video(official: Path) -> None:
    frames = read(official)
    assert frames[1].image_path == Path(VIDEO, "000001")
    assert {frame.image_path.parent.name for frame in frames if frame.action == "Photo 2"} == {
        f"{name}.{camera}.mp4" for name in ("TakingPhoto", "Photo 2") for camera in CAMERAS
    }
    assert read_frame(official / frames[1].image_path.parent, 1).shape == (SIZE, SIZE, 3)


def test_both_layouts_show_the_same_people(tmp_path: Path) -> None:
    """Frame 16 of the archives is frame 1 of the other layout, whose frames are 16 apart."""
    asked = {"subjects": ("S5",), "actions": (2,), "cameras": (2,), "size": 32}
    write_human36m(tmp_path / "a", **asked, frames_per_take=17, subactions=(2,), layout="official")
    write_human36m(tmp_path / "b", **asked, frames_per_take=2, subactions=(2,))
    archives = [frame for frame in read(tmp_path / "a", subjects=["5"], frame_step=16) if frame.camera_id == "55011271"]
    moon = read(tmp_path / "b/images", tmp_path / "b/annotations", ["5"])
    assert [frame.action for frame in archives] == [frame.action for frame in moon] == ["Directions 2"] * 2
    for first, second in zip(archives, moon, strict=True):
        np.testing.assert_allclose(
            camera_to_world(first.joints_cam_m, first.camera), camera_to_world(second.joints_cam_m, second.camera),
            atol=1e-5,
        )  # fmt: skip


def test_the_npz_gives_the_same_frames_as_the_archives(official: Path, npz: Path) -> None:
    of_npz = read(npz / "images", npz / "annotations")
    of_archives = [frame for frame in read(official) if frame.action != "Directions 1"]
    assert [frame.key for frame in of_npz] == [frame.key for frame in of_archives]
    for first, second in zip(of_npz, of_archives, strict=True):
        np.testing.assert_allclose(first.joints_cam_m, second.joints_cam_m, atol=1e-6)
        np.testing.assert_allclose(first.joints_px, second.joints_px, atol=1e-3)
        assert (npz / "images" / first.image_path).is_file()
    assert of_npz[1].image_path.as_posix().endswith("S1_TakingPhoto_1.54138969_000002.jpg")
    assert of_npz[0].source_file == "data_3d_h36m.npz"


def test_the_npz_may_lie_beside_the_archives_videos_and_be_named_itself(official: Path, npz: Path) -> None:
    frames = read(official, npz / "annotations/data_3d_h36m.npz")
    assert frames[0].image_path == Path("S1/Videos/TakingPhoto 1.54138969.mp4/000000")


def test_the_frame_step_counts_frames_of_the_video(official: Path) -> None:
    frames = read(official, subjects=["S1"], frame_step=2)
    assert [frame.frame_index for frame in frames[:4]] == [0, 2, 0, 2]


def test_archives_unpacked_under_other_names_are_read_too(copied: Path) -> None:
    for subject in ("S1", "S5"):
        (copied / subject / POSES).rename(copied / subject / "Poses_D3_Positions")
    assert [frame.key for frame in read(copied)][0] == "h36m-S1-Directions_1-54138969-000000-p0"


def test_the_other_spelling_of_subject_ones_takes_changes_nothing(copied: Path, official: Path) -> None:
    for path in [*(copied / "S1" / POSES).iterdir(), *(copied / "S1/Videos").iterdir()]:
        path.rename(path.with_name(path.name.replace("TakingPhoto", "Photo")))
    assert [frame.key for frame in read(copied)] == [frame.key for frame in read(official)]


def test_sessions_are_left_out(copied: Path) -> None:
    shutil.copy(copied / CDF, copied / f"S1/{POSES}/_ALL 1.cdf")
    assert {frame.action for frame in read(copied, subjects=["1"])} == {"Directions 1", "Photo 1", "Photo 2"}


def test_a_recording_of_ones_own_keeps_its_name_and_a_second_of_one_take_is_told(copied: Path) -> None:
    shutil.copy(copied / CDF, copied / f"S1/{POSES}/Dancing.cdf")
    shutil.copy(copied / CDF, copied / f"S1/{POSES}/Photo 1.cdf")
    report = StageReport("test")
    actions = [frame.action for frame in read(copied, subjects=["1"], told=report)]
    assert list(dict.fromkeys(actions)) == ["Directions 1", "Photo 1", "Photo 2", "Dancing"]
    assert len(report.faults) == 1 and "TakingPhoto 1.cdf is a second 'Photo 1' of S1" in report.faults[0]


@pytest.mark.parametrize(
    "folder, name",
    [
        ("S1_Directions_1.54138969", "S1_Directions_1.54138969_{:06d}.jpg"),
        ("S1/S1_Directions_1.54138969", "{:05d}.png"),
        ("s_01_act_02_subact_01_ca_01", "s_01_act_02_subact_01_ca_01_{:06d}.jpg"),
        ("S1/Directions-1/imageSequence/54138969", "img_{:06d}.jpg"),
    ],
)
def test_extracted_images_are_found_where_there_is_no_video(copied: Path, folder: str, name: str) -> None:
    shutil.rmtree(copied / "S1/Videos")
    (copied / folder).mkdir(parents=True)
    for number in (1, 2):
        (copied / folder / name.format(number)).touch()
    paths = [frame.image_path for frame in read(copied, subjects=["1"])[:FRAMES]]
    assert paths[:2] == [Path(folder, name.format(number)) for number in (1, 2)]
    assert paths[2].parent == Path(folder)


def test_a_pattern_names_any_other_place(official: Path) -> None:
    frame = read(official, subjects=["5"], image_pattern="{subject}/{action}{take}/{camera}_{number}.jpg")[1]
    assert frame.image_path == Path("S5/Photo1/54138969_2.jpg")


def test_frames_of_a_missing_video_are_named_all_the_same(copied: Path) -> None:
    (copied / VIDEO).unlink()
    assert read(copied)[2].image_path == Path(VIDEO, "000002")


def test_a_missing_subject_is_named_with_those_that_are_there(official: Path) -> None:
    with pytest.raises(ValueError, match="no annotations of S9 in .*; there are S1, S5"):
        read(official, subjects=["9"])


def test_a_folder_without_annotations_says_what_it_could_have(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="3DMPPE.*D3_Positions/.*cdf or data_3d_h36m.npz"):
        read(tmp_path)


# --------------------------------------------------------------------------------------------------------- bad input


def test_a_cdf_cut_in_half_costs_only_its_take(copied: Path) -> None:
    path = copied / CDF
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = StageReport("test")
    assert "Directions 1" not in {frame.action for frame in read(copied, told=report)}
    assert len(report.faults) == 1 and f"{path}: not a whole .cdf file" in report.faults[0]


@pytest.mark.parametrize("cut", [0, 1, 8, 100, 300, 404])
def test_a_cdf_cut_anywhere_is_a_fault_and_no_crash(copied: Path, cut: int) -> None:
    path = copied / CDF
    path.write_bytes(path.read_bytes()[:cut])
    report = StageReport("test")
    read(copied, told=report)
    assert len(report.faults) == 1 and str(path) in report.faults[0]


def test_a_cdf_of_another_feature_is_told(copied: Path) -> None:
    from humanpose3d.studio.human36m_archives import cdf_bytes

    (copied / CDF).write_bytes(cdf_bytes("Pose", np.zeros((1, 5, 64), np.float32)))
    (copied / f"S5/{POSES}/Photo.cdf").write_bytes(cdf_bytes("Angles", np.zeros((1, 5, 96), np.float32)))
    report = StageReport("test")
    assert {frame.action for frame in read(copied, told=report)} == {"Photo 1", "Photo 2"}
    assert "'Pose' is 5 x 64, expected N x 96" in report.faults[0]
    assert "has no variable 'Pose' (it holds Angles)" in report.faults[1]


def test_the_frames_beyond_the_end_of_a_short_video_are_left_out(copied: Path) -> None:
    from humanpose3d.video import write_video

    write_video(copied / VIDEO, iter(np.zeros((2, 16, 16, 3), np.uint8)), 50)
    report = StageReport("test")
    frames = read(copied, subjects=["1"], told=report)
    assert [frame.frame_index for frame in frames[:3]] == [0, 1, 0]
    assert report.skipped == {"beyond the end of its video": [f"{VIDEO}/000002"]}
    assert report.faults == [f"{copied / VIDEO} has 2 frames, {CDF} labels 3; copy the video anew"]


def test_a_video_longer_than_its_labels_is_as_it_should_be(copied: Path) -> None:
    from humanpose3d.video import write_video

    write_video(copied / VIDEO, iter(np.zeros((9, 16, 16, 3), np.uint8)), 50)
    assert len(read(copied, subjects=["1"])) == 3 * 4 * FRAMES


def test_a_video_cut_in_half_costs_only_its_own_frames(copied: Path) -> None:
    path = copied / VIDEO
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report = StageReport("test")
    assert len(read(copied, subjects=["1"], told=report)) == (3 * 4 - 1) * FRAMES
    assert report.skipped_counts == {"its video cannot be read": FRAMES}
    assert len(report.faults) == 1 and str(path) in report.faults[0]


def test_a_camera_missing_for_a_subject_costs_only_its_own_frames(copied: Path, npz: Path) -> None:
    parameters = json.loads((npz / "annotations/camera-parameters.json").read_text())
    del parameters["extrinsics"]["S5"]["58860488"]
    (copied / "camera-parameters.json").write_text(json.dumps(parameters))
    (copied / "metadata.xml").unlink()
    report = StageReport("test")
    frames = read(copied, told=report)
    assert {frame.camera_id for frame in frames if frame.subject == "S5"} == set(CAMERAS) - {"58860488"}
    assert report.skipped_counts == {"no camera parameters": 2 * FRAMES}
    assert report.faults[0].endswith("camera-parameters.json: has no camera 58860488 of S5; copy it anew")


def test_without_a_camera_file_nothing_can_be_read(copied: Path) -> None:
    (copied / "metadata.xml").unlink()
    with pytest.raises(FileNotFoundError, match="no camera parameters of Human3.6M"):
        read(copied)


def test_annotations_that_are_all_broken_are_an_error(copied: Path) -> None:
    for path in copied.rglob("*.cdf"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a whole .cdf file"):
        read(copied, told=StageReport("test"))


def test_a_joint_that_was_not_captured_is_missing_and_the_others_stay(npz: Path, tmp_path: Path) -> None:
    shutil.copytree(npz / "annotations", tmp_path / "annotations")
    positions = np.load(npz / "annotations/data_3d_h36m.npz", allow_pickle=True)["positions_3d"].item()
    positions["S1"]["Photo 1"][0, 27] = np.nan  # the right wrist of the 32
    np.savez(tmp_path / "annotations/data_3d_h36m.npz", positions_3d=positions)
    frame = read(npz / "images", tmp_path / "annotations")[0]
    wrist = H36M_17.index("right_wrist")
    assert np.isnan(frame.joints_cam_m[wrist]).all() and np.isnan(frame.joints_px[wrist]).all()
    assert frame.joint_score[wrist] == 0 and frame.joint_score.sum() == 16 and np.isfinite(frame.box_px).all()


@pytest.mark.parametrize("what", ["cut", "keys", "shape", "joints"])
def test_a_broken_npz_is_named(npz: Path, tmp_path: Path, what: str) -> None:
    shutil.copytree(npz / "annotations", tmp_path / "annotations")
    path = tmp_path / "annotations/data_3d_h36m.npz"
    positions = np.load(path, allow_pickle=True)["positions_3d"].item()
    if what == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif what == "keys":
        np.savez(path, positions_2d=positions)
    elif what == "shape":
        np.savez(path, positions_3d=np.zeros((4, 32, 3)))
    else:
        np.savez(path, positions_3d={"S1": {"Photo": np.zeros((4, 17, 3))}, "S5": {}})
    with pytest.raises(ValueError, match=f"{path.name}: "):
        read(npz / "images", tmp_path / "annotations", told=StageReport("test"))


# ------------------------------------------------------------------------------------------------------------- names


def test_reader_and_studio_agree_on_the_names_of_all_takes() -> None:
    for subject in ("S1", "S5", "S6", "S7", "S8", "S9", "S11"):
        names = {}
        for number in ACTIONS:
            for take in (1, 2):
                name = take_file(subject, number, take)
                assert name == file_name(subject, number, take)
                found = find_take(subject, take_file(subject, number, take, own_spelling=False))
                assert (found.number, found.take) == (number, take)
                names[name] = found
        assert len(names) == 30
    assert find_take("S5", "SittingDown").label == "SittingDown 1"
    assert find_take("S11", "Phoning 2").label == "Phoning 2" and find_take("S11", "Phoning 3").label == "Phoning 1"
