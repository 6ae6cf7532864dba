"""MXNet's operators that convolutional networks are made of: inputs, outputs, attributes and their defaults, as data.

A file holds only what its author wrote, and what the MXNet of that day knew; all else is the operator's default, and
some bite: BatchNorm has eps 1e-3 and fix_gamma True, Deconvolution has no bias. Source: the parameter structures in
apache/mxnet src/operator (DMLC_DECLARE_FIELD, add_alias) of 1.9.1 and of 2.0; a test compares with the MXNet that is
installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from triptych.importers.mxnet_values import REQUIRED, Attribute, PerAxis, Value, to_single


@dataclass(frozen=True)
class Operator:
    """One operator: the names of its inputs, those of them that are auxiliary states, its attributes and outputs.

    An input named in `present` is there only where an attribute has that value. Where `counted` is the name of an
    attribute, that says how many inputs there are, unless an attribute says by `instead` that they are others.
    `outputs` counts those that do not show (batch norm's mean and variance), or names the attributes of which the first
    that is not 0 says it, by itself or by its length.
    """

    inputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()
    present: Mapping[str, tuple[str, Value]] = field(default_factory=dict)
    counted: str = ""
    instead: tuple[str, Value, tuple[str, ...]] | None = None
    outputs: int | tuple[str, ...] = 1

    def input_names(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """The inputs that there are for these attribute values, which are complete."""
        if self.instead and values[self.instead[0]] == self.instead[1]:
            return self.instead[2]
        if self.counted:
            number = values[self.counted]
            assert isinstance(number, int)
            return (self.inputs + ("",) * number)[:number]
        absent = {name for name, (attribute, value) in self.present.items() if values[attribute] != value}
        return tuple(name for name in self.inputs if name not in absent)

    def num_outputs(self, values: Mapping[str, Value]) -> int:
        """The number of outputs for these attribute values."""
        if isinstance(self.outputs, int):
            return self.outputs
        number = next((values[name] for name in self.outputs if values[name]), 0)
        assert isinstance(number, int | tuple)
        return number if isinstance(number, int) else len(number)


def _choice(*choices: str, default: str | None = None, optional: bool = False) -> Attribute:
    return Attribute("choice", default if optional or default else REQUIRED, optional, choices)


_IGNORED = Attribute("ignored", "")
_TRUE, _FALSE = Attribute("boolean", True), Attribute("boolean", False)
_SHAPE, _EMPTY = Attribute("shape"), Attribute("shape", ())
_POSITIVE = Attribute("integer", minimum=1)
_ONES = Attribute("shape", PerAxis(1), minimum=1)
_ZEROS = Attribute("shape", PerAxis(0), minimum=0)
_KERNEL = Attribute("shape", minimum=1)
_GROUPS = Attribute("integer", 1, minimum=1)
_LAYOUT = _choice("NCW", "NCHW", "NCDHW", "NWC", "NHWC", "NDHWC", optional=True)
_DATA_TYPE = _choice("float16", "float32", "float64", optional=True)


def _integer(default: int) -> Attribute:
    return Attribute("integer", default)


def _single(default: float) -> Attribute:
    return Attribute("single", to_single(default))


_CONVOLUTION = {
    "kernel": _KERNEL,
    "stride": _ONES,
    "dilate": _ONES,
    "pad": _ZEROS,
    "num_filter": _POSITIVE,
    "num_group": _GROUPS,
    "no_bias": _FALSE,
    "layout": _LAYOUT,
    "workspace": _IGNORED,
    "cudnn_tune": _IGNORED,
    "cudnn_off": _IGNORED,
}
_DECONVOLUTION = _CONVOLUTION | {
    "adj": _ZEROS,
    "target_shape": Attribute("shape", (), minimum=0),  # if given, pad and adj are computed from it
    "no_bias": _TRUE,
}
_POOLING_V1 = {
    "kernel": Attribute("shape", (), minimum=0),  # a global pool needs none
    "pool_type": _choice("max", "avg", "sum", "lp", default="max"),
    "global_pool": _FALSE,
    "pooling_convention": _choice("valid", "full", "same", default="valid"),  # floor, ceil, ceil of size / stride
    "stride": _ONES,
    "pad": _ZEROS,
}
_POOLING = _POOLING_V1 | {
    "p_value": Attribute("integer", None, optional=True),
    "count_include_pad": Attribute("boolean", None, optional=True),  # None means True
    "layout": _LAYOUT,
    "output_size": Attribute("shape", None, optional=True),  # of 2.0: an adaptive pool
    "cudnn_off": _IGNORED,
}
_BATCH_NORM_V1 = {
    # The default is a float even where the attribute is a double.
    "eps": Attribute("double", to_single(1e-3), minimum=0),
    "momentum": _single(0.9),
    "fix_gamma": _TRUE,
    "use_global_stats": _FALSE,
    "output_mean_var": _FALSE,
}
_BATCH_NORM = _BATCH_NORM_V1 | {
    "axis": _integer(1),
    "cudnn_off": _IGNORED,
    "min_calib_range": _IGNORED,
    "max_calib_range": _IGNORED,
}
_BATCH_NORM_INPUTS = ("data", "gamma", "beta", "moving_mean", "moving_var")
_SOFTMAX = {
    "axis": _integer(-1),
    "temperature": Attribute("double", None, optional=True),
    "dtype": _DATA_TYPE,
    "use_length": Attribute("boolean", False, optional=True),
}
_AXES = Attribute("shape", None, optional=True)
_REDUCTION = {"axis": _AXES, "keepdims": _FALSE, "exclude": _FALSE}
_NUMPY_MEAN = {
    "axis": _AXES,
    "dtype": _choice("float16", "float32", "float64", "int8", "int32", "int64", "bool", optional=True),
    "keepdims": _FALSE,
    "initial": Attribute("double", None, optional=True),
}
_WITH_BIAS = {"bias": ("no_bias", False)}

_UNARY = Operator(("data",))
_NUMPY_UNARY = Operator(("x",))
_NUMPY_UNARY_A = Operator(("a",))
_BINARY = Operator(("lhs", "rhs"))
_SCALAR = Operator(("data",), {"scalar": Attribute("double", 1.0), "is_int": _TRUE})
_REDUCE = Operator(("data",), _REDUCTION)
_CONCAT = Operator(
    (),
    {"num_args": _POSITIVE, "dim": Attribute("integer", 1, optional=True)},
    counted="num_args",
)

OPERATORS: dict[str, Operator] = {
    "Convolution": Operator(("data", "weight", "bias"), _CONVOLUTION, present=_WITH_BIAS),
    "Convolution_v1": Operator(("data", "weight", "bias"), _CONVOLUTION, present=_WITH_BIAS),
    "Deconvolution": Operator(("data", "weight", "bias"), _DECONVOLUTION, present=_WITH_BIAS),
    "FullyConnected": Operator(
        ("data", "weight", "bias"), {"num_hidden": _POSITIVE, "no_bias": _FALSE, "flatten": _TRUE}, present=_WITH_BIAS
    ),
    "BatchNorm": Operator(_BATCH_NORM_INPUTS, _BATCH_NORM, ("moving_mean", "moving_var"), outputs=3),
    "BatchNorm_v1": Operator(
        _BATCH_NORM_INPUTS,
        _BATCH_NORM_V1 | {"eps": Attribute("single", to_single(1e-3), minimum=0)},
        ("moving_mean", "moving_var"),
        outputs=3,
    ),
    "_contrib_SyncBatchNorm": Operator(
        _BATCH_NORM_INPUTS,
        _BATCH_NORM_V1 | {"eps": Attribute("single", to_single(1e-3), minimum=0), "ndev": _IGNORED, "key": _IGNORED},
        ("moving_mean", "moving_var"),
        outputs=3,
    ),
    "InstanceNorm": Operator(("data", "gamma", "beta"), {"eps": _single(1e-3)}, outputs=3),
    "LRN": Operator(
        ("data",),
        {"alpha": _single(1e-4), "beta": _single(0.75), "knorm": _single(2), "nsize": _POSITIVE},
        outputs=2,
    ),
    "L2Normalization": Operator(
        ("data",),
        {"eps": _single(1e-10), "mode": _choice("instance", "channel", "spatial", default="instance")},
        outputs=2,
    ),
    "Pooling": Operator(("data",), _POOLING, outputs=2),
    "Pooling_v1": Operator(("data",), _POOLING_V1),
    "_contrib_AdaptiveAvgPooling2D": Operator(("data",), {"output_size": _EMPTY}),
    "Activation": Operator(
        ("data",),
        {"act_type": _choice("relu", "sigmoid", "tanh", "softrelu", "softsign", "log_sigmoid", "mish")},
    ),
    "LeakyReLU": Operator(
        ("data", "gamma"),
        {
            "act_type": _choice(
                "leaky", "prelu", "elu", "selu", "gelu", "gelu_erf", "gelu_tanh", "rrelu", default="leaky"
            ),
            "slope": _single(0.25),
            "lower_bound": _single(0.125),
            "upper_bound": _single(0.334),
        },
        present={"gamma": ("act_type", "prelu")},
        outputs=2,
    ),
    "clip": Operator(("data",), {"a_min": Attribute("single"), "a_max": Attribute("single")}),
    "hard_sigmoid": Operator(("data",), {"alpha": _single(0.2), "beta": _single(0.5)}),
    "SoftmaxActivation": Operator(("data",), {"mode": _choice("instance", "channel", default="instance")}),
    "SoftmaxOutput": Operator(
        ("data", "label"),
        {
            "grad_scale": _single(1),
            "ignore_label": _single(-1),
            "multi_output": _FALSE,
            "use_ignore": _FALSE,
            "preserve_shape": _FALSE,
            "normalization": _choice("null", "batch", "valid", default="null"),
            "out_grad": _FALSE,
            "smooth_alpha": _single(0),
        },
    ),
    "softmax": Operator(("data", "length"), _SOFTMAX, present={"length": ("use_length", True)}),
    "log_softmax": Operator(("data",), _SOFTMAX),
    "Dropout": Operator(
        ("data",),
        {
            "p": Attribute("single", 0.5, minimum=0),
            "mode": _choice("training", "always", default="training"),
            "axes": _EMPTY,
            "cudnn_off": _IGNORED,
        },
        outputs=2,
    ),
    "Flatten": _UNARY,
    "Reshape": Operator(
        ("data",),
        {
            "shape": _EMPTY,
            "reverse": _FALSE,
            "target_shape": _EMPTY,  # of 0.x, where `shape` is empty
            "keep_highest": _FALSE,
        },
    ),
    "transpose": Operator(("data",), {"axes": _EMPTY}),  # none: reversed
    "SwapAxis": Operator(("data",), {"dim1": _integer(0), "dim2": _integer(0)}),
    "expand_dims": Operator(("data",), {"axis": Attribute("integer")}),
    "squeeze": Operator(("data",), {"axis": _AXES}),
    **dict.fromkeys(("reverse", "_npi_flip"), Operator(("data",), {"axis": _SHAPE})),
    "tile": Operator(("data",), {"reps": _SHAPE}),
    "repeat": Operator(("data",), {"repeats": _POSITIVE, "axis": Attribute("integer", None, optional=True)}),
    "broadcast_to": Operator(("data",), {"shape": _EMPTY}),
    "_npi_broadcast_to": Operator(("array",), {"shape": _EMPTY}),
    "broadcast_like": Operator(("lhs", "rhs"), {"lhs_axes": _AXES, "rhs_axes": _AXES}),
    "broadcast_axis": Operator(("data",), {"axis": _EMPTY, "size": _EMPTY}),
    **dict.fromkeys(("depth_to_space", "space_to_depth"), Operator(("data",), {"block_size": _POSITIVE})),
    "Concat": _CONCAT,
    "SliceChannel": Operator(
        ("data",), {"num_outputs": _POSITIVE, "axis": _integer(1), "squeeze_axis": _FALSE}, outputs=("num_outputs",)
    ),
    "_split_v2": Operator(
        ("data",),
        {
            "indices": _SHAPE,
            "axis": _integer(1),
            "squeeze_axis": _FALSE,
            "sections": Attribute("integer", 0, minimum=0),
        },
        outputs=("sections", "indices"),
    ),
    "slice": Operator(("data",), {"begin": _SHAPE, "end": _SHAPE, "step": _EMPTY}),
    "slice_axis": Operator(
        ("data",),
        {"axis": Attribute("integer"), "begin": Attribute("integer"), "end": Attribute("integer", optional=True)},
    ),
    "slice_like": Operator(("data", "shape_like"), {"axes": _EMPTY}),  # none: all of them
    "Crop": Operator(
        ("data", "crop_like"),
        {
            "num_args": _POSITIVE,
            "offset": Attribute("shape", (0, 0), minimum=0),
            "h_w": Attribute("shape", (0, 0), minimum=0),
            "center_crop": _FALSE,
        },
        counted="num_args",
    ),
    "Pad": Operator(
        ("data",),
        {
            "mode": _choice("constant", "edge", "reflect"),
            "pad_width": Attribute("shape", minimum=0),
            "constant_value": Attribute("double", 0.0),
        },
    ),
    "UpSampling": Operator(
        (),
        {
            "scale": _POSITIVE,
            "num_filter": _integer(0),
            "sample_type": _choice("nearest", "bilinear"),
            "multi_input_mode": _choice("concat", "sum", default="concat"),
            "num_args": _POSITIVE,
            "workspace": _IGNORED,
        },
        counted="num_args",
        instead=("sample_type", "bilinear", ("data", "weight")),
    ),
    "add_n": Operator((), {"num_args": _POSITIVE}, counted="num_args"),
    "Cast": Operator(
        ("data",),
        {"dtype": _choice("float16", "float32", "float64", "bfloat16", "int8", "uint8", "int32", "int64", "bool")},
    ),
    "sum": _REDUCE,
    "mean": _REDUCE,
    "max": _REDUCE,
    **dict.fromkeys(
        ("relu", "sigmoid", "tanh", "negative", "_copy", "BlockGrad", "softsign", "exp", "sqrt", "square"), _UNARY
    ),
    **dict.fromkeys(("_maximum", "_minimum"), _BINARY),
    **dict.fromkeys((f"elemwise_{name}" for name in ("add", "sub", "mul", "div")), _BINARY),
    **dict.fromkeys((f"broadcast_{name}" for name in ("add", "sub", "mul", "div", "maximum", "minimum")), _BINARY),
    **dict.fromkeys(
        (
            f"_{name}_scalar"
            for name in ("plus", "minus", "rminus", "mul", "div", "rdiv", "power", "maximum", "minimum")
        ),
        _SCALAR,
    ),
    # MXNet 2 and npx.set_np: the operators that are not the same under another name.
    **dict.fromkeys(
        (f"_npi_{name}" for name in ("add", "subtract", "multiply", "true_divide")), Operator(("lhs", "rhs"))
    ),
    **dict.fromkeys(
        (f"_npi_{name}_scalar" for name in ("add", "subtract", "rsubtract", "multiply", "true_divide", "rtrue_divide")),
        _SCALAR,
    ),
    "_npx_relu": _UNARY,
    "_npx_sigmoid": _UNARY,
    "_npi_tanh": _NUMPY_UNARY,
    "_npi_negative": _NUMPY_UNARY,
    # It reads `axis`, but describes itself with Concat's `dim`.
    "_npi_concatenate": Operator(
        (), {**_CONCAT.attributes, "axis": Attribute("integer", 0, optional=True)}, counted="num_args"
    ),
    "_npx_reshape": Operator(("a",), {"newshape": _SHAPE, "reverse": _FALSE, "order": _choice("C", default="C")}),
    "_np_reshape": Operator(("a",), {"newshape": _SHAPE, "order": _choice("C", default="C")}),
    "_npi_mean": Operator(("a",), _NUMPY_MEAN),
    "_np_sum": Operator(("a",), _NUMPY_MEAN),
    "_np_max": Operator(("a",), {key: _NUMPY_MEAN[key] for key in ("axis", "keepdims", "initial")}),
    # Named _np_ by 1.x and _npi_ by 2.0.
    **dict.fromkeys(("_np_copy", "_npi_copy"), _NUMPY_UNARY_A),
    **dict.fromkeys(("_np_transpose", "_npi_transpose"), Operator(("a",), {"axes": _AXES})),
    **dict.fromkeys(("_np_squeeze", "_npi_squeeze"), Operator(("a",), {"axis": _AXES})),
}

# Names that old files, or other front ends, give the same operators. `Softmax` is the loss, `softmax` is not.
_ALIASES = {
    "BatchNorm": "_npx_batch_norm CuDNNBatchNorm",
    "Convolution": "_npx_convolution",
    "Deconvolution": "_npx_deconvolution",
    "FullyConnected": "_npx_fully_connected",
    "Pooling": "_npx_pooling",
    "Activation": "_npx_activation",
    "LeakyReLU": "_npx_leaky_relu",
    "SoftmaxOutput": "Softmax",
    "softmax": "_npx_softmax",
    "log_softmax": "_npx_log_softmax",
    "Dropout": "_npx_dropout",
    "Flatten": "flatten _npx_batch_flatten",
    "Reshape": "reshape",
    "reverse": "flip",
    "_maximum": "_Maximum",
    "_minimum": "_Minimum",
    "SwapAxis": "swapaxes _npi_swapaxes",
    "expand_dims": "_npi_expand_dims",
    "_npx_reshape": "_npi_reshape",
    "Concat": "concat",
    "SliceChannel": "split",
    "_split_v2": "_npi_split",
    "_np_sum": "_npi_sum",
    "_np_max": "_npi_max",
    "broadcast_axis": "broadcast_axes",
    "tile": "_npi_tile",
    "broadcast_maximum": "_npi_maximum",
    "broadcast_minimum": "_npi_minimum",
    "slice": "crop _npx_slice _npi_slice",
    "Pad": "pad _npx_pad",
    "clip": "_npi_clip",
    "add_n": "ElementWiseSum",
    "Cast": "cast _npi_cast _npx_cast",
    "sum": "sum_axis",
    "max": "max_axis",
    "_copy": "identity",
    "BlockGrad": "stop_gradient",
    "elemwise_add": "_add _plus _Plus",
    "elemwise_sub": "_sub _minus _Minus",
    "elemwise_mul": "_mul _Mul",
    "elemwise_div": "_div _Div",
    "broadcast_add": "broadcast_plus",
    "broadcast_sub": "broadcast_minus",
    "_plus_scalar": "_PlusScalar",
    "_minus_scalar": "_MinusScalar",
    "_rminus_scalar": "_RMinusScalar",
    "_mul_scalar": "_MulScalar",
    "_div_scalar": "_DivScalar",
    "_rdiv_scalar": "_RDivScalar",
    "_power_scalar": "_PowerScalar",
    "_maximum_scalar": "_MaximumScalar _npi_maximum_scalar",
    "_minimum_scalar": "_MinimumScalar _npi_minimum_scalar",
}
ALIASES = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
