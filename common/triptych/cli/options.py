"""Options that several commands share, and how they become specs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from cyclopts import Token

    from triptych.backend.contract import Backend
    from triptych.optim.optimizers import Optimizer
    from triptych.optim.schedules import Schedule
    from triptych.spec.layers import Architecture
    from triptych.training.recipe import Recipe
    from triptych.zoo import Options


def whole(kind: Any, tokens: Sequence[Token]) -> int:
    """A whole number; cyclopts itself would round 1.5 to 2."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise TriptychError(f"{tokens[0].keyword} '{text}' is not a whole number") from None


def writable(option: str) -> Callable[[Any, Any], None]:
    """A check of the file given with `option`: raises TriptychError if there is no writing to it. At once, not when
    hours of work are done."""

    def check(kind: Any, target: str | Path | None) -> None:
        import tempfile

        if target is None or str(target) == "-":
            return
        path = Path(target)
        if path.is_dir():
            raise TriptychError(f"{option} {target} is a folder; give a file")
        try:
            with tempfile.TemporaryFile(dir=next(folder for folder in path.absolute().parents if folder.exists())):
                return
        except OSError as error:
            raise TriptychError(f"{option} {target} cannot be written: {error.strerror}") from None

    return check


def picture(option: str) -> Callable[[Any, Any], None]:
    """A check of the figure's file given with `option`: a format that can be drawn, and a place to write to."""

    def check(kind: Any, target: Path | None) -> None:
        if target is not None and target.suffix not in (".png", ".svg", ".pdf"):
            raise TriptychError(f"{option} {target} must end in .png, .svg or .pdf")
        writable(option)(kind, target)

    return check


# cyclopts would offer --no-NAME and --empty-NAME for flags and lists.
Flag = Annotated[bool, Parameter(negative="")]
JsonFile = Annotated[
    str | None,
    Parameter(name="--json", help="Print JSON; with FILE (.json), write it there.", validator=writable("--json")),
]
Whole = Annotated[int | None, Parameter(converter=whole)]
DeviceName = Annotated[str, Parameter(name="--device", help="cpu, cuda[:i] or npu[:i].")]
Dense = Annotated[
    Flag, Parameter(help="Dense layers as convolutions over images of their own size; scores are averaged.")
]
DenseSize = Annotated[str | None, Parameter(help="The size that --dense is run at: N or HxW, not below training's.")]
Backends = Annotated[str | None, Parameter(help="Comma-separated; all that are installed if left out.")]


@Parameter(name="*")
@dataclass
class NetworkOptions:
    """What may be changed about an architecture."""

    input: Annotated[str | None, Parameter(help="Input as CxHxW, e.g. 1x224x224.")] = None
    resolution: Annotated[Whole, Parameter(help="Height and width of the input in pixels.")] = None
    classes: Annotated[Whole, Parameter(help="Number of classes.")] = None
    width_ratio: Annotated[float | None, Parameter(help="Divide channels, and dense widths, by this.")] = None
    dense_width: Annotated[Whole, Parameter(help="Width of the dense layers before the last.")] = None
    head: Annotated[str | None, Parameter(help="Head of the network, e.g. paper or small for VGG.")] = None

    def shape(self) -> tuple[int, int, int] | None:
        """`--input` as numbers. Raises TriptychError if it is not CxHxW, or contradicts `--resolution`."""
        from triptych.zoo import check_count

        if self.input is None:
            return None
        match = re.fullmatch(r"(\d+)[x,](\d+)[x,](\d+)", self.input.strip().lower())
        if match is None:
            raise TriptychError(f"--input '{self.input}' is not CxHxW; write for example 1x224x224")
        if self.resolution is not None:
            raise TriptychError("give --input or --resolution, not both")
        channels, height, width = map(int, match.groups())
        for number in (channels, height, width):
            check_count("--input", number)
        return channels, height, width

    def options(self, name: str) -> Options:
        """These options for architecture `name`, complete."""
        from triptych import zoo

        entry = zoo.get_entry(name)
        return zoo.Options().vary(**self.changes()).filled(entry.classes, entry.input)

    def build(self, name: str) -> Architecture:
        """Architecture `name` with these options."""
        from triptych import zoo

        return zoo.build_with(name, self.options(name))

    def changes(self) -> dict[str, Any]:
        """What these options change in others (see `zoo.Options.vary`). Raises TriptychError for values that no network
        can have."""
        from triptych.zoo import check_count

        changed: dict[str, Any] = {}
        if (shape := self.shape()) is not None:
            changed["input"] = shape
        for name in ("resolution", "classes", "dense_width"):
            if getattr(self, name) is not None:
                check_count(f"--{name.replace('_', '-')}", getattr(self, name))
        if self.resolution is not None:
            changed["size"] = (self.resolution, self.resolution)
        if self.width_ratio is not None:
            # A ratio narrows the dense layers too, unless their width is given with it.
            changed |= {"width_ratio": self.width_ratio, "dense_width": None}
        for name in ("classes", "dense_width", "head"):
            if getattr(self, name) is not None:
                changed[name] = getattr(self, name)
        return changed


