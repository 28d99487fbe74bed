"""Which device, precision and processes a training gets, in lightning's terms. Each request is checked here."""

from __future__ import annotations

import os

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy

from humanpose3d.config import TrainConfig


def train_device(name: str) -> torch.device:
    """auto: CUDA, else Apple's, else the CPU. ValueError where the device is not there."""
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.append("mps")
    present += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    best = next(kind for kind in ("cuda:0", "mps", "cpu") if kind in present)
    wanted = {"auto": best, "cuda": "cuda:0"}.get(name, name)
    if wanted not in present:
        raise ValueError(f"--device {name} is not here; there is {', '.join(present)}, or auto")
    return torch.device(wanted)


def precision_of(name: str, device: torch.device, model_type: str) -> str:
    """lightning's word for a --precision. ValueError where the device has none such."""
    if name == "auto":
        bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        # On a CPU's tiles (AMX) 1.6 times as fast as 32 bits for the lifter, and more for the hourglass.
        gains = model_type in ("lifter", "hourglass", "hps")
        bf16 |= device.type == "cpu" and gains and torch.cpu._is_amx_tile_supported()
        return "bf16-mixed" if bf16 else "32-true"
    if name == "16" and device.type == "cpu":
        raise ValueError("--precision 16 needs a GPU; a CPU trains in 32 or bf16")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[name]


def processes_of(config: TrainConfig, device: torch.device) -> tuple[int | list[int], int]:
    """(devices of this machine, machines), as lightning takes them."""
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun's: it has started them, one for each device
        processes, here = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        if processes > 1:
            return here, processes // here
    if config.devices == 0 or (config.devices == -1 and device.type != "cuda"):
        raise ValueError(f"--devices {config.devices}: give how many processes; -1 (all) needs GPUs")
    present = torch.cuda.device_count()
    devices = present if config.devices == -1 else config.devices
    if devices == 1 and config.num_nodes == 1:
        return [device.index or 0] if device.type == "cuda" else 1, 1
    if device.type == "cuda" and devices > present:
        raise ValueError(f"--devices {devices}: this machine has {present} GPUs")
    return devices, config.num_nodes


def strategy_of(name: str, processes: int, device: torch.device) -> str | Strategy:
    """How so many processes share the work. ValueError where one alone is asked to share."""
    if processes == 1:
        if name != "auto":
            raise ValueError(f"--strategy {name} needs several processes: --devices, --num-nodes or torchrun")
        return "auto"
    if name == "fsdp":
        backend = "nccl" if device.type == "cuda" else "gloo"
        return ModelParallelStrategy(
            data_parallel_size=processes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,  # one file, which inference and any number of processes read
            process_group_backend=backend,
        )
    return "ddp"


def is_first_process() -> bool:
    """Of those that torchrun, SLURM or lightning started."""
    return all(int(os.environ.get(name, "0")) == 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
