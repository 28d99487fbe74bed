"""Chunks -> checkpoints and TensorBoard, on lightning: the trainer put together.

What goes with a model is `tasks/`'s, a step and what follows it `tasks/training.py`'s, run folders `runs.py`'s.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import lightning
import orjson
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from humanpose3d.config import TrainConfig
from humanpose3d.dataset.chunked_dataset import StreamingLoader, check_cache_size
from humanpose3d.evaluate import PREVIEWS, add_scores, evaluate_checkpoint, in_words, write_joints_of
from humanpose3d.files import scratch_folder, write_report
from humanpose3d.model_config import ModelConfig
from humanpose3d.models.checkpoint import describe, load_model
from humanpose3d.reports import StageReport
from humanpose3d.runs import BEST, LAST, changed_settings, checkpoints_folder, own_folder, settings_dict, write_settings
from humanpose3d.starting import Start, find_start, starting_network
from humanpose3d.tasks import TASKS, BodyTask, Task
from humanpose3d.tasks.devices import is_first_process, precision_of, processes_of, strategy_of, train_device
from humanpose3d.tasks.evaluation import Scores, evaluate
from humanpose3d.tasks.training import Loaders, RunKeeper, TrainingBar, TrainingModule
from humanpose3d.tasks.watching import StepProfiler
from humanpose3d.training_sets import find_sets, training_loader, training_set, validation_loader, validation_set


def train_model(config: TrainConfig, given: Collection[str] | None = None) -> StageReport:
    """Train, go on with a run, or, with `evaluate`, measure a checkpoint. Writes <stage>_report.json into the run.

    given: names of the settings that were said, be it with their default; None: all that have another value.
    ValueError and OSError say in one line what is wrong with the request or the data.
    """
    given = changed_settings(config) if given is None else given
    if config.evaluate:
        return evaluate_checkpoint(config)
    if config.protocol is not None:
        raise ValueError("--protocol says how to measure; it goes with --evaluate --checkpoint PATH")
    if config.max_steps == 0 or config.max_steps < -1:
        raise ValueError(f"--max-steps {config.max_steps} trains nothing; give a number above 0, or -1 for no limit")
    with _quiet_lightning():
        if not config.fast_dev_run:
            return _train(config, given)
        if config.resume is not None:
            raise ValueError("--fast-dev-run is a run of its own; leave out --resume")
        with scratch_folder() as folder:
            report = _train(replace(config, log_dir=folder, exp=None, epochs=1), given)
        report.summary = "one training and one validation batch went through everything; nothing is kept"
        return report


def _train(config: TrainConfig, given: Collection[str]) -> StageReport:
    report = StageReport("train")
    start = find_start(config, given)
    config = start.config
    train_store, val_store = find_sets(config)
    assert train_store is not None
    model, architecture = starting_network(start, train_store, given)
    task = TASKS[architecture.model_type](architecture, config)
    train_set = training_set(config, train_store, architecture)
    val_set = validation_set(config, val_store, architecture)
    check_cache_size([*train_set.sets, val_set])

    def make_loaders(rank: int, world_size: int) -> Loaders:
        return Loaders(
            training_loader(config, train_set, architecture, rank, world_size),
            validation_loader(config, val_set, architecture, rank, world_size),
        )

    processes, engine = _engine(config, architecture)
    make_loaders(0, processes)  # what is wrong with the request shows before the run's folder is made
    entry = describe(architecture, orjson.dumps(settings_dict(config)).decode())
    if config.compile:
        model.compile()  # in place, so that the weights keep their names
    module = TrainingModule(model, task, config, make_loaders, entry)
    others = nullcontext(config.log_dir / "another-process")  # which write nothing
    with own_folder(start.run, config.log_dir) if is_first_process() else others as run:
        keeper = RunKeeper(run, config, _validator(config, task))
        trainer = _trainer(config, keeper, engine)
        if is_first_process():
            write_settings(run, config)
        _fit(trainer, module, keeper, start)
        _report_training(report, start, trainer, module, keeper)
        best = checkpoints_folder(run) / BEST
        if isinstance(task, BodyTask) and trainer.is_global_zero and best.is_file() and not config.fast_dev_run:
            loaded = load_model(best, train_device(config.device))
            report.facts["predicted_joints"] = write_joints_of(config, loaded, task, val_set, run)
        if trainer.is_global_zero:
            write_report(run, report)
            return report
    # The report is the first's, and so is the exit code: lightning ends all for another's.
    return StageReport("train", summary=f"process {trainer.global_rank}: done")


def _validator(config: TrainConfig, task: Task) -> Callable[[nn.Module, StreamingLoader], Scores]:
    def validate(model: nn.Module, loader: StreamingLoader) -> Scores:
        batches: Iterable = islice(loader, 1) if config.fast_dev_run else loader
        device = next(model.parameters()).device
        return evaluate(model, task, batches, device=device, previews=PREVIEWS)

    return validate


def _engine(config: TrainConfig, architecture: ModelConfig) -> tuple[int, dict[str, Any]]:
    """(how many processes, lightning's words for where and how they compute). ValueError where they cannot."""
    device = train_device(config.device)
    devices, nodes = processes_of(config, device)
    processes = nodes * (devices if isinstance(devices, int) else len(devices))
    return processes, {
        "accelerator": device.type,
        "devices": devices,
        "num_nodes": nodes,
        "strategy": strategy_of(config.strategy, processes, device),
        "precision": precision_of(config.precision, device, architecture.model_type),
        "sync_batchnorm": processes > 1 and device.type == "cuda",
    }


def _trainer(config: TrainConfig, keeper: RunKeeper, engine: dict[str, Any]) -> lightning.Trainer:
    draws_bar = sys.stderr.isatty()
    if engine["accelerator"] == "cuda":
        torch.set_float32_matmul_precision("high")
    callbacks: list[Callback] = [keeper]
    if draws_bar:
        callbacks.append(TrainingBar())
    if config.profile:
        callbacks.append(StepProfiler(keeper.run))
    return lightning.Trainer(
        **engine,
        max_epochs=config.epochs,
        max_steps=config.max_steps,
        limit_train_batches=1 if config.fast_dev_run else None,
        accumulate_grad_batches=config.gradient_accumulation_steps,
        gradient_clip_val=config.clip_norm or None,
        callbacks=callbacks,
        enable_progress_bar=draws_bar,
        enable_checkpointing=False,  # RunKeeper's, at the end of optimizer steps only
        enable_model_summary=False,
        enable_autolog_hparams=False,
        use_distributed_sampler=False,  # StreamingLoader deals the batches out itself
        logger=False,
    )


def _fit(trainer: lightning.Trainer, module: TrainingModule, keeper: RunKeeper, start: Start) -> None:
    try:
        trainer.fit(module, ckpt_path=start.checkpoint, weights_only=True)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"the device has no memory for batches of {start.config.batch_size}: lower --batch-size and raise "
            "--accumulate as much, and --resume where a checkpoint was written"
        ) from None
    except SystemExit:  # lightning's answer to Ctrl-C
        _stop(keeper.run)
    if module.is_stopping and trainer.global_step < module.total_steps:
        _stop(keeper.run)


