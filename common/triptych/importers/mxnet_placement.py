"""What MXNet's operators that move, cut, pad or repeat values are in the spec: a table, a function for each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from triptych.importers.mxnet_calls import SymbolCall
from triptych.importers.mxnet_layers import Convert
from triptych.importers.mxnet_tensors import SymbolTensor, reshaped
from triptych.spec.layers import (
    Block,
    ConvTranspose,
    Merge,
    Pad,
    Shape,
    Slice,
    Upsample,
)

Order = NDArray[np.int32]
Axis = Literal["channels", "rows", "columns"]
_PAD_MODES: Mapping[str, Literal["constant", "edge", "reflect"]] = {
    "constant": "constant",
    "edge": "edge",
    "reflect": "reflect",
}
_MOST_PARTS = 4096
_MOST_REPEATED = 1 << 22  # values of a tensor in which some are several times
_AXES: tuple[Axis, ...] = ("channels", "rows", "columns")


# Values of another shape or order


def _flatten(call: SymbolCall) -> SymbolTensor:
    given = call.any_tensor()
    return given if len(given.shape) == 1 else call.viewed(given, (math.prod(given.shape),))


def _reshape(call: SymbolCall) -> SymbolTensor:
    codes, old, reverse = call.integers("shape"), call.integers("target_shape"), bool(call.integer("reverse"))
    if not codes and old:  # up to 0.8: an axis of 0 is what is left
        codes = tuple(-1 if code == 0 else code for code in old)
        codes = (0, *codes[1:]) if call.integer("keep_highest") else codes
    return _viewed(call, codes, reverse)


def _viewed(call: SymbolCall, codes: tuple[int, ...], reverse: bool) -> SymbolTensor:
    given = call.any_tensor()
    try:
        return call.viewed(given, reshaped(given.shape, codes, reverse))
    except ValueError as error:
        raise call.refused(f"has the shape {codes}, which {error}") from None


_NUMPY_CODES = {-1: -1, -2: 0, -4: -2, -5: -3, -6: -4}


def _numpy_reshape(call: SymbolCall) -> SymbolTensor:
    codes = call.integers("newshape")
    if any(code not in _NUMPY_CODES for code in codes if code < 1):
        raise call.refused(f"has the newshape {codes}, and of codes only -1, -2, -4, -5, -6 are taken")
    codes = tuple(_NUMPY_CODES.get(code, code) for code in codes)
    return _viewed(call, codes, bool(call.integer("reverse")))


def _numpy_reshape_by_sizes(call: SymbolCall) -> SymbolTensor:
    return _viewed(call, tuple(code or -5 for code in call.integers("newshape")), reverse=False)


def _moved(call: SymbolCall, axes: Sequence[int]) -> SymbolTensor:
    """With the axes, the batch among them, in this order."""
    given = call.any_tensor()
    if sorted(axes) != list(range(len(given.shape) + 1)) or axes[0] != 0:
        raise call.refused(f"moves the batch, or has the axes {tuple(axes)} for {len(given.shape) + 1}")
    try:
        return given.transposed([axis - 1 for axis in axes[1:]], call.node.name)
    except ValueError as error:
        raise call.refused(str(error)) from None


def _moved_by(call: SymbolCall, move: Callable[[Order], Order]) -> SymbolTensor:
    try:
        return call.any_tensor().moved(move, call.node.name)
    except ValueError as error:
        raise call.refused(str(error)) from None


def _reverse(call: SymbolCall) -> SymbolTensor:
    """Along axes, counted with the batch."""
    axes = [call.axis(axis, call.any_tensor().shape) for axis in call.integers("axis")]
    return _moved_by(call, lambda places: np.flip(places, tuple(axes)))


def _repeated(call: SymbolCall, shape: Shape, move: Callable[[Order], Order]) -> SymbolTensor:
    """With values several times, by which it gets this shape."""
    if math.prod(shape) > _MOST_REPEATED:
        raise call.refused(f"makes {shape}, more values than are followed here ({_MOST_REPEATED})")
    return _moved_by(call, move)


def _tile(call: SymbolCall) -> SymbolTensor:
    """The whole of it several times, along each axis; of `reps` the last are the last axes'."""
    given, reps = call.any_tensor(), call.integers("reps")
    reps = (1,) * (len(given.shape) + 1 - len(reps)) + reps
    if len(reps) > len(given.shape) + 1 or reps[0] != 1 or min(reps) < 1:
        raise call.refused(f"has the reps {reps}, which repeat the batch or nothing")
    shape = tuple(size * times for size, times in zip(given.shape, reps[1:], strict=True))
    return _repeated(call, shape, lambda places: np.tile(places, reps[1:]))


