"""What the lifters share: a batch's cues on the device (heat maps, normalised depth), the head, the camera geometry.

The networks between cues and head are in cnn.py and transformers.py. Pixel (0, 0) is the centre of the top left pixel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from humanpose3d.model_config import ImageModelConfig
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import get_skeleton

CONFIDENT = 0.3  # score from which a keypoint's depth counts for the person's
DEPTH_JOINTS = 3  # confident keypoints with a depth, below which the middle of the map is taken instead
TYPICAL_VIEW_M = 2.0  # width of a view at the person's depth; what an untrained network answers
JOINT_CUES = 7  # x, y of the view; x, y in metres; score; relative depth; depth known
VIEW_CUES = 3  # log(f / S), log(depth-based width of the view), depth known


class PosePrediction(NamedTuple):
    """What a lifter answers, metres, camera frame of the batch's `intrinsics`."""

    joints_rel_m: Tensor  # float32 [B J 3], relative to the root, which is exactly 0
    root_cam_m: Tensor  # float32 [B 3]
    log_error_m: Tensor | None = None  # float32 [B J]: log of the error each joint is expected to have, metres

    @property
    def joints_cam_m(self) -> Tensor:
        """[B J 3], metres, camera frame."""
        return self.joints_rel_m + self.root_cam_m[:, None]


