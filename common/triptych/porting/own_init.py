"""The values that a network starts from, beside the spec's initializer: constants exactly, what is drawn by its spread.

The logarithm of a spread of n values is known to about 1 / sqrt(2 n); a start differs if it is more than `SURE` such
deviations away: with 5, one right array in two million.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from triptych.conformance.compare import problem
from triptych.conformance.diagnosis.explain import Difference
from triptych.conformance.locate import Located
from triptych.conformance.reference_run import layer_of
from triptych.spec.analysis import parameters
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.layers import Architecture
from triptych.utils.arrays import Array
from triptych.weights.initializers import draw_one

LEVEL = "initialisation"
SURE = 5.0
LEAST = 30  # values of an array whose spread says anything
UNIFORM = 1.9  # largest over spread: 1.73 for a uniform draw, beyond 2 for a normal one of so many values
# What frameworks draw by default: the deviation by fan in and fan out, and whether it is uniform.
KNOWN: Mapping[str, tuple[Callable[[int, int], float], bool]] = {
    "xavier_uniform": (lambda i, o: math.sqrt(2 / (i + o)), True),
    "xavier_normal": (lambda i, o: math.sqrt(2 / (i + o)), False),
    "kaiming_uniform": (lambda i, o: math.sqrt(2 / i), True),
    "kaiming_normal": (lambda i, o: math.sqrt(2 / i), False),
    "PyTorch's default, uniform within 1 / sqrt(fan in)": (lambda i, o: math.sqrt(1 / (3 * i)), True),
    "MXNet's default, uniform within 0.07": (lambda i, o: 0.07 / math.sqrt(3), True),
    "lecun_normal, Flax's default": (lambda i, o: math.sqrt(1 / i), False),
    "normal:0.01": (lambda i, o: 0.01, False),
}


def judged(located: Located, architecture: Architecture, values: Mapping[str, Array], seed: int) -> Located:
    """The verdict with the start of a network that agrees with the architecture; `values` by path, as it was given."""
    if located.difference is not None:
        return located
    difference = None
    for info in parameters(architecture):
        text = _wrong(info, architecture, values[info.path], seed) if info.path in values else ""
        if text:
            wrong = problem(LEVEL, info.path, text)
            cause = _cause(info, values[info.path]) if info.start is None else ""
            difference = Difference(layer_of(info.path), LEVEL, wrong, (located.left,), cause)
            break
    return replace(located, levels=(*located.levels, LEVEL), difference=difference)


def _wrong(info: ParameterInfo, architecture: Architecture, value: Array, seed: int) -> str:
    """In what an array does not start as it should; empty where it does."""
    if info.start is not None:
        return "" if np.all(value == info.start) else f"starts at {_seen(value)}, not at {info.start:g} everywhere"
    expected = draw_one(info, seed, architecture.initializer)
    if value.size < LEAST:
        return ""
    if not _alike(float(value.std()), float(expected.std()), value.size, draws=2):
        return f"has the deviation {value.std():.4g}, {architecture.initializer.name} gives {expected.std():.4g}"
    if _is_uniform(value) != _is_uniform(expected) and value.size >= 10 * LEAST:
        forms = ["normal", "uniform"]
        return f"is drawn {forms[_is_uniform(value)]}, not {forms[_is_uniform(expected)]}"
    mean = abs(float(value.mean()))
    return f"has the mean {value.mean():.4g}, not 0" if mean > SURE * float(value.std()) / math.sqrt(value.size) else ""


def _seen(value: Array) -> str:
    return f"{value.flat[0]:g}" if np.ptp(value) == 0 else f"values from {value.min():.3g} to {value.max():.3g}"


def _alike(one: float, other: float, count: int, draws: int) -> bool:
    if min(one, other) <= 0:
        return one == other
    return abs(math.log(one / other)) <= SURE * math.sqrt(draws / (2 * count))


def _is_uniform(value: Array) -> bool:
    return float(np.abs(value).max()) < UNIFORM * float(value.std())


def _cause(info: ParameterInfo, value: Array) -> str:
    """The known initializers that draw so."""
    names = [
        name
        for name, (deviation, uniform) in KNOWN.items()
        if _alike(float(value.std()), deviation(info.fan_in, info.fan_out), value.size, draws=1)
        and uniform == _is_uniform(value)
    ]
    return f"it is drawn as by {', or '.join(names)}" if names else ""
