"""Steps to an architecture and its canonical parameters: cleaned, folded, named, and checked against the arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.cleanup import PASSES, Network, trailing_softmax, without_unneeded
from triptych.importers.fold import fold
from triptych.importers.names import named
from triptych.importers.steps import Imported, Request, Step
from triptych.spec.analysis import parameters
from triptych.spec.kinds.composites import merged_shape
from triptych.spec.kinds.kind import SpecError, Wire
from triptych.spec.layers import INPUT, Architecture, Auxiliary, Block, Primitive, Shape, join
from triptych.spec.shapes import layer_output, output_shapes
from triptych.utils.errors import TriptychError, check_known

ASSUMED_INPUT = (3, 224, 224)


def assemble(
    steps: Sequence[Step],
    outputs: Sequence[str],
    request: Request,
    *,
    name: str,
    source: str,
    input_shape: tuple[int, int, int] | None,
    remarks: Sequence[str] = (),
) -> Imported:
    """The network of these steps, which ends in those called `outputs`. `name` of the architecture, where the request
    has none; `source`: the file or module, for the spec and for errors; `input_shape` as the source says it. Raises
    TriptychError, with the step's own name, for layers that do not fit on each other, for arrays that do not fit the
    layers, and where some arrays are missing: all or none must be there."""
    if not outputs:
        raise TriptychError(f"{source} has no outputs; name one (--output)")
    check_known(f"output of {source}", outputs, {step.name for step in steps})
    shape = request.input or input_shape or ASSUMED_INPUT
    lines = list(remarks)
    if not (request.input or input_shape):
        lines.append(f"the source does not say its input; {_text(shape)} is assumed (--input)")
    network = without_unneeded(Network(tuple(steps), tuple(dict.fromkeys(outputs))))
    if not request.keep_softmax:
        network, taken_off = _without_softmax(network)
        lines += taken_off
    shapes = _shapes(network, shape, source)
    for clean in PASSES:
        network = clean(network, shapes)
    if INPUT in network.outputs:
        raise TriptychError(f"{source}: an output of it is its input, and there is no layer between")
    layers, paths = named(fold(network.steps, network.outputs), [s.name for s in network.steps if _is_whole(s)])
    architecture = Architecture(request.name or name, shape, _classes(network, shapes), layers, source=source)
    output_shapes(architecture)
    return Imported(architecture, _arrays(network, architecture, paths, source), tuple(lines))


def _text(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _is_whole(step: Step) -> bool:
    """Whether it brings a composite, which is not looked into."""
    return not isinstance(step.layer, Primitive) and step.layer != Block(step.layer.name, ())


def _without_softmax(network: Network) -> tuple[Network, list[str]]:
    ends = trailing_softmax(network)
    lines = [f"softmax {step.name!r} at the end is taken off (--keep-softmax keeps it)" for step in ends]
    return network.without({step.name: step.inputs[0] for step in ends}), lines


def _shapes(network: Network, shape: Shape, source: str) -> dict[str, Shape]:
    """The output shape of every step. Raises TriptychError with the name of the step that does not fit."""
    shapes = {INPUT: shape}
    for step in network.steps:
        try:
            merged = merged_shape(Wire((), step.merge), [shapes[name] for name in step.inputs], step.name)
            output = layer_output(step.layer, merged, step.name)
        except SpecError as error:
            raise _refusal(source, step, f"{error.problem} (the network's input is {_text(shape)})") from None
        shapes[step.name] = merged if isinstance(step.layer, Auxiliary) else output
    return shapes


def _refusal(source: str, step: Step, problem: str) -> TriptychError:
    return TriptychError(f"{source}: node {step.name!r} ({type(step.layer).__name__}): {problem}")


def _classes(network: Network, shapes: Mapping[str, Shape]) -> int:
    """The features of the one output, if they are flat; else 0, as of every network without classes."""
    ends = [shapes[name] for name in network.outputs]
    return ends[0][0] if len(ends) == 1 and len(ends[0]) == 1 else 0


def _arrays(
    network: Network, architecture: Architecture, paths: Mapping[str, str], source: str
) -> dict[str, NDArray[Any]] | None:
    """The arrays by their canonical paths, in the order of execution; None if there are none at all."""
    if not any(step.arrays for step in network.steps):
        return None
    given = {join(paths[step.name], name): (step, name) for step in network.steps for name in step.arrays}
    arrays: dict[str, NDArray[Any]] = {}
    owners = {paths[step.name]: step for step in network.steps if step.name in paths}
    for info in parameters(architecture):
        if info.path not in given:
            raise _missing(info.path, info.shape, owners, source)
        step, name = given.pop(info.path)
        arrays[info.path] = array = _canonical(step.arrays[name])
        if array.shape != info.shape:
            raise _refusal(source, step, f"its array {name} has the shape {array.shape}, expected {info.shape}")
    for step, name in given.values():
        raise _refusal(source, step, f"it has an array {name}, of which the layer knows nothing")
    return arrays


def _canonical(array: Any) -> NDArray[Any]:
    """As it is, if it has single or double precision; half precision becomes single, which is exact."""
    values: NDArray[Any] = np.asarray(array)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


def _missing(path: str, shape: Shape, owners: Mapping[str, Step], source: str) -> TriptychError:
    owner = path
    while owner and owner not in owners:
        owner = owner.rpartition(".")[0]
    name = path.removeprefix(f"{owner}.")
    return _refusal(source, owners[owner], f"its array {name} of shape {shape} is missing; give all arrays, or none")
