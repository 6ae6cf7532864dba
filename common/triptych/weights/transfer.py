"""What a training takes over from another one, and what of it does not move."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from triptych.spec import analysis
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError
from triptych.weights.initializers import Parameters


def take_over(
    architecture: Architecture, fresh: Parameters, pretrained: Parameters
) -> tuple[Parameters, tuple[str, ...]]:
    """`fresh` with each layer of `pretrained` that fits by name and shape, and the paths of the layers that stay fresh.
    A layer is taken whole or not at all: a new weight with an old bias would be neither. Raises TriptychError, with the
    first layer that does not fit, if none does."""
    layers: dict[str, list[str]] = {}
    for info in analysis.parameters(architecture):
        layers.setdefault(info.path.rpartition(".")[0], []).append(info.path)
    shapes = {path: value.shape for path, value in pretrained.items()}
    new = tuple(
        layer for layer, paths in layers.items() if any(shapes.get(path) != fresh[path].shape for path in paths)
    )
    if len(new) == len(layers):
        path = layers[new[0]][0]
        theirs = f"{shapes[path]} there" if path in shapes else "not there"
        raise TriptychError(
            f"nothing of --init-from fits '{architecture.name}': '{path}' is {fresh[path].shape} here, {theirs}"
        )
    taken = {path: pretrained[path] for layer, paths in layers.items() if layer not in new for path in paths}
    return fresh | taken, new


def without_head(architecture: Architecture, pretrained: Parameters) -> Parameters:
    """What is left of `pretrained` without the architecture's last layer with weights."""
    head = analysis.parameters(architecture)[-1].path.rpartition(".")[0]
    return {path: value for path, value in pretrained.items() if path.rpartition(".")[0] != head}


def check_frozen(frozen: frozenset[str], new: Sequence[str]) -> None:
    """Raises TriptychError for a layer that is new, and so would stay at its random start."""
    for path in sorted(frozen):
        if path.rpartition(".")[0] in new:
            raise TriptychError(
                f"--freeze would keep '{path}' at its random start: nothing of --init-from fits its layer"
            )


def frozen_paths(architecture: Architecture, patterns: Sequence[str]) -> frozenset[str]:
    """The canonical arrays, running statistics included, whose path matches one of the patterns (as file names do).
    Raises TriptychError for a pattern that matches none, and if no parameter is left to train."""
    infos = analysis.parameters(architecture)
    frozen: set[str] = set()
    for pattern in patterns:
        matched = {info.path for info in infos if fnmatchcase(info.path, pattern)}
        if not matched:
            raise TriptychError(
                f"--freeze '{pattern}' matches no parameter of '{architecture.name}'; they are named as "
                f"'{infos[0].path}', ..., '{infos[-1].path}' (a layer's: 'LAYER.*')"
            )
        frozen |= matched
    if not any(info.trained and info.path not in frozen for info in infos):
        raise TriptychError(f"--freeze {','.join(patterns)} leaves nothing of '{architecture.name}' to train")
    return frozenset(frozen)