def _repeat(call: SymbolCall) -> SymbolTensor:
    """Each value several times along an axis."""
    given, times, axis = call.any_tensor(), call.integer("repeats"), call.node.values["axis"]
    if not isinstance(axis, int):
        raise call.refused("has no axis, and repeats the batch with the rest")
    along = call.axis(axis, given.shape)
    shape = (*given.shape[:along], given.shape[along] * times, *given.shape[along + 1 :])
    return _repeated(call, shape, lambda places: places.repeat(times, along))


def _broadcast(call: SymbolCall, sizes: Sequence[int]) -> SymbolTensor:
    """To these sizes behind the batch, each of which is the axis's own or, where that is 1, another."""
    given, shape = call.any_tensor(), tuple(sizes)
    if len(shape) != len(given.shape) or any(old not in (1, new) for old, new in zip(given.shape, shape, strict=True)):
        raise call.refused(f"makes {shape} of {given.shape}, and only axes of 1 are repeated")
    return _repeated(call, shape, lambda places: np.broadcast_to(places, shape))


def _broadcast_to(call: SymbolCall) -> SymbolTensor:
    """0 (and, of NumPy's, -1 or the batch) is the axis as it is."""
    sizes, given = call.integers("shape"), call.any_tensor()
    if len(sizes) != len(given.shape) + 1 or (call.node.operator == "broadcast_to" and sizes[0]):
        raise call.refused(f"has the shape {sizes}, and only a 0 for the batch, and as many axes, are taken")
    return _broadcast(call, [new if new > 0 else old for new, old in zip(sizes[1:], given.shape, strict=True)])


def _broadcast_like(call: SymbolCall) -> SymbolTensor:
    """All axes, or those that are named, as a second input has them."""
    sizes, like = [*call.any_tensor().shape], call.any_tensor(1).shape
    ours, theirs = (
        [call.axis(axis, shape) for axis in call.integers(key)] or list(range(len(shape)))
        for key, shape in (("lhs_axes", tuple(sizes)), ("rhs_axes", like))
    )
    if len(ours) != len(theirs):
        raise call.refused(f"takes {len(theirs)} axes for {len(ours)}")
    for our, their in zip(ours, theirs, strict=True):
        sizes[our] = like[their]
    return _broadcast(call, sizes)


def _broadcast_axis(call: SymbolCall) -> SymbolTensor:
    sizes, axes, new = [*call.any_tensor().shape], call.integers("axis"), call.integers("size")
    if len(axes) != len(new):
        raise call.refused(f"has {len(new)} sizes for {len(axes)} axes")
    for axis, size in zip(axes, new, strict=True):
        sizes[call.axis(axis, call.any_tensor().shape)] = size
    return _broadcast(call, sizes)


