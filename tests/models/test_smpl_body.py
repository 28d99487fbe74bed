"""SMPL's files read safely, and its surface against smplx's own on the same numbers."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from humanpose3d.models.smpl_body import (
    GENDERS,
    KEYS,
    WHERE,
    load_bodies,
    load_body,
    read_body,
    rotations_from_6d,
    rotations_from_axis_angle,
)
from humanpose3d.rotations import axis_angle_to_matrix
from humanpose3d.skeletons import COCO_17, H36M_17, LSP_14, MPI_17, SMPL_24
from humanpose3d.studio.free_body import free_body, write_free_body


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("body")
    write_free_body(place)
    return place


@pytest.fixture(scope="module")
def arrays(folder) -> dict[str, np.ndarray]:
    """The free body with pose correctives, as SMPL has them."""
    stored = read_body(folder / "SMPL_NEUTRAL.npz")
    posedirs = np.random.default_rng(0).normal(0.0, 1e-3, stored["posedirs"].shape)
    return {**stored, "posedirs": posedirs}


def saved(path: Path, arrays) -> Path:
    np.savez(path, **arrays)
    return path


def random_pose(people: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(people, 24, 3) * 0.5, torch.randn(people, 10), torch.randn(people, 3)


def test_the_surface_is_that_of_smplx_on_the_same_file(arrays, tmp_path):
    from smplx import SMPL
    from smplx.utils import Struct

    ids = dict(zip(arrays["vertex_names"].tolist(), arrays["vertex_numbers"].tolist(), strict=True))
    theirs = SMPL(
        "", data_struct=Struct(**{key: arrays[key] for key in KEYS}), vertex_ids=ids, batch_size=3, use_hands=False,
        use_feet_keypoints=False,
    )  # fmt: skip
    pose_rad, betas, trans_m = random_pose(3)
    wanted = theirs(betas=betas, global_orient=pose_rad[:, 0], body_pose=pose_rad[:, 1:].flatten(1), transl=trans_m)
    ours = load_body(saved(tmp_path / "body.npz", arrays))(rotations_from_axis_angle(pose_rad), betas, trans_m)
    torch.testing.assert_close(ours.vertices_m, wanted.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.joints_m, wanted.joints[:, :24], atol=1e-5, rtol=0)


def test_gradients_of_pose_and_shape_are_those_of_finite_differences(arrays, tmp_path):
    body = load_body(saved(tmp_path / "body.npz", arrays)).double()
    pose_rad, betas, _ = (part.double() for part in random_pose(1))
    weights = torch.randn(len(arrays["v_template"]), 3, dtype=torch.float64)

    def height(pose: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
        posed = body.smpl(
            betas=shape, global_orient=rotations_from_axis_angle(pose)[:, :1],
            body_pose=rotations_from_axis_angle(pose)[:, 1:], pose2rot=False,
        )  # fmt: skip
        return (posed.vertices * weights).sum()

    pose_rad.requires_grad_(), betas.requires_grad_()
    given = torch.autograd.grad(height(pose_rad, betas), (pose_rad, betas))
    step = 1e-6
    for which, (gradient, value) in enumerate(zip(given, (pose_rad, betas), strict=True)):
        for place in ((0, 0, 1), (0, 16, 2)) if which == 0 else ((0, 0), (0, 7)):
            moved = value.detach().clone()
            moved[place] += step
            both = (moved, betas.detach()) if which == 0 else (pose_rad.detach(), moved)
            found = (height(*both) - height(pose_rad.detach(), betas.detach())) / step
            assert float(gradient[place]) == pytest.approx(float(found), rel=1e-4, abs=1e-3)


def test_a_pickle_with_sparse_and_chumpy_arrays_is_read_as_the_npz_is(arrays, tmp_path, monkeypatch):
    """As SMPL's own files are: protocol 2, a csc regressor, shapes in chumpy's arrays."""
    import sys
    import types

    class Ch:  # stands for chumpy's: pickled under its name
        def __init__(self, x):
            self.x = x

        def __reduce_ex__(self, protocol):
            import copyreg

            return copyreg._reconstructor, (Ch, object, None), {"x": self.x}

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    modules = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": types.ModuleType("chumpy.ch")}
    modules["chumpy.ch"].Ch = Ch
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    stored = {key: arrays[key] for key in KEYS}
    stored["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"])
    stored["shapedirs"] = Ch(arrays["shapedirs"])
    stored |= {"vertex_names": arrays["vertex_names"], "vertex_numbers": arrays["vertex_numbers"]}
    path = tmp_path / "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"
    path.write_bytes(pickle.dumps(stored, protocol=2))
    found = read_body(path)
    for key in KEYS:
        np.testing.assert_array_equal(found[key], arrays[key])
    assert load_bodies(tmp_path).neutral.smpl.get_num_verts() == len(arrays["v_template"])


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(pickle.dumps({"f": Evil()}, protocol=2))
    with pytest.raises(ValueError, match=r"SMPL_NEUTRAL\.pkl.*print"):
        read_body(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": np.zeros((1872, 55))}, "SMPL-X with 55 joints"),
        ({"shapedirs": np.zeros((1872, 3, 4))}, "betas of another length"),
        ({"posedirs": np.zeros((1872, 3, 9))}, "posedirs is"),
        ({"f": None}, "no f"),
    ],
)
def test_what_is_not_smpls_body_is_named(arrays, tmp_path, change, says):
    harmed = {key: value for key, value in {**arrays, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=says) as error:
        read_body(saved(tmp_path / "harmed.npz", harmed))
    assert "harmed.npz" in str(error.value)


def test_no_body_says_where_they_are_and_what_stands_in(tmp_path):
    with pytest.raises(FileNotFoundError, match="fake smpl") as error:
        load_bodies(tmp_path / "nowhere")
    assert WHERE in str(error.value)


def test_without_smplx_the_message_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("humanpose3d.models.smpl_body.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"SMPL_NEUTRAL.*humanpose3d\[body\]"):
        load_bodies(folder)


def test_the_files_may_lie_in_a_folder_behind_a_link(folder, tmp_path):
    (tmp_path / "smpl").symlink_to(folder, target_is_directory=True)
    assert load_bodies(tmp_path).neutral is not None


def test_each_row_gets_the_body_of_its_gender_and_the_unknown_none(folder, tmp_path):
    for name in ("SMPL_NEUTRAL.npz", "SMPL_MALE.npz"):
        shutil.copy(folder / name, tmp_path)
    bodies = load_bodies(tmp_path)
    pose_rad, betas, trans_m = random_pose(4)
    gender = torch.tensor([GENDERS.index("male"), -1, GENDERS.index("female"), GENDERS.index("neutral")])
    found, has_body = bodies(rotations_from_axis_angle(pose_rad), betas, trans_m, gender)
    assert has_body.tolist() == [True, False, False, True]
    wanted = bodies.neutral(rotations_from_axis_angle(pose_rad), betas, trans_m)  # the studio's bodies are all one
    torch.testing.assert_close(found.vertices_m[has_body], wanted.vertices_m[has_body])
    assert not found.vertices_m[~has_body].any()


def test_joints_regressed_from_the_rest_body_are_the_studios(folder):
    body = load_bodies(folder).neutral
    rest = body(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10))
    for skeleton in (SMPL_24, H36M_17, LSP_14, COCO_17, MPI_17):
        wanted = free_body().regressors[skeleton.name] @ free_body().template_m
        np.testing.assert_allclose(body.joints(rest, skeleton)[0], wanted, atol=1e-5)
    left, right = (rest.joints_m[0, SMPL_24.index(f"{side}_wrist"), 0] for side in ("left", "right"))
    assert left > 0.5 and right < -0.5  # SMPL's left is its x


@pytest.mark.parametrize("legs_first", ["left", "right"])
def test_spins_regressor_gives_left_and_right_whichever_way_its_legs_are(arrays, tmp_path, legs_first):
    own = {key: value for key, value in arrays.items() if not key.startswith("J_regressor_")}
    path = saved(tmp_path / "SMPL_NEUTRAL.npz", own)
    rows = free_body().regressors[H36M_17.name].copy()  # the corpus's order: right leg before left
    if legs_first == "left":
        rows[1:7] = rows[[4, 5, 6, 1, 2, 3]]
    np.save(tmp_path / "J_regressor_h36m.npy", rows)
    body = load_body(path)
    rest = body(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10))
    for skeleton in (LSP_14, H36M_17):
        joints = dict(zip(skeleton.joints, body.joints(rest, skeleton)[0], strict=True))
        assert all(joints[f"left_{joint}"][0] > 0 > joints[f"right_{joint}"][0] for joint in ("hip", "ankle", "wrist"))
    with pytest.raises(ValueError, match="mpi_17"):
        body.joints(rest, MPI_17)


def test_rotations_from_axis_angles_and_from_columns_are_rotations():
    pose_rad = torch.cat([torch.randn(20, 3), torch.zeros(1, 3)])
    found = rotations_from_axis_angle(pose_rad)
    np.testing.assert_allclose(found, axis_angle_to_matrix(pose_rad.numpy()), atol=1e-6)
    torch.testing.assert_close(rotations_from_6d(found[..., :2].transpose(-1, -2).flatten(-2)), found)
    zero = torch.zeros(1, 3, requires_grad=True)
    rotations_from_axis_angle(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()
