"""How well `humanpose3d inspect` finds what is wrong: faults of known kind and size planted in sound sets.

Sets of at least 200 samples of two corpora, filmed by the studio; each fault in one subject, one camera or one take,
with other people, poses, subjects and cameras for every seed. A fault counts as found when an error of the doctor
touches the samples it was planted in; as named when errors of the right name cover exactly that subject and camera; an
error that touches any other subject or camera is a false alarm.

    python benchmarks/doctor.py --work /tmp/doctor [--quick] [--json FILE] [--markdown]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from humanpose3d.camera import Camera, camera_to_pixel, camera_to_world, world_to_camera
from humanpose3d.chunks.build import build_chunks
from humanpose3d.chunks.codec import decode_depth, decode_sample, encode_depth, encode_sample
from humanpose3d.chunks.layout import read_index
from humanpose3d.chunks.read import open_chunk
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.config import ChunkConfig, Command
from humanpose3d.inspect.report import inspect_chunks
from humanpose3d.preprocess import preprocess_folders
from humanpose3d.remotes import LocalStore
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import MPI_17, MPI_17_LEGACY, MPI_28, SKELETONS, convert
from humanpose3d.studio.film import SUBJECTS
from humanpose3d.studio.human36m import write_human36m
from humanpose3d.studio.layouts import WRITERS, write_corpus
from humanpose3d.studio.motion import ACTIONS
from humanpose3d.studio.mpi_inf_3dhp import TRAIN_SUBJECTS
from humanpose3d.studio.room import FOCAL_SHARE

SEEDS = (0, 1, 2)
PLANTED_IN = ("human36m", "mpi_inf_3dhp")
APART = ("human36m", "mpii")  # images/ and annotations/ in a folder each
TAKE_FRAMES, MORE_FRAMES = 16, 10  # of each take and camera in a set; filmed beyond them, for labels of later frames
QUICK_FRAMES = 10, 3
CLEAN_FRAMES = {"mpii": 70, "freihand": 48, "threedpw": 40}  # of each split or sequence, for at least 200 samples
CHUNK_SIZE = 120


# ----------------------------------------------------------------------------------------------- sets to plant in


@dataclass(frozen=True, eq=False)
class Entry:
    """One sample of a set: what its metadata says, and its members as they are stored."""

    record: PoseSample
    members: dict[str, bytes]

    @property
    def frame(self) -> tuple[str, str, str, int]:
        return self.record.subject, self.record.action, self.record.camera_id, self.record.frame_index


@dataclass(frozen=True, eq=False)
class BaseSet:
    """A sound set, and the labels of the frames that follow those of its takes."""

    corpus: str
    entries: list[Entry]
    joints_of: dict[tuple[str, str, str, int], np.ndarray]  # frame -> [J 3], camera frame

    @property
    def cells(self) -> frozenset[tuple[str, str]]:
        """All (subject, camera)."""
        return frozenset((entry.record.subject, entry.record.camera_id) for entry in self.entries)


def film(work: Path, corpus: str, seed: int, frames: int) -> Path:
    """A folder with frames/, processed/ and chunks/ of the corpus. What is there already is kept.

    frames: of each take and camera, where the corpus is one to plant in.
    """
    folder = work / f"{corpus}-{seed}{f'-{frames}' if corpus in PLANTED_IN else ''}"
    if (folder / "subjects.json").exists():
        return folder
    subjects = _film_people(folder / "frames", corpus, seed, frames)
    preprocess_folders(
        _images(folder, corpus), folder / "processed", yolo_model="studio", depth_model="studio", device="cpu",
        num_workers=1,
    )  # fmt: skip
    chunk(folder, corpus, subjects, folder / "frames", folder / "chunks")
    (folder / "subjects.json").write_text(json.dumps(subjects))
    return folder


def _film_people(out: Path, corpus: str, seed: int, frames: int) -> list[str]:
    """Three of the corpus's people through four cameras in two takes, for a corpus to plant in; else what the studio
    writes of itself. The names of the subjects."""
    if corpus not in PLANTED_IN:
        write_corpus(corpus=corpus, out=out, seed=seed, frames_per_take=CLEAN_FRAMES[corpus])
        return list(import_module(f"humanpose3d.studio.{corpus}").SUBJECTS)
    rng = np.random.default_rng(seed)
    known = SUBJECTS if corpus == "human36m" else TRAIN_SUBJECTS
    subjects = [known[number] for number in sorted(rng.choice(len(known), 3, replace=False))]
    if corpus == "human36m":
        actions = sorted(int(action) for action in rng.choice(list(ACTIONS), 2, replace=False))
        write_human36m(
            out,
            subjects=subjects,
            actions=actions,
            subactions=(1,),
            frames_per_take=frames,
            seed=seed,
        )
    else:
        write_corpus(corpus=corpus, out=out, subjects=tuple(subjects), frames_per_take=frames, seed=seed)
    return subjects


def _images(folder: Path, corpus: str) -> Path:
    return folder / "frames" / "images" if corpus in APART else folder / "frames"


def chunk(folder: Path, corpus: str, subjects: Sequence[str], annotations: Path, output: Path) -> None:
    """The chunker, on the pictures and cues of `folder` and the labels below `annotations`."""
    settings = ChunkConfig(
        subjects=tuple(subjects), dataset=corpus, output=str(output), processed_path=folder / "processed",
        images_path=_images(folder, corpus), chunk_size=CHUNK_SIZE, workers=1, max_bad=1.0,
        annotations_path=annotations / "annotations" if corpus in APART else annotations,
    )  # fmt: skip
    own = {one.name for one in dataclasses.fields(settings)} - {one.name for one in dataclasses.fields(Command)}
    shutil.rmtree(output, ignore_errors=True)
    build_chunks(**{name: getattr(settings, name) for name in own})


def read_set(folder: Path) -> list[Entry]:
    """All samples of a folder of chunks, in order."""
    entries = []
    for listed in read_index(LocalStore(folder)).chunks:
        opened = open_chunk(folder / listed.file)
        for row in range(len(opened)):
            members = opened.read(row)
            entries.append(Entry(decode_sample(opened.key(row), members, fields=()), members))
    return entries


def make_base(corpus: str, entries: list[Entry], length: int) -> BaseSet:
    """The first `length` frames of each take; the labels of all."""
    frames: dict[tuple[str, str], set[int]] = {}
    for entry in entries:
        frames.setdefault(entry.frame[:2], set()).add(entry.record.frame_index)
    kept = {take: set(sorted(numbers)[:length]) for take, numbers in frames.items()}
    return BaseSet(
        corpus=corpus,
        entries=[entry for entry in entries if entry.record.frame_index in kept[entry.frame[:2]]],
        joints_of={entry.frame: _joints(entry.record) for entry in entries},
    )


def in_mpi_order(base: BaseSet) -> BaseSet:
    """The same set with its joints as 3DHP's 17, as people convert one corpus to train on both."""

    def converted(joints: np.ndarray, record: PoseSample) -> np.ndarray:
        assert record.skeleton is not None
        return convert(joints, record.skeleton, "mpi_17").joints

    return replace(
        base,
        entries=[
            Entry(
                _with_joints(_declared(entry.record, "mpi_17"), converted(_joints(entry.record), entry.record)),
                entry.members,
            )
            for entry in base.entries
        ],
        joints_of={},
    )


