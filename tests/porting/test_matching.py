"""Which of a port's parameters is which of the spec's, and which of its operations is which layer."""

from __future__ import annotations

import numpy as np
import pytest

from triptych import zoo
from triptych.backend.contract import Captured, PortParameter
from triptych.importers.layer_order import orders
from triptych.porting.align import Place, align
from triptych.porting.matching import pair
from triptych.porting.pairing import pair_network
from triptych.spec.analysis import parameters
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.layers import (
    Architecture,
    BatchNorm,
    Block,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Residual,
)
from triptych.utils.errors import TriptychError

LIKE = {"weight": (4, 4), "bias": (4,)}


def info(path: str, *shape: int) -> ParameterInfo:
    return ParameterInfo(path, shape, "weight")


def test_parameters_are_paired_by_order() -> None:
    own = [PortParameter("x", (4, 4), "weight"), PortParameter("y", (4, 4), "weight")]
    pairs, problem = pair(own, [info("a.weight", 4, 4), info("b.weight", 4, 4)], {})
    assert (pairs, problem) == ({"a.weight": "x", "b.weight": "y"}, None)


def test_parameters_in_another_order_are_paired_by_a_unique_shape() -> None:
    own = [PortParameter("x", (3, 4)), PortParameter("y", (4, 4))]
    pairs, problem = pair(own, [info("a.weight", 4, 4), info("b.weight", 3, 4)], {})
    assert (pairs, problem) == ({"a.weight": "y", "b.weight": "x"}, None)


def test_an_ambiguous_pairing_asks_for_a_mapping_and_takes_it() -> None:
    own = [PortParameter("x", (3, 4)), PortParameter("y", (4, 4)), PortParameter("z", (4, 4))]
    infos = [info("a.weight", 4, 4), info("b.weight", 3, 4), info("c.weight", 4, 4)]
    with pytest.raises(TriptychError, match=r"ambiguous which parameter is 'a.weight' \(4, 4\): y, z"):
        pair(own, infos, {})
    pairs, problem = pair(own, infos, {"z": "a.weight"})
    assert (pairs, problem) == ({"a.weight": "z", "b.weight": "x", "c.weight": "y"}, None)


def test_a_batch_norms_arrays_are_paired_by_their_names_or_a_mapping_never_by_their_order() -> None:
    paths = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    infos = [ParameterInfo(path, (4,), path.rpartition(".")[2]) for path in paths]
    used = [PortParameter(name, (4,)) for name in ("mu", "sigma2", "gamma", "beta")]
    with pytest.raises(TriptychError, match=r"ambiguous which parameter is 'norm\.weight'"):
        pair(used, infos, {})
    mapping = dict(zip(("gamma", "beta", "mu", "sigma2"), paths, strict=True))
    assert pair(used, infos, mapping) == ({path: name for name, path in mapping.items()}, None)
    told = [PortParameter(path, (4,), path.rpartition(".")[2]) for path in reversed(paths)]
    assert pair(told, infos, {}) == ({path: path for path in paths}, None)


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"nope": "a.weight"}, "unknown parameter of your network in the mapping 'nope'"),
        ({"x": "nope"}, "unknown parameter of the spec in the mapping 'nope'"),
        ({"x": "a.weight", "y": "a.weight"}, "gives one parameter of the spec to two"),
    ],
)
def test_a_wrong_mapping_is_refused(mapping: dict[str, str], words: str) -> None:
    own = [PortParameter("x", (4, 4)), PortParameter("y", (4, 4))]
    with pytest.raises(TriptychError, match=words):
        pair(own, [info("a.weight", 4, 4), info("b.weight", 4, 4)], mapping)


def test_a_parameter_without_a_partner_is_named() -> None:
    _, problem = pair([PortParameter("x", (5, 4))], [info("a.weight", 4, 4)], {})
    assert problem is not None
    assert (problem.tensor, problem.passed) == ("a.weight", False)


def test_of_equal_shapes_the_missing_one_is_named_by_the_order() -> None:
    infos = [ParameterInfo(f"{layer}.{role}", shape, role) for layer in "abc" for role, shape in LIKE.items()]
    own = [PortParameter(info.path, info.shape, info.role) for info in infos]
    for left_out in infos:
        _, problem = pair([parameter for parameter in own if parameter.name != left_out.path], infos, {})
        assert problem is not None
        assert problem.tensor == left_out.path


@pytest.mark.parametrize("body_first", [False, True])
def test_a_residual_unit_may_run_its_body_before_its_shortcut(body_first: bool) -> None:
    """As torchvision's bottleneck: conv3 and downsample are of one shape, and so are their norms."""
    body = (Conv("conv1", 2, (1, 1)), Conv("conv2", 2, (3, 3), padding=(1, 1)), Conv("conv3", 8, (1, 1)))
    shortcut = Block("shortcut", (Conv("conv", 8, (1, 1)), BatchNorm("norm")))
    unit = Residual("unit", Block("body", (*body, BatchNorm("norm"))), shortcut)
    stem = Conv("stem", 2, (3, 3), padding=(1, 1))
    net = Architecture("net", (3, 6, 6), 3, (stem, unit, GlobalAvgPool("pool"), Flatten("flat"), Dense("fc", 3)))
    infos, other = orders(net)
    assert {info.path for info in infos} == {info.path for info in other}
    order = other if body_first else infos
    own = [PortParameter(i.path.replace(".", "/"), i.shape, i.path.rpartition(".")[2]) for i in order]
    made = pair_network(own, infos, {}, others=[other])
    assert made.wrong is None
    assert made.pairs == {info.path: info.path.replace(".", "/") for info in infos}


