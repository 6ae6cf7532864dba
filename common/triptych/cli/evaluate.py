"""`evaluate`: loss and accuracy of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import (
    Dense,
    DenseSize,
    DeviceName,
    JsonFile,
    NetworkOptions,
    RunOptions,
    load_backend,
    picture,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triptych.data import Dataset
    from triptych.spec.layers import Pair
    from triptych.training.models import Model

DEFAULT_NETWORK = NetworkOptions()
DEFAULT_RUN = RunOptions()


def evaluate(
    model: Annotated[Path, Parameter(help="A run folder, or a safetensors file (then with --arch and its options).")],
    *,
    backend: Annotated[str | None, Parameter(help="torch, mxnet or jax; the first installed if left out.")] = None,
    run: RunOptions = DEFAULT_RUN,
    network: NetworkOptions = DEFAULT_NETWORK,
    dense: Dense = False,
    dense_size: DenseSize = None,
    grid: Annotated[
        Path | None,
        Parameter(help="Draw the first test images with predicted and true names.", validator=picture("--grid")),
    ] = None,
    confusion: Annotated[
        Path | None,
        Parameter(help="Count and draw predicted against true classes.", validator=picture("--confusion")),
    ] = None,
    device: DeviceName = "cpu",
    json: JsonFile = None,
) -> None:
    """Loss and accuracy of a trained model on the test images, on any backend, whichever trained it.

    Example: triptych evaluate runs/vgg11 --backend mxnet
    """
    from triptych.report import pictures
    from triptych.training import loop

    loaded = load_model(model, run, network)
    dataset = load_data(model, run, loaded)
    loaded = as_dense(loaded, dense, dense_size, dataset.test.images.shape[2:])
    chosen = load_backend(backend)
    predictor = loaded.predictor(chosen, device)
    logits = loop.logits_of(predictor, dataset.test, loaded.recipe.images_per_test)
    loss, accuracy = loop.score(logits, dataset.test.labels)
    title = f"{loaded.architecture.name} on {dataset.name}, {chosen.name}: test accuracy {accuracy:.4f}"
    names = all_names(dataset.class_names, logits.shape[1])
    matrix = loop.confusion(logits, dataset.test.labels)[: len(dataset.class_names)]
    if grid is not None:
        pictures.save(pictures.predictions(dataset.test, logits, names, title=title), grid)
    if confusion is not None:
        pictures.save(pictures.confusion(matrix, dataset.class_names, names, title=title), confusion)
    images = len(dataset.test)
    if json is not None:
        found = {"backend": chosen.name, "data": dataset.name, "images": images, "loss": loss, "accuracy": accuracy}
        counted = {} if confusion is None else {"class_names": names, "confusion": matrix.tolist()}
        write_json(json, found | describe_dense(loaded) | counted)
    if json != "-":
        print(
            f"{chosen.name}: {dataset.name}, {images} test images, loss {loss:.4f}, accuracy {accuracy:.4f}"
            + "".join(
                f", {name.replace('_', ' ')} {'x'.join(map(str, v))}" for name, v in describe_dense(loaded).items()
            )
        )
        if confusion is not None:
            show_confusion(matrix, dataset.class_names, names)
        for file in (grid, confusion):
            if file is not None:
                print(f"figure: {file}")


def all_names(names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """The data's class names, and numbers for the classes that only the model has."""
    return (*names, *map(str, range(len(names), classes)))


def show_confusion(matrix: NDArray[np.int64], true: Sequence[str], predicted: Sequence[str]) -> None:
    """The counts as a table; where it would be too wide, the most frequent mistakes only."""
    import numpy as np

    from triptych.report.pictures import ANNOTATED
    from triptych.report.tables import print_table

    if len(predicted) <= ANNOTATED:
        rows = [(name, *map(str, counts)) for name, counts in zip(true, matrix, strict=True)]
        print_table(("true \\ predicted", *predicted), rows, right=range(1, 1 + len(predicted)))
        return
    wrong = sorted(((int(n), r, c) for (r, c), n in np.ndenumerate(matrix) if n and r != c), reverse=True)
    rows = [(true[row], predicted[column], str(count)) for count, row, column in wrong[:ANNOTATED]]
    print_table(("true", "predicted", "images"), rows, title="most frequent mistakes", right=(2,))


def as_dense(model: Model, dense: bool, size: str | None, stored: Sequence[int]) -> Model:
    """The model as it is, or with `--dense` in its convolutional form for images stored at `stored`."""
    from triptych.spec import rewrite as form
    from triptych.utils.errors import TriptychError

    if size is not None and not dense:
        raise TriptychError("--dense-size says at which size --dense is run; give --dense too")
    if not dense:
        return model
    _, height, width = model.architecture.input
    return model.dense(form.fit_size((stored[0], stored[1]), (height, width)) if size is None else parse_size(size))


def parse_size(text: str) -> Pair:
    """`64` or `48x64` as (height, width). Raises TriptychError for anything else."""
    import re

    from triptych.utils.errors import TriptychError

    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if match is None:
        raise TriptychError(f"--dense-size '{text}' is neither N nor HxW; write for example 256 or 256x384")
    return int(match[1]), int(match[2] or match[1])


def describe_dense(model: Model) -> dict[str, list[int]]:
    """The size that the convolutional form was run at and the map of scores it averaged; nothing for a plain model."""
    from triptych.spec import rewrite

    if model.architecture.layers[-1].name != rewrite.FLATTEN:
        return {}
    return {"dense_size": [*model.architecture.input[1:]], "dense_scores": [*rewrite.score_map(model.architecture)[1:]]}


def load_model(path: Path, run: RunOptions, network: NetworkOptions) -> Model:
    """The model at `path`. A bare file needs options; a run folder knows its own recipe."""
    from dataclasses import replace

    from triptych.training import models
    from triptych.training.recipe import Recipe
    from triptych.utils.errors import TriptychError

    if path.is_dir():
        # A model that was trained in bf16 can be used where there is none, and in batches that fit another device.
        changes = RunOptions(precision=run.precision, batch_size=run.batch_size)
        if network != DEFAULT_NETWORK or replace(run, data=None, data_dir=None) != changes:
            raise TriptychError(
                f"{path} is a run and knows its recipe; only --backend, --device, --data, --data-dir, --precision and "
                "--batch-size can be given"
            )
        model = models.load_run(path)
        return replace(model, recipe=changes.apply(model.recipe, DEFAULT_NETWORK))
    if not path.exists():
        raise TriptychError(f"there is no run folder or model file {path}")
    if run.arch is None:
        raise TriptychError(
            f"{path} holds parameters only; say which network with --arch (and --input, --classes, ...)"
        )
    return models.load_file(path, run.apply(Recipe(name="file"), network))


def load_data(path: Path, run: RunOptions, model: Model) -> Dataset:
    """The data that was asked for, or that the run was trained on. Raises TriptychError if the model has too few
    classes for it."""
    from triptych import data
    from triptych.utils.errors import TriptychError

    dataset = data.load(run.data if run.data is not None else model.recipe.data, data_dir=run.data_dir)
    if len(dataset.class_names) > model.architecture.classes:
        raise TriptychError(
            f"'{dataset.name}' has {len(dataset.class_names)} classes, "
            f"the model {path} only {model.architecture.classes}"
        )
    return dataset
