"""A built network is an object of its framework: what its users do with one works, without a line of ours."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import triptych
from triptych import zoo
from triptych.backend import registry
from triptych.spec import layers as spec
from triptych.spec.analysis import primitives
from triptych.spec.layers import Dropout

BACKENDS = registry.installed()
SMALL = {"input": (3, 32, 32), "classes": 10, "width_ratio": 8}
needs_jax = pytest.mark.skipif("jax" not in BACKENDS, reason="jax is not installed")
needs_mxnet = pytest.mark.skipif("mxnet" not in BACKENDS, reason="mxnet is not installed")
needs_torch = pytest.mark.skipif("torch" not in BACKENDS, reason="torch is not installed")


def built(backend: str) -> Any:
    """A VGG with two dropout layers of one size."""
    return triptych.build("vgg11", backend=backend, **SMALL)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, *SMALL["input"])).astype("float32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_printed_shows_every_layer(backend: str) -> None:
    text = repr(built(backend))
    layers = [info.path.rsplit(".", 1)[-1] for info in primitives(zoo.build("vgg11", **SMALL))]
    shown = re.findall(r"\b(\w+)[)=]", text)
    assert [name for name in layers if name not in shown and not (backend == "jax" and "relu" in name)] == []


@pytest.mark.skipif("mxnet" not in BACKENDS, reason="mxnet is not installed")
def test_gluon_prints_the_numbers_of_what_has_no_layer_in_it() -> None:
    layers = (
        spec.LeakyReLU("leaky", 0.3),
        spec.LocalResponseNorm("lrn", 5, 0.1, 0.75, 2.0),
        spec.AvgPool("pool", (3, 3), (2, 2), ceil=True),
        spec.Flatten("flatten"),
        spec.Dense("dense", 4),
    )
    initializer = spec.Initializer("kaiming_normal")
    network = triptych.build(spec.Architecture("printed", (3, 12, 12), 4, layers, initializer), backend="mxnet")
    lines = [line.strip() for line in str(network).splitlines()]
    assert "(leaky): LeakyReLU(slope=0.3)" in lines
    assert any(line.startswith("(lrn): LocalResponseNorm(size=5, alpha=0.1, beta=0.75, k=2.0") for line in lines)
    assert not any(line.endswith("(") for line in lines[1:])


@needs_jax
@pytest.mark.parametrize("own", [True, False])
def test_flax_trains_in_a_loop_of_ones_own_with_dropout(own: bool) -> None:
    """With generators of the loop's own, given to every call, or with those that the network has."""
    registry.load("jax")
    import jax.numpy as jnp
    import optax
    from flax import nnx

    network, rngs = triptych.build("lenet_dropout", backend="jax"), nnx.Rngs(7)
    network.train()
    optimizer = nnx.Optimizer(network, optax.adam(2e-3), wrt=nnx.Param)
    x, y = jnp.asarray(images(8)[:, :1, :28, :28]), jnp.arange(8)

    def loss_of(network: Any, rngs: nnx.Rngs) -> Any:
        logits = network(x, rngs=rngs) if own else network(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @nnx.jit
    def step(network: Any, optimizer: nnx.Optimizer, rngs: nnx.Rngs) -> Any:
        loss, gradients = nnx.value_and_grad(loss_of)(network, rngs)
        optimizer.update(network, gradients)
        return loss

    losses = [float(step(network, optimizer, rngs)) for _ in range(60)]
    network.eval()
    assert float(loss_of(network, rngs)) < 0.5 * losses[0]
    assert (network(x) == network(x)).all()


@needs_jax
def test_flax_draws_each_mask_once_and_the_same_again_from_the_same_seed() -> None:
    registry.load("jax")
    import jax.numpy as jnp
    from flax import nnx

    network = built("jax")
    network.train()
    x = jnp.asarray(images(2))
    one, two = network(x), network(x)
    assert (one != two).any()
    nnx.reseed(network, dropout=3)
    again = network(x)
    nnx.reseed(network, dropout=3)
    assert (network(x) == again).all()
    assert (network(x, rngs=nnx.Rngs(5)) == network(x, rngs=nnx.Rngs(5))).all()
    layers = [layer for _, layer in nnx.iter_graph(built("jax")) if isinstance(layer, nnx.Dropout)]
    masks = [layer(jnp.ones((1, 512))) != 0 for layer in layers]
    assert len(masks) == sum(isinstance(info.layer, Dropout) for info in primitives(zoo.build("vgg11"))) == 2
    assert (masks[0] != masks[1]).any()


@needs_jax
def test_flax_tabulates_it() -> None:
    registry.load("jax")
    import jax.numpy as jnp
    from flax import nnx

    text = nnx.tabulate(built("jax"), jnp.zeros((2, *SMALL["input"])), console_kwargs={"width": 200})
    for name in ("block1/conv1", "dense3", "445,626"):
        assert name in text


@needs_mxnet
def test_gluon_sums_it_up_and_it_holds_its_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    network = built("mxnet")
    import mxnet as mx

    network.summary(mx.nd.zeros((2, *SMALL["input"])))
    assert "Total params: 445626" in capsys.readouterr().out
    assert network._active  # hybridized again
    assert len(network) == 13
    assert next(iter(network)) is network[0]
    assert isinstance(network[0][0], mx.gluon.nn.Conv2D)
    x = mx.nd.array(images(2))
    y = x
    for block in network:
        y = block(y)
    np.testing.assert_allclose(y.asnumpy(), network(x).asnumpy(), atol=1e-6)


@needs_torch
def test_torchinfo_sums_it_up() -> None:
    torchinfo = pytest.importorskip("torchinfo", reason="torchinfo is not installed")
    found = torchinfo.summary(built("torch"), (2, *SMALL["input"]), verbose=0)
    assert found.total_params == 445_626
    assert found.summary_list[0].output_size == [2, 10]


@needs_torch
def test_hooks_see_every_layer_of_pytorch() -> None:
    """What torchinfo does by itself."""
    network = built("torch")
    import torch

    seen = []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda module, arguments, output, name=name: seen.append(name))
    network.eval()(torch.from_numpy(images(1)))
    assert {info.path for info in primitives(zoo.build("vgg11", **SMALL))} <= set(seen)


@needs_jax
@pytest.mark.parametrize("name", ["lenet", "googlenet", "mobilenet_v2"])
def test_nodes_are_those_of_flax_itself(name: str) -> None:
    registry.load("jax")
    from flax import nnx

    from triptych_jax.functions import nodes

    network = triptych.build(name, backend="jax")
    expected = [(path, node) for path, node in nnx.iter_graph(network) if isinstance(node, nnx.Pytree | nnx.Variable)]
    assert [(path, id(node)) for path, node in nodes(network)] == [(path, id(node)) for path, node in expected]
