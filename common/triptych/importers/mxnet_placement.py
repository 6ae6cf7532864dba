"""What MXNet's operators that move, cut, join or scale values are in the spec: a table, a function for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from triptych.importers.mxnet_calls import Call, Constant
from triptych.importers.mxnet_layers import Convert
from triptych.importers.mxnet_tensors import Tensor, reshaped
from triptych.spec.layers import (
    Affine,
    Block,
    ConvTranspose,
    GlobalAvgPool,
    Merge,
    Pad,
    Shape,
    Slice,
    Upsample,
)

Axis = Literal["channels", "rows", "columns"]
_PAD_MODES: Mapping[str, Literal["constant", "edge", "reflect"]] = {
    "constant": "constant",
    "edge": "edge",
    "reflect": "reflect",
}
_AXES: tuple[Axis, ...] = ("channels", "rows", "columns")


def _axis(call: Call, axis: int, shape: Shape) -> int:
    """`axis` counted from 0 behind the batch. Refuses the batch and what is none."""
    number = len(shape) + 1
    if not -number <= axis < number or axis % number == 0:
        raise call.refused(f"has axis {axis}, which is the batch or none of its {number}")
    return axis % number - 1


# Values of another shape or order


def _flatten(call: Call) -> Tensor:
    given = call.any_tensor()
    return given if len(given.shape) == 1 else call.viewed(given, (math.prod(given.shape),))


def _reshape(call: Call) -> Tensor:
    codes, old, reverse = call.integers("shape"), call.integers("target_shape"), bool(call.integer("reverse"))
    if not codes and old:  # up to 0.8: an axis of 0 is what is left
        codes = tuple(-1 if code == 0 else code for code in old)
        codes = (0, *codes[1:]) if call.integer("keep_highest") else codes
    return _viewed(call, codes, reverse)


def _viewed(call: Call, codes: tuple[int, ...], reverse: bool) -> Tensor:
    given = call.any_tensor()
    try:
        return call.viewed(given, reshaped(given.shape, codes, reverse))
    except ValueError as error:
        raise call.refused(f"has the shape {codes}, which {error}") from None


_NUMPY_CODES = {-1: -1, -2: 0, -4: -2, -5: -3, -6: -4}


def _numpy_reshape(call: Call) -> Tensor:
    codes = call.integers("newshape")
    if any(code not in _NUMPY_CODES for code in codes if code < 1):
        raise call.refused(f"has the newshape {codes}, and of codes only -1, -2, -4, -5, -6 are taken")
    codes = tuple(_NUMPY_CODES.get(code, code) for code in codes)
    return _viewed(call, codes, bool(call.integer("reverse")))


def _numpy_reshape_by_sizes(call: Call) -> Tensor:
    return _viewed(call, tuple(code or -5 for code in call.integers("newshape")), reverse=False)


def _moved(call: Call, axes: Sequence[int]) -> Tensor:
    """With the axes, the batch among them, in this order."""
    given = call.any_tensor()
    if sorted(axes) != list(range(len(given.shape) + 1)) or axes[0] != 0:
        raise call.refused(f"moves the batch, or has the axes {tuple(axes)} for {len(given.shape) + 1}")
    try:
        return given.transposed([axis - 1 for axis in axes[1:]], call.node.name)
    except ValueError as error:
        raise call.refused(str(error)) from None


def _transpose(call: Call) -> Tensor:
    number = len(call.any_tensor().shape) + 1
    axes = call.integers("axes") or tuple(reversed(range(number)))
    return _moved(call, [axis % number for axis in axes])


def _swap_axes(call: Call) -> Tensor:
    given = call.any_tensor()
    first, second = (_axis(call, call.integer(key), given.shape) + 1 for key in ("dim1", "dim2"))
    axes = list(range(len(given.shape) + 1))
    axes[first], axes[second] = axes[second], axes[first]
    return _moved(call, axes)


def _expand_dims(call: Call) -> Tensor:
    given, axis = call.any_tensor(), call.integer("axis")
    place = axis if axis >= 0 else axis + len(given.shape) + 2
    if not 1 <= place <= len(given.shape) + 1:
        raise call.refused(f"has axis {axis}, which is before the batch or none")
    return call.viewed(given, (*given.shape[: place - 1], 1, *given.shape[place - 1 :]))


def _squeeze(call: Call) -> Tensor:
    given = call.any_tensor()
    axes = {_axis(call, axis, given.shape) for axis in call.integers("axis")}
    axes = axes or {axis for axis, size in enumerate(given.shape) if size == 1}
    if any(given.shape[axis] != 1 for axis in axes):
        raise call.refused(f"takes away an axis that is not 1, of {given.shape}")
    return call.viewed(given, tuple(size for axis, size in enumerate(given.shape) if axis not in axes))


# Parts


def _cut(call: Call, given: Tensor, axis: int, start: int, stop: int, part: str = "") -> Tensor:
    """From `start` up to `stop` along an axis, counted from 0 behind the batch."""
    if not 0 <= start < stop <= given.shape[axis]:
        raise call.refused(f"takes {start} to {stop} of an axis of {given.shape[axis]}")
    if (start, stop) == (0, given.shape[axis]):
        return given
    return call.add(Slice("", _AXES[axis], start, stop), given, part=part)


def _cut_several(call: Call, given: Tensor, bounds: Sequence[tuple[int, int]]) -> Tensor:
    """One cut for each axis behind the batch; the last has the node's name."""
    cuts = [axis for axis, (start, stop) in enumerate(bounds) if (start, stop) != (0, given.shape[axis])]
    for axis in cuts:
        given = _cut(call, given, axis, *bounds[axis], "" if axis == cuts[-1] else _AXES[axis])
    return given


