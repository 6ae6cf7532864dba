"""Whatever names a network: the zoo, a run folder, a file of any framework, somebody's own object as `module:name`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from triptych import zoo
from triptych.backend import registry
from triptych.importers.steps import Imported, Request
from triptych.porting import discover, weight_files
from triptych.spec import records
from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture
from triptych.spec.shapes import output_shapes
from triptych.training import models
from triptych.utils.errors import TriptychError
from triptych.utils.reading import read_bounded
from triptych.weights import store

SYMBOL = "-symbol.json"
OF_SYMBOL = (b'"nodes"', b'"arg_nodes"', b'"heads"')  # which no spec has
MOST_BYTES = 16 << 20  # of a spec's JSON
Read = Callable[[Path, Path | None, Request], Imported]


def _mxnet(path: Path, weights: Path | None, request: Request) -> Imported:
    from triptych.importers import mxnet_network

    beside, remarks = (weights, ()) if weights is not None else params_beside(path)
    imported = mxnet_network.load(path, beside, request)
    return replace(imported, remarks=(*remarks, *imported.remarks))


def _onnx(path: Path, weights: Path | None, request: Request) -> Imported:
    from triptych.importers import onnx_network

    return _own_weights(onnx_network.load(path, request), path, weights)


def _keras(path: Path, weights: Path | None, request: Request) -> Imported:
    from triptych.importers import keras_network

    return _own_weights(keras_network.load(path, request), path, weights)


def _torch(path: Path, weights: Path | None, request: Request) -> Imported:
    from triptych.importers import torch_export

    return _own_weights(torch_export.load_file(path, request), path, weights)


def _spec(path: Path, weights: Path | None, request: Request) -> Imported:
    try:
        architecture = records.decode(records.completed(records.read(path, MOST_BYTES)), Architecture)
        output_shapes(architecture)
    except (OSError, ValueError, RecursionError, TriptychError) as error:
        raise TriptychError(f"{path} is no spec: {error}") from None
    if request.input is not None or request.outputs:
        raise TriptychError(f"{path} is a spec and complete; leave --input and --output out")
    return _with_weights(architecture, path, weights)


@dataclass(frozen=True)
class FileKind:
    """Files of one ending: what they are, and what reads them, given the path, the weights that the user names (None
    where she names none), and the request. `foreign`: a framework's, which may run it, too."""

    ending: str
    what: str
    read: Read
    foreign: bool = True


# The first ending that fits is taken.
FILES = (
    FileKind(SYMBOL, "an MXNet symbol, its .params beside it", _mxnet),
    FileKind(".json", "a spec", _spec, foreign=False),
    FileKind(".onnx", "an ONNX model", _onnx),
    FileKind(".keras", "a Keras model", _keras),
    FileKind(".h5", "a Keras model", _keras),
    FileKind(".hdf5", "a Keras model", _keras),
    FileKind(".pt2", "a PyTorch exported program", _torch),
    FileKind(".pt", "a TorchScript file", _torch),
    FileKind(".pth", "a TorchScript file", _torch),
    FileKind(".ts", "a TorchScript file", _torch),
)
KNOWN = ", ".join(("a name of the zoo", *(f"NAME{kind.ending}" for kind in FILES), "a run folder", "module:name"))


def is_zoo(arch: str) -> bool:
    """Whether `arch` is a name of the zoo, or a mistyped one: nothing that a file, a folder or an object is called."""
    ended = any(arch.endswith(kind.ending) for kind in FILES)
    return arch in zoo.registry() or not arch or not (ended or re.search(r"[/\\:]", arch) or Path(arch).is_dir())


def is_source(name: str) -> bool:
    """Whether this names a network by the ending of a file, or as `module:name`."""
    return any(name.endswith(kind.ending) for kind in FILES) or re.fullmatch(r"[\w.]+:\w+", name) is not None


def read(arch: str, request: Request | None = None, weights: Path | None = None, *, checked: bool = True) -> Imported:
    """The network that `arch` names, outside of the zoo: a run folder, FILE.json (a spec), a file of a framework, or
    `module:name` (an Architecture, a PyTorch or Flax module, a Gluon block, or a function that returns one). `weights`
    is a file with the parameters where the source has none. What was imported has been seen to compute what its source
    computes, unless it need not be `checked`. Raises TriptychError with what can stand here, and where it does not."""
    path, request = Path(arch), request or Request()
    if path.is_dir():
        trained = models.load_run(path)
        remarks = (trained.remark,) * bool(trained.remark)
        return _own_weights(Imported(trained.architecture, dict(trained.parameters), remarks), path, weights)
    name = known_name(path)
    for kind in FILES:
        if name.endswith(kind.ending):
            if not path.is_file():
                raise TriptychError(f"there is no file {path}")
            imported = kind.read(path, weights, request)
            return _checked_file(imported, path, weights, request) if checked and kind.foreign else imported
    if re.fullmatch(r"[\w.]+:\w+", arch):
        found = discover.find(arch)
        return replace(from_object(found, arch, weights, request, checked=checked), origin=found)
    raise TriptychError(f"'{arch}' is no network that can be read; give {KNOWN}")


