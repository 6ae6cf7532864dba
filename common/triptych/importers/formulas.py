"""Activations that a program writes out in elementary functions, known by what they compute, however they are written.

A value is followed back through functions of each number by itself, to each value that all of it comes from; if numbers
on both sides of 0 become of that what they become of an activation, it is that activation. Exporters and JAX write
GELU, softplus and others so, each version in its own way."""

from collections.abc import Callable, Mapping
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
POINTS = np.array([-30, -15, -8, -6.5, -5, -4, -3.5, -2.5, -2, -1.5, -1, -0.7, -0.4, -0.1, 0, 0.1, 0.3])
POINTS = np.concatenate((POINTS, [0.5, 1, 1.5, 2.5, 3, 4, 5, 6.5, 8, 15, 30]))
COUNTS = {"where": 3}  # of inputs, where it is not 1 and NumPy does not say it
CLOSE = 1e-6  # of constants that a file has in float32, or its author with seven digits
MOST_SOURCES = 24  # that are tried for one value, the nearest


class Term(NamedTuple):
    """A function of each number by itself, and what it is of: names of values, or numbers. `plain`: it is a layer by
    itself, or an affine one with a number, so that a row of such is no formula."""

    function: Callable[..., Any]
    inputs: tuple[str | float, ...]
    plain: bool = False


def chosen(condition: Array, one: Array, other: Array) -> Array:
    """np.where, whose arrays may be numbers."""
    return np.where(condition, one, other)


def softplus(x: Array) -> Array:
    """As ONNX has it."""
    return np.asarray(np.logaddexp(0, x))


def as_it_is(x: str) -> Term:
    """What changes no number: a copy, another type of floating-point numbers. (What ends a gradient is none.)"""
    return Term(lambda x: x, (x,), plain=True)


# NumPy's functions by the names that the formats share, in lower case; first those that layers are made of.
PLAIN: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "tanh": np.tanh,
    "softplus": softplus,
    **dict.fromkeys(("sigmoid", "logistic"), lambda x: np.exp(-np.logaddexp(0, -x))),
    "relu": lambda x: np.maximum(x, 0),
}
OTHERS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "square": np.square,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "pow": np.power,
    "reciprocal": np.reciprocal,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "erf": erf,
    "erfc": erfc,
    "logaddexp": np.logaddexp,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "ne": np.not_equal,
    "greater": np.greater,
    "less": np.less,
    "greaterorequal": np.greater_equal,
    "lessorequal": np.less_equal,
    "where": chosen,
}


def term(name: str, inputs: tuple[str | float, ...]) -> Term | None:
    """The function of that name, of these inputs; None if there is none, or it takes another number of them."""
    function = PLAIN.get(name) or OTHERS.get(name)
    if function is None or getattr(function, "nin", COUNTS.get(name, 1)) != len(inputs):
        return None
    return Term(function, inputs, name in PLAIN)


def activations(terms: Mapping[str, Term]) -> dict[str, tuple[Elementwise, str]]:
    """By the name of a value, which activation it is, and of which value. `terms` in the order of the program."""
    found: dict[str, tuple[Elementwise, str]] = {}
    last = {value: name for name, each in terms.items() for value in each.inputs}
    numbers: dict[str, float] = {}  # that are computed
    known: dict[str, dict[str, tuple[Array, bool]]] = {}  # by value and source, and whether it may be a formula
    with np.errstate(all="ignore"):
        for name, each in terms.items():
            term = each._replace(inputs=tuple(numbers.get(str(value), value) for value in each.inputs))
            if not any(isinstance(value, str) for value in term.inputs):
                numbers[name] = term.function(*term.inputs)
                continue
            known[name] = _followed(term, known)
            layers = ((_known(y), source) for source, (y, formula) in known[name].items() if formula)
            found |= dict([(name, (layer, source)) for layer, source in layers if layer is not None][:1])
            for value in (*term.inputs, *(() if name in last else (name,))):
                if last.get(value, name) == name:  # no later formula has it: a graph may have 100,000 values
                    known.pop(str(value), None)
    return found


def _followed(term: Term, known: Mapping[str, Mapping[str, tuple[Array, bool]]]) -> dict[str, tuple[Array, bool]]:
    """What the points become on the way from each source to the term."""
    names = [each for each in term.inputs if isinstance(each, str)]
    sources = dict.fromkeys((*names, *(source for name in names for source in known.get(name, ()))))
    made: dict[str, tuple[Array, bool]] = {}
    for source in list(sources)[:MOST_SOURCES]:
        parts = [(POINTS, False) if name == source else known.get(name, {}).get(source) for name in names]
        values = iter(parts)
        arguments = [next(values) if isinstance(each, str) else (each, False) for each in term.inputs]
        if None in parts:  # something else has a part in it
            continue
        formula = not term.plain or len(names) > 1 or any(part is not None and part[1] for part in parts)
        made[source] = term.function(*(argument[0] for argument in arguments if argument)), formula
    return made


def _known(computed: Array) -> Elementwise | None:
    """The activation that makes this of the points. Numbers of its own follow from what becomes of -1."""
    if np.shape(computed) != POINTS.shape or not np.any(np.abs(_at_one() - computed[POINTS == 1.0]) < CLOSE):
        return None
    below = float(computed[POINTS == -1.0][0])
    own: list[Elementwise] = [LeakyReLU("", float(f"{-below:.7g}")), ELU("", float(f"{below / np.expm1(-1):.7g}"))]
    layers: list[Elementwise] = [*(row.layer for row in ACTIVATIONS), *(own if -1 < below < 0 else [])]
    return next((layer for layer in layers if np.allclose(computed, _of(layer), CLOSE, CLOSE)), None)


@cache
def _at_one() -> Array:
    """What the activations make of 1."""
    return np.array([_of(row.layer)[POINTS == 1.0][0] for row in ACTIVATIONS])


@cache
def _of(layer: Elementwise) -> Array:
    return np.asarray(kind_of(layer).reference(layer, POINTS, {}, Conditions(exact)).output)
