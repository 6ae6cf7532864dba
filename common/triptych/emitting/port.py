"""Somebody's network as a folder of native source, weights and proof: what `triptych port` writes, and checks again.

FOLDER/architecture.json         the spec
FOLDER/model.safetensors         its weights under canonical names
FOLDER/BACKEND/model.py          one source file of the framework, which needs nothing of triptych
FOLDER/BACKEND/model.safetensors the weights, as the function `load` in it takes them
FOLDER/port.html                 network and source in columns beside each other (written by the command)
FOLDER/README.md                 how to load them, what was remarked, what was compared and what not
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from triptych import __version__
from triptych.backend import registry
from triptych.backend.contract import PortAdapter
from triptych.backend.execution import exact
from triptych.conformance.compare import Check, compare, worst
from triptych.conformance.locate import Located
from triptych.emitting.emit import dialect_of, emit
from triptych.importers.steps import Imported
from triptych.porting.own_network import Own, compare_with, without_dropout
from triptych.reference import network as reference
from triptych.spec import records
from triptych.spec.layers import Architecture, outputs
from triptych.utils.errors import TriptychError
from triptych.utils.files import write_atomically
from triptych.utils.randomness import generator
from triptych.weights import initializers, store

SPEC, WEIGHTS, SOURCE = "architecture.json", "model.safetensors", "model.py"
EXACT = 1e-12  # of the scale: in float64 a larger difference is a bug
Parameters = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Ported:
    """What became of one backend's files: the search for a difference between the network in them and the spec, given
    drawn weights (`located`), and of its outputs with the weights in the folder the check nearest to its budget."""

    backend: str
    located: Located
    own_weights: Check

    @property
    def passed(self) -> bool:
        """No difference at any level, and the same outputs with its own weights."""
        return self.located.difference is None and self.own_weights.passed


def write(imported: Imported, backends: Sequence[str], folder: Path) -> None:
    """The new `folder`, without a check. Weights that the source does not have are drawn. Raises TriptychError if the
    folder is there already, or a backend is not."""
    architecture = imported.architecture
    emitted = [emit(architecture, backend) for backend in backends]
    own = imported.parameters
    parameters = initializers.draw(architecture, 0) if own is None else {p: np.asarray(v) for p, v in own.items()}
    if folder.exists():
        raise TriptychError(f"--out {folder} is there already; give another name, or --check-only for what is in it")
    folder.mkdir(parents=True)
    write_atomically(folder / SPEC, records.write(architecture).encode())
    store.save(folder / WEIGHTS, parameters)
    for one in emitted:
        (folder / one.backend).mkdir()
        write_atomically(folder / one.backend / SOURCE, one.source.encode())
        state = {name: np.ascontiguousarray(value) for name, value in one.state(parameters).items()}
        write_atomically(folder / one.backend / WEIGHTS, safetensors.numpy.save(state))


def backends_in(folder: Path) -> list[str]:
    """The backends whose files lie in a folder that `write` has made. Raises TriptychError if it is none."""
    names = [name for name in registry.BACKENDS if (folder / name / SOURCE).is_file()]
    if not names or not (folder / SPEC).is_file():
        raise TriptychError(f"{folder} is no folder that `triptych port` has written")
    return names


def check(folder: Path, backend: str) -> Ported:
    """Whether the network in the files of one backend, as they lie there, is that of the spec beside them."""
    architecture = records.decode(records.parse((folder / SPEC).read_bytes()), Architecture)
    parameters = store.load(folder / WEIGHTS)
    store.check_fit(architecture, parameters)
    layout = "NHWC" if dialect_of(backend).channels_last else "NCHW"
    name = f"{folder.name}/{backend}"
    adapter = cast(PortAdapter, importlib.import_module(f"{registry.BACKENDS[backend].package}.port"))
    framework = registry.load(backend)
    with framework.precise():
        own = _own_weights(_load(folder, backend), adapter, layout, architecture, parameters)
        port = Own(
            name,
            lambda count: adapter.Port(_load(folder, backend), layout, exact("fp64"), count),
            framework,
            layout,
        )
        return Ported(backend, compare_with(port, architecture).located, own)


def _load(folder: Path, backend: str) -> Any:
    """The network that `load` in the source makes of the weights beside it."""
    path = folder / backend / SOURCE
    spec = importlib.util.spec_from_file_location(f"ported_{backend}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a module looks for its own annotations
    try:
        spec.loader.exec_module(module)
        return module.load(str(folder / backend / WEIGHTS))
    except (Exception, SystemExit) as error:
        raise TriptychError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error


def _own_weights(
    network: Any, adapter: PortAdapter, layout: str, architecture: Architecture, parameters: Parameters
) -> Check:
    """Its outputs in evaluation with the weights in its folder, against the reference's with the canonical ones."""
    images = generator(0, "port", "images").standard_normal((2, *architecture.input))
    run = reference.forward(without_dropout(architecture), parameters, images)
    names = outputs(architecture)
    expected = {name: run.outputs[name] for name in names}
    port = adapter.Port(network, layout, exact("fp64"), len(names))
    port.parameters(images)
    observed = dict(zip(names, port.run(images, train=False).outputs, strict=True))
    budgets = {name: EXACT * float(np.abs(value).max()) for name, value in expected.items()}
    nearest = worst(compare("outputs", expected, observed, budgets))
    assert nearest is not None
    return nearest


def read_me(imported: Imported, ported: Sequence[Ported], source: str) -> str:
    """The folder's README: how to load, what was remarked, what was compared and what not."""
    architecture = imported.architecture
    shape = "x".join(map(str, architecture.input))
    lines = [
        f"# {architecture.name}",
        "",
        f"Ported from {source} by triptych {__version__}: images of {shape} (channels, height, width). What the images "
        "are normalised by is not known here, unless it is a layer of the network.",
        "",
        "In the folder of a framework (not above it, where `import torch` would find the folder):",
        "",
        f"    from {Path(SOURCE).stem} import load",
        "",
        f"    network = load('{WEIGHTS}')",
        "",
        "## Compared",
        "",
        *(f"- {one.backend}: {text}" for one in ported for text in result(one)),
        "- not run: optimisers (a file of source brings none), dropout (drawn by each framework), accuracy",
        "",
        "Again, of the files as they lie here: `triptych port --check-only FOLDER`.",
    ]
    remarks = ["", "## Remarked", "", *(f"- {remark}" for remark in imported.remarks)] if imported.remarks else []
    drawn = ["", "The source has no weights: those here are drawn."] if imported.parameters is None else []
    return "\n".join([*lines, *remarks, *drawn]) + "\n"


def result(one: Ported) -> list[str]:
    """What the checks of a backend gave, a line each."""
    difference = one.located.difference
    levels = ", ".join(one.located.levels)
    first = f"{levels} agree with the float64 reference on drawn weights"
    if difference is not None:
        cause = f"; likely cause: {difference.cause}" if difference.cause else ""
        first = f"DIFFERS at layer '{difference.layer}', level {difference.level}: {difference.check.text}{cause}"
    word = "the reference's outputs" if one.own_weights.passed else "DIFFERS in its outputs"
    second = f"{word} with the weights in its folder: {one.own_weights.text}"
    return [first, second]
