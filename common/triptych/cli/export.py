"""`export`: a network with its weights as a file for others' programs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from triptych.cli import options
from triptych.cli.arch import resolve
from triptych.utils.errors import TriptychError, check_known


def onnx(
    arch: Annotated[str, Parameter(help="A run folder or network with weights; one without, with --weights.")],
    file: Annotated[Path, options.written("FILE", "The file to write; it ends in .onnx.")],
    *,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
) -> int:
    """Write an ONNX file from spec and weights; onnx checks it, and onnxruntime, if installed, runs it against the
    reference. Exit status 1 if the outputs differ.

    Example: triptych export onnx runs/vgg11 vgg11.onnx
    """
    from triptych.exporting import onnx_check, onnx_file
    from triptych.exporting.onnx_graph import OPSET
    from triptych.utils.files import write_atomically

    if file.suffix != ".onnx":
        raise TriptychError(f"FILE {file} must end in .onnx")
    imported = resolve(arch, network)
    if imported.parameters is None:
        raise TriptychError(f"'{arch}' has no weights; name a source that has some, or --weights FILE")
    content = onnx_file.content(imported.architecture, imported.parameters)
    compared = onnx_check.compare(content, imported.architecture, imported.parameters)
    if not compared.passed:
        print(
            f"{file}: not written: its outputs differ from the reference's, {compared.ratio:.3g} times what float32 "
            "explains",
            file=sys.stderr,
        )
        return 1
    write_atomically(file, content)
    outcome = f"not compared: {compared.reason}"
    if compared.ratio is not None:
        outcome = f"onnxruntime agrees with the reference ({compared.ratio:.2g} of the float32 budget)"
    print(f"{file}: operator set {OPSET}, {len(content):,} bytes; checked by onnx; {outcome}")
    return 0


def states(
    run: Annotated[Path, Parameter(help="A run folder.")],
    file: Annotated[
        Path, options.written("FILE", "The file to write; .pt (PyTorch), .msgpack (optax) or .states (MXNet).")
    ],
    *,
    symbol: Annotated[Path | None, Parameter(help="For .states: the NAME-symbol.json that the run began from.")] = None,
    params: Annotated[
        Path | None, Parameter(help="For .states: its FILE.params; the run's are written in its form.")
    ] = None,
    flatten: Annotated[
        str | None, Parameter(help="How a Flax network flattens a map: hwc (its own way) or chw (triptych's).")
    ] = None,
) -> None:
    """Write what the optimiser of a run remembers, for a training loop of your own; its weights come by `convert`, for
    MXNet beside the states.

    Example: triptych export states runs/vgg11 optimizer.pt
    """
    from triptych.exporting import optimizer_states
    from triptych.importers.mxnet_back import Back
    from triptych.importers.steps import Request
    from triptych.optim.schedules import Score
    from triptych.training import run_folder
    from triptych.training.models import load_run
    from triptych.weights.naming import FLATTEN_ORDERS

    check_known("--flatten", [] if flatten is None else [flatten], FLATTEN_ORDERS)
    trained, checkpoint = load_run(run), run_folder.load(run)
    assert checkpoint is not None
    if not checkpoint.epoch:
        raise TriptychError(f"{run} has no finished epoch yet, so no rate to write; train on with --resume {run}")
    epochs = run_folder.read_epochs(run)[: checkpoint.epoch]
    history = [Score(epoch.test_loss, epoch.test_accuracy) for epoch in epochs]
    known = history if checkpoint.state.figures else history[:-1]  # when the last step was made
    rates = trained.recipe.rates(checkpoint.step - 1, epochs[0].step, known)
    remembered = optimizer_states.States(
        trained.recipe.optimizer, checkpoint.optimizer, rates.learning_rate, trained.architecture, flatten
    )
    if (symbol is None) != (params is None):
        raise TriptychError("--symbol and --params are given together")
    if symbol is not None and params is not None:
        request = Request(input=trained.architecture.input)
        remembered = replace(
            remembered, back=Back(symbol, params, request, trained.architecture), parameters=checkpoint.model
        )
    print(f"{file}: {optimizer_states.write(file, remembered)}")


def card(
    arch: Annotated[
        str, Parameter(help="A run folder, or any network; of a run the card tells training and accuracy.")
    ],
    file: Annotated[Path, options.written("FILE", "The file to write; it ends in .md.")],
    *,
    certificate: Annotated[Path | None, Parameter(help="What `conform --certificate` wrote of this network.")] = None,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
) -> None:
    """Write a model card: architecture, counts, recipe, accuracy, certificate.

    Example: triptych export card runs/vgg11 MODEL_CARD.md
    """
    from triptych.exporting import model_card
    from triptych.utils.files import write_atomically

    if file.suffix != ".md":
        raise TriptychError(f"FILE {file} must end in .md")
    run = Path(arch) if Path(arch).is_dir() else None
    write_atomically(file, model_card.text(resolve(arch, network).architecture, run, certificate).encode())
    print(f"{file}: {arch}")


export = App(
    help="Write a network for others' programs.\n\nExample: triptych export onnx runs/vgg11 vgg11.onnx",
    help_format="plaintext",
)
export.command(onnx, name="onnx")
export.command(states, name="states")
export.command(card, name="card")
