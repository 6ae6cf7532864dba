"""`compare`: conformance on every backend, then a short training on each, as one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli import options
from triptych.cli.options import DEFAULT_NETWORK, Backends, DeviceName, JsonFile, NetworkOptions
from triptych.cli.run_options import DEFAULT_RUN, RunOptions
from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.studies.compare_backends import TrainedComparison


def compare(
    *,
    recipe: Annotated[str, Parameter(help="What to start from; the short `compare` if left out.")] = "compare",
    backends: Backends = None,
    run: RunOptions = DEFAULT_RUN,
    network: NetworkOptions = DEFAULT_NETWORK,
    seeds: Annotated[
        options.Number, Parameter(help="Train with so many seeds, and test the accuracies' equivalence (5, say).")
    ] = 1,
    device: DeviceName = "cpu",
    out: Annotated[Path | None, Parameter(help="A new folder for the report; runs/compare-... if left out.")] = None,
    json: JsonFile = None,
) -> int:
    """Conformance of one architecture on all backends, then a short real training on each from the same start.

    Prints one table and writes report.html. Exit status 1 if a check fails.
    Example: triptych compare --arch lenet_relu --epochs 2
    """
    from triptych import data
    from triptych.backend import registry
    from triptych.cli.progress import Reporter
    from triptych.conformance.equivalence import FEWEST_SEEDS
    from triptych.studies import compare_backends
    from triptych.training import capacity, recipes, run_folder, sessions
    from triptych.training.recipe import build_architecture

    if seeds != 1 and seeds < FEWEST_SEEDS:
        raise TriptychError(f"--seeds {seeds} must be 1, or at least {FEWEST_SEEDS} for a test of equivalence")
    names, chosen = options.backend_names(backends), run.choose(recipes.get_recipe(recipe), network)
    if out is not None:
        run_folder.check_free(out)
    sessions.check_start(chosen)
    capacity.check_training(chosen, device)
    loaded = [registry.load(name) for name in names]
    sessions.check_execution(loaded, device, chosen.precision)
    dataset = data.load(chosen.data, data_dir=run.data_dir, reading=chosen.reading)
    plan = compare_backends.ComparisonPlan(chosen, dataset, build_architecture(chosen, dataset), device, seeds)
    quiet = json == "-"
    with run_folder.claim(out or run_folder.new_folder(f"compare-{chosen.architecture}")) as folder:
        if not quiet:
            print(f"conformance of {chosen.architecture} on {', '.join(names)} ...", flush=True)
        with Reporter(chosen.epochs, quiet=quiet, before="conformance") as reporter:
            comparison = compare_backends.compare(plan, loaded, folder, reporter)
        compare_backends.write_report(comparison, folder / "report.html", options.command_line())
    options.write_json(json, compare_backends.as_dict(comparison))
    if not quiet:
        show(comparison, folder)
    return 0 if comparison.passed else 1


def show(comparison: TrainedComparison, folder: Path) -> None:
    """The table, failures first, and where the report is."""
    from triptych.cli import conform
    from triptych.studies import compare_backends

    if not comparison.verdict.passed:
        conform.show(comparison.verdict)
    columns, rows = compare_backends.table(comparison)
    print_table(columns, rows, right=range(1, len(columns)))
    columns, rows = compare_backends.epoch_table(comparison)
    print_table(columns, rows, right=range(1, len(columns)))
    if comparison.equivalences:
        print_table(*compare_backends.accuracy_table(comparison), title="test accuracy over all seeds (paired TOST)")
    for name, reason in comparison.verdict.not_run.items():
        print(f"{name}: not run ({reason})")
    print(f"report: {folder / 'report.html'}")
