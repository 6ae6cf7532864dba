"""Bring your own port: somebody's network against an architecture, layer by layer.

Its parameters are paired with the spec's, it is given the spec's values, and each operation that it runs is set
beside the layer it corresponds to. Dropout is off on both sides, and auxiliary classifiers are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from triptych.backend import registry
from triptych.backend.contract import PortAdapter
from triptych.backend.execution import exact
from triptych.conformance import levels, locate
from triptych.conformance.case import make_case
from triptych.conformance.levels import Level
from triptych.conformance.locate import Located
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import ReferenceSubject
from triptych.porting.discover import find_adapter
from triptych.porting.matching import read_mapping
from triptych.porting.subject import LEVELS, OwnNetwork
from triptych.spec.layers import Architecture, Auxiliary, Dropout, Layer, with_children
from triptych.spec.rewrite import fold_batch_norms
from triptych.utils.errors import TriptychError, unknown

LAYOUTS = ("NCHW", "NHWC")
NOT_RUN = {"dropout": "switched off on both sides: a port draws its own masks", "update": "a port brings no optimiser"}
NO_HEADS = {"auxiliary classifiers": "left out on both sides"}
FOLDED = (levels.PARAMETERS, levels.FORWARD_EVAL)
NOT_FOLDED = {"forward train, gradient": "your network has no batch norms to train"}


def locate_port(
    candidate: Any,
    architecture: Architecture,
    *,
    name: str = "port",
    layout: str | None = None,
    mapping: Path | Mapping[str, str] | None = None,
    precision: str = "fp64",
    seed: int = 0,
) -> Located:
    """The first layer, and the level, at which a network departs from `architecture` (as `triptych locate` does).
    `candidate`: a `torch.nn.Module`, a Gluon block, a Flax NNX or Linen module, or `(function, parameters)` with a JAX
    function of parameters and images. Images have the architecture's shape. `layout` is that of the images it takes:
    NHWC by default in JAX, NCHW elsewhere. `mapping`: its parameters' names to the spec's paths, where order and shape
    do not tell. Where the spec has batch norms that the network has folded into its convolutions, both are compared in
    evaluation. Raises TriptychError for what cannot be compared."""
    if layout not in (None, *LAYOUTS):
        raise unknown("layout", layout, LAYOUTS)
    names = read_mapping(mapping)
    adapted = find_adapter(candidate)
    if adapted is None:
        raise TriptychError(
            f"a {type(candidate).__name__} is no network of {', '.join(registry.installed())}; expected a module or "
            "block of theirs, or (function, parameters)"
        )
    own = _Own(candidate, name, *adapted, layout, names, precision, seed)
    whole = own.against(architecture)
    if whole.difference is None or whole.difference.level != "structure" or names:
        return whole
    folded, norms = fold_batch_norms(architecture)
    if not norms:
        return whole
    evaluated = own.against(folded, FOLDED)
    if evaluated.difference is not None and evaluated.difference.level == "structure":
        return whole
    pairs = ", ".join(f"{norm} into {convolution}" for convolution, norm in norms.items())
    notes = (*evaluated.notes, f"your network has the batch norms folded into the layers before them: {pairs}")
    return replace(evaluated, not_run=evaluated.not_run | NOT_FOLDED, notes=notes)


@dataclass(frozen=True, eq=False)
class _Own:
    """Somebody's network, and how it is to be compared; see `locate_port`."""

    candidate: Any
    name: str
    framework: str
    adapter: PortAdapter
    layout: str | None
    mapping: Mapping[str, str]
    precision: str
    seed: int

    def against(self, architecture: Architecture, rows: Sequence[Level] = LEVELS) -> Located:
        """The first difference at one of these levels."""
        run = ReferenceRun(make_case(without_dropout(architecture), self.seed, locate.BATCH))
        network = OwnNetwork(
            self.name,
            run,
            self.precision,
            registry.load(self.framework),
            lambda: self.adapter.Port(self.candidate, self.layout, exact(self.precision), len(run.ends)),
            self.mapping,
            self.layout,
        )
        result = locate.locate(network, ReferenceSubject(run), "accumulated", levels=rows)
        heads = any(isinstance(layer, Auxiliary) for layer in architecture.layers)
        not_run = NOT_RUN | NO_HEADS if heads else NOT_RUN
        return replace(result, right=result.arch, not_run=not_run, notes=network.notes)


def without_dropout(architecture: Architecture) -> Architecture:
    """The architecture with dropout at rate 0 and without auxiliary classifiers."""

    def off(layer: Layer) -> Layer:
        return replace(layer, rate=0.0) if isinstance(layer, Dropout) else with_children(layer, off)

    layers = tuple(off(layer) for layer in architecture.layers if not isinstance(layer, Auxiliary))
    return replace(architecture, layers=layers)
