import gzip
import json
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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from humanpose3d import model_config as architectures
from humanpose3d.chunks.read import open_chunk
from humanpose3d.config import AugmentationConfig, TrainConfig
from humanpose3d.models.checkpoint import load_model
from humanpose3d.tasks import LiftingTask
from humanpose3d.tasks.watching import DivergenceWatch
from humanpose3d.train import train_model
from humanpose3d.training_sets import find_sets
from tests.dataset.chunk_sets import write_set as write_packed
from tests.ports import free_port
from tests.records import random_samples
from tests.sets import write_set

pytestmark = pytest.mark.usefixtures("one_thread")

MAIN = Path(__file__).parents[1] / "main.py"
TERMS = ("loss", "mse", "l1", "inter_joint", "absolute_root")
SCORES = ("mpjpe_mm", "pa_mpjpe_mm", "absolute_mpjpe_mm", "root_error_mm")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """29 training samples in 4 chunks, 6 for validation."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    write_set(folder / "train", random_samples(rng, 29, ("S1", "S5")), chunk_size=8)
    write_set(folder / "test", random_samples(rng, 6, ("S9",)), chunk_size=4, prefix="test")
    return folder


@pytest.fixture
def small_views(monkeypatch):
    """The tiny network on views of 64 px, for speed."""
    small = replace(architectures.PRESETS["cnn", "tiny"], input_size=64)
    monkeypatch.setitem(architectures.PRESETS, ("cnn", "tiny"), small)


def settings(root: Path, tmp_path: Path, **changes) -> TrainConfig:
    """7 batches an epoch, 3 batches a step: an epoch is 3 steps, the last of one batch."""
    values = {
        "chunks_dir": str(root),
        "model_type": "cnn",
        "model_size": "tiny",
        "batch_size": 4,
        "gradient_accumulation_steps": 3,
        "epochs": 2,
        "warmup_steps": 2,
        "log_dir": tmp_path / "logs",
        "cache_dir": tmp_path / "cache",
        "num_workers": 0,
        "device": "cpu",
        "precision": "32",
    }
    return TrainConfig(**(values | changes))


def curves(run: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, of all scalars that do not depend on the clock."""
    events = EventAccumulator(str(run))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in ("samples_per_second", "data_wait_share")]
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def assert_goes_on_as(whole: Path, resumed: Path, after: int) -> None:
    """Every scalar after step `after` is that of the uninterrupted run, to the last digit."""
    expected, found = curves(whole), curves(resumed)
    for tag, values in expected.items():
        rest = {step: value for step, value in values.items() if step > after}
        assert {step: value for step, value in found.get(tag, {}).items() if step > after} == rest, tag
    assert_same_weights(whole / "checkpoints/last.pth", resumed / "checkpoints/last.pth")


def test_training_and_validation_chunks_must_fit_into_the_cache_together(tmp_path):
    sizes = []
    for part, seed in (("train", 0), ("test", 1)):
        folder = write_packed(tmp_path / "set" / part, 12, 4, compress="gz", seed=seed)
        sizes.append(sum(len(gzip.decompress(path.read_bytes())) for path in folder.glob("*.gz")))
    config = settings(tmp_path / "set", tmp_path, cache_gb=1.5 * max(sizes) / 1e9)  # enough for either
    with pytest.raises(ValueError, match="cannot hold the 6 chunks read at a time, .*; raise --cache-gb"):
        train_model(config)
    assert not (tmp_path / "logs").exists()


def test_a_run_leaves_its_curves_settings_checkpoints_and_report(root, tmp_path, small_views):
    config = settings(root, tmp_path, exp="mine", eval_interval=4, checkpoint_interval=2)
    report = train_model(config)
    run = tmp_path / "logs/mine"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best_model.pth", "last.pth", "step_2.pth", "step_4.pth", "step_6.pth",
    ]  # fmt: skip
    found = curves(run)
    for tag in (*(f"train/{name}" for name in (*TERMS, "mpjpe_mm", "gradient_norm")), "learning_rate"):
        assert sorted(found[tag]) == [1, 2, 3, 4, 5, 6], tag
    # Batches 4, 8 and 12 lie inside steps 2, 4 and 5; epochs end with steps 3 and 6.
    for tag in (f"val/{name}" for name in (*TERMS, *SCORES)):
        assert sorted(found[tag]) == [2, 3, 4, 5, 6], tag
    events = EventAccumulator(str(run))
    events.Reload()
    assert "samples_per_second" in events.Tags()["scalars"]
    assert "val/preview_0" in events.Tags()["images"]
    written = json.loads((run / "train_report.json").read_text())
    assert written["steps"] == 6 and written["batches"] == 14 and written["inputs"] == 29
    assert written["mpjpe_mm"] == pytest.approx(found["val/mpjpe_mm"][6])
    assert written["best_mpjpe_mm"] == pytest.approx(min(found["val/mpjpe_mm"].values()))
    assert report.facts["best_checkpoint"] in report.summary
    assert "batch_size: 4" in (run / "config.yaml").read_text()


