"""The levels of conformance, as a table: what is compared at each, its budget, and how a difference is explained.

`conform` runs all rows on a backend; `locate` stops at the first that diverges. A new check is a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from triptych.conformance.compare import Arrays, Check, Compare, as_arrays, compare, compare_shapes
from triptych.conformance.diagnosis import explain
from triptych.conformance.diagnosis.explain import Explain
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import Subject
from triptych.conformance.tolerance import Budgets
from triptych.conformance.updates import UPDATES


@dataclass(frozen=True, eq=False)
class Level:
    """One row. `expected` is asked of the exact reference run and of perturbed ones, which give the budget.

    `place`: the layer, or the optimiser, that is run by itself; empty for a whole pass. `rounded`: rounding may
    explain a difference; without, the budget is 0. `needed`: where it fails, nothing further can be compared.
    """

    name: str
    expected: Callable[[ReferenceRun], Arrays]
    observed: Callable[[Subject], Arrays]
    explain: Explain
    place: str = ""
    rounded: bool = True
    needed: bool = False
    compare: Compare | None = None  # `compare.compare`

    def checks(self, expected: Arrays, observed: Arrays, budgets: Budgets) -> list[Check]:
        """One check per array."""
        allowed = budgets if self.rounded else dict.fromkeys(expected, 0.0)
        return (self.compare or compare)(self.name, expected, observed, allowed)


_shapes = partial(Level, "structure", rounded=False, compare=compare_shapes)
PARAMETERS = _shapes(
    lambda run: as_arrays(run.parameter_shapes),
    lambda subject: subject.parameter_shapes(),
    explain.structure,
    needed=True,
)
VALUES = Level(
    "structure",
    lambda run: run.case.parameters,
    lambda subject: subject.loaded(),
    explain.values,
    rounded=False,
)
OUTPUTS = _shapes(lambda run: as_arrays(run.output_shapes), lambda subject: subject.output_shapes(), explain.structure)
DATA = Level("data", lambda run: run.inputs, lambda subject: subject.inputs(), explain.data, place="input")
FORWARD_EVAL, FORWARD_TRAIN = (
    Level(
        name,
        lambda run, train=train: run.outputs(train),  # type: ignore[misc]
        lambda subject, train=train: subject.forward(train),  # type: ignore[misc]
        explain.forward(train),
    )
    for name, train in (("forward eval", False), ("forward train", True))
)
GRADIENT = Level("gradient", lambda run: run.gradients, lambda subject: subject.gradients(), explain.gradient)
LEVELS = (
    *(PARAMETERS, VALUES, OUTPUTS, DATA, FORWARD_EVAL, FORWARD_TRAIN, GRADIENT),
    *(
        Level(
            "update",
            lambda run, name=name: run.update(name),  # type: ignore[misc]
            lambda subject, name=name: subject.update(name),  # type: ignore[misc]
            explain.update(name),
            place=name,
        )
        for name in UPDATES
    ),
)
ALL_LEVELS = tuple(dict.fromkeys(level.name for level in LEVELS))


def layers_alone(run: ReferenceRun, whole: Level) -> Iterator[Level]:
    """The rows that compare every layer by itself, given what the reference's layer was given, before a whole pass;
    backward the loss, then the last layer first. None for a level that is no pass."""
    if whole in (FORWARD_EVAL, FORWARD_TRAIN):
        train = whole is FORWARD_TRAIN
        yield from (_alone(whole.name, path, train, backward=False) for path, _ in run.nodes(train))
    if whole is GRADIENT:
        yield Level(whole.name, lambda run: run.loss(), lambda subject: subject.loss(), explain.loss, place="loss")
        nodes = reversed(list(run.nodes(True)))
        yield from (_alone(whole.name, path, train=True, backward=True) for path, _ in nodes)


def _alone(name: str, path: str, train: bool, backward: bool) -> Level:
    return Level(
        name,
        lambda run: run.layer(path, train, backward),
        lambda subject: subject.layer(path, train, backward),
        explain.layer(path, train, backward),
        place=path,
    )
