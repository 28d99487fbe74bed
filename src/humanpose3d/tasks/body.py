"""Bodies: a picture -> pose, shape and place of SMPL. What goes with a body regressor, whichever its head is.

The surfaces, of answers and of labels, are made here, outside the network: the body's file stays with the user.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from humanpose3d.camera import Camera
from humanpose3d.config import BodyLossWeights
from humanpose3d.metrics import MM_PER_M, SCORED_BODY, BodyMetrics, joint_error
from humanpose3d.model_config import BodyConfig, ModelConfig
from humanpose3d.models.hps import PART_STRIDE
from humanpose3d.models.smpl_body import SmplBodies, Surface, load_bodies, rotations_from_axis_angle
from humanpose3d.sample import GENDERS, PoseBatch
from humanpose3d.skeletons import SMPL_24
from humanpose3d.tasks.criterion import Criterion, Measurable
from humanpose3d.visualize.mesh import TRUTH_COLOUR, mesh_panel

HIPS = (SCORED_BODY.index("left_hip"), SCORED_BODY.index("right_hip"))
NEAREST_M = 0.1  # a joint is never projected from nearer than this
DEPTH_STEPS = 10_000  # a metre; parts nearer than another by less may cover it


class PosedBodies(NamedTuple):
    """Answers of a body regressor with their surfaces, and the surfaces of the labels. Camera frame, metres."""

    rotations: Tensor  # float32 [B 24 3 3]
    betas: Tensor  # float32 [B 10]
    root_cam_m: Tensor  # float32 [B 3], the pelvis
    vertices_rel_m: Tensor  # float32 [B V 3], relative to the pelvis
    joints_rel_m: Tensor  # float32 [B 24 3], likewise
    scored_m: Tensor  # float32 [B 14 3], SCORED_BODY relative to the middle of the hips
    is_labelled: Tensor  # bool [B]; where False, what follows is of a body at rest
    true_rotations: Tensor
    true_vertices_rel_m: Tensor
    true_scored_m: Tensor
    part_maps: Tensor | None = None  # float32 [B 25 h w], logarithms of shares


class BodyTask:
    """Loss, metrics and previews of a body regressor of this configuration."""

    needed = "SMPL's pose and shape"  # for the criterion
    criterion = Criterion("pa_mpjpe_mm", "PA-MPJPE", "mm")
    watched = Criterion("mpjpe_mm", "MPJPE", "mm")
    summary = {
        "pa_mpjpe_mm": "PA-MPJPE {:.1f} mm",
        "mpjpe_mm": "MPJPE {:.1f} mm",
        "vertex_error_mm": "per-vertex error {:.1f} mm",
        "pose_error_deg": "pose error {:.1f} degrees",
    }

    def __init__(self, config: ModelConfig, weights: BodyLossWeights, body_model: Path) -> None:
        """FileNotFoundError, ValueError: as `load_bodies`."""
        assert isinstance(config, BodyConfig)
        self.config, self.weights, self.fields = config, weights, config.needs
        self.skeleton, self.place = SMPL_24, body_model
        self.bodies: SmplBodies = load_bodies(body_model).eval()
        if SCORED_BODY.name not in self.bodies.neutral.skeletons:  # says which file is missing
            self.bodies.neutral.joints(_rest(self.bodies), SCORED_BODY)

    def predict(self, model: nn.Module, batch: PoseBatch) -> PosedBodies:
        """The model's answer with its surface, in float32 whatever the precision it was computed in."""
        answer, labelled = model(batch), self.labelled(batch)
        surface = self.bodies.neutral(answer.rotations, answer.betas)
        pelvis_m = surface.joints_m[:, :1]
        return labelled._replace(
            rotations=answer.rotations,
            betas=answer.betas,
            root_cam_m=answer.root_cam_m,
            vertices_rel_m=surface.vertices_m - pelvis_m,
            joints_rel_m=surface.joints_m - pelvis_m,
            scored_m=self._scored(surface),
            part_maps=None if answer.part_maps is None else answer.part_maps.float(),
        )

    def labelled(self, batch: PoseBatch) -> PosedBodies:
        """The labels as if they had been answered."""
        assert batch.smpl_betas is not None and batch.joints_cam_m is not None
        self.bodies.to(batch.smpl_betas.device)
        is_labelled, rotations, surface = self._truth(batch)
        pelvis_m, scored_m = surface.joints_m[:, :1], self._scored(surface)
        vertices_rel_m, joints_rel_m = surface.vertices_m - pelvis_m, surface.joints_m - pelvis_m
        return PosedBodies(
            rotations=rotations,
            betas=batch.smpl_betas,
            root_cam_m=batch.joints_cam_m[:, SMPL_24.root_index],
            vertices_rel_m=vertices_rel_m,
            joints_rel_m=joints_rel_m,
            scored_m=scored_m,
            is_labelled=is_labelled,
            true_rotations=rotations,
            true_vertices_rel_m=vertices_rel_m,
            true_scored_m=scored_m,
        )

    def loss(self, prediction: PosedBodies, batch: PoseBatch) -> dict[str, Tensor]:
        """Named terms without their weights, and "loss", their weighted sum. Scalars; a term without labels is 0."""
        assert batch.joints_cam_m is not None and batch.joint_mask is not None
        assert batch.joints_px is not None and batch.joint_in_view is not None and batch.smpl_betas is not None
        root, labelled = SMPL_24.root_index, prediction.is_labelled
        with torch.autocast(prediction.betas.device.type, enabled=False):
            labels_m = batch.joints_cam_m - batch.joints_cam_m[:, root, None]
            half_px = batch.image_size_wh[:, None] / 2.0
            off_2d = (self._projected(prediction, batch) - batch.joints_px) / half_px
            terms = {
                "joints_3d": _masked_mean((prediction.joints_rel_m - labels_m).abs().mean(-1), batch.joint_mask),
                "joints_2d": _masked_mean(off_2d.abs().mean(-1), batch.joint_in_view),
                "pose": _masked_mean(
                    (prediction.rotations - prediction.true_rotations).square().mean((1, 2, 3)), labelled
                ),
                "shape": _masked_mean((prediction.betas - batch.smpl_betas).square().mean(1), labelled),
            }
            if prediction.part_maps is not None:
                terms["parts"] = self._part_loss(prediction, batch)
            total = torch.stack([getattr(self.weights, name) * value for name, value in terms.items()]).sum()
        return {"loss": total, **terms}

    def training_scalars(self, model: nn.Module, batch: PoseBatch) -> dict[str, Tensor]:
        """What a training step shows: the loss (the one to descend), its terms, and the batch's mpjpe_mm."""
        prediction = self.predict(model, batch)
        error_m = joint_error(prediction.scored_m.detach(), prediction.true_scored_m).mean(1)
        return {**self.loss(prediction, batch), "mpjpe_mm": MM_PER_M * _masked_mean(error_m, prediction.is_labelled)}

    def metrics(self) -> BodyMetrics:
        return BodyMetrics()

    def measurable(self, prediction: PosedBodies, batch: PoseBatch) -> Measurable:
        """In SCORED_BODY, labels regressed from their meshes; where they stand, as far as that is labelled."""
        assert batch.joints_cam_m is not None
        labels_m = prediction.true_scored_m + batch.joints_cam_m[:, SMPL_24.root_index, None]
        mask = prediction.is_labelled[:, None].expand(labels_m.shape[:2])
        return Measurable(prediction.scored_m, labels_m, mask)

    def parts(self, batch: PoseBatch) -> dict[str, np.ndarray]:
        """What its samples are asked about -> each one's answer; "" where it has none. Sequences are the actions."""
        return {"action": np.array(batch.actions)}

    def previews(self, prediction: PosedBodies, batch: PoseBatch, number: int) -> list[np.ndarray]:
        """uint8 [H W 3] pictures of the first samples: the answered body, below it the labelled one."""
        assert batch.image is not None and batch.joints_cam_m is not None
        shown = (prediction.is_labelled & batch.counted).tolist()
        true_root_m = batch.joints_cam_m[:, SMPL_24.root_index]
        faces, found = self.bodies.neutral.faces.cpu().numpy(), []
        for row in [row for row in range(len(batch)) if shown[row]][:number]:
            image = batch.image[row].permute(1, 2, 0).cpu().numpy()
            K = batch.intrinsics[row].double().cpu().numpy()
            camera = Camera(K, np.eye(3), np.zeros(3), np.zeros(5))
            answered = (prediction.vertices_rel_m[row] + prediction.root_cam_m[row]).cpu().numpy()
            labelled = (prediction.true_vertices_rel_m[row] + true_root_m[row]).cpu().numpy()
            title = f"{batch.subjects[row]} {batch.actions[row]}"
            found.append(
                np.concatenate(
                    [
                        mesh_panel(image, answered, faces, camera, title=title, note="answered"),
                        mesh_panel(image, labelled, faces, camera, title=title, note="labelled", colour=TRUTH_COLOUR),
                    ]
                )
            )
        return found

    def check_labels(self, batch: PoseBatch) -> None:
        """ValueError where a batch has no labels, no pictures, or a body without its gender's file."""
        if batch.image is None:
            raise ValueError(f"sample {batch.keys[0]} and its batch have no pictures, which a body regressor looks at")
        if batch.joints_cam_m is None or batch.smpl_mask is None or batch.smpl_gender is None:
            raise ValueError(f"sample {batch.keys[0]} and its batch have no labels; training and measuring need them")
        for key, labelled, gender in zip(batch.keys, batch.smpl_mask.tolist(), batch.smpl_gender.tolist(), strict=True):
            if labelled and gender < 0:
                raise ValueError(
                    f"sample {key} has SMPL's pose and shape and no gender, so its betas mean nothing; take its "
                    "corpus's own files, or humanpose3d fit-body"
                )
            if labelled and GENDERS[gender] not in self.bodies.of:
                raise ValueError(
                    f"sample {key} is {GENDERS[gender]}, and {self.place} has no SMPL_{GENDERS[gender].upper()}: put "
                    "the three files of SMPL there"
                )

    def _truth(self, batch: PoseBatch) -> tuple[Tensor, Tensor, Surface]:
        """(bool [B] is it labelled, rotations [B 24 3 3], the surfaces at the origin)."""
        assert batch.smpl_pose_rad is not None and batch.smpl_betas is not None
        assert batch.smpl_mask is not None and batch.smpl_gender is not None
        with torch.no_grad(), torch.autocast(batch.smpl_betas.device.type, enabled=False):
            rotations = rotations_from_axis_angle(batch.smpl_pose_rad)
            nowhere = torch.zeros_like(batch.smpl_betas[:, :3])
            surface, has_body = self.bodies(rotations, batch.smpl_betas, nowhere, batch.smpl_gender)
        return batch.smpl_mask & has_body, rotations, surface

    def _scored(self, surface: Surface) -> Tensor:
        joints_m = self.bodies.neutral.joints(surface, SCORED_BODY)
        return joints_m - joints_m[:, HIPS].mean(1, keepdim=True)

    def _projected(self, prediction: PosedBodies, batch: PoseBatch) -> Tensor:
        return project(prediction.joints_rel_m + prediction.root_cam_m[:, None], batch.intrinsics)

    def _part_loss(self, prediction: PosedBodies, batch: PoseBatch) -> Tensor:
        """Over the cells of the samples whose body is labelled and stands somewhere."""
        assert batch.joint_mask is not None and prediction.part_maps is not None
        target = self.part_targets(prediction, batch)
        mask = prediction.is_labelled & batch.joint_mask[:, SMPL_24.root_index]
        each = F.cross_entropy(prediction.part_maps, target, reduction="none").mean((1, 2))
        return _masked_mean(each, mask)

    def part_targets(self, prediction: PosedBodies, batch: PoseBatch) -> Tensor:
        """int64 [B h w]: which part of the labelled body each cell shows, 0 for none."""
        assert batch.joints_cam_m is not None
        vertices_m = prediction.true_vertices_rel_m + batch.joints_cam_m[:, SMPL_24.root_index, None]
        faces = self.bodies.neutral.faces
        points_m = torch.cat([vertices_m, vertices_m[:, faces].mean(2)], dim=1)  # corners, and middles of triangles
        part_of_vertex = self.bodies.neutral.part_of_vertex
        parts = torch.cat([part_of_vertex, part_of_vertex[faces[:, 0]]])
        return part_labels(points_m, parts, batch.intrinsics, self.config.input_size // PART_STRIDE)


def project(points_cam_m: Tensor, intrinsics: Tensor) -> Tensor:
    """[B N 3] metres, camera frame, [B 3 3] -> [B N 2] pixels. Points behind the lens are taken to be before it."""
    z = points_cam_m[..., 2:].clamp(min=NEAREST_M)
    rays = points_cam_m[..., :2] / z
    return (intrinsics[:, None, :2, :2] * rays[:, :, None]).sum(-1) + intrinsics[:, None, :2, 2]


def part_labels(points_cam_m: Tensor, part_of_point: Tensor, intrinsics: Tensor, cells: int) -> Tensor:
    """[B N 3], int64 [N] -> int64 [B cells cells]: the part of the nearest point that falls into each cell, plus 1; 0
    for none.

    A body's mesh has several points a cell, so that no triangle needs to be filled.
    """
    column, row = torch.floor((project(points_cam_m, intrinsics) + 0.5) / PART_STRIDE).long().unbind(-1)
    z = points_cam_m[..., 2]
    inside = (column >= 0) & (column < cells) & (row >= 0) & (row < cells) & (z > NEAREST_M)
    # Depth first, then the part: the smallest such number of a cell is the nearest vertex's.
    number = (z * DEPTH_STEPS).long() * (len(SMPL_24) + 1) + part_of_point + 1
    nothing = torch.iinfo(torch.int64).max
    place = (row * cells + column).where(inside, cells * cells)  # one cell more, for those that fall beside
    nearest = torch.full((len(z), cells * cells + 1), nothing, device=z.device)
    nearest.scatter_reduce_(1, place, number, "amin")
    found = nearest[:, :-1]
    return (found % (len(SMPL_24) + 1)).where(found < nothing, 0).unflatten(1, (cells, cells))


def _rest(bodies: SmplBodies) -> Surface:
    return bodies.neutral(torch.eye(3).expand(1, len(SMPL_24), 3, 3), torch.zeros(1, 10))


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean where True; 0 where nothing is, without a gradient that is not a number."""
    return values.where(mask, 0.0).sum() / mask.sum().clamp(min=1)
