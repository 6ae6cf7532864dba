"""A trained model: its parameters, and the recipe and network that they belong to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from triptych import data
from triptych.backend.contract import Backend, Predictor
from triptych.backend.execution import Execution
from triptych.data import Dataset
from triptych.data.preprocess import InputTransform
from triptych.spec import rewrite
from triptych.spec.layers import Architecture, Pair
from triptych.training import run_folder
from triptych.training.checks import check_classes
from triptych.training.recipe import NATIVE, Recipe, build_network, build_transform, draw
from triptych.utils.errors import TriptychError
from triptych.weights import store
from triptych.weights.initializers import Parameters


@dataclass(frozen=True)
class Model:
    """Trained parameters and what they belong to; `class_names` is empty where nothing tells them, as is `data`, the
    digests of the images by split. `remark` says what was passed over to come to this model. Raises TriptychError for
    parameters that are no finite numbers."""

    recipe: Recipe
    architecture: Architecture
    parameters: Parameters
    class_names: tuple[str, ...]
    remark: str = ""
    data: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, values in self.parameters.items():
            if not np.isfinite(values).all():
                raise TriptychError(
                    f"the weights of '{self.architecture.name}' are no model: '{path}' holds NaN or inf"
                )

    @property
    def transform(self) -> InputTransform:
        """How stored images become the network's input."""
        return build_transform(self.recipe, self.architecture)

    def dense(self, size: Pair) -> Self:
        """The same parameters as convolutions over images of `size` (height, width); see `triptych.spec.rewrite`."""
        architecture = rewrite.convolve(self.architecture, size)
        return replace(self, architecture=architecture, parameters=rewrite.reshape(architecture, self.parameters))

    def dense_for(self, stored: Sequence[int], size: Pair | None = None) -> Self:
        """The convolutional form for images stored at `stored` (height, width), or brought to `size`."""
        _, height, width = self.architecture.input
        return self.dense(size or rewrite.fit_size((stored[0], stored[1]), (height, width)))

    @property
    def score_map(self) -> dict[str, list[int]]:
        """The size that the convolutional form is run at and the map of scores it averages; nothing for a plain one."""
        if self.architecture.layers[-1].name != rewrite.FLATTEN:
            return {}
        size, scores = self.architecture.input[1:], rewrite.score_map(self.architecture)[1:]
        return {"dense_size": list(size), "dense_scores": list(scores)}

    def load_data(self, name: str | None, data_dir: Path | None) -> Dataset:
        """The data set `name`, or that of the recipe. Raises TriptychError if it has more classes than the model, or
        others, and if that of the recipe has other test images than the run had."""
        dataset = data.load(self.recipe.data if name is None else name, data_dir=data_dir, reading=self.recipe.reading)
        if len(dataset.class_names) > self.architecture.classes:
            raise TriptychError(
                f"'{dataset.name}' has {len(dataset.class_names)} classes, the model only {self.architecture.classes}"
            )
        check_classes(self.class_names, dataset)
        if name is None and self.data.get("test", dataset.test.digest) != dataset.test.digest:
            raise TriptychError(
                f"the test images or labels of '{dataset.name}' are others than when the model was trained; give "
                f"--data {self.recipe.data} to take those that are there now"
            )
        return dataset

    def layers(self, backend: Backend, device: str = "cpu") -> Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]:
        """The model on a backend in evaluation mode: from the network's input to the output of every layer by path."""
        network = backend.build(self.architecture, device=device, execution=Execution(self.recipe.precision, "quick"))
        backend.from_canonical(network, self.parameters)
        return lambda x: backend.forward(network, np.ascontiguousarray(x))

    def predictor(self, backend: Backend, device: str = "cpu") -> Predictor:
        """The model on a backend, for evaluation and prediction."""
        network = backend.build(self.architecture, device=device, execution=Execution(self.recipe.precision))
        backend.from_canonical(network, self.parameters)
        return backend.Predictor(network, self.transform)


def load_run(folder: Path) -> Model:
    """The model of a run folder. Raises TriptychError if there is none, or it is damaged."""
    recipe = run_folder.read_recipe(folder)
    checkpoint = run_folder.load(folder, recipe)
    if checkpoint is None:
        raise TriptychError(f"{folder} has no finished epoch yet, so no model; train on with --resume {folder}")
    names, shape = checkpoint.state.class_names, checkpoint.state.input
    if not names:
        raise TriptychError(f"{folder}: {run_folder.STATE} names no classes")
    options = replace(recipe.network, input=shape).filled(len(names), recipe.network.input)
    recipe = replace(recipe, network=options)
    architecture = build_network(recipe, options)
    store.check_fit(architecture, checkpoint.model)
    return Model(recipe, architecture, checkpoint.model, names, checkpoint.remark, dict(checkpoint.state.data))


def draw_model(recipe: Recipe) -> Model:
    """An untrained model: the recipe's network at its start, for which no framework is needed. Raises TriptychError for
    a start that only a framework can draw."""
    if recipe.initializer == NATIVE:
        raise TriptychError(
            "feature maps of an untrained network need a shared start; --init native is each framework's"
        )
    architecture = build_network(recipe, recipe.network)
    return Model(recipe, architecture, draw(recipe, architecture), ())
