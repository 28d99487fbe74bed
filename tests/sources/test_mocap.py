"""Motion filmed by virtual cameras: geometry exact, people in the picture, bodies whole; and CMU's where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel, camera_to_world, world_to_camera
from humanpose3d.reports import StageReport
from humanpose3d.sample import LabelledFrame
from humanpose3d.skeletons import COCO_17, H36M_17, shared_joints
from humanpose3d.sources import mocap
from humanpose3d.sources.mocap_bodies import MARKED, STATURE_OF_LEG, BodyChanges, Build, draw_build, rebuild
from humanpose3d.sources.mocap_cameras import DISTANCE_M, FOV_DEG, HEIGHT_M, NEAREST_M, ROLL_DEG, film
from humanpose3d.studio.mocap import FILE, write_mocap
from humanpose3d.warp import in_view

FRAMES = 45
BOTH = tuple(zip(*shared_joints(H36M_17, COCO_17), strict=True))
# Joints that are one point in both skeletons, on other bodies too.
OF_H36M, OF_COCO = map(list, zip(*(pair for pair in BOTH if not COCO_17.joints[pair[1]].endswith(MARKED)), strict=True))


class Nothing:
    """Fails where a reader leaves anything out."""

    def skip(self, name: str, reason: str) -> None:
        raise AssertionError(f"{name}: {reason}")

    def fault(self, message: str) -> None:
        raise AssertionError(message)

    def note(self, message: str) -> None:
        raise AssertionError(message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person to train on, one for validation, in all actions."""
    out = tmp_path_factory.mktemp("motion")
    write_mocap(out, subjects=["S101", "S901"], frames_per_take=FRAMES)
    return out


@pytest.fixture(scope="module")
def frames(folder: Path) -> list[LabelledFrame]:
    return read(folder, cameras=2)


def read(folder: Path, subjects: tuple[str, ...] = ("train", "validation"), **options: Any) -> list[LabelledFrame]:
    return list(mocap.read_frames(Path("unused"), folder, subjects, **{"told": Nothing(), **options}))


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / FILE, allow_pickle=False) as file:
        return dict(file)


def rewrite(folder: Path, out: Path, **changes: np.ndarray | None) -> Path:
    """A copy of the file with other arrays; None leaves one out."""
    values = {name: value for name, value in (arrays(folder) | changes).items() if value is not None}
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / FILE, **values)
    return out


def takes(frames: list[LabelledFrame]) -> Iterator[list[LabelledFrame]]:
    found: dict[tuple[str, str], list[LabelledFrame]] = {}
    for frame in frames:
        found.setdefault((frame.action, frame.camera_id), []).append(frame)
    yield from found.values()


def keypoints(frame: LabelledFrame) -> np.ndarray:
    assert frame.keypoint_track is not None
    return frame.keypoint_track.points[frame.track_row]


def test_every_frame_of_every_motion_is_filmed_by_every_camera(frames):
    assert len(frames) == 2 * 15 * FRAMES * 2
    assert all([frame.frame_index for frame in take] == list(range(FRAMES)) for take in takes(frames))
    assert len({frame.key for frame in frames}) == len(frames)
    assert {frame.subject for frame in frames} == {"S101", "S901"} and frames[0].fps == 10.0
    assert all(frame.image_path is None and len(frame.key) < 80 for frame in frames)


def test_joints_in_the_camera_land_on_the_joints_in_pixels(frames):
    for frame in frames:
        np.testing.assert_allclose(camera_to_pixel(frame.joints_cam_m, frame.camera), frame.joints_px, atol=0.01)


def test_keypoints_are_the_labels_own_projections(frames):
    for frame in frames:
        shown = keypoints(frame)[OF_COCO, 2] > 0
        np.testing.assert_allclose(keypoints(frame)[OF_COCO][shown, :2], frame.joints_px[OF_H36M][shown], atol=0.01)


def test_people_are_wholly_in_the_picture(frames):
    shown = np.array([keypoints(frame)[:, 2] for frame in frames])
    assert np.isin(shown, (0, 1)).all() and (shown > 0).all(1).mean() > 0.99
    assert np.mean([in_view(frame.joints_px, frame.image_size_wh).all() for frame in frames]) > 0.99


def test_people_are_not_always_in_the_middle(frames):
    places = np.array([frame.joints_px[0] / frame.image_size_wh for frame in frames])
    assert (places.std(0) > 0.1).all() and (abs(places.mean(0) - 0.5) < 0.1).all()


