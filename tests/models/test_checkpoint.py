"""A stored network answers as before; whatever is not one of ours is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.batches import random_batch

from humanpose3d.model_config import model_config
from humanpose3d.models import MODELS, build_model
from humanpose3d.models.checkpoint import ENTRY, describe, load_model, save_model, strip_checkpoint


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    config = model_config("cnn", "tiny")
    save_model(tmp_path / "best_model.pth", build_model(config), config, json.dumps({"epochs": 3}))
    return tmp_path / "best_model.pth"


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("model_type", sorted(MODELS))
def test_a_stored_network_answers_as_before(tmp_path: Path, model_type: str) -> None:
    config = model_config(model_type, "tiny", use_depth=False, dropout=0.25)
    model = build_model(config).eval()
    save_model(tmp_path / "model.pth", model, config, json.dumps({"epochs": 3}))
    loaded = load_model(tmp_path / "model.pth")
    assert loaded.config == config and loaded.meta["train_config"] == {"epochs": 3}
    assert not loaded.model.training
    batch = random_batch(1)
    for after, before in zip(loaded.model(batch), model(batch), strict=True):
        assert after is before is None or torch.equal(after, before)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_the_trainers_own_checkpoint_is_read_too(tmp_path: Path) -> None:
    config = model_config("cnn", "tiny")
    model = build_model(config).eval()
    path = tmp_path / "last.pth"
    state = {f"model.{name}": value for name, value in model.state_dict().items()} | {"loss.scale": torch.ones(1)}
    torch.save({"epoch": 2, "state_dict": state, "optimizer_states": [], ENTRY: describe(config)}, path)
    batch = random_batch(1)
    assert torch.equal(load_model(path).model(batch).root_cam_m, model(batch).root_cam_m)


def test_a_stripped_checkpoint_is_the_network_alone_at_half_the_bytes(tmp_path: Path) -> None:
    config = model_config("lifter", "tiny")
    model, mean = build_model(config).eval(), build_model(config).eval()
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {f"mean_model.{name}": value for name, value in mean.state_dict().items()}
    path, batch = tmp_path / "last.pth", random_batch(1)
    torch.save(
        {
            "state_dict": state,
            "optimizer_states": [state],
            ENTRY: describe(config, '{"epochs": 3, "log_dir": "/home/me"}'),
        },
        path,
    )
    exact, small = tmp_path / "exact.pt", tmp_path / "new" / "small.pt"
    strip_checkpoint(path, exact, half=False)
    assert strip_checkpoint(path, small) < 0.6 * exact.stat().st_size
    assert torch.equal(load_model(exact).model(batch).root_cam_m, mean(batch).root_cam_m)
    loaded = load_model(small)
    assert loaded.meta["train_config"] == {"epochs": 3} and next(loaded.model.parameters()).dtype == torch.float32
    torch.testing.assert_close(loaded.model(batch).joints_cam_m, mean(batch).joints_cam_m, rtol=0.01, atol=0.01)
    with pytest.raises(FileExistsError, match="is there already"):
        strip_checkpoint(path, small)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_model(tmp_path / "none.pth")


def test_a_truncated_checkpoint_is_refused(stored: Path) -> None:
    content = stored.read_bytes()
    for length in (0, 3, 1000, len(content) // 2, len(content) - 10):
        stored.write_bytes(content[:length])
        assert "not a whole checkpoint" in refused(stored)


def test_files_that_are_not_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text")
    for number, foreign in enumerate(([1, 2], {"state_dict": {}}, {ENTRY: "ours"}, {ENTRY: {"format": "other"}})):
        torch.save(foreign, tmp_path / f"foreign{number}.pth")
        assert "not a checkpoint of main.py" in refused(tmp_path / f"foreign{number}.pth")


class Intruder:
    """Would run code when unpickled without `weights_only`."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('ran code of a checkpoint')",))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({ENTRY: Intruder()}, tmp_path / "bad.pth")
    refused(tmp_path / "bad.pth")


def changed(path: Path, **entry: str) -> Path:
    content = torch.load(path, weights_only=True)
    content[ENTRY].update(entry)
    torch.save(content, path)
    return path


def test_another_version_is_refused(stored: Path) -> None:
    assert "version 99" in refused(changed(stored, version="99"))


def test_settings_that_fit_no_model_are_refused(stored: Path) -> None:
    assert "settings" in refused(changed(stored, model_config="{"))
    assert "unknown model type 'gan'" in refused(changed(stored, model_config='{"model_type": "gan"}'))
    settings = model_config("cnn", "tiny").to_dict()
    assert "flavour" in refused(changed(stored, model_config=json.dumps({**settings, "flavour": 1})))


def test_weights_of_another_architecture_are_refused(stored: Path) -> None:
    settings = json.dumps(model_config("cnn", "tiny", head_width=128).to_dict())
    assert "weights are not of its model" in refused(changed(stored, model_config=settings))
