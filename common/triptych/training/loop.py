"""The training loop, the same for every backend: plan the batches, step, read, test, save."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Images, Labels, Native, Predictor, Trainer
from triptych.backend.execution import Execution
from triptych.data import Dataset, batches
from triptych.optim.schedules import Score
from triptych.spec.layers import Architecture
from triptych.training import run_folder
from triptych.training.recipe import NATIVE, Recipe, build_architecture, build_transform, draw
from triptych.training.run_folder import Checkpoint, Epoch
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted, interruptible
from triptych.weights import store, transfer
from triptych.weights.initializers import Parameters

READ_EVERY = 16  # steps between two looks at the losses; each look waits for the device


class DivergedError(TriptychError):
    """A loss that is not finite."""


class Listener:
    """Who is told how training goes: a progress bar, a log; this one itself says nothing."""

    def steps(self, epoch: int, total: int, losses: NDArray[np.float64], images_per_second: float) -> None:
        """The losses of this epoch's steps so far, of `total`, and its speed."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done and saved."""


@dataclass
class Session:
    """A network on a backend with what it is trained on, and where its run is kept (`folder` None: nowhere). `resumed`
    is the run that it goes on with. `new_layers` are those that `init_from` had nothing for; None where it was not
    asked."""

    backend: Backend
    architecture: Architecture
    network: Native
    trainer: Trainer
    recipe: Recipe
    dataset: Dataset
    resumed: Path | None = None
    folder: Path | None = None
    epochs: list[Epoch] = field(default_factory=list)
    step: int = 0
    new_layers: tuple[str, ...] | None = None


def start(
    backend: Backend,
    recipe: Recipe,
    dataset: Dataset,
    *,
    device: str = "cpu",
    deterministic: bool = False,
    architecture: Architecture | None = None,
    resumed: Path | None = None,
    pretrained: Parameters | None = None,
) -> Session:
    """A session at the recipe's start, or where the last checkpoint of the run `resumed` ends; it is kept nowhere yet.

    `deterministic` is that of `triptych.backend.execution.Execution`. `architecture` is what `build_architecture` makes
    of recipe and data, where it was called already; `pretrained` what `init_from` holds, where it was read already.
    What a resumed run once began from need not be there any more.
    Raises TriptychError for what does not fit together.
    """
    architecture = architecture or build_architecture(recipe, dataset)
    frozen = transfer.frozen_paths(architecture, recipe.freeze)
    checkpoint = run_folder.load(resumed) if resumed is not None else None
    if recipe.init_from and checkpoint is None and pretrained is None:
        pretrained = store.load(run_folder.model_file(Path(recipe.init_from)))
    transform = build_transform(recipe, architecture)
    execution = Execution(recipe.precision, deterministic=deterministic)
    network = backend.build(architecture, device=device, execution=execution)
    new_layers = initialize(backend, network, architecture, recipe, pretrained)
    if new_layers is not None:
        transfer.check_frozen(frozen, new_layers)
    trainer = backend.Trainer(network, recipe.optimizer, transform, recipe.seed, frozen)
    session = Session(backend, architecture, network, trainer, recipe, dataset, resumed, new_layers=new_layers)
    if resumed is not None and checkpoint is not None:
        take_up(session, resumed, checkpoint)
    return session


def check_start(recipe: Recipe) -> None:
    """Raises TriptychError if `init_from` names nothing to start from; whether it fits is seen when it is read."""
    if recipe.init_from:
        store.check_header(run_folder.model_file(Path(recipe.init_from)))


def check_execution(backends: Sequence[Backend], device: str, precision: str) -> None:
    """Raises TriptychError for a device or a precision that a backend has not: before data, or minutes of work."""
    for backend in backends:
        with backend.precise(device):  # a check changes nothing: the switches are as they were afterwards
            backend.apply_execution(Execution(precision), device)


def initialize(
    backend: Backend, network: Native, architecture: Architecture, recipe: Recipe, pretrained: Parameters | None
) -> tuple[str, ...] | None:
    """Give the network its first parameters; returns the layers that nothing of `pretrained` fits, if there is any."""
    if recipe.initializer == NATIVE:
        backend.initialize(network, recipe.seed)
    else:
        backend.from_canonical(network, draw(recipe, architecture))
    if pretrained is None:
        return None
    values, new_layers = transfer.take_over(architecture, backend.to_canonical(network), pretrained)
    backend.from_canonical(network, values)
    return new_layers


def take_up(session: Session, folder: Path, checkpoint: Checkpoint) -> None:
    """Go on from a checkpoint of the run in `folder`, whichever backend wrote it. Raises TriptychError if the
    checkpoint is ahead of the metrics or of the recipe's epochs."""
    session.backend.from_canonical(session.network, checkpoint.model)
    session.trainer.load_state(checkpoint.optimizer)
    epochs = run_folder.read_epochs(folder)
    if len(epochs) < checkpoint.epoch:
        raise TriptychError(
            f"{folder / run_folder.METRICS} holds {len(epochs)} epochs, the checkpoint is of {checkpoint.epoch}"
        )
    if session.recipe.epochs < checkpoint.epoch:
        raise TriptychError(
            f"--epochs {session.recipe.epochs} is less than the {checkpoint.epoch} that {folder} has finished"
        )
    session.epochs = epochs[: checkpoint.epoch]
    session.step = checkpoint.step


