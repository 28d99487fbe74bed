"""FreiHAND, version 2 -> LabelledFrames of right hands. Everything the toolkit knows of this corpus stands here.

training/rgb/00000000.jpg ... 00130239.jpg   224 x 224; 32,560 samples in 4 versions: number = sample + 32560 * version
training_K.json      [32560 3 3], pixels; the principal point is (112, 112)
training_xyz.json    [32560 21 3], metres, camera frame: pixel = K xyz; wrist, then thumb to little, each base to tip
training_scale.json  [32560], metres: the length of the middle finger's first bone, joints 9 and 10 (may be missing)
evaluation/rgb/00000000.jpg ... 00003959.jpg and evaluation_{K,xyz,scale}.json, likewise

The versions are one photograph before a green screen (gs) and the same hand over another picture, its colours made to
fit in three ways: homogenised (hom), recoloured by a network with hints (sample) and without (auto). The labels do not
change. So a split by image number would show a network its test hands in training: here a sample's *subject* is the
block of 1,000 samples it belongs to, whatever the version. (mmpose's own train, val and test files were drawn at random
from all 130,240 images; their names are not taken for a split.) Who the people are, and which samples are views of one
moment, was never published.

Evaluation images are plain photographs, indoors and outdoors, in one version; we call that camera "photo". Their labels
came years later, in an archive of its own (FreiHAND_pub_v2_eval.zip): the first archive has evaluation_K and
evaluation_scale only. Both archives may lie unpacked side by side under their names. Many keep the gs images only, and
some store the labels four times over, one entry an image; both are read. MANO parameters, meshes and masks are not.

The COCO-style json of mmpose (freihand_train.json, ...) has the same images with 2D joints only. It is read where the
corpus's own files are not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.sample import LabelledFrame, make_key
from humanpose3d.skeletons import HAND_21
from humanpose3d.sources.reading import BrokenFile, Told, field, read_json, shaped

NAME = "freihand"
FOLDERS = ("", "")
SUBJECTS_HELP = "training, evaluation, or samples such as 0-27999"
CUES = "optional"  # a person detector finds no hands
VERSIONS = ("gs", "hom", "sample", "auto")
PHOTO = "photo"  # the one version of the evaluation images
SAMPLES = 32560  # of training; the numbers of a version's images start at a multiple of it, also in a smaller copy
BLOCK = 1000  # samples that stay together in every split
IMAGE_SIZE_WH = (224, 224)
BOX_ENLARGED = 1.2  # a hand's box against its joints' own, by the longer side: fingers are thicker than their joints
SCALE_TOLERANCE = 0.02
ARCHIVES = ("", "FreiHAND_pub_v2", "FreiHAND_pub_v2_eval")  # where the files may lie below the folder given
COCO_FILES = ("freihand*.json", "annotations/freihand*.json", "annotations.json", "annotations/annotations.json")
COCO_IMAGES = ("", "images", "training/rgb")  # what a file name in them is relative to


def read_frames(
    images_path: Path,
    annotations_path: Path,
    subjects: Sequence[str],
    frame_step: int = 1,
    *,
    image_pattern: str | None = None,
    told: Told,
) -> Iterator[LabelledFrame]:
    """The samples asked for whose number `frame_step` divides, each in all its versions; evaluation last.

    subjects: "training", "evaluation" or ranges of samples, "0-27999". FileNotFoundError or ValueError where there is
    nothing to read.
    """
    images_path, annotations_path = Path(images_path), Path(annotations_path)
    if image_pattern is not None:
        raise ValueError("--image-pattern is not for freihand: its images have their numbers for names; leave it out")
    ranges, evaluation = _asked_for(subjects)
    splits = ["training"] * bool(ranges) + ["evaluation"] * evaluation
    readable = {split: _open(images_path, annotations_path, split, told) for split in splits}
    broken = [found for found in readable.values() if isinstance(found, Exception)]
    if len(broken) == len(splits):
        raise broken[0]
    for error in broken:
        told.fault(str(error))
    for split, labels in readable.items():
        if not isinstance(labels, Exception):
            wanted = _wanted(labels, ranges if split == "training" else None, frame_step)
            yield from labels.frames(wanted, told)


def subject_of(sample: int) -> str:
    """The block that a training sample belongs to: 1234 -> "training/1000-1999"."""
    first = sample // BLOCK * BLOCK
    return f"training/{first}-{min(first + BLOCK, SAMPLES) - 1}"


def _asked_for(subjects: Sequence[str]) -> tuple[list[range], bool]:
    """(ranges of training samples, whether evaluation is wanted)."""
    ranges, evaluation = [], False
    for name in map(str, subjects):
        match = re.fullmatch(r"(\d+)-(\d+)", name.strip())
        if name.strip() == "training":
            ranges.append(range(SAMPLES))
        elif name.strip() == "evaluation":
            evaluation = True
        elif match and int(match[1]) <= int(match[2]) < SAMPLES:
            ranges.append(range(int(match[1]), int(match[2]) + 1))
        else:
            raise ValueError(
                f"freihand has no subject '{name}'; there are training, evaluation and ranges of samples within "
                f"0-{SAMPLES - 1}, such as 0-27999 (the versions of a sample count once)"
            )
    return ranges, evaluation


def _open(images_path: Path, annotations_path: Path, split: str, told: Told) -> _Labels | _CocoLabels | Exception:
    """A split's labels in the form they lie there; the error where they cannot be read."""
    try:
        own = any(_lies_in(annotations_path, f"{split}_{what}.json") for what in ("xyz", "K"))
        if own or split == "evaluation":
            return _read_labels(images_path, annotations_path, split, told)
        return _read_coco(images_path, annotations_path, told)
    except (FileNotFoundError, BrokenFile) as error:
        return error


