"""What the runs of a training study say together: tables, figures, and sentences made from the numbers."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

from triptych.backend.contract import Backend
from triptych.data.batches import Augmentation
from triptych.report import figures
from triptych.studies import NONE, Cell, StudyResult, Table, TableRow, contests, runner, shown
from triptych.studies.runner import Outcome, PlannedRun, Show, Trained
from triptych.training.recipe import start_name

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
    """Train what the folder does not have yet on every backend, look at it, and answer. Raises TriptychError for a
    folder of another study."""
    runner.open_folder(folder, study, planned, device)
    outcomes = runner.train(planned, backends, folder, device, show)
    looked = runner.look(study, outcomes, backends, device)
    return answer(study, outcomes, quick=quick, looked=looked)


def answer(study: Trained, outcomes: Sequence[Outcome], *, quick: bool, looked: StudyResult = NOTHING) -> StudyResult:
    """The whole result of a study, after what its look shows."""
    every_run = Table.of("Every run", [row(outcome, outcomes) for outcome in outcomes])
    tables = [every_run, by_epoch(outcomes), settings([outcome.planned for outcome in outcomes])]
    if study.compete:
        tables, drawn = [contests.table(outcomes), *tables], contests.drawn(outcomes)
    else:
        curves = figures.accuracy_curves({label(o): o.epochs for o in outcomes})
        points = figures.scatter(costs(outcomes), x="million MACs per image", y="test accuracy")
        drawn = [("Test accuracy after every epoch", curves), ("Accuracy against cost", points)]
    said = (*((QUICK,) if quick else ()), *looked.findings, *findings(study, outcomes))
    return StudyResult((*looked.tables, *tables), (*looked.figures, *drawn), said)


def label(outcome: Outcome) -> str:
    """What a figure calls a row."""
    return f"{outcome.name}, {outcome.backend}"


def costs(outcomes: Sequence[Outcome]) -> dict[str, tuple[float, float]]:
    """Million multiply-accumulates and accuracy of every run that ended well."""
    return {label(o): (o.totals.macs / 1e6, o.accuracy) for o in outcomes if o.accuracy is not None}


def ratio(value: float | None, base: float | None) -> float | None:
    """`value` over `base`; None where there is nothing to divide."""
    return None if value is None or not base else value / base


def row(outcome: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Cell]:
    """What a run on a backend costs, what it reaches, and what the text says of it; seconds are compared with the
    study's first run on the same backend."""
    size, published = outcome.totals, outcome.published
    first = next(other for other in outcomes if other.backend == outcome.backend)
    return {
        "run": outcome.name,
        "backend": outcome.backend,
        "parameters": size.parameters,
        "MACs": size.macs,
        "activations, MiB": size.training_bytes * outcome.planned.recipe.batch_size / 2**20,
        "s / epoch": shown(outcome.seconds),
        "times the first": shown(ratio(outcome.seconds, first.seconds)),
        "train accuracy": shown(None if outcome.accuracy is None else outcome.epochs[-1].train_accuracy),
        "test accuracy": shown(outcome.accuracy),
        "published: times the first": shown(ratio(published.seconds, first.published.seconds)),
        "published: test accuracy": shown(published.test[-1] if published.test else None),
    }


def by_epoch(outcomes: Sequence[Outcome]) -> Table:
    """A row per run, backend and epoch, with the published figures of the same epoch where there are some."""
    columns = ("run", "backend", "epoch", "loss", "train accuracy", "test accuracy")
    published = ("published: loss", "published: train", "published: test")
    rows: list[TableRow] = []
    for outcome in outcomes:
        known = (outcome.published.loss, outcome.published.train, outcome.published.test)
        for e in outcome.epochs:  # a single published figure is of the last one, and is not here
            figures_of = (shown(values[e.epoch - 1] if 1 < len(values) >= e.epoch else None) for values in known)
            measured = (e.epoch, e.train_loss, e.train_accuracy, e.test_accuracy)
            rows.append((outcome.name, outcome.backend, *measured, *figures_of))
    return Table("Every epoch", (*columns, *published), tuple(rows))


def settings(planned: Sequence[PlannedRun]) -> Table:
    """What every run trains, and how."""
    rows: list[dict[str, Cell]] = []
    for name, group in groupby(planned, key=lambda each: each.run.name):
        first = next(group)
        recipe, head = first.recipe, first.recipe.network.head
        rows.append(
            {
                "run": name,
                "network": f"{recipe.architecture}, head {head}" if head else recipe.architecture,
                "data": first.dataset.name,
                "input": "x".join(map(str, first.architecture.input)),
                "channels /": f"{recipe.network.width_ratio:g}",
                "batch": recipe.batch_size,
                "epochs": recipe.epochs,
                "optimiser": recipe.optimizer.name,
                "rate": recipe.learning_rate,
                "schedule": recipe.schedule.name,
                "start": recipe.init_from or start_name(recipe, first.architecture),
                "frozen": ", ".join(recipe.freeze) or NONE,
                "augmentation": augmented(recipe.augmentation) or NONE,
            }
        )
    return Table.of("Settings", rows)


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
