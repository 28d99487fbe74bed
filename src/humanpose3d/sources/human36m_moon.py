"""Human3.6M in the 3DMPPE layout -> LabelledFrames: three JSON files a subject, frames by their images' names.

Human36M_subject1_data.json      COCO-like: images (file_name, action_name, action_idx, subaction_idx, cam_idx,
                                 frame_idx, width, height), annotations (image_id, bbox); a file's number is its
                                 frame's + 1
Human36M_subject1_camera.json    {"1": {R, t, f, c}, ... "4"}; without distortion: joints reproject within 3.5 px
Human36M_subject1_joint_3d.json  {action: {subaction: {frame index: 17 x 3 world mm, z up}}}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.camera import Camera, world_to_camera
from humanpose3d.sample import LabelledFrame, normalise_subject
from humanpose3d.skeletons import H36M_17
from humanpose3d.sources.human36m_cameras import make_camera, moon_cameras
from humanpose3d.sources.human36m_poses import BEHIND, NO_CAMERA, NO_VIDEO, VIDEO_ENDS, labelled_frame
from humanpose3d.sources.human36m_takes import (
    CAMERA_IDS,
    Asked,
    Take,
    find_pictures,
    numbered_take,
    one_spelling,
    readable_frames,
)
from humanpose3d.sources.reading import BrokenFile, field, read_json, shaped

DATA, JOINTS = "Human36M_subject{}_data.json", "Human36M_subject{}_joint_3d.json"
BROKEN_SUBJECT, BROKEN_LABEL = "its subject's annotations are broken", "its 3D label is not 17 x 3"


@dataclass(frozen=True)
class _Row:
    """A frame as the data file names it."""

    order: tuple[int, int, int, int]  # action, take, camera, frame
    image_id: int
    action_name: str
    file_name: str
    size_wh: tuple[int, int] | None

    @property
    def frame(self) -> int:
        return self.order[3]


def annotated_subjects(annotations_path: Path) -> list[str]:
    """The subjects whose annotations lie there: ["S1", "S5", ...]."""
    found = {path.name.split("_")[1] for path in Path(annotations_path).glob(DATA.format("*"))}
    return [normalise_subject(name.removeprefix("subject")) for name in found]


def read_subject(annotations_path: Path, asked: Asked, subject: str) -> Iterator[LabelledFrame]:
    """The frames asked for of those that the data file names, by take and camera."""
    data_path, joints_path = (annotations_path / name.format(subject[1:]) for name in (DATA, JOINTS))
    try:
        rows, boxes = _read_data(data_path)
    except (BrokenFile, FileNotFoundError) as error:
        asked.told.fault(_with_remedy(error))
        return
    in_takes = [list(rows) for _, rows in groupby(rows, lambda row: row.order[:3])]
    try:
        camera_path, cameras = moon_cameras(annotations_path, subject)
        joints_world_mm = _objects(joints_path, read_json(joints_path))
    except (BrokenFile, FileNotFoundError) as error:
        asked.told.fault(_with_remedy(error))
        for rows in in_takes:
            _skip_all(rows, BROKEN_SUBJECT, asked)
        return
    for rows in in_takes:
        action, take, number, _ = rows[0].order
        camera_id = CAMERA_IDS.get(number, str(number))
        try:
            values = field(camera_path, cameras, camera_id, f"{data_path.name} names camera {number}")
            camera = make_camera(camera_path, f"camera {number}", values)
        except BrokenFile as error:
            asked.told.fault(str(error))
            _skip_all(rows, NO_CAMERA, asked)
            continue
        yield from _read_take(
            rows,
            numbered_take(subject, action, take, one_spelling(rows[0].action_name)),
            camera_id,
            camera,
            _Labels(joints_path, joints_world_mm.get(str(action), {}).get(str(take), {}), boxes, data_path.name),
            asked,
        )


def _skip_all(rows: Sequence[_Row], reason: str, asked: Asked) -> None:
    for row in rows[:: asked.frame_step]:
        asked.told.skip(row.file_name, reason)


@dataclass(frozen=True)
class _Labels:
    """What the files say of one take."""

    path: Path
    joints_world_mm: dict[str, Any]  # 17 x 3 by frame
    boxes_xywh: dict[int, np.ndarray | None]  # by image id, of the whole subject
    source: str


def _read_take(
    rows: Sequence[_Row], take: Take, camera_id: str, camera: Camera, labels: _Labels, asked: Asked
) -> Iterator[LabelledFrame]:
    own_names = asked.image_pattern is None and (asked.images_path / rows[0].file_name).parent.is_dir()
    pictures = None if own_names else find_pictures(asked, take, camera_id)
    last = rows[-1].frame + 1
    readable = last if pictures is None else readable_frames(asked, pictures, last, labels.source)
    for row in rows[:: asked.frame_step]:
        joints_mm = labels.joints_world_mm.get(str(row.frame))
        if joints_mm is None:
            asked.told.skip(row.file_name, f"no 3D label in {labels.path.name}")
            continue
        try:
            joints_mm = shaped(labels.path, "a label", joints_mm, len(H36M_17), 3)
        except BrokenFile as error:
            asked.told.fault(str(error))
            asked.told.skip(row.file_name, BROKEN_LABEL)
            continue
        if row.frame >= readable:
            asked.told.skip(row.file_name, VIDEO_ENDS if readable else NO_VIDEO)
            continue
        frame = labelled_frame(
            take,
            camera_id,
            row.frame,
            Path(row.file_name) if pictures is None else pictures.path(row.frame),
            world_to_camera(joints_mm / 1000.0, camera),
            camera,
            source_file=labels.source,
            image_size_wh=row.size_wh,
            box_px=_corners(labels.boxes_xywh.get(row.image_id)),
        )
        if frame is None:
            asked.told.skip(row.file_name, BEHIND)
        else:
            yield frame


def _corners(bbox_xywh: np.ndarray | None) -> np.ndarray | None:
    """float32 [4], x0 y0 x1 y1."""
    if bbox_xywh is None:
        return None
    x, y, width, height = bbox_xywh
    return np.array([x, y, x + width, y + height], dtype=np.float32)


def _read_data(path: Path) -> tuple[list[_Row], dict[int, np.ndarray | None]]:
    """The frames in their order, and the people's boxes by image id."""
    data = _objects(path, read_json(path), inner=False)
    images, people = (_list(path, data, name) for name in ("images", "annotations"))
    boxes = {}
    for person in people:
        bbox = shaped(path, "bbox", person["bbox"], 4) if "bbox" in person else None
        boxes[field(path, person, "image_id", "each annotation names its image")] = bbox
    return sorted((_row(path, image) for image in images), key=lambda row: row.order), boxes


