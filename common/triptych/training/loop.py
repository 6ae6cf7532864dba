"""The training loop, the same for every backend: plan the batches, step, read, test, save."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Images, Labels, Native, Predictor, Trainer
from triptych.backend.execution import Compilation, Execution
from triptych.data import Dataset, batches
from triptych.optim.schedules import Score
from triptych.spec.layers import Architecture
from triptych.training import capacity, run_folder, watch
from triptych.training.recipe import NATIVE, Recipe, build_architecture, build_transform, draw
from triptych.training.run_folder import Checkpoint, Epoch
from triptych.training.watch import Watch, chance_of
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted, interruptible
from triptych.utils.randomness import MOST_SEED, derive_seed
from triptych.weights import store, transfer
from triptych.weights.initializers import Parameters

READ_EVERY = 16  # steps between two looks at the losses, at most; each look waits for the device
READ_SECONDS = 0.5  # that slow steps may pass without one


class DivergedError(TriptychError):
    """A loss that is not finite."""


class StuckError(TriptychError):
    """A training that does not learn, and was to be stopped then."""


class Listener:
    """Who is told how training goes: a progress bar, a log; this one itself says nothing."""

    def begin(self, epoch: int, total: int) -> None:
        """An epoch of so many steps begins."""

    def steps(self, epoch: int, total: int, losses: NDArray[np.float64], images_per_second: float) -> None:
        """The losses of this epoch's steps so far, of `total`, and its speed."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done and saved."""

    def stuck(self, what: str) -> None:
        """The training does not learn; said once, with what is known of the cause."""


@dataclass
class Pace:
    """How many steps a session makes between two looks at their losses, and what its first step took: it holds a
    framework's compilation and warming up, and is no measure of the others."""

    every: int = 1
    first: float | None = None

    def seen(self, steps: int, seconds: float) -> None:
        """A look after `steps` that took so long together."""
        if self.first is None:
            self.first = seconds
        else:
            self.every = int(np.clip(READ_SECONDS * steps / max(seconds, 1e-9), 1, READ_EVERY))


