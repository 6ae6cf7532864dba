"""The spec: an architecture as a tree of frozen records, with no framework in sight.

Everything in which PyTorch, MXNet and JAX differ by default is a field here (padding amounts, ceil or floor,
eps, momentum, the form of the local response norm, counted padding), so that no backend ever takes a default.

Shapes are `(channels, height, width)` without the batch, or `(features,)` after a flatten. Pairs are
`(rows, columns)`. A layer's *path* is its name behind those of the records around it: `block1.conv1`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, assert_never

Pair: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Named:
    """What every record of the tree has: a name, which no other record at the same place has."""

    name: str


@dataclass(frozen=True)
class Conv(Named):
    """2-D convolution (cross-correlation, as in every framework); weight `(channels, inputs / groups, *kernel)`.
    `padding` is added on *both* sides: rows above and below, columns left and right. There is no SAME, because at
    stride 2 it means another padding in JAX than in PyTorch."""

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Dense(Named):
    """Fully connected layer; weight `(units, features)`, the features in channels-height-width order."""

    units: int
    bias: bool = True


@dataclass(frozen=True)
class BatchNorm(Named):
    """Batch normalisation over batch, height and width. `momentum` is the weight of the *new* batch in the running
    statistics (PyTorch's sense; MXNet and Flax state the weight of the old). `unbiased`: whether the running variance
    is kept with n - 1 (PyTorch) or n (the others); the batch itself is always normalised with n. `gamma` false: no
    scale (as Keras and slim have Inception)."""

    eps: float = 1e-5
    momentum: float = 0.1
    gamma: bool = True
    unbiased: bool = True


@dataclass(frozen=True)
class LocalResponseNorm(Named):
    """`x / (k + a * sum of x^2 over `size` neighbouring channels) ^ beta`, with a = alpha / size if `divide_alpha`.
    PyTorch, MXNet and Caffe divide alpha by the size, TensorFlow and the formula in the AlexNet paper do not. `size` is
    odd: frameworks disagree on the centre of an even window."""

    size: int
    alpha: float
    beta: float
    k: float
    divide_alpha: bool = True

    @property
    def coefficient(self) -> float:
        """What multiplies the sum of squares, whichever way alpha is stated."""
        return self.alpha / self.size if self.divide_alpha else self.alpha


@dataclass(frozen=True)
class ReLU(Named):
    """max(x, 0); its derivative at 0 is 0."""


@dataclass(frozen=True)
class Sigmoid(Named):
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True)
class MaxPool(Named):
    """Maximum over windows; padding never wins. Ties: the gradient goes to the first in row order. `ceil`: the last
    window may hang over the right and lower edge, if it starts inside the input or its upper and left padding
    (PyTorch's rule; MXNet also keeps windows that lie wholly outside)."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil: bool = False


@dataclass(frozen=True)
class AvgPool(Named):
    """Mean over windows; `count_padding` says whether padded zeros count in the divisor (an overhang never does)."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil: bool = False
    count_padding: bool = True


@dataclass(frozen=True)
class GlobalAvgPool(Named):
    """Mean over height and width: `(C, H, W)` to `(C, 1, 1)`."""


@dataclass(frozen=True)
class Flatten(Named):
    """`(C, H, W)` to `(C * H * W,)`, in channels-height-width order in every backend."""


@dataclass(frozen=True)
class Dropout(Named):
    """In training, zeroes each value with probability `rate` and divides the others by 1 - rate."""

    rate: float


@dataclass(frozen=True)
class Block(Named):
    """Layers in a row, under one name."""

    layers: "Layers"


@dataclass(frozen=True)
class Branches(Named):
    """Parallel branches on the same input; outputs are concatenated along the channels in the order given."""

    branches: tuple[Block, ...]


@dataclass(frozen=True)
class Residual(Named):
    """`shortcut(x) + scale * body(x)`; an empty shortcut is the identity. An activation is the next layer."""

    body: Block
    shortcut: Block | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Auxiliary(Named):
    """An auxiliary classifier, at the top level only: passes its input on unchanged, and in training adds `weight`
    times its own loss."""

    layers: "Layers"
    weight: float


Pool: TypeAlias = MaxPool | AvgPool
Primitive: TypeAlias = (
    Conv | Dense | BatchNorm | LocalResponseNorm | ReLU | Sigmoid | Pool | GlobalAvgPool | Flatten | Dropout
)
Composite: TypeAlias = Block | Branches | Residual | Auxiliary
Layer: TypeAlias = Primitive | Composite
Layers: TypeAlias = tuple[Layer, ...]
InitializerName: TypeAlias = Literal[
    "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "normal", "constant"
]


@dataclass(frozen=True)
class Initializer:
    """How weights start (biases start at 0, batch-norm gamma at 1). `value`: the deviation of `normal`, or the
    `constant`; the others take their scale from the fans and ignore it. See `triptych.weights.initializers`."""

    name: InitializerName = "xavier_uniform"
    value: float = 0.0


@dataclass(frozen=True)
class Architecture:
    """A network: input `(channels, height, width)`, number of classes, layers, and how its weights start. `source`
    names the paper or program that the table was taken from."""

    name: str
    input: tuple[int, int, int]
    classes: int
    layers: tuple[Layer, ...]
    initializer: Initializer = Initializer()
    source: str = ""


def children(layer: Layer | Architecture) -> tuple[Layer, ...]:
    """The records directly below, in the order in which they run; none for a primitive."""
    if isinstance(layer, Primitive):
        return ()
    match layer:
        case Architecture() | Block() | Auxiliary():
            return layer.layers
        case Branches():
            return layer.branches
        case Residual():
            return (layer.body,) if layer.shortcut is None else (layer.shortcut, layer.body)
    assert_never(layer)


def join(prefix: str, name: str) -> str:
    """The path of `name` below `prefix`, which is empty at the top."""
    return f"{prefix}.{name}" if prefix else name


def keeps_statistics(path: str, frozen: frozenset[str]) -> bool:
    """Whether the batch norm at `path` keeps and uses its running statistics because one of them is `frozen`."""
    return not frozen.isdisjoint((join(path, "running_mean"), join(path, "running_var")))


def walk(layers: tuple[Layer, ...], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Every record with its path in the order of execution, a composite after what is in it."""
    for layer in layers:
        path = join(prefix, layer.name)
        yield from walk(children(layer), path)
        yield path, layer


def with_children(layer: Layer, change: Callable[[Any], Any]) -> Layer:
    """The record with `change` applied to those directly below it; a primitive as it is."""
    if isinstance(layer, Primitive):
        return layer
    match layer:
        case Block() | Auxiliary():
            return replace(layer, layers=tuple(map(change, layer.layers)))
        case Branches():
            return replace(layer, branches=tuple(map(change, layer.branches)))
        case Residual():
            shortcut = None if layer.shortcut is None else change(layer.shortcut)
            return replace(layer, body=change(layer.body), shortcut=shortcut)
    assert_never(layer)
