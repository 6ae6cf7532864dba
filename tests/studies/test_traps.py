"""The errors in the texts' code that the studies name: what PyTorch really does with them."""

from __future__ import annotations

import pytest

from triptych.studies import traps

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


def test_a_swapped_pair_builds_64_convolutions_of_one_channel() -> None:
    """The textbook's block, which takes (convolutions, channels)."""

    def block(num_convs: int, out_channels: int) -> torch.nn.Sequential:
        layers: list[torch.nn.Module] = []
        for _ in range(num_convs):
            layers += [nn.LazyConv2d(out_channels, kernel_size=3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.MaxPool2d(2, 2))

    written = block(64, 1)
    assert written(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 4, 4)  # and nothing fails
    assert sum(isinstance(layer, nn.Conv2d) for layer in written) == 64
    assert sum(isinstance(layer, nn.Conv2d) for layer in block(1, 64)) == 1


def test_the_counted_numbers_are_those_of_the_sentences() -> None:
    numbers = dict(traps.counted().rows)
    assert list(numbers.values()) == [8, 11, 1, 64, 7, 8, 9, 9, 11, 13, 8]
    told = {wrote: happens for _, wrote, happens in traps.TRAPS}
    assert "9 pixels, a 2x2 pooling behind that 11, a fourth 3x3 in its place 13" in " ".join(told.values())
    vgg = nn.Sequential(*(nn.MaxPool2d(2, 2) for _ in range(5)), nn.Conv2d(1, 1, 7))
    assert vgg(torch.zeros(1, 1, 448, 448)).shape[2:] == (8, 8)


def test_every_study_lists_the_errors_of_its_own_source_only() -> None:
    from triptych.studies import registry

    listed = {name: study.traps for name, study in registry().items() if study.traps}
    assert listed.keys() == {"resolution", "ascend-cifar10"}
    assert any("conv2D{}" in text for text in listed["ascend-cifar10"])
    assert listed["resolution"] == traps.of(traps.EXERCISES)
