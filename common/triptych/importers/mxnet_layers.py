"""What MXNet's operators with arrays, its activations and its pools are in the spec: a table, a function for each.

An attribute that MXNet keeps in 32 bits is taken as that number: a slope of "0.1" is 0.10000000149, with which MXNet
computes in 64 bits, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from triptych.importers.activations import named
from triptych.importers.moves import as_map
from triptych.importers.mxnet_calls import SymbolCall
from triptych.importers.mxnet_operators import OPERATORS
from triptych.importers.mxnet_tensors import SymbolTensor, columns_in_order
from triptych.spec.layers import (
    ELU,
    Affine,
    BatchNorm,
    Clip,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    HardSigmoid,
    L2Normalize,
    Layer,
    LeakyReLU,
    LocalResponseNorm,
    Pair,
    PReLU,
    ReLU,
    Softmax,
)

Convert = Callable[[SymbolCall], SymbolTensor | Sequence[SymbolTensor]]

_ACTIVATIONS = named("mxnet")


def _convolution(call: SymbolCall) -> SymbolTensor:
    call.need_channels_first()
    kernel, groups, channels = call.pair("kernel"), call.integer("num_group"), call.integer("num_filter")
    bias, inputs = not call.integer("no_bias"), call.image().shape[0]
    layer = Conv("", channels, kernel, call.pair("stride"), call.pair("pad"), groups, bias, call.pair("dilate"))
    arrays = call.arrays(weight=("weight", (channels, inputs // groups, *kernel)))
    return call.add(layer, arrays=arrays | (call.arrays(bias=("bias", (channels,))) if bias else {}))


def _deconvolution(call: SymbolCall) -> SymbolTensor:
    call.need_channels_first()
    kernel, groups, channels = call.pair("kernel"), call.integer("num_group"), call.integer("num_filter")
    bias, inputs = not call.integer("no_bias"), call.image().shape[0]
    stride, dilation = call.pair("stride"), call.pair("dilate")
    padding, more = _output_padding(call, kernel, stride, dilation)
    layer = ConvTranspose("", channels, kernel, stride, padding, more, groups, bias, dilation)
    arrays = call.arrays(weight=("weight", (inputs, channels // groups, *kernel)))
    return call.add(layer, arrays=arrays | (call.arrays(bias=("bias", (channels,))) if bias else {}))


def _output_padding(call: SymbolCall, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """Padding and output padding; from the target shape where there is one (DeconvolutionParam::InferPad)."""
    target = call.integers("target_shape")
    if not any(target):
        return call.pair("pad"), call.pair("adj")
    axes = zip(call.image().shape[1:], kernel, stride, dilation, call.pair("target_shape"), strict=True)
    surplus = [(size - 1) * s + d * (k - 1) + 1 - t for size, k, s, d, t in axes]
    if min(surplus) < 0:
        raise call.refused(f"has the target_shape {target}, which is larger than what it makes of its input")
    rows, columns = surplus
    return ((rows + 1) // 2, (columns + 1) // 2), (rows % 2, columns % 2)


def _dense(call: SymbolCall) -> SymbolTensor:
    """On a map MXNet flattens by itself. What was transposed before stays as it is, and the weight's columns move."""
    given = call.any_tensor()
    if len(given.shape) > 1 and not call.integer("flatten"):
        return _dense_at_every_place(call, given)
    if not given.has_all_of(call.building.shapes[given.step]):
        given = call.plain(given.viewed(as_map(given.shape), given.label))
    units, features, bias = call.integer("num_hidden"), math.prod(given.shape), not call.integer("no_bias")
    arrays = call.arrays(weight=("weight", (units, features)))
    arrays = {name: columns_in_order(array, given) for name, array in arrays.items()}
    arrays |= call.arrays(bias=("bias", (units,))) if bias else {}
    label = given.label if len(given.shape) == 1 else ""
    flat = call.plain(SymbolTensor(given.step, (features,), None, label))
    return call.add(Dense("", units, bias), flat, arrays=arrays)


