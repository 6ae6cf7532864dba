"""The JSON of a Keras model as calls of layers in the order of execution, models in models laid flat.

A layer's `inbound_nodes` has one entry for every call of it: Keras 2 writes `[[name, call, output, {...}], ...]`, Keras
3 `{"args": [...], "kwargs": {...}}`, in which tensors are `{"class_name": "__keras_tensor__", "config":
{"keras_history": [name, call, output]}}`. A Sequential has no such entries: its layers are a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias

from triptych.importers.keras_arguments import (
    OPERATIONS,
    TENSORFLOW,
    Arguments,
    Reference,
    arguments_of,
    of_tensorflow,
    references,
    short,
)
from triptych.importers.steps import ImportRefusedError
from triptych.weights.formats.keras_file import class_name_in_file

_MODELS = ("Functional", "Model", "Sequential")
_DEEPEST = 20
_OPERATIONS = "keras.src.ops"  # of Keras 3: calls without arrays, which its files do not number

Value: TypeAlias = int  # the number of the call that gives it; -1 is the network's input
NETWORK_INPUT: Value = -1


@dataclass(frozen=True)
class KerasCall:
    """One call of one layer. `arguments` are values (an int index into the calls) or numbers, told apart by
    `values`; `training` is what Keras 2 calls it with, or the model around it; `path` is the layer's name behind those
    of the models around it, `file_path` the same as Keras 3 numbers them by class."""

    path: tuple[str, ...]
    file_path: tuple[str, ...]
    class_name: str
    config: Mapping[str, Any]
    values: tuple[Value, ...]
    numbers: tuple[float, ...] = ()
    number_first: bool = False
    training: bool | None = None

    @property
    def name(self) -> str:
        return "/".join(self.path)


@dataclass
class KerasGraph:
    """All calls in the order of execution, and the values that are the network's outputs."""

    calls: list[KerasCall] = field(default_factory=list)
    outputs: tuple[Value, ...] = ()
    input_shape: tuple[object, ...] | None = None


@dataclass(frozen=True)
class _Layer:
    name: str
    class_name: str
    config: Mapping[str, Any]
    inbound: Sequence[Any]
    file_name: str
    of_tensorflow: bool = False


_Calls: TypeAlias = Mapping[tuple[str, int], tuple[_Layer, Arguments]]


def flatten(model: Mapping[str, Any], source: str) -> KerasGraph:
    """The calls of a model. Raises ImportRefusedError, which names the layer, for what is no graph of layers."""
    graph = KerasGraph()
    if model.get("class_name") not in _MODELS:
        raise ImportRefusedError(
            f"{source} holds a {short(model.get('class_name'))}, expected one of {', '.join(_MODELS)}"
        )
    expansion = _Expansion(graph, source)
    graph.outputs = tuple(expansion.model(model, (), (), (NETWORK_INPUT,)))
    graph.input_shape = expansion.input_shape
    return graph


class _Expansion:
    """Lays models flat into one list of calls."""

    def __init__(self, graph: KerasGraph, source: str) -> None:
        self.graph, self.source = graph, source
        self.input_shape: tuple[object, ...] | None = None

    def model(
        self,
        model: Mapping[str, Any],
        path: tuple[str, ...],
        file_path: tuple[str, ...],
        inputs: Sequence[Value],
        training: bool | None = None,
    ) -> list[Value]:
        """The values that a model gives of these."""
        if len(path) > _DEEPEST:
            raise ImportRefusedError(f"{self.source}: {'/'.join(path)[:60]} nests more than {_DEEPEST} models")
        where = f"{self.source}: model {'/'.join(path) or short(model.get('name', ''))}"
        config = model.get("config")
        listed = config.get("layers") if isinstance(config, dict) else config
        if not isinstance(listed, list) or not listed:
            raise ImportRefusedError(f"{where} has no list of layers")
        layers = _layers(listed, where)
        if not path:
            shapes = (layer.config.get("batch_input_shape", layer.config.get("batch_shape")) for layer in layers)
            self.input_shape = next((tuple(shape) for shape in shapes if isinstance(shape, list)), None)
        if model.get("class_name") == "Sequential":
            return self._row(layers, path, file_path, inputs, where, training)
        assert isinstance(config, dict)
        return self._network(config, layers, path, file_path, inputs, where, training)

    def _row(
        self,
        layers: Sequence[_Layer],
        path: tuple[str, ...],
        file_path: tuple[str, ...],
        inputs: Sequence[Value],
        where: str,
        training: bool | None,
    ) -> list[Value]:
        if len(inputs) != 1:
            raise ImportRefusedError(f"{where} is a row of layers, but takes {len(inputs)} inputs")
        values = list(inputs)
        for layer in layers:
            if layer.class_name != "InputLayer":
                values = self._call(layer, path, file_path, values, Arguments(training=training))
        return values

    def _network(
        self,
        config: Mapping[str, Any],
        layers: Sequence[_Layer],
        path: tuple[str, ...],
        file_path: tuple[str, ...],
        inputs: Sequence[Value],
        where: str,
        training: bool | None,
    ) -> list[Value]:
        entries = references(config.get("input_layers"), where)
        outputs = references(config.get("output_layers"), where)
        if len(entries) != len(inputs) or not outputs:
            raise ImportRefusedError(
                f"{where} has {len(entries)} inputs and {len(outputs)} outputs, expected {len(inputs)} inputs"
            )
        given: dict[tuple[str, int], list[Value]] = {}
        for (name, call, _), value in zip(entries, inputs, strict=True):
            given[name, call] = [value]
        found = {
            (layer.name, number): (
                layer,
                (of_tensorflow if layer.of_tensorflow else arguments_of)(node, f"{where}: layer {layer.name!r}"),
            )
            for layer in layers
            for number, node in enumerate(layer.inbound)
            if (layer.name, number) not in given
        }
        calls = _numbered(found, outputs)
        for key in _sorted(calls, outputs, given, where):
            layer, arguments = calls[key]
            values = [_output(given, reference, where) for reference in arguments.references]
            if arguments.training is None:
                arguments = replace(arguments, training=training)
            given[key] = self._call(layer, path, file_path, values, arguments)
        return [_output(given, reference, where) for reference in outputs]

    def _call(
        self,
        layer: _Layer,
        path: tuple[str, ...],
        file_path: tuple[str, ...],
        values: Sequence[Value],
        arguments: Arguments,
    ) -> list[Value]:
        path, file_path = (*path, layer.name), (*file_path, layer.file_name)
        if layer.class_name in _MODELS:
            inner = {"class_name": layer.class_name, "config": layer.config, "name": layer.name}
            return self.model(inner, path, file_path, values, arguments.training)
        self.graph.calls.append(
            KerasCall(
                path,
                file_path,
                layer.class_name,
                layer.config,
                tuple(values),
                arguments.numbers,
                arguments.number_first,
                arguments.training,
            )
        )
        return [len(self.graph.calls) - 1]


