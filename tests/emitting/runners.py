"""Runs an emitted file as its reader would: executed in a namespace of its own, weights through its own `load`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from triptych.emitting.emit import Emitted
from triptych.utils.arrays import Array


class Ran(NamedTuple):
    """One pass: the outputs; in training the gradients of the parameters and what the running statistics then are, by
    canonical path, the images' own gradient under `input`."""

    outputs: list[Array]
    gradients: dict[str, Array]
    state: dict[str, Array]


def execute(emitted: Emitted) -> dict[str, Any]:
    """The names that the file defines."""
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(emitted.source, f"{emitted.network}.py", "exec"), namespace)
    return namespace


def load(emitted: Emitted, parameters: dict[str, Array], folder: Path) -> Any:
    """The file's network with these parameters, from a safetensors file."""
    if emitted.backend == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)  # without it JAX turns float64 into float32
    path = folder / "model.safetensors"
    save_file(emitted.state(parameters), path)
    return execute(emitted)["load"](str(path))


def run(emitted: Emitted, network: Any, images: Array, train: bool, cotangents: list[Array]) -> Ran:
    """One pass of the network on canonical images; everything comes back canonical."""
    return {"torch": _torch, "jax": _jax, "mxnet": _mxnet}[emitted.backend](emitted, network, images, train, cotangents)


def _torch(emitted: Emitted, network: Any, images: Array, train: bool, cotangents: list[Array]) -> Ran:
    import torch

    network.double().train(train)
    x = torch.from_numpy(np.array(images)).requires_grad_()
    found = network(x)
    outputs = list(found) if isinstance(found, tuple) else [found]
    gradients = {}
    if train:
        sum((y * torch.from_numpy(c)).sum() for y, c in zip(outputs, cotangents, strict=True)).backward()
        own = {name: p.grad.numpy() for name, p in network.named_parameters() if p.grad is not None}
        gradients = _canonical(emitted, own) | {"input": x.grad.numpy()}
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    return Ran([y.detach().numpy() for y in outputs], gradients, _canonical(emitted, state))


def _jax(emitted: Emitted, network: Any, images: Array, train: bool, cotangents: list[Array]) -> Ran:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    kept = nnx.Any(nnx.Param, nnx.BatchStat)
    nnx.update(network, jax.tree.map(lambda array: array.astype("float64"), nnx.state(network, kept)))
    network.train() if train else network.eval()
    x = jnp.asarray(images.transpose(0, 2, 3, 1))

    def both(network: Any, x: Any) -> Any:
        found = network(x)
        outputs = list(found) if isinstance(found, tuple) else [found]
        loss = sum((y * _last(jnp.asarray(c))).sum() for y, c in zip(outputs, cotangents, strict=False))
        return loss, outputs

    if not train:
        found = nnx.jit(lambda network, x: network(x))(network, x)
        outputs, gradients = list(found) if isinstance(found, tuple) else [found], {}
    else:
        compiled = nnx.jit(lambda network, x: nnx.grad(both, argnums=(0, 1), has_aux=True)(network, x))
        (own, images_gradient), outputs = compiled(network, x)
        gradients = _canonical(emitted, _flat(own)) | {"input": np.asarray(_first(images_gradient))}
    state = _canonical(emitted, _flat(nnx.state(network, kept)))
    return Ran([np.asarray(_first(y)) for y in outputs], gradients, state)


def _flat(state: Any) -> dict[str, NDArray[Any]]:
    from flax import nnx

    return {".".join(map(str, keys)): np.asarray(value[...]) for keys, value in nnx.to_flat_state(state)}


