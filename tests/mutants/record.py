"""What the catalogue says of a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mutants.plants import Plant
from triptych.spec.layers import Architecture

Phase = Literal["structure", "data", "forward", "gradient", "update", "training"]


@dataclass(frozen=True)
class Mutant:
    """A fault that ports make. `level`: the first of conformance that must fail.

    `path` and `phase`: where `locate` must find it: a layer of the spec, "input", or nothing for a crash.
    `hides`: why float32 rounding may explain it, so that only float64 has to find it.
    `impossible`: by backend, why it cannot be planted there.
    """

    name: str
    architecture: Architecture
    plant: Plant
    level: str
    path: str
    phase: Phase
    hides: str = ""
    impossible: Mapping[str, str] = field(default_factory=dict)
