"""MPI-INF-3DHP -> LabelledFrames of 17 joints (`mpi_17`). What the toolkit knows of this corpus stands here and in its
siblings: mpi_inf_3dhp_labels.py, mpi_inf_3dhp_cameras.py and mpi_inf_3dhp_images.py.

Training: S1 ... S8, two sequences each, 14 cameras (people mostly have the eight at chest height: 0 1 2 4 5 6 7 8)
    S1/Seq1/annot.mat           MATLAB 5. cameras (numbers of the cells, from 0), frames (numbers of the rows, from 0);
                                cells, one a camera: annot2 F x 56 pixels, annot3 and univ_annot3 F x 84 millimetres,
                                a row being x1 y1 (z1) x2 y2 (z2) ... of 28 joints
    S1/Seq1/camera.calibration  text
    S1/Seq1/imageSequence/video_0.avi, or frames that somebody extracted, in any of the places that tools put them
Test: TS1 ... TS6, one camera each; 2048 x 2048, TS5 and TS6 (outdoors) 1920 x 1080
    TS1/annot_data.mat          HDF5 (MATLAB 7.3: axes in reverse). annot2 F x 1 x 17 x 2, annot3, univ_annot3
                                F x 1 x 17 x 3, valid_frame F x 1, activity_annotation F x 1 (1 ... 7)
    TS1/imageSequence/img_000001.jpg is frame 0
Either may lie in a folder of its own (`mpi_inf_3dhp_test_set`, `train`, ...: PLACES).

Or the pair data_train_3dhp.npz, data_test_3dhp.npz that P-STMO made and most lifters train on, pictures as above:
    "S1 Seq1" -> [{"0": {data_2d F x 17 x 2, data_3d F x 17 x 3}, "1": ...}, frames per second]
    "TS1" -> {data_2d, data_3d, valid}
A subject's own files are preferred to the pair.

annot3 or univ_annot3. Both are in the camera's frame. annot3 is the person: it projects on annot2 almost exactly.
univ_annot3 is the same pose drawn at the size of Human3.6M's universal skeleton about the pelvis, which stays where it
is; so it does not project on the image, and depth and bone lengths are not the person's. We take annot3. The npz pair
holds univ_annot3: there the person's size is found from data_2d, one number a camera, and undone. Note that the
official evaluation, and so the figures in papers, measure against univ_annot3: the person at another size.

Cameras of training come from camera.calibration, those of the test set and of the npz pair are fitted to the labels,
unless a calibration file lies there that says the same. A fitted camera has no pose: its world is its own frame.

Joints: 17 of the 28, in the order of the test set. Many projects carry a list that calls the 17 "0 Spine (H36M), 1
Spine4, ... 15 Spine1, 16 Head". It is wrong: 0 is the top of the head, 1 the neck, 14 the pelvis, 15 the spine.
Nothing in an array's shape gives it away, only bone lengths; data that somebody picked by that list is
`mpi_17_legacy`.

Frames. The corpus asks to use as many rows as its own table says (SEQUENCES): S3/Seq1 has one more. Of the test set,
only frames with valid_frame 1 are read, as only they are evaluated (603, 540, 505, 553, 276 and 452 of them); TS3 and
TS4 have one and two pictures more than labels. video_2.avi of S6/Seq2 has 3911 of 6145 frames: that is told, and the
rest left out. One public project says that left and right are swapped in S4/Seq2, frames 3759 to 5852, in all cameras:
that is not repaired here, `inspect` looks for such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from humanpose3d.camera import Camera
from humanpose3d.sample import LabelledFrame, make_key, normalise_subject
from humanpose3d.skeletons import MPI_17
from humanpose3d.sources.mpi_inf_3dhp_cameras import (
    CALIBRATION,
    TEST_CALIBRATIONS,
    Size,
    fit_view,
    read_calibration,
    read_test_calibration,
)
from humanpose3d.sources.mpi_inf_3dhp_images import (
    PLACES,
    Footage,
    filmed_cameras,
    pattern_footage,
    picture_size,
    subject_folder,
    test_footage,
    train_footage,
    video_footage,
)
from humanpose3d.sources.mpi_inf_3dhp_labels import TEST_CAMERA, Labels, Take, open_npz, open_test_take, open_train_take
from humanpose3d.sources.reading import BrokenFile, Told
from humanpose3d.video import UnreadableVideo

NAME = "mpi_inf_3dhp"
FOLDERS = ("", "")
SUBJECTS_HELP = "S1 ... S8, TS1 ... TS6"
CUES = "require"

CHEST_HEIGHT = frozenset("01245678")  # the cameras of the usual download
SIZE_WH = {"TS5": (1920, 1080), "TS6": (1920, 1080)}
USUAL_SIZE_WH = (2048, 2048)
SPARE_PICTURES = 2  # beyond the labels; more of them and the pictures are not those that were labelled
BOX_ENLARGED = 1.2  # a person's box against the joints' own
NPZ_FILES = {"S": "data_train_3dhp.npz", "TS": "data_test_3dhp.npz"}
NPZ_PLACES = ("", "motion3d")


def read_frames(
    images_path: Path,
    annotations_path: Path,
    subjects: Sequence[str],
    frame_step: int = 1,
    *,
    image_pattern: str | None = None,
    told: Told,
) -> Iterator[LabelledFrame]:
    """Every `frame_step`-th labelled frame, ordered by subject, sequence, camera and frame.

    In training the frames whose number the step divides, in the test set every n-th valid one. image_pattern: where the
    images lie, a format of {subject} {sequence} {camera} {frame} (from 0) {number} (from 1). ValueError,
    FileNotFoundError: no such folder or subject, or nothing that can be read.
    """
    reader = _Reader(Path(images_path), Path(annotations_path), frame_step, image_pattern, told)
    read = 0
    for open_take in reader.takes(subjects):
        try:
            take = open_take()
        except BrokenFile as broken:
            reader.lose(broken)
            continue
        read += 1
        yield from reader.frames(take)
    if not read and reader.lost:
        raise ValueError(f"nothing of {', '.join(map(str, subjects))} can be read: {reader.lost[0]}")


class _Reader:
    """Where the corpus lies, what was asked for, and who is told of what is wrong."""

    def __init__(
        self, images_path: Path, annotations_path: Path, frame_step: int, image_pattern: str | None, told: Told
    ) -> None:
        self.images_path, self.annotations_path = images_path, annotations_path
        self.frame_step, self.image_pattern, self.told = frame_step, image_pattern, told
        self.lost: list[str] = []

    def lose(self, error: ValueError) -> None:
        self.lost.append(str(error))
        self.told.fault(str(error))

    # -------------------------------------------------------------------------------------------------- what there is

    def takes(self, subjects: Sequence[str]) -> list[Callable[[], Take]]:
        """What opens each take of these subjects, in order. ValueError, FileNotFoundError: a subject has none."""
        wanted = sorted({normalise_subject(subject) for subject in subjects}, key=_order)
        openers = {subject: self._own_takes(subject) for subject in wanted}
        broken = set()
        for kind in sorted({_kind(subject) for subject, own in openers.items() if not own} & set(NPZ_FILES)):
            try:
                found = self._npz_takes(kind)
            except BrokenFile as error:
                self.lose(error)
                broken.add(kind)
                continue
            for name, opener in sorted(found.items()):
                subject = name.partition(" ")[0]
                if not self._own_files(subject):
                    openers.setdefault(subject, []).append(opener)
        unknown = [subject for subject in wanted if not openers[subject] and _kind(subject) not in broken]
        if unknown:
            present = sorted({*self._subjects_with_files(), *(name for name in openers if openers[name])}, key=_order)
            self._refuse(unknown, present)
        return [opener for subject in wanted for opener in openers[subject]]

    def _refuse(self, unknown: list[str], present: list[str]) -> None:
        if present:
            raise ValueError(
                f"no annotations of {', '.join(unknown)} in {self.annotations_path}; there are {', '.join(present)}"
            )
        raise FileNotFoundError(
            f"no S1/Seq1/annot.mat, TS1/annot_data.mat or {NPZ_FILES['S']} in {self.annotations_path}; "
            "--annotations-path names the folder that holds S1, ..., TS1, ... or the npz pair"
        )

    def _own_takes(self, subject: str) -> list[Callable[[], Take]]:
        files = self._own_files(subject)
        if _kind(subject) == "TS":
            return [lambda: open_test_take(files[0], subject)] if files else []
        return [_train_opener(file, subject) for file in files]

    def _own_files(self, subject: str) -> list[Path]:
        folder = self.annotations_path / subject_folder(self.annotations_path, subject)
        return sorted(folder.glob("annot_data.mat" if _kind(subject) == "TS" else "Seq*/annot.mat"))

    def _npz_takes(self, kind: str) -> dict[str, Callable[[], Take]]:
        """All of the train ("S") or test ("TS") file: it is one pickle."""
        files = [self.annotations_path / place / NPZ_FILES[kind] for place in NPZ_PLACES]
        return next((open_npz(file) for file in files if file.is_file()), {})

    def _subjects_with_files(self) -> list[str]:
        folders = [self.annotations_path / place for place in PLACES]
        names = {path.name for folder in folders for path in folder.glob("*S[0-9]*") if _kind(path.name)}
        return [name for name in names if self._own_files(name)]

    # ------------------------------------------------------------------------------------------------------ the frames

    def frames(self, take: Take) -> Iterator[LabelledFrame]:
        """The take's frames, camera by camera; what is lost is told."""
        calibrated = self._calibration(take)
        for camera_id, footage in self._footage(take).items():
            try:
                labels = take.labels(camera_id)
            except BrokenFile as broken:
                self.lose(broken)
                continue
            try:
                view = self._view(take, camera_id, labels, footage, calibrated.get(camera_id))
            except BrokenFile as broken:
                self.lose(broken)
                for frame in self._asked(take, labels):
                    self.told.skip(footage.path(frame).as_posix(), "no camera that fits")
                continue
            yield from self._view_frames(view)

    def _view(
        self,
        take: Take,
        camera_id: str,
        labels: Labels,
        footage: Footage,
        known: tuple[Camera, Size] | BrokenFile | None,
    ) -> _View:
        """The labels with their camera, and the person at their own size. BrokenFile where there is no camera."""
        if isinstance(known, BrokenFile):
            raise known
        source = self._relative(take.file)
        size_wh = known[1] if known else self._picture_size(take, footage)
        if known and not take.universal:
            return _View(take, camera_id, labels, footage, known[0], size_wh, source)
        cameras = [known[0]] if known else self._test_cameras(take, size_wh)
        fit = fit_view(labels.joints_cam_m, labels.joints_px, cameras, rescale=take.universal)
        if not fit.fits:
            raise BrokenFile(
                take.file,
                f"no camera projects the 3D labels of {_name(take, camera_id)} on its 2D labels: at best they lie "
                f"{100 * fit.error:.0f} % of the person's size apart",
            )
        if fit.scale != 1.0:
            source += f", drawn {fit.scale:.4f} times as large about the pelvis to fit the 2D labels"
        if not fit.calibrated:
            source += ", camera fitted to the labels"
        return _View(
            take, camera_id, replace(labels, joints_cam_m=fit.joints_cam_m), footage, fit.camera, size_wh, source
        )

    def _calibration(self, take: Take) -> dict[str, tuple[Camera, Size] | BrokenFile]:
        """Camera -> what camera.calibration says; the npz pair does without."""
        if not take.sequence:
            return {}
        paths = [
            root / subject_folder(root, take.subject) / take.sequence / CALIBRATION
            for root in (self.annotations_path, self.images_path)
        ]
        path = next((path for path in paths if path.is_file()), paths[0])
        try:
            found = read_calibration(path)
        except BrokenFile as broken:
            return {} if take.universal else dict.fromkeys(take.camera_ids, broken)
        if take.universal:
            return {camera_id: known for camera_id, known in found.items() if not isinstance(known, BrokenFile)}
        lacking = BrokenFile(path, f"lacks cameras that {take.file.name} labels (it has {_listed(found)})")
        return {camera_id: found.get(camera_id, lacking) for camera_id in take.camera_ids}

    def _test_cameras(self, take: Take, size_wh: Size) -> list[Camera]:
        """What the test set's .calib file says, where it lies there."""
        name = TEST_CALIBRATIONS.get(take.subject, "")
        for root in (self.annotations_path, self.images_path) if name else ():
            path = root / subject_folder(root, take.subject).parent / "test_util" / "camera_calibration" / name
            if path.is_file():
                try:
                    return read_test_calibration(path, size_wh)
                except BrokenFile as broken:
                    self.told.fault(f"{broken} (the camera is fitted to the labels instead)")
        return []

    def _footage(self, take: Take) -> dict[str, Footage]:
        """Camera -> its pictures, for the cameras to read.

        Where pictures of some cameras lie there, the others' absence is told if they are among the usual ones, and left
        alone if not. Where none do, all labelled cameras count: missing pictures are not this module's business.
        """
        subject, sequence = take.subject, take.sequence
        if self.image_pattern is not None:
            pattern = self.image_pattern
            return {number: pattern_footage(pattern, subject, sequence, number) for number in take.camera_ids}
        if not sequence:
            return {TEST_CAMERA: test_footage(self.images_path, subject)}
        found: dict[str, Footage] = {}
        for number in take.camera_ids:
            try:
                found[number] = train_footage(self.images_path, subject, sequence, number)
            except UnreadableVideo as error:
                self.lose(error)
                found[number] = replace(video_footage(self.images_path, subject, sequence, number), frames=())
        there = {number for number, footage in found.items() if footage.frames is not None}
        missing = CHEST_HEIGHT & set(found) - there if there else set()
        unlabelled = filmed_cameras(self.images_path, subject, sequence) - set(take.camera_ids)
        for numbers, what in ((missing, "labels, but no pictures"), (unlabelled, "pictures, but no labels")):
            if numbers:
                self.told.fault(
                    f"{take.file}: of {subject}/{sequence}, {len(take.camera_ids)} cameras are labelled and "
                    f"{len(there | unlabelled)} have pictures; {_listed(numbers)} has {what}; copy what is missing"
                )
        return {number: footage for number, footage in found.items() if not there or number in there | missing}

    def _picture_size(self, take: Take, footage: Footage) -> Size:
        """(W, H): of a picture that is there, else the corpus's."""
        found = picture_size(self.images_path, footage)
        return found or SIZE_WH.get(take.subject, USUAL_SIZE_WH)

    def _asked(self, take: Take, labels: Labels) -> dict[int, int]:
        """Number of each frame asked for -> its row."""
        rows = np.flatnonzero(labels.valid)
        # Frames of a video are counted by their number, as preprocess.py does; the valid test frames by their place.
        position = labels.frames[rows] if take.sequence else np.arange(len(rows))
        return {int(labels.frames[row]): int(row) for row in rows[position % self.frame_step == 0]}

    def _view_frames(self, view: _View) -> Iterator[LabelledFrame]:
        asked, footage = self._asked(view.take, view.labels), view.footage
        self._compare_counts(view, list(asked))
        end = footage.end
        for frame, row in asked.items():
            made = view.frame(row)
            if end is not None and frame >= end:
                self.told.skip(footage.path(frame).as_posix(), "beyond the end of its video or its pictures")
            elif made is None:
                self.told.skip(footage.path(frame).as_posix(), "no label")
            else:
                yield made

    def _compare_counts(self, view: _View, asked: list[int]) -> None:
        footage, labelled = view.footage, len(view.labels.frames)
        if not footage.frames:
            return
        counts = (
            f"{self.images_path / footage.what}: {len(footage.frames)} pictures, but {labelled} labelled frames in "
            f"{view.take.file.name}"
        )
        lacking = [frame for frame in asked if frame not in footage.frames]
        if lacking:
            self.told.fault(
                f"{counts}; of the {len(asked)} asked for, {len(lacking)} are not there, the first is frame "
                f"{lacking[0]} ({footage.path(lacking[0]).name}); copy or extract the pictures anew"
            )
        elif len(footage.frames) > labelled + SPARE_PICTURES:
            self.told.fault(f"{counts}; they are matched by number: is it another frame rate?")

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.annotations_path).as_posix()


