"""Keras's activations, as layers of their own and as what other layers name: one table of each."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from triptych.importers.activations import LOG_SIGMOID, named
from triptych.importers.keras_call import LayerCall
from triptych.importers.network_builder import Tensor, permuted
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import (
    ELU,
    GELU,
    Clip,
    Flatten,
    HardSigmoid,
    Layer,
    LeakyReLU,
    PReLU,
    ReLU,
    Reshape,
    Softmax,
)

Version: TypeAlias = tuple[int, int]


def _plain(layer: Layer, name: str, _: Version) -> Layer:
    return replace(layer, name=name)


def _hard_sigmoid(name: str, version: Version) -> Layer:
    return HardSigmoid(name, 1 / 6 if version[0] >= 3 else 0.2)


# By the name in `activation`; None changes nothing.
FUNCTIONS: Mapping[str, Callable[[str, Version], Layer] | None] = {
    "linear": None,
    **{name: partial(_plain, layer) for name, layer in named("keras").items()},
    "leaky_relu": lambda name, _: LeakyReLU(name, 0.2),
    "softmax": lambda name, _: Softmax(name),
    "hard_sigmoid": _hard_sigmoid,
    "log_sigmoid": None,  # several layers
}
# Operations of Keras 3 (`keras.ops.relu(x)`), by their class.
_OPERATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Silu": "silu",
    "Selu": "selu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Mish": "mish",
    "HardSilu": "hard_silu",
    "HardTanh": "hard_tanh",
    "LogSigmoid": "log_sigmoid",
}


def activated(call: LayerCall, y: Tensor) -> Tensor:
    """`y` behind the activation that the layer names, if it names one."""
    given = call.get("activation", "linear")
    name = f"{call.name}_{given}" if isinstance(given, str) else f"{call.name}_activation"
    return _apply(call, given, name, y)


def _apply(call: LayerCall, given: Any, name: str, y: Tensor) -> Tensor:
    """`given` as Keras writes it: a function's name, or an object with class_name and config."""
    if isinstance(given, dict) and given.get("class_name") == "function":
        given = given.get("config")
    if isinstance(given, dict):
        return _apply_layer(call, given, name, y)
    if not isinstance(given, str) or given not in FUNCTIONS:
        shown = repr(given)[:40] if isinstance(given, str) else type(given).__name__
        raise ImportRefusedError(f"has the activation {shown}, supported: {', '.join(FUNCTIONS)}")
    build = FUNCTIONS[given]
    if given == "softmax" and not len(y.source_shape) == 1 == len(y.shape):  # which is over the source's last axis
        y = call.network.canonical(y, f"{name}_reshape")
    if given == "log_sigmoid":
        for layer in LOG_SIGMOID:
            part = f"{name}_{layer.name}" if layer.name else name
            y = call.network.pointwise(part, replace(layer, name=part), y)
        return y
    return y if build is None else call.network.pointwise(name, build(name, call.version), y)


def _apply_layer(call: LayerCall, given: Mapping[str, Any], name: str, y: Tensor) -> Tensor:
    config = given.get("config")
    class_name = str(given.get("class_name"))
    if not isinstance(config, dict) or class_name not in ACTIVATION_LAYERS:
        raise ImportRefusedError(f"has the activation {class_name[:40]!r}, supported: {', '.join(ACTIVATION_LAYERS)}")
    inner = LayerCall(name, config, (y,), call.arrays, call.version, call.network, read=call.read)
    return ACTIVATION_LAYERS[class_name](inner)


def _named_function(call: LayerCall) -> Tensor:
    return _apply(call, call.get("activation"), call.name, call.x)


def _operation(function: str) -> Callable[[LayerCall], Tensor]:
    return lambda call: _apply(call, function, call.name, call.x)


def _relu(call: LayerCall) -> Tensor:
    slope = call.number("negative_slope", 0.0)
    bound = call.get("max_value")
    if call.number("threshold", 0.0) or (slope and bound is not None):
        raise ImportRefusedError(
            "has a threshold, or a slope and an upper bound at once, which no layer of the spec has"
        )
    layer: Layer = LeakyReLU(call.name, slope) if slope else ReLU(call.name)
    if bound is not None:
        layer = Clip(call.name, 0.0, call.number("max_value"))
    return call.network.pointwise(call.name, layer, call.x)


def _leaky_relu(call: LayerCall) -> Tensor:
    """Keras 2 calls the slope alpha."""
    key = "alpha" if "alpha" in call.config else "negative_slope"
    return call.network.pointwise(call.name, LeakyReLU(call.name, call.number(key, 0.3)), call.x)


def _elu(call: LayerCall) -> Tensor:
    return call.network.pointwise(call.name, ELU(call.name, call.number("alpha", 1.0)), call.x)


def _gelu(call: LayerCall) -> Tensor:
    """The operation, whose form is the tanh one if it is not told; the function `gelu` has the other."""
    return call.network.pointwise(call.name, GELU(call.name, bool(call.get("approximate", True))), call.x)


def _prelu(call: LayerCall) -> Tensor:
    """Slopes (rows, columns, channels), of which `shared_axes` have one for all. Where every value has its own, as
    Keras has it if nothing is said, they are all channels."""
    slopes, x = call.weights("alpha")["alpha"], call.settled
    call.get("shared_axes", [])
    channels, *pixels = x.shape
    if pixels and slopes.shape == (*pixels, channels) and slopes.size > channels:
        weight = slopes.transpose(2, 0, 1).ravel()
        flat = call.network.layer(f"{call.name}_flatten", Flatten("flatten"), x)
        y = call.network.layer(call.name, PReLU(call.name), flat, {"weight": weight})
        return call.network.layer(f"{call.name}_reshape", Reshape("reshape", x.shape), y)
    if slopes.size not in (1, channels):
        raise ImportRefusedError(
            f"has slopes {slopes.shape} for {x.source_shape}, expected one for all, for every channel or every value"
        )
    shared = slopes.size == 1 and channels > 1
    weight = slopes.ravel() if shared or pixels else permuted(slopes.ravel(), x)
    y = call.network.layer(call.name, PReLU(call.name, shared), Tensor(x.step, x.shape), {"weight": weight})
    return Tensor(y.step, y.shape, x.order)


def _softmax(call: LayerCall) -> Tensor:
    call.check_channel_axis()
    return _apply(call, "softmax", call.name, call.x)


ACTIVATION_LAYERS: Mapping[str, Callable[[LayerCall], Tensor]] = {
    "Activation": _named_function,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "Elu": _elu,
    "Gelu": _gelu,
    "PReLU": _prelu,
    "Softmax": _softmax,
    **{class_name: _operation(function) for class_name, function in _OPERATIONS.items()},
}
