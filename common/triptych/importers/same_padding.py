"""SAME: as many rows and columns as make the output `ceil(size / stride)`, the odd one at the end (TensorFlow, Keras,
ONNX's SAME_UPPER) or at the start (SAME_LOWER)."""

from triptych.importers.network_builder import NetworkBuilder, Tensor
from triptych.importers.steps import ImportRefusedError
from triptych.spec.kinds.windows import pooled_size
from triptych.spec.layers import AvgPool, MaxPool, Pad, Pair, Shape

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


def max_pool(network: NetworkBuilder, name: str, x: Tensor, kernel: Pair, stride: Pair, sides: Sides) -> Tensor:
    """Padding never wins. Unequal padding is the spec's `ceil` where it comes to the same, else the outermost values
    again, which stand in every window that would see them anyway."""
    if (pool := _same_by_ceil(x.shape, kernel, stride, sides)) is not None:
        return network.layer(name, MaxPool(name, kernel, stride, *pool), x)
    if any(side >= k for side, k in zip(sides, (kernel[0], kernel[0], kernel[1], kernel[1]), strict=True)):
        raise ImportRefusedError(f"pads {sides} for windows of {kernel}: some see nothing but padding")
    x = network.layer(f"{name}_pad", Pad(f"{name}_pad", sides, mode="edge"), x)
    return network.layer(name, MaxPool(name, kernel, stride), x)


def avg_pool(
    network: NetworkBuilder, name: str, x: Tensor, kernel: Pair, stride: Pair, sides: Sides, *, count_padding: bool
) -> Tensor:
    """Raises ImportRefusedError for unequal padding that does not count and that `ceil` does not express."""
    symmetric = sides[0] == sides[1] and sides[2] == sides[3]
    if not symmetric and count_padding:
        x, sides = network.layer(f"{name}_pad", Pad(f"{name}_pad", sides), x), (0, 0, 0, 0)
    if (pool := _same_by_ceil(x.shape, kernel, stride, sides)) is None:
        raise ImportRefusedError(
            f"averages windows of {kernel} at stride {stride} with padding {sides} that does not count"
        )
    return network.layer(name, AvgPool(name, kernel, stride, *pool, count_padding=count_padding), x)


def _same_by_ceil(shape: Shape, kernel: Pair, stride: Pair, sides: Sides) -> tuple[Pair, bool] | None:
    """Padding and `ceil` of a pool that has as many windows as with `sides`, at the same places; None if none has."""
    axes = list(zip(shape[1:], kernel, stride, (sides[0], sides[2]), (sides[1], sides[3]), strict=True))
    if any(min(k, s) < 1 or 2 * first > k or size + 2 * first < k for size, k, s, first, _ in axes):
        return None
    counts = [(size + first + last - k) // s + 1 for size, k, s, first, last in axes]
    for ceil in (False, True):
        if counts == [pooled_size(size, k, s, first, ceil) for size, k, s, first, _ in axes]:
            return (sides[0], sides[2]), ceil
    return None
