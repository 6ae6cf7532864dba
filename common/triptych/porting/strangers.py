"""Two networks of strangers against each other: no spec is given, so one of them is imported and becomes it.

A side that is a file is read; one that is a module is taken over as far as its importer can, and runs itself besides.
Two files are compared as specs (`triptych.porting.two_specs`), their own weights too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from triptych.conformance.diagnosis.explain import Difference
from triptych.conformance.locate import Located
from triptych.importers.steps import Imported
from triptych.porting import discover, own_network, sources
from triptych.porting.two_specs import locate_specs, training_remarks
from triptych.spec.layers import Architecture, outputs
from triptych.utils.errors import TriptychError

LOW = "fp32"  # the precision in which is judged what computes in it whatever it is given
Read = Callable[[str], Imported]


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two: what it is called, the object that runs (none of a file), and its spec, or why it has none."""

    name: str
    candidate: Any | None
    imported: Imported | None
    reason: str = ""

    @property
    def spec(self) -> Imported:
        assert self.imported is not None
        return self.imported


@dataclass(frozen=True)
class Options:
    """As `own_network.locate_port` takes them."""

    layout: str | None = None
    mapping: Path | Mapping[str, str] | None = None
    precision: str = "fp64"
    seed: int = 0


def is_network(name: str) -> bool:
    """Whether a subject is called as a file, a run folder or `module:name` is: no backend, and none of the zoo."""
    return not sources.is_zoo(name)


def is_module(name: str) -> bool:
    """Whether it is called as somebody's own object, not as a file."""
    return ":" in name and not Path(name).exists()


def locate(left: str, right: str, read: Read, options: Options) -> Located:
    """The first layer at which two networks diverge. `read` reads what names a network, as `sources.read` does. Files
    and networks of the zoo are specs as they are; of two modules the right one becomes the spec, unless it has more
    outputs than the left one, or cannot.
    Raises TriptychError, with both reasons, where neither can."""
    sides = _side(left, read), _side(right, read)
    files = [side for side in sides if side.candidate is None]
    if len(files) == 2:
        return locate_specs(sides[0].name, sides[0].spec, sides[1].name, sides[1].spec, seed=options.seed)
    known = [side for side in reversed(sides) if side.imported is not None]
    ordered = files or sorted(known, key=lambda side: len(outputs(side.spec.architecture)))
    if not ordered:
        reasons = "; ".join(f"'{side.name}': {side.reason}" for side in sides)
        raise TriptychError(f"neither can be imported, and one must become the spec: {reasons}")
    origin = ordered[0]
    others = [side for side in sides if side is not origin]
    return _against(origin, others, options, left, right)


def _side(name: str, read: Read) -> Side:
    """A file that cannot be read ends it here; of a module it is only known then that it is not the spec."""
    if not is_module(name):
        return Side(name, None, read(name))
    candidate = discover.find(name)
    if isinstance(candidate, Architecture):
        return Side(name, None, Imported(candidate, None))
    try:
        return Side(name, candidate, read(name))
    except TriptychError as error:
        return Side(name, candidate, None, str(error))


def _against(origin: Side, others: list[Side], options: Options, left: str, right: str) -> Located:
    """The modules, that which became the spec last, each against the spec: what runs is compared, not what was read."""
    notes = [f"the spec is '{origin.name}', imported", *(f"{origin.name}: {line}" for line in origin.spec.remarks)]
    for side in others:
        if side.imported is not None:
            known = (side.name, side.spec.architecture, origin.name, origin.spec.architecture)
            notes += training_remarks(*known)
    notes += [f"'{side.name}' cannot be imported: {side.reason}" for side in others if side.reason]
    runs = [side for side in (*others, origin) if side.candidate is not None]
    for side in runs:
        located = _judged(side, origin.spec.architecture, options, of_import=side is origin)
        notes += [f"{side.name}: {line}" for line in located.notes]
        if located.difference is not None:
            break
    return replace(located, left=left, right=right, notes=tuple(notes))


def _judged(side: Side, architecture: Architecture, options: Options, *, of_import: bool) -> Located:
    """One module against the spec; in float32 where it shows that it computes in that even if given more."""
    mapping = None if of_import else options.mapping

    def run(precision: str) -> Located:
        return own_network.locate_port(
            side.candidate,
            architecture,
            name=side.name,
            layout=options.layout,
            mapping=mapping,
            precision=precision,
            seed=options.seed,
        )

    located = run(options.precision)
    if options.precision != LOW and located.difference is not None and _is_rounding(located.difference):
        layer = located.difference.layer
        located = run(LOW)
        note = f"'{layer}' computes in a lower precision than it is given: judged in float32"
        located = replace(located, notes=(*located.notes, note))
    if of_import and located.difference is not None:
        text = f"the spec is not what '{side.name}' itself computes; {located.difference.note}".removesuffix("; ")
        located = replace(located, difference=replace(located.difference, note=text))
    return located


def _is_rounding(difference: Difference) -> bool:
    check = difference.check
    return not check.problem and check.difference is not None and check.difference <= 1e-6 * check.scale
