"""What the layers of an ONNX file are called: by their arrays (`layer1.0.conv1.weight`), else by their node.

PyTorch's first exporter calls nodes by the modules around them, `/layer1/layer1.0/conv1/Conv`: a module in a Sequential
has the Sequential's name in its own. Its second calls them `node_relu_1`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from triptych.importers.onnx_file import OnnxNode

_ARRAYS = re.compile(r"(.+)\.(weight|bias|running_mean|running_var|gamma|beta|kernel)$")
_PLACES_OF_ARRAYS = {"BatchNormalization": (1, 2, 3, 4)}


class Names:
    """Names of nodes, every time the same; the builder makes them unique."""

    def __init__(self, nodes: Sequence[OnnxNode], constants: Collection[str]) -> None:
        self._constants = constants
        modules = {_modules(node.name)[0] for node in nodes}
        modules |= {module for node in nodes if (module := self._by_arrays(node))}
        self._around = {module[:place] for module in modules for place, letter in enumerate(module) if letter == "."}

    def of(self, node: OnnxNode) -> str:
        """The name of what the node becomes."""
        if module := self._by_arrays(node):
            return module
        module, own = _modules(node.name)
        if not module:
            return (own or node.outputs[0] or node.operator).removeprefix("node_").strip("/")
        number = own.removeprefix(node.operator)
        if module in self._around or (number and not number.startswith("_")):
            return f"{module}.{own.lower()}"
        return module + number

    def _by_arrays(self, node: OnnxNode) -> str:
        for place in _PLACES_OF_ARRAYS.get(node.operator, (1, 2)):
            name = node.inputs[place] if place < len(node.inputs) else ""
            if name in self._constants and (match := _ARRAYS.match(name)):
                return match[1]
        return ""


def _modules(name: str) -> tuple[str, str]:
    """`/layer1/layer1.0/conv1/Conv` is (`layer1.0.conv1`, `Conv`)."""
    if not name.startswith("/"):
        return "", name
    *parts, own = name.strip("/").split("/")
    path = before = ""
    for part in parts:
        if before and part.startswith(f"{before}."):
            path = path.removesuffix(before) + part
        else:
            path = f"{path}.{part}" if path else part
        before = part
    return path, own
