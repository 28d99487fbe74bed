"""3D Poses in the Wild (3DPW) -> LabelledFrames with SMPL's pose, shape and translation in the camera frame.

imageFiles/<sequence>/image_00000.jpg ...
sequenceFiles/{train,validation,test}/<sequence>.pkl   a pickle of Python 2, per person i of one or two:
  poses[i] N x 72, trans[i] N x 3, betas[i] 10, genders[i] 'm' or 'f'   SMPL, the world's frame (y up)
  jointPositions[i] N x 72     SMPL's 24 joints, metres, the world's frame
  cam_poses N x 4 x 4          X_cam = R X_world + t: the camera is in somebody's hand and moves
  cam_intrinsics 3 x 3         one for the sequence; the principal point is the middle of the image
  campose_valid[i] N           0 where the camera's pose was not aligned to the image
  poses2d[i] N x 3 x 18        OpenPose's detections (`coco_18`), x y score in rows; all 0 where it found no six joints

All of these count the images: entry 5 is image_00005.jpg, at 30 frames a second. `img_frame_ids` does NOT name images:
it picks their poses out of `poses_60Hz` (0 2 4 ...), and taken for image numbers it pairs labels with wrong pictures.
`betas` has 300 entries in some files; the first 10 are those of the usual model. `betas_clothed`, `v_template_clothed`
and `texture_maps` are not read. The corpus's own evaluation counts the frames whose camera is valid and whose detection
is not all 0: `valid`. The other frames come too, with `valid` False; their camera may be off.

SMPL turns the body about the rest pelvis J0 and then moves it: R_root (v - J0) + J0 + trans. So the camera's rotation
turns the root's orientation, but the translation becomes R (J0 + trans) + t - J0. J0 follows from betas and gender;
here it is what `jointPositions` and `trans` leave between them, without any body model.

The detections of poses2d are not passed on: keypoints come from preprocess.py, in every corpus alike.

Tables in the manner of SPIN, 3dpw_{train,validation,test}.npz, are read where there are no sequence files: imgname
(with imageFiles/ before it), center and scale (box side = 200 scale pixels), pose N x 72 (the root already in the
camera's frame), shape N x 10, gender. One row a person, only frames with a valid camera, sequence after sequence and in
each person after person; which person a row is of is not said. No joints, no camera, no translation: those stay absent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humanpose3d.sample import LabelledFrame, make_key, subjects_asked_for
from humanpose3d.skeletons import SMPL_24
from humanpose3d.sources.reading import BrokenFile, Remembering, Told, field, read_npz, read_pickle, shaped

NAME = "threedpw"
FOLDERS = ("", "")
SUBJECTS_HELP = "train validation test, or sequences such as courtyard_arguing_00"
CUES = "optional"
SPLITS = ("train", "validation", "test")
FPS = 30.0
CAMERA_ID = "handheld"
GENDERS = {"m": "male", "f": "female", "n": "neutral"}
BETAS = 10
PEOPLE = 2  # at most, in a sequence
BOX_ENLARGED = 1.2  # against the joints' own box
ROTATION_TOLERANCE = 1e-3
# The archives unpack into a folder of their own name, so that many copies have it twice.
SEQUENCE_FOLDERS = ("sequenceFiles", "", "sequenceFiles/sequenceFiles")
IMAGE_FOLDERS = ("imageFiles", "", "imageFiles/imageFiles")
TABLE_FOLDERS = ("", "dataset_extras")
EXPECTED = "expected a sequence file of 3DPW"
TABLE_EXPECTED = "expected SPIN's table of 3DPW"
REMEDY = "is it another version?"

_IMAGE_NAME = re.compile(r"(?:.*/)?(?P<sequence>[^/]+)/(?P<file>image_(?P<frame>\d+)\.\w+)")

ReadSequence = Callable[[], Iterator[LabelledFrame]]


def read_frames(
    images_path: Path,
    annotations_path: Path,
    subjects: Sequence[str],
    frame_step: int = 1,
    *,
    image_pattern: str | None = None,
    told: Told,
) -> Iterator[LabelledFrame]:
    """Every `frame_step`-th image's people, ordered by split, sequence, person and frame.

    A subject is "train/courtyard_arguing_00"; a split or the sequence alone ask for it too. A file that cannot be read
    costs only itself. FileNotFoundError or ValueError where there are no labels or none that were asked for.
    """
    if image_pattern is not None:
        raise ValueError("3DPW's images are always <sequence>/image_00000.jpg; leave --image-pattern out")
    images_path, annotations_path = Path(images_path), Path(annotations_path)
    heard = Remembering(told)
    present = _sequences(images_path, annotations_path, frame_step, heard)
    frames = 0
    for subject in _wanted(subjects, present, annotations_path, heard):
        try:
            for frame in present[subject]():
                frames += 1
                yield frame
        except BrokenFile as error:
            heard.fault(str(error))
    if heard.faults and not frames:
        raise ValueError(heard.faults[0])


def _wanted(
    subjects: Sequence[str], present: Mapping[str, ReadSequence], annotations_path: Path, heard: Remembering
) -> list[str]:
    found = {subject: subjects_asked_for(subject, present) for subject in subjects}
    unknown = [subject for subject, meant in found.items() if not meant]
    if unknown:
        splits = [split for split in SPLITS if any(name.startswith(split + "/") for name in present)]
        names = [*splits, *sorted(name.split("/")[1] for name in present)]
        raise ValueError(
            f"no 3DPW labels of {', '.join(unknown)} in {annotations_path}; there are {', '.join(names) or 'none'}"
            + "".join(f" ({fault})" for fault in heard.faults)
        )
    return sorted(set().union(*found.values()))


def _sequences(images_path: Path, annotations_path: Path, frame_step: int, told: Told) -> dict[str, ReadSequence]:
    """The sequences whose labels lie there, as subjects, each with what reads it. Sequence files go before tables."""
    for folder in SEQUENCE_FOLDERS:
        paths = [path for split in SPLITS for path in sorted((annotations_path / folder / split).glob("*.pkl"))]
        if paths:
            return {
                f"{path.parent.name}/{path.stem}": partial(_read_sequence, path, images_path, frame_step, told)
                for path in paths
            }
    tables = {
        split: path
        for folder in TABLE_FOLDERS
        for split in SPLITS
        if (path := annotations_path / folder / f"3dpw_{split}.npz").is_file()
    }
    if not tables:
        raise FileNotFoundError(
            f"no sequenceFiles/*/*.pkl and no 3dpw_*.npz in {annotations_path}; --annotations-path names 3DPW's folder"
        )
    found: dict[str, ReadSequence] = {}
    for split, path in tables.items():
        try:
            for rows in _table_sequences(path, split, told):
                found[rows.subject] = partial(_read_rows, rows, images_path, frame_step, told)
        except BrokenFile as error:
            told.fault(str(error))
    return found


def _image_folder(images_path: Path, sequence: str) -> Path:
    """Where the sequence's images lie below images_path, or should."""
    places = [Path(folder) / sequence for folder in IMAGE_FOLDERS]
    return next((place for place in places if (images_path / place).is_dir()), places[0])


