"""The chunker: label joined with the right detection, cropped exactly, windows, faults named, bytes reproducible."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import orjson
import pytest

from humanpose3d.camera import Camera, camera_to_pixel
from humanpose3d.chunks import build as build_module
from humanpose3d.chunks.build import SampleJob, build_chunks
from humanpose3d.chunks.codec import BadSample, decode_sample, encode_jpeg
from humanpose3d.chunks.layout import read_index
from humanpose3d.chunks.matching import match_error
from humanpose3d.remotes import open_store
from humanpose3d.reports import StageReport
from humanpose3d.sample import LabelledFrame, PoseSample, make_key
from humanpose3d.sidecars import Person, Sidecar, read_sidecar, sidecar_paths, write_sidecar
from humanpose3d.skeletons import COCO_17, H36M_17, shared_joints
from humanpose3d.sources import SOURCES
from humanpose3d.studio.mocap import write_mocap
from tests.chunks.sets import hashes, read_set

WIDTH, HEIGHT = 160, 120
CAMERA = Camera.create(150.0, (80.0, 60.0), distortion=np.array([0.01, 0.0, 0.001, 0.0, 0.0]))


class Corpus:
    """Twelve frames of two subjects on disk, with sidecars, and a reader for them."""

    def __init__(self, root: Path) -> None:
        self.images, self.processed = root / "images", root / "processed"
        self.frames = [self._frame(number) for number in range(12)]
        for frame in self.frames:
            self.write_image(frame)
            self.write_cues(frame, [self.person(frame)])

    def _frame(self, number: int) -> LabelledFrame:
        rng = np.random.default_rng(number // 6)
        joints_cam_m = rng.uniform(-0.5, 0.5, (17, 3)) + [0.02 * (number % 6), 0.0, 4.0]
        joints_px = camera_to_pixel(joints_cam_m, CAMERA).astype(np.float32)
        subject = "S1" if number < 6 else "S9"
        return LabelledFrame(
            image_path=Path(f"take_{subject}/frame_{number % 6 + 1:04d}.jpg"),
            key=make_key("h36m", subject, "Walk 1", "cam", f"{number % 6:06d}", "p0"),
            corpus="human36m", subject=subject, action="Walk 1", camera_id="cam", frame_index=number % 6, fps=50.0,
            skeleton="h36m_17", joints_cam_m=joints_cam_m.astype(np.float32), joints_px=joints_px,
            joint_score=np.ones(17, np.float32), camera=CAMERA,
            box_px=np.concatenate([joints_px.min(0) - 4, joints_px.max(0) + 4]).astype(np.float32),
            source_file="labels.json",
        )  # fmt: skip

    def write_image(self, frame: LabelledFrame) -> None:
        path = self.images / frame.image_path
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        assert frame.joints_px is not None
        for x, y in frame.joints_px:
            cv2.circle(image, (round(float(x)), round(float(y))), 3, (250, 250, 250), -1)
        path.write_bytes(encode_jpeg(image, 95))

    def write_cues(self, frame: LabelledFrame, people: list[Person], **changes: Any) -> None:
        stem = self.processed / frame.image_path.with_suffix("")
        stem.parent.mkdir(parents=True, exist_ok=True)
        depth_m = np.full((HEIGHT // 2, WIDTH // 2), 4.0, np.float32)
        estimators = {"keypoints": {"name": "test", "version": "1", "sha256": "ab"}}
        write_sidecar(stem, Sidecar((WIDTH, HEIGHT), people, depth_m=depth_m, estimators=estimators, **changes))

    @staticmethod
    def person(frame: LabelledFrame, shift_px: float = 0.5) -> Person:
        assert frame.joints_px is not None
        of_label, of_person = shared_joints(H36M_17, COCO_17)
        keypoints_px = np.full((17, 2), frame.joints_px.mean(0), np.float32)
        keypoints_px[of_person] = frame.joints_px[of_label]
        keypoints_px += shift_px
        box_px = np.concatenate([keypoints_px.min(0) - 2, keypoints_px.max(0) + 2])
        return Person(box_px, 0.9, keypoints_px, np.linspace(0.1, 0.9, 17, dtype=np.float32))

    def cues(self, number: int) -> tuple[Path, Path]:
        path = self.processed / self.frames[number].image_path
        return sidecar_paths(path.parent, path.stem)

    def read_frames(
        self, images: Path, annotations: Path, subjects: Any, step: int, *, image_pattern: Any, told: Any
    ) -> Iterator[LabelledFrame]:
        told.skip("take_S1/frame_0099.jpg", "no 3D label")
        yield from self.frames[::step]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    corpus = Corpus(tmp_path / "corpus")
    monkeypatch.setitem(
        SOURCES,
        "test",
        SimpleNamespace(read_frames=corpus.read_frames, CUES="require", FOLDERS=("images", "annotations")),
    )  # type: ignore[arg-type]
    return corpus


def build(corpus: Corpus, output: str | Path, **changes: Any) -> StageReport:
    settings: dict[str, Any] = {
        "subjects": ("1", "9"), "dataset": "test", "images_path": corpus.images, "processed_path": corpus.processed,
        "annotations_path": corpus.images, "chunk_size": 5, "crop": "person", "image_size": 96, "margin": 0.25,
        "depth_scale": 0.5, "jpeg_quality": 95, "image_pattern": None, "frame_step": 1, "window": 0,
        "match_threshold": 0.15, "cues": "auto", "missing_images": "error", "cameras": None,
        "camera_seed": None, "bodies": None, "compress": "none", "workers": 1, "max_bad": 0.2,
    }  # fmt: skip
    return build_chunks(output=str(output), **(settings | changes))


def samples_in(output: str | Path, tmp_path: Path) -> list[PoseSample]:
    return [decode_sample(key, members) for key, members in read_set(output, tmp_path / "x")]


def test_every_labelled_frame_becomes_a_sample_with_its_cues(corpus: Corpus, tmp_path: Path) -> None:
    report = build(corpus, tmp_path / "out")
    samples = samples_in(tmp_path / "out", tmp_path)
    assert [sample.key for sample in samples] == [frame.key for frame in corpus.frames]
    first = samples[0]
    assert first.image is not None and first.image.shape == (96, 96, 3)
    assert first.depth_m is not None and first.depth_m.shape == (48, 48) and first.depth_m[24, 24] == 4.0
    assert (first.skeleton, first.keypoint_skeleton, first.subject) == ("h36m_17", "coco_17", "S1")
    np.testing.assert_array_equal(first.keypoint_score, np.linspace(0.1, 0.9, 17, dtype=np.float32))
    assert first.provenance == {
        "estimators": {"keypoints": {"name": "test", "version": "1", "sha256": "ab"}},
        "image_file": "take_S1/frame_0001.jpg",
        "source_file": "labels.json",
    }
    assert read_index(open_store(tmp_path / "out")).subjects == {"S1": 6, "S9": 6}
    assert report.skipped == {"no 3D label": ["take_S1/frame_0099.jpg"]} and report.inputs == 13
    written = orjson.loads((tmp_path / "out" / "chunker_report.json").read_bytes())
    assert written["counts"] == {"samples": 12, "chunks": 3}


@pytest.mark.parametrize("crop", ["person", "none"])
def test_stored_joints_project_onto_the_stored_image(corpus: Corpus, tmp_path: Path, crop: str) -> None:
    build(corpus, tmp_path / "out", crop=crop)
    for sample in samples_in(tmp_path / "out", tmp_path):
        assert sample.camera is not None and sample.joints_px is not None and sample.image is not None
        assert sample.joint_in_view is not None
        projected = camera_to_pixel(sample.joints_cam_m, sample.camera)
        np.testing.assert_allclose(projected, sample.joints_px, atol=0.01)
        seen = np.rint(sample.joints_px[sample.joint_in_view]).astype(int)
        assert sample.image[seen[:, 1], seen[:, 0]].min() > 150  # each joint was drawn as a white dot


def test_no_crop_keeps_the_jpegs_own_bytes(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, tmp_path / "out", crop="none")
    for frame, (_, members) in zip(corpus.frames, read_set(tmp_path / "out", tmp_path / "x"), strict=True):
        assert members["image.jpg"] == (corpus.images / frame.image_path).read_bytes()
    assert samples_in(tmp_path / "out", tmp_path)[0].depth_m.shape == (HEIGHT // 2, WIDTH // 2)  # type: ignore[union-attr]


def test_an_image_that_is_no_jpeg_is_stored_as_one(corpus: Corpus, tmp_path: Path) -> None:
    frame = corpus.frames[0]
    path = corpus.images / frame.image_path
    corpus.frames[0] = dataclasses.replace(frame, image_path=frame.image_path.with_suffix(".png"))
    cv2.imwrite(str(path.with_suffix(".png")), np.dstack([np.full((HEIGHT, WIDTH), v, np.uint8) for v in (9, 99, 200)]))
    build(corpus, tmp_path / "out", crop="none")
    image = samples_in(tmp_path / "out", tmp_path)[0].image
    assert image is not None and np.abs(image[50, 50].astype(int) - [200, 99, 9]).max() < 6


def test_of_several_people_the_labelled_one_is_taken(corpus: Corpus, tmp_path: Path) -> None:
    frame = corpus.frames[3]
    mine = corpus.person(frame)
    corpus.write_cues(frame, [corpus.person(frame, 40.0), mine, corpus.person(frame, -30.0)])
    build(corpus, tmp_path / "out", crop="none")
    np.testing.assert_allclose(samples_in(tmp_path / "out", tmp_path)[3].keypoints_px, mine.keypoints_px, atol=1e-4)


def test_the_match_is_the_mean_distance_against_the_persons_size(corpus: Corpus) -> None:
    frame = corpus.frames[0]
    size = float((frame.box_px[2:] - frame.box_px[:2]).max())
    assert match_error(frame, corpus.person(frame, 0.0), "coco_17") == 0.0
    assert match_error(frame, corpus.person(frame, 3.0), "coco_17") == pytest.approx(3.0 * np.sqrt(2) / size, rel=1e-4)


def test_the_box_holds_label_and_detection_and_stays_on_the_image(corpus: Corpus, tmp_path: Path) -> None:
    frame = corpus.frames[0]
    wide = dataclasses.replace(corpus.person(frame), box_px=np.array([-20.0, 30.0, 50.0, 90.0], np.float32))
    corpus.write_cues(frame, [wide])
    build(corpus, tmp_path / "out", crop="none")
    box_px = samples_in(tmp_path / "out", tmp_path)[0].box_px
    low, high = np.minimum(frame.box_px[:2], [-20, 30]), np.maximum(frame.box_px[2:], [50, 90])
    limits = [WIDTH - 1, HEIGHT - 1]
    np.testing.assert_allclose(box_px, np.concatenate([np.clip(low, 0, limits), np.clip(high, 0, limits)]), atol=1e-4)


def test_faulty_frames_are_left_out_named_and_counted(corpus: Corpus, tmp_path: Path) -> None:
    keys = [frame.key for frame in corpus.frames]
    broken = corpus.images / corpus.frames[0].image_path
    broken.write_bytes(broken.read_bytes()[:-200])
    (corpus.images / corpus.frames[1].image_path).unlink()
    corpus.cues(2)[0].unlink()
    corpus.cues(3)[0].write_text("{}")
    corpus.write_cues(corpus.frames[4], [])
    corpus.write_cues(corpus.frames[5], [corpus.person(corpus.frames[5], 30.0)])
    cv2.imwrite(str(corpus.images / corpus.frames[6].image_path), np.zeros((50, 50, 3), np.uint8))
    corpus.cues(7)[1].unlink()
    report = build(corpus, tmp_path / "out", missing_images="skip")
    assert report.skipped == {
        "no 3D label": ["take_S1/frame_0099.jpg"],
        "unreadable image": [keys[0]],
        "no image": [keys[1]],
        "no sidecar of preprocess.py": [keys[2], keys[7]],
        "broken sidecar; run preprocess.py --overwrite": [keys[3]],
        "no person found": [keys[4]],
        "no detection matches the label": [keys[5]],
        "its sidecar is of an image of another size": [keys[6]],
    }
    assert [sample.key for sample in samples_in(tmp_path / "out", tmp_path)] == keys[8:]
    assert report.exit_code == 1


def test_keypoints_of_another_joint_order_are_not_mixed_in(corpus: Corpus, tmp_path: Path) -> None:
    person = corpus.person(corpus.frames[3])
    others = dataclasses.replace(
        person, keypoints_px=person.keypoints_px[:16], keypoint_score=person.keypoint_score[:16]
    )
    corpus.write_cues(corpus.frames[3], [others], keypoint_skeleton="mpii_16")
    report = build(corpus, tmp_path / "out", window=3)
    reason = "its keypoints are mpii_16, the others' coco_17; run preprocess.py --overwrite"
    assert report.skipped[reason] == [corpus.frames[3].key]
    windows = [sample.keypoint_window for sample in samples_in(tmp_path / "out", tmp_path)]
    assert len(windows) == 11 and np.isnan(windows[2][2]).any() and np.isnan(windows[3][0]).any()  # type: ignore[index]


def test_the_threshold_decides_how_far_off_a_detection_may_be(corpus: Corpus, tmp_path: Path) -> None:
    for frame in corpus.frames:
        corpus.write_cues(frame, [corpus.person(frame, 5.0)])
    with pytest.raises(ValueError, match="no sample is left .*12 no detection matches the label"):
        build(corpus, tmp_path / "strict", match_threshold=0.02)
    assert build(corpus, tmp_path / "strict", match_threshold=0.2).counts["samples"] == 12


def test_without_any_sidecar_the_user_is_told_to_preprocess(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is missing; run preprocess.py on .*images first"):
        build(corpus, tmp_path / "out", processed_path=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty has no sidecar of these frames; run preprocess.py on .* first"):
        build(corpus, tmp_path / "out", processed_path=tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_a_missing_images_folder_is_said_at_once_unless_pictures_are_drawn(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is missing; --images-path names the folder of test's images"):
        build(corpus, tmp_path / "out", images_path=tmp_path / "nowhere")
    nowhere = {"images_path": tmp_path / "nowhere", "processed_path": tmp_path / "nowhere"}
    report = build(corpus, tmp_path / "out", missing_images="synthetic", **nowhere)
    assert report.counts["synthetic"] == 12


def test_missing_images_end_the_run_unless_asked_otherwise(corpus: Corpus, tmp_path: Path) -> None:
    for frame in corpus.frames[1:3]:
        (corpus.images / frame.image_path).unlink()
    wanted = (
        r"2 of 12 images that the annotations name are not in .*\(take_S1 2 of 6\), the first take_S1/frame_0002.jpg"
    )
    with pytest.raises(FileNotFoundError, match=wanted + ".*--missing-images skip"):
        build(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = build(corpus, tmp_path / "out", missing_images="skip")
    assert report.counts["samples"] == 10 and report.skipped["no image"] == [frame.key for frame in corpus.frames[1:3]]


@pytest.mark.parametrize("crop", ["person", "none"])
def test_a_stand_in_shows_the_label_and_says_what_it_is(corpus: Corpus, tmp_path: Path, crop: str) -> None:
    (corpus.images / corpus.frames[1].image_path).unlink()
    report = build(corpus, tmp_path / "out", missing_images="synthetic", crop=crop, window=3)
    samples = samples_in(tmp_path / "out", tmp_path)
    assert [sample.synthetic for sample in samples] == [False, True] + [False] * 10
    assert report.counts["synthetic"] == 1 and "1 with a drawn picture" in report.summary
    drawn = samples[1]
    assert drawn.image is not None and drawn.keypoints_px is not None and drawn.joints_px is not None
    of_label, of_keypoints = shared_joints(H36M_17, COCO_17)
    np.testing.assert_allclose(drawn.keypoints_px[of_keypoints], drawn.joints_px[of_label], atol=1e-3)
    assert drawn.keypoint_score is not None and (drawn.keypoint_score[of_keypoints] == 1).all()
    elbow, wrist = (drawn.joints_px[H36M_17.index(f"left_{joint}")] for joint in ("elbow", "wrist"))
    middle = np.rint((elbow + wrist) / 2).astype(int)
    assert np.abs(drawn.image[middle[1], middle[0]].astype(int) - 128).max() > 40
    assert drawn.depth_m is None


def test_frames_without_a_detection_are_kept_where_cues_are_optional(corpus: Corpus, tmp_path: Path) -> None:
    corpus.write_cues(corpus.frames[4], [])
    corpus.write_cues(corpus.frames[5], [corpus.person(corpus.frames[5], 30.0)])
    corpus.cues(6)[0].unlink()
    report = build(corpus, tmp_path / "out", cues="optional", window=3)
    samples = samples_in(tmp_path / "out", tmp_path)
    assert len(samples) == 12 and report.counts["without_keypoints"] == 3
    for sample in samples[4:7]:
        assert sample.keypoint_skeleton == "coco_17" and sample.keypoints_px is not None
        assert np.isnan(sample.keypoints_px).all() and not sample.keypoint_score.any()  # type: ignore[union-attr]


def test_labels_alone_make_a_set_without_keypoints(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, tmp_path / "out", cues="optional", processed_path=tmp_path / "nowhere")
    index = read_index(open_store(tmp_path / "out"))
    assert (index.samples, index.skeleton, index.keypoint_skeleton) == (12, "h36m_17", None)


def test_a_label_without_2d_joints_goes_by_its_box(corpus: Corpus) -> None:
    frame = corpus.frames[0]
    boxed = dataclasses.replace(frame, joints_px=None)
    assert match_error(boxed, corpus.person(frame), "coco_17") == 0.0
    assert match_error(boxed, corpus.person(frame, 200.0), "coco_17") == np.inf


def test_what_the_doctor_sees_stands_in_the_report(corpus: Corpus, tmp_path: Path) -> None:
    report = build(corpus, tmp_path / "out")
    assert report.facts["inspection"]["samples"] == 12


def inspection_in(output: Path) -> dict[str, Any]:
    return orjson.loads((output / "chunker_report.json").read_bytes())["inspection"]


@pytest.mark.parametrize("killed_at", [3, 8, 11, 12])
def test_a_chunker_cut_off_or_run_again_tells_the_faults_that_one_run_finds(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    corpus.write_cues(corpus.frames[1], [corpus.person(corpus.frames[1], 30.0)])  # fits no label
    (corpus.images / corpus.frames[2].image_path).write_bytes(b"broken")
    whole = build(corpus, tmp_path / "whole")
    assert whole.faults and whole.facts["inspection"]["samples"] == 11
    cut_at(killed_at, corpus, tmp_path / "cut", monkeypatch)
    for _ in ("resumed", "again"):
        report = build(corpus, tmp_path / "cut")
        assert report.faults == whole.faults and report.exit_code == 1
        assert inspection_in(tmp_path / "cut") == inspection_in(tmp_path / "whole")


def test_the_faults_of_a_set_whose_report_was_not_written_any_more_are_found_again(
    corpus: Corpus, tmp_path: Path
) -> None:
    build(corpus, tmp_path / "out")
    before = inspection_in(tmp_path / "out")
    (tmp_path / "out" / "chunker_report.json").unlink()
    build(corpus, tmp_path / "out")
    assert inspection_in(tmp_path / "out") == before


def test_a_shard_run_again_keeps_the_faults_it_told(corpus: Corpus, tmp_path: Path) -> None:
    for number in (1, 2, 1):
        reports = [build(corpus, tmp_path / "out", shard=f"{number}/2") for _ in range(2)]
        assert reports[0].faults == reports[1].faults != []
    assert inspection_in(tmp_path / "out")["samples"] == 12


def test_an_unknown_corpus_is_refused_with_the_known_ones(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="human36m"):
        build(corpus, tmp_path / "out", dataset="human35m")


def test_sidecars_without_depth_give_samples_without_depth(corpus: Corpus, tmp_path: Path) -> None:
    for number, frame in enumerate(corpus.frames):
        sidecar = read_sidecar(corpus.processed / frame.image_path.with_suffix(""))
        write_sidecar(corpus.processed / frame.image_path.with_suffix(""), dataclasses.replace(sidecar, depth_m=None))
        assert not corpus.cues(number)[1].exists()
    build(corpus, tmp_path / "out")
    assert read_index(open_store(tmp_path / "out")).members == {"image.jpg": 12, "meta.json": 12}


def test_a_window_follows_the_person_through_the_frames_around(corpus: Corpus, tmp_path: Path) -> None:
    corpus.cues(1)[0].unlink()  # a gap
    corpus.write_cues(corpus.frames[4], [corpus.person(corpus.frames[4], 60.0), corpus.person(corpus.frames[4])])
    build(corpus, tmp_path / "out", window=5, crop="none")
    sample = samples_in(tmp_path / "out", tmp_path)[2]  # without frame 1, this is frame 3
    assert sample.key == corpus.frames[3].key and sample.window_fps == 50.0
    window = sample.keypoint_window
    assert window is not None and window.shape == (5, 17, 3)
    assert np.isnan(window[0, :, :2]).all() and (window[0, :, 2] == 0).all()
    for row, number in ((1, 2), (2, 3), (3, 4), (4, 5)):
        person = corpus.person(corpus.frames[number])
        np.testing.assert_allclose(window[row, :, :2], person.keypoints_px, atol=1e-4)
        np.testing.assert_allclose(window[row, :, 2], person.keypoint_score)
    # The next take begins with file 1 again: its first frame has nobody before it.
    assert np.isnan(samples_in(tmp_path / "out", tmp_path)[5].keypoint_window[:2, :, :2]).all()  # type: ignore[index]


def test_a_window_lies_in_the_crops_pixels(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, tmp_path / "out", window=3)
    for sample in samples_in(tmp_path / "out", tmp_path):
        assert sample.keypoint_window is not None
        np.testing.assert_allclose(sample.keypoint_window[1, :, :2], sample.keypoints_px, atol=1e-3)


def test_an_even_window_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--window 4: an odd number"):
        build(corpus, tmp_path / "out", window=4)


def test_the_bytes_do_not_depend_on_the_number_of_processes(corpus: Corpus, tmp_path: Path) -> None:
    (corpus.images / corpus.frames[1].image_path).write_bytes(b"broken")
    reports = [build(corpus, tmp_path / f"by_{workers}", workers=workers, window=3) for workers in (1, 2)]
    assert hashes(tmp_path / "by_1") == hashes(tmp_path / "by_2")
    assert reports[0].skipped == reports[1].skipped


@pytest.mark.parametrize("killed_at", [1, 5, 6, 11])
def test_a_chunker_killed_anywhere_ends_with_the_same_bytes(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    (corpus.images / corpus.frames[2].image_path).write_bytes(b"broken")
    whole = build(corpus, tmp_path / "whole")
    cut_at(killed_at, corpus, tmp_path / "cut", monkeypatch)
    resumed = build(corpus, tmp_path / "cut")
    again = build(corpus, tmp_path / "cut")
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert resumed.skipped == again.skipped == whole.skipped and resumed.counts == again.counts == whole.counts


def test_a_resumed_chunker_counts_the_last_sample_of_a_chunk(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"cues": "optional", "processed_path": tmp_path / "none", "chunk_size": 2}
    whole = build(corpus, tmp_path / "whole", **settings)
    write, written = build_module.ChunkSetWriter.write, []

    def cut(writer: Any, position: int, *rest: Any) -> None:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(position)
        write(writer, position, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(build_module.ChunkSetWriter, "write", cut)
        with pytest.raises(KeyboardInterrupt):
            build(corpus, tmp_path / "cut", **settings)
    resumed = build(corpus, tmp_path / "cut", **settings)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert resumed.counts == whole.counts and whole.counts["without_keypoints"] == whole.counts["samples"]


def damage(corpus: Corpus) -> dict[str, Any]:
    """Frames of all kinds that are left out; the settings with which the rest is chunked."""
    (corpus.images / corpus.frames[1].image_path).unlink()
    (corpus.images / corpus.frames[2].image_path).write_bytes(b"broken")
    corpus.write_cues(corpus.frames[4], [])
    corpus.cues(6)[0].unlink()
    (corpus.images / corpus.frames[11].image_path).unlink()
    return {"missing_images": "skip", "chunk_size": 2, "max_bad": 1.0}


@pytest.mark.parametrize("order", [(1, 2), (4, 2, 1, 3), (2, 9, 8, 1, 4, 3, 6, 7, 5)])
def test_shards_in_any_order_write_the_bytes_of_one_run(
    corpus: Corpus, tmp_path: Path, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = damage(corpus)
    whole = build(corpus, tmp_path / "whole", **settings)
    make = build_module.SampleMaker.make
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def cut(maker: Any, frame: LabelledFrame) -> dict[str, bytes]:
            if frame.key == corpus.frames[3].key:
                raise KeyboardInterrupt
            return make(maker, frame)

        patched.setattr(build_module.SampleMaker, "make", cut)
        for number in order:
            build(corpus, tmp_path / "parts", shard=f"{number}/{len(order)}", **settings)
    for number in order:
        report = build(corpus, tmp_path / "parts", shard=f"{number}/{len(order)}", **settings)
    assert "all have ended" in report.summary
    written, expected = hashes(tmp_path / "parts"), hashes(tmp_path / "whole")
    assert {name: value for name, value in written.items() if "_report." not in name} == expected
    together = orjson.loads((tmp_path / "parts" / "chunker_report.json").read_bytes())
    assert together["counts"] == whole.counts and together["inputs"] == whole.inputs == 13
    assert {reason: each["inputs"] for reason, each in together["skipped"].items()} == whole.skipped


def test_frames_without_files_leave_no_empty_chunks(corpus: Corpus, tmp_path: Path) -> None:
    for frame in (*corpus.frames[:5], *corpus.frames[9:]):
        (corpus.images / frame.image_path).unlink()
    build(corpus, tmp_path / "out", missing_images="skip", chunk_size=2)
    index = read_index(open_store(tmp_path / "out"))
    assert [(entry.number, entry.samples) for entry in index.chunks] == [(0, 2), (1, 2)]


def test_a_chunk_takes_its_frames_whatever_was_left_out_before(corpus: Corpus, tmp_path: Path) -> None:
    for frame in (corpus.frames[0], *corpus.frames[4:6]):
        (corpus.images / frame.image_path).write_bytes(b"broken")  # seen only as it is decoded
    build(corpus, tmp_path / "out", chunk_size=2, max_bad=1.0)
    index = read_index(open_store(tmp_path / "out"))
    assert [(entry.number, entry.samples) for entry in index.chunks] == [(0, 1), (1, 2), (3, 2), (4, 2), (5, 2)]


def test_new_cues_are_not_taken_for_the_old_ones(corpus: Corpus, tmp_path: Path) -> None:
    corpus.cues(2)[0].unlink()
    build(corpus, tmp_path / "out")
    corpus.write_cues(corpus.frames[2], [corpus.person(corpus.frames[2])])
    with pytest.raises(ValueError, match=r"finished set of other settings or other input \(input\)"):
        build(corpus, tmp_path / "out")


def moved_camera(frame: LabelledFrame) -> dict[str, Any]:
    assert frame.camera is not None
    return {"camera": dataclasses.replace(frame.camera, t_m=frame.camera.t_m + 0.1)}


LABEL_CHANGES: dict[str, Callable[[LabelledFrame], dict[str, Any]]] = {
    "3D joints": lambda frame: {"joints_cam_m": frame.joints_cam_m + np.float32(0.01)},
    "camera": moved_camera,
    "SMPL pose": lambda frame: {"smpl_pose_rad": np.zeros((24, 3), np.float32)},
    "valid": lambda frame: {"valid": False},
}


@pytest.mark.parametrize("change", LABEL_CHANGES)
@pytest.mark.parametrize("killed_at", [None, 8])
def test_a_set_of_other_labels_is_neither_kept_nor_gone_on_with(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, killed_at: int | None
) -> None:
    cut_at(killed_at, corpus, tmp_path / "out", monkeypatch)
    corpus.frames[7] = dataclasses.replace(corpus.frames[7], **LABEL_CHANGES[change](corpus.frames[7]))
    with pytest.raises(ValueError, match=r"finished set of other settings or other input \(input\)"):
        build(corpus, tmp_path / "out")


def test_keypoints_found_anew_are_not_taken_for_the_old_ones_of_the_same_length(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, tmp_path / "out")
    before = corpus.cues(7)[0].read_bytes()
    corpus.cues(7)[0].write_bytes(before.replace(b'"score":0.9', b'"score":0.8'))
    assert corpus.cues(7)[0].read_bytes() != before
    with pytest.raises(ValueError, match=r"finished set of other settings or other input \(input\)"):
        build(corpus, tmp_path / "out")


def cut_at(number: int | None, corpus: Corpus, output: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Runs the chunker until it makes that sample; to its end where there is no number."""
    make, made = build_module.SampleMaker.make, []

    def cut(maker: Any, frame: LabelledFrame) -> dict[str, bytes]:
        made.append(frame.key)
        if len(made) == number:
            raise KeyboardInterrupt
        return make(maker, frame)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt) if number else nullcontext():
        patched.setattr(build_module.SampleMaker, "make", cut)
        build(corpus, output, **changes)


