"""Gluon's parameter files by themselves are matched to the networks of the zoo, whichever names they have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marks import later
from triptych import zoo
from triptych.backend import registry
from triptych.importers.gluon_params import load
from triptych.reference import network
from triptych.spec import analysis
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    BatchNorm,
    Block,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    ReLU,
    Residual,
)
from triptych.utils.errors import TriptychError
from triptych.weights.formats import mxnet_params
from triptych.weights.layouts import GLUON

needs_mxnet = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")

ALWAYS = ("resnet18_v1", "resnet18_v2", "mobilenet0.25", "mobilenetv2_0.25", "squeezenet1.1")
# The names that the zoo has for Gluon's networks, where they are others.
ZOO = {
    **{f"resnet{depth}_v{version}": "" for version in (1, 2) for depth in (18, 34, 50, 101, 152)},
    **{f"vgg{depth}{bn}": "" for bn in ("", "_bn") for depth in (11, 13, 16, 19)},
    **{f"densenet{depth}": "" for depth in (121, 161, 169, 201)},
    **{f"mobilenet{version}{width}": "" for version in ("", "v2_") for width in ("1.0", "0.75", "0.5", "0.25")},
    "squeezenet1.0": "",
    "squeezenet1.1": "",
    "alexnet": "alexnet_owt",
    "inceptionv3": "inception_v3",
}
WRITE = {
    "structural": lambda net, path: net.save_parameters(str(path)),
    "prefixed": lambda net, path: net.collect_params().save(str(path)),
    "stripped": lambda net, path: net.collect_params().save(str(path), strip_prefix=net.prefix),
    "exported": lambda net, path: net.export(str(path)),
}


@pytest.fixture(scope="module")
def mx() -> Any:
    registry.load("mxnet")
    import mxnet

    return mxnet


def drawn(net: Any, mx: Any, size: int) -> Any:
    """The block with random arrays of 64 bits, hybridized and run once, and what it gives for an image."""
    net.initialize(mx.init.Xavier())
    net.cast("float64")
    net.hybridize()
    x = np.random.default_rng(0).normal(size=(1, 3, size, size))
    net(mx.nd.array(x, dtype="float64"))
    random = np.random.default_rng(1)
    for name, parameter in net.collect_params().items():
        if name.endswith(("gamma", "running_mean", "running_var")) or parameter.grad_req != "null":
            parameter.set_data(mx.nd.array(random.uniform(0.5, 1.5, parameter.shape), dtype="float64"))
    return x, net(mx.nd.array(x, dtype="float64")).asnumpy()


@needs_mxnet
@pytest.mark.parametrize("name", [name if name in ALWAYS else pytest.param(name, marks=later) for name in ZOO])
def test_files_of_gluons_zoo_are_matched_whichever_names_they_have(name: str, mx: Any, tmp_path: Path) -> None:
    architecture = zoo.build(ZOO[name] or name)
    net = mx.gluon.model_zoo.vision.get_model(name)
    x, expected = drawn(net, mx, architecture.input[1])
    results = []
    for style, write in WRITE.items():
        write(net, tmp_path / style)
        results.append(load(tmp_path / (f"{style}-0000.params" if style == "exported" else style), architecture))
    first = results[0].parameters or {}
    for other in results[1:]:
        assert all(np.array_equal(array, (other.parameters or {})[path]) for path, array in first.items())
    outputs = network.forward(results[0].architecture, first, x).logits
    assert np.abs(outputs - expected).max() < 1e-12 * np.abs(expected).max()


def unit(shortcut: tuple[int, int], **options: bool) -> Architecture:
    """A residual unit whose body is a 3x3 convolution, and whose shortcut one of this size."""
    body = Block("body", (Conv("conv", 4, (3, 3), padding=(1, 1)),))
    side = Block("shortcut", (Conv("conv", 4, shortcut, padding=(shortcut[0] // 2, shortcut[1] // 2)),))
    norm = BatchNorm("norm", gamma=False, **options)
    layers = (Conv("first", 4, (3, 3)), Residual("unit", body, side), norm, ReLU("relu"), GlobalAvgPool("pool"))
    return Architecture("net", (3, 8, 8), 5, (*layers, Flatten("flatten"), Dense("fc", 5)))


def written(path: Path, architecture: Architecture, order: list[str], style: str = "features.{}.{}") -> dict[str, Any]:
    """A file of the architecture's arrays, its layers in this order, and what it has by canonical path."""
    arrays, content = {}, {}
    for place, layer in enumerate(order):
        for info in analysis.parameters(architecture):
            if info.path.rpartition(".")[0] == layer:
                arrays[info.path] = np.random.default_rng(len(arrays)).normal(size=info.shape).astype(np.float32)
                content[style.format(place, GLUON.names[info.role])] = arrays[info.path]
        if layer == "norm":  # as Gluon has it, though it is fixed
            content[style.format(place, "gamma")] = np.full(4, 9.0, np.float32)
    mxnet_params.write(path, content)
    return arrays


