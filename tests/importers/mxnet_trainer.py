"""A training in MXNet alone: run as a script, in a folder with images.npy and labels.npy. Nothing of triptych in it.

python mxnet_trainer.py OPTIMIZER FIRST MORE RATE LATER_RATE
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np

ALIASES = {"bool": bool, "Inf": np.inf, "NAN": np.nan, "NaN": np.nan, "NINF": -np.inf, "PINF": np.inf}
ALIASES |= {"NZERO": -0.0, "PZERO": 0.0, "alltrue": np.all, "sometrue": np.any, "product": np.prod}
NAMES = ("in1d", "msort", "round_", "trapz", "mirr", "npv", "pmt", "ppmt", "pv", "rate")
for alias, value in (ALIASES | dict.fromkeys(NAMES)).items():  # MXNet 1.9.1 asks NumPy 2 for these when it is imported
    if alias not in np.__dict__:
        setattr(np, alias, value)
warnings.simplefilter("ignore")

import mxnet as mx  # noqa: E402
from mxnet import autograd, gluon  # noqa: E402
from mxnet.gluon import nn  # noqa: E402

EPS = 2**-17  # MXNet's operators read their numbers as float32, and not always as the nearest: these are exact


def network() -> nn.HybridSequential:
    net = nn.HybridSequential()
    for channels in (6, 8) * 6:  # so that conv10 is among them, which comes before conv2
        net.add(nn.Conv2D(channels, 3, padding=1, activation="tanh"))
    net.add(nn.BatchNorm(momentum=0.75, epsilon=EPS), nn.Activation("tanh"), nn.Conv2D(4, 1, use_bias=False))
    net.add(nn.BatchNorm(momentum=0.75, epsilon=EPS, scale=False), nn.Activation("tanh"))
    net.add(nn.MaxPool2D(2, 2), nn.Dense(6, activation="tanh"), nn.Dense(3))
    return net


def multiply(net: nn.HybridSequential, optimizer: str) -> str:
    """Of an optimizer that is multiplied: small steps of the first layers, large ones of the head. Returns its name."""
    for name, parameter in net.collect_params().items() if optimizer.endswith("-multiplied") else ():
        parameter.lr_mult = 10.0 if "dense1_" in name else 0.1 if "conv0_" in name or "conv1_" in name else 1.0
        parameter.wd_mult = 0.0 if name.endswith("_bias") else 0.5 if "dense1_" in name else 1.0
    return optimizer.removesuffix("-multiplied")


def train(
    net: nn.HybridSequential, trainer: gluon.Trainer, images: np.ndarray, labels: np.ndarray, first: int, steps: int
) -> list[float]:
    criterion, losses = gluon.loss.SoftmaxCrossEntropyLoss(), []
    for step in range(first, first + steps):
        x = mx.nd.array(images[step] / 255, dtype="float64")
        with autograd.record():
            loss = criterion(net(x), mx.nd.array(labels[step], dtype="float64"))
        loss.backward()
        trainer.step(len(x))
        losses.append(float(loss.mean().asscalar()))
    return losses


class AdaGrad(mx.optimizer.AdaGrad):
    """MXNet's own remembers in float32 what a network of float64 is trained with, and fails at that."""

    def create_state(self, index: int, weight: mx.nd.NDArray) -> mx.nd.NDArray:
        return super().create_state(index, weight).astype(weight.dtype)


MODULES = {
    "module": ("sgd", {"momentum": 0.875}),
    "adam-module": ("adam", {"epsilon": 1e-4}),  # so that eps can be seen
}


def train_module(name: str, first: int, more: int, rate: float, later: float) -> None:
    """The same by a Module, as older scripts have it: its loss is SoftmaxOutput."""
    images, labels = np.load("images.npy"), np.load("labels.npy")
    mx.random.seed(3)
    net = network()
    net.cast("float64")
    symbol = mx.sym.SoftmaxOutput(net(mx.sym.var("data", dtype="float64")), name="softmax")
    data = [mx.io.DataDesc("data", images.shape[1:], "float64")]
    module = mx.mod.Module(symbol)
    module.bind(data, [mx.io.DataDesc("softmax_label", labels.shape[1:], "float64")])
    module.init_params(mx.init.Xavier(magnitude=3))
    optimizer, settings = MODULES[name]
    module.init_optimizer(optimizer=optimizer, optimizer_params={"learning_rate": rate, "wd": 0.0, **settings})
    losses = []
    for step in range(first + more):
        if step == first:
            module.save_checkpoint("before", 0)
            module.save_optimizer_states("before.states")
            module._optimizer.lr = later
        x, y = (mx.nd.array(value, dtype="float64") for value in (images[step] / 255, labels[step]))
        module.forward_backward(mx.io.DataBatch([x], [y]))
        shares = module.get_outputs()[0].asnumpy()
        losses.append(float(-np.log(shares[np.arange(len(shares)), labels[step]]).mean()))
        module.update()
    module.save_checkpoint("after", 0)
    with open("losses.json", "w") as file:
        json.dump(losses, file)


def go_back(optimizer: str, first: int, more: int) -> None:
    """On from back.params and back.states, by nothing but MXNet's own load."""
    images, labels = np.load("images.npy"), np.load("labels.npy")
    net = network()
    net.cast("float64")
    net.collect_params().load("back.params", mx.cpu())
    optimizer = multiply(net, optimizer)
    net.hybridize()
    trainer = gluon.Trainer(net.collect_params(), optimizer, {"learning_rate": 1.0})
    trainer.load_states("back.states")
    losses = train(net, trainer, images, labels, first, more)
    net.export("returned")
    with open("returned.json", "w") as file:
        json.dump([trainer.learning_rate, *losses], file)


def main(optimizer: str, first: int, more: int, rate: float, later: float) -> None:
    images, labels = np.load("images.npy"), np.load("labels.npy")
    mx.random.seed(3)
    net = network()
    net.cast("float64")
    net.initialize(mx.init.Xavier(magnitude=3))
    if optimizer == "frozen":  # the first layer, and a gamma
        for name, parameter in net.collect_params().items():
            parameter.lr_mult = 0.0 if "conv0_" in name or name.endswith("batchnorm0_gamma") else 1.0
        optimizer = "sgd"
    optimizer = multiply(net, optimizer)
    net.hybridize()
    own = {"adam": {"epsilon": 1e-4}, "adagrad": {"eps": EPS}}.get(optimizer, {"momentum": 0.875})  # eps can be seen
    settings = {"learning_rate": rate, "wd": 0.0 if optimizer in ("nag", "adagrad") else 2**-10, **own}
    made = AdaGrad(**settings) if optimizer == "adagrad" else mx.optimizer.create(optimizer, **settings)
    trainer = gluon.Trainer(net.collect_params(), made)
    losses = train(net, trainer, images, labels, 0, first)
    net.export("before")
    trainer.save_states("before.states")
    trainer.set_learning_rate(later)
    losses += train(net, trainer, images, labels, first, more)
    net.export("after")
    with open("losses.json", "w") as file:
        json.dump(losses, file)


if __name__ == "__main__":
    numbers = (*map(int, sys.argv[2:4]), *map(float, sys.argv[4:6]))
    if sys.argv[1] in MODULES:
        train_module(sys.argv[1], *numbers)
    elif sys.argv[1].startswith("back-"):
        go_back(sys.argv[1].removeprefix("back-"), *numbers[:2])
    else:
        main(sys.argv[1], *numbers)
