"""Runs of MXNet's symbols, to compare what is imported of them with MXNet itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.mxnet_symbol import Symbol
from triptych.importers.steps import Imported
from triptych.reference import network

Arrays = dict[str, NDArray[Any]]

MODELS = next(
    (folder for parent in Path(__file__).parents if (folder := parent / "shared/data/models").is_dir()),
    Path("no models"),
)


GLUON_ZOO = (
    *(f"resnet{depth}_v{version}" for version in (1, 2) for depth in (18, 34, 50, 101, 152)),
    *(f"vgg{depth}{bn}" for bn in ("", "_bn") for depth in (11, 13, 16, 19)),
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    *(f"mobilenet{version}{width}" for version in ("", "v2_") for width in ("1.0", "0.75", "0.5", "0.25")),
    *("alexnet", "inceptionv3", "squeezenet1.0", "squeezenet1.1"),
)
# Pixels: what ends in a pool or a dense layer of a fixed size needs its own; others are as small as batch norm allows.
_PIXELS = {"inceptionv3": 299, "squeezenet": 224, "densenet": 224, "vgg": 32}


def gluon_input(name: str) -> tuple[int, int, int, int]:
    """A small batch for a network of Gluon's zoo."""
    pixels = next((size for start, size in _PIXELS.items() if name.startswith(start)), 64)
    return (2 if pixels > 64 else 4, 3, pixels, pixels)


@dataclass(frozen=True, eq=False)
class Run:
    """What a network gave: its outputs, the gradients of its arrays and its input, its statistics after the batch."""

    outputs: Sequence[NDArray[Any]]
    gradients: Mapping[str, NDArray[Any]]
    statistics: Mapping[str, NDArray[Any]]


def cotangents(outputs: Sequence[NDArray[Any]], seed: int = 3) -> tuple[NDArray[Any], ...]:
    random = np.random.default_rng(seed)
    return tuple(random.normal(size=output.shape) for output in outputs)


def draw(symbol: Any, shape: tuple[int, ...], seed: int = 1) -> Arrays:
    """Random arrays for everything but `data` and labels: different in every value, variances positive."""
    random = np.random.default_rng(seed)
    shapes, _, auxiliary = symbol.infer_shape(data=shape)
    named = dict(zip(symbol.list_arguments(), shapes, strict=True))
    named |= dict(zip(symbol.list_auxiliary_states(), auxiliary, strict=True))
    arrays = {}
    for name, size in named.items():
        if name != "data" and not name.endswith("label"):
            spread = 1 / np.sqrt(max(np.prod(size[1:]), 1)) if len(size) > 1 else 0.3
            positive = name.endswith(("var", "gamma"))
            arrays[name] = random.uniform(0.5, 1.5, size) if positive else random.normal(size=size) * spread
    return arrays


def bare_outputs(symbol: Any, parsed: Symbol) -> Any:
    """MXNet's symbol with the outputs that are imported: a softmax at the end taken off."""
    import mxnet as mx

    outputs = []
    for head, _ in parsed.heads:
        last = parsed.nodes[head]
        bare = parsed.nodes[last.inputs[0][0]] if last.operator.startswith("Softmax") else last
        outputs.append(symbol.get_internals()[f"{bare.name}_output"])
    return mx.sym.Group(outputs)


def run_mxnet(symbol: Any, arrays: Mapping[str, NDArray[Any]], x: NDArray[Any], train: bool, dtype: str) -> Run:
    """By MXNet, with the cotangents of `cotangents`; labels are 0.

    Node by node, as Gluon runs a block that is not hybridized: in a whole graph MXNet 1.9.1 gives gradients of PReLU's
    slopes that are multiplied by the slopes, because the layer's two gradients share memory.
    """
    import mxnet as mx

    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=x.shape)[0], strict=True))
    given = {name: x if name == "data" else arrays.get(name, np.zeros(size)) for name, size in shapes.items()}
    given |= {name: arrays[name] for name in symbol.list_auxiliary_states()}
    values = {name: mx.nd.array(array, dtype=dtype) for name, array in given.items()}
    for name in shapes:
        values[name].attach_grad()
    with mx.autograd.record(train_mode=train):
        outputs = _node_by_node(json.loads(symbol.tojson()), values, mx)
    found = [output.asnumpy() for output in outputs]
    if train:
        mx.autograd.backward(outputs, [mx.nd.array(each, dtype=dtype) for each in cotangents(found)])
    return Run(
        found,
        {name: values[name].grad.asnumpy() for name in shapes} if train else {},
        {name: values[name].asnumpy() for name in symbol.list_auxiliary_states()},
    )


