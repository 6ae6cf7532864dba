"""Every layer kind in plain NumPy, forward and backward: short and obvious, not fast. Arrays are `(N, C, H, W)`.

A function returns its output and a closure that takes the gradient of the output to `(gradient of the input,
{parameter: gradient})`. Each result passes through `rounding(value, length, scale)`, the identity in the exact
reference: `length` is the number of terms summed for one value, `scale` the size of what was summed where that
is larger than the sum. `triptych.reference.rounding` perturbs there to find out what float32 can explain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from triptych.spec.layers import AvgPool, BatchNorm, Conv, LocalResponseNorm, MaxPool, Pair
from triptych.spec.shapes import layer_output, overhang

Array: TypeAlias = NDArray[np.floating[Any]]
Gradients: TypeAlias = dict[str, Array]
Backward: TypeAlias = Callable[[Array], tuple[Array, Gradients]]
Rounding: TypeAlias = Callable[..., Array]


def exact(value: Array, length: int, scale: float | None = None) -> Array:
    """No rounding beyond NumPy's own."""
    return value


def largest(array: Array) -> float:
    """The largest absolute value, 0 for an empty array; NaN if there is one."""
    return float(np.maximum(array.max(initial=0.0), -array.min(initial=0.0)))  # without a copy as large as the array


def _pad(x: Array, padding: Pair, value: float = 0.0, extra: Pair = (0, 0)) -> Array:
    (rows, columns), (below, right) = padding, extra
    widths = ((0, 0), (0, 0), (rows, rows + below), (columns, columns + right))
    return np.pad(x, widths, constant_values=value)


def _crop(x: Array, padding: Pair, like: Array) -> Array:
    rows, columns = padding
    return x[:, :, rows : rows + like.shape[2], columns : columns + like.shape[3]]


def _windows(x: Array, kernel: Pair, stride: Pair) -> Array:
    """A view `(N, C, rows, columns, *kernel)` of every window."""
    view: Array = sliding_window_view(x, kernel, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1]]


def _places(kernel: Pair, stride: Pair, output: tuple[int, ...]) -> Iterator[tuple[int, int, slice, slice]]:
    """For every place in the window: where it lies in the padded input, over all windows."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i, i + stride[0] * output[2], stride[0])
            columns = slice(j, j + stride[1] * output[3], stride[1])
            yield i, j, rows, columns


def conv(
    x: Array, weight: Array, bias: Array | None, layer: Conv, rounding: Rounding = exact
) -> tuple[Array, Backward]:
    """Cross-correlation of `x (N, C, H, W)` with `weight (O, C / groups, *kernel)`."""
    padded = _pad(x, layer.padding)
    inputs = np.split(padded, layer.groups, axis=1)
    weights = np.split(weight, layer.groups, axis=0)
    views = [_windows(part, layer.kernel, layer.stride) for part in inputs]
    parts: list[Array] = [np.tensordot(v, w, ((1, 4, 5), (1, 2, 3))) for v, w in zip(views, weights, strict=True)]
    y: Array = np.concatenate(parts, axis=3).transpose(0, 3, 1, 2)
    if bias is not None:
        y = y + bias[:, None, None]
    length = weight[0].size
    y = rounding(y, length)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dys = np.split(dy, layer.groups, axis=1)
        dw = np.concatenate(
            [np.tensordot(d, v, ((0, 2, 3), (0, 2, 3))) for d, v in zip(dys, views, strict=True)], axis=0
        )
        dparts = [np.zeros_like(part) for part in inputs]
        for d, w, dpart in zip(dys, weights, dparts, strict=True):
            for i, j, rows, columns in _places(layer.kernel, layer.stride, dy.shape):
                dpart[:, :, rows, columns] += np.tensordot(d, w[:, :, i, j], ((1,), (0,))).transpose(0, 3, 1, 2)
        dx = _crop(np.concatenate(dparts, axis=1), layer.padding, x)
        terms = dy.size // dy.shape[1]
        gradients = {"weight": rounding(dw, terms)}
        if bias is not None:
            gradients["bias"] = rounding(dy.sum((0, 2, 3)), terms, largest(np.abs(dy).sum((0, 2, 3))))
        return rounding(dx, weight[:, 0].size // layer.groups), gradients

    return y, backward


def dense(x: Array, weight: Array, bias: Array | None, rounding: Rounding = exact) -> tuple[Array, Backward]:
    """`x (N, features)` times `weight (units, features)` transposed."""
    y: Array = x @ weight.T if bias is None else x @ weight.T + bias
    y = rounding(y, x.shape[1])

    def backward(dy: Array) -> tuple[Array, Gradients]:
        gradients = {"weight": rounding(dy.T @ x, len(dy))}
        if bias is not None:
            gradients["bias"] = rounding(dy.sum(0), len(dy), largest(np.abs(dy).sum(0)))
        return rounding(dy @ weight, dy.shape[1]), gradients

    return y, backward


def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    var: Array,
    layer: BatchNorm,
    train: bool,
    rounding: Rounding = exact,
) -> tuple[Array, Backward, dict[str, Array]]:
    """Normalise with the batch's statistics in training, else with `mean` and `var`, the running ones.

    Also returns the running statistics after this batch (unchanged outside training).
    """
    axes, n = (0, 2, 3), x.size // x.shape[1]
    running = {"running_mean": mean, "running_var": var}
    if train:
        mean, var = rounding(x.mean(axes), n, largest(x)), rounding(x.var(axes), n)
        kept = var * n / (n - 1) if layer.unbiased and n > 1 else var
        for name, batch in (("running_mean", mean), ("running_var", kept)):
            running[name] = (1 - layer.momentum) * running[name] + layer.momentum * batch
    inverse = 1 / np.sqrt(var + layer.eps)
    normal = (x - mean[:, None, None]) * inverse[:, None, None]
    y = rounding(normal * gamma[:, None, None] + beta[:, None, None], 1, largest(x) * largest(gamma * inverse))

    def backward(dy: Array) -> tuple[Array, Gradients]:
        sums = np.abs(dy).sum(axes)
        gradients = {
            "weight": rounding((dy * normal).sum(axes), n, largest(np.abs(dy * normal).sum(axes))),
            "bias": rounding(dy.sum(axes), n, largest(sums)),
        }
        if train:
            centred = dy - dy.mean(axes)[:, None, None]
            dy = centred - normal * (dy * normal).mean(axes)[:, None, None]
        factor = gamma * inverse
        dx = dy * factor[:, None, None]
        return rounding(dx, n if train else 1, largest(sums) / n * largest(factor)), gradients

    return y, backward, running


def local_response_norm(x: Array, layer: LocalResponseNorm, rounding: Rounding = exact) -> tuple[Array, Backward]:
    """Divide by a power of the neighbouring channels' energy (Krizhevsky et al. 2012, section 3.3)."""

    def neighbours(values: Array) -> Array:
        half = layer.size // 2
        wide = np.pad(values, ((0, 0), (half, half), (0, 0), (0, 0)))
        sums: Array = sliding_window_view(wide, layer.size, axis=1).sum(-1)
        return sums

    base = layer.k + layer.coefficient * neighbours(x * x)
    y = rounding(x * base**-layer.beta, layer.size)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        shared = neighbours(dy * x * base ** (-layer.beta - 1))
        dx = dy * base**-layer.beta - 2 * layer.coefficient * layer.beta * x * shared
        return rounding(dx, layer.size), {}

    return y, backward


