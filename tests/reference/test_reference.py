"""The judge is judged: numerical differentiation, direct loops, hand-written recurrences, PyTorch's operators."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from triptych.optim import optimizers
from triptych.optim.optimizers import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    Rates,
    RMSprop,
    decay_of,
    get_kind,
    reference_step,
)
from triptych.reference import network as reference
from triptych.reference import rounding
from triptych.reference.loss import cross_entropy, linear
from triptych.spec.analysis import analyse
from triptych.spec.kinds import COMPOSITES, KINDS, kind_of
from triptych.spec.kinds.layer_pass import Conditions, LayerPass, exact
from triptych.spec.layers import (
    ELU,
    GELU,
    SELU,
    Affine,
    Architecture,
    Auxiliary,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    ChannelShuffle,
    Clip,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Graph,
    HardSigmoid,
    HardSwish,
    Initializer,
    L2Normalize,
    Layer,
    LeakyReLU,
    LocalResponseNorm,
    MaxPool,
    Mish,
    Node,
    Pad,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
    Upsample,
    walk,
)
from triptych.spec.shapes import layer_output
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import dropout_mask
from triptych.weights import initializers

BATCH = 3
LABELS = np.array([2, 0, 1])
STEM = Conv("stem", 4, (3, 3), padding=(1, 1))


def small(*layers: Layer, size: tuple[int, int] = (6, 7)) -> Architecture:
    return Architecture(
        "small", (2, *size), 3, (*layers, Flatten("flatten"), Dense("dense", 3)), Initializer("kaiming_normal")
    )


def pools() -> Iterator[tuple[str, Architecture]]:
    """Windows that fit or hang over, padded or not, counted or not, asymmetric."""
    windows = [((3, 3), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((2, 3), (3, 2), (1, 0)), ((3, 2), (4, 1), (1, 1))]
    for number, (window, ceil) in enumerate(product(windows, (False, True))):
        yield f"max_{number}", small(STEM, MaxPool("pool", *window, ceil=ceil))
        for count in (False, True):
            yield f"average_{number}_{count}", small(STEM, AvgPool("pool", *window, ceil=ceil, count_padding=count))


def composites() -> Iterator[tuple[str, Architecture]]:
    branch = Block("wide", (Conv("conv", 3, (3, 3), padding=(1, 1)), Sigmoid("sigmoid")))
    head = (GlobalAvgPool("pool"), Flatten("flatten"), Dropout("dropout", 0.3), Dense("dense", 3))
    body = Block("body", (Conv("conv", 4, (1, 3), padding=(0, 1)), BatchNorm("norm"), ReLU("relu")))
    yield (
        "branches",
        small(
            STEM, Branches("mixed", (branch, Block("same", ()), Block("pool", (MaxPool("p", (3, 3), (1, 1), (1, 1)),))))
        ),
    )
    yield "residual", small(STEM, Residual("unit", body, scale=0.3))
    yield "shortcut", small(Residual("unit", body, Block("short", (Conv("conv", 4, (1, 1)),)), -1.5), ReLU("relu"))
    yield (
        "auxiliary",
        small(STEM, Auxiliary("one", head, 0.3), ReLU("relu"), Auxiliary("two", head, 0.7), Dropout("drop", 0.5)),
    )


def merges() -> tuple[Layer, ...]:
    """A sum of three, a product with a map of one pixel, and one with a map of one channel."""
    three = tuple(Block(name, (Conv("conv", 4, (1, 1)),)) for name in ("one", "two"))
    gate = Block("gate", (GlobalAvgPool("pool"), Conv("conv", 4, (1, 1)), Sigmoid("sigmoid")))
    where = Block("where", (Conv("conv", 1, (3, 3), padding=(1, 1)), Sigmoid("sigmoid")))
    return (
        Branches("sum", (*three, Block("same", ())), "add"),
        Branches("attention", (Block("same", ()), gate), "multiply"),
        Branches("spatial", (where, Block("same", ())), "multiply"),
    )


def bridge(outputs: tuple[str, ...]) -> Graph:
    """No row and no branches: `a` and `b` from the input, `c` from both, `d` from `b`, `c` and the input."""
    nodes = (
        Node(Conv("a", 4, (3, 3), padding=(1, 1))),
        Node(Block("b", (Conv("conv", 2, (1, 1)), Sigmoid("sigmoid"))), ("input",)),
        Node(Conv("c", 6, (1, 1)), ("a", "b")),
        Node(Block("sum", ()), ("a", "input"), "add"),
        Node(Conv("d", 3, (1, 1)), ("b", "c", "sum")),
    )
    return Graph("bridge", nodes, outputs)


CASES = {
    "conv": small(Conv("conv", 4, (3, 2), (2, 1), (1, 0))),
    "conv_groups": small(Conv("a", 6, (1, 3), (1, 2), (0, 2), groups=2), Conv("b", 3, (3, 1), groups=3, bias=False)),
    "depthwise": small(Conv("conv", 4, (3, 3), (2, 3), (1, 1), groups=2)),
    "dense": small(Flatten("flat"), Dense("hidden", 5, bias=False), Sigmoid("sigmoid")),
    "relu": small(STEM, ReLU("relu")),
    "sigmoid": small(STEM, Sigmoid("sigmoid")),
    "norm": small(STEM, BatchNorm("norm", eps=0.1)),
    "norm_no_gamma": small(STEM, BatchNorm("norm", gamma=False), Sigmoid("sigmoid")),
    "lrn": small(STEM, LocalResponseNorm("lrn", 3, 0.9, 0.75, 2.0)),
    "lrn_wide": small(STEM, LocalResponseNorm("lrn", 7, 0.4, 1.3, 1.0, divide_alpha=False)),
    "dilation": small(STEM, Conv("conv", 4, (3, 2), (1, 2), (2, 1), groups=2, dilation=(2, 3))),
    "transposed": small(ConvTranspose("conv", 4, (3, 2), (2, 3), (1, 0), (1, 2)), ReLU("relu")),
    "transposed_groups": small(STEM, ConvTranspose("conv", 6, (2, 3), (1, 2), (0, 2), groups=2, bias=False)),
    "transposed_dilation": small(STEM, ConvTranspose("conv", 3, (2, 3), (2, 1), (1, 2), dilation=(3, 2))),
    "tanh": small(STEM, Tanh("tanh")),
    "clip": small(STEM, Clip("clip", -0.2, 0.3)),
    "leaky": small(STEM, LeakyReLU("leaky", 0.2)),
    "prelu": small(STEM, PReLU("prelu"), Flatten("flat"), Dense("hidden", 5), PReLU("flat_prelu")),
    "prelu_shared": small(STEM, PReLU("prelu", shared=True)),
    "silu": small(STEM, SiLU("silu")),
    "elu": small(STEM, ELU("elu", 0.7)),
    "selu": small(STEM, SELU("selu")),
    "gelu": small(STEM, GELU("gelu", approximate=False)),
    "gelu_tanh": small(STEM, GELU("gelu", approximate=True)),
    "softplus": small(STEM, Softplus("a"), Affine("more", (9.0,)), Softplus("b", 20.0)),
    "softsign": small(STEM, Softsign("softsign")),
    "mish": small(STEM, Mish("mish")),
    "hard_sigmoid": small(STEM, HardSigmoid("hard", 0.9, 0.4)),
    "hard_swish": small(STEM, HardSwish("hard")),
    "softmax": small(STEM, Softmax("softmax"), Flatten("flat"), Dense("hidden", 5), Softmax("flat_softmax")),
    "affine": small(Affine("a", (2.0, 3.0), (0.5,)), STEM, Affine("b", (0.5,), (0.1, 0.2, 0.3, 0.4))),
    "affine_trained": small(STEM, Affine("a", trained=True), Flatten("flat"), Affine("b", trained=True)),
    "l2_channels": small(STEM, L2Normalize("norm", 0.1)),
    "l2_whole": small(STEM, L2Normalize("norm", 1e-3, whole=True)),
    "l2_bound": small(STEM, L2Normalize("norm", 0.7, bound=True)),
    "pad": small(STEM, Pad("pad", (1, 2, 0, 3), 0.5)),
    "pad_edge": small(STEM, Pad("pad", (1, 2, 8, 3), mode="edge")),
    "pad_reflect": small(STEM, Pad("pad", (5, 2, 0, 6), mode="reflect")),
    "slice": small(STEM, Slice("a", "channels", 1, 3), Slice("b", "rows", 0, 4), Slice("c", "columns", 3, 7)),
    "upsample": small(STEM, Upsample("up", (2, 3))),
    "upsample_bilinear": small(STEM, Upsample("up", (2, 3), "bilinear")),
    "shuffle": small(Conv("conv", 6, (1, 1)), ChannelShuffle("shuffle", 3)),
    "reshape": small(STEM, Reshape("a", (28, 6, 1)), ReLU("relu"), Reshape("b", (168,)), Reshape("c", (7, 4, 6))),
    "largest": small(STEM, GlobalMaxPool("max")),
    "norm_flat": small(Flatten("flat"), Dense("hidden", 5), BatchNorm("norm", eps=0.1), Sigmoid("sigmoid")),
    "norm_no_beta": small(STEM, BatchNorm("norm", beta=False), Sigmoid("sigmoid")),
    "norm_frozen": small(STEM, BatchNorm("norm", frozen=True), Sigmoid("sigmoid")),
    "merges": small(STEM, *merges()),
    "graph": small(STEM, bridge(("d",)), ReLU("relu")),
    "mean": small(STEM, GlobalAvgPool("mean")),
    "dropout": small(STEM, Dropout("dropout", 0.4), ReLU("relu")),
    **dict(pools()),
    **dict(composites()),
}


def values_of(architecture: Architecture) -> dict[str, np.ndarray]:
    """Drawn parameters, those with one axis off their neutral start."""
    random = np.random.default_rng(1)
    drawn = initializers.draw(architecture, 0).items()
    return {p: v + random.uniform(0.1, 0.5, v.shape) if v.ndim == 1 else v.astype(np.float64) for p, v in drawn}


def masks_of(architecture: Architecture) -> dict[str, np.ndarray]:
    leaves = [info for info in analyse(architecture) if isinstance(info.layer, Dropout)]
    return {i.path: dropout_mask(0, 0, i.path, (BATCH, *i.output), i.layer.rate) for i in leaves}


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", CASES)
def test_backward_is_the_derivative_of_forward(case: str, train: bool) -> None:
    architecture = CASES[case]
    random = np.random.default_rng(2)
    arrays = values_of(architecture) | {"input": random.standard_normal((BATCH, *architecture.input))}
    masks = masks_of(architecture)

    def run(moved: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
        return reference.backward(
            reference.forward(architecture, moved, moved["input"], train=train, masks=masks), LABELS
        )

    _, gradients = run(arrays)
    trained = {path for path in arrays if not path.endswith(("running_mean", "running_var"))}
    unused = {path for path in arrays if not train and path.startswith(("one.", "two."))}  # auxiliary classifiers
    assert set(gradients) == trained - unused
    for path, gradient in gradients.items():
        assert gradient.shape == arrays[path].shape
        for _ in range(3):  # a wrong entry is seen in every direction
            step = 1e-6 * random.standard_normal(gradient.shape)
            above, below = (run(arrays | {path: arrays[path] + sign * step})[0] for sign in (1, -1))
            expected = 2 * np.sum(gradient * step)
            size = 2e-6 * np.sqrt(np.sum(gradient**2))
            assert abs(above - below - expected) < 1e-7 * size + 1e-14, path


def test_every_kind_of_layer_is_differentiated() -> None:
    seen = {type(layer) for architecture in CASES.values() for _, layer in walk(architecture.layers)}
    assert seen == {*KINDS, *COMPOSITES}


def alone(layer: Layer, x: np.ndarray, *, train: bool = False, **arrays: np.ndarray) -> LayerPass:
    return kind_of(layer).reference(layer, x, arrays, Conditions(exact, train=train))


def windows(x: np.ndarray, layer: MaxPool | AvgPool | Conv, place: tuple[int, int]) -> Iterator[tuple[int, int, bool]]:
    """The places of one window in the map, and whether they lie in it; what hangs over the padding is left out."""
    for i, j in np.ndindex(layer.kernel):
        row = place[0] * layer.stride[0] + i - layer.padding[0]
        column = place[1] * layer.stride[1] + j - layer.padding[1]
        if row < x.shape[0] + layer.padding[0] and column < x.shape[1] + layer.padding[1]:
            yield row, column, 0 <= row < x.shape[0] and 0 <= column < x.shape[1]


def conv_by_hand(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, layer: Conv) -> np.ndarray:
    y = np.zeros((len(x), *layer_output(layer, x.shape[1:], "conv")))
    per_group, inputs = layer.channels // layer.groups, weight.shape[1]
    for n, o, r, c in np.ndindex(y.shape):
        y[n, o, r, c] = bias[o]
        taps = [weight[o, :, i, j] for i, j in np.ndindex(layer.kernel)]
        for (row, column, inside), tap in zip(windows(x[0, 0], layer, (r, c)), taps, strict=True):
            first = o // per_group * inputs
            y[n, o, r, c] += np.sum(tap * x[n, first : first + inputs, row, column]) if inside else 0.0
    return y


def pool_by_hand(x: np.ndarray, layer: MaxPool | AvgPool) -> np.ndarray:
    y = np.zeros((len(x), *layer_output(layer, x.shape[1:], "pool")))
    for n, o, r, c in np.ndindex(y.shape):
        places = list(windows(x[n, o], layer, (r, c)))
        inside = [x[n, o, row, column] for row, column, within in places if within]
        if isinstance(layer, MaxPool):
            y[n, o, r, c] = max(inside)
        else:
            y[n, o, r, c] = sum(inside) / (len(places) if layer.count_padding else len(inside))
    return y


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(("max", "average"))])
def test_pools_equal_direct_loops(case: str) -> None:
    layer = CASES[case].layers[1]
    assert isinstance(layer, MaxPool | AvgPool)
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7)) - 3  # below the zeros of the padding
    np.testing.assert_allclose(alone(layer, x).output, pool_by_hand(x, layer), rtol=0, atol=1e-14)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [((3, 2), (2, 1), (1, 0)), ((1, 4), (1, 3), (0, 3))])
def test_convolution_equals_direct_loops(kernel: tuple, stride: tuple, padding: tuple, groups: int) -> None:
    layer = Conv("conv", 8, kernel, stride, padding, groups)
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((2, 4, 6, 7)), random.standard_normal((8, 4 // groups, *kernel))
    bias = random.standard_normal(8)
    y = alone(layer, x, weight=weight, bias=bias).output
    np.testing.assert_allclose(y, conv_by_hand(x, weight, bias, layer), atol=1e-13)


@pytest.mark.parametrize(("size", "divide", "coefficient"), [(3, True, 0.1), (3, False, 0.3), (7, True, 0.3 / 7)])
def test_local_response_norm_equals_the_formula(size: int, divide: bool, coefficient: float) -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 2, 3))
    y = alone(LocalResponseNorm("lrn", size, 0.3, 0.75, 2.0, divide), x).output
    for n, c, row, column in np.ndindex(x.shape):
        near = [x[n, k, row, column] ** 2 for k in range(5) if abs(k - c) <= size // 2]
        expected = x[n, c, row, column] / (2.0 + coefficient * sum(near)) ** 0.75
        assert y[n, c, row, column] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("unbiased", [False, True])
def test_batch_norm_and_its_running_statistics(unbiased: bool) -> None:
    random = np.random.default_rng(0)
    x, (gamma, beta, mean, var) = 3 + random.standard_normal((2, 3, 2, 2)), random.uniform(0.5, 2, (4, 3))
    layer = BatchNorm("norm", eps=0.01, momentum=0.3, unbiased=unbiased)
    for train in (False, True):
        arrays = {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": var}
        y, _, running = alone(layer, x, train=train, **arrays)
        for c in range(3):
            batch = [float(value) for value in x[:, c].ravel()]
            centre, spread = (statistics.mean(batch), statistics.pvariance(batch)) if train else (mean[c], var[c])
            expected = (x[:, c] - centre) / (spread + 0.01) ** 0.5 * gamma[c] + beta[c]
            np.testing.assert_allclose(y[:, c], expected, rtol=1e-12)
            kept = statistics.variance(batch) if unbiased else statistics.pvariance(batch)
            new = (0.7 * mean[c] + 0.3 * statistics.mean(batch), 0.7 * var[c] + 0.3 * kept)
            statistics_after = (running["running_mean"][c], running["running_var"][c])
            assert statistics_after == pytest.approx(new if train else (mean[c], var[c]), rel=1e-12)


def test_cross_entropy_by_hand() -> None:
    logits, labels = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, 1.0]]), np.array([0, 2])
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss, gradient = cross_entropy(logits, labels)
    assert loss == pytest.approx(-(np.log(chances[0, 0]) + np.log(chances[1, 2])) / 2, rel=1e-15)
    np.testing.assert_allclose(gradient, (chances - np.eye(3)[labels]) / 2, atol=1e-16)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_cross_entropy_of_large_logits(shift: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, gradient = cross_entropy(shift + np.array([[1000.0, 0.0], [-500.0, 700.0]]), np.array([1, 1]))
    assert loss == 500.0
    np.testing.assert_array_equal(gradient, [[0.5, -0.5], [0.0, 0.0]])


def test_the_loss_of_cotangents_is_float64_whatever_the_batch() -> None:
    """A fifth of a float32 is none."""
    outputs, cotangent = np.linspace(-1, 1, 10).reshape(5, 2), np.float32(np.linspace(0.1, 0.7, 10)).reshape(5, 2)
    loss, (gradient,) = linear([outputs], [cotangent])
    exact_cotangent = cotangent.astype(np.float64)
    np.testing.assert_allclose(gradient, exact_cotangent / 5, rtol=1e-15)
    assert loss == pytest.approx((outputs * exact_cotangent).sum() / 5, rel=1e-14)


def test_dropout_is_off_in_evaluation_and_follows_its_mask_in_training() -> None:
    architecture = CASES["dropout"]
    values, images = values_of(architecture), np.ones((BATCH, *architecture.input))
    outputs = reference.forward(architecture, values, images, masks=masks_of(architecture)).outputs
    np.testing.assert_array_equal(outputs["dropout"], outputs["stem"])
    trained = reference.forward(architecture, values, images, train=True, masks=masks_of(architecture)).outputs
    expected = np.where(masks_of(architecture)["dropout"], trained["stem"] / (1 - 0.4), 0.0)
    np.testing.assert_allclose(trained["dropout"], expected, rtol=1e-15)
    with pytest.raises(TriptychError, match=r"^layer 'dropout': training needs a dropout mask"):
        reference.forward(architecture, values, images, train=True)


def test_steps_equal_a_hand_written_recurrence() -> None:
    """Two losses of one weight and one bias each; only the weights decay, and the rates change on the way."""
    architecture = Architecture("line", (1, 1, 1), 1, (Flatten("flatten"), Dense("dense", 1)))
    optimizer = SGD(weight_decay=0.25, decayed="weights")
    decay = decay_of(optimizer, architecture)
    assert decay == {"dense.weight": 0.25, "dense.bias": 0.0}
    assert set(decay_of(SGD(weight_decay=0.25), architecture).values()) == {0.25}
    values, state = {"dense.weight": np.array([[2.0]]), "dense.bias": np.array([1.0])}, {}
    weight, bias, fast, slow = 2.0, 1.0, 0.0, 0.0
    for rate, momentum, slope in [(0.5, 0.5, 1.0), (0.25, 0.75, -2.0), (1.0, 0.5, 0.5)]:
        gradients = {"dense.weight": np.array([[slope]]), "dense.bias": np.array([3 * slope])}
        values, state = reference_step(values, gradients, state, Rates(rate, momentum), optimizer, decay)
        fast = momentum * fast + slope + 0.25 * weight
        slow = momentum * slow + 3 * slope
        weight, bias = weight - rate * fast, bias - rate * slow
        assert (values["dense.weight"][0, 0], values["dense.bias"][0]) == (weight, bias)
        assert (state["velocity.dense.weight"][0, 0], state["velocity.dense.bias"][0]) == (fast, slow)
    values, state = reference_step(values, gradients, state, Rates(0.5), optimizer, decay)
    assert values["dense.bias"][0] == bias - 0.5 * 3 * slope
    assert state == {}


@pytest.mark.parametrize("optimizer", [SGD(momentum=0.9, nesterov=True), Adam(), AdamW(), RMSprop(), Adagrad()])
def test_a_large_array_moves_in_parts_as_it_does_at_once(optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def moved() -> list[np.ndarray]:
        random = np.random.default_rng(0)
        values = {"rows": random.random((7, 5, 3)), "row": random.random(25), "one": np.array(1.5)}
        state: dict[str, np.ndarray] = {}
        for _ in range(3):
            gradients = {name: random.random(value.shape) for name, value in values.items()}
            rates, decay = optimizer.rates(0.1, 0.9), {"rows": 0.01, "row": 0.0, "one": 0.1}
            values, state = reference_step(values, gradients, state, rates, optimizer, decay)
        return [*values.values(), *state.values()]

    whole = moved()
    monkeypatch.setattr(optimizers, "PART", 20)
    for left, right in zip(whole, moved(), strict=True):
        np.testing.assert_array_equal(left, right, strict=True)


def test_label_smoothing_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    logits, labels = np.random.default_rng(0).standard_normal((5, 4)), np.array([0, 3, 1, 1, 2])
    leaf = torch.from_numpy(logits).requires_grad_()
    native = torch.nn.functional.cross_entropy(leaf, torch.from_numpy(labels), label_smoothing=0.2)
    native.backward()
    loss, gradient = cross_entropy(logits, labels, smoothing=0.2)
    assert loss == pytest.approx(native.item(), rel=1e-14)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), atol=1e-15)


def test_every_optimizer_equals_pytorchs() -> None:
    """torch.optim on one weight, in float64, with a rate that changes: an implementation that is not ours."""
    torch = pytest.importorskip("torch")
    architecture = Architecture("line", (1, 1, 1), 1, (Flatten("flatten"), Dense("dense", 1, bias=False)))
    decay, betas = float(np.float32(0.1)), {"betas": (0.8, 0.95), "eps": 0.01}
    nesterov = {"momentum": 0.5, "nesterov": True}
    rmsprop = {"momentum": 0.5, "alpha": 0.8, "eps": 0.01}
    cases = [
        (SGD(momentum=0.5, nesterov=True, weight_decay=0.1), torch.optim.SGD, nesterov),
        (Adam(weight_decay=0.1, beta1=0.8, beta2=0.95, eps=0.01), torch.optim.Adam, betas),
        (AdamW(weight_decay=0.1, beta1=0.8, beta2=0.95, eps=0.01), torch.optim.AdamW, betas),
        (RMSprop(weight_decay=0.1, momentum=0.5, alpha=0.8, eps=0.01), torch.optim.RMSprop, rmsprop),
        (Adagrad(weight_decay=0.1, eps=0.01), torch.optim.Adagrad, {"eps": 0.01}),
    ]
    for optimizer, kind, options in cases:
        weight = torch.nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
        native = kind([weight], lr=0.0, weight_decay=decay, **options)
        values, state = {"dense.weight": np.array([[2.0]])}, {}
        for rate, slope in ((0.5, 1.0), (0.25, -2.0), (1.0, 0.5)):
            native.param_groups[0]["lr"], weight.grad = rate, torch.full((1, 1), slope, dtype=torch.float64)
            native.step()
            gradients, rates = {"dense.weight": np.array([[slope]])}, Rates(rate, optimizer.momentum)
            values, state = reference_step(
                values, gradients, state, rates, optimizer, decay_of(optimizer, architecture)
            )
            assert values["dense.weight"][0, 0] == pytest.approx(weight.item(), rel=1e-15)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("adma", {}, "did you mean 'adam'"),
        ("sgd", {"momentum": 1.0}, "--momentum 1.0 must be at least 0 and below 1"),
        ("adam", {"beta1": -0.1}, "--beta1"),
        ("adamw", {"weight_decay": float("nan")}, "--weight-decay nan"),
        ("adam", {"eps": 0.0}, "--eps 0.0 must be a number above 0"),
        ("adagrad", {"eps": 0.0}, "--eps 0.0 must be a number above 0"),
        ("rmsprop", {"alpha": 1.0}, "--alpha 1.0 must be at least 0 and below 1"),
        ("sgd", {"nesterov": True}, "--nesterov needs a momentum"),
        ("sgd", {"decayed": "biases"}, "decayed"),
    ],
)
def test_impossible_optimizers_are_refused(name: str, wrong: dict, words: str) -> None:
    with pytest.raises(TriptychError, match=words):
        get_kind(name)(**wrong)


def test_rates_are_float32() -> None:
    assert Rates(0.1, 0.9) == Rates(float(np.float32(0.1)), float(np.float32(0.9)))
    assert Rates(0.1).learning_rate != 0.1


def test_perturbations_have_the_stated_size_and_a_mirror_image() -> None:
    value = np.random.default_rng(0).uniform(-8, 8, 10_000)
    up, down = (rounding.Perturbation(np.random.default_rng(1), sign)(value, 25) - value for sign in (1.0, -1.0))
    np.testing.assert_allclose(up, -down, atol=1e-15)
    assert np.abs(up).max() == pytest.approx(4 * 2**-24 * 5 * np.abs(value).max(), rel=1e-3)
    wider = rounding.Perturbation(np.random.default_rng(1))(value, 25, 80.0) - value
    np.testing.assert_allclose(wider, up * 80 / np.abs(value).max(), rtol=1e-6)


SIDES = st.integers(1, 4)


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch, the second opinion, is not installed")
@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.tuples(st.integers(0, 2), st.integers(0, 2)), st.data())
def test_pytorch_is_of_the_same_opinion(kernel: tuple, stride: tuple, padding: tuple, data: st.DataObject) -> None:
    """A second judge for windows: forward and gradient of convolution and pooling."""
    torch = importlib.import_module("torch")
    size = data.draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))
    groups, ceil, count = data.draw(st.sampled_from((1, 2, 4))), data.draw(st.booleans()), data.draw(st.booleans())
    conv = Conv("conv", 4, kernel, stride, padding, groups, bias=False)
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((2, 4, *size)), random.standard_normal((4, 4 // groups, *kernel))
    functional = torch.nn.functional

    def agree(ours: LayerPass, native: object) -> None:
        leaf = torch.from_numpy(x).requires_grad_()
        y = native(leaf)
        dy = random.standard_normal(ours.output.shape)
        y.backward(torch.from_numpy(dy))
        np.testing.assert_allclose(ours.output, y.detach().numpy(), atol=1e-13)
        np.testing.assert_allclose(ours.backward(dy)[0], leaf.grad.numpy(), atol=1e-13)

    agree(
        alone(conv, x, weight=weight),
        lambda leaf: functional.conv2d(leaf, torch.from_numpy(weight), None, stride, padding, groups=groups),
    )
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    largest = MaxPool("pool", kernel, stride, padding, ceil)
    agree(alone(largest, x), lambda leaf: functional.max_pool2d(leaf, kernel, stride, padding, ceil_mode=ceil))
    mean = AvgPool("pool", kernel, stride, padding, ceil, count)
    agree(alone(mean, x), lambda leaf: functional.avg_pool2d(leaf, kernel, stride, padding, ceil, count))