def _slice_channel(call: Call) -> Sequence[Tensor]:
    given, number = call.tensor(), call.integer("num_outputs")
    axis = _axis(call, call.integer("axis"), given.shape)
    size = given.shape[axis] // number
    if size * number != given.shape[axis] or number > 4096:
        raise call.refused(f"makes {number} parts of an axis of {given.shape[axis]}")
    if number == 1:
        parts = [given]
    else:
        parts = [_cut(call, given, axis, i * size, (i + 1) * size, str(i)) for i in range(number)]
    if not call.integer("squeeze_axis") or size != 1:
        return parts
    shape = given.shape[:axis] + given.shape[axis + 1 :]
    return [call.viewed(part, shape, "") for part in parts]


def _bounds(begin: int | None, end: int | None, size: int) -> tuple[int, int]:
    start = begin or 0
    stop = size if end is None else end
    return start + size * (start < 0), min(stop + size * (stop < 0), size)


def _slice_axis(call: Call) -> Tensor:
    given, end = call.tensor(), call.node.values["end"]
    axis = _axis(call, call.integer("axis"), given.shape)
    assert end is None or isinstance(end, int)
    return _cut(call, given, axis, *_bounds(call.integer("begin"), end, given.shape[axis]))


def _slice(call: Call) -> Tensor:
    given, values = call.tensor(), call.node.values
    begin, end, step = values["begin"], values["end"], values["step"]
    assert isinstance(begin, tuple)
    assert isinstance(end, tuple)
    assert isinstance(step, tuple)
    if any(one not in (None, 1) for one in step) or len(begin) != len(end) or len(begin) > len(given.shape) + 1:
        raise call.refused("has steps other than 1, or as many bounds as it has no axes")
    if begin[:1] not in ((), (None,), (0,)) or end[:1] not in ((), (None,)):
        raise call.refused("takes a part of the batch")
    bounds = [(0, size) for size in given.shape]
    for axis, (first, last) in enumerate(zip(begin[1:], end[1:], strict=True)):
        bounds[axis] = _bounds(first, last, given.shape[axis])
    return _cut_several(call, given, bounds)


def _slice_like(call: Call) -> Tensor:
    """Of the axes, all or those that are named, as much as a second input has, from the start."""
    given, like = call.tensor(), call.any_tensor(1)
    axes = {_axis(call, axis, given.shape) for axis in call.integers("axes")} or set(range(len(given.shape)))
    if max(axes) >= len(like.shape):
        raise call.refused(f"takes the sizes of {like.shape} for {given.shape}")
    bounds = [(0, like.shape[axis] if axis in axes else size) for axis, size in enumerate(given.shape)]
    return _cut_several(call, given, bounds)


def _crop(call: Call) -> Tensor:
    """To the rows and columns of a second input, or to h_w."""
    given = call.image()
    rows, columns = call.image(1).shape[1:] if len(call.inputs) > 1 else call.pair("h_w")
    top, left = call.pair("offset")
    if call.integer("center_crop"):
        top, left = (given.shape[1] - rows) // 2, (given.shape[2] - columns) // 2
    return _cut_several(call, given, [(0, given.shape[0]), (top, top + rows), (left, left + columns)])


