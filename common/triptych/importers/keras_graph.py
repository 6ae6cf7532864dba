"""The JSON of a Keras model as calls of layers in the order of execution, models in models laid flat.

A layer's `inbound_nodes` has one entry for every call of it: Keras 2 writes `[[name, call, output, {...}], ...]`, Keras
3 `{"args": [...], "kwargs": {...}}`, in which tensors are `{"class_name": "__keras_tensor__", "config":
{"keras_history": [name, call, output]}}`. A Sequential has no such entries: its layers are a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias

from triptych.importers.steps import ImportRefusedError
from triptych.weights.formats.keras_file import class_name_in_file

_MODELS = ("Functional", "Model", "Sequential")
_DEEPEST = 20
_OPERATIONS = "keras.src.ops"  # of Keras 3: calls without arrays, which its files do not number

Value: TypeAlias = int  # the number of the call that gives it; -1 is the network's input
Reference: TypeAlias = tuple[str, int, int]
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


@dataclass(frozen=True)
class _Arguments:
    """What one call takes: tensors, numbers, whether a number comes first, and the mode."""

    references: tuple[Reference, ...] = ()
    numbers: tuple[float, ...] = ()
    number_first: bool = False
    training: bool | None = None


_Calls: TypeAlias = Mapping[tuple[str, int], tuple[_Layer, _Arguments]]


def flatten(model: Mapping[str, Any], source: str) -> KerasGraph:
    """The calls of a model. Raises ImportRefusedError, which names the layer, for what is no graph of layers."""
    graph = KerasGraph()
    if model.get("class_name") not in _MODELS:
        raise ImportRefusedError(
            f"{source} holds a {_short(model.get('class_name'))}, expected one of {', '.join(_MODELS)}"
        )
    expansion = _Expansion(graph, source)
    graph.outputs = tuple(expansion.model(model, (), (), (NETWORK_INPUT,)))
    graph.input_shape = expansion.input_shape
    return graph


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float) else type(value).__name__


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
        where = f"{self.source}: model {'/'.join(path) or _short(model.get('name', ''))}"
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
                values = self._call(layer, path, file_path, values, _Arguments(training=training))
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
        entries = _references(config.get("input_layers"), where)
        outputs = _references(config.get("output_layers"), where)
        if len(entries) != len(inputs) or not outputs:
            raise ImportRefusedError(
                f"{where} has {len(entries)} inputs and {len(outputs)} outputs, expected {len(inputs)} inputs"
            )
        given: dict[tuple[str, int], list[Value]] = {}
        for (name, call, _), value in zip(entries, inputs, strict=True):
            given[name, call] = [value]
        found = {
            (layer.name, number): (layer, _arguments(node, f"{where}: layer {layer.name!r}"))
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
        arguments: "_Arguments",
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
                f"{where}: layer {number} has the name {_short(name)} and inbound_nodes that are no list"
            )
        counted = not str(entry.get("module") or "").startswith(_OPERATIONS)
        file_name = class_name_in_file(class_name, used) if counted else ""
        config = config if isinstance(config, dict) else {"layers": config}  # Sequential before Keras 2.2.3
        layers.append(_Layer(name, class_name, config, inbound, file_name))
    if len({layer.name for layer in layers}) < len(layers):
        raise ImportRefusedError(f"{where} has two layers of one name")
    return layers


def _is_reference(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part < 1 << 31 for part in value[1:3])
    )


def _references(value: object, where: str, depth: int = 0) -> list[Reference]:
    """`["a", 0, 0]`, a list of these, or an object of them by name."""
    if _is_reference(value):
        assert isinstance(value, list)
        return [(value[0], value[1], value[2])]
    inner = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inner, list) or depth > 2:
        raise ImportRefusedError(f"{where} names a tensor by {_short(value)}, expected [layer, call, output]")
    return [reference for each in inner for reference in _references(each, where, depth + 1)]


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


def _arguments(node: object, where: str) -> _Arguments:
    """Keras 3 records `training`, too, but goes by the mode of the network around; Keras 2 goes by it."""
    training = None
    if isinstance(node, dict):
        given = [*_list(node.get("args", [])), *_list(list(_dict(node.get("kwargs", {})).values()))]
        found = _tensors(given, where)
    else:
        found = list(_references(node, where))
        listed = node if isinstance(node, list) and not _is_reference(node) else [node]
        if any(len(each) == 4 and _numeric(each[3]) for each in listed if isinstance(each, list)):
            raise ImportRefusedError(f"{where} is called with numbers of its own, which cannot be imported")
        modes = [_dict(each[3]).get("training") for each in listed if isinstance(each, list) and len(each) == 4]
        training = next((mode for mode in map(_mode, modes) if mode is not None), None)
    tensors = tuple(each for each in found if isinstance(each, tuple))
    numbers = tuple(float(each) for each in found if not isinstance(each, tuple))
    return _Arguments(tensors, numbers, bool(found) and not isinstance(found[0], tuple), training)


def _mode(training: object) -> bool | None:
    return None if training is None else bool(training)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _numeric(keywords: object) -> bool:
    return any(type(value) in (int, float) for value in _dict(keywords).values())


def _tensors(values: Sequence[Any], where: str, depth: int = 0) -> list[Reference | float]:
    found: list[Reference | float] = []
    for value in values:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            found.extend(_references(_dict(value.get("config")).get("keras_history"), where))
        elif isinstance(value, list) and depth < 3:
            found.extend(_tensors(value, where, depth + 1))
        elif type(value) in (int, float):
            found.append(value)
        elif value is not None and not isinstance(value, bool | str):
            raise ImportRefusedError(f"{where} is called with {_short(value)}, expected tensors and numbers")
    return found


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
