"""SMPL, the body as a function of pose and shape (Loper et al. 2015), on `smplx`; files read without running them.

The model is licensed: the user has the files, or makes a free stand-in with `humanpose3d fake smpl`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from humanpose3d.sample import GENDERS
from humanpose3d.skeletons import COCO_17, H36M_17, LSP_14, SMPL_24, Skeleton
from humanpose3d.sources.reading import read_npz, read_pickle

BETAS = 10
KEYS = ("f", "J_regressor", "kintree_table", "weights", "posedirs", "v_template", "shapedirs")
WHERE = (
    "register at smpl.is.tue.mpg.de, download SMPL for Python (1.1.0), and give its files' folder with --body-model; "
    "`humanpose3d fake smpl data/body_models` makes a free body that can stand in"
)
# Names that are in circulation, with or without a folder smpl/ around them.
_NAMES = {
    "neutral": r"SMPL_NEUTRAL|basicmodel_neutral_lbs_.*",
    "female": r"SMPL_FEMALE|basicmodel_f_lbs_.*",
    "male": r"SMPL_MALE|basicmodel_m_lbs_.*",
}
H36M_REGRESSOR = "J_regressor_h36m.npy"  # of SPIN's data, 17 x 6890: beside the body, for its protocol's joints
# SPIN's order of those 17: left leg before right, unlike the corpus.
_H36M_REGRESSOR_ORDER = (
    "pelvis left_hip left_knee left_ankle right_hip right_knee right_ankle spine neck_base h36m_neck head_top "
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist"
).split()
_LSP_FROM_H36M = {"upper_neck": "neck_base"}  # the others by their own names; as SPIN scores 3DPW
_FACE = {"nose": "nose", "left_eye": "leye", "right_eye": "reye", "left_ear": "lear", "right_ear": "rear"}


class Surface(NamedTuple):
    """A posed body, metres, in the frame of its root's rotation and translation."""

    vertices_m: Tensor  # float32 [B V 3]
    joints_m: Tensor  # float32 [B 24 3], SMPL_24


class SmplBody(nn.Module):
    """One body file: pose and shape -> surface, and joints of other sets from it.

    Keep it outside the networks: it has no weights to train, and its file is licensed, not ours to hand on.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], regressors: Mapping[str, np.ndarray]) -> None:
        """arrays: of `read_body`. regressors: skeleton's name -> [J V]."""
        from smplx import SMPL
        from smplx.utils import Struct

        super().__init__()
        with redirect_stdout(None):  # smplx prints a warning about ten betas, which are all there are
            self.smpl = SMPL(
                "", data_struct=Struct(**{key: arrays[key] for key in KEYS}), vertex_ids=_vertex_ids(arrays),
                num_betas=BETAS, create_betas=False, create_body_pose=False, create_global_orient=False,
                create_transl=False, use_hands=False, use_feet_keypoints=False,
            )  # fmt: skip
        self.faces: Tensor
        faces = torch.from_numpy(np.asarray(arrays["f"], dtype=np.int64))
        self.register_buffer("faces", faces, persistent=False)  # int64 [F 3]
        self.part_of_vertex: Tensor
        self.register_buffer("part_of_vertex", self.smpl.lbs_weights.argmax(1), persistent=False)  # [V], SMPL_24
        for name, rows in regressors.items():
            self.register_buffer(f"to_{name}", torch.tensor(np.asarray(rows), dtype=torch.float32), persistent=False)
        self.skeletons = (SMPL_24.name, *regressors)

    def forward(self, rotations: Tensor, betas: Tensor, trans_m: Tensor | None = None) -> Surface:
        """rotations: [B 24 3 3], the root's first, each relative to its parent. betas: [B 10]. trans_m: [B 3].

        As smplx has it: the root turns the body about its rest pelvis, and the translation comes last.
        """
        with torch.autocast(rotations.device.type, enabled=False):  # millimetres do not survive 16 bits
            rotations, betas = rotations.float(), betas.float()
            posed = self.smpl(
                betas=betas, global_orient=rotations[:, :1], body_pose=rotations[:, 1:], pose2rot=False, transl=trans_m
            )
        return Surface(posed.vertices, posed.joints[:, : len(SMPL_24)])

    def joints(self, surface: Surface, skeleton: Skeleton) -> Tensor:
        """float32 [B J 3]. ValueError where the body has no regressor for that set."""
        if skeleton is SMPL_24:
            return surface.joints_m
        rows = self.regressor(skeleton)
        with torch.autocast(surface.vertices_m.device.type, enabled=False):
            return torch.einsum("jv,bvc->bjc", rows, surface.vertices_m)

    def regressor(self, skeleton: Skeleton) -> Tensor:
        """float32 [J V], vertices -> joints. ValueError where the body has none for that set."""
        assert skeleton is not SMPL_24, "its joints are those of the tree, not of the surface"
        if skeleton.name not in self.skeletons:
            raise ValueError(
                f"no regressor from this body to {skeleton.name}, it has {', '.join(self.skeletons)}; put SPIN's "
                f"{H36M_REGRESSOR} beside the body file"
            )
        return getattr(self, f"to_{skeleton.name}")


