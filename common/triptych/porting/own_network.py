"""Bring your own port: somebody's network against an architecture, layer by layer.

Its parameters are paired with the spec's, it is given the spec's values, and each operation that it runs is set
beside the layer it corresponds to. Dropout is off on both sides, and auxiliary classifiers are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from triptych.backend import registry
from triptych.backend.contract import Backend, Port, PortAdapter
from triptych.backend.execution import exact
from triptych.conformance import levels, locate
from triptych.conformance.case import make_case
from triptych.conformance.levels import Level
from triptych.conformance.locate import Located
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import ReferenceSubject
from triptych.porting.beside import Beside
from triptych.porting.discover import check_taken, find_adapter
from triptych.porting.dropouts import DRAWN, DRAWN_ALWAYS
from triptych.porting.matching import read_mapping
from triptych.porting.own_levels import LEVELS
from triptych.porting.own_training import STEPS
from triptych.porting.reach import reaching, unreached
from triptych.porting.subject import HOST, STATISTICS, OwnNetwork
from triptych.spec.layers import Architecture, Auxiliary, BatchNorm, Dropout, Layer, walk, with_children
from triptych.spec.rewrite import fold_batch_norms
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError, check_known

LAYOUTS = ("NCHW", "NHWC")
NOT_RUN = {
    "dropout's draws": "a port draws its own; rate, kind, mode and place of each are compared",
    "data": "--left-preprocess compares your own",
    "loss": "--left-loss compares your own",
    "update": "--left-optimizer compares your own",
}
NO_LARGE_BATCH = {"a batch of 9 images": "memory is short for so many parameters"}
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
    softmax: str = "",
    ignored: Sequence[str] = (),
    propose: Path | None = None,
    weights: Mapping[str, Array] | None = None,
    own_weights: bool = False,
    check_init: bool = False,
    beside: Beside | None = None,
    rows: Sequence[Level] = LEVELS,
) -> Located:
    """The first layer, and the level, at which a network departs from `architecture` (as `triptych locate` does).
    `candidate`: a `torch.nn.Module`, a Gluon block, a Flax NNX or Linen module, or `(function, parameters)` with a JAX
    function of parameters and images. Images have the architecture's shape. `layout` is that of the images it takes:
    NHWC by default in JAX, NCHW elsewhere. `mapping`: its parameters' names to the spec's paths, where order and shape
    do not tell. `softmax`: the one (softmax or log_softmax) that it ends in, which is left out. Where the spec has
    batch norms that the network has folded into its convolutions, both are compared in evaluation. `ignored`: patterns
    of names, its own or the spec's, that are not compared; `propose`: a file for what is known of the pairing; with
    `own_weights` those that it brings are compared with `weights`, canonical ones;
    with `check_init` what it starts from with the architecture's initializer; with `beside` what it is trained with.
    `rows`: the levels that are compared. Raises TriptychError for what cannot be compared."""
    check_known("layout", [] if layout is None else [layout], LAYOUTS)
    names = read_mapping(mapping)
    framework, adapter = adapter_of(candidate)
    own = Own(
        name,
        lambda outputs: adapter.Port(candidate, layout, exact(HOST.get(precision, precision)), outputs),
        registry.load(framework),
        layout,
        names,
        precision,
        seed,
        softmax,
        levels=[*rows, *(beside.rows(architecture) if beside else [])],
        ignored=ignored,
        propose=propose,
        keep=own_weights or check_init,
    )
    compared = compare_with(own, architecture)
    from triptych.porting import own_init
    from triptych.porting import own_weights as brought

    located = brought.judged(compared, architecture, weights) if own_weights else compared.located
    return own_init.judged(located, architecture, compared.values, seed) if check_init else located


def adapter_of(candidate: Any) -> tuple[str, PortAdapter]:
    """The backend whose framework a network belongs to, and its `port` module. Raises TriptychError where there is
    none."""
    check_taken(candidate, "the network")
    adapted = find_adapter(candidate)
    if adapted is None:
        raise TriptychError(
            f"a {type(candidate).__name__} is no network of {', '.join(registry.installed())}; expected a module or "
            "block of theirs, or (function, parameters)"
        )
    return adapted


@dataclass(frozen=True, eq=False)
class Own:
    """Somebody's network, and how it is to be compared (see `locate_port`). `adapt` makes its port, given the number of
    outputs that are compared; `backend` is that of its framework, if it has one. `softmax`: the one (softmax or
    log_softmax) that it ends in, which is left out."""

    name: str
    adapt: Callable[[int], Port]
    backend: Backend | None = None
    layout: str | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    precision: str = "fp64"
    seed: int = 0
    softmax: str = ""
    levels: Sequence[Level] = LEVELS
    ignored: Sequence[str] = ()
    propose: Path | None = None
    keep: bool = False  # its own values are asked for
    run: ReferenceRun | None = None  # of the whole architecture, where another network is compared with it, too

    def against(self, architecture: Architecture, rows: Sequence[Level] = ()) -> "Compared":
        """The first difference at one of these levels, or at one of its own."""
        run = run_on(architecture, self.seed)
        return self.compared(run, architecture, rows)

    def compared(self, run: ReferenceRun, architecture: Architecture, rows: Sequence[Level] = ()) -> "Compared":
        """The same, with the reference's run of it."""
        network = OwnNetwork(
            self.name,
            run,
            self.precision,
            self.backend,
            lambda: self.adapt(len(run.ends)),
            self.mapping,
            self.layout,
            self.softmax,
            {p: layer.rate for p, layer in walk(architecture.layers) if isinstance(layer, Dropout) and layer.rate},
            self.ignored,
            self.propose,
        )
        try:
            judged = _that_apply(rows or self.levels, run)
            result = _drawn(locate.locate(network, ReferenceSubject(run), "accumulated", levels=judged), network)
            values = network.own_values() if self.keep and network.pairs else {}
        finally:
            network.restore()
        heads = any(isinstance(layer, Auxiliary) for layer in architecture.layers)
        left_out = NOT_RUN.keys() - {level.name for level in judged}
        not_run = {name: reason for name, reason in NOT_RUN.items() if name in left_out}
        not_run |= (NO_HEADS if heads else {}) | (NO_LARGE_BATCH if run.case.large else {})
        agree = result.difference is None
        result = network.with_offer(result)
        if agree:  # nobody looks at the maps of the training pass any more
            network.let_go()
        short = (*unreached(run.case, run.trace(train=False).inputs), *network.not_far()) if agree else ()
        notes = (*network.notes, *short)
        located = replace(result, right=result.arch, not_run=not_run, notes=notes)
        return Compared(located, network, values=values)


