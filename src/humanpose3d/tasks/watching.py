"""What watches a training without taking part: for a learning rate gone wrong, for a wish to stop, and where the time
goes."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from humanpose3d.files import make_folder, write_whole

STANDARD_ERROR = 2


class DivergenceWatch:
    """Sees each step's training error, and says once where it rises for long, or never falls."""

    MEMORY_STEPS, START_STEPS, LEARNT_BY_STEP = 50, 20, 300
    RISE, FALL = 1.5, 0.95  # of the mean error: against the lowest so far, and against the first steps'

    def __init__(self, *, is_untrained: bool) -> None:
        self._is_untrained = is_untrained
        self._mean, self._first, self._lowest = 0.0, 0.0, math.inf
        self._steps, self._has_warned = 0, False

    def see(self, error: float, unit: str = "mm") -> str:
        """What to tell the user; mostly nothing."""
        self._steps += 1
        self._mean += (error - self._mean) / min(self._steps, self.MEMORY_STEPS)
        if self._steps == self.START_STEPS:
            self._first = self._mean
        if self._steps < self.MEMORY_STEPS or self._has_warned:
            return ""
        self._lowest = min(self._lowest, self._mean)
        has_risen = self._mean > self.RISE * self._lowest
        is_stuck = self._is_untrained and self._steps == self.LEARNT_BY_STEP
        is_stuck = is_stuck and self._mean > self.FALL * self._first
        if not has_risen and not is_stuck:
            return ""
        self._has_warned = True
        before = self._lowest if has_risen else self._first
        return (
            f"training {'diverges' if has_risen else 'does not learn'}: its error went from {before:.0f} to "
            f"{self._mean:.0f} {unit}; is --learning-rate too high? Stop it and lower that tenfold"
        )


class StopSignals:
    """Ctrl-C and SIGTERM as a wish, `asked`, for whoever ends the steps. A second Ctrl-C interrupts at once.

    In place of lightning's answer to SIGTERM, which waits within the signal for the other processes, and they may be
    waiting for this one.
    """

    WORD = b"stopping after this step, with a checkpoint; Ctrl-C again: at once, without one\n"

    def __init__(self) -> None:
        self.asked = False
        self._tells = False

    def listen(self, *, tells: bool) -> None:
        """From now on, until the trainer puts back what was there before. tells: the user, when the wish comes."""
        self._tells = tells
        if threading.current_thread() is threading.main_thread():  # none else may
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._tells and not self.asked:
            os.write(STANDARD_ERROR, self.WORD)  # a print might be under way
        self.asked = True


class StepProfiler(Callback):
    """Traces a few batches of the first process with torch.profiler, after some that warm up."""

    WAIT, WARM_UP, TRACED, ROWS = 5, 3, 10, 40

    def __init__(self, run: Path) -> None:
        self.folder = run / "profile"
        self._profiler: torch.profiler.profile | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            schedule = torch.profiler.schedule(wait=self.WAIT, warmup=self.WARM_UP, active=self.TRACED, repeat=1)
            self._profiler = torch.profiler.profile(schedule=schedule, on_trace_ready=self._write)
            self._profiler.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._profiler is not None:
            self._profiler.step()

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _write(self, profiler: torch.profiler.profile) -> None:
        make_folder(self.folder)
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=self.ROWS)
        write_whole(self.folder / "operations.txt", table.encode())
        profiler.export_chrome_trace(str(self.folder / "trace.json.gz"))
        print(
            f"traced {self.TRACED} batches: {self.folder}/operations.txt, and trace.json.gz for ui.perfetto.dev",
            file=sys.stderr,
        )