class SmplBodies(nn.Module):
    """The neutral body and those of the two sexes, as far as they are there."""

    def __init__(self, bodies: Mapping[str, SmplBody]) -> None:
        super().__init__()
        self.of = nn.ModuleDict(bodies)

    @property
    def neutral(self) -> SmplBody:
        return self.of["neutral"]  # type: ignore[return-value]

    def forward(self, rotations: Tensor, betas: Tensor, trans_m: Tensor, gender: Tensor) -> tuple[Surface, Tensor]:
        """(surfaces, bool [B]: there is a body of that gender). gender: int [B] into GENDERS, -1 unknown.

        Betas of one gender's body mean nothing in another's: rows without their own body are zeros.
        """
        count, vertices = len(gender), self.neutral.smpl.get_num_verts()
        found = Surface(rotations.new_zeros(count, vertices, 3), rotations.new_zeros(count, len(SMPL_24), 3))
        has_body = torch.zeros_like(gender, dtype=torch.bool)
        for number, name in enumerate(GENDERS):
            rows = torch.nonzero(gender == number)[:, 0]
            if name in self.of and len(rows):
                posed = self.of[name](rotations[rows], betas[rows], trans_m[rows])
                found = Surface(
                    found.vertices_m.index_copy(0, rows, posed.vertices_m),
                    found.joints_m.index_copy(0, rows, posed.joints_m),
                )
                has_body |= gender == number
        return found, has_body


def load_bodies(place: str | Path) -> SmplBodies:
    """The bodies of a folder, or of one file, which is then the neutral one.

    FileNotFoundError, ValueError, one line: none there, not SMPL's, no neutral one.
    """
    place = Path(place)
    files = {"neutral": place} if place.is_file() else _find(place)
    if "neutral" not in files:
        having = f" (only {', '.join(files)})" if files else ""
        raise FileNotFoundError(f"{place}: no neutral SMPL body{having}; {WHERE}")
    return SmplBodies({gender: load_body(path) for gender, path in files.items()})


def load_body(path: Path) -> SmplBody:
    """As `load_bodies`, of one file. ValueError too where smplx is not installed."""
    if find_spec("smplx") is None:
        raise ValueError(f"{path}: SMPL's bodies need smplx, which is not here: pip install 'humanpose3d[body]'")
    arrays = read_body(path)
    return SmplBody(arrays, _regressors(path, arrays))


def read_body(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a body file, `.npz` or `.pkl`, checked. ValueError names the file and what is wrong."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such body file; {WHERE}")
    stored = read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    if not isinstance(stored, Mapping):
        raise ValueError(f"{path}: not a body file, it holds a {type(stored).__name__}; {WHERE}")
    missing = [key for key in KEYS if key not in stored]
    if missing:
        raise ValueError(f"{path}: not SMPL's body, it has no {', '.join(missing)}; {WHERE}")
    arrays = {key: np.asarray(value) for key, value in stored.items() if isinstance(value, np.ndarray)}
    joints = arrays["weights"].shape[-1] if "weights" in arrays else 0
    if joints != len(SMPL_24):
        kind = {55: "SMPL-X", 52: "SMPL-H"}.get(joints, "another body")
        raise ValueError(f"{path}: {kind} with {joints} joints; this program wants SMPL with 24. {WHERE}")
    vertices = len(arrays["v_template"])
    wanted = {
        "v_template": (vertices, 3), "J_regressor": (24, vertices), "weights": (vertices, 24),
        "posedirs": (vertices, 3, 207), "kintree_table": (2, 24),
    }  # fmt: skip
    for key, shape in wanted.items():
        if arrays[key].shape != shape:
            raise ValueError(f"{path}: {key} is {arrays[key].shape}, not {shape}: damaged, or not SMPL's; {WHERE}")
    if arrays["shapedirs"].shape[:2] != (vertices, 3) or arrays["shapedirs"].shape[2] < BETAS:
        raise ValueError(
            f"{path}: shapedirs is {arrays['shapedirs'].shape}, not ({vertices}, 3, {BETAS} or more): betas of another "
            f"length; {WHERE}"
        )
    return arrays