def test_cameras_stand_where_they_should(frames):
    cameras = {id(frame.camera): frame for frame in frames}.values()
    places = np.array([-frame.camera.R.T @ frame.camera.t_m for frame in cameras])
    assert places[:, 2].min() >= HEIGHT_M[0] and places[:, 2].max() <= HEIGHT_M[1] and np.ptp(places[:, 2]) > 2
    fov = [np.degrees(2 * np.arctan(max(f.image_size_wh) / 2 / f.camera.K[0, 0])) for f in cameras]
    assert FOV_DEG[0] - 0.01 < min(fov) < 45 and 80 < max(fov) < FOV_DEG[1] + 0.01
    up = np.array([frame.camera.R[:, 2] for frame in cameras])  # the world's, in camera axes
    assert np.degrees(np.abs(np.arctan2(up[:, 0], -up[:, 1]))).max() <= ROLL_DEG + 0.01
    away = [np.linalg.norm((f.joints_cam_m[0] @ f.camera.R)[:2]) for f in frames]
    assert DISTANCE_M[0] < np.quantile(away, 0.05) and np.quantile(away, 0.95) < DISTANCE_M[1] + 0.2
    assert np.allclose([np.linalg.det(f.camera.R) for f in cameras], 1.0)
    assert min(frame.joints_cam_m[:, 2].min() for frame in frames) >= NEAREST_M - 1e-6


