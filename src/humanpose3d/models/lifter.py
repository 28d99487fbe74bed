"""The keypoint lifter: one token a joint, seen by a virtual camera turned onto the person -> 3D joints and root.

Of a picture it sees at most what a small network finds at the keypoints (`LifterConfig.image_backbone`), and by default
nothing: 2D keypoints, metric depth around them where there is any, and the frames around where the model has a window.
The numbers are `LifterConfig`'s.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from humanpose3d.model_config import LifterConfig
from humanpose3d.models.common import CONFIDENT, DEPTH_JOINTS, PosePrediction
from humanpose3d.models.joint_features import JointImageFeatures, depths_at_keypoints
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton

TYPICAL_SPREAD_M = 0.45  # root mean square distance of a person's joints from their middle, seen from the side
TYPICAL_ERROR_M = 0.05  # what an untrained network says of its joints
SMALLEST_SPREAD = 1e-3  # of rays; one joint alone has none
JOINT_FEATURES = 3  # x, y in units of the spread; score
DEPTH_FEATURES = 4  # depth relative to the person's; its spread in the patch; x, y in metres
PERSON_FEATURES = 2  # log spread of the rays; share of the joints that is known
FRAME_FEATURES = 4  # x, y, score, known
TIME_WAVES = 6  # sines and cosines of a frame's time, the longest with the period LONGEST_WAVE_S
LONGEST_WAVE_S = 12.8
HIDDEN = -1e4  # of a token's likeness: its share of the attention is exactly 0 then, in 16 bits too


class View(NamedTuple):
    """A batch as the virtual cameras see it. Masked entries hold zeros."""

    to_camera: Tensor  # float32 [B 3 3]: columns are the virtual camera's axes in the real camera's frame
    spread: Tensor  # float32 [B 1], root mean square distance of the confident joints' rays from the axis
    joints: Tensor  # float32 [B Jin 2]: x/z, y/z of the rays, in units of the spread
    joint_known: Tensor  # bool [B Jin]
    score: Tensor  # float32 [B Jin]
    depth_m: Tensor  # float32 [B Jin], z around the joint in the virtual camera
    depth_spread_m: Tensor  # float32 [B Jin]
    depth_known: Tensor  # bool [B Jin]
    person_depth_m: Tensor  # float32 [B], the median over confident joints; 0 where unknown


class KeypointLifter(nn.Module):
    """PoseBatch -> PosePrediction, with the error each joint is expected to have.

    Tokens of the input joints and one of the person go through encoder blocks; then the tokens of the output joints,
    learned ones, look at them and go through blocks of their own. So no block sees more than 18 tokens: with both kinds
    in one sequence a step takes twice the time.
    """

    def __init__(self, config: LifterConfig, *, pretrained: bool = False) -> None:
        """pretrained: the image backbone starts from timm's ImageNet weights."""
        super().__init__()
        if config.window % 2 == 0:
            raise ValueError(f"a window of {config.window} frames has none in the middle; take an odd number")
        if config.window > 1 and config.image_backbone:
            raise ValueError(f"a window of {config.window} frames and an image backbone do not go together; take one")
        self.config = config
        inputs, skeleton = len(get_skeleton(config.keypoint_skeleton)), get_skeleton(config.skeleton)
        outputs, width = len(skeleton), config.width
        self.root_index = skeleton.root_index
        self.embed = JointTokens(inputs, width, use_depth=config.use_depth, range_m=config.depth_range_m)
        self.frames = FrameTokens(config, inputs) if config.window > 1 else None
        backbone = config.image_backbone
        self.image = JointImageFeatures(backbone, width, config.input_size, pretrained=pretrained) if backbone else None
        self.encoder = nn.ModuleList(_block(config) for _ in range(config.input_blocks))
        self.queries = nn.Parameter(0.02 * torch.randn(outputs + 1, width))  # of the output joints, and of the root
        self.bridge = Block(width, config.heads, config.expansion, config.dropout, crosses=True)
        self.decoder = nn.ModuleList(_block(config) for _ in range(config.output_blocks))
        self.norm = nn.LayerNorm(width)
        self.to_joint = nn.Linear(
            width, 4
        )  # x, y, z relative to the root, in units of TYPICAL_SPREAD_M; log of the error
        self.to_root = nn.Linear(width, 5)  # u, v, log size from the picture, correction of the depth's, gate
        for last in (self.to_joint, self.to_root):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    def forward(self, batch: PoseBatch) -> PosePrediction:
        view = turn_onto_person(batch, use_depth=self.config.use_depth)
        tokens, known = self.embed(view)  # [B Jin+1 D], bool [B Jin+1]
        bias = masking_bias(known)
        if self.image is not None:
            tokens = tokens + F.pad(self.image(batch), (0, 0, 0, 1))
        if self.frames is not None:
            tokens = self.frames(tokens, view, batch)
        for block in self.encoder:
            tokens = block(tokens, bias=bias)
        tokens = self.bridge(self.queries[None], tokens, bias)  # [B J+1 D]
        for block in self.decoder:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        joints = self.to_joint(tokens[:, :-1]).float()
        joints_view_m = TYPICAL_SPREAD_M * (joints[..., :3] - joints[:, self.root_index, None, :3])
        root_view_m = place_root(self.to_root(tokens[:, -1]).float(), view)
        return PosePrediction(
            turn(joints_view_m, view.to_camera),
            turn(root_view_m[:, None], view.to_camera)[:, 0],
            joints[..., 3] + math.log(TYPICAL_ERROR_M),
        )


