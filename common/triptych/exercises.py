"""Twelve ports with one real mistake each, in every framework: the learner edits the file, the judge answers.

An exercise is a small network, whose emitted source gets the mistake that the backend's `exercises.py` names. Comments
and docstrings are taken off, because they would tell."""

import io
import tempfile
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors.numpy

from triptych.backend import registry
from triptych.backend.contract import PortAdapter
from triptych.backend.execution import exact
from triptych.conformance.locate import Located
from triptych.emitting.emit import dialect_of, emit
from triptych.emitting.guide import Trap
from triptych.porting.own_network import Own, compare_with
from triptych.spec import layers as spec
from triptych.spec.layers import Architecture, Initializer, Layer
from triptych.utils.errors import TriptychError
from triptych.utils.modules import run_file
from triptych.weights import initializers

HINTS = 3  # where to read, how far off, the judge's own guess


@dataclass(frozen=True)
class Exercise:
    """One exercise: the mistake's `key` in the backends' tables, the network, the section of the porting guide."""

    key: str
    architecture: Architecture
    page: str
    section: str

    @property
    def layers(self) -> str:
        """What the network is made of, in words that do not tell where the mistake is."""
        return ", ".join(type(layer).__name__ for layer in self.architecture.layers)


def _network(key: str, *layers: Layer) -> Architecture:
    head = (spec.GlobalAvgPool("mean"), spec.Flatten("flatten"), spec.Dense("dense", 4))
    return Architecture(key, (3, 12, 16), 4, (CONV, *layers, *head), Initializer("kaiming_normal"))


CONV, RELU, SAME = spec.Conv("conv1", 6, (3, 3), padding=(1, 1)), spec.ReLU("relu1"), (1, 1)
# What MXNet's operator can keep: the biased variance, and a momentum that float32 has.
NORM = spec.BatchNorm("norm1", eps=1e-3, momentum=0.125, unbiased=False)
_BODY = spec.Block("body", (spec.Conv("conv2", 6, (3, 3), padding=SAME), spec.ReLU("relu2")))
_MIXED = (
    spec.Block("a", (spec.Conv("conv2", 4, (1, 1)),)),
    spec.Block("b", (spec.Conv("conv3", 4, (3, 3), padding=SAME),)),
)
# Numbered from 1, the names of their networks being the numbers, so that a file does not tell what it is about.
_FOUND: tuple[tuple[str, str, str, tuple[Layer, ...]], ...] = (
    (
        "padding",
        "convolution",
        "A padding that is off by one",
        (RELU, spec.Conv("conv2", 8, (3, 3), padding=SAME), spec.Tanh("tanh")),
    ),
    ("window", "pooling", "Ceil: the last, incomplete window", (RELU, spec.MaxPool("pool", (3, 3), (2, 2), SAME))),
    ("ceil", "pooling", "Ceil: the last, incomplete window", (RELU, spec.MaxPool("pool", (3, 3), (2, 2), ceil=True))),
    (
        "counted",
        "pooling",
        "Average pooling: is padding counted?",
        (RELU, spec.AvgPool("pool", (3, 3), (2, 2), SAME, count_padding=False)),
    ),
    ("eps", "normalisation", "Batch norm: eps and gamma", (NORM, RELU)),
    (
        "alpha",
        "normalisation",
        "Local response normalisation",
        (RELU, spec.LocalResponseNorm("lrn", 5, 0.1, 0.75, 2.0)),
    ),
    ("slope", "convolution", "The activation that a layer brings along", (spec.LeakyReLU("leaky", 0.2),)),
    (
        "dilation",
        "convolution",
        "A padding that is off by one",
        (RELU, spec.Conv("conv2", 8, (3, 3), padding=(2, 2), dilation=(2, 2)), spec.Tanh("tanh")),
    ),
    ("scale", "layouts", "The residual's scale", (spec.Residual("unit", _BODY, scale=0.3),)),
    (
        "order",
        "layouts",
        "Joining branches",
        (spec.Branches("mixed", _MIXED), spec.ReLU("relu2"), spec.Conv("conv4", 6, (1, 1))),
    ),
    (
        "activation",
        "convolution",
        "The activation that a layer brings along",
        (spec.Sigmoid("sigmoid"), spec.MaxPool("pool", (2, 2), (2, 2))),
    ),
    (
        "stride",
        "convolution",
        "Padding at stride 2",
        (RELU, spec.Conv("conv2", 8, (3, 3), (2, 2), SAME), spec.Tanh("tanh")),
    ),
)
EXERCISES = tuple(
    Exercise(key, _network(f"exercise{number}", *layers), page, section)
    for number, (key, page, section, layers) in enumerate(_FOUND, 1)
)


