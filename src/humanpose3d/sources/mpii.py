"""MPII Human Pose -> LabelledFrames: single images, 16 joints in 2D. Its annotation files' forms are `mpii_forms.py`'s.

images/015601864.jpg                                24,987 of them
annotations/<any of the forms of mpii_forms.py>     also in a folder of that folder

- The corpus has no validation set of its own, and its test images have no labels. The field's is that of Tompson et al.
  2015, which pose-hg-train, HRNet and others share: 2,958 people (`valid`) in 2,729 images, 22,246 (`train`) in 14,679
  others. Whoever stands in a validation image and is not one of the 2,958 is in neither.
- The .mat does not know of it. So `valid` and `train` of the .mat (and of trainval.json, annot.h5) need a list of the
  former beside them, VALID_LISTS, and are refused without one: training on the validation set is a mistake that shows
  in no figure. `trainval` is everything that has labels, for who knows that nothing is held out. By valid_images.txt,
  which names images only, `valid` is all labelled people in them.
- Of several forms in a folder the first of `_candidates` is read, and the next where that one is broken. A form
  without head sizes (PCKh needs them) takes them, and which joints are hidden, from another one beside it.
- The box is the square of 200 scale pixels about `objpos`, the field's own. It is not cut at the image's edge, and does
  not hold every joint: of the validation set's labels 4 % lie outside of it, nearly all within a quarter of its side.
- frame_index is the image's number among the subject's, sorted by name; a frame step of n takes every n-th image with
  all its people. There is no take and no camera; the action is the image's activity where the .mat is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from humanpose3d.sample import LabelledFrame, make_key, subjects_asked_for
from humanpose3d.sources.mpii_forms import Person, read_people, with_heads, with_heads_of_gt
from humanpose3d.sources.reading import BrokenFile, Told

NAME = "mpii"
FOLDERS = ("images", "annotations")
SUBJECTS_HELP = "train, valid (the split of pose-hg-train); trainval (all that is labelled, nothing held out)"
CUES = "optional"

HEIGHT_PX = 200.0  # of a person of scale 1
SPLITS = ("train", "valid")
TRAINVAL = "trainval"
MAT, ALL_JSON, NPZ, GT = "mpii_human_pose*.mat", "mpii_annotations.json", "mpii_train.npz", "gt_valid.mat"
UNSPLIT = ("trainval.json", "annotations.json", "annot.h5")  # what tells nothing of the split, beside the .mat
VALID_LISTS = ("valid.h5", "valid.json", ALL_JSON, "valid_images.txt")  # what tells who is in it, best first

# What tells head sizes, by subject.
HEADS = {"train": "train.h5", "valid": f"valid.h5 or {GT}", TRAINVAL: "train.h5 and valid.h5"}


def read_frames(
    images_path: Path,
    annotations_path: Path,
    subjects: Sequence[str],
    frame_step: int = 1,
    *,
    image_pattern: str | None = None,
    told: Told,
) -> Iterator[LabelledFrame]:
    """Every labelled person of every `frame_step`-th image, ordered by subject, image and person.

    annotations_path: the folder, or the one file to read. told hears of people who are left out and of broken files.
    FileNotFoundError or ValueError where nothing that was asked for can be read.
    """
    if image_pattern is not None:
        raise ValueError("MPII's images lie in one folder under their own names; leave out --image-pattern")
    if not annotations_path.exists():
        raise FileNotFoundError(f"{annotations_path} is missing; --annotations-path names MPII's annotations")
    wanted = _wanted(subjects)
    library = _Library(annotations_path, told)
    inside = Path("images") if (images_path / "images").is_dir() else Path()
    read = 0
    for subject in wanted:
        try:
            source, people = library.people_of(subject)
        except BrokenFile as error:
            told.fault(str(error))
            if subject == wanted[-1] and not read:
                raise
            continue
        read += 1
        yield from _frames(people, subject, frame_step, inside, source, told)


def _wanted(subjects: Sequence[str]) -> list[str]:
    known = (*SPLITS, TRAINVAL)
    asked = {subject: subjects_asked_for(subject, known) for subject in subjects}
    unknown = [str(subject) for subject, found in asked.items() if not found]
    if unknown:
        raise ValueError(f"MPII has no subject {', '.join(unknown)}; it has {', '.join(known)}")
    wanted = sorted({name for found in asked.values() for name in found})
    if TRAINVAL in wanted and len(wanted) > 1:
        raise ValueError(f"{TRAINVAL} holds train and valid already; ask for it alone")
    return wanted


# ------------------------------------------------------------------------------------------------- files and splits


@dataclass
class _Library:
    """The annotation files, each read once."""

    path: Path
    told: Told
    _people: dict[Path, _Notes] = field(default_factory=dict)

    def people_of(self, subject: str) -> tuple[Path, list[Person]]:
        """The file that was read and those of its people who belong to the subject.

        BrokenFile: all files that could tell are broken. ValueError, FileNotFoundError: there are none.
        """
        found = _candidates(self.path, subject)
        if not found:
            raise FileNotFoundError(
                f"no annotations of MPII's {subject} in {self.path}; --annotations-path names the folder of one of "
                f"{MAT}, {subject}.json, {subject}.h5, {', '.join((ALL_JSON, *UNSPLIT, NPZ))}"
            )
        last: ValueError
        for path in found:
            try:
                people = self._with_heads(path)
                chosen = people if subject == TRAINVAL else self._of_split(path, people, subject)
            except BrokenFile as error:
                last = error
                if path != found[-1]:
                    self.told.fault(str(error))
            except _NoSplit as error:
                last = error
            else:
                self._people[path].retell(self.told)
                if any(person.head_size_px is None for person in chosen):
                    self.told.note(f"{path} tells no head sizes, which PCKh needs; {HEADS[subject]} beside it would")
                return path, chosen
        raise last

    def _of_split(self, path: Path, people: list[Person], subject: str) -> list[Person]:
        of_file = path.stem if path.stem in SPLITS else None
        told_by_file = of_file is not None or all(person.split is not None for person in people)
        held_out = None if told_by_file and subject != "train" else self._held_out(path)
        if told_by_file:
            chosen = [person for person in people if subject == (person.split or of_file)]
        elif held_out is not None:
            chosen = [person for person in people if subject == held_out.split_of(person)]
        else:
            raise _NoSplit(
                f"{path} does not tell which people are for validation; put pose-hg-train's valid.h5 or another of "
                f"{', '.join(VALID_LISTS[1:])} beside it, or ask for --subjects {TRAINVAL}, which holds nothing out"
            )
        if not chosen:
            raise ValueError(f"{path} holds nobody of '{subject}'; give the folder, or the file of {subject}")
        return self._without_leak(path, chosen, held_out) if subject == "train" and held_out else chosen

    def _without_leak(self, path: Path, people: list[Person], held_out: _HeldOut) -> list[Person]:
        kept = [person for person in people if person.image not in held_out.images]
        if len(kept) < len(people):
            self.told.fault(
                f"{path}: {len(people) - len(kept)} of {len(people)} people to train on stand in images that "
                f"{held_out.source} holds for validation; they are left out; copy both from the same place"
            )
        return kept

    def _held_out(self, path: Path) -> _HeldOut | None:
        """From the best list beside a file that is not the file itself; None where there is none."""
        for name in VALID_LISTS:
            found = _beside(path.parent, name)
            if found is None or found == path:
                continue
            try:
                return self._list(found)
            except BrokenFile as error:
                self.told.fault(str(error))
        return None

    def _list(self, path: Path) -> _HeldOut:
        if path.suffix == ".txt":
            names = frozenset(path.read_text(errors="replace").split())
            if not names:
                raise BrokenFile(path, "names no image")
            self.told.note(f"{path} names images, not people: valid is everybody in them, not the usual 2,958 people")
            return _HeldOut(path, names, None)
        people = [person for person in self._read(path) if person.split in (None, "valid")]
        return _HeldOut(path, frozenset(p.image for p in people), frozenset(p.place for p in people))

    def _with_heads(self, path: Path) -> list[Person]:
        """A file's people, with head sizes from beside it where it has none."""
        people = self._read(path)
        names = ["train.h5", "valid.h5", "annot.h5", MAT, GT]
        if path.stem in SPLITS:
            names.remove(f"{_other(path.stem)}.h5")
        if path.stem != "valid":
            names.remove(GT)  # its rows are valid.json's
        for name in names:
            if all(person.head_size_px is not None for person in people):
                break
            found = _beside(path.parent, name)
            if found is None or found == path:
                continue
            try:
                people = with_heads_of_gt(people, found) if name == GT else with_heads(people, self._read(found))
            except BrokenFile as error:
                self.told.fault(str(error))
        return people

    def _read(self, path: Path) -> list[Person]:
        if path not in self._people:
            notes = _Notes()
            notes.people = read_people(path, notes)
            self._people[path] = notes
        return self._people[path].people


