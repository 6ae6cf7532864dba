"""Which parameters decay, and at how many times the rate each moves, written a second time: the optimisers' own tables
(`triptych.optim`) are what is judged."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture, Conv, ConvTranspose, Dense, walk
from triptych.utils.lazy import np

STATISTICS = ("running_mean", "running_var")


class Multiplying(Protocol):
    """What it asks of a multiplier."""

    @property
    def pattern(self) -> str: ...

    @property
    def rate(self) -> float: ...

    @property
    def decay(self) -> float: ...


class Decaying(Protocol):
    """What it asks of an optimiser: its decay, whether it is of the weights or of all, and its multipliers."""

    @property
    def weight_decay(self) -> float: ...

    @property
    def decayed(self) -> str: ...

    @property
    def multipliers(self) -> Sequence[Multiplying]: ...


def decay_by_path(optimizer: Decaying, architecture: Architecture) -> dict[str, float]:
    """The weight decay of every trained parameter by path, as float32 has it: the weights of convolution and dense
    layers decay; biases, gamma, beta, slopes, scales and shifts only where the optimiser says "all"."""
    layers = dict(walk(architecture.layers))
    strength = float(np.float32(optimizer.weight_decay))
    by_path: dict[str, float] = {}
    for info in parameters(architecture):
        layer, _, name = info.path.rpartition(".")
        if name in STATISTICS:
            continue
        strength = float(optimizer.weight_decay)
        for multiplier in optimizer.multipliers:
            strength *= multiplier.decay if fnmatchcase(info.path, multiplier.pattern) else 1.0
        is_weight = isinstance(layers[layer], Conv | ConvTranspose | Dense) and name == "weight"
        by_path[info.path] = float(np.float32(strength)) if is_weight or optimizer.decayed == "all" else 0.0
    return by_path


def rate_by_path(optimizer: Decaying, architecture: Architecture) -> dict[str, float]:
    """How many times the learning rate every trained parameter moves with, by path."""
    by_path: dict[str, float] = {}
    for info in parameters(architecture):
        if info.path.rpartition(".")[2] in STATISTICS:
            continue
        by_path[info.path] = 1.0
        for multiplier in optimizer.multipliers:
            by_path[info.path] *= multiplier.rate if fnmatchcase(info.path, multiplier.pattern) else 1.0
    return by_path
