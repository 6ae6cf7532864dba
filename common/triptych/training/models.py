"""A trained model as a user names it: a run folder, or a safetensors file with an architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from triptych import zoo
from triptych.backend.contract import Backend, Predictor
from triptych.backend.execution import Execution
from triptych.data.preprocess import InputTransform
from triptych.spec import rewrite
from triptych.spec.layers import Architecture, Pair
from triptych.training import run_folder
from triptych.training.recipe import Recipe, build_transform
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

    def dense(self, size: Pair) -> Model:
        """The same parameters as convolutions over images of `size` (height, width); see `triptych.spec.rewrite`."""
        architecture = rewrite.convolve(self.architecture, size)
        return replace(self, architecture=architecture, parameters=rewrite.reshape(architecture, self.parameters))

    def predictor(self, backend: Backend, device: str = "cpu") -> Predictor:
        """The model on a backend."""
        network = backend.build(self.architecture, device=device, execution=Execution(self.recipe.precision))
        backend.from_canonical(network, self.parameters)
        return backend.Predictor(network, self.transform)


def load_run(folder: Path) -> Model:
    """The model of a run folder. Raises TriptychError if there is none, or it is damaged."""
    recipe = run_folder.read_recipe(folder)
    checkpoint = run_folder.load(folder)
    if checkpoint is None:
        raise TriptychError(f"{folder} has no finished epoch yet, so no model; train on with --resume {folder}")
    names = tuple(checkpoint.state.get("class_names", ()))
    shape = tuple(checkpoint.state.get("input", ()))
    if len(shape) != 3 or not names:
        raise TriptychError(f"{folder}: {run_folder.STATE} does not say the input and the class names")
    options = replace(recipe.network, input=(shape[0], shape[1], shape[2])).filled(len(names), recipe.network.input)
    return _fit(replace(recipe, network=options), checkpoint.model, names)


def load_file(path: Path, recipe: Recipe) -> Model:
    """A safetensors file of canonical parameters, for the architecture that `recipe` states; what its network leaves
    open is as in the architecture's source.

    Raises TriptychError, with the first differing name and shape, if the parameters do not fit.
    """
    return _fit(recipe, store.load(path), ())


def _fit(recipe: Recipe, parameters: Parameters, names: tuple[str, ...]) -> Model:
    architecture = zoo.build_with(recipe.architecture, recipe.network)
    store.check_fit(architecture, parameters)
    return Model(recipe, architecture, parameters, names)
