"""Every backend against the NumPy reference: layers made to be awkward, and training steps in float64.

The cases are small architectures, one per trap, non-square and with a flatten larger than 1x1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from triptych import analysis, backend, initializers, optimizers, preprocess, reference, rounding
from triptych.batches import Augmentation, gather_indices, plan
from triptych.errors import TriptychError
from triptych.optimizers import Optimizer, Rates
from triptych.preprocess import InputTransform
from triptych.randomness import dropout_mask
from triptych.reference_ops import largest
from triptych.spec import (
    Architecture,
    Auxiliary,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initializer,
    Layer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Residual,
    Sigmoid,
)

BATCH = 4
LABELS = np.array([1, 0, 2, 1])
CLOSE = 1e-12  # of a tensor's scale, in float64
NOISE = 4.0  # times what float32 rounding explains


def small(*layers: Layer, size: tuple[int, int] = (7, 8), channels: int = 3, flat: bool = False) -> Architecture:
    end = (Dense("dense", 3),) if flat else (Flatten("flatten"), Dense("dense", 3))
    return Architecture("small", (channels, *size), 3, (*layers, *end), Initializer("kaiming_normal"))


def pool(kind: type, kernel: int, stride: int, padding: int, ceil: bool, size: tuple[int, int], **more: bool) -> Layer:
    layer = kind("pool", (kernel, kernel), (stride, stride), (padding, padding), ceil, **more)
    return small(Conv("conv", 4, (3, 3), padding=(1, 1)), layer, size=size)


def pools() -> dict[str, Architecture]:
    """Windows that fit, hang over, lie wholly in the padding along one axis or both; counted padding or not."""
    shapes = [
        (3, 2, 0, (7, 8)),
        (3, 2, 1, (8, 8)),
        (3, 4, 1, (6, 6)),
        (3, 4, 1, (6, 8)),
        (2, 2, 1, (3, 6)),
        (2, 2, 0, (5, 6)),
    ]
    found = {}
    for kernel, stride, padding, size in shapes:
        for ceil in (False, True):
            name = f"k{kernel}s{stride}p{padding}_{size[0]}x{size[1]}" + "_ceil" * ceil
            found[f"max_{name}"] = pool(MaxPool, kernel, stride, padding, ceil, size)
            for count in (False, True):
                case = pool(AvgPool, kernel, stride, padding, ceil, size, count_padding=count)
                found[f"avg_{name}" + "_count" * count] = case
    asymmetric = MaxPool("pool", (3, 2), (2, 3), (1, 0), True)
    found["max_asymmetric"] = small(Conv("conv", 4, (1, 1)), asymmetric, size=(8, 9))
    average = AvgPool("pool", (2, 3), (3, 2), (0, 1), True)
    return found | {"avg_asymmetric": small(Conv("conv", 4, (1, 1)), average, size=(9, 8))}


def norm(layer: BatchNorm, size: tuple[int, int] = (7, 8)) -> Architecture:
    return small(Conv("conv", 4, (3, 3), bias=False), layer, ReLU("relu"), size=size)


def composites() -> dict[str, Architecture]:
    def side(name: str, kernel: int) -> Block:
        conv = Conv("conv", 3, (kernel, kernel), padding=(kernel // 2, kernel // 2))
        return Block(name, (conv, ReLU("relu")))

    head = (AvgPool("pool", (2, 2), (2, 2)), Flatten("flatten"), Dropout("dropout", 0.3), Dense("dense", 3))
    body = Block("body", (Conv("conv", 3, (3, 3), padding=(1, 1)), BatchNorm("norm"), ReLU("relu")))
    shortcut = Block("shortcut", (Conv("conv", 3, (1, 1)),))
    return {
        "branches": small(Branches("mixed", (side("one", 1), side("three", 3), Block("same", ())))),
        "residual": small(Residual("unit", body), ReLU("relu")),
        "residual_shortcut": small(Residual("unit", body, shortcut, 0.2), ReLU("relu")),
        "auxiliary": small(
            Block("stem", (Conv("conv", 4, (3, 3)), ReLU("relu"))),
            Auxiliary("head1", head, 0.3),
            Conv("conv", 4, (3, 3)),
            Auxiliary("head2", (GlobalAvgPool("pool"), *head[1:]), 0.5),
            Dropout("dropout", 0.5),
        ),
    }


CASES = {
    "conv_groups": small(
        Conv("a", 6, (3, 1), (2, 1), (1, 0), 3), Conv("b", 4, (1, 5), (1, 2), (0, 2), 2), ReLU("relu")
    ),
    "conv_stride_even": small(Conv("a", 4, (3, 3), (2, 2), (1, 1), bias=False), size=(8, 6)),
    "depthwise": small(Conv("a", 6, (3, 3), (1, 1), (1, 1), 3), Sigmoid("sigmoid")),
    "global_average": small(Conv("a", 4, (3, 3)), GlobalAvgPool("pool")),
    "dense": small(Flatten("flat"), Dense("a", 5, bias=False), ReLU("relu"), Dropout("none", 0.0), flat=True),
    "dropout_map": small(Conv("a", 4, (3, 3)), Dropout("dropout", 0.2), ReLU("relu")),
    "lrn": small(Conv("a", 6, (1, 1)), LocalResponseNorm("lrn", 3, 0.5, 0.75, 2.0)),
    "lrn_wide": small(Conv("a", 4, (1, 1)), LocalResponseNorm("lrn", 7, 0.1, 0.5, 1.0, divide_alpha=False)),
    "norm": norm(BatchNorm("norm")),
    "norm_no_gamma": norm(BatchNorm("norm", eps=1e-3, momentum=0.3, gamma=False)),
    "norm_biased": norm(BatchNorm("norm", unbiased=False)),
    "norm_1x1": norm(BatchNorm("norm"), size=(3, 3)),
    **composites(),
    **pools(),
}


@pytest.fixture(params=backend.installed())
def framework(request: pytest.FixtureRequest) -> backend.Backend:
    return backend.load(request.param)


def parameters(architecture: Architecture) -> dict[str, np.ndarray]:
    """Drawn parameters, with biases, gammas and running statistics that are not 0 or 1."""
    random = np.random.default_rng(1)
    return {
        path: value if value.ndim > 1 else (value + random.uniform(0.1, 0.5, value.shape)).astype(np.float32)
        for path, value in initializers.draw(architecture, 0).items()
    }


def masks_of(architecture: Architecture, step: int = 0) -> dict[str, np.ndarray]:
    return {
        info.path: dropout_mask(0, step, info.path, (BATCH, *info.output), info.layer.rate)
        for info in analysis.analyse(architecture)
        if isinstance(info.layer, Dropout)
    }


def scale_of(path: str, gradients: dict[str, np.ndarray]) -> float:
    """A gradient's scale: a bias before batch norm has gradient 0, so its layer's weight counts too."""
    layer = path.rpartition(".")[0]
    return max(largest(value) for other, value in gradients.items() if other.rpartition(".")[0] == layer)


@pytest.mark.parametrize("case", CASES)
def test_float64_passes_equal_the_reference(framework: backend.Backend, case: str) -> None:
    architecture = CASES[case]
    values, masks = parameters(architecture), masks_of(architecture)
    images = np.random.default_rng(0).standard_normal((BATCH, *architecture.input))
    for train in (False, True):
        network = framework.build(architecture, precision="fp64")
        framework.from_canonical(network, values)
        run = reference.forward(architecture, values, images, train=train, masks=masks)
        outputs = framework.forward(network, images, train=train, masks=masks if train else None)
        assert set(outputs) == set(run.outputs)
        for path, expected in run.outputs.items():
            assert outputs[path].dtype == np.float64
            np.testing.assert_allclose(outputs[path], expected, rtol=0, atol=CLOSE * largest(expected), err_msg=path)
    expected_loss, expected_gradients = reference.backward(run, LABELS)
    loss, gradients = framework.gradients(network, images, LABELS, masks=masks)
    assert loss == pytest.approx(expected_loss, rel=CLOSE)
    assert set(gradients) == set(expected_gradients)
    for path, expected in expected_gradients.items():
        tolerance = CLOSE * scale_of(path, expected_gradients)
        np.testing.assert_allclose(gradients[path], expected, rtol=0, atol=tolerance, err_msg=path)


@pytest.mark.parametrize("case", CASES)
def test_float32_errors_are_rounding(framework: backend.Backend, case: str) -> None:
    architecture = CASES[case]
    values, masks = parameters(architecture), masks_of(architecture)
    images = np.random.default_rng(0).standard_normal((BATCH, *architecture.input)).astype(np.float32)
    exact, *noisy = (_reference_passes(architecture, values, images, masks, seed) for seed in (None, *range(6)))
    network = framework.build(architecture)
    framework.from_canonical(network, values)
    found = framework.forward(network, images, train=True, masks=masks)
    found |= {f"gradient of {p}": g for p, g in framework.gradients(network, images, LABELS, masks=masks)[1].items()}
    assert set(found) == set(exact)
    for path, expected in exact.items():
        assert found[path].dtype == np.float32
        noise = max(largest(other[path] - expected) for other in noisy)
        assert largest(found[path] - expected) <= NOISE * max(noise, 2**-24 * largest(expected)), path


def _reference_passes(architecture, values, images, masks, seed) -> dict[str, np.ndarray]:
    rounded = {} if seed is None else {"rounding": rounding.Perturbation(np.random.default_rng(seed))}
    run = reference.forward(architecture, values, images, train=True, masks=masks, **rounded)
    _, gradients = reference.backward(run, LABELS)
    return run.outputs | {f"gradient of {path}": gradient for path, gradient in gradients.items()}


def test_float32_cross_entropy_is_accurate(framework: backend.Backend) -> None:
    """MXNet's own log_softmax is off by 3e-6, which the rounding of a whole network would hide."""
    architecture = Architecture("loss", (8, 2, 2), 3, (Flatten("flatten"), Dense("dense", 3)))
    values = parameters(architecture)
    images = 3 * np.random.default_rng(0).standard_normal((BATCH, 8, 2, 2)).astype(np.float32)
    network = framework.build(architecture)
    framework.from_canonical(network, values)
    _, found = framework.gradients(network, images, LABELS, masks={})
    _, expected = reference.backward(reference.forward(architecture, values, images, train=True), LABELS)
    for path, gradient in expected.items():
        assert largest(found[path] - gradient) <= 8e-7 * largest(gradient), path


