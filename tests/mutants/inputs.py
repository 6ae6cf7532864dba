"""Faults before the network: the input transform, the order of the batches, the start of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from mutants import networks as nets
from mutants.plants import patched, replaced, wrapped
from mutants.record import Mutant
from triptych.spec.analysis import parameters
from triptych.weights.initializers import draw


def bgr_for_rgb(right: Any) -> Any:
    class Reversed(right):  # type: ignore[misc]
        def __call__(self, images: Any, gather: Any = None) -> Any:
            return super().__call__(images[:, np.arange(images.shape[1])[::-1]], gather)

    return Reversed


def normalisation_swapped(right: Any) -> Any:
    return lambda transform, *more: right(replace(transform, mean=transform.std, std=transform.mean), *more)


def constants_for_bytes(right: Any) -> Any:
    """Pixels of 0 .. 255 are normalised with the constants for 0 .. 1."""

    def scaled(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(value / 255 for value in values)

    return lambda transform, *more: right(
        replace(transform, mean=scaled(transform.mean), std=scaled(transform.std)), *more
    )


def corner_matrix(size_in: int, size_out: int) -> np.ndarray:
    """`align_corners=True`: the first and last pixels fall together, and nothing is averaged when it shrinks."""
    places = np.arange(size_out) * ((size_in - 1) / (size_out - 1))
    return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(size_in)))


def aligned_corners(right: Any) -> Any:
    class Aligned(right):  # type: ignore[misc]
        def resize(self, x: Any) -> Any:
            with patch.dict(right.resize.__globals__, {"resize_matrix": corner_matrix}):
                return super().resize(x)

    return Aligned


def both_sides(right: Any) -> Any:
    class BothSides(right):  # type: ignore[misc]
        def resize(self, x: Any) -> Any:
            same = x.shape[2] == self.transform.height or x.shape[3] == self.transform.width
            return x if same else super().resize(x)

    return BothSides


def plain_matrix(size_in: int, size_out: int) -> np.ndarray:
    """Two pixels for each, however much it shrinks: the default of PyTorch and MXNet."""
    centres = np.clip((np.arange(size_out) + 0.5) * (size_in / size_out), 0.5, size_in - 0.5)
    return np.maximum(0.0, 1.0 - np.abs(centres[:, None] - np.arange(size_in) - 0.5))


def no_antialias(right: Any) -> Any:
    class Plain(right):  # type: ignore[misc]
        def resize(self, x: Any) -> Any:
            with patch.dict(right.resize.__globals__, {"resize_matrix": plain_matrix}):
                return super().resize(x)

    return Plain


def rows_plain(right: Any) -> Any:
    """No antialias where the rows become fewer."""

    class Plain(right):  # type: ignore[misc]
        def resize(self, x: Any) -> Any:
            sizes, make = (x.shape[2], self.transform.height), right.resize.__globals__["resize_matrix"]
            both = {True: plain_matrix, False: make}
            with patch.dict(right.resize.__globals__, {"resize_matrix": lambda *s: both[s == sizes](*s)}):
                return super().resize(x)

    return Plain


def red_first(right: Any) -> Any:
    """Blue first is asked for, and not given."""
    return lambda transform, *more: right(replace(transform, reverse=False), *more)


def both_or_nothing(right: Any) -> Any:
    """A mean without deviations is not subtracted, a deviation without means not divided by."""
    return lambda transform, *more: right(
        transform if transform.mean and transform.std else replace(transform, mean=(), std=()), *more
    )


def unpadded_crop(right: Any) -> Any:
    """The crop's offsets are taken from the corner of the image instead of its padding's."""

    class Unpadded(right):  # type: ignore[misc]
        def crop_and_flip(self, x: Any, gather: Any) -> Any:
            return super().crop_and_flip(x, gather._replace(rows=gather.rows * 0 + np.arange(gather.rows.shape[1])))

    return Unpadded


def unscaled_tint(right: Any) -> Any:
    """The colours' shifts are meant for pixels of 0 .. 255."""

    class Unscaled(right):  # type: ignore[misc]
        def __call__(self, images: Any, gather: Any = None) -> Any:
            tinted = gather is not None and gather.shifts is not None
            return super().__call__(images, gather._replace(shifts=gather.shifts / 255) if tinted else gather)

    return Unscaled


