"""Weights that go back to a symbol of MXNet's: under the names that it wants, loaded by MXNet itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import triptych
from triptych.backend import registry
from triptych.importers.steps import Request
from triptych.porting import convert, sources
from triptych.reference import network as reference
from triptych.utils.errors import TriptychError
from triptych.weights import initializers, store

pytestmark = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")
SIZE = (3, 12, 12)
REQUEST = Request(input=SIZE)


def of_symbols(folder: Path) -> Path:
    """Of Module's time: `moving_mean`, a slope called gamma, a scale that is fixed and not 1 in the file."""
    mx = mxnet()
    data = mx.sym.BatchNorm(mx.sym.var("data"), name="bn0", fix_gamma=True)
    conv = mx.sym.Convolution(data, kernel=(3, 3), num_filter=4, no_bias=True, name="conv")
    slope = mx.sym.LeakyReLU(mx.sym.BatchNorm(conv, name="bn1", fix_gamma=False), act_type="prelu", name="slope")
    mixed = mx.sym.Concat(slope, mx.sym.Activation(conv, act_type="relu"))
    symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mixed, num_hidden=3, name="fc"), name="softmax")
    module = mx.mod.Module(symbol)
    module.bind([("data", (1, *SIZE))], [("softmax_label", (1,))])
    module.init_params(mx.init.Uniform(0.7))
    arguments, auxiliary = module.get_params()
    arguments["bn0_gamma"][:] = 5
    module.set_params(arguments, auxiliary)
    module.save_checkpoint(str(folder / "net"), 3)
    return folder / "net-0003.params"


def of_gluon(folder: Path) -> Path:
    """As its model zoo has its second residual networks: the first batch norm without scale and shift."""
    mx = mxnet()
    nn = mx.gluon.nn
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.BatchNorm(scale=False, center=False), nn.Conv2D(5, 3), nn.BatchNorm(), nn.PReLU(), nn.Dense(4))
    net.initialize(mx.init.Uniform(0.7))
    net.hybridize()
    net(mx.nd.zeros((1, *SIZE)))
    net.export(str(folder / "net"))
    return folder / "net-0000.params"


def mxnet() -> Any:
    registry.load("mxnet")
    import mxnet

    return mxnet


@pytest.mark.parametrize("beside", [True, False], ids=["with-params", "symbol-alone"])
@pytest.mark.parametrize("make", [of_symbols, of_gluon])
def test_mxnet_loads_other_weights_into_its_symbol(make: Any, beside: bool, tmp_path: Path) -> None:
    """Trained elsewhere, and back: strictly, by SymbolBlock and by Module, with the reference's outputs."""
    mx, symbol = mxnet(), tmp_path / "net-symbol.json"
    stored = make(tmp_path)
    network = triptych.load(str(symbol), input=SIZE)
    names = set(mx.nd.load(str(stored)))
    if not beside:
        stored.unlink()
        network = triptych.load(str(symbol), input=SIZE)
    values = initializers.draw(network, 7)
    values = {path: array + np.float32(0.25) * ("running" in path) for path, array in values.items()}
    weights, back = tmp_path / "trained.safetensors", tmp_path / "back-0001.params"
    store.save(weights, values)
    done = triptych.convert(weights, back, arch=str(symbol), to="gluon-exported", input=SIZE)
    assert "the names of net-symbol.json" in done.summary
    assert done.outputs.share is not None
    assert set(mx.nd.load(str(back))) == names
    images = np.random.default_rng(0).standard_normal((1, *SIZE)).astype(np.float32)
    expected = reference.forward(network, values, images).logits
    for found in (by_block(symbol, back, images), by_module(symbol, back, images)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    again = sources.read(str(symbol), REQUEST, back).parameters or {}
    assert values.keys() - again.keys() <= {"net_batchnorm0.bias"}  # zeros, which the importer takes for no shift
    assert all(convert.same_bits(again[path], values[path]) for path in again)


def without_softmax(symbol: Path) -> Any:
    mx = mxnet()
    whole = mx.sym.load(str(symbol))
    return whole.get_children()[0] if whole.name == "softmax" else whole


def by_block(symbol: Path, params: Path, images: np.ndarray) -> np.ndarray:
    mx = mxnet()
    block = mx.gluon.SymbolBlock(without_softmax(symbol), mx.sym.var("data"))
    block.collect_params().load(str(params), cast_dtype=True, dtype_source="saved")  # as SymbolBlock.imports does
    return block(mx.nd.array(images)).asnumpy()


def by_module(symbol: Path, params: Path, images: np.ndarray) -> np.ndarray:
    mx = mxnet()
    arguments, auxiliary = mx.model.load_params(str(params).removesuffix("-0001.params"), 1)
    module = mx.mod.Module(without_softmax(symbol), label_names=None)
    module.bind([("data", images.shape)], for_training=False)
    module.set_params(arguments, auxiliary, allow_missing=False)
    module.forward(mx.io.DataBatch([mx.nd.array(images)]))
    return module.get_outputs()[0].asnumpy()


def test_a_symbol_takes_all_its_arrays(tmp_path: Path) -> None:
    of_symbols(tmp_path)
    symbol = str(tmp_path / "net-symbol.json")
    values = initializers.draw(triptych.load(symbol, input=SIZE), 7)
    lost = next(path for path in values if path.endswith("running_mean"))
    del values[lost]
    store.save(tmp_path / "part.safetensors", values)
    with pytest.raises(TriptychError, match=f"takes all its arrays from one file; there is none for {lost}"):
        triptych.convert(
            tmp_path / "part.safetensors",
            tmp_path / "back.params",
            arch=symbol,
            to="gluon-exported",
            allow_unmatched=True,
            input=SIZE,
        )


def test_a_network_of_another_symbol_does_not_go_back(tmp_path: Path) -> None:
    of_symbols(tmp_path)
    imported = sources.read(str(tmp_path / "net-symbol.json"), REQUEST)
    first, *rest = imported.architecture.layers
    other = replace(imported.architecture, layers=(replace(first, eps=0.5), *rest))  # type: ignore[call-arg]
    symbol = convert.symbol_of(tmp_path / "net-symbol.json", other, None, {})
    with pytest.raises(TriptychError, match=r"the network is not that of .*net-symbol.json"):
        convert.from_network(imported, tmp_path / "back.params", to="gluon-exported", symbol=symbol)
