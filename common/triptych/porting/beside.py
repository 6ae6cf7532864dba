"""What is compared beside somebody's network, where it is given: the preparation of images, the loss, the optimiser; a
row of the table of levels each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from triptych.conformance.compare import Arrays
from triptych.conformance.levels import Level
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import Subject
from triptych.conformance.tolerance import Budgets
from triptych.porting import discover, image_causes, own_images, own_loss, own_training, step_causes
from triptych.porting.own_training import Plan
from triptych.porting.subject import OwnNetwork
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError

NEEDED = {
    "optimizer": ("--left-optimizer", "--right-optimizer", own_training.FORM),
    "preprocess": ("--left-preprocess", "--right-preprocess", own_images.FORM),
}


@dataclass(frozen=True, eq=False)
class Beside:
    """What somebody trains a network with, each an object or `module:name`, and what it is compared with: a text (see
    `own_training.parse`, `own_images.parse`), an object, or the moves that another network's optimiser makes."""

    optimizer: Any = None
    right_optimizer: Any = None
    loss: Any = None
    preprocess: Any = None
    right_preprocess: Any = None

    def __post_init__(self) -> None:
        for name, (left, right, form) in NEEDED.items():
            one, other = getattr(self, name), getattr(self, f"right_{name}")
            if one is not None and other is None:
                raise TriptychError(f"{left} is compared with {right}: give that, too; {form}")
            if other is not None and one is None:
                raise TriptychError(f"{right} is what {left} is compared with: give that, too")

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def rows(self, architecture: Architecture) -> list[Level]:
        """The levels of what is given. Raises TriptychError for a text that says nothing, or a network without
        classes, which has no such loss."""
        rows = []
        if self.preprocess is not None:
            rows.append(_data(named(self.preprocess), self._prepared(architecture)))
        if self.loss is not None:
            if not architecture.classes:
                raise TriptychError(f"--left-loss: '{architecture.name}' has no classes, and so no loss of labels")
            rows.append(_loss(named(self.loss)))
        if self.optimizer is not None:
            right = self.right_optimizer
            if not isinstance(right, Mapping) and (is_module(right) or not isinstance(right, str)):
                raise TriptychError(f"--right-optimizer {right} has no network at the right: {own_training.FORM}")
            rows.append(_update(named(self.optimizer), own_training.parse(right) if isinstance(right, str) else right))
        return rows

    def _prepared(self, architecture: Architecture) -> Any:
        right = named(self.right_preprocess)
        return own_images.parse(right, architecture) if isinstance(right, str) else right


def is_module(text: Any) -> bool:
    """Whether a text is `module:name`."""
    return isinstance(text, str) and bool(re.fullmatch(r"\w+(\.\w+)*:\w+", text))


def named(value: Any) -> Any:
    """The object that `module:name` stands for; anything else as it is."""
    return discover.find_beside(value) if is_module(value) else value


def _data(function: Any, right: Any) -> Level:
    if not callable(function):
        raise TriptychError(f"--left-preprocess: a {type(function).__name__} is no function of images")

    def judged(run: ReferenceRun, precision: str, expected: Arrays) -> Budgets:
        return own_images.budgets(right, expected)

    return Level(
        own_images.DATA,
        lambda run: own_images.expected(run, right),
        lambda subject: _of(subject).prepared(function),
        lambda finding: image_causes.explain(finding, right, _of(finding.subject).other_layout),
        layer="input",
        budgets=judged,
    )


def _loss(function: Any) -> Level:
    return Level(
        own_loss.LOSS, own_loss.expected, lambda s: _of(s).loss_of(function), own_loss.explain, layer=own_loss.LOSS
    )


def _update(optimizer: Any, right: Plan | Mapping[str, Any]) -> Level:
    plan = right if isinstance(right, Plan) else None
    steps, untold = (own_training.STEPS, ()) if plan is None else (plan.steps, plan.untold)

    def expected(run: ReferenceRun) -> Arrays:
        return own_training.planned(run, right) if isinstance(right, Plan) else right

    return Level(
        own_training.UPDATE,
        expected,
        lambda subject: _of(subject).moves(optimizer, steps, untold),
        partial(step_causes.explain, plan=plan),
        budgets=partial(own_training.budgets, plan=plan),
    )


def _of(subject: Subject) -> OwnNetwork:
    assert isinstance(subject, OwnNetwork)
    return subject