def _wanted(labels: _Labels | _CocoLabels, ranges: list[range] | None, frame_step: int) -> list[int]:
    """The labelled samples that were asked for, rising. ValueError for a range that holds none."""
    if ranges is not None:
        labelled = np.array(labels.samples)
        for asked in ranges:
            if not ((labelled >= asked.start) & (labelled < asked.stop)).any():
                raise ValueError(
                    f"no samples {asked.start}-{asked.stop - 1} in {labels.source_file}; "
                    f"it has {labelled.min()}-{labelled.max()}"
                )
    # By the sample's number, not its place in a range: the same frames whatever is asked for.
    return [
        sample
        for sample in labels.samples
        if sample % frame_step == 0 and (ranges is None or any(sample in asked for asked in ranges))
    ]


# ------------------------------------------------------------------------------------------- the corpus's own files


@dataclass(frozen=True, eq=False)
class _Labels:
    """One split in version 2's form."""

    split: str
    images_path: Path
    folder: Path  # of the split's images, relative to images_path
    K: np.ndarray  # float64 [N 3 3]
    xyz_m: np.ndarray  # float64 [M 21 3]
    source_file: str

    @property
    def samples(self) -> range:
        longest = max(len(self.K), len(self.xyz_m))
        return range(min(longest, SAMPLES) if self.split == "training" else longest)

    def frames(self, samples: Sequence[int], told: Told) -> Iterator[LabelledFrame]:
        versions = self._versions(samples, told)
        for sample in samples:
            for version in versions:
                frame = self._frame(sample, version, told)
                if frame is not None:
                    yield frame

    def _versions(self, samples: Sequence[int], told: Told) -> list[int]:
        """Those with an image on the disk. Where none has, all: what becomes of missing images is not ours to say."""
        if self.split == "evaluation":
            return [0]
        every = range(len(VERSIONS))
        there = [version for version in every if any(self._has_image(sample, version) for sample in samples)]
        absent = [version for version in every if version not in there]
        if not there or not absent:
            return list(every)
        told.note(
            f"{self.images_path / self.folder} has no image of the versions {_names(absent)} "
            f"({_file(absent[0] * SAMPLES)} and so on), only of {_names(there)}; the absent versions are left out, "
            "copy them if they were meant"
        )
        return there

    def _has_image(self, sample: int, version: int) -> bool:
        return (self.images_path / self.folder / _file(sample + SAMPLES * version)).is_file()

    def _frame(self, sample: int, version: int, told: Told) -> LabelledFrame | None:
        number = sample + SAMPLES * version
        path = self.folder / _file(number)
        found = {"K": _entry(self.K, sample, number), "xyz": _entry(self.xyz_m, sample, number)}
        for what, values in found.items():
            if values is None:
                told.skip(path.as_posix(), f"no whole entry in {self.split}_{what}.json")
                return None
        K, xyz_m = found["K"], found["xyz"]
        assert K is not None and xyz_m is not None
        if not _is_camera(K):
            told.skip(path.as_posix(), f"its entry in {self.split}_K.json is no camera matrix")
            return None
        camera = Camera(K=K, R=np.eye(3), t_m=np.zeros(3), distortion=np.zeros(5))
        joints_px = camera_to_pixel(xyz_m, camera)
        if np.isnan(joints_px).all():
            told.skip(path.as_posix(), "the whole hand is behind the camera")
            return None
        return _labelled(
            self.split, sample, version, path, joints_px, np.ones(len(HAND_21)), self.source_file, xyz_m, camera
        )


