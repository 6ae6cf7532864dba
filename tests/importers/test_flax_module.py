"""Flax modules, NNX and Linen, become networks: their own outputs, gradients and statistics, and stay as they were."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from triptych.backend import registry
from triptych.importers.steps import Imported, ImportRefusedError, Request
from triptych.reference import network as reference
from triptych.spec.layers import (
    Affine,
    BatchNorm,
    Clip,
    Conv,
    Dropout,
    Flatten,
    HardSigmoid,
    Pad,
    Residual,
    outputs,
    walk,
)

if "jax" not in registry.installed():
    pytest.skip("jax is not installed", allow_module_level=True)

import jax
import jax.numpy as jnp
from flax import linen, nnx

from array_checks import by_value, close, compare_all
from flax_networks import LINEN, NNX, SIZE, LinenResNet, WrittenNorm, network
from triptych_jax.port import import_network

SHAPE = (3, SIZE, SIZE)
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(autouse=True)
def wide() -> Iterator[None]:
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def imported(candidate: Any, shape: tuple[int, int, int] = SHAPE, **options: Any) -> Imported:
    return import_network(candidate, Request(input=shape, keep_softmax=True, **options))


def layers(made: Imported) -> list[Any]:
    return [layer for _, layer in walk(made.architecture.layers)]


def flat(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): np.asarray(value) for path, value in jax.tree.leaves_with_path(tree)}


def apart(candidate: Any, train: bool) -> tuple[Any, Any, Any]:
    """A function of parameters and images, which gives outputs and statistics; the parameters; the statistics."""
    owner = candidate if isinstance(candidate, nnx.Module) else candidate[0]
    switches = {"train": train} if "train" in inspect.signature(type(owner).__call__).parameters else {}
    if isinstance(candidate, nnx.Module):
        candidate.train() if train else candidate.eval()
        graph, parameters, statistics, rest = nnx.split(candidate, nnx.Param, nnx.BatchStat, ...)

        def nnx_function(parameters: Any, x: Any) -> Any:
            module = nnx.merge(graph, parameters, jax.tree.map(jnp.asarray, statistics), rest)  # new ones can be set
            return module(x, **switches), nnx.state(module, nnx.BatchStat)

        return nnx_function, parameters, statistics
    module, variables = candidate

    def linen_function(parameters: Any, x: Any) -> Any:
        return module.apply({**variables, "params": parameters}, x, mutable=["batch_stats"], **switches)

    return linen_function, variables["params"], variables.get("batch_stats", {})


def check_same(candidate: Any, made: Imported, *, train: bool = False, images: int = 4) -> None:
    """Outputs, gradients and running statistics on some images, in float64."""
    generator = np.random.default_rng(0)
    x = generator.normal(0.3, 0.5, (images, *made.architecture.input))
    function, parameters, statistics = apart(candidate, train)
    run = reference.forward(made.architecture, made.parameters or {}, x, train=train, masks={})
    (end,) = outputs(made.architecture)
    cotangent = generator.normal(size=run.outputs[end].shape)

    @quick
    def both(parameters: Any, x: Any) -> Any:
        y, pull, after = jax.vjp(function, parameters, x, has_aux=True)
        return y, pull(jnp.asarray(cotangent) / images), after

    y, (gradients, dx), after = both(parameters, jnp.asarray(x.transpose(0, 2, 3, 1)))
    close(run.outputs[end], np.asarray(y), end)
    _, mine = reference.backward(run, (cotangent,))
    close(mine["input"], np.asarray(dx).transpose(0, 3, 1, 2), "the images' gradient")
    given = dict(made.parameters or {})
    compare_all(canonical(given, mine), canonical(flat(parameters), flat(gradients)))
    if statistics and train:
        kept = {name: run.statistics[name] for name in given if "running" in name}
        after = after if isinstance(candidate, nnx.Module) else after["batch_stats"]
        compare_all(canonical(given, kept), canonical(flat(statistics), flat(after)))


def canonical(arrays: dict[str, Any], values: dict[str, Any]) -> dict[bytes, Any]:
    return by_value(arrays, {name: value for name, value in values.items() if name in arrays})


@pytest.mark.parametrize("name", [*NNX, *LINEN])
def test_a_module_becomes_the_same_network(name: str) -> None:
    candidate = network(name)
    made = imported(candidate)
    check_same(candidate, made)
    assert not made.remarks


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 3), (4, 2), (5, 2), (2, 3), (5, 3)])
def test_transposed_convolutions_of_every_padding(kernel: int, stride: int, padding: str) -> None:
    options: dict[str, Any] = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    layer = nnx.ConvTranspose(3, 4, (kernel, kernel + 1), (stride, 2), padding=padding, **options)
    layer.bias[...] = jnp.linspace(-1, 1, 4)
    features = int(np.prod(layer(jnp.zeros((1, 7, 6, 3))).shape))
    module = nnx.Sequential(layer, lambda x: x.reshape(len(x), -1), nnx.Linear(features, 5, **options))
    made = imported(module, (3, 7, 6))
    assert not made.remarks
    check_same(module, made)


@jax.jit
def bounded(x: Any) -> Any:
    return jnp.maximum(x, 0.1)


class Written(nnx.Module):
    """What somebody writes between two convolutions, the second of which comes to other maps."""

    def __init__(self, between: Any, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(3, 4, (3, 3), param_dtype=jnp.float64, rngs=rngs)
        self.between = between
        self.second = nnx.Conv(
            between(jnp.zeros((2, 6, 8, 4))).shape[-1], 2, (3, 3), param_dtype=jnp.float64, rngs=rngs
        )

    def __call__(self, x: Any) -> Any:
        return self.second(self.between(self.first(x))).mean((1, 2))


def pixels_to_rows(x: Any) -> Any:
    n, rows, columns, channels = x.shape
    pairs = x.reshape(n, rows, columns, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return pairs.reshape(n, 2 * rows, 2 * columns, channels // 4)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x[..., ::-1],
        lambda x: x[..., jnp.array([2, 0, 3])],
        lambda x: x.swapaxes(1, 2),
        pixels_to_rows,
        lambda x: jnp.maximum(x, x[..., ::-1] * -2),
        lambda x: jnp.minimum(x, 0.3 * x + 0.1),
        lambda x: jnp.minimum(x, 0.1),
        lambda x: bounded(x),
        lambda x: jnp.clip(x, -0.1, 0.1),
    ],
)
def test_moved_channels_and_pixels_and_bounds_are_layers(between: Any) -> None:
    module = Written(between, nnx.Rngs(0))
    check_same(module, imported(module, (3, 6, 8)))


class Rows(nnx.Module):
    """Means, sums and maxima over one axis after the other."""

    def __init__(self, reduce: Any, features: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, 4, (3, 3), param_dtype=jnp.float64, rngs=rngs)
        self.out = nnx.Linear(features, 5, param_dtype=jnp.float64, rngs=rngs)
        self.reduce = reduce

    def __call__(self, x: Any) -> Any:
        return self.out(self.reduce(self.conv(x)))


@pytest.mark.parametrize(
    ("reduce", "features"),
    [
        (lambda x: x.mean(1).mean(1), 4),
        (lambda x: x.mean(2, keepdims=True).max(1)[:, 0], 4),
        (lambda x: x.sum(1).max(1), 4),
        (lambda x: x.max(2).reshape(len(x), -1), 28),
    ],
)
def test_reductions_over_one_axis(reduce: Any, features: int) -> None:
    module = Rows(reduce, features, nnx.Rngs(0))
    check_same(module, imported(module, (3, 7, 6)))


@pytest.mark.parametrize("over", [(0, 1, 2), (3,), (1, 3)])
def test_reductions_over_images_or_channels_are_refused(over: tuple[int, ...]) -> None:
    with pytest.raises(ImportRefusedError, match="expected height, width, or both"):
        imported(Rows(lambda x: (x * x.mean(over, keepdims=True)).mean((1, 2)), 4, nnx.Rngs(0)), (3, 7, 6))


@pytest.mark.parametrize("name", ["ResNet", "LinenResNet", "Written", "LinenWritten"])
def test_training_is_the_same_too(name: str) -> None:
    candidate = network(name)
    made = imported(candidate)
    check_same(candidate, made, train=True)
    assert not made.remarks


@pytest.mark.parametrize("name", ["ResNet", "LinenResNet"])
def test_residuals_and_one_sided_padding_are_found(name: str) -> None:
    made = imported(network(name))
    assert sum(isinstance(layer, Residual) for layer in layers(made)) >= 2
    assert any(isinstance(layer, Pad) for layer in layers(made))  # SAME at stride 2


@pytest.mark.parametrize(
    ("name", "rates"),
    [("Cnn", [0.025, 0.25]), ("Vgg", [0.5]), ("GoogLeNet", [0.4]), ("LinenVgg", [0.5]), ("LinenGoogLeNet", [0.4])],
)
def test_dropout_survives(name: str, rates: list[float]) -> None:
    assert [layer.rate for layer in layers(imported(network(name))) if isinstance(layer, Dropout)] == rates


def test_batch_norms_are_carried_exactly() -> None:
    first, second = (layer for layer in layers(imported(network("Cnn"))) if isinstance(layer, BatchNorm))
    assert (first.eps, first.momentum, first.unbiased, first.beta) == (1e-5, 1 - 0.99, False, True)
    assert (second.eps, second.momentum, second.gamma, second.beta) == (1e-3, 1 - 0.8, True, False)


def test_written_out_batch_norms_are_carried_exactly() -> None:
    norms = {
        name: [layer for layer in layers(imported(network(name))) if isinstance(layer, BatchNorm)]
        for name in ("Written", "LinenWritten")
    }
    told = {(n.eps, n.unbiased, n.gamma, n.beta, n.frozen) for n in norms["Written"]}
    assert told == {(1e-5, True, True, True, False)}
    assert [n.momentum for n in norms["Written"]] == pytest.approx([0.1, 0.1], rel=1e-12)
    assert {(n.eps, n.unbiased, n.gamma, n.beta) for n in norms["LinenWritten"]} == {(1e-3, False, False, True)}
    assert [n.momentum for n in norms["LinenWritten"]] == pytest.approx([0.01, 0.01], rel=1e-12)


@pytest.mark.parametrize("name", ["Written", "LinenWritten"])
def test_numbers_that_float32_rounds_are_as_they_were_written(name: str) -> None:
    jax.config.update("jax_enable_x64", False)
    candidate = jax.tree.map(lambda a: a.astype(jnp.float32), network(name)[1]) if name in LINEN else None
    made = imported((network(name)[0], candidate) if candidate else NNX[name](nnx.Rngs(0)))
    norms = [layer for layer in layers(made) if isinstance(layer, BatchNorm)]
    told = {"Written": [(1e-5, 0.1)] * 2, "LinenWritten": [(1e-3, 0.01)] * 2}[name]
    assert [(n.eps, round(n.momentum, 15)) for n in norms] == told
    assert not made.remarks


def test_trained_statistics_are_no_batch_norm() -> None:
    class Trained(nnx.Module):
        def __init__(self) -> None:
            self.conv, self.mean = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.Param(jnp.ones(4))
            self.var = nnx.Param(jnp.ones(4))

        def __call__(self, x: Any) -> Any:
            return (self.conv(x) - self.mean[...]) / jnp.sqrt(self.var[...] + 1e-5)

    with pytest.raises(ImportRefusedError, match="has mean alone"):
        imported(Trained(), (3, 6, 6))


def almost_norm(change: Any) -> Any:
    """A batch norm, but for what `change(x, mean, var, train)` makes of it."""

    class Almost(nnx.Module):
        def __init__(self) -> None:
            self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), WrittenNorm(4)

        def __call__(self, x: Any, train: bool = False) -> Any:
            x, norm = self.conv(x), self.norm
            mean, var = norm.mean[...], norm.var[...]
            if train:
                mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
                norm.mean[...] = 0.9 * norm.mean[...] + 0.1 * mean
                norm.var[...] = 0.9 * norm.var[...] + change(x, mean, var, True)[1]
            return change(x, mean, var, train)[0] * norm.gamma[...] + norm.beta[...]

    return Almost()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, m, v, _: ((x - m) / (jnp.sqrt(v) + 1e-3), 0.1 * v), "has norm.mean alone"),
        (lambda x, m, v, t: ((x - m * (1.001 if t else 1)) / jnp.sqrt(v + 1e-5), 0.1 * v), "in training"),
        (lambda x, m, v, _: ((x - m) / jnp.sqrt(v + 1e-5), 0.2 * v), "in training"),
        (lambda x, m, v, _: ((x - jax.lax.stop_gradient(m)) / jnp.sqrt(v + 1e-5), 0.1 * v), "in training"),
    ],
    ids=["eps outside of the root", "another mean", "two momenta", "no gradient through the mean"],
)
def test_what_is_almost_a_batch_norm_is_none(change: Any, words: str) -> None:
    try:
        told = " ".join(imported(almost_norm(change), (3, 6, 6)).remarks)
    except ImportRefusedError as refused:
        told = str(refused)
    assert words in told


def test_a_norm_with_a_bounded_gamma_is_no_batch_norm() -> None:
    """What it does with the numbers above 0 that most networks begin with is the same."""

    class Bounded(WrittenNorm):
        def __call__(self, x: Any, train: bool) -> Any:
            return jnp.maximum(self.gamma[...], 0.0) * (x - self.mean[...]) / jnp.sqrt(self.var[...] + 1e-5)

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), Bounded(4)

        def __call__(self, x: Any, train: bool = False) -> Any:
            return self.norm(self.conv(x), train)

    with pytest.raises(ImportRefusedError, match=r"norm\.gamma|norm\.mean"):
        imported(Net(), (3, 6, 6))


def test_a_frozen_batch_norm_is_frozen() -> None:
    class Frozen(linen.Module):
        @linen.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            x = linen.BatchNorm(use_running_average=True, name="frozen")(linen.Conv(4, (1, 1))(x))
            return linen.BatchNorm(use_running_average=not train, name="moving")(x)

    module = Frozen()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    norms = [layer for layer in layers(imported((module, variables), (3, 8, 8))) if isinstance(layer, BatchNorm)]
    assert [(norm.name, norm.frozen) for norm in norms] == [("frozen", True), ("moving", False)]


def test_a_logarithm_and_a_softmax_at_the_end_are_taken_off_and_said() -> None:
    class Logarithm(nnx.Module):
        def __init__(self, function: Any) -> None:
            self.fc, self.function = nnx.Linear(12, 3, rngs=nnx.Rngs(0)), function

        def __call__(self, x: Any) -> Any:
            return self.function(self.fc(x.reshape(len(x), -1)))

    for function, word in ((nnx.log_softmax, "log_softmax"), (nnx.softmax, "softmax")):
        made = import_network(Logarithm(function), Request(input=(3, 2, 2)))
        assert [layer.name for layer in made.architecture.layers][-1] == "fc"
        assert f"{word} '{word}' at the end is taken off" in made.remarks[0]


def test_a_linen_module_alone_has_no_weights_and_a_bound_one_has() -> None:
    module, variables = network("LinenResNet")
    alone, bound = imported(LinenResNet()), imported(module.bind(variables))
    assert alone.parameters is None
    assert "has no weights" in alone.remarks[0]
    assert bound.parameters is not None
    assert alone.architecture == bound.architecture


def test_the_parameters_of_a_linen_module_may_come_alone() -> None:
    module = linen.Sequential([linen.Conv(4, (3, 3)), linen.relu])
    variables = module.init(jax.random.key(0), jnp.zeros((1, 6, 5, 3)))
    whole, alone = imported((module, variables), (3, 6, 5)), imported((module, variables["params"]), (3, 6, 5))
    assert alone.architecture == whole.architecture
    assert {path: value.tobytes() for path, value in (alone.parameters or {}).items()} == {
        path: value.tobytes() for path, value in (whole.parameters or {}).items()
    }


def test_the_module_stays_as_it_was() -> None:
    module = network("Cnn")
    module.train()
    before, call = flat(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat))), nnx.BatchNorm.__call__
    imported(module)
    after = flat(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not module.dropout1.deterministic
    assert not module.batch_norm1.use_running_average
    assert nnx.BatchNorm.__call__ is call


def test_images_are_taken_channels_first_where_the_module_does() -> None:
    class First(nnx.Module):
        def __init__(self) -> None:
            self.conv, self.fc = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.Linear(4 * 30, 5, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return self.fc(self.conv(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2).reshape(len(x), -1))

    made = imported(First(), (3, 5, 6))
    assert made.parameters is not None
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
    mine = reference.forward(made.architecture, made.parameters, x, train=False, masks={}).logits
    assert abs(mine - np.asarray(First()(jnp.asarray(x)))).max() < 1e-5
    assert [type(layer) for layer in made.architecture.layers[:2]] == [Conv, Flatten]


def test_a_partial_network_needs_nothing_behind_it() -> None:
    class Odd(nnx.Module):
        def __init__(self) -> None:
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return jnp.sort(nnx.relu(self.conv(x)), axis=-1)

    made = imported(Odd(), (3, 4, 4), outputs=("relu",))
    assert [layer.name for layer in made.architecture.layers] == ["conv", "relu"]
    with pytest.raises(
        ImportRefusedError, match=r"'sort' \(primitive sort\): this primitive is not supported; supported"
    ):
        imported(Odd(), (3, 4, 4))
    with pytest.raises(ImportRefusedError, match="primitive sort"):
        imported(Odd(), (3, 4, 4), outputs=("nothing",))


class Function(nnx.Module):
    """Somebody's own function behind a convolution."""

    def __init__(self, function: Any) -> None:
        self.conv, self.function = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), function

    def __call__(self, x: Any) -> Any:
        return self.function(self.conv(x), self)