def trained() -> Architecture:
    """Every kind of parameter, side classifier included, behind an input that is cropped, resized and normalised."""
    body = Block("body", (Conv("conv", 4, (3, 3), padding=(1, 1)), BatchNorm("norm", gamma=False, unbiased=False)))
    head = (GlobalAvgPool("pool"), Flatten("flatten"), Dense("dense", 3))
    return small(
        Conv("conv", 4, (3, 3)),
        BatchNorm("norm", momentum=0.3),
        ReLU("relu"),
        Auxiliary("head", head, 0.3),
        Residual("unit", body, scale=0.5),
        MaxPool("pool", (2, 2), (2, 2)),
        Dropout("dropout", 0.5),
        size=(9, 8),
        channels=1,
    )


TRANSFORM = InputTransform(1, 9, 8, (0.3,), (0.7,), crop_padding=1)


def train(framework, architecture, optimizer, schedule, *, resume_at=None, frozen=frozenset()) -> tuple:
    """Steps of a backend and of the reference on the same batches: `(trainer, network, values, state, figures,
    expected figures)`."""
    random = np.random.default_rng(0)
    network = framework.build(architecture, precision="fp64")
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
            network = framework.build(architecture, precision="fp64")
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


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-13) -> None:
    assert set(found) == set(expected)
    for path, value in expected.items():
        atol = tolerance * max(1.0, largest(value))
        np.testing.assert_allclose(found[path], value, rtol=0, atol=atol, err_msg=path)


