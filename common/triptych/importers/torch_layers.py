"""ATen operators that are layers of the spec: for each, its records and the arrays that it has.

Arguments go by the names of ATen's schemas (native_functions.yaml), with its defaults filled in."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from triptych.importers.activations import LARGEST, LOG_SIGMOID, celu, named
from triptych.importers.same_padding import pads
from triptych.importers.torch_program import Constant, TorchCall
from triptych.spec.layers import (
    ELU,
    GELU,
    Affine,
    AvgPool,
    BatchNorm,
    Clip,
    Conv,
    ConvTranspose,
    Dropout,
    GlobalAvgPool,
    GlobalMaxPool,
    L2Normalize,
    Layer,
    LeakyReLU,
    LocalResponseNorm,
    MaxPool,
    Pad,
    Pair,
    PReLU,
    ReLU,
    Shape,
    Softmax,
    Softplus,
    Upsample,
)


@dataclass(frozen=True, eq=False)
class Arguments:
    """Those of one call on a map, with the map's shape and that of the output, without the batch. `training`: whether
    the program is the one for training."""

    call: TorchCall
    values: Mapping[str, Any]
    input: Shape
    training: bool

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def output(self) -> Shape:
        return self.call.shape[1:]

    def weight(self, name: str = "weight") -> tuple[int, ...]:
        """The shape of a constant argument."""
        constant = self.values[name]
        if not isinstance(constant, Constant):
            self.refuse(f"its {name} is no parameter, but computed from the images")
        return tuple(constant.tensor.shape)

    def pair(self, name: str, default: Pair = (1, 1)) -> Pair:
        """Rows and columns of an argument that may be one number for both, or absent."""
        value = self.values.get(name)
        value = list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]
        return default if not value else (value[0], value[-1])

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            self.refuse(problem)

    def expect_map(self) -> None:
        self.expect(len(self.input) == 3, f"takes {self.input} without the batch; expected (channels, height, width)")

    def refuse(self, problem: str) -> NoReturn:
        raise self.call.refused(problem)


@dataclass(frozen=True)
class Operator:
    """`layers`: the records, of which the last has the `arrays` (their names there, by those of the arguments); none
    where the input is passed on. `pointwise`: each value by itself. `results`: how many there are."""

    layers: Callable[[Arguments], tuple[Layer, ...]]
    arrays: Mapping[str, str] = field(default_factory=dict)
    pointwise: bool = False
    results: int = 1


def _conv(call: Arguments) -> tuple[Layer, ...]:
    call.expect_map()
    shape = call.weight()
    call.expect(len(shape) == 4, "only 2-D convolutions are supported")
    kernel, stride, dilation = (shape[2], shape[3]), call.pair("stride"), call.pair("dilation")
    before, padding = _padding(call, kernel, dilation)
    groups, bias = call["groups"], call["bias"] is not None
    return (*before, Conv("", shape[0], kernel, stride, padding, groups, bias, dilation))


def _padding(call: Arguments, kernel: Pair, dilation: Pair) -> tuple[tuple[Layer, ...], Pair]:
    """'same' at an even kernel has the odd row below and the odd column on the right: a record of its own."""
    padding = call["padding"]
    if padding == "valid":
        return (), (0, 0)
    if padding != "same":
        return (), call.pair("padding", (0, 0))
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    rows, columns = total[0] // 2, total[1] // 2
    if all(t % 2 == 0 for t in total):
        return (), (rows, columns)
    return (Pad("pad", (rows, total[0] - rows, columns, total[1] - columns)),), (0, 0)


def _conv_transpose(call: Arguments) -> tuple[Layer, ...]:
    call.expect_map()
    shape = call.weight()
    call.expect(len(shape) == 4, "only 2-D transposed convolutions are supported")
    groups = call["groups"]
    return (
        ConvTranspose(
            "",
            shape[1] * groups,
            (shape[2], shape[3]),
            call.pair("stride"),
            call.pair("padding", (0, 0)),
            call.pair("output_padding", (0, 0)),
            groups,
            call["bias"] is not None,
            call.pair("dilation"),
        ),
    )


def _convolution(call: Arguments) -> tuple[Layer, ...]:
    return _conv_transpose(call) if call["transposed"] else _conv(call)


def _batch_norm(call: Arguments) -> tuple[Layer, ...]:
    call.expect(call["running_mean"] is not None, "has no running statistics (track_running_stats=False)")
    call.expect(call.training or not call["training"], "takes the statistics of the batch in evaluation, too")
    call.weight("running_mean")
    gamma, beta = call["weight"] is not None, call["bias"] is not None
    frozen = call.training and not call["training"]
    return (BatchNorm("", call["eps"], call["momentum"], gamma, True, beta, frozen),)


def _response_norm(call: Arguments) -> tuple[Layer, ...]:
    call.expect(call["size"] % 2 == 1, f"has the size {call['size']}; expected an odd one")
    return (LocalResponseNorm("", call["size"], call["alpha"], call["beta"], call["k"]),)


def _clip(low: str, high: str) -> Callable[[Arguments], tuple[Layer, ...]]:
    def layers(call: Arguments) -> tuple[Layer, ...]:
        bounds: tuple[Any, Any] = call.values.get(low), call.values.get(high)
        if bounds[0] == 0 and bounds[1] is None:
            return (ReLU(""),)
        ends = [none if bound is None else bound for bound, none in zip(bounds, (-LARGEST, LARGEST), strict=True)]
        if bounds == (None, None) or not all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends):
            call.refuse(f"has the bounds {bounds}; expected numbers, one at least")
        return (Clip("", *map(float, ends)),)

    return layers


def _prelu(call: Arguments) -> tuple[Layer, ...]:
    return (PReLU("", shared=math.prod(call.weight()) == 1 and call.input[0] != 1),)


def _softmax(call: Arguments) -> tuple[Layer, ...]:
    rank = len(call.input) + 1
    call.expect(call["dim"] % rank == 1, f"is along dimension {call['dim']} of {rank}; expected the channels, 1")
    return (Softmax(""),)


def _pool_window(call: Arguments) -> tuple[Pair, Pair, Pair, bool]:
    call.expect_map()
    kernel = call.pair("kernel_size")
    return kernel, call.pair("stride", kernel), call.pair("padding", (0, 0)), bool(call["ceil_mode"])


def _max_pool(call: Arguments) -> tuple[Layer, ...]:
    window = _pool_window(call)
    spread = [d for d, k in zip(call.pair("dilation"), window[0], strict=True) if k > 1]
    call.expect(set(spread) <= {1}, "has a dilation, which is not supported")
    return (MaxPool("", *window),)


def _avg_pool(call: Arguments) -> tuple[Layer, ...]:
    call.expect(call["divisor_override"] is None, "has a divisor of its own (divisor_override)")
    return (AvgPool("", *_pool_window(call), bool(call["count_include_pad"])),)


def _adaptive(
    one: Callable[[str], Layer], pool: Callable[[str, Pair, Pair], Layer]
) -> Callable[[Arguments], tuple[Layer, ...]]:
    def layers(call: Arguments) -> tuple[Layer, ...]:
        call.expect_map()
        size, wanted = call.input[1:], call.output[1:]
        if wanted == (1, 1):
            return (one(""),)
        if wanted == size:
            return ()
        factor = (wanted[0] // size[0], wanted[1] // size[1])
        if (factor[0] * size[0], factor[1] * size[1]) == wanted:
            return (Upsample("", factor),)
        kernel = (size[0] // wanted[0], size[1] // wanted[1])
        if (kernel[0] * wanted[0], kernel[1] * wanted[1]) != size:
            call.refuse(
                f"makes {wanted} of {size}, windows of several sizes; an input of another size (--input) may fit"
            )
        return (pool("", kernel, kernel),)

    return layers


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _pad(mode: str | None) -> Callable[[Arguments], tuple[Layer, ...]]:
    def layers(call: Arguments) -> tuple[Layer, ...]:
        call.expect_map()
        amounts = list(call.values.get("pad", call.values.get("padding")))
        amounts += [0] * (6 - len(amounts))
        named = mode or call["mode"]
        call.expect(named in _MODES, f"has the mode {named}; supported: {', '.join(_MODES)}")
        call.expect(
            len(amounts) == 6 and min(amounts) >= 0, f"pads {amounts}; expected rows, columns and channels, 0 or more"
        )
        left, right, above, below, before, behind = amounts
        value, sides = float(call.values.get("value") or 0.0), (above, below, left, right)
        if before or behind:
            call.expect(named == "constant", f"pads channels in the mode {named}; expected a constant")
            return pads(call.input, (before, behind), sides, value)
        return (Pad("", sides, value, _MODES[named]),)  # type: ignore[arg-type]

    return layers


def _upsample(mode: Any) -> Callable[[Arguments], tuple[Layer, ...]]:
    def layers(call: Arguments) -> tuple[Layer, ...]:
        call.expect_map()
        (rows, columns), (height, width) = call.output[1:], call.input[1:]
        factor = (rows // height, columns // width)
        one = all(1 in pair for pair in zip((height, width), factor, strict=True))  # a value that every way repeats
        call.expect(one or not call.values.get("align_corners"), "aligns corners, which is not supported")
        call.expect(
            (factor[0] * height, factor[1] * width) == (rows, columns), f"makes {rows}x{columns} of {height}x{width}"
        )
        scales = call.values.get("scale_factors") or [call.values.get("scales_h"), call.values.get("scales_w")]
        asked = [scale for scale in scales if scale is not None]
        call.expect(not asked or tuple(asked) == factor, f"has the factors {asked}; expected whole ones")
        return (Upsample("", factor, "nearest" if one else mode),) if factor != (1, 1) else ()

    return layers


def _dropout(call: Arguments) -> tuple[Layer, ...]:
    rate = float(call["p"])
    call.expect(rate < 1, "drops everything")
    return (Dropout("", rate),) if rate else ()


def _elu(call: Arguments) -> tuple[Layer, ...]:
    """`scale * alpha * (exp(input_scale * x) - 1)` below 0, `scale * x` above."""
    numbers = {name: float(call[name]) for name in ("scale", "input_scale")}
    call.expect(set(numbers.values()) == {1.0}, f"has {numbers} (SELU or CELU by hand); expected 1 for both")
    return (ELU("", float(call["alpha"])),)


def _celu(call: Arguments) -> tuple[Layer, ...]:
    call.expect(float(call["alpha"]) > 0, f"has the alpha {call['alpha']}; expected one above 0")
    return celu(float(call["alpha"]))


def _threshold(call: Arguments) -> tuple[Layer, ...]:
    numbers = float(call["threshold"]), float(call["value"])
    call.expect(numbers == (0, 0), f"has the threshold and the value {numbers}; expected 0 for both, a ReLU")
    return (ReLU(""),)


def _softplus(call: Arguments) -> tuple[Layer, ...]:
    """`log(1 + exp(beta * x)) / beta`, and x where `beta * x` is above the threshold."""
    beta, plain = float(call["beta"]), Softplus("", float(call["threshold"]))
    scaled = (Affine("scale", (beta,)), replace(plain, name="softplus"), Affine("", (1 / beta,)))
    return (plain,) if beta == 1 else scaled


def _plain(layer: Layer) -> Operator:
    return Operator(lambda call: (layer,), pointwise=True)


_WEIGHTS = {"weight": "weight", "bias": "bias"}
_STATISTICS = _WEIGHTS | {"running_mean": "running_mean", "running_var": "running_var"}

LAYERS: Mapping[str, Operator] = {
    "conv2d": Operator(_conv, _WEIGHTS),
    "convolution": Operator(_convolution, _WEIGHTS),
    "_convolution": Operator(_convolution, _WEIGHTS),
    "conv_transpose2d": Operator(_conv_transpose, _WEIGHTS),
    "batch_norm": Operator(_batch_norm, _STATISTICS),
    "local_response_norm": Operator(_response_norm),
    "normalize": Operator(lambda call: (L2Normalize("", float(call["eps"]), bound=True),)),
    **{name: _plain(layer) for name, layer in named("aten").items()},
    "activation": Operator(lambda call: (call["layer"],), pointwise=True),
    "elu": Operator(_elu, pointwise=True),
    "celu": Operator(_celu, pointwise=True),
    "log_sigmoid": Operator(lambda call: LOG_SIGMOID, pointwise=True),
    "threshold": Operator(_threshold, pointwise=True),
    "gelu": Operator(lambda call: (GELU("", call["approximate"] == "tanh"),), pointwise=True),
    "softplus": Operator(_softplus, pointwise=True),
    "hardtanh": Operator(_clip("min_val", "max_val"), pointwise=True),
    "clamp": Operator(_clip("min", "max"), pointwise=True),
    "clip": Operator(_clip("min", "max"), pointwise=True),
    "clamp_min": Operator(_clip("min", "max"), pointwise=True),
    "clamp_max": Operator(_clip("min", "max"), pointwise=True),
    "leaky_relu": Operator(lambda call: (LeakyReLU("", float(call["negative_slope"])),), pointwise=True),
    "prelu": Operator(_prelu, {"weight": "weight"}),
    "softmax": Operator(_softmax),
    "_softmax": Operator(_softmax),
    "log_softmax": Operator(_softmax),  # the logarithm is looked after where the network ends
    "_log_softmax": Operator(_softmax),
    "max_pool2d": Operator(_max_pool),
    "max_pool2d_with_indices": Operator(_max_pool, results=2),
    "avg_pool2d": Operator(_avg_pool),
    "adaptive_avg_pool2d": Operator(_adaptive(GlobalAvgPool, AvgPool)),
    "_adaptive_avg_pool2d": Operator(_adaptive(GlobalAvgPool, AvgPool)),
    "adaptive_max_pool2d": Operator(_adaptive(GlobalMaxPool, MaxPool), results=2),
    "pad": Operator(_pad(None)),
    "constant_pad_nd": Operator(_pad("constant")),
    "reflection_pad2d": Operator(_pad("reflect")),
    "replication_pad2d": Operator(_pad("replicate")),
    "upsample_nearest2d": Operator(_upsample("nearest")),
    "upsample_bilinear2d": Operator(_upsample("bilinear")),
    "dropout": Operator(_dropout, pointwise=True),
}
