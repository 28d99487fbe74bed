"""The loss, measures and part maps of bodies, on the studio's people and by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from humanpose3d.config import BodyLossWeights
from humanpose3d.dataset.augmentation import PoseAugmentor, fit_view
from humanpose3d.dataset.collator import Human36MCollator
from humanpose3d.metrics import rotation_error_deg, similarity_align
from humanpose3d.model_config import model_config
from humanpose3d.models.hps import BodyPrediction
from humanpose3d.models.smpl_body import rotations_from_axis_angle
from humanpose3d.reports import StageReport
from humanpose3d.sample import PoseBatch, PoseSample
from humanpose3d.skeletons import MPII_16, SMPL_24
from humanpose3d.sources import threedpw
from humanpose3d.studio.free_body import write_free_body
from humanpose3d.studio.threedpw import write_threedpw
from humanpose3d.tasks.body import BodyTask, part_labels, project
from humanpose3d.tasks.evaluation import evaluate, mean_body, score_mean_body
from tests.test_overfit import MIRRORS

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64
COLLATE = Human36MCollator("smpl_24", "coco_17", depth=False, keypoints=False, bodies=True)


@pytest.fixture(scope="module")
def bodies(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("body")
    write_free_body(folder)
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> list[PoseSample]:
    """Labels of the studio's 3DPW, pictures left out."""
    folder = tmp_path_factory.mktemp("threedpw")
    write_threedpw(folder, frames_per_take=2, size=SIZE)
    found = []
    for frame in threedpw.read_frames(folder, folder, ("train", "test"), told=StageReport("test")):
        found.append(PoseSample(
            key=frame.key, image=np.zeros((SIZE, SIZE, 3), np.uint8), image_size_wh=(SIZE, SIZE),
            joints_px=frame.joints_px, joints_cam_m=frame.joints_cam_m, joint_score=frame.joint_score,
            skeleton=frame.skeleton, camera=frame.camera, box_px=frame.box_px, smpl_pose_rad=frame.smpl_pose_rad,
            smpl_betas=frame.smpl_betas, smpl_trans_m=frame.smpl_trans_m, gender=frame.gender, subject=frame.subject,
        ))  # fmt: skip
    return found


def task(bodies: Path, **weights: float) -> BodyTask:
    return BodyTask(model_config("hps", "tiny", input_size=SIZE), BodyLossWeights(**weights), bodies)


def truth(batch: PoseBatch) -> BodyPrediction:
    """The labels, as a regressor would answer them."""
    return BodyPrediction(
        rotations_from_axis_angle(batch.smpl_pose_rad), batch.smpl_betas, batch.joints_cam_m[:, SMPL_24.root_index]
    )


def test_a_body_that_is_no_number_ends_an_evaluation_in_one_line_with_its_key(bodies, people):
    def spoilt(batch: PoseBatch) -> BodyPrediction:
        betas = batch.smpl_betas.clone()
        betas[1] = torch.nan
        return truth(batch)._replace(betas=betas)

    batch = COLLATE([fit_view(sample, SIZE) for sample in people])
    with pytest.raises(ValueError, match="answers to 1 samples are not finite") as refused:
        evaluate(spoilt, task(bodies), [batch])
    assert batch.keys[1] in str(refused.value) and "\n" not in str(refused.value)


def test_the_mean_body_is_scored_on_the_joints_and_by_the_measure_of_the_models(bodies, people):
    batch, of_body = COLLATE([fit_view(sample, SIZE) for sample in people]), task(bodies)
    true_m = of_body.predict(truth, batch).true_scored_m
    scored_m = mean_body([batch], of_body)
    torch.testing.assert_close(scored_m, true_m.mean(0))
    answers_m = scored_m.expand_as(true_m)
    aligned_m = similarity_align(answers_m, true_m, torch.ones(true_m.shape[:2], dtype=torch.bool))
    expected_mm = 1000 * float((aligned_m - true_m).norm(dim=-1).mean())
    assert score_mean_body(scored_m, [batch], of_body) == pytest.approx(expected_mm, rel=1e-4) and expected_mm > 10
    alone = COLLATE([fit_view(people[0], SIZE)])
    assert score_mean_body(mean_body([alone], of_body), [alone], of_body) < 0.01


