"""Windows that slide over a map, as convolutions and pools have them: how many, where, and what is in them."""

from collections.abc import Iterator

from triptych.spec.kinds.kind import SpecError, TooSmallError, Window, extent
from triptych.spec.layers import Pair, Shape, Sliding
from triptych.utils.arrays import Array
from triptych.utils.lazy import np


def need_map(shape: Shape, path: str) -> None:
    """Raise SpecError unless `shape` is `(channels, height, width)`."""
    if len(shape) != 3:
        raise SpecError(path, f"needs a (channels, height, width) input, got {shape}")


def need_window(layer: Sliding, shape: Shape, path: str) -> None:
    """Raise SpecError for a window that cannot be, TooSmallError for one that is larger than the padded map."""
    need_map(shape, path)
    if min(*layer.kernel, *layer.stride) < 1 or min(layer.padding) < 0:
        raise SpecError(path, "kernel and stride must be at least 1, padding at least 0")
    if any(size + 2 * p < k for size, p, k in zip(shape[1:], layer.padding, extent(layer), strict=True)):
        window = "x".join(map(str, extent(layer)))
        raise TooSmallError(path, f"its {window} window is larger than the {shape[1]}x{shape[2]} map it gets")


def num_windows(layer: Sliding, shape: Shape, ceil: bool = False) -> Pair:
    """Rows and columns of windows on a map of `shape`."""
    axes = zip(shape[1:], extent(layer), layer.stride, layer.padding, strict=True)
    rows, columns = (pooled_size(*axis, ceil) for axis in axes)
    return rows, columns


def pooled_size(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> int:
    """The number of windows along one axis; with `ceil` a last one that starts wholly in the padding is dropped."""
    span = size + 2 * padding - kernel
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def whole_map(layer: object, shape: Shape) -> Window:
    """Receptive field: all of the map, or the one place of a flat input."""
    size = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
    return size, size


def pad(x: Array, padding: Pair, value: float = 0.0, extra: Pair = (0, 0)) -> Array:
    """`padding` on both sides of the rows and columns, `extra` below and on the right."""
    (rows, columns), (below, right) = padding, extra
    widths = ((0, 0), (0, 0), (rows, rows + below), (columns, columns + right))
    return np.pad(x, widths, constant_values=value)


def crop(x: Array, padding: Pair, like: Array) -> Array:
    """Without the padding, and as large as `like`."""
    rows, columns = padding
    return x[:, :, rows : rows + like.shape[2], columns : columns + like.shape[3]]


def windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Array:
    """A view `(N, C, rows, columns, *kernel)` of every window."""
    whole = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    view: Array = np.lib.stride_tricks.sliding_window_view(x, whole, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def places(
    kernel: Pair, stride: Pair, output: tuple[int, ...], dilation: Pair = (1, 1)
) -> Iterator[tuple[int, int, slice, slice]]:
    """For every place in the window: where it lies in the padded input, over all windows."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            down, across = i * dilation[0], j * dilation[1]
            rows = slice(down, down + stride[0] * output[2], stride[0])
            columns = slice(across, across + stride[1] * output[3], stride[1])
            yield i, j, rows, columns
