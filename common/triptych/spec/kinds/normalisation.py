"""Normalisation: by the batch, by neighbouring channels, by the Euclidean norm."""

from triptych.spec.kinds.kind import Kind, ParameterInfo, SpecError, as_is, no_arrays, no_macs, one_place, same_shape
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass, all_but_channels, per_channel
from triptych.spec.layers import BatchNorm, L2Normalize, LocalResponseNorm, Shape
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.lazy import np


def _arrays(layer: BatchNorm, shape: Shape) -> tuple[ParameterInfo, ...]:
    arrays = (
        ParameterInfo("weight", shape[:1], "scale", 1.0),
        ParameterInfo("bias", shape[:1], "shift", 0.0),
        ParameterInfo("running_mean", shape[:1], "running_mean", 0.0, trained=False),
        ParameterInfo("running_var", shape[:1], "running_var", 1.0, trained=False),
    )
    states = {"scale": layer.gamma, "shift": layer.beta}
    return tuple(info for info in arrays if states.get(info.role, True))


def _batch_norm(layer: BatchNorm, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """With the batch's statistics in training, unless they are frozen, else with the running ones."""
    rounding, of_batch = conditions.rounding, conditions.train and not (conditions.frozen or layer.frozen)
    mean, var = arrays["running_mean"], arrays["running_var"]
    gamma, beta = arrays.get("weight", np.ones_like(mean)), arrays.get("bias", np.zeros_like(mean))
    axes, n = all_but_channels(x), x.size // x.shape[1]
    running = {"running_mean": mean, "running_var": var}
    if of_batch:
        mean, var = rounding(x.mean(axes), n, largest(x)), rounding(x.var(axes), n)
        kept = var * n / (n - 1) if layer.unbiased and n > 1 else var
        for name, batch in (("running_mean", mean), ("running_var", kept)):
            running[name] = (1 - layer.momentum) * running[name] + layer.momentum * batch
    inverse = 1 / np.sqrt(var + layer.eps)
    normal = (x - per_channel(mean, x)) * per_channel(inverse, x)
    scale = largest(x) * largest(gamma * inverse)
    y = rounding(normal * per_channel(gamma, x) + per_channel(beta, x), 1, scale)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        sums = np.abs(dy).sum(axes)
        gradients = {
            "weight": rounding((dy * normal).sum(axes), n, largest(np.abs(dy * normal).sum(axes))),
            "bias": rounding(dy.sum(axes), n, largest(sums)),
        }
        if of_batch:
            centred = dy - per_channel(dy.mean(axes), x)
            dy = centred - normal * per_channel((dy * normal).mean(axes), x)
        factor = gamma * inverse
        dx = dy * per_channel(factor, x)
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


def _norm_in_range(layer: L2Normalize, shape: Shape, path: str) -> Shape:
    if layer.eps <= 0:
        raise SpecError(path, f"its eps {layer.eps} must be above 0: an image of zeros has no norm")
    return shape


def _l2_normalize(layer: L2Normalize, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding, axes = conditions.rounding, tuple(range(1, x.ndim)) if layer.whole else (1,)
    squares = (x * x).sum(axes, keepdims=True)
    terms = x[0].size if layer.whole else x.shape[1]
    norm = np.maximum(np.sqrt(squares), layer.eps) if layer.bound else np.sqrt(squares + layer.eps)
    varies = np.sqrt(squares) > layer.eps if layer.bound else np.ones_like(norm, bool)
    y = rounding(x / norm, terms)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        along = np.where(varies, y * (dy * y).sum(axes, keepdims=True), 0.0)
        return rounding((dy - along) / norm, terms, largest(dy / norm)), {}

    return LayerPass(y, backward)


KINDS = (
    Kind(L2Normalize, _norm_in_range, no_macs, one_place, no_arrays, _l2_normalize, as_is, training_only=False),
    Kind(BatchNorm, same_shape, no_macs, one_place, _arrays, _batch_norm, as_is, training_only=False),
    Kind(LocalResponseNorm, _odd_window, no_macs, one_place, no_arrays, _lrn, as_is, training_only=False),
)