@pytest.mark.parametrize("flip", [0.0, 0.999999])
def test_the_labelled_body_has_no_loss_and_no_error_also_turned_and_mirrored(bodies, people, flip):
    augment = PoseAugmentor(replace(MIRRORS, flip=flip, rotation_deg=30.0, scale=(0.9, 1.1)), SIZE)
    batch = COLLATE([augment(sample, np.random.default_rng(i)) for i, sample in enumerate(people)])
    of_body = task(bodies)
    prediction = of_body.predict(truth, batch)
    terms = of_body.loss(prediction, batch)
    # A mirrored body is not quite its mirror image: shapes are of people whose sides differ by nothing but rounding.
    assert terms["joints_3d"] < 0.002 and terms["joints_2d"] < 0.003 and terms["pose"] < 1e-6 and terms["shape"] == 0
    metrics = of_body.metrics()
    metrics.update(prediction, batch)
    scores = {name: float(value) for name, value in metrics.compute().items()}
    assert max(scores[name] for name in ("mpjpe_mm", "pa_mpjpe_mm", "vertex_error_mm")) < 0.01
    assert scores["pose_error_deg"] < 0.1


def test_a_turned_elbow_is_measured_in_degrees_and_millimetres(bodies, people):
    batch = COLLATE([fit_view(people[0], SIZE)])
    answer = truth(batch)
    turn = rotations_from_axis_angle(torch.tensor([[0.0, 0.0, np.pi / 2]]))
    rotations = answer.rotations.clone()
    rotations[:, SMPL_24.index("left_elbow")] @= turn
    of_body = task(bodies)
    prediction = of_body.predict(lambda _: answer._replace(rotations=rotations), batch)
    metrics = of_body.metrics()
    metrics.update(prediction, batch)
    scores = {name: float(value) for name, value in metrics.compute().items()}
    assert scores["pose_error_deg"] == pytest.approx(90.0 / 24, abs=0.1)
    assert scores["mpjpe_mm/left_wrist"] > 200 and scores["mpjpe_mm/left_elbow"] < 1 > scores["mpjpe_mm/right_wrist"]
    assert scores["mpjpe_mm"] == pytest.approx(scores["mpjpe_mm/left_wrist"] / 14, abs=0.2)


def test_samples_without_a_body_teach_by_their_joints_alone(bodies, people):
    """MPII's: 2D joints in its own skeleton, nothing else."""
    own = np.array([SMPL_24.points.index(point) if point in SMPL_24.points else -1 for point in MPII_16.points])
    joints_px = np.where(own[:, None] >= 0, people[1].joints_px[own], np.nan).astype(np.float32)
    flat = people[1].with_(
        skeleton="mpii_16", joints_px=joints_px, joints_cam_m=None, joint_score=np.isfinite(joints_px).all(1) * 1.0,
        smpl_pose_rad=None, smpl_betas=None, smpl_trans_m=None, gender=None,
    )  # fmt: skip
    batch = COLLATE([fit_view(people[0], SIZE), fit_view(flat, SIZE)])
    assert batch.smpl_mask.tolist() == [True, False] and batch.smpl_gender.tolist()[1] == -1
    assert not batch.joint_mask[1].any() and batch.joint_in_view[1].sum() == (own >= 0).sum()
    whole = COLLATE([fit_view(people[0], SIZE), fit_view(people[1], SIZE)])
    shared = batch.joint_in_view[1]
    torch.testing.assert_close(batch.joints_px[1, shared], whole.joints_px[1, shared])
    of_body = task(bodies)
    answer = truth(whole)
    wrong = answer._replace(rotations=answer.rotations[[0, 0]])  # of the second sample
    alone = of_body.loss(of_body.predict(lambda _: wrong, batch), batch)
    both = of_body.loss(of_body.predict(lambda _: wrong, whole), whole)
    assert alone["joints_2d"] > 0 and both["pose"] > 0 and alone["pose"] == 0
    nobody = replace(batch, smpl_mask=torch.zeros(2, dtype=torch.bool), joint_mask=torch.zeros_like(batch.joint_mask))
    assert of_body.loss(of_body.predict(lambda _: wrong, nobody), nobody)["pose"] == 0


