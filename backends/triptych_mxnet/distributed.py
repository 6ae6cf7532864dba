"""Several processes that train one network together: not with this framework."""

from __future__ import annotations

import os

from triptych.utils.errors import TriptychError


def join_processes(device: str) -> int:
    """0: this backend trains in one process."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise TriptychError("backend 'mxnet' trains in one process; torchrun is for --backend torch")
    return 0


def processes() -> tuple[int, int]:
    """The number of this process and how many train together."""
    return 0, 1


def share(count: int, rank: int, size: int) -> slice:
    """This process's images of a batch: all."""
    return slice(count)
