"""A network on a backend with what it is trained on: at its start, or where a run's checkpoint ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.backend import optimizer_state
from triptych.backend.contract import Backend, Native, Trainer
from triptych.backend.execution import Compilation, Execution
from triptych.backend.group import ALONE, Group
from triptych.data import Dataset
from triptych.optim.schedules import Score
from triptych.spec.layers import Architecture
from triptych.training import run_folder
from triptych.training.checkpoint import Checkpoint
from triptych.training.checks import check_batches, check_data
from triptych.training.distributed.sameness import check_same
from triptych.training.recipe import NATIVE, SYNCHRONISED, Recipe, build_architecture, build_transform, draw
from triptych.training.run_folder import Epoch
from triptych.training.saving import Saver
from triptych.training.watch import Watch, chance_of
from triptych.utils.errors import TriptychError
from triptych.utils.lock import Lock
from triptych.utils.randomness import MOST_SEED, derive_seed
from triptych.weights import store, transfer
from triptych.weights.initializers import Parameters

READ_EVERY = 16  # steps between two looks at the losses, at most; each look waits for the device
READ_SECONDS = 0.5  # that slow steps may pass without one


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
class EpochSoFar:
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
    part: EpochSoFar = field(default_factory=EpochSoFar)
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
    check_batches(architecture, recipe, len(dataset.train), frozen, group.size)
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
    session.part = EpochSoFar(figures, state.seconds, state.images, state.first_step)
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


def start_of(session: Session) -> Parameters | None:
    """What the session's run began with, drawn again; None where it cannot be: a framework's own start, a file's."""
    recipe = session.recipe
    known = recipe.initializer != NATIVE and session.new_layers is None and not recipe.init_from
    return draw(recipe, session.architecture) if known else None
