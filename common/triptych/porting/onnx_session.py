"""An ONNX file as onnxruntime runs it, in float32, asked as a framework's own network is (`backend.contract.Port`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triptych.backend.contract import PortRun
from triptych.importers.steps import ImportRefusedError
from triptych.utils.arrays import Array
from triptych.utils.errors import require_package

_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxSession:
    """`outputs`: names of values that are its outputs, in place of its own."""

    def __init__(self, path: Path, outputs: Sequence[str] = ()) -> None:
        require_package("onnxruntime", "onnx", "to run an ONNX file")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        source = _ending(path, outputs) if outputs else str(path)
        self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        (self.input,) = self.session.get_inputs()
        size = self.input.shape[0]
        self.batch = size if isinstance(size, int) and size > 0 else 0  # the images that it takes at once; 0: any

    def parameters(self, images: Array) -> Sequence[Any]:
        """None can be seen; images are laid out as the file has them."""
        return ()

    def load(self, values: Mapping[str, Array]) -> None:
        """None can be set."""

    def values(self) -> dict[str, Array]:
        """None can be seen."""
        return {}

    def imported(self, request: Any) -> Any:
        """The file is imported as it is."""
        raise ImportRefusedError("the weights of an ONNX file stay as they are")

    def restore(self) -> None:
        """It is as it was."""

    def call(self, images: Array) -> tuple[Array, ...]:
        """All outputs, of as many images at a time as the file takes."""
        step = self.batch or len(images)
        x = self._laid_out(images).astype(_TYPES[self.input.type])
        parts = [self._called(x[i : i + step], step) for i in range(0, len(images), step)]
        return tuple(np.concatenate(part)[: len(images)] for part in zip(*parts, strict=True))

    def _called(self, x: Array, step: int) -> list[Array]:
        whole = np.concatenate([x, np.repeat(x[:1], step - len(x), 0)])
        return list(self.session.run(None, {self.input.name: whole}))

    def _laid_out(self, images: Array) -> Array:
        sizes = tuple(self.input.shape[1:])
        if len(sizes) == 1:
            return images.reshape(len(images), -1)
        fits = all(not isinstance(size, int) or size == n for size, n in zip(sizes, images.shape[1:], strict=True))
        return images if fits else images.transpose(0, 2, 3, 1)

    def run(self, images: Array, *, train: bool, cotangents: Sequence[Array] = ()) -> PortRun:
        """Only outputs are seen."""
        return PortRun([], self.call(images))


def _ending(path: Path, outputs: Sequence[str]) -> bytes:
    """The file's content with other outputs, by the names of values or of nodes."""
    import onnx

    model = onnx.load(path)
    values = {node.name: node.output[0] for node in model.graph.node if node.name}
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=values.get(name, name)) for name in outputs)
    return bytes(model.SerializeToString())
