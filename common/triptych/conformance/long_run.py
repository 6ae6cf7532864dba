"""The trajectory level of several backends: against the reference in float64, against each other in float32."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.conformance.case import make_case
from triptych.conformance.chaos import bug_or_chaos
from triptych.conformance.compare import Check, failures, worst
from triptych.conformance.conform import flag_failures
from triptych.conformance.trajectory import QUARTERS, follow, follow_reference, judge_trajectory, make_trajectory
from triptych.spec.layers import Architecture
from triptych.spec.records import encode
from triptych.utils.errors import TriptychError

MOST = 1e30  # of a ratio: a run that ends in no number is as far as can be


@dataclass(frozen=True)
class PairRun:
    """What `chaos.RunDistance` says of two backends' float32 runs: the largest `ratio` of their distance to that of
    runs of one backend, the first step beyond what rounding explains, and from which step nothing can be said."""

    left: str
    right: str
    verdict: Literal["chaos", "bug", "undecided"]
    ratio: float
    first_step: int | None
    saturated_at: int | None


@dataclass(frozen=True)
class LongRun:
    """`steps` steps of training: every backend's checks in float64, and every pair's float32 runs."""

    DERIVED: ClassVar = ("passed",)

    steps: int
    checks: dict[str, tuple[Check, ...]]
    pairs: tuple[PairRun, ...]

    @property
    def passed(self) -> bool:
        """Every check passed, and no two float32 runs diverge more than rounding explains."""
        checks = [check for of_backend in self.checks.values() for check in of_backend]
        judged = all(self.checks.values()) and bool(checks) and not failures(checks)
        return judged and all(pair.verdict == "chaos" for pair in self.pairs)


def run_long(
    architecture: Architecture, backends: Sequence[Backend], *, steps: int, seed: int = 0, device: str = "cpu"
) -> LongRun:
    """The trajectory of every backend. Nothing is run where a precision flag cannot be switched off: that is the one
    check of its backend. Raises TriptychError for too few steps."""
    check_steps(steps)
    with ExitStack() as stack:
        for backend in backends:
            stack.enter_context(backend.precise(device))
        checks = {backend.name: tuple(flag_failures(backend.precision_flags(device))) for backend in backends}
        if any(checks.values()):
            return LongRun(steps, {name: failed for name, failed in checks.items() if failed}, ())
        trajectory = make_trajectory(make_case(architecture, seed), steps)
        expected = follow_reference(trajectory)
        for backend in backends:
            network = backend.build(architecture, device=device, execution=exact("fp64", "full"))
            checks[backend.name] = tuple(judge_trajectory(expected, follow(backend, network, trajectory)))
        pairs = tuple(
            PairRun(d.left, d.right, d.verdict, min(MOST, d.ratio), d.first_step, d.saturated_at)
            for d in bug_or_chaos(backends, trajectory, device=device)
        )
        return LongRun(steps, checks, pairs)


def check_steps(steps: int) -> None:
    """Raises TriptychError for a number of steps in which the rates do not change three times."""
    if steps < len(QUARTERS):
        raise TriptychError(f"--trajectory {steps} must be at least {len(QUARTERS)} steps")


def as_dict(run: LongRun) -> dict[str, Any]:
    """The long run as `conform --json` has it."""
    return {
        "steps": run.steps,
        "passed": run.passed,
        "fp64": {name: encode(worst(checks)) for name, checks in run.checks.items()},
        "failures": {name: encode(failures(checks)) for name, checks in run.checks.items()},
        "fp32": [
            {
                "backends": [pair.left, pair.right],
                "verdict": pair.verdict,
                "ratio": pair.ratio,
                "first_step": pair.first_step,
                "undecided_from": pair.saturated_at,
            }
            for pair in run.pairs
        ],
    }
