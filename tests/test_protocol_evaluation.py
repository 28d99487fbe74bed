"""main.py --evaluate --protocol: from chunks and a checkpoint to report, tables and figure; and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from humanpose3d import model_config as architectures
from humanpose3d.cli import train
from humanpose3d.estimators.weights import sha256_of
from humanpose3d.model_config import model_config
from humanpose3d.models import build_model
from humanpose3d.models.checkpoint import save_model
from humanpose3d.sample import make_key
from humanpose3d.train import train_model
from tests.records import random_samples
from tests.sets import write_set
from tests.test_train import settings

OTHER_CAMERAS = "55011271, 58860488, 60457274 of the protocol's cameras are not in the chunks"


def takes(subject: str, action: str, number: int, seed: int, **changes) -> list:
    """Consecutive frames of one take."""
    return [
        sample.with_(
            key=make_key("h36m", subject, action, 54138969, f"{row:06d}", "p0"), action=action, frame_index=row
        )
        for row, sample in enumerate(random_samples(np.random.default_rng(seed), number, (subject,), **changes))
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """5 frames of Walking and 3 of Sitting by S9 and S11, and 2 of S1, whom no protocol tests."""
    folder = tmp_path_factory.mktemp("sets")
    changes = {"corpus": "human36m"}
    samples = takes("S9", "Walking 1", 5, 0, **changes) + takes("S11", "Sitting 2", 3, 1, **changes)
    write_set(folder / "test", samples + takes("S1", "Walking 1", 2, 2, **changes), chunk_size=4, prefix="test")
    return folder


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    """An untrained network on views of 64 px, in a run's folder."""
    small = replace(architectures.PRESETS["cnn", "tiny"], input_size=64)
    monkeypatch.setitem(architectures.PRESETS, ("cnn", "tiny"), small)
    return saved(tmp_path / "logs/mine/checkpoints/best_model.pth")


def saved(path: Path, **changes) -> Path:
    torch.manual_seed(0)
    config = model_config("cnn", "tiny", **changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, build_model(config), config)
    return path


def test_a_protocol_writes_its_report_and_figure_into_the_run(root, tmp_path, checkpoint, capsys):
    report = train_model(settings(root, tmp_path, evaluate=True, checkpoint=checkpoint, protocol="h36m_p2"))
    run = tmp_path / "logs/mine"
    written = json.loads((run / "evaluate_report.json").read_text())
    about = written["protocol"]
    assert written["samples"] == 8 and written["subjects"] == ["S11", "S9"] and about["cameras"] == ["54138969"]
    assert about["left_out"] == {"S1 is not tested by the protocol": 2} and about["deviations"] == [OTHER_CAMERAS]
    assert about["keypoints"] == {"test 1, coco_17": 8} and len(about["joints"]) == 17
    assert (about["velocity_pairs"], about["velocity_step_frames"], about["velocity_step_ms"]) == (6, 1, 20.0)
    assert written["checkpoint_sha256"] == sha256_of(checkpoint)
    by_action = written["by_action"]
    assert {name: part["samples"] for name, part in by_action.items()} == {"Sitting": 3, "Walking": 5}
    for name in ("pa_mpjpe_mm", "mpjpe_mm", "n_mpjpe_mm"):
        ours = [by_action[action][name] for action in ("Sitting", "Walking")]
        assert written[name] == pytest.approx((3 * ours[0] + 5 * ours[1]) / 8)
        assert written["action_wise"][name] == pytest.approx(sum(ours) / 2)
    assert written["pa_mpjpe_mm"] < written["n_mpjpe_mm"] < written["mpjpe_mm"]
    assert np.mean(list(written["by_joint"]["mpjpe_mm"].values())) == pytest.approx(written["mpjpe_mm"])
    assert written["by_joint_mm"] == written["by_joint"]["pa_mpjpe_mm"]
    assert set(written["by_group"]) == {"facing", "posture", "limbs"}
    assert sum(part["samples"] for part in written["by_group"]["facing"].values()) == 8
    picture = cv2.imread(str(run / "evaluate_h36m_p2.png"))
    assert picture is not None and picture.shape[1] > 600 and picture.std() > 10
    printed = capsys.readouterr().out
    for word in ("PA-MPJPE, mm", "action-wise", "left_wrist", "test 1, coco_17", written["checkpoint_sha256"][:12]):
        assert word in printed
    assert report.exit_code == 0 and "h36m_p2: PA-MPJPE" in report.summary


def test_protocol_1_and_the_plain_evaluation_measure_the_same(root, tmp_path, checkpoint):
    """On the protocol's own subjects; the plain one also counts S1."""
    write_set(tmp_path / "own/test", takes("S9", "Walking 1", 6, 3, corpus="human36m"), prefix="test")
    both = [
        train_model(settings(tmp_path / "own", tmp_path, evaluate=True, checkpoint=checkpoint, protocol=name)).facts
        for name in (None, "h36m_p1")
    ]
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "samples"):
        assert both[0][name] == pytest.approx(both[1][name], rel=1e-5)
    assert both[1]["protocol"]["deviations"] == ["S11 of the protocol's subjects are not in the chunks", OTHER_CAMERAS]


def test_labels_in_another_skeleton_are_scored_where_they_have_the_joints(root, tmp_path, checkpoint):
    """A model of Human3.6M's 32 joints on labels of 17 of them."""
    wide = saved(tmp_path / "logs/wide/checkpoints/best_model.pth", skeleton="h36m_32")
    facts = train_model(settings(root, tmp_path, evaluate=True, checkpoint=wide, protocol="h36m_p1")).facts
    assert facts["samples"] == 8 and facts["skeleton"] == "h36m_32" and facts["protocol"]["skeleton"] == "h36m_17"


def test_another_corpus_is_measured_and_told_of(tmp_path, checkpoint):
    write_set(tmp_path / "own/test", takes("S35", "run", 3, 4, corpus="mocap"), prefix="test")
    report = train_model(settings(tmp_path / "own", tmp_path, evaluate=True, checkpoint=checkpoint, protocol="h36m_p1"))
    assert report.facts["samples"] == 3 and "measured on mocap" in report.notes[0]


@pytest.mark.parametrize(
    ("protocol", "says"),
    [
        ("h36m_p3", "unknown protocol 'h36m_p3'; known: h36m_p1"),
        ("3dhp", "no exact head_top"),
        ("mpii_pckh", "needs a 2D heat-map model"),
        ("3dpw", "needs a model of body meshes"),
        ("freihand", "needs a model of hands"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_exit_code_2(root, tmp_path, checkpoint, capsys, protocol, says):
    arguments = ["--chunks-dir", str(root), "--checkpoint", str(checkpoint), "--device", "cpu", "--workers", "0"]
    assert train([*arguments, "--evaluate", "--protocol", protocol]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "logs/mine/evaluate_report.json").exists()


def test_nobody_to_test_and_a_protocol_without_evaluation_are_refused(root, tmp_path, checkpoint):
    write_set(tmp_path / "own/test", takes("S1", "Walking 1", 2, 5, corpus="human36m"), prefix="test")
    with pytest.raises(ValueError, match="no sample counts for the protocol"):
        train_model(settings(tmp_path / "own", tmp_path, evaluate=True, checkpoint=checkpoint, protocol="h36m_p1"))
    with pytest.raises(ValueError, match="goes with --evaluate"):
        train_model(settings(root, tmp_path, protocol="h36m_p1"))
