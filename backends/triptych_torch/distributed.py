"""Several processes that train one network together: each takes its share of every batch."""

import atexit
import os

import torch
from torch import distributed

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
