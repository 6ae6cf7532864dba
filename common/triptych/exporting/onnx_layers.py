"""Every layer kind as ONNX has it, operator set 17. Attributes of ONNX are float32, whatever the values are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from triptych.exporting.onnx_graph import OnnxGraph, OnnxLayer
from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.activations import SELU_ALPHA, SELU_SCALE
from triptych.spec.kinds.kind import SpecError

Write = Callable[[OnnxGraph, Any, OnnxLayer], str]


def _products(layer: spec.Conv | spec.ConvTranspose) -> dict[str, Any]:
    rows, columns = layer.padding
    return {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": (rows, columns, rows, columns),
        "dilations": layer.dilation,
        "group": layer.groups,
    }


def _weights(layer: spec.Conv | spec.ConvTranspose | spec.Dense, at: OnnxLayer) -> list[str]:
    return [at.x, at.arrays["weight"], *([at.arrays["bias"]] if layer.bias else [])]


def _conv(graph: OnnxGraph, layer: spec.Conv, at: OnnxLayer) -> str:
    return graph.node("Conv", _weights(layer, at), at.path, **_products(layer))


def _conv_transpose(graph: OnnxGraph, layer: spec.ConvTranspose, at: OnnxLayer) -> str:
    """ONNX's output padding is smaller than the stride: as far as it goes, less padding below and on the right is the
    same. Raises SpecError for what is left where the kernel does not reach it."""
    pairs = list(zip(layer.padding, layer.output_padding, strict=True))
    more = tuple(max(extra - padding, 0) for padding, extra in pairs)
    if any(extra >= stride for extra, stride in zip(more, layer.stride, strict=True)):
        problem = f"its output padding {layer.output_padding} is beyond stride and padding, which ONNX cannot express"
        raise SpecError(at.path, problem)
    ends = tuple(max(padding - extra, 0) for padding, extra in pairs)
    attributes = _products(layer) | {"pads": (*layer.padding, *ends), "output_padding": more}
    return graph.node("ConvTranspose", _weights(layer, at), at.path, **attributes)


def _dense(graph: OnnxGraph, layer: spec.Dense, at: OnnxLayer) -> str:
    return graph.node("Gemm", _weights(layer, at), at.path, transB=1)


def _batch_norm(graph: OnnxGraph, layer: spec.BatchNorm, at: OnnxLayer) -> str:
    """A scale or shift that the spec has not is a constant here; ONNX's momentum is that of the old statistics."""
    scale = at.arrays.get("weight") or graph.numbers(f"{at.path}.weight", np.ones(at.shape[0]))
    shift = at.arrays.get("bias") or graph.numbers(f"{at.path}.bias", np.zeros(at.shape[0]))
    inputs = [at.x, scale, shift, at.arrays["running_mean"], at.arrays["running_var"]]
    return graph.node("BatchNormalization", inputs, at.path, epsilon=layer.eps, momentum=1 - layer.momentum)


def _local_response_norm(graph: OnnxGraph, layer: spec.LocalResponseNorm, at: OnnxLayer) -> str:
    """ONNX divides alpha by the size."""
    alpha = layer.coefficient * layer.size
    return graph.node("LRN", [at.x], at.path, size=layer.size, alpha=alpha, beta=layer.beta, bias=layer.k)


def _l2_normalize(graph: OnnxGraph, layer: spec.L2Normalize, at: OnnxLayer) -> str:
    axes = graph.integers(f"{at.path}.axes", range(1, len(at.shape) + 1) if layer.whole else (1,))
    eps = graph.numbers(f"{at.path}.eps", layer.eps)
    squares = graph.node("Mul", [at.x, at.x], f"{at.path}.squares")
    total = graph.node("ReduceSum", [squares, axes], f"{at.path}.sum", keepdims=1)
    if layer.bound:
        norm = graph.node("Max", [graph.node("Sqrt", [total], f"{at.path}.root"), eps], f"{at.path}.norm")
    else:
        norm = graph.node("Sqrt", [graph.node("Add", [total, eps], f"{at.path}.total")], f"{at.path}.norm")
    return graph.node("Div", [at.x, norm], at.path)


def _affine(graph: OnnxGraph, layer: spec.Affine, at: OnnxLayer) -> str:
    if layer.trained:
        scale, shift = (graph.constants[at.arrays[name]] for name in ("weight", "bias"))
    else:
        scale, shift = np.array(layer.scale), np.array(layer.shift)
    names = (graph.numbers(f"{at.path}.{n}", at.per_channel(v)) for n, v in (("scale", scale), ("shift", shift)))
    scaled = graph.node("Mul", [at.x, next(names)], f"{at.path}.scaled")
    return graph.node("Add", [scaled, next(names)], at.path)


