"""The spec: an architecture as a tree of frozen records, with no framework in sight.

Everything in which PyTorch, MXNet and JAX differ by default is a field here (padding amounts, ceil or floor,
eps, momentum, the form of the local response norm, counted padding), so that no backend ever takes a default.

Shapes are `(channels, height, width)` without the batch, or `(features,)` after a flatten. Pairs are
`(rows, columns)`. A layer's *path* is its name behind those of the records around it: `block1.conv1`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, assert_never

Pair: TypeAlias = tuple[int, int]
Merge: TypeAlias = Literal["concatenate", "add", "multiply"]
Shape: TypeAlias = tuple[int, ...]
INPUT = "input"  # of a graph, as its nodes call it


@dataclass(frozen=True)
class Named:
    """What every record of the tree has: a name, which no other record at the same place has."""

    name: str


@dataclass(frozen=True)
class Conv(Named):
    """2-D convolution (cross-correlation, as in every framework); weight `(channels, inputs / groups, *kernel)`.
    `padding` is added on *both* sides: rows above and below, columns left and right. There is no SAME, because at
    stride 2 it means another padding in JAX than in PyTorch: a `Pad` before says which. `dilation`: the distance of
    neighbouring values of the window. Group g takes the g-th part of the inputs to the g-th part of the channels."""

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    groups: int = 1
    bias: bool = True
    dilation: Pair = (1, 1)


@dataclass(frozen=True)
class ConvTranspose(Named):
    """Transposed convolution (the gradient of a `Conv` by its input); weight `(inputs, channels / groups, *kernel)`.
    Rows: `(height - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + output_padding`, of which the last
    `output_padding` rows (MXNet's `adj`) lie at the lower edge alone; columns alike, at the right."""

    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    output_padding: Pair = (0, 0)
    groups: int = 1
    bias: bool = True
    dilation: Pair = (1, 1)


@dataclass(frozen=True)
class Dense(Named):
    """Fully connected layer; weight `(units, features)`, the features in channels-height-width order."""

    units: int
    bias: bool = True


@dataclass(frozen=True)
class BatchNorm(Named):
    """Batch normalisation over batch, height and width (a flat input: over the batch). `momentum` is the weight of the
    *new* batch in the running statistics (PyTorch's sense; MXNet and Flax state the weight of the old). `unbiased`:
    whether the running variance is kept with n - 1 (PyTorch) or n (the others); the batch itself is always normalised
    with n. `gamma` false: no scale (as Keras and slim have Inception; MXNet's `fix_gamma`). `beta` false: no shift.
    `frozen`: the running statistics are used, and kept, in training too (MXNet's `use_global_stats`)."""

    eps: float = 1e-5
    momentum: float = 0.1
    gamma: bool = True
    unbiased: bool = True
    beta: bool = True
    frozen: bool = False


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
class Tanh(Named):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""


@dataclass(frozen=True)
class Clip(Named):
    """min(max(x, low), high): ReLU6 from 0 to 6. The derivative at the bounds is 0."""

    low: float
    high: float


@dataclass(frozen=True)
class LeakyReLU(Named):
    """x where it is positive, else slope * x; the derivative at 0 is the slope."""

    slope: float


@dataclass(frozen=True)
class PReLU(Named):
    """`LeakyReLU` with trained slopes, `weight (channels,)`, one for every channel; `(1,)` if `shared`, one for all."""

    shared: bool = False


@dataclass(frozen=True)
class SiLU(Named):
    """x * sigmoid(x), also called swish."""


@dataclass(frozen=True)
class ELU(Named):
    """x where it is positive, else alpha * (exp(x) - 1); the derivative at 0 is alpha (Clevert et al. 2016)."""

    alpha: float


@dataclass(frozen=True)
class SELU(Named):
    """1.0507009873554805 * `ELU` with the alpha 1.6732632423543772 (Klambauer et al. 2017, section 2)."""


@dataclass(frozen=True)
class GELU(Named):
    """x * (1 + erf(x / sqrt(2))) / 2, or `approximate`: x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2
    (Hendrycks and Gimpel 2016). PyTorch, Keras and ONNX have the first by default, JAX and Flax the second."""

    approximate: bool


@dataclass(frozen=True)
class Softplus(Named):
    """log(1 + exp(x)); above the `threshold`, if there is one, x itself. PyTorch and MXNet have one, 20, where
    they lose 2e-9; JAX, Keras and ONNX have none."""

    threshold: float | None = None


@dataclass(frozen=True)
class Softsign(Named):
    """x over 1 and the absolute value of x."""


@dataclass(frozen=True)
class Mish(Named):
    """x * tanh(log(1 + exp(x))) (Misra 2019)."""


@dataclass(frozen=True)
class HardSigmoid(Named):
    """min(max(slope * x + offset, 0), 1); the derivative at both ends is 0. PyTorch and Keras 3 have the slope 1/6,
    MXNet, ONNX and Keras 2 have 0.2."""

    slope: float = 1 / 6
    offset: float = 0.5


@dataclass(frozen=True)
class HardSwish(Named):
    """x * min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, section 5.2); the derivative is 0 at -3 and 1 at 3."""


@dataclass(frozen=True)
class Softmax(Named):
    """exp(x) over its sum along the channels (or features), at every place by itself."""


@dataclass(frozen=True)
class Affine(Named):
    """`scale * x + shift`. Each is one number for all channels or one for every channel, constant in training; where
    `trained`, they are arrays `weight (channels,)` and `bias (channels,)`, which start at 1 and 0, instead."""

    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)
    trained: bool = False


