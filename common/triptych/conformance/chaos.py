"""Bug or chaos? Two long float32 runs diverge; is that more than rounding alone explains?

Training amplifies the smallest difference. How much it does so here is measured, not assumed: each backend runs again
from starts that differ by one unit in the last place of every parameter (upwards or downwards, drawn), and the distance
between two backends is held against the largest distance among runs of one, of whichever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.conformance.case import Case
from triptych.conformance.trajectory import LOSSES, Trajectory, follow
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.utils.randomness import generator
from triptych.weights.initializers import Parameters

Losses = NDArray[np.float64]

TWINS = 2  # runs of every backend from neighbouring starts
# A start that differs once is a smaller disturbance than arithmetic that differs in every step. Measured over 100 steps
# (docs/conformance.md): right pairs reach 3.2, knife's edges apart, a rate that is wrong by 1 % 324 at least.
FACTOR = 10.0
SATURATED = 0.1  # of the loss: beyond it, two runs are strangers and nothing can be said


@dataclass(frozen=True, eq=False)
class RunDistance:
    """Two backends' distance per step (of their losses), what rounding does to runs of one backend (`neighbours`), and
    the verdict."""

    left: str
    right: str
    distance: NDArray[np.float64]
    neighbours: NDArray[np.float64]
    saturated_at: int | None

    @property
    def ratio(self) -> float:
        """The largest distance in terms of the neighbours', over the steps that can be judged."""
        end = self.saturated_at
        return float(np.max(self.distance[:end] / self.neighbours[:end], initial=0.0))

    @property
    def verdict(self) -> Literal["chaos", "bug", "undecided"]:
        """ "chaos" (rounding explains it), "bug", or "undecided" where the runs were strangers from the start."""
        if self.saturated_at == 0:
            return "undecided"
        return "chaos" if self.ratio <= FACTOR else "bug"  # a loss that is no number is none that rounding explains

    @property
    def first_step(self) -> int | None:
        """The first step whose distance is more than rounding explains."""
        beyond = np.flatnonzero(self.distance[: self.saturated_at] > FACTOR * self.neighbours[: self.saturated_at])
        return int(beyond[0]) if len(beyond) else None


def neighbour(case: Case, twin: int) -> Parameters:
    """The case's parameters, each one unit in the last place of float32 up or down."""
    moved: Parameters = {}
    for path, value in case.parameters.items():
        up = generator(case.seed, "neighbour", path, twin).random(value.shape) < 0.5
        moved[path] = np.nextafter(value, np.where(up, np.inf, -np.inf).astype(np.float32), dtype=np.float32)
    return moved


def bug_or_chaos(backends: Sequence[Backend], trajectory: Trajectory, *, device: str = "cpu") -> list[RunDistance]:
    """Every pair of `backends` over the trajectory's steps, held against the neighbours of all of them. Two runs can
    stand on either side of a knife's edge (a maximum, a ReLU) with all their neighbours; the more backends there are,
    the likelier one's neighbours cross it. Where none does, a right pair is called "bug": the float64 trajectory
    decides then."""
    starts = [None, *(neighbour(trajectory.case, twin) for twin in range(TWINS))]

    def losses(backend: Backend, start: Parameters | None) -> Losses:
        network = backend.build(trajectory.case.architecture, device=device, execution=exact("fp32", "full"))
        return np.asarray(follow(backend, network, trajectory, start)[LOSSES], np.float64)

    runs = {backend.name: [losses(backend, start) for start in starts] for backend in backends}
    return [judge_pair(left, right, runs) for left, right in combinations(runs, 2)]


def judge_pair(left: str, right: str, runs: Mapping[str, Sequence[Losses]]) -> RunDistance:
    """Each backend's first run is the one that is compared; the others are its twins."""
    first, other = runs[left][0], runs[right][0]
    scale = np.maximum.accumulate(np.abs(first))
    floor = 4 * FLOAT32_UNIT * scale  # the roundings of the loss itself
    twins = [np.abs(base - twin) for base, *rest in runs.values() for twin in rest]
    neighbours = np.maximum(np.maximum.accumulate(np.max(twins, axis=0)), floor)
    strangers = np.flatnonzero(neighbours > SATURATED * scale)
    return RunDistance(left, right, np.abs(first - other), neighbours, int(strangers[0]) if len(strangers) else None)
