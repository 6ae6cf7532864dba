"""Two networks of strangers against each other: no spec is given, so one of them is imported and becomes it.

A side that is a file is read; one that is a module is taken over as far as its importer can, and runs itself besides.
Two files are compared as specs (`triptych.porting.two_specs`), their own weights too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from triptych.conformance.compare import Check
from triptych.conformance.levels import PARAMETERS
from triptych.conformance.locate import Located
from triptych.importers.steps import Imported
from triptych.porting import discover, own_network, sources
from triptych.porting.beside import Beside, named
from triptych.porting.beside import is_module as is_own
from triptych.porting.own_levels import WATCHED
from triptych.porting.spec_port import SpecPort
from triptych.porting.subject import STATISTICS
from triptych.porting.two_specs import locate_specs, training_remarks
from triptych.spec.layers import Architecture, BatchNorm, Layer, outputs, with_children
from triptych.utils.errors import TriptychError

LOW = "fp32"
Read = Callable[[str, bool], Imported]  # of its name, and whether a softmax at its end is kept


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two: what it is called, the object that runs (none of a file), and its spec, or why it has none."""

    name: str
    candidate: Any | None
    imported: Imported | None
    reason: str = ""

    @property
    def softmax(self) -> str:
        """The softmax or log_softmax that it ends in and its spec does not have."""
        return softmax_at_the_end(() if self.imported is None else self.imported.remarks)

    @property
    def spec(self) -> Imported:
        assert self.imported is not None
        return self.imported


def softmax_at_the_end(remarks: Sequence[str]) -> str:
    """The softmax or log_softmax that an importer says to have taken off; empty for none."""
    named = (re.search(r"\b(softmax|log_softmax)\b.* at the end is taken off", remark) for remark in remarks)
    return next((found[1] for found in named if found), "")


@dataclass(frozen=True)
class Options:
    """As `own_network.locate_port` takes them. `layout`, `mapping`, `ignored` and `propose` are of the network that is
    not the spec; `beside` is what the left one is trained with."""

    layout: str | None = None
    mapping: Path | Mapping[str, str] | None = None
    precision: str = "fp64"
    seed: int = 0
    ignored: tuple[str, ...] = ()
    propose: Path | None = None
    own_weights: bool = False
    check_init: bool = False
    beside: Beside | None = None


def is_network(name: str) -> bool:
    """Whether a subject is called as a file, a run folder or `module:name` is: no backend, and none of the zoo."""
    return not sources.is_zoo(name)


def is_module(name: str) -> bool:
    """Whether it is called as somebody's own object, not as a file."""
    return ":" in name and not Path(name).exists()


def locate(left: str, right: str, read: Read, options: Options) -> Located:
    """The first layer at which two networks diverge. `read` reads what names a network, as `sources.read` does, with or
    without a softmax at its end. Files and networks of the zoo are specs as they are; of two modules the right one
    becomes the spec, unless it has more outputs than the left one, or cannot. Raises TriptychError, with both reasons,
    where neither can."""
    sides = _side(left, read), _side(right, read)
    if all(side.candidate is None for side in sides):
        return locate_specs(left, sides[0].spec, right, sides[1].spec, seed=options.seed)
    known = [side for side in reversed(sides) if side.imported is not None]
    if not known:
        reasons = "; ".join(f"'{side.name}': {side.reason}" for side in sides)
        raise TriptychError(f"neither can be imported, and one must become the spec: {reasons}")
    origin, *others = sorted(known, key=lambda side: (side.candidate is not None, len(outputs(side.spec.architecture))))
    located = _against(origin, sides, options)
    if others and _is_at(located, "structure"):  # batch norms that one has folded show from the other only
        again = _against(others[0], sides, options)
        located = located if _is_at(again, "structure") else again
    return located


def _side(name: str, read: Read) -> Side:
    """A file that cannot be read ends it here; of a module it is only known then that it is not the spec."""
    if not is_module(name):
        return Side(name, None, _read(name, read))
    candidate = discover.find(name)
    if isinstance(candidate, Architecture):
        return Side(name, None, Imported(candidate, None))
    try:
        return Side(name, candidate, _read(name, read))
    except TriptychError as error:
        return Side(name, candidate, None, str(error))


def _read(name: str, read: Read) -> Imported:
    """A softmax at the end of a network with classes is what a loss is given; elsewhere it belongs to the outputs."""
    imported = read(name, False)
    return imported if imported.architecture.classes else read(name, True)


