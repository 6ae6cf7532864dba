"""What a layer kind has to say of itself. No field has a default: a kind that lacks one fails when it is imported.

Shapes are without the batch, arrays are `(N, C, H, W)` or `(N, features)`."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from triptych.spec.kinds.layer_pass import Conditions, LayerPass
from triptych.spec.layers import AvgPool, ConvTranspose, Layer, MaxPool, Merge, Pair, Shape, Sliding
from triptych.utils.arrays import Array, Arrays
from triptych.utils.errors import TriptychError

R = TypeVar("R", bound=Layer)
Role: TypeAlias = Literal["weight", "bias", "scale", "shift", "slope", "running_mean", "running_var"]
Window: TypeAlias = tuple[Pair, Pair]  # kernel, stride


class SpecError(TriptychError):
    """The architecture contradicts itself; `path` is the layer at which it does."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"layer '{path}': {problem}")
        self.path = path
        self.problem = problem


class TooSmallError(SpecError):
    """The map that reaches this layer is smaller than its window."""


@dataclass(frozen=True)
class ParameterInfo:
    """One canonical array, by its path in the architecture or by its name in its layer. `role` tells conv and dense
    weights and biases from batch norm's gamma (`scale`), beta (`shift`), PReLU's `slope` and running statistics, which
    no gradient reaches (`trained` false). `start`: the constant that it starts at, None where the initializer draws it.
    The fans are those of a weight, else 0."""

    path: str
    shape: Shape
    role: Role
    start: float | None = None
    trained: bool = True
    fan_in: int = 0
    fan_out: int = 0


class _Complete:
    """Of a kind's records: raises TypeError for a field that does not say what it has to."""

    def __post_init__(self) -> None:
        kind: Any = self
        if not (isinstance(kind.record, type) and is_dataclass(kind.record)):
            raise TypeError(f"{kind.record!r} is no record of the spec")
        for field in fields(kind):
            value = getattr(kind, field.name)
            if not (isinstance(value, bool) if field.name == "training_only" else callable(value)):
                raise TypeError(f"the kind of {kind.record.__name__} does not say its {field.name}, but {value!r}")


@dataclass(frozen=True)
class Kind(_Complete, Generic[R]):
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
    arrays: Callable[[R, Shape], tuple[ParameterInfo, ...]]
    reference: Callable[[R, Array, Arrays, Conditions], LayerPass]
    any_size: Callable[[R, Shape, Pair], tuple[Layer | None, Pair]]
    training_only: bool


class Wire(NamedTuple):
    """What one place takes, by numbers: 0 is the composite's input, n the output of its n-th child. Several are merged;
    in a sum each is multiplied by its one of the `factors`, if there are any."""

    sources: tuple[int, ...]
    merge: Merge = "concatenate"
    factors: tuple[float, ...] = ()


class Wiring(NamedTuple):
    """How a composite's children hang together: what each child takes, and what the composite's output is made of."""

    children: tuple[Wire, ...]
    output: Wire


@dataclass(frozen=True)
class CompositeKind(_Complete, Generic[R]):
    """All that is known of one composite record; its children, in order, are `spec.layers.children`.

    - `wiring(layer)`: who takes whose output; shapes, reference, receptive fields and memory follow from it.
    """

    record: type[R]
    wiring: Callable[[R], Wiring]

    def merges(self, layer: R) -> bool:
        """Whether several outputs meet in it: it computes something beside what its children do."""
        wiring = self.wiring(layer)
        return any(len(wire.sources) > 1 for wire in (*wiring.children, wiring.output))


def same_shape(layer: Layer, shape: Shape, path: str) -> Shape:
    """Output: as the input, which may be anything."""
    return shape


def no_macs(layer: Layer, shape: Shape, output: Shape) -> int:
    """Multiply-accumulates: none, which are counted for products with weights only."""
    return 0


def one_place(layer: Layer, shape: Shape) -> Window:
    """Window: a value depends on the input at its own place."""
    return (1, 1), (1, 1)


def sliding(layer: Sliding, shape: Shape) -> Window:
    """Window: the layer's own."""
    return extent(layer), layer.stride


def extent(layer: Sliding | ConvTranspose) -> Pair:
    """Rows and columns from the first to the last value of the window, what dilation leaves out included."""
    dilation = (1, 1) if isinstance(layer, MaxPool | AvgPool) else layer.dilation
    rows, columns = ((k - 1) * d + 1 for k, d in zip(layer.kernel, dilation, strict=True))
    return rows, columns


def no_arrays(layer: Layer, shape: Shape) -> tuple[ParameterInfo, ...]:
    """Arrays: none."""
    return ()


def as_is(layer: Layer, shape: Shape, flattened: Pair) -> tuple[Layer, Pair]:
    """On larger images: as it is."""
    return layer, flattened


def weight_and_bias(weight: Shape, fans: Pair, bias: bool) -> tuple[ParameterInfo, ...]:
    """Arrays: a weight with one row per output, and perhaps a bias that starts at 0."""
    info = ParameterInfo("weight", weight, "weight", None, True, *fans)
    return (info, ParameterInfo("bias", weight[:1], "bias", 0.0)) if bias else (info,)
