"""Pickles as data: read without calling, importing or making anything that a file names.

A pickle is a program for a machine with a stack. Here its instructions are walked by `pickletools`, which decodes and
does not execute; what would be called becomes a record of the call. Only bytes, which old protocols write as a call,
are made.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from triptych.utils.errors import TriptychError

_MOST_OPCODES = 1_000_000  # each leaves at most one small object
_MARK = object()


@dataclass(frozen=True)
class Name:
    """What the file calls a class or function: nothing is looked up."""

    module: str
    name: str


@dataclass(eq=False)
class Call:
    """An object that the file would have made: of what, with which arguments, and what it is filled with."""

    what: Any
    arguments: Any
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last part of the name of what is called; empty where it is none."""
        return self.what.name if isinstance(self.what, Name) else ""


@dataclass(frozen=True, eq=False)
class Persistent:
    """A reference to something that lies outside of the pickle."""

    identifier: Any


def loads(content: bytes, source: str) -> Any:
    """What a pickle holds: numbers, text, bytes, tuples, lists and dicts as they are, all else as `Name`, `Call` and
    `Persistent`. Raises TriptychError, which names `source`, for what is no whole pickle, or one of more than a million
    instructions."""
    return load(io.BytesIO(content), source)[0]


def load(stream: BinaryIO, source: str) -> tuple[Any, list[Persistent]]:
    """The same of the next pickle in a stream, which is behind it afterwards, and all that it refers to outside of it.
    The stream is one in memory: what a pickle says of its lengths is read as it says."""
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number > _MOST_OPCODES:
                raise TriptychError(f"{source}: the pickle has more than {_MOST_OPCODES:,} instructions; refused")
            if opcode.name == "STOP":
                return machine.stack.pop(), machine.outside
            machine.run(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise TriptychError(f"{source}: no whole pickle that can be read as data ({reason})") from None
    raise TriptychError(f"{source}: the pickle ends without its end")


def latin1(value: Any) -> Any:
    """The bytes of a string that Python 2 pickled, which is read as text; anything else as it is."""
    return value.encode("latin-1") if isinstance(value, str) else value


class _Machine:
    """The stack, what was remembered, the marks, and what lies outside."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outside: list[Persistent] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """One instruction. Raises ValueError for one that is not known."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _PUSHED:
            self.stack.append(argument)
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the instruction {name} is not known")

    def marked(self) -> list[Any]:
        """What lies on the stack since the last mark, taken off with it."""
        at = len(self.stack) - 1 - self.stack[::-1].index(_MARK) if self.stack[-1] is not _MARK else len(self.stack) - 1
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def taken(self, count: int) -> list[Any]:
        """The last `count` values, taken off."""
        if len(self.stack) < count:
            raise IndexError("it takes more than there is")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values


def _made(what: Any, arguments: Any) -> Any:
    """The bytes that protocols below 3 and Python 2 write as calls; of everything else a record."""
    if what in (Name("_codecs", "encode"), Name("codecs", "encode")):
        text, encoding = arguments
        if encoding in ("latin1", "latin-1"):
            return text.encode("latin-1")
    if what in (Name("builtins", "bytearray"), Name("__builtin__", "bytearray"), Name("builtins", "bytes")):
        value = arguments[0] if arguments else b""
        if isinstance(value, str):
            return value.encode("latin-1")
        if isinstance(value, bytes):
            return value
    return Call(what, arguments)


def _set_items(target: Any, values: list[Any]) -> None:
    entries = target.entries if isinstance(target, Call) else target
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, _KEYS):  # Python takes the hash of deeply nested tuples without a limit, and dies of it
            raise ValueError(f"a dict has a {type(key).__name__} for a key")
        entries[key] = value


def _append(target: Any, values: list[Any]) -> None:
    (target.items if isinstance(target, Call) else target).extend(values)


def _build(machine: _Machine, argument: Any) -> None:
    (state,) = machine.taken(1)
    if isinstance(machine.stack[-1], Call):
        machine.stack[-1].state = state


def _global(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.stack.append(Name(module, name))


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(tuple(machine.taken(count)))


def _call(count: int) -> Callable[[_Machine, Any], None]:
    def call(machine: _Machine, argument: Any) -> None:
        what, *arguments = machine.taken(count)
        machine.stack.append(_made(what, arguments[0]))

    return call


def _refer(machine: _Machine, identifier: Any) -> None:
    machine.outside.append(Persistent(identifier))
    machine.stack.append(machine.outside[-1])


def _remember(machine: _Machine, argument: Any) -> None:
    machine.memo[len(machine.memo) if argument is None else argument] = machine.stack[-1]


def _dict(values: list[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    _set_items(made, values)
    return made


_KEYS = (str, bytes, int, float, type(None), Name)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "MARK": lambda: _MARK,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_PUSHED = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda m, a: m.stack.append(tuple(m.marked())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": lambda m, a: m.stack.append(m.marked()),
    "DICT": lambda m, a: m.stack.append(_dict(m.marked())),
    "FROZENSET": lambda m, a: m.stack.append(m.marked()),
    "APPEND": lambda m, a: _append(m.stack[-2], m.taken(1)),
    "APPENDS": lambda m, a: (lambda values: _append(m.stack[-1], values))(m.marked()),
    "ADDITEMS": lambda m, a: (lambda values: _append(m.stack[-1], values))(m.marked()),
    "SETITEM": lambda m, a: _set_items(m.stack[-3], m.taken(2)),
    "SETITEMS": lambda m, a: (lambda values: _set_items(m.stack[-1], values))(m.marked()),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda m, a: _global(m, " ".join(m.taken(2))),
    "REDUCE": _call(2),
    "NEWOBJ": _call(2),
    "NEWOBJ_EX": _call(3),
    "BUILD": _build,
    "BINPERSID": lambda m, a: _refer(m, m.taken(1)[0]),
    "PERSID": _refer,
    "POP": lambda m, a: (m.taken(1), None)[1],
    "POP_MARK": lambda m, a: (m.marked(), None)[1],
    "DUP": lambda m, a: m.stack.append(m.stack[-1]),
    "PUT": _remember,
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "MEMOIZE": _remember,
    "GET": lambda m, a: m.stack.append(m.memo[a]),
    "BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.stack.append(m.memo[a]),
}