@Parameter(name="*")
@dataclass
class RunOptions:
    """What may be changed about a recipe."""

    arch: Annotated[str | None, Parameter(help="Architecture; `triptych archs` lists them.")] = None
    data: Annotated[
        str | None, Parameter(help="Data set, or a folder of class folders; 'SET@classes=5-9,train=500': a part of it.")
    ] = None
    data_dir: Annotated[Path | None, Parameter(help="Where the data set's files lie.")] = None
    epochs: Annotated[Whole, Parameter(help="Passes over the training images.")] = None
    batch_size: Annotated[Whole, Parameter(help="Images per step.")] = None
    learning_rate: Annotated[float | None, Parameter(help="Learning rate.")] = None
    schedule: Annotated[
        str | None, Parameter(help="constant, step:every=2,factor=0.5, cosine, one-cycle, plateau or polynomial.")
    ] = None
    optimizer: Annotated[str | None, Parameter(help="sgd, adam or adamw.")] = None
    momentum: Annotated[float | None, Parameter(help="Momentum of SGD.")] = None
    nesterov: Annotated[bool | None, Parameter(help="Nesterov's form of the momentum.")] = None
    weight_decay: Annotated[float | None, Parameter(help="Weight decay; coupled, but in AdamW.")] = None
    decayed: Annotated[str | None, Parameter(help="What decays: all, or the weights only.")] = None
    init: Annotated[str | None, Parameter(help="xavier_uniform, kaiming_normal, normal:0.01, ..., or native.")] = None
    init_from: Annotated[str | None, Parameter(help="Run folder or safetensors file: layers that fit start so.")] = None
    freeze: Annotated[str | None, Parameter(help="What does not move, e.g. 'block1.*,block2.*'.")] = None
    precision: Annotated[str | None, Parameter(help="fp32, bf16, fp16 or fp64.")] = None
    seed: Annotated[Whole, Parameter(help="Seed of everything random.")] = None

    def apply(self, recipe: Recipe, network: NetworkOptions) -> Recipe:
        """The recipe with what was given on the command line."""
        from triptych.training.recipe import vary

        changed = {**self.of_another_architecture(recipe), **network.changes()}
        names = {"arch": "architecture", "data": "data", "init": "initializer", "init_from": "init_from"}
        same = ("epochs", "batch_size", "learning_rate", "precision", "seed")
        for option, field in (*names.items(), *((name, name) for name in same)):
            if getattr(self, option) is not None:
                changed[field] = getattr(self, option)
        if self.freeze is not None:
            changed["freeze"] = tuple(pattern.strip() for pattern in self.freeze.split(",") if pattern.strip())
            if not changed["freeze"]:
                raise TriptychError(f"--freeze '{self.freeze}' names nothing; write for example 'block1.*,block2.*'")
        if self.batch_size is not None:
            changed["test_batch_size"] = 0
        changed["schedule"] = self.apply_to_schedule(recipe.schedule)
        return vary(recipe, **changed, optimizer=self.apply_to_optimizer(recipe.optimizer))

    def of_another_architecture(self, recipe: Recipe) -> dict[str, Any]:
        """What changes in a recipe with `--arch`.

        What it says of the first one's head and dense width does not hold for another one, and a small one (LeNet)
        cannot be made as narrow, and gains nothing from larger images than its own.
        """
        from triptych import zoo

        if self.arch is None or self.arch == recipe.architecture:
            return {}
        entry = zoo.get_entry(self.arch)
        sizes = zip(recipe.network.input[1:], entry.input[1:], strict=True)
        return {
            "head": None,
            "dense_width": None,
            "width_ratio": min(recipe.network.width_ratio, entry.conformance[0]),
            "size": tuple(min(size or most, most) for size, most in sizes),
        }

    def apply_to_schedule(self, schedule: Schedule) -> Schedule:
        """The schedule that was given, or the recipe's. Raises TriptychError for a momentum that would not count."""
        from dataclasses import replace

        from triptych.optim import schedules

        if self.schedule is not None:
            schedule = schedules.parse(self.schedule)
        elif isinstance(schedule, schedules.OneCycle) and self.learning_rate is not None:
            schedule = replace(schedule, maximum=0.0)  # of what is given
        if isinstance(schedule, schedules.OneCycle) and self.momentum is not None:
            raise TriptychError("--momentum: one-cycle sets it itself; give its high_momentum and low_momentum instead")
        return schedule

    def apply_to_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """The optimiser with what was given; another kind takes over what both have, as the weight decay."""
        from dataclasses import fields, replace

        from triptych.optim.optimizers import get_kind

        if self.optimizer is not None:
            optimizer = optimizer.as_kind(get_kind(self.optimizer))
        known = {item.name for item in fields(optimizer)}
        changed = {}
        for name in ("momentum", "nesterov", "weight_decay", "decayed"):
            value = getattr(self, name)
            if value and name not in known:
                raise TriptychError(f"--{name} belongs to sgd; '{optimizer.name}' has none")
            if value is not None and name in known:
                changed[name] = value
        return replace(optimizer, **changed)


