"""What differs between two subjects at one level, before and after it is explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from triptych.conformance.compare import Arrays, Check, message, problem
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import Subject

T = TypeVar("T")


@dataclass(frozen=True)
class Difference:
    """Where two subjects diverge: `layer` by its path in the spec, `level`, and the tensor that shows it. A fault in
    the images is the first layer's, one in the loss the last layer's.

    `at_fault`: the subjects that depart from the reference. `cause`: the fault that reproduces what was observed, or
    empty. `note`: what else a reader should know.
    """

    layer: str
    level: str
    check: Check
    at_fault: tuple[str, ...]
    cause: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Finding:
    """Checks that failed at one level, in the order of the computation, and what their `subject` (at fault, or the
    left one) has there. `alone`: before whole passes, every layer was compared by itself and agreed."""

    run: ReferenceRun
    subject: Subject
    level: str
    failed: list[Check]
    expected: Arrays
    observed: Arrays
    at_fault: tuple[str, ...]
    alone: bool = False

    @property
    def check(self) -> Check:
        """The first that failed."""
        return self.failed[0]

    def at(self, layer: str, cause: str = "", note: str = "") -> Difference:
        """The difference, located and explained."""
        return Difference(layer, self.level, self.check, self.at_fault, cause, note)


class SubjectFailedError(Exception):
    """A framework raised an error; `difference` is what to report of it."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.check.problem)
        self.difference = difference


def attempt(subject: Subject, work: Callable[[], T], level: str, place: str = "") -> T:
    """What a piece of work on a subject gives. Raises SubjectFailedError with what a framework raises, and whatever
    the subject itself says of that."""
    try:
        return work()
    except SubjectFailedError:
        raise
    except Exception as error:
        subject.failed(error)
        check = problem(level, place or "(whole pass)", f"failed: {message(error)}")
        raise SubjectFailedError(Difference(place, level, check, (subject.name,))) from error
