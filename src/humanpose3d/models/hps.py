"""Bodies from one picture: pose and shape of SMPL, and where the pelvis is (`BodyConfig` has the numbers).

Two heads on a timm backbone: PARE (Kocabas et al. 2021, "PARE: part attention regressor for 3D human body estimation")
and the iterative regressor of HMR (Kanazawa et al. 2018) as its baseline. The surface is models/smpl_body.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from humanpose3d.model_config import BodyConfig
from humanpose3d.models.common import TYPICAL_VIEW_M, place_root, view_rotation
from humanpose3d.models.smpl_body import BETAS, rotations_from_6d
from humanpose3d.sample import PoseBatch
from humanpose3d.skeletons import SMPL_24

PART_STRIDE = 4  # pixels of the input per cell of the part maps
PARTS = len(SMPL_24)
CAMERA = 3  # u, v of the pelvis in the view, and the width of the view there
UPRIGHT_6D = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # the root of somebody who stands and faces the camera
STRAIGHT_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
START = 0.001  # spread of the last layers' weights at first
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what timm's weights were trained with
HRNET_WEIGHTS = (
    "HRNet's MPII pose network pose_hrnet_w32_256x256.pth is published at github.com/leoxiaobin/"
    "deep-high-resolution-net.pytorch (models, pytorch/pose_mpii)"
)
POSE_HEAD = ("final_layer.",)  # of that file, and of no use here


class BodyPrediction(NamedTuple):
    """What a body regressor answers, camera frame of the batch's `intrinsics`."""

    rotations: Tensor  # float32 [B 24 3 3], each joint's against its parent; the root's in the camera frame
    betas: Tensor  # float32 [B 10]
    root_cam_m: Tensor  # float32 [B 3], the pelvis
    part_maps: Tensor | None = None  # float32 [B 25 h w], logarithms of shares: background, then SMPL_24; PARE's


