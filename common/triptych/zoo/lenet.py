"""LeNet as the textbook has it, and the first steps from it to AlexNet, one change at a time."""

from functools import partial

from triptych.spec.layers import AvgPool, Conv, Dense, Dropout, Flatten, Layers, MaxPool, ReLU, Sigmoid
from triptych.zoo import Entry, Options, Published


def lenet(options: Options, /, *, relu: bool = False, max_pool: bool = False, dropout: bool = False) -> Layers:
    """Sigmoids and average pooling, dense layers for the paper's last convolution; what is asked for is as in AlexNet:
    ReLU, max pooling, dropout behind the hidden dense layers."""
    activation, word = (ReLU, "relu") if relu else (Sigmoid, "sigmoid")
    pool = partial(MaxPool if max_pool else AvgPool, kernel=(2, 2), stride=(2, 2))
    drop1, drop2 = ((Dropout(f"dropout{number}", 0.5),) if dropout else () for number in (1, 2))
    return (
        Conv("conv1", options.channels(6, "conv1"), kernel=(5, 5), padding=(2, 2)),
        activation(f"{word}1"),
        pool("pool1"),
        Conv("conv2", options.channels(16, "conv2"), kernel=(5, 5)),
        activation(f"{word}2"),
        pool("pool2"),
        Flatten("flatten"),
        Dense("dense1", options.dense(120, "dense1")),
        activation(f"{word}3"),
        *drop1,
        Dense("dense2", options.dense(84, "dense2")),
        activation(f"{word}4"),
        *drop2,
        Dense("dense3", options.classes),
    )


def entry(name: str, change: str, **changes: bool) -> Entry:
    source = f"Dive into Deep Learning, section 7.6 (after LeCun et al. 1998){change}"
    published = Published(61_706, 416_520)  # no step changes them
    return Entry(name, source, (1, 28, 28), 10, partial(lenet, **changes), conformance=(1, 28), published=published)


ENTRIES = (
    entry("lenet", ""),
    entry("lenet_relu", ", with ReLU", relu=True),
    entry("lenet_max", ", with ReLU and max pooling", relu=True, max_pool=True),
    entry("lenet_dropout", ", with ReLU, max pooling and dropout", relu=True, max_pool=True, dropout=True),
)
