"""Maxima and means over windows, and over the whole map."""

from triptych.spec.kinds.kind import Kind, SpecError, as_is, no_arrays, no_macs, sliding
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass
from triptych.spec.kinds.windows import crop, need_map, need_window, num_windows, pad, places, whole_map, windows
from triptych.spec.layers import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool, Pair, Pool, Shape
from triptych.utils.arrays import Array, Arrays
from triptych.utils.lazy import np


def overhang(layer: Pool, shape: Shape) -> Pair:
    """Rows and columns by which the last windows hang over the padded map of `shape` (0 without `ceil`)."""
    counts = num_windows(layer, shape, layer.ceil)
    axes = zip(counts, layer.stride, layer.kernel, shape[1:], layer.padding, strict=True)
    below, right = (max(0, (count - 1) * s + k - size - 2 * p) for count, s, k, size, p in axes)
    return below, right


def _output(layer: Pool, shape: Shape, path: str) -> Shape:
    need_map(shape, path)
    if any(2 * p > k for p, k in zip(layer.padding, layer.kernel, strict=True)):
        raise SpecError(path, f"padding {layer.padding} is more than half of the kernel {layer.kernel}")
    need_window(layer, shape, path)
    return (shape[0], *num_windows(layer, shape, layer.ceil))


def _max_pool(layer: MaxPool, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """The gradient goes to the first of equal values, in row order."""
    padded = pad(x, layer.padding, -np.inf, overhang(layer, x.shape[1:]))
    rows, columns = num_windows(layer, x.shape[1:], layer.ceil)
    views = windows(padded, layer.kernel, layer.stride)[:, :, :rows, :columns]
    views = views.reshape(*x.shape[:2], rows, columns, -1)
    winner = views.argmax(-1)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dpadded = np.zeros_like(padded)
        for i, j, rows, columns in places(layer.kernel, layer.stride, dy.shape):
            dpadded[:, :, rows, columns] += np.where(winner == i * layer.kernel[1] + j, dy, 0.0)
        return crop(dpadded, layer.padding, x), {}

    return LayerPass(np.take_along_axis(views, winner[..., None], -1)[..., 0], backward)


def _avg_pool(layer: AvgPool, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Padded zeros count if the layer says so, what hangs over never does."""
    extra = overhang(layer, x.shape[1:])
    rows, columns = num_windows(layer, x.shape[1:], layer.ceil)

    def sums(values: Array) -> Array:
        return np.asarray(windows(values, layer.kernel, layer.stride)[:, :, :rows, :columns].sum((-2, -1)))

    ones = pad(np.ones((1, 1, *x.shape[2:]), x.dtype), layer.padding, 1.0 if layer.count_padding else 0.0)
    counts = sums(pad(ones, (0, 0), 0.0, extra))
    padded = pad(x, layer.padding, 0.0, extra)
    area = layer.kernel[0] * layer.kernel[1]

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dpadded = np.zeros_like(padded)
        for _, _, rows, columns in places(layer.kernel, layer.stride, dy.shape):
            dpadded[:, :, rows, columns] += dy / counts
        return conditions.rounding(crop(dpadded, layer.padding, x), area), {}

    return LayerPass(conditions.rounding(sums(padded) / counts, area), backward)


def _global(layer: GlobalAvgPool | GlobalMaxPool, shape: Shape, path: str) -> Shape:
    need_map(shape, path)
    return (shape[0], 1, 1)


def _global_avg_pool(layer: GlobalAvgPool, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    area, rounding = x.shape[2] * x.shape[3], conditions.rounding
    y = rounding(x.mean((2, 3), keepdims=True), area)
    return LayerPass(y, lambda dy: (rounding(np.broadcast_to(dy / area, x.shape), 1), {}))


def _global_max_pool(layer: GlobalMaxPool, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """The gradient goes to the first of equal values, in row order."""
    flat = x.reshape(*x.shape[:2], -1)
    winner = flat.argmax(-1)[..., None]

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dx = np.zeros_like(flat)
        np.put_along_axis(dx, winner, dy[..., 0], -1)
        return dx.reshape(x.shape), {}

    return LayerPass(np.take_along_axis(flat, winner, -1)[..., None], backward)


def _over_trained(layer: GlobalAvgPool | GlobalMaxPool, shape: Shape, flattened: Pair) -> tuple[Pool, Pair]:
    pool = AvgPool if isinstance(layer, GlobalAvgPool) else MaxPool
    return pool(layer.name, (shape[1], shape[2]), (1, 1)), flattened


KINDS = (
    Kind(MaxPool, _output, no_macs, sliding, no_arrays, _max_pool, as_is, training_only=False),
    Kind(AvgPool, _output, no_macs, sliding, no_arrays, _avg_pool, as_is, training_only=False),
    Kind(GlobalAvgPool, _global, no_macs, whole_map, no_arrays, _global_avg_pool, _over_trained, training_only=False),
    Kind(GlobalMaxPool, _global, no_macs, whole_map, no_arrays, _global_max_pool, _over_trained, training_only=False),
)
