"""LeNet as the textbook has it: sigmoids and average pooling, dense layers for the paper's last convolution."""

from __future__ import annotations

from triptych.spec import AvgPool, Conv, Dense, Flatten, Layer, Sigmoid
from triptych.zoo import Entry, Options, Published


def lenet(options: Options) -> tuple[Layer, ...]:
    def pool(name: str) -> AvgPool:
        return AvgPool(name, kernel=(2, 2), stride=(2, 2))

    return (
        Conv("conv1", options.channels(6, "conv1"), kernel=(5, 5), padding=(2, 2)),
        Sigmoid("sigmoid1"),
        pool("pool1"),
        Conv("conv2", options.channels(16, "conv2"), kernel=(5, 5)),
        Sigmoid("sigmoid2"),
        pool("pool2"),
        Flatten("flatten"),
        Dense("dense1", options.dense(120, "dense1")),
        Sigmoid("sigmoid3"),
        Dense("dense2", options.dense(84, "dense2")),
        Sigmoid("sigmoid4"),
        Dense("dense3", options.classes),
    )


ENTRIES = (
    Entry(
        name="lenet",
        source="Dive into Deep Learning, section 7.6 (after LeCun et al. 1998)",
        input=(1, 28, 28),
        classes=10,
        build=lenet,
        conformance=(1, 28),
        published=Published(61_706, 416_520),
    ),
)
