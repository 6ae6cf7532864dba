"""Keras's layers and what each is in the spec: one table, with that of `keras_windows` and `keras_activations`."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from triptych.importers.activations import LARGEST
from triptych.importers.keras_activations import ACTIVATION_LAYERS, activated
from triptych.importers.keras_call import Build, LayerCall, names_of_arrays, numbers
from triptych.importers.keras_windows import WINDOWS
from triptych.importers.network_builder import Order, Tensor, permuted
from triptych.importers.steps import EVALUATION_ALONE, ImportRefusedError
from triptych.spec.layers import (
    Affine,
    BatchNorm,
    Clip,
    Conv,
    Dense,
    Dropout,
    Merge,
)


def _dense(call: LayerCall) -> Tensor:
    """The input may be flattened in height-width-channels order; on a map it works at every place by itself."""
    arrays = call.weights(*names_of_arrays(call, "kernel"))
    kernel = arrays.pop("kernel")
    units, bias = call.count("units"), "bias" in arrays
    x = call.settled
    if kernel.ndim != 2 or kernel.shape[0] != x.shape[0]:
        raise ImportRefusedError(f"has a kernel {kernel.shape} for an input of shape {call.x.source_shape}")
    if len(x.shape) == 3:
        weight = kernel.T[:, :, None, None]
        y = call.network.layer(call.name, Conv(call.name, units, (1, 1), bias=bias), x, {"weight": weight, **arrays})
    else:
        flat = Tensor(x.step, x.shape)
        weight = permuted(kernel.T, x)
        y = call.network.layer(call.name, Dense(call.name, units, bias), flat, {"weight": weight, **arrays})
    return activated(call, y)


def _batch_norm(call: LayerCall) -> Tensor:
    """`momentum` is the weight of the old statistics. Keras 3 keeps the variance with n; TensorFlow's fused kernel,
    which Keras 2 uses for maps, with n - 1. A layer that is not trainable is frozen (Keras since TensorFlow 2), and so
    is one that Keras 2 calls with training=False."""
    if call.training:
        raise ImportRefusedError("is called with training=True: it takes the batch's statistics in evaluation, too")
    call.check_channel_axis()
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    gamma, beta = call.flag("scale", True), call.flag("center", True)
    present = [name for name in names if {"gamma": gamma, "beta": beta}.get(name, True)]
    x = call.settled
    given = call.weights(*present).items()
    arrays = {names[name]: permuted(array, x) if len(x.shape) == 1 else array for name, array in given}
    layer = BatchNorm(
        call.name,
        call.number("epsilon", 1e-3),
        round(1 - call.number("momentum", 0.99), 12),
        gamma,
        unbiased=call.version[0] < 3 and len(x.shape) == 3,
        beta=beta,
        frozen=not call.flag("trainable", True) or call.training is False,
    )
    y = call.network.layer(call.name, layer, Tensor(x.step, x.shape), arrays)
    return Tensor(y.step, y.shape, x.order)


def _flatten(call: LayerCall) -> Tensor:
    return _rearranged(call, _places(call.x).ravel())


def _places(x: Tensor) -> Order:
    """Where the values stand, in Keras's own shape."""
    places = x.places()
    return places.transpose(1, 2, 0) if places.ndim == 3 else places


def _rearranged(call: LayerCall, order: Order) -> Tensor:
    """The values in this order, in Keras's own shape."""
    return call.network.rearranged(call.name, call.x, order.transpose(2, 0, 1) if order.ndim == 3 else order)


def _reshape(call: LayerCall) -> Tensor:
    """Keras counts in height-width-channels order."""
    x, target = call.x, call.get("target_shape")
    if not isinstance(target, list) or not 0 < len(target) < 9 or not all(type(n) is int for n in target):
        raise ImportRefusedError("has a target_shape that is no list of whole numbers")
    try:
        order = _places(x).reshape(target)
    except ValueError:
        raise ImportRefusedError(f"cannot give {x.source_shape} the target_shape {target}") from None
    y = _rearranged(call, order)
    return call.network.canonical(y, call.name) if order.ndim == 3 else y


