"""What exporters write as several ONNX nodes, and is one layer: recognised from its last node, a division.

- `x / (k + alpha * mean of x^2 over neighbouring channels)^beta`: local response normalisation, which PyTorch computes
  by a three-dimensional average pool;
- `x / max(norm of x, eps)`: `torch.nn.functional.normalize`;
- `exp(x) / sum of exp(x)`: MXNet's exporter has softmax so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers import formulas
from triptych.importers.onnx_constants import FLOATS, FOLDS, axes_of, fold
from triptych.importers.onnx_file import OnnxNode, decimal
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import Layer

_ON_THE_WAY = ("Reshape", "Squeeze", "Unsqueeze", "Identity", "If")  # to and from the pool's five axes
_DEEPEST = 20
WRITTEN_OUT = "activation"  # the operators, which ONNX has not, of what was written out
SOFTMAX = "softmax"

Constants = Mapping[str, NDArray[Any]]


def folded(nodes: Sequence[OnnxNode], constants: Constants) -> dict[str, NDArray[Any]]:
    """The constants, and what nodes make of constants alone; a node that does not fit is left to who needs it."""
    known = dict(constants)
    for node in nodes:
        if node.operator in FOLDS and all(name in known or not name for name in node.inputs):
            try:
                known[node.outputs[0]] = fold(node, [known[name] if name else None for name in node.inputs])
            except ImportRefusedError:
                continue
    return known


def recognised(nodes: Sequence[OnnxNode], constants: Constants) -> tuple[OnnxNode, ...]:
    """The nodes, with every division that ends a pattern replaced by the one operator."""
    producers = {name: node for node in nodes for name in node.outputs}
    search = _PatternSearch(producers, folded(nodes, constants))
    nodes = [search.replaced(node) if node.operator == "Div" and len(node.inputs) == 2 else node for node in nodes]
    terms = {node.outputs[0]: term for node in nodes if (term := search.term(node))}
    found = formulas.activations(terms)
    return tuple(_activation(node, found) for node in nodes)


def _activation(node: OnnxNode, found: Mapping[str, tuple[Layer, str]]) -> OnnxNode:
    """The node, or the activation that ends in it, written out in elementary functions."""
    if not node.outputs or node.outputs[0] not in found:
        return node
    layer, source = found[node.outputs[0]]
    return replace(node, operator=WRITTEN_OUT, inputs=(source,), attributes={"layer": layer})


class _PatternSearch:
    def __init__(self, producers: Mapping[str, OnnxNode], constants: Constants) -> None:
        self.producers, self.constants = producers, constants

    def replaced(self, node: OnnxNode) -> OnnxNode:
        if softmax := self._softmax(node):
            return softmax
        x, divisor = node.inputs
        attributes = self._response_norm(x, divisor) or self._norm(x, divisor)
        if attributes is None:
            return node
        operator = "LRN" if "size" in attributes else "LpNormalization"
        return replace(node, operator=operator, inputs=(x,), attributes=attributes)

    def term(self, node: OnnxNode) -> formulas.Term | None:
        """An operator on each number by itself; a constant of one value counts as a number."""
        if not node.outputs or not all(node.inputs):
            return None
        if node.operator == "Identity" or (node.operator == "Cast" and node.attributes.get("to") in FLOATS):
            return formulas.as_it_is(node.inputs[0])
        numbers = (self._number(name) for name in node.inputs)
        inputs = tuple(n if v is None else v for n, v in zip(node.inputs, numbers, strict=True))
        return None if node.attributes else formulas.term(node.operator.lower(), inputs)

    def _producer(self, name: str, *operators: str) -> OnnxNode | None:
        node = self.producers.get(name)
        return node if node is not None and node.operator in operators else None

    def _number(self, name: str) -> float | None:
        value = self.constants.get(name)
        if value is None or value.size != 1:
            return None
        return decimal(value.item()) if value.dtype == np.float32 else float(value.item())

    def _with_number(self, name: str, operator: str) -> tuple[str, float] | None:
        """The other input and the constant of a node such as `Add`."""
        node = self._producer(name, operator)
        if node is None or len(node.inputs) != 2:
            return None
        first, second = node.inputs
        if (number := self._number(second)) is not None:
            return first, number
        number = self._number(first) if operator != "Pow" else None
        return None if number is None else (second, number)

    def _response_norm(self, x: str, divisor: str) -> dict[str, Any] | None:
        power = self._with_number(divisor, "Pow")
        offset = power and self._with_number(power[0], "Add")
        scaled = offset and self._with_number(offset[0], "Mul")
        size = scaled and self._mean_of_squares(x, scaled[0])
        if not (power and offset and scaled and size):
            return None
        return {"size": size, "alpha": scaled[1], "beta": power[1], "bias": offset[1]}

    def _mean_of_squares(self, x: str, name: str) -> int | None:
        """Over how many channels the mean is; None if it is none, or padded otherwise than on both sides alike."""
        pool = self._producer(self._before(name), "AveragePool")
        kernel = pool.attributes.get("kernel_shape", []) if pool else []
        padding = pool and self._producer(self._before(pool.inputs[0]), "Pad")
        if pool is None or not padding or len(kernel) != 3 or kernel[1:] != [1, 1] or kernel[0] % 2 == 0:
            return None
        plain = ("kernel_shape", "strides", "pads", "ceil_mode", "count_include_pad", "auto_pad")
        strides, pads = pool.attributes.get("strides", [1]), pool.attributes.get("pads", [0])
        if pool.attributes.keys() - set(plain) or set(strides) != {1} or set(pads) != {0}:
            return None
        half = kernel[0] // 2
        given = padding.attributes.get("pads")
        if given is None:
            given = self.constants.get(padding.inputs[1] if len(padding.inputs) > 1 else "", np.zeros(0)).tolist()
        if padding.attributes.get("mode", "constant") != "constant" or given != [0, 0, half, 0, 0] * 2:
            return None
        if padding.attributes.get("value", 0.0) or any(self._number(name) for name in padding.inputs[2:] if name):
            return None
        square = self._producer(self._before(padding.inputs[0]), "Mul")
        return int(kernel[0]) if square and square.inputs == (x, x) else None

    def _softmax(self, node: OnnxNode) -> OnnxNode | None:
        """Along one axis; what is subtracted before, the largest along that axis, changes nothing."""
        powers, divisor = node.inputs
        exponential, total = self._producer(powers, "Exp"), self._producer(divisor, "ReduceSum")
        if exponential is None or total is None or total.inputs[0] != powers:
            return None
        axes = self._kept_axes(total)
        difference = self._producer(exponential.inputs[0], "Sub")
        largest = self._producer(difference.inputs[1], "ReduceMax") if difference else None
        x = exponential.inputs[0]
        if difference and largest and largest.inputs[0] == difference.inputs[0] and self._kept_axes(largest) == axes:
            x = difference.inputs[0]
        return replace(node, operator=SOFTMAX, inputs=(x,), attributes={"axis": axes[0]}) if len(axes) == 1 else None

    def _kept_axes(self, node: OnnxNode) -> list[int]:
        """Over which axes a reduction is that keeps them; none for another."""
        axes = axes_of(node, [None, *(self.constants.get(name) for name in node.inputs[1:])])
        return axes or [] if node.attributes.get("keepdims", 1) else []

    def _before(self, name: str) -> str:
        """The value before nodes that change the shape alone; of an If, what its first branch takes."""
        for _ in range(_DEEPEST):
            node = self._producer(name, *_ON_THE_WAY)
            if node is None:
                return name
            name = _captured(node) if node.operator == "If" else node.inputs[0]
        return name

    def _norm(self, x: str, divisor: str) -> dict[str, Any] | None:
        expand = self._producer(divisor, "Expand")
        bound = self._producer(expand.inputs[0] if expand else divisor, "Clip", "Max")
        if bound is None or (len(bound.inputs) < 2 and "min" not in bound.attributes) or any(bound.inputs[2:]):
            return None
        eps = bound.attributes.get("min") if "min" in bound.attributes else self._number(bound.inputs[1])
        norm = self._producer(bound.inputs[0], "ReduceL2")
        if norm is None or norm.inputs[0] != x or not norm.attributes.get("keepdims", 1) or not eps:
            return None
        axes = axes_of(norm, [None, *(self.constants.get(name) for name in norm.inputs[1:])])
        return {"axis": axes[0], "p": 2, "eps": eps} if axes and len(axes) == 1 else None


def _captured(node: OnnxNode) -> str:
    branch = node.attributes.get("then_branch")
    inputs = [name for each in branch.g.node for name in each.input] if branch is not None else []
    return str(inputs[0]) if inputs else ""