@dataclass
class _Notes:
    """A file's people, and what was to be told of it: only where it is read for its people, not as a list."""

    people: list[Person] = field(default_factory=list)
    skips: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        self.skips.append((name, reason))

    def fault(self, message: str) -> None:
        self.faults.append(message)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def retell(self, told: Told) -> None:
        """Once."""
        for name, reason in self.skips:
            told.skip(name, reason)
        for message in self.faults:
            told.fault(message)
        for message in self.notes:
            told.note(message)
        self.skips, self.faults, self.notes = [], [], []


class _NoSplit(ValueError):
    """A file that does not tell who is for validation, with nothing beside it that does."""


@dataclass(frozen=True)
class _HeldOut:
    """Who is for validation, by a list."""

    source: Path
    images: frozenset[str]
    places: frozenset[tuple[str, int, int]] | None  # None: everybody in these images

    def split_of(self, person: Person) -> str | None:
        """None: beside a person who is for validation."""
        if person.image not in self.images:
            return "train"
        return "valid" if self.places is None or person.place in self.places else None


def _candidates(path: Path, subject: str) -> list[Path]:
    """The files that could tell of a subject, the one that tells most first."""
    if path.is_file():
        return [path]
    of_subject = [f"{subject}.json", f"{subject}.h5"] if subject in SPLITS else []
    names = [MAT, *of_subject[:1], ALL_JSON, *UNSPLIT[:2], *of_subject[1:], *UNSPLIT[2:]]
    if subject == "train":
        names.append(NPZ)
    return [found for name in names if (found := _beside(path, name)) is not None]


