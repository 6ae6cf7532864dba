"""Checkpoints written by another thread, one at a time, while training goes on."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from triptych.training import run_folder
from triptych.training.checkpoint import Checkpoint
from triptych.training.run_folder import KEPT, Epoch
from triptych.utils.errors import TriptychError
from triptych.utils.lock import Lock
from triptych.weights.initializers import Parameters

UNITS: Mapping[str, float] = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Interval:
    """How often a run is saved within an epoch: after so many steps, or so many seconds."""

    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class SavePlan:
    """When a run is saved, beside the end of every epoch, and how many checkpoints stay."""

    keep: int = KEPT
    every: Interval | None = None


DEFAULT_PLAN = SavePlan()


def parse_interval(text: str) -> Interval:
    """`200steps`, `5min`, `30s`, `1h`. Raises TriptychError for other text, and for nothing."""
    match = re.fullmatch(r"([0-9]{1,9}) ?(steps?|s|min|h)", text.strip())
    if match is None or not int(match[1]):
        raise TriptychError(f"--save-every '{text}' is no interval; write for example 200steps, 30s or 5min")
    count, unit = int(match[1]), match[2]
    return Interval(seconds=count * UNITS[unit]) if unit in UNITS else Interval(steps=count)


class Saver:
    """Writes the checkpoints of one run, whose folder it holds the lock of. Times are of a clock that never jumps."""

    def __init__(self, folder: Path, held: Lock, plan: SavePlan) -> None:
        self.folder, self.held, self.plan = folder, held, plan
        self.pool = ThreadPoolExecutor(1, "checkpoint")
        self.pending: tuple[Future[None], Callable[[], None]] | None = None
        self.last_step, self.last_time = 0, time.monotonic()

    def due(self, step: int) -> bool:
        """Whether it is time to save at `step`."""
        every = self.plan.every
        if every is None:
            return False
        if every.steps:
            return step - self.last_step >= every.steps
        return time.monotonic() - self.last_time >= every.seconds

    def save(self, epochs: Sequence[Epoch], checkpoint: Checkpoint, then: Callable[[], None]) -> None:
        """Begin to write a checkpoint, when the one before is written; `then` is called by `poll` or `settle` once it
        is on the disk. Raises what made the one before fail."""
        self.settle()
        own = replace(checkpoint, model=copied(checkpoint.model), optimizer=copied(checkpoint.optimizer))
        future = self.pool.submit(run_folder.save, self.folder, tuple(epochs), own, self.plan.keep)
        self.pending = future, then
        self.last_step, self.last_time = checkpoint.step, time.monotonic()

    def poll(self) -> None:
        """Raises what made a write fail, if one has failed; waits for nothing."""
        if self.pending is not None and self.pending[0].done():
            self.settle()

    def settle(self) -> None:
        """Wait until everything is on the disk. Raises what made it fail."""
        if self.pending is not None:
            future, then = self.pending
            wait([future])  # a signal in here leaves it pending
            self.pending = None
            future.result()
            then()

    def close(self) -> None:
        """Wait, whatever came of it, and let the next writer in."""
        self.pool.shutdown()
        self.held.release()


def copied(arrays: Parameters) -> Parameters:
    """Arrays that no framework writes to any more."""
    return {name: array if array.flags.owndata else np.array(array) for name, array in arrays.items()}
