"""What part of a JAX program computes, in NumPy and in float64: for numbers that its own types would round."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.jax_program import HANDED_ON, JaxCall, JaxProgram

Numbers = NDArray[Any]


def _broadcast(array: Numbers, params: Mapping[str, Any]) -> Numbers:
    sizes = dict(zip(params["broadcast_dimensions"], array.shape, strict=True))
    shape = [sizes.get(axis, 1) for axis in range(len(params["shape"]))]
    return np.broadcast_to(array.reshape(shape), params["shape"])


VIEWED: Mapping[str, Callable[[Numbers, Mapping[str, Any]], Numbers]] = {
    "reshape": lambda array, params: array.reshape(params["new_sizes"]),
    "transpose": lambda array, params: array.transpose(params["permutation"]),
    "squeeze": lambda array, params: array.squeeze(params["dimensions"]),
    "expand_dims": lambda array, params: np.expand_dims(array, params["dimensions"]),
    "broadcast_in_dim": _broadcast,
    "slice": lambda array, params: array[_box(array.ndim, params)],
    "rev": lambda array, params: np.flip(array, params["dimensions"]),
}
_COMPUTED: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "pow": np.power,
    "max": np.maximum,
    "gt": np.greater,
    "select_n": lambda which, *cases: np.where(which, cases[1], cases[0]),
}
_OVER: Mapping[str, Callable[[Numbers, Mapping[str, Any]], Any]] = {
    "integer_pow": lambda x, params: x ** float(params["y"]),
    "reduce_sum": lambda x, params: x.sum(tuple(params["axes"])),
}
ARITHMETIC = frozenset((*_COMPUTED, *_OVER, *HANDED_ON, "reshape", "squeeze", "expand_dims", "broadcast_in_dim"))


def _box(rank: int, params: Mapping[str, Any]) -> tuple[slice, ...]:
    steps = params["strides"] or [None] * rank
    return tuple(map(slice, params["start_indices"], params["limit_indices"], steps))


def values_of(program: JaxProgram, makers: Mapping[str, JaxCall], name: str, known: Mapping[str, Numbers]) -> Numbers:
    """The value called `name`, with those that are `known` instead of the program's own. Only for `ARITHMETIC`."""
    found = dict(known)
    with np.errstate(all="ignore"):
        for call in slice_of(makers, [name], known):
            found[call.outputs[0]] = _result(call, [_of(program, found, each) for each in call.inputs])
    return _of(program, found, name)


def slice_of(makers: Mapping[str, JaxCall], names: Sequence[str], known: Mapping[str, Any]) -> list[JaxCall]:
    """The calls that these values are computed by, behind those that are known, in the order of the program."""
    wanted, calls = list(names), dict[str, JaxCall]()
    while wanted:
        name = wanted.pop()
        if name not in known and name not in calls and (call := makers.get(name)) is not None:
            calls[name] = call
            wanted.extend(call.inputs)
    order = {output: place for place, output in enumerate(makers)}
    return sorted(calls.values(), key=lambda call: order[call.outputs[0]])


def _of(program: JaxProgram, found: Mapping[str, Numbers], name: str) -> Numbers:
    if name in found:
        return found[name]
    number = written(program.constants[name].value)
    return np.asarray(program.constants[name].value, np.float64) if number is None else np.asarray(number)


def written(value: Any) -> float | None:
    """A single number as it was written: 1e-5, where float32 makes 9.999999747e-06 of it; None of an array."""
    array = np.asarray(value)
    if array.size != 1:
        return None
    return as_written(array.reshape(())[()])


def as_written(number: Any) -> float:
    """A number of NumPy's: of float32 the shortest decimal that rounds to it."""
    return float(str(number) if isinstance(number, np.float32) else number)


def _result(call: JaxCall, values: Sequence[Numbers]) -> Numbers:
    kind = call.primitive
    if kind in HANDED_ON:
        return values[0]
    view = VIEWED.get(kind) or _OVER.get(kind)
    return np.asarray(_COMPUTED[kind](*values) if view is None else view(np.asarray(values[0]), call.params))
