"""What the runs of a training study say together: tables, figures, and sentences made from the numbers."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

from triptych.backend.contract import Backend
from triptych.data.batches import Augmentation
from triptych.studies import NONE, Cell, StudyResult, Table, TableRow, contests, drawing, runner, shown
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
    """Train what the study's open folder does not have yet on every backend, look at it, and answer."""
    outcomes = runner.train(planned, backends, folder, device, show)
    looked = runner.look(study, outcomes, backends, device)
    return answer(study, outcomes, quick=quick, looked=looked)


def answer(study: Trained, outcomes: Sequence[Outcome], *, quick: bool, looked: StudyResult = NOTHING) -> StudyResult:
    """The whole result of a study, after what its look shows."""
    every_run = Table.of("Every run", [row(outcome, outcomes) for outcome in outcomes])
    tables = [every_run, by_epoch(outcomes), published(outcomes), settings([outcome.planned for outcome in outcomes])]
    if study.compete:
        tables, drawn = [contests.table(outcomes), *tables], contests.drawn(outcomes)
    else:
        drawn = drawing.drawings(study, outcomes)
    said = (*((QUICK,) if quick else ()), *looked.findings, *findings(study, outcomes))
    written = tuple(table.without_empty() for table in (*looked.tables, *tables) if table.rows or table is tables[0])
    lost = tuple(o.label() for o in outcomes if o.problem)
    unlearned = tuple(o.label() for o in outcomes if o.unlearned)
    return StudyResult(written, (*looked.figures, *drawn), said, lost, unlearned)


def ratio(value: float | None, base: float | None) -> float | None:
    """`value` over `base`; None where there is nothing to divide."""
    return None if value is None or not base else value / base


def beside(outcome: Outcome, outcomes: Sequence[Outcome]) -> Outcome | None:
    """What a run's time and accuracy are held against: the run that it names, or the study's first, on the same
    backend. None if that was trained on other data or in other batches: its seconds would say nothing."""
    mine = [other for other in outcomes if other.backend == outcome.backend]
    name = outcome.planned.run.beside
    base = next((other for other in mine if other.name == name), mine[0])
    ours, theirs = outcome.planned.recipe, base.planned.recipe
    return base if (ours.data, ours.batch_size) == (theirs.data, theirs.batch_size) else None


def row(outcome: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Cell]:
    """What a run on a backend reaches, what it costs, and what the text says of it. Ratios, the time saved and the drop
    in accuracy are against the run beside it."""
    size, text, accuracy = outcome.totals, outcome.published, outcome.accuracy
    base = beside(outcome, outcomes)
    named = base is not None and base is not outcome
    times = ratio(outcome.seconds, base.seconds) if base is not None else None
    text_times = ratio(text.seconds, base.published.seconds) if base is not None else None
    drop = None
    if named and base is not None and base.learned and outcome.learned and accuracy is not None:
        drop = (base.accuracy or 0.0) - accuracy
    return {
        "run": outcome.name,
        "backend": outcome.backend,
        "test accuracy": shown(accuracy),
        "learned": "LOST" if outcome.problem else "NO" if outcome.unlearned else "yes",
        "train accuracy": shown(None if accuracy is None else outcome.epochs[-1].train_accuracy),
        "published: test accuracy": shown(text.test[-1] if text.test else None),
        "s / epoch": shown(outcome.seconds),
        "against": base.name if named and base is not None else NONE,
        "times as long": shown(times),
        "time saved": shown(1 - times if named and times is not None else None),
        "accuracy drop": shown(drop),
        "published: times as long": shown(text_times),
        "parameters": size.parameters,
        "MACs": size.macs,
        "activations, MiB": size.training_bytes * outcome.planned.recipe.batch_size / 2**20,
        "first step, s": shown(next((e.first_step for e in outcome.epochs if e.first_step), None)),
    }