class GaussianHeatmapGenerator(nn.Module):
    """Keypoints -> one map each, on their device: a Gaussian as high as the keypoint's score; a missing one gives 0."""

    cells: Tensor

    def __init__(self, input_size: int, stride: int, sigma: float) -> None:
        """input_size: side of the model input, px. stride: px per cell. sigma: of the Gaussian, cells."""
        super().__init__()
        self.sigma_px = sigma * stride
        # A cell stands for `stride` pixels; its middle lies between them.
        middles_px = torch.arange(input_size // stride) * stride + (stride - 1) / 2.0
        self.register_buffer("cells", middles_px.float(), persistent=False)

    def forward(self, keypoints_px: Tensor, score: Tensor, mask: Tensor) -> Tensor:
        """[B Jin 2] px of the model input, [B Jin], bool [B Jin] -> [B Jin h w], in 0..1."""
        distance = (keypoints_px[..., None] - self.cells) / self.sigma_px  # [B Jin 2 cells]
        along_x, along_y = torch.exp(-0.5 * distance.square()).unbind(-2)
        height = score.clamp(0.0, 1.0) * mask
        return height[..., None, None] * along_y[..., :, None] * along_x[..., None, :]


class NormalizedDepth(NamedTuple):
    """A depth map as the networks see it, and the metric number that was taken out of it."""

    relative: Tensor  # float32 [B 1 s s], -1..1; 0 where unknown
    valid: Tensor  # bool [B 1 s s]
    centre_m: Tensor  # float32 [B], the person's depth; 0 where the whole map is unknown
    has_depth: Tensor  # bool [B]


def normalize_depth(
    depth_m: Tensor | None,
    keypoints_px: Tensor,
    keypoint_score: Tensor,
    *,
    input_size: int,
    map_size: int,
    range_m: float,
) -> NormalizedDepth:
    """Metric depth -> depth relative to the person's, clipped to +-`range_m` and scaled to -1..1, with a valid mask.

    depth_m: [B 1 h w] metres, 0 = unknown; None = unknown everywhere. keypoints_px: [B Jin 2], px of the `input_size`
    square the map spans. keypoint_score: [B Jin], 0 where missing. map_size: side s of the result.

    Dividing by a fixed range (0..10 m, say) would leave an arm stretched to the camera a change of a few per cent, and
    scaling each map to its own minimum and maximum would throw the metres away. So the person's depth is taken out and
    handed on beside the map: `centre_m`, the median of the depths under confident keypoints, which neither walls nor
    holes move (the median of the map's middle where fewer than DEPTH_JOINTS are known). Within `range_m` of it
    differences stay metric; what is further is background or foreground, and only that it is so is kept. Unknown pixels
    and maps stay marked: the caller puts learned values in their place.
    """
    if depth_m is None:
        depth_m = keypoints_px.new_zeros(len(keypoints_px), 1, 1, 1)
    known = depth_m > 0
    centre_m = _person_depth(depth_m, keypoints_px, keypoint_score, input_size)
    resized_m = F.interpolate(depth_m, size=(map_size, map_size), mode="nearest-exact")
    valid = resized_m > 0
    relative = ((resized_m - centre_m[:, None, None, None]) / range_m).clamp(-1.0, 1.0) * valid
    return NormalizedDepth(relative, valid, centre_m, known.flatten(1).any(1))


def _person_depth(depth_m: Tensor, keypoints_px: Tensor, keypoint_score: Tensor, input_size: int) -> Tensor:
    """[B] metres; 0 where nothing is known."""
    at_joints = sample_map(depth_m, keypoints_px, input_size)[..., 0]
    at_joints = at_joints.where((keypoint_score >= CONFIDENT) & (at_joints > 0), torch.nan)
    height, width = depth_m.shape[-2:]
    middle = depth_m[..., height // 4 : height - height // 4, width // 4 : width - width // 4].flatten(1)
    middle_m = middle.where(middle > 0, torch.nan).nanmedian(1).values
    anywhere = depth_m.flatten(1)
    anywhere_m = anywhere.where(anywhere > 0, torch.nan).nanmedian(1).values
    enough = at_joints.isfinite().sum(1) >= DEPTH_JOINTS
    centre_m = at_joints.nanmedian(1).values.where(enough, middle_m)
    return centre_m.where(centre_m.isfinite(), anywhere_m).nan_to_num(0.0)


def sample_map(values: Tensor, points_px: Tensor, input_size: int) -> Tensor:
    """[B C h w] map of the `input_size` square, [B J 2] px -> [B J C], nearest cell; 0 off the map."""
    grid = (2.0 * points_px + 1.0) / input_size - 1.0
    sampled = F.grid_sample(values, grid[:, None], mode="nearest", padding_mode="zeros", align_corners=False)
    return sampled[:, :, 0].transpose(1, 2)


class Cues(NamedTuple):
    """What a network sees of a batch beside its image; every absent value is a learned one."""

    heatmaps: Tensor  # [B Jin h w]
    depth: Tensor  # [B 1 s s]: relative depth, the learned value where unknown
    depth_valid: Tensor  # float [B 1 s s]
    joints: Tensor  # [B Jin JOINT_CUES]
    view: Tensor  # [B VIEW_CUES]
    depth_width_m: Tensor  # [B], width of the view at the person's depth, by the depth map; 0 where there is none

    def flat(self) -> Tensor:
        """[B Jin * JOINT_CUES + VIEW_CUES]"""
        return torch.cat([self.joints.flatten(1), self.view], dim=1)


class CueEncoder(nn.Module):
    """PoseBatch -> Cues. Owns the learned stand-ins for depth and keypoints that are not there."""

    def __init__(self, config: ImageModelConfig, depth_map_size: int) -> None:
        super().__init__()
        self.input_size, self.range_m, self.use_depth = config.input_size, config.depth_range_m, config.use_depth
        self.depth_map_size = depth_map_size
        self.heatmaps = GaussianHeatmapGenerator(config.input_size, config.heatmap_stride, config.heatmap_sigma)
        joints = len(get_skeleton(config.keypoint_skeleton))
        self.absent_heatmap = nn.Parameter(torch.zeros(joints))
        self.absent_joint = nn.Parameter(torch.zeros(joints, JOINT_CUES))
        self.absent_depth = nn.Parameter(torch.zeros(()))
        self.absent_joint_depth = nn.Parameter(torch.zeros(()))
        self.absent_width = nn.Parameter(torch.tensor(math.log(TYPICAL_VIEW_M)))

    def forward(self, batch: PoseBatch) -> Cues:
        missing = ~batch.keypoint_mask
        depth = normalize_depth(
            batch.depth_m if self.use_depth else None,
            batch.keypoints_px,
            batch.keypoint_score * batch.keypoint_mask,
            input_size=self.input_size,
            map_size=self.depth_map_size,
            range_m=self.range_m,
        )
        heatmaps = self.heatmaps(batch.keypoints_px, batch.keypoint_score, batch.keypoint_mask)
        view, depth_width_m = self._view(depth, batch.intrinsics)
        return Cues(
            heatmaps=heatmaps + (missing * self.absent_heatmap)[..., None, None],
            depth=depth.relative.where(depth.valid, self.absent_depth),
            depth_valid=depth.valid.float(),
            joints=self._joints(batch, depth, view).where(batch.keypoint_mask[..., None], self.absent_joint),
            view=view,
            depth_width_m=depth_width_m,
        )

    def _joints(self, batch: PoseBatch, depth: NormalizedDepth, view: Tensor) -> Tensor:
        at_joints = torch.cat([depth.relative, depth.valid.float()], dim=1)
        relative, known = sample_map(at_joints, batch.keypoints_px, self.input_size).unbind(-1)
        relative = relative.where(known > 0, self.absent_joint_depth)
        xy = (2.0 * batch.keypoints_px + 1.0) / self.input_size - 1.0
        # Where the keypoint would be at the person's depth: the product is not left to the network to discover.
        xy_m = xy * (view[:, 1].exp() / 2.0)[:, None, None]
        return torch.cat([xy, xy_m, torch.stack([batch.keypoint_score, relative, known], dim=-1)], dim=-1)

    def _view(self, depth: NormalizedDepth, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
        # The focal length says how strong the perspective is: a near limb looks the larger, the wider the lens.
        focal = focal_px(intrinsics) / self.input_size
        width_m = depth.centre_m / focal
        log_width = width_m.clamp(min=1e-3).log().where(depth.has_depth, self.absent_width)
        return torch.stack([focal.log(), log_width, depth.has_depth.float()], dim=-1), width_m


class PoseRegressionHead(nn.Module):
    """Features and cues -> PosePrediction, through a residual MLP (after Martinez et al. 2017, "A simple yet effective
    baseline") and the camera.

    The joints are predicted in metres, in the frame of a camera at the same place that looks at the middle of the
    view, then turned into the real one: the picture of a person shows the pose relative to the ray that sees it.

    The root is predicted as its place (u, v) in the view, -1..1, and the width of the view at the root's depth,
    w = z S / f metres. A crop's zoom changes f and w together, never the z they stand for. Where there is a depth map
    it has its own estimate of w; a learned gate weighs that, corrected, against the one from the picture.
    """

    def __init__(self, config: ImageModelConfig, features: int) -> None:
        super().__init__()
        skeleton = get_skeleton(config.skeleton)
        inputs = features + len(get_skeleton(config.keypoint_skeleton)) * JOINT_CUES + VIEW_CUES
        self.input_size, self.root_index = config.input_size, skeleton.root_index
        self.enter = nn.Linear(inputs, config.head_width)
        self.blocks = nn.Sequential(
            *(ResidualMLP(config.head_width, config.dropout) for _ in range(config.head_blocks))
        )
        self.norm = nn.LayerNorm(config.head_width)
        self.joints = nn.Linear(config.head_width, len(skeleton) * 3)
        self.root = nn.Linear(config.head_width, 5)  # u, v, log w from the picture, correction of the depth's, gate
        for last in (self.joints, self.root):
            nn.init.normal_(last.weight, std=0.01)
            nn.init.zeros_(last.bias)

    def forward(self, features: Tensor, cues: Cues, intrinsics: Tensor) -> PosePrediction:
        """features: [B F]; intrinsics: [B 3 3] of the model input."""
        hidden = self.norm(self.blocks(self.enter(torch.cat([features, cues.flat()], dim=1))))
        joints_view_m = self.joints(hidden).float().unflatten(1, (-1, 3))
        joints_view_m = joints_view_m - joints_view_m[:, self.root_index, None]
        u, v, log_width, correction, gate = self.root(hidden).float().unbind(1)
        root_px = ((torch.stack([u, v], dim=-1) + 1.0) * self.input_size - 1.0) / 2.0
        width_m = _blend_width(log_width, correction, gate, cues.depth_width_m)
        root_cam_m = place_root(root_px, width_m, intrinsics, self.input_size)
        return PosePrediction(view_to_camera(joints_view_m, intrinsics, self.input_size), root_cam_m)


class ResidualMLP(nn.Module):
    """x + two layers of it."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _blend_width(seen: Tensor, correction: Tensor, gate: Tensor, depth_width_m: Tensor) -> Tensor:
    """[B] width of the view at the root, metres: the picture's estimate and the depth map's, mean of the logarithms."""
    log_seen = seen + math.log(TYPICAL_VIEW_M)
    log_measured = depth_width_m.clamp(min=1e-3).log() + correction
    trust = torch.sigmoid(gate) * (depth_width_m > 0)
    return torch.lerp(log_seen, log_measured, trust).clamp(-4.0, 6.0).exp()


def focal_px(intrinsics: Tensor) -> Tensor:
    """[B 3 3] -> [B]: the geometric mean of both axes' focal lengths, unchanged by turning the image."""
    a, b, c, d = intrinsics[:, :2, :2].flatten(1).unbind(1)
    return (a * d - b * c).abs().sqrt()


def pixel_to_ray(points_px: Tensor, intrinsics: Tensor) -> Tensor:
    """[B 2] pixels -> [B 2]: x/z and y/z of the ray through each; K may have any invertible 2x2 block."""
    a, b, c, d = intrinsics[:, :2, :2].flatten(1).unbind(1)
    x, y = (points_px - intrinsics[:, :2, 2]).unbind(1)
    return torch.stack([d * x - b * y, a * y - c * x], dim=-1) / (a * d - b * c)[:, None]


def place_root(root_px: Tensor, width_m: Tensor, intrinsics: Tensor, input_size: int) -> Tensor:
    """[B 2] px of the model input, [B] width of the view at the root, metres -> [B 3] metres, camera frame."""
    z_m = (width_m * focal_px(intrinsics) / input_size)[:, None]
    return torch.cat([pixel_to_ray(root_px, intrinsics) * z_m, z_m], dim=-1)


def view_to_camera(points_view_m: Tensor, intrinsics: Tensor, input_size: int) -> Tensor:
    """[B J 3] offsets in the frame that looks at the view's middle -> in the camera frame, by the smallest rotation.

    Written out, not as a matrix product: autocast would round that to 16 bits.
    """
    return (view_rotation(intrinsics, input_size)[:, None] * points_view_m[:, :, None]).sum(-1)


def view_rotation(intrinsics: Tensor, input_size: int) -> Tensor:
    """[B 3 3] -> [B 3 3]: the smallest rotation from the frame that looks at the view's middle to the camera's."""
    middle = torch.full_like(intrinsics[:, :2, 2], (input_size - 1) / 2.0)
    ray = pixel_to_ray(middle, intrinsics)
    x, y, z = F.normalize(torch.cat([ray, torch.ones_like(ray[:, :1])], dim=-1), dim=-1).unbind(1)
    return torch.stack(
        [1 - x * x / (1 + z), -x * y / (1 + z), x, -x * y / (1 + z), 1 - y * y / (1 + z), y, -x, -y, z], dim=-1
    ).unflatten(1, (3, 3))


def scale_image(image: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """uint8 [B 3 S S] -> float32 in -1..1, as timm's vision transformers were trained."""
    return (
        image.to(torch.float32, memory_format=memory_format).div_(127.5).sub_(1.0)
    )  # in place: a copy costs a CPU as much as a convolution
