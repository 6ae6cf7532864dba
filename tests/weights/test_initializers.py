"""Shared initialisation: the laws, the independence of the draws, and the very bits."""

from __future__ import annotations

import hashlib
import importlib
import math

import numpy as np
import pytest

from triptych.backend import registry
from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture, BatchNorm, Conv, Dense, Flatten, Initializer, Layer, ReLU
from triptych.utils.errors import TriptychError
from triptych.weights.initializers import NAMES, ScaledXavier, draw, draw_one, parse


def network(*layers: Layer, initializer: Initializer | None = None) -> Architecture:
    tail = (Flatten("flatten"), Dense("dense", 10))
    return Architecture("net", (12, 9, 8), 10, (*layers, *tail), initializer or Initializer())


LARGE = network(Conv("conv", 90, (5, 3), groups=3), BatchNorm("norm"), Conv("next", 80, (3, 3)))
# conv has 4 inputs per group and 90 outputs on a 5x3 window; next 90 and 80 on 3x3: the fans by hand
FANS = {"conv.weight": (4 * 15, 90 * 15), "next.weight": (90 * 9, 80 * 9), "dense.weight": (80 * 3 * 4, 10)}


def test_fans_by_hand() -> None:
    found = {info.path: (info.fan_in, info.fan_out) for info in parameters(LARGE)}
    assert found == {path: FANS.get(path, (0, 0)) for path in found}


def deviation(law: str, fan_in: int, fan_out: int) -> float:
    if law.startswith("xavier"):
        return math.sqrt(2 / (fan_in + fan_out))
    return math.sqrt(2 / fan_in) if law.startswith("kaiming") else 0.03


@pytest.mark.parametrize("path", FANS)
@pytest.mark.parametrize("law", [name for name in NAMES if name != "constant"])
def test_weights_follow_their_law(law: str, path: str) -> None:
    """Mean and deviation within five standard errors; the bound of a uniform law; the tails of a normal one."""
    values = np.concatenate([draw(LARGE, seed, Initializer(law, 0.03))[path].ravel() for seed in range(4)])
    expected = deviation(law, *FANS[path])
    relative = values.astype(np.float64) / expected
    count = len(values)
    assert abs(relative.mean()) < 5 / math.sqrt(count)
    assert abs(relative.std() - 1) < 5 * math.sqrt(0.2 if "uniform" in law else 0.5) / math.sqrt(count)
    if law.endswith("uniform"):
        assert math.sqrt(3) * (1 - 10 / count) < np.abs(relative).max() <= math.sqrt(3) * (1 + 1e-7)
        assert abs(np.mean(np.abs(relative) < math.sqrt(3) / 2) - 0.5) < 2.5 / math.sqrt(count)
    else:
        assert abs(np.mean(np.abs(relative) < 1) - 0.6827) < 2.5 / math.sqrt(count)


def test_the_rest_starts_constant() -> None:
    found = draw(LARGE, 3, Initializer("constant", 0.25))
    starts = {"conv.weight": 0.25, "norm.weight": 1.0, "norm.running_var": 1.0}
    assert set(found) == {info.path for info in parameters(LARGE)}
    for path, value in found.items():
        expected = starts.get(path, 0.25 if path in FANS else 0.0)
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, np.full(value.shape, expected))


def test_the_architecture_names_its_law() -> None:
    layers = LARGE.layers
    named = draw(Architecture("net", LARGE.input, 10, layers, Initializer("kaiming_normal")), 5)
    given = draw(LARGE, 5, Initializer("kaiming_normal"))
    own = draw(LARGE, 5)
    np.testing.assert_array_equal(named["conv.weight"], given["conv.weight"])
    assert not np.array_equal(own["conv.weight"], given["conv.weight"])


def test_another_layer_does_not_change_the_draws() -> None:
    before = draw(network(Conv("a", 12, (3, 3), padding=(1, 1)), Conv("z", 12, (3, 3))), 7)
    more = Conv("b", 12, (3, 3), padding=(1, 1)), BatchNorm("norm"), ReLU("relu")
    after = draw(network(Conv("a", 12, (3, 3), padding=(1, 1)), *more, Conv("z", 12, (3, 3))), 7)
    assert set(before) < set(after)
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value)


