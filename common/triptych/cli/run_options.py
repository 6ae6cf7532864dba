"""The options of a training and of a trained model, checked before anything that they name is looked for."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych import zoo
from triptych.cli.arch import is_zoo, resolve
from triptych.cli.options import DEFAULT_NETWORK, NetworkOptions, Scale16Bit, SkipBadImages, Whole
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.importers.steps import Imported
    from triptych.optim.optimizers import Optimizer
    from triptych.optim.schedules import Schedule
    from triptych.spec.layers import Pair
    from triptych.training.models import Model
    from triptych.training.recipe import Recipe


@Parameter(name="*")
@dataclass
class UseOptions:
    """What may be said of a model that is used: its network, the images, and what the network is to see of them."""

    arch: Annotated[str | None, Parameter(help="Architecture (`triptych archs` lists them), file, or module:name.")] = (
        None
    )
    data: Annotated[
        str | None, Parameter(help="Data set, or a folder of class folders; 'SET@classes=5-9,train=500': a part of it.")
    ] = None
    data_dir: Annotated[Path | None, Parameter(help="Where the data set's files lie.")] = None
    batch_size: Annotated[Whole, Parameter(help="Images per step.")] = None
    mean: Annotated[str | None, Parameter(help="Subtracted from each channel, e.g. 0.485,0.456,0.406.")] = None
    std: Annotated[str | None, Parameter(help="Each channel is divided by it, e.g. 0.229,0.224,0.225.")] = None
    pixel_range: Annotated[
        float | None, Parameter(help="The network sees pixels of 0 to this: 1, or 255; so are --mean and --std.")
    ] = None
    channel_order: Annotated[str | None, Parameter(help="rgb, or bgr for weights from Caffe or OpenCV.")] = None
    skip_bad_images: SkipBadImages = None
    scale_16_bit: Scale16Bit = None
    precision: Annotated[str | None, Parameter(help="fp32, bf16, fp16 or fp64.")] = None


@Parameter(name="*")
@dataclass
class StartOptions(UseOptions):
    """The same, where there may be no model yet, and what its start would be."""

    init: Annotated[
        str | None, Parameter(help="xavier_uniform, normal:0.01, ... or native; else as recipe or spec say.")
    ] = None
    seed: Annotated[Whole, Parameter(help="Seed of everything random.")] = None


@Parameter(name="*")
@dataclass
class RunOptions(StartOptions):
    """What may be changed about a recipe."""

    epochs: Annotated[Whole, Parameter(help="Passes over the training images.")] = None
    learning_rate: Annotated[float | None, Parameter(help="Learning rate.")] = None
    schedule: Annotated[
        str | None,
        Parameter(help="constant, step:every=2, multistep:milestones=30,60, warmup:then=cosine, one-cycle, ..."),
    ] = None
    optimizer: Annotated[
        str | None, Parameter(help="sgd, adam, adamw, rmsprop or adagrad; with its numbers: adam:beta1=0.8,eps=1e-7.")
    ] = None
    momentum: Annotated[float | None, Parameter(help="Momentum of SGD or RMSprop.")] = None
    nesterov: Annotated[bool | None, Parameter(help="Nesterov's form of the momentum.")] = None
    weight_decay: Annotated[float | None, Parameter(help="Weight decay; coupled, but in AdamW.")] = None
    decayed: Annotated[str | None, Parameter(help="What decays: all, or the weights only.")] = None
    multipliers: Annotated[
        str | None, Parameter(help="Rate and decay of single ones, times: 'conv*:rate=0.1 *.bias:rate=2,decay=0'.")
    ] = None
    dropout: Annotated[float | None, Parameter(help="The rate of all the network's dropout layers.")] = None
    label_smoothing: Annotated[
        float | None, Parameter(help="What the true class gives to all, 0.1 for example; the test's loss is without.")
    ] = None
    init_from: Annotated[
        str | None,
        Parameter(help="Run folder or safetensors file: layers that fit start so. train: any file of weights."),
    ] = None
    new_head: Annotated[
        bool | None, Parameter(help="Leave the last layer out of --init-from, also where it would fit.", negative="")
    ] = None
    freeze: Annotated[str | None, Parameter(help="What does not move, e.g. 'block1.*,block2.*'.")] = None
    masks: Annotated[
        str | None, Parameter(help="Dropout's: own (each framework draws its own) or shared (all backends the same).")
    ] = None
    accumulate: Annotated[Whole, Parameter(help="Micro-batches of a batch, whose gradients are added.")] = None
    batch_norm: Annotated[
        str | None, Parameter(help="With several devices: synchronised, or local to each one's images.")
    ] = None

    def choose(self, recipe: Recipe, network: NetworkOptions) -> Recipe:
        """The recipe with what the command line says, whose network can be built, and frozen as it says. That is found
        out before any data is looked for: what is left open is taken from the architecture's source."""
        from triptych.optim.multipliers import factors_of
        from triptych.training.recipe import build_network
        from triptych.weights import transfer

        before, recipe = recipe, self.apply(recipe, network)
        if self.learning_rate is None and recipe.optimizer.normalized > before.optimizer.normalized:
            print(
                f"triptych: --optimizer {recipe.optimizer.name} takes the recipe's rate, {recipe.learning_rate:g}, "
                f"which is one for {before.optimizer.name}: give --learning-rate too, 0.001 for example",
                file=sys.stderr,
            )
        checked = self.arch, self.freeze, self.dropout, self.multipliers
        if checked != (None,) * len(checked) or network != DEFAULT_NETWORK:
            architecture = build_network(recipe, recipe.network)
            transfer.frozen_paths(architecture, recipe.freeze)
            factors_of(recipe.optimizer.multipliers, architecture)
        return recipe

    def apply(self, recipe: Recipe, network: NetworkOptions) -> Recipe:
        """The recipe with what the command line says. Raises TriptychError for values that no recipe can have."""
        from triptych.training.recipe import vary

        changed = self.of_another_architecture(recipe, network)
        for name in PLAIN:
            if (value := getattr(self, name)) is not None:
                changed[{"init": "initializer"}.get(name, name)] = value
        if self.freeze is not None:
            changed["freeze"] = tuple(pattern.strip() for pattern in self.freeze.split(",") if pattern.strip())
            if not changed["freeze"]:
                raise TriptychError(f"--freeze '{self.freeze}' names nothing; write for example 'block1.*,block2.*'")
        for name in ("mean", "std"):
            if (text := getattr(self, name)) is not None:
                changed[name] = numbers(f"--{name}", text)
        if self.batch_size is not None:
            changed["test_batch_size"] = 0
        changed["schedule"] = self.apply_to_schedule(recipe.schedule)
        changed["optimizer"] = self.apply_to_optimizer(recipe.optimizer)
        return vary(recipe, **changed)

    def of_another_architecture(self, recipe: Recipe, network: NetworkOptions) -> dict[str, Any]:
        """What changes in a recipe with `--arch` and the network's options.

        A network that is none of the zoo comes whole, and with its own start.

        What it says of the first one's head and dense width does not hold for another one, and a small one (LeNet)
        cannot be made as narrow, and gains nothing from larger images than its own. A start that is the first one's own
        becomes the other's own; one that departs from it belongs to the recipe, and stays.
        """
        if self.arch is None or self.arch == recipe.architecture:
            return network.changes()
        if not is_zoo(self.arch):
            architecture = resolve(self.arch, network).architecture
            own = {"architecture": architecture.name, "spec": architecture, "initializer": ""}
            return own | {"network": zoo.Options(architecture.classes, architecture.input)}
        from triptych.weights import initializers

        entry = zoo.get_entry(self.arch)
        sizes = zip(recipe.network.input[1:], entry.input[1:], strict=True)
        first_start = initializers.text_of(zoo.get_entry(recipe.architecture).initializer)
        adapted = {
            "architecture": self.arch,
            "spec": None,
            "initializer": "" if recipe.initializer == first_start else recipe.initializer,
            "head": None,
            "dense_width": None,
            "width_ratio": min(recipe.network.width_ratio, entry.conformance[0]),
            "size": tuple(min(size or most, most) for size, most in sizes),
        }
        return adapted | network.changes()

    def apply_to_schedule(self, schedule: Schedule) -> Schedule:
        """The schedule that `--schedule` names, or the recipe's. Raises TriptychError for a momentum without effect."""
        from triptych.optim import schedules

        if self.schedule is not None:
            schedule = schedules.parse(self.schedule)
        elif isinstance(schedule, schedules.OneCycle) and self.learning_rate is not None:
            schedule = replace(schedule, maximum=0.0)  # the learning rate on the command line is the maximum
        if isinstance(schedule, schedules.OneCycle) and self.momentum is not None:
            raise TriptychError("--momentum: one-cycle sets it itself; give its high_momentum and low_momentum instead")
        return schedule

    def apply_to_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """The optimiser with what the command line says; another kind takes over what both have."""
        from triptych.optim import multipliers
        from triptych.optim.optimizers import get_kind, settings_of

        if self.optimizer is not None:
            name, _, settings = self.optimizer.partition(":")
            optimizer = optimizer.as_kind(get_kind(name))
            optimizer = replace(optimizer, **(settings_of(type(optimizer), settings) if settings else {}))
        known = {item.name for item in fields(optimizer)}
        changed = {}
        for name in ("momentum", "nesterov", "weight_decay", "decayed"):
            value = getattr(self, name)
            if value and name not in known:
                raise TriptychError(f"--{name} belongs to {OWNERS[name]}; '{optimizer.name}' has none")
            if value is not None and name in known:
                changed[name] = value
        if self.multipliers is not None:
            changed["multipliers"] = multipliers.parse(self.multipliers)
        return replace(optimizer, **changed)


