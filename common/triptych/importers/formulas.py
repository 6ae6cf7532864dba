"""Activations that a program writes out in elementary functions, known by what they compute, however they are written.

A value is followed back through functions of each number by itself, until all of it comes from one value; if numbers on
both sides of 0 become of it what they become of an activation, it is that activation. Exporters and JAX write GELU,
softplus and others so, each version in its own way."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfc

from triptych.importers.activations import ACTIVATIONS
from triptych.spec.kinds import kind_of
from triptych.spec.kinds.layer_pass import Conditions, exact
from triptych.spec.layers import ELU, Elementwise, LeakyReLU

Array = NDArray[Any]
POINTS = np.concatenate((np.linspace(-8, 8, 65), [-30.0, -15.0, 15.0, 30.0]))
CLOSE = 1e-6  # of constants that a file has in float32, or its author with seven digits
MOST_TERMS = 30  # of one formula


class Term(NamedTuple):
    """A function of each number by itself, and what it is of: names of values, or numbers."""

    function: Callable[..., Any]
    inputs: tuple[str | float, ...]


def chosen(condition: Array, one: Array, other: Array) -> Array:
    """np.where, whose arrays may be numbers."""
    return np.where(condition, one, other)


def softplus(x: Array, beta: float = 1.0, threshold: float = np.inf) -> Array:
    """As PyTorch has it, with numbers that make a linear function of what is above the threshold."""
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def as_it_is(x: Array) -> Array:
    """Of what changes no number: a copy, another type of floating-point numbers."""
    return x


# NumPy's functions by the names that the formats share; lower case, without underscores.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "neg": np.negative,
    "abs": np.abs,
    "square": np.square,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": np.reciprocal,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "erf": erf,
    "erfc": erfc,
    "tanh": np.tanh,
    "logaddexp": np.logaddexp,
    "softplus": softplus,
    "max": np.maximum,
    "min": np.minimum,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "where": chosen,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "ne": np.not_equal,
    "greater": np.greater,
    "less": np.less,
    "greaterorequal": np.greater_equal,
    "lessorequal": np.less_equal,
    **dict.fromkeys(("sigmoid", "logistic"), lambda x: np.exp(-np.logaddexp(0, -x))),
    "relu": lambda x: np.maximum(x, 0),
}


def activation(terms: Mapping[str, Term], name: str) -> tuple[Elementwise, str] | None:
    """What the value `name` is, and of which value; None where it is none, or one function alone."""
    if name not in terms:
        return None
    for source in _behind(terms, name):
        if source in terms[name].inputs and not any(each in terms and each != source for each in terms[name].inputs):
            continue  # one function: its operator has a row of its own, or is none
        computed = _computed(terms, name, source)
        layer = None if computed is None else _known(computed)
        if layer is not None:
            return layer, source
    return None


def _behind(terms: Mapping[str, Term], name: str) -> Iterator[str]:
    """The values that a value is made of, the nearest first."""
    found = [name]
    for each in found:
        if len(found) > MOST_TERMS:
            return
        new = [i for i in terms[each].inputs if isinstance(i, str) and i not in found] if each in terms else []
        found += dict.fromkeys(new)
        yield from dict.fromkeys(new)


def _computed(terms: Mapping[str, Term], name: str, source: str) -> Array | None:
    """What the points become on the way from one value to another; None if something else has a part in it."""
    known: dict[str, Any] = {source: POINTS}

    def value(of: str | float) -> Any:
        if not isinstance(of, str):
            return of
        if of not in known:
            term = terms[of]
            known[of] = term.function(*map(value, term.inputs))
        return known[of]

    try:
        with np.errstate(all="ignore"):
            result = np.asarray(value(name), np.float64)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return result if result.shape == POINTS.shape else None


def _known(computed: Array) -> Elementwise | None:
    """The activation that makes this of the points. Numbers of its own follow from what becomes of -1."""
    below = float(computed[POINTS == -1.0][0])
    own: list[Elementwise] = [LeakyReLU("", float(f"{-below:.7g}")), ELU("", float(f"{below / np.expm1(-1):.7g}"))]
    layers: list[Elementwise] = [*(row.layer for row in ACTIVATIONS), *(own if -1 < below < 0 else [])]
    return next((layer for layer in layers if np.allclose(computed, _of(layer), CLOSE, CLOSE)), None)


@cache
def _of(layer: Elementwise) -> Array:
    return np.asarray(kind_of(layer).reference(layer, POINTS, {}, Conditions(exact)).output)
