"""Keras's layers that slide windows over a map, pad it or repeat its pixels. Kernels are HWIO in its files and OIHW in
the spec; SAME has the odd row at the end."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from triptych.importers.keras_activations import activated
from triptych.importers.keras_call import Build, LayerCall, names_of_arrays
from triptych.importers.network_builder import Tensor
from triptych.importers.same_padding import Sides, avg_pool, max_pool, padded, same
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import (
    Conv,
    ConvTranspose,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Pad,
    Pair,
    Slice,
    Upsample,
)

_HWIO_TO_OIHW = (3, 2, 0, 1)  # also HWOI, of a transposed convolution, to the spec's (inputs, outputs, ...)


def _window(call: LayerCall, kernel: Pair) -> tuple[Pair, Pair, Sides]:
    """Strides, dilation, and the padding on each side."""
    stride, dilation = call.pair("strides", (1, 1)), call.pair("dilation_rate", (1, 1))
    if call.choice("padding", ("valid", "same"), "valid") == "valid":
        return stride, dilation, (0, 0, 0, 0)
    return stride, dilation, same(call.map.shape, kernel, stride, dilation)


def _conv(call: LayerCall) -> Tensor:
    kernel, groups = call.pair("kernel_size"), call.count("groups", 1)
    stride, dilation, sides = _window(call, kernel)
    arrays = call.weights(*names_of_arrays(call, "kernel"))
    weight = _four_axes(arrays.pop("kernel")).transpose(_HWIO_TO_OIHW)
    x, padding = padded(call.network, call.name, call.map, sides)
    layer = Conv(call.name, call.count("filters"), kernel, stride, padding, groups, "bias" in arrays, dilation)
    return activated(call, call.network.layer(call.name, layer, x, {"weight": weight, **arrays}))


def _depthwise_conv(call: LayerCall) -> Tensor:
    arrays = call.weights(*names_of_arrays(call, "kernel"))
    return activated(call, _depthwise(call, call.name, arrays.pop("kernel"), arrays))


def _depthwise(call: LayerCall, name: str, kernel_array: Any, arrays: Mapping[str, Any]) -> Tensor:
    """Keras's kernel is (rows, columns, inputs, multiplier), and output `input * multiplier + m` is input's m-th."""
    kernel = call.pair("kernel_size")
    _check_groups(call)
    stride, dilation, sides = _window(call, kernel)
    inputs = call.map.shape[0]
    channels = inputs * call.count("depth_multiplier", 1)
    if kernel_array.shape != (*kernel, inputs, channels // inputs):
        raise ImportRefusedError(f"has a kernel {kernel_array.shape}, expected {(*kernel, inputs, channels // inputs)}")
    weight = kernel_array.transpose(2, 3, 0, 1).reshape(channels, 1, *kernel)
    x, padding = padded(call.network, name, call.map, sides)
    layer = Conv(name, channels, kernel, stride, padding, inputs, "bias" in arrays, dilation)
    return call.network.layer(name, layer, x, {"weight": weight, **arrays})


def _separable_conv(call: LayerCall) -> Tensor:
    arrays = call.weights(*names_of_arrays(call, "depthwise_kernel", "pointwise_kernel"))
    x = _depthwise(call, f"{call.name}_depthwise", arrays.pop("depthwise_kernel"), {})
    weight = _four_axes(arrays.pop("pointwise_kernel")).transpose(_HWIO_TO_OIHW)
    name = f"{call.name}_pointwise"
    layer = Conv(name, call.count("filters"), (1, 1), bias="bias" in arrays)
    return activated(call, call.network.layer(name, layer, x, {"weight": weight, **arrays}))


def _conv_transpose(call: LayerCall) -> Tensor:
    """SAME gives `size * stride` rows: what is beyond is cut off, the odd row at the end."""
    kernel, stride = call.pair("kernel_size"), call.pair("strides", (1, 1))
    _check_groups(call)
    if call.get("output_padding") is not None or call.pair("dilation_rate", (1, 1)) != (1, 1):
        raise ImportRefusedError(
            "has output_padding or dilation_rate, which is not supported in a transposed convolution"
        )
    same_size = call.choice("padding", ("valid", "same"), "valid") == "same"
    beyond = [max(k - s, 0) if same_size else 0 for k, s in zip(kernel, stride, strict=True)]
    arrays = call.weights(*names_of_arrays(call, "kernel"))
    weight = _four_axes(arrays.pop("kernel")).transpose(_HWIO_TO_OIHW)
    padding = (beyond[0] // 2, beyond[1] // 2)
    missing = (max(stride[0] - kernel[0], 0), max(stride[1] - kernel[1], 0))
    layer = ConvTranspose(call.name, call.count("filters"), kernel, stride, padding, missing, bias="bias" in arrays)
    y = call.network.layer(call.name, layer, call.map, {"weight": weight, **arrays})
    cut = (0, beyond[0] % 2, 0, beyond[1] % 2)
    return activated(call, _cut(call, f"{call.name}_crop", y, cut))


def _check_groups(call: LayerCall) -> None:
    """TensorFlow's Keras 2 writes `groups` for every class that is derived from a convolution; it computes with 1."""
    if call.count("groups", 1) != 1:
        raise ImportRefusedError(f"has groups {call.count('groups')}, expected 1")


