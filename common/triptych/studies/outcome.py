"""What the runs of a training study say together: tables, figures, and sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

from triptych.backend.contract import Backend
from triptych.data.batches import Augmentation
from triptych.report import figures
from triptych.studies import NONE, StudyResult, Table, TableRow, contests, runner, shown
from triptych.studies.runner import Outcome, PlannedRun, Show, Trained
from triptych.training.recipe import Recipe, start_name

FLAT = 0.005  # accuracy; less than this is no rise
QUICK = (
    "--quick: small networks, small images, few epochs, and not the full data unless --data names it. It shows that "
    "the study runs; its accuracies are not to be held against the published ones."
)

NOTHING = StudyResult((), (), ())


def run(
    study: Trained,
    planned: Sequence[PlannedRun],
    backends: Sequence[Backend],
    folder: Path,
    device: str,
    show: Show,
    *,
    quick: bool,
) -> StudyResult:
    """Train what the folder does not have yet on every backend, look at it, and answer.

    Raises TriptychError for a folder of another study, and, before anything is trained, for a device or a precision
    that a backend has not.
    """
    runner.check(planned, backends, device)
    runner.open_folder(folder, study, planned, device)
    outcomes = runner.train(planned, backends, folder, device, show)
    looked = runner.look(study, outcomes, backends, device)
    return answer(study, outcomes, quick=quick, looked=looked)


def answer(study: Trained, outcomes: Sequence[Outcome], *, quick: bool, looked: StudyResult = NOTHING) -> StudyResult:
    """The whole result of a study, after what its look shows."""
    tables: tuple[Table, ...] = (compared(outcomes), by_epoch(outcomes), settings([o.planned for o in outcomes]))
    drawn: tuple[tuple[str, str], ...] = (
        ("Test accuracy after every epoch", figures.accuracy_curves({label(o): o.epochs for o in outcomes})),
        ("Accuracy against cost", figures.scatter(costs(outcomes), x="million MACs per image", y="test accuracy")),
    )
    if study.compete:
        tables, drawn = (contests.table(outcomes), *tables), contests.drawn(outcomes)
    said = (*((QUICK,) if quick else ()), *looked.findings, *findings(study, outcomes))
    return StudyResult((*looked.tables, *tables), (*looked.figures, *drawn), said)


def label(outcome: Outcome) -> str:
    """What a figure calls a row."""
    return f"{outcome.name}, {outcome.backend}"


def costs(outcomes: Sequence[Outcome]) -> dict[str, tuple[float, float]]:
    """Million multiply-accumulates and accuracy of every run that ended well."""
    return {label(o): (o.totals.macs / 1e6, o.accuracy) for o in outcomes if o.accuracy is not None}


def first_of(outcomes: Sequence[Outcome], backend: str) -> Outcome:
    """The study's first row on this backend, which its seconds are compared with."""
    return next(outcome for outcome in outcomes if outcome.backend == backend)


def ratio(value: float | None, base: float | None) -> float | None:
    """`value` over `base`; None where there is nothing to divide."""
    return None if value is None or not base else value / base


def compared(outcomes: Sequence[Outcome]) -> Table:
    """A row per run and backend: what it costs, what it reaches, and what the text says of it."""
    columns = (
        "run",
        "backend",
        "parameters",
        "MACs",
        "activations, MiB",
        "s / epoch",
        "times the first",
        "train accuracy",
        "test accuracy",
        "published: times the first",
        "published: test accuracy",
    )
    return Table("Every run", columns, tuple(row(outcome, outcomes) for outcome in outcomes))


def row(outcome: Outcome, outcomes: Sequence[Outcome]) -> TableRow:
    """One row of `compared`."""
    size, published = outcome.totals, outcome.published
    first = first_of(outcomes, outcome.backend)
    train = None if outcome.accuracy is None else outcome.epochs[-1].train_accuracy
    return (
        outcome.name,
        outcome.backend,
        size.parameters,
        size.macs,
        size.training_bytes * outcome.planned.recipe.batch_size / 2**20,
        shown(outcome.seconds),
        shown(ratio(outcome.seconds, first.seconds)),
        shown(train),
        shown(outcome.accuracy),
        shown(ratio(published.seconds, first.published.seconds)),
        shown(published.test[-1] if published.test else None),
    )


