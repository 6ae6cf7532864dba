"""What the subjects' trainings reach: a speed counts only where the accuracy is one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from triptych.backend import registry
from triptych.bench import peers
from triptych.bench.tasks import Task, check
from triptych.data import Dataset, batches
from triptych.optim.optimizers import Rates
from triptych.training import loop, sessions
from triptych.training.recipe import build_architecture, draw

SAME_ACCURACY = 0.003  # of means over the seeds


@dataclass(frozen=True)
class Gate:
    """The trainings before which no ratio is a speed-up: `seeds` of them, of `epochs`, at this learning rate, the rest
    being the recipe's. 0 seeds: none."""

    seeds: int = 0
    epochs: int = 1
    learning_rate: float = 0.05

    def tasks(self, task: Task) -> list[Task]:
        """The subject's trainings."""
        recipe = replace(task.recipe, epochs=self.epochs, learning_rate=self.learning_rate)
        return [replace(task, recipe=replace(recipe, seed=seed)) for seed in range(self.seeds)]


NONE = Gate()


def trained(task: Task, dataset: Dataset) -> float:
    """The share of the test images that are right after the recipe's epochs."""
    return _of_peer(task, dataset) if task.peer else _of_backend(task, dataset)


def same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two subjects' accuracies over the seeds are one; without any, nothing is said against it."""
    return not one or not other or abs(float(np.mean(one) - np.mean(other))) <= SAME_ACCURACY


def _of_backend(task: Task, dataset: Dataset) -> float:
    backend = registry.load(task.backend)
    architecture = build_architecture(task.recipe, dataset)
    session = sessions.start(backend, task.recipe, dataset, device=task.device, architecture=architecture)
    return loop.fit(session, loop.Listener())[-1].test_accuracy


def _of_peer(task: Task, dataset: Dataset) -> float:
    """The textbook's loop on the same batches, from the same start."""
    recipe = task.recipe
    architecture = build_architecture(recipe, dataset)
    rates = Rates(recipe.learning_rate, recipe.optimizer.momentum)
    start = draw(recipe, architecture)
    textbook = peers.textbook(
        architecture, task.backend, start, recipe.batch_size, rates, task.device, prepared=task.tuned
    )
    train, test = dataset.train, dataset.test
    for epoch in range(recipe.epochs):
        plan = batches.plan(recipe.seed, epoch, len(train), recipe.batch_size, recipe.augmentation)
        order = np.concatenate([batch.index for batch in plan])
        check(textbook.train(textbook.load(train.images[order], train.labels[order])))
    return float(np.mean(textbook.predict(textbook.load(test.images, test.labels)) == test.labels))
