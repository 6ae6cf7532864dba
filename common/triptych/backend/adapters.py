"""What a backend's `port.py` makes of somebody's own network: the face between `locate` and the frameworks.

Everything that crosses the line is NumPy and canonical: images and maps `(N, C, H, W)`, convolution weights OIHW,
dense weights (out, in).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class PortParameter:
    """One array of the network, by its own name there. `role` is the last part of a canonical path (`weight`, `bias`,
    `running_mean`, `running_var`) where the framework tells it, else empty."""

    name: str
    shape: tuple[int, ...]
    role: str = ""


@dataclass(eq=False)
class Captured:
    """The output of one operation in a pass, the name of the spec's record that it corresponds to, and the gradient
    that arrived there, where the framework gives it."""

    kind: str
    value: Array
    gradient: Array | None = None


@dataclass(eq=False)
class PortRun:
    """One pass: operations in the order of execution, logits, and after a backward pass the gradients by the
    network's own parameter names and the images'."""

    captured: list[Captured]
    logits: Array
    gradients: dict[str, Array] = field(default_factory=dict)
    input_gradient: Array | None = None


class Port(Protocol):
    """Somebody's own network in one framework. `layout` is that of the images it takes, NCHW or NHWC. Dropout is
    switched off in it."""

    layout: str

    def __init__(self, candidate: Any, layout: str | None, precision: str) -> None: ...

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """Every parameter and running statistic, in the order in which a pass on `images` uses them."""

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""

    def run(self, images: Array, *, train: bool, cotangent: Array | None = None) -> PortRun:
        """One pass; with `cotangent`, the gradient of the logits, backward too."""


class PortAdapter(Protocol):
    """What a backend's `port` module offers."""

    Port: type[Port]

    def matches(self, candidate: Any) -> bool:
        """Whether this is a network of the framework."""
