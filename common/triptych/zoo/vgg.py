"""VGG: Table 1 of Simonyan and Zisserman, "Very Deep Convolutional Networks" (2014), columns A to E."""

from functools import partial

from triptych.spec import layers as spec
from triptych.zoo import Entry, Options, Published

CHANNELS = (64, 128, 256, 512, 512)

# The kernels of each block's convolutions, a block per row of the paper's table between two poolings.
A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
B = ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))
C = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
D = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
E = ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))

# Dense widths before the classes. `small` is the CIFAR-10 variant used on Ascend: 512 features at 32x32, 100, classes.
HEADS = {"paper": (4096, 4096), "small": (100,)}


def block(
    number: int,
    kernels: tuple[int, ...],
    width: int,
    options: Options,
    *,
    norm: bool = False,
    lrn: bool = False,
    dropout: bool = False,
) -> spec.Block:
    """One row of the table: convolutions with ReLU, then a 2x2 max-pool."""
    layers: list[spec.Layer] = []
    for index, kernel in enumerate(kernels, start=1):
        conv = f"conv{index}"
        channels = options.channels(width, f"block{number}.{conv}")
        layers.append(spec.Conv(conv, channels, kernel=(kernel, kernel), padding=(kernel // 2, kernel // 2)))
        if norm:
            layers.append(spec.BatchNorm(f"norm{index}"))
        layers.append(spec.ReLU(f"relu{index}"))
        if lrn:
            layers.append(spec.LocalResponseNorm(f"lrn{index}", size=5, alpha=1e-4, beta=0.75, k=2.0))
        if dropout:
            layers.append(spec.Dropout(f"dropout{index}", 0.5))
    return spec.Block(f"block{number}", (*layers, spec.MaxPool("pool", kernel=(2, 2), stride=(2, 2))))


def head(options: Options, name: str) -> spec.Layers:
    """Flatten and the dense layers. `paper`: dense, ReLU, dropout, twice; `small` drops after convolutions instead."""
    layers: list[spec.Layer] = [spec.Flatten("flatten")]
    for number, units in enumerate(HEADS[name], start=1):
        layers += [spec.Dense(f"dense{number}", options.dense(units, f"dense{number}")), spec.ReLU(f"relu{number}")]
        if name == "paper":
            layers.append(spec.Dropout(f"dropout{number}", 0.5))
    return (*layers, spec.Dense(f"dense{len(HEADS[name]) + 1}", options.classes))


def vgg(table: tuple[tuple[int, ...], ...], options: Options, *, norm: bool = False, lrn: bool = False) -> spec.Layers:
    """The layers of one column. `lrn` normalises after the first convolution, as column A-LRN does."""
    name = options.head or "paper"
    blocks = (
        block(
            number, kernels, CHANNELS[number - 1], options, norm=norm, lrn=lrn and number == 1, dropout=name == "small"
        )
        for number, kernels in enumerate(table, start=1)
    )
    return (*blocks, *head(options, name))


def of_conv_arch(rows: tuple[tuple[int, int], ...], options: Options) -> spec.Architecture:
    """The VGG of a table of (convolutions, channels), a block per row, with the paper's head; `options` complete."""
    blocks = (block(number, (3,) * count, width, options) for number, (count, width) in enumerate(rows, start=1))
    layers = (*blocks, *head(options, options.head or "paper"))
    return spec.Architecture("vgg", options.input, options.classes, layers)


def entry(name: str, column: str, build: partial[spec.Layers], parameters: int, macs: int, blocks: int = 5) -> Entry:
    source = f"Simonyan and Zisserman 2014, table 1, column {column}"
    conformance = (16, 2 ** (blocks + 1))  # 2x2 before the first dense layer
    return Entry(name, source, (3, 224, 224), 1000, build, conformance, Published(parameters, macs), tuple(HEADS))


# name, column of the paper, table, parameters, what batch norm adds to them, MACs at 3x224x224 with 1000 classes.
# The figures are torchvision's for A, B, D, E; batch norm (not in the paper) keeps the convolution's bias, as there.
_COLUMNS = (
    ("vgg11", "A", A, 132_863_336, 5_504, 7_609_090_048),
    ("vgg13", "B", B, 133_047_848, 5_888, 11_308_466_176),
    ("vgg16_1x1", "C", C, 133_638_952, 8_448, 11_770_888_192),
    ("vgg16", "D", D, 138_357_544, 8_448, 15_470_264_320),
    ("vgg19", "E", E, 143_667_240, 11_008, 19_632_062_464),
)

# Column A cut short, for the study of depth: the fewer blocks, the larger the map that the first dense layer sees.
_FIRST_BLOCKS = (
    ("vgg11_1block", 3_309_218_536, 3_395_911_680),
    ("vgg11_2blocks", 1_665_125_224, 2_676_588_544),
    ("vgg11_3blocks", 843_926_888, 4_629_037_056),
    ("vgg11_4blocks", 436_425_064, 6_992_527_360),
)

ENTRIES = (
    *(entry(name, column, partial(vgg, table), count, macs) for name, column, table, count, _, macs in _COLUMNS),
    entry("vgg11_lrn", "A-LRN", partial(vgg, A, lrn=True), 132_863_336, 7_609_090_048),
    *(
        entry(f"{name}_bn", f"{column}, with batch norm", partial(vgg, table, norm=True), count + norm, macs)
        for name, column, table, count, norm, macs in _COLUMNS
    ),
    *(
        entry(name, f"A, its first {blocks} of 5 blocks only", partial(vgg, A[:blocks]), count, macs, blocks)
        for blocks, (name, count, macs) in enumerate(_FIRST_BLOCKS, start=1)
    ),
)
