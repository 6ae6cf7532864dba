"""The textbooks' loops that speed is held against, on the network in each framework's own idiom."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.numpy import save_file

from triptych.backend import registry
from triptych.backend.contract import Native, Textbook
from triptych.emitting.emit import emit
from triptych.optim.optimizers import Rates
from triptych.spec.analysis import auxiliary_weights
from triptych.spec.layers import Architecture
from triptych.weights.initializers import Parameters


def plain_network(architecture: Architecture, backend: str, parameters: Parameters) -> Native:
    """The network that `triptych emit` writes, which uses none of the backend's own layers, with these parameters."""
    emitted = emit(architecture, backend)
    defined: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(emitted.source, f"{emitted.network}.py", "exec"), defined)
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        save_file(emitted.state(parameters), weights)
        return defined["load"](str(weights))


def textbook(
    architecture: Architecture,
    backend: str,
    parameters: Parameters,
    batch_size: int,
    rates: Rates,
    device: str = "cpu",
    *,
    prepared: bool = True,
) -> Textbook:
    """The loop of the backend's textbook on that network; without `prepared` in a process as its users have it. Raises
    TriptychError for a backend that is not there."""
    made = registry.load_benchmark(backend, prepared=prepared)
    network = plain_network(architecture, backend, parameters)
    _, height, width = architecture.input
    return made.Textbook(network, (height, width), batch_size, rates, device, auxiliary_weights(architecture))