@dataclass(frozen=True)
class L2Normalize(Named):
    """x over its Euclidean norm, taken at every place over the channels, or over the whole image (`whole`). The norm is
    `sqrt(sum of squares + eps)` (MXNet), or, with `bound`, at least eps: `max(sqrt(sum of squares), eps)` (PyTorch)."""

    eps: float = 1e-10
    whole: bool = False
    bound: bool = False


@dataclass(frozen=True)
class Pad(Named):
    """Rows above and below, columns left and right, in this order: a `value`, or the outermost value again (`edge`), or
    what lies opposite the edge, which itself is not repeated (`reflect`)."""

    padding: tuple[int, int, int, int]
    value: float = 0.0
    mode: Literal["constant", "edge", "reflect"] = "constant"


@dataclass(frozen=True)
class Slice(Named):
    """What lies from `start` up to, not including, `stop` along one axis; both counted from 0."""

    axis: Literal["channels", "rows", "columns"]
    start: int
    stop: int


@dataclass(frozen=True)
class Upsample(Named):
    """`factor` times as many rows and columns: each value repeated (`nearest`), or linear between the centres of the
    values, outside of the outermost ones constant (`bilinear`: half-pixel centres, corners not aligned)."""

    factor: Pair
    mode: Literal["nearest", "bilinear"] = "nearest"


@dataclass(frozen=True)
class ChannelShuffle(Named):
    """Channel i of group g becomes channel `i * groups + g` (Zhang et al. 2017, figure 1)."""

    groups: int


@dataclass(frozen=True)
class Reshape(Named):
    """The values of one image in channels-height-width order, in another shape: `(channels, height, width)` or
    `(features,)`."""

    shape: Shape


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
class GlobalMaxPool(Named):
    """Maximum over height and width: `(C, H, W)` to `(C, 1, 1)`. Ties as in `MaxPool`."""


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
    """Parallel branches on the same input, merged in the order given. An empty Block hands its input on. Concatenated
    is along the channels; in a sum or product a map of one pixel, or of one channel, counts at every place."""

    branches: tuple[Block, ...]
    merge: Merge = "concatenate"


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


@dataclass(frozen=True)
class Node:
    """A layer of a `Graph`, called by its layer's name. It takes the outputs of the nodes called `inputs`, `input`
    being what the graph is given; several are merged, as in `Branches`. An empty Block is a merge by itself."""

    layer: "Layer"
    inputs: tuple[str, ...] = (INPUT,)
    merge: Merge = "concatenate"


@dataclass(frozen=True)
class Graph(Named):
    """Layers that hang together as no row, branches or residual does, every node behind those that it takes. `outputs`
    names nodes; several are the network's outputs, and stand in the last record of the top level only."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


Pool: TypeAlias = MaxPool | AvgPool
Sliding: TypeAlias = Conv | Pool
Elementwise: TypeAlias = (
    ReLU
    | Sigmoid
    | Tanh
    | Clip
    | LeakyReLU
    | PReLU
    | SiLU
    | ELU
    | SELU
    | GELU
    | Softplus
    | Softsign
    | Mish
    | HardSigmoid
    | HardSwish
)
Activation: TypeAlias = Elementwise | Softmax
Placement: TypeAlias = Pad | Slice | Upsample | ChannelShuffle | Reshape | Flatten
Primitive: TypeAlias = (
    Sliding
    | ConvTranspose
    | Dense
    | BatchNorm
    | LocalResponseNorm
    | L2Normalize
    | Affine
    | Activation
    | GlobalAvgPool
    | GlobalMaxPool
    | Placement
    | Dropout
)
Composite: TypeAlias = Block | Branches | Residual | Auxiliary | Graph
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
    """A network: input `(channels, height, width)`, number of classes, layers, and how its weights start. No classes
    (0): its outputs are anything, one or several (see `outputs`). `source` names the paper, program or file that the
    table was taken from."""

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
        case Graph():
            return tuple(node.layer for node in layer.nodes)
    assert_never(layer)


def outputs(architecture: Architecture) -> tuple[str, ...]:
    """The paths of the records whose outputs are the network's, in the order in which it gives them."""
    last = architecture.layers[-1]
    if isinstance(last, Graph) and len(last.outputs) > 1:
        return tuple(join(last.name, name) for name in last.outputs)
    return (last.name,)


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
        case Graph():
            return replace(layer, nodes=tuple(replace(node, layer=change(node.layer)) for node in layer.nodes))
    assert_never(layer)
