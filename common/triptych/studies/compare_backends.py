"""The main job: does an architecture conform on every backend, and does it then train alike on each?"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

from triptych import zoo
from triptych.backend.contract import Backend
from triptych.conformance import suite
from triptych.conformance.case import conformance_options
from triptych.conformance.compare import Check, worst
from triptych.conformance.equivalence import FEWEST_SEEDS, Equivalence, equivalence
from triptych.conformance.levels import EXACT, LOW
from triptych.conformance.suite import Verdict
from triptych.data import Dataset
from triptych.report import figures
from triptych.report.page import write_page
from triptych.spec import records
from triptych.spec.analysis import totals
from triptych.spec.layers import Architecture
from triptych.training import keeping, loop, run_folder, sessions
from triptych.training.loop import Listener
from triptych.training.recipe import Recipe, start_name
from triptych.training.run_folder import Epoch


@dataclass(frozen=True, eq=False)
class TrainedComparison:
    """The verdict at the trained input's size, and the training of every backend."""

    recipe: Recipe
    architecture: Architecture
    verdict: Verdict
    trained: dict[str, list[Epoch]]
    versions: dict[str, dict[str, str]]
    accuracies: dict[str, list[float]] = field(default_factory=dict)  # after the last epoch, by backend, a value a seed

    @property
    def equivalences(self) -> dict[tuple[str, str], Equivalence]:
        """Every pair of backends, if there are seeds enough to judge."""
        if any(len(values) < FEWEST_SEEDS for values in self.accuracies.values()):
            return {}
        pairs = combinations(self.accuracies, 2)
        return {(a, b): equivalence(self.accuracies[a], self.accuracies[b]) for a, b in pairs}

    @property
    def learned(self) -> bool:
        """Twice as good as chance, on every backend: networks that have learned nothing are always equivalent."""
        return all(mean(values) > 2 / self.architecture.classes for values in self.accuracies.values())

    @property
    def passed(self) -> bool:
        """Conformance passed, and where several seeds were trained, they learned, and equally well."""
        equivalences = self.equivalences.values()
        return self.verdict.passed and (not equivalences or self.learned) and all(e.equivalent for e in equivalences)

    @property
    def parameters(self) -> int:
        """Of the network that was trained."""
        return totals(self.architecture).parameters


@dataclass(frozen=True, eq=False)
class ComparisonPlan:
    """What is to be compared: a recipe on its data, trained with its seed and the next ones, `seeds` in all."""

    recipe: Recipe
    dataset: Dataset
    architecture: Architecture
    device: str
    seeds: int


def compare(plan: ComparisonPlan, backends: Sequence[Backend], folder: Path, listener: Listener) -> TrainedComparison:
    """Judge every backend at the input's size of the training, narrow, with the recipe's head; then train on each from
    the same start. The first seed's runs lie in `folder`, a run folder by backend; those of other seeds in folders
    below it."""
    recipe = plan.recipe
    small = judged_architecture(recipe, plan.architecture)
    precisions = (*EXACT, *(name for name in LOW if name == recipe.precision))  # what trains is what is judged
    verdict = suite.run(small, backends, precisions=precisions, seed=recipe.seed, device=plan.device)
    by_seed = []
    for seed in range(recipe.seed, recipe.seed + plan.seeds):
        below = folder if seed == recipe.seed else run_folder.make_folder(folder / f"seed-{seed}")
        varied, trained = dataclasses.replace(recipe, seed=seed), {}
        for backend in backends:
            session = sessions.start(backend, varied, plan.dataset, device=plan.device, architecture=plan.architecture)
            keeping.keep_in(session, below / backend.name)
            trained[backend.name] = loop.fit(session, listener)
        by_seed.append(trained)
    accuracies = {each.name: [trained[each.name][-1].test_accuracy for trained in by_seed] for each in backends}
    versions = {backend.name: backend.versions() for backend in backends}
    return TrainedComparison(recipe, plan.architecture, verdict, by_seed[0], versions, accuracies)


def judged_architecture(recipe: Recipe, trained: Architecture) -> Architecture:
    """What is judged for the network that is `trained`: itself where it is no network of the zoo; else narrow, as in
    conformance, but of the same input and classes, because a backend may take another road for small maps."""
    if recipe.spec is not None:
        return trained
    narrow = conformance_options(recipe.architecture, recipe.network.head)
    options = dataclasses.replace(narrow, input=trained.input, classes=trained.classes)
    return zoo.build_with(recipe.architecture, options)