def _dense_at_every_place(call: SymbolCall, given: SymbolTensor) -> SymbolTensor:
    """On (height, width, channels): a convolution of 1x1."""
    last = (1, 2, 0)
    plain = call.plain(given.transposed((2, 0, 1), "")) if len(given.shape) == 3 else None
    if plain is None or plain.order is not None:
        raise call.refused(f"has flatten=False on {len(given.shape)} axes, where it works at every place by itself")
    units, bias = call.integer("num_hidden"), not call.integer("no_bias")
    arrays = call.arrays(weight=("weight", (units, plain.shape[0])))
    arrays = {name: array[:, :, None, None] for name, array in arrays.items()}
    arrays |= call.arrays(bias=("bias", (units,))) if bias else {}
    return call.add(Conv("", units, (1, 1), bias=bias), plain, arrays=arrays).transposed(last, call.node.name)


def _batch_norm(call: SymbolCall) -> SymbolTensor:
    """MXNet's momentum is the weight of the old statistics, its variance is kept with n. With fix_gamma, its default,
    the scale is 1 and never trained, whatever the file holds."""
    given = call.tensor()
    axis = call.integer("axis") if "axis" in call.node.values else 1
    if axis % (len(given.shape) + 1) != 1:
        raise call.refused(f"has axis {axis}, and only 1, the channels, is taken")
    if call.integer("output_mean_var"):
        raise call.refused("has output_mean_var=True")
    gamma, shape = not call.integer("fix_gamma"), given.shape[:1]
    arrays = call.arrays(weight=("gamma", shape)) if gamma else {}
    if not gamma:
        call.fixed_at_one("gamma", shape)
    arrays |= call.arrays(bias=("beta", shape), running_mean=("moving_mean", shape), running_var=("moving_var", shape))
    # Gluon's center=False, which comes with scale=False in its model zoo and stands in no file: a trained beta would
    # not be 0 to the last bit. Only Gluon writes the axis.
    beta = gamma or "axis" not in call.node.attributes or "bias" not in arrays or bool(np.any(arrays["bias"]))
    if not beta:
        del arrays["bias"]
    layer = BatchNorm(
        "",
        eps=call.number("eps"),
        momentum=1 - call.number("momentum"),
        gamma=gamma,
        unbiased=False,
        frozen=bool(call.integer("use_global_stats")),
        beta=beta,
    )
    return call.add(layer, arrays=arrays)


def _activation(call: SymbolCall) -> SymbolTensor:
    kind = call.text("act_type") or ""
    if kind not in _ACTIVATIONS:
        raise call.refused(f"has the act_type {kind}, and only {', '.join(_ACTIVATIONS)} are taken")
    return call.each_value(_ACTIVATIONS[kind])


def _leaky_relu(call: SymbolCall) -> SymbolTensor:
    """In a symbol or a hybridized block MXNet 1.9.1 multiplies the gradients of PReLU's slopes by the slopes (the two
    gradients of the layer share memory); a block that is not hybridized has the right ones, as the spec does."""
    kind = call.text("act_type") or ""
    if kind == "leaky":
        return call.each_value(LeakyReLU("", call.number("slope")))
    if kind == "elu":
        return call.each_value(ELU("", call.number("slope")))
    if kind == "selu":
        call.building.remarks.append(
            "MXNet 1.9.1 gives gradients of SELU that are wrong below 0 (it takes the output for that of ELU, without "
            "a scale); here they are right"
        )
    if kind in _ACTIVATIONS:
        return call.each_value(_ACTIVATIONS[kind])
    if kind != "prelu":
        taken = ", ".join(("leaky", "prelu", "elu", *_ACTIVATIONS))
        raise call.refused(f"has the act_type {kind}, and only {taken} are taken")
    given = call.tensor()
    call.building.remarks.append(
        "in symbols and hybridized blocks MXNet 1.9.1 gives gradients of PReLU's slopes that are multiplied by the "
        "slopes; here they are right"
    )
    shared = call.given_shape("gamma") == (1,)
    slopes = (1,) if shared else given.shape[:1]
    return call.add(PReLU("", shared), given, arrays=call.arrays(weight=("gamma", slopes)))


