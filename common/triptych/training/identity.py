"""Whether data are those that a run or a model was trained on, and labels mean what they meant."""

from collections.abc import Sequence

from triptych.data import Dataset
from triptych.training.checkpoint import State
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
