"""What is wrong with an architecture, and where."""

from __future__ import annotations

from triptych.utils.errors import TriptychError


class SpecError(TriptychError):
    """The architecture contradicts itself; `path` is the layer at which it does."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"layer '{path}': {problem}")
        self.path = path
        self.problem = problem


class TooSmallError(SpecError):
    """The map that reaches this layer is smaller than its window."""