def test_training_on_few_samples_learns_them(tmp_path, small_views):
    samples = random_samples(np.random.default_rng(1), 8)
    repeated = [sample.with_(key=f"{sample.key}-{time}") for time in range(20) for sample in samples]
    write_set(tmp_path / "train", repeated, chunk_size=160)
    write_set(tmp_path / "test", samples, prefix="test")
    config = settings(
        tmp_path, tmp_path, exp="mine", batch_size=8, gradient_accumulation_steps=1, epochs=4, eval_interval=1000,
        learning_rate=3e-3, augmentation=AugmentationConfig(enabled=False),
    )  # fmt: skip
    train_model(config)
    losses = curves(tmp_path / "logs/mine")["train/loss"]
    assert np.mean([losses[step] for step in range(71, 81)]) < 0.3 * losses[1]


@pytest.mark.parametrize(("after", "num_workers"), [(2, 1), (3, 0)], ids=["mid-epoch, a worker more", "epoch's end"])
def test_a_resumed_run_repeats_the_uninterrupted_one_to_the_last_digit(root, tmp_path, small_views, after, num_workers):
    config = settings(root, tmp_path, eval_interval=4, checkpoint_interval=1)
    train_model(replace(config, exp="whole"))
    logs = tmp_path / "logs"
    (logs / "cut/checkpoints").mkdir(parents=True)
    shutil.copy(logs / f"whole/checkpoints/step_{after}.pth", logs / "cut/checkpoints/last.pth")
    report = train_model(replace(config, resume="cut", num_workers=num_workers))
    assert report.facts["run"] == str(logs / "cut")
    assert_goes_on_as(logs / "whole", logs / "cut", after)
    (logs / "cut again/checkpoints").mkdir(parents=True)
    shutil.copy(logs / f"cut/checkpoints/step_{after + 2}.pth", logs / "cut again/checkpoints/last.pth")
    train_model(replace(config, resume="cut again"))
    assert_goes_on_as(logs / "whole", logs / "cut again", after + 2)


@pytest.mark.parametrize("model_type", ["cnn", "lifter"])
def test_a_run_killed_in_mid_epoch_goes_on_to_the_same_end(root, tmp_path, model_type):
    config = settings(root, tmp_path, model_type=model_type, epochs=4, checkpoint_interval=2, eval_interval=1000)
    train_model(replace(config, exp="whole"))
    command = [
        sys.executable, str(MAIN), "--chunks-dir", str(root), "--model-size", "tiny", "--batch-size", "4",
        "--accumulate", "3", "--epochs", "4", "--warmup-steps", "2", "--workers", "0", "--device", "cpu",
        "--checkpoint-interval", "2", "--eval-interval", "1000", "--log-dir", str(tmp_path / "logs"), "--exp", "cut",
        "--model-type", model_type, "--precision", "32",
    ]  # fmt: skip
    checkpoints = tmp_path / "logs/cut/checkpoints"
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    while not (checkpoints / "step_4.pth").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (checkpoints / "step_12.pth").exists(), "it ended before it was killed"
    train_model(replace(config, resume="cut"))
    assert_goes_on_as(tmp_path / "logs/whole", tmp_path / "logs/cut", 0)


@pytest.fixture(scope="module")
def motion(tmp_path_factory) -> Path:
    """Keypoints alone: no pictures, no depth, windows of 27 frames."""
    folder, rng = tmp_path_factory.mktemp("motion"), np.random.default_rng(3)
    bare = {"image": False, "depth": False, "window": 27, "provenance": {"estimators": {}}}
    write_set(folder / "train", random_samples(rng, 29, ("S1", "S5"), **bare), chunk_size=8)
    write_set(folder / "test", random_samples(rng, 6, ("S9",), **bare), chunk_size=4, prefix="test")
    return folder


