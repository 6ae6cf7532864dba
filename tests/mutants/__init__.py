"""The planted faults: a table of what ports get wrong, and how each is put into one backend."""

from __future__ import annotations

from mutants import inputs, layers, optimizers, passes, trainers
from mutants.networks import reference_run
from mutants.record import Mutant
from triptych.backend.contract import Backend
from triptych.conformance.conform import Report, conform
from triptych.conformance.levels import ALL_LEVELS

CATALOGUE = {
    mutant.name: mutant for table in (layers, passes, optimizers, inputs, trainers) for mutant in table.MUTANTS
}


def run(mutant: Mutant, framework: Backend, precision: str) -> Report:
    """Conformance of a backend with the fault in it."""
    with mutant.plant(framework, precision) as (wrong, build):
        return conform(wrong, reference_run(mutant.architecture), precision, build=build)


def first_failure(report: Report) -> str | None:
    """The level at which it was killed; None if it survived."""
    failed = {check.level for check in report.failures}
    return next((level for level in ALL_LEVELS if level in failed), None)


__all__ = ["CATALOGUE", "Mutant", "first_failure", "run"]
