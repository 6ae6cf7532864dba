"""`study`: one of the questions of the networks' texts, as tables and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import JsonFile, write_json

if TYPE_CHECKING:
    from triptych.studies import Result, Study


def study(
    name: Annotated[str | None, Parameter(help="Which study; without it they are listed.")] = None,
    *,
    out: Annotated[Path | None, Parameter(help="A new folder for the page; runs/study-... if left out.")] = None,
    json: JsonFile = None,
) -> None:
    """Answer one question with tables and a figure, and write them as a page.

    Example: triptych study parameters
    """
    from triptych import runs, studies

    if name is None:
        for each in studies.registry().values():
            print(f"{each.name}: {each.question}")
        return
    chosen = studies.get_study(name)
    folder = runs.make_folder(out or runs.new_folder(f"study-{name}"))
    result = chosen.run()
    write(chosen, result, folder)
    if json is not None:
        tables = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in result.tables]
        write_json(json, {"study": name, "tables": tables, "findings": result.findings})
    if json != "-":
        show(result, folder)


def write(chosen: Study, result: Result, folder: Path) -> None:
    """`report.html` and every figure as a file of its own."""
    from triptych import __version__
    from triptych.files import write_atomically
    from triptych.report.page import write_page

    write_page(
        folder / "report.html", "study.html", title=chosen.question, study=chosen, result=result, version=__version__
    )
    for number, (_, svg) in enumerate(result.figures, start=1):
        write_atomically(folder / f"figure{number}.svg", svg.encode())


def show(result: Result, folder: Path) -> None:
    """Tables and findings on the terminal."""
    from triptych.report.tables import print_table

    for table in result.tables:
        numbers = [i for i, value in enumerate(table.rows[0]) if not isinstance(value, str)] if table.rows else []
        print_table(table.columns, table.text(), title=table.title, right=numbers)
        print()
    for finding in result.findings:
        print(f"- {finding}")
    print(f"report and figures: {folder}")
