"""Every operator of MXNet's that is imported gives MXNet's own outputs, gradients and statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mxnet_cases import CASES
from mxnet_runs import distance, draw, largest_distance, run_mxnet, run_reference
from triptych.backend import registry
from triptych.importers import mxnet_symbol
from triptych.importers.mxnet_network import CONVERTERS, convert, load
from triptych.importers.steps import Imported, Request

needs_mxnet = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")

# Operators that no case above builds: with another gradient, and so tested by itself; and one that is refused but for
# an array of the images' own shape, which no file has.
ELSEWHERE = {"BlockGrad", "elemwise_div"}
ONLY_IN_MXNET_2 = {"_npi_copy", "_npi_transpose", "_npi_squeeze"}


@pytest.fixture(scope="module")
def mx() -> Any:
    registry.load("mxnet")
    import mxnet

    return mxnet


def imported_of(symbol: Any, arrays: Any, shape: tuple[int, int, int], **request: Any) -> Imported:
    parsed = mxnet_symbol.parse(symbol.tojson(), "net-symbol.json")
    return convert(parsed, arrays, Request(input=shape, **request), name="net", files=("net-symbol.json", "net.params"))


@needs_mxnet
@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_and_learns_as_in_mxnet(name: str, mx: Any) -> None:
    case = CASES[name]
    symbol = case.build(mx.sym, mx.sym.var("data"))
    shape = (case.images, *case.shape)
    arrays = {name: array.astype(case.dtype) for name, array in draw(symbol, shape).items()}
    imported = imported_of(symbol, arrays, case.shape, keep_softmax=True)
    x = np.random.default_rng(0).normal(size=shape).astype(case.dtype)
    for train in (False, True)[: 1 + case.train]:
        theirs = run_mxnet(symbol, arrays, x, train, case.dtype)
        difference = largest_distance(imported, arrays, theirs, run_reference(imported, x, train))
        assert difference < case.bound


def of_numpy(net: Any) -> Any:
    """A block for MXNet's NumPy operators: its `hybrid_forward`."""

    def forward(self: Any, F: Any, x: Any, weight: Any, bias: Any) -> Any:  # noqa: N803 (Gluon's name)
        y = F.npx.relu(F.npx.convolution(x, weight, bias, kernel=(3, 3), num_filter=8, pad=(1, 1)))
        y = F.np.concatenate([3 - F.np.tanh(y) * 2 - 0.5 + y, y / 3 - F.npx.sigmoid(y)], axis=1)
        scale = F.np.mean(y, axis=(2, 3), keepdims=True)
        groups = F.np.transpose(F.npx.reshape(y, (-2, -6, 4, 4, -4)), (0, 2, 1, 3, 4))
        y = y + F.np.flip(F.np.sum(y, axis=2, keepdims=True) - F.np.max(y, axis=(2, 3), keepdims=True), 1)
        y = y * F.np.broadcast_to(F.np.max(y, axis=3, keepdims=True), (2, 16, 8, 8))
        y = (
            y
            + F.npx.reshape(groups, (-2, -5, -4)) * scale
            + F.np.squeeze(F.np.expand_dims(F.np.negative(y) + 0.25, 2), 2)
        )
        return F.np.reshape(F.np.copy(y), (-1, 16, 16, 4))

    return type("OfNumPy", (net,), {"hybrid_forward": forward})


@needs_mxnet
def test_the_operators_of_mxnets_numpy_compute_as_in_mxnet(mx: Any, tmp_path: Path) -> None:
    mx.npx.set_np()
    try:
        net = of_numpy(mx.gluon.HybridBlock)(prefix="net_")
        net.weight = net.params.get("weight", shape=(8, 3, 3, 3))
        net.bias = net.params.get("bias", shape=(8,))
        net.initialize(mx.init.Normal(0.3))
        net.cast("float64")
        net.hybridize()
        x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
        expected = net(mx.np.array(x, dtype="float64")).asnumpy()
        net.export(str(tmp_path / "net"))
    finally:
        mx.npx.reset_np()
    symbol = tmp_path / "net-symbol.json"
    imported = load(symbol, tmp_path / "net-0000.params", Request(input=(3, 8, 8)))
    difference = distance(expected, run_reference(imported, x, False).outputs[0])
    assert difference < 1e-12
    covered = {node.operator for node in mxnet_symbol.read(symbol).nodes}
    assert {name for name in CONVERTERS if name.startswith("_np")} - covered == ONLY_IN_MXNET_2


@needs_mxnet
def test_the_cases_cover_the_table_of_operators(mx: Any) -> None:
    covered = set()
    for case in CASES.values():
        symbol = case.build(mx.sym, mx.sym.var("data"))
        covered |= {node.operator for node in mxnet_symbol.parse(symbol.tojson(), "net").nodes}
    numpys = {name for name in CONVERTERS if name.startswith("_np")}
    assert CONVERTERS.keys() - covered - numpys == ELSEWHERE
