"""Every backend's training steps against the NumPy reference, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from awkward_networks import BATCH, LABELS, assert_close, masks_of, parameters, trained
from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.data import preprocess
from triptych.data.batches import Augmentation, gather_indices, plan
from triptych.data.preprocess import InputTransform
from triptych.optim import optimizers
from triptych.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, Rates, RMSprop
from triptych.reference import network as reference
from triptych.spec import analysis
from triptych.spec.layers import Architecture, Dense, Flatten
from triptych.utils.arrays import largest

TRANSFORM = InputTransform(1, 9, 8, (0.3,), (0.7,), crop_padding=1)
STEADY = [Rates(rate, 0.9) for rate in (0.1, 0.1, 0.05, 0.02, 0.2)]
MOMENTUM = SGD(momentum=0.9, weight_decay=0.01)
OPTIMIZERS = {
    "all decay": MOMENTUM,
    "weights decay": replace(MOMENTUM, decayed="weights"),
    "nesterov": replace(MOMENTUM, nesterov=True),
    "adam": Adam(weight_decay=0.01, eps=0.1),
    "adamw": AdamW(weight_decay=0.1, beta1=0.7, decayed="weights", eps=0.1),
    "rmsprop": RMSprop(weight_decay=0.01, momentum=0.9, alpha=0.8, eps=0.1),
    "adagrad": Adagrad(weight_decay=0.01, decayed="weights", eps=0.1),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=list(OPTIMIZERS))


def train(framework, architecture, optimizer, schedule, *, resume_at=None, frozen=frozenset()) -> tuple:
    """Steps of a backend and of the reference on the same batches: `(trainer, network, values, state, figures,
    expected figures)`."""
    random = np.random.default_rng(0)
    network = framework.build(architecture, execution=exact("fp64"))
    values, state = parameters(architecture), {}
    framework.from_canonical(network, values)
    trainer = framework.Trainer(network, optimizer, TRANSFORM, 0, frozen)
    decay = optimizers.decay_of(optimizer, architecture, frozen)
    handles, losses = [], []
    for number, rates in enumerate(schedule):
        images = random.integers(0, 256, (BATCH, 3, 6, 10), np.uint8)
        batch = plan(0, number, BATCH, BATCH, Augmentation(1, True))[0]
        masks = masks_of(architecture, number)
        if number == resume_at:
            saved, values_now = trainer.state(), framework.to_canonical(network)
            network = framework.build(architecture, execution=exact("fp64"))
            framework.from_canonical(network, values_now)
            trainer = framework.Trainer(network, optimizer, TRANSFORM, 0, frozen)
            trainer.load_state(saved)
        gather = gather_indices(batch, 6, 10, 1)
        handles.append(trainer.step(images, LABELS, rates, number, gather=gather, masks=masks))
        x = preprocess.apply_reference(images, TRANSFORM, batch)
        run = reference.forward(architecture, values, x, train=True, masks=masks, frozen=frozen)
        loss, gradients = reference.backward(run, LABELS)
        moved, state = optimizers.reference_step(values, gradients, state, rates, optimizer, decay)
        values = values | moved | run.statistics
        losses.append((loss, np.sum(run.logits.argmax(1) == LABELS)))
    return trainer, network, values, state, trainer.read(handles), np.array(losses)


@every_optimizer
def test_training_equals_the_reference(framework: Backend, optimizer: Optimizer) -> None:
    trainer, network, values, state, figures, expected = train(framework, trained(), optimizer, STEADY)
    assert_close(framework.to_canonical(network), values)
    assert_close(trainer.state(), state)
    np.testing.assert_allclose(figures, expected, rtol=1e-12)
    images = np.random.default_rng(5).integers(0, 256, (BATCH + 1, 1, 9, 8), np.uint8)
    logits = reference.forward(trained(), values, preprocess.apply_reference(images, TRANSFORM)).logits
    predicted = trainer.predict(images)
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, logits, rtol=0, atol=1e-6 * largest(logits))


@pytest.mark.parametrize(
    "schedule",
    {
        "momentum changes": [Rates(0.1, momentum) for momentum in (0.95, 0.85, 0.5, 0.9)],
        "momentum starts at 0": [Rates(0.1, momentum) for momentum in (0.0, 0.9, 0.9, 0.9)],
        "momentum passes 0": [Rates(0.1, momentum) for momentum in (0.9, 0.0, 0.9, 0.9)],
        "rate starts at 0": [Rates(rate, 0.9) for rate in (0.0, 0.1, 0.1)],
        # Rates that MXNet's operators misread by one unit of float32.
        "small rates": [Rates(rate, 0.9) for rate in (9.250433504348621e-05, 9.47546141105704e-05)],
        "rate passes 0": [Rates(rate, 0.9) for rate in (0.1, 0.0, 0.0, 0.05)],
    }.items(),
    ids=lambda item: item[0],
)
def test_changing_rates_equal_the_reference(framework: Backend, schedule: tuple) -> None:
    trainer, network, values, state, *_ = train(framework, trained(), MOMENTUM, schedule[1])
    assert_close(framework.to_canonical(network), values)
    assert_close(trainer.state(), state)


def test_label_smoothing_equals_the_reference(framework: Backend) -> None:
    """Loss and step, with the auxiliary classifier's loss in it."""
    architecture, optimizer = trained(), SGD()
    network, values = framework.build(architecture, execution=exact("fp64")), parameters(architecture)
    framework.from_canonical(network, values)
    trainer = framework.Trainer(network, optimizer, TRANSFORM, 0, smoothing=0.3)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 1, 9, 8), np.uint8)
    masks = masks_of(architecture, 0)
    handle = trainer.step(images, LABELS, Rates(0.1), 0, masks=masks)
    x = preprocess.apply_reference(images, TRANSFORM)
    run = reference.forward(architecture, values, x, train=True, masks=masks)
    loss, gradients = reference.backward(run, LABELS, 0.3)
    decay = optimizers.decay_of(optimizer, architecture)
    moved, _ = optimizers.reference_step(values, gradients, {}, Rates(0.1), optimizer, decay)
    assert trainer.read([handle])[0, 0] == pytest.approx(loss, rel=1e-12)
    plain = reference.forward(architecture, values, x, train=True, masks=masks)
    assert loss != pytest.approx(reference.backward(plain, LABELS)[0], rel=1e-3)
    assert_close(framework.to_canonical(network), values | moved | run.statistics)


