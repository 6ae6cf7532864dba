"""The line of a network's source that makes the layer of a path, also after somebody has edited it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

LOAD = "load"  # the function that makes the network


def line_of(source: str, path: str) -> int:
    """The line of the call that makes the layer at `path` (attributes and places in a row, with points between), or of
    what it lies in as far as that can be followed; 0 where nothing can be, as in a text that is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return 0
    made = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    load = made.get(LOAD)
    network = load.returns.id if isinstance(load, ast.FunctionDef) and isinstance(load.returns, ast.Name) else ""
    if not isinstance(made.get(network), ast.ClassDef):
        return 0
    lines = _lines(made, ast.Call(ast.Name(network), [], []), path.split("."))
    return max(lines, default=[0], key=len)[-1]


def _lines(
    made: dict[str, ast.ClassDef | ast.FunctionDef], value: ast.expr, parts: Sequence[str], depth: int = 0
) -> Iterator[list[int]]:
    """The lines of all that an expression's parts are made by, one behind the other, each way as far as it goes."""
    if not parts or depth > 50:
        return
    for inner, rest in _steps(made, value, parts):
        line = [inner.lineno] if len(rest) < len(parts) else []
        yield line
        yield from (line + further for further in _lines(made, inner, rest, depth + 1))


def _steps(
    made: dict[str, ast.ClassDef | ast.FunctionDef], value: ast.expr, parts: Sequence[str]
) -> Iterator[tuple[ast.expr, Sequence[str]]]:
    """What makes the first of the parts: an attribute of a class, an argument of a row, what a function returns."""
    if not isinstance(value, ast.Call):
        return
    known = made.get(value.func.id) if isinstance(value.func, ast.Name) else None
    row = [] if any(isinstance(one, ast.Starred) for one in value.args) else value.args
    if isinstance(known, ast.ClassDef):
        yield from ((inner, parts[1:]) for inner in _assigned(known, parts[0]))
    elif parts[0].isdigit() and int(parts[0]) < len(row):
        yield row[int(parts[0])], parts[1:]
    elif parts[0] == "layers" and known is None and len(parts) > 1:  # the row of a Sequential of Flax
        yield from _steps(made, value, parts[1:])
    if isinstance(known, ast.FunctionDef):
        for node in ast.walk(known):
            if isinstance(node, ast.Return) and node.value is not None:
                yield node.value, parts


def _assigned(made: ast.ClassDef, name: str) -> Iterator[ast.expr]:
    """What `self.NAME` is set to, wherever in the class."""
    for node in ast.walk(made):
        if not isinstance(node, ast.Assign):
            continue
        attributes = [target for target in node.targets if isinstance(target, ast.Attribute)]
        if any(one.attr == name and _is_self(one.value) for one in attributes):
            yield node.value


def _is_self(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id == "self"
