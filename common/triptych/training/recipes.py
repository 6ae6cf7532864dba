"""Recipes: everything that decides a training run, as data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from triptych import zoo
from triptych.data import Dataset
from triptych.data.batches import Augmentation
from triptych.data.preprocess import InputTransform
from triptych.optim import optimizers, schedules
from triptych.optim.optimizers import SGD, Adam, Optimizer, Rates
from triptych.optim.schedules import Moment, OneCycle, Plateau, Schedule, Score
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError, unknown
from triptych.weights import initializers

PRECISIONS = ("fp32", "bf16", "fp16", "fp64")
NATIVE = "native"  # the initialiser that leaves the start to the framework


@dataclass(frozen=True)
class Recipe:
    """One training run on any backend.

    `data` is a data set's name or a folder. `height` and `width` are in pixels; 0 means the architecture's own.
    `classes` and `channels` 0 are those of the data. `test_batch_size` 0 is `batch_size`. `learning_rate` and the
    optimiser's momentum are what `schedule` starts from. `initializer` is the law's name (see
    `triptych.weights.initializers.parse`) or `native`. `init_from`, a run folder or a safetensors file, replaces
    the start of the layers that fit (`triptych.weights.transfer`); what the patterns in `freeze` match does not move.
    """

    name: str
    source: str = ""
    architecture: str = "vgg11"
    data: str = "fashion-mnist-mini"
    height: int = 0
    width: int = 0
    channels: int = 0
    classes: int = 0
    width_ratio: float = 1.0
    dense_width: int | None = None
    head: str | None = None
    batch_size: int = 128
    test_batch_size: int = 0
    epochs: int = 5
    learning_rate: float = 0.05
    optimizer: Optimizer = SGD()  # noqa: RUF009  # frozen, so one shared value is safe
    schedule: Schedule = Schedule()  # noqa: RUF009
    initializer: str = "xavier_uniform"
    init_from: str = ""
    freeze: tuple[str, ...] = ()
    augmentation: Augmentation = Augmentation()  # noqa: RUF009
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise TriptychError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")
        if self.test_batch_size < 0:
            raise TriptychError(f"the batch size {self.test_batch_size} of the test must be at least 0")
        if not 0 <= self.learning_rate < float("inf"):
            raise TriptychError(f"--learning-rate {self.learning_rate} must be a number of at least 0")
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.initializer != NATIVE:
            initializers.parse(self.initializer)

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


# The textbook's first edition trains every one of these for 5 epochs, its later ones for 10.
_D2L_VGG = Recipe(
    name="d2l-vgg",
    source="Dive into Deep Learning, section 8.2: VGG-11, channels / 4, 224x224",
    architecture="vgg11",
    data="fashion-mnist",
    height=224,
    width=224,
    width_ratio=4,
    dense_width=4096,
    epochs=5,
    learning_rate=0.05,
)
_D2L_ALEXNET = replace(
    _D2L_VGG,
    name="d2l-alexnet",
    source="Dive into Deep Learning, section 8.1: AlexNet, 224x224",
    architecture="alexnet",
    width_ratio=1.0,
    dense_width=None,
    learning_rate=0.01,
)
# What is not known of the following texts, as a batch size or the start, is as in the textbook.
_ADAM_ALEXNET = replace(
    _D2L_ALEXNET,
    name="adam-alexnet",
    source="a text on simplifying AlexNet for Fashion-MNIST: Adam at 0.002, the best of three learning rates",
    epochs=3,
    learning_rate=0.002,
    optimizer=Adam(),
)
_PLAIN_VGG16 = replace(
    _D2L_VGG,
    name="plain-vgg16",
    source="a text that trains VGG-16 unchanged, but for 10 classes and grey images, with SGD at 0.05",
    architecture="vgg16",
    classes=10,
    width_ratio=1.0,
    dense_width=None,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        _D2L_VGG,
        _D2L_ALEXNET,
        replace(
            _D2L_ALEXNET,
            name="d2l-nin",
            source="Dive into Deep Learning, section 8.3: NiN, 224x224, and the first edition's learning rate",
            architecture="nin",
            learning_rate=0.1,
        ),
        replace(
            _D2L_ALEXNET,
            name="d2l-googlenet",
            source="Dive into Deep Learning, section 8.4: GoogLeNet, 96x96, and the first edition's learning rate",
            architecture="googlenet_d2l",
            height=96,
            width=96,
            learning_rate=0.1,
        ),
        Recipe(
            name="d2l-lenet",
            source="Dive into Deep Learning, section 7.6",
            architecture="lenet",
            data="fashion-mnist",
            height=28,
            width=28,
            batch_size=256,
            epochs=10,
            learning_rate=0.9,
        ),
        replace(
            _D2L_VGG,
            name="adam-vgg",
            source="a text on VGG-11 for Fashion-MNIST: channels / 8, dense layers of 512, Adam at 0.001",
            width_ratio=8,
            dense_width=512,
            learning_rate=0.001,
            optimizer=Adam(),
        ),
        _ADAM_ALEXNET,
        *(
            replace(
                _ADAM_ALEXNET,
                name=f"adam-alexnet-{rate}",
                source=f"the same text: Adam at {rate}, one of three learning rates",
                learning_rate=rate,
            )
            for rate in (0.004, 0.001)
        ),
        _PLAIN_VGG16,
        replace(
            _PLAIN_VGG16,
            name="plain-vgg19",
            source="the same text: VGG-19",
            architecture="vgg19",
        ),
        Recipe(
            name="ascend-cifar10",
            # From Kaiming's start nothing is learned: dropout behind every convolution lets the first loss be 205.
            source="a text on VGG-11 for CIFAR-10 on Ascend: OneCycle of 150 epochs, stopped after 60. It leaves the "
            "start to PyTorch (`--init native`); here it is Xavier's for all backends",
            architecture="vgg11",
            data="cifar10",
            height=32,
            width=32,
            channels=3,
            head="small",
            batch_size=128,
            test_batch_size=100,
            epochs=60,
            learning_rate=1.0,  # given to SGD, as no momentum is; the schedule overwrites both
            optimizer=SGD(weight_decay=5e-4),
            schedule=OneCycle(total_epochs=150, maximum=0.1),
            augmentation=Augmentation(crop_padding=4, flip=True),
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
        ),
        Recipe(
            name="imagenet-vgg",
            source="Simonyan and Zisserman 2014, section 3.1: column D, images of one scale. The paper cuts 224 out of "
            "256 pixels, here the whole image is shifted; after how many epochs it divides the rate is not stated",
            architecture="vgg16",
            data="./imagenet",  # class folders; `--data` says where
            height=224,
            width=224,
            channels=3,
            classes=1000,
            batch_size=256,
            epochs=74,
            learning_rate=0.01,
            optimizer=SGD(momentum=0.9, weight_decay=5e-4),
            schedule=Plateau(measure="accuracy", patience=2),
            augmentation=Augmentation(crop_padding=16, flip=True, colour=0.1),
            mean=(0.485, 0.456, 0.406),
            std=(1 / 255,) * 3,  # the paper subtracts the mean of pixels of 0 .. 255 and divides by nothing
        ),
        Recipe(
            name="compare",
            source="the short training of `triptych compare`: small enough for minutes on two cores",
            architecture="vgg11",
            data="fashion-mnist-mini",
            height=32,
            width=32,
            width_ratio=8,
            batch_size=32,
            epochs=4,
            learning_rate=0.02,
            optimizer=SGD(momentum=0.9),
            initializer="kaiming_uniform",  # with Xavier it takes most of these few steps to start learning
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe `name`. Raises TriptychError with the nearest match if there is none."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def build_architecture(recipe: Recipe, dataset: Dataset) -> Architecture:
    """The recipe's network for `dataset`: channels and classes as the data has them unless the recipe says.

    Raises TriptychError if the data has more classes than the network.
    """
    entry = zoo.get_entry(recipe.architecture)
    classes = recipe.classes or len(dataset.class_names)
    if classes < len(dataset.class_names):
        raise TriptychError(
            f"--classes {classes} is less than the {len(dataset.class_names)} classes of '{dataset.name}'"
        )
    return zoo.build(
        recipe.architecture,
        input=(
            recipe.channels or dataset.train.images.shape[1],
            recipe.height or entry.input[1],
            recipe.width or entry.input[2],
        ),
        classes=classes,
        width_ratio=recipe.width_ratio,
        dense_width=recipe.dense_width,
        head=recipe.head,
    )


def build_transform(recipe: Recipe, architecture: Architecture) -> InputTransform:
    """How stored images become the network's input. Raises TriptychError for colour jitter of what has no colours."""
    if recipe.augmentation.colour and architecture.input[0] != 3:
        raise TriptychError(f"colour jitter needs a network with 3 channels; this one has {architecture.input[0]}")
    return InputTransform(*architecture.input, recipe.mean, recipe.std, recipe.augmentation.crop_padding)


def to_json(recipe: Recipe) -> str:
    """The recipe as readable JSON."""
    return json.dumps(dataclasses.asdict(recipe), indent=2)


def from_json(text: str, source: str = "this") -> Recipe:
    """The recipe written by `to_json`. Raises TriptychError, which names the `source`, if it is not one."""
    try:
        values: dict[str, Any] = json.loads(text)
        values["optimizer"] = optimizers.from_dict(values["optimizer"])
        if "schedule" in values:  # older files have none
            values["schedule"] = schedules.from_dict(values["schedule"])
        values["augmentation"] = Augmentation(**values["augmentation"])
        values |= {name: tuple(values.get(name, ())) for name in ("mean", "std", "freeze")}
        return Recipe(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TriptychError(f"{source} is no recipe: {error}") from None
