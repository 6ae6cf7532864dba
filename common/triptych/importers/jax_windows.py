"""Convolutions and pools of JAX: windows with an amount of padding on each side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.jax_program import Constant, JaxCall
from triptych.importers.network_builder import Tensor, with_axes
from triptych.importers.same_padding import Sides, avg_pool, padded, without_end
from triptych.importers.same_padding import max_pool as padded_max_pool
from triptych.spec.layers import Conv, ConvTranspose

if TYPE_CHECKING:
    from triptych.importers.jax_walk import JaxWalk

Pairs = tuple[int, int]


def _pair(values: Any) -> Pairs:
    return int(values[0]), int(values[1])


def _sides(padding: Any) -> Sides:
    (above, below), (left, right) = padding
    return int(above), int(below), int(left), int(right)


def conv(walk: JaxWalk, call: JaxCall, values: list[Any], layer: Callable[..., Tensor]) -> Tensor:
    """`layer` adds a convolution with its weight. Of a transposed one the kernel is turned round here, and not in the
    spec, and the axes of its inputs and outputs are exchanged; what its padding cuts off at the end beyond what it cuts
    off at the start, as SAME does, is a slice."""
    value, weight = values
    params, numbers = call.params, call.params["dimension_numbers"]
    if not isinstance(weight, Constant) or np.ndim(weight.value) != 4 or params["batch_group_count"] != 1:
        raise walk.refused(call, "is no convolution in two dimensions with a constant kernel")
    array = np.asarray(weight.value).transpose(numbers.rhs_spec)
    x = walk.settled(call, value, _positions(walk, call, numbers.lhs_spec))
    kernel, stride, dilation = _pair(array.shape[2:]), _pair(params["window_strides"]), _pair(params["rhs_dilation"])
    groups, sides, spread = params["feature_group_count"], _sides(params["padding"]), _pair(params["lhs_dilation"])
    beyond = (0, 0)
    if spread == (1, 1):
        if min(sides) < 0:
            raise walk.refused(call, f"has the padding {sides}; expected 0 or more")
        x, padding = padded(walk.network, walk.name(call), x, sides)
        record: Conv | ConvTranspose = Conv("", len(array), kernel, stride, padding, groups, False, dilation)
    else:
        array = array.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = (reach[0] - sides[0], reach[1] - sides[2])
        missing = (sides[1] - sides[0], sides[3] - sides[2])
        extra, beyond = (max(missing[0], 0), max(missing[1], 0)), (max(-missing[0], 0), max(-missing[1], 0))
        if stride != (1, 1) or groups != 1 or min(padding) < 0 or any(map(int.__ge__, extra, spread)):
            raise walk.refused(
                call,
                f"is a transposed convolution of stride {spread} with padding {sides} that no layer of the spec does",
            )
        record = ConvTranspose("", array.shape[1], kernel, spread, padding, extra, 1, False, dilation)
    made = without_end(walk.network, walk.name(call), layer(walk, call, record, x, array, weight), beyond)
    return with_axes(made, tuple(int(a) for a in np.argsort(_positions(walk, call, numbers.out_spec))))


def _positions(walk: JaxWalk, call: JaxCall, spec: Any) -> tuple[int, ...]:
    """Which axes of one image are channels, rows and columns."""
    if spec[0] != 0:
        raise walk.refused(call, "has the images on another axis than the first")
    return tuple(int(axis) - 1 for axis in spec[1:])


def _windows(walk: JaxWalk, call: JaxCall, value: Any) -> tuple[Tensor, tuple[int, ...], Pairs, Pairs, Sides]:
    """The map, its axes, and the windows of a pool."""
    params = call.params
    x = walk.tensor(call, value)
    rank = len(x.source_shape)
    plain = {*params["base_dilation"], *params["window_dilation"]} == {1}
    axes = walk.axes(x) if rank == 3 else ()
    still = [0, *(axis + 1 for axis in axes[:1])]
    fixed = all(
        (params["window_dimensions"][a], params["window_strides"][a], *params["padding"][a]) == (1, 1, 0, 0)
        for a in still
    )
    if rank != 3 or not plain or not fixed:
        raise walk.refused(
            call, f"has windows of {params['window_dimensions']}; expected rows and columns, without dilation"
        )
    rows, columns = axes[1] + 1, axes[2] + 1
    kernel, stride = (
        (int(params[key][rows]), int(params[key][columns])) for key in ("window_dimensions", "window_strides")
    )
    sides = _sides((params["padding"][rows], params["padding"][columns]))
    return walk.settled(call, x, axes), axes, kernel, stride, sides


def max_pool(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """With any padding, which never wins."""
    x, axes, kernel, stride, sides = _windows(walk, call, values[0])
    made = padded_max_pool(walk.network, walk.name(call), x, kernel, stride, sides)
    return with_axes(made, tuple(int(axis) for axis in np.argsort(axes)))


def window_sum(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Any:
    """Becomes a mean by the division that follows."""
    from triptych.importers.jax_walk import Total

    x, axes, kernel, stride, sides = _windows(walk, call, values[0])
    turned = tuple(int(axis) for axis in np.argsort(axes))
    shape = tuple(call.shape[axis + 1] for axis in axes)
    rows, columns = (_inside(x.shape[1 + a], kernel[a], stride[a], sides[2 * a], shape[1 + a]) for a in range(2))
    inside = np.broadcast_to(np.outer(rows, columns), shape).transpose(turned)

    def pool(name: str, count_padding: bool) -> Tensor:
        return avg_pool(walk.network, name, x, kernel, stride, sides, count_padding=count_padding)

    return Total(pool, np.arange(math.prod(shape)).reshape(shape).transpose(turned), math.prod(kernel), inside)


def _inside(size: int, kernel: int, stride: int, before: int, count: int) -> NDArray[np.intp]:
    """How many places of each window along one axis are no padding."""
    starts = np.arange(count) * stride - before
    return np.minimum(starts + kernel, size) - np.maximum(starts, 0)
