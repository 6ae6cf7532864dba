"""Every record of the spec as Gluon source: what `triptych emit` writes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from triptych.backend.source import Dialect, Named, Piece, Values, as_single, call
from triptych.optim.optimizers import float32
from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.activations import linear_from
from triptych.spec.kinds.placement import AXES
from triptych.spec.layers import Merge
from triptych.weights.layouts import GLUON

# Gluon finds the channels that arrive in the first pass by itself.
NUMBERS: dict[type, tuple[str, ...]] = {
    spec.Conv: ("channels", "kernel", "stride", "padding", "dilation", "groups", "bias"),
    spec.MaxPool: ("overhang", "crop"),
    spec.AvgPool: ("overhang",),
    spec.ConvTranspose: ("inputs", "channels", "map", "size"),
    spec.Dense: ("units", "bias", "activation", "flattens"),
    spec.LocalResponseNorm: ("inputs",),
    spec.Affine: ("inputs", "rank"),
    spec.PReLU: ("inputs", "rank"),
    spec.Slice: ("start", "stop"),
    spec.Upsample: ("map",),
    spec.Reshape: ("shape",),
    spec.ChannelShuffle: ("groups",),
    spec.Dropout: ("rate",),
}
EXACT = "rounded up at other sizes, and this rounds down"  # of a pool whose windows fit at this size
UNSAID: Any = object()  # no value is this default


def _conv(layer: spec.Conv, v: Values) -> Piece:
    named: Named = {"strides": (v["stride"], 1), "padding": (v["padding"], 0), "dilation": (v["dilation"], 1)}
    named |= {"groups": (v["groups"], 1), "use_bias": (v["bias"], True)}
    return Piece(call("nn.Conv2D", v["channels"], v["kernel"], **named))


def _conv_transpose(layer: spec.ConvTranspose, v: Values) -> Piece:
    fields: dict[str, Any]
    named: Named
    axes = zip(layer.output_padding, layer.stride, layer.dilation, strict=True)
    if any(extra >= stride or (stride > 1 and dilation > 1) for extra, stride, dilation in axes):
        fields = {"strides": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        fields |= {"groups": layer.groups, "use_bias": layer.bias}
        named = {name: (repr(value), UNSAID) for name, value in fields.items()}
        named |= {
            "in_channels": (v["inputs"], UNSAID),
            "map": (repr(v["map"].literal), UNSAID),
            "size": (repr(v["size"].literal), UNSAID),
        }
        return Piece(call("ConvTranspose", v["channels"], repr(layer.kernel), **named))
    fields = {"strides": layer.stride, "padding": layer.padding, "output_padding": layer.output_padding}
    fields |= {"dilation": layer.dilation, "groups": layer.groups, "use_bias": layer.bias}
    named = {name: (repr(value), UNSAID) for name, value in fields.items()}
    named |= {"in_channels": (v["inputs"], UNSAID)}  # not found right with groups
    return Piece(call("nn.Conv2DTranspose", v["channels"], repr(layer.kernel), **named))


def _window(layer: spec.Pool) -> str:
    """Kernel, strides and padding; Gluon's strides are the kernel's size by default."""
    strides = f", strides={_side(layer.stride)}" if layer.stride != layer.kernel else ""
    padding = f", padding={_side(layer.padding)}" if layer.padding != (0, 0) else ""
    return f"{_side(layer.kernel)}{strides}{padding}"


def _side(pair: spec.Pair) -> str:
    return repr(pair[0] if pair[0] == pair[1] else pair)


def _max_pool(layer: spec.MaxPool, v: Values) -> Piece:
    """Rounded up as MXNet does it, where that is how the spec does."""
    rounds = layer.ceil and layer.stride != (1, 1)
    if rounds and v["crop"].equals(()):
        return Piece(f"nn.MaxPool2D({_window(layer)}, ceil_mode=True)", "rounded up, as Caffe does")
    if not rounds or v["overhang"].equals(0):
        return Piece(f"nn.MaxPool2D({_window(layer)})", EXACT if rounds else "")
    size = _pair_text(v["crop"].literal)
    return Piece(f"CroppedMaxPool({_window(layer)}, size={size})", "MXNet keeps windows wholly in the padding")


def _pair_text(value: Any) -> str:
    return repr(value if isinstance(value, tuple) else (value, value))


def _avg_pool(layer: spec.AvgPool, v: Values) -> Piece:
    if v["overhang"].equals(0):
        counted = "" if layer.count_padding or layer.padding == (0, 0) else ", count_include_pad=False"
        trap = "the default would count the padded zeros" if counted else ""
        if layer.ceil and layer.stride != (1, 1):
            trap = "; ".join(filter(None, (trap, EXACT)))
        return Piece(f"nn.AvgPool2D({_window(layer)}{counted})", trap)
    fields = {"kernel": layer.kernel, "strides": layer.stride, "padding": layer.padding}
    named: Named = {name: (repr(value), UNSAID) for name, value in fields.items()}
    named |= {"overhang": (_pair_text(v["overhang"].literal), UNSAID), "counted": (repr(layer.count_padding), UNSAID)}
    return Piece(call("OverhangingAvgPool", **named), "rounded up, as Caffe does")


def _dense(layer: spec.Dense, v: Values) -> Piece:
    """Gluon's flattens by itself, and has the activation in it."""
    activation = f'"{v["activation"].literal}"'
    named: Named = {"activation": (activation, UNSAID)} if v["activation"].literal else {}
    return Piece(call("nn.Dense", v["units"], **named, use_bias=(v["bias"], True)))


