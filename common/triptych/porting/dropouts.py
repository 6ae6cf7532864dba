"""The dropout of somebody's network, as it is called, beside that of the spec: its place, rate, kind and mode."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Captured, Drawn
from triptych.conformance.compare import Arrays, Check, problem
from triptych.conformance.reference_run import ReferenceRun
from triptych.spec.layers import Dropout, Flatten, LeakyReLU, PReLU, ReLU, Reshape

# A value that is dropped before one of these is dropped behind it.
PASSED = (Dropout, Flatten, LeakyReLU, PReLU, ReLU, Reshape)
BY_ITSELF = "random numbers of its own"
DRAWN = "random numbers are drawn in training, by no dropout of the framework"
DRAWN_ALWAYS = "random numbers are drawn in evaluation: a second pass gives something else"
TRAINING, ALWAYS = "in training", "in training and in evaluation"
SURPLUS = " (behind it)"  # ends the name of a dropout that the spec does not have, after the layer before it
Described = dict[str, NDArray[np.str_]]  # rate, kind, mode and, where it matters, place of a dropout


def described(rate: float, kind: str = "dropout", mode: str = TRAINING, place: str = "") -> NDArray[np.str_]:
    """A dropout in words."""
    return np.array([f"{rate:.6g}", kind, mode, place])


def observed(
    run: ReferenceRun,
    rates: Mapping[str, float],
    seen: Mapping[str, int],
    trained: Sequence[Captured],
    evaluated: Sequence[Captured],
) -> Described:
    """What a network draws, by the spec's dropout that it stands for, or the layer that it follows. `rates`: the
    spec's, by path; `seen`: the index of a layer's operation in the pass `trained`."""
    wanted = {path: _before(run, path, seen) for path in rates}
    in_training = [(index, _of_values(each)) for index, each in enumerate(trained) if each.drawn is not None]
    found = [(drawn, mode, follows(run, index, seen)) for (index, drawn), mode in _modes(in_training, evaluated)]
    named: Described = {}
    left = list(found)
    for path, place in wanted.items():
        here = next((each for each in left if each[2] == place), None)
        if here is not None:
            left.remove(here)
            named[path] = described(here[0].rate, here[0].kind, here[1])
    for path in (path for path in wanted if path not in named):
        if left:  # in the order of both, elsewhere
            drawn, mode, place = left.pop(0)
            named[path] = described(drawn.rate, drawn.kind, mode, place)
    return named | {f"{place}{SURPLUS}": described(drawn.rate, drawn.kind, mode) for drawn, mode, place in left}


def _of_values(captured: Captured) -> Drawn:
    """What is drawn; of maps of one value a dropout of whole channels is one of values."""
    assert captured.drawn is not None
    single = captured.value.ndim == 4 and captured.value.size == len(captured.value) * captured.value.shape[1]
    words = captured.drawn.kind.removesuffix(" of whole channels") if single else captured.drawn.kind
    return replace(captured.drawn, kind=words)


def _modes(trained: Sequence[tuple[int, Drawn]], evaluated: Sequence[Captured]) -> list[tuple[tuple[int, Drawn], str]]:
    """The dropouts that draw anything in training, and in which modes they do."""
    others = [each.drawn for each in evaluated if each.drawn is not None]
    if len(others) != len(trained):
        others = []  # they are called in training only
    pairs = [(one, other) for one, other in zip_longest(trained, others) if one[1].active and one[1].rate]
    return [(one, ALWAYS if other is not None and other.active else TRAINING) for one, other in pairs]


def _before(run: ReferenceRun, path: str, seen: Mapping[str, int]) -> str:
    """The layer that a dropout of the spec follows, of those that can be seen."""
    last = ""
    for name, layer in run.nodes(True):
        if name == path:
            break
        last = name if name in seen and not isinstance(layer, PASSED) else last
    return last


def follows(run: ReferenceRun, index: int, seen: Mapping[str, int]) -> str:
    """The layer that the operation at `index` follows."""
    before = [(place, path) for path, place in seen.items() if place < index]
    return max(((place, path) for place, path in before if not isinstance(run.layers[path], PASSED)), default=(0, ""))[
        1
    ]


def compare(level: str, expected: Arrays, observed: Arrays, budgets: object) -> list[Check]:
    """One check for every dropout of either side."""
    texts = {name: _wrong(name, expected, observed) for name in (*expected, *observed)}
    return [problem(level, name, text) if text else Check(level, name, 0.0, 0.0, 0.0) for name, text in texts.items()]


def _wrong(name: str, expected: Arrays, observed: Arrays) -> str:
    if name not in observed:
        return "there is no dropout in training"
    rate, kind, mode, place = observed[name].tolist()
    if name not in expected:
        if kind == BY_ITSELF:
            return DRAWN
        return f"a dropout of rate {rate} follows, that the spec does not have"
    right = expected[name].tolist()
    texts = [f"the rate is {rate}, not {right[0]}"] if rate != right[0] else []
    texts += [f"it is {kind}, not {right[1]}"] if kind != right[1] else []
    texts += [f"it is active {mode}"] if mode != right[2] else []
    texts += [f"it follows '{place}'" if place else "it is the first layer"] if place != right[3] else []
    return ", ".join(texts)
