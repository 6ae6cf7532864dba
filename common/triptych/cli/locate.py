"""`locate`: the first layer, and the phase, at which two sides part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych.cli.options import JsonFile, NetworkOptions, whole, write_json

if TYPE_CHECKING:
    from triptych.conformance.comparison import Result
    from triptych.spec.layers import Architecture

DEFAULT_NETWORK = NetworkOptions()
REFERENCE = "reference"


def locate(
    *,
    left: Annotated[str, Parameter(help="A backend, or your own network as module:name.")] = "torch",
    right: Annotated[str, Parameter(help="reference, a backend, or an architecture of the zoo.")] = REFERENCE,
    arch: Annotated[str | None, Parameter(help="Architecture; vgg11 if neither side says which.")] = None,
    mode: Annotated[str, Parameter(help="resynchronised (each layer alone) or accumulated.")] = "resynchronised",
    network: NetworkOptions = DEFAULT_NETWORK,
    precision: Annotated[str, Parameter(help="fp64 or fp32.")] = "fp64",
    device: Annotated[str, Parameter(help="cpu, cuda or cuda:i.")] = "cpu",
    seed: Annotated[int, Parameter(converter=whole, help="Seed of parameters, images and masks.")] = 0,
    optimizers: Annotated[
        str | None, Parameter(help="all, or momentum; momentum alone for a network of another size.")
    ] = None,
    layout: Annotated[str | None, Parameter(help="Images of your network: NCHW or NHWC (JAX's default).")] = None,
    mapping: Annotated[Path | None, Parameter(help="JSON file: your parameter's name to the spec's path.")] = None,
    json: JsonFile = None,
) -> int:
    """Name the first layer and the phase (forward, backward, update) at which two sides part, and the likely cause.

    A side is a backend, the reference, or your own network: module:name of a PyTorch module, a Gluon block, a Flax
    module, or of a function that builds one. It is given the spec's weights. Exit status 1 if the sides part.
    Example: triptych locate --left my_package:build_torch --right vgg16
    """
    from triptych import zoo
    from triptych.conformance import suite
    from triptych.conformance.comparison import MODES
    from triptych.utils.errors import TriptychError, unknown

    if mode not in MODES:
        raise unknown("--mode", mode, MODES)
    if precision not in suite.PRECISIONS:
        raise TriptychError(f"--precision '{precision}' cannot be judged; use fp64 or fp32")
    if left == right:
        raise TriptychError(f"--left and --right are both '{left}'; name two sides")
    named = [side for side in (left, right) if side in zoo.registry()]
    if len({*named, *([arch] if arch else [])}) > 1:
        raise TriptychError(f"the sides name several architectures: {', '.join({*named, *([arch] if arch else [])})}")
    name = arch or (named[0] if named else "vgg11")
    left, right = (REFERENCE if side in named else side for side in (left, right))
    if left == REFERENCE:
        left, right = right, left
    if left == REFERENCE:
        raise TriptychError("both sides are the reference; name a backend or your own network as --left")
    result = _result(name, left, right, mode, network, precision, device, seed, optimizers, layout, mapping)
    if json is not None:
        write_json(json, as_dict(result))
    if json != "-":
        show(result)
    return 0 if result.difference is None else 1


def _result(
    name: str,
    left: str,
    right: str,
    mode: str,
    network: NetworkOptions,
    precision: str,
    device: str,
    seed: int,
    optimizers: str | None,
    layout: str | None,
    mapping: Path | None,
) -> Result:
    from triptych.backend import registry
    from triptych.backend.execution import exact
    from triptych.conformance import locate as search
    from triptych.conformance.case import make_case
    from triptych.conformance.comparison import BATCH
    from triptych.conformance.reference_run import Truth
    from triptych.conformance.subjects import BackendSide, ReferenceSide, Side
    from triptych.conformance.updates import UPDATES
    from triptych.utils.errors import TriptychError

    own = [side for side in (left, right) if ":" in side]
    if own and right != REFERENCE:
        raise TriptychError(f"'{own[0]}' is compared with an architecture: write --left {own[0]} --right {name}")
    if own:
        from triptych.porting import discover, own_network

        if device != "cpu" or optimizers is not None:
            raise TriptychError("--device and --optimizers are for backends; your own network runs on the CPU")
        architecture = network.build(name)
        return own_network.locate_port(
            discover.find(own[0]),
            architecture,
            name=own[0],
            layout=layout,
            mapping=mapping,
            precision=precision,
            seed=seed,
        )
    if layout is not None or mapping is not None:
        raise TriptychError("--layout and --mapping are for your own network; give it as --left module:name")
    loaded = {side: registry.load(side) for side in (left, right) if side != REFERENCE}
    truth = Truth(make_case(chosen(name, network), seed, BATCH), precision)

    def side(wanted: str) -> Side:
        if wanted == REFERENCE:
            return ReferenceSide(truth)
        built = loaded[wanted].build(truth.case.architecture, device=device, execution=exact(precision))
        return BackendSide(loaded[wanted], built, truth, device)

    if optimizers not in (None, "all", "momentum"):
        raise TriptychError(f"--optimizers '{optimizers}' must be all or momentum")
    small = network == DEFAULT_NETWORK  # five more optimisers would take minutes on a network of full width
    updates = UPDATES if optimizers == "all" or (optimizers is None and small) else ("momentum",)
    return search.locate(side(left), side(right), truth, mode, updates)


def chosen(name: str, network: NetworkOptions) -> Architecture:
    """The architecture at conformance size, or as the options say."""
    from triptych.conformance.case import conformance_architecture

    return conformance_architecture(name) if network == DEFAULT_NETWORK else network.build(name)


def show(result: Result) -> None:
    """The verdict in a few lines."""
    found = result.difference
    print(f"{result.left} - {result.right}, {result.architecture}, {result.precision}, {result.mode}")
    for line in result.notes:
        print(f"  {line}")
    if found is None:
        print(f"  no difference: {', '.join(result.phases)} agree")
    else:
        place = f"layer '{found.layer}'" if found.layer else "no layer of its own"
        print(f"  first difference: {place}, phase {found.phase}")
        print(f"  shown by: {found.check.name}: {describe(result)}")
        if found.note:
            print(f"  note: {found.note}")
        if found.at_fault and REFERENCE not in (result.left, result.right):
            print(f"  departs from the reference: {', '.join(found.at_fault)}")
        print(f"  likely cause: {found.cause or 'none of the catalogue fits'}")
    for phase, reason in result.not_run.items():
        print(f"  not run: {phase} ({reason})")


def describe(result: Result) -> str:
    """By how much, and what was allowed."""
    assert result.difference is not None
    check = result.difference.check
    return check.problem or (
        f"differs by {check.difference:.3e}, allowed {check.budget:.3e}, largest value {check.scale:.3e}"
    )


def as_dict(result: Result) -> dict[str, Any]:
    """The verdict as JSON has it."""
    from triptych.conformance.suite import check_dict

    found = result.difference
    difference = None
    if found is not None:
        difference = {
            "layer": found.layer,
            "phase": found.phase,
            "cause": found.cause or None,
            "at_fault": list(found.at_fault),
            "note": found.note,
            **{key: value for key, value in check_dict(found.check).items() if key not in ("level", "passed")},
        }
    return {
        "left": result.left,
        "right": result.right,
        "arch": result.architecture,
        "mode": result.mode,
        "precision": result.precision,
        "phases": list(result.phases),
        "not_run": result.not_run,
        "notes": list(result.notes),
        "agree": found is None,
        "difference": difference,
    }
