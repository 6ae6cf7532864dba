"""Runs that compete: which wins in each series, and whether the test set is large enough to say so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from triptych.report import figures
from triptych.studies import NONE, Table, TableRow, drawing
from triptych.studies.runner import Outcome

TITLE = "Which wins"


@dataclass(frozen=True)
class Contest:
    """The runs of one series on one backend with their test accuracies, the best first; `images` tested them."""

    series: str
    backend: str
    ranked: tuple[tuple[str, float], ...]
    images: int

    @property
    def lead(self) -> float:
        """Of the first over the second."""
        return self.ranked[0][1] - self.ranked[1][1]

    @property
    def noise(self) -> float:
        """Two standard errors of the lead, had other images of the same kind been drawn for each of the two."""
        return 2 * math.sqrt(sum(share * (1 - share) for _, share in self.ranked[:2]) / self.images)

    @property
    def clear(self) -> bool:
        """Whether the lead is more than chance explains."""
        return self.lead > self.noise


def contests(outcomes: Sequence[Outcome]) -> list[Contest]:
    """A contest per series and backend of the runs that have learned, where there are two or more."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.planned.run.series and outcome.learned:
            groups.setdefault((outcome.planned.run.series, outcome.backend), []).append(outcome)
    held = []
    for (series, backend), group in groups.items():
        ranked = sorted(((o.planned.run.choice, o.accuracy or 0.0) for o in group), key=lambda pair: -pair[1])
        if len(ranked) > 1:
            held.append(Contest(series, backend, tuple(ranked), len(group[0].planned.dataset.test)))
    return held


def choices(outcomes: Sequence[Outcome]) -> list[str]:
    """What competes, in the study's order."""
    return list(dict.fromkeys(outcome.planned.run.choice for outcome in outcomes if outcome.planned.run.series))


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row per series and backend: every choice's accuracy, the best, its lead, whether that is clear."""
    columns = ("case", "backend", *choices(outcomes), "best", "lead over the next", "two standard errors", "clear")
    rows: list[TableRow] = []
    for c in contests(outcomes):
        accuracies = (dict(c.ranked).get(choice, NONE) for choice in choices(outcomes))
        best = " = ".join(name for name, share in c.ranked if share == c.ranked[0][1])  # a tie has no single best
        rows.append((c.series, c.backend, *accuracies, best, c.lead, c.noise, "yes" if c.clear else "no"))
    return Table(TITLE, columns, tuple(rows))


def drawn(outcomes: Sequence[Outcome]) -> list[drawing.Figure]:
    """For every backend a group of bars per series, a bar per choice (none for a run that ended early); then how the
    runs of each series learned."""
    held, all_drawn = contests(outcomes), []
    several = len({c.backend for c in held}) > 1
    for backend in dict.fromkeys(o.backend for o in outcomes if o.backend in {c.backend for c in held}):
        mine = {c.series: dict(c.ranked) for c in held if c.backend == backend}
        heights = {choice: [ranked.get(choice, 0.0) for ranked in mine.values()] for choice in choices(outcomes)}
        caption = TITLE + f", {backend}" * several
        all_drawn.append((caption, figures.bars(list(mine), heights, y="test accuracy")))
    for series in dict.fromkeys(c.series for c in held):
        runs = [o for o in outcomes if o.planned.run.series == series]
        all_drawn.append(drawing.learning(runs, lambda o: o.planned.run.choice, f": {series}"))
    return all_drawn


def verdicts(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence per series: who wins and by how much over the next, or that the test set cannot tell."""
    said = []
    for c in contests(outcomes):
        (best, reached), (after, lower) = c.ranked[:2]
        text = f"'{best}' and '{after}' are level at {reached:.3f}"
        if c.clear:
            text = f"'{best}' wins with {reached:.3f}, {c.lead:.3f} over '{after}'"
        elif c.lead:
            text = (
                f"'{best}' is first with {reached:.3f}, '{after}' has {lower:.3f}: no more apart than {c.images:,} "
                f"test images can tell ({c.noise:.3f})"
            )
        said.append(f"{c.series}: {text}; the last is '{c.ranked[-1][0]}' with {c.ranked[-1][1]:.3f}.")
    return said