def _read_labels(images_path: Path, annotations_path: Path, split: str, told: Told) -> _Labels:
    """FileNotFoundError, BrokenFile: a split without K or xyz has no labels."""
    paths = {what: _find(annotations_path, f"{split}_{what}.json") for what in ("K", "xyz")}
    K, xyz_m = _entries(paths["K"], 3, 3), _entries(paths["xyz"], len(HAND_21), 3)
    if len(K) != len(xyz_m) and min(len(K), len(xyz_m)) < SAMPLES:
        told.fault(
            f"{paths['K']} has {len(K)} entries and {paths['xyz'].name} has {len(xyz_m)}, they should be as many; the "
            "samples that both have are read, copy the shorter one anew"
        )
    _check_scale(annotations_path, split, xyz_m, told)
    inside = Path(split) / "rgb"
    folder = next((Path(name) / inside for name in ARCHIVES if (images_path / name / inside).is_dir()), inside)
    return _Labels(split, images_path, folder, K, xyz_m, paths["xyz"].name)


def _check_scale(annotations_path: Path, split: str, xyz_m: np.ndarray, told: Told) -> None:
    """Tells of labels that do not fit training_scale.json: other units, or files of two versions of the corpus."""
    path = _lies_in(annotations_path, f"{split}_scale.json")
    if path is None:
        return
    try:
        scale_m = _entries(path)
    except BrokenFile as error:
        told.fault(str(error))
        return
    both = min(len(scale_m), len(xyz_m))
    first, second = (HAND_21.index(f"middle_{number}") for number in (1, 2))
    length = np.linalg.norm(xyz_m[:both, first] - xyz_m[:both, second], axis=-1)
    with np.errstate(all="ignore"):
        ratio = float(np.nanmedian(length / scale_m[:both]))
    if not abs(ratio - 1) <= SCALE_TOLERANCE:
        told.fault(
            f"{path} says the middle finger's first bone measures {np.nanmedian(scale_m):.4g} m, the joints in "
            f"{split}_xyz.json say {np.nanmedian(length):.4g}; use both files of one version of FreiHAND, in metres"
        )


