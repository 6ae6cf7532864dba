"""What the float64 reference says of an import on the images that its source is given, and what rounding explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from scipy.special import log_softmax, softmax

from triptych.backend.contract import Port
from triptych.conformance.compare import Check, compare, worst
from triptych.conformance.tolerance import UNPERTURBED, budgets, perturbations
from triptych.importers.steps import Imported
from triptych.porting.align import Place, first_unseen, turn_to_channels_first
from triptych.porting.own_network import without_dropout
from triptych.reference.network import ReferencePass, forward
from triptych.spec.kinds.layer_pass import Rounding
from triptych.spec.kinds.layer_pass import exact as unrounded
from triptych.spec.layers import Architecture, outputs
from triptych.training import masks
from triptych.utils.arrays import Array, Arrays, largest

OUTPUTS = "outputs"  # the level, and the statistics with them
SHARES = {"softmax": lambda y: softmax(y, axis=1), "log_softmax": lambda y: log_softmax(y, axis=1)}


@dataclass(eq=False)
class ImportReference:
    """In evaluation, or in training without dropout. `ends`: the softmax that the source has behind an output."""

    imported: Imported
    images: Array
    train: bool
    ends: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.architecture: Architecture = without_dropout(self.imported.architecture)
        self.parameters: Arrays = self.imported.parameters or {}

    def run(self, rounding: Rounding = unrounded, *, whole: bool = False) -> ReferencePass:
        """A pass; of its maps only the outputs stay, unless it is to be `whole`."""
        return forward(
            self.architecture,
            self.parameters,
            self.images,
            train=self.train,
            masks=masks.draw(self.architecture, 0, 0, len(self.images)),
            rounding=rounding,
            forward_only=True,
            kept=None if whole else frozenset(outputs(self.architecture)),
        )

    @cached_property
    def exact(self) -> dict[str, Array]:
        """Its outputs, and in training the running statistics after the pass, by path."""
        return self.arrays(unrounded)

    def arrays(self, rounding: Rounding) -> dict[str, Array]:
        """The same with a rounding."""
        run = self.run(rounding)
        ends = {path: run.outputs[path] if number else run.logits for number, path in enumerate(run.heads)}
        return ends | (run.statistics if self.train else {})

    def nearest(self, observed: Arrays, precision: str) -> Check:
        """The check nearest to its budget. Perturbed executions run where a share of the scale is exceeded, and only
        until they explain what was observed: a budget grows with each."""
        observed = {name: _as_spec(value, self.exact.get(name)) for name, value in observed.items()}
        expected = self.shown(self.exact, observed)
        allowed = {name: UNPERTURBED[precision] * largest(value) for name, value in expected.items()}
        check, perturbed = _nearest(expected, observed, allowed), []
        for rounding in perturbations(0):
            if check.passed or check.problem:
                return check
            perturbed.append(self.shown(self.arrays(rounding), observed, rounding))
            check = _nearest(expected, observed, budgets(expected, perturbed)[precision])
        return check

    def shown(self, arrays: Arrays, observed: Arrays, rounding: Rounding = unrounded) -> Arrays:
        """Outputs as the source has them, whose softmax rounds, too; of the statistics those that were seen."""
        heads = outputs(self.architecture)
        ends = {name: arrays[name] for name in heads}
        for name, kind in self.ends.items():
            if kind in SHARES:
                ends[name] = rounding(SHARES[kind](arrays[name]), arrays[name].shape[1])
        return ends | {name: value for name, value in arrays.items() if name in observed and name not in heads}

    def where(self, port: Port) -> str:
        """Half a line with the first layer whose output the source, which is watched, does not have."""
        captured = port.run(self.images, train=self.train).captured
        places = [Place(path, "", value) for path, value in self.run(whole=True).outputs.items()]
        turn_to_channels_first(places, captured)
        path = first_unseen(places, captured) if captured else ""
        return f"; the first layer whose output it does not have is '{path}'" if path else ""


def _as_spec(value: Array, expected: Array | None) -> Array:
    """An output of more or fewer axes than a map or features have, as the spec has it."""
    same = expected is not None and value.ndim not in (2, 4) and value.size == expected.size
    return value.reshape(expected.shape) if expected is not None and same else value


def _nearest(expected: Arrays, observed: Arrays, allowed: Mapping[str, float]) -> Check:
    check = worst(compare(OUTPUTS, expected, observed, allowed))
    assert check is not None
    return check
