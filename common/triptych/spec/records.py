"""Frozen records as JSON and back, and hashes that are the same in every process, on every machine.

Records of the spec carry their type's name under `record`, because a `Conv` and a `Dense` may have equal fields; other
records of which a field takes several kinds are made known with `register`. A record's class may name properties in
`DERIVED`: they are written for a reader, and what is read must be what the record says of itself. Fields in `LATER`
came after files were written: at its default such a field is not written, so that older files and digests stay what
they are.
"""

import hashlib
import json
import math
import re
import sys
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from triptych.spec import layers as spec
from triptych.utils import memory
from triptych.utils.errors import TriptychError
from triptych.utils.reading import read_bounded

T = TypeVar("T")
RECORDS = {kind.__name__: kind for kind in (spec.Architecture, spec.Initializer, *get_args(spec.Layer))}


MOST_DEPTH = 200  # of JSON's lists and objects: a block in a block is two of them
MOST_BYTES = 1 << 26  # of JSON in a file, where nothing else is said
VALUE_BYTES = 100  # at most, of a value that JSON can say in three; of as many as `FEW` nobody has to ask
FEW = 1 << 20
MOST_VALUES = 1 << 22  # of one text: some seconds


def register(*kinds: type) -> None:
    """Have these records carry their type's name, so that a field may hold any of several. Raises ValueError for a
    name that is taken."""
    for kind in kinds:
        if RECORDS.setdefault(kind.__name__, kind) is not kind:
            raise ValueError(f"there are two records of the name {kind.__name__}")


