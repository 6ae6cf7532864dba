"""`bench`: throughput of each backend against its peers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

from cyclopts import Parameter

from triptych.cli import options
from triptych.cli.run_options import RunOptions
from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError, check_known
from triptych.utils.files import probe, told, write_atomically

if TYPE_CHECKING:
    from triptych.bench.accuracy import Gate
    from triptych.bench.measure import Bench
    from triptych.training.recipe import Recipe


@Parameter(name="*")
@dataclass
class GateOptions:
    """The trainings that have to reach the same before a ratio counts."""

    seeds: Annotated[options.Positive, Parameter(help="Also train so often, and compare the accuracies.")] = None
    epochs: Annotated[options.Positive, Parameter(help="Epochs of these trainings; 1.")] = None
    learning_rate: Annotated[float | None, Parameter(help="Their learning rate; 0.05.")] = None

    def gate(self) -> Gate:
        """Raises TriptychError for what goes with --seeds alone, and for a rate that is not above 0."""
        from triptych.bench.accuracy import Gate

        for name, value in (("--epochs", self.epochs), ("--learning-rate", self.learning_rate)):
            if value is not None and self.seeds is None:
                raise TriptychError(f"{name} is of the trainings of --seeds; give both")
        rate = Gate.learning_rate if self.learning_rate is None else self.learning_rate
        if not 0 < rate < math.inf:
            raise TriptychError(f"--learning-rate {rate:g} must be above 0, and finite")
        return Gate(self.seeds or 0, self.epochs or Gate.epochs, rate)


NO_GATE = GateOptions()


class Amount(TypedDict):
    """On what is measured, and how much; who is told."""

    device: str
    steps: int
    rounds: int
    tell: Callable[[str], None]


def bench(
    *,
    backends: options.Backends = None,
    arch: Annotated[str | None, Parameter(help="Architecture; vgg11 if left out.")] = None,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    data: Annotated[str | None, Parameter(help="Data set; synthetic if left out.")] = None,
    skip_bad_images: options.SkipBadImages = None,
    scale_16_bit: options.Scale16Bit = None,
    batch_size: Annotated[options.Whole, Parameter(help="Images per step; 64 if left out.")] = None,
    steps: Annotated[options.Positive, Parameter(help="Steps, and batches of each kind, per round; 5.")] = None,
    rounds: Annotated[options.Positive, Parameter(help="How often each subject has its turn; 10.")] = None,
    kinds: Annotated[
        str | None, Parameter(help="What is timed, comma-separated: preparation, training, epoch, inference; all.")
    ] = None,
    precision: Annotated[str | None, Parameter(help="fp32, bf16, fp16 or fp64.")] = None,
    device: options.DeviceName = "cpu",
    vs: Annotated[
        str | None,
        Parameter(help="textbook: every backend's textbook's loop too; nnx, gluon: that of JAX, of MXNet."),
    ] = None,
    tuned: Annotated[
        options.Flag, Parameter(help="Textbooks' loops get the threads and allocator that the backends get.")
    ] = False,
    training: GateOptions = NO_GATE,
    scaling: Annotated[
        Path | None,
        Parameter(help="Instead, how time and memory grow with batch, resolution, depth, data set: a figure (.svg)."),
    ] = None,
    csv: Annotated[Path | None, Parameter(help="Every turn as a line of CSV.")] = None,
    json: options.JsonFile = None,
) -> None:
    """Time preparation, training, epoch and inference of one network on each backend, in turns; ratios to the first.

    Each backend, and with --vs each textbook's loop, runs in a process of its own. First steps, which compile, are told
    apart; ratios only where the first losses, without dropout, are one, and with --seeds accuracies within 0.3 points.
    Example: triptych bench --arch vgg11 --resolution 64 --width-ratio 8 --backends torch,mxnet --vs textbook
    """
    from triptych.backend import registry
    from triptych.bench import measure, report
    from triptych.data import load
    from triptych.training import capacity, sessions
    from triptych.training.recipe import build_architecture

    names = options.backend_names(backends)
    peers, timed, gate = against(vs, names), asked(kinds), training.gate()
    run = RunOptions(arch=arch, data=data, batch_size=batch_size, precision=precision)
    run.skip_bad_images, run.scale_16_bit = skip_bad_images, scale_16_bit
    recipe = run.choose(measure.RECIPE, network)
    capacity.check_training(recipe, device)
    sessions.check_execution([registry.load(name) for name in names], device, recipe.precision)
    quiet = json == "-"
    tell = silent if quiet or not sys.stderr.isatty() else told_on_stderr
    amount: Amount = {"device": device, "steps": steps or 5, "rounds": rounds or 10, "tell": tell}
    if scaling is not None:
        refuse_with_scaling(vs=vs, kinds=kinds, csv=csv, tuned=tuned or None, seeds=training.seeds)
        grow(scaling, recipe, names, amount, json)
        return
    measured = measure.measure(
        recipe,
        build_architecture(recipe, load(recipe.data, reading=recipe.reading)),
        names,
        against=peers,
        tuned=tuned,
        kinds=timed,
        gate=gate,
        **amount,
    )
    options.write_json(json, report.as_dict(measured))
    if csv is not None:
        with told(f"--csv {csv} cannot be written"):
            write_atomically(csv, report.as_csv(measured).encode())
    if not quiet:
        show(measured)


def grow(figure: Path, recipe: Recipe, backends: list[str], amount: Amount, json: str | None) -> None:
    """Measure how cost grows, draw it, and say it as a table or JSON."""
    from triptych.bench import growth

    if figure.suffix != ".svg":
        raise TriptychError(f"--scaling {figure} is written as SVG; call it {figure.stem or 'scaling'}.svg")
    with told(f"--scaling {figure} cannot be written"):
        probe(figure.parent)
    points = growth.measure(recipe, backends, **amount)
    growth.write(points, figure)
    options.write_json(json, growth.as_dicts(points))
    if json != "-":
        print_table(*growth.table(points), right=range(2, len(growth.COLUMNS)))


def refuse_with_scaling(**given: object) -> None:
    """Raises TriptychError for options that say nothing there."""
    for name, value in given.items():
        if value is not None:
            raise TriptychError(f"--{name} and --scaling do not go together: nothing is compared there")


def silent(line: str) -> None:
    """Nothing is told."""


def told_on_stderr(line: str) -> None:
    """For a person who waits."""
    print(line, file=sys.stderr)


def asked(kinds: str | None) -> tuple[str, ...]:
    """The kinds of work that are timed, in their order. Raises TriptychError for a word that is none."""
    from triptych.bench.tasks import KINDS

    named = KINDS if kinds is None else tuple(filter(None, kinds.split(",")))
    check_known("--kinds", named or [""], KINDS)
    return tuple(kind for kind in KINDS if kind in named)


def against(vs: str | None, backends: list[str]) -> list[str]:
    """The backends whose textbooks' loops are timed. Raises TriptychError for a word that names none."""
    from triptych.backend import registry
    from triptych.backend.registry import BACKENDS

    if vs is None:
        return []
    if vs == "textbook":
        return backends
    by_name = {entry.textbook: name for name, entry in BACKENDS.items()}
    check_known("--vs", [vs], ("textbook", *filter(None, by_name)))
    registry.check_installed(by_name[vs])
    return [by_name[vs]]


def show(measured: Bench) -> None:
    """What was timed, the table, and what belongs to it."""
    from triptych.bench import report

    facts = report.as_dict(measured)
    shape = "x".join(map(str, facts["input"]))
    print(
        f"{facts['arch']}, input {shape}, {facts['parameters']:,} parameters, {facts['data']}, batch "
        f"{facts['batch_size']}, {facts['precision']}; medians of {facts['rounds']} rounds of {facts['steps']} steps; "
        f"{facts['cores']} cores, OMP_WAIT_POLICY {facts['wait_policy'] or 'not set'}, "
        f"load {facts['load_before']:.1f} before"
    )
    if narrowed := report.narrowed(measured):
        print(f"narrowed from its source: {narrowed}; the ratios are of this network")
    columns, rows = report.table(measured)
    print_table(columns, rows, right=range(2, len(columns)))
    for line in report.footnotes(measured):
        print(line)
