"""A grammar of networks: every kind of layer at awkward sizes, drawn from `random.Random`, so that a seed is a network.

What is drawn need not fit: the spec refuses it, and it is drawn again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any

from triptych.spec import layers as spec
from triptych.spec.analysis import parameters
from triptych.spec.kinds import COMPOSITES, KINDS, check_complete
from triptych.spec.kinds.kind import SpecError
from triptych.spec.layers import Architecture, Auxiliary, Block, Layer, Pair, Shape
from triptych.spec.shapes import layer_output

LARGEST = 40_000  # values of one image, anywhere in a network: the judge is NumPy
SIZES = (*range(1, 20), 23, 31, 33, 56, 60, 64)
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 33)
CLASSES = 3

Names = Iterator[int]
Draw = Callable[[Random, str, Shape], Layer]


def pair(random: Random, low: int, high: int) -> Pair:
    """Rows and columns; half of them alike."""
    rows = random.randint(low, high)
    return (rows, rows if random.random() < 0.5 else random.randint(low, high))


def likely(random: Random, usual: Any, other: Any) -> Any:
    """The usual value, but in one of three."""
    return other if random.random() < 1 / 3 else usual


def _flag(random: Random) -> bool:
    return random.random() < 0.5


def _groups(random: Random, inputs: int) -> int:
    return random.choice([n for n in range(1, inputs + 1) if inputs % n == 0])


def _conv(random: Random, name: str, shape: Shape) -> Layer:
    groups = likely(random, 1, _groups(random, shape[0]))
    kernel = likely(random, pair(random, 1, 3), pair(random, 1, 7))
    stride, padding = likely(random, (1, 1), pair(random, 1, 4)), likely(random, (0, 0), pair(random, 0, 4))
    dilation = likely(random, (1, 1), pair(random, 1, 4))
    channels = groups * random.choice(CHANNELS)
    return spec.Conv(name, channels, kernel, stride, padding, groups, _flag(random), dilation)


def _conv_transpose(random: Random, name: str, shape: Shape) -> Layer:
    groups = likely(random, 1, _groups(random, shape[0]))
    stride, dilation = pair(random, 1, 3), likely(random, (1, 1), pair(random, 1, 3))
    padding, beyond = likely(random, (0, 0), pair(random, 0, 3)), likely(random, (0, 0), pair(random, 0, 2))
    channels, kernel = groups * random.choice(CHANNELS[:7]), pair(random, 1, 4)
    return spec.ConvTranspose(name, channels, kernel, stride, padding, beyond, groups, _flag(random), dilation)


def _batch_norm(random: Random, name: str, shape: Shape) -> Layer:
    eps, momentum = random.choice((1e-5, 1e-3, 0.1)), random.choice((0.1, 0.01, 0.3, 1.0))
    gamma, unbiased, beta, frozen = (likely(random, *flags) for flags in ((True, False),) * 3 + ((False, True),))
    return spec.BatchNorm(name, eps, momentum, gamma, unbiased, beta, frozen)


def _lrn(random: Random, name: str, shape: Shape) -> Layer:
    alpha, beta, k = random.uniform(1e-4, 0.5), random.choice((0.5, 0.75, 1.0)), random.choice((1.0, 2.0))
    return spec.LocalResponseNorm(name, random.choice((1, 3, 5, 7)), alpha, beta, k, _flag(random))


def _window(random: Random) -> dict[str, Any]:
    kernel, stride = pair(random, 1, 5), pair(random, 1, 5)
    padding = (random.randint(0, kernel[0] // 2), random.randint(0, kernel[1] // 2))
    return {"kernel": kernel, "stride": stride, "padding": likely(random, (0, 0), padding), "ceil": _flag(random)}


def _affine(random: Random, name: str, shape: Shape) -> Layer:
    scale, shift = (tuple(random.uniform(-2, 2) for _ in range(likely(random, 1, shape[0]))) for _ in range(2))
    return spec.Affine(name, trained=True) if _flag(random) else spec.Affine(name, scale, shift)


def _slice(random: Random, name: str, shape: Shape) -> Layer:
    place = random.randrange(len(shape))
    start, stop = sorted(random.choices(range(shape[place] + 1), k=2))
    return spec.Slice(name, ("channels", "rows", "columns")[place], start, stop)


def _pad(random: Random, name: str, shape: Shape) -> Layer:
    (above, left), (below, right) = pair(random, 0, 4), pair(random, 0, 4)
    mode = random.choice(("constant", "edge", "reflect"))
    return spec.Pad(name, (above, below, left, right), random.choice((0.0, 0.7, -1.0)), mode)


def _reshape(random: Random, name: str, shape: Shape) -> Layer:
    values = math.prod(shape)
    channels = _groups(random, values)
    height = _groups(random, values // channels)
    whole = (channels, height, values // channels // height)
    return spec.Reshape(name, likely(random, whole, (values,)))


def _of(kind: Callable[..., Layer], *choices: tuple[Any, ...]) -> Draw:
    return lambda random, name, shape: kind(name, *map(random.choice, choices))


BOOLEAN = (False, True)
GRAMMAR: dict[type, Draw] = {
    spec.Conv: _conv,
    spec.ConvTranspose: _conv_transpose,
    spec.Dense: _of(spec.Dense, CHANNELS, BOOLEAN),
    spec.BatchNorm: _batch_norm,
    spec.LocalResponseNorm: _lrn,
    spec.L2Normalize: _of(spec.L2Normalize, (1e-10, 1e-3, 0.5), BOOLEAN, BOOLEAN),
    spec.Affine: _affine,
    spec.ReLU: _of(spec.ReLU),
    spec.Sigmoid: _of(spec.Sigmoid),
    spec.Tanh: _of(spec.Tanh),
    spec.Clip: _of(spec.Clip, (-1.0, 0.0, -0.3), (0.4, 1.0, 6.0)),
    spec.LeakyReLU: _of(spec.LeakyReLU, (0.01, 0.2, 1 / 3)),
    spec.PReLU: _of(spec.PReLU, BOOLEAN),
    spec.SiLU: _of(spec.SiLU),
    spec.ELU: _of(spec.ELU, (1.0, 0.3, 1.7)),
    spec.SELU: _of(spec.SELU),
    spec.GELU: _of(spec.GELU, BOOLEAN),
    spec.Softplus: _of(spec.Softplus, (None, 20.0, 3.0)),
    spec.Softsign: _of(spec.Softsign),
    spec.Mish: _of(spec.Mish),
    spec.HardSigmoid: _of(spec.HardSigmoid, (1 / 6, 0.2, 0.9), (0.5, 0.4)),
    spec.HardSwish: _of(spec.HardSwish),
    spec.Softmax: _of(spec.Softmax),
    spec.MaxPool: lambda random, name, shape: spec.MaxPool(name, **_window(random)),
    spec.AvgPool: lambda random, name, shape: spec.AvgPool(name, **_window(random), count_padding=_flag(random)),
    spec.GlobalAvgPool: _of(spec.GlobalAvgPool),
    spec.GlobalMaxPool: _of(spec.GlobalMaxPool),
    spec.Pad: _pad,
    spec.Slice: _slice,
    spec.Upsample: lambda random, name, shape: spec.Upsample(
        name, pair(random, 1, 4), random.choice(("nearest", "bilinear"))
    ),
    spec.ChannelShuffle: lambda random, name, shape: spec.ChannelShuffle(name, _groups(random, shape[0])),
    spec.Reshape: _reshape,
    spec.Flatten: _of(spec.Flatten),
    spec.Dropout: _of(spec.Dropout, (0.0, 0.2, 0.5)),
}
check_complete(GRAMMAR, __name__)
WEIGHTS = dict.fromkeys(KINDS, 1.0) | {
    spec.Conv: 5.0,
    spec.ConvTranspose: 2.0,
    spec.MaxPool: 2.0,
    spec.AvgPool: 2.0,
    spec.Flatten: 0.2,  # behind it there is no map any more
    spec.GlobalAvgPool: 0.5,
    spec.GlobalMaxPool: 0.5,
}


def _branches(random: Random, name: str, shape: Shape, names: Names) -> Layer:
    rows = [Block(f"branch{next(names)}", _row(random, shape, names)[0]) for _ in range(random.randint(2, 3))]
    same = likely(random, rows, [Block(f"same{next(names)}", ()), *rows])
    return spec.Branches(name, tuple(same), random.choice(("concatenate", "add", "multiply")))


def _residual(random: Random, name: str, shape: Shape, names: Names) -> Layer:
    body = Block("body", _row(random, shape, names)[0])
    shortcut = likely(random, None, Block("shortcut", _row(random, shape, names)[0]))
    return spec.Residual(name, body, shortcut, likely(random, 1.0, 0.2))


def _graph(random: Random, name: str, shape: Shape, names: Names) -> Layer:
    nodes: list[spec.Node] = []
    for _ in range(random.randint(2, 4)):
        before = [spec.INPUT, *(node.layer.name for node in nodes)]
        layer = random.choice((Block(f"merge{next(names)}", ()), _primitive(random, shape, names)))
        taken = tuple(random.choices(before, k=random.randint(1, 2)))
        nodes.append(spec.Node(layer, taken, random.choice(("concatenate", "add", "multiply"))))
    ends = [node.layer.name for node in nodes]
    return spec.Graph(name, tuple(nodes), tuple(ends[-likely(random, 1, 2) :]))


COMPOSITE: dict[type, Callable[[Random, str, Shape, Names], Layer]] = {
    Block: lambda random, name, shape, names: Block(name, _row(random, shape, names)[0]),
    spec.Branches: _branches,
    spec.Residual: _residual,
    spec.Graph: _graph,
}
check_complete(COMPOSITE | {Auxiliary: None}, __name__, tuple(COMPOSITES))


def _named(kind: type, names: Names) -> str:
    return f"{kind.__name__.lower()}{next(names)}"


def _primitive(random: Random, shape: Shape, names: Names) -> Layer:
    """One that fits. A dense layer fits nothing but flat values, a pool nothing but a map."""
    while True:
        kind = random.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
        try:
            layer = GRAMMAR[kind](random, _named(kind, names), shape)
            if math.prod(layer_output(layer, shape, layer.name)) <= LARGEST:
                return layer
        except (SpecError, IndexError):
            continue


def _composite(random: Random, shape: Shape, names: Names) -> Layer | None:
    """One that fits, if one of a few does."""
    for _ in range(20):
        kind = random.choice(tuple(COMPOSITE))
        layer, inside = COMPOSITE[kind](random, _named(kind, names), shape, names), {}
        try:
            shapes = [layer_output(layer, shape, layer.name, inside), *inside.values()]
        except SpecError:
            continue
        if max(map(math.prod, shapes)) <= LARGEST:
            return layer
    return None


def _row(random: Random, shape: Shape, names: Names, length: int = 2, depth: int = 0) -> tuple[spec.Layers, Shape]:
    """One to `length` layers, and the shape behind them. Composites stand at the top only: they are deep enough."""
    layers: list[Layer] = []
    for _ in range(random.randint(1, length)):
        made = _composite(random, shape, names) if depth and random.random() < 0.2 else None
        layers.append(made or _primitive(random, shape, names))
        shape = layer_output(layers[-1], shape, layers[-1].name)
    return tuple(layers), shape


def _head(names: Names) -> spec.Layers:
    return (spec.Flatten(f"flat{next(names)}"), spec.Dense(f"scores{next(names)}", CLASSES))


def draw(random: Random, length: int = 6) -> Architecture:
    """A network of at most `length` records in a row, with something to train; with classes (and then perhaps an
    auxiliary classifier) or without."""
    while True:
        names = count(1)
        height, width = pair(random, 0, len(SIZES) - 1)
        shape = (random.choice(CHANNELS), SIZES[height], SIZES[width])
        if math.prod(shape) > LARGEST:
            continue
        layers, _ = _row(random, shape, names, length, depth=1)
        classes = likely(random, 0, CLASSES)
        if classes:
            auxiliary = (Auxiliary(f"auxiliary{next(names)}", _head(names), 0.3),)
            layers = (*layers[:1], *likely(random, (), auxiliary), *layers[1:], *_head(names))
        architecture = Architecture("drawn", shape, classes, layers, spec.Initializer("kaiming_normal"))
        try:
            if any(array.trained for array in parameters(architecture)):
                return architecture
        except SpecError:  # a graph of several outputs that is not the last
            continue
