"""Random numbers without state: each is a function of the run's seed and of the purpose it is drawn for.

Nothing has to be saved to resume a run, and a draw more for one purpose never shifts another's."""

import hashlib
import operator

import numpy as np
import numpy.typing as npt

from triptych.utils.errors import TriptychError

MOST_SEED = 2**31 - 1  # that every framework takes


def _digest(seed: int, purpose: tuple[str | int, ...]) -> bytes:
    """SHA-256 of the seed and the purposes, each with its type and length, so that no two lists read the same."""
    digest = hashlib.sha256()
    for part in (seed, *purpose):
        text = part if isinstance(part, str) else str(operator.index(part))
        data = text.encode(errors="surrogatepass")  # the name of a folder need not be UTF-8
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(data)}:".encode() + data)
    return digest.digest()


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A generator for one purpose, e.g. `generator(seed, "order", epoch)`; equal arguments, equal numbers. Counter
    based: Philox under a 128-bit key made from the arguments. `1` and `"1"` are different purposes."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, purpose)[:16], "little")))


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for a framework's own generator, in 0 .. 2^31 - 1 (which every framework takes)."""
    return int.from_bytes(_digest(seed, ("derive_seed", *purpose))[:4], "little") >> 1


def shuffled(count: int, draws: np.random.Generator) -> npt.NDArray[np.int64]:
    """The numbers 0 .. count - 1 in random order. Sorts uniform numbers instead of calling `permutation`: backends run
    under different NumPy versions, and only the raw stream, of which `random` is a plain function, is promised to stay
    the same between them."""
    return np.argsort(draws.random(count), kind="stable").astype(np.int64)


def dropout_mask(seed: int, step: int, path: str, shape: tuple[int, ...], rate: float) -> npt.NDArray[np.bool_]:
    """Which values the dropout layer `path` keeps (True) in training step `step`. `shape` is that of the layer's input
    with the batch, `(N, C, H, W)` or `(N, features)`: a backend that holds its maps channels last transposes the mask,
    so that all drop the same values. Raises TriptychError unless 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise TriptychError(f"the dropout rate {rate} of layer '{path}' must be at least 0 and below 1")
    return generator(seed, "dropout", step, path).random(shape) >= rate
