"""The hourglass through the trainer: from chunks to a checkpoint, measured, resumed, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from humanpose3d import config as settings_of
from humanpose3d.cli import parse
from humanpose3d.config import TrainConfig
from humanpose3d.models.checkpoint import load_model
from humanpose3d.starting import hourglass_config
from humanpose3d.tasks.training import staircase
from humanpose3d.train import train_model
from tests.records import random_samples
from tests.sets import write_set

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIGS = Path(__file__).parents[1] / "configs" / "hourglass"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """12 training samples, 5 for validation, without 2D keypoints of anybody."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for part, size, subjects in (("train", 12, ("S1",)), ("test", 5, ("S9",))):
        samples = [
            replace(
                sample, action="", keypoints_px=None, keypoint_score=None, keypoint_skeleton=None, keypoint_window=None
            )
            for sample in random_samples(rng, size, subjects)
        ]
        write_set(folder / part, samples, chunk_size=4, prefix=part)
    return folder


def settings(root: Path, tmp_path: Path, **changes) -> TrainConfig:
    values = {
        "chunks_dir": str(root), "model_type": "hourglass", "model_size": "tiny", "input_size": 64, "channels": 8,
        "depths": "2,2", "batch_size": 4, "gradient_accumulation_steps": 1, "epochs": 2, "num_workers": 0,
        "device": "cpu", "precision": "32", "log_dir": tmp_path / "logs", "optimizer": "adam", "weight_decay": 0.0,
    }  # fmt: skip
    return TrainConfig(**(values | changes))


def losses(run: Path) -> dict[int, float]:
    events = EventAccumulator(str(run)).Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def test_a_run_leaves_a_checkpoint_scores_and_previews(root, tmp_path):
    report = train_model(settings(root, tmp_path, exp="a"))
    assert "PCK" in report.summary and report.facts["steps"] == 6
    events = EventAccumulator(str(tmp_path / "logs" / "a")).Reload()
    assert {"train/stack_1", "train/stack_2", "train/error_px", "val/pck_percent"} <= set(events.Tags()["scalars"])
    assert "val/preview_0" in events.Tags()["images"]
    best = report.facts["best_checkpoint"]
    assert load_model(best).config.depths == (2, 2) and report.facts["best_pck_percent"] is not None
    measured = train_model(settings(root, tmp_path, evaluate=True, checkpoint=best))
    assert measured.facts["pck_percent"] == pytest.approx(report.facts["best_pck_percent"])
    assert len(measured.facts["previews"]) == 4 and all(Path(path).is_file() for path in measured.facts["previews"])
    assert "mean_pose_mpjpe_mm" not in measured.facts and len(measured.facts["by_joint_percent"]) == 17
    flipped = train_model(settings(root, tmp_path, evaluate=True, checkpoint=best, flip_test=True, decoder="peak"))
    assert flipped.facts["error_px"] != measured.facts["error_px"]


def test_a_run_goes_on_as_if_it_had_not_been_interrupted(root, tmp_path):
    whole = {"schedule": (1,), "gamma": 0.5, "optimizer": "rmsprop"}
    train_model(settings(root, tmp_path, exp="whole", **whole))
    train_model(settings(root, tmp_path, exp="parts", max_steps=2, **whole))
    train_model(settings(root, tmp_path, resume="parts", max_steps=6, **whole))
    assert losses(tmp_path / "logs" / "parts") == losses(tmp_path / "logs" / "whole")


