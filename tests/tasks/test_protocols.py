"""The published protocols on arrays: who counts, which joints, what is averaged; and what cannot be asked."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from humanpose3d.camera import Camera
from humanpose3d.sample import PoseSample, make_key
from humanpose3d.skeletons import (
    H36M_17,
    H36M_32,
    HAND_21,
    LSP_14,
    MPI_17,
    MPI_28,
    MPII_16,
    SMPL_24,
    SPIN_24,
    Skeleton,
    get_skeleton,
)
from humanpose3d.tasks.criterion import Measurable
from humanpose3d.tasks.measures import MEASURES
from humanpose3d.tasks.protocol_report import deviations, paper_table
from humanpose3d.tasks.protocol_scores import Frames, ProtocolEvaluation, ProtocolScores, keypoint_source, read_frames
from humanpose3d.tasks.protocols import PROTOCOLS, check_model, get_protocol, scored_columns


def frame(subject: str, action: str = "Walking 1", number: int = 0, camera: str = "54138969", **changes) -> PoseSample:
    """A sample's metadata."""
    return PoseSample(
        key=make_key("h36m", subject, action, camera, f"{number:06d}", "p0"),
        subject=subject,
        action=action,
        camera_id=camera,
        frame_index=number,
        **({"corpus": "human36m", "fps": 50.0, "keypoint_skeleton": "coco_17"} | changes),
    )


def poses(number: int, joints: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, joints, 3, generator=torch.Generator().manual_seed(seed)) * 0.4


def evaluate(name: str, samples, predicted, labels, skeleton: Skeleton, labelled_in: Skeleton | None = None, **options):
    """All samples in one batch."""
    protocol = get_protocol(name)
    evaluation = ProtocolEvaluation(protocol, read_frames(samples, protocol), skeleton, labelled_in or skeleton)
    mask = options.pop("mask", torch.ones(labels.shape[:2], dtype=torch.bool))
    evaluation.update([sample.key for sample in samples], Measurable(predicted, labels, mask), **options)
    return evaluation.compute()


def test_every_protocol_names_measures_and_joints_that_there_are():
    for protocol in PROTOCOLS.values():
        assert set(protocol.measures) <= MEASURES.keys()
    joints = {name: len(protocol.scored) for name, protocol in PROTOCOLS.items()}
    assert joints == {
        "h36m_p1": 17,
        "h36m_p2": 17,
        "3dhp": 14,
        "mpii_pckh": 14,
        "3dhp_2d": 14,
        "freihand_2d": 21,
        "3dpw": 14,
        "freihand": 21,
    }


def test_frame_wise_and_action_wise_means_differ_as_computed_by_hand():
    # Two takes of Walking are one action; one joint of 17 is off by 170 mm in Walking, by 340 mm in Sitting.
    samples = [frame("S9", "Walking 1"), frame("S9", "Walking 2"), frame("S11", "Walking 1"), frame("S11", "Sitting 1")]
    labels = poses(4, 17)
    predicted = labels.clone()
    predicted[:, H36M_17.index("left_wrist"), 0] += torch.tensor([0.17, 0.17, 0.17, 0.34])
    scores = evaluate("h36m_p1", samples, predicted, labels, H36M_17)
    assert scores.whole.values["mpjpe_mm"] == pytest.approx((3 * 10 + 20) / 4, rel=1e-5)
    assert scores.means_over("action")["mpjpe_mm"] == pytest.approx((10 + 20) / 2, rel=1e-5)
    assert scores.means_over("subject")["mpjpe_mm"] == pytest.approx((10 + 15) / 2, rel=1e-5)
    assert scores.whole.by_joint["mpjpe_mm"]["left_wrist"] == pytest.approx(212.5, rel=1e-5)
    assert {name: means.samples for name, means in scores.parts["action"].items()} == {"Sitting": 1, "Walking": 3}


