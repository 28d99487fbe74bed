"""One labelled frame -> one encoded sample: the image read, the detection joined, the person cropped.

Which frames there are is `sources/`', which person is theirs `matching.py`'s, the bytes `codec.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from humanpose3d.chunks.codec import BadSample, encode_sample
from humanpose3d.chunks.matching import Tracks, nearest_person
from humanpose3d.images import UnreadableImage, image_bytes, plain_jpeg, read_image
from humanpose3d.sample import LabelledFrame, PoseSample
from humanpose3d.sidecars import Person, Sidecar, read_sidecar
from humanpose3d.skeletons import convert, get_skeleton
from humanpose3d.warp import clip_box, crop_person, in_view, warp_sample

GREY = 128  # of the picture that stands in for a missing one
LEFT_RGB, RIGHT_RGB, CENTRE_RGB = (230, 97, 1), (94, 60, 153), (40, 40, 40)  # told apart by the colour-blind too


class Unmatched(BadSample):
    """A frame whose label fits no detection. `sample` is what is known of it, for the doctor: no picture."""

    def __init__(self, key: str, reason: str, sample: PoseSample) -> None:
        super().__init__(key, reason)
        self.sample = sample

    def __reduce__(self) -> tuple[Any, ...]:  # crosses from a worker to its parent
        return Unmatched, (self.key, self.reason, self.sample)


@dataclass(frozen=True)
class SampleMaker:
    """LabelledFrame -> an encoded sample. Goes to worker processes as it is."""

    images_path: Path
    processed_path: Path
    crop: str  # "person" or "none"
    image_size: int  # px, side of a crop
    margin: float
    depth_scale: float
    jpeg_quality: int
    window: int  # frames, odd; 0 for none
    match_threshold: float  # share of the person's size
    cues: (
        str  # "require" or "optional": whether a frame without a matching detection is kept; "own": frames bring theirs
    )
    synthetic_images: bool  # draw a picture where one is missing
    keypoint_skeleton: str | None  # of the sidecars; None where there are none at all

    @cached_property
    def _tracks(self) -> Tracks:
        return Tracks(self.window)

    def make(self, frame: LabelledFrame) -> dict[str, bytes]:
        """The members of the frame's sample. BadSample says why there is none."""
        if frame.image_path is None:
            return encode_sample(self._without_picture(frame))
        image_path = self.images_path / frame.image_path
        if image_bytes(image_path) < 0:
            if not self.synthetic_images:
                raise BadSample(frame.key, "no image")
            return self._encode(self._synthetic(frame), None)
        stem = self.processed_path / frame.image_path.with_suffix("")
        sidecar = self._sidecar(frame, stem)
        try:
            image = read_image(image_path)  # as preprocess.py read it, so that the keypoints fit
        except UnreadableImage:
            raise BadSample(frame.key, "unreadable image") from None
        size_wh = (image.shape[1], image.shape[0])
        if sidecar is not None and size_wh != tuple(sidecar.image_size_wh):
            raise BadSample(frame.key, "its sidecar is of an image of another size")
        person = None if sidecar is None else self._person(frame, sidecar)
        sample = _join(frame, sidecar, person, size_wh, self.keypoint_skeleton).with_(image=image)
        if self.window and self.keypoint_skeleton:
            track = self._tracks.around(stem, person, self.keypoint_skeleton)
            sample = sample.with_(keypoint_window=track, window_fps=frame.fps)
        return self._encode(sample, image_path)

    def _sidecar(self, frame: LabelledFrame, stem: Path) -> Sidecar | None:
        try:
            sidecar = read_sidecar(stem)
        except FileNotFoundError:
            if self.cues == "optional":
                return None
            raise BadSample(frame.key, "no sidecar of preprocess.py") from None
        except ValueError:
            raise BadSample(frame.key, "broken sidecar; run preprocess.py --overwrite") from None
        if sidecar.keypoint_skeleton != self.keypoint_skeleton:
            reason = f"its keypoints are {sidecar.keypoint_skeleton}, the others' {self.keypoint_skeleton}"
            raise BadSample(frame.key, f"{reason}; run preprocess.py --overwrite")
        return sidecar

    def _person(self, frame: LabelledFrame, sidecar: Sidecar) -> Person | None:
        """The detection that is the labelled person's; without one, Unmatched or None, as `cues` says."""
        person, error = nearest_person(frame, sidecar)
        if error <= self.match_threshold:
            return person
        if self.cues == "optional":
            return None
        if person is None:
            raise BadSample(frame.key, "no person found")
        known = _join(frame, sidecar, person, sidecar.image_size_wh, sidecar.keypoint_skeleton)
        raise Unmatched(frame.key, "no detection matches the label", known.with_(depth_m=None))

    def _without_picture(self, frame: LabelledFrame) -> PoseSample:
        """Motion seen by a virtual camera: label and keypoints in its whole image. There is nothing to crop."""
        track = frame.keypoint_track
        assert track is not None and frame.image_size_wh is not None
        here = track.points[frame.track_row]
        window = track.around(frame.track_row, self.window) if self.window else None
        return _join(frame, None, None, frame.image_size_wh, track.skeleton).with_(
            keypoints_px=here[:, :2],
            keypoint_score=here[:, 2],
            keypoint_window=window,
            window_fps=frame.fps if self.window else None,
        )

    def _synthetic(self, frame: LabelledFrame) -> PoseSample:
        """A plain picture with the labelled skeleton drawn, and the label itself for the detection."""
        size_wh = _image_size(frame)
        sample = _join(frame, None, None, size_wh, self.keypoint_skeleton).with_(
            image=draw_label(frame, size_wh), synthetic=True
        )
        if self.keypoint_skeleton and frame.joints_px is not None:
            keypoints_px = convert(frame.joints_px, frame.skeleton, self.keypoint_skeleton).joints
            score = np.isfinite(keypoints_px).all(-1).astype(np.float32)
            sample = sample.with_(keypoints_px=keypoints_px, keypoint_score=score)
        if self.window and self.keypoint_skeleton:
            track = self._tracks.around(Path(), None, self.keypoint_skeleton)
            sample = sample.with_(keypoint_window=track, window_fps=frame.fps)
        return sample

    def _encode(self, sample: PoseSample, image_path: Path | None) -> dict[str, bytes]:
        if self.crop == "person":
            cropped = crop_person(sample, self.margin, self.image_size, depth_scale=self.depth_scale)
            return encode_sample(cropped, jpeg_quality=self.jpeg_quality)
        image_jpeg = None if image_path is None else plain_jpeg(image_path)
        return encode_sample(self._whole(sample), image_jpeg=image_jpeg, jpeg_quality=self.jpeg_quality)

    def _whole(self, sample: PoseSample) -> PoseSample:
        """The same picture, with the depth map at the size asked for."""
        unmoved = warp_sample(
            sample.with_(image=None), np.eye(2, 3), sample.image_size_wh, depth_scale=self.depth_scale
        )
        return unmoved.with_(image=sample.image)