def test_layers_and_seeds_differ() -> None:
    alike = network(Conv("a", 12, (3, 3)), Conv("b", 12, (3, 3)))
    first, second = draw(alike, 0), draw(alike, 1)
    assert abs(np.corrcoef(first["a.weight"].ravel(), first["b.weight"].ravel())[0, 1]) < 0.1
    assert abs(np.corrcoef(first["a.weight"].ravel(), second["a.weight"].ravel())[0, 1]) < 0.1


# The beginning of the SHA-256 of all arrays as little-endian float32; other bits would mean another start for
# every recorded run.
BITS = {
    "xavier_uniform": "05e6fa27ee19a878",
    "xavier_normal": "b075385bb0db1152",
    "kaiming_uniform": "36c3864bf3a71ef2",
    "kaiming_normal": "a7ed407828377704",
    "normal": "20c76aede21e166f",
    "constant": "e6ab57f21c56e04b",
}


@pytest.mark.parametrize("law", NAMES)
def test_the_bits_stay_the_same(law: str) -> None:
    digest = hashlib.sha256()
    for value in draw(LARGE, 0, Initializer(law, 0.03)).values():
        digest.update(value.astype("<f4").tobytes())
    assert digest.hexdigest()[:16] == BITS[law]


def test_one_array_alone_is_the_same_as_in_the_network() -> None:
    info = next(info for info in parameters(LARGE) if info.path == "next.weight")
    np.testing.assert_array_equal(draw_one(info, 0, Initializer()), draw(LARGE, 0)["next.weight"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((name, Initializer(name, 0.01)) for name in NAMES),
        ("normal:0.02", Initializer("normal", 0.02)),
        ("constant:-1e-3", Initializer("constant", -1e-3)),
        ("xavier_uniform:2.24", ScaledXavier("xavier_uniform", magnitude=2.24)),
        ("xavier_normal:2,in", ScaledXavier("xavier_normal", magnitude=2, factor="in")),
    ],
)
def test_parse(text: str, expected: Initializer) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("xavier_unifrom", r"unknown initializer 'xavier_unifrom'; did you mean 'xavier_uniform'\?"),
        ("", "unknown initializer ''"),
        ("normal:wide", "initializer 'normal:wide': 'wide' is not a number"),
        ("normal:nan", "initializer 'normal:nan': nan is no deviation"),
        ("normal:-0.1", "initializer 'normal:-0.1': -0.1 is no deviation"),
        ("constant:inf", "initializer 'constant:inf': inf is no deviation or value"),
        ("kaiming_normal:0.5", "'kaiming_normal' takes no number"),
        ("xavier_uniform:big", "'big' is not a number"),
        ("xavier_uniform:0", "the magnitude 0 must be a number above 0"),
        ("xavier_uniform:2,fan", "unknown factor 'fan'"),
    ],
)
def test_parse_refuses(text: str, problem: str) -> None:
    with pytest.raises(TriptychError, match=problem):
        parse(text)


@pytest.mark.parametrize("factor", ["avg", "in", "out"])
@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_magnitude_and_factor_are_mxnets(kind: str, factor: str) -> None:
    """The largest value of a uniform draw, or the deviation of a normal one, beside MXNet's own initialiser."""
    if "mxnet" not in registry.installed():
        pytest.skip("MXNet is not installed")
    registry.load("mxnet")  # which gives it the names that it misses in NumPy 2
    mx = importlib.import_module("mxnet")
    text = f"xavier_{'uniform' if kind == 'uniform' else 'normal'}:2.24,{factor}"
    ours = draw(LARGE, 0, parse(text))["next.weight"]
    theirs = mx.nd.zeros(ours.shape)
    native = mx.init.Xavier(rnd_type=kind, factor_type=factor, magnitude=2.24)
    native(mx.init.InitDesc("next_weight"), theirs)
    measure = np.std if kind == "gaussian" else lambda values: np.abs(values).max()
    assert measure(ours) == pytest.approx(measure(theirs.asnumpy()), rel=0.02)


def test_magnitude_3_is_glorots_own() -> None:
    one, other = (draw(LARGE, 0, parse(text)) for text in ("xavier_uniform:3", "xavier_uniform"))
    np.testing.assert_allclose(one["next.weight"], other["next.weight"], rtol=1e-6)
