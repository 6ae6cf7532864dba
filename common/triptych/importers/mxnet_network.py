"""A network of MXNet's, from its symbol file and its parameter file, as a spec and canonical weights, without MXNet.

`load` is for files, `convert` for a graph and arrays that are there. What cannot be taken over is refused with the node
and its operator; what the file says otherwise than the spec, or does not say at all, becomes a remark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers import mxnet_symbol
from triptych.importers.assemble import assemble
from triptych.importers.moves import as_map, output_remark
from triptych.importers.mxnet_arithmetic import ARITHMETIC
from triptych.importers.mxnet_calls import Building, Constant, DoesNotFitError, Source, SymbolCall, refusal
from triptych.importers.mxnet_json import VARIABLE, Entry
from triptych.importers.mxnet_layers import LAYERS
from triptych.importers.mxnet_part import Input, SymbolPart, data, listed
from triptych.importers.mxnet_placement import PLACEMENT
from triptych.importers.mxnet_pooling import POOLS
from triptych.importers.mxnet_symbol import Symbol, SymbolNode
from triptych.importers.mxnet_tensors import SymbolTensor
from triptych.importers.steps import Imported, ImportRefusedError, Request, needed
from triptych.spec.layers import INPUT
from triptych.utils.errors import TriptychError, unknown
from triptych.weights.formats import mxnet_params

CONVERTERS = {**LAYERS, **POOLS, **PLACEMENT, **ARITHMETIC}
_SOFTMAX = {"SoftmaxOutput": "softmax", "log_softmax": "log_softmax"}  # of no layer; others end a network like any
_PASS = ("_copy", "_np_copy", "_npi_copy", "BlockGrad")
_FIXED = "Constant_"  # begins the initializer that Gluon's own constants have (gluon/parameter.py)
_MOST_DENSE = 10  # times the file, of arrays that are sparse in it

Built = tuple[Building, list[str]]  # the steps, and the names of those that are outputs


def load(symbol_path: Path, params_path: Path | None, request: Request) -> Imported:
    """The network of a symbol file (MXNet 0.8 to 2.0) and, where there is one, its parameter file.

    The outputs are the symbol's heads, or the nodes that `request.outputs` names. The input is `request.input`, else
    what the symbol states, else found: the channels by the first layer, the size by the dense layers among the usual
    ones. Raises ImportRefusedError for a node that the spec cannot express, and TriptychError for files that are
    damaged or belong to different networks; the message names node or array, shapes, and the way out.
    """
    arrays = None if params_path is None else read_arrays(params_path)
    return load_arrays(symbol_path, arrays, request, params_path)


def load_arrays(
    symbol_path: Path, arrays: Source | None, request: Request, params_path: Path | None = None
) -> Imported:
    """As `load`, with arrays by name in place of those in `params_path`, which names their source in messages."""
    symbol = mxnet_symbol.read(symbol_path)
    name = symbol_path.name.removesuffix(".json").removesuffix("-symbol")
    return convert(symbol, arrays, request, name=name, files=(str(symbol_path), str(params_path)))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a parameter file by name, `arg:` and `aux:` taken off; what has 16 bits is widened to 32. Raises
    TriptychError for arrays that are no floating-point numbers, and for sparse ones that would not fit in memory."""
    arguments, auxiliary = mxnet_params.split_prefixes(mxnet_params.read(path))
    allowed = _MOST_DENSE * path.stat().st_size
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in {**arguments, **auxiliary}.items():
        if array.dtype.kind != "f":
            raise TriptychError(f"{path}: array {name!r} has the type {array.dtype}, expected floating-point numbers")
        if not isinstance(array, np.ndarray):
            allowed -= math.prod(array.shape) * array.dtype.itemsize
            if allowed < 0:
                raise TriptychError(f"{path}: array {name!r} is sparse and, made dense, far larger than the file")
        dense = np.asarray(array)
        arrays[name] = dense.astype(np.float32) if dense.dtype.itemsize == 2 else dense
    return arrays


def blank_arrays(symbol_path: Path, request: Request) -> dict[str, NDArray[np.float32]]:
    """Arrays of the shapes that a symbol needs, as `read_arrays` has those of a file, for the input that is requested:
    zeros, and ones where a scale is fixed. Raises as `load` does."""
    part, _ = _part(mxnet_symbol.read(symbol_path), None, request, (str(symbol_path), "None"))
    assert request.input is not None
    building, _ = _built(part, request.input)
    return {name: np.full(shape, value, np.float32) for name, (shape, value) in building.blank.items()}


def _part(
    symbol: Symbol,
    arrays: Source | None,
    request: Request,
    files: tuple[str, str],
    parameters: Mapping[str, NDArray[Any] | None] | None = None,
) -> tuple[SymbolPart, list[str]]:
    """What the requested outputs need, and remarks on what is otherwise in it."""
    remarks: list[str] = []
    heads = _named(symbol, request.outputs, files[0]) if request.outputs else symbol.heads
    bare = dict.fromkeys(_without_softmax(symbol, head, request.keep_softmax, remarks) for head in heads)
    part = SymbolPart(symbol, arrays, files, tuple(bare), parameters or {})
    _check_operators(part)
    return part, [*remarks, *part.check()]


