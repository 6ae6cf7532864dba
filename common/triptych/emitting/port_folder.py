"""Somebody's network as a folder of native source, weights and proof: what `triptych port` writes.

FOLDER/architecture.json         the spec
FOLDER/model.safetensors         its weights under canonical names
FOLDER/BACKEND/model.py          one source file of the framework, which needs nothing of triptych
FOLDER/BACKEND/model.safetensors the weights, as the function `load` in it takes them
FOLDER/port.html                 network and source in columns beside each other (written by the command)
FOLDER/certificate.json          what was compared, for `triptych verify`
FOLDER/README.md                 how to load them, what was remarked, what was compared and what not
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from triptych import __version__
from triptych.backend import registry
from triptych.conformance.compare import failures
from triptych.emitting import port_check
from triptych.emitting.emit import dialect_of, emit
from triptych.emitting.port_check import Ported
from triptych.emitting.port_reference import PortReference
from triptych.importers.steps import Imported
from triptych.porting import source_network, strangers
from triptych.spec import records
from triptych.spec.layers import Architecture, BatchNorm, walk
from triptych.training import models
from triptych.utils.errors import TriptychError
from triptych.utils.files import write_atomically
from triptych.utils.process import return_large_memory
from triptych.utils.shelf import Shelf
from triptych.weights import initializers, store

SPEC, WEIGHTS, SOURCE = "architecture.json", "model.safetensors", "model.py"
CERTIFICATE, README, PAGE = "certificate.json", "README.md", "port.html"
NEVER = {
    "dropout": "each framework draws its own masks; it was switched off",
    "auxiliary classifiers": "compared in `triptych conform` only",
    "other optimisers": "a file of source brings none; the update is SGD's with momentum",
    "accuracy": "nothing was trained on data",
}


@dataclass(frozen=True)
class PortSource:
    """What was ported: its name as the user gave it, a file of weights of its own, if it has one, the object itself,
    where the name does not lead to it, and the nodes that it was to end in, if not in its own end."""

    name: str
    weights: Path | None = None
    candidate: Any = None
    ends: str | None = None


def on_the_disk(imported: Imported) -> Imported:
    """The same with its large arrays in temporary files: it is kept until the last of the networks is judged."""
    parameters = None if imported.parameters is None else cast(Any, Shelf(imported.parameters))
    return replace(imported, parameters=parameters)


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


def read(folder: Path) -> tuple[Architecture, dict[str, NDArray[Any]]]:
    """The spec and the canonical weights in a folder. Raises TriptychError if they are damaged, or do not fit."""
    try:
        architecture = records.decode(records.read(folder / SPEC), Architecture)
    except (OSError, ValueError, TriptychError) as error:
        raise TriptychError(f"{folder / SPEC} is no spec: {error}") from None
    parameters = store.load(folder / WEIGHTS)
    store.check_fit(architecture, parameters)
    return architecture, parameters


def expectation(folder: Path) -> PortReference:
    """What the networks in a folder are judged by. Raises TriptychError as `read` does."""
    return_large_memory()
    architecture, parameters = read(folder)
    return PortReference(architecture, Shelf(parameters))


def check(folder: Path, backends: Iterable[str], expect: PortReference) -> dict[str, Ported]:
    """By backend, whether the network in its files, as they lie there, is that of the spec beside them."""
    return {name: _check(folder, name, expect) for name in backends}


def _check(folder: Path, backend: str, expect: PortReference) -> Ported:
    ported = port_check.check(port_check.of_files(folder, backend, SOURCE, WEIGHTS), expect)
    if not failures(ported.checks):
        return ported
    written = emit(expect.architecture, backend).state(expect.parameters)
    return replace(ported, weights=_otherwise(folder / backend / WEIGHTS, written))


def _otherwise(file: Path, written: Mapping[str, NDArray[Any]]) -> str:
    """The first array of a file that has other values than were written, and how many more there are."""
    with safetensors.safe_open(file, "numpy") as found:
        there = set(found.keys())
        other = [
            name
            for name, value in written.items()
            if name not in there or not np.array_equal(found.get_tensor(name), value, equal_nan=True)
        ]
    return f"{other[0]} is not as it was written" + f" (and {len(other) - 1} more)" * (len(other) > 1) if other else ""


def check_source(source: PortSource, imported: Imported, expect: PortReference) -> Ported:
    """The same of the source, in its own framework. Raises TriptychError, with the reason, where that is not here."""
    if imported.parameters is None:
        raise TriptychError("it has no weights")
    if source.ends:
        raise TriptychError(f"the port ends in {source.ends}, and the source runs to its own end")
    softmax = strangers.softmax_at_the_end(imported.remarks)
    if source.candidate is None:
        network = source_network.find(source.name, source.weights, softmax)
    else:
        network = source_network.of_object(source.candidate, softmax)
    candidate = port_check.of_source(source.name, network)
    return port_check.check_source(candidate, expect)


def read_me(imported: Imported, ported: Mapping[str, Ported], not_run: Mapping[str, str], source: str) -> str:
    """The folder's README: how to load, what is expected of images, what was remarked, what was compared, what not."""
    architecture = imported.architecture
    drawn = ["the source has no weights: those here are drawn"] if imported.parameters is None else []
    whole = "x".join(map(str, architecture.input))
    lines = [
        f"# {architecture.name}",
        "",
        f"Ported from {source} by triptych {__version__}.",
        "",
        "In the folder of a framework (not above it, where `import torch` would find the folder):",
        "",
        f"    from {Path(SOURCE).stem} import load",
        "",
        f"    network = load('{WEIGHTS}')",
        "",
        "## Images",
        "",
        *_images(architecture, source, list(ported)),
        "",
        "## Otherwise than in the source",
        "",
        *(f"- {remark}" for remark in [*imported.remarks, *drawn] or ["nothing"]),
        "",
        "## Otherwise in a framework",
        "",
        *([f"- {name}: {text}" for name in ported for text in _kept_otherwise(architecture, name)] or ["- nothing"]),
        "",
        "## Compared",
        "",
        f"In float64, at the whole width. Outputs with their own weights on the full size, {whole}; layer by layer,",
        "gradients and training steps on the images that are said, on which every window ends as on the full size.",
        "",
        *(f"- {name}: {text}" for name, one in ported.items() for text in one.lines),
        *(f"- not run: {what} ({why})" for what, why in {**not_run, **NEVER}.items()),
        "",
        "Again, of the files as they lie here (it runs them): `triptych verify certificate.json`.",
    ]
    return "\n".join(lines) + "\n"


def _images(architecture: Architecture, source: str, names: Sequence[str]) -> list[str]:
    """Their size, how each framework has them laid out, and how they are normalised."""
    channels, height, width = architecture.input
    last = [name for name in names if name in registry.BACKENDS and dialect_of(name).channels_last]
    lines = [
        f"- {channels} channel{'s' * (channels > 1)}, {height} high, {width} wide: (N, {channels}, {height}, {width})"
    ]
    lines += [f"- {name}: (N, {height}, {width}, {channels})" for name in last]
    if not Path(source).is_dir():
        return [*lines, "- what their values are normalised by, the source does not say; ask whoever trained it"]
    transform = models.load_run(Path(source)).transform
    return [*lines, f"- values of {transform.text}"]


def _kept_otherwise(architecture: Architecture, backend: str) -> list[str]:
    """What the framework's own layers keep otherwise than the spec says."""
    if backend not in registry.BACKENDS:
        return []
    dialect = dialect_of(backend)
    norms = [layer for _, layer in walk(architecture.layers) if isinstance(layer, BatchNorm) and not layer.frozen]
    return [dialect.keeps] if any(dialect.kept(norm).unbiased != norm.unbiased for norm in norms) else []
