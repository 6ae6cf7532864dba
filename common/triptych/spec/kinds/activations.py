"""Activations: functions of each value by itself, and softmax."""

from triptych.spec.kinds.kind import Kind, ParameterInfo, SpecError, as_is, no_arrays, no_macs, one_place, same_shape
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass, all_but_channels, per_channel
from triptych.spec.layers import (
    ELU,
    GELU,
    SELU,
    Clip,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    Mish,
    PReLU,
    ReLU,
    Shape,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.lazy import np

PRELU_START = 0.25  # He et al. 2015, section 2.1
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, section 2, in 64 bits
SAME_AS_X = 40.0  # log(1 + exp(40)) - 40 is 4e-18
SATURATED = 20.0  # from here on tanh is 1 in float32: that of XLA on the CPU stays some units below it until there


def _relu(layer: ReLU, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Exact in any precision."""
    return LayerPass(np.maximum(x, 0), lambda dy: (np.where(x > 0, dy, 0.0), {}))


def _sigmoid_of(x: Array) -> Array:
    """Without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def _sigmoid(layer: Sigmoid, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    y = conditions.rounding(_sigmoid_of(x), 1)
    return LayerPass(y, lambda dy: (conditions.rounding(dy * y * (1 - y), 1), {}))


def _tanh(layer: Tanh, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    y = conditions.rounding(np.tanh(x), 1)
    return LayerPass(y, lambda dy: (conditions.rounding(dy * (1 - y * y), 1), {}))


def _low_below_high(layer: Clip, shape: Shape, path: str) -> Shape:
    if not layer.low < layer.high:
        raise SpecError(path, f"its lower bound {layer.low} must be below its upper bound {layer.high}")
    return shape


def _clip(layer: Clip, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Exact, but for bounds that a precision does not have."""
    inside = (x > layer.low) & (x < layer.high)
    y = conditions.rounding(np.clip(x, layer.low, layer.high), 1)
    return LayerPass(y, lambda dy: (np.where(inside, dy, 0.0), {}))


def _leaky_relu(layer: LeakyReLU, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding, factor = conditions.rounding, np.where(x > 0, 1.0, layer.slope)
    return LayerPass(rounding(x * factor, 1), lambda dy: (rounding(dy * factor, 1), {}))


def _slopes(layer: PReLU, shape: Shape) -> tuple[ParameterInfo, ...]:
    return (ParameterInfo("weight", (1,) if layer.shared else shape[:1], "slope", PRELU_START),)


def _prelu(layer: PReLU, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding = conditions.rounding
    factor = np.where(x > 0, 1.0, per_channel(arrays["weight"], x))
    axes = tuple(range(x.ndim)) if layer.shared else all_but_channels(x)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        terms = np.where(x > 0, 0.0, dy * x)
        slopes = np.atleast_1d(terms.sum(axes))
        scale = largest(np.atleast_1d(np.abs(terms).sum(axes)))
        return rounding(dy * factor, 1), {"weight": rounding(slopes, x.size // slopes.size, scale)}

    return LayerPass(rounding(x * factor, 1), backward)


def _silu(layer: SiLU, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding, sigmoid = conditions.rounding, _sigmoid_of(x)
    derivative = sigmoid * (1 + x * (1 - sigmoid))
    return LayerPass(rounding(x * sigmoid, 2), lambda dy: (rounding(dy * derivative, 2, largest(dy)), {}))


def _exponential(x: Array, alpha: float, scale: float, conditions: Conditions) -> LayerPass:
    """ELU, times a scale. expm1 keeps the digits near 0, and is not given what would overflow."""
    rounding, positive, below = conditions.rounding, x > 0, np.minimum(x, 0)
    derivative = scale * np.where(positive, 1.0, alpha * np.exp(below))
    y = scale * np.where(positive, x, alpha * np.expm1(below))
    return LayerPass(rounding(y, 2), lambda dy: (rounding(dy * derivative, 2), {}))


def _elu(layer: ELU, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    return _exponential(x, layer.alpha, 1.0, conditions)


def _selu(layer: SELU, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    return _exponential(x, SELU_ALPHA, SELU_SCALE, conditions)


def _gelu(layer: GELU, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """1 + erf and 1 + tanh cancel far below 0, to a rounding of 1 times x. 1 - tanh^2, as all frameworks compute the
    tanh form's derivative, cancels too where tanh is nearly 1, to a rounding of 1 times what it is multiplied by;
    power, sum, tanh, square and difference round one after the other."""
    rounding = conditions.rounding
    if layer.approximate:
        factor = np.sqrt(2 / np.pi)
        inner = factor * (x + 0.044715 * x**3)
        tanh, slope = np.tanh(inner), 0.5 * x * factor * (1 + 3 * 0.044715 * x**2)
        share, rest = 0.5 * (1 + tanh), slope * (1 - tanh * tanh)
        cancelled = np.where(np.abs(inner) < SATURATED, 1 + np.abs(slope), 1.0)
    else:
        from scipy.special import erf

        share, rest = 0.5 * (1 + erf(x / np.sqrt(2))), x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
        cancelled = np.ones_like(x)
    return LayerPass(
        rounding(x * share, 2, largest(x)),
        lambda dy: (rounding(dy * (share + rest), 5, largest(dy * cancelled)), {}),
    )


def _positive_threshold(layer: Softplus, shape: Shape, path: str) -> Shape:
    if layer.threshold is not None and not layer.threshold > 0:
        raise SpecError(path, f"its threshold {layer.threshold} must be above 0")
    return shape


def linear_from(layer: Softplus) -> float:
    """A threshold for frameworks that need one: above `SAME_AS_X` no float64 shows the difference, nor does its
    exponential overflow in float32."""
    return SAME_AS_X if layer.threshold is None else min(layer.threshold, SAME_AS_X)


def _softplus(layer: Softplus, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding, linear = conditions.rounding, x > (np.inf if layer.threshold is None else layer.threshold)
    derivative = np.where(linear, 1.0, _sigmoid_of(x))
    y = np.where(linear, x, np.logaddexp(0, x))
    return LayerPass(rounding(y, 2), lambda dy: (rounding(dy * derivative, 2), {}))


def _softsign(layer: Softsign, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding, below = conditions.rounding, 1 / (1 + np.abs(x))
    return LayerPass(rounding(x * below, 2), lambda dy: (rounding(dy * below * below, 3), {}))


def _mish(layer: Mish, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """1 - tanh^2 cancels as in GELU's tanh form."""
    rounding, inner = conditions.rounding, np.logaddexp(0, x)
    tanh, slope = np.tanh(inner), x * _sigmoid_of(x)
    cancelled = np.where(inner < SATURATED, 1 + np.abs(slope), 1.0)
    derivative = tanh + slope * (1 - tanh * tanh)
    return LayerPass(rounding(x * tanh, 3), lambda dy: (rounding(dy * derivative, 3, largest(dy * cancelled)), {}))


def _hard_sigmoid(layer: HardSigmoid, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    line, rounding = layer.slope * x + layer.offset, conditions.rounding
    inside = (line > 0) & (line < 1)
    return LayerPass(
        rounding(np.clip(line, 0, 1), 2, 1 + abs(layer.offset)),
        lambda dy: (rounding(np.where(inside, dy * layer.slope, 0.0), 1), {}),
    )


def _hard_swish(layer: HardSwish, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding = conditions.rounding
    derivative = np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5))
    y = x * np.clip(x + 3, 0, 6) / 6
    return LayerPass(rounding(y, 2, largest(x)), lambda dy: (rounding(dy * derivative, 2, largest(dy)), {}))


def _softmax(layer: Softmax, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    rounding, channels = conditions.rounding, x.shape[1]
    powers = np.exp(x - x.max(1, keepdims=True))
    y = rounding(powers / powers.sum(1, keepdims=True), channels)

    def backward(dy: Array) -> tuple[Array, Gradients]:
        return rounding(y * (dy - (dy * y).sum(1, keepdims=True)), channels, largest(y * dy)), {}

    return LayerPass(y, backward)


KINDS = (
    Kind(ReLU, same_shape, no_macs, one_place, no_arrays, _relu, as_is, training_only=False),
    Kind(Sigmoid, same_shape, no_macs, one_place, no_arrays, _sigmoid, as_is, training_only=False),
    Kind(Tanh, same_shape, no_macs, one_place, no_arrays, _tanh, as_is, training_only=False),
    Kind(Clip, _low_below_high, no_macs, one_place, no_arrays, _clip, as_is, training_only=False),
    Kind(LeakyReLU, same_shape, no_macs, one_place, no_arrays, _leaky_relu, as_is, training_only=False),
    Kind(PReLU, same_shape, no_macs, one_place, _slopes, _prelu, as_is, training_only=False),
    Kind(SiLU, same_shape, no_macs, one_place, no_arrays, _silu, as_is, training_only=False),
    Kind(ELU, same_shape, no_macs, one_place, no_arrays, _elu, as_is, training_only=False),
    Kind(SELU, same_shape, no_macs, one_place, no_arrays, _selu, as_is, training_only=False),
    Kind(GELU, same_shape, no_macs, one_place, no_arrays, _gelu, as_is, training_only=False),
    Kind(Softplus, _positive_threshold, no_macs, one_place, no_arrays, _softplus, as_is, training_only=False),
    Kind(Softsign, same_shape, no_macs, one_place, no_arrays, _softsign, as_is, training_only=False),
    Kind(Mish, same_shape, no_macs, one_place, no_arrays, _mish, as_is, training_only=False),
    Kind(HardSigmoid, same_shape, no_macs, one_place, no_arrays, _hard_sigmoid, as_is, training_only=False),
    Kind(HardSwish, same_shape, no_macs, one_place, no_arrays, _hard_swish, as_is, training_only=False),
    Kind(Softmax, same_shape, no_macs, one_place, no_arrays, _softmax, as_is, training_only=False),
)