@pytest.mark.parametrize(
    ("number", "processes"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)], ids=str
)
def test_a_run_asked_to_stop_keeps_its_last_step_and_goes_on_to_the_same_end(motion, tmp_path, number, processes):
    changes = {"model_type": "lifter", "ema_decay": 0.9, "epochs": 4, "eval_interval": 1000}
    train_model(settings(motion, tmp_path, exp="whole", **changes))
    command = [
        sys.executable, str(MAIN), "--chunks-dir", str(motion), "--model-type", "lifter", "--model-size", "tiny",
        "--batch-size", "4", "--accumulate", "3", "--epochs", "4", "--warmup-steps", "2", "--workers", "0",
        "--device", "cpu", "--precision", "32", "--ema-decay", "0.9", "--eval-interval", "1000",
        "--checkpoint-interval", "2", "--log-dir", str(tmp_path / "logs"), "--devices", str(processes),
    ]  # fmt: skip
    environment, checkpoints = {**os.environ, "OMP_NUM_THREADS": "1"}, tmp_path / "logs/cut/checkpoints"
    process = subprocess.Popen([*command, "--exp", "cut"], env=environment, stderr=subprocess.PIPE, text=True)
    while not (checkpoints / "step_2.pth").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(number)  # the first process alone
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopping after this step" in said and said.endswith(f"go on with --resume {checkpoints.parent}\n"), said
    done = torch.load(checkpoints / "last.pth", weights_only=True)["global_step"]
    assert 2 <= done < 12 and max(curves(checkpoints.parent)["train/loss"]) == done, "no step is lost"
    subprocess.run([*command, "--resume", "cut"], env=environment, check=True)
    whole, cut = (curves(tmp_path / "logs" / name) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and sorted(cut["train/loss"]) == list(range(1, 13))
    for tag, values in whole.items():
        assert cut[tag] == pytest.approx(values, rel=1e-5), tag


@pytest.mark.parametrize("window", [1, 27])
def test_a_lifter_resumed_with_its_running_mean_repeats_the_uninterrupted_run(motion, tmp_path, window):
    config = settings(
        motion, tmp_path, model_type="lifter", window=window, ema_decay=0.9, eval_interval=4, checkpoint_interval=1
    )
    train_model(replace(config, exp="whole"))
    logs = tmp_path / "logs"
    (logs / "cut/checkpoints").mkdir(parents=True)
    shutil.copy(logs / "whole/checkpoints/step_2.pth", logs / "cut/checkpoints/last.pth")
    train_model(replace(config, resume="cut", num_workers=1))
    assert_goes_on_as(logs / "whole", logs / "cut", 2)
    assert "train/uncertainty" in curves(logs / "whole")


def test_the_running_mean_is_what_is_validated_and_handed_on(motion, tmp_path):
    config = settings(motion, tmp_path, model_type="lifter", ema_decay=0.9, learning_rate=1e-2)
    trained = train_model(replace(config, exp="mine"))
    best = Path(trained.facts["best_checkpoint"])
    stored = weights(best)
    handed_on = load_model(best).model.state_dict()
    assert all(torch.equal(handed_on[name], stored[f"mean_model.{name}"]) for name in handed_on)
    assert any(not torch.equal(handed_on[name], stored[f"model.{name}"]) for name in handed_on)
    report = train_model(settings(motion, tmp_path, evaluate=True, checkpoint=best))
    assert report.facts["mpjpe_mm"] == pytest.approx(trained.facts["best_mpjpe_mm"], rel=1e-5)
    noisy = train_model(settings(motion, tmp_path, evaluate=True, checkpoint=best, val_keypoint_noise=1.0))
    assert noisy.facts["mpjpe_mm"] != pytest.approx(report.facts["mpjpe_mm"], rel=1e-6)


def test_a_lifter_reads_depth_maps_and_windows_only_where_chunks_have_them(root, motion, tmp_path):
    train_model(settings(root, tmp_path, model_type="lifter", exp="with depth", max_steps=1))
    with pytest.raises(ValueError, match="--window 27 needs more"):
        train_model(settings(root, tmp_path, model_type="lifter", window=27))
    with pytest.raises(ValueError, match="take --model-type lifter"):
        train_model(settings(motion, tmp_path, model_type="cnn", window=27))
    one = tmp_path / "logs/with depth/checkpoints/last.pth"
    with pytest.raises(ValueError, match="--window 27 needs more"):
        train_model(settings(root, tmp_path, model_type="lifter", checkpoint=one, window=27))


def test_a_lifter_with_a_window_begins_with_what_one_of_single_frames_knows(motion, tmp_path):
    train_model(settings(motion, tmp_path, model_type="lifter", exp="one", max_steps=1))
    one = tmp_path / "logs/one/checkpoints/last.pth"
    train_model(settings(motion, tmp_path, model_type="lifter", exp="many", max_steps=1, checkpoint=one, window=27))
    many = load_model(tmp_path / "logs/many/checkpoints/last.pth")
    assert many.config.window == 27 and load_model(one).config.window == 1


def test_a_checkpoints_network_is_not_another_ones(root, tmp_path):
    train_model(settings(root, tmp_path, model_type="lifter", exp="one", max_steps=1))
    one = tmp_path / "logs/one/checkpoints/last.pth"
    asked = settings(root, tmp_path, model_type="lifter", checkpoint=one, exp="two", max_steps=1)
    for change, message in (
        ({"use_depth": False}, "has use_depth True, asked for is False; leave out --use-depth"),
        ({"image_backbone": "resnet18"}, "has image_backbone none, asked for is resnet18"),
    ):
        with pytest.raises(ValueError, match=message):
            train_model(replace(asked, **change))
    train_model(asked, {"use_depth", "window", "image_backbone"})


def test_an_evaluation_says_which_settings_change_nothing(motion, tmp_path):
    best = train_model(settings(motion, tmp_path, model_type="lifter", exp="one", max_steps=1)).facts["best_checkpoint"]
    asked = settings(motion, tmp_path, evaluate=True, checkpoint=Path(best))
    with pytest.raises(ValueError, match="is a lifter; leave them out"):
        train_model(replace(asked, flip_test=True))
    assert "--devices" in train_model(replace(asked, devices=4)).notes[0]
    assert not any("--devices" in note for note in train_model(asked).notes)


def test_chunks_without_pictures_are_not_for_a_network_that_looks_at_them(motion, tmp_path):
    with pytest.raises(ValueError, match=r"has no pictures, and the cnn looks at them; .*--model-type lifter"):
        train_model(settings(motion, tmp_path, model_type="cnn"))


def test_chunks_without_depth_are_told_of_to_a_network_that_sees_it(root, tmp_path, small_views, capfd):
    bare, rng = tmp_path / "bare", np.random.default_rng(0)
    for part, size, subjects in (("train", 8, ("S1",)), ("test", 4, ("S9",))):
        samples = [replace(sample, depth_m=None) for sample in random_samples(rng, size, subjects)]
        write_set(bare / part, samples, chunk_size=4, prefix=part)
    train_model(settings(bare, tmp_path, max_steps=1))
    assert "has no depth maps: the model sees none" in capfd.readouterr().err


def test_a_lifter_with_a_backbone_is_trained_on_pictures(root, tmp_path, small_views):
    changes = {"model_type": "lifter", "image_backbone": "mobilenetv3_small_050", "max_steps": 2}
    trained = train_model(settings(root, tmp_path, exp="pictures", **changes))
    best = trained.facts["best_checkpoint"]
    assert load_model(best).config.needs == ("image", "depth_m")
    report = train_model(settings(root, tmp_path, evaluate=True, checkpoint=best))
    assert report.facts["mpjpe_mm"] == pytest.approx(trained.facts["best_mpjpe_mm"], rel=1e-4)
    with pytest.raises(ValueError, match="--image-backbone is the lifter's"):
        train_model(settings(root, tmp_path, image_backbone="resnet18", model_type="cnn"))


# Dropout and batch statistics are each process's own: a network without them must give the same on one and on two.
IN_TWO_PROCESSES = """
import sys
from dataclasses import replace
from humanpose3d import model_config
from humanpose3d.cli import train
tiny = model_config.PRESETS["transformer", "tiny"]
model_config.PRESETS["transformer", "tiny"] = replace(tiny, dropout=0.0, input_size=64)
sys.exit(train())
"""


def test_two_processes_train_as_one_does_on_the_same_batches(root, tmp_path, monkeypatch):
    calm = replace(architectures.PRESETS["transformer", "tiny"], dropout=0.0, input_size=64)
    monkeypatch.setitem(architectures.PRESETS, ("transformer", "tiny"), calm)
    train_model(settings(root, tmp_path, exp="one", model_type="transformer", epochs=1))
    script = tmp_path / "train.py"
    script.write_text(IN_TWO_PROCESSES)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script),
        "--chunks-dir", str(root), "--model-type", "transformer", "--model-size", "tiny", "--batch-size", "4",
        "--accumulate", "3", "--epochs", "1", "--warmup-steps", "2", "--workers", "0", "--device", "cpu",
        "--log-dir", str(tmp_path / "logs"), "--exp", "two", "--precision", "32",
    ]  # fmt: skip
    assert_train_alike(tmp_path / "logs", command)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_that_the_trainer_starts_itself_train_as_one_does(motion, tmp_path, strategy):
    changes = {"model_type": "lifter", "ema_decay": 0.9, "epochs": 1}
    train_model(settings(motion, tmp_path, exp="one", **changes))
    command = [
        sys.executable, str(MAIN), "--chunks-dir", str(motion), "--model-type", "lifter", "--model-size", "tiny",
        "--batch-size", "4", "--accumulate", "3", "--epochs", "1", "--warmup-steps", "2", "--workers", "0",
        "--device", "cpu", "--precision", "32", "--ema-decay", "0.9", "--log-dir", str(tmp_path / "logs"),
        "--exp", "two", "--devices", "2", "--strategy", strategy,
    ]  # fmt: skip
    assert_train_alike(tmp_path / "logs", command)
    two = tmp_path / "logs/two/checkpoints"
    alone = train_model(settings(motion, tmp_path, evaluate=True, checkpoint=two / "best_model.pth"))
    assert alone.facts["mpjpe_mm"] == pytest.approx(curves(two.parent)["val/mpjpe_mm"][3], rel=1e-5)
    more = train_model(settings(motion, tmp_path, resume="two", **changes | {"epochs": 2}))
    assert more.facts["steps"] == 6


