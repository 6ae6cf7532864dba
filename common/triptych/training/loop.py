"""The training loop, the same for every backend: plan the batches, step, read, test, save."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from triptych.backend import optimizer_state
from triptych.backend.contract import Backend, Images, Labels, Masks, Native, Predictor, Trainer
from triptych.backend.execution import Compilation, Execution
from triptych.backend.group import ALONE, Group, Share
from triptych.data import Dataset, batches
from triptych.optim.schedules import Score
from triptych.spec.layers import Architecture
from triptych.training import capacity, masks, run_folder, watch
from triptych.training.checkpoint import Checkpoint, State
from triptych.training.checks import check_batches, check_data
from triptych.training.distributed.sameness import check_same
from triptych.training.distributed.shares import cut
from triptych.training.recipe import NATIVE, SYNCHRONISED, Recipe, build_architecture, build_transform, draw, identity
from triptych.training.run_folder import Epoch
from triptych.training.saving import DEFAULT_PLAN, SavePlan, Saver
from triptych.training.watch import Watch, chance_of
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted, interruptible
from triptych.utils.lock import Lock
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
    framework's compilation and warming up, and is no measure of the others. A `steady` one does not follow the clock:
    several processes have to look at the same steps."""

    every: int = 1
    first: float | None = None
    steady: bool = False

    def seen(self, steps: int, seconds: float) -> None:
        """A look after `steps` that took so long together."""
        if self.steady:
            self.every = READ_EVERY
        elif self.first is not None:
            self.every = int(np.clip(READ_SECONDS * steps / max(seconds, 1e-9), 1, READ_EVERY))
        self.first = seconds if self.first is None else self.first


@dataclass
class Part:
    """What the steps of an epoch have come to so far: loss and right answers of each, `(steps, 2)`; the `seconds` that
    those took which are timed, and their images; `first_step`: the seconds of a session's first step, which is not."""

    figures: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    seconds: float = 0.0
    images: int = 0
    first_step: float = 0.0

    def add(self, figures: NDArray[np.float64], images: int, seconds: float, *, timed: bool) -> None:
        """More steps, of so many images together, which took so long."""
        self.figures = np.concatenate([self.figures, figures])
        if timed:
            self.seconds, self.images = self.seconds + seconds, self.images + images
        else:
            self.first_step = seconds

    def speed(self, images: int) -> float:
        """Images per second, of `images` in all; 0 of a clock that stood still."""
        count, seconds = (self.images, self.seconds) if self.images else (images, self.first_step)
        return count / seconds if seconds else 0.0


@dataclass
class Session:
    """A network on a backend with what it is trained on, and what writes its run (`saver` None: it is kept nowhere).

    `resumed` is the run that it goes on with, whose lock is `held` until there is a saver; `remark` what was passed
    over in it. `part` is of an unfinished epoch. `new_layers` are those that `init_from` had nothing for; None where it
    was not asked. `group` are the processes that train it. `stuck` says that it does not learn, once it was seen;
    `pace` is how its steps are timed and read."""

    backend: Backend
    architecture: Architecture
    network: Native
    trainer: Trainer
    recipe: Recipe
    dataset: Dataset
    resumed: Path | None = None
    held: Lock | None = None
    saver: Saver | None = None
    epochs: list[Epoch] = field(default_factory=list)
    step: int = 0
    part: Part = field(default_factory=Part)
    new_layers: tuple[str, ...] | None = None
    remark: str = ""
    stuck: str = ""
    pace: Pace = field(default_factory=Pace)
    group: Group = ALONE
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

    @property
    def folder(self) -> Path | None:
        """Where the run is kept."""
        return None if self.saver is None else self.saver.folder


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
    writes: bool = True,
    group: Group = ALONE,
) -> Session:
    """A session at the recipe's start, or where the last checkpoint of the run `resumed` ends; it is kept nowhere yet.

    `deterministic` and `compilation` are those of `triptych.backend.execution.Execution`. `architecture` is what
    `build_architecture` makes of recipe and data, where it was called already; `pretrained` what `init_from` holds,
    where it was read already. What a resumed run once began from need not be there any more. A session that `writes`
    locks the run that it resumes. `group` are the processes that train together; what they start from has to be the
    same. Raises TriptychError for what does not fit together, and for a run that another
    process writes.
    """
    held = run_folder.hold(resumed) if resumed is not None and writes else None
    try:
        architecture = architecture or build_architecture(recipe, dataset)
        execution = Execution(recipe.precision, compilation, deterministic=deterministic)
        session = begin(backend, recipe, dataset, architecture, device, execution, resumed, pretrained, group)
        session.held = held
        return session
    except BaseException:
        if held is not None:
            held.release()
        raise


