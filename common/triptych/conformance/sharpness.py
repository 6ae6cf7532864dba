"""How much a report's checks can tell: a budget as large as a tensor's scale lets anything pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from triptych.conformance.compare import Check
from triptych.conformance.conform import Report
from triptych.conformance.low_precision import LEVEL
from triptych.conformance.steady import SHARP, judged_again

# By level, that at which the same array may be judged sharply.
SECOND = {"forward train": "forward eval", "gradient": "gradient", "update": "gradient", LEVEL: LEVEL}
AGAIN = ("gradient", LEVEL)  # where names say that an array is judged again


@dataclass(frozen=True)
class Sharpness:
    """Of one level: how many arrays were compared, the largest budget over its array's scale, how many have one of
    `SHARP` or more, and which of these are judged sharply nowhere."""

    level: str
    arrays: int
    largest: float
    blunt: int
    left: tuple[str, ...]


def sharpness(report: Report) -> tuple[Sharpness, ...]:
    """Of every level where rounding may explain a difference, in the report's order."""
    sharp = {(check.level, check.tensor) for check in report.checks if not is_blunt(check)}
    names = dict.fromkeys(check.level for check in report.checks if check.budget)
    return tuple(_of_level(level, [c for c in report.at(level) if c.scale], sharp) for level in names)


def is_blunt(check: Check) -> bool:
    """Whether a difference as large as `SHARP` of the scale would pass."""
    return check.budget >= SHARP * check.scale


def _of_level(level: str, checks: Sequence[Check], sharp: set[tuple[str, str]]) -> Sharpness:
    told = {judged_again(tensor) if SECOND.get(level) in AGAIN else tensor for tensor in _at(sharp, level)}
    blunt = [check.tensor for check in checks if is_blunt(check) and not judged_again(check.tensor)]
    left = [tensor for tensor in blunt if tensor.partition(" ")[0] not in told]
    largest = max((check.budget / check.scale for check in checks), default=0.0)
    return Sharpness(level, len(checks), largest, len(blunt), tuple(left))


def _at(sharp: set[tuple[str, str]], level: str) -> Iterator[str]:
    return (tensor for name, tensor in sharp if name == SECOND.get(level))