def _stop(run: Path) -> NoReturn:
    if not is_first_process():
        sys.exit(0)  # else the first, which may still be at work, is stopped for it
    raise KeyboardInterrupt(f"go on with --resume {run}") from None


def _report_training(
    report: StageReport, start: Start, trainer: lightning.Trainer, module: TrainingModule, keeper: RunKeeper
) -> None:
    best, criterion = checkpoints_folder(keeper.run) / BEST, module.task.criterion
    report.inputs = len(module.loaders.train.dataset)
    for name, reason in _quarantined(trainer, module).items():
        report.skip(name, reason)
    report.facts |= {
        "run": str(keeper.run),
        "resumed_from": None if start.checkpoint is None else str(start.checkpoint),
        "best_checkpoint": str(best) if best.is_file() else None,
        "last_checkpoint": str(checkpoints_folder(keeper.run) / LAST),
        "steps": trainer.global_step,
        "batches": module.batches_seen,
        f"best_{criterion.name}": module.best_score if math.isfinite(module.best_score) else None,
        "best_step": module.best_step,
        "samples_per_second": keeper.samples / keeper.seconds if keeper.seconds else None,
        "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "settings": settings_dict(start.config),
    }
    if keeper.scores is None:
        is_early = module.is_stale and trainer.global_step < module.total_steps
        more = "--early-stopping (0: never)" if is_early else "--epochs or --max-steps"
        report.summary = f"{keeper.run} had its {trainer.global_step} steps; raise {more} to go on"
        return
    add_scores(report, keeper.scores, module.task)
    patience = start.config.early_stopping
    stopped = f" (early: {patience} validations without a better one)" if patience and trainer.should_stop else ""
    report.summary = (
        f"trained to step {trainer.global_step}{stopped} at {report.facts['samples_per_second']:.0f} samples/s: "
        f"{in_words(keeper.scores, module.task)} on {keeper.scores.samples} validation samples; "
        f"best {module.best_score:.1f} {criterion.unit} at step {module.best_step}: {best}"
    )


def _quarantined(trainer: lightning.Trainer, module: TrainingModule) -> dict[str, str]:
    """Name -> reason of what was left out, by all processes: each reads its own part."""
    found = module.loaders.train.quarantined | module.loaders.val.quarantined
    if trainer.world_size == 1:
        return found
    of_all: list[dict[str, str]] = [{}] * trainer.world_size
    torch.distributed.all_gather_object(of_all, found)
    return {name: reason for of_one in of_all for name, reason in of_one.items()}


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without lightning's tips and its advice on other people's loaders; errors and our own words stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*returned a view tensor")  # FSDP2: nothing here is done in place
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
