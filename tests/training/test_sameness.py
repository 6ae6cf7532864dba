"""What several processes compare before their first step: any difference of one is told by all, by its kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from triptych.data import load
from triptych.data.dataset import Dataset, Split
from triptych.training.distributed import sameness
from triptych.training.recipe import Recipe
from triptych.utils.errors import TriptychError

DATA = load("synthetic@train=20,test=10")
WEIGHTS = {"conv.weight": np.ones((2, 3)), "conv.bias": np.zeros(2)}
STATE = {"velocity.conv.weight": np.full((2, 3), 0.5)}


class Versions:
    """In place of a backend."""

    def __init__(self, **found: str) -> None:
        self.found = found

    def versions(self) -> dict[str, str]:
        return self.found


GIVEN: dict[str, Any] = {
    "backend": Versions(torch="2.13.0"),
    "recipe": Recipe(name="x"),
    "dataset": DATA,
    "parameters": WEIGHTS,
    "optimizer": STATE,
}


class Told:
    """A group of so many processes, which says what this one told, or what all did."""

    def __init__(self, others: list[np.ndarray] | None = None) -> None:
        self.others, self.own = others, np.zeros(0)

    def gather(self, values: np.ndarray) -> np.ndarray:
        self.own = values
        return np.stack(self.others if self.others is not None else [values])


def told(**changes: Any) -> np.ndarray:
    group = Told()
    sameness.check_same(group, **{**GIVEN, **changes})  # type: ignore[arg-type]
    return group.own


def images_changed(split: Split) -> Split:
    images = split.images.copy()
    images[7, 0, 3, 3] ^= 1
    return Split(images, split.labels)


def labels_changed(split: Split) -> Split:
    labels = split.labels.copy()
    labels[[0, 1]] = labels[[1, 0]]
    return Split(split.images, labels)


def dataset(**changes: Any) -> Dataset:
    return replace(DATA, **changes)


CASES = {
    "another rate": ({"recipe": Recipe(name="x", learning_rate=0.2)}, "recipe"),
    "an image": ({"dataset": dataset(train=images_changed(DATA.train))}, "data"),
    "a test image": ({"dataset": dataset(test=images_changed(DATA.test))}, "data"),
    "labels": ({"dataset": dataset(train=labels_changed(DATA.train))}, "data"),
    "names of classes": ({"dataset": dataset(class_names=(*DATA.class_names[1:], DATA.class_names[0]))}, "data"),
    "an image less": ({"dataset": dataset(train=Split(DATA.train.images[:-1], DATA.train.labels[:-1]))}, "data"),
    "a version": ({"backend": Versions(torch="2.12.0")}, "versions"),
    "a weight": ({"parameters": {**WEIGHTS, "conv.bias": np.array([0.0, 1e-300])}}, "weights"),
    "a shape": ({"parameters": {**WEIGHTS, "conv.weight": np.ones((3, 2))}}, "weights"),
    "a name": ({"parameters": {"conv.weights": np.ones((2, 3)), "conv.bias": np.zeros(2)}}, "weights"),
    "a velocity": ({"optimizer": {"velocity.conv.weight": np.full((2, 3), 0.25)}}, "weights"),
    "two things": ({"recipe": Recipe(name="y"), "parameters": {}}, "recipe and other weights"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_one_process_has_otherwise_is_told(case: str) -> None:
    changes, kind = CASES[case]
    everybody = [told(), told(**changes), told()]
    for own in ({}, changes):
        with pytest.raises(TriptychError, match=f"^process 1 has other {kind} than process 0; all must train the same"):
            sameness.check_same(Told(everybody), **{**GIVEN, **own})  # type: ignore[arg-type]


def test_equal_processes_go_on() -> None:
    sameness.check_same(Told([told(), told(dataset=dataset())]), **GIVEN)  # type: ignore[arg-type]
