"""Inception v2, or BN-Inception: figure 5 of Ioffe and Szegedy, "Batch Normalization" (2015), as it was ported."""

from triptych.spec.layers import Layers, MaxPool
from triptych.zoo import Entry, Options, Published
from triptych.zoo.inception_parts import AVERAGE, NORM, Parts, Step, Table, Unit

# Caffe's rounding up, with which the maps at 224 are 56, 28, 14 and 7; MXNet's symbol rounds down to 55 and 27.
CEIL = MaxPool("pool", kernel=(3, 3), stride=(2, 2), ceil=True)
STEM: dict[str, Step] = {
    "conv1": Unit(64, 7, 2, padding=3),
    "pool1": CEIL,
    "conv2_reduce": Unit(64),
    "conv2": Unit(192, 3),
    "pool2": CEIL,
}

MAXIMUM = MaxPool("pool", kernel=(3, 3), stride=(1, 1), padding=(1, 1))

# name, 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool, projection. 3c and 4e halve the map and pass the
# pooled map on as it is. The paper prints 576 channels for 4c and 4d, whose branches sum to 608: the ports (Caffe,
# MXNet, Cadene's for PyTorch) have 608, 608 and so 1056 behind 4e.
INCEPTIONS = (
    ("3a", 64, 64, 64, 64, 96, AVERAGE, 32),
    ("3b", 64, 64, 96, 64, 96, AVERAGE, 64),
    ("3c", 0, 128, 160, 64, 96, None, 0),
    ("4a", 224, 64, 96, 96, 128, AVERAGE, 128),
    ("4b", 192, 96, 128, 96, 128, AVERAGE, 128),
    ("4c", 160, 128, 160, 128, 160, AVERAGE, 128),
    ("4d", 96, 128, 192, 160, 192, AVERAGE, 128),
    ("4e", 0, 128, 192, 192, 256, None, 0),
    ("5a", 352, 192, 320, 160, 224, AVERAGE, 128),
    ("5b", 352, 192, 320, 192, 224, MAXIMUM, 128),
)

# MXNet's pooling in 3c and 4e. Caffe (and Cadene) round up without padding, which starts each window one pixel later
# and fits the convolutions beside it on even maps only: on an odd one the branches would end in different sizes.
REDUCE = MaxPool("pool", kernel=(3, 3), stride=(2, 2), padding=(1, 1))


def inception(
    single: int, reduce3: int, conv3: int, reduce_double: int, double: int, pool: Step | None, projection: int
) -> Table:
    if pool is None:
        return {
            "branch3x3": (Unit(reduce3), Unit(conv3, 3, 2, padding=1)),
            "branch3x3double": (Unit(reduce_double), Unit(double, 3), Unit(double, 3, 2, padding=1)),
            "branch_pool": (REDUCE,),
        }
    return {
        "branch1x1": (Unit(single),),
        "branch3x3": (Unit(reduce3), Unit(conv3, 3)),
        "branch3x3double": (Unit(reduce_double), Unit(double, 3), Unit(double, 3)),
        "branch_pool": (pool, Unit(projection)),
    }


def inception_v2(options: Options) -> Layers:
    # The ports keep the convolutions' bias, which the batch norm behind it makes idle. They use eps 1e-5, Google 1e-3
    # as in the rest of the family. Cadene's momentum of 0.9 is Caffe's weight of the *old* statistics taken for
    # PyTorch's weight of the new: meant is 0.1.
    parts = Parts(options, NORM, bias=True)
    modules = (parts.branches(f"inception{name}", inception(*columns)) for name, *columns in INCEPTIONS)
    return (*parts.stem(STEM), *modules, *parts.classifier("pool5", dropout=0.0))


SOURCE = "Ioffe and Szegedy 2015, figure 5, as in the ports to Caffe, MXNet and PyTorch (bninception)"
COUNTS = Published(11_295_240, 2_032_600_064)
ENTRIES = (Entry("inception_v2", SOURCE, (3, 224, 224), 1000, inception_v2, conformance=(16, 96), published=COUNTS),)