def _batch_norm(layer: spec.BatchNorm, v: Values) -> Piece:
    keep = as_single(1 - layer.momentum)  # so it is read
    told: Named = {"momentum": (keep, UNSAID)} if keep != "0.9" else {}
    told |= {"epsilon": (repr(layer.eps), UNSAID)} if layer.eps != 1e-5 else {}
    told |= {"scale": ("False", UNSAID)} if not layer.gamma else {}
    told |= {"center": ("False", UNSAID)} if not layer.beta else {}
    told |= {"use_global_stats": ("True", UNSAID)} if layer.frozen else {}
    traps = ["the weight of the old statistics"] if keep != "0.9" else []
    traps += ["keeps the biased variance, the original the unbiased one"] if layer.unbiased and not layer.frozen else []
    return Piece(call("nn.BatchNorm", **told), "; ".join(traps))


def _kept(layer: spec.BatchNorm) -> spec.BatchNorm:
    """With the variance of n, and the weight of the old statistics that float32 has."""
    return replace(layer, unbiased=False, momentum=1 - float32(1 - layer.momentum))


def _local_response_norm(layer: spec.LocalResponseNorm, v: Values) -> Piece:
    alpha = layer.coefficient * layer.size
    trap = "" if layer.divide_alpha else "alpha is divided by the size here, which the paper's formula does not"
    numbers = f"size={layer.size}, alpha={alpha!r}, beta={layer.beta!r}, k={layer.k!r}"
    return Piece(f"local_response_norm({v['inputs'].text}, {numbers})", trap)


def _affine(layer: spec.Affine, v: Values) -> Piece:
    if layer.trained:
        return Piece(call("Affine", v["inputs"], rank=(v["rank"], UNSAID)))
    return Piece(call("Scale", repr(layer.scale), repr(layer.shift), rank=(v["rank"], UNSAID)))


def _lambda(text: str) -> Piece:
    return Piece(f"nn.HybridLambda(lambda F, x: {text})")


def _pad(layer: spec.Pad, v: Values) -> Piece:
    width = (0, 0, 0, 0, *layer.padding)
    value = f", constant_value={layer.value!r}" if layer.mode == "constant" else ""
    return _lambda(f'F.pad(x, mode="{layer.mode}", pad_width={width}{value})')


def _part(layer: spec.Slice, v: Values) -> Piece:
    return _lambda(f"F.slice_axis(x, axis={AXES[layer.axis] + 1}, begin={v['start'].text}, end={v['stop'].text})")


def _upsample(layer: spec.Upsample, v: Values) -> Piece:
    rows, columns = layer.factor
    if layer.mode == "bilinear":
        return Piece(f"Bilinear({_pair_text(v['map'].literal)}, factor={layer.factor})")
    return _lambda(f"F.repeat(F.repeat(x, {rows}, axis=2), {columns}, axis=3)")


def _reshape(layer: spec.Reshape, v: Values) -> Piece:
    return _lambda(f"F.reshape(x, {(0, *layer.shape)})")


