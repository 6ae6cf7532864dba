"""Options that several commands share, and how they become specs."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych import zoo
from triptych.utils.errors import TriptychError, require_package
from triptych.utils.files import probe, told, write_atomically
from triptych.utils.terminal import report_stream
from triptych.zoo import Options, check_count

if TYPE_CHECKING:
    from cyclopts import Token


MOST_PROCESSES = 1024  # more than any machine has devices


def whole(kind: Any, tokens: Sequence[Token]) -> int:
    """A whole number; cyclopts itself would round 1.5 to 2."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise TriptychError(f"{tokens[0].keyword} '{text}' is not a whole number") from None


def positive(kind: Any, tokens: Sequence[Token]) -> int:
    """A whole number of at least 1."""
    number = whole(kind, tokens)
    check_count(str(tokens[0].keyword), number)
    return number


def several(kind: Any, tokens: Sequence[Token]) -> int:
    """A number of processes or devices: of at least 1, and none that would take the machine down."""
    number = positive(kind, tokens)
    if number > MOST_PROCESSES:
        raise TriptychError(f"{tokens[0].keyword} {tokens[0].value} must be at most {MOST_PROCESSES} on one machine")
    return number


def writable(option: str) -> Callable[[Any, Any], None]:
    """A check of the file given with `option`: raises TriptychError if there is no writing to it. At once, not when
    hours of work are done."""

    def check(kind: Any, target: str | Path | None) -> None:
        if target is None or str(target) == "-":
            return
        path = Path(target)
        if path.is_dir():
            raise TriptychError(f"{option} {target} is a folder; give a file")
        check_place(option, target, path.absolute().parent)

    return check


def check_place(option: str, target: str | Path, folder: Path) -> None:
    """Raises TriptychError if nothing can be written below `folder`, which need not be there yet."""
    with told(f"{option} {target} cannot be written"):
        probe(folder)


def check_log(target: str) -> None:
    """Raises TriptychError if TensorBoard is not here, with how to install it, or if the target is a file, or no place
    for a folder."""
    require_package("tensorboard", "tensorboard", "--tensorboard")
    if Path(target).is_file():
        raise TriptychError(f"--tensorboard {target} is a file; give a folder")
    check_place("--tensorboard", target, Path(target).absolute())


def written(option: str, text: str) -> Parameter:
    """The parameter of a file given with `option`, with its help."""
    return Parameter(help=text, validator=writable(option))


def picture(option: str, text: str) -> Parameter:
    """The parameter of a figure's file given with `option`, with its help; refused unless it is of a format that can be
    drawn, and can be written."""

    def check(kind: Any, target: Path | None) -> None:
        if target is not None and target.suffix not in (".png", ".svg", ".pdf"):
            raise TriptychError(f"{option} {target} must end in .png, .svg or .pdf")
        writable(option)(kind, target)

    return Parameter(help=text, validator=check)


