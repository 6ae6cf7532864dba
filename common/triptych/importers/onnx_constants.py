"""Parts of an ONNX graph that depend on no image: shapes that are computed, weights that are transposed on the way.

Each operator is a NumPy function of its node and arrays, as the ONNX operator of the same name; what would become much
larger than what goes in is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.importers.onnx_file import OnnxNode
from triptych.importers.steps import ImportRefusedError

_MOST_VALUES = 1 << 20  # beyond what went in

Array: TypeAlias = NDArray[Any]
Fold: TypeAlias = Callable[[OnnxNode, Sequence[Any]], Array]  # of arrays, None where an input is left out

FLOATS = (1, 10, 11, 16)  # TensorProto.FLOAT, FLOAT16, DOUBLE, BFLOAT16
_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float32, 11: np.float64}


def fold(node: OnnxNode, arrays: Sequence[Array | None]) -> Array:
    """The node's output. Raises ImportRefusedError for an operator that is not in the table, and for arrays that do not
    fit it or would grow beyond bounds."""
    if node.operator not in FOLDS:
        raise ImportRefusedError(f"computes with constants alone; supported there: {', '.join(FOLDS)}")
    try:
        with np.errstate(all="ignore"):
            return np.asarray(FOLDS[node.operator](node, arrays))
    except (
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        ZeroDivisionError,
        KeyError,
        MemoryError,
    ) as error:
        raise ImportRefusedError(f"does not fit its constants: {' '.join(str(error).split())[:100]}") from None


def axes_of(node: OnnxNode, arrays: Sequence[Array | None], at: int = 1) -> list[int] | None:
    """`axes`, an attribute of older operators and an input of newer ones; None if there are none."""
    if "axes" in node.attributes:
        return [int(axis) for axis in node.attributes["axes"]]
    array = arrays[at] if len(arrays) > at else None
    return None if array is None else [int(axis) for axis in array.ravel()]


def _constant(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    """`value` is an array; newer ones have a number or a list instead."""
    for key, dtype in (("value_int", np.int64), ("value_ints", np.int64), ("value_float", np.float32)):
        if key in node.attributes:
            return np.asarray(node.attributes[key], dtype)
    if "value_floats" in node.attributes:
        return np.asarray(node.attributes["value_floats"], np.float32)
    return np.asarray(node.attributes["value"])


def _bounded(shape: Sequence[int], arrays: Sequence[Array]) -> None:
    if math.prod(shape) > _MOST_VALUES + sum(array.size for array in arrays):
        raise ValueError(f"a constant of shape {tuple(shape)} is larger than any network needs")


def _elementwise(function: Callable[..., Array]) -> Fold:
    def folded(node: OnnxNode, arrays: Sequence[Array]) -> Array:
        _bounded(np.broadcast_shapes(*(array.shape for array in arrays)), arrays)
        return function(*arrays)

    return folded


def _divide(a: Array, b: Array) -> Array:
    """Integers are divided towards 0, as in C."""
    if a.dtype.kind in "iu":
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)), a.dtype)
    return np.asarray(a / b)


def _cast(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    return arrays[0].astype(_TYPES[node.attributes["to"]])


def _gather(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    axis = node.attributes.get("axis", 0)
    _bounded((arrays[1].size, arrays[0].size // max(arrays[0].shape[axis], 1)), arrays)
    return np.take(arrays[0], arrays[1], axis)


def _reshape(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    return arrays[0].reshape(full_shape(arrays[0].shape, arrays[1], node.attributes.get("allowzero", 0)))


def full_shape(shape: Sequence[int], target: Array, allow_zero: int = 0) -> tuple[int, ...]:
    """`target` with 0 replaced by the size at its place, unless they are allowed, and -1 by what is left."""
    sizes = [int(size) for size in target.ravel()]
    if not allow_zero:
        sizes = [shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0:
        sizes[sizes.index(-1)] = math.prod(shape) // known
    if min(sizes, default=1) < 0 or math.prod(sizes) != math.prod(shape):
        raise ValueError(f"{tuple(shape)} cannot be given the shape {target.ravel().tolist()}")
    return tuple(sizes)


def _squeeze(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    axes = axes_of(node, arrays)
    return np.squeeze(arrays[0], None if axes is None else tuple(axes))


def _unsqueeze(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    return np.expand_dims(arrays[0], tuple(axes_of(node, arrays) or ()))


def _slice(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    if "starts" in node.attributes:
        starts, ends = node.attributes["starts"], node.attributes["ends"]
        axes, steps = node.attributes.get("axes"), None
    else:
        starts, ends = (array.ravel().tolist() for array in arrays[1:3])
        axes, steps = (array if array is None else array.ravel().tolist() for array in (*arrays[3:5], None, None)[:2])
    parts = [slice(None)] * arrays[0].ndim
    for start, end, axis, step in zip(
        starts, ends, axes or range(len(starts)), steps or [1] * len(starts), strict=True
    ):
        parts[axis] = slice(start, None if step < 0 and end < -arrays[0].shape[axis] else end, step)
    return arrays[0][tuple(parts)]


def _constant_of_shape(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    shape = [int(size) for size in arrays[0].ravel()]
    _bounded(shape, arrays)
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))
    return np.full(shape, value.ravel()[0], value.dtype)


def _expand(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    shape = np.broadcast_shapes(arrays[0].shape, tuple(int(size) for size in arrays[1].ravel()))
    _bounded(shape, arrays)
    return np.broadcast_to(arrays[0], shape)


def _tile(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    repeats = [int(number) for number in arrays[1].ravel()]
    _bounded([arrays[0].size, *repeats], arrays)
    return np.tile(arrays[0], repeats)


def _range(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    start, limit, step = (array.ravel()[0].item() for array in arrays)
    _bounded([max(0, math.ceil((limit - start) / step))], arrays)
    return np.arange(start, limit, step, dtype=arrays[0].dtype)


def _reduce_product(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    axes = axes_of(node, arrays)
    keep = bool(node.attributes.get("keepdims", 1))
    product = np.prod(arrays[0], None if axes is None else tuple(axes), keepdims=keep, dtype=arrays[0].dtype)
    return np.asarray(product)


def _concatenate(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    return np.concatenate(list(arrays), node.attributes["axis"])


def _transpose(node: OnnxNode, arrays: Sequence[Array]) -> Array:
    return arrays[0].transpose(node.attributes.get("perm", list(range(arrays[0].ndim))[::-1]))


FOLDS: Mapping[str, Fold] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Shape": lambda node, arrays: np.asarray(
        arrays[0].shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64
    ),
    "Size": lambda node, arrays: np.asarray(arrays[0].size, np.int64),
    "Identity": lambda node, arrays: arrays[0],
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concatenate,
    "Slice": _slice,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Flatten": lambda node, arrays: arrays[0].reshape(math.prod(arrays[0].shape[: node.attributes.get("axis", 1)]), -1),
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "ReduceProd": _reduce_product,
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide),
    "Min": _elementwise(lambda *arrays: np.asarray(np.minimum.reduce(np.broadcast_arrays(*arrays)))),
    "Max": _elementwise(lambda *arrays: np.asarray(np.maximum.reduce(np.broadcast_arrays(*arrays)))),
    "Pow": _elementwise(lambda a, b: np.asarray(np.power(a, b), a.dtype)),
    "Neg": _elementwise(np.negative),
    "Abs": _elementwise(np.abs),
    "Sqrt": _elementwise(np.sqrt),
    "Reciprocal": _elementwise(np.reciprocal),
    "Floor": _elementwise(np.floor),
    "Ceil": _elementwise(np.ceil),
    "Not": _elementwise(np.logical_not),
    "Equal": _elementwise(np.equal),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "And": _elementwise(np.logical_and),
    "Or": _elementwise(np.logical_or),
    "Where": _elementwise(np.where),
}