def sides_told(frames: list[LabelledFrame], file: Path) -> tuple[int, float]:
    """Of recorded bodies whose face is plainly turned to the camera or away from it: how many, and the share of them
    whose left shoulder is on the side of the picture where it then belongs."""
    with np.load(file, allow_pickle=False) as values:
        faces = {
            (motion, (frame - first) // 12): face
            for motion, frame, first, face in zip(
                values["motion"].tolist(), values["frame"], firsts(values["motion"], values["frame"]),
                values["joints_coco_m"], strict=True,
            )
        }  # fmt: skip
    left, right = (H36M_17.index(f"{side}_shoulder") for side in ("left", "right"))
    nose, ears = COCO_17.index("nose"), [COCO_17.index("left_ear"), COCO_17.index("right_ear")]
    told = []
    for frame in frames:
        face = world_to_camera(faces[frame.action.split()[-1], frame.frame_index], frame.camera)
        nearer = face[ears, 2].mean() - face[nose, 2]
        if abs(nearer) > 0.09:
            told.append((frame.joints_px[left, 0] > frame.joints_px[right, 0]) == (nearer > 0))
    return len(told), float(np.mean(told))


def firsts(motions: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The number of its motion's first frame, for each frame."""
    _, first, inverse = np.unique(motions, return_index=True, return_inverse=True)
    return frames[first][inverse]


def test_left_is_on_the_right_of_who_faces_the_camera(folder, frames):
    number, share = sides_told([frame for frame in frames if frame.subject == "S901"], folder / FILE)
    assert number > 150 and share > 0.97


def test_a_camera_depends_on_seed_motion_and_number_alone(folder, frames):
    alone = {frame.key: frame for frame in read(folder, ("S901",), cameras=1, frame_step=7)}
    known = {frame.key: frame for frame in frames}
    assert len(alone) == 15 * -(-FRAMES // 7)
    for key, frame in alone.items():
        np.testing.assert_array_equal(frame.camera.R, known[key].camera.R)
        np.testing.assert_array_equal(keypoints(frame), keypoints(known[key]))
    other = read(folder, ("S901",), cameras=1, camera_seed=1)[0]
    assert abs(other.camera.R - known[other.key].camera.R).max() > 0.01


def test_neighbours_stand_in_a_frames_own_camera(frames):
    """What a window holds is the same person through the frame's camera, across the stretch's end too."""
    coco = {(frame.action, frame.camera_id, frame.frame_index): frame for frame in frames}
    changes = 0
    for (action, camera_id, index), frame in coco.items():
        after = coco.get((action, camera_id, index + 1))
        if after is None:
            continue
        changes += after.camera is not frame.camera
        world = camera_to_world(after.joints_cam_m.astype(np.float64), after.camera)
        seen_px = camera_to_pixel(world_to_camera(world, frame.camera), frame.camera)[OF_H36M]
        row = frame.keypoint_track.points[frame.track_row + 1][OF_COCO]
        shown = row[:, 2] > 0
        np.testing.assert_allclose(row[shown, :2], seen_px[shown], atol=0.05)
        assert not in_view(seen_px[~shown], (frame.image_size_wh[0] - 1, frame.image_size_wh[1] - 1)).any()
    assert 0 < changes < len(frames) / 10


def test_a_gap_in_a_take_is_a_gap_in_the_track(folder, tmp_path):
    values = arrays(folder)
    kept = (values["frame"] != 5 * 12) & (values["motion"] == "studio_S101_Sitting")
    gappy = rewrite(folder, tmp_path, **{name: value[kept] for name, value in values.items() if len(value) > 17})
    found = read(gappy, ("S101",), cameras=1)
    assert [frame.frame_index for frame in found] == [*range(5), *range(6, FRAMES)]
    points = found[0].keypoint_track.points
    assert len(points) == FRAMES and np.isnan(points[5, :, :2]).all() and (points[5, :, 2] == 0).all()
    np.testing.assert_array_equal(points[6], found[5].keypoint_track.points[found[5].track_row])


def test_validation_is_filmed_as_recorded_and_training_is_not(folder, frames):
    values = arrays(folder)
    recorded = {
        (motion, frame // 12): joints
        for motion, frame, joints in zip(values["motion"], values["frame"], values["joints_h36m_m"], strict=True)
    }
    for frame in frames:
        world = camera_to_world(frame.joints_cam_m.astype(np.float64), frame.camera)
        off = abs(world - recorded[frame.action.split()[-1], frame.frame_index]).max()
        assert off < 1e-5 if frame.subject == "S901" else off > 0.005


def test_bodies_can_be_asked_for(folder):
    varied, recorded = (read(folder, ("S101",), cameras=1, bodies=bodies)[0] for bodies in ("varied", "recorded"))
    assert varied.key != recorded.key and abs(varied.joints_cam_m - recorded.joints_cam_m).max() > 0.01
    with pytest.raises(ValueError, match="unknown bodies 'fat'; known: auto, varied, recorded"):
        read(folder, bodies="fat")


def test_a_subject_wears_one_body_in_all_takes_of_a_camera(frames):
    lengths: dict[tuple[str, str], list[np.ndarray]] = {}
    bones = np.array(H36M_17.bones)
    for frame in frames:
        joints = frame.joints_cam_m
        lengths.setdefault((frame.subject, frame.camera_id), []).append(
            np.linalg.norm(joints[bones[:, 0]] - joints[bones[:, 1]], axis=-1)
        )
    of_neck = [child in (H36M_17.index("neck"), H36M_17.index("head")) for _, child in bones]
    means = {}
    for body, all_of_it in lengths.items():
        assert np.std(all_of_it, axis=0)[~np.array(of_neck)].max() < 1e-5
        means[body] = np.mean(all_of_it, axis=0)
    assert abs(means["S101", "c00"] - means["S101", "c01"]).max() > 0.005
    np.testing.assert_allclose(means["S901", "c00"], means["S901", "c01"], atol=1e-5)
    assert len({frame.key.rsplit("-", 1)[1] for frame in frames}) == 3, "a body has its number in the key"


# --------------------------------------------------------------------------------------------------------- bodies


@pytest.fixture(scope="module")
def sitting(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    values = arrays(folder)
    own = values["motion"] == "studio_S101_Sitting"
    return values["joints_h36m_m"][own].astype(np.float64), values["joints_coco_m"][own].astype(np.float64)


def test_a_body_of_the_same_measures_changes_nothing(sitting):
    h36m, coco = sitting
    still = BodyChanges(angle_rad=0.0)
    legs = sum(
        np.linalg.norm(h36m[0, H36M_17.index(a)] - h36m[0, H36M_17.index(b)])
        for a, b in (("left_hip", "left_knee"), ("left_knee", "left_ankle"))
    )
    same = Build(STATURE_OF_LEG * legs, np.ones(17), 1.0)
    moved = rebuild(h36m, coco, 10.0, same, still, np.random.default_rng(0))
    np.testing.assert_allclose(moved[0], h36m, atol=1e-9)
    np.testing.assert_allclose(moved[1], coco, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_another_body_is_whole(sitting, seed):
    h36m, coco = sitting
    changes, rng = BodyChanges(), np.random.default_rng(seed)
    build = draw_build(changes, rng)
    new_h36m, new_coco = rebuild(h36m, coco, 10.0, build, changes, rng)
    np.testing.assert_array_equal(new_coco[:, OF_COCO], new_h36m[:, OF_H36M])
    marked = [pair for pair in BOTH if pair[1] not in OF_COCO]
    beside_m = [np.linalg.norm(new_coco[:, seen] - new_h36m[:, joint], axis=-1).mean() for joint, seen in marked]
    assert len(marked) == 4 and 0.002 < min(beside_m) and max(beside_m) < 0.06
    hips = [H36M_17.index(f"{side}_hip") for side in ("left", "right")]
    np.testing.assert_allclose(new_h36m[:, hips].mean(1), new_h36m[:, 0], atol=1e-6)
    assert changes.stature_m[0] <= build.stature_m <= changes.stature_m[1]
    for parent, child in H36M_17.bones:
        was, now = (np.linalg.norm(each[:, child] - each[:, parent], axis=-1) for each in (h36m, new_h36m))
        factor = now / was
        assert np.ptp(factor) < 1e-6, H36M_17.joints[child]
    np.testing.assert_allclose(build.bones[H36M_17.flip_permutation], build.bones)
    face = [COCO_17.index(name) for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")]
    offsets = new_coco[:, face] - new_h36m[:, [H36M_17.index("head")]]
    assert np.ptp(np.linalg.norm(offsets[:, 0] - offsets[:, 3], axis=-1)) < 1e-6, "the face stays in one piece"


def test_no_knee_or_elbow_is_bent_the_wrong_way(sitting):
    h36m, coco = sitting
    changes = BodyChanges(angle_rad=0.3)  # far beyond the default
    new, _ = rebuild(h36m, coco, 10.0, draw_build(changes, np.random.default_rng(0)), changes, np.random.default_rng(1))
    for first, middle, last in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
        a, b, c = (H36M_17.index(f"left_{joint}") for joint in (first, middle, last))

        def bend(joints, a=a, b=b, c=c):
            upper, lower = joints[:, b] - joints[:, a], joints[:, c] - joints[:, b]
            cosine = (upper * lower).sum(-1) / np.linalg.norm(upper, axis=-1) / np.linalg.norm(lower, axis=-1)
            return np.arccos(np.clip(cosine, -1, 1))

        assert (bend(new) <= 2.8 * bend(h36m) + 1e-6).all() and (bend(new) > 0.0).all()


def test_turns_are_smooth_in_time(sitting):
    h36m, coco = (np.repeat(joints[:1], 200, axis=0) for joints in sitting)  # somebody frozen
    changes = BodyChanges(angle_rad=0.09, stiffest=0.99)
    moved, _ = rebuild(
        h36m, coco, 10.0, draw_build(changes, np.random.default_rng(0)), changes, np.random.default_rng(1)
    )
    moved = moved - moved[:, :1]
    spread = np.linalg.norm(moved - moved.mean(0), axis=-1).mean()
    step = np.linalg.norm(np.diff(moved, axis=0), axis=-1).mean()
    assert 0.02 < spread < 0.12 and step < 0.35 * spread


# -------------------------------------------------------------------------------------------------------- filming


def test_somebody_who_walks_past_is_filmed_in_shorter_stretches():
    person = np.array([[0.0, 0.0, z] for z in np.linspace(0.1, 1.7, 5)])
    along = np.linspace(-20.0, 20.0, 80)[:, None, None] * [1.0, 0.0, 0.0]
    still, running = (film(person + way, np.random.default_rng(0)) for way in (0.0 * along, along))
    assert len(still) < len(running)
    for shots in (still, running):
        assert [shot.first for shot in shots[1:]] == [shot.last for shot in shots[:-1]]
        assert (shots[0].first, shots[-1].last) == (0, 80)


def test_directions_are_spread_evenly_over_somebody_who_walks():
    person = np.array([[0.0, 0.0, z] for z in np.linspace(0.1, 1.7, 5)])
    walk = person + np.arange(60)[:, None, None] * [0.14, 0.0, 0.0]
    side_on, frames = 0, 0
    for seed in range(200):
        for shot in film(walk, np.random.default_rng(seed)):
            towards = shot.camera.R[2, :2] / np.linalg.norm(shot.camera.R[2, :2])
            side_on += (shot.last - shot.first) * (abs(towards[1]) > np.sqrt(0.5))
            frames += shot.last - shot.first
    assert 0.4 < side_on / frames < 0.6


# ------------------------------------------------------------------------------------------------- files and faults


def test_subjects_are_asked_for_by_split_or_number(folder):
    assert {frame.subject for frame in read(folder, ("train",), cameras=1)} == {"S101"}
    assert {frame.subject for frame in read(folder, ("validation",), cameras=1)} == {"S901"}
    assert {frame.subject for frame in read(folder, ("101", "S901"), cameras=1)} == {"S101", "S901"}
    with pytest.raises(ValueError, match="no motion of 7 in .*; there are S101, S901, or train, validation"):
        read(folder, ("7",))


@pytest.mark.parametrize(
    "subject, kept_apart", [("S6", True), ("S8", True), ("S35", False), ("S901", True), ("SX", False)]
)
def test_who_is_kept_for_validation(subject, kept_apart):
    assert mocap.is_validation(subject) == kept_apart


def test_people_nobody_identified_have_a_name_of_their_own(folder, tmp_path):
    values = arrays(folder)
    unknown = rewrite(folder, tmp_path, subject=np.full_like(values["subject"], -1))
    assert {frame.subject for frame in read(unknown, ("SX",), cameras=1)} == {"SX"}


@pytest.mark.parametrize("name", ["joints_h36m_m", "joints_coco_m", "subject", "motion", "frame", "label"])
def test_a_file_without_an_array_is_named(folder, tmp_path, name):
    with pytest.raises(ValueError, match=f"{FILE}: has no '{name}'"):
        read(rewrite(folder, tmp_path, **{name: None}), told=StageReport("test"))


def test_joints_in_another_order_are_refused(folder, tmp_path):
    turned = rewrite(folder, tmp_path, h36m_names=np.array(H36M_17.joints)[::-1])
    with pytest.raises(ValueError, match="'h36m_names' is not h36m_17's order"):
        read(turned, told=StageReport("test"))


def test_a_motion_in_two_files_is_refused_and_the_first_is_read(folder, tmp_path):
    (tmp_path / f"copy_of_{FILE}").write_bytes((folder / FILE).read_bytes())
    (tmp_path / FILE).write_bytes((folder / FILE).read_bytes())
    report = StageReport("test")
    assert len(read(tmp_path, ("S101",), cameras=1, told=report)) == 15 * FRAMES
    assert len(report.faults) == 1 and "is in copy_of" in report.faults[0]


def test_half_a_file_does_not_cost_the_others(folder, tmp_path):
    whole = (folder / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole)
    (tmp_path / "cut_mocap_10fps.npz").write_bytes(whole[: len(whole) // 2])
    report = StageReport("test")
    assert len(read(tmp_path, ("S101",), cameras=1, told=report)) == 15 * FRAMES
    assert "cut_mocap_10fps.npz" in report.faults[0]


def test_where_there_is_no_motion_the_flag_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is missing; --annotations-path"):
        read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no \*_mocap_\*.npz in .*; --annotations-path"):
        read(tmp_path)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of CMU's motion; tests that need it are skipped without it."""
    if not os.environ.get("HUMANPOSE3D_MOCAP"):
        pytest.skip("HUMANPOSE3D_MOCAP names no folder of captured motion")
    return Path(os.environ["HUMANPOSE3D_MOCAP"])


def test_real_motion_is_human_upright_and_on_its_own_sides(real):
    frames = read(real, ("train",), cameras=1, frame_step=5, bodies="recorded")
    assert len({frame.subject for frame in frames}) > 8 and "SX" in {frame.subject for frame in frames}
    joints = np.array([camera_to_world(frame.joints_cam_m, frame.camera) for frame in frames])
    upright = joints[:, H36M_17.index("head"), 2] > joints[:, H36M_17.index("pelvis"), 2]
    assert upright.mean() > 0.99
    number, share = sides_told(frames, next(real.glob(mocap.FILES)))
    assert number > 500 and share > 0.97
    for frame in frames:
        np.testing.assert_allclose(camera_to_pixel(frame.joints_cam_m, frame.camera), frame.joints_px, atol=0.01)
    assert np.mean([(keypoints(frame)[:, 2] > 0).all() for frame in frames]) > 0.99


def test_real_validation_covers_walking_and_more(real):
    frames = read(real, ("validation",), cameras=1)
    assert {frame.subject for frame in frames} == {"S6", "S8"}
    labels = " ".join({frame.action for frame in frames})
    assert "walk" in labels and "dribble" in labels