def _node_by_node(graph: Any, variables: Mapping[str, Any], mx: Any) -> list[Any]:
    results: list[list[Any]] = []
    for node in graph["nodes"]:
        if node["op"] == "null":
            results.append([variables[node["name"]]])
            continue
        inputs = [results[index][output] for index, output, *_ in node["inputs"]]
        names = [{"op": "null", "name": f"input{place}", "inputs": []} for place in range(len(inputs))]
        alone = node | {"inputs": [[place, 0, 0] for place in range(len(inputs))]}
        text = {"nodes": [*names, alone], "arg_nodes": list(range(len(inputs))), "heads": [[len(inputs), 0, 0]]}
        number = len(mx.sym.load_json(json.dumps(graph | text)).get_internals().list_outputs()) - len(inputs)
        text["heads"] = [[len(inputs), output, 0] for output in range(number)]
        result = mx.nd.CachedOp(mx.sym.load_json(json.dumps({"attrs": graph["attrs"]} | text)))(*inputs)
        results.append(list(result) if isinstance(result, (list, tuple)) else [result])
    return [results[index][output] for index, output, *_ in graph["heads"]]


def run_reference(imported: Imported, x: NDArray[Any], train: bool) -> Run:
    """By the reference, in float64, under the spec's names."""
    run = network.forward(imported.architecture, imported.parameters or {}, x, train=train)
    outputs = [run.logits, *(run.outputs[path] for path in run.heads[1:])]
    per_image = tuple(len(x) * each for each in cotangents(outputs))  # the reference's loss is a mean over the images
    gradients = network.backward(run, per_image)[1] if train else {}
    return Run(outputs, gradients, run.statistics)


def distance(one: NDArray[Any], other: NDArray[Any], least: float = 0.0) -> float:
    """The largest difference relative to the largest value, which counts as `least` at least."""
    assert one.shape == other.shape
    assert np.isfinite(one).all()
    scale = max(float(np.abs(other).max()), least)
    return float(np.abs(np.asarray(one, np.float64) - other).max()) / (scale or 1.0)


def partner(imported: Imported, array: NDArray[Any]) -> tuple[str, NDArray[np.intp]]:
    """The canonical array of the same values, and for each of its values the place in `array`; drawn values are all
    different, so that they tell, wherever they were moved to."""
    for path, canonical in (imported.parameters or {}).items():
        if canonical.size != array.size or canonical.max() != array.max() or canonical.min() != array.min():
            continue
        if np.array_equal(canonical, array):
            return path, np.arange(array.size).reshape(array.shape)
        places = np.empty(array.size, np.intp)
        places[np.argsort(canonical, axis=None)] = np.argsort(array, axis=None)
        if np.array_equal(array.ravel()[places], canonical.ravel()):
            return path, places.reshape(canonical.shape)
    raise AssertionError(f"no canonical array has these values of shape {array.shape}")


def largest_distance(imported: Imported, arrays: Mapping[str, NDArray[Any]], theirs: Run, ours: Run) -> float:
    """Over outputs, gradients and statistics, each relative to its own largest value; of a gradient that is 0 but for
    rounding (a bias before a batch norm) relative to a thousandth of the largest of all."""
    assert len(theirs.outputs) == len(ours.outputs)
    distances = [distance(one, other) for one, other in zip(theirs.outputs, ours.outputs, strict=True)]
    if not theirs.gradients:
        return max(distances)
    least = max(float(np.abs(gradient).max()) for gradient in theirs.gradients.values()) / 1000
    distances.append(distance(theirs.gradients["data"], ours.gradients["input"], least))
    for name, array in arrays.items():
        is_state = name in theirs.statistics
        expected = (theirs.statistics if is_state else theirs.gradients)[name]
        if name.endswith("gamma") and not expected.any():
            continue  # a scale that is fixed: the spec has none
        path, places = partner(imported, array)
        given = (ours.statistics if is_state else ours.gradients)[path]
        distances.append(distance(expected.ravel()[places], given, 0.0 if is_state else least))
    return max(distances)