def load_backend(name: str | None) -> Backend:
    """The backend `name`, or the first that is installed."""
    from triptych.backend import registry

    return registry.load(name if name is not None else default_backend())


def default_backend() -> str:
    """The first backend whose framework is installed. Raises TriptychError if there is none."""
    from triptych.backend import registry

    names = registry.installed()
    if not names:
        raise TriptychError("no framework is installed; install one with: pip install 'triptych[torch]'")
    return names[0]


def load_backends(names: str | None) -> list[Backend]:
    """The backends in a comma-separated list, each once, or all that are installed."""
    from triptych.backend import registry

    if names is None:
        default_backend()
        return [registry.load(name) for name in registry.installed()]
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise TriptychError(f"'{names}' names no backend; write for example torch,jax")
    for name in wanted:
        registry.check_installed(name)
    return [registry.load(name) for name in wanted]


def write_json(target: str, value: object) -> None:
    """JSON to stdout for "-", else to a file. Raises TriptychError if the file cannot be written."""
    import json

    from triptych.utils.files import write_atomically

    text = json.dumps(value, indent=2) + "\n"
    if target == "-":
        print(text, end="")
        return
    path = Path(target)
    try:
        if path.exists() and not path.is_file():
            path.write_text(text)  # a pipe or a device, as /dev/null, is written to, not replaced by a file
        else:
            write_atomically(path, text.encode())
    except OSError as error:
        raise TriptychError(f"--json {target} cannot be written: {error.strerror}") from None
