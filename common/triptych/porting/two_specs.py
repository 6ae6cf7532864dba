"""Two networks that are both specs, from files: the same computation, the same weights, the same outputs?

First both are given the case's parameters, on which no fault hides; then their own are compared, and what they make of
the same images with them, all by the float64 reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.conformance import levels, locate
from triptych.conformance.case import make_case
from triptych.conformance.compare import Arrays
from triptych.conformance.diagnosis.explain import Difference
from triptych.conformance.locate import Located
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import ReferenceSubject
from triptych.importers.steps import Imported
from triptych.porting.own_levels import WATCHED
from triptych.porting.own_network import Compared, Own, compare_with, without_dropout
from triptych.porting.own_weights import SINGLE, WEIGHTS, of_weights, unit_of
from triptych.porting.spec_port import SpecPort
from triptych.porting.subject import OwnNetwork
from triptych.spec.layers import Architecture, BatchNorm, Dropout, walk
from triptych.utils.arrays import largest

Parameters = Mapping[str, NDArray[Any]]
OWN = "outputs with their own weights"


def locate_specs(left_name: str, left: Imported, right_name: str, right: Imported, *, seed: int = 0) -> Located:
    """The first layer, by its path in the right one, at which two networks diverge: in what they compute, else in
    their own weights."""
    own = Own(left_name, lambda count: SpecPort(without_dropout(left.architecture), count), seed=seed, levels=WATCHED)
    compared = compare_with(own, right.architecture)
    located = compared.located
    remarks = (f"{name}: {line}" for name, side in ((left_name, left), (right_name, right)) for line in side.remarks)
    training = training_remarks(left_name, left.architecture, right_name, right.architecture)
    notes = (f"the spec is '{right_name}'", *remarks, *located.notes, *training)
    located = replace(located, left=left_name, right=right_name, notes=notes)
    if located.difference is not None:
        return located
    for name, side in ((left_name, left), (right_name, right)):
        if side.parameters is None:
            return replace(located, not_run={**located.not_run, WEIGHTS: f"'{name}' has none of its own"})
    return _own_weights(replace(compared, located=located), left, right, own)


def training_remarks(left_name: str, left: Architecture, right_name: str, right: Architecture) -> Iterator[str]:
    """What no output shows and training does: dropout, and how running statistics are kept."""
    for what, said in (("dropout rates", _dropout), ("momentum of batch norms", _momentum)):
        one, other = said(left), said(right)
        if one != other:
            yield f"they train otherwise: {what} '{left_name}' {_listed(one)}, '{right_name}' {_listed(other)}"


def _dropout(architecture: Architecture) -> list[str]:
    return [f"{layer.rate:.6g}" for _, layer in walk(architecture.layers) if isinstance(layer, Dropout)]


def _momentum(architecture: Architecture) -> list[str]:
    norms = [layer for _, layer in walk(architecture.layers) if isinstance(layer, BatchNorm)]
    return [f"{norm.momentum:.6g} ({'n - 1' if norm.unbiased else 'n'})" for norm in norms]


def _listed(values: list[str]) -> str:
    """A few values; one where all are equal."""
    return ", ".join(dict.fromkeys(values) if len(set(values)) == 1 else values[:4]) or "has none"


def _own_weights(compared: Compared, left: Imported, right: Imported, own: Own) -> Located:
    located, theirs, expected = compared.located, dict(left.parameters or {}), dict(right.parameters or {})
    difference, exactly, unit = None, False, max(unit_of(theirs), unit_of(expected))
    if not compared.folded:
        paired = {path: theirs[name] for path, name in compared.network.pairs.items()}
        wanted = {path: expected[path] for path in compared.network.pairs}
        exactly = all(np.array_equal(value, paired[path]) for path, value in wanted.items())
        difference = of_weights(own.name, right.architecture, wanted, paired, unit)
    made, note = _with_own(own, right.architecture, theirs, expected, "fp64" if exactly else "fp32")
    notes, ran = (*located.notes, note), (*located.levels, *(() if compared.folded else (WEIGHTS,)))
    if unit > SINGLE and not exactly:
        not_run = {**located.not_run, OWN: "one has weights of 16 bits, and no budget is known for what they do"}
        return replace(located, levels=ran, difference=difference, notes=notes, not_run=not_run)
    if difference is None and made.difference is not None:
        difference = replace(made.difference, level=OWN)
    return replace(located, levels=(*ran, OWN), difference=difference, notes=notes)


class _WithOwn(OwnNetwork):
    """A network that keeps the weights it has."""

    own: Parameters

    def parameter_shapes(self) -> Arrays:
        self.port = self.adapt()
        self.port.load(self.own)
        return self.run.parameter_shapes

    def retry(self, difference: Difference, again: Callable[[], Difference | None]) -> Difference | None:
        return difference


def _with_own(
    own: Own, architecture: Architecture, theirs: Parameters, expected: Parameters, precision: str
) -> tuple[Located, str]:
    """Both with their own weights on the same images, and by how much their outputs differ. In float32's budgets where
    the weights are not the same bits."""
    case = replace(make_case(without_dropout(architecture), own.seed, locate.BATCH), parameters=dict(expected))
    run = ReferenceRun(case)
    network = _WithOwn(own.name, run, precision, None, lambda: own.adapt(len(run.ends)), {}, None)
    network.own = theirs
    rows = (levels.PARAMETERS, levels.FORWARD_EVAL)
    located = locate.locate(network, ReferenceSubject(run), "accumulated", levels=rows)
    right = run.outputs(False)
    pairs = [(right[path], y) for path, y in zip(run.ends, network.ran(False).outputs, strict=True)]
    apart, scale = max(largest(y - value) for value, y in pairs), max(largest(value) for value, _ in pairs)
    return located, f"with their own weights the outputs differ by {apart:.3e} (largest value {scale:.3e})"
