"""Body regressors through the trainer: from chunks to a checkpoint and a submission, mixed sets, what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from humanpose3d.cli import chunk, parse
from humanpose3d.config import TrainConfig
from humanpose3d.models.checkpoint import load_model
from humanpose3d.skeletons import LSP_14
from humanpose3d.studio.free_body import write_free_body
from humanpose3d.studio.mpii import write_mpii
from humanpose3d.studio.threedpw import write_threedpw
from humanpose3d.train import train_model

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS = Path(__file__).parents[1] / "configs"
SIZE = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """body/, and chunks: pw/ of 3DPW with train, val and test, mpii/ with train."""
    folder = tmp_path_factory.mktemp("bodies")
    write_free_body(folder / "body")
    write_threedpw(folder / "threedpw", frames_per_take=4, size=SIZE)
    write_mpii(folder / "mpii", frames_per_take=6, size=SIZE)
    for part, subjects in (("train", "train"), ("val", "validation"), ("test", "test")):
        chunks(folder, "threedpw", "pw", part, subjects)
    chunks(folder, "mpii", "mpii_set", "train", "train")
    return folder


def chunks(folder: Path, corpus: str, name: str, part: str, subjects: str) -> None:
    places = ("", "") if corpus == "threedpw" else ("images", "annotations")
    images, annotations = (str(folder / corpus / place) for place in places)
    request = ["--dataset", corpus, "--images-path", images, "--annotations-path", annotations, "--subjects", subjects]
    request += ["--processed-path", str(folder / "none"), "--output", str(folder / name / part), "--workers", "1"]
    assert chunk([*request, "--image-size", str(SIZE)], "dataset_chunker.py") == 0


def settings(made: Path, tmp_path: Path, **changes) -> TrainConfig:
    values = {
        "chunks_dir": str(made / "pw"), "model_type": "hps", "model_size": "tiny", "input_size": SIZE,
        "body_model": made / "body", "batch_size": 4, "gradient_accumulation_steps": 1, "epochs": 1, "num_workers": 0,
        "device": "cpu", "precision": "32", "log_dir": tmp_path / "logs", "cache_dir": tmp_path / "cache",
    }  # fmt: skip
    return TrainConfig(**(values | changes))


def rows_of(path: str | Path) -> list[list[str]]:
    return list(csv.reader(Path(path).read_text().splitlines()))


@pytest.mark.parametrize("head", ["pare", "baseline"])
def test_a_run_leaves_a_checkpoint_scores_and_a_submission(made, tmp_path, head):
    report = train_model(settings(made, tmp_path, exp="a", head=head))
    assert "PA-MPJPE" in report.summary and report.facts["steps"] == 3
    best = report.facts["best_checkpoint"]
    loaded = load_model(best)
    assert loaded.config.head == head and not any("smpl" in name for name in loaded.model.state_dict())
    rows = rows_of(report.facts["predicted_joints"])
    assert rows[0][:4] == ["name", "right_ankle_x", "right_ankle_y", "right_ankle_z"] and len(rows[0]) == 1 + 3 * 14
    assert [row[0] for row in rows[1:]] == [
        f"3dpw-validation_outdoors_directions_00-handheld-{n:06d}-p0" for n in range(4)
    ]
    joints_m = np.array(rows[1:])[:, 1:].astype(float).reshape(-1, 14, 3)
    hips = [LSP_14.index(f"{side}_hip") for side in ("left", "right")]
    np.testing.assert_allclose(joints_m[:, hips].mean(1), 0.0, atol=1e-4)
    measured = train_model(settings(made, tmp_path, evaluate=True, checkpoint=best))
    assert measured.facts["pa_mpjpe_mm"] == pytest.approx(report.facts["best_pa_mpjpe_mm"])
    assert measured.facts["mean_pose_pa_mpjpe_mm"] > 0 and set(measured.facts["by_joint_mm"]) == set(LSP_14.joints)
    assert len(measured.facts["previews"]) == 4 and all(Path(path).is_file() for path in measured.facts["previews"])
    assert measured.facts["by_action"]["outdoors_directions_00"]["samples"] == 4


def test_the_published_protocol_measures_the_test_sequences(made, tmp_path, capsys):
    best = train_model(settings(made, tmp_path, exp="a")).facts["best_checkpoint"]
    root = tmp_path / "tested"
    root.mkdir()
    (root / "test").symlink_to(made / "pw" / "test")
    measured = train_model(
        settings(made, tmp_path, evaluate=True, checkpoint=best, protocol="3dpw", chunks_dir=str(root))
    )
    assert "per-vertex error" in capsys.readouterr().out
    assert "14 joints regressed from the body's mesh" in json.dumps(measured.facts, default=str)
    rows = rows_of(Path(best).parents[1] / "test_pred_joints.csv")
    assert len(rows) == 1 + 2 * 4  # of two sequences


def test_sets_with_and_without_bodies_are_mixed_by_weight(made, tmp_path):
    mix = (f"mpii={made / 'mpii_set'}:0.4", f"threedpw={made / 'pw'}:0.6")
    report = train_model(settings(made, tmp_path, chunks_dir=None, mix=mix, val_dir=str(made / "pw" / "val")))
    assert report.facts["steps"] > 0 and np.isfinite(report.facts["pa_mpjpe_mm"])


def test_a_killed_run_goes_on_as_if_nothing_had_been(made, tmp_path):
    whole = train_model(settings(made, tmp_path, exp="whole", epochs=2, checkpoint_interval=2))
    checkpoint = tmp_path / "logs" / "whole" / "checkpoints" / "step_2.pth"
    rest = train_model(settings(made, tmp_path, epochs=2, resume=str(checkpoint)))
    assert rest.facts["pa_mpjpe_mm"] == whole.facts["pa_mpjpe_mm"]


def test_no_body_model_says_where_to_get_one(made, tmp_path):
    with pytest.raises(FileNotFoundError, match="fake smpl"):
        train_model(settings(made, tmp_path, body_model=tmp_path / "nowhere"))


def test_chunks_without_bodies_cannot_be_validated_on(made, tmp_path):
    with pytest.raises(ValueError, match="no validation sample has SMPL's pose and shape"):
        train_model(settings(made, tmp_path, val_dir=str(made / "mpii_set" / "train")))


@pytest.mark.parametrize("name", ["baseline", "pare-hrnet", "baseline_test"])
def test_the_presets_have_the_originals_values(name):
    preset = parse(TrainConfig, ["--config", str(CONFIGS / f"{name}.yaml")], "main.py")
    assert (preset.model_type, preset.batch_size) == ("hps", 32)
    if name == "baseline_test":
        assert preset.evaluate and preset.checkpoint is not None
        return
    assert (preset.epochs, preset.learning_rate, preset.schedule, preset.gamma) == (200, 5e-4, (100,), 0.1)
    assert [item.split("=")[0] for item in preset.mix] == ["mpii", "threedpw"]
    assert [item.rsplit(":")[-1] for item in preset.mix] == ["0.4", "0.6"]


@pytest.mark.parametrize("name", ["baseline", "pare-hrnet"])
def test_a_preset_goes_once_through_everything(made, tmp_path, name):
    preset = parse(TrainConfig, ["--cfg", str(CONFIGS / f"{name}.yaml"), "--fdr"], "main.py")
    assert preset.fast_dev_run
    mix = (f"mpii={made / 'mpii_set'}:0.4", f"threedpw={made / 'pw'}:0.6")
    own = settings(made, tmp_path)
    report = train_model(
        replace(
            preset, mix=mix, val_dir=str(made / "pw" / "val"), body_model=own.body_model, num_workers=0, batch_size=2,
            cache_dir=own.cache_dir, device="cpu", input_size=SIZE,
        )
    )  # fmt: skip
    assert "nothing is kept" in report.summary
