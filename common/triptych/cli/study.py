"""`study`: one of the questions of the networks' texts, as tables and a figure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych import studies
from triptych.cli import options
from triptych.cli.run_options import DEFAULT_RUN, RunOptions
from triptych.report.tables import print_table
from triptych.studies import Counted, StudyResult
from triptych.utils.errors import TriptychError
from triptych.zoo import check_count

if TYPE_CHECKING:
    from triptych.studies.runner import Trained
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
) -> int:
    """Answer one question with tables and a figure, and write them as a page.

    A study that trains keeps its runs in the folder; started again, it takes finished ones from there and goes on with
    the last. Before a long one starts, it says how long it will take. Options given change every run. Exit status 1 if
    a run ended early, so that its row is lost. A study that only counts refuses what it does not take.
    Example: triptych study depth --quick
    """
    from triptych.studies import runner
    from triptych.training import run_folder

    if name is None:
        print_table(("study", "question"), [(each.name, each.question) for each in studies.registry().values()])
        return 0
    chosen = studies.get_study(name)
    with ExitStack() as locks:  # until the page is written
        if isinstance(chosen, runner.Trained):
            folder = out or Path("runs") / f"study-{name}{'-quick' * quick}"
            kept = out or Path("runs") / f"study-{chosen.kept_as}{'-quick' * quick}"
            names = [options.backend_name(None)] if backend is None else options.backend_names(backend)
            change = partial(run.choose, network=network)
            result = trained(chosen, names, kept, device, change, run, quick, json == "-", locks)
            if folder != kept:
                locks.enter_context(run_folder.own(folder))
        else:
            assert isinstance(chosen, studies.Counted)
            result = chosen.run(**asked(chosen, run, network, backend, device))
            folder = locks.enter_context(run_folder.claim(out or run_folder.new_folder(f"study-{name}")))
        published = studies.as_dict(name, quick, result, options.command_line())
        studies.write(chosen, result, published, folder)
    options.write_json(json, published)
    if json != "-":
        show(result, folder)
    return 1 if result.lost else 0


def trained(
    chosen: Trained,
    names: list[str],
    kept: Path,
    device: str,
    change: Callable[[Recipe], Recipe],
    run: RunOptions,
    quick: bool,
    quiet: bool,
    locks: ExitStack,
) -> StudyResult:
    """The answer of a study that trains, with its runs in the folder `kept`, whose lock is one of `locks` then."""
    from triptych.backend import registry
    from triptych.studies import duration, outcome, runner

    chosen = chosen.shortened() if quick else chosen
    recipes = runner.recipes_of(chosen, quick=quick, change=change)
    loaded = [registry.load(name) for name in names]
    runner.check(chosen, recipes, loaded, kept, device)
    planned = runner.plan(chosen, recipes, data_dir=run.data_dir)
    locks.enter_context(runner.open_folder(kept, chosen, planned, device))
    if not quick and not quiet:
        duration.tell(planned, loaded, kept, device, partial(print, flush=True))
    return outcome.run(chosen, planned, loaded, kept, device, partial(report, quiet=quiet), quick=quick)


def asked(
    chosen: Counted, run: RunOptions, network: options.NetworkOptions, backend: str | None, device: str
) -> dict[str, Any]:
    """What the command line says of a counting study's networks. Raises TriptychError for what it does not take."""
    given: dict[str, Any] = {"backend": backend, "device": None if device == "cpu" else device}
    for record, default in ((run, DEFAULT_RUN), (network, options.DEFAULT_NETWORK)):
        changed = ((item.name, getattr(record, item.name)) for item in fields(record))
        given |= {name: value for name, value in changed if value != getattr(default, name)}
    shape = network.shape()
    if network.resolution is not None:
        check_count("--resolution", network.resolution)
        shape = (3, network.resolution, network.resolution)
    names = tuple(name.strip() for name in (run.arch or "").split(",") if name.strip())
    taken = {"names": names or None, "input": shape, "classes": network.classes}
    known = {"arch": "names", "input": "input", "resolution": "input", "classes": "classes"}
    for option, value in given.items():
        if value is not None and known.get(option) not in chosen.takes:
            raise TriptychError(f"study '{chosen.name}' only counts; it takes no --{option.replace('_', '-')}")
    return {name: value for name, value in taken.items() if value is not None}


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