def softmax(x: Any, less: tuple[int, ...] = (3,), divided: tuple[int, ...] = (3,)) -> Any:
    """Over the channels of square maps of as many channels, with each reduced value put back at another axis."""
    powers = jnp.exp(x - jnp.expand_dims(x.max(3), less))
    return powers / jnp.expand_dims(powers.sum(3), divided)


def neighbours(x: Any) -> Any:
    return jax.lax.reduce_window(x * x, 0.0, jax.lax.add, (1, 1, 1, 3), (1, 1, 1, 1), "SAME")


ALONG = r"is over the axes \(3,\)|has windows of \(1, 1, 1, 3\)"
REFUSED: dict[str, tuple[Any, str]] = {
    "squareplus": (lambda x, _: jax.nn.squareplus(x), "the spec has no layer for squareplus"),
    "powers": (lambda x, _: x**3, r"\(primitive integer_pow\): this primitive is not supported; supported are add"),
    "elu of whole numbers": (
        lambda x, _: jnp.where(x.astype(int) > 0, x, jnp.expm1(x)),
        r"makes the images int|\(primitive expm1\): this primitive is not supported",
    ),
    "an erf without a gradient": (
        lambda x, _: x * (1 + jax.lax.stop_gradient(jax.lax.erf(x / math.sqrt(2)))) / 2,
        r"\(primitive erf\): this primitive is not supported",
    ),
    "another gelu": (lambda x, _: x * (1 + jax.lax.erf(x)) / 2, r"\(primitive erf\): this primitive is not supported"),
    "resize": (lambda x, _: jax.image.resize(x, (len(x), 9, 9, 4), "linear"), "in jax.image.resize"),
    "attention": (lambda x, _: jnp.einsum("bijc,bklc->bijkl", x, x), r"primitive dot_general\): is no product"),
    "scan": (lambda x, _: jax.lax.fori_loop(0, 3, lambda _, y: y + x, x), "control flow is not supported"),
    "one kernel": (lambda x, m: jnp.concatenate([x, m.conv(x[..., :3])], -1), "shares the parameter 'conv.kernel'"),
    "layer norm": (lambda x, _: nnx.LayerNorm(4, rngs=nnx.Rngs(0))(x), "the spec has no layer for LayerNorm"),
    "cumsum": (lambda x, _: jnp.cumsum(x, 1), r"primitive cumsum"),
    "images mixed": (lambda x, _: x - x.mean(0), "is over the axes"),
    "turned over": (lambda x, _: x[:, ::-1], "in an order that no layer|primitive rev"),
    "random": (lambda x, _: x + jax.random.normal(jax.random.key(0), x.shape), "is random"),
    "a bound of another shape": (lambda x, _: jnp.maximum(x, x[..., :1]), "expected one shape"),
    "a bound for each channel": (lambda x, _: jnp.maximum(x, jnp.arange(4.0)), "has other values than numbers"),
    "a norm along another axis": (lambda x, _: x / jnp.sqrt((x * x).sum(3))[:, None], ALONG),
    "a norm's inverse along another axis": (lambda x, _: x * jax.lax.rsqrt((x * x).sum(3) + 1e-3)[:, None], ALONG),
    "a softmax along another axis": (lambda x, _: softmax(x, divided=(1,)), ALONG),
    "a softmax of another's maximum": (lambda x, _: softmax(x, less=(1,)), ALONG),
    "a response norm of the inverse": (lambda x, _: x / (1 + 0.1 / neighbours(x)) ** 0.75, ALONG),
    "dilated pool": (
        lambda x, _: jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", None, (1, 2, 2, 1)
        ),
        "without dilation",
    ),
    "integers": (lambda x, _: x.astype(int) * 1.0, "makes the images int"),
    "an error of its own": (lambda x, _: x @ jnp.zeros((7, 7)), "JAX does not trace Function on images"),
}


