"""One architecture, three frameworks, proof that they agree.

The verbs, each imported when it is used (a framework only when a backend is asked for):

    load(arch)                        a network as data: an Architecture
    build(arch, backend="torch")      the native network of a framework, with its start weights
    conform(arch)                     every level of conformance on every backend: a Verdict
    locate(left, right)               the first layer at which two networks diverge, and why
    emit(arch, backend="torch")       the same network as a source file of its own
    port(arch, folder)                source files with weights and proof of other frameworks: a Port
    convert(source, target)           weights in another framework's format, names and axes: a Conversion
    train(recipe, backend="torch")    train a recipe: a Session with the network and its epochs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "build", "conform", "convert", "emit", "load", "locate", "port", "train"]

if TYPE_CHECKING:
    from triptych.face import build, conform, convert, emit, load, locate, port, train


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """A verb, from `triptych.face`: `import triptych` itself imports nothing else."""
    if name not in __all__:
        raise AttributeError(f"module 'triptych' has no attribute '{name}'")
    from triptych import face

    return getattr(face, name)
