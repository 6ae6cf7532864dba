"""`convert`: weights from one format into another, by way of the canonical ones, and read back to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers import keras_weights
from triptych.importers.mxnet_back import Back
from triptych.importers.steps import Imported, Request
from triptych.porting import loaded_outputs, sources, weight_files
from triptych.porting.loaded_outputs import OutputDifference
from triptych.porting.weight_files import Read, on_custom, on_order, some
from triptych.spec.layers import Architecture
from triptych.training import checkpoint, run_folder
from triptych.utils.errors import TriptychError, check_known
from triptych.weights import store
from triptych.weights.formats.endings import Ending, ending_of, is_imported, is_known, naming_for
from triptych.weights.naming import FLATTEN_ORDERS, NAMINGS, NamedArrays

Arrays = dict[str, NDArray[Any]]
EXPORTED = "gluon-exported"


@dataclass(frozen=True)
class Conversion:
    """What was converted: how many arrays, what of the source and of the network has no partner, what the target has
    beside the network's arrays (a batch norm's fixed scale), the naming it was written in, remarks, and how far the
    outputs of a network with the written arrays are from the reference's with the source's."""

    arrays: int
    left_over: tuple[str, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    naming: str
    remarks: tuple[str, ...]
    outputs: OutputDifference

    @property
    def summary(self) -> str:
        """One line: what was matched, and what was left over on either side."""
        left = f"{len(self.left_over)} of the source" + (f" ({some(self.left_over)})" if self.left_over else "")
        missing = f"{len(self.missing)} of the network" + (f" ({some(self.missing)})" if self.missing else "")
        more = f"; {len(self.added)} constants of the format added" if self.added else ""
        return (
            f"{self.arrays} arrays matched, left over: {left}, {missing}{more}; read back bit for bit ({self.naming}); "
            f"{self.outputs.summary}"
        )


def from_network(
    imported: Imported,
    target: Path,
    *,
    to: str | None = None,
    mapping: Mapping[str, str] | None = None,
    flatten: str | None = None,
    compare: bool = False,
    symbol: Back | None = None,
) -> Conversion:
    """Write the weights of a network into `target`; `mapping`: the target's names to the spec's paths, where they are
    not the spec's; `compare`: the outputs, too; `symbol`: whose names an exported file of MXNet's gets. Raises
    TriptychError for a network without weights, and for formats and names that do not fit."""
    if imported.parameters is None:
        raise TriptychError(f"'{imported.architecture.name}' has no weights; name a source that has some, or --weights")
    check_target(target, to, flatten)
    read = Read(dict(imported.parameters), (), (), "canonical", {}, {})
    own = None if mapping else symbol
    return _write(imported.architecture, read, target, to, mapping or {}, flatten, compare, symbol=own)


def from_file(
    source: Path,
    architecture: Architecture,
    target: Path,
    *,
    to: str | None = None,
    mapping: Mapping[str, str] | None = None,
    flatten: str | None = None,
    allow_unmatched: bool = False,
    propose: Path | None = None,
    compare: bool = False,
    symbol: Back | None = None,
) -> Conversion:
    """Write the weights in a file or a run, those of `architecture`, into `target`; `mapping`: names in `source` to the
    spec's paths; `propose`: a file for a mapping to edit; `compare` and `symbol` as in `from_network`. Raises
    TriptychError as `weight_files.read` does, and for formats that do not fit."""
    check_target(target, to, flatten)
    by_name = bool(mapping) or allow_unmatched or propose is not None
    if checkpoint.places(source):
        if by_name:
            raise TriptychError(f"mappings and --allow-unmatched are for files of weights; {source} is a run")
        learned, remarks = _of_run(source, architecture)
        return _write(architecture, learned, target, to, {}, flatten, compare, remarks, symbol)
    if is_imported(source) and not (by_name and is_known(source)):
        if by_name:
            raise TriptychError(f"mappings and --allow-unmatched are for arrays with names; {source} is read by layers")
        parameters, remarks = keras_weights.load_weights(source, architecture, flatten)
        return _write(
            architecture, Read(parameters, (), (), "keras", {}, {}), target, to, {}, flatten, compare, remarks, symbol
        )
    read = weight_files.read(
        source, architecture, mapping=mapping, flatten=flatten, allow_unmatched=allow_unmatched, propose=propose
    )
    return _write(architecture, read, target, to, {}, flatten, compare, symbol=symbol)


def _of_run(folder: Path, architecture: Architecture) -> tuple[Read, tuple[str, ...]]:
    """What a run has learned, in the network that it began from, whose file has names of its own. Raises TriptychError
    where it is of another network."""
    parameters, remark = run_folder.read_model(folder)
    try:
        store.check_fit(architecture, parameters)
    except TriptychError as error:
        raise TriptychError(f"{folder}: {error}; a run knows its network: leave out --arch") from None
    return Read(parameters, (), (), "canonical", {}, {}), (remark,) if remark else ()


def symbol_of(
    network: object, architecture: Architecture, weights: Path | None, options: Mapping[str, Any]
) -> Back | None:
    """The symbol of MXNet's that a network was imported from, if its name is that of one, with its parameters: those
    named, else those beside it; `options` are those of the `Request`."""
    path = Path(network) if isinstance(network, str | Path) else Path()
    if not sources.known_name(path).endswith(sources.SYMBOL):
        return None
    return Back(path, weights or sources.params_beside(path)[0], Request(**options), architecture)


def check_target(target: Path, to: str | None, flatten: str | None) -> None:
    """Raises TriptychError for a target, a naming or an order that is not known."""
    naming_for(ending_of(target), to)
    if flatten is not None:
        check_known("--flatten", [flatten], FLATTEN_ORDERS)


def _write(
    architecture: Architecture,
    read: Read,
    target: Path,
    to: str | None,
    mapping: Mapping[str, str],
    flatten: str | None,
    compare: bool,
    remarks: tuple[str, ...] = (),
    symbol: Back | None = None,
) -> Conversion:
    ending = ending_of(target)
    naming = naming_for(ending, to)
    named = NamedArrays(architecture, NAMINGS[naming], flatten)
    check_known("parameter of the spec in the mapping", mapping.values(), named.infos)
    names = named.names | {path: name for name, path in mapping.items()}
    if len(set(names.values())) < len(names):
        raise TriptychError("the mapping gives two parameters of the spec one name")
    own = symbol if naming == EXPORTED else None
    form = _as_named(named, names, read.parameters) if own is None else _as_symbol(own, read)
    ending.write(target, form.arrays)
    back = _read_back(ending, target, form, read.parameters)
    outputs = _outputs(architecture, read, back, naming) if compare else OutputDifference(reason="not asked for")
    orders = (*on_order(read.naming, read.permuted, "read"), *on_order(naming, named.permuted, "written"))
    remarks = (*remarks, *orders, *on_custom(naming, NAMINGS[naming].custom(architecture)))
    naming += f", the names of {own.symbol.name}" if own is not None else ""
    return Conversion(len(read.parameters), read.left_over, read.missing, form.added, naming, remarks, outputs)


@dataclass(frozen=True, eq=False)
class _Form:
    """What is written, the names of those that are no parameter of the network, and how it becomes canonical again."""

    arrays: Arrays
    added: tuple[str, ...]
    canonical: Callable[[Arrays], Arrays]


def _as_named(named: NamedArrays, names: Mapping[str, str], parameters: Arrays) -> _Form:
    arrays = {names[path]: named.from_canonical(path, array) for path, array in parameters.items()}
    kind = next((array.dtype for array in arrays.values()), np.dtype(np.float32))
    fixed = {name: np.full(info.shape, info.start, kind) for name, info in named.constants().items()}
    return _Form(
        arrays | fixed,
        tuple(fixed),
        lambda written: {path: named.to_canonical(path, written[names[path]]) for path in parameters},
    )


def _as_symbol(symbol: Back, read: Read) -> _Form:
    if read.missing:
        raise TriptychError(
            f"{symbol.symbol} takes all its arrays from one file; there is none for {some(read.missing)}"
        )
    ours = {name for name, _ in symbol.places.values()}
    arrays = symbol.file(read.parameters)
    return _Form(arrays, tuple(name for name in arrays if name.partition(":")[2] not in ours), symbol.canonical)


def _read_back(ending: Ending, target: Path, form: _Form, parameters: Arrays) -> Arrays:
    """The canonical arrays in the file. Raises TriptychError unless they are these to the bit, and nothing else."""
    written = ending.read(target)
    if written.keys() != form.arrays.keys():
        raise TriptychError(f"{target} was written, but has other names when it is read back; is the disk whole?")
    back = form.canonical(written)
    for path, array in parameters.items():
        if not same_bits(back[path], array):
            raise TriptychError(f"{target} was written, but '{path}' is not the same when it is read back")
    return back


def _outputs(architecture: Architecture, read: Read, back: Arrays, naming: str) -> OutputDifference:
    if read.missing:
        return OutputDifference(reason="the network is not complete")
    return loaded_outputs.compare(architecture, read.parameters, back, NAMINGS[naming].backend)


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether type, shape and every bit agree, those of NaN and of negative zeros included."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    first, second = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other))
    return bool(np.array_equal(first, second))
