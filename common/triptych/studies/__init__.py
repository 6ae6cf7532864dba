"""Studies: questions that the networks' texts ask, answered as tables and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from json import dumps
from pathlib import Path
from typing import Any, Self, TypeAlias

from triptych.report.page import write_page
from triptych.utils.errors import check_known
from triptych.utils.files import write_atomically

Cell: TypeAlias = str | int | float
TableRow: TypeAlias = tuple[Cell, ...]
NONE = "-"  # in a cell: not measured, or not published


def shown(value: float | None) -> float | str:
    """A number, or what stands for none."""
    return NONE if value is None else float(value)


@dataclass(frozen=True)
class Table:
    """Rows of numbers and text under named columns; ints are printed with separators."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    @classmethod
    def of(cls, title: str, rows: Sequence[Mapping[str, Cell]]) -> Self:
        """A table of one row or more that say the columns of their cells, each the same."""
        return cls(title, tuple(rows[0]), tuple(tuple(row.values()) for row in rows))

    def without_empty(self) -> Self:
        """The table without the columns that have nothing in any row."""
        kept = [i for i in range(len(self.columns)) if any(row[i] != NONE for row in self.rows) or not self.rows]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=rows)

    def text(self) -> list[tuple[str, ...]]:
        """The rows as they are printed."""
        return [
            tuple(f"{v:,}" if isinstance(v, int) else f"{v:.3g}" if isinstance(v, float) else v for v in row)
            for row in self.rows
        ]


@dataclass(frozen=True)
class StudyResult:
    """A study's answer. `figures` are `(caption, SVG)`; `findings` are sentences made from the numbers. `lost` are the
    rows that ended early, `unlearned` those that have learned nothing: no finding is drawn from either."""

    tables: tuple[Table, ...]
    figures: tuple[tuple[str, str], ...]
    findings: tuple[str, ...]
    lost: tuple[str, ...] = ()
    unlearned: tuple[str, ...] = ()


def join(results: Sequence[StudyResult]) -> StudyResult:
    """Several results in one; the rows of tables with the same title stand in one table."""
    tables: dict[str, Table] = {}
    for table in chain.from_iterable(result.tables for result in results):
        before = tables.get(table.title, replace(table, rows=()))
        tables[table.title] = replace(table, rows=(*before.rows, *table.rows))
    figures = chain.from_iterable(result.figures for result in results)
    findings = chain.from_iterable(result.findings for result in results)
    lost, unlearned = (tuple(chain.from_iterable(getattr(r, n) for r in results)) for n in ("lost", "unlearned"))
    return StudyResult(tuple(tables.values()), tuple(figures), tuple(findings), lost, unlearned)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question and where it comes from. `traps` are errors of the source, with what really happens (see
    `triptych.studies.traps`). `notes` say what the source leaves open, and how it was settled."""

    name: str
    question: str
    source: str
    notes: tuple[str, ...] = ()
    traps: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Counted(Study):
    """A study that only counts; `run` answers it at once. It takes what the command line may say of the networks, by
    name, as far as it is in `takes`: `names` of networks, their `input` and `classes`."""

    run: Callable[..., StudyResult]
    takes: tuple[str, ...] = ()


def registry() -> dict[str, Study]:
    """Every study by name."""
    from triptych.studies import experiments, kernels, parameters, traps

    return {study.name: study for study in (parameters.STUDY, kernels.STUDY, traps.STUDY, *experiments.STUDIES)}


def as_dict(name: str, quick: bool, result: StudyResult, command: str) -> dict[str, Any]:
    """The result as JSON has it, with the command that gave it."""
    tables = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in result.tables]
    facts = {"study": name, "command": command, "quick": quick, "tables": tables, "findings": result.findings}
    return facts | {"lost": result.lost, "unlearned": result.unlearned}


def write(study: Study, result: StudyResult, published: dict[str, Any], folder: Path) -> None:
    """`report.html`, `result.json` with what is `published` (see `as_dict`), and every figure as a file of its own."""
    write_atomically(folder / "result.json", (dumps(published, indent=2) + "\n").encode())
    page, command = folder / "report.html", published["command"]
    write_page(page, "study.html", title=study.question, study=study, result=result, command=command)
    for number, (_, svg) in enumerate(result.figures, start=1):
        write_atomically(folder / f"figure{number}.svg", svg.encode())


def get_study(name: str) -> Study:
    """The study `name`. Raises TriptychError with the nearest match if there is none."""
    check_known("study", [name], registry())
    return registry()[name]