PLAIN = (
    *("data", "init", "init_from", "epochs", "batch_size", "learning_rate", "dropout", "label_smoothing"),
    *("precision", "masks", "seed", "pixel_range", "channel_order", "skip_bad_images", "scale_16_bit", "new_head"),
    *("accumulate", "batch_norm"),
)
OWNERS = {"momentum": "sgd and rmsprop", "nesterov": "sgd"}
DEFAULT_RUN, DEFAULT_START, DEFAULT_USE = RunOptions(), StartOptions(), UseOptions()


def numbers(option: str, text: str) -> tuple[float, ...]:
    """`0.5,0.4,0.3`. Raises TriptychError for anything but numbers."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise TriptychError(f"{option} '{text}' is not numbers, one per channel, with commas") from None
    if not all(map(math.isfinite, found)):
        raise TriptychError(f"{option} '{text}' must be finite")
    return found


def parse_dense_size(dense: bool, text: str | None) -> Pair | None:
    """`--dense-size 64` or `48x64` as (height, width). Raises TriptychError for other text, and without `--dense`."""
    if text is None:
        return None
    if not dense:
        raise TriptychError("--dense-size says at which size --dense is run; give --dense too")
    match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text.strip().lower())
    if match is None:
        raise TriptychError(f"--dense-size '{text}' is neither N nor HxW; write for example 256 or 256x384")
    return int(match[1]), int(match[2] or match[1])


@dataclass
class ModelOptions:
    """The options of a trained model, checked: a bare file needs them all, a run folder knows its own recipe."""

    use: UseOptions
    network: NetworkOptions

    def __post_init__(self) -> None:
        from triptych.training.recipe import Recipe

        self.run = RunOptions(**vars(self.use))
        chosen = self.run.apply if self.run.arch is None else self.run.choose
        self.recipe = chosen(Recipe("file"), self.network)

    def load(self, path: Path) -> Model:
        """The model at `path`: a run folder, a network with weights of its own, or a file of weights for `--arch`.
        Raises TriptychError if there is none, or its options do not belong to it."""
        from triptych.porting import sources
        from triptych.training import models

        if path.is_dir():
            # A model that was trained in bf16 can be used where there is none, and in batches that fit another device.
            kept = ("precision", "batch_size", "skip_bad_images", "scale_16_bit")
            changes = RunOptions(**{name: getattr(self.use, name) for name in kept})
            if self.network != DEFAULT_NETWORK or replace(self.run, data=None, data_dir=None) != changes:
                raise TriptychError(
                    f"{path} is a run and knows its recipe; only --backend, --device, --data, --data-dir, --precision, "
                    "--batch-size, --skip-bad-images and --scale-16-bit can be given"
                )
            trained = models.load_run(path)
            if trained.remark:
                print(trained.remark, file=sys.stderr)
            return replace(trained, recipe=changes.apply(trained.recipe, DEFAULT_NETWORK))
        if self.run.arch is None and sources.is_source(str(path)):
            return self._own(resolve(str(path), self.network), path)
        if not path.exists():
            raise TriptychError(f"there is no run folder or model file {path}")
        if self.run.arch is None:
            way_out = "say which network with --arch (and --input, --classes, ...)"
            raise TriptychError(f"{path} holds parameters only; {way_out}")
        return self._own(resolve(self.run.arch, replace(self.network, weights=path)), path)

    def _own(self, imported: Imported, path: Path) -> Model:
        """A network with its own weights. Raises TriptychError for one that has none, or no classes."""
        from triptych.training.models import Model

        architecture = imported.architecture
        if imported.parameters is None:
            raise TriptychError(f"{path} has no weights; give them with --weights, or train it first")
        if not architecture.classes:
            raise TriptychError(f"'{architecture.name}' in {path} has no classes, so it classifies nothing")
        network = zoo.Options(architecture.classes, architecture.input)
        recipe = replace(self.recipe, architecture=architecture.name, spec=architecture, network=network)
        return Model(recipe, architecture, dict(imported.parameters), ())
