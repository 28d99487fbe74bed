"""MPII's annotation files, each form read into the same list of people. Who belongs to which split is `mpii.py`'s.

mpii_human_pose_v1_u12_1.mat    the corpus's own: RELEASE.annolist(image.name, annorect(x1 y1 x2 y2: the head's box,
                                scale, objpos, annopoints.point(id x y is_visible))), img_train, act(act_name)
train.h5 valid.h5 annot.h5      pose-hg-train (Newell et al. 2016): imgname person center scale part visible normalize
train.json valid.json ...       Simple Baselines and HRNet: image center scale joints joints_vis
mpii_annotations.json           convolutional pose machines, pytorch-pose: img_paths objpos scale_provided joint_self
                                isValidation people_index img_width img_height
mpii_train.npz                  SPIN (Kolotouros et al. 2019): imgname center scale part

Joints are mpii_16 in the .mat's own numbering, spin_24 in the .npz. What to know of them:
- A joint that is not labelled has no point (.mat), stands at (0, 0) (.h5, mpii_annotations.json, .npz) or (-1, -1)
  (.json). Labels may lie off the image by some pixels, so a negative coordinate alone means nothing.
- A label may be of a hidden joint: score 1 where it is seen, 0.5 where not. joints_vis of the .json is 1 for both; the
  .mat leaves is_visible empty for the upper neck and the top of the head, which are the ends of the head's box: seen.
- `center` and `scale` (the person's height / 200 px) come raw or adjusted, center_y + 15 scale and scale * 1.25, "so
  that cropping is less likely to take feet out": adjusted in train.h5, valid.h5 and so in the .npz made of them, raw in
  annot.h5 and all else. Raw centers are whole numbers, which tells the two apart.
- .h5 and .npz have cut the coordinates to whole numbers. Pixels count from 0: of the labels in 1280 x 720 images 40
  stand in row 719 and 2 in row 720. (HRNet subtracts 1, taking them for MATLAB's.)
- The head's size, PCKh's unit, is 0.6 of the diagonal of the head's box: `normalize` of the .h5.
- The .npz's `S` are the 3D joints of a body fitted to the 2D ones. A fit is no label: it is not read.
- mpii_annotations.json comes in two versions. The one with 25,925 people to train on, 3,679 of them in validation
  images, was written over an older list in memory: joints that a person lacks kept the values of whoever stood in that
  place of the older list. Those are taken as missing again, see `_clear_strangers`. The one with 22,246 is right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from humanpose3d.skeletons import MPII_16, SPIN_24
from humanpose3d.sources.reading import (
    BrokenFile,
    Told,
    field,
    read_hdf5,
    read_json,
    read_mat,
    read_npz,
    shaped,
)

HEAD_SHARE = 0.6  # of the head box's diagonal: PCKh's unit
HIDDEN_SCORE = 0.5  # of a joint that is labelled but not seen
LOWERED, ENLARGED = 15.0, 1.25  # the adjustment: pixels of the center per unit of scale, factor of the scale
UNLABELLED = "no joint is labelled"


@dataclass(frozen=True, eq=False)
class Person:
    """One labelled person of one image."""

    image: str  # file name, "015601864.jpg"
    number: int | None  # their place among the image's people, where the file tells
    centre_px: np.ndarray  # float64 [2], raw
    scale: float  # raw: height / 200 px
    joints_px: np.ndarray  # float32 [J 2], NaN where not labelled
    joint_score: np.ndarray  # float32 [J]: 0 not labelled, 0.5 hidden, 1 seen
    skeleton: str = MPII_16.name
    split: str | None = None  # "train" or "valid", where the file tells
    head_size_px: float | None = None
    action: str = ""
    image_size_wh: tuple[int, int] | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        """What finds the same person in another form: two people of one image never have the same centre."""
        return self.image, round(float(self.centre_px[0])), round(float(self.centre_px[1]))


def read_people(path: Path, told: Told) -> list[Person]:
    """The labelled people of any of the files, in its order. BrokenFile where it is none of them, or not whole."""
    match path.suffix.lower():
        case ".mat":
            return _of_mat(path, told)
        case ".h5" | ".hdf5":
            return _of_h5(path, told)
        case ".json":
            return _of_json(path, told)
        case ".npz":
            return _of_npz(path, told)
    raise BrokenFile(path, "neither .mat, .h5, .json nor .npz", "give one of MPII's annotation files, or their folder")


# ------------------------------------------------------------------------------------------------------------- .mat


def _of_mat(path: Path, told: Told) -> list[Person]:
    release = field(path, read_mat(path), "RELEASE", "expected the corpus's own mpii_human_pose_v1_u12_1.mat")
    images, is_train = _entries(_part(release, "annolist")), _entries(_part(release, "img_train"))
    activities = _entries(_part(release, "act")) or [None] * len(images)
    if not images or not len(images) == len(is_train) == len(activities):
        raise BrokenFile(
            path,
            f"annolist has {len(images)} images, img_train {len(is_train)} and act {len(activities)}; expected as many",
            "is it another version?",
        )
    people: list[Person] = []
    named: set[str] = set()
    for image, train, activity in zip(images, is_train, activities, strict=True):
        if not train:
            continue  # the labels of test images are not published
        name = _file_name(_part(image, "image", "name") or "")
        if not name:
            raise BrokenFile(path, "an image of annolist has no name", "is it another version?")
        if name in named:
            told.fault(f"{path} names {name} twice; the second entry is left out; copy it anew")
            continue
        named.add(name)
        action = str(_part(activity, "act_name") or "")
        rectangles = _entries(_part(image, "annorect"))
        people += [
            person
            for number, rectangle in enumerate(rectangles)
            if (person := _of_rectangle(name, number, rectangle, action, told)) is not None
        ]
    return people


def _of_rectangle(name: str, number: int, rectangle: Any, action: str, told: Told) -> Person | None:
    """A person of the .mat; None for those whom nobody has labelled."""
    points = _entries(_part(rectangle, "annopoints", "point"))
    if not points:
        return None
    where = f"{name} p{number}"
    centre = [_number(_part(rectangle, "objpos", axis)) for axis in "xy"]
    scale = _number(_part(rectangle, "scale"))
    if None in centre or not scale:
        told.skip(where, "no position or scale of the person")
        return None
    joints_px, visible = np.zeros((len(MPII_16), 2)), np.zeros(len(MPII_16))
    for point in points:
        values = [_number(_part(point, part)) for part in ("id", "x", "y")]
        if None in values or not 0 <= values[0] < len(MPII_16):  # type: ignore[operator]
            told.skip(where, "a joint without a known number or place")
            return None
        joint, seen = int(values[0]), _number(_part(point, "is_visible"))  # type: ignore[arg-type]
        joints_px[joint], visible[joint] = values[1:], 1.0 if seen is None else seen
    corners = [_number(_part(rectangle, side)) for side in ("x1", "y1", "x2", "y2")]
    head = None if None in corners else np.subtract(corners[2:], corners[:2])  # type: ignore[arg-type]
    return _person(
        told, name, number, np.array(centre, dtype=np.float64), scale, joints_px, visible,
        head_size_px=None if head is None else HEAD_SHARE * float(np.linalg.norm(head)), action=action,
    )  # fmt: skip


def _part(struct: Any, *names: str) -> Any:
    """struct.a.b ... of a MATLAB structure; None where a part is missing or empty."""
    for name in names:
        struct = getattr(struct, name, None)
        if struct is None or (isinstance(struct, np.ndarray) and not struct.size):
            return None
    return struct


def _entries(value: Any) -> list[Any]:
    """MATLAB makes no difference between one structure and a list of one."""
    return [] if value is None else list(np.atleast_1d(np.asarray(value, dtype=object)).ravel())


def _number(value: Any) -> float | None:
    """A float of a number, or of a number written out, as some of the .mat's is_visible are; None of anything else."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