def _entries(path: Path, *shape: int) -> np.ndarray:
    """float64 [N, *shape]: the list in a file, NaN for entries that are something else. BrokenFile where all are."""
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise BrokenFile(path, "not a list with an entry for each sample", "is it another version?")
    try:
        return shaped(path, path.stem, rows, None, *shape)
    except BrokenFile as error:
        found = np.full((len(rows), *shape), np.nan)
        for number, row in enumerate(rows):
            try:
                found[number] = shaped(path, path.stem, row, *shape)
            except BrokenFile:
                continue  # stays NaN: `_entry` gives None, and the frame is told
        if np.isnan(found).all():
            raise error
        return found


def _entry(entries: np.ndarray, sample: int, number: int) -> np.ndarray | None:
    """An image's own entry where each image has one, else its sample's; None where there is none or no whole one."""
    row = number if number < len(entries) else sample
    return entries[row] if row < len(entries) and np.isfinite(entries[row]).all() else None


def _is_camera(K: np.ndarray) -> bool:
    return bool(np.array_equal(K[2], (0.0, 0.0, 1.0)) and K[0, 0] > 0 and K[1, 1] > 0)


def _find(folder: Path, name: str) -> Path:
    found = _lies_in(folder, name)
    if found is None and name == "evaluation_xyz.json":
        raise FileNotFoundError(
            f"{name} is missing in {folder}: the evaluation images have no labels without it. It was released later, "
            "in FreiHAND_pub_v2_eval.zip; unpack that there, or leave out 'evaluation'"
        )
    if found is None:
        raise FileNotFoundError(
            f"{name} is missing in {folder}; --annotations-path names the folder of FreiHAND's json"
        )
    return found


def _lies_in(folder: Path, name: str) -> Path | None:
    return next((folder / archive / name for archive in ARCHIVES if (folder / archive / name).is_file()), None)


# ------------------------------------------------------------------------------------------------------- mmpose's json


@dataclass(frozen=True, eq=False)
class _Annotated:
    """One image of the COCO-style json."""

    path: Path  # relative to the images folder
    joints: np.ndarray  # float32 [21 3]: x, y in pixels, 0 where not labelled
    source_file: str


@dataclass(frozen=True, eq=False)
class _CocoLabels:
    """Training samples with 2D joints only."""

    hands: dict[int, _Annotated]  # by the image's number
    samples: list[int]
    source_file: str

    def frames(self, samples: Sequence[int], told: Told) -> Iterator[LabelledFrame]:
        for sample in samples:
            for version in range(len(VERSIONS)):
                hand = self.hands.get(sample + SAMPLES * version)
                if hand is None:
                    continue
                score = (hand.joints[:, 2] > 0).astype(np.float32)
                joints_px = np.where(score[:, None] > 0, hand.joints[:, :2], np.nan)
                if not score.any():
                    told.skip(hand.path.as_posix(), f"no labelled joint in {hand.source_file}")
                    continue
                yield _labelled("training", sample, version, hand.path, joints_px, score, hand.source_file)


def _read_coco(images_path: Path, annotations_path: Path, told: Told) -> _CocoLabels:
    """All files of this form together. FileNotFoundError where there is none, BrokenFile where none is whole."""
    paths = [path for pattern in COCO_FILES for path in sorted(annotations_path.glob(pattern))]
    if not paths:
        raise FileNotFoundError(
            f"no training_xyz.json and no freihand_train.json in {annotations_path}; --annotations-path names the "
            "folder of FreiHAND's json"
        )
    hands: dict[int, _Annotated] = {}
    faults: list[BrokenFile] = []
    for path in paths:
        try:
            found = _read_coco_file(images_path, path, told)
        except BrokenFile as error:
            faults.append(error)
            continue
        twice = len(found.keys() & hands.keys())
        if twice:
            told.fault(f"{path} labels {twice} images that another file labels too; the first label is taken")
        hands = found | hands
    if not hands:
        raise faults[0]
    for fault in faults:
        told.fault(str(fault))
    return _CocoLabels(hands, sorted({number % SAMPLES for number in hands}), " and ".join(path.name for path in paths))