def test_protocol_1_forgives_the_place_and_protocol_2_size_and_turn_too():
    samples, labels = [frame("S9")], poses(1, 17)
    moved = labels + torch.tensor([1.0, -2.0, 3.0])
    assert evaluate("h36m_p1", samples, moved, labels, H36M_17).whole.values["mpjpe_mm"] < 1e-3
    turned = 0.5 * labels[..., [1, 2, 0]]
    values = evaluate("h36m_p2", samples, turned, labels, H36M_17).whole.values
    assert values["pa_mpjpe_mm"] < 1e-3 < 100 < values["mpjpe_mm"]
    assert evaluate("h36m_p2", samples, 0.5 * labels, labels, H36M_17).whole.values["n_mpjpe_mm"] < 1.0


def test_only_the_protocols_subjects_and_valid_samples_count():
    samples = [frame("S9"), frame("S1"), frame("S11", valid=False), frame("S11", number=3, synthetic=True)]
    frames = read_frames(samples, get_protocol("h36m_p1"))
    assert frames.keys == [samples[0].key]
    assert sorted(frames.left_out.values()) == [1, 1, 1] and any("S1 is not tested" in why for why in frames.left_out)
    labels = poses(4, 17)
    predicted = labels + 0.0
    predicted[1:] += torch.randn(3, 17, 3)
    assert evaluate("h36m_p1", samples, predicted, labels, H36M_17).whole.values["mpjpe_mm"] < 1e-3


def test_a_set_without_anybody_to_test_is_one_clear_line():
    with pytest.raises(ValueError, match="S9, S11 of human36m; left out: 2 because S1 is not tested") as refused:
        read_frames([frame("S1"), frame("S1", number=1)], get_protocol("h36m_p1"))
    assert "\n" not in str(refused.value)


def test_repeats_and_unlabelled_joints_do_not_count():
    samples, labels = [frame("S9"), frame("S9", number=1)], poses(2, 17)
    predicted, mask = labels.clone(), torch.ones(2, 17, dtype=torch.bool)
    predicted[0, 5] += 1.0
    mask[0, 5] = False
    predicted[1] += torch.randn(17, 3)
    counted = torch.tensor([True, False])
    scores = evaluate("h36m_p1", samples, predicted, labels, H36M_17, mask=mask, counted=counted)
    assert scores.whole.samples == 1 and scores.whole.values["mpjpe_mm"] < 1e-3


@pytest.mark.parametrize("place", [(0,), (0, H36M_17.index("left_wrist")), (0, H36M_17.index("pelvis"), 1)])
def test_an_answer_that_is_no_number_is_named_and_never_left_out_of_the_mean(place):
    samples, labels = [frame("S9", number=number) for number in range(3)], poses(3, 17)
    predicted = labels.clone()
    predicted[place] = torch.nan
    with pytest.raises(ValueError, match=f"answers to 1 samples are not finite .{samples[0].key}.,") as refused:
        evaluate("h36m_p1", samples, predicted, labels, H36M_17)
    assert "\n" not in str(refused.value)
    unlabelled = torch.ones(3, 17, dtype=torch.bool)
    unlabelled[0] = False
    assert evaluate("h36m_p1", samples, predicted, labels, H36M_17, mask=unlabelled).whole.samples == 2


def velocity(samples, predicted, labels) -> ProtocolScores:
    return evaluate("h36m_p2", samples, predicted, labels, H36M_17)


def test_a_constant_offset_has_no_velocity_error_and_a_trembling_one_its_length():
    samples, labels = [frame("S9", number=number) for number in range(4)], poses(4, 17)
    still = labels.clone()
    still[:, 5] += 0.1
    assert velocity(samples, still, labels).whole.values["mpjve_mm"] < 1e-3
    trembling = labels.clone()
    trembling[::2, 5, 0] += 0.034  # every step is off by 34 mm at one of 17 joints
    scores = velocity(samples, trembling, labels)
    assert scores.whole.values["mpjve_mm"] == pytest.approx(2.0, rel=1e-4) and (scores.pairs, scores.step) == (3, 1)


