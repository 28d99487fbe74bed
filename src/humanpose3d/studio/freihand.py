"""Studio hands written as FreiHAND lies on disk: version 2's json lists and image numbers, or mmpose's COCO-style json.

The readers of both are `sources/freihand.py`'s. MANO parameters, meshes and masks are not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from humanpose3d.files import write_whole
from humanpose3d.reports import StageReport, progress
from humanpose3d.skeletons import HAND_21
from humanpose3d.studio.hands import PHOTO, SIZE, VERSIONS, HandScene, film_hand, make_hand
from humanpose3d.studio.shoot import claim, encode_jpeg, in_processes

LAYOUTS = ("v2", "coco")
SUBJECTS = ("training", "evaluation")
SAMPLES = 32560  # of the real training set: a version's images are numbered from a multiple of it, in every copy
PEOPLE = {"training": range(400, 432), "evaluation": range(432, 440)}  # nobody is in both
COCO_PARTS = {"train": 8, "val": 1, "test": 1}  # of ten images, drawn at random as mmpose did


@dataclass(frozen=True)
class _HandJob:
    out: Path
    split: str
    sample: int
    size: int
    seed: int

    def scene(self) -> HandScene:
        people = PEOPLE[self.split]
        number = self.sample + SAMPLES * SUBJECTS.index(self.split)
        return make_hand(number, people[self.sample % len(people)], size=self.size, seed=self.seed)

    def images(self) -> dict[str, Path]:
        """version -> its file below `out`."""
        versions = VERSIONS if self.split == "training" else (PHOTO,)
        return {version: image_file(self.split, self.sample, place) for place, version in enumerate(versions)}


def image_file(split: str, sample: int, version: int = 0) -> Path:
    """training/rgb/00032561.jpg for sample 1 in version 1."""
    return Path(split) / "rgb" / f"{sample + SAMPLES * version:08d}.jpg"


def write_freihand(
    out: Path,
    *,
    subjects: Sequence[str] = SUBJECTS,
    frames_per_take: int = 40,
    size: int = SIZE,
    seed: int = 0,
    workers: int = 1,
    layout: str = LAYOUTS[0],
) -> StageReport:
    """`frames_per_take` samples of each split below `out`: training ones in four versions, evaluation ones in one.

    layout: "v2" is the corpus's own; "coco" has 2D labels of the training images only, as mmpose gives them. `size` is
    224 in the real one. Images that exist are kept; a folder filmed with another seed or size is refused.
    """
    out = Path(out)
    _check(subjects, frames_per_take, size, layout)
    claim(out, {"corpus": "freihand", "seed": seed, "size": size})
    report = StageReport("fake")
    splits = [split for split in SUBJECTS if split in subjects and (layout == "v2" or split == "training")]
    jobs = [_HandJob(out, split, sample, size, seed) for split in splits for sample in range(frames_per_take)]
    report.inputs = sum(len(job.images()) for job in jobs)
    with progress("filming", report.inputs) as bar:
        for written, kept in in_processes(_film, jobs, workers):
            report.count("images", written)
            report.count("already there", kept)
            bar.advance(written + kept)
    for split in splits:
        own = [job for job in jobs if job.split == split]
        files = _lists(split, own) if layout == "v2" else _coco_files(own, seed)
        for name, content in files.items():
            write_whole(out / name, json.dumps(content).encode())
    report.summary = (
        f"filmed {report.counts['images']} images of {len(jobs)} hands ({report.counts['already there']} were there)"
        f" in {out}"
    )
    report.facts |= {"out": str(out), "subjects": splits, "layout": layout, "seed": seed, "size": size}
    return report


def _check(subjects: Sequence[str], samples: int, size: int, layout: str) -> None:
    unknown = [split for split in subjects if split not in SUBJECTS]
    if unknown or not subjects:
        raise ValueError(f"FreiHAND has no '{unknown[0] if unknown else ''}'; it has {', '.join(SUBJECTS)}")
    if layout not in LAYOUTS:
        raise ValueError(f"the studio writes freihand as {', '.join(LAYOUTS)}, not as '{layout}'")
    if layout == "coco" and "training" not in subjects:
        raise ValueError("mmpose's json has training images only; ask for training, or for the layout v2")
    if not 1 <= samples <= SAMPLES or size < 32:
        raise ValueError(
            f"frames_per_take is {samples} and size {size}; it takes 1 to {SAMPLES} samples of 32 px or more"
        )


def _film(job: _HandJob) -> tuple[int, int]:
    """(images written, images that were there)."""
    images = job.images()
    missing = [version for version, path in images.items() if not (job.out / path).exists()]
    if missing:
        for version, image in film_hand(job.scene(), missing).items():
            write_whole(job.out / images[version], encode_jpeg(image))
    return len(missing), len(images) - len(missing)


# --------------------------------------------------------------------------------------------------------- annotations


def _lists(split: str, jobs: list[_HandJob]) -> dict[str, list]:
    """The corpus's own files: a list with an entry a sample in each."""
    scenes = [job.scene() for job in jobs]
    first, second = (HAND_21.index(f"middle_{number}") for number in (1, 2))
    return {
        f"{split}_K.json": [scene.camera.K.tolist() for scene in scenes],
        f"{split}_xyz.json": [scene.joints_cam_m.tolist() for scene in scenes],
        f"{split}_scale.json": [
            float(np.linalg.norm(scene.joints_cam_m[first] - scene.joints_cam_m[second])) for scene in scenes
        ],
    }


def _coco_files(jobs: list[_HandJob], seed: int) -> dict[str, dict[str, Any]]:
    """mmpose's three files. They cut by image, so that a hand's versions lie in several: so do the real ones."""
    images, annotations = [], []
    for job in jobs:
        joints_px = job.scene().joints_px
        for path in job.images().values():
            number = int(path.stem)
            images.append({"file_name": path.as_posix(), "height": job.size, "width": job.size, "id": number})
            annotations.append(_annotation(number, joints_px))
    order = np.random.default_rng(seed).permutation(len(images))
    ends = np.rint(np.cumsum(list(COCO_PARTS.values())) / sum(COCO_PARTS.values()) * len(images)).astype(int)
    files = {}
    for part, chosen in zip(COCO_PARTS, np.split(order, ends[:-1]), strict=True):
        if not len(chosen):
            continue
        files[f"annotations/freihand_{part}.json"] = {
            "images": [images[i] for i in sorted(chosen)],
            "annotations": [annotations[i] for i in sorted(chosen)],
            "categories": [{"id": 1, "name": "hand"}],
        }
    return files


def _annotation(number: int, joints_px: np.ndarray) -> dict[str, Any]:
    low, high = np.floor(joints_px.min(0)).astype(int), np.ceil(joints_px.max(0)).astype(int)
    width, height = (high - low).tolist()
    return {
        "bbox": [*low.tolist(), width, height],
        "keypoints": np.column_stack([joints_px, np.ones(len(joints_px))]).ravel().tolist(),
        "category_id": 1,
        "id": number,
        "image_id": number,
        "iscrowd": 0,
        "area": width * height,
    }
