"""How a whole file is damaged: bytes anywhere, and values in JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

# Numbers at which sizes, signs and types turn over.
NUMBERS = (0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
PACKED = [number.to_bytes(size, order) for number in NUMBERS for size in (1, 2, 4, 8) for order in ("little", "big")
          if number < 1 << 8 * size]  # fmt: skip
FLOATS = [struct.pack(order + "d", value) for order in "<>" for value in (float("nan"), float("inf"), -1e308)]
ODD: list[Any] = [None, True, 0, -1, 10**30, 10**400, 1.5, 1e308, -1e308, "", "x", "\ud800", "\0", "../..", "~no/x"]
ODD += ["9" * 5000, [], [1], {}, {"record": "SGD"}, {"record": ["x"]}, {"record": "Conv"}, [[[]]]]
KINDS = ("replace", "insert", "delete", "double", "cut")

pieces = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(PACKED), st.sampled_from(FLOATS))
edits = st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0, 1), pieces), min_size=1, max_size=4)
json_edits = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(ODD)), min_size=1, max_size=2)


def changed(content: bytes, chosen: list[tuple[str, float, bytes]]) -> bytes:
    """The content after each edit in turn; a place is a share of the length that is left."""
    for kind, share, piece in chosen:
        at = int(share * len(content))
        content = {
            "replace": content[:at] + piece + content[at + len(piece) :],
            "insert": content[:at] + piece + content[at:],
            "delete": content[:at] + content[at + len(piece) :],
            "double": content[:at] + content[max(0, at - 16 * len(piece)) :],
            "cut": content[:at],
        }[kind]
    return content


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value, itself first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with `new` in one place."""
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def changed_json(content: bytes, chosen: list[tuple[float, Any]]) -> bytes:
    """A JSON text with odd values in some places."""
    value = json.loads(content)
    for share, odd in chosen:
        known = list(places(value))
        value = put(value, known[min(int(share * len(known)), len(known) - 1)], odd)
    return json.dumps(value).encode()
