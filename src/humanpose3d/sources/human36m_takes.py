"""What Human3.6M calls its takes, and where a take's pictures lie on a disk: in its video or in a folder of images.

Every subject performs each of 15 actions twice. The corpus numbers them (action 2 to 16, take 1 and 2) but names the
files otherwise: mostly "Directions 1" is take 1 and "Directions" take 2; where a recording was repeated it is other
numbers, as EXCEPTIONS tells. Subject 1 has "TakingPhoto" and "WalkingDog" where the others have "Photo" and "WalkDog".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from humanpose3d.sources.reading import Told
from humanpose3d.video import UnreadableVideo, count_frames, frame_path

FPS = 50.0
CAMERA_IDS = {1: "54138969", 2: "55011271", 3: "58860488", 4: "60457274"}
ACTIONS = {
    2: "Directions", 3: "Discussion", 4: "Eating", 5: "Greeting", 6: "Phoning", 7: "Posing", 8: "Purchases",
    9: "Sitting", 10: "SittingDown", 11: "Smoking", 12: "Photo", 13: "Waiting", 14: "Walking", 15: "WalkDog",
    16: "WalkTogether",
}  # fmt: skip
SPELLINGS = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog", "WalkingTogether": "WalkTogether"}  # theirs -> ours
EVERYTHING = ("_ALL", "ALL")  # recordings of a whole session, without labels of their own

# (subject, action) -> what follows the action's name in take 1 and take 2, where that is not ("1", "").
EXCEPTIONS = {
    ("S1", 4): ("2", ""), ("S1", 9): ("1", "2"), ("S1", 10): ("2", ""),
    ("S5", 2): ("1", "2"), ("S5", 3): ("2", "3"), ("S5", 5): ("1", "2"), ("S5", 10): ("", "1"), ("S5", 12): ("", "2"),
    ("S5", 13): ("1", "2"),
    ("S6", 4): ("1", "2"), ("S6", 7): ("2", ""), ("S6", 9): ("1", "2"), ("S6", 12): ("", "1"), ("S6", 13): ("3", ""),
    ("S7", 6): ("2", ""), ("S7", 10): ("", "1"), ("S7", 12): ("", "1"), ("S7", 13): ("1", "2"), ("S7", 14): ("1", "2"),
    ("S8", 10): ("", "1"), ("S8", 16): ("1", "2"),
    ("S9", 3): ("1", "2"), ("S9", 10): ("", "1"),
    ("S11", 3): ("1", "2"), ("S11", 5): ("2", ""), ("S11", 6): ("3", "2"), ("S11", 10): ("", "1"),
    ("S11", 11): ("2", ""),
}  # fmt: skip
OWN_ACTION = 99  # sorts recordings that are none of the corpus's after those that are


@dataclass(frozen=True)
class Asked:
    """What a run wants of the corpus, and who hears of what is left out."""

    images_path: Path
    frame_step: int
    image_pattern: str | None
    told: Told


@dataclass(frozen=True, order=True)
class Take:
    """One recording of one subject. Sorted as the corpus numbers them."""

    number: int  # of the action, 2 to 16
    take: int  # 1 or 2
    action: str  # in one spelling for all subjects: "Photo"
    subject: str  # "S1"
    name: str  # in the names of its files: "TakingPhoto 1"

    @property
    def label(self) -> str:
        """'Photo 1': action and take."""
        return f"{self.action} {self.take}" if self.take else self.action


def file_name(subject: str, number: int, take: int) -> str:
    """What the corpus calls take 1 or 2 of action 2 to 16: "TakingPhoto 1" of subject 1, "Photo 1" of the others."""
    action = ACTIONS[number]
    if subject == "S1":
        action = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog"}.get(action, action)
    return f"{action} {EXCEPTIONS.get((subject, number), ('1', ''))[take - 1]}".rstrip()


def one_spelling(name: str) -> str:
    """'TakingPhoto 1' -> 'Photo 1'; other names as they are."""
    action, space, rest = name.partition(" ")
    return SPELLINGS.get(action, action) + space + rest


def find_take(subject: str, name: str) -> Take:
    """The take that a file's name means, in either spelling; one of its own where the corpus has no such name."""
    for number, action in ACTIONS.items():
        for take in (1, 2):
            if one_spelling(file_name(subject, number, take)) == one_spelling(name):
                return Take(number, take, action, subject, name)
    return Take(OWN_ACTION, 0, name, subject, name)


def numbered_take(subject: str, number: int, take: int, action: str) -> Take:
    """The take of those numbers. `action`: what the annotations call it, for numbers that the corpus does not have."""
    name = file_name(subject, number, take) if number in ACTIONS and take in (1, 2) else f"{action} {take}"
    return Take(number, take, action, subject, name)


# ---------------------------------------------------------------------------------------------------- its pictures