def _first(x: Any) -> Any:
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def _last(x: Any) -> Any:
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def _mxnet(emitted: Emitted, network: Any, images: Array, train: bool, cotangents: list[Array]) -> Ran:
    import mxnet as mx
    from mxnet import autograd

    with autograd.record():  # auxiliary classifiers too
        network(mx.nd.array(images[:1]))  # finds the shapes
    network.cast("float64")
    x = mx.nd.array(images, dtype="float64")
    x.attach_grad()
    if not train:
        found = network(x)
    else:
        with autograd.record():
            found = network(x)
            outputs = list(found) if isinstance(found, list | tuple) else [found]
            parts = [(y * mx.nd.array(c, dtype="float64")).sum() for y, c in zip(outputs, cotangents, strict=True)]
            loss = parts[0]
            for part in parts[1:]:
                loss = loss + part
        loss.backward()
    outputs = list(found) if isinstance(found, list | tuple) else [found]
    parameters = network._collect_params_with_prefix()
    own = {name: p.grad().asnumpy() for name, p in parameters.items() if train and p.grad_req != "null"}
    gradients = _canonical(emitted, own) | ({"input": x.grad.asnumpy()} if train else {})
    state = {name: p.data().asnumpy() for name, p in parameters.items()}
    return Ran([y.asnumpy() for y in outputs], gradients, _canonical(emitted, state))


def _canonical(emitted: Emitted, own: dict[str, NDArray[Any]]) -> dict[str, Array]:
    names = {name: path for path, name in emitted.names.items()}
    return {
        names[name]: np.asarray(emitted.layout.to_canonical(value), np.float64)
        for name, value in own.items()
        if name in names
    }


def train(emitted: Emitted, network: Any, images: Array, cotangent: Array, rate: float, steps: int) -> dict[str, Array]:
    """What the parameters and running statistics are after so many steps of the framework's own plain gradient descent
    on the sum of output times cotangent."""
    return {"torch": _torch_steps, "jax": _jax_steps, "mxnet": _mxnet_steps}[emitted.backend](
        emitted, network, images, cotangent, rate, steps
    )


def _torch_steps(
    emitted: Emitted, network: Any, images: Array, cotangent: Array, rate: float, steps: int
) -> dict[str, Array]:
    import torch

    network.double().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(torch.from_numpy(images)) * torch.from_numpy(cotangent)).sum().backward()
        optimizer.step()
    return _canonical(emitted, {name: value.numpy() for name, value in network.state_dict().items()})


def _jax_steps(
    emitted: Emitted, network: Any, images: Array, cotangent: Array, rate: float, steps: int
) -> dict[str, Array]:
    import jax
    import optax
    from flax import nnx

    kept = nnx.Any(nnx.Param, nnx.BatchStat)
    nnx.update(network, jax.tree.map(lambda array: array.astype("float64"), nnx.state(network, kept)))
    network.train()
    optimizer = nnx.Optimizer(network, optax.sgd(rate), wrt=nnx.Param)
    x = images.transpose(0, 2, 3, 1)

    @nnx.jit
    def step(network: Any, optimizer: Any) -> None:
        gradients = nnx.grad(lambda network: (network(x) * cotangent).sum())(network)
        optimizer.update(network, gradients)

    for _ in range(steps):
        step(network, optimizer)
    return _canonical(emitted, _flat(nnx.state(network, kept)))


def _mxnet_steps(
    emitted: Emitted, network: Any, images: Array, cotangent: Array, rate: float, steps: int
) -> dict[str, Array]:
    import mxnet as mx
    from mxnet import autograd, gluon

    network(mx.nd.array(images[:1]))  # finds the shapes
    network.cast("float64")
    network.hybridize()
    trainer = gluon.Trainer(network.collect_params(), "sgd", {"learning_rate": rate, "wd": 0.0})
    x, weights = (mx.nd.array(value, dtype="float64") for value in (images, cotangent))
    for _ in range(steps):
        with autograd.record():
            loss = (network(x) * weights).sum()
        loss.backward()
        trainer.step(1)
    parameters = network._collect_params_with_prefix()
    return _canonical(emitted, {name: p.data().asnumpy() for name, p in parameters.items()})