def by_epoch(outcomes: Sequence[Outcome]) -> Table:
    """A row per run, backend and epoch, with the published figures of the same epoch where there are some."""
    columns = ("run", "backend", "epoch", "loss", "train accuracy", "test accuracy")
    published = ("published: loss", "published: train", "published: test")
    rows = tuple(
        (o.name, o.backend, e.epoch, e.train_loss, e.train_accuracy, e.test_accuracy, *published_of(o, e.epoch))
        for o in outcomes
        for e in o.epochs
    )
    return Table("Every epoch", (*columns, *published), rows)


def published_of(outcome: Outcome, epoch: int) -> TableRow:
    """Published loss, train and test accuracy of one epoch; a single figure is of the last one, and is not here."""
    all_of = (outcome.published.loss, outcome.published.train, outcome.published.test)
    return tuple(shown(values[epoch - 1] if 1 < len(values) >= epoch else None) for values in all_of)


def settings(planned: Sequence[PlannedRun]) -> Table:
    """What every run trains, and how."""
    columns = ("run", "network", "data", "input", "channels /", "batch", "epochs", "optimiser", "rate", "schedule")
    rows = tuple(
        (
            name,
            network_of(each.recipe),
            each.dataset.name,
            "x".join(map(str, each.architecture.input)),
            f"{each.recipe.network.width_ratio:g}",
            each.recipe.batch_size,
            each.recipe.epochs,
            each.recipe.optimizer.name,
            each.recipe.learning_rate,
            each.recipe.schedule.name,
            each.recipe.init_from or start_name(each.recipe, each.architecture),
            ", ".join(each.recipe.freeze) or NONE,
            augmented(each.recipe.augmentation) or NONE,
        )
        for name, (each, *_) in ((n, list(g)) for n, g in groupby(planned, key=lambda p: p.run.name))
    )
    return Table("Settings", (*columns, "start", "frozen", "augmentation"), rows)


def network_of(recipe: Recipe) -> str:
    """Architecture and head, in words."""
    return f"{recipe.architecture}, head {recipe.network.head}" if recipe.network.head else recipe.architecture


def augmented(by: Augmentation) -> str:
    """What is done to the training images, in words."""
    crop = f"crops, padding {by.crop_padding}" if by.crop_padding else ""
    return ", ".join(filter(None, (crop, "flips" if by.flip else "", "colours" if by.colour else "")))


def findings(study: Trained, outcomes: Sequence[Outcome]) -> list[str]:
    """Sentences on every backend: who wins each series, or the best run, the accuracy asked for, and where an axis
    stops paying."""
    said = [f"{label(o)} stopped early: {o.problem}" for o in outcomes if o.problem]
    for backend in dict.fromkeys(outcome.backend for outcome in outcomes):
        done = [(o, o.accuracy) for o in outcomes if o.backend == backend and o.accuracy is not None]
        if not done:
            continue
        if study.compete:
            said += [f"{backend}, {verdict}" for verdict in contests.verdicts([outcome for outcome, _ in done])]
            continue
        best, reached = max(done, key=lambda pair: pair[1])
        what = "has the best test accuracy," if len(study.runs) > 1 else "reaches the test accuracy"
        said.append(f"{backend}: {best.name} {what} {reached:.3f}.")
        if study.floor is not None:
            said.append(f"{backend}: {smallest(done, study.floor)}")
        for series in dict.fromkeys(o.planned.run.series for o, _ in done if o.planned.run.series):
            said.append(f"{backend}, {series}: {pays([p for p in done if p[0].planned.run.series == series])}")
    return said


def smallest(done: Sequence[tuple[Outcome, float]], floor: float) -> str:
    """The network with the fewest parameters that does not fall under the floor."""
    enough = [(outcome, accuracy) for outcome, accuracy in done if accuracy >= floor]
    if not enough:
        return f"no run reaches {floor:g}."
    outcome, accuracy = min(enough, key=lambda pair: (pair[0].totals.parameters, -pair[1]))
    return (
        f"{outcome.name} is the smallest at or above {floor:g}: {outcome.totals.parameters:,} parameters, "
        f"test accuracy {accuracy:.3f}."
    )


def pays(series: Sequence[tuple[Outcome, float]]) -> str:
    """How far a step along the axis still gains accuracy."""
    for (before, low), (after, high) in pairwise(series):
        if high - low < FLAT:
            return f"stops paying at {before.name}: {after.name} gains {high - low:+.3f} (under {FLAT:g} is no gain)."
    return f"every step gains at least {FLAT:g}, up to {series[-1][0].name}."