PIECES: dict[type, Callable[[Any, Values], Piece]] = {
    spec.Conv: _conv,
    spec.MaxPool: _max_pool,
    spec.AvgPool: _avg_pool,
    spec.ConvTranspose: _conv_transpose,
    spec.Dense: _dense,
    spec.BatchNorm: _batch_norm,
    spec.LocalResponseNorm: _local_response_norm,
    spec.L2Normalize: lambda layer, v: Piece(
        f"L2Normalize(eps={layer.eps!r}, whole={layer.whole}, bound={layer.bound})"
    ),
    spec.Affine: _affine,
    spec.ReLU: lambda layer, v: Piece('nn.Activation("relu")'),
    spec.Sigmoid: lambda layer, v: Piece('nn.Activation("sigmoid")'),
    spec.Tanh: lambda layer, v: Piece('nn.Activation("tanh")'),
    spec.Clip: lambda layer, v: Piece(call("Clip", repr(layer.low), repr(layer.high))),
    spec.LeakyReLU: lambda layer, v: Piece(call("LeakyReLU", repr(layer.slope))),
    spec.PReLU: lambda layer, v: Piece(call("PReLU", "1" if layer.shared else v["inputs"], rank=(v["rank"], UNSAID))),
    spec.SiLU: lambda layer, v: Piece("nn.Swish()"),
    spec.ELU: lambda layer, v: Piece(call("ELU", repr(layer.alpha))),
    spec.SELU: lambda layer, v: Piece("SELU()", "nn.SELU has a wrong gradient below 0"),
    spec.GELU: lambda layer, v: Piece("TanhGELU()" if layer.approximate else "GELU()"),
    spec.Softplus: lambda layer, v: Piece(call("Softplus", threshold=(repr(linear_from(layer)), UNSAID))),
    spec.Softsign: lambda layer, v: Piece('nn.Activation("softsign")'),
    spec.Mish: lambda layer, v: Piece("Mish()"),
    spec.HardSigmoid: lambda layer, v: Piece(call("HardSigmoid", repr(layer.slope), repr(layer.offset))),
    spec.HardSwish: lambda layer, v: Piece("HardSwish()"),
    spec.Softmax: lambda layer, v: _lambda("F.softmax(x, axis=1)"),
    spec.GlobalAvgPool: lambda layer, v: Piece("nn.GlobalAvgPool2D()"),
    spec.GlobalMaxPool: lambda layer, v: Piece("nn.GlobalMaxPool2D()"),
    spec.Pad: _pad,
    spec.Slice: _part,
    spec.Upsample: _upsample,
    spec.ChannelShuffle: lambda layer, v: Piece(call("ChannelShuffle", v["groups"])),
    spec.Reshape: _reshape,
    spec.Flatten: lambda layer, v: Piece("nn.Flatten()"),
    spec.Dropout: lambda layer, v: Piece(call("nn.Dropout", v["rate"])),
}
check_complete(PIECES, __name__)


def merge(merge: Merge, texts: Sequence[str], broadcast: bool) -> str:
    """Several values as one; operators on equal shapes only are written as signs."""
    if merge == "concatenate":
        return f"concat(F, {', '.join(texts)})"
    if not broadcast:
        return (" + " if merge == "add" else " * ").join(texts)
    name = "F.broadcast_add" if merge == "add" else "F.broadcast_mul"
    return reduce(lambda one, other: f"{name}({one}, {other})", texts)


LOAD = '''
def load(path: str) -> NETWORK:
    """The network with the weights of a safetensors file."""
    network, weights = NETWORK(), load_file(path)
    network.initialize()
    for name, parameter in network._collect_params_with_prefix().items():
        parameter.set_data(mx.nd.array(weights[name]))
    return network
'''
LOAD_SOME = '''
def load(path: str) -> NETWORK:
    """The network with the weights of a safetensors file, which has no constants."""
    network = NETWORK()
    network.initialize()
    parameters = network._collect_params_with_prefix()
    for name, value in load_file(path).items():
        parameters[name].set_data(mx.nd.array(value))
    return network
'''
DIALECT = Dialect(
    framework="Gluon",
    numbers=NUMBERS,
    pieces=PIECES,
    imports={
        "math": "import math",
        "Any": "from typing import Any, TypeAlias",
        "mx": "import mxnet as mx",
        "np": "import numpy as np",
        "nn": "from mxnet.gluon import nn",
        "NDArray": "from numpy.typing import NDArray",
        "load_file": "from safetensors.numpy import load_file",
    },
    module="nn.HybridBlock",
    tensor="Tensor",
    sequence="nn.HybridSequential",
    row="sequence",
    place="{}",
    identity="sequence()",
    start="super().__init__()",
    extra="",
    extra_declared=(),
    forward="def hybrid_forward(self, F: Any, x: Tensor) -> RESULT:",
    merge=merge,
    training="mx.autograd.is_training()",
    train_flag="",
    layout=GLUON,
    channels_last=False,
    load=LOAD,
    load_with=dict.fromkeys(("get_constant", "scale=False", "center=False"), LOAD_SOME),
    helpers=str(Path(__file__).with_name("emitted.py")),
    ignored="N803",
    kept=_kept,
    keeps="Gluon's batch norm keeps the running variance with n, the spec's (PyTorch's) with n - 1: after training it "
    "is smaller by that share; the network is the same otherwise",
)