def _clip(call: SymbolCall) -> SymbolTensor:
    """MXNet's derivative at the bounds themselves is 1, the spec's 0."""
    low, high = call.node.values["a_min"], call.node.values["a_max"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    if low == 0 and math.isinf(high):
        return call.each_value(ReLU(""))
    if math.isinf(low) or math.isinf(high):
        raise call.refused(f"has the bounds {low:g} and {high:g}, and only finite ones, or 0 and inf, are taken")
    return call.each_value(Clip("", low, high))


def _local_response_norm(call: SymbolCall) -> SymbolTensor:
    layer = LocalResponseNorm(
        "", call.integer("nsize"), call.number("alpha"), call.number("beta"), call.number("knorm"), divide_alpha=True
    )
    return call.add(layer, call.image())


def _l2_normalization(call: SymbolCall) -> SymbolTensor:
    mode = call.text("mode")
    if mode == "spatial":
        raise call.refused("has the mode spatial, and only instance, channel are taken")
    if mode == "channel":
        return call.add(L2Normalize("", call.number("eps")), call.image())
    return call.each_value(L2Normalize("", call.number("eps"), whole=True))


def _dropout(call: SymbolCall) -> SymbolTensor:
    if call.text("mode") != "training" or call.integers("axes"):
        raise call.refused("drops in evaluation too, or whole axes, and only mode=training without axes is taken")
    return call.each_value(Dropout("", call.number("p"))) if call.number("p") else call.any_tensor()


def _softmax(call: SymbolCall) -> SymbolTensor:
    """Of a map along its channels, of features over all of them."""
    values = call.node.values
    if values["use_length"]:
        raise call.refused("has use_length=True")
    layers: list[Layer] = [Softmax("")]
    if values["temperature"] is not None:
        scale = 1 / (call.number("temperature") or math.nan)
        if not math.isfinite(scale):
            raise call.refused(f"has the temperature {values['temperature']}")
        layers.insert(0, Affine("temperature", (scale,)))
    return _along(call, layers, call.axis(call.integer("axis"), call.any_tensor().shape))


def _along(call: SymbolCall, layers: Sequence[Layer], axis: int = 0) -> SymbolTensor:
    """Layers that work over the channels, on an axis, counted from 0 behind the batch, of however many."""
    given = call.any_tensor()
    axes = [axis, *(other for other in range(len(given.shape)) if other != axis)]
    try:
        first = given.transposed(axes, given.label) if axis else given
    except ValueError as error:
        raise call.refused(str(error)) from None
    made = call.row(layers, call.plain(first.viewed(as_map(first.shape), first.label)))
    made = SymbolTensor(made.step, first.shape)
    return made.transposed([axes.index(place) for place in range(len(axes))], call.node.name) if axis else made


def _softmax_activation(call: SymbolCall) -> SymbolTensor:
    if call.text("mode") == "channel" or len(call.any_tensor().shape) == 1:
        return _along(call, [Softmax("")])
    raise call.refused("has the mode instance on a map: it is over all its values, not its channels")


def _softmax_output(call: SymbolCall) -> SymbolTensor:
    call.building.remarks.append(
        f"{call.node.name!r} (SoftmaxOutput) is a softmax; its gradient in MXNet is the loss's"
    )
    if len(call.any_tensor().shape) == 1 or call.integer("multi_output"):
        return _along(call, [Softmax("")])
    raise call.refused("has multi_output=False on a map: it is over all its values, not its channels")


def _each_value(layer: Layer) -> Convert:
    return lambda call: call.each_value(layer)


LAYERS: Mapping[str, Convert] = {
    "Convolution": _convolution,
    "Convolution_v1": _convolution,
    "Deconvolution": _deconvolution,
    "FullyConnected": _dense,
    "BatchNorm": _batch_norm,
    "BatchNorm_v1": _batch_norm,
    "_contrib_SyncBatchNorm": _batch_norm,  # of one device, or of one batch on several
    "Activation": _activation,
    "LeakyReLU": _leaky_relu,
    **{name: _each_value(layer) for name, layer in _ACTIVATIONS.items() if name in OPERATORS},
    "clip": _clip,
    "hard_sigmoid": lambda call: call.each_value(HardSigmoid("", call.number("alpha"), call.number("beta"))),
    "LRN": _local_response_norm,
    "L2Normalization": _l2_normalization,
    "Dropout": _dropout,
    "softmax": _softmax,
    "SoftmaxActivation": _softmax_activation,
    "SoftmaxOutput": _softmax_output,
}