def with_window(model: KeypointLifter, window: int) -> KeypointLifter:
    """The same network for a window of so many frames, more than one.

    Where it saw one alone it answers as before until it is trained: what the frames around add begins at zero.
    """
    other = KeypointLifter(replace(model.config, window=window))
    other.load_state_dict(model.state_dict(), strict=model.frames is not None)
    if model.frames is None and other.frames is not None:
        look = other.frames.look
        for last in (look.merge, look.mlp[-2]):  # the layers that add to a token
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    return other


def place_root(numbers: Tensor, view: View) -> Tensor:
    """[B 3] metres in the virtual camera, from the head's five numbers.

    The person's size over its angle is its distance. The picture's estimate of the size is a person's; where depth is
    known it has its own, corrected (from skin to joint), and a learned gate weighs the two.
    """
    u, v, log_size, correction, gate = numbers.unbind(1)
    spread = view.spread[:, 0]
    log_seen = log_size + math.log(TYPICAL_SPREAD_M)
    log_measured = (view.person_depth_m * spread).clamp(min=1e-3).log() + correction
    trust = torch.sigmoid(gate) * (view.person_depth_m > 0)
    z_m = torch.lerp(log_seen, log_measured, trust).clamp(-4.0, 4.0).exp() / spread
    return torch.stack([u * spread * z_m, v * spread * z_m, z_m], dim=-1)