def exercise(number: int) -> Exercise:
    """The exercise of this number, from 1. Raises TriptychError if there is none."""
    if not 1 <= number <= len(EXERCISES):
        raise TriptychError(f"there is no exercise {number}; they are numbered 1 to {len(EXERCISES)}")
    return EXERCISES[number - 1]


def file_name(number: int, backend: str) -> str:
    """What an exercise's file is called: it says which exercise and which framework it is of."""
    return f"exercise{number}_{backend}.py"


def right(number: int, backend: str) -> str:
    """The source as it should be, without what would tell."""
    task = (
        f'"""Exercise {number}: this {dialect_of(backend).framework} port has one mistake. Find it, mend it, then\n\n'
        f'    triptych exercise check {number} --backend {backend}\n"""\n\n'
    )
    return task + without_comments(emit(exercise(number).architecture, backend).source).lstrip("\n")


def wrong(number: int, backend: str) -> str:
    """The source with the mistake."""
    source, (old, new) = right(number, backend), plants(backend)[exercise(number).key]
    assert source.count(old) == 1, f"{number}, {backend}: {source.count(old)} of {old!r}"
    return source.replace(old, new)


def plants(backend: str) -> dict[str, tuple[str, str]]:
    """By key of an exercise what stands in the right source of a backend, and what a mistaken one has instead."""
    registry.check_installed(backend)
    return cast(dict[str, tuple[str, str]], import_module(f"{registry.BACKENDS[backend].package}.exercises").PLANTS)


def check(number: int, backend: str, path: Path) -> Located:
    """The first difference of the network in a learner's file from what it should be, on the reference's weights.
    Raises TriptychError for a file that cannot be executed or whose parameters are other ones."""
    architecture = exercise(number).architecture
    adapter = cast(PortAdapter, import_module(f"{registry.BACKENDS[backend].package}.port"))
    layout = "NHWC" if dialect_of(backend).channels_last else "NCHW"
    framework = registry.load(backend)
    with framework.precise():
        network = _load(number, backend, path)
        port = Own(path.name, lambda count: adapter.Port(network, layout, exact("fp64"), count), framework, layout)
        return compare_with(port, architecture).located


def _load(number: int, backend: str, path: Path) -> Any:
    """What the file's own `load` makes of drawn weights."""
    architecture = exercise(number).architecture
    state = emit(architecture, backend).state(initializers.draw(architecture, 0))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        weights.write_bytes(safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in state.items()}))
        try:
            return run_file(path, path.stem).load(str(weights))
        except (Exception, SystemExit) as error:
            line = str(error).strip().split("\n")[0]
            raise TriptychError(f"{path} cannot be loaded: {type(error).__name__}: {line}") from error


def hint(number: int, located: Located, level: int) -> str:
    """The hint of a level: where to read, how far off it is, the judge's own guess."""
    difference = located.difference
    if difference is None:
        return "there is nothing left to find"
    chosen = exercise(number)
    trap = Trap(chosen.page, chosen.section, "")
    if level == 1:
        return f"read docs/porting/{trap.page}.md, section '{trap.section}'"
    if level == 2:
        return f"{difference.check.tensor}: {difference.check.text}"
    return f"the judge's guess: {difference.cause or 'none of its catalogue fits; compare the layer with the spec'}"


def without_comments(source: str) -> str:
    """Source without comments and docstrings, and without lines that held nothing else."""
    lines = source.split("\n")
    gone: set[int] = set()
    for token, alone in _telling(source):
        (row, column), (end, _) = token.start, token.end
        if alone or not lines[row - 1][:column].strip():
            gone.update(range(row, end + 1))
        else:
            lines[row - 1] = lines[row - 1][:column].rstrip()
    kept = [line for row, line in enumerate(lines, 1) if row not in gone]
    text = "\n".join(kept)
    while "\n\n\n\n" in text:
        text = text.replace("\n\n\n\n", "\n\n\n")
    return text


def _telling(source: str) -> Iterator[tuple[tokenize.TokenInfo, bool]]:
    """Comments, and strings that are statements."""
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token, False
            continue
        if token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            yield token, True
        if token.type != tokenize.NL:
            before = token.type
