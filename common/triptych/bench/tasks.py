"""What is timed of one subject: a backend's trainer, or the loop of its framework's textbook."""

import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from triptych.backend import registry
from triptych.backend.contract import Images, Labels
from triptych.backend.execution import Execution
from triptych.bench import peers
from triptych.data import Dataset, Split, storage
from triptych.data.batches import Augmentation, Batch, feed
from triptych.optim.optimizers import Rates
from triptych.spec.layers import Architecture
from triptych.training import loop, sessions
from triptych.training.recipe import Recipe, build_architecture, draw
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator

WARM_UP = 2  # steps that are not timed: compiling, choosing algorithms, asking for memory
KINDS = ("preparation", "training", "epoch", "inference")
PRODUCTS = {"cpu": (1024, 2048)}  # sizes of the matrix products, by kind of device
LARGE_PRODUCTS = (4096, 8192)


@dataclass(frozen=True)
class Task:
    """One subject. `peer`: the textbook's loop in place of the backend's trainer; `tuned`: it gets the process's
    settings (threads, allocator) that the backends get, not those of a user's script. `steps`: of one turn. `images`:
    as many in a mapped file, in place of the data set's own for training (0: those)."""

    recipe: Recipe
    backend: str
    device: str = "cpu"
    steps: int = 5
    peer: bool = False
    tuned: bool = False
    images: int = 0

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.backend} textbook" if self.peer else self.backend


class Ours:
    """A backend's trainer, used as `train` uses it. The first step is done when it is made; `first` has its loss."""

    kinds: ClassVar = (*KINDS, "fed")

    def __init__(self, task: Task, dataset: Dataset) -> None:
        recipe = task.recipe
        self.task = task
        dataset = replace(dataset, train=repeated(dataset.train, task.images)) if task.images else dataset
        self.images, self.labels = batch_of(dataset, recipe.batch_size)
        self.rates = Rates(recipe.learning_rate, recipe.optimizer.momentum)
        architecture = build_architecture(recipe, dataset)
        backend = registry.load(task.backend)
        dataset = replace(dataset, test=Split(dataset.test.images[:1], dataset.test.labels[:1]))
        self.session = sessions.start(backend, recipe, dataset, device=task.device, architecture=architecture)
        self.count = 0
        self.first = self._steps(1)
        self._steps(WARM_UP - 1)
        self.session.trainer.predict(self.images)

    def _steps(self, count: int) -> float:
        """The loss of the first of so many steps. Raises TriptychError if a loss is not finite."""
        trainer, numbers = self.session.trainer, range(self.count, self.count + count)
        results = trainer.read([trainer.step(self.images, self.labels, self.rates, number) for number in numbers])
        self.count += count
        return check(results[:, 0].tolist())

    def preparation(self) -> int:
        """Stored images to the network's input, and back to the host's memory."""
        for _ in range(self.task.steps):
            self.session.trainer.prepare(self.images)
        return self.task.steps * len(self.images)

    def training(self) -> int:
        """Steps from stored images in memory to the updated weights."""
        self._steps(self.task.steps)
        return self.task.steps * len(self.images)

    def epoch(self) -> int:
        """An epoch of the training loop over the whole set; its test is of one image."""
        self.session.part = sessions.EpochSoFar()
        loop.train_epoch(self.session, 0, loop.Listener(), lambda: 0, stop_stuck=False)
        return len(self.session.dataset.train)

    def fed(self) -> int:
        """Steps on images from all over the set, read while the step before is made."""
        train, size = self.session.dataset.train, self.task.recipe.batch_size
        order = generator(self.count, "bench").integers(0, len(train), (self.task.steps, size))
        zeros = np.zeros(size, np.int64)
        parts = [Batch(index, zeros, zeros, zeros.astype(bool)) for index in order]
        trainer, results = self.session.trainer, []
        for images, labels, _ in storage.ahead(feed(train.images, train.labels, parts, Augmentation())):
            results.append(trainer.step(images, labels, self.rates, self.count))
            self.count += 1
        check(trainer.read(results)[:, 0].tolist())
        return self.task.steps * size

    def inference(self) -> int:
        """Predictions of batches."""
        for _ in range(self.task.steps):
            self.session.trainer.predict(self.images)  # returns an array in memory, so it has waited
        return self.task.steps * len(self.images)

    def facts(self) -> dict[str, Any]:
        """What it ran on, and the most that it held on the device."""
        backend, device = self.session.backend, self.task.device
        found = next((known for known in backend.devices() if known.name == device), None)
        described = f"{device}: {found.reason}" if found is not None and found.reason else device
        return {"versions": backend.versions(), "device": described, "peak_device_memory": backend.peak_memory(device)}

    def product(self) -> float:
        """FLOP/s of the fastest of a few matrix products in the recipe's precision."""
        made, kind = registry.load_benchmark(self.task.backend), self.task.device.partition(":")[0]
        best = 0.0
        for size in PRODUCTS.get(kind, LARGE_PRODUCTS):
            run = made.matrix_product(size, Execution(self.task.recipe.precision), self.task.device)
            for _ in range(3):
                began = time.perf_counter()
                run()
                best = max(best, 2 * size**3 / (time.perf_counter() - began))
        return best


