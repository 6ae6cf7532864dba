"""A study's result as files: a page, its JSON, and every figure."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Any

from triptych import __version__
from triptych.report.page import write_page
from triptych.studies import Study, StudyResult
from triptych.utils.files import write_atomically


def as_dict(name: str, quick: bool, result: StudyResult, command: str) -> dict[str, Any]:
    """The result as JSON has it, with the command that gave it."""
    tables = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in result.tables]
    return {"study": name, "command": command, "quick": quick, "tables": tables, "findings": result.findings}


def write(study: Study, result: StudyResult, published: dict[str, Any], folder: Path) -> None:
    """`report.html`, `result.json` with what is `published` (see `as_dict`), and every figure as a file of its own."""
    write_atomically(folder / "result.json", (dumps(published, indent=2) + "\n").encode())
    write_page(
        folder / "report.html",
        "study.html",
        title=study.question,
        study=study,
        result=result,
        version=__version__,
        command=published["command"],
    )
    for number, (_, svg) in enumerate(result.figures, start=1):
        write_atomically(folder / f"figure{number}.svg", svg.encode())
