"""A step of the trainer in a lower precision than float32 (`Execution`: "bf16", "fp16", TF32), by the same rule of
tolerance with that precision's own rounding unit.

Weights, optimiser and sums stay in float32 there; factors and results of the layers are rounded to the unit. So a
perturbed execution rounds the weights and the images once, and every result number by number. What the trainer itself
does is judged, since that is where the precision is applied: a prediction, and one step from given weights: its loss,
gradients (as the velocity after it) and running statistics; and that both are rounded to it at all. Both on the case of
the other levels and, where there are batch norms, with their statistics fixed (`triptych.conformance.steady`): over few
values they magnify rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from triptych.backend.execution import Execution
from triptych.conformance import tolerance
from triptych.conformance.case import Case, make_case
from triptych.conformance.steady import STEP, VELOCITY, fixed
from triptych.conformance.tolerance import Budgets
from triptych.optim.optimizers import Rates
from triptych.reference import network as reference
from triptych.reference.decay import decay_by_path
from triptych.reference.rounding import FLOAT32_UNIT, Shortened
from triptych.spec.analysis import parameters
from triptych.spec.kinds.layer_pass import Rounding, exact
from triptych.spec.layers import BatchNorm
from triptych.utils.arrays import Array, largest
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.conformance.compare import Arrays
    from triptych.conformance.reference_run import ReferenceRun
    from triptych.conformance.subjects import BackendSubject

LEVEL = "low precision"
EXECUTIONS = {
    "bf16": Execution("bf16", "quick"),
    "fp16": Execution("fp16", "quick"),
    "tf32": Execution("fp32", "quick", tf32=True),
}
UNITS = {"bf16": 2.0**-8, "fp16": 2.0**-11, "tf32": 2.0**-11}  # half the distance from 1 to the next number
FIXED = " (fixed statistics)"
# Whether the prediction, and the step, are rounded to the precision at all: 1 if so, 0 if they are as float32's are.
ROUNDED = {"prediction is rounded": "prediction", "gradients are rounded": VELOCITY}
FREE = ("tf32",)  # here it is not asked: a small product may be computed without it
RATES = Rates(2.0**-10, STEP.momentum)  # the rate does not reach the velocity
PAIRS = 8  # of perturbed executions: at such units more numbers lie on the edge of a ReLU than float32's three find
TRIES = 16  # a loss in float16 is scaled, and a step in which that overflows is taken again with half the scale


def refuse_device(precision: str | None, device: str) -> None:
    """Raises TriptychError for a precision that no device of this kind has."""
    if precision == "tf32" and device == "cpu":
        raise TriptychError("tf32 is for GPUs and NPUs: a CPU has no such products; give --device")


@dataclass(frozen=True, eq=False)
class Passes:
    """A case, the mark of its arrays' names, and what the exact reference says of it."""

    case: Case
    mark: str

    def arrays(self, rounding: Rounding = exact, cast: Callable[[Array], Array] = np.asarray) -> dict[str, Array]:
        """The prediction, loss, gradients and running statistics, in this rounding of results, with weights and
        images that `cast` has rounded."""
        case = self.case
        values = {path: cast(value) for path, value in case.exact.items()}
        images, architecture = cast(case.images), case.architecture
        evaluated = reference.forward(architecture, values, images, rounding=rounding, forward_only=True)
        trained = reference.forward(architecture, values, images, train=True, masks=case.masks(0), rounding=rounding)
        loss, gradients = reference.backward(trained, case.targets)
        velocities = {VELOCITY + path: gradients[path] for path in decay_by_path(STEP, architecture)}
        return self.marked(
            {"prediction": evaluated.logits, "loss": np.asarray(loss), **velocities, **trained.statistics}
        )

    def marked(self, arrays: Arrays) -> dict[str, Array]:
        """Under names that tell the case."""
        return {name + self.mark: value for name, value in arrays.items()}

    def perturbed(self, unit: float) -> Iterator[dict[str, Array]]:
        """The same in executions with rounding of this unit."""
        for rounding in tolerance.perturbations(self.case.seed, PAIRS):
            short = Shortened(rounding, unit)
            yield self.arrays(short, short.cast)


class Expected:
    """What is expected of one step, and its budgets in each precision; computed when asked for, and then kept."""

    def __init__(self, run: ReferenceRun) -> None:
        norms = any(isinstance(layer, BatchNorm) and not layer.frozen for layer in run.layers.values())
        steady = [Passes(make_case(fixed(run.case.architecture), run.case.seed), FIXED)] if norms else []
        self.passes = (Passes(run.case, ""), *steady)
        self._budgets: dict[str, Budgets] = {}

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """By name, of all passes."""
        arrays = {name: value for one in self.passes for name, value in one.arrays().items()}
        return arrays | {name: np.ones(()) for name in ROUNDED}

    def budgets(self, precision: str) -> Budgets:
        """By name, the largest allowed difference."""
        if precision not in self._budgets:
            unit = UNITS[precision]
            allowed: Budgets = {}
            for one in self.passes:
                mine = {name: value for name, value in self.arrays.items() if name.endswith(FIXED) == bool(one.mark)}
                mine = {name: value for name, value in mine.items() if name not in ROUNDED}
                allowed |= tolerance.budgets_of(unit, mine, one.perturbed(unit))
            self._budgets[precision] = allowed | dict.fromkeys(ROUNDED, 0.5)
        return self._budgets[precision]


def budgets(run: ReferenceRun, precision: str, arrays: Arrays) -> Budgets:
    """Those of `Expected`."""
    return run.low_precision.budgets(precision)


def observed(subject: BackendSubject) -> dict[str, Array]:
    """The same of a backend, in networks that `subject.build` makes."""
    arrays = {
        name: value
        for one in subject.run.low_precision.passes
        for name, value in one.marked(_step(subject, one.case)).items()
    }
    if subject.precision in FREE:
        return arrays
    return arrays | _rounded(subject.run.low_precision.arrays, arrays, UNITS[subject.precision])


def _rounded(expected: Arrays, arrays: Arrays, unit: float) -> dict[str, Array]:
    """`ROUNDED` of a step: off by more than the mean of float32's unit and this one, in powers, of its scale."""
    least = (unit * FLOAT32_UNIT) ** 0.5
    off = {
        name: largest(value - expected[name]) / max(largest(expected[name]), 1e-300)
        for name, value in arrays.items()
        if name in expected and value.shape == expected[name].shape and largest(expected[name])
    }
    return {
        said: np.asarray(float(any(far > least for name, far in off.items() if name.startswith(start))))
        for said, start in ROUNDED.items()
    }


def _step(subject: BackendSubject, case: Case) -> dict[str, Array]:
    backend, network = subject.backend, subject.build(case.architecture)
    backend.from_canonical(network, case.parameters)
    prediction = backend.Predictor(network, case.transform).predict(case.stored)
    trainer = backend.Trainer(network, STEP, case.transform, case.seed)
    for _ in range(TRIES):
        handle = trainer.step(case.stored, case.targets, RATES, 0, masks=case.masks(0))
        if state := {name: value for name, value in trainer.state().items() if name.startswith(VELOCITY)}:
            break
        backend.from_canonical(network, case.parameters)
    statistics = {info.path for info in parameters(case.architecture) if not info.trained}
    after = {path: value for path, value in backend.to_canonical(network).items() if path in statistics}
    return {"prediction": prediction, "loss": np.asarray(trainer.read([handle])[0, 0]), **state, **after}
