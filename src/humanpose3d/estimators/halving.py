"""A batch through a network whatever happens: halved where memory is short, without what the network cannot take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "Cannot allocate memory")


@dataclass(frozen=True)
class Failed:
    """Instead of a result: the network takes this input neither with others nor alone."""

    reason: str


class Halving(Generic[T, R]):
    """`network` for any number of inputs. What was too much once is not tried again."""

    def __init__(self, network: Callable[[Sequence[T]], list[R]]) -> None:
        self._network = network
        self.fits: int | None = None  # inputs that memory holds at once; None while all did

    def __call__(self, inputs: Sequence[T]) -> list[R | Failed]:
        results: list[R | Failed] = []
        while len(results) < len(inputs):
            some = inputs[len(results) : len(results) + (self.fits or len(inputs))]
            results += self._try(some)
        return results

    def _try(self, inputs: Sequence[T]) -> Sequence[R | Failed]:
        try:
            return self._network(inputs)
        except (RuntimeError, ValueError, MemoryError) as error:
            if type(error).__name__ == "AcceleratorError":
                raise  # the device itself is of no more use to this process
            is_memory = isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)
            reason = "too large for the memory" if is_memory else next(iter(str(error).splitlines()), "no reason given")
        # Out of the except clause: while it lasts the error keeps the batch's memory.
        if is_memory:
            _free_memory()
        if len(inputs) == 1:
            return [Failed(reason)]
        half = (len(inputs) + 1) // 2
        if is_memory:
            self.fits = min(self.fits or half, half)
        return [*self._try(inputs[:half]), *self._try(inputs[half:])]


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
