"""What is taken out of a stranger's graph before it is folded, because it computes nothing, or the next layer says it.

Each function takes a network and gives one that computes the same, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from triptych.importers.steps import Step, merge_only, needed
from triptych.spec.layers import (
    INPUT,
    Affine,
    AvgPool,
    Block,
    Conv,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    MaxPool,
    Pad,
    Reshape,
    Shape,
    Slice,
    Softmax,
    Upsample,
)

_AXES = {"channels": 0, "rows": 1, "columns": 2}
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Network:
    """Steps in the order of execution, and the names of those whose outputs are the network's."""

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    def by_name(self) -> dict[str, Step]:
        return {step.name: step for step in self.steps}

    def without(self, same_as: Mapping[str, str]) -> Network:
        """The steps that are keys hand on what the step of their value gives; nobody takes them any more."""

        def origin(name: str) -> str:
            while name in same_as:
                name = same_as[name]
            return name

        steps = tuple(
            replace(step, inputs=tuple(origin(name) for name in step.inputs))
            for step in self.steps
            if step.name not in same_as
        )
        return Network(steps, tuple(dict.fromkeys(origin(name) for name in self.outputs)))


def without_unneeded(network: Network) -> Network:
    """Only what the outputs depend on."""
    wanted = needed({step.name: step.inputs for step in network.steps}, network.outputs)
    return Network(tuple(step for step in network.steps if step.name in wanted), network.outputs)


def trailing_softmax(network: Network) -> list[Step]:
    """The outputs that are a softmax of one thing that is not the input itself, and that nobody else takes."""
    taken = {name for step in network.steps for name in step.inputs}
    steps = network.by_name()
    ends = (steps[name] for name in network.outputs if name not in taken)
    return [s for s in ends if isinstance(s.layer, Softmax) and len(s.inputs) == 1 and s.inputs != (INPUT,)]


def without_identities(network: Network, shapes: Shapes) -> Network:
    """Steps that hand on what they take, such as a Flatten of what is flat; Dropout is none."""
    same = {
        step.name: step.inputs[0]
        for step in network.steps
        if len(step.inputs) == 1 and _is_identity(step.layer, shapes[step.inputs[0]])
    }
    return network.without(same)


def _is_identity(layer: Layer, shape: Shape) -> bool:
    match layer:
        case Block():
            return not layer.layers
        case Flatten():
            return len(shape) == 1
        case Reshape():
            return layer.shape == shape
        case Pad():
            return not any(layer.padding)
        case Slice():
            axis = _AXES[layer.axis]
            return axis < len(shape) and (layer.start, layer.stop) == (0, shape[axis])
        case Upsample():
            return layer.factor == (1, 1)
        case Affine():
            return not layer.trained and set(layer.scale) == {1.0} and set(layer.shift) == {0.0}
    return False


def with_padding_inside(network: Network, shapes: Shapes) -> Network:
    """Zeros that a Pad puts around a map alike on both sides, as the padding of the Conv or AvgPool behind it."""
    steps = network.by_name()

    def widened(step: Step) -> Step:
        before = steps.get(step.inputs[0])
        if len(step.inputs) > 1 or before is None or not isinstance(before.layer, Pad) or len(before.inputs) > 1:
            return step
        layer = _widened(step.layer, before.layer)
        return step if layer is None else replace(step, layer=layer, inputs=before.inputs)

    return without_unneeded(Network(tuple(map(widened, network.steps)), network.outputs))


def _widened(layer: Layer, pad: Pad) -> Layer | None:
    """The layer with the zeros of `pad` in its own padding; None where that would be something else."""
    above, below, left, right = pad.padding
    if pad.mode != "constant" or pad.value != 0 or above != below or left != right or min(above, left) < 0:
        return None
    if not isinstance(layer, Conv | AvgPool):
        return None
    padding = (layer.padding[0] + above, layer.padding[1] + left)
    if isinstance(layer, Conv):
        return replace(layer, padding=padding)
    half = all(2 * p <= k for p, k in zip(padding, layer.kernel, strict=True))
    counted = layer.count_padding or not any(layer.padding)  # the zeros of a Pad are values like others
    return replace(layer, padding=padding, count_padding=True) if half and counted and not layer.ceil else None


