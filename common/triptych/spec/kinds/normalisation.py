"""Batch normalisation and local response normalisation."""

from triptych.spec.kinds.kind import Kind, ParameterInfo, SpecError, as_is, no_arrays, no_macs, one_place, same_shape
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass
from triptych.spec.layers import BatchNorm, LocalResponseNorm, Shape
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.lazy import np


def _arrays(layer: BatchNorm, shape: Shape) -> tuple[ParameterInfo, ...]:
    arrays = (
        ParameterInfo("weight", shape[:1], "scale", 1.0),
        ParameterInfo("bias", shape[:1], "shift", 0.0),
        ParameterInfo("running_mean", shape[:1], "running_mean", 0.0, trained=False),
        ParameterInfo("running_var", shape[:1], "running_var", 1.0, trained=False),
    )
    return arrays if layer.gamma else arrays[1:]


def _batch_norm(layer: BatchNorm, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """With the batch's statistics in training, unless they are frozen, else with the running ones."""
    rounding, of_batch = conditions.rounding, conditions.train and not conditions.frozen
    beta, mean, var = arrays["bias"], arrays["running_mean"], arrays["running_var"]
    gamma = arrays["weight"] if layer.gamma else np.ones_like(beta)
    axes, n = (0, 2, 3), x.size // x.shape[1]
    running = {"running_mean": mean, "running_var": var}
    if of_batch:
        mean, var = rounding(x.mean(axes), n, largest(x)), rounding(x.var(axes), n)
        kept = var * n / (n - 1) if layer.unbiased and n > 1 else var
        for name, batch in (("running_mean", mean), ("running_var", kept)):
            running[name] = (1 - layer.momentum) * running[name] + layer.momentum * batch
    inverse = 1 / np.sqrt(var + layer.eps)
    normal = (x - mean[:, None, None]) * inverse[:, None, None]
    scale = largest(x) * largest(gamma * inverse)
    y = rounding(normal * gamma[:, None, None] + beta[:, None, None], 1, scale)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        sums = np.abs(dy).sum(axes)
        gradients = {
            "weight": rounding((dy * normal).sum(axes), n, largest(np.abs(dy * normal).sum(axes))),
            "bias": rounding(dy.sum(axes), n, largest(sums)),
        }
        if of_batch:
            centred = dy - dy.mean(axes)[:, None, None]
            dy = centred - normal * (dy * normal).mean(axes)[:, None, None]
        factor = gamma * inverse
        dx = dy * factor[:, None, None]
        return rounding(dx, n if of_batch else 1, largest(sums) / n * largest(factor)), gradients

    return LayerPass(y, backward, running)


def _odd_window(layer: LocalResponseNorm, shape: Shape, path: str) -> Shape:
    if layer.size < 1 or layer.size % 2 == 0:
        raise SpecError(path, f"its window of {layer.size} channels must be odd")
    return shape


def _lrn(layer: LocalResponseNorm, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Divide by a power of the neighbouring channels' energy (Krizhevsky et al. 2012, section 3.3)."""

    def neighbours(values: Array) -> Array:
        half = layer.size // 2
        wide = np.pad(values, ((0, 0), (half, half), (0, 0), (0, 0)))
        return np.asarray(np.lib.stride_tricks.sliding_window_view(wide, layer.size, axis=1).sum(-1))

    base = layer.k + layer.coefficient * neighbours(x * x)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        shared = neighbours(dy * x * base ** (-layer.beta - 1))
        dx = dy * base**-layer.beta - 2 * layer.coefficient * layer.beta * x * shared
        return conditions.rounding(dx, layer.size), {}

    return LayerPass(conditions.rounding(x * base**-layer.beta, layer.size), backward)


KINDS = (
    Kind(BatchNorm, same_shape, no_macs, one_place, _arrays, _batch_norm, as_is, training_only=False),
    Kind(LocalResponseNorm, _odd_window, no_macs, one_place, no_arrays, _lrn, as_is, training_only=False),
)
