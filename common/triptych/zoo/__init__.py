"""The architectures, one file per family, each a table that can be laid beside its source.

A new family is a new file in this folder with a tuple `ENTRIES`; nothing else has to be touched."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Self

from triptych.spec.layers import Architecture, Initializer, Layers
from triptych.spec.shapes import output_shapes
from triptych.utils.errors import TriptychError, unknown

XAVIER_UNIFORM = Initializer("xavier_uniform")
ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Options:
    """What a user may change about an architecture without changing its structure. `input` is `(channels, height,
    width)`. A 0 in it, or for `classes`, is left open: it becomes what the data has, or what the architecture's source
    says (`filled`). `width_ratio` divides every number of channels, and the dense widths too unless `dense_width`
    states them. Raises TriptychError for numbers out of their range."""

    classes: int = 0
    input: ImageShape = (0, 0, 0)
    width_ratio: float = 1.0
    dense_width: int | None = None
    head: str | None = None

    def __post_init__(self) -> None:
        if not self.width_ratio > 0:
            raise TriptychError(f"--width-ratio {self.width_ratio:g} must be above 0")
        if self.dense_width is not None:
            check_count("--dense-width", self.dense_width)
        if self.classes:
            check_count("--classes", self.classes)
        for number in filter(None, self.input):
            check_count("--input", number)

    def vary(self, *, size: tuple[int, int] | None = None, **changes: Any) -> Self:
        """These options with other values; `size` is the input's (height, width), and leaves its channels."""
        if size is not None and "input" not in changes:
            changes["input"] = (self.input[0], *size)
        return replace(self, **changes)

    def filled(self, classes: int, input: ImageShape) -> Self:
        """These options with what they leave open."""
        channels, height, width = (mine or other for mine, other in zip(self.input, input, strict=True))
        return replace(self, classes=self.classes or classes, input=(channels, height, width))

    def channels(self, number: int, name: str, multiple_of: int = 1) -> int:
        """`number` channels of layer `name`, narrowed; rounded down to a multiple (of the groups), at least 1."""
        narrowed = int(number / self.width_ratio) // multiple_of * multiple_of
        if narrowed < 1:
            raise TriptychError(
                f"--width-ratio {self.width_ratio:g} leaves no channels in layer '{name}', which has {number}; "
                f"use at most {number // multiple_of}"
            )
        return narrowed

    def dense(self, number: int, name: str) -> int:
        """The width of dense layer `name`: `--dense-width` where it is said, else narrowed like the channels."""
        return self.dense_width if self.dense_width is not None else self.channels(number, name)


OPTION_NAMES = frozenset({"size", *(field.name for field in fields(Options))})


def check_count(option: str, number: int) -> None:
    """Raises TriptychError for a number below 1."""
    if number < 1:
        raise TriptychError(f"{option} {number} must be at least 1")


@dataclass(frozen=True)
class Published:
    """What is known of an architecture at its own size, recomputed by a test: trained parameters and
    multiply-accumulates of convolution and dense layers for one image; the same with the auxiliary heads."""

    parameters: int
    macs: int
    with_heads: tuple[int, int] | None = None


@dataclass(frozen=True)
class Entry:
    """One name in the zoo: how to build its layers, the input and classes of its source, and known figures.
    `conformance` is `(width_ratio, resolution)`: small, complete in structure, and the flatten larger than 1x1, because
    a permuted flatten cannot be seen otherwise."""

    name: str
    source: str
    input: ImageShape
    classes: int
    build: Callable[[Options], Layers]
    conformance: tuple[float, int]
    published: Published | None = None
    heads: tuple[str, ...] = ()
    initializer: Initializer = XAVIER_UNIFORM


@cache
def registry() -> dict[str, Entry]:
    """Every entry by name, from every module of this package. Raises ValueError if a name is taken twice."""
    entries: dict[str, Entry] = {}
    for module in pkgutil.iter_modules(__path__):
        for entry in importlib.import_module(f"{__name__}.{module.name}").ENTRIES:
            if entry.name in entries:
                raise ValueError(f"architecture '{entry.name}' is registered twice")
            entries[entry.name] = entry
    return entries


def get_entry(name: str) -> Entry:
    """The entry `name`. Raises TriptychError with the nearest match if there is none."""
    if name not in registry():
        raise unknown("architecture", name, registry())
    return registry()[name]


def build(
    name: str,
    *,
    input: ImageShape | None = None,
    classes: int | None = None,
    width_ratio: float = 1,
    dense_width: int | None = None,
    head: str | None = None,
) -> Architecture:
    """The architecture `name`, validated; what is left out is as in its source. `input` is `(channels, height, width)`;
    `head` one of the entry's heads. Raises TriptychError for an unknown name or head, a ratio that leaves no channels,
    and an input too small for the layers."""
    if classes is not None:
        check_count("--classes", classes)
    for number in input or ():
        check_count("--input", number)
    return build_with(name, Options(classes or 0, input or (0, 0, 0), width_ratio, dense_width, head))


def build_with(name: str, options: Options) -> Architecture:
    """The architecture `name`, validated; what the options leave open is as in its source. Raises as `build` does."""
    entry = get_entry(name)
    if options.head is not None and options.head not in entry.heads:
        if not entry.heads:
            raise TriptychError(f"architecture '{name}' has one head only; leave --head out")
        raise unknown(f"head of '{name}'", options.head, entry.heads)
    options = options.filled(entry.classes, entry.input)
    layers = entry.build(options)
    architecture = Architecture(name, options.input, options.classes, layers, entry.initializer, entry.source)
    output_shapes(architecture)
    return architecture
