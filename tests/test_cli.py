"""Settings: their precedence, their names, and what a user's mistake looks like."""

import pytest

from humanpose3d import cli, config
from humanpose3d.reports import StageReport


def parse_train(*args):
    return cli.parse(config.TrainConfig, ["--chunks-dir", "root", *args], "main.py")


def test_the_command_line_beats_the_environment_and_that_beats_yaml(tmp_path, monkeypatch):
    path = tmp_path / "preset.yaml"
    path.write_text("batch_size: 2\nepochs: 2\nlearning_rate: 0.5\naugmentation: {rotation_deg: 7}\n")
    monkeypatch.setenv("HUMANPOSE3D_BATCH_SIZE", "3")
    monkeypatch.setenv("HUMANPOSE3D_EPOCHS", "3")
    settings = parse_train("--cfg", str(path), "--epochs", "4")
    assert (settings.epochs, settings.batch_size, settings.learning_rate) == (4, 3, 0.5)
    assert settings.augmentation.rotation_deg == 7
    assert settings.weight_decay == 0.01


def test_of_several_yamls_a_later_one_overrides(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("batch_size: 2\nepochs: 2\n")
    second.write_text("epochs: 3\n")
    settings = parse_train("--config", str(first), f"--cfg={second}")
    assert (settings.batch_size, settings.epochs) == (2, 3)


def test_a_space_in_the_environment_parts_the_items_of_a_list_alone(monkeypatch):
    monkeypatch.setenv("HUMANPOSE3D_EXP", "my first run")
    monkeypatch.setenv("HUMANPOSE3D_TRAIN_CHUNKS", "0 2")
    settings = parse_train()
    assert settings.exp == "my first run" and settings.train_chunks == (0, 2)


def test_a_switch_in_the_environment_is_told_in_any_usual_word(monkeypatch, capsys):
    monkeypatch.setenv("HUMANPOSE3D_FAST_DEV_RUN", "1")
    monkeypatch.setenv("HUMANPOSE3D_USE_DEPTH", "no")
    monkeypatch.setenv("HUMANPOSE3D_EXP", "")
    settings = parse_train()
    assert settings.fast_dev_run and not settings.use_depth and settings.exp is None
    monkeypatch.setenv("HUMANPOSE3D_FAST_DEV_RUN", "perhaps")
    with pytest.raises(ValueError, match="HUMANPOSE3D_FAST_DEV_RUN=perhaps: say one of 1, true, yes, on, 0"):
        parse_train()


def test_what_stands_by_its_place_is_not_taken_from_a_yaml(tmp_path):
    (tmp_path / "preset.yaml").write_text("location: chunks\n")
    with pytest.raises(ValueError, match="preset.yaml: location belongs on the command line"):
        cli.parse(config.InspectConfig, ["--config", str(tmp_path / "preset.yaml")], "inspect")


def test_a_switch_of_the_yaml_can_be_turned_back(tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text("use_depth: false\nfast_dev_run: true\n")
    settings = parse_train("--config", str(path), "--use-depth", "--no-fast-dev-run")
    assert settings.use_depth and not settings.fast_dev_run


def test_underscores_and_hyphens_are_the_same_flag():
    assert parse_train("--batch_size", "3") == parse_train("--batch-size", "3")


@pytest.mark.parametrize(
    "given, field, value",
    [
        (["--accumulate", "3"], "gradient_accumulation_steps", 3),
        (["--workers", "0"], "num_workers", 0),
        (["--fdr"], "fast_dev_run", True),
        (["--resume"], "resume", "latest"),
        (["--resume", "--epochs", "3"], "resume", "latest"),
        (["--resume", "run7"], "resume", "run7"),
        (["--train-chunks", "0", "1", "2"], "train_chunks", (0, 1, 2)),
        (["--mix", "a=data/a:0.4", "b=drive:b:0.6"], "mix", ("a=data/a:0.4", "b=drive:b:0.6")),
    ],
)
def test_documented_flags_and_aliases_work(given, field, value):
    assert getattr(parse_train(*given), field) == value


def test_what_was_said_is_known_be_it_the_default(tmp_path, monkeypatch):
    path = tmp_path / "preset.yaml"
    path.write_text("epochs: 50\naugmentation: {flip: 0.5}\nmix: [a=b:1]\n")
    monkeypatch.setenv("HUMANPOSE3D_EARLY_STOPPING", "0")
    args = ["-m", "-1", "--lr=1e-3", "--no-use-depth", "--weights.mse", "1", "--continue_exp", "--cfg", str(path)]
    assert cli.given_fields(config.TrainConfig, args) == {
        "epochs", "augmentation", "mix", "early_stopping", "max_steps", "learning_rate", "use_depth", "weights",
        "resume", "config",
    }  # fmt: skip


def test_the_defaults_are_the_described_systems():
    settings = parse_train()
    assert (settings.batch_size, settings.gradient_accumulation_steps, settings.learning_rate) == (10, 10, 1e-3)
    assert (settings.weight_decay, settings.eval_interval, settings.random_seed) == (0.01, 5000, 42)
    weights = settings.weights
    assert (weights.mse, weights.l1, weights.inter_joint, weights.absolute_root) == (1, 1, 100, 1)
    augmentation = settings.augmentation
    assert (augmentation.rotation_deg, augmentation.flip, augmentation.scale) == (30, 0.5, (0.8, 1.2))
    assert (augmentation.translation, augmentation.hue, augmentation.contrast) == (0.1, 0.05, (0.8, 1.2))


@pytest.mark.parametrize("text, word", [("bach_size: 3", "bach_size"), ("- 3", "field: value"), ("a: [", "not YAML")])
def test_a_wrong_yaml_is_one_line_that_names_it(tmp_path, capsys, text, word):
    path = tmp_path / "preset.yaml"
    path.write_text(text)
    assert cli.train(["--chunks-dir", "root", "--config", str(path)], "main.py") == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message and str(path) in message and word in message


def test_a_missing_yaml_is_said(capsys):
    assert cli.train(["--chunks-dir", "root", "--config", "nowhere.yaml"], "main.py") == 2
    assert "nowhere.yaml is missing" in capsys.readouterr().err


def test_an_unknown_flag_ends_with_2():
    with pytest.raises(SystemExit) as stop:
        parse_train("--bach-size", "3")
    assert stop.value.code == 2


def test_a_users_mistake_is_one_line_and_2(capsys):
    def stage(settings):
        raise FileNotFoundError("frames/ is missing;\nname another")

    assert cli.run(config.SplitConfig, stage, ["--rclone-input-prefix", "a", "--rclone-destination-prefix", "b"]) == 2
    assert capsys.readouterr().err == "error: frames/ is missing; name another\n"


def test_a_full_gpu_is_one_line_that_says_what_to_lower(capsys):
    class OutOfMemoryError(RuntimeError):
        pass

    def stage(settings):
        raise OutOfMemoryError("CUDA out of memory")

    assert cli.run(config.SplitConfig, stage, ["--rclone-input-prefix", "a", "--rclone-destination-prefix", "b"]) == 2
    assert "lower --batch-size" in capsys.readouterr().err


def test_our_own_mistake_keeps_its_traceback():
    def stage(settings):
        raise AssertionError("broken")

    with pytest.raises(AssertionError):
        cli.run(config.SplitConfig, stage, ["--rclone-input-prefix", "a", "--rclone-destination-prefix", "b"])


@pytest.mark.parametrize("names, where", [(("a", "b"), ": a, b"), ("abcd", " (named in split_report.json)")])
def test_too_many_skipped_inputs_are_exit_code_1_and_a_few_are_named(capsys, names, where):
    def stage(settings):
        report = StageReport("split", inputs=10, summary="split the others")
        for name in names:
            report.skip(name, "unreadable image")
        return report

    assert cli.run(config.SplitConfig, stage, ["--rclone-input-prefix", "a", "--rclone-destination-prefix", "b"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "split the others\n"
    assert printed.err == f"skipped {len(names)} of 10: {len(names)} unreadable image{where}\n"
