"""The page of every study in a browser, wide and narrow, light and dark: nothing wider than the page, nothing that
cannot be read, nothing that complains. Its runs are made up, so that no framework is needed; the tables, the figures
and the page are those of a real study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import VIEWS, Browser, needs_chromium
from triptych import studies
from triptych.studies import Counted, StudyResult, outcome
from triptych.studies.runner import Outcome, PlannedRun, Trained, plan, recipes_of
from triptych.training.run_folder import Epoch

BACKENDS = ("torch", "mxnet", "jax")
# How far to the right the accuracies of the first table end, and whether a page has it.
ACCURACIES = """Math.max(0, ...[...document.querySelectorAll("th")]
    .filter(one => one.textContent === "test accuracy").slice(0, 1)
    .map(one => one.getBoundingClientRect().right))"""


def made_up(planned: PlannedRun, backend: str, number: int) -> Outcome:
    """A run that has learned, some more and some less, and one that has not, and one that ended early."""
    best = 0.12 if number == 2 else 0.5 + 0.37 * ((7 * number) % 11) / 11
    epochs = [
        Epoch(n, n * 160, backend, 2 / n, best - 0.2 / n, 1 / n, best - 0.1 / n, 12.345, 512 / (number + 1))
        for n in range(1, planned.recipe.epochs + 1)
    ]
    problem = "the loss is nan in step 6 of epoch 1" if number == 4 else ""
    return Outcome(planned, backend, Path(), tuple(epochs), problem)


def result_of(study: studies.Study) -> StudyResult:
    """What a study answers, on every backend where it has few rows."""
    if isinstance(study, Counted):
        return study.run()
    assert isinstance(study, Trained)
    planned = plan(study, recipes_of(study, quick=True))
    backends = BACKENDS if len(planned) < 4 else BACKENDS[:1]  # curves take their time to be drawn
    outcomes = [made_up(each, backend, number) for number, each in enumerate(planned) for backend in backends]
    return outcome.answer(study, outcomes, quick=True)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("browser"))
    yield one
    one.close()


@needs_chromium
@pytest.mark.parametrize("name", studies.registry())
def test_a_study_s_page_fits_and_complains_of_nothing(name: str, browser: Browser, tmp_path: Path) -> None:
    study = studies.get_study(name)
    result = result_of(study)
    studies.write(study, result, studies.as_dict(name, True, result, f"triptych study {name} --quick"), tmp_path)
    wrong = {}
    for width, scheme in VIEWS:
        browser.open(tmp_path / "report.html", width, scheme)
        browser.picture(tmp_path / f"{width}-{scheme}.png", whole=True)
        if found := browser.problems():
            wrong[width, scheme] = found
        if browser.value(ACCURACIES) > width:
            wrong[width, scheme] = [*found, "the accuracies are out of sight"]
    assert wrong == {}