@dataclass
class Session:
    """A network on a backend with what it is trained on, and where its run is kept (`folder` None: nowhere). `resumed`
    is the run that it goes on with. `new_layers` are those that `init_from` had nothing for; None where it was not
    asked. `stuck` says that it does not learn, once it was seen; `pace` is how its steps are timed and read."""

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
    stuck: str = ""
    pace: Pace = field(default_factory=Pace)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(chance_of(self.dataset.train.labels, self.architecture))

    @property
    def history(self) -> list[Score]:
        """The tests of the finished epochs."""
        return [Score(epoch.test_loss, epoch.test_accuracy) for epoch in self.epochs]

    @property
    def steps_per_epoch(self) -> int:
        """Batches of the training images, the last one however small."""
        return -(-len(self.dataset.train) // self.recipe.batch_size)


def start(
    backend: Backend,
    recipe: Recipe,
    dataset: Dataset,
    *,
    device: str = "cpu",
    deterministic: bool = False,
    compilation: Compilation = "full",
    architecture: Architecture | None = None,
    resumed: Path | None = None,
    pretrained: Parameters | None = None,
) -> Session:
    """A session at the recipe's start, or where the last checkpoint of the run `resumed` ends; it is kept nowhere yet.

    `deterministic` and `compilation` are those of `triptych.backend.execution.Execution`. `architecture` is what
    `build_architecture` makes of recipe and data, where it was called already; `pretrained` what `init_from` holds,
    where it was read already.
    What a resumed run once began from need not be there any more.
    Raises TriptychError for what does not fit together.
    """
    architecture = architecture or build_architecture(recipe, dataset)
    frozen = transfer.frozen_paths(architecture, recipe.freeze)
    checkpoint = run_folder.load(resumed) if resumed is not None else None
    if recipe.init_from and checkpoint is None and pretrained is None:
        pretrained = store.load(run_folder.model_file(Path(recipe.init_from)))
    transform = build_transform(recipe, architecture)
    execution = Execution(recipe.precision, compilation, deterministic=deterministic)
    network = backend.build(architecture, device=device, execution=execution)
    new_layers = initialize(backend, network, architecture, recipe, pretrained)
    if new_layers is not None:
        transfer.check_frozen(frozen, new_layers)
    trainer = backend.Trainer(network, recipe.optimizer, transform, recipe.seed, frozen, recipe.label_smoothing)
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
        # A seed that not every framework takes becomes one that each does.
        seed = recipe.seed if 0 <= recipe.seed <= MOST_SEED else derive_seed(recipe.seed, "native")
        backend.initialize(network, seed)
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


def fit(session: Session, listener: Listener, *, stop_stuck: bool = False) -> list[Epoch]:
    """Train until the recipe's epochs are done; returns all of them. Raises DivergedError at the first step whose loss
    is not finite, with `stop_stuck` StuckError where it is seen that nothing is learned (see
    `triptych.training.watch`), and Interrupted on SIGINT or SIGTERM; finished epochs stay saved in all cases."""
    with (
        interruptible() as interrupted,
        capacity.told(session.recipe, session.architecture, session.backend),
    ):
        for number in range(len(session.epochs), session.recipe.epochs):
            epoch = train_epoch(session, number, listener, interrupted, stop_stuck)
            session.epochs.append(epoch)
            if session.folder is not None:
                run_folder.save(session.folder, session.epochs, checkpoint_of(session))
            listener.epoch(epoch)
        if interrupted():  # in the last epoch's last moments; `compare` must not go on with the next backend
            raise Interrupted(interrupted(), kept(session))
    return session.epochs


def train_epoch(
    session: Session, number: int, listener: Listener, interrupted: Callable[[], int], stop_stuck: bool
) -> Epoch:
    """One epoch (counted from 0) and its test."""
    recipe, split, pace = session.recipe, session.dataset.train, session.pace
    plan = batches.plan(recipe.seed, number, len(split), recipe.batch_size, recipe.augmentation)
    sizes = np.array([len(batch) for batch in plan])
    handles: list[Native] = []
    results = np.zeros((0, 2))
    listener.begin(number + 1, len(plan))
    untimed, first_step = 0, 0.0
    began = last = time.perf_counter()
    fed = batches.feed(split.images, split.labels, plan, recipe.augmentation)
    for index, (images, labels, gather) in enumerate(fed):
        if interrupted():
            raise Interrupted(interrupted(), kept(session))
        rates = recipe.rates(session.step, len(plan), session.history)
        handles.append(session.trainer.step(images, labels, rates, session.step, gather=gather))
        session.step += 1
        if len(handles) >= pace.every or index + 1 == len(plan):
            new, now = session.trainer.read(handles), time.perf_counter()
            first = pace.first is None
            pace.seen(len(handles), now - last)
            if first and len(plan) > 1:  # an epoch of one step has nothing else to be timed by
                untimed, first_step, began = len(handles), now - began, now
            handles.clear()
            results, last = np.concatenate([results, new]), now
            check_finite(results[:, 0], session.step - len(results), session)
            done = slice(untimed, len(results)) if len(results) > untimed else slice(0, untimed)
            speed = float(sizes[done].sum()) / ((now - began) or first_step)
            listener.steps(number + 1, len(plan), results[:, 0], speed)
            session.watch.add(new, sizes[len(results) - len(new) : len(results)].tolist())
            check_stuck(session, listener, stop_stuck)
    seconds = time.perf_counter() - began
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
        images_per_second=float(sizes[untimed:].sum() / seconds),
        losses=tuple(results[:, 0]),
        first_step=first_step,
    )


def check_stuck(session: Session, listener: Listener, stop: bool) -> None:
    """Say once that nothing is learned, with what the run shows of the cause; with `stop`, raise StuckError."""
    if session.stuck or session.step < watch.AFTER or not session.watch.stuck:
        return
    begun, recipe = start_of(session), session.recipe
    symptoms = watch.examine(
        session.architecture,
        session.backend.to_canonical(session.network),
        begun,
        session.dataset.train.images,
        replace(build_transform(recipe, session.architecture), crop_padding=0),
        session.epochs[0].losses[0] if session.epochs else session.watch.first,
    )
    rate = recipe.rates(session.step - 1, session.steps_per_epoch, session.history).learning_rate
    measured = "; ".join([*symptoms.texts(), f"rate {rate:.3g}"])
    likely = symptoms.cause(session.watch.chance)
    session.stuck = f"{session.backend.name}: {session.watch.verdict(session.step)} ({measured}). Likely: {likely}"
    listener.stuck(session.stuck)
    if stop:
        raise StuckError(f"training was stopped, {kept(session)}")


def start_of(session: Session) -> Parameters | None:
    """What the session's run began with, drawn again; None where it cannot be: a framework's own start, a file's."""
    recipe = session.recipe
    known = recipe.initializer != NATIVE and session.new_layers is None and not recipe.init_from
    return draw(recipe, session.architecture) if known else None


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