# cyclopts would offer --no-NAME and --empty-NAME for flags and lists.
Flag = Annotated[bool, Parameter(negative="")]
JsonFile = Annotated[
    str | None,
    Parameter(name="--json", help="Print JSON; with FILE (.json), write it there.", validator=writable("--json")),
]
Whole = Annotated[int | None, Parameter(converter=whole)]
Positive = Annotated[int | None, Parameter(converter=positive)]
Several = Annotated[int | None, Parameter(converter=several)]
Number = Annotated[int, Parameter(converter=whole)]
Seed = Annotated[Number, Parameter(help="Seed of parameters, images and masks.")]
TrainedModel = Annotated[
    Path,
    Parameter(help="A run folder; a network with weights: file, or module:name; or a file of weights with --arch."),
]
BackendName = Annotated[str | None, Parameter(help="torch, mxnet or jax; the first installed if left out.")]
DeviceName = Annotated[str, Parameter(name="--device", help="cpu, cuda[:i] or npu[:i].")]
SigningKey = Annotated[
    Path | None, Parameter(help="Sign the certificate with this private Ed25519 key (PEM): FILE.sig beside it.")
]
Dense = Annotated[
    Flag, Parameter(help="Dense layers as convolutions over images of their own size; scores are averaged.")
]
DenseSize = Annotated[str | None, Parameter(help="The size that --dense is run at: N or HxW, not below training's.")]
SkipBadImages = Annotated[bool | None, Parameter(help="Leave out image files that cannot be read.", negative="")]
Scale16Bit = Annotated[
    bool | None, Parameter(help="Bring images of 16 bits to 8 instead of refusing them.", negative="")
]
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
    weights: Annotated[Path | None, Parameter(help="File with the parameters of a network without its own.")] = None
    output: Annotated[
        str | None,
        Parameter(name=("--output", "--until"), help="Nodes of an imported network that it ends in, with commas."),
    ] = None
    keep_softmax: Annotated[Flag, Parameter(help="Leave the softmax at the end of an imported network.")] = False

    def shape(self) -> tuple[int, int, int] | None:
        """`--input` as numbers. Raises TriptychError if it is not CxHxW, or contradicts `--resolution`."""
        if self.input is None:
            return None
        match = re.fullmatch(r"([0-9]{1,9})[x,]([0-9]{1,9})[x,]([0-9]{1,9})", self.input.strip().lower())
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
        entry = zoo.get_entry(name)
        return Options().vary(**self.changes()).filled(entry.classes, entry.input)

    def changes(self) -> dict[str, Any]:
        """What these options change in others (see `zoo.Options.vary`). Raises TriptychError for values that no network
        can have."""
        options = {"input": self.shape(), "width_ratio": self.width_ratio, "classes": self.classes, "head": self.head}
        for name in ("resolution", "classes", "dense_width"):
            if getattr(self, name) is not None:
                check_count(f"--{name.replace('_', '-')}", getattr(self, name))
        changed: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if self.resolution is not None:
            changed["size"] = (self.resolution, self.resolution)
        if self.width_ratio is not None or self.dense_width is not None:
            changed["dense_width"] = self.dense_width  # a ratio narrows dense layers too, unless their width is given
        return changed


DEFAULT_NETWORK = NetworkOptions()


def check_precision(name: str | None) -> None:
    """Raises TriptychError for a precision in which nothing can be judged."""
    from triptych.conformance.levels import EXACT, LOW

    if name not in (None, *EXACT, *LOW):
        raise TriptychError(f"--precision '{name}' cannot be judged; use {', '.join((*EXACT, *LOW))}")


def backend_name(name: str | None) -> str:
    """The name of the backend that was asked for, or of the first whose framework is installed; nothing is imported.
    Raises TriptychError for a backend that is unknown or not installed, and if there is none at all."""
    from triptych.backend import registry

    if name is not None:
        registry.check_installed(name)
        return name
    names = registry.installed()
    if not names:
        raise TriptychError("no framework is installed; install one with: pip install 'triptych[torch]'")
    return names[0]


def backend_names(names: str | None) -> list[str]:
    """The backends in a comma-separated list, each once, or all that are installed; nothing is imported."""
    from triptych.backend import registry

    if names is None:
        backend_name(None)
        return registry.installed()
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise TriptychError(f"'{names}' names no backend; write for example torch,jax")
    return [backend_name(name) for name in wanted]


def command_line() -> str:
    """The command that runs, as a shell takes it."""
    return shlex.join(["triptych", *sys.argv[1:]])


def _without_infinities(value: Any) -> Any:
    """The value with null for every number that JSON has not: infinities and NaN."""
    if isinstance(value, dict):
        return {name: _without_infinities(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(target: str | None, value: object) -> None:
    """JSON to stdout for "-", to a file, or nowhere for None; what is no finite number is null. Raises TriptychError if
    the file cannot be written."""
    if target is None:
        return
    text = json.dumps(_without_infinities(value), indent=2, allow_nan=False) + "\n"
    if target == "-":
        print(text, end="", file=report_stream(), flush=True)
        return
    with told(f"--json {target} cannot be written"):
        write_atomically(Path(target), text.encode())