def test_velocity_is_between_consecutive_frames_of_one_take_in_whatever_order_they_come():
    # Steps of 5; one hole (15 is missing), another camera and another action in between: 0-5, 5-10, and 0-5 elsewhere.
    samples = [frame("S9", number=number) for number in (10, 0, 20, 5)]
    samples += [frame("S9", number=5, camera="60457274"), frame("S9", number=0, camera="60457274")]
    samples += [frame("S9", "Sitting 1", number=5)]
    order = np.random.default_rng(0).permutation(len(samples))
    scores = velocity([samples[place] for place in order], poses(7, 17, seed=1), poses(7, 17))
    assert (scores.pairs, scores.step) == (3, 5)


def test_velocity_agrees_with_differences_of_a_whole_take():
    predicted, labels = poses(50, 17, seed=1), poses(50, 17)
    rooted = [(pose - pose[:, :1]).numpy() for pose in (predicted, labels)]
    expected_mm = 1000 * np.linalg.norm(np.diff(rooted[0], axis=0) - np.diff(rooted[1], axis=0), axis=-1).mean()
    scores = velocity([frame("S9", number=number) for number in range(50)], predicted, labels)
    assert scores.whole.values["mpjve_mm"] == pytest.approx(expected_mm, rel=1e-5)


def test_lone_frames_have_no_velocity():
    scores = velocity(
        [frame("S9", number=number, camera=str(number)) for number in range(3)], poses(3, 17), poses(3, 17)
    )
    assert np.isnan(scores.whole.values["mpjve_mm"]) and (scores.pairs, scores.step) == (0, None)


def test_3dhp_scores_14_joints_from_the_pelvis_with_its_own_threshold():
    samples = [frame(f"TS{number}", "Sitting", number=number, corpus="mpi_inf_3dhp") for number in (1, 2)]
    labels = poses(2, 17)
    predicted = labels.clone()
    for unscored in ("spine", "head"):
        predicted[:, MPI_17.index(unscored)] += 1.0
    predicted[0, MPI_17.index("left_wrist"), 2] += 0.1499
    predicted[1, MPI_17.index("left_wrist"), 2] += 0.1501
    scores = evaluate("3dhp", samples, predicted, labels, MPI_17)
    assert scores.whole.values["mpjpe_mm"] == pytest.approx(300 / 28, rel=1e-4)
    assert scores.whole.values["pck_percent"] == pytest.approx(100 * 27 / 28)
    assert scores.whole.values["auc_percent"] == pytest.approx(100 * (26 * 30 / 31 + 1 / 31) / 28, rel=1e-4)
    assert scores.parts["subject"]["TS1"].values["pck_percent"] == 100.0
    shifted = predicted.clone()
    shifted[:, MPI_17.index("pelvis")] += 0.3  # the root moves everything measured from it
    assert evaluate("3dhp", samples, shifted, labels, MPI_17).whole.values["pck_percent"] == 0.0


def said_of(name: str, samples: list[PoseSample]) -> list[str]:
    """The deviations of answers that are right."""
    protocol = PROTOCOLS[name]
    skeleton = get_skeleton(protocol.skeleton)
    labels = poses(len(samples), len(skeleton))[..., : protocol.dimensions]
    return deviations(protocol, read_frames(samples, protocol), evaluate(name, samples, labels, labels, skeleton))


@pytest.mark.parametrize("name", ["h36m_p1", "h36m_p2"])
def test_missing_cameras_and_frames_of_human36m_are_told_of(name):
    cameras = PROTOCOLS[name].cameras
    every = [frame(who, number=row, camera=camera) for who in ("S9", "S11") for camera in cameras for row in range(3)]
    assert said_of(name, every) == []
    fewer = [replace(sample, frame_index=5 * sample.frame_index) for sample in every if sample.camera_id != cameras[1]]
    said = said_of(name, fewer)
    assert said[:2] == [
        "55011271 of the protocol's cameras are not in the chunks",
        "the frames of a take are 5 apart here; the protocol tests every one",
    ]


@pytest.mark.parametrize(
    ("name", "corpus", "subject", "official"),
    [("mpii_pckh", "mpii", "valid", 2958), ("freihand", "freihand", "evaluation", 3960)],
)
def test_fewer_people_or_hands_than_the_official_number_are_told_of(name, corpus, subject, official):
    samples = [frame(subject, "", row, corpus=corpus, head_size_px=60.0) for row in range(official)]
    assert said_of(name, samples) == []
    assert said_of(name, samples[1:]) == [f"{subject} has {official - 1} samples here, {official} in the protocol"]


