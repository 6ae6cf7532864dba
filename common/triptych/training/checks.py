"""Whether data are those that a run or a model was trained on, labels mean what they meant, and batches suffice."""

import math
from collections.abc import Sequence

from triptych.data import Dataset
from triptych.spec.analysis import analyse
from triptych.spec.layers import Architecture, BatchNorm, keeps_statistics
from triptych.training.checkpoint import State
from triptych.training.recipe import LOCAL, Recipe
from triptych.utils.errors import TriptychError


def check_data(state: State, dataset: Dataset) -> None:
    """Raises TriptychError unless a run can go on with these images: they have to be those that it began with."""
    check_classes(state.class_names, dataset)
    for name, digest in dataset.digests.items():
        if state.data.get(name, digest) != digest:
            raise TriptychError(
                f"the {name} images or labels of '{dataset.name}' are others than when the run was begun; bring those "
                f"back, or train anew (--init-from takes the weights over)"
            )


def check_classes(names: Sequence[str], dataset: Dataset) -> None:
    """Raises TriptychError, with the first that differs, unless the labels of a data set mean what they meant for a
    model that was trained on classes of these `names` (none: nothing is known); it may lack the last ones."""
    if not names:
        return
    for label, name in enumerate(dataset.class_names):
        known = names[label] if label < len(names) else None
        if name != known:
            was = "was not there" if known is None else f"was '{known}'"
            raise TriptychError(
                f"class {label} of '{dataset.name}' is '{name}', and {was} when the model was trained: its answers "
                f"would be read as other classes"
            )


def check_batches(
    architecture: Architecture, recipe: Recipe, images: int, frozen: frozenset[str], processes: int = 1
) -> None:
    """Raises TriptychError if a batch norm would be given one number per channel by a batch of so many training
    `images` (the last one may be small, and is taken in parts by `processes` with statistics of their own, and by
    micro-batches): one number has no variance. PyTorch refuses it when it comes to it; the others would divide by 0."""
    parts = recipe.accumulate * (processes if recipe.batch_norm == LOCAL else 1)
    if (images % recipe.batch_size or recipe.batch_size) // parts > 1:
        return
    for info in analyse(architecture):
        moving = isinstance(info.layer, BatchNorm) and not keeps_statistics(info.path, frozen)
        if moving and math.prod(info.input[1:]) == 1:
            raise TriptychError(
                f"the last batch of {images} images by {recipe.batch_size} would give batch norm '{info.path}', whose "
                f"maps are 1x1, one number per channel, which has no variance; choose another --batch-size"
            )