def _key(subject: str, frame: int, person: int) -> str:
    return make_key("3dpw", subject, CAMERA_ID, f"{frame:06d}", f"p{person}")


# ---------------------------------------------------------------------------------------------- sequence files


@dataclass(frozen=True, eq=False)
class _Person:
    """One person's labels, in the camera frame; the first axis counts the images."""

    joints_cam_m: np.ndarray  # float64 [N 24 3]
    joints_px: np.ndarray  # float64 [N 24 2], NaN behind the camera
    pose_rad: np.ndarray  # float64 [N 24 3]
    trans_m: np.ndarray  # float64 [N 3]
    betas: np.ndarray  # float64 [10]
    gender: str | None
    valid: np.ndarray  # bool [N]
    longest: int  # how many images any of the annotations has an entry for


@dataclass(frozen=True, eq=False)
class _Cameras:
    """The camera of each image."""

    K: np.ndarray  # float64 [3 3]
    R: np.ndarray  # float64 [N 3 3], world -> camera
    t_m: np.ndarray  # float64 [N 3]
    known: np.ndarray  # bool [N]: the file's pose is a rotation and a shift; where not, R is the identity

    def at(self, frame: int) -> Camera:
        return Camera(self.K, self.R[frame], self.t_m[frame], np.zeros(5))

    @property
    def size_wh(self) -> tuple[int, int]:
        return round(2 * self.K[0, 2]), round(2 * self.K[1, 2])