STEADY = [Rates(rate, 0.9) for rate in (0.1, 0.1, 0.05, 0.02, 0.2)]


SGD = Optimizer(momentum=0.9, weight_decay=0.01)
OPTIMIZERS = {
    "all decay": SGD,
    "weights decay": replace(SGD, decayed="weights"),
    "nesterov": replace(SGD, nesterov=True),
    "adam": Optimizer("adam", weight_decay=0.01, eps=0.1),
    "adamw": Optimizer("adamw", weight_decay=0.1, beta1=0.7, decayed="weights", eps=0.1),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=list(OPTIMIZERS))


@every_optimizer
def test_training_equals_the_reference(framework: backend.Backend, optimizer: Optimizer) -> None:
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
def test_changing_rates_equal_the_reference(framework: backend.Backend, schedule: tuple) -> None:
    trainer, network, values, state, *_ = train(framework, trained(), SGD, schedule[1])
    assert_close(framework.to_canonical(network), values)
    assert_close(trainer.state(), state)


@every_optimizer
def test_a_resumed_run_equals_an_unbroken_one(framework: backend.Backend, optimizer: Optimizer) -> None:
    whole = train(framework, trained(), optimizer, STEADY)
    resumed = train(framework, trained(), optimizer, STEADY, resume_at=3)
    assert_close(framework.to_canonical(resumed[1]), framework.to_canonical(whole[1]))
    assert_close(resumed[0].state(), whole[0].state())