def _read_coco_file(images_path: Path, path: Path, told: Told) -> dict[int, _Annotated]:
    data = read_json(path)
    labels = {str(row.get("image_id")): row for row in _rows(path, data, "annotations")}
    names = {str(image.get("id")): str(image.get("file_name")) for image in _rows(path, data, "images")}
    folder = _image_folder(images_path, list(names.values()))
    if stray := len(labels.keys() - names.keys()):
        told.fault(f"{path} has {stray} annotations of images that it does not list; they are left out, copy it anew")
    found: dict[int, _Annotated] = {}
    for image_id, name in names.items():
        number, joints = _number(name), _joints(labels.get(image_id))
        if number is None:
            told.skip(name, "its name is no number of a FreiHAND image")
        elif joints is None:
            told.skip(name, f"no 21 joints in {path.name}")
        else:
            found[number] = _Annotated(folder / name, joints, path.name)
    if not found:
        raise BrokenFile(path, "labels no image of FreiHAND with 21 joints", "is it another version?")
    return found


def _rows(path: Path, data: Any, name: str) -> list[dict[str, Any]]:
    rows = field(path, data if isinstance(data, dict) else {}, name, "mmpose's files list images and annotations")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BrokenFile(path, f"'{name}' is no list of objects", "is it another version?")
    return rows


def _number(name: str) -> int | None:
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isascii() and stem.isdigit() and int(stem) < SAMPLES * len(VERSIONS) else None


def _joints(row: dict[str, Any] | None) -> np.ndarray | None:
    """float32 [21 3] of an annotation, None where it has no such."""
    try:
        return np.asarray((row or {}).get("keypoints"), dtype=np.float32).reshape(len(HAND_21), 3)
    except (TypeError, ValueError):
        return None


def _image_folder(images_path: Path, names: list[str]) -> Path:
    """What the file names are relative to, seen from the images folder: where the first of them is found."""
    inside = {Path(name).parent for name in names}
    places = [
        place
        for place in (Path(archive) / folder for archive in ARCHIVES for folder in COCO_IMAGES)
        if any((images_path / place / parent).is_dir() for parent in inside)
    ]
    return next((place for name in names for place in places if (images_path / place / name).is_file()), Path())


# ------------------------------------------------------------------------------------------------------------- frames


def _labelled(
    split: str,
    sample: int,
    version: int,
    path: Path,
    joints_px: np.ndarray,
    score: np.ndarray,
    source_file: str,
    joints_cam_m: np.ndarray | None = None,
    camera: Camera | None = None,
) -> LabelledFrame:
    camera_id = PHOTO if split == "evaluation" else VERSIONS[version]
    # The principal point is the image's middle, which is all that tells the size of a picture made otherwise.
    size_wh = IMAGE_SIZE_WH if camera is None else (round(2 * camera.K[0, 2]), round(2 * camera.K[1, 2]))
    return LabelledFrame(
        image_path=path,
        key=make_key(NAME, split, camera_id, f"{sample:06d}", "p0"),
        corpus=NAME,
        subject="evaluation" if split == "evaluation" else subject_of(sample),
        action="",
        camera_id=camera_id,
        frame_index=sample,
        fps=None,
        skeleton=HAND_21.name,
        joints_cam_m=None if joints_cam_m is None else joints_cam_m.astype(np.float32),
        joints_px=joints_px.astype(np.float32),
        joint_score=score.astype(np.float32),
        camera=camera,
        box_px=_box(joints_px),
        source_file=source_file,
        image_size_wh=size_wh,
    )


def _box(joints_px: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(joints_px, 0), np.nanmax(joints_px, 0)
    grow = (high - low).max() * (BOX_ENLARGED - 1.0) / 2.0
    return np.concatenate([low - grow, high + grow]).astype(np.float32)


def _file(number: int) -> str:
    return f"{number:08d}.jpg"


def _names(versions: list[int]) -> str:
    return ", ".join(VERSIONS[version] for version in versions)