# -------------------------------------------------------------------------------------------------------------- .h5


def _of_h5(path: Path, told: Told) -> list[Person]:
    data, expected = read_hdf5(path), "expected train.h5, valid.h5 or annot.h5 of pose-hg-train"
    names = [_file_name(name) for name in _texts(path, field(path, data, "imgname", expected))]
    shapes: dict[str, tuple[int, ...]] = {
        "center": (2,), "scale": (), "part": (16, 2), "visible": (16,), "normalize": (),
    }  # fmt: skip
    columns: dict[str, Any] = {
        name: shaped(path, name, field(path, data, name, expected), None, *shape) for name, shape in shapes.items()
    }
    optional: dict[str, Any] = {
        name: shaped(path, name, data[name], None) for name in ("person", "istrain") if name in data
    }
    _check_rows(path, {"imgname": names, **columns, **optional})
    centres, scales = _raw(columns["center"], columns["scale"], adjusted="istrain" not in data)
    labelled = optional["istrain"] == 1 if "istrain" in optional else np.ones(len(names), dtype=bool)
    people = [
        _person(
            told, names[row], int(optional["person"][row]) if "person" in optional else None, centres[row],
            float(scales[row]), columns["part"][row], columns["visible"][row],
            head_size_px=float(columns["normalize"][row]),
        )
        for row in np.flatnonzero(labelled)
    ]  # fmt: skip
    return [person for person in people if person is not None]


