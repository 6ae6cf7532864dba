"""What each format calls the activations that have no arguments there: a row for each."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np

from triptych.spec.layers import (
    ELU,
    GELU,
    SELU,
    Affine,
    Clip,
    Elementwise,
    HardSigmoid,
    HardSwish,
    Layer,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Softsign,
    Tanh,
)


class Names(NamedTuple):
    """One activation. `onnx`: operators. `aten`: operators of PyTorch. `mxnet`: operators, and what `act_type` says of
    `Activation` and `LeakyReLU`. `keras`: functions. `jax`: primitives, and functions of jax.nn that stay whole."""

    layer: Elementwise
    onnx: str = ""
    aten: str = ""
    mxnet: str = ""
    keras: str = ""
    jax: str = ""


LARGEST = float(np.finfo(np.float32).max)  # the bound of a clip that has none

Format: TypeAlias = Literal["onnx", "aten", "mxnet", "keras", "jax"]
ACTIVATIONS = (
    Names(ReLU(""), "Relu", "relu", "relu _npx_relu", "relu"),
    Names(Sigmoid(""), "Sigmoid", "sigmoid", "sigmoid _npx_sigmoid", "sigmoid", "logistic"),
    Names(Tanh(""), "Tanh", "tanh", "tanh _npi_tanh", "tanh", "tanh"),
    Names(Clip("", 0.0, 6.0), aten="relu6", keras="relu6"),
    Names(Clip("", -1.0, 1.0), keras="hard_tanh", jax="hard_tanh"),
    Names(SiLU(""), aten="silu", keras="silu swish", jax="silu"),
    Names(ELU("", 1.0), keras="elu celu"),
    Names(SELU(""), aten="selu", mxnet="selu", keras="selu"),
    Names(GELU("", approximate=False), mxnet="gelu gelu_erf", keras="gelu"),
    Names(GELU("", approximate=True), mxnet="gelu_tanh"),
    Names(Softplus(""), onnx="Softplus", keras="softplus"),
    Names(Softplus("", 20.0), mxnet="softrelu"),
    Names(Softsign(""), "Softsign", "", "softsign", "softsign"),
    Names(Mish(""), "Mish", "mish", "mish", "mish"),
    Names(HardSigmoid(""), aten="hardsigmoid", jax="hard_sigmoid"),
    Names(HardSwish(""), "HardSwish", "hardswish", "", "hard_swish hard_silu", "hard_silu"),
)


def named(of: Format) -> Mapping[str, Elementwise]:
    """The activations by what a format calls them."""
    return {name: row.layer for row in ACTIVATIONS for name in cast(Any, getattr(row, of)).split()}


def celu(alpha: float) -> tuple[Layer, ...]:
    """CELU, `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))` (Barron 2017), as ELU of x / alpha, times alpha."""
    if alpha == 1:
        return (ELU("", 1.0),)
    return Affine("scale", (1 / alpha,)), ELU("elu", 1.0), Affine("", (alpha,))


def swish(beta: float) -> tuple[Layer, ...]:
    """`x * sigmoid(beta * x)` as SiLU of beta * x, over beta."""
    if beta == 1:
        return (SiLU(""),)
    return Affine("scale", (beta,)), SiLU("silu"), Affine("", (1 / beta,))


LOG_SIGMOID: tuple[Layer, ...] = (Affine("minus", (-1.0,)), Softplus("softplus"), Affine("", (-1.0,)))
