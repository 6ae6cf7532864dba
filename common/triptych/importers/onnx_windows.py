"""ONNX's convolutions and pools. Padding is each side's own, and the odd row of SAME lies where `auto_pad` says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from triptych.importers.moves import over_channels
from triptych.importers.network_builder import Tensor
from triptych.importers.onnx_call import Array, Convert, OnnxCall
from triptych.importers.same_padding import Sides, avg_pool, max_pool, padded, same, without_end
from triptych.importers.steps import ImportRefusedError
from triptych.importers.torch_maps import pooled_channels, pooled_rows
from triptych.spec.layers import (
    Affine,
    AvgPool,
    Conv,
    ConvTranspose,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool,
    Pair,
)

_AUTO_PAD = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def conv(call: OnnxCall) -> Tensor:
    """`Conv`."""
    weight, bias = _weight(call), call.constant(2, "bias")
    kernel = call.pair("kernel_shape", (weight.shape[2], weight.shape[3]))
    stride, dilation = call.pair("strides", (1, 1)), call.pair("dilations", (1, 1))
    x, padding = padded(call.network, call.name, _map(call), _sides(call, kernel, stride, dilation))
    layer = Conv(
        call.name, weight.shape[0], kernel, stride, padding, call.count("group", 1), bias is not None, dilation
    )
    return call.network.layer(call.name, layer, x, _arrays(weight, bias))


def conv_transpose(call: OnnxCall) -> Tensor:
    """`ConvTranspose`. What `pads` cut off at the end beyond what they cut off at the start is a slice."""
    weight, bias = _weight(call), call.constant(2, "bias")
    kernel = call.pair("kernel_shape", (weight.shape[2], weight.shape[3]))
    stride, dilation = call.pair("strides", (1, 1)), call.pair("dilations", (1, 1))
    extra, groups = call.pair("output_padding", (0, 0)), call.count("group", 1)
    sides = _transposed_sides(call, kernel, stride, dilation, extra)
    missing = [e + first - last for e, first, last in zip(extra, sides[::2], sides[1::2], strict=True)]
    layer = ConvTranspose(
        call.name,
        weight.shape[1] * groups,
        kernel,
        stride,
        (sides[0], sides[2]),
        (max(missing[0], 0), max(missing[1], 0)),
        groups,
        bias is not None,
        dilation,
    )
    y = call.network.layer(call.name, layer, _map(call), _arrays(weight, bias))
    return without_end(call.network, call.name, y, (max(-missing[0], 0), max(-missing[1], 0)))


def _transposed_sides(call: OnnxCall, kernel: Pair, stride: Pair, dilation: Pair, extra: Pair) -> Sides:
    """What is cut off each side. Where an output size is asked for, the odd row is cut off at the start, with
    SAME_UPPER at the end; rows that are missing are added there."""
    wanted = call.numbers("output_shape", None)
    same_size = call.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    if same_size:
        wanted = [size * s for size, s in zip(_map(call).shape[1:], stride, strict=True)]
    if wanted is None:
        return _sides(call, kernel, stride, dilation)
    sides: list[int] = []
    for size, k, s, d, e, target in zip(
        _map(call).shape[1:], kernel, stride, dilation, extra, wanted[-2:], strict=True
    ):
        total = (size - 1) * s + (k - 1) * d + 1 + e - target
        if same_size and total < 0:  # onnxruntime gives fewer rows than ONNX says
            raise ImportRefusedError(f"asks for {target} rows or columns, of which {-total} see no kernel; use pads")
        start = max(total // 2 if call.get("auto_pad", "NOTSET") == "SAME_UPPER" else -(-total // 2), 0)
        sides += [start, total - start]
    call.get("pads", None)
    return sides[0], sides[1], sides[2], sides[3]


def max_pooling(call: OnnxCall) -> Tensor:
    """`MaxPool`; its second output, the places, must not be used."""
    call.get("storage_order", 0)
    kernel, stride, sides, ceil = _pool(call)
    return max_pool(call.network, call.name, _map(call), kernel, stride, sides, ceil=ceil)


def average_pooling(call: OnnxCall) -> Tensor:
    """`AveragePool`."""
    counted = bool(call.count("count_include_pad", 0))
    kernel, stride, sides, ceil = _pool(call)
    return avg_pool(call.network, call.name, _map(call), kernel, stride, sides, count_padding=counted, ceil=ceil)


def _pool(call: OnnxCall) -> tuple[Pair, Pair, Sides, bool]:
    kernel, stride = call.pair("kernel_shape", (0, 0)), call.pair("strides", (1, 1))
    if call.pair("dilations", (1, 1)) != (1, 1):
        raise ImportRefusedError("has dilations, which no pool of the spec has")
    return kernel, stride, _sides(call, kernel, stride, (1, 1)), bool(call.count("ceil_mode", 0))


def global_pooling(pool: type[GlobalAvgPool | GlobalMaxPool], call: OnnxCall) -> Tensor:
    """`GlobalAveragePool`, `GlobalMaxPool`."""
    return call.network.layer(call.name, pool(call.name), call.x)


def reduction(
    whole: type[GlobalAvgPool | GlobalMaxPool], pool: type[AvgPool | MaxPool], summed: bool, call: OnnxCall
) -> Tensor:
    """`ReduceMean`, `ReduceMax`, `ReduceSum`: over rows and columns, or one of them."""
    x, axes = call.x, call.axes()
    keep = bool(call.count("keepdims", 1))
    call.count("noop_with_empty_axes", 0)
    kept = tuple(1 if axis in (axes or ()) else size for axis, size in enumerate(x.source_shape))
    shape = kept if keep else tuple(size for axis, size in enumerate(x.source_shape) if axis not in (axes or ()))
    if axes and (channels := pooled_channels(x.places(), x.shape, axes, shape)) is not None:
        layers = (*over_channels(pool, x.shape), *[Affine("sum", (float(x.shape[0]),))] * summed)
        y = call.network.row(call.name, layers, Tensor(x.step, x.shape))
        return call.network.rearranged(f"{call.name}_reshape", y, channels)
    found = pooled_rows(x.places(), x.shape, axes, shape) if axes else None
    if found is None:
        raise ImportRefusedError(
            f"reduces axes {axes} of {x.source_shape} (without the batch), expected rows, columns, both, or channels"
        )
    kernel, order = found
    layer = whole(call.name) if kernel == x.shape[1:] else pool(call.name, kernel, kernel)
    y = call.network.layer(f"{call.name}_mean" if summed else call.name, layer, Tensor(x.step, x.shape))
    if summed:
        y = call.network.pointwise(call.name, Affine(call.name, (float(math.prod(kernel)),)), y)
    return call.network.rearranged(f"{call.name}_flatten", y, order)


def _weight(call: OnnxCall) -> Array:
    weight = call.needed(1, "weight")
    if weight.ndim != 4:
        raise ImportRefusedError(f"has a weight of shape {weight.shape}, expected four axes: it is no 2-D convolution")
    return weight


def _map(call: OnnxCall) -> Tensor:
    x = call.network.canonical(call.x, f"{call.name}_reshape")
    if len(x.shape) != 3:
        raise ImportRefusedError(f"takes an input of shape {x.shape} (without the batch), expected a map")
    return x


def _arrays(weight: Array, bias: Array | None) -> dict[str, Array]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _sides(call: OnnxCall, kernel: Pair, stride: Pair, dilation: Pair) -> Sides:
    """`pads` are the starts of all axes, then the ends."""
    auto_pad = call.text("auto_pad", "NOTSET", _AUTO_PAD)
    pads = call.numbers("pads", [0, 0, 0, 0]) or []
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return same(_map(call).shape, kernel, stride, dilation, lower=auto_pad == "SAME_LOWER")
    if auto_pad == "VALID":
        return 0, 0, 0, 0
    if len(pads) != 4 or not all(0 <= pad < 1 << 31 for pad in pads):
        raise ImportRefusedError(f"has pads {pads[:9]}, expected four numbers from 0: above, left, below, right")
    return pads[0], pads[2], pads[1], pads[3]


CONVERTERS: Mapping[str, Convert] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pooling,
    "AveragePool": average_pooling,
    "GlobalAveragePool": partial(global_pooling, GlobalAvgPool),
    "GlobalMaxPool": partial(global_pooling, GlobalMaxPool),
    "ReduceMean": partial(reduction, GlobalAvgPool, AvgPool, False),
    "ReduceMax": partial(reduction, GlobalMaxPool, MaxPool, False),
    "ReduceSum": partial(reduction, GlobalAvgPool, AvgPool, True),
}
