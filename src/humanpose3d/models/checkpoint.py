"""Reads a trained network back from a checkpoint, safely: tensors, numbers and JSON text, never a pickled object.

The entry "humanpose3d" tells one from other files: `describe` makes it, the trainer puts it into its checkpoints.
"""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from humanpose3d.files import make_folder
from humanpose3d.model_config import ModelConfig, config_from_dict
from humanpose3d.models import build_model
from humanpose3d.models.public_hourglass import from_public, is_public

ENTRY = "humanpose3d"
FORMAT = "humanpose3d-checkpoint"
VERSION = "1"  # raised when a reader of the old one would misread the new
PACKAGED = ("lifter", "lifter_window27")  # checkpoints that come with the package, by name
OF_A_MACHINE = ("config", "log_dir", "cache_dir", "chunks_dir", "val_dir")  # settings that name places on it
PREFIX = "model."  # of the network's weights among a lightning module's
MEAN_PREFIX = "mean_model."  # of their running mean, where training kept one: then that is the network


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network ready to be asked, and what made it."""

    model: nn.Module  # in eval mode, on the device
    config: ModelConfig
    meta: dict[str, Any]  # the checkpoint's "humanpose3d" entry, its JSON decoded: format, version, train_config ...


def describe(model_config: ModelConfig, train_config_json: str = "{}") -> dict[str, str]:
    """The checkpoint entry ENTRY. Text only: a stored dataclass would make `torch.load(weights_only=True)` fail."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model_config": json.dumps(model_config.to_dict(), sort_keys=True),
        "train_config": train_config_json,
    }


def save_model(
    path: Path, model: nn.Module, config: ModelConfig, train_config_json: str = "{}", *, half: bool = False
) -> None:
    """Write the weights alone, without the optimizer's state, in the form `load_model` reads.

    half: in 16 bits, half the size; `load_model` gives them back in 32, each off by at most 1/2048 of itself.
    """
    weights = {
        PREFIX + name: value.cpu().half() if half and value.is_floating_point() else value.cpu()
        for name, value in model.state_dict().items()
    }
    temporary = path.with_name(path.name + ".tmp")
    torch.save({ENTRY: describe(config, train_config_json), "state_dict": weights}, temporary)
    os.replace(temporary, path)


def find_packaged(path: str | Path) -> Path | None:
    """Where the checkpoint of that name lies in the package; None of any other path, and where a file has that name."""
    if str(path) not in PACKAGED or Path(path).exists():
        return None
    return Path(str(resources.files("humanpose3d"))) / "weights" / f"{path}.pt"


def load_model(path: str | Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The network of a checkpoint of `save_model` or of the trainer, at a path or, of `PACKAGED`, by name.

    The public stacked hourglass's checkpoints are read too (models/public_hourglass.py).
    FileNotFoundError where there is none; ValueError, one line, where it is broken, not ours or of another version.
    """
    path = find_packaged(path) or Path(path)
    stored = _read(path)
    if ENTRY not in stored and is_public(weights := stored.get("state_dict", {})):
        return _load_public(path, weights, device)
    meta = _check_entry(path, stored)
    try:
        config = config_from_dict(json.loads(meta["model_config"]))
        train_config = json.loads(meta["train_config"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its settings cannot be read ({_line(error)}); train it again") from None
    model = build_model(config)
    try:
        model.load_state_dict(_network_weights(stored))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its weights are not of its model ({_line(error)}); train it again") from None
    return LoadedModel(
        model=model.to(device).eval(),
        config=config,
        meta={**meta, "model_config": config.to_dict(), "train_config": train_config},
    )


def _load_public(path: Path, weights: dict[str, torch.Tensor], device: torch.device | str) -> LoadedModel:
    try:
        config, ours = from_public(weights)
        model = build_model(config)
        model.load_state_dict(ours)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a checkpoint of the public stacked hourglass ({_line(error)})") from None
    meta = {**describe(config), "model_config": config.to_dict(), "train_config": {}}
    return LoadedModel(model.to(device).eval(), config, meta)


def strip_checkpoint(checkpoint: str | Path, out: Path, *, half: bool = True) -> int:
    """Writes a trainer's checkpoint without what only resuming needs; the new file's bytes.

    FileExistsError where there is a file already; as `load_model`.
    """
    loaded = load_model(checkpoint)
    if out.exists():
        raise FileExistsError(f"{out} is there already; give another name, or remove it")
    make_folder(out.parent)
    settings = {name: value for name, value in loaded.meta["train_config"].items() if name not in OF_A_MACHINE}
    save_model(out, loaded.model, loaded.config, json.dumps(settings, sort_keys=True), half=half)
    return out.stat().st_size


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; main.py writes them to LOG_DIR/RUN/checkpoints, and these "
            f"come with the package: {', '.join(PACKAGED)}"
        )
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own text tells how to run the code in it
        raise ValueError(
            f"{path}: not a whole checkpoint of main.py: it holds objects that only running its code would load, or "
            "is damaged; give one from LOG_DIR/RUN/checkpoints"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not a whole checkpoint of main.py ({_line(error)})") from None
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: not a checkpoint of main.py, it holds a {type(stored).__name__}")
    return stored


def _check_entry(path: Path, stored: dict[str, Any]) -> dict[str, Any]:
    meta = stored.get(ENTRY)
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of main.py, it has no '{ENTRY}' entry")
    if str(meta.get("version")) != VERSION:
        raise ValueError(
            f"{path}: version {meta.get('version')} of the format, this program reads {VERSION}; train it again"
        )
    return meta


def _network_weights(stored: dict[str, Any]) -> dict[str, torch.Tensor]:
    weights = stored.get("state_dict")
    if not isinstance(weights, dict):
        raise TypeError("no state_dict")
    prefix = MEAN_PREFIX if any(name.startswith(MEAN_PREFIX) for name in weights) else PREFIX
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _line(error: Exception) -> str:
    """What an error of a library says, in one line that is not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (" ".join(lines) or type(error).__name__)[:160]