def _texts(path: Path, values: np.ndarray) -> list[str]:
    """Image names, stored as bytes, as texts, or letter by letter as numbers with zeros after the last."""
    if values.ndim == 2 and values.dtype.kind in "iuf":
        if ((values < 0) | (values > 127)).any():
            raise BrokenFile(path, "'imgname' holds numbers that are no letters", "is it another version?")
        values = np.array([bytes(row.astype(np.uint8)).rstrip(b"\0") for row in values])
    if values.ndim != 1 or values.dtype.kind not in "SUO":
        raise BrokenFile(path, "'imgname' is no list of file names", "is it another version?")
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in values]


# ------------------------------------------------------------------------------------------------------------ .json


def _of_json(path: Path, told: Told) -> list[Person]:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BrokenFile(path, "not a list of people", "is it one of MPII's annotation files?")
    if any("joint_self" in row for row in rows):
        return _of_pose_machines(path, rows, told)
    if any("joints" in row for row in rows):
        return _of_baselines(path, rows, told)
    known = ", ".join(sorted(rows[0])[:8])
    raise BrokenFile(
        path,
        f"its people have no labelled joints (they have {known})",
        "test.json has none; give train.json, valid.json",
    )


def _of_baselines(path: Path, rows: list[dict], told: Told) -> list[Person]:
    """The .json of Simple Baselines and HRNet."""
    whole = [row for row in rows if _is_whole(row, "image", {"center": (2,), "scale": (), "joints": (16, 2)}, told)]
    if not whole:
        raise BrokenFile(path, "nobody has image, center, scale and 16 joints", "is it another version?")
    centres, scales = (
        np.array([row["center"] for row in whole], float),
        np.array([row["scale"] for row in whole], float),
    )
    centres, scales = _raw(centres, scales, adjusted=False)
    people = []
    for row, centre, scale in zip(whole, centres, scales, strict=True):
        try:
            visible = np.asarray(row.get("joints_vis", np.ones(16)), dtype=np.float64).ravel()
        except (TypeError, ValueError):
            visible = np.zeros(0)
        if visible.shape != (16,):
            told.skip(_file_name(row["image"]), "joints_vis is not of 16 joints")
            continue
        people.append(
            _person(told, _file_name(row["image"]), None, centre, float(scale), np.array(row["joints"], float), visible)
        )
    return [person for person in people if person is not None]


