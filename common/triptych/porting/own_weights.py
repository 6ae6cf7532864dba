"""The weights that a network brings, beside those of what it is a port of: what a conversion made of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.conformance import locate
from triptych.conformance.case import make_case
from triptych.conformance.compare import Arrays, compare, failures
from triptych.conformance.diagnosis import causes
from triptych.conformance.diagnosis.explain import Difference
from triptych.conformance.locate import Located
from triptych.conformance.reference_run import ReferenceRun, layer_of
from triptych.porting.own_network import Compared, without_dropout
from triptych.spec.layers import Architecture
from triptych.utils.arrays import largest
from triptych.utils.errors import TriptychError

HALF, SINGLE = float(np.finfo(np.float16).eps), float(np.finfo(np.float32).eps)
Parameters = Mapping[str, NDArray[Any]]
WEIGHTS = "weights"


def judged(compared: Compared, architecture: Architecture, expected: Parameters | None) -> Located:
    """The verdict with the network's own weights beside the `expected` ones, if it agrees with the architecture. Raises
    TriptychError where there are none to compare with."""
    located = compared.located
    if expected is None:
        raise TriptychError(f"'{located.right}' has no weights of its own to compare with; name a file with --weights")
    if located.difference is not None:
        return located
    if compared.folded:
        return replace(located, not_run={**located.not_run, WEIGHTS: "batch norms are folded into them"})
    wanted = {path: expected[path] for path in compared.values}
    unit = max(unit_of(compared.values), unit_of(wanted))
    difference = of_weights(located.left, architecture, wanted, compared.values, unit)
    return replace(located, levels=(*located.levels, WEIGHTS), difference=difference)


def of_weights(
    name: str, architecture: Architecture, expected: Arrays, theirs: Arrays, unit: float
) -> Difference | None:
    """The first array that is more than rounded otherwise: beyond one unit of the coarser of the two types."""
    budgets = {path: unit * largest(value) for path, value in expected.items()}
    failed = failures(compare(WEIGHTS, expected, theirs, budgets))
    if not failed:
        return None
    path = failed[0].tensor
    run = ReferenceRun(make_case(without_dropout(architecture), 0, locate.BATCH))
    cause = causes.of_parameter(run, expected, path, theirs[path])
    note = f"{len(failed)} of {len(expected)} arrays differ"
    return Difference(layer_of(path), WEIGHTS, failed[0], (name,), cause, note)


def unit_of(parameters: Parameters) -> float:
    """The unit of the type that the weights were kept in: of 16 bits, if every one of them fits that."""
    with np.errstate(over="ignore"):
        half = all(np.array_equal(value, value.astype(np.float16)) for value in parameters.values())
    return HALF if half else SINGLE
