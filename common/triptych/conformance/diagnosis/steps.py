"""The steps of the grammar in which a difference is told: values moved, a function of each, a mean over some axes."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np

from triptych.conformance.diagnosis.value_faults import OTHER_ACTIVATIONS
from triptych.spec.kinds import kind_of
from triptych.spec.kinds.layer_pass import Conditions, exact
from triptych.utils.arrays import Array

Step = tuple[str, Callable[[Array], Array]]
AXES = {0: "image", 1: "channel", 2: "row", 3: "column"}
READ = {1: "channels", 2: "height", 3: "width"}


def _shifted(axis: int, by: int) -> Callable[[Array], Array]:
    """Moved, with zeros where nothing comes in."""

    def step(x: Array) -> Array:
        y = np.roll(x, by, axis)
        edge = [slice(None)] * x.ndim
        edge[axis] = slice(0, by) if by > 0 else slice(by, None)
        y[tuple(edge)] = 0
        return y

    return step


def _rolled(axis: int, by: int, x: Array) -> Array:
    return np.roll(x, by, axis)


def _moves(ndim: int) -> Iterator[Step]:
    """Values in other places."""
    yield "its channels are in reverse order", lambda x: x[:, ::-1]
    for axis in range(min(ndim, 4)):
        for by in (1, -1, 2, -2):
            way = f"moved by {by:+d} along the {AXES[axis]}s"
            yield f"it is {way}, from the other end (roll)", partial(_rolled, axis, by)
            if axis:
                yield f"it is {way}, zeros behind", _shifted(axis, by)
    yield "the images are in reverse order", lambda x: x[::-1]
    if ndim == 4:
        yield "it is upside down (flipped rows)", lambda x: x[:, :, ::-1]
        yield "it is mirrored (flipped columns)", lambda x: x[..., ::-1]
        yield "it is turned by 180 degrees (flipped rows and columns)", lambda x: x[:, :, ::-1, ::-1]
        yield "its rows and columns are swapped", lambda x: x.transpose(0, 1, 3, 2)
        yield "it is turned by 90 degrees", lambda x: np.rot90(x, 1, (2, 3))
        yield "it is turned by -90 degrees", lambda x: np.rot90(x, -1, (2, 3))
        for order in permutations((1, 2, 3)):
            if order != (1, 2, 3):
                words = "-".join(READ[axis] for axis in order)
                yield f"it is read in {words} order", partial(_read, (0, *order))


def _read(order: tuple[int, ...], x: Array) -> Array:
    """In the shape that it had, whatever the new order of the axes is."""
    return np.ascontiguousarray(x.transpose(order)).reshape(x.shape)


def _rounded(digits: int, x: Array) -> Array:
    return np.asarray(np.round(x, digits))


def _cut(by: float, x: Array) -> Array:
    return np.asarray(np.trunc(x * by) / by)


def _to_bfloat16(x: Array) -> Array:
    """To the nearest that has float32's upper half, ties to even."""
    bits = x.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.asarray(rounded.view(np.float32), np.float64)


def _in_steps(by: int, x: Array) -> Array:
    return np.asarray(np.rint(x * by) / by)


def _functions() -> Iterator[Step]:
    """Functions of each value, or of all at a place, in an image, or in the batch."""

    def activation(record: Any) -> Callable[[Array], Array]:
        return lambda x: kind_of(record).reference(record, x, {}, Conditions(exact)).output

    for text, record in OTHER_ACTIVATIONS:
        yield f"behind it {text}", activation(record)
    plain: tuple[tuple[str, Callable[[Array], Array]], ...] = (
        ("its absolute value is taken", np.abs),
        ("it is squared", np.square),
        ("it is cubed", lambda x: x**3),
        ("the root of its absolute value is taken", lambda x: np.sqrt(np.abs(x))),
        ("the root is taken, with its sign", lambda x: np.sign(x) * np.sqrt(np.abs(x))),
        ("1 over it is taken", np.reciprocal),
        ("its exponential is taken", np.exp),
        ("the logarithm of its absolute value is taken", lambda x: np.log(np.abs(x))),
        ("the logarithm of 1 and it is taken", np.log1p),
        ("only its sign is left", np.sign),
        ("it is clipped to 0 .. 1", lambda x: np.clip(x, 0, 1)),
        ("it is clipped to -1 .. 1", lambda x: np.clip(x, -1, 1)),
    )
    yield from plain
    yield "it is rounded to float16", lambda x: x.astype(np.float16).astype(np.float64)
    yield "it is rounded to bfloat16", _to_bfloat16
    for digits in (0, 1, 2, 3, 4):
        yield f"it is rounded to {digits} decimals", partial(_rounded, digits)
    for digits in (0, 1, 2):
        yield f"it is cut to {digits} decimals", partial(_cut, 10.0**digits)
    for steps in (2, 4, 8, 16, 32, 64, 127, 128, 255, 256):
        yield f"it is rounded to whole steps of 1/{steps}", partial(_in_steps, steps)
    yield from _statistics()


