"""Several processes that train one network together: torchrun starts them, DistributedDataParallel adds gradients."""

import atexit
import os
import socket
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from triptych.backend import group, joining
from triptych.backend.joining import Member, Membership
from triptych.utils.errors import TriptychError
from triptych_torch.device import get_device

# how processes talk: the CPU's group carries what DistributedDataParallel settles at its start
GROUPS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}
TRIES, PAUSE = 1000, 0.001  # seconds
NAMES = "RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"


class Group(group.Group):
    """A process group of torch.distributed."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """By all_gather on the CPU."""
        mine = torch.from_numpy(np.array(values, np.float64))
        found = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(found, mine)
        _wait_until_let_go((mine, *found))
        return np.stack([value.numpy() for value in found])

    def lost(self, error: RuntimeError) -> bool:
        """By torch's own class, and what gloo, NCCL and HCCL call themselves."""
        return isinstance(error, distributed.DistError) or any(name in str(error) for name in ("gloo", "NCCL", "HCCL"))


def _wait_until_let_go(tensors: Sequence[torch.Tensor]) -> None:
    """Gloo's thread lets go of tensors a little after they have come, for which it takes Python's lock: where that has
    begun to end by then, the process is aborted. What keeps them longer is nobody's thread."""
    for _ in range(TRIES):
        if not any(tensor._use_count() > 1 for tensor in tensors):
            return
        time.sleep(PAUSE)


def place() -> Membership | None:
    """What torchrun has said; None for a process alone."""
    said = os.environ
    alone = "" if "RANK" in said else "1"  # a number without a count: else each would train for itself
    if said.get("WORLD_SIZE", alone) == "1":
        return None
    address = joining.said_address("MASTER_ADDR", "MASTER_PORT")
    return joining.read_place(said.get("RANK", ""), said.get("WORLD_SIZE", ""), address, NAMES)


def members(count: int, folder: Path) -> list[Member]:
    """torchrun, which starts the others. They find each other by a file in `folder`: torchrun's own store would listen
    on every interface."""
    command = (sys.executable, "-m", "triptych_torch.torchrun", "--nnodes", "1", "--nproc-per-node", str(count))
    meeting = ("--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file", "--rdzv-endpoint", str(folder / "store"))
    environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return [Member("torchrun", (*command, *meeting, "--local-addr", joining.LOOPBACK), environment)]


def join(device: str, devices: int) -> group.Group:
    """Join the processes that `place` names, or be alone. Where they are joined already, as Ray does it, be one."""
    if devices > 1:
        raise TriptychError("PyTorch trains on one device per process: give --processes N, not --devices N")
    if distributed.is_initialized():
        return Group()
    told = place()
    if told is None:
        return group.ALONE
    target = get_device(device)
    if target.type != "cpu":
        getattr(torch, target.type).set_device(target)  # NCCL and HCCL talk by the current one
    if told.local:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", joining.loopback_interface())
    with joining.in_time(told):
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            distributed.init_process_group(GROUPS[target.type])
        else:
            distributed.init_process_group(
                GROUPS[target.type], store=_store(told), rank=told.rank, world_size=told.size
            )
    atexit.register(distributed.destroy_process_group)
    return Group()


def _store(told: Membership) -> distributed.TCPStore:
    """Where processes find each other; it listens at the address that was said, and not at all of the machine's."""
    joining.check_address(told)
    limit = timedelta(seconds=2 * joining.seconds())  # `in_time` is first, and says why
    listening = {}
    if told.rank == 0:
        family, kind, protocol, _, end = socket.getaddrinfo(told.host, told.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(end)
        listener.listen()
        listening["master_listen_fd"] = listener.detach()
    return distributed.TCPStore(told.host, told.port, told.size, told.rank == 0, limit, **listening)
