"""SAME: as many rows and columns as make the output `ceil(size / stride)`, the odd one at the end (TensorFlow, Keras,
ONNX's SAME_UPPER) or at the start (SAME_LOWER)."""

from triptych.importers.network_builder import NetworkBuilder, Tensor
from triptych.importers.steps import ImportRefusedError
from triptych.spec.kinds.windows import pooled_size
from triptych.spec.layers import AvgPool, Layer, MaxPool, Pad, Pair, Reshape, Shape, Slice

Sides = tuple[int, int, int, int]  # above, below, left, right


def same(shape: Shape, kernel: Pair, stride: Pair, dilation: Pair = (1, 1), *, lower: bool = False) -> Sides:
    """The padding of a `(channels, height, width)` map."""
    sides: list[int] = []
    for size, k, s, d in zip(shape[1:], kernel, stride, dilation, strict=True):
        if s < 1:
            raise ImportRefusedError(f"has strides {stride}, expected 1 or more")
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small, large = total // 2, total - total // 2
        sides.extend((large, small) if lower else (small, large))
    return sides[0], sides[1], sides[2], sides[3]


def padded(network: NetworkBuilder, name: str, x: Tensor, sides: Sides) -> tuple[Tensor, Pair]:
    """The input and the padding of a convolution: its own where it is the same on both sides, else a `Pad` before."""
    above, below, left, right = sides
    if above == below and left == right:
        return x, (above, left)
    return network.layer(f"{name}_pad", Pad(f"{name}_pad", sides), x), (0, 0)


def without_end(network: NetworkBuilder, name: str, x: Tensor, beyond: Pair) -> Tensor:
    """Without so many of the last rows and columns: what padding cuts off at the end of a transposed convolution beyond
    what it cuts off at the start."""
    if beyond[0]:
        x = network.layer(f"{name}_crop", Slice(f"{name}_crop", "rows", 0, x.shape[1] - beyond[0]), x)
    if beyond[1]:
        x = network.layer(f"{name}_crop", Slice(f"{name}_crop", "columns", 0, x.shape[2] - beyond[1]), x)
    return x


def pads(shape: Shape, channels: Pair, sides: Sides, value: float) -> tuple[Layer, ...]:
    """The layers that pad a map, its channels too: for a `Pad` they are rows, and the map a single channel."""
    layers: list[Layer] = [Pad("pad", sides, value)] if any(sides) or not any(channels) else []
    if any(channels):
        rows, columns = shape[1] + sides[0] + sides[1], shape[2] + sides[2] + sides[3]
        layers.append(Reshape("channels", (1, shape[0], rows * columns)))
        layers.append(Pad("pad_channels", (*channels, 0, 0), value))
        layers.append(Reshape("map", (shape[0] + sum(channels), rows, columns)))
    return tuple(layers)


def max_pool(
    network: NetworkBuilder, name: str, x: Tensor, kernel: Pair, stride: Pair, sides: Sides, *, ceil: bool = False
) -> Tensor:
    """Padding never wins. Unequal padding is the spec's `ceil` where it comes to the same, else the outermost values
    again, which stand in every window that would see them anyway."""
    if (pool := _as_spec(x.shape, kernel, stride, sides, ceil)) is not None:
        return network.layer(name, MaxPool(name, kernel, stride, *pool), x)
    if ceil or any(side >= k for side, k in zip(sides, (kernel[0], kernel[0], kernel[1], kernel[1]), strict=True)):
        raise _refused(kernel, stride, sides, ceil)
    x = network.layer(f"{name}_pad", Pad(f"{name}_pad", sides, mode="edge"), x)
    return network.layer(name, MaxPool(name, kernel, stride), x)


def avg_pool(
    network: NetworkBuilder,
    name: str,
    x: Tensor,
    kernel: Pair,
    stride: Pair,
    sides: Sides,
    *,
    count_padding: bool,
    ceil: bool = False,
) -> Tensor:
    """Raises ImportRefusedError for unequal padding that does not count and that `ceil` does not express."""
    symmetric = sides[0] == sides[1] and sides[2] == sides[3]
    if not symmetric and count_padding and not ceil:
        x, sides = network.layer(f"{name}_pad", Pad(f"{name}_pad", sides), x), (0, 0, 0, 0)
    pool = _as_spec(x.shape, kernel, stride, sides, ceil)
    if pool is None or (count_padding and not symmetric and ceil):
        raise _refused(kernel, stride, sides, ceil)
    return network.layer(name, AvgPool(name, kernel, stride, *pool, count_padding=count_padding), x)


def _refused(kernel: Pair, stride: Pair, sides: Sides, ceil: bool) -> ImportRefusedError:
    rounded = ", the number of windows rounded up," if ceil else ""
    return ImportRefusedError(
        f"pools windows of {kernel} at stride {stride} with padding {sides} (above, below, left, right){rounded} which "
        "no pool of the spec does"
    )


def _as_spec(shape: Shape, kernel: Pair, stride: Pair, sides: Sides, ceil: bool) -> tuple[Pair, bool] | None:
    """Padding and `ceil` of a pool that has as many windows, at the same places; None if none has."""
    axes = list(zip(shape[1:], kernel, stride, (sides[0], sides[2]), (sides[1], sides[3]), strict=True))
    if any(min(k, s) < 1 or 2 * first > k or size + 2 * first < k for size, k, s, first, _ in axes):
        return None
    counts = [_count(size + first + last, k, s, size + first, ceil) for size, k, s, first, last in axes]
    for rounded in (False, True):
        if counts == [pooled_size(size, k, s, first, rounded) for size, k, s, first, _ in axes]:
            return (sides[0], sides[2]), rounded
    return None


def _count(padded_size: int, kernel: int, stride: int, inside: int, ceil: bool) -> int:
    """Windows; rounded up, the last is left out if it starts behind the input (ONNX since operator set 19, PyTorch)."""
    if not ceil:
        return (padded_size - kernel) // stride + 1
    count = -(-(padded_size - kernel) // stride) + 1
    return count - 1 if (count - 1) * stride >= inside else count
