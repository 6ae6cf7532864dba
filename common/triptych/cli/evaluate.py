"""`evaluate`: loss and accuracy of a trained model. `predict`: the classes of single images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych.cli import options
from triptych.cli.run_options import DEFAULT_USE, ModelOptions, UseOptions, parse_dense_size
from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triptych.backend.contract import Backend
    from triptych.spec.layers import Pair
    from triptych.training.evaluation import Evaluation, Prediction
    from triptych.training.models import Model


def evaluate(
    model: options.TrainedModel,
    *,
    backend: options.BackendName = None,
    use: UseOptions = DEFAULT_USE,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    dense: options.Dense = False,
    dense_size: options.DenseSize = None,
    grid: Annotated[
        Path | None, options.picture("--grid", "Draw test images of all classes with predicted and true names.")
    ] = None,
    confusion: Annotated[
        Path | None, options.picture("--confusion", "Count and draw predicted against true classes.")
    ] = None,
    device: options.DeviceName = "cpu",
    json: options.JsonFile = None,
) -> None:
    """Loss and accuracy of a trained model on the test images, on any backend, whichever trained it.

    Example: triptych evaluate runs/vgg11 --backend mxnet
    """
    from triptych.training import evaluation

    size = parse_dense_size(dense, dense_size)
    loaded, trained = opened(model, backend, use, network, device)
    dataset = trained.load_data(use.data, use.data_dir)
    if dense:
        trained = trained.dense_for(dataset.test.images.shape[2:], size)
    measured = evaluation.evaluate(trained, dataset, loaded, device)
    draw(measured, grid, confusion)
    options.write_json(json, as_dict(measured, counted=confusion is not None))
    if json != "-":
        show(measured, grid, confusion)


def predict(
    model: options.TrainedModel,
    images: Annotated[list[Path] | None, Parameter(help="Image files.", negative="")] = None,
    *,
    first: Annotated[
        options.Positive, Parameter(help="N test images instead, a fixed mix of all classes, with the true ones.")
    ] = None,
    backend: options.BackendName = None,
    use: UseOptions = DEFAULT_USE,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    dense: options.Dense = False,
    dense_size: options.DenseSize = None,
    top: Annotated[
        options.Positive, Parameter(help="Show the N most probable classes; --json has all of them.")
    ] = None,
    score_map: Annotated[
        Path | None, options.picture("--score-map", "With --dense: draw the scores at every place of one image.")
    ] = None,
    device: options.DeviceName = "cpu",
    json: options.JsonFile = None,
) -> None:
    """Classify image files, or the first N test images, with a trained model, on any backend.

    Example: triptych predict runs/vgg11 --first 9
    """
    from triptych.training import evaluation

    if (images is None) == (first is None):
        raise TriptychError("give image files, or --first N for the first test images")
    if score_map is not None and (not dense or len(images or ()) != 1):
        raise TriptychError("--score-map needs --dense and one image file")
    size = parse_dense_size(dense, dense_size)
    loaded, trained = opened(model, backend, use, network, device, images or ())
    if first is None:
        predictions = evaluation.predict_files(trained, images or (), loaded, device, dense=dense, size=size)
    else:
        dataset = trained.load_data(use.data, use.data_dir)
        if dense:
            trained = trained.dense_for(dataset.test.images.shape[2:], size)
        predictions = evaluation.predict_test(trained, dataset, first, loaded, device)
    if score_map is not None and images is not None:
        draw_scores(trained, images[0], loaded, device, size, score_map)
    best = [{"top": p.top(top)} if top is not None else {} for p in predictions]
    options.write_json(json, [vars(one) | more for one, more in zip(predictions, best, strict=True)])
    if json != "-":
        show_predictions(predictions, top or 1)


def opened(
    model: Path,
    backend: str | None,
    use: UseOptions,
    network: options.NetworkOptions,
    device: str,
    images: Sequence[Path] = (),
) -> tuple[Backend, Model]:
    """The backend and the trained model for these image files. Raises TriptychError, if it can before the framework is
    imported, for what does not fit together or into the memory that is here."""
    from triptych.backend import registry
    from triptych.training import capacity, sessions
    from triptych.training.recipe import build_network

    name, checked = options.backend_name(backend), ModelOptions(use, network)
    if use.arch is not None:
        capacity.check_use(checked.recipe, build_network(checked.recipe, checked.recipe.network), device)
    loaded = registry.load(name)
    sessions.check_execution([loaded], device, checked.recipe.precision)
    for path in images:
        if not path.is_file():
            raise TriptychError(f"there is no image file {path}")
    trained = checked.load(model)
    sessions.check_execution([loaded], device, trained.recipe.precision)
    capacity.check_use(trained.recipe, trained.architecture, device)
    return loaded, trained


def draw_scores(model: Model, file: Path, backend: Backend, device: str, size: Pair | None, target: Path) -> None:
    """The scores of the model's convolutional form at every place of an image, as a figure."""
    from triptych.report import pictures
    from triptych.training import evaluation

    picture, scores = evaluation.score_map(model, file, backend, device, size=size)
    names = [*model.class_names, *map(str, range(len(model.class_names), len(scores)))]
    title = f"{model.architecture.name}, {backend.name}: scores {scores.shape[1]}x{scores.shape[2]} of {file.name}"
    pictures.save(pictures.score_map(picture[0], scores, names, title=title), target)


