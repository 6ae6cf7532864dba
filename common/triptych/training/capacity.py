"""Whether a recipe fits into the memory that is here, said before a framework is imported; and what is said where it
did not."""

from collections.abc import Iterator
from contextlib import contextmanager

from triptych.backend.contract import Backend
from triptych.spec import footprint
from triptych.spec.layers import Architecture
from triptych.training.recipe import Recipe, build_network
from triptych.utils import memory

_SIZES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}  # bytes of a layer's value
_HERE = "cpu"  # the device that has no memory of its own


def check_training(recipe: Recipe, device: str) -> None:
    """Raises OutOfMemoryError if a step of this recipe cannot fit; what it leaves open is taken from the network's
    source. On a device with memory of its own only the parameters are counted."""
    architecture = build_network(recipe, recipe.network)
    slots = len(recipe.optimizer.slots) if recipe.optimizer.remembers(recipe.rates(0)) else 0
    needed = footprint.trained(architecture, slots, _SIZES[recipe.precision])
    _check(needed, architecture, _training(recipe, architecture), _at_once(recipe), device, recipe.accumulate)


def check_use(recipe: Recipe, architecture: Architecture, device: str) -> None:
    """Raises OutOfMemoryError if a trained network cannot be evaluated in the recipe's batches."""
    needed = footprint.evaluated(architecture, _SIZES[recipe.precision])
    _check(needed, architecture, f"running '{architecture.name}' on batches of", recipe.images_per_test, device)


@contextmanager
def told(recipe: Recipe, architecture: Architecture, backend: Backend) -> Iterator[None]:
    """Around a training: memory that ends within, of the processor or of the device, becomes an OutOfMemoryError that
    says what was tried and what to lower."""
    try:
        yield
    except Exception as error:
        if not (memory.ended(error) or backend.out_of_memory(error)):
            raise
        what = f"{backend.name}: {_training(recipe, architecture)} {_at_once(recipe)} images of {_size(architecture)}"
        raise memory.OutOfMemoryError(memory.failed(what, error)) from None


def _training(recipe: Recipe, architecture: Architecture) -> str:
    return f"training '{architecture.name}' in {'micro-' * (recipe.accumulate > 1)}batches of"


def _at_once(recipe: Recipe) -> int:
    """The images of the largest micro-batch; of the others nothing but their gradients is kept."""
    return -(-recipe.batch_size // recipe.accumulate)


def _size(architecture: Architecture) -> str:
    return "x".join(map(str, architecture.input))


def _check(
    needed: footprint.Footprint, architecture: Architecture, what: str, batch: int, device: str, parts: int = 1
) -> None:
    needed = needed if device == _HERE else footprint.on_device(architecture)
    needed.check(what, batch, _size(architecture), parts=parts)
