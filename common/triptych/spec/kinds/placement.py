"""Layers that move values and compute none: padding, slices, repetition, other orders and shapes."""

import math

from triptych.spec.kinds.kind import Kind, SpecError, Window, as_is, no_arrays, no_macs, one_place
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass
from triptych.spec.kinds.windows import need_map, whole_map
from triptych.spec.layers import ChannelShuffle, Flatten, Pad, Pair, Reshape, Shape, Slice, Upsample
from triptych.utils.arrays import Array, Arrays
from triptych.utils.lazy import np

AXES = {"channels": 0, "rows": 1, "columns": 2}


def _padded(layer: Pad, shape: Shape, path: str) -> Shape:
    need_map(shape, path)
    above, below, left, right = layer.padding
    least = 0 if layer.mode == "constant" else 1
    if min(layer.padding) < 0:
        raise SpecError(path, f"its padding {layer.padding} must be at least 0")
    if layer.mode == "reflect" and (max(above, below) > shape[1] - least or max(left, right) > shape[2] - least):
        raise SpecError(path, f"cannot reflect {layer.padding} rows and columns of a {shape[1]}x{shape[2]} map")
    return (shape[0], shape[1] + above + below, shape[2] + left + right)


def _pad(layer: Pad, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    above, below, left, right = layer.padding
    if layer.mode == "constant":
        y = np.pad(x, ((0, 0), (0, 0), (above, below), (left, right)), constant_values=layer.value)
        inside = (..., slice(above, above + x.shape[2]), slice(left, left + x.shape[3]))
        return LayerPass(y, lambda dy: (dy[inside], {}))
    rows = np.eye(x.shape[2])[np.pad(np.arange(x.shape[2]), (above, below), layer.mode)]
    columns = np.eye(x.shape[3])[np.pad(np.arange(x.shape[3]), (left, right), layer.mode)]

    def backward(dy: Array) -> tuple[Array, Gradients]:
        return conditions.rounding(rows.T @ dy @ columns, 1 + max(layer.padding)), {}

    return LayerPass(rows @ x @ columns.T, backward)


def _sliced(layer: Slice, shape: Shape, path: str) -> Shape:
    axis = AXES[layer.axis]
    if axis >= len(shape):
        raise SpecError(path, f"cannot slice {layer.axis} of a flat input {shape}")
    if not 0 <= layer.start < layer.stop <= shape[axis]:
        raise SpecError(path, f"there are no {layer.axis} {layer.start} to {layer.stop} in {shape}")
    return (*shape[:axis], layer.stop - layer.start, *shape[axis + 1 :])


def _slice(layer: Slice, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    part = (*(slice(None),) * (AXES[layer.axis] + 1), slice(layer.start, layer.stop))

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dx = np.zeros_like(x)
        dx[part] = dy
        return dx, {}

    return LayerPass(x[part], backward)


def _upsampled(layer: Upsample, shape: Shape, path: str) -> Shape:
    need_map(shape, path)
    if min(layer.factor) < 1:
        raise SpecError(path, f"its factor {layer.factor} must be at least 1")
    return (shape[0], shape[1] * layer.factor[0], shape[2] * layer.factor[1])


def interpolation(size: int, factor: int, mode: str) -> Array:
    """The matrix `(size * factor, size)` that upsamples one axis; every row sums to 1."""
    rows, places = np.arange(size * factor), np.arange(size * factor) // factor
    matrix = np.zeros((size * factor, size))
    if mode == "nearest":
        matrix[rows, places] = 1.0
        return matrix
    centres = np.clip((rows + 0.5) / factor - 0.5, 0, size - 1)
    lower = np.floor(centres).astype(int)
    np.add.at(matrix, (rows, lower), 1 - (centres - lower))
    np.add.at(matrix, (rows, np.minimum(lower + 1, size - 1)), centres - lower)
    return matrix


def _upsample(layer: Upsample, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding, area = conditions.rounding, math.prod(layer.factor)
    down = interpolation(x.shape[2], layer.factor[0], layer.mode)
    across = interpolation(x.shape[3], layer.factor[1], layer.mode)
    y: Array = down @ x @ across.T
    return LayerPass(
        y if layer.mode == "nearest" else rounding(y, 4), lambda dy: (rounding(down.T @ dy @ across, 4 * area), {})
    )


def _place_at_larger(layer: Upsample | Pad, shape: Shape) -> Window:
    """Receptive field: a value sees one place (two by two at most where it is interpolated); the stride in input
    pixels, which would be a fraction behind an upsampling, stays."""
    return (1, 1), (1, 1)


def _groups_divide(layer: ChannelShuffle, shape: Shape, path: str) -> Shape:
    need_map(shape, path)
    if layer.groups < 1 or shape[0] % layer.groups:
        raise SpecError(path, f"{layer.groups} groups do not divide {shape[0]} channels")
    return shape


def _shuffle(layer: ChannelShuffle, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    order = np.arange(x.shape[1]).reshape(layer.groups, -1).T.ravel()
    back = np.argsort(order)
    return LayerPass(x[:, order], lambda dy: (dy[:, back], {}))


def _reshaped(layer: Reshape, shape: Shape, path: str) -> Shape:
    if len(layer.shape) not in (1, 3) or min(layer.shape) < 1 or math.prod(layer.shape) != math.prod(shape):
        raise SpecError(path, f"cannot give {shape} the shape {layer.shape}")
    return layer.shape


def _reshape(layer: Reshape | Flatten, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    shape = layer.shape if isinstance(layer, Reshape) else (-1,)
    return LayerPass(x.reshape(len(x), *shape), lambda dy: (dy.reshape(x.shape), {}))


def _flat(layer: Flatten, shape: Shape, path: str) -> Shape:
    return (math.prod(shape),)


def _left_out(layer: Flatten, shape: Shape, flattened: Pair) -> tuple[None, Pair]:
    """The next dense layer becomes a convolution over the map; a flat input was flattened before."""
    return None, (shape[1], shape[2]) if len(shape) == 3 else flattened


KINDS = (
    Kind(Pad, _padded, no_macs, _place_at_larger, no_arrays, _pad, as_is, training_only=False),
    Kind(Slice, _sliced, no_macs, one_place, no_arrays, _slice, as_is, training_only=False),
    Kind(Upsample, _upsampled, no_macs, _place_at_larger, no_arrays, _upsample, as_is, training_only=False),
    Kind(ChannelShuffle, _groups_divide, no_macs, one_place, no_arrays, _shuffle, as_is, training_only=False),
    Kind(Reshape, _reshaped, no_macs, whole_map, no_arrays, _reshape, as_is, training_only=False),
    Kind(Flatten, _flat, no_macs, whole_map, no_arrays, _reshape, _left_out, training_only=False),
)