def _layers(listed: Sequence[Any], where: str) -> list[_Layer]:
    layers = []
    used: dict[str, int] = {}
    for number, entry in enumerate(listed):
        config = entry.get("config") if isinstance(entry, dict) else None
        class_name = entry.get("class_name") if isinstance(entry, dict) else None
        if not isinstance(config, dict | list) or not isinstance(class_name, str):
            raise ImportRefusedError(f"{where}: layer {number} is no object with class_name and config")
        named = config.get("name") if isinstance(config, dict) else None
        name = entry.get("name") or named or f"layer{number}"
        inbound = entry.get("inbound_nodes", [])
        if not isinstance(name, str) or not isinstance(inbound, list):
            raise ImportRefusedError(
                f"{where}: layer {number} has the name {short(name)} and inbound_nodes that are no list"
            )
        counted = not str(entry.get("module") or "").startswith(_OPERATIONS)
        file_name = class_name_in_file(class_name, used) if counted else ""
        config = config if isinstance(config, dict) else {"layers": config}  # Sequential before Keras 2.2.3
        operation = OPERATIONS.get(str(config.get("function"))) if class_name == TENSORFLOW else None
        if operation is not None:
            layers.append(_Layer(name, operation, {"name": name}, inbound, file_name, of_tensorflow=True))
        else:
            layers.append(_Layer(name, class_name, config, inbound, file_name))
    if len({layer.name for layer in layers}) < len(layers):
        raise ImportRefusedError(f"{where} has two layers of one name")
    return layers


def _numbered(calls: _Calls, outputs: Sequence[Reference]) -> _Calls:
    """In Keras 2 the first call of a model in the model is number 1, for 0 was the model's own making."""
    taken = {(name, call) for _, arguments in calls.values() for name, call, _ in arguments.references}
    taken |= {(name, call) for name, call, _ in outputs}
    later = {
        layer.name
        for layer, _ in calls.values()
        if layer.class_name in _MODELS and (layer.name, len(layer.inbound)) in taken
    }
    return {(name, number + (name in later)): call for (name, number), call in calls.items()}


def _sorted(
    calls: _Calls,
    outputs: Sequence[Reference],
    given: Mapping[tuple[str, int], object],
    where: str,
) -> list[tuple[str, int]]:
    """The calls, each behind what it takes. Raises ImportRefusedError for a cycle and for a call that is not there."""
    takes: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for key, (_, arguments) in calls.items():
        takes[key] = [(name, call) for name, call, _ in arguments.references if (name, call) not in given]
    for key in (*(each for taken in takes.values() for each in taken), *((r[0], r[1]) for r in outputs)):
        if key not in calls and key not in given:
            raise ImportRefusedError(f"{where} takes call {key[1]} of layer {key[0][:60]!r}, which is not in the file")
    try:
        return list(TopologicalSorter(takes).static_order())
    except CycleError as error:
        raise ImportRefusedError(f"{where}: layer {error.args[1][0][0]!r} takes its own output (a cycle)") from None


def _output(given: Mapping[tuple[str, int], Sequence[Value]], reference: Reference, where: str) -> Value:
    name, call, output = reference
    values = given[name, call]
    if output >= len(values):
        raise ImportRefusedError(f"{where} takes output {output} of layer {name!r}, which has {len(values)}")
    return values[output]
