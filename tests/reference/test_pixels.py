"""The reference's own preprocessing: equal to the transform's, and not by sharing it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from triptych.data import batches, preprocess
from triptych.data.batches import Augmentation, plan
from triptych.data.preprocess import InputTransform, apply_reference
from triptych.reference.pixels import network_input

STORED = np.random.default_rng(0).integers(0, 256, (5, 3, 11, 8), np.uint8)
TRANSFORM = InputTransform(3, 6, 13, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 2)
(BATCH,) = plan(0, 1, 5, 5, Augmentation(2, True, 0.5))


@pytest.mark.parametrize(
    ("stored", "transform"),
    [
        (STORED, TRANSFORM),
        (STORED, replace(TRANSFORM, mean=(), std=(), reverse=True)),
        (STORED, InputTransform(1, 11, 8, crop_padding=2)),
        (STORED[:, :1], replace(TRANSFORM, std=())),
        (STORED, replace(TRANSFORM, height=20, width=3, mean=())),
    ],
)
def test_it_is_what_the_transform_makes(stored: Any, transform: InputTransform) -> None:
    tinted = BATCH if transform.channels == 3 else replace(BATCH, shifts=None)
    for drawn in (None, tinted):
        ours, theirs = network_input(stored, transform, drawn), apply_reference(stored, transform, drawn)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (preprocess, "resize_matrix", lambda old, new: np.eye(new, old)),
        (preprocess, "LUMA", (0.2126, 0.7152, 0.0722)),
        (batches, "gather_indices", None),
    ],
)
def test_it_does_not_follow_a_fault_in_what_it_judges(
    module: Any, name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(module, name)
    upside_down = lambda *given: right(*given)._replace(rows=right(*given).rows[:, ::-1])  # noqa: E731
    monkeypatch.setattr(preprocess, name, wrong or upside_down)
    transform = replace(TRANSFORM, mean=(), std=(), channels=1 if name == "LUMA" else 3)
    drawn = replace(BATCH, shifts=None)
    difference = network_input(STORED, transform, drawn) - apply_reference(STORED, transform, drawn)
    assert np.abs(difference).max() > 0.01