@dataclass(frozen=True)
class Pictures:
    """Where the frames of a take through one camera lie, relative to the images' folder."""

    folder: Path  # of the image files, or the video
    is_video: bool = False
    files: dict[int, str] | None = None  # by the number in their name: frame + 1
    named: Callable[..., str] | None = None  # (number=, frame=) -> the path; overrides the others

    def path(self, frame: int) -> Path:
        """Of the frame, counted from 0, whether it is there or not."""
        if self.named is not None:
            return Path(self.named(number=frame + 1, frame=frame))
        if self.is_video:
            return frame_path(self.folder, frame)
        return self.folder / (self.files or {}).get(frame + 1, f"{self.folder.name}_{frame + 1:06d}.jpg")


def find_pictures(asked: Asked, take: Take, camera_id: str) -> Pictures | None:
    """Where the take's frames are: by the pattern, else in its video, else in a folder under one of the names in use.

    None where there is neither.
    """
    if asked.image_pattern is not None:
        return Pictures(Path(), named=_filled_in(asked.image_pattern, take, camera_id))
    for video in _video_names(take, camera_id):
        if (asked.images_path / video).is_file():
            return Pictures(video, is_video=True)
    for folder in _folder_names(take, camera_id):
        if (asked.images_path / folder).is_dir():
            return Pictures(folder, files=_numbered_files(asked.images_path / folder))
    return None


def official_video(take: Take, camera_id: str) -> Pictures:
    """Where the corpus's own archives have the video, for frames whose picture is nowhere."""
    return Pictures(Path(take.subject, "Videos", f"{take.name}.{camera_id}.mp4"), is_video=True)


def _filled_in(image_pattern: str, take: Take, camera_id: str) -> Callable[..., str]:
    """(number=, frame=) -> the pattern filled in. ValueError names what a pattern can have."""
    known = {"subject": take.subject, "action": take.action, "take": take.take, "camera": camera_id}
    try:
        image_pattern.format(**known, number=1, frame=0)
        return partial(image_pattern.format, **known)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        names = ", ".join(f"{{{name}}}" for name in (*known, "number", "frame"))
        raise ValueError(
            f"--image-pattern '{image_pattern}' cannot be filled in ({error}); it can have {names}"
        ) from None


def _names(take: Take) -> list[str]:
    """The take's name in each spelling: copies have been renamed to the one or the other."""
    first, space, rest = take.name.partition(" ")
    theirs = [their for their, our in SPELLINGS.items() if our == SPELLINGS.get(first, first)]
    return list(dict.fromkeys([take.name, one_spelling(take.name), *(their + space + rest for their in theirs)]))


def _video_names(take: Take, camera_id: str) -> list[Path]:
    files = [f"{name}.{camera_id}.mp4" for name in _names(take)]
    return [Path(take.subject, *below, file) for below in (("Videos",), ()) for file in files]


def _folder_names(take: Take, camera_id: str) -> list[Path]:
    """Of extracted images: by the corpus's names, below the subject or not; 3DMPPE's; h36m-fetch's."""
    folders = []
    for name in _names(take):
        folder = f"{take.subject}_{name.replace(' ', '_')}.{camera_id}"
        folders += [Path(folder), Path(take.subject, folder)]
        action = name.partition(" ")[0]
        folders.append(Path(take.subject, f"{action}-{take.take}", "imageSequence", camera_id))
    if take.subject[1:].isdigit() and camera_id in CAMERA_IDS.values():
        camera = {name: number for number, name in CAMERA_IDS.items()}[camera_id]
        subject = int(take.subject[1:])
        folders.append(Path(f"s_{subject:02d}_act_{take.number:02d}_subact_{take.take:02d}_ca_{camera:02d}"))
    return folders


def _numbered_files(folder: Path) -> dict[int, str]:
    """The folder's files by the number that ends their names, from 1 on: where they count from 0 they are moved up."""
    found: dict[int, str] = {}
    for name in sorted(path.name for path in folder.iterdir()):
        if number := re.fullmatch(r".*?(\d+)\.\w+", name):
            found.setdefault(int(number[1]), name)
    return {number + 1: name for number, name in found.items()} if 0 in found else found


# --------------------------------------------------------------------------------------------- frames of short videos


def readable_frames(asked: Asked, pictures: Pictures, labelled: int, source: str) -> int:
    """How many of the `labelled` frames can have a picture: fewer where the video is shorter or broken, which is told.

    Longer videos are the rule: the cameras went on for some frames after the motion capture.
    """
    video = asked.images_path / pictures.folder
    if not pictures.is_video or not video.is_file():
        return labelled
    try:
        stat = video.stat()
        frames = _count_frames(video, stat.st_size, stat.st_mtime_ns)
    except UnreadableVideo as error:
        asked.told.fault(f"{error}; copy the video anew")
        return 0
    if frames < labelled:
        asked.told.fault(f"{video} has {frames} frames, {source} labels {labelled}; copy the video anew")
    return min(frames, labelled)


@lru_cache(maxsize=4096)
def _count_frames(video: Path, size: int, changed_ns: int) -> int:
    """Counting reads the whole file, and labels are read twice."""
    return count_frames(video)
