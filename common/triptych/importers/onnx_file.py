"""ONNX files as plain nodes and NumPy arrays: sizes checked before anything is parsed, arrays beside the file only from
its own folder. Source: onnx/onnx.proto, docs/ExternalData.md."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.importers.steps import ImportRefusedError
from triptych.utils.errors import TriptychError
from triptych.utils.files import told
from triptych.utils.reading import open_file, read_bounded

OLDEST = 7
_MOST_BYTES = (1 << 31) - 1  # protobuf's own limit
_MOST_NODES = 100_000  # with initialisers: ten times the largest network that is known
_STANDARD = ("", "ai.onnx")
_GRAPH, _LENGTH_DELIMITED = 7, 2  # ModelProto.graph, wire type
_TYPES = "float, double, float16, bfloat16, bool and integers of 8, 32 and 64 bits"

Proto: TypeAlias = Any
Attribute: TypeAlias = Any  # int, float, str, a list of these, an array, or a graph


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """One node as the file has it. `inputs` and `outputs` are names of values; an empty input is left out."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def place(self) -> str:
        """The node and its operator, for messages."""
        return f"node {(self.name or self.outputs[0])[:80]!r} ({self.operator[:40]})"


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A file's main graph. `inputs` are those without an initialiser: their dimensions, None where one is symbolic.
    `constants` are the initialisers by name."""

    source: str
    opset: int
    producer: str
    nodes: tuple[OnnxNode, ...]
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    constants: dict[str, NDArray[Any]]


def read(path: Path) -> OnnxModel:
    """The graph of an ONNX file. Raises TriptychError in one line for one that is damaged or too large, whose arrays
    are absent or lie outside of its folder, and where the onnx package is not installed."""
    _onnx()
    try:
        content = read_bounded(path, _MOST_BYTES)
    except OSError as error:
        raise TriptychError(f"cannot read {path}: {error.strerror}") from None
    return parse(content, str(path), path.parent)


def parse(content: bytes, source: str, folder: Path) -> OnnxModel:
    """The graph in the bytes of a file, whose arrays may lie in `folder`. Raises TriptychError as `read` does."""
    onnx = _onnx()
    if not content:
        raise TriptychError(f"{source} is empty; name an ONNX file that holds a network")
    _check_size(content, source)
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's DecodeError, of whichever implementation
        raise TriptychError(f"{source} is no ONNX file, or damaged: {' '.join(str(error).split())[:100]}") from None
    if odd := next(_no_texts(model), b""):
        raise TriptychError(f"{source} is damaged: {odd[:60]!r} stands for text, and is no UTF-8")
    opset = _opset(model, source)
    graph = model.graph
    if model.functions or graph.sparse_initializer:
        raise ImportRefusedError(f"{source} has functions or sparse initialisers of its own, which are not supported")
    constants = {tensor.name: _array(tensor, source, folder) for tensor in graph.initializer}
    nodes = tuple(_node(node, index, source, folder) for index, node in enumerate(graph.node))
    inputs = {each.name: _dimensions(each, source) for each in graph.input if each.name not in constants}
    outputs = tuple(each.name for each in graph.output)
    made = Counter([*inputs, *constants, *(name for node in nodes for name in node.outputs if name)])
    if twice := next((name for name, count in made.items() if count > 1), ""):
        raise TriptychError(f"{source} is damaged: {twice!r} is computed twice")
    if not nodes or not outputs:
        raise TriptychError(f"{source} has {len(nodes)} nodes and {len(outputs)} outputs: no network")
    return OnnxModel(source, opset, model.producer_name, nodes, inputs, outputs, constants)


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise TriptychError(
            "ONNX files need the onnx package, which is missing: pip install 'triptych[onnx]'"
        ) from None
    return onnx


def _no_texts(message: Any) -> Iterator[bytes]:
    """What protobuf gives in the place of a text that is no UTF-8, here and in the messages within."""
    for field, value in message.ListFields():
        several = [value] if isinstance(value, str | bytes) or not hasattr(value, "__len__") else value
        if field.type == field.TYPE_MESSAGE:
            for each in several:
                yield from _no_texts(each)
        elif field.type == field.TYPE_STRING:
            yield from (each for each in several if isinstance(each, bytes))


def _check_size(content: bytes, source: str) -> None:
    """A node of two bytes takes a hundred in memory, so nodes are counted before protobuf sees them."""
    count = 0
    for number, start, stop in _fields(content, 0, len(content)):
        for _ in _fields(content, start, stop) if number == _GRAPH else ():
            count += 1
            if count > _MOST_NODES:
                raise TriptychError(f"{source} has more than {_MOST_NODES} nodes and arrays, which no network has")


def _fields(content: bytes, at: int, stop: int) -> Iterable[tuple[int, int, int]]:
    """Number, start and end of every field that has a length; ends quietly where the bytes are no message."""
    while at < stop:
        key, at = _varint(content, at, stop)
        if key & 7 == _LENGTH_DELIMITED:
            length, at = _varint(content, at, stop)
            if at + length > stop:
                return
            yield key >> 3, at, at + length
            at += length
        elif key & 7 == 0:
            _, at = _varint(content, at, stop)
        elif key & 7 in (1, 5):
            at += 8 if key & 7 == 1 else 4
        else:
            return


def _varint(content: bytes, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 70:
        byte = content[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
    return 7, stop  # wire type 7 does not exist


def _opset(model: Proto, source: str) -> int:
    versions = [each.version for each in model.opset_import if each.domain in _STANDARD]
    newest = _onnx().defs.onnx_opset_version()
    if len(versions) != 1 or not OLDEST <= versions[0] <= newest:
        raise ImportRefusedError(
            f"{source} has the operator set {', '.join(map(str, versions)) or 'none'}, expected {OLDEST} to "
            f"{newest}; export it again, or convert it with onnx.version_converter"
        )
    return int(versions[0])


def _node(node: Proto, index: int, source: str, folder: Path) -> OnnxNode:
    if not node.output:
        raise TriptychError(f"{source}: node {index} ({node.op_type[:40]!r}) has no output")
    operator = node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
    attributes = {each.name: _attribute(each, source, folder) for each in node.attribute}
    return OnnxNode(node.name, operator, tuple(node.input), tuple(node.output), attributes)


def _attribute(attribute: Proto, source: str, folder: Path) -> Attribute:
    """Graphs and what else is no number, text or array stay as they are: whoever needs the node refuses it."""
    kinds = _onnx().AttributeProto
    if attribute.type == kinds.TENSOR:
        return _array(attribute.t, source, folder)
    if attribute.type == kinds.FLOAT:
        return decimal(attribute.f)
    if attribute.type in (kinds.INT, kinds.INTS, kinds.FLOATS):
        return attribute.i if attribute.type == kinds.INT else list(attribute.ints or attribute.floats)
    if attribute.type == kinds.STRING:
        return attribute.s.decode("utf-8", "replace")
    return attribute


def decimal(value: float) -> float:
    """What was meant by a number in single precision: the shortest decimal that rounds to it, 1e-05 for
    9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _dimensions(value: Proto, source: str) -> tuple[int | None, ...]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ImportRefusedError(f"{source}: the input {value.name[:80]!r} has no shape; export it with one")
    return tuple(
        each.dim_value if each.HasField("dim_value") and each.dim_value > 0 else None for each in tensor.shape.dim
    )


