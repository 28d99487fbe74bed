"""A training run's folder: its name, its files, finding it again, and which settings may change when it goes on.

Plain files and settings; training itself is `train.py`'s, the checkpoint format `models/checkpoint.py`'s.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from humanpose3d.config import TrainConfig
from humanpose3d.files import write_whole

LAST = "last.pth"
BEST = "best_model.pth"

# Where and how fast a run is computed, and how long: these may differ when it goes on. Everything else is part of
# what is trained, or of the order of the samples, and must stay. Chunks may lie elsewhere than before; that they are
# other chunks, or mixed otherwise, the position in them would show, and refuse.
FREE_ON_RESUME = frozenset(
    "config chunks_dir mix val_dir val_chunks epochs max_steps precision device devices num_nodes strategy compile "
    "num_workers prefetch cache_dir cache_gb log_dir exp resume checkpoint evaluate protocol fast_dev_run "
    "eval_interval checkpoint_interval early_stopping profile pretrained val_keypoint_noise val_batch_size flip_test "
    "decoder".split()
)
# Of those, what belongs to this machine or this call and is never taken from the checkpoint.
_OF_THIS_CALL = frozenset(
    "config chunks_dir val_dir device devices num_nodes strategy compile num_workers prefetch cache_dir cache_gb "
    "log_dir exp resume checkpoint evaluate protocol fast_dev_run profile flip_test decoder".split()
)


def checkpoints_folder(run: Path) -> Path:
    """Where a run keeps best_model.pth, last.pth and step_N.pth."""
    return run / "checkpoints"


def run_of(checkpoint: Path) -> Path | None:
    """The run a checkpoint lies in; None for a file that lies elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def new_run(log_dir: Path, exp: str | None) -> Path:
    """A folder of its own for a new run, not yet made. ValueError where one of that name exists."""
    if exp is None:
        return _free_name(log_dir, time.strftime("%Y%m%d-%H%M%S"))
    if not exp or Path(exp).name != exp:
        raise ValueError(f"--exp '{exp}' must be a plain folder name; --log-dir says where it goes")
    if (log_dir / exp).exists():
        raise ValueError(f"run {log_dir / exp} exists; go on with --resume {exp}, or choose another --exp")
    return log_dir / exp


def _free_name(log_dir: Path, stamp: str) -> Path:
    """Two runs started in one second get names of their own."""
    names = [stamp, *(f"{stamp}-{number}" for number in range(2, 1000))]
    return log_dir / next(name for name in names if not (log_dir / name).exists())


def find_checkpoint(resume: str, log_dir: Path) -> Path:
    """The checkpoint meant by --resume: a file, a run's folder or its name in `log_dir`; '' or 'latest': the newest.

    FileNotFoundError says where it looked.
    """
    if resume in ("", "latest"):
        found = sorted(log_dir.glob(f"*/checkpoints/{LAST}"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise FileNotFoundError(f"{log_dir} holds no run with checkpoints/{LAST} to go on from; leave out --resume")
        return found[-1]
    for place in (log_dir / resume, Path(resume)):  # a run's name first: a folder here may have the same
        if place.is_file():
            return place
        if place.is_dir():
            last = checkpoints_folder(place) / LAST
            if not last.is_file():
                raise FileNotFoundError(f"{last} is missing; the run ended before its first checkpoint, start it anew")
            return last
    raise FileNotFoundError(f"--resume {resume}: neither a checkpoint nor a run in {log_dir}")


def resumed_config(
    asked: TrainConfig, stored: Mapping[str, Any], given: Collection[str]
) -> tuple[TrainConfig, list[str]]:
    """The settings a run goes on with, and what is different from before, one line each.

    Only a setting that was given, its default too, replaces the run's own where FREE_ON_RESUME allows; elsewhere it
    would make another run: ValueError names it.
    """
    if asked.chunks_dir is None and not asked.mix:  # nothing is said of the data: it is where it was
        val_dir = asked.val_dir or stored.get("val_dir")
        asked = dataclasses.replace(asked, chunks_dir=stored.get("chunks_dir"), val_dir=val_dir)
    wanted, merged, changes = settings_dict(asked), settings_dict(asked), []
    for name, before in stored.items():
        if name not in wanted or name in _OF_THIS_CALL:
            continue
        if wanted[name] == before or name not in given:
            merged[name] = before
        elif name in FREE_ON_RESUME:
            changes.append(f"{name}: {before} -> {wanted[name]}")
        else:
            raise ValueError(
                f"--resume goes on with the run's own {name} ({_short(before)}), not {_short(wanted[name])}; "
                "leave it out, or start a new run with --checkpoint to take over the weights alone"
            )
    return TypeAdapter(TrainConfig).validate_python(merged), changes


def changed_settings(config: TrainConfig) -> frozenset[str]:
    """Those that do not have their default."""
    defaults = settings_dict(TrainConfig())
    return frozenset(name for name, value in settings_dict(config).items() if value != defaults[name])


def settings_dict(config: TrainConfig) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def write_settings(run: Path, config: TrainConfig) -> None:
    """The run's settings as config.yaml, in the form --config takes; what belongs to one call alone is left out."""
    settings = {
        name: value
        for name, value in settings_dict(config).items()
        if value not in (None, []) and name not in ("config", "exp", "resume", "evaluate", "fast_dev_run")
    }
    write_whole(run / "config.yaml", yaml.safe_dump(settings, sort_keys=False).encode())


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."