def keep_in(session: Session, folder: Path) -> None:
    """Keep the run in `folder` from now on: a new one, or the one that it resumes, which gets the session's recipe.
    Raises TriptychError if the folder cannot be written."""
    if folder != session.resumed:
        run_folder.make_folder(folder)
    run_folder.write_recipe(folder, session.recipe)
    session.folder = folder


def fit(session: Session, listener: Listener) -> list[Epoch]:
    """Train until the recipe's epochs are done; returns all of them. Raises DivergedError at the first step whose loss
    is not finite, and Interrupted on SIGINT or SIGTERM; finished epochs stay saved in both cases."""
    with interruptible() as interrupted:
        for number in range(len(session.epochs), session.recipe.epochs):
            epoch = train_epoch(session, number, listener, interrupted)
            session.epochs.append(epoch)
            if session.folder is not None:
                run_folder.save(session.folder, session.epochs, checkpoint_of(session))
            listener.epoch(epoch)
        if interrupted():  # in the last epoch's last moments; `compare` must not go on with the next backend
            raise Interrupted(interrupted(), kept(session))
    return session.epochs


def train_epoch(session: Session, number: int, listener: Listener, interrupted: Callable[[], int]) -> Epoch:
    """One epoch (counted from 0) and its test."""
    recipe, split = session.recipe, session.dataset.train
    plan = batches.plan(recipe.seed, number, len(split), recipe.batch_size, recipe.augmentation)
    handles: list[Native] = []
    results = np.zeros((0, 2))
    began = time.perf_counter()
    history = [Score(epoch.test_loss, epoch.test_accuracy) for epoch in session.epochs]
    fed = batches.feed(split.images, split.labels, plan, recipe.augmentation)
    for index, (images, labels, gather) in enumerate(fed):
        if interrupted():
            raise Interrupted(interrupted(), kept(session))
        rates = recipe.rates(session.step, len(plan), history)
        handles.append(session.trainer.step(images, labels, rates, session.step, gather=gather))
        session.step += 1
        if len(handles) == READ_EVERY or index + 1 == len(plan):
            results = np.concatenate([results, session.trainer.read(handles)])
            handles.clear()
            check_finite(results[:, 0], session.step - len(results), session)
            speed = min((index + 1) * recipe.batch_size, len(split)) / (time.perf_counter() - began)
            listener.steps(number + 1, len(plan), results[:, 0], speed)
    seconds = time.perf_counter() - began
    sizes = np.array([len(batch) for batch in plan])
    test = session.dataset.test
    test_loss, test_accuracy = score(logits_of(session.trainer, test.images, recipe.images_per_test), test.labels)
    check_finite(np.array([test_loss]), session.step, session)  # the last step may have broken the network
    return Epoch(
        epoch=number + 1,
        step=session.step,
        backend=session.backend.name,
        train_loss=float(np.average(results[:, 0], weights=sizes)),
        train_accuracy=float(results[:, 1].sum() / sizes.sum()),
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        seconds=seconds,
        images_per_second=float(sizes.sum() / seconds),
        losses=tuple(results[:, 0]),
    )


def check_finite(losses: NDArray[np.float64], first_step: int, session: Session) -> None:
    """Raises DivergedError for the first loss that is not finite, with its step."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise DivergedError(
            f"{session.backend.name}: the loss is {losses[bad[0]]} at step {first_step + int(bad[0])}; training was "
            f"stopped, {kept(session)}; try a smaller --learning-rate"
        )


def kept(session: Session) -> str:
    """What an end before the last epoch leaves behind."""
    done = f"{len(session.epochs)} finished epochs are kept"
    return done if session.folder is None else f"{done} in {session.folder} (train --resume goes on)"


def logits_of(predictor: Predictor, images: Images, batch_size: int) -> NDArray[np.float64]:
    """Logits `(N, classes)` of stored images in evaluation mode, a batch at a time. Raises TriptychError for none."""
    if not len(images):
        raise TriptychError("there are no images to evaluate on")
    begins = range(0, len(images), batch_size)
    return np.concatenate([predictor.predict(images[begin : begin + batch_size]) for begin in begins]).astype(float)


def score(logits: NDArray[np.float64], labels: Labels) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of logits `(N, classes)`."""
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(1) == labels).mean())


def checkpoint_of(session: Session) -> Checkpoint:
    """The session as it can be saved."""
    backend, names = session.backend, list(session.dataset.class_names)
    state = {"backend": backend.name, "seed": session.recipe.seed, "versions": backend.versions()}
    state |= {"input": list(session.architecture.input), "class_names": names}
    model = backend.to_canonical(session.network)
    return Checkpoint(len(session.epochs), session.step, model, session.trainer.state(), state)