def _clip(graph: OnnxGraph, layer: spec.Clip, at: OnnxLayer) -> str:
    bounds = [graph.numbers(f"{at.path}.low", layer.low), graph.numbers(f"{at.path}.high", layer.high)]
    return graph.node("Clip", [at.x, *bounds], at.path)


def _prelu(graph: OnnxGraph, layer: spec.PReLU, at: OnnxLayer) -> str:
    slope = graph.numbers(f"{at.path}.slope", at.per_channel(graph.constants[at.arrays["weight"]]))
    return graph.node("PRelu", [at.x, slope], at.path)


def _silu(graph: OnnxGraph, layer: spec.SiLU, at: OnnxLayer) -> str:
    return graph.node("Mul", [at.x, graph.node("Sigmoid", [at.x], f"{at.path}.sigmoid")], at.path)


def _gelu(graph: OnnxGraph, layer: spec.GELU, at: OnnxLayer) -> str:
    """Written out: the operator `Gelu` came with operator set 20."""

    def number(name: str, value: float) -> str:
        return graph.numbers(f"{at.path}.{name}", value)

    inner = at.x
    if layer.approximate:
        square = graph.node("Mul", [at.x, at.x], f"{at.path}.square")
        cubic = graph.node("Mul", [square, number("cubic", 0.044715)], f"{at.path}.share")
        more = graph.node("Mul", [at.x, cubic], f"{at.path}.more")
        inner = graph.node("Add", [at.x, more], f"{at.path}.sum")
    factor = number("factor", math.sqrt(2 / math.pi if layer.approximate else 0.5))
    scaled = graph.node("Mul", [inner, factor], f"{at.path}.scaled")
    curve = graph.node("Tanh" if layer.approximate else "Erf", [scaled], f"{at.path}.curve")
    above = graph.node("Add", [curve, number("one", 1.0)], f"{at.path}.above")
    half = graph.node("Mul", [at.x, number("half", 0.5)], f"{at.path}.halved")
    return graph.node("Mul", [half, above], at.path)


def _softplus(graph: OnnxGraph, layer: spec.Softplus, at: OnnxLayer) -> str:
    """ONNX has no threshold: from 15 on float32 does not show the difference. Raises SpecError for a lower one."""
    if layer.threshold is not None and layer.threshold < 15:
        raise SpecError(at.path, f"its threshold {layer.threshold:g} is below 15, which ONNX cannot express")
    return graph.node("Softplus", [at.x], at.path)


def _mish(graph: OnnxGraph, layer: spec.Mish, at: OnnxLayer) -> str:
    """Written out: the operator `Mish` came with operator set 18."""
    above = graph.node("Softplus", [at.x], f"{at.path}.softplus")
    return graph.node("Mul", [at.x, graph.node("Tanh", [above], f"{at.path}.tanh")], at.path)


def _hard_sigmoid(graph: OnnxGraph, layer: spec.HardSigmoid, at: OnnxLayer) -> str:
    return graph.node("HardSigmoid", [at.x], at.path, alpha=layer.slope, beta=layer.offset)


def _pad(graph: OnnxGraph, layer: spec.Pad, at: OnnxLayer) -> str:
    top, bottom, left, right = layer.padding
    inputs = [at.x, graph.integers(f"{at.path}.pads", (0, 0, top, left, 0, 0, bottom, right))]
    if layer.mode == "constant":
        inputs.append(graph.numbers(f"{at.path}.value", layer.value))
    return graph.node("Pad", inputs, at.path, mode=layer.mode)


def _slice(graph: OnnxGraph, layer: spec.Slice, at: OnnxLayer) -> str:
    axis = {"channels": 1, "rows": 2, "columns": 3}[layer.axis]
    bounds = {"starts": layer.start, "ends": layer.stop, "axes": axis}
    inputs = [graph.integers(f"{at.path}.{name}", (value,)) for name, value in bounds.items()]
    return graph.node("Slice", [at.x, *inputs], at.path)