def _drawn(result: Located, network: OwnNetwork) -> Located:
    """With the random numbers that it draws by itself: in evaluation, or where nothing else explains a difference in
    training."""
    difference = result.difference
    if difference is None or difference.check.problem:
        return result
    if difference.level == "forward eval" and network.draws_in_evaluation():
        cause = difference.cause if "active in evaluation" in difference.cause else DRAWN_ALWAYS
        return replace(result, difference=replace(difference, cause=cause))
    if difference.level != "forward train" or difference.cause or not network.drawn_by_itself():
        return result
    return replace(result, difference=replace(difference, cause=DRAWN))


@dataclass(frozen=True)
class Compared:
    """The verdict, the network as it was compared, whether the spec was folded for it, and where they were asked for,
    the network's own values by path, as the spec has them."""

    located: Located
    network: OwnNetwork
    folded: bool = False
    values: Mapping[str, Array] = field(default_factory=dict)


def compare_with(own: Own, architecture: Architecture) -> Compared:
    """The first difference of a network from an architecture. Where it is that batch norms are folded into what is
    before them, of the two in evaluation."""
    whole = own.against(architecture) if own.run is None else own.compared(own.run, architecture)
    difference = whole.located.difference
    folded, norms = fold_batch_norms(architecture)
    if difference is None or difference.level != "structure" or own.mapping or not norms:
        return whole
    evaluated = own.against(folded, FOLDED)
    located = evaluated.located
    if located.difference is not None and located.difference.level == "structure":
        return whole
    pairs = ", ".join(f"'{norm}' into '{weighted}'" for weighted, norm in norms.items())
    notes = (*located.notes, f"your network has batch norms folded into the layers before them: {pairs}")
    located = replace(located, arch=whole.located.arch, not_run=located.not_run | NOT_FOLDED, notes=notes)
    return Compared(located, evaluated.network, folded=True, values=evaluated.values)


def moves_of(
    candidate: Any, architecture: Architecture, optimizer: Any, *, name: str, precision: str = "fp64", seed: int = 0
) -> Mapping[str, Array]:
    """What an optimiser moves the parameters of somebody's network by, which agrees with the architecture."""
    framework, adapter = adapter_of(candidate)
    run, execution = run_on(architecture, seed), exact(HOST.get(precision, precision))
    backend = registry.load(framework)
    network = OwnNetwork(
        name, run, precision, backend, lambda: adapter.Port(candidate, None, execution, len(run.ends)), {}, None
    )
    try:
        network.parameter_shapes()
        return network.moves(optimizer, STEPS)
    finally:
        network.restore()


def run_on(architecture: Architecture, seed: int = 0) -> ReferenceRun:
    """What somebody's network is compared with."""
    return ReferenceRun(reaching(make_case(without_dropout(architecture), seed, locate.BATCH)))


def _that_apply(rows: Sequence[Level], run: ReferenceRun) -> list[Level]:
    """Without running statistics where the spec has none."""
    kept = any(isinstance(layer, BatchNorm) and not layer.frozen for layer in run.layers.values())
    return [row for row in rows if row.name != STATISTICS or kept]


def without_dropout(architecture: Architecture) -> Architecture:
    """The architecture with dropout at rate 0 and without auxiliary classifiers."""

    def off(layer: Layer) -> Layer:
        return replace(layer, rate=0.0) if isinstance(layer, Dropout) else with_children(layer, off)

    layers = tuple(off(layer) for layer in architecture.layers if not isinstance(layer, Auxiliary))
    return replace(architecture, layers=layers)
