"""The engine of the studies that train: named variations of a recipe, each on every backend, kept in a folder."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from triptych import data
from triptych.backend.contract import Backend
from triptych.backend.execution import Compilation
from triptych.data import Dataset
from triptych.spec import records
from triptych.spec.analysis import Totals, totals
from triptych.spec.layers import Architecture
from triptych.studies import Study, StudyResult, join
from triptych.training import keeping, loop, run_folder, sessions, watch
from triptych.training.loop import Listener
from triptych.training.recipe import Recipe, build_architecture, vary
from triptych.training.run_folder import Epoch
from triptych.utils import reading
from triptych.utils.errors import TriptychError
from triptych.utils.files import told, write_atomically
from triptych.utils.lock import Lock

SETTINGS = "study.json"

# Begins to show a run: its title, and the recipe that it trains.
Show: TypeAlias = Callable[[str, Recipe], AbstractContextManager[Listener]]
# What the trained models show: the outcomes of one backend that ended well, the backend, the device.
Look: TypeAlias = Callable[["Sequence[Outcome]", Backend, str], StudyResult]


@dataclass(frozen=True)
class PublishedFigures:
    """What a text prints of one run: which `text`, with which `settings`. `seconds` are of another machine, so only
    their ratios mean anything; the others are of every epoch, or of the last one alone."""

    text: str = ""
    settings: str = ""
    seconds: float | None = None
    loss: tuple[float, ...] = ()
    train: tuple[float, ...] = ()
    test: tuple[float, ...] = ()


@dataclass(frozen=True)
class Run:
    """One row: what it `changes` in the study's recipe (see `vary`), and what else with `--quick`, which leaves out a
    `long` one. Runs of one `series`
    go along an axis, from less to more, or compete (see `Trained`). `start` names an earlier run whose parameters this
    one begins with, on the same backend; `beside` the run that its time and accuracy are held against, if that is not
    the study's first."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    published: PublishedFigures = PublishedFigures()  # frozen, so one shared value is safe
    series: str = ""
    start: str = ""
    beside: str = ""
    long: bool = False

    @property
    def choice(self) -> str:
        """The name within the series, where the run is called `SERIES: CHOICE`."""
        return self.name.removeprefix(f"{self.series}: ")


@dataclass(frozen=True, kw_only=True)
class Trained(Study):
    """A study that trains variations of the recipe `base`; `quick` is what changes in all of them with `--quick`.
    `floor` is the test accuracy that the text asks for. The runs of a series `compete` for the best accuracy, or go
    along an axis. `look` looks at the trained models, and its result stands before that of the training. Studies that
    train the same `networks` share them. `depth`: the figure against cost is one against the number of layers with
    weights, too. `compilation` is the Execution's, with `--quick` it is `quick_compilation`."""

    base: Recipe
    runs: tuple[Run, ...]
    quick: Mapping[str, Any]
    floor: float | None = None
    compete: bool = False
    look: Look | None = None
    networks: str = ""
    depth: bool = False
    compilation: Compilation = "full"
    quick_compilation: Compilation = "full"

    @property
    def kept_as(self) -> str:
        """The name that its runs are kept under."""
        return self.networks or self.name

    def shortened(self) -> "Trained":
        """What `--quick` runs of it."""
        runs = tuple(run for run in self.runs if not run.long)
        return dataclasses.replace(self, runs=runs, compilation=self.quick_compilation)


@dataclass(frozen=True)
class PlannedRun:
    """A run with its recipe, on its data."""

    run: Run
    recipe: Recipe
    dataset: Dataset
    architecture: Architecture
    compilation: Compilation = "full"