def test_a_backbone_whose_last_stages_are_not_read_trains_in_two_processes(root, tmp_path):
    command = [
        sys.executable, str(MAIN), "--chunks-dir", str(root), "--model-type", "lifter", "--model-size", "tiny",
        "--image-backbone", "mobilenetv3_small_050", "--batch-size", "4", "--accumulate", "1", "--max-steps", "3",
        "--workers", "0", "--device", "cpu", "--precision", "32", "--log-dir", str(tmp_path / "logs"), "--devices", "2",
    ]  # fmt: skip
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "trained to step 3" in done.stdout, done.stderr


def test_what_any_process_left_out_stands_in_the_one_report_and_the_command_ends_with_1(motion, tmp_path):
    broken = set()
    shutil.copytree(motion, data := tmp_path / "data")
    for path in sorted((data / "train").glob("*.tar")):
        table = open_chunk(path).table
        with path.open("r+b") as file:
            file.seek(int(table.offsets[2, table.extensions.index("meta.json")]))
            file.write(b"\0" * 9)
        broken.add(f"{path.name}:{table.keys[2].decode()}")
    command = [
        sys.executable, str(MAIN), "--chunks-dir", str(data), "--model-type", "lifter", "--model-size", "tiny",
        "--batch-size", "4", "--epochs", "1", "--workers", "0", "--device", "cpu", "--precision", "32",
        "--log-dir", str(tmp_path / "logs"), "--exp", "two", "--devices", "2",
    ]  # fmt: skip
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("skipped 4 of 29") == 1, done.stderr
    skipped = json.loads((tmp_path / "logs/two/train_report.json").read_text())["skipped"]
    assert {name for of_reason in skipped.values() for name in of_reason["inputs"]} == broken


