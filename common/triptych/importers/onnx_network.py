"""An ONNX file, operator sets 7 to the newest, as a network of the spec.

What does not depend on the images is computed on the way: shapes, and weights that a graph transposes. The batch may be
symbolic; every other size must be known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from triptych.importers.assemble import assemble
from triptych.importers.network_builder import NetworkBuilder, Tensor
from triptych.importers.onnx_call import Array, OnnxCall, Value
from triptych.importers.onnx_constants import FOLDS, fold
from triptych.importers.onnx_file import OnnxModel, OnnxNode, read
from triptych.importers.onnx_layers import CONVERTERS, SUPPORTED
from triptych.importers.onnx_names import Names
from triptych.importers.onnx_patterns import recognised
from triptych.importers.steps import Imported, ImportRefusedError, Request, needed, way_back
from triptych.spec.kinds.kind import SpecError
from triptych.spec.layers import INPUT

SUFFIXES = (".onnx",)
_SYMBOLIC_BATCH = 1_000_003  # a prime: no size of a layer can be taken for it
_NUM_NAMED = 4  # values of a cycle that are shown
_LAYOUT_KEEPING = ("Cast", "Identity", "Add", "Sub", "Mul", "Div", "BatchNormalization")
_TO_CHANNELS_FIRST = [0, 3, 1, 2]


def load(path: Path, request: Request) -> Imported:
    """The network in a file. Raises TriptychError in one line for a file that is damaged or reaches out of its folder,
    ImportRefusedError, which names node and operator and says what is supported, for a network that cannot be taken
    over. Needs the onnx package."""
    model = read(path)
    conversion = _Conversion(model, request)
    outputs = conversion.outputs()
    return assemble(
        conversion.network.steps,
        outputs,
        request,
        name=path.stem,
        source=f"ONNX {path.name}, operator set {model.opset}",
        input_shape=conversion.shape,
        remarks=conversion.network.remarks,
    )


class _Conversion:
    """Walks the nodes that the outputs need; `values` has what each name stands for so far."""

    def __init__(self, model: OnnxModel, request: Request) -> None:
        self.model, self.network = model, NetworkBuilder()
        self.values: dict[str, Value] = dict(model.constants)
        nodes = recognised(model.nodes, model.constants)
        self.producers = {name: node for node in nodes for name in node.outputs if name}
        self.wanted = self._wanted(request)
        self.takes = {name: node.inputs for name, node in self.producers.items()}
        self.needed = needed(self.takes, self.wanted) - {""}
        self.nodes = [node for node in nodes if not self.needed.isdisjoint(node.outputs)]
        self._check_known()
        self._check_order()
        self.uses = Counter(name for node in self.nodes for name in node.inputs)
        self.uses.update(self.wanted)
        self.names = Names(self.nodes, model.constants)
        self.shape, self.batch = self._start(request)

    def outputs(self) -> list[str]:
        """Converts, and names the steps that are the outputs."""
        for node in self.nodes:
            self._convert(node)
        self._remark_on_shared()
        return [self.network.output(self._output(name)) for name in self.wanted]

    def _wanted(self, request: Request) -> tuple[str, ...]:
        """The values that are asked for, by their own names or their nodes'."""
        by_node = {node.name: node.outputs[0] for node in self.model.nodes if node.name}
        for name in request.outputs:
            if name not in self.producers and name not in by_node:
                some = ", ".join([*list(by_node)[-5:], *self.model.outputs])
                raise ImportRefusedError(f"{self.model.source} has no node or value {name!r}; it has ... {some}")
        return (
            tuple(name if name in self.producers else by_node[name] for name in request.outputs) or self.model.outputs
        )

    def _check_known(self) -> None:
        for node in self.nodes:
            if node.operator not in CONVERTERS and node.operator not in FOLDS:
                supported = f"is not supported; supported: {SUPPORTED}"
                raise ImportRefusedError(f"{self.model.source}: {node.place} {supported}")

    def _check_order(self) -> None:
        given = {"", *self.values, *self.model.inputs}
        for node in self.nodes:
            if early := [name for name in node.inputs if name not in given]:
                why = self._cycle(early[0], node) or "nothing before it gives"
                raise ImportRefusedError(f"{self.model.source}: {node.place} takes {early[0][:80]!r}, which {why}")
            given.update(node.outputs)

    def _cycle(self, name: str, node: OnnxNode) -> str:
        """Half a line with the values on the way from `name` back to the node that takes it, if it depends on that."""
        cycle = way_back(self.takes, name, filter(None, node.outputs))
        more = [f"{len(cycle) - _NUM_NAMED} more"] if len(cycle) > _NUM_NAMED else []
        shown = " from ".join([*(repr(each[:80]) for each in cycle[:_NUM_NAMED]), *more])
        return f"comes from its own output (a cycle: {shown})" if cycle else ""

    def _start(self, request: Request) -> tuple[tuple[int, int, int], int]:
        """The network's input, and the number that stands for the batch in shapes."""
        entries = [name for name in self.model.inputs if name in self.needed]
        source = self.model.source
        if len(entries) != 1:
            raise ImportRefusedError(f"{source} takes {len(entries)} inputs ({', '.join(entries[:5])}), expected one")
        sizes = self.model.inputs[entries[0]]
        last = self._has_channels_last(entries[0])
        known = sizes[1:]
        if request.input is not None and len(known) in (1, 3):
            channels, *size = request.input
            known = (channels,) if len(known) == 1 else (*size, channels) if last else request.input
        numbers = [size for size in known if size is not None]
        if len(numbers) != len(known) or len(known) not in (1, 3):
            shown = ", ".join(str(size or "?") for size in known)
            raise ImportRefusedError(
                f"{source}: the input {entries[0]!r} has the shape (batch, {shown}), expected one with channels, "
                "height and width, or features, that are known; where one is open, say it: --input "
                "CHANNELSxHEIGHTxWIDTH"
            )
        batch = sizes[0] or _SYMBOLIC_BATCH
        if len(numbers) == 1:
            self.values[entries[0]] = self.network.flat("flatten", Tensor(INPUT, (numbers[0], 1, 1)))
            return (numbers[0], 1, 1), batch
        shape = (numbers[2], numbers[0], numbers[1]) if last else (numbers[0], numbers[1], numbers[2])
        tensor = Tensor(INPUT, shape)
        if last:
            tensor = Tensor(INPUT, shape, tensor.places().transpose(1, 2, 0))
            self.network.remarks.append(f"the input is {shape} here, channels first; the file has {tuple(numbers)}")
        self.values[entries[0]] = tensor
        return shape, batch

    def _has_channels_last(self, name: str) -> bool:
        """Whether all that takes the input exchanges its axes first, as files from TensorFlow do."""
        waiting, exchanged = [name], False
        seen = set(waiting)
        takers: dict[str, list[OnnxNode]] = {}
        for node in self.nodes:
            for each in node.inputs:
                takers.setdefault(each, []).append(node)
        while waiting:
            for node in takers.get(waiting.pop(), []):
                if node.operator == "Transpose" and node.attributes.get("perm") == _TO_CHANNELS_FIRST:
                    exchanged = True
                elif node.operator in _LAYOUT_KEEPING and node.operator != "BatchNormalization":
                    waiting.extend(each for each in node.outputs if each not in seen)
                    seen.update(node.outputs)
                else:
                    return False
        return exchanged

    def _convert(self, node: OnnxNode) -> None:
        try:
            results = self._results(node)
        except ImportRefusedError as error:
            raise ImportRefusedError(f"{self.model.source}: {node.place} {error}") from None
        except SpecError as error:
            raise ImportRefusedError(f"{self.model.source}: {node.place}: {error.problem}") from None
        if used := self.needed.intersection(node.outputs[len(results) :]):
            raise ImportRefusedError(
                f"{self.model.source}: {node.place} gives {sorted(used)[0]!r}, which is not supported"
            )
        self.values.update(zip(node.outputs, results, strict=False))

    def _results(self, node: OnnxNode) -> Sequence[Tensor | Array]:
        values = [self._value(name) for name in node.inputs]
        tensors = [value for value in values if isinstance(value, Tensor)]
        if node.operator == "Shape" and tensors:
            shape = np.asarray((self.batch, *tensors[0].source_shape), np.int64)
            return [shape[node.attributes.get("start", 0) : node.attributes.get("end")]]
        if not tensors:
            return [fold(node, [value for value in values if not isinstance(value, Tensor)])]
        if node.operator not in CONVERTERS:
            raise ImportRefusedError(f"is supported for constants only; for maps: {SUPPORTED}")
        call = OnnxCall(
            node,
            self.names.of(node),
            self.model.opset,
            values,
            self.network,
            self.batch,
            self.uses,
            self.model.producer == "pytorch",
        )
        result = CONVERTERS[node.operator](call)
        call.check_all_read()
        return result if isinstance(result, list) else [result]

    def _value(self, name: str) -> Value:
        return self.values[name] if name else None

    def _output(self, name: str) -> Tensor:
        value = self.values.get(name)
        if not isinstance(value, Tensor):
            raise ImportRefusedError(f"{self.model.source}: the output {name[:80]!r} does not depend on the input")
        return value

    def _remark_on_shared(self) -> None:
        """Arrays of several layers are several arrays here, and part in training."""
        shared = [name for name in self.model.constants if self.uses[name] > 1 and self.model.constants[name].ndim > 1]
        self.network.remarks.extend(
            f"{name!r} is shared by {self.uses[name]} layers; here each has its own" for name in shared
        )
