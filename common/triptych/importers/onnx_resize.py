"""ONNX's operators that make maps larger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from triptych.importers.network_builder import Tensor, axes_of, with_axes
from triptych.importers.onnx_call import Array, Convert, OnnxCall
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import Upsample

_SAME_AS_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")  # of sizes that are multiples


def resize(call: OnnxCall) -> Tensor:
    """`Resize` and `Upsample` by whole factors, where the result is the spec's: values repeated, or linear between
    the pixels' centres."""
    x, axes = call.x, axes_of(call.x)
    modern = call.node.operator == "Resize" and call.opset >= 11
    mode = call.text("mode", "nearest", ("nearest", "linear"))
    coordinates = call.get("coordinate_transformation_mode", "half_pixel") if modern else "asymmetric"
    rounding = call.get("nearest_mode", "round_prefer_floor") if modern else "floor"
    for key in ("cubic_coeff_a", "exclude_outside", "extrapolation_value", "keep_aspect_ratio_policy"):
        call.get(key, None)  # of other modes
    if call.count("antialias", 0):
        raise ImportRefusedError("has antialias, which makes no difference upwards; export it without")
    factors = _factors(call, modern)
    if len(x.shape) != 3 or factors.get(-1, 1) != 1 or factors.get(axes.index(0), 1) != 1:
        raise ImportRefusedError(f"resizes images or channels of {x.source_shape}, expected rows and columns alone")
    factor = (factors.get(axes.index(1), 1), factors.get(axes.index(2), 1))
    if factor == (1, 1):
        return x
    for size, times in zip(x.shape[1:], factor, strict=True):
        if not _as_the_spec(size, times, mode, coordinates, rounding):
            raise ImportRefusedError(
                f"is {mode} with coordinates {str(coordinates)[:30]!r} ({str(rounding)[:30]}), which is not what the "
                "spec's Upsample does; supported: nearest where each value is repeated, linear with half_pixel"
            )
    repeated = mode == "nearest" or all(1 in pair for pair in zip(x.shape[1:], factor, strict=True))
    layer = Upsample(call.name, factor, "nearest" if repeated else "bilinear")
    return with_axes(call.network.layer(call.name, layer, Tensor(x.step, x.shape)), axes)


def _factors(call: OnnxCall, modern: bool) -> dict[int, int]:
    """By the axis without the batch (-1 is the batch): how many times as large."""
    shape = (call.batch, *call.x.source_shape)
    axes = call.numbers("axes", None) or list(range(len(shape)))
    scales = call.get("scales", None) or _floats(call.constant(2 if modern else 1, "scales"))
    sizes = [] if scales else _floats(call.constant(3, "sizes"))
    if len(scales or sizes) != len(axes) or not all(-len(shape) <= axis < len(shape) for axis in axes):
        raise ImportRefusedError(f"has {len(scales or sizes)} scales or sizes for {len(axes)} axes")
    wanted = scales or [new / shape[axis] for new, axis in zip(sizes, axes, strict=True)]
    if any(factor != round(factor) or not 1 <= factor < 1 << 16 for factor in wanted):
        raise ImportRefusedError(f"resizes by {wanted[:9]}, expected whole factors")
    return {axis % len(shape) - 1: round(factor) for axis, factor in zip(axes, wanted, strict=True)}


def _floats(array: Array | None) -> Sequence[float]:
    return [] if array is None else array.ravel().astype(float).tolist()


def _as_the_spec(size: int, times: int, mode: str, coordinates: object, rounding: object) -> bool:
    """Whether the operator takes, for every place of the output, what the spec's `Upsample` takes."""
    if 1 in (times, size):  # of one value every way repeats it
        return True
    if mode == "linear":
        return coordinates in _SAME_AS_HALF_PIXEL
    places = np.arange(size * times)
    at = {"asymmetric": places / times, "half_pixel": (places + 0.5) / times - 0.5}.get(
        "half_pixel" if coordinates in _SAME_AS_HALF_PIXEL else str(coordinates)
    )
    if at is None:
        return False
    rounded = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
    }.get(str(rounding), at)
    taken = np.clip(rounded, 0, size - 1)
    return np.array_equal(places // times, taken)


CONVERTERS: Mapping[str, Convert] = dict.fromkeys(("Resize", "Upsample"), resize)
