"""A body fitted to its own joints: found again, the right way round, whatever is left out."""

import numpy as np
import pytest
import torch

from humanpose3d.metrics import similarity_align
from humanpose3d.models import body_fitting
from humanpose3d.models.body_fitting import BodyFit, BodyFitter, Evidence, is_enough
from humanpose3d.models.skinned_joints import SkinnedJoints, spin_of
from humanpose3d.models.smpl_body import SmplBody, load_body, rotations_from_axis_angle
from humanpose3d.skeletons import COCO_17, COCO_18, H36M_17, MPI_17, SMPL_24, Skeleton
from humanpose3d.studio.free_body import write_free_body

pytestmark = pytest.mark.usefixtures("one_thread")
PEOPLE = 12


@pytest.fixture(scope="module")
def body(tmp_path_factory) -> SmplBody:
    place = tmp_path_factory.mktemp("body")
    write_free_body(place)
    return load_body(place / "SMPL_NEUTRAL.npz")


@pytest.fixture(scope="module")
def corrected(body: SmplBody, tmp_path_factory) -> SmplBody:
    """The same with pose correctives, as SMPL has them."""
    place = tmp_path_factory.mktemp("corrected")
    write_free_body(place)
    other = load_body(place / "SMPL_NEUTRAL.npz")
    other.smpl.posedirs.normal_(0.0, 1e-3, generator=torch.Generator().manual_seed(0))
    return other