def test_chunks_go_straight_to_a_remote(corpus: Corpus, tmp_path: Path, s3_remote: Any) -> None:
    build(corpus, s3_remote.location)
    build(corpus, tmp_path / "out")
    assert hashes(s3_remote.folder) == hashes(tmp_path / "out")
    assert (s3_remote.folder / "chunker_report.json").exists()


def die(_: Any) -> None:
    os._exit(9)


def test_a_worker_that_dies_is_said_so(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "_work", die)
    with pytest.raises(OSError, match="a worker process was killed.*fewer --workers: finished chunks are kept"):
        build(corpus, tmp_path / "out", workers=2)


def test_samples_made_in_any_order_come_in_the_frames_order(corpus: Corpus) -> None:
    made = SampleJob(_a_maker(corpus))(0)
    tasks = list(build_module._tasks(iter(corpus.frames), 5))
    results = [made(tasks[2]), made(tasks[0]), *(build_module._deadly(task) for task in ([tasks[1][0]],))]
    results += [made([each]) for each in reversed(tasks[1][1:])]
    keys = [(key, isinstance(result, BadSample)) for key, result in build_module._in_order(iter(results))]
    assert keys == [(frame.key, number == 5) for number, frame in enumerate(corpus.frames)]
    assert build_module._deadly(tasks[1]) == [[each] for each in tasks[1]]


