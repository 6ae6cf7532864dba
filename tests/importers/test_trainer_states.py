"""A training goes on from a user's own loop in PyTorch or optax, and leaves for one, without a step in the loss."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.backend.contract import Backend, Trainer
from triptych.backend.execution import exact
from triptych.data.preprocess import InputTransform
from triptych.exporting import optimizer_states
from triptych.importers.steps import Imported
from triptych.optim.multipliers import Multiplier
from triptych.optim.optimizers import SGD, Adam, AdamW, Optimizer
from triptych.porting import convert, sources, trainer_files
from triptych.spec.layers import Architecture, BatchNorm, Conv, Dense, Flatten, Tanh
from triptych.utils.errors import TriptychError
from triptych.weights import initializers

SIZE, BATCH, FIRST, MORE = (3, 6, 5), 4, 6, 100
RATE, LATER, DECAY = 2**-5, 2**-7, 2**-10
NETWORK = Architecture(
    "small",
    SIZE,
    3,
    (
        Conv("conv", 4, (3, 3), padding=(1, 1)),
        BatchNorm("norm"),
        Tanh("tanh"),
        Flatten("flatten"),
        Dense("dense", 3),
    ),
)
RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.integers(0, 256, (FIRST + MORE, BATCH, *SIZE), np.uint8)
LABELS = RANDOM.integers(0, 3, (FIRST + MORE, BATCH))
OPTIMIZERS = {
    "sgd": SGD(momentum=0.875, weight_decay=DECAY),
    "plain": SGD(weight_decay=DECAY),
    "multiplied-weights": SGD(
        momentum=0.875, weight_decay=DECAY, decayed="weights", multipliers=(Multiplier("dense.*", rate=2.0),)
    ),
    "nesterov": SGD(momentum=0.875, nesterov=True),
    "weights": SGD(momentum=0.875, weight_decay=DECAY, decayed="weights"),
    "multiplied": SGD(
        momentum=0.875,
        weight_decay=DECAY,
        multipliers=(Multiplier("conv.*", rate=0.125), Multiplier("dense.weight", rate=4.0, decay=0.5)),
    ),
    "adam": Adam(weight_decay=DECAY),
    "adamw": AdamW(weight_decay=DECAY),
}


class TorchLoop:
    """What a user of PyTorch has: a module, an optimiser, a loop."""

    ending = ".pt"
    told = ""

    def __init__(self, optimizer: Optimizer) -> None:
        torch = pytest.importorskip("torch")
        nn = torch.nn
        torch.manual_seed(0)
        self.torch = torch
        layers = {"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4), "tanh": nn.Tanh()}
        layers |= {"flatten": nn.Flatten(), "dense": nn.Linear(120, 3)}
        self.module = nn.Sequential(OrderedDict(layers)).double()
        self.rate = RATE
        options: dict[str, Any] = {"lr": RATE, "weight_decay": optimizer.weight_decay}
        if isinstance(optimizer, SGD):
            options |= {"momentum": optimizer.momentum, "nesterov": optimizer.nesterov}
        given: Any = self.module.named_parameters()
        if optimizer.decayed == "weights" and optimizer.multipliers:
            named = dict(given)
            groups = [("conv.weight", 1, 1), ("conv.bias", 1, 0), ("norm.weight", 1, 0), ("norm.bias", 1, 0)]
            groups += [("dense.weight", 2, 1), ("dense.bias", 2, 0)]
            given = [
                {
                    "params": [(n, named[n]) for n, *key in groups if key == [r, d]],
                    "lr": r * RATE,
                    "weight_decay": d * DECAY,
                }
                for r, d in ((1, 1), (1, 0), (2, 1), (2, 0))
            ]
        elif optimizer.decayed == "weights":
            named = dict(given)
            weights = [(name, named[name]) for name in ("conv.weight", "dense.weight")]
            others = [pair for pair in named.items() if pair not in weights]
            given = [{"params": weights}, {"params": others, "weight_decay": 0.0}]
        elif optimizer.multipliers:
            named = dict(given)
            given = [
                {"params": [(n, named.pop(n)) for n in ("conv.weight", "conv.bias")], "lr": RATE / 8},
                {"params": [(n, named.pop(n)) for n in ("norm.weight", "norm.bias", "dense.bias")]},
                {"params": list(named.items()), "lr": 4 * RATE, "weight_decay": DECAY / 2},
            ]
        self.optimizer = {SGD: torch.optim.SGD, Adam: torch.optim.Adam, AdamW: torch.optim.AdamW}[type(optimizer)](
            given, **options
        )

    def train(self, steps: range, rate: float) -> list[float]:
        torch, losses = self.torch, []
        for group in self.optimizer.param_groups:
            group["lr"] *= rate / self.rate  # by a power of two
        self.rate = rate
        for step in steps:
            self.optimizer.zero_grad()
            y = self.module(torch.from_numpy(IMAGES[step] / 255))
            loss = torch.nn.functional.cross_entropy(y, torch.from_numpy(LABELS[step]))
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def save(self, weights: Path, states: Path) -> None:
        self.torch.save(self.module.state_dict(), weights)
        self.torch.save(self.optimizer.state_dict(), states)

    def load(self, weights: Path, states: Path) -> None:
        self.module.load_state_dict(self.torch.load(weights, weights_only=True), strict=False)
        self.optimizer.load_state_dict(self.torch.load(states, weights_only=True))


class OptaxLoop:
    """What a user of JAX has: functions of a tree of parameters, a chain, a state."""

    ending = ".msgpack"
    told = ""  # by the command that wrote its state

    def __init__(self, optimizer: Optimizer) -> None:
        jax = pytest.importorskip("jax")
        import optax

        jax.config.update("jax_enable_x64", True)
        self.jax, self.optax, self.record = jax, optax, optimizer
        random = np.random.default_rng(1)

        def draw(*shape: int) -> Any:
            return jax.numpy.asarray(random.normal(size=shape) / 5)

        self.parameters = {
            "conv": {"kernel": draw(3, 3, 3, 4), "bias": draw(4)},
            "norm": {"scale": 1 + draw(4), "bias": draw(4)},
            "dense": {"kernel": draw(120, 3), "bias": draw(3)},
        }
        self.statistics = {"norm": {"mean": jax.numpy.zeros(4), "var": jax.numpy.ones(4)}}
        self.state = self.chain(RATE).init(self.parameters)

    def chain(self, rate: float) -> Any:
        optax, record = self.optax, self.record
        mask = None
        if record.decayed == "weights":
            mask = {n: {k: k == "kernel" for k in p} for n, p in self.parameters.items()}
        if isinstance(record, AdamW):
            return optax.adamw(rate, weight_decay=record.weight_decay, mask=mask)
        own = optax.adam(rate)
        if isinstance(record, SGD):
            own = optax.sgd(rate, record.momentum or (None if self.told else 0), record.nesterov)
        coupled = optax.add_decayed_weights(record.weight_decay, mask)
        if record.multipliers and (self.told or record.decayed == "weights"):
            return self.labelled(rate)
        if record.multipliers:
            labels = {n: dict.fromkeys(p, n) for n, p in self.parameters.items()}
            labels["dense"]["bias"] = "norm"
            halved, others = (self.jax.tree.map(lambda n, e=e: (n == "dense") == e, labels) for e in (True, False))
            halved, others = optax.add_decayed_weights(DECAY / 2, halved), optax.add_decayed_weights(DECAY, others)
            rates = {"conv": rate / 8, "norm": rate, "dense": 4 * rate}
            scales = {n: optax.scale_by_learning_rate(r) for n, r in rates.items()}
            return optax.chain(halved, others, optax.trace(0.875), optax.multi_transform(scales, labels))
        return optax.chain(coupled, own) if record.weight_decay else own

    def train(self, steps: range, rate: float) -> list[float]:
        jax, jnp, losses, chain = self.jax, self.jax.numpy, [], self.chain(rate)

        def loss(p: Any, x: Any, labels: Any) -> Any:
            x = jax.lax.conv_general_dilated(
                x, p["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + p["conv"]["bias"]
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            n = x.size // 4
            x = (x - mean) / jnp.sqrt(var + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
            y = jnp.tanh(x).reshape(len(x), -1) @ p["dense"]["kernel"] + p["dense"]["bias"]
            return self.optax.softmax_cross_entropy_with_integer_labels(y, labels).mean(), (mean, var * n / (n - 1))

        @jax.jit
        def step(p: Any, state: Any, x: Any, labels: Any) -> Any:
            (value, moments), gradients = jax.value_and_grad(loss, has_aux=True)(p, x, labels)
            updates, state = chain.update(gradients, state, p)
            return self.optax.apply_updates(p, updates), state, value, moments

        for number in steps:
            x = IMAGES[number].transpose(0, 2, 3, 1) / 255
            self.parameters, self.state, value, moments = step(self.parameters, self.state, x, LABELS[number])
            kept = self.statistics["norm"]
            self.statistics = {
                "norm": {n: 0.9 * kept[n] + 0.1 * m for n, m in zip(("mean", "var"), moments, strict=True)}
            }
            losses.append(float(value))
        return losses

    def save(self, weights: Path, states: Path) -> None:
        from flax import serialization

        variables = {"params": self.parameters, "batch_stats": self.statistics}
        weights.write_bytes(serialization.to_bytes(variables))
        states.write_bytes(serialization.to_bytes(self.state))

    def load(self, weights: Path, states: Path) -> None:
        from flax import serialization

        read = serialization.msgpack_restore(weights.read_bytes())
        self.parameters = {name: {k: read[name][k] for k in own} for name, own in self.parameters.items()}
        self.statistics = {"norm": {k: read["norm"][k] for k in ("mean", "var")}}
        kernels = {n: {k: k == "kernel" for k in p} for n, p in self.parameters.items()}
        names = {"optax": self.optax, "parameters": self.parameters, "weights": kernels, "labels": self.labels()}
        line = self.told.partition(";")[0].replace(states.name, str(states))
        self.state = eval(line, names | {"flax": sys.modules["flax"]})  # what the command says loads it

    def labels(self) -> Any:
        """As the command says them: `conv.*:rate=0.125 dense.weight:rate=4 dense.weight:decay=0.5`."""
        labels = {n: dict.fromkeys(p, "rate=1,decay=1") for n, p in self.parameters.items()}
        labels["conv"] = dict.fromkeys(labels["conv"], "rate=0.125,decay=1")
        labels["dense"]["kernel"] = "rate=4,decay=0.5"
        if self.record.decayed == "weights":
            labels = {n: dict.fromkeys(p, "rate=1,decay=0") for n, p in self.parameters.items()}
            labels["conv"]["kernel"] = "rate=1,decay=1"
            labels["dense"] = {"kernel": "rate=2,decay=1", "bias": "rate=2,decay=0"}
        return labels

    def labelled(self, rate: float) -> Any:
        """Multipliers as a chain for each label."""
        optax = self.optax

        def one(rate: float, decay: float) -> Any:
            own = optax.sgd(rate, 0.875)
            return optax.chain(optax.add_decayed_weights(decay), own) if decay else own

        if self.record.decayed == "weights":
            chains = {f"rate={r},decay={d}": one(r * rate, d * DECAY) for r in (1, 2) for d in (1, 0)}
            return optax.multi_transform(chains, self.labels())
        chains = {"rate=1,decay=1": one(rate, DECAY), "rate=0.125,decay=1": one(rate / 8, DECAY)}
        return optax.multi_transform(chains | {"rate=4,decay=0.5": one(4 * rate, DECAY / 2)}, self.labels())


LOOPS: dict[str, type[TorchLoop] | type[OptaxLoop]] = {"torch": TorchLoop, "optax": OptaxLoop}


def begin(framework: Backend, optimizer: Optimizer, parameters: Any) -> tuple[Any, Trainer]:
    network = framework.build(NETWORK, execution=exact("fp64"))
    framework.from_canonical(network, parameters)
    return network, framework.Trainer(network, optimizer, InputTransform(*SIZE), 0)


def step(trainer: Trainer, optimizer: Optimizer, steps: range, rate: float) -> Any:
    rates = optimizer.rates(rate, optimizer.momentum)
    return trainer.read([trainer.step(IMAGES[i], LABELS[i], rates, i) for i in steps])[:, 0]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_users_training_goes_on_here(loop: str, name: str, framework: Backend, tmp_path: Path) -> None:
    """Across a drop of the learning rate, for a hundred steps, against the user's own hundred."""
    optimizer, theirs = OPTIMIZERS[name], LOOPS[loop](OPTIMIZERS[name])
    weights, states = tmp_path / f"weights{theirs.ending}", tmp_path / f"states{theirs.ending}"
    theirs.train(range(FIRST), RATE)
    theirs.save(weights, states)
    expected = theirs.train(range(FIRST, FIRST + MORE), LATER)
    parameters, remembered = trainer_files.load(states, weights, NETWORK)
    assert trainer_files.differing(remembered, optimizer, NETWORK) == ""
    _, trainer = begin(framework, optimizer, parameters)
    trainer.load_state(remembered.state(LATER))
    found = step(trainer, optimizer, range(FIRST, FIRST + MORE), LATER)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=0)
    assert max(expected[:10]) > 1e-3  # it still learns


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_leaves_for_a_users_own_loop(loop: str, name: str, framework: Backend, tmp_path: Path) -> None:
    optimizer, theirs = OPTIMIZERS[name], LOOPS[loop](OPTIMIZERS[name])
    weights, states = tmp_path / f"weights{theirs.ending}", tmp_path / f"states{theirs.ending}"
    drawn = {path: np.asarray(value, np.float64) for path, value in initializers.draw(NETWORK, 3).items()}
    network, trainer = begin(framework, optimizer, drawn)
    step(trainer, optimizer, range(FIRST), RATE)
    convert.from_network(Imported(NETWORK, framework.to_canonical(network)), weights)
    told = optimizer_states.write(states, optimizer_states.States(optimizer, trainer.state(), RATE, NETWORK))
    expected = step(trainer, optimizer, range(FIRST, FIRST + 20), LATER)
    theirs.told = told
    theirs.load(weights, states)
    np.testing.assert_allclose(theirs.train(range(FIRST, FIRST + 20), LATER), expected, rtol=1e-11, atol=0)


