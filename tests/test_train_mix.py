"""main.py --mix: several sets trained on together, resumed exactly, found where the command line says."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from humanpose3d import cli
from humanpose3d import model_config as architectures
from humanpose3d.config import TrainConfig
from humanpose3d.tasks import LiftingTask
from humanpose3d.train import train_model
from humanpose3d.training_sets import find_mix, find_sets
from tests.records import random_samples
from tests.sets import write_set
from tests.test_train import assert_goes_on_as


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """Two sets of 20 and 9 training samples; the second is a bare folder of chunks, the first has the validation."""
    folder, rng = tmp_path_factory.mktemp("mix"), np.random.default_rng(0)
    write_set(folder / "h36m/train", random_samples(rng, 20, ("S1",)), chunk_size=4)
    write_set(folder / "h36m/test", random_samples(rng, 6, ("S9",)), chunk_size=4, prefix="test")
    write_set(folder / "other", random_samples(rng, 9, ("S5",)), chunk_size=4)
    return {"h36m": folder / "h36m", "other": folder / "other"}


@pytest.fixture(autouse=True)
def small_and_single_threaded(monkeypatch):
    small = replace(architectures.PRESETS["cnn", "tiny"], input_size=64)
    monkeypatch.setitem(architectures.PRESETS, ("cnn", "tiny"), small)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mix_of(roots: dict[str, Path], h36m: float = 0.4, other: float = 0.6) -> tuple[str, ...]:
    return (f"other={roots['other']}:{other}", f"h36m={roots['h36m']}:{h36m}")


def settings(roots: dict[str, Path], tmp_path: Path, **changes) -> TrainConfig:
    """7 batches an epoch, 3 batches a step."""
    values = {
        "mix": mix_of(roots), "model_type": "cnn", "model_size": "tiny", "batch_size": 4,
        "gradient_accumulation_steps": 3, "epochs": 2, "warmup_steps": 2,
        "log_dir": tmp_path / "logs", "cache_dir": tmp_path / "cache", "num_workers": 0, "device": "cpu",
    }  # fmt: skip
    return TrainConfig(**(values | changes))


@pytest.fixture
def batches_seen(monkeypatch) -> list[list[str]]:
    """The keys of each training batch that this process trains on."""
    seen: list[list[str]] = []
    original = LiftingTask.training_scalars

    def training_scalars(self, model, batch):
        seen.append(list(batch.keys))
        return original(self, model, batch)

    monkeypatch.setattr(LiftingTask, "training_scalars", training_scalars)
    return seen


def test_the_command_line_trains_a_mix(roots, tmp_path, capsys):
    arguments = ["--mix", *mix_of(roots), "--model-size", "tiny", "--fdr", "--workers", "0", "--device", "cpu"]
    assert cli.train([*arguments, "--cache-dir", str(tmp_path)], "main.py") == 0
    assert "went through everything" in capsys.readouterr().out


def test_a_run_on_a_mix_killed_in_mid_epoch_goes_on_with_the_same_batches(roots, tmp_path, batches_seen):
    config = settings(roots, tmp_path, epochs=4, checkpoint_interval=1, eval_interval=1000)
    report = train_model(replace(config, exp="whole"))
    whole = list(batches_seen)
    drawn = ["-S5-" in key for batch in whole for key in batch]
    assert len(whole) == 28 == report.facts["batches"] and report.inputs == 29
    assert abs(sum(drawn) - 0.6 * len(drawn)) < 1

    script = tmp_path / "train.py"
    script.write_text(IN_A_PROCESS)
    checkpoints = tmp_path / "logs/cut/checkpoints"
    command = [
        sys.executable, str(script), "--mix", *config.mix, "--model-type", "cnn", "--model-size", "tiny",
        "--batch-size", "4", "--accumulate", "3", "--epochs", "4", "--warmup-steps", "2", "--workers", "1",
        "--device", "cpu",
        "--checkpoint-interval", "1", "--eval-interval", "1000", "--log-dir", str(tmp_path / "logs"), "--exp", "cut",
    ]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    while not (checkpoints / "step_4.pth").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (checkpoints / "step_12.pth").exists(), "it ended before it was killed"

    os.replace(checkpoints / "step_4.pth", checkpoints / "last.pth")  # in mid-epoch: 10 batches, 3 of the second
    batches_seen.clear()
    # Nothing but the run is named: what it was trained on stands in its settings.
    on = TrainConfig(resume="cut", log_dir=tmp_path / "logs", num_workers=0, device="cpu", cache_dir=tmp_path / "cache")
    train_model(on)
    assert batches_seen == whole[10:]
    assert_goes_on_as(tmp_path / "logs/whole", tmp_path / "logs/cut", 4)


IN_A_PROCESS = """
import sys
from dataclasses import replace
from humanpose3d import model_config
from humanpose3d.cli import train
model_config.PRESETS["cnn", "tiny"] = replace(model_config.PRESETS["cnn", "tiny"], input_size=64)
sys.exit(train())
"""


def test_the_sets_of_a_mix_may_move_but_not_change(roots, tmp_path):
    train_model(settings(roots, tmp_path, exp="mine", max_steps=1))
    moved = {name: Path(shutil.copytree(root, tmp_path / f"moved-{name}")) for name, root in roots.items()}
    again = settings(moved, tmp_path, resume="mine", max_steps=2)
    assert train_model(again).facts["steps"] == 2
    for change, message in (
        ({"mix": mix_of(moved, h36m=0.5, other=0.5)}, "saved in other=0.6 h36m=0.4, not in other=0.5 h36m=0.5"),
        ({"mix": (), "chunks_dir": str(roots["h36m"])}, None),
        ({"mix": (f"other={roots['h36m']}:0.6", f"h36m={roots['h36m']}:0.4")}, "other data than other="),
    ):
        on = settings(moved, tmp_path, resume="mine", max_steps=3, **change)
        if message is None:
            assert train_model(replace(on, max_steps=2)).facts["settings"]["mix"] == list(again.mix)
            continue
        with pytest.raises(ValueError, match=message) as refused:
            train_model(on)
        assert "\n" not in str(refused.value)


def test_a_run_on_one_set_does_not_go_on_with_a_mix(roots, tmp_path):
    alone = settings(roots, tmp_path, mix=(), chunks_dir=str(roots["h36m"]), exp="mine", max_steps=1)
    train_model(alone)
    with pytest.raises(ValueError, match="saved in one set alone, not in other=0.6 h36m=0.4"):
        train_model(settings(roots, tmp_path, resume="mine", max_steps=2))
    assert train_model(replace(alone, exp=None, resume="mine", chunks_dir=None, max_steps=2)).facts["steps"] == 2


def test_the_mean_pose_of_a_mix_is_that_of_all_its_samples(roots, tmp_path):
    best = train_model(settings(roots, tmp_path, exp="mine", max_steps=1)).facts["best_checkpoint"]
    report = train_model(settings(roots, tmp_path, evaluate=True, checkpoint=Path(best)))
    rng = np.random.default_rng(0)
    first, held_out, second = (
        np.stack([sample.joints_cam_m - sample.joints_cam_m[:1] for sample in random_samples(rng, number, (who,))])
        for number, who in ((20, "S1"), (6, "S9"), (9, "S5"))
    )
    expected_mm = 1e3 * np.linalg.norm(held_out - np.concatenate([first, second]).mean(0), axis=-1).mean()
    assert report.facts["mean_pose_mpjpe_mm"] == pytest.approx(expected_mm, rel=1e-4)


def test_validation_is_found_in_the_documented_order(roots, tmp_path):
    config = settings(roots, tmp_path)
    assert [(part.name, part.store.location, part.weight) for part in find_mix(config)] == [
        ("other", str(roots["other"]), 0.6),
        ("h36m", str(roots["h36m"] / "train"), 0.4),
    ]
    assert find_sets(config)[1].location == str(roots["h36m"] / "test"), "of the first set that has one"
    shutil.copytree(roots["h36m"] / "test", tmp_path / "held/val")
    held = replace(config, chunks_dir=str(tmp_path / "held"))
    assert find_sets(held)[1].location == str(tmp_path / "held/val")
    assert find_sets(replace(held, val_dir=str(roots["other"])))[1].location == str(roots["other"])


def wrong(roots: dict[str, Path], tmp_path: Path, what: str) -> tuple[dict, str]:
    if what == "other skeleton":
        samples = random_samples(np.random.default_rng(2), 4, skeleton="coco_17", joints_cam_m=np.ones((17, 3), "f4"))
        write_set(tmp_path / "coco", samples)
        return {"mix": (*mix_of(roots), f"odd={tmp_path / 'coco'}:1")}, "odd: .*coco has labels in skeleton coco_17"
    return {
        "nothing": ({"mix": ()}, "--chunks-dir ROOT, or several sets as --mix"),
        "no weight": ({"mix": (f"h36m={roots['h36m']}",)}, "is not NAME=ROOT:WEIGHT; an example"),
        "missing": ({"mix": (*mix_of(roots), f"odd={tmp_path / 'nowhere'}:1")}, "--mix odd: .*nowhere holds no chunks"),
        "no validation": ({"mix": (f"other={roots['other']}:1",)}, "other: no validation chunks.*--val-dir"),
        "no validation in ROOT": ({"chunks_dir": str(roots["other"])}, "other: no validation chunks.*--val-dir"),
        "chunk numbers": ({"train_chunks": (0,)}, "--train-chunks .* leave it out"),
        "groups": ({"stream_groups": 4}, "other: stream_groups is 4, but there are only 3 chunks"),
    }[what]


@pytest.mark.parametrize(
    "what",
    ["nothing", "no weight", "missing", "no validation", "no validation in ROOT", "chunk numbers", "groups",
     "other skeleton"],
)  # fmt: skip
def test_a_mix_that_cannot_be_trained_on_is_one_clear_line(roots, tmp_path, what):
    changes, message = wrong(roots, tmp_path, what)
    with pytest.raises((ValueError, OSError), match=message) as refused:
        train_model(settings(roots, tmp_path, **changes))
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "logs").glob("*/*")), "a refused request leaves no run behind"