def _cut(call: LayerCall, name: str, x: Tensor, sides: Sides) -> Tensor:
    """Without so many rows above and below, columns left and right."""
    _, height, width = x.shape
    if sides[0] or sides[1]:
        x = call.network.layer(name, Slice(name, "rows", sides[0], height - sides[1]), x)
    if sides[2] or sides[3]:
        x = call.network.layer(name, Slice(name, "columns", sides[2], width - sides[3]), x)
    return x


def _four_axes(kernel: Any) -> Any:
    if kernel.ndim != 4:
        raise ImportRefusedError(f"has a kernel of shape {kernel.shape}, expected four axes")
    return kernel


def _pool(pool: Callable[..., Tensor], call: LayerCall) -> Tensor:
    kernel = call.pair("pool_size", (2, 2))
    stride = call.pair("strides", kernel)
    same_size = call.choice("padding", ("valid", "same"), "valid") == "same"
    sides = same(call.map.shape, kernel, stride) if same_size else (0, 0, 0, 0)
    return pool(call.network, call.name, call.map, kernel, stride, sides)


def _global_pool(pool: type[GlobalAvgPool | GlobalMaxPool], call: LayerCall) -> Tensor:
    y = call.network.layer(call.name, pool(call.name), call.map)
    if call.flag("keepdims", False):
        return y
    return call.network.layer(f"{call.name}_flatten", Flatten(call.name), y)


def _sides(call: LayerCall, key: str) -> Sides:
    """`n`, `(rows, columns)` or `((above, below), (left, right))`."""
    value = call.get(key, 0)
    value = [value, value] if isinstance(value, int) else value
    sides = [[side, side] if isinstance(side, int) else side for side in value] if isinstance(value, list) else []
    flat = [each for side in sides if isinstance(side, list) for each in side]
    if len(flat) != 4 or not all(isinstance(each, int) and 0 <= each < 1 << 20 for each in flat):
        raise ImportRefusedError(f"has a {key} that is no number, pair, or two pairs of whole numbers")
    return flat[0], flat[1], flat[2], flat[3]


def _zero_padding(call: LayerCall) -> Tensor:
    return call.network.layer(call.name, Pad(call.name, _sides(call, "padding")), call.map)


def _cropping(call: LayerCall) -> Tensor:
    return _cut(call, call.name, call.map, _sides(call, "cropping"))


def _upsampling(call: LayerCall) -> Tensor:
    mode = call.choice("interpolation", ("nearest", "bilinear"), "nearest")
    if mode == "bilinear" and call.version < (2, 4):
        raise ImportRefusedError(
            "is bilinear in a file of Keras before 2.4, which did not count from the pixels' centres"
        )
    layer = Upsample(call.name, call.pair("size", (2, 2)), "nearest" if mode == "nearest" else "bilinear")
    return call.network.layer(call.name, layer, call.map)


WINDOWS: Mapping[str, Build] = {
    "Conv2D": _conv,
    "Convolution2D": _conv,
    "DepthwiseConv2D": _depthwise_conv,
    "SeparableConv2D": _separable_conv,
    "Conv2DTranspose": _conv_transpose,
    "MaxPooling2D": partial(_pool, max_pool),
    "AveragePooling2D": partial(_pool, partial(avg_pool, count_padding=False)),
    "GlobalAveragePooling2D": partial(_global_pool, GlobalAvgPool),
    "GlobalMaxPooling2D": partial(_global_pool, GlobalMaxPool),
    "ZeroPadding2D": _zero_padding,
    "Cropping2D": _cropping,
    "UpSampling2D": _upsampling,
}
