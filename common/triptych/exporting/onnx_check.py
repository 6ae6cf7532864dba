"""What onnxruntime gives for a file, against the reference of the spec."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.conformance.tolerance import budgets, perturbations
from triptych.reference.network import forward
from triptych.spec.layers import Architecture
from triptych.utils.randomness import generator

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Comparison:
    """The largest difference of an output, as a share of what float32 can explain; None where nothing was compared,
    and `reason` says why."""

    ratio: float | None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether no output differs by more than it may; a comparison that was not made fails nothing."""
        return self.ratio is None or self.ratio <= 1


def compare(content: bytes, architecture: Architecture, parameters: Arrays, seed: int = 0) -> Comparison:
    """Run a file's content on one random image with onnxruntime, if it is installed, and with the reference."""
    if importlib.util.find_spec("onnxruntime") is None:
        return Comparison(None, "onnxruntime is not installed")
    if {array.dtype.name for array in parameters.values()} != {"float32"}:
        return Comparison(None, "onnxruntime computes in float32 only")
    import onnxruntime

    image = generator(seed, "onnx image").normal(size=(1, *architecture.input)).astype(np.float32)
    # The session goes before the reference comes: each holds the weights more than once.
    found = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"input": image})
    wide = {path: np.asarray(array, np.float64) for path, array in parameters.items()}  # once, not in every run
    expected = _outputs(architecture, wide, image)
    perturbed = (_outputs(architecture, wide, image, rounding=rounding) for rounding in perturbations(seed))
    allowed = budgets(expected, perturbed)["fp32"]
    ratios = []
    for output, (path, value) in zip(found, expected.items(), strict=True):
        right = output.shape == value.shape and bool(np.isfinite(output).all())
        ratios.append(float(np.abs(output - value).max()) / allowed[path] if right else np.inf)
    return Comparison(max(ratios))


def _outputs(architecture: Architecture, parameters: Arrays, image: NDArray[Any], **options: Any) -> Arrays:
    run = forward(architecture, parameters, image, **options)
    return {path: run.outputs[path] if number else run.logits for number, path in enumerate(run.heads)}
