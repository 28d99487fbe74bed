"""Human3.6M's poses as the corpus gives them out, a sequence of 32 joints in the world a take -> LabelledFrames.

From .cdf files (millimetres) or from VideoPose3D's data_3d_h36m.npz (metres); 17 of the 32 joints are kept. They hold
neither pictures nor cameras: those come from `human36m_takes` and `human36m_cameras`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel, world_to_camera
from humanpose3d.sample import LabelledFrame, make_key, normalise_subject
from humanpose3d.skeletons import H36M_17, H36M_32, shared_joints
from humanpose3d.sources.human36m_cameras import Rig
from humanpose3d.sources.human36m_takes import (
    CAMERA_IDS,
    EVERYTHING,
    FPS,
    Asked,
    Take,
    find_pictures,
    find_take,
    official_video,
    readable_frames,
)
from humanpose3d.sources.reading import BrokenFile, field, read_npz, shaped

POSE_FOLDERS = ("MyPoseFeatures/D3_Positions", "Poses_D3_Positions")  # of the archives, of those unpacked by h36m-fetch
NPZ = "data_3d_h36m.npz"
BOX_ENLARGED = 1.2  # a person's box against the joints' own
NO_CAMERA, NO_VIDEO, VIDEO_ENDS = "no camera parameters", "its video cannot be read", "beyond the end of its video"
BEHIND = "no joint lies before the camera"

_KEPT, _IN_17 = shared_joints(H36M_32, H36M_17)


@dataclass(frozen=True)
class PoseSequence:
    """The poses of one take."""

    take: Take
    source: str  # the name of their file
    load: Callable[[], np.ndarray]  # -> float64 [T 32 3], world, metres; BrokenFile


class PoseFiles(Protocol):
    """Where sequences come from: a folder of .cdf files or an .npz."""

    def subjects(self) -> list[str]:
        """Those with poses."""

    def sequences(self, subject: str) -> list[PoseSequence]:
        """Those of one of them, by take."""


@dataclass(frozen=True)
class CdfFiles:
    """S1/MyPoseFeatures/D3_Positions/Directions 1.cdf: variable Pose, 1 x T x 96, millimetres."""

    root: Path

    def subjects(self) -> list[str]:
        return list(self._folders())

    def sequences(self, subject: str) -> list[PoseSequence]:
        paths = [path for path in self._folders()[subject].glob("*.cdf") if not path.stem.startswith(EVERYTHING)]
        files = sorted((find_take(subject, path.stem), path) for path in paths)
        return [
            PoseSequence(take, path.relative_to(self.root).as_posix(), partial(_joints_of_cdf, path))
            for take, path in files
        ]

    def _folders(self) -> dict[str, Path]:
        """Of each subject's files."""
        found: dict[str, Path] = {}
        for below in POSE_FOLDERS:
            for folder in sorted(self.root.glob(f"[Ss]*/{below}")):
                if next(folder.glob("*.cdf"), None) is not None:
                    found.setdefault(normalise_subject(folder.relative_to(self.root).parts[0]), folder)
        return found


