"""Human3.6M in the 3DMPPE layout -> LabelledFrames. Everything the toolkit knows of this corpus stands here.

images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg  (file number = frame index + 1)
annotations/Human36M_subject1_{data,camera,joint_3d}.json
  data      COCO-like: images (file_name, action_name, action_idx, subaction_idx, cam_idx, frame_idx),
            annotations (image_id, bbox)
  camera    {"1": {R 3x3, t mm, f, c}, ... "4"}, X_cam = R X_world + t: one of three conventions in circulation; others
            store the camera's centre, R (X - T). No distortion: joints reproject within 2.5 px without it.
  joint_3d  {action: {subaction: {frame index: 17 x 3 world mm, z up}}}

Images may also lie as S1_Directions_1.54138969/<anything>_000001.jpg (names of the official videos), or anywhere a
pattern says. Action "Directions" is take 1 or 2 of it: "Directions 1". Cameras 1 and 4 are 1000 x 1002, 2 and 3 are
1000 x 1000. Of S11, Directions is missing in camera 54138969 in many copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from humanpose3d.camera import Camera, camera_to_pixel, world_to_camera
from humanpose3d.sample import LabelledFrame, make_key, normalise_subject
from humanpose3d.skeletons import H36M_17

FPS = 50.0
CAMERA_IDS = {1: "54138969", 2: "55011271", 3: "58860488", 4: "60457274"}
BOX_ENLARGED = 1.2  # an annotation's bbox against the joints' own box
ANNOTATION_PARTS = ("data", "camera", "joint_3d")

Skip = Callable[[str, str], None]  # (what, why): told of each frame left out


def read_frames(
    images_path: Path,
    annotations_path: Path,
    subjects: Sequence[str],
    frame_step: int = 1,
    *,
    image_pattern: str | None = None,
    skip: Skip,
) -> Iterator[LabelledFrame]:
    """Every `frame_step`-th labelled frame of each take, ordered by subject, action, take, camera and frame.

    image_pattern: where the images lie, a format of {subject} {action} {take} {camera} {number}, such as
    "{subject}_{action}_{camera}/frame_{number:04d}.jpg". skip is told of frames without a 3D label.
    FileNotFoundError or ValueError for annotations that are missing or incomplete.
    """
    if not Path(images_path).is_dir():
        raise FileNotFoundError(f"{images_path} is missing; --images-path names the folder of Human3.6M's images")
    wanted = sorted({normalise_subject(subject) for subject in subjects}, key=_subject_number)
    present = annotated_subjects(annotations_path)
    unknown = [subject for subject in wanted if subject not in present]
    if unknown:
        raise ValueError(
            f"no annotations of {', '.join(unknown)} in {annotations_path}; there are {', '.join(present)}"
        )
    for subject in wanted:
        yield from _read_subject(Path(images_path), Path(annotations_path), subject, frame_step, image_pattern, skip)


def annotated_subjects(annotations_path: Path) -> list[str]:
    """The subjects whose annotations lie there: ["S1", "S5", ...]. FileNotFoundError where there are none."""
    found = {path.name.split("_")[1] for path in Path(annotations_path).glob("Human36M_subject*_data.json")}
    if not found:
        raise FileNotFoundError(
            f"no Human36M_subject*_data.json in {annotations_path}; --annotations-path names the 3DMPPE annotations"
        )
    return sorted((normalise_subject(name.removeprefix("subject")) for name in found), key=_subject_number)


def _subject_number(subject: str) -> int:
    return int(subject.removeprefix("S")) if subject.removeprefix("S").isdigit() else -1


def _read_subject(
    images_path: Path, annotations_path: Path, subject: str, frame_step: int, image_pattern: str | None, skip: Skip
) -> Iterator[LabelledFrame]:
    data_path, camera_path, joint_path = (
        annotations_path / f"Human36M_subject{subject[1:]}_{part}.json" for part in ANNOTATION_PARTS
    )
    data, camera_data, joints_world_mm = (_load(path) for path in (data_path, camera_path, joint_path))
    cameras = {number: _camera(camera_path, number, values) for number, values in camera_data.items()}
    boxes = {row["image_id"]: row["bbox"] for row in _field(data_path, data, "annotations") if "bbox" in row}
    fields = ("action_idx", "subaction_idx", "cam_idx", "frame_idx", "action_name", "file_name", "id")
    rows = [[_field(data_path, image, name) for name in fields] for image in _field(data_path, data, "images")]
    in_take: dict[tuple, int] = {}
    for act, take, cam, frame, action, file_name, image_id in sorted(rows, key=lambda row: row[:4]):
        position = in_take[act, take, cam] = in_take.get((act, take, cam), -1) + 1
        if position % frame_step:
            continue
        joints = joints_world_mm.get(str(act), {}).get(str(take), {}).get(str(frame))
        if joints is None:
            skip(file_name, f"no 3D label in {joint_path.name}")
            continue
        if str(cam) not in cameras:
            raise ValueError(f"{camera_path} has no camera {cam}, which {data_path.name} names; copy it anew")
        joints_cam_m = world_to_camera(np.asarray(joints, dtype=np.float64) / 1000.0, cameras[str(cam)])
        if joints_cam_m.shape != (len(H36M_17), 3):
            raise ValueError(f"{joint_path}: action {act}, take {take}, frame {frame} is not 17 x 3; copy it anew")
        joints_px = camera_to_pixel(joints_cam_m, cameras[str(cam)])
        camera_id = CAMERA_IDS.get(int(cam), str(cam))
        names = {"subject": subject, "action": action, "take": take, "camera": camera_id, "number": frame + 1}
        yield LabelledFrame(
            image_path=_image_path(images_path, file_name, names, image_pattern),
            key=make_key("h36m", subject, f"{action}_{take}", camera_id, f"{frame:06d}", "p0"),
            corpus="human36m",
            subject=subject,
            action=f"{action} {take}",
            camera_id=camera_id,
            frame_index=frame,
            fps=FPS,
            skeleton=H36M_17.name,
            joints_cam_m=joints_cam_m.astype(np.float32),
            joints_px=joints_px.astype(np.float32),
            joint_score=np.ones(len(H36M_17), dtype=np.float32),
            camera=cameras[str(cam)],
            box_px=_box(boxes.get(image_id), joints_px),
            source_file=data_path.name,
        )


def _image_path(images_path: Path, file_name: str, names: dict[str, Any], image_pattern: str | None) -> Path:
    """Relative path of a frame: by the pattern, else the annotation's own name, else the official videos' names."""
    if image_pattern is not None:
        return Path(image_pattern.format(**names))
    if (images_path / Path(file_name).parent).is_dir():
        return Path(file_name)
    folder = Path("{subject}_{action}_{take}.{camera}".format(**names))
    numbered = sorted((images_path / folder).glob(f"*_{names['number']:06d}.*"))
    return numbered[0].relative_to(images_path) if numbered else Path(file_name)


def _camera(path: Path, number: str, values: dict) -> Camera:
    R, t_mm, f, c = (np.asarray(_field(path, values, name), dtype=np.float64) for name in ("R", "t", "f", "c"))
    if R.shape != (3, 3) or np.abs(R @ R.T - np.eye(3)).max() > 1e-3:
        raise ValueError(f"{path}: R of camera {number} is not a rotation; copy the file anew")
    return Camera.create(f, c, R, t_mm / 1000.0)


def _box(bbox_xywh: Sequence[float] | None, joints_px: np.ndarray) -> np.ndarray:
    if bbox_xywh is not None:
        x, y, width, height = bbox_xywh
        return np.array([x, y, x + width, y + height], dtype=np.float32)
    low, high = joints_px.min(0), joints_px.max(0)
    grow = (high - low) * (BOX_ENLARGED - 1.0) / 2.0
    return np.concatenate([low - grow, high + grow]).astype(np.float32)


def _load(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; it belongs to the 3DMPPE annotations of Human3.6M")
    try:
        data = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path} is not whole JSON ({error}); copy it anew") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object; copy it anew")
    return data


def _field(path: Path, values: dict, name: str) -> Any:
    if name not in values:
        raise ValueError(f"{path} lacks the field '{name}' of the 3DMPPE layout; is it another version?")
    return values[name]
