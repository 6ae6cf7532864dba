"""Dense layers as convolutions: the score map of a larger image against the network on every crop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend
from triptych.data import Split, preprocess, subset
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.report import figures
from triptych.spec import rewrite
from triptych.spec.analysis import totals
from triptych.spec.layers import Pair
from triptych.studies import Cell, StudyResult, Table, join
from triptych.studies.runner import Outcome, Trained
from triptych.studies.settings import LOOKED_AT, MINI, NETWORKS
from triptych.training import models
from triptych.training.models import Model
from triptych.training.recipes import RECIPES

IMAGES = 1000  # of the test set, as many of each class
BATCH = 20
STEPS = (0, 1, 2)  # total strides that the image is larger than in training, at each side
ROUNDING = 256 * FLOAT32_UNIT  # of the largest logit: what some ten layers' sums in another order can make; 1.5e-5

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Measured:
    """One network on images of one `size`: scores and logits of the crops, both `(N, classes, rows, columns)`, and the
    multiply-accumulates of each for one image."""

    size: Pair
    scores: Values
    crops: Values
    labels: NDArray[np.int64]
    macs: int
    crop_macs: int

    @property
    def places(self) -> Pair:
        return self.scores.shape[2], self.scores.shape[3]

    @property
    def difference(self) -> float:
        """The largest difference between a score and its crop's, in units of the largest logit."""
        return float(np.abs(self.scores - self.crops).max() / np.abs(self.crops).max())

    @property
    def agreement(self) -> float:
        """The share of images on which both means answer the same."""
        return float((answers(self.scores) == answers(self.crops)).mean())

    def accuracy(self, values: Values) -> float:
        """The accuracy of the mean over the places."""
        return float((answers(values) == self.labels).mean())


def answers(values: Values) -> NDArray[np.int64]:
    """The class with the largest mean over the places."""
    best: NDArray[np.int64] = values.mean((2, 3)).argmax(1)
    return best


def measure(model: Model, split: Split, steps: int, backend: Backend, device: str) -> Measured:
    """The convolutional form on images enlarged by `steps` total strides, and the plain network on every crop."""
    _, height, width = model.architecture.input
    down, right = rewrite.total_stride(model.dense((height, width)).architecture)
    size = (height + steps * down, width + steps * right)
    wide = model.dense(size)
    rows, columns = rewrite.score_map(wide.architecture)[1:]
    run_wide, score = wide.layers(backend, device), rewrite.score_layer(wide.architecture)
    run_plain, last = model.layers(backend, device), model.architecture.layers[-1].name
    scores, crops = [], []
    for begin in range(0, len(split), BATCH):
        x = preprocess.apply_reference(split.images[begin : begin + BATCH], wide.transform, dtype=np.float32)
        scores.append(run_wide(x)[score])
        grid = [[run_plain(crop)[last] for crop in row] for row in crops_of(x, (height, width), (down, right))]
        crops.append(np.array(grid).transpose(2, 3, 0, 1))
    macs, crop_macs = totals(wide.architecture).macs, totals(model.architecture).macs * rows * columns
    return Measured(size, np.concatenate(scores), np.concatenate(crops), split.labels, macs, crop_macs)


def crops_of(images: Values, size: Pair, stride: Pair) -> Iterator[list[Values]]:
    """The crops of `size` at every place, row by row."""
    (height, width), (down, right) = size, stride
    for top in range(0, images.shape[2] - height + 1, down):
        lefts = range(0, images.shape[3] - width + 1, right)
        yield [images[:, :, top : top + height, left : left + width] for left in lefts]


def look(outcomes: Sequence[Outcome], backend: Backend, device: str) -> StudyResult:
    """Rows and sentences per network, and a figure of all; nothing where none has learned."""
    if not outcomes:
        return StudyResult((), (), ())
    by_network = {outcome.name: measured(outcome, backend, device) for outcome in outcomes}
    parts_of_all = [
        StudyResult((table(name, backend.name, sizes),), (), tuple(sentences(f"{name}, {backend.name}", sizes)))
        for name, sizes in by_network.items()
    ]
    curves = {
        f"{name}, {values}": [(m.size[0] / sizes[0].size[0], m.accuracy(getattr(m, values))) for m in sizes]
        for name, sizes in by_network.items()
        for values in ("scores", "crops")
    }
    drawn = figures.lines(curves, x="height of the image / height in training", y="accuracy of the mean")
    return join([*parts_of_all, StudyResult((), ((f"Accuracy at larger images, {backend.name}", drawn),), ())])


def measured(outcome: Outcome, backend: Backend, device: str) -> list[Measured]:
    """One trained network at every size."""
    dataset = outcome.planned.dataset
    split = dataset.test
    if len(split) > IMAGES:
        split = subset.first(split, IMAGES, dataset.class_names, "the study's images")
    model = models.load_run(outcome.folder)
    return [measure(model, split, steps, backend, device) for steps in STEPS]


def table(name: str, backend: str, sizes: Sequence[Measured]) -> Table:
    """A row per size."""
    rows: list[dict[str, Cell]] = [
        {
            "network": name,
            "backend": backend,
            "image": "x".join(map(str, m.size)),
            "scores": "x".join(map(str, m.places)),
            "accuracy: scores": m.accuracy(m.scores),
            "accuracy: crops": m.accuracy(m.crops),
            "same answer": m.agreement,
            "largest difference / largest logit": m.difference,
            "MACs": m.macs,
            "MACs of the crops": m.crop_macs,
            "share": m.macs / m.crop_macs,
        }
        for m in sizes
    ]
    return Table.of(f"Score maps against crops, {len(sizes[0].labels):,} test images", rows)


def sentences(title: str, sizes: Sequence[Measured]) -> Iterator[str]:
    """Whether the training size's scores are the plain network's, and how the largest's compare with the crops'."""
    first, last = sizes[0], sizes[-1]
    difference = f"the largest difference is {first.difference:.1e} of the largest logit"
    verdict = "equal the plain network's up to float32 rounding"
    if not first.difference <= ROUNDING:
        verdict = "are NOT the plain network's: float32 rounding does not explain it"
    yield f"{title}: at {first.size[0]}x{first.size[1]} the scores {verdict}; {difference}."
    places = last.places[0] * last.places[1]
    yield (
        f"{title}: at {last.size[0]}x{last.size[1]} the mean of {places} scores is right for "
        f"{last.accuracy(last.scores):.3f} of the images, that of {places} crops for {last.accuracy(last.crops):.3f}; "
        f"they answer the same on {last.agreement:.1%}, with {last.macs / last.crop_macs:.0%} of the crops' operations."
    )


STUDY = Trained(
    name="dense",
    question="What do dense layers turned into convolutions give on larger images, against the network on every crop?",
    source="Simonyan and Zisserman 2014, section 3.2: dense evaluation against crops",
    base=RECIPES["d2l-lenet"],
    runs=LOOKED_AT,
    quick=MINI,
    networks=NETWORKS,
    look=look,
    notes=(
        f"The first {IMAGES:,} test images, as many of each class, enlarged to the training size and by one and two "
        "total strides of the network more. A score and the logits of the crop at its place have the same weights.",
        "At larger sizes they differ: a convolution pads a crop with zeros at its edges, where the larger image has "
        "the neighbouring pixels. The larger a network's receptive field against its crop, the more it sees of that.",
        "The networks were trained at one scale: of an enlarged image each crop shows a part of the object only.",
    ),
)
