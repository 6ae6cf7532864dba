"""`predict`: which class, for image files or for the first test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from triptych.cli.evaluate import as_dense, load_data, load_model
from triptych.cli.options import (
    Dense,
    DenseSize,
    DeviceName,
    JsonFile,
    NetworkOptions,
    RunOptions,
    Whole,
    load_backend,
    write_json,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triptych.backend.contract import Backend, Images
    from triptych.training.models import Model

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
    import numpy as np

    from triptych.data import decoded
    from triptych.training import loop
    from triptych.utils.errors import TriptychError

    if (images is None) == (first is None):
        raise TriptychError("give image files, or --first N for the first test images")
    if first is not None and first < 1:
        raise TriptychError(f"--first {first} must be at least 1")
    for path in images or ():
        if not path.is_file():
            raise TriptychError(f"there is no image file {path}")
    loaded = load_model(model, run, network)
    if first is None:
        # A dense model takes an image as it is; else large ones are shrunk on reading, to be shrunk further anyway.
        pictures = [decoded.decode([path], decoded.stored_size(path) if dense else None) for path in images or ()]
        models = [as_dense(loaded, dense, dense_size, picture.shape[2:]) for picture in pictures]
        chosen = load_backend(backend)
        logits = predict_each(pictures, models, chosen, device)
        rows = classify(logits, loaded.class_names, [str(path) for path in images or ()])
    else:
        dataset = load_data(model, run, loaded)
        test = dataset.test.images[:first]
        chosen = load_backend(backend)
        predictor = as_dense(loaded, dense, dense_size, test.shape[2:]).predictor(chosen, device)
        logits = np.concatenate(list(loop.predictions(predictor, test, loaded.recipe.images_per_test)))
        rows = classify(logits, dataset.class_names, [f"test image {index}" for index in range(len(test))])
        for row, label in zip(rows, dataset.test.labels[:first], strict=True):
            row["true"] = dataset.class_names[label]
    if json is not None:
        write_json(json, rows)
    if json != "-":
        show(rows)


def predict_each(
    pictures: Sequence[Images], models: Sequence[Model], backend: Backend, device: str
) -> NDArray[np.float32]:
    """Logits of pictures `(1, C, H, W)`, each by its model; those of one input size share what is built for it."""
    import numpy as np

    of_size = {model.architecture.input: model for model in models}
    built = {shape: model.predictor(backend, device) for shape, model in of_size.items()}
    return np.concatenate([built[m.architecture.input].predict(x) for m, x in zip(models, pictures, strict=True)])


def classify(logits: NDArray[np.floating[Any]], names: tuple[str, ...], images: list[str]) -> list[dict[str, Any]]:
    """The most probable class of every image; its number where it has no name."""
    import numpy as np

    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    shares = powers / powers.sum(1, keepdims=True)
    return [
        {
            "image": image,
            "predicted": names[best] if best < len(names) else str(best),
            "probability": float(share[best]),
            "true": None,
        }
        for image, share, best in zip(images, shares, shares.argmax(1), strict=True)
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """The predictions as a table, with a count of the right ones where the truth is known."""
    from triptych.report.tables import print_table

    print_table(
        ("image", "predicted", "probability", "true"),
        [(r["image"], r["predicted"], f"{r['probability']:.3f}", r["true"] or "") for r in rows],
        right=(2,),
    )
    known = [r for r in rows if r["true"] is not None]
    if known:
        print(f"{sum(r['predicted'] == r['true'] for r in known)} of {len(known)} right")
