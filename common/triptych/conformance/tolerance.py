"""One tolerance rule for the whole zoo, derived from the float64 reference; see `triptych.reference.rounding`.

float32: a tensor may be off by `SAFETY` times the largest deviation that rounding caused in `PAIRS` pairs of
perturbed executions of the reference, plus one rounding of the tensor itself.
float64: by 1e-12 of the tensor's scale, or by the same float32 budget shrunk by the ratio of the two units,
whichever is larger. The second matters where a tensor is the small rest of a cancellation (the bias of a convolution
before a batch norm has the gradient 0), so that its own scale says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from triptych.conformance.case import Case
from triptych.conformance.observe import Observation, observe_reference
from triptych.conformance.updates import Steps
from triptych.reference.layers import Array, largest
from triptych.reference.rounding import FLOAT32_UNIT, Perturbation
from triptych.utils.randomness import generator

SAFETY = 2.0
PAIRS = 3
FLOAT64_SHARE = 1e-12
UNIT_RATIO = 2.0**-29  # float64's rounding unit over float32's

Budgets = dict[str, dict[str, float]]


def budgets(case: Case, steps: Steps, expected: Observation) -> dict[str, Budgets]:
    """The largest allowed absolute difference by precision, level and name."""
    perturbed = [observe_reference(case, steps, rounding) for rounding in perturbations(case.seed)]
    allowed = {
        level: {name: allowance(value, [run[level][name] for run in perturbed]) for name, value in arrays.items()}
        for level, arrays in expected.items()
    }
    return {
        precision: {level: {name: both[precision] for name, both in named.items()} for level, named in allowed.items()}
        for precision in ("fp64", "fp32")
    }


def perturbations(seed: int) -> Iterator[Perturbation]:
    """The roundings for perturbed executions, in mirrored pairs."""
    for pair in range(PAIRS):
        for sign in (1.0, -1.0):
            yield Perturbation(generator(seed, "rounding", pair), sign)


def allowance(value: Array, perturbed: Iterable[Array]) -> dict[str, float]:
    """By precision, the largest allowed absolute difference of a tensor, given what it was in perturbed executions."""
    single = SAFETY * max(largest(other - value) for other in perturbed) + FLOAT32_UNIT * largest(value)
    return {"fp64": max(FLOAT64_SHARE * largest(value), UNIT_RATIO * single), "fp32": single}
