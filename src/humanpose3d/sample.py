"""The one record that crosses every stage, at its three ages: LabelledFrame -> PoseSample -> PoseBatch.

Every shape, unit and frame of the toolkit's data is written here and nowhere else. Metres, radians, pixels.
A missing joint is NaN with score 0; an absent field is None.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from humanpose3d.camera import Camera

if TYPE_CHECKING:
    import torch

GENDERS = ("neutral", "female", "male")  # of SMPL's bodies
SCHEMA_VERSION = 1  # of a sample's metadata in a chunk; raised when a reader of the old one would misread the new


@dataclass(frozen=True, eq=False)
class KeypointTrack:
    """2D keypoints that a corpus brings itself: one person through a take, in the image of one camera."""

    skeleton: str
    points: np.ndarray  # float32 [N Jin 3]: x, y (pixels), score; NaN and 0 where missing; a row for each frame

    def around(self, row: int, frames: int) -> np.ndarray:
        """float32 [frames Jin 3]: the rows around one, `frames` odd; NaN and score 0 beyond the take's ends."""
        window = np.full((frames, *self.points.shape[1:]), (np.nan, np.nan, 0.0), dtype=np.float32)
        first = row - frames // 2
        start, stop = max(first, 0), min(first + frames, len(self.points))
        window[start - first : stop - first] = self.points[start:stop]
        return window


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """One labelled person in one image of a raw corpus, as a reader in `sources/` finds it."""

    image_path: Path | None  # relative to the images folder; the sidecar has the same path in the processed folder.
    # A frame of a video is a path below the video's: "S1/Videos/Directions 1.54138969.mp4/000123" (see video.py).
    # None for motion without pictures: then `keypoint_track` is there, and `image_size_wh` and `camera` are virtual
    key: str  # `make_key`'s
    corpus: str
    subject: str  # normalised: "S9", "TS3"
    action: str
    camera_id: str
    frame_index: int  # 0-based, in the take
    fps: float | None
    skeleton: str
    joints_cam_m: np.ndarray | None  # float32 [J 3], camera frame
    joints_px: np.ndarray | None  # float32 [J 2], whole image
    joint_score: np.ndarray  # float32 [J], 0 missing, 1 labelled
    camera: Camera | None
    box_px: np.ndarray  # float32 [4], x0 y0 x1 y1, whole image
    valid: bool = True
    source_file: str = ""  # the annotation file the label comes from
    image_size_wh: tuple[int, int] | None = None  # where the corpus tells it; needed only where the image is missing
    head_size_px: float | None = None
    smpl_pose_rad: np.ndarray | None = None  # float32 [24 3], axis-angle; the root's orientation in the camera frame
    smpl_betas: np.ndarray | None = None  # float32 [10]
    smpl_trans_m: np.ndarray | None = None  # float32 [3], camera frame
    gender: str | None = None  # "female", "male" or "neutral"
    keypoint_track: KeypointTrack | None = None  # the corpus's own keypoints; shared by the frames of a take
    track_row: int = 0  # this frame's, in it


@dataclass(frozen=True, eq=False)
class PoseSample:
    """One person in one image. Arrays are NumPy; J joints in `skeleton`, Jin in `keypoint_skeleton`."""

    key: str
    image: np.ndarray | None = None  # uint8 [H W 3] RGB
    image_size_wh: tuple[int, int] = (0, 0)  # of the stored image, known also where it is not decoded
    depth_m: np.ndarray | None = (
        None  # float32 [h w], camera z in metres, 0 = unknown; spans the image at its own scale
    )
    keypoints_px: np.ndarray | None = None  # float32 [Jin 2], in this image's pixels
    keypoint_score: np.ndarray | None = None  # float32 [Jin], the estimator's raw confidence
    keypoint_skeleton: str | None = None
    keypoint_window: np.ndarray | None = (
        None  # float32 [T Jin 3]: x, y (this image's pixels), score; frames around this one
    )
    window_fps: float | None = None
    joints_px: np.ndarray | None = None  # float32 [J 2]
    joints_cam_m: np.ndarray | None = None  # float32 [J 3], camera frame: x right, y down, z forward
    joint_score: np.ndarray | None = None  # float32 [J]: 0 missing, else visibility or confidence of the label
    joint_in_view: np.ndarray | None = None  # bool [J]: the 2D joint lies on this image; its 3D label stays either way
    skeleton: str | None = None
    camera: Camera | None = None  # of this stored image
    box_px: np.ndarray | None = None  # float32 [4]: x0 y0 x1 y1 of the person, clipped to the image
    head_size_px: float | None = None
    smpl_pose_rad: np.ndarray | None = None  # float32 [24 3], axis-angle; the root's orientation in the camera frame
    smpl_betas: np.ndarray | None = None  # float32 [10]
    smpl_trans_m: np.ndarray | None = (
        None  # float32 [3], camera frame: the body is R_root (v - J_root) + J_root + trans
    )
    gender: str | None = None  # "female", "male" or "neutral"
    corpus: str = ""
    subject: str = ""
    action: str = ""
    camera_id: str = ""
    frame_index: int = 0
    fps: float | None = None
    valid: bool = True  # counts in the corpus's official evaluation
    synthetic: bool = False  # the picture was missing: a plain one with the label drawn stands in; never evaluated
    provenance: dict[str, Any] = field(default_factory=dict)

    def with_(self, **changes: Any) -> PoseSample:
        """A new record with some fields replaced."""
        # Once or more a sample in training: `dataclasses.replace` takes seven times as long.
        record = object.__new__(PoseSample)
        record.__dict__.update(self.__dict__, **changes)
        assert len(record.__dict__) == len(self.__dict__), f"no such field: {changes.keys() - self.__dict__.keys()}"
        return record