def known_name(path: Path) -> str:
    """A file's name with the ending that says what it is: a symbol of MXNet's may be called NAME.json, too."""
    if path.suffix != ".json" or path.name.endswith(SYMBOL):
        return path.name
    try:
        content = read_bounded(path, MOST_BYTES)
    except (OSError, TriptychError):
        return path.name
    return path.stem + SYMBOL if all(key in content for key in OF_SYMBOL) else path.name


def from_object(candidate: Any, arch: str, weights: Path | None, request: Request, *, checked: bool = True) -> Imported:
    """The network of an Architecture, a PyTorch or Flax module or a Gluon block; `arch` names it in messages. Raises
    TriptychError for anything else, for a network that cannot be taken over, and, if it is to be `checked`, for one
    that was taken over wrongly."""
    if isinstance(candidate, Architecture):
        output_shapes(candidate)
        return _with_weights(candidate, Path(arch), weights)
    discover.check_taken(candidate, arch)
    adapted = discover.find_adapter(candidate)
    if adapted is None:
        raise TriptychError(
            f"'{arch}' is a {type(candidate).__name__}; expected an Architecture, or a network of "
            f"{', '.join(registry.installed())}"
        )
    request = replace(request, name=request.name or arch.rpartition(":")[2])
    try:
        imported = adapted[1].import_network(candidate, request)
    except SystemExit as ended:  # it must not end this process, with a status of its own
        raise TriptychError(f"'{arch}' ends the program ({ended.code!r}) when it is called") from None
    if checked:
        from triptych.porting import import_check

        imported = import_check.of_candidate(imported, arch, candidate, request)
    return _own_weights(imported, Path(arch), weights)


def _checked_file(imported: Imported, path: Path, weights: Path | None, request: Request) -> Imported:
    from triptych.porting import import_check

    return import_check.of_file(imported, path, weights, request)


def params_beside(path: Path) -> tuple[Path | None, tuple[str, ...]]:
    """The parameter file that belongs to a symbol file: `NAME.params`, or the last epoch's of `NAME-0010.params`."""
    name = known_name(path).removesuffix(SYMBOL)
    epochs = sorted(
        file for file in path.parent.iterdir() if re.fullmatch(re.escape(name) + r"-\d{4}\.params", file.name)
    )
    epochs = epochs or [file for file in (path.parent / f"{name}.params",) if file.is_file()]
    if len(epochs) > 1:
        return epochs[-1], (
            f"of {len(epochs)} files with parameters {epochs[-1].name} is taken; --weights names another",
        )
    return (epochs[0] if epochs else None), ()


def load_weights(path: Path, architecture: Architecture) -> Imported:
    """A network with the parameters of a file: canonical safetensors, PyTorch's, Gluon's, Flax's, or Keras's. Raises
    TriptychError where they do not fit."""
    if not path.exists():
        raise TriptychError(f"there is no file {path}")
    if path.is_dir():
        return weight_files.imported(path, architecture)
    return WEIGHTS.get(path.suffix, _canonical)(path, architecture)


def _canonical(path: Path, architecture: Architecture) -> Imported:
    stored = store.load(path)
    names = {info.path for info in parameters(architecture)}
    if path.suffix == ".safetensors" and len(stored) >= len(names) and not names <= stored.keys():
        return weight_files.imported(path, architecture)  # somebody else's names
    store.check_fit(architecture, stored)
    return Imported(architecture, dict(stored))


def _gluon_weights(path: Path, architecture: Architecture) -> Imported:
    from triptych.importers import gluon_params

    return gluon_params.load(path, architecture)


def _keras_weights(path: Path, architecture: Architecture) -> Imported:
    from triptych.importers import keras_weights

    parameters, remarks = keras_weights.load_weights(path, architecture)
    return Imported(architecture, parameters, remarks)


# By ending; any other file is canonical.
WEIGHTS: dict[str, Callable[[Path, Architecture], Imported]] = {
    ".params": _gluon_weights,
    **dict.fromkeys((".pt", ".pth", ".npz", ".msgpack"), weight_files.imported),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), _keras_weights),
}


def _with_weights(architecture: Architecture, source: Path, weights: Path | None) -> Imported:
    """A network whose source has no weights, with those of a file if one is named."""
    return Imported(architecture, None) if weights is None else load_weights(weights, architecture)


def _own_weights(imported: Imported, source: Path, weights: Path | None) -> Imported:
    """A network whose source may have weights; a file of others is for one that has none."""
    if weights is None:
        return imported
    if imported.parameters is not None:
        raise TriptychError(f"{source} has its own weights; leave --weights {weights} out")
    fitted = _with_weights(imported.architecture, source, weights)
    return replace(fitted, remarks=(*imported.remarks, *fitted.remarks))
