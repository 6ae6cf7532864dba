"""A recipe: everything that decides a training run, as one record."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from triptych import zoo
from triptych.backend.execution import PRECISIONS
from triptych.data import Dataset
from triptych.data.batches import Augmentation
from triptych.data.decoded import Reading
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD, AnyOptimizer, Rates
from triptych.optim.schedules import AnySchedule, Constant, Moment, Planned, Score
from triptych.spec import records, rewrite
from triptych.spec.layers import Architecture
from triptych.training import masks
from triptych.utils.errors import TriptychError, check_known
from triptych.weights import initializers
from triptych.weights.initializers import Parameters

MOST = 10**15  # epochs, and images in a batch: floats count so far
ORDERS = ("rgb", "bgr")
NATIVE = "native"  # the initializer that leaves the start to the framework
SYNCHRONISED, LOCAL = "synchronised", "local"  # batch norm's statistics, where several devices train


@dataclass(frozen=True)
class Recipe:
    """One training run on any backend.

    `architecture` names a network of the zoo; or `spec` is the whole network, `architecture` its name, and `network`
    adds nothing. `data` is a data set's name or a folder. What `network` leaves open is as the data has it (channels
    and classes), or as in the architecture's source (height and width). `dropout` is the rate of all its dropout
    layers; None: their own. `test_batch_size` 0 is `batch_size`.
    `learning_rate` and the optimiser's momentum are what `schedule` starts from. `initializer` is empty for the
    architecture's own, a name with its number (`triptych.weights.initializers.parse`), or `native`. `init_from`, a run
    folder or a safetensors file, replaces the start of the layers that fit (`triptych.weights.transfer`); what the
    patterns in `freeze` match does not move. With `new_head` the last layer with weights is not taken from `init_from`.
    A network sees pixels of 0 to `pixel_range`, minus `mean` and over `std` in the same units, in the `channel_order`
    rgb or bgr. `skip_bad_images` and `scale_16_bit`: see `triptych.data.decoded.Reading`. `label_smoothing` is what the
    true class gives to all of them. `batch_size` is that of all processes together; each batch is taken in `accumulate`
    micro-batches, whose gradients are added. `batch_norm`: where several devices train, whether the statistics are
    those of all devices' images or of each one's own. `masks`: dropout draws each framework's own, or those that all
    share (`triptych.training.masks`).
    """

    name: str
    source: str = ""
    architecture: str = "vgg11"
    spec: Architecture | None = None
    network: zoo.Options = zoo.Options()  # noqa: RUF009  # frozen, so one shared value is safe
    dropout: float | None = None
    data: str = "fashion-mnist-mini"
    batch_size: int = 128
    test_batch_size: int = 0
    epochs: int = 5
    learning_rate: float = 0.05
    optimizer: AnyOptimizer = SGD()  # noqa: RUF009
    schedule: AnySchedule = Constant()  # noqa: RUF009
    initializer: str = ""
    init_from: str = ""
    new_head: bool = False
    freeze: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    augmentation: Augmentation = Augmentation()  # noqa: RUF009
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    pixel_range: float = 1.0
    channel_order: str = "rgb"
    skip_bad_images: bool = False
    scale_16_bit: bool = False
    precision: str = "fp32"
    seed: int = 0
    accumulate: int = 1
    batch_norm: str = SYNCHRONISED
    masks: str = masks.OWN

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "accumulate"):
            if not 1 <= (number := getattr(self, name)) <= MOST:
                raise TriptychError(f"--{name.replace('_', '-')} {number} must be at least 1, {MOST} at most")
        if not 0 <= self.test_batch_size <= MOST:
            raise TriptychError(f"the batch size {self.test_batch_size} of the test must be at least 0, {MOST} at most")
        if not 0 <= self.learning_rate < float("inf"):
            raise TriptychError(f"--learning-rate {self.learning_rate} must be a number of at least 0")
        check_known("channel order", [self.channel_order], ORDERS)
        if not 0 < self.pixel_range < float("inf"):
            raise TriptychError(f"--pixel-range {self.pixel_range} must be a number above 0")
        if self.new_head and not self.init_from:
            raise TriptychError("--new-head needs --init-from: without it every layer is new")
        if not 0 <= self.label_smoothing < 1:
            raise TriptychError(f"--label-smoothing {self.label_smoothing} must be at least 0 and below 1")
        check_known("precision", [self.precision], PRECISIONS)
        check_known("kind of dropout masks", [self.masks], (masks.OWN, masks.SHARED))
        check_known("form of batch norm", [self.batch_norm], (SYNCHRONISED, LOCAL))
        if self.accumulate > self.batch_size:
            raise TriptychError(f"--accumulate {self.accumulate} is more than the {self.batch_size} images of a batch")
        if self.initializer not in ("", NATIVE):
            initializers.parse(self.initializer)

    @property
    def reading(self) -> Reading:
        """How image files are read."""
        return Reading(self.skip_bad_images, self.scale_16_bit)

    @property
    def images_per_test(self) -> int:
        """The batch size where nothing is trained."""
        return self.test_batch_size or self.batch_size

    def rates(self, step: int, steps_per_epoch: int = 1, history: Sequence[Score] = ()) -> Rates:
        """Learning rate and momentum of a step, counted from 0 over the whole run; `history` has the finished epochs'
        tests. Adam has no momentum to change."""
        at = Moment(step, steps_per_epoch, self.epochs, history)
        momentum = self.schedule.momentum(self.optimizer.momentum, at)
        return self.optimizer.rates(self.schedule.learning_rate(self.learning_rate, at), momentum)


def identity(recipe: Recipe) -> str:
    """A digest of what decides the steps of a run: not its name, nor where it began, nor, unless a schedule is planned
    over them, how many epochs it has. Fields at their defaults do not count, so that a run goes on after a field came
    that it could not have."""
    main = recipe.schedule.main
    planned = isinstance(main, Planned) and not main.total_epochs
    epochs = recipe.epochs if planned else 1
    deciding = replace(recipe, name="", source="", init_from="", new_head=False, epochs=epochs)
    values = ((field, getattr(deciding, field.name)) for field in fields(deciding))
    return records.digest({field.name: value for field, value in values if value != field.default})


def vary(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with other values of its own fields, or of its network's (see `zoo.Options.vary`)."""
    network = {name: value for name, value in changes.items() if name in zoo.OPTION_NAMES}
    rest = {name: value for name, value in changes.items() if name not in zoo.OPTION_NAMES}
    check_known("field of a recipe", rest, [field.name for field in fields(Recipe)])
    options = rest.pop("network", recipe.network).vary(**network)
    return replace(recipe, network=options, **rest)


