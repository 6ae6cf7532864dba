"""What MXNet's pools are in the spec, and where its conventions have no place there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from triptych.importers.mxnet_calls import SymbolCall
from triptych.importers.mxnet_layers import Convert
from triptych.importers.mxnet_tensors import SymbolTensor
from triptych.spec.kinds.windows import pooled_size
from triptych.spec.layers import Affine, AvgPool, GlobalAvgPool, GlobalMaxPool, Layer, MaxPool, Pair

_POOLS = ("max", "avg", "sum")


def _pooling(call: SymbolCall) -> SymbolTensor:
    values = call.node.values
    if "layout" in values:
        call.need_channels_first()
    if values.get("output_size") is not None:
        raise call.refused("has an output_size, and only pools with a kernel are taken")
    if call.text("pool_type") not in _POOLS:
        raise call.refused(f"has the pool_type {call.text('pool_type')}, and only {', '.join(_POOLS)} are taken")
    return _global_pool(call) if call.integer("global_pool") else _windowed_pool(call)


def _global_pool(call: SymbolCall) -> SymbolTensor:
    if call.text("pool_type") == "max":
        return call.add(GlobalMaxPool(""), call.image())
    if call.text("pool_type") == "avg":
        return call.add(GlobalAvgPool(""), call.image())
    return _as_sum(call, GlobalAvgPool(""), math.prod(call.image().shape[1:]))


def _as_sum(call: SymbolCall, mean: Layer, number: int) -> SymbolTensor:
    """A sum is the mean times the number of its terms."""
    return call.add(Affine("", (float(number),)), call.add(mean, call.image(), part="mean"))


def _windowed_pool(call: SymbolCall) -> SymbolTensor:
    kernel, stride, padding, kind = call.pair("kernel"), call.pair("stride"), call.pair("pad"), call.text("pool_type")
    convention, sizes = call.text("pooling_convention"), call.image().shape[1:]
    if convention == "same":
        raise call.refused("has the pooling_convention same, which MXNet has for sequences alone")
    ceil = convention == "full"
    hangs_over = ceil and _need_windows_within(call, sizes, kernel, stride, padding)
    if kind == "max":
        return call.add(MaxPool("", kernel, stride, padding, ceil), call.image())
    counted = call.node.values.get("count_include_pad") in (None, True)
    if hangs_over and (kind == "sum" or call.node.operator == "Pooling_v1"):
        raise call.refused("has windows that hang over the edge, and counts in its mean what lies there")
    if kind == "avg":
        return call.add(AvgPool("", kernel, stride, padding, ceil, counted), call.image())
    return _as_sum(call, AvgPool("", kernel, stride, padding, ceil), math.prod(kernel))


def _need_windows_within(call: SymbolCall, sizes: Sequence[int], kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """Whether the convention `full` has windows that hang over the lower or right edge. Refuses windows that lie wholly
    in the padding there: the spec leaves them out, MXNet gives the smallest of all numbers for their maximum."""
    hangs_over = False
    for size, k, s, p in zip(sizes, kernel, stride, padding, strict=True):
        spans = size + 2 * p - k
        if spans >= 0 and -(-spans // s) + 1 != pooled_size(size, k, s, p, ceil=True):
            raise call.refused("has pooling_convention=full with windows that lie wholly outside of its input")
        hangs_over |= spans % s != 0
    return hangs_over


def _adaptive_pool(call: SymbolCall) -> SymbolTensor:
    size, given = call.integers("output_size") or (1,), call.image()
    rows, columns = (size[0], size[-1]) if len(size) < 3 else (0, 0)
    if (rows, columns) == (1, 1):
        return call.add(GlobalAvgPool(""), given)
    if min(rows, columns) < 1 or given.shape[1] % rows or given.shape[2] % columns:
        raise call.refused(f"has the output_size {size}, which does not divide {given.shape[1]}x{given.shape[2]}")
    kernel = (given.shape[1] // rows, given.shape[2] // columns)
    return call.add(AvgPool("", kernel, kernel), given)


POOLS: Mapping[str, Convert] = {
    "Pooling": _pooling,
    "Pooling_v1": _pooling,
    "_contrib_AdaptiveAvgPooling2D": _adaptive_pool,
}