class Peer:
    """The textbook's loop on the network in the framework's own idiom, from the same start."""

    kinds: ClassVar = KINDS[:3]

    def __init__(self, task: Task, dataset: Dataset) -> None:
        recipe = task.recipe
        self.task, self.dataset = task, dataset
        self.images, self.labels = batch_of(dataset, recipe.batch_size)
        self.architecture: Architecture = build_architecture(recipe, dataset)
        self.loop = peers.textbook(
            self.architecture,
            task.backend,
            draw(recipe, self.architecture),
            recipe.batch_size,
            Rates(recipe.learning_rate, recipe.optimizer.momentum),
            task.device,
            prepared=task.tuned,
        )
        self.ready = [*self.loop.load(self.images, self.labels)]
        self.first = check(self.loop.train(self.ready))
        check(self.loop.train(self.ready * WARM_UP))
        train = dataset.train
        self.whole: Iterable[Any] | None = None
        if self.loop.beforehand:
            self.whole = self.loop.load(train.images, train.labels)

    def preparation(self) -> int:
        """Batches of stored images to what the loop is given."""
        repeated = np.concatenate([self.images] * self.task.steps)
        for _ in self.loop.load(repeated, np.concatenate([self.labels] * self.task.steps)):
            pass
        return len(repeated)

    def training(self) -> int:
        """Steps on batches that are ready."""
        check(self.loop.train(self.ready * self.task.steps))
        return self.task.steps * len(self.images)

    def epoch(self) -> int:
        """The whole set, with its preparation unless that is done beforehand."""
        train = self.dataset.train
        check(self.loop.train(self.whole if self.whole is not None else self.loop.load(train.images, train.labels)))
        return len(train)

    def facts(self) -> dict[str, Any]:
        """What it ran on."""
        backend = registry.load(self.task.backend, prepared=self.task.tuned)
        return {"versions": backend.versions(), "device": self.task.device}


def make(task: Task, dataset: Dataset) -> Ours | Peer:
    """The subject of a task, its first step done."""
    return (Peer if task.peer else Ours)(task, dataset)


def batch_of(dataset: Dataset, size: int) -> tuple[Images, Labels]:
    """The first images, from the beginning again where there are too few."""
    index = np.arange(size) % len(dataset.train)
    return dataset.train.images[index], dataset.train.labels[index]


def repeated(split: Split, count: int) -> Split:
    """So many images, which are those of the split again and again, in a file that is mapped."""
    images = storage.mapped((count, *split.images.shape[1:]), Path(tempfile.gettempdir()))
    for begin in range(0, count, len(split)):
        images[begin : begin + len(split)] = split.images[: count - begin]
    return Split(images, split.labels[np.arange(count) % len(split)])


def check(losses: list[float]) -> float:
    """The first of them. Raises TriptychError if one is not finite."""
    if not np.isfinite(losses).all():
        raise TriptychError(f"the loss is {losses}: such numbers take other times than real ones")
    return losses[0]
