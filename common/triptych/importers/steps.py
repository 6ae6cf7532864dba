"""What every importer makes of somebody's file or module: layers of the spec in the order of execution, with arrays.

An importer knows one format. It turns the nodes of a graph into `Step`s one by one; `triptych.importers.assemble` makes
an architecture of them: clean names, rows and branches in place of loose nodes, shapes checked against the arrays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from triptych.spec.layers import INPUT, Architecture, Block, Layer, Merge
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


EVALUATION_ALONE = "taken over is its evaluation"  # ends what is said of a network that is another in training

FOR_TRAINING = "is exported for training"  # is said of a file that runs in that mode alone


class ImportRefusedError(TriptychError):
    """A node cannot be taken over; the message names it, its operator, and what to do."""


@dataclass(frozen=True, eq=False)
class Step:
    """One layer of the imported network. `name` is the file's own, unique there; `layer` is the record, whose name does
    not count yet; `inputs` are names of earlier steps, or `spec.layers.INPUT`; several are merged. `arrays` has the
    layer's canonical arrays by their names in it (`weight` OIHW or (out, in), `running_mean` ...)."""

    name: str
    layer: Layer
    inputs: tuple[str, ...] = (INPUT,)
    merge: Merge = "concatenate"
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Imported:
    """A network that was taken over: its spec, its canonical parameters (None where the source has no weights), and one
    line for each thing that the source has otherwise (a softmax taken off, an input size that was assumed). `origin` is
    the object itself, where it was one: what a function makes anew has other weights."""

    architecture: Architecture
    parameters: dict[str, NDArray[Any]] | None
    remarks: tuple[str, ...] = ()
    origin: Any = None


@dataclass(frozen=True)
class Request:
    """What the user wants of a source. `input`: channels, height, width, where the source does not say them. `outputs`:
    names of the source's nodes that become the network's outputs, in place of its own; what they do not need is not
    looked at. `keep_softmax`: a softmax at the end stays. `name`: of the architecture."""

    name: str = ""
    input: tuple[int, int, int] | None = None
    outputs: tuple[str, ...] = ()
    keep_softmax: bool = False


def merge_only(name: str, inputs: Sequence[str], merge: Merge) -> Step:
    """A step that merges its inputs and does nothing else."""
    return Step(name, Block(name, ()), tuple(inputs), merge)


def needed(inputs: Mapping[str, Iterable[str]], outputs: Iterable[str]) -> frozenset[str]:
    """The nodes that `outputs` depend on, themselves included; `inputs` has, for every node, those that it takes."""
    wanted: set[str] = set()
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node not in wanted:
            wanted.add(node)
            waiting.extend(inputs.get(node, ()))
    return frozenset(wanted)


def way_back(inputs: Mapping[str, Iterable[str]], start: str, ends: Iterable[str]) -> list[str]:
    """The nodes from `start` to the nearest of `ends` that it depends on, both included; none where there is none."""
    targets, takers = set(ends), {start: start}
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        if node in targets:
            way = [node]
            while way[-1] != start:
                way.append(takers[way[-1]])
            return way[::-1]
        for source in inputs.get(node, ()):
            if source not in takers:
                takers[source] = node
                waiting.append(source)
    return []
