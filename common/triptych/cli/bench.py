"""`bench`: throughput of each backend against its peers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli import options
from triptych.cli.run_options import RunOptions
from triptych.report.tables import print_table

if TYPE_CHECKING:
    from triptych.bench.measure import Bench


def bench(
    *,
    backends: options.Backends = None,
    arch: Annotated[str | None, Parameter(help="Architecture; vgg11 if left out.")] = None,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    batch_size: Annotated[options.Whole, Parameter(help="Images per step; 64 if left out.")] = None,
    steps: Annotated[
        options.Positive, Parameter(help="Training steps, and batches of inference, per round; 5.")
    ] = None,
    rounds: Annotated[options.Positive, Parameter(help="How often each backend has its turn; 5.")] = None,
    precision: Annotated[str | None, Parameter(help="fp32, bf16, fp16 or fp64.")] = None,
    device: options.DeviceName = "cpu",
    json: options.JsonFile = None,
) -> None:
    """Time training and inference of one network on each backend, in turns; ratios are to the first row.

    Example: triptych bench --arch vgg11 --resolution 64 --width-ratio 8 --backends torch,mxnet
    """
    from triptych import data
    from triptych.backend import registry
    from triptych.bench import measure
    from triptych.training import capacity, loop

    names = options.backend_names(backends)
    recipe = RunOptions(arch=arch, batch_size=batch_size, precision=precision).choose(measure.RECIPE, network)
    capacity.check_training(recipe, device)
    loaded = [registry.load(name) for name in names]
    loop.check_execution(loaded, device, recipe.precision)
    quiet = json == "-"
    measured = measure.measure(
        recipe,
        data.load(recipe.data),
        loaded,
        device=device,
        steps=steps or 5,
        rounds=rounds or 5,
        tell=(lambda line: None) if quiet or not sys.stderr.isatty() else lambda line: print(line, file=sys.stderr),
    )
    options.write_json(json, measure.as_dict(measured))
    if not quiet:
        show(measured)


def show(measured: Bench) -> None:
    """What was timed, and the table."""
    from triptych.bench import measure

    facts = measure.as_dict(measured)
    shape = "x".join(map(str, facts["input"]))
    print(
        f"{facts['arch']}, input {shape}, {facts['parameters']:,} parameters, batch {facts['batch_size']}, "
        f"{facts['precision']}; median of {facts['rounds']} rounds of {facts['steps']} steps; "
        f"{facts['cores']} cores, load {facts['load_before']:.1f} before"
    )
    if narrowed := measure.narrowed(measured):
        print(f"narrowed from its source: {narrowed}; the ratios are of this network")
    for device in dict.fromkeys(row.device for row in measured.rows):
        print(device)
    columns, rows = measure.table(measured)
    print_table(columns, rows, right=range(2, len(columns)))