@every_optimizer
def test_a_resumed_run_equals_an_unbroken_one(framework: Backend, optimizer: Optimizer) -> None:
    whole = train(framework, trained(), optimizer, STEADY)
    resumed = train(framework, trained(), optimizer, STEADY, resume_at=3)
    assert_close(framework.to_canonical(resumed[1]), framework.to_canonical(whole[1]))
    assert_close(resumed[0].state(), whole[0].state())


def test_a_momentum_that_passes_0_leaves_rmsprop_its_squares(framework: Backend) -> None:
    """PyTorch makes the velocity at the first step, if there is a momentum then, and looks for it in later ones."""
    schedule = [Rates(0.1, momentum) for momentum in (0.0, 0.9, 0.0, 0.9)]
    trainer, network, values, state, *_ = train(framework, trained(), OPTIMIZERS["rmsprop"], schedule, resume_at=2)
    assert_close(framework.to_canonical(network), values)
    assert_close(trainer.state(), state)
    assert any(largest(value) > 0 for path, value in state.items() if path.startswith("velocity"))


def test_nothing_is_kept_before_the_first_step(framework: Backend) -> None:
    for optimizer in OPTIMIZERS.values():
        network = framework.build(trained(), execution=exact("fp64"))
        assert framework.Trainer(network, optimizer, TRANSFORM, 0).state() == {}


def test_without_momentum_there_is_no_state(framework: Backend) -> None:
    trainer, network, values, *_ = train(framework, trained(), SGD(), [Rates(0.1)] * 3)
    assert trainer.state() == {}
    assert_close(framework.to_canonical(network), values)


def test_own_dropout_depends_on_seed_and_step_only(framework: Backend) -> None:
    architecture = trained()
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 1, 9, 8), np.uint8)

    def loss(seed: int, number: int) -> float:
        network = framework.build(architecture, execution=exact("fp64"))
        framework.from_canonical(network, parameters(architecture))
        trainer = framework.Trainer(network, SGD(), TRANSFORM, seed)
        trainer.step(images, LABELS, Rates(0.0), 0)
        return float(trainer.read([trainer.step(images, LABELS, Rates(0.0), number)])[0, 0])

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


@pytest.mark.parametrize("stored", [(3, 6, 10), (1, 9, 8)])
def test_the_other_order_of_colours_equals_the_reference(framework: Backend, stored: tuple) -> None:
    transform = InputTransform(3, 9, 8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), reverse=True)
    layers = (Flatten("flatten"), Dense("dense", 3))
    network = framework.build(Architecture("input", (3, 9, 8), 3, layers), execution=exact("fp64"))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *stored), np.uint8)
    prepared = framework.Predictor(network, transform).prepare(images)
    np.testing.assert_allclose(prepared, preprocess.apply_reference(images, transform), rtol=0, atol=1e-13)
    plain = preprocess.apply_reference(images[:, ::-1], replace(transform, reverse=False))
    np.testing.assert_allclose(prepared, plain, rtol=0, atol=1e-13)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", [(3, 6, 10), (1, 9, 8), (1, 20, 8)])
