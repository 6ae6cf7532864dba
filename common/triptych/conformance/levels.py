"""The levels of conformance, as a table: what is compared at each, its budget, and how a difference is explained.

`conform` runs all rows on a backend; `locate` stops at the first that diverges. A new check is a new row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import methodcaller

from triptych.conformance import low_precision, steady, trained
from triptych.conformance.compare import Arrays, Check, Compare, compare, compare_shapes
from triptych.conformance.diagnosis import explain
from triptych.conformance.diagnosis.explain import Explain
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import Subject
from triptych.conformance.tolerance import Budgets
from triptych.conformance.updates import UPDATES

EXACT, LOW = ("fp64", "fp32"), tuple(low_precision.EXECUTIONS)


@dataclass(frozen=True, eq=False)
class Level:
    """One row. `expected` is asked of the exact reference run and of perturbed ones, which give the budget unless
    there is a rule of its own (`budgets`, and `least`, which is never more and asks for no whole perturbed execution).
    Several rows may have one name. `layer` or `optimizer`: what is run by itself; both are empty for a whole pass.
    `rounded`: rounding may explain a difference; without, the budget is 0. `needed`: where it fails, nothing further
    can be compared."""

    name: str
    expected: Callable[[ReferenceRun], Arrays]
    observed: Callable[[Subject], Arrays]
    explain: Explain
    layer: str = ""
    optimizer: str = ""
    rounded: bool = True
    needed: bool = False
    compare: Compare | None = None  # `compare.compare`
    budgets: Callable[[ReferenceRun, str, Arrays], Budgets] | None = None  # of a run, in a precision: a rule of its own
    least: Callable[[ReferenceRun, str, Arrays], Budgets] | None = None
    wanted: Callable[[ReferenceRun, str], bool] = lambda run, precision: True  # whether this run needs it
    precisions: tuple[str, ...] = EXACT  # in which it is judged

    def applies(self, run: ReferenceRun, precision: str) -> bool:
        """Whether a run is judged by this row in a precision."""
        return precision in self.precisions and self.wanted(run, precision)

    def allowed(self, run: ReferenceRun, precision: str, expected: Arrays) -> Budgets:
        """The budgets of what is expected, by name, in a precision; none where nothing can be rounded."""
        if self.budgets is not None:
            return self.budgets(run, precision, expected)
        return run.budgets[precision].get(self.name, {})

    def checks(self, expected: Arrays, observed: Arrays, budgets: Budgets) -> list[Check]:
        """One check per array."""
        allowed = budgets if self.rounded else dict.fromkeys(expected, 0.0)
        return (self.compare or compare)(self.name, expected, observed, allowed)


_structure = partial(Level, "structure", rounded=False, precisions=(*EXACT, *LOW))
_shapes = partial(_structure, explain=explain.structure, compare=compare_shapes)
PARAMETERS = _shapes(lambda run: run.parameter_shapes, lambda subject: subject.parameter_shapes(), needed=True)
VALUES = _structure(lambda run: run.case.parameters, lambda subject: subject.loaded(), explain.values)
OUTPUTS = _shapes(lambda run: run.output_shapes, lambda subject: subject.output_shapes())
DATA = Level("data", lambda run: run.inputs, lambda subject: subject.inputs(), explain.data, layer="input")
FORWARD_EVAL = Level(
    "forward eval", lambda run: run.outputs(False), lambda s: s.forward(False), partial(explain.forward, train=False)
)
FORWARD_TRAIN = Level(
    "forward train", lambda run: run.outputs(True), lambda s: s.forward(True), partial(explain.forward, train=True)
)
GRADIENT = Level("gradient", lambda run: run.gradients, lambda subject: subject.gradients(), explain.gradient)
STEADY = Level(
    *(GRADIENT.name, steady.expected, lambda subject: subject.steady(), explain.steady),
    budgets=steady.budgets,
    wanted=steady.wanted,
)


def _update(name: str) -> Level:
    ask = methodcaller("update", name)
    return Level("update", ask, ask, partial(explain.update, name=name), optimizer=name)


TRAINING = Level(
    *(trained.LEVEL, trained.expected, lambda subject: subject.training(), explain.training),
    budgets=trained.budgets,
    least=trained.least,
)
LOW_PRECISION = Level(
    *(low_precision.LEVEL, lambda run: run.low_precision.arrays, lambda subject: subject.low_precision()),
    explain.training,
    budgets=low_precision.budgets,
    precisions=LOW,
)
LEVELS = (
    *(PARAMETERS, VALUES, OUTPUTS, DATA, FORWARD_EVAL, FORWARD_TRAIN, GRADIENT, STEADY),
    *(*map(_update, UPDATES), TRAINING, LOW_PRECISION),
)


def names(precision: str) -> tuple[str, ...]:
    """The levels of a precision."""
    return tuple(dict.fromkeys(level.name for level in LEVELS if precision in level.precisions))


ALL_LEVELS = names(EXACT[0])


def layers_alone(run: ReferenceRun, whole: Level) -> Iterator[Level]:
    """The rows that compare every layer by itself, given what the reference's layer was given, before a whole pass;
    backward the loss, then the last layer first. None for a level that is no pass."""
    if whole in (FORWARD_EVAL, FORWARD_TRAIN):
        train = whole is FORWARD_TRAIN
        yield from (_alone(whole.name, path, train, backward=False) for path, _ in run.nodes(train))
    if whole is GRADIENT:
        yield Level(whole.name, lambda run: run.loss(), lambda subject: subject.loss(), explain.loss, layer="loss")
        nodes = reversed(list(run.nodes(True)))
        yield from (_alone(whole.name, path, train=True, backward=True) for path, _ in nodes)


def _alone(name: str, path: str, train: bool, backward: bool) -> Level:
    ask = methodcaller("layer", path, train, backward)  # of the reference run and of the subject alike
    return Level(name, ask, ask, partial(explain.layer, path=path, train=train, backward=backward), layer=path)
