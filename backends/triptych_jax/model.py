"""A spec's tree as a tree of modules with the same names."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.spec import layers as spec
from triptych.spec.analysis import analyse
from triptych.spec.layers import Architecture, Layer, Shape, join
from triptych_jax.device import get_device, get_dtype
from triptych_jax.layers import LAYERS, Options

Outputs = dict[str, jax.Array]  # every layer's output by path, filled on the way
Path = tuple[str, ...]  # in Flax: ("block1", "conv1", "kernel")
Arrays = Mapping[Path, jax.Array]


class _Composite(nnx.Module):
    """Holds modules under their names in the spec, so that the paths of Flax's state are the canonical ones."""

    def __init__(self, layers: tuple[Layer, ...], prefix: str, inputs: dict[str, Shape], options: Options) -> None:
        self._prefix = prefix
        self._names = tuple(layer.name for layer in layers)
        for layer in layers:
            setattr(self, layer.name, build_layer(layer, join(prefix, layer.name), inputs, options))

    def _run(self, name: str, x: jax.Array, outputs: Outputs) -> jax.Array:
        module = getattr(self, name)
        y = module(x, outputs) if isinstance(module, _Composite) else module(x)
        outputs[join(self._prefix, name)] = y
        return y


class Sequence(_Composite):
    """Named layers in a row."""

    def __call__(self, x: jax.Array, outputs: Outputs) -> jax.Array:
        for name in self._names:
            x = self._run(name, x, outputs)
        return x


class Branches(_Composite):
    """Every branch on the same input, concatenated along the channels."""

    def __call__(self, x: jax.Array, outputs: Outputs) -> jax.Array:
        return jnp.concatenate([self._run(name, x, outputs) for name in self._names], axis=-1)


class Residual(_Composite):
    """`shortcut(x) + scale * body(x)`."""

    def __init__(self, layer: spec.Residual, path: str, inputs: dict[str, Shape], options: Options) -> None:
        super().__init__(spec.children(layer), path, inputs, options)
        self._scale = layer.scale

    def __call__(self, x: jax.Array, outputs: Outputs) -> jax.Array:
        *shortcut, body = (self._run(name, x, outputs) for name in self._names)
        return (shortcut[0] if shortcut else x) + self._scale * body


class Auxiliary(Sequence):
    """A side classifier; `Network` runs it in training only."""


class Network(_Composite):
    """The whole architecture, images `(N, C, H, W)` to logits; in training, with side classifiers, `(logits, *side
    logits)`. `train()` and `eval()` switch between the two."""

    def __init__(self, architecture: Architecture, precision: str) -> None:
        dtype = get_dtype(precision)
        inputs = {info.path: info.input for info in analyse(architecture)}
        options = {
            "dtype": jnp.bfloat16 if precision == "bf16" else dtype,
            "param_dtype": dtype,
            "rngs": nnx.Rngs(0),
        }
        super().__init__(architecture.layers, "", inputs, options)
        self.architecture = architecture
        self.precision = precision
        self._dtype = dtype
        self.deterministic = False  # what train() and eval() set in every module that has it

    def __call__(self, x: jax.Array, outputs: Outputs | None = None) -> jax.Array | tuple[jax.Array, ...]:
        outputs = {} if outputs is None else outputs
        x = jnp.transpose(x, (0, 2, 3, 1))
        side = []
        for name in self._names:
            if not isinstance(getattr(self, name), Auxiliary):
                x = self._run(name, x, outputs)
            elif not self.deterministic:
                side.append(self._run(name, x, outputs).astype(self._dtype))
        x = x.astype(self._dtype)
        return (x, *side) if side else x

    def variables(self, kind: type[nnx.Variable]) -> dict[Path, nnx.Variable]:
        """The parameters (`nnx.Param`) or running statistics (`nnx.BatchStat`)."""
        return {path: node for path, node in nnx.iter_graph(self) if isinstance(node, kind)}

    def arrays(self, kind: type[nnx.Variable]) -> Arrays:
        """What these hold, for a compiled function."""
        return {path: variable[...] for path, variable in self.variables(kind).items()}


def build_layer(layer: Layer, path: str, inputs: dict[str, Shape], options: Options) -> nnx.Module:
    """The module for one record of the tree, composite or not."""
    match layer:
        case spec.Block():
            return Sequence(layer.layers, path, inputs, options)
        case spec.Auxiliary():
            return Auxiliary(layer.layers, path, inputs, options)
        case spec.Branches():
            return Branches(layer.branches, path, inputs, options)
        case spec.Residual():
            return Residual(layer, path, inputs, options)
        case _:
            return LAYERS[type(layer)](layer, inputs[path], options)


def build(architecture: Architecture, *, device: str = "cpu", precision: str = "fp32") -> Network:
    """The network on its device, kernels at zero (see `initialize`)."""
    target = get_device(device)
    with jax.default_device(target):
        network = Network(architecture, precision)
    # Committed to the device: whatever meets these arrays in a compiled function follows them there.
    nnx.update(network, jax.device_put(nnx.state(network), target))
    return network