def refused(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> str:
    torch = pytest.importorskip("torch")
    loop = TorchLoop(OPTIMIZERS["sgd"])
    loop.train(range(1), RATE)
    loop.save(tmp_path / "w.pt", tmp_path / "s.pt")
    state = torch.load(tmp_path / "s.pt", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "s.pt")
    with pytest.raises(TriptychError) as raised:
        trainer_files.load(tmp_path / "s.pt", tmp_path / "w.pt", NETWORK)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["param_groups"][0].update(dampening=0.5), "dampening is 0.5"),
        (lambda s: s["param_groups"][0].update(param_names=["a"] * 6), "another network: it has a parameter 'a'"),
        (lambda s: s["param_groups"][0].update(param_names=[], params=[0, 1]), "is of 2 parameters, the network has 6"),
        (lambda s: s["state"].update({9: {}}), "has a state '9'"),
        (lambda s: s["state"][0].update(momentum_buffer=s["state"][1]["momentum_buffer"]), "is not of"),
        (lambda s: s["state"][0].update(square_avg=s["state"][1]["momentum_buffer"]), "'square_avg' of 'conv.weight'"),
        (lambda s: s.pop("param_groups"), "no state of an optimizer"),
        (lambda s: s["param_groups"][0].update(param_names=None), "no state of an optimizer"),
        (lambda s: s["param_groups"][0].update(params=[[0]] * 6), "no state of an optimizer"),
        (lambda s: s["state"][0].update(step="one"), "does not say after how many steps"),
        (lambda s: s["param_groups"][0].pop("dampening"), "another optimizer than PyTorch's"),  # RMSprop has none
        (
            lambda s: (s["param_groups"][0].pop("dampening"), s["param_groups"][0].update(betas=(0, 0))),
            "another",
        ),  # RAdam
    ],
)
def test_states_that_do_not_fit_are_one_line(change: Callable[[Any], object], words: str, tmp_path: Path) -> None:
    assert words in refused(change, tmp_path)


