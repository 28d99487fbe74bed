"""The studio in 3DPW's layout: real poses of SMPL, a camera that moves, the corpus's own fields."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from humanpose3d.camera import world_to_camera
from humanpose3d.skeletons import COCO_18, SMPL_24, shared_joints
from humanpose3d.sources.reading import read_npz, read_pickle
from humanpose3d.studio.film import SUBJECTS as H36M_SUBJECTS
from humanpose3d.studio.free_body import free_body
from humanpose3d.studio.joint_sets import joints_in
from humanpose3d.studio.threedpw import (
    SUBJECTS,
    camera_at,
    fit_pose,
    sequence_data,
    sequence_scene,
    write_threedpw,
)
from tests import bodies

SIZE, FRAMES = 64, 3
SEQUENCE = "train/flat_sitting_00"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("threedpw")
    report = write_threedpw(out, frames_per_take=FRAMES, size=SIZE)
    assert report.counts["images"] == report.inputs == len(SUBJECTS) * FRAMES
    assert report.exit_code == 0
    return out


def pickle_of(out: Path, subject: str = SEQUENCE) -> dict:
    return read_pickle(out / "sequenceFiles" / f"{subject}.pkl")


def seen(data: dict) -> np.ndarray:
    """float64 [N 24 3]: x, y, depth of the joints through each frame's camera."""
    joints = data["jointPositions"][0].reshape(-1, 24, 3)
    camera_m = np.einsum("nij,nkj->nki", data["cam_poses"][:, :3, :3], joints) + data["cam_poses"][:, None, :3, 3]
    pixels = camera_m @ data["cam_intrinsics"].T
    return np.concatenate([pixels[..., :2] / pixels[..., 2:], camera_m[..., 2:]], axis=-1)