def test_the_input_equals_the_reference(framework: Backend, stored: tuple, channels: int) -> None:
    """Seen through a 1x1 convolution that passes its input on, in a training step's first loss."""
    layers = (Flatten("flatten"), Dense("dense", 3))
    architecture = Architecture("input", (channels, 9, 8), 3, layers)
    if (stored[0], channels) == (3, 3):
        transform = replace(TRANSFORM, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    else:
        transform = replace(TRANSFORM, channels=channels, mean=(), std=())
    augmentation = Augmentation(1, True, colour=0.1 if channels == 3 else 0.0)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *stored), np.uint8)
    batch = plan(0, 0, BATCH, BATCH, augmentation)[0]
    network, values = framework.build(architecture, execution=exact("fp64")), parameters(architecture)
    framework.from_canonical(network, values)
    trainer = framework.Trainer(network, SGD(), transform, 0)
    gather = gather_indices(batch, *stored[1:], 1)
    handle = trainer.step(images, LABELS, Rates(1.0), 0, gather=gather)
    prepared = preprocess.apply_reference(images, transform, batch)
    np.testing.assert_allclose(trainer.prepare(images, gather), prepared, rtol=0, atol=1e-14)
    np.testing.assert_allclose(trainer.prepare(images), preprocess.apply_reference(images, transform), atol=1e-14)
    run = reference.forward(architecture, values, prepared, train=True)
    loss, gradients = reference.backward(run, LABELS)
    assert trainer.read([handle])[0, 0] == pytest.approx(loss, rel=1e-14)
    moved = values["dense.weight"] - gradients["dense.weight"]  # the gradient is linear in the images
    np.testing.assert_allclose(framework.to_canonical(network)["dense.weight"], moved, rtol=0, atol=1e-14)


# --- frozen parameters: see triptych.backend.contract.Trainer -------------------------------------------------

NORM = frozenset(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var"))
FROZEN = {
    "the first layers": frozenset({"conv.weight", "conv.bias"}) | NORM,
    "gamma and beta alone": frozenset({"norm.weight", "norm.bias"}),
    "statistics alone": frozenset({"norm.running_mean"}),
    "within, and a head": frozenset({"unit.body.conv.weight", "head.dense.weight", "dense.bias"}),
}


@pytest.mark.parametrize("optimizer", [MOMENTUM, OPTIMIZERS["adamw"]], ids=["sgd", "adamw"])
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=list(FROZEN))
def test_frozen_parameters_stay_and_the_others_follow_the_reference(
    framework: Backend, frozen: frozenset[str], optimizer: Optimizer
) -> None:
    architecture = trained()
    before = parameters(architecture)
    trainer, network, values, state, figures, expected = train(
        framework, architecture, optimizer, STEADY[:3], resume_at=2, frozen=frozen
    )
    found = framework.to_canonical(network)
    still = frozen | (NORM - {"norm.weight", "norm.bias"} if "norm.running_mean" in frozen else frozenset())
    assert {path for path in found if np.array_equal(found[path], before[path])} == still
    assert_close(found, values)
    assert_close(trainer.state(), state)
    assert state.keys() & {f"{slot}.{path}" for slot in optimizer.slots for path in frozen} == set()
    np.testing.assert_allclose(figures, expected, rtol=1e-12)


# What each framework differentiates by; JAX: the first argument of the compiled pass.
DIFFERENTIATED = {
    "torch": lambda trainer: [p for p, tensor in trainer.network.named_parameters() if tensor.requires_grad],
    "mxnet": lambda trainer: [p for p, q in trainer.network.named_parameters().items() if q.grad_req != "null"],
    "jax": lambda trainer: [
        ".".join(p).replace("kernel", "weight").replace("scale", "weight") for p in trainer.optimizer.named
    ],
}


def test_frozen_parameters_cost_no_gradient(framework: Backend) -> None:
    """And another trainer of the same network sets all free again."""
    architecture = trained()
    network = framework.build(architecture, execution=exact("fp64"))
    framework.from_canonical(network, parameters(architecture))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 1, 9, 8), np.uint8)
    for frozen in (FROZEN["the first layers"], frozenset[str]()):
        trainer = framework.Trainer(network, MOMENTUM, TRANSFORM, 0, frozen)
        trainer.step(images, LABELS, Rates(0.1, 0.9), 0)
        moving = optimizers.decay_of(MOMENTUM, architecture, frozen)
        assert set(DIFFERENTIATED[framework.name](trainer)) == set(moving)
    assert len(moving) == len([info for info in analysis.parameters(architecture) if info.trained])
