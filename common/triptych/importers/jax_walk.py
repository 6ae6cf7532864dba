"""The calls of a JAX program to steps of a network, one by one.

Maps are mostly height-width-channels in JAX and channels-height-width here: a value is followed as the output of a step
and the order in which JAX has it (`triptych.importers.network_builder`)."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.jax_numbers import VIEWED
from triptych.importers.jax_program import HANDED_ON, Constant, JaxCall, JaxProgram
from triptych.importers.network_builder import NetworkBuilder, Order, Tensor, with_axes
from triptych.importers.steps import ImportRefusedError, Step
from triptych.importers.torch_maps import Map, per_image, rearrangement
from triptych.spec.kinds.kind import SpecError
from triptych.spec.layers import Affine, Pad, Shape

_MOST_COMPUTED = 50_000_000  # values of a constant that is computed of others
FIRST, LAST = (0, 1, 2), (2, 0, 1)  # the axes of a map that are its channels, rows and columns
VIEWS = (
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "broadcast_in_dim",
    "slice",
    "split",
    "dynamic_slice",
    "gather",
    "rev",
)
SLICES = ("slice", "split", "dynamic_slice", "gather")
_WORDS = {
    "max": "relu",
    "clamp": "clip",
    "reduce_window_max": "max_pool",
    "reduce_max": "max_pool",
    "logistic": "sigmoid",
    "leaky": "leaky_relu",
}
_ENDED = ("scan", "while", "cond")


@dataclass(frozen=True, eq=False)
class Total:
    """Sums over windows, or over height and width, which a division makes means. `pool` adds the layer that gives the
    means, by its name and whether padding counts; `order`: of what it gives, as the source has it. `whole`: the values
    in a window; `inside`: without padding, one number or in the source's shape."""

    pool: Callable[[str, bool], Tensor]
    order: Order
    whole: int
    inside: NDArray[Any]

    def mean(self, name: str, *, count_padding: bool) -> Tensor:
        made = self.pool(name, count_padding)
        return Tensor(made.step, made.shape, self.order)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A value times a trained constant, to which a trained constant has to be added."""

    x: Tensor
    scale: Constant


class JaxWalk:
    """`network` has the steps so far. `start`: the images, as the program takes them. `training`: whether the program
    is the one for training."""

    def __init__(self, program: JaxProgram, start: Tensor, *, training: bool) -> None:
        self.program = program
        self.training = training
        self.batch = program.input_shape[0]
        self.network = NetworkBuilder()
        self.logarithms: set[str] = set()
        self.values: dict[str, Any] = dict(program.constants)
        self.uses = Counter(name for call in program.calls for name in call.inputs)
        self.uses.update(name for _, name in program.outputs)
        self.bare: dict[str, Step] = {}  # values that are a layer's output as it is, to which its bias may be added
        self._owners: dict[str, str] = {}
        self._settled: dict[tuple[str, Shape, bytes], Tensor] = {}
        self.values[program.input] = start

    def run(self, call: JaxCall) -> None:
        """Raises ImportRefusedError for a call that is no layer."""
        values = [self.values[name] for name in call.inputs]
        try:
            results = self._results(call, values)
        except SpecError as error:
            raise self.refused(call, error.problem) from None
        except ImportRefusedError as error:
            if "(primitive " in str(error):
                raise
            raise self.refused(call, str(error)) from None
        self.values.update(zip(call.outputs, results, strict=True))

    def refused(self, call: JaxCall, problem: str) -> ImportRefusedError:
        return call.refused(self.place(call), problem)

    def place(self, call: JaxCall, word: str = "") -> str:
        """The module whose parameters it takes, or, where JAX has it, the module that it is in and what it is there:
        `word`, or what its primitive is called."""
        sources = [
            s for name in call.inputs if isinstance(c := self.values.get(name), Constant) for s in sorted(c.sources)
        ]
        owner = sources[0].removeprefix("params.").removeprefix("batch_stats.").rpartition(".")[0] if sources else ""
        scope = ".".join(call.scope.split("/")[1:])
        kind = kind_of_call(call)
        name = word or _WORDS.get(kind, kind.replace(" ", "_"))
        return owner or (f"{scope}.{name}" if scope else name)

    def _results(self, call: JaxCall, values: list[Any]) -> list[Any]:
        from triptych.importers.jax_operations import OPERATIONS, supported

        if all(isinstance(value, Constant) for value in values):
            return self._computed(call, values)
        if call.primitive in HANDED_ON:
            return [self._same(call, values[0])]
        if call.primitive in VIEWS and isinstance(values[0], Tensor | Total) and _all_constant(values[1:]):
            return self._views(call, values)
        operation = OPERATIONS.get(kind_of_call(call))
        if operation is None:
            hint = "control flow is not supported" if call.primitive in _ENDED else "this primitive is not supported"
            hint = f"the spec has no layer for {call.function}" if call.function else hint
            raise self.refused(call, f"{hint}; supported are {', '.join(supported())}")
        return [operation(self, call, values)]

    def tensor(self, call: JaxCall, value: Any) -> Tensor:
        """A value as the output of a step. Raises ImportRefusedError for what is none."""
        if isinstance(value, Total):
            made = value.mean(f"{self.place(call)}_mean", count_padding=True)
            return self.network.pointwise(self.place(call), Affine("", (float(value.whole),)), made)
        if isinstance(value, Scaled):
            raise self.refused(
                call, "takes a trained scale without a shift; supported are both of them, after each other"
            )
        if not isinstance(value, Tensor):
            raise self.refused(call, "takes a constant where the images' maps were expected")
        return value

    def settled(self, call: JaxCall, value: Any, axes: tuple[int, ...] | None = None) -> Tensor:
        """A value whose `axes` are channels, rows and columns (of features: the one) as a step's own output; steps that
        bring it there are added. Without `axes`, whichever fit."""
        x = self.tensor(call, value)
        if axes is None:
            axes = self.axes(x)
        if x.order is None and axes == tuple(range(len(axes))):
            return x
        order = x.places().transpose(axes)
        if order.shape == x.shape and np.array_equal(order.ravel(), np.arange(order.size)):
            return Tensor(x.step, x.shape)
        key = (x.step, order.shape, order.tobytes())
        if key not in self._settled:
            layers = rearrangement(Map(x.step, x.shape, order))
            made = Tensor(x.step, x.shape)
            if layers is None:
                made = self.network.canonical(replace(made, order=order), self.place(call))
            for layer in layers or ():
                own = call.primitive in VIEWS
                name = self.place(call, layer.name) if own else f"{self.place(call)}_{layer.name}"
                made = self.network.layer(name, layer, made)
            self._settled[key] = made
        return self._settled[key]

    def whole(self, call: JaxCall, value: Any, *, exact: bool = True) -> Tensor:
        """A value that has all of its step's output, each once and channels as they are, or, unless `exact`, as near to
        that as layers come."""
        x = self.tensor(call, value)
        if x.order is None:
            return x
        axes = self.axes(x)
        turned = x.order.transpose(axes)
        if turned.shape == x.shape and _in_order(turned):
            return x
        if exact and x.order.size == np.prod(x.shape) and np.unique(x.order).size == x.order.size:
            return x
        layers = rearrangement(Map(x.step, x.shape, x.places().transpose(axes)))
        if not exact and (layers is None or any(isinstance(layer, Pad) for layer in layers)):
            return x  # padding is written as several views, one side after the other
        return with_axes(self.settled(call, x, axes), tuple(int(axis) for axis in np.argsort(axes)))

    def flat(self, call: JaxCall, value: Any) -> Tensor:
        """Features as the flat output of a step, in whichever order."""
        x = self.whole(call, value)
        if len(x.shape) == 1 or x.order is None:
            return x
        plain = self.settled(call, Tensor(x.step, x.shape, np.arange(x.order.size)))
        return Tensor(plain.step, plain.shape, None if _in_order(x.order) else x.order)

    def axes(self, x: Tensor) -> tuple[int, ...]:
        """Which axes of a value are channels, rows and columns, if it can be a map (C, H, W) or features."""
        rank = len(x.source_shape)
        if rank != 3:
            return tuple(range(rank))
        turned = [(axes, x.places().transpose(axes)) for axes in (LAST, FIRST)]
        whole = [axes for axes, order in turned if order.shape == x.shape and _in_order(order)]
        fitting = (axes for axes, order in turned if rearrangement(Map(x.step, x.shape, order)) is not None)
        return whole[0] if whole else next(fitting, LAST)

    def arrays(self, call: JaxCall, name: str, constants: Mapping[str, Constant]) -> dict[str, NDArray[Any]]:
        """The arrays of a step, which alone may have the parameters in them."""
        for constant in constants.values():
            for source in constant.sources:
                if self._owners.setdefault(source, name) != name:
                    raise self.refused(
                        call,
                        f"shares the parameter {source!r} with {self._owners[source]!r}; a spec has no shared weights",
                    )
            if constant.computed and constant.sources:
                self.remark(
                    f"{name}: its weights are computed of {', '.join(sorted(constant.sources))}; taken as computed"
                )
        return {key: wide(constant.value) for key, constant in constants.items()}

    def name(self, call: JaxCall, word: str = "") -> str:
        """The call's place, with a number where a step has it."""
        place, taken = self.place(call, word), {step.name for step in self.network.steps}
        names = (place, *(f"{place}_{number}" for number in range(1, len(taken) + 1)))
        return next(name for name in names if name not in taken)

    def remark(self, line: str) -> None:
        if line not in self.network.remarks:
            self.network.remarks.append(line)

    def _same(self, call: JaxCall, value: Any) -> Any:
        if call.primitive == "stop_gradient":
            self.remark(f"{self.place(call)}: the gradient ends here in the module, and does not in the spec")
        kind = str(call.params.get("new_dtype", "float"))
        if "float" not in kind:
            raise self.refused(call, f"makes the images {kind}, which is not supported")
        if kind in ("bfloat16", "float16"):
            self.remark(f"the module computes in {kind} in part; the spec has one precision for all")
        if self.uses[call.inputs[0]] == 1 and call.inputs[0] in self.bare:
            self.bare[call.outputs[0]] = self.bare[call.inputs[0]]
        return value

    def _views(self, call: JaxCall, values: list[Any]) -> list[Any]:
        if isinstance(values[0], Total):
            value = values[0]
            made = self._orders(call, value.order, values[1:], int(value.order.size))
            if value.inside.size == 1:
                return [replace(value, order=order) for order in made]
        x = self.tensor(call, values[0])
        if call.primitive in SLICES and len(x.source_shape) == 3:
            x = self.whole(call, x, exact=False)
        size = int(np.prod(x.shape))
        orders = self._orders(call, x.places(), values[1:], size)
        parts = [Tensor(x.step, x.shape, order) for order in orders]
        is_map = len(x.shape) == 3 and x.shape[1:] != (1, 1)
        flat = is_map and call.primitive == "reshape" and orders[0].ndim == 1
        return [self.flat(call, parts[0])] if flat else list(parts)

    def _orders(self, call: JaxCall, places: Order, others: list[Constant], size: int) -> list[Order]:
        """What the call does to an array of numbered places."""
        numbers = np.stack([places + image * size for image in range(self.batch)])
        results = viewed(call, numbers, *(constant.value for constant in others))
        orders = [per_image(np.asarray(result), (size,), self.batch) for result in results]
        if any(order is None or (order < 0).any() or (order >= size).any() for order in orders):
            raise self.refused(call, "mixes the images of a batch, or takes what lies outside of a map")
        return [order.astype(np.intp) for order in orders if order is not None]

    def _computed(self, call: JaxCall, values: list[Constant]) -> list[Constant]:
        """What depends on no image: constants of the network, numbers."""
        if call.primitive.startswith(("random", "threefry", "rng_")):
            raise self.refused(call, "is random, which is not supported but as flax's Dropout")
        if call.primitive in _ENDED or np.prod(call.shape, dtype=float) > _MOST_COMPUTED:
            raise self.refused(call, "this primitive is not supported")
        results = viewed(call, *(value.value for value in values))
        sources = frozenset[str]().union(*(value.sources for value in values))
        kept = call.primitive in (*VIEWS, *HANDED_ON) and not any(value.computed for value in values)
        return [Constant(result, sources, computed=not kept) for result in results]


def kind_of_call(call: JaxCall) -> str:
    """Its primitive, without the attributes of a module that it stands for."""
    return call.primitive.partition(":")[0]


def viewed(call: JaxCall, *arrays: Any) -> list[Any]:
    """What the call gives; the views that are most frequent by NumPy, which compiles nothing."""
    view = VIEWED.get(call.primitive)
    return call.run(*arrays) if view is None else [view(np.asarray(arrays[0]), call.params)]


def wide(value: Any) -> NDArray[Any]:
    """An array of float32 at least."""
    array: NDArray[Any] = np.array(value)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _all_constant(values: list[Any]) -> bool:
    return all(isinstance(value, Constant) for value in values)


def _in_order(order: Order) -> bool:
    return bool(np.array_equal(order.ravel(), np.arange(order.size)))