def begin(
    backend: Backend,
    recipe: Recipe,
    dataset: Dataset,
    architecture: Architecture,
    device: str,
    execution: Execution,
    resumed: Path | None,
    pretrained: Parameters | None,
    group: Group,
) -> Session:
    """As `start`, without a lock."""
    frozen = transfer.frozen_paths(architecture, recipe.freeze)
    check_batches(architecture, recipe, len(dataset.train), frozen)
    checkpoint, remark = None, ""
    if resumed is not None:
        checkpoint = run_folder.load(resumed, run_folder.read_recipe(resumed), resuming=True)
        remark = checkpoint.remark if checkpoint else ""
    if checkpoint is not None:
        check_data(checkpoint.state, dataset)
    elif recipe.init_from and pretrained is None:
        pretrained, remark = run_folder.read_model(Path(recipe.init_from))
    transform = build_transform(recipe, architecture)
    network = backend.build(architecture, device=device, execution=execution)
    new_layers = initialize(backend, network, architecture, recipe, pretrained)
    if new_layers is not None:
        transfer.check_frozen(frozen, new_layers)
    if group.size > 1:
        begun = backend.to_canonical(network) if checkpoint is None else checkpoint.model
        check_same(group, backend, recipe, dataset, begun, {} if checkpoint is None else checkpoint.optimizer)
    synchronised = recipe.batch_norm == SYNCHRONISED
    trainer = backend.Trainer(
        network, recipe.optimizer, transform, recipe.seed, frozen, recipe.label_smoothing, group, synchronised
    )
    session = Session(backend, architecture, network, trainer, recipe, dataset, resumed, new_layers=new_layers)
    session.remark, session.group = remark, group
    session.pace.steady = group.size > 1
    if resumed is not None and checkpoint is not None:
        take_up(session, resumed, checkpoint)
    return session


def check_start(recipe: Recipe) -> None:
    """Raises TriptychError if `init_from` names nothing to start from; whether it fits is seen when it is read."""
    if recipe.init_from:
        run_folder.check_model(Path(recipe.init_from))


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
    if recipe.new_head:
        pretrained = transfer.without_head(architecture, pretrained)
    values, new_layers = transfer.take_over(architecture, backend.to_canonical(network), pretrained)
    backend.from_canonical(network, values)
    return new_layers


def take_up(session: Session, folder: Path, checkpoint: Checkpoint) -> None:
    """Go on from a checkpoint of the run in `folder`, whichever backend wrote it. Raises TriptychError if the
    checkpoint is ahead of the recipe's epochs, or not of this network and optimiser."""
    state, recipe = checkpoint.state, session.recipe
    if recipe.epochs < state.epoch + bool(state.figures):
        raise TriptychError(f"--epochs {recipe.epochs} is less than {folder} has done: {state.place}")
    if state.step != state.epoch * session.steps_per_epoch + len(state.figures):
        raise TriptychError(f"{folder}: {state.place} do not belong together: an epoch has {session.steps_per_epoch}")
    session.epochs = run_folder.read_epochs(folder)[: state.epoch]
    session.step = state.step
    figures = np.array(state.figures, np.float64).reshape(-1, 2)
    session.part = Part(figures, state.seconds, state.images, state.first_step)
    store.check_fit(session.architecture, checkpoint.model)
    frozen = transfer.frozen_paths(session.architecture, recipe.freeze)
    expected = optimizer_state.shapes(recipe.optimizer, session.architecture, frozen)
    optimizer_state.check(checkpoint.optimizer, expected, needed=remembers(session), where=str(folder))
    session.backend.from_canonical(session.network, checkpoint.model)
    session.trainer.load_state(checkpoint.optimizer)


def remembers(session: Session) -> bool:
    """Whether the last step of a run has left a state in its optimiser; a float16 step may have been skipped."""
    if not session.step or session.recipe.precision == "fp16":
        return False
    history = session.history if len(session.part.figures) else session.history[:-1]
    rates = session.recipe.rates(session.step - 1, session.steps_per_epoch, history)
    return session.recipe.optimizer.remembers(rates)