def by_epoch(outcomes: Sequence[Outcome]) -> Table:
    """A row per run, backend and epoch, with the published figures of the same epoch where there are some."""
    columns = ("run", "backend", "epoch", "loss", "train accuracy", "test accuracy")
    texts = ("published: loss", "published: train", "published: test")
    rows: list[TableRow] = []
    for outcome in outcomes:
        known = (outcome.published.loss, outcome.published.train, outcome.published.test)
        for e in outcome.epochs:  # a single published figure is of the last one, and is not here
            figures_of = (shown(values[e.epoch - 1] if 1 < len(values) >= e.epoch else None) for values in known)
            measured = (e.epoch, e.train_loss, e.train_accuracy, e.test_accuracy)
            rows.append((outcome.name, outcome.backend, *measured, *figures_of))
    return Table("Every epoch", (*columns, *texts), tuple(rows))


def published(outcomes: Sequence[Outcome]) -> Table:
    """What the texts print, each with the text and the settings that it belongs to; a row per run."""
    columns = ("run", "text", "its settings", "s / epoch", "loss", "train accuracy", "test accuracy")
    rows: dict[str, TableRow] = {}
    for outcome in outcomes:
        text = outcome.published
        last = (shown(values[-1] if values else None) for values in (text.loss, text.train, text.test))
        if text.text:
            rows[outcome.name] = (outcome.name, text.text, text.settings, shown(text.seconds), *last)
    return Table("Published", columns, tuple(rows.values()))


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
                "dropout": NONE if recipe.dropout is None else f"{recipe.dropout:g}",
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
    """Sentences on every backend: which rows were lost or have learned nothing; then, of the others, who wins each
    series, or the best run, the accuracy asked for, and where an axis stops paying."""
    said = [f"LOST: {o.name}, {o.backend} stopped early: {o.problem}" for o in outcomes if o.problem]
    said += [
        f"NOT LEARNED: {o.name}, {o.backend}: {o.unlearned}; nothing is concluded from it."
        for o in outcomes
        if o.unlearned
    ]
    for backend in dict.fromkeys(outcome.backend for outcome in outcomes):
        mine = [o for o in outcomes if o.backend == backend]
        done = [(o, o.accuracy) for o in mine if o.learned and o.accuracy is not None]
        if not done:
            continue
        if study.compete:
            said += [f"{backend}, {verdict}" for verdict in contests.verdicts([outcome for outcome, _ in done])]
            continue
        said.append(f"{backend}: {best_of(done, several=len(study.runs) > 1)}")
        if study.floor is not None:
            said.append(f"{backend}: {smallest(done, study.floor)}")
        for series in dict.fromkeys(o.planned.run.series for o, _ in done if o.planned.run.series):
            said.append(f"{backend}, {series}: {pays([o for o in mine if o.planned.run.series == series])}")
    return said


def best_of(done: Sequence[tuple[Outcome, float]], *, several: bool) -> str:
    """The run with the best test accuracy, or all that share it."""
    reached = max(accuracy for _, accuracy in done)
    best = [outcome.name for outcome, accuracy in done if accuracy == reached]
    if not several:
        return f"{best[0]} reaches the test accuracy {reached:.3f}."
    if len(best) > 1:
        return f"{' and '.join(best)} are level at the best test accuracy, {reached:.3f}."
    return f"{best[0]} has the best test accuracy, {reached:.3f}."


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


def pays(series: Sequence[Outcome]) -> str:
    """How far a step along the axis still gains accuracy; nothing is said beyond a run that has learned nothing."""
    for before, after in pairwise(series):
        if not (before.learned and after.learned):
            silent = after if before.learned else before
            why = "ended early" if silent.problem else "has not learned"
            return f"nothing can be said from {silent.name} on, which {why}."
        gain = (after.accuracy or 0.0) - (before.accuracy or 0.0)
        if gain < FLAT:
            return f"stops paying at {before.name}: {after.name} gains {gain:+.3f} (under {FLAT:g} is no gain)."
    return f"every step gains at least {FLAT:g}, up to {series[-1].name}."
