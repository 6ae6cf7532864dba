"""`predict`: which class, for image files or for the first test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli import options
from triptych.cli.run_options import DEFAULT_RUN, ModelOptions, RunOptions, parse_dense_size
from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.training.evaluation import Prediction


def predict(
    model: options.TrainedModel,
    images: Annotated[list[Path] | None, Parameter(help="Image files.", negative="")] = None,
    *,
    first: Annotated[
        options.Positive, Parameter(help="The first N test images instead, with their true classes.")
    ] = None,
    backend: options.BackendName = None,
    run: RunOptions = DEFAULT_RUN,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    dense: options.Dense = False,
    dense_size: options.DenseSize = None,
    device: options.DeviceName = "cpu",
    json: options.JsonFile = None,
) -> None:
    """Classify image files, or the first N test images, with a trained model, on any backend.

    Example: triptych predict runs/vgg11 --first 9
    """
    from triptych.backend import registry
    from triptych.training import evaluation

    if (images is None) == (first is None):
        raise TriptychError("give image files, or --first N for the first test images")
    size = parse_dense_size(dense, dense_size)
    name, checked = options.backend_name(backend), ModelOptions(run, network)
    for path in images or ():
        if not path.is_file():
            raise TriptychError(f"there is no image file {path}")
    trained = checked.load(model)
    if first is None:
        loaded = registry.load(name)
        predictions = evaluation.predict_files(trained, images or (), loaded, device, dense=dense, size=size)
    else:
        dataset = trained.load_data(run.data, run.data_dir)
        if dense:
            trained = trained.dense_for(dataset.test.images.shape[2:], size)
        predictions = evaluation.predict_test(trained, dataset, first, registry.load(name), device)
    options.write_json(json, [vars(prediction) for prediction in predictions])
    if json != "-":
        show(predictions)


def show(predictions: list[Prediction]) -> None:
    """The predictions as a table, with a count of the right ones where the true class is known."""
    rows = [(p.image, p.predicted, f"{p.probability:.3f}", p.true or "") for p in predictions]
    print_table(("image", "predicted", "probability", "true"), rows, right=(2,))
    known = [p for p in predictions if p.true is not None]
    if known:
        print(f"{sum(p.predicted == p.true for p in known)} of {len(known)} right")
