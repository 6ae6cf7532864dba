"""Batch normalisation and local response normalisation."""

from __future__ import annotations

from collections.abc import Mapping

from triptych.reference.layers import Array, Gradients, largest
from triptych.spec.errors import SpecError
from triptych.spec.kinds.kind import (
    ArrayInfo,
    Conditions,
    Kind,
    LayerPass,
    at_any_size,
    no_macs,
    one_place,
    pointwise,
    same_shape,
)
from triptych.spec.layers import BatchNorm, LocalResponseNorm, Shape
from triptych.utils.lazy import np


def _batch_norm_arrays(layer: BatchNorm, shape: Shape) -> tuple[ArrayInfo, ...]:
    features = shape[:1]
    gamma = (ArrayInfo("weight", features, "scale", 1.0, True),) if layer.gamma else ()
    return (
        *gamma,
        ArrayInfo("bias", features, "shift", 0.0, True),
        ArrayInfo("running_mean", features, "running_mean", 0.0, False),
        ArrayInfo("running_var", features, "running_var", 1.0, False),
    )


def _batch_norm(layer: BatchNorm, x: Array, arrays: Mapping[str, Array], conditions: Conditions) -> LayerPass:
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


def _local_response_norm(
    layer: LocalResponseNorm, x: Array, arrays: Mapping[str, Array], conditions: Conditions
) -> LayerPass:
    """Divide by a power of the neighbouring channels' energy (Krizhevsky et al. 2012, section 3.3)."""

    def neighbours(values: Array) -> Array:
        half = layer.size // 2
        wide = np.pad(values, ((0, 0), (half, half), (0, 0), (0, 0)))
        sums: Array = np.lib.stride_tricks.sliding_window_view(wide, layer.size, axis=1).sum(-1)
        return sums

    base = layer.k + layer.coefficient * neighbours(x * x)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        shared = neighbours(dy * x * base ** (-layer.beta - 1))
        dx = dy * base**-layer.beta - 2 * layer.coefficient * layer.beta * x * shared
        return conditions.rounding(dx, layer.size), {}

    return LayerPass(conditions.rounding(x * base**-layer.beta, layer.size), backward)


KINDS = (
    Kind(
        record=BatchNorm,
        output=same_shape,
        macs=no_macs,
        window=one_place,
        arrays=_batch_norm_arrays,
        reference=_batch_norm,
        any_size=at_any_size,
        training_only=False,
    ),
    pointwise(LocalResponseNorm, _local_response_norm, output=_odd_window),
)
