"""What a backend says of its framework's source text, so that networks can be written as a file of its own.

A `Dialect` is data: which numbers of a layer its constructor takes, how that constructor is written, and the few lines
in which frameworks differ around it (base class, forward method, loading). Nothing of a framework is imported."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from triptych.spec.layers import BatchNorm, Merge
from triptych.utils.lazy import np
from triptych.weights.layouts import Layout

UNKNOWN: Any = object()  # of a value that an argument holds
_SHORT = 8  # characters of a number that somebody wrote


class Kept(tuple[int, int]):
    """A pair that is written as a pair, where a framework takes no single number for two equal ones."""


class Value(NamedTuple):
    """What stands in the source for a number: its text, and the number itself where it is written out."""

    text: str
    literal: Any = UNKNOWN

    def equals(self, number: Any) -> bool:
        """Whether it is written out and is this number."""
        return self.literal is not UNKNOWN and bool(self.literal == number)


Values: TypeAlias = Mapping[str, Value]
Named: TypeAlias = dict[str, tuple[Value | str, Any]]  # arguments by name, with the framework's defaults


class Piece(NamedTuple):
    """One layer as an expression. `trap`: why the line does not take the framework's default, for a comment beside it.
    `function`: it is a plain function, without parameters, of the input."""

    text: str
    trap: str = ""
    function: bool = False


@dataclass(frozen=True)
class Dialect:
    """A framework's source text.

    - `numbers`: the names of what a layer's constructor is told, by its record: fields of it, or `inputs` (the channels
      that arrive), `overhang`, `size` (see `triptych.emitting.tree`). Only these become arguments of functions.
    - `pieces`: the constructor's text, by record.
    - `imports`: `name: line`; a line is written where the text mentions the name.
    - `module`, `tensor`, `sequence`: the base class, the type of an array, the type of layers in a row.
    - `row`: what layers in a row are called with.
    - `place`: the name of the n-th layer in a row, as its parameters' paths have it.
    - `identity`: a module that hands its input on. `start`: the first line of a constructor, if there has to be one.
    - `extra`: arguments that every constructor takes, and hands on (`rngs=rngs`), with their declaration.
    - `forward`: the line that declares the forward method, for a type of the result; `operators` what it calls the
      module of operators (Gluon's `F`), handed on to functions.
    - `merge(merge, texts, broadcast)`: several values as one.
    - `training`: the condition under which the network is in training.
    - `train_flag`: the line in the constructor that the condition needs.
    - `layout`: names and axes of the arrays. `channels_last`: whether the network takes and gives `(N, H, W, C)`.
    - `load`: the function that loads a file, with `NETWORK` for the class; `load_with`: another, by words with which a
      file has to have that.
    - `helpers`: the file `emitted.py`, of which a network's file has what it mentions.
    - `ignored`: rules of ruff that the framework's own conventions break.
    - `kept`: a batch norm as the framework's own layer computes it and keeps its statistics; `keeps` says in a sentence
      how they differ from the spec's.
    """

    framework: str
    numbers: Mapping[type, tuple[str, ...]]
    pieces: Mapping[type, Callable[[Any, Values], Piece]]
    imports: Mapping[str, str]
    module: str
    tensor: str
    sequence: str
    row: str
    place: str
    identity: str
    start: str
    extra: str
    extra_declared: tuple[str, ...]
    forward: str
    merge: Callable[[Merge, Sequence[str], bool], str]
    training: str
    train_flag: str
    layout: Layout
    channels_last: bool
    load: str
    helpers: str
    load_with: Mapping[str, str] = field(default_factory=dict)
    ignored: str = ""
    kept: Callable[[BatchNorm], BatchNorm] = lambda layer: layer
    keeps: str = ""


def written(number: Any) -> Value:
    """A number as source text; a pair of equal numbers is one."""
    if isinstance(number, tuple) and len(number) == 2 and number[0] == number[1] and not isinstance(number, Kept):
        number = number[0]
    if isinstance(number, float) and not math.isfinite(number):
        return Value(f'float("{number}")', number)
    if isinstance(number, tuple):
        inner = ", ".join(written(value).text for value in number)
        return Value(f"({inner},)" if len(number) == 1 else f"({inner})", number)
    return Value(repr(number), number)


def as_single(number: float) -> str:
    """A number that its reader takes as float32, in the shortest decimal that is the same there: 0.9 for
    0.8999999761581421."""
    return repr(float(str(np.float32(number))))


def of_single(number: float) -> str:
    """What explains the digits of a number that is a short one in float32, or 1 minus such: '0.9 in float32' of
    0.8999999761581421, '1 - 0.9 in float32' of 0.10000002384185791. Empty of any other. What computes in float64 needs
    all of them: 0.9 is another number there than in the operator that they come from."""
    for said, value in (("", number), ("1 - ", 1 - number)):
        short = as_single(value)
        if len(short) <= _SHORT and float(short) != value == float(np.float32(value)):
            return f"{said}{short} in float32"
    return ""


def call(name: str, *positional: Value | str, **named: tuple[Value | str, Any]) -> str:
    """`name(...)`; a named argument is `(value, default)`, and left out where it is the default."""
    texts = [value if isinstance(value, str) else value.text for value in positional]
    for key, (value, default) in named.items():
        if isinstance(value, str):
            texts.append(f"{key}={value}")
        elif not value.equals(default):
            texts.append(f"{key}={value.text}")
    return f"{name}({', '.join(texts)})"
