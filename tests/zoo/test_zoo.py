"""The zoo, by its registry: published counts, every option on every entry, and what the sources say in detail."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

import pytest

from triptych.spec.analysis import LayerInfo, analyse, totals
from triptych.spec.kinds.kind import TooSmallError
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    AvgPool,
    BatchNorm,
    Block,
    Conv,
    LocalResponseNorm,
    MaxPool,
    Residual,
    walk,
)
from triptych.spec.shapes import output_shapes
from triptych.utils.errors import TriptychError
from triptych.zoo import Entry, build, registry

ENTRIES = list(registry().values())
INCEPTION = (
    "googlenet_bn",
    "inception_v2",
    "inception_v3",
    "inception_v4",
    "inception_resnet_v1",
    "inception_resnet_v2",
)
CONFORMANCE_CLASSES = 10
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def counts(architecture: Architecture) -> tuple[int, int]:
    sums = totals(architecture)
    return sums.parameters, sums.macs


def at_conformance(entry: Entry, wider: int = 0) -> Architecture:
    ratio, side = entry.conformance
    image = (entry.input[0], side, side + wider)
    return build(entry.name, input=image, classes=CONFORMANCE_CLASSES, width_ratio=ratio)


def records(architecture: Architecture, kind: type) -> list:
    return [layer for _, layer in walk(architecture.layers) if isinstance(layer, kind)]


@cache
def smallest_that_works(name: str) -> int:
    """What the error says for a single pixel. The tests hold it against builds at that size and one below."""
    try:
        build(name, input=(1, 1, 1))
    except TooSmallError as error:
        return int(str(error).rpartition("x")[2])
    return 1


@every_entry
def test_states_its_source(entry: Entry) -> None:
    assert entry.source
    assert entry.published is not None


@every_entry
def test_counts_are_the_published_ones(entry: Entry) -> None:
    published = entry.published
    architecture = build(entry.name)
    sums = totals(architecture)
    assert (sums.parameters, sums.macs) == (published.parameters, published.macs)
    heads = (sums.parameters + sums.auxiliary_parameters, sums.macs + sums.auxiliary_macs)
    assert heads == (published.with_heads or (published.parameters, published.macs))
    assert bool(records(architecture, Auxiliary)) == (published.with_heads is not None)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vgg11", {"input": (1, 224, 224), "classes": 10}, (128_806_154, 7_547_232_256)),
        (
            "vgg11",
            {"input": (1, 224, 224), "classes": 10, "width_ratio": 4, "dense_width": 4096},
            (43_093_322, 512_155_648),
        ),
        ("vgg11", {"input": (3, 32, 32), "classes": 10, "head": "small"}, (9_272_790, 152_816_616)),
    ],
    ids=["vgg11 1x224x224", "vgg11 narrow", "vgg11 small"],
)
def test_counts_with_options(name: str, options: dict, expected: tuple[int, int]) -> None:
    assert counts(build(name, **options)) == expected


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vgg11", [4, 10, 30, 70, 150]),
        ("vgg16", [6, 16, 44, 100, 212]),
        ("vgg19", [6, 16, 52, 124, 268]),
    ],
)
def test_receptive_field_after_each_pool(name: str, fields: list[int]) -> None:
    pools = [info for info in analyse(build(name)) if info.kind == "MaxPool"]
    assert [info.receptive_field for info in pools] == [(field, field) for field in fields]


def collapsed(layers: Iterable[LayerInfo]) -> LayerInfo:
    """The first layer that gives up height and width."""
    return next(info for info in layers if info.kind in ("Flatten", "GlobalAvgPool"))


@every_entry
def test_conformance_size_hides_no_layout_bug(entry: Entry) -> None:
    infos = analyse(at_conformance(entry))
    assert min(collapsed(info for info in infos if not info.auxiliary).input[1:]) > 1
    pooled = [info for info in infos if info.auxiliary and info.kind == "AvgPool"]
    assert all(min(info.output[1:]) > 1 for info in pooled)
    narrowest = min(info.output[0] for info in infos if info.kind == "Conv")
    assert narrowest > 1


@every_entry
@pytest.mark.parametrize("wider", [0, 8, 16], ids=["square", "8 wider", "16 wider"])
def test_conformance_size_is_complete_and_small(entry: Entry, wider: int) -> None:
    architecture = at_conformance(entry, wider)
    sums = totals(architecture)
    assert sums.parameters + sums.auxiliary_parameters < 500_000
    assert sums.macs + sums.auxiliary_macs < 20_000_000
    assert list(output_shapes(architecture)) == list(output_shapes(build(entry.name)))


@every_entry
@pytest.mark.parametrize("channels", [1, 3])
def test_takes_any_channels_and_classes(entry: Entry, channels: int) -> None:
    architecture = build(entry.name, input=(channels, *entry.input[1:]), classes=7)
    assert output_shapes(architecture)[architecture.layers[-1].name] == (7,)
    for head in records(architecture, Auxiliary):
        assert output_shapes(architecture)[head.name] == (7,)


@every_entry
@pytest.mark.parametrize("ratio", [2, 3, 4, 8])
def test_takes_any_width_ratio(entry: Entry, ratio: float) -> None:
    fewest = {"lenet": ("conv1", 6), "mobilenetv2_0.25": ("bottleneck1", 4)}
    layer, channels = next((few for name, few in fewest.items() if entry.name.startswith(name)), ("", 8))
    if ratio > channels:
        line = f"leaves no channels in layer '{layer}', which has {channels}; use at most {channels}"
        with pytest.raises(TriptychError, match=line):
            build(entry.name, width_ratio=ratio)
        return
    narrow = counts(build(entry.name, width_ratio=ratio))
    assert max(less / full for less, full in zip(narrow, counts(build(entry.name)), strict=True)) < 1 / ratio**0.8


@every_entry
def test_a_ratio_that_leaves_nothing_names_the_layer(entry: Entry) -> None:
    with pytest.raises(TriptychError, match=r"leaves no channels in layer '[a-z0-9_.]+', which has \d+; use at most"):
        build(entry.name, width_ratio=5000)


@every_entry
def test_too_small_an_input_names_the_layer_and_the_way_out(entry: Entry) -> None:
    smallest = smallest_that_works(entry.name)
    if smallest == 1:
        layers = records(build(entry.name), (Conv, MaxPool, AvgPool))
        assert all(2 * p >= k - 1 for layer in layers for p, k in zip(layer.padding, layer.kernel, strict=True))
        return
    for image in ((3, 1, 1), (3, smallest - 1, smallest - 1), (1, smallest - 1, smallest + 40)):
        with pytest.raises(
            TooSmallError, match=f"the smallest resolution that works is {smallest}x{smallest}$"
        ) as error:
            build(entry.name, input=image)
        assert error.value.path in output_shapes(build(entry.name))


@every_entry
def test_takes_every_resolution_from_the_smallest_on(entry: Entry) -> None:
    smallest = smallest_that_works(entry.name)
    for side in range(smallest, smallest + 9):  # odd and even at every pooling
        build(entry.name, input=(1, side, side), width_ratio=4)
        build(entry.name, input=(1, side, 2 * side + 1), width_ratio=4)


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if entry.published and entry.published.with_heads])
def test_heads_shrink_with_their_map_and_stay_at_full_size(name: str) -> None:
    def windows(side: int) -> list[tuple[int, int]]:
        heads = records(build(name, input=(3, side, side)), Auxiliary)
        return [layer.kernel for head in heads for layer in head.layers if isinstance(layer, AvgPool | Conv)]

    shrunk = {"googlenet": [(5, 5), (1, 1)] * 2, "googlenet_bn": [(5, 5), (1, 1)] * 2}
    assert windows(registry()[name].input[1]) == shrunk.get(name, [(5, 5), (1, 1), (5, 5)])
    shrunk = {"googlenet": [(3, 3), (1, 1)] * 2, "googlenet_bn": [(3, 3), (1, 1)] * 2}
    assert windows(48 if name in shrunk else 75) == shrunk.get(name, [(3, 3), (1, 1), (1, 1)])


@pytest.mark.parametrize("name", INCEPTION)
def test_batch_norm_of_the_inception_family(name: str) -> None:
    norms = records(build(name), BatchNorm)
    assert {(norm.eps, norm.momentum, norm.gamma, norm.unbiased) for norm in norms} == {(1e-3, 0.1, True, True)}


@pytest.mark.parametrize(
    ("name", "counted"),
    [("inception_v2", True), ("inception_v3", True), ("inception_v4", False), ("inception_resnet_v2", False)],
)
def test_padding_of_the_3x3_averages(name: str, counted: bool) -> None:
    averages = [pool for pool in records(build(name), AvgPool) if pool.padding != (0, 0)]
    assert averages
    assert {pool.count_padding for pool in averages} == {counted}


@pytest.mark.parametrize(("name", "times"), [("inception_resnet_v1", (5, 10, 5)), ("inception_resnet_v2", (10, 20, 9))])
def test_scales_of_the_residual_modules(name: str, times: tuple[int, int, int]) -> None:
    architecture = build(name)
    expected = [scale for count, scale in zip(times, (0.17, 0.10, 0.20), strict=True) for _ in range(count)]
    assert [residual.scale for residual in records(architecture, Residual)] == [*expected, 1.0]
    names = [layer.name for layer in architecture.layers]
    assert "block8_1_relu" in names
    assert "block8_last_relu" not in names


def test_alexnet_2012_is_the_paper() -> None:
    architecture = build("alexnet_2012")
    kinds = [type(layer).__name__ for layer in architecture.layers[:4]]
    assert kinds == ["Conv", "ReLU", "LocalResponseNorm", "MaxPool"]
    assert [conv.groups for conv in records(architecture, Conv)] == [1, 2, 1, 2, 2]
    assert {norm.coefficient for norm in records(architecture, LocalResponseNorm)} == {1e-4}
    assert (architecture.initializer.name, architecture.initializer.value) == ("normal", 0.01)
    odd = build("alexnet_2012", width_ratio=7)
    assert {conv.channels % 2 for conv in records(odd, Conv)} == {0}


def test_alexnet_owt_drops_out_before_the_dense_layers() -> None:
    names = [layer.name for layer in build("alexnet_owt").layers]
    assert names[-7:] == ["dropout6", "dense6", "relu6", "dropout7", "dense7", "relu7", "dense8"]


@pytest.mark.parametrize(("name", "side"), [("googlenet_d2l", 5), ("googlenet", 5), ("googlenet_bn", 3)])
def test_kernel_of_the_5x5_branch(name: str, side: int) -> None:
    branches = [block for block in records(build(name), Block) if block.name == "branch5x5"]
    kernels = [[conv.kernel for conv in block.layers if isinstance(conv, Conv)] for block in branches]
    assert kernels == [[(1, 1), (side, side)]] * 9


@pytest.mark.parametrize(
    ("name", "expected"),
    [("googlenet", [("auxiliary4a", 0.3), ("auxiliary4d", 0.3)]), ("inception_v3", [("auxiliary6e", 0.4)])],
)
def test_weights_of_the_auxiliary_losses(name: str, expected: list[tuple[str, float]]) -> None:
    assert [(head.name, head.weight) for head in records(build(name), Auxiliary)] == expected


@pytest.mark.parametrize(
    ("name", "path", "shape"),
    [
        ("googlenet", "inception3a", (256, 28, 28)),
        ("googlenet_bn", "inception4d", (528, 14, 14)),
        ("googlenet", "inception5b", (1024, 7, 7)),
        ("googlenet_d2l", "inception5b", (1024, 3, 3)),
        ("inception_v2", "inception4d", (608, 14, 14)),
        ("inception_v2", "inception4e", (1056, 7, 7)),
        ("inception_v3", "mixed5d", (288, 35, 35)),
        ("inception_v3", "mixed6e", (768, 17, 17)),
        ("inception_v3", "mixed7c", (2048, 8, 8)),
        ("inception_v4", "mixed5a", (384, 35, 35)),
        ("inception_v4", "mixed6h", (1024, 17, 17)),
        ("inception_v4", "mixed7d", (1536, 8, 8)),
        ("inception_resnet_v1", "block35_5", (256, 35, 35)),
        ("inception_resnet_v1", "block17_10", (896, 17, 17)),
        ("inception_resnet_v1", "block8_last", (1792, 8, 8)),
        ("inception_resnet_v2", "mixed5b", (320, 35, 35)),
        ("inception_resnet_v2", "block17_20", (1088, 17, 17)),
        ("inception_resnet_v2", "mixed7a", (2080, 8, 8)),
    ],
)
def test_shapes_that_the_sources_state(name: str, path: str, shape: tuple[int, ...]) -> None:
    assert output_shapes(build(name))[path] == shape


def test_bad_options_are_one_line() -> None:
    with pytest.raises(TriptychError, match=r"unknown architecture 'googlnet'; did you mean 'googlenet'\?"):
        build("googlnet")
    with pytest.raises(TriptychError, match="architecture 'nin' has one head only; leave --head out"):
        build("nin", head="small")
    with pytest.raises(TriptychError, match="--classes -1 must be at least 1"):
        build("nin", classes=-1)


def test_the_whole_of_gluons_model_zoo_is_here_with_its_counts() -> None:
    """All that `get_model` of the installed MXNet knows; trained parameters, counted by Gluon."""
    pytest.importorskip("triptych_mxnet")
    import mxnet as mx
    from mxnet.gluon.model_zoo import vision

    other = {"alexnet": "alexnet_owt", "inceptionv3": "inception_v3"}
    names = [f"resnet{depth}_v{version}" for depth in (18, 34, 50, 101, 152) for version in (1, 2)]
    names += [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
    names += [f"densenet{depth}" for depth in (121, 161, 169, 201)]
    names += [f"{name}{width}" for name in ("mobilenet", "mobilenetv2_") for width in (1.0, 0.75, 0.5, 0.25)]
    names += ["squeezenet1.0", "squeezenet1.1", *other]
    assert len(names) == 34
    for name in names:
        network = vision.get_model(name)
        symbol, side = network(mx.sym.var("data")), 299 if name == "inceptionv3" else 224
        shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(1, 3, side, side))[0], strict=True))
        trained = [p.name for p in network.collect_params().values() if p.grad_req != "null"]
        mine = totals(build(other.get(name, name))).parameters
        assert mine == sum(math.prod(shapes[parameter]) for parameter in trained), name


def test_the_strides_of_a_bottleneck() -> None:
    """Gluon's v1 halves the map in the first 1x1 convolution, which has a bias; torchvision's in the 3x3."""
    for version, strides, bias in (("v1", [2, 1, 1], True), ("v1b", [1, 2, 1], False), ("v2", [1, 2, 1], False)):
        shapes = dict(walk(build(f"resnet50_{version}").layers))
        convolutions = [shapes[f"stage2.unit1.residual.body.conv{number}"] for number in (1, 2, 3)]
        assert [conv.stride[0] for conv in convolutions] == strides
        assert convolutions[0].bias == bias
