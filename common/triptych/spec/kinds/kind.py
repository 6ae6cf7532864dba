"""What a layer kind has to say of itself. No field has a default: a kind that lacks one fails when it is imported.

Shapes are without the batch, arrays are `(N, C, H, W)` or `(N, features)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from triptych.reference.layers import Array, Backward, Rounding
from triptych.spec.layers import Layer, Pair, Shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

R = TypeVar("R", bound=Layer)
Reference: TypeAlias = Callable[[R, Array, Mapping[str, Array], "Conditions"], "LayerPass"]
Role: TypeAlias = Literal["weight", "bias", "scale", "shift", "running_mean", "running_var"]
Window: TypeAlias = tuple[Pair, Pair]  # kernel, stride

POINT: Window = ((1, 1), (1, 1))  # a value depends on the input at its own place


@dataclass(frozen=True)
class ArrayInfo:
    """One canonical array of a layer. `start`: the constant that it starts at, None where the initializer draws it;
    `trained`: whether a gradient reaches it (no running statistics). The fans are those of a weight, else 0."""

    name: str
    shape: Shape
    role: Role
    start: float | None
    trained: bool
    fan_in: int = 0
    fan_out: int = 0


@dataclass(frozen=True)
class Conditions:
    """What a layer's reference runs under, beside its input and arrays.

    `rounding(value, length, scale)` takes every result, see `triptych.reference.layers`. `frozen`: the running
    statistics are used and kept in training, too. `mask`: what dropout keeps (True).
    """

    rounding: Rounding
    path: str = ""
    train: bool = False
    frozen: bool = False
    mask: NDArray[np.bool_] | None = None


class LayerPass(NamedTuple):
    """What a layer's reference gives: its output, the function that takes the gradient of that to `(gradient of the
    input, {array: gradient})`, and its running statistics after this batch, by name."""

    output: Array
    backward: Backward
    statistics: Mapping[str, Array] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[R]):
    """All that is known of one kind of layer, the primitive record `record`.

    - `output(layer, shape, path)`: the shape of the output; raises SpecError for an input or a record that does not
      fit, TooSmallError where a larger input would.
    - `macs(layer, shape, output)`: multiply-accumulates on one image.
    - `window(layer, shape)`: kernel and stride through which one value of the output sees the input.
    - `arrays(layer, shape)`: the canonical arrays, in canonical order.
    - `reference(layer, x, arrays, conditions)`: forward and backward in NumPy's float64.
    - `any_size(layer, shape, flattened)`: the record that does the same at every place of a larger image (None: it is
      left out), and the size of the map that was flattened for the next dense layer, which is `flattened` before it.
    - `training_only`: whether the layer passes its input on unchanged in evaluation.
    """

    record: type[R]
    output: Callable[[R, Shape, str], Shape]
    macs: Callable[[R, Shape, Shape], int]
    window: Callable[[R, Shape], Window]
    arrays: Callable[[R, Shape], tuple[ArrayInfo, ...]]
    reference: Reference[R]
    any_size: Callable[[R, Shape, Pair], tuple[Layer | None, Pair]]
    training_only: bool

    def __post_init__(self) -> None:
        _refuse_gaps(self)


Pull: TypeAlias = Callable[[Array], Array]  # the gradient of an output to that of the input
RunChild: TypeAlias = Callable[[Layer, Array], tuple[Array, Pull]]


class Wiring(NamedTuple):
    """How a composite's children hang together, by numbers: 0 is its input, n the output of its n-th child.

    `sources` has what each child takes, `joined` what the composite's output is made of.
    """

    sources: tuple[int, ...]
    joined: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CompositeKind(Generic[R]):
    """All that is known of one composite record; its children, in order, are `spec.layers.children`.

    - `wiring(layer)`: who takes whose output; receptive fields and memory follow from it.
    - `output(layer, shapes, path)`: the shape of what is joined; raises SpecError where the shapes do not fit.
    - `reference(layer, x, run, rounding)`: output and pull; `run(child, x)` gives those of a child.
    """

    record: type[R]
    wiring: Callable[[R], Wiring]
    output: Callable[[R, Sequence[Shape], str], Shape]
    reference: Callable[[R, Array, RunChild, Rounding], tuple[Array, Pull]]

    def __post_init__(self) -> None:
        _refuse_gaps(self)


def _refuse_gaps(kind: Kind[Any] | CompositeKind[Any]) -> None:
    if not (isinstance(kind.record, type) and is_dataclass(kind.record)):
        raise TypeError(f"{kind.record!r} is no record of the spec")
    for field in fields(kind):
        value = getattr(kind, field.name)
        if not (isinstance(value, bool) if field.name == "training_only" else callable(value)):
            raise TypeError(f"the kind of {kind.record.__name__} does not say its {field.name}, but {value!r}")


def same_shape(layer: Layer, shape: Shape, path: str) -> Shape:
    """Output: as the input, which may be anything."""
    return shape


def no_macs(layer: Layer, shape: Shape, output: Shape) -> int:
    """Multiply-accumulates: none, which are counted for products with weights only."""
    return 0


def one_place(layer: Layer, shape: Shape) -> Window:
    """Window: one place."""
    return POINT


def no_arrays(layer: Layer, shape: Shape) -> tuple[ArrayInfo, ...]:
    """Arrays: none."""
    return ()


def at_any_size(layer: Layer, shape: Shape, flattened: Pair) -> tuple[Layer, Pair]:
    """On larger images: as it is."""
    return layer, flattened


def weight_and_bias(weight: Shape, fans: Pair, bias: bool) -> tuple[ArrayInfo, ...]:
    """Arrays: a weight with one row per output, and perhaps a bias that starts at 0."""
    info = ArrayInfo("weight", weight, "weight", None, True, *fans)
    return (info, ArrayInfo("bias", weight[:1], "bias", 0.0, True)) if bias else (info,)


def pointwise(
    record: type[R],
    reference: Reference[R],
    *,
    output: Callable[[R, Shape, str], Shape] = same_shape,
    training_only: bool = False,
) -> Kind[R]:
    """A kind without arrays whose output has the input's shape and sees of it what is at the same place."""
    return Kind(
        record=record,
        output=output,
        macs=no_macs,
        window=one_place,
        arrays=no_arrays,
        reference=reference,
        any_size=at_any_size,
        training_only=training_only,
    )
