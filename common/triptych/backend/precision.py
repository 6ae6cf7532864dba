"""Precision flags: the switches by which a framework trades accuracy for speed without being asked again.

A backend lists its own in `precision_flags` and turns off in `precise` what a running process can turn off. What it
cannot (an environment variable that was read at the start) is a failure with a reason, never a silent pass.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = bool | int | str | None


@dataclass(frozen=True)
class Flag:
    """One switch with its value; `exact`: with it, float32 is computed as float32 and float64 as float64.

    `way_out` says what to do about one that is not exact and that `precise` does not change.
    """

    name: str
    value: Value
    exact: bool
    way_out: str = "set it back before the checks"

    @property
    def problem(self) -> str:
        """Why nothing can be judged with this value, and what to do; empty if it is exact."""
        value = "not set" if self.value is None else self.value
        return "" if self.exact else f"is {value}, which a running process cannot change; {self.way_out}"


def environment(name: str, exact: str, *, unset: bool = True) -> Flag:
    """An environment variable that a library reads when it starts; `unset`: it is exact without it, too."""
    value = os.environ.get(name, "").strip()
    good = value.upper() == exact if value else unset
    return Flag(name, value or None, good, f"{'unset it' if unset else f'set it to {exact}'} and start again")


def values(flags: Iterable[Flag]) -> dict[str, Value]:
    """The values by name, as reports have them."""
    return {flag.name: flag.value for flag in flags}
