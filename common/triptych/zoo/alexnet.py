"""AlexNet: the textbook's one tower and simplifications of it, torchvision's, and the paper's two towers as groups."""

from dataclasses import dataclass, replace
from functools import partial

from triptych.spec.layers import Conv, Dense, Dropout, Flatten, Initializer, Layer, LocalResponseNorm, MaxPool, ReLU
from triptych.zoo import Entry, ImageShape, Options, Published


@dataclass(frozen=True)
class Row:
    """A convolution with its ReLU; behind some a response normalisation, behind some a 3x3 max-pool at stride 2.
    `number` is the paper's: where a layer is left out, the others keep their names."""

    number: int
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    pooled: bool = False
    groups: int = 1
    normalised: bool = False


@dataclass(frozen=True)
class Tables:
    """One network: its convolutions, and its hidden dense layers by number. `drop_first`: dropout stands in front of
    each hidden dense layer, not behind its ReLU."""

    convolutions: tuple[Row, ...]
    dense: dict[int, int]
    drop_first: bool = False


# The textbook's PyTorch tab pads the first convolution by 1, its MXNet tab by 0: the shapes and counts at 224 are
# equal, the numbers are not. Here it is PyTorch's.
CONVOLUTIONS = (
    Row(1, 96, kernel=11, stride=4, padding=1, pooled=True),
    Row(2, 256, kernel=5, padding=2, pooled=True),
    Row(3, 384, kernel=3, padding=1),
    Row(4, 384, kernel=3, padding=1),
    Row(5, 256, kernel=3, padding=1, pooled=True),
)
DENSE = {6: 4096, 7: 4096}
WITHOUT_CONV4 = tuple(row for row in CONVOLUTIONS if row.number != 4)
WITHOUT_DENSE7 = {6: 4096}

# Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), as torchvision has it. Its
# adaptive average pooling to 6x6 does nothing at 224 and is left out: at another size the first dense layer has as many
# inputs as the map has values, where torchvision's always has 9216.
ONE_WEIRD_TRICK = (
    Row(1, 64, kernel=11, stride=4, padding=2, pooled=True),
    Row(2, 192, kernel=5, padding=2, pooled=True),
    Row(3, 384, kernel=3, padding=1),
    Row(4, 256, kernel=3, padding=1),
    Row(5, 256, kernel=3, padding=1, pooled=True),
)

# Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), section
# 3.5. Two towers on two GPUs that meet in layer 3 are two groups elsewhere. The paper says 224, its shapes need 227.
TWO_TOWERS = (
    Row(1, 96, kernel=11, stride=4, pooled=True, normalised=True),
    Row(2, 256, kernel=5, padding=2, pooled=True, groups=2, normalised=True),
    Row(3, 384, kernel=3, padding=1),
    Row(4, 384, kernel=3, padding=1, groups=2),
    Row(5, 256, kernel=3, padding=1, pooled=True, groups=2),
)
# The paper's formula, which does not divide alpha by n (section 3.3); Caffe's AlexNet divides it, and has k = 1.
LRN = LocalResponseNorm("lrn", size=5, alpha=1e-4, beta=0.75, k=2.0, divide_alpha=False)

TEXTBOOK = Tables(CONVOLUTIONS, DENSE)
NO_FC2 = Tables(CONVOLUTIONS, WITHOUT_DENSE7)
NO_CONV4 = Tables(WITHOUT_CONV4, DENSE)
SMALL = Tables(WITHOUT_CONV4, WITHOUT_DENSE7)
TORCHVISION = Tables(ONE_WEIRD_TRICK, DENSE, drop_first=True)
PAPER = Tables(TWO_TOWERS, DENSE)


def convolution(row: Row, options: Options, multiple_of: int) -> tuple[Layer, ...]:
    """The layers of one row, in the paper's order: convolution, ReLU, response normalisation, pooling."""
    number = row.number
    channels = options.channels(row.channels, f"conv{number}", multiple_of)
    kernel, stride, padding = ((side, side) for side in (row.kernel, row.stride, row.padding))
    conv = Conv(f"conv{number}", channels, kernel, stride, padding, row.groups)
    norm = (replace(LRN, name=f"lrn{number}"),) if row.normalised else ()
    pool = (MaxPool(f"pool{number}", kernel=(3, 3), stride=(2, 2)),) if row.pooled else ()
    return (conv, ReLU(f"relu{number}"), *norm, *pool)


def alexnet(tables: Tables, options: Options) -> tuple[Layer, ...]:
    multiple_of = max(row.groups for row in tables.convolutions)  # each layer feeds the groups of the next
    layers: list[Layer] = []
    for row in tables.convolutions:
        layers += convolution(row, options, multiple_of)
    layers.append(Flatten("flatten"))
    for number, units in tables.dense.items():
        hidden = (Dense(f"dense{number}", options.dense(units, f"dense{number}")), ReLU(f"relu{number}"))
        dropout = Dropout(f"dropout{number}", 0.5)
        layers += (dropout, *hidden) if tables.drop_first else (*hidden, dropout)
    return (*layers, Dense("dense8", options.classes))


def entry(name: str, source: str, input: ImageShape, classes: int, tables: Tables, counts: tuple[int, int]) -> Entry:
    build, published = partial(alexnet, tables), Published(*counts)
    return Entry(name, source, input, classes, build, conformance=(16, 103), published=published)


D2L = "Dive into Deep Learning, section 8.1 (after Krizhevsky et al. 2012)"
OWT = "Krizhevsky 2014 (One weird trick), as in torchvision"
GREY, COLOUR = (1, 224, 224), (3, 224, 224)
TWO_GPUS = entry("alexnet_2012", "Krizhevsky et al. 2012", (3, 227, 227), 1000, PAPER, (60_965_224, 724_406_816))
ENTRIES = (
    entry("alexnet", D2L, GREY, 10, TEXTBOOK, (46_764_746, 938_146_176)),
    entry("alexnet_no_fc2", f"{D2L}, without the 4096-4096 dense layer", GREY, 10, NO_FC2, (29_983_434, 921_368_960)),
    entry("alexnet_no_conv4", f"{D2L}, without the 384-384 convolution", GREY, 10, NO_CONV4, (45_437_258, 747_043_200)),
    entry("alexnet_small", f"{D2L}, without both of them", GREY, 10, SMALL, (28_655_946, 730_265_984)),
    entry("alexnet_owt", OWT, COLOUR, 1000, TORCHVISION, (61_100_840, 714_188_480)),
    # Section 5; there the biases of layers 2, 4, 5 and of the hidden dense layers start at 1, here all at 0.
    replace(TWO_GPUS, initializer=Initializer("normal", 0.01)),
)
