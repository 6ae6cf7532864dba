"""Keras's layers and what each is in the spec: one table. Kernels are HWIO in its files and OIHW in the spec."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from triptych.importers.keras_activations import ACTIVATION_LAYERS, activated
from triptych.importers.keras_call import Build, LayerCall, numbers
from triptych.importers.network_builder import Tensor, permuted
from triptych.importers.same_padding import Sides, avg_pool, max_pool, padded, same
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import (
    Affine,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Merge,
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


def _names(call: LayerCall, *kernels: str) -> tuple[str, ...]:
    return (*kernels, "bias") if call.flag("use_bias", True) else kernels


def _conv(call: LayerCall) -> Tensor:
    kernel, groups = call.pair("kernel_size"), call.count("groups", 1)
    stride, dilation, sides = _window(call, kernel)
    arrays = call.weights(*_names(call, "kernel"))
    weight = _four_axes(arrays.pop("kernel")).transpose(_HWIO_TO_OIHW)
    x, padding = padded(call.network, call.name, call.map, sides)
    layer = Conv(call.name, call.count("filters"), kernel, stride, padding, groups, "bias" in arrays, dilation)
    return activated(call, call.network.layer(call.name, layer, x, {"weight": weight, **arrays}))


def _depthwise_conv(call: LayerCall) -> Tensor:
    arrays = call.weights(*_names(call, "kernel"))
    return activated(call, _depthwise(call, call.name, arrays.pop("kernel"), arrays))


def _depthwise(call: LayerCall, name: str, kernel_array: Any, arrays: Mapping[str, Any]) -> Tensor:
    """Keras's kernel is (rows, columns, inputs, multiplier), and output `input * multiplier + m` is input's m-th."""
    kernel = call.pair("kernel_size")
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
    arrays = call.weights(*_names(call, "depthwise_kernel", "pointwise_kernel"))
    x = _depthwise(call, f"{call.name}_depthwise", arrays.pop("depthwise_kernel"), {})
    weight = _four_axes(arrays.pop("pointwise_kernel")).transpose(_HWIO_TO_OIHW)
    name = f"{call.name}_pointwise"
    layer = Conv(name, call.count("filters"), (1, 1), bias="bias" in arrays)
    return activated(call, call.network.layer(name, layer, x, {"weight": weight, **arrays}))


def _conv_transpose(call: LayerCall) -> Tensor:
    """SAME gives `size * stride` rows: what is beyond is cut off, the odd row at the end."""
    kernel, stride = call.pair("kernel_size"), call.pair("strides", (1, 1))
    if call.get("output_padding") is not None or call.pair("dilation_rate", (1, 1)) != (1, 1):
        raise ImportRefusedError(
            "has output_padding or dilation_rate, which is not supported in a transposed convolution"
        )
    same_size = call.choice("padding", ("valid", "same"), "valid") == "same"
    beyond = [max(k - s, 0) if same_size else 0 for k, s in zip(kernel, stride, strict=True)]
    arrays = call.weights(*_names(call, "kernel"))
    weight = _four_axes(arrays.pop("kernel")).transpose(_HWIO_TO_OIHW)
    padding = (beyond[0] // 2, beyond[1] // 2)
    missing = (max(stride[0] - kernel[0], 0), max(stride[1] - kernel[1], 0))
    layer = ConvTranspose(call.name, call.count("filters"), kernel, stride, padding, missing, bias="bias" in arrays)
    y = call.network.layer(call.name, layer, call.map, {"weight": weight, **arrays})
    cut = (0, beyond[0] % 2, 0, beyond[1] % 2)
    return activated(call, _cut(call, f"{call.name}_crop", y, cut))


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


def _dense(call: LayerCall) -> Tensor:
    """The input may be flattened in height-width-channels order; on a map it works at every place by itself."""
    arrays = call.weights(*_names(call, "kernel"))
    kernel = arrays.pop("kernel")
    units, bias = call.count("units"), "bias" in arrays
    if kernel.ndim != 2 or kernel.shape[0] != call.x.shape[0]:
        raise ImportRefusedError(f"has a kernel {kernel.shape} for an input of shape {call.x.source_shape}")
    if len(call.x.shape) == 3:
        weight = kernel.T[:, :, None, None]
        y = call.network.layer(
            call.name, Conv(call.name, units, (1, 1), bias=bias), call.x, {"weight": weight, **arrays}
        )
    else:
        flat = Tensor(call.x.step, call.x.shape)
        weight = permuted(kernel.T, call.x)
        y = call.network.layer(call.name, Dense(call.name, units, bias), flat, {"weight": weight, **arrays})
    return activated(call, y)


def _batch_norm(call: LayerCall) -> Tensor:
    """`momentum` is the weight of the old statistics. Keras 3 keeps the variance with n; TensorFlow's fused kernel,
    which Keras 2 uses for maps, with n - 1. A layer that is not trainable is frozen (Keras since TensorFlow 2)."""
    call.check_channel_axis()
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    gamma, beta = call.flag("scale", True), call.flag("center", True)
    present = [name for name in names if {"gamma": gamma, "beta": beta}.get(name, True)]
    arrays = {names[name]: permuted(array, call.x) for name, array in call.weights(*present).items()}
    layer = BatchNorm(
        call.name,
        call.number("epsilon", 1e-3),
        round(1 - call.number("momentum", 0.99), 12),
        gamma,
        unbiased=call.version[0] < 3 and len(call.x.shape) == 3,
        beta=beta,
        frozen=not call.flag("trainable", True),
    )
    x = Tensor(call.x.step, call.x.shape)
    return _in_order_of(call, call.network.layer(call.name, layer, x, arrays))


def _in_order_of(call: LayerCall, y: Tensor) -> Tensor:
    return Tensor(y.step, y.shape, call.x.order)


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


def _flatten(call: LayerCall) -> Tensor:
    x = call.x
    order = x.places() if len(x.shape) == 1 else call.map.places().transpose(1, 2, 0).ravel()
    return call.network.rearranged(call.name, x, order)


def _reshape(call: LayerCall) -> Tensor:
    """Keras counts in height-width-channels order."""
    x, target = call.x, call.get("target_shape")
    places = x.places() if len(x.shape) == 1 else x.places().transpose(1, 2, 0)
    if not isinstance(target, list) or len(target) not in (1, 3) or not all(type(n) is int for n in target):
        raise ImportRefusedError("has a target_shape that is no list of one or three whole numbers")
    try:
        order = places.reshape(target)
    except ValueError:
        raise ImportRefusedError(f"cannot give {x.source_shape} the target_shape {target}") from None
    if order.ndim == 1:
        return call.network.rearranged(call.name, x, order)
    return call.network.canonical(call.network.rearranged(call.name, x, order.transpose(2, 0, 1)), call.name)


def _dropout(call: LayerCall) -> Tensor:
    if call.get("noise_shape") is not None:
        raise ImportRefusedError("has a noise_shape, which is not supported: it drops values together")
    rate = call.number("rate")
    return call.network.pointwise(call.name, Dropout(call.name, rate), call.x) if rate else call.x


def _merge(merge: Merge, call: LayerCall) -> Tensor:
    if merge == "concatenate":
        call.check_channel_axis()
    if call.numbers:
        return _with_number(call, merge)
    if len(call.inputs) < 2:
        return call.x
    return call.network.merge(call.name, call.inputs, merge)


def _with_number(call: LayerCall, merge: Merge) -> Tensor:
    """`x + 3.0` and `x * 2.0`, as Keras 3 records them."""
    if len(call.numbers) != 1 or merge == "concatenate":
        raise ImportRefusedError(f"is called with the numbers {call.numbers}")
    number = call.numbers
    layer = Affine(call.name, shift=number) if merge == "add" else Affine(call.name, number)
    return call.network.pointwise(call.name, layer, call.x)


def _subtract(call: LayerCall) -> Tensor:
    """`x - y`, `x - 1.0` and `1.0 - x`."""
    if call.numbers:
        sign = -1.0 if call.number_first else 1.0
        layer = Affine(call.name, (sign,), (-sign * call.numbers[0],))
        return call.network.pointwise(call.name, layer, call.x)
    if len(call.inputs) != 2:
        raise ImportRefusedError(f"takes {len(call.inputs)} inputs, expected 2")
    name = f"{call.name}_negative"
    negative = call.network.pointwise(name, Affine(name, (-1.0,)), call.inputs[1])
    return call.network.merge(call.name, (call.inputs[0], negative), "add")


def _divide(call: LayerCall) -> Tensor:
    if len(call.numbers) != 1 or call.number_first or not call.numbers[0]:
        raise ImportRefusedError("divides by something that is no number")
    return call.network.pointwise(call.name, Affine(call.name, (1 / call.numbers[0],)), call.x)


def _average(call: LayerCall) -> Tensor:
    total = call.network.merge(f"{call.name}_sum", call.inputs, "add")
    return call.network.pointwise(call.name, Affine(call.name, (1 / len(call.inputs),)), total)


def _rescaling(call: LayerCall) -> Tensor:
    scale, offset = numbers(call.get("scale"), "scale"), numbers(call.get("offset", 0.0), "offset")
    x = call.x if len(scale) == len(offset) == 1 else call.network.canonical(call.x, call.name)
    return call.network.pointwise(call.name, Affine(call.name, scale, offset), x)


def _normalization(call: LayerCall) -> Tensor:
    """`(x - mean) / max(sqrt(variance), 1e-7)`, from the configuration or, adapted to data, from arrays."""
    call.check_channel_axis()
    if call.flag("invert", False):
        raise ImportRefusedError("is inverted, which is not supported")
    mean, variance = call.get("mean"), call.get("variance")
    if mean is None or variance is None:
        mean, variance = list(call.weights("mean", "variance", "count").values())[:2]
    means, variances = np.array(numbers(mean, "mean")), np.array(numbers(variance, "variance"))
    scale = 1 / np.maximum(np.sqrt(np.maximum(variances, 0)), 1e-7)
    layer = Affine(call.name, tuple(scale.tolist()), tuple((-means * scale).tolist()))
    return call.network.layer(call.name, layer, call.x)


def _identity(call: LayerCall) -> Tensor:
    return call.x


LAYERS: Mapping[str, Build] = {
    "Conv2D": _conv,
    "Convolution2D": _conv,
    "DepthwiseConv2D": _depthwise_conv,
    "SeparableConv2D": _separable_conv,
    "Conv2DTranspose": _conv_transpose,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "BatchNormalizationV1": _batch_norm,
    "MaxPooling2D": partial(_pool, max_pool),
    "AveragePooling2D": partial(_pool, partial(avg_pool, count_padding=False)),
    "GlobalAveragePooling2D": partial(_global_pool, GlobalAvgPool),
    "GlobalMaxPooling2D": partial(_global_pool, GlobalMaxPool),
    "ZeroPadding2D": _zero_padding,
    "Cropping2D": _cropping,
    "UpSampling2D": _upsampling,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Dropout": _dropout,
    "Concatenate": partial(_merge, "concatenate"),
    "Add": partial(_merge, "add"),
    "Multiply": partial(_merge, "multiply"),
    "Subtract": _subtract,
    "TrueDivide": _divide,
    "Average": _average,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
    "Identity": _identity,
    "ActivityRegularization": _identity,
    **ACTIVATION_LAYERS,
}
