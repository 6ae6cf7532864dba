"""Runs of MXNet's symbols, to compare what is imported of them with MXNet itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.steps import Imported
from triptych.reference import network

Arrays = dict[str, NDArray[Any]]

MODELS = next(
    (folder for parent in Path(__file__).parents if (folder := parent / "shared/data/models").is_dir()),
    Path("no models"),
)


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
            positive = name.endswith("var") or name.endswith("gamma")
            arrays[name] = random.uniform(0.5, 1.5, size) if positive else random.normal(size=size) * spread
    return arrays


def run_mxnet(symbol: Any, arrays: Mapping[str, NDArray[Any]], x: NDArray[Any], train: bool, dtype: str) -> Run:
    """By MXNet, with the cotangents of `cotangents`; labels are 0."""
    import mxnet as mx

    def held(array: NDArray[Any]) -> Any:
        return mx.nd.array(array, dtype=dtype)

    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=x.shape)[0], strict=True))
    values = {name: held(x if name == "data" else arrays.get(name, np.zeros(shapes[name]))) for name in shapes}
    gradients = {name: mx.nd.zeros(value.shape, dtype=dtype) for name, value in values.items()}
    states = {name: held(arrays[name]) for name in symbol.list_auxiliary_states()}
    executor = symbol.bind(mx.cpu(), values, args_grad=gradients, grad_req="write", aux_states=states)
    executor.forward(is_train=train)
    outputs = [output.asnumpy() for output in executor.outputs]
    if train:
        executor.backward([held(each) for each in cotangents(outputs)])
    return Run(
        outputs,
        {name: gradient.asnumpy() for name, gradient in gradients.items()} if train else {},
        {name: state.asnumpy() for name, state in executor.aux_dict.items()},
    )


def run_reference(imported: Imported, x: NDArray[Any], train: bool) -> Run:
    """By the reference, in float64, under the spec's names."""
    run = network.forward(imported.architecture, imported.parameters or {}, x, train=train)
    outputs = [run.logits, *(run.outputs[path] for path in run.heads[1:])]
    gradients = network.backward(run, cotangents(outputs))[1] if train else {}
    return Run(outputs, gradients, run.statistics)


def distance(one: NDArray[Any], other: NDArray[Any], scale: float | None = None) -> float:
    """The largest difference relative to the largest value."""
    assert one.shape == other.shape
    assert np.isfinite(one).all()
    scale = float(np.abs(other).max()) if scale is None else scale
    return float(np.abs(np.asarray(one, np.float64) - other).max()) / (scale or 1.0)


def partner(imported: Imported, array: NDArray[Any]) -> tuple[str, NDArray[np.intp]]:
    """The canonical array of the same values, and for each of its values the place in `array`; drawn values are all
    different, so that they tell, wherever they were moved to."""
    values = np.sort(array, axis=None)
    for path, canonical in (imported.parameters or {}).items():
        if canonical.size == array.size and np.array_equal(np.sort(canonical, axis=None), values):
            places = np.empty(array.size, np.intp)
            places[np.argsort(canonical, axis=None)] = np.argsort(array, axis=None)
            return path, places.reshape(canonical.shape)
    raise AssertionError(f"no canonical array has these values of shape {array.shape}")


def largest_distance(imported: Imported, arrays: Mapping[str, NDArray[Any]], theirs: Run, ours: Run) -> float:
    """Over outputs, gradients and statistics, each relative to its own largest value."""
    assert len(theirs.outputs) == len(ours.outputs)
    distances = [distance(one, other) for one, other in zip(theirs.outputs, ours.outputs, strict=True)]
    if theirs.gradients:
        distances.append(distance(theirs.gradients["data"], ours.gradients["input"]))
        for name, array in arrays.items():
            is_state = name in theirs.statistics
            expected = (theirs.statistics if is_state else theirs.gradients)[name]
            if not is_state and not expected.any():
                continue  # a scale that is fixed: there is none in the spec
            path, places = partner(imported, array)
            given = (ours.statistics if is_state else ours.gradients)[path]
            distances.append(distance(expected.ravel()[places], given))
    return max(distances)
