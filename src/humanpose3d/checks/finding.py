"""What the doctor says: one `Finding` per fault, with the name it goes by and the subject and camera it is of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ERROR, NOTE = "error", "note"

# Every name a finding can have, and what it means. `Finding.fault` is one of them.
FAULTS: dict[str, str] = {
    "sides_swapped": "left and right are swapped, in the labels or in the keypoints",
    "camera_rotation": "the camera's rotation is transposed, or another camera's",
    "camera_position": "the camera's translation follows another convention, or is another camera's",
    "units": "millimetres where metres belong, or the reverse",
    "scale": "joints or camera are a few per cent too large or too small",
    "time_shift": "labels belong to another frame of the take",
    "place_shift": "the labels of a take lie beside the person by a constant step in space",
    "joint_order": "joints are stored in another order than declared",
    "legacy_joint_list": "joints are those of the widely copied wrong list of MPI-INF-3DHP, declared as the true ones",
    "mixed_skeletons": "one corpus holds samples of several joint orders",
    "principal_point": "the principal point is off, as after a crop that forgot to move it",
    "focal_length": "the focal length is off, as after a resize that forgot to scale it",
    "label_noise": "labelled joints scatter: bones change their lengths from frame to frame",
    "reprojection": "3D labels do not project on the 2D ones, and nothing above explains it",
    "keypoint_residual": "keypoints lie beside the 2D labels, and nothing above explains it",
    "bone_lengths": "bones of lengths no human has, or unlike the subject's own",
    "behind_camera": "labelled joints lie behind the camera",
    "off_image": "labelled people lie off the image",
    "wrong_person": "labels are matched to somebody else's keypoints",
    "keypoints_zeroed": "keypoints were set to zero",
    "depth_scale": "the depth map is off the labelled depth by a factor or a step",
    "body_frame": "SMPL's root orientation is in the world's frame, not in the camera's",
    "duplicates": "the same picture and label under several keys",
    "split_leak": "a subject, sequence or picture on both sides of the split",
    "missing_fields": "fields that the corpus's other samples have are missing",
    "unreadable": "samples or chunks cannot be read",
    "unmatched": "frames are left out because no detection fits the label, and nothing above explains it",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    fault: str  # one of FAULTS
    corpus: str
    subject: str | None  # None: all of them
    camera_id: str | None  # None: all of them
    action: str | None = None  # a take, where the fault is of one
    message: str = ""  # one line in words: what, how much, against what, what to do
    measured: float | None = None
    expected: float | None = None
    unit: str = ""
    samples: int = 0  # that it rests on
    severity: str = ERROR  # "error" -> exit code 1; "note" -> told, exit code 0
    worst: tuple[str, ...] = ()  # keys of the worst samples

    def __post_init__(self) -> None:
        assert self.fault in FAULTS, self.fault

    @property
    def where(self) -> str:
        """'human36m S5, camera 54138969, Walking 1'."""
        parts = [f"{self.corpus} {self.subject or '(all subjects)'}", f"camera {self.camera_id or '(all)'}"]
        return ", ".join([*parts, *([self.action] if self.action else [])])

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
