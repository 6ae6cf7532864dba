"""The training pass of a batch that is cut among the devices of a mesh.

`jax.jit` alone would add every array's gradients on their own. XLA makes one operation of them, but on CPUs gloo is
still called for each array, and two processes spent longer on that than on the pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from triptych_jax.functions import nodes
from triptych_jax.layers import BatchNorm
from triptych_jax.model import Arrays

AXIS = "data"
EVERYWHERE, CUT = PartitionSpec(), PartitionSpec(AXIS)


class WholePass(NamedTuple):
    """What devices have in common after a pass of the whole batch; see `compiled.Pass`."""

    figures: jax.Array
    gradients: Arrays
    statistics: Arrays


class Spread(NamedTuple):
    """A batch of which every device of the mesh has an equal part; `synchronised`: batch norm takes the statistics of
    all of it, not each device's own."""

    mesh: Mesh
    synchronised: bool


def spread_pass(run: Callable[..., Any], spread: Spread) -> Callable[..., WholePass]:
    """`run`, a pass of `compiled.pass_function`, by every device on its part of a batch that lies across the mesh."""
    count = spread.mesh.size

    def whole_pass(
        parameters: Arrays,
        constants: Arrays,
        x: jax.Array,
        targets: Any,
        masks: Any,
        seed: jax.Array,
        part: tuple[jax.Array, int] | None = None,
    ) -> WholePass:
        first, whole = part or (np.int32(0), len(x))

        def of_device(first: jax.Array, seed: jax.Array, values: tuple[Arrays, Arrays], parts: Any) -> WholePass:
            x, targets, masks = parts
            begin = first + lax.axis_index(AXIS) * len(x)
            figures, gradients, statistics = run(*values, x, targets, masks, seed, (begin, whole))[:3]
            figures = figures * jnp.array([1 / count, 1], figures.dtype)  # a mean, and a sum of right answers
            # Synchronised statistics are the same everywhere. Of the others the mean is taken of how they moved: so
            # those that stand still do not, by rounding.
            kept = {} if spread.synchronised else {path: values[1][path] for path in statistics}
            moved = {path: statistics[path] - value for path, value in kept.items()}
            means = jax.tree.map(lambda value: value / count, (gradients, moved))
            figures, gradients, moved = _total((figures, *means), spread.mesh)
            return WholePass(figures, gradients, {**statistics, **{path: kept[path] + moved[path] for path in kept}})

        cut = jax.shard_map(
            of_device,
            mesh=spread.mesh,
            in_specs=(EVERYWHERE, EVERYWHERE, EVERYWHERE, CUT),
            out_specs=EVERYWHERE,
            check_vma=False,  # else the gradients of what is the same everywhere are added each on its own
        )
        return cut(first, seed, (parameters, constants), (x, targets, masks))

    return whole_pass


def _total(values: Any, mesh: Mesh) -> Any:
    """The sum over the mesh: on CPUs of one vector, elsewhere array by array, so that it begins before the backward
    pass has ended."""
    if mesh.devices.flat[0].platform != "cpu":
        return lax.psum(values, AXIS)
    vector, take_apart = ravel_pytree(values)
    return take_apart(lax.psum(vector, AXIS))


def synchronise(network: nnx.Module, spread: Spread | None) -> None:
    """Let batch norm take the statistics that it should, of a batch that is spread or not."""
    axis = AXIS if spread is not None and spread.synchronised else None
    for _, module in nodes(network):
        if isinstance(module, BatchNorm):
            module.axis_name = axis