@pytest.mark.parametrize(
    ("own", "cause"),
    [
        ((4, 6, 3, 3), "it takes 6 channels in each group, not 3 (groups)"),
        ((4, 3, 5, 5), "the kernel is (5, 5), not (3, 3)"),
        ((8, 3, 3, 3), "it has 8 channels, not 4"),
        ((8, 6, 5, 5), ""),
    ],
)
def test_the_shape_of_a_weight_tells_what_it_is_of(own: tuple[int, ...], cause: str) -> None:
    made = pair_network([PortParameter("x", own, "weight")], [info("a.weight", 4, 3, 3, 3)], {})
    assert made.wrong is not None
    assert made.cause == cause


def test_a_bias_that_the_spec_has_not_is_named_at_its_layer() -> None:
    infos = [info("a.weight", 4, 3, 3, 3), info("b.weight", 5, 4), ParameterInfo("b.bias", (5,), "bias")]
    own = [
        PortParameter(f"{layer}.{role}", shape, role)
        for layer, role, shape in (
            ("x", "weight", (4, 3, 3, 3)),
            ("x", "bias", (4,)),
            ("y", "weight", (5, 4)),
            ("y", "bias", (5,)),
        )
    ]
    made = pair_network(own, infos, {})
    assert made.wrong is not None
    assert (made.wrong.tensor, made.cause) == (
        "a.bias",
        "it has a bias that the spec's layer has not (bias, use_bias, no_bias)",
    )


def test_operations_are_aligned_in_order_by_kind_and_shape() -> None:
    def one(kind: str, *shape: int) -> Captured:
        return Captured(kind, np.zeros(shape))

    def place(path: str, kind: str, *shape: int) -> Place:
        return Place(path, kind, np.ones(shape))

    layers = [place("c", "Conv", 2, 4, 8, 8), place("r", "ReLU", 2, 4, 8, 8), place("p", "MaxPool", 2, 4, 4, 4)]
    seen = [one("Flatten", 2, 9), one("Conv", 2, 4, 8, 8), one("Sigmoid", 2, 4, 8, 8), one("MaxPool", 2, 4, 4, 4)]
    assert align(layers, seen) == {"c": 1, "r": 2, "p": 3}
    assert align(layers, seen[:1]) == {}
    assert align(layers, [one("MaxPool", 2, 4, 8, 8), one("MaxPool", 2, 4, 4, 4)]) == {"p": 1}


def test_an_operation_that_puts_out_what_a_layer_does_is_that_layer_whatever_it_is_called() -> None:
    random = np.random.default_rng(0)
    values = [random.normal(size=(2, 4, 8, 8)) for _ in range(3)]
    layers = [Place("c", "Conv", values[0]), Place("s", "SiLU", values[1]), Place("m", "multiply", values[2])]
    seen = [
        *(Captured("Conv", values[0]), Captured("Sigmoid", values[0] / 2), Captured("multiply", values[1])),
        *(Captured("", -values[2]), Captured("", values[2])),
    ]
    assert align(layers, seen) == {"c": 0, "s": 2, "m": 4}
    seen[2] = Captured("multiply", values[1] * (1 + 1e-3))
    assert align(layers, seen) == {"c": 0, "s": 1, "m": 4}


def test_a_slope_is_not_taken_for_a_batch_norms_scale() -> None:
    infos = [*(ParameterInfo(f"norm.{role}", (4,), role) for role in ("weight", "bias"))]
    infos += [ParameterInfo("slope.weight", (4,), "slope")]
    own = [PortParameter("a", (1,), "slope"), PortParameter("b", (4,), "weight"), PortParameter("c", (4,), "bias")]
    _, problem = pair(own, infos, {})
    assert problem is not None
    assert problem.tensor == "slope.weight"
    own[0] = PortParameter("a", (4,), "slope")
    assert pair(own, infos, {}) == ({"norm.weight": "b", "norm.bias": "c", "slope.weight": "a"}, None)


def test_a_name_that_tells_no_role_has_the_one_that_is_missing() -> None:
    paths = ("norm.weight", "norm.bias", "slope.weight")
    infos = [ParameterInfo(path, (4,), path.rpartition(".")[2]) for path in paths]
    own = [PortParameter("n", (4,), "weight"), PortParameter("b", (4,), "bias"), PortParameter("mine", (4,))]
    assert pair(own, infos, {}) == ({"norm.weight": "n", "norm.bias": "b", "slope.weight": "mine"}, None)
    unclear = [own[0], PortParameter("x", (4,)), PortParameter("y", (4,))]
    with pytest.raises(TriptychError, match="ambiguous"):
        pair(unclear, infos, {})


def test_every_parameter_of_the_zoo_pairs_with_itself() -> None:
    """By order and shape alone: a port that lists the spec's own parameters is never ambiguous."""
    for name in zoo.registry():
        infos = parameters(zoo.build(name))
        own = [PortParameter(i.path, i.shape, i.path.rpartition(".")[2]) for i in infos]
        pairs, problem = pair(own, infos, {})
        assert problem is None
        assert pairs == {i.path: i.path for i in infos}
