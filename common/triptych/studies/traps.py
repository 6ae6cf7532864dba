"""Errors in the texts' code, tables and answers, each with its text and what really happens;
tests/studies/test_traps.py shows every one in PyTorch, or recounts it."""

from dataclasses import replace

from triptych import zoo
from triptych.report.figures import bars
from triptych.spec import rewrite
from triptych.spec.analysis import analyse, weight_layers
from triptych.spec.layers import Architecture, Conv, Dense, Flatten, GlobalAvgPool, Layer, MaxPool, ReLU
from triptych.studies import Cell, Counted, StudyResult, Table

ASCEND = "a text on VGG-11 for CIFAR-10 on Ascend"
EXERCISES = "answers to the textbook's exercises on VGG, with channels / 8 and Adam"
FIELDS = "a text on stacks of 3x3 convolutions and their receptive fields"
PLAIN = "a text that writes VGG-16 itself, for Fashion-MNIST"

# Text, what it writes, what really happens.
TRAPS = (
    (
        ASCEND,
        "It names the convolutions of a block conv2D{} with a number that comes twice.",
        "add_module with a name that is taken replaces the earlier module in its place, without a word: of three "
        "convolutions two are left. Where the channels do not change nothing fails, and the network is another one "
        "than the text says.",
    ),
    (
        ASCEND,
        "Dropout stands between convolution and max pooling.",
        "In training what it keeps is doubled, and of a 2x2 window the largest that is left goes on; in evaluation "
        "nothing is doubled, so every pooling hands on less than the network was trained with. Measured with a quarter "
        "of the channels after four epochs: 0.45 on average behind the last pooling in training, 0.07 in evaluation; "
        "38 % of test images right with dropout left on, 12 % without. Later epochs catch up: in PyTorch 31 % after "
        "ten, 44 % after sixteen.",
    ),
    (
        EXERCISES,
        "Its answer to 'we saw 8 results, not 11' writes the pairs of conv_arch the other way round: (channels, "
        "convolutions).",
        "The block takes (convolutions, channels). (64, 1) is a block of 64 convolutions with one channel each, and "
        "nothing fails. The eight results are five blocks and three dense layers; the blocks hold 1, 1, 2, 2 and 2 "
        "convolutions, which makes the eleven layers with weights.",
    ),
    (
        FIELDS,
        "Its table gives receptive fields of 11 and 13.",
        "They need a stride of 2 that it does not state. Behind two 3x3 convolutions, the second with stride 2, a "
        "third sees 9 pixels, a 2x2 pooling behind that 11, a fourth 3x3 in its place 13. Without the stride it is 7, "
        "8 and 9.",
    ),
    (
        FIELDS,
        "It gives the score map of a 448x448 image as 2x2.",
        "VGG made convolutional, trained at 224x224, has a stride of 32: 448x448 leaves maps of 14x14, and 7x7 windows "
        "have 8x8 places on them.",
    ),
    (
        PLAIN,
        "It writes nn.ReLU(x) where it means nn.functional.relu(x).",
        "It builds a module whose inplace is x and applies nothing; the next layer is handed a module, and raises "
        "TypeError.",
    ),
    (
        PLAIN,
        "Its dense layer takes 512*3*3 features, which is five poolings of 96x96 images, and is fed with 28x28.",
        "28 halves to 14, 7, 3, 1: the fifth pooling raises RuntimeError, and with four the dense layer does, at 512 "
        "features for 4608.",
    ),
    (
        PLAIN,
        "Its VGG-16 takes 3 channels and is fed the grey images of Fashion-MNIST.",
        "The first convolution raises RuntimeError. Here a network takes the channels of its data.",
    ),
)


def of(text: str) -> tuple[str, ...]:
    """The errors of one text, for the page of the study that follows it."""
    return tuple(f"{wrote} {happens}" for source, wrote, happens in TRAPS if source == text)


def stack(*layers: Layer) -> Architecture:
    """Layers on an image of 64x64, with a head that only closes it."""
    head = (GlobalAvgPool("last"), Flatten("flatten"), Dense("dense", 2))
    return Architecture("stack", (1, 64, 64), 2, (*layers, *head))


def fields(stride: int) -> tuple[int, int, int]:
    """What a third 3x3 convolution sees behind two of which the second has this stride, a 2x2 pooling behind it, and a
    fourth 3x3 in the pooling's place; in pixels, one side."""
    first: list[Layer] = [Conv(f"conv{n}", 1, (3, 3), (stride if n == 2 else 1,) * 2) for n in range(1, 4)]
    pooled, deeper = (*first, MaxPool("pool", (2, 2), (2, 2))), (*first, Conv("conv4", 1, (3, 3)))
    seen = {info.path: info.receptive_field[0] for info in (*analyse(stack(*pooled)), *analyse(stack(*deeper)))}
    return seen["conv3"], seen["pool"], seen["conv4"]


def swapped(convolutions: int, channels: int) -> Architecture:
    """The textbook's first block and head, of so many convolutions and channels."""
    layers: list[Layer] = []
    for number in range(1, convolutions + 1):
        layers += [Conv(f"conv{number}", channels, (3, 3), padding=(1, 1)), ReLU(f"relu{number}")]
    return replace(stack(*layers), name=f"{convolutions} x {channels}")


def counted() -> Table:
    """The numbers behind the sentences, from specs."""
    vgg = zoo.build("vgg11")
    blocks, layers = sum(layer.name.startswith("block") for layer in vgg.layers), weight_layers(vgg)
    dense = sum(isinstance(layer, Dense) for layer in vgg.layers)
    rows: list[dict[str, Cell]] = [
        {"what": "VGG-11: results that are printed (blocks and dense layers)", "number": blocks + dense},
        {"what": "VGG-11: layers with weights", "number": layers},
        {"what": "block (1, 64), as it is meant: convolutions", "number": weight_layers(swapped(1, 64)) - 1},
        {"what": "block (64, 1), as it is written: convolutions", "number": weight_layers(swapped(64, 1)) - 1},
    ]
    for stride, words in ((1, "without a stride"), (2, "with a stride of 2 in the second")):
        for name, field in zip(("third 3x3", "2x2 pooling behind it", "fourth 3x3"), fields(stride), strict=True):
            rows.append({"what": f"receptive field {words}: {name}", "number": field})
    places = rewrite.score_map(rewrite.convolve(vgg, (448, 448)))[1]
    rows.append({"what": "VGG-11 on 448x448: places of the score map on each side", "number": places})
    return Table.of("Counted from the specs", rows)


def run() -> StudyResult:
    """Every error with its text, and the numbers that can be counted."""
    rows: list[dict[str, Cell]] = [
        {"text": text, "what it writes": wrote, "what really happens": happens} for text, wrote, happens in TRAPS
    ]
    seen = {f"stride {stride}": [float(field) for field in fields(stride)] for stride in (1, 2)}
    figure = bars(("third 3x3", "2x2 pooling", "fourth 3x3"), seen, y="receptive field, pixels")
    findings = tuple(f"{text}: {wrote} {happens}" for text, wrote, happens in TRAPS)
    return StudyResult((counted(), Table.of("Errors", rows)), (("Receptive fields", figure),), findings)


STUDY = Counted(
    name="traps",
    question="Which errors do the texts' code, tables and answers have, and what really happens?",
    source="the texts that the studies follow, and two more on VGG",
    run=run,
)