def _read_sequence(path: Path, images_path: Path, frame_step: int, told: Told) -> Iterator[LabelledFrame]:
    data = read_pickle(path)
    if not isinstance(data, Mapping):
        raise BrokenFile(path, f"holds a {type(data).__name__}; {EXPECTED}", REMEDY)
    cameras = _cameras(path, data)
    names = ("poses", "trans", "jointPositions", "betas", "genders", "campose_valid")
    people = {name: _length(path, name, field(path, data, name, EXPECTED)) for name in names}
    if len(set(people.values())) > 1:
        told.fault(f"{path}: numbers of people differ ({_counts(people)}); those that all have are used; copy it anew")
    # The name in the file is the image folder's, whatever the file is called now.
    sequence = Path(_text(data.get("sequence", ""))).name or path.stem
    folder = _image_folder(images_path, sequence)
    subject = f"{path.parent.name}/{path.stem}"
    for number in range(min(people.values())):
        try:
            person = _person(path, data, number, cameras, told)
        except BrokenFile as error:
            told.fault(str(error))
            continue
        for frame in range(0, person.longest, frame_step):
            key = _key(subject, frame, number)
            if frame >= len(person.valid) or not np.isfinite(person.joints_cam_m[frame]).any():
                told.skip(key, "its label is incomplete")
                continue
            if not cameras.known[frame]:
                told.skip(key, "no camera pose")
                continue
            box_px = _box(person.joints_px[frame])
            if box_px is None:
                told.skip(key, "the person is behind the camera")
                continue
            yield LabelledFrame(
                image_path=folder / f"image_{frame:05d}.jpg",
                key=key,
                corpus=NAME,
                subject=subject,
                action=sequence,
                camera_id=CAMERA_ID,
                frame_index=frame,
                fps=FPS,
                skeleton=SMPL_24.name,
                joints_cam_m=person.joints_cam_m[frame].astype(np.float32),
                joints_px=person.joints_px[frame].astype(np.float32),
                joint_score=np.isfinite(person.joints_cam_m[frame]).all(-1).astype(np.float32),
                camera=cameras.at(frame),
                box_px=box_px,
                valid=bool(person.valid[frame]),
                source_file=path.name,
                image_size_wh=cameras.size_wh,
                smpl_pose_rad=_known(person.pose_rad[frame]),
                smpl_betas=_known(person.betas),
                smpl_trans_m=_known(person.trans_m[frame]),
                gender=person.gender,
            )


def _cameras(path: Path, data: Mapping[str, Any]) -> _Cameras:
    K = shaped(path, "cam_intrinsics", field(path, data, "cam_intrinsics", EXPECTED), 3, 3)
    if not (np.isfinite(K).all() and (np.diag(K) > 0).all()):
        raise BrokenFile(path, "'cam_intrinsics' has a focal length that is not above 0", REMEDY)
    poses = shaped(path, "cam_poses", field(path, data, "cam_poses", EXPECTED), None, 4, 4)
    R, t_m = poses[:, :3, :3], poses[:, :3, 3]
    off = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
    known = (off < ROTATION_TOLERANCE) & (np.linalg.det(R) > 0) & np.isfinite(t_m).all(-1)
    return _Cameras(K, np.where(known[:, None, None], R, np.eye(3)), t_m, known)


