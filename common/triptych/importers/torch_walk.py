"""The calls of a PyTorch program to steps of a network, one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.moves import channel_parts, transposed
from triptych.importers.steps import ImportRefusedError, Step, merge_only
from triptych.importers.torch_arithmetic import ARITHMETIC
from triptych.importers.torch_layers import LAYERS, Arguments, Operator
from triptych.importers.torch_maps import Map, numbered, per_image, rearrangement
from triptych.importers.torch_program import COPIES, SAME, SLICES, VIEWS, Constant, Program, Ref, TorchCall, mapped
from triptych.importers.torch_reductions import REDUCTIONS
from triptych.spec.layers import INPUT, ChannelShuffle, Layer, Merge, Shape, Slice

Array = NDArray[Any]
_MOST_COMPUTED = 50_000_000  # values of a constant that is computed of others


PATTERN_NAMES = frozenset(("scale_and_shift", "local_response_norm", "normalize", "activation"))

_OF_NUMBERS = "add sub mul floordiv truediv mod neg sym_int sym_float"
_OF_CONSTANTS = (
    "add sub rsub mul div neg pow sqrt rsqrt reciprocal exp log abs square sum mean std var norm linalg_vector_norm"
    " clamp clamp_min relu sigmoid tanh softmax cat stack matmul mm mv dot vdot full ones zeros ones_like zeros_like"
    " full_like scalar_tensor eye repeat flip getitem _weight_norm"
)
OPERATIONS = {**ARITHMETIC, **REDUCTIONS}
MOVES = VIEWS | COPIES
COMPUTED = MOVES | SAME | frozenset(_OF_NUMBERS.split()) | frozenset(_OF_CONSTANTS.split())  # of no image


class Walk:
    """`steps` so far, the `values` by name, and `remarks`. `logarithms`: softmaxes of which the logarithm is meant."""

    def __init__(self, program: Program, *, training: bool) -> None:
        self.program = program
        self.training = training
        self.batch = program.input_shape[0]
        self.steps: dict[str, Step] = {}
        self.remarks: dict[str, None] = {}
        self.logarithms: set[str] = set()
        self.values: dict[str, Any] = dict(program.constants)
        self.values[program.input] = Map(INPUT, program.input_shape[1:])
        self._owners: dict[str, str] = {}
        self._rearranged: dict[tuple[str, Shape, bytes], Map] = {}

    def run(self, calls: Sequence[TorchCall]) -> None:
        """Raises ImportRefusedError for the first call that is no layer."""
        for call in calls:
            arguments = {name: mapped(value, self._value) for name, value in call.arguments.items()}
            self.values[call.name] = self._result(replace(call, place=self.unique(call.place)), arguments)

    def unique(self, name: str) -> str:
        """The name, or name_1 where a step has it."""
        numbers = (f"{name}_{number}" for number in count(1))
        return next(n for n in chain((name,), numbers) if n not in self.steps)

    def emit(
        self,
        call: TorchCall,
        layer: Layer,
        inputs: Sequence[Map],
        shape: Shape,
        *,
        name: str = "",
        merge: Merge = "concatenate",
        arrays: Mapping[str, Constant] | None = None,
        change: Callable[[Array], Array] = lambda array: array,
    ) -> Map:
        """A step that takes `inputs` as their own steps give them. `change` is done to its weight."""
        name = name or call.place
        values = {key: self.array(call, constant) for key, constant in (arrays or {}).items()}
        if "weight" in values:
            values["weight"] = change(values["weight"])
        self.steps[name] = Step(name, layer, tuple(value.step for value in inputs), merge, values)
        return Map(name, shape)

    def array(self, call: TorchCall, constant: Constant) -> Array:
        """The array of a constant, which one step alone may have where it is trained."""
        for source in constant.sources:
            if self._owners.setdefault(source, call.place) != call.place:
                raise call.refused(
                    f"shares the parameter {source!r} with {self._owners[source]!r}; a spec has no shared weights"
                )
        if constant.computed and constant.sources:
            self.remarks[
                f"{call.place}: its weights are computed of {', '.join(sorted(constant.sources))}; taken as computed"
            ] = None
        if constant.tensor.element_size() < 4 and constant.tensor.is_floating_point():
            self.remarks["half-precision weights were widened to float32"] = None
        return wide(constant.tensor)

    def settled(self, call: TorchCall, value: Any, *, moved: bool = True) -> Map:
        """The value as the output of a step in that step's own order; steps that bring it there are added, but, unless
        it may be `moved`, none that exchange axes or channels."""
        if not isinstance(value, Map):
            raise call.refused(f"takes {_told(value)} where the images' maps were expected")
        if value.order is None:
            return value
        key = (value.step, value.shape, value.order.tobytes())
        if key not in self._rearranged:
            layers = rearrangement(value)
            if layers is None and moved:
                layers = transposed(value.base, value.places())
            if layers is None and moved and (parts := channel_parts(value.base, value.places())):
                self._rearranged[key] = self._in_parts(call, parts, value)
                return self._rearranged[key]
            if layers is None:
                raise call.refused(
                    f"takes {value.base} without the batch, rearranged to {value.shape} by {value.name!r} as no layer "
                    "does; a dense layer could follow there"
                )
            self._rearranged[key] = self._emit_row(call, layers, replace(value, order=None), value)
        return self._rearranged[key]

    def _emit_row(self, call: TorchCall, layers: Sequence[Layer], value: Map, wanted: Map) -> Map:
        for layer in layers:
            name = self.unique(wanted.name if layer is layers[-1] else f"{wanted.name}_{layer.name}")
            value = self.emit(call, layer, [value], wanted.shape, name=name)
        return value

    def row(self, call: TorchCall, layers: Sequence[Layer], value: Map, shape: Shape, name: str = "") -> Map:
        """Layers one behind the other, the last called `name`, or as the call is; `shape` is what it gives."""
        for layer in layers[:-1]:
            value = self.emit(call, layer, [value], (), name=self.unique(f"{call.place}_{layer.name}"))
        return self.emit(call, layers[-1], [value], shape, name=self.unique(name) if name else "")

    def _in_parts(self, call: TorchCall, parts: Sequence[tuple[int, int]], value: Map) -> Map:
        """Channels of a step one behind the other."""
        names = []
        for start, stop in parts:
            names.append(self.unique(f"{value.name}_part"))
            self.emit(call, Slice("", "channels", start, stop), [Map(value.step, value.base)], (), name=names[-1])
        if len(names) == 1:
            return Map(names[0], value.shape)
        name = self.unique(value.name)
        self.steps[name] = merge_only(name, names, "concatenate")
        return Map(name, value.shape)

    def _value(self, reference: Ref) -> Any:
        return self.values[reference.name]

    def _result(self, call: TorchCall, arguments: dict[str, Any]) -> Any:
        if not any(isinstance(value, Map) for value in _flat(arguments)):
            return self._computed(call, arguments)
        if call.operator == "getitem":
            return arguments["0"][arguments["1"]]
        if call.operator.startswith("sym_size"):
            return (self.batch, *arguments["self"].shape)[arguments["dim"]]
        if call.shape[:1] != (self.batch,):
            raise call.refused(
                f"makes {call.shape}, in which the images ({self.batch} in this example) are no longer the first axis"
            )
        if call.operator in SAME:
            return self._same(call, arguments["self"])
        if call.operator in MOVES:
            return self._view(call, arguments)
        if operation := OPERATIONS.get(call.operator):
            return operation(self, call, arguments)
        if operator := LAYERS.get(call.operator):
            return self._layer(call, operator, arguments)
        raise call.refused(f"this operator is not supported; supported are {', '.join(supported())}")

    def _layer(self, call: TorchCall, operator: Operator, arguments: dict[str, Any]) -> Any:
        value: Any = arguments.get("self", arguments.get("input"))
        order = None
        try:
            settled = self.settled(call, value, moved=not operator.pointwise)
        except ImportRefusedError:
            if not operator.pointwise:
                raise
            settled, order = replace(value, order=None), value.order
        if arguments.get("train") and not self.training:
            self.remarks[
                f"{call.place}: in the module it drops values in evaluation too; in the spec in training alone"
            ] = None
        layers = operator.layers(Arguments(call, arguments, settled.shape, self.training))
        arrays = {ours: arguments[theirs] for theirs, ours in operator.arrays.items() if arguments[theirs] is not None}
        made = settled
        for layer in layers[:-1]:
            made = self.emit(call, layer, [made], (), name=self.unique(f"{call.place}_{layer.name}"))
        if layers:
            shape = settled.base if order is not None else call.shape[1:]
            made = self.emit(call, layers[-1], [made], shape, arrays=arrays)
        if "log_softmax" in call.operator:
            self.logarithms.add(made.step)
        made = replace(made, order=order, name=value.name)
        return made if operator.results == 1 else [made, *[None] * (operator.results - 1)]

    def _same(self, call: TorchCall, value: Any) -> Any:
        if call.operator == "detach":
            self.remarks[f"{call.place}: the gradient ends here in the module, and does not in the spec"] = None
        return value

    def _view(self, call: TorchCall, arguments: dict[str, Any]) -> Any:
        value = next(iter(arguments.values()))
        if not isinstance(value, Map):
            raise call.refused(f"takes {_told(value)} where the images' maps were expected")
        if call.operator in SLICES and _is_shuffle(value):
            settled = self.settled(call, value)
            arguments = {name: settled if each is value else each for name, each in arguments.items()}
            value = settled
        if call.operator in COPIES and np.prod(call.shape, dtype=float) > _MOST_COMPUTED:
            raise call.refused(f"makes {call.shape}, too many values to follow")
        results = self._rearrange(call, value, arguments)
        maps = []
        for result in results if isinstance(results, (list, tuple)) else [results]:
            order = per_image(result.numpy(), value.base, self.batch)
            if order is None:
                raise call.refused("mixes the images of a batch")
            maps.append(Map(value.step, value.base, order, call.place))
        return maps if isinstance(results, (list, tuple)) else maps[0]

    def _rearrange(self, call: TorchCall, value: Map, arguments: dict[str, Any]) -> Any:
        import torch  # noqa: TID251

        try:
            places = np.stack([value.places() + image * numbered(value.base).size for image in range(self.batch)])
        except ValueError as error:
            raise call.refused(str(error)) from None
        tensors = [
            torch.from_numpy(np.ascontiguousarray(places)) if argument is value else mapped_constants(argument)
            for argument in arguments.values()
        ]
        tensors = [torch.empty((self.batch, *t.shape), device="meta") if isinstance(t, Map) else t for t in tensors]
        assert call.function is not None
        return call.function(**dict(zip(arguments, tensors, strict=True)))

    def _computed(self, call: TorchCall, arguments: dict[str, Any]) -> Any:
        """What depends on no image: constants of the network, numbers."""
        import torch  # noqa: TID251

        constants = [value for value in _flat(arguments) if isinstance(value, Constant)]
        if is_random(call):
            raise call.refused("is random, which is not supported but as a dropout")
        if call.function is None or call.operator not in COMPUTED:
            raise call.refused(
                f"this operator is not supported; supported without the images are {', '.join(sorted(COMPUTED))}"
            )
        if np.prod(call.shape, dtype=float) > _MOST_COMPUTED:
            raise call.refused(f"makes {call.shape}, too many values to follow")
        result = self._called(call, arguments, lambda constant: constant.tensor)
        if not isinstance(result, torch.Tensor):
            return result
        sources = frozenset[str]().union(*(constant.sources for constant in constants))
        kept = call.operator in MOVES | SAME and not any(constant.computed for constant in constants)
        exact = None if kept or not result.is_floating_point() else self._called(call, arguments, doubled)
        return Constant(result, sources, computed=not kept, exact=exact)

    def _called(self, call: TorchCall, arguments: dict[str, Any], of: Callable[[Constant], Any]) -> Any:
        import torch  # noqa: TID251

        values = {name: mapped_constants(value, of) for name, value in arguments.items()}
        assert call.function is not None
        with torch.no_grad():
            return call.function(*values.values()) if "0" in values else call.function(**values)


def doubled(constant: Constant) -> Any:
    """Its tensor in float64, where it has fractions."""
    tensor = constant.tensor if constant.exact is None else constant.exact
    return tensor.double() if tensor.is_floating_point() else tensor


def mapped_constants(value: Any, of: Callable[[Constant], Any] = lambda constant: constant.tensor) -> Any:
    """An argument with tensors in place of constants."""
    if isinstance(value, Constant):
        return of(value)
    return [mapped_constants(entry, of) for entry in value] if isinstance(value, list) else value


def wide(tensor: Any) -> Array:
    """A tensor's array, of float32 at least."""
    narrow = tensor.is_floating_point() and tensor.element_size() < 4
    array: Array = (tensor.detach().float() if narrow else tensor.detach()).cpu().numpy()
    return array


def is_random(call: TorchCall) -> bool:
    """Whether the operator draws random numbers, such as those of stochastic depth."""
    return "nondeterministic_seeded" in map(_tag, getattr(call.function, "tags", ()))


def _tag(tag: Any) -> str:
    return str(tag).rpartition(".")[2]


def _is_shuffle(value: Map) -> bool:
    return value.order is not None and any(isinstance(layer, ChannelShuffle) for layer in rearrangement(value) or ())


def supported() -> list[str]:
    """The operators of ATen that can be taken over."""
    return sorted(n for n in {*LAYERS, *OPERATIONS, *MOVES, *SAME} - PATTERN_NAMES if n[0] != "_")


def _flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [each for entry in value.values() for each in _flat(entry)]
    return [each for entry in value for each in _flat(entry)] if isinstance(value, list) else [value]


def _told(value: Any) -> str:
    return "a constant" if isinstance(value, Constant) else f"{value!r}"[:60]