@contextmanager
def batch_order(framework: Any, precision: str) -> Iterator[Any]:
    """A prefetch that is one batch behind: every batch after the first is the one before."""

    class Late(framework.Trainer):  # type: ignore[misc, name-defined]
        def late(self, given: tuple[Any, ...]) -> tuple[Any, ...]:
            before = getattr(self, "before", given)
            self.before = given
            return before if before[0].shape == given[0].shape else given

        def prepare(self, images: Any, gather: Any = None) -> Any:
            return super().prepare(*self.late((images, gather)))

        def step(
            self, images: Any, labels: Any, rates: Any, number: int, *, gather: Any = None, masks: Any = None
        ) -> Any:
            images, gather, labels = self.late((images, gather, labels))
            return super().step(images, labels, rates, number, gather=gather, masks=masks)

    yield replaced(framework, Trainer=Late), None


def fan_out_for_fan_in(right: Callable[..., Any], network: Any, values: dict[str, np.ndarray]) -> None:
    """What `mode="fan_out"` draws, or a law that takes the axes of another layout."""
    fans = {info.path: info.fan_in / info.fan_out for info in parameters(network.architecture) if info.role == "weight"}
    right(network, values | {path: values[path] * np.float32(fan**0.5) for path, fan in fans.items()})


def rows_and_columns_swapped(right: Callable[..., Any], network: Any, values: dict[str, np.ndarray]) -> None:
    """All axes of HWIO kernels reversed to OIWH, taken for OIHW."""
    right(network, {path: np.swapaxes(value, 2, 3) if value.ndim == 4 else value for path, value in values.items()})


def own_start(right: Callable[..., Any], network: Any, values: dict[str, np.ndarray]) -> None:
    """The framework draws the weights, from the same seed and law."""
    drawn = draw(network.architecture, 99)
    right(network, values | {path: drawn[path] for path, value in values.items() if value.ndim > 1})


FAN = wrapped(from_canonical=fan_out_for_fan_in)
SWAPPED = wrapped(from_canonical=rows_and_columns_swapped)

MUTANTS = (
    *(
        Mutant(name, architecture, plant, "data", "input", "data")
        for name, architecture, plant in (
            ("bgr for rgb", nets.COLOUR, patched("Input", bgr_for_rgb)),
            ("normalisation swapped", nets.COLOUR, patched("Input", normalisation_swapped)),
            ("constants for bytes", nets.COLOUR, patched("Input", constants_for_bytes)),
            ("aligned corners", nets.PLAIN, patched("Input", aligned_corners)),
            ("resized where both sides differ", nets.PLAIN, patched("Input", both_sides)),
            ("no antialias", nets.PLAIN, patched("Input", no_antialias)),
            ("no antialias of rows", nets.PLAIN, patched("Input", rows_plain)),
            ("blue first ignored", nets.COLOUR, patched("Input", red_first)),
            ("mean alone ignored", nets.PLAIN, patched("Input", both_or_nothing)),
            ("batch order", nets.PLAIN, batch_order),
            ("unscaled tint", nets.COLOUR, patched("Input", unscaled_tint)),
            ("crop without padding", nets.PLAIN, patched("Input", unpadded_crop)),
        )
    ),
    Mutant("initializer fan", nets.PLAIN, FAN, "structure", "conv", "structure"),
    Mutant("own start", nets.PLAIN, wrapped(from_canonical=own_start), "structure", "conv", "structure"),
    Mutant("kernel rows and columns", nets.PLAIN, SWAPPED, "structure", "conv", "structure"),
)