@dataclass(frozen=True)
class Outcome:
    """What became of a run on a backend, kept in its run `folder`; `problem` says why it ended early, `doubt` why what
    it started from is nothing to start from."""

    planned: PlannedRun
    backend: str
    folder: Path
    epochs: tuple[Epoch, ...]
    problem: str = ""
    doubt: str = ""

    @property
    def name(self) -> str:
        return self.planned.run.name

    @property
    def mark(self) -> str:
        """What is wrong with it, in two words; empty for one that a finding can be drawn from."""
        return "ended early" if self.problem else "does not learn" if self.unlearned else ""

    def label(self, name: str = "") -> str:
        """What a figure calls it: by its own name, or this one."""
        return f"{name or self.name}, {self.backend}" + f" ({self.mark})" * bool(self.mark)

    @property
    def published(self) -> PublishedFigures:
        return self.planned.run.published

    @property
    def totals(self) -> Totals:
        return totals(self.planned.architecture)

    @property
    def seconds(self) -> float | None:
        """Of all training images, at the speed of the fastest epoch, which has no framework's compilation in it. None
        without an epoch."""
        speed = max((epoch.images_per_second for epoch in self.epochs), default=0.0)
        return len(self.planned.dataset.train) / speed if speed else None

    @property
    def unlearned(self) -> str:
        """Why it counts as a run that has learned nothing, by the test in `triptych.training.watch`; empty if it has
        learned, and for one that ended early."""
        if self.problem or not self.epochs or self.doubt:
            return self.doubt
        train, test = self.planned.dataset.train.labels, self.planned.dataset.test.labels
        return watch.unlearned(
            self.epochs, watch.chance_of(train, self.planned.architecture), watch.chance_of(test), len(test)
        )

    @property
    def learned(self) -> bool:
        """Whether a finding can be drawn from it."""
        return self.accuracy is not None and not self.unlearned

    @property
    def accuracy(self) -> float | None:
        """On the test set, after the last epoch. None if that was not reached."""
        return None if self.problem or not self.epochs else self.epochs[-1].test_accuracy


def recipe_of(study: Trained, run: Run, *, quick: bool = False) -> Recipe:
    """The recipe of one run; what it starts from is the other run's name, until it is trained."""
    changes = {"init_from": run.start} if run.start else {}
    changes |= {**run.changes, **study.quick, **run.quick} if quick else run.changes
    source = "" if study.networks else study.source  # of several studies it is that of none
    return vary(study.base, name=f"study {study.kept_as}: {run.name}", source=source, **changes)


def recipes_of(
    study: Trained, *, quick: bool = False, change: Callable[[Recipe], Recipe] = lambda recipe: recipe
) -> list[Recipe]:
    """Every run's recipe, after the `change` that the command line makes. Raises TriptychError if the change takes away
    what the study compares."""
    by_settings: dict[Recipe, str] = {}
    chosen = []
    for run in study.runs:
        chosen.append(change(recipe_of(study, run, quick=quick)))
        same = by_settings.setdefault(dataclasses.replace(chosen[-1], name=""), run.name)
        if same != run.name:
            raise TriptychError(
                f"with these options '{same}' and '{run.name}' are the same run; leave out the option that sets what "
                f"'{study.name}' compares"
            )
    return chosen


def check(study: Trained, recipes: Sequence[Recipe], backends: Sequence[Backend], folder: Path, device: str) -> None:
    """Raises TriptychError, before any data is looked for, for a folder that is no place for this study, a start that
    is not there, and a device or a precision that a backend has not."""
    settings = settings_text(study, recipes, device)
    if not holds(folder, settings):
        run_folder.check_free(folder)
    for run, recipe in zip(study.runs, recipes, strict=True):
        if not run.start:  # else it starts from another run, which is not trained yet
            sessions.check_start(recipe)
    for precision in dict.fromkeys(recipe.precision for recipe in recipes):
        sessions.check_execution(backends, device, precision)


def plan(study: Trained, recipes: Sequence[Recipe], *, data_dir: Path | None = None) -> list[PlannedRun]:
    """Every run with its recipe, one of `recipes`, and its data; nothing is trained yet. Raises TriptychError for what
    cannot be built."""
    wanted = {recipe.data: recipe.reading for recipe in recipes}.items()
    datasets = {name: data.load(name, data_dir=data_dir, reading=reading) for name, reading in wanted}
    return [
        PlannedRun(
            run, recipe, datasets[recipe.data], build_architecture(recipe, datasets[recipe.data]), study.compilation
        )
        for run, recipe in zip(study.runs, recipes, strict=True)
    ]