def _upsample(graph: OnnxGraph, layer: spec.Upsample, at: OnnxLayer) -> str:
    graph.constants[f"{at.path}.scales"] = np.array((1, 1, *layer.factor), np.float32)
    how = {
        "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    }[layer.mode]
    return graph.node("Resize", [at.x, "", f"{at.path}.scales"], at.path, **how)


def _channel_shuffle(graph: OnnxGraph, layer: spec.ChannelShuffle, at: OnnxLayer) -> str:
    channels, *size = at.shape
    apart = graph.integers(f"{at.path}.apart", (0, layer.groups, channels // layer.groups, *size))
    together = graph.integers(f"{at.path}.together", (0, channels, *size))
    groups = graph.node("Reshape", [at.x, apart], f"{at.path}.groups")
    order = (0, 2, 1, *range(3, 3 + len(size)))
    turned = graph.node("Transpose", [groups], f"{at.path}.turned", perm=order)
    return graph.node("Reshape", [turned, together], at.path)


def _reshape(graph: OnnxGraph, layer: spec.Reshape, at: OnnxLayer) -> str:
    return graph.node("Reshape", [at.x, graph.integers(f"{at.path}.shape", (0, *at.output))], at.path)


def _reach(layer: spec.Pool, at: OnnxLayer) -> tuple[int, int, int, int]:
    """Padding such that exactly the spec's windows fit, whichever way ONNX's versions round up."""
    sides = zip(at.shape[1:], at.output[1:], layer.kernel, layer.stride, layer.padding, strict=True)
    below, right = (max(0, (n - 1) * s + k - size - p) for size, n, k, s, p in sides)
    return (*layer.padding, below, right)


def _max_pool(graph: OnnxGraph, layer: spec.MaxPool, at: OnnxLayer) -> str:
    return graph.node(
        "MaxPool", [at.x], at.path, kernel_shape=layer.kernel, strides=layer.stride, pads=_reach(layer, at)
    )


def _avg_pool(graph: OnnxGraph, layer: spec.AvgPool, at: OnnxLayer) -> str:
    """ONNX counts all of the padding or none; the spec counts what is padded, but no overhang."""
    reach, counts = _reach(layer, at), layer.count_padding
    windows = {"kernel_shape": layer.kernel, "strides": layer.stride, "pads": reach}
    overhangs = reach[2] > layer.padding[0] or reach[3] > layer.padding[1]
    if not (counts and overhangs):
        return graph.node("AveragePool", [at.x], at.path, count_include_pad=int(counts), **windows)
    mean = graph.node("AveragePool", [at.x], f"{at.path}.mean", count_include_pad=1, **windows)
    correction = graph.numbers(f"{at.path}.correction", _corrections(layer, at))
    return graph.node("Mul", [mean, correction], at.path)


def _corrections(layer: spec.AvgPool, at: OnnxLayer) -> Any:
    """For every place of the output, the whole window over what of it lies on the padded map."""
    sides = zip(at.shape[1:], at.output[1:], layer.kernel, layer.stride, layer.padding, strict=True)
    rows, columns = (
        k / (np.minimum(np.arange(n) * s + k, size + 2 * p) - np.arange(n) * s) for size, n, k, s, p in sides
    )
    return np.outer(rows, columns)


def _as(operator: str, **attributes: Any) -> Write:
    return lambda graph, layer, at: graph.node(operator, [at.x], at.path, **attributes)


def _nothing(graph: OnnxGraph, layer: spec.Layer, at: OnnxLayer) -> str:
    """Dropout: ONNX files are for inference."""
    return at.x


LAYERS: dict[type, Write] = {
    spec.Conv: _conv,
    spec.MaxPool: _max_pool,
    spec.AvgPool: _avg_pool,
    spec.ConvTranspose: _conv_transpose,
    spec.Dense: _dense,
    spec.BatchNorm: _batch_norm,
    spec.LocalResponseNorm: _local_response_norm,
    spec.L2Normalize: _l2_normalize,
    spec.Affine: _affine,
    spec.ReLU: _as("Relu"),
    spec.Sigmoid: _as("Sigmoid"),
    spec.Tanh: _as("Tanh"),
    spec.Clip: _clip,
    spec.LeakyReLU: lambda graph, layer, at: graph.node("LeakyRelu", [at.x], at.path, alpha=layer.slope),
    spec.PReLU: _prelu,
    spec.SiLU: _silu,
    spec.ELU: lambda graph, layer, at: graph.node("Elu", [at.x], at.path, alpha=layer.alpha),
    spec.SELU: _as("Selu", alpha=SELU_ALPHA, gamma=SELU_SCALE),
    spec.GELU: _gelu,
    spec.Softplus: _softplus,
    spec.Softsign: _as("Softsign"),
    spec.Mish: _mish,
    spec.HardSigmoid: _hard_sigmoid,
    spec.HardSwish: _as("HardSwish"),
    spec.Softmax: _as("Softmax", axis=1),
    spec.GlobalAvgPool: _as("GlobalAveragePool"),
    spec.GlobalMaxPool: _as("GlobalMaxPool"),
    spec.Pad: _pad,
    spec.Slice: _slice,
    spec.Upsample: _upsample,
    spec.ChannelShuffle: _channel_shuffle,
    spec.Reshape: _reshape,
    spec.Flatten: _as("Flatten", axis=1),
    spec.Dropout: _nothing,
}
check_complete(LAYERS, __name__)