def _a_maker(corpus: Corpus) -> build_module.SampleMaker:
    return build_module.SampleMaker(
        corpus.images, corpus.processed, "person", 96, 0.25, 0.5, 95, 0, 0.15, "require", False, "coco_17"
    )


# ------------------------------------------------------------------------------------------ motion without pictures


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion")
    write_mocap(folder, subjects=["S101", "S901"], frames_per_take=6)
    return folder


def build_motion(motion: Path, output: Path, **changes: Any) -> StageReport:
    settings: dict[str, Any] = {
        "subjects": ("train", "validation"), "dataset": "mocap", "images_path": None, "processed_path": None,
        "annotations_path": motion, "chunk_size": 100, "cameras": 2, "window": 5,
    }  # fmt: skip
    return build(SimpleNamespace(images=None, processed=None), output, **(settings | changes))  # type: ignore[arg-type]


def test_motion_needs_neither_pictures_nor_sidecars(motion: Path, tmp_path: Path) -> None:
    report = build_motion(motion, tmp_path / "out")
    found = read_set(tmp_path / "out", tmp_path / "x")
    assert len(found) == report.counts["samples"] == 2 * 15 * 6 * 2 and report.exit_code == 0
    assert {tuple(members) for _, members in found} == {("window.npy", "meta.json")}
    index = read_index(open_store(tmp_path / "out"))
    assert (index.skeleton, index.keypoint_skeleton) == ("h36m_17", "coco_17")
    assert index.subjects == {"S101": 180, "S901": 180}


