"""Steps to an architecture. (Loose nodes for now: one Graph.)"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from triptych.importers.steps import Imported, Request, Step
from triptych.spec.layers import Architecture, Graph, Node, join


def assemble(
    steps: Sequence[Step],
    outputs: Sequence[str],
    request: Request,
    *,
    name: str,
    source: str,
    input_shape: tuple[int, int, int] | None,
    remarks: Sequence[str] = (),
) -> Imported:
    """The network of these steps, which ends in those called `outputs`."""
    names = {step.name: f"n{place}" for place, step in enumerate(steps)}
    nodes = tuple(
        Node(replace(s.layer, name=names[s.name]), tuple(names.get(i, i) for i in s.inputs), s.merge) for s in steps
    )
    graph = Graph("net", nodes, tuple(names[output] for output in outputs))
    shape = request.input or input_shape or (3, 224, 224)
    arrays = {
        join(join("net", names[s.name]), array): np.asarray(value) for s in steps for array, value in s.arrays.items()
    }
    architecture = Architecture(request.name or name, shape, 0, (graph,), source=source)
    return Imported(architecture, arrays or None, tuple(remarks))
