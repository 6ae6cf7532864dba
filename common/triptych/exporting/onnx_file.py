"""An architecture with its weights as an ONNX file, from spec and canonical arrays, with the onnx package alone.

It is the network in evaluation: no dropout, no auxiliary classifiers, batch norms by their running statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych import __version__
from triptych.exporting.onnx_graph import IR_VERSION, OPSET, OnnxGraph, OnnxLayer
from triptych.exporting.onnx_layers import LAYERS
from triptych.spec import analysis
from triptych.spec.kinds import composite_of
from triptych.spec.kinds.composites import merged_shape
from triptych.spec.kinds.kind import Wire
from triptych.spec.layers import (
    INPUT,
    Architecture,
    Auxiliary,
    Layer,
    Primitive,
    Shape,
    children,
    join,
    outputs,
)
from triptych.spec.shapes import output_shapes
from triptych.utils.errors import TriptychError, require_package
from triptych.weights import store

_LARGEST = (1 << 31) - (1 << 20)  # bytes of arrays: a file of ONNX's ends at 2 GiB
_TYPES = ("float32", "float64")
Arrays = Mapping[str, NDArray[Any]]


def model(architecture: Architecture, parameters: Arrays) -> Any:
    """The `onnx.ModelProto`, checked by onnx: input `input` `(N, channels, height, width)` for any N, outputs `output`
    or, of several, the names of their layers; values of the parameters' type, float32 or float64. Raises TriptychError
    for parameters that do not fit or are of other types, and for more than a file can hold."""
    require_package("onnx", "onnx", "an ONNX file")
    import onnx
    from onnx import helper

    store.check_fit(architecture, parameters)
    writer = _Writer(architecture, parameters)
    graph = writer.written()
    names = _output_names(architecture)
    for value, name in names.items():
        graph.node("Identity", [writer.values[value]], name)
    kind = helper.np_dtype_to_tensor_dtype(graph.dtype)
    shapes = output_shapes(architecture)
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            architecture.name,
            [helper.make_tensor_value_info(INPUT, kind, ["N", *architecture.input])],
            [helper.make_tensor_value_info(name, kind, ["N", *shapes[path]]) for path, name in names.items()],
            [onnx.numpy_helper.from_array(array, name) for name, array in _used(graph).items()],
            doc_string=architecture.source,
        ),
        producer_name="triptych",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def content(architecture: Architecture, parameters: Arrays) -> bytes:
    """The bytes of the file. Raises TriptychError as `model` does."""
    return bytes(model(architecture, parameters).SerializeToString())


def _output_names(architecture: Architecture) -> dict[str, str]:
    paths = outputs(architecture)
    return {path: "output" if len(paths) == 1 else f"output_{path.rpartition('.')[2]}" for path in paths}


def _used(graph: OnnxGraph) -> dict[str, NDArray[Any]]:
    """The constants that a node takes: an auxiliary classifier's are not, nor those written in another shape."""
    taken = {name for node in graph.nodes for name in node.input}
    return {name: array for name, array in graph.constants.items() if name in taken}


class _Writer:
    """Walks the layers; `values` has the name of every record's output by path."""

    def __init__(self, architecture: Architecture, parameters: Arrays) -> None:
        self.architecture, self.shapes = architecture, output_shapes(architecture)
        self.values: dict[str, str] = {}
        self.arrays: dict[str, dict[str, str]] = {}
        kinds = {array.dtype.name for array in parameters.values()} or {"float32"}
        if len(kinds) > 1 or not kinds <= set(_TYPES):
            raise TriptychError(f"the parameters are of {', '.join(sorted(kinds))}; an ONNX file gets one of {_TYPES}")
        if sum(array.nbytes for array in parameters.values()) > _LARGEST:
            raise TriptychError("the parameters have more than 2 GiB, which one ONNX file cannot hold")
        self.graph = OnnxGraph(np.dtype(kinds.pop()))
        for info in analysis.parameters(architecture):
            layer, _, name = info.path.rpartition(".")
            self.arrays.setdefault(layer, {})[name] = self.graph.numbers(info.path, parameters[info.path])

    def written(self) -> OnnxGraph:
        """All layers, one after the other."""
        value, shape = INPUT, tuple(self.architecture.input)
        for layer in self.architecture.layers:
            if not isinstance(layer, Auxiliary):
                value, shape = self.layer(layer, layer.name, value, shape), self.shapes[layer.name]
        return self.graph

    def layer(self, layer: Layer, path: str, value: str, shape: Shape) -> str:
        """The name of the record's output on `value`."""
        if isinstance(layer, Primitive):
            place = OnnxLayer(path, value, shape, self.shapes[path], self.arrays.get(path, {}))
            self.values[path] = LAYERS[type(layer)](self.graph, layer, place)
            return self.values[path]
        wiring = composite_of(layer).wiring(layer)
        ends = [(value, shape)]
        for child, wire in zip(children(layer), wiring.children, strict=True):
            below = join(path, child.name)
            taken = self.merged(wire, ends, f"{below}.taken")
            ends.append((self.layer(child, below, *taken), self.shapes[below]))
        self.values[path] = self.merged(wiring.output, ends, path)[0]
        return self.values[path]

    def merged(self, wire: Wire, ends: Sequence[tuple[str, Shape]], name: str) -> tuple[str, Shape]:
        """What a place takes: one value, or several merged."""
        sources = [ends[i] for i in wire.sources]
        shape = merged_shape(wire, [shape for _, shape in sources], name)
        factors = wire.factors or (1.0,) * len(sources)
        values = [
            self.scaled(v, f, f"{name}.scaled{i}") for i, ((v, _), f) in enumerate(zip(sources, factors, strict=True))
        ]
        if len(values) == 1:
            return values[0], shape
        if wire.merge == "concatenate":
            return self.graph.node("Concat", values, name, axis=1), shape
        operator = {"add": "Add", "multiply": "Mul"}[wire.merge]
        total = values[0]
        for number, value in enumerate(values[1:], 2):
            total = self.graph.node(operator, [total, value], name if number == len(values) else f"{name}.{number}")
        return total, shape

    def scaled(self, value: str, factor: float, name: str) -> str:
        """A value times a factor."""
        if factor == 1:
            return value
        return self.graph.node("Mul", [value, self.graph.numbers(f"{name}.factor", factor)], name)
