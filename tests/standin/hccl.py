"""A process group called hccl for the stand-in, carried by gloo. Importing it registers the group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from npu import CALLS, unwrap

REGISTERED: list[ProcessGroupHccl] = []  # PyTorch's own reference dies with the C++ side


class ProcessGroupHccl(dist.ProcessGroup):
    """What DistributedDataParallel and all_reduce need."""

    def __init__(self, store: Any, rank: int, size: int, timeout: Any) -> None:
        super().__init__(rank, size)
        self.gloo = dist.ProcessGroupGloo(store, rank, size, timeout)
        REGISTERED.append(self)

    def getBackendName(self) -> str:  # noqa: N802
        return "hccl"

    def done(self, name: str, call: Callable[[], Any], result: Any) -> Any:
        CALLS[f"hccl {name}"] += 1
        call().wait()
        future: torch.futures.Future[Any] = torch.futures.Future()
        future.set_result(result)
        return torch._C._distributed_c10d._create_work_from_future(future)

    def allreduce(self, tensors: Any, options: Any = None) -> Any:
        options = options or dist.AllreduceOptions()
        return self.done("allreduce", lambda: self.gloo.allreduce([unwrap(t) for t in tensors], options), tensors)

    def broadcast(self, tensors: Any, options: Any) -> Any:
        return self.done("broadcast", lambda: self.gloo.broadcast([unwrap(t) for t in tensors], options), tensors)

    def allgather(self, outputs: Any, inputs: Any, options: Any = None) -> Any:
        raw = [[unwrap(t) for t in each] for each in outputs]
        return self.done("allgather", lambda: self.gloo.allgather(raw, [unwrap(t) for t in inputs]), outputs)

    def barrier(self, options: Any = None) -> Any:
        return self.gloo.barrier()


dist.Backend.register_backend("hccl", ProcessGroupHccl, devices=["npu"])
