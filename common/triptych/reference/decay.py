"""Which parameters decay, written a second time: the optimisers' own table (`triptych.optim`) is what is judged."""

from typing import Protocol

from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture, Conv, ConvTranspose, Dense, walk
from triptych.utils.lazy import np

STATISTICS = ("running_mean", "running_var")


class Decaying(Protocol):
    """What it asks of an optimiser: its decay, and whether it is of the weights or of all."""

    @property
    def weight_decay(self) -> float: ...

    @property
    def decayed(self) -> str: ...


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
        is_weight = isinstance(layers[layer], Conv | ConvTranspose | Dense) and name == "weight"
        by_path[info.path] = strength if is_weight or optimizer.decayed == "all" else 0.0
    return by_path
