"""Every record of the spec as Flax source: what `triptych emit` writes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from triptych.backend.source import UNKNOWN, Dialect, Named, Piece, Values, call, of_single
from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.layers import Merge
from triptych.weights.layouts import FLAX

NUMBERS: dict[type, tuple[str, ...]] = {
    spec.Conv: ("inputs", "channels", "kernel_pair", "stride", "padding", "dilation", "groups", "bias"),
    spec.MaxPool: ("overhang",),
    spec.AvgPool: ("overhang",),
    spec.ConvTranspose: ("inputs", "channels"),
    spec.Dense: ("inputs", "units", "bias"),
    spec.BatchNorm: ("inputs",),
    spec.Affine: ("inputs",),
    spec.PReLU: ("inputs",),
    spec.Slice: ("start", "stop"),
    spec.Reshape: ("shape",),
    spec.ChannelShuffle: ("groups",),
    spec.Dropout: ("rate",),
    spec.Flatten: ("rank",),
    spec.GlobalAvgPool: ("flattened",),
}
AXES = {"channels": -1, "rows": 1, "columns": 2}  # of (N, H, W, C); flat values have channels alone
EXACT = "rounded up at other sizes, and this rounds down"  # of a pool whose windows fit at this size
UNSAID: Any = object()  # no value is this default
RNGS = ("rngs", UNSAID)


def _conv(layer: spec.Conv, v: Values) -> Piece:
    """1x1 kernels are padded by nothing with `SAME` too."""
    single = v["kernel_pair"].equals((1, 1)) and v["padding"].equals(0)
    named: Named = {"strides": (v["stride"], 1), "padding": (v["padding"], 0 if single else UNSAID)}
    named |= {"kernel_dilation": (v["dilation"], 1), "feature_group_count": (v["groups"], 1)}
    named |= {"use_bias": (v["bias"], True), "rngs": RNGS}
    text = call("nnx.Conv", v["inputs"], v["channels"], v["kernel_pair"], **named)
    known = UNKNOWN not in (v["stride"].literal, v["padding"].literal, v["kernel_pair"].literal)
    return Piece(text, "" if single or (known and _same(layer)) else "the default is 'SAME'")


def _same(layer: spec.Conv) -> bool:
    """Whether Flax's default padding is this one at every size."""
    half = tuple((k - 1) * d // 2 for k, d in zip(layer.kernel, layer.dilation, strict=True))
    return layer.stride == (1, 1) and all(k % 2 for k in layer.kernel) and layer.padding == half


def _conv_transpose(layer: spec.ConvTranspose, v: Values) -> Piece:
    fields = ("stride", "padding", "output_padding", "dilation", "groups")
    named: Named = {name: (repr(getattr(layer, name)), UNSAID) for name in fields}
    named |= {"use_bias": (repr(layer.bias), UNSAID), "rngs": RNGS}
    text = call("ConvTranspose", v["inputs"], v["channels"], repr(layer.kernel), **named)
    return Piece(text)


def _max_pool(layer: spec.MaxPool, v: Values) -> Piece:
    """Rounded up by padding below and at the right: one less than the stride is right for every size, as long as no
    window begins in it."""
    (below, right), trap = _over(v), ""
    sides = list(zip(layer.kernel, layer.stride, layer.padding, strict=True))
    if layer.ceil and layer.stride != (1, 1) and all(p <= k - s for k, s, p in sides):
        below, right = (s - 1 for _, s, _ in sides)
        trap = "rounded up by the padding, as Caffe does"
    elif below or right:
        trap = "JAX rounds down: what the last windows hang over at this size is padding"
    elif layer.ceil and layer.stride != (1, 1):
        trap = EXACT
    return Piece(f"partial(nnx.max_pool, {_window(layer)}{_sides(layer, below, right)})", trap, True)


def _avg_pool(layer: spec.AvgPool, v: Values) -> Piece:
    (below, right), padded = _over(v), layer.padding != (0, 0)
    if below or right:
        sides = f", overhang={(below, right)}" + (f", counted={layer.count_padding}" if padded else "")
        text = f"partial(avg_pool_over, {_window(layer)}{_sides(layer, 0, 0)}{sides})"
        return Piece(text, "JAX rounds down, and would count what hangs over", True)
    counted = ", count_include_pad=False" if padded and not layer.count_padding else ""
    trap = "the default would count the padded zeros" if counted else ""
    if layer.ceil and layer.stride != (1, 1):
        trap = "; ".join(filter(None, (trap, EXACT)))
    return Piece(f"partial(nnx.avg_pool, {_window(layer)}{_sides(layer, 0, 0)}{counted})", trap, True)


def _global_avg_pool(layer: spec.GlobalAvgPool, v: Values) -> Piece:
    kept = "" if v["flattened"].equals("flatten") else ", keepdims=True"
    return Piece(f"partial(jnp.mean, axis=(1, 2){kept})", function=True)


def _window(layer: spec.Pool) -> str:
    """Strides are 1 by default."""
    return f"window_shape={layer.kernel}" + (f", strides={layer.stride}" if layer.stride != (1, 1) else "")


def _over(v: Values) -> spec.Pair:
    """Rows and columns by which the last windows hang over."""
    over = v["overhang"].literal
    return over if isinstance(over, tuple) else (over, over)


def _sides(layer: spec.Pool, below: int, right: int) -> str:
    (rows, columns) = layer.padding
    half = layer.padding == (layer.kernel[0] // 2, layer.kernel[1] // 2) and all(k % 2 for k in layer.kernel)
    if half and layer.stride == (1, 1) and any(layer.padding):
        return ', padding="SAME"'
    sides = ((rows, rows + below), (columns, columns + right))
    return f", padding={sides}" if any(map(any, sides)) else ""


def _batch_norm(layer: spec.BatchNorm, v: Values) -> Piece:
    named: Named = {"momentum": (repr(1 - layer.momentum), UNSAID)}
    named |= {"epsilon": (repr(layer.eps), UNSAID)} if layer.eps != 1e-5 else {}
    named |= {
        name: ("False", UNSAID) for name, there in (("use_scale", layer.gamma), ("use_bias", layer.beta)) if not there
    }
    named |= {"use_fast_variance": ("False", UNSAID), "rngs": RNGS}
    name = "FrozenBatchNorm" if layer.frozen else "BatchNorm" if layer.unbiased else "nnx.BatchNorm"
    single = of_single(1 - layer.momentum)
    trap = f"{single}; default: 0.99, fast but inexact" if single else "default: 0.99, fast but inexact"
    return Piece(call(name, v["inputs"], **named), trap)


def _local_response_norm(layer: spec.LocalResponseNorm, v: Values) -> Piece:
    numbers = f"size={layer.size}, alpha={layer.coefficient!r}, beta={layer.beta!r}, k={layer.k!r}"
    trap = f"alpha {layer.alpha:g}, divided by the size" if layer.divide_alpha else "alpha is not divided by the size"
    return Piece(f"partial(local_response_norm, {numbers})", trap, True)


def _affine(layer: spec.Affine, v: Values) -> Piece:
    if layer.trained:
        return Piece(call("Affine", v["inputs"]))
    return _function("affine", scale=layer.scale, shift=layer.shift)


def _elu(layer: spec.ELU, v: Values) -> Piece:
    return Piece("nnx.elu", function=True) if layer.alpha == 1 else _function("nnx.elu", alpha=layer.alpha)


def _gelu(layer: spec.GELU, v: Values) -> Piece:
    if layer.approximate:
        return Piece("nnx.gelu", "by default its tanh form", True)
    return Piece("partial(nnx.gelu, approximate=False)", "the default is its tanh form", True)


def _softplus(layer: spec.Softplus, v: Values) -> Piece:
    if layer.threshold is None:
        return Piece("nnx.softplus", function=True)
    return _function("softplus", threshold=layer.threshold)


def _pad(layer: spec.Pad, v: Values) -> Piece:
    above, below, left, right = layer.padding
    value = f"constant_values={layer.value!r}" if layer.mode == "constant" else f'mode="{layer.mode}"'
    sides = ((0, 0), (above, below), (left, right), (0, 0))
    return Piece(f"partial(jnp.pad, pad_width={sides}, {value})", function=True)


def _part(layer: spec.Slice, v: Values) -> Piece:
    numbers = f"start_index={v['start'].text}, limit_index={v['stop'].text}, axis={AXES[layer.axis]}"
    return Piece(f"partial(lax.slice_in_dim, {numbers})", function=True)


def _upsample(layer: spec.Upsample, v: Values) -> Piece:
    name = "upsample" if layer.mode == "nearest" else "upsample_bilinear"
    return _function(name, rows=layer.factor[0], columns=layer.factor[1])


def _flatten(layer: spec.Flatten, v: Values) -> Piece:
    if v["rank"].equals(1):
        return Piece("nnx.identity", function=True)
    return Piece("flatten", function=True)


def _function(name: str, **numbers: Any) -> Piece:
    """A function, of `emitted.py` perhaps, with these numbers."""
    told = ", ".join(f"{key}={value!r}" for key, value in numbers.items())
    return Piece(f"partial({name}, {told})", function=True)


PIECES: dict[type, Callable[[Any, Values], Piece]] = {
    spec.Conv: _conv,
    spec.MaxPool: _max_pool,
    spec.AvgPool: _avg_pool,
    spec.ConvTranspose: _conv_transpose,
    spec.Dense: lambda layer, v: Piece(
        call("nnx.Linear", v["inputs"], v["units"], use_bias=(v["bias"], True), rngs=RNGS)
    ),
    spec.BatchNorm: _batch_norm,
    spec.LocalResponseNorm: _local_response_norm,
    spec.L2Normalize: lambda layer, v: _function("l2_normalize", eps=layer.eps, whole=layer.whole, bound=layer.bound),
    spec.Affine: _affine,
    spec.ReLU: lambda layer, v: Piece("nnx.relu", function=True),
    spec.Sigmoid: lambda layer, v: Piece("nnx.sigmoid", function=True),
    spec.Tanh: lambda layer, v: Piece("nnx.tanh", function=True),
    spec.Clip: lambda layer, v: _function("clip", low=layer.low, high=layer.high),
    spec.LeakyReLU: lambda layer, v: _function("leaky_relu", slope=layer.slope),
    spec.PReLU: lambda layer, v: Piece(call("PReLU", "1" if layer.shared else v["inputs"])),
    spec.SiLU: lambda layer, v: Piece("nnx.silu", function=True),
    spec.ELU: _elu,
    spec.SELU: lambda layer, v: Piece("nnx.selu", function=True),
    spec.GELU: _gelu,
    spec.Softplus: _softplus,
    spec.Softsign: lambda layer, v: Piece("nnx.soft_sign", function=True),
    spec.Mish: lambda layer, v: Piece("jax.nn.mish", function=True),
    spec.HardSigmoid: lambda layer, v: _function("hard_sigmoid", slope=layer.slope, offset=layer.offset),
    spec.HardSwish: lambda layer, v: Piece("nnx.hard_swish", function=True),
    spec.Softmax: lambda layer, v: Piece("nnx.softmax", function=True),
    spec.GlobalAvgPool: _global_avg_pool,
    spec.GlobalMaxPool: lambda layer, v: Piece("global_max_pool", function=True),
    spec.Pad: _pad,
    spec.Slice: _part,
    spec.Upsample: _upsample,
    spec.ChannelShuffle: lambda layer, v: Piece(f"partial(channel_shuffle, groups={v['groups'].text})", function=True),
    spec.Reshape: lambda layer, v: Piece(f"partial(reshape, shape={v['shape'].text})", function=True),
    spec.Flatten: _flatten,
    spec.Dropout: lambda layer, v: Piece(call("nnx.Dropout", v["rate"], rngs=RNGS)),
}
check_complete(PIECES, __name__)


def merge(merge: Merge, texts: Sequence[str], broadcast: bool) -> str:
    """Several values as one."""
    if merge == "concatenate":
        return f"jnp.concatenate([{', '.join(texts)}], axis=-1)"
    return (" + " if merge == "add" else " * ").join(texts)


LOAD = '''
def load(path: str) -> NETWORK:
    """The network with the weights of a safetensors file."""
    network, weights = NETWORK(rngs=nnx.Rngs(0)), load_file(path)
    for keys, variable in nnx.to_flat_state(nnx.variables(network, (nnx.Param, nnx.BatchStat))):
        variable[...] = weights[".".join(map(str, keys))]
    return network
'''
DIALECT = Dialect(
    framework="Flax",
    numbers=NUMBERS,
    pieces=PIECES,
    imports={
        "partial": "from functools import partial",
        "jax": "import jax",
        "jnp": "import jax.numpy as jnp",
        "nnx": "from flax import nnx",
        "lax": "from jax import lax",
        "load_file": "from safetensors.flax import load_file",
    },
    module="nnx.Module",
    tensor="jax.Array",
    sequence="nnx.Sequential",
    row="nnx.Sequential",
    place="layers.{}",
    identity="nnx.identity",
    start="",
    extra="rngs=rngs",
    extra_declared=("*", "rngs: nnx.Rngs"),
    forward="def __call__(self, x: jax.Array) -> RESULT:",
    merge=merge,
    training="not self.deterministic",
    train_flag="self.deterministic = False  # what train() and eval() set",
    layout=FLAX,
    channels_last=True,
    load=LOAD,
    helpers=str(Path(__file__).with_name("emitted.py")),
)