def _permute(call: LayerCall) -> Tensor:
    """Keras's axes are height, width, channels, counted from 1."""
    dims, places = call.get("dims"), _places(call.x)
    if not isinstance(dims, list) or sorted(map(str, dims)) != [str(axis + 1) for axis in range(places.ndim)]:
        raise ImportRefusedError(f"has dims {str(dims)[:60]} for {places.ndim} axes")
    return _rearranged(call, places.transpose([int(axis) - 1 for axis in dims]))


def _larger(call: LayerCall, sign: float = 1.0) -> Tensor:
    """`Maximum` of maps, two by two, or of a map and a number; `Minimum` is that of all with the other sign, with the
    other sign."""
    if len(call.inputs) == len(call.numbers) == 1:
        number = call.numbers[0]
        bounds = (number, LARGEST) if sign > 0 else (-LARGEST, number)
        return call.network.pointwise(call.name, Clip(call.name, *bounds), call.x)
    if len(call.inputs) < 2 or call.numbers:
        raise ImportRefusedError(f"takes {len(call.inputs)} inputs, expected 2 or more")
    y = call.inputs[0]
    for x in call.inputs[1:]:
        y = call.network.larger(call.name, (y, x), sign)
    return y


def _dropout(call: LayerCall) -> Tensor:
    if call.training:
        raise ImportRefusedError("is called with training=True: it drops values in evaluation, too")
    if call.training is False:
        return _ignored(call)
    rate = call.number("rate")
    if call.get("noise_shape") is not None and rate:  # values are dropped together
        return _augmentation(call)
    return call.network.pointwise(call.name, Dropout(call.name, rate), call.x) if rate else call.x


def _merge(merge: Merge, call: LayerCall) -> Tensor:
    if merge == "concatenate":
        call.check_channel_axis()
    if call.numbers:
        return _with_number(call, merge)
    if len(call.inputs) < 2:
        return call.x
    shapes = [x.source_shape for x in call.inputs]
    if merge == "concatenate" and any(len(shape) not in (1, 3) for shape in shapes):
        raise ImportRefusedError(f"puts {shapes[:5]} together, expected maps or features")
    rank = max(map(len, shapes))
    inputs = [_for_every_pixel(call, x) if rank == 3 else x for x in call.inputs]
    return call.network.merge(call.name, inputs, merge)


def _for_every_pixel(call: LayerCall, x: Tensor) -> Tensor:
    """Features beside a map stand for every pixel of it: Keras gives them the axes that are missing."""
    if len(x.source_shape) != 1:
        return x
    name = f"{call.name}_reshape"
    return call.network.canonical(call.network.rearranged(name, x, x.places()[:, None, None]), name)


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


def _ignored(call: LayerCall) -> Tensor:
    call.read.update(call.config)
    return call.x


def _augmentation(call: LayerCall) -> Tensor:
    """What changes values at random in training, and in evaluation nothing."""
    if call.training:
        raise ImportRefusedError("is called with training=True: it changes values in evaluation, too")
    call.read.update(call.config)
    if call.training is False:
        return call.x
    call.network.remarks.append(
        f"{call.name!r} changes its input in training alone, and is left out; {EVALUATION_ALONE}"
    )
    return call.x


_AUGMENTATION = "RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness"
_NOISE = "GaussianNoise GaussianDropout AlphaDropout SpatialDropout2D"

LAYERS: Mapping[str, Build] = {
    **WINDOWS,
    **dict.fromkeys(_AUGMENTATION.split(), _augmentation),
    **dict.fromkeys(_NOISE.split(), _augmentation),
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "BatchNormalizationV1": _batch_norm,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "Maximum": _larger,
    "Minimum": partial(_larger, sign=-1.0),
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
