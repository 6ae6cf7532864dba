"""The errors in the texts' code that the studies name: what PyTorch really does with them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


def test_a_name_that_comes_twice_replaces_the_layer() -> None:
    """Three convolutions, as in VGG-16's fifth block, whose loop counts from 1 again."""
    block = nn.Sequential()
    block.add_module(f"conv2D{1}", nn.Conv2d(8, 8, 3, padding=1))
    first = block[0]
    for number in range(1, 3):
        block.add_module(f"conv2D{number}", nn.Conv2d(8, 8, 3, padding=1))
    assert len(block) == 2
    assert block[0] is not first
    assert block(torch.zeros(1, 8, 4, 4)).shape == (1, 8, 4, 4)  # and nothing fails


def test_where_the_channels_change_the_replaced_layer_is_seen_in_the_first_pass() -> None:
    block = nn.Sequential()
    block.add_module("conv2D1", nn.Conv2d(4, 8, 3, padding=1))
    block.add_module("conv2D1", nn.Conv2d(8, 8, 3, padding=1))
    with pytest.raises(RuntimeError, match="to have 8 channels, but got 4"):
        block(torch.zeros(1, 4, 4, 4))


def test_relu_of_x_is_a_module_and_applies_nothing() -> None:
    x = torch.tensor([-1.0, 1.0])
    built = nn.ReLU(x)
    assert isinstance(built, nn.Module)
    assert built.inplace is x
    assert x.tolist() == [-1.0, 1.0]
    with pytest.raises(TypeError):
        nn.Linear(2, 2)(built)
    assert nn.functional.relu(x).tolist() == [0.0, 1.0]  # what was meant


@pytest.mark.parametrize(
    ("pools", "size", "words"),
    [(5, 28, "[Oo]utput size is too small"), (4, 28, "cannot be multiplied.*"), (5, 96, None)],
)
def test_features_of_96x96_images_do_not_fit_28x28(pools: int, size: int, words: str | None) -> None:
    layers = [nn.MaxPool2d(2, 2) for _ in range(pools)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 3 * 3, 2))
    images = torch.zeros(1, 512, size, size)
    if words is None:
        assert network(images).shape == (1, 2)
        return
    with pytest.raises(RuntimeError, match=words):
        network(images)


def test_grey_images_do_not_fit_three_channels() -> None:
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 1"):
        nn.Conv2d(3, 64, 3, padding=1)(torch.zeros(1, 1, 28, 28))


def test_dropout_before_max_pooling_hands_on_more_in_training_than_in_evaluation() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.MaxPool2d(2))
    x = torch.randn(8, 16, 32, 32)
    ratio = layers.train()(x).mean() / layers.eval()(x).mean()
    assert ratio > 1.15  # at one pooling of five
    behind = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5))  # the other way round nothing shifts
    assert abs(behind.train()(x).mean() / behind.eval()(x).mean() - 1) < 0.02
