"""`train`: one recipe on one backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import (
    DeviceName,
    Flag,
    JsonFile,
    NetworkOptions,
    RunOptions,
    Whole,
    default_backend,
    write_json,
)

if TYPE_CHECKING:
    from triptych.training.recipe import Recipe

DEFAULT_NETWORK = NetworkOptions()
DEFAULT_RUN = RunOptions()


def train(
    *,
    recipe: Annotated[str | None, Parameter(help="What to start from; d2l-vgg if left out.")] = None,
    backend: Annotated[str | None, Parameter(help="torch, mxnet or jax; the first installed if left out.")] = None,
    run: RunOptions = DEFAULT_RUN,
    network: NetworkOptions = DEFAULT_NETWORK,
    device: DeviceName = "cpu",
    deterministic: Annotated[Flag, Parameter(help="Equal steps give equal bits, also where this costs time.")] = False,
    out: Annotated[Path | None, Parameter(help="A new folder for the run; runs/... if left out.")] = None,
    resume: Annotated[Path | None, Parameter(help="Go on with this run, on any backend.")] = None,
    tensorboard: Annotated[
        str | None, Parameter(help="Log for TensorBoard; with DIR there, else in the run's folder.")
    ] = None,
    log_every: Annotated[Whole, Parameter(help="Print the loss of every N-th iteration.")] = None,
    json: JsonFile = None,
) -> None:
    """Train a recipe on one backend; options given change the recipe.

    Example: triptych train --backend jax --recipe d2l-vgg --width-ratio 8 --resolution 64
    """
    from triptych import data
    from triptych.backend import registry
    from triptych.cli.progress import Reporter
    from triptych.report import run as report
    from triptych.spec import records
    from triptych.training import loop, recipes, run_folder
    from triptych.training import tensorboard as logs
    from triptych.training.recipe import build_architecture
    from triptych.utils import remarks
    from triptych.utils.errors import TriptychError

    if log_every is not None and log_every < 1:
        raise TriptychError(f"--log-every {log_every} must be at least 1")
    name = backend if backend is not None else default_backend()
    registry.check_installed(name)
    if tensorboard is not None:
        logs.check(tensorboard)
    if resume is not None:
        if out is not None:
            raise TriptychError("give --out or --resume, not both: a resumed run stays in its folder")
        if recipe is not None:
            raise TriptychError("give --recipe or --resume, not both: a resumed run has its recipe")
        chosen = only_longer(run_folder.read_recipe(resume), run, network)
    else:
        chosen = run.apply(recipes.get_recipe("d2l-vgg" if recipe is None else recipe), network)
    dataset = data.load(chosen.data, data_dir=run.data_dir)
    architecture = build_architecture(chosen, dataset)  # refuse what cannot be built before a framework is loaded
    loaded = registry.load(name)
    first = loaded.join_processes(device) == 0  # the others neither write nor print
    session = loop.start(
        loaded, chosen, dataset, device=device, architecture=architecture, resumed=resume, deterministic=deterministic
    )
    if first:
        loop.keep_in(session, resume or out or run_folder.new_folder(f"{chosen.architecture}-{name}"))
    if session.new_layers is not None and first and json != "-":
        new = ", ".join(session.new_layers)
        print(f"{chosen.init_from}: {f'new layers: {new}' if new else 'every layer was taken over'}", flush=True)
    log = logs.place(tensorboard, session.folder)
    quiet = json == "-" or not first
    with (
        Reporter(chosen.epochs, quiet=quiet, log_every=log_every or 0) as reporter,
        logs.logged(reporter, log) as listener,
    ):
        epochs = loop.fit(session, listener)
    if not first:
        return
    if session.folder is not None:
        report.write(session.folder, chosen, epochs, loaded.versions())
    if json is not None:
        found = {"run": str(session.folder), "recipe": chosen.name, "epochs": records.encode(epochs)}
        write_json(json, {**found, "peak_memory": loaded.peak_memory(device), **remarks.finish()})
    if json != "-":
        if peak := loaded.peak_memory(device):
            print(f"peak memory of tensors on {device}: {peak / 2**20:.0f} MiB")
        print(f"model and metrics are in {session.folder}")


def only_longer(recipe: Recipe, run: RunOptions, network: NetworkOptions) -> Recipe:
    """A resumed run may get more epochs; everything else stays, or its result would be nobody's recipe."""
    from triptych.optim.schedules import Planned
    from triptych.utils.errors import TriptychError

    changed = run.apply(recipe, network)
    allowed = RunOptions(epochs=run.epochs).apply(recipe, DEFAULT_NETWORK)
    if changed != allowed:
        raise TriptychError(
            "with --resume only --epochs, --backend, --device, --log-every, --tensorboard and --data-dir can be given"
        )
    if allowed != recipe and isinstance(recipe.schedule, Planned) and not recipe.schedule.total_epochs:
        raise TriptychError(
            f"the run's schedule '{recipe.schedule.name}' is planned over {recipe.epochs} epochs; it cannot get others"
        )
    return allowed
