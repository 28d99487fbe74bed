"""Metrics against hand-computed numbers, and against independent implementations: PA-MPJPE by Horn's quaternions and by
SciPy, N-MPJPE by a numerical minimum, areas under curves by counting. docs/EVALUATION.md quotes what this finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize_scalar
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from humanpose3d.metrics import (
    JointMeans,
    PoseMetrics,
    auc,
    auc_trapezoid,
    pck,
    pckh,
    scale_align,
    similarity_align,
    velocity_error,
)
from humanpose3d.models.common import PosePrediction
from humanpose3d.skeletons import H36M_17
from tests.batches import random_batch

ROOT = H36M_17.root_index


def measure(*pairs) -> dict[str, float]:
    metrics = PoseMetrics(H36M_17)
    for prediction, batch in pairs:
        metrics.update(prediction, batch)
    return {name: value.item() for name, value in metrics.compute().items()}


def truth(batch) -> PosePrediction:
    root = batch.joints_cam_m[:, ROOT]
    return PosePrediction(batch.joints_cam_m - root[:, None], root)


def test_the_truth_has_no_error() -> None:
    batch = random_batch(3)
    assert max(measure((truth(batch), batch)).values()) < 0.01


def test_one_wrong_joint_and_a_wrong_root_cost_what_they_should() -> None:
    batch = random_batch(2)
    right = truth(batch)
    joints, root = right.joints_rel_m.clone(), right.root_cam_m.clone()
    wrist = H36M_17.index("left_wrist")
    joints[0, wrist] += torch.tensor([0.03, 0.0, 0.04])
    root[1] += torch.tensor([0.0, 0.1, 0.0])
    errors = measure((PosePrediction(joints, root), batch))
    assert errors["mpjpe_mm"] == pytest.approx(50 / 34, rel=1e-3)
    assert errors["mpjpe_mm/left_wrist"] == pytest.approx(25, rel=1e-3)
    assert errors["mpjpe_mm/right_wrist"] == pytest.approx(0, abs=1e-3)
    assert errors["root_error_mm"] == pytest.approx(50, rel=1e-3)
    assert errors["absolute_mpjpe_mm"] == pytest.approx((50 + 17 * 100) / 34, rel=1e-3)


def test_unlabelled_joints_and_repeats_do_not_count() -> None:
    batch = random_batch(3, counted=torch.tensor([True, True, False]))
    mask = batch.joint_mask.clone()
    mask[0, 5] = False
    joints = truth(batch).joints_rel_m.clone()
    joints[0, 5] += 1.0
    joints[2] += 1.0
    errors = measure((PosePrediction(joints, truth(batch).root_cam_m), replace(batch, joint_mask=mask)))
    assert max(errors.values()) < 0.01


def test_a_sample_without_a_labelled_root_counts_where_the_root_is_not_needed() -> None:
    batch = random_batch(1)
    mask = batch.joint_mask.clone()
    mask[0, ROOT] = False
    prediction = PosePrediction(truth(batch).joints_rel_m, truth(batch).root_cam_m + 0.1)
    errors = measure((prediction, replace(batch, joint_mask=mask)))
    assert np.isnan(errors["mpjpe_mm"]) and np.isnan(errors["root_error_mm"])
    assert errors["pa_mpjpe_mm"] < 0.01
    assert errors["absolute_mpjpe_mm"] == pytest.approx(100 * np.sqrt(3), rel=1e-3)


def test_batches_of_different_sizes_weigh_by_their_joints() -> None:
    batches = [random_batch(size, seed=size) for size in (1, 5)]
    predictions = [
        PosePrediction(truth(batch).joints_rel_m * factor, truth(batch).root_cam_m)
        for batch, factor in zip(batches, (0.5, 1.2), strict=True)
    ]
    whole = replace(random_batch(6), joints_cam_m=torch.cat([batch.joints_cam_m for batch in batches]))
    joints, roots, _ = zip(*predictions, strict=True)
    together = PosePrediction(torch.cat(joints), torch.cat(roots))
    assert measure(*zip(predictions, batches, strict=True)) == pytest.approx(measure((together, whole)), abs=1e-3)


def horn_error_mm(predicted: np.ndarray, labels: np.ndarray) -> float:
    """PA-MPJPE by Horn 1987: the rotation is the top eigenvector, a quaternion, of a 4x4 matrix."""
    a, b = predicted - predicted.mean(0), labels - labels.mean(0)
    S = a.T @ b
    delta = np.array([S[1, 2] - S[2, 1], S[2, 0] - S[0, 2], S[0, 1] - S[1, 0]])
    N = np.zeros((4, 4))
    N[0, 0] = np.trace(S)
    N[0, 1:] = N[1:, 0] = delta
    N[1:, 1:] = S + S.T - np.trace(S) * np.eye(3)
    w, x, y, z = np.linalg.eigh(N)[1][:, -1]
    turned = Rotation.from_quat([x, y, z, w]).apply(a)
    scale = (turned * b).sum() / (a**2).sum()
    return 1000.0 * np.linalg.norm(scale * turned - b, axis=1).mean()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), mirrored=st.booleans(), noise=st.floats(0.0, 1.0))
def test_pa_mpjpe_agrees_with_horns_quaternions(seed: int, mirrored: bool, noise: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(17, 3)) * 0.4 + [0.5, -0.2, 4.0]
    predicted = 0.7 * Rotation.random(random_state=seed).apply(labels) + rng.normal(size=(17, 3)) * noise
    if mirrored:
        predicted[:, 0] *= -1
    batch = replace(random_batch(1), joints_cam_m=torch.tensor(labels)[None])
    errors = measure((PosePrediction(torch.tensor(predicted)[None], torch.zeros(1, 3)), batch))
    assert errors["pa_mpjpe_mm"] == pytest.approx(horn_error_mm(predicted, labels), abs=0.01)


def test_the_alignment_is_scipys_where_no_mirror_is_needed() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(17, 3))
    predicted = labels @ Rotation.random(random_state=1).as_matrix() + rng.normal(size=(17, 3)) * 0.1
    disparity = procrustes(labels, predicted)[2]  # of labels scaled to a sum of squares of 1
    every = torch.ones(1, 17, dtype=torch.bool)
    aligned = similarity_align(torch.tensor(predicted)[None], torch.tensor(labels)[None], every)[0].numpy()
    size = ((labels - labels.mean(0)) ** 2).sum()
    assert ((aligned - labels) ** 2).sum() / size == pytest.approx(disparity, rel=1e-6)


def test_a_mirror_image_is_not_forgiven() -> None:
    batch = random_batch(1)
    mirrored = truth(batch).joints_rel_m * torch.tensor([-1.0, 1.0, 1.0])
    assert measure((PosePrediction(mirrored, truth(batch).root_cam_m), batch))["pa_mpjpe_mm"] > 50


def test_masked_joints_do_not_pull_the_alignment() -> None:
    batch = random_batch(1)
    joints = 1.7 * truth(batch).joints_rel_m
    joints[0, 9] += 5.0
    mask = batch.joint_mask.clone()
    mask[0, 9] = False
    prediction = PosePrediction(joints, truth(batch).root_cam_m)
    assert measure((prediction, replace(batch, joint_mask=mask)))["pa_mpjpe_mm"] < 0.01


def test_a_pose_that_is_no_number_is_none_after_alignment_and_leaves_the_others_alone() -> None:
    predicted, labels = torch.randn(2, 3, 17, 3, generator=torch.Generator().manual_seed(0)).unbind()
    everything = torch.ones(3, 17, dtype=torch.bool)
    alone = similarity_align(predicted[[0, 2]], labels[[0, 2]], everything[[0, 2]])
    for wrong in (torch.nan, torch.inf):
        predicted[1, 5, 0] = wrong
        aligned = similarity_align(predicted, labels, everything)
        assert aligned[1].isnan().all() and torch.equal(aligned[[0, 2]], alone)


def test_a_collapsed_prediction_has_a_finite_error() -> None:
    batch = random_batch(1)
    errors = measure((PosePrediction(torch.zeros(1, 17, 3), torch.zeros(1, 3)), batch))
    spread = batch.joints_cam_m[0] - batch.joints_cam_m[0].mean(0)
    assert errors["pa_mpjpe_mm"] == pytest.approx(1000 * spread.norm(dim=-1).mean().item(), rel=1e-4)


EVERY = torch.ones(1, 17, dtype=torch.bool)
THRESHOLDS_MM = torch.arange(31) * 5.0


def poses(seed: int, number: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """(predicted, labels), float64 [number 17 3], root-relative: a wrong pose of another size, and the right one."""
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(number, 17, 3)) * 0.4
    predicted = 0.8 * labels + rng.normal(size=labels.shape) * 0.1
    return torch.tensor(predicted - predicted[:, :1]), torch.tensor(labels - labels[:, :1])


def test_a_known_similarity_is_aligned_away() -> None:
    labels = poses(0)[1]
    turn = torch.tensor(Rotation.from_euler("xyz", [0.3, -1.1, 2.0]).as_matrix())
    predicted = 1.7 * labels @ turn.mT + torch.tensor([0.2, -3.0, 5.0])
    torch.testing.assert_close(similarity_align(predicted, labels, EVERY), labels, atol=1e-12, rtol=0)


def test_the_aligned_distances_are_those_of_scipys_orthogonal_procrustes() -> None:
    worst = 0.0
    for predicted, labels in zip(*(pose.numpy() for pose in poses(1, 200)), strict=True):
        a, b = predicted - predicted.mean(0), labels - labels.mean(0)
        turn, size = orthogonal_procrustes(a, b)
        assert np.linalg.det(turn) > 0
        expected = np.linalg.norm(size / (a**2).sum() * a @ turn - b, axis=-1)
        aligned = similarity_align(torch.tensor(predicted)[None], torch.tensor(labels)[None], EVERY)[0].numpy()
        worst = max(worst, np.abs(np.linalg.norm(aligned - labels, axis=-1) - expected).max())
    assert worst < 1e-12  # metres


def test_a_pose_of_another_size_is_scaled_right() -> None:
    labels = poses(0)[1]
    torch.testing.assert_close(scale_align(0.6 * labels, labels, EVERY), labels)


def test_no_other_scale_fits_better() -> None:
    for predicted, labels in zip(*poses(2, 50), strict=True):
        best = minimize_scalar(lambda s, p=predicted, q=labels: float((s * p - q).square().sum())).x
        torch.testing.assert_close(
            scale_align(predicted[None], labels[None], EVERY)[0], best * predicted, atol=1e-6, rtol=0
        )


def test_joints_that_are_not_labelled_do_not_pull_the_scale() -> None:
    labels = poses(0)[1]
    predicted, mask = 0.6 * labels, EVERY.clone()
    predicted[0, 5] = 7.0
    mask[0, 5] = False
    torch.testing.assert_close(scale_align(predicted, labels, mask)[mask], labels[mask])


def test_a_constant_offset_costs_no_velocity_and_a_jump_its_length() -> None:
    before, now = poses(3, 2)[1]
    offset = torch.tensor([0.1, 0.0, -0.2])
    assert velocity_error(now + offset, before + offset, now, before).max() < 1e-6
    jump = velocity_error(now + torch.tensor([0.03, 0.0, 0.04]), before, now, before)
    torch.testing.assert_close(jump, torch.full((17,), 0.05))


def test_a_joint_exactly_at_the_threshold_does_not_count() -> None:
    errors_mm = torch.tensor([0.0, 149.99, 150.0, 151.0, float("nan")])
    assert pck(errors_mm, 150.0).tolist()[:4] == [1.0, 1.0, 0.0, 0.0] and pck(errors_mm, 150.0)[4].isnan()


def test_the_area_under_the_curve_of_a_constant_error_is_a_count_of_thresholds() -> None:
    # Strictly under 80, 85, ..., 150: 15 of the 31. An error of 0 misses the threshold 0, one of 150 all of them.
    expected = [15 / 31, 30 / 31, 0.0]
    assert auc(torch.tensor([75.0, 0.0, 150.0]), THRESHOLDS_MM).tolist() == pytest.approx(expected)


def test_the_mean_area_is_the_mean_of_the_curve() -> None:
    errors_mm = torch.tensor(np.random.default_rng(0).gamma(2.0, 40.0, 5000))
    curve = [np.mean([error < 5 * step for error in errors_mm.tolist()]) for step in range(31)]
    assert float(auc(errors_mm, THRESHOLDS_MM).mean()) == pytest.approx(np.mean(curve), abs=1e-12)


def test_freihands_area_is_numpys_under_its_curve() -> None:
    errors_mm = torch.tensor(np.random.default_rng(1).gamma(2.0, 8.0, 5000))
    thresholds = np.linspace(0.0, 50.0, 100)
    curve = [(errors_mm.numpy() <= threshold).mean() for threshold in thresholds]
    expected = np.trapezoid(curve, thresholds) / np.trapezoid(np.ones(100), thresholds)
    assert float(auc_trapezoid(errors_mm, 50.0, 100).mean()) == pytest.approx(expected, abs=1e-12)


def test_an_error_of_nothing_fills_freihands_whole_area() -> None:
    assert auc_trapezoid(torch.tensor([0.0, 50.1], dtype=torch.float64), 50.0, 100).tolist() == pytest.approx(
        [1.0, 0.0]
    )


def test_half_a_head_away_counts_and_more_does_not() -> None:
    distances_px = torch.tensor([[30.0, 30.1], [5.0, float("nan")], [1.0, 1.0]])
    hits = pckh(distances_px, torch.tensor([60.0, 10.0, float("nan")]))
    assert hits[0].tolist() == [1.0, 0.0] and hits[1, 0] == 1.0
    assert hits[1, 1].isnan() and hits[2].isnan().all()


def test_means_weigh_values_not_blocks_and_leave_out_what_is_missing() -> None:
    means, nan = JointMeans(2), float("nan")
    means.add(torch.tensor([[1.0, nan]]))
    means.add(torch.tensor([[2.0, 10.0], [6.0, nan]]))
    assert means.by_joint.tolist() == [3.0, 10.0]
    assert means.mean() == pytest.approx(19 / 4) and means.mean([1]) == 10.0
    assert np.isnan(JointMeans(2).mean())