def _person(path: Path, data: Mapping[str, Any], number: int, cameras: _Cameras, told: Told) -> _Person:
    """What the file says of one person, turned into the camera. Lengths that differ: what all have, and a fault."""

    def part(name: str, *shape: int) -> np.ndarray:
        return shaped(path, f"{name}[{number}]", data[name][number], None, *shape)

    poses, joints, trans_m = part("poses", 72), part("jointPositions", 72), part("trans", 3)
    cam_valid = shaped(path, f"campose_valid[{number}]", np.ravel(data["campose_valid"][number]), None)
    betas = shaped(path, f"betas[{number}]", np.ravel(data["betas"][number]), None)[:BETAS]
    if len(betas) < BETAS:
        raise BrokenFile(path, f"'betas[{number}]' has {len(betas)} numbers, expected {BETAS}", REMEDY)
    lengths = {
        "poses": len(poses),
        "trans": len(trans_m),
        "jointPositions": len(joints),
        "campose_valid": len(cam_valid),
        "cam_poses": len(cameras.R),
    }
    count = min(lengths.values())
    if len(set(lengths.values())) > 1:
        told.fault(
            f"{path}: person {number}'s labels differ in length ({_counts(lengths)}); the first {count} are used; "
            "copy it anew"
        )
    R, t_m, root = cameras.R[:count], cameras.t_m[:count], SMPL_24.root_index
    joints_world_m = joints[:count].reshape(count, len(SMPL_24), 3)
    joints_cam_m = joints_world_m @ R.transpose(0, 2, 1) + t_m[:, None]
    pose_rad = poses[:count].reshape(count, len(SMPL_24), 3).copy()
    pose_rad[:, root] = matrix_to_axis_angle(R @ axis_angle_to_matrix(pose_rad[:, root]))
    rest_pelvis_m = joints_world_m[:, root] - trans_m[:count]
    return _Person(
        joints_cam_m=joints_cam_m,
        joints_px=camera_to_pixel(joints_cam_m, Camera(cameras.K, np.eye(3), np.zeros(3), np.zeros(5))),
        pose_rad=pose_rad,
        trans_m=joints_cam_m[:, root] - rest_pelvis_m,
        betas=betas,
        gender=GENDERS.get(_text(data["genders"][number])[:1].lower()),
        valid=(cam_valid[:count] > 0) & _detected(path, data.get("poses2d"), number, count),
        longest=max(lengths.values()),
    )


def _detected(path: Path, poses2d: Any, number: int, count: int) -> np.ndarray:
    """bool [N]: the corpus's own detector found the person; where the file does not say, it did."""
    detected = np.ones(count, dtype=bool)
    if isinstance(poses2d, list | tuple | np.ndarray) and number < len(poses2d):
        found = shaped(path, "poses2d", poses2d[number], None, None, None)[:count]
        detected[: len(found)] = (found != 0).any((1, 2))
    return detected


def _length(path: Path, name: str, value: Any) -> int:
    if not isinstance(value, list | tuple | np.ndarray) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise BrokenFile(path, f"'{name}' is no list of people; {EXPECTED}", REMEDY)
    return len(value)


