"""Faults in the loss, and in what a backend hands back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mutants import networks as nets
from mutants.plants import fields, patched, wrapped
from mutants.record import Mutant

Arrays = dict[str, np.ndarray]


def softmax_twice(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(network: Any, output: Any, labels: Any, *smoothing: float) -> Any:
        powers = 2.718281828459045**output
        return right(network, powers / powers.sum(1, keepdims=True), labels, *smoothing)

    return wrong


def loss_summed(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda network, output, labels, *more: right(network, output, labels, *more) * len(labels)


def labels_from_one(right: Callable[..., Any], network: Any, given: Any, labels: np.ndarray, **mode: Any) -> Any:
    """1 to the number of classes instead of from 0; the last one is clipped, as MXNet does."""
    return right(network, given, np.minimum(labels + 1, network.architecture.classes - 1), **mode)


def loss_not_a_number(right: Callable[..., Any], *given: Any, **mode: Any) -> Any:
    return np.nan, right(*given, **mode)[1]


def set_entry(arrays: Arrays, path: str, value: float) -> Arrays:
    copy = arrays[path].copy()
    copy.flat[3] = value
    return arrays | {path: copy}


def outputs(fault: Callable[[Arrays], Arrays]) -> Any:
    """`forward` returns something else."""
    return wrapped(forward=lambda right, *given, **mode: fault(right(*given, **mode)))


def gradients(fault: Callable[[Arrays], Arrays]) -> Any:
    """`gradients` returns something else; the loss is right."""

    def wrong(right: Callable[..., Any], *given: Any, **mode: Any) -> tuple[float, Arrays]:
        loss, found = right(*given, **mode)
        return loss, fault(found)

    return wrapped(gradients=wrong)


def images_reversed(right: Callable[..., Any], network: Any, images: np.ndarray, **mode: Any) -> Any:
    return right(network, images[::-1].copy(), **mode)


def crash(right: Callable[..., Any], *given: Any, **mode: Any) -> Any:
    raise ArithmeticError("as a framework raises them")


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {path: value for path, value in arrays.items() if path != name}


def one_value_off(arrays: Arrays) -> Arrays:
    """By a hundred budgets of float64, and so below any of float32."""
    return set_entry(arrays, "relu", arrays["relu"].flat[3] + 1e-10 * np.abs(arrays["relu"]).max())


FORWARD = "forward eval"
LABELS = wrapped(gradients=labels_from_one, loss_pass=labels_from_one)
NAN_LOSS = wrapped(gradients=loss_not_a_number, loss_pass=loss_not_a_number)
UNSEEN = "a hundred times what float64 rounds is less than float32 does"

MUTANTS = (
    Mutant("softmax twice", nets.PLAIN, patched("total_loss", softmax_twice), "gradient", "dense", "gradient"),
    Mutant("loss summed", nets.PLAIN, patched("total_loss", loss_summed), "gradient", "dense", "gradient"),
    Mutant("labels from one", nets.PLAIN, LABELS, "gradient", "dense", "gradient"),
    Mutant("loss is NaN", nets.PLAIN, NAN_LOSS, "gradient", "dense", "gradient"),
    Mutant("auxiliary weight", nets.SIDE, fields("head", weight=0.4), "gradient", "head", "gradient"),
    Mutant("images in another order", nets.PLAIN, wrapped(forward=images_reversed), FORWARD, "conv", "forward"),
    Mutant("NaN in an output", nets.PLAIN, outputs(lambda o: set_entry(o, "conv", np.nan)), FORWARD, "conv", "forward"),
    Mutant(
        "NaN in a gradient",
        nets.PLAIN,
        gradients(lambda g: set_entry(g, "conv.bias", np.nan)),
        "gradient",
        "conv",
        "gradient",
    ),
    Mutant("output missing", nets.PLAIN, outputs(without("relu")), "structure", "relu", "structure"),
    Mutant("gradient missing", nets.PLAIN, gradients(without("conv.bias")), "gradient", "conv", "gradient"),
    Mutant(
        "gradient cut short",
        nets.PLAIN,
        gradients(lambda g: g | {"input": g["input"][:-1]}),
        "gradient",
        "input",
        "gradient",
    ),
    Mutant("one value off", nets.PLAIN, outputs(one_value_off), FORWARD, "relu", "forward", hides=UNSEEN),
    Mutant("a crash", nets.PLAIN, wrapped(gradients=crash), "gradient", "", "gradient"),
)
