"""Every planted fault is killed at its level, on every backend; the networks pass without it.

A third of the matrix runs always, in float64: each fault on one backend, by turns. TRIPTYCH_TEST_ALL=1 runs all of
it in both precisions. The summary of the test run prints the matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from marks import later, needs_backend
from mutants import CATALOGUE, first_failure, matrix, run
from mutants.networks import EVERYTHING, reference_run
from triptych.backend import registry
from triptych.conformance import suite
from triptych.conformance.conform import conform
from triptych.conformance.levels import ALL_LEVELS
from triptych.spec.layers import walk

NAMES = {
    *("same padding at stride 2", "padding off by one", "flatten order", "kernel flipped", "square weight transposed"),
    *("bias missing", "floor for ceil", "padding counted", "lrn alpha", "lrn k", "lrn window", "batch norm eps"),
    *("batch norm momentum", "biased variance", "train for eval", "gamma fixed", "sigmoid for relu", "dropout scale"),
    *("dropout in eval", "softmax twice", "loss summed", "rate in the velocity", "decoupled decay", "decay of biases"),
    *("nesterov form", "adam epsilon", "schedule off by one", "momentum cycle ignored", "branch order"),
    *("residual scale", "auxiliary weight", "bgr for rgb", "normalisation swapped", "aligned corners", "batch order"),
    *("initializer fan", "shared weights", "slope shared", "no upper bound", "dilation ignored", "multiplier first"),
    *("gate of rows", "same on the other side", "output padding above", "gamma used", "softmax of rows"),
    *("overhang counted", "mean for sum"),
}


def turn(mutant: str, name: str) -> bool:
    """Whether this backend's turn has come with this fault."""
    names = list(registry.BACKENDS)
    return (list(CATALOGUE).index(mutant) + names.index(name)) % len(names) == 0


def cells() -> list[Any]:
    """The matrix in both precisions, as parameters of a test."""
    return [
        pytest.param(name, mutant, precision, marks=() if precision == "fp64" and turn(mutant, name) else later)
        for name in registry.installed()
        for precision in suite.PRECISIONS
        for mutant in CATALOGUE
        if name not in CATALOGUE[mutant].impossible and not (precision == "fp32" and CATALOGUE[mutant].hides)
    ]


@needs_backend
@pytest.mark.filterwarnings("ignore:Parameter dense.*is not used by any computation")  # of a mutant, in MXNet
@pytest.mark.parametrize(("name", "mutant", "precision"), cells())
def test_is_killed(name: str, mutant: str, precision: str, record_property: Callable[[str, object], None]) -> None:
    chosen, framework = CATALOGUE[mutant], registry.load(name)
    report = run(chosen, framework, precision)
    level = first_failure(report)
    record_property("mutant", (mutant, name, precision, level or matrix.SURVIVED))
    assert level == chosen.level
    assert not report.passed
    if chosen.phase == "forward":  # outputs come in the order of execution
        assert next(check.tensor for check in report.failures if check.level == level) == chosen.path
    again = conform(framework, reference_run(chosen.architecture), precision)
    assert again.failures == [], "a fault is found where none is planted, or is left of this one"
    assert again.passed


@needs_backend
@pytest.mark.parametrize("seed", [seed if seed < 5 else pytest.param(seed, marks=later) for seed in range(20)])
def test_no_seed_gives_a_false_alarm(seed: int) -> None:
    """Every backend and every pair of them, in both precisions, on a network with nearly every kind of layer."""
    verdict = suite.run(EVERYTHING, [registry.load(name) for name in registry.installed()], seed=seed)
    assert [(r.title, r.failures) for r in verdict.reports if r.failures] == []
    assert verdict.passed


def test_the_catalogue_is_complete() -> None:
    assert set(CATALOGUE) >= NAMES
    for mutant in CATALOGUE.values():
        assert mutant.level in ALL_LEVELS
        paths = {path for path, _ in walk(mutant.architecture.layers)} | {"input", ""}
        assert mutant.path in paths, mutant.name


def test_the_third_that_always_runs_has_every_level_on_every_backend() -> None:
    covered = {(name, CATALOGUE[m].level) for name in registry.BACKENDS for m in CATALOGUE if turn(m, name)}
    assert covered == {(name, level) for name in registry.BACKENDS for level in ALL_LEVELS}


def test_the_matrix_says_what_was_not_run() -> None:
    one, two = list(CATALOGUE.values())[:2]
    one, two = replace(one, name="one"), replace(two, name="two", impossible={"b": "why"}, hides="too small")
    results = [("one", "a", "fp64", "data"), ("one", "a", "fp32", "update"), ("two", "a", "fp64", matrix.SURVIVED)]
    assert matrix.lines([one, two], ["a", "b"], [*results, ("one", "c", "fp64", "data")]) == [
        "planted fault  a                           b",
        "one            data (fp64), update (fp32)  not run",
        "two            SURVIVED (fp64)             cannot be planted: why",
        "two: float64 only, too small",
        "1 killed, 1 survived, 1 not run, 1 cannot be planted, of 4",
    ]
