"""A network as one source file of a framework, as a person would have written it, with no line of ours to import."""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from triptych.backend.registry import BACKENDS, check_installed
from triptych.backend.source import Dialect
from triptych.emitting import network, text, tree
from triptych.emitting.names import camel
from triptych.emitting.plan import Plan
from triptych.emitting.text import Marks
from triptych.emitting.writer import Writer
from triptych.spec.layers import Architecture
from triptych.weights.layouts import Layout


@dataclass(frozen=True)
class Emitted:
    """A source file and how weights go into its network.

    `source`: the file's text. `network`: the name of the class in it. `names`: by canonical path, the parameter's name
    in that network (in PyTorch's state dict, Gluon's `collect_params` by prefix, Flax's state by dots), with which a
    safetensors file for the function `load` in it is written; `layout` has the axes that the arrays have there.
    `channels_last`: whether its images and maps are `(N, H, W, C)`. `lines`: by number of a line of the source, from
    1, the spec's layers that it makes."""

    backend: str
    source: str
    network: str
    names: Mapping[str, str]
    layout: Layout
    channels_last: bool
    lines: Mapping[int, Marks]

    def state(self, parameters: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Canonical parameters under the network's own names, with its axes: what its `load` takes."""
        return {name: self.layout.from_canonical(np.asarray(parameters[path])) for path, name in self.names.items()}

    def canonical(self, state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The other way round; names that are none of the spec's (PyTorch's `num_batches_tracked`) are left out."""
        return {path: self.layout.to_canonical(np.asarray(state[name])) for path, name in self.names.items()}


def emit(architecture: Architecture, backend: str) -> Emitted:
    """The network's source for `backend`. Raises TriptychError for a backend that is not there."""
    dialect = dialect_of(backend)
    root = tree.build(architecture, dialect.numbers)
    plan = Plan(root, frozenset(_definitions(dialect.helpers)))
    writer = Writer(plan, dialect)
    taken = {made.name for made in plan.definitions.values()} | set(_definitions(dialect.helpers))
    name = camel(architecture.name)
    while name in taken:
        name += "Network"
    definitions = [writer.definition(made) for made in plan.definitions.values()]
    whole = network.write(architecture, root, name, writer)
    classes = [*definitions, whole]
    helpers = _helpers(dialect, _names(text.joined(text.separated(classes)) + dialect.load))
    mentioned = text.joined(text.separated([*helpers, *classes]))
    load = next((other for words, other in dialect.load_with.items() if words in mentioned), dialect.load)
    lines = text.separated([*helpers, *classes, load.replace("NETWORK", name).strip("\n").split("\n")])
    body = text.joined(lines)
    blank = "\n\n" if body.startswith(("class", "def")) else "\n"
    before = f"{_header(architecture, dialect)}{_imports(dialect, body)}{blank}"
    names = dict(network.paths(root, writer))
    marks = text.marks_of(lines, before.count("\n") + 1)
    return Emitted(backend, before + body, name, names, dialect.layout, dialect.channels_last, marks)


def dialect_of(backend: str) -> Dialect:
    """A backend's source text."""
    check_installed(backend)
    return cast(Dialect, import_module(f"{BACKENDS[backend].package}.emit").DIALECT)


def _header(architecture: Architecture, dialect: Dialect) -> str:
    first = text.docstring(0, f"{architecture.name} in {dialect.framework}.")
    ignored = [f"# ruff: noqa: {dialect.ignored}"] if dialect.ignored else []
    return "\n".join([*first, "", *ignored, *([""] if ignored else [])]) + "\n"


def _imports(dialect: Dialect, body: str) -> str:
    """The lines whose names the text mentions, in groups: the standard library, then others."""
    names = _names(body)
    lines = {line: group for name, (group, line) in _grouped(dialect) if name in names}
    groups = [[line for line, group in lines.items() if group == number] for number in (0, 1)]
    return "\n\n".join("\n".join(group) for group in groups if group) + "\n"


def _grouped(dialect: Dialect) -> Iterable[tuple[str, tuple[int, str]]]:
    for name, line in dialect.imports.items():
        standard = line.split()[1].split(".")[0] in ("collections", "functools", "math", "typing", "types")
        yield name, (0 if standard else 1, line)


def _helpers(dialect: Dialect, needs: Iterable[str]) -> list[list[str]]:
    """What the file needs of the backend's `emitted.py`, and what that needs, in that file's order."""
    found = _definitions(dialect.helpers)
    wanted: set[str] = set()
    todo = list(needs)
    while todo:
        name = todo.pop()
        if name in found and name not in wanted:
            wanted.add(name)
            todo += found[name][1]
    return [lines for name, (lines, _) in found.items() if name in wanted]


def _names(source: str) -> frozenset[str]:
    """What the source mentions."""
    return frozenset(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))


@cache
def _definitions(path: str) -> dict[str, tuple[list[str], frozenset[str]]]:
    """Every function, class and type of a file: its lines, and the names that it uses."""
    with open(path, encoding="utf-8") as file:
        source = file.read()
    lines = source.split("\n")
    found = {}
    for node in ast.parse(source).body:
        name = node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else ""
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        if name:
            mine = lines[node.lineno - 1 : node.end_lineno]
            found[name] = (mine, _names("\n".join(mine)))
    return found
