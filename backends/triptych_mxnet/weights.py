"""To and from canonical parameters. In MXNet these are the parameters by prefix, with gamma and beta renamed."""

from __future__ import annotations

import mxnet as mx

from triptych.weights.initializers import Parameters
from triptych.weights.store import check_fit
from triptych_mxnet.model import Network


def to_canonical(network: Network) -> Parameters:
    """Copies of all parameters and running statistics, by path."""
    return {path: to_numpy(parameter.data()) for path, parameter in network.named_parameters().items()}


def from_canonical(network: Network, parameters: Parameters) -> None:
    """Copy `parameters` into the network. Raises TriptychError unless names and shapes fit exactly."""
    check_fit(network.architecture, parameters)
    for path, parameter in network.named_parameters().items():
        parameter.set_data(mx.nd.array(parameters[path], network.device, parameter.dtype))


def initialize(network: Network, seed: int) -> None:
    """Gluon's own start: uniform within 0.07 for weights, 0 for biases."""
    mx.random.seed(seed)
    network.initialize(mx.init.Uniform(0.07), network.device, force_reinit=True)


def to_numpy(tensor: mx.nd.NDArray) -> Parameters:
    """A copy on the host; waits for it."""
    return tensor.asnumpy()
