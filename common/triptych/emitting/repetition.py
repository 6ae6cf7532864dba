"""Expressions that stand again and again, as loops; plain functions, as calls."""

from collections.abc import Sequence
from dataclasses import replace

from triptych.backend.source import Value
from triptych.emitting.text import Expression


def applied(function: str, x: str) -> str:
    """A plain function's call: `partial(f, a)` of x is `f(x, a)`."""
    if function.startswith("partial(") and function.endswith(")"):
        name, _, rest = function[len("partial(") : -1].partition(", ")
        return f"{name}({x}, {rest})"
    return f"{function}({x})"


def folded(parts: Sequence[Expression]) -> list[Expression]:
    """Three or more equal ones in a row, or equal pairs or triples, as one in a loop."""
    result: list[Expression] = []
    rest = list(parts)
    while rest:
        period, count = _repetition([part.text for part in rest])
        if count >= 3:
            marks = Expression("", parts=rest[: period * count]).all_marks()
            result.append(replace(_looped(rest[:period], rest[period * count - 1], count), marks=marks))
        else:
            result += rest[:1]
        rest = rest[period * count if count >= 3 else 1 :]
    return result


def _repetition(texts: list[str]) -> tuple[int, int]:
    """The number of texts at the beginning that stand there again and again, and how often they do."""
    found = []
    for period in (1, 2, 3):
        first = texts[:period]
        count = 1
        while texts[count * period : (count + 1) * period] == first:
            count += 1
        found.append((period, count if not any(text.startswith("*") for text in first) else 1))
    return max(found, key=lambda pair: pair[0] * pair[1] if pair[1] >= 3 else 0)


def _looped(parts: Sequence[Expression], last: Expression, count: int) -> Expression:
    first = parts[0].comment
    comment = first if first == last.comment else f"{first} ... {last.comment}"
    if len(parts) == 1:
        return replace(star(parts[0], "_", str(count)), comment=comment)
    texts = ", ".join(part.text for part in parts)
    return Expression(f"*(layer for _ in range({count}) for layer in ({texts}))", comment=comment)


def star(part: Expression, variable: str, count: str) -> Expression:
    """A loop that makes `count` of a layer."""
    text = f"*({part.text} for {variable} in range({count}))"
    return Expression(text, comment=part.comment, marks=part.all_marks())


def stepped(first: Value, step: Value) -> Value:
    """A number that grows by `step` with every `i`."""
    if step.equals(0):
        return first
    return Value(f"{first.text} + {'i' if step.equals(1) else f'i * {step.text}'}")