def encode(value: Any) -> Any:
    """What `json.dumps` takes, with every number of its field's type (an int in a float field becomes a float)."""
    if is_dataclass(value):
        hints = _hints(cast(Any, type(value)))
        tag = {"record": type(value).__name__} if RECORDS.get(type(value).__name__) is type(value) else {}
        values = {f.name: encode(getattr(value, f.name)) for f in fields(value) if not _left_out(value, f)}
        values |= {name: float(number) for name, number in values.items() if hints[name] is float}
        return tag | values | {name: _derived(value, name) for name in getattr(value, "DERIVED", ())}
    if isinstance(value, Mapping):
        return {str(name): encode(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def decode(value: Any, hint: type[T], where: str = "") -> T:
    """The record (or tuple, mapping, number ...) of type `hint` that `encode` gave. Raises TriptychError, which names
    the place, for a missing or unknown field, for a value of another type, and for what is nested more than
    `MOST_DEPTH` deep."""
    _check_depth(value, where)
    return cast(T, _decode(value, hint, where))


def completed(value: Any) -> Any:
    """A spec's JSON, as written by hand, with the fields that it leaves out at their defaults. Raises TriptychError for
    what is nested too deep."""
    _check_depth(value, "")
    return _completed(value)


def _completed(value: Any) -> Any:
    if isinstance(value, list):
        return [_completed(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind: Any = spec.Node if "layer" in value else RECORDS.get(str(value.get("record")))
    optional = () if kind is None else (field for field in fields(kind) if field.default is not MISSING)
    defaults = {field.name: encode(field.default) for field in optional}
    return defaults | {name: _completed(item) for name, item in value.items()}


def write(value: Any) -> str:
    """JSON for a file: indented, but every innermost object or list on a line of its own."""
    text = json.dumps(encode(value), indent=1, allow_nan=False)
    innermost = re.compile(r"[{\[][^{}\[\]]*[}\]]")
    return innermost.sub(lambda match: re.sub(r"\n\s*", " ", match[0]), text) + "\n"


def read(path: Path, most: int = MOST_BYTES) -> Any:
    """The value of a JSON file of at most so many bytes. Raises as `parse` and `read_bounded` do."""
    return parse(read_bounded(path, most))


def parse(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for text that is not JSON, or has a number that is none, or a name
    twice in one object (readers differ in which of the two they take), and TriptychError for more values than fit into
    memory."""
    most = sum(text.count(mark) if isinstance(text, str) else text.count(mark.encode()) for mark in ",[{")
    if most > MOST_VALUES:
        raise TriptychError(f"JSON of {most:,} values; expected at most {MOST_VALUES:,}")
    if most > FEW:
        memory.check(VALUE_BYTES * most, f"JSON of {most:,} values", "name the file that was meant")
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_different_names)
    except RecursionError:
        raise ValueError("its parts lie too deep in each other") from None


def canonical(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, no NaN."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 (hex) over the sorted names, each with its array's type, shape and little-endian bytes."""
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        sha256.update(f"{len(name.encode())}:{name}:{array.dtype.str}:{array.shape}:".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} is no number")
    return float(text)


def _different_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return dict(pairs)


def _left_out(record: Any, field: Field[Any]) -> bool:
    """Whether a field is one of `LATER` and at its default."""
    return field.name in getattr(record, "LATER", ()) and getattr(record, field.name) == field.default


def _derived(record: Any, name: str) -> Any:
    """What a record says of itself; JSON has no infinity."""
    value = getattr(record, name)
    return None if isinstance(value, float) and math.isinf(value) else encode(value)


def _check_depth(value: Any, where: str) -> None:
    """Raises TriptychError for what would end Python's stack, here or where the record is used."""
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [part for one in level if isinstance(one, dict | list) for part in _parts(one)]
        if not level:
            return
    raise TriptychError(f"{where.lstrip('.') or 'the value'}: its parts lie more than {MOST_DEPTH} deep in each other")


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _decode_union(value, arguments, where)
    if origin is Literal:
        same = any(type(value) is type(one) and value == one for one in arguments)
        return value if same else _refuse(value, " or ".join(map(repr, arguments)), where)
    if origin is tuple:
        return _decode_tuple(value, arguments, where)
    if origin is dict:
        items = value.items() if isinstance(value, dict) else _refuse(value, "an object", where)
        return {name: _decode(item, arguments[1], f"{where}.{name}") for name, item in items}
    if is_dataclass(hint):
        return _decode_record(value, cast(type, hint), where)
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    return value if type(value) is hint else _refuse(value, hint.__name__, where)


def _decode_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    """A record by its name under `record`; anything else by its type."""
    if value is None and types.NoneType in kinds:
        return None
    if isinstance(value, dict) and RECORDS.get(str(value.get("record"))) in kinds:
        return _decode(value, RECORDS[value["record"]], where)
    others = [kind for kind in kinds if kind is not types.NoneType]
    if len(others) == 1:
        return _decode(value, others[0], where)
    known = " or ".join(kind.__name__ for kind in others)
    return value if type(value) in others else _refuse(value, known, where)


def _decode_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    items = value if isinstance(value, list) else _refuse(value, "a list", where)
    kinds = arguments[:1] * len(items) if arguments[-1] is Ellipsis else arguments
    if len(kinds) != len(items):
        _refuse(value, f"{len(kinds)} values", where)
    return tuple(_decode(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(items, kinds, strict=True)))


def _decode_record(value: Any, kind: type, where: str) -> Any:
    name = kind.__name__
    expected = {field.name for field in fields(kind)} | ({"record"} if RECORDS.get(name) is kind else set())
    derived_names = getattr(kind, "DERIVED", ())
    expected |= set(derived_names)
    if not isinstance(value, dict) or value.get("record", name) != name:
        _refuse(value, f"a record {name}", where)
    defaults = {f.name: encode(f.default) for f in fields(kind) if f.name in getattr(kind, "LATER", ())}
    value = defaults | value
    if value.keys() != expected:
        odd = ", ".join(sorted(map(repr, value.keys() ^ expected)))
        raise TriptychError(f"{where.lstrip('.') or name}: missing or unknown in {name}: {odd}")
    hints = _hints(kind)
    record = kind(**{f.name: _decode(value[f.name], hints[f.name], f"{where}.{f.name}") for f in fields(kind)})
    for derived in derived_names:
        if value[derived] != (right := _derived(record, derived)) or type(value[derived]) is not type(right):
            _refuse(value[derived], f"what follows from the rest: {json.dumps(right)}", f"{where}.{derived}")
    return record


def _refuse(value: Any, expected: str, where: str) -> Any:
    with suppress(ValueError):  # of more digits than Python writes
        value = json.dumps(value, default=repr)
    shown = value if isinstance(value, str) else f"a {type(value).__name__}"
    shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
    raise TriptychError(f"{where.lstrip('.') or 'the value'}: {shown} is not {expected}")
