"""The contract between the common code and a backend.

A backend is a package whose module fulfils `Backend`, with modules `port` and `benchmark` that fulfil `PortAdapter` and
`Benchmark`. Its networks are native objects, opaque here; everything that crosses the line is NumPy and canonical:
images and maps `(N, C, H, W)`, labels `(N,)`, cotangents like the outputs that they belong to, convolution weights
OIHW, dense weights (out, in), parameters by path.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.backend.execution import DEFAULT, Device, Execution
from triptych.backend.group import ALONE, Group, Share
from triptych.backend.joining import Member, Membership
from triptych.backend.precision import Flag
from triptych.backend.targets import Labels as Labels
from triptych.backend.targets import Targets as Targets
from triptych.data import batches
from triptych.data.preprocess import InputTransform
from triptych.importers.steps import Imported, Request
from triptych.optim.optimizers import Optimizer, Rates
from triptych.spec.layers import Architecture, Pair, Shape
from triptych.utils.arrays import Array
from triptych.weights.initializers import Parameters

Images: TypeAlias = NDArray[np.uint8]
Masks: TypeAlias = Mapping[str, NDArray[np.bool_]]
Gather: TypeAlias = batches.Gather
Paths: TypeAlias = frozenset[str]
Native: TypeAlias = Any


class Predictor(Protocol):
    """Applies one network to stored images. It holds no optimiser and no state of one."""

    def __init__(self, network: Native, transform: InputTransform) -> None: ...

    def prepare(self, images: Images, gather: Gather | None = None) -> Array:
        """The network's input `(N, C, H, W)` as a training step (with `gather`) and `predict` make it of stored
        images."""

    def predict(self, images: Images) -> NDArray[np.float32]:
        """Logits `(N, classes)` in evaluation mode; of a network without classes its first output."""


class Trainer(Predictor, Protocol):
    """Trains one network, and applies it as a `Predictor` does. Losses stay on the device until `read`, so that a step
    waits for nothing. The optimiser's state is allocated at the first step or by `load_state`.

    `frozen` names canonical arrays. Frozen parameters do not move, decay included, cost no gradient, and the optimiser
    keeps nothing for them. A batch norm whose running mean or variance is frozen keeps both, and uses them instead of
    the batch's in training too; freezing its gamma and beta alone leaves the statistics moving, as `requires_grad =
    False` does in PyTorch. `smoothing` of the labels: see `triptych.reference.loss`.

    `group` are the processes that train together: all take the same steps, each on its shares of the batches, and the
    result is that of one process on the whole batches. Batch norm takes the statistics of a batch's, or micro-batch's,
    images on all devices if `synchronised`, else of each device's own.
    """

    def __init__(
        self,
        network: Native,
        optimizer: Optimizer,
        transform: InputTransform,
        seed: int,
        frozen: Paths = frozenset(),
        smoothing: float = 0.0,
        group: Group = ALONE,
        synchronised: bool = True,
    ) -> None: ...

    def step(
        self,
        images: Images,
        targets: Targets,
        rates: Rates,
        number: int,
        *,
        gather: Gather | None = None,
        masks: Masks | None = None,
        shares: Sequence[Share] = (),
    ) -> Native:
        """One update on stored images. `shares` say which of a batch they are: those of the first share, then those of
        the next, whose gradients are added before the update; without them they are a whole batch. `gather` crops,
        flips and tints them (see `triptych.data.batches`); dropout is seeded by `(seed, number)`, or uses `masks`.
        Returns a handle for `read`. The loss is the mean cross-entropy of the labels, or, with a cotangent for every
        output, the mean over the batch of the sum of output times cotangent. All of it is of the whole batch, whoever
        has its images."""

    def update(self, gradients: Parameters, rates: Rates) -> None:
        """One step of the optimiser alone, with the given gradient of every parameter that is trained, by path."""

    def read(self, handles: Sequence[Native]) -> NDArray[np.float64]:
        """`(steps, 2)`: the mean loss (auxiliary losses included) and the number of right answers of each step (0
        without classes), of whole batches; every process of the group has to ask."""

    def settle(self) -> None:
        """Make running statistics that are each device's own the mean of all, before a test or a checkpoint; every
        process of the group has to call it."""

    def state(self) -> Parameters:
        """The optimiser's state by canonical path: the velocity, learning rate outside."""

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state, whichever backend wrote it."""


class Backend(Protocol):
    """What a backend's package offers."""

    name: str
    Predictor: type[Predictor]
    Trainer: type[Trainer]

    def versions(self) -> dict[str, str]:
        """The framework's packages and their versions."""

    def devices(self) -> list[Device]:
        """Every device this framework knows, each with a reason."""

    def precision_flags(self, device: str = "cpu") -> list[Flag]:
        """Every switch that trades accuracy for speed on `device`, with the value it has now."""

    def precise(self, device: str = "cpu") -> AbstractContextManager[None]:
        """Turns off, while it is open, those that can be turned off in a running process."""

    def place(self) -> Membership | None:
        """Which process of several this is, by what a launcher or somebody has put into the environment; None: there
        is no other. Raises TriptychError for what makes no sense."""

    def members(self, count: int, folder: Path) -> list[Member]:
        """What to start on this machine for a training by `count` processes, which talk over loopback alone; `folder`
        is empty and theirs."""

    def join(self, device: str, devices: int) -> Group:
        """Join the others of `place`, to train on so many devices each; to be called before the device is used.

        Raises TriptychError if they cannot be found, or the backend cannot train so."""

    def peak_memory(self, device: str) -> int:
        """The most bytes that this process has held on the device; 0 where the framework does not tell."""

    def out_of_memory(self, error: Exception) -> bool:
        """Whether this is how the framework says that memory ended, the processor's or a device's."""

    def apply_execution(self, execution: Execution, device: str) -> None:
        """Sets the process's switches as the execution says, for networks on this device.

        Raises TriptychError for a device or precision that is not there."""

    def build(self, architecture: Architecture, *, device: str = "cpu", execution: Execution = DEFAULT) -> Native:
        """A native network, with the execution as its attribute `execution`, which `apply_execution` is called with.

        Raises TriptychError for a device or precision that is not there."""

    def initialize(self, network: Native, seed: int) -> None:
        """Start the weights as this framework does by default (its own initializer, its own generator)."""

    def to_canonical(self, network: Native) -> Parameters: ...

    def from_canonical(self, network: Native, parameters: Parameters) -> None: ...

    def forward(
        self, network: Native, images: Array, *, train: bool = False, masks: Masks | None = None
    ) -> dict[str, Array]:
        """Every layer's output by path, in canonical layout; in train mode with the given dropout masks. Parameters and
        running statistics are left as they were; the network may stay in the mode that it ran in."""

    def gradients(self, network: Native, images: Array, targets: Targets, *, masks: Masks) -> tuple[float, Parameters]:
        """The training loss and its gradient by path, the images' own under `input`. Parameters and
        running statistics are left as they were."""

    def layer_pass(
        self, network: Native, path: str, x: Array, gradient: Array | None, *, train: bool, masks: Masks
    ) -> tuple[Array, Array | None, Parameters]:
        """One layer alone on `x (N, C, H, W)` or `(N, features)`: its output, and with the `gradient` of that the
        gradients of `x` and of its parameters by path (else None and none)."""

    def loss_pass(self, network: Native, outputs: Sequence[Array], targets: Targets) -> tuple[float, list[Array]]:
        """The training loss of given outputs (logits), those of auxiliary classifiers behind, and its gradients by
        them."""


@dataclass(frozen=True)
class PortParameter:
    """One array of the network, by its own name there. `role` is the last part of a canonical path (`weight`, `bias`,
    `running_mean`, `running_var`), or `slope` of a PReLU, where the framework tells it, else empty. `needed`: the
    outputs that are compared depend on it; another head's do not. `places`: which operations take it, in the order of
    execution; none for one that is only there."""

    name: str
    shape: tuple[int, ...]
    role: str = ""
    needed: bool = True
    places: tuple[int, ...] = (0,)


AXES = {"N": "images", "C": "channels", "H": "rows", "W": "columns"}


def dropout_kind(shared: str) -> str:
    """What a dropout is that has one mask for all along these axes, letters of NCHW."""
    if set(shared) == {"H", "W"}:
        return "dropout of whole channels"
    names = " and ".join(name for letter, name in AXES.items() if letter in shared)
    return f"dropout with one mask for all {names}" if names else "dropout"


@dataclass(frozen=True)
class Drawn:
    """A dropout as a network calls it: its rate, its kind (`dropout`; or what is dropped together or put in its place),
    and whether it draws in this pass."""

    rate: float
    kind: str = "dropout"
    active: bool = True


@dataclass(eq=False)
class Captured:
    """The output of one operation in a pass, the name of the spec's record or merge that it corresponds to (empty for
    one that by itself is neither), the gradient that arrived there, where the framework gives it, what a dropout would
    have drawn, and the name of the type that it had, if NumPy has none such."""

    kind: str
    value: Array
    gradient: Array | None = None
    drawn: Drawn | None = None
    kept_as: str = ""


@dataclass(eq=False)
class PortRun:
    """One pass: operations in the order of execution, the outputs that are compared, and after a backward pass the
    gradients by the network's own parameter names and the images'. `statistics`: in training mode, what the running
    statistics are after this pass, by the same names."""

    captured: list[Captured]
    outputs: tuple[Array, ...]
    gradients: Mapping[str, Array] = field(default_factory=dict)
    input_gradient: Array | None = None
    statistics: dict[str, Array] = field(default_factory=dict)


class Port(Protocol):
    """Somebody's own network in one framework. `layout` is that of the images it takes, NCHW or NHWC; parameters are
    canonical whatever it is. `outputs`: how many of its outputs are compared, the first ones if none are chosen; those
    of tuples, lists and dictionaries in their order. The network stays as it was given, in-place operations and all,
    but for its values and their type, until they are restored."""

    pure: bool  # a pass depends on images and arrays alone: nothing is drawn beside them
    layout: str
    shapes: Sequence[Shape]  # of all its outputs, those of maps canonical; known once `parameters` has run it

    def __init__(self, candidate: Any, layout: str | None, execution: Execution, outputs: int = 1) -> None: ...

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """Every parameter and running statistic, in the order in which a pass on `images` uses them."""

    def choose(self, places: Sequence[int]) -> None:
        """Compare the outputs at these places, not the first ones; `parameters` is called again then."""

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""

    def values(self) -> dict[str, Array]:
        """The network's own values of its parameters and running statistics, as it was given."""

    def restore(self) -> None:
        """The network is as it was given again: its values, their type, its mode. Once `parameters` has run it."""

    def run(self, images: Array, *, train: bool, cotangents: Sequence[Array] = ()) -> PortRun:
        """One pass, watched, in training mode without its dropout; with `cotangents`, the gradient of every output that
        is compared, backward too. Running statistics stay as they were."""

    def call(self, images: Array) -> tuple[Array, ...]:
        """The outputs that are compared of a call in evaluation as a user makes it: nothing is watched or switched
        off."""

    def raised_in(self, error: BaseException) -> str:
        """The path of the layer in which a pass raised this, in the network's own names; empty if it is not known, or
        in none of them."""


class TrainablePort(Port, Protocol):
    """One that its framework can train, too."""

    def forget(self) -> None:
        """Its own values are not asked for, nor is it restored: once `parameters` has run it, memory holds no copy of
        them."""

    def optimize(self, optimizer: Any, gradients: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Every parameter by name after each step of somebody's optimiser, and of the schedule beside it, with these
        gradients by name. `optimizer`: one of the framework, a pair with its schedule, or a function of the network, or
        of its parameters, that makes it. Raises TriptychError for what is none."""

    def loss(self, loss: Any, outputs: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
        """What somebody's loss, a function of `(outputs, labels)`, makes of an output `(N, classes)`, and the gradient
        by it; the mean over the images where it gives a value for each."""

    def imported(self, request: Request) -> Imported:
        """As `PortAdapter.import_network` of the network with the parameters that are set."""

    def train(self, images: Array, cotangents: Sequence[Array], rates: Sequence[Rates]) -> Mapping[str, Array]:
        """Every parameter and running statistic after a step of the framework's own SGD for each of the rates, which
        are all equal, on the sum over the outputs of output times cotangent. The network keeps what they made of it."""


class PortAdapter(Protocol):
    """What a backend's `port` module offers. `OPENS`: the endings of the framework's own files of whole networks;
    `FILES_TRAIN`: whether what is in them has a training mode."""

    OPENS: tuple[str, ...]
    FILES_TRAIN: bool

    Port: type[TrainablePort]

    def matches(self, candidate: Any) -> bool:
        """Whether this is a network of the framework."""

    def import_network(self, candidate: Any, request: Request) -> Imported:
        """The network as a spec with canonical weights. Raises TriptychError for what cannot be taken over."""

    def open_file(self, path: Path, weights: Path | None, *, bare: bool, training: bool = True) -> Native:
        """The framework's own network of one of its files, and of the file of weights that belongs to it; `bare`: with
        any softmax at its end taken off; `training`: such as can be trained. Raises TriptychError for a file that is
        none, or that cannot run here."""


class Textbook(Protocol):
    """The training loop that users of the framework know from its textbooks, with SGD, on a network in the framework's
    own idiom (as `triptych.emitting` writes it); `weights` are those of its auxiliary classifiers' losses. Speed is
    held against it. `beforehand`: its users resize all images before they train, so that an epoch's time is without
    that."""

    beforehand: bool

    def __init__(
        self, network: Native, size: Pair, batch_size: int, rates: Rates, device: str, weights: Sequence[float]
    ) -> None: ...

    def load(self, images: Images, labels: NDArray[np.int64]) -> Iterable[Any]:
        """Batches of stored images `(N, C, h, w)` resized to `size`, in their order, for `train`."""

    def train(self, loaded: Iterable[Any]) -> list[float]:
        """One pass; every step's loss. It has waited for the device."""

    def predict(self, loaded: Iterable[Any]) -> NDArray[np.int64]:
        """The likeliest class of every image, in their order."""


class Benchmark(Protocol):
    """What a backend's `benchmark` module offers."""

    Textbook: type[Textbook]

    def matrix_product(self, size: int, execution: Execution, device: str) -> Callable[[], None]:
        """A product of two `size` x `size` matrices in the execution's type, done when the function returns."""