def with_slices_rejoined(network: Network, shapes: Shapes) -> Network:
    """All slices of one map's channels, concatenated in their order, are that map."""
    steps = network.by_name()

    def rejoined(step: Step) -> Step:
        whole = _whole(step, steps, shapes)
        return step if whole is None else replace(step, inputs=(whole,))

    return without_unneeded(Network(tuple(map(rejoined, network.steps)), network.outputs))


def _whole(step: Step, steps: Mapping[str, Step], shapes: Shapes) -> str | None:
    if step.merge != "concatenate" or len(step.inputs) < 2:
        return None
    parts = [steps.get(name) for name in step.inputs]
    origins, reached = set(), 0
    for part in parts:
        if part is None or not isinstance(part.layer, Slice) or len(part.inputs) > 1:
            return None
        if (part.layer.axis, part.layer.start) != ("channels", reached):
            return None
        origins.add(part.inputs[0])
        reached = part.layer.stop
    origin = origins.pop()
    return origin if not origins and reached == shapes[origin][0] else None


def with_shared_concatenations(network: Network, shapes: Shapes) -> Network:
    """Where a concatenation begins with all that an earlier one joins, it takes that one's result: a DenseNet that
    joins all maps anew for every layer becomes a row."""
    trie = _Trie()
    ends = {step.name: trie.add(step.inputs) for step in network.steps if _concatenates(step)}
    parted = _parted(network, {name for name, path in ends.items() if trie.passed[path[-1]] > 1})
    joined: dict[int, str] = {}  # node of the trie: the step that joins what leads to it
    steps: list[Step] = []
    for step in parted.steps:
        if _concatenates(step):
            path = trie.add(step.inputs)
            known = next((n for n in range(len(path), 1, -1) if path[n - 1] in joined), 0)
            if known:
                step = replace(step, inputs=(joined[path[known - 1]], *step.inputs[known:]))
            if step.layer == Block(step.layer.name, ()):
                joined.setdefault(path[-1], step.name)
        steps.append(step)
    return Network(tuple(steps), parted.outputs)


def _concatenates(step: Step) -> bool:
    return step.merge == "concatenate" and len(step.inputs) > 1


class _Trie:
    """Sequences of names by their beginnings; `passed`: how many sequences begin so."""

    def __init__(self) -> None:
        self.branches: dict[tuple[int, str], int] = {}
        self.passed: dict[int, int] = {}

    def add(self, names: tuple[str, ...]) -> list[int]:
        """The nodes on the way, one for every name."""
        at, path = 0, []
        for name in names:
            at = self.branches.setdefault((at, name), len(self.branches) + 1)
            self.passed[at] = self.passed.get(at, 0) + 1
            path.append(at)
        return path


def _parted(network: Network, names: set[str]) -> Network:
    """Each of these steps as two: what merges, and its layer."""
    taken = {step.name for step in network.steps}
    steps: list[Step] = []
    for step in network.steps:
        if step.name in names and step.layer != Block(step.layer.name, ()):
            merge = f"{step.name}_inputs"
            while merge in taken:
                merge += "_"
            taken.add(merge)
            steps.append(merge_only(merge, step.inputs, step.merge))
            step = replace(step, inputs=(merge,))
        steps.append(step)
    return Network(tuple(steps), network.outputs)


def with_global_pools(network: Network, shapes: Shapes) -> Network:
    """A pool whose one window is the whole map is the global one, which says so."""

    def whole(step: Step) -> Step:
        layer = step.layer
        if not isinstance(layer, AvgPool | MaxPool) or len(step.inputs) > 1 or layer.padding != (0, 0):
            return step
        if layer.kernel != shapes[step.inputs[0]][1:]:
            return step
        average = isinstance(layer, AvgPool)
        return replace(step, layer=GlobalAvgPool(layer.name) if average else GlobalMaxPool(layer.name))

    return Network(tuple(map(whole, network.steps)), network.outputs)


Pass = Callable[[Network, Shapes], Network]
PASSES: tuple[Pass, ...] = (
    with_slices_rejoined,
    without_identities,
    with_padding_inside,
    with_global_pools,
    with_shared_concatenations,
)