def assert_train_alike(logs: Path, command: list[str]) -> None:
    """The command makes the run `two` in two processes; its curves are those of the run `one`."""
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (curves(logs / name) for name in ("one", "two"))
    assert one.keys() == two.keys() and sorted(one["train/loss"]) == [1, 2, 3]
    for tag, values in one.items():
        assert two[tag] == pytest.approx(values, rel=1e-5), tag


def test_training_stops_after_so_many_validations_without_a_better_one(motion, tmp_path):
    # So slow that nothing gets better: every validation after the first is in vain.
    config = settings(
        motion, tmp_path, model_type="lifter", epochs=9, gradient_accumulation_steps=1, eval_interval=2,
        early_stopping=3, learning_rate=1e-12, weight_decay=0.0, exp="stopped",
    )  # fmt: skip
    report = train_model(config)
    # Validated after 2, 4 and 6 batches, and after the epoch's 7.
    assert report.facts["steps"] == 7 and report.facts["best_step"] == 2
    assert "early" in report.summary
    on = replace(config, exp=None, resume="stopped")
    for _ in range(2):
        report = train_model(on)
        assert report.facts["steps"] == 7 and "raise --early-stopping" in report.summary, "it is complete"
    assert train_model(replace(on, max_steps=9, early_stopping=0), {"max_steps", "early_stopping"}).facts["steps"] == 9


@pytest.mark.parametrize(("rate", "said"), [(1e-3, None), (0.1, "does not learn"), (None, "diverges")])
def test_a_learning_rate_too_high_is_said(rate, said):
    watch = DivergenceWatch(is_untrained=True)
    start_mm, end_mm = {1e-3: (400.0, 170.0), 0.1: (390.0, 440.0), None: (300.0, 900.0)}[rate]
    told = [watch.see(end_mm + (start_mm - end_mm) * 0.99**step) for step in range(400)]
    assert sum(map(bool, told)) == (said is not None)
    assert said is None or said in "".join(told) and "--learning-rate" in "".join(told)


