"""`study`: one of the questions of the networks' texts, as tables and a figure."""

from __future__ import annotations

import shlex
import sys
from contextlib import AbstractContextManager
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych.cli.options import (
    DeviceName,
    Flag,
    JsonFile,
    NetworkOptions,
    RunOptions,
    default_backend,
    load_backends,
    write_json,
)

if TYPE_CHECKING:
    from triptych.studies import Result, Study
    from triptych.studies.runner import Trained
    from triptych.training.loop import Listener
    from triptych.training.recipe import Recipe

DEFAULT_NETWORK = NetworkOptions()
DEFAULT_RUN = RunOptions()


def study(
    name: Annotated[str | None, Parameter(help="Which study; without it they are listed.")] = None,
    *,
    backend: Annotated[str | None, Parameter(help="Comma-separated; the first installed if left out.")] = None,
    quick: Annotated[Flag, Parameter(help="Small networks on the small data set, within minutes.")] = False,
    run: RunOptions = DEFAULT_RUN,
    network: NetworkOptions = DEFAULT_NETWORK,
    device: DeviceName = "cpu",
    out: Annotated[Path | None, Parameter(help="A folder for page and runs; runs/study-... if left out.")] = None,
    json: JsonFile = None,
) -> None:
    """Answer one question with tables and a figure, and write them as a page.

    A study that trains keeps its runs in the folder; started again, it takes finished ones from there and goes on with
    the last. Options given change every run. A study that only counts needs none of them.
    Example: triptych study depth --quick
    """
    from triptych import studies
    from triptych.studies.runner import Trained
    from triptych.training import run_folder

    if name is None:
        for each in studies.registry().values():
            print(f"{each.name}: {each.question}")
        return
    chosen = studies.get_study(name)
    if isinstance(chosen, studies.Counted):
        folder = run_folder.make_folder(out or run_folder.new_folder(f"study-{name}"))
        result = chosen.run()
    else:
        assert isinstance(chosen, Trained)
        folder = out or Path("runs") / f"study-{name}{'-quick' * quick}"
        result = train(chosen, backend, quick, run, network, device, folder, quiet=json == "-")
    found = as_dict(name, quick, result)
    write(chosen, result, found, folder)
    if json is not None:
        write_json(json, found)
    if json != "-":
        show(result, folder)


def train(
    chosen: Trained,
    backend: str | None,
    quick: bool,
    run: RunOptions,
    network: NetworkOptions,
    device: str,
    folder: Path,
    *,
    quiet: bool,
) -> Result:
    """Train what the folder does not have yet, and put it all together."""
    from triptych.backend.execution import Execution
    from triptych.cli.progress import Reporter
    from triptych.studies import outcome, runner

    def begin(title: str, recipe: Recipe) -> AbstractContextManager[Listener]:
        if not quiet:
            print(title, flush=True)
        return Reporter(recipe.epochs, quiet=quiet)

    # First, because the data may have to be downloaded.
    loaded = load_backends(default_backend() if backend is None else backend)
    planned = runner.plan(chosen, quick=quick, change=lambda recipe: run.apply(recipe, network), data_dir=run.data_dir)
    for each in loaded:  # a device or precision that is not there is refused before minutes of work
        each.build(planned[0].architecture, device=device, execution=Execution(planned[0].recipe.precision))
    runner.open_folder(folder, chosen, planned, device)
    outcomes = runner.train(planned, loaded, folder, device, begin)
    looked = runner.look(chosen, outcomes, loaded, device)
    return outcome.answer(chosen, outcomes, quick=quick, looked=looked)


def as_dict(name: str, quick: bool, result: Result) -> dict[str, Any]:
    """The result as JSON has it, with the command that gave it."""
    tables = [{"title": t.title, "columns": t.columns, "rows": t.rows} for t in result.tables]
    command = shlex.join(["triptych", *sys.argv[1:]])
    return {"study": name, "command": command, "quick": quick, "tables": tables, "findings": result.findings}


def write(chosen: Study, result: Result, found: dict[str, Any], folder: Path) -> None:
    """`report.html`, `result.json` and every figure as a file of its own."""
    from triptych import __version__
    from triptych.report.page import write_page
    from triptych.utils.files import write_atomically

    write_atomically(folder / "result.json", (dumps(found, indent=2) + "\n").encode())
    write_page(
        folder / "report.html",
        "study.html",
        title=chosen.question,
        study=chosen,
        result=result,
        version=__version__,
        command=found["command"],
    )
    for number, (_, svg) in enumerate(result.figures, start=1):
        write_atomically(folder / f"figure{number}.svg", svg.encode())


def show(result: Result, folder: Path) -> None:
    """Tables and findings on the terminal."""
    from triptych.report.tables import print_table

    for table in result.tables:
        numbers = {i for row in table.rows for i, value in enumerate(row) if not isinstance(value, str)}
        print_table(table.columns, table.text(), title=table.title, right=numbers)
        print()
    for finding in result.findings:
        print(f"- {finding}")
    print(f"report and figures: {folder}")