def _counts(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{length} {name}" for name, length in lengths.items())


def _text(value: Any) -> str:
    """A string out of what Python 2 and NumPy left: text, bytes, or an array of one."""
    value = value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _known(values: np.ndarray) -> np.ndarray | None:
    return values.astype(np.float32) if np.isfinite(values).all() else None


def _box(joints_px: np.ndarray) -> np.ndarray | None:
    """float32 [4] x0 y0 x1 y1 around the joints before the camera, enlarged; None where there are none."""
    seen = joints_px[np.isfinite(joints_px).all(-1)]
    if not len(seen):
        return None
    low, high = seen.min(0), seen.max(0)
    grow = (high - low) * (BOX_ENLARGED - 1.0) / 2.0
    return np.concatenate([low - grow, high + grow]).astype(np.float32)


# ---------------------------------------------------------------------------------------------- SPIN's tables


@dataclass(frozen=True, eq=False)
class _Row:
    """One row of a table."""

    sequence: str
    file: str  # image_00000.jpg
    frame: int
    box_px: np.ndarray  # float32 [4]
    pose_rad: np.ndarray  # float64 [24 3]
    betas: np.ndarray  # float64 [10]
    gender: str | None


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of one sequence, and which person each is of."""

    path: Path
    subject: str
    sequence: str
    rows: list[_Row]
    people: list[int]


def _table_sequences(path: Path, split: str, told: Told) -> Iterator[_Rows]:
    of_sequence: dict[str, list[_Row]] = {}
    for row in _table_rows(path, told):
        of_sequence.setdefault(row.sequence, []).append(row)
    for sequence, rows in of_sequence.items():
        yield _Rows(path, f"{split}/{sequence}", sequence, rows, _people(rows))


def _table_rows(path: Path, told: Told) -> Iterator[_Row]:
    table = read_npz(path)
    names = [_text(name) for name in np.ravel(field(path, table, "imgname", TABLE_EXPECTED))]
    columns = {
        name: shaped(path, name, field(path, table, name, TABLE_EXPECTED), None, *shape)
        for name, shape in {"center": (2,), "scale": (), "pose": (72,), "shape": (BETAS,)}.items()
    }
    genders = [GENDERS.get(_text(gender)[:1].lower()) for gender in np.ravel(table.get("gender", []))]
    lengths = {"imgname": len(names), **{name: len(column) for name, column in columns.items()}}
    if genders:
        lengths["gender"] = len(genders)
    count = min(lengths.values())
    if len(set(lengths.values())) > 1:
        told.fault(f"{path}: columns differ in length ({_counts(lengths)}); the first {count} are used; copy it anew")
    for row, name in enumerate(names):
        match = _IMAGE_NAME.fullmatch(name)
        if row >= count:
            told.skip(name, "its label is incomplete")
        elif match is None:
            told.skip(name, "not an image name of 3DPW")
        else:
            centre, reach = columns["center"][row], 100.0 * columns["scale"][row]
            yield _Row(
                sequence=match["sequence"],
                file=match["file"],
                frame=int(match["frame"]),
                box_px=np.concatenate([centre - reach, centre + reach]).astype(np.float32),
                pose_rad=columns["pose"][row].reshape(len(SMPL_24), 3),
                betas=columns["shape"][row],
                gender=genders[row] if genders else None,
            )


def _people(rows: Sequence[_Row]) -> list[int]:
    """Which person each row is of: one shape is one person. Where shapes vary too often, each frame's rows count up."""
    shapes: dict[bytes, int] = {}
    people = [shapes.setdefault(row.betas.round(6).tobytes(), len(shapes)) for row in rows]
    once = len({(row.frame, person) for row, person in zip(rows, people, strict=True)}) == len(rows)
    if len(shapes) <= PEOPLE and once:
        return people
    times: Counter[int] = Counter()
    people = []
    for row in rows:
        people.append(times[row.frame])
        times[row.frame] += 1
    return people


def _read_rows(rows: _Rows, images_path: Path, frame_step: int, told: Told) -> Iterator[LabelledFrame]:
    folder = _image_folder(images_path, rows.sequence)
    for number, row in sorted(zip(rows.people, rows.rows, strict=True), key=lambda pair: (pair[0], pair[1].frame)):
        if row.frame % frame_step:
            continue
        key = _key(rows.subject, row.frame, number)
        if not np.isfinite(row.box_px).all():
            told.skip(key, "no box")
            continue
        yield LabelledFrame(
            image_path=folder / row.file,
            key=key,
            corpus=NAME,
            subject=rows.subject,
            action=rows.sequence,
            camera_id=CAMERA_ID,
            frame_index=row.frame,
            fps=FPS,
            skeleton=SMPL_24.name,
            joints_cam_m=None,
            joints_px=None,
            joint_score=np.zeros(len(SMPL_24), dtype=np.float32),
            camera=None,
            box_px=row.box_px,
            source_file=rows.path.name,
            smpl_pose_rad=_known(row.pose_rad),
            smpl_betas=_known(row.betas),
            gender=row.gender,
        )
