"""Values in any order that exchanging axes makes, by layers of the spec, against NumPy's own transpositions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.importers.moves import as_map, channel_parts, larger_of_two, over_channels, transposed
from triptych.reference.network import forward
from triptych.spec.layers import Architecture, AvgPool, Block, Layer, MaxPool, Reshape, Shape

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


def given_by(layers: Sequence[Layer], x: Any) -> Any:
    """What a row of layers makes of maps."""
    blocks = tuple(Block(f"b{number}", (layer,)) for number, layer in enumerate(layers))
    shape = x.shape[1:] if x.ndim == 4 else (x.shape[1], 1, 1)
    first = () if x.ndim == 4 else (Block("flat", (Reshape("r", x.shape[1:]),)),)
    run = forward(Architecture("moves", shape, 0, first + blocks), {}, x.reshape(len(x), *shape))
    return run.logits


@st.composite
def shapes(draw: Any, number: int) -> Shape:
    """Of so many values: a map's or features'."""
    divisors = [each for each in range(1, number + 1) if number % each == 0]
    first = draw(st.sampled_from(divisors))
    second = draw(st.sampled_from([each for each in divisors if (number // first) % each == 0]))
    return draw(st.sampled_from([(number,), (first, second, number // first // second)]))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_exchange_of_axes_is_made(data: Any) -> None:
    sizes = data.draw(SIZES)
    axes, number = data.draw(st.permutations(range(len(sizes)))), math.prod(sizes)
    base, wanted = data.draw(shapes(number)), data.draw(shapes(number))
    order = np.arange(number).reshape(sizes).transpose(axes).reshape(wanted)
    layers = transposed(base, order)
    assert layers is not None
    if layers:
        x = np.random.default_rng(0).standard_normal((2, number))
        np.testing.assert_array_equal(given_by(layers, x.reshape(2, *base)), x[:, order.ravel()].reshape(2, *wanted))
    else:
        assert base == wanted
        np.testing.assert_array_equal(order.ravel(), np.arange(number))


def test_pixels_that_were_channels_take_three_exchanges_at_most() -> None:
    order = np.arange(12 * 25).reshape(3, 2, 2, 5, 5).transpose(0, 3, 1, 4, 2).reshape(3, 10, 10)
    layers = transposed((12, 5, 5), order)
    assert layers is not None
    assert len(layers) <= 6


@pytest.mark.parametrize(
    "order",
    [np.arange(12)[::-1].reshape(3, 2, 2), np.array([0, 1, 3, 2]), np.array([0, 0, 1, 1]), np.array([1, 0])],
    ids=["backwards", "by hand", "twice", "swapped"],
)
def test_other_orders_are_none(order: Any) -> None:
    assert transposed((order.size, 1, 1), order) is None


def test_channels_in_another_order_are_parts() -> None:
    places = np.arange(60).reshape(5, 3, 4)
    assert channel_parts((5, 3, 4), places[[2, 1, 0]]) == [(2, 3), (1, 2), (0, 1)]
    assert channel_parts((5, 3, 4), places[[3, 4, 0, 1, 1]]) == [(3, 5), (0, 2), (1, 2)]
    assert channel_parts((5,), np.array([4, 0, 1])) == [(4, 5), (0, 2)]
    assert channel_parts((5, 3, 4), places[:, ::-1]) is None
    assert channel_parts((200,), np.arange(200)[::-1]) is None  # too many


def test_reductions_over_channels_and_the_larger_of_two() -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 3, 4))
    np.testing.assert_allclose(given_by(over_channels(AvgPool, (6, 3, 4)), x), x.mean(1, keepdims=True), atol=1e-15)
    np.testing.assert_array_equal(given_by(over_channels(MaxPool, (6, 3, 4)), x), x.max(1, keepdims=True))
    np.testing.assert_array_equal(given_by(larger_of_two((3, 3, 4)), x), np.maximum(x[:, :3], x[:, 3:]))
    flat = x.reshape(2, -1)
    np.testing.assert_array_equal(given_by(larger_of_two((36,)), flat), np.maximum(flat[:, :36], flat[:, 36:]))


def test_outputs_that_are_no_maps_become_some() -> None:
    assert [as_map(shape) for shape in ((5,), (5, 4), (5, 4, 3), (5, 4, 3, 2))] == [
        (5,),
        (5, 4, 1),
        (5, 4, 3),
        (5, 4, 6),
    ]