@dataclass(frozen=True, eq=False)
class PoseBatch:
    """A batch on one device. Masks are made once, in the collator; a masked entry holds zeros, never NaN."""

    keys: list[str]
    subjects: list[str]
    actions: list[str]
    counted: torch.Tensor  # bool [B]; False for the repeats that fill up the last batch of an evaluation
    image: torch.Tensor | None  # uint8 [B 3 H W] RGB, channels last in memory
    depth_m: torch.Tensor | None  # float32 [B 1 h w], 0 = unknown (all of it where a sample has no depth)
    keypoints_px: torch.Tensor  # float32 [B Jin 2], in pixels of the H x W model input
    keypoint_score: torch.Tensor  # float32 [B Jin], 0 where missing
    keypoint_mask: torch.Tensor  # bool [B Jin]
    intrinsics: torch.Tensor  # float32 [B 3 3], of the model input; where unknown, a default field of view
    image_size_wh: torch.Tensor  # float32 [B 2], W and H of the model input
    joints_px: torch.Tensor | None  # float32 [B J 2]
    joints_cam_m: torch.Tensor | None  # float32 [B J 3], camera frame; None without labels
    joint_mask: torch.Tensor | None  # bool [B J], the 3D label exists
    joint_in_view: torch.Tensor | None  # bool [B J], the 2D label exists and lies in the view
    # A keypoint lifter's: depth around each keypoint in place of a map, and the frames around the sample's own.
    keypoint_depth_m: torch.Tensor | None = None  # float32 [B Jin 2], camera z and its spread
    keypoint_depth_mask: torch.Tensor | None = None  # bool [B Jin]
    keypoint_window: torch.Tensor | None = None  # float32 [B T Jin 3], x, y, score; the own frame in the middle
    window_mask: torch.Tensor | None = None  # bool [B T Jin]
    window_time_s: torch.Tensor | None = None  # float32 [B T], seconds from the own frame
    joint_px_mask: torch.Tensor | None = None  # bool [B J], the 2D label exists, in the view or not
    head_size_px: torch.Tensor | None = None  # float32 [B], of the model input; 0 where unknown
    # A body model's.
    smpl_pose_rad: torch.Tensor | None = None  # float32 [B 24 3], axis-angle; the root's in the camera frame
    smpl_betas: torch.Tensor | None = None  # float32 [B 10]
    smpl_mask: torch.Tensor | None = None  # bool [B], pose and shape are labelled
    smpl_gender: torch.Tensor | None = None  # int64 [B], into GENDERS; -1 unknown

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> PoseBatch:
        """The same batch on another device. (Lightning calls this by name.)"""
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if hasattr(value, "to")
        }
        return replace(self, **moved)

    def pin_memory(self) -> PoseBatch:
        """The same batch in page-locked memory. (The DataLoader calls this by name.)"""
        pinned = {name: value.pin_memory() for name, value in vars(self).items() if hasattr(value, "pin_memory")}
        return replace(self, **pinned)


def make_key(*parts: str | int) -> str:
    """A sample's name from its parts: unique if they are, no dot, slash or space (WebDataset cuts at the first dot).

    make_key("h36m", "S9", "Directions 1", 54138969, "000123", "p0") -> "h36m-S9-Directions_1-54138969-000123-p0"
    """
    return "-".join(re.sub(r"[^A-Za-z0-9_]+", "_", str(part)) for part in parts)


def normalise_subject(name: str | int) -> str:
    """'9', 's9', 'S09' and 9 -> 'S9'; 'ts3' -> 'TS3'; any other name as it is. One subject, one spelling."""
    match = re.fullmatch(r"([A-Za-z]*)0*(\d+)", str(name).strip())
    if not match or match[1].upper() not in ("", "S", "TS"):
        return str(name).strip()
    return f"{match[1].upper() or 'S'}{match[2]}"


def subjects_asked_for(request: str | int, present: Collection[str]) -> list[str]:
    """The subjects among `present` that one request means, sorted; empty where there are none.

    A name in any spelling ("9", "s9", "S9"); either part of a two-part name ("train", "courtyard_golf_00" and
    "train/courtyard_golf_00" all mean the last); a range of samples "0-9999" means all blocks of samples inside it,
    such as "training/0-999".
    ValueError: a range that cuts a block.
    """
    name = normalise_subject(request)
    found = [subject for subject in present if name == subject or name in subject.split("/")]
    if asked := _sample_range(name):
        for subject in present:
            block = _sample_range(subject.rpartition("/")[2])
            if block is None or block[1] < asked[0] or block[0] > asked[1] or subject in found:
                continue
            if block[0] < asked[0] or block[1] > asked[1]:
                raise ValueError(f"the range {name} cuts the block of samples {subject}; end it where a block ends")
            found.append(subject)
    return sorted(found)


def _sample_range(name: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)-(\d+)", name)
    return (int(match[1]), int(match[2])) if match else None
