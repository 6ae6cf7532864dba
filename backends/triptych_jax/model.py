"""A spec's tree as a tree of modules with the same names."""

from collections.abc import Mapping
from collections.abc import Sequence as Values
from functools import reduce
from operator import add, mul
from typing import TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from triptych.backend.execution import DEFAULT, Execution, dtype_of
from triptych.spec import layers as spec
from triptych.spec.analysis import analyse
from triptych.spec.kinds import check_complete
from triptych.spec.layers import INPUT, Architecture, Composite, Layer, Merge, Shape, join
from triptych_jax.device import DTYPES, get_device
from triptych_jax.functions import arrays_of, channels_first, channels_last, nodes
from triptych_jax.layers import LAYERS, Dropout
from triptych_jax.precision import apply_execution

Rngs: TypeAlias = nnx.Rngs | None
Outputs = dict[str, jax.Array]  # every layer's output by path, filled on the way
PRODUCTS = nnx.Conv | nnx.ConvTranspose | nnx.Linear  # with kernels
Path = tuple[str, ...]  # in Flax: ("block1", "conv1", "kernel")
Arrays = Mapping[Path, jax.Array]


def first(output: jax.Array | tuple[jax.Array, ...]) -> jax.Array:
    """The output, or the first of several: logits, where there are any."""
    return output[0] if isinstance(output, tuple) else output


class _Composite(nnx.Module):
    """Holds modules under their names in the spec, so that the paths of Flax's state are the canonical ones."""

    def __init__(self, layer: Composite | Architecture, path: str, inputs: dict[str, Shape]) -> None:
        self._path = path
        self._names = tuple(child.name for child in spec.children(layer))
        for child in spec.children(layer):
            setattr(self, child.name, build_layer(child, join(path, child.name), inputs))

    def _run(self, name: str, x: jax.Array, outputs: Outputs, rngs: Rngs) -> jax.Array:
        module = getattr(self, name)
        if isinstance(module, _Composite):
            y = module(x, outputs, rngs)
        else:
            y = module(x, rngs=rngs) if isinstance(module, Dropout) else module(x)
        outputs[join(self._path, name)] = first(y)
        return y


class Sequence(_Composite):
    """Named layers in a row."""

    def __call__(self, x: jax.Array, outputs: Outputs, rngs: Rngs) -> jax.Array:
        for name in self._names:
            x = self._run(name, x, outputs, rngs)
        return x


