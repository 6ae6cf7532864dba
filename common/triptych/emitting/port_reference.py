"""What the reference says of a network that is ported, computed once for all that are judged by it: the files of each
framework, and the source."""

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from triptych.conformance.case import Case, make_case
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.tolerance import Budgets, growing, perturbations
from triptych.emitting.emit import dialect_of
from triptych.optim.optimizers import SGD, Rates, decay_of, reference_step
from triptych.porting.import_reference import SHARES
from triptych.porting.own_network import without_dropout
from triptych.porting.reach import reaching
from triptych.porting.search_size import images_needed, search_size
from triptych.reference import network as reference
from triptych.spec.kinds.layer_pass import Rounding
from triptych.spec.kinds.layer_pass import exact as unrounded
from triptych.spec.layers import Architecture, BatchNorm, Layer, outputs, with_children
from triptych.spec.shapes import output_shapes
from triptych.utils.arrays import Array
from triptych.utils.randomness import generator
from triptych.utils.shelf import Shelf

RATES = (Rates(2**-14, 0.875),) * 2  # small, as networks are stiff; numbers that float32 has, as MXNet reads its own
Parameters = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Expected:
    """Arrays by name as `compute` has them with a rounding. The perturbed executions that tell what float32's rounding
    makes of them run when the first asks who departs from them by more than a share of their scale, and no more of them
    than somebody needs."""

    compute: Callable[[Rounding], Mapping[str, Array]]
    _known: list[dict[str, Budgets]] = field(default_factory=list)  # those after the executions that have run

    @cached_property
    def exact(self) -> Shelf:
        """In float64."""
        return Shelf.of(self.compute(unrounded))

    @cached_property
    def _growing(self) -> Iterator[dict[str, Budgets]]:
        return growing(self.exact, map(self.compute, perturbations(0)))

    def budgets(self) -> Iterator[dict[str, Budgets]]:
        """By precision, by the judge's own rule: after the executions that have run, and after each one more."""
        yield from self._known[-1:]
        for budgets in self._growing:
            self._known.append(budgets)
            yield budgets


@dataclass(frozen=True, eq=False)
class PortReference:
    """Of an architecture with its canonical weights."""

    architecture: Architecture
    parameters: Parameters
    _outputs: dict[frozenset[tuple[str, str]], Expected] = field(default_factory=dict)
    _updates: dict[Architecture, Expected] = field(default_factory=dict)

    @cached_property
    def small(self) -> Architecture:
        """The network on the images of the search and of the training steps."""
        return search_size(self.architecture)

    @cached_property
    def whole(self) -> "PortReference":
        """For a network that does not run on smaller images than its own: all is judged on those."""
        other = PortReference(self.architecture, self.parameters, self._outputs)
        vars(other)["small"] = self.architecture
        return other

    @cached_property
    def run(self) -> ReferenceRun:
        """What the search for a difference compares with."""
        return ReferenceRun(reaching(self.case))

    @cached_property
    def images(self) -> NDArray[np.float32]:
        """One, of the full size."""
        return _drawn(self.architecture)

    @cached_property
    def small_images(self) -> NDArray[np.float32]:
        """One of the size of the search, on which a network shows its parameters."""
        return _drawn(self.small)

    @cached_property
    def case(self) -> Case:
        """What is searched and trained: drawn weights, of which the large ones lie on the disk."""
        case = make_case(without_dropout(self.small), 0, images_needed(self.small))
        return replace(case, parameters=cast(Any, Shelf(case.parameters)))

    @cached_property
    def cotangents(self) -> list[Array]:
        """Of a mean: steps that are small, whatever the size of an output."""
        shapes, random = output_shapes(self.case.architecture), generator(0, "port", "cotangents")
        shaped = [(len(self.case.stored), *shapes[name]) for name in outputs(self.case.architecture)]
        return [dy / dy.size for dy in map(random.standard_normal, shaped)]

    def outputs(self, ends: Mapping[str, str]) -> Expected:
        """Those in evaluation of the full size, with the weights that the network has; `ends`: the softmax that follows
        an output in the network which is judged, where one does."""
        known = self._outputs.setdefault(frozenset(), Expected(self._evaluated))
        if not ends:
            return known

        def with_ends(rounding: Rounding) -> dict[str, Array]:
            values = known.exact if rounding is unrounded else self._evaluated(rounding)
            shares = {name: rounding(SHARES[end](values[name]), values[name].shape[1]) for name, end in ends.items()}
            return {**values, **shares}

        return self._outputs.setdefault(frozenset(ends.items()), Expected(with_ends))

    def update(self, backend: str) -> Expected:
        """Parameters and running statistics after the steps of SGD, from drawn weights, as a framework keeps them."""
        kept = as_kept(self.case.architecture, backend)
        return self._updates.setdefault(kept, Expected(partial(self._trained, kept)))

    def prepare(self, backend: str) -> None:
        """Go through all passes of the reference in which maps are kept: before a network is there, beside which they
        would be too much."""
        self.update(backend).exact  # noqa: B018
        self.run.gradients  # noqa: B018

    def _evaluated(self, rounding: Rounding) -> dict[str, Array]:
        architecture = without_dropout(self.architecture)
        names = outputs(architecture)
        run = reference.forward(
            architecture, self.parameters, self.images, rounding=rounding, forward_only=True, kept=frozenset(names)
        )
        return {name: run.outputs[name] for name in names}

    def _trained(self, architecture: Architecture, rounding: Rounding) -> Shelf:
        """One parameter at a time: the large ones lie on the disk, before and after."""
        case, optimizer = self.case, SGD(momentum=RATES[0].momentum)
        moved, velocity = Shelf(), Shelf()
        values: ChainMap[str, Array] = ChainMap(moved, cast(Shelf, case.parameters))
        decay = decay_of(optimizer, architecture)
        targets = tuple(len(case.stored) * dy for dy in self.cotangents)  # the reference takes the mean
        for rates in RATES:
            gradients, statistics = _gradients(case, architecture, values, targets, rounding)
            for path, strength in decay.items():
                after, state = reference_step(values, gradients, velocity, rates, optimizer, {path: strength})
                moved[path] = rounding(after[path], 1)
                velocity.update(state)
            moved.update({path: rounding(value, 1) for path, value in statistics.items()})
        return moved.joined(Shelf((path, case.exact[path]) for path in case.exact if path not in moved))


def as_kept(architecture: Architecture, backend: str) -> Architecture:
    """The architecture with batch norms as the framework's own layer computes them and keeps their statistics."""
    kept = dialect_of(backend).kept

    def change(layer: Layer) -> Layer:
        return kept(layer) if isinstance(layer, BatchNorm) else with_children(layer, change)

    return replace(architecture, layers=tuple(map(change, architecture.layers)))


def _drawn(architecture: Architecture) -> NDArray[np.float32]:
    return generator(0, "port", "images").standard_normal((1, *architecture.input)).astype(np.float32)


def _gradients(
    case: Case, architecture: Architecture, values: Parameters, targets: tuple[Array, ...], rounding: Rounding
) -> tuple[Parameters, Parameters]:
    """Of a pass in training mode, in which dropout keeps all, with its running statistics; its maps are let go of."""
    masks = case.masks(0)
    run = reference.forward(architecture, values, case.images, train=True, masks=masks, rounding=rounding)
    return reference.backward(run, targets)[1], run.statistics
