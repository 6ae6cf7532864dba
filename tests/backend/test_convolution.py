"""JAX's convolution by every road is XLA's own: values and both gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triptych.backend import registry
from triptych.backend.execution import Execution

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

from triptych_jax import convolution, precision  # noqa: E402

ROADS = {  # input (height, width, channels), kernel (rows, columns), strides, padding, dilation
    "one product": ((2, 2, 5), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "one product with strides": ((3, 2, 5), (3, 3), (2, 1), ((1, 2), (1, 1)), (1, 1)),
    "written out": ((9, 11, 1), (5, 3), (1, 1), ((2, 2), (1, 1)), (1, 1)),
    "written out with strides and dilation": ((19, 23, 1), (3, 3), (2, 3), ((1, 2), (0, 1)), (2, 1)),
    "rows of the kernel": ((9, 10, 3), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "values of the kernel": ((9, 10, 6), (3, 2), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "values with strides and dilation": ((19, 23, 6), (3, 3), (2, 3), ((1, 2), (0, 1)), (2, 1)),
    "1x1 with strides": ((20, 20, 6), (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "by XLA": ((6, 6, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
}
FUNCTIONS = {"one": ["_product"], "written": ["_sum", "_kernel_gradient"], "by": []}  # by the first word


@pytest.mark.parametrize("road", ROADS)
def test_every_road_is_the_convolution(road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []  # else XLA's own might be compared with itself
    for name in ("_product", "_sum", "_kernel_gradient"):
        monkeypatch.setattr(convolution, name, _noted(getattr(convolution, name), taken, name))
    size, kernel_size, strides, padding, dilation = ROADS[road]
    draw = np.random.default_rng(0)
    x, kernel = draw.standard_normal((3, *size)), draw.standard_normal((*kernel_size, size[-1], 4))
    more: dict[str, Any] = {
        "rhs_dilation": dilation,
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
        "feature_group_count": 1,
        "precision": jax.lax.Precision.HIGHEST,
    }

    def both(convolve: Any) -> list[Any]:
        y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, strides, padding, **more), x, kernel)
        return [y, *pull(np.sin(np.arange(y.size)).reshape(y.shape))]

    with precision.precise():
        registry.load("jax").apply_execution(Execution("fp64"), "cpu")
        for mine, of_xla in zip(both(convolution.convolve), both(jax.lax.conv_general_dilated), strict=True):
            assert mine.shape == of_xla.shape
            np.testing.assert_allclose(mine, of_xla, rtol=0, atol=1e-13 * np.abs(of_xla).max())
    assert set(taken) == set(FUNCTIONS.get(road.split()[0], ["_kernel_gradient"]))


def _noted(function: Any, taken: list[str], name: str) -> Any:
    def noted(*given: Any, **more: Any) -> Any:
        taken.append(name)
        return function(*given, **more)

    return noted
