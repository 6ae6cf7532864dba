"""NiN as the textbook has it: each convolution is followed by two 1x1 convolutions, and no dense layer is left."""

from triptych.spec.layers import Block, Conv, Dropout, Flatten, GlobalAvgPool, Layer, Layers, MaxPool, ReLU
from triptych.zoo import Entry, Options, Published

# channels, kernel, stride, padding of each block's first convolution: AlexNet's. The paper's own networks (for
# CIFAR-10) are others. The last block has as many channels as there are classes.
BLOCKS = ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1))
LAST = (3, 1, 1)


def block(number: int, channels: int, kernel: int, stride: int, padding: int) -> Block:
    """A convolution and two of 1x1, each with a ReLU."""
    layers: list[Layer] = []
    for index, (k, s, p) in enumerate(((kernel, stride, padding), (1, 1, 0), (1, 1, 0)), start=1):
        layers += [Conv(f"conv{index}", channels, (k, k), (s, s), (p, p)), ReLU(f"relu{index}")]
    return Block(f"block{number}", tuple(layers))


def nin(options: Options) -> Layers:
    layers: list[Layer] = []
    for number, (channels, *shape) in enumerate(BLOCKS, start=1):
        narrowed = options.channels(channels, f"block{number}")
        layers += [block(number, narrowed, *shape), MaxPool(f"pool{number}", kernel=(3, 3), stride=(2, 2))]
    last = block(len(BLOCKS) + 1, options.classes, *LAST)
    return (*layers, Dropout("dropout", 0.5), last, GlobalAvgPool("pool4"), Flatten("flatten"))


SOURCE = "Dive into Deep Learning, section 8.3 (after Lin et al. 2013)"
COUNTS = Published(1_992_166, 762_297_352)
ENTRIES = (Entry("nin", SOURCE, (1, 224, 224), 10, nin, conformance=(16, 103), published=COUNTS),)