class Branches(_Composite):
    """Every branch on the same input, merged."""

    def __init__(self, layer: spec.Branches, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self._merge = layer.merge

    def __call__(self, x: jax.Array, outputs: Outputs, rngs: Rngs) -> jax.Array:
        return _merged([self._run(name, x, outputs, rngs) for name in self._names], self._merge)


class Graph(_Composite):
    """Named nodes, called in order; with several outputs, a tuple of them."""

    def __init__(self, layer: spec.Graph, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self._sources = tuple((node.inputs, node.merge) for node in layer.nodes)
        self._outputs = layer.outputs

    def __call__(self, x: jax.Array, outputs: Outputs, rngs: Rngs) -> jax.Array | tuple[jax.Array, ...]:
        values = {INPUT: x}
        for name, (sources, merge) in zip(self._names, self._sources, strict=True):
            values[name] = self._run(name, _merged([values[source] for source in sources], merge), outputs, rngs)
        one, *more = (values[name] for name in self._outputs)
        return (one, *more) if more else one


class Residual(_Composite):
    """`shortcut(x) + scale * body(x)`."""

    def __init__(self, layer: spec.Residual, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self._scale = layer.scale

    def __call__(self, x: jax.Array, outputs: Outputs, rngs: Rngs) -> jax.Array:
        *shortcut, body = (self._run(name, x, outputs, rngs) for name in self._names)
        return (shortcut[0] if shortcut else x) + self._scale * body


class Auxiliary(Sequence):
    """An auxiliary classifier; `Network` runs it in training only."""


class Network(_Composite):
    """The whole architecture, images `(N, C, H, W)` to logits, or to a tuple of several outputs; in training, with
    auxiliary classifiers, `(logits, *theirs)`. `train()` and `eval()` switch between the two. Dropout draws from the
    `rngs` of the call, or else from generators of its own, which `nnx.reseed(network, dropout=1)` sets."""

    def __init__(self, architecture: Architecture, execution: Execution) -> None:
        super().__init__(architecture, "", {info.path: info.input for info in analyse(architecture)})
        self.architecture = architecture
        self.execution = execution
        self.dtype = dtype_of("jax", execution.precision, DTYPES)
        self.deterministic = False  # what train() and eval() set in every module that has it

    def __call__(
        self, x: jax.Array, outputs: Outputs | None = None, rngs: Rngs = None
    ) -> jax.Array | tuple[jax.Array, ...]:
        outputs = {} if outputs is None else outputs
        y: jax.Array | tuple[jax.Array, ...] = channels_last(x)
        auxiliaries: list[jax.Array] = []
        for name in self._names:
            if not isinstance(getattr(self, name), Auxiliary):
                y = self._run(name, y, outputs, rngs)
            elif not self.deterministic:
                auxiliaries.append(self._run(name, y, outputs, rngs))
        found = [*(y if isinstance(y, tuple) else (y,)), *auxiliaries]
        one, *more = (channels_first(value).astype(self.dtype) for value in found)
        return (one, *more) if more else one

    def cast(self) -> None:
        """Every layer's types as the execution has them, and whether its products may be shortened."""
        inside = jnp.bfloat16 if self.execution.precision == "bf16" else self.dtype
        for _, module in nodes(self):
            if isinstance(module, PRODUCTS | nnx.BatchNorm):
                module.dtype, module.param_dtype = inside, self.dtype
            if isinstance(module, PRODUCTS) and self.execution.tf32:
                module.precision = None

    def variables(self, kind: type[nnx.Variable]) -> dict[Path, nnx.Variable]:
        """The parameters (`nnx.Param`) or running statistics (`nnx.BatchStat`)."""
        return {path: node for path, node in nodes(self) if isinstance(node, kind)}

    def arrays(self, kind: type[nnx.Variable]) -> Arrays:
        """What these hold."""
        return arrays_of(self.variables(kind))


COMPOSITES: dict[type, type[_Composite]] = {
    spec.Block: Sequence,
    spec.Branches: Branches,
    spec.Residual: Residual,
    spec.Auxiliary: Auxiliary,
    spec.Graph: Graph,
}
check_complete(COMPOSITES, __name__, get_args(Composite))


def _merged(values: Values[jax.Array], merge: Merge) -> jax.Array:
    """Several values as one; in a sum or product a map of one pixel or channel counts at every place, and what comes
    back to it is summed in no less than float32."""
    if merge == "concatenate":
        return values[0] if len(values) == 1 else jnp.concatenate(values, axis=-1)
    if len({value.shape for value in values}) == 1:
        return reduce(add if merge == "add" else mul, values)
    wide = [value.astype(jnp.promote_types(value.dtype, jnp.float32)) for value in values]
    return reduce(add if merge == "add" else mul, wide).astype(values[0].dtype)


def build_layer(layer: Layer, path: str, inputs: dict[str, Shape]) -> nnx.Module:
    """The module for one record of the tree, composite or not."""
    if isinstance(layer, spec.Primitive):
        return LAYERS[type(layer)](layer, inputs[path])
    return COMPOSITES[type(layer)](layer, path, inputs)


def build(architecture: Architecture, *, device: str = "cpu", execution: Execution = DEFAULT) -> Network:
    """The network on its device, kernels at zero (see `initialize`)."""
    apply_execution(execution, device)
    target = get_device(device)
    with jax.default_device(target):
        network = Network(architecture, execution)
        generators = nnx.Rngs(dropout=0)
        for _, module in nodes(network):
            if isinstance(module, Dropout):
                module.rngs = generators.dropout.fork()
    network.cast()
    # Committed to the device: whatever meets these arrays in a compiled function follows them there.
    state = nnx.state(network, nnx.Any(nnx.Param, nnx.BatchStat))
    arrays = jax.tree.map(lambda array: np.asarray(array, network.dtype), state)
    nnx.update(network, jax.device_put(arrays, target))
    return network