def test_3dhp_says_that_papers_score_the_universal_skeleton():
    samples = [frame(f"TS{number}", "Sitting", corpus="mpi_inf_3dhp") for number in range(1, 7)]
    protocol, labels = PROTOCOLS["3dhp"], poses(6, len(MPI_17))
    said = deviations(protocol, read_frames(samples, protocol), evaluate("3dhp", samples, labels, labels, MPI_17))
    assert "published figures are against univ_annot3" in said[0]


def test_another_skeleton_is_scored_where_it_has_the_joints_exactly():
    samples = [frame("TS1", "Sitting", corpus="mpi_inf_3dhp")]
    labels = poses(1, 17)
    predicted = torch.full((1, 28, 3), 9.0)
    columns = [MPI_28.joints.index(joint) for joint in MPI_17.joints]
    predicted[:, columns] = labels + 2.0
    assert evaluate("3dhp", samples, predicted, labels, MPI_28, MPI_17).whole.values["mpjpe_mm"] < 1e-2
    assert len(scored_columns(PROTOCOLS["h36m_p1"], H36M_32)[0]) == 17


@pytest.mark.parametrize(
    ("name", "skeleton", "says"),
    [
        ("3dhp", "h36m_17", "a cnn cannot be scored, h36m_17 has no exact head_top, which are scored"),
        ("h36m_p1", "mpi_17", "mpi_17 has no exact neck, head, which"),
        ("3dpw", "h36m_17", "needs a model of body meshes: .* no exact neck, head_top"),
        ("freihand", "h36m_17", "needs a model of hands in hand_21; this checkpoint's cnn speaks h36m_17"),
        ("mpii_pckh", "mpii_16", "needs a 2D heat-map model: it scores 2D joints, and this checkpoint's cnn gives 3D"),
        (
            "h36m",
            "h36m_17",
            "unknown protocol 'h36m'; known: h36m_p1, h36m_p2, 3dhp, mpii_pckh, 3dhp_2d, freihand_2d, 3dpw, freihand",
        ),
    ],
)
def test_what_a_model_cannot_answer_is_said_in_one_line(name, skeleton, says):
    with pytest.raises(ValueError, match=says.replace("a cnn", "this checkpoint's cnn")) as refused:
        check_model(name, "cnn", skeleton)
    assert "\n" not in str(refused.value)


def test_labels_of_another_kind_are_refused_by_name():
    protocol = PROTOCOLS["3dpw"]
    check_model("3dpw", "mesh", SPIN_24.name)
    frames = read_frames([frame("test/walk_00", corpus="threedpw")], protocol)
    with pytest.raises(ValueError, match="labels cannot be scored.*smpl_24 has no exact neck, head_top"):
        ProtocolEvaluation(protocol, frames, SPIN_24, SMPL_24)


def test_3dpw_is_measured_from_the_middle_of_the_hips_and_after_alignment():
    samples = [frame("test/walk_00", corpus="threedpw"), frame("train/walk_01", corpus="threedpw")]
    labels = poses(2, 14)
    predicted = labels.clone()
    predicted[:, LSP_14.index("left_hip"), 0] += 0.2  # moves the root by half of it: 13 joints 100 mm, one 100
    values = evaluate("3dpw", samples, predicted, labels, LSP_14).whole
    assert values.samples == 1 and values.values["mpjpe_mm"] == pytest.approx(100, rel=1e-4)
    assert 0 < values.values["pa_mpjpe_mm"] < 100


def test_freihand_is_measured_after_alignment():
    samples, labels = [frame("evaluation/0-999", corpus="freihand", action="")], 0.1 * poses(1, 21)
    values = evaluate("freihand", samples, 3.0 * labels[..., [2, 0, 1]], labels, HAND_21).whole.values
    assert values["pa_mpjpe_mm"] < 1e-3 and values["pa_pck15_percent"] == 100.0
    assert values["pa_auc_percent"] == pytest.approx(100.0, abs=0.6)  # an error of 1e-5 misses the threshold 0 only
    assert values["mpjpe_mm"] > 50


