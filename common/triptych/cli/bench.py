"""`bench`: throughput of each backend against its peers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import Backends, DeviceName, JsonFile, NetworkOptions, Whole, backend_names, write_json
from triptych.cli.run_options import RunOptions

if TYPE_CHECKING:
    from triptych.bench.measure import Bench

DEFAULT_NETWORK = NetworkOptions()


def bench(
    *,
    backends: Backends = None,
    arch: Annotated[str | None, Parameter(help="Architecture; vgg11 if left out.")] = None,
    network: NetworkOptions = DEFAULT_NETWORK,
    batch_size: Annotated[Whole, Parameter(help="Images per step; 64 if left out.")] = None,
    steps: Annotated[Whole, Parameter(help="Training steps, and batches of inference, per round; 5.")] = None,
    rounds: Annotated[Whole, Parameter(help="How often each backend has its turn; 5.")] = None,
    precision: Annotated[str | None, Parameter(help="fp32, bf16, fp16 or fp64.")] = None,
    device: DeviceName = "cpu",
    json: JsonFile = None,
) -> None:
    """Time training and inference of one network on each backend, in turns; ratios are to the first row.

    Example: triptych bench --arch vgg11 --resolution 64 --width-ratio 8 --backends torch,mxnet
    """
    from triptych import data
    from triptych.backend import registry
    from triptych.bench import measure

    turns = measure.Turns(5 if steps is None else steps, 5 if rounds is None else rounds)
    names = backend_names(backends)
    recipe = RunOptions(arch=arch, batch_size=batch_size, precision=precision).choose(measure.RECIPE, network)
    quiet = json == "-"
    measured = measure.measure(
        recipe,
        data.load(recipe.data),
        [registry.load(name) for name in names],
        device=device,
        turns=turns,
        tell=(lambda line: None) if quiet or not sys.stderr.isatty() else lambda line: print(line, file=sys.stderr),
    )
    if json is not None:
        write_json(json, measure.as_dict(measured))
    if not quiet:
        show(measured)


def show(measured: Bench) -> None:
    """What was timed, and the table."""
    from triptych.bench import measure
    from triptych.report.tables import print_table

    facts = measure.as_dict(measured)
    shape = "x".join(map(str, facts["input"]))
    print(
        f"{facts['arch']}, input {shape}, {facts['parameters']:,} parameters, batch {facts['batch_size']}, "
        f"{facts['precision']}; median of {facts['rounds']} rounds of {facts['steps']} steps; "
        f"{facts['cores']} cores, load {facts['load_before']:.1f} before"
    )
    for device in dict.fromkeys(row.device for row in measured.rows):
        print(device)
    columns, rows = measure.table(measured)
    print_table(columns, rows, right=range(2, len(columns)))