def _array(tensor: Proto, source: str, folder: Path) -> NDArray[Any]:
    onnx = _onnx()
    place = f"{source}: the array {tensor.name[:80]!r}"
    kinds = onnx.TensorProto
    plain = (kinds.FLOAT, kinds.DOUBLE, kinds.INT32, kinds.INT64, kinds.BOOL, kinds.UINT8, kinds.INT8, kinds.FLOAT16)
    if tensor.data_type not in (*plain, kinds.BFLOAT16):
        raise ImportRefusedError(f"{place} is of type {tensor.data_type} (onnx.TensorProto), supported: {_TYPES}")
    if any(size < 0 for size in tensor.dims):
        raise TriptychError(f"{place} has the shape {tuple(tensor.dims)}")
    if tensor.data_location == kinds.EXTERNAL:
        return _external(tensor, place, folder)
    try:
        array: NDArray[Any] = np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise TriptychError(f"{place} is damaged: {' '.join(str(error).split())[:100]}") from None
    return _standard(array)


def _external(tensor: Proto, place: str, folder: Path) -> NDArray[Any]:
    """An array in a file beside the model's: `location`, relative to the folder, `offset` and `length` in bytes."""
    entries = {each.key: each.value for each in tensor.external_data}
    path = _inside(folder, entries.get("location", ""), place)
    dtype = np.dtype(_onnx().helper.tensor_dtype_to_np_dtype(tensor.data_type))
    size = math.prod(tensor.dims) * dtype.itemsize
    offset, length = _number(entries.get("offset", "0")), _number(entries.get("length", str(size)))
    available = path.stat().st_size
    if offset < 0 or length != size or offset + size > available:
        raise TriptychError(
            f"{place} of shape {tuple(tensor.dims)} takes {size} bytes, but is said to be {length} at {offset} of "
            f"{path.name}, which has {available}"
        )
    with told(f"cannot read {path}"), open_file(path) as file:
        file.seek(offset)
        return _standard(np.frombuffer(file.read(size), dtype).reshape(tensor.dims))


def _inside(folder: Path, location: str, place: str) -> Path:
    """The file, which must lie in the model's folder or below it, by its name and behind all links."""
    parts = Path(location).parts
    if not location or "\0" in location or Path(location).is_absolute() or ".." in parts or "\\" in location:
        raise TriptychError(f"{place} lies in {location[:80]!r}; expected a file in the model's own folder")
    path, root = folder / location, os.path.realpath(folder)
    if not path.is_file():
        raise TriptychError(f"{place} lies in {location[:80]!r}, which is not beside the model; put the file there")
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise TriptychError(f"{place} lies in {location[:80]!r}, a link out of the model's folder; copy the file there")
    return path


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 19 else -1


def _standard(array: NDArray[Any]) -> NDArray[Any]:
    """Half precision as single, which holds it exactly."""
    half = array.dtype.itemsize == 2 and array.dtype.kind not in "iu"
    return array.astype(np.float32) if half else array