# More places


def _pad(call: Call) -> Tensor:
    widths, mode, given = call.integers("pad_width"), _PAD_MODES[call.text("mode") or ""], call.image()
    if len(widths) != 8 or any(widths[:4]):
        raise call.refused(f"has the pad_width {widths}, and only rows and columns are padded")
    top, below, left, right = widths[4:]
    value = call.number("constant_value") if mode == "constant" else 0.0
    return call.add(Pad("", (top, below, left, right), value, mode), given)


def _upsampling(call: Call) -> Tensor:
    if call.text("sample_type") == "bilinear":
        return _upsampling_with_weight(call)
    images, scale = [call.image(number) for number in range(len(call.inputs))], call.integer("scale")
    rows, columns = (scale * size for size in images[0].shape[1:])
    parts = []
    for number, image in enumerate(images):
        if rows % image.shape[1] or columns % image.shape[2]:
            raise call.refused(f"makes {rows}x{columns} of {image.shape[1]}x{image.shape[2]}, no whole multiple")
        factor = (rows // image.shape[1], columns // image.shape[2])
        parts.append(call.add(Upsample("", factor), image, part=str(number) if len(images) > 1 else ""))
    merge: Merge = "concatenate" if call.text("multi_input_mode") == "concat" else "add"
    return parts[0] if len(parts) == 1 else call.add(Block("", ()), *parts, merge=merge)


def _upsampling_with_weight(call: Call) -> Tensor:
    """MXNet's bilinear one is a transposed convolution of each channel by itself, with a trained weight
    (upsampling-inl.h, UpSamplingProp's DeconvolutionParam)."""
    given, scale = call.image(), call.integer("scale")
    size, padding, channels = 2 * scale - scale % 2, scale // 2, given.shape[0]
    layer = ConvTranspose("", channels, (size, size), (scale, scale), (padding, padding), groups=channels, bias=False)
    return call.add(layer, arrays=call.arrays(weight=("weight", (channels, 1, size, size))))


# Several inputs


def _concat(call: Call) -> Tensor:
    tensors = [call.tensor(number) for number in range(len(call.inputs))]
    key = "axis" if "axis" in call.node.values else "dim"
    axis = call.node.values[key]
    if not isinstance(axis, int):
        raise call.refused(f"has the {key} None")
    if _axis(call, axis, tensors[0].shape) != 0:
        raise call.refused(f"joins along axis {axis}, and only 1, the channels, is taken")
    return tensors[0] if len(tensors) == 1 else call.add(Block("", ()), *tensors)


def _joined(merge: Merge) -> Convert:
    def convert(call: Call) -> Tensor:
        if any(isinstance(given, Constant) for given in call.inputs):
            return _with_constant(call, merge)
        tensors = [call.tensor(number) for number in range(len(call.inputs))]
        return tensors[0] if len(tensors) == 1 else call.add(Block("", ()), *tensors, merge=merge)

    return convert


def _with_constant(call: Call, merge: Merge) -> Tensor:
    """A scale or a shift whose numbers are an array of the file, one for each channel or one for all."""
    constants = [given for given in call.inputs if isinstance(given, Constant)]
    if len(constants) != 1 or len(call.inputs) != 2:
        raise call.refused("takes several arrays of the file")
    name, array = constants[0].name, constants[0].array
    given = call.tensor(0 if call.inputs[1] is constants[0] else 1)
    places = (1,) * (len(given.shape) - 1)
    if array.shape not in {shape for n in {1, given.shape[0]} for shape in ((1, n, *places), (n, *places))} | {(1,)}:
        raise call.refused(f"takes the array {name!r} of shape {array.shape}, not one number for each channel")
    numbers = tuple(float(number) for number in array.ravel())
    call.building.remarks.append(f"the array {name!r} is a constant here; MXNet would train it")
    return call.add(Affine("", numbers) if merge == "multiply" else Affine("", shift=numbers), given)


def _difference(call: Call) -> Tensor:
    minus = call.add(Affine("", (-1.0,)), call.tensor(1), part="minus")
    return call.add(Block("", ()), call.tensor(0), minus, merge="add")


def _scalar(affine: Callable[[float], tuple[float, float]]) -> Convert:
    """Of `affine(scalar)`, the scale and the shift."""

    def convert(call: Call) -> Tensor:
        scale, shift = affine(call.number("scalar"))
        if not (math.isfinite(scale) and math.isfinite(shift)):
            raise call.refused(f"has the scalar {call.number('scalar'):g}")
        return call.each_value(Affine("", (scale,), (shift,)))

    return convert


def _inverse(scalar: float) -> tuple[float, float]:
    return 1 / scalar if scalar else math.inf, 0.0


def _mean(call: Call) -> Tensor:
    return _reduced(call, call.add(GlobalAvgPool(""), _over_the_map(call)))


def _sum(call: Call) -> Tensor:
    given = _over_the_map(call)
    mean = call.add(GlobalAvgPool(""), given, part="mean")
    return _reduced(call, call.add(Affine("", (float(math.prod(given.shape[1:])),)), mean))


def _over_the_map(call: Call) -> Tensor:
    """The input, if the reduction is over its rows and columns."""
    given, axes = call.image(), call.integers("axis")
    number = len(given.shape) + 1
    over = {axis % number for axis in axes}
    if call.node.values.get("exclude"):
        over = set(range(number)) - over
    if over != {2, 3} or call.node.values.get("initial") is not None:
        raise call.refused(f"reduces the axes {axes or 'all'}, and only rows and columns (2, 3) are taken")
    return given


def _reduced(call: Call, tensor: Tensor) -> Tensor:
    return tensor if call.integer("keepdims") else call.viewed(tensor, tensor.shape[:1], "")


def _as_it_is(call: Call) -> Tensor:
    return call.any_tensor()


def _stopped(call: Call) -> Tensor:
    call.building.remarks.append(f"gradients go through {call.node.name!r} (BlockGrad) here; MXNet stops them")
    return call.any_tensor()


def _cast(call: Call) -> Tensor:
    if call.text("dtype") not in ("float16", "float32", "float64", "bfloat16"):
        raise call.refused(f"rounds to {call.text('dtype')}")
    return call.any_tensor()


_PLUS = _scalar(lambda scalar: (1.0, scalar))
_MINUS = _scalar(lambda scalar: (1.0, -scalar))
_FROM = _scalar(lambda scalar: (-1.0, scalar))
_TIMES = _scalar(lambda scalar: (scalar, 0.0))
_OVER = _scalar(_inverse)

PLACEMENT: Mapping[str, Convert] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "_npx_reshape": _numpy_reshape,
    "_np_reshape": _numpy_reshape_by_sizes,
    **dict.fromkeys(("transpose", "_np_transpose", "_npi_transpose"), _transpose),
    "SwapAxis": _swap_axes,
    "expand_dims": _expand_dims,
    **dict.fromkeys(("squeeze", "_np_squeeze", "_npi_squeeze"), _squeeze),
    "SliceChannel": _slice_channel,
    "slice_axis": _slice_axis,
    "slice": _slice,
    "slice_like": _slice_like,
    "Crop": _crop,
    "Pad": _pad,
    "UpSampling": _upsampling,
    **dict.fromkeys(("Concat", "_npi_concatenate"), _concat),
    **dict.fromkeys(("elemwise_add", "broadcast_add", "_npi_add", "add_n"), _joined("add")),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul", "_npi_multiply"), _joined("multiply")),
    **dict.fromkeys(("elemwise_sub", "broadcast_sub", "_npi_subtract"), _difference),
    **dict.fromkeys(("_plus_scalar", "_npi_add_scalar"), _PLUS),
    **dict.fromkeys(("_minus_scalar", "_npi_subtract_scalar"), _MINUS),
    **dict.fromkeys(("_rminus_scalar", "_npi_rsubtract_scalar"), _FROM),
    **dict.fromkeys(("_mul_scalar", "_npi_multiply_scalar"), _TIMES),
    **dict.fromkeys(("_div_scalar", "_npi_true_divide_scalar"), _OVER),
    **dict.fromkeys(("negative", "_npi_negative"), lambda call: call.each_value(Affine("", (-1.0,)))),
    **dict.fromkeys(("mean", "_npi_mean"), _mean),
    "sum": _sum,
    **dict.fromkeys(("_copy", "_np_copy", "_npi_copy"), _as_it_is),
    "BlockGrad": _stopped,
    "Cast": _cast,
}
