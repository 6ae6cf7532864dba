"""Where do two sides part? The first layer, by its path in the spec, and the phase.

*Accumulated*: whole passes, in the order of execution; backward in reverse, by parameter gradients. *Resynchronised*:
every layer alone, given what the reference's layer was given, so that a later difference is not blamed on an
earlier one; then whole passes, which show what no layer alone does (wiring, the images themselves).
Budgets are the judge's (`triptych.conformance.tolerance`); perturbed executions run only where they decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from triptych.conformance import entry
from triptych.conformance.comparison import (
    MODES,
    PHASES,
    Comparison,
    Difference,
    Result,
    SideFailedError,
)
from triptych.conformance.diagnosis import causes, pass_causes
from triptych.conformance.reference_run import INPUT, OUTPUT, Arrays, Truth, layer_of
from triptych.conformance.subjects import Side
from triptych.conformance.updates import UPDATES


def locate(left: Side, right: Side, truth: Truth, mode: str = MODES[0], updates: Sequence[str] = UPDATES) -> Result:
    """The first difference between two sides, phase by phase; `updates`: the optimisers whose steps are compared."""
    comparison = Comparison(left, right, truth)
    search = (*_steps(alone=mode == MODES[0]), *map(_update, updates))
    try:
        with left.exact(), right.exact():
            difference = next((found for step in search if (found := step(comparison)) is not None), None)
    except SideFailedError as failed:
        difference = failed.args[0]
    name = truth.case.architecture.name
    left_out = [update for update in UPDATES if update not in updates]
    not_run = {"update: " + ", ".join(left_out): "give --optimizers all"} if left_out else {}
    return Result(left.name, right.name, name, mode, truth.precision, PHASES, difference, not_run)


def _each_layer(train: bool, phase: str) -> Callable[[Comparison], Difference | None]:
    """Forward of every layer alone."""

    def step(both: Comparison) -> Difference | None:
        for path, _ in both.truth.nodes(train):
            if (found := _one_layer(both, path, phase, train, backward=False)) is not None:
                return found
        return None

    return step


def _each_layer_backward(both: Comparison) -> Difference | None:
    """The loss, then every layer alone, the last first."""
    arrays = both.run(lambda side: side.loss(), "loss", "backward")
    expected = both.truth.loss()
    left, right = arrays.values()
    failed = both.failures("backward", expected, left, right, both.truth.perturbed_loss)
    if failed:
        fault = both.at_fault(failed[0], expected, arrays)
        cause = pass_causes.of_loss(both.truth, arrays[fault[0]] if fault else left, failed[0].budget)
        return Difference(cause.layer or truth_last(both.truth), "backward", failed[0], fault, cause.text)
    for path, _ in reversed(list(both.truth.nodes(True))):
        if (found := _one_layer(both, path, "backward", True, backward=True)) is not None:
            return found
    return None


def _one_layer(both: Comparison, path: str, phase: str, train: bool, *, backward: bool) -> Difference | None:
    truth = both.truth
    expected = truth.kept_layer(path, train, backward)
    arrays = both.run(lambda side: side.layer(path, train, backward), path, phase)
    left, right = arrays.values()
    failed = both.failures(phase, expected, left, right, lambda: truth.perturbed_layer(path, train, backward))
    if not failed:
        return None
    check = failed[0]
    fault = both.at_fault(check, expected, arrays)
    observed = arrays[fault[0]] if fault else left
    cause = causes.of_layer(truth, path, observed, {c.name: c.budget for c in failed}, train, backward)
    named = replace(check, name=path if check.name == OUTPUT else check.name)
    if check.name == INPUT:
        named = replace(check, name=f"gradient of the input of {path}")
    return Difference(cause.layer or path, phase, named, fault, cause.text)


def _whole_forward(train: bool, phase: str, alone: bool) -> Callable[[Comparison], Difference | None]:
    """Whole forward passes; `alone`: every layer was compared by itself before, and agreed."""

    def step(both: Comparison) -> Difference | None:
        truth = both.truth
        expected = (truth.trained if train else truth.evaluated)[0].outputs
        return _whole(both, phase, expected, lambda side: side.forward(train), partial_perturbed(truth, train), alone)

    return step


def partial_perturbed(truth: Truth, train: bool) -> Callable[[], list[Arrays]]:
    """The perturbed executions of a whole forward pass, when they are needed."""
    return lambda: truth.perturbed_forward(train)


def _whole_backward(alone: bool) -> Callable[[Comparison], Difference | None]:
    """Whole backward passes: the loss, then the parameters of the last layer first, the images last."""

    def step(both: Comparison) -> Difference | None:
        truth = both.truth
        gradients = truth.trained[2]
        order = ["loss", *reversed([name for name in _in_order(truth, gradients) if name not in ("loss", "input")])]
        expected = {name: gradients[name] for name in (*order, "input")}
        return _whole(both, "backward", expected, lambda side: side.gradients(), truth.perturbed_gradients, alone)

    return step


def _in_order(truth: Truth, arrays: Arrays) -> list[str]:
    places = {path: place for place, path in enumerate(truth.layers)}
    return sorted(arrays, key=lambda name: places.get(layer_of(name), -1))


def _whole(
    both: Comparison,
    phase: str,
    expected: Arrays,
    run: Callable[[Side], Arrays],
    perturbed: Callable[[], list[Arrays]],
    alone: bool,
) -> Difference | None:
    arrays = both.run(run, "", phase)
    left, right = arrays.values()
    failed = both.failures(phase, expected, left, right, perturbed)
    if not failed:
        return None
    check = failed[0]
    fault = both.at_fault(check, expected, arrays)
    observed = arrays[fault[0]] if fault else left
    cause = pass_causes.of_pass(both.truth, phase, check, observed, alone)
    layer = check.name if phase.startswith("forward") else _first_behind(both.truth, check.name)
    if alone and check.name == "input":
        layer = "input"
    note = "every layer alone agrees: it is given something else, or the whole pass differs" if alone else ""
    return Difference(cause.layer or layer, phase, check, fault, cause.text, note)


def _first_behind(truth: Truth, name: str) -> str:
    """The layer that a gradient belongs to; the images' own is the first layer's work."""
    if name == "loss":
        return truth_last(truth)
    return next(path for path, _ in truth.nodes(True)) if name == "input" else layer_of(name)


def truth_last(truth: Truth) -> str:
    """The layer whose output the loss takes; a fault in the loss shows there."""
    return truth.case.architecture.layers[-1].name


def _update(name: str) -> Callable[[Comparison], Difference | None]:
    """The steps of one optimiser; by then the gradients agree, so what differs is the update's own."""

    def step(both: Comparison) -> Difference | None:
        truth = both.truth
        with ThreadPoolExecutor(1) as pool:  # the reference works while the frameworks compile
            expected = pool.submit(truth.update, name)
            arrays = both.run(lambda side: side.update(name), "", "update")
        ordered = _in_order(truth, expected.result())
        left, right = arrays.values()
        failed = both.failures("update", ordered, left, right, lambda: truth.perturbed_update(name))
        if not failed:
            return None
        fault = both.at_fault(failed[0], expected.result(), arrays)
        cause = pass_causes.of_update(truth, name, arrays[fault[0]] if fault else left, failed)
        layers = len({layer_of(check.name) for check in failed})
        note = f"optimiser steps '{name}': {len(failed)} of {len(ordered)} arrays, of {layers} layers, differ"
        return Difference(cause.layer or layer_of(failed[0].name), "update", failed[0], fault, cause.text, note)

    return step


def _steps(alone: bool) -> Iterator[Callable[[Comparison], Difference | None]]:
    yield entry.structure
    yield entry.data
    for train, phase in ((False, "forward eval"), (True, "forward train")):
        if alone:
            yield _each_layer(train, phase)
        yield _whole_forward(train, phase, alone)
    if alone:
        yield _each_layer_backward
    yield _whole_backward(alone)
