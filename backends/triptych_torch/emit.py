"""Every record of the spec as PyTorch source: what `triptych emit` writes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from triptych.backend.source import Dialect, Named, Piece, Value, Values, call, of_single
from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.activations import linear_from
from triptych.spec.kinds.placement import AXES
from triptych.spec.layers import Merge
from triptych.weights.layouts import TORCH

NUMBERS: dict[type, tuple[str, ...]] = {
    spec.Conv: ("inputs", "channels", "kernel", "stride", "padding", "dilation", "groups", "bias"),
    spec.MaxPool: ("kernel", "stride", "padding", "ceil"),
    spec.AvgPool: ("kernel", "stride", "padding", "ceil", "count_padding"),
    spec.ConvTranspose: (
        *("inputs", "channels", "kernel", "stride", "padding", "output_padding"),
        *("dilation", "groups", "bias"),
    ),
    spec.Dense: ("inputs", "units", "bias"),
    spec.BatchNorm: ("inputs", "rank"),
    spec.Affine: ("inputs",),
    spec.PReLU: ("inputs",),
    spec.Slice: ("start", "stop"),
    spec.Reshape: ("shape",),
    spec.ChannelShuffle: ("groups",),
    spec.Dropout: ("rate",),
}


def _conv(layer: spec.Conv, v: Values) -> Piece:
    named: Named = {"stride": (v["stride"], 1), "padding": (v["padding"], 0), "dilation": (v["dilation"], 1)}
    named |= {"groups": (v["groups"], 1), "bias": (v["bias"], True)}
    return Piece(call("nn.Conv2d", v["inputs"], v["channels"], v["kernel"], **named))


def _conv_transpose(layer: spec.ConvTranspose, v: Values) -> Piece:
    named: Named = {
        "stride": (v["stride"], 1),
        "padding": (v["padding"], 0),
        "output_padding": (v["output_padding"], 0),
    }
    named |= {"groups": (v["groups"], 1), "bias": (v["bias"], True), "dilation": (v["dilation"], 1)}
    return Piece(call("nn.ConvTranspose2d", v["inputs"], v["channels"], v["kernel"], **named))


def _max_pool(layer: spec.MaxPool, v: Values) -> Piece:
    stride = (v["stride"], UNSAID) if v["stride"] != v["kernel"] else (v["stride"], v["stride"].literal)
    named: Named = {"stride": stride, "padding": (v["padding"], 0), "ceil_mode": (v["ceil"], False)}
    return Piece(call("nn.MaxPool2d", v["kernel"], **named), "rounded up, as Caffe does" if layer.ceil else "")


def _avg_pool(layer: spec.AvgPool, v: Values) -> Piece:
    stride = (v["stride"], UNSAID) if v["stride"] != v["kernel"] else (v["stride"], v["stride"].literal)
    counted = layer.count_padding if layer.padding == (0, 0) else True  # nothing is padded: either way
    named: Named = {"stride": stride, "padding": (v["padding"], 0), "ceil_mode": (v["ceil"], False)}
    named |= {"count_include_pad": (v["count_padding"], counted)}
    trap = "" if layer.count_padding == counted else "the default would count the padded zeros"
    return Piece(call("nn.AvgPool2d", v["kernel"], **named), trap)


def _batch_norm(layer: spec.BatchNorm, v: Values) -> Piece:
    named: Named
    flat, single = v["rank"].equals(1), of_single(layer.momentum)
    if layer.gamma and layer.beta and not layer.frozen and (layer.unbiased or not flat):
        named = {"eps": (_number(layer.eps), 1e-5), "momentum": (_number(layer.momentum), 0.1)}
        traps = ["eps is 1e-5 by default"] * (layer.eps != 1e-5) + [f"momentum {single}"] * bool(single)
        trap = "; ".join(traps)
        if layer.unbiased:
            return Piece(call("nn.BatchNorm1d" if flat else "nn.BatchNorm2d", v["inputs"], **named), trap)
        return Piece(call("BatchNorm", v["inputs"], **named), trap)
    named = {"eps": (_number(layer.eps), 1e-5), "momentum": (_number(layer.momentum), 0.1)}
    told = {"scale": layer.gamma, "shift": layer.beta, "unbiased": layer.unbiased}
    named |= {name: (repr(value), UNSAID) for name, value in told.items() if not value}
    named |= {"frozen": ("True", UNSAID)} if layer.frozen else {}
    return Piece(call("PlainBatchNorm", v["inputs"], **named), f"momentum {single}" if single else "")


def _local_response_norm(layer: spec.LocalResponseNorm, v: Values) -> Piece:
    alpha = layer.coefficient * layer.size
    trap = "" if layer.divide_alpha else "PyTorch divides alpha by the size, the paper's formula does not"
    named: Named = {"alpha": (repr(alpha), UNSAID), "beta": (repr(layer.beta), UNSAID), "k": (repr(layer.k), UNSAID)}
    return Piece(call("nn.LocalResponseNorm", str(layer.size), **named), trap)


def _affine(layer: spec.Affine, v: Values) -> Piece:
    if layer.trained:
        return Piece(call("Affine", v["inputs"]))
    return Piece(call("Scale", repr(layer.scale), repr(layer.shift)))


def _clip(layer: spec.Clip, v: Values) -> Piece:
    if (layer.low, layer.high) == (0.0, 6.0):
        return Piece("nn.ReLU6()")
    return Piece(
        call("nn.Hardtanh", repr(layer.low), repr(layer.high)), "torch.clamp has the derivative 1 at the bounds"
    )


def _softplus(layer: spec.Softplus, v: Values) -> Piece:
    trap = "the default, 20, is 2e-9 off" if layer.threshold is None else ""
    return Piece(call("nn.Softplus", threshold=(_number(linear_from(layer)), 20.0)), trap)


def _hard_sigmoid(layer: spec.HardSigmoid, v: Values) -> Piece:
    trap = "nn.Hardsigmoid has the slope 1/6" if layer.slope != 1 / 6 else ""
    return Piece(call("HardSigmoid", repr(layer.slope), repr(layer.offset)), trap)


def _l2_normalize(layer: spec.L2Normalize, v: Values) -> Piece:
    named: Named = {name: (repr(getattr(layer, name)), UNSAID) for name in ("eps", "whole", "bound")}
    return Piece(call("L2Normalize", **named))


def _pad(layer: spec.Pad, v: Values) -> Piece:
    above, below, left, right = layer.padding
    sides = repr((left, right, above, below))
    trap = "left, right, above, below" if len(set(layer.padding)) > 1 else ""
    if layer.mode == "constant":
        return Piece(call("nn.ConstantPad2d", sides, repr(layer.value)), trap)
    return Piece(call("nn.ReflectionPad2d" if layer.mode == "reflect" else "nn.ReplicationPad2d", sides), trap)


def _reshape(layer: spec.Reshape, v: Values) -> Piece:
    if len(layer.shape) == 1:
        return Piece("nn.Flatten()")
    return Piece(f"nn.Sequential(nn.Flatten(), {call('nn.Unflatten', '1', v['shape'])})")


def _upsample(layer: spec.Upsample, v: Values) -> Piece:
    factor = f"scale_factor=({float(layer.factor[0])}, {float(layer.factor[1])})"
    more = ', mode="bilinear", align_corners=False' if layer.mode == "bilinear" else ""
    return Piece(f"nn.Upsample({factor}{more})")


def _number(number: float) -> Value:
    return Value(repr(number), number)


UNSAID: Any = object()  # no value is this default
PIECES: dict[type, Callable[[Any, Values], Piece]] = {
    spec.Conv: _conv,
    spec.MaxPool: _max_pool,
    spec.AvgPool: _avg_pool,
    spec.ConvTranspose: _conv_transpose,
    spec.Dense: lambda layer, v: Piece(call("nn.Linear", v["inputs"], v["units"], bias=(v["bias"], True))),
    spec.BatchNorm: _batch_norm,
    spec.LocalResponseNorm: _local_response_norm,
    spec.L2Normalize: _l2_normalize,
    spec.Affine: _affine,
    spec.ReLU: lambda layer, v: Piece("nn.ReLU()"),
    spec.Sigmoid: lambda layer, v: Piece("nn.Sigmoid()"),
    spec.Tanh: lambda layer, v: Piece("nn.Tanh()"),
    spec.Clip: _clip,
    spec.LeakyReLU: lambda layer, v: Piece(call("nn.LeakyReLU", repr(layer.slope))),
    spec.PReLU: lambda layer, v: Piece(call("nn.PReLU", *([] if layer.shared else [v["inputs"]]))),
    spec.SiLU: lambda layer, v: Piece("nn.SiLU()"),
    spec.ELU: lambda layer, v: Piece(call("nn.ELU", repr(layer.alpha))),
    spec.SELU: lambda layer, v: Piece("nn.SELU()"),
    spec.GELU: lambda layer, v: Piece(call("nn.GELU", *(['approximate="tanh"'] if layer.approximate else []))),
    spec.Softplus: _softplus,
    spec.Softsign: lambda layer, v: Piece("nn.Softsign()"),
    spec.Mish: lambda layer, v: Piece("nn.Mish()"),
    spec.HardSigmoid: _hard_sigmoid,
    spec.HardSwish: lambda layer, v: Piece("nn.Hardswish()"),
    spec.Softmax: lambda layer, v: Piece("nn.Softmax(dim=1)"),
    spec.GlobalAvgPool: lambda layer, v: Piece("nn.AdaptiveAvgPool2d(1)"),
    spec.GlobalMaxPool: lambda layer, v: Piece("nn.AdaptiveMaxPool2d(1)"),
    spec.Pad: _pad,
    spec.Slice: lambda layer, v: Piece(call("Slice", str(AXES[layer.axis] + 1), v["start"], v["stop"])),
    spec.Upsample: _upsample,
    spec.ChannelShuffle: lambda layer, v: Piece(call("nn.ChannelShuffle", v["groups"])),
    spec.Reshape: _reshape,
    spec.Flatten: lambda layer, v: Piece("nn.Flatten()"),
    spec.Dropout: lambda layer, v: Piece(call("nn.Dropout", v["rate"])),
}
check_complete(PIECES, __name__)


def merge(merge: Merge, texts: Sequence[str], broadcast: bool) -> str:
    """Several values as one."""
    if merge == "concatenate":
        return f"torch.cat([{', '.join(texts)}], dim=1)"
    return (" + " if merge == "add" else " * ").join(texts)


LOAD = '''
def load(path: str) -> NETWORK:
    """The network with the weights of a safetensors file."""
    network = NETWORK()
    network.load_state_dict(load_file(path))
    return network
'''
DIALECT = Dialect(
    framework="PyTorch",
    numbers=NUMBERS,
    pieces=PIECES,
    imports={
        "torch": "import torch",
        "load_file": "from safetensors.torch import load_file",
        "nn": "from torch import nn",
    },
    module="nn.Module",
    tensor="torch.Tensor",
    sequence="nn.Sequential",
    row="nn.Sequential",
    place="{}",
    identity="nn.Identity()",
    start="super().__init__()",
    extra="",
    extra_declared=(),
    forward="def forward(self, x: torch.Tensor) -> RESULT:",
    merge=merge,
    training="self.training",
    train_flag="",
    layout=TORCH,
    channels_last=False,
    load=LOAD,
    helpers=str(Path(__file__).with_name("emitted.py")),
)