def test_names_are_those_of_the_corpus(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {"imageFiles", "sequenceFiles", "studio.json"}
    assert {f"{path.parent.name}/{path.stem}" for path in written.glob("sequenceFiles/*/*.pkl")} == set(SUBJECTS)
    images = sorted(path.name for path in (written / "imageFiles/flat_sitting_00").iterdir())
    assert images == [f"image_{frame:05d}.jpg" for frame in range(FRAMES)]
    assert cv2.imread(str(written / "imageFiles/flat_sitting_00/image_00000.jpg")).shape == (SIZE, SIZE, 3)
    assert not set(SUBJECTS) & set(H36M_SUBJECTS)


def test_fields_have_the_corpus_shapes(written: Path) -> None:
    data = pickle_of(written)
    per_person = {
        "poses": (FRAMES, 72), "trans": (FRAMES, 3), "betas": (10,), "jointPositions": (FRAMES, 72),
        "poses2d": (FRAMES, 3, 18), "campose_valid": (FRAMES,), "poses_60Hz": (2 * FRAMES, 72),
        "trans_60Hz": (2 * FRAMES, 3), "v_template_clothed": (6890, 3),
    }  # fmt: skip
    assert {name: data[name][0].shape for name in per_person} == per_person
    assert {name: len(data[name]) for name in [*per_person, "genders"]} == dict.fromkeys([*per_person, "genders"], 1)
    assert data["cam_poses"].shape == (FRAMES, 4, 4) and data["cam_intrinsics"].shape == (3, 3)
    assert data["sequence"] == "flat_sitting_00" and data["genders"][0] in ("m", "f")
    np.testing.assert_array_equal(data["poses"][0], data["poses_60Hz"][0][data["img_frame_ids"]])
    np.testing.assert_array_equal(data["cam_intrinsics"][:2, 2], [SIZE / 2, SIZE / 2])


def test_the_body_model_gives_the_joint_positions(written: Path) -> None:
    for subject in SUBJECTS:
        data = pickle_of(written, subject)
        rest_m = free_body().joints_m(data["betas"][0])
        for frame in range(FRAMES):
            posed = bodies.pose_joints(rest_m, data["poses"][0][frame].reshape(24, 3), data["trans"][0][frame])
            np.testing.assert_allclose(posed, data["jointPositions"][0][frame].reshape(24, 3), atol=1e-9)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_fitted_bodies_stand_where_the_filmed_ones_do(subject: str) -> None:
    data, scene = sequence_data(subject, 8, size=SIZE), sequence_scene(subject, size=SIZE)
    for frame, joints_px_and_depth in enumerate(seen(data)):
        camera = camera_at(scene, frame)
        filmed_m = world_to_camera(joints_in(scene.joints_at(frame), SMPL_24), camera)
        found_m = np.linalg.inv(camera.K) @ (np.append(joints_px_and_depth[0, :2], 1.0) * joints_px_and_depth[0, 2])
        np.testing.assert_allclose(found_m, filmed_m[0], atol=1e-9)  # the pelvis is exact
        joints_m = data["jointPositions"][0][frame].reshape(24, 3) @ data["cam_poses"][frame, :3, :3].T
        joints_m += data["cam_poses"][frame, :3, 3]
        off_m = np.linalg.norm(joints_m - filmed_m, axis=-1)
        assert off_m[shared_joints(SMPL_24, COCO_18)[0]].max() < 0.005
        assert off_m.max() < 0.015  # spine, hands and feet of a shape of ten numbers


def test_stored_joints_project_onto_stored_detections(written: Path) -> None:
    of_smpl, of_coco = shared_joints(SMPL_24, COCO_18)
    assert len(of_smpl) == 12
    for subject in SUBJECTS:
        data = pickle_of(written, subject)
        detections = data["poses2d"][0].transpose(0, 2, 1)[:, of_coco]
        known = detections[..., 2] > 0
        assert known.mean() > 0.9
        off_px = np.linalg.norm(seen(data)[:, of_smpl, :2] - detections[..., :2], axis=-1)[known]
        assert off_px.max() < 0.005 / 3 * SIZE * 1.5  # 5 mm at 3 m and more


def test_rest_bodies_are_smpls(written: Path) -> None:
    rest_m = free_body().joints_m(pickle_of(written)["betas"][0])
    at = dict(zip(SMPL_24.joints, rest_m, strict=True))
    assert at["left_wrist"][0] > at["left_shoulder"][0] + 0.4 and at["right_wrist"][0] < at["right_shoulder"][0] - 0.4
    assert abs(at["left_wrist"][1] - at["left_shoulder"][1]) < 0.05  # arms out to the sides
    assert at["head"][1] > at["pelvis"][1] > at["left_ankle"][1] and at["left_foot"][2] > at["left_ankle"][2] + 0.05
    assert np.abs(at["pelvis"]).max() > 0.1  # the rest pelvis is not the origin
    mirrored = rest_m[SMPL_24.flip_permutation] * [-1, 1, 1]
    assert np.abs(rest_m - mirrored).max() < 0.01


def test_a_pose_is_found_again_up_to_twists() -> None:
    rng = np.random.default_rng(0)
    rest_m = bodies.symmetric_rest_body(rng)
    pose_rad, trans_m = rng.uniform(-0.8, 0.8, (24, 3)), np.array([0.3, -0.2, 4.0])
    joints_m = bodies.pose_joints(rest_m, pose_rad, trans_m)
    found_rad, found_m = fit_pose(rest_m, joints_m)
    np.testing.assert_allclose(found_m, trans_m, atol=1e-12)
    np.testing.assert_allclose(bodies.pose_joints(rest_m, found_rad, found_m), joints_m, atol=1e-9)
    np.testing.assert_allclose(found_rad[0], pose_rad[0], atol=1e-9)  # three bones meet: no twist is left open


def test_the_camera_moves_with_every_image() -> None:
    poses = sequence_data(SEQUENCE, 8, size=SIZE)["cam_poses"]
    assert all(not np.allclose(first, second, atol=1e-3) for first, second in zip(poses, poses[1:], strict=False))


def test_tables_hold_the_same_people_turned_into_the_camera(written: Path, tmp_path: Path) -> None:
    write_threedpw(tmp_path, subjects=["test", "flat_sitting_00"], frames_per_take=FRAMES, size=SIZE, layout="spin")
    assert {path.name for path in tmp_path.glob("*.npz")} == {"3dpw_test.npz", "3dpw_train.npz"}
    table, data = read_npz(tmp_path / "3dpw_train.npz"), pickle_of(written)
    assert set(table) == {"imgname", "center", "scale", "pose", "shape", "gender"}
    assert table["imgname"].tolist() == [f"imageFiles/flat_sitting_00/image_{n:05d}.jpg" for n in range(FRAMES)]
    np.testing.assert_array_equal(table["pose"][:, 3:], data["poses"][0][:, 3:])
    root, world = (bodies.Rotation.from_rotvec(poses[:, :3]) for poses in (table["pose"], data["poses"][0]))
    turned = data["cam_poses"][:, :3, :3] @ world.as_matrix()
    np.testing.assert_allclose(root.as_matrix(), turned, atol=1e-9)
    pixels = seen(data)[..., :2]
    inside = np.abs(pixels - table["center"][:, None]) <= 100 * table["scale"][:, None, None] + 0.1
    assert inside.mean() > 0.9


def test_writing_again_keeps_images_and_bytes(written: Path) -> None:
    before = {path: path.read_bytes() for path in written.rglob("*") if path.is_file()}
    one = next(path for path in before if path.suffix == ".jpg")
    one.unlink()
    report = write_threedpw(written, frames_per_take=FRAMES, size=SIZE, workers=2)
    assert report.counts == {"images": 1, "already there": len(SUBJECTS) * FRAMES - 1}
    assert {path: path.read_bytes() for path in written.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"subjects": ["courtyard_golf_00"]}, "no 3DPW sequence 'courtyard_golf_00'"),
        ({"layout": "vibe"}, "official or spin"),
        ({"frames_per_take": 0}, "at least 1 frame"),
        ({"seed": 5}, "another folder"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(written: Path, asked: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        write_threedpw(written, **({"size": SIZE, "frames_per_take": 1} | asked))