def turn_onto_person(batch: PoseBatch, *, use_depth: bool) -> View:
    """The batch in virtual cameras at the same places that look along the mean ray of the confident joints.

    Where in the picture the person is, and the focal length, are gone from the rays then; what is left of the latter
    is the perspective itself. The virtual camera's x axis stays in the plane of the real one's x and z, as of a
    photographer who turns and nods and never tilts the head: whoever is upright in a level camera stays so at the
    picture's edge. (The smallest rotation would tilt those in its corners.)
    """
    known = batch.keypoint_mask
    rays = keypoint_rays(batch.keypoints_px, batch.intrinsics)  # [B Jin 3], z = 1
    confident = known & (batch.keypoint_score >= CONFIDENT)
    confident = _first_if(confident.sum(1, keepdim=True) >= DEPTH_JOINTS, confident, known)
    weight = confident[..., None].float()
    mean = (F.normalize(rays, dim=-1) * weight).sum(1)
    ahead = torch.tensor([0.0, 0.0, 1.0], device=rays.device)
    to_camera = look_along(mean.where(confident.any(1, keepdim=True), ahead))
    turned = turn(rays, to_camera.mT)
    seen = turned[..., :2] / turned[..., 2:].clamp(min=0.05)
    square = (seen.square() * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    spread = square.sqrt().clamp(min=SMALLEST_SPREAD)[:, None]
    joints = (seen / spread[..., None]).where(known[..., None], 0.0)
    score = batch.keypoint_score.where(known, 0.0)
    measured, depth_known = _depths(batch) if use_depth else (None, None)
    if measured is None or depth_known is None:
        nothing = torch.zeros_like(score)
        return View(to_camera, spread, joints, known, score, nothing, nothing, torch.zeros_like(known), nothing[:, 0])
    depth_known = depth_known & known
    # z along the real camera's axis -> along the virtual one's, on the same ray.
    depth_m, depth_spread_m = (measured * turned[..., 2:]).where(depth_known[..., None], 0.0).unbind(-1)
    person_m = _person_depth(depth_m, depth_known & confident, depth_known)
    return View(to_camera, spread, joints, known, score, depth_m, depth_spread_m, depth_known, person_m)


def _depths(batch: PoseBatch) -> tuple[Tensor | None, Tensor | None]:
    """([B Jin 2] metres and spread around the keypoints, bool [B Jin]), where the batch has them or a map of depths."""
    if batch.keypoint_depth_m is not None or batch.depth_m is None or batch.image is None:
        return batch.keypoint_depth_m, batch.keypoint_depth_mask
    return depths_at_keypoints(batch.depth_m, batch.keypoints_px, batch.keypoint_mask, batch.image.shape[-1])


def _person_depth(depth_m: Tensor, certain: Tensor, known: Tensor) -> Tensor:
    """[B]: the median depth of the joints that are certain, else of those that are known; 0 where there are none."""
    chosen = _first_if(certain.any(1, keepdim=True), certain, known)
    number = chosen.sum(1, keepdim=True)
    rising = depth_m.where(chosen, torch.inf).sort(1).values  # ONNX has a sort, and no median of some
    return rising.gather(1, (number - 1).clamp(min=0) // 2)[:, 0].where(number[:, 0] > 0, 0.0)


def _first_if(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """bool tensors, row by row. (ONNX Runtime has no `where` of truth values.)"""
    return (condition & first) | (~condition & second)


def keypoint_rays(points_px: Tensor, intrinsics: Tensor) -> Tensor:
    """[B ... 2] pixels -> [B ... 3]: the ray through each at z = 1; K may have any invertible 2x2 block."""
    a, b, c, d = intrinsics[:, :2, :2].flatten(1)[(...,) + (None,) * (points_px.ndim - 2)].unbind(1)
    middle = intrinsics[:, :2, 2][(slice(None),) + (None,) * (points_px.ndim - 2)]
    x, y = (points_px - middle).unbind(-1)
    inverse = 1.0 / (a * d - b * c)
    return torch.stack([(d * x - b * y) * inverse, (a * y - c * x) * inverse, torch.ones_like(x)], dim=-1)


def look_along(direction: Tensor) -> Tensor:
    """[B 3] -> rotations [B 3 3]: their columns are the axes of a camera looking there, x level with the real one's."""
    z = F.normalize(direction, dim=-1)
    flat = torch.stack([z[:, 2], torch.zeros_like(z[:, 0]), -z[:, 0]], dim=-1)  # y x z
    x = F.normalize(flat, dim=-1, eps=1e-6)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


def turn(points: Tensor, rotation: Tensor) -> Tensor:
    """[B J 3] by [B 3 3]. Written out, not as a matrix product: autocast would round that to 16 bits."""
    return (rotation[:, None] * points[:, :, None]).sum(-1)


class JointTokens(nn.Module):
    """A token for each input joint, and one for the person. What is not known is a learned vector, and masked."""

    def __init__(self, joints: int, width: int, *, use_depth: bool, range_m: float) -> None:
        super().__init__()
        self.range_m, self.use_depth = range_m, use_depth
        self.name = nn.Parameter(0.02 * torch.randn(joints, width))
        self.absent = nn.Parameter(torch.zeros(width))
        self.person_name = nn.Parameter(0.02 * torch.randn(width))
        self.joint = nn.Linear(JOINT_FEATURES, width)
        self.person = nn.Linear(PERSON_FEATURES, width)
        if use_depth:
            self.depth = nn.Linear(DEPTH_FEATURES, width)
            self.person_size = nn.Linear(1, width)
            self.absent_depth = nn.Parameter(torch.zeros(width))
            self.absent_size = nn.Parameter(torch.zeros(width))

    def forward(self, view: View) -> tuple[Tensor, Tensor]:
        """(tokens [B Jin+1 D], the person's last; which of them may be looked at, bool [B Jin+1])"""
        known = view.joint_known
        tokens = self.joint(torch.cat([view.joints, view.score[..., None]], dim=-1))
        share = known.float().mean(1, keepdim=True)
        person = self.person(torch.cat([view.spread.log() + 2.0, share], dim=-1)) + self.person_name
        if self.use_depth:
            tokens = tokens + self._depth(view)
            size = (view.person_depth_m * view.spread[:, 0]).clamp(min=1e-3).log()[:, None]
            has_depth = (view.person_depth_m > 0)[:, None]
            person = person + self.person_size(size - math.log(TYPICAL_SPREAD_M)).where(has_depth, self.absent_size)
        tokens = tokens.where(known[..., None], self.absent) + self.name
        return torch.cat([tokens, person[:, None]], dim=1), F.pad(known, (0, 1), value=True)

    def _depth(self, view: View) -> Tensor:
        relative = ((view.depth_m - view.person_depth_m[:, None]) / self.range_m).clamp(-1.0, 1.0)
        spread = (view.depth_spread_m / self.range_m).clamp(max=1.0)
        # Where the joint would be in metres: the product is not left to the network to discover.
        xy_m = view.joints * (view.spread * view.depth_m)[..., None]
        features = torch.cat([relative[..., None], spread[..., None], xy_m.clamp(-3.0, 3.0)], dim=-1)
        return self.depth(features).where(view.depth_known[..., None], self.absent_depth)


class FrameTokens(nn.Module):
    """What the frames around say: a token a frame, which think together, and which the joints then look at."""

    def __init__(self, config: LifterConfig, joints: int) -> None:
        super().__init__()
        width = config.width
        self.window = config.window
        self.frame = nn.Linear(joints * FRAME_FEATURES, width)
        self.time = nn.Linear(2 * TIME_WAVES, width)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.frame_blocks))
        self.norm = nn.LayerNorm(width)
        self.look = Block(width, config.heads, config.expansion, config.dropout, crosses=True)

    def forward(self, tokens: Tensor, view: View, batch: PoseBatch) -> Tensor:
        """The joints' tokens [B Jin+1 D] after a look at the frames. Frames without any keypoint are masked."""
        window, mask, time_s = _window(batch, self.window)
        rays = keypoint_rays(window[..., :2], batch.intrinsics)  # [B T Jin 3]
        turned = turn(rays.flatten(1, 2), view.to_camera.mT).unflatten(1, rays.shape[1:3])
        # In the middle frame's camera and unit, so that motion stays motion.
        seen = turned[..., :2] / turned[..., 2:].clamp(min=0.05) / view.spread[:, None, None]
        features = torch.cat([seen.clamp(-20.0, 20.0), window[..., 2:], torch.ones_like(window[..., 2:])], dim=-1)
        frames = self.frame((features * mask[..., None]).flatten(2)) + self.time(time_waves(time_s))
        known = mask.any(-1)
        known = known | ~known.any(1, keepdim=True)  # attention needs something to look at
        bias = masking_bias(known)
        for block in self.blocks:
            frames = block(frames, bias=bias)
        return self.look(tokens, self.norm(frames), bias)


def _window(batch: PoseBatch, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """(keypoints [B T Jin 3], bool [B T Jin], seconds [B T]); without a window, the own frame amid masked ones."""
    if batch.keypoint_window is not None:
        assert batch.window_mask is not None and batch.window_time_s is not None
        if batch.keypoint_window.shape[1] != frames:
            raise ValueError(f"a window of {batch.keypoint_window.shape[1]} frames, the model is made for {frames}")
        return batch.keypoint_window, batch.window_mask, batch.window_time_s
    own = torch.cat([batch.keypoints_px, batch.keypoint_score[..., None]], dim=-1)
    half = frames // 2
    window = F.pad(own[:, None], (0, 0, 0, 0, half, half))
    mask = F.pad(batch.keypoint_mask[:, None], (0, 0, half, half))
    return window, mask, own.new_zeros(len(own), frames)


def time_waves(time_s: Tensor) -> Tensor:
    """[B T] seconds -> [B T 2 TIME_WAVES]: the same second is the same whatever the frame rate."""
    rates = 2.0 * math.pi / LONGEST_WAVE_S * 2.0 ** torch.arange(TIME_WAVES, device=time_s.device)
    phases = time_s[..., None] * rates
    return torch.cat([phases.sin(), phases.cos()], dim=-1)


def masking_bias(known: Tensor) -> Tensor:
    """bool [B M] -> float32 [B 1 1 M]: what is added to tokens' likeness, so that nothing unknown is looked at."""
    return torch.zeros_like(known, dtype=torch.float32).masked_fill(~known, HIDDEN)[:, None, None]


def _block(config: LifterConfig) -> Block:
    return Block(config.width, config.heads, config.expansion, config.dropout)


class Block(nn.Module):
    """A transformer's block, norms first: tokens look at one another, or at others, then think by themselves."""

    def __init__(self, width: int, heads: int, expansion: int, dropout: float, *, crosses: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.norm_others = nn.LayerNorm(width) if crosses else None
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Linear(expansion * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor, others: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """[B N D], [B M D] or None for the tokens themselves; bias: of `masking_bias`, None where all may be seen."""
        looking = self.norm(tokens)
        seen = looking if others is None else others if self.norm_others is None else self.norm_others(others)
        query = self.query(looking).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(seen).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2).chunk(2, dim=1)
        # Written out: torch's attention on a CPU takes 10 times as long for the gradient in 16 bits, and no less in 32.
        likeness = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)  # [B heads N M]
        looked = (likeness if bias is None else likeness + bias.to(likeness.dtype)).softmax(-1) @ value
        tokens = tokens + F.dropout(self.merge(looked.transpose(1, 2).flatten(2)), self.dropout, self.training)
        return tokens + self.mlp(tokens)