def _row(path: Path, image: dict[str, Any]) -> _Row:
    numbers = ("action_idx", "subaction_idx", "cam_idx", "frame_idx", "id")
    found = [_field(path, image, name) for name in numbers]
    size = [image.get("width"), image.get("height")]
    try:
        action, take, camera, frame, image_id = map(int, found)
        size_wh = None if None in size else (int(size[0]), int(size[1]))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BrokenFile(path, f"an image has {dict(zip(numbers, found, strict=True))}, expected numbers") from None
    action_name, file_name = (str(_field(path, image, name)) for name in ("action_name", "file_name"))
    return _Row((action, take, camera, frame), image_id, action_name, file_name, size_wh)


def _field(path: Path, image: dict[str, Any], name: str) -> Any:
    return field(path, image, name, "expected an image of the 3DMPPE layout")


def _list(path: Path, data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = field(path, data, name, "expected images and annotations")
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise BrokenFile(path, f"'{name}' is no list of objects", "is it another version?")
    return found


def _objects(path: Path, data: Any, inner: bool = True) -> dict[str, Any]:
    """The JSON object, if it is one, and of objects of objects where `inner`."""
    whole = isinstance(data, dict)
    if whole and inner:
        whole = all(isinstance(takes, dict) for takes in data.values()) and all(
            isinstance(frames, dict) for takes in data.values() for frames in takes.values()
        )
    if not whole:
        raise BrokenFile(path, "holds no JSON object of the 3DMPPE layout", "is it another version?")
    return data


def _with_remedy(error: Exception) -> str:
    return f"{error}; it belongs to the 3DMPPE annotations" if isinstance(error, FileNotFoundError) else str(error)