class NpzFile:
    """data_3d_h36m.npz: positions_3d, {subject: {take: T x 32 x 3 metres}}. All of it is read at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        positions = field(path, read_npz(path), "positions_3d", "expected VideoPose3D's positions_3d")
        subjects = positions.item() if isinstance(positions, np.ndarray) and positions.shape == () else None
        if not isinstance(subjects, dict) or not all(isinstance(takes, dict) for takes in subjects.values()):
            raise BrokenFile(path, "positions_3d is no {subject: {action: positions}}", "is it another version?")
        self._subjects: dict[str, dict[str, Any]] = {normalise_subject(name): takes for name, takes in subjects.items()}

    def subjects(self) -> list[str]:
        return list(self._subjects)

    def sequences(self, subject: str) -> list[PoseSequence]:
        takes = {str(name): values for name, values in self._subjects[subject].items()}
        found = [(find_take(subject, name), takes[name]) for name in takes if not name.startswith(EVERYTHING)]
        found.sort(key=lambda pair: pair[0])
        return [
            PoseSequence(take, self.path.name, partial(self._joints, f"{subject} {take.name}", values))
            for take, values in found
        ]

    def _joints(self, name: str, values: Any) -> np.ndarray:
        return shaped(self.path, name, values, None, len(H36M_32), 3)


def _joints_of_cdf(path: Path) -> np.ndarray:
    values = read_cdf(path, "Pose")
    flat = shaped(path, "Pose", values[0] if values.ndim == 3 and len(values) == 1 else values, None, 3 * len(H36M_32))
    return flat.reshape(-1, len(H36M_32), 3) / 1000.0


def read_cdf(path: Path, variable: str) -> np.ndarray:
    """A variable of a .cdf file. BrokenFile."""
    import cdflib

    try:
        file = cdflib.CDF(path)
        names = [*file.cdf_info().zVariables, *file.cdf_info().rVariables]
        values = file.varget(variable) if variable in names else None
    except Exception as error:  # a cut file can make it raise anything
        raise BrokenFile(path, f"not a whole .cdf file ({type(error).__name__}: {error})") from None
    if values is None:
        raise BrokenFile(path, f"has no variable '{variable}' (it holds {', '.join(names) or 'nothing'})")
    return np.asarray(values)


def read_subject(poses: PoseFiles, rig: Rig, asked: Asked, subject: str) -> Iterator[LabelledFrame]:
    """The frames asked for of each take of a subject, through each camera."""
    labels: set[str] = set()
    for sequence in poses.sequences(subject):
        label = sequence.take.label
        if label in labels:
            asked.told.fault(f"{sequence.source} is a second '{label}' of {subject}; it is left out, rename it")
            continue
        labels.add(label)
        try:
            joints_world_m = sequence.load()
        except (BrokenFile, FileNotFoundError) as error:
            asked.told.fault(str(error))
            continue
        in_17 = np.empty((len(joints_world_m), len(H36M_17), 3))
        in_17[:, _IN_17] = joints_world_m[:, _KEPT]
        for camera_id in CAMERA_IDS.values():
            yield from _through_camera(sequence, in_17, rig, camera_id, asked)


def _through_camera(
    sequence: PoseSequence, joints_world_m: np.ndarray, rig: Rig, camera_id: str, asked: Asked
) -> Iterator[LabelledFrame]:
    """joints_world_m: float64 [T 17 3]."""
    take, source = sequence.take, sequence.source
    pictures = find_pictures(asked, take, camera_id) or official_video(take, camera_id)
    frames = range(0, len(joints_world_m), asked.frame_step)
    try:
        camera = rig.camera(take.subject, camera_id)
    except (BrokenFile, FileNotFoundError) as error:
        asked.told.fault(str(error))
        for frame in frames:
            asked.told.skip(str(pictures.path(frame)), NO_CAMERA)
        return
    readable = readable_frames(asked, pictures, len(joints_world_m), source)
    for frame in frames:
        if frame >= readable:
            asked.told.skip(str(pictures.path(frame)), VIDEO_ENDS if readable else NO_VIDEO)
            continue
        made = labelled_frame(
            take,
            camera_id,
            frame,
            pictures.path(frame),
            world_to_camera(joints_world_m[frame], camera),
            camera,
            source_file=source,
            image_size_wh=rig.sizes_wh.get((take.subject, camera_id)),
        )
        if made is None:
            asked.told.skip(str(pictures.path(frame)), BEHIND)
        else:
            yield made


def labelled_frame(
    take: Take,
    camera_id: str,
    frame: int,
    image_path: Path,
    joints_cam_m: np.ndarray,
    camera: Camera,
    *,
    source_file: str,
    image_size_wh: tuple[int, int] | None,
    box_px: np.ndarray | None = None,
) -> LabelledFrame | None:
    """The record of one frame; None where no joint lies before the camera and so nothing says where the person is.

    joints_cam_m: float64 [17 3]; the 2D labels are its projection. box_px: from these where it is not given.
    """
    joints_px = camera_to_pixel(joints_cam_m, camera)
    if box_px is None:
        if not np.isfinite(joints_px).any():
            return None
        box_px = enlarged_box(joints_px)
    return LabelledFrame(
        image_path=image_path,
        key=make_key("h36m", take.subject, take.label.replace(" ", "_"), camera_id, f"{frame:06d}", "p0"),
        corpus="human36m",
        subject=take.subject,
        action=take.label,
        camera_id=camera_id,
        frame_index=frame,
        fps=FPS,
        skeleton=H36M_17.name,
        joints_cam_m=joints_cam_m.astype(np.float32),
        joints_px=joints_px.astype(np.float32),
        joint_score=np.isfinite(joints_cam_m).all(-1).astype(np.float32),
        camera=camera,
        box_px=box_px,
        source_file=source_file,
        image_size_wh=image_size_wh,
    )


def enlarged_box(joints_px: np.ndarray) -> np.ndarray:
    """float32 [4]: the box of the joints [17 2] that can be seen, enlarged about its middle."""
    low, high = np.nanmin(joints_px, 0), np.nanmax(joints_px, 0)
    grow = (high - low) * (BOX_ENLARGED - 1.0) / 2.0
    return np.concatenate([low - grow, high + grow]).astype(np.float32)


def find_poses(places: Sequence[Path]) -> PoseFiles | None:
    """The .cdf files or the .npz of the first of these folders that has some; a place may be the .npz itself."""
    for place in places:
        if place.is_dir() and CdfFiles(place).subjects():
            return CdfFiles(place)
        for path in (place, place / NPZ):
            if path.suffix == ".npz" and path.is_file():
                return NpzFile(path)
    return None