def people(body: SmplBody, spread: float = 0.7, count: int = PEOPLE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Poses [B 24 3], shapes [B 10] and places [B 3] of the prior's kind, upright, facing anywhere."""
    fitter, draw = BodyFitter(body), torch.Generator().manual_seed(3)
    pose = fitter.mean_pose + spread * fitter.pose_deviation * torch.randn(count, 23, 3, generator=draw)
    facing = 2 * torch.pi * torch.rand(count, generator=draw)
    upright = rotations_from_axis_angle(torch.tensor([torch.pi, 0.0, 0.0]))
    turned = upright @ rotations_from_axis_angle(torch.stack([0 * facing, facing, 0 * facing], -1))
    root = body_fitting._axis_angle(turned)
    place = torch.tensor([0.3, 0.1, 4.0]) + 0.3 * torch.randn(count, 3, generator=draw)
    return torch.cat([root[:, None], pose], 1), torch.randn(count, 10, generator=draw), place


def joints_of(body: SmplBody, skeleton: Skeleton, fit) -> torch.Tensor:
    pose_rad, betas, trans_m = (torch.as_tensor(part) for part in fit[:3])
    return body.joints(body(rotations_from_axis_angle(pose_rad), betas, trans_m), skeleton)


def by_joints(joints_m: torch.Tensor) -> Evidence:
    count, joints = joints_m.shape[:2]
    return Evidence(joints_m, torch.ones(count, joints), torch.zeros(count, 0, 2), torch.zeros(count, 0))


def by_points(joints_m: torch.Tensor) -> Evidence:
    count, joints = joints_m.shape[:2]
    rays = joints_m[..., :2] / joints_m[..., 2:]
    return Evidence(torch.zeros(count, 0, 3), torch.zeros(count, 0), rays, torch.ones(count, joints))


@pytest.mark.parametrize("skeleton", [SMPL_24, H36M_17, COCO_17, MPI_17], ids=lambda each: each.name)
def test_joints_without_the_surface_are_those_of_the_surface(corrected: SmplBody, skeleton: Skeleton) -> None:
    pose_rad, betas, trans_m = people(corrected)
    found = SkinnedJoints(corrected, skeleton)(rotations_from_axis_angle(pose_rad), betas, trans_m)
    torch.testing.assert_close(found, joints_of(corrected, skeleton, (pose_rad, betas, trans_m)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("skeleton", [SMPL_24, H36M_17], ids=lambda each: each.name)
def test_derivatives_are_those_of_automatic_differentiation(corrected: SmplBody, skeleton: Skeleton) -> None:
    pose_rad, betas, trans_m = people(corrected, count=3)
    facing = rotations_from_axis_angle(pose_rad[:, 0])
    state = body_fitting._State(0.3 * trans_m, pose_rad[:, 1:], betas, trans_m, facing)
    draw = torch.Generator().manual_seed(0)
    seen = joints_of(corrected, COCO_17, (pose_rad, betas, trans_m))
    rays = seen[..., :2] / seen[..., 2:] + 0.05 * torch.randn(3, 17, 2, generator=draw)
    wanted_m = torch.randn(3, len(skeleton), 3, generator=draw)
    evidence = Evidence(wanted_m, torch.rand(3, len(skeleton), generator=draw), rays, torch.ones(3, 17))
    fitter = BodyFitter(corrected, skeleton, COCO_17)
    numbers = state.numbers(True)

    def residuals(numbers: torch.Tensor) -> torch.Tensor:
        return fitter.residuals(state.having(numbers), evidence)[0]

    _, slopes = fitter.residuals(state, evidence)
    for number, direction in enumerate(torch.eye(numbers.shape[1])):
        _, wanted = torch.func.jvp(residuals, (numbers,), (direction.expand_as(numbers),))
        torch.testing.assert_close(slopes[..., number], wanted, atol=2e-3, rtol=1e-4)


def test_a_turn_of_an_axis_angle_is_that_of_the_rotation() -> None:
    pose_rad = torch.cat([torch.randn(20, 3), 1e-3 * torch.randn(20, 3), torch.zeros(1, 3)]).double()
    step = 1e-6 * torch.randn(41, 3).double()
    turned = rotations_from_axis_angle(pose_rad + step) @ rotations_from_axis_angle(pose_rad).mT
    wanted = torch.stack([turned[:, 2, 1], turned[:, 0, 2], turned[:, 1, 0]], -1)
    torch.testing.assert_close((spin_of(pose_rad) @ step[..., None])[..., 0], wanted, atol=1e-10, rtol=1e-3)


@pytest.mark.parametrize("skeleton", [SMPL_24, H36M_17, MPI_17, COCO_17], ids=lambda each: each.name)
def test_a_body_is_found_again_from_its_own_joints(body: SmplBody, skeleton: Skeleton) -> None:
    truth = people(body)
    joints_m = joints_of(body, skeleton, truth)
    fit = BodyFitter(body, skeleton).fit(by_joints(joints_m))
    np.testing.assert_allclose(fit.joints_m, joints_of(body, skeleton, fit), atol=1e-5)
    off_m = (torch.as_tensor(fit.joints_m) - joints_m).norm(dim=-1)
    assert off_m.mean() < 0.003 and off_m.mean(1).max() < 0.005
    # No joint of that set says so, but the surface is the right one too, not turned over or mirrored.
    limbs = [SMPL_24.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("knee", "elbow", "wrist")]
    off_m = (joints_of(body, SMPL_24, fit) - joints_of(body, SMPL_24, truth)).norm(dim=-1)
    assert off_m[:, limbs].mean() < 0.02 and off_m[:, limbs].max() < 0.1


def test_with_the_shape_known_only_the_pose_is_sought(body: SmplBody) -> None:
    pose_rad, betas, trans_m = people(body)
    joints_m = joints_of(body, H36M_17, (pose_rad, betas, trans_m))
    fit = BodyFitter(body, H36M_17).fit(by_joints(joints_m), betas)
    np.testing.assert_array_equal(fit.betas, betas)
    assert (joints_of(body, H36M_17, fit) - joints_m).norm(dim=-1).mean() < 0.003


def test_what_is_unknown_does_not_matter(body: SmplBody) -> None:
    joints_m = joints_of(body, H36M_17, people(body))
    weight = torch.ones(joints_m.shape[:2])
    weight[:, [H36M_17.index(joint) for joint in ("left_wrist", "head", "right_hip")]] = 0.0
    hidden = torch.where(weight[..., None] > 0, joints_m, torch.nan)
    none = torch.zeros(PEOPLE, 0, 2), torch.zeros(PEOPLE, 0)
    fit = BodyFitter(body, H36M_17).fit(Evidence(hidden, weight, *none))
    off_m = (joints_of(body, H36M_17, fit) - joints_m).norm(dim=-1)
    assert np.isfinite(fit.pose_rad).all() and off_m[weight > 0].mean() < 0.003


def test_elbows_and_knees_bend_as_they_can(body: SmplBody) -> None:
    """Arms and legs turned over: the same joints, but elbows and knees bent backwards."""
    fitter = BodyFitter(body, H36M_17)
    pose_rad, betas, trans_m = people(body, spread=0.3)
    for above, hinge, turn_above, turn_below in fitter.half_turns:
        root, end = (rotations_from_axis_angle(pose_rad[:, 1 + joint]) for joint in (above, hinge))
        pose_rad[:, 1 + above] = body_fitting._axis_angle(root @ turn_above)
        pose_rad[:, 1 + hinge] = 3.0 * body_fitting._axis_angle(turn_above.mT @ end @ turn_below)
    wrong = pose_rad[:, 1:].flatten(1) @ fitter.hinges
    assert (wrong > 0.5).float().mean() > 0.8
    joints_m = joints_of(body, H36M_17, (pose_rad, betas, trans_m))
    fit = fitter.fit(by_joints(joints_m))
    bends = torch.from_numpy(fit.pose_rad[:, 1:]).flatten(1) @ fitter.hinges
    assert bends.max() < 0.3
    assert (joints_of(body, H36M_17, fit) - joints_m).norm(dim=-1).mean() < 0.005


def test_turning_over_leaves_the_joints_where_they_are(body: SmplBody) -> None:
    fitter = BodyFitter(body, SMPL_24)
    pose_rad, betas, trans_m = people(body)
    pose_rad[:, 1:] += 1.5 * (fitter.hinges.T.sum(0)).view(23, 3)  # every elbow and knee backwards
    state = body_fitting._State(
        0 * trans_m, pose_rad[:, 1:], 0 * betas, trans_m, rotations_from_axis_angle(pose_rad[:, 0])
    )
    turned = fitter._turned_over(state)
    assert (turned.pose_rad.flatten(1) @ fitter.hinges).max() < 0.3
    before, after = (fitter.joints(each.rotations(), each.betas, trans_m) for each in (state, turned))
    ends = [
        SMPL_24.index(f"{side}_{kind}") for side in ("left", "right") for kind in ("elbow", "wrist", "knee", "ankle")
    ]
    torch.testing.assert_close(before[:, ends], after[:, ends], atol=1e-5, rtol=0)


def test_from_points_alone_the_picture_and_the_pose_are_right(body: SmplBody) -> None:
    truth = people(body, spread=0.5)
    joints_m = joints_of(body, COCO_17, truth)
    fit = BodyFitter(body, point_skeleton=COCO_17).fit(by_points(joints_m))
    found_m = joints_of(body, COCO_17, fit)
    off_rays = found_m[..., :2] / found_m[..., 2:] - joints_m[..., :2] / joints_m[..., 2:]
    assert off_rays.norm(dim=-1).mean() < 0.003  # a hundredth of a metre at 4 m
    known = torch.ones(joints_m.shape[:2], dtype=torch.bool)
    aligned = similarity_align(found_m.double(), joints_m.double(), known)
    assert (aligned - joints_m).norm(dim=-1).median() < 0.08
    forward, wanted = (
        rotations_from_axis_angle(torch.as_tensor(each))[:, :, 2] for each in (fit.pose_rad[:, 0], truth[0][:, 0])
    )
    assert ((forward * wanted).sum(-1) > 0.7).float().mean() > 0.8  # who turns the back is not taken for who does not


def test_an_outlier_among_points_hardly_pulls(body: SmplBody) -> None:
    joints_m = joints_of(body, COCO_17, people(body, spread=0.5))
    clean, spoilt = by_points(joints_m), by_points(joints_m)
    wrist = COCO_17.index("left_wrist")
    spoilt.rays[:, wrist] += 0.3  # 1.2 m away
    fitter = BodyFitter(body, point_skeleton=COCO_17)
    others = [joint for joint in range(17) if joint != wrist and COCO_17.joints[joint] != "left_elbow"]

    def off(fit: BodyFit) -> torch.Tensor:
        found_m = joints_of(body, COCO_17, fit)
        return (found_m[..., :2] / found_m[..., 2:] - clean.rays)[:, others].norm(dim=-1).median()

    assert off(fitter.fit(spoilt)) < 0.005


def test_people_with_joints_and_people_with_points_go_together(body: SmplBody) -> None:
    joints_m = joints_of(body, COCO_17, people(body))
    weight = torch.ones(PEOPLE, 17)
    weight[1::2] = 0.0
    both = Evidence(joints_m, weight, by_points(joints_m).rays, 1.0 - weight)
    fit = BodyFitter(body, COCO_17, COCO_17).fit(both)
    off_m = (joints_of(body, COCO_17, fit) - joints_m).norm(dim=-1).mean(1)
    assert off_m[::2].max() < 0.005 < off_m[1::2].median()
    alone = BodyFitter(body, COCO_17).fit(by_joints(joints_m[::2]))
    np.testing.assert_allclose(fit.trans_m[::2], alone.trans_m, atol=2e-3)


def test_a_skeleton_without_a_regressor_is_named(body: SmplBody) -> None:
    with pytest.raises(ValueError, match="coco_18"):
        BodyFitter(body, COCO_18)


def test_a_head_alone_is_not_enough() -> None:
    known = np.zeros(17, bool)
    known[:5] = True
    assert not is_enough(known, COCO_17)
    assert is_enough(np.ones(17, bool), COCO_17)
    assert not is_enough(
        np.array([joint.endswith(("knee", "ankle", "eye", "ear")) for joint in COCO_17.joints]), COCO_17
    )