def keep_in(session: Session, folder: Path, plan: SavePlan = DEFAULT_PLAN) -> None:
    """Keep the run in `folder` from now on: a new one, or the one that it resumes, which gets the session's recipe.
    Raises TriptychError if the folder cannot be written, or is another process's."""
    held = session.held if folder == session.resumed else None
    held = held or (run_folder.hold(folder) if folder == session.resumed else run_folder.claim(folder))
    session.saver = Saver(folder, held, plan)
    session.saver.last_step = session.step
    try:
        run_folder.write_recipe(folder, session.recipe)
    except BaseException:
        session.saver.close()
        raise


def fit(session: Session, listener: Listener, *, stop_stuck: bool = False) -> list[Epoch]:
    """Train until the recipe's epochs are done; returns all of them. Raises DivergedError at the first step whose loss
    is not finite, with `stop_stuck` StuckError where it is seen that nothing is learned (see
    `triptych.training.watch`), and Interrupted on SIGINT, SIGTERM or SIGHUP; finished epochs stay saved in all cases.
    What cannot be saved ends the training with the reason."""
    try:
        with interruptible() as interrupted, capacity.told(session.recipe, session.architecture, session.backend):
            for number in range(len(session.epochs), session.recipe.epochs):
                epoch = train_epoch(session, number, listener, interrupted, stop_stuck)
                session.epochs.append(epoch)
                session.part = Part()
                save(session, partial(listener.epoch, epoch))
            settle(session)
            if interrupted():  # in the last epoch's last moments; `compare` must not go on with the next backend
                raise Interrupted(interrupted(), kept(session))
    finally:
        if session.saver is not None:
            session.saver.close()
    return session.epochs


def save(session: Session, then: Callable[[], None]) -> None:
    """Begin to save, if the run is kept; `then` is called as soon as that is done."""
    if session.saver is None:
        then()
    else:
        session.saver.save(session.epochs, checkpoint_of(session), then)


def settle(session: Session) -> None:
    """Wait until everything is saved. Raises what made that fail."""
    if session.saver is not None:
        session.saver.settle()


def train_epoch(
    session: Session, number: int, listener: Listener, interrupted: Callable[[], int], stop_stuck: bool
) -> Epoch:
    """One epoch (counted from 0), or what is left of it, and its test."""
    recipe, split, saver = session.recipe, session.dataset.train, session.saver
    plan = batches.plan(recipe.seed, number, len(split), recipe.batch_size, recipe.augmentation)
    handles: list[Native] = []
    listener.begin(number + 1, len(plan))
    done, last = len(session.part.figures), time.perf_counter()
    parts = cut(plan[done:], session.group, recipe.accumulate)
    fed = batches.feed(split.images, split.labels, [batch for batch, _ in parts], recipe.augmentation)
    for index, (images, labels, gather) in enumerate(fed, start=done + 1):
        if number_of_signal := agreed(session, handles, interrupted()):
            stop(session, handles, number_of_signal)
        rates = recipe.rates(session.step, len(plan), session.history)
        shares = parts[index - 1 - done][1]
        drawn = shared_masks(session, len(plan[index - 1]), shares)
        step = partial(session.trainer.step, images, labels, rates, session.step, gather=gather, shares=shares)
        handles.append(step(masks=drawn) if drawn else step())
        session.step += 1
        due = index < len(plan) and bool(agreed(session, handles[1:], saver is not None and saver.due(session.step)))
        if due or len(handles) >= session.pace.every or index == len(plan):
            sizes = [len(batch) for batch in plan[:index]]
            last = look(session, handles, sizes, last, single=len(plan) == 1)
            listener.steps(number + 1, len(plan), session.part.figures[:, 0], session.part.speed(sum(sizes)))
            check_stuck(session, listener, stop_stuck)
        if due:
            session.trainer.settle()
            save(session, lambda: None)
        if saver is not None:
            saver.poll()
    return measure(session, number + 1, np.array([len(batch) for batch in plan]))


def shared_masks(session: Session, count: int, shares: Sequence[Share]) -> Masks | None:
    """The dropout masks of the next step, on a batch of `count` images; None where each framework draws its own."""
    recipe = session.recipe
    if recipe.masks != masks.SHARED:
        return None
    return masks.draw_part(session.architecture, recipe.seed, session.step, count, shares)


def agreed(session: Session, unread: Sequence[Native], value: int) -> int:
    """What is to be done at this step: the `value` of a process alone. Several ask each other where they have read all
    steps but this one, and for all of them the largest counts."""
    if session.group.size == 1:
        return value
    return 0 if unread else session.group.agree(value)


