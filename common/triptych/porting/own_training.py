"""Somebody's own optimiser, with its schedule, beside what a recipe says, or another one's.

It makes several steps on drawn gradients, small and large ones in every array, and one step of gradients a
thousand times as large; what every parameter moved by in each is compared. Arrays are looked at in their first values:
optimisers take every value alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from triptych.conformance.diagnosis.update_faults import Wrong, walk_steps
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.tolerance import UNPERTURBED, Budgets
from triptych.optim import schedules
from triptych.optim.optimizers import SGD, Adam, Optimizer, Rates, get_kind, settings_of
from triptych.optim.schedules import Constant, Moment, MultiStep, Plateau, Schedule, Step, Warmup
from triptych.reference.decay import decay_by_path
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.training.recipes import RECIPES
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator
from triptych.utils.shelf import Computed

UPDATE = "update"
STEPS, MOST_STEPS = 8, 120
SAMPLE = 2048  # values of an array
GROWN = 64.0  # times the case's parameters
SCALE, LEAST = 1e-2, 1e-9  # of the largest gradient, and the smallest beside it
LARGE_STEP, LARGER = 4, 1e3  # the step, counted from 0, whose gradients are as many times larger
FORM = "write for example 'sgd:learning_rate=0.1,momentum=0.9,weight_decay=5e-4 step:every=3', or a recipe's name"


@dataclass(frozen=True)
class Plan:
    """The optimiser, its learning rate, and the schedule, for which every step ends a batch and an epoch."""

    optimizer: Optimizer
    learning_rate: float
    schedule: Schedule = Constant()  # noqa: RUF009  # frozen, so one shared value is safe
    epochs: int = STEPS

    @property
    def steps(self) -> int:
        """So many that every change of the schedule is met, if they are not too many."""
        return min(MOST_STEPS, max(STEPS, self._wanted))

    @property
    def untold(self) -> tuple[str, ...]:
        """A line where the schedule changes after the last step that is compared."""
        late = f"the schedule changes for {self._wanted} steps, of which the first {self.steps} are compared"
        return (late,) if self._wanted > self.steps else ()

    @property
    def _wanted(self) -> int:
        return _reach(self.schedule) + 2

    def rates(self, step: int) -> Rates:
        """Those of a step, counted from 0."""
        at = Moment(step, 1, self.epochs)
        momentum = self.schedule.momentum(self.optimizer.momentum, at)
        return self.optimizer.rates(self.schedule.learning_rate(self.learning_rate, at), momentum)


def _reach(schedule: Schedule) -> int:
    match schedule:
        case Step():
            return schedule.every
        case MultiStep():
            return max(schedule.milestones)
        case Warmup():
            return max(schedule.over, _reach(schedule.then))
        case Constant():
            return 0
    return getattr(schedule, "total_epochs", 0)


def parse(text: str) -> Plan:
    """`sgd:learning_rate=0.1,momentum=0.9`, with a schedule behind a space, or a recipe's name. Raises TriptychError
    otherwise."""
    if text in RECIPES:
        recipe = RECIPES[text]
        return _checked(Plan(recipe.optimizer, recipe.learning_rate, recipe.schedule, recipe.epochs))
    head, *others = text.split() or [""]
    name, _, rest = head.partition(":")
    if len(others) > 1 or ("=" not in rest and rest) or not rest:
        raise TriptychError(f"'{text}' is no optimiser: {FORM}")
    kind = get_kind(name)
    settings = settings_of(kind, rest, learning_rate=0.0)
    if "learning_rate" not in settings:
        raise TriptychError(f"'{text}' does not say its learning_rate: {FORM}")
    rate = settings.pop("learning_rate")
    schedule = schedules.parse(others[0]) if others else Constant()
    return _checked(Plan(kind(**settings), rate, schedule, getattr(schedule, "total_epochs", 0) or STEPS))


def _checked(plan: Plan) -> Plan:
    if isinstance(plan.schedule.main, Plateau):
        raise TriptychError("a schedule that follows the loss (plateau) cannot be compared step by step")
    return plan


def sample(array: Array) -> Array:
    """The values of an array that are looked at."""
    return np.asarray(array, np.float64).reshape(-1)[:SAMPLE]


def begin(run: ReferenceRun) -> Computed:
    """The parameters before the first step: large ones, so that a weak decay moves them."""
    return Computed(trained(run), lambda path: GROWN * np.asarray(run.parameters[path], np.float64))


def gradients(run: ReferenceRun, steps: int) -> Iterator[dict[str, Array]]:
    """By path of what is trained, what the optimiser is given in each step, whole: the sample, again and again."""
    for step in range(steps):
        yield {path: np.resize(drawn_gradient(run, path, step), run.parameters[path].shape) for path in trained(run)}


def trained(run: ReferenceRun) -> list[str]:
    """The paths of what an optimiser moves."""
    return list(decay_by_path(SGD(), run.case.architecture))


def drawn_gradient(run: ReferenceRun, path: str, step: int) -> Array:
    """As float32 has them; half of them are below a hundred thousandth of the largest."""
    count = min(SAMPLE, run.parameters[path].size)
    sizes, signs = generator(run.case.seed, "porting", "steps", path, step).random((2, count))
    drawn = SCALE * LEAST**sizes * np.where(signs < 0.5, -1, 1) * (LARGER if step == LARGE_STEP else 1.0)
    return np.asarray(drawn.astype(np.float32), np.float64)


def moves(before: Mapping[str, Array], after: Iterator[Mapping[str, Array]]) -> dict[str, Array]:
    """What each parameter moved by in each step, by path and step, in the sample; of values before and after."""
    arrays: dict[str, Array] = {}
    last = {path: sample(value) for path, value in before.items()}
    for step, values in enumerate(after, 1):
        now = {path: sample(values[path]) for path in last if path in values}
        arrays |= {f"{path} (step {step})": value - last[path] for path, value in now.items()}
        last = now
    return arrays


def planned(run: ReferenceRun, plan: Plan) -> dict[str, Array]:
    """What it should move by."""
    return moves_of(run, right_steps(run, plan))


def right_steps(run: ReferenceRun, plan: Plan) -> Wrong:
    """The plan's steps, from no state."""
    rates = tuple(plan.rates(step) for step in range(plan.steps))
    return Wrong(plan.optimizer, rates, decay_by_path(plan.optimizer, run.case.architecture), {}, {})