def open_folder(folder: Path, study: Trained, planned: Sequence[PlannedRun], device: str) -> Lock:
    """The lock of the study's folder, new or of the same study with the same settings. Raises TriptychError for any
    other, and for one that another process writes."""
    settings = settings_text(study, [each.recipe for each in planned], device)
    if holds(folder, settings):
        return run_folder.hold(folder)
    held = run_folder.claim(folder)
    try:
        with told(f"{SETTINGS} cannot be saved in {folder}", needed=len(settings), place=folder):
            write_atomically(folder / SETTINGS, settings)
    except BaseException:
        held.release()
        raise
    return held


def holds(folder: Path, settings: bytes) -> bool:
    """Whether this study was begun in the folder. Raises TriptychError if one with other settings was."""
    path = folder / SETTINGS
    if path.is_file() and not reading.holds(path, settings):
        raise TriptychError(f"--out {folder} holds a study with other settings; choose another, or remove it first")
    return path.is_file()


def settings_text(study: Trained, recipes: Sequence[Recipe], device: str) -> bytes:
    """What decides a study, as its folder keeps it."""
    by_run = {run.name: recipe for run, recipe in zip(study.runs, recipes, strict=True)}
    return json.dumps(records.encode({"study": study.kept_as, "device": device, "recipes": by_run}), indent=2).encode()


def train(
    planned: Sequence[PlannedRun], backends: Sequence[Backend], folder: Path, device: str, show: Show
) -> list[Outcome]:
    """Every run on every backend, in order. Finished ones are taken from the folder, a begun one goes on."""
    done: dict[tuple[str, str], Outcome] = {}
    for each in planned:
        for backend in backends:
            start = done[each.run.start, backend.name] if each.run.start else None
            place = folder / backend.name / slug(each.run.name)
            done[each.run.name, backend.name] = train_one(each, backend, place, device, show, start)
    return list(done.values())


def slug(name: str) -> str:
    """A run's name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def train_one(
    planned: PlannedRun, backend: Backend, folder: Path, device: str, show: Show, start: Outcome | None = None
) -> Outcome:
    """One run on one backend, from the end of `start` if it has one. A loss that is not finite ends the run and those
    that start from it, not the study."""
    recipe, title, doubt = planned.recipe, f"{planned.run.name}, {backend.name}", ""
    if start is not None:
        if start.problem:
            return Outcome(planned, backend.name, folder, (), f"'{start.name}', which it starts from, ended early")
        doubt = f"'{start.name}', which it starts from, does not learn" if start.unlearned else ""
        recipe = dataclasses.replace(recipe, init_from=str(start.folder))
    begun = folder if (folder / run_folder.RECIPE).exists() else None
    if begun is None:
        shutil.rmtree(folder, ignore_errors=True)  # killed before the recipe was written
    elif (checkpoint := run_folder.load(folder)) is not None and checkpoint.epoch == recipe.epochs:
        with show(f"{title}: finished before", recipe):
            return Outcome(planned, backend.name, folder, tuple(run_folder.read_epochs(folder)), doubt=doubt)
    network: Any = {"architecture": planned.architecture, "compilation": planned.compilation}
    session = sessions.start(backend, recipe, planned.dataset, device=device, resumed=begun, **network)
    keeping.keep_in(session, folder)
    problem = ""
    with show(title, recipe) as listener:
        try:
            loop.fit(session, listener)
        except loop.DivergedError as error:
            problem = str(error)
    return Outcome(planned, backend.name, folder, tuple(session.epochs), problem, doubt)


def look(study: Trained, outcomes: Sequence[Outcome], backends: Sequence[Backend], device: str) -> StudyResult:
    """What the study's look finds on every backend; nothing for a study that has none."""
    if study.look is None:
        return StudyResult((), (), ())
    done = [outcome for outcome in outcomes if outcome.learned]
    return join([study.look([o for o in done if o.backend == each.name], each, device) for each in backends])