def relu(x: Array) -> tuple[Array, Backward]:
    """max(x, 0), exact in any precision."""
    return np.maximum(x, 0), lambda dy: (np.where(x > 0, dy, 0.0), {})


def sigmoid(x: Array, rounding: Rounding = exact) -> tuple[Array, Backward]:
    """1 / (1 + exp(-x)), without overflow."""
    y = rounding(np.exp(-np.logaddexp(0, -x)), 1)
    return y, lambda dy: (rounding(dy * y * (1 - y), 1), {})


def max_pool(x: Array, layer: MaxPool) -> tuple[Array, Backward]:
    """Maximum over windows; the gradient goes to the first of equal values, in row order."""
    padded = _pad(x, layer.padding, -np.inf, overhang(layer, x.shape[1:]))
    windows = _windows(padded, layer.kernel, layer.stride)
    _, rows, columns = layer_output(layer, x.shape[1:], layer.name)
    windows = windows[:, :, :rows, :columns].reshape(*x.shape[:2], rows, columns, -1)
    winner = windows.argmax(-1)
    y = np.take_along_axis(windows, winner[..., None], -1)[..., 0]

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dpadded = np.zeros_like(padded)
        for i, j, rows, columns in _places(layer.kernel, layer.stride, dy.shape):
            dpadded[:, :, rows, columns] += np.where(winner == i * layer.kernel[1] + j, dy, 0.0)
        return _crop(dpadded, layer.padding, x), {}

    return y, backward


def avg_pool(x: Array, layer: AvgPool, rounding: Rounding = exact) -> tuple[Array, Backward]:
    """Mean over windows: padded zeros count if the layer says so, what hangs over never does."""
    extra = overhang(layer, x.shape[1:])
    _, rows, columns = layer_output(layer, x.shape[1:], layer.name)

    def sums(values: Array) -> Array:
        found: Array = _windows(values, layer.kernel, layer.stride)[:, :, :rows, :columns].sum((-2, -1))
        return found

    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    ones = _pad(ones, layer.padding, 1.0 if layer.count_padding else 0.0)
    counts = sums(_pad(ones, (0, 0), 0.0, extra))
    padded = _pad(x, layer.padding, 0.0, extra)
    area = layer.kernel[0] * layer.kernel[1]
    y = rounding(sums(padded) / counts, area)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dpadded = np.zeros_like(padded)
        for _, _, rows, columns in _places(layer.kernel, layer.stride, dy.shape):
            dpadded[:, :, rows, columns] += dy / counts
        return rounding(_crop(dpadded, layer.padding, x), area), {}

    return y, backward


def global_avg_pool(x: Array, rounding: Rounding = exact) -> tuple[Array, Backward]:
    """Mean over height and width, kept as `(N, C, 1, 1)`."""
    area = x.shape[2] * x.shape[3]
    y = rounding(x.mean((2, 3), keepdims=True), area)
    return y, lambda dy: (rounding(np.broadcast_to(dy / area, x.shape), 1), {})


def flatten(x: Array) -> tuple[Array, Backward]:
    """`(N, C, H, W)` to `(N, C * H * W)`."""
    return x.reshape(len(x), -1), lambda dy: (dy.reshape(x.shape), {})


def dropout(x: Array, kept: NDArray[np.bool_], rate: float) -> tuple[Array, Backward]:
    """Zero what is not `kept`, scale the rest by 1 / (1 - rate)."""
    factor = kept.astype(x.dtype) / (1 - rate)
    return x * factor, lambda dy: (dy * factor, {})


def cross_entropy(logits: Array, labels: NDArray[np.integer[Any]], rounding: Rounding = exact) -> tuple[float, Array]:
    """The mean over the batch of -log softmax at the label, and its gradient by the logits."""
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_softmax)
    gradient[rows, labels] -= 1
    return float(-log_softmax[rows, labels].mean()), rounding(gradient / len(labels), logits.shape[1])
