"""`train`: one recipe on one backend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli import options, start
from triptych.cli.processes import launch, to_launch
from triptych.cli.run_options import DEFAULT_RUN, RunOptions
from triptych.utils import remarks
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.backend.contract import Backend
    from triptych.backend.group import Group
    from triptych.training.recipe import Recipe
    from triptych.training.saving import SavePlan
    from triptych.training.sessions import Session


def train(
    *,
    recipe: Annotated[str | None, Parameter(help="What to start from; d2l-vgg if left out.")] = None,
    backend: options.BackendName = None,
    run: RunOptions = DEFAULT_RUN,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    device: options.DeviceName = "cpu",
    processes: Annotated[
        options.Several, Parameter(help="Start so many on this machine, which share every batch.")
    ] = None,
    devices: Annotated[
        options.Several, Parameter(help="Devices that each process trains on; where the backend can, else processes.")
    ] = None,
    deterministic: Annotated[
        options.Flag, Parameter(help="Equal steps give equal bits, also where this costs time.")
    ] = False,
    out: Annotated[Path | None, Parameter(help="A new folder for the run; runs/... if left out.")] = None,
    resume: Annotated[Path | None, Parameter(help="Go on with this run, on any backend.")] = None,
    states: Annotated[
        Path | None,
        Parameter(
            help="Go on with what the trainer of --init-from's weights remembered: MXNet's, PyTorch's or optax's file."
        ),
    ] = None,
    states_steps: Annotated[
        options.Positive,
        Parameter(help="After so many steps --states was saved, where it does not say (a Module's Adam)."),
    ] = None,
    tensorboard: Annotated[
        str | None, Parameter(help="Log for TensorBoard; with DIR there, else in the run's folder.")
    ] = None,
    log_every: Annotated[options.Positive, Parameter(help="Print the mean loss of every N iterations.")] = None,
    stop_stuck: Annotated[
        options.Flag, Parameter(help="End a training that does not learn, once it is seen, with status 1.")
    ] = False,
    save_every: Annotated[
        str | None, Parameter(help="Save within an epoch too, e.g. every 200steps or 5min; also on SIGINT.")
    ] = None,
    keep: Annotated[options.Positive, Parameter(help="How many checkpoints stay.", show_default="2")] = None,
    json: options.JsonFile = None,
) -> int:
    """Train a recipe on one backend; options given change the recipe.

    A line says so, with what the run shows of the cause, where nothing is learned after 300 steps.

    Example: triptych train --backend jax --recipe d2l-vgg --width-ratio 8 --resolution 64
    """
    from triptych.backend import registry
    from triptych.training import capacity, keeping, run_folder
    from triptych.training import tensorboard as logs
    from triptych.training.distributed.membership import one_of

    name = options.backend_name(backend)
    if tensorboard is not None:
        options.check_log(tensorboard)
    plan = save_plan(save_every, keep)
    chosen = choose_recipe(recipe, resume, out, run, network)
    if out is not None:
        run_folder.check_free(out)
    begun = start.check(chosen, resume, states, run.arch, states_steps)
    capacity.check_training(chosen, device)
    loaded = registry.load(name)
    if processes is not None and to_launch(loaded, processes):
        return launch(loaded, processes)
    group = loaded.join(device, devices or 1)
    with one_of(group):
        quiet = json == "-" or group.rank > 0  # the others neither write nor print
        session = begin(loaded, chosen, begun, run.data_dir, network, group, device, deterministic, resume)
        begun.take_up(session, quiet=quiet)
        if group.rank == 0:
            keeping.keep_in(session, resume or out or run_folder.new_folder(f"{chosen.architecture}-{name}"), plan)
        log = logs.place(tensorboard, session.folder)
        stopped = fit(session, log, log_every or 0, stop_stuck=stop_stuck, quiet=quiet)
        if group.rank == 0:
            tell(session, device, json)
    return 1 if stopped else 0


def begin(
    backend: Backend,
    recipe: Recipe,
    begun: start.Start,
    data_dir: Path | None,
    network: options.NetworkOptions,
    group: Group,
    device: str,
    deterministic: bool,
    resume: Path | None,
) -> Session:
    """The session, once it is known that device and data are there."""
    from triptych import data
    from triptych.backend.execution import Execution
    from triptych.training import sessions
    from triptych.training.recipe import build_architecture

    backend.apply_execution(Execution(recipe.precision, deterministic=deterministic), device)
    dataset = data.load(recipe.data, data_dir=data_dir, reading=recipe.reading)
    architecture = build_architecture(recipe, dataset)
    return sessions.start(
        backend,
        recipe,
        dataset,
        device=device,
        deterministic=deterministic,
        architecture=architecture,
        resumed=resume,
        pretrained=begun.parameters(architecture, network),
        writes=group.rank == 0,
        group=group,
    )


def save_plan(every: str | None, keep: int | None) -> SavePlan:
    """When the run is saved and what stays of it. Raises TriptychError for what is no interval."""
    from triptych.training import saving

    interval = None if every is None else saving.parse_interval(every)
    return saving.SavePlan(keep or saving.DEFAULT_PLAN.keep, interval)


def choose_recipe(
    name: str | None, resume: Path | None, out: Path | None, run: RunOptions, network: options.NetworkOptions
) -> Recipe:
    """What to train: a recipe with what the options change, or the recipe of the run to go on with."""
    from triptych.training import recipes, run_folder

    if resume is None:
        return run.choose(recipes.get_recipe("d2l-vgg" if name is None else name), network)
    if out is not None:
        raise TriptychError("give --out or --resume, not both: a resumed run stays in its folder")
    if name is not None:
        raise TriptychError("give --recipe or --resume, not both: a resumed run has its recipe")
    run.apply(recipes.get_recipe("d2l-vgg"), network)  # refuse wrong values before the folder is looked for
    return only_longer(run_folder.read_recipe(resume), run, network)


def fit(session: Session, log: Path | None, log_every: int, *, stop_stuck: bool, quiet: bool) -> bool:
    """Train to the end, told to a person and to the log; whether it was stopped because it does not learn."""
    from triptych.cli.progress import Reporter
    from triptych.training import loop
    from triptych.training import tensorboard as logs

    if session.remark and session.folder is not None:
        print(session.remark, file=sys.stderr, flush=True)
    if session.new_layers is not None and not quiet:
        new = f"new layers: {', '.join(session.new_layers)}" if session.new_layers else "every layer was taken over"
        print(f"{session.recipe.init_from}: {new}", flush=True)
    epochs = session.recipe.epochs
    with Reporter(epochs, quiet=quiet, log_every=log_every) as reporter, logs.logged(reporter, log) as listener:
        try:
            loop.fit(session, listener, stop_stuck=stop_stuck)
        except loop.StuckError as stopped:
            if not quiet:
                print(stopped, flush=True)
            return True
    return False


def tell(session: Session, device: str, json: str | None) -> None:
    """Write the run's page and JSON, and say where they are."""
    from triptych.report import run as report
    from triptych.spec import records

    assert session.folder is not None
    report.write(session.folder, session.recipe, session.architecture, session.epochs, session.backend.versions())
    peak = session.backend.peak_memory(device)
    if json is not None:
        epochs = [records.encode(epoch) for epoch in session.epochs]
        facts = {"run": str(session.folder), "recipe": session.recipe.name, "epochs": epochs, "peak_memory": peak}
        facts |= {"does_not_learn": session.stuck} if session.stuck else {}
        options.write_json(json, facts | remarks.finish())
    if json != "-":
        if peak:
            print(f"peak memory of tensors on {device}: {peak / 2**20:.0f} MiB")
        print(f"model and metrics are in {session.folder}")


def only_longer(recipe: Recipe, run: RunOptions, network: options.NetworkOptions) -> Recipe:
    """A resumed run may get more epochs; everything else stays, or its result would be nobody's recipe."""
    from triptych.optim.schedules import Planned

    changed = run.apply(recipe, network)
    allowed = RunOptions(epochs=run.epochs).apply(recipe, options.DEFAULT_NETWORK)
    if changed != allowed:
        raise TriptychError(
            "with --resume only --epochs, --backend, --device, --log-every, --tensorboard, --data-dir, "
            "--save-every and --keep can be given"
        )
    if allowed != recipe and isinstance(recipe.schedule.main, Planned) and not recipe.schedule.main.total_epochs:
        raise TriptychError(
            f"the run's schedule '{recipe.schedule.name}' is planned over {recipe.epochs} epochs; it cannot get others"
        )
    return allowed