def test_a_train_state_is_a_network_and_its_optimizer(tmp_path: Path) -> None:
    """What most loops in Flax save, in a file or by Orbax: step and optimizer are no arrays of the network."""
    loop = OptaxLoop(OPTIMIZERS["sgd"])
    loop.train(range(2), RATE)
    loop.save(tmp_path / "w.msgpack", tmp_path / "s.msgpack")
    from flax import serialization, struct
    from flax.training import train_state

    @struct.dataclass
    class TrainState(train_state.TrainState):  # type: ignore[misc]
        batch_stats: Any = None

    whole = TrainState(
        step=2,
        apply_fn=print,
        params=loop.parameters,
        tx=loop.chain(RATE),
        opt_state=loop.state,
        batch_stats=loop.statistics,
    )
    both = tmp_path / "both.msgpack"
    both.write_bytes(serialization.to_bytes(whole))
    orbax = pytest.importorskip("orbax.checkpoint")
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", whole)
    expected, states = trainer_files.load(tmp_path / "s.msgpack", tmp_path / "w.msgpack", NETWORK)
    found, others = trainer_files.load(both, both, NETWORK)
    read = sources.load_weights(tmp_path / "saved", NETWORK).parameters or {}
    for path, array in expected.items():
        assert np.array_equal(found[path], array)
        assert np.array_equal(read[path], array)
    assert found.keys() == read.keys() == expected.keys()
    assert others.slots["velocity"].keys() == states.slots["velocity"].keys()
    for path, array in states.slots["velocity"].items():
        assert np.array_equal(others.slots["velocity"][path], array)


def test_optax_without_slots_is_refused(tmp_path: Path) -> None:
    from triptych.weights.formats import flax_msgpack

    loop = OptaxLoop(OPTIMIZERS["adam"])
    loop.save(tmp_path / "w.msgpack", tmp_path / "s.msgpack")
    arrays = flax_msgpack.read(tmp_path / "s.msgpack")
    for kept, words in (
        ({}, "has none of optax's"),
        ({k: v for k, v in arrays.items() if not k.endswith("count")}, "after how many steps"),
        ({k.replace("conv", "other"): v for k, v in arrays.items()}, "another network"),
    ):
        flax_msgpack.write(tmp_path / "s.msgpack", kept)
        with pytest.raises(TriptychError, match=words):
            trainer_files.load(tmp_path / "s.msgpack", tmp_path / "w.msgpack", NETWORK)
