"""The figures of a study that trains: how its runs learn, what they cost, what depth gives."""

from collections.abc import Callable, Sequence
from operator import attrgetter

from triptych.report import figures, panels
from triptych.spec.analysis import weight_layers
from triptych.studies.runner import Outcome, Trained

Figure = tuple[str, str]  # its caption, and its SVG


def drawings(study: Trained, outcomes: Sequence[Outcome]) -> list[Figure]:
    """The curves, or bars where there is one epoch; accuracy against cost; and against depth, where it is asked for."""
    drawn = [learning(outcomes), ("Accuracy against cost", cost(outcomes))]
    return [*drawn, ("Accuracy against depth", depth(outcomes))] if study.depth else drawn


def learning(outcomes: Sequence[Outcome], name: Callable[[Outcome], str] = attrgetter("name"), of: str = "") -> Figure:
    """Test accuracy of the runs, each by its `name`; `of` ends the caption. Bars where no run has two epochs; curves on
    one set of axes, or a panel a run where they are many."""
    begun = [outcome for outcome in outcomes if outcome.epochs]
    if max((len(outcome.epochs) for outcome in begun), default=0) < 2:
        accuracies = {o.label(name(o)): o.epochs[-1].test_accuracy for o in begun}
        return f"Test accuracy after one epoch{of}", figures.ranks(accuracies, x="test accuracy")
    caption = f"Test accuracy after every epoch{of}"
    if len(begun) > figures.FEW:
        return caption, in_panels(begun, name)
    texts = {name(o): o.published.test for o in begun if o.published.test}
    return caption, figures.accuracy_curves({o.label(name(o)): o.epochs for o in begun}, texts)


def in_panels(outcomes: Sequence[Outcome], name: Callable[[Outcome], str]) -> str:
    """A panel per run with a line per backend; its title says of which the run ended early or has not learned."""
    runs: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        runs.setdefault(name(outcome), []).append(outcome)
    last = max(len(outcome.epochs) for outcome in outcomes)
    curves, texts = {}, {}
    for key, group in runs.items():
        title = ", ".join([key, *(f"{o.backend} {o.mark}" for o in group if o.mark)])
        curves[title] = {o.backend: [(float(e.epoch), e.test_accuracy) for e in o.epochs] for o in group}
        texts[title] = figures.published(group[0].published.test, last)
    return panels.panels(curves, x="epoch", y="test accuracy", texts=texts)


def costs(outcomes: Sequence[Outcome]) -> dict[str, dict[str, tuple[float, float]]]:
    """Million multiply-accumulates and accuracy of every run that ended well, by its name and backend; one that has
    learned nothing has a name of its own that says so."""
    points: dict[str, dict[str, tuple[float, float]]] = {}
    for o in outcomes:
        if o.accuracy is not None:
            points.setdefault(o.label() if o.mark else o.name, {})[o.backend] = (o.totals.macs / 1e6, o.accuracy)
    return points


def cost(outcomes: Sequence[Outcome]) -> str:
    """Accuracy against multiply-accumulates."""
    return figures.scatter(costs(outcomes), x="million MACs per image", y="test accuracy")


def depth(outcomes: Sequence[Outcome]) -> str:
    """Accuracy against the number of layers with weights, of what has learned: a line per series and backend."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for o in outcomes:
        if o.accuracy is not None and o.learned:
            place = (float(weight_layers(o.planned.architecture)), o.accuracy)
            lines.setdefault(f"{o.planned.run.series}, {o.backend}", []).append(place)
    return figures.lines(lines, x="layers with weights", y="test accuracy", marked=True, whole=True)
