"""`evaluate`: loss and accuracy of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import DeviceName, JsonFile, NetworkOptions, RunOptions, load_backend, watching, write_json

if TYPE_CHECKING:
    from triptych.data import Dataset
    from triptych.models import Model

DEFAULT_NETWORK = NetworkOptions()
DEFAULT_RUN = RunOptions()


def evaluate(
    model: Annotated[Path, Parameter(help="A run folder, or a safetensors file (then with --arch and its options).")],
    *,
    backend: Annotated[str | None, Parameter(help="torch, mxnet or jax; the first installed if left out.")] = None,
    run: RunOptions = DEFAULT_RUN,
    network: NetworkOptions = DEFAULT_NETWORK,
    device: DeviceName = "cpu",
    json: JsonFile = None,
) -> None:
    """Loss and accuracy of a trained model on the test images, on any backend, whichever trained it.

    Example: triptych evaluate runs/vgg11 --backend mxnet
    """
    from triptych import training

    loaded = load_model(model, run, network)
    dataset = load_data(model, run, loaded)
    chosen = load_backend(backend)
    trainer = loaded.trainer(chosen, device)
    with watching([chosen], device):
        loss, accuracy = training.evaluate(trainer, dataset.test, loaded.recipe.images_per_test)
    images = len(dataset.test)
    if json is not None:
        found = {"backend": chosen.name, "data": dataset.name, "images": images, "loss": loss, "accuracy": accuracy}
        write_json(json, found)
    if json != "-":
        print(f"{chosen.name}: {dataset.name}, {images} test images, loss {loss:.4f}, accuracy {accuracy:.4f}")


def load_model(path: Path, run: RunOptions, network: NetworkOptions) -> Model:
    """The model at `path`. A bare file needs options; a run folder knows its own recipe."""
    from dataclasses import replace

    from triptych import models, recipes
    from triptych.errors import TriptychError

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
    return models.load_file(path, run.apply(recipes.Recipe(name="file"), network))


def load_data(path: Path, run: RunOptions, model: Model) -> Dataset:
    """The data that was asked for, or that the run was trained on. Raises TriptychError if the model has too few
    classes for it."""
    from triptych import data
    from triptych.errors import TriptychError

    dataset = data.load(run.data if run.data is not None else model.recipe.data, data_dir=run.data_dir)
    if len(dataset.class_names) > model.architecture.classes:
        raise TriptychError(
            f"'{dataset.name}' has {len(dataset.class_names)} classes, "
            f"the model {path} only {model.architecture.classes}"
        )
    return dataset