def test_mpii_counts_hits_within_half_a_head_without_pelvis_and_thorax():
    protocol = PROTOCOLS["mpii_pckh"]
    samples = [frame("valid", "", number, corpus="mpii", head_size_px=60.0) for number in range(2)]
    labels = torch.rand(2, 16, 2) * 200
    predicted = labels.clone()
    predicted[0, MPII_16.index("left_ankle"), 0] += 31.0
    predicted[1, MPII_16.index("left_ankle"), 0] += 29.0
    predicted[:, [MPII_16.index("pelvis"), MPII_16.index("thorax")]] += 500.0
    evaluation = ProtocolEvaluation(protocol, read_frames(samples, protocol), MPII_16, MPII_16)
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[1, MPII_16.index("head_top")] = False
    evaluation.update([sample.key for sample in samples], Measurable(predicted, labels, mask))
    whole = evaluation.compute().whole
    assert whole.values["pckh_percent"] == pytest.approx(100 * 26 / 27)
    assert whole.by_joint["pckh_percent"]["left_ankle"] == 50.0
    assert whole.by_joint["pckh_percent"]["pelvis"] == 0.0


def test_papers_table_of_mpii_has_pairs_and_the_top_of_the_head():
    protocol = PROTOCOLS["mpii_pckh"]
    samples = [frame("valid", "", number, corpus="mpii", head_size_px=10.0) for number in range(2)]
    labels = torch.rand(2, 16, 2) * 200
    predicted = labels.clone()
    predicted[0, [MPII_16.index("left_knee"), MPII_16.index("upper_neck")]] += 100.0
    evaluation = ProtocolEvaluation(protocol, read_frames(samples, protocol), MPII_16, MPII_16)
    evaluation.update(
        [sample.key for sample in samples], Measurable(predicted, labels, torch.ones(2, 16, dtype=torch.bool))
    )
    row = paper_table(protocol, evaluation.compute())
    assert list(row) == ["Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Mean"]
    assert row["Head"] == 100.0 and row["Knee"] == 75.0 and row["Mean"] == pytest.approx(100 * 26 / 28)


def of_mpii(sizes_px: list[float | None]) -> tuple[Frames, ProtocolEvaluation]:
    """People answered with the truth, and one joint of the first far off."""
    protocol = PROTOCOLS["mpii_pckh"]
    samples = [frame("valid", "", row, corpus="mpii", head_size_px=size) for row, size in enumerate(sizes_px)]
    frames, labels = read_frames(samples, protocol), torch.rand(len(samples), 16, 2) * 200
    evaluation = ProtocolEvaluation(protocol, frames, MPII_16, MPII_16)
    predicted = labels.clone()
    predicted[0, MPII_16.index("left_knee")] += 900.0
    evaluation.update(frames.keys, Measurable(predicted, labels, torch.ones(labels.shape[:2], dtype=torch.bool)))
    return frames, evaluation


def test_people_without_a_head_size_are_not_counted_and_told_of():
    frames, evaluation = of_mpii([None, 60.0, None, 60.0])
    scores = evaluation.compute()
    assert scores.whole.samples == 2 and scores.whole.values["pckh_percent"] == 100.0
    said = deviations(PROTOCOLS["mpii_pckh"], frames, scores)
    assert "2 of 4 samples have no head size and are not measured" in said
    assert not any("no labelled root" in line for line in said)


def test_a_set_without_any_head_size_says_where_they_come_from():
    with pytest.raises(
        ValueError, match=r"no sample has a head size.*put valid.h5 or gt_valid.mat beside the annotations"
    ) as refused:
        of_mpii([None, None])[1].compute()
    assert "\n" not in str(refused.value)


