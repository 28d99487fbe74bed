"""How the networks compute: in which precision, compiled or not. What they compute is each estimator's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["32", "bf16", "16"]


@dataclass(frozen=True)
class Speed:
    """Goes to worker processes as it is."""

    precision: Precision = "32"  # of the layers that torch.autocast takes to fewer bits; results come out in 32
    compile: bool = False

    def prepare(self, network: Any) -> Any:
        """The network as it is to be called."""
        if not self.compile:
            return network
        import torch

        return torch.compile(network)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Around each call of a network."""
        if self.precision == "32":
            return nullcontext()
        import torch

        return torch.autocast(device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)


PLAIN = Speed()
