"""How a merge puts together what its branches hand on, told by fit: the shortest sum of products that explains it."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.relations import PER_NUMBER, number
from triptych.utils.arrays import Array

MOST_TERMS, MOST_EQUATIONS = 3, 4000


def features(parts: Mapping[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
    """What may be summed: the parts, what a ReLU or a square leaves of them, products of two, the larger and the
    smaller of two, and 1."""
    made: dict[str, Array] = dict(parts)
    for name, part in parts.items():
        made |= {f"relu({name})": np.maximum(part, 0), f"{name}^2": part * part}
    for (one, x), (other, y) in combinations(parts.items(), 2):
        made |= {f"{one} * {other}": x * y, f"max({one}, {other})": np.maximum(x, y)}
        made[f"min({one}, {other})"] = np.minimum(x, y)
    made["1"] = np.ones(shape)
    kept: dict[str, Array] = {}
    for name, value in made.items():
        full = np.broadcast_to(value, shape)
        if not any(np.array_equal(full, other) for other in kept.values()):  # relu of what a ReLU put out
            kept[name] = full
    return kept


def formulas(parts: Mapping[str, Array], observed: Array, budget: float) -> list[str]:
    """The shortest sums that give what was observed: all of the fewest terms, most often one."""
    try:
        known = features(parts, observed.shape)
    except ValueError:  # parts that do not fit each other
        return []
    for terms in range(1, MOST_TERMS + 1):
        if found := list(_of(terms, known, observed, budget)):
            plainest = min(map(len, found))
            return [text for text in found if len(text) == plainest]  # a + b, not max(a, b) + min(a, b)
    return []


def _of(terms: int, known: Mapping[str, Array], observed: Array, budget: float) -> Iterator[str]:
    kept = slice(None, None, max(1, observed.size // MOST_EQUATIONS))
    target = observed.ravel()[kept]
    if target.size < PER_NUMBER * terms:
        return
    columns = {name: value.ravel()[kept] for name, value in known.items()}
    for names in combinations(known, terms):
        design = np.stack([columns[name] for name in names], axis=1)
        numbers, _, rank, _ = np.linalg.lstsq(design, target, rcond=1e-10)
        if rank < terms or (terms > 1 and min(abs(numbers)) < 1e-6 * max(abs(numbers))):
            continue
        value = sum(n * known[name] for n, name in zip(numbers, names, strict=True))
        if same(np.asarray(value), observed, budget):
            yield " + ".join(_term(n, name) for n, name in zip(numbers, names, strict=True)).replace("+ -", "- ")


def _term(factor: float, name: str) -> str:
    said = number(float(factor))
    if name == "1":
        return said
    return {"1": name, "-1": f"-{name}"}.get(said, f"{said} {name}")