@dataclass(frozen=True, eq=False)
class _View:
    """One camera of a take, with all that makes its frames."""

    take: Take
    camera_id: str
    labels: Labels
    footage: Footage
    camera: Camera
    size_wh: Size
    source_file: str

    def frame(self, row: int) -> LabelledFrame | None:
        """None where nothing is labelled."""
        joints_px, joints_cam_m = self.labels.joints_px[row], self.labels.joints_cam_m[row]
        known = np.isfinite(joints_px).all(-1) & np.isfinite(joints_cam_m).all(-1)
        if not known.any():
            return None
        frame, subject = int(self.labels.frames[row]), self.take.subject
        return LabelledFrame(
            image_path=self.footage.path(frame),
            key=make_key("3dhp", subject, self.take.sequence or "test", self.camera_id, f"{frame:06d}", "p0"),
            corpus=NAME,
            subject=subject,
            action=self.labels.actions[row],
            camera_id=self.camera_id,
            frame_index=frame,
            fps=self.take.fps,
            skeleton=MPI_17.name,
            joints_cam_m=np.where(known[:, None], joints_cam_m, np.nan).astype(np.float32),
            joints_px=np.where(known[:, None], joints_px, np.nan).astype(np.float32),
            joint_score=known.astype(np.float32),
            camera=self.camera,
            box_px=_box(joints_px[known]),
            source_file=self.source_file,
            image_size_wh=self.size_wh,
        )


def _train_opener(file: Path, subject: str) -> Callable[[], Take]:
    return lambda: open_train_take(file, subject, file.parent.name)


def _kind(subject: str) -> str:
    """'S' or 'TS'; empty for other names."""
    head = subject.rstrip("0123456789")
    return head if head in NPZ_FILES and head != subject else ""


def _order(subject: str) -> tuple[int, int, str]:
    kind = _kind(subject)
    return (len(kind) or 3, int(subject[len(kind) :]) if kind else 0, subject)


def _box(joints_px: np.ndarray) -> np.ndarray:
    """float32 [4]: the joints' own box, enlarged about its middle."""
    low, high = joints_px.min(0), joints_px.max(0)
    grow = (high - low) * (BOX_ENLARGED - 1.0) / 2.0
    return np.concatenate([low - grow, high + grow]).astype(np.float32)


def _name(take: Take, camera_id: str) -> str:
    return f"{take.subject} {take.sequence} camera {camera_id}" if take.sequence else take.subject


def _listed(numbers: Iterable[str]) -> str:
    return ", ".join(f"camera {number}" for number in sorted(numbers, key=lambda number: (len(number), number)))
