import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from humanpose3d.config import LossWeights, TrainConfig
from humanpose3d.runs import (
    changed_settings,
    dated_run,
    find_checkpoint,
    named_run,
    own_folder,
    resumed_config,
    run_of,
    settings_dict,
    write_settings,
)

CONFIG = TrainConfig(chunks_dir="data")


def make_run(log_dir: Path, name: str, age_s: int = 0) -> Path:
    last = log_dir / name / "checkpoints" / "last.pth"
    last.parent.mkdir(parents=True)
    last.touch()
    os.utime(last, (1e9 - age_s, 1e9 - age_s))
    return last


def go_on(asked: TrainConfig, stored: dict) -> tuple[TrainConfig, list[str]]:
    return resumed_config(asked, stored, changed_settings(asked))


def test_runs_without_a_name_that_start_in_one_second_get_the_date_and_a_folder_each(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(dated_run, [tmp_path / "logs"] * 8))
    assert len(set(runs)) == 8 and all(run.is_dir() and run.parent == tmp_path / "logs" for run in runs)


def test_a_run_under_way_has_its_folder_alone(tmp_path):
    with own_folder(None, tmp_path) as run:
        with pytest.raises(BlockingIOError, match=str(run)), own_folder(run, tmp_path):
            pass
    with own_folder(run, tmp_path) as again:
        assert again == run


def test_a_name_that_is_taken_is_refused_with_both_ways_out(tmp_path):
    make_run(tmp_path, "mine")
    with pytest.raises(ValueError, match="--resume mine"):
        named_run(tmp_path, "mine")


@pytest.mark.parametrize("left", [(), ("checkpoints/",), ("checkpoints/.last.pth.host-1-2.part", "config.yaml")])
def test_what_a_run_left_before_its_first_checkpoint_is_no_run(tmp_path, left):
    for path in (tmp_path / "mine" / name for name in ("", *left)):
        path.mkdir(parents=True) if path.suffix == "" else (path.parent.mkdir(exist_ok=True), path.touch())
    assert named_run(tmp_path, "mine") == tmp_path / "mine"


def test_a_folder_of_other_things_is_taken(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    with pytest.raises(ValueError, match="choose another --exp"):
        named_run(tmp_path, "mine")


def test_a_name_with_a_slash_is_refused(tmp_path):
    with pytest.raises(ValueError, match="plain folder name"):
        named_run(tmp_path, "a/b")


def test_a_run_is_found_by_name_by_folder_and_by_checkpoint(tmp_path):
    last = make_run(tmp_path, "mine")
    for resume in ("mine", str(tmp_path / "mine"), str(last)):
        assert find_checkpoint(resume, tmp_path) == last
    assert run_of(last) == tmp_path / "mine"


@pytest.mark.parametrize("resume", ["", "latest"])
def test_resume_alone_takes_the_newest_run(tmp_path, resume):
    make_run(tmp_path, "a", age_s=0)
    make_run(tmp_path, "b", age_s=100)
    assert find_checkpoint(resume, tmp_path) == tmp_path / "a/checkpoints/last.pth"


@pytest.mark.parametrize("resume", ["", "nowhere"])
def test_nothing_to_resume_is_said_with_the_place(tmp_path, resume):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        find_checkpoint(resume, tmp_path)


def test_a_run_killed_before_its_first_checkpoint_is_named(tmp_path):
    (tmp_path / "young" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="before its first checkpoint"):
        find_checkpoint("young", tmp_path)


def test_a_run_killed_between_its_best_and_its_last_checkpoint_goes_on_from_the_best(tmp_path):
    best = make_run(tmp_path, "mine").with_name("best_model.pth")
    best.with_name("last.pth").rename(best)
    assert find_checkpoint("mine", tmp_path) == best


def test_resuming_takes_the_settings_that_were_not_asked_for_from_the_run():
    stored = settings_dict(replace(CONFIG, batch_size=32, random_seed=7, learning_rate=0.01))
    config, changes = go_on(replace(CONFIG, resume="mine", batch_size=32), stored)
    assert (config.batch_size, config.random_seed, config.learning_rate) == (32, 7, 0.01)
    assert config.resume == "mine" and not changes


def test_resuming_may_go_on_for_longer_on_another_machine():
    stored = settings_dict(replace(CONFIG, epochs=3, num_workers=1, device="cuda"))
    config, changes = go_on(replace(CONFIG, epochs=9, num_workers=5, device="cpu"), stored)
    assert (config.epochs, config.num_workers, config.device) == (9, 5, "cpu")
    assert changes == ["epochs: 3 -> 9"]


def test_resuming_without_a_word_on_the_data_takes_the_runs_own():
    mixed = TrainConfig(mix=("a=data/a:1", "b=data/b:2"), chunks_dir="held", val_dir="val")
    config, changes = go_on(TrainConfig(resume="mine"), settings_dict(mixed))
    assert (config.mix, config.chunks_dir, config.val_dir) == (mixed.mix, "held", "val") and not changes
    moved = TrainConfig(resume="mine", mix=("a=new/a:1", "b=new/b:2"))
    config, changes = go_on(moved, settings_dict(mixed))
    assert (config.mix, config.chunks_dir, config.val_dir) == (moved.mix, None, None)
    assert len(changes) == 1 and changes[0].startswith("mix: ")


@pytest.mark.parametrize(
    "change", [{"batch_size": 7}, {"random_seed": 1}, {"train_chunks": (1,)}, {"weights": LossWeights(mse=2.0)}]
)
def test_resuming_as_another_run_is_refused_by_the_settings_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        go_on(replace(CONFIG, **change), settings_dict(CONFIG))


def test_a_setting_given_with_its_default_replaces_the_runs_own_too():
    stored = settings_dict(replace(CONFIG, epochs=20, early_stopping=3, batch_size=32))
    config, changes = resumed_config(CONFIG, stored, {"epochs", "early_stopping"})
    assert (config.epochs, config.early_stopping, config.batch_size) == (50, 0, 32)
    assert sorted(changes) == ["early_stopping: 3 -> 0", "epochs: 20 -> 50"]
    with pytest.raises(ValueError, match="batch_size"):
        resumed_config(CONFIG, stored, {"batch_size"})


def test_weights_to_start_from_are_no_part_of_going_on_but_those_the_run_started_from(tmp_path):
    began = replace(CONFIG, checkpoint=Path("a.pth"))
    config, changes = go_on(began, settings_dict(began))
    assert config.checkpoint == Path("a.pth") and not changes
    with pytest.raises(ValueError, match=r'own checkpoint \("a.pth"\), not "nowhere.pth"'):
        go_on(replace(CONFIG, checkpoint=Path("nowhere.pth")), settings_dict(began))


def test_a_runs_settings_are_a_config_file(tmp_path):
    write_settings(tmp_path, replace(CONFIG, exp="mine", batch_size=3, weights=LossWeights(mse=2.0)))
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert values["batch_size"] == 3 and values["weights"]["mse"] == 2.0
    assert "exp" not in values


def test_a_runs_name_comes_before_a_folder_of_that_name_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    last = make_run(tmp_path / "logs", "demo")
    assert find_checkpoint("demo", Path("logs")).resolve() == last