def draw_label(frame: LabelledFrame, size_wh: tuple[int, int]) -> np.ndarray:
    """uint8 [H W 3] RGB: plain grey, the labelled bones on it, left, right and middle in their own colours."""
    image = np.full((size_wh[1], size_wh[0], 3), GREY, np.uint8)
    if frame.joints_px is None:
        return image
    skeleton = get_skeleton(frame.skeleton)
    colours = {"left": LEFT_RGB, "right": RIGHT_RGB, "centre": CENTRE_RGB}
    thickness = max(round(max(size_wh) / 100), 1)
    for parent, child in skeleton.bones:
        ends = frame.joints_px[[parent, child]]
        if np.isfinite(ends).all() and np.abs(ends).max() < 2**15:
            first, second = (tuple(map(int, np.rint(end))) for end in ends)
            cv2.line(image, first, second, colours[skeleton.sides[child]], thickness, cv2.LINE_AA)
    return image


def _image_size(frame: LabelledFrame) -> tuple[int, int]:
    """(W, H) of the missing image: as the corpus says, else twice the principal point, else what the box needs."""
    if frame.image_size_wh is not None:
        return frame.image_size_wh
    far = frame.box_px[2:] if frame.camera is None else 2.0 * frame.camera.K[:2, 2]
    width, height = np.maximum(np.rint(far), 1).astype(int).tolist()
    return width, height


def _join(
    frame: LabelledFrame,
    sidecar: Sidecar | None,
    person: Person | None,
    size_wh: tuple[int, int],
    keypoint_skeleton: str | None,
) -> PoseSample:
    """Label and detection of one person, in the whole image; without its picture."""
    low, high = frame.box_px[:2], frame.box_px[2:]
    keypoints_px = keypoint_score = None
    if person is not None:
        low, high = np.minimum(low, person.box_px[:2]), np.maximum(high, person.box_px[2:])
        keypoints_px, keypoint_score = person.keypoints_px, person.keypoint_score
    elif keypoint_skeleton is not None:
        joints = len(get_skeleton(keypoint_skeleton))
        keypoints_px, keypoint_score = np.full((joints, 2), np.nan, np.float32), np.zeros(joints, np.float32)
    provenance: dict[str, Any] = {
        "estimators": {} if sidecar is None else sidecar.estimators,
        "source_file": frame.source_file,
    }
    if frame.image_path is not None:
        provenance["image_file"] = frame.image_path.as_posix()
    return PoseSample(
        key=frame.key,
        image_size_wh=size_wh,
        depth_m=None if sidecar is None else sidecar.depth_m,
        keypoints_px=keypoints_px,
        keypoint_score=keypoint_score,
        keypoint_skeleton=keypoint_skeleton,
        joints_px=frame.joints_px,
        joints_cam_m=frame.joints_cam_m,
        joint_score=frame.joint_score,
        joint_in_view=None if frame.joints_px is None else in_view(frame.joints_px, size_wh),
        skeleton=frame.skeleton,
        camera=frame.camera,
        box_px=clip_box(np.concatenate([low, high]), size_wh),
        head_size_px=frame.head_size_px,
        smpl_pose_rad=frame.smpl_pose_rad,
        smpl_betas=frame.smpl_betas,
        smpl_trans_m=frame.smpl_trans_m,
        gender=frame.gender,
        corpus=frame.corpus,
        subject=frame.subject,
        action=frame.action,
        camera_id=frame.camera_id,
        frame_index=frame.frame_index,
        fps=frame.fps,
        valid=frame.valid,
        provenance=provenance,
    )
