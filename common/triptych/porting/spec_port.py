"""A network that is a spec, in the place of somebody's own that runs: executed by the reference."""

from collections.abc import Mapping, Sequence

import numpy as np

from triptych.backend.contract import Captured, PortParameter, PortRun
from triptych.porting.align import role_of
from triptych.reference import network as reference
from triptych.spec import analysis
from triptych.spec.kinds import composite_of
from triptych.spec.layers import Architecture, Dropout, Layer, Primitive, Shape, outputs, walk
from triptych.utils.arrays import Array


class SpecPort:
    """See `triptych.backend.contract.Port`; in float64, dropout left out."""

    pure = True
    layout = "NCHW"

    def __init__(self, architecture: Architecture, count: int) -> None:
        self.architecture = architecture
        self.shapes: Sequence[Shape] = [()] * len(outputs(architecture))
        self.count = count
        self.loaded: dict[str, Array] = {}

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """In the order of execution."""
        infos = analysis.parameters(self.architecture)
        roles = {info.path: "slope" if info.role == "slope" else info.path.rpartition(".")[2] for info in infos}
        return [PortParameter(info.path, info.shape, roles[info.path]) for info in infos]

    def choose(self, places: Sequence[int]) -> None:
        """It has no others than the compared ones."""

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these paths."""
        self.loaded |= {path: np.asarray(value, np.float64) for path, value in values.items()}

    def values(self) -> dict[str, Array]:
        """None: a spec has no weights of its own."""
        return {}

    def restore(self) -> None:
        """It has nothing that was changed."""

    def call(self, images: Array) -> tuple[Array, ...]:
        """The outputs in evaluation."""
        return self.run(images, train=False).outputs

    def raised_in(self, error: BaseException) -> str:
        """Nothing: the reference says the layer by itself."""
        return ""

    def run(self, images: Array, *, train: bool, cotangents: Sequence[Array] = ()) -> PortRun:
        """One pass; with `cotangents`, the gradient of every output that is compared, backward too."""
        trace = reference.Trace()
        ran = reference.forward(
            self.architecture, self.loaded, images, train=train, masks=self._kept(len(images)), trace=trace
        )
        if cotangents:
            missing = [np.zeros_like(ran.outputs[path]) for path in ran.heads[len(cotangents) :]]
            reference.backward(ran, tuple(len(images) * dy for dy in (*cotangents, *missing)))  # it takes the mean
        captured = [
            Captured(role_of(layer), ran.outputs[path], trace.arriving.get(path))
            for path, layer in walk(self.architecture.layers)
            if path in trace.inputs and _computes(layer)
        ]
        made = tuple(ran.outputs[path] for path in ran.heads[: self.count])
        gradients = {path: value for path, value in ran.gradients.items() if path != "input"}
        return PortRun(captured, made, gradients, ran.gradients.get("input"), dict(ran.statistics))

    def _kept(self, images: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
        infos = analysis.primitives(self.architecture)
        return {info.path: np.ones((images, *info.output), bool) for info in infos if isinstance(info.layer, Dropout)}


def _computes(layer: Layer) -> bool:
    return isinstance(layer, Primitive) or composite_of(layer).merges(layer)