IN_ORDER = ["first", "unit.body.conv", "unit.shortcut.conv", "norm", "fc"]


@pytest.mark.parametrize("style", ["features.{}.{}", "net0_layer{}_{}", "layer{}_{}"])
def test_a_body_stands_before_its_shortcut_and_a_fixed_scale_is_left_out(style: str, tmp_path: Path) -> None:
    architecture = unit((1, 1))
    for order in (IN_ORDER, ["first", "unit.shortcut.conv", "unit.body.conv", "norm", "fc"]):
        arrays = written(tmp_path / "net.params", architecture, order, style)
        found = load(tmp_path / "net.params", architecture).parameters or {}
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[path], arrays[path]) for path in arrays)


def test_a_shift_counts_though_it_is_not_trained(tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    written(path, unit((1, 1)), IN_ORDER)
    assert "'features.3.beta' is not 0, but 'norm' has no shift" in refusal(path, unit((1, 1), beta=False))
    arrays = {name: np.asarray(array) for name, array in mxnet_params.read(path).items()}
    mxnet_params.write(path, arrays | {"features.3.beta": np.zeros(4, np.float32)})
    assert "norm.bias" not in (load(path, unit((1, 1), beta=False)).parameters or {})


def test_auxiliary_classifiers_that_the_file_has_not_are_left_out(tmp_path: Path) -> None:
    architecture = unit((1, 1))
    arrays = written(tmp_path / "net.params", architecture, IN_ORDER)
    side = Auxiliary("side", (Flatten("flatten"), Dense("fc", 5)), 0.3)
    both = replace(architecture, layers=(architecture.layers[0], side, *architecture.layers[1:]))
    found = load(tmp_path / "net.params", both)
    assert found.architecture == architecture
    assert (found.parameters or {}).keys() == arrays.keys()
    assert found.remarks == ("the file has no auxiliary classifier; the network is taken without",)


def test_the_names_of_the_spec_are_taken_by_name(tmp_path: Path) -> None:
    architecture = unit((3, 3))
    arrays = {
        GLUON.native_path(info): np.full(info.shape, place, np.float32)
        for place, info in enumerate(analysis.parameters(architecture))
    }
    mxnet_params.write(tmp_path / "net.params", dict(reversed(arrays.items())))
    found = load(tmp_path / "net.params", architecture).parameters or {}
    assert all(np.array_equal(found[i.path], arrays[GLUON.native_path(i)]) for i in analysis.parameters(architecture))


def refusal(path: Path, architecture: Architecture) -> str:
    with pytest.raises(TriptychError) as raised:
        load(path, architecture)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_ambiguous_or_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    written(path, unit((3, 3)), IN_ORDER)
    assert "it is ambiguous whether 'features.2' or 'features.1' is 'unit.shortcut.conv'" in refusal(path, unit((3, 3)))
    assert "it has nothing for 'unit.shortcut.conv' (bias (4,), weight (4, 4, 1, 1)) and 'features.1'" in refusal(
        path, unit((1, 1))
    )
    written(path, unit((1, 1)), ["unit.shortcut.conv", "first", "unit.body.conv", "norm", "fc"])
    assert "in another order, which is ambiguous: where 'first' (bias (4,), weight (4, 3, 3, 3)) is due" in refusal(
        path, unit((1, 1))
    )
    mxnet_params.write(path, {"0": np.zeros(3, np.float32)})
    assert "the name '0' does not tell what it is" in refusal(path, unit((1, 1)))