def convert(
    symbol: Symbol,
    arrays: Source | None,
    request: Request,
    *,
    name: str,
    files: tuple[str, str],
    parameters: Mapping[str, NDArray[Any] | None] | None = None,
) -> Imported:
    """As `load`, of a symbol and arrays by name; `files` names the two in messages. `parameters`: which variables are
    no images, with their values as far as they have some."""
    part, remarks = _part(symbol, arrays, request, files, parameters)
    shape, (building, outputs) = _fitted(part, request.input or part.stated_input(), remarks)
    wanted = needed({step.name: step.inputs for step in building.steps}, outputs)
    if shared := [variable for variable, count in building.uses.items() if count > 1]:
        remarks.append(f"layers share {listed(shared)}; here each has a copy, and training would part them")
    return assemble(
        [step for step in building.steps if step.name in wanted],
        list(dict.fromkeys(outputs)),
        request,
        name=name,
        source=f"{Path(files[0]).name}, MXNet {'.'.join(map(str, symbol.version))}",
        input_shape=shape,
        remarks=[*remarks, *dict.fromkeys(building.remarks)],
    )


def _named(symbol: Symbol, names: Iterable[str], file: str) -> list[Entry]:
    """The outputs called `node`, or as MXNet calls them: `node_output`, `node_output1`."""
    places = {node.name: index for index, node in enumerate(symbol.nodes) if node.operator != VARIABLE}
    entries = []
    for name in names:
        node, _, number = name.rpartition("_output")
        if name in places:
            entries.append((places[name], 0))
        elif node in places and (not number or (number.isdecimal() and len(number) < 5)):
            entries.append((places[node], int(number or 0)))
        else:
            raise TriptychError(f"{file}: {unknown('node', name, list(places)[-9:])} (the last ones)")
    return entries


def _without_softmax(symbol: Symbol, entry: Entry, keep: bool, remarks: list[str]) -> Entry:
    """What a softmax at the end is of, unless it is to be kept; what passes its input on is left out, too."""
    while True:
        node = symbol.nodes[entry[0]]
        if node.operator in _SOFTMAX and not keep and not node.values.get("temperature"):
            remarks.append(
                f"the {_SOFTMAX[node.operator]} {node.name!r} ({node.operator}) at the end is taken off: the output is "
                "what it is given; --keep-softmax keeps it"
            )
        elif node.operator not in _PASS:
            return entry
        entry = node.inputs[0]


def _check_operators(part: SymbolPart) -> None:
    for _, node in part.nodes:
        if node.operator not in CONVERTERS:
            known = ", ".join(sorted(name for name in CONVERTERS if not name.startswith("_np")))
            raise refusal(part.files[0], node, f"is of an operator that cannot be imported (known: {known})")


def _fitted(part: SymbolPart, said: Input | None, remarks: list[str]) -> tuple[Input, Built]:
    """What is built for the input that is said, else for the first usual one that fits."""
    if said is not None:
        return said, _built(part, said)
    found: tuple[Input, Built] | None = None
    error: DoesNotFitError | None = None
    for shape in part.likely_inputs():
        try:
            built = _built(part, shape)
        except DoesNotFitError as problem:
            error = error or problem
            continue
        if found is not None:
            remarks.append(f"the input {_by(found[0])} is assumed: nothing in the file says it; --input gives another")
            return found
        found = shape, built
    if found is None:
        raise ImportRefusedError(f"{error}; no other usual size fits")
    remarks.append(f"the input {_by(found[0])} is the usual one that fits the dense layers; the file does not say it")
    return found


def _by(shape: Input) -> str:
    return "x".join(map(str, shape))


def _built(part: SymbolPart, shape: Input) -> Built:
    """The steps of all nodes, and the names of those that the heads come from."""
    building = Building(part.symbol, part.arrays, part.files, {INPUT: shape}, part.stated_shapes)
    building.names |= {INPUT, *(node.name for node in part.symbol.nodes)}
    results: dict[Entry, SymbolTensor] = {}
    for index, node in part.nodes:
        call = SymbolCall(building, _renamed(building, node), tuple(_inputs(part, node, shape, results)))
        converted = CONVERTERS[node.operator](call)
        outputs = [converted] if isinstance(converted, SymbolTensor) else converted
        results |= {(index, number): tensor for number, tensor in enumerate(outputs)}
    return building, [_output(part, building, head, results) for head in part.heads]


def _renamed(building: Building, node: SymbolNode) -> SymbolNode:
    """A node called as the spec calls the input gets another name."""
    return replace(node, name=building.unique(INPUT)) if node.name == INPUT else node


def _inputs(
    part: SymbolPart, node: SymbolNode, shape: Input, results: Mapping[Entry, SymbolTensor]
) -> Iterator[SymbolTensor | Constant]:
    for entry in data(node):
        source = part.symbol.nodes[entry[0]]
        if source.operator == VARIABLE:
            array, fixed = part.array(source.name), source.attributes.get("__init__", "").startswith(_FIXED)
            yield SymbolTensor(INPUT, shape) if array is None else Constant(source.name, array, fixed)
        elif entry in results:
            yield results[entry]
        else:
            raise ImportRefusedError(
                f"{part.files[0]}: node {node.name!r} ({node.operator}) takes output {entry[1]} of {source.name!r} "
                f"({source.operator}), which the spec does not have"
            )


def _output(part: SymbolPart, building: Building, head: Entry, results: Mapping[Entry, SymbolTensor]) -> str:
    node = part.symbol.nodes[head[0]]
    if head not in results:
        raise ImportRefusedError(
            f"{part.files[0]}: output {head[1]} of {node.name!r} ({node.operator}) is none that the spec has"
        )
    call, tensor = SymbolCall(building, node, ()), results[head]
    if (shape := as_map(tensor.shape)) != tensor.shape:
        building.remarks.append(output_remark(node.name, tensor.shape))
        tensor = tensor.viewed(shape, tensor.label)
    step = call.plain(tensor).step
    if step == INPUT:
        raise ImportRefusedError(
            f"{part.files[0]}: the output {node.name!r} is the input itself, with no layer between"
        )
    return step
