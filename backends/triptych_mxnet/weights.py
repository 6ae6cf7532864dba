"""To and from canonical parameters. In MXNet these are the parameters by prefix, with gamma and beta renamed."""

from typing import Any

import mxnet as mx
from numpy.typing import NDArray

from triptych.weights.initializers import Parameters
from triptych.weights.store import check_fit
from triptych_mxnet.model import Network


def to_canonical(network: Network) -> Parameters:
    """Copies of all parameters and running statistics, by path."""
    return {path: to_numpy(parameter.list_data()[0]) for path, parameter in network.named_parameters().items()}


def from_canonical(network: Network, parameters: Parameters) -> None:
    """Copy `parameters` into the network. Raises TriptychError unless names and shapes fit exactly."""
    check_fit(network.architecture, parameters)
    for path, parameter in network.named_parameters().items():
        parameter.set_data(from_numpy(parameters[path], parameter.list_data()[0]))


def initialize(network: Network, seed: int) -> None:
    """Gluon's own start: uniform within 0.07 for weights, 0 for biases."""
    mx.random.seed(seed)
    network.initialize(mx.init.Uniform(0.07), network.device, force_reinit=True)


def to_numpy(value: mx.nd.NDArray) -> NDArray[Any]:
    """A copy on the host; waits for it."""
    return value.asnumpy()


def from_numpy(value: NDArray[Any], like: mx.nd.NDArray) -> mx.nd.NDArray:
    """A canonical array in the type and place of `like`."""
    return mx.nd.array(value, like.context, like.dtype)
