"""The matrix that the suite prints: at which level each fault was killed on each backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mutants.record import Mutant

SURVIVED = "SURVIVED"
NOT_RUN = "not run"

# Name of the mutant, backend, precision, and the level at which it was killed.
Result = tuple[str, str, str, str]


def cell(mutant: Mutant, backend: str, results: Iterable[Result]) -> str:
    """One fault on one backend; never empty."""
    if backend in mutant.impossible:
        return f"cannot be planted: {mutant.impossible[backend]}"
    levels: dict[str, list[str]] = {}
    for name, where, precision, level in results:
        if (name, where) == (mutant.name, backend):
            levels.setdefault(level, []).append(precision)
    return ", ".join(f"{level} ({' '.join(sorted(p, reverse=True))})" for level, p in levels.items()) or NOT_RUN


def lines(catalogue: Sequence[Mutant], backends: Sequence[str], results: Sequence[Result]) -> list[str]:
    """A table as text, faults down and backends across."""
    rows = [("planted fault", *backends)]
    rows += [(mutant.name, *(cell(mutant, backend, results) for backend in backends)) for mutant in catalogue]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    table += [f"{mutant.name}: float64 only, {mutant.hides}" for mutant in catalogue if mutant.hides]
    return [*table, counts(catalogue, backends, results)]


def counts(catalogue: Sequence[Mutant], backends: Sequence[str], results: Sequence[Result]) -> str:
    """The matrix in a line."""
    ran = {(name, backend) for name, backend, *_ in results if backend in backends}
    survived = {(name, backend) for name, backend, _, level in results if level == SURVIVED}
    impossible = sum(backend in mutant.impossible for mutant in catalogue for backend in backends)
    total = len(catalogue) * len(backends)
    return (
        f"{len(ran - survived)} killed, {len(survived)} survived, {total - len(ran) - impossible} not run, "
        f"{impossible} cannot be planted, of {total}"
    )