def accuracy_table(comparison: TrainedComparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The accuracy level: a row per pair of backends; empty with too few seeds."""
    columns = ("backends", "accuracy", "", "difference", "90 % interval", "margin", "p", "result")
    rows = []
    for (left, right), tested in comparison.equivalences.items():
        means = (f"{mean(comparison.accuracies[name]):.4f}" for name in (left, right))
        figures = (f"{tested.difference:+.4f}", f"{tested.low:+.4f} to {tested.high:+.4f}", f"{tested.margin:g}")
        result = "equivalent" if tested.equivalent else "NOT SHOWN"
        result = result if comparison.learned else "NOT LEARNED"
        rows.append((f"{left} - {right}", *means, *figures, f"{tested.p:.4f}", result))
    return columns, rows


def table(comparison: TrainedComparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The first table of the report: its columns, and a row per backend."""
    columns: tuple[str, ...] = ("backend", "parameters", "conformance", "forward (budget)", "gradient (budget)")
    columns = (*columns, "images/s")
    rows = []
    for name, trained in comparison.trained.items():
        reports = [report for report in comparison.verdict.reports if report.name == name]
        checks = comparison.verdict.report(name, "fp32").checks
        result = "pass" if all(report.passed for report in reports) else "FAIL"
        worst_of = (largest([c for c in checks if c.level.startswith(level)]) for level in ("forward", "gradient"))
        speed = max(epoch.images_per_second for epoch in trained)
        rows.append((name, f"{comparison.parameters:,}", result, *worst_of, f"{speed:.0f}"))
    return columns, rows


def epoch_table(comparison: TrainedComparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The training: a row per epoch, with the loss and the test accuracy of every backend."""
    columns = ("epoch", *(f"{name}: loss / test" for name in comparison.trained))
    rows = []
    for number in range(comparison.recipe.epochs):
        done = (trained[number] if number < len(trained) else None for trained in comparison.trained.values())
        cells = (f"{epoch.train_loss:.4f} / {epoch.test_accuracy:.4f}" if epoch else "" for epoch in done)
        rows.append((str(number + 1), *cells))
    return columns, rows


def largest(checks: Sequence[Check]) -> str:
    """Difference and budget of the check that comes nearest to its budget."""
    check = worst(checks)
    if check is None:
        return "not run"
    return check.problem or f"{check.difference:.1e} ({check.budget:.1e})"


def as_dict(comparison: TrainedComparison) -> dict[str, Any]:
    """The comparison as JSON has it."""
    return {
        "arch": comparison.recipe.architecture,
        "recipe": records.encode(comparison.recipe),
        "parameters": comparison.parameters,
        "conformance": suite.as_dict(comparison.verdict),
        "trained": {name: [records.encode(epoch) for epoch in epochs] for name, epochs in comparison.trained.items()},
        "versions": comparison.versions,
        "accuracies": comparison.accuracies,
        "equivalence": [
            {"backends": list(pair), "equivalent": tested.equivalent, **dataclasses.asdict(tested)}
            for pair, tested in comparison.equivalences.items()
        ],
    }


def write_report(comparison: TrainedComparison, path: Path, command: str) -> None:
    """`report.html`: the table, the curves and every level of conformance, readable with no network."""
    columns, rows = table(comparison)
    recipe = comparison.recipe
    drawn = [("Loss of every training step", figures.loss_curves(comparison.trained))]
    drawn.append(("Test accuracy after every epoch", figures.accuracy_curves(comparison.trained)))
    if len(comparison.trained) > 1:
        drawn.append(("How far the losses are apart", figures.loss_differences(comparison.trained)))
    write_page(
        path,
        "compare.html",
        title=f"{recipe.architecture} on {', '.join(comparison.trained)}",
        command=command,
        comparison=comparison,
        recipe=recipe,
        start=start_name(recipe, comparison.architecture),
        columns=columns,
        rows=rows,
        epochs=epoch_table(comparison),
        seeds=max(map(len, comparison.accuracies.values()), default=1),
        accuracy=accuracy_table(comparison),
        figures=drawn,
        levels=comparison.verdict.levels,
        verdict=suite.as_dict(comparison.verdict),
        versions=comparison.versions,
    )
