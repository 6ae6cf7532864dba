"""What multiplies each value: constants or trained factors, and dropout."""

from triptych.spec.kinds.kind import Kind, ParameterInfo, SpecError, as_is, no_arrays, no_macs, one_place
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass, all_but_channels, per_channel
from triptych.spec.layers import Affine, Dropout, Shape
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.errors import TriptychError
from triptych.utils.lazy import np


def _one_or_per_channel(layer: Affine, shape: Shape, path: str) -> Shape:
    for name, values in (("scale", layer.scale), ("shift", layer.shift)):
        if len(values) not in (1, shape[0]):
            raise SpecError(path, f"its {name} has {len(values)} numbers for {shape[0]} channels; one, or one for each")
    if layer.trained and (layer.scale, layer.shift) != ((1.0,), (0.0,)):
        raise SpecError(path, "its scale and shift are trained, and start at 1 and 0; it has constants besides")
    return shape


def _trained(layer: Affine, shape: Shape) -> tuple[ParameterInfo, ...]:
    if not layer.trained:
        return ()
    return ParameterInfo("weight", shape[:1], "scale", 1.0), ParameterInfo("bias", shape[:1], "shift", 0.0)


def _affine(layer: Affine, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding, axes = conditions.rounding, all_but_channels(x)
    scale = per_channel(arrays["weight"] if layer.trained else np.array(layer.scale), x)
    shift = per_channel(arrays["bias"] if layer.trained else np.array(layer.shift), x)
    terms = x.size // x.shape[1]

    def backward(dy: Array) -> tuple[Array, Gradients]:
        products = dy * x
        gradients = {
            "weight": rounding(products.sum(axes), terms, largest(np.abs(products).sum(axes))),
            "bias": rounding(dy.sum(axes), terms, largest(np.abs(dy).sum(axes))),
        }
        return rounding(dy * scale, 1), gradients

    return LayerPass(rounding(x * scale + shift, 1, largest(x * scale)), backward)


def _rate_in_range(layer: Dropout, shape: Shape, path: str) -> Shape:
    if not 0 <= layer.rate < 1:
        raise SpecError(path, f"its rate {layer.rate} must be at least 0 and below 1")
    return shape


def _dropout(layer: Dropout, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Zero what the mask does not keep, scale the rest by 1 / (1 - rate)."""
    if conditions.mask is None:
        raise TriptychError(f"layer '{conditions.path}': training needs a dropout mask for it")
    factor = conditions.mask.astype(x.dtype) / (1 - layer.rate)
    return LayerPass(x * factor, lambda dy: (dy * factor, {}))


KINDS = (
    Kind(Affine, _one_or_per_channel, no_macs, one_place, _trained, _affine, as_is, training_only=False),
    Kind(Dropout, _rate_in_range, no_macs, one_place, no_arrays, _dropout, as_is, training_only=True),
)
