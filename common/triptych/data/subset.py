"""A part of a data set by name: `fashion-mnist@classes=5-9,train=500` are 5 classes, 500 training images."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triptych.data.dataset import Dataset, Labels, Split
from triptych.utils.errors import TriptychError, unknown

MARK = "@"
KEYS = {"classes": "([0-9]{1,9})-([0-9]{1,9})", "train": "([0-9]{1,9})", "test": "([0-9]{1,9})"}
EXPECTED = "write for example fashion-mnist@classes=5-9,train=500,test=100"


@dataclass(frozen=True)
class Part:
    """What is taken of a set: the classes `low` to `high`, both included, and so many images of each split; None is
    all of it."""

    classes: tuple[int, int] | None = None
    train: int | None = None
    test: int | None = None


def divide(name: str) -> tuple[str, Part | None]:
    """The set's own name, and the part of it that the rest says, if there is a rest. Raises TriptychError if that
    cannot be understood."""
    whole, mark, text = name.rpartition(MARK)
    if not mark or os.sep in text:
        return name, None
    values: dict[str, Any] = {}
    for piece in text.split(","):
        key, _, value = piece.strip().partition("=")
        if key not in KEYS:
            raise TriptychError(f"data '{name}': {unknown('part', key, KEYS)}; {EXPECTED}")
        match = re.fullmatch(KEYS[key], value)
        if match is None:
            raise TriptychError(f"data '{name}': '{piece.strip()}' cannot be read; {EXPECTED}")
        if key in values:
            raise TriptychError(f"data '{name}': '{key}' is there twice; {EXPECTED}")
        numbers = tuple(map(int, match.groups()))
        values[key] = numbers if key == "classes" else numbers[0]
    return whole, Part(**values)


def take(dataset: Dataset, part: Part, name: str) -> Dataset:
    """The part of `dataset` as a set called `name`; a line on standard error says which classes it took. Raises
    TriptychError for classes and images that are not there."""
    labels = chosen(dataset, part, name)
    names = tuple(dataset.class_names[label] for label in labels)
    places = np.full(len(dataset.class_names), -1)
    places[list(labels)] = np.arange(len(labels))

    def taken(key: str, split: Split, count: int | None) -> Split:
        after = places[split.labels]
        kept = after >= 0
        split = split if kept.all() else Split(split.images[kept], after[kept])
        return split if count is None else first(split, count, names, f"data '{name}': {key}={count}")

    train, test = taken("train", dataset.train, part.train), taken("test", dataset.test, part.test)
    if part.classes is not None:
        print(f"data '{name}': classes {', '.join(names)}", file=sys.stderr)
    return Dataset(name, train, test, names)


def chosen(dataset: Dataset, part: Part, name: str) -> Sequence[int]:
    """The labels of the part's classes, by name where every class is called by a number. Raises TriptychError unless
    they are two or more, and both ends are there."""
    last = len(dataset.class_names) - 1
    if part.classes is None:
        return range(last + 1)
    low, high = part.classes
    if all(text.isascii() and text.isdecimal() for text in dataset.class_names):
        numbers = {int(text): label for label, text in enumerate(dataset.class_names)}
        named = [label for number, label in sorted(numbers.items()) if low <= number <= high]
        if low in numbers and high in numbers and len(named) > 1:
            return named
        known = ", ".join(map(str, sorted(numbers)))
        raise TriptychError(f"data '{name}': classes={low}-{high} must be two or more of the classes called {known}")
    if not low < high <= last:
        raise TriptychError(f"data '{name}': classes={low}-{high} must be two or more of the classes 0-{last}")
    return range(low, high + 1)


def mixed(labels: Labels, count: int) -> Labels:
    """The places of `count` images in turns of the classes: the first of each class, the second of each, ..., always
    the same; class folders begin with images of one class alone."""
    ranks = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        ranks[places] = np.arange(len(places))
    return np.lexsort((labels, ranks))[:count]


def first(split: Split, count: int, names: tuple[str, ...], what: str) -> Split:
    """The first images of each class, `count` in all, in the split's order; where that is no multiple of the classes,
    the first classes have one more. Raises TriptychError, which begins with `what`, for classes with too few."""
    if count < len(names):
        raise TriptychError(f"{what} must be at least 1 of each of the {len(names)} classes")
    share = [count // len(names) + (label < count % len(names)) for label in range(len(names))]
    by_class = [np.flatnonzero(split.labels == label) for label in range(len(names))]
    for name, wanted, places in zip(names, share, by_class, strict=True):
        if len(places) < wanted:
            raise TriptychError(f"{what} needs {wanted} images of class '{name}', there are {len(places)}")
    chosen = np.sort(np.concatenate([places[:wanted] for wanted, places in zip(share, by_class, strict=True)]))
    return Split(split.images[chosen], split.labels[chosen])
