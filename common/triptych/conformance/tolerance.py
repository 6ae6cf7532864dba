"""One tolerance rule for the whole zoo, derived from the float64 reference; see `triptych.reference.rounding`.

float32: a tensor may be off by `SAFETY` times the largest deviation that rounding caused in `PAIRS` pairs of
perturbed executions of the reference, plus one rounding of the tensor itself. What is computed number by number of
given arrays needs no executions: the largest error that they would draw is known.
16 bits: by the float32 budget, grown by the ratio of the two units.
float64: by 1e-12 of the tensor's scale, or by the same float32 budget shrunk by the ratio of the two units,
whichever is larger. The second matters where a tensor is the small rest of a cancellation (the bias of a convolution
before a batch norm has the gradient 0), so that its own scale says nothing.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from numpy.typing import NDArray

from triptych.reference.rounding import FLOAT32_UNIT, Perturbation, largest_error
from triptych.utils.arrays import largest
from triptych.utils.randomness import generator

SAFETY = 2.0
PAIRS = 3
FLOAT64_SHARE = 1e-12
UNIT_RATIO = 2.0**-29  # float64's rounding unit over float32's
SIXTEEN_BITS = {"fp16": 2.0**13, "bf16": 2.0**16}  # their rounding units over float32's
# Of a tensor's scale: never more than its budget.
UNPERTURBED = {
    "fp64": FLOAT64_SHARE,
    "fp32": FLOAT32_UNIT,
    **{name: ratio * FLOAT32_UNIT for name, ratio in SIXTEEN_BITS.items()},
}
UNPERTURBED_RATIO = {"fp64": UNIT_RATIO, "fp32": 1.0, **SIXTEEN_BITS}

Budgets = dict[str, float]
Name = TypeVar("Name", bound=Hashable)


def perturbations(seed: int, pairs: int = PAIRS) -> Iterator[Perturbation]:
    """The roundings for perturbed executions, in mirrored pairs."""
    for pair in range(pairs):
        for sign in (1.0, -1.0):
            yield Perturbation(generator(seed, "rounding", pair), sign)


def unperturbed(precision: str, expected: Mapping[Name, NDArray[Any]], sums: Mapping[Name, float]) -> dict[Name, float]:
    """What each expected array is allowed before anything is perturbed: never more than its budget. `sums`: by name,
    the largest error that perturbed executions draw for the array's own sum; a budget counts what they draw `SAFETY`
    times. The gradient of a bias before a batch norm, the rest of a cancellation, needs no execution then."""
    share, ratio = UNPERTURBED[precision], UNPERTURBED_RATIO[precision]
    return {name: max(share * largest(value), ratio * sums.get(name, 0.0)) for name, value in expected.items()}


def budgets(
    expected: Mapping[Name, NDArray[Any]], perturbed: Iterable[Mapping[Name, NDArray[Any]]]
) -> dict[str, dict[Name, float]]:
    """By precision and name, what `perturbed` executions allow each expected array; each is held one at a time."""
    found: dict[str, dict[Name, float]] = _by_precision({})
    for found in growing(expected, perturbed):  # noqa: B007 (the last)
        pass
    return found


def growing(
    expected: Mapping[Name, NDArray[Any]], perturbed: Iterable[Mapping[Name, NDArray[Any]]]
) -> Iterator[dict[str, dict[Name, float]]]:
    """The same after every execution: what is within a budget then is within that of all of them."""
    for found in _deviations(expected, perturbed):
        yield _by_precision(found)


def budgets_of(
    unit: float, expected: Mapping[Name, NDArray[Any]], perturbed: Iterable[Mapping[Name, NDArray[Any]]]
) -> dict[Name, float]:
    """What executions that were perturbed by errors of `unit` allow each expected array."""
    found: dict[Name, tuple[float, float]] = {}
    for found in _deviations(expected, perturbed):  # noqa: B007 (the last)
        pass
    return {name: SAFETY * most + unit * scale for name, (most, scale) in found.items()}


def _deviations(
    expected: Mapping[Name, NDArray[Any]], perturbed: Iterable[Mapping[Name, NDArray[Any]]]
) -> Iterator[dict[Name, tuple[float, float]]]:
    """After every execution, by name, the largest deviation so far, and the scale."""
    deviations: dict[Name, float] = {}
    scales = {name: largest(value) for name, value in expected.items()}
    for arrays in perturbed:
        for name in expected.keys() & arrays.keys():
            deviations[name] = max(deviations.get(name, 0.0), largest(arrays[name] - expected[name]))
        yield {name: (most, scales[name]) for name, most in deviations.items()}


def budgets_alone(arrays: Iterable[tuple[Name, NDArray[Any]]]) -> dict[str, dict[Name, float]]:
    """By precision and name, what arrays are allowed of which every number is computed alone, of what is given."""
    return _by_precision({name: (largest_error(value, 1), largest(value)) for name, value in arrays})


def _by_precision(deviations: Mapping[Name, tuple[float, float]]) -> dict[str, dict[Name, float]]:
    """By name, an array's largest deviation in float32, and its scale."""
    scales = {name: scale for name, (_, scale) in deviations.items()}
    single = {name: SAFETY * most + FLOAT32_UNIT * scale for name, (most, scale) in deviations.items()}
    double = {name: max(FLOAT64_SHARE * scale, UNIT_RATIO * single[name]) for name, scale in scales.items()}
    coarse = {of: {name: ratio * most for name, most in single.items()} for of, ratio in SIXTEEN_BITS.items()}
    return {"fp64": double, "fp32": single, **coarse}
