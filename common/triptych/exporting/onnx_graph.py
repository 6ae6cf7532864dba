"""The nodes and constants of an ONNX graph as they are written one by one. Needs the onnx package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.spec.layers import Shape

OPSET = 17
IR_VERSION = 8  # the oldest that has operator set 17


@dataclass
class OnnxGraph:
    """What is there so far: nodes in order, constants by name. `dtype` is that of all values, float32 or float64."""

    dtype: np.dtype[Any]
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append a node of one output, both called `name`; returns it."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def numbers(self, name: str, values: Any) -> str:
        """A constant of the graph's type; returns its name."""
        self.constants[name] = np.asarray(values, self.dtype)
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        """A constant of whole numbers, as shapes and axes are; returns its name."""
        self.constants[name] = np.asarray(values, np.int64)
        return name


@dataclass(frozen=True)
class OnnxLayer:
    """Where a layer stands: its path, the value that it takes with its shape (without the batch), the shape of its
    output, and its arrays, by canonical name, as constants of the graph."""

    path: str
    x: str
    shape: Shape
    output: Shape
    arrays: Mapping[str, str]

    def per_channel(self, values: NDArray[Any]) -> NDArray[Any]:
        """One number for all, or one for every channel, in a shape that is right beside the value."""
        return values.reshape(-1, *(1,) * (len(self.shape) - 1)) if values.size > 1 else values.reshape(())
