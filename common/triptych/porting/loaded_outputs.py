"""What a framework's network gives with arrays read back from a file, against the reference with the source's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.conformance.tolerance import budgets, perturbations
from triptych.reference.network import forward
from triptych.spec.layers import Architecture
from triptych.utils.arrays import largest
from triptych.utils.randomness import generator

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class OutputDifference:
    """The largest difference of an output of `backend`'s network, in float64, of that output's scale, and whether
    rounding explains it; None where nothing was compared, and `reason` says why."""

    backend: str = ""
    share: float | None = None
    explained: bool = True
    reason: str = ""

    @property
    def summary(self) -> str:
        """Half a line for people."""
        if self.share is None:
            return f"outputs not compared: {self.reason}"
        but = "" if self.explained else ", which is more than rounding"
        return f"{self.backend}'s outputs differ by {self.share:.1e} of their scale from the reference's{but}"


def compare(architecture: Architecture, parameters: Arrays, loaded: Arrays, backend: str) -> OutputDifference:
    """Run the network of `backend` with the canonical arrays `loaded`, and the reference with `parameters`, on one
    drawn image in float64. An empty `backend`: no framework here has networks of this kind."""
    if not backend:
        return OutputDifference(reason="no framework of triptych's reads this format")
    if backend not in registry.installed():
        return OutputDifference(backend, reason=f"{backend} is not installed")
    image = generator(0, "image").normal(size=(1, *architecture.input))
    expected = _reference(architecture, parameters, image)
    if not all(np.isfinite(value).all() for value in expected.values()):
        return OutputDifference(backend, reason="the reference's are not finite")
    found = _native(architecture, loaded, image, backend)
    wrong = {path: largest(found[path] - value) for path, value in expected.items()}
    scale = {path: largest(value) or 1.0 for path, value in expected.items()}
    share = float(np.max([wrong[path] / scale[path] for path in expected]))  # NaN stays NaN
    single = budgets(expected, [expected])["fp64"]
    explained = all(wrong[path] <= most for path, most in single.items())
    if not explained:  # what many layers amplify costs six more passes to know
        perturbed = (_reference(architecture, parameters, image, rounding=each) for each in perturbations(0))
        explained = all(wrong[path] <= most for path, most in budgets(expected, perturbed)["fp64"].items())
    return OutputDifference(backend, share, explained)


def _reference(architecture: Architecture, parameters: Arrays, image: NDArray[Any], **options: Any) -> Arrays:
    run = forward(architecture, parameters, image, **options)
    return {path: run.outputs[path] if number else run.logits for number, path in enumerate(run.heads)}


def _native(architecture: Architecture, parameters: Arrays, image: NDArray[Any], name: str) -> Arrays:
    backend = registry.load(name)
    network = backend.build(architecture, execution=exact("fp64"))
    backend.from_canonical(network, {path: np.asarray(array, np.float64) for path, array in parameters.items()})
    return backend.forward(network, image)
