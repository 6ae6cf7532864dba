"""Composites: how the layers in them hang together, and what merges several maps into one."""

from collections.abc import Callable, Sequence

from triptych.spec.kinds.kind import CompositeKind, SpecError, Wire, Wiring
from triptych.spec.kinds.layer_pass import Rounding
from triptych.spec.layers import INPUT, Auxiliary, Block, Branches, Graph, Merge, Residual, Shape
from triptych.utils.arrays import Array, largest
from triptych.utils.lazy import np

Pulls = Callable[[Array], list[Array]]


def merged_shape(wire: Wire, shapes: Sequence[Shape], path: str) -> Shape:
    """The shape of what `wire` makes of maps of these `shapes`. Raises SpecError where they do not fit."""
    if len(shapes) == 1:
        return shapes[0]
    if not shapes:
        raise SpecError(path, "has no branches")
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise SpecError(path, f"cannot {wire.merge} flat values and maps: {list(shapes)}")
    if wire.merge == "concatenate":
        if any(shape[1:] != shapes[0][1:] for shape in shapes):
            raise SpecError(path, f"its branches end in different sizes: {list(shapes)}")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])
    sizes = [set(axis) - {1} for axis in zip(*shapes, strict=True)]
    if any(len(size) > 1 for size in sizes):
        raise SpecError(path, f"cannot {wire.merge} outputs of different shapes: {list(shapes)}")
    return tuple(size.pop() if size else 1 for size in sizes)


def merge(wire: Wire, maps: Sequence[Array], rounding: Rounding) -> tuple[Array, Pulls]:
    """What `wire` makes of these maps, and the function that takes the gradient of that to those of the maps."""
    if len(maps) == 1:
        return maps[0], lambda dy: [dy]
    return _MERGES[wire.merge](wire, maps, rounding)


def _concatenate(wire: Wire, maps: Sequence[Array], rounding: Rounding) -> tuple[Array, Pulls]:
    edges = np.cumsum([y.shape[1] for y in maps])[:-1]
    return np.concatenate(list(maps), axis=1), lambda dy: np.split(dy, edges, axis=1)


def _add(wire: Wire, maps: Sequence[Array], rounding: Rounding) -> tuple[Array, Pulls]:
    factors = wire.factors or (1.0,) * len(maps)
    terms = [factor * y for factor, y in zip(factors, maps, strict=True)]
    y = rounding(_total(terms), len(maps) - 1)
    return y, lambda dy: [_unbroadcast(f * dy, m, rounding) for f, m in zip(factors, maps, strict=True)]


def _multiply(wire: Wire, maps: Sequence[Array], rounding: Rounding) -> tuple[Array, Pulls]:
    def product(values: Sequence[Array]) -> Array:
        result = values[0]
        for value in values[1:]:
            result = result * value
        return result

    def pull(dy: Array) -> list[Array]:
        others = [[dy, *maps[:i], *maps[i + 1 :]] for i in range(len(maps))]
        return [
            _unbroadcast(rounding(product(o), len(maps) - 1), m, rounding) for o, m in zip(others, maps, strict=True)
        ]

    return rounding(product(maps), len(maps) - 1), pull


_MERGES: dict[Merge, Callable[[Wire, Sequence[Array], Rounding], tuple[Array, Pulls]]] = {
    "concatenate": _concatenate,
    "add": _add,
    "multiply": _multiply,
}


def _total(terms: Sequence[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _unbroadcast(dy: Array, like: Array, rounding: Rounding) -> Array:
    """Summed over the places at which the smaller map `like` counted."""
    axes = tuple(axis for axis, size in enumerate(like.shape) if size == 1 and dy.shape[axis] > 1)
    if not axes:
        return dy
    terms = dy.size // like.size
    return rounding(dy.sum(axes, keepdims=True), terms, largest(np.abs(dy).sum(axes)))


def _in_a_row(layer: Block | Auxiliary) -> Wiring:
    count = len(layer.layers)
    return Wiring(tuple(Wire((i,)) for i in range(count)), Wire((count,)))


def _side_by_side(layer: Branches) -> Wiring:
    count = len(layer.branches)
    return Wiring((Wire((0,)),) * count, Wire(tuple(range(1, count + 1)), layer.merge))


def _body_and_shortcut(layer: Residual) -> Wiring:
    factors = (1.0, layer.scale)
    if layer.shortcut is None:
        return Wiring((Wire((0,)),), Wire((0, 1), "add", factors))
    return Wiring((Wire((0,)),) * 2, Wire((1, 2), "add", factors))


def _as_it_says(layer: Graph) -> Wiring:
    """A node that names no node before it has the source -1, which `check_graph` refuses."""
    places = {INPUT: 0}
    wires = []
    for place, node in enumerate(layer.nodes, 1):
        wires.append(Wire(tuple(places.get(name, -1) for name in node.inputs), node.merge))
        places.setdefault(node.layer.name, place)
    return Wiring(tuple(wires), Wire(tuple(places.get(name, -1) for name in layer.outputs[:1])))


def check_graph(layer: Graph, path: str) -> None:
    """Raise SpecError for a graph without nodes or outputs, for nodes that take what is not before them, for a node
    called as the graph's input is, for nodes that nothing takes, and for outputs that are no nodes or stand there
    twice."""
    names = {INPUT}
    for node in layer.nodes:
        for name in node.inputs:
            if name not in names:
                raise SpecError(path, f"its node '{node.layer.name}' takes '{name}', and there is none before it")
        if not node.inputs:
            raise SpecError(path, f"its node '{node.layer.name}' takes nothing")
        if node.layer.name == INPUT:
            raise SpecError(path, f"a node of it is called '{INPUT}', as what it is given")
        names.add(node.layer.name)
    taken = {name for node in layer.nodes for name in node.inputs}.union(layer.outputs)
    for node in layer.nodes:
        if node.layer.name not in taken:
            raise SpecError(path, f"nothing takes its node '{node.layer.name}', and it is no output")
    unknown = [name for name in layer.outputs if name not in names or name == INPUT]
    if unknown or not layer.outputs or len(set(layer.outputs)) < len(layer.outputs):
        raise SpecError(path, f"its outputs {list(layer.outputs)} must be different nodes of it")


KINDS = (
    CompositeKind(Block, _in_a_row),
    CompositeKind(Auxiliary, _in_a_row),
    CompositeKind(Branches, _side_by_side),
    CompositeKind(Residual, _body_and_shortcut),
    CompositeKind(Graph, _as_it_says),
)
