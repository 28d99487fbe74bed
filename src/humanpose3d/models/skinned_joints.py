"""Joints of a SMPL body without its surface, and their derivatives by pose and shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from humanpose3d.models.smpl_body import SmplBody
from humanpose3d.skeletons import SMPL_24, Skeleton


class SkinnedJoints:
    """A body's joints of one set without its surface: those of `SmplBody.joints`, and how they move.

    A regressed joint is a sum over vertices, a vertex a sum over bones; here the sum over vertices is taken once.
    """

    def __init__(self, body: SmplBody, skeleton: Skeleton) -> None:
        smpl = body.smpl
        self.skeleton, self.parents = skeleton, smpl.parents
        self.above = smpl.parents.clamp(min=0)  # the root's is itself
        self.bones_m = smpl.J_regressor @ smpl.v_template  # [24 3], where they turn, at rest
        self.bones_of_shape = torch.einsum("jv,vcs->jcs", smpl.J_regressor, smpl.shapedirs)  # [24 3 10]
        self.carries = _carries(smpl.parents).to(self.bones_m)
        self.of_pose = None  # [J 24 3 207]
        if skeleton is SMPL_24:  # each rides on its own bone
            self.share = torch.eye(len(SMPL_24), device=self.bones_m.device)
            self.rest_m = self.share[..., None] * self.bones_m[:, None]
            self.of_shape = self.share[..., None, None] * self.bones_of_shape[:, None]
            return
        pulls = body.regressor(skeleton)[:, None] * smpl.lbs_weights.T  # [J 24 V]
        self.share = pulls.sum(-1)  # [J 24]
        self.rest_m = pulls @ smpl.v_template  # [J 24 3]
        self.of_shape = torch.einsum("jkv,vcs->jkcs", pulls, smpl.shapedirs)  # [J 24 3 10]
        if bool(smpl.posedirs.any()):
            self.of_pose = torch.einsum("jkv,pvc->jkcp", pulls, smpl.posedirs.unflatten(1, (-1, 3)))

    def __call__(self, rotations: Tensor, betas: Tensor, trans_m: Tensor | None = None) -> Tensor:
        """float32 [B J 3], metres. Arguments as of `SmplBody`."""
        turned, _, moved_m, rest_m = self._posed(rotations, betas)
        joints_m = self._placed(turned, moved_m, rest_m).sum(2)
        return joints_m if trans_m is None else joints_m + trans_m[:, None]

    def with_slopes(self, rotations: Tensor, spins: Tensor, betas: Tensor, trans_m: Tensor) -> tuple[Tensor, Tensor]:
        """(joints [B J 3], their derivatives [B J 3 P] by the 72 of the pose, the 3 of trans and the 10 of betas).

        spins: [B 24 3 3], `spin_of` the axis-angles.
        """
        turned, bones_m, moved_m, rest_m = self._posed(rotations, betas)
        parts = self._placed(turned, moved_m, rest_m)  # [B J 24 3]
        root = torch.eye(3, device=turned.device).expand(len(turned), 1, 3, 3)
        before = torch.cat([root, turned[:, self.above[1:]]], dim=1)  # what has turned a bone when its own turn comes
        # A bone's turn swings all that it carries about its own place.
        arms = (
            torch.einsum("kl,bjlx->bjkx", self.carries, parts)
            - (self.share @ self.carries.T)[..., None] * bones_m[:, None]
        )
        axes = (before @ spins).mT  # [B 24 3 3], one a row
        by_pose = torch.linalg.cross(axes[:, None], arms[..., None, :])  # [B J 24 3 (axis) 3]
        if self.of_pose is not None:
            by_pose = by_pose + self._by_correctives(turned, rotations, spins)
        by_betas = self._by_betas(turned, before)
        by_trans = torch.eye(3, device=turned.device).expand(*parts.shape[:2], 3, 3)
        slopes = torch.cat([by_pose.flatten(2, 3).mT, by_trans, by_betas], dim=-1)
        return parts.sum(2) + trans_m[:, None], slopes

    def _posed(self, rotations: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(how each bone is turned [B 24 3 3], where it is [B 24 3], its motion after its turn about the origin
        [B 24 3], what it carries of each joint at rest [B J 24 3])."""
        from smplx.lbs import batch_rigid_transform

        rest_bones_m = self.bones_m + torch.einsum("jcs,bs->bjc", self.bones_of_shape, betas)
        bones_m, moves = batch_rigid_transform(rotations, rest_bones_m, self.parents)
        rest_m = self.rest_m + torch.einsum("jkcs,bs->bjkc", self.of_shape, betas)
        if self.of_pose is not None:
            bends = (rotations[:, 1:] - torch.eye(3, device=rotations.device)).flatten(1)
            rest_m = rest_m + torch.einsum("jkcp,bp->bjkc", self.of_pose, bends)
        return moves[..., :3, :3], bones_m, moves[..., :3, 3], rest_m

    def _placed(self, turned: Tensor, moved_m: Tensor, rest_m: Tensor) -> Tensor:
        """[B J 24 3]: what each bone adds to each joint's place."""
        return torch.einsum("bkxy,bjky->bjkx", turned, rest_m) + self.share[..., None] * moved_m[:, None]

    def _by_betas(self, turned: Tensor, before: Tensor) -> Tensor:
        """[B J 3 10]."""
        lengths = self.bones_of_shape - self.bones_of_shape[self.above]
        lengths[SMPL_24.root_index] = self.bones_of_shape[SMPL_24.root_index]
        bones = torch.einsum("kl,bkxs->blxs", self.carries, before @ lengths)
        moved = bones - turned @ self.bones_of_shape
        carried = torch.einsum("bkxy,jkys->bjxs", turned, self.of_shape)
        return carried + torch.einsum("jk,bkxs->bjxs", self.share, moved)

    def _by_correctives(self, turned: Tensor, rotations: Tensor, spins: Tensor) -> Tensor:
        """[B J 24 3 3]: what the rest body's own changes with the pose add."""
        assert self.of_pose is not None
        along = torch.einsum("bkxy,jkyp->bjxp", turned, self.of_pose).unflatten(-1, (23, 9))
        # d R = (spin d) x R, column by column of R.
        changed = torch.linalg.cross(spins[:, 1:].mT[..., None], rotations[:, 1:, None], dim=-2)  # [B 23 3 (axis) 3 3]
        by_pose = torch.einsum("bjxkq,bkaq->bjkax", along, changed.flatten(-2))
        return nn.functional.pad(by_pose, (0, 0, 0, 0, 1, 0))


def spin_of(pose_rad: Tensor) -> Tensor:
    """[... 3] -> [... 3 3]: by how much a change of an axis-angle turns more, as a rotation vector (left Jacobian)."""
    angle = pose_rad.square().sum(-1, keepdim=True)[..., None].clamp(min=1e-8).sqrt()
    x, y, z = pose_rad.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    first = 2.0 * torch.sin(angle / 2.0).square() / angle.square()
    # Its formula loses all digits near 0, where it is a sixth.
    second = torch.where(angle < 0.05, 1.0 / 6.0 - angle.square() / 120.0, (angle - torch.sin(angle)) / angle**3)
    return torch.eye(3, device=pose_rad.device) + first * cross + second * (cross @ cross)


def _carries(parents: Tensor) -> Tensor:
    """[24 24]: 1 where the second bone is the first, or hangs from it."""
    carries = torch.eye(len(parents))
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            carries[:, child] += carries[:, parent]
    return carries