SETS = {
    "over the batch": (0,),
    "over the channels": (1,),
    "over rows and columns, channel by channel": (2, 3),
    "over each image": (1, 2, 3),
    "over the rows": (2,),
    "over the columns": (3,),
    "over the batch, rows and columns": (0, 2, 3),
    "over the whole batch": (0, 1, 2, 3),
}
# Of an array and some of its axes.
OVER: dict[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "its mean {} is subtracted": lambda x, a: x - x.mean(a, keepdims=True),
    "its mean {} stands in its place": lambda x, a: np.broadcast_to(x.mean(a, keepdims=True), x.shape),
    "its largest value {} stands in its place": lambda x, a: np.broadcast_to(x.max(a, keepdims=True), x.shape),
    "its largest value {} is subtracted": lambda x, a: x - x.max(a, keepdims=True),
    "it is divided by its deviation {}": lambda x, a: x / x.std(a, keepdims=True),
    "it is normalised by its own mean and deviation, {}": lambda x, a: (
        (x - x.mean(a, keepdims=True)) / np.sqrt(x.var(a, keepdims=True) + 1e-5)
    ),
    "it is normalised by its own mean and deviation, {}, eps 0": lambda x, a: (
        (x - x.mean(a, keepdims=True)) / x.std(a, keepdims=True)
    ),
    "it is divided by its norm {}": lambda x, a: x / np.sqrt((x * x).sum(a, keepdims=True)),
    "it is divided by its norm {}, eps 1e-10": lambda x, a: x / np.sqrt((x * x).sum(a, keepdims=True) + 1e-10),
    "it is divided by its norm {}, eps 1e-5": lambda x, a: x / np.sqrt((x * x).sum(a, keepdims=True) + 1e-5),
    "it is divided by its root mean square {}": lambda x, a: x / np.sqrt((x * x).mean(a, keepdims=True) + 1e-5),
    "it is divided by its sum {}": lambda x, a: x / x.sum(a, keepdims=True),
    "softmax is applied {}": lambda x, a: _softmax(x, a),
}


def _statistics() -> Iterator[Step]:
    """Steps that take means, or norms, over some axes."""
    for words, axes in SETS.items():
        for text, of in OVER.items():
            yield text.format(words), partial(_over, of, axes)


def _over(of: Callable[[Array, tuple[int, ...]], Array], axes: tuple[int, ...], x: Array) -> Array:
    kept = tuple(axis for axis in axes if axis < x.ndim)
    if len(kept) < min(len(axes), x.ndim) and len(axes) < 3:
        raise ValueError(f"{axes} are not all axes of {x.shape}")
    return of(x, kept)


def _softmax(x: Array, axes: tuple[int, ...]) -> Array:
    e = np.exp(x - x.max(axes, keepdims=True))
    return np.asarray(e / e.sum(axes, keepdims=True))


# What the first two axes of a weight are, which are images and channels of a map.
OF_WEIGHTS = {"images": "outputs", "channels": "inputs", "image": "output"}


def steps(ndim: int) -> tuple[Step, ...]:
    """Every step of the grammar for arrays of so many axes; those that only move values come first."""
    return (*_moves(ndim), *_functions())