def _beside(folder: Path, name: str) -> Path | None:
    """A file of that name in a folder, or in a folder of it: "annot" and "mpii_human_pose_v1_u12_2" are usual."""
    return next(iter([*sorted(folder.glob(name)), *sorted(folder.glob(f"*/{name}"))]), None)


def _other(split: str) -> str:
    return SPLITS[1 - SPLITS.index(split)]


# ----------------------------------------------------------------------------------------------------------- frames


def _frames(
    people: list[Person], subject: str, frame_step: int, inside: Path, source: Path, told: Told
) -> Iterator[LabelledFrame]:
    numbered = sorted(_numbered(people, told), key=lambda person: (person.image, person.number))
    index_of = {image: index for index, image in enumerate(sorted({person.image for person in numbered}))}
    for person in numbered:
        if index_of[person.image] % frame_step == 0:
            yield _frame(person, subject, index_of[person.image], inside, source)


def _numbered(people: list[Person], told: Told) -> Iterator[Person]:
    """The people with their numbers in their images, counted where the file does not tell; nobody twice."""
    numbers: dict[str, set[int]] = {}
    places = set()
    for person in people:
        taken = numbers.setdefault(person.image, set())
        number = len(taken) if person.number is None else person.number
        if number in taken or person.place in places:
            told.skip(f"{person.image} p{number}", "named twice")
            continue
        taken.add(number)
        places.add(person.place)
        yield replace(person, number=number)


def _frame(person: Person, subject: str, index: int, inside: Path, source: Path) -> LabelledFrame:
    half = HEIGHT_PX * person.scale / 2.0
    return LabelledFrame(
        image_path=inside / person.image,
        key=make_key("mpii", subject, Path(person.image).stem, f"p{person.number}"),
        corpus=NAME,
        subject=subject,
        action=person.action,
        camera_id="",
        frame_index=index,
        fps=None,
        skeleton=person.skeleton,
        joints_cam_m=None,
        joints_px=person.joints_px,
        joint_score=person.joint_score,
        camera=None,
        box_px=np.concatenate([person.centre_px - half, person.centre_px + half]).astype(np.float32),
        source_file=source.name,
        image_size_wh=person.image_size_wh,
        head_size_px=person.head_size_px,
    )