def _find(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    below = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    files = sorted(path for path in below if path.suffix in (".npz", ".pkl"))
    return {
        gender: next(path for path in files if re.fullmatch(name, path.stem, re.IGNORECASE))
        for gender, name in _NAMES.items()
        if any(re.fullmatch(name, path.stem, re.IGNORECASE) for path in files)
    }


def _vertex_ids(arrays: Mapping[str, np.ndarray]) -> dict[str, int] | None:
    """smplx's names of the face -> vertices; None for SMPL's own mesh, which smplx knows."""
    if "vertex_names" not in arrays:
        return None
    return dict(zip(arrays["vertex_names"].tolist(), map(int, arrays["vertex_numbers"]), strict=True))


def _regressors(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Skeleton's name -> [J V]: the file's own, SPIN's beside it, COCO's by SMPL's joints and the face's vertices."""
    prefix = "J_regressor_"
    found = {key.removeprefix(prefix): rows for key, rows in arrays.items() if key.startswith(prefix)}
    beside = next((place / H36M_REGRESSOR for place in path.parents[:2] if (place / H36M_REGRESSOR).is_file()), None)
    if H36M_17.name not in found and beside is not None:
        found |= _spins(beside, arrays)
    if COCO_17.name not in found:
        found[COCO_17.name] = _coco(arrays)
    return found


def _spins(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = np.load(path, allow_pickle=False)
    if rows.shape != (len(H36M_17), len(arrays["v_template"])):
        raise ValueError(
            f"{path}: {rows.shape}, this body needs (17, {len(arrays['v_template'])}); is it another mesh's?"
        )
    order = list(_H36M_REGRESSOR_ORDER)
    # Copies with the legs in the corpus's order go round under the same name. SMPL's left is its x.
    if (rows[order.index("left_hip")] @ arrays["v_template"])[0] < 0:
        order = [_swapped(name) if name.endswith(("hip", "knee", "ankle")) else name for name in order]

    def row(point: str) -> np.ndarray:
        return rows[order.index(point)]

    lsp = np.array([row(_LSP_FROM_H36M.get(point, point)) for point in LSP_14.points])
    h36m = np.array([row("head_top" if point == "h36m_head" else point) for point in H36M_17.points])
    return {LSP_14.name: lsp, H36M_17.name: h36m}


def _swapped(name: str) -> str:
    return name.replace("left", "r_").replace("right", "left").replace("r_", "right")


def _coco(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    from smplx.vertex_ids import vertex_ids

    ids = _vertex_ids(arrays) or vertex_ids["smplh"]
    rows = np.zeros((len(COCO_17), len(arrays["v_template"])))
    for joint, point in enumerate(COCO_17.points):
        if point in _FACE:
            rows[joint, ids[_FACE[point]]] = 1.0
        else:
            rows[joint] = arrays["J_regressor"][SMPL_24.index(point)]
    return rows


def rotations_from_axis_angle(pose_rad: Tensor) -> Tensor:
    """[... 3] -> [... 3 3], by Rodrigues' formula; differentiable, at 0 too."""
    square = pose_rad.square().sum(-1, keepdim=True)[..., None]
    angle = square.clamp(min=1e-12).sqrt()
    x, y, z = pose_rad.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    sine = torch.sin(angle) / angle
    versine = 2.0 * torch.sin(angle / 2.0).square() / angle.square()
    return torch.eye(3, device=pose_rad.device, dtype=pose_rad.dtype) + sine * cross + versine * (cross @ cross)


def rotations_from_6d(columns: Tensor) -> Tensor:
    """[... 6], the first two columns before they are made orthonormal -> [... 3 3] (Zhou et al. 2019)."""
    first, second = columns[..., :3], columns[..., 3:]
    x = nn.functional.normalize(first, dim=-1)
    y = nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.cross(x, y, dim=-1)], dim=-1)