class BodyRegressor(nn.Module):
    """PoseBatch with pictures -> BodyPrediction."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: BodyConfig, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config.backbone, pretrained)
        channels = self.backbone.feature_info.channels()[-4:]  # type: ignore[union-attr, operator]
        self.head = (PartAttentionHead if config.head == "pare" else IterativeHead)(config, channels)
        self.register_buffer("mean", 255.0 * torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, batch: PoseBatch) -> BodyPrediction:
        assert batch.image is not None
        image = (batch.image.to(torch.float32, memory_format=torch.channels_last) - self.mean) / self.std
        pose_6d, betas, camera, part_maps = self.head(self.backbone(image)[-4:])
        rotations = rotations_from_6d(pose_6d.float())
        # The picture shows the pose relative to the ray that sees it, as with the lifters.
        root = (view_rotation(batch.intrinsics, self.config.input_size)[..., None] * rotations[:, None, 0]).sum(-2)
        rotations = torch.cat([root[:, None], rotations[:, 1:]], dim=1)
        return BodyPrediction(rotations, betas.float(), self._place(camera.float(), batch.intrinsics), part_maps)

    def _place(self, camera: Tensor, intrinsics: Tensor) -> Tensor:
        """The weak-perspective camera (scale 2 / width, shift u v) in the real one: [B 3] metres."""
        u, v, log_width = camera.unbind(1)
        size = self.config.input_size
        root_px = ((torch.stack([u, v], dim=-1) + 1.0) * size - 1.0) / 2.0
        width_m = (TYPICAL_VIEW_M * log_width.clamp(-4.0, 4.0).exp()).float()
        return place_root(root_px, width_m, intrinsics, size)


class PartAttentionHead(nn.Module):
    """PARE's: part maps say where each part is seen, and its features there give its rotation."""

    def __init__(self, config: BodyConfig, channels: list[int]) -> None:
        super().__init__()
        width = config.channels
        self.merge = nn.ModuleList(nn.Conv2d(each, width, 1, bias=False) for each in channels)
        self.norm = nn.BatchNorm2d(width)
        self.parts = nn.Sequential(_convolutions(width), nn.Conv2d(width, PARTS + 1, 1))
        self.features = _convolutions(width)
        self.pose = PartLinear(PARTS, width, len(UPRIGHT_6D))
        self.shape = nn.Linear(PARTS * width, BETAS)
        self.camera = nn.Linear(PARTS * width, CAMERA)
        _start_small(self.shape, self.camera)
        with torch.no_grad():
            self.pose.bias.copy_(torch.tensor([UPRIGHT_6D] + [STRAIGHT_6D] * (PARTS - 1)))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Maps at strides 4 to 32 -> ([B 24 6], betas [B 10], camera [B 3], part maps [B 25 h w])."""
        size = features[0].shape[-2:]
        merged = sum(
            F.interpolate(convolution(each), size, mode="bilinear")
            for convolution, each in zip(self.merge, features, strict=True)
        )
        x = F.relu(self.norm(merged))
        # As probabilities first: what all maps have in common at a place says nothing of one part, and would draw its
        # attention there.
        part_maps = self.parts(x).float().log_softmax(1)
        attention = part_maps[:, 1:].flatten(2).softmax(-1)  # [B 24 hw]
        seen = torch.einsum("bpn,bcn->bpc", attention, self.features(x).flatten(2).float())  # [B 24 C]
        flat = seen.flatten(1)
        return self.pose(seen), self.shape(flat), self.camera(flat), part_maps


class PartLinear(nn.Module):
    """A linear layer of each part's own."""

    def __init__(self, parts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(parts, outputs, inputs) * START)
        self.bias = nn.Parameter(torch.zeros(parts, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B parts inputs] -> [B parts outputs]."""
        return torch.einsum("bpc,poc->bpo", x, self.weight) + self.bias


class IterativeHead(nn.Module):
    """HMR's: from the means of the maps, the answer is improved round by round."""

    start: Tensor

    def __init__(self, config: BodyConfig, channels: list[int]) -> None:
        super().__init__()
        self.rounds = config.rounds
        start = torch.tensor([*UPRIGHT_6D, *STRAIGHT_6D * (PARTS - 1), *[0.0] * (BETAS + CAMERA)])
        self.register_buffer("start", start, persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(sum(channels) + len(start), config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
        )
        self.change = nn.Linear(config.hidden, len(start))
        _start_small(self.change)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, None]:
        """Maps at strides 4 to 32 -> ([B 24 6], betas [B 10], camera [B 3], no part maps)."""
        seen = torch.cat([each.mean((-1, -2)) for each in features], dim=1).float()
        answer = self.start.expand(len(seen), -1)
        for _ in range(self.rounds):
            answer = answer + self.change(self.layers(torch.cat([seen, answer], dim=1)))
        pose, betas, camera = answer.split([6 * PARTS, BETAS, CAMERA], dim=1)
        return pose.unflatten(1, (PARTS, 6)), betas, camera, None


def load_backbone_weights(model: BodyRegressor, path: Path) -> int:
    """Puts a published backbone's weights into a new model; how many tensors were taken.

    HRNet's pose network gives one resolution, so its file lacks what makes the others at the very end: that stays new.
    FileNotFoundError says where they are published. ValueError where they are not of this backbone.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights; {HRNET_WEIGHTS}")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file brings about
        raise ValueError(
            f"{path}: no weights that can be read safely ({type(error).__name__}); {HRNET_WEIGHTS}"
        ) from None
    weights = stored.get("state_dict", stored) if isinstance(stored, Mapping) else {}
    own = model.backbone.state_dict()
    given = {
        name.removeprefix("module."): value
        for name, value in weights.items()
        if isinstance(value, Tensor) and not name.removeprefix("module.").startswith(POSE_HEAD)
    }
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    last = max((name.split(".")[1] for name in own if name.startswith("stage4.")), default="")
    missing = [name for name in missing if not re.match(rf"stage4\.{last}\.fuse_layers\.[123]\.", name)]
    unlike = [name for name in own if name in given and given[name].shape != own[name].shape]
    if missing or unlike:
        first = f"no {missing[0]}" if missing else f"{unlike[0]} of another shape"
        counts = f"{len(missing)} missing, {len(unlike)} unlike"
        raise ValueError(f"{path}: not the weights of {model.config.backbone} ({first}; {counts})")
    taken = {name: value for name, value in given.items() if name in own}
    model.backbone.load_state_dict(taken, strict=False)
    return len(taken)


def _backbone(name: str, pretrained: bool) -> nn.Module:
    import timm

    options: dict[str, Any] = {"feature_location": ""} if name.startswith("hrnet") else {}  # the branches as they are
    try:
        return timm.create_model(name, features_only=True, pretrained=pretrained, **options)
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        raise ValueError(f"timm has no backbone '{name}'; hrnet_w32, hrnet_w18_small or resnet50, say") from None


def _convolutions(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _start_small(*layers: nn.Linear) -> None:
    """So that training begins at the mean answer."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=START)
        nn.init.zeros_(layer.bias)
