"""Human3.6M on disk -> LabelledFrames. Finds by itself in which of its forms it lies there; quirks stand in its parts.

3DMPPE         annotations/Human36M_subject1_{data,camera,joint_3d}.json, images/s_01_act_02_subact_01_ca_01/...jpg
               (human36m_moon.py)
the archives   S1/MyPoseFeatures/D3_Positions/Directions 1.cdf, S1/Videos/Directions 1.54138969.mp4, and metadata.xml or
               camera-parameters.json (human36m_poses.py, human36m_cameras.py)
VideoPose3D's  data_3d_h36m.npz, cameras and pictures as for the archives (human36m_poses.py)

Pictures are found in the videos, read in place, or as images extracted from them under any of the names in use
(human36m_takes.py). All forms give the same frames the same keys: action "Directions" is take 1 or 2 of it,
"Directions 1", by the corpus's own numbers and not by its file names. Images are 1000 x 1002 or 1000 x 1000. Videos are
a few frames longer than their labels. Of S11, Directions is missing in camera 54138969 in many copies. Recordings of
whole sessions (_ALL) are left out. Of the archives, D3_Positions is the one to have: D3_Positions_mono is turned into
each camera, D3_Positions_mono_universal also resized to a universal body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from humanpose3d.sample import LabelledFrame, normalise_subject
from humanpose3d.sources import human36m_moon, human36m_poses
from humanpose3d.sources.human36m_cameras import find_rig
from humanpose3d.sources.human36m_takes import Asked
from humanpose3d.sources.reading import Remembering, Told

NAME = "human36m"
FOLDERS = ("images", "annotations")
SUBJECTS_HELP = "1 5 6 7 8 9 11, or S1 S5 ..."
CUES = "require"

ReadSubject = Callable[[Asked, str], Iterator[LabelledFrame]]  # what is asked for, of which subject


def read_frames(
    images_path: Path,
    annotations_path: Path,
    subjects: Sequence[str],
    frame_step: int = 1,
    *,
    image_pattern: str | None = None,
    told: Told,
) -> Iterator[LabelledFrame]:
    """Every `frame_step`-th labelled frame of each take, ordered by subject, action, take, camera and frame.

    image_pattern: where the images lie, a format of {subject} {action} {take} {camera} {number}, such as
    "{subject}_{action}_{camera}/frame_{number:04d}.jpg"; number counts from 1. `told` hears of frames without a label,
    and of broken files, each of which loses its own part alone.
    FileNotFoundError or ValueError where nothing of what is asked for can be read.
    """
    images_path, annotations_path = Path(images_path), Path(annotations_path)
    wanted = sorted({normalise_subject(subject) for subject in subjects}, key=_subject_order)
    present, read_subject = _find_layout(images_path, annotations_path)
    unknown = [subject for subject in wanted if subject not in present]
    if unknown:
        there = ", ".join(sorted(present, key=_subject_order))
        raise ValueError(f"no annotations of {', '.join(unknown)} in {annotations_path}; there are {there}")
    frames, noted = 0, Remembering(told)
    asked = Asked(images_path, frame_step, image_pattern, noted)
    for subject in wanted:
        for frame in read_subject(asked, subject):
            frames += 1
            yield frame
    if not frames and noted.faults:
        raise ValueError(noted.faults[0])


def _find_layout(images_path: Path, annotations_path: Path) -> tuple[list[str], ReadSubject]:
    """The subjects there are, and who reads one. Annotations may also lie with the images."""
    folders = list(dict.fromkeys([annotations_path, images_path]))
    for folder in folders:
        if present := human36m_moon.annotated_subjects(folder):
            return present, partial(human36m_moon.read_subject, folder)
    poses = human36m_poses.find_poses(folders)
    if poses is None:
        raise FileNotFoundError(
            f"no annotations of Human3.6M in {annotations_path}; --annotations-path names the folder that has "
            f"{human36m_moon.DATA.format('*')} (3DMPPE), S*/{human36m_poses.POSE_FOLDERS[0]}/*.cdf or "
            f"{human36m_poses.NPZ}"
        )
    rig = find_rig(list(dict.fromkeys([*folders, annotations_path.parent])))
    return poses.subjects(), partial(human36m_poses.read_subject, poses, rig)


def _subject_order(subject: str) -> tuple[int, str]:
    number = subject.removeprefix("S")
    return (int(number) if number.isdigit() else -1, subject)
