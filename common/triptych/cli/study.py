"""`study`: one of the questions of the networks' texts, as tables and a figure."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych import studies
from triptych.cli import options
from triptych.cli.run_options import DEFAULT_RUN, RunOptions
from triptych.report.tables import print_table
from triptych.studies import StudyResult

if TYPE_CHECKING:
    from triptych.training.loop import Listener
    from triptych.training.recipe import Recipe


def study(
    name: Annotated[str | None, Parameter(help="Which study; without it they are listed.")] = None,
    *,
    backend: Annotated[str | None, Parameter(help="Comma-separated; the first installed if left out.")] = None,
    quick: Annotated[options.Flag, Parameter(help="Small networks on the small data set, within minutes.")] = False,
    run: RunOptions = DEFAULT_RUN,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    device: options.DeviceName = "cpu",
    out: Annotated[Path | None, Parameter(help="A folder for page and runs; runs/study-... if left out.")] = None,
    json: options.JsonFile = None,
) -> None:
    """Answer one question with tables and a figure, and write them as a page.

    A study that trains keeps its runs in the folder; started again, it takes finished ones from there and goes on with
    the last. Options given change every run. A study that only counts needs none of them.
    Example: triptych study depth --quick
    """
    from triptych.backend import registry
    from triptych.studies import outcome, runner
    from triptych.training import run_folder

    if name is None:
        for each in studies.registry().values():
            print(f"{each.name}: {each.question}")
        return
    chosen = studies.get_study(name)
    if isinstance(chosen, runner.Trained):
        folder = out or Path("runs") / f"study-{name}{'-quick' * quick}"
        change = partial(run.choose, network=network)
        names = [options.backend_name(None)] if backend is None else options.backend_names(backend)
        recipes = runner.recipes_of(chosen, quick=quick, change=change)
        loaded = [registry.load(name) for name in names]
        runner.check(chosen, recipes, loaded, folder, device)
        planned = runner.plan(chosen, recipes, data_dir=run.data_dir)
        begin = partial(report, quiet=json == "-")
        result = outcome.run(chosen, planned, loaded, folder, device, begin, quick=quick)
    else:
        assert isinstance(chosen, studies.Counted)
        folder = run_folder.make_folder(out or run_folder.new_folder(f"study-{name}"))
        result = chosen.run()
    published = studies.as_dict(name, quick, result, options.command_line())
    studies.write(chosen, result, published, folder)
    options.write_json(json, published)
    if json != "-":
        show(result, folder)


def report(title: str, recipe: Recipe, *, quiet: bool) -> AbstractContextManager[Listener]:
    """Begin to show one run."""
    from triptych.cli.progress import Reporter

    if not quiet:
        print(title, flush=True)
    return Reporter(recipe.epochs, quiet=quiet)


def show(result: StudyResult, folder: Path) -> None:
    """Tables and findings on the terminal."""
    for table in result.tables:
        numbers = {i for row in table.rows for i, value in enumerate(row) if not isinstance(value, str)}
        print_table(table.columns, table.text(), title=table.title, right=numbers)
        print()
    for finding in result.findings:
        print(f"- {finding}")
    print(f"report and figures: {folder}")