def draw(recipe: Recipe, architecture: Architecture) -> Parameters:
    """A start by the initializer that the recipe names, or by the architecture's own. Raises TriptychError for
    `native`."""
    initializer = initializers.parse(recipe.initializer) if recipe.initializer else architecture.initializer
    return initializers.draw(architecture, recipe.seed, initializer)


def start_name(recipe: Recipe, architecture: Architecture) -> str:
    """What the parameters start from, by its name: `xavier_uniform`, `normal:0.01`, ..., or `native`."""
    return recipe.initializer or initializers.text_of(architecture.initializer)


def build_architecture(recipe: Recipe, dataset: Dataset) -> Architecture:
    """The recipe's network for `dataset`: channels and classes as the data has them unless the recipe says. Raises
    TriptychError if the data has more classes than the network."""
    count = len(dataset.class_names)
    options = recipe.network.filled(count, (dataset.train.images.shape[1], 0, 0))
    if recipe.spec is not None and not recipe.spec.classes:
        raise TriptychError(f"'{recipe.spec.name}' has no classes, so it cannot be trained on labels")
    if options.classes < count:
        limit = (
            f"the {options.classes} of '{recipe.spec.name}' are" if recipe.spec else f"--classes {options.classes} is"
        )
        raise TriptychError(f"{limit} less than the {count} classes of '{dataset.name}'")
    return build_network(recipe, options)


def build_network(recipe: Recipe, options: zoo.Options) -> Architecture:
    """The recipe's network: its spec, or that of the zoo with `options`. Raises TriptychError as the zoo does, and for
    a dropout that it has not."""
    built = zoo.build_with(recipe.architecture, options) if recipe.spec is None else recipe.spec
    return built if recipe.dropout is None else rewrite.with_dropout(built, recipe.dropout)


def build_transform(recipe: Recipe, architecture: Architecture) -> InputTransform:
    """How stored images become the network's input. Raises TriptychError for colour jitter of what has no colours."""
    if recipe.augmentation.colour and architecture.input[0] != 3:
        raise TriptychError(f"colour jitter needs a network with 3 channels; this one has {architecture.input[0]}")
    reverse, scale = recipe.channel_order == "bgr", recipe.pixel_range
    if recipe.augmentation.colour and reverse:
        raise TriptychError("colour jitter is of red, green, blue; it goes with --channel-order rgb alone")
    mean = tuple(value / scale for value in recipe.mean)
    std = tuple(value / scale for value in recipe.std or (1.0,) * (architecture.input[0] if scale != 1 else 0))
    return InputTransform(*architecture.input, mean, std, recipe.augmentation.crop_padding, reverse)
