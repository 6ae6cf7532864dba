"""The accuracy level: are two backends' test accuracies equivalent, by two one-sided tests over several seeds?

A test that finds no difference proves nothing: with few seeds it finds none. TOST turns it round: the difference is
claimed to be at least the margin, and both claims (too low, too high) have to be refuted (Schuirmann 1987).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triptych.utils.errors import TriptychError

MARGIN = 0.01  # one percentage point
LEVEL = 0.05  # of each of the two tests
FEWEST_SEEDS = 5


@dataclass(frozen=True)
class Equivalence:
    """Mean difference right - left over the seeds, its 90 % confidence interval, and the larger of the two p values."""

    difference: float
    low: float
    high: float
    p: float
    margin: float = MARGIN

    @property
    def equivalent(self) -> bool:
        """Both tests refute: the interval lies within the margin."""
        return self.p < LEVEL


def equivalence(left: Sequence[float], right: Sequence[float]) -> Equivalence:
    """Paired TOST of two backends' accuracies, seed by seed: one seed gives both the same start and batches. Raises
    TriptychError for fewer than `FEWEST_SEEDS` seeds, or unequal numbers."""
    from scipy import stats

    if len(left) != len(right) or len(left) < FEWEST_SEEDS:
        raise TriptychError(
            f"{len(left)} and {len(right)} accuracies: an equivalence test needs {FEWEST_SEEDS} or more pairs"
        )
    differences = np.asarray(right, np.float64) - np.asarray(left, np.float64)
    mean, freedom = float(differences.mean()), len(differences) - 1
    error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    if error == 0:  # equal to the last image: nothing is left to chance
        return Equivalence(mean, mean, mean, 0.0 if abs(mean) < MARGIN else 1.0)
    reach = float(stats.t.ppf(1 - LEVEL, freedom)) * error
    p = max(stats.t.sf((MARGIN - mean) / error, freedom), stats.t.sf((MARGIN + mean) / error, freedom))
    return Equivalence(mean, mean - reach, mean + reach, float(p))
