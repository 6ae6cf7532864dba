"""AlexNet as the textbook has it: one tower, no local response norm, 1x224x224."""

from __future__ import annotations

from triptych.spec import Conv, Dense, Dropout, Flatten, Layer, MaxPool, ReLU
from triptych.zoo import Entry, Options, Published

# channels, kernel, stride, padding, pooled. The textbook's PyTorch tab pads the first convolution by 1, its MXNet
# tab by 0: the shapes and counts at 224 are equal, the numbers are not. Here it is PyTorch's.
CONVOLUTIONS = (
    (96, 11, 4, 1, True),
    (256, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
DENSE = (4096, 4096)


def alexnet(options: Options) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for number, (channels, kernel, stride, padding, pooled) in enumerate(CONVOLUTIONS, start=1):
        conv = Conv(
            f"conv{number}",
            options.channels(channels, f"conv{number}"),
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=(padding, padding),
        )
        layers += [conv, ReLU(f"relu{number}")]
        if pooled:
            layers.append(MaxPool(f"pool{number}", kernel=(3, 3), stride=(2, 2)))
    layers.append(Flatten("flatten"))
    for number, units in enumerate(DENSE, start=6):
        layers += [
            Dense(f"dense{number}", options.dense(units, f"dense{number}")),
            ReLU(f"relu{number}"),
            Dropout(f"dropout{number}", 0.5),
        ]
    return (*layers, Dense("dense8", options.classes))


ENTRIES = (
    Entry(
        name="alexnet",
        source="Dive into Deep Learning, section 8.1 (after Krizhevsky et al. 2012)",
        input=(1, 224, 224),
        classes=10,
        build=alexnet,
        conformance=(16, 103),
        published=Published(46_764_746, 938_146_176),
    ),
)
