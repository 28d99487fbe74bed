"""The studio written as MPII Human Pose: anybody, alone or two to a picture, in single images with 2D labels.

LAYOUTS are the forms that its annotations are held in; their reader is `sources/mpii.py`. All show the same pictures
and may be written into one folder:
json              train.json, valid.json, gt_valid.mat (HRNet's)
h5                train.h5, valid.h5 (pose-hg-train's): center and scale adjusted, coordinates cut to whole numbers
mat               mpii_human_pose_v1_u12_1.mat, and train_images.txt, valid_images.txt of pose-hg-train, for the split
spin              mpii_train.npz (SPIN's): people whose joints are all labelled, to train on
mpii_annotations  mpii_annotations.json (pytorch-pose's)
Of a validation image with two people one is for validation and the other in no list but the .mat, as in the corpus.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.camera import Camera, camera_to_pixel, world_to_camera
from humanpose3d.files import write_whole
from humanpose3d.reports import StageReport, progress
from humanpose3d.skeletons import COCO_17, MPII_16, SPIN_24, shared_joints
from humanpose3d.studio.film import Scene, film_scene, random_scene
from humanpose3d.studio.joint_sets import joints_in
from humanpose3d.studio.motion import ACTIONS
from humanpose3d.studio.room import CAMERA_IDS
from humanpose3d.studio.shoot import claim, encode_jpeg, in_processes

LAYOUTS = ("json", "h5", "mat", "spin", "mpii_annotations")
SUBJECTS = ("train", "valid")
IMAGES_PER_SUBJECT = {"train": 2, "valid": 1}  # of three images
FIRST_PERSON = 300  # of the seeds' numbers, so that nobody here is anybody of another corpus
TWO_IN = 4  # of so many images one shows two people
CLOSE_UP = 5  # of so many people one is too large for the picture
NAME_STEP = 1_000_003  # between the images' nine-digit names
PLACES = 4  # decimals of a coordinate
JOINT_NAMES = "rank rkne rhip lhip lkne lank pelv thor neck head rwri relb rsho lsho lelb lwri".split()
MAT_ORDER = (6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15)  # of the points of a person
MAT_HEADER = b"MATLAB 5.0 MAT-file, humanpose3d studio".ljust(116)  # scipy's own tells the time: never the same bytes


@dataclass(frozen=True, eq=False)
class StudioPerson:
    """One person's labels, as MPII has them."""

    centre: tuple[int, int]  # raw, pixels
    scale: float  # raw
    joints_px: np.ndarray  # float64 [16 2], MPII_16; NaN off the image
    visible: np.ndarray  # int64 [16], 0 also where hidden
    head_box: tuple[int, int, int, int]  # x1 y1 x2 y2
    joints_cam_m: np.ndarray  # float64 [24 3], SPIN_24

    @property
    def head_size_px(self) -> float:
        x1, y1, x2, y2 = self.head_box
        return 0.6 * float(np.hypot(x2 - x1, y2 - y1))

    @property
    def adjusted(self) -> tuple[list[float], float]:
        """Centre and scale as pose-hg-train's files and those made of them have them."""
        return [float(self.centre[0]), self.centre[1] + 15.0 * self.scale], self.scale * 1.25


@dataclass(frozen=True, eq=False)
class StudioPicture:
    """One image of the studio's MPII and who is in it."""

    name: str
    subject: str
    activity: str
    people: tuple[StudioPerson, ...]

    @property
    def listed(self) -> tuple[StudioPerson, ...]:
        """Those who are in the lists of the split."""
        return self.people if self.subject == "train" else self.people[:1]


@dataclass(frozen=True)
class _Job:
    out: Path
    index: int
    size: int
    seed: int