def _depth_to_space(call: SymbolCall) -> SymbolTensor:
    """Of (block, block, channels) as the channels: rows, then columns of a block (matrix_op-inl.h)."""
    (channels, rows, columns), block = call.image_shape(), call.integer("block_size")
    if channels % block**2:
        raise call.refused(f"has the block_size {block} for {channels} channels")
    split = (block, block, channels // block**2, rows, columns)
    whole = (channels // block**2, rows * block, columns * block)
    return _moved_by(call, lambda places: places.reshape(split).transpose(2, 3, 0, 4, 1).reshape(whole))


def _space_to_depth(call: SymbolCall) -> SymbolTensor:
    """The other way."""
    (channels, rows, columns), block = call.image_shape(), call.integer("block_size")
    if rows % block or columns % block:
        raise call.refused(f"has the block_size {block} for {rows}x{columns}")
    split = (channels, rows // block, block, columns // block, block)
    whole = (channels * block**2, rows // block, columns // block)
    return _moved_by(call, lambda places: places.reshape(split).transpose(2, 4, 0, 1, 3).reshape(whole))


def _transpose(call: SymbolCall) -> SymbolTensor:
    number = len(call.any_tensor().shape) + 1
    axes = call.integers("axes") or tuple(reversed(range(number)))
    return _moved(call, [axis % number for axis in axes])


def _swap_axes(call: SymbolCall) -> SymbolTensor:
    given = call.any_tensor()
    first, second = (call.axis(call.integer(key), given.shape) + 1 for key in ("dim1", "dim2"))
    axes = list(range(len(given.shape) + 1))
    axes[first], axes[second] = axes[second], axes[first]
    return _moved(call, axes)


def _expand_dims(call: SymbolCall) -> SymbolTensor:
    given, axis = call.any_tensor(), call.integer("axis")
    place = axis if axis >= 0 else axis + len(given.shape) + 2
    if not 1 <= place <= len(given.shape) + 1:
        raise call.refused(f"has axis {axis}, which is before the batch or none")
    return call.viewed(given, (*given.shape[: place - 1], 1, *given.shape[place - 1 :]))


def _squeeze(call: SymbolCall) -> SymbolTensor:
    given = call.any_tensor()
    axes = {call.axis(axis, given.shape) for axis in call.integers("axis")}
    axes = axes or {axis for axis, size in enumerate(given.shape) if size == 1}
    if any(given.shape[axis] != 1 for axis in axes):
        raise call.refused(f"takes away an axis that is not 1, of {given.shape}")
    return call.viewed(given, tuple(size for axis, size in enumerate(given.shape) if axis not in axes))


# Parts


def _cut(call: SymbolCall, given: SymbolTensor, axis: int, start: int, stop: int, part: str = "") -> SymbolTensor:
    """From `start` up to `stop` along an axis, counted from 0 behind the batch."""
    if not 0 <= start < stop <= given.shape[axis]:
        raise call.refused(f"takes {start} to {stop} of an axis of {given.shape[axis]}")
    if (start, stop) == (0, given.shape[axis]):
        return given
    return call.add(Slice("", _AXES[axis], start, stop), given, part=part)


def _cut_several(call: SymbolCall, given: SymbolTensor, bounds: Sequence[tuple[int, int]]) -> SymbolTensor:
    """One cut for each axis behind the batch; the last has the node's name."""
    cuts = [axis for axis, (start, stop) in enumerate(bounds) if (start, stop) != (0, given.shape[axis])]
    for axis in cuts:
        given = _cut(call, given, axis, *bounds[axis], "" if axis == cuts[-1] else _AXES[axis])
    return given


def _slice_channel(call: SymbolCall) -> Sequence[SymbolTensor]:
    given, number = call.tensor(), call.integer("num_outputs")
    axis = call.axis(call.integer("axis"), given.shape)
    size = given.shape[axis] // number
    if size * number != given.shape[axis] or number > _MOST_PARTS:
        raise call.refused(f"makes {number} parts of an axis of {given.shape[axis]}")
    if number == 1:
        parts = [given]
    else:
        parts = [_cut(call, given, axis, i * size, (i + 1) * size, str(i)) for i in range(number)]
    if not call.integer("squeeze_axis") or size != 1:
        return parts
    shape = given.shape[:axis] + given.shape[axis + 1 :]
    return [call.viewed(part, shape, "") for part in parts]


def _split(call: SymbolCall) -> Sequence[SymbolTensor]:
    """Into equal `sections`, or from each of `indices` up to the next."""
    given, number = call.tensor(), call.integer("sections")
    axis = call.axis(call.integer("axis"), given.shape)
    size = given.shape[axis]
    starts = list(call.integers("indices"))
    if number:
        starts = [] if size % number or number > size else list(range(0, size, size // number))
    if not starts or len(starts) > _MOST_PARTS:
        raise call.refused(f"makes {number or len(starts)} parts of an axis of {size}")
    ends = [*starts[1:], size]
    parts = [_cut(call, given, axis, a, z, str(i)) for i, (a, z) in enumerate(zip(starts, ends, strict=True))]
    if not call.integer("squeeze_axis"):
        return parts
    if any(part.shape[axis] != 1 for part in parts):
        raise call.refused("takes away an axis that is not 1")
    return [call.viewed(part, part.shape[:axis] + part.shape[axis + 1 :], "") for part in parts]


def _bounds(begin: int | None, end: int | None, size: int) -> tuple[int, int]:
    start = begin or 0
    stop = size if end is None else end
    return start + size * (start < 0), min(stop + size * (stop < 0), size)


def _slice_axis(call: SymbolCall) -> SymbolTensor:
    given, end = call.tensor(), call.node.values["end"]
    axis = call.axis(call.integer("axis"), given.shape)
    assert end is None or isinstance(end, int)
    return _cut(call, given, axis, *_bounds(call.integer("begin"), end, given.shape[axis]))


def _slice(call: SymbolCall) -> SymbolTensor:
    given, values = call.tensor(), call.node.values
    begin, end, step = values["begin"], values["end"], values["step"]
    assert isinstance(begin, tuple)
    assert isinstance(end, tuple)
    assert isinstance(step, tuple)
    if len(begin) != len(end) or len(begin) > len(given.shape) + 1 or len(step) not in (0, len(begin)):
        raise call.refused("has as many bounds or steps as it has no axes")
    if begin[:1] not in ((), (None,), (0,)) or end[:1] not in ((), (None,)) or step[:1] not in ((), (None,), (1,)):
        raise call.refused("takes a part of the batch")
    if any(one not in (None, 1) for one in step):
        if 0 in step:
            raise call.refused("has the step 0")
        parts = tuple(itertools.starmap(slice, zip(begin[1:], end[1:], step[1:], strict=True)))
        return _moved_by(call, lambda places: places[parts])
    bounds = [(0, size) for size in given.shape]
    for axis, (first, last) in enumerate(zip(begin[1:], end[1:], strict=True)):
        bounds[axis] = _bounds(first, last, given.shape[axis])
    return _cut_several(call, given, bounds)


def _slice_like(call: SymbolCall) -> SymbolTensor:
    """Of the axes, all or those that are named, as much as a second input has, from the start."""
    given, like = call.tensor(), call.any_tensor(1)
    axes = {call.axis(axis, given.shape) for axis in call.integers("axes")} or set(range(len(given.shape)))
    if max(axes) >= len(like.shape):
        raise call.refused(f"takes the sizes of {like.shape} for {given.shape}")
    bounds = [(0, like.shape[axis] if axis in axes else size) for axis, size in enumerate(given.shape)]
    return _cut_several(call, given, bounds)


def _crop(call: SymbolCall) -> SymbolTensor:
    """To the rows and columns of a second input, or to h_w."""
    given = call.image()
    rows, columns = call.image(1).shape[1:] if len(call.inputs) > 1 else call.pair("h_w")
    top, left = call.pair("offset")
    if call.integer("center_crop"):
        top, left = (given.shape[1] - rows) // 2, (given.shape[2] - columns) // 2
    return _cut_several(call, given, [(0, given.shape[0]), (top, top + rows), (left, left + columns)])


# More places


def _pad(call: SymbolCall) -> SymbolTensor:
    widths, mode, given = call.integers("pad_width"), _PAD_MODES[call.text("mode") or ""], call.image()
    if len(widths) != 8 or any(widths[:4]):
        raise call.refused(f"has the pad_width {widths}, and only rows and columns are padded")
    top, below, left, right = widths[4:]
    value = call.number("constant_value") if mode == "constant" else 0.0
    return call.add(Pad("", (top, below, left, right), value, mode), given)


def _upsampling(call: SymbolCall) -> SymbolTensor:
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


def _upsampling_with_weight(call: SymbolCall) -> SymbolTensor:
    """MXNet's bilinear one is a transposed convolution of each channel by itself, with a trained weight
    (upsampling-inl.h, UpSamplingProp's DeconvolutionParam)."""
    given, scale = call.image(), call.integer("scale")
    size, padding, channels = 2 * scale - scale % 2, scale // 2, given.shape[0]
    layer = ConvTranspose("", channels, (size, size), (scale, scale), (padding, padding), groups=channels, bias=False)
    return call.add(layer, arrays=call.arrays(weight=("weight", (channels, 1, size, size))))


PLACEMENT: Mapping[str, Convert] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "_npx_reshape": _numpy_reshape,
    "_np_reshape": _numpy_reshape_by_sizes,
    **dict.fromkeys(("transpose", "_np_transpose", "_npi_transpose"), _transpose),
    "SwapAxis": _swap_axes,
    "expand_dims": _expand_dims,
    **dict.fromkeys(("squeeze", "_np_squeeze", "_npi_squeeze"), _squeeze),
    **dict.fromkeys(("reverse", "_npi_flip"), _reverse),
    "tile": _tile,
    "repeat": _repeat,
    **dict.fromkeys(("broadcast_to", "_npi_broadcast_to"), _broadcast_to),
    "broadcast_like": _broadcast_like,
    "broadcast_axis": _broadcast_axis,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "SliceChannel": _slice_channel,
    "_split_v2": _split,
    "slice_axis": _slice_axis,
    "slice": _slice,
    "slice_like": _slice_like,
    "Crop": _crop,
    "Pad": _pad,
    "UpSampling": _upsampling,
}
