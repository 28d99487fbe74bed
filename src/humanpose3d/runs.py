"""A training run's folder: its name, its files, finding it again, and which settings may change when it goes on.

Plain files and settings; training itself is `train.py`'s, the checkpoint format `models/checkpoint.py`'s.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from humanpose3d.config import TrainConfig
from humanpose3d.files import make_folder, sole_writer, write_whole

LAST = "last.pth"
BEST = "best_model.pth"

# Where and how fast a run is computed, and how long: these may differ when it goes on. Everything else is part of
# what is trained, or of the order of the samples, and must stay. Chunks may lie elsewhere than before; that they are
# other chunks, or mixed otherwise, the position in them would show, and refuse.
FREE_ON_RESUME = frozenset(
    "config chunks_dir mix val_dir val_chunks epochs max_steps precision device devices num_nodes strategy compile "
    "num_workers prefetch cache_dir cache_gb log_dir exp resume evaluate protocol fast_dev_run "
    "eval_interval checkpoint_interval early_stopping profile pretrained val_keypoint_noise val_batch_size flip_test "
    "decoder".split()
)
# Of those, what belongs to this machine or this call and is never taken from the checkpoint.
_OF_THIS_CALL = frozenset(
    "config chunks_dir val_dir device devices num_nodes strategy compile num_workers prefetch cache_dir cache_gb "
    "log_dir exp resume evaluate protocol fast_dev_run profile flip_test decoder".split()
)


def checkpoints_folder(run: Path) -> Path:
    """Where a run keeps best_model.pth, last.pth and step_N.pth."""
    return run / "checkpoints"


def run_of(checkpoint: Path) -> Path | None:
    """The run a checkpoint lies in; None for a file that lies elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None


def named_run(log_dir: Path, exp: str) -> Path:
    """The folder of a new run of that name. ValueError where something of that name exists.

    What a run left that ended before its first checkpoint is as good as nothing. Any process of the run may ask.
    """
    if not exp or Path(exp).name != exp:
        raise ValueError(f"--exp '{exp}' must be a plain folder name; --log-dir says where it goes")
    if _is_taken(log_dir / exp):
        raise ValueError(f"run {log_dir / exp} exists; go on with --resume {exp}, or choose another --exp")
    return log_dir / exp


def _is_taken(run: Path) -> bool:
    if not run.is_dir():
        return run.is_file()
    # Looked at before checkpoints/, which another process of the same run makes first.
    has_others = any(path.name != checkpoints_folder(run).name for path in run.iterdir())
    return any(checkpoints_folder(run).glob("*.pth")) or (has_others and not checkpoints_folder(run).is_dir())


def dated_run(log_dir: Path) -> Path:
    """A new run's folder, made, named by date and time: runs started in one second get one each."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = chain([stamp], (f"{stamp}-{number}" for number in count(2)))
    make_folder(log_dir)
    while True:
        run = log_dir / next(names)
        with suppress(FileExistsError):
            run.mkdir()
            return run


@contextmanager
def own_folder(run: Path | None, log_dir: Path) -> Iterator[Path]:
    """A run's folder, made, and no other's while the block runs. None: a new one, named by the date.

    BlockingIOError: a run that is under way has it.
    """
    run = dated_run(log_dir) if run is None else run
    make_folder(checkpoints_folder(run))
    with sole_writer(run):
        yield run


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
            found = [path for name in (LAST, BEST) if (path := checkpoints_folder(place) / name).is_file()]
            if not found:
                raise FileNotFoundError(
                    f"{checkpoints_folder(place) / LAST} is missing; the run ended before its first checkpoint, start "
                    f"it anew: --exp {place.name}"
                )
            return found[0]
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
