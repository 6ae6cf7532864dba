"""The attribute values of MXNet's operators, which its files hold as strings, and what each kind of them accepts.

As dmlc's parser reads them (dmlc/parameter.h, mxnet/tuple.h): "True", "1"; "(3, 3)", "[3,3]", "(3L, 3L)", "3"; "None"
where the attribute may be absent. A `float` of MXNet has 32 bits: with 0.10000000149 for 0.1 MXNet computes.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Value = bool | int | float | str | tuple[int | None, ...] | None
Kind = Literal["boolean", "integer", "single", "double", "shape", "choice", "text", "ignored"]

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_INTEGER = re.compile(r"\s*([+-]?\d{1,18})L?\s*", re.ASCII)
_FLOAT = re.compile(
    r"\s*[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400}|inf|infinity)(e[+-]?\d{1,4})?f?\s*", re.ASCII | re.IGNORECASE
)
_MOST_DIMENSIONS = 32


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


@dataclass(frozen=True)
class PerAxis:
    """A default that has one entry for each axis of the attribute `like`: a stride of 1, a padding of 0."""

    entry: int
    like: str = "kernel"


@dataclass(frozen=True)
class Attribute:
    """What an attribute of an operator is: its kind, its default or REQUIRED, and what it accepts.

    `optional` ones may be "None". Of an "ignored" one nothing depends but speed.
    """

    kind: Kind
    default: Value | PerAxis | _Required = REQUIRED
    optional: bool = False
    choices: tuple[str, ...] = ()
    minimum: float = -math.inf

    def parse(self, text: str) -> Value:
        """The value that `text` stands for. Raises ValueError, which says what was expected."""
        if self.optional and text.strip() == "None":
            return None
        value = _PARSERS[self.kind](text)
        if self.choices and value not in self.choices:
            raise ValueError(f"expected one of {', '.join(self.choices)}")
        if any(entry is not None and entry < self.minimum for entry in _entries(value)):
            raise ValueError(f"expected {self.minimum:g} or more")
        return value


def _entries(value: Value) -> tuple[float | None, ...]:
    if isinstance(value, tuple):
        return value
    return (value,) if isinstance(value, (int, float)) else ()


def parse_boolean(text: str) -> bool:
    """Raises ValueError for what is neither true nor false."""
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        raise ValueError("expected True or False")
    return value


def parse_integer(text: str) -> int:
    """Raises ValueError for what is no integer of 18 digits at most."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise ValueError("expected an integer of at most 18 digits")
    return int(match[1])


def parse_double(text: str) -> float:
    """Raises ValueError for what is no number, or none that 64 bits can hold."""
    if _FLOAT.fullmatch(text) is None:
        raise ValueError("expected a number")
    infinite = "inf" in text.lower()
    value = float(text if infinite else text.strip().rstrip("fF"))  # 1.0f, as C++ writes it
    if math.isinf(value) and not infinite:
        raise ValueError("expected a number that 64 bits can hold")
    return value


def parse_single(text: str) -> float:
    """The nearest number of 32 bits, as MXNet has it. Raises ValueError for what is none."""
    try:
        return to_single(parse_double(text))
    except OverflowError:
        raise ValueError("expected a number that 32 bits can hold") from None


def to_single(value: float) -> float:
    """The nearest number of 32 bits. Raises OverflowError where there is none."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def parse_shape(text: str) -> tuple[int | None, ...]:
    """A tuple of integers, an entry of which may be None (in the begin or end of a slice). Raises ValueError."""
    stripped = text.strip()
    brackets = stripped[:1] + stripped[-1:]
    if brackets not in ("()", "[]"):
        return (parse_integer(text),)
    entries = stripped[1:-1].split(",", _MOST_DIMENSIONS + 1)
    if not entries[-1].strip():
        entries.pop()
    if len(entries) > _MOST_DIMENSIONS:
        raise ValueError(f"expected at most {_MOST_DIMENSIONS} integers")
    return tuple(None if entry.strip() == "None" else parse_integer(entry) for entry in entries)


_PARSERS: dict[Kind, Callable[[str], Value]] = {
    "boolean": parse_boolean,
    "integer": parse_integer,
    "single": parse_single,
    "double": parse_double,
    "shape": parse_shape,
    "choice": str.strip,
    "text": str,
    "ignored": str,
}
