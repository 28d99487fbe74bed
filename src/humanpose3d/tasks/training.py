"""A training step on lightning, and what follows it: scalars, validation, checkpoints, a word to the user.

Knows a task, a model and a loader only by what it calls on them; opening data is `training_sets.py`'s, a run
`train.py`'s.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.tensorboard import SummaryWriter

from humanpose3d.config import TrainConfig
from humanpose3d.files import whole_file
from humanpose3d.models.checkpoint import ENTRY
from humanpose3d.reports import QUIET_INTERVAL_S
from humanpose3d.runs import BEST, LAST, checkpoints_folder
from humanpose3d.sample import PoseBatch
from humanpose3d.tasks import Task
from humanpose3d.tasks.evaluation import Scores
from humanpose3d.tasks.watching import DivergenceWatch, StopSignals

NAMED_IN_AN_ERROR = 5  # samples listed where the loss is not a number
ADAM_BETA1 = 0.9


class Loaders(NamedTuple):
    """A process's batches. The training one has a constant length, and a state that is its position."""

    train: Any
    val: Any


class TrainingModule(lightning.LightningModule):
    """Model, loss and optimizer. `batches_seen` is the run's clock: the random numbers of a step follow from it."""

    def __init__(
        self,
        model: torch.nn.Module,
        task: Task,
        config: TrainConfig,
        make_loaders: Callable[[int, int], Loaders],
        entry: Mapping[str, str],
    ) -> None:
        """make_loaders: (rank, world_size) -> this process's. entry: what a checkpoint says of its model."""
        super().__init__()
        self.model, self.task, self.config = model, task, config
        if config.ema_decay:  # a part of the module, so that lightning's checkpoints hold and restore it
            self.mean_model = copy.deepcopy(model).requires_grad_(False)
        self._make_loaders, self._entry = make_loaders, entry
        self.loaders: Loaders
        self.batches_seen = 0  # global batches, over all epochs
        self.best_score, self.best_step = math.nan, 0  # by the task's criterion
        self.stale_validations = 0  # in a row, without a better one
        self.step_scalars: dict[str, float] = {}  # of the last optimizer step: means over its batches
        self.signals = StopSignals()
        self.is_stopping = False  # the step under way is the last: some process was asked to stop
        self._gradient_norm = torch.zeros(())
        self._window: list[tuple[list[str], dict[str, torch.Tensor]]] = []  # keys and scalars of the batches since it

    def setup(self, stage: str) -> None:
        self.loaders = self._make_loaders(self.trainer.global_rank, self.trainer.world_size)

    def configure_model(self) -> None:
        """With FSDP2: each block, and the rest, is kept in shards by the processes."""
        if self.config.strategy != "fsdp" or isinstance(self.model, FSDPModule):
            return
        assert self.device_mesh is not None
        mesh = self.device_mesh["data_parallel"]
        for network in (self.model, self.mean_model) if self.config.ema_decay else (self.model,):
            for blocks in network.modules():
                for block in blocks if isinstance(blocks, torch.nn.ModuleList) else ():
                    fully_shard(block, mesh=mesh)
            fully_shard(network, mesh=mesh)

    def train_dataloader(self) -> Any:
        return self.loaders.train

    def on_before_batch_transfer(self, batch: PoseBatch, dataloader_idx: int) -> PoseBatch:
        self.task.check_labels(batch)  # here, where reading its masks waits for no device
        return batch

    def training_step(self, batch: PoseBatch, batch_idx: int) -> torch.Tensor:
        # Checkpoints hold no random state: dropout is a function of seed and batch, and so repeats itself.
        torch.manual_seed(_batch_seed(self.config.random_seed, self.batches_seen, self.global_rank))
        scalars = self.task.training_scalars(self.model, batch)
        self._window.append((batch.keys, {name: value.detach().float() for name, value in scalars.items()}))
        self.batches_seen += 1
        return scalars["loss"]

    @property
    def judged(self) -> torch.nn.Module:
        """The network that is validated and handed on: the running mean where there is one."""
        return self.mean_model if self.config.ema_decay else self.model

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        step = self.trainer.global_step  # counted before the step is taken
        super().optimizer_step(*args, **kwargs)
        if self.config.ema_decay:
            follow(self.mean_model, self.model, ema_decay(step, self.config.ema_decay))

    def on_train_start(self) -> None:
        self.signals.listen(tells=self.trainer.is_global_zero)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Reads the step's scalars (its only wait for the device), and stops before a bad one spoils the weights."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        self._gradient_norm = torch.nn.utils.get_total_norm(gradients)
        names = list(self._window[0][1])
        means = [torch.stack([scalars[name] for _, scalars in self._window]).mean() for name in names]
        # Of all processes together, so that all stop together.
        norm = self._gradient_norm.full_tensor() if isinstance(self._gradient_norm, DTensor) else self._gradient_norm
        asked = norm.new_tensor(float(self.signals.asked))
        together = self.trainer.strategy.reduce(torch.stack([*means, norm, asked]), reduce_op="mean")
        *values, share_asked = together.tolist()
        self.is_stopping = share_asked > 0
        self.step_scalars = dict(zip([*names, "gradient_norm"], values, strict=True))
        bad = {name for name, value in self.step_scalars.items() if not math.isfinite(value)}
        if self.trainer.precision == "16-mixed":
            bad.discard("gradient_norm")  # infinite now and then: lightning's scaler skips the step
        if bad:
            raise ValueError(self._not_finite(bad))
        self.step_scalars["learning_rate"] = optimizer.param_groups[0]["lr"]
        self._window.clear()

    def _not_finite(self, bad: set[str]) -> str:
        keys = [
            key
            for keys, scalars in self._window
            if bad == {"gradient_norm"} or not all(bool(torch.isfinite(value)) for value in scalars.values())
            for key in keys
        ]
        named = ", ".join(keys[:NAMED_IN_AN_ERROR]) + (", ..." if len(keys) > NAMED_IN_AN_ERROR else "")
        return (
            f"the {'gradient' if bad == {'gradient_norm'} else 'loss'} is not a number after step "
            f"{self.trainer.global_step}, with samples {named or 'of another process'}; the checkpoints are from "
            "before: look at those samples, or lower --learning-rate, and --resume"
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), gradient_clip_val, self._gradient_norm)

    def configure_optimizers(self) -> Any:
        config = self.config
        trained = list(self.model.parameters())  # frozen ones too, which it skips: older checkpoints count them
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and norms
        ]
        fused = config.strategy != "fsdp"
        betas = (ADAM_BETA1, config.adam_beta2)
        make: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "adamw": lambda: torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=fused),
            "adam": lambda: torch.optim.Adam(groups, lr=config.learning_rate, betas=betas, fused=fused),
            "rmsprop": lambda: torch.optim.RMSprop(groups, lr=config.learning_rate, foreach=fused),
        }
        optimizer = make[config.optimizer]()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self) -> Callable[[int], float]:
        """Share of the highest learning rate, by the optimizer step (from 0)."""
        config, total = self.config, self.total_steps
        if not config.schedule:
            return partial(warm_up_cosine, warm_up=min(config.warmup_steps, total // 10), total=total)
        each = 1 if config.schedule_unit == "steps" else self.steps_per_epoch
        return partial(staircase, falls=[at * each for at in config.schedule], gamma=config.gamma)

    @property
    def is_stale(self) -> bool:
        """Whether as many validations were in vain as --early-stopping bears."""
        return 0 < self.config.early_stopping <= self.stale_validations

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; an epoch's last batches make a step of their own."""
        return math.ceil(len(self.loaders.train) / self.config.gradient_accumulation_steps)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = self.config.epochs * self.steps_per_epoch
        return min(steps, self.config.max_steps) if self.config.max_steps > 0 else steps

    @property
    def samples_per_step(self) -> int:
        """Samples of an optimizer step, over all processes."""
        return self.config.batch_size * min(self.config.gradient_accumulation_steps, len(self.loaders.train))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # As text: plain values only, so that torch.load(weights_only=True) reads it.
        state: dict[str, float | None] = {"batches_seen": self.batches_seen, "best_step": self.best_step}
        state |= {"stale_validations": self.stale_validations}
        state |= {f"best_{self.task.criterion.name}": self.best_score if math.isfinite(self.best_score) else None}
        checkpoint[ENTRY] = {**self._entry, "training": json.dumps(state)}
        # Lightning 2.6 miscounts epochs after going on from an epoch's end, and a second resume would train too long.
        epoch = (self.batches_seen - 1) // len(self.loaders.train)
        counts = {"ready": epoch + 1, "started": epoch + 1, "processed": epoch, "completed": epoch}
        checkpoint["loops"]["fit_loop"]["epoch_progress"] = {"total": dict(counts), "current": dict(counts)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = json.loads(checkpoint[ENTRY]["training"])
        self.batches_seen, self.best_step = state["batches_seen"], state["best_step"]
        best = state[f"best_{self.task.criterion.name}"]
        self.best_score = math.nan if best is None else best
        self.stale_validations = state.get("stale_validations", 0)


def warm_up_cosine(step: int, warm_up: int, total: int) -> float:
    """Learning rate of a step (from 0) as a share of the highest: up in a line, then down along half a cosine."""
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return 0.5 * (1.0 + math.cos(math.pi * min((step - warm_up) / max(total - warm_up, 1), 1.0)))


def staircase(step: int, falls: Sequence[int], gamma: float) -> float:
    """Learning rate of a step (from 0) as a share of the highest: times `gamma` from each of `falls` on."""
    return gamma ** sum(step >= fall for fall in falls)


def ema_decay(step: int, highest: float) -> float:
    """What the running mean of the weights keeps of itself at a step (from 0): little at first, lest it remember the
    beginning for long."""
    return min(highest, (1 + step) / (10 + step))


@torch.no_grad()
def follow(mean: torch.nn.Module, model: torch.nn.Module, keep: float) -> None:
    """mean <- keep * mean + (1 - keep) * model, parameters and statistics alike; counters are copied."""
    for ours, theirs in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
        if ours.is_floating_point():
            ours.lerp_(theirs, 1.0 - keep)
        else:
            ours.copy_(theirs)


def _batch_seed(seed: int, batch: int, rank: int) -> int:
    """Well apart for neighbouring batches and ranks: Philox and Mersenne generators both mix a 64-bit seed."""
    return (seed * 0x9E3779B97F4A7C15 + batch * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**63


class RunKeeper(Callback):
    """After each optimizer step: scalars, validation and checkpoints where due, and a line for the user.

    Validation and checkpoints wait for the end of an optimizer step, so that no half-accumulated gradient is lost.
    """

    def __init__(self, run: Path, config: TrainConfig, validate: Callable[[torch.nn.Module, Any], Scores]) -> None:
        self.run, self.config, self._validate = run, config, validate
        self.scores: Scores | None = None  # the last validation's
        self.samples, self.seconds = 0, 0.0  # trained on by this call, validation's time left out
        self._writer: SummaryWriter | None = None
        self._step = self._batches = 0
        self._told = self._mark = self._ended = time.monotonic()
        self._waited_s = 0.0  # for data, since the last optimizer step
        self._watch = DivergenceWatch(is_untrained=config.checkpoint is None and config.resume is None)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        self._step, self._batches = trainer.global_step, pl_module.batches_seen
        trainer.should_stop = pl_module.is_stale  # a run that had stopped early takes no further step
        if trainer.is_global_zero:
            # A killed run may have written beyond its last checkpoint: those steps are taken again.
            self._writer = SummaryWriter(str(self.run), purge_step=self._step + 1)
        self._told = self._mark = self._ended = time.monotonic()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._waited_s += time.monotonic() - self._ended

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        self._ended = time.monotonic()
        if trainer.global_step == self._step:
            return
        samples = (pl_module.batches_seen - self._batches) * self.config.batch_size
        seconds = max(time.monotonic() - self._mark, 1e-9)
        self.samples, self.seconds = self.samples + samples, self.seconds + seconds
        pl_module.step_scalars["samples_per_second"] = samples / seconds
        pl_module.step_scalars["data_wait_share"] = self._waited_s / seconds
        self._write("train", pl_module.step_scalars, trainer.global_step)
        self._tell(trainer, pl_module)
        error = pl_module.step_scalars[pl_module.task.watched.name]
        if trainer.is_global_zero and (warning := self._watch.see(error, pl_module.task.watched.unit)):
            print(f"step {trainer.global_step}: {warning}", file=sys.stderr, flush=True)
        finished = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        validates = finished or _passed(self._batches, pl_module.batches_seen, self.config.eval_interval)
        if validates:
            self._validate_and_keep_best(trainer, pl_module)
        if _passed(self._step, trainer.global_step, self.config.checkpoint_interval):
            self._save(trainer, [LAST, f"step_{trainer.global_step}.pth"])
        elif validates or pl_module.is_stopping:
            self._save(trainer, [LAST])
        if pl_module.is_stale or pl_module.is_stopping:
            trainer.should_stop = True
        self._step, self._batches = trainer.global_step, pl_module.batches_seen
        self._mark = self._ended = time.monotonic()
        self._waited_s = 0.0

    def _validate_and_keep_best(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        module.eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            self.scores = self._validate(module.judged, module.loaders.val)
        module.train()
        self._write("val", self.scores.values, trainer.global_step)
        if self._writer is not None:
            for number, picture in enumerate(self.scores.previews):
                self._writer.add_image(f"val/preview_{number}", picture, trainer.global_step, dataformats="HWC")
            self._writer.flush()
        module.stale_validations += 1
        criterion = module.task.criterion
        score = self.scores.values[criterion.name]
        if math.isnan(module.best_score) or criterion.cost(score) < criterion.cost(module.best_score):
            module.stale_validations = 0
            module.best_score, module.best_step = score, trainer.global_step
            self._save(trainer, [BEST])

    def _save(self, trainer: lightning.Trainer, names: Sequence[str]) -> None:
        """One checkpoint under each of the names, whole or not there. All processes come here, the first writes."""
        first, *others = [checkpoints_folder(self.run) / name for name in names]
        if not trainer.is_global_zero:
            trainer.save_checkpoint(first)
            return
        try:
            with whole_file(first) as path:
                trainer.save_checkpoint(path)
                for other in others:
                    _duplicate(path, other)
        except OSError as error:  # Lightning's own names a temporary file elsewhere
            reason = error.strerror or error
            raise OSError(
                f"{first} cannot be written ({reason}); the checkpoints before it are kept: --resume"
            ) from error

    def _write(self, stage: str, scalars: Mapping[str, float], step: int) -> None:
        """'mse' as 'train/mse'; what is no quality of the predictions stands by itself."""
        if self._writer is not None:
            for name, value in scalars.items():
                tag = name if name in ("learning_rate", "samples_per_second", "data_wait_share") else f"{stage}/{name}"
                self._writer.add_scalar(tag, value, step)

    def _tell(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        """A line now and then where no bar is drawn."""
        if sys.stderr.isatty() or not trainer.is_global_zero or time.monotonic() - self._told < QUIET_INTERVAL_S:
            return
        self._told = time.monotonic()
        scalars, step, total = module.step_scalars, trainer.global_step, module.total_steps
        rate = self.samples / self.seconds
        seconds_left = (total - step) * module.samples_per_step / rate
        print(
            f"step {step}/{total}, epoch {trainer.current_epoch + 1}/{self.config.epochs}: "
            f"loss {scalars['loss']:.4f}, {module.task.watched.words(scalars[module.task.watched.name])}, "
            f"{rate:.0f} samples/s, {seconds_left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


class TrainingBar(TQDMProgressBar):
    """The bar drawn on a terminal, with the last step's figures."""

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        assert isinstance(pl_module, TrainingModule)
        shown = ("loss", pl_module.task.watched.name, "samples_per_second")
        return {name: f"{pl_module.step_scalars[name]:.4g}" for name in shown if name in pl_module.step_scalars}


def _passed(before: int, now: int, interval: int) -> bool:
    """Whether counting from `before` to `now` met a multiple of `interval`."""
    return now // interval > before // interval


def _duplicate(source: Path, target: Path) -> None:
    """The same content under a second name: a hard link where the file system has them, else a copy."""
    with whole_file(target) as path:
        try:
            os.link(source, path)
        except OSError:
            shutil.copyfile(source, path)
