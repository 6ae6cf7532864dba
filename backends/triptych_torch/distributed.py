"""Several processes that train one network together: each takes its share of every batch."""

from __future__ import annotations

import atexit
import os

import torch
from torch import distributed

from triptych.utils.errors import TriptychError
from triptych_torch.device import get_device

# how processes talk: the CPU's group carries what DistributedDataParallel settles at its start
GROUPS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}


def join_processes(device: str) -> int:
    """Joins the processes that torchrun started, to train together on such a device; the number of this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0
    target = get_device(device)
    if target.type != "cpu":
        getattr(torch, target.type).set_device(target)  # NCCL and HCCL talk by the current one
    distributed.init_process_group(GROUPS[target.type])
    atexit.register(distributed.destroy_process_group)
    return distributed.get_rank()


def processes() -> tuple[int, int]:
    """The number of this process and how many train together."""
    joined = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if joined else (0, 1)


def share(count: int, rank: int, size: int) -> slice:
    """This process's images of a batch. Raises TriptychError if there are fewer images than processes."""
    if count < size:
        raise TriptychError(f"a batch of {count} images cannot be shared by {size} processes; change --batch-size")
    return slice(count * rank // size, count * (rank + 1) // size)