def test_without_momentum_there_is_no_state(framework: backend.Backend) -> None:
    trainer, network, values, *_ = train(framework, trained(), Optimizer(), [Rates(0.1)] * 3)
    assert trainer.state() == {}
    assert_close(framework.to_canonical(network), values)


def test_own_dropout_depends_on_seed_and_step_only(framework: backend.Backend) -> None:
    architecture = trained()
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 1, 9, 8), np.uint8)

    def loss(seed: int, number: int) -> float:
        network = framework.build(architecture, precision="fp64")
        framework.from_canonical(network, parameters(architecture))
        trainer = framework.Trainer(network, Optimizer(), TRANSFORM, seed)
        trainer.step(images, LABELS, Rates(0.0), 0)
        return float(trainer.read([trainer.step(images, LABELS, Rates(0.0), number)])[0, 0])

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", [(3, 6, 10), (1, 9, 8), (1, 20, 8)])
def test_the_input_equals_the_reference(framework: backend.Backend, stored: tuple, channels: int) -> None:
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
    network, values = framework.build(architecture, precision="fp64"), parameters(architecture)
    framework.from_canonical(network, values)
    trainer = framework.Trainer(network, Optimizer(), transform, 0)
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


def test_passes_leave_the_network_as_it_was(framework: backend.Backend) -> None:
    architecture = trained()
    network = framework.build(architecture, precision="fp64")
    framework.from_canonical(network, parameters(architecture))
    images = np.random.default_rng(0).standard_normal((BATCH, *architecture.input))
    framework.forward(network, images, train=True, masks=masks_of(architecture))
    framework.gradients(network, images, LABELS, masks=masks_of(architecture))
    assert_close(framework.to_canonical(network), parameters(architecture), 0.0)