def test_samples_of_motion_hold_keypoints_of_their_own_and_the_whole_virtual_image(
    motion: Path, tmp_path: Path
) -> None:
    build_motion(motion, tmp_path / "out", bodies="recorded")  # others have hips and shoulders marked beside the joints
    of_label, of_keypoints = shared_joints(H36M_17, COCO_17)
    for sample in samples_in(tmp_path / "out", tmp_path):
        assert sample.image is None and sample.depth_m is None and not sample.synthetic
        assert sample.camera is not None and sample.joints_cam_m is not None and sample.joints_px is not None
        np.testing.assert_allclose(camera_to_pixel(sample.joints_cam_m, sample.camera), sample.joints_px, atol=0.01)
        assert sample.keypoints_px is not None and sample.keypoint_score is not None
        np.testing.assert_allclose(sample.keypoints_px[of_keypoints], sample.joints_px[of_label], atol=0.01)
        assert (sample.keypoint_score == 1.0).all() and min(sample.image_size_wh) >= 720
        assert sample.fps == sample.window_fps == 10.0 and sample.box_px is not None
        assert "image_file" not in sample.provenance


def test_a_window_of_motion_ends_with_the_take(motion: Path, tmp_path: Path) -> None:
    build_motion(motion, tmp_path / "out")
    samples = {
        (s.action, s.camera_id, s.frame_index): s for s in samples_in(tmp_path / "out", tmp_path) if s.subject == "S901"
    }
    for (action, camera_id, index), sample in samples.items():
        window = sample.keypoint_window
        assert window is not None and window.shape == (5, 17, 3)
        np.testing.assert_array_equal(window[2, :, :2], sample.keypoints_px)
        for place, other in enumerate(range(index - 2, index + 3)):
            neighbour = samples.get((action, camera_id, other))
            if neighbour is None:
                assert np.isnan(window[place, :, :2]).all() and (window[place, :, 2] == 0).all()
            else:  # six frames: one stretch, one camera
                np.testing.assert_array_equal(window[place, :, :2], neighbour.keypoints_px)


def test_motion_without_a_window_is_metadata_alone(motion: Path, tmp_path: Path) -> None:
    build_motion(motion, tmp_path / "out", window=0)
    assert {tuple(members) for _, members in read_set(tmp_path / "out", tmp_path / "x")} == {("meta.json",)}


def test_the_bytes_of_motion_do_not_depend_on_the_workers(motion: Path, tmp_path: Path) -> None:
    build_motion(motion, tmp_path / "one")
    build_motion(motion, tmp_path / "two", workers=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_motion_filmed_otherwise_is_another_set(motion: Path, tmp_path: Path) -> None:
    build_motion(motion, tmp_path / "out")
    assert build_motion(motion, tmp_path / "out").counts["samples"] == 360
    with pytest.raises(ValueError, match=r"other settings or other input \(camera_seed, input\)"):
        build_motion(motion, tmp_path / "out", camera_seed=1)


def test_cameras_are_for_corpora_without_any(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--bodies, --cameras: not for test, which is as it was filmed"):
        build(corpus, tmp_path / "out", cameras=3, bodies="varied")