def write_mpii(
    out: Path,
    *,
    subjects: Sequence[str] = SUBJECTS,
    frames_per_take: int = 20,
    size: int = 256,
    seed: int = 0,
    workers: int = 1,
    layout: str = LAYOUTS[0],
) -> StageReport:
    """`images/` and `annotations/` below `out`: `frames_per_take` images of `valid` and twice as many of `train`.

    Images that exist are kept: a run stopped anywhere and started again ends with the same bytes. A folder filmed with
    another seed or size is refused.
    """
    out = Path(out)
    wanted = _check(subjects, frames_per_take, size, layout)
    claim(out, {"seed": seed, "size": size})
    report = StageReport("fake")
    jobs = [
        _Job(out, index, size, seed)
        for index in range(frames_per_take * sum(IMAGES_PER_SUBJECT.values()))
        if subject_of(index) in wanted
    ]
    pictures = []
    with progress("filming", len(jobs)) as bar:
        for picture, written in in_processes(_film, jobs, workers):
            report.count("images" if written else "already there")
            pictures.append(picture)
            bar.advance()
    pictures.sort(key=lambda picture: picture.name)
    for name, content in _WRITERS[layout](pictures).items():
        write_whole(out / "annotations" / name, content)
    report.inputs = len(jobs)
    report.summary = (
        f"filmed {report.counts['images']} images of {' and '.join(wanted)} as MPII's {layout}"
        f" ({report.counts['already there']} were there) in {out}"
    )
    report.facts |= {"out": str(out), "subjects": list(wanted), "layout": layout, "seed": seed, "size": size}
    return report


def _check(subjects: Sequence[str], images: int, size: int, layout: str) -> tuple[str, ...]:
    if layout not in LAYOUTS:
        raise ValueError(f"the studio writes mpii as {', '.join(LAYOUTS)}, not as '{layout}'")
    unknown = [subject for subject in subjects if subject not in SUBJECTS]
    if unknown:
        raise ValueError(f"the studio's mpii has no subject '{unknown[0]}'; it has {', '.join(SUBJECTS)}")
    if images < 1 or size < 32:
        raise ValueError(f"frames_per_take is {images} and size {size}; at least 1 image of 32 px is needed")
    wanted = tuple(name for name in SUBJECTS if name in subjects and (layout != "spin" or name == "train"))
    if not wanted:
        raise ValueError("layout spin holds people to train on; ask for subject train")
    return wanted


# -------------------------------------------------------------------------------------------------------- pictures


def subject_of(index: int) -> str:
    """Every third image is for validation."""
    return "valid" if index % 3 == 2 else "train"


def image_name(index: int) -> str:
    """'001000003.jpg': nine digits, as the corpus has them."""
    return f"{(index + 1) * NAME_STEP % 10**9:09d}.jpg"