def write_set(folder: Path, entries: Sequence[Entry]) -> None:
    """A finished set of chunks of these entries' records; pictures and depth maps as they are stored."""
    shutil.rmtree(folder, ignore_errors=True)
    with ChunkSetWriter(
        LocalStore(folder), prefix="chunk", chunk_size=CHUNK_SIZE, compress="none", plan={"stage": "benchmark"},
        staging=folder / "staging", state=dict,
    ) as writer:  # fmt: skip
        for position, entry in enumerate(entries):
            writer.write(position, entry.record.key, _encoded(entry))
        writer.finish()


def write_foreign_set(folder: Path, entries: Sequence[Entry]) -> None:
    """The same as stock WebDataset writes it: a tar, no index."""
    from webdataset import TarWriter

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with TarWriter(str(folder / "chunk_000000.tar")) as writer:
        for entry in entries:
            writer.write({"__key__": entry.record.key, **_encoded(entry)})


def _encoded(entry: Entry) -> dict[str, bytes]:
    """The entry's members with its record's metadata."""
    meta = orjson.loads(encode_sample(entry.record)["meta.json"])
    return entry.members | {"meta.json": orjson.dumps(meta | {"members": list(entry.members)})}


# ------------------------------------------------------------------------------------------ what a fault does


def _joints(record: PoseSample) -> np.ndarray:
    assert record.joints_cam_m is not None
    return record.joints_cam_m


def _camera(record: PoseSample) -> Camera:
    assert record.camera is not None
    return record.camera


def _with_joints(record: PoseSample, joints_cam_m: np.ndarray) -> PoseSample:
    """Other 3D labels, and 2D labels projected from them, as a reader makes them."""
    joints_px = camera_to_pixel(joints_cam_m, _camera(record))
    return record.with_(joints_cam_m=joints_cam_m.astype(np.float32), joints_px=joints_px.astype(np.float32))


def _declared(record: PoseSample, skeleton: str) -> PoseSample:
    """Another joint set; its labels are still to be filled in."""
    ones = np.ones(len(SKELETONS[skeleton]), np.float32)
    return record.with_(skeleton=skeleton, joint_score=ones, joint_in_view=None)