def show_predictions(predictions: list[Prediction], top: int) -> None:
    """The `top` classes of each as a table, with a count of the right ones where the true class is known."""
    rows = [
        (p.image if place == 0 else "", name, f"{share:.3f}", (p.true or "") if place == 0 else "")
        for p in predictions
        for place, (name, share) in enumerate(p.top(top))
    ]
    print_table(("image", "predicted", "probability", "true"), rows, right=(2,))
    known = [p for p in predictions if p.true is not None]
    if known:
        print(f"{sum(p.predicted == p.true for p in known)} of {len(known)} right")


def draw(measured: Evaluation, grid: Path | None, confusion: Path | None) -> None:
    """The figures that were asked for."""
    from triptych.data import Split, subset
    from triptych.report import pictures

    dataset, names = measured.dataset, measured.names
    title = f"{measured.model.architecture.name} on {dataset.name}, {measured.backend}: test accuracy "
    title += f"{measured.score[1]:.4f}"
    if grid is not None:
        places = subset.mixed(dataset.test.labels, pictures.MOST_PREDICTIONS)
        shown = Split(dataset.test.images[places], dataset.test.labels[places])
        pictures.save(pictures.predictions(shown, measured.logits[places], names, title=title), grid)
    if confusion is not None:
        pictures.save(pictures.confusion(measured.confusion, dataset.class_names, names, title=title), confusion)


def as_dict(measured: Evaluation, *, counted: bool) -> dict[str, Any]:
    """The measurement as JSON has it, with the confusion where it was `counted`."""
    loss, accuracy = measured.score
    facts = {"backend": measured.backend, "data": measured.dataset.name, "images": len(measured.dataset.test)}
    facts |= {"loss": loss, "accuracy": accuracy, **measured.model.score_map}
    counts = {"class_names": measured.names, "confusion": measured.confusion.tolist()}
    return facts | (counts if counted else {})


def show(measured: Evaluation, grid: Path | None, confusion: Path | None) -> None:
    """The measurement in a line, and what was drawn."""
    loss, accuracy = measured.score
    dataset = measured.dataset
    print(
        f"{measured.backend}: {dataset.name}, {len(dataset.test)} test images, loss {loss:.4f}, accuracy {accuracy:.4f}"
        + "".join(f", {name.replace('_', ' ')} {'x'.join(map(str, v))}" for name, v in measured.model.score_map.items())
    )
    if confusion is not None:
        show_confusion(measured.confusion, dataset.class_names, measured.names)
    for file in (grid, confusion):
        if file is not None:
            print(f"figure: {file}")


def show_confusion(matrix: NDArray[np.int64], true: Sequence[str], predicted: Sequence[str]) -> None:
    """The counts as a table; where it would be too wide, the most frequent mistakes only."""
    import numpy as np

    from triptych.report.pictures import ANNOTATED

    if len(predicted) <= ANNOTATED:
        rows = [(name, *map(str, counts)) for name, counts in zip(true, matrix, strict=True)]
        print_table(("true \\ predicted", *predicted), rows, right=range(1, 1 + len(predicted)))
        return
    wrong = sorted(((int(n), r, c) for (r, c), n in np.ndenumerate(matrix) if n and r != c), reverse=True)
    rows = [(true[row], predicted[column], str(count)) for count, row, column in wrong[:ANNOTATED]]
    print_table(("true", "predicted", "images"), rows, title="most frequent mistakes", right=(2,))