def _of_pose_machines(path: Path, rows: list[dict], told: Told) -> list[Person]:
    """mpii_annotations.json."""
    shapes = {"objpos": (2,), "scale_provided": (), "joint_self": (16, 3), "isValidation": ()}
    whole = [row for row in rows if _is_whole(row, "img_paths", shapes, told)]
    if not whole:
        raise BrokenFile(
            path, "nobody has img_paths, objpos, scale_provided, isValidation and 16 joints", "is it another version?"
        )
    joints = np.array([row["joint_self"] for row in whole], dtype=np.float64)
    names = [_file_name(row["img_paths"]) for row in whole]
    is_valid = np.array([bool(row["isValidation"]) for row in whole])
    held_out = {name for name, valid in zip(names, is_valid, strict=True) if valid}
    excluded = np.array([name in held_out for name in names]) & ~is_valid
    if excluded.any():
        strangers = _clear_strangers(joints, excluded)
        told.fault(
            f"{path}: {excluded.sum()} of the people to train on stand in validation images and {strangers} joints are "
            "other people's: the first are left out, the second taken as not labelled; get the version with 22,246 "
            "people to train on and 2,958 to validate"
        )
    people = []
    for row, name, valid, out, person in zip(whole, names, is_valid, excluded, joints, strict=True):
        if out:
            continue
        size = [_number(row.get(side)) for side in ("img_width", "img_height")]
        index = _number(row.get("people_index"))
        people.append(
            _person(
                told, name, None if index is None else int(index) - 1, np.array(row["objpos"], float),
                float(row["scale_provided"]), person[:, :2], person[:, 2], split="valid" if valid else "train",
                image_size_wh=None if None in size else (int(size[0]), int(size[1])),  # type: ignore[arg-type]
            )
        )  # fmt: skip
    return [person for person in people if person is not None]


def _clear_strangers(joints: np.ndarray, excluded: np.ndarray) -> int:
    """Sets joints that were left over from another person to 0, in place; how many.

    joints: [N 16 3]. excluded: bool [N], people to train on in validation images, whom the older list did not have. Its
    k-th person was written where the k-th of this list is, so that is whom the leftovers are of: equal to the last
    digit, and nobody shares a joint with them by chance.
    """
    before = np.flatnonzero(~excluded)  # in the older list's order, their places in this one
    places = np.arange(len(before))
    same = (joints[places, :, :2] == joints[before, :, :2]).all(-1) & (joints[places, :, :2] != 0).any(-1)
    same[places == before] = False
    joints[: len(before)][same] = 0.0
    return int(same.sum())


def _is_whole(row: dict, image: str, shapes: dict[str, tuple[int, ...]], told: Told) -> bool:
    """Whether a row has an image and numbers of these shapes; told otherwise."""
    name = row.get(image)
    if not isinstance(name, str) or not name:
        told.skip(str(name), f"no '{image}'")
        return False
    for part, shape in shapes.items():
        try:
            fits = np.array(row[part], dtype=np.float64).shape == shape
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            wanted = " x ".join(map(str, shape)) or "one"
            told.skip(_file_name(name), f"'{part}' is not {wanted} numbers" if shape else f"'{part}' is not a number")
            return False
    return True


# ------------------------------------------------------------------------------------------------------------- .npz


def _of_npz(path: Path, told: Told) -> list[Person]:
    data, expected = read_npz(path), "expected SPIN's mpii_train.npz"
    names = [_file_name(name) for name in _texts(path, np.asarray(field(path, data, "imgname", expected)))]
    centres = shaped(path, "center", field(path, data, "center", expected), None, 2)
    scales = shaped(path, "scale", field(path, data, "scale", expected), None)
    parts = shaped(path, "part", field(path, data, "part", expected), None, 24, 3)
    _check_rows(path, {"imgname": names, "center": centres, "scale": scales, "part": parts})
    centres, scales = _raw(centres, scales, adjusted=True)
    people = []
    for name, centre, scale, part in zip(names, centres, scales, parts, strict=True):
        labelled_px = np.where(part[:, 2:] > 0, part[:, :2], 0.0)
        people.append(
            _person(
                told, name, None, centre, float(scale), labelled_px, np.ones(24), skeleton=SPIN_24.name, split="train"
            )
        )  # fmt: skip
    return [person for person in people if person is not None]


# ---------------------------------------------------------------------------------------------------------- all forms