def test_a_head_without_a_box_is_as_large_as_it_is_labelled():
    protocol = PROTOCOLS["3dhp_2d"]
    samples = [frame("TS1", "", 0, corpus="mpi_inf_3dhp")]
    labels = torch.rand(1, 17, 2)
    labels[0, MPI_17.index("head_top")] = torch.tensor([100.0, 100.0])
    labels[0, MPI_17.index("neck")] = torch.tensor([100.0, 140.0])
    predicted = labels.clone()
    predicted[0, MPI_17.index("left_knee"), 0] += 21.0
    predicted[0, MPI_17.index("right_knee"), 0] += 19.0
    evaluation = ProtocolEvaluation(protocol, read_frames(samples, protocol), MPI_17, MPI_17)
    evaluation.update([samples[0].key], Measurable(predicted, labels, torch.ones(1, 17, dtype=torch.bool)))
    assert evaluation.compute().whole.values["pckh_percent"] == pytest.approx(100 * 13 / 14)


def test_hands_are_measured_in_the_stored_pictures_pixels():
    protocol = PROTOCOLS["freihand_2d"]
    camera = Camera.create(100.0, (50.0, 50.0))
    samples = [replace(frame("training/0-999", corpus="freihand", action=""), camera=camera)]
    labels = torch.rand(1, 21, 2) * 200
    predicted = labels + torch.tensor([8.0, 0.0])
    predicted[0, 0, 0] += 13.0  # 21
    evaluation = ProtocolEvaluation(protocol, read_frames(samples, protocol), HAND_21, HAND_21)
    mask = torch.ones(1, 21, dtype=torch.bool)
    evaluation.update([samples[0].key], Measurable(predicted, labels, mask, focal_px=torch.tensor([200.0])))
    values = evaluation.compute().whole.values
    assert values["epe_px"] == pytest.approx((20 * 4.0 + 10.5) / 21, rel=1e-4)
    assert values["pck_px_percent"] == pytest.approx(100 * 20 / 21)
    assert values["auc_px_percent"] == pytest.approx(100 * (20 * (26 / 30) + 19.5 / 30) / 21, abs=0.6)


def test_batches_in_any_order_give_the_same_as_one(monkeypatch):
    samples = [frame("S9" if number % 2 else "S11", f"A{number % 3} 1", number // 2) for number in range(23)]
    predicted, labels, protocol = poses(23, 17, seed=1), poses(23, 17), PROTOCOLS["h36m_p2"]
    whole = evaluate("h36m_p2", samples, predicted, labels, H36M_17)
    monkeypatch.setattr("humanpose3d.tasks.protocol_scores.ROWS", 4)
    evaluation = ProtocolEvaluation(protocol, read_frames(samples, protocol), H36M_17, H36M_17)
    for rows in np.array_split(np.random.default_rng(0).permutation(23), 5):
        mask = torch.ones(len(rows), 17, dtype=torch.bool)
        evaluation.update([samples[row].key for row in rows], Measurable(predicted[rows], labels[rows], mask))
    parts = evaluation.compute()
    assert parts.whole.values == pytest.approx(whole.whole.values, rel=1e-9) and parts.pairs == whole.pairs
    assert parts.parts.keys() == whole.parts.keys() >= {"facing", "posture", "limbs"}
    for part, of in whole.parts.items():
        assert {name: means.samples for name, means in of.items()} == {
            name: means.samples for name, means in parts.parts[part].items()
        }


def test_it_is_told_who_found_the_2d_joints():
    yolo = {"estimators": {"keypoints": {"name": "yolo11x-pose", "version": "8.3.0", "sha256": "0"}}}
    assert keypoint_source(frame("S9", provenance=yolo)) == "yolo11x-pose 8.3.0, coco_17"
    assert "corpus itself" in keypoint_source(frame("S9"))
    assert keypoint_source(frame("S9", keypoint_skeleton=None)) == "no 2D keypoints"


def test_a_stand_in_sample_is_not_counted_twice():
    protocol = PROTOCOLS["h36m_p1"]
    assert len(read_frames([frame("S9"), frame("S9")], protocol)) == 1
    frames = Frames()
    frames.add(replace(frame("S9"), corpus="mocap", subject="S35"), protocol)
    assert len(frames) == 1, "the subjects are the corpus's own; another corpus is scored whole, and told of"