@pytest.mark.parametrize("widths", [(24, 16, 24), (12, 8, 20), (3, 5, 7)])
def test_branches_may_have_any_widths(framework: backend.Backend, widths: tuple[int, ...]) -> None:
    """In float32, where oneDNN's blocked layouts are used: MXNet's own concatenation fails for the first two."""
    branches = tuple(Block(f"b{i}", (Conv("conv", width, (3, 3), padding=(1, 1)),)) for i, width in enumerate(widths))
    architecture = small(Branches("mixed", branches), Conv("last", 16, (3, 3), padding=(1, 1)), channels=16)
    network, values = framework.build(architecture), parameters(architecture)
    framework.from_canonical(network, values)
    images = np.random.default_rng(0).standard_normal((BATCH, *architecture.input)).astype(np.float32)
    _, found = framework.gradients(network, images, LABELS, masks={})
    run = reference.forward(architecture, values, images, train=True)
    assert_close(found, reference.backward(run, LABELS)[1], 1e-5)


def test_initialize_depends_on_the_seed_only(framework: backend.Backend) -> None:
    def start(seed: int) -> dict[str, np.ndarray]:
        network = framework.build(trained())
        framework.initialize(network, seed)
        return framework.to_canonical(network)

    assert_close(start(3), start(3), 0.0)
    assert largest(start(3)["conv.weight"] - start(4)["conv.weight"]) > 0


def test_wrong_requests_are_refused(framework: backend.Backend) -> None:
    with pytest.raises(TriptychError, match="no device 'abacus'"):
        framework.build(trained(), device="abacus")
    with pytest.raises(TriptychError, match="no precision 'fp3'"):
        framework.build(trained(), precision="fp3")
    network = framework.build(trained())
    with pytest.raises(TriptychError, match="do not fit"):
        framework.from_canonical(network, {})


# --- frozen parameters: see triptych.backend.Trainer ----------------------------------------------------------------

NORM = frozenset(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var"))
FROZEN = {
    "the first layers": frozenset({"conv.weight", "conv.bias"}) | NORM,
    "gamma and beta alone": frozenset({"norm.weight", "norm.bias"}),
    "statistics alone": frozenset({"norm.running_mean"}),
    "within, and a head": frozenset({"unit.body.conv.weight", "head.dense.weight", "dense.bias"}),
}


@pytest.mark.parametrize("optimizer", [SGD, OPTIMIZERS["adamw"]], ids=["sgd", "adamw"])
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=list(FROZEN))
def test_frozen_parameters_stay_and_the_others_follow_the_reference(
    framework: backend.Backend, frozen: frozenset[str], optimizer: Optimizer
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
    assert state.keys() & {f"{slot}.{path}" for slot in optimizers.SLOTS[optimizer.name] for path in frozen} == set()
    np.testing.assert_allclose(figures, expected, rtol=1e-12)


# What each framework differentiates by; JAX: the first argument of the compiled pass.
DIFFERENTIATED = {
    "torch": lambda trainer: [p for p, tensor in trainer.network.named_parameters() if tensor.grad is not None],
    "mxnet": lambda trainer: [p for p, q in trainer.network.named_parameters().items() if q.grad_req != "null"],
    "jax": lambda trainer: [
        ".".join(p).replace("kernel", "weight").replace("scale", "weight") for p in trainer.optimizer.named
    ],
}


def test_frozen_parameters_cost_no_gradient(framework: backend.Backend) -> None:
    """And another trainer of the same network sets all free again."""
    architecture = trained()
    network = framework.build(architecture, precision="fp64")
    framework.from_canonical(network, parameters(architecture))
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 1, 9, 8), np.uint8)
    for frozen in (FROZEN["the first layers"], frozenset[str]()):
        trainer = framework.Trainer(network, SGD, TRANSFORM, 0, frozen)
        trainer.step(images, LABELS, Rates(0.1, 0.9), 0)
        moving = optimizers.decay_of(SGD, architecture, frozen)
        assert set(DIFFERENTIATED[framework.name](trainer)) == set(moving)
    assert len(moving) == len([info for info in analysis.parameters(architecture) if info.trained])