def _against(origin: Side, sides: tuple[Side, Side], options: Options) -> Located:
    """The other, and then that which became the spec itself: what runs is compared, not only what was read of it."""
    other = sides[1] if origin is sides[0] else sides[0]
    notes = [f"the spec is '{origin.name}', imported", *(f"{origin.name}: {line}" for line in origin.spec.remarks)]
    if other.imported is not None:
        known = (other.name, other.imported.architecture, origin.name, origin.spec.architecture)
        notes += training_remarks(*known)
    elif other.reason:
        notes.append(f"'{other.name}' cannot be imported: {other.reason}")
    verdict = _judged(other, origin.spec.architecture, options, origin.spec.parameters)
    notes += [f"{other.name}: {line}" for line in verdict.notes]
    if origin.candidate is not None and verdict.difference is None:
        itself = _judged(
            origin,
            origin.spec.architecture,
            replace(options, mapping=None, layout=None, ignored=(), propose=None, own_weights=False),
        )
        notes += [f"{origin.name}: {line}" for line in itself.notes]
        if itself.difference is not None:
            text = f"the spec is not what '{origin.name}' itself computes; {itself.difference.note}".removesuffix("; ")
            verdict = replace(itself, difference=replace(itself.difference, note=text))
    if options.beside and verdict.difference is None:
        verdict = _trained(sides, origin.spec.architecture, options, verdict)
    left, right = (side.name for side in sides)
    return replace(verdict, left=left, right=right, notes=tuple(notes))


def _trained(sides: tuple[Side, Side], architecture: Architecture, options: Options, agreed: Located) -> Located:
    """What two networks that agree are trained with. Raises TriptychError for a right optimiser without its network."""
    beside, (left, right) = options.beside, sides
    assert beside is not None
    if left.candidate is None:
        raise TriptychError(f"--left-optimizer and the like are for a network that runs; '{left.name}' is a spec")
    if is_own(beside.right_optimizer):
        if right.candidate is None:
            raise TriptychError(f"--right-optimizer trains a network that runs; '{right.name}' is a spec")
        optimizer = named(beside.right_optimizer)
        moves = own_network.moves_of(right.candidate, architecture, optimizer, name=right.name, seed=options.seed)
        beside = replace(beside, right_optimizer=moves)
    rows = (PARAMETERS,)
    taken = vars(options) | {"beside": beside, "own_weights": False, "check_init": False, "propose": None}
    verdict = own_network.locate_port(left.candidate, architecture, name=left.name, rows=rows, **taken)
    levels = dict.fromkeys((*agreed.levels, *verdict.levels))
    return replace(verdict, levels=tuple(levels), notes=agreed.notes)


def _judged(
    side: Side, architecture: Architecture, options: Options, weights: Mapping[str, Any] | None = None
) -> Located:
    """One network against the spec. A difference as small as float32's rounding stays one: an eps of another value is
    no larger. Whoever knows that a layer computes in float32 asks for that precision, and is told so."""
    if side.candidate is None:
        theirs = own_network.without_dropout(side.spec.architecture)
        own = own_network.Own(side.name, lambda count: SpecPort(theirs, count), seed=options.seed, levels=WATCHED)
        return own_network.compare_with(own, architecture).located
    located = _of_module(side, architecture, options, weights)
    if _is_at(located, STATISTICS):
        other = _of_module(
            side, _counted_otherwise(architecture), options, weights
        )  # n or n - 1 is the framework's choice
        said = f"they train otherwise: one of them counts n for running variances, '{side.name}' not as the other"
        located = located if _is_at(other, STATISTICS) else replace(other, notes=(*other.notes, said))
    return _with_offer(located, options)


def _counted_otherwise(architecture: Architecture) -> Architecture:
    """With every running variance kept with n - 1 in place of n, or the other way round."""

    def other(layer: Layer) -> Layer:
        return (
            replace(layer, unbiased=not layer.unbiased) if isinstance(layer, BatchNorm) else with_children(layer, other)
        )

    return replace(architecture, layers=tuple(map(other, architecture.layers)))


def _of_module(side: Side, architecture: Architecture, options: Options, weights: Mapping[str, Any] | None) -> Located:
    return own_network.locate_port(
        side.candidate,
        architecture,
        name=side.name,
        layout=options.layout,
        mapping=options.mapping,
        precision=options.precision,
        seed=options.seed,
        softmax=side.softmax,
        ignored=options.ignored,
        propose=options.propose,
        weights=weights,
        own_weights=options.own_weights,
        check_init=options.check_init,
    )


def _with_offer(located: Located, options: Options) -> Located:
    """With the precision that a layer may compute in, where the difference is as small."""
    difference = located.difference
    told = difference is not None and "--precision" in difference.note
    if difference is None or told or options.precision == LOW or not is_rounding(difference.check):
        return located
    offer = f"if '{difference.layer}' computes in float32 whatever it is given, --precision {LOW} judges it in that"
    note = f"{difference.note}; {offer}" if difference.note else offer
    return replace(located, difference=replace(difference, note=note))


def _is_at(located: Located, level: str) -> bool:
    return located.difference is not None and located.difference.level == level


def is_rounding(check: Check) -> bool:
    """Whether rounding to float32 could be as large as this difference."""
    return not check.problem and check.difference is not None and check.difference <= 1e-6 * check.scale
