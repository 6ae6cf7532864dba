"""Recipes: everything that decides a training run, as data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from triptych import initializers, zoo
from triptych.batches import Augmentation
from triptych.data import Dataset
from triptych.errors import TriptychError, unknown
from triptych.optimizers import Optimizer, Rates
from triptych.preprocess import InputTransform
from triptych.spec import Architecture

PRECISIONS = ("fp32", "bf16", "fp16", "fp64")
NATIVE = "native"  # the initialiser that leaves the start to the framework


@dataclass(frozen=True)
class Recipe:
    """One training run on any backend.

    `data` is a data set's name or a folder. `height` and `width` are in pixels; 0 means the architecture's own.
    `classes` and `channels` 0 are those of the data. `learning_rate` is constant. `initializer` is the law's name
    (see `triptych.initializers.parse`) or `native`. `init_from`, a run folder or a safetensors file, replaces the start
    of the layers that fit (`triptych.transfer`); what the patterns in `freeze` match does not move.
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
    epochs: int = 5
    learning_rate: float = 0.05
    optimizer: Optimizer = Optimizer()  # noqa: RUF009  # frozen, so one shared value is safe
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
        if not 0 <= self.learning_rate < float("inf"):
            raise TriptychError(f"--learning-rate {self.learning_rate} must be a number of at least 0")
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.initializer != NATIVE:
            initializers.parse(self.initializer)

    def rates(self, step: int) -> Rates:
        """Learning rate and momentum of a step, counted from 0 over the whole run."""
        return Rates(self.learning_rate, self.optimizer.momentum)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
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
            optimizer=Optimizer(momentum=0.9),
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
    """How stored images become the network's input."""
    return InputTransform(*architecture.input, recipe.mean, recipe.std, recipe.augmentation.crop_padding)


def to_json(recipe: Recipe) -> str:
    """The recipe as readable JSON."""
    return json.dumps(dataclasses.asdict(recipe), indent=2)


def from_json(text: str, source: str = "this") -> Recipe:
    """The recipe written by `to_json`. Raises TriptychError, which names the `source`, if it is not one."""
    try:
        values: dict[str, Any] = json.loads(text)
        values["optimizer"] = Optimizer(**values["optimizer"])
        values["augmentation"] = Augmentation(**values["augmentation"])
        values |= {name: tuple(values.get(name, ())) for name in ("mean", "std", "freeze")}
        return Recipe(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TriptychError(f"{source} is no recipe: {error}") from None