def moves_of(
    run: ReferenceRun, wrong: Wrong, change: Callable[[dict[str, Array]], dict[str, Array]] = lambda arrays: arrays
) -> dict[str, Array]:
    """What the reference moves by in other steps; `change`: what becomes of the gradients of a step."""
    start = {path: sample(value) for path, value in begin(run).items() if path in wrong.decay}

    def drawn(step: int, values: Arrays) -> dict[str, Array]:
        return change({path: drawn_gradient(run, path, step) for path in wrong.decay})

    return moves(start, (values for values, _ in walk_steps(wrong, start, drawn)))


def budgets(run: ReferenceRun, precision: str, expected: Arrays, plan: Plan | None) -> Budgets:
    """What an optimiser's numbers rounded to float32 explain, as MXNet keeps them, one after the other, and a few
    roundings of parameter and move."""
    scales = {path: largest(sample(value)) for path, value in begin(run).items()}
    unit = 4 * UNPERTURBED[precision]
    allowed = {name: unit * (scales[path_of(name)] + largest(value)) for name, value in expected.items()}
    for wrong in () if plan is None else _rounded(right_steps(run, plan)):
        for name, value in moves_of(run, wrong).items():
            if name in expected:
                allowed[name] += largest(value - expected[name])
    if plan is None:
        allowed = {name: most + 8 * FLOAT32_UNIT * largest(expected[name]) for name, most in allowed.items()}
    return allowed


def _rounded(right: Wrong) -> Iterator[Wrong]:
    """With one of the numbers beside its value; Adam's also where the correction of the bias knows it exactly."""
    for name in ("learning_rate", "momentum"):
        grown = tuple(replace(r, **{name: getattr(r, name) * (1 + 2 * FLOAT32_UNIT)}) for r in right.rates)
        yield replace(right, rates=grown)
    optimizer: Any = right.optimizer
    for name in ("beta1", "beta2", "alpha", "eps"):
        if hasattr(optimizer, name):
            value = getattr(optimizer, name) * (1 - 2 * FLOAT32_UNIT)
            yield replace(right, optimizer=replace(optimizer, **{name: value}))
    if isinstance(optimizer, Adam) and optimizer.eps_added == "after":  # else it is in the rule
        kind: Any = type("Rounded", (type(optimizer),), {"move": _apart})
        yield replace(right, optimizer=optimizer.as_kind(kind))


def _apart(self: Adam, w: Array, g: Array, slots: list[Array], rates: Rates, count: int) -> tuple[Array, list[Array]]:
    betas: dict[str, Any] = {"beta1": self.beta1 - 2 * FLOAT32_UNIT, "beta2": self.beta2 - 2 * FLOAT32_UNIT}
    rounded: Any = replace(self, **betas)
    _, (mean, variance) = Adam.move(rounded, w, g, slots, rates, count)
    root = np.sqrt(variance / (1 - self.beta2**count)) + self.eps
    return w - rates.learning_rate * mean / (1 - self.beta1**count) / root, [mean, variance]


def path_of(name: str) -> str:
    """The parameter that an array of moves is of."""
    return name.partition(" ")[0]
