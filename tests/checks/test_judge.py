"""The doctor's judgement: sound people have nothing wrong, a planted fault is named with its subject and camera."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from humanpose3d.camera import camera_to_pixel
from humanpose3d.checks.evidence import Evidence
from humanpose3d.checks.figures import group_figures
from humanpose3d.checks.finding import ERROR, FAULTS
from humanpose3d.checks.judge import judge
from humanpose3d.reports import StageReport
from humanpose3d.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import H36M_17, MPI_17, MPI_17_LEGACY, get_skeleton
from humanpose3d.sources import threedpw
from humanpose3d.studio.threedpw import write_threedpw
from tests.checks.witnesses import CAMERAS, FRAMES, SUBJECTS, Change, evidence_of

PLACES = [("S5", None), (None, "3")]  # one subject, one camera


def seen_anew(sample: PoseSample, joints_cam_m: np.ndarray) -> PoseSample:
    """The sample with other 3D labels, and 2D ones projected from them, as readers do."""
    joints_px = camera_to_pixel(joints_cam_m, sample.camera)  # type: ignore[arg-type]
    return sample.with_(joints_cam_m=joints_cam_m.astype(np.float32), joints_px=joints_px.astype(np.float32))


def swap_sides(sample: PoseSample) -> PoseSample:
    order = get_skeleton(sample.skeleton).flip_permutation  # type: ignore[arg-type]
    return sample.with_(joints_cam_m=sample.joints_cam_m[order], joints_px=sample.joints_px[order])  # type: ignore


def divide_by_1000(sample: PoseSample) -> PoseSample:
    return sample.with_(joints_cam_m=sample.joints_cam_m / 1000)


def transpose_rotation(sample: PoseSample) -> PoseSample:
    camera = sample.camera
    assert camera is not None
    world_m = (sample.joints_cam_m - camera.t_m) @ camera.R
    wrong = dataclasses.replace(camera, R=camera.R.T)
    return seen_anew(sample.with_(camera=wrong), world_m @ camera.R + camera.t_m)


def shift_principal_point(sample: PoseSample, step_px: float = 10.0) -> PoseSample:
    K = sample.camera.K.copy()  # type: ignore[union-attr]
    K[0, 2] += step_px
    return sample.with_(camera=dataclasses.replace(sample.camera, K=K))  # type: ignore[type-var]


def add_noise(sample: PoseSample, sigma_m: float = 0.05) -> PoseSample:
    rng = np.random.default_rng(sample.frame_index + 100 * int(sample.camera_id))
    return seen_anew(sample, sample.joints_cam_m + rng.normal(0, sigma_m / np.sqrt(3), sample.joints_cam_m.shape))


def zero_keypoints(sample: PoseSample) -> PoseSample:
    keypoints_px = sample.keypoints_px.copy()  # type: ignore[union-attr]
    keypoints_px[7:11] = 0
    return sample.with_(keypoints_px=keypoints_px)


PLANTED: list[tuple[Change, set[str]]] = [
    (swap_sides, {"sides_swapped"}),
    (divide_by_1000, {"units"}),
    (transpose_rotation, {"camera_rotation"}),
    (shift_principal_point, {"principal_point"}),
    (add_noise, {"label_noise"}),
    (zero_keypoints, {"keypoints_zeroed"}),
]


def errors_of(evidence) -> list:
    return [finding for finding in judge(evidence) if finding.severity == ERROR]


@pytest.mark.parametrize("skeleton", ["h36m_17", "mpi_17", "mpii_16", "smpl_24", "lsp_14", "spin_24"])
@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_wrong_with_sound_people(skeleton: str, seed: int) -> None:
    assert errors_of(evidence_of(skeleton, seed)) == []


@pytest.mark.parametrize("subject, camera", PLACES, ids=["subject", "camera"])
@pytest.mark.parametrize("change, names", PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_fault_is_named_with_its_subject_and_camera(
    change: Change, names: set[str], subject: str | None, camera: str | None
) -> None:
    for skeleton, seed in (("h36m_17", 0), ("mpi_17", 1)):
        found = errors_of(evidence_of(skeleton, seed, change, subject=subject, camera=camera))
        assert [(finding.fault in names, finding.subject, finding.camera_id) for finding in found] == [
            (True, subject, camera)
        ], [str(finding) for finding in found]


@pytest.mark.parametrize("habit_px, is_found", [(4, True), (12, False)])
def test_a_slight_lag_is_believed_where_it_leaves_as_little_as_elsewhere(habit_px: int, is_found: bool) -> None:
    """habit_px: how far beside the joints of a pose the estimator finds them, in each camera another way."""
    seen: dict[tuple[str, int], np.ndarray] = {}
    lag = 1 if is_found else 2

    def late(sample: PoseSample) -> PoseSample:
        if sample.action != "2":
            return sample
        seen[sample.camera_id, sample.frame_index] = sample.keypoints_px  # type: ignore[assignment]
        habit = np.random.default_rng(int(sample.camera_id)).normal(0, habit_px, (17, 2))
        was = seen[sample.camera_id, max(sample.frame_index - lag, 0)]
        return sample.with_(keypoints_px=(was + habit).astype(np.float32))

    found = errors_of(evidence_of("h36m_17", 0, late, subject="S5"))
    assert [finding.fault for finding in found] == ["time_shift"] * is_found


@pytest.mark.parametrize("subject, camera", PLACES, ids=["subject", "camera"])
def test_the_widely_copied_wrong_list_is_known(subject: str | None, camera: str | None) -> None:
    wrong = {sample.key: sample for sample in _samples_in("mpi_17_legacy")}

    def mislabel(sample: PoseSample) -> PoseSample:
        other = wrong[sample.key]
        return sample.with_(joints_cam_m=other.joints_cam_m, joints_px=other.joints_px)

    assert len(MPI_17) == len(MPI_17_LEGACY)
    [found] = errors_of(evidence_of("mpi_17", 0, mislabel, subject=subject, camera=camera))
    assert (found.fault, found.subject, found.camera_id) == ("legacy_joint_list", subject, camera)


@pytest.mark.parametrize("subject, camera", PLACES, ids=["subject", "camera"])
def test_another_order_than_declared_is_named(subject: str | None, camera: str | None) -> None:
    others = {sample.key: sample for sample in _samples_in("h36m_17")}

    def mislabel(sample: PoseSample) -> PoseSample:
        other = others[sample.key]
        return sample.with_(joints_cam_m=other.joints_cam_m, joints_px=other.joints_px)

    [found] = errors_of(evidence_of("mpi_17", 0, mislabel, subject=subject, camera=camera))
    assert found.fault in ("joint_order", "mixed_skeletons") and H36M_17.name in found.message
    assert (found.subject, found.camera_id) == (subject, camera)


def test_a_pose_in_the_worlds_frame_is_named(tmp_path) -> None:
    """Of a body with joints, and of one without, as in SPIN's tables."""
    write_threedpw(tmp_path, subjects=["train"], frames_per_take=8, size=32)
    frames = list(threedpw.read_frames(tmp_path, tmp_path, ["train"], told=StageReport("test")))
    for with_joints in (True, False):
        for in_world in (True, False):
            evidence = Evidence()
            for frame in frames:
                pose_rad = frame.smpl_pose_rad.copy()
                if in_world:
                    root = frame.camera.R.T @ axis_angle_to_matrix(pose_rad[0])
                    pose_rad[0] = matrix_to_axis_angle(root)
                joints = {"joints_px": frame.joints_px, "joints_cam_m": frame.joints_cam_m} if with_joints else {}
                evidence.add(PoseSample(
                    key=frame.key, corpus=frame.corpus, subject=frame.subject, action=frame.action,
                    camera_id=frame.camera_id, frame_index=frame.frame_index, skeleton=frame.skeleton,
                    joint_score=frame.joint_score, image_size_wh=(32, 32), camera=frame.camera,
                    smpl_pose_rad=pose_rad, **joints,
                ))  # fmt: skip
            found = [finding for finding in judge(evidence) if finding.fault == "body_frame"]
            assert len(found) == in_world and all("cam_poses" in finding.message for finding in found)