def test_chunks_whose_labels_are_elsewhere_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        moved = [replace(sample, joints_px=sample.joints_px + 5000) for sample in random_samples(rng, 4, ("S1",))]
        write_set(tmp_path / part, moved, chunk_size=4, prefix=part)
    with pytest.raises(ValueError, match="68 of 68 2D labels of .* outside their pictures: they are in other coord"):
        train_model(settings(tmp_path, tmp_path))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depths": "5"}, "at most 4"),
        ({"depths": "2x2", "stacks": 3}, "--depths 2x2 has 2 stacks, asked for are 3"),
        ({"depths": "two"}, "write DxN"),
    ],
)
def test_a_network_that_cannot_be_is_refused_before_the_first_step(root, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train_model(settings(root, tmp_path, **changes))


def test_a_checkpoint_of_other_joints_or_stacks_is_refused(root, tmp_path):
    best = train_model(settings(root, tmp_path, exp="a", max_steps=1)).facts["best_checkpoint"]
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        hands = [
            replace(
                sample, skeleton="mpii_16", joints_px=sample.joints_px[:16], joints_cam_m=None,
                joint_score=np.ones(16, np.float32), joint_in_view=None,
            )
            for sample in random_samples(rng, 4, ("S1",))
        ]  # fmt: skip
        write_set(tmp_path / "other" / part, hands, chunk_size=4, prefix=part)
    with pytest.raises(ValueError, match="labels in skeleton mpii_16, the model is made for h36m_17"):
        train_model(settings(tmp_path / "other", tmp_path, checkpoint=best))
    with pytest.raises(ValueError, match="depths"):
        train_model(settings(root, tmp_path, resume="a", depths="2,2,2"))
    for change in ({"depths": "2x3"}, {"stacks": 3}, {"channels": 16}, {"norm": "instance"}, {"arch": "hg8"}):
        with pytest.raises(ValueError, match=rf"has {next(iter(change))} .*, asked for is"):
            train_model(settings(root, tmp_path, checkpoint=best, **change))


def test_the_arch_names_of_the_public_scripts(root, tmp_path):
    for name, stacks in (("hg1", 1), ("hg2", 2), ("hg8", 8)):
        config = hourglass_config(
            settings(root, tmp_path, arch=name, depths="", channels=None, input_size=None), "mpii_16"
        )
        assert config.depths == (4,) * stacks and config.channels == 256 and config.input_size == 256


@pytest.mark.parametrize("number", range(1, 9))
def test_each_case_of_the_study_is_a_preset(number):
    config = parse(TrainConfig, ["--case", str(number), "--chunks-dir", "x"], "main.py")
    network = hourglass_config(config, "mpii_16")
    assert len(network.depths) == {3: 6, 4: 6}.get(number, 8)
    assert network.channels == (256 if number in (1, 3, 8) else 64)
    assert network.residual_blocks == (4 if number == 4 else 1)
    assert network.norm == ("instance" if number == 5 else "batch")
    assert network.block == ("conv_relu_norm" if number == 8 else "residual")
    assert config.epochs == 50 and config.batch_size == 6 and config.schedule == (150, 175, 200)
    assert {6: (2, 2, 2, 3, 3, 3, 4, 4), 7: (4, 4, 3, 3, 3, 3, 2, 2)}.get(number, network.depths) == network.depths


def test_a_case_that_is_none_is_said():
    with pytest.raises(ValueError, match="--case 9: the study's cases are 1 to 8"):
        parse(TrainConfig, ["--case", "9"], "main.py")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_can_be_read(path):
    config = parse(TrainConfig, ["--config", str(path), "--chunks-dir", "x"], "main.py")
    assert config.model_type == "hourglass" and hourglass_config(config, "mpii_16").channels in (64, 256)


def test_names_of_older_scripts_are_understood():
    words = (
        "-e small -m 7 --arch hg2 --train-batch 6 --test-batch 8 --lr 5e-4 --optim rmsprop --schedule 150 175 200 "
        "--gamma 0.1 --model-file weights.pt"
    )
    config = parse(TrainConfig, words.split(), "main.py")
    assert config.exp == "small" and config.max_steps == 7 and config.arch == "hg2" and config.optimizer == "rmsprop"
    assert config.batch_size == 6 and config.val_batch_size == 8 and config.learning_rate == 5e-4
    assert config.schedule == (150, 175, 200) and config.checkpoint == Path("weights.pt")
    for flag in ("-c", "--continue", "--continue_exp"):
        assert parse(TrainConfig, [flag, "run"], "main.py").resume == "run"
        assert parse(TrainConfig, [flag, "--max_iters=9"], "main.py").resume == "latest"
    chunker = parse(settings_of.ChunkConfig, ["--subjects", "train", "--image-path", "a", "--output", "b"], "x")
    assert chunker.images_path == Path("a")
    for flag in ("--data_root", "--mpi_dataset_root"):
        chunker = parse(settings_of.ChunkConfig, ["--subjects", "train", flag, "a", "--output", "b"], "x")
        assert chunker.images_path == Path("a")


def test_the_rate_falls_by_steps():
    assert [staircase(step, [2, 4], 0.1) for step in range(5)] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_a_network_trained_on_small_views_goes_on_with_larger_ones(root, tmp_path):
    small = train_model(settings(root, tmp_path, exp="small", max_steps=1))
    large = train_model(
        settings(
            root, tmp_path, exp="large", max_steps=1, input_size=128, checkpoint=Path(small.facts["best_checkpoint"])
        )
    )
    first, second = (load_model(report.facts["best_checkpoint"]) for report in (small, large))
    assert (first.config.input_size, second.config.input_size) == (64, 128)
    assert first.model.state_dict().keys() == second.model.state_dict().keys()
    with pytest.raises(ValueError, match="72"):
        train_model(settings(root, tmp_path, input_size=72, checkpoint=Path(small.facts["best_checkpoint"])))
