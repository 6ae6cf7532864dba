"""`predict`: which class, for image files or for the first test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import Dense, DenseSize, DeviceName, JsonFile, NetworkOptions, Whole, backend_name, write_json
from triptych.cli.run_options import ModelOptions, RunOptions, parse_dense_size

if TYPE_CHECKING:
    from triptych.training.evaluation import Prediction

DEFAULT_NETWORK = NetworkOptions()
DEFAULT_RUN = RunOptions()


def predict(
    model: Annotated[Path, Parameter(help="A run folder, or a safetensors file (then with --arch and its options).")],
    images: Annotated[list[Path] | None, Parameter(help="Image files.", negative="")] = None,
    *,
    first: Annotated[Whole, Parameter(help="The first N test images instead, with their true classes.")] = None,
    backend: Annotated[str | None, Parameter(help="torch, mxnet or jax; the first installed if left out.")] = None,
    run: RunOptions = DEFAULT_RUN,
    network: NetworkOptions = DEFAULT_NETWORK,
    dense: Dense = False,
    dense_size: DenseSize = None,
    device: DeviceName = "cpu",
    json: JsonFile = None,
) -> None:
    """Classify image files, or the first N test images, with a trained model, on any backend.

    Example: triptych predict runs/vgg11 --first 9
    """
    from dataclasses import asdict

    from triptych.backend import registry
    from triptych.training import evaluation
    from triptych.utils.errors import TriptychError

    if (images is None) == (first is None):
        raise TriptychError("give image files, or --first N for the first test images")
    if first is not None and first < 1:
        raise TriptychError(f"--first {first} must be at least 1")
    size = parse_dense_size(dense, dense_size)
    name, options = backend_name(backend), ModelOptions(run, network)
    for path in images or ():
        if not path.is_file():
            raise TriptychError(f"there is no image file {path}")
    trained = options.load(model)
    if first is None:
        predictions = evaluation.predict_files(
            trained, images or (), registry.load(name), device, dense=dense, size=size
        )
    else:
        dataset = trained.load_data(run.data, run.data_dir)
        if dense:
            trained = trained.dense_for(dataset.test.images.shape[2:], size)
        predictions = evaluation.predict_test(trained, dataset, first, registry.load(name), device)
    if json is not None:
        write_json(json, [asdict(prediction) for prediction in predictions])
    if json != "-":
        show(predictions)


def show(predictions: list[Prediction]) -> None:
    """The predictions as a table, with a count of the right ones where the true class is known."""
    from triptych.report.tables import print_table

    print_table(
        ("image", "predicted", "probability", "true"),
        [(p.image, p.predicted, f"{p.probability:.3f}", p.true or "") for p in predictions],
        right=(2,),
    )
    known = [p for p in predictions if p.true is not None]
    if known:
        print(f"{sum(p.predicted == p.true for p in known)} of {len(known)} right")