class Checkpointed(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        conv = linen.Conv(4, (3, 3))
        return linen.Dense(3)(jax.checkpoint(lambda value: conv(value))(x).mean((1, 2)))


def test_a_module_whose_parameters_another_transformation_holds_is_refused() -> None:
    """It ended in JAX's TracerArrayConversionError."""
    module = Checkpointed()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ImportRefusedError, match=r"^a function that JAX transforms by itself .* nn.remat") as refused:
        imported((module, variables), (3, 8, 8))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_layer_is_refused_with_its_primitive(name: str) -> None:
    function, words = REFUSED[name]
    with pytest.raises(ImportRefusedError, match=words) as refused:
        imported(Function(function), (3, 4, 4))
    assert "\n" not in str(refused.value)


def test_what_training_does_otherwise_is_said() -> None:
    class Heads(linen.Module):
        @linen.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            x = linen.Dense(3)(x.mean((1, 2)))
            return jnp.tanh(x) if train else x

    module = Heads()
    made = imported((module, module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))), (3, 4, 4))
    assert made.remarks == ("in training the module computes something else; taken over is its evaluation",)


def test_the_input_is_guessed_and_said() -> None:
    made = import_network(network("ResNet"), Request())
    assert made.architecture.input == (3, 224, 224)
    assert "3x224x224 was assumed" in made.remarks[0]


@jax.jit
def hard_sigmoid(x: Any) -> Any:
    return jnp.clip(0.2 * x + 0.5, 0, 1)


def test_a_function_of_the_name_of_anothers_is_taken_by_what_it_computes() -> None:
    own = imported(Function(lambda x, _: hard_sigmoid(x)), (3, 6, 6))
    flaxs = imported(Function(lambda x, _: jax.nn.hard_sigmoid(x)), (3, 6, 6))
    assert [type(layer) for layer in own.architecture.layers] == [Conv, Affine, Affine, Clip]
    assert [type(layer) for layer in flaxs.architecture.layers] == [Conv, HardSigmoid]