Planted = list[Entry]
Plant = Callable[[list[Entry], float, np.random.Generator, BaseSet], Planted]


def _each(change: Callable[[PoseSample, float, np.random.Generator, BaseSet], PoseSample]) -> Plant:
    """A fault that each sample has by itself."""

    def plant(entries: list[Entry], amount: float, rng: np.random.Generator, base: BaseSet) -> Planted:
        return [replace(entry, record=change(entry.record, amount, rng, base)) for entry in entries]

    return plant


def swap_label_sides(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    assert record.skeleton is not None and record.joints_px is not None
    order = SKELETONS[record.skeleton].flip_permutation
    return record.with_(joints_cam_m=_joints(record)[order], joints_px=record.joints_px[order])


def swap_3d_sides(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    assert record.skeleton is not None
    return record.with_(joints_cam_m=_joints(record)[SKELETONS[record.skeleton].flip_permutation])


def swap_keypoint_sides(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    assert record.keypoint_skeleton and record.keypoints_px is not None and record.keypoint_score is not None
    order = SKELETONS[record.keypoint_skeleton].flip_permutation
    return record.with_(keypoints_px=record.keypoints_px[order], keypoint_score=record.keypoint_score[order])


def transpose_rotation(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """The labels went through the transposed rotation, on 2D labels of the corpus's own."""
    camera = _camera(record)
    wrong = replace(camera, R=camera.R.T)
    joints_cam_m = world_to_camera(camera_to_world(_joints(record), camera), wrong)
    return record.with_(joints_cam_m=joints_cam_m.astype(np.float32), camera=wrong)


def transpose_stored_rotation(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """Only the stored camera is wrong; nothing within one image shows it."""
    return record.with_(camera=replace(_camera(record), R=_camera(record).R.T))


def rescale(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """Everything nearer and smaller, or farther and larger: the projection stays."""
    return record.with_(joints_cam_m=_joints(record) * np.float32(amount))


def rescale_pose(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """The person larger about the root, 2D labels as the corpus has them."""
    assert record.skeleton is not None
    joints = _joints(record)
    root = joints[SKELETONS[record.skeleton].root_index]
    return record.with_(joints_cam_m=(root + np.float32(amount) * (joints - root)).astype(np.float32))


def shift_in_time(entries: list[Entry], amount: float, rng: np.random.Generator, base: BaseSet) -> Planted:
    """The label of `amount` frames later; without the samples for which there is none."""
    planted = []
    for entry in entries:
        *take, frame = entry.frame
        later = base.joints_of.get((*take, frame + int(amount)))
        if later is not None:
            planted.append(replace(entry, record=_with_joints(entry.record, later)))
    return planted


def store_in_other_order(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """h36m_17 where mpi_17 is declared, and the reverse."""
    assert record.skeleton is not None
    other = "mpi_17" if record.skeleton == "h36m_17" else "h36m_17"
    return _with_joints(record, convert(_joints(record), record.skeleton, other).joints)


def store_by_legacy_list(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    assert record.skeleton == "mpi_17"
    return _with_joints(record, convert(_joints(record), MPI_17, MPI_17_LEGACY).joints)


def declare_other_set(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """Truly another joint set, and declared as that: right in itself, but not what the rest of the corpus is."""
    assert record.skeleton is not None
    other = "mpi_17" if record.skeleton == "h36m_17" else "h36m_17"
    joints = convert(_joints(record), record.skeleton, other).joints
    return _with_joints(_declared(record, other), joints)


def mix_orders(entries: list[Entry], amount: float, rng: np.random.Generator, base: BaseSet) -> Planted:
    """Another order in every second sample."""
    return [
        entry if number % 2 else replace(entry, record=store_in_other_order(entry.record, amount, rng, base))
        for number, entry in enumerate(entries)
    ]


def move_principal_point(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """`amount` pixels off, the same way in all samples."""
    K = _camera(record).K.copy()
    K[:2, 2] += amount * np.array([0.6, -0.8])
    return record.with_(camera=replace(_camera(record), K=K))


def forget_principal_point(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """Where it would be had the whole picture been scaled: its middle."""
    K = _camera(record).K.copy()
    K[:2, 2] = (np.array(record.image_size_wh) - 1) / 2
    return record.with_(camera=replace(_camera(record), K=K))


def add_noise(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """`amount` metres, standard deviation of each coordinate of each joint."""
    return _with_joints(record, _joints(record) + rng.normal(scale=amount, size=_joints(record).shape))


def move_place(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """`amount` metres along the world's first axis, as the shifted takes of S9 are."""
    camera = _camera(record)
    return _with_joints(record, world_to_camera(camera_to_world(_joints(record), camera) + [amount, 0, 0], camera))


def zero_keypoints(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """A share of them at (0, 0) of the stored picture."""
    assert record.keypoints_px is not None
    zero = rng.random(len(record.keypoints_px)) < amount
    return record.with_(keypoints_px=np.where(zero[:, None], np.float32(0.0), record.keypoints_px))


def zero_before_crop(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    """A share of them at (0, 0) of the uncropped picture, as some outputs of estimators have the unsure ones."""
    assert record.keypoints_px is not None
    camera, side = _camera(record), 256
    corner = camera.K[:2, 2] - camera.K[0, 0] / (FOCAL_SHARE * side) * (side - 1) / 2
    zero = rng.random(len(record.keypoints_px)) < amount
    return record.with_(keypoints_px=np.where(zero[:, None], corner, record.keypoints_px).astype(np.float32))


def take_others_keypoints(entries: list[Entry], amount: float, rng: np.random.Generator, base: BaseSet) -> Planted:
    """In a share of the samples the keypoints of somebody else, who stands to the left or to the right."""
    planted = []
    for entry in entries:
        other = base.entries[int(rng.integers(len(base.entries)))].record.keypoints_px
        assert other is not None
        aside = rng.choice([-1, 1]) * rng.uniform(0.25, 0.45) * entry.record.image_size_wh[0]
        moved = entry.record.with_(keypoints_px=(other + [aside, 0]).astype(np.float32))
        planted.append(replace(entry, record=moved) if rng.random() < amount else entry)
    return planted


def rescale_depth(entries: list[Entry], amount: float, rng: np.random.Generator, base: BaseSet) -> Planted:
    planted = []
    for entry in entries:
        depth_m = decode_depth(entry.record.key, entry.members["depth.png"])
        planted.append(Entry(entry.record, entry.members | {"depth.png": encode_depth(depth_m * amount)}))
    return planted


def repeat(entries: list[Entry], amount: float, rng: np.random.Generator, base: BaseSet) -> Planted:
    """A share of the samples once more, under another frame's key."""
    again = [entry for entry in entries if rng.random() < amount]
    return entries + [
        replace(
            entry, record=entry.record.with_(key=_later_key(entry.record), frame_index=entry.record.frame_index + 1000)
        )
        for entry in again
    ]


def _later_key(record: PoseSample) -> str:
    head, frame, person = record.key.rsplit("-", 2)
    return f"{head}-{int(frame) + 1000:06d}-{person}"


def drop_3d(record: PoseSample, amount: float, rng: np.random.Generator, base: BaseSet) -> PoseSample:
    return record.with_(joints_cam_m=None) if rng.random() < amount else record


@dataclass(frozen=True)
class Fault:
    """A kind of fault, its sizes, and the names under which the doctor may find it."""

    title: str
    plant: Plant
    names: tuple[str, ...]
    levels: dict[str, float] = field(default_factory=lambda: {"": 1.0})
    scopes: tuple[str, ...] = ("subject", "camera")
    in_mpi_order: bool = False  # planted in a set whose joints are 3DHP's
    foreign: bool = False  # in chunks that somebody else wrote: our own writer refuses it


FAULTS = (
    Fault("left and right swapped, 2D and 3D labels", _each(swap_label_sides), ("sides_swapped",)),
    Fault("left and right swapped, 3D labels only", _each(swap_3d_sides), ("sides_swapped",)),
    Fault("left and right swapped, keypoints", _each(swap_keypoint_sides), ("sides_swapped",)),
    Fault("rotation transposed", _each(transpose_rotation), ("camera_rotation",)),
    Fault("rotation transposed in the stored camera only", _each(transpose_stored_rotation), ("camera_rotation",)),
    Fault("metres for millimetres", _each(rescale), ("units",), {"x 1000": 1000.0, "/ 1000": 0.001}),
    Fault(
        "shifted take, the person moves", shift_in_time, ("time_shift",),
        {"1 frame": 1, "10 frames": 10, "3 frames": 3}, ("most moving take",),
    ),
    Fault(
        "shifted take, the person hardly moves", shift_in_time, ("time_shift",),
        {"1 frame": 1, "10 frames": 10, "3 frames": 3}, ("least moving take",),
    ),
    Fault("joints in another order", _each(store_in_other_order), ("joint_order", "mixed_skeletons")),
    Fault("the widely copied wrong list", _each(store_by_legacy_list), ("legacy_joint_list",), in_mpi_order=True),
    Fault("mixed skeletons, every second sample", mix_orders, ("mixed_skeletons",)),
    Fault("mixed skeletons, each declared", _each(declare_other_set), ("mixed_skeletons",), foreign=True),
    Fault("a crop that forgot the principal point", _each(forget_principal_point), ("principal_point",)),
    Fault(
        "principal point off", _each(move_principal_point), ("principal_point",),
        {"5 px": 5.0, "10 px": 10.0, "30 px": 30.0},
    ),
    Fault("label noise", _each(add_noise), ("label_noise",), {"2 cm": 0.02, "5 cm": 0.05, "10 cm": 0.1}),
    Fault("joints and distance scaled", _each(rescale), ("scale",), {"1 %": 1.01, "2 %": 1.02, "5 %": 1.05}),
    Fault("pose scaled about its root", _each(rescale_pose), ("scale",), {"1 %": 1.01, "2 %": 1.02, "5 %": 1.05}),
    Fault("take beside the person", _each(move_place), ("place_shift",), {"5 cm": 0.05, "20 cm": 0.2}, ("take",)),
    Fault("keypoints zeroed", _each(zero_keypoints), ("keypoints_zeroed",), {"10 %": 0.1, "all": 1.0}),
    Fault("keypoints zeroed before the crop", _each(zero_before_crop), ("keypoints_zeroed",), {"10 %": 0.1}),
    Fault("somebody else's keypoints", take_others_keypoints, ("wrong_person",), {"two in five": 0.4}),
    Fault("depth map scaled", rescale_depth, ("depth_scale",), {"x 1.2": 1.2, "x 0.5": 0.5}),
    Fault("samples twice", repeat, ("duplicates",), {"every fifth": 0.2}),
    Fault("3D labels missing", _each(drop_3d), ("missing_fields",), {"one in five": 0.2, "all": 1.0}),
)  # fmt: skip


# ------------------------------------------------------------------------------------------ faults in raw annotations


@dataclass(frozen=True)
class RawFault:
    """A fault in the corpus's own files, which the chunker then reads."""

    title: str
    corpus: str
    plant: Callable[[Path, str, float], None]  # folder of the annotations' copy, the subject hit, how much
    names: tuple[str, ...]
    amount: float = 1.0
    scope: str = "subject"
    level: str = ""


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _every_joint(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], None]:
    """Of a joint_3d file: {action: {take: {frame: [17][3]}}}, millimetres."""

    def edit(content: Any) -> None:
        for takes in content.values():
            for frames in takes.values():
                frames.update({number: change(np.array(joints)).tolist() for number, joints in frames.items()})

    return edit


def _h36m(folder: Path, subject: str, part: str) -> Path:
    return folder / "annotations" / f"Human36M_subject{subject[1:]}_{part}.json"


def raw_transpose(folder: Path, subject: str, amount: float) -> None:
    def edit(content: Any) -> None:
        for camera in content.values():
            camera["R"] = np.array(camera["R"]).T.tolist()

    _edit(_h36m(folder, subject, "camera"), edit)


def raw_metres(folder: Path, subject: str, amount: float) -> None:
    _edit(_h36m(folder, subject, "joint_3d"), _every_joint(lambda joints: joints / 1000))


def raw_swap(folder: Path, subject: str, amount: float) -> None:
    order = SKELETONS["h36m_17"].flip_permutation
    _edit(_h36m(folder, subject, "joint_3d"), _every_joint(lambda joints: joints[order]))


def raw_noise(folder: Path, subject: str, amount: float) -> None:
    rng = np.random.default_rng(0)
    noisy = _every_joint(lambda joints: joints + rng.normal(scale=1000 * amount, size=joints.shape))
    _edit(_h36m(folder, subject, "joint_3d"), noisy)


def raw_shift(folder: Path, subject: str, amount: float) -> None:
    """All takes of the subject: the labels of later frames."""

    def edit(content: Any) -> None:
        for takes in content.values():
            for frames in takes.values():
                frames.update({n: frames[str(int(n) + int(amount))] for n in list(frames) if int(n) < TAKE_FRAMES})

    _edit(_h36m(folder, subject, "joint_3d"), edit)


Labels = Callable[[np.ndarray], np.ndarray]  # [F 28 C] -> the same shape


def _edit_annot(folder: Path, subject: str, of_2d: Labels | None, of_3d: Labels) -> None:
    """Changes annot2 and annot3 of all sequences and cameras of a 3DHP subject."""
    import scipy.io

    for path in sorted((folder / subject).glob("*/annot.mat")):
        values = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
        for name, change in (("annot2", of_2d), ("annot3", of_3d)):
            for row in range(len(values[name]) if change else 0):
                rows = values[name][row, 0]
                values[name][row, 0] = change(rows.reshape(len(rows), len(MPI_28), -1)).reshape(rows.shape)
        scipy.io.savemat(path, values, do_compression=True)


def annot_metres(folder: Path, subject: str, amount: float) -> None:
    _edit_annot(folder, subject, None, lambda joints: joints / 1000)


def annot_swap(folder: Path, subject: str, amount: float) -> None:
    _edit_annot(folder, subject, *2 * [lambda joints: joints[:, MPI_28.flip_permutation]])


def annot_noise(folder: Path, subject: str, amount: float) -> None:
    rng = np.random.default_rng(0)
    _edit_annot(folder, subject, None, lambda joints: joints + rng.normal(scale=1000 * amount, size=joints.shape))


def annot_shift(folder: Path, subject: str, amount: float) -> None:
    def later(joints: np.ndarray) -> np.ndarray:
        return joints[np.minimum(np.arange(len(joints)) + int(amount), len(joints) - 1)]

    _edit_annot(folder, subject, later, later)


def annot_legacy(folder: Path, subject: str, amount: float) -> None:
    """Where the reader looks for its 17 joints stand those of the widely copied list."""
    true = [MPI_28.points.index(point) for point in MPI_17.points]
    taken = [MPI_28.points.index(point) for point in MPI_17_LEGACY.points]

    def picked(joints: np.ndarray) -> np.ndarray:
        wrong = joints.copy()
        wrong[:, true] = joints[:, taken]
        return wrong

    _edit_annot(folder, subject, picked, picked)


def calibration_transpose(folder: Path, subject: str, amount: float) -> None:
    for path in sorted((folder / subject).glob("*/camera.calibration")):
        lines = []
        for line in path.read_text().splitlines():
            if line.split()[0] == "extrinsic":
                pose = np.array(line.split()[1:], float).reshape(4, 4)
                pose[:3, :3] = pose[:3, :3].T.copy()
                line = "  extrinsic   " + " ".join(f"{number:.10g}" for number in pose.ravel())
            lines.append(line)
        path.write_text("\n".join(lines) + "\n")


RAW_FAULTS = (
    RawFault("rotation transposed", "human36m", raw_transpose, ("camera_rotation",)),
    RawFault("metres for millimetres", "human36m", raw_metres, ("units",)),
    RawFault("left and right swapped", "human36m", raw_swap, ("sides_swapped",)),
    RawFault("label noise", "human36m", raw_noise, ("label_noise",), 0.05, level="5 cm"),
    RawFault("shifted takes", "human36m", raw_shift, ("time_shift",), 3, level="3 frames"),
    RawFault("rotation transposed in camera.calibration", "mpi_inf_3dhp", calibration_transpose, ("camera_rotation",)),
    RawFault("metres for millimetres", "mpi_inf_3dhp", annot_metres, ("units",)),
    RawFault("left and right swapped", "mpi_inf_3dhp", annot_swap, ("sides_swapped",)),
    RawFault("label noise", "mpi_inf_3dhp", annot_noise, ("label_noise",), 0.05, level="5 cm"),
    RawFault("shifted takes", "mpi_inf_3dhp", annot_shift, ("time_shift",), 3, level="3 frames"),
    RawFault("the widely copied wrong list", "mpi_inf_3dhp", annot_legacy, ("legacy_joint_list",)),
)


def plant_raw(fault: RawFault, folder: Path, subject: str, subjects: Sequence[str], planted: Path) -> None:
    """The corpus's annotations with the fault, chunked into `planted`; of Human3.6M the first frames of each take."""
    copy = planted.parent / "annotations"
    shutil.rmtree(copy, ignore_errors=True)
    pictures = ["images"] if fault.corpus in APART else ["imageSequence"]
    shutil.copytree(folder / "frames", copy, ignore=shutil.ignore_patterns(*pictures))
    fault.plant(copy, subject, fault.amount)
    if fault.corpus == "human36m":
        for one in subjects:
            _edit(_h36m(copy, one, "data"), _first_frames)
    chunk(folder, fault.corpus, subjects, copy, planted)


def _first_frames(content: Any) -> None:
    content["images"] = [image for image in content["images"] if image["frame_idx"] < TAKE_FRAMES]


# ------------------------------------------------------------------------------------------ running, judging, telling


@dataclass(frozen=True)
class Hit:
    """Where a fault was planted."""

    subject: str | None
    camera_id: str | None
    action: str | None = None

    def has(self, record: PoseSample) -> bool:
        return (
            self.subject in (None, record.subject)
            and self.camera_id in (None, record.camera_id)
            and self.action in (None, record.action)
        )

    def cells(self, base: BaseSet) -> frozenset[tuple[str, str]]:
        return _cells(self.subject, self.camera_id, base.cells)

    def __str__(self) -> str:
        return ", ".join(part for part in (self.subject, self.camera_id, self.action) if part)


def choose_hit(base: BaseSet, scope: str, rng: np.random.Generator) -> Hit:
    """One subject, camera, cell or take of the set."""
    if scope in ("most moving take", "least moving take"):
        subject, action = max(_motion(base).items(), key=lambda one: one[1] * (1 if scope[0] == "m" else -1))[0]
        return Hit(subject, None, action)
    record = base.entries[int(rng.integers(len(base.entries)))].record
    subject = record.subject if scope in ("subject", "take", "cell") else None
    camera_id = record.camera_id if scope in ("camera", "cell") else None
    return Hit(subject, camera_id, record.action if scope == "take" else None)


def _motion(base: BaseSet) -> dict[tuple[str, str], float]:
    """Of each subject's takes: how far the joints are from where they were 3 frames before, metres."""
    moved: dict[tuple[str, str], list[float]] = {}
    for (subject, action, camera_id, frame), joints in base.joints_of.items():
        later = base.joints_of.get((subject, action, camera_id, frame + 3))
        if later is not None:
            moved.setdefault((subject, action), []).append(float(np.linalg.norm(later - joints, axis=-1).mean()))
    return {take: float(np.median(distances)) for take, distances in moved.items()}


@dataclass(frozen=True)
class Outcome:
    """One run of the doctor."""

    title: str
    level: str
    corpus: str
    seed: int
    scope: str
    hit: str
    way: str  # "chunks" or "annotations"
    samples: int
    found: bool
    named: bool
    alarms: int  # errors that touch other subjects or cameras
    told: tuple[str, ...]  # the errors
    seconds: float
    motion_m: float | None = None  # of a shifted take: mean move of the joints in 3 frames


def _cells(subject: str | None, camera_id: str | None, cells: Iterable[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset(cell for cell in cells if subject in (None, cell[0]) and camera_id in (None, cell[1]))


def examine(folder: Path, temp: Path) -> list[dict[str, Any]]:
    """The doctor's findings on a set."""
    with contextlib.redirect_stdout(io.StringIO()):
        report = inspect_chunks(str(folder), report=None, max_samples=20_000, all=False, temp_dir=temp)
    return report.facts["findings"]


def rate(findings: list[dict[str, Any]], names: Sequence[str], hit: Hit, base: BaseSet) -> tuple[bool, bool, int]:
    """(found, rightly named, false alarms)."""
    planted = hit.cells(base)
    errors = [finding for finding in findings if finding["severity"] == "error"]
    places = [(finding, _cells(finding["subject"], finding["camera_id"], base.cells)) for finding in errors]
    right = [
        (finding, cells)
        for finding, cells in places
        if finding["fault"] in names
        and cells <= planted
        and finding["action"] in (None, hit.action or finding["action"])
    ]
    named = frozenset().union(*(cells for _, cells in right)) == planted
    elsewhere = [
        not cells <= planted or (hit.action is not None and finding["action"] not in (None, hit.action))
        for finding, cells in places
    ]
    return any(cells & planted for _, cells in places), named, sum(elsewhere)


def _told(findings: list[dict[str, Any]]) -> tuple[str, ...]:
    """'time_shift S9 * Walking 1', for each error."""
    errors = [finding for finding in findings if finding["severity"] == "error"]
    return tuple(
        " ".join(filter(None, (one["fault"], one["subject"] or "*", one["camera_id"] or "*", one["action"])))
        for one in errors
    )


def run_planted(work: Path, base: BaseSet, seed: int, faults: Sequence[Fault]) -> list[Outcome]:
    """All faults, levels and scopes in one set, through its chunks' metadata."""
    outcomes = []
    converted = in_mpi_order(base) if base.entries[0].record.skeleton != "mpi_17" else base
    for fault in faults:
        of = converted if fault.in_mpi_order else base
        for scope in fault.scopes:
            rng = np.random.default_rng((seed, zlib.crc32(fault.title.encode()), fault.scopes.index(scope)))
            hit = choose_hit(of, scope, rng)
            inside = [entry for entry in of.entries if hit.has(entry.record)]
            outside = [entry for entry in of.entries if not hit.has(entry.record)]
            for level, amount in fault.levels.items():
                started = time.monotonic()
                planted = sorted(outside + fault.plant(inside, amount, rng, of), key=lambda entry: entry.record.key)
                (write_foreign_set if fault.foreign else write_set)(work / "planted", planted)
                findings = examine(work / "planted", work)
                outcomes.append(
                    Outcome(
                        fault.title, level, base.corpus, seed, scope, str(hit), "chunks", len(planted),
                        *rate(findings, fault.names, hit, of), _told(findings), time.monotonic() - started,
                        _motion(of)[hit.subject, hit.action] if hit.subject and hit.action else None,
                    )
                )  # fmt: skip
    return outcomes


def run_raw(work: Path, folder: Path, base: BaseSet, seed: int) -> list[Outcome]:
    """The faults of the corpus's own files."""
    outcomes = []
    subjects = json.loads((folder / "subjects.json").read_text())
    for number, fault in enumerate(one for one in RAW_FAULTS if one.corpus == base.corpus):
        started = time.monotonic()
        subject = subjects[int(np.random.default_rng((seed, 1000 + number)).integers(len(subjects)))]
        hit = Hit(subject, None)
        plant_raw(fault, folder, subject, subjects, work / "planted")
        findings = examine(work / "planted", work)
        outcomes.append(
            Outcome(
                fault.title, fault.level, base.corpus, seed, fault.scope, str(hit), "annotations", len(base.entries),
                *rate(findings, fault.names, hit, base), _told(findings), time.monotonic() - started,
            )
        )  # fmt: skip
    return outcomes


def run_clean(work: Path, folder: Path, corpus: str, seed: int) -> Outcome:
    """A sound set; found and named stay False."""
    started = time.monotonic()
    findings = examine(folder, work)
    samples = read_index(LocalStore(folder)).samples
    told = _told(findings)
    return Outcome(
        "nothing",
        "",
        corpus,
        seed,
        "",
        "",
        "chunks",
        samples,
        False,
        False,
        len(told),
        told,
        time.monotonic() - started,
    )


def table(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """One row for each fault, size, corpus and way of planting; first the names of the columns."""
    rows: list[tuple[str, ...]] = [("fault", "size", "planted in", "corpus", "found", "named rightly", "false alarms")]
    groups: dict[tuple[str, str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.title, outcome.level, outcome.way, outcome.corpus), []).append(outcome)
    for (title, level, way, corpus), of in groups.items():
        alarms = sum(outcome.alarms for outcome in of)
        if title == "nothing":
            samples = " + ".join(str(outcome.samples) for outcome in of)
            rows.append((title, f"{samples} samples", "-", corpus, "-", "-", str(alarms)))
            continue
        found, named = sum(outcome.found for outcome in of), sum(outcome.named for outcome in of)
        rows.append((title, level or "-", way, corpus, f"{found} of {len(of)}", f"{named} of {len(of)}", str(alarms)))
    return rows


def as_text(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("doctor_bench"), help="folder for the sets; kept for the next run"
    )
    parser.add_argument("--quick", action="store_true", help="one seed of one corpus, one size of each fault: a minute")
    parser.add_argument("--corpora", nargs="*", default=list(PLANTED_IN), help="corpora to plant in")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--only", default="", help="faults whose title has this in it")
    parser.add_argument("--no-clean", action="store_true", help="leave the clean sets of all corpora out")
    parser.add_argument("--verbose", action="store_true", help="a line for each run")
    parser.add_argument("--json", type=Path, help="file for all runs")
    parser.add_argument("--markdown", action="store_true", help="the table as docs/DOCTOR.md has it")
    asked = parser.parse_args()
    logging.getLogger("humanpose3d").setLevel(logging.ERROR)  # foreign sets are indexed on the way, as they should be
    faults = [fault for fault in FAULTS if asked.only in fault.title]
    corpora, seeds, clean = asked.corpora, asked.seeds, [] if asked.no_clean else list(WRITERS)
    length, more = QUICK_FRAMES if asked.quick else (TAKE_FRAMES, MORE_FRAMES)
    if asked.quick:
        corpora, seeds, clean = corpora[:1], seeds[:1], corpora[:1]
        faults = [replace(one, levels=dict(list(one.levels.items())[-1:]), scopes=one.scopes[:1]) for one in faults]
    outcomes = []
    for corpus in clean:
        for seed in seeds:
            folder = film(asked.work, corpus, seed, length + more)
            outcomes.append(run_clean(asked.work, folder / "chunks", corpus, seed))
    for corpus in corpora:
        for seed in seeds:
            folder = film(asked.work, corpus, seed, length + more)
            base = make_base(corpus, read_set(folder / "chunks"), length)
            write_set(asked.work / "planted", base.entries)
            outcomes.append(run_clean(asked.work, asked.work / "planted", corpus, seed))
            outcomes += run_planted(asked.work, base, seed, faults)
            if not asked.quick and not asked.only:
                outcomes += run_raw(asked.work, folder, base, seed)
    outcomes.sort(key=lambda outcome: outcome.title == "nothing")
    if asked.verbose:
        for one in outcomes:
            mark = "ok  " if (one.named or one.title == "nothing") and not one.alarms else "MISS"
            print(
                mark,
                one.corpus,
                one.seed,
                one.way,
                f"{one.title} {one.level} in {one.hit}:",
                "; ".join(one.told) or "-",
            )
    print(as_markdown(table(outcomes)) if asked.markdown else as_text(table(outcomes)))
    if asked.json:
        asked.json.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    main()
