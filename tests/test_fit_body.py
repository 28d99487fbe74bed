"""Chunks with bodies fitted to their joints: labels that fit, all else to the byte, the same after a stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from humanpose3d import cli
from humanpose3d.chunks.codec import META, decode_sample, encode_sample
from humanpose3d.chunks.layout import read_index
from humanpose3d.chunks.write import ChunkSetWriter
from humanpose3d.fit_body import TOO_FEW, fit_body
from humanpose3d.models.smpl_body import SmplBody, load_bodies, rotations_from_axis_angle
from humanpose3d.remotes import open_store
from humanpose3d.reports import StageReport
from humanpose3d.sample import PoseSample
from humanpose3d.skeletons import COCO_17, H36M_17, MPII_16, SMPL_24, convert, get_skeleton
from humanpose3d.sources import get_source
from humanpose3d.studio.free_body import write_free_body
from humanpose3d.studio.human36m import write_human36m
from humanpose3d.studio.threedpw import write_threedpw
from tests.chunks.sets import hashes, read_set, write_set

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def body_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bodies")
    write_free_body(folder)
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> list[PoseSample]:
    """Labelled studio frames in the Human3.6M layout, as the chunker makes them, each with a small picture."""
    folder = tmp_path_factory.mktemp("human36m")
    write_human36m(
        folder, subjects=["S1", "S9"], actions=range(2, 15), subactions=[1], cameras=[1], frames_per_take=1, size=32
    )
    frames = list(
        get_source("human36m").read_frames(folder / "images", folder / "annotations", ["S1", "S9"], told=Told())
    )
    return [sample_of(frame) for frame in frames]


class Told:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nothing is wrong with these labels: {name}")


def sample_of(frame, **changes: Any) -> PoseSample:
    picture = np.full((64, 64, 3), len(frame.key), np.uint8)
    keypoints = convert(frame.joints_px, frame.skeleton, COCO_17).joints
    score = np.isfinite(keypoints).all(-1).astype(np.float32)
    values: dict[str, Any] = {
        "image": picture, "image_size_wh": (64, 64), "joints_px": frame.joints_px, "joints_cam_m": frame.joints_cam_m,
        "joint_score": frame.joint_score, "skeleton": frame.skeleton, "camera": frame.camera, "box_px": frame.box_px,
        "corpus": frame.corpus, "subject": frame.subject, "action": frame.action, "camera_id": frame.camera_id,
        "frame_index": frame.frame_index, "keypoints_px": keypoints.astype(np.float32), "keypoint_score": score,
        "keypoint_skeleton": "coco_17", "smpl_pose_rad": frame.smpl_pose_rad, "smpl_betas": frame.smpl_betas,
        "smpl_trans_m": frame.smpl_trans_m, "gender": frame.gender, "provenance": {"estimators": {}},
    }  # fmt: skip
    return PoseSample(key=frame.key, **(values | changes))


def fitted(source: Path, target: Path, body_model: Path, **settings: Any) -> StageReport:
    return fit_body(
        **(
            {
                "input_dir": str(source), "output_dir": str(target), "body_model": body_model, "fit_to": "auto",
                "one_shape": False, "max_residual_mm": 50.0, "max_residual_px": 15.0, "replace": False, "device": "cpu",
                "batch_size": 8, "temp_dir": target.parent / "temp", "max_bad": 0.01,
            }
            | settings
        )
    )  # fmt: skip


def samples_in(folder: Path, tmp_path: Path) -> list[PoseSample]:
    return [decode_sample(key, members) for key, members in read_set(folder, tmp_path / "unpacked")]


def joints_of(body: SmplBody, sample: PoseSample, skeleton: str) -> np.ndarray:
    pose_rad, betas, trans_m = (
        torch.from_numpy(each)[None] for each in (sample.smpl_pose_rad, sample.smpl_betas, sample.smpl_trans_m)
    )
    return body.joints(body(rotations_from_axis_angle(pose_rad), betas, trans_m), get_skeleton(skeleton))[0].numpy()


def test_studio_people_get_bodies_that_have_their_joints(people, body_model, tmp_path) -> None:
    write_set(tmp_path / "in", people)
    report = fitted(tmp_path / "in", tmp_path / "out", body_model)
    body, found = load_bodies(body_model).neutral, samples_in(tmp_path / "out", tmp_path)
    off_mm = []
    for before, after in zip(people, found, strict=True):
        off_mm.append(1e3 * np.linalg.norm(joints_of(body, after, "h36m_17") - before.joints_cam_m, axis=-1))
        assert after.gender == "neutral"
    assert np.mean(off_mm) < 5 and np.max(off_mm) < 15
    assert report.counts["fitted"] == len(people) and report.exit_code == 0
    residual = report.facts["residual_mm"]
    assert residual["mean"] == pytest.approx(np.mean(off_mm), abs=0.02)
    assert residual["by_joint"]["left_knee"] == pytest.approx(
        np.mean(off_mm, axis=0)[H36M_17.index("left_knee")], abs=0.05
    )
    assert report.facts["residual_px"]["mean"] < 1
    stored = json.loads((tmp_path / "out" / "fit_body_report.json").read_text())
    assert stored["residual_mm"] == residual and f"{residual['mean']:.1f} mm" in stored["summary"]


def test_all_else_stays_to_the_byte(people, body_model, tmp_path) -> None:
    write_set(tmp_path / "in", people[:5])
    fitted(tmp_path / "in", tmp_path / "out", body_model)
    pairs = zip(read_set(tmp_path / "in", tmp_path / "a"), read_set(tmp_path / "out", tmp_path / "b"), strict=True)
    for (key, before), (same_key, after) in pairs:
        assert key == same_key and before.keys() == after.keys()
        assert before["image.jpg"] == after["image.jpg"]
        added = {"smpl_pose_rad", "smpl_betas", "smpl_trans_m", "gender"}
        old, new = json.loads(before[META]), json.loads(after[META])
        assert {name: new[name] for name in new if name not in added} == old and added <= new.keys()


def test_a_parent_of_train_and_test_is_mirrored(people, body_model, tmp_path) -> None:
    write_set(tmp_path / "in" / "train", people[:4], prefix="train")
    write_set(tmp_path / "in" / "test", people[4:6], prefix="test")
    report = fitted(tmp_path / "in", tmp_path / "out", body_model)
    assert report.counts["fitted"] == 6
    assert [read_index(open_store(tmp_path / "out" / part)).samples for part in ("train", "test")] == [4, 2]
    assert (tmp_path / "out" / "train" / "train_000000.tar").is_file()


@pytest.mark.parametrize("batch_size", [4, 64])
def test_stopped_and_started_again_it_ends_with_the_same_bytes(
    people, body_model, tmp_path, monkeypatch, batch_size
) -> None:
    write_set(tmp_path / "in", people, chunk_size=5)
    whole = fitted(tmp_path / "in", tmp_path / "whole", body_model, batch_size=batch_size)
    write, stops = ChunkSetWriter.write, iter([7, 6])

    def stopping(at: int) -> Iterator[None]:
        written = 0

        def counted(self, *arguments, **settings) -> None:
            nonlocal written
            if written == at:
                raise KeyboardInterrupt
            written += 1
            write(self, *arguments, **settings)

        monkeypatch.setattr(ChunkSetWriter, "write", counted)
        with pytest.raises(KeyboardInterrupt):
            fitted(tmp_path / "in", tmp_path / "cut", body_model, batch_size=batch_size)
        yield

    for at in stops:
        next(stopping(at))
    monkeypatch.setattr(ChunkSetWriter, "write", write)
    again = fitted(tmp_path / "in", tmp_path / "cut", body_model, batch_size=batch_size)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert again.facts["residual_mm"] == whole.facts["residual_mm"] and again.counts == whole.counts
    once_more = fitted(tmp_path / "in", tmp_path / "cut", body_model, batch_size=batch_size)
    assert once_more.counts == whole.counts and once_more.facts["residual_mm"] == whole.facts["residual_mm"]


def test_who_does_not_fit_keeps_no_labels_and_is_named(people, body_model, tmp_path) -> None:
    joints = people[1].joints_cam_m.copy()
    joints[H36M_17.index("left_ankle")] += [3.0, 0.0, 0.0]
    unknown = np.full((17, 3), np.nan, np.float32)
    nobody = people[2].with_(joints_cam_m=unknown, joint_score=np.zeros(17, np.float32))
    write_set(tmp_path / "in", [people[0], people[1].with_(joints_cam_m=joints), nobody])
    report = fitted(tmp_path / "in", tmp_path / "out", body_model)
    found = samples_in(tmp_path / "out", tmp_path)
    assert [sample.smpl_pose_rad is not None for sample in found] == [True, False, False]
    assert [sample.gender for sample in found] == ["neutral", None, None]
    assert report.skipped == {
        "fit off by more than 50 mm: written without SMPL labels": [people[1].key], TOO_FEW: [people[2].key]
    }  # fmt: skip
    assert report.counts["samples"] == 3 and report.exit_code == 1


def test_labels_of_the_corpus_stay_unless_they_are_to_be_replaced(body_model, tmp_path) -> None:
    write_threedpw(tmp_path / "3dpw", subjects=["train/flat_sitting_00"], frames_per_take=3, size=64)
    frames = get_source("threedpw").read_frames(tmp_path / "3dpw", tmp_path / "3dpw", ["train"], told=Told())
    samples = [sample_of(frame, camera=frame.camera) for frame in frames]
    write_set(tmp_path / "in", samples)
    kept = fitted(tmp_path / "in", tmp_path / "kept", body_model)
    assert kept.counts["kept with labels of their own"] == 3 and kept.counts["fitted"] == 0
    assert read_set(tmp_path / "kept", tmp_path) == read_set(tmp_path / "in", tmp_path)
    assert fitted(tmp_path / "in", tmp_path / "replaced", body_model, replace=True).counts["fitted"] == 3
    body = load_bodies(body_model).neutral
    for true, found in zip(samples, samples_in(tmp_path / "replaced", tmp_path), strict=True):
        assert found.gender == "neutral" != true.gender
        off_m = np.linalg.norm(joints_of(body, found, "smpl_24") - true.joints_cam_m, axis=-1)
        assert off_m.mean() < 0.005
        # No left for a right: each limb's joints are nearest to the labelled ones of their own side.
        mirrored = np.linalg.norm(
            joints_of(body, found, "smpl_24")[SMPL_24.flip_permutation] - true.joints_cam_m, axis=-1
        )
        limbs = [SMPL_24.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("knee", "wrist")]
        assert (off_m[limbs] < mirrored[limbs]).all()


def test_one_shape_is_the_same_for_all_samples_of_a_subject(people, body_model, tmp_path) -> None:
    write_set(tmp_path / "in", people)
    report = fitted(tmp_path / "in", tmp_path / "out", body_model, one_shape=True)
    shapes: dict[str, set[bytes]] = {}
    for sample in samples_in(tmp_path / "out", tmp_path):
        shapes.setdefault(sample.subject, set()).add(sample.smpl_betas.tobytes())
    assert shapes.keys() == {"S1", "S9"} and all(len(each) == 1 for each in shapes.values())
    assert len(set.union(*shapes.values())) == 2
    assert report.facts["residual_mm"]["mean"] < 5


def test_two_people_of_one_sequence_keep_a_shape_each(people, body_model, tmp_path) -> None:
    together = [
        sample.with_(subject="S1", key=f"{sample.key.rpartition('-')[0]}-p{int(sample.subject == 'S9')}")
        for sample in people
    ]
    write_set(tmp_path / "in", together)
    report = fitted(tmp_path / "in", tmp_path / "out", body_model, one_shape=True)
    shapes = {(sample.key[-2:], sample.smpl_betas.tobytes()) for sample in samples_in(tmp_path / "out", tmp_path)}
    assert {person for person, _ in shapes} == {"p0", "p1"} and len({betas for _, betas in shapes}) == 2
    assert report.facts["residual_mm"]["mean"] < 5
    write_set(tmp_path / "mpii", [sample.with_(corpus="mpii") for sample in people[:2]])
    with pytest.raises(ValueError, match="MPII does not tell"):
        fitted(tmp_path / "mpii", tmp_path / "none", body_model, one_shape=True)


@pytest.mark.parametrize("fit_to", ["keypoints", "both"])
def test_keypoints_are_fitted_to_in_the_picture(people, body_model, tmp_path, fit_to) -> None:
    some = people[:6]
    write_set(tmp_path / "in", some)
    report = fitted(tmp_path / "in", tmp_path / "out", body_model, fit_to=fit_to)
    assert report.counts["fitted"] == len(some)
    assert report.facts["residual_px"]["mean"] < 2  # of 64; no keypoint here is of the face
    assert (report.facts["residual_mm"] is None) == (fit_to == "keypoints")
    if fit_to == "both":
        assert report.facts["residual_mm"]["mean"] < 10


def test_2d_labels_without_a_camera_are_fitted_by_the_one_that_training_assumes(people, body_model, tmp_path) -> None:
    flat = [
        sample.with_(
            joints_cam_m=None, camera=None, skeleton="mpii_16", joint_in_view=None,
            joints_px=convert(sample.joints_px, H36M_17, MPII_16).joints, joint_score=np.ones(16, np.float32),
        )
        for sample in people[:4]
    ]  # fmt: skip
    write_set(tmp_path / "in", flat)
    report = fitted(tmp_path / "in", tmp_path / "out", body_model)
    assert report.counts["fitted"] == report.counts["fitted by an assumed camera"] == 4
    assert all(sample.camera is None for sample in samples_in(tmp_path / "out", tmp_path))


def test_mistakes_are_one_line(people, body_model, tmp_path, capsys) -> None:
    write_set(tmp_path / "in", people[:2])
    hand = people[0].with_(
        skeleton="hand_21", joints_px=np.ones((21, 2), np.float32), joints_cam_m=np.ones((21, 3), np.float32),
        joint_score=np.ones(21, np.float32), joint_in_view=None,
    )  # fmt: skip
    write_set(tmp_path / "hands", [hand])
    unlabelled = people[0].with_(skeleton=None, joints_px=None, joints_cam_m=None, joint_score=None, joint_in_view=None)
    write_set(
        tmp_path / "unlabelled", [unlabelled.with_(keypoints_px=None, keypoint_score=None, keypoint_skeleton=None)]
    )
    body = ["--body-model", str(body_model), "--device", "cpu"]
    for source, arguments, words in (
        ("in", ["--body-model", str(tmp_path / "nowhere")], ("nowhere", "fake smpl")),
        ("hands", body, ("hand_21", "no regressor")),
        ("unlabelled", body, ("unlabelled", "no keypoints")),
        ("unlabelled", [*body, "--fit-to", "joints"], ("unlabelled", "no labelled joints")),
        ("absent", body, ("absent",)),
    ):
        assert cli.fit_body([str(tmp_path / source), str(tmp_path / "out"), *arguments], "humanpose3d fit-body") == 2
        said = capsys.readouterr().err.strip()
        assert said.count("\n") == 0 and all(word in said for word in words), said
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_damaged_sample_is_left_out_and_named(people, body_model, tmp_path) -> None:
    store = open_store(tmp_path / "in")
    with ChunkSetWriter(
        store, prefix="chunk", chunk_size=9, compress="none", plan={}, staging=tmp_path, state=dict
    ) as writer:
        for position, sample in enumerate(people[:3]):
            members = encode_sample(sample)
            if position == 1:
                members["image.jpg"] = members["image.jpg"][:-2]
            writer.write(position, sample.key, members)
        writer.finish()
    report = fitted(tmp_path / "in", tmp_path / "out", body_model)
    assert report.counts["fitted"] == report.counts["samples"] == 2
    assert [names for names in report.skipped.values()] == [[people[1].key]]
