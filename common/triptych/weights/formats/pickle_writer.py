"""Pickles written as data, as `inert_pickle` reads them: classes are named, and need not be there."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from triptych.weights.formats.inert_pickle import Call, Name


def dumps(value: Any) -> bytes:
    """A pickle (protocol 3) of dicts, tuples, numbers, texts, bytes, and of calls of named classes, with their state.
    Raises TypeError for anything else."""
    return b"".join((b"\x80\x03", *_pickled(value), b"."))


def _pickled(value: Any) -> Iterator[bytes]:
    match value:
        case dict():
            yield b"}("
            for pair in value.items():
                for one in pair:
                    yield from _pickled(one)
            yield b"u"
        case tuple():
            yield b"("
            for one in value:
                yield from _pickled(one)
            yield b"t"
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if value else b"\x89"
        case int():
            yield b"\x8a" + _counted("B", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        case float():
            yield b"G" + struct.pack(">d", value)
        case str():
            yield b"X" + _counted("<I", value.encode())
        case bytearray():
            yield b"cbuiltins\nbytearray\n(B" + _counted("<I", bytes(value)) + b"tR"
        case Name():
            yield f"c{value.module}\n{value.name}\n".encode()
        case Call():
            yield from _pickled(value.what)
            yield from _pickled(value.arguments)
            yield b"R"
            if value.state is not None:
                yield from _pickled(value.state)
                yield b"b"
        case _:
            raise TypeError(type(value).__name__)


def _counted(size: str, content: bytes) -> bytes:
    return struct.pack(size, len(content)) + content