def film_picture(index: int, *, size: int = 256, seed: int = 0) -> tuple[StudioPicture, np.ndarray]:
    """Labels and pixels, uint8 [H W 3], of one image. Two people have a half of it each."""
    edges = (0, size // 2, size) if index % TWO_IN == TWO_IN - 1 else (0, size)
    image = np.empty((size, size, 3), dtype=np.uint8)
    people, activity = [], ""
    for place, (left, right) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        # Numbers of random scenes: far apart between seeds, so that two seeds show nobody in common.
        scene_seed = (seed * 1_000_000) + FIRST_PERSON + 2 * index + place
        person, pixels, activity = _film_person(scene_seed, left, right, size)
        people.append(person)
        image[:, left:right] = pixels[:, left:right]
    return StudioPicture(image_name(index), subject_of(index), activity, tuple(people)), image


def _film(job: _Job) -> tuple[StudioPicture, bool]:
    """(labels, whether the image had to be written)."""
    picture, image = film_picture(job.index, size=job.size, seed=job.seed)
    path = job.out / "images" / picture.name
    if path.exists():
        return picture, False
    write_whole(path, encode_jpeg(image))
    return picture, True


def _film_person(scene_seed: int, left: int, right: int, size: int) -> tuple[StudioPerson, np.ndarray, str]:
    """Somebody in the columns from `left` to `right`: labels, pixels, what they do."""
    scene, rng = random_scene(scene_seed, size=size), np.random.default_rng(scene_seed)
    frame, camera_id = int(rng.integers(0, 24)), int(rng.choice(CAMERA_IDS))
    joints = scene.joints_at(frame)
    camera = _zoomed(scene, camera_id, frame, left, right, rng)
    filmed = film_scene(replace(scene, cameras={camera_id: camera}), camera_id, frame, seed=scene_seed)
    joints_px = camera_to_pixel(world_to_camera(joints_in(joints, MPII_16), camera), camera)
    inside = np.all((joints_px >= (left, 0)) & (joints_px <= (right - 1, size - 1)), axis=-1)
    hidden = np.zeros(len(MPII_16), dtype=bool)
    ours, coco = shared_joints(MPII_16, COCO_17)
    hidden[ours] = filmed.keypoint_flag[coco] != 2
    low, high = joints_px.min(0), joints_px.max(0)
    person = StudioPerson(
        centre=(round((low[0] + high[0]) / 2), round((low[1] + high[1]) / 2)),
        scale=round(1.1 * float(max(high - low)) / 200.0, 3),
        joints_px=np.where(inside[:, None], joints_px.round(PLACES), np.nan),
        visible=(inside & ~hidden).astype(np.int64),
        head_box=_head_box(joints_px),
        joints_cam_m=world_to_camera(joints_in(joints, SPIN_24), camera),
    )
    return person, filmed.image, ACTIONS[scene.action][0].lower()


def _zoomed(scene: Scene, camera_id: int, frame: int, left: int, right: int, rng: np.random.Generator) -> Camera:
    """The scene's camera, with the person large in the middle of the columns, or too large for them."""
    camera = scene.cameras[camera_id]
    joints_px = camera_to_pixel(world_to_camera(scene.joints_at(frame).h36m, camera), camera)
    low, high = joints_px.min(0), joints_px.max(0)
    share = rng.uniform(1.1, 1.5) if rng.integers(CLOSE_UP) == 0 else rng.uniform(0.5, 0.85)
    zoom = share * float(min(scene.size / (high - low)[1], (right - left) / (high - low)[0]))
    middle = np.array([(left + right - 1) / 2, (scene.size - 1) / 2])
    K = camera.K.copy()
    K[:2, :2] *= zoom
    K[:2, 2] = zoom * (camera.K[:2, 2] - (low + high) / 2) + middle
    return replace(camera, K=K)


def _head_box(joints_px: np.ndarray) -> tuple[int, int, int, int]:
    """The head's rectangle, as long as from the upper neck to the top of the head."""
    neck, top = joints_px[MPII_16.index("upper_neck")], joints_px[MPII_16.index("head_top")]
    length = max(float(np.linalg.norm(top - neck)), 4.0)
    (x, y), half = (neck + top) / 2, length / 2
    return round(x - 0.75 * half), round(y - half), round(x + 0.75 * half), round(y + half)


# ------------------------------------------------------------------------------------------------------ annotations

Files = dict[str, bytes]


def _labelled(person: StudioPerson) -> np.ndarray:
    """bool [16]."""
    return np.isfinite(person.joints_px).all(-1)


def _of(pictures: Iterable[StudioPicture], subject: str) -> list[tuple[StudioPicture, int, StudioPerson]]:
    """(picture, number in it, person) of those in a subject's list."""
    return [
        (picture, number, person)
        for picture in pictures
        if picture.subject == subject
        for number, person in enumerate(picture.listed)
    ]


def _json_files(pictures: list[StudioPicture]) -> Files:
    files: Files = {}
    for subject in SUBJECTS:
        if people := _of(pictures, subject):
            files[f"{subject}.json"] = json.dumps(
                [
                    {
                        "joints_vis": _labelled(person).astype(int).tolist(),
                        "joints": np.nan_to_num(person.joints_px, nan=-1.0).tolist(),
                        "image": picture.name,
                        "scale": person.scale,
                        "center": [float(value) for value in person.centre],
                    }
                    for picture, _, person in people
                ]
            ).encode()
    if people := _of(pictures, "valid"):
        files["gt_valid.mat"] = _mat(
            {
                "dataset_joints": np.array([JOINT_NAMES], dtype=object),
                "jnt_missing": np.array([~_labelled(person) for *_, person in people], dtype=np.float64).T,
                "pos_gt_src": np.array([np.nan_to_num(p.joints_px) for *_, p in people]).transpose(1, 2, 0),
                "headboxes_src": np.array([np.reshape(p.head_box, (2, 2)) for *_, p in people], float).transpose(
                    1, 2, 0
                ),
            }
        )
    return files


def _pose_machines_files(pictures: list[StudioPicture]) -> Files:
    rows = [
        {
            "dataset": "MPI",
            "isValidation": float(subject == "valid"),
            "img_paths": picture.name,
            "objpos": [float(value) for value in person.centre],
            "joint_self": np.column_stack(
                [np.nan_to_num(person.joints_px), np.where(_labelled(person), person.visible, 0)]
            ).tolist(),
            "scale_provided": person.scale,
            "annolist_index": float(pictures.index(picture) + 1),
            "people_index": float(number + 1),
            "numOtherPeople": float(len(picture.people) - 1),
        }
        for subject in SUBJECTS
        for picture, number, person in _of(pictures, subject)
    ]
    return {"mpii_annotations.json": json.dumps(sorted(rows, key=lambda row: row["annolist_index"])).encode()}


def _h5_files(pictures: list[StudioPicture]) -> Files:
    return {f"{subject}.h5": _h5(pictures, people) for subject in SUBJECTS if (people := _of(pictures, subject))}


def _h5(pictures: list[StudioPicture], people: list[tuple[StudioPicture, int, StudioPerson]]) -> bytes:
    import h5py

    everybody = [person for *_, person in people]
    cut = np.array([np.trunc(np.nan_to_num(person.joints_px)) for person in everybody])
    columns = {
        "imgname": np.array([picture.name.encode() for picture, *_ in people], dtype="S13"),
        "index": np.array([float(pictures.index(picture)) for picture, *_ in people]),
        "person": np.array([float(number) for _, number, _ in people]),
        "center": np.array([person.adjusted[0] for person in everybody]),
        "scale": np.array([person.adjusted[1] for person in everybody]),
        "part": cut,
        "visible": np.array([person.visible for person in everybody], dtype=np.float64),
        "normalize": np.array([person.head_size_px for person in everybody]),
        "torsoangle": np.array([_torso_angle(joints) for joints in cut]),
    }
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, column in columns.items():
            file.create_dataset(name, data=column, compression="gzip")
    return stream.getvalue()


def _torso_angle(joints_px: np.ndarray) -> float:
    """Degrees, 0 upright; 0 also where it is not known."""
    pelvis, thorax = joints_px[MPII_16.index("pelvis")], joints_px[MPII_16.index("thorax")]
    if pelvis[0] == 0 or thorax[0] == 0:
        return 0.0
    return 90.0 + float(np.degrees(np.arctan2(thorax[1] - pelvis[1], thorax[0] - pelvis[0])))


def _spin_files(pictures: list[StudioPicture]) -> Files:
    people = [(picture, person) for picture, _, person in _of(pictures, "train") if _labelled(person).all()]
    if not people:
        raise ValueError("nobody shows all joints, and spin holds no others; ask for more --frames-per-take")
    part = np.zeros((len(people), len(SPIN_24), 3))
    spin, ours = shared_joints(SPIN_24, MPII_16)
    for row, (_, person) in enumerate(people):
        part[row, spin] = np.column_stack([np.trunc(person.joints_px[ours]), np.ones(len(ours))])
    pelvis = SPIN_24.index("pelvis")
    fitted = np.array([person.joints_cam_m - person.joints_cam_m[pelvis] for _, person in people])
    stream = io.BytesIO()
    np.savez(
        stream,
        imgname=np.array([f"images/{picture.name}" for picture, _ in people]),
        center=np.array([person.adjusted[0] for _, person in people]),
        scale=np.array([person.adjusted[1] for _, person in people]),
        part=part,
        S=np.concatenate([fitted, np.ones((*fitted.shape[:2], 1))], axis=-1),
    )
    return {"mpii_train.npz": stream.getvalue()}


# ------------------------------------------------------------------------------------------------- the corpus's .mat

_NONE = np.zeros((0, 0), dtype=np.uint8)  # MATLAB's []


def _mat_files(pictures: list[StudioPicture]) -> Files:
    test = [f"{999_000_000 + number:09d}.jpg" for number in range(2)]  # without labels, as the corpus's test images
    images = [_mat_image(picture, first=picture is pictures[0]) for picture in pictures]
    images += [_mat_entry(name, _struct([_mat_place((number, number), 1.0)])) for number, name in enumerate(test)]
    activities = [{"cat_name": "studio", "act_name": picture.activity, "act_id": 1} for picture in pictures]
    activities += [{"cat_name": _NONE, "act_name": _NONE, "act_id": -1}] * len(test)
    single = [np.arange(1, len(picture.people) + 1, dtype=np.uint8)[:, None] for picture in pictures]
    release = {
        "annolist": _struct(images),
        "img_train": np.array([[1] * len(pictures) + [0] * len(test)], dtype=np.uint8),
        "version": "12",
        "single_person": _cells(single + [np.ones((1, 1), dtype=np.uint8)] * len(test)).T,
        "act": _struct(activities).T,
        "video_list": _cells(["studio"]),
    }
    files = {"mpii_human_pose_v1_u12_1.mat": _mat({"RELEASE": _struct([release])})}
    for subject in SUBJECTS:  # a line a person
        lines = [f"{picture.name}\n" for picture, *_ in _of(pictures, subject)]
        if lines:
            files[f"{subject}_images.txt"] = "".join(lines).encode()
    return files


def _mat_image(picture: StudioPicture, *, first: bool) -> dict[str, Any]:
    people = [_mat_person(person) for person in picture.people]
    if first:  # somebody whom nobody has labelled, after those who are
        people.append(dict.fromkeys(people[0], _NONE) | _mat_place((1, 1), 1.0))
    return _mat_entry(picture.name, _struct(people))


def _mat_entry(name: str, rectangles: np.ndarray) -> dict[str, Any]:
    return {"image": _struct([{"name": name}]), "annorect": rectangles, "frame_sec": _NONE, "vididx": _NONE}


def _mat_person(person: StudioPerson) -> dict[str, Any]:
    x1, y1, x2, y2 = person.head_box
    points = [
        {
            "x": person.joints_px[joint, 0],
            "y": person.joints_px[joint, 1],
            "id": joint,
            # The ends of the head come from its box, and have no visibility.
            "is_visible": _NONE if MPII_16.joints[joint] in ("upper_neck", "head_top") else int(person.visible[joint]),
        }
        for joint in MAT_ORDER
        if _labelled(person)[joint]
    ]
    annopoints = _struct([{"point": _struct(points)}]) if points else _NONE
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "annopoints": annopoints} | _mat_place(person.centre, person.scale)


def _mat_place(centre: tuple[int, int], scale: float) -> dict[str, Any]:
    return {"scale": scale, "objpos": _struct([{"x": centre[0], "y": centre[1]}])}


def _struct(rows: list[dict[str, Any]]) -> np.ndarray:
    """[1 N] MATLAB structures of one kind."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for column, row in enumerate(rows):
        for name, value in row.items():
            array[0, column][name] = value
    return array


def _cells(values: list[Any]) -> np.ndarray:
    """[1 N] MATLAB cells."""
    array = np.empty((1, len(values)), dtype=object)
    for column, value in enumerate(values):
        array[0, column] = value
    return array


def _mat(variables: dict[str, Any]) -> bytes:
    import scipy.io

    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, do_compression=True, oned_as="row")
    return MAT_HEADER + stream.getvalue()[len(MAT_HEADER) :]


_WRITERS = {
    "json": _json_files,
    "h5": _h5_files,
    "mat": _mat_files,
    "spin": _spin_files,
    "mpii_annotations": _pose_machines_files,
}