def test_findings_are_of_known_names_and_say_what_to_do() -> None:
    for change, _ in PLANTED:
        for finding in errors_of(evidence_of("h36m_17", 0, change, subject="S5")):
            assert finding.fault in FAULTS and len(finding.message) > 30 and finding.samples > 0


def test_every_subject_and_camera_has_its_figures() -> None:
    figures = group_figures(evidence_of("h36m_17", 0))
    assert [(each.subject, each.camera_id) for each in figures] == [
        (subject, str(camera)) for subject in SUBJECTS for camera in CAMERAS
    ]
    for each in figures:
        assert each.samples == 20 and each.unmatched == each.zeroed == each.without_3d == 0
        assert each.reprojection_px is not None and each.reprojection_px < 0.01
        assert each.keypoint_px is not None and 2 < each.keypoint_px < 6
        assert each.bone_error is not None and each.bone_error < 0.001
        assert each.depth_ratio is None and each.without_depth == 1


def test_one_hand_before_several_backgrounds_is_no_copy_but_one_file_twice_is() -> None:
    def evidence(file_of: str) -> Evidence:
        evidence = Evidence()
        for sample in list(_samples_in("mpii_16"))[:FRAMES]:
            for version in ("gs", "hom", "sample", "auto"):
                file = file_of.format(version=version, frame=sample.frame_index)
                same = sample.with_(key=f"{version}-{sample.key}", camera_id=version, provenance={"image_file": file})
                evidence.add(same, image_hash=sample.frame_index)
        return evidence

    assert errors_of(evidence("{version}/{frame}.jpg")) == []
    assert {finding.fault for finding in errors_of(evidence("{frame}.jpg"))} == {"duplicates"}


def _samples_in(skeleton: str) -> list[PoseSample]:
    from tests.checks.witnesses import samples

    return list(samples(skeleton, 0))
