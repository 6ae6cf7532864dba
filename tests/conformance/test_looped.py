"""The loop and the plan of batches, held against a second writing of both (what is wrong is planted in `mutants`)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from triptych.conformance import looped


@pytest.mark.parametrize("seed", range(12))
def test_the_loop_agrees_with_its_second_writing(seed: int) -> None:
    backend: Any = SimpleNamespace(name="none")
    expected, observed = looped.expected(seed), looped.observed(backend, seed)
    assert observed.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(observed[name], value, rtol=0, atol=looped.BUDGET, err_msg=name)