def look(session: Session, handles: list[Native], sizes: Sequence[int], last: float, *, single: bool = False) -> float:
    """Read the steps since the `last` look, which are forgotten; `sizes` are those of the epoch's batches up to now.
    Returns the time. Raises DivergedError for a loss that is not finite."""
    new, now = session.trainer.read(handles), time.perf_counter()
    new_sizes, seconds = sizes[len(sizes) - len(new) :], max(0.0, now - last)
    # A session's first step compiles; an epoch of one step has nothing else to be timed by.
    session.part.add(new, sum(new_sizes), seconds, timed=single or session.pace.first is not None)
    session.pace.seen(len(handles), seconds)
    handles.clear()
    check_finite(session.part.figures[:, 0], session.step - len(session.part.figures), session)
    session.watch.add(new, new_sizes)
    return now


def stop(session: Session, handles: list[Native], number: int) -> NoReturn:
    """End at a signal, between two steps; a run that is saved within its epochs is saved now."""
    saver = session.saver
    session.trainer.settle()
    if saver is not None and saver.plan.every is not None and session.step > saver.last_step:
        if handles:
            session.part.add(session.trainer.read(handles), 0, 0.0, timed=True)
            check_finite(session.part.figures[:, 0], session.step - len(session.part.figures), session)
        save(session, lambda: None)
    raise Interrupted(number, kept(session))


def measure(session: Session, number: int, sizes: NDArray[np.int64]) -> Epoch:
    """What an epoch (counted from 1) of batches of these sizes has come to, and its test."""
    part = session.part
    test_loss, test_accuracy = test(session)
    check_finite(np.array([test_loss]), session.step, session)  # the last step may have broken the network
    return Epoch(
        epoch=number,
        step=session.step,
        backend=session.backend.name,
        train_loss=float(np.average(part.figures[:, 0], weights=sizes)),
        train_accuracy=float(part.figures[:, 1].sum() / sizes.sum()),
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        seconds=part.seconds,
        images_per_second=part.speed(int(sizes.sum())),
        losses=tuple(part.figures[:, 0].tolist()),
        first_step=part.first_step,
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
    """What an end before the last epoch leaves behind, once it is saved. Raises what makes that fail."""
    settle(session)
    done = f"{len(session.epochs)} finished epochs"
    if session.saver is None:
        return f"{done} are kept"
    further = session.saver.last_step - (session.epochs[-1].step if session.epochs else 0)
    steps = f" and {further} steps of the next" if further > 0 else ""
    return f"{done}{steps} are kept in {session.folder} (train --resume goes on)"


def logits_of(predictor: Predictor, images: Images, batch_size: int) -> NDArray[np.float64]:
    """Logits `(N, classes)` of stored images in evaluation mode, a batch at a time. Raises TriptychError for none."""
    if not len(images):
        raise TriptychError("there are no images to evaluate on")
    begins = range(0, len(images), batch_size)
    return np.concatenate([predictor.predict(images[begin : begin + batch_size]) for begin in begins]).astype(float)


def test(session: Session) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on the test images, of which every process has a part."""
    session.trainer.settle()
    split, part = session.dataset.test, session.group.part_of(len(session.dataset.test))
    images, labels = split.images[part], split.labels[part]
    mine = np.zeros(2)
    if len(labels) or not len(split):
        mine = totals(logits_of(session.trainer, images, session.recipe.images_per_test), labels)
    loss, right = session.group.gather(mine).sum(0) / len(split)
    return float(loss), float(right)


def totals(logits: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """`(2,)`: the sum of the cross-entropies of logits `(N, classes)`, and the number of right answers."""
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return np.array([losses.sum(), (logits.argmax(1) == labels).sum()])


def score(logits: NDArray[np.float64], labels: Labels) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of logits `(N, classes)`."""
    loss, right = totals(logits, labels) / len(labels)
    return float(loss), float(right)


def checkpoint_of(session: Session) -> Checkpoint:
    """The session as it can be saved."""
    backend = session.backend
    state = State(
        epoch=len(session.epochs),
        step=session.step,
        input=session.architecture.input,
        class_names=tuple(session.dataset.class_names),
        backend=backend.name,
        seed=session.recipe.seed,
        versions=backend.versions(),
        recipe=identity(session.recipe),
        data=dict(session.dataset.digests),
        seconds=session.part.seconds,
        images=session.part.images,
        first_step=session.part.first_step,
        figures=tuple((float(loss), float(right)) for loss, right in session.part.figures),
    )
    return Checkpoint(state, backend.to_canonical(session.network), session.trainer.state())
