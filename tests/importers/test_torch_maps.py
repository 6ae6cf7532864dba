"""Views that are numbered by their places, as layers."""

from __future__ import annotations

import numpy as np
import pytest

from triptych.importers.torch_maps import Map, numbered, rearrangement
from triptych.spec.layers import Pad

BASE = (2, 3, 4)


@pytest.mark.parametrize("mode", ["edge", "reflect"])
@pytest.mark.parametrize("sides", [(1, 0, 0, 2), (2, 1, 3, 0), (0, 2, 1, 3), (1, 1, 1, 1)])
def test_a_padded_map_is_a_pad(mode: str, sides: tuple[int, int, int, int]) -> None:
    order = np.pad(numbered(BASE), ((0, 0), sides[:2], sides[2:]), mode)  # type: ignore[call-overload]
    assert rearrangement(Map("x", BASE, order)) == (Pad("pad", sides, mode=mode),)  # type: ignore[arg-type]


def test_a_map_of_one_row_is_padded_by_its_edge() -> None:
    order = np.pad(numbered((2, 1, 4)), ((0, 0), (0, 0), (3, 1)), "edge")
    assert rearrangement(Map("x", (2, 1, 4), order)) == (Pad("pad", (0, 0, 3, 1), mode="edge"),)


def test_a_large_map_that_is_no_pad_is_refused_at_once() -> None:
    """Not every way of dividing the padding into two sides is tried."""
    order = np.pad(numbered(BASE), ((0, 0), (0, 900), (0, 900)), "edge")
    order[0, -1, -1] = 0
    assert rearrangement(Map("x", BASE, order)) is None
