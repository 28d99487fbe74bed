"""Chunks -> checkpoints and TensorBoard, on lightning: the trainer put together.

What goes with a model is `tasks/`'s, a step and what follows it `tasks/training.py`'s, run folders `runs.py`'s.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import NoReturn

import lightning
import orjson
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from humanpose3d.config import TrainConfig
from humanpose3d.dataset.chunked_dataset import StreamingLoader, check_cache_size
from humanpose3d.evaluate import PREVIEWS, add_scores, evaluate_checkpoint, in_words, write_joints_of
from humanpose3d.files import make_folder, scratch_folder, write_report
from humanpose3d.model_config import ModelConfig
from humanpose3d.models.checkpoint import describe, load_model
from humanpose3d.reports import StageReport
from humanpose3d.runs import BEST, LAST, checkpoints_folder, settings_dict, write_settings
from humanpose3d.starting import Start, find_start, starting_network
from humanpose3d.tasks import TASKS, BodyTask, Task
from humanpose3d.tasks.devices import is_first_process, precision_of, processes_of, strategy_of, train_device
from humanpose3d.tasks.evaluation import Scores, evaluate
from humanpose3d.tasks.training import Loaders, RunKeeper, TrainingBar, TrainingModule
from humanpose3d.tasks.watching import StepProfiler
from humanpose3d.training_sets import find_sets, training_loader, training_set, validation_loader, validation_set


def train_model(config: TrainConfig) -> StageReport:
    """Train, go on with a run, or, with `evaluate`, measure a checkpoint. Writes <stage>_report.json into the run.

    ValueError and OSError say in one line what is wrong with the request or the data.
    """
    if config.evaluate:
        return evaluate_checkpoint(config)
    if config.protocol is not None:
        raise ValueError("--protocol says how to measure; it goes with --evaluate --checkpoint PATH")
    if config.max_steps == 0 or config.max_steps < -1:
        raise ValueError(f"--max-steps {config.max_steps} trains nothing; give a number above 0, or -1 for no limit")
    with _quiet_lightning():
        if not config.fast_dev_run:
            return _train(config)
        if config.resume is not None:
            raise ValueError("--fast-dev-run is a run of its own; leave out --resume")
        with scratch_folder() as folder:
            report = _train(replace(config, log_dir=folder, exp=None, epochs=1))
        report.summary = "one training and one validation batch went through everything; nothing is kept"
        return report


def _train(config: TrainConfig) -> StageReport:
    report = StageReport("train")
    start = find_start(config)
    config = start.config
    train_store, val_store = find_sets(config)
    assert train_store is not None
    model, architecture = starting_network(start, train_store)
    task = TASKS[architecture.model_type](architecture, config)
    train_set = training_set(config, train_store, architecture)
    val_set = validation_set(config, val_store, architecture)
    check_cache_size([*train_set.sets, val_set])

    def make_loaders(rank: int, world_size: int) -> Loaders:
        return Loaders(
            training_loader(config, train_set, architecture, rank, world_size),
            validation_loader(config, val_set, architecture, rank, world_size),
        )

    make_loaders(0, 1)  # what is wrong with the request shows before the run's folder is made
    entry = describe(architecture, orjson.dumps(settings_dict(config)).decode())
    if config.compile:
        model.compile()  # in place, so that the weights keep their names
    module = TrainingModule(model, task, config, make_loaders, entry)
    keeper = RunKeeper(start.run, config, _validator(config, task))
    trainer = _trainer(config, keeper, architecture)
    if is_first_process():
        make_folder(checkpoints_folder(start.run))
        write_settings(start.run, config)
    _fit(trainer, module, start)
    _report_training(report, start, trainer, module, keeper)
    best = checkpoints_folder(start.run) / BEST
    if isinstance(task, BodyTask) and trainer.is_global_zero and best.is_file() and not config.fast_dev_run:
        loaded = load_model(best, train_device(config.device))
        report.facts["predicted_joints"] = write_joints_of(config, loaded, task, val_set, start.run)
    if trainer.is_global_zero:
        write_report(start.run, report)
    else:
        report.summary = f"process {trainer.global_rank}: done"
    return report


def _validator(config: TrainConfig, task: Task) -> Callable[[nn.Module, StreamingLoader], Scores]:
    def validate(model: nn.Module, loader: StreamingLoader) -> Scores:
        batches: Iterable = islice(loader, 1) if config.fast_dev_run else loader
        device = next(model.parameters()).device
        return evaluate(model, task, batches, device=device, previews=PREVIEWS)

    return validate


def _trainer(config: TrainConfig, keeper: RunKeeper, architecture: ModelConfig) -> lightning.Trainer:
    device = train_device(config.device)
    draws_bar = sys.stderr.isatty()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    devices, nodes = processes_of(config, device)
    processes = nodes * (devices if isinstance(devices, int) else len(devices))
    callbacks: list[Callback] = [keeper]
    if draws_bar:
        callbacks.append(TrainingBar())
    if config.profile:
        callbacks.append(StepProfiler(keeper.run))
    return lightning.Trainer(
        accelerator=device.type,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy_of(config.strategy, processes, device),
        precision=precision_of(config.precision, device, architecture.model_type),  # type: ignore[arg-type]
        max_epochs=config.epochs,
        max_steps=config.max_steps,
        limit_train_batches=1 if config.fast_dev_run else None,
        accumulate_grad_batches=config.gradient_accumulation_steps,
        gradient_clip_val=config.clip_norm or None,
        sync_batchnorm=processes > 1 and device.type == "cuda",
        callbacks=callbacks,
        enable_progress_bar=draws_bar,
        enable_checkpointing=False,  # RunKeeper's, at the end of optimizer steps only
        enable_model_summary=False,
        enable_autolog_hparams=False,
        use_distributed_sampler=False,  # StreamingLoader deals the batches out itself
        logger=False,
    )


def _fit(trainer: lightning.Trainer, module: TrainingModule, start: Start) -> None:
    try:
        trainer.fit(module, ckpt_path=start.checkpoint, weights_only=True)
    except torch.OutOfMemoryError:
        raise ValueError(
            f"the device has no memory for batches of {start.config.batch_size}: lower --batch-size and raise "
            "--accumulate as much, and --resume where a checkpoint was written"
        ) from None
    except SystemExit:  # lightning's answer to Ctrl-C
        _stop(start)
    if module.is_stopping and trainer.global_step < module.total_steps:
        _stop(start)


def _stop(start: Start) -> NoReturn:
    if not is_first_process():
        sys.exit(0)  # else the first, which may still be at work, is stopped for it
    raise KeyboardInterrupt(f"go on with --resume {start.run}") from None


def _report_training(
    report: StageReport, start: Start, trainer: lightning.Trainer, module: TrainingModule, keeper: RunKeeper
) -> None:
    best, criterion = checkpoints_folder(start.run) / BEST, module.task.criterion
    report.inputs = len(module.loaders.train.dataset)
    for loader in (module.loaders.train, module.loaders.val):
        for name, reason in loader.quarantined.items():
            report.skip(name, reason)
    report.facts |= {
        "run": str(start.run),
        "resumed_from": None if start.checkpoint is None else str(start.checkpoint),
        "best_checkpoint": str(best) if best.is_file() else None,
        "last_checkpoint": str(checkpoints_folder(start.run) / LAST),
        "steps": trainer.global_step,
        "batches": module.batches_seen,
        f"best_{criterion.name}": module.best_score if math.isfinite(module.best_score) else None,
        "best_step": module.best_step,
        "samples_per_second": keeper.samples / keeper.seconds if keeper.seconds else None,
        "parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "settings": settings_dict(start.config),
    }
    if keeper.scores is None:
        report.summary = f"{start.run} had its {trainer.global_step} steps; raise --epochs or --max-steps to go on"
        return
    add_scores(report, keeper.scores, module.task)
    patience = start.config.early_stopping
    stopped = f" (early: {patience} validations without a better one)" if patience and trainer.should_stop else ""
    report.summary = (
        f"trained to step {trainer.global_step}{stopped} at {report.facts['samples_per_second']:.0f} samples/s: "
        f"{in_words(keeper.scores, module.task)} on {keeper.scores.samples} validation samples; "
        f"best {module.best_score:.1f} {criterion.unit} at step {module.best_step}: {best}"
    )


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