def test_a_profile_is_a_table_and_a_trace(motion, tmp_path):
    train_model(settings(motion, tmp_path, model_type="lifter", epochs=3, profile=True, exp="traced"))
    folder = tmp_path / "logs/traced/profile"
    assert "addmm" in (folder / "operations.txt").read_text() and (folder / "trace.json.gz").stat().st_size > 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 0}, "how many processes"),
        ({"devices": -1}, "needs GPUs"),
        ({"strategy": "fsdp"}, "needs several processes"),
    ],
)
def test_processes_that_cannot_be_are_one_clear_line(motion, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train_model(settings(motion, tmp_path, model_type="lifter", **changes))


@pytest.mark.parametrize(
    ("first", "then", "batches"),
    # Steps 1 to 3 are the first epoch's 7 batches; the others take 3 batches each, and step 6 again one.
    [({"max_steps": 4}, {"max_steps": 5}, 13), ({"epochs": 1}, {"epochs": 2}, 14)],
    ids=["more steps", "more epochs"],
)
def test_a_finished_run_goes_on_where_the_data_stopped(root, tmp_path, small_views, first, then, batches):
    train_model(settings(root, tmp_path, exp="mine", **first))
    on = settings(root, tmp_path, resume="mine", **then)
    assert train_model(on).facts["batches"] == batches
    assert train_model(on).facts["batches"] == batches
    assert "raise --epochs or --max-steps" in train_model(on).summary


def test_a_run_that_ended_before_its_first_checkpoint_is_started_anew_by_its_name(motion, tmp_path):
    config = settings(motion, tmp_path, model_type="lifter", exp="mine", epochs=1)
    train_model(config)
    with pytest.raises(ValueError, match="--resume mine"):
        train_model(config)
    for path in (tmp_path / "logs/mine/checkpoints").iterdir():
        path.unlink()
    assert train_model(replace(config, max_steps=2)).facts["steps"] == 2
    assert sorted(curves(tmp_path / "logs/mine")["train/loss"]) == [1, 2], "nothing is left of the first"


def test_every_process_refuses_a_name_that_is_taken_so_that_none_waits(motion, tmp_path, monkeypatch):
    config = settings(motion, tmp_path, model_type="lifter", exp="mine", max_steps=1)
    train_model(config)
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(ValueError, match="--resume mine"):
        train_model(config)


def test_a_run_does_not_go_on_with_other_data(root, tmp_path, small_views):
    train_model(settings(root, tmp_path, exp="mine", max_steps=1))
    shutil.copytree(root, tmp_path / "moved")
    moved = settings(root, tmp_path, chunks_dir=str(tmp_path / "moved"), resume="mine", max_steps=2)
    assert train_model(moved).facts["steps"] == 2, "the same chunks at another place are the same data"
    write_set(tmp_path / "other/train", random_samples(np.random.default_rng(3), 29), chunk_size=8)
    shutil.copytree(root / "test", tmp_path / "other/test")
    other = settings(root, tmp_path, chunks_dir=str(tmp_path / "other"), resume="mine", max_steps=3)
    with pytest.raises(ValueError, match="the chunks that the run was started on"):
        train_model(other)


def test_another_run_may_start_from_a_checkpoints_weights(root, tmp_path, small_views):
    train_model(settings(root, tmp_path, exp="first", epochs=1))
    last = tmp_path / "logs/first/checkpoints/last.pth"
    report = train_model(
        settings(root, tmp_path, exp="second", checkpoint=last, max_steps=1, learning_rate=1e-12, weight_decay=0.0)
    )
    assert report.facts["steps"] == 1
    ours, theirs = weights(tmp_path / "logs/second/checkpoints/last.pth"), weights(last)
    parameters = dict(load_model(last).model.named_parameters())
    assert all(torch.allclose(ours[f"model.{n}"], theirs[f"model.{n}"], atol=1e-9) for n in parameters)


def test_evaluating_the_best_checkpoint_repeats_its_validation(root, tmp_path, small_views):
    trained = train_model(settings(root, tmp_path, exp="mine", epochs=1))
    best = Path(trained.facts["best_checkpoint"])
    report = train_model(settings(root, tmp_path, evaluate=True, checkpoint=best))
    written = json.loads((tmp_path / "logs/mine/evaluate_report.json").read_text())
    for name in SCORES:
        assert written[name] == pytest.approx(trained.facts[name], rel=1e-5)
    assert written["samples"] == 6 and written["subjects"] == ["S9"]
    assert written["by_action"]["Walking"]["mpjpe_mm"] == pytest.approx(written["mpjpe_mm"], rel=1e-5)
    assert len(written["by_joint_mm"]) == 17
    assert f"{written['mean_pose_mpjpe_mm']:.1f} mm" in report.summary


def test_the_mean_poses_error_is_that_computed_from_the_labels(root, tmp_path, small_views):
    rng = np.random.default_rng(0)
    relative = [
        np.stack([sample.joints_cam_m - sample.joints_cam_m[:1] for sample in random_samples(rng, number)])
        for number in (29, 6)
    ]
    expected_mm = 1e3 * np.linalg.norm(relative[1] - relative[0].mean(0), axis=-1).mean()
    best = train_model(settings(root, tmp_path, exp="mine", max_steps=1)).facts["best_checkpoint"]
    report = train_model(settings(root, tmp_path, evaluate=True, checkpoint=Path(best)))
    assert report.facts["mean_pose_mpjpe_mm"] == pytest.approx(expected_mm, rel=1e-4)


def test_a_trial_run_keeps_nothing(root, tmp_path, small_views):
    report = train_model(settings(root, tmp_path, fast_dev_run=True))
    assert report.facts["batches"] == 1 and report.facts["samples"] == 4
    assert not (tmp_path / "logs").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_samples(root, tmp_path, small_views, monkeypatch):
    sound, calls = LiftingTask.loss, []

    def loss(self, prediction, batch):
        terms = sound(self, prediction, batch)
        if prediction.root_cam_m.requires_grad:
            calls.append(batch.keys)
            terms["loss"] = terms["loss"] * (float("nan") if len(calls) == 5 else 1.0)
        return terms

    monkeypatch.setattr(LiftingTask, "loss", loss)
    config = settings(root, tmp_path, exp="mine", checkpoint_interval=1, eval_interval=1000)
    with pytest.raises(ValueError, match="loss is not a number after step 1") as stopped:
        train_model(config)
    assert calls[4][0] in str(stopped.value)
    last = weights(tmp_path / "logs/mine/checkpoints/last.pth")
    assert all(bool(torch.isfinite(value).all()) for value in last.values() if value.is_floating_point())


def test_flat_chunks_are_trained_on_beside_a_validation_folder(root, tmp_path, small_views):
    config = settings(root, tmp_path, chunks_dir=str(root / "train"), val_dir=str(root / "test"), max_steps=1)
    train, val = find_sets(config)
    assert (train.location, val.location) == (str(root / "train"), str(root / "test"))


def test_training_is_judged_by_val_and_a_protocol_by_test(root, tmp_path):
    shutil.copytree(root, both := tmp_path / "both")
    shutil.copytree(both / "test", both / "val")
    config = settings(both, tmp_path)
    assert find_sets(config)[1].location == str(both / "val")
    assert find_sets(replace(config, evaluate=True, protocol="h36m_p1"))[1].location == str(both / "test")


def test_chunk_numbers_choose_the_samples(root, tmp_path, small_views):
    config = settings(root, tmp_path, exp="mine", train_chunks=(0, 2), val_chunks=(1,), max_steps=1)
    report = train_model(config)
    assert report.inputs == 16 and report.facts["samples"] == 2


def wrong(root: Path, tmp_path: Path, what: str) -> tuple[dict, str]:
    """(settings, what the error must say) of a request that cannot be carried out."""
    if what == "unfinished":
        shutil.copytree(root, tmp_path / "data")
        (tmp_path / "data/train/building.json").write_text("{}")
        return {"chunks_dir": str(tmp_path / "data")}, "unfinished"
    if what == "no validation":
        return {"chunks_dir": str(root / "train")}, "--val-dir"
    if what == "name taken":
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs/mine").touch()
        return {"exp": "mine"}, "--resume mine"
    if what == "foreign checkpoint":
        torch.save({"state_dict": {}}, tmp_path / "other.pth")
        return {"resume": str(tmp_path / "other.pth")}, "not a checkpoint of main.py"
    if what == "other skeleton":
        samples = random_samples(np.random.default_rng(2), 4, skeleton="coco_17", joints_cam_m=np.ones((17, 3), "f4"))
        write_set(tmp_path / "coco", samples)
        return {"val_dir": str(tmp_path / "coco")}, "coco_17.*h36m_17"
    return {
        "missing": ({"chunks_dir": str(tmp_path / "nowhere")}, "nowhere holds no chunks"),
        "no such chunk": ({"train_chunks": (9,)}, "no chunk 9"),
        "batch not for two": ({"batch_size": 3, "devices": 2}, "3 cannot be shared evenly by 2"),
        "batch too large": ({"batch_size": 64}, "lower the batch size"),
        "no steps": ({"max_steps": 0}, "--max-steps"),
        "no device": ({"device": "cuda:99"}, "cuda:99"),
        "nothing to resume": ({"resume": "nowhere"}, "nowhere"),
        "nothing to evaluate": ({"evaluate": True}, "--checkpoint"),
        "missing checkpoint": ({"checkpoint": tmp_path / "x.pth"}, "no such checkpoint"),
    }[what]


@pytest.mark.parametrize(
    "what",
    [
        "missing", "unfinished", "no validation", "no such chunk", "batch not for two", "batch too large", "no steps",
        "no device", "name taken", "nothing to resume", "foreign checkpoint", "other skeleton", "nothing to evaluate",
        "missing checkpoint",
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_carried_out_is_one_clear_line(root, tmp_path, small_views, what):
    changes, message = wrong(root, tmp_path, what)
    with pytest.raises((ValueError, OSError), match=message) as refused:
        train_model(settings(root, tmp_path, **changes))
    assert "\n" not in str(refused.value)
    made = list((tmp_path / "logs").glob("*/*"))
    assert not made, "a refused request leaves no run behind"


def test_the_slurm_script_requeues_itself_and_goes_on(motion, tmp_path):
    """On a cluster of one CPU: `srun` runs the command, `scontrol` writes down what it is told."""
    tools = tmp_path / "tools"
    tools.mkdir()
    waits_for_none = '[ "$1" = --kill-on-bad-exit=1 ] && shift && exec "$@"'
    for name, line in (("srun", waits_for_none), ("scontrol", f'echo "$@" >> {tmp_path}/requeued')):
        (tools / name).write_text(f"#!/bin/bash\n{line}\n")
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}", "NAME": "mine", "CHUNKS": str(motion), "SLURM_JOB_ID": "17",
        "LOGS": str(tmp_path / "logs"), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [
        "bash", "examples/slurm/train.sh", "--model-type", "lifter", "--model-size", "tiny", "--batch-size", "4",
        "--accumulate", "1", "--workers", "0", "--device", "cpu", "--precision", "32", "--epochs", "1000",
        "--checkpoint-interval", "1", "--cache-dir", str(tmp_path / "cache"),
    ]  # fmt: skip
    (tmp_path / "logs/mine/checkpoints").mkdir(parents=True)  # of a job that ended before its first checkpoint
    first = subprocess.Popen(command, cwd=MAIN.parent, env=environment, start_new_session=True)
    last = tmp_path / "logs/mine/checkpoints/last.pth"
    while not last.exists():
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(60) == 0 and (tmp_path / "requeued").read_text() == "requeue 17\n"
    os.killpg(first.pid, signal.SIGKILL)  # what SLURM does with the job's tasks
    steps = torch.load(last, weights_only=True)["global_step"]
    second = subprocess.run(
        [*command, "--max-steps", str(steps + 3)], cwd=MAIN.parent, env=environment, capture_output=True, text=True
    )
    assert second.returncode == 0 and f"going on with {tmp_path}/logs/mine" in second.stderr, second.stderr
    assert torch.load(last, weights_only=True)["global_step"] == steps + 3


def test_two_nodes_that_are_killed_go_on_to_the_same_end(motion, tmp_path):
    """examples/torchrun/train.sh twice on 127.0.0.1, as on two machines."""
    train_model(settings(motion, tmp_path, exp="whole", model_type="lifter", epochs=4, eval_interval=1000))
    options = [
        "--chunks-dir", str(motion), "--model-type", "lifter", "--model-size", "tiny", "--batch-size", "4",
        "--accumulate", "3", "--epochs", "4", "--warmup-steps", "2", "--workers", "0", "--device", "cpu",
        "--precision", "32", "--checkpoint-interval", "2", "--eval-interval", "1000",
        "--cache-dir", str(tmp_path / "cache"),
    ]  # fmt: skip
    checkpoints = tmp_path / "logs/cut/checkpoints"
    first = start_nodes(tmp_path / "logs", options)
    while not (checkpoints / "step_4.pth").exists():
        assert all(node.poll() is None for node in first)
        time.sleep(0.005)
    for node in first:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
    assert not (checkpoints / "step_12.pth").exists(), "it ended before it was killed"
    for node in start_nodes(tmp_path / "logs", options):
        assert node.wait(120) == 0
    whole, cut = (curves(tmp_path / "logs" / name) for name in ("whole", "cut"))
    assert sorted(cut["train/loss"]) == list(range(1, 13))
    for tag, values in whole.items():
        assert cut[tag] == pytest.approx(values, rel=1e-5), tag


def start_nodes(logs: Path, options: list[str]) -> list[subprocess.Popen]:
    head = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            ["bash", "examples/torchrun/train.sh", "cut", *options],
            cwd=MAIN.parent,
            env=os.environ
            | {"NODE": str(node), "NODES": "2", "HEAD": head, "LOGS": str(logs), "PYTHON": sys.executable},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for node in (0, 1)
    ]
