"""A trained model: its parameters, and the recipe and network that they belong to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from triptych import data
from triptych.backend.contract import Backend, Predictor
from triptych.backend.execution import Execution
from triptych.data import Dataset
from triptych.data.preprocess import InputTransform
from triptych.spec import records, rewrite
from triptych.spec.layers import Architecture, Pair
from triptych.training import run_folder
from triptych.training.recipe import NATIVE, Recipe, build_network, build_transform, draw
from triptych.utils.errors import TriptychError
from triptych.weights import store
from triptych.weights.initializers import Parameters


@dataclass(frozen=True)
class Model:
    """Trained parameters and what they belong to; `class_names` is empty where nothing tells them."""

    recipe: Recipe
    architecture: Architecture
    parameters: Parameters
    class_names: tuple[str, ...]

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
        """The data set `name`, or that of the recipe. Raises TriptychError if it has more classes than the model."""
        dataset = data.load(self.recipe.data if name is None else name, data_dir=data_dir)
        if len(dataset.class_names) > self.architecture.classes:
            raise TriptychError(
                f"'{dataset.name}' has {len(dataset.class_names)} classes, the model only {self.architecture.classes}"
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
    checkpoint = run_folder.load(folder)
    if checkpoint is None:
        raise TriptychError(f"{folder} has no finished epoch yet, so no model; train on with --resume {folder}")
    try:
        names = records.decode(checkpoint.state.get("class_names"), tuple[str, ...], "class_names")
        shape = records.decode(checkpoint.state.get("input"), tuple[int, int, int], "input")
    except TriptychError as error:
        raise TriptychError(
            f"{folder}: {run_folder.STATE} does not say the input and the class names: {error}"
        ) from None
    if not names:
        raise TriptychError(f"{folder}: {run_folder.STATE} names no classes")
    options = replace(recipe.network, input=shape).filled(len(names), recipe.network.input)
    recipe = replace(recipe, network=options)
    architecture = build_network(recipe, options)
    store.check_fit(architecture, checkpoint.model)
    return Model(recipe, architecture, checkpoint.model, names)


def draw_model(recipe: Recipe) -> Model:
    """An untrained model: the recipe's network at its start, for which no framework is needed. Raises TriptychError for
    a start that only a framework can draw."""
    if recipe.initializer == NATIVE:
        raise TriptychError(
            "feature maps of an untrained network need a shared start; --init native is each framework's"
        )
    architecture = build_network(recipe, recipe.network)
    return Model(recipe, architecture, draw(recipe, architecture), ())
