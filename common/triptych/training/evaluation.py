"""What a trained model says of images: loss and accuracy on a test set, the classes of single images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Images
from triptych.data import Dataset, decoded, subset
from triptych.spec import rewrite
from triptych.spec.layers import Pair
from triptych.training import scoring
from triptych.training.feature_maps import capture
from triptych.training.models import Model
from triptych.utils.errors import TriptychError


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's logits `(N, classes)` on the test images of a data set, on one backend."""

    model: Model
    dataset: Dataset
    backend: str
    logits: NDArray[np.float64]

    @property
    def score(self) -> tuple[float, float]:
        """Mean loss and accuracy."""
        return scoring.score(self.logits, self.dataset.test.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The data's class names, and numbers for the classes that only the model has."""
        names = self.dataset.class_names
        return (*names, *map(str, range(len(names), self.logits.shape[1])))

    @property
    def confusion(self) -> NDArray[np.int64]:
        """How many images of each of the data's classes (row) were taken for each of the model's (column)."""
        counts = np.zeros((len(self.dataset.class_names), self.logits.shape[1]), np.int64)
        np.add.at(counts, (self.dataset.test.labels, self.logits.argmax(1)), 1)
        return counts


def evaluate(model: Model, dataset: Dataset, backend: Backend, device: str) -> Evaluation:
    """The model on all test images. Raises TriptychError if there are none."""
    predictor = model.predictor(backend, device)
    logits = finite(scoring.logits_of(predictor, dataset.test.images, model.recipe.images_per_test), model)
    return Evaluation(model, dataset, backend.name, logits)


def finite(logits: NDArray[np.float64], model: Model) -> NDArray[np.float64]:
    """The logits `(N, classes)`. Raises TriptychError if one is no number: then there is no loss, and no best class."""
    if not np.isfinite(logits).all():
        bad = int(np.flatnonzero(~np.isfinite(logits).all(1))[0])
        raise TriptychError(
            f"'{model.architecture.name}' has outputs that are no numbers, first of image {bad} (from 0): its weights "
            "are damaged or too large for the precision; train again, or try --precision fp64"
        )
    return logits


@dataclass(frozen=True)
class Prediction:
    """The most probable class of one image, and the true one where it is known; the probabilities of all classes."""

    image: str
    predicted: str
    probability: float
    true: str | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes, best first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:count]


def predict_test(model: Model, dataset: Dataset, count: int, backend: Backend, device: str) -> list[Prediction]:
    """The classes of `count` test images, a fixed mix of all classes."""
    predictor = model.predictor(backend, device)
    places = subset.mixed(dataset.test.labels, count)
    images, labels = dataset.test.images[places], dataset.test.labels[places]
    logits = finite(scoring.logits_of(predictor, images, model.recipe.images_per_test), model)
    names = [f"test image {index}" for index in places]
    return classify(logits, dataset.class_names, names, [dataset.class_names[label] for label in labels])


def predict_files(
    model: Model, files: Sequence[Path], backend: Backend, device: str, *, dense: bool = False, size: Pair | None = None
) -> list[Prediction]:
    """The classes of image files; with `dense` by the model's convolutional form, at `size` or the image's own."""
    # A dense model takes an image as it is; else large ones are shrunk on reading, to be shrunk further anyway.
    reading = model.recipe.reading
    shapes = [decoded.stored_size(file, reading) if dense else None for file in files]
    pictures = [decoded.decode([file], shape, reading) for file, shape in zip(files, shapes, strict=True)]
    models = [model.dense_for(picture.shape[2:], size) if dense else model for picture in pictures]
    logits = finite(logits_of_each(pictures, models, backend, device), model)
    return classify(logits, model.class_names, [str(file) for file in files])


def score_map(
    model: Model, file: Path, backend: Backend, device: str, *, size: Pair | None = None
) -> tuple[Images, NDArray[np.floating[Any]]]:
    """An image `(1, C, H, W)` as it is stored, and the scores `(classes, height, width)` of the model's convolutional
    form at every place of it; their mean are the logits. See `triptych.spec.rewrite`."""
    reading = model.recipe.reading
    picture = decoded.decode([file], decoded.stored_size(file, reading), reading)
    dense = model.dense_for(picture.shape[2:], size)
    path = rewrite.score_layer(dense.architecture)
    return picture, capture(backend, dense, picture, [path], device)[path]


def logits_of_each(
    pictures: Sequence[Images], models: Sequence[Model], backend: Backend, device: str
) -> NDArray[np.float64]:
    """Logits of pictures `(1, C, H, W)`, each by its model; those of one input size share what is built for it."""
    by_input = {model.architecture.input: model for model in models}
    built = {shape: model.predictor(backend, device) for shape, model in by_input.items()}
    each = zip(models, pictures, strict=True)
    return np.concatenate([built[model.architecture.input].predict(picture) for model, picture in each]).astype(float)


def classify(
    logits: NDArray[np.float64], names: Sequence[str], images: Sequence[str], true: Sequence[str | None] | None = None
) -> list[Prediction]:
    """The most probable class of every image; its number where it has no name."""
    from scipy.special import softmax

    shares = softmax(logits, axis=1)
    rows = zip(images, shares, shares.argmax(1), true or [None] * len(images), strict=True)
    every = [*names, *map(str, range(len(names), logits.shape[1]))]
    return [
        Prediction(image, every[best], float(share[best]), label, dict(zip(every, share.tolist(), strict=False)))
        for image, share, best, label in rows
    ]
