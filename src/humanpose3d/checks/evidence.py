"""What the doctor looks at: the labels, keypoints and cameras of samples, without their pictures.

Who reads the samples, and how many of them are kept (about 2 kB each), is the caller's choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from humanpose3d.camera import Camera
from humanpose3d.sample import PoseSample


@dataclass(frozen=True, eq=False)
class Witness:
    """What one sample tells. Fields as in PoseSample, and of the same image as one another."""

    key: str
    corpus: str
    subject: str
    camera_id: str
    action: str
    frame_index: int
    fps: float | None
    skeleton: str | None
    joints_cam_m: np.ndarray | None  # [J 3]
    joints_px: np.ndarray | None  # [J 2]
    joint_score: np.ndarray | None  # [J]
    keypoint_skeleton: str | None
    keypoints_px: np.ndarray | None  # [Jin 2]; of an unmatched frame, the detection nearest to the label
    keypoint_score: np.ndarray | None  # [Jin]
    camera: Camera | None
    image_size_wh: tuple[int, int]
    box_px: np.ndarray | None  # [4]
    valid: bool
    synthetic: bool
    image_file: str  # the picture it was cut from, as its provenance tells; "" where it does not
    has_depth: bool
    matched: bool  # False: the chunker left the frame out, because no detection fits its label
    split: str | None  # "train", "test" or None
    depth_at_joints_m: np.ndarray | None  # float32 [J]: the depth map at the labelled joints' pixels; NaN off it
    image_hash: int | None  # 64-bit perceptual hash of the picture
    smpl_root_rad: np.ndarray | None  # [3] axis-angle

    @property
    def person(self) -> str:
        """The person's number in the picture, from the key's last part: "p0"."""
        last = self.key.rsplit("-", 1)[-1]
        return last if last[:1] == "p" and last[1:].isdigit() else ""


class Evidence:
    """Witnesses, in the order they were heard."""

    def __init__(self) -> None:
        self.witnesses: list[Witness] = []

    def __len__(self) -> int:
        return len(self.witnesses)

    def __iter__(self) -> Iterator[Witness]:
        return iter(self.witnesses)

    def add(
        self,
        sample: PoseSample,
        *,
        matched: bool = True,
        split: str | None = None,
        depth_at_joints_m: np.ndarray | None = None,
        image_hash: int | None = None,
    ) -> None:
        """Keeps what counts of a sample; its picture, depth map and window are let go."""
        self.witnesses.append(
            Witness(
                key=sample.key,
                corpus=sample.corpus,
                subject=sample.subject,
                camera_id=sample.camera_id,
                action=sample.action,
                frame_index=sample.frame_index,
                fps=sample.fps,
                skeleton=sample.skeleton,
                joints_cam_m=sample.joints_cam_m,
                joints_px=sample.joints_px,
                joint_score=sample.joint_score,
                keypoint_skeleton=sample.keypoint_skeleton,
                keypoints_px=sample.keypoints_px,
                keypoint_score=sample.keypoint_score,
                camera=sample.camera,
                image_size_wh=sample.image_size_wh,
                box_px=sample.box_px,
                valid=sample.valid,
                synthetic=sample.synthetic,
                image_file=str(sample.provenance.get("image_file", "")),
                has_depth=sample.depth_m is not None,
                matched=matched,
                split=split,
                depth_at_joints_m=depth_at_joints_m,
                image_hash=image_hash,
                smpl_root_rad=None if sample.smpl_pose_rad is None else sample.smpl_pose_rad[0],
            )
        )