def _person(
    told: Told,
    image: str,
    number: int | None,
    centre_px: np.ndarray,
    scale: float,
    joints_px: np.ndarray,
    visible: np.ndarray,
    *,
    head_size_px: float | None = None,
    **more: Any,
) -> Person | None:
    """From joints with (0, 0) or (-1, -1) for those that are not labelled. None, and told, where none is."""
    missing = (joints_px == 0).all(-1) | (joints_px == -1).all(-1) | ~np.isfinite(joints_px).all(-1)
    where = image if number is None else f"{image} p{number}"
    if missing.all():
        told.skip(where, UNLABELLED)
        return None
    if not (np.isfinite(centre_px).all() and np.isfinite(scale) and scale > 0):
        told.skip(where, "no position or scale of the person")
        return None
    return Person(
        image=image,
        number=number,
        centre_px=centre_px,
        scale=scale,
        joints_px=np.where(missing[:, None], np.nan, joints_px).astype(np.float32),
        joint_score=np.where(missing, 0.0, np.where(visible > 0, 1.0, HIDDEN_SCORE)).astype(np.float32),
        head_size_px=head_size_px if head_size_px is not None and head_size_px > 0 else None,
        **more,
    )


def _raw(centres: np.ndarray, scales: np.ndarray, *, adjusted: bool) -> tuple[np.ndarray, np.ndarray]:
    """[N 2] and [N] without the adjustment. adjusted: what the file is known for, where its numbers do not tell."""
    undone = centres - np.outer(scales / ENLARGED * LOWERED, (0.0, 1.0))
    whole, whole_undone = _share_of_whole(centres[:, 1]), _share_of_whole(undone[:, 1])
    if max(whole, whole_undone) > 0.5:
        adjusted = whole_undone > whole
    return (undone, scales / ENLARGED) if adjusted else (centres, scales)


def _share_of_whole(values: np.ndarray) -> float:
    return float((np.abs(values - np.round(values)) < 1e-3).mean()) if len(values) else 0.0


def _check_rows(path: Path, columns: dict[str, Any]) -> None:
    """BrokenFile where columns differ in length, or hold nobody."""
    counts = {len(column) for column in columns.values()}
    if len(counts) > 1:
        found = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise BrokenFile(path, f"its columns differ in length ({found})")
    if counts == {0}:
        raise BrokenFile(path, "nobody is in it")


def _file_name(path: Any) -> str:
    """All images lie in one folder; SPIN's names begin with it."""
    return PurePosixPath(str(path).replace("\\", "/")).name


# ------------------------------------------------------------------------------------------------------ head sizes


def with_heads(people: list[Person], others: list[Person]) -> list[Person]:
    """The same people with head sizes, and which joints are hidden, from another form that tells."""
    found = {other.place: other for other in others}
    return [_with_head(person, found.get(person.place)) for person in people]


def _with_head(person: Person, other: Person | None) -> Person:
    if other is None:
        return person
    score = person.joint_score
    if other.skeleton == person.skeleton:
        score = np.where((score > 0) & (other.joint_score > 0), other.joint_score, score)
    return replace(
        person,
        head_size_px=person.head_size_px or other.head_size_px,
        joint_score=score,
        action=person.action or other.action,
    )


def with_heads_of_gt(people: list[Person], path: Path) -> list[Person]:
    """The people of valid.json with head sizes of gt_valid.mat, which HRNet has beside it: the same people in the same
    order. headboxes_src: [2 2 N], corner, axis. BrokenFile where they are not the same."""
    data, expected = read_mat(path), "expected HRNet's gt_valid.mat"
    boxes = shaped(path, "headboxes_src", field(path, data, "headboxes_src", expected), 2, 2, len(people))
    joints = shaped(path, "pos_gt_src", field(path, data, "pos_gt_src", expected), 16, 2, len(people))
    missing = shaped(path, "jnt_missing", field(path, data, "jnt_missing", expected), 16, len(people))
    apart = np.abs(joints.transpose(2, 0, 1) - np.array([person.joints_px for person in people])).max(-1)
    both = (missing.T == 0) & np.isfinite(apart)
    if (apart[both] > 1.5).any():
        raise BrokenFile(path, "its joints are not those of valid.json", "take both from the same place")
    sizes = HEAD_SHARE * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    return [replace(person, head_size_px=float(size)) for person, size in zip(people, sizes, strict=True)]
