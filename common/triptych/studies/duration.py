"""How long a study will take, from a few steps of each of its runs, before the first one starts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from triptych.backend.contract import Backend
from triptych.data import batches
from triptych.studies.runner import PlannedRun, slug
from triptych.training import run_folder, sessions
from triptych.training.recipe import Recipe

STEPS = 2  # timed, after one that is not: it compiles


def tell(
    planned: Sequence[PlannedRun], backends: Sequence[Backend], folder: Path, device: str, say: Callable[[str], None]
) -> None:
    """Say how long what is not finished yet in the `folder` will take."""
    left = [(each, b) for each in planned for b in backends if epochs_left(each.recipe, place(folder, each, b))]
    if not left:
        return
    say(f"timing {STEPS} steps of each of {len(left)} runs ...")
    by_backend: dict[str, float] = {}
    for each, backend in left:
        epochs = epochs_left(each.recipe, place(folder, each, backend))
        seconds = epochs * seconds_per_epoch(each, backend, device)
        by_backend[backend.name] = by_backend.get(backend.name, 0.0) + seconds
    parts = ", ".join(f"{name} {spoken(seconds)}" for name, seconds in by_backend.items())
    several = f" ({parts})" if len(by_backend) > 1 else ""
    say(f"this study will take about {spoken(sum(by_backend.values()))}{several}; stopped, it goes on where it was")


def place(folder: Path, each: PlannedRun, backend: Backend) -> Path:
    """The run folder of a run on a backend."""
    return folder / backend.name / slug(each.run.name)


def epochs_left(recipe: Recipe, folder: Path) -> int:
    """Of a run that may be begun, or finished, in its folder."""
    checkpoint = run_folder.load(folder) if folder.exists() else None
    return recipe.epochs - (checkpoint.epoch if checkpoint is not None else 0)


def seconds_per_epoch(planned: PlannedRun, backend: Backend, device: str) -> float:
    """Of training and test, on the first batches; nothing is kept. A start that another run gives costs no time."""
    recipe, dataset = planned.recipe, planned.dataset
    session = sessions.start(
        backend, replace(recipe, init_from=""), dataset, device=device, architecture=planned.architecture
    )
    train, test = dataset.train, dataset.test
    plan = batches.plan(recipe.seed, 0, len(train), recipe.batch_size, recipe.augmentation)[: STEPS + 1]
    began = time.perf_counter()
    for number, (images, labels, gather) in enumerate(
        batches.feed(train.images, train.labels, plan, recipe.augmentation)
    ):
        rates = recipe.rates(number, session.steps_per_epoch)
        session.trainer.read([session.trainer.step(images, labels, rates, number, gather=gather)])
        began = time.perf_counter() if number == 0 else began
    per_step = (time.perf_counter() - began) / max(len(plan) - 1, 1)
    size = recipe.images_per_test
    session.trainer.predict(test.images[:size])
    began = time.perf_counter()
    session.trainer.predict(test.images[:size])
    return per_step * session.steps_per_epoch + (time.perf_counter() - began) * -(-len(test) // size)


def spoken(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