def test_each_cell_shows_the_part_of_its_nearest_point():
    intrinsics = torch.tensor([[[8.0, 0.0, 7.5], [0.0, 8.0, 7.5], [0.0, 0.0, 1.0]]])
    # Straight ahead, the part 3 at 2 m before the part 7 at 3 m; another to the right; one behind the lens.
    points = torch.tensor([[[0.0, 0.0, 3.0], [0.0, 0.0, 2.0], [1.3, 0.0, 2.0], [0.0, 0.0, -2.0]]])
    found = part_labels(points, torch.tensor([7, 3, 5, 9]), intrinsics, 4)
    wanted = torch.zeros(1, 4, 4, dtype=torch.int64)
    wanted[0, 2, 2], wanted[0, 2, 3] = 3 + 1, 5 + 1
    torch.testing.assert_close(found, wanted)


def test_the_labelled_parts_lie_where_their_joints_do(bodies, people):
    batch = COLLATE([fit_view(sample, SIZE) for sample in people])
    of_body = task(bodies)
    parts = of_body.part_targets(of_body.predict(truth, batch), batch)
    assert 0.02 < (parts > 0).float().mean() < 0.5
    knee = SMPL_24.index("left_knee")  # the part below it is called by it
    for row in range(len(batch)):
        rows, columns = torch.nonzero(parts[row] == knee + 1, as_tuple=True)
        if len(rows) > 3:
            ends = batch.joints_px[row, [knee, SMPL_24.index("left_ankle")]]
            middle = torch.stack([columns.float().mean(), rows.float().mean()]) * 4 + 1.5
            assert (middle - ends.mean(0)).norm() < 6


def test_a_part_loss_falls_where_the_maps_are_right(bodies, people):
    batch = COLLATE([fit_view(people[0], SIZE)])
    of_body = task(bodies)
    answer = truth(batch)
    target = of_body.part_targets(of_body.predict(lambda _: answer, batch), batch)
    right = torch.nn.functional.one_hot(target, 25).permute(0, 3, 1, 2).float() * 10
    losses = []
    for maps in (right, torch.zeros_like(right)):
        prediction = of_body.predict(lambda _, maps=maps: answer._replace(part_maps=maps), batch)
        losses.append(float(of_body.loss(prediction, batch)["parts"]))
    assert losses[0] < 0.01 and losses[1] == pytest.approx(np.log(25.0))


def test_a_body_without_gender_or_without_its_file_is_named(bodies, people, tmp_path):
    batch = COLLATE([fit_view(people[0].with_(gender=None), SIZE)])
    with pytest.raises(ValueError, match=f"{people[0].key} has SMPL's pose and shape and no gender"):
        task(bodies).check_labels(batch)
    (tmp_path / "SMPL_NEUTRAL.npz").write_bytes((bodies / "SMPL_NEUTRAL.npz").read_bytes())
    batch = COLLATE([fit_view(people[0], SIZE)])
    with pytest.raises(ValueError, match=f"SMPL_{people[0].gender.upper()}"):
        task(tmp_path).check_labels(batch)


def test_projection_is_the_cameras():
    points = torch.tensor([[[0.5, -0.25, 2.0], [0.0, 0.0, -1.0]]])
    intrinsics = torch.tensor([[[100.0, 0.0, 32.0], [0.0, 120.0, 30.0], [0.0, 0.0, 1.0]]])
    found = project(points, intrinsics)
    assert found[0, 0].tolist() == [57.0, 15.0] and torch.isfinite(found).all()


def test_angles_between_rotations_are_degrees():
    turn = rotations_from_axis_angle(torch.tensor([[0.0, 0.0, np.pi / 6], [np.pi, 0.0, 0.0]]))
    found = rotation_error_deg(turn, torch.eye(3).expand(2, 3, 3))
    torch.testing.assert_close(found, torch.tensor([30.0, 180.0]), atol=0.05, rtol=0)
