"""The edit of a port's source that mends a difference, where its cause is an argument of a call.

The calls of the file that have the wrong value, or leave it to a default that is the wrong one, are candidates; tried
on a copy in memory, the one that mends it is known.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from triptych.conformance.locate import Located
from triptych.porting.own_levels import LEVELS
from triptych.utils.errors import TriptychError
from triptych.utils.reading import read_bounded

MOST_BYTES, MOST_TRIES = 1 << 20, 12
# What frameworks call an argument that causes are about.
KEYWORDS = {
    "padding": ("padding", "pad"),
    "stride": ("stride", "strides"),
    "kernel": ("kernel_size", "pool_size", "window_shape", "kernel"),
    "dilation": ("dilation", "kernel_dilation"),
    "eps": ("eps", "epsilon"),
    "momentum": ("momentum",),
    "rate": ("p", "rate"),
    "ceil": ("ceil_mode",),
    "convention": ("pooling_convention",),
    "pool": ("pool_type",),
    "counted": ("count_include_pad",),
    "alpha": ("alpha",),
    "scale": ("affine", "scale", "use_scale"),
    "fixed": ("fix_gamma",),
    "bias": ("bias", "use_bias"),
    "bare": ("no_bias",),
    "center": ("center", "use_bias"),
    "tracked": ("track_running_stats",),
    "frozen": ("use_global_stats",),
    "mode": ("mode",),
    "k": ("k", "knorm"),
    "beta": ("beta",),
    "window": ("size", "nsize"),
}
SAME = "SAME"  # a padding by its name
VALUE = r"(\([^)]*\)|[\w.+-]+)"
STATED = re.compile(rf"\b(padding|stride|kernel|dilation|eps|momentum|rate|k|beta|window) is {VALUE}, not {VALUE}")
TURNED = re.compile(r"momentum ([\d.e-]+) is taken for the weight of the old")
FACTOR = re.compile(r"constant factor (\d+) in the LRN term: alpha (not )?divided by n")
# By what a cause says: the argument, what it is then, and what it should be.
SWITCHES: tuple[tuple[str, str, Any, Any], ...] = (
    ("ceil for floor", "ceil", True, False),
    ("ceil for floor", "convention", "full", "valid"),
    ("floor for ceil", "ceil", False, True),
    ("floor for ceil", "convention", "valid", "full"),
    ("average for maximum pooling", "pool", "avg", "max"),
    ("maximum for average pooling", "pool", "max", "avg"),
    ("padding counts in the average", "counted", True, False),
    ("it counts in the average", "counted", True, False),
    ("it keeps no running statistics", "tracked", False, True),
    ("padding does not count in the average", "counted", False, True),
    ("gamma is left out, or fixed at 1", "scale", False, True),
    ("gamma is left out, or fixed at 1", "fixed", True, False),
    ("gamma is fixed at 1", "scale", False, True),
    ("gamma is fixed at 1", "fixed", True, False),
    ("the bias is left out", "bias", False, True),
    ("the bias is left out", "bare", True, False),
    ("beta is left out", "center", False, True),
    ("it has a bias", "bias", True, False),
    ("it has a bias", "bare", False, True),
    ("evaluation mode for training: the running", "frozen", True, False),
    ("it is active in training and in evaluation", "mode", "always", "training"),
)


@dataclass(frozen=True)
class Times:
    """An argument that should be so many times what it is."""

    factor: float


@dataclass(frozen=True)
class Edit:
    """In the line `line` of `file`, `old` (at `start` of the whole text) becomes `new`."""

    file: Path
    line: int
    old: str
    new: str
    start: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.old} -> {self.new}"


def with_edit(located: Located, reference: str, judge: Callable[[Any], Located], tried: bool) -> Located:
    """The verdict with the edit that its cause asks for, if that is an argument; `reference`: the network as
    `module:name`; `judge`: compares another one in its place; `tried`: with what becomes of the difference."""
    place, _, name = reference.partition(":")
    module = sys.modules.get(place)
    if located.difference is None or module is None or not getattr(module, "__file__", ""):
        return located
    path = Path(str(module.__file__))
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    try:
        text = read_bounded(path, MOST_BYTES).decode()
        edits = list(_edits(path, text, module, located.difference.cause))
    except (OSError, ValueError, SyntaxError, TriptychError):  # no source: a compiled module, or one in an archive
        return replace(located, notes=(*located.notes, *(("its source cannot be read",) if tried else ())))
    if not edits:
        notes = ("no argument of a call is known to be the cause: there is nothing to try",) if tried else ()
        return replace(located, notes=(*located.notes, *notes))
    if not tried:
        more = f" (or another of {len(edits)} such places: --try tells)" if len(edits) > 1 else ""
        return replace(located, notes=(*located.notes, f"edit: {edits[0]}{more}"))
    for edit in edits[:MOST_TRIES]:
        said = _try(edit, text, module, name, judge, located)
        if said:
            return replace(located, notes=(*located.notes, f"edit: {edit}", said))
    said = f"tried on a copy in memory: {min(len(edits), MOST_TRIES)} edit(s), and the difference stays"
    return replace(located, notes=(*located.notes, f"edit: {edits[0]}", said))


def _try(
    edit: Edit, text: str, module: ModuleType, name: str, judge: Callable[[Any], Located], located: Located
) -> str:
    """What becomes of the difference with an edit, in words; empty if it stays, or the copy does not run."""
    copy = ModuleType(module.__name__)
    copy.__file__ = module.__file__
    changed = text[: edit.start] + edit.new + text[edit.start + len(edit.old) :]
    try:
        exec(compile(changed, str(edit.file), "exec"), vars(copy))
        network = getattr(copy, name)
        after = judge(network() if callable(network) and not isinstance(network, tuple) else network).difference
    except (Exception, SystemExit):
        return ""
    if after is None:
        return "tried on a copy in memory: the difference is gone"
    before = located.difference
    assert before is not None
    if (after.layer, after.level) == (before.layer, before.level) or _place(after.level) < _place(before.level):
        return ""
    return f"tried on a copy in memory: this difference is gone, the next one is '{after.layer}', level {after.level}"


def _place(level: str) -> int:
    """Where a level stands: what fails before another one has been made worse, not mended."""
    names = [each.name for each in LEVELS]
    return names.index(level) if level in names else len(names)


def _edits(path: Path, text: str, module: ModuleType, cause: str) -> Iterator[Edit]:
    """The places at which an argument is what the cause says: those that state it first, then those that leave it to a
    default."""
    raw, starts = text.encode(), [0]
    for line in raw.splitlines(keepends=True):  # as Python counts them; a text's would end at a form feed, too
        starts.append(starts[-1] + len(line))
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    for field, wrong, right in arguments_of(cause):
        for call in calls:
            given, named, default = _argument(call, module, KEYWORDS[field])
            if given is not None:
                if _same(_value(given), wrong):
                    first = named or given
                    begin = starts[first.lineno - 1] + first.col_offset
                    end = starts[(given.end_lineno or 0) - 1] + (given.end_col_offset or 0)
                    old = raw[begin:end].decode()
                    stated = raw[starts[given.lineno - 1] + given.col_offset : end].decode()
                    wanted = right.factor * _value(given) if isinstance(right, Times) else right
                    new = f"{named.arg}={_written(wanted, stated)}" if named else _written(wanted, stated)
                    yield Edit(path, first.lineno, old, new, len(raw[:begin].decode()))
            elif default and _same(default[1], wrong):
                end = starts[(call.end_lineno or 0) - 1] + (call.end_col_offset or 0) - 1
                begin = starts[call.lineno - 1] + call.col_offset
                old = raw[begin : end + 1].decode()
                new = f"{old[:-1]}{', ' if call.args or call.keywords else ''}{default[0]}={_written(right, '')})"
                yield Edit(path, call.lineno, old, new, len(raw[:begin].decode()))


def arguments_of(cause: str) -> Iterator[tuple[str, Any, Any]]:
    """The arguments that a cause names, with the wrong and the right value. A momentum may be stated as the weight of
    the new or of the old."""
    for text, *switched in SWITCHES:
        if text in cause:
            yield switched[0], switched[1], switched[2]
    if factor := FACTOR.search(cause):
        yield "alpha", None, Times(1 / float(factor[1]) if factor[2] else float(factor[1]))
    if turned := TURNED.search(cause):
        right = float(turned[1])
        yield from (("momentum", 1 - right, right), ("momentum", right, 1 - right))
    for field, wrong, right in STATED.findall(cause):
        try:
            values = wrong if wrong == SAME else ast.literal_eval(wrong), ast.literal_eval(right)
        except (ValueError, SyntaxError):
            continue
        if field == "padding":
            sides = tuple((size, size) for size in values[1])  # as lists of low and high
            yield field, SAME, sides if any(values[1]) else "VALID"
            if values[0] == (0, 0):
                yield field, "VALID", sides
        if wrong == SAME:
            continue
        yield field, *values
        if field == "momentum":
            yield field, 1 - values[0], 1 - values[1]


def _argument(
    call: ast.Call, module: ModuleType, names: tuple[str, ...]
) -> tuple[ast.expr | None, ast.keyword | None, tuple[str, Any] | None]:
    """What a call gives for an argument of one of these names, with its keyword, or else its name and default."""
    stated = next((keyword for keyword in call.keywords if keyword.arg in names), None)
    if stated is not None:
        return stated.value, stated, None
    try:
        parameters = parameters_of(_resolved(call.func, module))
    except (TypeError, ValueError, AttributeError, KeyError, SyntaxError):
        return None, None, None
    for place, parameter in enumerate(parameters):
        if parameter.name in names and parameter.kind is not parameter.VAR_KEYWORD:
            if place < len(call.args):
                return call.args[place], None, None
            known = parameter.default is not parameter.empty
            return None, None, (parameter.name, parameter.default) if known else None
    return None, None, None


def parameters_of(function: Any) -> list[inspect.Parameter]:
    """What a function or a class takes. A class whose metaclass is called first (Flax NNX) says it by its `__init__`,
    and a function that hands on whatever it is given (torch's F.max_pool2d) in the first line of its documentation."""
    parameters = list(inspect.signature(function).parameters.values())
    if not any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return parameters
    if inspect.isclass(function):
        made: Any = function  # of which mypy would ask what a subclass's takes
        return list(inspect.signature(made.__init__).parameters.values())[1:]
    said = re.search(r"^\s*\w+(\([^()]*\))", inspect.getdoc(function) or "")
    if said is None:
        return parameters
    taken = ast.parse(f"def said{said[1]}: pass").body[0]
    assert isinstance(taken, ast.FunctionDef)
    return [inspect.Parameter(each.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in taken.args.args]


def _resolved(function: ast.expr, module: ModuleType) -> Any:
    """What a dotted name stands for in a module."""
    if isinstance(function, ast.Name):
        return vars(module)[function.id]
    if isinstance(function, ast.Attribute):
        return getattr(_resolved(function.value, module), function.attr)
    raise KeyError


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, SyntaxError):
        return None


def _same(one: Any, other: Any) -> bool:
    """Equal; a number stands for a pair of it, and numbers are as near as a cause states them."""
    if isinstance(one, str) and isinstance(other, str):
        return one.lower() == other.lower()
    if other is None:  # any number
        return isinstance(one, int | float) and not isinstance(one, bool)
    if isinstance(other, tuple) and not isinstance(one, tuple):
        return one is not None and other == (one,) * len(other)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return isinstance(one, bool) == isinstance(other, bool) and abs(one - other) <= 1e-6 * max(abs(one), abs(other))
    return bool(one == other)


def _written(value: Any, like: str) -> str:
    """As Python has it; an equal pair as one number where one stands, or nothing."""
    if isinstance(value, tuple) and not like.startswith("(") and len({*value}) == 1 and isinstance(value[0], int):
        value = value[0]
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def check(reference: str) -> None:
    """Raises TriptychError for a network that has no source to try an edit on."""
    if ":" not in reference or Path(reference).exists():
        raise TriptychError(f"--try is for your own network as module:name, not for {reference}")
