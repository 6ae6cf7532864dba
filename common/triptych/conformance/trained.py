"""What the training level compares: a life of the trainer, a short one with every optimiser, the dropout that it
draws, the loop around it, the network's own predictions of several sizes, and its activations, its normalisations and
its loss where no tame case takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triptych.backend.contract import Backend, Native
from triptych.conformance import dropped, life, looped, low_precision, short_lives, tails, tolerance
from triptych.conformance.tolerance import Budgets
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.utils.arrays import Array, largest

if TYPE_CHECKING:
    from triptych.conformance.compare import Arrays
    from triptych.conformance.reference_run import ReferenceRun

LEVEL = "training"
LIFE = "life: "


def expected(run: ReferenceRun) -> dict[str, Array]:
    """The reference's life, the network's predictions, and no deviation of the dropout, where there is any."""
    arrays = {name: run.origin.logits[part] for name, part in life.sizes(len(run.case.stored))}
    arrays |= tails.expected(run.origin)
    rate = dropped.rate_of(run.case.architecture)
    arrays |= {LIFE + name: value for name, value in life.expected(run.case.seed).items()}
    arrays |= short_lives.expected(run.case.seed) | looped.expected(run.case.seed)
    return arrays if rate is None else {**arrays, **dropped.expected(rate)}


def visible(arrays: Arrays, precision: str) -> Arrays:
    """Without the life in float32: it is lived in float64, which not every device has; and without what is not asked
    of a precision that a product need not have."""
    hidden = low_precision.ROUNDED if precision in low_precision.FREE else ()
    return {
        name: value
        for name, value in arrays.items()
        if (precision == "fp64" or not name.startswith(LIFE)) and name not in hidden
    }


def observed(backend: Backend, network: Native, run: ReferenceRun, device: str, precision: str) -> dict[str, Array]:
    """The same of a backend; `network` is the architecture's, and gets the case's parameters."""
    case = run.case
    arrays = dict(life.predictions(backend, network, case)) | tails.observed(backend, network, run)
    arrays |= short_lives.observed(backend, case.seed, device, precision) | looped.observed(backend, case.seed)
    if precision == "fp64":
        arrays |= {LIFE + name: value for name, value in life.observed(backend, case.seed, device).items()}
    rate = dropped.rate_of(case.architecture)
    if rate is None:
        return arrays
    return {**arrays, **dropped.statistics(dropped.kept(backend, rate, case.seed, device), rate)}


def budgets(run: ReferenceRun, precision: str, arrays: Arrays) -> Budgets:
    """A life's are `life.budgets`; counts of dropout have theirs. A prediction may be off by what the forward pass may
    be, twice in float32, because its images are rounded too, and by one rounding to float32."""
    return _budgets(run, precision, arrays, run.forward_budgets[precision][run.last])


def least(run: ReferenceRun, precision: str, arrays: Arrays) -> Budgets:
    """Never more than `budgets`, and no execution of the whole network is perturbed for it."""
    return _budgets(run, precision, arrays, tolerance.unperturbed(precision, {run.last: run.logits}, {})[run.last])


def _budgets(run: ReferenceRun, precision: str, arrays: Arrays, forward: float) -> Budgets:
    lived = life.budgets({name.removeprefix(LIFE): v for name, v in arrays.items() if name.startswith(LIFE)})
    allowed = {LIFE + name: budget for name, budget in lived.items()}
    allowed |= tails.budgets(run, precision, arrays) | short_lives.budgets(run.case.seed, precision)
    for name, value in arrays.items():
        if name.startswith(life.PREDICTED):
            allowed[name] = 2 * forward + 2 * FLOAT32_UNIT * largest(value)
        elif name.startswith(looped.PREFIX):
            allowed[name] = looped.BUDGET * max(1.0, largest(value))
        elif name not in allowed:
            allowed[name] = dropped.SIGMAS
    return allowed
